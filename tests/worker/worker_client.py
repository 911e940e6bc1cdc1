"""The server's side of the worker's protocol, for tests: docs/worker-protocol.md."""
import json
import os
import socket
import struct
import subprocess
import time

PROGRAM = os.environ["CYI_PROGRAM"]
NEON = os.path.join(os.environ["CYI_SOURCE_ROOT"], "models", "neon")


class Worker:
    def __init__(self, *options):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(60)
        self.process = subprocess.Popen([PROGRAM, "worker", "--fd", str(theirs.fileno()), "--no-cache", *options],
                                        pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
        theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def send(self, type_, body=b"", **members):
        header = json.dumps({"type": type_, **members}).encode()
        self.socket.sendall(b"CYW1" + struct.pack("<II", len(header), len(body)) + header + body)

    def _read(self, n):
        data = b""
        while len(data) < n:
            piece = self.socket.recv(n - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def receive(self):
        prefix = self._read(12)
        assert prefix[:4] == b"CYW1", prefix
        n_header, n_body = struct.unpack("<II", prefix[4:])
        return json.loads(self._read(n_header)), self._read(n_body)

    def wait_for(self, *types, limit=60):
        """The first message of these types, and all that came before it."""
        before, end = [], time.monotonic() + limit
        while time.monotonic() < end:
            header, body = self.receive()
            if header["type"] in types:
                return header, body, before
            before.append((header, body))
        raise AssertionError("no %s within %g s" % (types, limit))

    def hello(self):
        self.send("hello", version=1)
        return self.wait_for("ready")[0]

    def generate(self, **members):
        order = dict(id="job", picture=0, model=NEON, prompt="a neon green cat", width=64, height=64, steps=2, seed=7)
        self.send("generate", **{**order, **members})
