/* OpenAI's images API: generations, edits, models. Pictures come as base64 or as links that whoever has them may follow
 * for an hour: clients fetch them without their token. */
#include "routes/routes.h"

#include "gallery/gallery.h"
#include "jobs/queue.h"
#include "routes/dialects.h"
#include "store/images.h"
#include "studio.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define MAX_COUNT 10
#define MAX_GUIDANCE 100
#define MAX_SEED 4294967295.0
#define DEFAULT_QUALITY 92
#define NO_COMPRESSION 100 /* what their clients send where nothing is asked for */
#define LINK_SECONDS 3600

/* ---- What is asked for ---- */

struct fields {
    const char *prompt, *model, *size, *response_format, *output_format;
    const char *negative_prompt; /* this and the next three are our own, for those who want them */
    int64_t seed, steps;
    double guidance;
    int64_t n, output_compression;
};

#define AT(name) offsetof(struct fields, name)

static const struct json_row rows[] = {
    { "prompt", JSON_ROW_TEXT, AT(prompt), 1, CYI_MAX_PROMPT_BYTES, NULL, JSON_NEEDED },
    { "model", JSON_ROW_TEXT, AT(model), 1, 256, NULL, JSON_NULLABLE },
    { "n", JSON_ROW_INT, AT(n), 1, MAX_COUNT, NULL, JSON_NULLABLE },
    { "size", JSON_ROW_TEXT, AT(size), 1, 32, NULL, JSON_NULLABLE },
    { "response_format", JSON_ROW_CHOICE, AT(response_format), 0, 0, "url|b64_json", JSON_NULLABLE },
    { "output_format", JSON_ROW_CHOICE, AT(output_format), 0, 0, "png|jpeg|webp", JSON_NULLABLE },
    { "output_compression", JSON_ROW_INT, AT(output_compression), 0, 100, NULL, JSON_NULLABLE },
    { "negative_prompt", JSON_ROW_TEXT, AT(negative_prompt), 0, CYI_MAX_PROMPT_BYTES, NULL, JSON_NULLABLE },
    { "seed", JSON_ROW_INT, AT(seed), 0, MAX_SEED, NULL, JSON_NULLABLE },
    { "steps", JSON_ROW_INT, AT(steps), 1, CYI_MAX_STEPS, NULL, JSON_NULLABLE },
    { "guidance", JSON_ROW_NUMBER, AT(guidance), 0, MAX_GUIDANCE, NULL, JSON_NULLABLE },
};

static const struct json_idle idle[] = {
    { "background", "auto|opaque" },
    { "quality", "auto|standard" },
    { "style", "vivid" },
    { "moderation", NULL },
    { "user", NULL },
    { "safety_identifier", NULL },
    { "stream", "false" },
    { "partial_images", "0" },
    { "input_fidelity", "low" },
};

static const char *const field_names[][2] = {
    { "count", "n" },          { "width", "size" }, { "height", "size" },
    { "references", "image" }, { "init", "image" }, { NULL, NULL },
};

struct order {
    struct fields fields;
    int64_t width, height; /* 0: the model's */
    const struct dialect_format *format;
    int quality;
};

/* "1024x768" */
static bool parse_size(const char *size, int64_t *ret_width, int64_t *ret_height) {
    const size_t n_width = strspn(size, "0123456789");
    const size_t n_height = size[n_width] == 'x' ? strspn(size + n_width + 1, "0123456789") : 0;
    if (n_width < 1 || n_width > 5 || n_height < 1 || n_height > 5 || size[n_width + 1 + n_height] != '\0') {
        return false;
    }
    *ret_width = strtoll(size, NULL, 10);
    *ret_height = strtoll(size + n_width + 1, NULL, 10);
    return *ret_width > 0 && *ret_height > 0;
}

