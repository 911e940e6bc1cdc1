/* sse: watchers of events (server-sent events). A watcher costs no thread: the library asks it for bytes, it hands out
 * the hub's ready texts, and while there are none its connection is suspended until the pulse finds something for it.
 * Whoever reads so slowly that its place has left the ring is cut; it comes back with Last-Event-ID and is told to read
 * the state anew. */
#include "http/http_internal.h"

#include "base/clock.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define HEARTBEAT_US (15 * CLOCK_SECOND)
#define CHECK_US (3 * CLOCK_SECOND) /* with the pulse's second: a right that ends is noticed within 5 s */
#define MAX_WATCHERS_PER_ADDRESS 1024

struct watcher {
    struct watcher *next, *previous; /* guarded by watchers.mutex */
    int64_t next_check_us;           /* the pulse's own */
    struct request *request;         /* whose mutex guards all below */
    struct events *events;
    uint64_t after;
    struct event_text *text; /* being sent; NULL: between two */
    const char *note;        /* being sent before text; constant */
    size_t n_sent;           /* of note, or of text */
    int64_t last_us;         /* when something was sent */
    bool has_begun, is_ended;
};

static const char start_note[] = "retry: 2000\n\n";
static const char reset_note[] = "retry: 2000\n\nevent: reset\ndata: {}\n\n";
static const char heartbeat_note[] = ": still here\n\n";

/* Finds what comes next, unless something is being sent. With request->mutex held. */
static void fetch(struct watcher *watcher) {
    const struct response *response = &watcher->request->response;
    bool is_gap = false;
    if (watcher->note != NULL || watcher->text != NULL || watcher->is_ended) {
        return;
    }
    watcher->n_sent = 0;
    watcher->text = events_next(watcher->events, &watcher->after, response->viewer_id, response->sees_all, &is_gap);
    if (!watcher->has_begun) {
        watcher->note = is_gap ? reset_note : start_note;
        watcher->has_begun = true;
    } else if (is_gap) {
        watcher->is_ended = true;
    } else if (watcher->text == NULL && clock_monotonic_us() - watcher->last_us >= HEARTBEAT_US) {
        watcher->note = heartbeat_note;
    }
}

static bool has_something(const struct watcher *watcher) {
    return watcher->note != NULL || watcher->text != NULL || watcher->is_ended;
}

/* Hands out as much as fits of what is being sent. */
static size_t send_some(struct watcher *watcher, char *buffer, size_t max) {
    size_t n_all = 0;
    const char *bytes = watcher->note;
    if (bytes != NULL) {
        n_all = strlen(bytes);
    } else {
        bytes = event_bytes(watcher->text, &n_all);
    }
    const size_t n_left = n_all - watcher->n_sent, n = n_left < max ? n_left : max;
    memcpy(buffer, bytes + watcher->n_sent, n);
    watcher->n_sent += n;
    watcher->last_us = clock_monotonic_us();
    if (watcher->n_sent == n_all) {
        watcher->n_sent = 0;
        if (watcher->note != NULL) {
            watcher->note = NULL;
        } else {
            event_unref(watcher->text);
            watcher->text = NULL;
        }
    }
    return n;
}

static ssize_t read_events(void *user, uint64_t position, char *buffer, size_t max) {
    struct watcher *watcher = user;
    struct request *request = watcher->request;
    size_t n = 0;
    (void)position;
    (void)pthread_mutex_lock(&request->mutex);
    watcher->is_ended = watcher->is_ended || atomic_load(&request->http->is_stopping);
    for (fetch(watcher); n < max && has_something(watcher) && !watcher->is_ended; fetch(watcher)) {
        n += send_some(watcher, buffer + n, max - n);
    }
    const bool is_ended = watcher->is_ended && n == 0;
    if (n == 0 && !is_ended) {
        request_suspend(request);
    }
    (void)pthread_mutex_unlock(&request->mutex);
    return is_ended ? MHD_CONTENT_READER_END_OF_STREAM : (ssize_t)n;
}

static void watcher_free(void *user) {
    struct watcher *watcher = user;
    struct watchers *watchers = &watcher->request->http->watchers;
    (void)pthread_mutex_lock(&watchers->mutex);
    if (watcher->previous != NULL) {
        watcher->previous->next = watcher->next;
    } else {
        watchers->first = watcher->next;
    }
    if (watcher->next != NULL) {
        watcher->next->previous = watcher->previous;
    }
    watchers->n--;
    (void)pthread_mutex_unlock(&watchers->mutex);
    event_unref(watcher->text);
    request_unref(watcher->request);
    free(watcher);
}

