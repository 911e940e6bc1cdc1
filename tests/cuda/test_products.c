/* Products with 8-bit codes on the fake device: whatever the library can do of them in one call, the result is near that of exact
 * numbers, and codes that a norm wrote give what codes made for the product give. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "fake_cuda.h"
#include "ops/ops.h"

#define M 37
#define N 48
#define K 64

const struct backend_kind *cyberimage_backend(int abi);

struct setting {
    enum backend_products products;
    enum fake_gemm_limits limits;
    int compute;
    bool has_gate, has_residual, has_bias;
    enum activation act;
    enum dtype y_dtype;
    bool has_norm; /* x comes out of a norm, which writes the codes */
};

struct numbers {
    float x[M * K], w[N * K], gate[N], bias[N], residual[M * N], ones[K];
    uint16_t w_bf16[N * K];
};

static uint32_t random_state;

static float next_random(void) {
    random_state = random_state * 1664525U + 1013904223U;
    return (float)(random_state >> 8) / (float)(1U << 23) - 1.0F;
}

static void fill(float *values, int n) {
    for (int i = 0; i < n; i++) {
        values[i] = float_from_bf16(float_to_bf16(next_random()));
    }
}

static void make_numbers(struct numbers *n) {
    fill(n->x, M * K);
    fill(n->w, N * K);
    fill(n->gate, N);
    fill(n->bias, N);
    fill(n->residual, M * N);
    for (int i = 0; i < N * K; i++) {
        n->w_bf16[i] = float_to_bf16(n->w[i]);
    }
    for (int i = 0; i < K; i++) {
        n->ones[i] = 1.0F;
    }
}

static void expect(const struct numbers *n, const struct setting *s, double *ret) {
    for (int i = 0; i < M; i++) {
        double power = 0.0;
        for (int k = 0; k < K; k++) {
            power += (double)n->x[i * K + k] * (double)n->x[i * K + k];
        }
        double factor = s->has_norm ? 1.0 / sqrt(power / K) : 1.0;
        for (int j = 0; j < N; j++) {
            double sum = s->has_bias ? (double)n->bias[j] : 0.0;
            for (int k = 0; k < K; k++) {
                sum += factor * (double)n->x[i * K + k] * (double)n->w[j * K + k];
            }
            sum = s->act == ACT_SILU ? sum / (1.0 + exp(-sum)) : sum;
            sum *= s->has_gate ? (double)n->gate[j] : 1.0;
            ret[i * N + j] = sum + (s->has_residual ? (double)n->residual[i * N + j] : 0.0);
        }
    }
}

/* x, of the type of the transformers' activations, and y on the device. */
static enum cyi_status compute(struct exec *ex, const struct setting *s, struct numbers *n, float *ret,
                               struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct tensor host_x = tensor_2d(DTYPE_F32, M, K, n->x);
    struct tensor host_gate = tensor_1d(DTYPE_F32, N, n->gate);
    struct tensor host_residual = tensor_2d(DTYPE_F32, M, N, n->residual);
    struct tensor host_y = tensor_2d(DTYPE_F32, M, N, ret);
    struct tensor weight = tensor_2d(DTYPE_BF16, N, K, n->w_bf16);
    struct tensor bias = tensor_1d(DTYPE_F32, N, n->bias);
    struct tensor ones = tensor_1d(DTYPE_F32, K, n->ones);
    struct tensor wide_x;
    struct tensor x;
    struct tensor y;
    struct tensor gate;
    struct tensor residual;
    struct tensor wide_y;
    TRY(exec_send(ex, &host_x, &wide_x, err));
    TRY(exec_send(ex, &host_gate, &gate, err));
    TRY(exec_send(ex, &host_residual, &residual, err));
    TRY(exec_new_2d(ex, DTYPE_BF16, M, K, &x, err));
    TRY(exec_new_2d(ex, s->y_dtype, M, N, &y, err));
    TRY(exec_new_2d(ex, DTYPE_F32, M, N, &wide_y, err));
    if (s->has_norm) {
        TRY(op_rms_norm(ex, &(struct rms_norm_args){ .x = &wide_x, .weight = &ones, .eps = 1e-6F, .y = &x }, err));
    } else {
        TRY(op_cast(ex, &(struct cast_args){ .x = &wide_x, .y = &x }, err));
    }
    TRY(op_cast(ex, &(struct cast_args){ .x = &residual, .y = &y }, err));
    TRY(op_linear(ex,
                  &(struct linear_args){ .x = &x,
                                         .weight = &weight,
                                         .bias = s->has_bias ? &bias : NULL,
                                         .gate = s->has_gate ? &gate : NULL,
                                         .residual = s->has_residual ? &y : NULL,
                                         .act = s->act,
                                         .is_tolerant = true,
                                         .y = &y },
                  err));
    TRY(op_cast(ex, &(struct cast_args){ .x = &y, .y = &wide_y }, err));
    TRY(exec_receive(ex, &wide_y, &host_y, err));
done:
    return st;
}

