/* Eight elements at a time: how the kernels that walk over memory read, write and compute. F32 and BF16 in memory, fp32 in registers. */
#ifndef BACKEND_CUDA_KERNELS_ACCESS_CUH
#define BACKEND_CUDA_KERNELS_ACCESS_CUH

#include "backend/cuda/gpu.cuh"

enum { LANES = 8, WARP = 32, MAX_THREADS = 1024 };

/* Rows whose largest magnitude is not above this have codes of zero: the factor of a smaller one would be infinite. */
static constexpr float SMALLEST = 1e-30F;

/* ---- Memory ---- */

/* IS_FAST: 16-byte accesses, all eight are there. Else one by one, what is not there reads as 0. */
template <bool IS_FAST> __device__ __forceinline__ void load8(const float *p, int n, float v[LANES]) {
    if constexpr (IS_FAST) {
        float4 a = *reinterpret_cast<const float4 *>(p);
        float4 b = *reinterpret_cast<const float4 *>(p + 4);
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    } else {
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            v[i] = i < n ? p[i] : 0.0F;
        }
    }
}

__device__ __forceinline__ float low_half(unsigned pair) {
    return __uint_as_float(pair << 16);
}

__device__ __forceinline__ float high_half(unsigned pair) {
    return __uint_as_float(pair & 0xffff0000U);
}

template <bool IS_FAST> __device__ __forceinline__ void load8(const __nv_bfloat16 *p, int n, float v[LANES]) {
    if constexpr (IS_FAST) {
        uint4 a = *reinterpret_cast<const uint4 *>(p);
        v[0] = low_half(a.x), v[1] = high_half(a.x), v[2] = low_half(a.y), v[3] = high_half(a.y);
        v[4] = low_half(a.z), v[5] = high_half(a.z), v[6] = low_half(a.w), v[7] = high_half(a.w);
    } else {
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            v[i] = i < n ? __bfloat162float(p[i]) : 0.0F;
        }
    }
}

template <bool IS_FAST> __device__ __forceinline__ void load8(const int *p, int n, float v[LANES]) {
    if constexpr (IS_FAST) {
        int4 a = *reinterpret_cast<const int4 *>(p);
        int4 b = *reinterpret_cast<const int4 *>(p + 4);
        v[0] = (float)a.x, v[1] = (float)a.y, v[2] = (float)a.z, v[3] = (float)a.w;
        v[4] = (float)b.x, v[5] = (float)b.y, v[6] = (float)b.z, v[7] = (float)b.w;
    } else {
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            v[i] = i < n ? (float)p[i] : 0.0F;
        }
    }
}

template <bool IS_FAST> __device__ __forceinline__ void store8(float *p, int n, const float v[LANES]) {
    if constexpr (IS_FAST) {
        *reinterpret_cast<float4 *>(p) = make_float4(v[0], v[1], v[2], v[3]);
        *reinterpret_cast<float4 *>(p + 4) = make_float4(v[4], v[5], v[6], v[7]);
    } else {
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            if (i < n) {
                p[i] = v[i];
            }
        }
    }
}

template <bool IS_FAST> __device__ __forceinline__ void store8(__nv_bfloat16 *p, int n, const float v[LANES]) {
    if constexpr (IS_FAST) {
        __nv_bfloat162 pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            pairs[i] = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
        }
        *reinterpret_cast<uint4 *>(p) = *reinterpret_cast<const uint4 *>(pairs);
    } else {
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            if (i < n) {
                p[i] = __float2bfloat16_rn(v[i]);
            }
        }
    }
}

/* Vectors of channels may lie at any address of floats: the same, chosen at run time. NULL gives `otherwise`. */
__device__ __forceinline__ void load8_or(const float *p, int at, int n, float otherwise, float v[LANES]) {
    if (p != nullptr && n >= LANES && reinterpret_cast<uintptr_t>(p + at) % 16 == 0) {
        load8<true>(p + at, LANES, v);
        return;
    }
#pragma unroll
    for (int i = 0; i < LANES; i++) {
        v[i] = p != nullptr && i < n ? __ldg(p + at + i) : otherwise;
    }
}

/* Eight codes at an address that is a multiple of 8. */
__device__ __forceinline__ unsigned code_of(float v, bool is_fp8) {
    if (is_fp8) {
        return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
    }
    return (unsigned)(int)rintf(v) & 0xffU;
}

