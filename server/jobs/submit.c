/* Taking a job in: every member is checked, every choice that was left open is made, and the row is on disk before
 * anybody hears yes. */
#include "jobs/jobs_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "gallery/gallery.h"
#include "store/jobs.h"
#include "store/models.h"
#include "store/users.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define MAX_GUIDANCE 100
#define MAX_SEED 4294967295.0
#define MAX_PICTURES 64
#define MAX_PRIORITY 10
#define DEFAULT_STRENGTH 0.8
#define MAX_KEY_BYTES 255
#define HASH_TEXT 65
#define MAX_RETRY_SECONDS 3600
#define UNKNOWN_RETRY_SECONDS 30

struct fields {
    const char *prompt, *prompt_typed, *prompt_enriched, *enrichment_id, *negative_prompt, *model, *init, *mask,
        *precision;
    int64_t width, height, steps, seed, count, priority;
    double guidance, strength;
    json_t *references, *parent, *webhook;
};

#define AT(name) offsetof(struct fields, name)

static const struct json_row rows[] = {
    { "prompt", JSON_ROW_TEXT, AT(prompt), 1, CYI_MAX_PROMPT_BYTES, NULL, JSON_NEEDED },
    { "prompt_typed", JSON_ROW_TEXT, AT(prompt_typed), 0, CYI_MAX_PROMPT_BYTES, NULL, JSON_NULLABLE },
    { "prompt_enriched", JSON_ROW_TEXT, AT(prompt_enriched), 0, CYI_MAX_PROMPT_BYTES, NULL, JSON_NULLABLE },
    { "enrichment_id", JSON_ROW_ID, AT(enrichment_id), 0, 0, NULL, JSON_NULLABLE },
    { "negative_prompt", JSON_ROW_TEXT, AT(negative_prompt), 0, CYI_MAX_PROMPT_BYTES, NULL, JSON_NULLABLE },
    { "model", JSON_ROW_TEXT, AT(model), 1, 256, NULL, JSON_NULLABLE },
    { "width", JSON_ROW_INT, AT(width), 1, CYI_MAX_IMAGE_SIDE, NULL, JSON_NULLABLE },
    { "height", JSON_ROW_INT, AT(height), 1, CYI_MAX_IMAGE_SIDE, NULL, JSON_NULLABLE },
    { "steps", JSON_ROW_INT, AT(steps), 1, CYI_MAX_STEPS, NULL, JSON_NULLABLE },
    { "guidance", JSON_ROW_NUMBER, AT(guidance), 0, MAX_GUIDANCE, NULL, JSON_NULLABLE },
    { "seed", JSON_ROW_INT, AT(seed), 0, MAX_SEED, NULL, JSON_NULLABLE },
    { "count", JSON_ROW_INT, AT(count), 1, MAX_PICTURES, NULL, 0 },
    { "priority", JSON_ROW_INT, AT(priority), -MAX_PRIORITY, MAX_PRIORITY, NULL, 0 },
    { "references", JSON_ROW_ARRAY, AT(references), 0, CYI_MAX_REFERENCES, NULL, JSON_NULLABLE },
    { "init", JSON_ROW_ID, AT(init), 0, 0, NULL, JSON_NULLABLE },
    { "strength", JSON_ROW_NUMBER, AT(strength), 0, 1, NULL, JSON_NULLABLE },
    { "mask", JSON_ROW_ID, AT(mask), 0, 0, NULL, JSON_NULLABLE },
    { "precision", JSON_ROW_CHOICE, AT(precision), 0, 0, "auto|f32|bf16|fp8|int8", JSON_NULLABLE },
    { "parent", JSON_ROW_OBJECT, AT(parent), 0, 0, NULL, JSON_NULLABLE },
    { "webhook", JSON_ROW_OBJECT, AT(webhook), 0, 0, NULL, JSON_NULLABLE },
};

/* ---- The model's part ---- */

