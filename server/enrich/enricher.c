/* The routes of enriching: see enrich.h. One request is a work: some candidates, made by the endpoint or by the
 * built-in enricher, each recorded as soon as it ends, and sent as it comes when the client wants a stream. */
#include "enrich/enrich.h"

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "enrich/builtin.h"
#include "enrich/client.h"
#include "enrich/reply_text.h"
#include "store/enrichments.h"
#include "studio.h"

#include <curl/curl.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PROMPT_BYTES 16000
#define MAX_CANDIDATES 4
#define MAX_AT_ONCE 16 /* requests that wait for an endpoint */
#define MAX_SEED 9007199254740991.0

struct enricher {
    struct studio *studio;
    atomic_int n_running;
};

enum problem_code enricher_create(struct studio *studio, struct enricher **ret_enricher, struct problem *problem) {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return problem_set(problem, PROBLEM_INTERNAL, NULL, "the HTTP client cannot be started");
    }
    struct enricher *enricher = text_alloc(1, sizeof *enricher);
    enricher->studio = studio;
    *ret_enricher = enricher;
    return PROBLEM_NONE;
}

void enricher_free(struct enricher *enricher) {
    if (enricher != NULL) {
        curl_global_cleanup();
        free(enricher);
    }
}

/* ---- One request's work ---- */

struct fields {
    const char *prompt, *model, *negative, *source;
    json_t *directions, *instructions;
    int64_t n_candidates, seed;
    bool is_stream;
};

struct candidate {
    char id[ID_TEXT];
    int64_t created_us;
    char *shown;          /* what of it was sent as deltas */
    json_t *enrichment;   /* as the API shows it, when it is recorded */
    struct problem fault; /* what kept it from being made or recorded */
};

struct work {
    struct studio *studio;
    struct request *request;
    struct response *response;
    struct fields fields;
    unsigned directions;
    json_t *names, *texts; /* of the directions; of the instructions that were changed */
    const char *instructions[N_DIRECTIONS];
    struct endpoint endpoint;
    bool has_endpoint, is_begun, is_gone;
    size_t n;
    struct candidate candidates[MAX_CANDIDATES];
    struct exchange exchanges[MAX_CANDIDATES];
};

static enum problem_code read_fields(struct work *work, struct problem *problem) {
    static const struct json_row rows[] = {
        { "prompt", JSON_ROW_TEXT, offsetof(struct fields, prompt), 1, MAX_PROMPT_BYTES, NULL, JSON_NEEDED },
        { "directions", JSON_ROW_ARRAY, offsetof(struct fields, directions), 0, N_DIRECTIONS, NULL, 0 },
        { "instructions", JSON_ROW_OBJECT, offsetof(struct fields, instructions), 0, 0, NULL, JSON_NULLABLE },
        { "candidates", JSON_ROW_INT, offsetof(struct fields, n_candidates), 1, MAX_CANDIDATES, NULL, 0 },
        { "seed", JSON_ROW_INT, offsetof(struct fields, seed), 0, MAX_SEED, NULL, JSON_NULLABLE },
        { "model", JSON_ROW_TEXT, offsetof(struct fields, model), 0, 256, NULL, JSON_NULLABLE },
        { "negative", JSON_ROW_TEXT, offsetof(struct fields, negative), 0, MAX_PROMPT_BYTES, NULL, JSON_NULLABLE },
        { "source", JSON_ROW_CHOICE, offsetof(struct fields, source), 0, 0, "auto|endpoint|builtin", 0 },
        { "stream", JSON_ROW_BOOL, offsetof(struct fields, is_stream), 0, 0, NULL, 0 },
    };
    struct fields *fields = &work->fields;
    const char *accept = request_header(work->request, "Accept");
    enum problem_code st = PROBLEM_NONE;
    *fields = (struct fields){ .n_candidates = 1, .seed = -1, .source = "auto" };
    fields->is_stream = accept != NULL && strstr(accept, "text/event-stream") != NULL;
    TRY(json_read(request_json(work->request), rows, sizeof rows / sizeof rows[0], fields, problem));
    if (fields->prompt[strspn(fields->prompt, " \t\r\n")] == '\0') {
        st = problem_set(problem, PROBLEM_INVALID, "prompt", "\"prompt\" is empty");
        goto done;
    }
    work->n = (size_t)fields->n_candidates;
    work->names = JSON("[]");
    for (size_t i = 0; i < json_array_size(fields->directions); i++) {
        const char *name = json_string_value(json_array_get(fields->directions, i));
        const enum direction direction = name != NULL ? direction_find(name) : N_DIRECTIONS;
        if (direction == N_DIRECTIONS) {
            st = problem_set(problem, PROBLEM_INVALID, "directions", "there is no direction \"%.60s\"",
                             name != NULL ? name : "that is no text");
            goto done;
        }
        if ((work->directions & (1u << direction)) == 0) {
            json_add(work->names, json_text(name));
        }
        work->directions |= 1u << direction;
    }
    if (fields->instructions != NULL) {
        TRY(directions_check(fields->instructions, "instructions", false, problem));
    }
done:
    return st;
}

