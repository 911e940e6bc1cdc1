"""The command line from end to end: exit codes, files, sentences, the same bytes for the same settings. Prints TAP.

CYI_PROGRAM is the program, CYI_FIXTURES and CYI_SOURCE_ROOT as for every test. Words as arguments choose claims by name."""
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

from support import (BASE, GOLDEN, KLEIN, MODELS, PROGRAM, TINY, change_header, copy_model, environment, expect,
                     expect_refused, files_here, fill_tensor, generate, png_change_pixels, png_make, read, run, write)
from tap import Skip, claim, run_claims

COMMANDS = ["generate", "info", "verify", "models", "doctor", "bench"]

# ---- The program ----


@claim
def help_and_version_say_what_there_is(_):
    text = expect(0, "--help").out
    for command in COMMANDS:
        assert command in text
        assert "Usage: cyberimage " + command in expect(0, command, "--help").out
        assert expect(0, command, "--help").out == expect(0, "help", command).out
    assert re.fullmatch(r"cyberimage \d+\.\d+\.\d+\n", expect(0, "--version").out)


@claim
def unknown_commands_and_options_are_named(_):
    expect_refused("paint", words=["paint", "--help"])
    for command in COMMANDS:
        expect_refused(command, "--colour", words=["--colour"])
    assert run().code == 2


@claim
def generate_writes_a_picture_and_prints_its_name(_):
    name = generate("--seed", "42").out.strip()
    assert re.fullmatch(r"\./flux2-klein-\d{8}-\d{6}-seed42\.png", name), name
    assert read(name).startswith(b"\x89PNG")
    assert files_here() == {os.path.basename(name)}


@claim
def generate_uses_the_bundled_model_when_none_is_named(_):
    result = expect(0, "generate", "a neon star", "--width", "64", "--height", "64", "--steps", "1", "--seed", "1",
                    "-o", "x.png", "--json", "--quiet")
    assert result.object()["settings"]["model"]["name"] == "neon"
    assert result.err == ""


@claim
def generate_json_is_one_object_a_picture(_):
    lines = generate("--count", "2", "--seed", "7", "--json").lines()
    assert len(lines) == 2
    for i, line in enumerate(lines):
        item = json.loads(line)
        assert item["seed"] == 7 + i and item["index"] == i and os.path.exists(item["path"])
        assert item["width"] == 64 and item["height"] == 64 and item["seconds"] > 0
        assert item["settings"]["seed"] == 7 + i and item["settings"]["steps"] == 2
        assert set(item["phase_seconds"]) == {"encode_text", "encode_images", "denoise", "decode"}
        assert item["fallbacks"] == 0


@claim
def a_random_seed_is_recorded_and_repeats_the_picture(_):
    first = generate("-o", "a.png", "--json").object()
    assert 0 <= first["seed"] < 2 ** 32
    generate("-o", "b.png", "--seed", str(first["seed"]))
    assert read("a.png") == read("b.png")
    assert generate("-o", "c.png", "--json").object()["seed"] != first["seed"]


@claim
def the_same_seed_gives_the_same_bytes_with_any_number_of_threads(_):
    for name, threads in (("a.png", "1"), ("b.png", "2"), ("c.png", "1")):
        generate("-o", name, "--seed", "3", "--threads", threads, "--no-cache")
    assert read("a.png") == read("b.png") == read("c.png")


@claim
def a_batch_of_four_gives_the_bytes_of_four_batches_of_one(_):
    generate("-o", "batch.png", "--seed", "10", "--count", "4")
    for i in range(4):
        generate("-o", "one.png", "--seed", str(10 + i))
        assert read("one.png") == read("batch-%d.png" % (i + 1)), i
    assert len({read("batch-%d.png" % i) for i in range(1, 5)}) == 4


@claim
def seeds_go_round_at_32_bits(_):
    lines = generate("--seed", "4294967295", "--count", "2", "--json").lines()
    assert [json.loads(line)["seed"] for line in lines] == [4294967295, 0]
    generate("-o", "a.png", "--seed", "4294967297")
    generate("-o", "b.png", "--seed", "1")
    assert read("a.png") == read("b.png")


