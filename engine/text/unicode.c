/* Unicode for tokenizers: see unicode.h. Tables and composition are utf8proc's; the ordering of marks is ours, because
 * utf8proc's takes quadratic time on a long run of marks. */
#include "text/unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "core/size.h"

#define FIRST_LEAD_TO_COMPOSE 0xcc /* U+0300 begins with it; everything below U+0300 is NFC already */
#define SHORT_RUN 32               /* marks sorted by insertion */
#define MAX_DECOMPOSED 32          /* far more than any code point decomposes to */
#define N_COMBINING_CLASSES 256
#define LETTER_O_YAE 0x11a7 /* HANGUL JUNGSEONG O-YAE */

static const utf8proc_option_t nfc = UTF8PROC_STABLE | UTF8PROC_COMPOSE;

bool unicode_is_space(int32_t code_point) {
    if (code_point < 0x80) {
        return code_point == ' ' || (code_point >= '\t' && code_point <= '\r');
    }
    return code_point == 0x85 || code_point == 0xa0 || code_point == 0x1680 ||
           (code_point >= 0x2000 && code_point <= 0x200a) || code_point == 0x2028 || code_point == 0x2029 ||
           code_point == 0x202f || code_point == 0x205f || code_point == 0x3000;
}

/* Symbols that count as letters: circled and squared capitals. */
static bool is_letter_symbol(int32_t code_point) {
    return (code_point >= 0x24b6 && code_point <= 0x24e9) || (code_point >= 0x1f130 && code_point <= 0x1f149) ||
           (code_point >= 0x1f150 && code_point <= 0x1f169) || (code_point >= 0x1f170 && code_point <= 0x1f189);
}

bool unicode_is_word(int32_t code_point) {
    switch (utf8proc_category(code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return code_point == 0x200c || code_point == 0x200d || is_letter_symbol(code_point);
    }
}

int32_t unicode_decode(const char *text, size_t size_bytes, size_t *ret_size) {
    utf8proc_int32_t code_point = -1;
    utf8proc_ssize_t size = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size_bytes, &code_point);
    *ret_size = size > 0 ? (size_t)size : 1;
    return size > 0 ? code_point : -1;
}

int32_t unicode_decode_before(const char *text, size_t end, size_t *ret_size) {
    size_t start = end - 1;
    while (start > 0 && ((unsigned char)text[start] & 0xc0) == 0x80) {
        start--;
    }
    return unicode_decode(text + start, end - start, ret_size);
}

size_t unicode_count_valid(const char *text, size_t size_bytes) {
    size_t i = 0;
    while (i < size_bytes) {
        size_t size = 1;
        if ((unsigned char)text[i] >= 0x80 && unicode_decode(text + i, size_bytes - i, &size) < 0) {
            break;
        }
        i += size;
    }
    return i;
}

enum cyi_status unicode_check_utf8(const char *what, const char *text, size_t size_bytes, struct cyi_error *err) {
    size_t n_valid = unicode_count_valid(text, size_bytes);
    if (n_valid < size_bytes) {
        return error_set(err, CYI_E_ARGUMENT, "%s is not valid UTF-8 at byte %zu", what, n_valid);
    }
    return CYI_OK;
}

static bool needs_composing(const char *text, size_t size_bytes) {
    for (size_t i = 0; i < size_bytes; i++) {
        if ((unsigned char)text[i] >= FIRST_LEAD_TO_COMPOSE) {
            return true;
        }
    }
    return false;
}

/* How many code points the canonical decomposition has; written to points when that is not NULL. */
static size_t decompose(const char *text, size_t size_bytes, int32_t *points) {
    size_t n = 0;
    for (size_t i = 0; i < size_bytes;) {
        size_t size;
        int32_t code_point = unicode_decode(text + i, size_bytes - i, &size);
        utf8proc_int32_t parts[MAX_DECOMPOSED];
        int last_class = 0;
        utf8proc_ssize_t n_parts = utf8proc_decompose_char(code_point, parts, MAX_DECOMPOSED, nfc, &last_class);
        if (n_parts < 1 || n_parts > MAX_DECOMPOSED) {
            parts[0] = code_point;
            n_parts = 1;
        }
        if (points != NULL) {
            memcpy(points + n, parts, (size_t)n_parts * sizeof *points);
        }
        n += (size_t)n_parts;
        i += size;
    }
    return n;
}

