/* The checks before every operation (ops.c): whatever does not fit is refused with a sentence that names it, and no backend sees it. */
#include "ops_test.h"

#include <string.h>

static float numbers[4096]; /* what all tensors here point to; nothing runs on them but the good cases */

static struct tensor matrix(enum dtype dtype, int64_t n_rows, int64_t n_cols) {
    return tensor_2d(dtype, n_rows, n_cols, numbers);
}

static struct tensor vector(enum dtype dtype, int64_t n) {
    return tensor_1d(dtype, n, numbers);
}

static struct tensor with_gaps(struct tensor t) {
    t.row_stride++;
    return t;
}

/* ---- A backend that only counts ---- */

static int n_runs;

static enum cyi_status count_run(struct backend *backend, enum op op, const void *args, struct cyi_error *err) {
    (void)backend;
    (void)op;
    (void)args;
    (void)err;
    n_runs++;
    return CYI_OK;
}

static const struct backend_vtable counting_vtable = { .name = "counting", .run = count_run };
static struct backend counting = { &counting_vtable };
static struct exec ex = { .backend = &counting };

static void accepts(enum op op, const void *args) {
    struct cyi_error err = { 0 };
    n_runs = 0;
    if (ops_run(&ex, op, args, &err) != CYI_OK || n_runs != 1) {
        fail_msg("%s refuses a good case: %s", op_name(op), err.text);
    }
}

static void rejects(enum op op, const void *args, enum cyi_status status, const char *text) {
    struct cyi_error err = { 0 };
    n_runs = 0;
    assert_int_equal(ops_run(&ex, op, args, &err), status);
    assert_int_equal(err.code, status);
    assert_string_equal(err.text, text);
    assert_int_equal(n_runs, 0);
}

