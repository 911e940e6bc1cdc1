/* What the tests of operations share: see ops_test.h. */
#include "ops_test.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops_device.h"

#define MARGIN 5 /* columns on each side of a view: odd, so that views are badly aligned */

const enum dtype ops_act_dtypes[2] = { DTYPE_F32, DTYPE_BF16 };
const enum dtype ops_weight_dtypes[5] = { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F8_E4M3, DTYPE_F8_E5M2 };

/* ---- Setup ---- */

static int setup(void **state, const char *backend, double f32_limit, double bf16_limit) {
    struct ops_test *t = calloc(1, sizeof *t);
    if (t == NULL || arena_create(&mem_default_allocator, &t->arena, NULL) != CYI_OK) {
        free(t);
        return -1;
    }
    t->kind = backend_find(backend);
    t->backend = backend;
    t->f32_limit = f32_limit;
    t->bf16_limit = bf16_limit;
    *state = t;
    return 0;
}

/* The reference sums in double, so that only the rounding of the result is left: relative 2^-24 or 2^-8 at most. */
int ops_setup_reference(void **state) {
    return setup(state, "reference", 4e-15, 1.6e-5);
}

/* fp32 sums in another order; with bf16, operands and inner results may be rounded to bf16 once more. */
int ops_setup_onednn(void **state) {
    int failed = setup(state, "onednn", 1e-11, 2e-5);
    if (failed == 0) {
        ((struct ops_test *)*state)->rounds_operands = true;
    }
    return failed;
}

/* As oneDNN, on a card or what stands for one. */
int ops_setup_cuda(void **state) {
    int failed = setup(state, "cuda", 1e-11, 2e-5);
    if (failed == 0) {
        struct ops_test *t = *state;
        t->rounds_operands = true;
        if (backend_choose("cuda", 0, &t->choice, NULL) == CYI_OK) {
            t->kind = t->choice.kind;
        }
    }
    return failed;
}

int ops_teardown(void **state) {
    struct ops_test *t = *state;
    backend_choice_done(&t->choice);
    arena_free(t->arena);
    free(t);
    return 0;
}

struct ops_test *ops_begin(void **state) {
    struct ops_test *t = *state;
    if (t->kind == NULL) {
        skip();
    }
    return t;
}

/* ---- Tensors ---- */

void ops_clear(struct ops_test *t, uint64_t seed) {
    arena_release(t->arena, (struct arena_mark){ 0, 0 });
    t->n_tensors = 0;
    t->random = seed * 0x9e3779b97f4a7c15U + 0x1234567U;
    t->offset = 0.0F;
}

uint64_t ops_random(struct ops_test *t) {
    t->random ^= t->random >> 12;
    t->random ^= t->random << 25;
    t->random ^= t->random >> 27;
    return (t->random * 0x2545f4914f6cdd1dU) >> 16;
}

/* A finite value of magnitude 4 at most, in any type; the address may be odd. */
static void store_random(struct ops_test *t, enum dtype dtype, uint8_t *bytes) {
    uint64_t random = ops_random(t);
    uint8_t sign = (uint8_t)(random & 0x80);
    float value = ((float)(random & 0xffff) / 32768.0F - 1.0F) * 1.75F + t->offset;
    uint16_t half;
    switch (dtype) {
    case DTYPE_F32:
        memcpy(bytes, &value, sizeof value);
        return;
    case DTYPE_F16:
        half = (uint16_t)((uint64_t)sign << 8 | (random >> 8) % 0x4400);
        memcpy(bytes, &half, sizeof half);
        return;
    case DTYPE_BF16:
        half = float_to_bf16(value);
        memcpy(bytes, &half, sizeof half);
        return;
    case DTYPE_F8_E4M3:
        *bytes = (uint8_t)(sign | (random >> 8) % 0x49);
        return;
    case DTYPE_F8_E5M2:
        *bytes = (uint8_t)(sign | (random >> 8) % 0x45);
        return;
    default:
        fail_msg("no random values of type %s", dtype_name(dtype));
    }
}

struct tensor ops_tensor(struct ops_test *t, const char *name, enum dtype dtype, int rank, const int64_t *shape,
                         enum layout layout) {
    struct tensor tensor = { .dtype = dtype, .rank = rank };
    memcpy(tensor.shape, shape, (size_t)rank * sizeof *shape);
    int64_t margin = layout == VIEW ? MARGIN : 0;
    tensor.row_stride = tensor_n_cols(&tensor) + 2 * margin;
    size_t n = (size_t)(tensor_n_rows(&tensor) * tensor.row_stride);
    size_t size = dtype_size(dtype);
    size_t shift = layout == UNALIGNED ? 1 : 0;
    uint8_t *bytes = arena_alloc(t->arena, n * size + shift, 1);
    assert_non_null(bytes);
    assert_true(t->n_tensors < OPS_MAX_TENSORS);
    memset(bytes, 0, n * size + shift);
    for (size_t i = 0; i < n && dtype != DTYPE_I32; i++) {
        store_random(t, dtype, bytes + shift + i * size);
    }
    tensor.data = bytes + shift + (size_t)margin * size;
    t->tensors[t->n_tensors].name = name;
    t->tensors[t->n_tensors].tensor = tensor;
    t->tensors[t->n_tensors].bytes = bytes;
    t->tensors[t->n_tensors++].size_bytes = n * size + shift;
    return tensor;
}

