/* One picture, from request to pixels: encode the text, encode the pictures, denoise, decode. */
#include <string.h>

#include "io/image_file.h"
#include "io/resize.h"
#include "pipeline/latents.h"
#include "pipeline/model.h"
#include "pipeline/progress.h"
#include "pipeline/prompt.h"
#include "pipeline/request.h"
#include "sample/schedule.h"

#define REFERENCE_TIME_STEP 10 /* references stand at t = 10, 20, … */
#define MAX_REFERENCE_PIXELS ((int64_t)1024 * 1024)
#define MAX_GRIDS (CYI_MAX_REFERENCES + 2) /* the noise, the picture that is painted over, the references */

/* Everything about the picture in the making. Tensors are in the exec's arena. */
struct job {
    struct cyi_model *model;
    const struct cyi_request *request;
    const struct cyi_allocator *allocator;
    struct exec ex;
    struct progress progress;
    struct job_shape shape;
    struct cyi_memory_plan plan;
    struct prompt_features prompt, negative;
    struct flux2_grid grids[MAX_GRIDS];
    int n_grids;
    struct tensor references; /* [R, C] F32 */
    int64_t n_reference_rows; /* of them filled */
    struct tensor z;          /* [N, C] F32: the picture to start from */
    struct tensor mask;       /* [N, 1] F32: 1 is painted anew */
    struct tensor noise, x;   /* [N, C] F32 */
    struct tensor velocity, velocity_negative;
    float *sigmas;
    struct flux2_run run, run_negative;
    struct cyi_image *preview;
    struct cyi_image *image;
};

/* ---- Text ---- */

static enum cyi_status encode_text(struct job *job, struct cyi_error *err) {
    const char *negative = job->request->negative_prompt != NULL ? job->request->negative_prompt : "";
    enum cyi_status st = CYI_OK;
    TRY(progress_enter(&job->progress, CYI_PHASE_ENCODE_TEXT, job->shape.is_guided ? 2 : 1, err));
    TRY(prompt_encode(job->model, &job->ex, job->request->prompt, &job->prompt, err));
    exec_observe_host(&job->ex, "prompt_embeds", 0, &job->prompt.features);
    if (job->shape.is_guided) {
        job->progress.part = 1;
        TRY(prompt_encode(job->model, &job->ex, negative, &job->negative, err));
        exec_observe_host(&job->ex, "negative.prompt_embeds", 0, &job->negative.features);
    }
    engine_log(job->model->engine, CYI_LOG_INFO, "text.encoded tokens=%d cached=%d", job->prompt.n_tokens,
               job->prompt.is_cached);
done:
    exec_trim(&job->ex);
    return st;
}

/* ---- Pictures that go in ---- */

/* The tokens of a picture whose sides fit, into memory of the caller. */
static enum cyi_status encode_image(struct job *job, const struct cyi_image *image, struct tensor *tokens,
                                    struct cyi_error *err) {
    struct arena_mark mark = arena_get_mark(job->ex.arena);
    struct tensor pixels;
    enum cyi_status st = CYI_OK;
    TRY(pixels_from_image(job->ex.arena, image, &pixels, err));
    TRY(vae_encode(job->model->vae, &job->ex, &pixels, &(struct vae_options){ .tile = job->shape.tile }, tokens, err));
    if (!latents_are_finite(tokens)) {
        st = error_set(err, CYI_E_NUMERIC,
                       "the VAE gave values that are not finite numbers for a picture: are its weights damaged?");
    }
    job->progress.part++;
done:
    arena_release(job->ex.arena, mark);
    return st;
}

/* Adds the rows of a grid to the references. */
static struct tensor add_reference_grid(struct job *job, int64_t n_rows, int64_t n_cols) {
    struct tensor rows = tensor_rows(&job->references, job->n_reference_rows, n_rows * n_cols);
    job->grids[job->n_grids] =
        (struct flux2_grid){ .t = (int64_t)REFERENCE_TIME_STEP * job->n_grids, .n_rows = n_rows, .n_cols = n_cols };
    job->n_grids++;
    job->n_reference_rows += n_rows * n_cols;
    return rows;
}

static enum cyi_status encode_reference(struct job *job, const struct cyi_image *image, struct cyi_error *err) {
    int side = job->model->size_multiple;
    struct cyi_image *prepared = NULL;
    enum cyi_status st = CYI_OK;
    TRY(image_prepare_reference(job->allocator, image, MAX_REFERENCE_PIXELS, side, &prepared, err));
    struct tensor rows = add_reference_grid(job, prepared->height / side, prepared->width / side);
    TRY(encode_image(job, prepared, &rows, err));
done:
    cyi_image_free(prepared);
    return st;
}

