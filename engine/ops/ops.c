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

enum cyi_status exec_report_block(struct exec *ex, int64_t n_done, int64_t n_all, struct cyi_error *err) {
    if (ex->on_block != NULL && !ex->on_block(ex->user, (float)n_done / (float)n_all)) {
        return error_set(err, CYI_E_CANCELLED, "cancelled");
    }
    return CYI_OK;
}

void exec_observe(struct exec *ex, const char *stage, int index, const struct tensor *value) {
    if (ex->observe == NULL) {
        return;
    }
    char name[96];
    const char *mark = strstr(stage, "%d");
    if (mark == NULL) {
        (void)snprintf(name, sizeof name, "%s", stage);
    } else {
        (void)snprintf(name, sizeof name, "%.*s%d%s", (int)(mark - stage), stage, index, mark + 2);
    }
    ex->observe(ex->observe_user, name, value);
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

/* A vector of n elements; optional ones may be NULL. */
static bool is_vector(const struct tensor *t, int64_t n, bool only_f32) {
    return t == NULL || (tensor_n_elements(t) == n && tensor_is_packed(t) && is_weight(t) &&
                         (!only_f32 || t->dtype == DTYPE_F32));
}

static bool is_matrix(const struct tensor *t, int64_t n_rows, int64_t n_cols) {
    return t != NULL && tensor_n_rows(t) == n_rows && tensor_n_cols(t) == n_cols;
}

static bool is_act_matrix(const struct tensor *t, int64_t n_rows, int64_t n_cols) {
    return is_matrix(t, n_rows, n_cols) && is_act(t);
}

#define CHECK(condition, op, args, field, need)                                                                        \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            return bad(err, CYI_E_SHAPE, op, #field, (args)->field, need);                                             \
        }                                                                                                              \
    } while (0)

static enum cyi_status check_linear(const struct linear_args *a, struct cyi_error *err) {
    CHECK(is_act(a->x), "linear", a, x, "F32 or BF16");
    int64_t m = tensor_n_rows(a->x);
    int64_t k = tensor_n_cols(a->x);
    int64_t n = tensor_n_rows(a->weight);
    CHECK(is_weight(a->weight) && tensor_n_cols(a->weight) == k && tensor_is_packed(a->weight), "linear", a, weight,
          "[N, K] of a floating type, K as in x");
    CHECK(is_vector(a->bias, n, false), "linear", a, bias, "[N]");
    CHECK(is_vector(a->gate, n, true), "linear", a, gate, "[N] F32");
    CHECK(is_act_matrix(a->y, m, n), "linear", a, y, "[M, N] F32 or BF16");
    CHECK(a->residual == NULL || (is_matrix(a->residual, m, n) && a->residual->dtype == a->y->dtype), "linear", a, residual,
          "[M, N] in the type of y");
    return CYI_OK;
}

static enum cyi_status check_layer_norm(const struct layer_norm_args *a, struct cyi_error *err) {
    CHECK(is_act(a->x), "layer_norm", a, x, "F32 or BF16");
    int64_t d = tensor_n_cols(a->x);
    CHECK(is_vector(a->weight, d, false), "layer_norm", a, weight, "[D]");
    CHECK(is_vector(a->bias, d, false), "layer_norm", a, bias, "[D]");
    CHECK(is_vector(a->scale, d, true), "layer_norm", a, scale, "[D] F32");
    CHECK(is_vector(a->shift, d, true), "layer_norm", a, shift, "[D] F32");
    CHECK(is_act_matrix(a->y, tensor_n_rows(a->x), d), "layer_norm", a, y, "the shape of x, F32 or BF16");
    return CYI_OK;
}

static enum cyi_status check_rms_norm(const struct rms_norm_args *a, struct cyi_error *err) {
    CHECK(is_act(a->x), "rms_norm", a, x, "F32 or BF16");
    CHECK(a->weight != NULL && is_vector(a->weight, tensor_n_cols(a->x), false), "rms_norm", a, weight, "[D]");
    CHECK(is_act_matrix(a->y, tensor_n_rows(a->x), tensor_n_cols(a->x)), "rms_norm", a, y, "the shape of x, F32 or BF16");
    return CYI_OK;
}