/* The request's own instructions go before those that an administrator changed; NULL stands for the texts in the program. */
static enum problem_code read_instructions(struct work *work, struct problem *problem) {
    struct db *db = store_read(work->studio->store);
    const enum problem_code st = enrichments_read_directions(db, &work->texts, problem);
    store_read_done(work->studio->store, db);
    for (enum direction i = 0; i < N_DIRECTIONS; i++) {
        const char *own = json_get_text(work->fields.instructions, direction_name(i));
        work->instructions[i] = own != NULL ? own : json_get_text(work->texts, direction_name(i));
    }
    return st;
}

static enum problem_code choose_source(struct work *work, struct problem *problem) {
    work->has_endpoint =
        strcmp(work->fields.source, "builtin") != 0 && endpoint_read(work->studio->settings, &work->endpoint);
    return work->has_endpoint || strcmp(work->fields.source, "endpoint") != 0
               ? PROBLEM_NONE
               : problem_set(problem, PROBLEM_CONFLICT, "source", "there is no endpoint: enrich-url is not set");
}

static void free_work(struct work *work) {
    for (size_t i = 0; i < MAX_CANDIDATES; i++) {
        free(work->candidates[i].shown);
        json_decref(work->candidates[i].enrichment);
        free(work->exchanges[i].system);
        free(work->exchanges[i].user);
        reply_free(&work->exchanges[i].reply);
    }
    endpoint_free(&work->endpoint);
    json_decref(work->names);
    json_decref(work->texts);
}

/* ---- The stream ---- */

/* data is taken over. The first event sends the head, so that a request that fails as a whole still gets a problem document. */
static void send_event(struct work *work, const char *type, json_t *data) {
    if (!work->is_begun) {
        work->is_begun = true;
        response_begin_stream(work->response, 200, "text/event-stream");
        response_header(work->response, "X-Accel-Buffering", "no");
    }
    char *json = json_text_of(data), *event = text_format("event: %s\ndata: %s\n\n", type, json);
    work->is_gone = !response_write(work->response, event, strlen(event)) || work->is_gone;
    free(event);
    free(json);
    json_decref(data);
}

/* Sends what has come since; nothing while the cleaned text does not go on where the last one ended. */
static void send_delta(struct work *work, size_t i, const char *text) {
    char **shown = &work->candidates[i].shown;
    const size_t n = *shown != NULL ? strlen(*shown) : 0;
    if (!work->fields.is_stream || strncmp(text, *shown != NULL ? *shown : "", n) != 0 || text[n] == '\0') {
        return;
    }
    send_event(work, "delta", JSON("{s:i, s:o}", "candidate", (int)i, "text", json_text(text + n)));
    free(*shown);
    *shown = text_copy(text);
}

/* ---- Recording ---- */

struct outcome {
    const char *after, *model;
    int64_t seed, duration_ms;
};

