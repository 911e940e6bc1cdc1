/* The queue's rows: see store/jobs.h. */
#include "store/jobs.h"

#include "base/clock.h"
#include "base/id.h"

#include <stdlib.h>
#include <string.h>

#define NOW ((json_int_t)clock_now_us())
#define MAX_WAITING_SHOWN 10000

#define JOB_COLUMNS                                                                                                    \
    "j.id, u.name AS owner, j.state, j.priority, j.model, j.request AS \"request:j\", j.n_pictures AS count, "         \
    "j.n_done AS done, j.attempts, j.source, j.device, j.error_code, j.error, j.owner AS owner_id, "                   \
    "j.created_us AS \"created:t\", j.started_us AS \"started:t\", j.ended_us AS \"ended:t\" "
#define FROM_JOBS "FROM jobs j LEFT JOIN users u ON u.id = j.owner "

static enum problem_code not_found(struct problem *problem) {
    return problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such job");
}

enum problem_code jobs_add(struct db *db, const struct new_job *job, struct problem *problem) {
    char *request = json_text_of(job->request), *webhook = job->webhook != NULL ? json_text_of(job->webhook) : NULL;
    const enum problem_code st =
        db_run(db,
               "INSERT INTO jobs (id, owner, state, priority, position, model, request, n_pictures, source, "
               "idempotency_key, request_hash, webhook, created_us) VALUES (?1, ?2, 'queued', ?3, "
               "(SELECT coalesce(max(position), 0) + 1024 FROM jobs WHERE state = 'queued'), ?4, ?5, ?6, ?7, ?8, ?9, "
               "?10, ?11)",
               ARGS("s,s?,I,s,s,i,s,s?,s?,s?,I]", job->id, job->owner, (json_int_t)job->priority, job->model, request,
                    job->n_pictures, job->source, job->idempotency_key, job->request_hash, webhook, NOW),
               problem);
    free(request);
    free(webhook);
    return st;
}

enum problem_code jobs_find_key(struct db *db, const char *owner, const char *key, json_t **ret_job,
                                struct problem *problem) {
    return db_one(db, "SELECT id, request_hash FROM jobs WHERE owner = ?1 AND idempotency_key = ?2",
                  ARGS("s,s]", owner, key), ret_job, problem);
}

static enum problem_code add_images(struct db *db, json_t *job, struct problem *problem) {
    json_t *rows = NULL, *row, *ids = JSON("[]");
    size_t i;
    const enum problem_code st =
        db_all(db, "SELECT id FROM images WHERE job_id = ?1 AND deleted_us IS NULL ORDER BY job_index LIMIT 100",
               ARGS("O]", json_object_get(job, "id")), &rows, problem);
    json_array_foreach(rows, i, row) {
        json_add(ids, json_incref(json_object_get(row, "id")));
    }
    json_put(job, "images", ids);
    json_decref(rows);
    return st;
}

static enum problem_code add_all_images(struct db *db, json_t *jobs, struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    for (size_t i = 0; i < json_array_size(jobs) && st == PROBLEM_NONE; i++) {
        st = add_images(db, json_array_get(jobs, i), problem);
    }
    return st;
}

enum problem_code jobs_get(struct db *db, const char *owner, const char *id, json_t **ret_job,
                           struct problem *problem) {
    json_t *job = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(db_one(db, "SELECT " JOB_COLUMNS FROM_JOBS "WHERE j.id = ?1 AND (?2 IS NULL OR j.owner = ?2)",
               ARGS("s,s?]", id, owner), &job, problem));
    if (job == NULL) {
        st = not_found(problem);
        goto done;
    }
    TRY(add_images(db, job, problem));
    *ret_job = job;
    job = NULL;
done:
    json_decref(job);
    return st;
}

