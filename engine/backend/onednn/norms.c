/* Operations that need a whole row or picture first: layer_norm, rms_norm, qk_norm_rope, group_norm. */
#include <math.h>

#include "backend/onednn/onednn.h"

#define TASK_ELEMENTS 65536 /* about, in whole rows */
#define MOMENT_ROWS 256     /* rows whose sums are kept in F32 before they are added up in double */

/* ---- Norms of rows ---- */

struct norm_job {
    enum op op;
    const struct tensor *x, *y;
    const float *factor, *summand; /* layer norm; factor also the weight of an RMS norm */
    const struct qk_norm_rope_args *rope;
    float eps;
    int64_t rows_per_task;
};

static void turn_heads(const struct norm_job *job, int64_t row, float *values, const struct kernels *k) {
    const struct qk_norm_rope_args *a = job->rope;
    int64_t size = tensor_n_cols(a->x) / a->n_heads;
    for (int64_t head = 0; head < a->n_heads; head++) {
        float *one = values + head * size;
        if (a->weight != NULL) {
            k->rms_norm(one, job->factor, job->eps, one, size);
        }
        if (a->cos != NULL) {
            k->rope(one, tensor_row(a->cos, row), tensor_row(a->sin, row), a->pairs, size);
        }
    }
}

static enum cyi_status run_norm(const void *context, int64_t task, struct lane *lane) {
    const struct norm_job *job = context;
    const struct kernels *k = lane->kernels;
    float *values = (float *)(void *)lane->scratch;
    int64_t n = tensor_n_cols(job->x);
    int64_t end = min_i64((task + 1) * job->rows_per_task, tensor_n_rows(job->x));
    for (int64_t row = task * job->rows_per_task; row < end; row++) {
        k->load(job->x->dtype, tensor_row(job->x, row), values, n);
        if (job->op == OP_LAYER_NORM) {
            k->layer_norm(values, job->factor, job->summand, job->eps, values, n);
        } else if (job->op == OP_RMS_NORM) {
            k->rms_norm(values, job->factor, job->eps, values, n);
        } else {
            turn_heads(job, row, values, k);
        }
        k->store(job->y->dtype, values, tensor_row(job->y, row), n);
    }
    return CYI_OK;
}

static enum cyi_status run_job(struct onednn *b, struct norm_job *job, struct cyi_error *err) {
    int64_t n = tensor_n_cols(job->x);
    job->rows_per_task = max_i64(1, TASK_ELEMENTS / max_i64(1, n));
    return onednn_run_tasks(b, divide_up(tensor_n_rows(job->x), job->rows_per_task), (size_t)n * sizeof(float),
                            run_norm, job, err);
}

/* (n · weight + bias)(1 + scale) + shift as n · factor + summand. */
static void fold_layer_norm(const struct layer_norm_args *a, int64_t n, float *factor, float *summand) {
    for (int64_t i = 0; i < n; i++) {
        double weight = a->weight == NULL ? 1 : (double)tensor_get(a->weight, 0, i);
        double bias = a->bias == NULL ? 0 : (double)tensor_get(a->bias, 0, i);
        double scale = a->scale == NULL ? 1 : 1 + (double)tensor_get(a->scale, 0, i);
        double shift = a->shift == NULL ? 0 : (double)tensor_get(a->shift, 0, i);
        factor[i] = (float)(weight * scale);
        summand[i] = (float)(bias * scale + shift);
    }
}

enum cyi_status onednn_layer_norm(struct onednn *b, const struct layer_norm_args *a, struct cyi_error *err) {
    int64_t n = tensor_n_cols(a->x);
    enum cyi_status st = onednn_reserve(b, &b->shared, (size_t)n * 2 * sizeof(float), err);
    if (st != CYI_OK) {
        return st;
    }
    float *factor = (float *)(void *)b->shared.start;
    float *summand = factor + n;
    fold_layer_norm(a, n, factor, summand);
    struct norm_job job = { .op = OP_LAYER_NORM, .x = a->x, .y = a->y, .eps = a->eps };
    job.factor = a->weight == NULL && a->scale == NULL ? NULL : factor;
    job.summand = a->bias == NULL && a->shift == NULL ? NULL : summand;
    return run_job(b, &job, err);
}

/* The weight of an RMS norm as floats. */
static enum cyi_status load_weight(struct onednn *b, const struct tensor *weight, const float **ret,
                                   struct cyi_error *err) {
    struct carve carve = { 0 };
    (void)onednn_vector(b, weight, &carve);
    enum cyi_status st = onednn_reserve(b, &b->shared, carve.used_bytes, err);
    carve = (struct carve){ .at = b->shared.start };
    *ret = st == CYI_OK ? onednn_vector(b, weight, &carve) : NULL;
    return st;
}

enum cyi_status onednn_rms_norm(struct onednn *b, const struct rms_norm_args *a, struct cyi_error *err) {
    struct norm_job job = { .op = OP_RMS_NORM, .x = a->x, .y = a->y, .eps = a->eps };
    enum cyi_status st = load_weight(b, a->weight, &job.factor, err);
    return st != CYI_OK ? st : run_job(b, &job, err);
}

