/* Products of a few rows with a large matrix: one warp an output column, up to eight rows of x at once, so that every weight is read
 * once. Bound by the speed of memory. Also the plain way for sizes and alignments that the library refuses. */
#include "backend/cuda/gpu.cuh"

namespace {

const int WARPS = 8;    /* of a block */
const int MAX_ROWS = 8; /* of x that a warp holds sums for */
const int STEP = 8;     /* elements that a lane reads at once */
const int MAX_GRID_Y = 65535;

struct Arguments {
    const void *x, *w, *residual;
    const float *bias, *gate;
    void *y;
    int64_t m, n, k, x_stride, residual_stride, y_stride;
    gpu_act act;
};

__device__ __forceinline__ float load(const float *p, int64_t i) {
    return p[i];
}

__device__ __forceinline__ float load(const __nv_bfloat16 *p, int64_t i) {
    return __bfloat162float(p[i]);
}

__device__ __forceinline__ void store(float *p, int64_t i, float value) {
    p[i] = value;
}

__device__ __forceinline__ void store(__nv_bfloat16 *p, int64_t i, float value) {
    p[i] = __float2bfloat16_rn(value);
}

/* Eight adjacent elements, 16-byte aligned. */
__device__ __forceinline__ void load_step(const float *p, float *values) {
    float4 a = *reinterpret_cast<const float4 *>(p);
    float4 b = *reinterpret_cast<const float4 *>(p + 4);
    values[0] = a.x;
    values[1] = a.y;
    values[2] = a.z;
    values[3] = a.w;
    values[4] = b.x;
    values[5] = b.y;
    values[6] = b.z;
    values[7] = b.w;
}

__device__ __forceinline__ void load_step(const __nv_bfloat16 *p, float *values) {
    uint4 four = *reinterpret_cast<const uint4 *>(p);
    const unsigned pairs[4] = { four.x, four.y, four.z, four.w };
    for (int i = 0; i < 4; i++) {
        values[2 * i] = __uint_as_float(pairs[i] << 16);
        values[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000U);
    }
}

__device__ __forceinline__ float activate(gpu_act act, float v) {
    if (act == GPU_ACT_SILU) {
        return v / (1.0f + expf(-v));
    }
    if (act == GPU_ACT_GELU_TANH) {
        return 0.5f * v * (1.0f + tanhf(0.7978845608028654f * (v + 0.044715f * v * v * v)));
    }
    return v;
}

/* The lane's share of the sums of rows first … first + ROWS with column n. IS_WIDE: everything is aligned and K is a multiple of STEP. */
template <typename X, typename W, int ROWS, bool IS_WIDE>
__device__ __forceinline__ void add_products(const Arguments &a, int64_t first, int64_t n, int lane, float *sums) {
    const X *x = static_cast<const X *>(a.x) + first * a.x_stride;
    const W *w = static_cast<const W *>(a.w) + n * a.k;
    int64_t n_rows = a.m - first < ROWS ? a.m - first : ROWS;
    if constexpr (IS_WIDE) {
        for (int64_t i = lane * STEP; i < a.k; i += 32 * STEP) {
            float weights[STEP];
            load_step(w + i, weights);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float values[STEP];
                load_step(x + (r < n_rows ? r : 0) * a.x_stride + i, values);
#pragma unroll
                for (int j = 0; j < STEP; j++) {
                    sums[r] = fmaf(values[j], weights[j], sums[r]);
                }
            }
        }
    } else {
        for (int64_t i = lane; i < a.k; i += 32) {
            float weight = load(w, i);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                sums[r] = fmaf(load(x, (r < n_rows ? r : 0) * a.x_stride + i), weight, sums[r]);
            }
        }
    }
}

