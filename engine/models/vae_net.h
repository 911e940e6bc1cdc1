/* One half of a VAE, encoder or decoder: a list of layers over pictures [Y, X, C], and how to run it. Inside of vae.h:
 * vae_net.c binds the layers, vae_run.c runs them over one piece, vae_tiles.c over a whole picture, in tiles or not. */
#ifndef MODELS_VAE_NET_H
#define MODELS_VAE_NET_H

#include "models/vae.h"

enum vae_layer_kind {
    VAE_LAYER_CONV,      /* 3×3 */
    VAE_LAYER_QUANT,     /* 1×1 */
    VAE_LAYER_RESIDUAL,  /* x + conv(silu(norm(conv(silu(norm(x)))))); x by a 1×1 convolution when the width changes */
    VAE_LAYER_ATTENTION, /* x + attention(norm(x)), one head over all places */
    VAE_LAYER_DOWN,      /* half the size */
    VAE_LAYER_UP,        /* twice the size */
    VAE_LAYER_OUT,       /* conv(silu(norm(x))) */
    VAE_N_LAYER_KINDS
};

struct vae_pair {
    struct tensor weight, bias;
};

struct vae_layer {
    enum vae_layer_kind kind;
    int64_t n_in, n_out; /* channels */
    const char *stage;   /* what goldens call the result; NULL: not recorded */
    int stage_index;
    struct vae_pair norm1, norm2; /* [I], [O] */
    struct vae_pair conv1, conv2; /* [O, I, 3, 3], [O, O, 3, 3] */
    struct vae_pair shortcut;     /* [O, I] */
    struct vae_pair q, k, v, out; /* [I, I] */
};

struct vae_net {
    const struct cyi_allocator *allocator;
    struct vae_layer *layers;
    int64_t n_layers;
    int64_t n_groups;
    float eps;
};

/* How the tensors are called: a prefix and one of two styles. */
struct vae_names {
    const char *prefix;
    bool is_bfl;
};

/* Binds the layers. Errors: FORMAT, SHAPE, DTYPE, MEMORY. */
enum cyi_status vae_net_create(const struct cyi_allocator *allocator, const struct weight_set *set,
                               const struct vae_names *names, const struct vae_config *config, bool is_encoder,
                               struct vae_net **ret_net, struct cyi_error *err);
void vae_net_free(struct vae_net *net);

/* Three buffers that activations move between, each as large as what it ever holds for pictures up to one size. */
struct vae_buffers {
    uint8_t *data[3];
    size_t size_bytes[3];
    struct tensor scale, shift; /* [C] F32 for the widest layer: a folded group norm */
};
size_t vae_net_get_bytes(const struct vae_net *net, int64_t n_rows, int64_t n_cols, enum dtype act_dtype);
enum cyi_status vae_net_make_buffers(const struct vae_net *net, struct exec *ex, int64_t n_rows, int64_t n_cols,
                                     struct vae_buffers *ret_buffers, struct cyi_error *err);

/* Runs a piece of x, from (row, col), through all layers.
 *   x [Y, X, Cin] F32 packed    y [Y', X', Cout] F32 packed; its size says how large the piece is
 *   first_block, n_blocks_all : for progress */
struct vae_piece {
    const struct tensor *x;
    int64_t row, col;
    int64_t n_rows, n_cols; /* of the piece of x */
    struct tensor *y;
    int64_t first_block, n_blocks_all;
};
enum cyi_status vae_net_run(const struct vae_net *net, struct exec *ex, const struct vae_buffers *buffers,
                            const struct vae_piece *piece, struct cyi_error *err);

/* How a picture is cut, in places of the input (in_…) and of the result (out_…). All zero: it is not cut. */
struct vae_tiling {
    int64_t in_tile, in_step;
    int64_t out_tile, out_step, out_blend;
};
/* tile: as in struct vae_options; n_rows and n_cols: the input's. */
struct vae_tiling vae_tiling_of(const struct vae_config *config, int64_t tile, bool is_encode, int64_t n_rows,
                                int64_t n_cols);
int64_t vae_tiling_count(const struct vae_tiling *tiling, int64_t n_rows, int64_t n_cols);

/* Runs all of x. x and y as in struct vae_piece. */
size_t vae_net_get_tiled_bytes(const struct vae_net *net, const struct vae_tiling *tiling, int64_t n_rows,
                               int64_t n_cols, enum dtype act_dtype);
enum cyi_status vae_net_run_tiled(const struct vae_net *net, struct exec *ex, const struct vae_tiling *tiling,
                                  const struct tensor *x, const struct vae_options *options, struct tensor *y,
                                  struct cyi_error *err);

#endif
