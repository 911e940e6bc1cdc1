/* Tensors: a view of numbers in memory. A tensor owns nothing; the data belongs to an arena, a mapped file or the caller.
 *
 * Shapes are outermost first and row-major. Innermost elements are adjacent; consecutive rows (of the innermost dimension) lie
 * row_stride elements apart, so that a view of some columns of a wider matrix is a tensor too. Data of weights may be unaligned. */
#ifndef CORE_TENSOR_H
#define CORE_TENSOR_H

#include "core/dtype.h"
#include "core/memory.h"

#define TENSOR_MAX_RANK 4

struct tensor {
    enum dtype dtype;
    int rank; /* 1…TENSOR_MAX_RANK */
    int64_t shape[TENSOR_MAX_RANK];
    int64_t row_stride; /* elements from one row to the next, ≥ the last dimension */
    void *data;
};

/* Views of given memory. */
struct tensor tensor_1d(enum dtype dtype, int64_t n, void *data);
struct tensor tensor_2d(enum dtype dtype, int64_t n_rows, int64_t n_cols, void *data);
struct tensor tensor_3d(enum dtype dtype, int64_t n0, int64_t n1, int64_t n2, void *data);

/* New data from an arena, not initialised, packed. Errors: MEMORY. */
enum cyi_status tensor_new(struct arena *arena, enum dtype dtype, int rank, const int64_t *shape, struct tensor *ret,
                           struct cyi_error *err);
enum cyi_status tensor_new_2d(struct arena *arena, enum dtype dtype, int64_t n_rows, int64_t n_cols, struct tensor *ret,
                              struct cyi_error *err);

int64_t tensor_n_cols(const struct tensor *t); /* the last dimension */
int64_t tensor_n_rows(const struct tensor *t); /* the product of the others */
int64_t tensor_n_elements(const struct tensor *t);
size_t tensor_n_bytes(const struct tensor *t); /* of the elements, gaps between rows not counted */
bool tensor_is_packed(const struct tensor *t); /* row_stride == n_cols (or one row) */

/* Rows first … first + n of a tensor seen as [rows, columns]; columns likewise. Bounds are asserted. */
struct tensor tensor_rows(const struct tensor *t, int64_t first, int64_t n);
struct tensor tensor_cols(const struct tensor *t, int64_t first, int64_t n);
/* A packed tensor under another shape of as many elements. */
struct tensor tensor_reshape_2d(const struct tensor *t, int64_t n_rows, int64_t n_cols);

/* The address of row r. */
static inline void *tensor_row(const struct tensor *t, int64_t r) {
    return (uint8_t *)t->data + (size_t)(r * t->row_stride) * dtype_size(t->dtype);
}

/* Element (row, column) as float. */
static inline float tensor_get(const struct tensor *t, int64_t row, int64_t col) {
    return dtype_load(t->dtype, t->data, row * t->row_stride + col);
}

/* "[512, 7680] BF16" into text, for messages. Returns text. */
const char *tensor_describe(const struct tensor *t, char *text, size_t size);

#endif
