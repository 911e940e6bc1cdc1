/* A thread that owns a worker and feeds it one job after the other: see jobs_internal.h. What befalls the worker never ends the
 * thread: it says why, waits a moment, and starts another one. */
#include "jobs/jobs_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "gallery/gallery.h"
#include "store/jobs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MIN_PAUSE_US 200000
#define MAX_PAUSE_US (10 * CLOCK_SECOND)
#define LOOK_MS 5000 /* how long a change that nobody told us of can stay unseen */
#define SPACE_MS 1000

/* ---- What others see ---- */

static void publish_state(struct runner *runner) {
    (void)events_publish(runner->queue->studio->events, "worker.changed", NULL,
                         JSON("{s:o}", "worker", runner_describe(runner)));
}

void runner_set_state(struct runner *runner, const char *state, const char *error) {
    struct shown *shown = &runner->shown;
    (void)pthread_mutex_lock(&runner->queue->mutex);
    const bool is_changed = strcmp(shown->state, state) != 0 || strcmp(shown->error, error) != 0;
    shown->state = state;
    (void)snprintf(shown->error, sizeof shown->error, "%s", error);
    shown->pid = runner->process.pid;
    json_decref(shown->engine);
    shown->engine = json_deep_copy(runner->process.engine);
    (void)pthread_mutex_unlock(&runner->queue->mutex);
    if (is_changed) {
        publish_state(runner);
    }
}

json_t *runner_describe(struct runner *runner) {
    const struct shown *shown = &runner->shown;
    (void)pthread_mutex_lock(&runner->queue->mutex);
    json_t *json = JSON("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:i}", "device", runner->device, "state", shown->state,
                        "error", json_text(shown->error[0] != '\0' ? shown->error : NULL), "model",
                        json_text(shown->model), "job", json_text(shown->job_id[0] != '\0' ? shown->job_id : NULL),
                        "engine", shown->engine != NULL ? json_deep_copy(shown->engine) : json_null(), "pid",
                        shown->pid > 0 ? json_integer(shown->pid) : json_null(), "deaths", shown->n_deaths);
    (void)pthread_mutex_unlock(&runner->queue->mutex);
    return json;
}

static json_t *known_or_null(double value) {
    return value >= 0.0 ? json_real(value) : json_null();
}

json_t *runner_progress(const struct runner *runner) {
    const struct shown *shown = &runner->shown;
    json_t *json =
        JSON("{s:i, s:i, s:s, s:i, s:i, s:f, s:f, s:o}", "picture", shown->picture, "n_pictures", shown->n_pictures,
             "phase", shown->phase, "step", shown->step, "n_steps", shown->n_steps, "picture_fraction", shown->fraction,
             "fraction", (shown->picture + shown->fraction) / (shown->n_pictures > 0 ? shown->n_pictures : 1),
             "remaining_seconds", known_or_null(shown->remaining_seconds));
    char *preview = shown->preview != NULL
                        ? text_format("/api/v1/jobs/%s/preview?n=%lld", shown->job_id, (long long)shown->preview_number)
                        : NULL;
    json_put(json, "preview", json_text(preview));
    free(preview);
    return json;
}

/* ---- The process ---- */

static void audit(struct runner *runner, const char *action, json_t *details) {
    struct problem ignored = { 0 };
    (void)audit_write(runner->queue->studio->store, &actor_system, action, runner->device, details, &ignored);
}

static void set_model(struct runner *runner, const char *path) {
    char *name = path != NULL ? catalogue_name(runner->queue, path) : NULL;
    (void)pthread_mutex_lock(&runner->queue->mutex);
    char *before = runner->shown.model;
    runner->shown.model = name;
    (void)pthread_mutex_unlock(&runner->queue->mutex);
    if (before != NULL) {
        audit(runner, "model.unloaded", JSON("{s:o}", "model", json_text(before)));
    }
    if (path != NULL) {
        audit(runner, "model.loaded", JSON("{s:o}", "model", json_text(name)));
    }
    free(before);
    publish_state(runner);
}