/* Ids are UUIDv7, so that their order is that of their making; each condition has its index. */
enum problem_code jobs_list(struct db *db, const struct job_filter *filter, json_t **ret_jobs,
                            struct problem *problem) {
    const char *where = filter->owner != NULL && filter->state != NULL ? "j.owner = ?1 AND j.state = ?2 "
                        : filter->owner != NULL                        ? "j.owner = ?1 AND ?2 IS NULL "
                        : filter->state != NULL                        ? "?1 IS NULL AND j.state = ?2 "
                                                                       : "?1 IS NULL AND ?2 IS NULL ";
    char *sql = text_format("SELECT " JOB_COLUMNS FROM_JOBS
                            "WHERE %sAND j.id < ?3 AND (?5 IS NULL OR j.source = ?5) ORDER BY j.id DESC LIMIT ?4",
                            where);
    enum problem_code st =
        db_all(db, sql,
               ARGS("s?,s?,s,I,s?]", filter->owner, filter->state, filter->before_id != NULL ? filter->before_id : "g",
                    (json_int_t)filter->limit, filter->source),
               ret_jobs, problem);
    free(sql);
    return st != PROBLEM_NONE ? st : add_all_images(db, *ret_jobs, problem);
}

enum problem_code jobs_waiting(struct db *db, json_t **ret_jobs, struct problem *problem) {
    return db_all(
        db, "SELECT " JOB_COLUMNS FROM_JOBS "WHERE j.state = 'queued' ORDER BY j.priority DESC, j.position LIMIT ?1",
        ARGS("i]", MAX_WAITING_SHOWN), ret_jobs, problem);
}

enum problem_code jobs_ahead(struct db *db, const char *id, json_t **ret_sorts, struct problem *problem) {
    return db_all(db,
                  "SELECT j.model, json_extract(j.request, '$.width') AS width, json_extract(j.request, '$.height') "
                  "AS height, json_extract(j.request, '$.steps') AS steps, sum(j.n_pictures - j.n_done) AS n, "
                  "count(*) AS n_jobs FROM jobs j, jobs me WHERE me.id = ?1 AND j.state = 'queued' AND "
                  "(j.priority > me.priority OR (j.priority = me.priority AND j.position < me.position)) "
                  "GROUP BY 1, 2, 3, 4 LIMIT 1000",
                  ARGS("s]", id), ret_sorts, problem);
}

enum problem_code jobs_find_image(struct db *db, const char *owner, const char *id, const char *field, json_t **ret_row,
                                  struct problem *problem) {
    const enum problem_code st =
        db_one(db, "SELECT width, height FROM images WHERE id = ?1 AND owner = ?2 AND deleted_us IS NULL",
               ARGS("s,s]", id, owner), ret_row, problem);
    return st == PROBLEM_NONE && *ret_row == NULL
               ? problem_set(problem, PROBLEM_NOT_FOUND, field, "there is no picture %s", id)
               : st;
}

enum problem_code jobs_check_enrichment(struct db *db, const char *owner, const char *id, struct problem *problem) {
    int64_t n = 0;
    const enum problem_code st = db_int(db, "SELECT count(*) FROM enrichments WHERE id = ?1 AND owner = ?2",
                                        ARGS("s,s]", id, owner), 0, &n, problem);
    return st == PROBLEM_NONE && n == 0
               ? problem_set(problem, PROBLEM_NOT_FOUND, "enrichment_id", "there is no enrichment %s", id)
               : st;
}

enum problem_code jobs_count_waiting(struct db *db, const char *owner, int64_t *ret_all, int64_t *ret_own,
                                     struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    TRY(db_int(db, "SELECT count(*) FROM jobs WHERE state = 'queued'", NO_ARGS, 0, ret_all, problem));
    TRY(db_int(db, "SELECT count(*) FROM jobs WHERE owner = ?1 AND state = 'queued'", ARGS("s]", owner), 0, ret_own,
               problem));
done:
    return st;
}

