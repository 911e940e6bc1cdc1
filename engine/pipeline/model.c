/* Opening a model: where its parts lie, whether they fit together, and what it is called. */
#include "pipeline/model.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "io/config.h"
#include "io/mapped_file.h"

/* ---- Paths ---- */

static enum cyi_status copy_path(const struct cyi_allocator *allocator, const char *path, char **ret,
                                 struct cyi_error *err) {
    *ret = mem_copy_string(allocator, path);
    return *ret != NULL ? CYI_OK : error_memory(err, "a path", strlen(path) + 1);
}

static enum cyi_status join_path(const struct cyi_allocator *allocator, const char *folder, const char *name,
                                 char **ret, struct cyi_error *err) {
    *ret = path_join(allocator, folder, name);
    return *ret != NULL ? CYI_OK : error_memory(err, "a path", strlen(folder) + strlen(name) + 2);
}

static bool path_exists(const char *path) {
    return file_exists(path) || folder_exists(path);
}

/* A part's path: what the caller said, else the first of `names` that is there below the base. */
static enum cyi_status find_part(const struct cyi_allocator *allocator, const char *base, const char *given,
                                 const char *what, const char *const names[2], char **ret, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    if (given != NULL) {
        if (!path_exists(given)) {
            return error_set(err, CYI_E_IO, "%s: no such file or folder (given as the %s)", given, what);
        }
        return copy_path(allocator, given, ret, err);
    }
    for (int i = 0; i < 2 && names[i] != NULL; i++) {
        char *path = NULL;
        TRY(join_path(allocator, base, names[i], &path, err));
        if (path_exists(path)) {
            *ret = path;
            return CYI_OK;
        }
        mem_free(allocator, path);
    }
    st = error_set(err, CYI_E_IO, "%s: the %s is missing: there is no %s here, and none was named", base, what,
                   names[0]);
done:
    return st;
}

/* The folder of a file. */
static enum cyi_status copy_folder(const struct cyi_allocator *allocator, const char *path, char **ret,
                                   struct cyi_error *err) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return copy_path(allocator, ".", ret, err);
    }
    enum cyi_status st = copy_path(allocator, path, ret, err);
    if (st == CYI_OK) {
        (*ret)[slash == path ? 1 : slash - path] = '\0';
    }
    return st;
}

/* A folder that is not of this family says so in its index. */
static enum cyi_status check_index(const struct cyi_allocator *allocator, const char *base, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct config *index = NULL;
    char *path = NULL;
    TRY(join_path(allocator, base, "model_index.json", &path, err));
    if (file_exists(path)) {
        TRY(config_open(allocator, path, &index, err));
        const char *name = config_get_string(index, "_class_name");
        if (name != NULL && strncmp(name, "Flux2", 5) != 0) {
            st = error_set(err, CYI_E_UNSUPPORTED, "%s: a %.60s model; this version runs the FLUX.2 klein family", base,
                           name);
        }
    }
done:
    config_close(index);
    mem_free(allocator, path);
    return st;
}

enum cyi_status model_paths_find(const struct cyi_allocator *allocator, const struct cyi_model_options *options,
                                 struct model_paths *ret_paths, struct cyi_error *err) {
    struct model_paths paths = { 0 };
    enum cyi_status st = CYI_OK;
    if (options == NULL || options->path == NULL || options->path[0] == '\0') {
        return error_set(err, CYI_E_ARGUMENT, "no model was named");
    }
    if (!path_exists(options->path)) {
        return error_set(err, CYI_E_IO, "%s: no such file or folder", options->path);
    }
    bool is_file = file_exists(options->path);
    if (is_file) {
        TRY(copy_path(allocator, options->path, &paths.transformer, err));
        TRY(copy_folder(allocator, options->path, &paths.base, err));
    } else {
        TRY(copy_path(allocator, options->path, &paths.base, err));
        TRY(check_index(allocator, paths.base, err));
        TRY(find_part(allocator, paths.base, NULL, "transformer", (const char *const[]){ "transformer", NULL },
                      &paths.transformer, err));
    }
    TRY(find_part(allocator, paths.base, options->text_encoder, "text encoder",
                  (const char *const[]){ "text_encoder", NULL }, &paths.text_encoder, err));
    TRY(find_part(allocator, paths.base, options->vae, "VAE", (const char *const[]){ "vae", "ae.safetensors" },
                  &paths.vae, err));
    TRY(find_part(allocator, paths.base, options->tokenizer, "tokenizer",
                  (const char *const[]){ "tokenizer", "tokenizer.json" }, &paths.tokenizer, err));
    if (is_file && options->text_encoder != NULL) {
        /* The folder that the encoder came from knows which of its layers are read. */
        mem_free(allocator, paths.base);
        paths.base = NULL;
        TRY(copy_folder(allocator, options->text_encoder, &paths.base, err));
    }
    *ret_paths = paths;
    return CYI_OK;
done:
    model_paths_done(allocator, &paths);
    return st;
}

