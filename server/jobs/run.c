/* One job on one worker: its inputs, then picture after picture, each kept as it comes, then its end. The job is ours
 * only while its claim holds: whoever cancels it ends the claim in the database, we notice, and what is in hand is
 * thrown away. */
#include "jobs/jobs_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "gallery/gallery.h"
#include "metadata.h"
#include "store/jobs.h"
#include "store/models.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CANCEL_MS 800 /* that a worker has to end a picture by itself */
#define SLICE_MS 100
#define RETRY_MS 1000 /* between attempts to write what cannot be written now */
#define MIN_PROGRESS_US 100000
#define MAX_PREVIEW_BYTES (4 * 1024 * 1024)
#define PHASE_NO_SPACE "waiting for disk space"

enum outcome {
    OUTCOME_GOES_ON,
    OUTCOME_TAKEN,    /* the claim has ended */
    OUTCOME_STOPPING, /* the queue stops */
    OUTCOME_FAILED,   /* by a fault of the request */
    OUTCOME_BROKEN,   /* by a fault of the worker's: another attempt may do */
};

struct run {
    struct runner *runner;
    struct studio *studio;
    const json_t *request;
    const char *id, *owner;
    int64_t claim;
    int n_pictures, n_done, n_attempts;
    double picture_ms; /* as far as it is known; < 0: not yet */
    int64_t begun_us, progress_us;
    char code[32], error[512];
    struct recipe_file references[CYI_MAX_REFERENCES], init, mask;
    int n_references;
};

static enum outcome fail(struct run *run, enum outcome outcome, const char *code, const char *error) {
    (void)snprintf(run->code, sizeof run->code, "%s", code);
    (void)snprintf(run->error, sizeof run->error, "%s", error);
    return outcome;
}

/* ---- Is it still ours? ---- */

static enum outcome check_claim(struct run *run) {
    struct problem problem = { 0 };
    if (atomic_load(&run->runner->queue->is_stopping)) {
        return OUTCOME_STOPPING;
    }
    struct db *db = store_read(run->studio->store);
    const enum problem_code st = jobs_check_claim(db, run->id, run->claim, &problem);
    store_read_done(run->studio->store, db);
    return st == PROBLEM_CONFLICT ? OUTCOME_TAKEN : OUTCOME_GOES_ON;
}

/* The same, without asking the database when nothing has changed. */
static enum outcome look(struct run *run) {
    if (atomic_load(&run->runner->queue->is_stopping)) {
        return OUTCOME_STOPPING;
    }
    return atomic_exchange(&run->runner->must_look, false) ? check_claim(run) : OUTCOME_GOES_ON;
}

/* ---- Progress ---- */

static void publish_progress(struct run *run) {
    struct queue *queue = run->runner->queue;
    (void)pthread_mutex_lock(&queue->mutex);
    json_t *progress = runner_progress(run->runner);
    (void)pthread_mutex_unlock(&queue->mutex);
    (void)events_publish(run->studio->events, "job.progress", run->owner,
                         JSON("{s:s, s:o}", "job", run->id, "progress", progress));
    run->progress_us = clock_monotonic_us();
}

static void set_phase(struct run *run, const char *phase) {
    (void)pthread_mutex_lock(&run->runner->queue->mutex);
    (void)snprintf(run->runner->shown.phase, sizeof run->runner->shown.phase, "%s", phase);
    (void)pthread_mutex_unlock(&run->runner->queue->mutex);
    publish_progress(run);
}

static void begin_picture(struct run *run, int picture) {
    struct shown *shown = &run->runner->shown;
    const int n_left = run->n_pictures - picture;
    (void)pthread_mutex_lock(&run->runner->queue->mutex);
    shown->picture = picture;
    shown->step = 0;
    shown->n_steps = (int)json_get_int(run->request, "steps", 0);
    shown->fraction = 0.0;
    shown->remaining_seconds = run->picture_ms >= 0.0 ? run->picture_ms * 1e-3 * n_left : -1.0;
    (void)pthread_mutex_unlock(&run->runner->queue->mutex);
    set_phase(run, "load");
}

