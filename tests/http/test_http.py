#!/usr/bin/env python3
"""The HTTP part with toy routes (http_probe.c), from outside: what it accepts, what it refuses, and what it survives."""
import json
import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from tap import Skip, claim, run_claims  # noqa: E402

PROGRAM = os.environ["CYI_HTTP_PROBE"]
N_WATCHERS = int(os.environ.get("CYI_HTTP_WATCHERS", "300"))
JSON = ("Content-Type", "application/json")
BOB = ("Authorization", "Bearer bob")
COOKIE = ("Cookie", "user=bob")


class Probe:
    """One running http_probe. Use with "with"."""

    def __init__(self, folder, listen="127.0.0.1:0", tls=None, **settings):
        self.file = os.path.join(folder, "picture")
        if not os.path.exists(self.file):
            with open(self.file, "wb") as out:
                out.write(bytes(i * 7 % 251 for i in range(100000)))
        arguments = [PROGRAM, "listen=" + listen] + ["%s=%s" % (k.replace("_", "-"), v) for k, v in settings.items()]
        self.errors = open(os.path.join(folder, "errors"), "w+")
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        env=dict(os.environ, PROBE_FILE=self.file))
        self.url = self.process.stdout.readline().strip()
        if self.url:
            self.port = int(self.url.split("/")[2].rsplit(":", 1)[1])
            self.host = "127.0.0.1:%d" % self.port
        self.tls = tls

    def __enter__(self):
        assert self.url, self.read_errors()
        return self

    def __exit__(self, *error):
        self.stop()

    def read_errors(self):
        self.errors.seek(0)
        return self.errors.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
        status = self.process.wait(30)
        assert status == 0, "the probe ended with %d: %s" % (status, self.read_errors()[-3000:])
        self.process.stdout.close()
        self.errors.close()

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def metrics(self):
        self.tell("metrics")
        return json.loads(self.process.stdout.readline())

    def connect(self, timeout=10, receive_buffer=None):
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(timeout)
        connection.connect(("127.0.0.1", self.port))
        return self.tls.wrap_socket(connection, server_hostname="localhost") if self.tls else connection

    def raw(self, data, timeout=10):
        """Sends bytes, returns all that comes until the server closes."""
        with self.connect(timeout) as connection:
            try:
                connection.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
            return receive_all(connection)

    def ask(self, method, path, *headers, body=None, host=None, version="1.1"):
        lines = ["%s %s HTTP/%s" % (method, path, version), "Connection: close"]
        if host is not False:
            lines.append("Host: " + (host or self.host))
        lines += ["%s: %s" % header for header in headers]
        if body is not None and not any(name.lower() == "content-length" for name, _ in headers):
            lines.append("Content-Length: %d" % len(body))
        return Answer(self.raw("\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")))


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition(), "not within %d s" % seconds


def receive_all(connection):
    data = b""
    try:
        while True:
            piece = connection.recv(65536)
            if not piece:
                break
            data += piece
    except ConnectionResetError:
        pass
    return data


def receive_to_end_of_stream(connection):
    """All of a chunked body: the connection may stay open after it."""
    data = b""
    while not (b"\r\n" + data).endswith(b"\r\n0\r\n\r\n"):
        piece = connection.recv(1 << 20)
        if not piece:
            break
        data += piece
    return data


class Answer:
    def __init__(self, data):
        self.data = data
        head, _, self.body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1]) if lines[0] else 0
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            self.headers.setdefault(name.lower(), []).append(value)
        if self.get("transfer-encoding") == "chunked":
            self.body, self.is_whole = unchunk(self.body)

    def get(self, name):
        values = self.headers.get(name.lower())
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)


def unchunk(data):
    out = b""
    while True:
        size, found, rest = data.partition(b"\r\n")
        if not found:
            return out, False
        n = int(size, 16)
        if n == 0:
            return out, True
        out += rest[:n]
        if len(rest) < n + 2:
            return out, False
        data = rest[n + 2:]


def expect(answer, status, what=""):
    assert answer.status == status, "%s: %d, not %d: %r" % (what, answer.status, status, answer.data[:600])
    return answer


# ---- Names and origins


@claim
def every_answer_has_the_headers_that_protect_a_page(folder):
    with Probe(folder) as probe:
        for method, path, status in [("GET", "/open", 200), ("GET", "/nothing", 404), ("GET", "/api/read", 401), ("GET", "/fail", 507),
                                     ("PUT", "/open", 405), ("OPTIONS", "/open", 204), ("GET", "/file", 200), ("GET", "/slow", 200)]:
            answer = expect(probe.ask(method, path), status, path)
            policy = answer.get("content-security-policy")
            assert "frame-ancestors 'none'" in policy and "'unsafe" not in policy and "*" not in policy, policy
            assert ("sandbox" in policy) == (path == "/file")
            assert answer.get("x-content-type-options") == "nosniff" and answer.get("x-frame-options") == "DENY"
            assert answer.get("referrer-policy") == "no-referrer" and answer.get("cross-origin-opener-policy") == "same-origin"
            assert answer.get("cross-origin-resource-policy") == "same-origin" and answer.get("permissions-policy")
            assert answer.get("server") is None and answer.get("access-control-allow-origin") is None
            assert answer.get("strict-transport-security") is None
            if path != "/file":
                assert answer.get("cache-control") == "no-store"
            if status >= 400:
                assert answer.get("content-type") == "application/problem+json" and answer.json()["status"] == status
                assert set(answer.json()) - {"field"} == {"type", "title", "status", "code", "detail"}


