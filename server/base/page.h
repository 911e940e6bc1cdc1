/* page: what lists over HTTP share: spans of time, and cursors. */
#ifndef SERVER_BASE_PAGE_H
#define SERVER_BASE_PAGE_H

#include "base/json.h"

/* text NULL: *ret_us stays. Errors: INVALID (field: name). */
enum problem_code page_read_time(const char *name, const char *text, int64_t *ret_us, struct problem *problem);
/* text NULL: *ret_number stays. Errors: INVALID ("cursor"). */
enum problem_code page_read_cursor(const char *text, int64_t *ret_number, struct problem *problem);
/* Rows were asked for with one more than limit: takes it away, and gives the cursor of the next page, the member key of the last
 * row as text; null when there is no next page. */
json_t *page_cut(json_t *rows, int64_t limit, const char *key);

#endif
