/* Requests: see request.h. */
#include "pipeline/request.h"

#include <math.h>
#include <string.h>

#include "sample/schedule.h"

#define MAX_GUIDANCE 100.0F
#define MAX_REFERENCE_PIXELS ((int64_t)1024 * 1024) /* as diffusers caps them; image_prepare_reference keeps to it */
#define MIB ((uint64_t)1024 * 1024)
/* Above this the VAE works in tiles. Fixed, so that a picture does not depend on how much memory happens to be free. */
#define MAX_UNTILED_BYTES (4096 * MIB)
#define MIN_TILE 256

/* ---- Checks ---- */

static enum cyi_status check_side(const char *name, int side, int multiple, struct cyi_error *err) {
    if (side < multiple || side > CYI_MAX_IMAGE_SIDE) {
        return error_set(err, CYI_E_ARGUMENT, "%s %d is outside %d to %d pixels", name, side, multiple,
                         CYI_MAX_IMAGE_SIDE);
    }
    if (side % multiple != 0) {
        int below = side / multiple * multiple;
        return error_set(err, CYI_E_ARGUMENT, "%s %d is not a multiple of %d; %d and %d are the nearest", name, side,
                         multiple, below, below + multiple);
    }
    return CYI_OK;
}

static enum cyi_status check_size(const struct cyi_model *model, const struct cyi_request *r, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    TRY(check_side("width", r->width, model->size_multiple, err));
    TRY(check_side("height", r->height, model->size_multiple, err));
    if ((int64_t)r->width * r->height > CYI_MAX_IMAGE_PIXELS) {
        st = error_set(err, CYI_E_ARGUMENT, "%d × %d is %lld pixels; the limit is %d", r->width, r->height,
                       (long long)r->width * r->height, CYI_MAX_IMAGE_PIXELS);
    }
done:
    return st;
}

static enum cyi_status check_prompt(const char *what, const char *text, bool may_be_empty, struct cyi_error *err) {
    size_t length = text == NULL ? 0 : strnlen(text, (size_t)CYI_MAX_PROMPT_BYTES + 1);
    if (length == 0 && !may_be_empty) {
        return error_set(err, CYI_E_ARGUMENT, "the %s is empty", what);
    }
    if (length > CYI_MAX_PROMPT_BYTES) {
        return error_set(err, CYI_E_ARGUMENT, "the %s is longer than %d bytes", what, CYI_MAX_PROMPT_BYTES);
    }
    return CYI_OK;
}

static enum cyi_status check_numbers(const struct cyi_request *r, struct cyi_error *err) {
    if (r->n_steps < 1 || r->n_steps > CYI_MAX_STEPS) {
        return error_set(err, CYI_E_ARGUMENT, "%d steps: the number must be 1 to %d", r->n_steps, CYI_MAX_STEPS);
    }
    if (!(r->guidance >= 0.0F && r->guidance <= MAX_GUIDANCE)) {
        return error_set(err, CYI_E_ARGUMENT, "guidance %g is outside 0 to %g", (double)r->guidance,
                         (double)MAX_GUIDANCE);
    }
    if (r->init != NULL && !(r->strength > 0.0F && r->strength <= 1.0F)) {
        return error_set(err, CYI_E_ARGUMENT, "strength %g must be above 0 and at most 1", (double)r->strength);
    }
    return CYI_OK;
}

static enum cyi_status check_image(const char *what, int number, const struct cyi_image *image, struct cyi_error *err) {
    if (image->pixels == NULL || image->width < 1 || image->height < 1 || image->width > CYI_MAX_IMAGE_SIDE ||
        image->height > CYI_MAX_IMAGE_SIDE || (int64_t)image->width * image->height > CYI_MAX_IMAGE_PIXELS ||
        (image->n_channels != 1 && image->n_channels != 3)) {
        return error_set(err, CYI_E_ARGUMENT, "%s %d: %d × %d with %d channels is not a picture that can be used", what,
                         number, image->width, image->height, image->n_channels);
    }
    return CYI_OK;
}

