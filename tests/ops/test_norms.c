/* LAYER_NORM, RMS_NORM, QK_NORM_ROPE and GROUP_NORM on every backend against the formulas written out here. */
#include <math.h>

#include "ops_test.h"

static const int64_t sizes[][2] = {
    { 1, 1 }, { 1, 2 }, { 3, 7 }, { 13, 31 }, { 2, 64 }, { 5, 1024 }, { 67, 1031 }, { 200, 384 },
};
#define N_SIZES (sizeof sizes / sizeof sizes[0])

/* Mean and variance in one pass over differences from the first value: another way than the reference's. */
static void get_moments(const struct tensor *x, int64_t row, int64_t n, double *mean, double *variance) {
    double base = ops_get(x, row, 0, 0.0);
    double sum = 0.0;
    double squares = 0.0;
    for (int64_t j = 0; j < n; j++) {
        double d = ops_get(x, row, j, 0.0) - base;
        sum += d;
        squares += d * d;
    }
    *mean = base + sum / (double)n;
    *variance = squares / (double)n - sum / (double)n * sum / (double)n;
}

static double *expect_layer_norm(struct ops_test *t, const struct layer_norm_args *a) {
    int64_t d = tensor_n_cols(a->x);
    double *expected = ops_doubles(t, tensor_n_elements(a->x));
    for (int64_t i = 0; i < tensor_n_rows(a->x); i++) {
        double mean;
        double variance;
        get_moments(a->x, i, d, &mean, &variance);
        for (int64_t j = 0; j < d; j++) {
            double value = (ops_get(a->x, i, j, 0.0) - mean) / sqrt(variance + (double)a->eps);
            value = value * ops_get(a->weight, 0, j, 1.0) + ops_get(a->bias, 0, j, 0.0);
            expected[i * d + j] = value * (1.0 + ops_get(a->scale, 0, j, 0.0)) + ops_get(a->shift, 0, j, 0.0);
        }
    }
    return expected;
}

static void layer_norm_takes_all_types_sizes_and_options(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < N_SIZES * 16; i++) {
        ops_clear(t, i);
        int64_t m = sizes[i / 16][0];
        int64_t d = sizes[i / 16][1];
        t->offset = i % 3 == 0 ? 0.3F : 0.0F;
        struct tensor x = ops_matrix(t, "x", ops_act_dtypes[i % 2], m, d, i % 5 == 0 ? VIEW : PACKED);
        struct tensor y = ops_matrix(t, "y", ops_act_dtypes[i / 2 % 2], m, d, i % 7 == 0 ? VIEW : PACKED);
        struct tensor weight = ops_vector(t, "weight", ops_weight_dtypes[ops_random(t) % 5], d);
        struct tensor bias = ops_vector(t, "bias", ops_weight_dtypes[ops_random(t) % 5], d);
        struct tensor scale = ops_vector(t, "scale", DTYPE_F32, d);
        struct tensor shift = ops_vector(t, "shift", DTYPE_F32, d);
        uint64_t options = ops_random(t);
        struct layer_norm_args args = {
            .x = &x,
            .weight = options & 1 ? &weight : NULL,
            .bias = options & 2 ? &bias : NULL,
            .scale = options & 4 ? &scale : NULL,
            .shift = options & 8 ? &shift : NULL,
            .eps = 1e-5F,
            .y = &y,
        };
        ops_check_one(t, OP_LAYER_NORM, &args, &y, expect_layer_norm(t, &args));
    }
}

/* The variance as mean of squares less square of mean would have no digits left here. */
static void layer_norm_keeps_its_digits_far_from_zero(void **state) {
    struct ops_test *t = ops_begin(state);
    ops_clear(t, 1);
    t->offset = 300.0F;
    struct tensor x = ops_matrix(t, "x", DTYPE_F32, 9, 1000, PACKED);
    struct tensor y = ops_matrix(t, "y", DTYPE_F32, 9, 1000, PACKED);
    struct layer_norm_args args = { .x = &x, .eps = 1e-6F, .y = &y };
    t->f32_limit = fmax(t->f32_limit, 1e-7); /* the mean of fp32 sums: 2^-24 of 300 and a few roundings more */
    ops_check_one(t, OP_LAYER_NORM, &args, &y, expect_layer_norm(t, &args));
}

static double get_rms(const struct tensor *x, int64_t row, int64_t first, int64_t n, float eps) {
    double squares = 0.0;
    for (int64_t j = 0; j < n; j++) {
        squares += pow(ops_get(x, row, first + j, 0.0), 2);
    }
    return sqrt(squares / (double)n + (double)eps);
}