enum problem_code jobs_count_pictures(struct db *db, const char *owner, int64_t *ret_n, struct problem *problem) {
    return db_int(
        db,
        "SELECT coalesce(sum(n_pictures - n_done), 0) FROM jobs WHERE owner = ?1 AND state IN ('queued', 'running')",
        ARGS("s]", owner), 0, ret_n, problem);
}

/* ---- States ---- */

/* Owners take turns. The first part goes from owner to owner along the index, so that it does not matter how many jobs each one has. */
#define NEXT_OWNER                                                                                                     \
    "WITH RECURSIVE top (priority) AS (SELECT max(priority) FROM jobs WHERE state = 'queued'), "                       \
    "owners (name) AS (SELECT (SELECT coalesce(owner, '') FROM jobs WHERE state = 'queued' AND "                       \
    "priority = (SELECT priority FROM top) ORDER BY coalesce(owner, '') LIMIT 1) "                                     \
    "UNION ALL SELECT (SELECT coalesce(owner, '') FROM jobs WHERE state = 'queued' AND "                               \
    "priority = (SELECT priority FROM top) AND coalesce(owner, '') > owners.name "                                     \
    "ORDER BY coalesce(owner, '') LIMIT 1) FROM owners WHERE owners.name IS NOT NULL) "                                \
    "SELECT name, (SELECT priority FROM top) AS priority FROM owners WHERE name IS NOT NULL "                          \
    "ORDER BY (SELECT max(started_us) FROM jobs WHERE coalesce(owner, '') = owners.name), name LIMIT 1"

enum problem_code jobs_claim(struct db *db, const char *device, json_t **ret_job, struct problem *problem) {
    json_t *owner = NULL, *next = NULL;
    bool is_paused = false;
    enum problem_code st = PROBLEM_NONE;
    *ret_job = NULL;
    TRY(queue_is_paused(db, &is_paused, problem));
    if (is_paused) {
        goto done;
    }
    TRY(db_one(db, NEXT_OWNER, NO_ARGS, &owner, problem));
    if (owner == NULL) {
        goto done;
    }
    TRY(db_one(db,
               "SELECT id FROM jobs WHERE state = 'queued' AND priority = ?1 AND coalesce(owner, '') = ?2 "
               "ORDER BY position LIMIT 1",
               ARGS("O,O]", json_object_get(owner, "priority"), json_object_get(owner, "name")), &next, problem));
    json_t *id = json_object_get(next, "id");
    /* The time is also the claim: it grows, even where the clock does not. */
    TRY(db_run(db,
               "UPDATE jobs SET state = 'running', attempts = attempts + 1, device = ?1, error = NULL, error_code = "
               "NULL, started_us = max(?2, (SELECT coalesce(max(started_us), 0) + 1 FROM jobs)) "
               "WHERE id = ?3 AND state = 'queued'",
               ARGS("s,I,O]", device, NOW, id), problem));
    TRY(db_one(db, "SELECT " JOB_COLUMNS ", j.started_us AS claim " FROM_JOBS "WHERE j.id = ?1", ARGS("O]", id),
               ret_job, problem));
done:
    json_decref(owner);
    json_decref(next);
    return st;
}

static enum problem_code claim_has_ended(struct problem *problem) {
    return problem_set(problem, PROBLEM_CONFLICT, NULL, "the job does not run here any more");
}

/* For statements that change the one row of a claim. */
static enum problem_code run_claimed(struct db *db, const char *sql, json_t *arguments, struct problem *problem) {
    const enum problem_code st = db_run(db, sql, arguments, problem);
    return st == PROBLEM_NONE && db_changes(db) != 1 ? claim_has_ended(problem) : st;
}

enum problem_code jobs_check_claim(struct db *db, const char *id, int64_t claim, struct problem *problem) {
    int64_t n = 0;
    const enum problem_code st =
        db_int(db, "SELECT count(*) FROM jobs WHERE id = ?1 AND state = 'running' AND started_us = ?2",
               ARGS("s,I]", id, (json_int_t)claim), 0, &n, problem);
    return st == PROBLEM_NONE && n != 1 ? claim_has_ended(problem) : st;
}