/* Takes the message's pixels over as preview. false: there are none that fit. */
static bool take_preview(struct shown *shown, struct message *message) {
    const json_t *preview = json_object_get(message->header, "preview");
    const int64_t width = json_get_int(preview, "width", 0), height = json_get_int(preview, "height", 0);
    if (width < 1 || height < 1 || width > CYI_MAX_IMAGE_SIDE || height > CYI_MAX_IMAGE_SIDE ||
        message->body_bytes != (size_t)(width * height * 3) || message->body_bytes > MAX_PREVIEW_BYTES) {
        return false;
    }
    free(shown->preview);
    shown->preview = message->body;
    shown->preview_width = (int)width;
    shown->preview_height = (int)height;
    shown->preview_number++;
    message->body = NULL;
    message->body_bytes = 0;
    return true;
}

static void hear_progress(struct run *run, struct message *message) {
    struct shown *shown = &run->runner->shown;
    const double remaining = message_number(message, "remaining_seconds", -1.0);
    const int n_after = run->n_pictures - shown->picture - 1;
    (void)pthread_mutex_lock(&run->runner->queue->mutex);
    (void)snprintf(shown->phase, sizeof shown->phase, "%s", message_text(message, "phase"));
    if (strcmp(shown->phase, "denoise") == 0) {
        shown->step = (int)message_int(message, "step", 0);
        shown->n_steps = (int)message_int(message, "n_steps", 0);
    }
    shown->fraction = message_number(message, "fraction", 0.0);
    if (remaining >= 0.0 && (n_after == 0 || run->picture_ms >= 0.0)) {
        shown->remaining_seconds = remaining + (n_after > 0 ? run->picture_ms * 1e-3 * n_after : 0.0);
    }
    const bool has_preview = take_preview(shown, message);
    (void)pthread_mutex_unlock(&run->runner->queue->mutex);
    if (has_preview || clock_monotonic_us() - run->progress_us >= MIN_PROGRESS_US) {
        publish_progress(run);
    }
}

/* ---- A picture from the worker ---- */

/* Its own end is waited for a moment: then it keeps its model. */
static void cancel_picture(struct run *run) {
    struct runner *runner = run->runner;
    const int64_t deadline = clock_monotonic_us() + CANCEL_MS * INT64_C(1000);
    process_send(&runner->process, JSON("{s:s, s:s}", "type", "cancel", "id", run->id), NULL, 0);
    for (;;) {
        struct message message = { 0 };
        const int64_t left_us = deadline - clock_monotonic_us();
        const enum process_event event =
            left_us > 0 ? process_receive(&runner->process, -1, (int)(left_us / 1000) + 1, &message) : PROCESS_ENDED;
        if (event == PROCESS_ENDED) {
            break;
        }
        if (event == PROCESS_MESSAGE) {
            const bool is_end = strcmp(message.type, "cancelled") == 0 || strcmp(message.type, "picture") == 0 ||
                                strcmp(message.type, "failed") == 0;
            runner_hear(runner, &message);
            message_done(&message);
            if (is_end) {
                return;
            }
        }
    }
    free(process_kill(&runner->process, false));
    runner_set_state(runner, "starting", "");
}

static enum outcome hear_failure(struct run *run, const struct message *message) {
    const char *code = message_text(message, "code");
    const bool is_ours = strcmp(code, "numeric") == 0 || strcmp(code, "io") == 0 || strcmp(code, "cancelled") == 0;
    return fail(run, is_ours ? OUTCOME_BROKEN : OUTCOME_FAILED, code, message_text(message, "text"));
}

static bool is_about(const struct run *run, const struct message *message, int picture) {
    return strcmp(message_text(message, "id"), run->id) == 0 && message_int(message, "picture", -1) == picture;
}

struct pulse {
    int64_t n_operations, moved_us;
};

/* Does the engine move? */
static void feel_pulse(struct pulse *pulse, const struct message *message) {
    const bool is_alive = strcmp(message->type, "alive") == 0;
    const int64_t n = message_int(message, "operations", -1);
    if (!is_alive || n != pulse->n_operations) {
        pulse->n_operations = is_alive ? n : pulse->n_operations;
        pulse->moved_us = clock_monotonic_us();
    }
}

