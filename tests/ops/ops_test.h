/* What the tests of operations share: random tensors in every type and layout, and one check that runs an operation on
 * a backend with one, two and three threads and compares with expected values in double.
 *
 * A test file has one function an operation, which walks a table of sizes: clear, make tensors, compute the expected
 * values in a naive way of its own, check. OPS_TEST makes a row a backend of it; a backend that the build or the machine
 * lacks is skipped. */
#ifndef TESTS_OPS_TEST_H
#define TESTS_OPS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "backend/backend.h"

enum layout {
    PACKED,
    VIEW,     /* columns out of the middle of a wider matrix */
    UNALIGNED /* packed, at an odd address */
};

#define OPS_MAX_TENSORS 16

struct ops_test {
    const struct backend_kind *kind;
    struct backend_choice choice; /* of a backend that is a plug-in */
    const char *backend;
    struct arena *arena;
    uint64_t random;
    float offset;                 /* added to every F32 and BF16 value that is drawn */
    double f32_limit, bf16_limit; /* largest NMSE by the type of the result */
    bool rounds_operands;         /* a product with a BF16 side takes the other side, and the softmax, in BF16 too */
    struct {
        const char *name;
        struct tensor tensor;
        uint8_t *bytes; /* everything around the tensor, too */
        size_t size_bytes;
    } tensors[OPS_MAX_TENSORS];
    int n_tensors;
};

/* A result: where it is written and what it should be, packed. */
struct ops_output {
    const struct tensor *y;
    const double *expected;
};

/* Forgets all tensors. The next ones repeat exactly only when seed does. */
void ops_clear(struct ops_test *t, uint64_t seed);
/* Tensors with random values of moderate size, and doubles. Fail the test when there is no memory. */
struct tensor ops_matrix(struct ops_test *t, const char *name, enum dtype dtype, int64_t n_rows, int64_t n_cols,
                         enum layout layout);
struct tensor ops_vector(struct ops_test *t, const char *name, enum dtype dtype, int64_t n);
struct tensor ops_tensor(struct ops_test *t, const char *name, enum dtype dtype, int rank, const int64_t *shape,
                         enum layout layout);
double *ops_doubles(struct ops_test *t, int64_t n);
uint64_t ops_random(struct ops_test *t);

/* Runs the operation. Fails the test unless: it succeeds without falling back; every result is finite and near what is
 * expected; nothing else changes, neither inputs nor memory beside views; and every number of threads gives the same
 * bytes. */
void ops_check(struct ops_test *t, enum op op, const void *args, const struct ops_output *outputs, int n_outputs);
void ops_check_one(struct ops_test *t, enum op op, const void *args, const struct tensor *y, const double *expected);

/* op_NAME by number. */
enum cyi_status ops_run(struct exec *ex, enum op op, const void *args, struct cyi_error *err);
/* The same on any backend: on the device's memory when it has some; waits for the results. */
enum cyi_status ops_run_anywhere(struct ops_test *t, struct exec *ex, enum op op, const void *args,
                                 struct cyi_error *err);

/* An element as double; `otherwise` when there is no tensor. */
double ops_get(const struct tensor *t, int64_t row, int64_t col, double otherwise);
double ops_activate(enum activation act, double x);

extern const enum dtype ops_act_dtypes[2];
extern const enum dtype ops_weight_dtypes[5];

int ops_setup_reference(void **state);
int ops_setup_onednn(void **state);
int ops_setup_cuda(void **state);
int ops_teardown(void **state);

/* On backends in the memory of the host. */
#define OPS_TEST_HOST(function)                                                                                        \
    { #function " [reference]", function, ops_setup_reference, ops_teardown, NULL }, {                                 \
#function " [onednn]", function, ops_setup_onednn, ops_teardown, NULL                                          \
    }
#define OPS_TEST(function)                                                                                             \
    OPS_TEST_HOST(function), {                                                                                         \
#function " [cuda]", function, ops_setup_cuda, ops_teardown, NULL                                              \
    }

/* Runs the tests; the environment variable CYI_TEST_FILTER names some of them: "*[cuda]". */
#define ops_run_tests(tests)                                                                                           \
    (cmocka_set_test_filter(getenv("CYI_TEST_FILTER")), cmocka_run_group_tests(tests, NULL, NULL))

/* The test's own view of its state; skips when the backend is not built in. */
struct ops_test *ops_begin(void **state);

#endif