static void check(const struct setting *s) {
    static struct numbers n;
    static float found[M * N];
    static double expected[M * N];
    struct cyi_error err = { 0 };
    struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = 1, .products = s->products };
    struct exec ex = { .allocator = &mem_default_allocator, .act_dtype = DTYPE_BF16 };
    fake_cuda_reset();
    fake_cuda_set_compute(s->compute);
    fake_cuda_limit_gemm(s->limits);
    make_numbers(&n);
    expect(&n, s, expected);
    assert_int_equal(cyberimage_backend(BACKEND_ABI)->create(&options, &ex.backend, &err), CYI_OK);
    assert_int_equal(arena_create(ex.allocator, &ex.arena, &err), CYI_OK);
    assert_int_equal(
        arena_create_over(ex.allocator, ex.backend->vtable->device->get_memory(ex.backend), &ex.device, &err), CYI_OK);
    if (compute(&ex, s, &n, found, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    arena_free(ex.device);
    arena_free(ex.arena);
    backend_free(ex.backend);
    double error = 0.0;
    double power = 0.0;
    for (int i = 0; i < M * N; i++) {
        error += pow((double)found[i] - expected[i], 2.0);
        power += pow(expected[i], 2.0);
    }
    /* Codes of 4 bits of mantissa are off by 2^-5 · 1/√3 of their size, of both sides; 8-bit whole numbers by far less. */
    double limit = s->products == BACKEND_PRODUCTS_FP8 ? 2e-3 : s->products == BACKEND_PRODUCTS_INT8 ? 3e-4 : 2e-5;
    if (!(error <= limit * power)) {
        fail_msg("nmse %.3g, limit %.3g", error / power, limit);
    }
    /* And they are codes: exact numbers would be nearer. Where the library refuses them, they are not. */
    bool has_codes = s->products != BACKEND_PRODUCTS_PLAIN && s->limits != FAKE_GEMM_NONE;
    assert_int_equal(error > 1.2e-5 * power, has_codes);
}

static void products_are_near_by_every_way(void **state) {
    (void)state;
    random_state = 1;
    for (int i = 0; i < 3 * 3 * 2 * 32; i++) {
        struct setting s = { .products = (enum backend_products)(i % 3),
                             .limits = (enum fake_gemm_limits)(i / 3 % 3),
                             .compute = i / 9 % 2 == 0 ? 90 : 89,
                             .has_gate = (i / 18 & 1) != 0,
                             .has_residual = (i / 18 & 2) != 0,
                             .has_bias = (i / 18 & 4) != 0,
                             .act = (i / 18 & 8) != 0 ? ACT_SILU : ACT_NONE,
                             .y_dtype = (i / 18 & 16) != 0 ? DTYPE_F32 : DTYPE_BF16 };
        check(&s);
    }
}

static void codes_of_norms_are_used(void **state) {
    (void)state;
    random_state = 2;
    for (int i = 0; i < 6; i++) {
        struct setting s = { .products = (enum backend_products)(i % 3),
                             .limits = FAKE_GEMM_ALL,
                             .compute = 90,
                             .y_dtype = i / 3 == 0 ? DTYPE_F32 : DTYPE_BF16,
                             .has_norm = true };
        check(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_near_by_every_way),
        cmocka_unit_test(codes_of_norms_are_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