static enum problem_code read_order(const json_t *object, struct order *ret_order, struct problem *problem) {
    struct order order = { .fields = { .n = 1, .seed = -1, .guidance = -1.0, .output_compression = -1 } };
    struct fields *fields = &order.fields;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read_dialect(object, rows, COUNT(rows), idle, COUNT(idle), fields, problem));
    if (fields->size != NULL && strcmp(fields->size, "auto") != 0 &&
        !parse_size(fields->size, &order.width, &order.height)) {
        st = problem_set(problem, PROBLEM_INVALID, "size", "\"size\" is auto, or such as 1024x768, not \"%s\"",
                         fields->size);
        goto done;
    }
    order.format = dialect_find_format(fields->output_format != NULL ? fields->output_format : "png");
    order.quality = fields->output_compression < 0    ? DEFAULT_QUALITY
                    : fields->output_compression == 0 ? 1 /* theirs begins at 0 */
                                                      : (int)fields->output_compression;
    if (order.format->format == CYI_FORMAT_PNG && fields->output_compression >= 0 &&
        fields->output_compression != NO_COMPRESSION) {
        st = problem_set(problem, PROBLEM_INVALID, "output_compression",
                         "\"output_compression\" goes with jpeg and webp; PNG loses nothing");
        goto done;
    }
    *ret_order = order;
done:
    return st;
}

static json_t *make_job_request(const struct order *order) {
    const struct fields *fields = &order->fields;
    json_t *job = JSON("{s:s, s:I}", "prompt", fields->prompt, "count", (json_int_t)fields->n);
    if (fields->model != NULL) {
        json_put(job, "model", json_string(fields->model));
    }
    if (fields->negative_prompt != NULL) {
        json_put(job, "negative_prompt", json_string(fields->negative_prompt));
    }
    if (order->width > 0) {
        json_put(job, "width", json_integer(order->width));
        json_put(job, "height", json_integer(order->height));
    }
    if (fields->seed >= 0) {
        json_put(job, "seed", json_integer(fields->seed));
    }
    if (fields->steps > 0) {
        json_put(job, "steps", json_integer(fields->steps));
    }
    if (fields->guidance >= 0.0) {
        json_put(job, "guidance", json_real(fields->guidance));
    }
    return job;
}

/* ---- Links ---- */

/* What a link says behind …/v1/images/, and what its signature is of. A new string. */
static char *link_text(const char *id, const char *ending, int64_t until, int64_t quality) {
    return text_format("%s.%s?until=%lld&quality=%lld", id, ending, (long long)until, (long long)quality);
}

static char *make_link(struct studio *studio, const struct request *request, const struct order *order,
                       const char *id) {
    char signature[DIALECT_SIGNATURE_TEXT];
    char *text = link_text(id, order->format->ending, time(NULL) + LINK_SECONDS, order->quality);
    dialect_sign(studio->dialects, text, signature);
    char *link = text_format("%s/v1/images/%s&signature=%s", request_base_url(request), text, signature);
    free(text);
    return link;
}

struct link_fields {
    int64_t until, quality;
    const char *signature;
};

static const struct json_row link_rows[] = {
    { "until", JSON_ROW_INT, offsetof(struct link_fields, until), 0, 1e12, NULL, JSON_NEEDED },
    { "quality", JSON_ROW_INT, offsetof(struct link_fields, quality), 1, 100, NULL, JSON_NEEDED },
    { "signature", JSON_ROW_TEXT, offsetof(struct link_fields, signature), 1, 128, NULL, JSON_NEEDED },
};

