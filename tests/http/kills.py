"""SIGKILL at random moments: a driver that submits batches, kills server or worker, starts again, and then accounts for everything."""
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import time
import zlib

from studio import ENDED, TROUBLED, Studio

CHAIN_START = "0" * 64


def pixels_of(path):
    """The picture's rows as the PNG file holds them before compression: equal rows are equal pixels."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", path
    position, packed = 8, b""
    while position < len(data):
        (n,), kind = struct.unpack(">I", data[position:position + 4]), data[position + 4:position + 8]
        body = data[position + 8:position + 8 + n]
        assert struct.unpack(">I", data[position + 8 + n:position + 12 + n])[0] == zlib.crc32(kind + body), path
        packed += body if kind == b"IDAT" else b""
        position += 12 + n
        if kind == b"IEND":
            break
    assert position == len(data), path
    return hashlib.sha256(zlib.decompress(packed)).hexdigest()


def check_chain(database):
    """The audit log's chain, by a program of its own."""
    previous, expected = CHAIN_START, 1
    for row in database.execute("SELECT * FROM audit ORDER BY seq"):
        columns = [row[c] for c in ("seq", "time_us", "actor", "actor_id", "address", "user_agent", "action", "object", "details")]
        text = json.dumps(columns, separators=(",", ":"), ensure_ascii=False)
        assert row["seq"] == expected, "row %d is missing" % expected
        assert row["hash"] == hashlib.sha256((previous + text).encode()).hexdigest(), "the chain breaks at %d" % row["seq"]
        previous, expected = row["hash"], expected + 1
    return expected - 1


class Kills:
    def __init__(self, folder, n_kills, seed, n_batch=3, say=lambda line: None):
        self.folder, self.n_kills, self.say = folder, n_kills, say
        self.random = random.Random(seed)
        self.n_batch = n_batch
        self.accepted = {}  # id → the request's seed
        self.studio = Studio(folder, program=TROUBLED, attempts=20)
        self.n_server = self.n_worker = 0

    def submit(self):
        number = len(self.accepted)
        seed = 1000 * number
        job = self.studio.submit("a fox [slow 30]", seed=seed, count=self.n_batch, headers={"Idempotency-Key": "k%d" % number})
        self.accepted[job["id"]] = seed

    def kill(self):
        """Server or worker, whatever they are doing."""
        workers = self.studio.worker_pids()
        if workers and self.random.random() < 0.5:
            os.kill(self.random.choice(workers), signal.SIGKILL)
            self.n_worker += 1
            return
        self.studio.kill()
        self.n_server += 1
        self.studio.start()

    def n_waiting(self):
        queue = self.studio.need("GET", "/api/v1/queue")
        return queue["n_waiting"] + queue["n_running"]

    def run(self):
        self.studio.start()
        for i in range(self.n_kills):
            while self.n_waiting() < 2:
                self.submit()
            time.sleep(self.random.uniform(0.0, 2.5))
            self.kill()
            self.say("%d of %d kills, %d jobs" % (i + 1, self.n_kills, len(self.accepted)))
        for job_id in self.accepted:
            self.studio.wait(job_id, seconds=300)

    def undisturbed(self):
        """The pixels of every seed, from a studio that nobody disturbs."""
        folder = os.path.join(self.folder, "undisturbed")
        os.makedirs(folder)
        pixels = {}
        with Studio(folder, program=TROUBLED, queue_jobs=100000, queue_jobs_user=100000) as studio:
            ids = [studio.submit("a fox [slow 30]", seed=seed, count=self.n_batch)["id"] for seed in self.accepted.values()]
            for job_id in ids:
                assert studio.wait(job_id, seconds=3600)["state"] == "done"
            with studio.database() as database:
                for row in database.execute("SELECT id, seed FROM images"):
                    pixels[row["seed"]] = pixels_of(find_file(studio, row["id"]))
        shutil.rmtree(folder)
        return pixels

    def check(self):
        self.studio.stop()
        with self.studio.database() as database:
            jobs = {row["id"]: row for row in database.execute("SELECT * FROM jobs")}
            images = database.execute("SELECT * FROM images").fetchall()
            assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            assert not database.execute("PRAGMA foreign_key_check").fetchall()
            n_audit = check_chain(database)
            ends = database.execute("SELECT object, count(*) AS n FROM audit WHERE action IN ('job.done', 'job.failed', 'job.held', "
                                    "'job.cancelled') GROUP BY object").fetchall()
        assert set(jobs) == set(self.accepted), "jobs were lost or invented"
        assert all(row["state"] in ENDED for row in jobs.values()), {i: r["state"] for i, r in jobs.items()}
        assert {row["object"]: row["n"] for row in ends} == {job_id: 1 for job_id in jobs}, "a job ended more than once"
        states = sorted({row["state"] for row in jobs.values()})
        assert states == ["done"], states  # nothing here kills one job twenty times
        expected = sorted((job_id, i) for job_id in jobs for i in range(self.n_batch))
        assert sorted((row["job_id"], row["job_index"]) for row in images) == expected, "pictures are missing or double"
        files, others = self.studio.files()
        assert files == {row["id"] for row in images}, "files without rows, or rows without files"
        assert not others, others
        undisturbed = self.undisturbed()
        for row in images:
            assert row["seed"] == self.accepted[row["job_id"]] + row["job_index"]
            assert pixels_of(find_file(self.studio, row["id"])) == undisturbed[row["seed"]], row["id"]
        return {"jobs": len(jobs), "pictures": len(images), "audit_rows": n_audit, "server_kills": self.n_server,
                "worker_kills": self.n_worker}


def find_file(studio, image_id):
    for folder, _, names in os.walk(os.path.join(studio.data, "images")):
        if image_id + ".png" in names:
            return os.path.join(folder, image_id + ".png")
    raise AssertionError("the file of %s is missing" % image_id)
