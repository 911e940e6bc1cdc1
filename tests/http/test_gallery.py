#!/usr/bin/env python3
"""The gallery from outside: pictures in and out, lists and search, tags and albums, the trash, archives, uploads, and whose they are."""
import glob
import http.client
import io
import json
import os
import random
import sqlite3
import struct
import sys
import threading
import time
import zipfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from kills import check_chain  # noqa: E402
from pictures import chunk, chunks_of, multipart, pixels_of, png  # noqa: E402
from studio import TROUBLED, Studio, Watcher, wait_for  # noqa: E402
from tap import claim, run_claims  # noqa: E402

NOWHERE = "01999999-0000-7000-8000-000000000000"
FIXTURES = os.environ.get("CYI_FIXTURES", os.path.join(os.environ["CYI_SOURCE_ROOT"], "tests", "fixtures"))


def plain(colour, width=64, height=64):
    return png(width, height, lambda x, y: colour)


def ids_of(studio, query="", **more):
    return [image["id"] for image in studio.need("GET", "/api/v1/images" + query, **more)["images"]]


def make(studio, **members):
    return studio.wait(studio.submit(**members)["id"])["images"]


def act(studio, action, ids, **more):
    return studio.need("POST", "/api/v1/images/actions", {"action": action, "ids": ids, **more})["changed"]


# ---- Where pictures lie, and how they are delivered


@claim
def folders_are_where_the_settings_say(folder):
    places = {name: os.path.join(folder, "elsewhere", name) for name in ("images", "cache")}
    with Studio(folder, images=places["images"], cache=places["cache"], database=os.path.join(folder, "elsewhere", "the.db")) as studio:
        picture = make(studio)[0]
        day = time.strftime("%Y/%m/%d", time.gmtime(int(picture[:8] + picture[9:13], 16) / 1000))
        # A moment after its row it is at its place: see server/gallery/moving.c.
        wait_for(lambda: os.path.exists(os.path.join(places["images"], day, picture + ".png")), 5, "the file")
        assert len(glob.glob(os.path.join(places["cache"], "thumbnails", "*", picture + "-*.webp"))) == 2
        assert os.path.exists(os.path.join(folder, "elsewhere", "the.db"))
        assert not os.path.exists(os.path.join(studio.data, "images")) and not os.path.exists(os.path.join(studio.data, "db"))
        for path in (os.path.join(places["images"], day, picture + ".png"), os.path.join(folder, "elsewhere", "the.db")):
            assert os.stat(path).st_mode & 0o077 == 0, "others on the machine may read " + path


@claim
def a_picture_comes_in_every_format_and_from_every_cache(folder):
    with Studio(folder) as studio:
        picture = make(studio)[0]
        path = "/images/%s" % picture
        original = studio.get(path + ".png")
        stored = wait_for(lambda: glob.glob(os.path.join(studio.data, "images", "*", "*", "*", picture + ".png")), 5, "the file")[0]
        with open(stored, "rb") as file:
            assert original.body == file.read()
        assert original.headers["Content-Type"] == "image/png" and "immutable" in original.headers["Cache-Control"], original.headers
        etag = original.headers["ETag"]
        assert etag == '"%s"' % studio.need("GET", "/api/v1/images/" + picture)["sha256"]
        for headers in ({"If-None-Match": etag}, {"If-None-Match": 'W/"x", ' + etag}, {"If-None-Match": "*"},
                        {"If-Modified-Since": original.headers["Last-Modified"]}):
            answer = studio.get(path + ".png", headers=headers)
            assert answer.status == 304 and not answer.body and answer.headers["ETag"] == etag, (headers, answer)
        part = studio.get(path + ".png", headers={"Range": "bytes=8-99"})
        assert part.status == 206 and part.body == original.body[8:100], part
        assert part.headers["Content-Range"] == "bytes 8-99/%d" % len(original.body)
        assert studio.get(path + ".png", headers={"Range": "bytes=-16"}).body == original.body[-16:]
        assert studio.get(path + ".png", headers={"Range": "bytes=9999999-"}).status == 416
        assert studio.get(path + ".png", headers={"Range": "bytes=8-99", "If-Range": '"old"'}).body == original.body
        sizes = {}
        for ending, kind, start in (("jpg", "image/jpeg", b"\xff\xd8\xff"), ("jpeg", "image/jpeg", b"\xff\xd8\xff"), ("webp", "image/webp", b"RIFF")):
            for quality in (20, 95):
                answer = studio.get("%s.%s?quality=%d" % (path, ending, quality))
                assert answer.status == 200 and answer.headers["Content-Type"] == kind and answer.body.startswith(start), answer
                sizes[ending, quality] = len(answer.body)
                again = studio.get("%s.%s?quality=%d" % (path, ending, quality))
                assert again.body == answer.body and again.headers["ETag"] == answer.headers["ETag"] != etag
            assert sizes[ending, 20] < sizes[ending, 95]
        copies = glob.glob(os.path.join(studio.data, "cache", "converted", "*", "*"))
        assert len(copies) == 6, "each copy is made once: %s" % copies
        answer = studio.get(path + ".jpg?download=true")
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="%s.jpg"' % picture), answer.headers
        with studio.database() as database:
            assert database.execute("SELECT count(*) FROM audit WHERE action = 'image.downloaded'").fetchone()[0] == 1
        for query in ("quality=0", "quality=101", "quality=x", "width=3"):
            assert studio.get(path + ".jpg?" + query).status == 422, query
        for odd in (path + ".gif", path + ".svg", "/images/%s.png" % NOWHERE, "/images/x.png", path, path + ".png/x"):
            assert studio.get(odd).status == 404, odd


