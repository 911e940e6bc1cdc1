/* The fake device runs kernels as CUDA words them, and ends the program where the hardware would do anything at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/dtype.h"
#include "fake_cuda.h"
#include "test_kernels.h"

static cudaStream_t stream;

static int setup(void **state) {
    (void)state;
    fake_cuda_reset();
    return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    return cudaStreamDestroy(stream) == cudaSuccess && fake_cuda_get_n_held() == 0 ? 0 : -1;
}

static void *new_block(size_t size_bytes) {
    void *block = NULL;
    assert_int_equal(cudaMalloc(&block, size_bytes), cudaSuccess);
    return block;
}

static void get(void *to, const void *from, size_t size_bytes) {
    assert_int_equal(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
}

static void put(void *to, const void *from, size_t size_bytes) {
    assert_int_equal(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyHostToDevice, stream), cudaSuccess);
}

static void every_thread_of_a_grid_runs_once(void **state) {
    (void)state;
    static unsigned host[2 * 3 * 2 * 5 * 7 * 3];
    size_t n = sizeof host / sizeof host[0];
    unsigned *y = new_block(sizeof host);
    test_run_indices(y, (dim3){ 2, 3, 2 }, (dim3){ 5, 7, 3 }, stream);
    get(host, y, sizeof host);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(host[i], i);
    }
    assert_int_equal(cudaFree(y), cudaSuccess);
}

static void blocks_and_warps_can_sum(void **state) {
    (void)state;
    for (int n = 32; n <= 1024; n *= 2) {
        static float host[3 * 1024];
        float sums[3] = { 0 };
        float *x = new_block(sizeof host);
        float *y = new_block(sizeof sums);
        for (int i = 0; i < 3 * n; i++) {
            host[i] = (float)(i % 17);
            sums[i / n] += host[i];
        }
        float results[3];
        put(x, host, sizeof host);
        test_run_block_sum(x, y, 3, n, stream);
        get(results, y, sizeof results);
        assert_memory_equal(results, sums, sizeof sums);
        assert_int_equal(cudaFree(x), cudaSuccess);
        assert_int_equal(cudaFree(y), cudaSuccess);
    }
}

/* Blocks run forwards and backwards, so one of two shows it. */
static void a_missing_barrier_gives_wrong_sums(void **state) {
    (void)state;
    static float host[2 * 256];
    for (int i = 0; i < 512; i++) {
        host[i] = i < 256 ? 1.0F : 2.0F;
    }
    float results[2];
    float *x = new_block(sizeof host);
    float *y = new_block(sizeof results);
    put(x, host, sizeof host);
    test_run_racing_sum(x, y, 2, 256, stream);
    get(results, y, sizeof results);
    assert_false(results[0] == 256.0F && results[1] == 512.0F);
    assert_int_equal(cudaFree(x), cudaSuccess);
    assert_int_equal(cudaFree(y), cudaSuccess);
}

static void shuffles_read_the_lanes_they_name(void **state) {
    (void)state;
    int host[32];
    int results[4][32];
    for (int i = 0; i < 32; i++) {
        host[i] = i * i;
    }
    int *x = new_block(sizeof host);
    int *y = new_block(sizeof results);
    put(x, host, sizeof host);
    test_run_shuffles(x, y, stream);
    get(results, y, sizeof results);
    for (int i = 0; i < 32; i++) {
        assert_int_equal(results[0][i], host[i ^ 1]);
        assert_int_equal(results[1][i], host[i + 3 < 32 ? i + 3 : i]);
        assert_int_equal(results[2][i], host[i % 8 >= 2 ? i - 2 : i]);
        assert_int_equal(results[3][i], host[5]);
    }
    test_run_diverging(y, stream);
    get(results, y, sizeof results[0]);
    for (int i = 0; i < 32; i++) {
        assert_int_equal(results[0][i], 3 + 131);
    }
    assert_int_equal(cudaFree(x), cudaSuccess);
    assert_int_equal(cudaFree(y), cudaSuccess);
}

static void barriers_wait_for_those_who_stay(void **state) {
    (void)state;
    int results[100];
    int *y = new_block(sizeof results);
    for (int n_stay = 1; n_stay <= 100; n_stay += 33) {
        test_run_votes(y, 100, n_stay, stream);
        get(results, y, (size_t)n_stay * sizeof(int));
        for (int i = 0; i < n_stay; i++) {
            assert_int_equal(results[i], n_stay / 2);
        }
    }
    assert_int_equal(cudaFree(y), cudaSuccess);
}

static void dynamic_shared_memory_is_nan_for_every_block(void **state) {
    (void)state;
    enum { N = 60 * 1024 / 4 };
    static float host[2 * N];
    float *y = new_block(sizeof host);
    test_run_shared(y, 2, N, N * sizeof(float), stream);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue); /* more than 48 KiB has to be allowed */
    test_allow_shared(N * sizeof(float));
    test_run_shared(y, 2, N, N * sizeof(float), stream);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    get(host, y, sizeof host);
    for (int i = 0; i < 2 * N; i++) {
        assert_true(host[i] == 3.0F);
    }
    test_allow_shared((size_t)300 * 1024);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    assert_int_equal(cudaFree(y), cudaSuccess);
}

