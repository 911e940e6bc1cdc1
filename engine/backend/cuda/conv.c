/* Convolutions through cuDNN: see conv.h. For every shape the first of these that the library has an engine for:
 *   a graph of everything      convolution, residual and bias in one kernel
 *   a graph of the convolution, then gpu_finish_product
 *   the older calls            likewise
 * Of the engines for a large picture a later one of the heuristic's list is taken only where it is clearly faster when it runs for
 * the first time, so that the choice, and with it the last bits, are the same every time. */
#include "backend/cuda/conv.h"

#include <cudnn.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "backend/cuda/conv_graph.h"

#define FIRST_CAPACITY 32
#define ALIGNMENT 16
#define TIMED_WORK 4e9      /* multiplications and additions from which on timing pays */
#define N_RUNS 2            /* of each engine, after one that is not counted */
#define CLEARLY_FASTER 0.9F /* of the time of an engine before it */

enum way { WAY_FUSED, WAY_GRAPH, WAY_CALLS, WAY_NONE };

/* Everything that a plan depends on; compared byte by byte. */
struct key {
    int64_t n_rows, n_cols, n_in, n_out, kh, kw;
    int32_t type, pad, stride;
    uint8_t has_bias, has_residual, is_aligned, zero;
};

/* Descriptors of the older calls. */
struct calls {
    cudnnTensorDescriptor_t x, y;
    cudnnFilterDescriptor_t weight;
    cudnnConvolutionDescriptor_t how;
    cudnnConvolutionFwdAlgo_t algorithm;
    size_t workspace_bytes;
};

struct plan {
    struct key key;
    enum way way;
    bool is_tuned;
    struct conv_graph graph;
    struct calls calls;
};

struct conv {
    const struct cyi_allocator *allocator;
    cudnnHandle_t handle;
    void *(*get_workspace)(void *user, size_t bytes);
    void *user;
    struct plan *plans;
    size_t n_plans, capacity;
};

/* ---- Sizes ---- */

static int64_t get_out_rows(const struct conv_args *a) {
    return (a->n_rows + 2 * a->pad - a->kh) / a->stride + 1;
}

static int64_t get_out_cols(const struct conv_args *a) {
    return (a->n_cols + 2 * a->pad - a->kw) / a->stride + 1;
}

static size_t get_y_bytes(const struct conv_args *a) {
    return (size_t)get_out_rows(a) * (size_t)get_out_cols(a) * (size_t)a->n_out * (a->type == GPU_BF16 ? 2 : 4);
}

static size_t round_up(size_t n) {
    return (n + 511) / 512 * 512;
}

static size_t get_bias_bytes(const struct conv_args *a) {
    return round_up((size_t)a->n_out * sizeof(float));
}

static bool is_aligned(const void *address) {
    return (uintptr_t)address % ALIGNMENT == 0;
}

/* ---- The older calls ---- */

static void calls_done(struct calls *calls) {
    if (calls->x != NULL) {
        (void)cudnnDestroyTensorDescriptor(calls->x);
    }
    if (calls->y != NULL) {
        (void)cudnnDestroyTensorDescriptor(calls->y);
    }
    if (calls->weight != NULL) {
        (void)cudnnDestroyFilterDescriptor(calls->weight);
    }
    if (calls->how != NULL) {
        (void)cudnnDestroyConvolutionDescriptor(calls->how);
    }
    *calls = (struct calls){ 0 };
}

static bool describe_calls(struct calls *calls, const struct conv_args *a) {
    cudnnDataType_t type = a->type == GPU_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    cudnnMathType_t math = a->type == GPU_BF16 ? CUDNN_TENSOR_OP_MATH : CUDNN_FMA_MATH;
    return cudnnCreateTensorDescriptor(&calls->x) == CUDNN_STATUS_SUCCESS &&
           cudnnCreateTensorDescriptor(&calls->y) == CUDNN_STATUS_SUCCESS &&
           cudnnCreateFilterDescriptor(&calls->weight) == CUDNN_STATUS_SUCCESS &&
           cudnnCreateConvolutionDescriptor(&calls->how) == CUDNN_STATUS_SUCCESS &&
           cudnnSetTensor4dDescriptor(calls->x, CUDNN_TENSOR_NHWC, type, 1, (int)a->n_in, (int)a->n_rows,
                                      (int)a->n_cols) == CUDNN_STATUS_SUCCESS &&
           cudnnSetTensor4dDescriptor(calls->y, CUDNN_TENSOR_NHWC, type, 1, (int)a->n_out, (int)get_out_rows(a),
                                      (int)get_out_cols(a)) == CUDNN_STATUS_SUCCESS &&
           cudnnSetFilter4dDescriptor(calls->weight, type, CUDNN_TENSOR_NHWC, (int)a->n_out, (int)a->n_in, (int)a->kh,
                                      (int)a->kw) == CUDNN_STATUS_SUCCESS &&
           cudnnSetConvolution2dDescriptor(calls->how, a->pad, a->pad, a->stride, a->stride, 1, 1,
                                           CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT) == CUDNN_STATUS_SUCCESS &&
           cudnnSetConvolutionMathType(calls->how, math) == CUDNN_STATUS_SUCCESS;
}

