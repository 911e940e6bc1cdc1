/* The VAE of FLUX.2: see vae.h. Opening first, then how tokens and latents belong together, then the two directions. */
#include "models/vae.h"

#include <math.h>
#include <string.h>

#include "io/config.h"
#include "models/vae_net.h"
#include "models/weights.h"

#define MAX_BLOCKS 64

struct vae {
    const struct cyi_allocator *allocator;
    struct weight_set *weights;
    struct vae_config config;
    struct tensor bn_mean, bn_var; /* [4z] */
    float *mean, *deviation;       /* [4z]: of the packed latents: what normalisation takes away */
    struct vae_net *encoder, *decoder;
};

static const struct weight_row bn_rows[] = {
    { "bn.running_mean", NULL, offsetof(struct vae, bn_mean), "[C]", false },
    { "bn.running_var", NULL, offsetof(struct vae, bn_var), "[C]", false },
};

#define N_ROWS(rows) (sizeof(rows) / sizeof(rows)[0])

/* ---- Opening ---- */

/* The tensors that sizes are read from, in both styles. */
enum probe {
    PROBE_CONV_IN,
    PROBE_ENCODER_LEVEL,
    PROBE_DECODER_LEVEL,
    PROBE_ENCODER_BLOCK,
    PROBE_DECODER_BLOCK,
    PROBE_ATTENTION,
    PROBE_QUANT,
    PROBE_POST
};
static const char *const probes[][2] = {
    [PROBE_CONV_IN] = { "decoder.conv_in.weight", "decoder.conv_in.weight" },
    [PROBE_ENCODER_LEVEL] = { "encoder.down_blocks.%d.resnets.0.conv1.weight", "encoder.down.%d.block.0.conv1.weight" },
    [PROBE_DECODER_LEVEL] = { "decoder.up_blocks.%d.resnets.0.conv1.weight", "decoder.up.%d.block.0.conv1.weight" },
    [PROBE_ENCODER_BLOCK] = { "encoder.down_blocks.0.resnets.%d.conv1.weight", "encoder.down.0.block.%d.conv1.weight" },
    [PROBE_DECODER_BLOCK] = { "decoder.up_blocks.0.resnets.%d.conv1.weight", "decoder.up.0.block.%d.conv1.weight" },
    [PROBE_ATTENTION] = { "decoder.mid_block.attentions.0.to_q.weight", "decoder.mid.attn_1.q.weight" },
    [PROBE_QUANT] = { "quant_conv.weight", "encoder.quant_conv.weight" },
    [PROBE_POST] = { "post_quant_conv.weight", "decoder.post_quant_conv.weight" },
};

static const struct tensor *look(const struct weight_set *set, const struct vae_names *names, enum probe probe,
                                 int index) {
    return weights_peek(set, names->prefix, probes[probe][names->is_bfl], index);
}

static bool find_names(const struct weight_set *set, struct vae_names *ret_names) {
    static const char *const prefixes[] = { "", "vae.", "first_stage_model." };
    for (size_t i = 0; i < N_ROWS(prefixes); i++) {
        for (int is_bfl = 0; is_bfl < 2; is_bfl++) {
            struct vae_names names = { prefixes[i], is_bfl };
            if (look(set, &names, PROBE_DECODER_LEVEL, 0) != NULL && look(set, &names, PROBE_CONV_IN, 0) != NULL) {
                *ret_names = names;
                return true;
            }
        }
    }
    return false;
}

static int count_probes(const struct weight_set *set, const struct vae_names *names, enum probe probe, int max) {
    int n = 0;
    while (n < max && look(set, names, probe, n) != NULL) {
        n++;
    }
    return n;
}

static int64_t greatest_divisor(int64_t a, int64_t b) {
    return b == 0 ? a : greatest_divisor(b, a % b);
}

