#!/usr/bin/env python3
"""Probes of the whole studio, named by what they are after. What belongs to HTTP alone (smuggling, slow clients, hosts, origins, paths) is
probed in test_http.py, whose pictures are whose in test_gallery.py."""
import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from pictures import multipart, png  # noqa: E402
from studio import PROGRAM, Studio, Watcher, wait_for  # noqa: E402
from tap import claim, run_claims  # noqa: E402

NOWHERE = "01999999-0000-7000-8000-000000000000"
PASSWORD = "correct horse battery"
VECTORS = ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'><svg/onload=alert(1)>", "javascript:alert(1)", "</title><script>alert(1)</script>",
           "{{7*7}}${7*7}<%= 7*7 %>", "%3Cscript%3Ealert(1)%3C/script%3E", "<iframe srcdoc='<script>alert(1)</script>'>", "]]><script>alert(1)</script>",
           "<a href=\"data:text/html,<script>alert(1)</script>\">x</a>", "\u2028alert(1)\u2029", "<!--<script>-->", "<math><mtext></form><form><mglyph><style>"]
FORMATS = ["%s%s%s%s%s%n", "%x%x%x%x", "%99999999d", "%1$n", "' OR '1'='1", "'; DROP TABLE images; --", "\" OR \"\"=\"", "1) OR (1=1", "x' UNION SELECT * FROM users --",
           "\\'; --", "*", "NEAR(a b)", "prompt : x", "a\" NOT \"b", "${jndi:ldap://x}", "$(reboot)", "`reboot`", "| reboot", "../../etc/passwd", "%00", "\\x00"]


