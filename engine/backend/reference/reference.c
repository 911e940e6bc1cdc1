/* The reference backend: every operation in plain C, in the words of ops.h. It is what other backends are tested
 * against and what they leave to it. Sums run in double and in a fixed order, threads share out independent results, so
 * that the bytes do not depend on the number of threads. Speed matters only as far as tests of small models need it. */
#include "backend/reference/reference.h"

#include <math.h>

#define STEPS_WORTH_THREADS 65536

/* ---- What the operations share ---- */

static enum cyi_status new_scratch(struct reference *ref, int64_t n, size_t size_bytes, void **ret,
                                   struct cyi_error *err) {
    *ret = arena_alloc(ref->scratch, (size_t)n, size_bytes);
    return *ret != NULL ? CYI_OK : error_memory(err, "scratch of the reference backend", (size_t)n * size_bytes);
}

enum cyi_status reference_new_floats(struct reference *ref, int64_t n, float **ret_floats, struct cyi_error *err) {
    void *block;
    enum cyi_status st = new_scratch(ref, n, sizeof **ret_floats, &block, err);
    *ret_floats = block;
    return st;
}

enum cyi_status reference_new_doubles(struct reference *ref, int64_t n, double **ret_doubles, struct cyi_error *err) {
    void *block;
    enum cyi_status st = new_scratch(ref, n, sizeof **ret_doubles, &block, err);
    *ret_doubles = block;
    return st;
}

enum cyi_status reference_copy_matrix(struct reference *ref, const struct tensor *t, float **ret_floats,
                                      struct cyi_error *err) {
    int64_t n_rows = tensor_n_rows(t);
    int64_t n_cols = tensor_n_cols(t);
    float *floats = NULL;
    enum cyi_status st = reference_new_floats(ref, n_rows * n_cols, &floats, err);
    if (st != CYI_OK) {
        return st;
    }
#pragma omp parallel for num_threads(reference_n_threads(ref, n_rows *n_cols))
    for (int64_t i = 0; i < n_rows; i++) {
        reference_load(t, i * t->row_stride, n_cols, floats + i * n_cols);
    }
    *ret_floats = floats;
    return CYI_OK;
}

void reference_load(const struct tensor *t, int64_t first, int64_t n, float *values) {
    const uint8_t *bytes = (const uint8_t *)t->data + (size_t)first * dtype_size(t->dtype);
    if (t->dtype == DTYPE_F32) {
        memcpy(values, bytes, (size_t)n * sizeof *values);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        values[i] = dtype_load(t->dtype, bytes, i);
    }
}

int reference_n_threads(const struct reference *ref, int64_t n_steps) {
    return n_steps < STEPS_WORTH_THREADS ? 1 : ref->n_threads;
}

double reference_dot(const float *a, const float *b, int64_t n) {
    double lanes[4] = { 0.0, 0.0, 0.0, 0.0 };
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        for (int64_t j = 0; j < 4; j++) {
            lanes[j] += (double)a[i + j] * (double)b[i + j];
        }
    }
    for (; i < n; i++) {
        lanes[0] += (double)a[i] * (double)b[i];
    }
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

double reference_sigmoid(double x) {
    return 1.0 / (1.0 + exp(-x));
}

double reference_activate(enum activation act, double x) {
    switch (act) {
    case ACT_SILU:
        return x * reference_sigmoid(x);
    case ACT_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    default:
        return x;
    }
}

/* ---- The backend ---- */

static enum cyi_status run(struct backend *backend, enum op op, const void *args, struct cyi_error *err) {
    struct reference *ref = (struct reference *)backend;
    struct arena_mark mark = arena_get_mark(ref->scratch);
    enum cyi_status st = CYI_E_UNSUPPORTED;
    switch (op) {
#define OP(ID, name)                                                                                                   \
    case OP_##ID:                                                                                                      \
        st = reference_##name(ref, args, err);                                                                         \
        break;
#include "ops/ops.def"
#undef OP
    default:
        break;
    }
    arena_release(ref->scratch, mark);
    arena_trim(ref->scratch);
    return st;
}

static size_t get_peak(const struct backend *backend) {
    return arena_get_peak(((const struct reference *)backend)->scratch);
}

static void free_reference(struct backend *backend) {
    struct reference *ref = (struct reference *)backend;
    arena_free(ref->scratch);
    mem_free(ref->allocator, ref);
}

static const struct backend_vtable vtable = {
    .name = "reference",
    .run = run,
    .get_peak = get_peak,
    .free = free_reference,
};

static enum cyi_status create(const struct backend_options *options, struct backend **ret_backend,
                              struct cyi_error *err) {
    struct reference *ref = mem_alloc(options->allocator, sizeof *ref);
    if (ref == NULL) {
        return error_memory(err, "the reference backend", sizeof *ref);
    }
    *ref = (struct reference){
        .base = { &vtable },
        .allocator = options->allocator,
        .n_threads = options->n_threads,
    };
    enum cyi_status st = arena_create(options->allocator, &ref->scratch, err);
    if (st != CYI_OK) {
        mem_free(options->allocator, ref);
        return st;
    }
    *ret_backend = &ref->base;
    return CYI_OK;
}

static enum cyi_status get_info(int device, struct backend_info *ret_info, struct cyi_error *err) {
    (void)device;
    (void)err;
    *ret_info = (struct backend_info){ .name = "reference", .version = "reference " CYI_VERSION, .isa = "generic" };
    return CYI_OK;
}

const struct backend_kind backend_reference = { create, get_info };