@claim
def thumbnails_and_hashes_are_there_from_the_start(folder):
    with Studio(folder) as studio:
        wide = studio.upload(png(640, 320, lambda x, y: (x % 256, y % 256, 128)))
        small = studio.upload(plain((9, 9, 9), 40, 30))
        for image, size, expected in ((wide, 256, (256, 128)), (wide, 512, (512, 256)), (small, 256, (40, 30))):
            answer = studio.get("/thumbnails/%s/%d.webp" % (image["id"], size))
            assert answer.status == 200 and answer.headers["Content-Type"] == "image/webp" and "immutable" in answer.headers["Cache-Control"]
            at = answer.body.index(b"VP8 ") + 14
            assert tuple(v & 0x3fff for v in struct.unpack("<HH", answer.body[at:at + 4])) == expected, expected
            assert studio.get("/thumbnails/%s/%d.webp" % (image["id"], size), headers={"If-None-Match": answer.headers["ETag"]}).status == 304
        assert studio.get("/thumbnails/%s/128.webp" % wide["id"]).status == 404
        assert len(wide["blurhash"]) == 28, wide["blurhash"]  # 4 × 3 components
        for path in glob.glob(os.path.join(studio.data, "cache", "thumbnails", "*", "*")):
            os.unlink(path)
        assert studio.get("/thumbnails/%s/256.webp" % wide["id"]).status == 200, "a thumbnail that is gone is made again"


# ---- Lists and search


@claim
def lists_go_by_every_key_and_pages_hold_while_pictures_come(folder):
    with Studio(folder) as studio:
        first = make(studio, prompt="a red fox", seed=1)[0]
        square = make(studio, prompt="a blue whale", count=2, seed=10)
        wide = make(studio, prompt="a green hill", width=128, height=64, seed=20)[0]
        photo = studio.upload(plain((1, 2, 3)))["id"]
        everything = [photo, wide, square[1], square[0], first]
        assert ids_of(studio) == everything and ids_of(studio, "?sort=oldest") == everything[::-1]
        act(studio, "favourite", [wide, first])
        act(studio, "tag", [first, square[0]], tag="Animals")
        album = studio.need("POST", "/api/v1/albums", {"name": "Best"}, 201)["id"]
        act(studio, "add_to_album", [square[1], first], album=album)
        job = studio.need("GET", "/api/v1/images/" + wide)["job"]
        created = studio.need("GET", "/api/v1/images/" + square[0])["created"]
        cases = [("kind=upload", [photo]), ("kind=generated", everything[1:]), ("model=neon", everything[1:]), ("model=other", []),
                 ("width=128", [wide]), ("width=64&height=64", [photo, square[1], square[0], first]), ("favourite=true", [wide, first]),
                 ("tag=Animals", [square[0], first]), ("tag=animals", [square[0], first]), ("tag=none", []), ("album=" + album, [square[1], first]),
                 ("seed=11", [square[1]]), ("job=" + job, [wide]), ("since=" + created, [photo, wide, square[1], square[0]]), ("until=" + created, [first]),
                 ("since=2000-01-01&until=2000-01-02", []), ("favourite=true&tag=animals", [first]), ("deleted=true", [])]
        for query, expected in cases:
            assert ids_of(studio, "?" + query) == expected, query
            assert ids_of(studio, "?sort=oldest&" + query) == expected[::-1], query
        for query in ("limit=0", "limit=201", "width=x", "since=yesterday", "sort=best", "cursor=x", "kind=photo", "seed=-1", "favourite=maybe", "colour=red",
                      "limit=1&limit=2", "album=x"):
            assert studio.get("/api/v1/images?" + query).status == 422, query
        seen, cursor = [], ""
        for n_new in (1, 1, 1, 0, 0, 0, 0):
            page = studio.need("GET", "/api/v1/images?limit=2" + ("&cursor=" + cursor if cursor else ""))
            seen += [image["id"] for image in page["images"]]
            cursor = page["next"]
            if cursor is None:
                break
            for _ in range(n_new):
                studio.upload(plain((random.randrange(256), 7, 7)))
        assert seen == everything, "a page was moved by what came meanwhile"
        facets = studio.need("GET", "/api/v1/images/facets")
        assert facets["models"] == [{"name": "neon", "n": 4}] and {"name": "Animals", "n": 2} in facets["tags"], facets
        assert facets["sizes"][-1] == {"width": 128, "height": 64, "n": 1} and facets["albums"][0]["n"] == 2, facets


