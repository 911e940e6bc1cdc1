/* ATTENTION on every backend against the formula written out here. */
#include <math.h>

#include "ops_test.h"

static double *expect_attention(struct ops_test *t, const struct attention_args *a) {
    int64_t s = tensor_n_rows(a->q);
    int64_t cols = tensor_n_cols(a->q);
    int64_t size = cols / a->n_heads;
    double *expected = ops_doubles(t, s * cols);
    double *scores = ops_doubles(t, a->n_keys);
    for (int64_t i = 0; i < s; i++) {
        for (int64_t h = 0; h < a->n_heads; h++) {
            int64_t kv = h * a->n_kv_heads / a->n_heads * size;
            double sum = 0.0;
            for (int64_t r = 0; r < a->n_keys; r++) {
                double dot = 0.0;
                for (int64_t c = 0; c < size; c++) {
                    dot += ops_get(a->q, i, h * size + c, 0.0) * ops_get(a->k, r, kv + c, 0.0);
                }
                scores[r] =
                    a->is_causal && r > i ? 0.0 : exp(dot * (double)a->scale); /* scores of the tests are small */
                sum += scores[r];
            }
            for (int64_t c = 0; c < size; c++) {
                double value = 0.0;
                for (int64_t r = 0; r < a->n_keys; r++) {
                    value += scores[r] / sum * ops_get(a->v, r, kv + c, 0.0);
                }
                expected[i * cols + h * size + c] = value;
            }
        }
    }
    return expected;
}

struct shape {
    int64_t s, r, h, h_kv, k, n_keys;
    bool is_causal;
};

static void check_attention(struct ops_test *t, struct shape p, enum dtype dtype, enum dtype out_dtype,
                            enum layout layout) {
    struct tensor q = ops_matrix(t, "q", dtype, p.s, p.h * p.k, layout);
    struct tensor k = ops_matrix(t, "k", dtype, p.r, p.h_kv * p.k, layout);
    struct tensor v = ops_matrix(t, "v", dtype, p.r, p.h_kv * p.k, layout);
    struct tensor out = ops_matrix(t, "out", out_dtype, p.s, p.h * p.k, layout);
    struct attention_args args = {
        .q = &q,
        .k = &k,
        .v = &v,
        .n_heads = p.h,
        .n_kv_heads = p.h_kv,
        .n_keys = p.n_keys,
        .is_causal = p.is_causal,
        .scale = (float)(1.0 / sqrt((double)p.k)),
        .out = &out,
    };
    ops_check_one(t, OP_ATTENTION, &args, &out, expect_attention(t, &args));
}

static void attention_takes_all_types_and_shapes(void **state) {
    struct ops_test *t = ops_begin(state);
    static const struct shape shapes[] = {
        { 1, 1, 1, 1, 1, 1, false },        { 1, 1, 1, 1, 4, 1, true },
        { 3, 5, 2, 2, 7, 5, false },        { 7, 7, 3, 1, 8, 7, true }, /* every head shares one */
        { 13, 29, 4, 2, 16, 17, false },                                /* keys that nobody sees */
        { 31, 31, 6, 3, 32, 31, true },                                 /* groups of two */
        { 31, 31, 2, 1, 33, 13, true },                                 /* both masks at once */
        { 64, 64, 2, 2, 64, 1, false },                                 /* one key for all */
        { 67, 131, 3, 3, 24, 131, false },  { 1, 300, 2, 2, 128, 299, false },
        { 130, 130, 4, 2, 128, 130, true }, { 257, 257, 2, 2, 40, 257, false },
    };
    for (uint64_t i = 0; i < sizeof shapes / sizeof shapes[0] * 8; i++) {
        ops_clear(t, i);
        check_attention(t, shapes[i / 8], ops_act_dtypes[i % 2], ops_act_dtypes[i / 2 % 2],
                        i / 4 % 2 == 0 ? PACKED : VIEW);
    }
}

/* q, k and v are mostly columns of one matrix, as one linear made them. */
static void attention_takes_columns_of_one_matrix(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < 2; i++) {
        ops_clear(t, 100 + i);
        struct tensor qkv = ops_matrix(t, "qkv", ops_act_dtypes[i], 40, 3 * 2 * 16, PACKED);
        struct tensor q = tensor_cols(&qkv, 0, 32);
        struct tensor k = tensor_cols(&qkv, 32, 32);
        struct tensor v = tensor_cols(&qkv, 64, 32);
        struct tensor out = ops_matrix(t, "out", ops_act_dtypes[i], 40, 32, VIEW);
        struct attention_args args = {
            .q = &q,
            .k = &k,
            .v = &v,
            .n_heads = 2,
            .n_kv_heads = 2,
            .n_keys = 40,
            .scale = 0.25F,
            .out = &out,
        };
        ops_check_one(t, OP_ATTENTION, &args, &out, expect_attention(t, &args));
    }
}

