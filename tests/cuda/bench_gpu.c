/* What the card's libraries reach through gemm.h and conv.h: ceilings, the products of FLUX.2 klein-4B and Qwen3-4B, the convolutions of
 * the VAE at 1024², and which fused forms the library accepts. Median of a few runs by events after the first, which tunes; every
 * product and convolution is compared with plain sums at sampled places. One line each:
 *   what, sizes: milliseconds, TFLOP/s, share of the ceiling, milliseconds of the first call, largest error at the samples
 * Usage: bench_gpu [products] [convolutions] [forms]; without: all. Returns 1 when a sample is wrong. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cuda/conv.h"
#include "backend/cuda/gemm.h"

#define WORKSPACE_BYTES ((size_t)64 << 20)
#define CONV_WORKSPACE_BYTES ((size_t)3 << 30)
#define COPY_BYTES ((size_t)1 << 30)
#define N_RUNS 7
#define N_SAMPLES 24
#define MAX_SUM 32768 /* summands of a sample */

enum { X, W, Y, RESIDUAL, N_BUFFERS };

struct bench {
    cudaStream_t stream;
    cudaEvent_t events[2];
    struct gemm *gemm;
    struct conv *conv;
    void *gemm_workspace, *conv_workspace;
    void *buffers[N_BUFFERS]; /* on the card */
    float *vectors[4];        /* factors of x and w, gate, bias: [32768] each */
    float *host_vectors[4];
    size_t buffer_bytes;
    double ceilings[4]; /* TFLOP/s by kind of product */
    uint64_t random;
    int n_wrong;
};
enum { VECTOR_X, VECTOR_W, VECTOR_GATE, VECTOR_BIAS, N_VECTORS };
enum { VECTOR_LENGTH = 32768 };

/* ---- Small things ---- */

static void check(cudaError_t code, const char *what) {
    if (code != cudaSuccess) {
        (void)fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(code));
        exit(2);
    }
}

static uint64_t next_random(struct bench *b) {
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return b->random;
}

static double now_ms(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a;
    float y = *(const float *)b;
    return (x > y) - (x < y);
}

static size_t size_of(enum gpu_type type) {
    return type == GPU_BF16 ? 2 : type == GPU_F8_E4M3 || type == GPU_I8 ? 1 : 4;
}

static double widen(enum gpu_type type, const void *data) {
    uint32_t bits = 0;
    float number;
    int32_t whole;
    switch (type) {
    case GPU_BF16: {
        uint16_t half;
        memcpy(&half, data, sizeof half);
        bits = (uint32_t)half << 16;
        memcpy(&number, &bits, sizeof number);
        return (double)number;
    }
    case GPU_F8_E4M3: {
        uint8_t code = *(const uint8_t *)data;
        int exponent = code >> 3 & 15;
        double value = exponent == 0 ? (code & 7) * 0x1p-9 : (8 + (code & 7)) * exp2(exponent - 10);
        return code & 0x80 ? -value : value;
    }
    case GPU_I8:
        return *(const int8_t *)data;
    case GPU_I32:
        memcpy(&whole, data, sizeof whole);
        return whole;
    default:
        memcpy(&number, data, sizeof number);
        return (double)number;
    }
}

/* Elements of a buffer on the card, stride elements apart. */
static void fetch(const void *device, enum gpu_type type, int64_t first, int64_t stride, int64_t n, double *ret) {
    static uint8_t bytes[MAX_SUM * 4];
    size_t size = size_of(type);
    check(cudaMemcpy2D(bytes, size, (const uint8_t *)device + (size_t)first * size, (size_t)stride * size, size,
                       (size_t)n, cudaMemcpyDeviceToHost),
          "a sample");
    for (int64_t i = 0; i < n; i++) {
        ret[i] = widen(type, bytes + (size_t)i * size);
    }
}

