/* Rotary position embedding: tables of cosines and sines for tokens with positions on several axes. */
#ifndef NN_ROPE_H
#define NN_ROPE_H

#include "core/tensor.h"

#define ROPE_MAX_AXES 4

/* How the K/2 rotation pairs of a head are shared out: axis a owns dims[a]/2 pairs, pair i of it turns by
 * position · theta^(−2i/dims[a]). The sum of dims is K. */
struct rope_axes {
    int n_axes;
    int64_t dims[ROPE_MAX_AXES];
    double theta;
};

/* The angles' cosines and sines, computed in double.
 *   positions [S, n_axes] of double (FLUX.3 has fractional ones)    cos, sin [S, K/2] F32 of the caller */
void rope_fill(const struct rope_axes *axes, const double *positions, const struct tensor *cos,
               const struct tensor *sin);

#endif