/* The largest number up to 32 that divides all widths: what the config says for every model that is known. */
static int64_t guess_groups(const struct vae_config *c) {
    int64_t common = 0;
    for (int i = 0; i < c->n_levels; i++) {
        common = greatest_divisor(greatest_divisor(common, c->encoder_widths[i]), c->decoder_widths[i]);
    }
    int64_t n = 32;
    while (n > 1 && common % n != 0) {
        n--;
    }
    return n;
}

/* Sizes as the tensors have them. What is absent here is named when the layers are bound. */
static void infer_config(const struct weight_set *set, const struct vae_names *names, struct vae_config *c) {
    *c = (struct vae_config){ .eps = 1e-6, .batch_norm_eps = 1e-4, .tile_pixels = 1024 };
    c->latent_channels = look(set, names, PROBE_CONV_IN, 0)->shape[1];
    c->token_channels = 4 * c->latent_channels;
    int n_encoder_levels = count_probes(set, names, PROBE_ENCODER_LEVEL, VAE_MAX_LEVELS);
    int n_decoder_levels = count_probes(set, names, PROBE_DECODER_LEVEL, VAE_MAX_LEVELS);
    c->n_levels = n_encoder_levels > n_decoder_levels ? n_encoder_levels : n_decoder_levels;
    c->latent_pixels = (int64_t)1 << (c->n_levels - 1);
    c->token_pixels = 2 * c->latent_pixels;
    for (int i = 0; i < c->n_levels; i++) {
        const struct tensor *encoder = look(set, names, PROBE_ENCODER_LEVEL, i);
        const struct tensor *decoder = look(set, names, PROBE_DECODER_LEVEL, names->is_bfl ? i : c->n_levels - 1 - i);
        c->encoder_widths[i] = encoder == NULL ? 0 : encoder->shape[0];
        c->decoder_widths[i] = decoder == NULL ? 0 : decoder->shape[0];
    }
    c->n_encoder_blocks = count_probes(set, names, PROBE_ENCODER_BLOCK, MAX_BLOCKS);
    c->n_decoder_blocks = count_probes(set, names, PROBE_DECODER_BLOCK, MAX_BLOCKS);
    c->has_attention = look(set, names, PROBE_ATTENTION, 0) != NULL;
    c->has_quant = look(set, names, PROBE_QUANT, 0) != NULL;
    c->has_post_quant = look(set, names, PROBE_POST, 0) != NULL;
    c->n_groups = guess_groups(c);
}

/* What config.json says must be what the tensors have. */
static enum cyi_status contradict(const char *key, int64_t want, int64_t have, struct cyi_error *err) {
    return error_set(err, CYI_E_SHAPE, "VAE: config.json says %s = %lld, the tensors say %lld", key, (long long)want,
                     (long long)have);
}

static enum cyi_status check_size(const struct config *file, const char *key, int64_t have, struct cyi_error *err) {
    int64_t want;
    enum cyi_status st = config_get_int_or(file, key, 0, INT32_MAX, have, &want, err);
    return st == CYI_OK && want != have ? contradict(key, want, have, err) : st;
}

static enum cyi_status check_flag(const struct config *file, const char *key, bool have, struct cyi_error *err) {
    bool want;
    enum cyi_status st = config_get_bool_or(file, key, have, &want, err);
    return st == CYI_OK && want != have ? contradict(key, want, have, err) : st;
}

/* More residual blocks than the file has become missing tensors when they are bound; fewer are a contradiction. */
static enum cyi_status read_blocks(const struct config *file, struct vae_config *c, struct cyi_error *err) {
    int64_t n;
    enum cyi_status st = config_get_int_or(file, "layers_per_block", 1, MAX_BLOCKS, c->n_encoder_blocks, &n, err);
    if (st == CYI_OK && (n < c->n_encoder_blocks || n + 1 < c->n_decoder_blocks)) {
        return contradict("layers_per_block", n,
                          n < c->n_encoder_blocks ? c->n_encoder_blocks : c->n_decoder_blocks - 1, err);
    }
    if (st == CYI_OK) {
        c->n_encoder_blocks = n;
        c->n_decoder_blocks = n + 1;
    }
    return st;
}

