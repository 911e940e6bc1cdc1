/* Tensors: see tensor.h. */
#include "core/tensor.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/size.h"

static struct tensor view(enum dtype dtype, int rank, const int64_t *shape, void *data) {
    struct tensor t = { .dtype = dtype, .rank = rank, .row_stride = shape[rank - 1], .data = data };
    for (int i = 0; i < rank; i++) {
        t.shape[i] = shape[i];
    }
    return t;
}

struct tensor tensor_1d(enum dtype dtype, int64_t n, void *data) {
    return view(dtype, 1, (const int64_t[]){ n }, data);
}

struct tensor tensor_2d(enum dtype dtype, int64_t n_rows, int64_t n_cols, void *data) {
    return view(dtype, 2, (const int64_t[]){ n_rows, n_cols }, data);
}

struct tensor tensor_3d(enum dtype dtype, int64_t n0, int64_t n1, int64_t n2, void *data) {
    return view(dtype, 3, (const int64_t[]){ n0, n1, n2 }, data);
}

enum cyi_status tensor_new(struct arena *arena, enum dtype dtype, int rank, const int64_t *shape, struct tensor *ret,
                           struct cyi_error *err) {
    size_t n = 1;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 || !size_mul(&n, n, (size_t)shape[i])) {
            return error_set(err, CYI_E_SHAPE, "a tensor's size overflows in dimension %d (%" PRId64 ")", i, shape[i]);
        }
    }
    void *data = arena_alloc(arena, n, dtype_size(dtype));
    if (data == NULL) {
        return error_memory(err, "a tensor", n * dtype_size(dtype));
    }
    *ret = view(dtype, rank, shape, data);
    return CYI_OK;
}

enum cyi_status tensor_new_2d(struct arena *arena, enum dtype dtype, int64_t n_rows, int64_t n_cols, struct tensor *ret,
                              struct cyi_error *err) {
    return tensor_new(arena, dtype, 2, (const int64_t[]){ n_rows, n_cols }, ret, err);
}

int64_t tensor_n_cols(const struct tensor *t) {
    return t->shape[t->rank - 1];
}

int64_t tensor_n_rows(const struct tensor *t) {
    int64_t n = 1;
    for (int i = 0; i + 1 < t->rank; i++) {
        n *= t->shape[i];
    }
    return n;
}

int64_t tensor_n_elements(const struct tensor *t) {
    return tensor_n_rows(t) * tensor_n_cols(t);
}

size_t tensor_n_bytes(const struct tensor *t) {
    return (size_t)tensor_n_elements(t) * dtype_size(t->dtype);
}

bool tensor_is_packed(const struct tensor *t) {
    return t->row_stride == tensor_n_cols(t) || tensor_n_rows(t) <= 1;
}

struct tensor tensor_rows(const struct tensor *t, int64_t first, int64_t n) {
    assert(first >= 0 && n >= 0 && first + n <= tensor_n_rows(t));
    struct tensor rows = tensor_2d(t->dtype, n, tensor_n_cols(t), tensor_row(t, first));
    rows.row_stride = t->row_stride;
    return rows;
}

struct tensor tensor_cols(const struct tensor *t, int64_t first, int64_t n) {
    assert(first >= 0 && n >= 0 && first + n <= tensor_n_cols(t));
    struct tensor cols =
        tensor_2d(t->dtype, tensor_n_rows(t), n, (uint8_t *)t->data + (size_t)first * dtype_size(t->dtype));
    cols.row_stride = t->row_stride;
    return cols;
}

struct tensor tensor_reshape_2d(const struct tensor *t, int64_t n_rows, int64_t n_cols) {
    assert(tensor_is_packed(t) && n_rows * n_cols == tensor_n_elements(t));
    return tensor_2d(t->dtype, n_rows, n_cols, t->data);
}

const char *tensor_describe(const struct tensor *t, char *text, size_t size) {
    size_t used = 0;
    for (int i = 0; i < t->rank && used < size; i++) {
        int n = snprintf(text + used, size - used, "%s%" PRId64, i == 0 ? "[" : ", ", t->shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < size) {
        (void)snprintf(text + used, size - used, "] %s", dtype_name(t->dtype));
    }
    return text;
}
