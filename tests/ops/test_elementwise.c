/* SWIGLU, SILU, ADD, CAST and CHANNEL_AFFINE on every backend against the formulas written out here. */
#include <math.h>

#include "ops_test.h"

static const int64_t sizes[][2] = { { 1, 1 }, { 1, 17 }, { 13, 1 }, { 7, 31 }, { 16, 64 }, { 67, 1031 }, { 128, 768 } };
#define N_SIZES (sizeof sizes / sizeof sizes[0])

static enum layout draw_layout(struct ops_test *t) {
    return ops_random(t) % 2 == 0 ? PACKED : VIEW;
}

static void swiglu_takes_all_types_sizes_and_places(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < N_SIZES * 12; i++) {
        ops_clear(t, i);
        int64_t m = sizes[i / 12][0];
        int64_t f = sizes[i / 12][1];
        enum dtype dtype = ops_act_dtypes[i % 2];
        uint64_t place = i / 2 % 3; /* y is a matrix of its own, gate, up */
        struct tensor gate = ops_matrix(t, "gate", dtype, m, f, draw_layout(t));
        struct tensor up = ops_matrix(t, "up", dtype, m, f, draw_layout(t));
        struct tensor y = place == 1   ? gate
                          : place == 2 ? up
                                       : ops_matrix(t, "y", ops_act_dtypes[i / 6 % 2], m, f, draw_layout(t));
        double *expected = ops_doubles(t, m * f);
        for (int64_t j = 0; j < m * f; j++) {
            expected[j] = ops_activate(ACT_SILU, ops_get(&gate, j / f, j % f, 0.0)) * ops_get(&up, j / f, j % f, 0.0);
        }
        ops_check_one(t, OP_SWIGLU, &(struct swiglu_args){ .gate = &gate, .up = &up, .y = &y }, &y, expected);
    }
}

/* gate and up are mostly the two halves of one matrix; the order of types and strides may not matter. */
static void swiglu_takes_halves_of_one_matrix(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < 4; i++) {
        ops_clear(t, 500 + i);
        struct tensor both = ops_matrix(t, "both", ops_act_dtypes[i % 2], 33, 2 * 45, PACKED);
        struct tensor gate = tensor_cols(&both, 0, 45);
        struct tensor up = tensor_cols(&both, 45, 45);
        struct tensor y = i / 2 == 0 ? ops_matrix(t, "y", ops_act_dtypes[i % 2], 33, 45, PACKED) : gate;
        double *expected = ops_doubles(t, 33 * 45);
        for (int64_t j = 0; j < 33 * 45; j++) {
            expected[j] =
                ops_activate(ACT_SILU, ops_get(&gate, j / 45, j % 45, 0.0)) * ops_get(&up, j / 45, j % 45, 0.0);
        }
        ops_check_one(t, OP_SWIGLU, &(struct swiglu_args){ .gate = &gate, .up = &up, .y = &y }, &y, expected);
    }
}

static void silu_takes_all_types_sizes_and_places(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < N_SIZES * 8; i++) {
        ops_clear(t, i);
        int64_t m = sizes[i / 8][0];
        int64_t d = sizes[i / 8][1];
        struct tensor x = ops_matrix(t, "x", ops_act_dtypes[i % 2], m, d, draw_layout(t));
        struct tensor y = i / 2 % 2 == 0 ? x : ops_matrix(t, "y", ops_act_dtypes[i / 4 % 2], m, d, draw_layout(t));
        double *expected = ops_doubles(t, m * d);
        for (int64_t j = 0; j < m * d; j++) {
            expected[j] = ops_activate(ACT_SILU, ops_get(&x, j / d, j % d, 0.0));
        }
        ops_check_one(t, OP_SILU, &(struct silu_args){ .x = &x, .y = &y }, &y, expected);
    }
}

