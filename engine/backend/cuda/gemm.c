/* Matrix products through cuBLASLt: see gemm.h.
 *
 * The library counts columns first. Our y [M, N] in rows is its D [N, M] in columns, so that its A is our w (transposed when it is
 * [N, K]), its B our x, and one value of its alpha vector belongs to one of our output columns: the gate.
 *
 * A plan is what the library wants to know of a product (types, sizes, strides, alignments) and the algorithm for it. Plans are made at
 * the first question and kept in a hash table. The heuristic's first answer is taken; for large products it is timed against the next
 * ones when it runs for the first time. Only algorithms that add along K in one piece take part, and only when the heuristic's
 * own choice does: so the numbers do not depend on who wins. */
#include "backend/cuda/gemm.h"

#include <cublasLt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_ALIGNMENT 256
#define N_CANDIDATES 16 /* asked for */
#define N_TIMED 6       /* tried */
#define N_RUNS 3        /* of each, after one that is not counted */
#define TIMED_WORK 4e9  /* multiplications and additions from which on it pays */
#define FIRST_CAPACITY 64
#define ZEROS_BYTES ((size_t)256 << 10) /* of the workspace, for a gate of zeros while candidates are timed */

/* Everything that a plan depends on; compared byte by byte. */
struct key {
    int64_t m, n, k, n_batch;
    int64_t x_stride, w_stride, x_batch, w_batch, residual_stride, y_stride, y_batch;
    int32_t type, y_type;
    uint16_t x_align, w_align, y_align, residual_align, bias_align, gate_align; /* of addresses that are NULL: 0 */
    uint16_t is_w_kn, has_scales;
};

struct plan {
    struct key key;
    bool is_used, is_possible, is_tuned;
    bool is_divided; /* the algorithm adds along K in several pieces */
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c, d;
    cublasLtMatmulAlgo_t algorithm;
};

struct gemm {
    const struct cyi_allocator *allocator;
    cublasLtHandle_t handle;
    uint8_t *workspace;
    size_t workspace_bytes;
    struct plan *plans; /* open addressing, at most half full */
    size_t n_plans, capacity;
};

/* ---- Types ---- */

static cudaDataType_t to_data_type(enum gpu_type type) {
    switch (type) {
    case GPU_BF16:
        return CUDA_R_16BF;
    case GPU_F8_E4M3:
        return CUDA_R_8F_E4M3;
    case GPU_I8:
        return CUDA_R_8I;
    case GPU_I32:
        return CUDA_R_32I;
    default:
        return CUDA_R_32F;
    }
}

static size_t size_of(enum gpu_type type) {
    return type == GPU_BF16 ? 2 : type == GPU_F8_E4M3 || type == GPU_I8 ? 1 : 4;
}

/* Combinations that the library knows at all; the heuristic judges the rest. */
static bool is_known(const struct gemm_args *a) {
    switch (a->type) {
    case GPU_F32:
        return a->y_type == GPU_F32 && a->x_scale == NULL;
    case GPU_BF16:
        return (a->y_type == GPU_F32 || a->y_type == GPU_BF16) && a->x_scale == NULL;
    case GPU_F8_E4M3:
        return (a->y_type == GPU_F32 || a->y_type == GPU_BF16) && !a->is_w_kn;
    case GPU_I8:
        return a->y_type == GPU_I32 && !a->is_w_kn && a->x_scale == NULL && a->bias == NULL && a->gate == NULL &&
               a->residual == NULL;
    default:
        return false;
    }
}

/* The library adds the bias after it multiplies by alpha, in the type of D. */
static bool is_possible(const struct gemm_args *a) {
    bool is_empty = a->m <= 0 || a->n <= 0 || a->k <= 0 || a->n_batch <= 0;
    bool has_good_bias = a->bias == NULL || (a->gate == NULL && a->y_type == GPU_F32 && a->n_batch == 1);
    bool has_good_batch = a->n_batch == 1 || (a->gate == NULL && a->residual == NULL && a->x_scale == NULL);
    bool is_in_place_well = a->residual != a->y || a->residual_stride == a->y_stride;
    return is_known(a) && !is_empty && has_good_bias && has_good_batch && is_in_place_well &&
           (a->x_scale != NULL) == (a->w_scale != NULL);
}

/* ---- Keys ---- */

/* Of every matrix of a batch, batch_bytes apart. */
static uint16_t alignment_of(const void *address, size_t batch_bytes) {
    uintptr_t value = (uintptr_t)address | (uintptr_t)batch_bytes | MAX_ALIGNMENT;
    if (address == NULL) {
        return 0;
    }
    return (uint16_t)(value & (~value + 1));
}

