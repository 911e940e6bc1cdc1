/* Pictures through a VAE half in overlapping tiles: see vae_net.h. The geometry is that of diffusers' tiled_decode and tiled_encode:
 * tiles start every three quarters of their side; each is blended over its first quarter with the tile above, then with the tile to the
 * left (both already blended), and gives its first three quarters to the result. */
#include "models/vae_net.h"

#include <string.h>

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

struct vae_tiling vae_tiling_of(const struct vae_config *config, int64_t tile, bool is_encode, int64_t n_rows,
                                int64_t n_cols) {
    int64_t latents = tile / config->latent_pixels;
    struct vae_tiling t = { .in_tile = is_encode ? tile : latents, .out_tile = is_encode ? latents : tile };
    if (tile == 0 || (n_rows <= t.in_tile && n_cols <= t.in_tile)) {
        return (struct vae_tiling){ 0 };
    }
    t.in_step = t.in_tile / 4 * 3;
    t.out_blend = t.out_tile / 4;
    t.out_step = t.out_tile - t.out_blend;
    return t;
}

static int64_t count_steps(int64_t size, int64_t step) {
    return (size + step - 1) / step;
}

int64_t vae_tiling_count(const struct vae_tiling *tiling, int64_t n_rows, int64_t n_cols) {
    return tiling->in_tile == 0 ? 1 : count_steps(n_rows, tiling->in_step) * count_steps(n_cols, tiling->in_step);
}

/* What tiles leave for their neighbours. C is the number of channels. */
struct tiles {
    const struct vae_net *net;
    struct exec *ex;
    const struct vae_tiling *tiling;
    struct vae_buffers buffers;
    float *tile;  /* [out_tile, out_tile, C] */
    float *above; /* one [out_blend, out_tile, C] a column of tiles: the last rows of the tile above */
    float *left;  /* [out_tile, out_blend, C]: the last columns of the tile to the left */
    int64_t n_channels;
};

static int64_t n_out_channels(const struct vae_net *net) {
    return net->layers[net->n_layers - 1].n_out;
}

size_t vae_net_get_tiled_bytes(const struct vae_net *net, const struct vae_tiling *tiling, int64_t n_rows,
                               int64_t n_cols, enum dtype act_dtype) {
    if (tiling->in_tile == 0) {
        return vae_net_get_bytes(net, n_rows, n_cols, act_dtype);
    }
    int64_t n_strips = count_steps(n_cols, tiling->in_step) + 1;
    int64_t n_places = tiling->out_tile * (tiling->out_tile + n_strips * tiling->out_blend);
    return vae_net_get_bytes(net, smaller(n_rows, tiling->in_tile), smaller(n_cols, tiling->in_tile), act_dtype) +
           (size_t)(n_places * n_out_channels(net)) * sizeof(float) + (size_t)3 * MEM_ALIGN;
}

static enum cyi_status make_tiles(struct tiles *t, int64_t n_rows, int64_t n_cols, struct cyi_error *err) {
    const struct vae_tiling *g = t->tiling;
    size_t a_row = (size_t)(g->out_tile * t->n_channels) * sizeof(float);
    int64_t n_tile_cols = count_steps(n_cols, g->in_step);
    enum cyi_status st =
        vae_net_make_buffers(t->net, t->ex, smaller(n_rows, g->in_tile), smaller(n_cols, g->in_tile), &t->buffers, err);
    if (st != CYI_OK) {
        return st;
    }
    t->tile = arena_alloc(t->ex->arena, (size_t)g->out_tile, a_row);
    t->above = arena_alloc(t->ex->arena, (size_t)(n_tile_cols * g->out_blend), a_row);
    t->left = arena_alloc(t->ex->arena, (size_t)g->out_blend, a_row);
    if (t->tile == NULL || t->above == NULL || t->left == NULL) {
        return error_memory(err, "a tile", (size_t)g->out_tile * a_row);
    }
    return CYI_OK;
}

/* b = a (1 − share) + b share */
static void blend(float *b, const float *a, int64_t n, double share) {
    float rest = (float)(1.0 - share);
    for (int64_t i = 0; i < n; i++) {
        b[i] = a[i] * rest + b[i] * (float)share;
    }
}

/* A strip has out_blend rows (or columns); a tile that is narrower than that is blended with the strip's end. */
static void blend_above(const struct tiles *t, int64_t tile_col, struct tensor *tile) {
    int64_t n = smaller(t->tiling->out_blend, tile->shape[0]);
    int64_t strip_row = t->tiling->out_tile * t->n_channels;
    const float *strip = t->above + (tile_col * t->tiling->out_blend + t->tiling->out_blend - n) * strip_row;
    int64_t tile_row = tile->shape[1] * t->n_channels;
    for (int64_t y = 0; y < n; y++) {
        blend((float *)tile->data + y * tile_row, strip + y * strip_row, tile_row, (double)y / (double)n);
    }
}

