#!/usr/bin/env python3
"""The audit log and the settings from outside: over HTTP and by the commands, while the studio runs and after."""
import csv
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from studio import PROGRAM, Studio, wait_for  # noqa: E402
from tap import claim, run_claims  # noqa: E402

FIRST = "0" * 64
PASSWORD = "correct horse battery"


def command(studio, *words, status=0):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CYBERIMAGE_")}
    environment["HOME"] = studio.folder
    done = subprocess.run([PROGRAM, *words, "--data", studio.data], cwd=studio.folder, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    assert done.returncode == status, (words, done)
    return done.stdout.decode()


def chain_of(studio):
    """The log as it lies there, with the chain computed anew by this test's own few lines."""
    with studio.database() as database:
        rows = [dict(row) for row in database.execute("SELECT * FROM audit ORDER BY seq")]
    before = FIRST
    for row in rows:
        text = json.dumps([row[name] for name in ("seq", "time_us", "actor", "actor_id", "address", "user_agent", "action", "object",
                                                  "details")], separators=(",", ":"), ensure_ascii=False)
        before = hashlib.sha256((before + text).encode()).hexdigest()
        assert row["hash"] == before, row
    return rows


# ---- Over HTTP


@claim
def the_log_is_listed_filtered_and_paged(folder):
    with Studio(folder) as studio:
        job = studio.submit()
        studio.wait(job["id"])
        studio.need("GET", "/api/v1/images/" + studio.job(job["id"])["images"][0])
        rows = studio.need("GET", "/api/v1/audit")["rows"]
        seqs = [row["seq"] for row in rows]
        assert seqs == sorted(seqs, reverse=True) and seqs[-1] == 1, seqs
        assert {"studio.started", "worker.started", "job.submitted", "image.added", "job.done", "image.viewed"} <= {r["action"] for r in rows}
        submitted = next(row for row in rows if row["action"] == "job.submitted")
        assert submitted["object"] == job["id"] and submitted["address"] == "127.0.0.1", submitted
        request = submitted["details"]["request"]
        assert request["model"] == "neon" and request["prompt"] == "a neon fox" and request["steps"] == 2, submitted

        def ask(query):
            return studio.need("GET", "/api/v1/audit?" + query)

        assert [r["action"] for r in ask("object=%s&sort=oldest" % job["id"])["rows"]] == ["job.submitted", "job.started", "job.done"]
        assert {r["action"].split(".")[0] for r in ask("action=job.")["rows"]} == {"job"}
        assert {r["action"] for r in ask("action=job.done")["rows"]} == {"job.done"}
        assert {r["actor"] for r in ask("actor=system")["rows"]} == {"system"}
        assert ask("q=NEON%20FOX")["rows"], "the text of the prompt is not found"
        assert not ask("until=2020-01-01")["rows"] and ask("since=2020-01-01T00:00:00Z")["rows"]
        last = ask("limit=1")["rows"][0]
        assert [r["seq"] for r in ask("since=" + last["time"])["rows"]] == [last["seq"]], "times are exact to the microsecond"
        for order in ("newest", "oldest"):
            walked, cursor = [], ""
            while cursor is not None:
                page = ask("limit=3&sort=%s%s" % (order, "&cursor=" + cursor if cursor else ""))
                assert len(page["rows"]) <= 3
                walked += [r["seq"] for r in page["rows"]]
                cursor = page["next"]
            assert walked == sorted(seqs, reverse=order == "newest"), walked
        for query, field in (("limit=0", "limit"), ("limit=501", "limit"), ("since=yesterday", "since"), ("cursor=x", "cursor"),
                             ("sort=up", "sort"), ("who=me", "who"), ("actor=", "actor")):
            answer = studio.get("/api/v1/audit?" + query)
            assert answer.status == 422 and answer.json["field"] == field, (query, answer)


@claim
def exports_hold_the_same_rows_and_are_rows_themselves(folder):
    with Studio(folder) as studio:
        studio.ask("POST", "/api/v1/queue/pause", headers={"User-Agent": "=cmd|'/c calc'!A1"})
        answer = studio.get("/api/v1/audit/export")
        assert answer.status == 200 and answer.headers["Content-Type"] == "text/csv; charset=utf-8", answer
        assert answer.headers["Content-Disposition"] == 'attachment; filename="audit.csv"', answer.headers
        table = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
        assert [int(row["seq"]) for row in table] == list(range(1, len(table) + 1))
        assert table[-1]["action"] == "audit.exported" and json.loads(table[-1]["details"])["format"] == "csv", table[-1]
        paused = next(row for row in table if row["action"] == "queue.paused")
        assert paused["user_agent"] == "'=cmd|'/c calc'!A1", paused
        answer = studio.get("/api/v1/audit/export?format=jsonl&action=queue.")
        rows = [json.loads(line) for line in answer.body.decode().splitlines()]
        assert [row["action"] for row in rows] == ["queue.paused"] and rows[0]["user_agent"] == "=cmd|'/c calc'!A1", rows
        assert studio.get("/api/v1/audit/export?format=xls").json["field"] == "format"
        assert studio.get("/api/v1/audit/export?limit=3").json["field"] == "limit"


@claim
def everybody_sees_only_what_is_theirs(folder):
    with Studio(folder, no_auth="false") as studio:
        owner = studio.sign_in()
        studio.need("POST", "/api/v1/users", {"name": "bob", "role": "user", "password": PASSWORD}, 201, headers=owner)
        assert studio.post("/api/v1/session", {"name": "bob", "password": "wrong"}).status == 401
        bob = studio.sign_in("bob", PASSWORD)
        seen = studio.need("GET", "/api/v1/audit", headers=bob)["rows"]
        assert [row["action"] for row in seen] == ["session.opened"] and seen[0]["actor"] == "bob", seen
        exported = studio.get("/api/v1/audit/export?format=jsonl", headers=bob).body.decode().splitlines()
        assert {json.loads(line)["actor"] for line in exported} == {"bob"}, exported
        for path in ("/api/v1/audit/head", "/api/v1/audit/verify", "/api/v1/settings"):
            assert studio.get(path, headers=bob).status == 403, path
            assert studio.get(path).status == 401, path
        assert studio.ask("PATCH", "/api/v1/settings", {"trash-days": "1"}, headers=bob).status == 403
        assert studio.get("/api/v1/audit").status == 401
        everything = studio.need("GET", "/api/v1/audit?limit=500", headers=owner)["rows"]
        assert {"session.refused", "user.added", "session.opened"} <= {row["action"] for row in everything}
        refused = next(row for row in everything if row["action"] == "session.refused")
        assert refused["object"] == "bob" and refused["actor"] is None and refused["address"] == "127.0.0.1", refused
        assert PASSWORD not in json.dumps(everything) and "wrong" not in json.dumps(everything)


@claim
def a_broken_chain_is_found_from_both_sides(folder):
    with Studio(folder) as studio:
        studio.wait(studio.submit()["id"])
        rows = chain_of(studio)
        head = studio.need("GET", "/api/v1/audit/head")
        assert head["seq"] == len(rows) and head["hash"] == rows[-1]["hash"] and len(head["public_key"]) == 64, head
        anchor = command(studio, "audit", "head").strip()
        assert anchor == "%d:%s" % (head["seq"], head["hash"]), anchor
        verdict = studio.need("GET", "/api/v1/audit/verify?seq=%d&hash=%s" % (head["seq"], head["hash"]))
        assert verdict["ok"] and verdict["rows"] == len(rows) and verdict["fault"] is None and verdict["gaps"] == [], verdict
        wrong = studio.need("GET", "/api/v1/audit/verify?seq=%d&hash=%s" % (head["seq"], FIRST))
        assert not wrong["ok"] and "not the one that was noted" in wrong["fault"]["sentence"], wrong
        assert studio.get("/api/v1/audit/verify?seq=3").json["field"] == "hash"
        assert "whole" in command(studio, "audit", "verify", "--from", anchor)
    # A stopped studio; now somebody edits the file.
    assert "whole" in command(studio, "audit", "verify", "--from", anchor)
    connection = sqlite3.connect(os.path.join(studio.data, "db", "cyberimage.sqlite"))
    connection.executescript("DROP TRIGGER audit_is_not_changed; UPDATE audit SET actor = 'nobody' WHERE seq = 3")
    connection.close()
    assert "row 3 does not fit" in command(studio, "audit", "verify", status=1)
    verdict = json.loads(command(studio, "audit", "verify", "--json", status=1))
    assert verdict["fault"]["seq"] == 3, verdict
    studio.start()
    assert studio.need("GET", "/api/v1/audit/verify")["fault"]["seq"] == 3
    studio.stop()


@claim
def old_rows_go_and_leave_a_signed_record(folder):
    with Studio(folder) as studio:
        pass
    key = os.path.join(studio.data, "audit.key")
    assert os.stat(key).st_mode & 0o777 == 0o600, oct(os.stat(key).st_mode)
    # The same log, a hundred days older: as if time had passed.
    connection = sqlite3.connect(os.path.join(studio.data, "db", "cyberimage.sqlite"))
    connection.row_factory = sqlite3.Row
    with connection:
        trigger = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'audit_is_not_changed'").fetchone()["sql"]
        connection.execute("DROP TRIGGER audit_is_not_changed")
        before = FIRST
        for row in connection.execute("SELECT * FROM audit ORDER BY seq").fetchall():
            values = [row[name] for name in ("seq", "time_us", "actor", "actor_id", "address", "user_agent", "action", "object", "details")]
            values[1] -= 100 * 86400 * 10**6
            before = hashlib.sha256((before + json.dumps(values, separators=(",", ":"), ensure_ascii=False)).encode()).hexdigest()
            connection.execute("UPDATE audit SET time_us = ?, hash = ? WHERE seq = ?", (values[1], before, row["seq"]))
        connection.execute(trigger)
        n_old = row["seq"]
    connection.close()
    assert "whole" in command(studio, "audit", "verify")
    studio.settings["audit_days"] = "30"
    with studio:
        trimmed = wait_for(lambda: studio.need("GET", "/api/v1/audit?action=audit.trimmed")["rows"], 20, "the record")
        assert trimmed[0]["details"] == {"first_seq": 1, "last_seq": n_old} or trimmed[0]["details"]["last_seq"] == n_old - 1, trimmed
        verdict = studio.need("GET", "/api/v1/audit/verify")
        assert verdict["ok"] and verdict["first_seq"] == verdict["gaps"][0]["last_seq"] + 1, verdict
    assert "whole" in command(studio, "audit", "verify")
    os.rename(key, key + ".lost")
    assert "not signed by this studio's key" in command(studio, "audit", "verify", status=1)


@claim
def the_command_reads_beside_a_running_studio(folder):
    with Studio(folder) as studio:
        job = studio.submit("a \x1b[31mred\x1b[0m fox")
        studio.wait(job["id"])
        text = command(studio, "audit", "list", "--action", "job.")
        lines = text.splitlines()
        assert [line.split("  ")[3] for line in lines] == ["job.submitted", "job.started", "job.done"], text
        assert "\x1b" not in text
        rows = json.loads(command(studio, "audit", "list", "--json", "--object", job["id"], "--limit", "2"))
        assert [row["action"] for row in rows] == ["job.done", "job.started"], rows
        exported = command(studio, "audit", "export", "--format", "jsonl", "--text", "red")
        assert [json.loads(line)["action"] for line in exported.splitlines()][0] == "job.submitted", exported
        assert len(list(csv.reader(io.StringIO(command(studio, "audit", "export"))))) == len(chain_of(studio)) + 1
        command(studio, "audit", "shout", status=2)
        command(studio, "audit", status=2)
        command(studio, "audit", "list", "--since", "soon", status=2)
        command(studio, "audit", "verify", "--from", "12", status=2)
        assert json.loads(command(studio, "audit", "head", "--json"))["seq"] == len(chain_of(studio))
    empty = Studio(os.path.join(folder, "empty"))
    os.mkdir(empty.folder)
    command(empty, "audit", "head", status=2)
    assert not os.path.exists(empty.data), "a command that only reads has made a folder"


# ---- Settings


def setting(studio, name):
    return next(s for s in studio.need("GET", "/api/v1/settings")["settings"] if s["name"] == name)


@claim
def settings_are_shown_and_changed(folder):
    with Studio(folder, attempts=2) as studio:
        assert setting(studio, "attempts")["source"] == "environment" and setting(studio, "attempts")["value"] == "2"
        trash = setting(studio, "trash-days")
        assert (trash["value"], trash["source"], trash["default"], trash["live"]) == ("30", "default", "30", True), trash
        changed = studio.need("PATCH", "/api/v1/settings", {"trash-days": "7", "enrich-key": "sk-secret", "enrich-url": "http://127.0.0.1:9/v1"})
        values = {s["name"]: s for s in changed["settings"]}
        assert values["trash-days"]["value"] == "7" and values["trash-days"]["source"] == "database", values["trash-days"]
        assert values["enrich-key"]["value"] == "set", values["enrich-key"]
        studio.need("PATCH", "/api/v1/settings", {"trash-days": None})
        assert setting(studio, "trash-days")["source"] == "default"
        rows = studio.need("GET", "/api/v1/audit?action=setting.changed&sort=oldest")["rows"]
        assert [(r["object"], r["details"]) for r in rows] == [
            ("trash-days", {"from": None, "to": "7"}), ("enrich-key", {"from": None, "to": "set"}),
            ("enrich-url", {"from": None, "to": "http://127.0.0.1:9/v1"}), ("trash-days", {"from": "7", "to": None})], rows
        assert "sk-secret" not in json.dumps(studio.need("GET", "/api/v1/audit?limit=500"))
        refused = [({"no-such": "1"}, 422, "no-such"), ({"trash-days": "-1"}, 422, "trash-days"), ({"trash-days": 7}, 422, "trash-days"),
                   ({"trash-days": "x"}, 422, "trash-days"), ({"webhook-url": "ftp://x/"}, 422, "webhook-url"),
                   ({"webhook-url": "http://me:pw@x/"}, 422, "webhook-url"), ({"enrich-url": "javascript:alert(1)"}, 422, "enrich-url"),
                   ({"listen": "0.0.0.0:1"}, 409, "listen"), ({"attempts": "3"}, 409, "attempts"),
                   ({"trash-days": "9", "attempts": "3"}, 409, "attempts"), ({}, 400, None), ([], 400, None)]
        for body, status, field in refused:
            answer = studio.ask("PATCH", "/api/v1/settings", body)
            assert answer.status == status and answer.json.get("field") == field, (body, answer)
        assert setting(studio, "trash-days")["value"] == "30", "a refused change was kept in part"
        text = command(studio, "config")
        assert "enrich-url           database     http://127.0.0.1:9/v1" in text and "sk-secret" not in text, text
        assert os.path.join(studio.data, "images") in text, text
    with studio:
        assert setting(studio, "enrich-url")["source"] == "database", "a change did not outlive the studio"
    shown = json.loads(command(studio, "config", "--json"))
    assert shown["paths"]["database"] == os.path.join(studio.data, "db", "cyberimage.sqlite"), shown["paths"]
    assert {s["name"]: s["source"] for s in shown["settings"]}["data"] == "flag"


if __name__ == "__main__":
    sys.exit(run_claims())
