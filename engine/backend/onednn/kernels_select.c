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

const struct kernels *kernels_select(int vector_bits) {
    __builtin_cpu_init();
    if (vector_bits >= 512) {
        return &kernels_avx512;
    }
    if (vector_bits >= 256 && __builtin_cpu_supports("fma") && has_f16c()) {
        return &kernels_avx2;
    }
    return &kernels_portable;
}

#else

const struct kernels *kernels_select(int vector_bits) {
    (void)vector_bits;
    return &kernels_portable;
}

#endif
