/* The thread that tidies up: see upkeep.h. */
#include "upkeep.h"

#include "base/clock.h"
#include "base/log.h"
#include "gallery/gallery.h"
#include "store/audit_log.h"
#include "studio.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#define PERIOD_SECONDS 60
#define DAY_US (24 * 3600 * CLOCK_SECOND)

struct upkeep {
    struct studio *studio;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards is_stopping */
    pthread_cond_t stop;
    bool is_stopping;
};

/* A day's rows at a time, so that there is one record of a gap a day and not one a minute. */
static void trim_audit(struct studio *studio) {
    struct problem problem = { 0 };
    const int64_t days = settings_int(studio->settings, SETTING_audit_days), now_us = clock_now_us();
    int64_t oldest_us = now_us, n = 0;
    if (days == 0) {
        return;
    }
    struct db *db = store_read(studio->store);
    enum problem_code st = audit_oldest(db, &oldest_us, &problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE && oldest_us < now_us - (days + 1) * DAY_US) {
        st = audit_trim(studio->store, &studio->audit_key, now_us - days * DAY_US, &n, &problem);
    }
    if (st != PROBLEM_NONE) {
        log_event(LOG_WARNING, "audit.not-trimmed", JSON("{s:s}", "error", problem.detail));
    } else if (n > 0) {
        log_event(LOG_INFO, "audit.trimmed", JSON("{s:I}", "rows", (json_int_t)n));
    }
}

static bool wait_a_while(struct upkeep *upkeep) {
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PERIOD_SECONDS;
    int code = 0;
    (void)pthread_mutex_lock(&upkeep->mutex);
    while (!upkeep->is_stopping && code != ETIMEDOUT) {
        code = pthread_cond_timedwait(&upkeep->stop, &upkeep->mutex, &until);
    }
    const bool goes_on = !upkeep->is_stopping;
    (void)pthread_mutex_unlock(&upkeep->mutex);
    return goes_on;
}

static void *run(void *user) {
    struct upkeep *upkeep = user;
    do {
        gallery_tidy(upkeep->studio->gallery);
        trim_audit(upkeep->studio);
    } while (wait_a_while(upkeep));
    return NULL;
}

enum problem_code upkeep_start(struct studio *studio, struct upkeep **ret_upkeep, struct problem *problem) {
    struct upkeep *upkeep = text_alloc(1, sizeof *upkeep);
    upkeep->studio = studio;
    (void)pthread_mutex_init(&upkeep->mutex, NULL);
    (void)pthread_cond_init(&upkeep->stop, NULL);
    if (pthread_create(&upkeep->thread, NULL, run, upkeep) != 0) {
        free(upkeep);
        return problem_set(problem, PROBLEM_INTERNAL, NULL, "the thread that tidies up cannot be started");
    }
    *ret_upkeep = upkeep;
    return PROBLEM_NONE;
}

void upkeep_stop(struct upkeep *upkeep) {
    if (upkeep == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&upkeep->mutex);
    upkeep->is_stopping = true;
    (void)pthread_cond_broadcast(&upkeep->stop);
    (void)pthread_mutex_unlock(&upkeep->mutex);
    (void)pthread_join(upkeep->thread, NULL);
    (void)pthread_mutex_destroy(&upkeep->mutex);
    (void)pthread_cond_destroy(&upkeep->stop);
    free(upkeep);
}
