/* Fused attention (engine/backend/cuda/kernels/attention.cu) against the formula in double: every tiling, on the fake
 * device or a real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/kernels/attention.h"

/* ---- Numbers ---- */

static uint64_t random_state;

static void seed_random(uint64_t seed) {
    random_state = seed * 0x9e3779b97f4a7c15u + 1;
}

/* About normal: the sum of four uniform numbers, with variance 1. */
static double random_normal(void) {
    double sum = 0.0;
    for (int i = 0; i < 4; i++) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(random_state >> 40) / (1 << 24) - 0.5;
    }
    return sum * sqrt(3.0);
}

static uint16_t round_to_bf16(double x) {
    float number = (float)x;
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static double widen_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* ---- Matrices on the host with a twin on the device ---- */

enum { MARGIN_ROWS = 2, MARGIN_COLS = 16, POISON = 0xffab /* a not-a-number */ };

/* A view with poison around it: MARGIN_ROWS rows above and below, MARGIN_COLS columns on both sides. */
struct matrix {
    int64_t n_rows, n_cols, stride;
    size_t n_elements;
    uint16_t *host;
    void *device;
};

static void check_cuda(cudaError_t code) {
    if (code != cudaSuccess) {
        fail_msg("%s", cudaGetErrorString(code));
    }
}

static void init_matrix(struct matrix *m, int64_t n_rows, int64_t n_cols) {
    *m = (struct matrix){ .n_rows = n_rows, .n_cols = n_cols, .stride = n_cols + 2 * MARGIN_COLS };
    m->n_elements = (size_t)((n_rows + 2 * MARGIN_ROWS) * m->stride);
    m->host = malloc(m->n_elements * sizeof *m->host);
    assert_non_null(m->host);
    for (size_t i = 0; i < m->n_elements; i++) {
        m->host[i] = POISON;
    }
    check_cuda(cudaMalloc(&m->device, m->n_elements * sizeof *m->host));
}

static void done_matrix(struct matrix *m) {
    free(m->host);
    check_cuda(cudaFree(m->device));
}

static int64_t first_element(const struct matrix *m) {
    return MARGIN_ROWS * m->stride + MARGIN_COLS;
}

static uint16_t *at(const struct matrix *m, int64_t row, int64_t col) {
    return m->host + first_element(m) + row * m->stride + col;
}

static void upload(const struct matrix *m) {
    check_cuda(cudaMemcpy(m->device, m->host, m->n_elements * sizeof *m->host, cudaMemcpyHostToDevice));
}

static void download(const struct matrix *m) {
    check_cuda(cudaMemcpy(m->host, m->device, m->n_elements * sizeof *m->host, cudaMemcpyDeviceToHost));
}

/* Columns first_col … of the view. */
static struct gpu_matrix columns(const struct matrix *m, int64_t first_col, int64_t n_cols) {
    return (struct gpu_matrix){ .data = (uint16_t *)m->device + first_element(m) + first_col,
                                .type = GPU_BF16,
                                .n_rows = m->n_rows,
                                .n_cols = n_cols,
                                .row_stride = m->stride };
}

/* ---- A problem: q, k and v are columns of one wide matrix, out is a view of another ---- */

enum scores { SCORES_PLAIN, SCORES_RISING, SCORES_HUGE };

struct problem {
    int64_t n_rows, n_key_rows, n_keys;
    int64_t n_heads, n_kv_heads, width;
    bool is_causal;
    enum scores scores;
};

struct setting {
    struct problem problem;
    struct matrix qkv, out;
    int64_t k_first, v_first; /* columns of qkv */
    struct gpu_attention attention;
};

/* Values only where attention may look: the first n_rows rows of q, the first n_keys rows of k and v. */
static void fill(struct setting *s) {
    const struct problem *p = &s->problem;
    double spread = p->scores == SCORES_HUGE ? 4.7 : 1.0; /* scores have the deviation spread²: up to ±80 */
    for (int64_t i = 0; i < p->n_rows; i++) {
        for (int64_t j = 0; j < s->k_first; j++) {
            *at(&s->qkv, i, j) = round_to_bf16(random_normal() * spread + (p->scores == SCORES_RISING ? 0.5 : 0.0));
        }
    }
    for (int64_t i = 0; i < p->n_keys; i++) {
        double rise = p->scores == SCORES_RISING ? 4.0 * (double)(i + 1) / (double)p->n_keys : 0.0;
        for (int64_t j = 0; j < p->n_kv_heads * p->width; j++) {
            *at(&s->qkv, i, s->k_first + j) = round_to_bf16(random_normal() * spread + rise);
            *at(&s->qkv, i, s->v_first + j) = round_to_bf16(random_normal() + 0.25);
        }
    }
}

static void init_setting(struct setting *s, const struct problem *p) {
    int64_t n_rows = p->n_rows > p->n_key_rows ? p->n_rows : p->n_key_rows;
    *s = (struct setting){ .problem = *p };
    s->k_first = p->n_heads * p->width;
    s->v_first = s->k_first + p->n_kv_heads * p->width;
    init_matrix(&s->qkv, n_rows, s->v_first + p->n_kv_heads * p->width);
    init_matrix(&s->out, p->n_rows, p->n_heads * p->width);
    fill(s);
    upload(&s->qkv);
    upload(&s->out);
    s->attention = (struct gpu_attention){ .q = columns(&s->qkv, 0, s->k_first),
                                           .k = columns(&s->qkv, s->k_first, p->n_kv_heads * p->width),
                                           .v = columns(&s->qkv, s->v_first, p->n_kv_heads * p->width),
                                           .out = columns(&s->out, 0, p->n_heads * p->width),
                                           .n_heads = p->n_heads,
                                           .n_kv_heads = p->n_kv_heads,
                                           .n_keys = p->n_keys,
                                           .is_causal = p->is_causal,
                                           .scale = 1.0f / sqrtf((float)p->width) };
    s->attention.q.n_rows = p->n_rows;
    s->attention.k.n_rows = p->n_key_rows;
    s->attention.v.n_rows = p->n_key_rows;
}

static void done_setting(struct setting *s) {
    done_matrix(&s->qkv);
    done_matrix(&s->out);
}

/* One row of one head: ret_mean its result, ret_magnitude the same of |v|. scratch [n_keys]. */
static void expect_row(const struct setting *s, int64_t row, int64_t head, double *scratch, double *ret_mean,
                       double *ret_magnitude) {
    const struct problem *p = &s->problem;
    int64_t kv_first = head / (p->n_heads / p->n_kv_heads) * p->width;
    int64_t n = p->is_causal && row + 1 < p->n_keys ? row + 1 : p->n_keys;
    double largest = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        scratch[i] = 0.0;
        for (int64_t j = 0; j < p->width; j++) {
            scratch[i] += widen_bf16(*at(&s->qkv, row, head * p->width + j)) *
                          widen_bf16(*at(&s->qkv, i, s->k_first + kv_first + j));
        }
        scratch[i] *= (double)s->attention.scale;
        largest = fmax(largest, scratch[i]);
    }
    double total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        scratch[i] = exp(scratch[i] - largest);
        total += scratch[i];
    }
    for (int64_t j = 0; j < p->width; j++) {
        ret_mean[j] = ret_magnitude[j] = 0.0;
        for (int64_t i = 0; i < n; i++) {
            double v = widen_bf16(*at(&s->qkv, i, s->v_first + kv_first + j));
            ret_mean[j] += scratch[i] / total * v;
            ret_magnitude[j] += scratch[i] / total * fabs(v);
        }
    }
}

