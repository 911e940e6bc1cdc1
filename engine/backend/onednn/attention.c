/* ATTENTION. A task is one head and one block of query rows. Keys come in chunks: their scores are one matrix product in F32, the
 * softmax keeps a running maximum and sum for every row, the probabilities are multiplied with the values in the type of the inputs.
 * Scratch is bounded by the block and the chunk, whatever the length. Keys that no row of a block may see are skipped. */
#include <math.h>

#include "backend/onednn/onednn.h"

#define Q_ROWS 128
#define KEY_CHUNK 2048

/* The two products of one block of rows with one chunk of keys. NULL: the block sees nothing of the chunk. */
struct products {
    const struct shim_op *scores, *values;
};

struct attention_job {
    const struct attention_args *a;
    struct tensor q, k, v; /* in the type that is multiplied */
    int64_t head_size, n_rows, n_blocks, chunk, n_chunks;
    struct products *products; /* [n_blocks][n_chunks] */
    size_t op_scratch;
};

/* One lane's scratch. */
struct block_scratch {
    void *op;
    float *scores;        /* [Q_ROWS, chunk] */
    void *probabilities;  /* [Q_ROWS, chunk] in the type of the inputs */
    float *part, *result; /* [Q_ROWS, head_size] of one chunk, of all so far */
    float *max, *sum;     /* [Q_ROWS] */
};

static struct block_scratch carve_block(const struct attention_job *job, struct carve *carve) {
    struct block_scratch s = { .op = carve_take(carve, 1, job->op_scratch) };
    s.scores = carve_take(carve, Q_ROWS * job->chunk, sizeof(float));
    s.probabilities = carve_take(carve, Q_ROWS * job->chunk, dtype_size(job->q.dtype));
    s.part = carve_take(carve, Q_ROWS * job->head_size, sizeof(float));
    s.result = carve_take(carve, Q_ROWS * job->head_size, sizeof(float));
    s.max = carve_take(carve, Q_ROWS, sizeof(float));
    s.sum = carve_take(carve, Q_ROWS, sizeof(float));
    return s;
}

/* How many keys a row sees. */
static int64_t get_n_visible(const struct attention_args *a, int64_t row) {
    return a->is_causal ? min_i64(row + 1, a->n_keys) : a->n_keys;
}

/* Rows of a block. */
static int64_t get_n_rows(const struct attention_job *job, int64_t block) {
    return min_i64(Q_ROWS, job->n_rows - block * Q_ROWS);
}

/* Keys of a chunk that a block multiplies. */
static int64_t get_n_keys(const struct attention_job *job, int64_t block, int64_t chunk) {
    int64_t last_row = block * Q_ROWS + get_n_rows(job, block) - 1;
    return min_i64(job->chunk, get_n_visible(job->a, last_row) - chunk * job->chunk);
}

/* Scores of a chunk into probabilities of one row: e^(score − running maximum), zero where the row sees nothing. Gives the factor by
 * which the row's older results shrink. */
static float soften_row(const struct attention_job *job, const struct block_scratch *s, const struct kernels *k,
                        int64_t i, int64_t n_visible, int64_t n_keys, bool is_first) {
    const float *scores = s->scores + i * job->chunk;
    size_t size = dtype_size(job->q.dtype);
    uint8_t *row = (uint8_t *)s->probabilities + (size_t)(i * job->chunk) * size;
    n_visible = max_i64(0, min_i64(n_visible, n_keys));
    memset(row + (size_t)n_visible * size, 0, (size_t)(n_keys - n_visible) * size);
    if (n_visible == 0) {
        return 1.0F;
    }
    float max = k->max(scores, n_visible);
    float factor = 0;
    if (!is_first) {
        max = max > s->max[i] ? max : s->max[i];
        factor = expf(job->a->scale * (s->max[i] - max));
    }
    float sum = k->exp_sum(scores, job->a->scale, max, job->q.dtype, row, n_visible);
    s->sum[i] = is_first ? sum : s->sum[i] * factor + sum;
    s->max[i] = max;
    return factor;
}

static enum cyi_status run_chunk(const struct attention_job *job, const struct block_scratch *s, struct lane *lane,
                                 int64_t head, int64_t block, int64_t chunk) {
    const struct products *products = &job->products[block * job->n_chunks + chunk];
    size_t size = dtype_size(job->q.dtype);
    size_t q_offset = (size_t)(head * job->head_size) * size;
    size_t kv_offset = (size_t)(head / (job->a->n_heads / job->a->n_kv_heads) * job->head_size) * size;
    int64_t first_key = chunk * job->chunk;
    const uint8_t *q = (const uint8_t *)tensor_row(&job->q, block * Q_ROWS) + q_offset;
    const uint8_t *k = (const uint8_t *)tensor_row(&job->k, first_key) + kv_offset;
    const uint8_t *v = (const uint8_t *)tensor_row(&job->v, first_key) + kv_offset;
    enum cyi_status st = shim_run(products->scores, lane->stream, q, k, s->scores, s->op, &lane->err);
    if (st != CYI_OK) {
        return st;
    }
    float factors[Q_ROWS];
    int64_t n_rows = get_n_rows(job, block);
    for (int64_t i = 0; i < n_rows; i++) {
        int64_t n_visible = get_n_visible(job->a, block * Q_ROWS + i) - first_key;
        factors[i] = soften_row(job, s, lane->kernels, i, n_visible, get_n_keys(job, block, chunk), chunk == 0);
    }
    float *to = chunk == 0 ? s->result : s->part;
    st = shim_run(products->values, lane->stream, s->probabilities, v, to, s->op, &lane->err);
    for (int64_t i = 0; i < n_rows && chunk > 0 && st == CYI_OK; i++) {
        lane->kernels->rescale_add(s->result + i * job->head_size, factors[i], s->part + i * job->head_size,
                                   job->head_size);
    }
    return st;
}