static bool calls_init(struct calls *calls, cudnnHandle_t handle, const struct conv_args *a) {
    cudnnConvolutionFwdAlgoPerf_t found[CUDNN_CONVOLUTION_FWD_ALGO_COUNT];
    int n = 0;
    if (describe_calls(calls, a) &&
        cudnnGetConvolutionForwardAlgorithm_v7(handle, calls->x, calls->weight, calls->how, calls->y,
                                               CUDNN_CONVOLUTION_FWD_ALGO_COUNT, &n, found) == CUDNN_STATUS_SUCCESS) {
        for (int i = 0; i < n; i++) {
            bool is_direct = found[i].algo == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM ||
                             found[i].algo == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
            if (found[i].status == CUDNN_STATUS_SUCCESS && is_direct) {
                calls->algorithm = found[i].algo;
                return cudnnGetConvolutionForwardWorkspaceSize(handle, calls->x, calls->weight, calls->how, calls->y,
                                                               calls->algorithm,
                                                               &calls->workspace_bytes) == CUDNN_STATUS_SUCCESS;
            }
        }
    }
    return false;
}

static bool calls_run(const struct calls *calls, cudnnHandle_t handle, const struct conv_args *a, void *y,
                      void *workspace) {
    const float one = 1.0F;
    const float zero = 0.0F;
    return cudnnConvolutionForward(handle, &one, calls->x, a->x, calls->weight, a->weight, calls->how, calls->algorithm,
                                   workspace, calls->workspace_bytes, &zero, calls->y, y) == CUDNN_STATUS_SUCCESS;
}

/* ---- Plans ---- */

static struct key make_key(const struct conv_args *a) {
    struct key key;
    memset(&key, 0, sizeof key);
    key.n_rows = a->n_rows;
    key.n_cols = a->n_cols;
    key.n_in = a->n_in;
    key.n_out = a->n_out;
    key.kh = a->kh;
    key.kw = a->kw;
    key.type = (int32_t)a->type;
    key.pad = a->pad;
    key.stride = a->stride;
    key.has_bias = a->bias != NULL;
    key.has_residual = a->residual != NULL;
    key.is_aligned = is_aligned(a->x) && is_aligned(a->weight) && (is_aligned(a->bias) || a->type == GPU_BF16) &&
                     is_aligned(a->residual) && is_aligned(a->y);
    return key;
}

static void plan_init(const struct conv *conv, struct plan *plan, const struct key *key, const struct conv_args *a) {
    bool has_more = a->bias != NULL || a->residual != NULL;
    *plan = (struct plan){ .key = *key };
    if (key->is_aligned && has_more && conv_graph_init(&plan->graph, conv->handle, a, true)) {
        plan->way = WAY_FUSED;
    } else if (key->is_aligned && conv_graph_init(&plan->graph, conv->handle, a, false)) {
        plan->way = WAY_GRAPH;
    } else if (calls_init(&plan->calls, conv->handle, a)) {
        plan->way = WAY_CALLS;
    } else {
        calls_done(&plan->calls);
        plan->way = WAY_NONE;
    }
}

/* The shapes of a picture are a few dozen: they are looked through. NULL: no memory. */
static struct plan *get_plan(struct conv *conv, const struct conv_args *a) {
    struct key key = make_key(a);
    for (size_t i = 0; i < conv->n_plans; i++) {
        if (memcmp(&conv->plans[i].key, &key, sizeof key) == 0) {
            return &conv->plans[i];
        }
    }
    if (conv->n_plans == conv->capacity) {
        size_t capacity = conv->capacity > 0 ? 2 * conv->capacity : FIRST_CAPACITY;
        struct plan *plans = mem_alloc_zeroed(conv->allocator, capacity, sizeof *plans);
        if (plans == NULL) {
            return NULL;
        }
        if (conv->n_plans > 0) {
            memcpy(plans, conv->plans, conv->n_plans * sizeof *plans);
        }
        mem_free(conv->allocator, conv->plans);
        conv->plans = plans;
        conv->capacity = capacity;
    }
    struct plan *plan = &conv->plans[conv->n_plans++];
    plan_init(conv, plan, &key, a);
    return plan;
}

