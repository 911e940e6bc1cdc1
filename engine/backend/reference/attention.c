/* ATTENTION of the reference backend: one row of one head at a time, as the formula reads. */
#include <math.h>
#include <omp.h>

#include "backend/reference/reference.h"

/* The arguments, with the inputs as packed floats. */
struct attention {
    const struct attention_args *args;
    int64_t head_size;      /* K */
    const float *q, *k, *v; /* [S, H·K], [R, Hkv·K] */
};

/* softmax(scale · q kᵀ) into weights[n], not yet divided by the sum, which is returned. */
static double fill_weights(const struct attention *at, const float *q, const float *k, int64_t n, double *weights) {
    int64_t kv_cols = at->args->n_kv_heads * at->head_size;
    double largest = -(double)INFINITY;
    for (int64_t r = 0; r < n; r++) {
        weights[r] = reference_dot(q, k + r * kv_cols, at->head_size) * (double)at->args->scale;
        largest = fmax(largest, weights[r]);
    }
    double sum = 0.0;
    for (int64_t r = 0; r < n; r++) {
        weights[r] = exp(weights[r] - largest);
        sum += weights[r];
    }
    return sum;
}

/* scratch [n_keys + K]: the weights of the keys, then the sums of the values. */
static void attend_row(const struct attention *at, int64_t row, int64_t head, double *scratch) {
    const struct attention_args *a = at->args;
    int64_t size = at->head_size;
    int64_t kv_cols = a->n_kv_heads * size;
    int64_t kv_first = head / (a->n_heads / a->n_kv_heads) * size;
    int64_t n = a->is_causal && row + 1 < a->n_keys ? row + 1 : a->n_keys;
    double *weights = scratch;
    double *sums = scratch + a->n_keys;
    double sum = fill_weights(at, at->q + (row * a->n_heads + head) * size, at->k + kv_first, n, weights);
    for (int64_t j = 0; j < size; j++) {
        sums[j] = 0.0;
    }
    for (int64_t r = 0; r < n; r++) {
        const float *v = at->v + r * kv_cols + kv_first;
        for (int64_t j = 0; j < size; j++) {
            sums[j] += weights[r] * (double)v[j];
        }
    }
    for (int64_t j = 0; j < size; j++) {
        reference_put(a->out, row, head * size + j, sums[j] / sum);
    }
}

enum cyi_status reference_attention(struct reference *ref, const struct attention_args *a, struct cyi_error *err) {
    int64_t s = tensor_n_rows(a->q);
    int64_t size = tensor_n_cols(a->q) / a->n_heads;
    int64_t scratch_size = a->n_keys + size;
    int n_threads = reference_n_threads(ref, s * a->n_keys * tensor_n_cols(a->q));
    float *q = NULL;
    float *k = NULL;
    float *v = NULL;
    double *scratch = NULL; /* [threads, scratch_size] */
    enum cyi_status st;
    TRY(reference_copy_matrix(ref, a->q, &q, err));
    TRY(reference_copy_matrix(ref, a->k, &k, err));
    TRY(reference_copy_matrix(ref, a->v, &v, err));
    TRY(reference_new_doubles(ref, n_threads * scratch_size, &scratch, err));
    struct attention at = { .args = a, .head_size = size, .q = q, .k = k, .v = v };
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < s * a->n_heads; i++) {
        attend_row(&at, i / a->n_heads, i % a->n_heads, scratch + omp_get_thread_num() * scratch_size);
    }
done:
    return st;
}
