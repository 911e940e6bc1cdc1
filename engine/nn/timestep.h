/* The sinusoids by which diffusion transformers are told the time. */
#ifndef NN_TIMESTEP_H
#define NN_TIMESTEP_H

#include <stdint.h>

/* values[i] = cos(argument · f_i), values[n/2 + i] = sin(argument · f_i), f_i = exp(−ln(10000) · i / (n/2)).
 * The frequencies and the products are float32, as in the reference: with undamped weights that is worth an NMSE of 1e-9. */
void timestep_sinusoid(float argument, int64_t n, float *values);

/* What the reference's chain of float32 operations makes of a scheduler's timestep: (timestep / 1000) · 1000. */
float timestep_argument(float timestep);

#endif
