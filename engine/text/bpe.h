/* Byte-level BPE from tokenizer.json, as Qwen2/3 use it: added tokens are split out first, then NFC, the pre-split pattern, bytes to
 * the GPT-2 alphabet, merges by lowest rank. Gives the same ids as Hugging Face's tokenizers. Immutable after load, share freely. */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H

#include "core/memory.h"

#define TOKENIZER_MAX_FILE_BYTES ((size_t)64 * 1024 * 1024)

struct bpe;

/* path: a tokenizer.json, or the folder that holds it. Errors: IO, FORMAT (names what is wrong or not supported), MEMORY. */
enum cyi_status bpe_load(const struct cyi_allocator *allocator, const char *path, struct bpe **ret_bpe,
                         struct cyi_error *err);
/* From text in memory; name is for messages. */
enum cyi_status bpe_parse(const struct cyi_allocator *allocator, const char *name, const char *json, size_t size_bytes,
                          struct bpe **ret_bpe, struct cyi_error *err);
void bpe_free(struct bpe *bpe);

/* Encodes size_bytes bytes of UTF-8. *ret_ids holds *ret_n ids and is released with mem_free(allocator given at load); with no ids it is
 * NULL. Errors: ARGUMENT (invalid UTF-8: says at which byte), MEMORY. Threads: any number at a time. */
enum cyi_status bpe_encode(const struct bpe *bpe, const char *text, size_t size_bytes, int32_t **ret_ids, size_t *ret_n,
                           struct cyi_error *err);

/* The id of an added token or vocabulary entry by its exact content, −1 when there is none. */
int32_t bpe_token_id(const struct bpe *bpe, const char *content);
/* One more than the largest id. */
int32_t bpe_n_ids(const struct bpe *bpe);

#endif