@claim
def jpg_and_webp_follow_the_ending_or_the_format(_):
    generate("-o", "a.jpg", "--quality", "80")
    generate("-o", "b.webp")
    assert read("a.jpg").startswith(b"\xff\xd8") and read("b.webp")[8:12] == b"WEBP"
    assert generate("--format", "webp").out.strip().endswith(".webp")


@claim
def a_named_file_is_replaced_and_no_other(_):
    write("x.png", b"old")
    generate("-o", "x.png", "--seed", "1")
    assert read("x.png").startswith(b"\x89PNG")
    write("x-2.png", b"precious")
    expect_refused("generate", "a", *TINY, "-o", "x.png", "--count", "3", words=["x-2.png"])
    os.mkdir("folder")
    names = [generate("-o", "folder", "--seed", "1").out.strip() for _ in range(2)]
    assert len(set(names)) == 2 and all(os.path.exists(name) for name in names)


@claim
def a_folder_with_a_slash_is_made(_):
    name = generate("-o", "new/deep/").out.strip()
    assert name.startswith("new/deep/flux2-klein-") and os.path.exists(name)


@claim
def a_prompt_comes_from_standard_input_or_after_two_dashes(_):
    generate("-o", "a.png", "--seed", "1")
    expect(0, "generate", "-", *TINY, "--quiet", "-o", "b.png", "--seed", "1", stdin=b"a red fox\n")
    assert read("a.png") == read("b.png")
    expect(0, "generate", *TINY, "--quiet", "-o", "c.png", "--", "--width")
    assert json.loads(run("info", "--json", "c.png").out)["cyberimage"]["prompt"] == "--width"


@claim
def progress_goes_to_standard_error_as_plain_lines(_):
    result = expect(0, "generate", "a red fox", *TINY, "-o", "x.png")
    assert result.out == "x.png\n"
    assert "Painting" in result.err and "\033" not in result.err and "\r" not in result.err


@claim
def verbose_prints_the_memory_plan_and_the_phases(_):
    err = expect(0, "generate", "a red fox", *TINY, "-o", "x.png", "--verbose").err
    for word in ("Memory:", "available", "Reading the prompt", "Developing", "Together"):
        assert word in err, err


@claim
def negative_prompts_count_for_base_models_and_are_noted_elsewhere(_):
    base = ["--model", BASE, "--width", "64", "--height", "64", "--steps", "2", "--seed", "1", "--guidance", "4"]
    expect(0, "generate", "a fox", *base, "--quiet", "-o", "a.png")
    expect(0, "generate", "a fox", *base, "--quiet", "-o", "b.png", "--negative", "snow")
    assert json.loads(run("info", "--json", "b.png").out)["cyberimage"]["negative_prompt"] == "snow"
    assert read("a.png") != read("b.png")
    err = expect(0, "generate", "a fox", *TINY, "-o", "c.png", "--negative", "snow").err
    assert "no effect" in err


@claim
def pictures_go_in_and_are_recorded_by_hash(_):
    inpaint = os.path.join(GOLDEN, "flux2-inpaint")
    generate("--image", os.path.join(GOLDEN, "flux2-edit", "a.png"), os.path.join(GOLDEN, "flux2-edit", "b.png"),
             "--init", os.path.join(inpaint, "init.png"), "--mask", os.path.join(inpaint, "mask.png"), "--strength",
             "0.7", "-o", "x.png", "--seed", "5")
    own = json.loads(run("info", "--json", "x.png").out)["cyberimage"]
    assert [r["file"] for r in own["references"]] == ["a.png", "b.png"]
    assert own["init"]["sha256"] == hashlib.sha256(read(os.path.join(inpaint, "init.png"))).hexdigest()
    assert own["mask"]["file"] == "mask.png" and abs(own["strength"] - 0.7) < 1e-6


@claim
def without_a_size_the_first_picture_that_goes_in_gives_it(_):
    write("in.png", png_make(100, 50))
    model = ["--model", KLEIN, "--steps", "1", "--quiet", "--json"]
    item = expect(0, "generate", "a", *model, "--init", "in.png", "-o", "x.png").object()
    assert (item["width"], item["height"]) == (96, 48), item


# ---- What cannot be ----