/* Probabilities and results are rounded to BF16, each to half of 2^-8 of itself: so the bound a number, and the NMSE of
 * all. */
static void check_values(const struct setting *s, const char *name) {
    const struct problem *p = &s->problem;
    double *scratch = malloc((size_t)p->n_keys * sizeof *scratch);
    double mean[128];
    double magnitude[128];
    double error = 0.0;
    double signal = 0.0;
    assert_non_null(scratch);
    for (int64_t i = 0; i < p->n_rows * p->n_heads; i++) {
        int64_t row = i / p->n_heads;
        int64_t head = i % p->n_heads;
        expect_row(s, row, head, scratch, mean, magnitude);
        for (int64_t j = 0; j < p->width; j++) {
            double difference = widen_bf16(*at(&s->out, row, head * p->width + j)) - mean[j];
            if (!(fabs(difference) <= magnitude[j] / 96.0)) {
                fail_msg("%s: row %d, head %d, column %d: %g more than %g", name, (int)row, (int)head, (int)j,
                         difference, mean[j]);
            }
            error += difference * difference;
            signal += mean[j] * mean[j];
        }
    }
    if (!(error <= 1e-5 * signal)) {
        fail_msg("%s: NMSE %g", name, error / signal);
    }
    free(scratch);
}

static void check_margins(const struct matrix *m, const char *name) {
    for (size_t i = 0; i < m->n_elements; i++) {
        int64_t row = (int64_t)i / m->stride - MARGIN_ROWS;
        int64_t col = (int64_t)i % m->stride - MARGIN_COLS;
        bool is_inside = row >= 0 && row < m->n_rows && col >= 0 && col < m->n_cols;
        if (!is_inside && m->host[i] != POISON) {
            fail_msg("%s: row %d, column %d, outside of the result, was written", name, (int)row, (int)col);
        }
    }
}

