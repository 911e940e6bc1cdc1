/* stream: a body that a slow route writes while it is being sent. The route's thread fills a ring, the library's thread
 * empties it; who is too quick waits: the route in response_write, the connection by being suspended. */
#include "http/http_internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

void response_begin_stream(struct response *response, int status, const char *type) {
    response_clear(response);
    response->kind = ANSWER_STREAM;
    response->status = status;
    response->type = text_copy(type);
}

/* The first write: the ring is made, and the library's thread is woken to send the head. */
static void begin(struct request *request) {
    if (request->stream.bytes == NULL) {
        request->stream.bytes = text_alloc(STREAM_BYTES, 1);
    }
}

static size_t put(struct stream *stream, const char *data, size_t n) {
    const size_t room = STREAM_BYTES - stream->n, last = (stream->first + stream->n) % STREAM_BYTES;
    n = n < room ? n : room;
    const size_t n_first = n < STREAM_BYTES - last ? n : STREAM_BYTES - last;
    memcpy(stream->bytes + last, data, n_first);
    memcpy(stream->bytes, data + n_first, n - n_first);
    stream->n += n;
    return n;
}

static size_t get(struct stream *stream, char *buffer, size_t max) {
    const size_t n = stream->n < max ? stream->n : max;
    const size_t n_first = n < STREAM_BYTES - stream->first ? n : STREAM_BYTES - stream->first;
    memcpy(buffer, stream->bytes + stream->first, n_first);
    memcpy(buffer + n_first, stream->bytes, n - n_first);
    stream->first = (stream->first + n) % STREAM_BYTES;
    stream->n -= n;
    return n;
}

/* Waits until changed is signalled, at most to the deadline. Asks for the client now and then, since a suspended
 * connection does not learn that it is gone. With request->mutex held. */
static bool wait_for_room(struct request *request, int64_t deadline_us) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 1;
    (void)pthread_cond_timedwait(&request->changed, &request->mutex, &until);
    return clock_monotonic_us() < deadline_us;
}

bool response_write(struct response *response, const void *data, size_t n) {
    struct request *request = response->request;
    struct http *http = request->http;
    const char *bytes = data;
    int64_t deadline_us = clock_monotonic_us() + http->timeout_us;
    (void)pthread_mutex_lock(&request->mutex);
    begin(request);
    request_resume(request);
    bool is_wanted = request_is_connected(request) && !atomic_load(&http->is_stopping);
    while (is_wanted && n > 0) {
        const size_t n_put = put(&request->stream, bytes, n);
        bytes += n_put;
        n -= n_put;
        request_resume(request);
        if (n_put > 0) {
            deadline_us = clock_monotonic_us() + http->timeout_us;
        } else {
            is_wanted = wait_for_room(request, deadline_us) && request_is_connected(request) &&
                        !atomic_load(&http->is_stopping);
        }
    }
    (void)pthread_mutex_unlock(&request->mutex);
    return is_wanted;
}

bool response_is_wanted(struct response *response) {
    struct request *request = response->request;
    (void)pthread_mutex_lock(&request->mutex);
    const bool is_wanted = request_is_connected(request) && !atomic_load(&request->http->is_stopping);
    (void)pthread_mutex_unlock(&request->mutex);
    return is_wanted;
}

/* ---- The library's side ---- */

static ssize_t read_stream(void *user, uint64_t position, char *buffer, size_t max) {
    struct request *request = user;
    struct stream *stream = &request->stream;
    ssize_t result = 0;
    (void)position;
    (void)pthread_mutex_lock(&request->mutex);
    if (stream->n > 0) {
        result = (ssize_t)get(stream, buffer, max);
        (void)pthread_cond_broadcast(&request->changed);
    } else if (stream->is_done) {
        result = stream->is_broken ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        request_suspend(request);
    }
    (void)pthread_mutex_unlock(&request->mutex);
    return result;
}

static void end_stream(void *user) {
    request_unref(user);
}

struct MHD_Response *stream_response(struct request *request) {
    (void)pthread_mutex_lock(&request->mutex);
    begin(request); /* a route may end without a write */
    (void)pthread_mutex_unlock(&request->mutex);
    struct MHD_Response *out =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 * 1024, read_stream, request, end_stream);
    if (out != NULL) {
        (void)request_ref(request);
    }
    return out;
}
