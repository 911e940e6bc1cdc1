/* http_probe: the HTTP part alone, with a few toy routes and hooks, for test_http.py. Settings come from the command line as
 * NAME=VALUE. Prints its URL on the first line; every line on standard input is a command: "publish OWNER TEXT",
 * "revoke" (watchers'
 * right ends), "metrics"; the end of the input stops it.
 *
 * Accounts: cookie "user=NAME" or "Authorization: Bearer NAME"; alice is an administrator, bob a user, eve a viewer,
 * "bad" is refused.
 * Route "counted" lets 5 requests pass. */
#include "base/clock.h"
#include "base/log.h"
#include "http/http.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct studio {
    struct events *events;
    const char *file;
    atomic_int n_counted, n_runs, n_ended_streams;
    atomic_bool is_revoked;
};

static enum problem_code say_hello(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    (void)problem;
    (void)atomic_fetch_add(&studio->n_runs, 1);
    size_t n = 0, n_parts = 0;
    const struct form_part *parts = request_parts(request, &n_parts);
    json_t *all = JSON("[]");
    for (size_t i = 0; i < n_parts; i++) {
        json_add(all, JSON("{s:o, s:o, s:o, s:I, s:o}", "name", json_text(parts[i].name), "file",
                           json_text(parts[i].file_name), "type", json_text(parts[i].type), "n", (json_int_t)parts[i].n,
                           "data", json_text(parts[i].data)));
    }
    (void)request_body(request, &n);
    const json_t *json = request_json(request);
    const char *q = request_query(request, "q");
    response_json(response, 200,
                  JSON("{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:I, s:o, s:o}", "method", request_method(request), "path",
                       request_path(request), "name", request_parameter(request, "name"), "ending",
                       request_parameter(request, "ending"), "address", request_address(request), "base",
                       request_base_url(request), "user", json_text(request_caller(request)->user_id), "n",
                       (json_int_t)n, "q", json_text(q), "parts", all));
    if (json != NULL) {
        char *text = json_text_of(json);
        response_header(response, "X-Json", strlen(text) < 1000 ? text : "long");
        free(text);
    }
    return PROBLEM_NONE;
}

static enum problem_code read_rows(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    struct {
        int64_t limit;
        double scale;
        bool flag;
        const char *text;
    } fields = { 50, 1.0, false, "" };
    static const struct json_row rows[] = {
        { "limit", JSON_ROW_INT, 0, 1, 100, NULL, 0 },
        { "scale", JSON_ROW_NUMBER, sizeof(int64_t), 0.0, 2.0, NULL, 0 },
        { "flag", JSON_ROW_BOOL, sizeof(int64_t) + sizeof(double), 0, 0, NULL, 0 },
        { "text", JSON_ROW_TEXT, sizeof(int64_t) + 2 * sizeof(double), 1, 10, NULL, 0 },
    };
    (void)studio;
    enum problem_code st = PROBLEM_NONE;
    TRY(request_read_query(request, rows, 4, &fields, problem));
    response_json(response, 200,
                  JSON("{s:I, s:f, s:b, s:s}", "limit", (json_int_t)fields.limit, "scale", fields.scale, "flag",
                       fields.flag, "text", fields.text));
done:
    return st;
}

static enum problem_code send_file(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    const int fd = open(studio->file, O_RDONLY | O_CLOEXEC);
    const char *name = request_query(request, "name");
    return response_file(response, fd, "image/png", "tag1", request_query(request, "immutable") != NULL, name, problem);
}

static enum problem_code fail(struct studio *studio, struct request *request, struct response *response,
                              struct problem *problem) {
    (void)studio;
    (void)response;
    problem->retry_after_seconds = 7;
    return problem_set(problem, PROBLEM_NO_SPACE, "seed", "no room for %s", request_path(request));
}

static enum problem_code fail_silently(struct studio *studio, struct request *request, struct response *response,
                                       struct problem *problem) {
    (void)studio;
    (void)request;
    (void)response;
    (void)problem;
    return PROBLEM_GONE;
}

/* Waits until the client goes or for ?ms. */
static enum problem_code wait_slowly(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    const char *ms = request_query(request, "ms");
    const int64_t until = clock_monotonic_us() + (ms != NULL ? strtol(ms, NULL, 10) : 100) * 1000;
    bool is_wanted = true;
    (void)problem;
    while (clock_monotonic_us() < until && (is_wanted = response_is_wanted(response))) {
        (void)usleep(10000);
    }
    if (!is_wanted) {
        (void)atomic_fetch_add(&studio->n_ended_streams, 1);
    }
    response_json(response, 200, JSON("{s:b}", "waited", 1));
    return PROBLEM_NONE;
}

