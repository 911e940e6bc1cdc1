/* Matrix products of the fake device: the contract of backend/cuda/gemm.h in plain C, in the place of cuBLASLt. Sums are in double. What
 * the library demands is checked: 8-bit codes need 16-byte addresses and rows of whole 16 bytes, factors of rows need compute 9.0. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/gemm.h"
#include "core/dtype.h"
#include "fake_cuda.h"

#define SPOILED_BYTES ((size_t)4096)

struct gemm {
    const struct cyi_allocator *allocator;
    unsigned char *workspace;
    size_t workspace_bytes;
};

enum cyi_status gemm_create(const struct cyi_allocator *allocator, void *workspace, size_t workspace_bytes,
                            struct gemm **ret_gemm, struct cyi_error *err) {
    struct gemm *gemm = mem_alloc_zeroed(allocator, 1, sizeof *gemm);
    if (gemm == NULL) {
        return error_memory(err, "matrix products on the card", sizeof *gemm);
    }
    if (workspace_bytes > 0 && (!fake_cuda_is_device_memory(workspace) || (uintptr_t)workspace % 256 != 0)) {
        fake_cuda_abort("gemm: the workspace %p is no device memory at a multiple of 256 bytes", workspace);
    }
    gemm->allocator = allocator;
    gemm->workspace = workspace;
    gemm->workspace_bytes = workspace_bytes;
    *ret_gemm = gemm;
    return CYI_OK;
}

void gemm_free(struct gemm *gemm) {
    if (gemm != NULL) {
        mem_free(gemm->allocator, gemm);
    }
}

const char *gemm_version(void) {
    return "fake cuBLAS 0.1";
}

/* ---- What the library can do ---- */

static bool is_code(enum gpu_type type) {
    return type == GPU_F8_E4M3 || type == GPU_F8_E5M2 || type == GPU_I8;
}

static bool is_multiple(const void *address, size_t bytes) {
    return (uintptr_t)address % bytes == 0;
}

static bool has_right_types(const struct gemm_args *a) {
    switch (a->type) {
    case GPU_F32:
        return a->y_type == GPU_F32;
    case GPU_BF16:
        return a->y_type == GPU_F32 || a->y_type == GPU_BF16;
    case GPU_F8_E4M3:
        return (a->y_type == GPU_F32 || a->y_type == GPU_BF16) && fake_cuda_get_compute() >= 89;
    case GPU_I8:
        return a->y_type == GPU_I32;
    default:
        return false;
    }
}

/* Addresses and strides of 8-bit products. */
static bool has_right_codes(const struct gemm_args *a) {
    bool has_addresses = is_multiple(a->x, 16) && is_multiple(a->w, 16) && is_multiple(a->y, 16);
    bool has_strides = a->x_stride % 16 == 0 && a->w_stride % 16 == 0 && a->x_batch % 16 == 0 && a->w_batch % 16 == 0;
    bool has_rows = a->k % 16 == 0 && a->n % (a->type == GPU_I8 ? 4 : 16) == 0;
    bool has_y = a->y_stride * (a->y_type == GPU_BF16 ? 2 : 4) % 16 == 0;
    return !a->is_w_kn && has_addresses && has_strides && has_rows && has_y;
}

bool gemm_can(struct gemm *gemm, const struct gemm_args *a) {
    (void)gemm;
    enum fake_gemm_limits limits = fake_cuda_get_gemm_limits();
    bool has_factors = a->x_scale != NULL || a->w_scale != NULL;
    bool has_extras = a->bias != NULL || a->gate != NULL || a->residual != NULL;
    if (!has_right_types(a) || (is_code(a->type) && !has_right_codes(a))) {
        return false;
    }
    if (has_factors && (a->type != GPU_F8_E4M3 || a->x_scale == NULL || a->w_scale == NULL ||
                        fake_cuda_get_compute() < 90 || a->gate != NULL)) {
        return false; /* factors of rows, and a vector for alpha, are one or the other */
    }
    if ((has_extras && a->type == GPU_I8) || (a->gate != NULL && a->bias != NULL) ||
        (a->residual != NULL && a->n_batch > 1)) {
        return false; /* the library adds the bias behind the factor: not what an operation wants */
    }
    if (limits != FAKE_GEMM_ALL && (has_extras || has_factors)) {
        return false;
    }
    return limits != FAKE_GEMM_NONE || !is_code(a->type);
}

/* ---- The product ---- */

struct product {
    struct gemm_args args;
    unsigned char *spoiled; /* workspace that the library may write */
    size_t spoiled_bytes;
};

static float load(enum gpu_type type, const void *data, int64_t i) {
    switch (type) {
    case GPU_BF16:
        return float_from_bf16(((const uint16_t *)data)[i]);
    default:
        return ((const float *)data)[i];
    }
}

