/* The API of AUTOMATIC1111's stable-diffusion-webui ("A1111"), as far as a model of the FLUX family can follow it. What
 * its clients send at its defaults is let pass; what asks for something that is not done here is refused by name. */
#include "routes/routes.h"

#include "gallery/gallery.h"
#include "jobs/queue.h"
#include "metadata.h"
#include "routes/dialects.h"
#include "store/jobs.h"
#include "store/users.h"
#include "studio.h"
#include "system_info.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define SOURCE "sdapi"
#define MAX_COUNT 64
#define MAX_CFG 100
#define MAX_SEED 4294967295.0
#define MAX_JOBS 100
#define DEFAULT_DENOISING 0.75 /* as A1111 */
#define ALPHA_BORDER 128       /* as A1111 reads a mask's alpha */

/* ---- The model ---- */

/* The one that the caller's programs chose, while it is there; else the studio's. A new string. */
static char *current_model(struct studio *studio, const struct request *request) {
    struct problem ignored = { 0 };
    char *chosen = NULL;
    struct db *db = store_read(studio->store);
    (void)users_get_model(db, request_caller(request)->user_id, &chosen, &ignored);
    store_read_done(studio->store, db);
    json_t *model = chosen != NULL ? queue_model(studio->queue, chosen) : NULL;
    if (!json_is_true(json_object_get(model, "usable"))) {
        free(chosen);
        chosen = settings_text(studio->settings, SETTING_model);
    }
    json_decref(model);
    return chosen;
}

static char *short_hash(struct studio *studio, const char *name) {
    json_t *model = queue_model(studio->queue, name);
    const char *fingerprint = json_get_text(model, "fingerprint");
    char *hash = text_format("%.10s", fingerprint != NULL ? fingerprint : "");
    json_decref(model);
    return hash;
}

/* ---- What is asked for ---- */

struct fields {
    const char *prompt, *negative_prompt, *sampler, *sampler_index, *mask, *checkpoint;
    int64_t seed, steps, width, height, batch_size, n_iter, inverts_mask;
    double cfg_scale, denoising_strength;
    bool sends_images;
    json_t *init_images, *override_settings;
};

#define AT(name) offsetof(struct fields, name)
#define N_IMAGE_ROWS 3 /* at the end, only of img2img */

static const struct json_row rows[] = {
    { "prompt", JSON_ROW_TEXT, AT(prompt), 1, CYI_MAX_PROMPT_BYTES, NULL, JSON_NEEDED },
    { "negative_prompt", JSON_ROW_TEXT, AT(negative_prompt), 0, CYI_MAX_PROMPT_BYTES, NULL, JSON_NULLABLE },
    { "seed", JSON_ROW_INT, AT(seed), -1, MAX_SEED, NULL, JSON_NULLABLE },
    { "steps", JSON_ROW_INT, AT(steps), 1, CYI_MAX_STEPS, NULL, JSON_NULLABLE },
    { "cfg_scale", JSON_ROW_NUMBER, AT(cfg_scale), 0, MAX_CFG, NULL, JSON_NULLABLE },
    { "width", JSON_ROW_INT, AT(width), 1, CYI_MAX_IMAGE_SIDE, NULL, JSON_NULLABLE },
    { "height", JSON_ROW_INT, AT(height), 1, CYI_MAX_IMAGE_SIDE, NULL, JSON_NULLABLE },
    { "batch_size", JSON_ROW_INT, AT(batch_size), 1, MAX_COUNT, NULL, JSON_NULLABLE },
    { "n_iter", JSON_ROW_INT, AT(n_iter), 1, MAX_COUNT, NULL, JSON_NULLABLE },
    { "sampler_name", JSON_ROW_TEXT, AT(sampler), 0, 64, NULL, JSON_NULLABLE },
    { "sampler_index", JSON_ROW_TEXT, AT(sampler_index), 0, 64, NULL, JSON_NULLABLE },
    { "denoising_strength", JSON_ROW_NUMBER, AT(denoising_strength), 0, 1, NULL, JSON_NULLABLE },
    { "send_images", JSON_ROW_BOOL, AT(sends_images), 0, 0, NULL, JSON_NULLABLE },
    { "override_settings", JSON_ROW_OBJECT, AT(override_settings), 0, 0, NULL, JSON_NULLABLE },
    { "init_images", JSON_ROW_ARRAY, AT(init_images), 1, 1, NULL, JSON_NEEDED },
    { "mask", JSON_ROW_TEXT, AT(mask), 0, 1e9, NULL, JSON_NULLABLE },
    { "inpainting_mask_invert", JSON_ROW_INT, AT(inverts_mask), 0, 1, NULL, JSON_NULLABLE },
};