/* ?n blocks of 64 KiB of letters; ?fail ends it before its end. */
static enum problem_code stream(struct studio *studio, struct request *request, struct response *response,
                                struct problem *problem) {
    static const size_t n_block = 65536;
    const char *count = request_query(request, "n");
    const long n = count != NULL ? strtol(count, NULL, 10) : 4;
    char *block = text_alloc(n_block, 1);
    enum problem_code st = PROBLEM_NONE;
    response_begin_stream(response, 200, "text/plain; charset=utf-8");
    for (long i = 0; i < n; i++) {
        memset(block, 'a' + (int)(i % 26), n_block);
        if (!response_write(response, block, n_block)) {
            (void)atomic_fetch_add(&studio->n_ended_streams, 1);
            break;
        }
    }
    if (request_query(request, "fail") != NULL) {
        st = problem_set(problem, PROBLEM_INTERNAL, NULL, "it broke");
    }
    free(block);
    return st;
}

static enum problem_code watch(struct studio *studio, struct request *request, struct response *response,
                               struct problem *problem) {
    const char *last = request_header(request, "Last-Event-ID");
    (void)problem;
    response_events(response, studio->events, last != NULL ? strtoull(last, NULL, 10) : events_last_id(studio->events),
                    request_caller(request)->user_id, request_is_admin(request));
    return PROBLEM_NONE;
}

static const struct route routes[] = {
    { "GET", "/", ACCESS_ANYBODY, BODY_NONE, 0, say_hello },
    { "GET", "/open", ACCESS_ANYBODY, BODY_NONE, ROUTE_UNCOUNTED, say_hello },
    { "POST", "/open", ACCESS_ANYBODY, BODY_JSON, 0, say_hello },
    { "GET", "/api/read", ACCESS_READ, BODY_NONE, 0, say_hello },
    { "GET", "/api/admin", ACCESS_READ | ACCESS_ADMIN, BODY_NONE, 0, say_hello },
    { "POST", "/api/items", ACCESS_GENERATE, BODY_JSON, 0, say_hello },
    { "PATCH", "/api/items/{name}", ACCESS_EDIT, BODY_JSON, 0, say_hello },
    { "DELETE", "/api/items/{name}", ACCESS_EDIT, BODY_NONE, 0, say_hello },
    { "GET", "/api/items/{name}", ACCESS_READ, BODY_NONE, 0, say_hello },
    { "GET", "/api/items/first", ACCESS_ANYBODY, BODY_NONE, 0, fail_silently },
    { "GET", "/images/{name}.{ending}", ACCESS_READ, BODY_NONE, 0, say_hello },
    { "POST", "/api/form", ACCESS_EDIT, BODY_FORM, 0, say_hello },
    { "PUT", "/api/bytes", ACCESS_EDIT, BODY_BYTES, 0, say_hello },
    { "POST", "/v1/simple", ACCESS_GENERATE, BODY_JSON, ROUTE_SIMPLE, say_hello },
    { "GET", "/rows", ACCESS_ANYBODY, BODY_NONE, 0, read_rows },
    { "GET", "/file", ACCESS_ANYBODY, BODY_NONE, ROUTE_UNCOUNTED, send_file },
    { "GET", "/fail", ACCESS_ANYBODY, BODY_NONE, 0, fail },
    { "GET", "/v1/fail", ACCESS_ANYBODY, BODY_NONE, 0, fail },
    { "GET", "/slow", ACCESS_ANYBODY, BODY_NONE, ROUTE_SLOW, wait_slowly },
    { "GET", "/slow/fail", ACCESS_ANYBODY, BODY_NONE, ROUTE_SLOW, fail },
    { "GET", "/stream", ACCESS_ANYBODY, BODY_NONE, ROUTE_SLOW, stream },
    { "GET", "/events", ACCESS_READ, BODY_NONE, 0, watch },
    { "GET", "/counted", ACCESS_ANYBODY, BODY_NONE, 0, say_hello },
};

