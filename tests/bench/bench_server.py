#!/usr/bin/env python3
"""The studio under load, beside nginx and its limits: bench_server.py PROGRAM [SECONDS]. For `make bench`.

A data folder with 100,000 synthetic pictures (their rows; a few have files) is filled once a run, in a temporary folder. wrk makes the requests, from the same
cores as everything else, so figures of one run are to be compared with each other only. Prints each figure with its limit and ratio.
"""
import contextlib
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PICTURES = 100_000
WATCHERS = 1_000
FIRST_US = 1_700_000_000_000_000
WORDS = """amber arcade aurora avenue bamboo beacon bicycle blossom boulder bridge bronze canal candle canyon castle cathedral cedar cherry city cliff cloud
coast cobalt copper coral crane crimson crystal cyan dawn desert dragon drone dusk ember engine falcon fern field firefly fjord fog forest fountain fox galaxy
garden ghost glacier glass gold grove harbour hawk heron horizon ice indigo island ivory jade jungle kite lagoon lake lantern lava lighthouse lily lynx magenta
mango maple market marsh meadow mercury meteor mirror mist monolith moon moss mountain mural nebula neon night oak oasis obsidian ocean orchid otter owl palace
panther paper pearl pier pine plaza pond poppy portrait prairie prism pyramid quartz rain raven reef ridge river robot rocket rooftop rose ruby rust saffron
sail salmon sand sapphire satellite scarlet shadow shrine silver skyline snow spire spring stadium statue steam stone storm street sunset swan temple terrace
thunder tiger tower train tulip tunnel turquoise valley velvet vessel village vineyard violet volcano waterfall wave whale willow wind window winter wolf""".split()


def say(name, value, unit, limit=None, is_most=True, note=""):
    text = "%-52s %10.4g %-9s" % (name, value, unit)
    if limit:
        ratio = value / limit
        good = ratio <= 1 if is_most else ratio >= 1
        text += " %s %g: %5.2f of it %s" % ("at most" if is_most else "at least", limit, ratio, "" if good else " MISSED")
    print(text + note, flush=True)


# ---- The studio


class Studio:
    def __init__(self, program, folder):
        self.program, self.data = program, os.path.join(folder, "data")
        self.log = open(os.path.join(folder, "log"), "ab")
        self.process = None

    def start(self, **settings):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CYBERIMAGE_")}
        environment.update({"CYBERIMAGE_" + k.upper(): str(v) for k, v in settings.items()}, CYBERIMAGE_MODELS=os.path.join(ROOT, "models"))
        begin = time.monotonic()
        self.process = subprocess.Popen([self.program, "serve", "--listen", "127.0.0.1:0", "--data", self.data, "--no-auth", "--rate-requests", "0"],
                                        env=environment, stdout=subprocess.PIPE, stderr=self.log)
        self.port = int(re.search(rb":(\d+)", self.process.stdout.readline())[1])
        while self.ask("GET", "/readyz")[0] != 200:
            time.sleep(0.01)
        return time.monotonic() - begin

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        self.process = None

    def ask(self, method, path, body=None):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, json.dumps(body) if body is not None else None,
                               {"Content-Type": "application/json", "X-CyberImage": "1"} if method != "GET" else {})
            response = connection.getresponse()
            return response.status, response.read()

    def make_picture(self):
        job = json.loads(self.ask("POST", "/api/v1/jobs", {"prompt": "a neon cat", "seed": 1})[1])
        while job["state"] not in ("done", "failed", "held"):
            time.sleep(0.05)
            job = json.loads(self.ask("GET", "/api/v1/jobs/" + job["id"])[1])
        return job["images"][0]

    def resident_kib(self):
        with open("/proc/%d/status" % self.process.pid) as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def fill(path):
    """Rows as a studio of some years has them."""
    rng = random.Random(1)
    sizes = [(1024, 1024), (1152, 896), (896, 1152), (768, 768), (512, 512), (1344, 768)]
    with contextlib.closing(sqlite3.connect(path)) as database:
        names = [row[1] for row in database.execute("PRAGMA table_info(images)")]
        model = dict(zip(names, database.execute("SELECT * FROM images LIMIT 1").fetchone()))
        rows = []
        for i in range(PICTURES):
            us = FIRST_US + i * 600_000_000
            milliseconds = us // 1000
            uuid = "%08x-%04x-7%03x-8%03x-%012x" % (milliseconds >> 16, milliseconds & 0xffff, i & 0xfff, i >> 12 & 0xfff, i)
            width, height = rng.choice(sizes)
            prompt = " ".join(rng.choices(WORDS, k=rng.randint(8, 40)))
            rows.append({**model, "number": i + 2, "id": uuid, "job_id": None, "job_index": None, "created_us": us, "width": width, "height": height,
                         "prompt": prompt, "prompt_sent": prompt, "seed": rng.getrandbits(32), "is_favourite": int(i % 50 == 0),
                         "model": rng.choice(["neon", "FLUX.2-klein-4B", "FLUX.2-klein-9B"])})
        database.executemany("INSERT INTO images (%s) VALUES (%s)" % (", ".join(names), ", ".join(":" + name for name in names)), rows)
        database.execute("INSERT INTO prompts (prompts) VALUES ('rebuild')")
        database.execute("INSERT INTO tags (id, name) VALUES (1, 'keep')")
        database.executemany("INSERT INTO image_tags (tag_id, image_id) VALUES (1, ?)", [(row["id"],) for row in rows[::20]])
        database.execute("ANALYZE")
        database.commit()


