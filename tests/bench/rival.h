/* R: the rate of oneDNN's own bf16 matrix product, with its own threads, that ours are held against. */
#ifndef BENCH_RIVAL_H
#define BENCH_RIVAL_H

#include <stdint.h>

struct rival;

/* y [M, N] = x [M, K] · w [N, K]ᵀ over numbers between −0.5 and 0.5. Failures end the program. */
struct rival *rival_create(int64_t m, int64_t n, int64_t k, int n_threads);
void rival_free(struct rival *rival);
/* Runs the product once. Returns seconds. */
double rival_time(struct rival *rival);

#endif