static enum cyi_status check_qk_norm_rope(const struct qk_norm_rope_args *a, struct cyi_error *err) {
    CHECK(is_act(a->x) && a->n_heads > 0 && tensor_n_cols(a->x) % a->n_heads == 0, "qk_norm_rope", a, x,
          "[S, H·K] F32 or BF16");
    int64_t s = tensor_n_rows(a->x);
    int64_t k = tensor_n_cols(a->x) / a->n_heads;
    CHECK(is_vector(a->weight, k, false), "qk_norm_rope", a, weight, "[K]");
    CHECK(a->cos == NULL || (k % 2 == 0 && is_matrix(a->cos, s, k / 2) && a->cos->dtype == DTYPE_F32), "qk_norm_rope", a, cos,
          "[S, K/2] F32");
    CHECK((a->sin == NULL) == (a->cos == NULL) &&
              (a->sin == NULL || (is_matrix(a->sin, s, k / 2) && a->sin->dtype == DTYPE_F32)),
          "qk_norm_rope", a, sin, "[S, K/2] F32, present with cos");
    CHECK(is_act_matrix(a->y, s, tensor_n_cols(a->x)), "qk_norm_rope", a, y, "the shape of x, F32 or BF16");
    return CYI_OK;
}

static enum cyi_status check_attention(const struct attention_args *a, struct cyi_error *err) {
    CHECK(a->n_heads > 0 && a->n_kv_heads > 0 && a->n_heads % a->n_kv_heads == 0 && is_act(a->q) &&
              tensor_n_cols(a->q) % a->n_heads == 0,
          "attention", a, q, "[S, H·K] F32 or BF16, H a multiple of Hkv");
    int64_t s = tensor_n_rows(a->q);
    int64_t kv_cols = tensor_n_cols(a->q) / a->n_heads * a->n_kv_heads;
    CHECK(a->k != NULL && tensor_n_cols(a->k) == kv_cols && a->k->dtype == a->q->dtype, "attention", a, k,
          "[R, Hkv·K] in the type of q");
    int64_t r = tensor_n_rows(a->k);
    CHECK(is_matrix(a->v, r, kv_cols) && a->v->dtype == a->q->dtype, "attention", a, v, "the shape and type of k");
    CHECK(a->n_keys >= 1 && a->n_keys <= r && (!a->is_causal || s == r), "attention", a, k,
          "1 ≤ n_keys ≤ R rows, as many as q when causal");
    CHECK(is_act_matrix(a->out, s, tensor_n_cols(a->q)), "attention", a, out, "the shape of q, F32 or BF16");
    return CYI_OK;
}

static enum cyi_status check_swiglu(const struct swiglu_args *a, struct cyi_error *err) {
    CHECK(is_act(a->gate), "swiglu", a, gate, "F32 or BF16");
    CHECK(is_act_matrix(a->up, tensor_n_rows(a->gate), tensor_n_cols(a->gate)), "swiglu", a, up, "the shape of gate");
    CHECK(is_act_matrix(a->y, tensor_n_rows(a->gate), tensor_n_cols(a->gate)), "swiglu", a, y, "the shape of gate");
    return CYI_OK;
}

static enum cyi_status check_silu(const struct silu_args *a, struct cyi_error *err) {
    CHECK(is_act(a->x), "silu", a, x, "F32 or BF16");
    CHECK(is_act_matrix(a->y, tensor_n_rows(a->x), tensor_n_cols(a->x)), "silu", a, y, "the shape of x");
    return CYI_OK;
}

static enum cyi_status check_add(const struct add_args *a, struct cyi_error *err) {
    CHECK(is_act(a->a), "add", a, a, "F32 or BF16");
    CHECK(is_act_matrix(a->b, tensor_n_rows(a->a), tensor_n_cols(a->a)), "add", a, b, "the shape of a");
    CHECK(is_act_matrix(a->y, tensor_n_rows(a->a), tensor_n_cols(a->a)), "add", a, y, "the shape of a");
    return CYI_OK;
}

static enum cyi_status check_cast(const struct cast_args *a, struct cyi_error *err) {
    CHECK(is_weight(a->x), "cast", a, x, "a floating type");
    CHECK(is_act_matrix(a->y, tensor_n_rows(a->x), tensor_n_cols(a->x)), "cast", a, y, "the shape of x, F32 or BF16");
    return CYI_OK;
}