/* `good` with one argument set to something else. */
#define REJECTS(ID, good, field, value, status, text)                                                                  \
    do {                                                                                                               \
        __typeof__(good) changed = (good);                                                                             \
        changed.field = (value);                                                                                       \
        rejects(OP_##ID, &changed, status, text);                                                                      \
    } while (0)

/* `good` with a tensor for one argument. */
#define REJECTS_TENSOR(ID, good, field, value, status, text)                                                           \
    do {                                                                                                               \
        struct tensor wrong = (value);                                                                                 \
        REJECTS(ID, good, field, &wrong, status, text);                                                                \
    } while (0)

/* ---- One test an operation ---- */

static void linear_refuses_what_does_not_fit(void **state) {
    (void)state;
    struct tensor x = matrix(DTYPE_F32, 3, 5);
    struct tensor weight = matrix(DTYPE_F8_E4M3, 4, 5);
    struct tensor bias = vector(DTYPE_F16, 4);
    struct tensor gate = vector(DTYPE_F32, 4);
    struct tensor y = matrix(DTYPE_BF16, 3, 4);
    struct linear_args good = { .x = &x, .weight = &weight, .bias = &bias, .gate = &gate, .residual = &y, .y = &y };
    accepts(OP_LINEAR, &good);
    REJECTS(LINEAR, good, x, NULL, CYI_E_SHAPE, "linear: x is missing, needs F32 or BF16");
    REJECTS_TENSOR(LINEAR, good, x, matrix(DTYPE_F16, 3, 5), CYI_E_DTYPE, "linear: x is [3, 5] F16, needs F32 or BF16");
    REJECTS_TENSOR(LINEAR, good, x, matrix(DTYPE_F32, 3, 6), CYI_E_SHAPE,
                   "linear: weight is [4, 5] F8_E4M3, needs [N, K], K as in x");
    REJECTS_TENSOR(LINEAR, good, weight, matrix(DTYPE_U8, 4, 5), CYI_E_DTYPE,
                   "linear: weight is [4, 5] U8, needs a floating type");
    REJECTS_TENSOR(LINEAR, good, weight, with_gaps(weight), CYI_E_SHAPE,
                   "linear: weight is [4, 5] F8_E4M3, needs rows without gaps");
    REJECTS_TENSOR(LINEAR, good, bias, vector(DTYPE_F32, 5), CYI_E_SHAPE, "linear: bias is [5] F32, needs [N]");
    REJECTS_TENSOR(LINEAR, good, bias, vector(DTYPE_I32, 4), CYI_E_DTYPE,
                   "linear: bias is [4] I32, needs a floating type");
    REJECTS_TENSOR(LINEAR, good, gate, vector(DTYPE_BF16, 4), CYI_E_DTYPE, "linear: gate is [4] BF16, needs [N] F32");
    REJECTS_TENSOR(LINEAR, good, y, matrix(DTYPE_BF16, 4, 3), CYI_E_SHAPE, "linear: y is [4, 3] BF16, needs [M, N]");
    REJECTS_TENSOR(LINEAR, good, y, matrix(DTYPE_I64, 3, 4), CYI_E_DTYPE, "linear: y is [3, 4] I64, needs F32 or BF16");
    REJECTS_TENSOR(LINEAR, good, residual, matrix(DTYPE_F32, 3, 4), CYI_E_DTYPE,
                   "linear: residual is [3, 4] F32, needs the type of y");
    REJECTS_TENSOR(LINEAR, good, residual, matrix(DTYPE_BF16, 1, 4), CYI_E_SHAPE,
                   "linear: residual is [1, 4] BF16, needs [M, N]");
}

static void layer_norm_refuses_what_does_not_fit(void **state) {
    (void)state;
    struct tensor x = matrix(DTYPE_BF16, 3, 5);
    struct tensor f32 = vector(DTYPE_F32, 5);
    struct layer_norm_args good = { .x = &x, .weight = &f32, .bias = &f32, .scale = &f32, .shift = &f32, .y = &x };
    accepts(OP_LAYER_NORM, &good);
    accepts(OP_LAYER_NORM, &(struct layer_norm_args){ .x = &x, .y = &x });
    REJECTS_TENSOR(LAYER_NORM, good, x, matrix(DTYPE_U8, 3, 5), CYI_E_DTYPE,
                   "layer_norm: x is [3, 5] U8, needs F32 or BF16");
    REJECTS_TENSOR(LAYER_NORM, good, weight, vector(DTYPE_F32, 4), CYI_E_SHAPE,
                   "layer_norm: weight is [4] F32, needs [D]");
    REJECTS_TENSOR(LAYER_NORM, good, bias, vector(DTYPE_F32, 6), CYI_E_SHAPE, "layer_norm: bias is [6] F32, needs [D]");
    REJECTS_TENSOR(LAYER_NORM, good, scale, vector(DTYPE_F16, 5), CYI_E_DTYPE,
                   "layer_norm: scale is [5] F16, needs [D] F32");
    REJECTS_TENSOR(LAYER_NORM, good, shift, matrix(DTYPE_F32, 3, 5), CYI_E_SHAPE,
                   "layer_norm: shift is [3, 5] F32, needs [D] F32");
    REJECTS_TENSOR(LAYER_NORM, good, y, matrix(DTYPE_F32, 2, 5), CYI_E_SHAPE,
                   "layer_norm: y is [2, 5] F32, needs the shape of x");
    REJECTS(LAYER_NORM, good, y, NULL, CYI_E_SHAPE, "layer_norm: y is missing, needs F32 or BF16");
}

static void rms_norm_refuses_what_does_not_fit(void **state) {
    (void)state;
    struct tensor x = matrix(DTYPE_F32, 3, 5);
    struct tensor weight = vector(DTYPE_F8_E5M2, 5);
    struct rms_norm_args good = { .x = &x, .weight = &weight, .y = &x };
    accepts(OP_RMS_NORM, &good);
    REJECTS_TENSOR(RMS_NORM, good, x, matrix(DTYPE_F16, 3, 5), CYI_E_DTYPE,
                   "rms_norm: x is [3, 5] F16, needs F32 or BF16");
    REJECTS(RMS_NORM, good, weight, NULL, CYI_E_SHAPE, "rms_norm: weight is missing, needs a floating type");
    REJECTS_TENSOR(RMS_NORM, good, weight, vector(DTYPE_F32, 3), CYI_E_SHAPE, "rms_norm: weight is [3] F32, needs [D]");
    REJECTS_TENSOR(RMS_NORM, good, y, matrix(DTYPE_F32, 5, 3), CYI_E_SHAPE,
                   "rms_norm: y is [5, 3] F32, needs the shape of x");
}

static void qk_norm_rope_refuses_what_does_not_fit(void **state) {
    (void)state;
    struct tensor x = matrix(DTYPE_F32, 3, 8);
    struct tensor weight = vector(DTYPE_F32, 4);
    struct tensor angles = matrix(DTYPE_F32, 3, 2);
    struct qk_norm_rope_args good = {
        .x = &x, .weight = &weight, .cos = &angles, .sin = &angles, .n_heads = 2, .y = &x
    };
    accepts(OP_QK_NORM_ROPE, &good);
    REJECTS_TENSOR(QK_NORM_ROPE, good, x, matrix(DTYPE_F16, 3, 8), CYI_E_DTYPE,
                   "qk_norm_rope: x is [3, 8] F16, needs F32 or BF16");
    REJECTS(QK_NORM_ROPE, good, n_heads, 3, CYI_E_SHAPE, "qk_norm_rope: x is [3, 8] F32, needs [S, H·K]");
    REJECTS(QK_NORM_ROPE, good, n_heads, 0, CYI_E_SHAPE, "qk_norm_rope: x is [3, 8] F32, needs [S, H·K]");
    REJECTS_TENSOR(QK_NORM_ROPE, good, weight, vector(DTYPE_F32, 8), CYI_E_SHAPE,
                   "qk_norm_rope: weight is [8] F32, needs [K]");
    REJECTS(QK_NORM_ROPE, good, sin, NULL, CYI_E_SHAPE,
            "qk_norm_rope: sin is missing, needs to be present with cos alone");
    REJECTS(QK_NORM_ROPE, good, cos, NULL, CYI_E_SHAPE,
            "qk_norm_rope: sin is [3, 2] F32, needs to be present with cos alone");
    REJECTS_TENSOR(QK_NORM_ROPE, good, cos, matrix(DTYPE_F32, 2, 2), CYI_E_SHAPE,
                   "qk_norm_rope: cos is [2, 2] F32, needs [S, K/2], K even");
    REJECTS_TENSOR(QK_NORM_ROPE, good, sin, matrix(DTYPE_F32, 3, 4), CYI_E_SHAPE,
                   "qk_norm_rope: sin is [3, 4] F32, needs [S, K/2]");
    REJECTS_TENSOR(QK_NORM_ROPE, good, sin, matrix(DTYPE_BF16, 3, 2), CYI_E_DTYPE,
                   "qk_norm_rope: sin is [3, 2] BF16, needs F32");
    REJECTS_TENSOR(QK_NORM_ROPE, good, y, matrix(DTYPE_F32, 3, 4), CYI_E_SHAPE,
                   "qk_norm_rope: y is [3, 4] F32, needs the shape of x");
}

static void attention_refuses_what_does_not_fit(void **state) {
    (void)state;
    struct tensor q = matrix(DTYPE_BF16, 3, 16);
    struct tensor kv = matrix(DTYPE_BF16, 5, 8);
    struct tensor out = matrix(DTYPE_F32, 3, 16);
    struct attention_args good = {
        .q = &q,
        .k = &kv,
        .v = &kv,
        .n_heads = 4,
        .n_kv_heads = 2,
        .n_keys = 5,
        .scale = 0.5F,
        .out = &out,
    };
    accepts(OP_ATTENTION, &good);
    REJECTS_TENSOR(ATTENTION, good, q, matrix(DTYPE_F16, 3, 16), CYI_E_DTYPE,
                   "attention: q is [3, 16] F16, needs F32 or BF16");
    REJECTS(ATTENTION, good, n_kv_heads, 3, CYI_E_SHAPE,
            "attention: q is [3, 16] BF16, needs [S, H·K], H a multiple of Hkv");
    REJECTS(ATTENTION, good, n_heads, 0, CYI_E_SHAPE,
            "attention: q is [3, 16] BF16, needs [S, H·K], H a multiple of Hkv");
    REJECTS_TENSOR(ATTENTION, good, k, matrix(DTYPE_F32, 5, 8), CYI_E_DTYPE,
                   "attention: k is [5, 8] F32, needs the type of q");
    REJECTS_TENSOR(ATTENTION, good, k, matrix(DTYPE_BF16, 5, 16), CYI_E_SHAPE,
                   "attention: k is [5, 16] BF16, needs [R, Hkv·K]");
    REJECTS_TENSOR(ATTENTION, good, v, matrix(DTYPE_BF16, 4, 8), CYI_E_SHAPE,
                   "attention: v is [4, 8] BF16, needs the shape of k");
    REJECTS(ATTENTION, good, n_keys, 6, CYI_E_SHAPE,
            "attention: k is [5, 8] BF16, needs at least n_keys rows, and n_keys at least 1");
    REJECTS(ATTENTION, good, n_keys, 0, CYI_E_SHAPE,
            "attention: k is [5, 8] BF16, needs at least n_keys rows, and n_keys at least 1");
    REJECTS(ATTENTION, good, is_causal, true, CYI_E_SHAPE,
            "attention: k is [5, 8] BF16, needs as many rows as q when causal");
    REJECTS_TENSOR(ATTENTION, good, out, matrix(DTYPE_F32, 3, 8), CYI_E_SHAPE,
                   "attention: out is [3, 8] F32, needs the shape of q");
}

static void elementwise_operations_refuse_what_does_not_fit(void **state) {
    (void)state;
    struct tensor f32 = matrix(DTYPE_F32, 3, 5);
    struct tensor bf16 = matrix(DTYPE_BF16, 3, 5);
    struct tensor f16 = matrix(DTYPE_F16, 3, 5);
    struct swiglu_args swiglu = { .gate = &f32, .up = &bf16, .y = &f32 };
    accepts(OP_SWIGLU, &swiglu);
    REJECTS_TENSOR(SWIGLU, swiglu, gate, f16, CYI_E_DTYPE, "swiglu: gate is [3, 5] F16, needs F32 or BF16");
    REJECTS_TENSOR(SWIGLU, swiglu, up, matrix(DTYPE_F32, 3, 4), CYI_E_SHAPE,
                   "swiglu: up is [3, 4] F32, needs the shape of gate");
    REJECTS_TENSOR(SWIGLU, swiglu, y, matrix(DTYPE_F32, 5, 3), CYI_E_SHAPE,
                   "swiglu: y is [5, 3] F32, needs the shape of gate");
    struct silu_args silu = { .x = &f32, .y = &bf16 };
    accepts(OP_SILU, &silu);
    REJECTS(SILU, silu, x, NULL, CYI_E_SHAPE, "silu: x is missing, needs F32 or BF16");
    REJECTS_TENSOR(SILU, silu, y, matrix(DTYPE_F32, 3, 4), CYI_E_SHAPE, "silu: y is [3, 4] F32, needs the shape of x");
    struct add_args add = { .a = &f32, .b = &bf16, .y = &f32 };
    accepts(OP_ADD, &add);
    REJECTS_TENSOR(ADD, add, a, f16, CYI_E_DTYPE, "add: a is [3, 5] F16, needs F32 or BF16");
    REJECTS_TENSOR(ADD, add, b, matrix(DTYPE_F32, 1, 5), CYI_E_SHAPE, "add: b is [1, 5] F32, needs the shape of a");
    REJECTS_TENSOR(ADD, add, y, f16, CYI_E_DTYPE, "add: y is [3, 5] F16, needs F32 or BF16");
    struct cast_args cast = { .x = &f16, .y = &f32 };
    accepts(OP_CAST, &cast);
    REJECTS_TENSOR(CAST, cast, x, matrix(DTYPE_I64, 3, 5), CYI_E_DTYPE, "cast: x is [3, 5] I64, needs a floating type");
    REJECTS_TENSOR(CAST, cast, y, f16, CYI_E_DTYPE, "cast: y is [3, 5] F16, needs F32 or BF16");
    REJECTS_TENSOR(CAST, cast, y, matrix(DTYPE_F32, 3, 6), CYI_E_SHAPE, "cast: y is [3, 6] F32, needs the shape of x");
    struct tensor factors = vector(DTYPE_F32, 5);
    struct channel_affine_args affine = { .x = &f32, .scale = &factors, .shift = &factors, .y = &f32 };
    accepts(OP_CHANNEL_AFFINE, &affine);
    REJECTS_TENSOR(CHANNEL_AFFINE, affine, scale, vector(DTYPE_F32, 3), CYI_E_SHAPE,
                   "channel_affine: scale is [3] F32, needs [C] F32");
    REJECTS_TENSOR(CHANNEL_AFFINE, affine, shift, vector(DTYPE_BF16, 5), CYI_E_DTYPE,
                   "channel_affine: shift is [5] BF16, needs [C] F32");
    REJECTS(CHANNEL_AFFINE, affine, shift, NULL, CYI_E_SHAPE,
            "channel_affine: shift is missing, needs a floating type");
    REJECTS_TENSOR(CHANNEL_AFFINE, affine, y, matrix(DTYPE_F32, 3, 4), CYI_E_SHAPE,
                   "channel_affine: y is [3, 4] F32, needs the shape of x");
}

static void embed_refuses_ids_outside_the_table(void **state) {
    (void)state;
    int32_t numbers_of_tokens[3] = { 0, 6, 2 };
    struct tensor ids = tensor_1d(DTYPE_I32, 3, numbers_of_tokens);
    struct tensor table = matrix(DTYPE_BF16, 7, 4);
    struct tensor y = matrix(DTYPE_F32, 3, 4);
    struct embed_args good = { .ids = &ids, .table = &table, .y = &y };
    accepts(OP_EMBED, &good);
    REJECTS_TENSOR(EMBED, good, ids, vector(DTYPE_F32, 3), CYI_E_DTYPE, "embed: ids is [3] F32, needs [S] I32");
    REJECTS_TENSOR(EMBED, good, table, matrix(DTYPE_I32, 7, 4), CYI_E_DTYPE,
                   "embed: table is [7, 4] I32, needs a floating type");
    REJECTS_TENSOR(EMBED, good, table, with_gaps(table), CYI_E_SHAPE,
                   "embed: table is [7, 4] BF16, needs rows without gaps");
    REJECTS_TENSOR(EMBED, good, y, matrix(DTYPE_F32, 3, 5), CYI_E_SHAPE, "embed: y is [3, 5] F32, needs [S, D]");
    numbers_of_tokens[2] = 7;
    rejects(OP_EMBED, &good, CYI_E_SHAPE, "embed: token id 7 at position 2 is outside the table of 7 rows");
    numbers_of_tokens[1] = -1;
    rejects(OP_EMBED, &good, CYI_E_SHAPE, "embed: token id -1 at position 1 is outside the table of 7 rows");
}

static void group_norm_refuses_what_does_not_fit(void **state) {
    (void)state;
    struct tensor x = tensor_3d(DTYPE_F32, 3, 4, 6, numbers);
    struct tensor f32 = vector(DTYPE_F32, 6);
    struct group_norm_args good = {
        .x = &x, .weight = &f32, .bias = &f32, .n_groups = 3, .scale = &f32, .shift = &f32
    };
    accepts(OP_GROUP_NORM, &good);
    REJECTS_TENSOR(GROUP_NORM, good, x, with_gaps(x), CYI_E_SHAPE,
                   "group_norm: x is [3, 4, 6] F32, needs [Y, X, C] without gaps");
    REJECTS_TENSOR(GROUP_NORM, good, x, tensor_3d(DTYPE_F16, 3, 4, 6, numbers), CYI_E_DTYPE,
                   "group_norm: x is [3, 4, 6] F16, needs F32 or BF16");
    REJECTS(GROUP_NORM, good, n_groups, 4, CYI_E_SHAPE,
            "group_norm: x is [3, 4, 6] F32, needs channels that the groups divide");
    REJECTS(GROUP_NORM, good, n_groups, 0, CYI_E_SHAPE,
            "group_norm: x is [3, 4, 6] F32, needs channels that the groups divide");
    REJECTS_TENSOR(GROUP_NORM, good, weight, vector(DTYPE_F32, 3), CYI_E_SHAPE,
                   "group_norm: weight is [3] F32, needs [C]");
    REJECTS(GROUP_NORM, good, bias, NULL, CYI_E_SHAPE, "group_norm: bias is missing, needs a floating type");
    REJECTS_TENSOR(GROUP_NORM, good, scale, vector(DTYPE_BF16, 6), CYI_E_DTYPE,
                   "group_norm: scale is [6] BF16, needs [C] F32");
    REJECTS_TENSOR(GROUP_NORM, good, shift, vector(DTYPE_F32, 5), CYI_E_SHAPE,
                   "group_norm: shift is [5] F32, needs [C] F32");
}

static struct tensor kernel(enum dtype dtype, int64_t n_out, int64_t n_in, int64_t size) {
    return (struct tensor){ dtype, 4, { n_out, n_in, size, size }, size, numbers };
}

static void conv2d_refuses_what_does_not_fit(void **state) {
    (void)state;
    struct tensor x = tensor_3d(DTYPE_F32, 4, 5, 6, numbers);
    struct tensor weight = kernel(DTYPE_F16, 2, 6, 3);
    struct tensor factors = vector(DTYPE_F32, 6);
    struct tensor bias = vector(DTYPE_BF16, 2);
    struct tensor y = tensor_3d(DTYPE_F32, 4, 5, 2, numbers);
    struct conv2d_args good = {
        .x = &x,
        .scale = &factors,
        .shift = &factors,
        .weight = &weight,
        .bias = &bias,
        .residual = &y,
        .upsample = 1,
        .stride = 1,
        .pad_top = 1,
        .pad_left = 1,
        .pad_bottom = 1,
        .pad_right = 1,
        .y = &y,
    };
    accepts(OP_CONV2D, &good);
    REJECTS_TENSOR(CONV2D, good, x, matrix(DTYPE_F32, 20, 6), CYI_E_SHAPE,
                   "conv2d: x is [20, 6] F32, needs [Y, X, C] without gaps");
    REJECTS_TENSOR(CONV2D, good, x, with_gaps(x), CYI_E_SHAPE,
                   "conv2d: x is [4, 5, 6] F32, needs [Y, X, C] without gaps");
    REJECTS_TENSOR(CONV2D, good, x, tensor_3d(DTYPE_U8, 4, 5, 6, numbers), CYI_E_DTYPE,
                   "conv2d: x is [4, 5, 6] U8, needs F32 or BF16");
    REJECTS_TENSOR(CONV2D, good, scale, vector(DTYPE_F16, 6), CYI_E_DTYPE, "conv2d: scale is [6] F16, needs [C] F32");
    REJECTS(CONV2D, good, shift, NULL, CYI_E_SHAPE, "conv2d: shift is missing, needs to be present with scale alone");
    REJECTS_TENSOR(CONV2D, good, shift, vector(DTYPE_F32, 5), CYI_E_SHAPE, "conv2d: shift is [5] F32, needs [C] F32");
    REJECTS_TENSOR(CONV2D, good, weight, kernel(DTYPE_F16, 2, 5, 3), CYI_E_SHAPE,
                   "conv2d: weight is [2, 5, 3, 3] F16, needs [O, C, kh, kw], C as in x");
    REJECTS_TENSOR(CONV2D, good, weight, matrix(DTYPE_F16, 2, 54), CYI_E_SHAPE,
                   "conv2d: weight is [2, 54] F16, needs [O, C, kh, kw], C as in x");
    REJECTS_TENSOR(CONV2D, good, weight, kernel(DTYPE_F16, 2, 6, 7), CYI_E_SHAPE,
                   "conv2d: x is [4, 5, 6] F32, needs a picture that the kernel fits into");
    REJECTS_TENSOR(CONV2D, good, bias, vector(DTYPE_BF16, 6), CYI_E_SHAPE, "conv2d: bias is [6] BF16, needs [O]");
    REJECTS(CONV2D, good, upsample, 3, CYI_E_SHAPE, "conv2d: x is [4, 5, 6] F32, needs upsample and stride of 1 or 2");
    REJECTS(CONV2D, good, stride, 0, CYI_E_SHAPE, "conv2d: x is [4, 5, 6] F32, needs upsample and stride of 1 or 2");
    REJECTS(CONV2D, good, pad_left, -1, CYI_E_SHAPE, "conv2d: x is [4, 5, 6] F32, needs padding of 0 or more");
    REJECTS(CONV2D, good, pad_right, 2, CYI_E_SHAPE, "conv2d: y is [4, 5, 2] F32, needs [Y', X', O] without gaps");
    REJECTS(CONV2D, good, stride, 2, CYI_E_SHAPE, "conv2d: y is [4, 5, 2] F32, needs [Y', X', O] without gaps");
    REJECTS(CONV2D, good, y, NULL, CYI_E_SHAPE, "conv2d: y is missing, needs F32 or BF16");
    REJECTS_TENSOR(CONV2D, good, residual, tensor_3d(DTYPE_BF16, 4, 5, 2, numbers), CYI_E_DTYPE,
                   "conv2d: residual is [4, 5, 2] BF16, needs the type of y");
    REJECTS_TENSOR(CONV2D, good, residual, tensor_3d(DTYPE_F32, 4, 4, 2, numbers), CYI_E_SHAPE,
                   "conv2d: residual is [4, 4, 2] F32, needs the shape of y without gaps");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_refuses_what_does_not_fit),
        cmocka_unit_test(layer_norm_refuses_what_does_not_fit),
        cmocka_unit_test(rms_norm_refuses_what_does_not_fit),
        cmocka_unit_test(qk_norm_rope_refuses_what_does_not_fit),
        cmocka_unit_test(attention_refuses_what_does_not_fit),
        cmocka_unit_test(elementwise_operations_refuse_what_does_not_fit),
        cmocka_unit_test(embed_refuses_ids_outside_the_table),
        cmocka_unit_test(group_norm_refuses_what_does_not_fit),
        cmocka_unit_test(conv2d_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