/* Rows of padding may hold anything that the operations before made of it. */
static void attention_never_looks_at_keys_past_n_keys(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < 4; i++) {
        ops_clear(t, 200 + i);
        enum dtype dtype = ops_act_dtypes[i % 2];
        bool is_causal = i / 2 == 1;
        struct tensor q = ops_matrix(t, "q", dtype, 37, 2 * 16, PACKED);
        struct tensor k = ops_matrix(t, "k", dtype, 37, 2 * 16, PACKED);
        struct tensor v = ops_matrix(t, "v", dtype, 37, 2 * 16, PACKED);
        struct tensor out = ops_matrix(t, "out", DTYPE_F32, 37, 2 * 16, PACKED);
        struct attention_args args = {
            .q = &q,
            .k = &k,
            .v = &v,
            .n_heads = 2,
            .n_kv_heads = 2,
            .n_keys = 11,
            .scale = 0.25F,
            .is_causal = is_causal,
            .out = &out,
        };
        double *expected = expect_attention(t, &args);
        for (int64_t r = 11; r < 37; r++) {
            for (int64_t c = 0; c < 32; c++) {
                dtype_store(dtype, k.data, r * 32 + c, NAN);
                dtype_store(dtype, v.data, r * 32 + c, INFINITY);
            }
        }
        ops_check_one(t, OP_ATTENTION, &args, &out, expected);
    }
}

/* Scores far above what exp can hold: the softmax must take the largest off first. Row i agrees with key i alone. */
static void attention_survives_large_scores(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < 2; i++) {
        ops_clear(t, 300 + i);
        struct tensor q = ops_matrix(t, "q", ops_act_dtypes[i], 16, 16, PACKED);
        struct tensor k = ops_matrix(t, "k", ops_act_dtypes[i], 16, 16, PACKED);
        struct tensor v = ops_matrix(t, "v", ops_act_dtypes[i], 16, 16, PACKED);
        struct tensor out = ops_matrix(t, "out", ops_act_dtypes[i], 16, 16, PACKED);
        double *expected = ops_doubles(t, 256);
        for (int64_t j = 0; j < 256; j++) {
            dtype_store(q.dtype, q.data, j, j / 16 == j % 16 ? 64.0F : 0.0F);
            dtype_store(k.dtype, k.data, j, j / 16 == j % 16 ? 64.0F : -64.0F);
            expected[j] = ops_get(&v, j / 16, j % 16, 0.0);
        }
        struct attention_args args = {
            .q = &q,
            .k = &k,
            .v = &v,
            .n_heads = 1,
            .n_kv_heads = 1,
            .n_keys = 16,
            .scale = 0.25F,
            .out = &out,
        };
        ops_check_one(t, OP_ATTENTION, &args, &out, expected);
    }
}

/* More rows than any block of rows, and a last block that is not full. */
static void attention_takes_many_rows(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < 2; i++) {
        ops_clear(t, 400 + i);
        check_attention(t, (struct shape){ 777, 777, 2, 2, 16, 700, false }, ops_act_dtypes[i], ops_act_dtypes[i],
                        PACKED);
    }
}

/* More keys than any chunk of keys. The scores grow along the keys or fall, so that running maxima must and must not move. */
static void attention_takes_many_keys(void **state) {
    struct ops_test *t = ops_begin(state);
    static const struct shape shapes[] = { { 5, 4200, 2, 1, 6, 4190, false }, { 2100, 2100, 1, 1, 3, 2100, true } };
    for (uint64_t i = 0; i < 6; i++) {
        ops_clear(t, 500 + i);
        struct shape p = i < 4 ? shapes[0] : shapes[1];
        enum dtype dtype = ops_act_dtypes[i % 2];
        struct tensor q = ops_matrix(t, "q", dtype, p.s, p.h * p.k, PACKED);
        struct tensor k = ops_matrix(t, "k", dtype, p.r, p.h_kv * p.k, PACKED);
        struct tensor v = ops_matrix(t, "v", dtype, p.r, p.h_kv * p.k, PACKED);
        struct tensor out = ops_matrix(t, "out", dtype, p.s, p.h * p.k, PACKED);
        for (int64_t r = 0; r < p.r; r++) {
            int64_t distance = i / 2 % 2 == 0 ? r : p.r - r;
            for (int64_t c = 0; c < p.h_kv * p.k; c++) {
                double value = ops_get(&k, r, c, 0.0) * (double)distance / 1000.0;
                dtype_store(dtype, k.data, r * p.h_kv * p.k + c, (float)value);
            }
        }
        struct attention_args args = {
            .q = &q,
            .k = &k,
            .v = &v,
            .n_heads = p.h,
            .n_kv_heads = p.h_kv,
            .n_keys = p.n_keys,
            .is_causal = p.is_causal,
            .scale = 0.5F,
            .out = &out,
        };
        ops_check_one(t, OP_ATTENTION, &args, &out, expect_attention(t, &args));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OPS_TEST(attention_takes_all_types_and_shapes),
        OPS_TEST(attention_takes_columns_of_one_matrix),
        OPS_TEST(attention_never_looks_at_keys_past_n_keys),
        OPS_TEST(attention_survives_large_scores),
        OPS_TEST(attention_takes_many_rows),
        OPS_TEST(attention_takes_many_keys),
    };
    return ops_run_tests(tests);
}