def run_serve(folder, *arguments, seconds=20):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CYBERIMAGE_")}
    environment["HOME"] = folder
    return subprocess.run([PROGRAM, "serve", "--data", os.path.join(folder, "data"), *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds, check=False)


def raw(studio, text):
    """Sends bytes, gives the status of the answer."""
    with socket.create_connection(("127.0.0.1", studio.port), timeout=10) as connection:
        connection.sendall(text.encode())
        data = b""
        while b"\r\n" not in data:
            more = connection.recv(4096)
            if not more:
                break
            data += more
    return int(data.split()[1]) if data else 0


def routes_of(studio):
    """(method, path with ids in it, whether anybody may) of every route that there is."""
    document = studio.need("GET", "/openapi.json")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            filled = path.replace("{id}", NOWHERE).replace("{ending}", "png").replace("{size}", "256").replace("{name}", "neon").replace("{organisation}", "x")
            yield method.upper(), filled, operation.get("security") == []


def state_of(studio):
    """A hash of everything that is kept but who looked at it."""
    with studio.database() as database:
        rows = [[tuple(row) for row in database.execute("SELECT * FROM " + table + " ORDER BY 1, 2")] for table in
                ("jobs", "images", "image_tags", "tags", "albums", "album_images", "users", "settings", "state", "enrichments")]
        tokens = [row[0] for row in database.execute("SELECT id FROM tokens WHERE revoked_us IS NULL ORDER BY id")]
    return hashlib.sha256(repr((rows, tokens)).encode()).hexdigest()


# ---- S01


@claim
def s01_it_opens_to_others_only_with_accounts_and_tls(folder):
    cases = [(["--listen", "0.0.0.0:0"], "can be reached by others"), (["--listen", "[::]:0"], "can be reached by others"),
             (["--listen", "0.0.0.0:0", "--no-auth"], "loopback only"), (["--listen", "0.0.0.0:0", "--trusted-proxies", "10.0.0.1"], "no account has a password")]
    for arguments, sentence in cases:
        done = run_serve(folder, *arguments)
        assert done.returncode == 2 and sentence in done.stderr.decode() and done.stdout == b"", (arguments, done)
    with Studio(folder) as studio:
        assert studio.port  # 127.0.0.1, and nobody else's
        with open("/proc/net/tcp", encoding="ascii") as table:
            mine = [line.split()[1] for line in table if ":%04X" % studio.port in line.split()[1] and line.split()[3] == "0A"]
        assert mine == ["0100007F:%04X" % studio.port], mine


# ---- S02


@claim
def s02_no_route_is_open_by_another_way(folder):
    with Studio(folder, no_auth="false", rate_requests="0") as studio:
        owner = studio.sign_in()
        token = studio.need("POST", "/api/v1/tokens", {"name": "x", "scopes": ["read", "generate", "edit", "admin"]}, 201, headers=owner)
        dead = studio.need("POST", "/api/v1/tokens", {"name": "x", "scopes": ["read"]}, 201, headers=owner)
        studio.ask("DELETE", "/api/v1/tokens/" + dead["id"], headers=owner)
        late = studio.need("POST", "/api/v1/tokens", {"name": "x", "scopes": ["read"], "expires": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))}, 201,
                           headers=owner)
        wait_for(lambda: studio.get("/api/v1/me", headers={"Authorization": "Bearer " + late["token"]}).status == 401, 5, "the token's end")
        good = token["token"]
        credentials = [{}, {"Authorization": "Bearer cyi_nothing"}, {"Authorization": "Bearer " + dead["token"]}, {"Authorization": "Bearer " + late["token"]},
                       {"Authorization": good}, {"Authorization": "Token " + good}, {"Authorization": "bearer" + good}, {"Authorization": "Bearer"},
                       {"Authorization": "Bearer " + good[:-1]}, {"Authorization": "Bearer " + good + "x"}, {"Authorization": "Bearer " + good.upper()},
                       {"X-Api-Key": good}, {"X-Auth-Token": good}, {"Cookie": "cyberimage=" + good}, {"Cookie": "cyberimage="}, {"Cookie": "session=" + good},
                       {"Cookie": owner["Cookie"][:-1]}, {"Authorization": "Bearer " + owner["Cookie"].split("=")[1]}, {"X-Forwarded-User": "owner"}, {"Remote-User": "owner"},
                       {"Authorization": "Basic b3duZXI6"}, {"Authorization": "Basic !!"}]
        n = 0
        for method, path, is_open in routes_of(studio):
            if is_open:
                continue
            for headers in credentials:
                n += 1
                answer = studio.ask(method, path, headers=headers)
                assert answer.status == 401, (method, path, headers, answer)
            for query in ("?token=" + good, "?access_token=" + good, "?api_key=" + good, "?Authorization=Bearer%20" + good):
                assert studio.ask(method, path + query).status == 401, (method, path, query)
        assert n > 1500, n
        for odd in ("//api/v1/me", "/api//v1/me", "/api/v1/me/", "/API/v1/me", "/api/v1/%6de", "/api/v1/me;x", "/api/v1/./me", "/api/v1/x/../me", "/api/v1/%2e%2e/v1/me", "/%2e/api/v1/me",
                    "/api/v1/me%00", "/api/v1/me%20", "/api%2fv1%2fme", "\\api\\v1\\me"):
            status = raw(studio, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % (odd, studio.port))
            assert status in (400, 401, 404), (odd, status)
        for method in ("HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "GET"):
            status = raw(studio, "%s /api/v1/me HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % (method, studio.port))
            assert status in (400, 401, 404, 405, 501) or (method == "OPTIONS" and status == 204), (method, status)
        for double in ("Authorization: Bearer %s\r\nAuthorization: Bearer x\r\n" % good, "Authorization: Bearer x\r\nAuthorization: Bearer %s\r\n" % good):
            status = raw(studio, "GET /api/v1/me HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%sConnection: close\r\n\r\n" % (studio.port, double))
            assert status in (400, 401), status
        assert studio.get("/api/v1/me", headers={"Authorization": "Bearer " + good}).status == 200


@claim
def scopes_and_roles_limit_every_route(folder):
    with Studio(folder, no_auth="false", rate_requests="0") as studio:
        owner = studio.sign_in()
        reader = studio.need("POST", "/api/v1/tokens", {"name": "r", "scopes": ["read"]}, 201, headers=owner)["token"]
        bob = studio.add_user(owner, "bob")
        vera = studio.add_user(owner, "vera", "viewer")
        before = state_of(studio)
        for method, path, is_open in routes_of(studio):
            if is_open or method == "GET" or path in ("/api/v1/session", "/api/v1/me/password", "/api/v1/tokens", "/api/v1/tokens/" + NOWHERE, "/api/v1/sessions/" + NOWHERE,
                                                      "/api/v1/estimate", "/api/v1/images/archive"):
                continue
            assert studio.ask(method, path, headers={"Authorization": "Bearer " + reader}).status == 403, (method, path)
            assert studio.ask(method, path, headers=vera).status == 403, (method, path)
        for method, path in (("GET", "/api/v1/users"), ("POST", "/api/v1/users"), ("PATCH", "/api/v1/users/" + NOWHERE), ("DELETE", "/api/v1/users/" + NOWHERE), ("GET", "/api/v1/settings"),
                             ("PATCH", "/api/v1/settings"), ("POST", "/api/v1/queue/pause"), ("POST", "/api/v1/queue/resume"), ("POST", "/api/v1/backup"), ("GET", "/metrics"),
                             ("POST", "/api/v1/models/refresh"), ("GET", "/api/v1/audit/head"), ("GET", "/api/v1/audit/verify"), ("PUT", "/api/v1/enrich/directions")):
            assert studio.ask(method, path, headers=bob).status == 403, (method, path)
        assert state_of(studio) == before
        for scopes in ([], ["root"], ["read", 7], ["read"] * 5):
            assert studio.ask("POST", "/api/v1/tokens", {"name": "x", "scopes": scopes}, headers=bob).status == 422, scopes
        grown = studio.ask("POST", "/api/v1/tokens", {"name": "x", "scopes": ["admin"]}, headers=bob)
        assert grown.status in (403, 422) or studio.get("/api/v1/users", headers={"Authorization": "Bearer " + grown.json["token"]}).status == 403, "a token is never more than its owner"


# ---- S03, S04 on every route of the real studio


@claim
def s03_s04_other_names_and_origins_change_nothing(folder):
    with Studio(folder, rate_requests="0") as studio:
        studio.wait(studio.submit()["id"])
        before = state_of(studio)
        for method, path, _ in routes_of(studio):
            for host in ("evil.example", "127.0.0.1.evil.example:%d" % studio.port, "0.0.0.0:%d" % studio.port):
                assert studio.ask(method, path, headers={"Host": host}).status == 421, (method, path, host)
            if method == "GET":
                continue
            simple = not path.startswith(("/v1/", "/sdapi/"))
            for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://127.0.0.1:1"}):
                assert studio.ask(method, path, {}, headers={**headers, "X-CyberImage": ""}).status == 403, (method, path, headers)
            if simple and method == "POST":
                for kind in ("text/plain", "application/x-www-form-urlencoded"):
                    connection = http.client.HTTPConnection("127.0.0.1", studio.port)
                    connection.request("POST", path, b"a=1", {"Content-Type": kind})
                    assert connection.getresponse().status in (403, 415), (path, kind)
                    connection.close()
        for method, path, _ in routes_of(studio):
            if method == "GET" and "signin" not in path and path != "/api/v1/events":
                studio.get(path)
        assert state_of(studio) == before, "a GET, or a request from elsewhere, has changed something"


# ---- S06, S07


@claim
def s06_a_revoked_right_ends_at_once(folder):
    with Studio(folder, no_auth="false") as studio:
        owner = studio.sign_in()
        alice = studio.add_user(owner, "alice")
        token = studio.need("POST", "/api/v1/tokens", {"name": "w", "scopes": ["read"]}, 201, headers=alice)
        studio.token = token["token"]
        watcher = Watcher(studio)
        studio.token = None
        assert studio.ask("DELETE", "/api/v1/tokens/" + token["id"], headers=alice).status == 204
        assert studio.get("/api/v1/me", headers={"Authorization": "Bearer " + token["token"]}).status == 401
        watcher.join(6)
        assert not watcher.is_alive(), "the stream of events went on"
        alice_id = studio.need("GET", "/api/v1/me", headers=alice)["user"]["id"]
        studio.need("PATCH", "/api/v1/users/" + alice_id, {"disabled": True}, headers=owner)
        assert studio.get("/api/v1/me", headers=alice).status == 401
        assert studio.post("/api/v1/session", {"name": "alice", "password": PASSWORD}).status == 401
        studio.need("PATCH", "/api/v1/users/" + alice_id, {"disabled": False, "role": "viewer"}, headers=owner)
        again = studio.sign_in("alice", PASSWORD)
        assert studio.ask("POST", "/api/v1/jobs", {"prompt": "x"}, headers=again).status == 403
        studio.need("PATCH", "/api/v1/users/" + alice_id, {"password": "quite another one"}, headers=owner)
        assert studio.get("/api/v1/me", headers=again).status == 401, "a new password ends the sessions"


@claim
def s07_s20_secrets_are_kept_as_hashes_and_told_to_nobody(folder):
    with Studio(folder, no_auth="false", enrich_key="sk-very-secret-key", webhook_secret="hook-secret-words") as studio:
        owner = studio.sign_in()
        studio.add_user(owner, "alice", password="pass phrase of alice")
        token = studio.need("POST", "/api/v1/tokens", {"name": "t", "scopes": ["read"]}, 201, headers=owner)["token"]
        for name, password in (("alice", "a wrong pass phrase"), ("nobody", "a wrong pass phrase")):
            answer = studio.post("/api/v1/session", {"name": name, "password": password})
            assert answer.status == 401 and answer.json["detail"] == "name or password is not right", answer
        with open(os.path.join(folder, "output"), encoding="utf-8") as output:
            link = output.read().split("/signin#")[1].split()[0]
        secrets = [token, token[4:], owner["Cookie"].split("=")[1], link, "pass phrase of alice", "a wrong pass phrase", "sk-very-secret-key", "hook-secret-words"]
        shown = b"".join(studio.get(path, headers=owner).body for path in ("/api/v1/settings", "/api/v1/system", "/api/v1/users", "/api/v1/tokens", "/api/v1/sessions", "/api/v1/me",
                                                                            "/api/v1/audit?limit=500", "/api/v1/enrich", "/metrics"))
        for pid in studio.worker_pids():
            with open("/proc/%d/environ" % pid, "rb") as environment:
                shown += environment.read()
            with open("/proc/%d/cmdline" % pid, "rb") as line:
                shown += line.read()
        shown += studio.read_log().encode()
        for secret in secrets:
            assert secret.encode() not in shown, secret
        secrets.remove("sk-very-secret-key")
        for name in os.listdir(os.path.join(studio.data, "db")):
            with open(os.path.join(studio.data, "db", name), "rb") as file:
                kept = file.read()
            for secret in secrets:
                assert secret.encode() not in kept, (name, secret)
        with studio.database() as database:
            assert database.execute("SELECT password FROM users WHERE name = 'alice'").fetchone()[0].startswith("$argon2id$")


# ---- Signing in


@claim
def s22_the_link_works_once_and_the_cookie_is_kept_close(folder):
    with Studio(folder, no_auth="false") as studio:
        with open(os.path.join(folder, "output"), encoding="utf-8") as output:
            link = output.read().split("/signin#")[1].split()[0]
        assert studio.get("/").status == 200 and studio.get("/api/v1/images").status == 401, "before the first sign-in nobody gets in"
        assert studio.post("/api/v1/session", {"link": link[:-1]}).status == 401
        answer = studio.post("/api/v1/session", {"link": link})
        cookie = answer.headers["Set-Cookie"]
        assert answer.status == 201 and "; HttpOnly" in cookie and "; SameSite=Strict" in cookie and "; Path=/" in cookie and "Secure" not in cookie, cookie
        assert studio.post("/api/v1/session", {"link": link}).status == 401, "a link works once"
        session = {"Cookie": cookie.split(";")[0]}
        assert studio.need("GET", "/api/v1/me", headers=session)["user"]["role"] == "admin"
        assert studio.ask("PUT", "/api/v1/me/password", {"password": "short"}, headers=session).status == 422
        assert studio.ask("PUT", "/api/v1/me/password", {"password": PASSWORD}, headers=session).status == 204
        assert studio.ask("PUT", "/api/v1/me/password", {"password": "another password", "current": "wrong"}, headers=session).status == 422
        other = studio.sign_in("owner", PASSWORD)
        assert len(studio.need("GET", "/api/v1/sessions", headers=session)["sessions"]) == 2
        assert studio.ask("PUT", "/api/v1/me/password", {"password": "another password", "current": PASSWORD}, headers=session).status == 204
        assert studio.get("/api/v1/me", headers=other).status == 401 and studio.get("/api/v1/me", headers=session).status == 200
        left = studio.ask("DELETE", "/api/v1/session", headers=session)
        assert left.status == 204 and "Max-Age=0" in left.headers["Set-Cookie"] and studio.get("/api/v1/me", headers=session).status == 401
    with studio:
        with open(os.path.join(folder, "output"), encoding="utf-8") as output:
            again = output.read().split("/signin#")[1].split()[0]
        assert again != link and studio.post("/api/v1/session", {"link": link}).status == 401 and studio.post("/api/v1/session", {"link": again}).status == 201


@claim
def the_printed_address_and_link_can_be_followed(folder):
    with Studio(folder, no_auth="false", base_path="/studio") as studio:
        with open(os.path.join(folder, "output"), encoding="utf-8") as output:
            link = re.search(r"http://127\.0\.0\.1:\d+(/\S*)#", output.read()).group(1)
        assert link == "/studio/signin" and studio.get("/signin").status == 200, link


@claim
def s21_guessing_is_slowed_and_others_are_not(folder):
    with Studio(folder, no_auth="false", rate_logins="5", trusted_proxies="127.0.0.1") as studio:
        owner = studio.sign_in()
        studio.add_user(owner, "alice")
        attacker, alice = {"X-Forwarded-For": "10.9.9.9"}, {"X-Forwarded-For": "10.1.1.1"}
        statuses = [studio.post("/api/v1/session", {"name": "alice", "password": "guess number %d" % i}, headers=attacker).status for i in range(7)]
        assert statuses == [401] * 5 + [429] * 2, statuses
        answer = studio.post("/api/v1/session", {"name": "alice", "password": PASSWORD}, headers=attacker)
        assert answer.status == 429 and int(answer.headers["Retry-After"]) > 0, "the right one neither, now"
        assert studio.post("/api/v1/session", {"name": "alice", "password": PASSWORD}, headers=alice).status == 201, "others are not locked out"


@claim
def requests_have_a_rate(folder):
    with Studio(folder, no_auth="false", rate_requests="60") as studio:
        owner = studio.sign_in()
        statuses = [studio.get("/api/v1/images", headers=owner).status for _ in range(100)]
        assert 429 in statuses and statuses.count(200) >= 50, statuses
        answer = studio.get("/api/v1/images", headers=owner)
        assert answer.status == 429 and int(answer.headers["Retry-After"]) > 0
        assert studio.get("/healthz").status == 200, "health is always told"


# ---- S13, S16: what is sent


@claim
def s13_bombs_of_json_are_refused_in_no_time(folder):
    with Studio(folder) as studio:
        bombs = [b"[" * 10000 + b"]" * 10000, b"{\"a\":" * 10000 + b"1" + b"}" * 10000, b"{" + b",".join(b"\"k%d\":1" % i for i in range(100000)) + b"}",
                 b"{\"prompt\":\"" + b"a" * 900000 + b"\"}", b"{\"seed\":" + b"9" * 100000 + b"}", b"{\"a\":1,\"a\":2}", b"{\"prompt\":\"\\ud800\"}", b"{\"prompt\":\"a\\u0000b\"}",
                 b"{\"prompt\":\"\xff\xfe\"}", b"\xef\xbb\xbf{}", b"{}{}", b"", b"nul", b"{\"prompt\":'x'}", b"{\"prompt\":NaN}", b"{\"prompt\":1e999}", b"{,}", b"\x00" * 1000]
        for bomb in bombs:
            try:
                answer = studio.post("/api/v1/jobs", bomb)
                assert answer.status in (400, 413, 422), (bomb[:60], answer)
            except OSError:  # refused and closed before all of it was sent
                assert len(bomb) > 2**20, bomb[:60]
        answer = studio.post("/api/v1/jobs", b"{}", headers={"Content-Encoding": "gzip"})
        assert answer.status == 415, answer
        assert studio.submit()["state"] in ("queued", "running")


@claim
def s16_numbers_are_within_their_bounds_or_refused_by_name(folder):
    good = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
    odd = [-1, 2**31, 2**63 - 1, 2**63, -2**63, 2**64, 1e308, -1e308, "1", None, [], {}, True, 1.5, "", "NaN"]
    bounds = {"width": (16, 16384), "height": (16, 16384), "steps": (1, 1000), "seed": (0, 2**32 - 1), "count": (1, 64), "priority": (-10, 10), "guidance": (0, 100), "strength": (0, 1)}
    with Studio(folder, queue_jobs_user="100000", queue_jobs="100000") as studio:
        studio.need("POST", "/api/v1/queue/pause")
        picture = studio.upload(png(64, 64, lambda x, y: (1,)))["id"]
        for name, (least, most) in bounds.items():
            for value in odd + [0, least, least - 1, most, most + 1]:
                body = {**good, name: value, **({"init": picture} if name == "strength" else {})}
                answer = studio.post("/api/v1/jobs", body)
                if answer.status == 201:
                    kept = answer.json["priority"] if name == "priority" else answer.json["request"].get(name)
                    is_plain = isinstance(value, (int, float)) and not isinstance(value, bool)
                    assert (is_plain and least <= value <= most and kept == value) or value is None, (name, value, kept)
                elif isinstance(value, int) and abs(value) >= 2**63:
                    assert answer.status in (400, 422), (name, value, answer)  # no JSON number that anybody reads alike
                else:
                    # Two sides at their most are too many pixels together, which is said of the width.
                    assert answer.status == 422 and answer.json["field"] in (name, "width"), (name, value, answer)
        for path, name in (("/api/v1/images", "limit"), ("/api/v1/images", "seed"), ("/api/v1/jobs", "limit"), ("/api/v1/audit", "limit"), ("/api/v1/enrichments", "limit"),
                           ("/api/v1/images", "width")):
            for value in ("-1", "1e3", "0x10", "9" * 30, "", "1.5", " 1", "+1", "1;2", "NaN"):
                assert studio.get("%s?%s=%s" % (path, name, value.replace(" ", "%20").replace("+", "%2B"))).status == 422, (path, name, value)
        for name, value in (("candidates", 0), ("candidates", 5), ("candidates", 2**31), ("seed", -1), ("seed", 2**53), ("candidates", "1")):
            answer = studio.post("/api/v1/enrich", {"prompt": "x", name: value})
            assert answer.status == 422 and answer.json["field"] == name, (name, value, answer)


# ---- S15, S17, S18, S19, S24: what comes out again


@claim
def s15_texts_cannot_forge_events(folder):
    evil = ["a\r\n\r\nevent: evil\r\ndata: {\"x\":1}\r\n\r\n", "a\nid: 999999\n\n", "\u2028data: x\u2029", "x" * 60000, "data: x\n\ndata: y", "\u0085event: evil"]
    with Studio(folder) as studio:
        studio.need("POST", "/api/v1/queue/pause")
        watcher = Watcher(studio)
        jobs = [studio.submit(text) for text in evil]
        studio.upload(png(8, 8, lambda x, y: (1,)), "a\u2028event: evil.png")
        wait_for(lambda: len({e["job"]["id"] for e in watcher.of("job.changed")} & {j["id"] for j in jobs}) == len(jobs), 10, "all events")
        watcher.close()
        told = {e["job"]["id"]: e["job"] for e in watcher.of("job.changed")}
        assert all(told[job["id"]]["state"] == "queued" for job in jobs)
        names = {name for name, _ in watcher.events}
        assert "evil" not in names and names <= {"job.changed", "job.progress", "image.added", "image.changed", "image.removed", "queue.changed", "worker.changed", "model.changed",
                                                 "reset", None}, names


@claim
def s17_s18_texts_stay_texts(folder):
    with Studio(folder, no_auth="false", rate_requests="0") as studio:
        owner = studio.sign_in()
        for vector in VECTORS:
            picture = studio.upload(png(8, 8, lambda x, y: (len(vector),)), vector.replace('"', "") + ".png", headers=owner)
            shown = studio.ask("PATCH", "/api/v1/images/" + picture["id"], {"name": vector, "tags": [vector.replace(",", "").strip()[:90]]}, headers=owner)
            assert shown.status in (200, 422) and shown.headers["Content-Type"] in ("application/json", "application/problem+json"), (vector, shown)
            studio.ask("POST", "/api/v1/albums", {"name": vector}, headers=owner)
            studio.submit(vector, headers=owner)
            studio.post("/api/v1/session", {"name": vector[:60], "password": vector})
            quoted = "".join("%%%02X" % byte for byte in vector.encode())
            for path in ("/api/v1/images?q=", "/nothing/", "/api/v1/jobs/", "/images/", "/api?x="):
                answer = studio.get(path + quoted, headers=owner)
                kind = answer.headers["Content-Type"]
                assert "html" not in kind or vector.encode() not in answer.body, (path, vector)
                assert answer.headers["X-Content-Type-Options"] == "nosniff" and "script-src 'self'" in answer.headers["Content-Security-Policy"] or \
                    "default-src 'none'" in answer.headers["Content-Security-Policy"], answer.headers
        for page in ("/", "/signin", "/api"):
            answer = studio.get(page)
            assert b"alert(1)" not in answer.body and b"onerror" not in answer.body, page
        answer = studio.get(picture["url"], headers=owner)
        policy = answer.headers["Content-Security-Policy"]
        assert answer.headers["Content-Type"] == "image/png" and "sandbox" in policy and answer.headers["X-Content-Type-Options"] == "nosniff", answer.headers
        for data in (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"<!DOCTYPE html><script>alert(1)</script>", b"GIF89a/*<script>alert(1)</script>*/"):
            body, kind = multipart([], [("file", "x.png", data)])
            assert studio.post("/api/v1/uploads", body, headers={**owner, "Content-Type": kind}).status == 422, data


@claim
def s19_a_log_line_is_one_line_of_plain_text(folder):
    evil = ["\x1b[31mred\x1b[0m", "a\nINFO job.done id=forged", "\r\rover", "\u202eabc", "\x00x", "\x7f", "\u009b31m", "tab\there", "\x1b]0;title\x07"]
    for form in ("text", "json"):
        part = os.path.join(folder, form)
        os.mkdir(part)
        with Studio(part, no_auth="false", log_format=form, log_level="debug", log_prompts="true") as studio:
            owner = studio.sign_in()
            for text in evil:
                studio.post("/api/v1/session", {"name": text[:60] or "x", "password": "a long password"})
                studio.ask("POST", "/api/v1/jobs", {"prompt": text, "width": 64, "height": 64, "steps": 1}, headers=owner)
                studio.ask("POST", "/api/v1/enrich", {"prompt": text}, headers=owner)
                studio.ask("GET", "/" + "".join("%%%02X" % b for b in text.encode()), headers=owner)
            log = studio.read_log()
        for line in log.splitlines():
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line), repr(line)
            if form == "json":
                assert json.loads(line)["event"], line
            else:
                assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (DEBUG|INFO|WARN|ERROR) [a-z.-]+( |$)", line), line
        assert "session.refused" in log and "forged" in log


@claim
def s24_texts_are_data_for_formats_queries_and_searches(folder):
    with Studio(folder, rate_requests="0", rate_logins="10000") as studio:
        picture = studio.upload(png(8, 8, lambda x, y: (1,)))["id"]
        users = studio.need("GET", "/api/v1/users")
        for text in FORMATS + VECTORS:
            quoted = "".join("%%%02X" % byte for byte in text.encode())
            for path in ("/api/v1/images?q=", "/api/v1/images?tag=", "/api/v1/images?model=", "/api/v1/audit?q=", "/api/v1/audit?action=", "/api/v1/audit?actor=", "/api/v1/audit?object=",
                         "/v1/models/", "/sdapi/v1/progress?skip_current_image="):
                assert studio.get(path + quoted).status in (200, 400, 404, 422), (path, text)
            for body in ({"name": text}, {"tags": [text[:99]]}):
                assert studio.ask("PATCH", "/api/v1/images/" + picture, body).status in (200, 422), body
            assert studio.post("/api/v1/session", {"name": text[:60], "password": text}).status == 401
            assert studio.post("/api/v1/jobs", {"prompt": "x", "model": text}).status in (404, 422)
            job = studio.submit(text, steps=1)
            assert job["request"]["prompt"] == text
            for vector in ({"idempotency": text},):
                answer = studio.ask("POST", "/api/v1/jobs", {"prompt": "x", "width": 64, "height": 64, "steps": 1},
                                    headers={"Idempotency-Key": vector["idempotency"].encode("ascii", "ignore").decode() or "k"})
                assert answer.status in (200, 201, 400, 422), (text, answer)
        assert studio.need("GET", "/api/v1/users") == users and studio.need("GET", "/api/v1/images/" + picture)["kind"] == "upload"
        log = studio.read_log()
        assert "store.failed" not in log, log[-2000:]


# ---- S23


@claim
def s23_pages_of_others_get_nothing(folder):
    with Studio(folder) as studio:
        for path in ("/", "/api/v1/images", "/openapi.json", "/api/v1/system"):
            answer = studio.get(path)
            assert answer.headers["Access-Control-Allow-Origin"] is None and answer.headers["X-Frame-Options"] == "DENY", path
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"] and answer.headers["Cross-Origin-Resource-Policy"] == "same-origin", path
        answer = studio.ask("OPTIONS", "/api/v1/jobs", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"})
        assert answer.headers["Access-Control-Allow-Origin"] is None and answer.status in (204, 403), answer


if __name__ == "__main__":
    sys.exit(run_claims())
