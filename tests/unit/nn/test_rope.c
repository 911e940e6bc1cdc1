/* Rotary tables against known angles. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "nn/rope.h"

static void near(float got, double expected) {
    if (!(fabs((double)got - expected) <= 6e-8)) {
        fail_msg("%.9g instead of %.9g", (double)got, expected);
    }
}

static void position_zero_does_not_turn(void **state) {
    (void)state;
    float c[4];
    float s[4];
    struct tensor cosines = tensor_2d(DTYPE_F32, 1, 4, c);
    struct tensor sines = tensor_2d(DTYPE_F32, 1, 4, s);
    rope_fill(&(struct rope_axes){ 2, { 4, 4 }, 2000.0 }, (const double[]){ 0.0, 0.0 }, &cosines, &sines);
    for (int i = 0; i < 4; i++) {
        assert_true(c[i] == 1.0F && s[i] == 0.0F);
    }
}

/* theta 10000, 4 dimensions: frequencies 1 and 1/100. Axis 1 with 2 dimensions: frequency 1. */
static void every_axis_turns_its_own_pairs(void **state) {
    (void)state;
    float c[2 * 3];
    float s[2 * 3];
    struct tensor cosines = tensor_2d(DTYPE_F32, 2, 3, c);
    struct tensor sines = tensor_2d(DTYPE_F32, 2, 3, s);
    const double positions[] = { 3.0, 7.0, -1.0, 0.5 };
    rope_fill(&(struct rope_axes){ 2, { 4, 2 }, 10000.0 }, positions, &cosines, &sines);
    const double angles[] = { 3.0, 0.03, 7.0, -1.0, -0.01, 0.5 };
    for (int i = 0; i < 6; i++) {
        near(c[i], cos(angles[i]));
        near(s[i], sin(angles[i]));
    }
}

/* In float an angle of 4000 would be off by 1e-4. */
static void large_positions_keep_their_digits(void **state) {
    (void)state;
    float c[1];
    float s[1];
    struct tensor cosines = tensor_2d(DTYPE_F32, 1, 1, c);
    struct tensor sines = tensor_2d(DTYPE_F32, 1, 1, s);
    rope_fill(&(struct rope_axes){ 1, { 2 }, 2000.0 }, (const double[]){ 1e6 }, &cosines, &sines);
    near(c[0], 0.93675212753314478694);
    near(s[0], -0.34999350217129295212);
}

static void tables_may_be_views_of_wider_ones(void **state) {
    (void)state;
    float c[2 * 5] = { 0.0F };
    float s[2 * 5] = { 0.0F };
    struct tensor cosines = tensor_2d(DTYPE_F32, 2, 5, c);
    struct tensor sines = tensor_2d(DTYPE_F32, 2, 5, s);
    cosines = tensor_cols(&cosines, 1, 2);
    sines = tensor_cols(&sines, 1, 2);
    rope_fill(&(struct rope_axes){ 1, { 4 }, 10000.0 }, (const double[]){ 1.0, 2.0 }, &cosines, &sines);
    near(c[1], cos(1.0));
    near(s[7], sin(0.02));
    assert_true(c[0] == 0.0F && c[3] == 0.0F && c[5] == 0.0F && c[8] == 0.0F && s[0] == 0.0F && s[3] == 0.0F);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(position_zero_does_not_turn),
        cmocka_unit_test(every_axis_turns_its_own_pairs),
        cmocka_unit_test(large_positions_keep_their_digits),
        cmocka_unit_test(tables_may_be_views_of_wider_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
