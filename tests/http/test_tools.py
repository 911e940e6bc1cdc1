#!/usr/bin/env python3
"""The operator's commands on a studio's folder: backup, fsck, user, ping. Every fault that fsck knows is made, found and mended."""
import glob
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from kills import check_chain  # noqa: E402
from studio import PROGRAM, Studio, wait_for  # noqa: E402
from tap import claim, run_claims  # noqa: E402

PASSWORD = "correct horse battery"


def start_command(studio, *words, **more):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CYBERIMAGE_")}
    environment["HOME"] = studio.folder
    return subprocess.Popen([PROGRAM, *words], cwd=studio.folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **more)


def command(studio, *words, status=0, text=""):
    """Standard output, and standard error when it is to fail."""
    process = start_command(studio, *words, "--data", studio.data)
    output, errors = process.communicate(text, timeout=120)
    assert process.returncode == status, (words, process.returncode, output, errors)
    assert output == "" or errors == "", (output, errors)
    return output + errors


def fsck(studio, *options, status=0):
    return json.loads(command(studio, "fsck", "--json", *options, status=status))


def path_of(studio, picture):
    return glob.glob(os.path.join(studio.data, "images", "*", "*", "*", picture + ".png"))[0]


def write_in(studio, sql, *arguments):
    connection = sqlite3.connect(os.path.join(studio.data, "db", "cyberimage.sqlite"))
    with connection:
        connection.execute(sql, arguments)
    connection.close()


def fill(studio, n=3):
    """n pictures by one job, an edit of the first, and an upload. Gives the ids, the upload last."""
    job = studio.wait(studio.submit(count=n, prompt="a neon fox", negative_prompt="blur")["id"])
    edit = studio.wait(studio.submit(prompt="a cat", references=[job["images"][0]])["id"])
    original = studio.get("/images/%s.png" % job["images"][0]).body
    stripped = original[:33] + original[original.index(b"IDAT") - 4:]  # without its texts
    upload = studio.upload(stripped, "my photo.png")
    return job["images"] + edit["images"] + [upload["id"]]


def details_of(studio, ids):
    return {i: studio.need("GET", "/api/v1/images/" + i) for i in ids}


# ---- ping


@claim
def ping_says_whether_the_studio_takes_work(folder):
    with Studio(folder) as studio:
        process = start_command(studio, "ping", "--listen", "127.0.0.1:%d" % studio.port)
        assert process.communicate(timeout=20)[0] == "ready\n" and process.returncode == 0
        port = studio.port
    process = start_command(studio, "ping", "--listen", "127.0.0.1:%d" % port)
    assert "127.0.0.1:%d" % port in process.communicate(timeout=20)[1] and process.returncode == 1
    process = start_command(studio, "ping", "--listen", "nowhere")
    process.communicate(timeout=20)
    assert process.returncode == 2


# ---- backup


@claim
def a_backup_made_while_pictures_are_made_can_be_put_back(folder):
    backup = os.path.join(folder, "backup.sqlite")
    with Studio(folder) as studio:
        ids = fill(studio)
        before = details_of(studio, ids)
        job = studio.submit(count=20)
        wait_for(lambda: studio.job(job["id"])["done"] > 1, 30, "pictures")
        output = command(studio, "backup", backup)
        assert backup in output and os.path.join(studio.data, "images") in output, output
        assert "exists already" in command(studio, "backup", backup, status=2)
        assert os.stat(backup).st_mode & 0o777 == 0o600
        made = studio.need("POST", "/api/v1/backup", {"file": "one.sqlite"}, 201)
        assert os.path.getsize(os.path.join(studio.data, "backups", "one.sqlite")) == made["size_bytes"]
        assert studio.post("/api/v1/backup", {"file": "one.sqlite"}).status == 409
        for name in ("../x", "/etc/x", ".x", "a/b", "", "x" * 101):
            assert studio.post("/api/v1/backup", {"file": name}).json["field"] == "file", name
        studio.wait(job["id"])
        wait_for(lambda: not os.listdir(os.path.join(studio.data, "images", ".moving")), 5, "the last file at its place")
        pictures = os.path.join(folder, "pictures")
        shutil.copytree(os.path.join(studio.data, "images"), pictures)
    assert os.listdir(folder).count("backup.sqlite.partial") == 0
    shutil.rmtree(studio.data)
    os.makedirs(os.path.join(studio.data, "db"))
    shutil.copytree(pictures, os.path.join(studio.data, "images"))
    shutil.copy(backup, os.path.join(studio.data, "db", "cyberimage.sqlite"))
    with studio:
        assert details_of(studio, ids) == before
        done = studio.wait(job["id"])  # it was running then, and is finished again from where it was
        assert done["state"] == "done" and len(done["images"]) == 20, done
    faults = fsck(studio, status=1)["faults"]
    assert {fault["kind"] for fault in faults} == {"orphan"}, faults  # what was made after the backup


# ---- fsck