@claim
def pages_of_tags_and_albums_hold_when_pictures_go(folder):
    with Studio(folder) as studio:
        pictures = [studio.upload(plain((i, 0, 0)))["id"] for i in range(7)]
        album = studio.need("POST", "/api/v1/albums", {"name": "All"}, 201)["id"]
        act(studio, "tag", pictures, tag="all")
        act(studio, "add_to_album", pictures, album=album)
        for query in ("tag=all", "album=" + album, "tag=all&album=" + album):
            for order, expected in (("newest", pictures[::-1]), ("oldest", pictures)):
                seen, cursor = [], ""
                while cursor is not None:
                    page = studio.need("GET", "/api/v1/images?limit=2&sort=%s&%s%s" % (order, query, "&cursor=" + cursor if cursor else ""))
                    seen += [image["id"] for image in page["images"]]
                    cursor = page["next"]
                assert seen == expected, (query, order)
        page = studio.need("GET", "/api/v1/images?limit=3&tag=all")
        assert [image["id"] for image in page["images"]] == pictures[:3:-1]
        act(studio, "delete", [pictures[4]])  # where the page ended
        studio.need("POST", "/api/v1/trash/empty")
        assert ids_of(studio, "?limit=3&tag=all&cursor=" + page["next"]) == [pictures[3], pictures[2], pictures[1]]


@claim
def search_finds_words_seeds_and_ids(folder):
    with Studio(folder) as studio:
        fox = make(studio, prompt="A quick brown fox, jumping (slowly)", negative_prompt="lazy dogs", seed=4242)[0]
        cafe = make(studio, prompt="Das Café am Fluß 日本", seed=77)[0]
        photo = studio.upload(plain((1, 1, 1)), "Holiday in Spain.png")["id"]
        cases = [("fox", [fox]), ("FOX", [fox]), ("qui", [fox]), ("fox brown", [fox]), ('"brown fox"', [fox]), ('"fox brown"', []), ("fox -quick", []),
                 ("cafe", [cafe]), ("café", [cafe]), ("日本", [cafe]), ("spain", [photo]), ("dogs", [fox]), ("4242", [fox]), ("77", [cafe]), (fox[:13], None),
                 (fox, [fox]), ("whale", [])]
        for text, expected in cases:
            found = ids_of(studio, "?q=" + quote(text))
            assert found == expected or (expected is None and fox in found), (text, found)
        odd = ['"', '""', "'", "*", "**", "(", ")", "NEAR", "NEAR(", "AND", "OR NOT", "fox AND", "^fox", "prompt:fox", "{a b}:c", "-", "--", "- -", "fox*", "%", "_", "\\",
               "\u202efox", "\U0001f98a", "a" * 500, "fox OR whale", ";DROP TABLE images", "fox\" OR \"1", "+", "a+b", ":", "[x]", "~1", "?", "??1", "\t"]
        for text in odd:
            answer = studio.get("/api/v1/images?q=" + quote(text))
            assert answer.status == 200, (text, answer)
        assert studio.get("/api/v1/images?q=" + "a" * 501).json["field"] == "q"
        assert studio.get("/api/v1/images?q=%00").status in (400, 422)
        assert studio.get("/api/v1/images?q=%ff").status in (400, 422)
        assert "store.failed" not in studio.read_log()
        studio.need("PATCH", "/api/v1/images/" + photo, {"name": "Sunset"})
        assert ids_of(studio, "?q=spain") == [] and ids_of(studio, "?q=sunset") == [photo]


def quote(text):
    return "".join("%%%02X" % byte for byte in text.encode())


# ---- Changing