static const struct json_idle idle[] = {
    /* The second pass in a larger size; the rest of it means nothing without the switch. */
    { "enable_hr", "false" },
    { "hr_scale", NULL },
    { "hr_upscaler", NULL },
    { "hr_second_pass_steps", NULL },
    { "hr_resize_x", NULL },
    { "hr_resize_y", NULL },
    { "hr_checkpoint_name", NULL },
    { "hr_sampler_name", NULL },
    { "hr_scheduler", NULL },
    { "hr_prompt", NULL },
    { "hr_negative_prompt", NULL },
    { "hr_additional_modules", NULL },
    { "firstphase_width", NULL },
    { "firstphase_height", NULL },
    { "firstpass_image", NULL },
    /* Scripts and what changes the prompt or the picture afterwards. */
    { "script_name", "None" },
    { "script_args", NULL },
    { "alwayson_scripts", "{}" },
    { "styles", "[]" },
    { "restore_faces", "false" },
    { "tiling", "false" },
    { "refiner_checkpoint", "None" },
    { "refiner_switch_at", NULL },
    { "infotext", "null" },
    { "clip_skip", "1" },
    /* Noise and sampler: with Euler and no churn the other numbers have no effect. */
    { "scheduler", "Automatic|automatic" },
    { "subseed_strength", "0" },
    { "subseed", NULL },
    { "seed_resize_from_h", "0|-1" },
    { "seed_resize_from_w", "0|-1" },
    { "s_churn", "0" },
    { "s_min_uncond", "0" },
    { "s_tmin", NULL },
    { "s_tmax", NULL },
    { "s_noise", NULL },
    { "eta", NULL },
    /* Pictures to start from. */
    { "resize_mode", "0|1" },
    { "mask_blur", "0|4" },
    { "mask_blur_x", "0|4" },
    { "mask_blur_y", "0|4" },
    { "inpainting_fill", "0|1" },
    { "initial_noise_multiplier", "0|1" },
    { "latent_mask", "null" },
    { "inpaint_full_res", NULL },
    { "inpaint_full_res_padding", NULL },
    { "image_cfg_scale", NULL },
    { "include_init_images", NULL },
    { "mask_round", NULL },
    /* Every picture is in the gallery. */
    { "save_images", NULL },
    { "do_not_save_samples", NULL },
    { "do_not_save_grid", NULL },
    { "override_settings_restore_afterwards", NULL },
    { "disable_extra_networks", NULL },
    { "force_task_id", NULL },
    { "comments", NULL },
};

static const struct json_row option_rows[] = {
    { "sd_model_checkpoint", JSON_ROW_TEXT, 0, 0, 256, NULL, JSON_NULLABLE },
};

static const struct json_idle idle_options[] = {
    { "sd_checkpoint_hash", NULL }, { "sd_vae", "Automatic|automatic|None" }, { "CLIP_stop_at_last_layers", "1" },
    { "samples_format", "png" },    { "forge_additional_modules", "[]" },
};

static const char *const field_names[][2] = {
    { "count", "batch_size" },          { "guidance", "cfg_scale" }, { "strength", "denoising_strength" },
    { "model", "sd_model_checkpoint" }, { "init", "init_images" },   { NULL, NULL },
};

static enum problem_code read_options(const json_t *object, const char **ret_checkpoint, struct problem *problem) {
    return json_read_dialect(object, option_rows, COUNT(option_rows), idle_options, COUNT(idle_options), ret_checkpoint,
                             problem);
}

