/* The queue as others see it: see queue.h. */
#include "jobs/jobs_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/jobs.h"
#include "store/models.h"
#include "store/system.h"

#include <ctype.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RUNNERS 64
#define WAIT_MS 500

/* ---- News ---- */

void queue_changed(struct queue *queue) {
    struct problem ignored = { 0 };
    json_t *numbers = NULL;
    bool is_paused = false;
    struct db *db = store_read(queue->studio->store);
    const bool is_known = system_queue_numbers(db, &numbers, &ignored) == PROBLEM_NONE &&
                          queue_is_paused(db, &is_paused, &ignored) == PROBLEM_NONE;
    store_read_done(queue->studio->store, db);
    if (is_known) {
        json_put(numbers, "paused", json_boolean(is_paused));
        (void)events_publish(queue->studio->events, "queue.changed", NULL, json_incref(numbers));
    }
    json_decref(numbers);
}

void queue_job_changed(struct queue *queue, const char *job_id) {
    struct problem ignored = { 0 };
    json_t *job = NULL;
    struct db *db = store_read(queue->studio->store);
    if (jobs_get(db, NULL, job_id, &job, &ignored) == PROBLEM_NONE) {
        char *owner = text_copy(json_get_text(job, "owner_id"));
        queue_decorate(queue, db, job, false);
        (void)events_publish(queue->studio->events, "job.changed", owner, JSON("{s:O}", "job", job));
        free(owner);
    }
    store_read_done(queue->studio->store, db);
    json_decref(job);
    queue_changed(queue);
    (void)pthread_mutex_lock(&queue->mutex);
    (void)pthread_cond_broadcast(&queue->changed);
    (void)pthread_mutex_unlock(&queue->mutex);
    for (int i = 0; i < queue->n_runners; i++) {
        runner_wake(&queue->runners[i]);
    }
    webhooks_wake(queue->webhooks);
}

/* ---- What the API shows ---- */

