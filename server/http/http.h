/* http: requests in, answers out, over libmicrohttpd. This part knows connections, limits, headers, routes and bodies;
 * it knows nothing of jobs or pictures. Who asks is found by the hooks that the caller gives.
 *
 * A route's function runs on one of the few threads that serve all connections, so it must not wait: no network, no
 * waiting for jobs, no decoding of pictures. A route with ROUTE_SLOW runs on a thread of its own and may do all of
 * that.
 *
 * Every answer that is not a success is a problem document (RFC 9457) made from the struct problem. */
#ifndef SERVER_HTTP_HTTP_H
#define SERVER_HTTP_HTTP_H

#include "base/events.h"
#include "base/json.h"
#include "base/settings.h"
#include "store/audit.h"

struct http;
struct request;
struct response;
struct studio;

/* ---- Who asks ---- */

enum role { ROLE_NONE, ROLE_VIEWER, ROLE_USER, ROLE_ADMIN };

/* What a route needs, and what a token may be limited to. Roles: a viewer reads, a user also generates and edits what
 * is its own, an administrator does everything and sees everybody's. */
enum access {
    ACCESS_ANYBODY = 0, /* without signing in */
    ACCESS_READ = 1,
    ACCESS_GENERATE = 2,
    ACCESS_EDIT = 4,
    ACCESS_ADMIN = 8,
};

struct caller {
    char user_id[40]; /* "": nobody */
    char name[64];
    enum role role;
    unsigned access;     /* bits of enum access that this caller has, by role and token */
    char session_id[40]; /* "": not by a session */
    char token_id[40];   /* "": not by a token */
};

/* ---- Routes ---- */

enum body_kind {
    BODY_NONE,  /* a body is refused */
    BODY_JSON,  /* application/json; may be absent, then request_json is NULL */
    BODY_FORM,  /* multipart/form-data, or JSON as well */
    BODY_BYTES, /* any type, as it comes */
};

enum route_flags {
    ROUTE_SLOW = 1,      /* runs on a thread of its own and may wait */
    ROUTE_UNCOUNTED = 2, /* does not count for the rate limit: health, static files, thumbnails */
    ROUTE_SIMPLE =
        4, /* cross-origin protection by Origin only; for programs that send no JSON type: OpenAI and A1111 dialects */
};

typedef enum problem_code (*route_fn)(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem);

struct route {
    const char *method;
    const char *path; /* "/api/v1/jobs/{id}": a name in braces matches one segment; "{name}.{ending}" works too */
    enum access access;
    enum body_kind body;
    int flags;
    route_fn run;
};

struct route_table {
    const struct route *routes;
    size_t n;
};

/* ---- The request; everything it gives lives as long as it does ---- */

const char *request_method(const struct request *request);
const char *request_path(const struct request *request);
const char *request_parameter(const struct request *request,
                              const char *name); /* of the path, decoded; never NULL for the route's names */
const char *request_query(const struct request *request,
                          const char *name); /* the first of that name, decoded; or NULL */
const char *request_header(const struct request *request, const char *name); /* or NULL */
const char *request_address(const struct request *request); /* of the client, through trusted proxies */
/* "https://host:port/base" under which the client reached the studio: for absolute links. */
const char *request_base_url(const struct request *request);
const struct caller *request_caller(const struct request *request);
bool request_is_admin(const struct request *request);
/* For audit rows; borrowed from the request. */
const struct actor *request_actor(const struct request *request);
const json_t *request_json(const struct request *request); /* BODY_JSON, BODY_FORM: NULL when there is none */
const void *request_body(const struct request *request, size_t *ret_n);
/* Reads the query by rows as json_read does for an object: numbers, truth values ("true", "1", "false", "0") and texts
 * by the row's kind; unknown names are refused. */
enum problem_code request_read_query(const struct request *request, const struct json_row *rows, size_t n_rows,
                                     void *fields, struct problem *problem);

