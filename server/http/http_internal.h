/* http_internal: what the files of this part share.
 *
 * A request lives through these stages on one of the library's threads:
 *     target known (on_target) → head checked (request_admit) → body read (body_add) → run → answered (answer_send)
 * A slow route runs on a thread of its own meanwhile the connection is suspended; a stream's or a watcher's connection is
 * suspended while there is nothing to send. A request is held by the library and by its task; the last one frees it.
 *
 * Locks, in this order: watchers.mutex → request.mutex → the library's own. connections.mutex, tasks.mutex and pulse.mutex are
 * taken alone. */
#ifndef SERVER_HTTP_INTERNAL_H
#define SERVER_HTTP_INTERNAL_H

#include "http/address.h"
#include "http/form_data.h"
#include "http/http.h"
#include "http/path.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#define MAX_HEADERS 100
#define MAX_HEAD_BYTES (16 * 1024)
#define MAX_JSON_BYTES ((size_t)1024 * 1024)
#define MAX_ANYBODY_BYTES ((size_t)64 * 1024) /* the body of somebody who has not signed in */
#define MAX_PARAMETERS 8
#define MAX_TASKS 64
#define MAX_ANSWER_HEADERS 24
#define STREAM_BYTES ((size_t)256 * 1024) /* backlog of a stream that is read slowly */

/* ---- Connections: every socket, for limits and deadlines ---- */

struct connection {
    struct connection *next, *previous;
    int fd;
    struct address address;
    int64_t deadline_us; /* of reading a request; 0: one is being answered */
};

struct connections {
    pthread_mutex_t mutex; /* guards all below */
    struct connection *first;
    size_t n;
};

/* ---- Requests ---- */

enum stage { STAGE_HEAD, STAGE_BODY, STAGE_RUNS, STAGE_ANSWERED };

struct pair {
    const char *name, *value;
};

enum answer_kind { ANSWER_BYTES, ANSWER_FILE, ANSWER_STREAM, ANSWER_EVENTS };

struct response {
    struct request *request;
    enum answer_kind kind;
    int status;
    char *type; /* NULL: no body */
    void *data; /* of BYTES; owned */
    size_t n;
    int fd; /* of FILE; -1: none */
    uint64_t offset;
    bool is_file; /* says so to the browser, even when only 304 or 416 is left of it */
    struct {
        char *name, *value;
    } headers[MAX_ANSWER_HEADERS];
    size_t n_headers;
    /* of EVENTS */
    struct events *events;
    uint64_t after;
    char viewer_id[40];
    bool sees_all;
};

struct stream {
    char *bytes; /* a ring of STREAM_BYTES; NULL: no stream */
    size_t first, n;
    bool is_done, is_broken;
};

struct request {
    struct http *http;
    struct MHD_Connection *link; /* use only while not is_gone */
    struct connection *connection;
    pthread_mutex_t mutex; /* guards the next lines and stream */
    pthread_cond_t changed;
    int n_references;
    bool is_suspended, is_gone;
    struct stream stream;

    enum stage stage;
    int64_t started_us;
    bool is_head, is_secure;
    char *target; /* as sent */
    char method[16];
    const char *route_path; /* below the base path, without the query */
    struct path path;
    struct query query;
    struct pair headers[MAX_HEADERS];
    size_t n_headers;
    char *header_text; /* what headers point into */
    const struct route *route;
    struct pair parameters[MAX_PARAMETERS];
    size_t n_parameters;
    char *parameter_text;
    char address[ADDRESS_TEXT];
    char *base_url, *origin; /* origin: "https://host", our own as the client sees it */
    bool is_foreign_origin;  /* Origin is there, and neither ours nor configured */
    const char *cors_origin; /* Origin when it is configured; else NULL */
    struct caller caller;
    struct actor actor;

    char *body; /* a zero byte follows it */
    size_t body_n, body_capacity, body_max;
    enum problem_code body_fault; /* found while it came; told when it has come */
    json_t *json, *objects;       /* objects: what make_object made */
    struct form_part *parts;
    size_t n_parts;

    enum problem_code status;
    struct problem problem;
    struct response response;
};

