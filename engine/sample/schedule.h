/* Flow-match Euler schedules: from a number of steps to sigmas (1 = noise, 0 = picture). */
#ifndef SAMPLE_SCHEDULE_H
#define SAMPLE_SCHEDULE_H

#include "core/error.h"

/* The empirical mu of FLUX.2 for a number of image tokens (of the noise only) and steps. */
double schedule_mu_flux2(int64_t n_tokens, int n_steps);

/* sigma_k = e^mu / (e^mu + (1/t_k − 1)) for t = linspace(1, 1/N, N) in the arithmetic of the reference, then 0.
 *   sigmas : n_steps + 1 values. n_steps ≥ 1. */
void schedule_sigmas_exponential(double mu, int n_steps, float *sigmas);

/* The first step that a run with `strength` takes: int(N − min(N · strength, N)). */
int schedule_first_step(int n_steps, float strength);

#endif