/* GOES_ON: *ret_message is the picture, the caller's. */
static enum outcome wait_for_picture(struct run *run, int picture, struct message *ret_message) {
    struct runner *runner = run->runner;
    const int64_t limit_seconds = settings_int(run->studio->settings, SETTING_worker_hang);
    struct pulse pulse = { .n_operations = -1, .moved_us = clock_monotonic_us() };
    for (;;) {
        struct message message = { 0 };
        enum outcome outcome = look(run);
        if (outcome != OUTCOME_GOES_ON) {
            cancel_picture(run);
            return outcome;
        }
        const enum process_event event = process_receive(&runner->process, runner->wake_fd, SLICE_MS, &message);
        if (event == PROCESS_ENDED) {
            runner_bury(runner, NULL);
            return fail(run, OUTCOME_BROKEN, "worker-died", "the worker died in the middle of a picture");
        }
        if (clock_monotonic_us() - pulse.moved_us > limit_seconds * CLOCK_SECOND) {
            char *why = text_format("it did not move for %lld s", (long long)limit_seconds);
            message_done(&message);
            runner_bury(runner, why);
            free(why);
            return fail(run, OUTCOME_BROKEN, "worker-hung", "the worker stopped in the middle of a picture");
        }
        if (event == PROCESS_NOTHING) {
            continue;
        }
        feel_pulse(&pulse, &message);
        if (!is_about(run, &message, picture)) {
            runner_hear(runner, &message);
        } else if (strcmp(message.type, "progress") == 0) {
            hear_progress(run, &message);
        } else if (strcmp(message.type, "picture") == 0) {
            *ret_message = message;
            return OUTCOME_GOES_ON;
        } else if (strcmp(message.type, "failed") == 0 || strcmp(message.type, "cancelled") == 0) {
            outcome = hear_failure(run, &message);
            message_done(&message);
            return outcome;
        }
        message_done(&message);
    }
}

static void order_picture(struct run *run, int picture, int64_t seed) {
    const json_t *request = run->request;
    char *path = NULL;
    json_t *model = catalogue_find(run->runner->queue, json_get_text(request, "model"));
    path = text_copy(json_get_text(model, "path"));
    json_t *order = JSON("{s:s, s:s, s:i, s:s, s:O, s:O, s:O, s:O, s:O, s:I, s:i, s:b}", "type", "generate", "id",
                         run->id, "picture", picture, "model", path != NULL ? path : json_get_text(request, "model"),
                         "prompt", json_object_get(request, "prompt"), "width", json_object_get(request, "width"),
                         "height", json_object_get(request, "height"), "steps", json_object_get(request, "steps"),
                         "guidance", json_object_get(request, "guidance"), "seed", (json_int_t)seed, "n_references",
                         run->n_references, "wants_preview", 1);
    static const char *const copied[] = { "negative_prompt", "strength" };
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++) {
        json_t *value = json_object_get(request, copied[i]);
        if (value != NULL) {
            json_put(order, copied[i], json_incref(value));
        }
    }
    json_put(order, "has_init", json_boolean(run->init.name != NULL));
    json_put(order, "has_mask", json_boolean(run->mask.name != NULL));
    process_send(&run->runner->process, order, NULL, 0);
    json_decref(model);
    free(path);
}

/* ---- Inputs ---- */

static enum outcome send_input(struct run *run, const char *id, const char *role, int index, struct recipe_file *file) {
    struct problem problem = { 0 };
    void *data = NULL;
    size_t n = 0;
    if (gallery_read(run->studio->gallery, run->owner, id, &data, &n, &problem) != PROBLEM_NONE) {
        char *error = text_format("the %s picture %s cannot be had: %s", role, id, problem.detail);
        const enum outcome outcome =
            fail(run, problem.code == PROBLEM_NOT_FOUND ? OUTCOME_FAILED : OUTCOME_BROKEN, "input", error);
        free(error);
        return outcome;
    }
    if (file->name == NULL) {
        file->name = text_format("%s.png", id);
        files_hash(data, n, file->sha256);
    }
    process_send(&run->runner->process,
                 JSON("{s:s, s:s, s:s, s:i}", "type", "input", "id", run->id, "role", role, "index", index), data, n);
    free(data);
    return OUTCOME_GOES_ON;
}

