/* CUDA's C++ for kernels as plain C++17: what gpu.cuh includes instead of CUDA's headers when CYI_FAKE_CUDA is defined.
 *
 * Threads of a block are fibers that run one after another up to the next __syncthreads or warp collective (fake_device.c). Blocks with an
 * even number start at the first thread and those with an odd number at the last, the other way round in every second launch: what lacks a
 * __syncthreads gives wrong numbers sooner or later. Static shared arrays are plain statics (ASan sees accesses beyond their ends), dynamic
 * shared memory is a heap block of the asked size, filled with NaN for every block. Rounding of conversions is the hardware's; functions
 * that the hardware approximates (__expf, rsqrtf, …) are exact to fp32 here. */
#ifndef FAKE_DEVICE_H
#define FAKE_DEVICE_H

#ifndef __cplusplus
#error "kernels are C++"
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "fake_cuda.h"

/* ---- Words of the language ---- */

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

#define warpSize 32

extern "C" {
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
extern unsigned char *fake_shared_memory;
extern size_t fake_shared_bytes;

void fake_sync_block(void);
/* Also combines a number of every thread: the sum of (predicate != 0). */
int fake_sync_block_count(int predicate);
/* Waits for the lanes of mask that have not left; the last one calls combine with every lane's in and out (NULL: not there). */
typedef void (*fake_combine)(const void *const *in, void *const *out, const void *user);
void fake_sync_warp(unsigned mask, const char *name, const void *in, void *out, fake_combine combine, const void *user);
int fake_lane(void);
}

/* ---- Launches ---- */

/* Arguments are converted to the kernel's types at the launch and copied, as CUDA does. */
template <typename... P> struct fake_kernel_call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
    dim3 grid, block;
    size_t shared_bytes;
    const char *name;
};

template <typename... P> void fake_run_thread(void *data) {
    auto *call = static_cast<fake_kernel_call<P...> *>(data);
    std::apply(call->kernel, call->arguments);
}

template <typename... P> void fake_run_kernel(void *data) {
    auto *call = static_cast<fake_kernel_call<P...> *>(data);
    fake_device_run(call->name, call->grid, call->block, call->shared_bytes, fake_run_thread<P...>, data);
}

/* A kernel must not be given memory that only the host has. */
template <typename T> void fake_check_argument(const char *name, const T &value) {
    if constexpr (std::is_pointer_v<T> && !std::is_function_v<std::remove_pointer_t<T>>) {
        const void *address = reinterpret_cast<const void *>(value);
        struct cudaPointerAttributes attributes;
        if (address != nullptr && (cudaPointerGetAttributes(&attributes, address) != cudaSuccess ||
                                   attributes.type == cudaMemoryTypeUnregistered)) {
            fake_cuda_abort("%s is given %p, which is not memory of the device", name, address);
        }
    } else {
        (void)name;
        (void)value;
    }
}

template <typename... P, typename... A>
void fake_launch_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                        void (*kernel)(P...), A &&...arguments) {
    static_assert(sizeof...(P) == sizeof...(A), "a kernel takes another number of arguments");
    static_assert((std::is_trivially_copyable_v<P> && ...), "a kernel's arguments are copied as bytes");
    static_assert(sizeof(std::tuple<P...>) <= 4096, "a kernel's arguments take 4096 bytes at most");
    fake_kernel_call<P...> call{ kernel,       std::tuple<P...>(static_cast<P>(std::forward<A>(arguments))...),
                                 grid,         block,
                                 shared_bytes, name };
    std::apply([&](const auto &...argument) { (fake_check_argument(name, argument), ...); }, call.arguments);
    fake_cuda_launch(stream, name, reinterpret_cast<const void *>(kernel), grid, block, shared_bytes,
                     fake_run_kernel<P...>, &call, sizeof call);
}

#define GPU_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                     \
    fake_launch_kernel(#kernel, grid, block, static_cast<size_t>(shared_bytes), stream, kernel, ##__VA_ARGS__)
#define GPU_ALLOW_SHARED(kernel, bytes)                                                                                \
    (void)cudaFuncSetAttribute((const void *)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))
#define GPU_SHARED(type, name) type *name = reinterpret_cast<type *>(fake_shared_memory)