@claim
def only_its_own_names_are_answered_to(folder):
    with Probe(folder, hosts="studio.example,other.example:8443") as probe:
        port = probe.port
        good = ["127.0.0.1:%d" % port, "localhost:%d" % port, "LOCALHOST:%d" % port, "[::1]:%d" % port, "studio.example",
                "studio.example:80", "Studio.Example:9", "other.example:8443"]
        bad = ["evil.example", "evil.example:%d" % port, "127.0.0.1", "localhost", "127.0.0.1:%d" % (port ^ 1), "localhost.:%d" % port,
               "127.0.0.1.evil.example:%d" % port, "localhost.evil.example:%d" % port, "0.0.0.0:%d" % port, "127.1:%d" % port,
               "2130706433:%d" % port, "0x7f.1:%d" % port, "[::]:%d" % port, "[::ffff:127.0.0.1]:%d" % port, "192.168.1.1:%d" % port,
               "other.example", "other.example:80", "a@localhost:%d" % port, "localhost:%d@evil" % port, "localhost:0%d/" % port,
               "localhost:", "localhost:%d:%d" % (port, port), "localhost:99999", "localhost:-1", " ", ":%d" % port, "[::1", "]::1[",
               "localhost:%d, evil" % port, "localhost:%d evil" % port, "local host:%d" % port, "x" * 300, "\u00e9:%d" % port,
               "sub.studio.example", "studio.example.", "studio.example:", "studio.example:x", "*", "null", "localhost%%00:%d" % port]
        for host in good:
            expect(probe.ask("GET", "/open", host=host), 200, host)
        for host in bad:
            for path in ["/open", "/events", "/file", "/nothing"]:
                expect(probe.ask("GET", path, BOB, host=host), 421, repr(host))
        assert probe.ask("GET", "/open", host=False).status in (400, 421)  # newer libraries say it themselves
        expect(probe.ask("GET", "/open", host=False, version="1.0"), 421, "no host in 1.0")
        expect(probe.ask("GET", "/open", ("Host", probe.host)), 421, "two hosts")
        expect(probe.ask("GET", "/open", ("Host", "evil.example")), 421, "two hosts")
        # Not through a trusted proxy: its words about the host do not count.
        expect(probe.ask("GET", "/open", ("X-Forwarded-Host", "evil.example")), 200)
        expect(probe.ask("GET", "/open", ("X-Forwarded-Host", probe.host), host="evil.example"), 421)


@claim
def no_page_of_another_origin_changes_anything(folder):
    with Probe(folder) as probe:
        own = "http://" + probe.host
        foreign = ["null", "http://evil.example", "https://" + probe.host, own + "0", "http://127.0.0.1", own + "/", "http://localhost",
                   "http://sub." + probe.host, "file://", "", own + " " + own, "http://127.0.0.1:%d.evil" % probe.port]
        simple = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", None, "text/plain; application/json"]
        writes = [("POST", "/api/items"), ("PATCH", "/api/items/x"), ("DELETE", "/api/items/x"), ("POST", "/api/form"),
                  ("PUT", "/api/bytes"), ("POST", "/v1/simple"), ("POST", "/open")]
        before = probe.metrics()["runs"]
        for method, path in writes:
            for origin in foreign:
                expect(probe.ask(method, path, COOKIE, JSON, ("Origin", origin)), 403, "%s %s %r" % (method, path, origin))
            for site in ["cross-site", "same-site"]:
                expect(probe.ask(method, path, COOKIE, JSON, ("Sec-Fetch-Site", site)), 403, site)
                expect(probe.ask(method, path, COOKIE, JSON, ("Sec-Fetch-Site", site), ("Origin", own)), 403, site)
            expect(probe.ask(method, path, COOKIE, ("Origin", own), ("Origin", own)), 400, "two origins")
        for kind in simple:
            headers = [("Content-Type", kind)] if kind else []
            for path in ["/api/items", "/api/form", "/open"]:
                expect(probe.ask("POST", path, COOKIE, *headers, body=b"x=1"), 403, "%s as %s" % (path, kind))
        for origin in foreign[:3]:
            expect(probe.ask("GET", "/events", COOKIE, ("Origin", origin)), 403, "events from " + origin)
        assert probe.metrics()["runs"] == before
        # Its own page, programs without a browser, and tokens.
        for method, path in writes:
            expect(probe.ask(method, path, COOKIE, JSON, ("Origin", own), ("Sec-Fetch-Site", "same-origin")), 200, path)
            expect(probe.ask(method, path, COOKIE, ("X-CyberImage", "1")), 200, path)
            expect(probe.ask(method, path, BOB, ("Origin", "http://evil.example")), 200, path)
        expect(probe.ask("POST", "/v1/simple", COOKIE, ("Content-Type", "text/plain"), body=b"{}"), 200, "a simple program")


@claim
def other_origins_are_let_in_only_when_configured(folder):
    with Probe(folder, cors_origins="https://app.example, http://localhost:3000") as probe:
        asked = ("Access-Control-Request-Method", "POST")
        answer = expect(probe.ask("OPTIONS", "/api/items", ("Origin", "https://app.example"), asked), 204)
        assert answer.get("access-control-allow-origin") == "https://app.example" and "POST" in answer.get("access-control-allow-methods")
        assert "Authorization" in answer.get("access-control-allow-headers") and answer.get("vary") == "Origin"
        assert answer.get("access-control-allow-credentials") is None
        for origin in ["https://evil.example", "null", "http://app.example", "https://app.example:444", "https://app.example."]:
            answer = expect(probe.ask("OPTIONS", "/api/items", ("Origin", origin), asked), 204)
            assert answer.get("access-control-allow-origin") is None and answer.get("access-control-allow-methods") is None
        answer = expect(probe.ask("POST", "/api/items", BOB, JSON, ("Origin", "http://localhost:3000"), body=b"{}"), 200)
        assert answer.get("access-control-allow-origin") == "http://localhost:3000"
        expect(probe.ask("OPTIONS", "/nothing", ("Origin", "https://app.example"), asked), 404)


# ---- Paths and methods


@claim
def odd_paths_reach_no_route(folder):
    with Probe(folder) as probe:
        before = probe.metrics()["runs"]
        odd = ["//open", "/open/", "/open//", "/./open", "/x/../open", "/%2e/open", "/x/%2e%2e/open", "/%2fopen", "/open%2f", "/%6fpen",
               "/open;x=1", "/;/open", "/open%00", "/open%0a", "/open%7f", "\\open", "/\\open", "/open%5c", "/api%2fitems%2fx", "/ope%n",
               "/open%", "/open%4", "/open%zz", "/OPEN", "/open%20", "/open.", "/open%ff", "/open\x80", "/%c0%aeopen", "/open#x", "open",
               "http://%s/open" % probe.host, "*", "/" + "a" * 1100, "/a" * 20, "/open%e2%80", "/{name}", "/open|x", "/api/items/a%2fb",
               "/images/abc", "/images/.png", "/images/abc.", "/api/items/..", "/api/items/%2e%2e", "/api/items/a%5cb", "/api/items/"]
        for path in odd:
            data = ("GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer alice\r\nConnection: close\r\n\r\n" % (path, probe.host))
            answer = Answer(probe.raw(data.encode("latin-1")))
            assert answer.status in (400, 404, 431), (path, answer.data[:200])
        assert probe.metrics()["runs"] == before
        answer = expect(probe.ask("GET", "/api/items/%c3%a9%20x?q=a+b%26c&q=2", BOB), 200).json()
        assert answer["name"] == "\u00e9 x" and answer["q"] == "a b&c"
        answer = expect(probe.ask("GET", "/images/a.b.png", BOB), 200).json()
        assert (answer["name"], answer["ending"]) == ("a.b", "png")
        expect(probe.ask("GET", "/api/items/first", BOB), 410, "the literal goes before the name")