static struct key make_key(const struct gemm_args *a) {
    struct key key;
    memset(&key, 0, sizeof key);
    bool is_batch = a->n_batch > 1;
    key.m = a->m;
    key.n = a->n;
    key.k = a->k;
    key.n_batch = a->n_batch;
    key.x_stride = a->x_stride;
    key.w_stride = a->w_stride;
    key.x_batch = is_batch ? a->x_batch : 0;
    key.w_batch = is_batch ? a->w_batch : 0;
    key.y_stride = a->y_stride;
    key.y_batch = is_batch ? a->y_batch : 0;
    key.residual_stride = a->residual != NULL ? a->residual_stride : 0;
    key.type = (int32_t)a->type;
    key.y_type = (int32_t)a->y_type;
    key.x_align = alignment_of(a->x, (size_t)key.x_batch * size_of(a->type));
    key.w_align = alignment_of(a->w, (size_t)key.w_batch * size_of(a->type));
    key.y_align = alignment_of(a->y, (size_t)key.y_batch * size_of(a->y_type));
    key.residual_align = alignment_of(a->residual, 0);
    key.bias_align = alignment_of(a->bias, 0);
    key.gate_align = alignment_of(a->gate, 0);
    key.is_w_kn = a->is_w_kn;
    key.has_scales = a->x_scale != NULL;
    return key;
}

static size_t hash_of(const struct key *key) {
    const uint8_t *bytes = (const uint8_t *)key;
    uint64_t hash = 14695981039346656037U; /* FNV-1a */
    for (size_t i = 0; i < sizeof *key; i++) {
        hash = (hash ^ bytes[i]) * 1099511628211U;
    }
    return (size_t)(hash ^ hash >> 32);
}

/* ---- Plans ---- */

static void plan_done(struct plan *plan) {
    cublasLtMatrixLayout_t layouts[] = { plan->a, plan->b, plan->c, plan->d };
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (layouts[i] != NULL) {
            (void)cublasLtMatrixLayoutDestroy(layouts[i]);
        }
    }
    if (plan->product != NULL) {
        (void)cublasLtMatmulDescDestroy(plan->product);
    }
}

static bool set_product(struct plan *plan, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t size) {
    return cublasLtMatmulDescSetAttribute(plan->product, attribute, value, size) == CUBLAS_STATUS_SUCCESS;
}

static bool set_product_int(struct plan *plan, cublasLtMatmulDescAttributes_t attribute, int32_t value) {
    return set_product(plan, attribute, &value, sizeof value);
}

/* Addresses that change from call to call. */
static bool set_addresses(struct plan *plan, const struct gemm_args *a) {
    return (a->bias == NULL || set_product(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &a->bias, sizeof a->bias)) &&
           (a->x_scale == NULL ||
            (set_product(plan, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &a->w_scale, sizeof a->w_scale) &&
             set_product(plan, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &a->x_scale, sizeof a->x_scale)));
}

