/* Element types: see dtype.h. */
#include "core/dtype.h"

#include <assert.h>
#include <math.h>

size_t dtype_size(enum dtype dtype) {
    static const size_t sizes[N_DTYPES] = { 4, 2, 2, 1, 1, 1, 4, 8 };
    return sizes[dtype];
}

const char *dtype_name(enum dtype dtype) {
    static const char *const names[N_DTYPES] = { "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "U8", "I32", "I64" };
    return names[dtype];
}

/* A number with e exponent bits and m mantissa bits, IEEE-like, from its magnitude bits (without the sign). */
static float small_float(uint32_t magnitude, int mantissa_bits, int bias) {
    uint32_t exponent = magnitude >> mantissa_bits;
    uint32_t mantissa = magnitude & ((1U << mantissa_bits) - 1);
    if (exponent == 0) {
        return ldexpf((float)mantissa, 1 - bias - mantissa_bits);
    }
    return ldexpf((float)(mantissa | 1U << mantissa_bits), (int)exponent - bias - mantissa_bits);
}

float float_from_f16(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000U) << 16;
    uint32_t magnitude = half & 0x7fffU;
    if (magnitude >= 0x7c00U) {
        return float_from_bits(sign | 0x7f800000U | (magnitude & 0x3ffU) << 13);
    }
    return float_from_bits(sign | float_to_bits(small_float(magnitude, 10, 15)));
}

float float_from_e4m3(uint8_t code) {
    uint32_t sign = (uint32_t)(code & 0x80U) << 24;
    uint32_t magnitude = code & 0x7fU;
    return magnitude == 0x7f ? NAN : float_from_bits(sign | float_to_bits(small_float(magnitude, 3, 7)));
}

float float_from_e5m2(uint8_t code) {
    return float_from_f16((uint16_t)(code << 8));
}

float dtype_load(enum dtype dtype, const void *data, int64_t i) {
    const uint8_t *bytes = (const uint8_t *)data + (size_t)i * dtype_size(dtype);
    float value;
    uint16_t half;
    switch (dtype) {
    case DTYPE_F32:
        memcpy(&value, bytes, sizeof value);
        return value;
    case DTYPE_F16:
        memcpy(&half, bytes, sizeof half);
        return float_from_f16(half);
    case DTYPE_BF16:
        memcpy(&half, bytes, sizeof half);
        return float_from_bf16(half);
    case DTYPE_F8_E4M3:
        return float_from_e4m3(*bytes);
    case DTYPE_F8_E5M2:
        return float_from_e5m2(*bytes);
    case DTYPE_U8:
        return (float)*bytes;
    default:
        assert(!"dtype_load: not a type that loads as float");
        return NAN;
    }
}

void dtype_store(enum dtype dtype, void *data, int64_t i, float value) {
    if (dtype == DTYPE_BF16) {
        ((uint16_t *)data)[i] = float_to_bf16(value);
    } else {
        assert(dtype == DTYPE_F32);
        ((float *)data)[i] = value;
    }
}
