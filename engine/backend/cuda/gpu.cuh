/* What every kernel file begins with. Kernels are started through GPU_LAUNCH, shared memory of a size known at the launch is
 * GPU_SHARED, and what only the hardware can do (matrix instructions, asynchronous copies) is reached through the functions below:
 * so the same files also compile as plain C++ against tests/fake_cuda, where tests run them on the processor. */
#ifndef BACKEND_CUDA_GPU_CUH
#define BACKEND_CUDA_GPU_CUH

#include "backend/cuda/gpu.h"

#ifdef CYI_FAKE_CUDA
#include "fake_device.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

/* kernel: a __global__ function, in brackets when it is a template with a comma. shared_bytes above 48 KiB needs GPU_ALLOW_SHARED before. */
#define GPU_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define GPU_ALLOW_SHARED(kernel, bytes)                                                                                            \
    (void)cudaFuncSetAttribute((const void *)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))
/* The block's dynamic shared memory, 128-byte aligned: GPU_SHARED(float, buffer); */
#define GPU_SHARED(type, name)                                                                                                     \
    extern __shared__ __align__(128) unsigned char name##_bytes[];                                                                 \
    type *name = reinterpret_cast<type *>(name##_bytes)
#endif

#endif
