/* What tools and benchmarks share: a way out, a clock. Every failure is printed and ends the program. */
#ifndef BENCH_SUPPORT_H
#define BENCH_SUPPORT_H

#include <time.h>

#include "cyberimage.h"

/* Prints the sentence and ends with 1. */
__attribute__((format(printf, 1, 2), noreturn)) void die(const char *format, ...);
/* Ends with 2 and the error's sentence unless the status is CYI_OK. */
void check(enum cyi_status status, const struct cyi_error *err);
/* Seconds of a clock. */
double now_seconds(clockid_t clock);

#endif
