/* The pre-split pattern: see presplit.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/presplit.h"

#include <pcre2.h>
#include <string.h>

#include "text/unicode.h"

#define PATTERN_MAX_BYTES ((size_t)1 << 20)

struct presplit {
    const struct cyi_allocator *allocator;
    pcre2_general_context *general; /* makes PCRE2 use our allocator */
    pcre2_code *code;
};

static void *allocate_block(size_t size_bytes, void *user) {
    const struct presplit *split = user;
    return mem_alloc(split->allocator, size_bytes);
}

static void release_block(void *block, void *user) {
    const struct presplit *split = user;
    mem_free(split->allocator, block);
}

/* Length of the element of a character class that begins at pattern[i]: "[:alpha:]" is one. */
static size_t measure_class_element(const char *pattern, size_t size, size_t i) {
    if (pattern[i] == '[' && i + 1 < size && pattern[i + 1] == ':') {
        for (size_t k = i + 2; k + 1 < size; k++) {
            if (pattern[k] == ':' && pattern[k + 1] == ']') {
                return k + 2 - i;
            }
        }
    }
    return 1;
}

/* PCRE2's \s has U+180E, which is no White_Space any more and no \s in Oniguruma: write the class out. */
static enum cyi_status write_space_escape(struct byte_buffer *out, const char *pattern, size_t size, size_t *i,
                                          bool in_class, struct cyi_error *err) {
    const char *text = in_class                 ? UNICODE_SPACE_CLASS
                       : pattern[*i + 1] == 's' ? "[" UNICODE_SPACE_CLASS "]"
                                                : "[^" UNICODE_SPACE_CLASS "]";
    *i += 2;
    enum cyi_status st = byte_buffer_append(out, text, strlen(text), err);
    if (st == CYI_OK && in_class && *i < size && pattern[*i] == '-') {
        *i += 1;
        st = byte_buffer_append(out, "\\-", 2, err); /* after \s a hyphen stands for itself */
    }
    return st;
}

static enum cyi_status translate_pattern(struct byte_buffer *out, const char *pattern, size_t size,
                                         struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    bool in_class = false;
    for (size_t i = 0; i < size;) {
        size_t n = 1;
        if (pattern[i] == '\\' && i + 1 < size) {
            bool is_space = pattern[i + 1] == 's' || (pattern[i + 1] == 'S' && !in_class);
            if (is_space) {
                TRY(write_space_escape(out, pattern, size, &i, in_class, err));
                continue;
            }
            n = 2;
        } else if (in_class) {
            n = measure_class_element(pattern, size, i);
            in_class = pattern[i] != ']';
        } else if (pattern[i] == '[') {
            in_class = true;
            n += i + n < size && pattern[i + n] == '^';
            n += i + n < size && pattern[i + n] == ']'; /* first in the class: itself */
        }
        TRY(byte_buffer_append(out, pattern + i, n, err));
        i += n;
    }
done:
    return st;
}

static enum cyi_status compile_code(struct presplit *split, const char *name, const char *pattern, size_t size,
                                    struct cyi_error *err) {
    int fault = 0;
    PCRE2_SIZE where = 0;
    pcre2_compile_context *context = pcre2_compile_context_create(split->general);
    if (context == NULL) {
        return error_memory(err, "compiling the pattern of a tokenizer", size);
    }
    split->code = pcre2_compile((PCRE2_SPTR)pattern, size, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &fault,
                                &where, context);
    pcre2_compile_context_free(context);
    if (split->code != NULL) {
        (void)pcre2_jit_compile(split->code, PCRE2_JIT_COMPLETE); /* where it cannot be had, matching works without */
        return CYI_OK;
    }
    if (fault == PCRE2_ERROR_HEAP_FAILED) {
        return error_memory(err, "the pattern of a tokenizer", size);
    }
    PCRE2_UCHAR reason[160] = "";
    (void)pcre2_get_error_message(fault, reason, sizeof reason);
    return error_set(err, CYI_E_FORMAT, "%s: the pattern of the pre-tokenizer is not understood: %s", name,
                     (const char *)reason);
}