static unsigned combining_class(int32_t code_point) {
    return (unsigned)utf8proc_get_property(code_point)->combining_class & (N_COMBINING_CLASSES - 1);
}

static void sort_short_run(int32_t *points, size_t n) {
    for (size_t i = 1; i < n; i++) {
        int32_t point = points[i];
        unsigned kind = combining_class(point);
        size_t k = i;
        while (k > 0 && combining_class(points[k - 1]) > kind) {
            points[k] = points[k - 1];
            k--;
        }
        points[k] = point;
    }
}

/* By counting: stable and linear. */
static void sort_long_run(int32_t *points, size_t n, int32_t *scratch) {
    size_t starts[N_COMBINING_CLASSES + 1] = { 0 };
    for (size_t i = 0; i < n; i++) {
        starts[combining_class(points[i]) + 1]++;
    }
    for (size_t kind = 0; kind < N_COMBINING_CLASSES; kind++) {
        starts[kind + 1] += starts[kind];
    }
    for (size_t i = 0; i < n; i++) {
        scratch[starts[combining_class(points[i])]++] = points[i];
    }
    memcpy(points, scratch, n * sizeof *points);
}

/* Canonical order: each run of marks by combining class, marks of one class in the order they came. */
static enum cyi_status order_marks(const struct cyi_allocator *allocator, int32_t *points, size_t n,
                                   struct cyi_error *err) {
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && combining_class(points[end]) != 0) {
            end++;
        }
        if (end - i > SHORT_RUN) {
            int32_t *scratch = mem_alloc(allocator, (end - i) * sizeof *scratch);
            if (scratch == NULL) {
                return error_memory(err, "ordering marks", (end - i) * sizeof *scratch);
            }
            sort_long_run(points + i, end - i, scratch);
            mem_free(allocator, scratch);
        } else {
            sort_short_run(points + i, end - i);
        }
        i = end + 1;
    }
    return CYI_OK;
}

/* Composes in place and returns how many code points are left. utf8proc takes U+11A7 for the trailing consonant "none" and
 * swallows it after a Hangul syllable; it composes with nothing, so what lies before it and after it is composed apart. */
static size_t compose_points(int32_t *points, size_t n) {
    size_t n_out = 0;
    for (size_t start = 0; start < n;) {
        size_t end = start;
        while (end < n && points[end] != LETTER_O_YAE) {
            end++;
        }
        utf8proc_ssize_t n_composed = utf8proc_normalize_utf32(points + start, (utf8proc_ssize_t)(end - start), nfc);
        size_t n_kept = n_composed < 0 ? 0 : (size_t)n_composed;
        memmove(points + n_out, points + start, n_kept * sizeof *points);
        n_out += n_kept;
        if (end < n) {
            points[n_out++] = LETTER_O_YAE;
        }
        start = end + 1;
    }
    return n_out;
}

/* In place: no code point needs more than the four bytes it stands in. */
static size_t encode_in_place(int32_t *points, size_t n) {
    utf8proc_uint8_t *out = (utf8proc_uint8_t *)points;
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t n_bytes = utf8proc_encode_char(points[i], bytes);
        memcpy(out + size, bytes, (size_t)n_bytes);
        size += (size_t)n_bytes;
    }
    return size;
}

enum cyi_status unicode_compose(const struct cyi_allocator *allocator, const char *text, size_t size_bytes,
                                const char **ret_text, size_t *ret_size, void **ret_block, struct cyi_error *err) {
    *ret_block = NULL;
    *ret_text = text;
    *ret_size = size_bytes;
    if (!needs_composing(text, size_bytes)) {
        return CYI_OK;
    }
    size_t n = decompose(text, size_bytes, NULL);
    int32_t *points = mem_alloc_zeroed(allocator, n, sizeof *points);
    if (points == NULL) {
        return error_memory(err, "composing a text", n * sizeof *points);
    }
    (void)decompose(text, size_bytes, points);
    enum cyi_status st = order_marks(allocator, points, n, err);
    if (st != CYI_OK) {
        mem_free(allocator, points);
        return st;
    }
    *ret_size = encode_in_place(points, compose_points(points, n));
    *ret_text = (const char *)points;
    *ret_block = points;
    return CYI_OK;
}