/* 0: a tensor is missing, which is said when it is bound. */
static enum cyi_status check_widths(const struct config *file, const char *key, const int64_t *have, int n_levels,
                                    struct cyi_error *err) {
    int64_t want[VAE_MAX_LEVELS] = { 0 };
    size_t n = 0;
    if (!config_has(file, key)) {
        return CYI_OK;
    }
    enum cyi_status st = config_get_ints(file, key, 1, INT32_MAX, VAE_MAX_LEVELS, want, &n, err);
    if (st == CYI_OK && n != (size_t)n_levels) {
        return error_set(err, CYI_E_SHAPE, "VAE: config.json gives %zu values for %s, the tensors have %d levels", n,
                         key, n_levels);
    }
    for (int i = 0; i < n_levels && st == CYI_OK; i++) {
        st = want[i] == have[i] || have[i] == 0 ? CYI_OK : contradict(key, want[i], have[i], err);
    }
    return st;
}

/* Members of the family that would compute something else. */
static enum cyi_status check_supported(const struct config *file, struct cyi_error *err) {
    const char *act = config_get_string(file, "act_fn");
    int64_t patch[2] = { 2, 2 };
    size_t n = 2;
    enum cyi_status st = CYI_OK;
    if (act != NULL && strcmp(act, "silu") != 0) {
        return error_set(err, CYI_E_UNSUPPORTED, "VAE: config.json says act_fn = %.40s, only silu is supported", act);
    }
    if (config_has(file, "patch_size")) {
        st = config_get_ints(file, "patch_size", 1, 64, 2, patch, &n, err);
    }
    if (st == CYI_OK && (n != 2 || patch[0] != 2 || patch[1] != 2)) {
        st = error_set(err, CYI_E_UNSUPPORTED, "VAE: config.json says another patch_size than [2, 2]");
    }
    return st;
}

static enum cyi_status read_config(const struct config *file, struct vae_config *c, struct cyi_error *err) {
    const char *decoder_key =
        config_has(file, "decoder_block_out_channels") ? "decoder_block_out_channels" : "block_out_channels";
    enum cyi_status st = CYI_OK;
    TRY(check_supported(file, err));
    TRY(check_size(file, "in_channels", 3, err));
    TRY(check_size(file, "out_channels", 3, err));
    TRY(check_size(file, "latent_channels", c->latent_channels, err));
    TRY(check_widths(file, "block_out_channels", c->encoder_widths, c->n_levels, err));
    TRY(check_widths(file, decoder_key, c->decoder_widths, c->n_levels, err));
    TRY(read_blocks(file, c, err));
    TRY(check_flag(file, "use_quant_conv", c->has_quant, err));
    TRY(check_flag(file, "use_post_quant_conv", c->has_post_quant, err));
    TRY(check_flag(file, "mid_block_add_attention", c->has_attention, err));
    TRY(config_get_int_or(file, "norm_num_groups", 1, 4096, c->n_groups, &c->n_groups, err));
    TRY(config_get_int_or(file, "sample_size", 1, 65536, c->tile_pixels, &c->tile_pixels, err));
    TRY(config_get_float_or(file, "batch_norm_eps", 0.0, 1.0, c->batch_norm_eps, &c->batch_norm_eps, err));
done:
    return st;
}

/* config.json of a folder, when there is one. */
static enum cyi_status load_config(struct vae *model, const char *path, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct config *file = NULL;
    char *config_path = NULL;
    if (!folder_exists(path)) {
        return CYI_OK;
    }
    config_path = path_join(model->allocator, path, "config.json");
    if (config_path == NULL) {
        TRY(error_memory(err, "a path", strlen(path)));
    }
    if (file_exists(config_path)) {
        TRY(config_open(model->allocator, config_path, &file, err));
        TRY(read_config(file, &model->config, err));
    }
done:
    config_close(file);
    mem_free(model->allocator, config_path);
    return st;
}