static void silu_ends_well_at_both_ends(void **state) {
    struct ops_test *t = ops_begin(state);
    ops_clear(t, 600);
    struct tensor x = ops_matrix(t, "x", DTYPE_F32, 1, 6, PACKED);
    struct tensor y = ops_matrix(t, "y", DTYPE_F32, 1, 6, PACKED);
    static const float in[6] = { -1000.0F, -100.0F, -20.0F, 20.0F, 100.0F, 1e30F };
    memcpy(x.data, in, sizeof in);
    ops_check_one(t, OP_SILU, &(struct silu_args){ .x = &x, .y = &y }, &y,
                  (const double[]){ 0.0, 0.0, -20.0 * 2.0611536e-9, 20.0, 100.0, (double)1e30F });
}

static void add_takes_all_types_sizes_and_places(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < N_SIZES * 24; i++) {
        ops_clear(t, i);
        int64_t m = sizes[i / 24][0];
        int64_t d = sizes[i / 24][1];
        uint64_t place = i / 4 % 3;
        struct tensor a = ops_matrix(t, "a", ops_act_dtypes[i % 2], m, d, draw_layout(t));
        struct tensor b = ops_matrix(t, "b", ops_act_dtypes[i / 2 % 2], m, d, draw_layout(t));
        struct tensor y = place == 1   ? a
                          : place == 2 ? b
                                       : ops_matrix(t, "y", ops_act_dtypes[i / 12 % 2], m, d, draw_layout(t));
        double *expected = ops_doubles(t, m * d);
        for (int64_t j = 0; j < m * d; j++) {
            expected[j] = ops_get(&a, j / d, j % d, 0.0) + ops_get(&b, j / d, j % d, 0.0);
        }
        ops_check_one(t, OP_ADD, &(struct add_args){ .a = &a, .b = &b, .y = &y }, &y, expected);
    }
}

static void cast_takes_all_types_and_layouts(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < N_SIZES * 20; i++) {
        ops_clear(t, i);
        int64_t m = sizes[i / 20][0];
        int64_t d = sizes[i / 20][1];
        enum dtype dtype = ops_weight_dtypes[i % 5];
        struct tensor x = ops_matrix(t, "x", dtype, m, d, ops_random(t) % 3 == 0 ? UNALIGNED : draw_layout(t));
        struct tensor y = ops_matrix(t, "y", ops_act_dtypes[i / 5 % 2], m, d, draw_layout(t));
        double *expected = ops_doubles(t, m * d);
        for (int64_t j = 0; j < m * d; j++) {
            expected[j] = ops_get(&x, j / d, j % d, 0.0);
        }
        ops_check_one(t, OP_CAST, &(struct cast_args){ .x = &x, .y = &y }, &y, expected);
    }
}

/* Bit for bit what dtype.h says, for every code of a type: no backend may lose a NaN, an infinity, a zero's sign or a subnormal. */
static void cast_is_exact_for_every_code(void **state) {
    struct ops_test *t = ops_begin(state);
    struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = 2 };
    struct exec ex = { .arena = t->arena, .allocator = &mem_default_allocator };
    assert_int_equal(t->kind->create(&options, &ex.backend, NULL), CYI_OK);
    for (int i = 1; i < 5; i++) {
        ops_clear(t, 700);
        enum dtype dtype = ops_weight_dtypes[i];
        int64_t n = dtype_size(dtype) == 1 ? 256 : 65536;
        struct tensor x = ops_matrix(t, "x", dtype, n / 256, 256, PACKED);
        struct tensor y = ops_matrix(t, "y", DTYPE_F32, n / 256, 256, PACKED);
        for (int64_t j = 0; j < n; j++) {
            if (dtype_size(dtype) == 1) {
                ((uint8_t *)x.data)[j] = (uint8_t)j;
            } else {
                ((uint16_t *)x.data)[j] = (uint16_t)j;
            }
        }
        assert_int_equal(ops_run_anywhere(t, &ex, OP_CAST, &(struct cast_args){ .x = &x, .y = &y }, NULL), CYI_OK);
        for (int64_t j = 0; j < n; j++) {
            float expected = dtype_load(dtype, x.data, j);
            float got = ((float *)y.data)[j];
            if (isnan(expected) ? !isnan(got) : float_to_bits(got) != float_to_bits(expected)) {
                fail_msg("%s code 0x%llx becomes %g, not %g", dtype_name(dtype), (unsigned long long)j, (double)got,
                         (double)expected);
            }
        }
    }
    backend_free(ex.backend);
}

