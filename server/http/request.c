/* Requests: what routes read of them (see http.h), their making and their end. */
#include "http/http_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct request *request_create(struct http *http, const char *target) {
    struct request *request = text_alloc(1, sizeof *request);
    request->http = http;
    request->n_references = 1;
    request->target = text_copy(target);
    request->started_us = clock_monotonic_us();
    request->response = (struct response){ .request = request, .status = 204, .fd = -1 };
    (void)pthread_mutex_init(&request->mutex, NULL);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&request->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    return request;
}

struct request *request_ref(struct request *request) {
    (void)pthread_mutex_lock(&request->mutex);
    request->n_references++;
    (void)pthread_mutex_unlock(&request->mutex);
    return request;
}

static void request_free(struct request *request) {
    response_clear(&request->response);
    for (size_t i = 0; i < request->response.n_headers; i++) {
        free(request->response.headers[i].name);
        free(request->response.headers[i].value);
    }
    body_free(request);
    json_decref(request->objects);
    path_free(&request->path);
    query_free(&request->query);
    free(request->stream.bytes);
    free(request->target);
    free(request->header_text);
    free(request->parameter_text);
    free(request->base_url);
    free(request->origin);
    (void)pthread_cond_destroy(&request->changed);
    (void)pthread_mutex_destroy(&request->mutex);
    free(request);
}

void request_unref(struct request *request) {
    (void)pthread_mutex_lock(&request->mutex);
    const bool is_last = --request->n_references == 0;
    (void)pthread_mutex_unlock(&request->mutex);
    if (is_last) {
        request_free(request);
    }
}

void request_suspend(struct request *request) {
    MHD_suspend_connection(request->link);
    request->is_suspended = true;
}

void request_resume(struct request *request) {
    if (request->is_suspended) {
        request->is_suspended = false;
        MHD_resume_connection(request->link);
    }
}

bool request_is_connected(const struct request *request) {
    if (request->is_gone) {
        return false;
    }
    struct pollfd poll_fd = { .fd = request->connection->fd, .events = POLLRDHUP };
    return poll(&poll_fd, 1, 0) <= 0 || (poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) == 0;
}

/* ---- Headers ---- */

struct copy {
    struct request *request;
    size_t n, n_bytes;
    char *text;
};

static enum MHD_Result measure(void *user, enum MHD_ValueKind kind, const char *name, const char *value) {
    struct copy *copy = user;
    (void)kind;
    copy->n++;
    copy->n_bytes += strlen(name) + (value != NULL ? strlen(value) : 0) + 2;
    return MHD_YES;
}

static const char *keep(struct copy *copy, const char *text) {
    const size_t n = strlen(text) + 1;
    char *kept = memcpy(copy->text, text, n);
    copy->text += n;
    return kept;
}

static enum MHD_Result take(void *user, enum MHD_ValueKind kind, const char *name, const char *value) {
    struct copy *copy = user;
    struct pair *header = &copy->request->headers[copy->request->n_headers++];
    (void)kind;
    header->name = keep(copy, name);
    header->value = keep(copy, value != NULL ? value : "");
    return MHD_YES;
}

/* The library's own texts end with the connection, which a task may outlive. */
enum problem_code request_copy_headers(struct request *request, struct problem *problem) {
    struct copy copy = { .request = request };
    (void)MHD_get_connection_values(request->link, MHD_HEADER_KIND, measure, &copy);
    if (copy.n > MAX_HEADERS || copy.n_bytes > MAX_HEAD_BYTES) {
        return problem_set(problem, PROBLEM_HEADERS, NULL,
                           "the head has %zu lines and %zu bytes, and at most %d and %d are accepted", copy.n,
                           copy.n_bytes, MAX_HEADERS, MAX_HEAD_BYTES);
    }
    copy.text = request->header_text = text_alloc(copy.n_bytes + 1, 1);
    (void)MHD_get_connection_values(request->link, MHD_HEADER_KIND, take, &copy);
    return PROBLEM_NONE;
}

const char *request_header(const struct request *request, const char *name) {
    for (size_t i = 0; i < request->n_headers; i++) {
        if (strcasecmp(request->headers[i].name, name) == 0) {
            return request->headers[i].value;
        }
    }
    return NULL;
}

bool request_type_is(const struct request *request, const char *type) {
    const char *header = request_header(request, "Content-Type");
    const size_t n = strlen(type);
    return header != NULL && strncasecmp(header, type, n) == 0 && strchr("; \t", header[n]) != NULL;
}

/* ---- What routes ask ---- */

const char *request_method(const struct request *request) {
    return request->method;
}

const char *request_path(const struct request *request) {
    return request->route_path;
}