enum problem_code jobs_count_done(struct db *db, const char *id, int64_t claim, int picture, struct problem *problem) {
    return run_claimed(db,
                       "UPDATE jobs SET n_done = n_done + 1, attempts = 1 "
                       "WHERE id = ?1 AND state = 'running' AND started_us = ?2 AND n_done = ?3",
                       ARGS("s,I,i]", id, (json_int_t)claim, picture), problem);
}

/* Whoever wants to hear of the end. */
static enum problem_code announce(struct db *db, const char *id, struct problem *problem) {
    json_t *row = NULL, *job = NULL, *event = NULL;
    char webhook_id[ID_TEXT];
    char *body = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(db_one(db, "SELECT json_extract(webhook, '$.url') AS url FROM jobs WHERE id = ?1", ARGS("s]", id), &row,
               problem));
    const char *url = json_get_text(row, "url");
    if (url == NULL) {
        goto done;
    }
    TRY(jobs_get(db, NULL, id, &job, problem));
    (void)json_object_del(job, "owner_id");
    event = JSON("{s:s, s:O}", "event", "job.ended", "job", job);
    body = json_text_of(event);
    TRY(db_run(db, "INSERT INTO webhooks (id, job_id, url, body, next_us) VALUES (?1, ?2, ?3, ?4, ?5)",
               ARGS("s,s,s,s,I]", id_make(webhook_id), id, url, body, NOW), problem));
done:
    json_decref(row);
    json_decref(job);
    json_decref(event);
    free(body);
    return st;
}

enum problem_code jobs_end(struct db *db, const char *id, int64_t claim, const char *state, const char *code,
                           const char *error, struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    TRY(run_claimed(db,
                    "UPDATE jobs SET state = ?1, error_code = ?2, error = ?3, ended_us = ?4 "
                    "WHERE id = ?5 AND state = 'running' AND started_us = ?6",
                    ARGS("s,s?,o,I,s,I]", state, code, json_text(error), NOW, id, (json_int_t)claim), problem));
    TRY(announce(db, id, problem));
done:
    return st;
}

enum problem_code jobs_release(struct db *db, const char *id, int64_t claim, bool counts, const char *error,
                               struct problem *problem) {
    return run_claimed(db,
                       "UPDATE jobs SET state = 'queued', attempts = attempts - ?1, error = ?2 "
                       "WHERE id = ?3 AND state = 'running' AND started_us = ?4",
                       ARGS("i,o,s,I]", counts ? 0 : 1, json_text(error), id, (json_int_t)claim), problem);
}

enum problem_code jobs_recover(struct db *db, int64_t max_attempts, json_t **ret_ids, struct problem *problem) {
    json_t *rows = NULL, *row, *ids = JSON("[]");
    size_t i;
    enum problem_code st = PROBLEM_NONE;
    TRY(db_all(db, "SELECT id, started_us, attempts FROM jobs WHERE state = 'running' LIMIT 10000", NO_ARGS, &rows,
               problem));
    json_array_foreach(rows, i, row) {
        const char *id = json_get_text(row, "id");
        const int64_t claim = json_get_int(row, "started_us", 0);
        if (json_get_int(row, "attempts", 0) >= max_attempts) {
            TRY(jobs_end(db, id, claim, "held", "server-died",
                         "the studio ended in the middle of this job again and again", problem));
        } else {
            TRY(jobs_release(db, id, claim, true, "the studio ended in the middle of it", problem));
        }
        TRY(audit_append(db, &actor_system, "job.recovered", id, NULL, problem));
        json_add(ids, json_incref(json_object_get(row, "id")));
    }
    *ret_ids = ids;
    ids = NULL;
done:
    json_decref(rows);
    json_decref(ids);
    return st;
}