/* "Euler a" is what client libraries send when nobody chose; the answer's parameters say what was used. */
static enum problem_code check_sampler(const struct fields *fields, struct problem *problem) {
    static const char *const accepted[] = { "", "Euler", "Euler a", "k_euler", "k_euler_a" };
    const char *sampler =
        fields->sampler != NULL && fields->sampler[0] != '\0' ? fields->sampler : fields->sampler_index;
    for (size_t i = 0; i < COUNT(accepted); i++) {
        if (sampler == NULL || strcasecmp(sampler, accepted[i]) == 0) {
            return PROBLEM_NONE;
        }
    }
    return problem_set(problem, PROBLEM_INVALID, "sampler_name", "the only sampler here is Euler, not \"%s\"", sampler);
}

static enum problem_code read_fields(const json_t *object, bool has_image, struct fields *ret_fields,
                                     struct problem *problem) {
    struct fields fields = {
        .seed = -1, .batch_size = 1, .n_iter = 1, .cfg_scale = -1.0, .denoising_strength = -1.0, .sends_images = true
    };
    const size_t n_rows = has_image ? COUNT(rows) : COUNT(rows) - N_IMAGE_ROWS;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read_dialect(object, rows, n_rows, idle, COUNT(idle), &fields, problem));
    TRY(check_sampler(&fields, problem));
    if (fields.override_settings != NULL) {
        TRY(read_options(fields.override_settings, &fields.checkpoint, problem));
    }
    *ret_fields = fields;
done:
    return st;
}

static json_t *make_job_request(struct studio *studio, const struct request *request, const struct fields *fields) {
    const bool is_named = fields->checkpoint != NULL && fields->checkpoint[0] != '\0';
    char *model = is_named ? text_copy(fields->checkpoint) : current_model(studio, request);
    json_t *job = JSON("{s:s, s:s, s:I}", "prompt", fields->prompt, "model", model, "count",
                       (json_int_t)(fields->batch_size * fields->n_iter));
    const struct {
        const char *name;
        int64_t value, least;
    } numbers[] = { { "seed", fields->seed, 0 },
                    { "steps", fields->steps, 1 },
                    { "width", fields->width, 1 },
                    { "height", fields->height, 1 } };
    for (size_t i = 0; i < COUNT(numbers); i++) {
        if (numbers[i].value >= numbers[i].least) {
            json_put(job, numbers[i].name, json_integer(numbers[i].value));
        }
    }
    if (fields->negative_prompt != NULL) {
        json_put(job, "negative_prompt", json_string(fields->negative_prompt));
    }
    if (fields->cfg_scale >= 0.0) {
        json_put(job, "guidance", json_real(fields->cfg_scale));
    }
    free(model);
    return job;
}

/* ---- Pictures to start from ---- */

/* In place: false when nothing of it is transparent, and the colours count. */
static bool alpha_to_mask(struct cyi_image *alpha) {
    const size_t n = alpha != NULL ? (size_t)alpha->width * (size_t)alpha->height : 0;
    bool is_used = false;
    for (size_t i = 0; i < n; i++) {
        is_used = is_used || alpha->pixels[i] != 255;
        alpha->pixels[i] = alpha->pixels[i] > ALPHA_BORDER ? 255 : 0;
    }
    return is_used;
}

static void turn_round(struct cyi_image *image) {
    const size_t n = (size_t)image->width * (size_t)image->height * (size_t)image->n_channels;
    for (size_t i = 0; i < n; i++) {
        image->pixels[i] = (uint8_t)(255 - image->pixels[i]);
    }
}

/* White is painted anew, as here; but where there is an alpha it counts, and all may be turned round. */
static enum problem_code keep_mask(struct studio *studio, const struct request *request, const struct fields *fields,
                                   char ret_id[40], struct problem *problem) {
    struct cyi_engine *codec = gallery_codec(studio->gallery);
    struct cyi_image *alpha = NULL, *colours = NULL;
    struct cyi_error err = { 0 };
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(dialect_decode_base64("mask", fields->mask, &data, &n, problem));
    if (cyi_image_decode_alpha(codec, data, n, &alpha, &err) != CYI_OK) {
        st = problem_engine(problem, "mask", &err);
        goto done;
    }
    const bool is_alpha = alpha_to_mask(alpha), is_turned = fields->inverts_mask != 0;
    if (!is_alpha && !is_turned) {
        st = dialect_upload(studio, request, "mask", NULL, data, n, ret_id, problem);
        goto done;
    }
    if (!is_alpha && cyi_image_decode(codec, data, n, &colours, &err) != CYI_OK) {
        st = problem_engine(problem, "mask", &err);
        goto done;
    }
    struct cyi_image *mask = is_alpha ? alpha : colours;
    if (is_turned) {
        turn_round(mask);
    }
    TRY(dialect_upload_image(studio, request, "mask", mask, ret_id, problem));
done:
    cyi_image_free(alpha);
    cyi_image_free(colours);
    free(data);
    return st;
}