/* Random numbers about normal, in a type; a block is written over and over. */
static void fill(struct bench *b, int buffer, enum gpu_type type) {
    enum { N = 1 << 20 };
    static uint8_t block[N * 4 + 12];
    size_t size = size_of(type);
    for (size_t i = 0; i < N + 3; i++) { /* three more, so that rows do not repeat */
        uint64_t r = next_random(b);
        float number = ((float)(r & 0xffff) + (float)(r >> 16 & 0xffff) + (float)(r >> 32 & 0xffff)) / 65536.0F - 1.5F;
        uint32_t bits;
        memcpy(&bits, &number, sizeof bits);
        uint16_t half = (uint16_t)(bits >> 16);
        uint8_t code = (uint8_t)((r & 0x80) | (r >> 8 & 0x07) | (4 + (r >> 16) % 4) << 3); /* 0.125 … 1.9 */
        int8_t whole = (int8_t)(number * 40.0F);
        const void *from = type == GPU_BF16      ? (const void *)&half
                           : type == GPU_F8_E4M3 ? (const void *)&code
                           : type == GPU_I8      ? (const void *)&whole
                                                 : (const void *)&number;
        memcpy(block + i * size, from, size);
    }
    size_t bytes = (N + 3) * size;
    for (size_t at = 0; at < b->buffer_bytes; at += bytes) {
        size_t n = b->buffer_bytes - at < bytes ? b->buffer_bytes - at : bytes;
        if (at == 0) {
            check(cudaMemcpy(b->buffers[buffer], block, n, cudaMemcpyHostToDevice), "random numbers");
        } else {
            check(cudaMemcpyAsync((uint8_t *)b->buffers[buffer] + at, b->buffers[buffer], n, cudaMemcpyDeviceToDevice,
                                  NULL),
                  "random numbers");
        }
    }
    check(cudaDeviceSynchronize(), "random numbers");
}

/* ---- Timing ---- */

struct work {
    const struct gemm_args *product; /* one of them */
    const struct conv_args *convolution;
};

static enum cyi_status run_work(struct bench *b, const struct work *work, struct cyi_error *err) {
    return work->product != NULL ? gemm_run(b->gemm, work->product, b->stream, err)
                                 : conv_run(b->conv, work->convolution, b->stream, err);
}

/* Median milliseconds; less than 0 when it fails, with the reason printed. */
static double time_work(struct bench *b, const struct work *work, double *ret_first_ms) {
    struct cyi_error err = { 0 };
    float ms[N_RUNS];
    double start = now_ms();
    for (int i = -1; i < N_RUNS; i++) {
        check(cudaEventRecord(b->events[0], b->stream), "timing");
        if (run_work(b, work, &err) != CYI_OK) {
            (void)printf("  failed: %s\n", err.text);
            return -1.0;
        }
        check(cudaEventRecord(b->events[1], b->stream), "timing");
        cudaError_t code = cudaEventSynchronize(b->events[1]);
        check(code, "the work");
        if (i < 0) {
            *ret_first_ms = now_ms() - start;
        } else {
            check(cudaEventElapsedTime(&ms[i], b->events[0], b->events[1]), "timing");
        }
    }
    qsort(ms, N_RUNS, sizeof ms[0], compare_floats);
    return (double)ms[N_RUNS / 2];
}

/* ---- Products ---- */

