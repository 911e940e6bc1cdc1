/* The reference backend's insides: what its files share. See reference.c. */
#ifndef BACKEND_REFERENCE_REFERENCE_H
#define BACKEND_REFERENCE_REFERENCE_H

#include "backend/backend.h"

struct reference {
    struct backend base;
    const struct cyi_allocator *allocator;
    struct arena *scratch; /* empty between operations */
    int n_threads;
};

/* One function an operation; scratch that it takes is released by the caller. */
#define OP(ID, name)                                                                                                   \
    enum cyi_status reference_##name(struct reference *ref, const struct name##_args *a, struct cyi_error *err);
#include "ops/ops.def"
#undef OP

/* Scratch of n floats. Errors: MEMORY. */
enum cyi_status reference_new_floats(struct reference *ref, int64_t n, float **ret_floats, struct cyi_error *err);
/* Scratch of n doubles. Errors: MEMORY. */
enum cyi_status reference_new_doubles(struct reference *ref, int64_t n, double **ret_doubles, struct cyi_error *err);
/* A packed copy of a matrix as floats, in scratch. Errors: MEMORY. */
enum cyi_status reference_copy_matrix(struct reference *ref, const struct tensor *t, float **ret_floats,
                                      struct cyi_error *err);

/* n elements from element `first` on, as floats. */
void reference_load(const struct tensor *t, int64_t first, int64_t n, float *values);

/* How many threads are worth it for so many steps of arithmetic: one, or all of the backend's. */
int reference_n_threads(const struct reference *ref, int64_t n_steps);

/* Σ a[i] · b[i], products and sum in double, always in the same order. */
double reference_dot(const float *a, const float *b, int64_t n);

double reference_sigmoid(double x);
double reference_activate(enum activation act, double x);

/* Element i of a vector; `otherwise` when there is no vector. */
static inline double reference_get(const struct tensor *vector, int64_t i, double otherwise) {
    return vector == NULL ? otherwise : (double)dtype_load(vector->dtype, vector->data, i);
}

/* Writes element (row, col), rounded once. */
static inline void reference_put(const struct tensor *t, int64_t row, int64_t col, double value) {
    dtype_store(t->dtype, t->data, row * t->row_stride + col, (float)value);
}

#endif