@claim
def favourites_tags_names_and_albums(folder):
    with Studio(folder) as studio:
        a, b = make(studio, count=2)
        watcher = Watcher(studio)
        image = studio.need("PATCH", "/api/v1/images/" + a, {"favourite": True, "name": "My fox", "tags": ["x", "Y z", "ünï"]})
        assert image["favourite"] and image["name"] == "My fox" and {t["name"] for t in image["tags"]} == {"x", "Y z", "ünï"}, image
        assert {t["name"] for t in studio.need("PATCH", "/api/v1/images/" + a, {"tags": ["x"]})["tags"]} == {"x"}
        assert act(studio, "favourite", [a, b]) == [b], "what was so already is not changed"
        assert act(studio, "tag", [a, b], tag="x") == [b] and act(studio, "untag", [a], tag="x") == [a] and act(studio, "untag", [a], tag="x") == []
        assert studio.need("GET", "/api/v1/tags")["tags"] == [{"name": "x", "n": 1}]
        album = studio.need("POST", "/api/v1/albums", {"name": "One"}, 201)["id"]
        assert act(studio, "add_to_album", [b, a], album=album) == [b, a] and act(studio, "remove_from_album", [b], album=album) == [b]
        shown = studio.need("PATCH", "/api/v1/albums/" + album, {"name": "Two"})
        assert shown["name"] == "Two" and shown["n"] == 1 and shown["cover"] == a, shown
        assert studio.need("GET", "/api/v1/images/" + a)["albums"] == [{"id": album, "name": "Two"}]
        assert studio.ask("DELETE", "/api/v1/albums/" + album).status == 204 and studio.need("GET", "/api/v1/albums")["albums"] == []
        assert studio.get("/api/v1/images/" + a).status == 200, "an album's end is not its pictures'"
        wait_for(lambda: len(watcher.of("image.changed")) >= 6, 5, "events")
        watcher.close()
        refused = [("PATCH", "/api/v1/images/" + a, {"tags": ["x" * 101]}, "tags"), ("PATCH", "/api/v1/images/" + a, {"tags": [7]}, "tags"),
                   ("PATCH", "/api/v1/images/" + a, {"tags": ["x"] * 65}, "tags"), ("PATCH", "/api/v1/images/" + a, {"tags": [""]}, "tags"),
                   ("PATCH", "/api/v1/images/" + a, {"name": "x" * 201}, "name"), ("PATCH", "/api/v1/images/" + a, {"seed": 3}, "seed"),
                   ("PATCH", "/api/v1/images/" + a, {"favourite": "yes"}, "favourite"), ("POST", "/api/v1/images/actions", {"action": "tag", "ids": [a]}, "tag"),
                   ("POST", "/api/v1/images/actions", {"action": "shred", "ids": [a]}, "action"), ("POST", "/api/v1/images/actions", {"action": "delete", "ids": []}, "ids"),
                   ("POST", "/api/v1/images/actions", {"action": "delete", "ids": [a] * 1001}, "ids"), ("POST", "/api/v1/images/actions", {"action": "delete", "ids": ["x"]}, "ids"),
                   ("POST", "/api/v1/images/actions", {"action": "delete", "ids": [a], "tag": "x"}, "tag"), ("POST", "/api/v1/albums", {"name": ""}, "name"),
                   ("POST", "/api/v1/albums", {"name": "x" * 201}, "name"), ("POST", "/api/v1/albums", {}, "name")]
        for method, path, body, field in refused:
            answer = studio.ask(method, path, body)
            assert answer.status == 422 and answer.json["field"] == field, (body, answer)
        for method, path, body in (("PATCH", "/api/v1/images/" + NOWHERE, {"favourite": True}), ("DELETE", "/api/v1/images/" + NOWHERE, None),
                                   ("POST", "/api/v1/images/%s/restore" % NOWHERE, None), ("PATCH", "/api/v1/albums/" + NOWHERE, {"name": "x"}),
                                   ("DELETE", "/api/v1/albums/" + NOWHERE, None), ("DELETE", "/api/v1/images/x", None),
                                   ("POST", "/api/v1/images/actions", {"action": "add_to_album", "ids": [a], "album": NOWHERE}),
                                   ("POST", "/api/v1/images/actions", {"action": "favourite", "ids": [a, NOWHERE]})):
            answer = studio.ask(method, path, body)
            assert answer.status == 404, (method, path, body, answer)
        with studio.database() as database:
            actions = [row[0] for row in database.execute("SELECT action FROM audit WHERE object = ? ORDER BY seq", (a,))]
            check_chain(database)
        for action in ("image.favoured", "image.named", "image.tagged", "image.untagged", "album.filled", "image.viewed"):
            assert action in actions, (action, actions)


@claim
def an_action_on_many_is_all_or_nothing(folder):
    with Studio(folder) as studio:
        pictures = [studio.upload(plain((i, 0, 0)))["id"] for i in range(5)]
        answer = studio.post("/api/v1/images/actions", {"action": "delete", "ids": pictures + [NOWHERE]})
        assert answer.status == 404 and len(ids_of(studio)) == 5, answer
        assert sorted(act(studio, "delete", pictures)) == sorted(pictures) and ids_of(studio) == []