enum cyi_status presplit_compile(const struct cyi_allocator *allocator, const char *name, const char *pattern,
                                 size_t size_bytes, struct presplit **ret_split, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct byte_buffer translated;
    byte_buffer_init(&translated, allocator, PATTERN_MAX_BYTES);
    struct presplit *split = mem_alloc_zeroed(allocator, 1, sizeof *split);
    if (split == NULL) {
        return error_memory(err, "the pattern of a tokenizer", sizeof *split);
    }
    split->allocator = allocator;
    if (size_bytes > PATTERN_MAX_BYTES / (2 * sizeof UNICODE_SPACE_CLASS)) {
        st = error_set(err, CYI_E_FORMAT, "%s: the pattern of the pre-tokenizer has %zu bytes, too many", name,
                       size_bytes);
        goto done;
    }
    TRY(translate_pattern(&translated, pattern, size_bytes, err));
    TRY(byte_buffer_append(&translated, "", 1, err));
    split->general = pcre2_general_context_create(allocate_block, release_block, split);
    if (split->general == NULL) {
        st = error_memory(err, "the pattern of a tokenizer", size_bytes);
        goto done;
    }
    TRY(compile_code(split, name, (const char *)translated.data, translated.size_bytes - 1, err));
    *ret_split = split;
    split = NULL;
done:
    byte_buffer_done(&translated);
    presplit_free(split);
    return st;
}

void presplit_free(struct presplit *split) {
    if (split == NULL) {
        return;
    }
    pcre2_code_free(split->code);
    pcre2_general_context_free(split->general);
    mem_free(split->allocator, split);
}

/* A presplit_state is PCRE2's match data under our name. */
enum cyi_status presplit_begin(const struct presplit *split, struct presplit_state **ret_state, struct cyi_error *err) {
    pcre2_match_data *data = pcre2_match_data_create(1, split->general);
    if (data == NULL) {
        return error_memory(err, "matching a pattern", sizeof(size_t));
    }
    *ret_state = (struct presplit_state *)data;
    return CYI_OK;
}

void presplit_end(struct presplit_state *state) {
    pcre2_match_data_free((pcre2_match_data *)state);
}

static enum cyi_status fail_match(int code, size_t from, struct cyi_error *err) {
    if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAPLIMIT) {
        return error_set(err, CYI_E_MEMORY, "out of memory: matching the tokenizer's pattern at byte %zu of the text",
                         from);
    }
    if (code == PCRE2_ERROR_MATCHLIMIT || code == PCRE2_ERROR_DEPTHLIMIT || code == PCRE2_ERROR_RECURSELOOP) {
        return error_set(err, CYI_E_FORMAT, "the tokenizer's pattern takes too long at byte %zu of the text", from);
    }
    PCRE2_UCHAR reason[160] = "";
    (void)pcre2_get_error_message(code, reason, sizeof reason);
    return error_set(err, CYI_E_FORMAT, "the tokenizer's pattern fails at byte %zu of the text: %s", from,
                     (const char *)reason);
}

enum cyi_status presplit_find(const struct presplit *split, struct presplit_state *state, const char *text,
                              size_t size_bytes, size_t from, size_t *ret_start, size_t *ret_end,
                              struct cyi_error *err) {
    pcre2_match_data *data = (pcre2_match_data *)state;
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int code = pcre2_match(split->code, (PCRE2_SPTR)text, size_bytes, from, options, data, NULL);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT) {
        code = pcre2_match(split->code, (PCRE2_SPTR)text, size_bytes, from, options | PCRE2_NO_JIT, data, NULL);
    }
    *ret_start = *ret_end = size_bytes;
    if (code == PCRE2_ERROR_NOMATCH) {
        return CYI_OK;
    }
    if (code < 0) {
        return fail_match(code, from, err);
    }
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(data);
    if (ends[0] < from || ends[1] < ends[0] || ends[1] > size_bytes) {
        return error_set(err, CYI_E_FORMAT, "the tokenizer's pattern matches backwards at byte %zu of the text", from);
    }
    *ret_start = ends[0];
    *ret_end = ends[1];
    return CYI_OK;
}
