/* LINEAR and EMBED on every backend against sums written out here. */
#include "ops_test.h"

struct size {
    int64_t m, n, k;
};

static const struct size sizes[] = {
    { 1, 1, 1 },    { 1, 7, 5 },     { 3, 1, 17 },    { 5, 13, 31 },
    { 17, 64, 48 }, { 64, 96, 128 }, { 1, 257, 301 }, { 131, 71, 67 },
};
#define N_SIZES (sizeof sizes / sizeof sizes[0])

static double *expect_linear(struct ops_test *t, const struct linear_args *a) {
    int64_t m = tensor_n_rows(a->x);
    int64_t n = tensor_n_rows(a->weight);
    double *expected = ops_doubles(t, m * n);
    for (int64_t i = 0; i < m * n; i++) {
        double sum = ops_get(a->bias, 0, i % n, 0.0);
        for (int64_t p = tensor_n_cols(a->x); p-- > 0;) {
            sum += ops_get(a->x, i / n, p, 0.0) * ops_get(a->weight, i % n, p, 0.0);
        }
        double product = ops_get(a->gate, 0, i % n, 1.0) * ops_activate(a->act, sum);
        expected[i] = product + ops_get(a->residual, i / n, i % n, 0.0);
    }
    return expected;
}

/* What a case adds to x Wᵀ. */
struct options {
    bool has_bias, has_gate;
    enum { NO_RESIDUAL, RESIDUAL, RESIDUAL_IN_PLACE } residual;
    enum activation act;
    enum dtype bias_dtype;
    enum layout x_layout, y_layout, weight_layout;
};

static void check_linear(struct ops_test *t, struct size size, enum dtype x_dtype, enum dtype weight_dtype,
                         enum dtype y_dtype, const struct options *o) {
    struct tensor x = ops_matrix(t, "x", x_dtype, size.m, size.k, o->x_layout);
    struct tensor weight = ops_matrix(t, "weight", weight_dtype, size.n, size.k, o->weight_layout);
    struct tensor y = ops_matrix(t, "y", y_dtype, size.m, size.n, o->y_layout);
    struct tensor bias;
    struct tensor gate;
    struct tensor residual;
    struct linear_args args = { .x = &x, .weight = &weight, .act = o->act, .y = &y };
    if (o->has_bias) {
        bias = ops_vector(t, "bias", o->bias_dtype, size.n);
        args.bias = &bias;
    }
    if (o->has_gate) {
        gate = ops_vector(t, "gate", DTYPE_F32, size.n);
        args.gate = &gate;
    }
    if (o->residual == RESIDUAL) {
        residual = ops_matrix(t, "residual", y_dtype, size.m, size.n, o->x_layout);
        args.residual = &residual;
    } else if (o->residual == RESIDUAL_IN_PLACE) {
        args.residual = &y;
    }
    ops_check_one(t, OP_LINEAR, &args, &y, expect_linear(t, &args));
}

static void linear_takes_all_types_and_sizes(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < N_SIZES * 20; i++) {
        ops_clear(t, i);
        enum dtype weight_dtype = ops_weight_dtypes[i / 4 % 5];
        check_linear(t, sizes[i / 20], ops_act_dtypes[i % 2], weight_dtype, ops_act_dtypes[i / 2 % 2],
                     &(struct options){ .bias_dtype = DTYPE_F32 });
    }
}

static void linear_takes_all_options(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < 144; i++) {
        ops_clear(t, 1000 + i);
        struct options options = {
            .has_bias = i % 2 == 1,
            .has_gate = i / 2 % 2 == 1,
            .residual = i / 4 % 3,
            .act = i / 12 % 3,
            .bias_dtype = ops_weight_dtypes[ops_random(t) % 5],
            .x_layout = ops_random(t) % 2 == 0 ? PACKED : VIEW,
            .y_layout = ops_random(t) % 2 == 0 ? PACKED : VIEW,
        };
        struct size size = sizes[ops_random(t) % N_SIZES];
        check_linear(t, size, ops_act_dtypes[i / 36 % 2], ops_weight_dtypes[ops_random(t) % 5],
                     ops_act_dtypes[i / 72 % 2], &options);
    }
}

static void linear_takes_weights_at_odd_addresses(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < 20; i++) {
        ops_clear(t, 2000 + i);
        struct options options = { .weight_layout = UNALIGNED, .bias_dtype = DTYPE_BF16, .has_bias = true };
        check_linear(t, (struct size){ 9, 33, 35 }, ops_act_dtypes[i % 2], ops_weight_dtypes[i / 4],
                     ops_act_dtypes[i / 2 % 2], &options);
    }
}