static json_t *audit_details(const struct work *work, const struct new_enrichment *row) {
    return JSON("{s:o, s:o, s:O, s:s, s:o, s:o, s:o, s:o}", "before", json_text(row->before), "after",
                json_text(row->after), "directions", row->directions, "source", row->source, "endpoint",
                json_text(row->endpoint), "model", json_text(row->model), "image_model", json_text(work->fields.model),
                "error", json_text(row->error));
}

/* Row and audit row in one transaction; what failed is recorded as well. */
static void record(struct work *work, size_t i, const struct outcome *outcome) {
    struct candidate *candidate = &work->candidates[i];
    const struct caller *caller = request_caller(work->request);
    const bool has_failed = candidate->fault.code != PROBLEM_NONE;
    struct problem problem = { 0 };
    struct db *db = NULL;
    const struct new_enrichment row = {
        .id = id_make(candidate->id),
        .owner = caller->user_id[0] != '\0' ? caller->user_id : NULL,
        .created_us = candidate->created_us,
        .before = work->fields.prompt,
        .after = has_failed ? NULL : outcome->after,
        .directions = work->names,
        .source = work->has_endpoint ? "endpoint" : "builtin",
        .endpoint = work->endpoint.shown,
        .model = outcome->model,
        .seed = outcome->seed,
        .duration_ms = outcome->duration_ms,
        .error = has_failed ? candidate->fault.detail : NULL,
    };
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(work->studio->store, &db, &problem));
    TRY(enrichments_insert(db, &row, &problem));
    TRY(enrichments_get(db, NULL, row.id, &candidate->enrichment, &problem));
    TRY(audit_append(db, request_actor(work->request), "prompt.enriched", row.id, audit_details(work, &row), &problem));
    TRY(store_commit(work->studio->store, &db, &problem));
    log_event(has_failed ? LOG_WARNING : LOG_INFO, "prompt.enriched",
              JSON("{s:s, s:s, s:I, s:o*, s:o*}", "id", row.id, "source", row.source, "ms", (json_int_t)row.duration_ms,
                   "error", has_failed ? json_text(row.error) : NULL, "prompt",
                   settings_bool(work->studio->settings, SETTING_log_prompts) ? json_text(row.before) : NULL));
done:
    store_rollback(work->studio->store, &db);
    if (st != PROBLEM_NONE) {
        candidate->fault = problem;
        candidate->fault.code = st;
    }
}

static void finish(struct work *work, size_t i, const struct outcome *outcome) {
    struct candidate *candidate = &work->candidates[i];
    record(work, i, outcome);
    if (work->fields.is_stream && candidate->fault.code == PROBLEM_NONE) {
        send_event(work, "done", JSON("{s:i, s:O}", "candidate", (int)i, "enrichment", candidate->enrichment));
    }
}

/* ---- Making ---- */

static void make_builtin(struct work *work) {
    const int64_t seed = work->fields.seed >= 0 ? work->fields.seed : (int64_t)randombytes_uniform(INT32_MAX);
    for (size_t i = 0; i < work->n; i++) {
        const int64_t started_us = clock_monotonic_us();
        struct builtin_request request = { .prompt = work->fields.prompt,
                                           .negative = work->fields.negative,
                                           .directions = work->directions,
                                           .style = caption_style_of(work->fields.model),
                                           .seed = (uint64_t)seed + i };
        memcpy(request.instructions, work->instructions, sizeof request.instructions);
        work->candidates[i].created_us = clock_now_us();
        char *text = builtin_enrich(&request);
        send_delta(work, i, text);
        finish(work, i,
               &(struct outcome){ .after = text,
                                  .seed = seed + (int64_t)i,
                                  .duration_ms = (clock_monotonic_us() - started_us) / 1000 });
        free(text);
    }
}

static void on_text(void *user, size_t i) {
    struct work *work = user;
    if (work->fields.is_stream) {
        char *text = reply_clean(reply_text(&work->exchanges[i].reply), false);
        send_delta(work, i, text);
        free(text);
    }
}

