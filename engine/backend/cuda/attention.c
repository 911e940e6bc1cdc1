/* ATTENTION on the card: the fused kernel where it fits; else by products, a block of rows at a time:
 *   scores = q kᵀ for all heads, their softmax, out = p v.
 * Heads are the batch of the products. Heads that share keys and values are taken in turn, so that every product of a batch has a
 * key head of its own. */
#include "backend/cuda/cuda.h"

#define BLOCK_BYTES ((size_t)256 << 20) /* scores and probabilities of a block of rows, at most */
#define ROW_UNIT 128
#define ALIGN_ELEMENTS 8 /* rows of BF16 that start at multiples of 16 bytes */

struct attention {
    const struct attention_args *args;
    struct gpu_matrix q, k, v, out;
    int64_t head_size, n_cols; /* a row of scores, with padding */
    enum gpu_type type;        /* of q, k, v and the probabilities */
    float *scores;             /* [H, rows, n_cols] */
    void *p;                   /* likewise */
};

static int64_t min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t max_i64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static size_t size_of(enum gpu_type type) {
    return type == GPU_BF16 ? 2 : 4;
}

static void *at(void *data, enum gpu_type type, int64_t element) {
    return (uint8_t *)data + (size_t)element * size_of(type);
}

/* Does the library take it as it lies? */
static bool is_aligned(const struct gpu_matrix *m) {
    return (uintptr_t)m->data % 16 == 0 && m->row_stride % ALIGN_ELEMENTS == 0;
}

/* The matrix as packed F32. */
static enum cyi_status widen(struct cuda *c, struct gpu_matrix *m, struct cyi_error *err) {
    struct gpu_matrix wide = { NULL, GPU_F32, m->n_rows, m->n_cols, m->n_cols };
    enum cyi_status st = cuda_new_scratch(c, (size_t)m->n_rows * (size_t)m->n_cols * sizeof(float), &wide.data, err);
    if (st == CYI_OK) {
        gpu_cast(m, &wide, c->stream);
        *m = wide;
    }
    return st;
}

/* Places of BF16 that the library may refuse are computed in F32. */
static enum cyi_status choose_type(struct cuda *c, struct attention *a, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    a->type = a->q.type;
    if (a->type == GPU_F32 || (a->head_size % ALIGN_ELEMENTS == 0 && is_aligned(&a->q) && is_aligned(&a->k) &&
                               is_aligned(&a->v) && is_aligned(&a->out))) {
        return CYI_OK;
    }
    a->type = GPU_F32;
    TRY(widen(c, &a->q, err));
    TRY(widen(c, &a->k, err));
    TRY(widen(c, &a->v, err));
done:
    return st;
}

/* Rows of a block. */
static int64_t choose_rows(const struct attention *a) {
    size_t bytes = (size_t)a->args->n_heads * (size_t)a->n_cols * (sizeof(float) + size_of(a->type));
    int64_t n = (int64_t)(BLOCK_BYTES / bytes);
    n = n > ROW_UNIT ? n / ROW_UNIT * ROW_UNIT : n;
    return min_i64(max_i64(n, 1), a->q.n_rows);
}

/* One turn of heads: head `turn` of every group. */
static struct gemm_args score_product(const struct attention *a, int64_t turn, int64_t first, int64_t n,
                                      int64_t n_keys) {
    int64_t group = a->args->n_heads / a->args->n_kv_heads;
    return (struct gemm_args){ .type = a->type,
                               .y_type = GPU_F32,
                               .m = n,
                               .n = n_keys,
                               .k = a->head_size,
                               .n_batch = a->args->n_kv_heads,
                               .x = at(a->q.data, a->type, first * a->q.row_stride + turn * a->head_size),
                               .w = a->k.data,
                               .x_stride = a->q.row_stride,
                               .w_stride = a->k.row_stride,
                               .x_batch = group * a->head_size,
                               .w_batch = a->head_size,
                               .y = a->scores + turn * n * a->n_cols,
                               .y_stride = a->n_cols,
                               .y_batch = group * n * a->n_cols };
}

