/* The prompt template of FLUX.2 klein: what Qwen3's chat template makes of one user message with thinking disabled. */
#ifndef TEXT_CHAT_TEMPLATE_H
#define TEXT_CHAT_TEMPLATE_H

#include "text/bpe.h"

/* "<|im_start|>user\nPROMPT<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", encoded, cut on the right to n_max ids, padded
 * on the right with <|endoftext|>.
 *   ids    : n_max ids, memory of the caller
 *   ret_used : real ids before the padding;  ret_full : ids before cutting (used < full: the prompt was cut)
 * Errors: ARGUMENT (invalid UTF-8), FORMAT (the tokenizer lacks a token of the template), MEMORY. */
enum cyi_status chat_template_encode(const struct bpe *bpe, const struct cyi_allocator *allocator, const char *prompt,
                                     int32_t *ids, size_t n_max, size_t *ret_used, size_t *ret_full,
                                     struct cyi_error *err);

#endif
