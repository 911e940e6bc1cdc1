/* What the dialects share: see dialects.h. */
#include "routes/dialects.h"

#include "gallery/gallery.h"
#include "jobs/queue.h"
#include "routes/routes.h"
#include "studio.h"

#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WAITING 48 /* of the slow routes' threads, so that the others stay able to answer */
#define RETRY_SECONDS 5
#define PIECE_BYTES ((size_t)48 * 1024) /* of three, so that pieces of base64 join without padding */

struct dialects {
    atomic_int n_waiting;
    uint8_t key[crypto_auth_KEYBYTES];
};

struct dialects *dialects_create(void) {
    struct dialects *dialects = text_alloc(1, sizeof *dialects);
    crypto_auth_keygen(dialects->key);
    return dialects;
}

void dialects_free(struct dialects *dialects) {
    if (dialects != NULL) {
        sodium_memzero(dialects->key, sizeof dialects->key);
        free(dialects);
    }
}

/* ---- Jobs ---- */

static bool is_wanted(void *user) {
    return response_is_wanted(user);
}

static bool has_ended(const json_t *job) {
    const char *state = json_get_text(job, "state");
    return strcmp(state, "queued") != 0 && strcmp(state, "running") != 0;
}

static enum problem_code submit_and_wait(struct studio *studio, struct request *request, struct response *response,
                                         const struct submission *submission, json_t **ret_job,
                                         struct problem *problem) {
    json_t *job = NULL, *ended = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(queue_submit(studio->queue, submission, &job, NULL, problem));
    const char *id = json_get_text(job, "id");
    TRY(queue_wait(studio->queue, submission->owner, id, is_wanted, response, &ended, problem));
    if (!has_ended(ended)) { /* nobody waits for it any more */
        struct problem ignored = { 0 };
        (void)queue_cancel(studio->queue, request_actor(request), submission->owner, id, &ignored);
        st = problem_set(problem, PROBLEM_UNAVAILABLE, NULL,
                         "the client has gone or the studio is stopping; the job is cancelled");
        goto done;
    }
    *ret_job = ended;
    ended = NULL;
done:
    json_decref(job);
    json_decref(ended);
    return st;
}

enum problem_code dialect_run(struct studio *studio, struct request *request, struct response *response,
                              const json_t *job_request, const char *source, json_t **ret_job,
                              struct problem *problem) {
    const struct submission submission = { .actor = request_actor(request),
                                           .owner = request_caller(request)->user_id,
                                           .request = job_request,
                                           .source = source };
    atomic_int *n_waiting = &studio->dialects->n_waiting;
    enum problem_code st;
    if (atomic_fetch_add(n_waiting, 1) < MAX_WAITING) {
        st = submit_and_wait(studio, request, response, &submission, ret_job, problem);
    } else {
        problem->retry_after_seconds = RETRY_SECONDS;
        st =
            problem_set(problem, PROBLEM_TOO_MANY, NULL,
                        "%d requests wait for their pictures already; POST /api/v1/jobs needs no waiting", MAX_WAITING);
    }
    (void)atomic_fetch_sub(n_waiting, 1);
    return st;
}

enum problem_code dialect_check_done(const json_t *job, struct response *response, struct problem *problem) {
    const char *state = json_get_text(job, "state"), *error = json_get_text(job, "error");
    if (strcmp(state, "done") == 0) {
        return PROBLEM_NONE;
    }
    /* OpenAI's clients would send the request twice more; the queue has made its attempts. */
    response_header(response, "X-Should-Retry", "false");
    return strcmp(state, "cancelled") == 0
               ? problem_set(problem, PROBLEM_CONFLICT, NULL, "the job was cancelled")
               : problem_set(problem, strcmp(state, "failed") == 0 ? PROBLEM_INVALID : PROBLEM_INTERNAL, NULL, "%.500s",
                             error != NULL ? error : "the picture could not be made");
}

void dialect_rename_field(struct problem *problem, const char *const names[][2]) {
    for (size_t i = 0; names[i][0] != NULL; i++) {
        if (strcmp(problem->field, names[i][0]) == 0) {
            (void)snprintf(problem->field, sizeof problem->field, "%s", names[i][1]);
            return;
        }
    }
}