static enum problem_code find_model(struct queue *queue, struct fields *fields, json_t **ret_model,
                                    struct problem *problem) {
    char *preset = settings_text(queue->studio->settings, SETTING_model);
    const char *name = fields->model != NULL ? fields->model : preset;
    json_t *model = catalogue_find(queue, name);
    enum problem_code st = PROBLEM_NONE;
    if (model == NULL) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, "model", "there is no model \"%.60s\" here", name);
    } else if (!json_is_true(json_object_get(model, "usable"))) {
        st = problem_set(problem, PROBLEM_INVALID, "model", "the model %.60s cannot be used: %.300s", name,
                         json_get_text(model, "problem"));
    } else {
        *ret_model = model;
        model = NULL;
    }
    json_decref(model);
    free(preset);
    return st;
}

static enum problem_code check_side(const char *name, int64_t side, int64_t multiple, struct problem *problem) {
    const int64_t below = side / multiple * multiple;
    return side % multiple == 0 ? PROBLEM_NONE
           : below > 0
               ? problem_set(problem, PROBLEM_INVALID, name,
                             "%s %lld is not a multiple of %lld; %lld and %lld are the nearest", name, (long long)side,
                             (long long)multiple, (long long)below, (long long)(below + multiple))
               : problem_set(problem, PROBLEM_INVALID, name, "%s %lld is not a multiple of %lld", name, (long long)side,
                             (long long)multiple);
}

static enum problem_code check_negative(const struct fields *fields, const json_t *model, struct problem *problem) {
    if (json_is_true(json_object_get(model, "distilled"))) {
        return problem_set(problem, PROBLEM_INVALID, "negative_prompt",
                           "the model %.60s is distilled and does not look at a negative prompt",
                           json_get_text(model, "name"));
    }
    return fields->guidance > 1.0
               ? PROBLEM_NONE
               : problem_set(problem, PROBLEM_INVALID, "negative_prompt",
                             "a negative prompt has an effect only with a guidance above 1, and it is %g",
                             fields->guidance);
}

static enum problem_code check_with_model(struct fields *fields, const json_t *model, struct problem *problem) {
    const int64_t multiple = json_get_int(model, "size_multiple", 16);
    const int64_t max_references = json_get_int(model, "max_references", 0);
    enum problem_code st = PROBLEM_NONE;
    fields->width = fields->width != 0 ? fields->width : json_get_int(model, "default_width", 512);
    fields->height = fields->height != 0 ? fields->height : json_get_int(model, "default_height", 512);
    fields->steps = fields->steps != 0 ? fields->steps : json_get_int(model, "default_steps", 20);
    fields->guidance =
        fields->guidance >= 0.0 ? fields->guidance : json_number_value(json_object_get(model, "default_guidance"));
    TRY(check_side("width", fields->width, multiple, problem));
    TRY(check_side("height", fields->height, multiple, problem));
    if (fields->width * fields->height > CYI_MAX_IMAGE_PIXELS) {
        st = problem_set(problem, PROBLEM_INVALID, "width", "%lld × %lld is %lld pixels; the limit is %d",
                         (long long)fields->width, (long long)fields->height,
                         (long long)(fields->width * fields->height), CYI_MAX_IMAGE_PIXELS);
        goto done;
    }
    if ((int64_t)json_array_size(fields->references) > max_references) {
        st =
            problem_set(problem, PROBLEM_INVALID, "references", "the model %.60s looks at up to %lld pictures, not %zu",
                        json_get_text(model, "name"), (long long)max_references, json_array_size(fields->references));
        goto done;
    }
    if (fields->negative_prompt != NULL) {
        TRY(check_negative(fields, model, problem));
    }
done:
    return st;
}

/* ---- The rest ---- */

