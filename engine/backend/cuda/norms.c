/* LAYER_NORM, RMS_NORM, QK_NORM_ROPE and GROUP_NORM on the card. The norms write quantised twins for the products that read them. */
#include "backend/cuda/cuda.h"

static const float *floats_of(const struct tensor *t) {
    return t != NULL ? t->data : NULL;
}

enum cyi_status cuda_layer_norm(struct cuda *c, const struct layer_norm_args *args, struct cyi_error *err) {
    struct gpu_matrix x = cuda_matrix(args->x);
    struct gpu_matrix y = cuda_matrix(args->y);
    struct gpu_codes codes;
    const float *weight = NULL;
    const float *bias = NULL;
    enum cyi_status st = CYI_OK;
    TRY(cuda_get_floats(c, args->weight, &weight, err));
    TRY(cuda_get_floats(c, args->bias, &bias, err));
    cuda_new_codes(c, args->y, &codes);
    gpu_layer_norm(&x, weight, bias, floats_of(args->scale), floats_of(args->shift), args->eps, &y, &codes, c->stream);
done:
    return st;
}

enum cyi_status cuda_rms_norm(struct cuda *c, const struct rms_norm_args *args, struct cyi_error *err) {
    struct gpu_matrix x = cuda_matrix(args->x);
    struct gpu_matrix y = cuda_matrix(args->y);
    struct gpu_codes codes;
    const float *weight = NULL;
    enum cyi_status st = CYI_OK;
    TRY(cuda_get_floats(c, args->weight, &weight, err));
    cuda_new_codes(c, args->y, &codes);
    gpu_rms_norm(&x, weight, args->eps, &y, &codes, c->stream);
done:
    return st;
}

enum cyi_status cuda_qk_norm_rope(struct cuda *c, const struct qk_norm_rope_args *args, struct cyi_error *err) {
    struct gpu_matrix x = cuda_matrix(args->x);
    struct gpu_matrix y = cuda_matrix(args->y);
    const float *weight = NULL;
    enum cyi_status st = CYI_OK;
    TRY(cuda_get_floats(c, args->weight, &weight, err));
    gpu_qk_norm_rope(&x, weight, floats_of(args->cos), floats_of(args->sin),
                     args->cos != NULL ? args->cos->row_stride : 0, args->n_heads, args->eps,
                     args->pairs == ROPE_ADJACENT, &y, c->stream);
done:
    return st;
}

enum cyi_status cuda_group_norm(struct cuda *c, const struct group_norm_args *args, struct cyi_error *err) {
    struct gpu_matrix x = cuda_matrix(args->x);
    const float *weight = NULL;
    const float *bias = NULL;
    void *partial = NULL;
    enum cyi_status st = CYI_OK;
    TRY(cuda_get_floats(c, args->weight, &weight, err));
    TRY(cuda_get_floats(c, args->bias, &bias, err));
    TRY(cuda_new_scratch(c, gpu_group_norm_scratch(x.n_rows, x.n_cols), &partial, err));
    gpu_group_norm(&x, weight, bias, args->n_groups, args->eps, args->scale->data, args->shift->data, partial,
                   c->stream);
done:
    return st;
}
