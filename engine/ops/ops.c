/* Operations: names, checks of shapes and types, dispatch with the fall back to the reference backend. See ops.h. */
#include "ops/ops.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"

const char *op_name(enum op op) {
    static const char *const names[N_OPS] = {
#define OP(ID, name) [OP_##ID] = #name,
#include "ops/ops.def"
#undef OP
    };
    return names[op];
}

/* ---- Checks. Each says what is wrong with the names that ops.h uses. ---- */

/* A fault of argument `what` of an operation. */
static enum cyi_status bad(struct cyi_error *err, enum cyi_status code, const char *op, const char *what,
                           const struct tensor *t, const char *need) {
    char text[96];
    return error_set(err, code, "%s: %s is %s, needs %s", op, what,
                     t == NULL ? "missing" : tensor_describe(t, text, sizeof text), need);
}

static bool is_act(const struct tensor *t) {
    return t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16;
}

static bool is_weight(const struct tensor *t) {
    return t->dtype <= DTYPE_F8_E5M2;
}

static bool is_matrix(const struct tensor *t, int64_t n_rows, int64_t n_cols) {
    return tensor_n_rows(t) == n_rows && tensor_n_cols(t) == n_cols;
}

/* Every check names the operation, the argument and what it needs. A missing argument is a fault of its shape. */
#define CHECK(condition, code, op, args, field, need)                                                                  \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            return bad(err, code, op, #field, (args)->field, need);                                                    \
        }                                                                                                              \
    } while (0)

#define CHECK_SHAPE(condition, op, args, field, need) CHECK(condition, CYI_E_SHAPE, op, args, field, need)

/* An activation of any shape. */
#define CHECK_ACT(op, args, field)                                                                                     \
    do {                                                                                                               \
        CHECK((args)->field != NULL, CYI_E_SHAPE, op, args, field, "F32 or BF16");                                     \
        CHECK(is_act((args)->field), CYI_E_DTYPE, op, args, field, "F32 or BF16");                                     \
    } while (0)

#define CHECK_ACT_MATRIX(op, args, field, n_rows, n_cols, need)                                                        \
    do {                                                                                                               \
        CHECK_ACT(op, args, field);                                                                                    \
        CHECK_SHAPE(is_matrix((args)->field, n_rows, n_cols), op, args, field, need);                                  \
    } while (0)

/* A packed weight of any shape. */
#define CHECK_WEIGHT(op, args, field)                                                                                  \
    do {                                                                                                               \
        CHECK((args)->field != NULL, CYI_E_SHAPE, op, args, field, "a floating type");                                 \
        CHECK(is_weight((args)->field), CYI_E_DTYPE, op, args, field, "a floating type");                              \
        CHECK_SHAPE(tensor_is_packed((args)->field), op, args, field, "rows without gaps");                            \
    } while (0)

/* A packed vector of n elements, of any floating type or of F32 alone. An optional one may be NULL. */
#define CHECK_VECTOR(op, args, field, n, need)                                                                         \
    do {                                                                                                               \
        CHECK_WEIGHT(op, args, field);                                                                                 \
        CHECK_SHAPE(tensor_n_elements((args)->field) == (n), op, args, field, need);                                   \
    } while (0)

#define CHECK_F32_VECTOR(op, args, field, n, need)                                                                     \
    do {                                                                                                               \
        CHECK_VECTOR(op, args, field, n, need);                                                                        \
        CHECK((args)->field->dtype == DTYPE_F32, CYI_E_DTYPE, op, args, field, need);                                  \
    } while (0)

#define CHECK_OPTIONAL(check, op, args, field, n, need)                                                                \
    do {                                                                                                               \
        if ((args)->field != NULL) {                                                                                   \
            check(op, args, field, n, need);                                                                           \
        }                                                                                                              \
    } while (0)

