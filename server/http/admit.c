/* admit: from the head alone, may a request go on? Framing, name, path, route, caller, right, rate, and what the body
 * announces; in that order, so that nothing is asked of the database for what nobody answers to. */
#include "http/http_internal.h"

#include <stdlib.h>
#include <string.h>

/* Takes the target apart: what lies below the base path is ours. A proxy may have cut the base path off already. */
static enum problem_code read_target(struct request *request, struct problem *problem) {
    const struct http *http = request->http;
    const size_t n_base = strlen(http->base_path);
    char *question = strchr(request->target, '?');
    const char *query = question != NULL ? question + 1 : "";
    enum problem_code st = PROBLEM_NONE;
    if (question != NULL) {
        *question = '\0';
    }
    const char *path = request->target;
    const char *prefix =
        http_is_trusted(http, &request->connection->address) ? request_header(request, "X-Forwarded-Prefix") : NULL;
    if (n_base > 0 && strncmp(path, http->base_path, n_base) == 0 && path[n_base] == '/') {
        path += n_base;
    } else if (n_base > 0 && (prefix == NULL || strcmp(prefix, http->base_path) != 0)) {
        return problem_set(problem, PROBLEM_NOT_FOUND, NULL, "the studio lies below %s/", http->base_path);
    }
    TRY(path_read(path, strlen(path), &request->path, problem));
    request->route_path = path;
    TRY(query_read(query, &request->query, problem));
done:
    return st;
}

/* "/studio": links of the page are relative to "/studio/". */
static bool is_base_without_slash(const struct request *request) {
    const char *base = request->http->base_path;
    return base[0] != '\0' && strcmp(request->target, base) == 0;
}

static void answer_moved(struct request *request) {
    char *to = text_format("%s/", request->http->base_path);
    response_bytes(&request->response, 308, "text/plain; charset=utf-8", "", 0);
    response_header(&request->response, "Location", to);
    free(to);
}

static bool has_right(const struct request *request) {
    const unsigned needed = request->route->access;
    return (request->caller.access & needed) == needed;
}

static enum problem_code check_caller(struct request *request, struct problem *problem) {
    const struct http_options *options = &request->http->options;
    const char *cookie = request_header(request, "Cookie"), *authorization = request_header(request, "Authorization");
    enum problem_code st = PROBLEM_NONE;
    struct problem found = { 0 };
    if (options->identify != NULL) {
        st = options->identify(options->studio, cookie, authorization, request->address, &request->caller, &found);
    }
    if (st == PROBLEM_UNAUTHENTICATED &&
        request->route->access == ACCESS_ANYBODY) { /* an old cookie may sign in again */
        request->caller = (struct caller){ 0 };
        st = PROBLEM_NONE;
    }
    if (st != PROBLEM_NONE) {
        *problem = found;
        return problem_set(problem, st, NULL, "%s", problem_title(st));
    }
    request->actor = (struct actor){ request->caller.name[0] != '\0' ? request->caller.name : NULL,
                                     request->caller.user_id[0] != '\0' ? request->caller.user_id : NULL,
                                     request->address, request_header(request, "User-Agent") };
    TRY(check_forgery(request, problem));
    if (!has_right(request)) {
        return request->caller.role == ROLE_NONE
                   ? problem_set(problem, PROBLEM_UNAUTHENTICATED, NULL, "sign in, or send a token, to do this")
                   : problem_set(problem, PROBLEM_FORBIDDEN, NULL, "this account or token may not do this");
    }
    if (options->count != NULL && (request->route->flags & ROUTE_UNCOUNTED) == 0) {
        TRY(options->count(options->studio, &request->caller, request->address, problem));
    }
done:
    return st;
}

/* OPTIONS: what may be done here; and for pages of configured origins, what they may send. */
static void answer_options(struct request *request, const char *allow) {
    struct response *response = &request->response;
    response_empty(response);
    response_header(response, "Allow", allow);
    if (request->cors_origin != NULL && request_header(request, "Access-Control-Request-Method") != NULL) {
        response_header(response, "Access-Control-Allow-Methods", allow);
        response_header(response, "Access-Control-Allow-Headers",
                        "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Range, "
                        "X-CyberImage");
        response_header(response, "Access-Control-Max-Age", "600");
    }
}

enum problem_code request_admit(struct request *request, const char *method, const char *version,
                                struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    char allow[128] = "";
    (void)snprintf(request->method, sizeof request->method, "%.15s", method);
    request->is_head = strcmp(method, "HEAD") == 0;
    TRY(request_copy_headers(request, problem));
    TRY(check_framing(request, version, problem));
    TRY(check_host(request, problem));
    check_origin(request);
    if (atomic_load(&request->http->is_stopping)) {
        return problem_set(problem, PROBLEM_UNAVAILABLE, NULL, "the studio is stopping");
    }
    if (is_base_without_slash(request)) {
        answer_moved(request);
        goto done;
    }
    TRY(read_target(request, problem));
    st = route_find(request, allow, problem);
    if (st == PROBLEM_METHOD) {
        response_header(&request->response, "Allow", allow);
    }
    TRY(st);
    if (request->route == NULL) {
        answer_options(request, allow);
        goto done;
    }
    TRY(check_caller(request, problem));
    TRY(body_check(request, problem));
done:
    return st;
}
