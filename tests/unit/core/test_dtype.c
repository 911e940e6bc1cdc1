/* Element types: every code of every small float against the formula of its format. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/dtype.h"

/* (−1)^s · 1.m · 2^(e − bias), or 0.m · 2^(1 − bias) when e is 0: by multiplication alone. */
static double formula(unsigned sign, unsigned exponent, unsigned mantissa, int mantissa_bits, int bias) {
    double value = (double)mantissa / (double)(1U << mantissa_bits) + (exponent == 0 ? 0.0 : 1.0);
    int power = (exponent == 0 ? 1 : (int)exponent) - bias;
    for (; power > 0; power--) {
        value *= 2.0;
    }
    for (; power < 0; power++) {
        value /= 2.0;
    }
    return sign != 0 ? -value : value;
}

static void expect(float got, double expected, unsigned code) {
    if ((double)got != expected || (signbit(got) != 0) != (signbit(expected) != 0)) {
        fail_msg("code 0x%x is %g, not %g", code, (double)got, expected);
    }
}

static void f16_has_the_value_of_every_code(void **state) {
    (void)state;
    for (unsigned code = 0; code < 0x10000; code++) {
        unsigned exponent = code >> 10 & 31;
        unsigned mantissa = code & 1023;
        float got = float_from_f16((uint16_t)code);
        if (exponent < 31) {
            expect(got, formula(code >> 15, exponent, mantissa, 10, 15), code);
        } else if (mantissa == 0) {
            expect(got, code >> 15 != 0 ? -INFINITY : INFINITY, code);
        } else {
            assert_true(isnan(got));
        }
    }
}

static void bf16_is_the_upper_half_of_a_float(void **state) {
    (void)state;
    for (unsigned code = 0; code < 0x10000; code++) {
        unsigned exponent = code >> 7 & 255;
        unsigned mantissa = code & 127;
        float got = float_from_bf16((uint16_t)code);
        if (exponent < 255) {
            expect(got, formula(code >> 15, exponent, mantissa, 7, 127), code);
        } else if (mantissa == 0) {
            expect(got, code >> 15 != 0 ? -INFINITY : INFINITY, code);
        } else {
            assert_true(isnan(got));
        }
    }
}

static void e4m3_has_no_infinity_and_one_nan_a_sign(void **state) {
    (void)state;
    for (unsigned code = 0; code < 256; code++) {
        float got = float_from_e4m3((uint8_t)code);
        if ((code & 127) == 127) {
            assert_true(isnan(got));
        } else {
            expect(got, formula(code >> 7, code >> 3 & 15, code & 7, 3, 7), code);
        }
    }
    assert_true(float_from_e4m3(0x7e) == 448.0F);
    assert_true(float_from_e4m3(0x01) == 0.001953125F);
}

static void e5m2_has_the_value_of_every_code(void **state) {
    (void)state;
    for (unsigned code = 0; code < 256; code++) {
        float got = float_from_e5m2((uint8_t)code);
        if ((code >> 2 & 31) < 31) {
            expect(got, formula(code >> 7, code >> 2 & 31, code & 3, 2, 15), code);
        } else if ((code & 3) == 0) {
            expect(got, code >> 7 != 0 ? -INFINITY : INFINITY, code);
        } else {
            assert_true(isnan(got));
        }
    }
    assert_true(float_from_e5m2(0x7b) == 57344.0F);
}

static void every_bf16_survives_the_way_to_float_and_back(void **state) {
    (void)state;
    for (unsigned code = 0; code < 0x10000; code++) {
        float value = float_from_bf16((uint16_t)code);
        uint16_t back = float_to_bf16(value);
        assert_true(isnan(value) ? isnan(float_from_bf16(back)) : back == code);
    }
}

