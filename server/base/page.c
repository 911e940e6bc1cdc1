/* Pages of lists: see page.h. */
#include "base/page.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum problem_code page_read_time(const char *name, const char *text, int64_t *ret_us, struct problem *problem) {
    return text == NULL || clock_parse(text, ret_us)
               ? PROBLEM_NONE
               : problem_set(problem, PROBLEM_INVALID, name,
                             "\"%s\" must be a date or a time such as 2026-11-26T12:00:00Z", name);
}

enum problem_code page_read_cursor(const char *text, int64_t *ret_number, struct problem *problem) {
    if (text != NULL && text[strspn(text, "0123456789")] != '\0') {
        return problem_set(problem, PROBLEM_INVALID, "cursor",
                           "\"cursor\" must be what the page before gave as \"next\"");
    }
    *ret_number = text != NULL ? strtoll(text, NULL, 10) : *ret_number;
    return PROBLEM_NONE;
}

json_t *page_cut(json_t *rows, int64_t limit, const char *key) {
    char cursor[24];
    if ((int64_t)json_array_size(rows) <= limit) {
        return json_null();
    }
    (void)json_array_remove(rows, (size_t)limit);
    (void)snprintf(cursor, sizeof cursor, "%lld",
                   (long long)json_get_int(json_array_get(rows, (size_t)limit - 1), key, 0));
    return json_need(json_string(cursor));
}