@claim
def a_sound_folder_is_sound(folder):
    with Studio(folder) as studio:
        ids = fill(studio)
        assert "is at work in" in command(studio, "fsck", status=2)
    assert fsck(studio, "--deep") == {"pictures": len(ids), "faults": [], "strangers": []}
    assert command(studio, "fsck") == "%d pictures; all is well.\n" % len(ids)
    notes = os.path.join(studio.data, "images", "notes.txt")
    with open(notes, "w", encoding="utf-8") as file:
        file.write("mine")
    assert fsck(studio)["strangers"] == [notes], "what others put there is told and is no fault"
    nothing = Studio(os.path.join(folder, "nothing"))
    os.mkdir(nothing.folder)
    assert "--rebuild" in command(nothing, "fsck", status=2) and not os.path.exists(nothing.data)


@claim
def every_fault_is_found_and_mended(folder):
    with Studio(folder) as studio:
        ids = fill(studio)
        before = details_of(studio, ids)
    missing, orphan, changed, damaged, upload = ids
    os.unlink(path_of(studio, missing))
    write_in(studio, "DELETE FROM images WHERE id = ?", orphan)
    path = path_of(studio, changed)
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(data[:33] + data[data.index(b"IDAT") - 4:])  # the same picture, without what it said of itself
    with open(path_of(studio, damaged), "r+b") as file:
        file.truncate(100)
    stray = "01999999-0000-7000-8000-000000000000"
    day = time.strftime("%Y/%m/%d", time.gmtime(int(stray[:8] + stray[9:13], 16) / 1000))
    stray_path = os.path.join(studio.data, "images", day, stray + ".png")
    os.makedirs(os.path.dirname(stray_path))
    with open(stray_path, "wb") as file:
        file.write(b"no picture")
    expected = {("missing", missing), ("orphan", orphan), ("changed", changed), ("damaged", damaged), ("orphan", stray), ("search", None)}
    found = fsck(studio, status=1)
    assert {(f["kind"], f["object"]) for f in found["faults"]} == expected and not any(f["mended"] for f in found["faults"]), found
    assert fsck(studio, status=1) == found, "a check changes nothing"
    mended = fsck(studio, "--mend")
    assert {(f["kind"], f["object"]) for f in mended["faults"]} == expected and all(f["mended"] for f in mended["faults"]), mended
    assert fsck(studio, "--deep")["faults"] == []
    lost = os.listdir(os.path.join(studio.data, "images", "lost+found"))
    assert sorted(lost) == sorted([stray + ".png", damaged + ".png"]), lost
    with studio:
        assert studio.get("/api/v1/images/" + missing).status == 404 and studio.get("/api/v1/images/" + damaged).status == 404
        after = studio.need("GET", "/api/v1/images/" + orphan)
        for name in ("created", "kind", "width", "height", "size_bytes", "sha256", "blurhash", "model", "model_hash", "prompt", "prompt_sent",
                     "negative_prompt", "seed", "steps", "guidance", "engine", "settings", "owner", "url"):
            assert after[name] == before[orphan][name], name
        assert studio.need("GET", "/api/v1/images/" + upload) == before[upload]
        assert [i["id"] for i in studio.need("GET", "/api/v1/images?q=neon")["images"]].count(orphan) == 1
        assert studio.get("/images/%s.png" % changed).status == 200 and studio.get(after["thumbnail"]).status == 200
        with studio.database() as database:
            rows = database.execute("SELECT object, details FROM audit WHERE action = 'store.mended'").fetchall()
            assert {row["object"] for row in rows} == {missing, orphan, changed, damaged, None}, [tuple(row) for row in rows]
            gone = next(json.loads(row["details"]) for row in rows if row["object"] == missing)
            assert gone["row"]["prompt"] == "a neon fox" and gone["row"]["seed"] == before[missing]["seed"], gone
            check_chain(database)


@claim
def a_deep_check_finds_one_changed_byte(folder):
    with Studio(folder) as studio:
        picture = studio.wait(studio.submit()["id"])["images"][0]
    with open(path_of(studio, picture), "r+b") as file:
        file.seek(-20, 2)
        byte = file.read(1)
        file.seek(-20, 2)
        file.write(bytes([byte[0] ^ 1]))
    assert fsck(studio)["faults"] == []
    assert [f["kind"] for f in fsck(studio, "--deep", status=1)["faults"]] == ["damaged"]


@claim
def what_cannot_be_mended_stays_a_fault(folder):
    with Studio(folder) as studio:
        studio.wait(studio.submit()["id"])
    connection = sqlite3.connect(os.path.join(studio.data, "db", "cyberimage.sqlite"))
    connection.executescript("DROP TRIGGER audit_is_not_changed; UPDATE audit SET actor = 'eve' WHERE seq = 2")
    connection.close()
    assert [f["kind"] for f in fsck(studio, "--mend", status=1)["faults"]] == ["audit"]
    assert "row 2 does not fit" in command(studio, "fsck", status=1)


