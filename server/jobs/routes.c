/* Routes: jobs, the queue, models, workers. */
#include "jobs/jobs_internal.h"

#include "base/log.h"
#include "gallery/gallery.h"
#include "store/jobs.h"

#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define MAX_PAGE 200
#define DEFAULT_PAGE 50
#define MAX_PRIORITY 10
#define PREVIEW_QUALITY 80
#define STATES "queued|running|done|failed|cancelled|held"

/* Whose jobs this caller may see and change: NULL: everybody's. */
static const char *scope_of(const struct request *request) {
    return request_is_admin(request) ? NULL : request_caller(request)->user_id;
}

static enum problem_code check_id(const char *id, struct problem *problem) {
    return id_is_valid(id) ? PROBLEM_NONE : problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such job");
}

/* The audit row, then the transaction's end. */
static enum problem_code finish(struct studio *studio, struct request *request, struct db **db, const char *action,
                                const char *object, json_t *details, struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    TRY(audit_append(*db, request_actor(request), action, object, details, problem));
    TRY(store_commit(studio->store, db, problem));
done:
    return st;
}

static enum problem_code answer_job(struct studio *studio, struct request *request, struct response *response,
                                    int status, const char *id, struct problem *problem) {
    json_t *job = NULL;
    const enum problem_code st = queue_get(studio->queue, scope_of(request), id, &job, problem);
    if (st == PROBLEM_NONE) {
        response_json(response, status, job);
    }
    return st;
}

/* ---- Jobs ---- */

static enum problem_code submit_job(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    const struct submission submission = { .actor = request_actor(request),
                                           .owner = request_caller(request)->user_id,
                                           .request = request_json(request),
                                           .source = "api",
                                           .idempotency_key = request_header(request, "Idempotency-Key") };
    json_t *job = NULL;
    bool is_new = true;
    const enum problem_code st = queue_submit(studio->queue, &submission, &job, &is_new, problem);
    if (st == PROBLEM_NONE) {
        char *location = text_format("%s/api/v1/jobs/%s", request_base_url(request), json_get_text(job, "id"));
        response_header(response, "Location", location);
        response_json(response, is_new ? 201 : 200, job);
        free(location);
    }
    return st;
}

struct list_fields {
    int64_t limit;
    const char *state, *before, *owner;
};

static const struct json_row list_rows[] = {
    { "limit", JSON_ROW_INT, offsetof(struct list_fields, limit), 1, MAX_PAGE, NULL, 0 },
    { "state", JSON_ROW_CHOICE, offsetof(struct list_fields, state), 0, 0, STATES, 0 },
    { "before", JSON_ROW_ID, offsetof(struct list_fields, before), 0, 0, NULL, 0 },
    { "owner", JSON_ROW_ID, offsetof(struct list_fields, owner), 0, 0, NULL, 0 },
};

static enum problem_code list_jobs(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    struct list_fields fields = { .limit = DEFAULT_PAGE };
    json_t *jobs = NULL, *job, *next = NULL;
    size_t i;
    enum problem_code st = PROBLEM_NONE;
    struct db *db = NULL;
    TRY(request_read_query(request, list_rows, COUNT(list_rows), &fields, problem));
    const char *scope = scope_of(request);
    const struct job_filter filter = { .owner = scope != NULL ? scope : fields.owner,
                                       .state = fields.state,
                                       .before_id = fields.before,
                                       .limit = fields.limit + 1 };
    if (scope != NULL && fields.owner != NULL && strcmp(scope, fields.owner) != 0) {
        st = problem_set(problem, PROBLEM_FORBIDDEN, "owner", "the jobs of others are for administrators");
        goto done;
    }
    db = store_read(studio->store);
    TRY(jobs_list(db, &filter, &jobs, problem));
    if ((int64_t)json_array_size(jobs) > fields.limit) {
        (void)json_array_remove(jobs, (size_t)fields.limit);
        next = json_incref(json_object_get(json_array_get(jobs, (size_t)fields.limit - 1), "id"));
    }
    json_array_foreach(jobs, i, job) {
        queue_decorate(studio->queue, db, job, false);
    }
    response_json(response, 200, JSON("{s:O, s:o}", "jobs", jobs, "next", next != NULL ? next : json_null()));
done:
    store_read_done(studio->store, db);
    json_decref(jobs);
    return st;
}

static enum problem_code show_job(struct studio *studio, struct request *request, struct response *response,
                                  struct problem *problem) {
    const char *id = request_parameter(request, "id");
    enum problem_code st = PROBLEM_NONE;
    TRY(check_id(id, problem));
    TRY(answer_job(studio, request, response, 200, id, problem));
done:
    return st;
}

