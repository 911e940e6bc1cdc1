/* LINEAR. The output is cut into a grid of tiles by the shapes alone. A task multiplies one tile on one thread into scratch that
 * stays in its cache and finishes it there (bias, activation, gate, residual, rounding); without anything to finish, the product
 * goes straight into y. A few rows are multiplied as vectors: then only reading the weights counts. */
#include "backend/onednn/onednn.h"

#define VECTOR_ROWS 4   /* up to so many rows of x go the way of vectors */
#define VECTOR_CHUNK 64 /* weight rows a task of that way */
#define N_CHUNK 256     /* columns of y a tile, at most */
#define M_CHUNK 768     /* rows of y a tile, at most: weights are repacked inside oneDNN once a tile */
#define MIN_CHUNK 64    /* tiles are cut down to this for more tasks */
#define ENOUGH_TASKS 16
#define SMALL_WORK (1 << 20) /* multiplications that are not worth a second task */

struct linear_job {
    const struct linear_args *a;
    struct tensor x; /* in the type that is multiplied; F32 for vectors */
    const float *bias, *gate;
    int64_t m, n, k;
    int64_t m_chunk, n_chunk, n_m; /* n_m: chunks of rows */
    int64_t m_per_task;            /* chunks of rows that one task does, one after the other */
    bool is_direct, expands;
    const struct shim_op *ops[2][2]; /* [last chunk of rows][last chunk of columns] */
    size_t op_scratch;
};

static bool is_aligned(const struct tensor *t) {
    return (uintptr_t)t->data % dtype_size(t->dtype) == 0;
}

static const uint8_t *weight_row(const struct linear_job *job, int64_t row) {
    return (const uint8_t *)job->a->weight->data + (size_t)(row * job->k) * dtype_size(job->a->weight->dtype);
}

static void finish_tile(const struct linear_job *job, const struct kernels *k, const float *tile, int64_t stride,
                        int64_t first_m, int64_t n_m, int64_t first_n, int64_t n_n) {
    const struct linear_args *a = job->a;
    size_t offset = (size_t)first_n * dtype_size(a->y->dtype);
    struct row_finish finish = { .act = a->act, .out = a->y->dtype };
    finish.bias = job->bias == NULL ? NULL : job->bias + first_n;
    finish.gate = job->gate == NULL ? NULL : job->gate + first_n;
    for (int64_t row = 0; row < n_m; row++) {
        finish.y = (uint8_t *)tensor_row(a->y, first_m + row) + offset;
        if (a->residual != NULL) {
            finish.residual = (const uint8_t *)tensor_row(a->residual, first_m + row) + offset;
        }
        k->finish(tile + row * stride, &finish, n_n);
    }
}

/* ---- A few rows ---- */

static enum cyi_status run_vectors(const void *context, int64_t task, struct lane *lane) {
    const struct linear_job *job = context;
    const struct kernels *k = lane->kernels;
    enum dtype dtype = job->a->weight->dtype;
    int64_t first = task * VECTOR_CHUNK;
    int64_t n = min_i64(VECTOR_CHUNK, job->n - first);
    float tile[VECTOR_ROWS * VECTOR_CHUNK];
    float *expanded = (float *)(void *)lane->scratch;
    if (dtype == DTYPE_BF16 || dtype == DTYPE_F32) {
        for (int64_t m = 0; m < job->m; m++) {
            k->dot_rows(dtype, tensor_row(&job->x, m), weight_row(job, first), (size_t)job->k * dtype_size(dtype), n,
                        job->k, tile + m * VECTOR_CHUNK);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            k->load(dtype, weight_row(job, first + i), expanded, job->k);
            for (int64_t m = 0; m < job->m; m++) {
                k->dot_rows(DTYPE_F32, tensor_row(&job->x, m), expanded, 0, 1, job->k, tile + m * VECTOR_CHUNK + i);
            }
        }
    }
    finish_tile(job, k, tile, VECTOR_CHUNK, 0, job->m, first, n);
    return CYI_OK;
}

/* ---- Tiles ---- */

