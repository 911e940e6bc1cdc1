/* Character sets of texts in picture files: see charset.h. */
#include "io/charset.h"

#include <string.h>
#include <utf8proc.h>

#include "core/size.h"

#define REPLACEMENT 0xFFFD

bool charset_is_utf8(const void *text, size_t size_bytes) {
    const uint8_t *at = text;
    while (size_bytes > 0) {
        utf8proc_int32_t code;
        utf8proc_ssize_t step = utf8proc_iterate(at, size_bytes > 4 ? 4 : (utf8proc_ssize_t)size_bytes, &code);
        if (step <= 0 || code == 0) {
            return false;
        }
        at += step;
        size_bytes -= (size_t)step;
    }
    return true;
}

bool charset_fits_latin1(const char *utf8) {
    for (const uint8_t *at = (const uint8_t *)utf8; *at != 0; at++) {
        if (*at > 0xC3) { /* C2 and C3 lead U+0080 … U+00FF */
            return false;
        }
    }
    return true;
}

static size_t length_until_nul(const void *bytes, size_t size_bytes) {
    const uint8_t *end = size_bytes > 0 ? memchr(bytes, 0, size_bytes) : NULL;
    return end != NULL ? (size_t)(end - (const uint8_t *)bytes) : size_bytes;
}

/* Room for n groups of at most `most` bytes and the final NUL. */
static char *new_text(const struct cyi_allocator *allocator, size_t n, size_t most) {
    size_t size;
    return size_mul(&size, n, most) && size_add(&size, size, 1) ? mem_alloc(allocator, size) : NULL;
}

char *charset_from_utf8(const struct cyi_allocator *allocator, const void *bytes, size_t size_bytes) {
    size_t n = length_until_nul(bytes, size_bytes);
    if (!charset_is_utf8(bytes, n)) {
        return charset_from_latin1(allocator, bytes, n);
    }
    char *text = new_text(allocator, n, 1);
    if (text != NULL) {
        if (n > 0) {
            memcpy(text, bytes, n);
        }
        text[n] = 0;
    }
    return text;
}

char *charset_from_latin1(const struct cyi_allocator *allocator, const void *bytes, size_t size_bytes) {
    const uint8_t *from = bytes;
    size_t n = length_until_nul(bytes, size_bytes), used = 0;
    char *text = new_text(allocator, n, 2);
    if (text == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        used += (size_t)utf8proc_encode_char(from[i], (uint8_t *)text + used);
    }
    text[used] = 0;
    return text;
}

char *charset_from_utf16(const struct cyi_allocator *allocator, const void *bytes, size_t size_bytes,
                         bool is_big_endian) {
    const uint8_t *from = bytes;
    size_t n = size_bytes / 2, used = 0;
    int32_t high = 0; /* a leading surrogate that waits for its partner */
    char *text = new_text(allocator, n, 3);
    if (text == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        int32_t unit = is_big_endian ? from[2 * i] << 8 | from[2 * i + 1] : from[2 * i + 1] << 8 | from[2 * i];
        bool is_low = unit >= 0xDC00 && unit <= 0xDFFF;
        if (high != 0 && is_low) {
            int32_t code = 0x10000 + ((high - 0xD800) << 10) + (unit - 0xDC00);
            used += (size_t)utf8proc_encode_char(code, (uint8_t *)text + used);
            high = 0;
            continue;
        }
        if (high != 0) {
            used += (size_t)utf8proc_encode_char(REPLACEMENT, (uint8_t *)text + used);
            high = 0;
        }
        if (unit == 0) {
            break;
        }
        if (unit >= 0xD800 && unit <= 0xDBFF) {
            high = unit;
        } else {
            used += (size_t)utf8proc_encode_char(is_low ? REPLACEMENT : unit, (uint8_t *)text + used);
        }
    }
    if (high != 0) {
        used += (size_t)utf8proc_encode_char(REPLACEMENT, (uint8_t *)text + used);
    }
    text[used] = 0;
    return text;
}

char *charset_to_latin1(const struct cyi_allocator *allocator, const char *utf8) {
    char *text = new_text(allocator, strlen(utf8), 1);
    size_t used = 0;
    if (text == NULL) {
        return NULL;
    }
    for (const uint8_t *at = (const uint8_t *)utf8; *at != 0; at++) {
        if (*at < 0x80) {
            text[used++] = (char)*at;
        } else {
            text[used++] = (char)((at[0] & 3) << 6 | (at[1] & 0x3F));
            at++;
        }
    }
    text[used] = 0;
    return text;
}

enum cyi_status charset_append_utf16be(struct byte_buffer *out, const char *utf8, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    const uint8_t *at = (const uint8_t *)utf8;
    while (*at != 0 && st == CYI_OK) {
        utf8proc_int32_t code;
        at += utf8proc_iterate(at, -1, &code);
        uint8_t units[4] = { (uint8_t)(code >> 8), (uint8_t)code };
        if (code >= 0x10000) {
            int32_t rest = code - 0x10000, high = 0xD800 + (rest >> 10), low = 0xDC00 + (rest & 0x3FF);
            units[0] = (uint8_t)(high >> 8);
            units[1] = (uint8_t)high;
            units[2] = (uint8_t)(low >> 8);
            units[3] = (uint8_t)low;
        }
        st = byte_buffer_append(out, units, code >= 0x10000 ? 4 : 2, err);
    }
    return st;
}