/* ---- Timing ---- */

static bool is_capturing(cudaStream_t stream) {
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    return cudaStreamIsCapturing(stream, &capture) != cudaSuccess || capture != cudaStreamCaptureStatusNone;
}

/* The bias as a fused graph reads it: in the picture's type, zeros for none. memory: get_bias_bytes. */
static const void *prepare_bias(const struct conv_args *a, void *memory, cudaStream_t stream) {
    if (a->bias != NULL && a->type == GPU_F32) {
        return a->bias;
    }
    if (a->bias == NULL) {
        (void)cudaMemsetAsync(memory, 0, get_bias_bytes(a),
                              stream); /* a fault is the stream's: the next check finds it */
        return memory;
    }
    struct gpu_matrix bias = { NULL, GPU_F32, 1, a->n_out, a->n_out };
    struct gpu_matrix rounded = { memory, a->type, 1, a->n_out, a->n_out };
    (void)memcpy(&bias.data, &a->bias, sizeof bias.data); /* read only */
    gpu_cast(&bias, &rounded, stream);
    return memory;
}

/* Milliseconds of N_RUNS runs, less than 0 when it does not run. */
static float time_engine(const struct conv *conv, const struct plan *plan, size_t engine,
                         const struct conv_graph_data *data, cudaEvent_t events[2], cudaStream_t stream) {
    float ms = -1.0F;
    for (int i = 0; i <= N_RUNS; i++) {
        if ((i == 1 && cudaEventRecord(events[0], stream) != cudaSuccess) ||
            !conv_graph_run(&plan->graph, conv->handle, engine, data)) {
            return -1.0F;
        }
    }
    bool is_good = cudaEventRecord(events[1], stream) == cudaSuccess &&
                   cudaEventSynchronize(events[1]) == cudaSuccess &&
                   cudaEventElapsedTime(&ms, events[0], events[1]) == cudaSuccess;
    return is_good ? ms : -1.0F;
}

/* The best engine. Results go to a place of their own, since y may be the residual. */
static size_t choose_engine(const struct conv *conv, const struct plan *plan, const struct conv_args *a,
                            cudaEvent_t events[2], cudaStream_t stream) {
    const struct conv_graph *graph = &plan->graph;
    size_t workspace_bytes = 0;
    size_t best = 0;
    float best_ms = -1.0F;
    for (size_t i = 0; i < graph->n_plans; i++) {
        workspace_bytes = graph->workspace_bytes[i] > workspace_bytes ? graph->workspace_bytes[i] : workspace_bytes;
    }
    size_t offset = get_bias_bytes(a) + round_up(workspace_bytes);
    uint8_t *memory = conv->get_workspace(conv->user, offset + get_y_bytes(a));
    if (memory == NULL) {
        return 0;
    }
    struct conv_graph_data data = { a->x,        a->weight,       prepare_bias(a, memory, stream),
                                    a->residual, memory + offset, memory + get_bias_bytes(a) };
    for (size_t i = 0; i < graph->n_plans; i++) {
        float ms = time_engine(conv, plan, i, &data, events, stream);
        if (ms >= 0.0F && (best_ms < 0.0F || ms < CLEARLY_FASTER * best_ms)) {
            best_ms = ms;
            best = i;
        }
    }
    return best;
}

/* Once, and not while the work is recorded. */
static void tune(const struct conv *conv, struct plan *plan, const struct conv_args *a, cudaStream_t stream) {
    double work = 2.0 * (double)get_out_rows(a) * (double)get_out_cols(a) * (double)(a->n_out * a->n_in) *
                  (double)(a->kh * a->kw);
    cudaEvent_t events[2] = { NULL, NULL };
    if (plan->is_tuned || plan->way == WAY_CALLS || is_capturing(stream)) {
        return;
    }
    plan->is_tuned = true;
    size_t best = 0;
    if (work >= TIMED_WORK && plan->graph.n_plans > 1 && cudaEventCreate(&events[0]) == cudaSuccess &&
        cudaEventCreate(&events[1]) == cudaSuccess) {
        best = choose_engine(conv, plan, a, events, stream);
    }
    conv_graph_keep(&plan->graph, best);
    for (int i = 0; i < 2; i++) {
        if (events[i] != NULL) {
            (void)cudaEventDestroy(events[i]);
        }
    }
    (void)cudaGetLastError(); /* of engines that would not run */
}

/* ---- Running ---- */

