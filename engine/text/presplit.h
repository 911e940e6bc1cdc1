/* The pattern that cuts text into words before merging, run by PCRE2. Immutable after compile, share freely. */
#ifndef TEXT_PRESPLIT_H
#define TEXT_PRESPLIT_H

#include "core/memory.h"

struct presplit;
struct presplit_state; /* one encoding's scratch */

/* A pattern as tokenizer.json writes it (Oniguruma's dialect, as far as PCRE2 agrees; \s is the White_Space property).
 * name is for messages. Errors: FORMAT (the compiler's words and where), MEMORY. */
enum cyi_status presplit_compile(const struct cyi_allocator *allocator, const char *name, const char *pattern,
                                 size_t size_bytes, struct presplit **ret_split, struct cyi_error *err);
void presplit_free(struct presplit *split);

enum cyi_status presplit_begin(const struct presplit *split, struct presplit_state **ret_state, struct cyi_error *err);
void presplit_end(struct presplit_state *state);

/* The first match at or after `from` in valid UTF-8; *ret_start = *ret_end = size_bytes when there is none.
 * Errors: FORMAT (the pattern takes too long on this text), MEMORY. */
enum cyi_status presplit_find(const struct presplit *split, struct presplit_state *state, const char *text,
                              size_t size_bytes, size_t from, size_t *ret_start, size_t *ret_end,
                              struct cyi_error *err);

#endif