void model_paths_done(const struct cyi_allocator *allocator, struct model_paths *paths) {
    mem_free(allocator, paths->base);
    mem_free(allocator, paths->transformer);
    mem_free(allocator, paths->text_encoder);
    mem_free(allocator, paths->vae);
    mem_free(allocator, paths->tokenizer);
    *paths = (struct model_paths){ 0 };
}

/* ---- Parts ---- */

/* FLUX.2 dev reads Mistral, which is another architecture than klein's Qwen3. */
static enum cyi_status check_encoder(const struct cyi_allocator *allocator, const char *path, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct config *file = NULL;
    char *config_path = NULL;
    TRY(join_path(allocator, path, "config.json", &config_path, err));
    if (file_exists(config_path)) {
        TRY(config_open(allocator, config_path, &file, err));
        const char *type = config_get_string(file, "model_type");
        if (type != NULL && strcmp(type, "qwen3") != 0) {
            st = error_set(err, CYI_E_UNSUPPORTED,
                           "%s: a %.40s text encoder; this version has qwen3 (FLUX.2 klein), not FLUX.2 dev's Mistral",
                           path, type);
        }
    }
done:
    config_close(file);
    mem_free(allocator, config_path);
    return st;
}

/* Sizes that must agree between the parts. */
static enum cyi_status check_parts(const struct cyi_model *model, struct cyi_error *err) {
    const struct flux2_config *transformer = flux2_get_config(model->transformer);
    const struct qwen3_config *encoder = qwen3_get_config(model->encoder);
    const struct vae_config *vae = vae_get_config(model->vae);
    const struct model_options *o = &model->options;
    for (int i = 0; i < o->n_text_layers; i++) {
        if (o->text_layers[i] > encoder->n_layers || (i > 0 && o->text_layers[i] <= o->text_layers[i - 1])) {
            return error_set(
                err, CYI_E_SHAPE,
                "%s: text_encoder_out_layers has %d, but they must ascend and the text encoder has %lld layers; "
                "cyberimage.json in the model's folder says which are read",
                o->name, o->text_layers[i], (long long)encoder->n_layers);
        }
    }
    int64_t features = o->n_text_layers * encoder->width;
    if (features != transformer->text_width) {
        return error_set(err, CYI_E_SHAPE,
                         "%s: the text encoder gives %d × %lld = %lld features, the transformer reads %lld: they do "
                         "not belong together",
                         o->name, o->n_text_layers, (long long)encoder->width, (long long)features,
                         (long long)transformer->text_width);
    }
    int64_t channels = vae->token_channels;
    if (channels != transformer->in_channels || channels != transformer->out_channels) {
        return error_set(
            err, CYI_E_SHAPE, "%s: the VAE's tokens have %lld channels, the transformer reads %lld and writes %lld",
            o->name, (long long)channels, (long long)transformer->in_channels, (long long)transformer->out_channels);
    }
    if (o->width % model->size_multiple != 0 || o->height % model->size_multiple != 0) {
        return error_set(err, CYI_E_FORMAT, "%s: the default size %lld × %lld is no multiple of %d", o->name,
                         (long long)o->width, (long long)o->height, model->size_multiple);
    }
    return CYI_OK;
}

/* One fingerprint of everything that decides on the pixels. */
static void fill_fingerprints(struct cyi_model *model) {
    char transformer[65];
    uint8_t hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_state state;
    weight_set_fingerprint(flux2_get_weights(model->transformer), transformer);
    weight_set_fingerprint(qwen3_get_weights(model->encoder), model->encoder_fingerprint);
    weight_set_fingerprint(vae_get_weights(model->vae), model->vae_fingerprint);
    (void)crypto_hash_sha256_init(&state);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)transformer, 64);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)model->encoder_fingerprint, 64);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)model->vae_fingerprint, 64);
    for (int i = 0; i < model->options.n_text_layers; i++) {
        (void)crypto_hash_sha256_update(&state, (const uint8_t *)&model->options.text_layers[i],
                                        sizeof model->options.text_layers[i]);
    }
    (void)crypto_hash_sha256_final(&state, hash);
    (void)sodium_bin2hex(model->fingerprint, sizeof model->fingerprint, hash, sizeof hash);
}