/* The picture to start from, in the size of the result. With a mask it is stretched, as its mask is. Else a picture that is a little
 * larger keeps its pixels and loses its edges, as in the reference; any other one is scaled to cover the size first. */
static enum cyi_status fit_init(const struct job *job, struct cyi_image **ret_image, struct cyi_error *err) {
    const struct cyi_request *r = job->request;
    const struct cyi_image *init = r->init;
    if (r->mask != NULL) {
        return image_resize_lanczos(job->allocator, init, r->width, r->height, ret_image, err);
    }
    bool is_larger = init->width >= r->width && init->height >= r->height;
    bool is_close =
        2 * (int64_t)init->width < 3 * (int64_t)r->width && 2 * (int64_t)init->height < 3 * (int64_t)r->height;
    if (is_larger && is_close) {
        return image_crop(job->allocator, init, (init->width - r->width) / 2, (init->height - r->height) / 2, r->width,
                          r->height, ret_image, err);
    }
    return image_cover(job->allocator, init, r->width, r->height, ret_image, err);
}

/* With a mask the picture becomes a reference as well. */
static enum cyi_status encode_init(struct job *job, struct cyi_error *err) {
    const struct cyi_request *r = job->request;
    struct cyi_image *fitted = NULL;
    enum cyi_status st = CYI_OK;
    TRY(fit_init(job, &fitted, err));
    TRY(tensor_new_2d(job->ex.arena, DTYPE_F32, tensor_n_rows(&job->x), tensor_n_cols(&job->x), &job->z, err));
    TRY(encode_image(job, fitted, &job->z, err));
    exec_observe_host(&job->ex, "init.packed", 0, &job->z);
    if (r->mask != NULL) {
        struct tensor rows = add_reference_grid(job, job->shape.n_rows, job->shape.n_cols);
        memcpy(rows.data, job->z.data, (size_t)tensor_n_elements(&rows) * sizeof(float));
    }
done:
    cyi_image_free(fitted);
    return st;
}

static enum cyi_status prepare_mask(struct job *job, struct cyi_error *err) {
    const struct cyi_request *r = job->request;
    struct tensor pixels;
    struct tensor small;
    enum cyi_status st = CYI_OK;
    TRY(tensor_new_2d(job->ex.arena, DTYPE_F32, tensor_n_rows(&job->x), 1, &job->mask, err));
    struct arena_mark mark = arena_get_mark(job->ex.arena);
    TRY(image_prepare_mask(job->allocator, job->ex.arena, r->mask, r->width, r->height, &pixels, err));
    TRY(plane_resize_bilinear(job->ex.arena, &pixels, job->shape.n_rows, job->shape.n_cols, &small, err));
    memcpy(job->mask.data, small.data, (size_t)tensor_n_elements(&small) * sizeof(float));
    arena_release(job->ex.arena, mark);
    exec_observe_host(&job->ex, "mask.packed", 0, &job->mask);
done:
    return st;
}

static enum cyi_status encode_images(struct job *job, struct cyi_error *err) {
    const struct cyi_request *r = job->request;
    int n_images = r->n_references + (r->init != NULL);
    enum cyi_status st = CYI_OK;
    job->grids[0] = (struct flux2_grid){ .n_rows = job->shape.n_rows, .n_cols = job->shape.n_cols };
    job->n_grids = 1;
    if (n_images == 0) {
        return CYI_OK;
    }
    TRY(progress_enter(&job->progress, CYI_PHASE_ENCODE_IMAGES, n_images, err));
    TRY(tensor_new_2d(job->ex.arena, DTYPE_F32, job->shape.n_reference_tokens, tensor_n_cols(&job->x), &job->references,
                      err));
    if (r->init != NULL) {
        TRY(encode_init(job, err));
    }
    if (r->mask != NULL) {
        TRY(prepare_mask(job, err));
    }
    for (int i = 0; i < r->n_references; i++) {
        TRY(encode_reference(job, r->references[i], err));
    }
    job->references = tensor_rows(&job->references, 0, job->n_reference_rows);
    exec_trim(&job->ex);
done:
    return st;
}

/* ---- Denoising ---- */