static void on_end(void *user, size_t i) {
    struct work *work = user;
    const struct exchange *exchange = &work->exchanges[i];
    const char *model = exchange->reply.model[0] != '\0' ? exchange->reply.model : work->endpoint.model;
    char *text = reply_clean(reply_text(&exchange->reply), true);
    work->candidates[i].fault = exchange->problem;
    if (exchange->status == PROBLEM_NONE) {
        send_delta(work, i, text);
    }
    finish(work, i,
           &(struct outcome){ .after = text,
                              .model = model[0] != '\0' ? model : NULL,
                              .seed = exchange->seed,
                              .duration_ms = exchange->duration_ms });
    free(text);
}

static bool is_wanted(void *user) {
    struct work *work = user;
    return !work->is_gone && response_is_wanted(work->response);
}

static enum problem_code make_by_endpoint(struct work *work, struct problem *problem) {
    struct enricher *enricher = work->studio->enricher;
    const struct client_hooks hooks = { on_text, on_end, is_wanted, work };
    if (atomic_fetch_add(&enricher->n_running, 1) >= MAX_AT_ONCE) {
        (void)atomic_fetch_sub(&enricher->n_running, 1);
        problem->retry_after_seconds = 5;
        return problem_set(problem, PROBLEM_TOO_MANY, NULL, "%d prompts are being enriched already", MAX_AT_ONCE);
    }
    for (size_t i = 0; i < work->n; i++) {
        work->candidates[i].created_us = clock_now_us();
        work->exchanges[i].system =
            directions_brief(work->directions, work->instructions, caption_style_of(work->fields.model),
                             work->fields.negative, (int)i, (int)work->n);
        work->exchanges[i].user = text_copy(work->fields.prompt);
        work->exchanges[i].seed = work->fields.seed >= 0 ? work->fields.seed + (int64_t)i : -1;
    }
    client_run(&work->endpoint, work->exchanges, work->n, &hooks);
    (void)atomic_fetch_sub(&enricher->n_running, 1);
    return PROBLEM_NONE;
}

/* ---- Answering ---- */

static json_t *describe_fault(const struct problem *fault) {
    return JSON("{s:s, s:s, s:i, s:o}", "code", problem_name(fault->code), "title", problem_title(fault->code),
                "status", problem_status(fault->code), "detail", json_text(fault->detail));
}

/* One that failed stands beside those that did not; when all did, the first one's reason is the answer. */
static enum problem_code answer(struct work *work, struct problem *problem) {
    json_t *list = JSON("[]");
    size_t n_failed = 0;
    for (size_t i = 0; i < work->n; i++) {
        n_failed += work->candidates[i].fault.code != PROBLEM_NONE;
    }
    if (n_failed == work->n && !work->is_begun) {
        *problem = work->candidates[0].fault;
        json_decref(list);
        return problem->code;
    }
    for (size_t i = 0; i < work->n; i++) {
        struct candidate *candidate = &work->candidates[i];
        if (candidate->fault.code != PROBLEM_NONE && work->fields.is_stream) {
            send_event(work, "failed",
                       JSON("{s:i, s:o}", "candidate", (int)i, "problem", describe_fault(&candidate->fault)));
        } else if (candidate->enrichment != NULL) {
            json_add(list, json_incref(candidate->enrichment));
        }
    }
    if (work->fields.is_stream) {
        send_event(work, "end", JSON("{s:I}", "done", (json_int_t)(work->n - n_failed)));
        json_decref(list);
    } else {
        response_json(work->response, 200, JSON("{s:o}", "enrichments", list));
    }
    return PROBLEM_NONE;
}

static enum problem_code post_enrich(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    struct work work = { .studio = studio, .request = request, .response = response };
    enum problem_code st = PROBLEM_NONE;
    TRY(read_fields(&work, problem));
    TRY(read_instructions(&work, problem));
    TRY(choose_source(&work, problem));
    if (work.has_endpoint) {
        TRY(make_by_endpoint(&work, problem));
    } else {
        make_builtin(&work);
    }
    TRY(answer(&work, problem));
done:
    free_work(&work);
    return st;
}