/* Before anything is bound: a width of 0 may still be a missing tensor, which is named then. */
static enum cyi_status check_config(struct vae_config *c, const char *path, struct cyi_error *err) {
    if (c->latent_channels < 1) {
        return error_set(err, CYI_E_SHAPE, "%s: decoder.conv_in.weight has no latent channels", path);
    }
    for (int i = 0; i < c->n_levels; i++) {
        if (c->encoder_widths[i] % c->n_groups != 0 || c->decoder_widths[i] % c->n_groups != 0) {
            return error_set(err, CYI_E_SHAPE, "%s: widths %lld and %lld of level %d cannot be cut into %lld groups",
                             path, (long long)c->encoder_widths[i], (long long)c->decoder_widths[i], i,
                             (long long)c->n_groups);
        }
    }
    /* The reference's geometry is exact only for tiles whose quarters are whole latents. */
    int64_t unit = 4 * c->latent_pixels;
    c->tile_pixels = c->tile_pixels < unit ? unit : c->tile_pixels / unit * unit;
    return CYI_OK;
}

static enum cyi_status check_not_empty(const struct vae_config *c, const char *path, struct cyi_error *err) {
    for (int i = 0; i < c->n_levels; i++) {
        if (c->encoder_widths[i] < 1 || c->decoder_widths[i] < 1) {
            return error_set(err, CYI_E_SHAPE, "%s: level %d has no channels", path, i);
        }
    }
    return CYI_OK;
}

/* The batch norm in the form in which it is used. */
static enum cyi_status load_statistics(struct vae *model, const char *prefix, struct cyi_error *err) {
    int64_t n = model->config.token_channels;
    struct weight_dims dims = { .value = { ['C'] = n } };
    enum cyi_status st = weights_bind(model->weights, prefix, bn_rows, N_ROWS(bn_rows), 0, &dims, model, err);
    if (st != CYI_OK) {
        return st;
    }
    model->mean = mem_alloc_zeroed(model->allocator, (size_t)n, sizeof *model->mean);
    model->deviation = mem_alloc_zeroed(model->allocator, (size_t)n, sizeof *model->deviation);
    if (model->mean == NULL || model->deviation == NULL) {
        return error_memory(err, "the VAE's statistics", (size_t)n * sizeof *model->mean);
    }
    for (int64_t i = 0; i < n; i++) {
        float variance = dtype_load(model->bn_var.dtype, model->bn_var.data, i) + (float)model->config.batch_norm_eps;
        model->mean[i] = dtype_load(model->bn_mean.dtype, model->bn_mean.data, i);
        model->deviation[i] = sqrtf(variance);
        if (!(variance > 0.0F) || !isfinite(variance) || !isfinite(model->mean[i])) {
            return error_set(err, CYI_E_FORMAT,
                             "%s: channel %lld of bn.running_mean and bn.running_var is no mean and variance",
                             weight_set_path(model->weights), (long long)i);
        }
    }
    return CYI_OK;
}

static enum cyi_status load_model(struct vae *model, const char *path, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct vae_names names;
    TRY(weight_set_open(model->allocator, path, "diffusion_pytorch_model", &model->weights, err));
    if (!find_names(model->weights, &names)) {
        return error_set(err, CYI_E_FORMAT,
                         "%s: not a VAE: tensor decoder.conv_in.weight or the decoder's levels are missing", path);
    }
    infer_config(model->weights, &names, &model->config);
    TRY(load_config(model, path, err));
    TRY(check_config(&model->config, path, err));
    TRY(vae_net_create(model->allocator, model->weights, &names, &model->config, true, &model->encoder, err));
    TRY(vae_net_create(model->allocator, model->weights, &names, &model->config, false, &model->decoder, err));
    TRY(check_not_empty(&model->config, path, err));
    TRY(load_statistics(model, names.prefix, err));
done:
    return st;
}