static enum problem_code check_inputs(struct fields *fields, struct problem *problem) {
    json_t *id;
    size_t i;
    json_array_foreach(fields->references, i, id) {
        if (!json_is_string(id) || !id_is_valid(json_string_value(id))) {
            return problem_set(problem, PROBLEM_INVALID, "references", "references are ids of pictures");
        }
    }
    if (fields->init == NULL && (fields->mask != NULL || fields->strength >= 0.0)) {
        return problem_set(problem, PROBLEM_INVALID, fields->mask != NULL ? "mask" : "strength",
                           "%s goes with init, the picture to start from", fields->mask != NULL ? "mask" : "strength");
    }
    if (fields->init != NULL && fields->strength < 0.0) {
        fields->strength = DEFAULT_STRENGTH;
    }
    return fields->init == NULL || fields->strength > 0.0
               ? PROBLEM_NONE
               : problem_set(problem, PROBLEM_INVALID, "strength", "strength must be above 0: with 0 nothing changes");
}

static enum problem_code check_parent(const json_t *parent, struct problem *problem) {
    struct {
        const char *id, *role;
    } fields = { 0 };
    static const struct json_row parent_rows[] = {
        { "id", JSON_ROW_ID, 0, 0, 0, NULL, JSON_NEEDED },
        { "role", JSON_ROW_CHOICE, sizeof(const char *), 0, 0, "variation|remix", JSON_NEEDED },
    };
    return parent == NULL ? PROBLEM_NONE : json_read(parent, parent_rows, COUNT(parent_rows), &fields, problem);
}

static enum problem_code check_webhook(const json_t *webhook, struct problem *problem) {
    struct {
        const char *url, *secret;
    } fields = { 0 };
    static const struct json_row webhook_rows[] = {
        { "url", JSON_ROW_TEXT, 0, 1, 2048, NULL, JSON_NEEDED },
        { "secret", JSON_ROW_TEXT, sizeof(const char *), 1, 256, NULL, JSON_NULLABLE },
    };
    enum problem_code st = PROBLEM_NONE;
    if (webhook != NULL) {
        TRY(json_read(webhook, webhook_rows, COUNT(webhook_rows), &fields, problem));
        TRY(webhook_check_url(fields.url, problem));
    }
done:
    return st;
}

static void put_text(json_t *object, const char *name, const char *text) {
    if (text != NULL) {
        json_put(object, name, json_text(text));
    }
}

static json_t *make_complete(const struct fields *fields, const json_t *model) {
    json_t *complete = JSON("{s:o, s:O, s:I, s:I, s:I, s:f, s:I, s:I}", "prompt", json_text(fields->prompt), "model",
                            json_object_get(model, "name"), "width", (json_int_t)fields->width, "height",
                            (json_int_t)fields->height, "steps", (json_int_t)fields->steps, "guidance",
                            fields->guidance, "seed", (json_int_t)fields->seed, "count", (json_int_t)fields->count);
    put_text(complete, "prompt_typed", fields->prompt_typed);
    put_text(complete, "prompt_enriched", fields->prompt_enriched);
    put_text(complete, "enrichment_id", fields->enrichment_id);
    put_text(complete, "negative_prompt", fields->negative_prompt);
    put_text(complete, "init", fields->init);
    put_text(complete, "mask", fields->mask);
    put_text(complete, "precision", fields->precision);
    if (fields->init != NULL) {
        json_put(complete, "strength", json_real(fields->strength));
    }
    if (json_array_size(fields->references) > 0) {
        json_put(complete, "references", json_deep_copy(fields->references));
    }
    if (fields->parent != NULL) {
        json_put(complete, "parent", json_deep_copy(fields->parent));
    }
    return complete;
}

