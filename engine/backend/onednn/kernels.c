/* The kernels of kernels.h in plain C that compilers vectorise. Compiled once for every instruction set, with KERNELS_TABLE and
 * KERNELS_NAME given by the build; contraction to fused multiply-add is on for this file. */
#include "backend/onednn/kernels.h"

#include <math.h>

#define STEP 1024       /* floats of a block that lives on the stack */
#define FINISH_STEP 256 /* floats of a block of `finish` */

extern const struct kernels KERNELS_TABLE;

/* Elements at any address. */
struct __attribute__((packed, may_alias)) loose_u16 {
    uint16_t v;
};
struct __attribute__((packed, may_alias)) loose_f32 {
    float v;
};

/* ---- Types ---- */

static void load_f32(const struct loose_f32 *restrict src, float *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        dst[i] = src[i].v;
    }
}

static void load_bf16(const struct loose_u16 *restrict src, float *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        dst[i] = float_from_bits((uint32_t)src[i].v << 16);
    }
}

/* A half's magnitude as the bits of a float 2^112 too small: the product also brings denormal numbers home. */
static inline float half_to_float(uint32_t half) {
    uint32_t magnitude = half & 0x7fffU;
    uint32_t finite = float_to_bits(float_from_bits(magnitude << 13) * 0x1p112f);
    uint32_t bits = magnitude >= 0x7c00U ? 0x7f800000U | magnitude << 13 : finite;
    return float_from_bits(bits | (half & 0x8000U) << 16);
}

static void load_f16(const struct loose_u16 *restrict src, float *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        dst[i] = half_to_float(src[i].v);
    }
}

static void load_e5m2(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        dst[i] = half_to_float((uint32_t)src[i] << 8);
    }
}

static void load_e4m3(const uint8_t *restrict src, float *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t code = src[i];
        uint32_t magnitude = code & 0x7fU;
        uint32_t finite = float_to_bits(float_from_bits(magnitude << 20) * 0x1p120f);
        uint32_t bits = magnitude == 0x7fU ? 0x7fc00000U : finite;
        dst[i] = float_from_bits(bits | (code & 0x80U) << 24);
    }
}

static void load(enum dtype dtype, const void *src, float *dst, int64_t n) {
    switch (dtype) {
    case DTYPE_BF16:
        load_bf16(src, dst, n);
        break;
    case DTYPE_F16:
        load_f16(src, dst, n);
        break;
    case DTYPE_F8_E4M3:
        load_e4m3(src, dst, n);
        break;
    case DTYPE_F8_E5M2:
        load_e5m2(src, dst, n);
        break;
    default:
        load_f32(src, dst, n);
    }
}

/* float_to_bf16 without a branch. */
static inline uint16_t to_bf16(float value) {
    uint32_t bits = float_to_bits(value);
    uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
    uint32_t quiet = bits >> 16 | 0x40U;
    return (uint16_t)((bits & 0x7fffffffU) > 0x7f800000U ? quiet : rounded);
}

static void store_bf16(const float *restrict src, uint16_t *restrict dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        dst[i] = to_bf16(src[i]);
    }
}

static void store(enum dtype dtype, const float *src, void *dst, int64_t n) {
    if (dtype == DTYPE_BF16) {
        store_bf16(src, dst, n);
    } else {
        memcpy(dst, src, (size_t)n * sizeof *src);
    }
}

/* ---- Matrix times vector ---- */

static void dot4_f32(const float *restrict x, const uint8_t *w, size_t row_bytes, int64_t n, float *y) {
    const struct loose_f32 *w0 = (const void *)w;
    const struct loose_f32 *w1 = (const void *)(w + row_bytes);
    const struct loose_f32 *w2 = (const void *)(w + 2 * row_bytes);
    const struct loose_f32 *w3 = (const void *)(w + 3 * row_bytes);
    float s0 = 0;
    float s1 = 0;
    float s2 = 0;
    float s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < n; i++) {
        s0 += x[i] * w0[i].v;
        s1 += x[i] * w1[i].v;
        s2 += x[i] * w2[i].v;
        s3 += x[i] * w3[i].v;
    }
    y[0] = s0;
    y[1] = s1;
    y[2] = s2;
    y[3] = s3;
}

