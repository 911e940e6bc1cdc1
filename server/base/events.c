/* The ring of events: see events.h. */
#include "base/events.h"

#include "base/clock.h"
#include "base/json.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct event_text {
    atomic_int n_references;
    size_t n;
    char bytes[];
};

struct event {
    struct event_text *text;
    char *owner; /* NULL: for all */
};

struct events {
    pthread_mutex_t mutex; /* guards all below */
    uint64_t first_id;     /* the id before the first event */
    uint64_t last_id;      /* the event of id i is in ring[i % EVENTS_KEPT] */
    struct event ring[EVENTS_KEPT];
    pthread_mutex_t waking; /* guards wake and user, also while wake runs: who takes it away may free user */
    void (*wake)(void *user);
    void *user;
};

struct events *events_create(void) {
    struct events *events = text_alloc(1, sizeof *events);
    events->first_id = events->last_id = (uint64_t)clock_now_us();
    (void)pthread_mutex_init(&events->mutex, NULL);
    (void)pthread_mutex_init(&events->waking, NULL);
    return events;
}

void events_free(struct events *events) {
    if (events == NULL) {
        return;
    }
    for (size_t i = 0; i < EVENTS_KEPT; i++) {
        event_unref(events->ring[i].text);
        free(events->ring[i].owner);
    }
    (void)pthread_mutex_destroy(&events->mutex);
    (void)pthread_mutex_destroy(&events->waking);
    free(events);
}

struct event_text *event_ref(struct event_text *text) {
    (void)atomic_fetch_add(&text->n_references, 1);
    return text;
}

void event_unref(struct event_text *text) {
    if (text != NULL && atomic_fetch_sub(&text->n_references, 1) == 1) {
        free(text);
    }
}

const char *event_bytes(const struct event_text *text, size_t *ret_n) {
    *ret_n = text->n;
    return text->bytes;
}

/* JSON text has no line breaks outside of escapes; U+2028 and its like are escaped too, since some clients break lines
 * there. */
static struct event_text *make_text(uint64_t id, const char *type, const json_t *data) {
    char *dump = json_dumps(data, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(6));
    char *all =
        text_format("id: %llu\nevent: %s\ndata: %s\n\n", (unsigned long long)id, type, dump != NULL ? dump : "{}");
    const size_t n = strlen(all);
    struct event_text *text = text_alloc(1, sizeof *text + n);
    atomic_init(&text->n_references, 1);
    text->n = n;
    memcpy(text->bytes, all, n);
    free(all);
    free(dump);
    return text;
}

uint64_t events_publish(struct events *events, const char *type, const char *owner, json_t *data) {
    (void)pthread_mutex_lock(&events->mutex);
    const uint64_t id = ++events->last_id;
    struct event *event = &events->ring[id % EVENTS_KEPT];
    event_unref(event->text);
    free(event->owner);
    *event = (struct event){ make_text(id, type, data), text_copy(owner) };
    (void)pthread_mutex_unlock(&events->mutex);
    json_decref(data);
    (void)pthread_mutex_lock(&events->waking);
    if (events->wake != NULL) {
        events->wake(events->user);
    }
    (void)pthread_mutex_unlock(&events->waking);
    return id;
}

void events_on_publish(struct events *events, void (*wake)(void *user), void *user) {
    (void)pthread_mutex_lock(&events->waking);
    events->wake = wake;
    events->user = user;
    (void)pthread_mutex_unlock(&events->waking);
}

uint64_t events_last_id(struct events *events) {
    (void)pthread_mutex_lock(&events->mutex);
    const uint64_t id = events->last_id;
    (void)pthread_mutex_unlock(&events->mutex);
    return id;
}

struct event_text *events_next(struct events *events, uint64_t *after, const char *viewer_id, bool sees_all,
                               bool *ret_is_gap) {
    struct event_text *found = NULL;
    (void)pthread_mutex_lock(&events->mutex);
    const uint64_t last = events->last_id;
    const uint64_t oldest = last - events->first_id > EVENTS_KEPT ? last - EVENTS_KEPT + 1 : events->first_id + 1;
    *ret_is_gap = *after > last || *after + 1 < oldest;
    if (*ret_is_gap) {
        *after = last;
    }
    while (found == NULL && *after < last) {
        const struct event *event = &events->ring[++*after % EVENTS_KEPT];
        if (event->owner == NULL || sees_all || (viewer_id != NULL && strcmp(event->owner, viewer_id) == 0)) {
            found = event_ref(event->text);
        }
    }
    (void)pthread_mutex_unlock(&events->mutex);
    return found;
}