/* Rows first … first + n of the weights in the type that is multiplied. */
static void expand_weights(const struct linear_job *job, const struct kernels *k, int64_t first, int64_t n,
                           uint8_t *expanded, float *row) {
    enum dtype from = job->a->weight->dtype;
    size_t row_bytes = (size_t)job->k * dtype_size(job->x.dtype);
    for (int64_t i = 0; i < n; i++) {
        uint8_t *to = expanded + (size_t)i * row_bytes;
        if (job->x.dtype == DTYPE_F32) {
            k->load(from, weight_row(job, first + i), (float *)(void *)to, job->k);
        } else if (from == DTYPE_BF16) {
            memcpy(to, weight_row(job, first + i), row_bytes);
        } else {
            k->load(from, weight_row(job, first + i), row, job->k);
            k->store(DTYPE_BF16, row, to, job->k);
        }
    }
}

/* One lane's scratch of run_tiles. */
struct tile_scratch {
    void *op;
    float *tile, *row;
    uint8_t *expanded;
};

static struct tile_scratch carve_tile(const struct linear_job *job, struct carve *carve) {
    struct tile_scratch s = { 0 };
    s.op = carve_take(carve, 1, job->op_scratch);
    if (!job->is_direct) {
        s.tile = carve_take(carve, job->m_chunk * job->n_chunk, sizeof(float));
    }
    if (job->expands) {
        s.row = carve_take(carve, job->k, sizeof(float));
        s.expanded = carve_take(carve, job->n_chunk * job->k, dtype_size(job->x.dtype));
    }
    return s;
}

static enum cyi_status run_tiles(const void *context, int64_t task, struct lane *lane) {
    const struct linear_job *job = context;
    struct carve carve = { .at = lane->scratch };
    struct tile_scratch s = carve_tile(job, &carve);
    int64_t groups = divide_up(job->n_m, job->m_per_task);
    int64_t first_n = task / groups * job->n_chunk;
    int64_t n_n = min_i64(job->n_chunk, job->n - first_n);
    const void *weights = weight_row(job, first_n);
    if (job->expands) {
        expand_weights(job, lane->kernels, first_n, n_n, s.expanded, s.row);
        weights = s.expanded;
    }
    int64_t first = task % groups * job->m_per_task;
    for (int64_t i = first; i < min_i64(first + job->m_per_task, job->n_m); i++) {
        int64_t first_m = i * job->m_chunk;
        int64_t n_m = min_i64(job->m_chunk, job->m - first_m);
        const struct shim_op *op = job->ops[n_m < job->m_chunk][n_n < job->n_chunk];
        void *to = s.tile;
        if (job->is_direct) {
            to = (uint8_t *)tensor_row(job->a->y, first_m) + (size_t)first_n * dtype_size(job->a->y->dtype);
        }
        enum cyi_status st = shim_run(op, lane->stream, tensor_row(&job->x, first_m), weights, to, s.op, &lane->err);
        if (st != CYI_OK) {
            return st;
        }
        if (!job->is_direct) {
            finish_tile(job, lane->kernels, s.tile, job->n_chunk, first_m, n_m, first_n, n_n);
        }
    }
    return CYI_OK;
}

/* The grid, from the shapes alone. */
static void choose_grid(struct linear_job *job) {
    int64_t parts = divide_up(job->m, M_CHUNK);
    job->m_chunk = min_i64(divide_up(divide_up(job->m, parts), 32) * 32, job->m);
    job->n_chunk = min_i64(N_CHUNK, job->n);
    bool is_small = job->m * job->n * job->k < SMALL_WORK;
    while (!is_small && divide_up(job->m, job->m_chunk) * divide_up(job->n, job->n_chunk) < ENOUGH_TASKS) {
        if (job->m_chunk > N_CHUNK) {
            job->m_chunk = divide_up(job->m_chunk / 2, 32) * 32;
        } else if (job->n_chunk > MIN_CHUNK) {
            job->n_chunk = max_i64(job->n_chunk / 2, MIN_CHUNK);
        } else if (job->m_chunk > MIN_CHUNK) {
            job->m_chunk = max_i64(job->m_chunk / 2, MIN_CHUNK);
        } else {
            break;
        }
    }
    job->n_m = divide_up(job->m, job->m_chunk);
    job->m_per_task = job->expands ? job->n_m : 1;
}

