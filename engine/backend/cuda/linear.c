/* LINEAR on the card, by the first way that fits:
 *   a few rows          gpu_vector_product, which reads the weight once and does everything
 *   8-bit codes         of both sides, where the precision asks for it
 *   one library call    with bias, gate and residual, when the library can
 *   two calls           the product into scratch, then gpu_finish_product
 *   odd sizes           that the library refuses: gpu_vector_product again
 * BF16 rows meet the weight in BF16, F32 rows meet it in F32 and are multiplied in true fp32. */
#include "backend/cuda/cuda.h"

#define FEW_ROWS 8
#define CODE_UNIT 16 /* 8-bit products want sizes that are multiples of this */

/* The arguments as the card sees them. */
struct linear {
    const struct linear_args *args;
    int64_t m, n, k;
    struct gpu_matrix x, y, residual;
    const float *bias, *gate;
};

static enum gpu_act to_act(enum activation act) {
    return act == ACT_SILU ? GPU_ACT_SILU : act == ACT_GELU_TANH ? GPU_ACT_GELU_TANH : GPU_ACT_NONE;
}

static const struct gpu_matrix *residual_of(const struct linear *l) {
    return l->args->residual != NULL ? &l->residual : NULL;
}

/* x wᵀ alone, into y of a type and stride. */
static struct gemm_args plain_product(const struct linear *l, const void *w, void *y, enum gpu_type y_type,
                                      int64_t y_stride) {
    return (struct gemm_args){ .type = l->x.type,
                               .y_type = y_type,
                               .m = l->m,
                               .n = l->n,
                               .k = l->k,
                               .n_batch = 1,
                               .x = l->x.data,
                               .w = w,
                               .x_stride = l->x.row_stride,
                               .w_stride = l->k,
                               .y = y,
                               .y_stride = y_stride };
}

/* The product with all that follows it but the activation, straight into y. */
static struct gemm_args with_everything(const struct linear *l, struct gemm_args product) {
    product.y = l->y.data;
    product.y_type = l->y.type;
    product.y_stride = l->y.row_stride;
    product.bias = l->bias;
    product.gate = l->gate;
    if (l->args->residual != NULL) {
        product.residual = l->residual.data;
        product.residual_stride = l->residual.row_stride;
    }
    return product;
}

static void finish(const struct linear *l, void *product, enum gpu_type type, const float *row_scale,
                   const float *col_scale, cudaStream_t stream) {
    struct gpu_matrix matrix = { product, type, l->m, l->n, l->n };
    gpu_finish_product(&(struct gpu_finish){ .product = &matrix,
                                             .row_scale = row_scale,
                                             .col_scale = col_scale,
                                             .bias = l->bias,
                                             .gate = l->gate,
                                             .residual = residual_of(l),
                                             .act = to_act(l->args->act),
                                             .y = &l->y },
                       stream);
}

static enum cyi_status new_product(struct cuda *c, const struct linear *l, size_t element_bytes, void **ret,
                                   struct cyi_error *err) {
    return cuda_new_scratch(c, (size_t)l->m * (size_t)l->n * element_bytes, ret, err);
}

/* ---- A few rows, or odd ones ---- */

static enum cyi_status run_vector(struct cuda *c, const struct linear *l, struct cyi_error *err) {
    enum dtype stored = l->args->weight->dtype;
    bool is_bf16_exact = stored == DTYPE_BF16 || stored == DTYPE_F8_E4M3 || stored == DTYPE_F8_E5M2;
    enum weight_form form = l->x.type == GPU_BF16 || is_bf16_exact ? WEIGHT_BF16 : WEIGHT_F32;
    struct device_weight w;
    enum cyi_status st = cuda_get_weight(c, l->args->weight, form, &w, err);
    if (st != CYI_OK) {
        return st;
    }
    gpu_vector_product(&(struct gpu_vector_product){ .x = &l->x,
                                                     .w = w.data,
                                                     .w_type = form == WEIGHT_BF16 ? GPU_BF16 : GPU_F32,
                                                     .bias = l->bias,
                                                     .gate = l->gate,
                                                     .residual = residual_of(l),
                                                     .act = to_act(l->args->act),
                                                     .y = &l->y },
                       c->stream);
    return CYI_OK;
}

/* ---- 8-bit codes ---- */

static bool wants_codes(const struct cuda *c, const struct linear *l) {
    return l->args->is_tolerant && c->products != BACKEND_PRODUCTS_PLAIN && l->k % CODE_UNIT == 0 &&
           l->n % CODE_UNIT == 0;
}

/* The rows of x as codes: the twin that their maker wrote, or new ones. */
static enum cyi_status get_codes(struct cuda *c, const struct linear *l, struct gpu_codes *ret, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    void *data = NULL;
    void *scale = NULL;
    cuda_find_codes(c, l->args->x, ret);
    if (ret->data != NULL) {
        return CYI_OK;
    }
    TRY(cuda_new_scratch(c, (size_t)l->m * (size_t)l->k, &data, err));
    TRY(cuda_new_scratch(c, (size_t)l->m * sizeof(float), &scale, err));
    *ret = (struct gpu_codes){ data, scale, cuda_code_type(c) };
    gpu_quantise_rows(&l->x, ret, c->stream);
done:
    return st;
}

