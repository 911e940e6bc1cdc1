/* What the backend's C files and its kernels share: views of device memory and the kernels' launchers, one group a .cu file.
 *
 * Plain C that is C++ as well. Every launcher puts its work on the stream and returns at once; faults of a launch are found by
 * cuda_check_launch (cuda.h), faults inside a kernel when the stream is waited for. Nothing here allocates. Pointers are device
 * pointers. Results do not depend on timing: sums are done in a fixed order, without atomics. */
#ifndef BACKEND_CUDA_GPU_H
#define BACKEND_CUDA_GPU_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The first five as in core/dtype.h. */
enum gpu_type { GPU_F32, GPU_F16, GPU_BF16, GPU_F8_E4M3, GPU_F8_E5M2, GPU_I8, GPU_I32 };

/* A matrix, rows of adjacent elements, row_stride elements apart. Addresses are multiples of the element's size, no more. */
struct gpu_matrix {
    void *data;
    enum gpu_type type;
    int64_t n_rows, n_cols, row_stride;
};

/* Rows as 8-bit codes: value = code · scale[row]. data NULL: not wanted. */
struct gpu_codes {
    void *data;         /* [n_rows, n_cols] packed; rows are a multiple of 16 codes long */
    float *scale;       /* [n_rows] */
    enum gpu_type type; /* GPU_F8_E4M3: amax is 448; GPU_I8: amax is 127, rounded to nearest even */
};

enum gpu_act { GPU_ACT_NONE, GPU_ACT_SILU, GPU_ACT_GELU_TANH }; /* as enum activation */

/* ---- norms.cu: one block a row; statistics in fp32 by two passes over registers or shared memory ---- */

/* y = LN(x) · weight + bias, then · (1 + scale) + shift. weight, bias, scale, shift: [D] or NULL. x, y: F32 or BF16.
 * codes: the same rows quantised from the values before they are rounded to y's type. */
void gpu_layer_norm(const struct gpu_matrix *x, const float *weight, const float *bias, const float *scale,
                    const float *shift, float eps, const struct gpu_matrix *y, const struct gpu_codes *codes,
                    cudaStream_t stream);
/* y = x · rsqrt(mean(x²) + eps) · weight; y may be x. */
void gpu_rms_norm(const struct gpu_matrix *x, const float *weight, float eps, const struct gpu_matrix *y,
                  const struct gpu_codes *codes, cudaStream_t stream);

/* ---- rope.cu: as QK_NORM_ROPE in ops.h; one warp a head. cos, sin: [S, K/2] with cos_stride, or NULL. weight NULL: no norm ---- */
void gpu_qk_norm_rope(const struct gpu_matrix *x, const float *weight, const float *cos, const float *sin,
                      int64_t cos_stride, int64_t n_heads, float eps, bool is_adjacent, const struct gpu_matrix *y,
                      cudaStream_t stream);

/* ---- elementwise.cu: x, y F32 or BF16, 16-byte accesses where addresses and strides allow ---- */
void gpu_swiglu(const struct gpu_matrix *gate, const struct gpu_matrix *up, const struct gpu_matrix *y,
                const struct gpu_codes *codes, cudaStream_t stream); /* codes wanted: one block a row */
void gpu_silu(const struct gpu_matrix *x, const struct gpu_matrix *y, cudaStream_t stream);
void gpu_add(const struct gpu_matrix *a, const struct gpu_matrix *b, const struct gpu_matrix *y, cudaStream_t stream);
/* x of any type but the integers; y F32 or BF16 (round to nearest even). */
void gpu_cast(const struct gpu_matrix *x, const struct gpu_matrix *y, cudaStream_t stream);
/* y = act(x · scale + shift) per column; y may be x. */
void gpu_channel_affine(const struct gpu_matrix *x, const float *scale, const float *shift, enum gpu_act act,
                        const struct gpu_matrix *y, cudaStream_t stream);
/* y = residual + gate · act(product · row_scale[row] · col_scale[col] + bias): what a matrix product leaves to do.
 * product F32, BF16 or I32; row_scale, col_scale, bias, gate (F32 vectors), residual (y's type) or NULL; y may be residual. */
