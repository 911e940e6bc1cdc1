/* Fused attention on a real GPU: time and TFLOP/s of every tiling at the shapes that the models use, random data,
 * median of 20 runs by events; and the error of a few rows against the formula. `*` marks the tiling that
 * gpu_attention_run chooses. Usage: bench_flash [shape…], shapes by number from 0; without: all. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/kernels/attention.h"

struct shape {
    const char *name;
    int64_t n_rows, n_heads, n_kv_heads, width, n_keys;
    bool is_causal;
};
static const struct shape shapes[] = {
    { "FLUX.2 klein-4B 1024²", 4608, 24, 24, 128, 4608, false },
    { "FLUX.2 klein-4B 512²", 1536, 24, 24, 128, 1536, false },
    { "FLUX.2 klein-4B 256²", 768, 24, 24, 128, 768, false },
    { "FLUX.2 klein-9B 1024²", 4608, 32, 32, 128, 4608, false },
    { "Qwen3, 512 tokens", 512, 32, 8, 128, 512, true },
    { "Qwen3, 40 of 512 tokens", 512, 32, 8, 128, 40, true },
    { "width 64, 4096 rows", 4096, 24, 24, 64, 4096, false },
};
static const char *const tiling_names[] = { "128x64x2", "128x64x1", "128x32x1", "64x64x1" };
_Static_assert(sizeof tiling_names / sizeof *tiling_names == ATTENTION_N_TILINGS, "a name a tiling");

enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_RUNS = 20, N_WARM_UP = 3 };

/* Every shape is a view of these: q, k and v columns of one matrix as after a fused projection, out columns of another.
 * */
enum { POOL_ROWS = 4608, POOL_COLS = 3 * 32 * 128, OUT_COLS = 32 * 128 + 64 };
static uint16_t *pool;   /* [POOL_ROWS, POOL_COLS] */
static uint16_t *result; /* [POOL_ROWS, OUT_COLS] */
static uint16_t *device_pool, *device_result;

static void check(cudaError_t code, const char *what) {
    if (code != cudaSuccess) {
        fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(code));
        exit(1);
    }
}

static double widen_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* About normal with variance 1, cut to BF16. */
static void fill_pool(void) {
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < (size_t)POOL_ROWS * POOL_COLS; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        float sum = (float)(state & 0xffff) + (float)(state >> 16 & 0xffff) + (float)(state >> 32 & 0xffff) +
                    (float)(state >> 48);
        float number = (sum / 65536.0f - 2.0f) * 1.7320508f;
        uint32_t bits;
        memcpy(&bits, &number, sizeof bits);
        pool[i] = (uint16_t)(bits >> 16);
    }
}

static struct gpu_attention make_attention(const struct shape *s) {
    int64_t q_cols = s->n_heads * s->width;
    int64_t kv_cols = s->n_kv_heads * s->width;
    struct gpu_matrix q = { device_pool, GPU_BF16, s->n_rows, q_cols, POOL_COLS };
    struct gpu_matrix k = { device_pool + q_cols, GPU_BF16, s->n_rows, kv_cols, POOL_COLS };
    struct gpu_matrix v = { device_pool + q_cols + kv_cols, GPU_BF16, s->n_rows, kv_cols, POOL_COLS };
    struct gpu_matrix out = { device_result, GPU_BF16, s->n_rows, q_cols, OUT_COLS };
    return (struct gpu_attention){ .q = q,
                                   .k = k,
                                   .v = v,
                                   .out = out,
                                   .n_heads = s->n_heads,
                                   .n_kv_heads = s->n_kv_heads,
                                   .n_keys = s->n_keys,
                                   .is_causal = s->is_causal,
                                   .scale = 1.0f / sqrtf((float)s->width) };
}

static int64_t count_keys(const struct shape *s, int64_t row) {
    return s->is_causal && row + 1 < s->n_keys ? row + 1 : s->n_keys;
}

/* Two products of 2 · width operations each for every pair of row and key that is seen. */
static double count_operations(const struct shape *s) {
    double n_pairs = 0.0;
    for (int64_t row = 0; row < s->n_rows; row++) {
        n_pairs += (double)count_keys(s, row);
    }
    return 4.0 * n_pairs * (double)(s->width * s->n_heads);
}

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a;
    float y = *(const float *)b;
    return (x > y) - (x < y);
}