static enum problem_code follow_link(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    const char *id = request_parameter(request, "id"), *ending = request_parameter(request, "ending");
    const struct dialect_format *format = dialect_find_format(ending);
    struct link_fields fields = { 0 };
    char *text = NULL;
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(request_read_query(request, link_rows, COUNT(link_rows), &fields, problem));
    text = link_text(id, ending, fields.until, fields.quality);
    if (format == NULL || !dialect_is_signed(studio->dialects, text, fields.signature)) {
        st =
            problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such link, or it is from before the last start");
        goto done;
    }
    if (time(NULL) > fields.until) {
        st = problem_set(problem, PROBLEM_GONE, NULL, "the link has ended; the picture is in the gallery");
        goto done;
    }
    TRY(dialect_read_picture(studio, NULL, id, format, (int)fields.quality, &data, &n, problem));
    TRY(audit_write(studio->store, request_actor(request), "image.downloaded", id,
                    JSON("{s:s, s:s}", "format", format->name, "by", "link"), problem));
    response_header(response, "Cross-Origin-Resource-Policy", "cross-origin"); /* pages of chat programs show it */
    response_bytes(response, 200, format->type, data, n);
done:
    free(text);
    free(data);
    return st;
}

/* ---- The answer ---- */

static enum problem_code write_picture(struct studio *studio, struct request *request, struct response *response,
                                       const struct order *order, const char *id, struct problem *problem) {
    /* Who does not say which form they want, read one or the other. */
    const char *wanted = order->fields.response_format;
    const bool wants_link = wanted == NULL || strcmp(wanted, "url") == 0;
    const bool wants_data = wanted == NULL || strcmp(wanted, "b64_json") == 0;
    char *link = wants_link ? make_link(studio, request, order, id) : NULL;
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    if (wants_data) {
        TRY(dialect_read_picture(studio, request_caller(request)->user_id, id, order->format, order->quality, &data, &n,
                                 problem));
        TRY(dialect_write(response, "{\"b64_json\":", problem));
        TRY(dialect_write_base64(response, data, n, problem));
    }
    if (wants_link) {
        TRY(dialect_write(response, wants_data ? ",\"url\":\"" : "{\"url\":\"", problem));
        TRY(dialect_write(response, link, problem));
        TRY(dialect_write(response, "\"", problem));
    }
    TRY(dialect_write(response, "}", problem));
done:
    free(link);
    free(data);
    return st;
}

/* Streamed, so that no more than one picture is in memory. */
static enum problem_code write_answer(struct studio *studio, struct request *request, struct response *response,
                                      const struct order *order, const json_t *job, struct problem *problem) {
    const json_t *done = json_object_get(job, "request"), *images = json_object_get(job, "images");
    char *head = text_format("{\"created\":%lld,\"output_format\":\"%s\",\"background\":\"opaque\",\"size\":"
                             "\"%lldx%lld\",\"data\":[",
                             (long long)time(NULL), order->format->name, (long long)json_get_int(done, "width", 0),
                             (long long)json_get_int(done, "height", 0));
    enum problem_code st = PROBLEM_NONE;
    response_begin_stream(response, 200, "application/json");
    TRY(dialect_write(response, head, problem));
    for (size_t i = 0; i < json_array_size(images); i++) {
        TRY(i > 0 ? dialect_write(response, ",", problem) : PROBLEM_NONE);
        TRY(write_picture(studio, request, response, order, json_string_value(json_array_get(images, i)), problem));
    }
    TRY(dialect_write(response, "]}", problem));
done:
    free(head);
    return st;
}

/* Takes job_request over. */
static enum problem_code make_pictures(struct studio *studio, struct request *request, struct response *response,
                                       const struct order *order, json_t *job_request, struct problem *problem) {
    json_t *job = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(dialect_run(studio, request, response, job_request, "openai", &job, problem));
    TRY(dialect_check_done(job, response, problem));
    TRY(write_answer(studio, request, response, order, job, problem));
done:
    dialect_rename_field(problem, field_names);
    json_decref(job_request);
    json_decref(job);
    return st;
}

static enum problem_code generate(struct studio *studio, struct request *request, struct response *response,
                                  struct problem *problem) {
    struct order order;
    enum problem_code st = PROBLEM_NONE;
    TRY(read_order(request_json(request), &order, problem));
    TRY(make_pictures(studio, request, response, &order, make_job_request(&order), problem));
done:
    return st;
}