enum cyi_status onednn_qk_norm_rope(struct onednn *b, const struct qk_norm_rope_args *a, struct cyi_error *err) {
    struct norm_job job = { .op = OP_QK_NORM_ROPE, .x = a->x, .y = a->y, .eps = a->eps, .rope = a };
    enum cyi_status st = load_weight(b, a->weight, &job.factor, err);
    return st != CYI_OK ? st : run_job(b, &job, err);
}

/* ---- Group norm ---- */

/* Sums of x − pivot and its square for every channel, per task in double. The pivot (the first pixel) keeps the squares small, so
 * that nothing cancels when a channel lies far from zero. */
struct moment_job {
    const struct tensor *x;
    const float *pivot;
    double *sums; /* [n_tasks][2][C] */
    int64_t rows_per_task;
};

static enum cyi_status run_moments(const void *context, int64_t task, struct lane *lane) {
    const struct moment_job *job = context;
    int64_t c = tensor_n_cols(job->x);
    float *values = (float *)(void *)lane->scratch;
    float *part = values + c;
    double *sums = job->sums + task * 2 * c;
    memset(sums, 0, (size_t)(2 * c) * sizeof *sums);
    int64_t end = min_i64((task + 1) * job->rows_per_task, tensor_n_rows(job->x));
    for (int64_t first = task * job->rows_per_task; first < end; first += MOMENT_ROWS) {
        memset(part, 0, (size_t)(2 * c) * sizeof *part);
        for (int64_t row = first; row < min_i64(first + MOMENT_ROWS, end); row++) {
            lane->kernels->load(job->x->dtype, tensor_row(job->x, row), values, c);
            lane->kernels->moments(values, job->pivot, part, part + c, c);
        }
        for (int64_t i = 0; i < 2 * c; i++) {
            sums[i] += (double)part[i];
        }
    }
    return CYI_OK;
}

/* Mean and variance of one group out of the sums of its channels. */
static void get_group_moments(const double *sums, const float *pivot, int64_t n_channels, int64_t c, double n_rows,
                              double *mean, double *variance) {
    *mean = 0;
    for (int64_t i = 0; i < n_channels; i++) {
        *mean += ((double)pivot[i] + sums[i] / n_rows) / (double)n_channels;
    }
    *variance = 0;
    for (int64_t i = 0; i < n_channels; i++) {
        double d = sums[i] / n_rows;
        double off = (double)pivot[i] + d - *mean;
        *variance += (sums[c + i] / n_rows - d * d + off * off) / (double)n_channels;
    }
    if (*variance < 0) {
        *variance = 0;
    }
}

static void fold_group_norm(const struct group_norm_args *a, const double *sums, const float *pivot) {
    int64_t c = tensor_n_cols(a->x);
    int64_t n = c / a->n_groups;
    float *scale = a->scale->data;
    float *shift = a->shift->data;
    for (int64_t first = 0; first < c; first += n) {
        double mean;
        double variance;
        get_group_moments(sums + first, pivot + first, n, c, (double)tensor_n_rows(a->x), &mean, &variance);
        double inverse = 1 / sqrt(variance + (double)a->eps);
        for (int64_t i = first; i < first + n; i++) {
            double factor = inverse * (double)tensor_get(a->weight, 0, i);
            scale[i] = (float)factor;
            shift[i] = (float)((double)tensor_get(a->bias, 0, i) - mean * factor);
        }
    }
}

enum cyi_status onednn_group_norm(struct onednn *b, const struct group_norm_args *a, struct cyi_error *err) {
    int64_t c = tensor_n_cols(a->x);
    int64_t n_rows = tensor_n_rows(a->x);
    struct moment_job job = { .x = a->x, .rows_per_task = max_i64(MOMENT_ROWS, divide_up(n_rows, 64)) };
    int64_t n_tasks = divide_up(n_rows, job.rows_per_task);
    struct carve size = { 0 };
    (void)carve_take(&size, c, sizeof(float));
    (void)carve_take(&size, n_tasks * 2 * c, sizeof(double));
    enum cyi_status st = onednn_reserve(b, &b->shared, size.used_bytes, err);
    if (st != CYI_OK) {
        return st;
    }
    struct carve carve = { .at = b->shared.start };
    float *pivot = carve_take(&carve, c, sizeof(float));
    job.sums = carve_take(&carve, n_tasks * 2 * c, sizeof(double));
    job.pivot = pivot;
    b->kernels->load(a->x->dtype, a->x->data, pivot, c);
    st = onednn_run_tasks(b, n_tasks, (size_t)(3 * c) * sizeof(float), run_moments, &job, err);
    if (st != CYI_OK) {
        return st;
    }
    for (int64_t task = 1; task < n_tasks; task++) {
        for (int64_t i = 0; i < 2 * c; i++) {
            job.sums[i] += job.sums[task * 2 * c + i];
        }
    }
    fold_group_norm(a, job.sums, pivot);
    return CYI_OK;
}
