/* The CUDA backend: what it says of itself, its beginning and end, dispatch. See cuda.h. */
#include "backend/cuda/cuda.h"

#include <stdio.h>
#include <string.h>

#include "backend/cuda/private.h"

#define MIN_COMPUTE 80
#define FP8_COMPUTE 89
#define WORKSPACE_BYTES ((size_t)64 << 20)

/* ---- Errors ---- */

enum cyi_status cuda_check(cudaError_t code, const char *what, struct cyi_error *err) {
    if (code == cudaSuccess) {
        return CYI_OK;
    }
    (void)cudaGetLastError(); /* reported here, not once more by the next launch */
    return error_set(err, code == cudaErrorMemoryAllocation ? CYI_E_MEMORY : CYI_E_IO, "the card failed at %s: %s (%s)",
                     what, cudaGetErrorString(code), cudaGetErrorName(code));
}

enum cyi_status cuda_check_launch(const char *what, struct cyi_error *err) {
    return cuda_check(cudaPeekAtLastError(), what, err);
}

/* ---- Views ---- */

enum gpu_type cuda_type(enum dtype dtype) {
    switch (dtype) {
    case DTYPE_F16:
        return GPU_F16;
    case DTYPE_BF16:
        return GPU_BF16;
    case DTYPE_F8_E4M3:
        return GPU_F8_E4M3;
    case DTYPE_F8_E5M2:
        return GPU_F8_E5M2;
    default:
        return GPU_F32;
    }
}

struct gpu_matrix cuda_matrix(const struct tensor *t) {
    return (struct gpu_matrix){ t->data, cuda_type(t->dtype), tensor_n_rows(t), tensor_n_cols(t), t->row_stride };
}

/* ---- Operations ---- */

/* What an operation writes. */
static const struct tensor *result_of(enum op op, const void *args) {
    switch (op) {
    case OP_ATTENTION:
        return ((const struct attention_args *)args)->out;
    case OP_GROUP_NORM:
        return ((const struct group_norm_args *)args)->scale;
    case OP_LINEAR:
        return ((const struct linear_args *)args)->y;
    case OP_LAYER_NORM:
        return ((const struct layer_norm_args *)args)->y;
    case OP_RMS_NORM:
        return ((const struct rms_norm_args *)args)->y;
    case OP_QK_NORM_ROPE:
        return ((const struct qk_norm_rope_args *)args)->y;
    case OP_SWIGLU:
        return ((const struct swiglu_args *)args)->y;
    case OP_SILU:
        return ((const struct silu_args *)args)->y;
    case OP_ADD:
        return ((const struct add_args *)args)->y;
    case OP_CAST:
        return ((const struct cast_args *)args)->y;
    case OP_EMBED:
        return ((const struct embed_args *)args)->y;
    case OP_CHANNEL_AFFINE:
        return ((const struct channel_affine_args *)args)->y;
    default:
        return ((const struct conv2d_args *)args)->y;
    }
}

/* The runtime's current device belongs to the calling thread. */
static enum cyi_status use_device(const struct cuda *c, struct cyi_error *err) {
    return cuda_check(cudaSetDevice(c->device), "choosing the card", err);
}

static enum cyi_status run(struct backend *backend, enum op op, const void *args, struct cyi_error *err) {
    struct cuda *c = (struct cuda *)backend;
    enum cyi_status st = use_device(c, err);
    if (st != CYI_OK || graphs_is_broken(c)) {
        return st;
    }
    memory_reset_scratch(c);
    weights_begin_operation(c);
    switch (op) {
#define OP(ID, name)                                                                                                   \
    case OP_##ID:                                                                                                      \
        st = cuda_##name(c, args, err);                                                                                \
        break;
#include "ops/ops.def"
#undef OP
    default:
        st = error_set(err, CYI_E_UNSUPPORTED, "operation %d is unknown to the CUDA backend", (int)op);
        break;
    }
    if (st == CYI_OK) {
        st = cuda_check_launch(op_name(op), err);
    } else if (graphs_is_broken(c)) {
        st = CYI_OK; /* of a step that is lost */
    }
    codes_end_operation(c, result_of(op, args));
    return st;
}