@claim
def the_trash_gives_back_until_it_is_emptied(folder):
    with Studio(folder) as studio:
        a, b, c = make(studio, count=3)
        act(studio, "tag", [a], tag="kept")
        studio.get("/images/%s.jpg" % b)
        assert studio.ask("DELETE", "/api/v1/images/" + a).status == 204 and studio.ask("DELETE", "/api/v1/images/" + b).status == 204
        assert ids_of(studio) == [c] and ids_of(studio, "?deleted=true") == [b, a] and ids_of(studio, "?tag=kept") == []
        assert studio.need("GET", "/api/v1/images/" + a)["deleted"] is not None
        assert studio.get("/images/%s.png" % a).status == 200, "who looks through the trash sees what lies there"
        assert studio.post("/api/v1/jobs", {"prompt": "x", "width": 64, "height": 64, "init": a}).status in (404, 422), "but nothing is made from it"
        assert studio.post("/api/v1/images/%s/restore" % a).status == 204
        assert ids_of(studio) == [c, a] and ids_of(studio, "?tag=kept") == [a]
        assert act(studio, "purge", [c]) is not None and studio.get("/api/v1/images/" + c).status == 200, "only what lies in the trash is removed for ever"
        assert studio.need("POST", "/api/v1/trash/empty") == {"purged": 1}
        assert studio.get("/api/v1/images/" + b).status == 404 and studio.get("/images/%s.png" % b).status == 404
        left = [path for path in glob.glob(os.path.join(studio.data, "**"), recursive=True) if b in path]
        assert left == [] or all("converted" in path for path in left), left
        job = studio.need("GET", "/api/v1/jobs")["jobs"][0]
        assert b not in job["images"] and job["state"] == "done", job
    with studio:
        assert ids_of(studio) == [c, a], "and so it is after a start"
    # Retention: as if a month had passed.
    with studio:
        studio.ask("DELETE", "/api/v1/images/" + a)
    connection = sqlite3.connect(os.path.join(studio.data, "db", "cyberimage.sqlite"))
    with connection:
        connection.execute("UPDATE images SET deleted_us = deleted_us - 31 * 86400 * 1000000 WHERE id = ?", (a,))
    connection.close()
    with studio:
        wait_for(lambda: studio.get("/api/v1/images/" + a).status == 404, 10, "retention")
        with studio.database() as database:
            assert database.execute("SELECT actor FROM audit WHERE action = 'image.purged' AND object = ?", (a,)).fetchone()[0] == "system"


@claim
def an_archive_holds_exactly_the_selection(folder):
    with Studio(folder) as studio:
        pictures = make(studio, count=3)
        answer = studio.post("/api/v1/images/archive", {"ids": pictures[:2]})
        assert answer.status == 200 and answer.headers["Content-Type"] == "application/zip", answer
        assert answer.headers["Content-Disposition"] == 'attachment; filename="cyberimage.zip"'
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.testzip() is None
            assert sorted(archive.namelist()) == sorted(i + ".png" for i in pictures[:2])
            assert archive.read(pictures[0] + ".png") == studio.get("/images/%s.png" % pictures[0]).body
        assert studio.post("/api/v1/images/archive", {"ids": [pictures[0], NOWHERE]}).json["field"] == "ids"
        assert studio.post("/api/v1/images/archive", {"ids": []}).status == 422
        with studio.database() as database:
            assert database.execute("SELECT count(*) FROM audit WHERE action = 'image.downloaded'").fetchone()[0] == 1
        # Somebody hangs up in the middle of a large one; the studio goes on.
        noise = studio.upload(png(512, 512, lambda x, y: (random.randrange(256), random.randrange(256), random.randrange(256))))["id"]
        connection = http.client.HTTPConnection("127.0.0.1", studio.port)
        connection.request("POST", "/api/v1/images/archive", json.dumps({"ids": [noise] * 200}), {"Content-Type": "application/json", "X-CyberImage": "1"})
        connection.getresponse().read(1000)
        connection.close()
        assert studio.get("/api/v1/images").status == 200


# ---- Uploads


def jpeg_with_exif(orientation):
    """The smallest JPEG of the fixtures with an EXIF block: turned, and with a place."""
    with open(os.path.join(FIXTURES, "image", "comment-ascii.jpg"), "rb") as file:
        data = file.read()
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0) + b"GPS 48.8584 N 2.2945 E"
    block = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


@claim
def uploads_are_decoded_stripped_and_kept_once(folder):
    with Studio(folder) as studio:
        secret = b"tEXt" + b"Comment\0taken at 48.8584 N"
        data = png(80, 48, lambda x, y: (x, y, 9), chunk(secret[:4], secret[4:]))
        image = studio.upload(data, "../../C:\\me\\Holiday <b>.png")
        assert image["kind"] == "upload" and (image["width"], image["height"]) == (80, 48) and image["job"] is None, image
        assert image["name"] == "Holiday <b>.png" or image["name"].endswith("Holiday <b>.png") and "/" not in image["name"], image["name"]
        stored = studio.get(image["url"]).body
        assert pixels_of(stored) == pixels_of(data) and {name for name, _ in chunks_of(stored)} <= {b"IHDR", b"IDAT", b"IEND"}, chunks_of(stored)
        assert studio.upload(png(80, 48, lambda x, y: (x, y, 9)), "other.png")["id"] == image["id"], "the same pixels of the same owner are kept once"
        assert len(ids_of(studio)) == 1
        for width, height in ((48, 80), (64, 600)):
            odd = studio.upload(plain((5, 5, 5), width, height))["id"]
            answer = studio.post("/api/v1/jobs", {"prompt": "x", "width": 64, "height": 64, "references": [odd]})
            assert answer.status == 422 and answer.json["field"] == "references", answer
        image = studio.upload(plain((7, 7, 7)))
        made = studio.wait(studio.submit(references=[image["id"]])["id"])
        assert made["state"] == "done"
        parents = studio.need("GET", "/api/v1/images/" + made["images"][0])["parents"]
        assert parents == [{"id": image["id"], "role": "reference"}], parents


