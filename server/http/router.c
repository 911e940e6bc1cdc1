/* router: which route a path means. Of several that match, the one with the most literal segments counts, so that
 * "/jobs/stop" goes before "/jobs/{id}". */
#include "http/http_internal.h"

#include <stdlib.h>
#include <string.h>

/* Parameters of one match; values point into text. */
struct match {
    struct pair parameters[MAX_PARAMETERS];
    size_t n;
    char *text, *end; /* room for the values, and what is used of it */
    int n_literal;
};

static const char *keep(struct match *match, const char *text, size_t n) {
    char *kept = memcpy(match->end, text, n);
    kept[n] = '\0';
    match->end += n + 1;
    return kept;
}

/* One segment against its pattern of n bytes: "jobs", "{id}", "{id}.{ending}", "{id}.png". A name takes all up to the
 * last place where the literal after it occurs. */
static bool match_segment(struct match *match, const char *pattern, size_t n, const char *text) {
    const char *end = pattern + n;
    while (pattern < end && *pattern != '{') {
        if (*pattern++ != *text++) {
            return false;
        }
    }
    if (pattern == end) {
        return *text == '\0';
    }
    const char *close = memchr(pattern, '}', (size_t)(end - pattern));
    const size_t n_left = strlen(text);
    if (close == NULL || match->n == MAX_PARAMETERS) {
        return false;
    }
    const char *literal = close + 1;
    const char *brace = memchr(literal, '{', (size_t)(end - literal));
    const size_t n_literal = (size_t)((brace != NULL ? brace : end) - literal);
    for (size_t length = n_left; length > 0; length--) {
        const bool fits =
            n_literal == 0 || (length + n_literal <= n_left && memcmp(text + length, literal, n_literal) == 0);
        const struct match before = *match;
        if (!fits) {
            continue;
        }
        match->parameters[match->n].name = keep(match, pattern + 1, (size_t)(close - pattern) - 1);
        match->parameters[match->n++].value = keep(match, text, length);
        if (match_segment(match, literal, (size_t)(end - literal), text + length)) {
            return true;
        }
        *match = before;
    }
    return false;
}

static bool match_route(const struct route *route, const struct path *path, struct match *match) {
    const char *pattern = route->path + 1;
    match->n = 0;
    match->end = match->text;
    match->n_literal = 0;
    for (size_t i = 0; i < path->n; i++) {
        const size_t n = strcspn(pattern, "/");
        const bool is_literal = memchr(pattern, '{', n) == NULL;
        if (n == 0 || (is_literal && path->was_encoded[i]) || !match_segment(match, pattern, n, path->segments[i])) {
            return false;
        }
        match->n_literal += is_literal;
        pattern += n;
        if (*pattern == '/') {
            pattern++;
        } else if (i + 1 < path->n) {
            return false;
        }
    }
    return *pattern == '\0';
}

static void add_method(char allow[128], const char *method) {
    const size_t n = strlen(allow);
    if (strstr(allow, method) == NULL) {
        (void)snprintf(allow + n, 128 - n, "%s%s", n > 0 ? ", " : "", method);
    }
}

/* The route's names and values take no more than the path and the pattern do. */
static size_t room_for(const struct request *request) {
    return strlen(request->target) + PATH_MAX_BYTES;
}

enum problem_code route_find(struct request *request, char allow[128], struct problem *problem) {
    const struct http_options *options = &request->http->options;
    const char *method = request->is_head ? "GET" : request->method;
    struct match best = { .text = NULL, .n_literal = -1 }, match = { .text = text_alloc(room_for(request), 1) };
    allow[0] = '\0';
    for (size_t i = 0; i < options->n_tables; i++) {
        for (size_t k = 0; k < options->tables[i].n; k++) {
            const struct route *route = &options->tables[i].routes[k];
            if (!match_route(route, &request->path, &match)) {
                continue;
            }
            add_method(allow, route->method);
            if (strcmp(route->method, "GET") == 0) {
                add_method(allow, "HEAD");
            }
            if (strcmp(route->method, method) == 0 && match.n_literal > best.n_literal) {
                free(best.text);
                best = match;
                request->route = route;
                match = (struct match){ .text = text_alloc(room_for(request), 1) };
            }
        }
    }
    free(match.text);
    request->parameter_text = best.text;
    request->n_parameters = best.n;
    memcpy(request->parameters, best.parameters, sizeof best.parameters);
    if (allow[0] == '\0') {
        return problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is nothing at this address");
    }
    add_method(allow, "OPTIONS");
    return request->route != NULL || strcmp(request->method, "OPTIONS") == 0
               ? PROBLEM_NONE
               : problem_set(problem, PROBLEM_METHOD, NULL, "%.15s is not supported here, only %s", request->method,
                             allow);
}
