/* The VAE of FLUX.2 (AutoencoderKLFlux2): packed, normalised latents to pixels and back. Sizes come from the tensors
 * and the config. A model is immutable after open; a call belongs to one thread. */
#ifndef MODELS_VAE_H
#define MODELS_VAE_H

#include "io/safetensors.h"
#include "ops/ops.h"

#define VAE_MAX_LEVELS 8

struct vae;

struct vae_config {
    int64_t latent_channels; /* z */
    int64_t token_channels;  /* 4 z: a token holds 2 × 2 latents */
    int64_t
        token_pixels; /* 16: side of the square of pixels that a token stands for; heights and widths are multiples */
    int64_t latent_pixels; /* 8: the same for one latent */
    int64_t tile_pixels;   /* side of the reference's tiles: sample_size */
    int n_levels;
    int64_t encoder_widths[VAE_MAX_LEVELS], decoder_widths[VAE_MAX_LEVELS]; /* channels by level, finest first */
    int64_t n_encoder_blocks, n_decoder_blocks;                             /* residual blocks a level */
    int64_t n_groups;
    double eps, batch_norm_eps;
    bool has_quant, has_post_quant; /* 1×1 convolutions on the latents */
    bool has_attention;             /* in the middle of encoder and decoder */
};

/* path: a folder with config.json and weights (stem "diffusion_pytorch_model"), or one .safetensors with diffusers or
 * BFL names. Without a config the number of groups is the largest one up to 32 that divides every width. Errors: IO,
 * FORMAT, SHAPE, DTYPE, UNSUPPORTED, MEMORY. */
enum cyi_status vae_open(const struct cyi_allocator *allocator, const char *path, struct vae **ret_model,
                         struct cyi_error *err);
void vae_close(struct vae *model);
const struct vae_config *vae_get_config(const struct vae *model);
const struct weight_set *vae_get_weights(const struct vae *model);

/* How a call works.
 *   tile : side of the tiles in pixels, a multiple of 4 · latent_pixels; 0: the picture in one piece. Pictures that are
 *          not larger than a tile are one piece anyway. Tiles overlap by a quarter and are blended as the reference does
 *   first_block, n_blocks_all : progress is reported after each layer (of each tile) as block first_block + i of
 *          n_blocks_all; vae_count_blocks says how many one call has. n_blocks_all 0: this call is everything */
struct vae_options {
    int64_t tile;
    int64_t first_block, n_blocks_all;
};

/* Y and X count tokens. options may be NULL.
 *   tokens [Y·X, 4z] F32: normalised latents, row by row
 *   pixels [16Y, 16X, 3] F32 packed, nominally -1 … 1, not clamped
 * Encoding gives the mean of the posterior. Outputs are memory of the caller. Errors: ARGUMENT (sizes), MEMORY,
 * CANCELLED. Checked by tests/golden/test_vae.c. */
enum cyi_status vae_decode(const struct vae *model, struct exec *ex, const struct tensor *tokens,
                           const struct vae_options *options, struct tensor *pixels, struct cyi_error *err);
enum cyi_status vae_encode(const struct vae *model, struct exec *ex, const struct tensor *pixels,
                           const struct vae_options *options, struct tensor *tokens, struct cyi_error *err);

/* height, width in pixels; tile as in struct vae_options. */
int64_t vae_count_blocks(const struct vae *model, int64_t height, int64_t width, int64_t tile, bool is_encode);
/* Most arena bytes of a call. */
size_t vae_get_working_bytes(const struct vae *model, int64_t height, int64_t width, int64_t tile, bool is_encode,
                             enum dtype act_dtype);

#endif