static enum problem_code put_inputs(struct studio *studio, const struct request *request, const struct fields *fields,
                                    json_t *job, struct problem *problem) {
    const char *text = json_string_value(json_array_get(fields->init_images, 0));
    char id[40];
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(dialect_decode_base64("init_images", text != NULL ? text : "", &data, &n, problem));
    TRY(dialect_upload(studio, request, "init_images", NULL, data, n, id, problem));
    json_put(job, "init", json_string(id));
    json_put(job, "strength",
             json_real(fields->denoising_strength >= 0.0 ? fields->denoising_strength : DEFAULT_DENOISING));
    if (fields->mask != NULL && fields->mask[0] != '\0') {
        TRY(keep_mask(studio, request, fields, id, problem));
        json_put(job, "mask", json_string(id));
    }
done:
    free(data);
    return st;
}

/* ---- The answer ---- */

static const char *timestamp(char buffer[16]) {
    const time_t now = time(NULL);
    struct tm local;
    if (localtime_r(&now, &local) == NULL || strftime(buffer, 16, "%Y%m%d%H%M%S", &local) == 0) {
        buffer[0] = '\0';
    }
    return buffer;
}

/* What was asked for and made, without the pictures that came in. */
static json_t *describe_parameters(const json_t *done, const struct fields *fields) {
    const char *negative = json_get_text(done, "negative_prompt");
    const json_t *strength = json_object_get(done, "strength");
    return JSON("{s:O, s:s, s:O, s:I, s:I, s:O, s:O, s:O, s:O, s:s, s:o, s:b, s:n, s:n}", "prompt",
                json_object_get(done, "prompt"), "negative_prompt", negative != NULL ? negative : "", "seed",
                json_object_get(done, "seed"), "batch_size", (json_int_t)fields->batch_size, "n_iter",
                (json_int_t)fields->n_iter, "steps", json_object_get(done, "steps"), "cfg_scale",
                json_object_get(done, "guidance"), "width", json_object_get(done, "width"), "height",
                json_object_get(done, "height"), "sampler_name", "Euler", "denoising_strength",
                strength != NULL ? json_real(json_number_value(strength)) : json_null(), "send_images",
                fields->sends_images, "init_images", "mask");
}

static json_t *repeat(json_t *value, size_t n) {
    json_t *list = JSON("[]");
    for (size_t i = 0; i < n; i++) {
        json_add(list, json_incref(value));
    }
    return list;
}

/* A1111's "info", which is JSON in a text. infotexts: one for each picture. */
static json_t *describe_info(struct studio *studio, const json_t *done, const struct fields *fields,
                             json_t *infotexts) {
    const size_t n = json_array_size(infotexts);
    const int64_t seed = json_get_int(done, "seed", 0);
    const char *model = json_get_text(done, "model");
    char *hash = short_hash(studio, model), stamp[16];
    json_t *info = describe_parameters(done, fields), *seeds = JSON("[]"), *none = json_integer(-1);
    for (size_t i = 0; i < n; i++) {
        json_add(seeds, json_integer((seed + (int64_t)i) & UINT32_MAX));
    }
    (void)json_object_del(info, "init_images");
    (void)json_object_del(info, "mask");
    json_put(info, "all_prompts", repeat(json_object_get(info, "prompt"), n));
    json_put(info, "all_negative_prompts", repeat(json_object_get(info, "negative_prompt"), n));
    json_put(info, "all_seeds", seeds);
    json_put(info, "subseed", json_incref(none));
    json_put(info, "all_subseeds", repeat(none, n));
    json_put(info, "subseed_strength", json_integer(0));
    json_put(info, "sd_model_name", json_text(model));
    json_put(info, "sd_model_hash", json_text(hash));
    json_put(info, "index_of_first_image", json_integer(0));
    json_put(info, "infotexts", json_incref(infotexts));
    json_put(info, "styles", JSON("[]"));
    json_put(info, "extra_generation_params", JSON("{}"));
    json_put(info, "restore_faces", json_false());
    json_put(info, "clip_skip", json_integer(1));
    json_put(info, "job_timestamp", json_text(timestamp(stamp)));
    json_put(info, "version", json_text("CyberImage " CYI_VERSION));
    char *text = json_text_of(info);
    json_t *quoted = json_text(text);
    json_decref(info);
    json_decref(none);
    free(text);
    free(hash);
    return quoted;
}