static enum problem_code cancel_job(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    const char *id = request_parameter(request, "id");
    enum problem_code st = PROBLEM_NONE;
    TRY(check_id(id, problem));
    TRY(queue_cancel(studio->queue, request_actor(request), scope_of(request), id, problem));
    TRY(answer_job(studio, request, response, 200, id, problem));
done:
    return st;
}

static enum problem_code retry_job(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    const char *id = request_parameter(request, "id");
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(check_id(id, problem));
    TRY(store_begin(studio->store, &db, problem));
    TRY(jobs_retry(db, scope_of(request), id, problem));
    TRY(finish(studio, request, &db, "job.retried", id, NULL, problem));
    queue_job_changed(studio->queue, id);
    TRY(answer_job(studio, request, response, 200, id, problem));
done:
    store_rollback(studio->store, &db);
    return st;
}

struct move_fields {
    int64_t priority;
    const char *before, *position;
};

static const struct json_row move_rows[] = {
    { "priority", JSON_ROW_INT, offsetof(struct move_fields, priority), -MAX_PRIORITY, MAX_PRIORITY, NULL, 0 },
    { "before", JSON_ROW_ID, offsetof(struct move_fields, before), 0, 0, NULL, 0 },
    { "position", JSON_ROW_CHOICE, offsetof(struct move_fields, position), 0, 0, "first|last", 0 },
};

/* The priority comes with the place: for administrators only where it is above 0. */
static enum problem_code move_before(struct db *db, const struct request *request, const char *id, const char *before,
                                     struct problem *problem) {
    json_t *other = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(jobs_get(db, scope_of(request), before, &other, problem));
    if (json_get_int(other, "priority", 0) > 0 && !request_is_admin(request)) {
        st = problem_set(problem, PROBLEM_FORBIDDEN, "before", "priorities above 0 are for administrators");
        goto done;
    }
    TRY(jobs_move(db, scope_of(request), id, before, problem));
done:
    json_decref(other);
    return st;
}

static enum problem_code move_job(struct studio *studio, struct request *request, struct response *response,
                                  struct problem *problem) {
    const char *id = request_parameter(request, "id");
    const json_t *json = request_json(request);
    struct move_fields fields = { 0 };
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(check_id(id, problem));
    TRY(json_read(json, move_rows, COUNT(move_rows), &fields, problem));
    if (fields.priority > 0 && !request_is_admin(request)) {
        st = problem_set(problem, PROBLEM_FORBIDDEN, "priority", "priorities above 0 are for administrators");
        goto done;
    }
    if (json_object_size(json) == 0 || (fields.before != NULL && fields.position != NULL)) {
        st = problem_set(problem, PROBLEM_INVALID, fields.before != NULL ? "before" : "priority",
                         "say priority, and where to: before (a job) or position, not both");
        goto done;
    }
    TRY(store_begin(studio->store, &db, problem));
    if (json_object_get(json, "priority") != NULL) {
        TRY(jobs_set_priority(db, scope_of(request), id, fields.priority, problem));
    }
    if (fields.position != NULL) {
        TRY(jobs_move(db, scope_of(request), id, strcmp(fields.position, "first") == 0 ? "" : NULL, problem));
    } else if (fields.before != NULL) {
        TRY(move_before(db, request, id, fields.before, problem));
    }
    TRY(finish(studio, request, &db, "job.moved", id, json_need(json_deep_copy(json)), problem));
    queue_job_changed(studio->queue, id);
    TRY(answer_job(studio, request, response, 200, id, problem));
done:
    store_rollback(studio->store, &db);
    return st;
}

static enum problem_code show_preview(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    const struct cyi_image_options options = { .format = CYI_FORMAT_WEBP, .quality = PREVIEW_QUALITY };
    struct cyi_image image = { 0 };
    struct cyi_error err = { 0 };
    struct cyi_engine *codec = gallery_codec(studio->gallery);
    void *data = NULL;
    size_t n = 0;
    if (!queue_preview(studio->queue, scope_of(request), request_parameter(request, "id"), &image)) {
        return problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no preview of this job now");
    }
    if (cyi_image_encode(codec, &image, &options, &data, &n, &err) == CYI_OK) {
        response_header(response, "Cache-Control", "no-store");
        response_bytes(response, 200, "image/webp", data, n);
        cyi_release(codec, data);
    }
    free(image.pixels);
    return err.code == CYI_OK ? PROBLEM_NONE : problem_engine(problem, NULL, &err);
}