static enum cyi_status run_block(const void *context, int64_t task, struct lane *lane) {
    const struct attention_job *job = context;
    struct carve carve = { .at = lane->scratch };
    struct block_scratch s = carve_block(job, &carve);
    int64_t head = task / job->n_blocks;
    int64_t block = task % job->n_blocks;
    for (int64_t chunk = 0; chunk < job->n_chunks && get_n_keys(job, block, chunk) > 0; chunk++) {
        enum cyi_status st = run_chunk(job, &s, lane, head, block, chunk);
        if (st != CYI_OK) {
            return st;
        }
    }
    const struct tensor *out = job->a->out;
    for (int64_t i = 0; i < get_n_rows(job, block); i++) {
        float *row = s.result + i * job->head_size;
        uint8_t *to =
            (uint8_t *)tensor_row(out, block * Q_ROWS + i) + (size_t)(head * job->head_size) * dtype_size(out->dtype);
        lane->kernels->scale(row, 1.0F / s.sum[i], row, job->head_size);
        lane->kernels->store(out->dtype, row, to, job->head_size);
    }
    return CYI_OK;
}

/* ---- Preparing ---- */

static enum cyi_status prepare_product(struct onednn *b, struct attention_job *job, const struct shim_spec *spec,
                                       const struct shim_op **ret, struct cyi_error *err) {
    enum cyi_status st = onednn_prepare(b, spec, ret, err);
    if (st == CYI_OK) {
        size_t scratch = shim_op_get_scratch(*ret);
        job->op_scratch = scratch > job->op_scratch ? scratch : job->op_scratch;
    }
    return st;
}

static enum cyi_status prepare_block(struct onednn *b, struct attention_job *job, int64_t rows, int64_t keys,
                                     struct products *ret, struct cyi_error *err) {
    struct shim_spec scores = { .kind = SHIM_MATMUL, .weights = SHIM_NK, .plain = SHIM_NK, .out = DTYPE_F32 };
    scores.in = (int32_t)job->q.dtype;
    scores.m = rows;
    scores.n = keys;
    scores.k = job->head_size;
    scores.a_stride = job->q.row_stride;
    scores.b_stride = job->k.row_stride;
    scores.c_stride = job->chunk;
    struct shim_spec values = { .kind = SHIM_MATMUL, .weights = SHIM_KN, .plain = SHIM_KN, .out = DTYPE_F32 };
    values.in = (int32_t)job->q.dtype;
    values.m = rows;
    values.n = job->head_size;
    values.k = keys;
    values.a_stride = job->chunk;
    values.b_stride = job->v.row_stride;
    values.c_stride = job->head_size;
    enum cyi_status st = prepare_product(b, job, &scores, &ret->scores, err);
    return st != CYI_OK ? st : prepare_product(b, job, &values, &ret->values, err);
}

static enum cyi_status prepare_blocks(struct onednn *b, struct attention_job *job, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    for (int64_t block = 0; block < job->n_blocks && st == CYI_OK; block++) {
        for (int64_t chunk = 0; chunk < job->n_chunks && st == CYI_OK; chunk++) {
            struct products *products = &job->products[block * job->n_chunks + chunk];
            int64_t n_keys = get_n_keys(job, block, chunk);
            *products = (struct products){ 0 };
            if (n_keys > 0) {
                st = prepare_block(b, job, get_n_rows(job, block), n_keys, products, err);
            }
        }
    }
    return st;
}

/* The shared scratch: the table of products, and the inputs as F32 where bf16 cannot be multiplied fast. */
static enum cyi_status load_inputs(struct onednn *b, struct attention_job *job, struct cyi_error *err) {
    const struct attention_args *a = job->a;
    const struct tensor *inputs[3] = { a->q, a->k, a->v };
    struct tensor *outputs[3] = { &job->q, &job->k, &job->v };
    bool widens = a->q->dtype == DTYPE_BF16 && !b->has_fast_bf16;
    struct carve size = { 0 };
    (void)carve_take(&size, job->n_blocks * job->n_chunks, sizeof *job->products);
    for (int i = 0; i < 3 && widens; i++) {
        (void)carve_take(&size, tensor_n_elements(inputs[i]), sizeof(float));
    }
    enum cyi_status st = onednn_reserve(b, &b->shared, size.used_bytes, err);
    struct carve carve = { .at = b->shared.start };
    if (st == CYI_OK) {
        job->products = carve_take(&carve, job->n_blocks * job->n_chunks, sizeof *job->products);
    }
    for (int i = 0; i < 3 && st == CYI_OK; i++) {
        *outputs[i] = *inputs[i];
        if (widens) {
            st = onednn_widen(b, inputs[i], carve_take(&carve, tensor_n_elements(inputs[i]), sizeof(float)), outputs[i],
                              err);
        }
    }
    return st;
}

enum cyi_status onednn_attention(struct onednn *b, const struct attention_args *a, struct cyi_error *err) {
    struct attention_job job = { .a = a, .head_size = tensor_n_cols(a->q) / a->n_heads, .n_rows = tensor_n_rows(a->q) };
    job.n_blocks = divide_up(job.n_rows, Q_ROWS);
    job.n_chunks = divide_up(a->n_keys, KEY_CHUNK);
    job.chunk = divide_up(divide_up(a->n_keys, job.n_chunks), 64) * 64;
    enum cyi_status st;
    TRY(load_inputs(b, &job, err));
    TRY(prepare_blocks(b, &job, err));
    struct carve size = { 0 };
    (void)carve_block(&job, &size);
    TRY(onednn_run_tasks(b, a->n_heads * job.n_blocks, size.used_bytes, run_block, &job, err));
done:
    return st;
}