static json_t *read_infotext(struct studio *studio, const void *data, size_t n) {
    struct cyi_engine *codec = gallery_codec(studio->gallery);
    char *parameters = NULL, *json = NULL;
    struct cyi_error err = { 0 };
    (void)cyi_image_decode_texts(codec, data, n, &parameters, &json, &err);
    json_t *infotext = json_text(parameters != NULL ? parameters : "");
    cyi_release(codec, parameters);
    cyi_release(codec, json);
    return infotext;
}

static enum problem_code write_pictures(struct studio *studio, struct request *request, struct response *response,
                                        const struct fields *fields, const json_t *images, json_t *infotexts,
                                        struct problem *problem) {
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    for (size_t i = 0; i < json_array_size(images); i++) {
        free(data);
        data = NULL;
        TRY(dialect_read_picture(studio, request_caller(request)->user_id, json_string_value(json_array_get(images, i)),
                                 dialect_find_format("png"), 0, &data, &n, problem));
        json_add(infotexts, read_infotext(studio, data, n));
        TRY(dialect_write(response, i == 0 ? "{\"images\":[" : fields->sends_images ? "," : "", problem));
        TRY(fields->sends_images ? dialect_write_base64(response, data, n, problem) : PROBLEM_NONE);
    }
done:
    free(data);
    return st;
}

static enum problem_code write_answer(struct studio *studio, struct request *request, struct response *response,
                                      const struct fields *fields, const json_t *job, struct problem *problem) {
    const json_t *done = json_object_get(job, "request");
    json_t *infotexts = JSON("[]"), *parameters = describe_parameters(done, fields), *info = NULL;
    char *text = NULL;
    enum problem_code st = PROBLEM_NONE;
    response_begin_stream(response, 200, "application/json");
    TRY(write_pictures(studio, request, response, fields, json_object_get(job, "images"), infotexts, problem));
    info = describe_info(studio, done, fields, infotexts);
    char *parameters_text = json_text_of(parameters), *info_text = json_text_of(info);
    text = text_format("],\"parameters\":%s,\"info\":%s}", parameters_text, info_text);
    free(parameters_text);
    free(info_text);
    TRY(dialect_write(response, text, problem));
done:
    free(text);
    json_decref(infotexts);
    json_decref(parameters);
    json_decref(info);
    return st;
}

static enum problem_code make_pictures(struct studio *studio, struct request *request, struct response *response,
                                       bool has_image, struct problem *problem) {
    struct fields fields;
    json_t *job_request = NULL, *job = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(read_fields(request_json(request), has_image, &fields, problem));
    job_request = make_job_request(studio, request, &fields);
    if (has_image) {
        TRY(put_inputs(studio, request, &fields, job_request, problem));
    }
    TRY(dialect_run(studio, request, response, job_request, SOURCE, &job, problem));
    const bool is_interrupted = strcmp(json_get_text(job, "state"), "cancelled") == 0;
    if (!is_interrupted || json_array_size(json_object_get(job, "images")) == 0) {
        TRY(dialect_check_done(job, response, problem)); /* else what was made until then is the answer, as theirs is */
    }
    TRY(write_answer(studio, request, response, &fields, job, problem));
done:
    dialect_rename_field(problem, field_names);
    json_decref(job_request);
    json_decref(job);
    return st;
}