static json_t *find_progress(struct queue *queue, const char *job_id) {
    json_t *progress = NULL;
    (void)pthread_mutex_lock(&queue->mutex);
    for (int i = 0; i < queue->n_runners && progress == NULL; i++) {
        if (strcmp(queue->runners[i].shown.job_id, job_id) == 0) {
            progress = runner_progress(&queue->runners[i]);
        }
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return progress;
}

static void add_place(struct queue *queue, struct db *db, json_t *job) {
    struct problem ignored = { 0 };
    json_t *sorts = NULL, *sort;
    size_t i;
    int64_t place = 1;
    if (jobs_ahead(db, json_get_text(job, "id"), &sorts, &ignored) != PROBLEM_NONE) {
        return;
    }
    json_array_foreach(sorts, i, sort) {
        place += json_get_int(sort, "n_jobs", 0);
    }
    const double seconds = eta_job_seconds(queue, db, job, sorts);
    json_decref(sorts);
    json_put(job, "position", json_integer(place));
    json_put(job, "remaining_seconds", seconds >= 0.0 ? json_real(seconds) : json_null());
}

void queue_decorate(struct queue *queue, struct db *db, json_t *job, bool wants_eta) {
    const char *state = json_get_text(job, "state");
    (void)json_object_del(job, "owner_id");
    if (strcmp(state, "running") == 0) {
        json_t *progress = find_progress(queue, json_get_text(job, "id"));
        json_put(job, "progress", progress != NULL ? progress : json_null());
    } else if (strcmp(state, "queued") == 0 && wants_eta) {
        add_place(queue, db, job);
    }
}

enum problem_code queue_get(struct queue *queue, const char *owner, const char *job_id, json_t **ret_job,
                            struct problem *problem) {
    struct db *db = store_read(queue->studio->store);
    const enum problem_code st = jobs_get(db, owner, job_id, ret_job, problem);
    if (st == PROBLEM_NONE) {
        queue_decorate(queue, db, *ret_job, true);
    }
    store_read_done(queue->studio->store, db);
    return st;
}

json_t *queue_running(struct queue *queue, const char *owner) {
    json_t *running = NULL;
    (void)pthread_mutex_lock(&queue->mutex);
    for (int i = 0; i < queue->n_runners && running == NULL; i++) {
        const struct shown *shown = &queue->runners[i].shown;
        if (shown->job_id[0] != '\0' && (owner == NULL || strcmp(shown->owner, owner) == 0)) {
            running = runner_progress(&queue->runners[i]);
            json_put(running, "job", json_string(shown->job_id));
        }
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return running != NULL ? running : json_null();
}

bool queue_preview(struct queue *queue, const char *owner, const char *job_id, struct cyi_image *ret_image) {
    bool is_there = false;
    (void)pthread_mutex_lock(&queue->mutex);
    for (int i = 0; i < queue->n_runners && !is_there; i++) {
        const struct shown *shown = &queue->runners[i].shown;
        is_there = shown->preview != NULL && strcmp(shown->job_id, job_id) == 0 &&
                   (owner == NULL || strcmp(shown->owner, owner) == 0);
        if (is_there) {
            const size_t n = (size_t)shown->preview_width * (size_t)shown->preview_height * 3;
            *ret_image = (struct cyi_image){ .width = shown->preview_width,
                                             .height = shown->preview_height,
                                             .n_channels = 3,
                                             .pixels = text_alloc(n, 1) };
            memcpy(ret_image->pixels, shown->preview, n);
        }
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return is_there;
}

json_t *queue_model(struct queue *queue, const char *name) {
    json_t *model = catalogue_find(queue, name);
    (void)json_object_del(model, "path");
    return model;
}

json_t *queue_models(struct queue *queue) {
    json_t *model;
    size_t i;
    (void)pthread_mutex_lock(&queue->mutex);
    json_t *models = json_need(json_deep_copy(queue->models));
    (void)pthread_mutex_unlock(&queue->mutex);
    json_array_foreach(models, i, model) {
        (void)json_object_del(model, "path"); /* folders of this machine concern nobody */
    }
    return models;
}

json_t *queue_workers(struct queue *queue) {
    json_t *workers = JSON("[]");
    for (int i = 0; i < queue->n_runners; i++) {
        json_add(workers, runner_describe(&queue->runners[i]));
    }
    return workers;
}

bool queue_is_ready(struct queue *queue) {
    bool is_ready = false;
    (void)pthread_mutex_lock(&queue->mutex);
    for (int i = 0; i < queue->n_runners; i++) {
        is_ready = is_ready || queue->runners[i].shown.pid > 0;
    }
    is_ready = is_ready && queue->is_catalogue_read;
    (void)pthread_mutex_unlock(&queue->mutex);
    return is_ready;
}

/* ---- Waiting and cancelling ---- */

static bool has_ended(const json_t *job) {
    const char *state = json_get_text(job, "state");
    return strcmp(state, "queued") != 0 && strcmp(state, "running") != 0;
}

static void wait_for_change(struct queue *queue) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_mutex_lock(&queue->mutex);
    (void)pthread_cond_timedwait(&queue->changed, &queue->mutex, &until);
    (void)pthread_mutex_unlock(&queue->mutex);
}

enum problem_code queue_wait(struct queue *queue, const char *owner, const char *job_id, bool (*is_wanted)(void *user),
                             void *user, json_t **ret_job, struct problem *problem) {
    json_t *job = NULL;
    enum problem_code st = queue_get(queue, owner, job_id, &job, problem);
    while (st == PROBLEM_NONE && !has_ended(job) && is_wanted(user) && !atomic_load(&queue->is_stopping)) {
        wait_for_change(queue);
        json_decref(job);
        job = NULL;
        st = queue_get(queue, owner, job_id, &job, problem);
    }
    if (st == PROBLEM_NONE) {
        *ret_job = job;
    }
    return st;
}

enum problem_code queue_cancel(struct queue *queue, const struct actor *actor, const char *owner, const char *job_id,
                               struct problem *problem) {
    struct store *store = queue->studio->store;
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(store, &db, problem));
    TRY(jobs_cancel(db, owner, job_id, problem));
    TRY(audit_append(db, actor, "job.cancelled", job_id, NULL, problem));
    TRY(store_commit(store, &db, problem));
    log_event(LOG_INFO, "job.cancelled", JSON("{s:s}", "id", job_id));
    queue_job_changed(queue, job_id);
done:
    store_rollback(store, &db);
    return st;
}

/* ---- Start ---- */

static enum problem_code recover(struct queue *queue, struct problem *problem) {
    struct store *store = queue->studio->store;
    struct db *db = NULL;
    json_t *ids = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(store, &db, problem));
    TRY(jobs_recover(db, settings_int(queue->studio->settings, SETTING_attempts), &ids, problem));
    TRY(store_commit(store, &db, problem));
    if (json_array_size(ids) > 0) {
        log_event(LOG_INFO, "queue.recovered", JSON("{s:I}", "jobs", (json_int_t)json_array_size(ids)));
    }
done:
    store_rollback(store, &db);
    json_decref(ids);
    return st;
}

static enum problem_code read_models(struct queue *queue, struct problem *problem) {
    struct db *db = store_read(queue->studio->store);
    const enum problem_code st = models_list(db, &queue->models, problem);
    store_read_done(queue->studio->store, db);
    return st;
}

static void *read_catalogue(void *user) {
    struct queue *queue = user;
    struct problem problem = { 0 };
    while (catalogue_refresh(queue, &problem) != PROBLEM_NONE && !atomic_load(&queue->is_stopping)) {
        log_event(LOG_ERROR, "models.failed", JSON("{s:o}", "error", json_text(problem.detail)));
        problem = (struct problem){ 0 };
        for (int i = 0; i < 50 && !atomic_load(&queue->is_stopping); i++) {
            wait_for_change(queue);
        }
    }
    return NULL;
}

