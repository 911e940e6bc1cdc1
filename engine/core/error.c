/* Errors: see error.h. */
#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>

enum cyi_status error_set(struct cyi_error *err, enum cyi_status code, const char *format, ...) {
    if (err != NULL && err->code == CYI_OK) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        err->code = code;
    }
    return code;
}

enum cyi_status error_memory(struct cyi_error *err, const char *what, size_t size_bytes) {
    return error_set(err, CYI_E_MEMORY, "out of memory: %s needs %zu bytes", what, size_bytes);
}

const char *cyi_status_name(enum cyi_status status) {
    static const char *const names[CYI_N_STATUSES] = {
        [CYI_OK] = "ok",
        [CYI_E_ARGUMENT] = "argument",
        [CYI_E_SHAPE] = "shape",
        [CYI_E_DTYPE] = "dtype",
        [CYI_E_FORMAT] = "format",
        [CYI_E_MEMORY] = "memory",
        [CYI_E_IO] = "io",
        [CYI_E_CANCELLED] = "cancelled",
        [CYI_E_NUMERIC] = "numeric",
        [CYI_E_UNSUPPORTED] = "unsupported",
    };
    return (unsigned)status < CYI_N_STATUSES ? names[status] : "unknown";
}