static void dot4_bf16(const float *restrict x, const uint8_t *w, size_t row_bytes, int64_t n, float *y) {
    const struct loose_u16 *w0 = (const void *)w;
    const struct loose_u16 *w1 = (const void *)(w + row_bytes);
    const struct loose_u16 *w2 = (const void *)(w + 2 * row_bytes);
    const struct loose_u16 *w3 = (const void *)(w + 3 * row_bytes);
    float s0 = 0;
    float s1 = 0;
    float s2 = 0;
    float s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < n; i++) {
        s0 += x[i] * float_from_bits((uint32_t)w0[i].v << 16);
        s1 += x[i] * float_from_bits((uint32_t)w1[i].v << 16);
        s2 += x[i] * float_from_bits((uint32_t)w2[i].v << 16);
        s3 += x[i] * float_from_bits((uint32_t)w3[i].v << 16);
    }
    y[0] = s0;
    y[1] = s1;
    y[2] = s2;
    y[3] = s3;
}

static void dot_rows(enum dtype dtype, const float *x, const void *w, size_t row_bytes, int64_t n_rows, int64_t n,
                     float *y) {
    const uint8_t *row = w;
    for (int64_t i = 0; i < n_rows; i += 4, row += 4 * row_bytes) {
        /* The last rows are taken one by one, as four times the same row. */
        bool is_whole = n_rows - i >= 4;
        int64_t n_steps = is_whole ? 1 : n_rows - i;
        for (int64_t j = 0; j < n_steps; j++) {
            float four[4];
            const uint8_t *from = row + (size_t)j * row_bytes;
            if (dtype == DTYPE_BF16) {
                dot4_bf16(x, from, is_whole ? row_bytes : 0, n, four);
            } else {
                dot4_f32(x, from, is_whole ? row_bytes : 0, n, four);
            }
            memcpy(y + i + j, four, (is_whole ? 4 : 1) * sizeof *y);
        }
    }
}

/* ---- Element by element ---- */

/* e^x with about one unit in the last place, for −87 ≤ x ≤ 88. A NaN stays a NaN. */
static inline float exp_inside(float x) {
    float shifted = x * 1.44269504F + 12582912.0F; /* the integer part of x / ln 2 in the lowest bits */
    float whole = shifted - 12582912.0F;
    float f = x - whole * 0.693359375F;
    f = f + whole * 2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * f + 1.3981999507e-3F;
    p = p * f + 8.3334519073e-3F;
    p = p * f + 4.1665795894e-2F;
    p = p * f + 1.6666665459e-1F;
    p = p * f + 5.0000001201e-1F;
    p = p * (f * f) + f + 1.0F;
    return p * float_from_bits((float_to_bits(shifted) << 23) + 0x3f800000U);
}

/* e^x for x ≤ 0; below −87 it stays where it is, next to nothing. */
static inline float exp_below(float x) {
    return exp_inside(x < -87.0F ? -87.0F : x);
}

/* 1 / (1 + e^−x). The quotient by a first guess from the exponent and three Newton steps, to about two units in the last place in a
 * fraction of a division's time; the guess holds up to 2^125. */
static inline float sigmoid_of(float x) {
    float y = -x;
    y = y < -80.0F ? -80.0F : y;
    y = y > 80.0F ? 80.0F : y;
    float d = 1.0F + exp_inside(y);
    float r = float_from_bits(0x7ef311c7U - float_to_bits(d));
    r = r * (2.0F - d * r);
    r = r * (2.0F - d * r);
    return r * (2.0F - d * r);
}

static inline float silu_of(float x) {
    return x * sigmoid_of(x);
}

static inline float gelu_of(float x) {
    return x * sigmoid_of(1.5957691216F * (x + 0.044715F * x * x * x)); /* x (1 + tanh u) / 2 = x / (1 + e^−2u) */
}

static void activate(enum activation act, const float *x, float *y, int64_t n) {
    if (act == ACT_SILU) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = silu_of(x[i]);
        }
    } else if (act == ACT_GELU_TANH) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = gelu_of(x[i]);
        }
    } else if (x != y) {
        memcpy(y, x, (size_t)n * sizeof *y);
    }
}

