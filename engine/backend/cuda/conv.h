/* Convolutions through cuDNN (conv.c). Inside of the cuda backend. One thread at a time. */
#ifndef BACKEND_CUDA_CONV_H
#define BACKEND_CUDA_CONV_H

#include "backend/cuda/gpu.h"
#include "core/error.h"
#include "core/memory.h"

struct conv;

/* y [Y', X', O] = conv(x) + bias + residual, pictures packed, type of x, weight and y: F32 or BF16, sums in fp32.
 *   x [Y, X, I]    weight [O, kh, kw, I]    bias [O] F32 or NULL    residual as y or NULL, may be y
 *   pad: zeros on all four sides    Y' = (Y + 2 pad − kh) / stride + 1, X' likewise */
struct conv_args {
    enum gpu_type type;
    int64_t n_rows, n_cols, n_in, n_out, kh, kw;
    int pad, stride;
    const void *x, *weight;
    const float *bias;
    const void *residual;
    void *y;
};

/* get_workspace: device memory in stream order that the next call may reuse; NULL when there is none.
 * Errors: UNSUPPORTED (the library would not start), MEMORY. */
enum cyi_status conv_create(const struct cyi_allocator *allocator, void *(*get_workspace)(void *user, size_t bytes),
                            void *user, struct conv **ret_conv, struct cyi_error *err);
void conv_free(struct conv *conv); /* NULL is fine */
/* Plans are made once a shape and kept. */
enum cyi_status conv_run(struct conv *conv, const struct conv_args *args, cudaStream_t stream, struct cyi_error *err);
const char *conv_version(void); /* "cuDNN 9.15.1", static storage */

#endif
