"""A real studio for tests: `cyberimage serve` on a free port of loopback, with a folder of its own."""
import contextlib
import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import threading
import time

from fits import Description
from pictures import multipart

PROGRAM = os.environ["CYI_PROGRAM"]
TROUBLED = os.environ.get("CYI_TROUBLED", PROGRAM)  # see troubled.c
ENDED = ("done", "failed", "cancelled", "held")


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "%d %s" % (self.status, self.body[:600].decode("utf-8", "replace"))


def wait_for(condition, seconds=30, what="it"):
    """Waits until condition() gives something, and gives it back."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "%s did not come within %g s" % (what, seconds)
        time.sleep(0.02)


class Studio:
    """Use with "with", or start() and stop(). Settings as keywords: queue_jobs=3. Every exchange must fit the API's description."""

    description = None

    def __init__(self, folder, program=PROGRAM, **settings):
        self.folder = folder
        self.data = os.path.join(folder, "data")
        self.program = program
        self.settings = {"no_auth": "true", "devices": "cpu", "threads": "1", **settings}
        self.process = None
        self.token = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.kill()

    def start(self, seconds=60):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CYBERIMAGE_")}
        environment["HOME"] = self.folder
        environment["CYBERIMAGE_MODELS"] = os.path.join(os.environ["CYI_SOURCE_ROOT"], "models")
        for name, value in self.settings.items():
            environment["CYBERIMAGE_" + name.upper()] = str(value)
        self.log = open(os.path.join(self.folder, "log"), "ab")
        self.output = open(os.path.join(self.folder, "output"), "wb")
        self.process = subprocess.Popen([self.program, "serve", "--listen", "127.0.0.1:0", "--data", self.data], cwd=self.folder,
                                        env=environment, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.log)
        try:
            self.port = wait_for(self._find_port, seconds, "the address")
            wait_for(lambda: self.get("/readyz").status == 200, seconds, "readiness")
            Studio.description = Studio.description or Description(self.need("GET", "/openapi.json"))
        except BaseException:
            self.kill()
            raise
        return self

    def _find_port(self):
        assert self.process.poll() is None, "the studio ended with %d: %s" % (self.process.returncode, self.read_log()[-3000:])
        with open(os.path.join(self.folder, "output"), "rb") as output:
            found = re.search(rb"http://127\.0\.0\.1:(\d+)", output.read())
        return int(found.group(1)) if found else None

    def read_log(self):
        with open(os.path.join(self.folder, "log"), "rb") as log:
            return log.read().decode("utf-8", "replace")

    def _close(self):
        self.log.close()
        self.output.close()

    def stop(self, seconds=20):
        """As an operator: SIGTERM. Gives the seconds that it took."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the studio did not end within %g s: %s" % (seconds, self.read_log()[-3000:]))
        self._close()
        assert status == 0, "the studio ended with %d: %s" % (status, self.read_log()[-6000:])
        return time.monotonic() - begin

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._close()

    # ---- Requests

    def ask(self, method, path, body=None, headers=(), seconds=30):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            all_headers = {"X-CyberImage": "1", **dict(headers)}
            if self.token:
                all_headers.setdefault("Authorization", "Bearer " + self.token)
            sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            if body is not None:
                all_headers.setdefault("Content-Type", "application/json")
            connection.request(method, self.settings.get("base_path", "") + path, sent, all_headers)
            answer = Answer(connection.getresponse())
            if Studio.description is not None:
                Studio.description.check_exchange(method, path, None if isinstance(body, bytes) else body, answer)
            return answer
        finally:
            connection.close()

    def get(self, path, **more):
        return self.ask("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.ask("POST", path, body, **more)

    def need(self, method, path, body=None, status=200, **more):
        answer = self.ask(method, path, body, **more)
        assert answer.status == status, "%s %s: %r" % (method, path, answer)
        return answer.json if answer.body else None

    # ---- Jobs

    def submit(self, prompt="a neon fox", status=201, headers=(), **members):
        request = {"prompt": prompt, "width": 64, "height": 64, "steps": 2, "seed": 7, **members}
        return self.need("POST", "/api/v1/jobs", request, status, headers=headers)

    def job(self, job_id):
        return self.need("GET", "/api/v1/jobs/" + job_id)

    def wait(self, job_id, *states, seconds=60):
        states = states or ENDED

        def look():
            job = self.job(job_id)
            assert job["state"] in states or job["state"] not in ENDED, job
            return job if job["state"] in states else None

        return wait_for(look, seconds, "%s of job %s" % (" or ".join(states), job_id))

    def wait_progress(self, job_id, condition, seconds=30):
        return wait_for(lambda: (lambda p: p and condition(p) and p)(self.job(job_id).get("progress")), seconds, "that progress")

    def upload(self, data, name="photo.png", status=201, headers=()):
        body, kind = multipart([], [("file", name, data)])
        return self.need("POST", "/api/v1/uploads", body, status, headers={**dict(headers), "Content-Type": kind})

    # ---- People

    def sign_in(self, name=None, password=None):
        """A session's headers: of the owner by the link that the studio printed, or by name and password."""
        body = {"name": name, "password": password}
        if name is None:
            with open(os.path.join(self.folder, "output"), encoding="utf-8") as output:
                body = {"link": output.read().split("/signin#")[1].split()[0]}
        answer = self.post("/api/v1/session", body)
        assert answer.status == 201, answer
        return {"Cookie": answer.headers["Set-Cookie"].split(";")[0]}

    def add_user(self, owner, name, role="user", password="correct horse battery"):
        """An account by the owner's headers. Gives its session's headers."""
        self.need("POST", "/api/v1/users", {"name": name, "role": role, "password": password}, 201, headers=owner)
        return self.sign_in(name, password)

    def workers(self):
        return self.need("GET", "/api/v1/workers")["workers"]

    def worker_pids(self):
        """The studio's children, as the system sees them."""
        with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as children:
            found = children.read().split()
        pids = set(found)
        for task in os.listdir("/proc/%d/task" % self.process.pid):
            with contextlib.suppress(OSError), open("/proc/%d/task/%s/children" % (self.process.pid, task)) as children:
                pids.update(children.read().split())
        return sorted(int(pid) for pid in pids)

    # ---- What is on the disk

    def database(self):
        connection = sqlite3.connect(os.path.join(self.data, "db", "cyberimage.sqlite"))
        connection.row_factory = sqlite3.Row
        return contextlib.closing(connection)

    def files(self):
        """Ids of the pictures' files, and whatever else lies in their folder."""
        ids, others = set(), []
        for folder, _, names in os.walk(os.path.join(self.data, "images")):
            for name in names:
                stem, ending = os.path.splitext(name)
                if ending == ".png" and len(stem) == 36:
                    ids.add(stem)
                else:
                    others.append(os.path.join(folder, name))
        return ids, others


class Watcher(threading.Thread):
    """Reads the studio's events until it is closed."""

    def __init__(self, studio):
        super().__init__(daemon=True)
        self.events = []
        self.connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=60)
        headers = {"Authorization": "Bearer " + studio.token} if studio.token else {}
        self.connection.request("GET", "/api/v1/events", headers=headers)
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.status
        self.start()

    def run(self):
        event = {}
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for line in self.response:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    event[name] = value
                elif "data" in event:
                    self.events.append((event.get("event"), json.loads(event["data"])))
                    event = {}
                else:
                    event = {}

    def of(self, kind):
        return [data for name, data in list(self.events) if name == kind]

    def close(self):
        with contextlib.suppress(OSError):
            self.connection.sock.shutdown(2)
        self.join(10)
        self.connection.close()