static void forget_model(struct runner *runner) {
    if (runner->shown.model != NULL) { /* only this thread changes it */
        set_model(runner, NULL);
    }
}

enum problem_code runner_need_process(struct runner *runner, const char *precision, struct problem *problem) {
    struct studio *studio = runner->queue->studio;
    struct settings *settings = studio->settings;
    char *preset = settings_text(settings, SETTING_precision), *backend = settings_text(settings, SETTING_backend);
    const char *wanted = precision != NULL ? precision : preset;
    enum problem_code st = PROBLEM_NONE;
    if (runner->process.pid != 0 && strcmp(runner->precision, wanted) == 0) {
        goto done;
    }
    process_quit(&runner->process);
    forget_model(runner);
    runner_set_state(runner, "starting", "");
    const struct process_options options = { .program = studio->paths.program,
                                             .backend = backend,
                                             .precision = wanted,
                                             .cache = studio->paths.cache,
                                             .n_threads = (int)settings_int(settings, SETTING_threads),
                                             .idle_seconds = (int)settings_int(settings, SETTING_worker_idle),
                                             .card = runner->card };
    TRY(process_start(&options, &runner->queue->is_stopping, &runner->process, problem));
    free(runner->precision);
    runner->precision = text_copy(wanted);
    runner_set_state(runner, "idle", "");
    audit(runner, "worker.started",
          JSON("{s:i, s:O}", "pid", (int)runner->process.pid, "engine", runner->process.engine));
    log_event(LOG_INFO, "worker.started",
              JSON("{s:s, s:i, s:O}", "device", runner->device, "pid", (int)runner->process.pid, "backend",
                   json_object_get(runner->process.engine, "backend")));
done:
    free(preset);
    free(backend);
    return st;
}

static void grow_pause(struct runner *runner) {
    runner->pause_us = runner->pause_us == 0                 ? MIN_PAUSE_US
                       : runner->pause_us > MAX_PAUSE_US / 2 ? MAX_PAUSE_US
                                                             : runner->pause_us * 2;
}

void runner_bury(struct runner *runner, const char *why) {
    const pid_t pid = runner->process.pid;
    /* Who was found dead may still be on the way there; who hangs is not waited for. */
    char *end = process_kill(&runner->process, why == NULL);
    char *sentence = why != NULL ? text_copy(why) : text_format("it ended %s", end);
    (void)pthread_mutex_lock(&runner->queue->mutex);
    runner->shown.n_deaths++;
    (void)pthread_mutex_unlock(&runner->queue->mutex);
    grow_pause(runner);
    log_event(LOG_WARNING, "worker.died",
              JSON("{s:s, s:i, s:o}", "device", runner->device, "pid", (int)pid, "why", json_text(sentence)));
    audit(runner, "worker.died", JSON("{s:i, s:o}", "pid", (int)pid, "why", json_text(sentence)));
    forget_model(runner);
    runner_set_state(runner, "restarting", sentence);
    free(sentence);
    free(end);
}

void runner_hear(struct runner *runner, const struct message *message) {
    if (strcmp(message->type, "state") == 0) {
        set_model(runner, message_is_true(message, "loaded") ? message_text(message, "model") : NULL);
    } else if (strcmp(message->type, "log") == 0) {
        const char *level = message_text(message, "level");
        log_event(strcmp(level, "warning") == 0 ? LOG_WARNING : LOG_DEBUG, "worker.says",
                  JSON("{s:s, s:o}", "device", runner->device, "event", json_text(message_text(message, "event"))));
    }
}

/* ---- The loop ---- */

/* Nothing to do: hears the worker until somebody wakes us or the time is over. */
static void idle(struct runner *runner, int timeout_ms) {
    const int64_t deadline = clock_monotonic_us() + timeout_ms * INT64_C(1000);
    while (!atomic_load(&runner->must_look) && !atomic_load(&runner->queue->is_stopping)) {
        const int64_t left_us = deadline - clock_monotonic_us();
        struct message message = { 0 };
        if (left_us <= 0) {
            return;
        }
        const enum process_event event =
            process_receive(&runner->process, runner->wake_fd, (int)(left_us / 1000) + 1, &message);
        if (event == PROCESS_ENDED) {
            runner_bury(runner, NULL);
            return;
        }
        if (event == PROCESS_MESSAGE) {
            runner_hear(runner, &message);
            message_done(&message);
        }
    }
}