@claim
def methods_are_what_the_routes_say(folder):
    with Probe(folder) as probe:
        answer = expect(probe.ask("HEAD", "/open"), 200)
        assert answer.body == b"" and int(answer.get("content-length")) == len(probe.ask("GET", "/open").body) + 1
        assert expect(probe.ask("OPTIONS", "/api/items/x"), 204).get("allow") == "PATCH, DELETE, GET, HEAD, OPTIONS"
        for method in ["PUT", "TRACE", "CONNECT", "PROPFIND", "get", "POSTPOSTPOSTPOSTPOST"]:
            assert expect(probe.ask(method, "/api/items"), 405, method).get("allow") == "POST, OPTIONS"
        expect(probe.ask("HEAD", "/api/items"), 405)
        for path in ["/file", "/stream", "/events", "/slow"]:
            assert expect(probe.ask("HEAD", path, BOB), 200, path).body == b""


@claim
def rights_are_checked_on_every_route(folder):
    with Probe(folder) as probe:
        needs = [("GET", "/api/read", "eve"), ("GET", "/api/admin", "alice"), ("POST", "/api/items", "bob"), ("PATCH", "/api/items/x", "bob"),
                 ("DELETE", "/api/items/x", "bob"), ("POST", "/api/form", "bob"), ("PUT", "/api/bytes", "bob"), ("POST", "/v1/simple", "bob"),
                 ("GET", "/images/x.png", "eve")]
        users = ["eve", "bob", "alice"]
        for method, path, least in needs:
            expect(probe.ask(method, path, JSON), 401, path)
            expect(probe.ask(method, path, JSON, ("Authorization", "Bearer wrong")), 401, path)
            expect(probe.ask(method, path, JSON, ("Authorization", "Basic Ym9iOmJvYg==")), 401, path)
            expect(probe.ask(method, path, JSON, ("Cookie", "user=wrong")), 401, path)
            expect(probe.ask(method, path + "?token=alice&access_token=alice&user=alice", JSON), 401, path)
            expect(probe.ask(method, path, JSON, ("X-Api-Key", "alice"), ("X-User", "alice"), ("Proxy-Authorization", "Bearer alice")), 401, path)
            expect(probe.ask(method, path, JSON, ("Authorization", "Bearer alice"), ("Authorization", "Bearer alice")), 400, path)
            expect(probe.ask(method, path, JSON, ("Cookie", "user=alice"), ("Cookie", "user=alice")), 400, path)
            for user in users:
                status = 200 if users.index(user) >= users.index(least) else 403
                expect(probe.ask(method, path, JSON, ("aUTHORIZATION", "Bearer " + user)), status, "%s as %s" % (path, user))
        assert expect(probe.ask("GET", "/api/read"), 401).get("www-authenticate").startswith("Bearer")
        expect(probe.ask("POST", "/open", JSON, ("Cookie", "user=expired"), body=b"{}"), 200, "who was signed in may sign in again")


# ---- Framing and limits


@claim
def framing_that_can_be_read_two_ways_is_refused_and_the_connection_closed(folder):
    with Probe(folder, http_timeout=3) as probe:
        second = "GET /api/read HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer bob\r\n\r\n" % probe.host
        bodies = ["Content-Length: 3\r\nContent-Length: 3", "Content-Length: 3\r\nContent-Length: 4", "Content-Length: 3, 3", "Content-Length: +3",
                  "Content-Length: -3", "Content-Length: 0x3", "Content-Length: 3 3", "Content-Length: ", "Content-Length: 99999999999999999999",
                  "Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3",
                  "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: gzip, chunked",
                  "Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity", "Transfer-Encoding: \x0bchunked",
                  "Transfer-Encoding : chunked", "Content-Length : 3", "X y: 1\r\nContent-Length: 3", "Foo\x00Bar: 1\r\nContent-Length: 3"]
        before = probe.metrics()["runs"]
        for method, path in [("POST", "/api/items"), ("GET", "/api/read"), ("PATCH", "/api/items/x"), ("DELETE", "/api/items/x")]:
            for lines in bodies:
                head = "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer bob\r\n%s\r\n%s\r\n\r\n" % (
                    method, path, probe.host, "%s: %s" % JSON, lines)
                data = probe.raw(head.encode("latin-1") + b"0\r\n\r\n" + second.encode(), timeout=15)
                assert data.startswith(b"HTTP/1.1 4"), (method, lines, data[:300])
                assert data.count(b"HTTP/1.1 ") == data.count(b"HTTP/1.1 4"), (method, lines, data[:2000])
        assert probe.metrics()["runs"] == before
        chunks = ["5\r\nabc\r\n0\r\n\r\n", "zz\r\nabc\r\n", "-1\r\n", "ffffffffffffffffff\r\nabc\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3abc\r\n", "\r\n"]
        for chunk in chunks:
            head = "POST /api/items HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer bob\r\n%s: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % ((probe.host,) + JSON)
            with probe.connect() as connection:
                connection.sendall(head.encode() + chunk.encode())
                connection.shutdown(socket.SHUT_WR)
                data = receive_all(connection)
            assert not data.startswith(b"HTTP/1.1 2"), (chunk, data[:300])
        assert probe.metrics()["runs"] == before
        for line in ["GET /open", "GET /open HTTP/2.0", "GET /open HTTP/0.9", "GET  /open HTTP/1.1", "GET /op en HTTP/1.1", "GET\t/open HTTP/1.1", "", "\x16\x03\x01\x02"]:
            data = probe.raw(("%s\r\nHost: %s\r\nConnection: close\r\n\r\n" % (line, probe.host)).encode("latin-1"), timeout=40)
            assert not data.startswith(b"HTTP/1.1 2") or line in ("GET  /open HTTP/1.1", "GET\t/open HTTP/1.1"), (line, data[:300])


