/* Qwen3: see qwen3.h. Weight rows first, then opening, then the forward pass.
 *
 * The residual stream is F32; what goes into matrices has ex->act_dtype; q, k, gate and up are F32 until their norm,
 * rotation and activation are done. */
#include "models/qwen3.h"

#include <math.h>
#include <string.h>

#include "io/config.h"
#include "models/weights.h"
#include "nn/rope.h"

/* ---- Weights ---- */

struct layer {
    struct tensor norm_in, norm_mlp; /* [D] */
    struct tensor q, k, v, out;      /* [HK, D], [GK, D], [GK, D], [D, HK] for H heads and G key-value heads */
    struct tensor norm_q, norm_k;    /* [K] */
    struct tensor gate, up, down;    /* [F, D], [F, D], [D, F] */
};

struct qwen3 {
    const struct cyi_allocator *allocator;
    struct weight_set *weights;
    struct qwen3_config config;
    struct tensor embedding; /* [V, D] */
    struct tensor norm;      /* [D] */
    struct layer *layers;
};

/* D width, Q heads' width HK, G key-value width GK, K head, F feed-forward, V vocabulary. */
static const struct weight_row model_rows[] = {
    { "embed_tokens.weight", NULL, offsetof(struct qwen3, embedding), "[V,D]", false },
    { "norm.weight", NULL, offsetof(struct qwen3, norm), "[D]", false },
};

#define AT(field) offsetof(struct layer, field)
static const struct weight_row layer_rows[] = {
    { "layers.%d.input_layernorm.weight", NULL, AT(norm_in), "[D]", false },
    { "layers.%d.self_attn.q_norm.weight", NULL, AT(norm_q), "[K]", false },
    { "layers.%d.self_attn.k_norm.weight", NULL, AT(norm_k), "[K]", false },
    { "layers.%d.self_attn.q_proj.weight", NULL, AT(q), "[Q,D]", false },
    { "layers.%d.self_attn.k_proj.weight", NULL, AT(k), "[G,D]", false },
    { "layers.%d.self_attn.v_proj.weight", NULL, AT(v), "[G,D]", false },
    { "layers.%d.self_attn.o_proj.weight", NULL, AT(out), "[D,Q]", false },
    { "layers.%d.post_attention_layernorm.weight", NULL, AT(norm_mlp), "[D]", false },
    { "layers.%d.mlp.gate_proj.weight", NULL, AT(gate), "[F,D]", false },
    { "layers.%d.mlp.up_proj.weight", NULL, AT(up), "[F,D]", false },
    { "layers.%d.mlp.down_proj.weight", NULL, AT(down), "[D,F]", false },
};
#undef AT

#define MAX_LAYERS 1000
#define N_ROWS(rows) (sizeof(rows) / sizeof(rows)[0])

/* ---- Opening ---- */

static const char *const prefixes[] = { "model.", "" };

static const char *find_prefix(const struct weight_set *set) {
    for (size_t i = 0; i < N_ROWS(prefixes); i++) {
        if (weights_peek(set, prefixes[i], model_rows[0].name, 0) != NULL) {
            return prefixes[i];
        }
    }
    return NULL;
}

static int64_t peek_rows(const struct weight_set *set, const char *prefix, const char *name) {
    const struct tensor *t = weights_peek(set, prefix, name, 0);
    return t == NULL ? 0 : tensor_n_rows(t);
}

static int64_t peek_cols(const struct weight_set *set, const char *prefix, const char *name) {
    const struct tensor *t = weights_peek(set, prefix, name, 0);
    return t == NULL ? 0 : tensor_n_cols(t);
}