static enum problem_code get_state(struct db *db, const char *owner, const char *id, json_t **ret_row,
                                   struct problem *problem) {
    const enum problem_code st =
        db_one(db, "SELECT state, priority, position FROM jobs WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)",
               ARGS("s,s?]", id, owner), ret_row, problem);
    return st == PROBLEM_NONE && *ret_row == NULL ? not_found(problem) : st;
}

/* Whoever runs it notices that its claim has ended. */
enum problem_code jobs_cancel(struct db *db, const char *owner, const char *id, struct problem *problem) {
    json_t *row = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(get_state(db, owner, id, &row, problem));
    TRY(db_run(db,
               "UPDATE jobs SET state = 'cancelled', ended_us = ?1 "
               "WHERE id = ?2 AND state IN ('queued', 'running', 'held')",
               ARGS("I,s]", NOW, id), problem));
    if (db_changes(db) == 0) {
        st = problem_set(problem, PROBLEM_CONFLICT, NULL, "the job is %s already", json_get_text(row, "state"));
        goto done;
    }
    TRY(announce(db, id, problem));
done:
    json_decref(row);
    return st;
}

enum problem_code jobs_retry(struct db *db, const char *owner, const char *id, struct problem *problem) {
    json_t *row = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(get_state(db, owner, id, &row, problem));
    TRY(db_run(db,
               "UPDATE jobs SET state = 'queued', attempts = 0, error = NULL, error_code = NULL, ended_us = NULL, "
               "position = (SELECT coalesce(max(position), 0) + 1024 FROM jobs WHERE state = 'queued') "
               "WHERE id = ?1 AND state IN ('failed', 'cancelled', 'held') AND n_done < n_pictures",
               ARGS("s]", id), problem));
    if (db_changes(db) == 0) {
        st = problem_set(problem, PROBLEM_CONFLICT, NULL,
                         "the job is %s, and only failed, cancelled and held ones can be tried again",
                         json_get_text(row, "state"));
    }
done:
    json_decref(row);
    return st;
}

/* ---- Order ---- */

static enum problem_code check_waits(const json_t *row, struct problem *problem) {
    return strcmp(json_get_text(row, "state"), "queued") == 0
               ? PROBLEM_NONE
               : problem_set(problem, PROBLEM_CONFLICT, NULL, "the job is %s; only waiting ones can be moved",
                             json_get_text(row, "state"));
}

enum problem_code jobs_set_priority(struct db *db, const char *owner, const char *id, int64_t priority,
                                    struct problem *problem) {
    json_t *row = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(get_state(db, owner, id, &row, problem));
    TRY(check_waits(row, problem));
    TRY(db_run(db, "UPDATE jobs SET priority = ?1 WHERE id = ?2 AND state = 'queued'",
               ARGS("I,s]", (json_int_t)priority, id), problem));
done:
    json_decref(row);
    return st;
}

/* The place in front of which it goes, halfway to who stands before that; a queue whose halves have become too small
 * is numbered anew. */
enum problem_code jobs_move(struct db *db, const char *owner, const char *id, const char *before_id,
                            struct problem *problem) {
    json_t *row = NULL, *before = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(get_state(db, owner, id, &row, problem));
    TRY(check_waits(row, problem));
    if (before_id == NULL || before_id[0] == '\0') {
        TRY(db_run(db,
                   before_id == NULL ? "UPDATE jobs SET position = (SELECT max(position) + 1024 FROM jobs WHERE state "
                                       "= 'queued') WHERE id = ?1"
                                     : "UPDATE jobs SET position = (SELECT min(position) - 1024 FROM jobs WHERE state "
                                       "= 'queued') WHERE id = ?1",
                   ARGS("s]", id), problem));
        goto done;
    }
    TRY(get_state(db, owner, before_id, &before, problem));
    TRY(check_waits(before, problem));
    TRY(db_run(db,
               "UPDATE jobs SET position = ((SELECT position FROM jobs WHERE id = ?2) + coalesce((SELECT max(position) "
               "FROM jobs "
               "WHERE state = 'queued' AND position < (SELECT position FROM jobs WHERE id = ?2)), "
               "(SELECT position FROM jobs WHERE id = ?2) - 2048)) / 2, priority = (SELECT priority FROM jobs WHERE id "
               "= ?2) WHERE id = ?1",
               ARGS("s,s]", id, before_id), problem));
    TRY(db_run(db,
               "UPDATE jobs SET position = (SELECT 1024.0 * count(*) FROM jobs o WHERE o.state = 'queued' AND "
               "o.position <= jobs.position) "
               "WHERE state = 'queued' AND (SELECT min(abs(a.position - ?1)) FROM jobs a WHERE a.state = 'queued' AND "
               "a.id <> ?2) < 0.001",
               ARGS("O,s]", json_object_get(before, "position"), before_id), problem));
done:
    json_decref(row);
    json_decref(before);
    return st;
}