static enum problem_code text_to_image(struct studio *studio, struct request *request, struct response *response,
                                       struct problem *problem) {
    return make_pictures(studio, request, response, false, problem);
}

static enum problem_code image_to_image(struct studio *studio, struct request *request, struct response *response,
                                        struct problem *problem) {
    return make_pictures(studio, request, response, true, problem);
}

/* ---- Progress and interrupting ---- */

/* The oldest job that this caller's clients wait for here, one that runs before those that wait; NULL: there is none. */
static enum problem_code find_job(struct studio *studio, const struct request *request, json_t **ret_job,
                                  struct problem *problem) {
    static const char *const states[] = { "running", "queued" };
    enum problem_code st = PROBLEM_NONE;
    *ret_job = NULL;
    for (size_t i = 0; i < COUNT(states) && st == PROBLEM_NONE && *ret_job == NULL; i++) {
        const struct job_filter filter = {
            .owner = request_caller(request)->user_id, .state = states[i], .source = SOURCE, .limit = MAX_JOBS
        };
        json_t *jobs = NULL;
        struct db *db = store_read(studio->store);
        st = jobs_list(db, &filter, &jobs, problem);
        store_read_done(studio->store, db);
        const size_t n = json_array_size(jobs);
        *ret_job = n > 0 ? json_incref(json_array_get(jobs, n - 1)) : NULL;
        json_decref(jobs);
    }
    return st;
}

/* The preview as PNG in base64, or null. */
static json_t *describe_preview(struct studio *studio, const struct request *request, const char *job_id) {
    const char *skip = request_query(request, "skip_current_image");
    const bool is_skipped = skip != NULL && (strcasecmp(skip, "true") == 0 || strcmp(skip, "1") == 0);
    struct cyi_engine *codec = gallery_codec(studio->gallery);
    struct cyi_image image = { 0 };
    struct cyi_error err = { 0 };
    json_t *preview = json_null();
    void *data = NULL;
    size_t n = 0;
    if (!is_skipped && queue_preview(studio->queue, request_caller(request)->user_id, job_id, &image) &&
        cyi_image_encode(codec, &image, NULL, &data, &n, &err) == CYI_OK) {
        preview = dialect_base64(data, n);
    }
    cyi_release(codec, data);
    free(image.pixels);
    return preview;
}

static enum problem_code show_progress(struct studio *studio, struct request *request, struct response *response,
                                       struct problem *problem) {
    json_t *found = NULL, *job = NULL;
    const json_t *progress = NULL;
    enum problem_code st = PROBLEM_NONE;
    char stamp[16];
    TRY(find_job(studio, request, &found, problem));
    if (found != NULL) {
        TRY(queue_get(studio->queue, NULL, json_get_text(found, "id"), &job, problem));
        progress = json_object_get(job, "progress");
    }
    const char *id = job != NULL ? json_get_text(job, "id") : "";
    json_t *state =
        JSON("{s:b, s:b, s:b, s:s, s:I, s:s, s:I, s:I, s:I}", "skipped", 0, "interrupted", 0, "stopping_generation", 0,
             "job", id, "job_count", (json_int_t)json_get_int(job, "count", 0), "job_timestamp",
             job != NULL ? timestamp(stamp) : "0", "job_no", (json_int_t)json_get_int(progress, "picture", 0),
             "sampling_step", (json_int_t)json_get_int(progress, "step", 0), "sampling_steps",
             (json_int_t)json_get_int(progress, "n_steps", 0));
    response_json(response, 200,
                  JSON("{s:f, s:f, s:o, s:o, s:n}", "progress",
                       json_number_value(json_object_get(progress, "fraction")), "eta_relative",
                       json_number_value(json_object_get(progress, "remaining_seconds")), "state", state,
                       "current_image", describe_preview(studio, request, id), "textinfo"));
done:
    json_decref(found);
    json_decref(job);
    return st;
}

static enum problem_code interrupt(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    json_t *job = NULL;
    struct problem ignored = { 0 }; /* it may have ended in this moment */
    enum problem_code st = PROBLEM_NONE;
    TRY(find_job(studio, request, &job, problem));
    if (job != NULL) {
        (void)queue_cancel(studio->queue, request_actor(request), request_caller(request)->user_id,
                           json_get_text(job, "id"), &ignored);
    }
    response_json(response, 200, JSON("{}"));
done:
    json_decref(job);
    return st;
}