/* Between every two neighbours: a quarter goes down, the half to the even one, three quarters up. */
static void bf16_rounds_to_nearest_with_halves_to_even(void **state) {
    (void)state;
    for (uint32_t low = 0; low < 0x7f80; low++) {
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            uint32_t bits = (low | sign) << 16;
            assert_int_equal(float_to_bf16(float_from_bits(bits | 0x4000)), low | sign);
            assert_int_equal(float_to_bf16(float_from_bits(bits | 0x7fff)), low | sign);
            assert_int_equal(float_to_bf16(float_from_bits(bits | 0x8000)), (low + (low & 1)) | sign);
            assert_int_equal(float_to_bf16(float_from_bits(bits | 0x8001)), (low + 1) | sign);
        }
    }
}

static void bf16_keeps_every_nan_a_nan(void **state) {
    (void)state;
    static const uint32_t nans[] = { 0x7f800001U, 0x7fffffffU, 0xff800001U, 0xffffffffU, 0x7fc00000U, 0xffff8000U };
    for (size_t i = 0; i < sizeof nans / sizeof nans[0]; i++) {
        uint16_t half = float_to_bf16(float_from_bits(nans[i]));
        assert_true(isnan(float_from_bf16(half)));
        assert_int_equal(half >> 15, nans[i] >> 31);
    }
}

static void types_have_the_sizes_and_names_of_safetensors(void **state) {
    (void)state;
    static const struct {
        enum dtype dtype;
        const char *name;
        size_t size;
    } rows[] = {
        { DTYPE_F32, "F32", 4 },         { DTYPE_F16, "F16", 2 },         { DTYPE_BF16, "BF16", 2 },
        { DTYPE_F8_E4M3, "F8_E4M3", 1 }, { DTYPE_F8_E5M2, "F8_E5M2", 1 }, { DTYPE_U8, "U8", 1 },
        { DTYPE_I32, "I32", 4 },         { DTYPE_I64, "I64", 8 },
    };
    assert_int_equal(sizeof rows / sizeof rows[0], N_DTYPES);
    for (size_t i = 0; i < N_DTYPES; i++) {
        assert_int_equal(dtype_size(rows[i].dtype), rows[i].size);
        assert_string_equal(dtype_name(rows[i].dtype), rows[i].name);
    }
}

static void loads_take_any_address_and_stores_round_once(void **state) {
    (void)state;
    uint8_t bytes[16] = { 0 };
    float value = 3.25F;
    memcpy(bytes + 5, &value, sizeof value);
    assert_true(dtype_load(DTYPE_F32, bytes + 1, 1) == 3.25F);
    bytes[3] = 0x00; /* 2.0 as F16 is 0x4000, as BF16 too */
    bytes[4] = 0x40;
    assert_true(dtype_load(DTYPE_F16, bytes + 1, 1) == 2.0F);
    assert_true(dtype_load(DTYPE_BF16, bytes + 3, 0) == 2.0F);
    bytes[7] = 0x38;
    assert_true(dtype_load(DTYPE_F8_E4M3, bytes, 7) == 1.0F);
    bytes[7] = 0x3c;
    assert_true(dtype_load(DTYPE_F8_E5M2, bytes, 7) == 1.0F);
    assert_true(dtype_load(DTYPE_U8, bytes, 7) == 60.0F);
    uint16_t halves[2] = { 0, 0 };
    dtype_store(DTYPE_BF16, halves, 1, 1.00390625F); /* exactly between 1 and its neighbour */
    assert_int_equal(halves[1], 0x3f80);
    float floats[2] = { 0.0F, 0.0F };
    dtype_store(DTYPE_F32, floats, 1, 0.1F);
    assert_true(floats[0] == 0.0F && floats[1] == 0.1F);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_has_the_value_of_every_code),
        cmocka_unit_test(bf16_is_the_upper_half_of_a_float),
        cmocka_unit_test(e4m3_has_no_infinity_and_one_nan_a_sign),
        cmocka_unit_test(e5m2_has_the_value_of_every_code),
        cmocka_unit_test(every_bf16_survives_the_way_to_float_and_back),
        cmocka_unit_test(bf16_rounds_to_nearest_with_halves_to_even),
        cmocka_unit_test(bf16_keeps_every_nan_a_nan),
        cmocka_unit_test(types_have_the_sizes_and_names_of_safetensors),
        cmocka_unit_test(loads_take_any_address_and_stores_round_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
