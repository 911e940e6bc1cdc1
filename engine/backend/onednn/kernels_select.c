/* The choice of kernels at run time: see kernels.h. */
#include "backend/onednn/kernels.h"

extern const struct kernels kernels_portable;

#ifdef __x86_64__

extern const struct kernels kernels_avx2, kernels_avx512;

const struct kernels *kernels_select(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        return &kernels_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
        return &kernels_avx2;
    }
    return &kernels_portable;
}

#else

const struct kernels *kernels_select(void) {
    return &kernels_portable;
}

#endif