/* ---- Models and options ---- */

static enum problem_code list_models(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    json_t *models = queue_models(studio->queue), *model, *list = JSON("[]");
    size_t i;
    (void)request;
    (void)problem;
    json_array_foreach(models, i, model) {
        if (json_is_true(json_object_get(model, "usable"))) {
            json_t *name = json_object_get(model, "name");
            const char *hash = json_get_text(model, "fingerprint");
            json_add(list, JSON("{s:O, s:O, s:s%, s:s, s:O, s:n}", "title", name, "model_name", name, "hash", hash,
                                (size_t)10, "sha256", hash, "filename", name, "config"));
        }
    }
    response_json(response, 200, list);
    json_decref(models);
    return PROBLEM_NONE;
}

static enum problem_code show_options(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    char *model = current_model(studio, request), *hash = short_hash(studio, model);
    (void)problem;
    response_json(response, 200,
                  JSON("{s:s, s:s, s:s, s:i, s:s}", "sd_model_checkpoint", model, "sd_checkpoint_hash", hash, "sd_vae",
                       "Automatic", "CLIP_stop_at_last_layers", 1, "samples_format", "png"));
    free(model);
    free(hash);
    return PROBLEM_NONE;
}

/* The model is chosen for this account: where A1111 has one for all, here are several people. */
static enum problem_code set_options(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    const char *name = NULL, *user = request_caller(request)->user_id;
    json_t *model = NULL;
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(read_options(request_json(request), &name, problem));
    if (name != NULL && name[0] != '\0') {
        model = queue_model(studio->queue, name);
        if (!json_is_true(json_object_get(model, "usable"))) {
            st = problem_set(problem, PROBLEM_NOT_FOUND, "sd_model_checkpoint", "there is no model \"%s\" here", name);
            goto done;
        }
        TRY(store_begin(studio->store, &db, problem));
        TRY(users_set_model(db, user, json_get_text(model, "name"), problem));
        TRY(audit_append(db, request_actor(request), "model.chosen", json_get_text(model, "name"), NULL, problem));
        TRY(store_commit(studio->store, &db, problem));
    }
    response_json(response, 200, json_null());
done:
    store_rollback(studio->store, &db);
    json_decref(model);
    return st;
}

/* ---- What tools ask when they start ---- */

/* The same for everybody and at all times. */
static const struct {
    const char *path, *json;
} constants[] = {
    { "/sdapi/v1/samplers", "[{\"name\":\"Euler\",\"aliases\":[\"k_euler\"],\"options\":{}}]" },
    { "/sdapi/v1/schedulers", "[{\"name\":\"automatic\",\"label\":\"Automatic\",\"aliases\":null,\"default_rho\":-1.0,"
                              "\"need_inner_model\":false}]" },
    { "/sdapi/v1/upscalers", "[]" },
    { "/sdapi/v1/latent-upscale-modes", "[]" },
    { "/sdapi/v1/sd-vae", "[]" },
    { "/sdapi/v1/loras", "[]" },
    { "/sdapi/v1/hypernetworks", "[]" },
    { "/sdapi/v1/face-restorers", "[]" },
    { "/sdapi/v1/prompt-styles", "[]" },
    { "/sdapi/v1/embeddings", "{\"loaded\":{},\"skipped\":{}}" },
    { "/sdapi/v1/scripts", "{\"txt2img\":[],\"img2img\":[]}" },
    { "/sdapi/v1/script-info", "[]" },
    { "/sdapi/v1/cmd-flags", "{\"api\":true}" },
};

static enum problem_code show_constant(struct studio *studio, struct request *request, struct response *response,
                                       struct problem *problem) {
    (void)studio;
    (void)problem;
    for (size_t i = 0; i < COUNT(constants); i++) {
        if (strcmp(constants[i].path, request_path(request)) == 0) {
            response_bytes(response, 200, "application/json", constants[i].json, strlen(constants[i].json));
        }
    }
    return PROBLEM_NONE;
}

