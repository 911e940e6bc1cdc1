/* LINEAR and EMBED of the reference backend. */
#include <omp.h>

#include "backend/reference/reference.h"

enum cyi_status reference_linear(struct reference *ref, const struct linear_args *a, struct cyi_error *err) {
    int64_t m = tensor_n_rows(a->x);
    int64_t k = tensor_n_cols(a->x);
    int64_t n = tensor_n_rows(a->weight);
    int n_threads = reference_n_threads(ref, m * n * k);
    float *x = NULL;       /* [M, K] */
    float *weights = NULL; /* [threads, K]: the row that a thread works on */
    enum cyi_status st;
    TRY(reference_copy_matrix(ref, a->x, &x, err));
    TRY(reference_new_floats(ref, n_threads * k, &weights, err));
#pragma omp parallel for num_threads(n_threads)
    for (int64_t j = 0; j < n; j++) {
        float *weight = weights + omp_get_thread_num() * k;
        reference_load(a->weight, j * k, k, weight);
        double bias = reference_get(a->bias, j, 0.0);
        double gate = reference_get(a->gate, j, 1.0);
        for (int64_t i = 0; i < m; i++) {
            double value = gate * reference_activate(a->act, reference_dot(x + i * k, weight, k) + bias);
            if (a->residual != NULL) {
                value += (double)tensor_get(a->residual, i, j);
            }
            reference_put(a->y, i, j, value);
        }
    }
done:
    return st;
}

enum cyi_status reference_embed(struct reference *ref, const struct embed_args *a, struct cyi_error *err) {
    (void)err;
    int64_t n = tensor_n_elements(a->ids);
    int64_t d = tensor_n_cols(a->table);
    const int32_t *ids = a->ids->data;
#pragma omp parallel for num_threads(reference_n_threads(ref, n *d))
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < d; j++) {
            reference_put(a->y, i, j, (double)tensor_get(a->table, ids[i], j));
        }
    }
    return CYI_OK;
}