enum problem_code submit_complete(struct queue *queue, const json_t *request, json_t **ret_complete,
                                  int64_t *ret_priority, const json_t **ret_webhook, struct problem *problem) {
    struct fields fields = { .count = 1, .seed = -1, .guidance = -1.0, .strength = -1.0 };
    json_t *model = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read(request, rows, COUNT(rows), &fields, problem));
    if (fields.negative_prompt != NULL && fields.negative_prompt[0] == '\0') {
        fields.negative_prompt = NULL;
    }
    if (fields.precision != NULL && strcmp(fields.precision, "auto") == 0) {
        fields.precision = NULL; /* the studio's own */
    }
    TRY(find_model(queue, &fields, &model, problem));
    TRY(check_with_model(&fields, model, problem));
    TRY(check_inputs(&fields, problem));
    TRY(check_parent(fields.parent, problem));
    TRY(check_webhook(fields.webhook, problem));
    fields.seed = fields.seed >= 0 ? fields.seed : (int64_t)randombytes_random();
    *ret_complete = make_complete(&fields, model);
    *ret_priority = fields.priority;
    *ret_webhook = fields.webhook;
done:
    json_decref(model);
    return st;
}

/* ---- What the database says ---- */

static void hash_request(const json_t *request, char ret_hash[HASH_TEXT]) {
    uint8_t hash[crypto_hash_sha256_BYTES];
    char *text = json_dumps(request, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    if (text == NULL) {
        text_out_of_memory();
    }
    (void)crypto_hash_sha256(hash, (const uint8_t *)text, strlen(text));
    (void)sodium_bin2hex(ret_hash, HASH_TEXT, hash, sizeof hash);
    free(text);
}

static enum problem_code check_key(const char *key, struct problem *problem) {
    const size_t n = key != NULL ? strlen(key) : 1;
    bool is_good = n >= 1 && n <= MAX_KEY_BYTES;
    for (size_t i = 0; key != NULL && is_good && i < n; i++) {
        is_good = key[i] >= 0x20 && key[i] < 0x7F;
    }
    return is_good ? PROBLEM_NONE
                   : problem_set(problem, PROBLEM_INVALID, "Idempotency-Key",
                                 "an Idempotency-Key has 1 to %d printable ASCII characters", MAX_KEY_BYTES);
}

/* The job that this key has made already; "" when there is none. */
static enum problem_code find_earlier(struct db *db, const struct submission *submission, const char *hash,
                                      char ret_id[ID_TEXT], struct problem *problem) {
    json_t *earlier = NULL;
    enum problem_code st = PROBLEM_NONE;
    ret_id[0] = '\0';
    if (submission->idempotency_key == NULL) {
        return PROBLEM_NONE;
    }
    TRY(jobs_find_key(db, submission->owner, submission->idempotency_key, &earlier, problem));
    if (earlier == NULL) {
        goto done;
    }
    if (strcmp(json_get_text(earlier, "request_hash"), hash) != 0) {
        st = problem_set(problem, PROBLEM_CONFLICT, "Idempotency-Key",
                         "this Idempotency-Key belongs to another request already, job %s",
                         json_get_text(earlier, "id"));
        goto done;
    }
    (void)snprintf(ret_id, ID_TEXT, "%s", json_get_text(earlier, "id"));
done:
    json_decref(earlier);
    return st;
}

static int retry_seconds(struct queue *queue) {
    const double seconds = eta_running_seconds(queue);
    return seconds < 0.0 ? UNKNOWN_RETRY_SECONDS : (int)fmin(fmax(ceil(seconds), 1.0), MAX_RETRY_SECONDS);
}

static enum problem_code check_depth(struct queue *queue, struct db *db, const char *owner, struct problem *problem) {
    const int64_t most = settings_int(queue->studio->settings, SETTING_queue_jobs);
    const int64_t most_own = settings_int(queue->studio->settings, SETTING_queue_jobs_user);
    int64_t n = 0, n_own = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(jobs_count_waiting(db, owner, &n, &n_own, problem));
    if (n >= most || n_own >= most_own) {
        problem->retry_after_seconds = retry_seconds(queue);
        st = n >= most ? problem_set(problem, PROBLEM_TOO_MANY, NULL,
                                     "%lld jobs wait already, and no more than that may", (long long)n)
                       : problem_set(problem, PROBLEM_TOO_MANY, NULL,
                                     "%lld of your jobs wait already, and no more than that may", (long long)n_own);
    }
done:
    return st;
}

static enum problem_code check_user(struct db *db, const char *owner, int64_t priority, struct problem *problem) {
    json_t *user = NULL, *usage = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(users_get(db, owner, &user, problem));
    if (user == NULL) {
        st = problem_set(problem, PROBLEM_FORBIDDEN, NULL, "jobs belong to an account");
        goto done;
    }
    if (priority > 0 && strcmp(json_get_text(user, "role"), "admin") != 0) {
        st = problem_set(problem, PROBLEM_FORBIDDEN, "priority", "priorities above 0 are for administrators");
        goto done;
    }
    const int64_t quota = json_get_int(user, "quota_jobs", -1);
    if (quota >= 0) {
        TRY(users_usage(db, owner, &usage, problem));
        if (json_get_int(usage, "jobs", 0) >= quota) {
            st = problem_set(problem, PROBLEM_FORBIDDEN, NULL, "your account may have %lld jobs at a time",
                             (long long)quota);
        }
    }
done:
    json_decref(user);
    json_decref(usage);
    return st;
}

static enum problem_code check_quota(struct queue *queue, struct db *db, const char *owner, const json_t *complete,
                                     struct problem *problem) {
    int64_t n_coming = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(jobs_count_pictures(db, owner, &n_coming, problem));
    TRY(gallery_check_quota(queue->studio->gallery, owner, (int)(n_coming + json_get_int(complete, "count", 1)),
                            problem));
done:
    return st;
}

static enum problem_code check_image(struct db *db, const char *owner, const char *id, const char *field,
                                     struct problem *problem) {
    json_t *row = NULL;
    const enum problem_code st = jobs_find_image(db, owner, id, field, &row, problem);
    json_decref(row);
    return st;
}

/* Also what the engine demands of its shape: better said now than when its turn comes. */
static enum problem_code check_reference(struct db *db, const char *owner, const char *id, struct problem *problem) {
    json_t *row = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(jobs_find_image(db, owner, id, "references", &row, problem));
    const int64_t width = json_get_int(row, "width", 0), height = json_get_int(row, "height", 0);
    if (width < CYI_MIN_REFERENCE_SIDE || height < CYI_MIN_REFERENCE_SIDE) {
        st = problem_set(problem, PROBLEM_INVALID, "references",
                         "picture %s is too small to look at: %lld × %lld, both sides must be at least %d", id,
                         (long long)width, (long long)height, CYI_MIN_REFERENCE_SIDE);
    } else if (width > CYI_MAX_REFERENCE_ASPECT * height || height > CYI_MAX_REFERENCE_ASPECT * width) {
        st = problem_set(problem, PROBLEM_INVALID, "references",
                         "picture %s is too long to look at: %lld × %lld, one side may be %d times the other", id,
                         (long long)width, (long long)height, CYI_MAX_REFERENCE_ASPECT);
    }
done:
    json_decref(row);
    return st;
}

static enum problem_code check_mentions(struct db *db, const char *owner, const json_t *complete,
                                        struct problem *problem) {
    static const char *const single[] = { "init", "mask" };
    const char *enrichment = json_get_text(complete, "enrichment_id");
    const json_t *parent = json_object_get(complete, "parent");
    json_t *id;
    size_t i;
    enum problem_code st = PROBLEM_NONE;
    json_array_foreach(json_object_get(complete, "references"), i, id) {
        TRY(check_reference(db, owner, json_string_value(id), problem));
    }
    for (i = 0; i < COUNT(single); i++) {
        if (json_get_text(complete, single[i]) != NULL) {
            TRY(check_image(db, owner, json_get_text(complete, single[i]), single[i], problem));
        }
    }
    if (parent != NULL) {
        TRY(check_image(db, owner, json_get_text(parent, "id"), "parent.id", problem));
    }
    if (enrichment != NULL) {
        TRY(jobs_check_enrichment(db, owner, enrichment, problem));
    }
done:
    return st;
}

/* ---- The row ---- */

/* The job's own, else the studio's: then the secret is looked up when it is sent. A new reference, or NULL. */
static json_t *choose_webhook(struct queue *queue, const json_t *own) {
    if (own != NULL) {
        return json_need(json_deep_copy(own));
    }
    char *url = settings_text(queue->studio->settings, SETTING_webhook_url);
    json_t *webhook = url[0] != '\0' ? JSON("{s:o, s:b}", "url", json_text(url), "is_studio", 1) : NULL;
    free(url);
    return webhook;
}

struct checked {
    json_t *complete;
    int64_t priority;
    const json_t *webhook; /* within the submission's request */
    char hash[HASH_TEXT];
};

static enum problem_code add(struct queue *queue, struct db *db, const struct submission *submission,
                             const struct checked *checked, const char *id, struct problem *problem) {
    const char *owner = submission->owner;
    json_t *webhook = choose_webhook(queue, checked->webhook);
    enum problem_code st = PROBLEM_NONE;
    TRY(check_user(db, owner, checked->priority, problem));
    TRY(check_depth(queue, db, owner, problem));
    TRY(check_quota(queue, db, owner, checked->complete, problem));
    TRY(check_mentions(db, owner, checked->complete, problem));
    const struct new_job job = { .id = id,
                                 .owner = owner,
                                 .model = json_get_text(checked->complete, "model"),
                                 .source = submission->source,
                                 .request = checked->complete,
                                 .n_pictures = (int)json_get_int(checked->complete, "count", 1),
                                 .priority = checked->priority,
                                 .idempotency_key = submission->idempotency_key,
                                 .request_hash = checked->hash,
                                 .webhook = webhook };
    TRY(jobs_add(db, &job, problem));
    TRY(audit_append(db, submission->actor, "job.submitted", id,
                     JSON("{s:s, s:O}", "source", submission->source, "request", checked->complete), problem));
done:
    json_decref(webhook);
    return st;
}

enum problem_code queue_submit(struct queue *queue, const struct submission *submission, json_t **ret_job,
                               bool *ret_is_new, struct problem *problem) {
    struct checked checked = { 0 };
    struct db *db = NULL;
    char earlier[ID_TEXT], id[ID_TEXT];
    enum problem_code st = PROBLEM_NONE;
    TRY(check_key(submission->idempotency_key, problem));
    TRY(submit_complete(queue, submission->request, &checked.complete, &checked.priority, &checked.webhook, problem));
    hash_request(submission->request, checked.hash);
    TRY(store_begin(queue->studio->store, &db, problem));
    TRY(find_earlier(db, submission, checked.hash, earlier, problem));
    const bool is_new = earlier[0] == '\0';
    if (is_new) {
        if (gallery_room(queue->studio->gallery) < 0) {
            problem->retry_after_seconds = UNKNOWN_RETRY_SECONDS;
            st = problem_set(problem, PROBLEM_NO_SPACE, NULL, "the pictures' disk has less room than its reserve");
            goto done;
        }
        TRY(add(queue, db, submission, &checked, id_make(id), problem));
        TRY(store_commit(queue->studio->store, &db, problem));
        log_event(LOG_INFO, "job.submitted",
                  JSON("{s:s, s:O, s:O}", "id", id, "model", json_object_get(checked.complete, "model"), "count",
                       json_object_get(checked.complete, "count")));
        queue_job_changed(queue, id);
    } else {
        store_rollback(queue->studio->store, &db);
    }
    if (ret_is_new != NULL) {
        *ret_is_new = is_new;
    }
    TRY(queue_get(queue, submission->owner, is_new ? id : earlier, ret_job, problem));
done:
    store_rollback(queue->studio->store, &db);
    json_decref(checked.complete);
    return st;
}
