/* The fake runtime: the device, its settings and its errors. */
#include "fake_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_BYTES ((size_t)1 << 30)
#define DEFAULT_COMPUTE 90
#define DEFAULT_SHARED_BYTES 49152

static struct fake_settings settings;
static bool has_settings;
static cudaError_t sticky, last_error;

void fake_cuda_abort(const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)fputs("fake cuda: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    abort();
}

/* ---- Settings ---- */

static size_t read_bytes(const char *text, size_t otherwise) {
    char *end = NULL;
    unsigned long long value = text != NULL ? strtoull(text, &end, 10) : 0;
    if (value == 0) {
        return otherwise;
    }
    const char *units = "KMG";
    const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
    return (size_t)value << (unit != NULL ? 10 * (unit - units + 1) : 0);
}

static long read_long(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text != NULL ? strtol(text, NULL, 10) : otherwise;
}

struct fake_settings *fake_settings(void) {
    if (!has_settings) {
        const char *gemm = getenv("CYI_FAKE_CUDA_GEMM");
        gemm = gemm != NULL ? gemm : "";
        settings = (struct fake_settings){
            .memory_bytes = read_bytes(getenv("CYI_FAKE_CUDA_BYTES"), DEFAULT_BYTES),
            .compute = (int)read_long("CYI_FAKE_CUDA_COMPUTE", DEFAULT_COMPUTE),
            .is_lazy = read_long("CYI_FAKE_CUDA_LAZY", 0) != 0,
            .allocations_to_failure = read_long("CYI_FAKE_CUDA_FAIL", 0),
            .gemm_limits = strcmp(gemm, "plain") == 0  ? FAKE_GEMM_PLAIN
                           : strcmp(gemm, "none") == 0 ? FAKE_GEMM_NONE
                                                       : FAKE_GEMM_ALL,
        };
        has_settings = true;
    }
    return &settings;
}

void fake_cuda_reset(void) {
    fake_streams_reset();
    fake_memory_reset();
    sticky = cudaSuccess;
    last_error = cudaSuccess;
    has_settings = true;
    settings = (struct fake_settings){ .memory_bytes = DEFAULT_BYTES, .compute = DEFAULT_COMPUTE };
}

/* A plug-in leaves nothing behind. */
__attribute__((destructor)) static void leave(void) {
    fake_streams_reset();
    fake_memory_reset();
}

void fake_cuda_set_memory(size_t size_bytes) {
    fake_settings()->memory_bytes = size_bytes;
}

void fake_cuda_set_compute(int compute) {
    fake_settings()->compute = compute;
}

void fake_cuda_set_lazy(bool is_lazy) {
    (void)fake_drain_all();
    fake_settings()->is_lazy = is_lazy;
}

void fake_cuda_fail_allocation(long n) {
    fake_settings()->allocations_to_failure = n;
}

void fake_cuda_lose_device(cudaError_t code) {
    sticky = code;
    last_error = code;
}

void fake_cuda_fail_work(long n, cudaError_t code) {
    fake_settings()->work_to_failure = n;
    fake_settings()->work_failure = code;
}

void fake_cuda_limit_gemm(enum fake_gemm_limits limits) {
    fake_settings()->gemm_limits = limits;
}

enum fake_gemm_limits fake_cuda_get_gemm_limits(void) {
    return fake_settings()->gemm_limits;
}

int fake_cuda_get_compute(void) {
    return fake_settings()->compute;
}

long fake_cuda_get_n_held(void) {
    return fake_memory_get_n_held() + fake_streams_get_n_held();
}

/* ---- Errors ---- */

cudaError_t fake_begin_call(void) {
    (void)fake_settings();
    return sticky;
}

cudaError_t fake_fail(cudaError_t code) {
    last_error = code;
    return code;
}

void fake_set_sticky(cudaError_t code) {
    sticky = code;
    last_error = code;
}

cudaError_t fake_get_sticky(void) {
    return sticky;
}

cudaError_t cudaGetLastError(void) {
    cudaError_t code = sticky != cudaSuccess ? sticky : last_error;
    last_error = cudaSuccess;
    return code;
}