struct tensor ops_matrix(struct ops_test *t, const char *name, enum dtype dtype, int64_t n_rows, int64_t n_cols,
                         enum layout layout) {
    return ops_tensor(t, name, dtype, 2, (const int64_t[]){ n_rows, n_cols }, layout);
}

struct tensor ops_vector(struct ops_test *t, const char *name, enum dtype dtype, int64_t n) {
    bool may_be_unaligned = dtype != DTYPE_F32 && dtype != DTYPE_I32;
    return ops_tensor(t, name, dtype, 1, &n, may_be_unaligned ? UNALIGNED : PACKED);
}

double *ops_doubles(struct ops_test *t, int64_t n) {
    double *doubles = arena_alloc(t->arena, (size_t)n, sizeof *doubles);
    assert_non_null(doubles);
    return doubles;
}

double ops_get(const struct tensor *t, int64_t row, int64_t col, double otherwise) {
    return t == NULL ? otherwise : (double)tensor_get(t, row, col);
}

double ops_activate(enum activation act, double x) {
    switch (act) {
    case ACT_NONE:
        return x;
    case ACT_SILU:
        return x / (1.0 + exp(-x));
    case ACT_GELU_TANH:
        return x / (1.0 + exp(-2.0 * 0.79788456080286535588 * (x + 0.044715 * pow(x, 3))));
    }
    return (double)NAN;
}

/* ---- The check ---- */

static size_t get_size(const struct ops_test *t) {
    size_t size = 0;
    for (int i = 0; i < t->n_tensors; i++) {
        size += t->tensors[i].size_bytes;
    }
    return size;
}

/* Copies of all tensors' bytes, one after the other; they live as long as the tensors. */
static uint8_t *save(const struct ops_test *t) {
    uint8_t *saved = arena_alloc(t->arena, get_size(t), 1);
    assert_non_null(saved);
    size_t at = 0;
    for (int i = 0; i < t->n_tensors; i++) {
        memcpy(saved + at, t->tensors[i].bytes, t->tensors[i].size_bytes);
        at += t->tensors[i].size_bytes;
    }
    return saved;
}

static void restore(struct ops_test *t, const uint8_t *saved) {
    for (int i = 0; i < t->n_tensors; i++) {
        memcpy(t->tensors[i].bytes, saved, t->tensors[i].size_bytes);
        saved += t->tensors[i].size_bytes;
    }
}

static void describe(const struct ops_test *t, enum op op, int n_threads) {
    print_error("%s on %s with %d threads:", op_name(op), t->backend, n_threads);
    for (int i = 0; i < t->n_tensors; i++) {
        char text[96];
        const struct tensor *tensor = &t->tensors[i].tensor;
        print_error(" %s %s%s", t->tensors[i].name, tensor_describe(tensor, text, sizeof text),
                    tensor_is_packed(tensor) ? "" : " view");
    }
    print_error("\n");
}

/* Puts the bytes of before into every place that a result may use: what differs from before then, should not. */
static void put_results_back(struct ops_test *t, const uint8_t *before, const struct ops_output *outputs,
                             int n_outputs) {
    for (int o = 0; o < n_outputs; o++) {
        const struct tensor *y = outputs[o].y;
        const uint8_t *original = before;
        size_t row_bytes = (size_t)tensor_n_cols(y) * dtype_size(y->dtype);
        for (int i = 0; i < t->n_tensors; original += t->tensors[i++].size_bytes) {
            const uint8_t *start = t->tensors[i].bytes;
            for (int64_t r = 0; r < tensor_n_rows(y); r++) {
                uint8_t *row = tensor_row(y, r);
                if (row >= start && row < start + t->tensors[i].size_bytes) {
                    memcpy(row, original + (row - start), row_bytes);
                }
            }
        }
    }
}