static float measure_ms(const struct gpu_attention *attention, enum attention_tiling tiling) {
    cudaEvent_t start;
    cudaEvent_t end;
    float times[N_RUNS];
    check(cudaEventCreate(&start), "an event");
    check(cudaEventCreate(&end), "an event");
    for (int i = -N_WARM_UP; i < N_RUNS; i++) {
        check(cudaEventRecord(start, NULL), "an event");
        attention_run_tiling(attention, tiling, NULL);
        check(cudaEventRecord(end, NULL), "an event");
        check(cudaEventSynchronize(end), "attention");
        check(cudaGetLastError(), "attention");
        if (i >= 0) {
            check(cudaEventElapsedTime(&times[i], start, end), "an event");
        }
    }
    check(cudaEventDestroy(start), "an event");
    check(cudaEventDestroy(end), "an event");
    qsort(times, N_RUNS, sizeof *times, compare_floats);
    return times[N_RUNS / 2];
}

/* Adds the squares of error and signal of one row of one head. */
static void add_error(const struct shape *s, float scale, int64_t row, int64_t head, double *error, double *signal) {
    static double weights[POOL_ROWS];
    int64_t n = count_keys(s, row);
    int64_t k_first = (s->n_heads + head / (s->n_heads / s->n_kv_heads)) * s->width;
    int64_t v_first = k_first + s->n_kv_heads * s->width;
    const uint16_t *q = pool + row * POOL_COLS + head * s->width;
    double total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double score = 0.0;
        for (int64_t j = 0; j < s->width; j++) {
            score += widen_bf16(q[j]) * widen_bf16(pool[i * POOL_COLS + k_first + j]);
        }
        weights[i] = exp(score * (double)scale);
        total += weights[i];
    }
    for (int64_t j = 0; j < s->width; j++) {
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            sum += weights[i] * widen_bf16(pool[i * POOL_COLS + v_first + j]);
        }
        double difference = widen_bf16(result[row * OUT_COLS + head * s->width + j]) - sum / total;
        *error += difference * difference;
        *signal += sum / total * sum / total;
    }
}

static double measure_nmse(const struct shape *s, float scale) {
    double error = 0.0;
    double signal = 0.0;
    check(cudaMemcpy(result, device_result, (size_t)POOL_ROWS * OUT_COLS * sizeof *result, cudaMemcpyDeviceToHost),
          "a copy");
    for (int i = 0; i < 8; i++) {
        add_error(s, scale, (s->n_rows - 1) * i / 7, (s->n_heads - 1) * (7 - i) / 7, &error, &signal);
    }
    return error / signal;
}

static void run_shape(const struct shape *s) {
    struct gpu_attention attention = make_attention(s);
    double n_operations = count_operations(s);
    if (!gpu_attention_fits(&attention)) {
        fprintf(stderr, "%s: does not fit\n", s->name);
        exit(1);
    }
    printf("%s: %d rows, %d keys%s, heads %d/%d of %d\n", s->name, (int)s->n_rows, (int)s->n_keys,
           s->is_causal ? ", causal" : "", (int)s->n_heads, (int)s->n_kv_heads, (int)s->width);
    for (int i = 0; i < ATTENTION_N_TILINGS; i++) {
        enum attention_tiling tiling = (enum attention_tiling)i;
        check(cudaMemset(device_result, 0xff, (size_t)POOL_ROWS * OUT_COLS * sizeof *result), "poison");
        float ms = measure_ms(&attention, tiling);
        double nmse = measure_nmse(s, attention.scale);
        printf("  %c %-9s %8.4f ms  %6.1f TFLOP/s  NMSE %.1e%s\n",
               tiling == attention_choose_tiling(&attention) ? '*' : ' ', tiling_names[i], (double)ms,
               n_operations / (double)ms * 1e-9, nmse, nmse <= 1e-5 ? "" : "  WRONG");
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    pool = malloc((size_t)POOL_ROWS * POOL_COLS * sizeof *pool);
    result = malloc((size_t)POOL_ROWS * OUT_COLS * sizeof *result);
    if (pool == NULL || result == NULL) {
        fprintf(stderr, "out of memory\n");
        return 1;
    }
    fill_pool();
    check(cudaMalloc((void **)&device_pool, (size_t)POOL_ROWS * POOL_COLS * sizeof *pool), "memory");
    check(cudaMalloc((void **)&device_result, (size_t)POOL_ROWS * OUT_COLS * sizeof *result), "memory");
    check(cudaMemcpy(device_pool, pool, (size_t)POOL_ROWS * POOL_COLS * sizeof *pool, cudaMemcpyHostToDevice),
          "a copy");
    for (int i = 0; i < N_SHAPES; i++) {
        bool is_wanted = argc == 1;
        for (int j = 1; j < argc; j++) {
            is_wanted = is_wanted || atoi(argv[j]) == i;
        }
        if (is_wanted) {
            run_shape(&shapes[i]);
        }
    }
    (void)cudaFree(device_pool);
    (void)cudaFree(device_result);
    free(pool);
    free(result);
    return 0;
}