BAD_OPTIONS = [
    (["--width", "100"], ["100", "16"]),
    (["--height", "65"], ["65", "16"]),
    (["--width", "0"], ["--width", "0"]),
    (["--width", "-64"], ["--width", "-64"]),
    (["--width", "12x"], ["--width", "12x"]),
    (["--width", "99999999999999999999"], ["--width", "16384"]),
    (["--width", "16384", "--height", "16384"], []),
    (["--steps", "0"], ["--steps", "0"]),
    (["--steps", "1001"], ["--steps", "1000"]),
    (["--guidance", "1e999"], ["--guidance", "1e999"]),
    (["--guidance", "nan"], ["--guidance", "nan"]),
    (["--guidance", "-1"], ["--guidance", "-1"]),
    (["--seed", "-1"], ["--seed", "-1"]),
    (["--seed", "18446744073709551616"], ["--seed", "18446744073709551615"]),
    (["--count", "0"], ["--count", "0"]),
    (["--strength", "0.5"], ["--strength", "--init"]),
    (["--mask", "in.png"], ["--mask", "--init"]),
    (["--init", "in.png", "--strength", "0"], ["--strength"]),
    (["--init", "in.png", "--strength", "1.5"], ["--strength", "1.5"]),
    (["--init", "missing.png"], ["--init", "missing.png"]),
    (["--image", "text.png"], ["--image", "text.png"]),
    (["--image", "cut.png"], ["--image", "cut.png"]),
    (["--format", "bmp"], ["--format", "bmp"]),
    (["--quality", "101", "--format", "jpg"], ["--quality", "101"]),
    (["--quality", "90"], ["--quality"]),
    (["--output", "nowhere/x.png"], ["--output", "nowhere"]),
    (["--output", "x.gif"], ["--output", "x.gif"]),
    (["--output", "x.png", "--format", "jpg"], ["--output", "x.png"]),
    (["--threads", "0"], ["--threads"]),
    (["--threads", "1025"], ["--threads", "1024"]),
    (["--backend", "abacus"], ["--backend", "abacus"]),
    (["--precision", "f16"], ["--precision", "f16"]),
    (["--cache", "in.png"], ["--cache", "in.png"]),
    (["--model", "no-such-model"], ["no-such-model"]),
    (["--model", "./nothing"], ["nothing"]),
    (["--model", ""], ["--model"]),
]


@claim
def options_that_cannot_be_are_one_sentence_and_nothing_is_written(_):
    picture = png_make(64, 64)
    write("in.png", picture)
    write("text.png", b"this is no picture")
    write("cut.png", picture[:60])
    for options, words in BAD_OPTIONS:
        expect_refused("generate", "a red fox", *TINY, "--quiet", *options, words=words)


@claim
def prompts_that_cannot_be_are_one_sentence_and_nothing_is_written(_):
    for prompt, words in ((b"", ["empty"]), (b" \n\t", ["empty"]), (b"x" * 100 * 1000, ["100000", "prompt"]),
                          (b"fox \xff", ["UTF-8"]), (b"\xed\xa0\x80", ["UTF-8"]), (b"\xc0\xaf", ["UTF-8"])):
        expect_refused("generate", prompt, *TINY, "--quiet", words=words)
    expect_refused("generate", "-", *TINY, "--quiet", stdin=b"a\0b", words=["zero byte"])
    expect_refused("generate", "-", *TINY, "--quiet", stdin=b"x" * 3000000, words=["prompt"])
    expect_refused("generate", "a", *TINY, "--quiet", "--negative", b"\xff", words=["negative", "UTF-8"])
    expect_refused("generate", *TINY, words=["PROMPT"])
    expect_refused("generate", "a", "red", "fox", words=["red", "quotes"])


@claim
def a_missing_shard_is_named(_):
    model = copy_model(BASE, "model")
    name = "diffusion_pytorch_model-00002-of-00003.safetensors"
    os.remove(os.path.join(model, "transformer", name))
    expect_refused("generate", "a", "--model", "./model", "--quiet", words=["00002-of-00003"])


@claim
def a_wrong_shape_is_named(_):
    model = copy_model(KLEIN, "model")

    def swap(header):
        name = next(k for k in sorted(header) if len(header[k].get("shape", [])) == 2 and len(set(header[k]["shape"])) == 2)
        header[name]["shape"].reverse()

    change_header(os.path.join(model, "transformer", "diffusion_pytorch_model.safetensors"), swap)
    expect_refused("generate", "a", "--model", "./model", "--quiet", words=["transformer"])