enum cyi_status vae_open(const struct cyi_allocator *allocator, const char *path, struct vae **ret_model,
                         struct cyi_error *err) {
    struct vae *model = mem_alloc_zeroed(allocator, 1, sizeof *model);
    if (model == NULL) {
        return error_memory(err, "the VAE", sizeof *model);
    }
    model->allocator = allocator;
    enum cyi_status st = load_model(model, path, err);
    if (st != CYI_OK) {
        vae_close(model);
        return st;
    }
    *ret_model = model;
    return CYI_OK;
}

void vae_close(struct vae *model) {
    if (model != NULL) {
        vae_net_free(model->encoder);
        vae_net_free(model->decoder);
        mem_free(model->allocator, model->mean);
        mem_free(model->allocator, model->deviation);
        weight_set_close(model->weights);
        mem_free(model->allocator, model);
    }
}

const struct vae_config *vae_get_config(const struct vae *model) {
    return &model->config;
}

const struct weight_set *vae_get_weights(const struct vae *model) {
    return model->weights;
}

/* ---- Tokens and latents ---- */

/* Channel c·4 + 2·py + px of the token at (y, x) is latent c at (2y + py, 2x + px). Calls of this walk over both once. */
struct token_walk {
    int64_t n_cols;     /* tokens in a row */
    int64_t place_size; /* floats at a place of the picture: z, or 2z for moments */
};

static int64_t place_of(const struct token_walk *w, int64_t token, int64_t channel) {
    int64_t y = token / w->n_cols * 2 + channel / 2 % 2;
    int64_t x = token % w->n_cols * 2 + channel % 2;
    return (y * 2 * w->n_cols + x) * w->place_size + channel / 4;
}

static void unpack_tokens(const struct vae *model, const struct tensor *tokens, struct tensor *latents) {
    int64_t n_channels = model->config.token_channels;
    struct token_walk w = { latents->shape[1] / 2, latents->shape[2] };
    float *to = latents->data;
    for (int64_t t = 0; t < tensor_n_rows(tokens); t++) {
        const float *from = tensor_row(tokens, t);
        for (int64_t c = 0; c < n_channels; c++) {
            to[place_of(&w, t, c)] = from[c] * model->deviation[c] + model->mean[c];
        }
    }
}

static void pack_tokens(const struct vae *model, const struct tensor *moments, struct tensor *tokens) {
    int64_t n_channels = model->config.token_channels;
    struct token_walk w = { moments->shape[1] / 2, moments->shape[2] };
    const float *from = moments->data;
    for (int64_t t = 0; t < tensor_n_rows(tokens); t++) {
        float *to = tensor_row(tokens, t);
        for (int64_t c = 0; c < n_channels; c++) {
            to[c] = (from[place_of(&w, t, c)] - model->mean[c]) / model->deviation[c];
        }
    }
}

/* ---- The two directions ---- */

static const struct vae_options default_options = { 0 };

static enum cyi_status check_call(const struct vae_config *c, const struct tensor *tokens, const struct tensor *pixels,
                                  const struct vae_options *options, struct cyi_error *err) {
    char text[96];
    if (pixels->dtype != DTYPE_F32 || pixels->rank != 3 || pixels->shape[2] != 3 || !tensor_is_packed(pixels) ||
        pixels->shape[0] < 1 || pixels->shape[1] < 1 || pixels->shape[0] % c->token_pixels != 0 ||
        pixels->shape[1] % c->token_pixels != 0) {
        return error_set(err, CYI_E_ARGUMENT, "VAE: the picture is %s, needs packed [Y, X, 3] F32 in multiples of %lld",
                         tensor_describe(pixels, text, sizeof text), (long long)c->token_pixels);
    }
    int64_t n_tokens = pixels->shape[0] / c->token_pixels * (pixels->shape[1] / c->token_pixels);
    if (tokens->dtype != DTYPE_F32 || tensor_n_rows(tokens) != n_tokens || tensor_n_cols(tokens) != c->token_channels) {
        return error_set(err, CYI_E_ARGUMENT, "VAE: the tokens are %s, needs [%lld, %lld] F32",
                         tensor_describe(tokens, text, sizeof text), (long long)n_tokens, (long long)c->token_channels);
    }
    if (options->tile < 0 || options->tile % (4 * c->latent_pixels) != 0) {
        return error_set(err, CYI_E_ARGUMENT, "VAE: tiles of %lld pixels, needs a multiple of %lld",
                         (long long)options->tile, (long long)(4 * c->latent_pixels));
    }
    return CYI_OK;
}

