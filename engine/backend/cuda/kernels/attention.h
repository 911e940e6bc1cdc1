/* Inside of attention.cu, for its tests and its bench: the tilings that gpu_attention_run chooses from. Each gives the
 * same results up to the order of sums. */
#ifndef BACKEND_CUDA_KERNELS_ATTENTION_H
#define BACKEND_CUDA_KERNELS_ATTENTION_H

#include "backend/cuda/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of q a block, keys a step, steps whose keys and values shared memory holds. */
enum attention_tiling {
    ATTENTION_128_64_2, /* 96 KiB a block at head width 128: two blocks a multiprocessor that has 228 KiB (9.0, 10.0) */
    ATTENTION_128_64_1, /* 64 KiB: two blocks where it has 164 KiB (8.0) */
    ATTENTION_128_32_1, /* 48 KiB: two blocks where it has 100 KiB (8.6, 8.9, 12.0) */
    ATTENTION_64_64_1,  /* 48 KiB: when there are few rows and heads, twice the blocks */
    ATTENTION_N_TILINGS
};

/* What gpu_attention_run takes on the current device. */
enum attention_tiling attention_choose_tiling(const struct gpu_attention *attention);
void attention_run_tiling(const struct gpu_attention *attention, enum attention_tiling tiling, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
