/* The Qwen3 text encoder (4B and 8B for FLUX.2 klein, any other size of the family): token ids in, hidden states of
 * chosen layers out. Sizes come from the tensors, the rest from config.json. A model is immutable after open; a forward
 * belongs to one thread. */
#ifndef MODELS_QWEN3_H
#define MODELS_QWEN3_H

#include "io/safetensors.h"
#include "ops/ops.h"

struct qwen3;

struct qwen3_config {
    int64_t width; /* D, of the residual stream */
    int64_t n_layers;
    int64_t n_heads, n_kv_heads, head_dim; /* n_heads · head_dim may differ from D */
    int64_t mlp_width;                     /* F */
    int64_t n_vocab;
    double eps, rope_theta;
};

/* path: a folder with config.json and weights (stem "model"), or one .safetensors (then theta 1e6 and eps 1e-6, as
 * published). Errors: IO, FORMAT, SHAPE, DTYPE, UNSUPPORTED, MEMORY. */
enum cyi_status qwen3_open(const struct cyi_allocator *allocator, const char *path, struct qwen3 **ret_model,
                           struct cyi_error *err);
void qwen3_close(struct qwen3 *model);
const struct qwen3_config *qwen3_get_config(const struct qwen3 *model);
const struct weight_set *qwen3_get_weights(const struct qwen3 *model);

/* One prompt.
 *   ids      [n_tokens] : padded on the right, the first n_used (1 … n_tokens) are the text; the others are never
 *                         looked at as keys
 *   layers              : which hidden states, by transformers' counting: 0 the embedding, k the stream after k
 *                         layers, the last one the stream after all layers and the final norm
 *   features [n_tokens, n_layers · D] F32, memory of the caller: the hidden states side by side
 * Nothing behind the last layer that is read is computed. Reports a block to ex after each layer, as block
 * first_block + i of n_blocks_all (qwen3_count_blocks gives the number for one call; n_blocks_all 0: this call is
 * everything). Errors: ARGUMENT, SHAPE (an id outside the vocabulary), MEMORY, CANCELLED.
 * Checked by tests/golden/test_qwen3.c. */
struct qwen3_prompt {
    const int32_t *ids;
    int64_t n_tokens, n_used;
    const int *layers;
    int n_layers;
    int64_t first_block, n_blocks_all;
    struct tensor *features;
};
enum cyi_status qwen3_forward(const struct qwen3 *model, struct exec *ex, const struct qwen3_prompt *prompt,
                              struct cyi_error *err);
int64_t qwen3_count_blocks(const int *layers, int n_layers);

/* Most arena bytes of a forward over so many tokens. */
size_t qwen3_get_working_bytes(const struct qwen3 *model, int64_t n_tokens, enum dtype act_dtype);

#endif
