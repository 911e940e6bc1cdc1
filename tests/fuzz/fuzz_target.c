/* Fuzz target: the target of a request, path and query. No accepted segment may be empty, a dot, or hold what separates paths. */
#include "http/path.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_segment(const char *segment) {
    if (segment[0] == '\0' || strcmp(segment, ".") == 0 || strcmp(segment, "..") == 0 ||
        strpbrk(segment, "/\\\r\n") != NULL || !text_is_utf8(segment)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct path path;
    struct query query;
    char *target = text_alloc(size + 1, 1);
    memcpy(target, data, size);
    const size_t n = strcspn(target, "?");
    if (path_read(target, n, &path, NULL) == PROBLEM_NONE) {
        for (size_t i = 0; i < path.n; i++) {
            check_segment(path.segments[i]);
        }
    }
    if (query_read(target[n] == '?' ? target + n + 1 : target + n, &query, NULL) == PROBLEM_NONE) {
        for (size_t i = 0; i < query.n; i++) {
            if (!text_is_utf8(query.pairs[i].name) || !text_is_utf8(query.pairs[i].value)) {
                abort();
            }
        }
    }
    path_free(&path);
    query_free(&query);
    free(target);
    return 0;
}
