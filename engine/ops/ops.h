/* Operations: the grain at which the engine computes, coarse enough that fusion pays inside one operation.
 *
 * Matrices are tensors [rows, columns] (higher ranks count their outer dimensions as rows) and may be column views unless an
 * argument says "packed". "act" types are F32 and BF16; arithmetic and accumulation are fp32 or better in every backend, and a BF16
 * result is rounded once, at the end. Weights may have any floating type (F32 F16 BF16 F8_E4M3 F8_E5M2) and any alignment.
 * Outputs never overlap inputs unless an argument says so.
 *
 * Activations (everything that an operation makes) are data of the exec that runs it; a backend may keep them in memory that the host
 * cannot read. Weights, biases and tables are host memory, as they lie in their files.
 *
 * Errors of every operation: SHAPE, DTYPE (caught here before a backend runs), MEMORY (scratch), and what the backend reports.
 * Threads: one operation at a time per exec. Results do not depend on the number of threads. */
#ifndef OPS_OPS_H
#define OPS_OPS_H

#include "core/tensor.h"

enum op {
#define OP(ID, name) OP_##ID,
#include "ops/ops.def"
#undef OP
    N_OPS
};

enum activation { ACT_NONE, ACT_SILU, ACT_GELU_TANH };

/* y = residual + gate · act(x Wᵀ + bias)
 *   x [M, K] act    weight [N, K] any, packed    bias [N] any or NULL    gate [N] F32 or NULL (1)
 *   residual [M, N], the type of y, or NULL (0); may be y itself    y [M, N] act */
struct linear_args {
    const struct tensor *x, *weight, *bias, *gate, *residual;
    enum activation act;
    bool is_tolerant; /* a product inside a block: may be computed with 8-bit codes where the precision asks for it */
    struct tensor *y;
};

/* y = LN(x) · weight + bias, then · (1 + scale) + shift; LN over the columns, biased variance
 *   x [M, D] act    weight, bias, scale, shift [D] or NULL: weight and bias any type, scale and shift F32    y [M, D] act */
struct layer_norm_args {
    const struct tensor *x, *weight, *bias, *scale, *shift;
    float eps;
    struct tensor *y;
};

/* y = x · rsqrt(mean(x²) + eps) · weight     x [M, D] act    weight [D] any    y [M, D] act, may be x */
struct rms_norm_args {
    const struct tensor *x, *weight;
    float eps;
    struct tensor *y;
};

enum rope_pairs {
    ROPE_ADJACENT, /* (2j, 2j + 1): the FLUX transformers */
    ROPE_HALVES    /* (j, j + K/2): Qwen3 with Hugging Face's weight order */
};

/* Every head of every token: RMS norm over K (when weight is given), then rotation by the token's angles (when cos is given):
 *   o_a = x_a cos − x_b sin, o_b = x_b cos + x_a sin for the pair (a, b) number j
 *   x [S, H·K] act    weight [K] any or NULL    cos, sin [S, K/2] F32 or NULL    y [S, H·K] act, may be x */
struct qk_norm_rope_args {
    const struct tensor *x, *weight, *cos, *sin;
    int64_t n_heads;
    float eps;
    enum rope_pairs pairs;
    struct tensor *y;
};

/* Scaled dot-product attention. Head h of q looks at head h / (n_heads / n_kv_heads) of k and v.
 *   q [S, H·K]    k, v [R, Hkv·K]    out [S, H·K]; q, k, v of one act type, out act
 *   n_keys    : keys that may be seen at all, the first n_keys rows; 1 … R
 *   is_causal : row i sees keys 0 … i only (needs S == R); a row always sees at least key 0
 * Never holds more scores than a block of rows. */
struct attention_args {
    const struct tensor *q, *k, *v;
    int64_t n_heads, n_kv_heads;
    int64_t n_keys;
    bool is_causal;
    float scale; /* usually 1/sqrt(K) */
    struct tensor *out;
};

/* y = silu(gate) · up     gate, up [M, F] act (often column views of one matrix)    y [M, F] act, may be gate or up */
struct swiglu_args {
    const struct tensor *gate, *up;
    struct tensor *y;
};

/* y = x · sigmoid(x)     x, y [M, D] act, may be the same */
struct silu_args {
    const struct tensor *x;
    struct tensor *y;
};

/* y = a + b     all [M, D] act; y may be a or b */
struct add_args {
    const struct tensor *a, *b;
    struct tensor *y;
};

/* y = x in another type (or another stride)     x [M, D] any    y [M, D] act */
struct cast_args {
    const struct tensor *x;
    struct tensor *y;
};

/* y[i] = table[ids[i]]     ids [S] I32 (0 ≤ id < V, checked), host memory in every backend    table [V, D] any    y [S, D] act */
struct embed_args {
    const struct tensor *ids, *table;
    struct tensor *y;
};

/* The statistics of a group norm, folded with its weight into one factor and one summand a channel:
 *   GN(x)[…, c] = x[…, c] · scale[c] + shift[c]
 *   x [Y, X, C] act, packed    weight, bias [C] any    n_groups divides C    scale, shift [C] F32 */
struct group_norm_args {
    const struct tensor *x, *weight, *bias;
    int64_t n_groups;
    float eps;
    struct tensor *scale, *shift;
};