/* ---- Synchronisation ---- */

#define FAKE_INLINE static inline __attribute__((unused))

FAKE_INLINE void __syncthreads() {
    fake_sync_block();
}
FAKE_INLINE int __syncthreads_count(int predicate) {
    return fake_sync_block_count(predicate);
}
FAKE_INLINE int __syncthreads_or(int predicate) {
    return fake_sync_block_count(predicate) != 0;
}
FAKE_INLINE int __syncthreads_and(int predicate) {
    return fake_sync_block_count(predicate == 0) == 0;
}
FAKE_INLINE void __threadfence_block() {
}
FAKE_INLINE void __threadfence() {
}

/* What only whole warps can do: every lane of mask brings `in` and takes an Out; f(in, out) sees those of all 32 lanes, in[lane] NULL for
 * a lane that does not take part. For matrix instructions and the like. */
template <typename In, typename Out, typename F>
inline Out fake_warp(unsigned mask, const char *name, const In &in, const F &f) {
    Out out{};
    fake_sync_warp(
        mask, name, &in, &out,
        [](const void *const *ins, void *const *outs, const void *user) {
            const In *typed_in[32];
            Out *typed_out[32];
            for (int i = 0; i < 32; i++) {
                typed_in[i] = static_cast<const In *>(ins[i]);
                typed_out[i] = static_cast<Out *>(outs[i]);
            }
            (*static_cast<const F *>(user))(typed_in, typed_out);
        },
        &f);
    return out;
}

FAKE_INLINE void __syncwarp(unsigned mask = 0xffffffffU) {
    fake_sync_warp(mask, "__syncwarp", nullptr, nullptr, nullptr, nullptr);
}

template <typename T> struct fake_shuffle_in {
    T value;
    int source;
};

/* The most frequent collective, so without the checks of every access. */
template <typename T>
__attribute__((no_sanitize("address", "undefined"))) void fake_combine_shuffle(const void *const *ins,
                                                                               void *const *outs, const void *name) {
    for (int i = 0; i < 32; i++) {
        if (ins[i] == nullptr) {
            continue;
        }
        int source = static_cast<const fake_shuffle_in<T> *>(ins[i])->source;
        if (ins[source] == nullptr) {
            fake_cuda_abort("%s: lane %d reads lane %d, which does not take part", static_cast<const char *>(name), i,
                            source);
        }
        *static_cast<T *>(outs[i]) = static_cast<const fake_shuffle_in<T> *>(ins[source])->value;
    }
}

template <typename T> inline T fake_shuffle(unsigned mask, const char *name, T value, int source) {
    fake_shuffle_in<T> in{ value, source };
    T out;
    fake_sync_warp(mask, name, &in, &out, fake_combine_shuffle<T>, name);
    return out;
}

template <typename T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    return fake_shuffle(mask, "__shfl_sync", value, (fake_lane() & ~(width - 1)) | (source & (width - 1)));
}
template <typename T> inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
    int lane = fake_lane();
    int source = lane ^ lane_mask;
    return fake_shuffle(mask, "__shfl_xor_sync", value, source <= (lane | (width - 1)) ? source : lane);
}
template <typename T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = fake_lane();
    int source = lane + static_cast<int>(delta);
    return fake_shuffle(mask, "__shfl_down_sync", value, source <= (lane | (width - 1)) ? source : lane);
}
template <typename T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = fake_lane();
    int source = lane - static_cast<int>(delta);
    return fake_shuffle(mask, "__shfl_up_sync", value, source >= (lane & ~(width - 1)) ? source : lane);
}
FAKE_INLINE unsigned __ballot_sync(unsigned mask, int predicate) {
    return fake_warp<int, unsigned>(mask, "__ballot_sync", predicate, [](const int *const *in, unsigned *const *out) {
        unsigned votes = 0;
        for (int i = 0; i < 32; i++) {
            votes |= in[i] != nullptr && *in[i] != 0 ? 1U << i : 0U;
        }
        for (int i = 0; i < 32; i++) {
            if (out[i] != nullptr) {
                *out[i] = votes;
            }
        }
    });
}
FAKE_INLINE int __any_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0;
}
FAKE_INLINE int __all_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate == 0) == 0;
}

