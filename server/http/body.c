/* body: what a request carries, within its limits. A body is refused by its head where that is possible, so that nobody
 * sends in vain; what is found out only while it comes is told when it has come. */
#include "http/http_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SLACK_BYTES ((size_t)1024 * 1024) /* of a body too large that is read to its end, so that the answer arrives */
#define N_BODIES_AT_ONCE 4                /* bodies of the largest size that may be held together */

static bool is_json(const struct request *request) {
    return request_type_is(request, "application/json");
}

static bool is_form(const struct request *request) {
    return request_type_is(request, "multipart/form-data");
}

static enum problem_code check_type(const struct request *request, struct problem *problem) {
    const char *type = request_header(request, "Content-Type");
    const struct route *route = request->route;
    switch (route->body) {
    case BODY_NONE:
        return problem_set(problem, PROBLEM_MALFORMED, NULL, "no body is expected here");
    case BODY_JSON:
        return is_json(request) || (route->flags & ROUTE_SIMPLE) != 0
                   ? PROBLEM_NONE
                   : problem_set(problem, PROBLEM_MEDIA_TYPE, NULL, "the body must be application/json, not %.100s",
                                 type != NULL ? type : "of an unknown type");
    case BODY_FORM:
        return is_json(request) || is_form(request) || (route->flags & ROUTE_SIMPLE) != 0
                   ? PROBLEM_NONE
                   : problem_set(problem, PROBLEM_MEDIA_TYPE, NULL,
                                 "the body must be multipart/form-data or application/json, not %.100s",
                                 type != NULL ? type : "of an unknown type");
    default:
        return PROBLEM_NONE;
    }
}

static size_t limit_of(const struct request *request) {
    const struct route *route = request->route;
    size_t limit = request->http->max_body;
    if (route->body == BODY_JSON && (route->flags & ROUTE_SIMPLE) == 0 && limit > MAX_JSON_BYTES) {
        limit = MAX_JSON_BYTES;
    }
    return route->access == ACCESS_ANYBODY && limit > MAX_ANYBODY_BYTES ? MAX_ANYBODY_BYTES : limit;
}

static enum problem_code too_large(const struct request *request, struct problem *problem) {
    return problem_set(problem, PROBLEM_TOO_LARGE, NULL, "the body has more than the %zu bytes that are accepted here",
                       request->body_max);
}

enum problem_code body_check(struct request *request, struct problem *problem) {
    const char *length = request_header(request, "Content-Length");
    const char *encoding = request_header(request, "Content-Encoding");
    const unsigned long long n = length != NULL ? strtoull(length, NULL, 10) : 0;
    const bool has_body = n > 0 || request_header(request, "Transfer-Encoding") != NULL;
    request->body_max = limit_of(request);
    if (encoding != NULL && strcasecmp(encoding, "identity") != 0) {
        return problem_set(problem, PROBLEM_MEDIA_TYPE, NULL, "bodies in the encoding %.60s are not read", encoding);
    }
    if (!has_body) {
        return PROBLEM_NONE;
    }
    const enum problem_code st = check_type(request, problem);
    return st == PROBLEM_NONE && n > request->body_max ? too_large(request, problem) : st;
}

/* Takes more of the memory that all bodies share. */
static bool reserve(struct http *http, size_t n) {
    const size_t before = atomic_fetch_add(&http->body_bytes, n);
    if (before + n > http->max_body * N_BODIES_AT_ONCE) {
        (void)atomic_fetch_sub(&http->body_bytes, n);
        return false;
    }
    return true;
}

void body_free(struct request *request) {
    (void)atomic_fetch_sub(&request->http->body_bytes, request->body_capacity);
    free(request->body);
    free(request->parts);
    json_decref(request->json);
    request->body = NULL;
    request->parts = NULL;
    request->json = NULL;
    request->body_n = request->body_capacity = request->n_parts = 0;
}

bool body_add(struct request *request, const void *data, size_t n) {
    struct http *http = request->http;
    const size_t total = request->body_n + n;
    if (request->body_fault == PROBLEM_NONE && total > request->body_max) {
        body_free(request);
        request->body_fault = PROBLEM_TOO_LARGE;
    }
    if (request->body_fault == PROBLEM_NONE && total + 1 > request->body_capacity) {
        size_t capacity = request->body_capacity * 2 > 4096 ? request->body_capacity * 2 : 4096;
        capacity = capacity < total + 1               ? total + 1
                   : capacity > request->body_max + 1 ? request->body_max + 1
                                                      : capacity;
        if (reserve(http, capacity - request->body_capacity)) {
            request->body = text_resize(request->body, capacity, 1);
            request->body_capacity = capacity;
        } else {
            body_free(request);
            request->body_fault = PROBLEM_UNAVAILABLE;
        }
    }
    if (request->body_fault != PROBLEM_NONE) {
        request->body_n += n;
        return request->body_n <= request->body_max + SLACK_BYTES;
    }
    memcpy(request->body + request->body_n, data, n);
    request->body_n = total;
    request->body[total] = '\0';
    return true;
}

enum problem_code body_finish(struct request *request, struct problem *problem) {
    if (request->body_fault == PROBLEM_TOO_LARGE) {
        return too_large(request, problem);
    }
    if (request->body_fault != PROBLEM_NONE) {
        problem->retry_after_seconds = 5;
        return problem_set(problem, request->body_fault, NULL, "too many large requests at the moment, try again soon");
    }
    if (request->body_n == 0) {
        return PROBLEM_NONE;
    }
    if (request->route->body == BODY_FORM && is_form(request)) {
        return form_data_parse(request_header(request, "Content-Type"), request->body, request->body_n, &request->parts,
                               &request->n_parts, problem);
    }
    return request->route->body == BODY_JSON || request->route->body == BODY_FORM
               ? json_parse(request->body, request->body_n, &request->json, problem)
               : PROBLEM_NONE;
}