static enum cyi_status check_linear(const struct linear_args *a, struct cyi_error *err) {
    CHECK_ACT("linear", a, x);
    CHECK_WEIGHT("linear", a, weight);
    int64_t m = tensor_n_rows(a->x);
    int64_t n = tensor_n_rows(a->weight);
    CHECK_SHAPE(tensor_n_cols(a->weight) == tensor_n_cols(a->x), "linear", a, weight, "[N, K], K as in x");
    CHECK_OPTIONAL(CHECK_VECTOR, "linear", a, bias, n, "[N]");
    CHECK_OPTIONAL(CHECK_F32_VECTOR, "linear", a, gate, n, "[N] F32");
    CHECK_ACT_MATRIX("linear", a, y, m, n, "[M, N]");
    CHECK(a->residual == NULL || a->residual->dtype == a->y->dtype, CYI_E_DTYPE, "linear", a, residual,
          "the type of y");
    CHECK_SHAPE(a->residual == NULL || is_matrix(a->residual, m, n), "linear", a, residual, "[M, N]");
    return CYI_OK;
}

static enum cyi_status check_layer_norm(const struct layer_norm_args *a, struct cyi_error *err) {
    CHECK_ACT("layer_norm", a, x);
    int64_t d = tensor_n_cols(a->x);
    CHECK_OPTIONAL(CHECK_VECTOR, "layer_norm", a, weight, d, "[D]");
    CHECK_OPTIONAL(CHECK_VECTOR, "layer_norm", a, bias, d, "[D]");
    CHECK_OPTIONAL(CHECK_F32_VECTOR, "layer_norm", a, scale, d, "[D] F32");
    CHECK_OPTIONAL(CHECK_F32_VECTOR, "layer_norm", a, shift, d, "[D] F32");
    CHECK_ACT_MATRIX("layer_norm", a, y, tensor_n_rows(a->x), d, "the shape of x");
    return CYI_OK;
}

static enum cyi_status check_rms_norm(const struct rms_norm_args *a, struct cyi_error *err) {
    CHECK_ACT("rms_norm", a, x);
    CHECK_VECTOR("rms_norm", a, weight, tensor_n_cols(a->x), "[D]");
    CHECK_ACT_MATRIX("rms_norm", a, y, tensor_n_rows(a->x), tensor_n_cols(a->x), "the shape of x");
    return CYI_OK;
}

static enum cyi_status check_qk_norm_rope(const struct qk_norm_rope_args *a, struct cyi_error *err) {
    CHECK_ACT("qk_norm_rope", a, x);
    CHECK_SHAPE(a->n_heads > 0 && tensor_n_cols(a->x) % a->n_heads == 0, "qk_norm_rope", a, x, "[S, H·K]");
    int64_t s = tensor_n_rows(a->x);
    int64_t k = tensor_n_cols(a->x) / a->n_heads;
    CHECK_OPTIONAL(CHECK_VECTOR, "qk_norm_rope", a, weight, k, "[K]");
    CHECK_SHAPE((a->sin == NULL) == (a->cos == NULL), "qk_norm_rope", a, sin, "to be present with cos alone");
    if (a->cos != NULL) {
        CHECK_SHAPE(k % 2 == 0 && is_matrix(a->cos, s, k / 2), "qk_norm_rope", a, cos, "[S, K/2], K even");
        CHECK_SHAPE(is_matrix(a->sin, s, k / 2), "qk_norm_rope", a, sin, "[S, K/2]");
        CHECK(a->cos->dtype == DTYPE_F32, CYI_E_DTYPE, "qk_norm_rope", a, cos, "F32");
        CHECK(a->sin->dtype == DTYPE_F32, CYI_E_DTYPE, "qk_norm_rope", a, sin, "F32");
    }
    CHECK_ACT_MATRIX("qk_norm_rope", a, y, s, tensor_n_cols(a->x), "the shape of x");
    return CYI_OK;
}