static enum problem_code show_memory(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    struct system_info info;
    (void)studio;
    (void)request;
    (void)problem;
    system_info_read(&info);
    response_json(response, 200,
                  JSON("{s:{s:I, s:I, s:I}, s:{s:s}}", "ram", "free", (json_int_t)info.available_bytes, "used",
                       (json_int_t)(info.memory_bytes - info.available_bytes), "total", (json_int_t)info.memory_bytes,
                       "cuda", "error", "GET /api/v1/workers says what each card does"));
    return PROBLEM_NONE;
}

static const struct json_row png_rows[] = { { "image", JSON_ROW_TEXT, 0, 1, 1e9, NULL, JSON_NEEDED } };

static enum problem_code read_png_info(struct studio *studio, struct request *request, struct response *response,
                                       struct problem *problem) {
    struct cyi_engine *codec = gallery_codec(studio->gallery);
    const char *image = NULL;
    char *text = NULL, *json = NULL;
    struct cyi_error err = { 0 };
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read(request_json(request), png_rows, COUNT(png_rows), &image, problem));
    TRY(dialect_decode_base64("image", image, &data, &n, problem));
    if (cyi_image_decode_texts(codec, data, n, &text, &json, &err) != CYI_OK) {
        st = problem_engine(problem, "image", &err);
        goto done;
    }
    json_t *items = JSON("{}"), *parameters = JSON("{}");
    if (text != NULL) {
        json_t *read = metadata_read_parameters(text);
        const char *negative = json_get_text(read, "negative_prompt");
        (void)json_object_update(parameters, json_object_get(read, "settings"));
        json_put(parameters, "Prompt", json_incref(json_object_get(read, "prompt")));
        json_put(parameters, "Negative prompt", json_text(negative != NULL ? negative : ""));
        json_put(items, "parameters", json_text(text));
        json_decref(read);
    }
    response_json(
        response, 200,
        JSON("{s:o, s:o, s:o}", "info", json_text(text != NULL ? text : ""), "items", items, "parameters", parameters));
done:
    cyi_release(codec, text);
    cyi_release(codec, json);
    free(data);
    return st;
}

#define CONSTANT(name)                                                                                                 \
    { "GET", "/sdapi/v1/" name, ACCESS_GENERATE, BODY_NONE, 0, show_constant }

static const struct route routes[] = {
    { "POST", "/sdapi/v1/txt2img", ACCESS_GENERATE, BODY_JSON, ROUTE_SLOW | ROUTE_SIMPLE, text_to_image },
    { "POST", "/sdapi/v1/img2img", ACCESS_GENERATE, BODY_JSON, ROUTE_SLOW | ROUTE_SIMPLE, image_to_image },
    { "POST", "/sdapi/v1/png-info", ACCESS_GENERATE, BODY_JSON, ROUTE_SLOW | ROUTE_SIMPLE, read_png_info },
    { "GET", "/sdapi/v1/progress", ACCESS_GENERATE, BODY_NONE, ROUTE_SLOW, show_progress },
    { "POST", "/sdapi/v1/interrupt", ACCESS_GENERATE, BODY_JSON, ROUTE_SIMPLE, interrupt },
    { "GET", "/sdapi/v1/options", ACCESS_GENERATE, BODY_NONE, 0, show_options },
    { "POST", "/sdapi/v1/options", ACCESS_GENERATE, BODY_JSON, ROUTE_SIMPLE, set_options },
    { "GET", "/sdapi/v1/sd-models", ACCESS_GENERATE, BODY_NONE, 0, list_models },
    { "GET", "/sdapi/v1/memory", ACCESS_GENERATE, BODY_NONE, 0, show_memory },
    CONSTANT("samplers"),
    CONSTANT("schedulers"),
    CONSTANT("upscalers"),
    CONSTANT("latent-upscale-modes"),
    CONSTANT("sd-vae"),
    CONSTANT("loras"),
    CONSTANT("hypernetworks"),
    CONSTANT("face-restorers"),
    CONSTANT("prompt-styles"),
    CONSTANT("embeddings"),
    CONSTANT("scripts"),
    CONSTANT("script-info"),
    CONSTANT("cmd-flags"),
};

const struct route_table sdapi_routes = { routes, COUNT(routes) };