static void affine(const float *x, const float *scale, const float *shift, enum activation act, float *y, int64_t n) {
    if (act == ACT_SILU) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = silu_of(x[i] * scale[i] + shift[i]);
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * scale[i] + shift[i];
    }
    activate(act, y, y, n);
}

/* The way of a VAE in bf16, in one pass. */
static void affine_silu_bf16(const uint16_t *restrict x, const float *restrict scale, const float *restrict shift,
                             uint16_t *restrict y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = to_bf16(silu_of(float_from_bits((uint32_t)x[i] << 16) * scale[i] + shift[i]));
    }
}

static void affine_pixels(enum dtype from, const void *x, const float *scale, const float *shift, enum activation act,
                          enum dtype to, void *y, int64_t n, int64_t n_pixels) {
    bool is_short = from == DTYPE_BF16 && to == DTYPE_BF16 && act == ACT_SILU;
    for (int64_t pixel = 0; pixel < n_pixels; pixel++) {
        const uint8_t *source = (const uint8_t *)x + (size_t)(pixel * n) * dtype_size(from);
        uint8_t *target = (uint8_t *)y + (size_t)(pixel * n) * dtype_size(to);
        if (is_short) {
            affine_silu_bf16((const void *)source, scale, shift, (void *)target, n);
            continue;
        }
        for (int64_t i = 0; i < n; i += STEP) {
            float values[STEP];
            int64_t part = n - i < STEP ? n - i : STEP;
            load(from, source + (size_t)i * dtype_size(from), values, part);
            affine(values, scale + i, shift + i, act, values, part);
            store(to, values, target + (size_t)i * dtype_size(to), part);
        }
    }
}

static void swiglu(const float *gate, const float *up, float *y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = silu_of(gate[i]) * up[i];
    }
}

static void add(const float *a, const float *b, float *y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = a[i] + b[i];
    }
}

static void multiply(const float *a, const float *b, float *y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = a[i] * b[i];
    }
}

/* gate · (x + bias) + residual in one pass, without activation; the absent ones are rows of zeros and ones. */
static void finish_bf16(const float *restrict x, const float *restrict bias, const float *restrict gate,
                        const uint16_t *residual, uint16_t *y, int64_t n) {
    if (residual == NULL) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = to_bf16((x[i] + bias[i]) * gate[i]);
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = to_bf16((x[i] + bias[i]) * gate[i] + float_from_bits((uint32_t)residual[i] << 16));
    }
}

static void finish_f32(const float *restrict x, const float *restrict bias, const float *restrict gate,
                       const float *residual, float *y, int64_t n) {
    if (residual == NULL) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = (x[i] + bias[i]) * gate[i];
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = (x[i] + bias[i]) * gate[i] + residual[i];
    }
}

static void finish(const float *x, const struct row_finish *how, int64_t n) {
    static const float zeros[FINISH_STEP] = { 0 };
    float ones[FINISH_STEP];
    float row[FINISH_STEP];
    size_t size = dtype_size(how->out);
    for (int64_t i = 0; i < FINISH_STEP; i++) {
        ones[i] = 1.0F;
    }
    for (int64_t i = 0; i < n; i += FINISH_STEP) {
        int64_t part = n - i < FINISH_STEP ? n - i : FINISH_STEP;
        const float *from = x + i;
        const float *bias = how->bias == NULL ? zeros : how->bias + i;
        const float *gate = how->gate == NULL ? ones : how->gate + i;
        const void *residual = how->residual == NULL ? NULL : (const uint8_t *)how->residual + (size_t)i * size;
        void *y = (uint8_t *)how->y + (size_t)i * size;
        if (how->act != ACT_NONE) {
            add(from, bias, row, part);
            activate(how->act, row, row, part);
            from = row;
            bias = zeros;
        }
        if (how->out == DTYPE_BF16) {
            finish_bf16(from, bias, gate, residual, y, part);
        } else {
            finish_f32(from, bias, gate, residual, y, part);
        }
    }
}

/* ---- Norms ---- */

