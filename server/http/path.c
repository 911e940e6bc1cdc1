/* Paths and queries: see path.h. */
#include "http/path.h"

#include <stdlib.h>
#include <string.h>

static int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Decodes n bytes of raw into text, which holds n + 1. false: a broken escape, a zero byte, or not UTF-8. */
static bool decode(const char *raw, size_t n, bool plus_is_space, char *text) {
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        char c = raw[i];
        if (c == '%') {
            const int high = i + 2 < n ? hex_value(raw[i + 1]) : -1, low = high >= 0 ? hex_value(raw[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (c == '\0') {
            return false;
        }
        text[out++] = c;
    }
    text[out] = '\0';
    return text_is_utf8(text);
}

/* Bytes that may stand in a target as they are: visible ASCII but for those that programs read differently. */
static bool is_plain(const char *raw, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (raw[i] <= ' ' || raw[i] > '~' || strchr("\\;#\"<>^`{|}", raw[i]) != NULL) {
            return false;
        }
    }
    return true;
}

static bool is_good_segment(const char *segment) {
    for (const char *c = segment; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7F || *c == '/' || *c == '\\') {
            return false;
        }
    }
    return segment[0] != '\0' && strcmp(segment, ".") != 0 && strcmp(segment, "..") != 0;
}

enum problem_code path_read(const char *raw, size_t n, struct path *path, struct problem *problem) {
    *path = (struct path){ 0 };
    if (n > PATH_MAX_BYTES) {
        return problem_set(problem, PROBLEM_HEADERS, NULL, "the path has %zu bytes, and at most %d are accepted", n,
                           PATH_MAX_BYTES);
    }
    if (n == 0 || raw[0] != '/' || !is_plain(raw, n)) {
        return problem_set(problem, PROBLEM_MALFORMED, NULL, "the path is not one that this server accepts");
    }
    path->text = text_alloc(n + 1, 2);
    char *text = path->text;
    for (size_t at = 1; at < n || (n > 1 && at == n && raw[n - 1] == '/');) {
        const char *slash = memchr(raw + at, '/', n - at);
        const size_t length = slash != NULL ? (size_t)(slash - raw) - at : n - at;
        if (path->n == PATH_MAX_SEGMENTS || !decode(raw + at, length, false, text) || !is_good_segment(text)) {
            return problem_set(problem, PROBLEM_MALFORMED, NULL, "the path is not one that this server accepts");
        }
        path->was_encoded[path->n] = memchr(raw + at, '%', length) != NULL;
        path->segments[path->n++] = text;
        text += strlen(text) + 1;
        at += length + 1;
    }
    return PROBLEM_NONE;
}

void path_free(struct path *path) {
    free(path->text);
    *path = (struct path){ 0 };
}

enum problem_code query_read(const char *raw, struct query *query, struct problem *problem) {
    *query = (struct query){ 0 };
    const size_t n = strlen(raw);
    if (n > QUERY_MAX_BYTES) {
        return problem_set(problem, PROBLEM_HEADERS, NULL, "the query has %zu bytes, and at most %d are accepted", n,
                           QUERY_MAX_BYTES);
    }
    if (n == 0) {
        return PROBLEM_NONE;
    }
    query->text = text_alloc(n + 1, 2);
    query->pairs = text_alloc(QUERY_MAX_PAIRS, sizeof *query->pairs);
    char *text = query->text;
    for (size_t at = 0; at < n;) {
        const size_t length = strcspn(raw + at, "&"), name = strcspn(raw + at, "&=");
        const size_t value_at = name < length ? name + 1 : length;
        if (length > 0) {
            char *value = text + name + 1;
            if (query->n == QUERY_MAX_PAIRS || !decode(raw + at, name, true, text) ||
                !decode(raw + at + value_at, length - value_at, true, value)) {
                return problem_set(problem, PROBLEM_MALFORMED, NULL,
                                   "the query cannot be read: at most %d values, percent-encoded UTF-8",
                                   QUERY_MAX_PAIRS);
            }
            query->pairs[query->n].name = text;
            query->pairs[query->n++].value = value;
            text = value + strlen(value) + 1;
        }
        at += length + (raw[at + length] == '&');
    }
    return PROBLEM_NONE;
}

void query_free(struct query *query) {
    free(query->text);
    free(query->pairs);
    *query = (struct query){ 0 };
}