static enum cyi_status check_attention(const struct attention_args *a, struct cyi_error *err) {
    CHECK_ACT("attention", a, q);
    CHECK_ACT("attention", a, k);
    CHECK_ACT("attention", a, v);
    CHECK_SHAPE(a->n_heads > 0 && a->n_kv_heads > 0 && a->n_heads % a->n_kv_heads == 0 &&
                    tensor_n_cols(a->q) % a->n_heads == 0,
                "attention", a, q, "[S, H·K], H a multiple of Hkv");
    int64_t s = tensor_n_rows(a->q);
    int64_t r = tensor_n_rows(a->k);
    int64_t kv_cols = tensor_n_cols(a->q) / a->n_heads * a->n_kv_heads;
    CHECK(a->k->dtype == a->q->dtype, CYI_E_DTYPE, "attention", a, k, "the type of q");
    CHECK_SHAPE(tensor_n_cols(a->k) == kv_cols, "attention", a, k, "[R, Hkv·K]");
    CHECK(a->v->dtype == a->q->dtype, CYI_E_DTYPE, "attention", a, v, "the type of q");
    CHECK_SHAPE(is_matrix(a->v, r, kv_cols), "attention", a, v, "the shape of k");
    CHECK_SHAPE(a->n_keys >= 1 && a->n_keys <= r, "attention", a, k, "at least n_keys rows, and n_keys at least 1");
    CHECK_SHAPE(!a->is_causal || s == r, "attention", a, k, "as many rows as q when causal");
    CHECK_ACT_MATRIX("attention", a, out, s, tensor_n_cols(a->q), "the shape of q");
    return CYI_OK;
}

static enum cyi_status check_swiglu(const struct swiglu_args *a, struct cyi_error *err) {
    CHECK_ACT("swiglu", a, gate);
    CHECK_ACT_MATRIX("swiglu", a, up, tensor_n_rows(a->gate), tensor_n_cols(a->gate), "the shape of gate");
    CHECK_ACT_MATRIX("swiglu", a, y, tensor_n_rows(a->gate), tensor_n_cols(a->gate), "the shape of gate");
    return CYI_OK;
}

static enum cyi_status check_silu(const struct silu_args *a, struct cyi_error *err) {
    CHECK_ACT("silu", a, x);
    CHECK_ACT_MATRIX("silu", a, y, tensor_n_rows(a->x), tensor_n_cols(a->x), "the shape of x");
    return CYI_OK;
}

static enum cyi_status check_add(const struct add_args *a, struct cyi_error *err) {
    CHECK_ACT("add", a, a);
    CHECK_ACT_MATRIX("add", a, b, tensor_n_rows(a->a), tensor_n_cols(a->a), "the shape of a");
    CHECK_ACT_MATRIX("add", a, y, tensor_n_rows(a->a), tensor_n_cols(a->a), "the shape of a");
    return CYI_OK;
}

static enum cyi_status check_cast(const struct cast_args *a, struct cyi_error *err) {
    CHECK_SHAPE(a->x != NULL, "cast", a, x, "a matrix");
    CHECK(is_weight(a->x), CYI_E_DTYPE, "cast", a, x, "a floating type");
    CHECK_ACT_MATRIX("cast", a, y, tensor_n_rows(a->x), tensor_n_cols(a->x), "the shape of x");
    return CYI_OK;
}

static enum cyi_status check_embed(const struct embed_args *a, struct cyi_error *err) {
    CHECK_SHAPE(a->ids != NULL && tensor_is_packed(a->ids), "embed", a, ids, "[S] I32");
    CHECK(a->ids->dtype == DTYPE_I32, CYI_E_DTYPE, "embed", a, ids, "[S] I32");
    CHECK_WEIGHT("embed", a, table);
    int64_t n = tensor_n_elements(a->ids);
    int64_t n_rows = tensor_n_rows(a->table);
    CHECK_ACT_MATRIX("embed", a, y, n, tensor_n_cols(a->table), "[S, D]");
    const int32_t *ids = a->ids->data;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= n_rows) {
            return error_set(err, CYI_E_SHAPE,
                             "embed: token id %" PRId32 " at position %" PRId64 " is outside the table of %" PRId64
                             " rows",
                             ids[i], i, n_rows);
        }
    }
    return CYI_OK;
}

static enum cyi_status check_group_norm(const struct group_norm_args *a, struct cyi_error *err) {
    CHECK_ACT("group_norm", a, x);
    CHECK_SHAPE(tensor_is_packed(a->x), "group_norm", a, x, "[Y, X, C] without gaps");
    int64_t c = tensor_n_cols(a->x);
    CHECK_SHAPE(a->n_groups > 0 && c % a->n_groups == 0, "group_norm", a, x, "channels that the groups divide");
    CHECK_VECTOR("group_norm", a, weight, c, "[C]");
    CHECK_VECTOR("group_norm", a, bias, c, "[C]");
    CHECK_F32_VECTOR("group_norm", a, scale, c, "[C] F32");
    CHECK_F32_VECTOR("group_norm", a, shift, c, "[C] F32");
    return CYI_OK;
}