/* ---- Edits ---- */

/* Theirs is transparent where the picture is painted anew, ours is white. */
static enum problem_code keep_mask(struct studio *studio, const struct request *request, const struct form_part *part,
                                   char ret_id[40], struct problem *problem) {
    struct cyi_image *alpha = NULL;
    struct cyi_error err = { 0 };
    enum problem_code st = PROBLEM_NONE;
    if (cyi_image_decode_alpha(gallery_codec(studio->gallery), part->data, part->n, &alpha, &err) != CYI_OK) {
        st = problem_engine(problem, "mask", &err);
        goto done;
    }
    if (alpha == NULL) {
        st = problem_set(problem, PROBLEM_INVALID, "mask",
                         "\"mask\" must be a PNG that is transparent where the picture is to be made anew");
        goto done;
    }
    for (size_t i = 0; i < (size_t)alpha->width * (size_t)alpha->height; i++) {
        alpha->pixels[i] = (uint8_t)(255 - alpha->pixels[i]);
    }
    TRY(dialect_upload_image(studio, request, "mask", alpha, ret_id, problem));
done:
    cyi_image_free(alpha);
    return st;
}

struct inputs {
    json_t *images; /* ids */
    char mask[40];  /* "": none */
};

/* image, image[], image[0]: libraries differ. */
static bool is_image(const char *name) {
    return strcmp(name, "image") == 0 || strncmp(name, "image[", 6) == 0;
}

static enum problem_code keep_inputs(struct studio *studio, const struct request *request, struct inputs *inputs,
                                     struct problem *problem) {
    size_t n_parts = 0;
    const struct form_part *parts = request_parts(request, &n_parts);
    char id[40];
    enum problem_code st = PROBLEM_NONE;
    for (size_t i = 0; i < n_parts; i++) {
        const struct form_part *part = &parts[i];
        if (part->file_name == NULL) {
            continue;
        }
        if (strcmp(part->name, "mask") == 0 && inputs->mask[0] == '\0') {
            TRY(keep_mask(studio, request, part, inputs->mask, problem));
        } else if (is_image(part->name) && json_array_size(inputs->images) < CYI_MAX_REFERENCES) {
            TRY(dialect_upload(studio, request, "image", part->file_name, part->data, part->n, id, problem));
            json_add(inputs->images, json_string(id));
        } else {
            st = problem_set(problem, PROBLEM_INVALID, part->name,
                             "the form takes up to %d pictures as \"image\" and one as \"mask\"", CYI_MAX_REFERENCES);
            goto done;
        }
    }
    if (json_array_size(inputs->images) == 0) {
        st = problem_set(problem, PROBLEM_INVALID, "image", "\"image\" is missing: a form with at least one picture");
    }
done:
    return st;
}

/* The first picture's shape, with no more pixels than the model likes. Unknown models are the queue's affair. */
static enum problem_code choose_size(struct studio *studio, const char *id, struct order *order,
                                     struct problem *problem) {
    char *preset = settings_text(studio->settings, SETTING_model);
    json_t *model = queue_model(studio->queue, order->fields.model != NULL ? order->fields.model : preset);
    const double multiple = (double)json_get_int(model, "size_multiple", 16);
    const double most =
        (double)json_get_int(model, "default_width", 0) * (double)json_get_int(model, "default_height", 0);
    json_t *row = NULL;
    struct db *db = store_read(studio->store);
    const enum problem_code st = images_find(db, NULL, id, &row, problem);
    store_read_done(studio->store, db);
    const double width = (double)json_get_int(row, "width", 0), height = (double)json_get_int(row, "height", 0);
    if (st == PROBLEM_NONE && width > 0.0 && height > 0.0 && most > 0.0) {
        const double scale = fmin(1.0, sqrt(most / (width * height))) / multiple;
        order->width = (int64_t)(fmax(1.0, round(width * scale)) * multiple);
        order->height = (int64_t)(fmax(1.0, round(height * scale)) * multiple);
    }
    json_decref(row);
    json_decref(model);
    free(preset);
    return st;
}