/* tiling ATTENTION_N_TILINGS: the one that the launcher chooses. */
static void check_tiling(const struct problem *p, enum attention_tiling tiling) {
    char name[160];
    struct setting s;
    snprintf(name, sizeof name, "tiling %d, rows %d, keys %d of %d, heads %d/%d of %d%s", (int)tiling, (int)p->n_rows,
             (int)p->n_keys, (int)p->n_key_rows, (int)p->n_heads, (int)p->n_kv_heads, (int)p->width,
             p->is_causal ? ", causal" : "");
    init_setting(&s, p);
    assert_true(gpu_attention_fits(&s.attention));
    if (tiling == ATTENTION_N_TILINGS) {
        gpu_attention_run(&s.attention, NULL);
    } else {
        attention_run_tiling(&s.attention, tiling, NULL);
    }
    check_cuda(cudaGetLastError());
    check_cuda(cudaDeviceSynchronize());
    download(&s.out);
    check_values(&s, name);
    check_margins(&s.out, name);
    done_setting(&s);
}

static void check_problem(const struct problem *p) {
    for (int tiling = 0; tiling <= ATTENTION_N_TILINGS; tiling++) {
        check_tiling(p, (enum attention_tiling)tiling);
    }
}

static void check_problems(const struct problem *problems, size_t n_problems) {
    int n_devices = 0;
    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || n_devices == 0) {
        skip();
    }
    seed_random(1);
    for (size_t i = 0; i < n_problems; i++) {
        check_problem(&problems[i]);
    }
}

/* ---- Tests ---- */

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void attention_matches_formula_for_any_number_of_rows(void **state) {
    (void)state;
    static const struct problem problems[] = {
        { 1, 1, 1, 1, 1, 128, false, SCORES_PLAIN },     { 2, 2, 2, 1, 1, 64, false, SCORES_PLAIN },
        { 15, 15, 15, 2, 2, 128, false, SCORES_PLAIN },  { 17, 40, 40, 1, 1, 64, false, SCORES_PLAIN },
        { 63, 63, 63, 1, 1, 128, false, SCORES_PLAIN },  { 65, 64, 64, 1, 1, 128, false, SCORES_PLAIN },
        { 127, 96, 96, 1, 1, 64, false, SCORES_PLAIN },  { 128, 128, 128, 1, 1, 128, false, SCORES_PLAIN },
        { 129, 70, 70, 1, 1, 128, false, SCORES_PLAIN }, { 300, 300, 300, 1, 1, 128, false, SCORES_PLAIN },
        { 257, 190, 190, 2, 2, 64, false, SCORES_PLAIN }
    };
    check_problems(problems, COUNT(problems));
}

static void attention_never_sees_keys_beyond_n_keys(void **state) {
    (void)state;
    static const struct problem problems[] = {
        { 5, 130, 1, 1, 1, 128, false, SCORES_PLAIN },   { 5, 130, 31, 1, 1, 128, false, SCORES_PLAIN },
        { 5, 130, 32, 1, 1, 64, false, SCORES_PLAIN },   { 5, 130, 33, 1, 1, 128, false, SCORES_PLAIN },
        { 20, 130, 63, 1, 1, 128, false, SCORES_PLAIN }, { 20, 130, 64, 1, 1, 128, false, SCORES_PLAIN },
        { 20, 130, 65, 1, 1, 128, false, SCORES_PLAIN }, { 20, 130, 127, 1, 1, 64, false, SCORES_PLAIN },
        { 5, 200, 128, 1, 1, 64, false, SCORES_PLAIN },  { 5, 200, 129, 1, 1, 128, false, SCORES_PLAIN }
    };
    check_problems(problems, COUNT(problems));
}

