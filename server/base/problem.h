/* problem: how the server says that something cannot be done. Every call that can fail returns a code and takes a
 * struct problem *, into which who finds the fault writes one sentence; who passes it on adds nothing, and the first
 * one wins. At the HTTP border it becomes a problem document (RFC 9457): status, code, title, detail, field. */
#ifndef SERVER_BASE_PROBLEM_H
#define SERVER_BASE_PROBLEM_H

#include "text.h"

enum problem_code {
    PROBLEM_NONE = 0,
#define PROBLEM(name, status, code, title) PROBLEM_##name,
#include "base/problem.def"
#undef PROBLEM
    N_PROBLEMS
};

struct problem {
    enum problem_code code;
    int retry_after_seconds; /* with TOO_MANY, UNAVAILABLE, NO_SPACE; 0: not said */
    char field[64];          /* the member of the request at fault, "" when it is none */
    char detail[512];        /* one sentence in UTF-8 without a final newline, safe for clients */
};

/* st = call; on failure to the function's one exit. The only macro that hides a goto. */
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        if ((st = (call)) != PROBLEM_NONE) {                                                                           \
            goto done;                                                                                                 \
        }                                                                                                              \
    } while (0)

int problem_status(enum problem_code code);        /* the HTTP status; 200 for NONE */
const char *problem_name(enum problem_code code);  /* the stable code, "ok" for NONE */
const char *problem_title(enum problem_code code); /* "" for NONE */

/* Writes code, field ("" or NULL: none) and sentence, unless problem (may be NULL) is filled already. Returns code. */
__attribute__((format(printf, 4, 5))) enum problem_code problem_set(struct problem *problem, enum problem_code code,
                                                                    const char *field, const char *format, ...);
/* The same for a failed system call with this errno: NO_SPACE when the disk or the quota is full, else INTERNAL. what stands in
 * front of the system's words: "the picture's file". */
enum problem_code problem_system(struct problem *problem, int error, const char *what);
/* What the engine's codecs say, for the field: MEMORY and IO are ours, all else is INVALID. */
enum problem_code problem_engine(struct problem *problem, const char *field, const struct cyi_error *err);

#endif
