/* Strict JSON: see json.h. */
#include "base/json.h"

#include "base/id.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 64

json_t *json_need(json_t *value) {
    if (value == NULL) {
        text_out_of_memory();
    }
    return value;
}

json_t *json_text(const char *text) {
    if (text == NULL) {
        return json_null();
    }
    char *clean = text_clean(text);
    json_t *json = json_need(json_string(clean));
    free(clean);
    return json;
}

void json_put(json_t *object, const char *name, json_t *value) {
    if (json_object_set_new(object, name, json_need(value)) != 0) {
        text_out_of_memory();
    }
}

void json_add(json_t *array, json_t *value) {
    if (json_array_append_new(array, json_need(value)) != 0) {
        text_out_of_memory();
    }
}

char *json_text_of(const json_t *value) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    if (text == NULL) {
        text_out_of_memory();
    }
    return text;
}

const char *json_get_text(const json_t *object, const char *name) {
    return json_string_value(json_object_get(object, name));
}

int64_t json_get_int(const json_t *object, const char *name, int64_t fallback) {
    const json_t *value = json_object_get(object, name);
    return json_is_integer(value) ? json_integer_value(value) : fallback;
}

/* ---- Parsing ---- */

/* jansson goes as deep as its own limit of 2048 levels: what is deeper than ours is counted before it is asked. */
static bool is_too_deep(const char *text, size_t n) {
    int depth = 0;
    bool is_quoted = false;
    for (size_t i = 0; i < n; i++) {
        if (is_quoted) {
            i += text[i] == '\\';
            is_quoted = i < n && text[i] != '"';
        } else if (text[i] == '"') {
            is_quoted = true;
        } else if (text[i] == '[' || text[i] == '{') {
            if (++depth > MAX_DEPTH) {
                return true;
            }
        } else if (text[i] == ']' || text[i] == '}') {
            depth--;
        }
    }
    return false;
}