const char *request_parameter(const struct request *request, const char *name) {
    for (size_t i = 0; i < request->n_parameters; i++) {
        if (strcmp(request->parameters[i].name, name) == 0) {
            return request->parameters[i].value;
        }
    }
    return "";
}

const char *request_query(const struct request *request, const char *name) {
    for (size_t i = 0; i < request->query.n; i++) {
        if (strcmp(request->query.pairs[i].name, name) == 0) {
            return request->query.pairs[i].value;
        }
    }
    return NULL;
}

const char *request_address(const struct request *request) {
    return request->address;
}

const char *request_base_url(const struct request *request) {
    return request->base_url;
}

const struct caller *request_caller(const struct request *request) {
    return &request->caller;
}

bool request_is_admin(const struct request *request) {
    return request->caller.role == ROLE_ADMIN && (request->caller.access & ACCESS_ADMIN) != 0;
}

const struct actor *request_actor(const struct request *request) {
    return &request->actor;
}

const json_t *request_json(const struct request *request) {
    return request->json;
}

const void *request_body(const struct request *request, size_t *ret_n) {
    *ret_n = request->body_n;
    return request->body;
}

const struct form_part *request_parts(const struct request *request, size_t *ret_n) {
    *ret_n = request->n_parts;
    return request->parts;
}

/* ---- The query by rows ---- */

/* As JSON would have it; what does not read as the row's kind stays a text, which the row then refuses by name. */
static json_t *value_of(enum json_row_kind kind, const char *text) {
    char *end = NULL;
    errno = 0;
    if (kind == JSON_ROW_BOOL) {
        const bool is_true = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
        if (is_true || strcmp(text, "false") == 0 || strcmp(text, "0") == 0) {
            return json_boolean(is_true);
        }
    } else if (kind == JSON_ROW_INT && text[text[0] == '-'] != '\0' &&
               text[(text[0] == '-') + strspn(text + (text[0] == '-'), "0123456789")] == '\0') {
        const long long whole = strtoll(text, NULL, 10);
        if (errno == 0) {
            return json_integer(whole);
        }
    } else if (kind == JSON_ROW_NUMBER && text[0] != '\0' && text[strspn(text, "+-.0123456789eE")] == '\0') {
        const double number = strtod(text, &end);
        if (errno == 0 && *end == '\0') {
            return json_real(number);
        }
    }
    return json_text(text);
}

static enum problem_code put_pair(json_t *object, const char *name, const char *text, const struct json_row *rows,
                                  size_t n_rows, struct problem *problem) {
    enum json_row_kind kind = JSON_ROW_TEXT;
    for (size_t row = 0; row < n_rows; row++) {
        kind = strcmp(rows[row].name, name) == 0 ? rows[row].kind : kind;
    }
    if (json_object_get(object, name) != NULL) {
        return problem_set(problem, PROBLEM_INVALID, name, "\"%.60s\" is given twice", name);
    }
    json_put(object, name, value_of(kind, text));
    return PROBLEM_NONE;
}

/* An object that lives as long as the request: texts are borrowed from it. */
static json_t *make_object(const struct request *request) {
    struct request *owner = request->response.request; /* itself */
    json_t *object = JSON("{}");
    if (owner->objects == NULL) {
        owner->objects = JSON("[]");
    }
    json_add(owner->objects, object);
    return object;
}

enum problem_code request_read_query(const struct request *request, const struct json_row *rows, size_t n_rows,
                                     void *fields, struct problem *problem) {
    json_t *object = make_object(request);
    for (size_t i = 0; i < request->query.n; i++) {
        const enum problem_code st =
            put_pair(object, request->query.pairs[i].name, request->query.pairs[i].value, rows, n_rows, problem);
        if (st != PROBLEM_NONE) {
            return st;
        }
    }
    return json_read(object, rows, n_rows, fields, problem);
}

enum problem_code request_form_object(const struct request *request, const struct json_row *rows, size_t n_rows,
                                      const json_t **ret_object, struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    if (request->json != NULL) {
        *ret_object = request->json;
        return PROBLEM_NONE;
    }
    json_t *object = make_object(request);
    for (size_t i = 0; i < request->n_parts && st == PROBLEM_NONE; i++) {
        const struct form_part *part = &request->parts[i];
        if (part->file_name == NULL && strlen(part->data) != part->n) {
            st = problem_set(problem, PROBLEM_INVALID, part->name, "\"%.60s\" holds a zero byte", part->name);
        } else if (part->file_name == NULL) {
            st = put_pair(object, part->name, part->data, rows, n_rows, problem);
        }
    }
    *ret_object = object;
    return st;
}