static enum cyi_status start_latents(struct job *job, struct cyi_error *err) {
    int64_t n_tokens = tensor_n_rows(&job->x);
    int n_steps = job->request->n_steps;
    enum cyi_status st = CYI_OK;
    job->sigmas = arena_alloc(job->ex.arena, (size_t)n_steps + 1, sizeof *job->sigmas);
    if (job->sigmas == NULL) {
        TRY(error_memory(err, "the schedule", ((size_t)n_steps + 1) * sizeof *job->sigmas));
    }
    schedule_sigmas(&job->model->options.schedule, schedule_mu_flux2(n_tokens, n_steps), n_steps, job->sigmas);
    TRY(latents_draw_noise(job->ex.arena, job->request->seed, job->shape.n_rows, job->shape.n_cols, &job->noise, err));
    if (job->request->init != NULL) {
        latents_mix(job->sigmas[job->shape.first_step], &job->noise, &job->z, &job->x);
    } else {
        memcpy(job->x.data, job->noise.data, (size_t)tensor_n_elements(&job->x) * sizeof(float));
    }
    exec_observe_host(&job->ex, "latents.start", 0, &job->x);
done:
    return st;
}

static enum cyi_status prepare_runs(struct job *job, struct cyi_error *err) {
    const struct flux2 *transformer = job->model->transformer;
    const struct tensor *references = job->n_grids > 1 ? &job->references : NULL;
    enum cyi_status st = CYI_OK;
    TRY(flux2_prepare(transformer, &job->ex, &job->prompt.features, job->grids, job->n_grids, references, &job->run,
                      err));
    if (job->shape.is_guided) {
        TRY(flux2_prepare(transformer, &job->ex, &job->negative.features, job->grids, job->n_grids, references,
                          &job->run_negative, err));
    }
done:
    return st;
}

/* The velocity at a step, guided where the request asks for it. */
static enum cyi_status evaluate(struct job *job, int step, struct cyi_error *err) {
    const struct flux2_config *c = flux2_get_config(job->model->transformer);
    int64_t n_blocks = c->n_double + c->n_single;
    int64_t n_passes = job->shape.is_guided ? 2 : 1;
    int64_t n_done = (step - job->shape.first_step) * n_passes * n_blocks;
    struct flux2_step evaluation = { .x = &job->x,
                                     .timestep = job->sigmas[step] * (float)job->model->options.schedule.n_timesteps,
                                     .guidance = job->model->options.embeds_guidance ? job->request->guidance : -1.0F,
                                     .first_block = n_done,
                                     .n_blocks_all =
                                         (job->request->n_steps - job->shape.first_step) * n_passes * n_blocks,
                                     .velocity = &job->velocity };
    enum cyi_status st = CYI_OK;
    TRY(flux2_forward(job->model->transformer, &job->ex, &job->run, &evaluation, err));
    if (job->shape.is_guided) {
        exec_observe_host(&job->ex, "step%d.velocity.cond", step - job->shape.first_step, &job->velocity);
        evaluation.first_block += n_blocks;
        evaluation.velocity = &job->velocity_negative;
        TRY(flux2_forward(job->model->transformer, &job->ex, &job->run_negative, &evaluation, err));
        exec_observe_host(&job->ex, "step%d.velocity.uncond", step - job->shape.first_step, &job->velocity_negative);
        latents_guide(&job->velocity, &job->velocity_negative, job->request->guidance);
    }
    if (!latents_are_finite(&job->velocity)) {
        st = error_set(err, CYI_E_NUMERIC,
                       "step %d of %d gave values that are not finite numbers: the transformer's weights are damaged, "
                       "or overflow as %s",
                       step + 1, job->request->n_steps, dtype_name(job->ex.act_dtype));
    }
done:
    return st;
}

/* A preview shows where the step points to: the picture that would come out if the velocity stayed the same. */
static enum cyi_status finish_step(struct job *job, int step, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct arena_mark mark = arena_get_mark(job->ex.arena);
    const struct cyi_image *preview = NULL;
    if (job->preview != NULL) {
        struct tensor target;
        TRY(tensor_new_2d(job->ex.arena, DTYPE_F32, tensor_n_rows(&job->x), tensor_n_cols(&job->x), &target, err));
        memcpy(target.data, job->x.data, (size_t)tensor_n_elements(&target) * sizeof(float));
        latents_step(&target, &job->velocity, job->sigmas[step + 1], 0.0F);
        preview_draw(&job->model->preview, &target, job->shape.n_rows, job->shape.n_cols, job->preview);
        preview = job->preview;
    }
    TRY(progress_step(&job->progress, step + 1 - job->shape.first_step, preview, err));
done:
    arena_release(job->ex.arena, mark);
    return st;
}