static struct gemm_args value_product(const struct attention *a, const struct gpu_matrix *out, int64_t turn, int64_t n,
                                      int64_t n_keys) {
    int64_t group = a->args->n_heads / a->args->n_kv_heads;
    return (struct gemm_args){ .type = a->type,
                               .y_type = out->type,
                               .m = n,
                               .n = a->head_size,
                               .k = n_keys,
                               .n_batch = a->args->n_kv_heads,
                               .x = at(a->p, a->type, turn * n * a->n_cols),
                               .w = a->v.data,
                               .is_w_kn = true,
                               .x_stride = a->n_cols,
                               .w_stride = a->v.row_stride,
                               .x_batch = group * n * a->n_cols,
                               .w_batch = a->head_size,
                               .y = at(out->data, out->type, turn * a->head_size),
                               .y_stride = out->row_stride,
                               .y_batch = group * a->head_size };
}

/* out: rows first … first + n of the result. */
static enum cyi_status attend_rows(struct cuda *c, const struct attention *a, int64_t first, int64_t n,
                                   const struct gpu_matrix *out, struct cyi_error *err) {
    const struct attention_args *args = a->args;
    int64_t group = args->n_heads / args->n_kv_heads;
    int64_t n_keys = args->is_causal ? min_i64(args->n_keys, first + n) : args->n_keys;
    enum cyi_status st = CYI_OK;
    for (int64_t turn = 0; turn < group; turn++) {
        struct gemm_args product = score_product(a, turn, first, n, n_keys);
        TRY(gemm_run(c->gemm, &product, c->stream, err));
    }
    gpu_softmax_rows(&(struct gpu_softmax){ .scores = a->scores,
                                            .n_matrices = args->n_heads,
                                            .n_rows = n,
                                            .n_cols = a->n_cols,
                                            .n_keys = n_keys,
                                            .first_row = first,
                                            .is_causal = args->is_causal,
                                            .scale = args->scale,
                                            .p = a->p,
                                            .p_type = a->type },
                     c->stream);
    for (int64_t turn = 0; turn < group; turn++) {
        struct gemm_args product = value_product(a, out, turn, n, n_keys);
        TRY(gemm_run(c->gemm, &product, c->stream, err));
    }
done:
    return st;
}

/* Blocks of rows. F32 inputs make F32 rows first when the result is BF16. */
static enum cyi_status run_products(struct cuda *c, struct attention *a, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    void *scores = NULL;
    void *rows = NULL;
    TRY(choose_type(c, a, err));
    a->n_cols = (a->args->n_keys + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
    int64_t step = choose_rows(a);
    size_t n_scores = (size_t)a->args->n_heads * (size_t)step * (size_t)a->n_cols;
    bool has_cast = a->type == GPU_F32 && a->out.type == GPU_BF16;
    TRY(cuda_new_scratch(c, n_scores * sizeof(float), &scores, err));
    TRY(cuda_new_scratch(c, n_scores * size_of(a->type), &a->p, err));
    a->scores = scores;
    if (has_cast) {
        TRY(cuda_new_scratch(c, (size_t)step * (size_t)a->out.n_cols * sizeof(float), &rows, err));
    }
    for (int64_t first = 0; first < a->q.n_rows; first += step) {
        int64_t n = min_i64(step, a->q.n_rows - first);
        struct gpu_matrix out = a->out;
        out.data = at(out.data, out.type, first * out.row_stride);
        out.n_rows = n;
        struct gpu_matrix wide = { rows, GPU_F32, n, out.n_cols, out.n_cols };
        TRY(attend_rows(c, a, first, n, has_cast ? &wide : &out, err));
        if (has_cast) {
            gpu_cast(&wide, &out, c->stream);
        }
    }
done:
    return st;
}

enum cyi_status cuda_attention(struct cuda *c, const struct attention_args *args, struct cyi_error *err) {
    struct attention a = { .args = args,
                           .q = cuda_matrix(args->q),
                           .k = cuda_matrix(args->k),
                           .v = cuda_matrix(args->v),
                           .out = cuda_matrix(args->out) };
    a.head_size = a.q.n_cols / args->n_heads;
    struct gpu_attention fused = { .q = a.q,
                                   .k = a.k,
                                   .v = a.v,
                                   .out = a.out,
                                   .n_heads = args->n_heads,
                                   .n_kv_heads = args->n_kv_heads,
                                   .n_keys = args->n_keys,
                                   .is_causal = args->is_causal,
                                   .scale = args->scale };
    if (a.q.type == GPU_BF16 && a.out.type == GPU_BF16 && gpu_attention_fits(&fused)) {
        gpu_attention_run(&fused, c->stream);
        return CYI_OK;
    }
    return run_products(c, &a, err);
}