static enum cyi_status prepare_tiles(struct onednn *b, struct linear_job *job, struct cyi_error *err) {
    int64_t last_m = job->m - (job->n_m - 1) * job->m_chunk;
    int64_t last_n = job->n - (divide_up(job->n, job->n_chunk) - 1) * job->n_chunk;
    for (int i = 0; i < 4; i++) {
        struct shim_spec spec = { .kind = SHIM_MATMUL, .weights = SHIM_NK, .plain = SHIM_NK };
        spec.in = (int32_t)job->x.dtype;
        spec.out = job->is_direct ? (int32_t)job->a->y->dtype : DTYPE_F32;
        spec.m = i / 2 == 1 ? last_m : job->m_chunk;
        spec.n = i % 2 == 1 ? last_n : job->n_chunk;
        spec.k = job->k;
        spec.a_stride = job->x.row_stride;
        spec.b_stride = job->k;
        spec.c_stride = job->is_direct ? job->a->y->row_stride : job->n_chunk;
        enum cyi_status st = onednn_prepare(b, &spec, &job->ops[i / 2][i % 2], err);
        if (st != CYI_OK) {
            return st;
        }
        size_t scratch = shim_op_get_scratch(job->ops[i / 2][i % 2]);
        job->op_scratch = scratch > job->op_scratch ? scratch : job->op_scratch;
    }
    return CYI_OK;
}

static enum cyi_status multiply_tiles(struct onednn *b, struct linear_job *job, struct cyi_error *err) {
    const struct linear_args *a = job->a;
    bool can_round =
        job->x.dtype == a->y->dtype || a->y->dtype == DTYPE_F32; /* the library rounds no F32 product to BF16 */
    job->is_direct = can_round && job->bias == NULL && job->gate == NULL && a->act == ACT_NONE && a->residual == NULL;
    job->expands = a->weight->dtype != job->x.dtype || !is_aligned(a->weight);
    choose_grid(job);
    enum cyi_status st = prepare_tiles(b, job, err);
    if (st != CYI_OK) {
        return st;
    }
    struct carve size = { 0 };
    (void)carve_tile(job, &size);
    int64_t n_tasks = divide_up(job->n, job->n_chunk) * divide_up(job->n_m, job->m_per_task);
    return onednn_run_tasks(b, n_tasks, size.used_bytes, run_tiles, job, err);
}

/* ---- Both ways ---- */

/* Bias, gate and, where x must be F32 and is not, x: into shared scratch. */
static enum cyi_status load_inputs(struct onednn *b, struct linear_job *job, bool widens, struct cyi_error *err) {
    struct carve size = { 0 };
    (void)onednn_vector(b, job->a->bias, &size);
    (void)onednn_vector(b, job->a->gate, &size);
    if (widens) {
        (void)carve_take(&size, job->m * job->k, sizeof(float));
    }
    enum cyi_status st = onednn_reserve(b, &b->shared, size.used_bytes, err);
    if (st != CYI_OK) {
        return st;
    }
    struct carve carve = { .at = b->shared.start };
    job->bias = onednn_vector(b, job->a->bias, &carve);
    job->gate = onednn_vector(b, job->a->gate, &carve);
    job->x = *job->a->x;
    return widens ? onednn_widen(b, job->a->x, carve_take(&carve, job->m * job->k, sizeof(float)), &job->x, err)
                  : CYI_OK;
}

enum cyi_status onednn_linear(struct onednn *b, const struct linear_args *a, struct cyi_error *err) {
    struct linear_job job = {
        .a = a, .m = tensor_n_rows(a->x), .n = tensor_n_rows(a->weight), .k = tensor_n_cols(a->x)
    };
    bool is_vectors = job.m <= VECTOR_ROWS;
    bool widens = a->x->dtype == DTYPE_BF16 && (is_vectors || !b->has_fast_bf16);
    enum cyi_status st = load_inputs(b, &job, widens, err);
    if (st != CYI_OK || job.m == 0) {
        return st;
    }
    if (is_vectors) {
        return onednn_run_tasks(b, divide_up(job.n, VECTOR_CHUNK), (size_t)job.k * sizeof(float), run_vectors, &job,
                                err);
    }
    return multiply_tiles(b, &job, err);
}