/* Text encoders feed all tokens at once, the transformers' modulation feeds one row through a large matrix. */
static void linear_takes_large_matrices(void **state) {
    struct ops_test *t = ops_begin(state);
    static const struct size large[] = {
        { 1, 1536, 1024 }, { 200, 384, 256 }, { 257, 129, 512 }, { 803, 271, 40 }, { 1601, 65, 19 },
    };
    for (uint64_t i = 0; i < 20; i++) {
        ops_clear(t, 3000 + i);
        struct options options = { .residual = i / 2 % 2 == 0 ? RESIDUAL_IN_PLACE : NO_RESIDUAL,
                                   .has_gate = i / 2 % 2 == 0 };
        enum dtype weight_dtype = i / 2 % 2 == 0 ? DTYPE_BF16 : DTYPE_F8_E4M3;
        check_linear(t, large[i / 4], ops_act_dtypes[i % 2], weight_dtype, ops_act_dtypes[i % 2], &options);
    }
}

static void linear_sees_new_numbers_in_a_weight_that_stays_where_it_is(void **state) {
    struct ops_test *t = ops_begin(state);
    ops_clear(t, 4000);
    struct tensor x = ops_matrix(t, "x", DTYPE_BF16, 4, 40, PACKED);
    struct tensor weight = ops_matrix(t, "weight", DTYPE_BF16, 24, 40, PACKED);
    struct tensor y = ops_matrix(t, "y", DTYPE_F32, 4, 24, PACKED);
    struct linear_args args = { .x = &x, .weight = &weight, .y = &y };
    struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = 1 };
    struct exec ex = { .arena = t->arena, .allocator = &mem_default_allocator };
    assert_int_equal(t->kind->create(&options, &ex.backend, NULL), CYI_OK);
    float before[4 * 24];
    assert_int_equal(op_linear(&ex, &args, NULL), CYI_OK);
    memcpy(before, y.data, sizeof before);
    for (int i = 0; i < 24 * 40; i++) {
        ((uint16_t *)weight.data)[i] ^= 0x8000U;
    }
    assert_int_equal(op_linear(&ex, &args, NULL), CYI_OK);
    backend_free(ex.backend);
    for (int i = 0; i < 4 * 24; i++) {
        assert_true(((float *)y.data)[i] == -before[i]);
    }
}

static void embed_picks_rows_of_the_table(void **state) {
    struct ops_test *t = ops_begin(state);
    static const struct size tables[] = { { 1, 1, 1 }, { 7, 3, 5 }, { 64, 300, 33 }, { 520, 999, 160 } }; /* S, V, D */
    for (uint64_t i = 0; i < 40; i++) {
        ops_clear(t, 5000 + i);
        struct size size = tables[i / 10];
        struct tensor ids = ops_vector(t, "ids", DTYPE_I32, size.m);
        struct tensor table = ops_matrix(t, "table", ops_weight_dtypes[i % 5], size.n, size.k, UNALIGNED);
        struct tensor y = ops_matrix(t, "y", ops_act_dtypes[i / 5 % 2], size.m, size.k, i % 3 == 0 ? VIEW : PACKED);
        double *expected = ops_doubles(t, size.m * size.k);
        for (int64_t s = 0; s < size.m; s++) {
            int32_t id = s == 0 ? (int32_t)size.n - 1 : (int32_t)(ops_random(t) % (uint64_t)size.n);
            ((int32_t *)ids.data)[s] = id;
            for (int64_t d = 0; d < size.k; d++) {
                expected[s * size.k + d] = ops_get(&table, id, d, 0.0);
            }
        }
        ops_check_one(t, OP_EMBED, &(struct embed_args){ .ids = &ids, .table = &table, .y = &y }, &y, expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OPS_TEST(linear_takes_all_types_and_sizes),
        OPS_TEST(linear_takes_all_options),
        OPS_TEST(linear_takes_weights_at_odd_addresses),
        OPS_TEST(linear_takes_large_matrices),
        OPS_TEST_HOST(linear_sees_new_numbers_in_a_weight_that_stays_where_it_is),
        OPS_TEST(embed_picks_rows_of_the_table),
    };
    return ops_run_tests(tests);
}