static void rms_norm_takes_all_types_and_sizes(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < N_SIZES * 20; i++) {
        ops_clear(t, i);
        int64_t m = sizes[i / 20][0];
        int64_t d = sizes[i / 20][1];
        bool in_place = (i + i / 20) % 3 == 0;
        struct tensor x = ops_matrix(t, "x", ops_act_dtypes[i % 2], m, d, i % 5 < 2 ? VIEW : PACKED);
        struct tensor y =
            in_place ? x : ops_matrix(t, "y", ops_act_dtypes[i / 2 % 2], m, d, i % 7 == 0 ? VIEW : PACKED);
        struct tensor weight = ops_vector(t, "weight", ops_weight_dtypes[i / 4 % 5], d);
        struct rms_norm_args args = { .x = &x, .weight = &weight, .eps = 1e-6F, .y = &y };
        double *expected = ops_doubles(t, m * d);
        for (int64_t r = 0; r < m; r++) {
            double rms = get_rms(&x, r, 0, d, args.eps);
            for (int64_t j = 0; j < d; j++) {
                expected[r * d + j] = ops_get(&x, r, j, 0.0) / rms * ops_get(&weight, 0, j, 1.0);
            }
        }
        ops_check_one(t, OP_RMS_NORM, &args, &y, expected);
    }
}

/* Element c of a head at row i, columns first …, divided by rms. */
static double expect_turned(const struct qk_norm_rope_args *a, int64_t i, int64_t first, int64_t c, int64_t k,
                            double rms) {
    double own = ops_get(a->x, i, first + c, 0.0) / rms * ops_get(a->weight, 0, c, 1.0);
    if (a->cos == NULL) {
        return own;
    }
    /* The other of the pair, the pair's number, and whether this one is the second. */
    bool is_second = a->pairs == ROPE_ADJACENT ? c % 2 == 1 : c >= k / 2;
    int64_t distance = a->pairs == ROPE_ADJACENT ? 1 : k / 2;
    int64_t partner = is_second ? c - distance : c + distance;
    int64_t pair = a->pairs == ROPE_ADJACENT ? c / 2 : c % (k / 2);
    double other = ops_get(a->x, i, first + partner, 0.0) / rms * ops_get(a->weight, 0, partner, 1.0);
    return own * ops_get(a->cos, i, pair, 0.0) + (is_second ? other : -other) * ops_get(a->sin, i, pair, 0.0);
}

static double *expect_qk(struct ops_test *t, const struct qk_norm_rope_args *a) {
    int64_t cols = tensor_n_cols(a->x);
    int64_t k = cols / a->n_heads;
    double *expected = ops_doubles(t, tensor_n_elements(a->x));
    for (int64_t i = 0; i < tensor_n_rows(a->x); i++) {
        for (int64_t first = 0; first < cols; first += k) {
            double rms = a->weight == NULL ? 1.0 : get_rms(a->x, i, first, k, a->eps);
            for (int64_t c = 0; c < k; c++) {
                expected[i * cols + first + c] = expect_turned(a, i, first, c, k, rms);
            }
        }
    }
    return expected;
}

static void qk_norm_rope_takes_all_types_sizes_and_options(void **state) {
    struct ops_test *t = ops_begin(state);
    static const int64_t shapes[][3] = {
        { 1, 1, 2 }, { 3, 2, 6 }, { 7, 3, 16 }, { 31, 5, 34 }, { 130, 6, 128 }
    }; /* S, H, K */
    for (uint64_t i = 0; i < 5 * 48; i++) {
        ops_clear(t, i);
        int64_t s = shapes[i / 48][0];
        int64_t h = shapes[i / 48][1];
        int64_t k = shapes[i / 48][2];
        bool in_place = i / 16 % 3 == 0;
        struct tensor x = ops_matrix(t, "x", ops_act_dtypes[i % 2], s, h * k, i % 3 == 0 ? PACKED : VIEW);
        struct tensor y =
            in_place ? x : ops_matrix(t, "y", ops_act_dtypes[i / 16 % 2], s, h * k, i % 5 == 0 ? VIEW : PACKED);
        struct tensor weight = ops_vector(t, "weight", ops_weight_dtypes[ops_random(t) % 5], k);
        struct tensor cosines = ops_matrix(t, "cos", DTYPE_F32, s, k / 2, i % 7 == 0 ? VIEW : PACKED);
        struct tensor sines = ops_matrix(t, "sin", DTYPE_F32, s, k / 2, i % 7 == 0 ? VIEW : PACKED);
        struct qk_norm_rope_args args = {
            .x = &x,
            .weight = i / 2 % 2 == 0 ? &weight : NULL,
            .cos = i / 4 % 2 == 0 ? &cosines : NULL,
            .sin = i / 4 % 2 == 0 ? &sines : NULL,
            .n_heads = h,
            .eps = 1e-6F,
            .pairs = i / 8 % 2 == 0 ? ROPE_ADJACENT : ROPE_HALVES,
            .y = &y,
        };
        ops_check_one(t, OP_QK_NORM_ROPE, &args, &y, expect_qk(t, &args));
    }
}

