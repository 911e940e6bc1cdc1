/* Arithmetic on packed latents [tokens, channels] F32 and on pixels, in the float32 order of operations of the
 * reference. */
#ifndef PIPELINE_LATENTS_H
#define PIPELINE_LATENTS_H

#include "core/tensor.h"

/* The noise of a seed: drawn as [C, rows, cols], as the reference does, packed to tokens [rows · cols, C]. Errors:
 * MEMORY. */
enum cyi_status latents_draw_noise(struct arena *arena, uint64_t seed, int64_t n_rows, int64_t n_cols,
                                   const struct tensor *tokens, struct cyi_error *err);

/* x = sigma · noise + (1 − sigma) · z */
void latents_mix(float sigma, const struct tensor *noise, const struct tensor *z, const struct tensor *x);
/* x += (sigma_next − sigma) · velocity */
void latents_step(const struct tensor *x, const struct tensor *velocity, float sigma, float sigma_next);
/* v = v_negative + guidance · (v − v_negative) */
void latents_guide(const struct tensor *v, const struct tensor *v_negative, float guidance);
/* x = (1 − m) · (sigma · noise + (1 − sigma) · z) + m · x     mask [tokens, 1] */
void latents_blend(const struct tensor *x, const struct tensor *mask, float sigma, const struct tensor *noise,
                   const struct tensor *z);
bool latents_are_finite(const struct tensor *x);

/* A picture's pixels as −1…1: [height, width, 3] F32 from the arena; grey becomes RGB. Errors: MEMORY. */
enum cyi_status pixels_from_image(struct arena *arena, const struct cyi_image *image, struct tensor *ret_pixels,
                                  struct cyi_error *err);
/* And back, rounded half to even. image: [height, width, 3]. */
void pixels_to_image(const struct tensor *pixels, struct cyi_image *image);

#endif