/* Sizes as the tensors have them. What is absent here is named when the rows are bound. */
static void infer_config(const struct weight_set *set, const char *prefix, struct qwen3_config *c) {
    *c = (struct qwen3_config){ .eps = 1e-6, .rope_theta = 1e6 };
    c->n_vocab = peek_rows(set, prefix, model_rows[0].name);
    c->width = peek_cols(set, prefix, model_rows[0].name);
    c->head_dim = peek_cols(set, prefix, "layers.%d.self_attn.q_norm.weight");
    if (c->head_dim > 0) {
        c->n_heads = peek_rows(set, prefix, "layers.%d.self_attn.q_proj.weight") / c->head_dim;
        c->n_kv_heads = peek_rows(set, prefix, "layers.%d.self_attn.k_proj.weight") / c->head_dim;
    }
    c->mlp_width = peek_rows(set, prefix, "layers.%d.mlp.gate_proj.weight");
    while (c->n_layers < MAX_LAYERS && weights_peek(set, prefix, layer_rows[0].name, (int)c->n_layers) != NULL) {
        c->n_layers++;
    }
}

/* A size that config.json gives must be the one that the tensors have. 0: a tensor is missing, which is said when it is
 * bound. */
static enum cyi_status check_size(const struct config *file, const char *key, int64_t have, struct cyi_error *err) {
    int64_t want;
    enum cyi_status st = config_get_int_or(file, key, 0, INT32_MAX, have, &want, err);
    if (st == CYI_OK && want != have && have != 0) {
        st = error_set(err, CYI_E_SHAPE, "text encoder: config.json says %s = %lld, the tensors say %lld", key,
                       (long long)want, (long long)have);
    }
    return st;
}

/* Kinds of the family that compute something else. */
static enum cyi_status check_supported(const struct config *file, struct cyi_error *err) {
    static const char *const keys[] = { "hidden_act", "rope_parameters.rope_type", "rope_scaling.rope_type",
                                        "rope_scaling.type" };
    static const char *const values[] = { "silu", "default", "default", "default" };
    for (size_t i = 0; i < N_ROWS(keys); i++) {
        const char *value = config_get_string(file, keys[i]);
        if (value != NULL && strcmp(value, values[i]) != 0) {
            return error_set(err, CYI_E_UNSUPPORTED, "text encoder: config.json says %s = %.40s, only %s is supported",
                             keys[i], value, values[i]);
        }
    }
    bool has_bias;
    enum cyi_status st = config_get_bool_or(file, "attention_bias", false, &has_bias, err);
    if (st == CYI_OK && has_bias) {
        st = error_set(err, CYI_E_UNSUPPORTED,
                       "text encoder: config.json says attention_bias = true, which is not supported");
    }
    return st;
}

/* More layers than the file has become missing tensors when they are bound; fewer are a contradiction. */
static enum cyi_status read_n_layers(const struct config *file, struct qwen3_config *c, struct cyi_error *err) {
    int64_t n;
    enum cyi_status st = config_get_int_or(file, "num_hidden_layers", 1, MAX_LAYERS, c->n_layers, &n, err);
    if (st == CYI_OK && n < c->n_layers) {
        st = check_size(file, "num_hidden_layers", c->n_layers, err);
    } else if (st == CYI_OK) {
        c->n_layers = n;
    }
    return st;
}

static enum cyi_status read_config(const struct config *file, struct qwen3_config *c, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    const char *theta = config_has(file, "rope_theta") ? "rope_theta" : "rope_parameters.rope_theta";
    TRY(check_supported(file, err));
    TRY(check_size(file, "hidden_size", c->width, err));
    TRY(read_n_layers(file, c, err));
    TRY(check_size(file, "head_dim", c->head_dim, err));
    TRY(check_size(file, "num_attention_heads", c->n_heads, err));
    TRY(check_size(file, "num_key_value_heads", c->n_kv_heads, err));
    TRY(check_size(file, "intermediate_size", c->mlp_width, err));
    TRY(check_size(file, "vocab_size", c->n_vocab, err));
    TRY(config_get_float_or(file, "rms_norm_eps", 1e-12, 1e-2, c->eps, &c->eps, err));
    TRY(config_get_float_or(file, theta, 1.0, 1e12, c->rope_theta, &c->rope_theta, err));
done:
    return st;
}

