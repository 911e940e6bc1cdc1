/* The choice of kernels at run time: see kernels.h. */
#include "backend/onednn/kernels.h"

extern const struct kernels kernels_portable;

#ifdef __x86_64__

#include <cpuid.h>

extern const struct kernels kernels_avx2, kernels_avx512;

/* Asked of the processor itself: not every compiler's __builtin_cpu_supports knows this name. */
static bool has_f16c(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

const struct kernels *kernels_select(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        return &kernels_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
        return &kernels_avx2;
    }
    return &kernels_portable;
}

#else

const struct kernels *kernels_select(void) {
    return &kernels_portable;
}

#endif