/* ---- Pictures in ---- */

enum problem_code dialect_upload(struct studio *studio, const struct request *request, const char *field,
                                 const char *name, const void *data, size_t n, char ret_id[40],
                                 struct problem *problem) {
    const enum problem_code st = gallery_upload(studio->gallery, request_actor(request),
                                                request_caller(request)->user_id, name, data, n, ret_id, problem);
    if (st == PROBLEM_INVALID || st == PROBLEM_TOO_LARGE) {
        (void)snprintf(problem->field, sizeof problem->field, "%s", field);
    }
    return st;
}

enum problem_code dialect_upload_image(struct studio *studio, const struct request *request, const char *field,
                                       const struct cyi_image *image, char ret_id[40], struct problem *problem) {
    struct cyi_engine *codec = gallery_codec(studio->gallery);
    struct cyi_error err = { 0 };
    void *data = NULL;
    size_t n = 0;
    if (cyi_image_encode(codec, image, NULL, &data, &n, &err) != CYI_OK) {
        return problem_engine(problem, field, &err);
    }
    const enum problem_code st = dialect_upload(studio, request, field, NULL, data, n, ret_id, problem);
    cyi_release(codec, data);
    return st;
}

enum problem_code dialect_decode_base64(const char *field, const char *text, void **ret_data, size_t *ret_n,
                                        struct problem *problem) {
    const char *comma = strncmp(text, "data:", 5) == 0 ? strchr(text, ',') : NULL;
    const char *digits = comma != NULL ? comma + 1 : text;
    size_t n = strlen(digits);
    while (n > 0 && digits[n - 1] == '=') {
        n--;
    }
    uint8_t *data = text_alloc(n / 4 + 1, 3);
    if (n == 0 || sodium_base642bin(data, (n / 4 + 1) * 3, digits, n, "\r\n", ret_n, NULL,
                                    sodium_base64_VARIANT_ORIGINAL_NO_PADDING) != 0) {
        free(data);
        return problem_set(problem, PROBLEM_INVALID, field, "\"%s\" is no picture in base64", field);
    }
    *ret_data = data;
    return PROBLEM_NONE;
}

/* ---- Pictures out ---- */

const struct dialect_format *dialect_find_format(const char *name) {
    static const struct dialect_format formats[] = {
        { "png", "png", "image/png", CYI_FORMAT_PNG },
        { "jpeg", "jpg", "image/jpeg", CYI_FORMAT_JPEG },
        { "webp", "webp", "image/webp", CYI_FORMAT_WEBP },
    };
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (strcmp(formats[i].name, name) == 0 || strcmp(formats[i].ending, name) == 0) {
            return &formats[i];
        }
    }
    return NULL;
}

/* Encodes a PNG file anew; *data is replaced. */
static enum problem_code convert(struct cyi_engine *codec, const struct cyi_image_options *options, void **data,
                                 size_t *n, struct problem *problem) {
    struct cyi_image *image = NULL;
    struct cyi_error err = { 0 };
    void *converted = NULL;
    size_t n_converted = 0;
    if (cyi_image_decode(codec, *data, *n, &image, &err) == CYI_OK &&
        cyi_image_encode(codec, image, options, &converted, &n_converted, &err) == CYI_OK) {
        *data = text_resize(*data, n_converted, 1);
        memcpy(*data, converted, n_converted);
        *n = n_converted;
        cyi_release(codec, converted);
    }
    cyi_image_free(image);
    return err.code == CYI_OK ? PROBLEM_NONE : problem_set(problem, PROBLEM_INTERNAL, NULL, "%.500s", err.text);
}

enum problem_code dialect_read_picture(struct studio *studio, const char *owner, const char *id,
                                       const struct dialect_format *format, int quality, void **ret_data, size_t *ret_n,
                                       struct problem *problem) {
    const struct cyi_image_options options = { .format = format->format, .quality = quality };
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(gallery_read(studio->gallery, owner, id, &data, &n, problem));
    if (format->format != CYI_FORMAT_PNG) {
        TRY(convert(gallery_codec(studio->gallery), &options, &data, &n, problem));
    }
    *ret_data = data;
    *ret_n = n;
    data = NULL;
done:
    free(data);
    return st;
}