@claim
def bodies_and_heads_have_limits(folder):
    with Probe(folder, body_bytes=200000, http_timeout=5) as probe:
        big = b'"' + b"x" * 250000 + b'"'
        for method, path in [("POST", "/api/items"), ("PUT", "/api/bytes"), ("PATCH", "/api/items/x"), ("POST", "/api/form")]:
            answer = expect(probe.ask(method, path, BOB, JSON, body=big), 413, path)
            assert "200000" in answer.json()["detail"]
            chunked = b"".join(b"%x\r\n%s\r\n" % (len(big[i:i + 30000]), big[i:i + 30000]) for i in range(0, len(big), 30000)) + b"0\r\n\r\n"
            head = "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nAuthorization: Bearer bob\r\n%s: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % (
                (method, path, probe.host) + JSON)
            expect(Answer(probe.raw(head.encode() + chunked)), 413, path + " in chunks")
            expect(probe.ask(method, path, BOB, JSON, body=big[:150000] + b'"'), 200, path)
        expect(probe.ask("POST", "/open", JSON, body=big[:70000] + b'"'), 413, "who has not signed in may send less")
        expect(probe.ask("POST", "/open", JSON, body=big[:60000] + b'"'), 200)
        # A body without end is cut.
        with probe.connect() as connection:
            connection.sendall(head.encode())
            n_sent = 0
            try:
                while n_sent < 64 << 20:
                    connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                    n_sent += 65536
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert n_sent < 32 << 20, n_sent
        expect(probe.ask("GET", "/open", ("X-Long", "x" * 17000)), 431)
        expect(probe.ask("GET", "/open", ("X-Long", "x" * 15000)), 200)
        expect(probe.ask("GET", "/open", *[("X-%d" % i, "x") for i in range(110)]), 431)
        expect(probe.ask("GET", "/open?" + "x" * 9000), 431)
        expect(probe.ask("GET", "/open?" + "&".join("a=%d" % i for i in range(70))), 400)
        assert Answer(probe.raw(("GET /open HTTP/1.1\r\nHost: %s\r\nX: " % probe.host).encode() + b"x" * 100000)).status in (431, 0)
        assert probe.metrics()["body_bytes"] == 0
    with Probe(folder) as probe:
        expect(probe.ask("POST", "/api/items", BOB, JSON, body=b'"' + b"x" * 1100000 + b'"'), 413, "JSON has at most 1 MiB")
        expect(probe.ask("POST", "/v1/simple", BOB, JSON, body=b'"' + b"x" * 1100000 + b'"'), 200, "but pictures in JSON have more")


@claim
def bodies_are_of_the_right_kind(folder):
    with Probe(folder) as probe:
        for kind in ["text/plain", "application/xml", "application/jsonx", "text/json"]:
            expect(probe.ask("POST", "/api/items", BOB, ("Content-Type", kind), body=b"{}"), 415, kind)
        expect(probe.ask("POST", "/api/items", BOB, body=b"{}"), 415)
        expect(probe.ask("POST", "/api/items", BOB, ("Content-Type", "Application/JSON; charset=utf-8"), body=b"{}"), 200)
        for encoding in ["gzip", "deflate", "br", "identity, gzip"]:
            expect(probe.ask("POST", "/api/items", BOB, JSON, ("Content-Encoding", encoding), body=b"{}"), 415, encoding)
        for method, path in [("GET", "/api/read"), ("DELETE", "/api/items/x")]:
            expect(probe.ask(method, path, BOB, JSON, body=b"{}"), 400, path)
        for text in [b"{", b"{}}", b'{"a":1,"a":2}', b"[" * 100 + b"]" * 100, b"\xff", b'"\x00"', b"nul", b"{'a':1}", b"NaN"]:
            expect(probe.ask("POST", "/api/items", BOB, JSON, body=text), 400, repr(text))
        answer = expect(probe.ask("POST", "/api/items", BOB, JSON, body=b'{"a": [1, "\\u00e9"]}'), 200)
        assert json.loads(answer.get("x-json").encode("latin-1")) == {"a": [1, "\u00e9"]}
        expect(probe.ask("POST", "/api/items", BOB), 200, "a body may be absent")
        data = bytes(range(256))
        assert expect(probe.ask("PUT", "/api/bytes", BOB, body=data), 200).json()["n"] == 256


@claim
def a_client_that_asks_first_is_told_before_it_sends(folder):
    with Probe(folder) as probe:
        for headers, wanted in [([BOB], b"HTTP/1.1 100 "), ([], b"HTTP/1.1 401 "), ([BOB, ("Content-Length", "9999999999")], b"HTTP/1.1 413 ")]:
            lines = ["POST /api/items HTTP/1.1", "Host: " + probe.host, "%s: %s" % JSON, "Expect: 100-continue"]
            lines += ["%s: %s" % header for header in headers]
            if len(headers) < 2:
                lines.append("Content-Length: 2")
            with probe.connect() as connection:
                connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
                data = connection.recv(65536)
                assert data.startswith(wanted), data[:200]
                if wanted == b"HTTP/1.1 100 ":
                    connection.sendall(b"{}")
                    assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@claim
def slow_clients_are_cut_and_disturb_nobody(folder):
    with Probe(folder, http_timeout=1) as probe:
        start = time.monotonic()
        heads = [b"GET /open HT", b"GET /open HTTP/1.1\r\nHost: x\r\nX-",
                 ("POST /api/items HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer bob\r\n%s: %s\r\nContent-Length: 100000\r\n\r\n" % ((probe.host,) + JSON)).encode()]
        silent = [probe.connect() for _ in heads] + [probe.connect()]
        dripping = [probe.connect() for _ in heads]
        for connection, head in zip(silent + dripping, heads + [b""] + heads):
            connection.sendall(head)
        is_open = [True] * len(dripping)
        while any(is_open) and time.monotonic() - start < 12:
            for i, connection in enumerate(dripping):
                try:
                    connection.sendall(b"a")
                    connection.settimeout(0.05)
                    if connection.recv(1000) == b"":
                        is_open[i] = False
                except socket.timeout:
                    pass
                except (BrokenPipeError, ConnectionResetError):
                    is_open[i] = False
            expect(probe.ask("GET", "/open"), 200)
            time.sleep(0.2)
        took = time.monotonic() - start
        assert not any(is_open) and took < 9, (is_open, took)
        for connection in silent:
            connection.settimeout(1)
            assert receive_all(connection) == b""
            connection.close()
        for connection in dripping:
            connection.close()


@claim
def one_address_does_not_take_all_connections(folder):
    with Probe(folder, http_per_address=20, http_timeout=30) as probe:
        kept = [probe.connect() for _ in range(20)]
        time.sleep(0.3)
        with probe.connect() as extra:
            assert receive_all(extra) == b""
        for connection in kept:
            connection.close()
        time.sleep(0.5)
        expect(probe.ask("GET", "/open"), 200)
    with Probe(folder, http_per_address=20, trusted_proxies="127.0.0.0/8") as probe:
        kept = [probe.connect() for _ in range(40)]
        time.sleep(0.3)
        expect(probe.ask("GET", "/open"), 200, "a proxy stands for many")
        for connection in kept:
            connection.close()