/* What it would take: the request as for a job, which is checked and not made. */
static enum problem_code estimate(struct studio *studio, struct request *request, struct response *response,
                                  struct problem *problem) {
    json_t *complete = NULL;
    const json_t *webhook = NULL;
    int64_t priority = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(submit_complete(studio->queue, request_json(request), &complete, &priority, &webhook, problem));
    struct db *db = store_read(studio->store);
    const double ms = eta_picture_ms(db, complete);
    store_read_done(studio->store, db);
    const double count = (double)json_get_int(complete, "count", 1);
    response_json(response, 200,
                  JSON("{s:b, s:o, s:o}", "known", ms >= 0.0, "picture_seconds",
                       ms >= 0.0 ? json_real(ms * 1e-3) : json_null(), "seconds",
                       ms >= 0.0 ? json_real(ms * 1e-3 * count) : json_null()));
done:
    json_decref(complete);
    return st;
}

/* ---- The queue ---- */

/* Each waiting job with its place and the time until it is done, as far as everything in front of it is known. */
static void add_places(struct queue *queue, struct db *db, json_t *waiting) {
    double ahead = eta_running_seconds(queue);
    json_t *job;
    size_t i;
    json_array_foreach(waiting, i, job) {
        const double ms = eta_picture_ms(db, json_object_get(job, "request"));
        const double own = ms * 1e-3 * (double)(json_get_int(job, "count", 0) - json_get_int(job, "done", 0));
        const bool is_known = ahead >= 0.0 && ms >= 0.0;
        json_put(job, "position", json_integer((json_int_t)i + 1));
        json_put(job, "remaining_seconds", is_known ? json_real(ahead / queue->n_runners + own) : json_null());
        ahead = is_known ? ahead + own : -1.0;
    }
}

/* Those of others stand in between, but only their places are seen. */
static json_t *keep_own(struct queue *queue, struct db *db, const json_t *jobs, const char *owner) {
    json_t *kept = JSON("[]"), *job;
    size_t i;
    json_array_foreach(jobs, i, job) {
        const char *other = json_get_text(job, "owner_id");
        if (owner == NULL || (other != NULL && strcmp(other, owner) == 0)) {
            queue_decorate(queue, db, job, false);
            json_add(kept, json_incref(job));
        }
    }
    return kept;
}

static enum problem_code show_queue(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    json_t *waiting = NULL, *running = NULL;
    bool is_paused = false;
    const struct job_filter filter = { .state = "running", .limit = MAX_PAGE };
    const char *owner = scope_of(request);
    struct db *db = store_read(studio->store);
    enum problem_code st = PROBLEM_NONE;
    TRY(queue_is_paused(db, &is_paused, problem));
    TRY(jobs_list(db, &filter, &running, problem));
    TRY(jobs_waiting(db, &waiting, problem));
    add_places(studio->queue, db, waiting);
    response_json(response, 200,
                  JSON("{s:b, s:I, s:I, s:o, s:o}", "paused", is_paused, "n_running",
                       (json_int_t)json_array_size(running), "n_waiting", (json_int_t)json_array_size(waiting),
                       "running", keep_own(studio->queue, db, running, owner), "waiting",
                       keep_own(studio->queue, db, waiting, owner)));
done:
    store_read_done(studio->store, db);
    json_decref(waiting);
    json_decref(running);
    return st;
}

static enum problem_code set_paused(struct studio *studio, struct request *request, struct response *response,
                                    bool is_paused, struct problem *problem) {
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(studio->store, &db, problem));
    TRY(queue_set_paused(db, is_paused, problem));
    TRY(finish(studio, request, &db, is_paused ? "queue.paused" : "queue.resumed", NULL, NULL, problem));
    log_event(LOG_INFO, is_paused ? "queue.paused" : "queue.resumed", NULL);
    queue_changed(studio->queue);
    for (int i = 0; i < studio->queue->n_runners; i++) {
        runner_wake(&studio->queue->runners[i]);
    }
    response_json(response, 200, JSON("{s:b}", "paused", is_paused));
done:
    store_rollback(studio->store, &db);
    return st;
}

static enum problem_code pause_queue(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    return set_paused(studio, request, response, true, problem);
}

static enum problem_code resume_queue(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    return set_paused(studio, request, response, false, problem);
}

static const struct json_row clear_rows[] = { { "all", JSON_ROW_BOOL, 0, 0, 0, NULL, 0 } };

