#!/usr/bin/env python3
"""One picture's whole life by HTTP, as a person with curl would do it, and the audit row of every step."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from kills import check_chain  # noqa: E402
from pictures import pixels_of  # noqa: E402
from studio import Studio, Watcher, wait_for  # noqa: E402
from tap import claim, run_claims  # noqa: E402


@claim
def a_picture_is_made_found_thrown_away_and_brought_back(folder):
    with Studio(folder, no_auth="false") as studio:
        owner = studio.sign_in()
        token = studio.need("POST", "/api/v1/tokens", {"name": "curl", "scopes": ["read", "generate", "edit"]}, 201, headers=owner)["token"]
        studio.token = token
        watcher = Watcher(studio)

        enriched = studio.need("POST", "/api/v1/enrich", {"prompt": "a fox", "directions": ["cinematic", "rule_of_thirds"], "seed": 1})["enrichments"][0]
        assert enriched["source"] == "builtin" and enriched["after"] != "a fox" and enriched["directions"] == ["cinematic", "rule_of_thirds"], enriched
        job = studio.need("POST", "/api/v1/jobs", {"prompt": enriched["after"], "prompt_typed": "a fox", "prompt_enriched": enriched["after"],
                                                   "enrichment_id": enriched["id"], "width": 64, "height": 64, "steps": 3, "seed": 11}, 201)
        ended = wait_for(lambda: [e for e in watcher.of("job.changed") if e["job"]["id"] == job["id"] and e["job"]["state"] == "done"], 60, "the end")
        picture = ended[0]["job"]["images"][0]
        assert any(e["id"] == picture for e in watcher.of("image.added")) and watcher.of("job.progress"), "the events told it step by step"
        watcher.close()

        image = studio.need("GET", "/api/v1/images/" + picture)
        assert image["prompt"] == "a fox" and image["prompt_sent"] == enriched["after"] and image["enrichment"] == enriched["id"], image
        assert image["seed"] == 11 and image["steps"] == 3 and image["model"] == "neon", image
        original = studio.get(image["url"] + "?download=true")
        assert original.status == 200 and len(pixels_of(original.body)) == 64 and b"a fox" not in original.headers["Content-Disposition"].encode()
        for path in (image["thumbnail"], image["thumbnail_large"], image["url"].replace(".png", ".webp")):
            assert studio.get(path).status == 200, path

        found = [i["id"] for i in studio.need("GET", "/api/v1/images?q=fox&seed=11")["images"]]
        assert found == [picture], found
        assert studio.need("PATCH", "/api/v1/images/" + picture, {"favourite": True, "tags": ["foxes"]})["tags"] == [{"name": "foxes"}]
        assert [i["id"] for i in studio.need("GET", "/api/v1/images?tag=foxes&favourite=true")["images"]] == [picture]
        assert studio.ask("DELETE", "/api/v1/images/" + picture).status == 204
        assert studio.need("GET", "/api/v1/images")["images"] == []
        assert studio.post("/api/v1/images/%s/restore" % picture).status == 204
        assert [i["id"] for i in studio.need("GET", "/api/v1/images?tag=foxes")["images"]] == [picture]

        rows = studio.need("GET", "/api/v1/audit?sort=oldest&limit=500", headers={"Authorization": "Bearer " + token})["rows"]
        mine = [(row["action"], row["object"]) for row in rows if row["actor"] == "owner"]
        for step in (("prompt.enriched", enriched["id"]), ("job.submitted", job["id"]), ("image.viewed", picture), ("image.downloaded", picture),
                     ("image.favoured", picture), ("image.tagged", picture), ("image.deleted", picture), ("image.restored", picture)):
            assert mine.count(step) >= 1, (step, mine)
        steps = [action for action, _ in mine]
        assert steps.index("prompt.enriched") < steps.index("job.submitted") < steps.index("image.deleted") < steps.index("image.restored")
        studio.token = None
        everything = studio.need("GET", "/api/v1/audit?limit=500", headers=owner)["rows"]
        assert {"studio.started", "session.opened", "token.made", "worker.started", "model.loaded", "job.started", "image.added", "job.done"} <= \
            {row["action"] for row in everything}
        assert studio.need("GET", "/api/v1/audit/verify", headers=owner)["ok"]
    with studio.database() as database:
        assert check_chain(database) > len(mine)
        assert database.execute("SELECT action FROM audit ORDER BY seq DESC LIMIT 1").fetchone()[0] == "studio.stopped"


if __name__ == "__main__":
    sys.exit(run_claims())