@claim
def a_connection_serves_many_requests_also_when_they_come_together(folder):
    with Probe(folder) as probe:
        one = "GET /open?q=%%d HTTP/1.1\r\nHost: %s\r\n\r\n" % probe.host
        last = "POST /open HTTP/1.1\r\nHost: %s\r\n%s: %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}" % ((probe.host,) + JSON)
        data = probe.raw("".join(one % i for i in range(200)).encode() + last.encode())
        assert data.count(b"HTTP/1.1 200 ") == 201 and all(b'"q":"%d"' % i in data for i in range(200))


# ---- Proxies


@claim
def what_proxies_say_counts_only_from_trusted_ones(folder):
    words = [("X-Forwarded-For", "198.51.100.7, 203.0.113.8, 10.1.2.3"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "studio.example"),
             ("X-Forwarded-Prefix", "/studio")]
    with Probe(folder) as probe:
        answer = expect(probe.ask("GET", "/open", *words), 200)
        assert answer.json()["address"] == "127.0.0.1" and answer.json()["base"] == probe.url
        assert answer.get("strict-transport-security") is None
    with Probe(folder, trusted_proxies="127.0.0.1, 10.0.0.0/8", hosts="studio.example") as probe:
        answer = expect(probe.ask("GET", "/open", *words), 200)
        assert answer.json()["address"] == "203.0.113.8" and answer.json()["base"] == "https://studio.example/studio"
        assert answer.get("strict-transport-security")
        expect(probe.ask("GET", "/open", ("X-Forwarded-Host", "evil.example")), 421)
        expect(probe.ask("GET", "/open", ("X-Forwarded-Host", "studio.example"), ("X-Forwarded-Host", "studio.example")), 400)
        for text, address in [("garbage", "127.0.0.1"), ("1.2.3.4, garbage", "127.0.0.1"), ("", "127.0.0.1"), ("10.0.0.1", "10.0.0.1"),
                              ("2001:db8::1", "2001:db8::1"), ("::ffff:9.9.9.9", "9.9.9.9"), ("9.9.9.9, 10.0.0.1, 127.0.0.1", "9.9.9.9")]:
            assert expect(probe.ask("GET", "/open", ("X-Forwarded-For", text)), 200).json()["address"] == address, text
        for prefix in ["//evil.example", "/a//b", "/../x", "/x\"y", "x", "/"]:
            assert expect(probe.ask("GET", "/open", ("X-Forwarded-Prefix", prefix)), 200).json()["base"] == "http://" + probe.host
        expect(probe.ask("POST", "/api/items", COOKIE, JSON, words[1], words[2], ("Origin", "https://studio.example"), body=b"{}"), 200)
        expect(probe.ask("POST", "/api/items", COOKIE, JSON, words[1], words[2], ("Origin", "http://studio.example"), body=b"{}"), 403)
        for i in range(7):  # by the client's address, not the proxy's
            expect(probe.ask("GET", "/counted", ("X-Forwarded-For", "203.0.113.9")), 200 if i < 5 else 429)
        answer = probe.ask("GET", "/counted", ("X-Forwarded-For", "203.0.113.9"))
        assert answer.get("retry-after") == "3" and answer.json()["code"] == "too-many"
        expect(probe.ask("GET", "/file", ("X-Forwarded-For", "203.0.113.9")), 200, "static files do not count")
        expect(probe.ask("GET", "/counted", ("X-Forwarded-For", "203.0.113.10")), 200)


@claim
def the_studio_lies_below_its_base_path(folder):
    with Probe(folder, base_path="/studio/", trusted_proxies="127.0.0.1") as probe:
        assert probe.url.endswith("/studio")
        answer = expect(probe.ask("GET", "/studio/open"), 200).json()
        assert answer["path"] == "/open" and answer["base"] == probe.url
        expect(probe.ask("GET", "/studio/"), 200)
        for path in ["/open", "/", "/studioopen", "/studio//open", "/x/studio/open", "/STUDIO/open"]:
            assert probe.ask("GET", path).status in (400, 404), path
        expect(probe.ask("GET", "/open", ("X-Forwarded-Prefix", "/studio")), 200, "the proxy has cut it off")
        answer = expect(probe.ask("GET", "/studio"), 308)
        assert answer.get("location") == "/studio/"


# ---- Forms


def form(*parts, boundary="BoUnDaRy", end="--\r\n"):
    out = b""
    for head, data in parts:
        out += b"--" + boundary.encode() + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n"
    return out + b"--" + boundary.encode() + end.encode()


FORM = ("Content-Type", "multipart/form-data; boundary=BoUnDaRy")


@claim
def forms_are_read_as_browsers_and_curl_send_them(folder):
    with Probe(folder) as probe:
        picture = bytes(range(256)) * 3 + b"\r\n--BoUnDar\r\n--"
        body = form((b'Content-Disposition: form-data; name="prompt"', "ein B\u00e4r".encode()),
                    (b'content-disposition: form-data; name="image"; filename="C:\\\\dir\\\\cat \\"1\\".png"\r\nContent-Type: image/png', picture),
                    (b"Content-Disposition: form-data; name=empty", b""),
                    (b'Content-Disposition: form-data; name="lines"; filename="../../etc/passwd"\r\nX-Other: 1', b"\r\n\r\n"))
        parts = expect(probe.ask("POST", "/api/form", BOB, FORM, body=body), 200).json()["parts"]
        assert [(p["name"], p["file"], p["type"], p["n"]) for p in parts] == [
            ("prompt", None, None, 8), ("image", 'cat "1".png', "image/png", len(picture)), ("empty", None, None, 0), ("lines", "passwd", None, 4)]
        assert parts[0]["data"] == "ein B\u00e4r"
        quoted = ("Content-Type", 'multipart/form-data; charset=utf-8; boundary="Bo UnDaRy"')
        expect(probe.ask("POST", "/api/form", BOB, quoted, body=form((b"Content-Disposition: form-data; name=a", b"1"), boundary="Bo UnDaRy")), 200)
        assert expect(probe.ask("POST", "/api/form", BOB, FORM, body=form()), 200).json()["parts"] == []
        expect(probe.ask("POST", "/api/form", BOB, JSON, body=b'{"a":1}'), 200)


