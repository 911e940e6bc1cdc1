/* Timestep sinusoids: see timestep.h. */
#include "nn/timestep.h"

#include <math.h>

void timestep_sinusoid(float argument, int64_t n, float *values) {
    int64_t half = n / 2;
    for (int64_t i = 0; i < half; i++) {
        float exponent = (float)-log(10000.0) * (float)i / (float)half;
        float frequency = (float)exp((double)exponent);
        float angle = argument * frequency;
        values[i] = (float)cos((double)angle);
        values[half + i] = (float)sin((double)angle);
    }
}

float timestep_argument(float timestep) {
    return timestep / 1000.0F * 1000.0F;
}
