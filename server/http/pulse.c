/* pulse: the one thread that keeps time. It wakes watchers after an event (many events in a row are one waking), and
 * once a second looks after watchers and connections that say nothing by themselves. */
#include "http/http_internal.h"

#include "base/clock.h"

#include <time.h>

#define REST_NS 5000000 /* between two wakings, so that a burst of events costs one */

static void *pulse_run(void *user) {
    struct http *http = user;
    struct pulse *pulse = &http->pulse;
    const struct timespec rest = { 0, REST_NS };
    int64_t last_second_us = clock_monotonic_us();
    (void)pthread_mutex_lock(&pulse->mutex);
    while (!pulse->is_ending) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        if (!pulse->is_due) {
            (void)pthread_cond_timedwait(&pulse->changed, &pulse->mutex, &until);
        }
        pulse->is_due = false;
        (void)pthread_mutex_unlock(&pulse->mutex);
        const int64_t now_us = clock_monotonic_us();
        const bool is_second = now_us - last_second_us >= CLOCK_SECOND;
        if (is_second) {
            last_second_us = now_us;
            connections_sweep(http);
        }
        watchers_tick(http, is_second);
        (void)nanosleep(&rest, NULL);
        (void)pthread_mutex_lock(&pulse->mutex);
    }
    (void)pthread_mutex_unlock(&pulse->mutex);
    return NULL;
}

void pulse_init(struct pulse *pulse) {
    pthread_condattr_t attributes;
    (void)pthread_mutex_init(&pulse->mutex, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&pulse->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

void pulse_done(struct pulse *pulse) {
    (void)pthread_cond_destroy(&pulse->changed);
    (void)pthread_mutex_destroy(&pulse->mutex);
}

void pulse_start(struct http *http) {
    if (pthread_create(&http->pulse.thread, NULL, pulse_run, http) != 0) {
        text_out_of_memory();
    }
}

void pulse_wake(void *user) {
    struct pulse *pulse = &((struct http *)user)->pulse;
    (void)pthread_mutex_lock(&pulse->mutex);
    pulse->is_due = true;
    (void)pthread_cond_signal(&pulse->changed);
    (void)pthread_mutex_unlock(&pulse->mutex);
}

void pulse_stop(struct http *http) {
    struct pulse *pulse = &http->pulse;
    (void)pthread_mutex_lock(&pulse->mutex);
    pulse->is_ending = true;
    (void)pthread_cond_signal(&pulse->changed);
    (void)pthread_mutex_unlock(&pulse->mutex);
    (void)pthread_join(pulse->thread, NULL);
}
