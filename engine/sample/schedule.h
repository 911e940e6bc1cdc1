/* Flow-match Euler schedules: from a number of steps to sigmas (1 = noise, 0 = picture). */
#ifndef SAMPLE_SCHEDULE_H
#define SAMPLE_SCHEDULE_H

#include "core/error.h"

/* The empirical mu of FLUX.2 for a number of image tokens (of the noise only) and steps. */
double schedule_mu_flux2(int64_t n_tokens, int n_steps);

/* What scheduler_config.json says; of FLUX.2 as published: schedule_default. */
enum schedule_shift {
    SCHEDULE_EXPONENTIAL, /* sigma = e^mu / (e^mu + (1/t − 1)) */
    SCHEDULE_LINEAR,      /* the same with mu for e^mu */
    SCHEDULE_STATIC,      /* sigma = s t / (1 + (s − 1) t), whatever mu is */
};

struct schedule_config {
    enum schedule_shift kind;
    double shift;       /* s of the static one */
    double terminal;    /* > 0: the last sigma before 0, to which the others are stretched */
    double n_timesteps; /* the model is told sigma · n_timesteps */
};

extern const struct schedule_config schedule_default;

/* The sigmas of t = linspace(1, 1/N, N) in the arithmetic of the reference, then 0.
 *   sigmas : n_steps + 1 values. n_steps ≥ 1. */
void schedule_sigmas(const struct schedule_config *config, double mu, int n_steps, float *sigmas);

/* The first step that a run with `strength` takes: int(N − min(N · strength, N)). */
int schedule_first_step(int n_steps, float strength);

#endif