static enum cyi_status sync(struct backend *backend, struct cyi_error *err) {
    struct cuda *c = (struct cuda *)backend;
    enum cyi_status st = use_device(c, err);
    return st != CYI_OK ? st : cuda_check(cudaStreamSynchronize(c->stream), "its work", err);
}

/* ---- Memory ---- */

static const struct cyi_allocator *get_memory(struct backend *backend) {
    return memory_get_allocator((struct cuda *)backend);
}

static enum cyi_status upload(struct backend *backend, const struct tensor *host, const struct tensor *device,
                              struct cyi_error *err) {
    struct cuda *c = (struct cuda *)backend;
    enum cyi_status st = use_device(c, err);
    return st != CYI_OK ? st : memory_upload_tensor(c, host, device, err);
}

static enum cyi_status download(struct backend *backend, const struct tensor *from, const struct tensor *host,
                                struct cyi_error *err) {
    struct cuda *c = (struct cuda *)backend;
    enum cyi_status st = use_device(c, err);
    return st != CYI_OK ? st : memory_download_tensor(c, from, host, err);
}

static void enter(struct backend *backend) {
    weights_enter((struct cuda *)backend);
}

static enum cyi_status begin_recording(struct backend *backend, uint64_t key, bool *ret_is_replayed,
                                       struct cyi_error *err) {
    struct cuda *c = (struct cuda *)backend;
    enum cyi_status st = use_device(c, err);
    return st != CYI_OK ? st : graphs_begin(c, key, ret_is_replayed, err);
}

static enum cyi_status end_recording(struct backend *backend, bool is_complete, bool *ret_is_lost,
                                     struct cyi_error *err) {
    return graphs_end((struct cuda *)backend, is_complete, ret_is_lost, err);
}

static uint64_t get_available_bytes(struct backend *backend) {
    const struct cuda *c = (const struct cuda *)backend;
    return memory_get_free(c) + weights_get_evictable(c);
}

static size_t get_peak(const struct backend *backend) {
    return memory_get_peak((const struct cuda *)backend);
}

static const struct device_vtable device = {
    .get_memory = get_memory,
    .upload = upload,
    .download = download,
    .enter = enter,
    .begin_recording = begin_recording,
    .end_recording = end_recording,
    .get_available_bytes = get_available_bytes,
};

/* ---- Beginning and end ---- */

static void free_cuda(struct backend *backend) {
    struct cuda *c = (struct cuda *)backend;
    (void)cudaSetDevice(c->device);
    if (c->stream != NULL) {
        (void)cudaStreamSynchronize(c->stream);
    }
    graphs_free(c);
    codes_free(c);
    weights_free(c);
    gemm_free(c->gemm);
    conv_free(c->conv);
    memory_free(c);
    if (c->stream != NULL) {
        (void)cudaStreamDestroy(c->stream);
    }
    mem_free(c->allocator, c);
}

static const struct backend_vtable vtable = {
    .name = "cuda",
    .run = run,
    .sync = sync,
    .get_peak = get_peak,
    .free = free_cuda,
    .device = &device,
};

static void *get_workspace(void *user, size_t n_bytes) {
    return cuda_scratch(user, n_bytes);
}

static enum cyi_status create_parts(struct cuda *c, const struct backend_options *options, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    TRY(use_device(c, err));
    TRY(cuda_check(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "a stream", err));
    TRY(memory_create(c, options->max_device_bytes, options->n_threads, err));
    TRY(weights_create(c, err));
    TRY(codes_create(c, err));
    TRY(graphs_create(c, err));
    void *workspace = memory_take(c, WORKSPACE_BYTES, false);
    if (workspace == NULL) {
        TRY(error_memory(err, "a workspace on the card", WORKSPACE_BYTES));
    }
    TRY(gemm_create(c->allocator, workspace, WORKSPACE_BYTES, &c->gemm, err));
    TRY(conv_create(c->allocator, get_workspace, c, &c->conv, err));
done:
    return st;
}

