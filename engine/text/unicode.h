/* Unicode for tokenizers: checking UTF-8, the composed form NFC, two classes of code points. */
#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H

#include "core/memory.h"

/* The White_Space property as the inside of a PCRE2 character class. */
#define UNICODE_SPACE_CLASS                                                                                            \
    "\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

bool unicode_is_space(int32_t code_point);
/* Letters, marks, decimal digits, joining punctuation: what a regular expression's \w is. */
bool unicode_is_word(int32_t code_point);

/* How many bytes at the beginning are strict UTF-8: no surrogates, nothing overlong. */
size_t unicode_count_valid(const char *text, size_t size_bytes);
/* That all of them are. what names the text in the message. Errors: ARGUMENT (says at which byte). */
enum cyi_status unicode_check_utf8(const char *what, const char *text, size_t size_bytes, struct cyi_error *err);

/* The code point at text, which is valid UTF-8 and not at its end; *ret_size is its length in bytes. */
int32_t unicode_decode(const char *text, size_t size_bytes, size_t *ret_size);
/* The code point that ends at text + end, end > 0. */
int32_t unicode_decode_before(const char *text, size_t end, size_t *ret_size);

/* NFC of valid UTF-8. *ret_text is text itself when nothing changes for sure, else a block that is also given in *ret_block
 * (otherwise NULL) and released with mem_free. Takes n log n at most, whatever the marks. Errors: MEMORY. */
enum cyi_status unicode_compose(const struct cyi_allocator *allocator, const char *text, size_t size_bytes,
                                const char **ret_text, size_t *ret_size, void **ret_block, struct cyi_error *err);

#endif
