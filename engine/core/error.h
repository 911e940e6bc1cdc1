/* Errors: a status and one sentence in a struct of the caller. Whoever detects a fault writes the sentence, with names and
 * numbers; whoever passes it on adds nothing. The first failure wins: a filled error is not overwritten. */
#ifndef CORE_ERROR_H
#define CORE_ERROR_H

#include "cyberimage.h"

/* Writes code and sentence into err unless err is NULL or already filled. Returns code, so that callers can `return error_set(…)`. */
__attribute__((format(printf, 3, 4))) enum cyi_status error_set(struct cyi_error *err, enum cyi_status code,
                                                                const char *format, ...);

/* CYI_E_MEMORY with the sentence "out of memory: WHAT needs N bytes". */
enum cyi_status error_memory(struct cyi_error *err, const char *what, size_t size_bytes);

/* The one macro that hides a goto: needs a local `enum cyi_status st` and a label `done`. */
#define TRY(expression)                                                                                                \
    do {                                                                                                               \
        st = (expression);                                                                                             \
        if (st != CYI_OK) {                                                                                            \
            goto done;                                                                                                 \
        }                                                                                                              \
    } while (0)

#endif