/* The limits are those of many values; of a few, one may be rounded badly or be the rest of a cancellation. */
static double get_limit(const struct ops_test *t, enum op op, const struct tensor *y) {
    bool is_product = op == OP_LINEAR || op == OP_ATTENTION || op == OP_CONV2D;
    bool is_rounded = y->dtype == DTYPE_BF16;
    for (int i = 0; i < t->n_tensors && is_product && t->rounds_operands; i++) {
        is_rounded = is_rounded || (t->tensors[i].tensor.rank > 1 && t->tensors[i].tensor.dtype == DTYPE_BF16);
    }
    double n = (double)tensor_n_elements(y);
    return is_rounded ? t->bf16_limit * (1.0 + 7.0 / n) : t->f32_limit * (1.0 + 200.0 / n);
}

static void check_values(const struct ops_test *t, enum op op, int n_threads, const struct ops_output *output) {
    const struct tensor *y = output->y;
    int64_t n_cols = tensor_n_cols(y);
    double error = 0.0;
    double power = 0.0;
    double worst = 0.0;
    int64_t worst_at = 0;
    for (int64_t i = 0; i < tensor_n_elements(y); i++) {
        double difference = fabs((double)tensor_get(y, i / n_cols, i % n_cols) - output->expected[i]);
        error += difference * difference;
        power += output->expected[i] * output->expected[i];
        if (!(difference <= worst)) {
            worst = difference;
            worst_at = i;
        }
    }
    double limit = get_limit(t, op, y);
    if (!(error <= limit * power)) {
        describe(t, op, n_threads);
        fail_msg("nmse %.3g, limit %.1g; worst at [%" PRId64 ", %" PRId64 "]: %.9g instead of %.9g", error / power,
                 limit, worst_at / n_cols, worst_at % n_cols,
                 (double)tensor_get(y, worst_at / n_cols, worst_at % n_cols), output->expected[worst_at]);
    }
}

enum cyi_status ops_run(struct exec *ex, enum op op, const void *args, struct cyi_error *err) {
    switch (op) {
#define OP(ID, name)                                                                                                   \
    case OP_##ID:                                                                                                      \
        return op_##name(ex, args, err);
#include "ops/ops.def"
#undef OP
    default:
        return CYI_E_ARGUMENT;
    }
}

enum cyi_status ops_run_anywhere(struct ops_test *t, struct exec *ex, enum op op, const void *args,
                                 struct cyi_error *err) {
    if (ex->backend->vtable->device != NULL) {
        return ops_run_on_device(t, ex, op, args, err);
    }
    enum cyi_status st = ops_run(ex, op, args, err);
    return st == CYI_OK && ex->backend->vtable->sync != NULL ? ex->backend->vtable->sync(ex->backend, err) : st;
}

/* One run on a fresh backend. */
static void run_with_threads(struct ops_test *t, enum op op, const void *args, int n_threads) {
    struct cyi_error err = { 0 };
    struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = n_threads };
    struct exec ex = { .arena = t->arena, .allocator = &mem_default_allocator };
    assert_int_equal(t->kind->create(&options, &ex.backend, &err), CYI_OK);
    assert_int_equal(backend_reference.create(&options, &ex.reference, &err), CYI_OK);
    enum cyi_status st = ops_run_anywhere(t, &ex, op, args, &err);
    backend_free(ex.backend);
    backend_free(ex.reference);
    if (st != CYI_OK || ex.n_fallbacks != 0) {
        describe(t, op, n_threads);
        fail_msg("%s %s", st != CYI_OK ? cyi_status_name(st) : "falls back to the reference", err.text);
    }
}

static void expect_same(const struct ops_test *t, enum op op, int n_threads, const uint8_t *a, const uint8_t *b,
                        const char *fault) {
    if (memcmp(a, b, get_size(t)) != 0) {
        describe(t, op, n_threads);
        fail_msg("%s", fault);
    }
}

void ops_check(struct ops_test *t, enum op op, const void *args, const struct ops_output *outputs, int n_outputs) {
    int max_threads = ops_random(t) % 4 == 0 ? 3 : 2;
    struct arena_mark mark = arena_get_mark(t->arena);
    const uint8_t *before = save(t);
    const uint8_t *first = NULL;
    for (int n_threads = 1; n_threads <= max_threads; n_threads++) {
        restore(t, before);
        run_with_threads(t, op, args, n_threads);
        for (int i = 0; i < n_outputs; i++) {
            check_values(t, op, n_threads, &outputs[i]);
        }
        const uint8_t *after = save(t);
        first = first == NULL ? after : first;
        expect_same(t, op, n_threads, first, after, "other bytes than with one thread");
        put_results_back(t, before, outputs, n_outputs);
        expect_same(t, op, n_threads, before, save(t), "writes outside the result");
    }
    restore(t, before);
    arena_release(t->arena, mark);
}

void ops_check_one(struct ops_test *t, enum op op, const void *args, const struct tensor *y, const double *expected) {
    ops_check(t, op, args, &(struct ops_output){ y, expected }, 1);
}
