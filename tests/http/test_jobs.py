#!/usr/bin/env python3
"""The queue from outside, with real workers and the neon model: a job's life, its order, its ends, and what it survives."""
import hashlib
import hmac
import http.server
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from kills import Kills, find_file, pixels_of  # noqa: E402
from studio import ENDED, TROUBLED, Studio, Watcher, wait_for  # noqa: E402
from tap import Skip, claim, run_claims  # noqa: E402

NEON = os.path.join(os.environ["CYI_SOURCE_ROOT"], "models", "neon")
NOWHERE = "01999999-0000-7000-8000-000000000000"


def troubled(folder, **settings):
    return Studio(folder, program=TROUBLED, **settings)


def audit_of(studio, job_id):
    with studio.database() as database:
        return [row["action"] for row in database.execute("SELECT action FROM audit WHERE object = ? ORDER BY seq", (job_id,))]


def check_nothing_left(studio):
    """Every picture's file has its row and the reverse, and no other file lies about."""
    files, others = studio.files()
    with studio.database() as database:
        rows = {row["id"] for row in database.execute("SELECT id FROM images")}
        assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert not database.execute("PRAGMA foreign_key_check").fetchall()
    assert files == rows, (files - rows, rows - files)
    assert not others, others


# ---- A life


@claim
def a_job_goes_from_the_request_to_its_pictures(folder):
    with Studio(folder) as studio:
        watcher = Watcher(studio)
        answer = studio.post("/api/v1/jobs", {"prompt": "a neon fox", "width": 64, "height": 64, "steps": 2, "count": 2})
        assert answer.status == 201, answer
        job = answer.json
        assert answer.headers["Location"].endswith("/api/v1/jobs/" + job["id"]), answer.headers
        assert job["state"] in ("queued", "running") and job["count"] == 2 and job["model"] == "neon", job
        assert 0 <= job["request"]["seed"] < 2**32 and job["request"]["guidance"] == 4.0, job
        done = studio.wait(job["id"])
        assert done["state"] == "done" and done["done"] == 2 and len(done["images"]) == 2 and done["error"] is None, done
        assert done["created"] <= done["started"] <= done["ended"], done
        with studio.database() as database:
            rows = database.execute("SELECT * FROM images ORDER BY job_index").fetchall()
            speeds = database.execute("SELECT * FROM speeds").fetchall()
        assert [row["id"] for row in rows] == done["images"]
        assert [row["seed"] for row in rows] == [job["request"]["seed"], (job["request"]["seed"] + 1) % 2**32]
        assert len(speeds) == 1 and speeds[0]["n"] == 2 and speeds[0]["step_ms"] > 0 and speeds[0]["rest_ms"] > 0
        assert audit_of(studio, job["id"]) == ["job.submitted", "job.started", "job.done"]
        check_nothing_left(studio)
        wait_for(lambda: any(e["job"]["state"] == "done" for e in watcher.of("job.changed")), 5)
        watcher.close()
        states = [e["job"]["state"] for e in watcher.of("job.changed")]
        assert [s for i, s in enumerate(states) if i == 0 or states[i - 1] != s] == ["queued", "running", "done"], states
        steps = [e["progress"] for e in watcher.of("job.progress")]
        assert {"load", "denoise", "save"} <= {p["phase"] for p in steps}, {p["phase"] for p in steps}
        fractions = [p["fraction"] for p in steps]
        assert fractions == sorted(fractions) and fractions[-1] > 0.9, fractions
        assert any(p["preview"] for p in steps), "there was no preview"
        assert len(watcher.of("image.added")) == 2
        assert re.search(r"\d INFO job\.done id=%s model=neon steps=2 pictures=2 ms=\d+\n" % job["id"], studio.read_log()), studio.read_log()
        assert "fox" not in studio.read_log()