struct request *request_create(struct http *http, const char *target);
struct request *request_ref(struct request *request);
void request_unref(struct request *request);
/* With request->mutex held. Resuming what is not suspended does nothing. */
void request_suspend(struct request *request);
void request_resume(struct request *request);
enum problem_code request_copy_headers(struct request *request, struct problem *problem);
/* Is the client still connected? With request->mutex held. */
bool request_is_connected(const struct request *request);
/* A media type without its parameters: is it this one? */
bool request_type_is(const struct request *request, const char *type);

/* admit.c: from the head alone, may this go on? request->route is NULL after NONE when it is answered already (OPTIONS). */
enum problem_code request_admit(struct request *request, const char *method, const char *version,
                                struct problem *problem);

/* checks.c: framing, Host, the client's address and base, Origin and forms. */
enum problem_code check_framing(struct request *request, const char *version, struct problem *problem);
enum problem_code check_host(struct request *request, struct problem *problem);
void check_origin(struct request *request);
enum problem_code check_forgery(const struct request *request, struct problem *problem);
bool check_header_token(const char *text);

/* router.c */
enum problem_code route_find(struct request *request, char allow[128], struct problem *problem);

/* body.c: before the body (type, announced length), its pieces, and its end. */
enum problem_code body_check(struct request *request, struct problem *problem);
bool body_add(struct request *request, const void *data, size_t n); /* false: cut the connection */
enum problem_code body_finish(struct request *request, struct problem *problem);
void body_free(struct request *request);

/* response.c */
void response_clear(struct response *response);
enum MHD_Result answer_send(struct request *request);
/* file.c: the ETag with quotes among If-None-Match? */
bool condition_has_etag(const char *list, const char *etag);
/* stream.c, sse.c: the library's view of them; each holds the request until it is destroyed. */
struct MHD_Response *stream_response(struct request *request);
struct MHD_Response *watcher_response(struct request *request);

/* ---- Tasks, watchers, pulse ---- */

struct tasks {
    pthread_mutex_t mutex; /* guards n */
    pthread_cond_t ended;
    int n;
};

/* Runs the route on a thread of its own, which resumes the request at its end. UNAVAILABLE when there are too many. */
enum problem_code task_start(struct request *request, struct problem *problem);
void tasks_wait(struct tasks *tasks);
/* Runs the route here. */
enum problem_code request_run(struct request *request);

struct watcher;

struct watchers {
    pthread_mutex_t mutex; /* guards all below */
    struct watcher *first;
    size_t n;
    struct events *events; /* whose wake is ours */
};

/* Wakes those for whom there is something; once a second (is_second) also looks for those that went away or lost their
 * right. */
void watchers_tick(struct http *http, bool is_second);
size_t watchers_count(struct watchers *watchers);
/* Errors: FORBIDDEN (a foreign page), TOO_MANY (watchers of this address). */
enum problem_code watcher_check(const struct request *request, struct problem *problem);

struct pulse {
    pthread_mutex_t mutex; /* guards the flags */
    pthread_cond_t changed;
    bool is_due, is_ending;
    pthread_t thread;
};

void pulse_init(struct pulse *pulse);
void pulse_done(struct pulse *pulse);
void pulse_start(struct http *http);
void pulse_wake(void *user);        /* a struct http */
void pulse_stop(struct http *http); /* may still be woken until pulse_done, to no effect */

void connections_init(struct connections *connections);
void connections_done(struct connections *connections);
bool connections_have_room(struct http *http, const struct sockaddr *address);
struct connection *connections_add(struct http *http, int fd, const struct sockaddr *socket);
void connections_remove(struct connections *connections, struct connection *connection);
/* deadline_us 0: none. */
void connections_expect(struct connections *connections, struct connection *connection, int64_t deadline_us);
void connections_sweep(struct http *http);

/* ---- The listener ---- */

struct http {
    struct http_options options;
    struct MHD_Daemon *daemon;
    char *url, *base_path, *certificate, *key;
    struct listen_address listen;
    struct address_range *trusted;
    size_t n_trusted;
    int64_t timeout_us;
    size_t max_body, max_per_address;
    bool has_cors;
    struct connections connections;
    struct tasks tasks;
    struct watchers watchers;
    struct pulse pulse;
    atomic_bool is_stopping;
    atomic_size_t body_bytes; /* held by all requests together */
    atomic_ullong n_requests, n_by_class[6], busy_us;
    atomic_int n_active;
};

bool http_is_trusted(const struct http *http, const struct address *address);

#endif