/* Largest error at sampled places, relative to the root of the sum of squares of the summands. */
static double check_product(struct bench *b, const struct gemm_args *a) {
    static double x[MAX_SUM];
    static double w[MAX_SUM];
    double worst = 0.0;
    struct cyi_error err = { 0 };
    if (a->residual == a->y && a->residual != NULL) {
        check(cudaMemcpy(a->y, b->buffers[RESIDUAL], (size_t)a->m * (size_t)a->y_stride * size_of(a->y_type),
                         cudaMemcpyDeviceToDevice),
              "a residual");
    }
    if (gemm_run(b->gemm, a, b->stream, &err) != CYI_OK) {
        return INFINITY;
    }
    check(cudaStreamSynchronize(b->stream), "a product");
    for (int i = 0; i < N_SAMPLES; i++) {
        int64_t row = i == 0 ? a->m - 1 : (int64_t)(next_random(b) % (uint64_t)a->m);
        int64_t col = i == 0 ? a->n - 1 : (int64_t)(next_random(b) % (uint64_t)a->n);
        double sum = 0.0;
        double power = 1e-30;
        double y;
        double residual = 0.0;
        fetch(a->x, a->type, row * a->x_stride, 1, a->k, x);
        fetch(a->w, a->type, a->is_w_kn ? col : col * a->w_stride, a->is_w_kn ? a->w_stride : 1, a->k, w);
        fetch(a->y, a->y_type, row * a->y_stride + col, 1, 1, &y);
        for (int64_t k = 0; k < a->k; k++) {
            sum += x[k] * w[k];
            power += x[k] * w[k] * x[k] * w[k];
        }
        double factor = (a->x_scale != NULL ? (double)b->host_vectors[VECTOR_X][row] : 1.0) *
                        (a->w_scale != NULL ? (double)b->host_vectors[VECTOR_W][col] : 1.0) *
                        (a->gate != NULL ? (double)b->host_vectors[VECTOR_GATE][col] : 1.0);
        if (a->residual != NULL) {
            fetch(b->buffers[RESIDUAL], a->y_type, row * a->residual_stride + col, 1, 1, &residual);
        }
        sum = sum * factor + residual + (a->bias != NULL ? (double)b->host_vectors[VECTOR_BIAS][col] : 0.0);
        double error = fabs(y - sum) / (sqrt(power) * fabs(factor) + fabs(residual));
        worst = error <= worst ? worst : error;
    }
    return worst;
}

enum kind { KIND_BF16, KIND_FP8, KIND_INT8, KIND_F32 };
static const enum gpu_type kind_types[] = { GPU_BF16, GPU_F8_E4M3, GPU_I8, GPU_F32 };
/* In units of the error of a sum of random signs: what rounding to the result's type may do, and the fp8 sums of the tensor cores. */
static const double kind_limits[] = { 0.05, 0.2, 0.0, 1e-4 };

struct form {
    const char *name;
    enum kind kind;
    enum gpu_type y_type;
    bool has_gate, has_residual, has_bias, has_scales, is_in_place;
};

static struct gemm_args make_product(struct bench *b, const struct form *f, int64_t m, int64_t n, int64_t k) {
    return (struct gemm_args){ .type = kind_types[f->kind],
                               .y_type = f->y_type,
                               .m = m,
                               .n = n,
                               .k = k,
                               .n_batch = 1,
                               .x = b->buffers[X],
                               .w = b->buffers[W],
                               .x_stride = k,
                               .w_stride = k,
                               .x_scale = f->has_scales ? b->vectors[VECTOR_X] : NULL,
                               .w_scale = f->has_scales ? b->vectors[VECTOR_W] : NULL,
                               .gate = f->has_gate ? b->vectors[VECTOR_GATE] : NULL,
                               .bias = f->has_bias ? b->vectors[VECTOR_BIAS] : NULL,
                               .residual = !f->has_residual ? NULL
                                           : f->is_in_place ? b->buffers[Y]
                                                            : b->buffers[RESIDUAL],
                               .residual_stride = n,
                               .y = b->buffers[Y],
                               .y_stride = n };
}

static void print_error(struct bench *b, double error, double limit) {
    bool is_wrong = !(error <= limit);
    b->n_wrong += is_wrong;
    (void)printf(", error %.1e%s\n", error, is_wrong ? "  WRONG" : "");
}

static double bench_product(struct bench *b, const struct form *f, int64_t m, int64_t n, int64_t k) {
    struct gemm_args args = make_product(b, f, m, n, k);
    double first_ms = 0.0;
    (void)printf("%-24s %5lld × %5lld × %5lld: ", f->name, (long long)m, (long long)n, (long long)k);
    if (!gemm_can(b->gemm, &args)) {
        (void)printf("refused\n");
        return 0.0;
    }
    double ms = time_work(b, &(struct work){ .product = &args }, &first_ms);
    if (ms < 0.0) {
        b->n_wrong++;
        return 0.0;
    }
    double rate = 2.0 * (double)m * (double)n * (double)k / ms / 1e9;
    (void)printf("%8.4f ms %7.1f TFLOP/s", ms, rate);
    if (b->ceilings[f->kind] > 0.0) {
        (void)printf(" %4.0f %%", 100.0 * rate / b->ceilings[f->kind]);
    }
    (void)printf(", first %.1f ms", first_ms);
    print_error(b, check_product(b, &args), kind_limits[f->kind]);
    return rate;
}

