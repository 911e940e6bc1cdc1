#!/usr/bin/env python3
"""The APIs of other programs: requests as the official openai package, webuiapi, Open WebUI and curl send them, on a real studio."""
import base64
import http.client
import json
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from pictures import multipart, pixels_of, png  # noqa: E402
from studio import TROUBLED, Studio, wait_for  # noqa: E402
from tap import claim, run_claims  # noqa: E402

OPENAI = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "OpenAI/Python 3.57.0", "X-Stainless-Lang": "python",
          "X-Stainless-Async": "false", "X-Stainless-Retry-Count": "0", "X-Stainless-Read-Timeout": "600", "X-CyberImage": ""}
REQUESTS = {"User-Agent": "python-requests/2.34.2", "Accept": "*/*", "Content-Type": "application/json", "X-CyberImage": ""}

# What webuiapi sends for txt2img("a neon fox", negative_prompt="blur", seed=1003, steps=2, width=64, height=64, cfg_scale=4).
TXT2IMG = json.loads("""
{"enable_hr": false, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 0, "hr_resize_x": 0, "hr_resize_y": 0,
 "hr_checkpoint_name": null, "hr_sampler_name": null, "hr_scheduler": null, "hr_prompt": "", "hr_negative_prompt": "",
 "denoising_strength": 0.7, "firstphase_width": 0, "firstphase_height": 0, "prompt": "a neon fox", "styles": [], "seed": 1003,
 "subseed": -1, "subseed_strength": 0.0, "seed_resize_from_h": 0, "seed_resize_from_w": 0, "batch_size": 1, "n_iter": 1, "steps": 2,
 "cfg_scale": 4, "width": 64, "height": 64, "restore_faces": false, "tiling": false, "do_not_save_samples": false,
 "do_not_save_grid": false, "negative_prompt": "blur", "eta": 1.0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1,
 "override_settings": {}, "override_settings_restore_afterwards": true, "sampler_name": "Euler a", "scheduler": "automatic",
 "sampler_index": "Euler a", "script_name": null, "script_args": [], "send_images": true, "save_images": false, "alwayson_scripts": {}}
""")
# The same for img2img.
IMG2IMG = json.loads("""
{"resize_mode": 0, "denoising_strength": 0.6, "image_cfg_scale": 1.5, "mask_blur": 4, "inpainting_fill": 0, "inpaint_full_res": true,
 "inpaint_full_res_padding": 0, "inpainting_mask_invert": 0, "initial_noise_multiplier": 1, "prompt": "a cat", "styles": [], "seed": 5,
 "subseed": -1, "subseed_strength": 0, "seed_resize_from_h": 0, "seed_resize_from_w": 0, "batch_size": 1, "n_iter": 1, "steps": 2,
 "cfg_scale": 4, "width": 64, "height": 64, "restore_faces": false, "tiling": false, "do_not_save_samples": false,
 "do_not_save_grid": false, "negative_prompt": "", "eta": 1.0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1,
 "override_settings": {}, "override_settings_restore_afterwards": true, "sampler_name": "Euler a", "scheduler": "automatic",
 "sampler_index": "Euler a", "include_init_images": false, "script_name": null, "script_args": [], "send_images": true,
 "save_images": false, "alwayson_scripts": {}}
""")


def form(fields, files):
    """A multipart body as httpx writes it, and its headers."""
    body, kind = multipart(fields, files)
    return body, {**OPENAI, "Content-Type": kind}


def openai(studio, path, body, status=200, headers=None):
    answer = studio.post("/v1/" + path, body, headers=headers or OPENAI)
    assert answer.status == status, (path, answer)
    if status != 200:
        assert set(answer.json["error"]) == {"message", "type", "param", "code"}, answer
    return answer.json


def sdapi(studio, path, body=None, status=200, method="POST"):
    answer = studio.ask(method, "/sdapi/v1/" + path, body, headers=REQUESTS)
    assert answer.status == status, (path, answer)
    return answer.json


def is_white_left(studio, job):
    """Whether the job's mask is white in its left half and black in the other; it must be one or the reverse."""
    rows = pixels_of(studio.get("/images/%s.png" % job["request"]["mask"]).body)
    n_channels = len(rows[0]) // 64
    left, right = bytes([255] * 32 * n_channels), bytes(32 * n_channels)
    assert set(rows) in ({left + right}, {right + left}), rows[0]
    return set(rows) == {left + right}


def jobs_of(studio):
    return studio.need("GET", "/api/v1/jobs")["jobs"]


# ---- OpenAI


