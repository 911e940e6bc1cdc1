/* Operations of the reference backend whose results depend on one place each: SWIGLU, SILU, ADD, CAST, CHANNEL_AFFINE.
 */
#include "backend/reference/reference.h"

enum cyi_status reference_swiglu(struct reference *ref, const struct swiglu_args *a, struct cyi_error *err) {
    (void)err;
    int64_t n_cols = tensor_n_cols(a->y);
#pragma omp parallel for num_threads(reference_n_threads(ref, tensor_n_elements(a->y)))
    for (int64_t i = 0; i < tensor_n_rows(a->y); i++) {
        for (int64_t j = 0; j < n_cols; j++) {
            double gate = reference_activate(ACT_SILU, (double)tensor_get(a->gate, i, j));
            reference_put(a->y, i, j, gate * (double)tensor_get(a->up, i, j));
        }
    }
    return CYI_OK;
}

enum cyi_status reference_silu(struct reference *ref, const struct silu_args *a, struct cyi_error *err) {
    (void)err;
    int64_t n_cols = tensor_n_cols(a->y);
#pragma omp parallel for num_threads(reference_n_threads(ref, tensor_n_elements(a->y)))
    for (int64_t i = 0; i < tensor_n_rows(a->y); i++) {
        for (int64_t j = 0; j < n_cols; j++) {
            reference_put(a->y, i, j, reference_activate(ACT_SILU, (double)tensor_get(a->x, i, j)));
        }
    }
    return CYI_OK;
}

enum cyi_status reference_add(struct reference *ref, const struct add_args *a, struct cyi_error *err) {
    (void)err;
    int64_t n_cols = tensor_n_cols(a->y);
#pragma omp parallel for num_threads(reference_n_threads(ref, tensor_n_elements(a->y)))
    for (int64_t i = 0; i < tensor_n_rows(a->y); i++) {
        for (int64_t j = 0; j < n_cols; j++) {
            reference_put(a->y, i, j, (double)tensor_get(a->a, i, j) + (double)tensor_get(a->b, i, j));
        }
    }
    return CYI_OK;
}

enum cyi_status reference_cast(struct reference *ref, const struct cast_args *a, struct cyi_error *err) {
    (void)err;
    int64_t n_cols = tensor_n_cols(a->y);
#pragma omp parallel for num_threads(reference_n_threads(ref, tensor_n_elements(a->y)))
    for (int64_t i = 0; i < tensor_n_rows(a->y); i++) {
        for (int64_t j = 0; j < n_cols; j++) {
            reference_put(a->y, i, j, (double)tensor_get(a->x, i, j));
        }
    }
    return CYI_OK;
}

enum cyi_status reference_channel_affine(struct reference *ref, const struct channel_affine_args *a,
                                         struct cyi_error *err) {
    (void)err;
    int64_t n_cols = tensor_n_cols(a->y);
#pragma omp parallel for num_threads(reference_n_threads(ref, tensor_n_elements(a->y)))
    for (int64_t i = 0; i < tensor_n_rows(a->y); i++) {
        for (int64_t j = 0; j < n_cols; j++) {
            double value = (double)tensor_get(a->x, i, j) * reference_get(a->scale, j, 1.0);
            reference_put(a->y, i, j, reference_activate(a->act, value + reference_get(a->shift, j, 0.0)));
        }
    }
    return CYI_OK;
}
