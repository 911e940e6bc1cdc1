/* A convolution as a graph: x ∗ weight [[+ residual] + bias]. See conv_graph.h.
 *
 * In this order, and with a bias of the picture's type, the library has engines that are compiled already; for other graphs it would
 * compile at run time, which takes seconds and a compiler that need not be there.
 * The library's shapes are [1, C, Y, X] whatever the order in memory; strides say that channels lie together. Sums stay F32 from the
 * convolution to the last addition, which alone rounds. */
#include "backend/cuda/conv_graph.h"

#define N_DIMS 4
#define ALIGNMENT 16
#define MAX_WORKSPACE ((int64_t)1 << 30)
#define MAX_NOTES 16

enum tensor_id { ID_X = 1, ID_WEIGHT, ID_Y, ID_BIAS, ID_RESIDUAL, ID_PRODUCT, ID_SUM };

/* ---- Descriptors ---- */

static bool set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                int64_t n, const void *values) {
    return cudnnBackendSetAttribute(descriptor, name, type, n, values) == CUDNN_STATUS_SUCCESS;
}

static bool set_descriptor(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                           cudnnBackendDescriptor_t value) {
    return set(descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static bool set_int64(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, int64_t value) {
    return set(descriptor, name, CUDNN_TYPE_INT64, 1, &value);
}

static bool set_type(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnDataType_t value) {
    return set(descriptor, name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

static bool finalize(cudnnBackendDescriptor_t descriptor) {
    return cudnnBackendFinalize(descriptor) == CUDNN_STATUS_SUCCESS;
}

/* A descriptor that the graph owns. NULL: the library refuses. */
static cudnnBackendDescriptor_t add(struct conv_graph *graph, cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t descriptor = NULL;
    if (graph->n_descriptors == CONV_GRAPH_MAX_DESCRIPTORS ||
        cudnnBackendCreateDescriptor(type, &descriptor) != CUDNN_STATUS_SUCCESS) {
        return NULL;
    }
    graph->descriptors[graph->n_descriptors++] = descriptor;
    return descriptor;
}

static void destroy(cudnnBackendDescriptor_t descriptor) {
    if (descriptor != NULL) {
        (void)cudnnBackendDestroyDescriptor(descriptor);
    }
}

/* ---- The graph ---- */

struct shape {
    int64_t n, c, rows, cols;
};

/* Channels lie together. */
static cudnnBackendDescriptor_t add_tensor(struct conv_graph *graph, enum tensor_id id, cudnnDataType_t type,
                                           struct shape s, bool is_virtual) {
    const int64_t dims[N_DIMS] = { s.n, s.c, s.rows, s.cols };
    const int64_t strides[N_DIMS] = { s.rows * s.cols * s.c, 1, s.cols * s.c, s.c };
    cudnnBackendDescriptor_t tensor = add(graph, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    bool is_good = tensor != NULL && set_type(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, type) &&
                   set(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, N_DIMS, dims) &&
                   set(tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, N_DIMS, strides) &&
                   set_int64(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, id) &&
                   set_int64(tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, ALIGNMENT) &&
                   (!is_virtual || set(tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual)) &&
                   finalize(tensor);
    return is_good ? tensor : NULL;
}

static cudnnBackendDescriptor_t add_convolution(struct conv_graph *graph, const struct conv_args *a,
                                                cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t weight,
                                                cudnnBackendDescriptor_t y) {
    const int64_t pads[2] = { a->pad, a->pad };
    const int64_t strides[2] = { a->stride, a->stride };
    const int64_t dilations[2] = { 1, 1 };
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const float one = 1.0F;
    const float zero = 0.0F;
    cudnnBackendDescriptor_t how = add(graph, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    bool is_good = how != NULL && set_type(how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT) &&
                   set(how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode) &&
                   set_int64(how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 2) &&
                   set(how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pads) &&
                   set(how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pads) &&
                   set(how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides) &&
                   set(how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations) && finalize(how);
    cudnnBackendDescriptor_t op = is_good ? add(graph, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR) : NULL;
    is_good = op != NULL && set_descriptor(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, how) &&
              set_descriptor(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x) &&
              set_descriptor(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, weight) &&
              set_descriptor(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y) &&
              set(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one) &&
              set(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero) && finalize(op);
    return is_good ? op : NULL;
}

/* y = x + b */
static cudnnBackendDescriptor_t add_addition(struct conv_graph *graph, cudnnBackendDescriptor_t x,
                                             cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y) {
    const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
    cudnnBackendDescriptor_t how = add(graph, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    bool is_good = how != NULL && set(how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode) &&
                   set_type(how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT) && finalize(how);
    cudnnBackendDescriptor_t op = is_good ? add(graph, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR) : NULL;
    is_good = op != NULL && set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how) &&
              set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x) &&
              set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b) &&
              set_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y) && finalize(op);
    return is_good ? op : NULL;
}

/* All operations, in order. Returns how many; 0: the library refuses. */
static int64_t add_operations(struct conv_graph *graph, const struct conv_args *a, cudnnBackendDescriptor_t *ops) {
    cudnnDataType_t type = a->type == GPU_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    struct shape y_shape = { 1, a->n_out, (a->n_rows + 2 * a->pad - a->kh) / a->stride + 1,
                             (a->n_cols + 2 * a->pad - a->kw) / a->stride + 1 };
    cudnnBackendDescriptor_t x =
        add_tensor(graph, ID_X, type, (struct shape){ 1, a->n_in, a->n_rows, a->n_cols }, false);
    cudnnBackendDescriptor_t weight =
        add_tensor(graph, ID_WEIGHT, type, (struct shape){ a->n_out, a->n_in, a->kh, a->kw }, false);
    cudnnBackendDescriptor_t y = add_tensor(graph, ID_Y, type, y_shape, false);
    cudnnBackendDescriptor_t product =
        graph->is_fused ? add_tensor(graph, ID_PRODUCT, CUDNN_DATA_FLOAT, y_shape, true) : y;
    int64_t n = 0;
    if (x == NULL || weight == NULL || y == NULL || product == NULL) {
        return 0;
    }
    ops[n++] = add_convolution(graph, a, x, weight, product);
    if (graph->has_residual) {
        cudnnBackendDescriptor_t residual = add_tensor(graph, ID_RESIDUAL, type, y_shape, false);
        cudnnBackendDescriptor_t sum = add_tensor(graph, ID_SUM, CUDNN_DATA_FLOAT, y_shape, true);
        ops[n++] = residual != NULL && sum != NULL ? add_addition(graph, product, residual, sum) : NULL;
        product = sum;
    }
    if (graph->is_fused) {
        cudnnBackendDescriptor_t bias = add_tensor(graph, ID_BIAS, type, (struct shape){ 1, a->n_out, 1, 1 }, false);
        ops[n++] = product != NULL && bias != NULL ? add_addition(graph, product, bias, y) : NULL;
    }
    for (int64_t i = 0; i < n; i++) {
        if (ops[i] == NULL) {
            return 0;
        }
    }
    return n;
}

/* ---- Engines ---- */

/* Does the engine of a configuration compute what we mean by it? */
static bool is_engine_exact(cudnnBackendDescriptor_t config, bool is_f32) {
    cudnnBackendNumericalNote_t notes[MAX_NOTES];
    cudnnBackendDescriptor_t engine = NULL;
    int64_t n = 0;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS) {
        return false;
    }
    bool is_exact = cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                                             &engine) == CUDNN_STATUS_SUCCESS &&
                    cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                             MAX_NOTES, &n, notes) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; is_exact && i < n && i < MAX_NOTES; i++) {
        bool is_tf32 = is_f32 && notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
        is_exact = !is_tf32 &&
                   (notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || notes[i] == CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP);
    }
    destroy(engine);
    return is_exact;
}

