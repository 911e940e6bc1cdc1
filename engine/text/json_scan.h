/* A cursor over JSON text, for lists of hundreds of thousands of strings, where a tree would take most of the time and memory of
 * loading. The text is valid UTF-8. Every call skips white space first; one that fails may leave the cursor anywhere before end. */
#ifndef TEXT_JSON_SCAN_H
#define TEXT_JSON_SCAN_H

#include "core/error.h"

#define JSON_SCAN_STRING_MAX ((size_t)64 * 1024) /* bytes of one string */

struct json_scan {
    const char *at, *end;
};
struct json_slice {
    const char *data;
    size_t size_bytes;
};

/* Takes this character if it comes next. */
bool json_scan_take(struct json_scan *scan, char character);
/* A string without NUL. Where it has escapes it is decoded into scratch (JSON_SCAN_STRING_MAX bytes), else it lies in the text. */
bool json_scan_string(struct json_scan *scan, char *scratch, struct json_slice *ret);
/* A whole number that is not negative and below 10^15. */
bool json_scan_whole(struct json_scan *scan, int64_t *ret);
/* Any value, taken by its brackets and quotes without looking further; *ret is a cursor over it. */
bool json_scan_skip(struct json_scan *scan, struct json_scan *ret);
/* The value of the first member with this key (written without escapes) of the object that begins at scan. */
bool json_scan_member(struct json_scan scan, const char *key, struct json_scan *ret);

#endif