static enum outcome send_inputs(struct run *run) {
    const json_t *references = json_object_get(run->request, "references");
    const char *init = json_get_text(run->request, "init"), *mask = json_get_text(run->request, "mask");
    enum outcome outcome = OUTCOME_GOES_ON;
    run->n_references = (int)json_array_size(references);
    for (int i = 0; outcome == OUTCOME_GOES_ON && i < run->n_references && i < CYI_MAX_REFERENCES; i++) {
        outcome = send_input(run, json_string_value(json_array_get(references, (size_t)i)), "reference", i,
                             &run->references[i]);
    }
    if (outcome == OUTCOME_GOES_ON && init != NULL) {
        outcome = send_input(run, init, "init", 0, &run->init);
    }
    if (outcome == OUTCOME_GOES_ON && mask != NULL) {
        outcome = send_input(run, mask, "mask", 0, &run->mask);
    }
    return outcome;
}

/* ---- Keeping a picture ---- */

/* Waits until there may be room again. The worker goes on talking and may even die: the picture is here already. */
static enum outcome wait_for_space(struct run *run) {
    struct runner *runner = run->runner;
    set_phase(run, PHASE_NO_SPACE);
    log_event(LOG_WARNING, "job.waits", JSON("{s:s, s:s}", "id", run->id, "for", "disk space"));
    do {
        const int64_t until = clock_monotonic_us() + RETRY_MS * INT64_C(1000);
        while (clock_monotonic_us() < until) {
            struct message message = { 0 };
            const enum outcome outcome = look(run);
            if (outcome != OUTCOME_GOES_ON) {
                return outcome;
            }
            const enum process_event event = process_receive(&runner->process, runner->wake_fd, SLICE_MS, &message);
            if (event == PROCESS_ENDED) {
                runner_bury(runner, NULL);
            } else if (event == PROCESS_MESSAGE) {
                runner_hear(runner, &message);
                message_done(&message);
            }
        }
    } while (gallery_room(run->studio->gallery) < 0);
    return OUTCOME_GOES_ON;
}

/* The recipe's strings are borrowed, but for those of its origin: recipe_done is not for it. */
static void fill_recipe(const struct run *run, const struct message *message, int64_t seed, struct recipe *recipe) {
    const json_t *request = run->request, *model = json_object_get(message->header, "model");
    const json_t *engine = json_object_get(message->header, "engine");
    *recipe = (struct recipe){
        .prompt = text_copy(json_get_text(request, "prompt")),
        .negative_prompt = text_copy(json_get_text(request, "negative_prompt")),
        .width = (int)json_get_int(request, "width", 0),
        .height = (int)json_get_int(request, "height", 0),
        .n_steps = (int)json_get_int(request, "steps", 0),
        .guidance = json_number_value(json_object_get(request, "guidance")),
        .seed = (uint32_t)seed,
        .n_references = run->n_references,
        .init = run->init,
        .mask = run->mask,
        .strength = json_number_value(json_object_get(request, "strength")),
        .model_name = text_copy(json_get_text(model, "name")),
        .model_family = text_copy(json_get_text(model, "family")),
        .model_fingerprint = text_copy(json_get_text(model, "fingerprint")),
        .version = text_copy(json_get_text(engine, "version")),
        .backend = text_copy(json_get_text(engine, "backend")),
        .backend_version = text_copy(json_get_text(engine, "backend_version")),
        .isa = text_copy(json_get_text(engine, "isa")),
        .precision = text_copy(json_get_text(engine, "precision")),
        .format = CYI_FORMAT_PNG,
    };
    for (int i = 0; i < run->n_references; i++) {
        recipe->references[i] = run->references[i];
        recipe->references[i].name = text_copy(run->references[i].name);
    }
    recipe->init.name = text_copy(run->init.name);
    recipe->mask.name = text_copy(run->mask.name);
}

static json_t *list_parents(const json_t *request) {
    static const char *const single[] = { "init", "mask" };
    json_t *parents = JSON("[]"), *id, *parent = json_object_get(request, "parent");
    size_t i;
    json_array_foreach(json_object_get(request, "references"), i, id) {
        json_add(parents, JSON("{s:O, s:s}", "id", id, "role", "reference"));
    }
    for (i = 0; i < sizeof single / sizeof single[0]; i++) {
        if (json_object_get(request, single[i]) != NULL) {
            json_add(parents, JSON("{s:O, s:s}", "id", json_object_get(request, single[i]), "role", single[i]));
        }
    }
    if (parent != NULL) {
        json_add(parents, json_incref(parent));
    }
    return parents;
}

