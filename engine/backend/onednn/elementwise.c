/* Operations that treat every element alone: swiglu, silu, add, cast, embed, channel_affine. A task is a stretch of rows; each row
 * passes through buffers that stay in the first cache, a block of columns at a time. */
#include "backend/onednn/onednn.h"

#define COLUMNS 1024        /* of a block */
#define TASK_ELEMENTS 65536 /* about, in whole rows */

/* One operation over [M, D]. Unused inputs are NULL. */
struct rows_job {
    enum op op;
    const struct tensor *a, *b, *y;
    const float *scale, *shift;
    const struct tensor *ids;
    enum activation act;
    int64_t rows_per_task;
};

static const void *element(const struct tensor *t, int64_t row, int64_t col) {
    return (const uint8_t *)tensor_row(t, row) + (size_t)col * dtype_size(t->dtype);
}

/* Columns first … first + n of one row. */
static void run_block(const struct rows_job *job, int64_t row, int64_t first, int64_t n, const struct kernels *k) {
    float a[COLUMNS];
    float b[COLUMNS];
    int64_t row_a = job->ids == NULL ? row : ((const int32_t *)job->ids->data)[row];
    k->load(job->a->dtype, element(job->a, row_a, first), a, n);
    switch (job->op) {
    case OP_SWIGLU:
        k->load(job->b->dtype, element(job->b, row, first), b, n);
        k->swiglu(a, b, a, n);
        break;
    case OP_ADD:
        k->load(job->b->dtype, element(job->b, row, first), b, n);
        k->add(a, b, a, n);
        break;
    case OP_SILU:
        k->activate(ACT_SILU, a, a, n);
        break;
    case OP_CHANNEL_AFFINE:
        k->affine(a, job->scale + first, job->shift + first, job->act, a, n);
        break;
    default: /* cast and embed only convert */
        break;
    }
    k->store(job->y->dtype, a, (uint8_t *)tensor_row(job->y, row) + (size_t)first * dtype_size(job->y->dtype), n);
}

static enum cyi_status run_rows(const void *context, int64_t task, struct lane *lane) {
    const struct rows_job *job = context;
    int64_t n_cols = tensor_n_cols(job->y);
    int64_t end = min_i64((task + 1) * job->rows_per_task, tensor_n_rows(job->y));
    for (int64_t row = task * job->rows_per_task; row < end; row++) {
        for (int64_t col = 0; col < n_cols; col += COLUMNS) {
            run_block(job, row, col, min_i64(COLUMNS, n_cols - col), lane->kernels);
        }
    }
    return CYI_OK;
}

static enum cyi_status run_job(struct onednn *b, struct rows_job *job, struct cyi_error *err) {
    job->rows_per_task = max_i64(1, TASK_ELEMENTS / max_i64(1, tensor_n_cols(job->y)));
    return onednn_run_tasks(b, divide_up(tensor_n_rows(job->y), job->rows_per_task), 0, run_rows, job, err);
}

enum cyi_status onednn_swiglu(struct onednn *b, const struct swiglu_args *a, struct cyi_error *err) {
    return run_job(b, &(struct rows_job){ .op = OP_SWIGLU, .a = a->gate, .b = a->up, .y = a->y }, err);
}

enum cyi_status onednn_silu(struct onednn *b, const struct silu_args *a, struct cyi_error *err) {
    return run_job(b, &(struct rows_job){ .op = OP_SILU, .a = a->x, .y = a->y }, err);
}

enum cyi_status onednn_add(struct onednn *b, const struct add_args *a, struct cyi_error *err) {
    return run_job(b, &(struct rows_job){ .op = OP_ADD, .a = a->a, .b = a->b, .y = a->y }, err);
}

enum cyi_status onednn_cast(struct onednn *b, const struct cast_args *a, struct cyi_error *err) {
    return run_job(b, &(struct rows_job){ .op = OP_CAST, .a = a->x, .y = a->y }, err);
}

enum cyi_status onednn_widen(struct onednn *b, const struct tensor *x, float *values, struct tensor *ret,
                             struct cyi_error *err) {
    *ret = tensor_2d(DTYPE_F32, tensor_n_rows(x), tensor_n_cols(x), values);
    return onednn_cast(b, &(struct cast_args){ .x = x, .y = ret }, err);
}

enum cyi_status onednn_embed(struct onednn *b, const struct embed_args *a, struct cyi_error *err) {
    return run_job(b, &(struct rows_job){ .op = OP_EMBED, .a = a->table, .ids = a->ids, .y = a->y }, err);
}

enum cyi_status onednn_channel_affine(struct onednn *b, const struct channel_affine_args *a, struct cyi_error *err) {
    struct rows_job job = { .op = OP_CHANNEL_AFFINE, .a = a->x, .y = a->y, .act = a->act };
    job.scale = a->scale->data;
    job.shift = a->shift->data;
    return run_job(b, &job, err);
}