static json_t *claim(struct runner *runner) {
    struct store *store = runner->queue->studio->store;
    struct problem problem = { 0 };
    struct db *db = NULL;
    json_t *job = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(store, &db, &problem));
    TRY(jobs_claim(db, runner->device, &job, &problem));
    if (job != NULL) {
        TRY(audit_append(db, &actor_system, "job.started", json_get_text(job, "id"),
                         JSON("{s:s, s:O}", "device", runner->device, "attempt", json_object_get(job, "attempts")),
                         &problem));
        TRY(store_commit(store, &db, &problem));
    }
done:
    store_rollback(store, &db);
    if (st != PROBLEM_NONE) {
        log_event(LOG_ERROR, "queue.failed", JSON("{s:o}", "error", json_text(problem.detail)));
        json_decref(job);
        return NULL;
    }
    return job;
}

/* A process that does not start is tried again, ever more slowly; until then no job is touched. */
static bool is_ready(struct runner *runner) {
    struct problem problem = { 0 };
    if (runner->process.pid == 0 && runner->pause_us > 0) {
        const int64_t until = clock_monotonic_us() + runner->pause_us;
        while (clock_monotonic_us() < until && !atomic_load(&runner->queue->is_stopping)) {
            (void)usleep(20000);
        }
    }
    if (atomic_load(&runner->queue->is_stopping)) {
        return false;
    }
    if (runner->process.pid == 0 && runner_need_process(runner, NULL, &problem) != PROBLEM_NONE) {
        grow_pause(runner);
        log_event(LOG_ERROR, "worker.failed",
                  JSON("{s:s, s:o}", "device", runner->device, "error", json_text(problem.detail)));
        runner_set_state(runner, "restarting", problem.detail);
        return false;
    }
    return true;
}

static void work(struct runner *runner) {
    struct gallery *gallery = runner->queue->studio->gallery;
    atomic_store(&runner->must_look, false);
    if (gallery_room(gallery) < 0) {
        runner_set_state(runner, "waiting", "the pictures' disk has less room than its reserve");
        idle(runner, SPACE_MS);
        return;
    }
    runner_set_state(runner, "idle", "");
    json_t *job = claim(runner);
    if (job != NULL) {
        run_job(runner, job);
        json_decref(job);
    } else {
        idle(runner, LOOK_MS);
    }
}

static void *run(void *user) {
    struct runner *runner = user;
    while (!atomic_load(&runner->queue->is_stopping)) {
        if (is_ready(runner)) {
            work(runner);
        }
    }
    process_quit(&runner->process);
    return NULL;
}

enum problem_code runner_start(struct runner *runner, struct problem *problem) {
    runner->process.fd = -1;
    runner->shown.state = "starting";
    runner->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (runner->wake_fd < 0) {
        return problem_system(problem, errno, "a worker's wake");
    }
    if (pthread_create(&runner->thread, NULL, run, runner) != 0) {
        (void)close(runner->wake_fd);
        return problem_set(problem, PROBLEM_INTERNAL, NULL, "a worker's thread cannot be started");
    }
    return PROBLEM_NONE;
}

void runner_wake(struct runner *runner) {
    const uint64_t one = 1;
    atomic_store(&runner->must_look, true);
    (void)!write(runner->wake_fd, &one, sizeof one);
}

void runner_join(struct runner *runner) {
    runner_wake(runner);
    (void)pthread_join(runner->thread, NULL);
    (void)close(runner->wake_fd);
    free(runner->precision);
    free(runner->shown.model);
    free(runner->shown.preview);
    json_decref(runner->shown.engine);
}