/* ---- The endpoint's state ---- */

static enum problem_code get_enrich(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    struct endpoint endpoint;
    (void)request;
    (void)problem;
    const bool is_set = endpoint_read(studio->settings, &endpoint);
    response_json(response, 200,
                  JSON("{s:s, s:o, s:o, s:b, s:f, s:I}", "source", is_set ? "endpoint" : "builtin", "endpoint",
                       json_text(endpoint.shown), "model",
                       json_text(endpoint.model != NULL && endpoint.model[0] != '\0' ? endpoint.model : NULL),
                       "has_key", endpoint.key != NULL && endpoint.key[0] != '\0', "temperature",
                       settings_number(studio->settings, SETTING_enrich_temperature), "timeout_seconds",
                       (json_int_t)settings_int(studio->settings, SETTING_enrich_timeout)));
    endpoint_free(&endpoint);
    return PROBLEM_NONE;
}

struct trial {
    struct response *response;
};

static void ignore(void *user, size_t i) {
    (void)user;
    (void)i;
}

static bool is_trial_wanted(void *user) {
    const struct trial *trial = user;
    return response_is_wanted(trial->response);
}

/* One short question to the endpoint. */
static enum problem_code post_test(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    static char system[] = "Answer with one word.", user[] = "Say: ready";
    struct endpoint endpoint = { 0 };
    struct exchange exchange = { .system = system, .user = user, .seed = -1 };
    struct trial trial = { response };
    const struct client_hooks hooks = { ignore, ignore, is_trial_wanted, &trial };
    char *text = NULL;
    enum problem_code st = PROBLEM_NONE;
    if (request_json(request) != NULL) {
        TRY(json_read(request_json(request), NULL, 0, NULL, problem));
    }
    if (!endpoint_read(studio->settings, &endpoint)) {
        st = problem_set(problem, PROBLEM_CONFLICT, NULL, "there is no endpoint to test: enrich-url is not set");
        goto done;
    }
    client_run(&endpoint, &exchange, 1, &hooks);
    TRY(audit_write(studio->store, request_actor(request), "enrich.tested", endpoint.shown,
                    JSON("{s:I, s:o}", "duration_ms", (json_int_t)exchange.duration_ms, "error",
                         json_text(exchange.status != PROBLEM_NONE ? exchange.problem.detail : NULL)),
                    problem));
    if (exchange.status != PROBLEM_NONE) {
        *problem = exchange.problem;
        st = exchange.status;
        goto done;
    }
    text = reply_clean(reply_text(&exchange.reply), true);
    response_json(response, 200,
                  JSON("{s:o, s:o, s:I, s:o}", "endpoint", json_text(endpoint.shown), "model",
                       json_text(exchange.reply.model[0] != '\0' ? exchange.reply.model : endpoint.model),
                       "duration_ms", (json_int_t)exchange.duration_ms, "text", json_text(text)));
done:
    free(text);
    reply_free(&exchange.reply);
    endpoint_free(&endpoint);
    return st;
}

/* ---- Directions ---- */

static json_t *describe_directions(const json_t *texts) {
    json_t *list = JSON("[]");
    for (enum direction i = 0; i < N_DIRECTIONS; i++) {
        const char *text = json_get_text(texts, direction_name(i));
        json_add(list, JSON("{s:s, s:s, s:o, s:s, s:b}", "name", direction_name(i), "title", direction_title(i),
                            "instruction", json_text(text != NULL ? text : direction_instruction(i)), "default",
                            direction_instruction(i), "is_changed", text != NULL));
    }
    return JSON("{s:o}", "directions", list);
}

static enum problem_code get_directions(struct studio *studio, struct request *request, struct response *response,
                                        struct problem *problem) {
    json_t *texts = NULL;
    (void)request;
    struct db *db = store_read(studio->store);
    const enum problem_code st = enrichments_read_directions(db, &texts, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        response_json(response, 200, describe_directions(texts));
    }
    json_decref(texts);
    return st;
}

