/* Answers: what routes say (see http.h), problem documents, the headers that every answer has, and handing it to the
 * library. */
#include "http/http_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const char page_policy[] =
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";
static const char file_policy[] = "default-src 'none'; frame-ancestors 'none'; sandbox";

static const struct pair usual_headers[] = {
    { "X-Content-Type-Options", "nosniff" },
    { "Referrer-Policy", "no-referrer" },
    { "Cross-Origin-Opener-Policy", "same-origin" },
    { "Cross-Origin-Resource-Policy", "same-origin" },
    { "X-Frame-Options", "DENY" },
    { "Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()" },
};

void response_clear(struct response *response) {
    if (response->fd >= 0) {
        (void)close(response->fd);
    }
    free(response->type);
    free(response->data);
    response->type = NULL;
    response->data = NULL;
    response->n = 0;
    response->fd = -1;
    response->offset = 0;
    response->is_file = false;
    response->kind = ANSWER_BYTES;
}

static void set_bytes(struct response *response, int status, const char *type, void *data, size_t n) {
    response_clear(response);
    response->status = status;
    response->type = text_copy(type);
    response->data = data;
    response->n = n;
}

void response_json(struct response *response, int status, json_t *value) {
    char *text = json_text_of(value);
    json_decref(value);
    set_bytes(response, status, "application/json", text, strlen(text));
}

void response_empty(struct response *response) {
    set_bytes(response, 204, NULL, NULL, 0);
}

void response_bytes(struct response *response, int status, const char *type, const void *data, size_t n) {
    void *copy = text_alloc(n + 1, 1);
    if (n > 0) {
        memcpy(copy, data, n);
    }
    set_bytes(response, status, type, copy, n);
}

/* Control characters would end the line: they become blanks. Cookies may be set several at a time, all else replaces. */
void response_header(struct response *response, const char *name, const char *value) {
    size_t i = 0;
    while (i < response->n_headers &&
           (strcasecmp(name, "Set-Cookie") == 0 || strcasecmp(response->headers[i].name, name) != 0)) {
        i++;
    }
    if (i == MAX_ANSWER_HEADERS) {
        log_event(LOG_ERROR, "http.header_lost", JSON("{s:s}", "name", name));
        return;
    }
    char *copy = text_copy(value);
    for (char *c = copy; *c != '\0'; c++) {
        *c = (unsigned char)*c < ' ' || *c == 0x7F ? ' ' : *c;
    }
    if (i < response->n_headers) {
        free(response->headers[i].value);
    } else {
        response->headers[response->n_headers++].name = text_copy(name);
    }
    response->headers[i].value = copy;
}

bool response_is_unchanged(const struct request *request, struct response *response, const char *etag) {
    char *quoted = text_format("\"%s\"", etag);
    const char *wanted = request_header(request, "If-None-Match");
    const bool is_unchanged = wanted != NULL && condition_has_etag(wanted, quoted);
    response_header(response, "ETag", quoted);
    response_header(response, "Cache-Control", "private, no-cache");
    if (is_unchanged) {
        set_bytes(response, 304, NULL, NULL, 0);
    }
    free(quoted);
    return is_unchanged;
}

void response_events(struct response *response, struct events *events, uint64_t after, const char *viewer_id,
                     bool sees_all) {
    response_clear(response);
    response->status = 200;
    response->kind = ANSWER_EVENTS;
    response->type = text_copy("text/event-stream; charset=utf-8");
    response->events = events;
    response->after = after;
    response->sees_all = sees_all;
    (void)snprintf(response->viewer_id, sizeof response->viewer_id, "%s", viewer_id != NULL ? viewer_id : "");
}

/* ---- Problems ---- */

static void write_problem(struct request *request) {
    const struct problem *problem = &request->problem;
    struct response *response = &request->response;
    json_t *(*foreign)(const char *, const struct problem *) = request->http->options.foreign_problem;
    json_t *document = foreign != NULL && request->route_path != NULL ? foreign(request->route_path, problem) : NULL;
    const bool is_ours = document == NULL;
    char seconds[16];
    if (is_ours) {
        char *type = text_format("urn:cyberimage:problem:%s", problem_name(problem->code));
        document = JSON("{s:s, s:s, s:i, s:s, s:o}", "type", type, "title", problem_title(problem->code), "status",
                        problem_status(problem->code), "code", problem_name(problem->code), "detail",
                        json_text(problem->detail));
        if (problem->field[0] != '\0') {
            json_put(document, "field", json_text(problem->field));
        }
        free(type);
    }
    response_json(response, problem_status(problem->code), document);
    if (is_ours) {
        free(response->type);
        response->type = text_copy("application/problem+json");
    }
    if (problem->retry_after_seconds > 0) {
        (void)snprintf(seconds, sizeof seconds, "%d", problem->retry_after_seconds);
        response_header(response, "Retry-After", seconds);
    }
    if (problem->code == PROBLEM_UNAUTHENTICATED) {
        response_header(response, "WWW-Authenticate", "Bearer realm=\"cyberimage\"");
    }
}