/* One's own, or with all those of everybody. */
static enum problem_code clear_queue(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    bool wants_all = false;
    struct db *db = NULL;
    json_t *ids = NULL, *id;
    size_t i;
    enum problem_code st = PROBLEM_NONE;
    if (request_json(request) != NULL) {
        TRY(json_read(request_json(request), clear_rows, COUNT(clear_rows), &wants_all, problem));
    }
    if (wants_all && !request_is_admin(request)) {
        st = problem_set(problem, PROBLEM_FORBIDDEN, "all", "the jobs of others are for administrators");
        goto done;
    }
    TRY(store_begin(studio->store, &db, problem));
    TRY(jobs_clear(db, wants_all ? NULL : request_caller(request)->user_id, &ids, problem));
    json_array_foreach(ids, i, id) {
        TRY(audit_append(db, request_actor(request), "job.cancelled", json_string_value(id), NULL, problem));
    }
    TRY(finish(studio, request, &db, "queue.cleared", NULL, JSON("{s:I}", "jobs", (json_int_t)json_array_size(ids)),
               problem));
    json_array_foreach(ids, i, id) {
        queue_job_changed(studio->queue, json_string_value(id));
    }
    response_json(response, 200, JSON("{s:I}", "cancelled", (json_int_t)json_array_size(ids)));
done:
    store_rollback(studio->store, &db);
    json_decref(ids);
    return st;
}

/* ---- Models and workers ---- */

static enum problem_code list_models(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    (void)request;
    (void)problem;
    response_json(response, 200, JSON("{s:o}", "models", queue_models(studio->queue)));
    return PROBLEM_NONE;
}

static enum problem_code refresh_models(struct studio *studio, struct request *request, struct response *response,
                                        struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    TRY(catalogue_refresh(studio->queue, problem));
    TRY(audit_write(studio->store, request_actor(request), "models.refreshed", NULL, NULL, problem));
    TRY(list_models(studio, request, response, problem));
done:
    return st;
}

static enum problem_code list_workers(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    json_t *workers = queue_workers(studio->queue), *worker;
    size_t i;
    (void)problem;
    json_array_foreach(workers, i, worker) {
        if (!request_is_admin(request)) { /* which job it is is its owner's affair */
            json_put(worker, "job", json_null());
        }
    }
    response_json(response, 200, JSON("{s:o}", "workers", workers));
    return PROBLEM_NONE;
}

static const struct route routes[] = {
    { "POST", "/api/v1/jobs", ACCESS_GENERATE, BODY_JSON, 0, submit_job },
    { "GET", "/api/v1/jobs", ACCESS_READ, BODY_NONE, 0, list_jobs },
    { "GET", "/api/v1/jobs/{id}", ACCESS_READ, BODY_NONE, 0, show_job },
    { "PATCH", "/api/v1/jobs/{id}", ACCESS_GENERATE, BODY_JSON, 0, move_job },
    { "DELETE", "/api/v1/jobs/{id}", ACCESS_GENERATE, BODY_NONE, 0, cancel_job },
    { "POST", "/api/v1/jobs/{id}/cancel", ACCESS_GENERATE, BODY_JSON, 0, cancel_job },
    { "POST", "/api/v1/jobs/{id}/retry", ACCESS_GENERATE, BODY_JSON, 0, retry_job },
    { "GET", "/api/v1/jobs/{id}/preview", ACCESS_READ, BODY_NONE, ROUTE_SLOW | ROUTE_UNCOUNTED, show_preview },
    { "POST", "/api/v1/estimate", ACCESS_READ, BODY_JSON, 0, estimate },
    { "GET", "/api/v1/queue", ACCESS_READ, BODY_NONE, 0, show_queue },
    { "POST", "/api/v1/queue/pause", ACCESS_ADMIN, BODY_JSON, 0, pause_queue },
    { "POST", "/api/v1/queue/resume", ACCESS_ADMIN, BODY_JSON, 0, resume_queue },
    { "POST", "/api/v1/queue/clear", ACCESS_GENERATE, BODY_JSON, 0, clear_queue },
    { "GET", "/api/v1/models", ACCESS_READ, BODY_NONE, 0, list_models },
    { "POST", "/api/v1/models/refresh", ACCESS_ADMIN, BODY_JSON, ROUTE_SLOW, refresh_models },
    { "GET", "/api/v1/workers", ACCESS_READ, BODY_NONE, 0, list_workers },
};

const struct route_table queue_routes = { routes, COUNT(routes) };
