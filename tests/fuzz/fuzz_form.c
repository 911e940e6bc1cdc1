/* Fuzz target: a multipart body. The input's first line is the request's Content-Type. What is accepted must hold together: names and
 * data lie within the body, and data ends with a zero byte. */
#include "http/form_data.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text, const char *body, size_t n) {
    if (text != NULL && (text < body || text > body + n || strlen(text) > (size_t)(body + n - text))) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *line_end = memchr(data, '\n', size);
    if (line_end == NULL) {
        return 0;
    }
    const size_t n_type = (size_t)(line_end - data), n = size - n_type - 1;
    char *type = text_alloc(n_type + 1, 1), *body = text_alloc(n + 1, 1);
    struct form_part *parts = NULL;
    size_t n_parts = 0;
    struct problem problem = { 0 };
    memcpy(type, data, n_type);
    memcpy(body, line_end + 1, n);
    if (form_data_parse(type, body, n, &parts, &n_parts, &problem) == PROBLEM_NONE) {
        for (size_t i = 0; i < n_parts; i++) {
            const char *bytes = parts[i].data;
            check_text(parts[i].name, body, n);
            check_text(parts[i].file_name, body, n);
            check_text(parts[i].type, body, n);
            if (parts[i].name == NULL || bytes < body || bytes + parts[i].n > body + n || bytes[parts[i].n] != '\0') {
                abort();
            }
        }
    } else if (problem.code != PROBLEM_MALFORMED || problem.detail[0] == '\0') {
        abort();
    }
    free(parts);
    free(body);
    free(type);
    return 0;
}
