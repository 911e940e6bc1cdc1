/* What tools and benchmarks share: see support.h. */
#include "support.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

void check(enum cyi_status status, const struct cyi_error *err) {
    if (status != CYI_OK) {
        (void)fprintf(stderr, "%s: %s\n", program_invocation_short_name, err->text);
        exit(2);
    }
}

double now_seconds(clockid_t clock) {
    struct timespec now = { 0 };
    (void)clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