/* Row, count and, after the last one, the job's end: all of it or nothing. */
static enum problem_code commit_picture(struct run *run, const struct new_picture *picture,
                                        const struct written_picture *written, double step_ms, double rest_ms,
                                        struct problem *problem) {
    struct store *store = run->studio->store;
    struct db *db = NULL;
    const bool is_last = picture->job_index + 1 == run->n_pictures;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(store, &db, problem));
    TRY(jobs_count_done(db, run->id, run->claim, picture->job_index, problem));
    TRY(gallery_insert(db, &actor_system, picture, written, problem));
    TRY(speeds_add(db, picture->model, run->runner->device, picture->image->width, picture->image->height, step_ms,
                   rest_ms, problem));
    if (is_last) {
        TRY(jobs_end(db, run->id, run->claim, "done", NULL, NULL, problem));
        TRY(audit_append(db, &actor_system, "job.done", run->id,
                         JSON("{s:s, s:i}", "model", picture->model, "pictures", run->n_pictures), problem));
    }
    TRY(store_commit(store, &db, problem));
done:
    store_rollback(store, &db);
    return st;
}

static enum outcome write_picture(struct run *run, const struct new_picture *picture, double step_ms, double rest_ms) {
    for (;;) {
        struct written_picture written;
        struct problem problem = { 0 };
        enum problem_code st = gallery_write(run->studio->gallery, picture, &written, &problem);
        if (st == PROBLEM_NONE) {
            st = commit_picture(run, picture, &written, step_ms, rest_ms, &problem);
            if (st == PROBLEM_NONE) {
                gallery_place(run->studio->gallery, picture, &written);
                return OUTCOME_GOES_ON;
            }
            gallery_discard(run->studio->gallery, &written);
        }
        enum outcome outcome = check_claim(run);
        if (outcome == OUTCOME_GOES_ON && st == PROBLEM_NO_SPACE) {
            outcome = wait_for_space(run);
        } else if (outcome == OUTCOME_GOES_ON) {
            outcome = fail(run, OUTCOME_BROKEN, "not-saved", problem.detail);
        }
        if (outcome != OUTCOME_GOES_ON) {
            return outcome;
        }
    }
}

static enum outcome keep_picture(struct run *run, int picture, int64_t seed, const struct message *message) {
    const json_t *request = run->request, *report = json_object_get(message->header, "report");
    const struct cyi_image image = { .width = (int)message_int(message, "width", 0),
                                     .height = (int)message_int(message, "height", 0),
                                     .n_channels = 3,
                                     .pixels = message->body };
    if (image.width != json_get_int(request, "width", 0) || image.height != json_get_int(request, "height", 0) ||
        message->body_bytes != (size_t)image.width * (size_t)image.height * 3) {
        return fail(run, OUTCOME_BROKEN, "worker-wrong", "the worker's picture is not of the size that was asked for");
    }
    const double total_ms = json_number_value(json_object_get(report, "total_seconds")) * 1e3;
    const double denoise_ms = json_number_value(json_object_get(json_object_get(report, "phases"), "denoise")) * 1e3;
    const int64_t n_steps = json_get_int(request, "steps", 1) - json_get_int(report, "first_step", 0);
    const char *typed = json_get_text(request, "prompt_typed");
    const json_t *guidance = json_object_get(request, "guidance"), *strength = json_object_get(request, "strength");
    struct recipe recipe;
    fill_recipe(run, message, seed, &recipe);
    char *parameters = metadata_write_parameters(&recipe), *json = recipe_to_text(&recipe);
    char *engine = text_format("CyberImage %s, %s %s, %s", recipe.version, recipe.backend, recipe.backend_version,
                               recipe.precision);
    json_t *parents = list_parents(request);
    const struct new_picture new_picture = {
        .kind = "generated",
        .owner = run->owner,
        .job_id = run->id,
        .job_index = picture,
        .image = &image,
        .parameters = parameters,
        .json = json,
        .model = json_get_text(request, "model"),
        .model_hash = recipe.model_fingerprint,
        .prompt = typed != NULL ? typed : recipe.prompt,
        .prompt_enriched = json_get_text(request, "prompt_enriched"),
        .prompt_sent = recipe.prompt,
        .negative_prompt = recipe.negative_prompt,
        .enrichment_id = json_get_text(request, "enrichment_id"),
        .seed = seed,
        .steps = recipe.n_steps,
        .guidance = json_number_value(guidance),
        .strength = strength != NULL ? json_number_value(strength) : -1.0,
        .duration_ms = (int64_t)total_ms,
        .engine = engine,
        .device = run->runner->device,
        .parents = parents,
    };
    set_phase(run, "save");
    const enum outcome outcome =
        write_picture(run, &new_picture, n_steps > 0 ? denoise_ms / (double)n_steps : 0.0, total_ms - denoise_ms);
    run->picture_ms = total_ms;
    json_decref(parents);
    free(engine);
    free(json);
    free(parameters);
    recipe_done(&recipe);
    return outcome;
}

