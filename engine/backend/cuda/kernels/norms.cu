/* Layer norm and RMS norm over rows, one block a row. */
#include "backend/cuda/kernels/access.cuh"

/* Rows of up to N_KEPT · MAX_THREADS · LANES elements stay in registers; of longer ones each pass reads again. */
enum { N_KEPT = 4 };

struct norm_arguments {
    const void *x;
    void *y;
    int64_t x_stride, y_stride;
    int n_cols;
    const float *weight, *bias, *scale, *shift;
    float eps;
    struct gpu_codes codes;
};

/* (x − mean) · rstd · weight + bias, then · (1 + scale) + shift, for eight columns. */
__device__ __forceinline__ void normalise8(const norm_arguments &a, int at, float mean, float rstd, float v[LANES]) {
    int n = a.n_cols - at;
    float factor[LANES], summand[LANES];
    load8_or(a.weight, at, n, 1.0F, factor);
    load8_or(a.bias, at, n, 0.0F, summand);
#pragma unroll
    for (int i = 0; i < LANES; i++) {
        v[i] = (v[i] - mean) * rstd * factor[i] + summand[i];
    }
    if (a.scale != nullptr || a.shift != nullptr) {
        load8_or(a.scale, at, n, 0.0F, factor);
        load8_or(a.shift, at, n, 0.0F, summand);
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            v[i] = v[i] * (1.0F + factor[i]) + summand[i];
        }
    }
}

template <typename X, typename Y, bool IS_FAST, bool IS_RMS, int KEPT>
__global__ void __launch_bounds__(MAX_THREADS) norm_rows(norm_arguments a) {
    __shared__ float shared[WARP];
    const X *x = static_cast<const X *>(a.x) + (int64_t)blockIdx.x * a.x_stride;
    Y *y = static_cast<Y *>(a.y) + (int64_t)blockIdx.x * a.y_stride;
    int n_vectors = (a.n_cols + LANES - 1) / LANES;
    float kept[KEPT > 0 ? KEPT : 1][LANES] = {};
    /* Element i of the row's part of this thread; from memory in rows that are not kept. */
    auto row_part = [&](int i, int at) -> float * {
        if constexpr (KEPT == 0) {
            load8<IS_FAST>(x + at, a.n_cols - at, kept[0]);
            return kept[0];
        } else {
            return kept[i];
        }
    };
    if constexpr (KEPT > 0) {
#pragma unroll
        for (int i = 0; i < KEPT; i++) {
            int vector = (int)threadIdx.x + i * (int)blockDim.x;
            if (vector < n_vectors) {
                load8<IS_FAST>(x + vector * LANES, a.n_cols - vector * LANES, kept[i]);
            }
        }
    }
    int n_parts = KEPT > 0 ? KEPT : (n_vectors + (int)blockDim.x - 1) / (int)blockDim.x;
    float sum = 0.0F;
    if constexpr (!IS_RMS) {
#pragma unroll
        for (int i = 0; i < n_parts; i++) {
            int vector = (int)threadIdx.x + i * (int)blockDim.x;
            if (vector < n_vectors) {
                const float *v = row_part(i, vector * LANES);
#pragma unroll
                for (int j = 0; j < LANES; j++) {
                    sum += v[j];
                }
            }
        }
        sum = block_sum(sum, shared);
    }
    float mean = sum / (float)a.n_cols;
    float squares = 0.0F;
#pragma unroll
    for (int i = 0; i < n_parts; i++) {
        int vector = (int)threadIdx.x + i * (int)blockDim.x;
        if (vector < n_vectors) {
            const float *v = row_part(i, vector * LANES);
#pragma unroll
            for (int j = 0; j < LANES; j++) {
                float d = IS_FAST || vector * LANES + j < a.n_cols ? v[j] - mean : 0.0F;
                squares += d * d;
            }
        }
    }
    squares = block_sum(squares, shared);
    float rstd = rsqrtf(squares / (float)a.n_cols + a.eps);
    float largest = 0.0F;
#pragma unroll
    for (int i = 0; i < n_parts; i++) {
        int vector = (int)threadIdx.x + i * (int)blockDim.x;
        if (vector < n_vectors) {
            float *v = row_part(i, vector * LANES);
            normalise8(a, vector * LANES, mean, rstd, v);
            store8<IS_FAST>(y + vector * LANES, a.n_cols - vector * LANES, v);
            if (a.codes.data != nullptr) {
#pragma unroll
                for (int j = 0; j < LANES; j++) {
                    largest = fmaxf(largest, fabsf(v[j]));
                }
            }
        }
    }
    if (a.codes.data == nullptr) {
        return;
    }
    bool is_fp8 = a.codes.type == GPU_F8_E4M3;
    float factor = set_scale(a.codes, blockIdx.x, block_max(largest, shared));
    unsigned char *codes = static_cast<unsigned char *>(a.codes.data) + (int64_t)blockIdx.x * a.n_cols;
#pragma unroll
    for (int i = 0; i < n_parts; i++) {
        int vector = (int)threadIdx.x + i * (int)blockDim.x;
        if (vector < n_vectors) {
            float *v = row_part(i, vector * LANES);
            if constexpr (KEPT == 0) {
                normalise8(a, vector * LANES, mean, rstd, v);
            }
            store_codes(codes + vector * LANES, v, factor, is_fp8);
        }
    }
}

