/* Checked arithmetic for sizes: products and sums of numbers that come from files or requests. */
#ifndef CORE_SIZE_H
#define CORE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool size_mul(size_t *ret, size_t a, size_t b) {
    return !__builtin_mul_overflow(a, b, ret);
}

static inline bool size_add(size_t *ret, size_t a, size_t b) {
    return !__builtin_add_overflow(a, b, ret);
}

static inline bool size_mul3(size_t *ret, size_t a, size_t b, size_t c) {
    return size_mul(ret, a, b) && size_mul(ret, *ret, c);
}

#endif