static enum cyi_status open_parts(struct cyi_model *model, const struct model_paths *paths, struct cyi_error *err) {
    const struct cyi_allocator *allocator = &model->engine->allocator;
    const struct backend_options backend = { .allocator = allocator,
                                             .n_threads = model->engine->n_threads,
                                             .device = model->engine->device,
                                             .max_device_bytes = model->engine->max_device_bytes,
                                             .products = model->engine->products };
    enum cyi_status st = CYI_OK;
    TRY(flux2_open(allocator, paths->transformer, &model->transformer, err));
    TRY(check_encoder(allocator, paths->text_encoder, err));
    TRY(qwen3_open(allocator, paths->text_encoder, &model->encoder, err));
    TRY(vae_open(allocator, paths->vae, &model->vae, err));
    model->size_multiple = (int)vae_get_config(model->vae)->token_pixels;
    TRY(model_options_find(allocator, paths, flux2_get_config(model->transformer), &model->options, err));
    TRY(check_parts(model, err));
    TRY(bpe_load(allocator, paths->tokenizer, &model->tokenizer, err));
    if (bpe_n_ids(model->tokenizer) > qwen3_get_config(model->encoder)->n_vocab) {
        TRY(error_set(err, CYI_E_SHAPE, "%s: the tokenizer has ids up to %d, the text encoder knows %lld",
                      model->options.name, (int)bpe_n_ids(model->tokenizer) - 1,
                      (long long)qwen3_get_config(model->encoder)->n_vocab));
    }
    TRY(model->engine->choice.kind->create(&backend, &model->backend, err));
    TRY(backend_reference.create(&backend, &model->reference, err));
    fill_fingerprints(model);
done:
    return st;
}

enum cyi_status cyi_model_open(struct cyi_engine *engine, const struct cyi_model_options *options,
                               struct cyi_model **ret_model, struct cyi_error *err) {
    const struct cyi_allocator *allocator = &engine->allocator;
    double start = engine_seconds();
    struct model_paths paths = { 0 };
    enum cyi_status st = CYI_OK;
    struct cyi_model *model = mem_alloc_zeroed(allocator, 1, sizeof *model);
    if (model == NULL) {
        return error_memory(err, "the model", sizeof *model);
    }
    model->engine = engine;
    TRY(model_paths_find(allocator, options, &paths, err));
    TRY(open_parts(model, &paths, err));
    engine_log(engine, CYI_LOG_INFO, "model.opened name=\"%s\" fingerprint=%.10s ms=%.0f", model->options.name,
               model->fingerprint, 1000.0 * (engine_seconds() - start));
    *ret_model = model;
    model = NULL;
done:
    model_paths_done(allocator, &paths);
    cyi_model_close(model);
    return st;
}

void cyi_model_close(struct cyi_model *model) {
    if (model == NULL) {
        return;
    }
    const struct cyi_allocator *allocator = &model->engine->allocator;
    for (size_t i = 0; i < N_KEPT_PROMPTS; i++) {
        mem_free(allocator, model->prompts[i].features);
    }
    preview_done(allocator, &model->preview);
    backend_free(model->backend);
    backend_free(model->reference);
    bpe_free(model->tokenizer);
    vae_close(model->vae);
    qwen3_close(model->encoder);
    flux2_close(model->transformer);
    mem_free(allocator, model);
}

void cyi_model_get_info(const struct cyi_model *model, struct cyi_model_info *ret_info) {
    const struct weight_set *sets[3] = { flux2_get_weights(model->transformer), qwen3_get_weights(model->encoder),
                                         vae_get_weights(model->vae) };
    const struct model_options *o = &model->options;
    struct cyi_model_info info = { .name = o->name,
                                   .family = "flux2",
                                   .licence = o->licence,
                                   .fingerprint = model->fingerprint,
                                   .is_distilled = o->is_distilled,
                                   .has_embedded_guidance = o->embeds_guidance,
                                   .max_text_tokens = (int)o->max_text_tokens,
                                   .default_width = (int)o->width,
                                   .default_height = (int)o->height,
                                   .default_steps = (int)o->n_steps,
                                   .default_guidance = (float)o->guidance,
                                   .size_multiple = model->size_multiple,
                                   .max_references = CYI_MAX_REFERENCES };
    for (int i = 0; i < 3; i++) {
        info.n_parameters += weight_set_n_parameters(sets[i]);
        info.mapped_bytes += weight_set_mapped_bytes(sets[i]);
    }
    *ret_info = info;
}