/* Makes a configuration ready to run, if the library can. */
static void add_plan(struct conv_graph *graph, cudnnHandle_t handle, cudnnBackendDescriptor_t config) {
    cudnnBackendDescriptor_t plan = NULL;
    int64_t n = 0;
    int64_t bytes = 0;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan) != CUDNN_STATUS_SUCCESS) {
        return;
    }
    if (set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle) &&
        set_descriptor(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config) && finalize(plan) &&
        cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &bytes) ==
            CUDNN_STATUS_SUCCESS &&
        bytes >= 0 && bytes <= MAX_WORKSPACE) {
        graph->plans[graph->n_plans] = plan;
        graph->workspace_bytes[graph->n_plans++] = (size_t)bytes;
        return;
    }
    destroy(plan);
}

/* Plans for the engines that a heuristic names. */
static void add_plans(struct conv_graph *graph, cudnnHandle_t handle, cudnnBackendDescriptor_t operations,
                      cudnnBackendHeurMode_t mode, bool is_f32) {
    cudnnBackendDescriptor_t configs[CONV_GRAPH_MAX_ENGINES] = { NULL };
    cudnnBackendDescriptor_t heuristic = NULL;
    int64_t n = 0;
    bool is_good =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristic) == CUDNN_STATUS_SUCCESS;
    for (int i = 0; is_good && i < CONV_GRAPH_MAX_ENGINES; i++) {
        is_good = cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[i]) == CUDNN_STATUS_SUCCESS;
    }
    is_good = is_good && set_descriptor(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, operations) &&
              set(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode) && finalize(heuristic) &&
              cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                       CONV_GRAPH_MAX_ENGINES, &n, configs) == CUDNN_STATUS_SUCCESS;
    n = n < CONV_GRAPH_MAX_ENGINES ? n : CONV_GRAPH_MAX_ENGINES;
    for (int64_t i = 0; is_good && i < n && graph->n_plans < CONV_GRAPH_MAX_PLANS; i++) {
        if (is_engine_exact(configs[i], is_f32)) {
            add_plan(graph, handle, configs[i]);
        }
    }
    for (int i = 0; i < CONV_GRAPH_MAX_ENGINES; i++) {
        destroy(configs[i]);
    }
    destroy(heuristic);
}