static enum problem_code identify(struct studio *studio, const char *cookie, const char *authorization,
                                  const char *address, struct caller *ret_caller, struct problem *problem) {
    static const struct {
        const char *name;
        enum role role;
        unsigned access;
    } users[] = { { "alice", ROLE_ADMIN, 15 }, { "bob", ROLE_USER, 7 }, { "eve", ROLE_VIEWER, 1 } };
    const char *token = authorization != NULL && strncmp(authorization, "Bearer ", 7) == 0 ? authorization + 7 : NULL;
    const char *name = token != NULL ? token : cookie != NULL && strncmp(cookie, "user=", 5) == 0 ? cookie + 5 : NULL;
    (void)studio;
    (void)address;
    for (size_t i = 0; name != NULL && i < sizeof users / sizeof users[0]; i++) {
        if (strcmp(users[i].name, name) == 0) {
            struct caller caller = { .role = users[i].role, .access = users[i].access };
            (void)snprintf(caller.user_id, sizeof caller.user_id, "%s", name);
            (void)snprintf(caller.name, sizeof caller.name, "%s", name);
            (void)snprintf(token != NULL ? caller.token_id : caller.session_id, 40, "%s", name);
            *ret_caller = caller;
            return PROBLEM_NONE;
        }
    }
    return name != NULL || authorization != NULL
               ? problem_set(problem, PROBLEM_UNAUTHENTICATED, NULL, "this token or session does not hold")
               : PROBLEM_NONE;
}

static enum problem_code count(struct studio *studio, const struct caller *caller, const char *address,
                               struct problem *problem) {
    (void)caller;
    if (strcmp(address, "203.0.113.9") == 0 && atomic_fetch_add(&studio->n_counted, 1) >= 5) {
        problem->retry_after_seconds = 3;
        return problem_set(problem, PROBLEM_TOO_MANY, NULL, "more than 5 requests");
    }
    return PROBLEM_NONE;
}

static bool still_holds(struct studio *studio, const struct caller *caller) {
    return !atomic_load(&studio->is_revoked) || strcmp(caller->user_id, "bob") != 0;
}

static json_t *foreign_problem_of(const char *path, const struct problem *problem) {
    return strncmp(path, "/v1/", 4) == 0 ? JSON("{s:{s:s}}", "error", "message", problem->detail) : NULL;
}

static void obey(struct studio *studio, struct http *http, char *line) {
    char *rest = line;
    const char *command = strsep(&rest, " ");
    if (strcmp(command, "publish") == 0 && rest != NULL) {
        const char *owner = strsep(&rest, " ");
        (void)events_publish(studio->events, "note", strcmp(owner, "-") == 0 ? NULL : owner,
                             JSON("{s:o}", "text", json_text(rest != NULL ? rest : "")));
    } else if (strcmp(command, "flood") == 0) { /* so much that no socket's buffer holds it */
        char *text = text_alloc(16384, 1);
        memset(text, 'x', 16383);
        for (int i = 0; i < 6000; i++) {
            (void)events_publish(studio->events, "note", NULL, JSON("{s:s}", "text", text));
        }
        free(text);
    } else if (strcmp(command, "revoke") == 0) {
        atomic_store(&studio->is_revoked, true);
    } else if (strcmp(command, "metrics") == 0) {
        json_t *metrics = http_metrics(http);
        json_put(metrics, "runs", json_integer(atomic_load(&studio->n_runs)));
        json_put(metrics, "ended_streams", json_integer(atomic_load(&studio->n_ended_streams)));
        char *text = json_text_of(metrics);
        (void)printf("%s\n", text);
        free(text);
        json_decref(metrics);
    }
    (void)fflush(stdout);
}

int main(int argc, char **argv) {
    struct studio studio = { .events = events_create(), .file = getenv("PROBE_FILE") };
    struct settings *settings = settings_create();
    struct problem problem = { 0 };
    const struct route_table table = { routes, sizeof routes / sizeof routes[0] };
    struct http *http = NULL;
    char line[4096];
    for (int i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals == NULL) {
            return 2;
        }
        *equals = '\0';
        const enum setting setting = setting_find(argv[i]);
        if (setting == N_SETTINGS ||
            settings_set(settings, setting, SETTING_FROM_FLAG, equals + 1, &problem) != PROBLEM_NONE) {
            (void)fprintf(stderr, "%s: %s\n", argv[i], problem.detail);
            return 2;
        }
    }
    char *level = settings_text(settings, SETTING_log_level);
    log_configure(strcmp(level, "debug") == 0 ? LOG_DEBUG : LOG_INFO, false);
    free(level);
    const struct http_options options = {
        &studio, settings, &table, 1, identify, count, still_holds, foreign_problem_of
    };
    int result = 0;
    if (http_start(&options, &http, &problem) == PROBLEM_NONE) {
        (void)printf("%s\n", http_url(http));
        (void)fflush(stdout);
        while (fgets(line, sizeof line, stdin) != NULL) {
            line[strcspn(line, "\n")] = '\0';
            obey(&studio, http, line);
        }
        http_stop(http);
    } else {
        (void)fprintf(stderr, "%s\n", problem.detail);
        result = 1;
    }
    events_free(studio.events);
    settings_free(settings);
    return result;
}