@claim
def generations_come_as_data_and_as_links(folder):
    with Studio(folder) as studio:
        begin = time.time()
        made = openai(studio, "images/generations", {"model": "neon", "prompt": "a neon fox", "n": 2, "response_format": "b64_json", "size": "64x64"})
        assert begin - 2 <= made["created"] <= time.time() + 2 and made["output_format"] == "png" and made["size"] == "64x64", made
        pictures = [base64.b64decode(one["b64_json"], validate=True) for one in made["data"]]
        assert len(pictures) == 2 and len(pixels_of(pictures[0])) == 64 and pictures[0] != pictures[1]
        assert "url" not in made["data"][0]
        job = jobs_of(studio)[0]
        assert job["source"] == "openai" and job["state"] == "done" and len(job["images"]) == 2, job
        assert [studio.get("/images/%s.png" % i).body for i in job["images"]] == pictures, "the gallery holds the same files"

        made = openai(studio, "images/generations", {"prompt": "a neon fox", "response_format": "url", "size": "64x64", "output_format": "jpeg",
                                                     "output_compression": 80, "user": "u-1", "background": "auto", "quality": "standard"})
        link = made["data"][0]["url"]
        assert link.startswith("http://127.0.0.1:%d/v1/images/" % studio.port) and "b64_json" not in made["data"][0], made
        answer = studio.get(link[len("http://127.0.0.1:%d" % studio.port):], headers={"X-CyberImage": ""})
        assert answer.status == 200 and answer.headers["Content-Type"] == "image/jpeg" and answer.body[:2] == b"\xff\xd8", answer
        for spoilt in (link.replace("quality=80", "quality=81"), link[:-1] + ("0" if link[-1] != "0" else "1"), link.replace(".jpg", ".webp"),
                       link.split("&signature")[0]):
            assert studio.get(spoilt[len("http://127.0.0.1:%d" % studio.port):]).status in (404, 422), spoilt
        both = openai(studio, "images/generations", {"prompt": "a neon fox", "size": "64x64"})["data"][0]
        assert set(both) == {"b64_json", "url"}, set(both)
        with studio.database() as database:
            actions = [row[0] for row in database.execute("SELECT action FROM audit WHERE object = ?", (job["id"],))]
        assert actions == ["job.submitted", "job.started", "job.done"], actions


@claim
def a_seed_gives_the_same_picture_as_everywhere(folder):
    with Studio(folder) as studio:
        made = openai(studio, "images/generations", {"prompt": "a neon fox", "size": "64x64", "seed": 7, "steps": 2, "guidance": 4, "response_format": "b64_json"})
        own = studio.wait(studio.submit(guidance=4)["id"])["images"][0]
        a1111 = sdapi(studio, "txt2img", {**TXT2IMG, "seed": 7, "negative_prompt": ""})
        expected = pixels_of(studio.get("/images/%s.png" % own).body)
        assert pixels_of(base64.b64decode(made["data"][0]["b64_json"])) == expected
        assert pixels_of(base64.b64decode(a1111["images"][0])) == expected


@claim
def edits_take_pictures_and_masks(folder):
    red, blue = png(64, 64, lambda x, y: (255, 0, 0)), png(64, 80, lambda x, y: (0, 0, 255))
    half = png(64, 64, lambda x, y: (9, 9, 9, 0 if x < 32 else 255))
    fields = [("prompt", "a cat"), ("model", "neon"), ("size", "64x64"), ("response_format", "b64_json")]
    with Studio(folder) as studio:
        body, headers = form(fields, [("image", "a.png", red), ("mask", "m.png", half)])
        made = openai(studio, "images/edits", body, headers=headers)
        assert len(pixels_of(base64.b64decode(made["data"][0]["b64_json"]))) == 64
        job = jobs_of(studio)[0]
        assert job["request"]["init"] and job["request"]["mask"] and job["request"]["strength"] == 1.0, job
        assert studio.need("GET", "/api/v1/images/" + job["request"]["init"])["kind"] == "upload"
        assert is_white_left(studio, job), "what is transparent is made anew"

        body, headers = form([("prompt", "a cat"), ("response_format", "b64_json")], [("image[]", "a.png", red), ("image[]", "b.png", blue)])
        made = openai(studio, "images/edits", body, headers=headers)
        job = jobs_of(studio)[0]
        assert len(job["request"]["references"]) == 2 and made["size"] == "64x64", (job, made["size"])
        answers = [
            ([("prompt", "a cat")], [], "image"), ([], [("image", "a.png", red)], "prompt"),
            ([("prompt", "x")], [("image", "a.png", red), ("mask", "m.png", red)], "mask"),
            ([("prompt", "x")], [("image", "a.png", b"GIF89a nothing")], "image"), ([("prompt", "x"), ("n", "eleven")], [("image", "a.png", red)], "n"),
            ([("prompt", "x")], [("image", "a.png", red), ("photo", "a.png", red)], "photo"),
        ]
        for fields, files, field in answers:
            body, headers = form(fields, files)
            assert openai(studio, "images/edits", body, 422, headers)["error"]["param"] == field, (fields, field)