@claim
def photographs_are_turned_upright_and_lose_their_place(folder):
    with Studio(folder) as studio:
        plain_one = studio.upload(jpeg_with_exif(1), "a.jpg")
        turned = studio.upload(jpeg_with_exif(6), "b.jpg")
        assert (turned["width"], turned["height"]) == (plain_one["height"], plain_one["width"]) or plain_one["width"] == plain_one["height"], turned
        before, after = pixels_of(studio.get(plain_one["url"]).body), pixels_of(studio.get(turned["url"]).body)
        assert after[0][:3] == before[-1][:3], "turned by a quarter: the lower left corner comes up"
        assert b"GPS" not in studio.get(turned["url"]).body


@claim
def what_is_no_picture_is_refused_with_a_sentence(folder):
    def bomb(width, height):
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)) + \
            chunk(b"IDAT", zlib.compress(b"\0" * 100000)) + chunk(b"IEND", b"")

    with open(os.path.join(FIXTURES, "image", "comment-ascii.jpg"), "rb") as file:
        jpeg = file.read()
    cases = [b"", b"hello", b"\x89PNG\r\n\x1a\n", plain((1, 2, 3))[:-20], bomb(60000, 60000), bomb(16384, 16384), bomb(2**31 - 1, 1), bomb(0, 5), jpeg[:40],
             b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", b"<html><script>alert(1)</script>", b"GIF89a" + b"\0" * 50,
             b"RIFF\x10\0\0\0WEBPVP8 ", b"BM" + b"\0" * 60, b"%PDF-1.4"]
    with Studio(folder, upload_mib=1) as studio:
        process = "/proc/%d/status" % studio.process.pid
        for data in cases:
            body, kind = multipart([], [("file", "x.png", data)])
            begin = time.monotonic()
            answer = studio.post("/api/v1/uploads", body, headers={"Content-Type": kind})
            assert answer.status in (413, 422) and answer.json["detail"], (data[:40], answer)
            assert time.monotonic() - begin < 20
        answer = studio.post("/api/v1/uploads", b"x" * (1024 * 1024 + 300), headers={"Content-Type": kind})
        assert answer.status in (400, 413, 422), answer
        big = png(1, 1, lambda x, y: (0,), chunk(b"tEXt", b"x" * (1100 * 1024)))
        body, kind = multipart([], [("file", "big.png", big)])
        answer = studio.post("/api/v1/uploads", body, headers={"Content-Type": kind})
        assert answer.status == 413 and "1 MiB" in answer.json["detail"], answer
        with open(process, encoding="ascii") as status:
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        assert "asan" in os.environ.get("ASAN_OPTIONS", "detect_leaks") or peak < 600 * 1024, peak
        for fields, files in (([], []), ([("a", "b")], []), ([], [("a", "x.png", plain((1,))), ("b", "y.png", plain((2,)))])):
            body, kind = multipart(fields, files)
            assert studio.post("/api/v1/uploads", body, headers={"Content-Type": kind}).status == 422, (fields, len(files))
        assert ids_of(studio) == [] and studio.files()[0] == set()


# ---- Details, relatives


