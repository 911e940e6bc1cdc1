/* Noise: see noise.h. The generator is MT19937 (Matsumoto, Nishimura 1998). From 16 values on the normal numbers come
 * from single-precision approximations of ln, sin and cos (the Cephes library's coefficients), where every fused
 * multiply-add must round once: fmaf() does that on every machine, in one instruction where the processor has it. */
#include "sample/noise.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"

#define N_STATE 624
#define N_SHIFT 397
#define BLOCK 16 /* values that are transformed together */
#define TWO_PI 6.283185307179586

/* ---- Uniform numbers ---- */

void noise_seed(struct noise_generator *generator, uint64_t seed) {
    *generator = (struct noise_generator){ .next = N_STATE };
    generator->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N_STATE; i++) {
        uint32_t previous = generator->state[i - 1];
        generator->state[i] = 1812433253U * (previous ^ previous >> 30) + i;
    }
}

static void refill(struct noise_generator *generator) {
    uint32_t *state = generator->state;
    for (size_t i = 0; i < N_STATE; i++) {
        uint32_t y = (state[i] & 0x80000000U) | (state[(i + 1) % N_STATE] & 0x7fffffffU);
        state[i] = state[(i + N_SHIFT) % N_STATE] ^ y >> 1 ^ ((y & 1U) != 0 ? 0x9908b0dfU : 0);
    }
    generator->next = 0;
}

static uint32_t draw_word(struct noise_generator *generator) {
    if (generator->next == N_STATE) {
        refill(generator);
    }
    uint32_t y = generator->state[generator->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680U;
    y ^= y << 15 & 0xefc60000U;
    return y ^ y >> 18;
}

/* 53 bits in [0, 1). The high word is drawn first. */
static double draw_double(struct noise_generator *generator) {
    uint64_t high = draw_word(generator);
    uint64_t bits = (high << 32 | draw_word(generator)) & ((UINT64_C(1) << 53) - 1);
    return (double)bits * 0x1p-53;
}

static void fill_uniform(struct noise_generator *generator, float *values, size_t n) {
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)(draw_word(generator) & 0xffffffU) * 0x1p-24F;
    }
}

/* ---- Normal numbers, one at a time ---- */

static float draw_normal(struct noise_generator *generator) {
    if (generator->has_spare) {
        generator->has_spare = false;
        return (float)generator->spare;
    }
    double u1 = draw_double(generator);
    double u2 = draw_double(generator);
    double radius = sqrt(-2.0 * log1p(-u2));
    double angle = TWO_PI * u1;
    generator->spare = radius * sin(angle);
    generator->has_spare = true;
    return (float)(radius * cos(angle));
}

/* ---- Normal numbers in blocks ---- */

/* c[0] x^(n-1) + … + c[n-1] */
static float polynomial(float x, const float *c, int n) {
    float y = c[0];
    for (int i = 1; i < n; i++) {
        y = fmaf(y, x, c[i]);
    }
    return y;
}

/* ln x for normal x > 0. */
static float log_single(float x) {
    static const float c[] = { 7.0376836292e-2F,  -1.1514610310e-1F, 1.1676998740e-1F,
                               -1.2420140846e-1F, 1.4249322787e-1F,  -1.6668057665e-1F,
                               2.0000714765e-1F,  -2.4999993993e-1F, 3.3333331174e-1F };
    uint32_t bits = float_to_bits(x);
    float e = (float)((int)(bits >> 23) - 126);
    float m = float_from_bits((bits & 0x007fffffU) | 0x3f000000U); /* x = m 2^e, m in [0.5, 1) */
    if (m < 0.70710678F) {
        e -= 1.0F;
        m = (m - 1.0F) + m;
    } else {
        m -= 1.0F;
    }
    float z = m * m;
    float y = polynomial(m, c, 9) * m;
    y = fmaf(y, z, e * -2.12194440e-4F);
    y = fmaf(-z, 0.5F, y);
    return fmaf(e, 0.693359375F, m + y);
}

/* sin x and cos x for 0 ≤ x < 8192. */
static void sincos_single(float x, float *ret_sin, float *ret_cos) {
    static const float c_sin[] = { -1.9515295891e-4F, 8.3321608736e-3F, -1.6666654611e-1F };
    static const float c_cos[] = { 2.443315711809948e-5F, -1.388731625493765e-3F, 4.166664568298827e-2F };
    int octant = ((int)(x * 1.27323954473516F) + 1) & ~1;
    float j = (float)octant;
    x = fmaf(j, -0.78515625F, x);
    x = fmaf(j, -2.4187564849853515625e-4F, x);
    x = fmaf(j, -3.77489497744594108e-8F, x);
    float z = x * x;
    float c = fmaf(polynomial(z, c_cos, 3) * z, z, -(z * 0.5F)) + 1.0F;
    float s = fmaf(polynomial(z, c_sin, 3) * z, x, x);
    bool is_swapped = (octant & 2) != 0;
    float sine = is_swapped ? c : s;
    float cosine = is_swapped ? s : c;
    *ret_sin = (octant & 4) != 0 ? -sine : sine;
    *ret_cos = (~(octant - 2) & 4) != 0 ? -cosine : cosine;
}

/* 16 uniform numbers become 16 normal ones (Box and Muller): the first half gives radii, the second half angles. */
static void transform_block(float *block) {
    for (int i = 0; i < BLOCK / 2; i++) {
        float radius = sqrtf(-2.0F * log_single(1.0F - block[i]));
        float sine;
        float cosine;
        sincos_single((float)TWO_PI * block[i + BLOCK / 2], &sine, &cosine);
        block[i] = radius * cosine;
        block[i + BLOCK / 2] = radius * sine;
    }
}

void noise_draw(struct noise_generator *generator, float *values, size_t n) {
    if (n < BLOCK) {
        for (size_t i = 0; i < n; i++) {
            values[i] = draw_normal(generator);
        }
        return;
    }
    fill_uniform(generator, values, n);
    for (size_t i = 0; i + BLOCK <= n; i += BLOCK) {
        transform_block(values + i);
    }
    if (n % BLOCK != 0) { /* the last 16 are made anew, over the end of the block before */
        fill_uniform(generator, values + (n - BLOCK), BLOCK);
        transform_block(values + (n - BLOCK));
    }
}
