/* RMS norm over each head, then rotation of its pairs: one warp a head. */
#include "backend/cuda/kernels/access.cuh"

enum { WARPS = 8 }; /* of a block */

struct rope_arguments {
    const void *x;
    void *y;
    int64_t x_stride, y_stride, cos_stride, n_all; /* heads of all rows */
    int n_heads, width;
    const float *weight, *cos, *sin;
    float eps;
    bool is_adjacent;
};

__device__ __forceinline__ float get(const float *p, int i) {
    return p[i];
}

__device__ __forceinline__ float get(const __nv_bfloat16 *p, int i) {
    return __bfloat162float(p[i]);
}

__device__ __forceinline__ void put(float *p, int i, float v) {
    p[i] = v;
}

__device__ __forceinline__ void put(__nv_bfloat16 *p, int i, float v) {
    p[i] = __float2bfloat16_rn(v);
}

/* Two neighbours at an address that is a multiple of both. */
__device__ __forceinline__ float2 get_pair(const float *p) {
    return *reinterpret_cast<const float2 *>(p);
}

__device__ __forceinline__ float2 get_pair(const __nv_bfloat16 *p) {
    unsigned pair = *reinterpret_cast<const unsigned *>(p);
    return make_float2(low_half(pair), high_half(pair));
}

__device__ __forceinline__ void put_pair(float *p, float2 v) {
    *reinterpret_cast<float2 *>(p) = v;
}

__device__ __forceinline__ void put_pair(__nv_bfloat16 *p, float2 v) {
    *reinterpret_cast<__nv_bfloat162 *>(p) = __floats2bfloat162_rn(v.x, v.y);
}

/* PAIRS · WARP pairs of a head are in registers, so that y may be x. IS_FAST: adjacent pairs, read and written as one. */
template <typename X, typename Y, int PAIRS, bool IS_FAST> __global__ void rotate_heads(rope_arguments a) {
    int64_t head = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    int lane = (int)(threadIdx.x % WARP);
    if (head >= a.n_all) {
        return;
    }
    int64_t row = head / a.n_heads;
    int64_t at = head % a.n_heads * a.width;
    const X *x = static_cast<const X *>(a.x) + row * a.x_stride + at;
    Y *y = static_cast<Y *>(a.y) + row * a.y_stride + at;
    int n_pairs = (a.width + 1) / 2;
    int step = a.is_adjacent ? 2 : 1;
    int gap = a.is_adjacent ? 1 : a.width / 2;
    float2 v[PAIRS];
    float squares = 0.0F;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        int j = lane + i * WARP;
        v[i] = make_float2(0.0F, 0.0F);
        if (j < n_pairs) {
            int first = step * j;
            if constexpr (IS_FAST) {
                v[i] = get_pair(x + first);
            } else {
                v[i].x = get(x, first);
                v[i].y = first + gap < a.width ? get(x, first + gap) : 0.0F; /* an odd width has no rotation */
            }
            squares += v[i].x * v[i].x + v[i].y * v[i].y;
        }
    }
    float rstd = 1.0F;
    if (a.weight != nullptr) {
        rstd = rsqrtf(warp_sum(squares) / (float)a.width + a.eps);
    }
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        int j = lane + i * WARP;
        if (j < n_pairs) {
            int first = step * j;
            bool is_pair = first + gap < a.width;
            if (a.weight != nullptr) {
                v[i].x *= rstd * a.weight[first];
                v[i].y *= is_pair ? rstd * a.weight[first + gap] : 0.0F;
            }
            if (a.cos != nullptr) {
                float c = a.cos[row * a.cos_stride + j];
                float s = a.sin[row * a.cos_stride + j];
                v[i] = make_float2(v[i].x * c - v[i].y * s, v[i].y * c + v[i].x * s);
            }
            if constexpr (IS_FAST) {
                put_pair(y + first, v[i]);
            } else {
                put(y, first, v[i].x);
                if (is_pair) {
                    put(y, first + gap, v[i].y);
                }
            }
        }
    }
}

static bool has_pairs(const struct gpu_matrix *m, int64_t width) {
    return width % 2 == 0 && m->row_stride % 2 == 0 && (uintptr_t)m->data % (uintptr_t)(2 * size_of_type(m->type)) == 0;
}

void gpu_qk_norm_rope(const struct gpu_matrix *x, const float *weight, const float *cos, const float *sin,
                      int64_t cos_stride, int64_t n_heads, float eps, bool is_adjacent, const struct gpu_matrix *y,
                      cudaStream_t stream) {
    rope_arguments a = {};
    a.x = x->data;
    a.y = y->data;
    a.x_stride = x->row_stride;
    a.y_stride = y->row_stride;
    a.cos_stride = cos_stride;
    a.n_all = x->n_rows * n_heads;
    a.n_heads = (int)n_heads;
    a.width = (int)(x->n_cols / n_heads);
    a.weight = weight;
    a.cos = cos;
    a.sin = sin;
    a.eps = eps;
    a.is_adjacent = is_adjacent || cos == nullptr;
    bool is_fast = a.is_adjacent && has_pairs(x, a.width) && has_pairs(y, a.width);
    unsigned n_blocks = (unsigned)((a.n_all + WARPS - 1) / WARPS);
    if (n_blocks == 0) {
        return;
    }
    with_act_type(x->type, [&](auto *x_type) {
        with_act_type(y->type, [&](auto *y_type) {
            with_flag(is_fast, [&](auto fast) {
                using X = decltype(pointee(x_type));
                using Y = decltype(pointee(y_type));
                constexpr bool FAST = decltype(fast)::value;
                if (a.width <= 2 * 2 * WARP) {
                    GPU_LAUNCH((rotate_heads<X, Y, 2, FAST>), n_blocks, WARPS * WARP, 0, stream, a);
                } else {
                    GPU_LAUNCH((rotate_heads<X, Y, 32, FAST>), n_blocks, WARPS * WARP, 0, stream, a);
                }
            });
        });
    });
}
