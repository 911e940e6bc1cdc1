"""The real worker over a socket pair: pictures, previews, cancel in every phase, and what it survives."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib

import support
import tap
from tap import claim
from worker_client import NEON, Worker


def pixels_of(path):
    """[height × width × 3] of a PNG without palette."""
    chunks = support.png_chunks(support.read(path))
    width, height = (int.from_bytes(chunks[0][1][i:i + 4], "big") for i in (0, 4))
    raw = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    rows, above, stride = [], bytearray(width * 3), width * 3
    for y in range(height):
        kind, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            a = row[i - 3] if i >= 3 else 0
            b, c = above[i], above[i - 3] if i >= 3 else 0
            if kind == 4:
                p = a + b - c
                near = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            else:
                near = (0, a, b, (a + b) // 2)[kind]
            row[i] = (row[i] + near) & 255
        rows.append(bytes(row))
        above = row
    return b"".join(rows)


@claim
def makes_the_same_pixels_as_the_command_line(_):
    support.expect(0, "generate", "a neon green cat", "--model", NEON, "--width", "64", "--height", "64", "--steps", "2",
                   "--seed", "7", "--no-cache", "--quiet", "--output", "cat.png")
    with Worker() as worker:
        assert worker.hello()["engine"]["version"]
        worker.generate(wants_preview=True)
        picture, pixels, before = worker.wait_for("picture", "failed")
        assert picture["type"] == "picture", picture
        assert pixels == pixels_of("cat.png")
        assert (picture["seed"], picture["model"]["name"]) == (7, "neon") and len(picture["model"]["fingerprint"]) == 64
        previews = [h for h, body in before if "preview" in h and len(body) == h["preview"]["width"] * h["preview"]["height"] * 3]
        assert [h["step"] for h in previews] == [1, 2], previews
        assert before[0][0]["phase"] == "load"


@claim
def a_batch_uses_its_inputs_again(_):
    support.expect(0, "generate", "a cat", "--model", NEON, "--width", "64", "--height", "64", "--steps", "1", "--quiet",
                   "--no-cache", "--output", "init.png")
    with Worker() as worker:
        worker.hello()
        worker.send("input", support.read("init.png"), id="job", role="init", index=0)
        pictures = []
        for i in range(2):
            worker.generate(picture=i, seed=7 + i, has_init=True, strength=0.5)
            header, pixels, _ = worker.wait_for("picture", "failed")
            assert header["type"] == "picture" and header["picture"] == i, header
            pictures.append(pixels)
        assert pictures[0] != pictures[1]
        worker.send("forget", id="job")
        worker.generate(has_init=True)
        header, _, _ = worker.wait_for("picture", "failed")
        assert header["code"] == "argument" and "was not sent" in header["text"], header


@claim
def cancels_in_every_phase_within_a_second(_):
    with Worker() as worker:
        worker.hello()
        for phase in ("load", "encode_text", "denoise", "decode"):
            worker.generate(id=phase, width=256, height=256, steps=20 if phase != "decode" else 1)
            while True:
                header, _, _ = worker.wait_for("progress")
                if header["phase"] == phase:
                    break
            begun = time.monotonic()
            worker.send("cancel", id=phase)
            header, _, _ = worker.wait_for("cancelled", "picture", "failed")
            assert header["type"] == "cancelled" and header["id"] == phase, header
            assert time.monotonic() - begun < 2, phase  # a second, and slack for sanitizers on a busy machine
            assert header["picture"] == 0, header
        worker.generate(id="a", width=256, height=256)
        worker.generate(id="b")
        worker.send("cancel", id="b")
        worker.send("cancel", id="nobody")
        ends = {(h["type"], h["id"]) for h in (worker.wait_for("cancelled", "picture")[0] for _ in range(2))}
        assert ends == {("picture", "a"), ("cancelled", "b")}, ends


@claim
def each_picture_of_a_cancelled_batch_is_answered_once(_):
    with Worker() as worker:
        worker.hello()
        for i in range(4):
            worker.generate(picture=i, width=256, height=256, steps=20)
        worker.generate(id="next", picture=9)
        worker.wait_for("progress")
        worker.send("cancel", id="job")
        ends = []
        while not ends or ends[-1][0] != "next":
            header, _, _ = worker.wait_for("picture", "cancelled", "failed")
            ends.append((header["id"], header["picture"], header["type"]))
        assert sorted(ends) == [("job", i, "cancelled") for i in range(4)] + [("next", 9, "picture")], ends


@claim
def a_cancel_does_not_meet_what_comes_after_it(_):
    with Worker() as worker:
        worker.hello()
        worker.send("cancel", id="job")
        worker.send("forget", id="job")
        worker.send("cancel", id="job")
        worker.generate()
        assert worker.wait_for("picture", "cancelled", "failed")[0]["type"] == "picture"


@claim
def every_role_of_an_input_counts(_):
    for name, seed in (("a.png", "1"), ("b.png", "2")):
        support.expect(0, "generate", "a cat", "--model", NEON, "--width", "64", "--height", "64", "--steps", "1", "--quiet",
                       "--no-cache", "--seed", seed, "--output", name)
    support.expect(0, "generate", "a neon green cat", "--model", NEON, "--width", "64", "--height", "64", "--steps", "2", "--seed", "7",
                   "--no-cache", "--quiet", "--init", "a.png", "--mask", "b.png", "--strength", "0.6", "--image", "b.png",
                   "--image", "a.png", "--output", "cat.png")
    with Worker() as worker:
        worker.hello()
        for role, index, name in (("init", 0, "b.png"), ("init", 0, "a.png"), ("mask", 0, "b.png"), ("reference", 1, "a.png"),
                                  ("reference", 0, "b.png")):  # the second init replaces the first
            worker.send("input", support.read(name), id="job", role=role, index=index)
        worker.generate(has_init=True, has_mask=True, strength=0.6, n_references=2)
        header, pixels, before = worker.wait_for("picture", "failed")
        assert header["type"] == "picture", header
        assert pixels == pixels_of("cat.png")
        assert "encode_images" in [h.get("phase") for h, _ in before]
        worker.generate(id="other", has_init=True)
        assert "was not sent" in worker.wait_for("picture", "failed")[0]["text"]
        worker.send("input", support.read("a.png"), id="other", role="init")  # takes the place of all that "job" had
        worker.generate(n_references=1)
        assert "reference picture 0" in worker.wait_for("picture", "failed")[0]["text"]


@claim
def says_what_it_cannot_do(_):
    with Worker() as worker:
        worker.hello()
        for members, code, words in (({"model": "/nowhere"}, "io", "nowhere"), ({"width": 63}, "argument", "63"),
                                     ({"steps": 0}, "argument", "steps"), ({"width": 1 << 32 | 64}, "argument", "4294967360"),
                                     ({"prompt": None}, "argument", "prompt"), ({"seed": "7"}, "argument", "seed")):
            worker.generate(picture=3, **members)
            header, _, _ = worker.wait_for("failed", "picture")
            assert (header["type"], header["code"], header["id"], header["picture"]) == ("failed", code, "job", 3), header
            assert words in header["text"] and "\n" not in header["text"], header
        worker.send("input", b"no picture", id="job", role="init", index=0)
        worker.generate(has_init=True)
        header, _, before = worker.wait_for("failed", "picture")
        assert header["code"] == "format" and "init picture 0 cannot be read" in header["text"], header
        assert not [h for h, _ in before if h["type"] in ("failed", "picture")]  # one answer for one picture
        worker.send("dance")
        assert worker.wait_for("failed")[0]["code"] == "argument"
        worker.send("hello", version=99)
        assert "99" in worker.wait_for("failed")[0]["text"]
        worker.generate()
        assert worker.wait_for("picture", "failed")[0]["type"] == "picture"


@claim
def not_a_number_is_an_error_of_the_picture(folder):
    model = os.path.join(folder, "broken")
    shutil.copytree(NEON, model)
    path = os.path.join(model, "transformer", "diffusion_pytorch_model.safetensors")
    data = bytearray(support.read(path))
    n = int.from_bytes(data[:8], "little")
    tensor = json.loads(data[8:8 + n])["proj_out.weight"]
    begin, end = (8 + n + at for at in tensor["data_offsets"])
    data[begin:end] = b"\xff" * (end - begin)  # not-a-number in every floating point type
    with open(path, "wb") as file:
        file.write(data)
    with Worker() as worker:
        worker.hello()
        worker.generate(model=model)
        header, _, _ = worker.wait_for("failed", "picture")
        assert header["type"] == "failed" and header["code"] == "numeric" and "step" in header["text"], header
        worker.generate()
        assert worker.wait_for("failed", "picture")[0]["type"] == "picture"


@claim
def describes_models_and_lets_go_of_them(_):
    with Worker("--idle", "1") as worker:
        worker.hello()
        worker.send("describe", path=NEON)
        model = worker.wait_for("model")[0]
        assert model["ok"] and model["name"] == "neon" and model["size_multiple"] >= 8, model
        worker.send("describe", path="/nowhere")
        assert not worker.wait_for("model")[0]["ok"]
        worker.generate()
        assert worker.wait_for("state")[0]["loaded"]
        worker.wait_for("picture")
        assert not worker.wait_for("state", limit=10)[0]["loaded"]
        worker.generate()
        assert worker.wait_for("state")[0]["loaded"]


@claim
def beats_while_it_works(_):
    with Worker() as worker:
        worker.hello()
        worker.generate(width=512, height=512, steps=50)
        first = worker.wait_for("alive")[0]
        second = worker.wait_for("alive")[0]
        assert first["busy"] and second["operations"] > first["operations"], (first, second)


@claim
def ends_on_broken_frames_and_on_a_closed_socket(_):
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"CYW1\xff\xff\xff\xff\0\0\0\0", b"CYW1\2\0\0\0\xff\xff\xff\xff{}",
                 b"CYW1\2\0\0\0\0\0\0\0[]", b"CYW1\2\0\0\0\0\0\0\0{}", b"CYW"):
        with Worker() as worker:
            worker.socket.sendall(junk)
            worker.socket.shutdown(socket.SHUT_WR)
            assert worker.process.wait(20) == 0, junk


@claim
def signals_to_the_group_are_the_servers(_):
    with Worker() as worker:
        worker.hello()
        worker.process.send_signal(signal.SIGINT)
        worker.process.send_signal(signal.SIGTERM)
        worker.generate()
        assert worker.wait_for("picture")[0]["width"] == 64
        worker.send("quit")
        assert worker.process.wait(20) == 0


@claim
def quits_and_follows_its_server_while_it_works(_):
    for last_word in (lambda worker: worker.send("quit"), lambda worker: worker.socket.shutdown(socket.SHUT_RDWR)):
        with Worker() as worker:
            worker.hello()
            worker.generate(width=512, height=512, steps=200)
            while worker.wait_for("progress")[0]["phase"] != "denoise":
                pass
            begun = time.monotonic()
            last_word(worker)
            assert worker.process.wait(20) == 0
            assert time.monotonic() - begun < 3


@claim
def prints_nothing_and_says_who_starts_it(_):
    result = subprocess.run([support.PROGRAM, "worker", "--fd", "0"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert result.returncode == 2 and result.stdout == b"" and b"the studio starts its workers" in result.stderr, result
    with Worker("--parent", "1" if os.getpid() != 1 else "2") as worker:
        assert worker.process.wait(20) == 1
        assert b"has ended already" in worker.process.stderr.read()
    with Worker("--backend", "cuda") as worker:
        try:
            header, _, _ = worker.wait_for("failed", "ready")
        except EOFError:
            raise AssertionError("no word") from None
        assert header["code"] == "unsupported" and header["id"] == "", header
        assert worker.process.wait(20) == 1


@claim
def says_what_it_does_in_log_messages(_):
    with Worker() as worker:
        worker.hello()
        worker.generate()
        logs = [h for h, _ in worker.wait_for("picture")[2] if h["type"] == "log"]
        assert logs and all(h["level"] in ("debug", "info", "warning") and "neon green" not in h["event"] for h in logs), logs
        worker.socket.sendall(b"junk of twelve bytes")
        assert "CYW1" in worker.wait_for("log")[0]["event"]


@claim
def has_no_network(_):
    with Worker() as worker:
        worker.hello()
        status = support.read("/proc/%d/status" % worker.process.pid).decode()
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status, status
        assert support.read("/proc/%d/oom_score_adj" % worker.process.pid).strip() == b"500"


@claim
def dies_with_its_server(_):
    code = ("import os, subprocess, sys, time, socket\n"
            "a, b = socket.socketpair()\n"
            "p = subprocess.Popen([sys.argv[1], 'worker', '--no-cache', '--fd', str(b.fileno()), '--parent', str(os.getpid())], pass_fds=[b.fileno()])\n"
            "print(p.pid, flush=True); time.sleep(60)\n")
    server = subprocess.Popen([sys.executable, "-c", code, support.PROGRAM], stdout=subprocess.PIPE)
    pid = int(server.stdout.readline())
    time.sleep(0.5)
    server.kill()
    server.wait()
    server.stdout.close()
    for _ in range(100):
        try:
            if "Z" in support.read("/proc/%d/stat" % pid).decode().rsplit(")", 1)[1].split()[0]:
                return
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError("the worker lives on")


sys.exit(tap.run_claims())
