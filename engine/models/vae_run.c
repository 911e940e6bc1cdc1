/* Running the layers of a VAE: see vae_net.h.
 *
 * Activations have ex->act_dtype and live in three buffers that take turns, so that nothing is held longer than it is
 * needed: the picture is in one, the other two are free for what a layer makes. Which layer writes where is said once,
 * in plan_layer. */
#include "models/vae_net.h"

#include <math.h>

/* ---- Who is where ---- */

/* A layer's input is in buffer `in`. What it makes in between takes buffers in + 1 and in + 2 (modulo 3), its result is
 * in `out`. */
struct layer_plan {
    int out;
    int64_t n_rows, n_cols;    /* of the result */
    int64_t n_first, n_second; /* elements that must fit into buffers in + 1 and in + 2 */
};

static struct layer_plan plan_layer(const struct vae_layer *layer, int in, int64_t n_rows, int64_t n_cols) {
    struct layer_plan p = { .out = (in + 1) % 3, .n_rows = n_rows, .n_cols = n_cols };
    switch (layer->kind) {
    case VAE_LAYER_RESIDUAL:
        p.out = layer->n_in == layer->n_out ? in : (in + 2) % 3;
        p.n_second = layer->n_in == layer->n_out ? 0 : n_rows * n_cols * layer->n_out;
        p.n_first = n_rows * n_cols * layer->n_out;
        return p;
    case VAE_LAYER_ATTENTION:
        p.out = in;
        p.n_first = 2 * n_rows * n_cols * layer->n_in;
        p.n_second = p.n_first;
        return p;
    case VAE_LAYER_DOWN:
        p.n_rows = (n_rows + 1 - 3) / 2 + 1;
        p.n_cols = (n_cols + 1 - 3) / 2 + 1;
        break;
    case VAE_LAYER_UP:
        p.n_rows = 2 * n_rows;
        p.n_cols = 2 * n_cols;
        break;
    default:
        break;
    }
    p.n_first = p.n_rows * p.n_cols * layer->n_out;
    return p;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Sizes of the three buffers; returns the widest layer's channels. */
static int64_t size_buffers(const struct vae_net *net, int64_t n_rows, int64_t n_cols, enum dtype act_dtype,
                            size_t sizes[3]) {
    size_t act = dtype_size(act_dtype);
    int64_t widest = 0;
    int in = 0;
    sizes[0] = (size_t)(n_rows * n_cols * net->layers[0].n_in) * act;
    sizes[1] = 0;
    sizes[2] = 0;
    for (int64_t i = 0; i < net->n_layers; i++) {
        const struct vae_layer *layer = &net->layers[i];
        struct layer_plan plan = plan_layer(layer, in, n_rows, n_cols);
        widest = layer->n_in > widest ? layer->n_in : widest;
        widest = layer->n_out > widest ? layer->n_out : widest;
        if (i + 1 < net->n_layers) { /* the last layer writes into memory of the caller */
            sizes[(in + 1) % 3] = larger(sizes[(in + 1) % 3], (size_t)plan.n_first * act);
            sizes[(in + 2) % 3] = larger(sizes[(in + 2) % 3], (size_t)plan.n_second * act);
        }
        in = plan.out;
        n_rows = plan.n_rows;
        n_cols = plan.n_cols;
    }
    return widest;
}

size_t vae_net_get_bytes(const struct vae_net *net, int64_t n_rows, int64_t n_cols, enum dtype act_dtype) {
    size_t sizes[3];
    int64_t widest = size_buffers(net, n_rows, n_cols, act_dtype, sizes);
    return sizes[0] + sizes[1] + sizes[2] + 2 * (size_t)widest * sizeof(float) + (size_t)5 * MEM_ALIGN;
}

enum cyi_status vae_net_make_buffers(const struct vae_net *net, struct exec *ex, int64_t n_rows, int64_t n_cols,
                                     struct vae_buffers *ret_buffers, struct cyi_error *err) {
    struct vae_buffers b;
    enum cyi_status st = CYI_OK;
    int64_t widest = size_buffers(net, n_rows, n_cols, ex->act_dtype, b.size_bytes);
    for (int i = 0; i < 3; i++) {
        struct tensor bytes;
        const int64_t size = b.size_bytes[i] > 0 ? (int64_t)b.size_bytes[i] : 1;
        TRY(exec_new(ex, DTYPE_U8, 1, &size, &bytes, err));
        b.data[i] = bytes.data;
    }
    TRY(exec_new(ex, DTYPE_F32, 1, &widest, &b.scale, err));
    TRY(exec_new(ex, DTYPE_F32, 1, &widest, &b.shift, err));
    *ret_buffers = b;
done:
    return st;
}

/* ---- Running ---- */

struct run {
    const struct vae_net *net;
    struct exec *ex;
    const struct vae_buffers *buffers;
    const struct vae_layer *layer;
    int in;          /* the buffer that x is in */
    struct tensor x; /* [Y, X, I] */
};

static struct tensor picture_at(const struct run *r, int buffer, int64_t n_rows, int64_t n_cols, int64_t n_channels) {
    return tensor_3d(r->ex->act_dtype, n_rows, n_cols, n_channels, r->buffers->data[buffer % 3]);
}

/* What a convolution of this family is beside its picture: stride 1, the result as large as the (enlarged) picture. */
static struct conv2d_args conv_args(const struct tensor *x, const struct vae_pair *conv, struct tensor *y) {
    return (struct conv2d_args){ .x = x,
                                 .weight = &conv->weight,
                                 .bias = &conv->bias,
                                 .upsample = 1,
                                 .stride = 1,
                                 .pad_top = 1,
                                 .pad_left = 1,
                                 .pad_bottom = 1,
                                 .pad_right = 1,
                                 .y = y };
}

/* The statistics of x, as factor and summand a channel. */
static enum cyi_status fold_norm(struct run *r, const struct tensor *x, const struct vae_pair *norm,
                                 struct tensor *scale, struct tensor *shift, struct cyi_error *err) {
    *scale = tensor_1d(DTYPE_F32, tensor_n_cols(x), r->buffers->scale.data);
    *shift = tensor_1d(DTYPE_F32, tensor_n_cols(x), r->buffers->shift.data);
    return op_group_norm(r->ex,
                         &(struct group_norm_args){ .x = x,
                                                    .weight = &norm->weight,
                                                    .bias = &norm->bias,
                                                    .n_groups = r->net->n_groups,
                                                    .eps = r->net->eps,
                                                    .scale = scale,
                                                    .shift = shift },
                         err);
}

/* y = conv(silu(norm(x))) + residual */
static enum cyi_status norm_conv(struct run *r, const struct tensor *x, const struct vae_pair *norm,
                                 const struct vae_pair *conv, const struct tensor *residual, struct tensor *y,
                                 struct cyi_error *err) {
    struct tensor scale;
    struct tensor shift;
    struct conv2d_args args = conv_args(x, conv, y);
    args.scale = &scale;
    args.shift = &shift;
    args.in_act = ACT_SILU;
    args.residual = residual;
    enum cyi_status st = fold_norm(r, x, norm, &scale, &shift, err);
    return st != CYI_OK ? st : op_conv2d(r->ex, &args, err);
}

/* A 1×1 convolution: a matrix product over the places. */
static enum cyi_status mix_channels(struct run *r, const struct tensor *x, const struct vae_pair *conv,
                                    struct tensor *y, struct cyi_error *err) {
    struct tensor rows = tensor_reshape_2d(y, tensor_n_rows(y), tensor_n_cols(y));
    struct tensor places = tensor_reshape_2d(x, tensor_n_rows(x), tensor_n_cols(x));
    return op_linear(
        r->ex, &(struct linear_args){ .x = &places, .weight = &conv->weight, .bias = &conv->bias, .y = &rows }, err);
}

static enum cyi_status run_residual(struct run *r, struct tensor *y, struct cyi_error *err) {
    const struct vae_layer *l = r->layer;
    struct tensor hidden = picture_at(r, r->in + 1, r->x.shape[0], r->x.shape[1], l->n_out);
    enum cyi_status st = CYI_OK;
    TRY(norm_conv(r, &r->x, &l->norm1, &l->conv1, NULL, &hidden, err));
    if (l->n_in != l->n_out) {
        TRY(mix_channels(r, &r->x, &l->shortcut, y, err));
    }
    TRY(norm_conv(r, &hidden, &l->norm2, &l->conv2, y, y, err)); /* y is x, or what the shortcut made of it */
done:
    return st;
}

/* One head over all places. The buffer behind x holds the normed picture (later what was attended to) and q, the next k
 * and v. */
static enum cyi_status run_attention(struct run *r, struct tensor *y, struct cyi_error *err) {
    const struct vae_layer *l = r->layer;
    int64_t n = tensor_n_rows(&r->x);
    struct tensor x = tensor_reshape_2d(&r->x, n, l->n_in);
    struct tensor out = tensor_reshape_2d(y, n, l->n_in);
    struct tensor first = picture_at(r, r->in + 1, 2, n, l->n_in);
    struct tensor second = picture_at(r, r->in + 2, 2, n, l->n_in);
    struct tensor normed = tensor_rows(&first, 0, n);
    struct tensor q = tensor_rows(&first, n, n);
    struct tensor k = tensor_rows(&second, 0, n);
    struct tensor v = tensor_rows(&second, n, n);
    struct tensor scale;
    struct tensor shift;
    enum cyi_status st = CYI_OK;
    TRY(fold_norm(r, &r->x, &l->norm1, &scale, &shift, err));
    TRY(op_channel_affine(
        r->ex, &(struct channel_affine_args){ .x = &x, .scale = &scale, .shift = &shift, .y = &normed }, err));
    TRY(mix_channels(r, &normed, &l->q, &q, err));
    TRY(mix_channels(r, &normed, &l->k, &k, err));
    TRY(mix_channels(r, &normed, &l->v, &v, err));
    TRY(op_attention(r->ex,
                     &(struct attention_args){ .q = &q,
                                               .k = &k,
                                               .v = &v,
                                               .n_heads = 1,
                                               .n_kv_heads = 1,
                                               .n_keys = n,
                                               .scale = 1.0F / sqrtf((float)l->n_in),
                                               .out = &normed },
                     err));
    TRY(op_linear(r->ex,
                  &(struct linear_args){
                      .x = &normed, .weight = &l->out.weight, .bias = &l->out.bias, .residual = &x, .y = &out },
                  err));
done:
    return st;
}

static enum cyi_status run_resample(struct run *r, struct tensor *y, struct cyi_error *err) {
    struct conv2d_args args = conv_args(&r->x, &r->layer->conv1, y);
    if (r->layer->kind == VAE_LAYER_UP) {
        args.upsample = 2;
    } else {
        args.stride = 2;
        args.pad_top = 0;
        args.pad_left = 0;
    }
    return op_conv2d(r->ex, &args, err);
}

static enum cyi_status run_layer(struct run *r, struct tensor *y, struct cyi_error *err) {
    const struct vae_layer *l = r->layer;
    switch (l->kind) {
    case VAE_LAYER_QUANT:
        return mix_channels(r, &r->x, &l->shortcut, y, err);
    case VAE_LAYER_RESIDUAL:
        return run_residual(r, y, err);
    case VAE_LAYER_ATTENTION:
        return run_attention(r, y, err);
    case VAE_LAYER_DOWN:
    case VAE_LAYER_UP:
        return run_resample(r, y, err);
    case VAE_LAYER_OUT:
        return norm_conv(r, &r->x, &l->norm1, &l->conv1, NULL, y, err);
    default: {
        struct conv2d_args args = conv_args(&r->x, &l->conv1, y);
        return op_conv2d(r->ex, &args, err);
    }
    }
}

/* The piece of the input, in the type of activations, in the first buffer. */
static enum cyi_status load_piece(struct run *r, const struct vae_piece *piece, struct cyi_error *err) {
    int64_t n_channels = piece->x->shape[2];
    struct tensor all = tensor_reshape_2d(piece->x, piece->x->shape[0], piece->x->shape[1] * n_channels);
    struct tensor rows = tensor_rows(&all, piece->row, piece->n_rows);
    struct tensor part = tensor_cols(&rows, piece->col * n_channels, piece->n_cols * n_channels);
    r->x = picture_at(r, 0, piece->n_rows, piece->n_cols, n_channels);
    struct tensor y = tensor_reshape_2d(&r->x, piece->n_rows, piece->n_cols * n_channels);
    struct exec_mark mark = exec_get_mark(r->ex);
    struct tensor sent;
    enum cyi_status st = CYI_OK;
    TRY(exec_send(r->ex, &part, &sent, err));
    TRY(op_cast(r->ex, &(struct cast_args){ .x = &sent, .y = &y }, err));
done:
    exec_release(r->ex, mark);
    return st;
}

enum cyi_status vae_net_run(const struct vae_net *net, struct exec *ex, const struct vae_buffers *buffers,
                            const struct vae_piece *piece, struct cyi_error *err) {
    struct run r = { .net = net, .ex = ex, .buffers = buffers };
    struct exec_mark mark = exec_get_mark(ex);
    struct tensor result;
    enum cyi_status st = CYI_OK;
    TRY(exec_mirror(ex, piece->y, &result, err));
    TRY(load_piece(&r, piece, err));
    for (int64_t i = 0; i < net->n_layers; i++) {
        r.layer = &net->layers[i];
        struct layer_plan plan = plan_layer(r.layer, r.in, r.x.shape[0], r.x.shape[1]);
        struct tensor y = picture_at(&r, plan.out, plan.n_rows, plan.n_cols, r.layer->n_out);
        struct tensor *target = i + 1 < net->n_layers ? &y : &result;
        TRY(run_layer(&r, target, err));
        if (r.layer->stage != NULL) {
            exec_observe(ex, r.layer->stage, r.layer->stage_index, target);
        }
        TRY(exec_report_block(ex, piece->first_block + i + 1, piece->n_blocks_all, err));
        r.in = plan.out;
        r.x = y;
    }
    TRY(exec_receive(ex, &result, piece->y, err));
done:
    exec_release(ex, mark);
    return st;
}
