/* Schedules: see schedule.h. Where the reference computes in single precision, so does this file. */
#include "sample/schedule.h"

#include <math.h>

double schedule_mu_flux2(int64_t n_tokens, int n_steps) {
    /* Two straight lines over the number of tokens: mu for 200 steps and for 10. Between them mu is linear in the
     * steps. */
    double tokens = (double)n_tokens;
    double mu_200 = 0.00016927 * tokens + 0.45666666;
    double mu_10 = 8.73809524e-05 * tokens + 1.89833333;
    if (n_tokens > 4300) {
        return mu_200;
    }
    double slope = (mu_200 - mu_10) / 190.0;
    return slope * (double)n_steps + (mu_200 - 200.0 * slope);
}

const struct schedule_config schedule_default = { .kind = SCHEDULE_EXPONENTIAL, .shift = 3.0, .n_timesteps = 1000.0 };

static float shift_time(const struct schedule_config *config, double mu, float t) {
    if (config->kind == SCHEDULE_STATIC) {
        return (float)config->shift * t / (1.0F + (float)(config->shift - 1.0) * t);
    }
    float power = (float)(config->kind == SCHEDULE_LINEAR ? mu : exp(mu));
    return power / (power + (1.0F / t - 1.0F));
}

void schedule_sigmas(const struct schedule_config *config, double mu, int n_steps, float *sigmas) {
    double last = 1.0 / (double)n_steps;
    double distance = n_steps > 1 ? (last - 1.0) / (double)(n_steps - 1) : 0.0;
    for (int k = 0; k < n_steps; k++) {
        bool is_last = k == n_steps - 1 && n_steps > 1;
        sigmas[k] = shift_time(config, mu, (float)(is_last ? last : (double)k * distance + 1.0));
    }
    if (config->terminal > 0.0) {
        float scale = (1.0F - sigmas[n_steps - 1]) / (float)(1.0 - config->terminal);
        for (int k = 0; k < n_steps; k++) {
            sigmas[k] = 1.0F - (1.0F - sigmas[k]) / scale;
        }
    }
    sigmas[n_steps] = 0.0F;
}

int schedule_first_step(int n_steps, float strength) {
    /* The reference multiplies in double precision by the decimal number that the user wrote; back to that number
     * first. */
    double decimal = round((double)strength * 1e6) / 1e6;
    double n_wanted = fmin((double)n_steps * decimal, (double)n_steps);
    return (int)fmax((double)n_steps - n_wanted, 0.0);
}