static enum cyi_status check_images(const struct cyi_request *r, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    if (r->n_references < 0 || r->n_references > CYI_MAX_REFERENCES || (r->n_references > 0 && r->references == NULL)) {
        return error_set(err, CYI_E_ARGUMENT, "%d reference pictures: the number must be 0 to %d", r->n_references,
                         CYI_MAX_REFERENCES);
    }
    for (int i = 0; i < r->n_references; i++) {
        if (r->references[i] == NULL) {
            return error_set(err, CYI_E_ARGUMENT, "reference picture %d is missing", i + 1);
        }
        TRY(check_image("reference picture", i + 1, r->references[i], err));
    }
    if (r->init != NULL) {
        TRY(check_image("the picture to start from,", 1, r->init, err));
    }
    if (r->mask != NULL) {
        if (r->init == NULL) {
            return error_set(err, CYI_E_ARGUMENT, "a mask needs the picture that it belongs to (init)");
        }
        TRY(check_image("the mask,", 1, r->mask, err));
    }
done:
    return st;
}

static int64_t min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

enum cyi_status request_check(const struct cyi_model *model, const struct cyi_request *r, struct job_shape *ret_shape,
                              struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    TRY(check_prompt("prompt", r->prompt, false, err));
    TRY(check_prompt("negative prompt", r->negative_prompt, true, err));
    TRY(check_size(model, r, err));
    TRY(check_numbers(r, err));
    TRY(check_images(r, err));
    int64_t token_pixels = (int64_t)model->size_multiple * model->size_multiple;
    struct job_shape shape = { .n_rows = r->height / model->size_multiple,
                               .n_cols = r->width / model->size_multiple,
                               .first_step = r->init == NULL ? 0 : schedule_first_step(r->n_steps, r->strength),
                               .is_guided = !model->options.is_distilled && !model->options.embeds_guidance &&
                                            r->guidance > 1.0F };
    if (shape.first_step >= r->n_steps) {
        return error_set(err, CYI_E_ARGUMENT, "strength %g of %d steps leaves no step to do", (double)r->strength,
                         r->n_steps);
    }
    for (int i = 0; i < r->n_references; i++) {
        int64_t pixels = min_i64((int64_t)r->references[i]->width * r->references[i]->height, MAX_REFERENCE_PIXELS);
        shape.n_reference_tokens += pixels / token_pixels;
        shape.max_input_pixels = pixels > shape.max_input_pixels ? pixels : shape.max_input_pixels;
    }
    if (r->init != NULL) {
        int64_t pixels = (int64_t)r->width * r->height;
        shape.max_input_pixels = pixels > shape.max_input_pixels ? pixels : shape.max_input_pixels;
        shape.n_reference_tokens += r->mask != NULL ? pixels / token_pixels : 0;
    }
    *ret_shape = shape;
done:
    return st;
}

void cyi_request_init(const struct cyi_model *model, struct cyi_request *ret_request) {
    const struct model_options *o = &model->options;
    *ret_request = (struct cyi_request){ .width = (int)o->width,
                                         .height = (int)o->height,
                                         .n_steps = (int)o->n_steps,
                                         .guidance = (float)o->guidance,
                                         .strength = 0.8F };
}

/* ---- Memory ---- */