@claim
def details_say_everything(folder):
    with Studio(folder) as studio:
        enrichment = studio.need("POST", "/api/v1/enrich", {"prompt": "a fox", "directions": ["cinematic"], "seed": 5})["enrichments"][0]
        job = studio.submit(prompt=enrichment["after"] + " At night.", prompt_typed="a fox", prompt_enriched=enrichment["after"], enrichment_id=enrichment["id"],
                            negative_prompt="blur", guidance=3.5, seed=9)
        parent = studio.wait(job["id"])["images"][0]
        image = studio.need("GET", "/api/v1/images/" + parent)
        assert (image["prompt"], image["prompt_enriched"], image["prompt_sent"]) == ("a fox", enrichment["after"], enrichment["after"] + " At night."), image
        assert image["enrichment"] == enrichment["id"] and image["negative_prompt"] == "blur" and image["guidance"] == 3.5 and image["seed"] == 9
        assert image["model"] == "neon" and len(image["model_hash"]) == 64 and image["duration_ms"] > 0 and image["device"] == "cpu"
        assert image["engine"].startswith("CyberImage ") and image["job"] == job["id"] and image["job_index"] == 0
        assert image["settings"]["seed"] == 9 and image["settings"]["engine"]["backend"] == "onednn" and -840 <= image["zone_minutes"] <= 840
        assert image["size_bytes"] == len(studio.get(image["url"]).body)
        photo = studio.upload(plain((200, 30, 30)))["id"]
        mask = studio.upload(plain((255, 255, 255)))["id"]
        edit = make(studio, init=photo, mask=mask, strength=0.7, references=[parent], parent={"id": parent, "role": "remix"})[0]
        shown = studio.need("GET", "/api/v1/images/" + edit)
        assert {(p["id"], p["role"]) for p in shown["parents"]} == {(photo, "init"), (mask, "mask"), (parent, "reference"), (parent, "remix")}, shown["parents"]
        assert shown["strength"] == 0.7
        children = studio.need("GET", "/api/v1/images/" + parent)["children"]
        assert {(c["id"], c["role"]) for c in children} == {(edit, "reference"), (edit, "remix")}, children
        studio.ask("DELETE", "/api/v1/images/" + parent)
        studio.need("POST", "/api/v1/trash/empty")
        assert {p["role"] for p in studio.need("GET", "/api/v1/images/" + edit)["parents"]} == {"init", "mask", "reference", "remix"}, "where it came from stays known"


# ---- Whose pictures


@claim
def nobody_sees_or_changes_what_is_anothers(folder):
    with Studio(folder, no_auth="false") as studio:
        owner = studio.sign_in()
        alice, bob = studio.add_user(owner, "alice"), studio.add_user(owner, "bob")
        viewer = studio.add_user(owner, "vera", "viewer")
        picture = studio.upload(plain((1, 2, 3)), headers=alice)["id"]
        job = studio.submit(headers=alice)
        wait_for(lambda: studio.need("GET", "/api/v1/jobs/" + job["id"], headers=alice)["state"] == "done", 60, "the job")
        made = studio.need("GET", "/api/v1/jobs/" + job["id"], headers=alice)["images"][0]
        album = studio.need("POST", "/api/v1/albums", {"name": "Mine"}, 201, headers=alice)["id"]
        enrichment = studio.need("POST", "/api/v1/enrich", {"prompt": "a fox"}, headers=alice)["enrichments"][0]["id"]
        asked = [("GET", "/api/v1/images/%s", picture, None), ("GET", "/images/%s.png", picture, None), ("GET", "/images/%s.jpg", made, None),
                 ("GET", "/thumbnails/%s/256.webp", picture, None), ("PATCH", "/api/v1/images/%s", picture, {"favourite": True}), ("DELETE", "/api/v1/images/%s", picture, None),
                 ("POST", "/api/v1/images/%s/restore", picture, None), ("GET", "/api/v1/jobs/%s", job["id"], None), ("DELETE", "/api/v1/jobs/%s", job["id"], None),
                 ("POST", "/api/v1/jobs/%s/retry", job["id"], None), ("PATCH", "/api/v1/jobs/%s", job["id"], {"priority": -1}), ("GET", "/api/v1/jobs/%s/preview", job["id"], None),
                 ("PATCH", "/api/v1/albums/%s", album, {"name": "x"}), ("DELETE", "/api/v1/albums/%s", album, None), ("GET", "/api/v1/enrichments/%s", enrichment, None)]
        for method, path, thing, body in asked:
            real, none = (studio.ask(method, path % i, body, headers=bob) for i in (thing, NOWHERE))
            assert real.status == none.status == 404 and real.body.replace(thing.encode(), b"") == none.body.replace(NOWHERE.encode(), b""), (method, path, real, none)
        for body in ({"action": "delete", "ids": [picture]}, {"action": "tag", "ids": [picture], "tag": "x"}):
            assert studio.ask("POST", "/api/v1/images/actions", body, headers=bob).status == 404
        assert studio.ask("POST", "/api/v1/images/archive", {"ids": [picture]}, headers=bob).status == 404
        for members in ({"init": picture}, {"references": [picture]}, {"parent": {"id": picture, "role": "remix"}}, {"enrichment_id": enrichment}):
            assert studio.ask("POST", "/api/v1/jobs", {"prompt": "x", "width": 64, "height": 64, **members}, headers=bob).status in (404, 422), members
        for path in ("/api/v1/images", "/api/v1/images?q=fox", "/api/v1/images?kind=upload", "/api/v1/jobs", "/api/v1/albums", "/api/v1/tags", "/api/v1/enrichments"):
            found = json.dumps(studio.need("GET", path, headers=bob))
            assert not any(thing in found for thing in (picture, made, job["id"], album, enrichment)), path
        assert studio.ask("GET", "/api/v1/images?owner=" + studio.need("GET", "/api/v1/me", headers=alice)["user"]["id"], headers=bob).json.get("images", []) == []
        for method, path, body in (("POST", "/api/v1/jobs", {"prompt": "x"}), ("POST", "/api/v1/albums", {"name": "x"}), ("PATCH", "/api/v1/images/" + picture, {"favourite": True}),
                                   ("DELETE", "/api/v1/images/" + picture, None), ("POST", "/api/v1/enrich", {"prompt": "x"}), ("POST", "/api/v1/queue/pause", None),
                                   ("GET", "/api/v1/users", None)):
            assert studio.ask(method, path, body, headers=viewer).status == 403, path
        assert studio.need("GET", "/api/v1/images", headers=viewer)["images"] == []
        assert {i["id"] for i in studio.need("GET", "/api/v1/images", headers=owner)["images"]} == {picture, made}, "an administrator sees everything"
        assert studio.need("GET", "/api/v1/images/" + picture, headers=owner)["owner"] == "alice"
        alice_id = studio.need("GET", "/api/v1/me", headers=alice)["user"]["id"]
        assert studio.ask("DELETE", "/api/v1/users/" + alice_id, headers=owner).status == 204
        assert studio.get("/api/v1/me", headers=alice).status == 401
        assert studio.need("GET", "/api/v1/images/" + picture, headers=owner)["owner"] is None, "pictures outlive the account"