/* ---- Sending ---- */

static bool has_header(const struct response *response, const char *name) {
    for (size_t i = 0; i < response->n_headers; i++) {
        if (strcasecmp(response->headers[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void add_usual(struct MHD_Response *out, const struct response *response, const char *name, const char *value) {
    if (!has_header(response, name)) {
        (void)MHD_add_response_header(out, name, value);
    }
}

static void add_headers(struct MHD_Response *out, const struct request *request) {
    const struct response *response = &request->response;
    const struct http *http = request->http;
    for (size_t i = 0; i < response->n_headers; i++) {
        (void)MHD_add_response_header(out, response->headers[i].name, response->headers[i].value);
    }
    for (size_t i = 0; i < sizeof usual_headers / sizeof usual_headers[0]; i++) {
        add_usual(out, response, usual_headers[i].name, usual_headers[i].value);
    }
    add_usual(out, response, "Content-Security-Policy", response->is_file ? file_policy : page_policy);
    add_usual(out, response, "Cache-Control", "no-store");
    if (request->is_secure) {
        add_usual(out, response, "Strict-Transport-Security", "max-age=31536000");
    }
    if (response->type != NULL) {
        add_usual(out, response, "Content-Type", response->type);
    }
    if (http->has_cors) {
        add_usual(out, response, "Vary", "Origin");
    }
    if (request->cors_origin != NULL) {
        add_usual(out, response, "Access-Control-Allow-Origin", request->cors_origin);
        add_usual(out, response, "Access-Control-Expose-Headers",
                  "Content-Disposition, ETag, Link, Location, Retry-After");
    }
    if (atomic_load(&http->is_stopping)) {
        add_usual(out, response, "Connection", "close");
    }
}

static struct MHD_Response *make_response(struct request *request) {
    struct response *response = &request->response;
    struct MHD_Response *out = NULL;
    switch (response->kind) {
    case ANSWER_FILE:
        out = MHD_create_response_from_fd_at_offset64(response->n, response->fd, response->offset);
        response->fd = out != NULL ? -1 : response->fd;
        return out;
    case ANSWER_STREAM:
        return stream_response(request);
    case ANSWER_EVENTS:
        return watcher_response(request);
    default:
        out = MHD_create_response_from_buffer(response->n, response->data,
                                              response->data != NULL ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
        response->data = out != NULL ? NULL : response->data;
        return out;
    }
}

/* One line for the operator: of what went wrong here always, of the rest when asked for. Never the query: it may hold
 * a secret. */
static void log_answer(const struct request *request, int64_t us) {
    const int status = request->response.status;
    json_t *fields = JSON("{s:s, s:o, s:i, s:f, s:s}", "method", request->method, "path",
                          json_text(request->route_path != NULL ? request->route_path : "?"), "status", status, "ms",
                          (double)us / 1000.0, "address", request->address);
    if (request->status != PROBLEM_NONE) {
        json_put(fields, "detail", json_text(request->problem.detail));
    }
    log_event(status == 500 ? LOG_ERROR : LOG_DEBUG, "http.answer", fields);
}

enum MHD_Result answer_send(struct request *request) {
    struct http *http = request->http;
    struct response *response = &request->response;
    if (request->status != PROBLEM_NONE) {
        write_problem(request);
    }
    struct MHD_Response *out = make_response(request);
    if (out == NULL) {
        return MHD_NO;
    }
    add_headers(out, request);
    request->stage = STAGE_ANSWERED;
    const enum MHD_Result result = MHD_queue_response(request->link, (unsigned)response->status, out);
    MHD_destroy_response(out);
    const int64_t us = clock_monotonic_us() - request->started_us;
    (void)atomic_fetch_add(&http->n_by_class[response->status / 100 % 6], 1);
    (void)atomic_fetch_add(&http->busy_us, (unsigned long long)us);
    log_answer(request, us);
    if (response->kind != ANSWER_STREAM) { /* whose route is still running */
        body_free(request);
    }
    return result;
}