static void fill_for(struct bench *b, const struct form *f) {
    fill(b, X, kind_types[f->kind]);
    fill(b, W, kind_types[f->kind]);
    fill(b, RESIDUAL, f->y_type);
}

static const struct form plain_forms[] = {
    { "bf16", KIND_BF16, GPU_BF16, false, false, false, false, false },
    { "bf16 to f32", KIND_BF16, GPU_F32, false, false, false, false, false },
    { "bf16 gate residual f32", KIND_BF16, GPU_F32, true, true, false, false, true },
    { "fp8 by rows", KIND_FP8, GPU_BF16, false, false, false, true, false },
    { "int8 to i32", KIND_INT8, GPU_I32, false, false, false, false, false },
};
#define N_PLAIN (sizeof plain_forms / sizeof plain_forms[0])

static void bench_ceilings(struct bench *b) {
    static const struct form f32 = { "f32", KIND_F32, GPU_F32, false, false, false, false, false };
    (void)printf("--- ceilings, %s\n", gemm_version());
    for (size_t i = 0; i < N_PLAIN; i++) {
        if (plain_forms[i].kind != KIND_BF16 || plain_forms[i].y_type == GPU_BF16) {
            fill_for(b, &plain_forms[i]);
            b->ceilings[plain_forms[i].kind] = bench_product(b, &plain_forms[i], 8192, 8192, 8192);
        }
    }
    fill_for(b, &f32);
    b->ceilings[KIND_F32] = bench_product(b, &f32, 4096, 4096, 4096);
    float ms = 0.0F;
    for (int i = 0; i < 3; i++) {
        check(cudaEventRecord(b->events[0], b->stream), "timing");
        check(cudaMemcpyAsync(b->buffers[Y], b->buffers[X], COPY_BYTES, cudaMemcpyDeviceToDevice, b->stream), "a copy");
        check(cudaEventRecord(b->events[1], b->stream), "timing");
        check(cudaEventSynchronize(b->events[1]), "a copy");
        check(cudaEventElapsedTime(&ms, b->events[0], b->events[1]), "timing");
    }
    (void)printf("%-24s %.0f GB/s read and written\n", "copy", 2.0 * (double)COPY_BYTES / (double)ms / 1e6);
}

static void bench_products(struct bench *b) {
    static const int64_t rows[] = { 4608, 1536, 768, 512 };
    static const int64_t klein[][2] = { { 3072, 3072 },  { 9216, 3072 }, { 18432, 3072 },
                                        { 27648, 3072 }, { 3072, 9216 }, { 3072, 12288 } };
    static const int64_t qwen[][2] = { { 4096, 2560 }, { 1024, 2560 }, { 9728, 2560 }, { 2560, 4096 }, { 2560, 9728 } };
    for (size_t f = 0; f < N_PLAIN; f++) {
        (void)printf("--- %s\n", plain_forms[f].name);
        fill_for(b, &plain_forms[f]);
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
            for (size_t i = 0; i < sizeof klein / sizeof klein[0]; i++) {
                (void)bench_product(b, &plain_forms[f], rows[r], klein[i][0], klein[i][1]);
            }
        }
        for (size_t i = 0; i < sizeof qwen / sizeof qwen[0]; i++) {
            (void)bench_product(b, &plain_forms[f], 512, qwen[i][0], qwen[i][1]);
        }
    }
}

