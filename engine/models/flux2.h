/* The FLUX.2 transformer (klein 4B and 9B, distilled and base; dev with embedded guidance): predicts the velocity of noisy latents.
 * Sizes come from the tensors and the config file. A model is immutable after open; a run belongs to one thread. */
#ifndef MODELS_FLUX2_H
#define MODELS_FLUX2_H

#include "io/safetensors.h"
#include "nn/rope.h"
#include "ops/ops.h"

struct flux2;

struct flux2_config {
    int64_t in_channels, out_channels;
    int64_t width; /* D = n_heads · head_dim */
    int64_t n_heads, head_dim;
    int64_t text_width; /* columns of the text features */
    int64_t mlp_width;  /* F */
    int64_t n_double, n_single;
    int64_t n_sinusoids;
    bool has_guidance;
    double eps;
    struct rope_axes axes;
};

/* path: a folder in diffusers layout (config.json and weights) or one .safetensors with diffusers or BFL names.
 * Errors: IO, FORMAT, SHAPE, DTYPE, MEMORY. */
enum cyi_status flux2_open(const struct cyi_allocator *allocator, const char *path, struct flux2 **ret_model,
                           struct cyi_error *err);
void flux2_close(struct flux2 *model);
const struct flux2_config *flux2_get_config(const struct flux2 *model);
const struct weight_set *flux2_get_weights(const struct flux2 *model);
/* Does this set of tensors look like FLUX.2, by its names? */
bool flux2_detect(const struct weight_set *set);

/* Image tokens that share a time coordinate: the picture in the making (t = 0), or a reference (t = 10, 20, …). */
struct flux2_grid {
    int64_t t, n_rows, n_cols; /* tokens row by row */
};

/* What stays the same over the steps of one picture, data of the exec that prepared it. */
struct flux2_run {
    int64_t n_text, n_noise, n_references; /* tokens: T, N, R */
    struct tensor text;                    /* [T, D] F32 after context_embedder */
    struct tensor references;              /* [R, D] F32 after x_embedder */
    struct tensor cos, sin;                /* [T + N + R, K/2] F32 */
};

/*   text       [T, text_width] F32
 *   grids      : the noise's grid first, then one for each reference
 *   references [R, in_channels] F32, NULL when there is only one grid */
enum cyi_status flux2_prepare(const struct flux2 *model, struct exec *ex, const struct tensor *text,
                              const struct flux2_grid *grids, int n_grids, const struct tensor *references,
                              struct flux2_run *ret_run, struct cyi_error *err);

/* One evaluation.
 *   x        [N, in_channels] F32: noisy latents, packed
 *   timestep : the scheduler's, 1000 is noise    guidance : < 0: none is embedded, also where the model could
 *   velocity [N, out_channels] F32, memory of the caller
 * Reports a block to ex after each of the n_double + n_single blocks, as block first_block + i of n_blocks_all.
 * Checked by tests/golden/test_flux2.c. */
struct flux2_step {
    const struct tensor *x;
    float timestep, guidance;
    int64_t first_block, n_blocks_all;
    struct tensor *velocity;
};
enum cyi_status flux2_forward(const struct flux2 *model, struct exec *ex, const struct flux2_run *run,
                              const struct flux2_step *step, struct cyi_error *err);

/* Most arena bytes of prepare + forward for so many tokens; is_device: on a backend with memory of its own. */
size_t flux2_get_working_bytes(const struct flux2 *model, int64_t n_text, int64_t n_image, enum dtype act_dtype,
                               bool is_device);

#endif