static bool describe_product(struct plan *plan, const struct gemm_args *a) {
    bool is_int = a->type == GPU_I8;
    cublasComputeType_t compute = is_int ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F;
    int8_t is_fast = 1; /* fp8 sums stay in the tensor cores, as everybody does who infers */
    if (cublasLtMatmulDescCreate(&plan->product, compute, is_int ? CUDA_R_32I : CUDA_R_32F) != CUBLAS_STATUS_SUCCESS) {
        return false;
    }
    bool is_good = set_product_int(plan, CUBLASLT_MATMUL_DESC_TRANSA, a->is_w_kn ? CUBLAS_OP_N : CUBLAS_OP_T);
    if (a->gate != NULL) {
        is_good = is_good && set_product_int(plan, CUBLASLT_MATMUL_DESC_POINTER_MODE,
                                             CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST);
    }
    if (a->bias != NULL) {
        is_good = is_good && set_product_int(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS) &&
                  set_product_int(plan, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
    }
    if (a->x_scale != NULL) {
        is_good =
            is_good &&
            set_product_int(plan, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F) &&
            set_product_int(plan, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    }
    if (a->type == GPU_F8_E4M3) {
        is_good = is_good && set_product(plan, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &is_fast, sizeof is_fast);
    }
    return is_good && set_addresses(plan, a);
}

static bool describe_matrix(cublasLtMatrixLayout_t *ret, enum gpu_type type, int64_t n_rows, int64_t n_cols,
                            int64_t stride, int64_t n_batch, int64_t batch_stride) {
    int32_t count = (int32_t)n_batch;
    if (cublasLtMatrixLayoutCreate(ret, to_data_type(type), (uint64_t)n_rows, (uint64_t)n_cols, stride) !=
        CUBLAS_STATUS_SUCCESS) {
        return false;
    }
    return n_batch == 1 ||
           (cublasLtMatrixLayoutSetAttribute(*ret, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count) ==
                CUBLAS_STATUS_SUCCESS &&
            cublasLtMatrixLayoutSetAttribute(*ret, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride,
                                             sizeof batch_stride) == CUBLAS_STATUS_SUCCESS);
}

static bool describe_matrices(struct plan *plan, const struct gemm_args *a) {
    int64_t c_stride = a->residual != NULL ? a->residual_stride : a->y_stride;
    return describe_matrix(&plan->a, a->type, a->is_w_kn ? a->n : a->k, a->is_w_kn ? a->k : a->n, a->w_stride,
                           a->n_batch, a->w_batch) &&
           describe_matrix(&plan->b, a->type, a->k, a->m, a->x_stride, a->n_batch, a->x_batch) &&
           describe_matrix(&plan->c, a->y_type, a->n, a->m, c_stride, a->n_batch, a->y_batch) &&
           describe_matrix(&plan->d, a->y_type, a->n, a->m, a->y_stride, a->n_batch, a->y_batch);
}

/* What the heuristic proposes, best first. Returns how many. */
static int ask_heuristic(const struct gemm *gemm, const struct plan *plan, cublasLtMatmulHeuristicResult_t *results) {
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t bytes;
    } alignments[] = {
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, plan->key.w_align },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, plan->key.x_align },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
          plan->key.residual_align != 0 ? plan->key.residual_align : plan->key.y_align },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, plan->key.y_align },
    };
    size_t workspace_bytes = gemm->workspace_bytes > ZEROS_BYTES ? gemm->workspace_bytes - ZEROS_BYTES : 0;
    cublasLtMatmulPreference_t preference = NULL;
    int n = 0;
    if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) {
        return 0;
    }
    bool is_good =
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                             sizeof workspace_bytes) == CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        is_good =
            is_good && cublasLtMatmulPreferenceSetAttribute(preference, alignments[i].attribute, &alignments[i].bytes,
                                                            sizeof alignments[i].bytes) == CUBLAS_STATUS_SUCCESS;
    }
    if (!is_good || cublasLtMatmulAlgoGetHeuristic(gemm->handle, plan->product, plan->a, plan->b, plan->c, plan->d,
                                                   preference, N_CANDIDATES, results, &n) != CUBLAS_STATUS_SUCCESS) {
        n = 0;
    }
    (void)cublasLtMatmulPreferenceDestroy(preference);
    int n_good = 0;
    for (int i = 0; i < n; i++) {
        if (results[i].state == CUBLAS_STATUS_SUCCESS) {
            results[n_good++] = results[i];
        }
    }
    return n_good;
}

static bool is_divided(const cublasLtMatmulAlgo_t *algorithm) {
    int32_t n_parts = 0;
    uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t n = 0;
    bool is_known_well = cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &n_parts,
                                                              sizeof n_parts, &n) == CUBLAS_STATUS_SUCCESS &&
                         cublasLtMatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                                              sizeof scheme, &n) == CUBLAS_STATUS_SUCCESS;
    return !is_known_well || n_parts > 1 || n_parts < 0 || scheme != CUBLASLT_REDUCTION_SCHEME_NONE;
}

/* What cannot be done gets a plan, too: the answer is remembered. */
static void plan_init(const struct gemm *gemm, struct plan *plan, const struct key *key, const struct gemm_args *a) {
    cublasLtMatmulHeuristicResult_t results[N_CANDIDATES];
    *plan = (struct plan){ .key = *key, .is_used = true };
    if (is_possible(a) && describe_product(plan, a) && describe_matrices(plan, a) &&
        ask_heuristic(gemm, plan, results) > 0) {
        plan->is_possible = true;
        plan->algorithm = results[0].algo;
        plan->is_divided = is_divided(&results[0].algo);
    }
}

/* ---- The table ---- */

/* The plan, or the empty place where it belongs. */
static struct plan *find_place(struct plan *plans, size_t capacity, const struct key *key) {
    size_t at = hash_of(key) & (capacity - 1);
    while (plans[at].is_used && memcmp(&plans[at].key, key, sizeof *key) != 0) {
        at = (at + 1) & (capacity - 1);
    }
    return &plans[at];
}

