/* Noise: the numbers of torch.Generator("cpu").manual_seed(seed) and torch.randn, bit for bit (its AVX2 kernels), on every machine. */
#ifndef SAMPLE_NOISE_H
#define SAMPLE_NOISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* MT19937 and the normal value that a draw of fewer than 16 numbers leaves behind. One thread at a time. */
struct noise_generator {
    uint32_t state[624];
    size_t next;
    bool has_spare;
    double spare;
};

void noise_seed(struct noise_generator *generator, uint64_t seed); /* the low 32 bits count */
/* The next torch.randn(n) of this generator. */
void noise_draw(struct noise_generator *generator, float *values, size_t n);

#endif