static enum cyi_status denoise(struct job *job, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    job->progress.n_steps = job->request->n_steps - job->shape.first_step;
    TRY(progress_enter(&job->progress, CYI_PHASE_DENOISE, 1, err));
    TRY(start_latents(job, err));
    TRY(prepare_runs(job, err));
    for (int step = job->shape.first_step; step < job->request->n_steps; step++) {
        int index = step - job->shape.first_step;
        TRY(evaluate(job, step, err));
        exec_observe_host(&job->ex, "step%d.velocity", index, &job->velocity);
        latents_step(&job->x, &job->velocity, job->sigmas[step], job->sigmas[step + 1]);
        exec_observe_host(&job->ex, "step%d.latents", index, &job->x);
        if (job->request->mask != NULL) {
            latents_blend(&job->x, &job->mask, job->sigmas[step + 1], &job->noise, &job->z);
            exec_observe_host(&job->ex, "step%d.blended", index, &job->x);
        }
        TRY(finish_step(job, step, err));
    }
done:
    return st;
}

/* ---- Decoding ---- */

static enum cyi_status decode(struct job *job, struct cyi_error *err) {
    const struct cyi_request *r = job->request;
    struct tensor pixels;
    enum cyi_status st = CYI_OK;
    TRY(progress_enter(&job->progress, CYI_PHASE_DECODE, 1, err));
    TRY(image_create(job->allocator, r->width, r->height, 3, &job->image, err));
    TRY(tensor_new(job->ex.arena, DTYPE_F32, 3, (const int64_t[3]){ r->height, r->width, 3 }, &pixels, err));
    TRY(vae_decode(job->model->vae, &job->ex, &job->x, &(struct vae_options){ .tile = job->shape.tile }, &pixels, err));
    if (!latents_are_finite(&pixels)) {
        TRY(error_set(err, CYI_E_NUMERIC, "the VAE gave values that are not finite numbers: are its weights damaged?"));
    }
    pixels_to_image(&pixels, job->image);
done:
    return st;
}

/* ---- The whole ---- */

static enum cyi_status make_room(struct job *job, struct cyi_error *err) {
    const struct flux2_config *c = flux2_get_config(job->model->transformer);
    int64_t n_tokens = job->shape.n_rows * job->shape.n_cols;
    struct arena *arena = job->ex.arena;
    enum cyi_status st = CYI_OK;
    TRY(tensor_new_2d(arena, DTYPE_F32, n_tokens, c->in_channels, &job->x, err));
    TRY(tensor_new_2d(arena, DTYPE_F32, n_tokens, c->in_channels, &job->noise, err));
    TRY(tensor_new_2d(arena, DTYPE_F32, n_tokens, c->out_channels, &job->velocity, err));
    if (job->shape.is_guided) {
        TRY(tensor_new_2d(arena, DTYPE_F32, n_tokens, c->out_channels, &job->velocity_negative, err));
    }
    if (job->request->wants_preview) {
        job->progress.is_paused = true;
        TRY(preview_prepare(job->model, &job->ex, err));
        job->progress.is_paused = false;
        TRY(image_create(job->allocator, (int)(2 * job->shape.n_cols), (int)(2 * job->shape.n_rows), 3, &job->preview,
                         err));
    }
done:
    return st;
}

static enum cyi_status run_phases(struct job *job, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    TRY(encode_text(job, err));
    TRY(make_room(job, err));
    TRY(encode_images(job, err));
    /* What only the steps need goes before the decoder comes: it is the largest part of some pictures. */
    struct exec_mark mark = exec_get_mark(&job->ex);
    TRY(denoise(job, err));
    exec_release(&job->ex, mark);
    exec_trim(&job->ex);
    TRY(decode(job, err));
    progress_end(&job->progress);
done:
    return st;
}