static void qk_norm_rope_takes_odd_heads_when_nothing_turns(void **state) {
    struct ops_test *t = ops_begin(state);
    ops_clear(t, 1);
    struct tensor x = ops_matrix(t, "x", DTYPE_F32, 5, 3 * 7, PACKED);
    struct tensor y = ops_matrix(t, "y", DTYPE_BF16, 5, 3 * 7, PACKED);
    struct tensor weight = ops_vector(t, "weight", DTYPE_F16, 7);
    struct qk_norm_rope_args args = { .x = &x, .weight = &weight, .n_heads = 3, .eps = 1e-6F, .y = &y };
    ops_check_one(t, OP_QK_NORM_ROPE, &args, &y, expect_qk(t, &args));
}

static void check_group_norm(struct ops_test *t, const int64_t *shape, int64_t n_groups, enum dtype dtype) {
    int64_t c = shape[2];
    int64_t width = c / n_groups;
    int64_t n_pixels = shape[0] * shape[1];
    struct tensor x = ops_tensor(t, "x", dtype, 3, shape, PACKED);
    struct tensor weight = ops_vector(t, "weight", ops_weight_dtypes[ops_random(t) % 5], c);
    struct tensor bias = ops_vector(t, "bias", ops_weight_dtypes[ops_random(t) % 5], c);
    t->offset = 0.0F;
    struct tensor scale = ops_vector(t, "scale", DTYPE_F32, c);
    struct tensor shift = ops_vector(t, "shift", DTYPE_F32, c);
    double *scales = ops_doubles(t, c);
    double *shifts = ops_doubles(t, c);
    const float eps = 1e-6F;
    for (int64_t first = 0; first < c; first += width) {
        double n = (double)(n_pixels * width);
        double mean = 0.0;
        double variance = 0.0;
        for (int64_t j = 0; j < n_pixels * width; j++) {
            mean += ops_get(&x, j / width, first + j % width, 0.0) / n;
        }
        for (int64_t j = 0; j < n_pixels * width; j++) {
            variance += pow(ops_get(&x, j / width, first + j % width, 0.0) - mean, 2) / n;
        }
        for (int64_t i = first; i < first + width; i++) {
            scales[i] = ops_get(&weight, 0, i, 1.0) / sqrt(variance + (double)eps);
            shifts[i] = ops_get(&bias, 0, i, 0.0) - mean * scales[i];
        }
    }
    struct group_norm_args args = {
        .x = &x,
        .weight = &weight,
        .bias = &bias,
        .n_groups = n_groups,
        .eps = eps,
        .scale = &scale,
        .shift = &shift,
    };
    ops_check(t, OP_GROUP_NORM, &args, (struct ops_output[]){ { &scale, scales }, { &shift, shifts } }, 2);
}

static void group_norm_takes_all_types_and_sizes(void **state) {
    struct ops_test *t = ops_begin(state);
    static const int64_t shapes[][4] = {
        { 1, 1, 2, 1 },    { 3, 5, 7, 7 },     { 3, 5, 7, 1 },    { 13, 11, 32, 32 },
        { 17, 9, 96, 32 }, { 40, 52, 64, 32 }, { 64, 64, 36, 6 },
    };
    for (uint64_t i = 0; i < 14; i++) {
        ops_clear(t, i);
        t->offset = 0.1F;
        check_group_norm(t, shapes[i / 2], shapes[i / 2][3], ops_act_dtypes[i % 2]);
    }
}

static void group_norm_keeps_its_digits_far_from_zero(void **state) {
    struct ops_test *t = ops_begin(state);
    ops_clear(t, 1);
    t->offset = 300.0F;
    t->f32_limit = fmax(t->f32_limit, 1e-9);
    check_group_norm(t, (const int64_t[]){ 40, 40, 8 }, 4, DTYPE_F32);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OPS_TEST(layer_norm_takes_all_types_sizes_and_options),
        OPS_TEST(layer_norm_keeps_its_digits_far_from_zero),
        OPS_TEST(rms_norm_takes_all_types_and_sizes),
        OPS_TEST(qk_norm_rope_takes_all_types_sizes_and_options),
        OPS_TEST(qk_norm_rope_takes_odd_heads_when_nothing_turns),
        OPS_TEST(group_norm_takes_all_types_and_sizes),
        OPS_TEST(group_norm_keeps_its_digits_far_from_zero),
    };
    return ops_run_tests(tests);
}