@claim
def quotas_are_kept(folder):
    with Studio(folder, no_auth="false") as studio:
        owner = studio.sign_in()
        alice = studio.add_user(owner, "alice")
        alice_id = studio.need("GET", "/api/v1/me", headers=alice)["user"]["id"]
        studio.need("PATCH", "/api/v1/users/" + alice_id, {"quota_pictures": 2}, headers=owner)
        studio.upload(plain((1, 2, 3)), headers=alice)
        answer = studio.ask("POST", "/api/v1/jobs", {"prompt": "x", "width": 64, "height": 64, "count": 2}, headers=alice)
        assert answer.status == 403 and "2" in answer.json["detail"], answer
        studio.upload(plain((3, 2, 3)), headers=alice)
        body, kind = multipart([], [("file", "x.png", plain((4, 4, 4)))])
        assert studio.post("/api/v1/uploads", body, headers={**alice, "Content-Type": kind}).status == 403
        studio.need("PATCH", "/api/v1/users/" + alice_id, {"quota_pictures": None, "quota_jobs": 1}, headers=owner)
        studio.need("POST", "/api/v1/queue/pause", headers=owner)
        studio.submit(headers=alice)
        answer = studio.ask("POST", "/api/v1/jobs", {"prompt": "x", "width": 64, "height": 64}, headers=alice)
        assert answer.status == 403 and "1 job" in answer.json["detail"], answer
        studio.submit(headers=owner)  # others are not touched
        studio.need("PATCH", "/api/v1/users/" + alice_id, {"quota_jobs": None, "quota_mib": 1}, headers=owner)
        noise = random.Random(1)
        studio.upload(png(720, 720, lambda x, y: (noise.randrange(256), noise.randrange(256), noise.randrange(256))), headers=owner)
        studio.upload(png(600, 700, lambda x, y: (noise.randrange(256), noise.randrange(256), noise.randrange(256))), headers=alice)
        body, kind = multipart([], [("file", "x.png", plain((5, 5, 5)))])
        answer = studio.post("/api/v1/uploads", body, headers={**alice, "Content-Type": kind})
        assert answer.status == 403 and "1 MiB" in answer.json["detail"], answer
        usage = studio.need("GET", "/api/v1/me", headers=alice)["usage"]
        assert usage["jobs"] == 1 and usage["pictures"] == 3 and usage["bytes"] > 0, usage


@claim
def many_change_the_gallery_at_one_time(folder):
    with Studio(folder, program=TROUBLED) as studio:
        pictures = [studio.upload(plain((i, 1, 2)))["id"] for i in range(12)]
        job = studio.submit("a fox [slow 20]", count=10)
        faults = []

        def work(seed):
            dice = random.Random(seed)
            try:
                for _ in range(25):
                    some = dice.sample(pictures, 4)
                    action = dice.choice(["delete", "restore", "favourite", "unfavourite", "tag", "untag"])
                    studio.post("/api/v1/images/actions", {"action": action, "ids": some, **({"tag": "t%d" % dice.randrange(3)} if "tag" in action else {})})
                    studio.need("GET", "/api/v1/images?limit=5")
                    studio.need("GET", "/api/v1/images?q=fox")
            except Exception as fault:  # noqa: BLE001 told below
                faults.append(fault)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults, faults[0]
        assert studio.wait(job["id"])["state"] == "done"
        with studio.database() as database:
            assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            check_chain(database)


if __name__ == "__main__":
    sys.exit(run_claims())