static enum cyi_status check_config(const struct qwen3_config *c, const char *path, struct cyi_error *err) {
    if (c->width < 1 || c->n_vocab < 1 || c->mlp_width < 1) {
        return error_set(err, CYI_E_SHAPE,
                         "%s: width %lld, vocabulary %lld, feed-forward width %lld: nothing to compute with", path,
                         (long long)c->width, (long long)c->n_vocab, (long long)c->mlp_width);
    }
    if (c->head_dim % 2 != 0 || c->n_heads < 1 || c->n_kv_heads < 1 || c->n_heads % c->n_kv_heads != 0) {
        return error_set(err, CYI_E_SHAPE, "%s: %lld heads, %lld key-value heads of size %lld do not go together", path,
                         (long long)c->n_heads, (long long)c->n_kv_heads, (long long)c->head_dim);
    }
    return CYI_OK;
}

static enum cyi_status bind_weights(struct qwen3 *model, const char *prefix, struct cyi_error *err) {
    const struct qwen3_config *c = &model->config;
    struct weight_dims dims = { .value = { ['D'] = c->width,
                                           ['Q'] = c->n_heads * c->head_dim,
                                           ['G'] = c->n_kv_heads * c->head_dim,
                                           ['K'] = c->head_dim,
                                           ['F'] = c->mlp_width,
                                           ['V'] = c->n_vocab } };
    enum cyi_status st = weights_bind(model->weights, prefix, model_rows, N_ROWS(model_rows), 0, &dims, model, err);
    for (int i = 0; i < c->n_layers && st == CYI_OK; i++) {
        st = weights_bind(model->weights, prefix, layer_rows, N_ROWS(layer_rows), i, &dims, &model->layers[i], err);
    }
    return st;
}