static void store(enum gpu_type type, void *data, int64_t i, double value) {
    if (type == GPU_BF16) {
        ((uint16_t *)data)[i] = float_to_bf16((float)value);
    } else if (type == GPU_I32) {
        ((int32_t *)data)[i] = (int32_t)value;
    } else {
        ((float *)data)[i] = (float)value;
    }
}

/* n rows of k floats, packed. */
static float *unpack(enum gpu_type type, const void *data, int64_t first, int64_t n, int64_t k, int64_t stride,
                     int64_t step) {
    float *floats = malloc((size_t)(n * k) * sizeof *floats);
    float of_codes[256];
    if (floats == NULL) {
        fake_cuda_abort("gemm: no memory");
    }
    for (int i = 0; i < 256; i++) {
        of_codes[i] = type == GPU_I8 ? (float)(i < 128 ? i : i - 256) : float_from_e4m3((uint8_t)i);
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < k; j++) {
            int64_t at = first + i * stride + j * step;
            floats[i * k + j] = is_code(type) ? of_codes[((const uint8_t *)data)[at]] : load(type, data, at);
        }
    }
    return floats;
}

/* The only loop that takes time: without the checks of every access. */
__attribute__((no_sanitize("address", "undefined"), optimize("O3"))) static double dot(const float *a, const float *b,
                                                                                       int64_t n) {
    double sums[4] = { 0 };
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        for (int64_t j = 0; j < 4; j++) {
            sums[j] += (double)a[i + j] * (double)b[i + j];
        }
    }
    for (; i < n; i++) {
        sums[0] += (double)a[i] * (double)b[i];
    }
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

static void store_element(const struct gemm_args *a, int64_t batch, int64_t row, int64_t col, double value) {
    value *= a->x_scale != NULL ? (double)a->x_scale[row] * (double)a->w_scale[col] : 1.0;
    value += a->bias != NULL ? (double)a->bias[col] : 0.0;
    value *= a->gate != NULL ? (double)a->gate[col] : 1.0;
    value += a->residual != NULL ? (double)load(a->y_type, a->residual, row * a->residual_stride + col) : 0.0;
    store(a->y_type, a->y, batch * a->y_batch + row * a->y_stride + col, value);
}

static void run_product(void *data) {
    const struct product *product = data;
    const struct gemm_args *a = &product->args;
    if (product->spoiled_bytes > 0) {
        memset(product->spoiled, 0xff, product->spoiled_bytes);
    }
    for (int64_t batch = 0; batch < a->n_batch; batch++) {
        float *x = unpack(a->type, a->x, batch * a->x_batch, a->m, a->k, a->x_stride, 1);
        float *w = unpack(a->type, a->w, batch * a->w_batch, a->n, a->k, a->is_w_kn ? 1 : a->w_stride,
                          a->is_w_kn ? a->w_stride : 1);
        for (int64_t i = 0; i < a->m * a->n; i++) {
            store_element(a, batch, i / a->n, i % a->n, dot(x + i / a->n * a->k, w + i % a->n * a->k, a->k));
        }
        free(x);
        free(w);
    }
}

static void check_addresses(const struct gemm_args *a) {
    const void *addresses[] = { a->x, a->w, a->y, a->x_scale, a->w_scale, a->bias, a->gate, a->residual };
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        if ((i < 3 || addresses[i] != NULL) && !fake_cuda_is_device_memory(addresses[i])) {
            fake_cuda_abort("gemm: argument %zu, %p, is not memory of the device", i, addresses[i]);
        }
    }
    int64_t w_cols = a->is_w_kn ? a->n : a->k;
    if (a->m < 1 || a->n < 1 || a->k < 1 || a->n_batch < 1 || a->x_stride < a->k || a->w_stride < w_cols ||
        a->y_stride < a->n || (a->residual != NULL && a->residual_stride < a->n)) {
        fake_cuda_abort("gemm: strides of x %" PRId64 ", w %" PRId64 ", y %" PRId64 ", residual %" PRId64
                        " with M %" PRId64 ", N %" PRId64 ", K %" PRId64,
                        a->x_stride, a->w_stride, a->y_stride, a->residual_stride, a->m, a->n, a->k);
    }
}

enum cyi_status gemm_run(struct gemm *gemm, const struct gemm_args *args, cudaStream_t stream, struct cyi_error *err) {
    if (!gemm_can(gemm, args)) {
        return error_set(err, CYI_E_UNSUPPORTED,
                         "a product of %" PRId64 " × %" PRId64 " × %" PRId64 " is not supported", args->m, args->n,
                         args->k);
    }
    check_addresses(args);
    struct product product = { .args = *args, .spoiled = gemm->workspace };
    product.spoiled_bytes = gemm->workspace_bytes < SPOILED_BYTES ? gemm->workspace_bytes : SPOILED_BYTES;
    cudaError_t code = fake_cuda_enqueue(stream, "gemm", run_product, &product, sizeof product);
    return code == cudaSuccess ? CYI_OK
                               : error_set(err, CYI_E_IO, "a product on the card: %s", cudaGetErrorString(code));
}