static enum cyi_status create(const struct backend_options *options, struct backend **ret_backend,
                              struct cyi_error *err) {
    struct cudaDeviceProp properties;
    struct cuda *c = mem_alloc_zeroed(options->allocator, 1, sizeof *c);
    if (c == NULL) {
        return error_memory(err, "the CUDA backend", sizeof *c);
    }
    c->base.vtable = &vtable;
    c->allocator = options->allocator;
    c->device = options->device;
    c->products = options->products;
    enum cyi_status st = cuda_check(cudaGetDeviceProperties(&properties, options->device), "its properties", err);
    if (st == CYI_OK) {
        c->compute = properties.major * 10 + properties.minor;
        st = create_parts(c, options, err);
    }
    if (st != CYI_OK) {
        free_cuda(&c->base);
        return st;
    }
    *ret_backend = &c->base;
    return CYI_OK;
}

/* ---- What it says of itself ---- */

static enum cyi_status count_devices(int *ret_n, struct cyi_error *err) {
    int driver = 0;
    int runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0) {
        return error_set(err, CYI_E_UNSUPPORTED, "there is no NVIDIA driver on this machine");
    }
    cudaError_t code = cudaGetDeviceCount(ret_n);
    (void)cudaGetLastError();
    if (code == cudaErrorInsufficientDriver) {
        return error_set(err, CYI_E_UNSUPPORTED,
                         "the NVIDIA driver is too old: it knows CUDA %d.%d, this build needs %d.%d", driver / 1000,
                         driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (code == cudaErrorNoDevice || (code == cudaSuccess && *ret_n == 0)) {
        return error_set(err, CYI_E_UNSUPPORTED, "the NVIDIA driver finds no card");
    }
    if (code != cudaSuccess) {
        return error_set(err, CYI_E_UNSUPPORTED, "the NVIDIA driver does not answer: %s", cudaGetErrorString(code));
    }
    return CYI_OK;
}

static enum cyi_status get_info(int number, struct backend_info *ret_info, struct cyi_error *err) {
    struct cudaDeviceProp properties;
    int n = 0;
    int runtime = 0;
    enum cyi_status st = CYI_OK;
    TRY(count_devices(&n, err));
    if (number < 0 || number >= n) {
        TRY(error_set(err, CYI_E_UNSUPPORTED, "card %d was asked for, there %s %d, counted from 0", number,
                      n == 1 ? "is" : "are", n));
    }
    TRY(cuda_check(cudaGetDeviceProperties(&properties, number), "its properties", err));
    int compute = properties.major * 10 + properties.minor;
    if (compute < MIN_COMPUTE) {
        TRY(error_set(err, CYI_E_UNSUPPORTED, "%.80s has compute capability %d.%d, at least %d.%d is needed",
                      properties.name, properties.major, properties.minor, MIN_COMPUTE / 10, MIN_COMPUTE % 10));
    }
    (void)cudaRuntimeGetVersion(&runtime);
    *ret_info = (struct backend_info){
        .name = "cuda", .has_fast_bf16 = true, .has_fp8 = compute >= FP8_COMPUTE, .has_int8 = true
    };
    (void)snprintf(ret_info->version, sizeof ret_info->version, "CUDA %d.%d, %s, %s", runtime / 1000,
                   runtime % 1000 / 10, gemm_version(), conv_version());
    (void)snprintf(ret_info->isa, sizeof ret_info->isa, "sm_%d %.80s", compute, properties.name);
done:
    return st;
}

static const struct backend_kind backend_cuda = { create, get_info };

__attribute__((visibility("default"))) const struct backend_kind *cyberimage_backend(int abi);

const struct backend_kind *cyberimage_backend(int abi) {
    return abi == BACKEND_ABI ? &backend_cuda : NULL;
}