__device__ __forceinline__ void store_codes(void *p, const float v[LANES], float factor, bool is_fp8) {
    uint2 codes = make_uint2(0, 0);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        codes.x |= code_of(v[i] * factor, is_fp8) << (8 * i);
        codes.y |= code_of(v[4 + i] * factor, is_fp8) << (8 * i);
    }
    *reinterpret_cast<uint2 *>(p) = codes;
}

/* From the largest magnitude of a row: the factor of its codes. One thread of the block writes the scale. */
__device__ __forceinline__ float set_scale(const struct gpu_codes &codes, int64_t row, float largest) {
    float top = codes.type == GPU_F8_E4M3 ? 448.0F : 127.0F;
    bool is_there = largest > SMALLEST;
    if (threadIdx.x == 0) {
        codes.scale[row] = is_there ? largest / top : 1.0F;
    }
    return is_there ? top / largest : 1.0F;
}

/* ---- Sums over a block, in an order that does not depend on timing. Every thread gets the result. ---- */

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int d = WARP / 2; d > 0; d /= 2) {
        x += __shfl_xor_sync(0xffffffffU, x, d);
    }
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int d = WARP / 2; d > 0; d /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, d));
    }
    return x;
}

/* Blocks are whole warps. shared: WARP floats, which the block may use again at once. */
__device__ __forceinline__ float block_sum(float x, float *shared) {
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    x = warp_sum(threadIdx.x % WARP < blockDim.x / WARP ? shared[threadIdx.x % WARP] : 0.0F);
    __syncthreads();
    return x;
}

__device__ __forceinline__ float block_max(float x, float *shared) {
    x = warp_max(x);
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    x = warp_max(threadIdx.x % WARP < blockDim.x / WARP ? shared[threadIdx.x % WARP] : shared[0]);
    __syncthreads();
    return x;
}

/* ---- Functions. IS_EXACT: for results in F32; else fast ones, more exact than BF16 ---- */

template <bool IS_EXACT> __device__ __forceinline__ float silu(float x) {
    return IS_EXACT ? x / (1.0F + expf(-x)) : __fdividef(x, 1.0F + __expf(-x));
}

/* x (1 + tanh u) / 2 = x / (1 + e^−2u) */
template <bool IS_EXACT> __device__ __forceinline__ float gelu_tanh(float x) {
    float u = 1.5957691216057308F * (x + 0.044715F * x * x * x);
    return IS_EXACT ? x / (1.0F + expf(-u)) : __fdividef(x, 1.0F + __expf(-u));
}

template <bool IS_EXACT> __device__ __forceinline__ void activate8(int act, float v[LANES]) {
    if (act == GPU_ACT_SILU) {
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            v[i] = silu<IS_EXACT>(v[i]);
        }
    } else if (act == GPU_ACT_GELU_TANH) {
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            v[i] = gelu_tanh<IS_EXACT>(v[i]);
        }
    }
}

/* ---- On the host: choosing a kernel ---- */

template <typename T> struct is_float { static constexpr bool value = false; };
template <> struct is_float<float> { static constexpr bool value = true; };

inline int size_of_type(enum gpu_type type) {
    return type == GPU_F32 || type == GPU_I32 ? 4 : type == GPU_F16 || type == GPU_BF16 ? 2 : 1;
}

/* May its rows be read in pieces of 16 bytes, eight elements or more each? */
inline bool is_fast_matrix(const struct gpu_matrix *m) {
    int size = size_of_type(m->type);
    return m->n_cols % LANES == 0 && (uintptr_t)m->data % 16 == 0 && m->row_stride * size % 16 == 0;
}

/* Calls f with a null pointer of the type: f(const float *) and so on. */
template <typename F> void with_act_type(enum gpu_type type, const F &f) {
    if (type == GPU_F32) {
        f((float *)nullptr);
    } else {
        f((__nv_bfloat16 *)nullptr);
    }
}

template <bool B> struct flag { static constexpr bool value = B; };

template <typename F> void with_flag(bool is_true, const F &f) {
    if (is_true) {
        f(flag<true>{});
    } else {
        f(flag<false>{});
    }
}

/* What a pointer points to, for decltype. */
template <typename T> T pointee(T *);

/* Threads of a block that walks over one row, in whole warps. */
inline unsigned threads_for_row(int64_t n_vectors) {
    int64_t n_rounds = (n_vectors + MAX_THREADS - 1) / MAX_THREADS;
    int64_t n = (n_vectors + n_rounds - 1) / n_rounds;
    return (unsigned)((n + WARP - 1) / WARP * WARP);
}

#endif
