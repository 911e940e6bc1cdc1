/* A cursor over JSON text: see json_scan.h. */
#include "text/json_scan.h"

#include <string.h>

#define WHOLE_MAX_DIGITS 15

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static void skip_spaces(struct json_scan *scan) {
    while (scan->at < scan->end && is_space(*scan->at)) {
        scan->at++;
    }
}

bool json_scan_take(struct json_scan *scan, char character) {
    skip_spaces(scan);
    if (scan->at == scan->end || *scan->at != character) {
        return false;
    }
    scan->at++;
    return true;
}

/* ---- Strings ---- */

static bool read_hex4(struct json_scan *scan, unsigned *ret) {
    unsigned value = 0;
    if (scan->end - scan->at < 4) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        char c = *scan->at++;
        unsigned lower = (unsigned char)(c | 0x20);
        if (c >= '0' && c <= '9') {
            value = value << 4 | (unsigned)(c - '0');
        } else if (lower >= 'a' && lower <= 'f') {
            value = value << 4 | (lower - 'a' + 10);
        } else {
            return false;
        }
    }
    *ret = value;
    return true;
}

/* What follows \u: one code point, from two escapes where the first is a high surrogate. */
static bool read_code_point(struct json_scan *scan, unsigned *ret) {
    unsigned low;
    if (!read_hex4(scan, ret) || *ret == 0 || (*ret >= 0xdc00 && *ret <= 0xdfff)) {
        return false;
    }
    if (*ret < 0xd800 || *ret > 0xdfff) {
        return true;
    }
    if (scan->end - scan->at < 2 || scan->at[0] != '\\' || scan->at[1] != 'u') {
        return false;
    }
    scan->at += 2;
    if (!read_hex4(scan, &low) || low < 0xdc00 || low > 0xdfff) {
        return false;
    }
    *ret = 0x10000 + ((*ret - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

static size_t write_utf8(unsigned point, char *out) {
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t n = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (point & 0x3f));
        point >>= 6;
    }
    out[0] = (char)((n == 2 ? 0xc0u : n == 3 ? 0xe0u : 0xf0u) | point);
    return n;
}

/* What follows a backslash; 0 when it is no escape. */
static size_t read_escape(struct json_scan *scan, char *out) {
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    unsigned point;
    if (scan->at == scan->end) {
        return 0;
    }
    char name = *scan->at++;
    if (name == 'u') {
        return read_code_point(scan, &point) ? write_utf8(point, out) : 0;
    }
    const char *found = name == '\0' ? NULL : strchr(names, name);
    if (found == NULL) {
        return 0;
    }
    *out = values[found - names];
    return 1;
}

/* The rest of a string from its first backslash on; `before` bytes come before it. */
static bool decode_string(struct json_scan *scan, char *scratch, size_t before, struct json_slice *ret) {
    memcpy(scratch, ret->data, before);
    size_t size = before;
    while (scan->at < scan->end && *scan->at != '"' && (unsigned char)*scan->at >= 0x20) {
        if (size + 4 > JSON_SCAN_STRING_MAX) {
            return false;
        }
        char c = *scan->at++;
        size_t n = 1;
        scratch[size] = c;
        if (c == '\\') {
            n = read_escape(scan, scratch + size);
            if (n == 0) {
                return false;
            }
        }
        size += n;
    }
    *ret = (struct json_slice){ scratch, size };
    return scan->at < scan->end && *scan->at++ == '"';
}

bool json_scan_string(struct json_scan *scan, char *scratch, struct json_slice *ret) {
    if (!json_scan_take(scan, '"')) {
        return false;
    }
    const char *start = scan->at;
    const char *at = start;
    while (at < scan->end && *at != '"' && *at != '\\' && (unsigned char)*at >= 0x20) {
        at++;
    }
    size_t size = (size_t)(at - start);
    scan->at = at;
    if (at == scan->end || size > JSON_SCAN_STRING_MAX) {
        return false;
    }
    *ret = (struct json_slice){ start, size };
    if (*at == '\\') {
        return decode_string(scan, scratch, size, ret);
    }
    scan->at++;
    return *at == '"';
}

/* ---- Other values ---- */

bool json_scan_whole(struct json_scan *scan, int64_t *ret) {
    skip_spaces(scan);
    const char *start = scan->at;
    int64_t value = 0;
    while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9' && scan->at - start < WHOLE_MAX_DIGITS) {
        value = value * 10 + (*scan->at++ - '0');
    }
    *ret = value;
    bool has_leading_zero = scan->at - start > 1 && *start == '0';
    return scan->at > start && !has_leading_zero;
}

static bool skip_string(struct json_scan *scan) {
    for (scan->at++; scan->at < scan->end; scan->at++) {
        if (*scan->at == '"') {
            scan->at++;
            return true;
        }
        scan->at += *scan->at == '\\' && scan->at + 1 < scan->end;
    }
    return false;
}

bool json_scan_skip(struct json_scan *scan, struct json_scan *ret) {
    skip_spaces(scan);
    ret->at = scan->at;
    size_t depth = 0;
    while (scan->at < scan->end) {
        char c = *scan->at;
        bool closes = c == '}' || c == ']';
        if (depth == 0 && (closes || c == ',' || is_space(c))) {
            break; /* the end of a number or a word */
        }
        if (c == '"') {
            if (!skip_string(scan)) {
                return false;
            }
        } else {
            scan->at++;
            depth += c == '{' || c == '[';
            depth -= closes;
        }
        if (depth == 0 && (closes || c == '"')) {
            break;
        }
    }
    ret->end = scan->at;
    return depth == 0 && ret->end > ret->at;
}

bool json_scan_member(struct json_scan scan, const char *key, struct json_scan *ret) {
    size_t key_bytes = strlen(key);
    if (!json_scan_take(&scan, '{')) {
        return false;
    }
    do {
        struct json_scan name;
        if (!json_scan_skip(&scan, &name) || *name.at != '"' || !json_scan_take(&scan, ':') ||
            !json_scan_skip(&scan, ret)) {
            return false;
        }
        if ((size_t)(name.end - name.at) == key_bytes + 2 && memcmp(name.at + 1, key, key_bytes) == 0) {
            return true;
        }
    } while (json_scan_take(&scan, ','));
    return false;
}
