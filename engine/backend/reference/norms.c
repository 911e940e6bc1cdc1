/* Norms of the reference backend: LAYER_NORM, RMS_NORM, QK_NORM_ROPE, GROUP_NORM. */
#include <math.h>

#include "backend/reference/reference.h"

enum cyi_status reference_layer_norm(struct reference *ref, const struct layer_norm_args *a, struct cyi_error *err) {
    (void)err;
    int64_t m = tensor_n_rows(a->x);
    int64_t d = tensor_n_cols(a->x);
#pragma omp parallel for num_threads(reference_n_threads(ref, m *d))
    for (int64_t i = 0; i < m; i++) {
        double mean = 0.0;
        for (int64_t j = 0; j < d; j++) {
            mean += (double)tensor_get(a->x, i, j);
        }
        mean /= (double)d;
        double variance = 0.0;
        for (int64_t j = 0; j < d; j++) {
            double distance = (double)tensor_get(a->x, i, j) - mean;
            variance += distance * distance;
        }
        double factor = 1.0 / sqrt(variance / (double)d + (double)a->eps);
        for (int64_t j = 0; j < d; j++) {
            double value = ((double)tensor_get(a->x, i, j) - mean) * factor;
            value = value * reference_get(a->weight, j, 1.0) + reference_get(a->bias, j, 0.0);
            value = value * (1.0 + reference_get(a->scale, j, 0.0)) + reference_get(a->shift, j, 0.0);
            reference_put(a->y, i, j, value);
        }
    }
    return CYI_OK;
}

/* 1 / sqrt(mean of squares + eps) of n elements of a row. */
static double get_rms_factor(const struct tensor *x, int64_t row, int64_t first, int64_t n, float eps) {
    double sum = 0.0;
    for (int64_t j = first; j < first + n; j++) {
        double value = (double)tensor_get(x, row, j);
        sum += value * value;
    }
    return 1.0 / sqrt(sum / (double)n + (double)eps);
}

enum cyi_status reference_rms_norm(struct reference *ref, const struct rms_norm_args *a, struct cyi_error *err) {
    (void)err;
    int64_t m = tensor_n_rows(a->x);
    int64_t d = tensor_n_cols(a->x);
#pragma omp parallel for num_threads(reference_n_threads(ref, m *d))
    for (int64_t i = 0; i < m; i++) {
        double factor = get_rms_factor(a->x, i, 0, d, a->eps);
        for (int64_t j = 0; j < d; j++) {
            reference_put(a->y, i, j, (double)tensor_get(a->x, i, j) * factor * reference_get(a->weight, j, 1.0));
        }
    }
    return CYI_OK;
}

/* One head of one token: columns first … first + k of a row. */
static void norm_and_rotate_head(const struct qk_norm_rope_args *a, int64_t row, int64_t first, int64_t k) {
    double factor = a->weight == NULL ? 1.0 : get_rms_factor(a->x, row, first, k, a->eps);
    if (a->cos == NULL) {
        for (int64_t j = 0; j < k; j++) {
            double value = (double)tensor_get(a->x, row, first + j) * factor * reference_get(a->weight, j, 1.0);
            reference_put(a->y, row, first + j, value);
        }
        return;
    }
    for (int64_t j = 0; j < k / 2; j++) {
        int64_t column_a = a->pairs == ROPE_ADJACENT ? 2 * j : j;
        int64_t column_b = a->pairs == ROPE_ADJACENT ? 2 * j + 1 : j + k / 2;
        double x_a = (double)tensor_get(a->x, row, first + column_a) * factor * reference_get(a->weight, column_a, 1.0);
        double x_b = (double)tensor_get(a->x, row, first + column_b) * factor * reference_get(a->weight, column_b, 1.0);
        double c = (double)tensor_get(a->cos, row, j);
        double s = (double)tensor_get(a->sin, row, j);
        reference_put(a->y, row, first + column_a, x_a * c - x_b * s);
        reference_put(a->y, row, first + column_b, x_b * c + x_a * s);
    }
}

enum cyi_status reference_qk_norm_rope(struct reference *ref, const struct qk_norm_rope_args *a,
                                       struct cyi_error *err) {
    (void)err;
    int64_t s = tensor_n_rows(a->x);
    int64_t k = tensor_n_cols(a->x) / a->n_heads;
#pragma omp parallel for num_threads(reference_n_threads(ref, s *tensor_n_cols(a->x)))
    for (int64_t i = 0; i < s; i++) {
        for (int64_t h = 0; h < a->n_heads; h++) {
            norm_and_rotate_head(a, i, h * k, k);
        }
    }
    return CYI_OK;
}

/* Mean and 1 / sqrt(variance + eps) of n columns of all rows. */
static void get_group_statistics(const struct group_norm_args *a, int64_t first, int64_t n, double *ret_mean,
                                 double *ret_factor) {
    int64_t m = tensor_n_rows(a->x);
    double count = (double)(m * n);
    double mean = 0.0;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t c = first; c < first + n; c++) {
            mean += (double)tensor_get(a->x, i, c);
        }
    }
    mean /= count;
    double variance = 0.0;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t c = first; c < first + n; c++) {
            double distance = (double)tensor_get(a->x, i, c) - mean;
            variance += distance * distance;
        }
    }
    *ret_mean = mean;
    *ret_factor = 1.0 / sqrt(variance / count + (double)a->eps);
}

enum cyi_status reference_group_norm(struct reference *ref, const struct group_norm_args *a, struct cyi_error *err) {
    (void)err;
    int64_t n = tensor_n_cols(a->x) / a->n_groups;
    float *scale = a->scale->data;
    float *shift = a->shift->data;
#pragma omp parallel for num_threads(reference_n_threads(ref, tensor_n_elements(a->x)))
    for (int64_t g = 0; g < a->n_groups; g++) {
        double mean;
        double factor;
        get_group_statistics(a, g * n, n, &mean, &factor);
        for (int64_t c = g * n; c < (g + 1) * n; c++) {
            double channel_scale = factor * reference_get(a->weight, c, 1.0);
            scale[c] = (float)channel_scale;
            shift[c] = (float)(reference_get(a->bias, c, 0.0) - mean * channel_scale);
        }
    }
    return CYI_OK;
}
