/* Convolutions of the fake device: the contract of backend/cuda/conv.h in plain C, in the place of cuDNN. Sums are in double. Asks for
 * workspace like the library and spoils it, so that nobody keeps anything there. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/conv.h"
#include "core/dtype.h"
#include "fake_cuda.h"

#define WORKSPACE_BYTES ((size_t)2048)

struct conv {
    const struct cyi_allocator *allocator;
    void *(*get_workspace)(void *user, size_t bytes);
    void *user;
};

enum cyi_status conv_create(const struct cyi_allocator *allocator, void *(*get_workspace)(void *user, size_t bytes),
                            void *user, struct conv **ret_conv, struct cyi_error *err) {
    struct conv *conv = mem_alloc_zeroed(allocator, 1, sizeof *conv);
    if (conv == NULL) {
        return error_memory(err, "convolutions on the card", sizeof *conv);
    }
    conv->allocator = allocator;
    conv->get_workspace = get_workspace;
    conv->user = user;
    *ret_conv = conv;
    return CYI_OK;
}

void conv_free(struct conv *conv) {
    if (conv != NULL) {
        mem_free(conv->allocator, conv);
    }
}

const char *conv_version(void) {
    return "fake cuDNN 0.1";
}

struct convolution {
    struct conv_args args;
    void *workspace;
};

static float load(enum gpu_type type, const void *data, int64_t i) {
    return type == GPU_BF16 ? float_from_bf16(((const uint16_t *)data)[i]) : ((const float *)data)[i];
}

static float *unpack(enum gpu_type type, const void *data, int64_t n) {
    float *floats = malloc((size_t)n * sizeof *floats);
    if (floats == NULL) {
        fake_cuda_abort("conv: no memory");
    }
    for (int64_t i = 0; i < n; i++) {
        floats[i] = load(type, data, i);
    }
    return floats;
}

/* The only loop that takes time: without the checks of every access. */
__attribute__((no_sanitize("address", "undefined"), optimize("O3"))) static double dot(const float *a, const float *b,
                                                                                       int64_t n) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* One channel of one pixel, without bias and residual. */
static double convolve(const struct conv_args *a, const float *x, const float *weight, int64_t row, int64_t col,
                       int64_t out) {
    double sum = 0.0;
    for (int64_t i = 0; i < a->kh; i++) {
        int64_t y = row * a->stride + i - a->pad;
        for (int64_t j = 0; j < a->kw && y >= 0 && y < a->n_rows; j++) {
            int64_t at = col * a->stride + j - a->pad;
            if (at >= 0 && at < a->n_cols) {
                sum += dot(x + (y * a->n_cols + at) * a->n_in, weight + ((out * a->kh + i) * a->kw + j) * a->n_in,
                           a->n_in);
            }
        }
    }
    return sum;
}

static void run_convolution(void *data) {
    const struct convolution *convolution = data;
    const struct conv_args *a = &convolution->args;
    int64_t y_rows = (a->n_rows + 2 * a->pad - a->kh) / a->stride + 1;
    int64_t y_cols = (a->n_cols + 2 * a->pad - a->kw) / a->stride + 1;
    if (convolution->workspace != NULL) {
        memset(convolution->workspace, 0xff, WORKSPACE_BYTES);
    }
    float *x = unpack(a->type, a->x, a->n_rows * a->n_cols * a->n_in);
    float *weight = unpack(a->type, a->weight, a->n_out * a->kh * a->kw * a->n_in);
    for (int64_t i = 0; i < y_rows * y_cols * a->n_out; i++) {
        int64_t out = i % a->n_out;
        double value = convolve(a, x, weight, i / a->n_out / y_cols, i / a->n_out % y_cols, out);
        value += a->bias != NULL ? (double)a->bias[out] : 0.0;
        value += a->residual != NULL ? (double)load(a->type, a->residual, i) : 0.0;
        if (a->type == GPU_BF16) {
            ((uint16_t *)a->y)[i] = float_to_bf16((float)value);
        } else {
            ((float *)a->y)[i] = (float)value;
        }
    }
    free(x);
    free(weight);
}

static void check_arguments(const struct conv_args *a) {
    const void *addresses[] = { a->x, a->weight, a->y, a->residual, a->bias };
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        if ((i < 3 || addresses[i] != NULL) && !fake_cuda_is_device_memory(addresses[i])) {
            fake_cuda_abort("conv: argument %zu, %p, is not memory of the device", i, addresses[i]);
        }
        if (i < 4 && (uintptr_t)addresses[i] % 16 != 0) {
            fake_cuda_abort("conv: argument %zu, %p, is not at a multiple of 16 bytes", i, addresses[i]);
        }
    }
    if (a->n_rows + 2 * a->pad < a->kh || a->n_cols + 2 * a->pad < a->kw || a->stride < 1 || a->pad < 0 ||
        a->n_in < 1 || a->n_out < 1 || (a->type != GPU_F32 && a->type != GPU_BF16)) {
        fake_cuda_abort("conv: picture %" PRId64 " × %" PRId64 ", filter %" PRId64 " × %" PRId64
                        ", stride %d, pad %d, type %d",
                        a->n_rows, a->n_cols, a->kh, a->kw, a->stride, a->pad, (int)a->type);
    }
}

enum cyi_status conv_run(struct conv *conv, const struct conv_args *args, cudaStream_t stream, struct cyi_error *err) {
    check_arguments(args);
    struct convolution convolution = { .args = *args, .workspace = conv->get_workspace(conv->user, WORKSPACE_BYTES) };
    cudaError_t code = fake_cuda_enqueue(stream, "conv", run_convolution, &convolution, sizeof convolution);
    return code == cudaSuccess ? CYI_OK
                               : error_set(err, CYI_E_IO, "a convolution on the card: %s", cudaGetErrorString(code));
}