@claim
def broken_forms_are_refused(folder):
    with Probe(folder) as probe:
        good = (b'Content-Disposition: form-data; name="a"', b"1")
        bad = [b"", b"x", b"--BoUnDaRy", b"--BoUnDaRy\r\n", form(good)[:-4], form(good)[:-3], form(good, end="--x"), form(good, end="--\r\n\r\nrest"),
               b"\r\n" + form(good), b"preamble\r\n" + form(good), form(good).replace(b"\r\n", b"\n"), form((b"", b"1")), form((b"X: 1", b"1")),
               form((b"Content-Disposition: attachment; name=a", b"1")), form((b"Content-Disposition: form-data", b"1")),
               form((b'Content-Disposition: form-data; name=""', b"1")), form((b'Content-Disposition: form-data; name="a', b"1")),
               form((b'Content-Disposition: form-data; name="a"; name="b"', b"1")), form((b'Content-Disposition: form-data; name="a"; filename="x"; filename="y"', b"1")),
               form((good[0] + b"\r\n" + good[0], b"1")), form((b'Content-Disposition: form-data; name="\xff"', b"1")),
               form((b'Content-Disposition: form-data; name="a\x00b"', b"1")), form((b'Content-Disposition: form-data; name="a\x01"', b"1")),
               form((b'Content-Disposition: form-data; name="%s"' % (b"x" * 300), b"1")), form((good[0] + b"\r\nX: " + b"x" * 5000, b"1")),
               form((good[0] + b"\r\nContent-Transfer-Encoding: base64", b"MQ==")), form((good[0] + b"\r\nno colon", b"1")), form((good[0] + b"\r\n: x", b"1")),
               form((good[0] + b"\r\nContent-Type: a\r\nContent-Type: b", b"1")), form(*[good] * 65), b"--BoUnDaRy\r\n" + good[0] + b"\r\n\r\n1"]
        for body in bad:
            if body:
                expect(probe.ask("POST", "/api/form", BOB, FORM, body=body), 400, repr(body[:120]))
        for kind in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 71,
                     'multipart/form-data; boundary="a', "multipart/form-data; boundary=a; boundary=b", "multipart/form-data; boundary=\"a\x0bb\""]:
            assert probe.ask("POST", "/api/form", BOB, ("Content-Type", kind), body=form(good, boundary="a")).status == 400, kind
        assert len(expect(probe.ask("POST", "/api/form", BOB, FORM, body=form(*[good] * 64)), 200).json()["parts"]) == 64
        start = time.monotonic()
        hard = form((good[0], b"\r\n--BoUnDaR" * 200000))
        expect(probe.ask("POST", "/api/form", BOB, FORM, body=hard), 200)
        assert time.monotonic() - start < 5


# ---- Answers


@claim
def queries_are_read_strictly(folder):
    with Probe(folder) as probe:
        assert expect(probe.ask("GET", "/rows?limit=7&scale=0.5&flag=true&text=ab"), 200).json() == {"limit": 7, "scale": 0.5, "flag": True, "text": "ab"}
        assert expect(probe.ask("GET", "/rows"), 200).json()["limit"] == 50
        bad = {"limit": ["0", "101", "-1", "1.0", "1e1", "", "x", "0x5", "%2b5", "99999999999999999999", "9223372036854775808", "5%20", "null", "[]", "NaN"],
               "scale": ["-0.1", "2.1", "1e309", "NaN", "inf", "", "0x1", "1,5"], "flag": ["yes", "", "2", "TRUE"], "text": ["", "x" * 11]}
        for name, values in bad.items():
            for value in values:
                answer = expect(probe.ask("GET", "/rows?%s=%s" % (name, value)), 422, "%s=%s" % (name, value))
                assert answer.json()["field"] == name
        assert expect(probe.ask("GET", "/rows?limit=1&limit=2"), 422).json()["field"] == "limit"
        assert expect(probe.ask("GET", "/rows?unknown=1"), 422).json()["field"] == "unknown"
        for query in ["limit=%", "limit=%zz", "text=%00", "text=%ff", "text=%c0%80"]:
            expect(probe.ask("GET", "/rows?" + query), 400, query)


@claim
def problems_say_what_where_and_when_to_come_again(folder):
    with Probe(folder) as probe:
        for path in ["/fail", "/slow/fail"]:
            answer = expect(probe.ask("GET", path), 507)
            assert answer.json() == {"type": "urn:cyberimage:problem:no-space", "title": "The disk is full", "status": 507, "code": "no-space",
                                     "detail": "no room for " + path, "field": "seed"}
            assert answer.get("retry-after") == "7"
        answer = expect(probe.ask("GET", "/v1/fail"), 507)
        assert answer.json() == {"error": {"message": "no room for /v1/fail"}} and answer.get("content-type") == "application/json"
        assert expect(probe.ask("GET", "/api/items/first"), 410).json()["detail"] == "It is not there any more"


@claim
def files_come_whole_in_part_or_not_at_all(folder):
    with Probe(folder) as probe:
        with open(probe.file, "rb") as source:
            data = source.read()
        answer = expect(probe.ask("GET", "/file"), 200)
        assert answer.body == data and answer.get("etag") == '"tag1"' and answer.get("accept-ranges") == "bytes"
        assert answer.get("cache-control") == "private, no-cache" and answer.get("content-disposition") == "inline"
        date = answer.get("last-modified")
        assert "immutable" in probe.ask("GET", "/file?immutable").get("cache-control")
        assert expect(probe.ask("GET", "/file?name=k%C3%A4tzchen%22%0d%0aX:%20y"), 200).get("x") is None
        assert probe.ask("GET", "/file?name=k%C3%A4tz%22.png").get("content-disposition") == "attachment; filename=\"k__tz_.png\"; filename*=UTF-8''k%C3%A4tz%22.png"
        ranges = [("bytes=0-0", 0, 1), ("bytes=0-99", 0, 100), ("bytes=99990-", 99990, 10), ("bytes=-5", 99995, 5), ("bytes=99999-200000", 99999, 1),
                  ("bytes=-200000", 0, 100000), ("Bytes=1-2", 1, 2)]
        for text, first, n in ranges:
            answer = expect(probe.ask("GET", "/file", ("Range", text)), 206, text)
            assert answer.body == data[first:first + n] and answer.get("content-range") == "bytes %d-%d/100000" % (first, first + n - 1), text
        for text in ["bytes=5-2", "bytes=a-b", "bytes=", "bytes=-", "lines=0-5", "bytes=0-1,5-6", "bytes=0", "bytes 0-5", "bytes=1-2x", "bytes= 1-2"]:
            assert expect(probe.ask("GET", "/file", ("Range", text)), 200, text).body == data
        for text in ["bytes=100000-", "bytes=100000-100001", "bytes=-0", "bytes=99999999999999999999-"]:
            assert expect(probe.ask("GET", "/file", ("Range", text)), 416, text).get("content-range") == "bytes */100000"
        for tags in ['"tag1"', 'W/"tag1"', '"x", "tag1"', "*", '"x",W/"tag1" , "y"']:
            answer = expect(probe.ask("GET", "/file", ("If-None-Match", tags)), 304, tags)
            assert answer.body == b"" and answer.get("etag") == '"tag1"'
        for tags in ['"tag"', '"tag11"', "tag1", '"x"']:
            expect(probe.ask("GET", "/file", ("If-None-Match", tags)), 200, tags)
        expect(probe.ask("GET", "/file", ("If-Modified-Since", date)), 304)
        expect(probe.ask("GET", "/file", ("If-Modified-Since", "Mon, 01 Jan 2001 00:00:00 GMT")), 200)
        expect(probe.ask("GET", "/file", ("If-Modified-Since", "yesterday")), 200)
        expect(probe.ask("GET", "/file", ("If-Modified-Since", date), ("If-None-Match", '"other"')), 200)
        for condition, status in [('"tag1"', 206), ('"other"', 200), ('W/"tag1"', 200), (date, 206), ("Mon, 01 Jan 2001 00:00:00 GMT", 200)]:
            expect(probe.ask("GET", "/file", ("Range", "bytes=0-9"), ("If-Range", condition)), status, condition)