/* What the library takes in one call. */
static void bench_forms(struct bench *b) {
    static const struct form forms[] = {
        { "bf16 to f32, gate", KIND_BF16, GPU_F32, true, false, false, false, false },
        { "bf16 to f32, bias", KIND_BF16, GPU_F32, false, false, true, false, false },
        { "bf16 to f32, residual", KIND_BF16, GPU_F32, false, true, false, false, false },
        { "  in place", KIND_BF16, GPU_F32, false, true, false, false, true },
        { "bf16 to f32, both", KIND_BF16, GPU_F32, true, true, false, false, false },
        { "  in place", KIND_BF16, GPU_F32, true, true, false, false, true },
        { "bf16, gate", KIND_BF16, GPU_BF16, true, false, false, false, false },
        { "bf16, residual", KIND_BF16, GPU_BF16, false, true, false, false, false },
        { "bf16, both", KIND_BF16, GPU_BF16, true, true, false, false, true },
        { "fp8 to f32, by rows", KIND_FP8, GPU_F32, false, false, false, true, false },
        { "fp8 to f32, no factors", KIND_FP8, GPU_F32, false, false, false, false, false },
        { "fp8 by rows, residual", KIND_FP8, GPU_BF16, false, true, false, true, false },
        { "fp8 f32 rows, residual", KIND_FP8, GPU_F32, false, true, false, true, true },
        { "fp8 f32 rows, both", KIND_FP8, GPU_F32, true, true, false, true, true },
        { "f32, bias", KIND_F32, GPU_F32, false, false, true, false, false },
        { "f32, gate, residual", KIND_F32, GPU_F32, true, true, false, false, false },
    };
    (void)printf("--- forms in one call\n");
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        fill_for(b, &forms[i]);
        (void)bench_product(b, &forms[i], 1536, 3072, 3072);
    }
    for (size_t i = 0; i < 2; i++) { /* the VAE's attention: scores, and values with w as [K, N] */
        static const struct form form = { "bf16 w [K, N]", KIND_BF16, GPU_BF16, false, false, false, false, false };
        struct gemm_args args = make_product(b, &form, 2048, 512, 16384);
        double first_ms = 0.0;
        args.is_w_kn = true;
        args.w_stride = i == 0 ? 512 : 520;
        fill_for(b, &form);
        double ms = time_work(b, &(struct work){ .product = &args }, &first_ms);
        (void)printf("%-24s %8.4f ms %7.1f TFLOP/s", form.name, ms, 2.0 * 2048 * 512 * 16384 / ms / 1e9);
        print_error(b, check_product(b, &args), kind_limits[KIND_BF16]);
    }
    /* Sizes that no model has: what the library says of odd rows. */
    static const int64_t odd[][3] = { { 100, 65, 19 }, { 100, 64, 20 }, { 100, 68, 24 }, { 9, 1, 1 } };
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        static const struct form f32 = { "f32, odd", KIND_F32, GPU_F32, false, false, false, false, false };
        fill_for(b, &f32);
        (void)bench_product(b, &f32, odd[i][0], odd[i][1], odd[i][2]);
        fill_for(b, &plain_forms[0]);
        (void)bench_product(b, &plain_forms[0], odd[i][0], odd[i][1], odd[i][2]);
    }
}

/* ---- Convolutions ---- */