enum cyi_status vae_decode(const struct vae *model, struct exec *ex, const struct tensor *tokens,
                           const struct vae_options *options, struct tensor *pixels, struct cyi_error *err) {
    const struct vae_config *c = &model->config;
    enum cyi_status st = CYI_OK;
    struct arena_mark mark = arena_get_mark(ex->arena);
    struct tensor latents;
    options = options == NULL ? &default_options : options;
    TRY(check_call(c, tokens, pixels, options, err));
    exec_enter(ex);
    const int64_t shape[3] = { pixels->shape[0] / c->latent_pixels, pixels->shape[1] / c->latent_pixels,
                               c->latent_channels };
    TRY(tensor_new(ex->arena, DTYPE_F32, 3, shape, &latents, err));
    unpack_tokens(model, tokens, &latents);
    exec_observe_host(ex, "latents.unpacked", 0, &latents);
    struct vae_tiling tiling = vae_tiling_of(c, options->tile, false, shape[0], shape[1]);
    TRY(vae_net_run_tiled(model->decoder, ex, &tiling, &latents, options, pixels, err));
done:
    arena_release(ex->arena, mark);
    return st;
}

enum cyi_status vae_encode(const struct vae *model, struct exec *ex, const struct tensor *pixels,
                           const struct vae_options *options, struct tensor *tokens, struct cyi_error *err) {
    const struct vae_config *c = &model->config;
    enum cyi_status st = CYI_OK;
    struct arena_mark mark = arena_get_mark(ex->arena);
    struct tensor moments; /* mean, then log variance */
    options = options == NULL ? &default_options : options;
    TRY(check_call(c, tokens, pixels, options, err));
    exec_enter(ex);
    const int64_t shape[3] = { pixels->shape[0] / c->latent_pixels, pixels->shape[1] / c->latent_pixels,
                               2 * c->latent_channels };
    TRY(tensor_new(ex->arena, DTYPE_F32, 3, shape, &moments, err));
    struct vae_tiling tiling = vae_tiling_of(c, options->tile, true, pixels->shape[0], pixels->shape[1]);
    TRY(vae_net_run_tiled(model->encoder, ex, &tiling, pixels, options, &moments, err));
    pack_tokens(model, &moments, tokens);
done:
    arena_release(ex->arena, mark);
    return st;
}

int64_t vae_count_blocks(const struct vae *model, int64_t height, int64_t width, int64_t tile, bool is_encode) {
    const struct vae_config *c = &model->config;
    int64_t n_rows = is_encode ? height : height / c->latent_pixels;
    int64_t n_cols = is_encode ? width : width / c->latent_pixels;
    struct vae_tiling tiling = vae_tiling_of(c, tile, is_encode, n_rows, n_cols);
    return vae_tiling_count(&tiling, n_rows, n_cols) * (is_encode ? model->encoder : model->decoder)->n_layers;
}

size_t vae_get_working_bytes(const struct vae *model, int64_t height, int64_t width, int64_t tile, bool is_encode,
                             enum dtype act_dtype) {
    const struct vae_config *c = &model->config;
    int64_t n_rows = is_encode ? height : height / c->latent_pixels;
    int64_t n_cols = is_encode ? width : width / c->latent_pixels;
    struct vae_tiling tiling = vae_tiling_of(c, tile, is_encode, n_rows, n_cols);
    int64_t n_latents =
        height / c->latent_pixels * (width / c->latent_pixels) * c->latent_channels * (is_encode ? 2 : 1);
    return (size_t)n_latents * sizeof(float) + MEM_ALIGN +
           vae_net_get_tiled_bytes(is_encode ? model->encoder : model->decoder, &tiling, n_rows, n_cols, act_dtype);
}