struct gpu_finish {
    const struct gpu_matrix *product;
    const float *row_scale, *col_scale, *bias, *gate;
    const struct gpu_matrix *residual; /* NULL: 0 */
    enum gpu_act act;
    const struct gpu_matrix *y;
};
void gpu_finish_product(const struct gpu_finish *finish, cudaStream_t stream);

/* ---- vector.cu: products with few rows, at the speed of memory; any size and alignment ---- */

/* y = residual + gate · act(x · wᵀ + bias), fp32 throughout. x F32 or BF16 [M, K], w [N, K] packed F32 or BF16; y F32 or BF16 [M, N].
 * bias, gate: [N] or NULL; residual: y's type, may be y, or NULL. */
struct gpu_vector_product {
    const struct gpu_matrix *x;
    const void *w;
    enum gpu_type w_type;
    const float *bias, *gate;
    const struct gpu_matrix *residual;
    enum gpu_act act;
    const struct gpu_matrix *y;
};
void gpu_vector_product(const struct gpu_vector_product *product, cudaStream_t stream);

/* ---- quantise.cu ---- */

/* Every row by its own largest magnitude; a row of zeros gets scale 1. x F32 or BF16. */
void gpu_quantise_rows(const struct gpu_matrix *x, const struct gpu_codes *codes, cudaStream_t stream);

/* ---- pixels.cu: pictures [Y, X, C] packed, F32 or BF16 ---- */

/* Factor and summand a channel of a group norm, as GROUP_NORM in ops.h. partial: gpu_group_norm_scratch bytes. */
size_t gpu_group_norm_scratch(int64_t n_pixels, int64_t n_channels);
void gpu_group_norm(const struct gpu_matrix *x, const float *weight, const float *bias, int64_t n_groups, float eps,
                    float *scale, float *shift, void *partial, cudaStream_t stream);
/* The input of a convolution: act(x · scale + shift), every pixel `upsample` times along both sides, a border of zeros.
 *   x [n_rows, n_cols, n_channels] → y [upsample · n_rows + pad_top + pad_bottom, likewise, y_channels], y_channels ≥ n_channels:
 *   the further channels are zeros. scale and shift [C] or NULL. Types F32 or BF16. */
struct gpu_gather {
    const void *x;
    enum gpu_type x_type, y_type;
    int64_t n_rows, n_cols, n_channels, y_channels;
    const float *scale, *shift;
    enum gpu_act act;
    int upsample, pad_top, pad_left, pad_bottom, pad_right;
    void *y;
};
void gpu_gather_pixels(const struct gpu_gather *gather, cudaStream_t stream);
/* Convolution weights [O, I, kh, kw] of any floating type → [O, kh, kw, i_channels] F32 or BF16, channels beyond I are zeros. */
void gpu_reorder_filter(const void *weight, enum gpu_type type, int64_t n_out, int64_t n_in, int64_t kh, int64_t kw,
                        int64_t i_channels, void *y, enum gpu_type y_type, cudaStream_t stream);

/* ---- softmax.cu ---- */

/* Probabilities of rows of scores: p = softmax(scale · scores) over the keys 0 … n_keys − 1; the other columns become 0.
 * Causal: row i of matrix b stands at query first_row + i and sees at most keys 0 … first_row + i.
 *   scores [n_matrices, n_rows, n_cols] F32 packed → p likewise, F32 or BF16. */
struct gpu_softmax {
    const float *scores;
    int64_t n_matrices, n_rows, n_cols, n_keys, first_row;
    bool is_causal;
    float scale;
    void *p;
    enum gpu_type p_type;
};
void gpu_softmax_rows(const struct gpu_softmax *softmax, cudaStream_t stream);

/* ---- attention.cu: fused attention on the tensor cores, BF16, head width 64 or 128 ---- */

/* As ATTENTION in ops.h. All matrices BF16; addresses multiples of 16 bytes, strides multiples of 8 elements. */
struct gpu_attention {
    struct gpu_matrix q, k, v, out;
    int64_t n_heads, n_kv_heads, n_keys;
    bool is_causal;
    float scale;
};
bool gpu_attention_fits(const struct gpu_attention *attention); /* head width, alignment, strides */
void gpu_attention_run(const struct gpu_attention *attention, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