cudaError_t cudaPeekAtLastError(void) {
    return sticky != cudaSuccess ? sticky : last_error;
}

static const struct {
    cudaError_t code;
    const char *name, *text;
} error_rows[] = {
    { cudaSuccess, "cudaSuccess", "no error" },
    { cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument" },
    { cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory" },
    { cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error" },
    { cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument" },
    { cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer" },
    { cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy" },
    { cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
      "CUDA driver version is insufficient for CUDA runtime version" },
    { cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable" },
    { cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected" },
    { cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal" },
    { cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
      "no kernel image is available for execution on the device" },
    { cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered" },
    { cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle" },
    { cudaErrorNotReady, "cudaErrorNotReady", "device not ready" },
    { cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered" },
    { cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch" },
    { cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "the launch timed out and was terminated" },
    { cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
      "part or all of the requested memory range is already mapped" },
    { cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
      "pointer does not correspond to a registered memory region" },
    { cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure" },
    { cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported" },
    { cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
      "operation not permitted when stream is capturing" },
    { cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
      "operation failed due to a previous error during capture" },
    { cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched", "capture was not initiated in this stream" },
    { cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
      "operation would make the legacy stream depend on a capturing blocking stream" },
};
#define N_ERRORS (sizeof error_rows / sizeof error_rows[0])

const char *cudaGetErrorName(cudaError_t code) {
    for (size_t i = 0; i < N_ERRORS; i++) {
        if (error_rows[i].code == code) {
            return error_rows[i].name;
        }
    }
    return "cudaErrorUnknown";
}

const char *cudaGetErrorString(cudaError_t code) {
    for (size_t i = 0; i < N_ERRORS; i++) {
        if (error_rows[i].code == code) {
            return error_rows[i].text;
        }
    }
    return "unknown error";
}

/* ---- The device ---- */

static int get_opt_in_shared_bytes(void) {
    switch (fake_settings()->compute) {
    case 80:
    case 87:
        return 163 * 1024;
    case 86:
    case 89:
    case 120:
        return 99 * 1024;
    default:
        return 227 * 1024;
    }
}

static cudaError_t begin_with_device(int device) {
    cudaError_t code = fake_begin_call();
    return code != cudaSuccess ? code : device == 0 ? cudaSuccess : fake_fail(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceCount(int *ret_count) {
    cudaError_t code = fake_begin_call();
    if (code == cudaSuccess) {
        *ret_count = 1;
    }
    return code;
}

cudaError_t cudaGetDevice(int *ret_device) {
    cudaError_t code = fake_begin_call();
    if (code == cudaSuccess) {
        *ret_device = 0;
    }
    return code;
}

cudaError_t cudaSetDevice(int device) {
    return begin_with_device(device);
}

cudaError_t cudaInitDevice(int device, unsigned flags, unsigned more_flags) {
    (void)flags;
    (void)more_flags;
    return begin_with_device(device);
}

cudaError_t cudaSetDeviceFlags(unsigned flags) {
    (void)flags;
    return fake_begin_call();
}

cudaError_t cudaDeviceReset(void) {
    fake_streams_reset();
    fake_memory_reset();
    return fake_begin_call();
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *ret, int device) {
    cudaError_t code = begin_with_device(device);
    if (code != cudaSuccess) {
        return code;
    }
    int compute = fake_settings()->compute;
    *ret = (struct cudaDeviceProp){
        .name = "Fake device",
        .totalGlobalMem = fake_settings()->memory_bytes,
        .sharedMemPerBlock = DEFAULT_SHARED_BYTES,
        .sharedMemPerMultiprocessor = (size_t)get_opt_in_shared_bytes() + 1024,
        .sharedMemPerBlockOptin = (size_t)get_opt_in_shared_bytes(),
        .regsPerBlock = 65536,
        .warpSize = 32,
        .maxThreadsPerBlock = 1024,
        .maxThreadsDim = { 1024, 1024, 64 },
        .maxGridSize = { 2147483647, 65535, 65535 },
        .major = compute / 10,
        .minor = compute % 10,
        .multiProcessorCount = 8,
        .l2CacheSize = 1 << 22,
        .maxThreadsPerMultiProcessor = 2048,
        .memoryBusWidth = 256,
    };
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *ret, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp properties;
    cudaError_t code = cudaGetDeviceProperties(&properties, device);
    if (code != cudaSuccess) {
        return code;
    }
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *ret = properties.maxThreadsPerBlock;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *ret = DEFAULT_SHARED_BYTES;
        return cudaSuccess;
    case cudaDevAttrWarpSize:
        *ret = properties.warpSize;
        return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        *ret = properties.multiProcessorCount;
        return cudaSuccess;
    case cudaDevAttrIntegrated:
        *ret = properties.integrated;
        return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *ret = properties.maxThreadsPerMultiProcessor;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *ret = properties.major;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *ret = properties.minor;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *ret = get_opt_in_shared_bytes();
        return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
        *ret = 1;
        return cudaSuccess;
    }
    return fake_fail(cudaErrorInvalidValue);
}

cudaError_t cudaDriverGetVersion(int *ret_version) {
    *ret_version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *ret_version) {
    *ret_version = CUDART_VERSION;
    return cudaSuccess;
}

/* ---- Launches ---- */

#define MAX_KERNELS 256

/* Kernels that may have more dynamic shared memory than 48 KiB. */
static struct {
    const void *kernel;
    size_t shared_bytes;
} allowed[MAX_KERNELS];
static int n_allowed;

static size_t get_allowed_bytes(const void *kernel) {
    for (int i = 0; i < n_allowed; i++) {
        if (allowed[i].kernel == kernel) {
            return allowed[i].shared_bytes > DEFAULT_SHARED_BYTES ? allowed[i].shared_bytes : DEFAULT_SHARED_BYTES;
        }
    }
    return DEFAULT_SHARED_BYTES;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value) {
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess || attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
        return code;
    }
    if (value < 0 || value > get_opt_in_shared_bytes()) {
        return fake_fail(cudaErrorInvalidValue);
    }
    int i = 0;
    while (i < n_allowed && allowed[i].kernel != kernel) {
        i++;
    }
    if (i == MAX_KERNELS) {
        fake_cuda_abort("more than %d kernels with much shared memory", MAX_KERNELS);
    }
    n_allowed += i == n_allowed ? 1 : 0;
    allowed[i].kernel = kernel;
    allowed[i].shared_bytes = (size_t)value;
    return cudaSuccess;
}

void fake_cuda_launch(cudaStream_t stream, const char *name, const void *kernel, dim3 grid, dim3 block,
                      size_t shared_bytes, void (*run)(void *data), const void *data, size_t size) {
    if (fake_begin_call() != cudaSuccess) {
        return;
    }
    uint64_t n_threads = (uint64_t)block.x * block.y * block.z;
    bool has_grid =
        grid.x >= 1 && grid.x <= 2147483647U && grid.y >= 1 && grid.y <= 65535U && grid.z >= 1 && grid.z <= 65535U;
    bool has_block =
        block.x >= 1 && block.x <= 1024U && block.y >= 1 && block.y <= 1024U && block.z >= 1 && block.z <= 64U;
    if (!has_grid || !has_block || n_threads > 1024) {
        (void)fprintf(stderr, "fake cuda: %s: grid (%u, %u, %u) of blocks (%u, %u, %u)\n", name, grid.x, grid.y, grid.z,
                      block.x, block.y, block.z);
        (void)fake_fail(cudaErrorInvalidConfiguration);
        return;
    }
    if (shared_bytes > get_allowed_bytes(kernel)) {
        (void)fprintf(stderr, "fake cuda: %s: %zu bytes of shared memory, allowed are %zu\n", name, shared_bytes,
                      get_allowed_bytes(kernel));
        (void)fake_fail(cudaErrorInvalidValue);
        return;
    }
    cudaError_t code = fake_cuda_enqueue(stream, name, run, data, size);
    if (code != cudaSuccess) {
        (void)fake_fail(code);
    }
}