/* ---- Vectors ---- */

FAKE_INLINE float2 make_float2(float x, float y) {
    return float2{ x, y };
}
FAKE_INLINE float3 make_float3(float x, float y, float z) {
    return float3{ x, y, z };
}
FAKE_INLINE float4 make_float4(float x, float y, float z, float w) {
    return float4{ x, y, z, w };
}
FAKE_INLINE int2 make_int2(int x, int y) {
    return int2{ x, y };
}
FAKE_INLINE int4 make_int4(int x, int y, int z, int w) {
    return int4{ x, y, z, w };
}
FAKE_INLINE uint2 make_uint2(unsigned x, unsigned y) {
    return uint2{ x, y };
}
FAKE_INLINE uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return uint4{ x, y, z, w };
}
FAKE_INLINE char4 make_char4(signed char x, signed char y, signed char z, signed char w) {
    return char4{ x, y, z, w };
}
FAKE_INLINE uchar4 make_uchar4(unsigned char x, unsigned char y, unsigned char z, unsigned char w) {
    return uchar4{ x, y, z, w };
}

/* ---- Arithmetic ---- */

template <typename To, typename From> inline To fake_bits(const From &from) {
    static_assert(sizeof(To) == sizeof(From), "bits of another size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

FAKE_INLINE unsigned __float_as_uint(float x) {
    return fake_bits<unsigned>(x);
}
FAKE_INLINE int __float_as_int(float x) {
    return fake_bits<int>(x);
}
FAKE_INLINE float __uint_as_float(unsigned x) {
    return fake_bits<float>(x);
}
FAKE_INLINE float __int_as_float(int x) {
    return fake_bits<float>(x);
}
/* Macros, because the C library has functions of these names. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanhf(x) tanhf(x)
/* 0 for divisors whose magnitude is above 2^126, as the hardware. */
FAKE_INLINE float __fdividef(float x, float y) {
    return fabsf(y) > 8.507059173023462e37F && !std::isinf(x) && std::isfinite(y) ? 0.0F * x * y : x / y;
}
FAKE_INLINE float __fdiv_rn(float x, float y) {
    return x / y;
}
FAKE_INLINE float __frcp_rn(float x) {
    return 1.0F / x;
}
FAKE_INLINE float __fsqrt_rn(float x) {
    return sqrtf(x);
}
FAKE_INLINE float __frsqrt_rn(float x) {
    return static_cast<float>(1.0 / sqrt(static_cast<double>(x)));
}
FAKE_INLINE float rsqrtf(float x) {
    return static_cast<float>(1.0 / sqrt(static_cast<double>(x)));
}
FAKE_INLINE float __fmaf_rn(float x, float y, float z) {
    return fmaf(x, y, z);
}
FAKE_INLINE float __fmul_rn(float x, float y) {
    return x * y;
}
FAKE_INLINE float __fadd_rn(float x, float y) {
    return x + y;
}
FAKE_INLINE float __fsub_rn(float x, float y) {
    return x - y;
}
FAKE_INLINE float __saturatef(float x) {
    return x > 0.0F ? (x < 1.0F ? x : 1.0F) : 0.0F;
}
/* NaN gives 0, what does not fit the nearest that does. */
FAKE_INLINE int __float2int_rn(float x) {
    return std::isnan(x)         ? 0
           : x >= 2147483648.0F  ? INT32_MAX
           : x <= -2147483648.0F ? INT32_MIN
                                 : static_cast<int>(rintf(x));
}
FAKE_INLINE int __float2int_rz(float x) {
    return __float2int_rn(truncf(x));
}
FAKE_INLINE float __int2float_rn(int x) {
    return static_cast<float>(x);
}
FAKE_INLINE int __popc(unsigned x) {
    return __builtin_popcount(x);
}
FAKE_INLINE int __clz(int x) {
    return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
FAKE_INLINE int __ffs(int x) {
    return __builtin_ffs(x);
}
template <typename T> inline T __ldg(const T *address) {
    return *address;
}
template <typename T> inline T __ldcs(const T *address) {
    return *address;
}
template <typename T> inline T __ldcg(const T *address) {
    return *address;
}
template <typename T> inline void __stcs(T *address, T value) {
    *address = value;
}
template <typename T> inline void __stcg(T *address, T value) {
    *address = value;
}

template <typename A, typename B, typename = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
constexpr std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b);
}
template <typename A, typename B, typename = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
constexpr std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}

