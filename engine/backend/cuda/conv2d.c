/* CONV2D on the card: cuDNN convolves packed pictures with the same border on all sides, so everything else happens before and after.
 *   before   the folded norm, the activation, the enlargement, uneven borders, another type, channels that are no multiple of 8:
 *            gpu_gather_pixels into scratch, when one of them is needed
 *   after    another type, outputs that are no multiple of 8: gpu_finish_product out of scratch
 * BF16 pictures are convolved in BF16, F32 ones in true fp32. */
#include "backend/cuda/cuda.h"

#define CHANNEL_UNIT 8

struct conv_job {
    const struct conv2d_args *args;
    enum gpu_type type; /* of the convolution: the picture's */
    int64_t n_in, n_out;
    const void *x, *weight; /* channels rounded up */
    const float *bias;
    int64_t n_rows, n_cols; /* of x */
    int pad;
};

static int64_t round_up(int64_t n) {
    return (n + CHANNEL_UNIT - 1) / CHANNEL_UNIT * CHANNEL_UNIT;
}

static size_t size_of(enum gpu_type type) {
    return type == GPU_BF16 ? 2 : 4;
}

static bool is_pad_even(const struct conv2d_args *a) {
    return a->pad_top == a->pad_left && a->pad_top == a->pad_bottom && a->pad_top == a->pad_right;
}

/* The picture as the library takes it. */
static enum cyi_status prepare_picture(struct cuda *c, struct conv_job *job, struct cyi_error *err) {
    const struct conv2d_args *a = job->args;
    bool is_even = is_pad_even(a);
    job->x = a->x->data;
    job->n_rows = a->x->shape[0];
    job->n_cols = a->x->shape[1];
    job->pad = is_even ? a->pad_top : 0;
    if (a->scale == NULL && a->upsample == 1 && is_even && job->n_in == a->x->shape[2] &&
        (uintptr_t)a->x->data % 16 == 0) {
        return CYI_OK;
    }
    struct gpu_gather gather = { .x = a->x->data,
                                 .x_type = job->type,
                                 .y_type = job->type,
                                 .n_rows = job->n_rows,
                                 .n_cols = job->n_cols,
                                 .n_channels = a->x->shape[2],
                                 .y_channels = job->n_in,
                                 .scale = a->scale != NULL ? a->scale->data : NULL,
                                 .shift = a->shift != NULL ? a->shift->data : NULL,
                                 .act = a->scale == NULL             ? GPU_ACT_NONE
                                        : a->in_act == ACT_SILU      ? GPU_ACT_SILU
                                        : a->in_act == ACT_GELU_TANH ? GPU_ACT_GELU_TANH
                                                                     : GPU_ACT_NONE,
                                 .upsample = a->upsample };
    if (!is_even) {
        gather.pad_top = a->pad_top;
        gather.pad_left = a->pad_left;
        gather.pad_bottom = a->pad_bottom;
        gather.pad_right = a->pad_right;
    }
    job->n_rows = job->n_rows * a->upsample + gather.pad_top + gather.pad_bottom;
    job->n_cols = job->n_cols * a->upsample + gather.pad_left + gather.pad_right;
    size_t n_bytes = (size_t)job->n_rows * (size_t)job->n_cols * (size_t)job->n_in * size_of(job->type);
    enum cyi_status st = cuda_new_scratch(c, n_bytes, &gather.y, err);
    if (st == CYI_OK) {
        gpu_gather_pixels(&gather, c->stream);
        job->x = gather.y;
    }
    return st;
}

/* A copy with zeros behind it. NULL stays NULL. */
static enum cyi_status extend(struct cuda *c, const void **data, size_t n_bytes, size_t all_bytes,
                              struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    void *copy = NULL;
    if (*data == NULL || n_bytes == all_bytes) {
        return CYI_OK;
    }
    TRY(cuda_new_scratch(c, all_bytes, &copy, err));
    TRY(cuda_check(cudaMemcpyAsync(copy, *data, n_bytes, cudaMemcpyDeviceToDevice, c->stream), "a copy", err));
    TRY(cuda_check(cudaMemsetAsync((uint8_t *)copy + n_bytes, 0, all_bytes - n_bytes, c->stream), "a border", err));
    *data = copy;
done:
    return st;
}

static enum cyi_status prepare_weight(struct cuda *c, struct conv_job *job, struct cyi_error *err) {
    const struct tensor *weight = job->args->weight;
    enum cyi_status st = CYI_OK;
    struct device_weight w;
    size_t filter_bytes = (size_t)(weight->shape[2] * weight->shape[3] * job->n_in) * size_of(job->type);
    size_t n_out = (size_t)weight->shape[0];
    const void *bias;
    TRY(cuda_get_weight(c, weight, job->type == GPU_BF16 ? WEIGHT_CONV_BF16 : WEIGHT_CONV_F32, &w, err));
    TRY(cuda_get_floats(c, job->args->bias, &job->bias, err));
    job->weight = w.data;
    bias = job->bias;
    TRY(extend(c, &job->weight, n_out * filter_bytes, (size_t)job->n_out * filter_bytes, err));
    TRY(extend(c, &bias, n_out * sizeof(float), (size_t)job->n_out * sizeof(float), err));
    job->bias = bias;
done:
    return st;
}

static enum cyi_status convolve(struct cuda *c, const struct conv_job *job, const void *residual, void *y,
                                struct cyi_error *err) {
    const struct conv2d_args *a = job->args;
    return conv_run(c->conv,
                    &(struct conv_args){ .type = job->type,
                                         .n_rows = job->n_rows,
                                         .n_cols = job->n_cols,
                                         .n_in = job->n_in,
                                         .n_out = job->n_out,
                                         .kh = a->weight->shape[2],
                                         .kw = a->weight->shape[3],
                                         .pad = job->pad,
                                         .stride = a->stride,
                                         .x = job->x,
                                         .weight = job->weight,
                                         .bias = job->bias,
                                         .residual = residual,
                                         .y = y },
                    c->stream, err);
}

static bool is_result_direct(const struct conv_job *job) {
    const struct conv2d_args *a = job->args;
    return cuda_type(a->y->dtype) == job->type && job->n_out == a->y->shape[2] && (uintptr_t)a->y->data % 16 == 0 &&
           (a->residual == NULL || (uintptr_t)a->residual->data % 16 == 0);
}

enum cyi_status cuda_conv2d(struct cuda *c, const struct conv2d_args *a, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    void *y = NULL;
    struct conv_job job = { .args = a,
                            .type = cuda_type(a->x->dtype),
                            .n_in = round_up(a->x->shape[2]),
                            .n_out = round_up(a->weight->shape[0]) };
    TRY(prepare_weight(c, &job, err));
    TRY(prepare_picture(c, &job, err));
    if (is_result_direct(&job)) {
        return convolve(c, &job, a->residual != NULL ? a->residual->data : NULL, a->y->data, err);
    }
    struct gpu_matrix out = cuda_matrix(a->y);
    TRY(cuda_new_scratch(c, (size_t)out.n_rows * (size_t)job.n_out * size_of(job.type), &y, err));
    TRY(convolve(c, &job, NULL, y, err));
    struct gpu_matrix product = { y, job.type, out.n_rows, out.n_cols, job.n_out };
    struct gpu_matrix residual = { 0 };
    if (a->residual != NULL) {
        residual = cuda_matrix(a->residual);
    }
    gpu_finish_product(
        &(struct gpu_finish){ .product = &product, .residual = a->residual != NULL ? &residual : NULL, .y = &out },
        c->stream);
done:
    return st;
}