static enum cyi_status check_plan(const struct job *job, struct cyi_error *err) {
    const struct cyi_memory_plan *plan = &job->plan;
    const double gib = 1024.0 * 1024.0 * 1024.0;
    engine_log(job->model->engine, CYI_LOG_INFO, "memory.planned mapped=%llu working=%llu available=%llu tiled=%d",
               (unsigned long long)plan->mapped_bytes, (unsigned long long)plan->working_bytes,
               (unsigned long long)plan->available_bytes, plan->is_tiled);
    if (plan->device_available_bytes > 0) {
        engine_log(job->model->engine, CYI_LOG_INFO,
                   "device.planned working=%llu weights=%llu available=%llu streams=%d",
                   (unsigned long long)plan->device_bytes, (unsigned long long)plan->device_weight_bytes,
                   (unsigned long long)plan->device_available_bytes, plan->streams_weights);
    }
    if (!plan->fits && plan->device_bytes > plan->device_available_bytes) {
        return error_set(
            err, CYI_E_MEMORY,
            "%d × %d needs %.2f GiB of the device's memory beside the weights, %.2f GiB are available: choose a "
            "smaller size",
            job->request->width, job->request->height, (double)plan->device_bytes / gib,
            (double)plan->device_available_bytes / gib);
    }
    if (!plan->fits) {
        return error_set(
            err, CYI_E_MEMORY,
            "%d × %d needs %.2f GiB of memory beside the mapped weights, %.2f GiB are available: choose a smaller size",
            job->request->width, job->request->height, (double)plan->working_bytes / gib,
            (double)plan->available_bytes / gib);
    }
    return CYI_OK;
}

static size_t backend_peak(const struct backend *backend) {
    return backend->vtable->get_peak != NULL ? backend->vtable->get_peak(backend) : 0;
}

/* The job's memory: on the host, and on the device of a backend that has one. */
static enum cyi_status create_arenas(struct job *job, struct cyi_error *err) {
    struct backend *backend = job->model->backend;
    const struct device_vtable *device = backend->vtable->device;
    enum cyi_status st = CYI_OK;
    TRY(arena_create(job->allocator, &job->ex.arena, err));
    if (device != NULL) {
        TRY(arena_create_over(job->allocator, device->get_memory(backend), &job->ex.device, err));
    }
done:
    return st;
}

static void fill_report(const struct job *job, struct cyi_report *report) {
    *report = (struct cyi_report){ .total_seconds = engine_seconds() - job->progress.start,
                                   .n_text_tokens = job->prompt.n_tokens,
                                   .is_prompt_cut = job->prompt.is_cut,
                                   .is_prompt_cached = job->prompt.is_cached,
                                   .n_fallbacks = job->ex.n_fallbacks,
                                   .working_bytes = arena_get_peak(job->ex.arena),
                                   .first_step = job->shape.first_step };
    if (job->ex.device == NULL) {
        report->working_bytes += backend_peak(job->model->backend);
    } else {
        report->device_bytes = backend_peak(job->model->backend);
    }
    memcpy(report->phase_seconds, job->progress.phase_seconds, sizeof report->phase_seconds);
}

enum cyi_status cyi_generate(struct cyi_model *model, const struct cyi_request *request, struct cyi_image **ret_image,
                             struct cyi_report *ret_report, struct cyi_error *err) {
    struct cyi_engine *engine = model->engine;
    double work[CYI_N_PHASES];
    enum cyi_status st = CYI_OK;
    struct job job = { .model = model, .request = request, .allocator = &engine->allocator };
    job.ex = (struct exec){ .backend = model->backend,
                            .reference = model->reference,
                            .act_dtype = engine->act_dtype,
                            .allocator = &engine->allocator,
                            .on_block = progress_on_block,
                            .user = &job.progress,
                            .observe = model->observer.observe,
                            .observe_user = model->observer.user };
    TRY(request_check(model, request, &job.shape, err));
    request_plan(model, &job.shape, &job.plan);
    TRY(check_plan(&job, err));
    request_estimate_work(model, request, &job.shape, work);
    progress_begin(&job.progress, request, work);
    TRY(create_arenas(&job, err));
    TRY(run_phases(&job, err));
    if (ret_report != NULL) {
        fill_report(&job, ret_report);
    }
    engine_log(engine, CYI_LOG_INFO, "picture.made width=%d height=%d steps=%d ms=%.0f fallbacks=%llu", request->width,
               request->height, request->n_steps, 1000.0 * (engine_seconds() - job.progress.start),
               (unsigned long long)job.ex.n_fallbacks);
    *ret_image = job.image;
    job.image = NULL;
done:
    cyi_image_free(job.preview);
    cyi_image_free(job.image);
    arena_free(job.ex.device);
    arena_free(job.ex.arena);
    return st;
}