@claim
def a_preview_can_be_fetched_while_the_picture_is_made(folder):
    with troubled(folder) as studio:
        job = studio.submit("a neon fox [slow 700]", steps=4)
        progress = studio.wait_progress(job["id"], lambda p: p["preview"])
        picture = studio.get(progress["preview"])
        assert picture.status == 200 and picture.headers["Content-Type"] == "image/webp", picture
        assert picture.body[:4] == b"RIFF" and picture.body[8:12] == b"WEBP"
        studio.wait(job["id"])
        assert studio.get(progress["preview"]).status == 404


@claim
def what_cannot_be_is_refused_by_name(folder):
    good = {"prompt": "a fox", "width": 64, "height": 64}
    cases = [
        ({"prompt": None}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": "x" * 70000}, "prompt"), ({"prompt": 7}, "prompt"),
        ({"width": 63}, "width"), ({"width": 0}, "width"), ({"width": -64}, "width"), ({"width": 2**31}, "width"),
        ({"width": 64.5}, "width"), ({"width": "64"}, "width"), ({"width": 16384, "height": 16384}, "width"),
        ({"height": 65}, "height"), ({"height": 2**62}, "height"), ({"steps": 0}, "steps"), ({"steps": 1001}, "steps"),
        ({"guidance": -1}, "guidance"), ({"guidance": 101}, "guidance"), ({"guidance": 1e308}, "guidance"),
        ({"seed": -1}, "seed"), ({"seed": 2**32}, "seed"), ({"seed": 1.5}, "seed"), ({"count": 0}, "count"), ({"count": 65}, "count"),
        ({"priority": 11}, "priority"), ({"priority": -11}, "priority"), ({"colour": "red"}, "colour"),
        ({"negative_prompt": "blur", "guidance": 1}, "negative_prompt"), ({"strength": 0.5}, "strength"), ({"mask": NOWHERE}, "mask"),
        ({"references": ["../x"]}, "references"), ({"references": [NOWHERE] * 11}, "references"), ({"init": "x"}, "init"),
        ({"init": NOWHERE, "strength": 0}, "strength"), ({"precision": "f16"}, "precision"), ({"parent": {"id": NOWHERE}}, "role"),
        ({"webhook": {"url": "file:///etc/passwd"}}, "webhook.url"), ({"webhook": {"url": "http://a@b.example/"}}, "webhook.url"),
        ({"webhook": {"url": "gopher://b.example/"}}, "webhook.url"), ({"webhook": {}}, "url"),
    ]
    with Studio(folder) as studio:
        for change, field in cases:
            answer = studio.post("/api/v1/jobs", {k: v for k, v in {**good, **change}.items() if v is not None})
            assert answer.status == 422, (change, answer)
            assert answer.json["field"] == field and answer.json["detail"], (change, answer)
        missing = [({"model": "no-such"}, "model"), ({"init": NOWHERE}, "init"), ({"references": [NOWHERE]}, "references"),
                   ({"parent": {"id": NOWHERE, "role": "remix"}}, "parent.id"), ({"enrichment_id": NOWHERE}, "enrichment_id")]
        for change, field in missing:
            answer = studio.post("/api/v1/jobs", {**good, **change})
            assert answer.status == 404 and answer.json["field"] == field, (change, answer)
        for body in (b"", b"[]", b"{", b'{"prompt": "a", "prompt": "b"}'):
            assert studio.post("/api/v1/jobs", body).status in (400, 422), body
        assert studio.need("GET", "/api/v1/jobs")["jobs"] == []
        for path in ("/api/v1/jobs/" + NOWHERE, "/api/v1/jobs/nothing"):
            assert studio.get(path).status == 404, path


@claim
def the_same_key_makes_one_job(folder):
    with Studio(folder) as studio:
        studio.need("POST", "/api/v1/queue/pause")
        key = {"Idempotency-Key": "one"}
        first = studio.submit(headers=key)
        assert studio.submit(headers=key, status=200)["id"] == first["id"]
        clash = studio.post("/api/v1/jobs", {"prompt": "another"}, headers=key)
        assert clash.status == 409 and first["id"] in clash.json["detail"], clash
        assert studio.post("/api/v1/jobs", {"prompt": "x"}, headers={"Idempotency-Key": "k" * 256}).status == 422
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(studio.post("/api/v1/jobs", {"prompt": "x"},
                                                                              headers={"Idempotency-Key": "two"}))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(a.status for a in answers) == [200] * 7 + [201], [a.status for a in answers]
        assert len({a.json["id"] for a in answers}) == 1
        assert len(studio.need("GET", "/api/v1/jobs")["jobs"]) == 2


# ---- Order


@claim
def waiting_jobs_can_be_put_in_another_order(folder):
    with Studio(folder) as studio:
        assert studio.need("POST", "/api/v1/queue/pause") == {"paused": True}
        ids = [studio.submit("fox %d" % i)["id"] for i in range(4)]

        def order():
            waiting = studio.need("GET", "/api/v1/queue")["waiting"]
            assert [job["position"] for job in waiting] == list(range(1, len(waiting) + 1))
            return [ids.index(job["id"]) for job in waiting]

        assert order() == [0, 1, 2, 3]
        studio.need("PATCH", "/api/v1/jobs/" + ids[3], {"before": ids[1]})
        assert order() == [0, 3, 1, 2]
        studio.need("PATCH", "/api/v1/jobs/" + ids[2], {"position": "first"})
        assert order() == [2, 0, 3, 1]
        studio.need("PATCH", "/api/v1/jobs/" + ids[2], {"position": "last"})
        assert order() == [0, 3, 1, 2]
        studio.need("PATCH", "/api/v1/jobs/" + ids[1], {"priority": 5})
        assert order() == [1, 0, 3, 2]
        studio.need("PATCH", "/api/v1/jobs/" + ids[0], {"priority": -1})
        assert order() == [1, 3, 2, 0]
        assert studio.job(ids[2])["position"] == 3
        for body in ({}, {"before": ids[0], "position": "first"}, {"place": 1}, {"priority": 11}):
            assert studio.ask("PATCH", "/api/v1/jobs/" + ids[0], body).status == 422, body
        studio.need("POST", "/api/v1/queue/resume")
        ended = [studio.wait(job_id) for job_id in ids]
        assert [j["state"] for j in ended] == ["done"] * 4
        begun = sorted(ids, key=lambda i: studio.job(i)["started"])
        assert [ids.index(i) for i in begun] == [1, 3, 2, 0]
        assert studio.ask("PATCH", "/api/v1/jobs/" + ids[0], {"priority": 1}).status == 409


@claim
def a_hundred_moves_to_one_place_keep_the_order(folder):
    with Studio(folder) as studio:
        studio.need("POST", "/api/v1/queue/pause")
        ids = [studio.submit("fox %d" % i)["id"] for i in range(3)]
        for i in range(100):  # halves of halves
            studio.need("PATCH", "/api/v1/jobs/" + ids[i % 2], {"before": ids[2]})
        assert [job["id"] for job in studio.need("GET", "/api/v1/queue")["waiting"]] == [ids[0], ids[1], ids[2]]
        assert studio.need("POST", "/api/v1/queue/clear") == {"cancelled": 3}


@claim
def a_paused_queue_finishes_what_runs_and_begins_nothing(folder):
    with troubled(folder) as studio:
        first, second = studio.submit("one [slow 300]", count=2), studio.submit("two")
        studio.wait(first["id"], "running")
        studio.need("POST", "/api/v1/queue/pause")
        assert studio.wait(first["id"])["state"] == "done"
        time.sleep(0.5)
        assert studio.job(second["id"])["state"] == "queued"
        assert studio.need("GET", "/api/v1/queue")["paused"] is True
        studio.stop()
        studio.start()  # it stays paused
        time.sleep(0.3)
        assert studio.job(second["id"])["state"] == "queued"
        studio.need("POST", "/api/v1/queue/resume")
        assert studio.wait(second["id"])["state"] == "done"
        with studio.database() as database:
            actions = [r[0] for r in database.execute("SELECT action FROM audit WHERE action LIKE 'queue.%' ORDER BY seq")]
        assert actions == ["queue.paused", "queue.resumed"], actions


@claim
def too_many_jobs_are_refused_with_the_time_to_come_again(folder):
    with Studio(folder, queue_jobs=2) as studio:
        studio.need("POST", "/api/v1/queue/pause")
        ids = [studio.submit()["id"] for _ in range(2)]
        answer = studio.post("/api/v1/jobs", {"prompt": "x"})
        assert answer.status == 429 and int(answer.headers["Retry-After"]) >= 1, answer
        studio.need("DELETE", "/api/v1/jobs/" + ids[0])
        studio.submit()


@claim
def lists_go_page_by_page_and_by_state(folder):
    with Studio(folder) as studio:
        studio.need("POST", "/api/v1/queue/pause")
        ids = [studio.submit("fox %d" % i)["id"] for i in range(5)]
        studio.need("DELETE", "/api/v1/jobs/" + ids[2])
        seen, next_id = [], None
        for _ in range(3):
            page = studio.need("GET", "/api/v1/jobs?limit=2" + ("&before=" + next_id if next_id else ""))
            seen += [job["id"] for job in page["jobs"]]
            next_id = page["next"]
        assert next_id is None and seen == ids[::-1], (seen, next_id)
        cancelled = studio.need("GET", "/api/v1/jobs?state=cancelled")["jobs"]
        assert [job["id"] for job in cancelled] == [ids[2]]
        for query in ("limit=0", "limit=201", "state=lost", "before=x", "colour=red"):
            assert studio.get("/api/v1/jobs?" + query).status == 422, query


@claim
def times_are_told_once_something_was_measured(folder):
    with Studio(folder) as studio:
        request = {"prompt": "x", "width": 64, "height": 64, "steps": 2, "count": 3}
        assert studio.need("POST", "/api/v1/estimate", request) == {"known": False, "picture_seconds": None, "seconds": None}
        studio.wait(studio.submit()["id"])
        told = studio.need("POST", "/api/v1/estimate", request)
        assert told["known"] and abs(told["seconds"] - 3 * told["picture_seconds"]) < 1e-6 and 0 < told["seconds"] < 120, told
        studio.need("POST", "/api/v1/queue/pause")
        jobs = [studio.submit(count=3) for _ in range(2)]
        waits = [studio.job(job["id"])["remaining_seconds"] for job in jobs]
        assert abs(waits[0] - told["seconds"]) < 1e-3 and abs(waits[1] - 2 * told["seconds"]) < 1e-3, (waits, told)
        assert [j["remaining_seconds"] for j in studio.need("GET", "/api/v1/queue")["waiting"]] == waits


# ---- Ends


def cancel_within_a_second(studio, job_id):
    """Cancels, and waits until the worker's side has let go as well."""
    begin = time.monotonic()
    assert studio.need("DELETE", "/api/v1/jobs/" + job_id)["state"] == "cancelled"
    assert time.monotonic() - begin < 1.0
    return begin


def check_cancelled(studio, job_id, begin, slowest=1.0):
    wait_for(lambda: studio.workers()[0]["job"] is None, 10)
    seconds = time.monotonic() - begin
    assert seconds < slowest + 0.3, "%.2f s" % seconds  # 0.3 s: this machine is slow, and asks in turns
    job = studio.job(job_id)
    assert job["state"] == "cancelled" and job["ended"], job
    assert audit_of(studio, job_id)[-1] == "job.cancelled"
    check_nothing_left(studio)
    assert studio.need("GET", "/api/v1/queue")["n_running"] == 0


@claim
def a_job_is_cancelled_within_a_second_in_every_phase(folder):
    models = os.path.join(folder, "models")
    os.makedirs(models)
    subprocess.run(["cp", "-a", NEON, os.path.join(models, "slow-loading")], check=True)
    with troubled(folder, models=models + ":" + os.path.dirname(NEON)) as studio:
        studio.need("POST", "/api/v1/queue/pause")
        job = studio.submit()
        check_cancelled(studio, job["id"], cancel_within_a_second(studio, job["id"]))
        studio.need("POST", "/api/v1/queue/resume")

        job = studio.submit(model="slow-loading")
        studio.wait_progress(job["id"], lambda p: p["phase"] == "load")
        time.sleep(0.3)
        check_cancelled(studio, job["id"], cancel_within_a_second(studio, job["id"]))

        for phase in ("encode_text", "denoise", "decode"):
            job = studio.submit("a fox in %s [slow 100]" % phase, width=512, height=512, steps=3, guidance=1.0)
            studio.wait_progress(job["id"], lambda p: p["phase"] == phase, 60)
            check_cancelled(studio, job["id"], cancel_within_a_second(studio, job["id"]))

        job = studio.submit("a fox [slow saving]")
        studio.wait_progress(job["id"], lambda p: p["phase"] == "save")
        begin = cancel_within_a_second(studio, job["id"])
        assert studio.job(job["id"])["state"] == "cancelled"
        check_cancelled(studio, job["id"], begin, slowest=4.0)  # the write itself cannot be broken off

        job = studio.submit("a fox [hang]")
        studio.wait(job["id"], "running")
        time.sleep(0.5)
        check_cancelled(studio, job["id"], cancel_within_a_second(studio, job["id"]))

        job = studio.submit("a fox [slow 500]", count=3, steps=2)
        studio.wait_progress(job["id"], lambda p: p["picture"] == 1 and p["phase"] == "denoise")
        check_cancelled(studio, job["id"], cancel_within_a_second(studio, job["id"]))
        assert len(studio.job(job["id"])["images"]) == 1  # what is finished stays

        assert studio.ask("DELETE", "/api/v1/jobs/" + job["id"]).status == 409
        assert studio.wait(studio.submit()["id"])["state"] == "done"


@claim
def what_was_cancelled_can_be_tried_again(folder):
    with troubled(folder) as studio:
        job = studio.submit("a fox [slow 300]", count=2)
        studio.wait_progress(job["id"], lambda p: p["picture"] == 1)
        studio.need("POST", "/api/v1/jobs/%s/cancel" % job["id"])
        studio.need("POST", "/api/v1/jobs/%s/retry" % job["id"])
        again = studio.wait(job["id"])
        assert again["state"] == "done" and len(again["images"]) == 2, again
        assert studio.post("/api/v1/jobs/%s/retry" % job["id"]).status == 409
        check_nothing_left(studio)


@claim
def a_job_that_kills_its_worker_is_held_and_the_next_runs(folder):
    with troubled(folder, attempts=3) as studio:
        poison, good = studio.submit("[die]"), studio.submit("a fox")
        held = studio.wait(poison["id"])
        assert held["state"] == "held" and held["attempts"] == 3 and held["error_code"] == "worker-died", held
        assert "died" in held["error"] and held["images"] == [], held
        assert studio.wait(good["id"])["state"] == "done"
        with studio.database() as database:
            deaths = [json.loads(r[0])["why"] for r in database.execute("SELECT details FROM audit WHERE action = 'worker.died'")]
        assert deaths == ["it ended by signal 9"] * 3, deaths
        assert studio.workers()[0]["deaths"] == 3
        studio.need("POST", "/api/v1/jobs/%s/retry" % poison["id"])
        assert studio.wait(poison["id"])["attempts"] == 3
        check_nothing_left(studio)


@claim
def a_worker_that_dies_twice_costs_a_job_nothing_but_time(folder):
    with troubled(folder) as studio:
        job = studio.submit("a fox [die 2 %s]" % os.path.join(folder, "deaths"), count=2)
        done = studio.wait(job["id"])
        assert done["state"] == "done" and len(done["images"]) == 2, done
        assert audit_of(studio, job["id"]).count("job.started") == 3


@claim
def a_worker_that_hangs_is_replaced(folder):
    with troubled(folder, worker_hang=2, attempts=2) as studio:
        job, good = studio.submit("[hang]"), studio.submit("a fox")
        held = studio.wait(job["id"])
        assert held["state"] == "held" and held["error_code"] == "worker-hung" and held["attempts"] == 2, held
        assert studio.wait(good["id"])["state"] == "done"


@claim
def a_stopped_process_counts_as_hanging_and_the_server_answers_all_the_while(folder):
    with troubled(folder, worker_hang=2) as studio:
        job = studio.submit("a fox [slow 500]", steps=4)
        studio.wait_progress(job["id"], lambda p: p["phase"] == "denoise")
        os.kill(studio.workers()[0]["pid"], signal.SIGSTOP)
        slowest, end = 0.0, time.monotonic() + 2.5
        while time.monotonic() < end:
            begin = time.monotonic()
            assert studio.get("/healthz").status == 200
            slowest = max(slowest, time.monotonic() - begin)
        assert slowest < 0.5, slowest
        assert studio.wait(job["id"])["state"] == "done"


@claim
def numbers_that_are_none_hold_a_job(folder):
    with troubled(folder, attempts=2) as studio:
        job = studio.submit("[nan]")
        held = studio.wait(job["id"])
        assert held["state"] == "held" and held["error_code"] == "numeric" and "number" in held["error"], held
        assert studio.wait(studio.submit()["id"])["state"] == "done"


@claim
def what_the_engine_refuses_fails_at_once(folder):
    with Studio(folder) as studio:
        job = studio.submit(precision="fp8")  # needs a card
        failed = studio.wait(job["id"])
        assert failed["state"] == "failed" and failed["attempts"] == 1 and failed["error"], failed
        assert studio.wait(studio.submit()["id"])["state"] == "done"
        assert studio.wait(studio.submit(precision="f32")["id"])["state"] == "done"


# ---- Starts and stops


@claim
def a_stop_keeps_finished_pictures_and_counts_no_attempt(folder):
    with troubled(folder) as studio:
        job = studio.submit("a fox [slow 400]", count=3)
        studio.wait_progress(job["id"], lambda p: p["picture"] == 1 and p["phase"] == "denoise")
        seconds = studio.stop()
        assert seconds < 10, seconds
        with studio.database() as database:
            row = database.execute("SELECT * FROM jobs").fetchone()
            assert (row["state"], row["n_done"], row["attempts"]) == ("queued", 1, 0), dict(row)
        check_nothing_left(studio)
        studio.start()
        done = studio.wait(job["id"])
        assert done["state"] == "done" and len(done["images"]) == 3, done
        check_nothing_left(studio)


@claim
def a_server_that_is_killed_takes_its_worker_with_it(folder):
    with troubled(folder) as studio:
        job = studio.submit("a fox [slow 300]", steps=4)
        studio.wait(job["id"], "running")
        pids = studio.worker_pids()
        assert pids, "there is no worker"
        studio.kill()
        wait_for(lambda: not any(os.path.exists("/proc/%d" % pid) for pid in pids), 5, "the worker's end")
        studio.start()
        assert studio.wait(job["id"])["state"] == "done"
        assert "job.recovered" in audit_of(studio, job["id"])


@claim
def kills_at_random_moments_lose_nothing(folder):
    kills = Kills(folder, n_kills=12, seed=4)
    kills.run()
    kills.check()


# ---- Disk


@claim
def what_was_on_its_way_is_settled_by_its_row(folder):
    with Studio(folder) as studio:
        image = studio.wait(studio.submit()["id"])["images"][0]
        place, moving = find_file(studio, image), os.path.join(studio.data, "images", ".moving")
        os.rename(place, os.path.join(moving, image + ".png"))
        assert studio.get("/images/%s.png" % image).status == 200, "it is not found on its way"
        studio.stop()
        shutil.copy(os.path.join(moving, image + ".png"), os.path.join(moving, image[:-4] + "0000.png"))
        with open(os.path.join(moving, image + ".png.part"), "wb") as part:
            part.write(b"half")
        studio.start()
        assert os.path.exists(place) and os.listdir(moving) == [], os.listdir(moving)
        check_nothing_left(studio)
        studio.need("DELETE", "/api/v1/images/" + image, status=204)
        studio.need("POST", "/api/v1/images/actions", {"action": "purge", "ids": [image]})
        assert studio.files() == (set(), []) and os.listdir(moving) == []


@claim
def a_full_disk_makes_jobs_wait_and_loses_nothing(folder):
    images = os.path.join(folder, "data", "images")
    os.makedirs(images)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", images], capture_output=True).returncode != 0:
        raise Skip("a file system cannot be mounted here")
    try:
        with troubled(folder, reserve_mib=1) as studio:
            filler = os.path.join(folder, "data", "images", "filler")
            job = studio.submit("a fox [slow 400]", count=2)
            studio.wait_progress(job["id"], lambda p: p["phase"] == "denoise")
            with open(filler, "wb") as out:
                try:
                    while out.write(b"x" * 65536):
                        out.flush()
                except OSError:
                    pass
            studio.wait_progress(job["id"], lambda p: p["phase"] == "waiting for disk space")
            refused = studio.post("/api/v1/jobs", {"prompt": "x"})
            assert refused.status == 507 and refused.json["code"] == "no-space" and refused.json["detail"], refused
            assert studio.get("/readyz").status == 503 and studio.get("/api/v1/jobs").status == 200
            time.sleep(1.5)
            assert studio.job(job["id"])["state"] == "running"
            os.remove(filler)
            done = studio.wait(job["id"])
            assert done["state"] == "done" and len(done["images"]) == 2 and done["attempts"] == 1, done
            with open(filler, "wb") as out:
                out.write(b"x" * (6 << 20))
            os.truncate(filler, 0)
            waiting = studio.submit("a fox [slow 400]")
            studio.wait_progress(waiting["id"], lambda p: p["phase"] == "denoise")
            with open(filler, "wb") as out:
                out.write(b"x" * (7 << 20))
            studio.wait_progress(waiting["id"], lambda p: p["phase"] == "waiting for disk space")
            begin = cancel_within_a_second(studio, waiting["id"])
            os.remove(filler)
            check_cancelled(studio, waiting["id"], begin)
    finally:
        subprocess.run(["umount", images], check=True)


# ---- Announcements


class Listener(http.server.ThreadingHTTPServer):
    """Answers with each of statuses in turn, the last one for ever; keeps what it got."""

    def __init__(self, *statuses):
        self.statuses, self.got = list(statuses), []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d" % self.server_address[1]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        status = self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.url + "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def check_signature(headers, body, secret):
    signed = headers["X-CyberImage-Timestamp"].encode() + b"." + body
    assert headers["X-CyberImage-Signature"] == "sha256=" + hmac.new(secret, signed, hashlib.sha256).hexdigest(), headers
    assert abs(int(headers["X-CyberImage-Timestamp"]) - time.time()) < 60


@claim
def the_end_of_a_job_is_announced_signed_and_until_it_is_heard(folder):
    listener = Listener(500, 302, 204)
    with Studio(folder, webhook_url=listener.url + "/all", webhook_secret="studio's") as studio:
        job = studio.submit()
        studio.wait(job["id"])
        wait_for(lambda: len(listener.got) == 3, 20)
        for path, headers, body in listener.got:
            check_signature(headers, body, b"studio's")
            event = json.loads(body)
            assert path == "/all" and event["event"] == "job.ended" and event["job"]["id"] == job["id"], (path, event)
            assert event["job"]["state"] == "done" and len(event["job"]["images"]) == 1 and "owner_id" not in event["job"], event
        assert len({headers["X-CyberImage-Delivery"] for _, headers, _ in listener.got}) == 1
        wait_for(lambda: "webhook.sent" in audit_of(studio, job["id"]), 5)
        own = studio.submit(webhook={"url": listener.url + "/mine", "secret": "mine"})
        assert "mine" not in json.dumps(studio.job(own["id"])), "a secret is shown"
        studio.need("POST", "/api/v1/queue/clear") if studio.job(own["id"])["state"] == "queued" else studio.wait(own["id"])
        wait_for(lambda: len(listener.got) == 4, 20)
        path, headers, body = listener.got[3]
        assert path == "/mine"
        check_signature(headers, body, b"mine")
    listener.shutdown()


@claim
def announcements_do_not_reach_into_the_own_network(folder):
    listener = Listener(204)
    port = listener.server_address[1]
    urls = ["http://127.0.0.1:%d/" % port, "http://localhost:%d/" % port, "http://[::1]:%d/" % port, "http://0.0.0.0:%d/" % port,
            "http://2130706433:%d/" % port, "http://0x7f.1:%d/" % port, "http://[::ffff:127.0.0.1]:%d/" % port,
            "http://169.254.169.254/", "http://10.0.0.1/", "http://[fd00::1]/"]
    with Studio(folder) as studio:
        studio.need("POST", "/api/v1/queue/pause")
        for url in urls:
            job = studio.submit(webhook={"url": url})
            studio.need("DELETE", "/api/v1/jobs/" + job["id"])

        def refused():
            with studio.database() as database:
                return [r for r in database.execute("SELECT url, error FROM webhooks WHERE attempts > 0")]

        rows = wait_for(lambda: len(refused()) == len(urls) and refused(), 30)
        for row in rows:
            assert "private" in row["error"] or "reached" in row["error"], tuple(row)
        assert sum("private" in row["error"] for row in rows) >= 7, [tuple(r) for r in rows]
        assert listener.got == []
    listener.shutdown()


# ---- Models and workers


@claim
def models_are_found_described_and_found_again(folder):
    models = os.path.join(folder, "models")
    os.makedirs(os.path.join(models, "broken"))
    with open(os.path.join(models, "broken", "model_index.json"), "w") as out:
        out.write("{")
    with Studio(folder, models=models) as studio:
        by_name = {m["name"]: m for m in studio.need("GET", "/api/v1/models")["models"]}
        neon, broken = by_name["neon"], by_name["broken"]
        assert neon["usable"] and neon["default_width"] == 256 and neon["size_multiple"] == 16 and "path" not in neon, neon
        assert not broken["usable"] and broken["problem"], broken
        answer = studio.post("/api/v1/jobs", {"prompt": "x", "model": "broken"})
        assert answer.status == 422 and answer.json["field"] == "model", answer
        subprocess.run(["cp", "-a", NEON, os.path.join(models, "other")], check=True)
        found = studio.need("POST", "/api/v1/models/refresh")["models"]
        assert {"neon", "broken", "other"} <= {m["name"] for m in found}
        assert studio.wait(studio.submit(model="OTHER")["id"])["model"] == "other"


@claim
def a_worker_knows_no_secrets_and_has_no_files_of_ours(folder):
    with Studio(folder, webhook_secret="hush", enrich_key="hush") as studio:
        pid = studio.workers()[0]["pid"]
        assert studio.worker_pids() == [pid]
        with open("/proc/%d/environ" % pid, "rb") as environment:
            text = environment.read()
        assert b"CYBERIMAGE_" not in text and b"hush" not in text
        links = [os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)]
        assert not any("sqlite" in link for link in links), links
        assert sum(link.startswith("socket:") for link in links) == 1, links


@claim
def an_idle_worker_lets_go_of_its_model(folder):
    with Studio(folder, worker_idle=1) as studio:
        studio.wait(studio.submit()["id"])
        wait_for(lambda: studio.workers()[0]["model"] is None, 5, "unloading")

        def actions():
            with studio.database() as database:
                return [r[0] for r in database.execute("SELECT action FROM audit WHERE action LIKE 'model.%' ORDER BY seq")]

        wait_for(lambda: actions() == ["model.loaded", "model.unloaded"], 5, "the log's rows")


if __name__ == "__main__":
    assert ENDED and sqlite3 and pixels_of
    sys.exit(run_claims())
