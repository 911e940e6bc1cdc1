/* See test_kernels.h. */
#include "backend/cuda/gpu.cuh"
#include "test_kernels.h"

__global__ void write_indices(unsigned *y) {
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned i = block * blockDim.x * blockDim.y * blockDim.z + thread;
    y[i] = i;
}

void test_run_indices(unsigned *y, dim3 grid, dim3 block, cudaStream_t stream) {
    GPU_LAUNCH(write_indices, grid, block, 0, stream, y);
}

static __device__ __forceinline__ float sum_warp(float value) {
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffffU, value, step);
    }
    return value;
}

template <bool is_racing> __global__ void __launch_bounds__(1024) sum_block(const float *x, float *y) {
    __shared__ float sums[32];
    float value = sum_warp(x[blockIdx.x * blockDim.x + threadIdx.x]);
    if (threadIdx.x % 32 == 0) {
        sums[threadIdx.x / 32] = value;
    }
    if (!is_racing) {
        __syncthreads();
    }
    if (threadIdx.x < 32) {
        float all = sum_warp(threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0.0F);
        if (threadIdx.x == 0) {
            y[blockIdx.x] = all;
        }
    }
    if (!is_racing) {
        __syncthreads();
    }
}

void test_run_block_sum(const float *x, float *y, int n_blocks, int n, cudaStream_t stream) {
    GPU_LAUNCH(sum_block<false>, n_blocks, n, 0, stream, x, y);
}

void test_run_racing_sum(const float *x, float *y, int n_blocks, int n, cudaStream_t stream) {
    GPU_LAUNCH(sum_block<true>, n_blocks, n, 0, stream, x, y);
}

__global__ void shuffle(const int *x, int *y) {
    int lane = (int)threadIdx.x;
    int value = x[lane];
    y[lane] = __shfl_xor_sync(0xffffffffU, value, 1);
    y[32 + lane] = __shfl_down_sync(0xffffffffU, value, 3);
    y[64 + lane] = __shfl_up_sync(0xffffffffU, value, 2, 8);
    y[96 + lane] = __shfl_sync(0xffffffffU, value, 5);
}

void test_run_shuffles(const int *x, int *y, cudaStream_t stream) {
    GPU_LAUNCH(shuffle, 1, 32, 0, stream, x, y);
}

__global__ void vote(int *y, int n_stay) {
    if ((int)threadIdx.x >= n_stay) {
        return;
    }
    y[threadIdx.x] = __syncthreads_count(threadIdx.x % 2);
}

void test_run_votes(int *y, int n, int n_stay, cudaStream_t stream) {
    GPU_LAUNCH(vote, 1, n, 0, stream, y, n_stay);
}

__global__ void look_at_shared(float *y, int n) {
    GPU_SHARED(float, shared);
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) {
        y[blockIdx.x * (unsigned)n + (unsigned)i] = shared[i] != shared[i] ? 3.0F : 0.0F;
        shared[i] = 1.0F;
    }
}

void test_run_shared(float *y, int n_blocks, int n, size_t shared_bytes, cudaStream_t stream) {
    GPU_LAUNCH(look_at_shared, n_blocks, 32, shared_bytes, stream, y, n);
}

void test_allow_shared(size_t shared_bytes) {
    GPU_ALLOW_SHARED(look_at_shared, shared_bytes);
}

__global__ void add_value(float *x, float value, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) {
        x[i] += value;
    }
}

void test_run_add(float *x, float value, int n, cudaStream_t stream) {
    GPU_LAUNCH(add_value, (n + 127) / 128, 128, 0, stream, x, value, n);
}

__global__ void diverge(int *y) {
    int lane = (int)threadIdx.x;
    int value;
    if (lane < 16) {
        value = __shfl_sync(0x0000ffffU, lane, 3);
    } else {
        value = __shfl_sync(0xffff0000U, 100 + lane, 31);
    }
    __syncwarp();
    y[lane] = value + __shfl_xor_sync(0xffffffffU, value, 16);
}

void test_run_diverging(int *y, cudaStream_t stream) {
    GPU_LAUNCH(diverge, 1, 32, 0, stream, y);
}

__global__ void go_wrong(test_fault fault, float *x) {
    __shared__ float shared[32];
    volatile int beyond = 32; /* so that no compiler sees it */
    shared[threadIdx.x] = x[threadIdx.x];
    switch (fault) {
    case FAULT_LONELY_BARRIER:
        if (threadIdx.x < 16) {
            __syncthreads();
        } else {
            __syncwarp();
        }
        break;
    case FAULT_READS_ABSENT:
        if (threadIdx.x < 16) {
            x[threadIdx.x] = __shfl_xor_sync(0xffffU, 1.0F, 16);
        }
        break;
    case FAULT_MEETS_ELSEWHERE:
        if (threadIdx.x < 16) {
            x[0] = __shfl_xor_sync(0xffffffffU, 1.0F, 1);
        } else {
            __syncwarp();
        }
        break;
    case FAULT_NOT_IN_MASK:
        x[threadIdx.x] = __shfl_xor_sync(0xffffU, 1.0F, 1);
        break;
    case FAULT_BEYOND_SHARED:
        x[0] = shared[beyond];
        break;
    case FAULT_BEYOND_BLOCK:
        x[beyond] = 1.0F;
        break;
    }
}

void test_run_fault(test_fault fault, float *x, cudaStream_t stream) {
    GPU_LAUNCH(go_wrong, 1, 32, 0, stream, fault, x);
}

float test_round_bf16(float x) {
    return __bfloat162float(__float2bfloat16_rn(x));
}

float test_round_half(float x) {
    return __half2float(__float2half_rn(x));
}

float test_round_fp8(float x, int is_e5m2) {
    __nv_fp8_interpretation_t type = is_e5m2 ? __NV_E5M2 : __NV_E4M3;
    return __half2float(__nv_cvt_fp8_to_halfraw(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, type), type));
}

float test_decode_fp8(uint8_t code, int is_e5m2) {
    return __half2float(__nv_cvt_fp8_to_halfraw(code, is_e5m2 ? __NV_E5M2 : __NV_E4M3));
}
