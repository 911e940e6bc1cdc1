/* listener: the library's daemon, and the way of a request through its stages: see http_internal.h. */
#include "http/http_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "files.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_PEM_BYTES ((size_t)256 * 1024)
#define DRAIN_BYTES                                                                                                    \
    ((size_t)64 * 1024) /* of a refused body that is read anyway, so that the answer is not lost in a reset */
#define STOP_US (5 * CLOCK_SECOND) /* that open requests get when the listener stops */

bool http_is_trusted(const struct http *http, const struct address *address) {
    return address_is_within(address, http->trusted, http->n_trusted);
}

/* ---- The stages ---- */

static uint64_t announced_bytes(const struct request *request) {
    const char *length = request_header(request, "Content-Length");
    return request_header(request, "Transfer-Encoding") != NULL ? UINT64_MAX
           : length != NULL                                     ? strtoull(length, NULL, 10)
                                                                : 0;
}

/* A refusal is said at once when the body would be long or its length is not clear; a short body is read and forgotten
 * first: closing a socket with unread bytes resets it, and the client might never see why. */
static enum MHD_Result refuse(struct request *request) {
    const uint64_t n = announced_bytes(request);
    const bool is_unclear = request->problem.code == PROBLEM_MALFORMED || request->problem.code == PROBLEM_HEADERS;
    const bool is_upload = strcmp(request->method, "POST") == 0 || strcmp(request->method, "PUT") == 0;
    if (is_unclear) {
        response_header(&request->response, "Connection", "close");
    }
    if (n == 0 || is_unclear || (is_upload && (n > DRAIN_BYTES || request_header(request, "Expect") != NULL))) {
        return answer_send(request);
    }
    request->body_max = 0;
    request->body_fault = request->status;
    return MHD_YES;
}

static enum MHD_Result take_head(struct request *request, const char *method, const char *version) {
    (void)atomic_fetch_add(&request->http->n_requests, 1);
    request->stage = STAGE_BODY;
    request->status = request_admit(request, method, version, &request->problem);
    return request->status != PROBLEM_NONE ? refuse(request) : MHD_YES;
}

static enum MHD_Result run(struct request *request) {
    struct http *http = request->http;
    connections_expect(&http->connections, request->connection, 0);
    request->stage = STAGE_RUNS;
    if (request->status == PROBLEM_NONE) {
        request->status = body_finish(request, &request->problem);
    }
    if (request->status == PROBLEM_NONE && request->route != NULL) {
        if ((request->route->flags & ROUTE_SLOW) != 0) {
            struct problem problem = { 0 }; /* the request is its task's as soon as that has begun */
            const enum problem_code st = task_start(request, &problem);
            if (st == PROBLEM_NONE) {
                return MHD_YES;
            }
            request->problem = problem;
            request->status = st;
            return answer_send(request);
        }
        request->status = request_run(request);
        if (request->status == PROBLEM_NONE && request->response.kind == ANSWER_EVENTS) {
            request->status = watcher_check(request, &request->problem);
        }
    }
    return answer_send(request);
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *link, const char *url, const char *method,
                                  const char *version, const char *data, size_t *n_data, void **state) {
    struct request *request = *state;
    (void)user;
    (void)link;
    (void)url;
    switch (request->stage) {
    case STAGE_HEAD:
        return take_head(request, method, version);
    case STAGE_BODY:
        if (*n_data > 0) {
            const bool goes_on = body_add(request, data, *n_data);
            *n_data = 0;
            return goes_on ? MHD_YES : MHD_NO;
        }
        return run(request);
    default:
        return request->stage == STAGE_RUNS ? answer_send(request) : MHD_YES;
    }
}

/* ---- What the library calls ---- */