@claim
def openais_errors_are_in_its_own_form(folder):
    good = {"model": "neon", "prompt": "x", "size": "64x64"}
    cases = [
        ({"model": "nothing"}, 404, "model", "model_not_found"), ({"size": "1x1"}, 422, "size", "invalid-value"),
        ({"size": "big"}, 422, "size", None), ({"n": 11}, 422, "n", None), ({"n": 0}, 422, "n", None), ({"prompt": ""}, 422, "prompt", None),
        ({"background": "transparent"}, 422, "background", None), ({"quality": "high"}, 422, "quality", None), ({"stream": True}, 422, "stream", None),
        ({"style": "natural"}, 422, "style", None), ({"colour": "red"}, 422, "colour", None), ({"output_format": "gif"}, 422, "output_format", None),
        ({"output_compression": 50}, 422, "output_compression", None), ({"response_format": "file"}, 422, "response_format", None),
    ]
    with Studio(folder) as studio:
        for change, status, field, code in cases:
            error = openai(studio, "images/generations", {**good, **change}, status)["error"]
            assert error["param"] == field and error["type"] == "invalid_request_error" and error["message"], (change, error)
            assert code is None or error["code"] == code, error
        assert openai(studio, "images/generations", b"{", 400)["error"]["type"] == "invalid_request_error"
        assert openai(studio, "images/unknown", {}, 404)["error"]["message"]
        assert jobs_of(studio) == []
        models = studio.need("GET", "/v1/models", headers=OPENAI)
        assert models["object"] == "list" and [m["id"] for m in models["data"]] == ["neon"] and models["data"][0]["object"] == "model", models
        assert studio.need("GET", "/v1/models/neon")["id"] == "neon"
        assert studio.get("/v1/models/org/none").json["error"]["code"] == "model_not_found"


@claim
def a_token_is_the_key(folder):
    with Studio(folder, no_auth="false") as studio:
        owner = studio.sign_in()
        token = studio.need("POST", "/api/v1/tokens", {"name": "chat", "scopes": ["generate"]}, 201, headers=owner)["token"]
        reader = studio.need("POST", "/api/v1/tokens", {"name": "look", "scopes": ["read"]}, 201, headers=owner)["token"]
        body = {"model": "neon", "prompt": "x", "size": "64x64", "response_format": "url"}
        for headers, status in (({}, 401), ({"Authorization": "Bearer sk-nothing"}, 401), ({"Authorization": "Bearer " + reader}, 403)):
            answer = studio.post("/v1/images/generations", body, headers={**OPENAI, **headers})
            assert answer.status == status and answer.json["error"]["message"], (headers, answer)
        assert studio.post("/v1/images/generations", body, headers=OPENAI).json["error"]["code"] == "invalid_api_key"
        made = studio.need("POST", "/v1/images/generations", body, headers={**OPENAI, "Authorization": "Bearer " + token})
        path = made["data"][0]["url"].split(":%d" % studio.port)[1]
        assert studio.get(path, headers={"X-CyberImage": ""}).status == 200, "the link works without the token"
        basic = "Basic " + base64.b64encode(("anybody:" + token).encode()).decode()
        assert studio.get("/sdapi/v1/options", headers={**REQUESTS, "Authorization": basic}).status == 200
        assert studio.post("/sdapi/v1/txt2img", TXT2IMG, headers={**REQUESTS, "Authorization": basic}).status == 200
        wrong = "Basic " + base64.b64encode(b"anybody:wrong").decode()
        answer = studio.get("/sdapi/v1/options", headers={**REQUESTS, "Authorization": wrong})
        assert answer.status == 401 and answer.json["error"] and answer.json["detail"], answer
    # A restart ends the links: their key is not kept.
    with studio:
        assert studio.get(path, headers={"X-CyberImage": ""}).status == 404


@claim
def a_client_that_hangs_up_ends_its_job(folder):
    with Studio(folder, program=TROUBLED) as studio:
        connection = http.client.HTTPConnection("127.0.0.1", studio.port)
        connection.request("POST", "/v1/images/generations", json.dumps({"prompt": "a fox [slow 300]", "size": "64x64", "steps": 50}), OPENAI)
        job = wait_for(lambda: [j for j in jobs_of(studio) if j["state"] == "running"], 30, "the job")[0]
        connection.close()
        assert studio.wait(job["id"], "cancelled", seconds=15)["images"] == []
        again = openai(studio, "images/generations", {"prompt": "a fox", "size": "64x64", "steps": 1, "response_format": "b64_json"})
        assert again["data"]