# ---- Load


def wrk(url, seconds, folder, paths=("",), connections=4, body=None):
    """Requests a second, median and 99th percentile in ms."""
    script = os.path.join(folder, "wrk.lua")
    with open(script, "w") as file:
        file.write("paths = {%s}\nlocal i = 0\n" % ", ".join('"%s"' % path for path in paths))
        file.write("request = function()\n  i = i % #paths + 1\n")
        if body is None:
            file.write('  return wrk.format("GET", paths[i])\nend\n')
        else:
            file.write('  return wrk.format("POST", paths[i], {["Content-Type"] = "application/json"}, [[%s]])\nend\n' % json.dumps(body))
        file.write('done = function(s, l, r)\n  print(string.format("FIGURES %f %f %f %d", s.requests / s.duration * 1e6, l:percentile(50) / 1e3,'
                   ' l:percentile(99) / 1e3, s.errors.status + s.errors.connect + s.errors.read + s.errors.timeout))\nend\n')
    output = subprocess.run(["wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds, "-s", script, url], capture_output=True, text=True, check=True).stdout
    rate, median, p99, errors = map(float, re.search(r"FIGURES (\S+) (\S+) (\S+) (\S+)", output).groups())
    assert errors == 0, output
    return rate, median, p99


@contextlib.contextmanager
def nginx(folder, root):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.path.join(folder, "nginx.conf")
    with open(path, "w") as file:
        file.write("""daemon off; worker_processes %d; pid %s/nginx.pid; error_log stderr;
events { worker_connections 1024; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; types { image/webp webp; image/png png; }
server { listen 127.0.0.1:%d; root %s; add_header Cache-Control "private, max-age=31536000, immutable"; } }
""" % (os.cpu_count(), folder, port, root))
    if os.geteuid() == 0:  # its processes would become another user, who must not see what is in our folder
        with open(path, "r+") as file:
            text = file.read()
            file.seek(0)
            file.write("user root;\n" + text)
    process = subprocess.Popen(["nginx", "-c", path, "-p", folder, "-e", "stderr"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.01)
        yield "http://127.0.0.1:%d" % port
    finally:
        process.terminate()
        process.wait()


# ---- Figures


def gallery(studio, url, seconds, folder):
    rng = random.Random(2)
    pages = ["/api/v1/images?limit=50&cursor=%d" % rng.randrange(100, PICTURES) for _ in range(500)]
    filters = ["/api/v1/images?limit=50&%s&cursor=%d" % (what, rng.randrange(5_000, PICTURES))
               for _ in range(60) for what in ("favourite=true", "model=FLUX.2-klein-4B", "tag=keep", "width=512&height=512", "sort=oldest")]
    searches = ["/api/v1/images?limit=50&q=%s" % "%20".join(rng.sample(WORDS, rng.randint(1, 3))) for _ in range(500)]
    seeds = ["/api/v1/images?limit=50&seed=%d" % rng.getrandbits(32) for _ in range(500)]
    for name, paths, limit in (("a page of 50 of 100,000", pages, 20), ("a page by favourite, model, tag or size", filters, 20),
                               ("search of 1 to 3 words, 50 newest", searches, 5), ("search by seed", seeds, 5)):
        rate, median, p99 = wrk(url, seconds, folder, paths, 1)
        say(name + ", p99", p99, "ms", limit, note="   median %.2f ms, %.0f/s" % (median, rate))


def files(studio, url, seconds, folder, image):
    day = time.strftime("%Y/%m/%d", time.gmtime(int(image.replace("-", "")[:12], 16) / 1000))
    served = {"/thumbnails/%s/256.webp" % image: None, "/images/%s.png" % image: os.path.join(studio.data, "images", day, image + ".png")}
    root = os.path.join(folder, "www")
    os.mkdir(root)
    for path, file in served.items():
        name = os.path.join(root, os.path.basename(path))
        body = studio.ask("GET", path)[1]
        with open(name, "wb") as copy:
            copy.write(body)
        assert file is None or os.path.getsize(file) == len(body)
    with nginx(folder, root) as other:
        for path in served:
            ours, theirs = [], []
            for _ in range(3):  # in turns, since the machine is shared
                ours.append(wrk(url, max(1, seconds // 3), folder, [path], 16)[0])
                theirs.append(wrk(other, max(1, seconds // 3), folder, ["/" + os.path.basename(path)], 16)[0])
            size = os.path.getsize(os.path.join(root, os.path.basename(path)))
            say("%s of %.0f KB" % ("thumbnail" if "thumb" in path else "picture", size / 1e3), sorted(ours)[1], "/s", sorted(theirs)[1], False,
                "   (limit: nginx, the same file and cores)")


def watchers(studio):
    before = studio.resident_kib()
    sockets = []
    for _ in range(WATCHERS):
        connection = socket.create_connection(("127.0.0.1", studio.port))
        connection.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % studio.port)
        sockets.append(connection)
    for connection in sockets:
        assert b"200" in connection.recv(4096)
    time.sleep(1)
    say("1,000 watchers, memory of each", (studio.resident_kib() - before) / WATCHERS, "KiB", 64)
    delays = []
    for _ in range(5):
        for connection in sockets:
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while connection.recv(65536):
                    pass
            connection.setblocking(True)
        begin = time.monotonic()
        studio.ask("POST", "/api/v1/queue/pause")
        for connection in sockets:
            connection.recv(65536)
            delays.append(time.monotonic() - begin)
        studio.ask("POST", "/api/v1/queue/resume")
        time.sleep(0.3)
    delays.sort()
    say("an event at 1,000 watchers, p99", delays[len(delays) * 99 // 100] * 1e3, "ms", 250)
    for connection in sockets:
        connection.close()


def submits(studio, url, seconds, folder):
    studio.ask("POST", "/api/v1/queue/pause")
    body = {"prompt": "a neon cat", "width": 64, "height": 64, "steps": 1}
    for connections, limit in ((1, None), (16, 150)):
        rate, median, p99 = wrk(url, seconds, folder, ["/api/v1/jobs"], connections, body)
        say("durable submits by %d clients" % connections, rate, "/s", note="   median %.1f, p99 %.1f ms%s" %
            (median, p99, ", limit %d: %.2f of it" % (limit, p99 / limit) if limit else ""))


def under_load(studio, url, seconds, folder):
    """Pages while a picture uses every core."""
    studio.ask("POST", "/api/v1/jobs", {"prompt": "a neon cat", "width": 768, "height": 768, "steps": 50, "count": 64})
    while not any(worker["state"] == "working" for worker in json.loads(studio.ask("GET", "/api/v1/workers")[1])["workers"]):
        time.sleep(0.05)
    time.sleep(2)
    rng = random.Random(3)
    pages = ["/api/v1/images?limit=50&cursor=%d" % rng.randrange(100, PICTURES) for _ in range(500)]
    rate, median, p99 = wrk(url, seconds, folder, pages, 1)
    say("a page while a picture uses all cores, p99", p99, "ms", 20, note="   median %.2f ms, %.0f/s" % (median, rate))


def main():
    program, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6
    for tool in ("wrk", "nginx"):
        if not shutil.which(tool):
            sys.exit("bench_server: %s is not installed" % tool)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    print("The studio: %d cores, shared with wrk" % os.cpu_count())
    with tempfile.TemporaryDirectory(prefix="cyberimage-") as folder:
        studio = Studio(program, folder)
        try:
            studio.start()
            image = studio.make_picture()
            studio.stop()
            fill(os.path.join(studio.data, "db", "cyberimage.sqlite"))
            say("start with 100,000 pictures", studio.start(queue_jobs=100000, queue_jobs_user=100000) * 1e3, "ms", 2000)
            url = "http://127.0.0.1:%d" % studio.port
            gallery(studio, url, seconds, folder)
            files(studio, url, seconds, folder, image)
            watchers(studio)
            under_load(studio, url, seconds, folder)
            studio.stop()
            studio.start(queue_jobs=100000, queue_jobs_user=100000)
            submits(studio, "http://127.0.0.1:%d" % studio.port, seconds, folder)
        finally:
            studio.stop()


if __name__ == "__main__":
    main()
