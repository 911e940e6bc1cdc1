/* Rotary position embedding: see rope.h. */
#include "nn/rope.h"

#include <assert.h>
#include <math.h>

void rope_fill(const struct rope_axes *axes, const double *positions, const struct tensor *cos_table,
               const struct tensor *sin_table) {
    int64_t n_tokens = tensor_n_rows(cos_table);
    int64_t column = 0;
    for (int a = 0; a < axes->n_axes; a++) {
        for (int64_t i = 0; i < axes->dims[a] / 2; i++, column++) {
            double frequency = pow(axes->theta, -2.0 * (double)i / (double)axes->dims[a]);
            for (int64_t s = 0; s < n_tokens; s++) {
                double angle = positions[s * axes->n_axes + a] * frequency;
                ((float *)tensor_row(cos_table, s))[column] = (float)cos(angle);
                ((float *)tensor_row(sin_table, s))[column] = (float)sin(angle);
            }
        }
    }
    assert(column == tensor_n_cols(cos_table));
}