/* {NAME: text, or null for the text in the program}; what is not named stays as it is. */
static enum problem_code put_directions(struct studio *studio, struct request *request, struct response *response,
                                        struct problem *problem) {
    json_t *body = NULL, *texts = NULL, *value;
    const char *name;
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(directions_check(request_json(request), NULL, true, problem));
    body = json_need(json_deep_copy(request_json(request)));
    TRY(store_begin(studio->store, &db, problem));
    TRY(enrichments_read_directions(db, &texts, problem));
    json_object_foreach(body, name, value) {
        if (json_is_null(value)) {
            (void)json_object_del(texts, name);
        } else {
            json_put(texts, name, json_incref(value));
        }
    }
    TRY(enrichments_write_directions(db, texts, problem));
    TRY(audit_append(db, request_actor(request), "setting.changed", "enrich.directions", json_incref(body), problem));
    TRY(store_commit(studio->store, &db, problem));
    response_json(response, 200, describe_directions(texts));
done:
    store_rollback(studio->store, &db);
    json_decref(texts);
    json_decref(body);
    return st;
}

/* ---- What was enriched ---- */

static const char *owner_filter(const struct request *request) {
    return request_is_admin(request) ? NULL : request_caller(request)->user_id;
}

static enum problem_code list_enrichments(struct studio *studio, struct request *request, struct response *response,
                                          struct problem *problem) {
    struct {
        int64_t limit;
        const char *before;
    } fields = { 50, NULL };
    static const struct json_row rows[] = {
        { "limit", JSON_ROW_INT, 0, 1, 200, NULL, 0 },
        { "before", JSON_ROW_ID, sizeof(int64_t), 0, 0, NULL, 0 },
    };
    json_t *list = NULL;
    enum problem_code st = PROBLEM_NONE;
    struct db *db = NULL;
    TRY(request_read_query(request, rows, 2, &fields, problem));
    db = store_read(studio->store);
    TRY(enrichments_list(db, owner_filter(request), fields.before, fields.limit, &list, problem));
    const size_t n = json_array_size(list);
    const char *last = n == (size_t)fields.limit ? json_get_text(json_array_get(list, n - 1), "id") : NULL;
    response_json(response, 200, JSON("{s:O, s:o}", "enrichments", list, "next", json_text(last)));
done:
    store_read_done(studio->store, db);
    json_decref(list);
    return st;
}

static enum problem_code get_enrichment(struct studio *studio, struct request *request, struct response *response,
                                        struct problem *problem) {
    const char *id = request_parameter(request, "id");
    json_t *enrichment = NULL;
    struct db *db = store_read(studio->store);
    enum problem_code st = PROBLEM_NONE;
    if (id_is_valid(id)) {
        TRY(enrichments_get(db, owner_filter(request), id, &enrichment, problem));
    }
    if (enrichment == NULL) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no enrichment of this id");
        goto done;
    }
    response_json(response, 200, json_incref(enrichment));
done:
    store_read_done(studio->store, db);
    json_decref(enrichment);
    return st;
}

static const struct route routes[] = {
    { "GET", "/api/v1/enrich", ACCESS_READ, BODY_NONE, 0, get_enrich },
    { "POST", "/api/v1/enrich", ACCESS_GENERATE, BODY_JSON, ROUTE_SLOW, post_enrich },
    { "POST", "/api/v1/enrich/test", ACCESS_ADMIN, BODY_JSON, ROUTE_SLOW, post_test },
    { "GET", "/api/v1/enrich/directions", ACCESS_READ, BODY_NONE, 0, get_directions },
    { "PUT", "/api/v1/enrich/directions", ACCESS_ADMIN, BODY_JSON, 0, put_directions },
    { "GET", "/api/v1/enrichments", ACCESS_READ, BODY_NONE, 0, list_enrichments },
    { "GET", "/api/v1/enrichments/{id}", ACCESS_READ, BODY_NONE, 0, get_enrichment },
};

const struct route_table enrich_routes = { routes, sizeof routes / sizeof routes[0] };