static void attention_causal_rows_see_themselves_and_before(void **state) {
    (void)state;
    static const struct problem problems[] = {
        { 1, 1, 1, 2, 1, 128, true, SCORES_PLAIN },       { 33, 33, 33, 1, 1, 64, true, SCORES_PLAIN },
        { 64, 64, 64, 1, 1, 128, true, SCORES_PLAIN },    { 130, 130, 130, 1, 1, 128, true, SCORES_PLAIN },
        { 200, 200, 200, 1, 1, 64, true, SCORES_PLAIN },  { 150, 150, 1, 1, 1, 128, true, SCORES_PLAIN },
        { 150, 150, 64, 1, 1, 128, true, SCORES_PLAIN },  { 150, 150, 65, 1, 1, 128, true, SCORES_PLAIN },
        { 260, 260, 140, 1, 1, 128, true, SCORES_PLAIN }, { 160, 160, 160, 1, 1, 128, true, SCORES_RISING }
    };
    check_problems(problems, COUNT(problems));
}

static void attention_heads_share_keys_in_groups(void **state) {
    (void)state;
    static const struct problem problems[] = { { 20, 20, 20, 4, 1, 128, false, SCORES_PLAIN },
                                               { 70, 70, 50, 4, 2, 128, true, SCORES_PLAIN },
                                               { 40, 40, 40, 6, 3, 64, false, SCORES_PLAIN },
                                               { 10, 10, 10, 8, 8, 64, true, SCORES_PLAIN } };
    check_problems(problems, COUNT(problems));
}

static void attention_is_exact_for_huge_and_rising_scores(void **state) {
    (void)state;
    static const struct problem problems[] = { { 40, 200, 200, 1, 1, 128, false, SCORES_HUGE },
                                               { 140, 140, 140, 1, 1, 64, true, SCORES_HUGE },
                                               { 40, 300, 290, 1, 1, 128, false, SCORES_RISING },
                                               { 40, 300, 290, 1, 1, 64, false, SCORES_RISING } };
    check_problems(problems, COUNT(problems));
}

/* Device memory is not touched: any aligned address will do. */
static struct gpu_attention make_fitting(void *data) {
    struct gpu_matrix q = { data, GPU_BF16, 10, 4 * 128, 4 * 128 };
    struct gpu_matrix kv = { data, GPU_BF16, 12, 2 * 128, 6 * 128 };
    return (struct gpu_attention){
        .q = q, .k = kv, .v = kv, .out = q, .n_heads = 4, .n_kv_heads = 2, .n_keys = 12, .scale = 0.1f
    };
}

static void attention_fits_says_what_the_kernel_can_do(void **state) {
    (void)state;
    static _Alignas(16) unsigned char data[32];
    struct gpu_attention a = make_fitting(data);
    assert_true(gpu_attention_fits(&a));
    a.k.data = data + 8;
    assert_false(gpu_attention_fits(&a));
    a = make_fitting(data);
    a.out.row_stride += 4;
    assert_false(gpu_attention_fits(&a));
    a = make_fitting(data);
    a.v.type = GPU_F32;
    assert_false(gpu_attention_fits(&a));
    a = make_fitting(data);
    a.q.n_cols = a.out.n_cols = 4 * 96;
    a.k.n_cols = a.v.n_cols = 2 * 96;
    assert_false(gpu_attention_fits(&a));
    a = make_fitting(data);
    a.n_kv_heads = 3;
    assert_false(gpu_attention_fits(&a));
    a = make_fitting(data);
    a.n_keys = 13;
    assert_false(gpu_attention_fits(&a));
    a.n_keys = 0;
    assert_false(gpu_attention_fits(&a));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_matches_formula_for_any_number_of_rows),
        cmocka_unit_test(attention_never_sees_keys_beyond_n_keys),
        cmocka_unit_test(attention_causal_rows_see_themselves_and_before),
        cmocka_unit_test(attention_heads_share_keys_in_groups),
        cmocka_unit_test(attention_is_exact_for_huge_and_rising_scores),
        cmocka_unit_test(attention_fits_says_what_the_kernel_can_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
