/* Prompts: from text to the features that the transformer reads, kept in memory and in the cache folder. */
#ifndef PIPELINE_PROMPT_H
#define PIPELINE_PROMPT_H

#include "pipeline/model.h"

struct prompt_features {
    struct tensor features; /* [max_text_tokens, text_width] F32; the model's, valid until N_KEPT_PROMPTS other prompts
                               were encoded */
    int n_tokens;           /* of the template with the prompt, before cutting */
    bool is_cut, is_cached;
};

/* Errors: ARGUMENT (invalid UTF-8), NUMERIC, CANCELLED, MEMORY and what the encoder reports. */
enum cyi_status prompt_encode(struct cyi_model *model, struct exec *ex, const char *prompt, struct prompt_features *ret,
                              struct cyi_error *err);

#endif