@claim
def a_lost_database_is_made_anew_from_the_pictures(folder):
    with Studio(folder) as studio:
        ids = fill(studio)
        studio.need("PATCH", "/api/v1/images/" + ids[0], {"favourite": True, "tags": ["best"]})
        before = details_of(studio, ids)
    database = os.path.join(studio.data, "db", "cyberimage.sqlite")
    with open(database, "r+b") as file:
        file.write(b"this is no database any more")
    assert "--rebuild" in command(studio, "fsck", status=3), "a damaged database is told"
    output = command(studio, "fsck", "--rebuild")
    assert output == "%d pictures; %d were read back.\n" % (len(ids), len(ids)), output
    aside = [name for name in os.listdir(os.path.dirname(database)) if name.startswith("cyberimage.sqlite.2")]
    assert len(aside) == 1, aside
    with studio:
        listed = [i["id"] for i in studio.need("GET", "/api/v1/images")["images"]]
        assert listed == sorted(ids, reverse=True), "in the order of their time"
        after = details_of(studio, ids)
        kept = ("created", "kind", "width", "height", "size_bytes", "sha256", "blurhash", "model", "model_hash", "prompt", "prompt_sent", "negative_prompt",
                "seed", "steps", "guidance", "engine", "settings", "owner")
        for i in ids:
            assert {k: after[i][k] for k in kept} == {k: before[i][k] for k in kept}, (before[i], after[i])
        assert after[ids[3]]["parents"] == before[ids[3]]["parents"] and after[ids[0]]["children"] == before[ids[0]]["children"]
        assert after[ids[0]]["tags"] == [] and after[ids[0]]["favourite"] is False
        assert studio.need("GET", "/api/v1/images?q=fox")["images"]
        assert studio.need("GET", "/api/v1/audit/verify")["ok"]
        assert studio.wait(studio.submit()["id"])["state"] == "done"


@claim
def a_mending_that_is_killed_is_finished_by_the_next(folder):
    with Studio(folder) as studio:
        ids = studio.wait(studio.submit(count=24)["id"])["images"]
    for i in ids:
        write_in(studio, "DELETE FROM images WHERE id = ?", i)
    for delay in (0.25, 0.3, 0.35, 0.4, 0.5):
        process = start_command(studio, "fsck", "--mend", "--data", studio.data)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    fsck(studio, "--mend")
    assert fsck(studio, "--deep")["faults"] == []
    with studio:
        assert [i["id"] for i in studio.need("GET", "/api/v1/images")["images"]] == sorted(ids, reverse=True)


# ---- user


@claim
def accounts_are_changed_while_the_studio_is_stopped(folder):
    studio = Studio(folder, no_auth="false")
    assert command(studio, "user", "add", "alice", "--role", "admin", text=PASSWORD + "\n") == ""
    command(studio, "user", "add", "bob", text=PASSWORD + "\n")
    users = {u["name"]: u for u in json.loads(command(studio, "user", "list", "--json"))}
    assert users["alice"]["role"] == "admin" and users["bob"]["role"] == "user" and users["bob"]["has_password"], users
    assert "alice" in command(studio, "user", "list")

    def signs_in(name, password=PASSWORD):
        return studio.post("/api/v1/session", {"name": name, "password": password}).status == 201

    with studio:
        assert signs_in("alice") and signs_in("bob") and not signs_in("bob", "wrong password")
        assert "is at work in" in command(studio, "user", "list", status=2)
    refused = [(("add", "bob"), PASSWORD, "already"), (("add", "carl"), "short", "10"), (("add", "carl"), "", "standard input"),
               (("password", "nobody"), PASSWORD, "no user"), (("role", "bob", "king"), "", "role"), (("role", "alice", "user"), "", "administrator"),
               (("remove", "alice"), "", "administrator"), (("disable", "alice"), "", "administrator"), (("add",), "", "add NAME"), (("shout", "bob"), "", "list"),
               (("list", "bob"), "", "list")]
    for words, text, sentence in refused:
        output = command(studio, "user", *words, status=2, text=text + "\n" if text else "")
        assert sentence in output, (words, output)
    command(studio, "user", "password", "bob", text="another long one\n")
    command(studio, "user", "disable", "bob")
    with studio:
        assert not signs_in("bob", "another long one")
    command(studio, "user", "enable", "bob")
    command(studio, "user", "role", "bob", "viewer")
    with studio:
        assert signs_in("bob", "another long one") and not signs_in("bob")
    command(studio, "user", "remove", "bob")
    assert "bob" not in command(studio, "user", "list")
    with studio.database() as database:
        rows = [tuple(row) for row in database.execute("SELECT action, actor, details FROM audit WHERE action LIKE 'user.%' ORDER BY seq")]
        check_chain(database)
    assert [row[0] for row in rows if row[1] == "operator"] == ["user.added"] * 2 + ["user.changed"] * 4 + ["user.removed"], rows
    assert PASSWORD not in json.dumps(rows) and "another long one" not in json.dumps(rows)


if __name__ == "__main__":
    sys.exit(run_claims())
