/* Memory, sentences, numbers and safe text of the command line: see text.h. */
#include "text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void text_out_of_memory(void) {
    fputs("cyberimage: out of memory\n", stderr);
    exit(CLI_FAILED);
}

static void *check_block(void *block) {
    if (block == NULL) {
        text_out_of_memory();
    }
    return block;
}

void *text_alloc(size_t n, size_t size_bytes) {
    return check_block(calloc(n > 0 ? n : 1, size_bytes));
}

void *text_resize(void *block, size_t n, size_t size_bytes) {
    return check_block(reallocarray(block, n > 0 ? n : 1, size_bytes));
}

char *text_copy(const char *text) {
    return text == NULL ? NULL : check_block(strdup(text));
}

char *text_format(const char *format, ...) {
    char *text = NULL;
    va_list args;
    va_start(args, format);
    const int n = vasprintf(&text, format, args);
    va_end(args);
    return check_block(n < 0 ? NULL : text);
}

enum cyi_status text_error(struct cyi_error *err, enum cyi_status code, const char *format, ...) {
    if (err->code == CYI_OK) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        err->code = code;
    }
    return code;
}

int text_report(const struct cyi_error *err, int exit_code) {
    fputs("cyberimage: ", stderr);
    text_write_safe(stderr, err->text, false);
    fputc('\n', stderr);
    return exit_code;
}

size_t text_read_character(const char *text, uint32_t *ret_code) {
    static const uint32_t smallest[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char first = (unsigned char)text[0];
    const size_t length = first < 0x80   ? 1
                          : first < 0xC2 ? 0
                          : first < 0xE0 ? 2
                          : first < 0xF0 ? 3
                          : first < 0xF5 ? 4
                                         : 0;
    if (length == 0) {
        return 0;
    }
    uint32_t code = length == 1 ? first : first & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        const unsigned char next = (unsigned char)text[i];
        if ((next & 0xC0) != 0x80) {
            return 0;
        }
        code = code << 6 | (next & 0x3Fu);
    }
    if (code < smallest[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
        return 0;
    }
    *ret_code = code;
    return length;
}

bool text_is_utf8(const char *text) {
    uint32_t code = 0;
    while (*text != '\0') {
        const size_t length = text_read_character(text, &code);
        if (length == 0) {
            return false;
        }
        text += length;
    }
    return true;
}

char *text_clean(const char *text) {
    char *clean = text_copy(text);
    for (char *at = clean; *at != '\0';) {
        uint32_t code = 0;
        const size_t length = text_read_character(at, &code);
        if (length == 0) {
            *at = '?';
        }
        at += length > 0 ? length : 1;
    }
    return clean;
}

/* Control characters, and those that turn the direction of the text after them. */
static bool is_dangerous(uint32_t code) {
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x2028 || code == 0x2029 || code == 0x200E ||
           code == 0x200F || code == 0x061C || (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

void text_write_safe(FILE *out, const char *text, bool keep_newlines) {
    while (*text != '\0') {
        uint32_t code = 0;
        const size_t length = text_read_character(text, &code);
        if (length == 0) {
            fprintf(out, "\\x%02X", (unsigned)(unsigned char)*text);
            text++;
            continue;
        }
        if (keep_newlines && (code == '\n' || code == '\t')) {
            fputc((int)code, out);
        } else if (is_dangerous(code)) {
            fprintf(out, code < 0x100 ? "\\x%02X" : "\\u{%X}", (unsigned)code);
        } else {
            fwrite(text, 1, length, out);
        }
        text += length;
    }
}

/* n in steps of 1000, with three digits that mean something. */
static const char *write_scaled(char buffer[TEXT_SHORT], uint64_t n, const char *const units[5]) {
    double value = (double)n;
    int unit = 0;
    while (value >= 999.5 && unit < 4) {
        value /= 1000.0;
        unit++;
    }
    const int n_digits = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    (void)snprintf(buffer, TEXT_SHORT, "%.*f%s", n_digits, value, units[unit]);
    return buffer;
}

const char *text_bytes(char buffer[TEXT_SHORT], uint64_t n_bytes) {
    static const char *const units[5] = { " bytes", " kB", " MB", " GB", " TB" };
    return write_scaled(buffer, n_bytes, units);
}

const char *text_count(char buffer[TEXT_SHORT], uint64_t n) {
    static const char *const units[5] = { "", " k", " M", " G", " T" };
    return write_scaled(buffer, n, units);
}

const char *text_seconds(char buffer[TEXT_SHORT], double seconds) {
    if (!(seconds >= 0.0) || seconds > 1e9) {
        (void)snprintf(buffer, TEXT_SHORT, "?");
    } else if (seconds < 9.995) {
        (void)snprintf(buffer, TEXT_SHORT, "%.2f s", seconds);
    } else if (seconds < 59.5) {
        (void)snprintf(buffer, TEXT_SHORT, "%.0f s", seconds);
    } else if (seconds < 3599.5) {
        const long whole = (long)(seconds + 0.5);
        (void)snprintf(buffer, TEXT_SHORT, "%ld min %02ld s", whole / 60, whole % 60);
    } else {
        const long minutes = (long)(seconds / 60.0 + 0.5);
        (void)snprintf(buffer, TEXT_SHORT, "%ld h %02ld min", minutes / 60, minutes % 60);
    }
    return buffer;
}
