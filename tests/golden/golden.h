/* What golden tests share: opening a golden folder, running shared checkpoints, comparing with a tolerance that is printed. */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include "core/tensor.h"
#include "io/safetensors.h"

/* FIXTURES/golden/NAME/golden.safetensors. Fails the running cmocka test when it cannot be opened.
 * The environment variable CYI_FIXTURES names the fixtures folder (meson sets it). */
struct safetensors *golden_open(const char *name);
/* The path of a file below FIXTURES, in a static ring of buffers (no free needed). */
const char *fixture_path(const char *relative);
/* A tensor of the golden; fails the test when absent. */
struct tensor golden_tensor(const struct safetensors *golden, const char *name);

/* Σ(x−y)² / Σy² with y the golden; x and y are compared as packed lists of equal length (shapes may differ). */
double golden_nmse(const struct tensor *x, const struct tensor *y);
/* 10 log10(255² / mean squared difference) of two U8 pictures; infinity when equal. */
double golden_psnr(const uint8_t *x, const uint8_t *y, size_t n);
/* Prints "stage  nmse 1.2e-11 (limit 1e-9)" and fails the test above the limit or when something is not finite. */
void golden_check(const char *stage, const struct tensor *x, const struct tensor *y, double limit);

#endif