/* FP8: the library applies the factors, and whatever else it can; else the product alone is its part. */
static enum cyi_status run_fp8(struct cuda *c, const struct linear *l, const struct gemm_args *codes, bool *ret_is_done,
                               struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct gemm_args all = with_everything(l, *codes);
    void *product = NULL;
    *ret_is_done = true;
    if (l->args->act == ACT_NONE && gemm_can(c->gemm, &all)) {
        return gemm_run(c->gemm, &all, c->stream, err);
    }
    TRY(new_product(c, l, sizeof(float), &product, err));
    struct gemm_args scaled = *codes;
    scaled.y = product;
    scaled.y_stride = l->n;
    scaled.y_type = GPU_BF16;
    if (gemm_can(c->gemm, &scaled)) {
        TRY(gemm_run(c->gemm, &scaled, c->stream, err));
        finish(l, product, GPU_BF16, NULL, NULL, c->stream);
        goto done;
    }
    struct gemm_args bare = scaled;
    bare.x_scale = NULL;
    bare.w_scale = NULL;
    bare.y_type = GPU_F32;
    *ret_is_done = gemm_can(c->gemm, &bare);
    if (*ret_is_done) {
        TRY(gemm_run(c->gemm, &bare, c->stream, err));
        finish(l, product, GPU_F32, codes->x_scale, codes->w_scale, c->stream);
    }
done:
    return st;
}

static enum cyi_status run_int8(struct cuda *c, const struct linear *l, const struct gemm_args *codes,
                                bool *ret_is_done, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct gemm_args product = *codes;
    product.x_scale = NULL;
    product.w_scale = NULL;
    product.y_type = GPU_I32;
    product.y_stride = l->n;
    TRY(new_product(c, l, sizeof(int32_t), &product.y, err));
    *ret_is_done = gemm_can(c->gemm, &product);
    if (*ret_is_done) {
        TRY(gemm_run(c->gemm, &product, c->stream, err));
        finish(l, product.y, GPU_I32, codes->x_scale, codes->w_scale, c->stream);
    }
done:
    return st;
}

static enum cyi_status run_codes(struct cuda *c, const struct linear *l, bool *ret_is_done, struct cyi_error *err) {
    bool is_fp8 = c->products == BACKEND_PRODUCTS_FP8;
    enum cyi_status st = CYI_OK;
    struct gpu_codes x;
    struct device_weight w;
    TRY(cuda_get_weight(c, l->args->weight, is_fp8 ? WEIGHT_FP8 : WEIGHT_INT8, &w, err));
    TRY(get_codes(c, l, &x, err));
    struct gemm_args codes = plain_product(l, w.data, NULL, l->y.type, l->y.row_stride);
    codes.type = x.type;
    codes.x = x.data;
    codes.x_stride = l->k;
    codes.x_scale = x.scale;
    codes.w_scale = w.scale;
    TRY(is_fp8 ? run_fp8(c, l, &codes, ret_is_done, err) : run_int8(c, l, &codes, ret_is_done, err));
done:
    return st;
}

/* ---- Plain products ---- */

static enum cyi_status run_product(struct cuda *c, const struct linear *l, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct device_weight w;
    void *product = NULL;
    TRY(cuda_get_weight(c, l->args->weight, l->x.type == GPU_BF16 ? WEIGHT_BF16 : WEIGHT_F32, &w, err));
    struct gemm_args all = with_everything(l, plain_product(l, w.data, l->y.data, l->y.type, l->y.row_stride));
    if (l->args->act == ACT_NONE && gemm_can(c->gemm, &all)) {
        return gemm_run(c->gemm, &all, c->stream, err);
    }
    /* What is tolerant may be rounded once more, and then half as many bytes travel. */
    enum gpu_type type = l->args->is_tolerant && l->x.type == GPU_BF16 ? GPU_BF16 : GPU_F32;
    TRY(new_product(c, l, type == GPU_BF16 ? 2 : 4, &product, err));
    struct gemm_args plain = plain_product(l, w.data, product, type, l->n);
    if (!gemm_can(c->gemm, &plain)) {
        return run_vector(c, l, err);
    }
    TRY(gemm_run(c->gemm, &plain, c->stream, err));
    finish(l, product, type, NULL, NULL, c->stream);
done:
    return st;
}

enum cyi_status cuda_linear(struct cuda *c, const struct linear_args *args, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    bool is_done = false;
    struct linear l = { .args = args, .x = cuda_matrix(args->x), .y = cuda_matrix(args->y) };
    l.m = l.x.n_rows;
    l.k = l.x.n_cols;
    l.n = l.y.n_cols;
    if (args->residual != NULL) {
        l.residual = cuda_matrix(args->residual);
    }
    TRY(cuda_get_floats(c, args->bias, &l.bias, err));
    l.gate = args->gate != NULL ? args->gate->data : NULL;
    if (l.m <= FEW_ROWS) {
        return run_vector(c, &l, err);
    }
    if (wants_codes(c, &l)) {
        TRY(run_codes(c, &l, &is_done, err));
    }
    if (!is_done) {
        TRY(run_product(c, &l, err));
    }
done:
    return st;
}