static void cast_to_bf16_rounds_half_to_even_and_keeps_nan(void **state) {
    struct ops_test *t = ops_begin(state);
    ops_clear(t, 800);
    static const uint32_t bits[] = {
        0x3f808000U, 0x3f818000U, 0x3f808001U, 0x3f807fffU, 0xbf808000U, 0x7f7fffffU, 0x7f800001U,
        0xffffffffU, 0xff800000U, 0x80000000U, 0x00008000U, 0x00018000U, 0x7f7f7fffU,
    };
    const int64_t n = sizeof bits / sizeof bits[0];
    struct tensor x =
        ops_matrix(t, "x", DTYPE_F32, 8, n, PACKED); /* eight times, so that wide and narrow code paths see it */
    struct tensor y = ops_matrix(t, "y", DTYPE_BF16, 8, n, PACKED);
    for (int64_t j = 0; j < 8 * n; j++) {
        ((float *)x.data)[j] = float_from_bits(bits[j % n]);
    }
    struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = 1 };
    struct exec ex = { .arena = t->arena, .allocator = &mem_default_allocator };
    assert_int_equal(t->kind->create(&options, &ex.backend, NULL), CYI_OK);
    assert_int_equal(ops_run_anywhere(t, &ex, OP_CAST, &(struct cast_args){ .x = &x, .y = &y }, NULL), CYI_OK);
    backend_free(ex.backend);
    for (int64_t j = 0; j < 8 * n; j++) {
        float value = float_from_bits(bits[j % n]);
        uint16_t got = ((uint16_t *)y.data)[j];
        if (isnan(value) ? !isnan(float_from_bf16(got)) : got != float_to_bf16(value)) {
            fail_msg("0x%08x becomes 0x%04x", (unsigned)bits[j % n], (unsigned)got);
        }
    }
}

static void channel_affine_takes_all_types_sizes_and_places(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < N_SIZES * 18; i++) {
        ops_clear(t, i);
        int64_t m = sizes[i / 18][0];
        int64_t c = sizes[i / 18][1];
        struct tensor x = ops_matrix(t, "x", ops_act_dtypes[i % 2], m, c, draw_layout(t));
        bool in_place = i / 2 % 3 == 0;
        struct tensor y = in_place ? x : ops_matrix(t, "y", ops_act_dtypes[i / 2 % 3 - 1], m, c, draw_layout(t));
        struct tensor scale = ops_vector(t, "scale", DTYPE_F32, c);
        struct tensor shift = ops_vector(t, "shift", DTYPE_F32, c);
        struct channel_affine_args args = { .x = &x, .scale = &scale, .shift = &shift, .act = i / 6 % 3, .y = &y };
        double *expected = ops_doubles(t, m * c);
        for (int64_t j = 0; j < m * c; j++) {
            double value =
                ops_get(&x, j / c, j % c, 0.0) * ops_get(&scale, 0, j % c, 0.0) + ops_get(&shift, 0, j % c, 0.0);
            expected[j] = ops_activate(args.act, value);
        }
        ops_check_one(t, OP_CHANNEL_AFFINE, &args, &y, expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OPS_TEST(swiglu_takes_all_types_sizes_and_places),
        OPS_TEST(swiglu_takes_halves_of_one_matrix),
        OPS_TEST(silu_takes_all_types_sizes_and_places),
        OPS_TEST(silu_ends_well_at_both_ends),
        OPS_TEST(add_takes_all_types_sizes_and_places),
        OPS_TEST(cast_takes_all_types_and_layouts),
        OPS_TEST(cast_is_exact_for_every_code),
        OPS_TEST(cast_to_bf16_rounds_half_to_even_and_keeps_nan),
        OPS_TEST(channel_affine_takes_all_types_sizes_and_places),
    };
    return ops_run_tests(tests);
}