enum problem_code json_parse(const char *text, size_t size_bytes, json_t **ret_value, struct problem *problem) {
    json_error_t error;
    if (is_too_deep(text, size_bytes)) {
        return problem_set(problem, PROBLEM_MALFORMED, NULL, "the JSON is more than %d levels deep", MAX_DEPTH);
    }
    json_t *value = json_loadb(text, size_bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (value == NULL) {
        char *clean = text_clean(error.text);
        (void)problem_set(problem, PROBLEM_MALFORMED, NULL, "the JSON cannot be read at line %d, column %d: %s",
                          error.line, error.column, clean);
        free(clean);
        return PROBLEM_MALFORMED;
    }
    *ret_value = value;
    return PROBLEM_NONE;
}

/* ---- Rows ---- */

static bool is_choice(const char *choices, const char *value) {
    const size_t n = strlen(value);
    for (const char *choice = choices; n > 0 && *choice != '\0';) {
        const size_t length = strcspn(choice, "|");
        if (length == n && memcmp(choice, value, n) == 0) {
            return true;
        }
        choice += length + (choice[length] == '|');
    }
    return false;
}

static enum problem_code read_text(const struct json_row *row, const json_t *value, void *field,
                                   struct problem *problem) {
    const char *text = json_string_value(value);
    if (text == NULL) {
        return problem_set(problem, PROBLEM_INVALID, row->name, "\"%s\" must be a text", row->name);
    }
    if (row->kind == JSON_ROW_ID && !id_is_valid(text)) {
        return problem_set(problem, PROBLEM_INVALID, row->name, "\"%s\" must be an id of 36 characters", row->name);
    }
    if (row->kind == JSON_ROW_CHOICE && !is_choice(row->choices, text)) {
        return problem_set(problem, PROBLEM_INVALID, row->name, "\"%s\" must be one of %s, not \"%.60s\"", row->name,
                           row->choices, text);
    }
    const double n = (double)strlen(text);
    if (row->kind == JSON_ROW_TEXT && (n < row->min || n > row->max)) {
        return n < row->min && n == 0.0 ? problem_set(problem, PROBLEM_INVALID, row->name, "\"%s\" is empty", row->name)
                                        : problem_set(problem, PROBLEM_INVALID, row->name,
                                                      "\"%s\" has %.0f bytes, and from %.0f to %.0f are accepted",
                                                      row->name, n, row->min, row->max);
    }
    memcpy(field, &text, sizeof text);
    return PROBLEM_NONE;
}

static enum problem_code read_number(const struct json_row *row, const json_t *value, void *field,
                                     struct problem *problem) {
    const double number = json_number_value(value);
    const bool is_whole = row->kind == JSON_ROW_INT;
    if (is_whole ? !json_is_integer(value) : !json_is_number(value)) {
        return problem_set(problem, PROBLEM_INVALID, row->name, "\"%s\" must be a %snumber", row->name,
                           is_whole ? "whole " : "");
    }
    if (!(number >= row->min && number <= row->max)) {
        return problem_set(problem, PROBLEM_INVALID, row->name, "\"%s\" must be from %.16g to %.16g, not %.16g",
                           row->name, row->min, row->max, number);
    }
    if (is_whole) {
        const int64_t whole = json_integer_value(value);
        memcpy(field, &whole, sizeof whole);
    } else {
        memcpy(field, &number, sizeof number);
    }
    return PROBLEM_NONE;
}

static enum problem_code read_container(const struct json_row *row, json_t *value, void *field,
                                        struct problem *problem) {
    const bool is_array = row->kind == JSON_ROW_ARRAY;
    if (is_array ? !json_is_array(value) : !json_is_object(value)) {
        return problem_set(problem, PROBLEM_INVALID, row->name, "\"%s\" must be %s", row->name,
                           is_array ? "a list" : "an object");
    }
    const double n = (double)json_array_size(value);
    if (is_array && (n < row->min || n > row->max)) {
        return problem_set(problem, PROBLEM_INVALID, row->name,
                           "\"%s\" has %.0f elements, and from %.0f to %.0f are accepted", row->name, n, row->min,
                           row->max);
    }
    memcpy(field, &value, sizeof value);
    return PROBLEM_NONE;
}

static enum problem_code read_row(const struct json_row *row, json_t *value, void *fields, struct problem *problem) {
    void *field = (char *)fields + row->offset;
    switch (row->kind) {
    case JSON_ROW_TEXT:
    case JSON_ROW_ID:
    case JSON_ROW_CHOICE:
        return read_text(row, value, field, problem);
    case JSON_ROW_INT:
    case JSON_ROW_NUMBER:
        return read_number(row, value, field, problem);
    case JSON_ROW_BOOL:
        if (!json_is_boolean(value)) {
            return problem_set(problem, PROBLEM_INVALID, row->name, "\"%s\" must be true or false", row->name);
        }
        *(bool *)field = json_is_true(value);
        return PROBLEM_NONE;
    default:
        return read_container(row, value, field, problem);
    }
}

/* A value as it stands in a row's choices: 4.0 is "4", an empty list "[]". A new string. */
static char *idle_text(const json_t *value) {
    return json_is_string(value)   ? text_copy(json_string_value(value))
           : json_is_number(value) ? text_format("%.9g", json_number_value(value))
                                   : json_text_of(value);
}

static enum problem_code check_idle(const struct json_idle *idle, const json_t *value, struct problem *problem) {
    char *text = idle_text(value);
    const bool asks_nothing =
        idle->accepted == NULL || json_is_null(value) || text[0] == '\0' || is_choice(idle->accepted, text);
    free(text);
    return asks_nothing
               ? PROBLEM_NONE
               : problem_set(problem, PROBLEM_INVALID, idle->name,
                             "\"%s\" is not supported here: leave it out, or send %s", idle->name, idle->accepted);
}

static enum problem_code check_member(const char *key, const json_t *value, const struct json_row *rows, size_t n_rows,
                                      const struct json_idle *idle, size_t n_idle, struct problem *problem) {
    for (size_t i = 0; i < n_rows; i++) {
        if (strcmp(rows[i].name, key) == 0) {
            return PROBLEM_NONE;
        }
    }
    for (size_t i = 0; i < n_idle; i++) {
        if (strcmp(idle[i].name, key) == 0) {
            return check_idle(&idle[i], value, problem);
        }
    }
    char name[64];
    (void)snprintf(name, sizeof name, "%.60s", key);
    return problem_set(problem, PROBLEM_INVALID, name, "\"%.60s\" is not known here", key);
}

static enum problem_code check_members(const json_t *object, const struct json_row *rows, size_t n_rows,
                                       const struct json_idle *idle, size_t n_idle, struct problem *problem) {
    union {
        const json_t *in;
        json_t *out; /* jansson's iterator takes no const object, though it only reads */
    } object_of = { .in = object };
    const char *key;
    json_t *value;
    json_object_foreach(object_of.out, key, value) {
        const enum problem_code st = check_member(key, value, rows, n_rows, idle, n_idle, problem);
        if (st != PROBLEM_NONE) {
            return st;
        }
    }
    return PROBLEM_NONE;
}

static enum problem_code read_rows(const json_t *object, const struct json_row *rows, size_t n_rows, void *fields,
                                   struct problem *problem) {
    for (size_t i = 0; i < n_rows; i++) {
        json_t *value = json_object_get(object, rows[i].name);
        if (value == NULL || (json_is_null(value) && (rows[i].flags & JSON_NULLABLE) != 0)) {
            if ((rows[i].flags & JSON_NEEDED) != 0) {
                return problem_set(problem, PROBLEM_INVALID, rows[i].name, "\"%s\" is missing", rows[i].name);
            }
            continue;
        }
        const enum problem_code st = read_row(&rows[i], value, fields, problem);
        if (st != PROBLEM_NONE) {
            return st;
        }
    }
    return PROBLEM_NONE;
}

enum problem_code json_read_dialect(const json_t *object, const struct json_row *rows, size_t n_rows,
                                    const struct json_idle *idle, size_t n_idle, void *fields,
                                    struct problem *problem) {
    if (!json_is_object(object)) {
        return problem_set(problem, PROBLEM_MALFORMED, NULL, "the body must be a JSON object");
    }
    const enum problem_code st = check_members(object, rows, n_rows, idle, n_idle, problem);
    return st != PROBLEM_NONE ? st : read_rows(object, rows, n_rows, fields, problem);
}

enum problem_code json_read(const json_t *object, const struct json_row *rows, size_t n_rows, void *fields,
                            struct problem *problem) {
    return json_read_dialect(object, rows, n_rows, NULL, 0, fields, problem);
}