@claim
def a_cut_file_is_named(_):
    model = copy_model(KLEIN, "model")
    path = os.path.join(model, "vae", "diffusion_pytorch_model.safetensors")
    write(path, read(path)[:-2])
    expect_refused("generate", "a", "--model", "./model", "--quiet", words=["diffusion_pytorch_model"])


@claim
def weights_that_are_not_numbers_never_become_a_picture(_):
    for part in ("transformer", "text_encoder", "vae"):
        model = copy_model(KLEIN, "model-" + part)
        name = "model.safetensors" if part == "text_encoder" else "diffusion_pytorch_model.safetensors"
        key = {"transformer": "to_q.weight", "text_encoder": "layers.0.mlp.up_proj", "vae": "decoder.conv_in.weight"}
        fill_tensor(os.path.join(model, part, name), key[part], b"\xc0\x7f")
        expect_refused("generate", "a", "--model", "./" + model, "--width", "64", "--height", "64", "--steps", "2",
                       "--quiet", "-o", "x.png")


@claim
def a_broken_model_folder_is_one_sentence(_):
    for name in ("model_index.json", "transformer/config.json", "tokenizer/tokenizer.json", "vae/config.json"):
        model = copy_model(KLEIN, "model")
        write(os.path.join(model, name), b"{ not json")
        expect_refused("generate", "a", "--model", "./model", "--quiet", words=[os.path.basename(name)])
        shutil.rmtree(model)


@claim
def another_schedule_is_refused_and_not_left_out(_):
    model = copy_model(KLEIN, "model")
    path = os.path.join(model, "scheduler", "scheduler_config.json")
    config = json.loads(read(path))
    for change, word in (({"use_karras_sigmas": True}, "use_karras_sigmas"), ({"stochastic_sampling": True}, "stochastic_sampling"),
                         ({"_class_name": "DDIMScheduler"}, "DDIMScheduler"), ({"time_shift_type": "cubic"}, "cubic"),
                         ({"shift_terminal": 2}, "shift_terminal"), ({"num_train_timesteps": 0}, "num_train_timesteps")):
        write(path, json.dumps({**config, **change}).encode())
        expect_refused("generate", "a", "--model", "./model", "--quiet", words=[word])


@claim
def a_folder_that_takes_no_files_is_refused_before_the_picture(_):
    expect_refused("generate", "a", *TINY, "-o", "/proc/x.png", words=["--output", "/proc"])


@claim
def a_full_disk_is_one_sentence_and_no_half_picture(_):
    os.mkdir("small")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "small"], capture_output=True, check=False).returncode != 0:
        raise Skip("a file system cannot be mounted here")
    try:
        write("small/precious", b"x" * 56000)
        result = run("generate", "a", *TINY, "--quiet", "--seed", "1", "-o", "small/x.png")
        assert result.code == 1 and "small/x.png" in result.err and "No space" in result.err, result
        assert os.listdir("small") == ["precious"]
    finally:
        subprocess.run(["umount", "small"], check=True)


# ---- Ctrl-C ----


