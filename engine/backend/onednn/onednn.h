/* The fast CPU backend's insides: what its files share.
 *
 * OpenMP is the only pool of threads. Every operation is cut into tasks by its shapes alone, and each task does all of its work on
 * one thread, matrix products included: so the result cannot depend on the number of threads. A lane is what one thread needs. */
#ifndef BACKEND_ONEDNN_ONEDNN_H
#define BACKEND_ONEDNN_ONEDNN_H

#include "backend/backend.h"
#include "backend/onednn/kernels.h"
#include "backend/onednn/shim.h"

/* Memory that only grows, 64-byte aligned. */
struct block {
    void *raw;
    uint8_t *start;
    size_t size_bytes;
};

struct lane {
    const struct kernels *kernels;
    struct shim_stream *stream;
    uint8_t *scratch; /* as much as the operation asked for */
    struct block block;
    struct cyi_error err;
};

/* A prepared operation by its specification. */
struct prepared {
    struct shim_spec spec;
    struct shim_op *op;
};

/* Weights of a convolution in the layout that the library likes. The fingerprint notices when other weights have moved to the same
 * address. */
struct packed_weights {
    const void *source;
    enum dtype dtype;
    uint64_t fingerprint;
    const struct shim_op *op; /* whose layout it is */
    struct block block;
};

struct onednn {
    struct backend base;
    const struct cyi_allocator *allocator;
    const struct kernels *kernels;
    struct shim *shim;
    bool has_fast_bf16;
    int n_threads;
    struct lane *lanes;  /* [n_threads] */
    struct block shared; /* one operation's scratch that all lanes see */
    struct prepared *prepared;
    size_t n_prepared, prepared_capacity;
    struct packed_weights *packed;
    size_t n_packed, packed_capacity;
    size_t held_bytes, peak_bytes;
};

/* ---- Memory (lanes.c) ---- */

enum cyi_status onednn_reserve(struct onednn *b, struct block *block, size_t size_bytes, struct cyi_error *err);
void onednn_release(struct onednn *b, struct block *block);
/* Room for one more element in a growing array. */
enum cyi_status onednn_grow(struct onednn *b, void **array, size_t *capacity, size_t n, size_t element_bytes,
                            struct cyi_error *err);

/* Pieces of one stretch of scratch: first summed up (at NULL), then handed out in the same order. */
struct carve {
    uint8_t *at;
    size_t used_bytes;
};
/* n × size_bytes, 64-byte aligned; NULL while summing up. */
void *carve_take(struct carve *carve, int64_t n, size_t size_bytes);

/* ---- Tasks (lanes.c) ---- */

typedef enum cyi_status (*onednn_task_fn)(const void *context, int64_t task, struct lane *lane);

/* Runs tasks 0 … n − 1 on all threads. Every lane has scratch_bytes of scratch. The first failure ends the rest. */
enum cyi_status onednn_run_tasks(struct onednn *b, int64_t n_tasks, size_t scratch_bytes, onednn_task_fn fn,
                                 const void *context, struct cyi_error *err);

/* The prepared operation of a specification, made on first use. */
enum cyi_status onednn_prepare(struct onednn *b, const struct shim_spec *spec, const struct shim_op **ret_op,
                               struct cyi_error *err);

/* ---- Vectors ---- */

/* The values of an optional vector as floats: where they are, or converted into a piece of `carve`. */
const float *onednn_vector(const struct onednn *b, const struct tensor *t, struct carve *carve);

/* x as F32 [rows, columns] at `values`, by a cast on all threads. */
enum cyi_status onednn_widen(struct onednn *b, const struct tensor *x, float *values, struct tensor *ret,
                             struct cyi_error *err);

/* ---- Operations, one or a family to a file ---- */

enum cyi_status onednn_linear(struct onednn *b, const struct linear_args *a, struct cyi_error *err);
enum cyi_status onednn_attention(struct onednn *b, const struct attention_args *a, struct cyi_error *err);
enum cyi_status onednn_conv2d(struct onednn *b, const struct conv2d_args *a, struct cyi_error *err);
enum cyi_status onednn_layer_norm(struct onednn *b, const struct layer_norm_args *a, struct cyi_error *err);
enum cyi_status onednn_rms_norm(struct onednn *b, const struct rms_norm_args *a, struct cyi_error *err);
enum cyi_status onednn_qk_norm_rope(struct onednn *b, const struct qk_norm_rope_args *a, struct cyi_error *err);
enum cyi_status onednn_group_norm(struct onednn *b, const struct group_norm_args *a, struct cyi_error *err);
enum cyi_status onednn_swiglu(struct onednn *b, const struct swiglu_args *a, struct cyi_error *err);
enum cyi_status onednn_silu(struct onednn *b, const struct silu_args *a, struct cyi_error *err);
enum cyi_status onednn_add(struct onednn *b, const struct add_args *a, struct cyi_error *err);
enum cyi_status onednn_cast(struct onednn *b, const struct cast_args *a, struct cyi_error *err);
enum cyi_status onednn_embed(struct onednn *b, const struct embed_args *a, struct cyi_error *err);
enum cyi_status onednn_channel_affine(struct onednn *b, const struct channel_affine_args *a, struct cyi_error *err);

static inline int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static inline int64_t min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t max_i64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

#endif