/* What the graph of the convolution, or the older calls, leave to do. y may be the residual, and the product. */
static void finish(const struct conv_args *a, void *product, cudaStream_t stream) {
    int64_t n_pixels = get_out_rows(a) * get_out_cols(a);
    struct gpu_matrix from = { product, a->type, n_pixels, a->n_out, a->n_out };
    struct gpu_matrix y = { a->y, a->type, n_pixels, a->n_out, a->n_out };
    struct gpu_matrix residual = y;
    if (a->residual != NULL) {
        (void)memcpy(&residual.data, &a->residual, sizeof residual.data); /* read only */
    }
    gpu_finish_product(
        &(struct gpu_finish){
            .product = &from, .bias = a->bias, .residual = a->residual != NULL ? &residual : NULL, .y = &y },
        stream);
}

/* memory: the bias, the library's workspace. */
static bool run_plan(const struct conv *conv, const struct plan *plan, const struct conv_args *a, void *y,
                     uint8_t *memory, cudaStream_t stream) {
    uint8_t *workspace = memory + get_bias_bytes(a);
    if (plan->way == WAY_CALLS) {
        return calls_run(&plan->calls, conv->handle, a, y, workspace);
    }
    const void *bias = plan->way == WAY_FUSED ? prepare_bias(a, memory, stream) : NULL;
    return conv_graph_run(&plan->graph, conv->handle, 0,
                          &(struct conv_graph_data){ a->x, a->weight, bias, a->residual, y, workspace });
}

enum cyi_status conv_run(struct conv *conv, const struct conv_args *args, cudaStream_t stream, struct cyi_error *err) {
    if (cudnnSetStream(conv->handle, stream) != CUDNN_STATUS_SUCCESS) {
        return error_set(err, CYI_E_IO, "cuDNN does not take the stream");
    }
    struct plan *plan = get_plan(conv, args);
    if (plan == NULL) {
        return error_memory(err, "the plan of a convolution", sizeof *plan);
    }
    if (plan->way == WAY_NONE) {
        return error_set(err, CYI_E_UNSUPPORTED,
                         "cuDNN has no way for a convolution of [%" PRId64 ", %" PRId64 ", %" PRId64 "] to %" PRId64
                         " channels",
                         args->n_rows, args->n_cols, args->n_in, args->n_out);
    }
    tune(conv, plan, args, stream);
    bool has_finish = plan->way != WAY_FUSED && (args->bias != NULL || args->residual != NULL);
    bool has_product = has_finish && args->residual == args->y;
    size_t offset = get_bias_bytes(args) +
                    round_up(plan->way == WAY_CALLS ? plan->calls.workspace_bytes : plan->graph.workspace_bytes[0]);
    size_t n_bytes = offset + (has_product ? get_y_bytes(args) : 0);
    uint8_t *memory = conv->get_workspace(conv->user, n_bytes);
    if (memory == NULL) {
        return error_memory(err, "the workspace of a convolution", n_bytes);
    }
    void *product = has_product ? memory + offset : args->y;
    if (!run_plan(conv, plan, args, product, memory, stream)) {
        return error_set(err, CYI_E_IO,
                         "cuDNN failed at a convolution of [%" PRId64 ", %" PRId64 ", %" PRId64 "] to %" PRId64
                         " channels",
                         args->n_rows, args->n_cols, args->n_in, args->n_out);
    }
    if (has_finish) {
        finish(args, product, stream);
    }
    return CYI_OK;
}

/* ---- Beginning and end ---- */

enum cyi_status conv_create(const struct cyi_allocator *allocator, void *(*get_workspace)(void *user, size_t bytes),
                            void *user, struct conv **ret_conv, struct cyi_error *err) {
    struct conv *conv = mem_alloc_zeroed(allocator, 1, sizeof *conv);
    if (conv == NULL) {
        return error_memory(err, "convolutions on the card", sizeof *conv);
    }
    conv->allocator = allocator;
    conv->get_workspace = get_workspace;
    conv->user = user;
    cudnnStatus_t code = cudnnCreate(&conv->handle);
    if (code != CUDNN_STATUS_SUCCESS) {
        mem_free(allocator, conv);
        return error_set(err, CYI_E_UNSUPPORTED, "cuDNN does not start: %s", cudnnGetErrorString(code));
    }
    *ret_conv = conv;
    return CYI_OK;
}

void conv_free(struct conv *conv) {
    if (conv == NULL) {
        return;
    }
    for (size_t i = 0; i < conv->n_plans; i++) {
        conv_graph_done(&conv->plans[i].graph);
        calls_done(&conv->plans[i].calls);
    }
    mem_free(conv->allocator, conv->plans);
    (void)cudnnDestroy(conv->handle);
    mem_free(conv->allocator, conv);
}

const char *conv_version(void) {
    static char text[32];
    size_t version = cudnnGetVersion(); /* 91501: 9.15.1 */
    (void)snprintf(text, sizeof text, "cuDNN %zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
    return text;
}