template <typename Y> __device__ __forceinline__ void finish(const Arguments &a, int64_t row, int64_t n, float sum) {
    float value = activate(a.act, sum + (a.bias != nullptr ? a.bias[n] : 0.0f));
    value *= a.gate != nullptr ? a.gate[n] : 1.0f;
    if (a.residual != nullptr) {
        value += load(static_cast<const Y *>(a.residual), row * a.residual_stride + n);
    }
    store(static_cast<Y *>(a.y), row * a.y_stride + n, value);
}

template <typename X, typename W, typename Y, int ROWS, bool IS_WIDE>
__global__ void __launch_bounds__(32 * WARPS) multiply(Arguments a) {
    int lane = (int)(threadIdx.x % 32);
    int64_t n = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (n >= a.n) {
        return; /* a whole warp */
    }
    for (int64_t first = (int64_t)blockIdx.y * ROWS; first < a.m; first += (int64_t)gridDim.y * ROWS) {
        float sums[ROWS] = {};
        add_products<X, W, ROWS, IS_WIDE>(a, first, n, lane, sums);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            for (int step = 16; step > 0; step /= 2) {
                sums[r] += __shfl_xor_sync(0xffffffffU, sums[r], step);
            }
            if (lane == 0 && first + r < a.m) {
                finish<Y>(a, first + r, n, sums[r]);
            }
        }
    }
}

bool is_aligned(const void *p) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

template <typename X, typename W, typename Y, int ROWS>
void launch_rows(const Arguments &a, bool is_wide, cudaStream_t stream) {
    int64_t chunks = (a.m + ROWS - 1) / ROWS;
    dim3 grid((unsigned)((a.n + WARPS - 1) / WARPS), (unsigned)(chunks < MAX_GRID_Y ? chunks : MAX_GRID_Y));
    if (is_wide) {
        GPU_LAUNCH((multiply<X, W, Y, ROWS, true>), grid, dim3(32 * WARPS), 0, stream, a);
    } else {
        GPU_LAUNCH((multiply<X, W, Y, ROWS, false>), grid, dim3(32 * WARPS), 0, stream, a);
    }
}

template <typename X, typename W, typename Y> void launch(const Arguments &a, cudaStream_t stream) {
    bool is_wide = is_aligned(a.x) && is_aligned(a.w) && a.k % STEP == 0 && (a.m == 1 || a.x_stride % STEP == 0);
    if (a.m == 1) {
        launch_rows<X, W, Y, 1>(a, is_wide, stream);
    } else {
        launch_rows<X, W, Y, MAX_ROWS>(a, is_wide, stream);
    }
}

template <typename X, typename W> void launch_for_y(const Arguments &a, gpu_type y_type, cudaStream_t stream) {
    if (y_type == GPU_BF16) {
        launch<X, W, __nv_bfloat16>(a, stream);
    } else {
        launch<X, W, float>(a, stream);
    }
}

template <typename X> void launch_for_w(const Arguments &a, gpu_type w_type, gpu_type y_type, cudaStream_t stream) {
    if (w_type == GPU_BF16) {
        launch_for_y<X, __nv_bfloat16>(a, y_type, stream);
    } else {
        launch_for_y<X, float>(a, y_type, stream);
    }
}

} // namespace

void gpu_vector_product(const struct gpu_vector_product *product, cudaStream_t stream) {
    const struct gpu_matrix *x = product->x;
    const struct gpu_matrix *y = product->y;
    Arguments a = {};
    a.x = x->data;
    a.w = product->w;
    a.residual = product->residual != nullptr ? product->residual->data : nullptr;
    a.bias = product->bias;
    a.gate = product->gate;
    a.y = y->data;
    a.m = y->n_rows;
    a.n = y->n_cols;
    a.k = x->n_cols;
    a.x_stride = x->row_stride;
    a.residual_stride = product->residual != nullptr ? product->residual->row_stride : 0;
    a.y_stride = y->row_stride;
    a.act = product->act;
    if (x->type == GPU_BF16) {
        launch_for_w<__nv_bfloat16>(a, product->w_type, y->type, stream);
    } else {
        launch_for_w<float>(a, product->w_type, y->type, stream);
    }
}