/* ---- bf16 ---- */

/* Round to nearest, ties to even; NaN becomes 0x7fff, as the hardware writes it. */
FAKE_INLINE unsigned short fake_float_to_bf16(float value) {
    unsigned bits = fake_bits<unsigned>(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) {
        return 0x7fff;
    }
    return static_cast<unsigned short>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

struct __align__(2) __nv_bfloat16_raw {
    unsigned short x;
};
struct __align__(4) __nv_bfloat162_raw {
    unsigned short x, y;
};

struct __align__(2) __nv_bfloat16 {
    unsigned short fake_bits_;
    __nv_bfloat16() = default;
    __nv_bfloat16(float value) : fake_bits_(fake_float_to_bf16(value)) {
    }
    __nv_bfloat16(__nv_bfloat16_raw raw) : fake_bits_(raw.x) {
    }
    operator float() const {
        return fake_bits<float>(static_cast<unsigned>(fake_bits_) << 16);
    }
    operator __nv_bfloat16_raw() const {
        return __nv_bfloat16_raw{ fake_bits_ };
    }
};

struct __align__(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
    __nv_bfloat162() = default;
    __nv_bfloat162(__nv_bfloat16 x_, __nv_bfloat16 y_) : x(x_), y(y_) {
    }
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

FAKE_INLINE __nv_bfloat16 __float2bfloat16_rn(float x) {
    return __nv_bfloat16(x);
}
FAKE_INLINE __nv_bfloat16 __float2bfloat16(float x) {
    return __nv_bfloat16(x);
}
FAKE_INLINE float __bfloat162float(__nv_bfloat16 x) {
    return static_cast<float>(x);
}
FAKE_INLINE __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return __nv_bfloat162(__nv_bfloat16(x), __nv_bfloat16(y));
}
FAKE_INLINE __nv_bfloat162 __float22bfloat162_rn(float2 x) {
    return __floats2bfloat162_rn(x.x, x.y);
}
FAKE_INLINE float2 __bfloat1622float2(__nv_bfloat162 x) {
    return float2{ static_cast<float>(x.x), static_cast<float>(x.y) };
}
FAKE_INLINE __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) {
    return __nv_bfloat162(x, y);
}
FAKE_INLINE float __low2float(__nv_bfloat162 x) {
    return static_cast<float>(x.x);
}
FAKE_INLINE float __high2float(__nv_bfloat162 x) {
    return static_cast<float>(x.y);
}
FAKE_INLINE unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) {
    return x.fake_bits_;
}
FAKE_INLINE __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) {
    return __nv_bfloat16(__nv_bfloat16_raw{ x });
}

/* ---- Half ---- */

FAKE_INLINE float fake_half_to_float(unsigned short half) {
    unsigned exponent = (half >> 10) & 0x1fU;
    unsigned fraction = half & 0x3ffU;
    float magnitude = exponent == 0    ? ldexpf(static_cast<float>(fraction), -24)
                      : exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                                       : ldexpf(static_cast<float>(1024U + fraction), static_cast<int>(exponent) - 25);
    return (half & 0x8000U) != 0 ? -magnitude : magnitude;
}

FAKE_INLINE unsigned short fake_float_to_half(float value) {
    unsigned sign = (fake_bits<unsigned>(value) >> 16) & 0x8000U;
    float magnitude = fabsf(value);
    if (std::isnan(value)) {
        return 0x7fff;
    }
    if (magnitude >= 65520.0F) {
        return static_cast<unsigned short>(sign | 0x7c00U);
    }
    int exponent = magnitude < 6.103515625e-05F ? -14 : ilogbf(magnitude);
    unsigned steps =
        static_cast<unsigned>(rintf(ldexpf(magnitude, 10 - exponent))); /* the carry goes into the exponent */
    return static_cast<unsigned short>(sign | (steps + (static_cast<unsigned>(exponent + 14) << 10)));
}

