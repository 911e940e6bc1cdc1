/* session: what every sub-command that runs the engine needs: the options about model and engine, the engine itself, an open model
 * found by name, and Ctrl-C. */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

#include "files.h"
#include "model_search.h"
#include "options.h"

struct session_options {
    const char *model; /* NULL: the bundled one */
    const char *text_encoder, *vae, *tokenizer;
    int n_threads; /* 0: one a core */
    const char *backend, *precision;
    int device;
    int device_memory; /* MiB; 0: all that is free */
    const char *cache; /* NULL: the usual folder */
    bool has_no_cache;
    bool is_verbose, is_quiet;
};

/* Rows for a struct `type` whose member `member` is a struct session_options. */
#define SESSION_MODEL_ROWS(type, member)                                                                               \
    { OPTION_HEADING, 0, NULL, NULL, "Model", 0, 0, 0, NULL },                                                         \
        { OPTION_TEXT,                                                                                                 \
          'm',                                                                                                         \
          "model",                                                                                                     \
          "MODEL",                                                                                                     \
          "A name that \"cyberimage models\" lists, a folder in diffusers layout,\nor a transformer as one "           \
          ".safetensors file (default: " MODEL_BUNDLED ")",                                                            \
          offsetof(struct type, member.model),                                                                         \
          0,                                                                                                           \
          0,                                                                                                           \
          NULL },                                                                                                      \
        { OPTION_TEXT,                                                                                                 \
          0,                                                                                                           \
          "text-encoder",                                                                                              \
          "PATH",                                                                                                      \
          "For a single file: text encoder, a folder or .safetensors",                                                 \
          offsetof(struct type, member.text_encoder),                                                                  \
          0,                                                                                                           \
          0,                                                                                                           \
          NULL },                                                                                                      \
        { OPTION_TEXT,                                                                                                 \
          0,                                                                                                           \
          "vae",                                                                                                       \
          "PATH",                                                                                                      \
          "For a single file: VAE, a folder or .safetensors",                                                          \
          offsetof(struct type, member.vae),                                                                           \
          0,                                                                                                           \
          0,                                                                                                           \
          NULL },                                                                                                      \
    {                                                                                                                  \
        OPTION_TEXT, 0, "tokenizer", "PATH", "For a single file: tokenizer.json or its folder",                        \
            offsetof(struct type, member.tokenizer), 0, 0, NULL                                                        \
    }

#define SESSION_ENGINE_ROWS(type, member)                                                                              \
    { OPTION_HEADING, 0, NULL, NULL, "Engine", 0, 0, 0, NULL },                                                        \
        { OPTION_INT,                                                                                                  \
          't',                                                                                                         \
          "threads",                                                                                                   \
          "N",                                                                                                         \
          "Threads (default: one for each core that it may use)",                                                      \
          offsetof(struct type, member.n_threads),                                                                     \
          1,                                                                                                           \
          1024,                                                                                                        \
          NULL },                                                                                                      \
        { OPTION_CHOICE,                                                                                               \
          0,                                                                                                           \
          "backend",                                                                                                   \
          "NAME",                                                                                                      \
          "auto (default: a card when there is one), cuda, onednn (the processor)\nor reference (plain and slow)",     \
          offsetof(struct type, member.backend),                                                                       \
          0,                                                                                                           \
          0,                                                                                                           \
          "auto|cuda|onednn|reference" },                                                                              \
        { OPTION_CHOICE,                                                                                               \
          0,                                                                                                           \
          "precision",                                                                                                 \
          "P",                                                                                                         \
          "auto (default), f32, bf16, or on a card fp8 or int8; auto takes bf16\nwhere it is fast",                    \
          offsetof(struct type, member.precision),                                                                     \
          0,                                                                                                           \
          0,                                                                                                           \
          "auto|f32|bf16|fp8|int8" },                                                                                  \
        { OPTION_INT,                                                                                                  \
          0,                                                                                                           \
          "device",                                                                                                    \
          "N",                                                                                                         \
          "Which card, counted from 0 (default: 0)",                                                                   \
          offsetof(struct type, member.device),                                                                        \
          0,                                                                                                           \
          63,                                                                                                          \
          NULL },                                                                                                      \
        { OPTION_INT,                                                                                                  \
          0,                                                                                                           \
          "device-memory",                                                                                             \
          "MIB",                                                                                                       \
          "Most memory of the card to use (default: all that is free)",                                                \
          offsetof(struct type, member.device_memory),                                                                 \
          512,                                                                                                         \
          1048576,                                                                                                     \
          NULL },                                                                                                      \
        { OPTION_TEXT,                                                                                                 \
          0,                                                                                                           \
          "cache",                                                                                                     \
          "FOLDER",                                                                                                    \
          "Where prompt embeddings are kept (default: $XDG_CACHE_HOME/cyberimage\nor ~/.cache/cyberimage)",            \
          offsetof(struct type, member.cache),                                                                         \
          0,                                                                                                           \
          0,                                                                                                           \
          NULL },                                                                                                      \
    {                                                                                                                  \
        OPTION_FLAG, 0, "no-cache", NULL, "Keep nothing on disk", offsetof(struct type, member.has_no_cache), 0, 0,    \
            NULL                                                                                                       \
    }

struct session {
    const struct session_options *options;
    struct cyi_engine *engine;
    struct cyi_model *model;
    struct cyi_model_info model_info;
    struct cyi_engine_info engine_info;
    char *model_path;
    char *cache;
};

/* The precision of that name; AUTO for NULL and any other. */
enum cyi_precision session_precision(const char *name);
/* The folder for what is kept, made when missing; NULL: none. One that the user named must work, the usual one is only a help.
 * The caller frees it. Errors: IO. */
enum cyi_status session_choose_cache(const struct session_options *options, char **ret_cache, struct cyi_error *err);

/* Creates the engine. Errors: as cyi_engine_create, IO (cache folder that was named but cannot be made). */
enum cyi_status session_start(const struct session_options *options, struct session *ret_session,
                              struct cyi_error *err);
/* Opens options->model. Errors: ARGUMENT (no model of that name), and those of cyi_model_open. */
enum cyi_status session_open_model(struct session *session, struct cyi_error *err);
/* Opens the model at path with the parts that the options name. */
enum cyi_status session_open_path(struct session *session, const char *path, struct cyi_error *err);
void session_close_model(struct session *session);
void session_done(struct session *session); /* NULL parts are fine */

/* After this, Ctrl-C and SIGTERM set a flag that the engine's callback sees. When that does not end the program within a second
 * (one operation of a very large picture can take longer), the program ends itself, but never while a file is being saved: such
 * stretches stand between session_begin_saving and session_end_saving. The third Ctrl-C ends it whatever it does. */
void session_catch_signals(void);
bool session_is_cancelled(void);
void session_begin_saving(void);
void session_end_saving(void);

/* The exit code for an error of cyi_model_open, cyi_plan_memory or cyi_generate. */
int session_exit_code(enum cyi_status status);

#endif