static enum cyi_status check_channel_affine(const struct channel_affine_args *a, struct cyi_error *err) {
    CHECK_ACT("channel_affine", a, x);
    int64_t c = tensor_n_cols(a->x);
    CHECK_F32_VECTOR("channel_affine", a, scale, c, "[C] F32");
    CHECK_F32_VECTOR("channel_affine", a, shift, c, "[C] F32");
    CHECK_ACT_MATRIX("channel_affine", a, y, tensor_n_rows(a->x), c, "the shape of x");
    return CYI_OK;
}

static enum cyi_status check_conv2d(const struct conv2d_args *a, struct cyi_error *err) {
    CHECK_ACT("conv2d", a, x);
    CHECK_SHAPE(a->x->rank == 3 && tensor_is_packed(a->x), "conv2d", a, x, "[Y, X, C] without gaps");
    int64_t c = a->x->shape[2];
    CHECK_OPTIONAL(CHECK_F32_VECTOR, "conv2d", a, scale, c, "[C] F32");
    CHECK_SHAPE((a->shift == NULL) == (a->scale == NULL), "conv2d", a, shift, "to be present with scale alone");
    CHECK_OPTIONAL(CHECK_F32_VECTOR, "conv2d", a, shift, c, "[C] F32");
    CHECK_WEIGHT("conv2d", a, weight);
    CHECK_SHAPE(a->weight->rank == 4 && a->weight->shape[1] == c, "conv2d", a, weight, "[O, C, kh, kw], C as in x");
    int64_t n_out = a->weight->shape[0];
    CHECK_OPTIONAL(CHECK_VECTOR, "conv2d", a, bias, n_out, "[O]");
    CHECK_SHAPE((a->upsample == 1 || a->upsample == 2) && (a->stride == 1 || a->stride == 2), "conv2d", a, x,
                "upsample and stride of 1 or 2");
    CHECK_SHAPE(a->pad_top >= 0 && a->pad_left >= 0 && a->pad_bottom >= 0 && a->pad_right >= 0, "conv2d", a, x,
                "padding of 0 or more");
    int64_t rows = a->x->shape[0] * a->upsample + a->pad_top + a->pad_bottom - a->weight->shape[2];
    int64_t cols = a->x->shape[1] * a->upsample + a->pad_left + a->pad_right - a->weight->shape[3];
    CHECK_SHAPE(rows >= 0 && cols >= 0, "conv2d", a, x, "a picture that the kernel fits into");
    CHECK_ACT("conv2d", a, y);
    CHECK_SHAPE(a->y->rank == 3 && tensor_is_packed(a->y) && a->y->shape[0] == rows / a->stride + 1 &&
                    a->y->shape[1] == cols / a->stride + 1 && a->y->shape[2] == n_out,
                "conv2d", a, y, "[Y', X', O] without gaps");
    CHECK(a->residual == NULL || a->residual->dtype == a->y->dtype, CYI_E_DTYPE, "conv2d", a, residual,
          "the type of y");
    CHECK_SHAPE(a->residual == NULL ||
                    (tensor_is_packed(a->residual) && is_matrix(a->residual, tensor_n_rows(a->y), tensor_n_cols(a->y))),
                "conv2d", a, residual, "the shape of y without gaps");
    return CYI_OK;
}

/* ---- Dispatch ---- */

static enum cyi_status run(struct exec *ex, enum op op, const void *args, struct cyi_error *err) {
    struct backend *backend = ex->backend;
    if (backend->vtable->supports != NULL && !backend->vtable->supports(backend, op, args)) {
        backend = ex->reference;
        ex->n_fallbacks++;
    }
    return backend->vtable->run(backend, op, args, err);
}

#define OP(ID, name)                                                                                                   \
    enum cyi_status op_##name(struct exec *ex, const struct name##_args *args, struct cyi_error *err) {                \
        enum cyi_status st = check_##name(args, err);                                                                  \
        return st != CYI_OK ? st : run(ex, OP_##ID, args, err);                                                        \
    }
#include "ops/ops.def"
#undef OP