/* y = act(x · scale + shift) per column     x [M, C] act    scale, shift [C] F32    y [M, C] act, may be x */
struct channel_affine_args {
    const struct tensor *x, *scale, *shift;
    enum activation act;
    struct tensor *y;
};

/* y = conv(upsample(act(x · scale + shift))) + bias + residual
 * The affine part (a folded group norm) and the activation apply when scale is given, before padding: padding is zero after them.
 *   x [Y, X, C] act, packed    scale, shift [C] F32, both or none    upsample: 1, or 2 (nearest neighbour)
 *   weight [O, C, kh, kw] any, packed    bias [O] any or NULL    stride 1 or 2
 *   y [Y', X', O] act, packed, Y' = (upsample·Y + pad_top + pad_bottom − kh) / stride + 1, X' likewise
 *   residual as y, or NULL; may be y itself */
struct conv2d_args {
    const struct tensor *x, *scale, *shift, *weight, *bias, *residual;
    enum activation in_act;
    int upsample, stride;
    int pad_top, pad_left, pad_bottom, pad_right;
    struct tensor *y;
};

union op_args {
#define OP(ID, name) struct name##_args name;
#include "ops/ops.def"
#undef OP
};

struct backend;

/* Where operations run: one picture's worth of context. Owned by the pipeline; models and nn pass it on. */
struct exec {
    struct backend *backend;
    struct backend *reference; /* does what backend does not support */
    struct arena *arena;       /* host memory of the current job */
    struct arena *device;      /* activations of a backend with memory of its own; NULL: they are in `arena`, too */
    enum dtype act_dtype;      /* what matrix inputs are stored as: F32 or BF16 */
    uint64_t n_fallbacks;      /* operations that went to reference although backend is another */
    bool is_recording;         /* between exec_begin_recording and exec_end_recording */
    const struct cyi_allocator *allocator;
    /* Asked after every block with the part of the current phase that is done, 0…1. false: cancel. NULL: never cancel. */
    bool (*on_block)(void *user, float fraction);
    void *user;
    /* Shown every stage that the goldens record, by the golden's name. NULL: nobody looks. */
    void (*observe)(void *user, const char *stage, const struct tensor *value);
    void *observe_user;
};

/* ---- Memory of operations (exec.c). On host backends it is the host's own: then nothing is copied and nothing waits. ---- */

/* New data for operations, not initialised, packed. Errors: MEMORY. */
enum cyi_status exec_new(struct exec *ex, enum dtype dtype, int rank, const int64_t *shape, struct tensor *ret,
                         struct cyi_error *err);
enum cyi_status exec_new_2d(struct exec *ex, enum dtype dtype, int64_t n_rows, int64_t n_cols, struct tensor *ret,
                            struct cyi_error *err);
/* What the host wrote, where operations read it: `host` itself, or a copy that does not change with it. */
enum cyi_status exec_send(struct exec *ex, const struct tensor *host, struct tensor *ret, struct cyi_error *err);
/* Where operations write what the host will read: `host` itself, or new data of the same shape. exec_receive fetches it; it waits for
 * all operations before it. */
enum cyi_status exec_mirror(struct exec *ex, const struct tensor *host, struct tensor *ret, struct cyi_error *err);
enum cyi_status exec_receive(struct exec *ex, const struct tensor *from, const struct tensor *host,
                             struct cyi_error *err);

/* What exec_new and the host arena handed out since the mark is free again. */
struct exec_mark {
    struct arena_mark host, device;
};
struct exec_mark exec_get_mark(const struct exec *ex);
void exec_release(struct exec *ex, struct exec_mark mark);
void exec_trim(struct exec *ex);

/* What follows reads the weights of one model part and no others. */
void exec_enter(struct exec *ex);

/* Operations that are called again and again with the same arguments, addresses included. key: a hash of them all. When *ret_is_replayed
 * they have been done already; else they must be called, and exec_end_recording after them whatever came of them (st). *ret_is_lost:
 * nothing of them has been done, begin again. */
enum cyi_status exec_begin_recording(struct exec *ex, uint64_t key, bool *ret_is_replayed, struct cyi_error *err);
enum cyi_status exec_end_recording(struct exec *ex, enum cyi_status st, bool *ret_is_lost, struct cyi_error *err);

/* ---- What the pipeline hears ---- */

/* Shows a stage to the observer, if there is one. The name is a format for at most one index: "step0.double.%d.text".
 * exec_observe takes data of operations, exec_observe_host what the host can read. */
void exec_observe(struct exec *ex, const char *stage, int index, const struct tensor *value);
void exec_observe_host(struct exec *ex, const char *stage, int index, const struct tensor *value);

/* CYI_E_CANCELLED when on_block says so. Every few blocks it waits for the device, so that a cancelled picture ends soon. */
enum cyi_status exec_report_block(struct exec *ex, int64_t n_done, int64_t n_all, struct cyi_error *err);

const char *op_name(enum op op);

/* op_linear(ex, &(struct linear_args){ … }, err) and so on: checks shapes and types, then runs on the backend. */
#define OP(ID, name) enum cyi_status op_##name(struct exec *ex, const struct name##_args *args, struct cyi_error *err);
#include "ops/ops.def"
#undef OP

#endif