/* ---- The end ---- */

/* queued, held, failed: in the database, whatever it takes. state NULL: back to the queue. */
static void settle(struct run *run, const char *state, bool counts) {
    struct store *store = run->studio->store;
    for (;;) {
        struct problem problem = { 0 };
        struct db *db = NULL;
        enum problem_code st = PROBLEM_NONE;
        const char *action = state == NULL ? "job.requeued" : strcmp(state, "failed") == 0 ? "job.failed" : "job.held";
        TRY(store_begin(store, &db, &problem));
        TRY(state != NULL
                ? jobs_end(db, run->id, run->claim, state, run->code, run->error, &problem)
                : jobs_release(db, run->id, run->claim, counts, run->error[0] != '\0' ? run->error : NULL, &problem));
        TRY(audit_append(db, &actor_system, action, run->id,
                         JSON("{s:s, s:o, s:i}", "code", run->code, "error",
                              json_text(run->error[0] != '\0' ? run->error : NULL), "attempts", run->n_attempts),
                         &problem));
        TRY(store_commit(store, &db, &problem));
        log_event(state != NULL ? LOG_WARNING : LOG_INFO, action,
                  JSON("{s:s, s:s, s:o}", "id", run->id, "code", run->code, "error", json_text(run->error)));
    done:
        store_rollback(store, &db);
        if (st == PROBLEM_NONE || st == PROBLEM_CONFLICT || atomic_load(&run->runner->queue->is_stopping)) {
            return; /* when the studio stops in this moment, its next start takes the job up */
        }
        log_event(LOG_ERROR, "job.not-settled", JSON("{s:s, s:o}", "id", run->id, "error", json_text(problem.detail)));
        (void)usleep(RETRY_MS * 1000);
    }
}

static void end(struct run *run, enum outcome outcome) {
    if (outcome == OUTCOME_FAILED) {
        settle(run, "failed", true);
    } else if (outcome == OUTCOME_STOPPING) {
        run->error[0] = '\0';
        settle(run, NULL, false);
    } else if (outcome == OUTCOME_BROKEN) {
        const bool is_over = run->n_attempts >= settings_int(run->studio->settings, SETTING_attempts);
        settle(run, is_over ? "held" : NULL, true);
    } else if (outcome == OUTCOME_GOES_ON) {
        log_event(LOG_INFO, "job.done",
                  JSON("{s:s, s:s, s:I, s:i, s:I}", "id", run->id, "model", json_get_text(run->request, "model"),
                       "steps", (json_int_t)json_get_int(run->request, "steps", 0), "pictures", run->n_pictures, "ms",
                       (json_int_t)((clock_monotonic_us() - run->begun_us) / 1000)));
    }
}

