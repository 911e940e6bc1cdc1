/* Problems: see problem.h. */
#include "base/problem.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

static const struct {
    int status;
    const char *code, *title;
} rows[N_PROBLEMS] = {
    [PROBLEM_NONE] = { 200, "ok", "" },
#define PROBLEM(name, status, code, title) [PROBLEM_##name] = { status, code, title },
#include "base/problem.def"
#undef PROBLEM
};

int problem_status(enum problem_code code) {
    return rows[code].status;
}

const char *problem_name(enum problem_code code) {
    return rows[code].code;
}

const char *problem_title(enum problem_code code) {
    return rows[code].title;
}

enum problem_code problem_set(struct problem *problem, enum problem_code code, const char *field, const char *format,
                              ...) {
    if (problem != NULL && problem->code == PROBLEM_NONE) {
        va_list arguments;
        va_start(arguments, format);
        const int n = vsnprintf(problem->detail, sizeof problem->detail, format, arguments);
        va_end(arguments);
        if (n >= (int)sizeof problem->detail) { /* cut, but never within a character */
            size_t end = sizeof problem->detail - 1;
            while (end > 0 && ((unsigned char)problem->detail[end - 1] & 0xC0) == 0x80) {
                end--;
            }
            problem->detail[end > 0 ? end - 1 : 0] = '\0';
        }
        (void)snprintf(problem->field, sizeof problem->field, "%s", field != NULL ? field : "");
        problem->code = code;
    }
    return code;
}

enum problem_code problem_system(struct problem *problem, int error, const char *what) {
    if (error == ENOSPC || error == EDQUOT) {
        return problem_set(problem, PROBLEM_NO_SPACE, NULL, "%s could not be written: the disk is full", what);
    }
    char words[128];
    return problem_set(problem, PROBLEM_INTERNAL, NULL, "%s: %s", what, strerror_r(error, words, sizeof words));
}

enum problem_code problem_engine(struct problem *problem, const char *field, const struct cyi_error *err) {
    const bool is_ours = err->code == CYI_E_MEMORY || err->code == CYI_E_IO;
    return problem_set(problem, is_ours ? PROBLEM_INTERNAL : PROBLEM_INVALID, field, "%s", err->text);
}
