/* The prompt template of FLUX.2 klein: see chat_template.h. */
#include "text/chat_template.h"

#include <string.h>

#include "text/bpe_private.h"
#include "text/unicode.h"

#define BEFORE_PROMPT "<|im_start|>user\n"
#define AFTER_PROMPT "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
#define PADDING "<|endoftext|>"
#define PROMPT_MAX_BYTES ((size_t)64 * 1024 * 1024)

/* The tokens of the template must be single ids, or the model would read the template as prose. */
static enum cyi_status check_tokens(const struct bpe *bpe, struct cyi_error *err) {
    static const char *const tokens[] = { "<|im_start|>", "<|im_end|>", "<think>", "</think>", PADDING };
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        if (bpe_token_id(bpe, tokens[i]) < 0) {
            return error_set(err, CYI_E_FORMAT, "the tokenizer has no token \"%s\", which the prompt template needs",
                             tokens[i]);
        }
    }
    return CYI_OK;
}

enum cyi_status chat_template_encode(const struct bpe *bpe, const struct cyi_allocator *allocator, const char *prompt,
                                     int32_t *ids, size_t n_max, size_t *ret_used, size_t *ret_full,
                                     struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    int32_t *all_ids = NULL;
    size_t n_all = 0;
    size_t prompt_bytes = strlen(prompt);
    struct byte_buffer text;
    byte_buffer_init(&text, allocator, PROMPT_MAX_BYTES);
    TRY(check_tokens(bpe, err));
    TRY(unicode_check_utf8("the prompt", prompt, prompt_bytes, err));
    TRY(byte_buffer_append(&text, BEFORE_PROMPT, sizeof BEFORE_PROMPT - 1, err));
    TRY(byte_buffer_append(&text, prompt, prompt_bytes, err));
    TRY(byte_buffer_append(&text, AFTER_PROMPT, sizeof AFTER_PROMPT - 1, err));
    TRY(bpe_encode(bpe, (const char *)text.data, text.size_bytes, &all_ids, &n_all, err));
    size_t n_used = n_all < n_max ? n_all : n_max;
    if (n_used > 0) {
        memcpy(ids, all_ids, n_used * sizeof *ids);
    }
    int32_t padding = bpe_token_id(bpe, PADDING);
    for (size_t i = n_used; i < n_max; i++) {
        ids[i] = padding;
    }
    *ret_used = n_used;
    *ret_full = n_all;
done:
    mem_free(bpe->allocator, all_ids);
    byte_buffer_done(&text);
    return st;
}