enum problem_code jobs_clear(struct db *db, const char *owner, json_t **ret_ids, struct problem *problem) {
    json_t *rows = NULL, *row, *ids = JSON("[]");
    size_t i;
    enum problem_code st = PROBLEM_NONE;
    TRY(db_all(db, "SELECT id FROM jobs WHERE state = 'queued' AND (?1 IS NULL OR owner = ?1) LIMIT 100000",
               ARGS("s?]", owner), &rows, problem));
    json_array_foreach(rows, i, row) {
        TRY(jobs_cancel(db, owner, json_get_text(row, "id"), problem));
        json_add(ids, json_incref(json_object_get(row, "id")));
    }
    *ret_ids = ids;
    ids = NULL;
done:
    json_decref(rows);
    json_decref(ids);
    return st;
}

enum problem_code queue_is_paused(struct db *db, bool *ret_is_paused, struct problem *problem) {
    int64_t n = 0;
    const enum problem_code st =
        db_int(db, "SELECT count(*) FROM state WHERE name = 'paused'", NO_ARGS, 0, &n, problem);
    *ret_is_paused = n > 0;
    return st;
}

enum problem_code queue_set_paused(struct db *db, bool is_paused, struct problem *problem) {
    return is_paused ? db_run(db, "INSERT INTO state (name, value) VALUES ('paused', '1') ON CONFLICT DO NOTHING",
                              NO_ARGS, problem)
                     : db_run(db, "DELETE FROM state WHERE name = 'paused'", NO_ARGS, problem);
}

/* ---- Announcements ---- */

enum problem_code webhooks_next(struct db *db, json_t **ret_webhook, struct problem *problem) {
    return db_one(db,
                  "SELECT w.id, w.job_id, w.url, w.body, w.attempts, json_extract(j.webhook, '$.secret') AS secret, "
                  "json_extract(j.webhook, '$.is_studio') AS is_studio "
                  "FROM webhooks w JOIN jobs j ON j.id = w.job_id WHERE w.next_us <= ?1 ORDER BY w.next_us LIMIT 1",
                  ARGS("I]", NOW), ret_webhook, problem);
}

enum problem_code webhooks_next_us(struct db *db, int64_t *ret_us, struct problem *problem) {
    return db_int(db, "SELECT next_us FROM webhooks ORDER BY next_us LIMIT 1", NO_ARGS, INT64_MAX, ret_us, problem);
}

enum problem_code webhooks_done(struct db *db, const char *id, struct problem *problem) {
    return db_run(db, "DELETE FROM webhooks WHERE id = ?1", ARGS("s]", id), problem);
}

enum problem_code webhooks_later(struct db *db, const char *id, int64_t next_us, const char *error,
                                 struct problem *problem) {
    return db_run(db, "UPDATE webhooks SET attempts = attempts + 1, next_us = ?1, error = ?2 WHERE id = ?3",
                  ARGS("I,o,s]", (json_int_t)next_us, json_text(error), id), problem);
}