static void bad_launches_are_the_last_error(void **state) {
    (void)state;
    unsigned *y = new_block(16384);
    const dim3 grids[] = { { 0, 1, 1 }, { 1, 65536, 1 }, { 1, 1, 70000 }, { 1, 1, 1 }, { 1, 1, 1 } };
    const dim3 blocks[] = { { 1, 1, 1 }, { 1, 1, 1 }, { 1, 1, 1 }, { 1025, 1, 1 }, { 32, 33, 1 } };
    for (int i = 0; i < 5; i++) {
        test_run_indices(y, grids[i], blocks[i], stream);
        assert_int_equal(cudaPeekAtLastError(), cudaErrorInvalidConfiguration);
        assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
        assert_int_equal(cudaGetLastError(), cudaSuccess);
    }
    assert_int_equal(cudaFree(y), cudaSuccess);
}

static void conversions_round_as_the_hardware(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 200000; i++) {
        float x = float_from_bits(i * 21474U + 13U);
        if (isnan(x)) {
            continue;
        }
        float expected = float_from_bf16(float_to_bf16(x));
        assert_true(test_round_bf16(x) == expected);
    }
    for (uint32_t i = 0; i < 65536; i++) {
        float x = float_from_f16((uint16_t)i);
        assert_true(isnan(x) ? isnan(test_round_half(x)) : test_round_half(x) == x);
    }
    assert_true(test_round_half(65519.0F) == 65504.0F && isinf(test_round_half(65520.0F)));
    assert_true(test_round_half(1.0F + 1.0F / 2048.0F) == 1.0F &&
                test_round_half(1.0F + 3.0F / 2048.0F) == 1.0F + 2.0F / 1024.0F);
    for (int i = 0; i < 256; i++) {
        float e4m3 = float_from_e4m3((uint8_t)i);
        float e5m2 = float_from_e5m2((uint8_t)i);
        assert_true(isnan(e4m3) ? isnan(test_decode_fp8((uint8_t)i, 0)) : test_decode_fp8((uint8_t)i, 0) == e4m3);
        assert_true(isnan(e5m2) ? isnan(test_decode_fp8((uint8_t)i, 1)) : test_decode_fp8((uint8_t)i, 1) == e5m2);
        assert_true(isnan(e4m3) || test_round_fp8(e4m3, 0) == e4m3);
        assert_true(isnan(e5m2) || isinf(e5m2) || test_round_fp8(e5m2, 1) == e5m2);
        /* between two neighbours: to the even code */
        float next = float_from_e4m3((uint8_t)(i + 1));
        if (i < 126) {
            assert_true(test_round_fp8((e4m3 + next) / 2.0F, 0) == (i % 2 == 0 ? e4m3 : next));
            assert_true(test_round_fp8(-(e4m3 + next) / 2.0F, 0) == -(i % 2 == 0 ? e4m3 : next));
        }
    }
    assert_true(test_round_fp8(1e9F, 0) == 448.0F && test_round_fp8(-INFINITY, 0) == -448.0F &&
                isnan(test_round_fp8(NAN, 0)));
}

/* Does it end the program? Asked in a child, which says nothing. */
static bool dies(void (*do_it)(int argument), int argument) {
    pid_t child = fork();
    if (child == 0) {
        (void)signal(SIGSEGV, SIG_DFL); /* cmocka would report it */
        (void)signal(SIGABRT, SIG_DFL);
        (void)close(STDERR_FILENO);
        do_it(argument);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status != 0;
}

static void run_fault(int fault) {
    test_run_fault((enum test_fault)fault, new_block(32 * sizeof(float)), stream);
}

static void run_nothing(int unused) {
    (void)unused;
}

static void touch_device_memory(int unused) {
    (void)unused;
    volatile float *x = new_block(64);
    x[0] = 1.0F;
}

static void give_a_kernel_host_memory(int unused) {
    (void)unused;
    float on_host[4] = { 0 };
    test_run_add(on_host, 1.0F, 4, stream);
}

static void free_twice(int unused) {
    (void)unused;
    void *x = new_block(64);
    (void)cudaFreeAsync(x, stream);
    (void)cudaFreeAsync(x, stream);
}

static void what_the_hardware_leaves_open_ends_the_program(void **state) {
    (void)state;
    assert_true(dies(run_fault, FAULT_LONELY_BARRIER));
    assert_true(dies(run_fault, FAULT_READS_ABSENT));
    assert_true(dies(run_fault, FAULT_MEETS_ELSEWHERE));
    assert_true(dies(run_fault, FAULT_NOT_IN_MASK));
#ifdef __SANITIZE_ADDRESS__
    assert_true(dies(run_fault, FAULT_BEYOND_SHARED));
    assert_true(dies(run_fault, FAULT_BEYOND_BLOCK));
#endif
}

static void host_and_device_do_not_touch_each_others_memory(void **state) {
    (void)state;
    assert_false(dies(run_nothing, 0));
    assert_true(dies(touch_device_memory, 0));
    assert_true(dies(give_a_kernel_host_memory, 0));
    assert_true(dies(free_twice, 0));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_thread_of_a_grid_runs_once),
        TEST(blocks_and_warps_can_sum),
        TEST(a_missing_barrier_gives_wrong_sums),
        TEST(shuffles_read_the_lanes_they_name),
        TEST(barriers_wait_for_those_who_stay),
        TEST(dynamic_shared_memory_is_nan_for_every_block),
        TEST(bad_launches_are_the_last_error),
        TEST(conversions_round_as_the_hardware),
        TEST(what_the_hardware_leaves_open_ends_the_program),
        TEST(host_and_device_do_not_touch_each_others_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
