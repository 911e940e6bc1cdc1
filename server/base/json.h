/* json: strict reading of JSON objects by a table of rows, and the small change of making JSON. Unknown members, wrong
 * types and values outside their bounds are refused by name; nothing is ever clamped or converted. */
#ifndef SERVER_BASE_JSON_H
#define SERVER_BASE_JSON_H

#include "base/problem.h"

#include <jansson.h>

enum json_row_kind {
    JSON_ROW_TEXT,   /* const char *, borrowed from the object; min…max are bytes */
    JSON_ROW_ID,     /* const char *, a UUID */
    JSON_ROW_CHOICE, /* const char *, one of choices */
    JSON_ROW_INT,    /* int64_t */
    JSON_ROW_NUMBER, /* double */
    JSON_ROW_BOOL,   /* bool */
    JSON_ROW_ARRAY,  /* json_t *, borrowed; min…max are elements */
    JSON_ROW_OBJECT, /* json_t *, borrowed */
};

enum json_row_flags {
    JSON_NEEDED = 1,   /* it must be there */
    JSON_NULLABLE = 2, /* null means the same as being absent */
};

struct json_row {
    const char *name;
    enum json_row_kind kind;
    size_t offset; /* of the field; what is absent leaves it as it is */
    double min, max;
    const char *choices; /* "png|jpg|webp" */
    int flags;
};

/* Reads object into fields, which holds the defaults. Errors: MALFORMED (not an object), INVALID (names the member). */
enum problem_code json_read(const json_t *object, const struct json_row *rows, size_t n_rows, void *fields,
                            struct problem *problem);

/* A member of another program's dialect that we know and do not follow. */
struct json_idle {
    const char *name;
    const char *
        accepted; /* texts, numbers and so on that ask for nothing, "auto|0|false|[]"; NULL: it never does. null and "" do not */
};

/* The same for other programs' dialects, whose clients send many members at their defaults: those of idle are let pass when they ask
 * for nothing, else refused by name, as unknown ones are. */
enum problem_code json_read_dialect(const json_t *object, const struct json_row *rows, size_t n_rows,
                                    const struct json_idle *idle, size_t n_idle, void *fields, struct problem *problem);

/* Parses a text: one value, no duplicate keys, no NUL, at most 64 levels deep. Errors: MALFORMED, with line and column. */
enum problem_code json_parse(const char *text, size_t size_bytes, json_t **ret_value, struct problem *problem);

/* json_pack that ends the program when memory runs out or the format is wrong, so that no caller checks. */
#define JSON(...) json_need(json_pack(__VA_ARGS__))
json_t *json_need(json_t *value);
/* A string from text that may not be UTF-8; NULL gives null. */
json_t *json_text(const char *text);
/* Sets a member, takes value over. */
void json_put(json_t *object, const char *name, json_t *value);
void json_add(json_t *array, json_t *value);
/* Compact text, keys in their order. A new string. */
char *json_text_of(const json_t *value);
/* The member as text, or NULL. */
const char *json_get_text(const json_t *object, const char *name);
/* The member as a whole number, or fallback. */
int64_t json_get_int(const json_t *object, const char *name, int64_t fallback);

#endif