/* With a mask the first picture is what is painted on, and the others are looked at; without one all are. */
static void put_inputs(json_t *job, const struct inputs *inputs) {
    json_t *references = json_need(json_copy(inputs->images));
    if (inputs->mask[0] != '\0') {
        json_put(job, "init", json_incref(json_array_get(references, 0)));
        json_put(job, "mask", json_string(inputs->mask));
        json_put(job, "strength", json_real(1.0));
        (void)json_array_remove(references, 0);
    }
    json_put(job, "references", references);
}

static enum problem_code edit(struct studio *studio, struct request *request, struct response *response,
                              struct problem *problem) {
    const json_t *object = NULL;
    struct inputs inputs = { .images = JSON("[]") };
    struct order order;
    enum problem_code st = PROBLEM_NONE;
    TRY(request_form_object(request, rows, COUNT(rows), &object, problem));
    TRY(read_order(object, &order, problem));
    TRY(keep_inputs(studio, request, &inputs, problem));
    if (order.width == 0) {
        TRY(choose_size(studio, json_string_value(json_array_get(inputs.images, 0)), &order, problem));
    }
    json_t *job_request = make_job_request(&order);
    put_inputs(job_request, &inputs);
    TRY(make_pictures(studio, request, response, &order, job_request, problem));
done:
    json_decref(inputs.images);
    return st;
}

/* ---- Models ---- */

static json_t *describe_model(struct studio *studio, const json_t *model) {
    return JSON("{s:O, s:s, s:I, s:s}", "id", json_object_get(model, "name"), "object", "model", "created",
                (json_int_t)(studio->started_us / 1000000), "owned_by", "cyberimage");
}

static enum problem_code list_models(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    json_t *models = queue_models(studio->queue), *model, *list = JSON("[]");
    size_t i;
    (void)request;
    (void)problem;
    json_array_foreach(models, i, model) {
        if (json_is_true(json_object_get(model, "usable"))) {
            json_add(list, describe_model(studio, model));
        }
    }
    response_json(response, 200, JSON("{s:s, s:o}", "object", "list", "data", list));
    json_decref(models);
    return PROBLEM_NONE;
}

/* "neon", or "ORG/NAME" in two parts of the path. */
static enum problem_code show_model(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    const char *organisation = request_parameter(request, "organisation"), *last = request_parameter(request, "name");
    char *name = text_format("%s%s%s", organisation, organisation[0] != '\0' ? "/" : "", last);
    json_t *model = queue_model(studio->queue, name);
    enum problem_code st = PROBLEM_NONE;
    if (json_is_true(json_object_get(model, "usable"))) {
        response_json(response, 200, describe_model(studio, model));
    } else {
        st = problem_set(problem, PROBLEM_NOT_FOUND, "model", "there is no model \"%.200s\" here", name);
    }
    json_decref(model);
    free(name);
    return st;
}

static const struct route routes[] = {
    { "POST", "/v1/images/generations", ACCESS_GENERATE, BODY_JSON, ROUTE_SLOW | ROUTE_SIMPLE, generate },
    { "POST", "/v1/images/edits", ACCESS_GENERATE, BODY_FORM, ROUTE_SLOW | ROUTE_SIMPLE, edit },
    { "GET", "/v1/images/{id}.{ending}", ACCESS_ANYBODY, BODY_NONE, ROUTE_SLOW, follow_link },
    { "GET", "/v1/models", ACCESS_GENERATE, BODY_NONE, 0, list_models },
    { "GET", "/v1/models/{name}", ACCESS_GENERATE, BODY_NONE, 0, show_model },
    { "GET", "/v1/models/{organisation}/{name}", ACCESS_GENERATE, BODY_NONE, 0, show_model },
};

const struct route_table openai_routes = { routes, COUNT(routes) };