/* Cards as NVIDIA's driver lists them. Whether the engine can use one says its worker. */
static int count_cards(void) {
    int n = 0;
    DIR *folder = opendir("/proc/driver/nvidia/gpus");
    for (const struct dirent *entry = NULL; folder != NULL && (entry = readdir(folder)) != NULL;) {
        n += entry->d_name[0] != '.';
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    return n < MAX_RUNNERS ? n : MAX_RUNNERS;
}

static void add_runner(struct queue *queue, int card) {
    struct runner *runner = &queue->runners[queue->n_runners++];
    runner->queue = queue;
    runner->card = card;
    runner->shown.state = "starting";
    if (card < 0) {
        (void)snprintf(runner->device, sizeof runner->device, "cpu");
    } else {
        (void)snprintf(runner->device, sizeof runner->device, "cuda:%d", card);
    }
}

static enum problem_code choose_devices(struct queue *queue, struct problem *problem) {
    char *devices = settings_text(queue->studio->settings, SETTING_devices);
    char *backend = settings_text(queue->studio->settings, SETTING_backend);
    const bool may_be_cards = strcmp(backend, "auto") == 0 || strcmp(backend, "cuda") == 0;
    enum problem_code st = PROBLEM_NONE;
    queue->runners = text_alloc(MAX_RUNNERS, sizeof *queue->runners);
    if (strcmp(devices, "auto") == 0) {
        const int n_cards = may_be_cards ? count_cards() : 0;
        for (int i = 0; i < n_cards; i++) {
            add_runner(queue, i);
        }
    } else if (strcmp(devices, "cpu") != 0) {
        for (char *rest = devices, *item; (item = strsep(&rest, ",")) != NULL;) {
            char *end = NULL;
            const long card = strtol(item, &end, 10);
            if (!isdigit((unsigned char)item[0]) || *end != '\0' || card > 255 || queue->n_runners == MAX_RUNNERS) {
                st = problem_set(problem, PROBLEM_INVALID, "devices",
                                 "devices is auto, cpu, or up to %d numbers of cards such as 0,1; not \"%.60s\"",
                                 MAX_RUNNERS, item);
                break;
            }
            add_runner(queue, (int)card);
        }
    }
    if (st == PROBLEM_NONE && queue->n_runners == 0) {
        add_runner(queue, -1);
    }
    free(devices);
    free(backend);
    return st;
}

static void free_queue(struct queue *queue) {
    (void)pthread_cond_destroy(&queue->changed);
    (void)pthread_mutex_destroy(&queue->mutex);
    (void)pthread_mutex_destroy(&queue->catalogue_mutex);
    json_decref(queue->models);
    free(queue->runners);
    free(queue);
}

static struct queue *create(struct studio *studio) {
    struct queue *queue = text_alloc(1, sizeof *queue);
    pthread_condattr_t clock;
    queue->studio = studio;
    (void)pthread_mutex_init(&queue->mutex, NULL);
    (void)pthread_mutex_init(&queue->catalogue_mutex, NULL);
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&queue->changed, &clock);
    (void)pthread_condattr_destroy(&clock);
    return queue;
}

static void stop_threads(struct queue *queue, int n_runners) {
    atomic_store(&queue->is_stopping, true);
    for (int i = 0; i < n_runners; i++) { /* all at once: each may take a second */
        runner_wake(&queue->runners[i]);
    }
    for (int i = 0; i < n_runners; i++) {
        runner_join(&queue->runners[i]);
    }
    webhooks_stop(queue->webhooks);
    queue->webhooks = NULL;
}

enum problem_code queue_start(struct studio *studio, struct queue **ret_queue, struct problem *problem) {
    struct queue *queue = create(studio);
    int n_started = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(choose_devices(queue, problem));
    TRY(recover(queue, problem));
    TRY(read_models(queue, problem));
    queue->webhooks = webhooks_start(studio);
    for (; n_started < queue->n_runners; n_started++) {
        TRY(runner_start(&queue->runners[n_started], problem));
    }
    if (pthread_create(&queue->catalogue_thread, NULL, read_catalogue, queue) != 0) {
        st = problem_set(problem, PROBLEM_INTERNAL, NULL, "the thread that looks for models cannot be started");
        goto done;
    }
    *ret_queue = queue;
    queue = NULL;
done:
    if (queue != NULL) {
        stop_threads(queue, n_started);
        free_queue(queue);
    }
    return st;
}

void queue_stop(struct queue *queue) {
    if (queue != NULL) {
        atomic_store(&queue->is_stopping, true);
        (void)pthread_join(queue->catalogue_thread, NULL);
        stop_threads(queue, queue->n_runners);
        free_queue(queue);
    }
}