/* config.json of a folder, when there is one. */
static enum cyi_status load_config(struct qwen3 *model, const char *path, struct cyi_error *err) {
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

static enum cyi_status load_model(struct qwen3 *model, const char *path, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    TRY(weight_set_open(model->allocator, path, "model", &model->weights, err));
    const char *prefix = find_prefix(model->weights);
    if (prefix == NULL) {
        return error_set(err, CYI_E_FORMAT, "%s: not a Qwen3 text encoder: tensor model.embed_tokens.weight is missing",
                         path);
    }
    infer_config(model->weights, prefix, &model->config);
    TRY(load_config(model, path, err));
    /* At least one layer is bound, so that what is missing in a file without any is named. */
    model->config.n_layers = model->config.n_layers > 0 ? model->config.n_layers : 1;
    model->layers = mem_alloc_zeroed(model->allocator, (size_t)model->config.n_layers, sizeof *model->layers);
    if (model->layers == NULL) {
        TRY(error_memory(err, "the text encoder's layers", (size_t)model->config.n_layers * sizeof *model->layers));
    }
    TRY(bind_weights(model, prefix, err));
    TRY(check_config(&model->config, path, err));
done:
    return st;
}

enum cyi_status qwen3_open(const struct cyi_allocator *allocator, const char *path, struct qwen3 **ret_model,
                           struct cyi_error *err) {
    struct qwen3 *model = mem_alloc_zeroed(allocator, 1, sizeof *model);
    if (model == NULL) {
        return error_memory(err, "the text encoder", sizeof *model);
    }
    model->allocator = allocator;
    enum cyi_status st = load_model(model, path, err);
    if (st != CYI_OK) {
        qwen3_close(model);
        return st;
    }
    *ret_model = model;
    return CYI_OK;
}

void qwen3_close(struct qwen3 *model) {
    if (model != NULL) {
        mem_free(model->allocator, model->layers);
        weight_set_close(model->weights);
        mem_free(model->allocator, model);
    }
}

const struct qwen3_config *qwen3_get_config(const struct qwen3 *model) {
    return &model->config;
}

const struct weight_set *qwen3_get_weights(const struct qwen3 *model) {
    return model->weights;
}

/* ---- The forward pass ---- */

/* Buffers of one forward, used by every layer. A is ex->act_dtype. */
struct state {
    const struct qwen3 *model;
    struct exec *ex;
    int64_t n_used;
    struct tensor stream;   /* [S, D] F32: the residual stream */
    struct tensor normed;   /* [S, D] A */
    struct tensor raw;      /* [S, HK] F32: a projection before its norm and rotation */
    struct tensor q, k, v;  /* [S, HK], [S, GK], [S, GK] A */
    struct tensor attended; /* [S, HK] A */
    struct tensor gate, up; /* [S, F] F32 */
    struct tensor hidden;   /* [S, F] A */
    struct tensor cos, sin; /* [S, K/2] F32 */
    struct tensor features; /* the prompt's, where operations write */
};

static enum cyi_status make_state(const struct qwen3 *model, struct exec *ex, const struct qwen3_prompt *prompt,
                                  struct state *s, struct cyi_error *err) {
    const struct qwen3_config *c = &model->config;
    int64_t n = prompt->n_tokens;
    int64_t q_width = c->n_heads * c->head_dim;
    int64_t kv_width = c->n_kv_heads * c->head_dim;
    enum cyi_status st = CYI_OK;
    *s = (struct state){ .model = model, .ex = ex, .n_used = prompt->n_used };
    TRY(exec_new_2d(ex, DTYPE_F32, n, c->width, &s->stream, err));
    TRY(exec_new_2d(ex, ex->act_dtype, n, c->width, &s->normed, err));
    TRY(exec_new_2d(ex, DTYPE_F32, n, q_width, &s->raw, err));
    TRY(exec_new_2d(ex, ex->act_dtype, n, q_width, &s->q, err));
    TRY(exec_new_2d(ex, ex->act_dtype, n, kv_width, &s->k, err));
    TRY(exec_new_2d(ex, ex->act_dtype, n, kv_width, &s->v, err));
    TRY(exec_new_2d(ex, ex->act_dtype, n, q_width, &s->attended, err));
    TRY(exec_new_2d(ex, DTYPE_F32, n, c->mlp_width, &s->gate, err));
    TRY(exec_new_2d(ex, DTYPE_F32, n, c->mlp_width, &s->up, err));
    TRY(exec_new_2d(ex, ex->act_dtype, n, c->mlp_width, &s->hidden, err));
    TRY(exec_mirror(ex, prompt->features, &s->features, err));
done:
    return st;
}

size_t qwen3_get_working_bytes(const struct qwen3 *model, int64_t n_tokens, enum dtype act_dtype) {
    const struct qwen3_config *c = &model->config;
    size_t act = dtype_size(act_dtype);
    size_t q_width = (size_t)(c->n_heads * c->head_dim);
    size_t kv_width = (size_t)(c->n_kv_heads * c->head_dim);
    size_t a_row = (size_t)c->width * (4 + act) + q_width * (4 + 2 * act) + 2 * kv_width * act +
                   (size_t)c->mlp_width * (8 + act) + (size_t)c->head_dim * 4 + sizeof(double);
    return (size_t)n_tokens * a_row + (size_t)16 * MEM_ALIGN;
}

/* Token s stands at position s. */
static enum cyi_status fill_rope(struct state *s, struct cyi_error *err) {
    const struct qwen3_config *c = &s->model->config;
    const struct rope_axes axes = { .n_axes = 1, .dims = { c->head_dim }, .theta = c->rope_theta };
    struct arena *arena = s->ex->arena;
    int64_t n = tensor_n_rows(&s->stream);
    enum cyi_status st = CYI_OK;
    struct tensor cos;
    struct tensor sin;
    TRY(tensor_new_2d(arena, DTYPE_F32, n, c->head_dim / 2, &cos, err));
    TRY(tensor_new_2d(arena, DTYPE_F32, n, c->head_dim / 2, &sin, err));
    struct arena_mark mark = arena_get_mark(arena);
    double *positions = arena_alloc(arena, (size_t)n, sizeof *positions);
    if (positions == NULL) {
        return error_memory(err, "token positions", (size_t)n * sizeof *positions);
    }
    for (int64_t i = 0; i < n; i++) {
        positions[i] = (double)i;
    }
    rope_fill(&axes, positions, &cos, &sin);
    arena_release(arena, mark);
    TRY(exec_send(s->ex, &cos, &s->cos, err));
    TRY(exec_send(s->ex, &sin, &s->sin, err));
done:
    return st;
}

static enum cyi_status normalise(struct state *s, const struct tensor *weight, struct cyi_error *err) {
    return op_rms_norm(s->ex,
                       &(struct rms_norm_args){
                           .x = &s->stream, .weight = weight, .eps = (float)s->model->config.eps, .y = &s->normed },
                       err);
}

static enum cyi_status project(struct state *s, const struct tensor *weight, struct tensor *y, struct cyi_error *err) {
    return op_linear(s->ex, &(struct linear_args){ .x = &s->normed, .weight = weight, .y = y }, err);
}

/* q or k: projection, RMS norm over each head, rotation. */
static enum cyi_status project_rotated(struct state *s, const struct tensor *weight, const struct tensor *norm,
                                       int64_t n_heads, struct tensor *y, struct cyi_error *err) {
    struct tensor raw = tensor_cols(&s->raw, 0, tensor_n_cols(y));
    enum cyi_status st = CYI_OK;
    TRY(project(s, weight, &raw, err));
    TRY(op_qk_norm_rope(s->ex,
                        &(struct qk_norm_rope_args){ .x = &raw,
                                                     .weight = norm,
                                                     .cos = &s->cos,
                                                     .sin = &s->sin,
                                                     .n_heads = n_heads,
                                                     .eps = (float)s->model->config.eps,
                                                     .pairs = ROPE_HALVES,
                                                     .y = y },
                        err));
done:
    return st;
}

/* stream += x · weightᵀ */
static enum cyi_status add_projected(struct state *s, const struct tensor *x, const struct tensor *weight,
                                     struct cyi_error *err) {
    return op_linear(s->ex, &(struct linear_args){ .x = x, .weight = weight, .residual = &s->stream, .y = &s->stream },
                     err);
}

static enum cyi_status run_layer(struct state *s, const struct layer *layer, struct cyi_error *err) {
    const struct qwen3_config *c = &s->model->config;
    enum cyi_status st = CYI_OK;
    TRY(normalise(s, &layer->norm_in, err));
    TRY(project_rotated(s, &layer->q, &layer->norm_q, c->n_heads, &s->q, err));
    TRY(project_rotated(s, &layer->k, &layer->norm_k, c->n_kv_heads, &s->k, err));
    TRY(project(s, &layer->v, &s->v, err));
    TRY(op_attention(s->ex,
                     &(struct attention_args){ .q = &s->q,
                                               .k = &s->k,
                                               .v = &s->v,
                                               .n_heads = c->n_heads,
                                               .n_kv_heads = c->n_kv_heads,
                                               .n_keys = s->n_used,
                                               .is_causal = true,
                                               .scale = 1.0F / sqrtf((float)c->head_dim),
                                               .out = &s->attended },
                     err));
    TRY(add_projected(s, &s->attended, &layer->out, err));
    TRY(normalise(s, &layer->norm_mlp, err));
    TRY(project(s, &layer->gate, &s->gate, err));
    TRY(project(s, &layer->up, &s->up, err));
    TRY(op_swiglu(s->ex, &(struct swiglu_args){ .gate = &s->gate, .up = &s->up, .y = &s->hidden }, err));
    TRY(add_projected(s, &s->hidden, &layer->down, err));
done:
    return st;
}

/* The hidden state after so many layers, into every place of the features that asks for it. */
static enum cyi_status copy_hidden(struct state *s, const struct qwen3_prompt *prompt, int n_done,
                                   struct cyi_error *err) {
    int64_t width = s->model->config.width;
    enum cyi_status st = CYI_OK;
    for (int i = 0; i < prompt->n_layers; i++) {
        if (prompt->layers[i] != n_done) {
            continue;
        }
        struct tensor part = tensor_cols(&s->features, i * width, width);
        if (n_done == s->model->config.n_layers) {
            TRY(op_rms_norm(
                s->ex,
                &(struct rms_norm_args){
                    .x = &s->stream, .weight = &s->model->norm, .eps = (float)s->model->config.eps, .y = &part },
                err));
        } else {
            TRY(op_cast(s->ex, &(struct cast_args){ .x = &s->stream, .y = &part }, err));
        }
        exec_observe(s->ex, "text.hidden.%d", n_done, &part);
    }
done:
    return st;
}

int64_t qwen3_count_blocks(const int *layers, int n_layers) {
    int last = 0;
    for (int i = 0; i < n_layers; i++) {
        last = layers[i] > last ? layers[i] : last;
    }
    return last;
}

static enum cyi_status check_prompt(const struct qwen3_config *c, const struct qwen3_prompt *p, struct cyi_error *err) {
    for (int i = 0; i < p->n_layers; i++) {
        if (p->layers[i] < 0 || p->layers[i] > c->n_layers) {
            return error_set(err, CYI_E_ARGUMENT, "text encoder: hidden state %d was asked for, there are 0 … %lld",
                             p->layers[i], (long long)c->n_layers);
        }
    }
    if (p->n_used < 1 || p->n_used > p->n_tokens || p->n_layers < 1) {
        return error_set(err, CYI_E_ARGUMENT, "text encoder: %lld used of %lld tokens, %d hidden states",
                         (long long)p->n_used, (long long)p->n_tokens, p->n_layers);
    }
    if (p->features->dtype != DTYPE_F32 || tensor_n_rows(p->features) != p->n_tokens ||
        tensor_n_cols(p->features) != p->n_layers * c->width) {
        char text[96];
        return error_set(err, CYI_E_ARGUMENT, "text encoder: features are %s, needs [%lld, %lld] F32",
                         tensor_describe(p->features, text, sizeof text), (long long)p->n_tokens,
                         (long long)(p->n_layers * c->width));
    }
    return CYI_OK;
}

/* The ids as a tensor of the host's arena: operations take no const data. */
static enum cyi_status embed(struct state *s, const struct qwen3_prompt *prompt, struct cyi_error *err) {
    struct tensor ids;
    struct arena_mark mark = arena_get_mark(s->ex->arena);
    enum cyi_status st = CYI_OK;
    TRY(tensor_new(s->ex->arena, DTYPE_I32, 1, &prompt->n_tokens, &ids, err));
    memcpy(ids.data, prompt->ids, (size_t)prompt->n_tokens * sizeof *prompt->ids);
    TRY(op_embed(s->ex, &(struct embed_args){ .ids = &ids, .table = &s->model->embedding, .y = &s->stream }, err));
done:
    arena_release(s->ex->arena, mark);
    return st;
}

enum cyi_status qwen3_forward(const struct qwen3 *model, struct exec *ex, const struct qwen3_prompt *prompt,
                              struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct exec_mark mark = exec_get_mark(ex);
    int n_run = (int)qwen3_count_blocks(prompt->layers, prompt->n_layers);
    int64_t n_all = prompt->n_blocks_all > 0 ? prompt->n_blocks_all : n_run;
    struct state s;
    TRY(check_prompt(&model->config, prompt, err));
    exec_enter(ex);
    TRY(make_state(model, ex, prompt, &s, err));
    TRY(fill_rope(&s, err));
    TRY(embed(&s, prompt, err));
    TRY(copy_hidden(&s, prompt, 0, err));
    for (int i = 0; i < n_run; i++) {
        TRY(run_layer(&s, &model->layers[i], err));
        TRY(copy_hidden(&s, prompt, i + 1, err));
        TRY(exec_report_block(ex, prompt->first_block + i + 1, n_all, err));
    }
    TRY(exec_receive(ex, &s.features, prompt->features, err));
    exec_observe_host(ex, "prompt_embeds", 0, prompt->features);
done:
    exec_release(ex, mark);
    return st;
}
