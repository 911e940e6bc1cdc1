/* The fake device: what tests can set, and how the parts of the fake put work on it. See README.md.
 *
 * One device, one thread of the host at a time. Settings are read from the environment at the first call of anything:
 *   CYI_FAKE_CUDA_BYTES    memory of the device (default 1 GiB; K, M and G may follow the number)
 *   CYI_FAKE_CUDA_FAIL     the allocation that fails, counted from 1
 *   CYI_FAKE_CUDA_LAZY     1: work runs as late as the order of streams and events allows
 *   CYI_FAKE_CUDA_COMPUTE  compute capability, 80 … 120 (default 90)
 *   CYI_FAKE_CUDA_GEMM     "plain": gemm_can refuses bias, gate and residual; "none": it refuses the 8-bit types, too */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- For tests ---- */

/* As after the start of the program with an empty environment. Nothing may be held: what was allocated is gone. */
void fake_cuda_reset(void);
void fake_cuda_set_memory(size_t size_bytes);
void fake_cuda_set_compute(int compute); /* 90: sm_90 */
void fake_cuda_set_lazy(bool is_lazy);
/* The n-th allocation from now on fails (device memory and host memory of the runtime count alike); 0: none. */
void fake_cuda_fail_allocation(long n);
/* From now on every call reports code, as after a fault of the hardware. cudaSuccess: the device is well again. */
void fake_cuda_lose_device(cudaError_t code);
/* The n-th kernel, copy or library call from now on ends with this sticky error instead of running; 0: none. */
void fake_cuda_fail_work(long n, cudaError_t code);

enum fake_gemm_limits { FAKE_GEMM_ALL, FAKE_GEMM_PLAIN, FAKE_GEMM_NONE };
void fake_cuda_limit_gemm(enum fake_gemm_limits limits);

size_t fake_cuda_get_held_bytes(void); /* device memory that is allocated now */
size_t fake_cuda_get_peak_bytes(void);
long fake_cuda_get_n_held(
    void); /* blocks of the device and of the runtime's host memory that are allocated, streams, events, graphs */
long fake_cuda_get_n_work(void); /* kernels, copies and library calls that ran so far, replayed ones included */
bool fake_cuda_is_device_memory(const void *address);

/* Tests may look at device memory between these two, when all work is done. */
void fake_cuda_open_memory(void);
void fake_cuda_close_memory(void);

/* ---- For the fake's own parts ---- */

/* Puts run(data) on the stream, with a copy of size bytes at data, 16-byte aligned; device memory can be touched while it runs. Recorded
 * while the stream is captured. name: static storage. */
cudaError_t fake_cuda_enqueue(cudaStream_t stream, const char *name, void (*run)(void *data), const void *data,
                              size_t size);
/* The same for a kernel; checks the sizes of grid, block and shared memory as the hardware does. Faults become the last error. */
void fake_cuda_launch(cudaStream_t stream, const char *name, const void *kernel, dim3 grid, dim3 block,
                      size_t shared_bytes, void (*run)(void *data), const void *data, size_t size);
/* Runs thread(data) for every thread of the grid (fake_device.c). */
void fake_device_run(const char *name, dim3 grid, dim3 block, size_t shared_bytes, void (*thread)(void *data),
                     void *data);
/* Says what is wrong and ends the program: for what the hardware leaves undefined. */
__attribute__((noreturn, format(printf, 1, 2))) void fake_cuda_abort(const char *format, ...);
int fake_cuda_get_compute(void);
enum fake_gemm_limits fake_cuda_get_gemm_limits(void);

#ifdef __cplusplus
}
#endif

#endif
