/* Kernels that test the fake device itself (test_kernels.cu), called from test_fake_device.c. */
#ifndef TEST_KERNELS_H
#define TEST_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y[i] = linear index of thread i: z, y, x of grid and block. */
void test_run_indices(unsigned *y, dim3 grid, dim3 block, cudaStream_t stream);
/* y[b] = sum of x[b · n … b · n + n), n threads a block. */
void test_run_block_sum(const float *x, float *y, int n_blocks, int n, cudaStream_t stream);
/* The same without the __syncthreads it needs. */
void test_run_racing_sum(const float *x, float *y, int n_blocks, int n, cudaStream_t stream);
/* A row a shuffle: xor 1, down 3, up 2 of width 8, broadcast of lane 5 → y[4, 32]. */
void test_run_shuffles(const int *x, int *y, cudaStream_t stream);
/* y[i] = how many threads of n had an odd number, told to every thread; those with i ≥ n_stay leave before. */
void test_run_votes(int *y, int n, int n_stay, cudaStream_t stream);
/* y[i] = 3 for every element of dynamic shared memory that is NaN at the start of a block, else 0. */
void test_run_shared(float *y, int n_blocks, int n, size_t shared_bytes, cudaStream_t stream);
void test_allow_shared(size_t shared_bytes);
void test_run_add(float *x, float value, int n, cudaStream_t stream);
/* Halves of a warp take other branches and meet again; y[32]. */
void test_run_diverging(int *y, cudaStream_t stream);

enum test_fault {
    FAULT_LONELY_BARRIER,  /* half of a warp waits for the block, the other for the warp */
    FAULT_READS_ABSENT,    /* a shuffle from a lane that does not take part */
    FAULT_MEETS_ELSEWHERE, /* lanes of a warp in different collectives */
    FAULT_NOT_IN_MASK,
    FAULT_BEYOND_SHARED, /* found by ASan */
    FAULT_BEYOND_BLOCK   /* found by ASan */
};
void test_run_fault(enum test_fault fault, float *x, cudaStream_t stream);

float test_round_bf16(float x);
float test_round_half(float x);
float test_round_fp8(float x, int is_e5m2);
float test_decode_fp8(uint8_t code, int is_e5m2);

#ifdef __cplusplus
}
#endif

#endif