@claim
def a_failure_is_told_and_not_tried_again(folder):
    with Studio(folder, program=TROUBLED) as studio:
        answer = studio.post("/v1/images/generations", {"prompt": "a fox [nan]", "size": "64x64"}, headers=OPENAI)
        assert answer.status >= 400 and answer.headers["X-Should-Retry"] == "false" and answer.json["error"]["message"], answer
        answer = studio.post("/sdapi/v1/txt2img", {**TXT2IMG, "prompt": "a fox [nan]"}, headers=REQUESTS)
        assert answer.status >= 400 and answer.json["detail"], answer


# ---- A1111


@claim
def txt2img_answers_as_a1111_does(folder):
    with Studio(folder) as studio:
        made = sdapi(studio, "txt2img", {**TXT2IMG, "batch_size": 2})
        assert set(made) == {"images", "parameters", "info"} and len(made["images"]) == 2, set(made)
        assert len(pixels_of(base64.b64decode(made["images"][0], validate=True))) == 64
        info = json.loads(made["info"])
        assert info["seed"] == 1003 and info["all_seeds"] == [1003, 1004] and info["prompt"] == "a neon fox", info
        assert info["negative_prompt"] == "blur" and info["sampler_name"] == "Euler" and info["sd_model_name"] == "neon", info
        text = info["infotexts"][1]
        assert text.startswith("a neon fox\nNegative prompt: blur\nSteps: 2, Sampler: Euler, CFG scale: 4, Seed: 1004, Size: 64x64"), text
        assert made["parameters"]["steps"] == 2 and made["parameters"]["width"] == 64, made["parameters"]
        job = jobs_of(studio)[0]
        assert job["source"] == "sdapi" and job["request"]["negative_prompt"] == "blur" and job["count"] == 2, job
        assert sdapi(studio, "txt2img", {**TXT2IMG, "send_images": False})["images"] == []
        # Open WebUI's request has hardly anything in it.
        assert len(sdapi(studio, "txt2img", {"prompt": "x", "batch_size": 1, "width": 64, "height": 64, "steps": 1, "negative_prompt": ""})["images"]) == 1
        refused = [({"enable_hr": True}, "enable_hr"), ({"sampler_name": "DPM++ 2M"}, "sampler_name"), ({"restore_faces": True}, "restore_faces"),
                   ({"script_name": "X/Y/Z plot"}, "script_name"), ({"alwayson_scripts": {"ControlNet": {}}}, "alwayson_scripts"), ({"styles": ["x"]}, "styles"),
                   ({"subseed_strength": 0.5}, "subseed_strength"), ({"tiling": True}, "tiling"), ({"who": 1}, "who"), ({"width": 65}, "width"),
                   ({"batch_size": 65}, "batch_size"), ({"cfg_scale": 101}, "cfg_scale"), ({"seed": 2**32}, "seed"), ({"steps": 0}, "steps"),
                   ({"override_settings": {"eta_noise_seed_delta": 31337}}, "eta_noise_seed_delta"), ({"init_images": ["x"]}, "init_images")]
        before = len(jobs_of(studio))
        for change, field in refused:
            answer = sdapi(studio, "txt2img", {**TXT2IMG, **change}, 422)
            assert answer["errors"] == field and answer["detail"], (change, answer)
        assert sdapi(studio, "txt2img", {**TXT2IMG, "override_settings": {"sd_model_checkpoint": "none"}}, 404)["errors"] == "sd_model_checkpoint"
        assert len(jobs_of(studio)) == before