static bool grow(struct gemm *gemm) {
    size_t capacity = gemm->capacity > 0 ? 2 * gemm->capacity : FIRST_CAPACITY;
    struct plan *plans = mem_alloc_zeroed(gemm->allocator, capacity, sizeof *plans);
    if (plans == NULL) {
        return false;
    }
    for (size_t i = 0; i < gemm->capacity; i++) {
        if (gemm->plans[i].is_used) {
            *find_place(plans, capacity, &gemm->plans[i].key) = gemm->plans[i];
        }
    }
    mem_free(gemm->allocator, gemm->plans);
    gemm->plans = plans;
    gemm->capacity = capacity;
    return true;
}

/* NULL: no memory. */
static struct plan *get_plan(struct gemm *gemm, const struct gemm_args *a) {
    struct key key = make_key(a);
    if (2 * gemm->n_plans >= gemm->capacity && !grow(gemm)) {
        return NULL;
    }
    struct plan *plan = find_place(gemm->plans, gemm->capacity, &key);
    if (!plan->is_used) {
        plan_init(gemm, plan, &key, a);
        gemm->n_plans++;
    }
    return plan;
}

/* ---- Running ---- */

static cublasStatus_t multiply(const struct gemm *gemm, const struct plan *plan, const struct gemm_args *a,
                               const cublasLtMatmulAlgo_t *algorithm, const void *alpha, cudaStream_t stream) {
    const float float_beta = a->residual != NULL ? 1.0F : 0.0F;
    const int32_t int_beta = 0;
    size_t zeros = gemm->workspace_bytes > ZEROS_BYTES ? ZEROS_BYTES : 0;
    return cublasLtMatmul(gemm->handle, plan->product, alpha, a->w, plan->a, a->x, plan->b,
                          a->type == GPU_I8 ? (const void *)&int_beta : (const void *)&float_beta,
                          a->residual != NULL ? a->residual : a->y, plan->c, a->y, plan->d, algorithm,
                          gemm->workspace + zeros, zeros > 0 ? gemm->workspace_bytes - zeros : 0, stream);
}

/* Seconds of N_RUNS runs, less than 0 when it does not run. */
static float time_candidate(const struct gemm *gemm, const struct plan *plan, const struct gemm_args *a,
                            const cublasLtMatmulAlgo_t *algorithm, const void *alpha, cudaEvent_t events[2],
                            cudaStream_t stream) {
    float ms = -1.0F;
    for (int i = 0; i <= N_RUNS; i++) {
        if (i == 1 && cudaEventRecord(events[0], stream) != cudaSuccess) {
            return -1.0F;
        }
        if (multiply(gemm, plan, a, algorithm, alpha, stream) != CUBLAS_STATUS_SUCCESS) {
            return -1.0F;
        }
    }
    bool is_good = cudaEventRecord(events[1], stream) == cudaSuccess &&
                   cudaEventSynchronize(events[1]) == cudaSuccess &&
                   cudaEventElapsedTime(&ms, events[0], events[1]) == cudaSuccess;
    return is_good ? ms : -1.0F;
}

/* Timing must leave y as it is where the residual lies in y: then alpha is so small that adding the product changes nothing. */
static const void *choose_timing_alpha(const struct gemm *gemm, const struct gemm_args *a, cudaStream_t stream) {
    static const float one = 1.0F;
    static const float tiny = 1e-38F;
    static const int32_t int_one = 1;
    if (a->gate != NULL) {
        size_t n_bytes = (size_t)a->n * sizeof(float);
        bool is_good = n_bytes <= ZEROS_BYTES && gemm->workspace_bytes > ZEROS_BYTES &&
                       cudaMemsetAsync(gemm->workspace, 0, n_bytes, stream) == cudaSuccess;
        return is_good ? gemm->workspace : NULL;
    }
    return a->type == GPU_I8 ? (const void *)&int_one : a->residual == a->y ? &tiny : &one;
}

static void time_candidates(const struct gemm *gemm, struct plan *plan, const struct gemm_args *a,
                            cudaEvent_t events[2], cudaStream_t stream) {
    cublasLtMatmulHeuristicResult_t results[N_CANDIDATES];
    int n = ask_heuristic(gemm, plan, results);
    const void *alpha = choose_timing_alpha(gemm, a, stream);
    float best = -1.0F;
    int n_timed = 0;
    for (int i = 0; i < n && n_timed < N_TIMED && alpha != NULL; i++) {
        if (is_divided(&results[i].algo)) {
            continue;
        }
        n_timed++;
        float ms = time_candidate(gemm, plan, a, &results[i].algo, alpha, events, stream);
        if (ms >= 0.0F && (best < 0.0F || ms < best)) {
            best = ms;
            plan->algorithm = results[i].algo;
        }
    }
}