static enum cyi_status check_embed(const struct embed_args *a, struct cyi_error *err) {
    CHECK(a->ids->dtype == DTYPE_I32 && tensor_is_packed(a->ids), "embed", a, ids, "[S] I32");
    CHECK(is_weight(a->table) && tensor_is_packed(a->table), "embed", a, table, "[V, D] of a floating type");
    int64_t n = tensor_n_elements(a->ids);
    CHECK(is_act_matrix(a->y, n, tensor_n_cols(a->table)), "embed", a, y, "[S, D] F32 or BF16");
    const int32_t *ids = a->ids->data;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= tensor_n_rows(a->table)) {
            return error_set(err, CYI_E_SHAPE, "embed: token id %" PRId32 " at position %" PRId64 " is outside the table of %" PRId64 " rows",
                             ids[i], i, tensor_n_rows(a->table));
        }
    }
    return CYI_OK;
}

static enum cyi_status check_group_norm(const struct group_norm_args *a, struct cyi_error *err) {
    CHECK(is_act(a->x) && tensor_is_packed(a->x), "group_norm", a, x, "[Y, X, C] F32 or BF16, packed");
    int64_t c = tensor_n_cols(a->x);
    CHECK(a->n_groups > 0 && c % a->n_groups == 0, "group_norm", a, x, "channels that the groups divide");
    CHECK(a->weight != NULL && is_vector(a->weight, c, false), "group_norm", a, weight, "[C]");
    CHECK(a->bias != NULL && is_vector(a->bias, c, false), "group_norm", a, bias, "[C]");
    CHECK(a->scale != NULL && is_vector(a->scale, c, true), "group_norm", a, scale, "[C] F32");
    CHECK(a->shift != NULL && is_vector(a->shift, c, true), "group_norm", a, shift, "[C] F32");
    return CYI_OK;
}

static enum cyi_status check_channel_affine(const struct channel_affine_args *a, struct cyi_error *err) {
    CHECK(is_act(a->x), "channel_affine", a, x, "F32 or BF16");
    int64_t c = tensor_n_cols(a->x);
    CHECK(a->scale != NULL && is_vector(a->scale, c, true), "channel_affine", a, scale, "[C] F32");
    CHECK(a->shift != NULL && is_vector(a->shift, c, true), "channel_affine", a, shift, "[C] F32");
    CHECK(is_act_matrix(a->y, tensor_n_rows(a->x), c), "channel_affine", a, y, "the shape of x, F32 or BF16");
    return CYI_OK;
}

static enum cyi_status check_conv2d(const struct conv2d_args *a, struct cyi_error *err) {
    CHECK(is_act(a->x) && a->x->rank == 3 && tensor_is_packed(a->x), "conv2d", a, x, "[Y, X, C] F32 or BF16, packed");
    int64_t c = a->x->shape[2];
    CHECK(is_vector(a->scale, c, true), "conv2d", a, scale, "[C] F32");
    CHECK((a->shift == NULL) == (a->scale == NULL) && is_vector(a->shift, c, true), "conv2d", a, shift,
          "[C] F32, present with scale");
    CHECK(is_weight(a->weight) && a->weight->rank == 4 && a->weight->shape[1] == c && tensor_is_packed(a->weight), "conv2d", a,
          weight, "[O, C, kh, kw] of a floating type, C as in x");
    CHECK(is_vector(a->bias, a->weight->shape[0], false), "conv2d", a, bias, "[O]");
    CHECK((a->upsample == 1 || a->upsample == 2) && (a->stride == 1 || a->stride == 2), "conv2d", a, x,
          "upsample and stride of 1 or 2");
    int64_t rows = a->x->shape[0] * a->upsample + a->pad_top + a->pad_bottom - a->weight->shape[2];
    int64_t cols = a->x->shape[1] * a->upsample + a->pad_left + a->pad_right - a->weight->shape[3];
    CHECK(rows >= 0 && cols >= 0, "conv2d", a, x, "a picture that the kernel fits into");
    CHECK(a->y != NULL && is_act(a->y) && a->y->rank == 3 && tensor_is_packed(a->y) && a->y->shape[0] == rows / a->stride + 1 &&
              a->y->shape[1] == cols / a->stride + 1 && a->y->shape[2] == a->weight->shape[0],
          "conv2d", a, y, "[Y', X', O] F32 or BF16, packed");
    CHECK(a->residual == NULL || (a->residual->dtype == a->y->dtype && tensor_is_packed(a->residual) &&
                                  is_matrix(a->residual, tensor_n_rows(a->y), tensor_n_cols(a->y))),
          "conv2d", a, residual, "the shape and type of y");
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