static uint64_t max_u64(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* Arena bytes while steps run: latents, velocities and noise, then the transformer, with a second text stream when
 * guided. */
static uint64_t denoise_bytes(const struct cyi_model *model, const struct job_shape *shape) {
    const struct flux2_config *c = flux2_get_config(model->transformer);
    int64_t n_text = model->options.max_text_tokens;
    int64_t n_noise = shape->n_rows * shape->n_cols;
    int64_t n_image = n_noise + shape->n_reference_tokens;
    uint64_t latents = (uint64_t)(6 * n_noise + shape->n_reference_tokens) * (uint64_t)c->in_channels * sizeof(float);
    uint64_t second =
        shape->is_guided ? (uint64_t)(n_text + n_image) * (uint64_t)(c->width + c->head_dim) * sizeof(float) : 0;
    return latents + second +
           flux2_get_working_bytes(model->transformer, n_text, n_image, model->engine->act_dtype, false);
}

/* What the backend holds beside the arena: reordered convolution weights, and scratch of each thread. */
static uint64_t backend_bytes(const struct cyi_model *model) {
    return 2 * weight_set_mapped_bytes(vae_get_weights(model->vae)) +
           (32 + 8 * (uint64_t)model->engine->n_threads) * MIB;
}

static uint64_t vae_bytes(const struct cyi_model *model, const struct job_shape *shape, int64_t tile) {
    enum dtype act = model->engine->act_dtype;
    int64_t side = model->size_multiple;
    uint64_t decode = vae_get_working_bytes(model->vae, shape->n_rows * side, shape->n_cols * side, tile, false, act);
    if (shape->max_input_pixels == 0) {
        return decode;
    }
    int64_t input_side = (int64_t)ceil(sqrt((double)shape->max_input_pixels) / (double)side) * side;
    return max_u64(decode, vae_get_working_bytes(model->vae, input_side, input_side, tile, true, act));
}

/* ---- Memory of a device ---- */

/* What a device needs beside activations: workspaces of its libraries, recordings, small weights. */
#define DEVICE_RESERVE (192 * MIB)
/* Scores of the VAE's attention, a block of rows at a time. */
#define DEVICE_MAX_SCORES (384 * MIB)

/* A convolution gathers its input into scratch, at most as large as the largest of the VAE's three buffers. */
static uint64_t device_vae_bytes(const struct cyi_model *model, const struct job_shape *shape, int64_t tile) {
    int64_t side = vae_get_config(model->vae)->latent_pixels;
    int64_t pixels = (int64_t)model->size_multiple * model->size_multiple * shape->n_rows * shape->n_cols;
    uint64_t n_places = (uint64_t)((tile > 0 ? min_i64(tile * tile, pixels) : pixels) / (side * side));
    uint64_t scores = n_places * n_places * 6; /* F32, and what becomes of them in BF16 */
    return vae_bytes(model, shape, tile) / 2 * 3 + (scores < DEVICE_MAX_SCORES ? scores : DEVICE_MAX_SCORES);
}

static void plan_device(const struct cyi_model *model, struct job_shape *shape, struct cyi_memory_plan *plan) {
    const uint64_t sets[3] = { weight_set_mapped_bytes(flux2_get_weights(model->transformer)),
                               weight_set_mapped_bytes(qwen3_get_weights(model->encoder)),
                               weight_set_mapped_bytes(vae_get_weights(model->vae)) };
    int64_t n_text = model->options.max_text_tokens;
    int64_t n_image = shape->n_rows * shape->n_cols + shape->n_reference_tokens;
    enum dtype act = model->engine->act_dtype;
    uint64_t available = model->backend->vtable->device->get_available_bytes(model->backend);
    shape->tile = 0;
    uint64_t decode = device_vae_bytes(model, shape, 0);
    for (int64_t tile = vae_get_config(model->vae)->tile_pixels;
         DEVICE_RESERVE + decode > available && tile >= MIN_TILE; tile /= 2) {
        shape->tile = tile;
        decode = device_vae_bytes(model, shape, tile);
    }
    uint64_t encode = qwen3_get_working_bytes(model->encoder, n_text, act);
    uint64_t denoise =
        (shape->is_guided ? 2 : 1) * flux2_get_working_bytes(model->transformer, n_text, n_image, act, true);
    plan->device_available_bytes = available;
    plan->device_weight_bytes = max_u64(sets[0], max_u64(sets[1], sets[2]));
    plan->device_bytes = DEVICE_RESERVE + max_u64(encode, max_u64(denoise, decode));
    plan->streams_weights =
        DEVICE_RESERVE + encode + sets[1] > available || DEVICE_RESERVE + denoise + sets[0] > available;
    /* What streams takes turns in a few places; an eighth of it is more than the largest matrices of any family. */
    plan->fits = plan->device_bytes + (plan->streams_weights ? plan->device_weight_bytes / 8 : 0) <= available;
}

/* Host memory beside a device: latents, pixels, the prompts that are kept. */
static uint64_t host_bytes_of_device(const struct cyi_model *model, const struct job_shape *shape) {
    const struct flux2_config *c = flux2_get_config(model->transformer);
    int64_t side = model->size_multiple;
    uint64_t n_tokens = (uint64_t)(shape->n_rows * shape->n_cols + shape->n_reference_tokens);
    return n_tokens * (8 * (uint64_t)c->in_channels + 3 * (uint64_t)(side * side)) * sizeof(float) + 256 * MIB;
}

void request_plan(const struct cyi_model *model, struct job_shape *shape, struct cyi_memory_plan *ret_plan) {
    int64_t n_text = model->options.max_text_tokens;
    uint64_t features =
        N_KEPT_PROMPTS * (uint64_t)n_text * (uint64_t)flux2_get_config(model->transformer)->text_width * sizeof(float);
    uint64_t fixed = features + backend_bytes(model);
    uint64_t sets[3] = { weight_set_mapped_bytes(flux2_get_weights(model->transformer)),
                         weight_set_mapped_bytes(qwen3_get_weights(model->encoder)),
                         weight_set_mapped_bytes(vae_get_weights(model->vae)) };
    struct cyi_memory_plan plan = { .mapped_bytes = sets[0] + sets[1] + sets[2],
                                    .available_bytes = engine_available_bytes(model->engine) };
    if (model->backend->vtable->device != NULL) {
        plan.working_bytes = features + host_bytes_of_device(model, shape);
        plan.peak_bytes = plan.working_bytes + max_u64(sets[0], sets[1]);
        plan_device(model, shape, &plan);
        plan.is_tiled = shape->tile > 0;
        plan.fits = plan.fits && plan.working_bytes <= plan.available_bytes;
        *ret_plan = plan;
        return;
    }
    shape->tile = 0;
    uint64_t decode = vae_bytes(model, shape, 0);
    for (int64_t tile = vae_get_config(model->vae)->tile_pixels;
         (decode > MAX_UNTILED_BYTES || fixed + decode > plan.available_bytes) && tile >= MIN_TILE; tile /= 2) {
        shape->tile = tile;
        decode = vae_bytes(model, shape, tile);
    }
    plan.is_tiled = shape->tile > 0;
    uint64_t encode = qwen3_get_working_bytes(model->encoder, n_text, model->engine->act_dtype);
    uint64_t denoise = denoise_bytes(model, shape);
    plan.working_bytes = fixed + max_u64(encode, max_u64(denoise, decode));
    plan.peak_bytes = fixed + max_u64(max_u64(encode + sets[1], denoise + sets[0]), decode + sets[2]);
    plan.fits = plan.working_bytes <= plan.available_bytes;
    *ret_plan = plan;
}

enum cyi_status cyi_plan_memory(struct cyi_model *model, const struct cyi_request *request,
                                struct cyi_memory_plan *ret_plan, struct cyi_error *err) {
    struct job_shape shape;
    enum cyi_status st = request_check(model, request, &shape, err);
    if (st == CYI_OK) {
        request_plan(model, &shape, ret_plan);
    }
    return st;
}

/* ---- Work ---- */

/* A decoder of widths 128-256-512-512 does 9.5 MFLOP a pixel (0.62 TFLOP at 256 × 256), about evenly quadratic in its
 * first width. */
static double vae_work(const struct cyi_model *model, double n_pixels) {
    double width = (double)vae_get_config(model->vae)->decoder_widths[0] / 128.0;
    return 9.5e6 * width * width * n_pixels;
}

void request_estimate_work(const struct cyi_model *model, const struct cyi_request *r, const struct job_shape *shape,
                           double work[CYI_N_PHASES]) {
    const struct flux2_config *t = flux2_get_config(model->transformer);
    const struct qwen3_config *q = qwen3_get_config(model->encoder);
    double n_text = (double)model->options.max_text_tokens;
    double n_tokens = n_text + (double)(shape->n_rows * shape->n_cols + shape->n_reference_tokens);
    double block = 2.0 * (double)((4 * t->width + 3 * t->mlp_width) * t->width) + 4.0 * n_tokens * (double)t->width;
    double step = n_tokens * block * (double)(t->n_double + t->n_single);
    double q_block =
        2.0 * (double)(2 * (q->n_heads + q->n_kv_heads) * q->head_dim * q->width + 3 * q->width * q->mlp_width);
    int n_passes = shape->is_guided ? 2 : 1;
    work[CYI_PHASE_ENCODE_TEXT] =
        n_passes * n_text * q_block * model->options.text_layers[model->options.n_text_layers - 1];
    work[CYI_PHASE_ENCODE_IMAGES] =
        shape->max_input_pixels == 0
            ? 0
            : vae_work(model, (double)shape->max_input_pixels * (r->n_references + (r->init != NULL)));
    work[CYI_PHASE_DENOISE] = n_passes * step * (r->n_steps - shape->first_step);
    work[CYI_PHASE_DECODE] = vae_work(model, (double)r->width * r->height);
}
