/* Previews: a linear map from latents to colours, fitted once per VAE, so that every step yields a small picture for
 * milliseconds. */
#ifndef PIPELINE_PREVIEW_H
#define PIPELINE_PREVIEW_H

#include "models/vae.h"
#include "ops/ops.h"

/* Of each of the 2×2 latent pixels in a token: RGB = summand + Σ factor · channel, in −1…1. */
struct preview_map {
    int64_t n_channels; /* z; 0: not fitted yet */
    float *factors;     /* [4, 3, z + 1], the summand last */
};

struct cyi_model;

/* Makes model->preview usable: from memory, from the cache folder, or by decoding small random latents and a
 * least-squares fit. Errors: MEMORY, CANCELLED, and what the decoder reports. */
enum cyi_status preview_prepare(struct cyi_model *model, struct exec *ex, struct cyi_error *err);
void preview_done(const struct cyi_allocator *allocator, struct preview_map *map);

/* tokens [rows · cols, 4 z] F32 → image [2 rows, 2 cols, 3]. */
void preview_draw(const struct preview_map *map, const struct tensor *tokens, int64_t n_rows, int64_t n_cols,
                  struct cyi_image *image);

#endif
