/* The CUDA backend's own struct and what its files share. Inside of engine/backend/cuda.
 *
 * Activations are device memory from the exec's device arena. Weights are host memory (mapped files): the first use of one puts it on
 * the card in the form that the operation needs (weights.c), where it stays as long as there is room. All work goes on one stream in the
 * order of the calls, so that scratch can be used again by the next operation. One thread at a time. */
#ifndef BACKEND_CUDA_CUDA_H
#define BACKEND_CUDA_CUDA_H

#include "backend/backend.h"
#include "backend/cuda/conv.h"
#include "backend/cuda/gemm.h"
#include "backend/cuda/gpu.h"

struct cuda {
    struct backend base;
    const struct cyi_allocator *allocator; /* host */
    int device;
    int compute; /* 80, 86, 89, 90, 100, 120 */
    cudaStream_t stream;
    enum backend_products products; /* inside transformer blocks */
    struct gemm *gemm;
    struct conv *conv;
    struct cuda_memory *memory;
    struct cuda_weights *weights;
    struct cuda_codes *codes; /* quantised twins of activations */
    struct cuda_graphs *graphs;
};

/* CYI_OK, or an error with CUDA's own words: MEMORY for out of memory, else IO. what: "a copy to the card". */
enum cyi_status cuda_check(cudaError_t code, const char *what, struct cyi_error *err);
/* The fault of the launches since the last call. */
enum cyi_status cuda_check_launch(const char *what, struct cyi_error *err);

/* Copies bytes to the card, in stream order; the host's memory may change at once. */
enum cyi_status cuda_upload_bytes(struct cuda *c, const void *host, void *device, size_t n_bytes,
                                  struct cyi_error *err);

/* Device memory that belongs to the current operation: valid until the operation's work has run on the stream. NULL: none left. */
void *cuda_scratch(struct cuda *c, size_t size_bytes);
enum cyi_status cuda_new_scratch(struct cuda *c, size_t size_bytes, void **ret, struct cyi_error *err);

/* An activation as the kernels see it: all but the last dimension are rows. */
struct gpu_matrix cuda_matrix(const struct tensor *t);
enum gpu_type cuda_type(enum dtype dtype);

/* Forms of a weight on the card. */
enum weight_form {
    WEIGHT_F32,  /* any shape, as F32 */
    WEIGHT_BF16, /* any shape, as BF16 */
    WEIGHT_FP8,  /* [N, K] codes with a scale a row */
    WEIGHT_INT8,
    WEIGHT_CONV_F32, /* [O, I, kh, kw] as [O, kh, kw, I], I rounded up to 8 with zeros */
    WEIGHT_CONV_BF16
};
struct device_weight {
    const void *data;
    const float *scale; /* [N] of codes, else NULL */
};
/* host NULL gives data NULL. Valid until the operation's work has run. Errors: MEMORY, and what the card reports. */
enum cyi_status cuda_get_weight(struct cuda *c, const struct tensor *host, enum weight_form form,
                                struct device_weight *ret, struct cyi_error *err);
/* A vector as floats; NULL for a missing one. */
enum cyi_status cuda_get_floats(struct cuda *c, const struct tensor *host, const float **ret, struct cyi_error *err);

/* Of the codes that the backend's products read, when they are not plain. */
static inline enum gpu_type cuda_code_type(const struct cuda *c) {
    return c->products == BACKEND_PRODUCTS_FP8 ? GPU_F8_E4M3 : GPU_I8;
}

/* Quantised twins: who makes an activation that tolerant products will read also writes its codes, when products are quantised.
 * cuda_new_codes: room for y's codes (data NULL when products are plain or rows are not a multiple of 16 long).
 * cuda_find_codes: the codes of exactly this activation; data NULL when there are none. They die when y is written again. */
void cuda_new_codes(struct cuda *c, const struct tensor *y, struct gpu_codes *ret);
void cuda_find_codes(struct cuda *c, const struct tensor *x, struct gpu_codes *ret);

/* The operations; shapes are checked already. */
#define OP(ID, name) enum cyi_status cuda_##name(struct cuda *c, const struct name##_args *args, struct cyi_error *err);
#include "ops/ops.def"
#undef OP

#endif