static void layer_norm(const float *x, const float *factor, const float *summand, float eps, float *y, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
    }
    float mean = sum / (float)n;
    float square = 0;
#pragma omp simd reduction(+ : square)
    for (int64_t i = 0; i < n; i++) {
        float d = x[i] - mean;
        square += d * d;
    }
    float inverse = 1.0F / sqrtf(square / (float)n + eps);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = (x[i] - mean) * inverse;
    }
    if (factor != NULL) {
        multiply(y, factor, y, n);
    }
    if (summand != NULL) {
        add(y, summand, y, n);
    }
}

static void rms_norm(const float *x, const float *weight, float eps, float *y, int64_t n) {
    float square = 0;
#pragma omp simd reduction(+ : square)
    for (int64_t i = 0; i < n; i++) {
        square += x[i] * x[i];
    }
    float inverse = 1.0F / sqrtf(square / (float)n + eps);
    if (weight == NULL) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = x[i] * inverse;
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * inverse * weight[i];
    }
}

static void rope(float *x, const float *cos, const float *sin, enum rope_pairs pairs, int64_t n) {
    int64_t half = n / 2;
    if (pairs == ROPE_ADJACENT) {
#pragma omp simd
        for (int64_t j = 0; j < half; j++) {
            float a = x[2 * j];
            float b = x[2 * j + 1];
            x[2 * j] = a * cos[j] - b * sin[j];
            x[2 * j + 1] = b * cos[j] + a * sin[j];
        }
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < half; j++) {
        float a = x[j];
        float b = x[j + half];
        x[j] = a * cos[j] - b * sin[j];
        x[j + half] = b * cos[j] + a * sin[j];
    }
}

static void moments(const float *x, const float *pivot, float *sum, float *square, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float d = x[i] - pivot[i];
        sum[i] += d;
        square[i] += d * d;
    }
}

/* ---- Softmax ---- */

static float max_of(const float *x, int64_t n) {
    float max = x[0];
#pragma omp simd reduction(max : max)
    for (int64_t i = 1; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    return max;
}

/* e^x for x ≤ 0 to 3e-6, more than the bf16 that it becomes can hold. A NaN stays a NaN. */
static inline float rough_exp_of(float x) {
    x = x < -87.0F ? -87.0F : x;
    float shifted = x * 1.44269504F + 12582912.0F;
    float f = x * 1.44269504F - (shifted - 12582912.0F); /* 2^f, −½ ≤ f ≤ ½ */
    float p = 0.00957008F;
    p = p * f + 0.05591783F;
    p = p * f + 0.24024745F;
    p = p * f + 0.69312182F;
    p = p * f + 0.99999926F;
    return p * float_from_bits((float_to_bits(shifted) << 23) + 0x3f800000U);
}

static float exp_sum_bf16(const float *restrict x, float scale, float offset, uint16_t *restrict y, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float e = rough_exp_of(x[i] * scale + offset);
        y[i] = (uint16_t)((float_to_bits(e) + 0x8000U) >> 16); /* a NaN from arithmetic is quiet: it does not wrap */
        sum += e;
    }
    return sum;
}

static float exp_sum(const float *x, float scale, float max, enum dtype dtype, void *y, int64_t n) {
    float offset = -scale * max;
    if (dtype == DTYPE_BF16) {
        return exp_sum_bf16(x, scale, offset, y, n);
    }
    float sum = 0;
    float *single = y;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        single[i] = exp_below(x[i] * scale + offset);
        sum += single[i];
    }
    return sum;
}

static void scale_by(const float *x, float factor, float *y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * factor;
    }
}

static void rescale_add(float *y, float factor, const float *x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = y[i] * factor + x[i];
    }
}

const struct kernels KERNELS_TABLE = {
    .name = KERNELS_NAME,
    .load = load,
    .store = store,
    .dot_rows = dot_rows,
    .finish = finish,
    .activate = activate,
    .affine = affine,
    .affine_pixels = affine_pixels,
    .swiglu = swiglu,
    .add = add,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .rope = rope,
    .moments = moments,
    .max = max_of,
    .exp_sum = exp_sum,
    .scale = scale_by,
    .rescale_add = rescale_add,
};