static double check_convolution(struct bench *b, const struct conv_args *a) {
    static double x[MAX_SUM];
    static double w[MAX_SUM];
    int64_t rows = (a->n_rows + 2 * a->pad - a->kh) / a->stride + 1;
    int64_t cols = (a->n_cols + 2 * a->pad - a->kw) / a->stride + 1;
    double worst = 0.0;
    struct cyi_error err = { 0 };
    if (a->residual == a->y && a->residual != NULL) {
        check(cudaMemcpy(a->y, b->buffers[RESIDUAL], (size_t)(rows * cols * a->n_out) * size_of(a->type),
                         cudaMemcpyDeviceToDevice),
              "a residual");
    }
    if (conv_run(b->conv, a, b->stream, &err) != CYI_OK) {
        (void)printf("  failed: %s\n", err.text);
        return INFINITY;
    }
    check(cudaStreamSynchronize(b->stream), "a convolution");
    for (int i = 0; i < N_SAMPLES; i++) {
        int64_t row = i == 0 ? rows - 1 : i == 1 ? 0 : (int64_t)(next_random(b) % (uint64_t)rows);
        int64_t col = i == 0 ? cols - 1 : i == 1 ? 0 : (int64_t)(next_random(b) % (uint64_t)cols);
        int64_t o = (int64_t)(next_random(b) % (uint64_t)a->n_out);
        double sum = a->bias != NULL ? (double)b->host_vectors[VECTOR_BIAS][o] : 0.0;
        double power = 1e-30;
        double y;
        double residual = 0.0;
        for (int64_t tap = 0; tap < a->kh * a->kw; tap++) {
            int64_t from_row = row * a->stride + tap / a->kw - a->pad;
            int64_t from_col = col * a->stride + tap % a->kw - a->pad;
            if (from_row < 0 || from_row >= a->n_rows || from_col < 0 || from_col >= a->n_cols) {
                continue;
            }
            fetch(a->x, a->type, (from_row * a->n_cols + from_col) * a->n_in, 1, a->n_in, x);
            fetch(a->weight, a->type, (o * a->kh * a->kw + tap) * a->n_in, 1, a->n_in, w);
            for (int64_t c = 0; c < a->n_in; c++) {
                sum += x[c] * w[c];
                power += x[c] * w[c] * x[c] * w[c];
            }
        }
        if (a->residual != NULL) {
            fetch(b->buffers[RESIDUAL], a->type, (row * cols + col) * a->n_out + o, 1, 1, &residual);
        }
        fetch(a->y, a->type, (row * cols + col) * a->n_out + o, 1, 1, &y);
        double error = fabs(y - sum - residual) / (sqrt(power) + fabs(residual));
        worst = error <= worst ? worst : error;
    }
    return worst;
}

static void bench_convolution(struct bench *b, enum gpu_type type, int64_t size, int64_t n_in, int64_t n_out,
                              bool has_residual, bool is_in_place) {
    struct conv_args args = { .type = type,
                              .n_rows = size,
                              .n_cols = size,
                              .n_in = n_in,
                              .n_out = n_out,
                              .kh = 3,
                              .kw = 3,
                              .pad = 1,
                              .stride = 1,
                              .x = b->buffers[X],
                              .weight = b->buffers[W],
                              .bias = b->vectors[VECTOR_BIAS],
                              .residual = !has_residual ? NULL
                                          : is_in_place ? b->buffers[Y]
                                                        : b->buffers[RESIDUAL],
                              .y = b->buffers[Y] };
    double first_ms = 0.0;
    (void)printf("%s %4lld² %3lld → %3lld%s%s: ", type == GPU_BF16 ? "bf16" : "f32 ", (long long)size, (long long)n_in,
                 (long long)n_out, has_residual ? " residual" : "", is_in_place ? " in place" : "");
    double ms = time_work(b, &(struct work){ .convolution = &args }, &first_ms);
    if (ms < 0.0) {
        b->n_wrong++;
        return;
    }
    double rate = 2.0 * (double)(size * size) * (double)(n_in * n_out) * 9.0 / ms / 1e9;
    (void)printf("%8.4f ms %7.1f TFLOP/s %4.0f %%, first %.1f ms", ms, rate,
                 100.0 * rate / b->ceilings[type == GPU_BF16 ? KIND_BF16 : KIND_F32], first_ms);
    print_error(b, check_convolution(b, &args), kind_limits[type == GPU_BF16 ? KIND_BF16 : KIND_F32]);
}

