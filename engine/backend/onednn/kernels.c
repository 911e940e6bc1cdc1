/* The kernels of kernels.h in plain C that compilers vectorise. Compiled once for every instruction set, with KERNELS_TABLE and
 * KERNELS_NAME given by the build; contraction to fused multiply-add is on for this file. */
#include "backend/onednn/kernels.h"

#include <math.h>

#define STEP 1024 /* floats of a block that lives on the stack */

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

/* exp with about one unit in the last place; below e^-87 it stays there, above e^88 too. A NaN stays a NaN. */
static inline float exp_of(float x) {
    x = x < -87.0F ? -87.0F : x;
    x = x > 88.0F ? 88.0F : x;
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

static inline float silu_of(float x) {
    return x / (1.0F + exp_of(-x));
}

static inline float gelu_of(float x) {
    float u = 0.7978845608F * (x + 0.044715F * x * x * x);
    return x - x / (1.0F + exp_of(2.0F * u)); /* x (1 + tanh u) / 2 */
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

static void finish(const float *x, const struct row_finish *how, int64_t n) {
    size_t size = dtype_size(how->out);
    float row[STEP];
    float residual[STEP];
    for (int64_t i = 0; i < n; i += STEP) {
        int64_t part = n - i < STEP ? n - i : STEP;
        const float *from = x + i;
        if (how->bias != NULL) {
            add(from, how->bias + i, row, part);
            from = row;
        }
        if (how->act != ACT_NONE) {
            activate(how->act, from, row, part);
            from = row;
        }
        if (how->gate != NULL) {
            multiply(from, how->gate + i, row, part);
            from = row;
        }
        if (how->residual != NULL) {
            load(how->out, (const uint8_t *)how->residual + (size_t)i * size, residual, part);
            add(from, residual, row, part);
            from = row;
        }
        store(how->out, from, (uint8_t *)how->y + (size_t)i * size, part);
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

static float exp_sum(const float *x, float scale, float max, enum dtype dtype, void *y, int64_t n) {
    float sum = 0;
    float offset = -scale * max;
    if (dtype == DTYPE_BF16) {
        uint16_t *restrict half = y;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) {
            float e = exp_of(x[i] * scale + offset);
            half[i] = to_bf16(e);
            sum += e;
        }
        return sum;
    }
    float *single = y;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        single[i] = exp_of(x[i] * scale + offset);
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