bool conv_graph_init(struct conv_graph *graph, cudnnHandle_t handle, const struct conv_args *args, bool is_fused) {
    cudnnBackendDescriptor_t ops[3];
    *graph = (struct conv_graph){ .is_fused = is_fused, .has_residual = is_fused && args->residual != NULL };
    int64_t n = add_operations(graph, args, ops);
    cudnnBackendDescriptor_t all = n > 0 ? add(graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) : NULL;
    if (all != NULL && set(all, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle) &&
        set(all, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, ops) && finalize(all)) {
        add_plans(graph, handle, all, CUDNN_HEUR_MODE_A, args->type == GPU_F32);
        if (graph->n_plans == 0) {
            add_plans(graph, handle, all, CUDNN_HEUR_MODE_FALLBACK, args->type == GPU_F32);
        }
    }
    if (graph->n_plans == 0) {
        conv_graph_done(graph);
        return false;
    }
    return true;
}

void conv_graph_done(struct conv_graph *graph) {
    for (size_t i = 0; i < graph->n_plans; i++) {
        destroy(graph->plans[i]);
    }
    while (graph->n_descriptors > 0) {
        destroy(graph->descriptors[--graph->n_descriptors]);
    }
    *graph = (struct conv_graph){ 0 };
}

void conv_graph_keep(struct conv_graph *graph, size_t plan) {
    for (size_t i = 0; i < graph->n_plans; i++) {
        if (i != plan) {
            destroy(graph->plans[i]);
        }
    }
    graph->plans[0] = graph->plans[plan];
    graph->workspace_bytes[0] = graph->workspace_bytes[plan];
    graph->n_plans = 1;
}

/* ---- Running ---- */

bool conv_graph_run(const struct conv_graph *graph, cudnnHandle_t handle, size_t plan,
                    const struct conv_graph_data *data) {
    int64_t ids[5] = { ID_X, ID_WEIGHT, ID_Y };
    const void *addresses[5] = { data->x, data->weight, data->y };
    int64_t n = 3;
    cudnnBackendDescriptor_t pack = NULL;
    if (graph->is_fused) {
        ids[n] = ID_BIAS;
        addresses[n++] = data->bias;
    }
    if (graph->has_residual) {
        ids[n] = ID_RESIDUAL;
        addresses[n++] = data->residual;
    }
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack) != CUDNN_STATUS_SUCCESS) {
        return false;
    }
    bool is_good = set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, addresses) &&
                   set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids) &&
                   set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &data->workspace) &&
                   finalize(pack) && cudnnBackendExecute(handle, graph->plans[plan], pack) == CUDNN_STATUS_SUCCESS;
    destroy(pack);
    return is_good;
}
