/* The catalogue of models: see jobs_internal.h. A worker of its own opens each one, so that no damaged file can harm
 * the server or a job, and so that it does not matter what the others are busy with. */
#include "jobs/jobs_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "files.h"
#include "model_search.h"
#include "store/models.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DESCRIBE_SECONDS 120 /* a big model on a slow disk */
#define SLICE_MS 100

struct describer {
    struct queue *queue;
    struct process process;
};

static enum problem_code start_describer(struct describer *describer, struct problem *problem) {
    struct studio *studio = describer->queue->studio;
    const struct process_options options = { .program = studio->paths.program,
                                             .backend = "reference",
                                             .precision = "f32",
                                             .n_threads = 1,
                                             .idle_seconds = 1,
                                             .card = -1 };
    return describer->process.pid != 0
               ? PROBLEM_NONE
               : process_start(&options, &describer->queue->is_stopping, &describer->process, problem);
}

/* What the worker says of the model as its answer's header; NULL when it died over it, took too long, or we are stopping. */
static json_t *ask(struct describer *describer, const char *path) {
    const int64_t deadline = clock_monotonic_us() + DESCRIBE_SECONDS * CLOCK_SECOND;
    process_send(&describer->process, JSON("{s:s, s:s}", "type", "describe", "path", path), NULL, 0);
    while (clock_monotonic_us() < deadline && !atomic_load(&describer->queue->is_stopping)) {
        struct message message = { 0 };
        const enum process_event event = process_receive(&describer->process, -1, SLICE_MS, &message);
        if (event == PROCESS_ENDED) {
            break;
        }
        json_t *answer =
            event == PROCESS_MESSAGE && strcmp(message.type, "model") == 0 ? json_incref(message.header) : NULL;
        if (event == PROCESS_MESSAGE) {
            message_done(&message);
        }
        if (answer != NULL) {
            return answer;
        }
    }
    free(process_kill(&describer->process, true));
    return NULL;
}

/* As the API shows a model. */
static json_t *make_entry(const struct model_place *place, json_t *answer) {
    static const char *const copied[][2] = {
        { "title", "name" },
        { "family", "family" },
        { "licence", "licence" },
        { "fingerprint", "fingerprint" },
        { "distilled", "distilled" },
        { "guidance_embedded", "guidance_embedded" },
        { "parameters", "parameters" },
        { "mapped_bytes", "mapped_bytes" },
        { "max_text_tokens", "max_text_tokens" },
        { "default_width", "width" },
        { "default_height", "height" },
        { "default_steps", "steps" },
        { "default_guidance", "guidance" },
        { "size_multiple", "size_multiple" },
        { "max_references", "max_references" },
    };
    const bool is_usable = json_is_true(json_object_get(answer, "ok"));
    json_t *entry = JSON("{s:s, s:s, s:b, s:I}", "path", place->path, "name", place->name, "usable", is_usable,
                         "disk_bytes", (json_int_t)model_search_size(place->path));
    for (size_t i = 0; is_usable && i < sizeof copied / sizeof copied[0]; i++) {
        json_t *value = json_object_get(answer, copied[i][1]);
        json_put(entry, copied[i][0], value != NULL ? json_incref(value) : json_null());
    }
    if (!is_usable) {
        const char *text = json_get_text(answer, "text");
        json_put(entry, "problem", json_text(text != NULL ? text : "the worker ended while it opened this model"));
    }
    return entry;
}

static enum problem_code describe_all(struct queue *queue, const struct model_list *list, json_t *models,
                                      struct problem *problem) {
    struct describer describer = { .queue = queue, .process = { .fd = -1 } };
    enum problem_code st = PROBLEM_NONE;
    for (size_t i = 0; i < list->n && !atomic_load(&queue->is_stopping); i++) {
        if (!text_is_utf8(list->items[i].path)) {
            continue; /* no text of ours could name it */
        }
        TRY(start_describer(&describer, problem));
        json_t *answer = ask(&describer, list->items[i].path);
        json_add(models, make_entry(&list->items[i], answer));
        json_decref(answer);
    }
done:
    process_quit(&describer.process);
    return st;
}

static enum problem_code keep(struct queue *queue, json_t *models, struct problem *problem) {
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(queue->studio->store, &db, problem));
    TRY(models_replace(db, models, problem));
    TRY(store_commit(queue->studio->store, &db, problem));
    (void)pthread_mutex_lock(&queue->mutex);
    json_decref(queue->models);
    queue->models = json_need(json_deep_copy(models)); /* counts of references are not for several threads */
    queue->is_catalogue_read = true;
    (void)pthread_mutex_unlock(&queue->mutex);
done:
    store_rollback(queue->studio->store, &db);
    return st;
}

enum problem_code catalogue_refresh(struct queue *queue, struct problem *problem) {
    struct model_list list;
    json_t *models = JSON("[]");
    enum problem_code st = PROBLEM_NONE;
    char *folders = settings_text(queue->studio->settings, SETTING_models);
    (void)pthread_mutex_lock(&queue->catalogue_mutex);
    model_search_find_in(queue->studio->paths.program, folders, &list);
    TRY(describe_all(queue, &list, models, problem));
    if (!atomic_load(&queue->is_stopping)) {
        TRY(keep(queue, models, problem));
        log_event(LOG_INFO, "models.found", JSON("{s:I}", "n", (json_int_t)json_array_size(models)));
        (void)events_publish(queue->studio->events, "model.changed", NULL,
                             JSON("{s:o}", "models", queue_models(queue)));
    }
done:
    model_search_done(&list);
    (void)pthread_mutex_unlock(&queue->catalogue_mutex);
    json_decref(models);
    free(folders);
    return st;
}

static bool is_called(const char *full, const char *name) {
    const char *slash = strchr(full, '/');
    return strcasecmp(full, name) == 0 || (slash != NULL && strcasecmp(slash + 1, name) == 0);
}

json_t *catalogue_find(struct queue *queue, const char *name) {
    json_t *found = NULL, *model;
    size_t i;
    (void)pthread_mutex_lock(&queue->mutex);
    json_array_foreach(queue->models, i, model) {
        if (found == NULL && is_called(json_get_text(model, "name"), name)) {
            found = json_deep_copy(model); /* counts of references are not for several threads */
        }
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return found;
}

char *catalogue_name(struct queue *queue, const char *path) {
    char *name = NULL;
    json_t *model;
    size_t i;
    (void)pthread_mutex_lock(&queue->mutex);
    json_array_foreach(queue->models, i, model) {
        if (name == NULL && strcmp(json_get_text(model, "path"), path) == 0) {
            name = text_copy(json_get_text(model, "name"));
        }
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return name != NULL ? name : text_copy(files_base_name(path));
}