struct MHD_Response *watcher_response(struct request *request) {
    struct watchers *watchers = &request->http->watchers;
    struct watcher *watcher = text_alloc(1, sizeof *watcher);
    watcher->request = request;
    watcher->events = request->response.events;
    watcher->after = request->response.after;
    watcher->last_us = clock_monotonic_us();
    watcher->next_check_us = watcher->last_us + CHECK_US;
    struct MHD_Response *out =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, read_events, watcher, watcher_free);
    if (out == NULL) {
        free(watcher);
        return NULL;
    }
    (void)request_ref(request);
    (void)pthread_mutex_lock(&watchers->mutex);
    watcher->next = watchers->first;
    if (watcher->next != NULL) {
        watcher->next->previous = watcher;
    }
    watchers->first = watcher;
    watchers->n++;
    const bool is_new_hub = watchers->events != watcher->events;
    watchers->events = watcher->events;
    (void)pthread_mutex_unlock(&watchers->mutex);
    if (is_new_hub) {
        events_on_publish(watcher->events, pulse_wake, request->http);
    }
    return out;
}

size_t watchers_count(struct watchers *watchers) {
    (void)pthread_mutex_lock(&watchers->mutex);
    const size_t n = watchers->n;
    (void)pthread_mutex_unlock(&watchers->mutex);
    return n;
}

enum problem_code watcher_check(const struct request *request, struct problem *problem) {
    struct watchers *watchers = &request->http->watchers;
    size_t n = 0;
    if (request->is_foreign_origin) {
        return problem_set(problem, PROBLEM_FORBIDDEN, NULL, "a page of another site may not watch what happens here");
    }
    (void)pthread_mutex_lock(&watchers->mutex);
    for (const struct watcher *watcher = watchers->first; watcher != NULL; watcher = watcher->next) {
        n += strcmp(watcher->request->address, request->address) == 0;
    }
    (void)pthread_mutex_unlock(&watchers->mutex);
    if (n < MAX_WATCHERS_PER_ADDRESS) {
        return PROBLEM_NONE;
    }
    problem->retry_after_seconds = 30;
    return problem_set(problem, PROBLEM_TOO_MANY, NULL, "%zu streams of events of this address are open already", n);
}

/* ---- The pulse's side ---- */

/* The requests whose right is to be asked for now, each with a reference; asking may take a while and is done unlocked. */
static size_t collect_due(struct watchers *watchers, int64_t now_us, struct request ***ret_requests) {
    size_t n = 0;
    (void)pthread_mutex_lock(&watchers->mutex);
    struct request **requests = text_alloc(watchers->n + 1, sizeof *requests);
    for (struct watcher *watcher = watchers->first; watcher != NULL; watcher = watcher->next) {
        if (watcher->next_check_us <= now_us) {
            watcher->next_check_us = now_us + CHECK_US;
            requests[n++] = request_ref(watcher->request);
        }
    }
    (void)pthread_mutex_unlock(&watchers->mutex);
    *ret_requests = requests;
    return n;
}

/* A request whose right has ended has no access from here on: the next walk through the watchers ends it. */
static void check_rights(struct http *http) {
    struct request **requests = NULL;
    const size_t n = collect_due(&http->watchers, clock_monotonic_us(), &requests);
    for (size_t i = 0; i < n; i++) {
        struct request *request = requests[i];
        if (http->options.still_holds != NULL && !http->options.still_holds(http->options.studio, &request->caller)) {
            (void)pthread_mutex_lock(&request->mutex);
            request->stream.is_done = true;
            (void)pthread_mutex_unlock(&request->mutex);
        }
        request_unref(request);
    }
    free(requests);
}

void watchers_tick(struct http *http, bool is_second) {
    struct watchers *watchers = &http->watchers;
    if (is_second) {
        check_rights(http);
    }
    (void)pthread_mutex_lock(&watchers->mutex);
    for (struct watcher *watcher = watchers->first; watcher != NULL; watcher = watcher->next) {
        struct request *request = watcher->request;
        (void)pthread_mutex_lock(&request->mutex);
        watcher->is_ended = watcher->is_ended || request->stream.is_done || atomic_load(&http->is_stopping) ||
                            (is_second && !request_is_connected(request));
        if (request->is_suspended) {
            fetch(watcher);
            if (has_something(watcher)) {
                request_resume(request);
            }
        }
        (void)pthread_mutex_unlock(&request->mutex);
    }
    (void)pthread_mutex_unlock(&watchers->mutex);
}
