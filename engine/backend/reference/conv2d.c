/* CONV2D of the reference backend: direct, with the channels innermost in the picture and in a copy of the weights. */
#include "backend/reference/reference.h"

/* The arguments, with the inputs as packed floats. */
struct conv {
    const struct conv2d_args *args;
    int64_t n_in, n_out, kernel_rows, kernel_cols;
    const float *x;      /* [Y, X, C], the affine part and the activation done */
    const float *weight; /* [O, kh, kw, C] */
};

static void activate_input(const struct reference *ref, const struct conv2d_args *a, float *x) {
    int64_t c = a->x->shape[2];
    int64_t n = tensor_n_rows(a->x);
#pragma omp parallel for num_threads(reference_n_threads(ref, n *c))
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < c; j++) {
            double value = (double)x[i * c + j] * reference_get(a->scale, j, 1.0) + reference_get(a->shift, j, 0.0);
            x[i * c + j] = (float)reference_activate(a->in_act, value);
        }
    }
}

/* [O, C, kh, kw] of any type into [O, kh, kw, C] of floats. */
static void repack_weight(const struct reference *ref, const struct tensor *weight, float *packed) {
    int64_t n_in = weight->shape[1];
    int64_t n_taps = weight->shape[2] * weight->shape[3];
#pragma omp parallel for num_threads(reference_n_threads(ref, tensor_n_elements(weight)))
    for (int64_t o = 0; o < weight->shape[0]; o++) {
        for (int64_t c = 0; c < n_in; c++) {
            for (int64_t t = 0; t < n_taps; t++) {
                packed[(o * n_taps + t) * n_in + c] =
                    dtype_load(weight->dtype, weight->data, (o * n_in + c) * n_taps + t);
            }
        }
    }
}

/* All channels of one output pixel. */
static void convolve_pixel(const struct conv *conv, int64_t row, int64_t col) {
    const struct conv2d_args *a = conv->args;
    int64_t pixel = row * a->y->shape[1] + col;
    int64_t x_cols = a->x->shape[1];
    for (int64_t o = 0; o < conv->n_out; o++) {
        double sum = reference_get(a->bias, o, 0.0);
        for (int64_t ky = 0; ky < conv->kernel_rows; ky++) {
            int64_t y = row * a->stride + ky - a->pad_top;
            if (y < 0 || y >= a->x->shape[0] * a->upsample) {
                continue;
            }
            for (int64_t kx = 0; kx < conv->kernel_cols; kx++) {
                int64_t x = col * a->stride + kx - a->pad_left;
                if (x < 0 || x >= x_cols * a->upsample) {
                    continue;
                }
                const float *in = conv->x + (y / a->upsample * x_cols + x / a->upsample) * conv->n_in;
                const float *weight =
                    conv->weight + ((o * conv->kernel_rows + ky) * conv->kernel_cols + kx) * conv->n_in;
                sum += reference_dot(in, weight, conv->n_in);
            }
        }
        if (a->residual != NULL) {
            sum += reference_get(a->residual, pixel * conv->n_out + o, 0.0);
        }
        reference_put(a->y, pixel, o, sum);
    }
}

enum cyi_status reference_conv2d(struct reference *ref, const struct conv2d_args *a, struct cyi_error *err) {
    float *x = NULL;
    float *weight = NULL;
    enum cyi_status st;
    TRY(reference_copy_matrix(ref, a->x, &x, err));
    TRY(reference_new_floats(ref, tensor_n_elements(a->weight), &weight, err));
    if (a->scale != NULL) {
        activate_input(ref, a, x);
    }
    repack_weight(ref, a->weight, weight);
    struct conv conv = {
        .args = a,
        .n_in = a->weight->shape[1],
        .n_out = a->weight->shape[0],
        .kernel_rows = a->weight->shape[2],
        .kernel_cols = a->weight->shape[3],
        .x = x,
        .weight = weight,
    };
    int64_t n_pixels = a->y->shape[0] * a->y->shape[1];
#pragma omp parallel for num_threads(reference_n_threads(ref, n_pixels *tensor_n_elements(a->weight)))
    for (int64_t i = 0; i < n_pixels; i++) {
        convolve_pixel(&conv, i / a->y->shape[1], i % a->y->shape[1]);
    }
done:
    return st;
}