def stop_while_running(number, *arguments):
    process = subprocess.Popen([PROGRAM, "generate", "a neon star", "--width", "512", "--height", "512", "--steps", "500",
                                *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    for line in process.stderr:
        if b"Painting" in line:
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@claim
def ctrl_c_leaves_nothing_behind(_):
    for number in (signal.SIGINT, signal.SIGTERM):
        code, err = stop_while_running(number, "--seed", "1")
        assert code == 130, (code, err)
        assert files_here() == set(), files_here()


@claim
def ctrl_c_ends_an_operation_that_takes_hours(_):
    process = subprocess.Popen([PROGRAM, "generate", "a", "--width", "8192", "--height", "8192", "--steps", "1"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    for line in process.stderr:
        if b"Painting" in line or b"cyberimage:" in line:
            break
    if b"cyberimage:" in line: # too large for this machine
        assert process.wait(60) == 2
        return
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and files_here() == set()


@claim
def show_draws_after_saving(_):
    for how, start in (("kitty", "\033_G"), ("iterm2", "\033]1337;"), ("sixel", "\033P"), ("blocks", "\033[")):
        result = generate("-o", "x.png", "--show-as", how)
        assert start in result.err and result.out == "x.png\n", how
    assert "terminal" in expect(0, "generate", "a", *TINY, "-o", "x.png", "--show").err


@claim
def ctrl_c_keeps_a_file_that_was_to_be_replaced(_):
    write("x.png", b"old")
    code, _ = stop_while_running(signal.SIGINT, "-o", "x.png")
    assert code == 130 and read("x.png") == b"old" and files_here() == {"x.png"}


# ---- info ----


@claim
def info_reads_back_what_generate_wrote_in_every_format(_):
    for ending in ("png", "jpg", "webp"):
        name = "x." + ending
        expect(0, "generate", "an owl – é 猫 😀, \"quoted\"", *TINY, "--quiet", "--seed", "9", "-o", name)
        found = expect(0, "info", "--json", name).object()
        own = found["cyberimage"]
        assert own["prompt"] == "an owl – é 猫 😀, \"quoted\"" and own["seed"] == 9 and own["steps"] == 2, own
        assert len(own["model"]["fingerprint"]) == 64 and own["engine"]["version"]
        assert found["parameters"]["prompt"] == own["prompt"]
        assert found["parameters"]["settings"]["Model hash"] == own["model"]["fingerprint"][:10]
        assert found["parameters"]["settings"]["Seed"] == "9"
        text = expect(0, "info", name).out
        assert "Seed" in text and "an owl" in text and "64×64" in text


@claim
def info_reads_the_parameters_of_other_programs(_):
    text = "cat\nNegative prompt: dog\nSteps: 28, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 8x8, Version: v1.7.0"
    write("a.png", png_make(8, 8, texts=[("parameters", text)]))
    found = expect(0, "info", "--json", "a.png").object()
    assert found["cyberimage"] is None and found["parameters_text"] == text
    assert found["parameters"]["settings"]["Sampler"] == "Euler a"
    shown = expect(0, "info", "a.png").out
    assert "Euler a" in shown and "dog" in shown


@claim
def info_shows_nothing_that_drives_the_terminal(_):
    write("a.png", png_make(8, 8, texts=[("parameters", "a\033]0;title\007\nSteps: 1, Seed: 2, Size: 8x8")]))
    shown = expect(0, "info", "a.png").out
    assert "\033" not in shown and "\\x1B" in shown


@claim
def info_of_a_plain_picture_says_there_are_no_settings(_):
    write("a.png", png_make(8, 8))
    assert "no settings" in expect(0, "info", "a.png").out
    write("b.png", b"nothing")
    expect_refused("info", "b.png", words=["b.png"])
    expect_refused("info", "missing.png", words=["missing.png"])
    expect_refused("info", words=["FILE"])


# ---- verify ----


@claim
def verify_calls_an_untouched_picture_identical(_):
    for name in ("x.png", "x.jpg", "x.webp"):
        generate("--seed", "4", "-o", name)
        result = expect(0, "verify", "--quiet", "--model", KLEIN, name)
        assert result.out.startswith("identical"), result.out


@claim
def verify_finds_the_model_by_its_fingerprint(_):
    generate("--seed", "4", "-o", "x.png")
    copy_model(KLEIN, "store/another-name")
    env = environment()
    env["CYBERIMAGE_MODELS"] = "store"
    verdict = expect(0, "verify", "--quiet", "--json", "x.png", env=env).object()
    assert verdict["verdict"] == "identical" and verdict["reasons"] == []
    shutil.rmtree("store")
    expect_refused("verify", "--quiet", "x.png", words=["flux2-klein"])


@claim
def verify_tells_changed_pixels_from_the_recorded_ones(_):
    generate("--seed", "4", "-o", "x.png")
    write("y.png", png_change_pixels(read("x.png")))
    result = expect(1, "verify", "--quiet", "--model", KLEIN, "y.png")
    assert result.out.startswith("different") and "changed" in result.out


@claim
def verify_names_another_model(_):
    generate("--seed", "4", "-o", "x.png")
    model = copy_model(KLEIN, "model")
    fill_tensor(os.path.join(model, "transformer", "diffusion_pytorch_model.safetensors"), "to_q.weight", b"\x00\x3c")
    result = run("verify", "--quiet", "--json", "--model", "./model", "x.png")
    verdict = json.loads(result.out)
    assert any("fingerprint" in reason for reason in verdict["reasons"]), verdict


@claim
def verify_needs_the_pictures_that_went_in(_):
    shutil.copy(os.path.join(GOLDEN, "flux2-edit", "a.png"), "a.png")
    generate("--image", "a.png", "--seed", "4", "-o", "x.png")
    assert expect(0, "verify", "--quiet", "--model", KLEIN, "x.png").out.startswith("identical")
    os.rename("a.png", "moved.png")
    expect_refused("verify", "--quiet", "--model", KLEIN, "x.png", words=["a.png", "--image"])
    assert expect(0, "verify", "--quiet", "--model", KLEIN, "--image", "moved.png", "x.png").out.startswith("identical")
    write("a.png", png_make(64, 64))
    expect_refused("verify", "--quiet", "--model", KLEIN, "x.png", words=["SHA-256"])


@claim
def verify_refuses_what_has_no_settings(_):
    write("a.png", png_make(8, 8))
    expect_refused("verify", "a.png", words=["no settings"])


# ---- models, doctor, bench ----


@claim
def models_lists_what_works_and_says_why_the_rest_does_not(_):
    copy_model(KLEIN, "models/good")
    broken = copy_model(KLEIN, "models/broken")
    os.remove(os.path.join(broken, "vae", "diffusion_pytorch_model.safetensors"))
    found = {m["name"]: m for m in expect(0, "models", "--json").object()}
    assert found["good"]["usable"] and found["good"]["family"] == "flux2" and found["good"]["parameters"] > 0
    assert found["good"]["disk_bytes"] > 100000 and len(found["good"]["fingerprint"]) == 64
    assert not found["broken"]["usable"] and "vae" in found["broken"]["problem"]
    assert found["neon"]["usable"]
    text = expect(0, "models").out
    assert "good" in text and "cannot be used" in text


@claim
def models_can_be_named_from_any_folder_that_is_searched(_):
    copy_model(KLEIN, "home/.cache/huggingface/hub/models--org--Tiny/snapshots/abc")
    for name in ("tiny", "org/Tiny"):
        expect(0, "generate", "a", "--model", name, "--width", "64", "--height", "64", "--steps", "1", "--quiet", "-o",
               "x.png")


@claim
def a_single_file_with_its_parts_is_a_model(_):
    bfl = os.path.join(GOLDEN, "flux2-bfl")
    parts = ["--text-encoder", os.path.join(KLEIN, "text_encoder"), "--vae", os.path.join(bfl, "ae.safetensors"),
             "--tokenizer", os.path.join(KLEIN, "tokenizer")]
    size = ["--width", "64", "--height", "64", "--steps", "1", "--quiet"]
    expect(0, "generate", "a", "--model", os.path.join(bfl, "transformer.safetensors"), *parts, *size, "-o", "x.png")
    expect_refused("generate", "a", "--model", os.path.join(bfl, "transformer.safetensors"), *size)


@claim
def doctor_is_content_here_and_says_what_is_missing_elsewhere(_):
    report = expect(0, "doctor", "--json").object()
    assert report["ready"] and {"processor", "cores", "memory", "engine", "models"} <= {
        f["about"] for f in report["findings"]}
    assert "Ready" in expect(0, "doctor").out
    shutil.copy(PROGRAM, "alone")
    env = environment()
    env["CYBERIMAGE_MODELS"] = ""
    result = expect(1, "doctor", env=env, program="./alone")
    assert "ERROR" in result.out and "CYBERIMAGE_MODELS" in result.out


@claim
def bench_measures_every_phase(_):
    report = expect(0, "bench", *TINY, "--runs", "2", "--quiet", "--json").object()
    for run_ in ("first_seconds", "best_seconds"):
        assert set(report[run_]) == {"load", "encode", "step", "decode", "picture"}
        assert report[run_]["picture"] > 0
    assert files_here() == set()
    assert "One step" in expect(0, "bench", *TINY, "--runs", "1", "--quiet").out


# ---- The cache ----


@claim
def the_cache_is_private_and_can_be_switched_off(_):
    generate("-o", "a.png", "--no-cache")
    assert not os.path.exists("home")
    generate("-o", "a.png")
    assert os.stat("home/.cache/cyberimage").st_mode & 0o777 == 0o700
    generate("-o", "a.png", "--cache", "mine")
    assert os.path.isdir("mine")


if __name__ == "__main__":
    sys.exit(run_claims())