static void bench_convolutions(struct bench *b) {
    static const int64_t shapes[][3] = { { 128, 512, 512 }, { 256, 512, 512 },  { 512, 512, 512 },  { 512, 512, 256 },
                                         { 512, 256, 256 }, { 1024, 256, 256 }, { 1024, 256, 128 }, { 1024, 128, 128 },
                                         { 1024, 128, 8 },  { 128, 32, 512 } };
    (void)printf("--- convolutions, %s\n", conv_version());
    fill(b, X, GPU_BF16);
    fill(b, W, GPU_BF16);
    fill(b, RESIDUAL, GPU_BF16);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        bool has_residual = shapes[i][1] == shapes[i][2];
        bench_convolution(b, GPU_BF16, shapes[i][0], shapes[i][1], shapes[i][2], false, false);
        if (has_residual) {
            bench_convolution(b, GPU_BF16, shapes[i][0], shapes[i][1], shapes[i][2], true, true);
        }
    }
    fill(b, X, GPU_F32);
    fill(b, W, GPU_F32);
    fill(b, RESIDUAL, GPU_F32);
    bench_convolution(b, GPU_F32, 128, 512, 512, true, true);
    bench_convolution(b, GPU_F32, 64, 32, 512, false, false);
}

/* ---- Beginning and end ---- */

static void *get_workspace(void *user, size_t n_bytes) {
    struct bench *b = user;
    return n_bytes <= CONV_WORKSPACE_BYTES ? b->conv_workspace : NULL;
}

static void init(struct bench *b) {
    struct cyi_error err = { 0 };
    b->random = 88172645463325252U;
    b->buffer_bytes = COPY_BYTES;
    check(cudaStreamCreate(&b->stream), "a stream");
    check(cudaEventCreate(&b->events[0]), "an event");
    check(cudaEventCreate(&b->events[1]), "an event");
    check(cudaMalloc(&b->gemm_workspace, WORKSPACE_BYTES), "memory");
    check(cudaMalloc(&b->conv_workspace, CONV_WORKSPACE_BYTES), "memory");
    for (int i = 0; i < N_BUFFERS; i++) {
        check(cudaMalloc(&b->buffers[i], b->buffer_bytes), "memory");
    }
    for (int i = 0; i < N_VECTORS; i++) {
        b->host_vectors[i] = malloc(VECTOR_LENGTH * sizeof(float));
        if (b->host_vectors[i] == NULL) {
            exit(2);
        }
        for (int j = 0; j < VECTOR_LENGTH; j++) {
            b->host_vectors[i][j] = 0.5F + (float)(next_random(b) % 1000) / 1000.0F;
        }
        void *vector = NULL;
        check(cudaMalloc(&vector, VECTOR_LENGTH * sizeof(float)), "memory");
        check(cudaMemcpy(vector, b->host_vectors[i], VECTOR_LENGTH * sizeof(float), cudaMemcpyHostToDevice), "vectors");
        b->vectors[i] = vector;
    }
    if (gemm_create(&mem_default_allocator, b->gemm_workspace, WORKSPACE_BYTES, &b->gemm, &err) != CYI_OK ||
        conv_create(&mem_default_allocator, get_workspace, b, &b->conv, &err) != CYI_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
        exit(2);
    }
}

static void done(struct bench *b) {
    gemm_free(b->gemm);
    conv_free(b->conv);
    for (int i = 0; i < N_BUFFERS; i++) {
        (void)cudaFree(b->buffers[i]);
    }
    for (int i = 0; i < N_VECTORS; i++) {
        (void)cudaFree(b->vectors[i]);
        free(b->host_vectors[i]);
    }
    (void)cudaFree(b->gemm_workspace);
    (void)cudaFree(b->conv_workspace);
}

static bool is_wanted(int argc, char **argv, const char *what) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], what) == 0) {
            return true;
        }
    }
    return argc == 1;
}

int main(int argc, char **argv) {
    static struct bench bench;
    int n_devices = 0;
    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || n_devices == 0) {
        (void)printf("no card\n");
        return 77;
    }
    init(&bench);
    bench_ceilings(&bench);
    if (is_wanted(argc, argv, "forms")) {
        bench_forms(&bench);
    }
    if (is_wanted(argc, argv, "convolutions")) {
        bench_convolutions(&bench);
    }
    if (is_wanted(argc, argv, "products")) {
        bench_products(&bench);
    }
    (void)printf("%d wrong\n", bench.n_wrong);
    done(&bench);
    return bench.n_wrong > 0;
}