struct __align__(2) __half_raw {
    unsigned short x;
};
struct __align__(2) __half {
    unsigned short fake_bits_;
    __half() = default;
    __half(float value) : fake_bits_(fake_float_to_half(value)) {
    }
    __half(__half_raw raw) : fake_bits_(raw.x) {
    }
    operator float() const {
        return fake_half_to_float(fake_bits_);
    }
    operator __half_raw() const {
        return __half_raw{ fake_bits_ };
    }
};
struct __align__(4) __half2 {
    __half x, y;
};
typedef __half half;
typedef __half2 half2;

FAKE_INLINE float __half2float(__half x) {
    return static_cast<float>(x);
}
FAKE_INLINE __half __float2half_rn(float x) {
    return __half(x);
}
FAKE_INLINE __half __float2half(float x) {
    return __half(x);
}
FAKE_INLINE float2 __half22float2(__half2 x) {
    return float2{ static_cast<float>(x.x), static_cast<float>(x.y) };
}
FAKE_INLINE __half __ushort_as_half(unsigned short x) {
    return __half(__half_raw{ x });
}
FAKE_INLINE unsigned short __half_as_ushort(__half x) {
    return x.fake_bits_;
}

/* ---- fp8 ---- */

enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 };
enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE };
typedef unsigned char __nv_fp8_storage_t;
typedef unsigned short __nv_fp8x2_storage_t;

/* To nearest, ties to even; what does not fit becomes the largest finite value (SATFINITE), else NaN (E4M3) or infinity (E5M2). */
FAKE_INLINE __nv_fp8_storage_t __nv_cvt_float_to_fp8(float value, __nv_saturation_t saturate,
                                                     __nv_fp8_interpretation_t type) {
    const int n_fraction = type == __NV_E4M3 ? 3 : 2;
    const int bias = type == __NV_E4M3 ? 7 : 15;
    const float largest = type == __NV_E4M3 ? 448.0F : 57344.0F;
    unsigned sign = (fake_bits<unsigned>(value) >> 24) & 0x80U;
    float magnitude = fabsf(value);
    if (std::isnan(value)) {
        return type == __NV_E4M3 ? 0x7f : 0x7e;
    }
    if (magnitude > largest && saturate == __NV_SATFINITE) {
        magnitude = largest;
    }
    int exponent = magnitude < ldexpf(1.0F, 1 - bias) ? 1 - bias : magnitude > 65536.0F ? 16 : ilogbf(magnitude);
    float steps = rintf(ldexpf(magnitude, n_fraction - exponent));
    if (ldexpf(steps, exponent - n_fraction) > largest) {
        return static_cast<__nv_fp8_storage_t>(sign | (type == __NV_E4M3 ? 0x7fU : 0x7cU));
    }
    return static_cast<__nv_fp8_storage_t>(
        sign | (static_cast<unsigned>(steps) + (static_cast<unsigned>(exponent + bias - 1) << n_fraction)));
}
FAKE_INLINE __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 value, __nv_saturation_t saturate,
                                                          __nv_fp8_interpretation_t type) {
    unsigned low = __nv_cvt_float_to_fp8(value.x, saturate, type);
    unsigned high = __nv_cvt_float_to_fp8(value.y, saturate, type);
    return static_cast<__nv_fp8x2_storage_t>(low | high << 8);
}
FAKE_INLINE __half_raw __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t code, __nv_fp8_interpretation_t type) {
    if (type == __NV_E5M2) {
        return __half_raw{ static_cast<unsigned short>((code & 0x7fU) > 0x7cU ? 0x7fffU
                                                                              : static_cast<unsigned>(code) << 8) };
    }
    unsigned exponent = (code >> 3) & 0xfU;
    unsigned fraction = code & 7U;
    float magnitude = exponent == 0 ? ldexpf(static_cast<float>(fraction), -9)
                                    : ldexpf(static_cast<float>(8U + fraction), static_cast<int>(exponent) - 10);
    if ((code & 0x7fU) == 0x7fU) {
        return __half_raw{ 0x7fff };
    }
    return __half_raw{ fake_float_to_half((code & 0x80U) != 0 ? -magnitude : magnitude) };
}

#endif
