/* An opened model: its parts, what it is called, what it does by default, and what is kept between pictures. */
#ifndef PIPELINE_MODEL_H
#define PIPELINE_MODEL_H

#include "models/flux2.h"
#include "models/qwen3.h"
#include "models/vae.h"
#include "pipeline/engine.h"
#include "pipeline/preview.h"
#include "sample/schedule.h"
#include "text/bpe.h"

#define MODEL_MAX_TEXT_LAYERS 8
#define MODEL_MAX_TEXT_TOKENS 4096
#define N_KEPT_PROMPTS 4
#define PROMPT_KEY_BYTES 32

/* What a family's files do not say. Filled from the built-in table, then from cyberimage.json. */
struct model_options {
    char name[128];
    char licence[64];
    bool is_distilled;
    bool embeds_guidance; /* klein's pipeline never tells the transformer the guidance, dev's always does */
    struct schedule_config schedule;
    int text_layers[MODEL_MAX_TEXT_LAYERS]; /* hidden states that are read, counted in layers, ascending */
    int n_text_layers;
    int64_t max_text_tokens;
    int64_t width, height, n_steps;
    double guidance;
};

/* The transformer's text features of one prompt. */
struct kept_prompt {
    uint8_t key[PROMPT_KEY_BYTES]; /* token ids, encoder, layers and arithmetic */
    float *features;               /* [max_text_tokens, text_width]; NULL: an empty slot */
    uint64_t last_use;
};

/* A test's view into a picture in the making; see struct exec. */
struct model_observer {
    void (*observe)(void *user, const char *stage, const struct tensor *value);
    void *user;
};

struct cyi_model {
    struct cyi_engine *engine;
    struct model_options options;
    struct flux2 *transformer;
    struct qwen3 *encoder;
    struct vae *vae;
    struct bpe *tokenizer;
    struct backend *backend, *reference;
    char fingerprint[65], encoder_fingerprint[65], vae_fingerprint[65];
    int size_multiple; /* pixels along one side of a token */
    struct kept_prompt prompts[N_KEPT_PROMPTS];
    uint64_t n_prompt_uses;
    struct preview_map preview;
    struct model_observer observer;
};

/* Paths of a model's parts, as model_options_find works with them. */
struct model_paths {
    char *base; /* the folder that may hold model_index.json, cyberimage.json and the card */
    char *transformer, *text_encoder, *vae, *tokenizer;
};

/* Works out where the parts lie and checks that they are there. Errors: ARGUMENT, IO, FORMAT, UNSUPPORTED, MEMORY. */
enum cyi_status model_paths_find(const struct cyi_allocator *allocator, const struct cyi_model_options *options,
                                 struct model_paths *ret_paths, struct cyi_error *err);
void model_paths_done(const struct cyi_allocator *allocator, struct model_paths *paths);

/* Names, defaults and schedule: the built-in table by the transformer's shape, model_index.json, scheduler_config.json,
 * cyberimage.json, the card. Errors: IO, FORMAT, UNSUPPORTED. */
enum cyi_status model_options_find(const struct cyi_allocator *allocator, const struct model_paths *paths,
                                   const struct flux2_config *transformer, struct model_options *ret_options,
                                   struct cyi_error *err);

#endif
