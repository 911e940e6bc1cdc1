/* Kernels on rows of floats: everything that is not a matrix product. kernels.c is compiled several times, for several instruction
 * sets; kernels_select gives the best table for vectors of so many bits (shim_get_vector_bits).
 *
 * Lengths are in elements. Rows are F32 in the caches; `load` and `store` convert from and to the types in memory. Sources of load
 * and weights of dot_rows may have any alignment. Every sum has an order that depends on the length only. */
#ifndef BACKEND_ONEDNN_KERNELS_H
#define BACKEND_ONEDNN_KERNELS_H

#include "ops/ops.h"

/* What happens to a finished row of a matrix product or convolution, in this order. NULL: not at all. */
struct row_finish {
    const float *bias, *gate; /* [n] */
    enum activation act;
    enum dtype out;       /* of residual and y */
    const void *residual; /* may be y */
    void *y;
};

struct kernels {
    const char *name;
    void (*load)(enum dtype dtype, const void *src, float *dst, int64_t n);
    void (*store)(enum dtype dtype, const float *src, void *dst, int64_t n); /* F32 or BF16 */
    /* y[i] = x · w[i] for rows of w (F32 or BF16), n long, row_bytes apart */
    void (*dot_rows)(enum dtype dtype, const float *x, const void *w, size_t row_bytes, int64_t n_rows, int64_t n,
                     float *y);
    void (*finish)(const float *x, const struct row_finish *finish, int64_t n);
    void (*activate)(enum activation act, const float *x, float *y, int64_t n); /* y may be x, here and below */
    void (*affine)(const float *x, const float *scale, const float *shift, enum activation act, float *y, int64_t n);
    /* affine over n_pixels of n channels each, from and to memory */
    void (*affine_pixels)(enum dtype from, const void *x, const float *scale, const float *shift, enum activation act,
                          enum dtype to, void *y, int64_t n, int64_t n_pixels);
    void (*swiglu)(const float *gate, const float *up, float *y, int64_t n);
    void (*add)(const float *a, const float *b, float *y, int64_t n);
    /* Layer norm without weights, then · factor + summand; either may be NULL. */
    void (*layer_norm)(const float *x, const float *factor, const float *summand, float eps, float *y, int64_t n);
    void (*rms_norm)(const float *x, const float *weight, float eps, float *y, int64_t n); /* weight may be NULL */
    void (*rope)(float *x, const float *cos, const float *sin, enum rope_pairs pairs, int64_t n);
    /* sum += x − pivot, square += (x − pivot)² for every element */
    void (*moments)(const float *x, const float *pivot, float *sum, float *square, int64_t n);
    float (*max)(const float *x, int64_t n);
    /* y = exp(scale · (x − max)) as F32 or BF16; gives the sum */
    float (*exp_sum)(const float *x, float scale, float max, enum dtype dtype, void *y, int64_t n);
    void (*scale)(const float *x, float factor, float *y, int64_t n); /* y = x · factor */
    /* y = y · factor + x */
    void (*rescale_add)(float *y, float factor, const float *x, int64_t n);
};

const struct kernels *kernels_select(int vector_bits);

#endif