static enum problem_code write_bytes(struct response *response, const char *text, size_t n, struct problem *problem) {
    return response_write(response, text, n) ? PROBLEM_NONE
                                             : problem_set(problem, PROBLEM_UNAVAILABLE, NULL, "the client has gone");
}

enum problem_code dialect_write(struct response *response, const char *text, struct problem *problem) {
    return write_bytes(response, text, strlen(text), problem);
}

enum problem_code dialect_write_base64(struct response *response, const void *data, size_t n, struct problem *problem) {
    const size_t size = sodium_base64_encoded_len(PIECE_BYTES, sodium_base64_VARIANT_ORIGINAL);
    char *text = text_alloc(size, 1);
    enum problem_code st = PROBLEM_NONE;
    TRY(dialect_write(response, "\"", problem));
    for (size_t at = 0; at < n; at += PIECE_BYTES) {
        const size_t n_piece = n - at < PIECE_BYTES ? n - at : PIECE_BYTES;
        (void)sodium_bin2base64(text, size, (const uint8_t *)data + at, n_piece, sodium_base64_VARIANT_ORIGINAL);
        TRY(dialect_write(response, text, problem));
    }
    TRY(dialect_write(response, "\"", problem));
done:
    free(text);
    return st;
}

json_t *dialect_base64(const void *data, size_t n) {
    const size_t size = sodium_base64_encoded_len(n, sodium_base64_VARIANT_ORIGINAL);
    char *text = text_alloc(size, 1);
    json_t *json = json_need(json_string(sodium_bin2base64(text, size, data, n, sodium_base64_VARIANT_ORIGINAL)));
    free(text);
    return json;
}

void dialect_sign(const struct dialects *dialects, const char *text, char ret_signature[DIALECT_SIGNATURE_TEXT]) {
    uint8_t code[crypto_auth_BYTES];
    (void)crypto_auth(code, (const uint8_t *)text, strlen(text), dialects->key);
    (void)sodium_bin2hex(ret_signature, DIALECT_SIGNATURE_TEXT, code, sizeof code);
}

bool dialect_is_signed(const struct dialects *dialects, const char *text, const char *signature) {
    uint8_t code[crypto_auth_BYTES];
    size_t n = 0;
    return sodium_hex2bin(code, sizeof code, signature, strlen(signature), NULL, &n, NULL) == 0 && n == sizeof code &&
           crypto_auth_verify(code, (const uint8_t *)text, strlen(text), dialects->key) == 0;
}

/* ---- Problems ---- */

static json_t *openai_problem(const struct problem *problem) {
    const bool is_model = problem->code == PROBLEM_NOT_FOUND && strcmp(problem->field, "model") == 0;
    const char *code = is_model                                   ? "model_not_found"
                       : problem->code == PROBLEM_UNAUTHENTICATED ? "invalid_api_key"
                       : problem->code == PROBLEM_TOO_MANY        ? "rate_limit_exceeded"
                                                                  : problem_name(problem->code);
    return JSON("{s:{s:o, s:s, s:o, s:s}}", "error", "message", json_text(problem->detail), "type",
                problem_status(problem->code) >= 500 ? "server_error" : "invalid_request_error", "param",
                json_text(problem->field[0] != '\0' ? problem->field : NULL), "code", code);
}

static json_t *sdapi_problem(const struct problem *problem) {
    return JSON("{s:s, s:o, s:s, s:o}", "error", problem_name(problem->code), "detail", json_text(problem->detail),
                "body", "", "errors", json_text(problem->field));
}

json_t *foreign_problem(const char *path, const struct problem *problem) {
    return strncmp(path, "/v1/", 4) == 0      ? openai_problem(problem)
           : strncmp(path, "/sdapi/", 7) == 0 ? sdapi_problem(problem)
                                              : NULL;
}
