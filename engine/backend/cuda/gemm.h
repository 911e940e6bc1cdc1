/* Matrix products through cuBLASLt (gemm.c). Inside of the cuda backend. One thread at a time. */
#ifndef BACKEND_CUDA_GEMM_H
#define BACKEND_CUDA_GEMM_H

#include "backend/cuda/gpu.h"
#include "core/error.h"
#include "core/memory.h"

struct gemm;

/* For each matrix of the batch: y [M, N] = gate · (x · w) + residual, with w as it stands, [N, K] (is_w_kn false: x wᵀ) or [K, N].
 *   type       of x and w: F32 (true fp32, no TF32), BF16, F8_E4M3 (w [N, K] alone), I8 (likewise; y is I32)
 *   x_scale [M], w_scale [N] : factors of F8_E4M3 rows, F32 device vectors; else NULL
 *   bias [N], gate [N] F32, residual (y's type, may be y): or NULL
 *   *_stride   elements between rows; *_batch elements between matrices of the batch (0: the same matrix) */
struct gemm_args {
    enum gpu_type type, y_type;
    int64_t m, n, k, n_batch;
    const void *x, *w;
    int64_t x_stride, w_stride, x_batch, w_batch;
    bool is_w_kn;
    const float *x_scale, *w_scale, *bias, *gate;
    const void *residual;
    int64_t residual_stride;
    void *y;
    int64_t y_stride, y_batch;
};

/* workspace: device memory that products may use, in stream order. Errors: UNSUPPORTED (the library would not start), MEMORY. */
enum cyi_status gemm_create(const struct cyi_allocator *allocator, void *workspace, size_t workspace_bytes,
                            struct gemm **ret_gemm, struct cyi_error *err);
void gemm_free(struct gemm *gemm); /* NULL is fine */

/* Can the library do all of it in one call (types, alignment, bias, gate, residual)? Answers are remembered by shape. */
bool gemm_can(struct gemm *gemm, const struct gemm_args *args);
/* Errors: UNSUPPORTED (gemm_can would have said so), and what the library reports. */
enum cyi_status gemm_run(struct gemm *gemm, const struct gemm_args *args, cudaStream_t stream, struct cyi_error *err);
const char *gemm_version(void); /* "cuBLAS 13.1.0", static storage */

#endif
