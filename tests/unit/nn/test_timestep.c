/* Timestep sinusoids: the layout, the frequencies and the float32 chain of the reference. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "nn/timestep.h"

static void near(float got, double expected, double limit) {
    if (!(fabs((double)got - expected) <= limit)) {
        fail_msg("%.9g instead of %.9g", (double)got, expected);
    }
}

static void cosines_come_first(void **state) {
    (void)state;
    float values[8];
    timestep_sinusoid(0.0F, 8, values);
    for (int i = 0; i < 8; i++) {
        assert_true(values[i] == (i < 4 ? 1.0F : 0.0F));
    }
}

static void frequencies_fall_from_one_towards_a_ten_thousandth(void **state) {
    (void)state;
    float values[256];
    timestep_sinusoid(1000.0F, 256, values);
    for (int i = 0; i < 128; i++) {
        double angle = 1000.0 * pow(10000.0, -(double)i / 128.0);
        near(values[i], cos(angle), 3e-4); /* the product is a float: 1000 keeps 24 bits, the exponent a few less */
        near(values[128 + i], sin(angle), 3e-4);
    }
    near(values[0], cos(1000.0), 1e-7);
    near(values[127], cos(1000.0 * pow(10000.0, -127.0 / 128.0)), 1e-6);
}

static void an_argument_is_a_sigma_times_a_thousand(void **state) {
    (void)state;
    assert_true(timestep_argument(0.0F) == 0.0F);
    assert_true(timestep_argument(1000.0F) == 1000.0F);
    for (int i = 1; i < 1000; i++) {
        float sigma = (float)i / 1000.0F;
        near(timestep_argument(sigma * 1000.0F), (double)i, 1.3e-4);
        /* Each operation rounds on its own: exactly what three float32 operations of the reference give. */
        volatile float timestep = sigma * 1000.0F;
        volatile float quotient = timestep / 1000.0F;
        volatile float product = quotient * 1000.0F;
        assert_true(timestep_argument(timestep) == product);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cosines_come_first),
        cmocka_unit_test(frequencies_fall_from_one_towards_a_ten_thousandth),
        cmocka_unit_test(an_argument_is_a_sigma_times_a_thousand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