static void *on_target(void *user, const char *target, struct MHD_Connection *link) {
    struct http *http = user;
    struct request *request = request_create(http, target);
    request->link = link;
    request->connection = MHD_get_connection_info(link, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    (void)atomic_fetch_add(&http->n_active, 1);
    return request;
}

static void on_completed(void *user, struct MHD_Connection *link, void **state, enum MHD_RequestTerminationCode why) {
    struct http *http = user;
    struct request *request = *state;
    (void)link;
    (void)why;
    if (request == NULL) {
        return;
    }
    *state = NULL;
    connections_expect(&http->connections, request->connection, clock_monotonic_us() + 4 * http->timeout_us);
    (void)pthread_mutex_lock(&request->mutex);
    request->is_gone = true;
    request->is_suspended = false;
    (void)pthread_cond_broadcast(&request->changed);
    (void)pthread_mutex_unlock(&request->mutex);
    request_unref(request);
    (void)atomic_fetch_sub(&http->n_active, 1);
}

static void on_connection(void *user, struct MHD_Connection *link, void **state,
                          enum MHD_ConnectionNotificationCode what) {
    struct http *http = user;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const int fd = MHD_get_connection_info(link, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        const struct sockaddr *address = MHD_get_connection_info(link, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
        *state = connections_add(http, fd, address);
    } else if (*state != NULL) {
        connections_remove(&http->connections, *state);
        *state = NULL;
    }
}

static enum MHD_Result on_accept(void *user, const struct sockaddr *address, socklen_t size) {
    (void)size;
    return connections_have_room(user, address) ? MHD_YES : MHD_NO;
}

__attribute__((format(printf, 2, 0))) static void on_words(void *user, const char *format, va_list arguments) {
    char words[300];
    (void)user;
    (void)vsnprintf(words, sizeof words, format, arguments);
    log_event(LOG_DEBUG, "http.library", JSON("{s:o}", "words", json_text(words)));
}

/* Paths are decoded by us, strictly. */
static size_t keep_escapes(void *user, struct MHD_Connection *link, char *text) {
    (void)user;
    (void)link;
    return strlen(text);
}

/* ---- Start ---- */

/* Every connection is a file, and the usual limit of 1024 is less than what is promised. */
static void raise_file_limit(struct http *http) {
    const rlim_t needed = (rlim_t)settings_int(http->options.settings, SETTING_http_connections) + 512;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < needed) {
        limit.rlim_cur = needed < limit.rlim_max ? needed : limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static enum problem_code read_pem(struct settings *settings, enum setting setting, char **ret_text,
                                  struct problem *problem) {
    struct cyi_error err = { 0 };
    void *data = NULL;
    size_t n = 0;
    char *path = settings_text(settings, setting);
    const char *name = setting_row(setting)->name;
    enum problem_code st = PROBLEM_NONE;
    if (path[0] != '\0' && files_read(path, MAX_PEM_BYTES, &data, &n, &err) != CYI_OK) {
        st = problem_set(problem, PROBLEM_INTERNAL, name, "%s: %.400s", name, err.text);
    } else if (path[0] != '\0') {
        *ret_text = text_alloc(n + 1, 1);
        memcpy(*ret_text, data, n);
        sodium_memzero(data, n);
    }
    free(data);
    free(path);
    return st;
}

static enum problem_code read_settings(struct http *http, struct problem *problem) {
    struct settings *settings = http->options.settings;
    enum problem_code st = PROBLEM_NONE;
    char *listen = settings_text(settings, SETTING_listen), *trusted = settings_text(settings, SETTING_trusted_proxies);
    char *origins = settings_text(settings, SETTING_cors_origins);
    http->base_path = settings_text(settings, SETTING_base_path);
    http->timeout_us = settings_int(settings, SETTING_http_timeout) * CLOCK_SECOND;
    http->max_body = (size_t)settings_int(settings, SETTING_body_bytes);
    http->max_per_address = (size_t)settings_int(settings, SETTING_http_per_address);
    http->has_cors = origins[0] != '\0';
    size_t n = strlen(http->base_path);
    while (n > 0 && http->base_path[n - 1] == '/') {
        http->base_path[--n] = '\0';
    }
    struct path path = { 0 };
    if (n > 0 && path_read(http->base_path, n, &path, NULL) != PROBLEM_NONE) {
        st = problem_set(problem, PROBLEM_INVALID, "base-path",
                         "base-path must be a path such as /studio, not \"%.100s\"", http->base_path);
    }
    path_free(&path);
    TRY(st);
    TRY(address_parse_listen(listen, &http->listen, problem));
    TRY(address_parse_ranges(trusted, &http->trusted, &http->n_trusted, problem));
    TRY(read_pem(settings, SETTING_tls_certificate, &http->certificate, problem));
    TRY(read_pem(settings, SETTING_tls_key, &http->key, problem));
    if ((http->certificate == NULL) != (http->key == NULL)) {
        st = problem_set(problem, PROBLEM_INVALID, "tls-key", "TLS needs both tls-certificate and tls-key");
    }
done:
    free(origins);
    free(trusted);
    free(listen);
    return st;
}

static struct MHD_Daemon *start_daemon(struct http *http, int fd) {
    struct settings *settings = http->options.settings;
    const bool has_tls = http->certificate != NULL;
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
                           (http->listen.socket.ss_family == AF_INET6 ? (unsigned)MHD_USE_IPv6 : 0U) |
                           (has_tls ? (unsigned)MHD_USE_TLS : 0U);
    struct MHD_OptionItem tls[] = { { MHD_OPTION_HTTPS_MEM_CERT, 0, http->certificate },
                                    { MHD_OPTION_HTTPS_MEM_KEY, 0, http->key },
                                    { MHD_OPTION_END, 0, NULL } };
    struct MHD_OptionItem none[] = { { MHD_OPTION_END, 0, NULL } };
    return MHD_start_daemon(flags, 0, on_accept, http, on_request, http, MHD_OPTION_EXTERNAL_LOGGER, on_words, NULL,
                            MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE,
                            (unsigned)settings_int(settings, SETTING_http_threads), MHD_OPTION_CONNECTION_LIMIT,
                            (unsigned)settings_int(settings, SETTING_http_connections), MHD_OPTION_CONNECTION_TIMEOUT,
                            (unsigned)settings_int(settings, SETTING_http_timeout), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                            (size_t)2 * MAX_HEAD_BYTES, MHD_OPTION_URI_LOG_CALLBACK, on_target, http,
                            MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
                            on_connection, http, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_ARRAY,
                            has_tls ? tls : none, MHD_OPTION_END);
}

static void http_free(struct http *http) {
    free(http->url);
    free(http->base_path);
    free(http->trusted);
    free(http->certificate);
    if (http->key != NULL) {
        sodium_memzero(http->key, strlen(http->key));
    }
    free(http->key);
    connections_done(&http->connections);
    pulse_done(&http->pulse);
    (void)pthread_mutex_destroy(&http->watchers.mutex);
    (void)pthread_mutex_destroy(&http->tasks.mutex);
    (void)pthread_cond_destroy(&http->tasks.ended);
    free(http);
}

enum problem_code http_start(const struct http_options *options, struct http **ret_http, struct problem *problem) {
    struct http *http = text_alloc(1, sizeof *http);
    enum problem_code st = PROBLEM_NONE;
    int fd = -1;
    http->options = *options;
    connections_init(&http->connections);
    pulse_init(&http->pulse);
    (void)pthread_mutex_init(&http->watchers.mutex, NULL);
    (void)pthread_mutex_init(&http->tasks.mutex, NULL);
    (void)pthread_cond_init(&http->tasks.ended, NULL);
    TRY(read_settings(http, problem));
    raise_file_limit(http);
    TRY(address_listen(&http->listen, &fd, problem));
    http->url = text_format("%s://%s:%d%s", http->certificate != NULL ? "https" : "http", address_host(&http->listen),
                            http->listen.port, http->base_path);
    pulse_start(http);
    http->daemon = start_daemon(http, fd);
    if (http->daemon == NULL) {
        pulse_stop(http);
        st = problem_set(
            problem, PROBLEM_INTERNAL, NULL, "the listener at %s could not be started%s", http->url,
            http->certificate != NULL ? ": are tls-certificate and tls-key in PEM, and do they belong together?" : "");
        goto done;
    }
    fd = -1;
    *ret_http = http;
    http = NULL;
done:
    if (fd >= 0) {
        (void)close(fd);
    }
    if (http != NULL) {
        http_free(http);
    }
    return st;
}

const char *http_url(const struct http *http) {
    return http->url;
}

/* ---- Stop, and numbers ---- */

void http_stop(struct http *http) {
    if (http == NULL) {
        return;
    }
    const int64_t deadline_us = clock_monotonic_us() + STOP_US;
    /* Who comes now is answered and let go. MHD_quiesce_daemon would keep newcomers out, but in libmicrohttpd 1.0 it and the
     * library's threads may both take the socket out of epoll, and the second one ends the process. */
    atomic_store(&http->is_stopping, true);
    pulse_wake(http);
    tasks_wait(&http->tasks);
    while (atomic_load(&http->n_active) > 0 && clock_monotonic_us() < deadline_us) {
        (void)usleep(5000);
    }
    pulse_stop(http); /* every watcher's connection has been resumed by now, and none is suspended again */
    MHD_stop_daemon(http->daemon);
    if (http->watchers.events != NULL) { /* no watcher is left that could ask for it again */
        events_on_publish(http->watchers.events, NULL, NULL);
    }
    http_free(http);
}

json_t *http_metrics(struct http *http) {
    (void)pthread_mutex_lock(&http->connections.mutex);
    const size_t n_connections = http->connections.n;
    (void)pthread_mutex_unlock(&http->connections.mutex);
    (void)pthread_mutex_lock(&http->tasks.mutex);
    const int n_tasks = http->tasks.n;
    (void)pthread_mutex_unlock(&http->tasks.mutex);
    json_t *classes = JSON("{}");
    for (int i = 1; i < 6; i++) {
        char name[4] = { (char)('0' + i), 'x', 'x', '\0' };
        json_put(classes, name, json_integer((json_int_t)atomic_load(&http->n_by_class[i])));
    }
    return JSON("{s:I, s:I, s:i, s:I, s:I, s:o, s:f}", "connections", (json_int_t)n_connections, "watchers",
                (json_int_t)watchers_count(&http->watchers), "slow", n_tasks, "body_bytes",
                (json_int_t)atomic_load(&http->body_bytes), "requests", (json_int_t)atomic_load(&http->n_requests),
                "responses_by_class", classes, "seconds", (double)atomic_load(&http->busy_us) / 1e6);
}