static enum outcome make_pictures(struct run *run) {
    const int64_t first_seed = json_get_int(run->request, "seed", 0);
    enum outcome outcome = OUTCOME_GOES_ON;
    bool has_inputs = false;
    while (outcome == OUTCOME_GOES_ON && run->n_done < run->n_pictures) {
        const int64_t seed = (first_seed + run->n_done) & UINT32_MAX; /* wraps, as the generator does */
        struct message message = { 0 };
        struct problem problem = { 0 };
        begin_picture(run, run->n_done);
        outcome = check_claim(run);
        if (outcome == OUTCOME_GOES_ON && gallery_room(run->studio->gallery) < 0) {
            outcome = wait_for_space(run);
        }
        if (outcome != OUTCOME_GOES_ON) {
            break;
        }
        has_inputs = has_inputs && run->runner->process.pid != 0; /* it may have died while we waited */
        const enum problem_code st =
            runner_need_process(run->runner, json_get_text(run->request, "precision"), &problem);
        if (st != PROBLEM_NONE) {
            outcome =
                atomic_load(&run->runner->queue->is_stopping)
                    ? OUTCOME_STOPPING
                    : fail(run, st == PROBLEM_INVALID ? OUTCOME_FAILED : OUTCOME_BROKEN, "worker", problem.detail);
            break;
        }
        runner_set_state(run->runner, "working", "");
        outcome = has_inputs ? OUTCOME_GOES_ON : send_inputs(run);
        has_inputs = true;
        if (outcome == OUTCOME_GOES_ON) {
            order_picture(run, run->n_done, seed);
            outcome = wait_for_picture(run, run->n_done, &message);
        }
        if (outcome == OUTCOME_GOES_ON) {
            outcome = keep_picture(run, run->n_done, seed, &message);
            message_done(&message);
        }
        if (outcome == OUTCOME_GOES_ON) {
            run->n_done++;
            run->n_attempts = 1;
            run->runner->pause_us = 0;
            if (run->n_done < run->n_pictures) {
                queue_job_changed(run->runner->queue, run->id);
            }
        }
    }
    return outcome;
}

static void show_begin(struct run *run) {
    struct shown *shown = &run->runner->shown;
    (void)pthread_mutex_lock(&run->runner->queue->mutex);
    (void)snprintf(shown->job_id, sizeof shown->job_id, "%s", run->id);
    (void)snprintf(shown->owner, sizeof shown->owner, "%s", run->owner != NULL ? run->owner : "");
    shown->n_pictures = run->n_pictures;
    shown->picture = run->n_done;
    shown->fraction = 0.0;
    shown->remaining_seconds = -1.0;
    (void)snprintf(shown->phase, sizeof shown->phase, "load");
    (void)pthread_mutex_unlock(&run->runner->queue->mutex);
}

static void show_end(struct run *run) {
    struct shown *shown = &run->runner->shown;
    (void)pthread_mutex_lock(&run->runner->queue->mutex);
    shown->job_id[0] = '\0';
    shown->owner[0] = '\0';
    free(shown->preview);
    shown->preview = NULL;
    (void)pthread_mutex_unlock(&run->runner->queue->mutex);
}

void run_job(struct runner *runner, const json_t *job) {
    struct run run = { .runner = runner,
                       .studio = runner->queue->studio,
                       .request = json_object_get(job, "request"),
                       .id = json_get_text(job, "id"),
                       .owner = json_get_text(job, "owner_id"),
                       .claim = json_get_int(job, "claim", 0),
                       .begun_us = clock_monotonic_us(),
                       .n_pictures = (int)json_get_int(job, "count", 1),
                       .n_done = (int)json_get_int(job, "done", 0),
                       .n_attempts = (int)json_get_int(job, "attempts", 1) };
    struct db *db = store_read(run.studio->store);
    run.picture_ms = eta_picture_ms(db, run.request);
    store_read_done(run.studio->store, db);
    show_begin(&run);
    queue_job_changed(runner->queue, run.id);
    const enum outcome outcome = make_pictures(&run);
    /* A worker that met a number that is none may have a broken card's memory: a fresh one is safer. */
    if (outcome == OUTCOME_BROKEN && strcmp(run.code, "numeric") == 0) {
        runner_bury(runner, "it met a number that is none");
    }
    process_send(&runner->process, JSON("{s:s, s:s}", "type", "forget", "id", run.id), NULL, 0);
    end(&run, outcome);
    show_end(&run);
    if (runner->process.pid != 0) {
        runner_set_state(runner, "idle", "");
    }
    queue_job_changed(runner->queue, run.id);
    for (int i = 0; i < CYI_MAX_REFERENCES; i++) {
        free(run.references[i].name);
    }
    free(run.init.name);
    free(run.mask.name);
}
