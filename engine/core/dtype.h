/* Element types of tensors and how single values convert. Bulk conversion is the CAST operation; these are the definitions. */
#ifndef CORE_DTYPE_H
#define CORE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F8_E4M3, DTYPE_F8_E5M2, DTYPE_U8, DTYPE_I32, DTYPE_I64, N_DTYPES };

size_t dtype_size(enum dtype dtype);      /* bytes an element */
const char *dtype_name(enum dtype dtype); /* "F32", "BF16", … as in safetensors */

static inline float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_from_bf16(uint16_t half) {
    return float_from_bits((uint32_t)half << 16);
}

/* Round to nearest, ties to even; a NaN stays a NaN. */
static inline uint16_t float_to_bf16(float value) {
    uint32_t bits = float_to_bits(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) {
        return (uint16_t)((bits >> 16) | 0x40);
    }
    return (uint16_t)((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

float float_from_f16(uint16_t half);
float float_from_e4m3(uint8_t code); /* E4M3FN: no infinity, S.1111.111 is NaN, largest 448 */
float float_from_e5m2(uint8_t code); /* E5M2: like a short F16, with infinities */

/* Element i of an array of a floating type (or U8) as float. */
float dtype_load(enum dtype dtype, const void *data, int64_t i);
/* Stores a float as F32 or BF16 (nothing else is written by the engine). */
void dtype_store(enum dtype dtype, void *data, int64_t i, float value);

#endif
