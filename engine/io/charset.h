/* Character sets that picture files use for texts, to and from UTF-8. */
#ifndef IO_CHARSET_H
#define IO_CHARSET_H

#include "core/memory.h"

bool charset_is_utf8(const void *text, size_t size_bytes); /* valid, without NUL */
/* Whether every character of valid UTF-8 is in Latin-1 (below U+0100). */
bool charset_fits_latin1(const char *utf8);

/* New strings, released with mem_free; they end at the first NUL of the input. NULL when there is no memory. */
char *charset_from_utf8(const struct cyi_allocator *allocator, const void *bytes,
                        size_t size_bytes); /* not valid: as Latin-1 */
char *charset_from_latin1(const struct cyi_allocator *allocator, const void *bytes, size_t size_bytes);
/* Lone surrogates become U+FFFD. */
char *charset_from_utf16(const struct cyi_allocator *allocator, const void *bytes, size_t size_bytes,
                         bool is_big_endian);

/* Latin-1 of UTF-8 that fits. */
char *charset_to_latin1(const struct cyi_allocator *allocator, const char *utf8);
/* Appends valid UTF-8 as UTF-16, big-endian, without a mark or an end. */
enum cyi_status charset_append_utf16be(struct byte_buffer *out, const char *utf8, struct cyi_error *err);

#endif
