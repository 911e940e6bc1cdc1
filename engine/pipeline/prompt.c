/* Prompts: see prompt.h. */
#include "pipeline/prompt.h"

#include <sodium.h>
#include <string.h>

#include "pipeline/cache_folder.h"
#include "pipeline/latents.h"
#include "text/chat_template.h"

#define CACHE_KIND "prompts"

/* Features depend on the ids, on how many of them are real, on the encoder, and on who computed in which arithmetic. */
static void make_key(const struct cyi_model *model, const int32_t *ids, size_t n_used, uint8_t key[PROMPT_KEY_BYTES]) {
    const struct model_options *o = &model->options;
    const struct backend_info *backend = &model->engine->choice.info;
    const uint64_t numbers[3] = { (uint64_t)o->max_text_tokens, n_used, (uint64_t)model->engine->act_dtype };
    crypto_hash_sha256_state state;
    (void)crypto_hash_sha256_init(&state);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)CYI_VERSION, sizeof CYI_VERSION);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)backend->version, strlen(backend->version) + 1);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)backend->isa, strlen(backend->isa) + 1);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)model->encoder_fingerprint, 64);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)numbers, sizeof numbers);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)o->text_layers,
                                    (size_t)o->n_text_layers * sizeof o->text_layers[0]);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)ids, (size_t)o->max_text_tokens * sizeof *ids);
    (void)crypto_hash_sha256_final(&state, key);
}

/* The slot of a key, or the slot that was not used for longest. */
static struct kept_prompt *find_slot(struct cyi_model *model, const uint8_t key[PROMPT_KEY_BYTES], bool *ret_is_hit) {
    struct kept_prompt *oldest = &model->prompts[0];
    *ret_is_hit = false;
    for (size_t i = 0; i < N_KEPT_PROMPTS; i++) {
        struct kept_prompt *slot = &model->prompts[i];
        if (slot->features != NULL && memcmp(slot->key, key, PROMPT_KEY_BYTES) == 0) {
            *ret_is_hit = true;
            return slot;
        }
        if (slot->last_use < oldest->last_use) {
            oldest = slot;
        }
    }
    return oldest;
}

static enum cyi_status compute_features(struct cyi_model *model, struct exec *ex, const int32_t *ids, size_t n_used,
                                        struct tensor *features, struct cyi_error *err) {
    enum cyi_status st = qwen3_forward(model->encoder, ex,
                                       &(struct qwen3_prompt){ .ids = ids,
                                                               .n_tokens = model->options.max_text_tokens,
                                                               .n_used = (int64_t)n_used,
                                                               .layers = model->options.text_layers,
                                                               .n_layers = model->options.n_text_layers,
                                                               .features = features },
                                       err);
    if (st != CYI_OK) {
        return st;
    }
    if (!latents_are_finite(features)) {
        return error_set(err, CYI_E_NUMERIC,
                         "the text encoder gave values that are not finite numbers: are its weights damaged?");
    }
    return CYI_OK;
}

enum cyi_status prompt_encode(struct cyi_model *model, struct exec *ex, const char *prompt, struct prompt_features *ret,
                              struct cyi_error *err) {
    const struct cyi_allocator *allocator = &model->engine->allocator;
    int64_t n_tokens = model->options.max_text_tokens;
    int64_t width = flux2_get_config(model->transformer)->text_width;
    size_t n_values = (size_t)(n_tokens * width);
    size_t n_used = 0;
    size_t n_full = 0;
    uint8_t key[PROMPT_KEY_BYTES];
    char name[2 * PROMPT_KEY_BYTES + 1];
    enum cyi_status st = CYI_OK;
    bool is_cached;
    struct arena_mark mark = arena_get_mark(ex->arena);
    int32_t *ids = arena_alloc(ex->arena, (size_t)n_tokens, sizeof *ids);
    if (ids == NULL) {
        TRY(error_memory(err, "token ids", (size_t)n_tokens * sizeof *ids));
    }
    TRY(chat_template_encode(model->tokenizer, allocator, prompt, ids, (size_t)n_tokens, &n_used, &n_full, err));
    make_key(model, ids, n_used, key);
    (void)sodium_bin2hex(name, sizeof name, key, sizeof key);

    struct kept_prompt *slot = find_slot(model, key, &is_cached);
    if (!is_cached) {
        float *values = slot->features != NULL ? slot->features : mem_alloc(allocator, n_values * sizeof *values);
        slot->features = NULL;
        if (values == NULL) {
            TRY(error_memory(err, "the prompt's features", n_values * sizeof *values));
        }
        struct tensor features = tensor_2d(DTYPE_F32, n_tokens, width, values);
        is_cached = cache_read(model->engine, CACHE_KIND, name, values, n_values);
        st = is_cached ? CYI_OK : compute_features(model, ex, ids, n_used, &features, err);
        if (st != CYI_OK) {
            mem_free(allocator, values);
            goto done;
        }
        if (!is_cached) {
            cache_write(model->engine, CACHE_KIND, name, values, n_values);
        }
        slot->features = values;
        memcpy(slot->key, key, sizeof key);
    }
    slot->last_use = ++model->n_prompt_uses;
    *ret = (struct prompt_features){ .features = tensor_2d(DTYPE_F32, n_tokens, width, slot->features),
                                     .n_tokens = (int)n_full,
                                     .is_cut = n_full > n_used,
                                     .is_cached = is_cached };
done:
    arena_release(ex->arena, mark);
    return st;
}