@claim
def img2img_paints_on_pictures(folder):
    red = base64.b64encode(png(64, 64, lambda x, y: (255, 0, 0))).decode()
    white_left = base64.b64encode(png(64, 64, lambda x, y: (255,) if x < 32 else (0,))).decode()
    clear_right = base64.b64encode(png(64, 64, lambda x, y: (0, 0, 0, 255) if x < 32 else (0, 0, 0, 0))).decode()
    with Studio(folder) as studio:
        made = sdapi(studio, "img2img", {**IMG2IMG, "init_images": ["data:image/png;base64," + red]})
        assert json.loads(made["info"])["denoising_strength"] == 0.6 and made["parameters"]["init_images"] is None, made["parameters"]
        for mask, is_turned, is_left in ((white_left, 0, True), (white_left, 1, False), (clear_right, 0, True), (clear_right, 1, False)):
            sdapi(studio, "img2img", {**IMG2IMG, "init_images": [red], "mask": mask, "denoising_strength": 1.0, "inpainting_mask_invert": is_turned})
            assert is_white_left(studio, jobs_of(studio)[0]) == is_left, (is_turned, is_left)
        assert sdapi(studio, "img2img", IMG2IMG, 422)["errors"] == "init_images"
        assert sdapi(studio, "img2img", {**IMG2IMG, "init_images": ["?"]}, 422)["errors"] == "init_images"
        assert sdapi(studio, "img2img", {**IMG2IMG, "init_images": [red], "mask": "AAAA"}, 422)["errors"] == "mask"
        assert sdapi(studio, "img2img", {**IMG2IMG, "init_images": [red], "mask_blur": 9}, 422)["errors"] == "mask_blur"


@claim
def progress_is_shown_and_interrupt_ends_it(folder):
    with Studio(folder, program=TROUBLED) as studio:
        nothing = sdapi(studio, "progress", method="GET")
        assert nothing["progress"] == 0 and nothing["current_image"] is None and nothing["state"]["job"] == "", nothing
        answers = []
        body = {**TXT2IMG, "prompt": "a fox [slow 200]", "steps": 50}
        thread = threading.Thread(target=lambda: answers.append(studio.post("/sdapi/v1/txt2img", body, headers=REQUESTS, seconds=60)))
        thread.start()

        def look():
            shown = sdapi(studio, "progress", method="GET")
            return shown if shown["current_image"] and shown["progress"] > 0 else None

        shown = wait_for(look, 30, "a preview")
        assert 0 < shown["progress"] < 1 and shown["eta_relative"] > 0 and shown["state"]["sampling_steps"] == 50, shown["state"]
        assert pixels_of(base64.b64decode(shown["current_image"]))
        assert sdapi(studio, "progress?skip_current_image=true", method="GET")["current_image"] is None
        assert studio.post("/sdapi/v1/interrupt", headers={"User-Agent": "python-requests/2.34.2", "X-CyberImage": ""}).status == 200
        thread.join(20)
        assert answers and answers[0].status == 409 and "cancelled" in answers[0].json["detail"], answers
        assert jobs_of(studio)[0]["state"] == "cancelled"


@claim
def what_tools_ask_at_their_start_is_there(folder):
    with Studio(folder) as studio:
        models = sdapi(studio, "sd-models", method="GET")
        assert [m["model_name"] for m in models] == ["neon"] and len(models[0]["sha256"]) == 64 and models[0]["sha256"].startswith(models[0]["hash"]), models
        assert [s["name"] for s in sdapi(studio, "samplers", method="GET")] == ["Euler"]
        for name in ("upscalers", "sd-vae", "loras", "hypernetworks", "face-restorers", "prompt-styles", "script-info", "latent-upscale-modes"):
            assert sdapi(studio, name, method="GET") == [], name
        for name in ("schedulers", "embeddings", "scripts", "cmd-flags", "memory"):
            assert sdapi(studio, name, method="GET"), name
        assert sdapi(studio, "options", method="GET")["sd_model_checkpoint"] == "neon"
        assert sdapi(studio, "options", {"sd_model_checkpoint": "neon"}) is None
        assert sdapi(studio, "options", {"sd_model_checkpoint": "none"}, 404)["errors"] == "sd_model_checkpoint"
        assert sdapi(studio, "options", {"CLIP_stop_at_last_layers": 2}, 422)["errors"] == "CLIP_stop_at_last_layers"
        picture = studio.wait(studio.submit("a \"quoted\", fox", guidance=4)["id"])["images"][0]
        data = base64.b64encode(studio.get("/images/%s.png" % picture).body).decode()
        read = sdapi(studio, "png-info", {"image": "data:image/png;base64," + data})
        assert read["info"].startswith('a "quoted", fox\nSteps: 2, Sampler: Euler') and read["items"]["parameters"] == read["info"], read
        assert read["parameters"]["Prompt"] == 'a "quoted", fox' and read["parameters"]["Seed"] == "7", read["parameters"]
        assert sdapi(studio, "png-info", {"image": base64.b64encode(png(8, 8, lambda x, y: (x,))).decode()})["info"] == ""
        assert sdapi(studio, "png-info", {"image": "AAAA"}, 422)["errors"] == "image"
        with studio.database() as database:
            assert database.execute("SELECT count(*) FROM audit WHERE action = 'model.chosen'").fetchone()[0] == 1


if __name__ == "__main__":
    sys.exit(run_claims())