static void blend_left(const struct tiles *t, struct tensor *tile) {
    int64_t n = smaller(t->tiling->out_blend, tile->shape[1]);
    int64_t strip_row = t->tiling->out_blend * t->n_channels;
    const float *strip = t->left + (t->tiling->out_blend - n) * t->n_channels;
    int64_t tile_row = tile->shape[1] * t->n_channels;
    for (int64_t y = 0; y < tile->shape[0]; y++) {
        for (int64_t x = 0; x < n; x++) {
            blend((float *)tile->data + y * tile_row + x * t->n_channels, strip + y * strip_row + x * t->n_channels,
                  t->n_channels, (double)x / (double)n);
        }
    }
}

/* The last rows and columns of a tile, for the tiles below and to the right. Those exist only when it is large enough. */
static void keep_strips(struct tiles *t, int64_t tile_col, const struct tensor *tile) {
    int64_t n = t->tiling->out_blend;
    int64_t tile_row = tile->shape[1] * t->n_channels;
    const float *data = tile->data;
    if (tile->shape[0] >= n) {
        for (int64_t y = 0; y < n; y++) {
            memcpy(t->above + (tile_col * n + y) * t->tiling->out_tile * t->n_channels,
                   data + (tile->shape[0] - n + y) * tile_row, (size_t)tile_row * sizeof *data);
        }
    }
    if (tile->shape[1] >= n) {
        for (int64_t y = 0; y < tile->shape[0]; y++) {
            memcpy(t->left + y * n * t->n_channels, data + (y + 1) * tile_row - n * t->n_channels,
                   (size_t)(n * t->n_channels) * sizeof *data);
        }
    }
}

static void store_tile(const struct tiles *t, int64_t row, int64_t col, const struct tensor *tile, struct tensor *y) {
    int64_t n_rows = smaller(tile->shape[0], t->tiling->out_step);
    int64_t n_cols = smaller(tile->shape[1], t->tiling->out_step);
    for (int64_t r = 0; r < n_rows; r++) {
        memcpy((float *)y->data + ((row + r) * y->shape[1] + col) * t->n_channels,
               (const float *)tile->data + r * tile->shape[1] * t->n_channels,
               (size_t)(n_cols * t->n_channels) * sizeof(float));
    }
}

/* Tile (i, j): run, blended, stored. block: the number of its first layer. */
static enum cyi_status run_tile(struct tiles *t, int64_t i, int64_t j, const struct vae_piece *whole,
                                int64_t first_block, struct cyi_error *err) {
    const struct vae_tiling *g = t->tiling;
    struct vae_piece piece = *whole;
    piece.row = i * g->in_step;
    piece.col = j * g->in_step;
    piece.n_rows = smaller(g->in_tile, whole->n_rows - piece.row);
    piece.n_cols = smaller(g->in_tile, whole->n_cols - piece.col);
    piece.first_block = first_block;
    struct tensor tile = tensor_3d(DTYPE_F32, piece.n_rows * g->out_tile / g->in_tile,
                                   piece.n_cols * g->out_tile / g->in_tile, t->n_channels, t->tile);
    piece.y = &tile;
    enum cyi_status st = vae_net_run(t->net, t->ex, &t->buffers, &piece, err);
    if (st != CYI_OK) {
        return st;
    }
    if (i > 0) {
        blend_above(t, j, &tile);
    }
    if (j > 0) {
        blend_left(t, &tile);
    }
    keep_strips(t, j, &tile);
    store_tile(t, i * g->out_step, j * g->out_step, &tile, whole->y);
    return CYI_OK;
}

enum cyi_status vae_net_run_tiled(const struct vae_net *net, struct exec *ex, const struct vae_tiling *tiling,
                                  const struct tensor *x, const struct vae_options *options, struct tensor *y,
                                  struct cyi_error *err) {
    int64_t n_rows = x->shape[0];
    int64_t n_cols = x->shape[1];
    struct tiles t = { .net = net, .ex = ex, .tiling = tiling, .n_channels = n_out_channels(net) };
    struct vae_piece whole = {
        .x = x, .n_rows = n_rows, .n_cols = n_cols, .y = y, .first_block = options->first_block
    };
    struct exec_mark mark = exec_get_mark(ex);
    enum cyi_status st = CYI_OK;
    whole.n_blocks_all =
        options->n_blocks_all > 0 ? options->n_blocks_all : vae_tiling_count(tiling, n_rows, n_cols) * net->n_layers;
    if (tiling->in_tile == 0) {
        TRY(vae_net_make_buffers(net, ex, n_rows, n_cols, &t.buffers, err));
        TRY(vae_net_run(net, ex, &t.buffers, &whole, err));
    } else {
        int64_t n_done = options->first_block;
        TRY(make_tiles(&t, n_rows, n_cols, err));
        for (int64_t i = 0; i * tiling->in_step < n_rows; i++) {
            for (int64_t j = 0; j * tiling->in_step < n_cols; j++, n_done += net->n_layers) {
                TRY(run_tile(&t, i, j, &whole, n_done, err));
            }
        }
    }
done:
    exec_release(ex, mark);
    return st;
}