/* A form's parts that are no files as an object, each converted as request_read_query does; the body itself when it is JSON.
 * Lives as long as the request. Errors: INVALID (a name stands twice, a text with a zero byte). */
enum problem_code request_form_object(const struct request *request, const struct json_row *rows, size_t n_rows,
                                      const json_t **ret_object, struct problem *problem);

struct form_part {
    const char *name;      /* of the field */
    const char *file_name; /* NULL: not a file. Only for people; never a path */
    const char *type;      /* as it was said; NULL: not said */
    const void *data;      /* a zero byte follows it */
    size_t n;
};
/* Parts of a multipart body in their order. */
const struct form_part *request_parts(const struct request *request, size_t *ret_n);

/* ---- The answer; the last call decides ---- */

void response_json(struct response *response, int status, json_t *value); /* taken over */
void response_empty(struct response *response);                           /* 204 */
/* Copies data. type: "text/plain; charset=utf-8". */
void response_bytes(struct response *response, int status, const char *type, const void *data, size_t n);
/* Takes fd over. Answers ranges and conditions (ETag, Last-Modified) by itself, with sendfile. name NULL: shown inline;
 * else offered as a download under that name. etag without quotes, or NULL. is_immutable: may be kept for a year. */
enum problem_code response_file(struct response *response, int fd, const char *type, const char *etag,
                                bool is_immutable, const char *name, struct problem *problem);
void response_header(struct response *response, const char *name, const char *value);
/* The answer was handled with ETag and If-None-Match when this gives true: nothing more is to be done (304). */
bool response_is_unchanged(const struct request *request, struct response *response, const char *etag);

/* A body that is written while the function runs (ROUTE_SLOW only). The first write sends the head. Returns false when
 * the client is gone: the function should end soon. Waits while the client reads slowly, at most the settings'
 * timeout. */
void response_begin_stream(struct response *response, int status, const char *type);
bool response_write(struct response *response, const void *data, size_t n);
/* Is the client still there? For functions that wait for something else. */
bool response_is_wanted(struct response *response);

/* Server-sent events from the hub, from Last-Event-ID on, until the client goes or its right ends. */
void response_events(struct response *response, struct events *events, uint64_t after, const char *viewer_id,
                     bool sees_all);

/* ---- The listener ---- */

struct http_options {
    struct studio *studio;
    struct settings *settings;
    const struct route_table *tables;
    size_t n_tables;
    /* Who is it? Fills caller from cookie and Authorization. UNAUTHENTICATED: credentials that do not hold (none at
     * all is no error). */
    enum problem_code (*identify)(struct studio *studio, const char *cookie, const char *authorization,
                                  const char *address, struct caller *ret_caller, struct problem *problem);
    /* One more request of this caller or address. TOO_MANY when it is over its rate. */
    enum problem_code (*count)(struct studio *studio, const struct caller *caller, const char *address,
                               struct problem *problem);
    /* Does the right of this watcher still hold? Asked every few seconds for open streams of events. */
    bool (*still_holds)(struct studio *studio, const struct caller *caller);
    /* Overrides problem documents for paths of other dialects ("/v1/…", "/sdapi/…"): a body in their form, or NULL for
     * ours. May be NULL. */
    json_t *(*foreign_problem)(const char *path, const struct problem *problem);
};

/* Binds and serves. Errors: INVALID (settings), INTERNAL (address in use, TLS files). */
enum problem_code http_start(const struct http_options *options, struct http **ret_http, struct problem *problem);
/* "http://127.0.0.1:5050": the real port when 0 was asked for. */
const char *http_url(const struct http *http);
/* No new connections; open ones get until the deadline; then everything is freed. */
void http_stop(struct http *http);
/* {"connections", "watchers", "requests", "responses_by_class", "seconds"…} for metrics; the caller decrefs. */
json_t *http_metrics(struct http *http);

#endif