template <bool IS_RMS>
static void launch(const struct gpu_matrix *x, const struct gpu_matrix *y, const norm_arguments &a,
                   cudaStream_t stream) {
    if (x->n_rows == 0) {
        return;
    }
    int64_t n_vectors = (x->n_cols + LANES - 1) / LANES;
    unsigned n_threads = threads_for_row(n_vectors);
    with_act_type(x->type, [&](auto *x_type) {
        with_act_type(y->type, [&](auto *y_type) {
            with_flag(is_fast_matrix(x) && is_fast_matrix(y), [&](auto is_fast) {
                using X = decltype(pointee(x_type));
                using Y = decltype(pointee(y_type));
                constexpr bool FAST = decltype(is_fast)::value;
                if (n_vectors <= n_threads) {
                    GPU_LAUNCH((norm_rows<X, Y, FAST, IS_RMS, 1>), (unsigned)x->n_rows, n_threads, 0, stream, a);
                } else if (n_vectors <= (int64_t)n_threads * N_KEPT) {
                    GPU_LAUNCH((norm_rows<X, Y, FAST, IS_RMS, N_KEPT>), (unsigned)x->n_rows, n_threads, 0, stream, a);
                } else {
                    GPU_LAUNCH((norm_rows<X, Y, FAST, IS_RMS, 0>), (unsigned)x->n_rows, n_threads, 0, stream, a);
                }
            });
        });
    });
}

static norm_arguments arguments(const struct gpu_matrix *x, const struct gpu_matrix *y, const struct gpu_codes *codes) {
    norm_arguments a = {};
    a.x = x->data;
    a.y = y->data;
    a.x_stride = x->row_stride;
    a.y_stride = y->row_stride;
    a.n_cols = (int)x->n_cols;
    if (codes != nullptr) {
        a.codes = *codes;
    }
    return a;
}

void gpu_layer_norm(const struct gpu_matrix *x, const float *weight, const float *bias, const float *scale,
                    const float *shift, float eps, const struct gpu_matrix *y, const struct gpu_codes *codes,
                    cudaStream_t stream) {
    norm_arguments a = arguments(x, y, codes);
    a.weight = weight;
    a.bias = bias;
    a.scale = scale;
    a.shift = shift;
    a.eps = eps;
    launch<false>(x, y, a, stream);
}

void gpu_rms_norm(const struct gpu_matrix *x, const float *weight, float eps, const struct gpu_matrix *y,
                  const struct gpu_codes *codes, cudaStream_t stream) {
    norm_arguments a = arguments(x, y, codes);
    a.weight = weight;
    a.eps = eps;
    launch<true>(x, y, a, stream);
}
