/* path: the target of a request, taken apart. Strict on purpose: what two programs could read differently (empty
 * segments, dots, encoded slashes, backslashes, semicolons, control characters, text that is not UTF-8) is refused,
 * never mended. */
#ifndef SERVER_HTTP_PATH_H
#define SERVER_HTTP_PATH_H

#include "base/problem.h"

#define PATH_MAX_BYTES 1024
#define PATH_MAX_SEGMENTS 12
#define QUERY_MAX_BYTES 8192
#define QUERY_MAX_PAIRS 64

struct path {
    char *text;                              /* what segments point into */
    size_t n;                                /* 0: "/" */
    const char *segments[PATH_MAX_SEGMENTS]; /* decoded, never empty */
    bool was_encoded[PATH_MAX_SEGMENTS];     /* had a percent sign: matches no literal */
};

struct query {
    char *text;
    size_t n;
    struct {
        const char *name, *value;
    } * pairs;
};

/* raw begins with a slash and ends before the query. Errors: MALFORMED. The caller frees, also after an error. */
enum problem_code path_read(const char *raw, size_t n, struct path *path, struct problem *problem);
void path_free(struct path *path);
/* raw is what follows the question mark. Errors: MALFORMED. The caller frees, also after an error. */
enum problem_code query_read(const char *raw, struct query *query, struct problem *problem);
void query_free(struct query *query);

#endif