# ---- Slow routes, streams, events


@claim
def slow_routes_have_a_bound_and_the_rest_goes_on(folder):
    with Probe(folder) as probe:
        request = ("GET /slow?ms=2500 HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % probe.host).encode()
        busy = [probe.connect(20) for _ in range(64)]
        for connection in busy:
            connection.sendall(request)
        wait_for(lambda: probe.metrics()["slow"] == 64, 2)
        answer = expect(probe.ask("GET", "/slow?ms=1"), 503)
        assert answer.get("retry-after") == "5" and answer.json()["code"] == "unavailable"
        expect(probe.ask("GET", "/open"), 200, "the rest goes on")
        for connection in busy:
            expect(Answer(receive_all(connection)), 200)
            connection.close()
        # Whoever goes away is noticed.
        with probe.connect() as connection:
            connection.sendall(request.replace(b"2500", b"20000"))
            time.sleep(0.2)
        wait_for(lambda: probe.metrics()["ended_streams"] == 1 and probe.metrics()["slow"] == 0, 5)


@claim
def streams_arrive_whole_also_at_slow_readers(folder):
    with Probe(folder, http_timeout=2) as probe:
        wanted = b"".join(bytes([97 + i % 26]) * 65536 for i in range(40))
        answer = expect(probe.ask("GET", "/stream?n=40"), 200)
        assert answer.body == wanted and answer.is_whole
        assert probe.ask("GET", "/stream?n=0").body == b""
        answer = probe.ask("GET", "/stream?n=3&fail")
        assert answer.status == 200 and not answer.is_whole, "a stream that broke must not look complete"
        expect(probe.ask("GET", "/stream?n=0&fail"), 500)
        request = ("GET /stream?n=100 HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % probe.host).encode()
        with probe.connect(receive_buffer=262144) as connection:  # slow, but reading
            connection.sendall(request)
            data = b""
            for _ in range(8):
                data += connection.recv(1 << 20)
                time.sleep(0.5)
            data += receive_all(connection)
        assert len(Answer(data).body) == 100 * 65536 and Answer(data).is_whole
        with probe.connect(receive_buffer=8192) as connection:  # not reading
            connection.sendall(request)
            wait_for(lambda: probe.metrics()["ended_streams"] == 1)
        with probe.connect() as connection:  # gone
            connection.sendall(request.replace(b"100", b"100000"))
            connection.recv(1000)
        wait_for(lambda: probe.metrics()["ended_streams"] == 2)


class Watcher:
    def __init__(self, probe, user="bob", after=None, receive_buffer=None):
        self.connection = probe.connect(10, receive_buffer)
        extra = "Last-Event-ID: %s\r\n" % after if after is not None else ""
        self.connection.sendall(("GET /events HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n%s\r\n" % (probe.host, user, extra)).encode())
        self.data = b""
        while b"retry: 2000\n\n" not in self.data:
            self.more()
        self.data = self.data.partition(b"\r\n\r\n")[2]

    def more(self):
        piece = self.connection.recv(65536)
        if not piece:
            raise EOFError
        self.data += piece

    def events(self, n):
        """The first n events as (id, type, text)."""
        while True:
            blocks = [b for b in unchunk(self.data)[0].split(b"\n\n")[:-1] if b"event: " in b]
            if len(blocks) >= n:
                break
            self.more()
        out = []
        for block in blocks[:n]:
            lines = dict(line.split(": ", 1) for line in block.decode().split("\n"))
            out.append((lines.get("id"), lines["event"], json.loads(lines["data"]).get("text")))
        return out

    def close(self):
        self.connection.close()


@claim
def watchers_see_what_is_theirs_in_order_and_can_resume(folder):
    with Probe(folder) as probe:
        bob, eve, alice = Watcher(probe), Watcher(probe, "eve"), Watcher(probe, "alice")
        for line in ["- one", "bob two", "eve three", "- four"]:
            probe.tell("publish " + line)
        assert [e[2] for e in bob.events(3)] == ["one", "two", "four"]
        assert [e[2] for e in eve.events(3)] == ["one", "three", "four"]
        seen = alice.events(4)
        assert [e[2] for e in seen] == ["one", "two", "three", "four"]
        ids = [int(e[0]) for e in seen]
        assert ids == list(range(ids[0], ids[0] + 4)) and ids[0] < 2 ** 53
        again = Watcher(probe, after=ids[0])
        assert [e[2] for e in again.events(2)] == ["two", "four"]
        for after in [ids[3] + 1, 1, ids[0] - 2]:  # of no run, of an earlier run
            lost = Watcher(probe, after=after)
            assert lost.events(1)[0][1] == "reset", after
            probe.tell("publish - fresh")
            assert lost.events(2)[1][2] == "fresh"
            lost.close()
        hostile = 'a\\r\\nb event: x data: \u2028\u2029 id: 9 \x7f </script> ' + "x" * 3000
        probe.tell("publish - " + hostile)
        assert again.events(6)[5][2] == hostile and again.events(6)[5][1] == "note"
        for watcher in (bob, eve, alice, again):
            watcher.close()


@claim
def a_right_that_ends_ends_its_watching_within_five_seconds(folder):
    with Probe(folder) as probe:
        bob, alice = Watcher(probe), Watcher(probe, "alice")
        probe.tell("revoke")
        start = time.monotonic()
        assert receive_to_end_of_stream(bob.connection).endswith(b"0\r\n\r\n")
        assert time.monotonic() - start < 5.5
        probe.tell("publish - still")
        assert alice.events(1)[0][2] == "still"
        alice.close()
        wait_for(lambda: probe.metrics()["watchers"] == 0)  # who goes away is noticed


@claim
def who_reads_too_slowly_is_cut_and_the_others_are_not(folder):
    with Probe(folder, http_timeout=60) as probe:
        slow, quick = Watcher(probe, receive_buffer=4096), Watcher(probe, "eve")
        n = [0]

        def read():
            try:
                while True:
                    n[0] += quick.connection.recv(1 << 20).count(b"event: note")
            except OSError:
                pass

        thread = threading.Thread(target=read)
        thread.start()
        probe.tell("flood")
        probe.metrics()
        slow.connection.settimeout(20)
        data = receive_to_end_of_stream(slow.connection)
        assert data.count(b"event: note") < 6000
        probe.tell("publish - after")
        expect(probe.ask("GET", "/open"), 200)
        time.sleep(0.5)
        quick.connection.shutdown(socket.SHUT_RDWR)
        thread.join()
        assert n[0] > 0
        slow.close()
        quick.close()


@claim
def many_watchers_cost_no_threads(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, N_WATCHERS + 200)), hard))
    with Probe(folder, http_per_address=2000) as probe:
        def status(name):
            with open("/proc/%d/status" % probe.process.pid) as lines:
                return int(next(line.split()[1] for line in lines if line.startswith(name + ":")))

        expect(probe.ask("GET", "/open"), 200)
        n_threads, memory = status("Threads"), status("VmRSS")
        watchers = [Watcher(probe, "eve" if i % 2 else "bob") for i in range(N_WATCHERS)]
        assert status("Threads") == n_threads
        print("# %d watchers: %.1f KiB each" % (N_WATCHERS, (status("VmRSS") - memory) / N_WATCHERS))
        assert probe.metrics()["watchers"] == N_WATCHERS
        start = time.monotonic()
        for i in range(20):
            probe.tell("publish - %d" % i)
        for watcher in watchers:
            assert [e[2] for e in watcher.events(20)] == [str(i) for i in range(20)]
        print("# 20 events at all of them after %.2f s" % (time.monotonic() - start))
        expect(probe.ask("GET", "/open"), 200)
        for watcher in watchers[::2]:
            watcher.close()
        probe.tell("publish - last")
        for watcher in watchers[1::2]:
            assert watcher.events(21)[20][2] == "last"
        # The rest stays open: stopping must not wait for it.
        start = time.monotonic()
        probe.stop()
        assert time.monotonic() - start < 8