/* Once, and not while the work is recorded. */
static void tune(const struct gemm *gemm, struct plan *plan, const struct gemm_args *a, cudaStream_t stream) {
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    double work = 2.0 * (double)a->m * (double)a->n * (double)a->k * (double)a->n_batch;
    cudaEvent_t events[2] = { NULL, NULL };
    if (plan->is_tuned || cudaStreamIsCapturing(stream, &capture) != cudaSuccess ||
        capture != cudaStreamCaptureStatusNone) {
        return;
    }
    plan->is_tuned = true;
    if (work < TIMED_WORK || plan->is_divided) {
        return;
    }
    if (cudaEventCreate(&events[0]) == cudaSuccess && cudaEventCreate(&events[1]) == cudaSuccess) {
        time_candidates(gemm, plan, a, events, stream);
    }
    for (int i = 0; i < 2; i++) {
        if (events[i] != NULL) {
            (void)cudaEventDestroy(events[i]);
        }
    }
    (void)cudaGetLastError(); /* of candidates that would not run */
}

enum cyi_status gemm_run(struct gemm *gemm, const struct gemm_args *args, cudaStream_t stream, struct cyi_error *err) {
    static const float float_one = 1.0F;
    static const int32_t int_one = 1;
    struct plan *plan = get_plan(gemm, args);
    if (plan == NULL) {
        return error_memory(err, "the plan of a matrix product", sizeof *plan);
    }
    if (!plan->is_possible || !set_addresses(plan, args)) {
        return error_set(err, CYI_E_UNSUPPORTED,
                         "cuBLASLt has no way for a product of [%" PRId64 ", %" PRId64 "] with [%" PRId64 ", %" PRId64
                         "]",
                         args->m, args->k, args->n, args->k);
    }
    tune(gemm, plan, args, stream);
    const void *alpha = args->gate != NULL     ? (const void *)args->gate
                        : args->type == GPU_I8 ? (const void *)&int_one
                                               : (const void *)&float_one;
    cublasStatus_t code = multiply(gemm, plan, args, &plan->algorithm, alpha, stream);
    if (code != CUBLAS_STATUS_SUCCESS) {
        return error_set(err, CYI_E_IO,
                         "cuBLASLt failed at a product of [%" PRId64 ", %" PRId64 "] with [%" PRId64 ", %" PRId64
                         "]: %s",
                         args->m, args->k, args->n, args->k, cublasLtGetStatusString(code));
    }
    return CYI_OK;
}

bool gemm_can(struct gemm *gemm, const struct gemm_args *args) {
    const struct plan *plan = get_plan(gemm, args);
    return plan != NULL && plan->is_possible;
}

/* ---- Beginning and end ---- */

enum cyi_status gemm_create(const struct cyi_allocator *allocator, void *workspace, size_t workspace_bytes,
                            struct gemm **ret_gemm, struct cyi_error *err) {
    struct gemm *gemm = mem_alloc_zeroed(allocator, 1, sizeof *gemm);
    if (gemm == NULL) {
        return error_memory(err, "matrix products on the card", sizeof *gemm);
    }
    gemm->allocator = allocator;
    gemm->workspace = workspace;
    gemm->workspace_bytes = workspace_bytes;
    cublasStatus_t code = cublasLtCreate(&gemm->handle);
    if (code != CUBLAS_STATUS_SUCCESS) {
        mem_free(allocator, gemm);
        return error_set(err, CYI_E_UNSUPPORTED, "cuBLASLt does not start: %s", cublasLtGetStatusString(code));
    }
    *ret_gemm = gemm;
    return CYI_OK;
}

void gemm_free(struct gemm *gemm) {
    if (gemm == NULL) {
        return;
    }
    for (size_t i = 0; i < gemm->capacity; i++) {
        if (gemm->plans[i].is_used) {
            plan_done(&gemm->plans[i]);
        }
    }
    mem_free(gemm->allocator, gemm->plans);
    (void)cublasLtDestroy(gemm->handle);
    mem_free(gemm->allocator, gemm);
}

const char *gemm_version(void) {
    static char text[32];
    size_t version = cublasLtGetVersion(); /* 130100: 13.1.0 */
    (void)snprintf(text, sizeof text, "cuBLAS %zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
    return text;
}
