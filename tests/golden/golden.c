/* The golden harness: see golden.h. */
#include "golden/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define N_PATHS 16
#define PATH_BYTES 4096

const char *fixture_path(const char *relative) {
    static char paths[N_PATHS][PATH_BYTES];
    static unsigned next;
    const char *root = getenv("CYI_FIXTURES");
    if (root == NULL) {
        fail_msg("the environment variable CYI_FIXTURES is not set");
    }
    char *path = paths[next++ % N_PATHS];
    int n = snprintf(path, PATH_BYTES, "%s/%s", root, relative);
    assert_true(n > 0 && n < PATH_BYTES);
    return path;
}

struct safetensors *golden_open(const char *name) {
    char relative[PATH_BYTES];
    struct safetensors *golden = NULL;
    struct cyi_error err = { 0 };
    (void)snprintf(relative, sizeof relative, "golden/%s/golden.safetensors", name);
    if (safetensors_open(&mem_default_allocator, fixture_path(relative), &golden, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    return golden;
}

struct tensor golden_tensor(const struct safetensors *golden, const char *name) {
    const struct safetensors_entry *entry = safetensors_find(golden, name);
    if (entry == NULL || !entry->is_usable) {
        fail_msg("%s has no tensor \"%s\"", safetensors_path(golden), name);
    }
    return entry->tensor;
}

/* Element i of a tensor read as a packed list, of any type. */
static double element(const struct tensor *t, int64_t i) {
    int64_t n_cols = tensor_n_cols(t);
    int64_t at = i / n_cols * t->row_stride + i % n_cols;
    const uint8_t *data = (const uint8_t *)t->data + (size_t)at * dtype_size(t->dtype);
    int32_t narrow;
    int64_t wide;
    switch (t->dtype) {
    case DTYPE_I32:
        memcpy(&narrow, data, sizeof narrow);
        return narrow;
    case DTYPE_I64:
        memcpy(&wide, data, sizeof wide);
        return (double)wide;
    default:
        return (double)dtype_load(t->dtype, t->data, at);
    }
}

double golden_nmse(const struct tensor *x, const struct tensor *y) {
    int64_t n = tensor_n_elements(y);
    double difference = 0;
    double power = 0;
    if (tensor_n_elements(x) != n) {
        char left[96];
        char right[96];
        fail_msg("%s is compared with %s", tensor_describe(x, left, sizeof left),
                 tensor_describe(y, right, sizeof right));
    }
    for (int64_t i = 0; i < n; i++) {
        double expected = element(y, i);
        double d = element(x, i) - expected;
        difference += d * d;
        power += expected * expected;
    }
    return difference > 0 || isnan(difference) ? difference / power : 0;
}

double golden_psnr(const uint8_t *x, const uint8_t *y, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)y[i];
        sum += d * d;
    }
    return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)n / sum) : (double)INFINITY;
}

void golden_check(const char *stage, const struct tensor *x, const struct tensor *y, double limit) {
    double nmse = golden_nmse(x, y);
    print_message("%-32s nmse %.2g (limit %.2g)\n", stage, nmse, limit);
    if (!(nmse <= limit)) { /* also when it is not a number */
        fail_msg("%s: nmse %g is above %g", stage, nmse, limit);
    }
}