@claim
def stopping_ends_what_is_open(folder):
    with Probe(folder) as probe:
        request = "GET %%s HTTP/1.1\r\nHost: %s\r\n\r\n" % probe.host
        slow, stream, watcher, idle = probe.connect(), probe.connect(receive_buffer=4096), Watcher(probe), probe.connect()
        slow.sendall((request % "/slow?ms=60000").encode())
        stream.sendall((request % "/stream?n=100000").encode())
        time.sleep(0.3)
        start = time.monotonic()
        probe.stop()
        assert time.monotonic() - start < 12
        assert receive_all(slow).startswith(b"HTTP/1.1 200") and receive_all(watcher.connection).endswith(b"0\r\n\r\n")
        for connection in (slow, stream, idle, watcher):
            connection.close()


# ---- Starting, TLS


@claim
def settings_that_cannot_be_are_refused_with_a_sentence(folder):
    with Probe(folder) as probe:
        for settings, words in [({"listen": "127.0.0.1:%d" % probe.port}, "in use"), ({"listen": "nonsense"}, "listen"), ({"listen": "1.2.3.4:99999"}, "listen"),
                                ({"listen": "203.0.113.1:0"}, "cannot listen"), ({"trusted_proxies": "10.0.0.0/33"}, "10.0.0.0/33"),
                                ({"trusted_proxies": "proxy.example"}, "proxy.example"), ({"base_path": "studio"}, "base-path"), ({"base_path": "/a//b"}, "base-path"),
                                ({"tls_certificate": probe.file}, "tls-key"), ({"tls_certificate": "/nowhere", "tls_key": "/nowhere"}, "/nowhere"),
                                ({"tls_certificate": probe.file, "tls_key": probe.file}, "PEM")]:
            other = Probe(folder, **settings)
            assert other.process.wait(10) == 1 and words in other.read_errors(), (settings, other.read_errors())
            other.process.stdin.close()
            other.process.stdout.close()
            other.errors.close()
    with Probe(folder, listen="[::1]:0") as probe:
        assert probe.url.startswith("http://[::1]:")
        with socket.create_connection(("::1", probe.port)) as connection:
            connection.sendall(("GET /open HTTP/1.1\r\nHost: [::1]:%d\r\nConnection: close\r\n\r\n" % probe.port).encode())
            assert expect(Answer(receive_all(connection)), 200).json()["address"] == "::1"


@claim
def tls_works_by_files(folder):
    if shutil.which("openssl") is None:
        raise Skip("openssl is not here")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    context = ssl.create_default_context(cafile="cert.pem")
    with Probe(folder, tls=context, tls_certificate="cert.pem", tls_key="key.pem") as probe:
        assert probe.url.startswith("https://")
        answer = expect(probe.ask("GET", "/open"), 200)
        assert answer.get("strict-transport-security") and answer.json()["base"].startswith("https://")
        with open(probe.file, "rb") as source:
            assert expect(probe.ask("GET", "/file"), 200).body == source.read()
        assert len(expect(probe.ask("GET", "/stream?n=20"), 200).body) == 20 * 65536
        watcher = Watcher(probe)
        probe.tell("publish - secret")
        assert watcher.events(1)[0][2] == "secret"
        watcher.close()
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        try:
            with socket.create_connection(("127.0.0.1", probe.port)) as connection:
                old.wrap_socket(connection)
            raise AssertionError("TLS 1.1 is spoken")
        except (ssl.SSLError, ConnectionResetError):
            pass


@claim
def queries_are_never_logged(folder):
    with Probe(folder, log_level="debug") as probe:
        for path in ["/open?link=SECRET1", "/nothing?link=SECRET1", "/rows?unknown=SECRET1", "//x?SECRET1", "/fail?SECRET1"]:
            probe.ask("GET", path, ("Cookie", "user=SECRET1"), ("Authorization", "Bearer SECRET1"))
        assert "SECRET1" not in probe.read_errors() and "http.answer" in probe.read_errors()


sys.exit(run_claims())
