/* FLUX.2 transformer: see flux2.h. Weight rows first, then opening, then the forward pass, which reads top to bottom.
 *
 * The residual stream is one F32 matrix [S, D], text rows first, then the picture's tokens, then the references': the double blocks
 * work on its row ranges, the single blocks on all of it, and nothing is ever concatenated. Matrix inputs have ex->act_dtype. */
#include "models/flux2.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/size.h"
#include "io/config.h"
#include "models/weights.h"
#include "nn/timestep.h"

/* A recorded step cannot be cancelled inside: larger ones, which take long, are not recorded. */
#define MAX_RECORDED_TOKENS 6144

/* ---- Weights ---- */

/* One stream (text or image) of a double block. */
struct stream_weights {
    struct tensor q, k, v;        /* [D, D] */
    struct tensor norm_q, norm_k; /* [K] */
    struct tensor proj;           /* [D, D] */
    struct tensor mlp_in;         /* [2F, D]: gate rows, then up rows */
    struct tensor mlp_out;        /* [D, F] */
};

struct double_block {
    struct stream_weights text, image;
};

struct single_block {
    struct tensor qkv_mlp;        /* [3D + 2F, D]: q, k, v, gate, up */
    struct tensor out;            /* [D, D + F]: columns for attention, then for the feed-forward */
    struct tensor norm_q, norm_k; /* [K] */
};

struct embedder {
    struct tensor in, out; /* [D, E], [D, D] */
};

struct flux2 {
    const struct cyi_allocator *allocator;
    struct weight_set *weights;
    struct flux2_config config;
    struct tensor x_embedder, context_embedder; /* [D, Cin], [D, X] */
    struct embedder time, guidance;
    struct tensor mod_image, mod_text, mod_single; /* [6D, D], [6D, D], [3D, D] */
    struct tensor final_scale, final_shift;        /* [D, D] each */
    struct tensor proj_out;                        /* [Cout, D] */
    struct double_block *doubles;
    struct single_block *singles;
};

/* D width, K head, F feed-forward, I in, O out, X text features, E sinusoids. */
#define ROW(field, shape, name, alt)                                                                                   \
    { name, alt, offsetof(struct flux2, field), shape, false }
static const struct weight_row model_rows[] = {
    ROW(x_embedder, "[D,I]", "x_embedder.weight", "img_in.weight"),
    ROW(context_embedder, "[D,X]", "context_embedder.weight", "txt_in.weight"),
    ROW(time.in, "[D,E]", "time_guidance_embed.timestep_embedder.linear_1.weight", "time_in.in_layer.weight"),
    ROW(time.out, "[D,D]", "time_guidance_embed.timestep_embedder.linear_2.weight", "time_in.out_layer.weight"),
    ROW(mod_image, "[6D,D]", "double_stream_modulation_img.linear.weight", "double_stream_modulation_img.lin.weight"),
    ROW(mod_text, "[6D,D]", "double_stream_modulation_txt.linear.weight", "double_stream_modulation_txt.lin.weight"),
    ROW(mod_single, "[3D,D]", "single_stream_modulation.linear.weight", "single_stream_modulation.lin.weight"),
    /* The halves stand in opposite order in the two key styles. */
    ROW(final_scale, "[D,D]", "norm_out.linear.weight#0/2", "final_layer.adaLN_modulation.1.weight#1/2"),
    ROW(final_shift, "[D,D]", "norm_out.linear.weight#1/2", "final_layer.adaLN_modulation.1.weight#0/2"),
    ROW(proj_out, "[O,D]", "proj_out.weight", "final_layer.linear.weight"),
};
static const struct weight_row guidance_rows[] = {
    ROW(guidance.in, "[D,E]", "time_guidance_embed.guidance_embedder.linear_1.weight", "guidance_in.in_layer.weight"),
    ROW(guidance.out, "[D,D]", "time_guidance_embed.guidance_embedder.linear_2.weight", "guidance_in.out_layer.weight"),
};
#undef ROW

#define T_ "transformer_blocks.%d."
#define B_ "double_blocks.%d."
#define ROW(field, shape, name, alt)                                                                                   \
    { T_ name, B_ alt, offsetof(struct double_block, field), shape, false }
static const struct weight_row double_rows[] = {
    ROW(image.q, "[D,D]", "attn.to_q.weight", "img_attn.qkv.weight#0/3"),
    ROW(image.k, "[D,D]", "attn.to_k.weight", "img_attn.qkv.weight#1/3"),
    ROW(image.v, "[D,D]", "attn.to_v.weight", "img_attn.qkv.weight#2/3"),
    ROW(image.norm_q, "[K]", "attn.norm_q.weight", "img_attn.norm.query_norm.scale"),
    ROW(image.norm_k, "[K]", "attn.norm_k.weight", "img_attn.norm.key_norm.scale"),
    ROW(image.proj, "[D,D]", "attn.to_out.0.weight", "img_attn.proj.weight"),
    ROW(image.mlp_in, "[2F,D]", "ff.linear_in.weight", "img_mlp.0.weight"),
    ROW(image.mlp_out, "[D,F]", "ff.linear_out.weight", "img_mlp.2.weight"),
    ROW(text.q, "[D,D]", "attn.add_q_proj.weight", "txt_attn.qkv.weight#0/3"),
    ROW(text.k, "[D,D]", "attn.add_k_proj.weight", "txt_attn.qkv.weight#1/3"),
    ROW(text.v, "[D,D]", "attn.add_v_proj.weight", "txt_attn.qkv.weight#2/3"),
    ROW(text.norm_q, "[K]", "attn.norm_added_q.weight", "txt_attn.norm.query_norm.scale"),
    ROW(text.norm_k, "[K]", "attn.norm_added_k.weight", "txt_attn.norm.key_norm.scale"),
    ROW(text.proj, "[D,D]", "attn.to_add_out.weight", "txt_attn.proj.weight"),
    ROW(text.mlp_in, "[2F,D]", "ff_context.linear_in.weight", "txt_mlp.0.weight"),
    ROW(text.mlp_out, "[D,F]", "ff_context.linear_out.weight", "txt_mlp.2.weight"),
};
#undef ROW
#undef T_
#undef B_

#define T_ "single_transformer_blocks.%d."
#define B_ "single_blocks.%d."
#define ROW(field, shape, name, alt)                                                                                   \
    { T_ name, B_ alt, offsetof(struct single_block, field), shape, false }
static const struct weight_row single_rows[] = {
    ROW(qkv_mlp, "[P,D]", "attn.to_qkv_mlp_proj.weight", "linear1.weight"),
    ROW(out, "[D,Q]", "attn.to_out.weight", "linear2.weight"),
    ROW(norm_q, "[K]", "attn.norm_q.weight", "norm.query_norm.scale"),
    ROW(norm_k, "[K]", "attn.norm_k.weight", "norm.key_norm.scale"),
};
#undef ROW
#undef T_
#undef B_

#define N_ROWS(rows) (sizeof(rows) / sizeof(rows)[0])

/* ---- Opening ---- */

static const char *const prefixes[] = { "", "model.diffusion_model.", "diffusion_model.", "transformer." };

/* The tensor of a name in either style under any prefix, as it stands in the file. NULL: absent. */
static const struct tensor *find_tensor(const struct weight_set *set, const char *name, const char *alt, int index,
                                        const char **ret_prefix) {
    const char *const styles[] = { name, alt };
    for (size_t p = 0; p < N_ROWS(prefixes); p++) {
        for (size_t s = 0; s < 2; s++) {
            const char *mark = strstr(styles[s], "%d");
            char text[160];
            if (mark == NULL) {
                (void)snprintf(text, sizeof text, "%s%s", prefixes[p], styles[s]);
            } else {
                (void)snprintf(text, sizeof text, "%s%.*s%d%s", prefixes[p], (int)(mark - styles[s]), styles[s], index,
                               mark + 2);
            }
            const struct safetensors_entry *entry = weight_set_find(set, text);
            if (entry != NULL) {
                if (ret_prefix != NULL) {
                    *ret_prefix = prefixes[p];
                }
                return &entry->tensor;
            }
        }
    }
    return NULL;
}

static const struct tensor *find_row(const struct weight_set *set, const struct weight_row *row, int index) {
    return find_tensor(set, row->name, row->alt, index, NULL);
}

bool flux2_detect(const struct weight_set *set) {
    return find_row(set, &model_rows[4], 0) != NULL;
}

static int64_t count_blocks(const struct weight_set *set, const struct weight_row *row) {
    int n = 0;
    while (n < 1000 && find_row(set, row, n) != NULL) {
        n++;
    }
    return n;
}

static int64_t n_rows_of(const struct tensor *t) {
    return t == NULL ? 0 : tensor_n_rows(t);
}

static int64_t n_cols_of(const struct tensor *t) {
    return t == NULL ? 0 : tensor_n_cols(t);
}

/* Sizes as the tensors have them. What is absent here is named when the rows are bound. */
static void infer_config(const struct weight_set *set, struct flux2_config *c) {
    *c = (struct flux2_config){ .eps = 1e-6 };
    c->width = n_rows_of(find_row(set, &model_rows[0], 0));
    c->in_channels = n_cols_of(find_row(set, &model_rows[0], 0));
    c->text_width = n_cols_of(find_row(set, &model_rows[1], 0));
    c->n_sinusoids = n_cols_of(find_row(set, &model_rows[2], 0));
    c->out_channels = n_rows_of(find_row(set, &model_rows[9], 0));
    c->has_guidance = find_row(set, &guidance_rows[0], 0) != NULL;
    c->n_double = count_blocks(set, &double_rows[3]);
    c->n_single = count_blocks(set, &single_rows[2]);
    c->head_dim = n_cols_of(find_row(set, c->n_single > 0 ? &single_rows[2] : &double_rows[3], 0));
    c->n_heads = c->head_dim > 0 ? c->width / c->head_dim : 0;
    if (c->n_single > 0) {
        c->mlp_width = n_cols_of(find_row(set, &single_rows[1], 0)) - c->width;
    } else {
        c->mlp_width = n_cols_of(find_row(set, &double_rows[7], 0));
    }
    c->axes = (struct rope_axes){ .n_axes = 4, .theta = 2000.0 };
    for (int a = 0; a < 4; a++) {
        c->axes.dims[a] = c->head_dim / 4;
    }
}

/* A size that config.json gives must be the one that the tensors have. */
static enum cyi_status check_size(const struct config *file, const char *key, int64_t have, struct cyi_error *err) {
    int64_t want;
    enum cyi_status st = config_get_int_or(file, key, 0, INT32_MAX, have, &want, err);
    if (st == CYI_OK && want != have) {
        st = error_set(err, CYI_E_SHAPE, "transformer: config.json says %s = %lld, the tensors say %lld", key,
                       (long long)want, (long long)have);
    }
    return st;
}

static enum cyi_status read_config(const struct config *file, struct flux2_config *c, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    int64_t dims[ROPE_MAX_AXES] = { 0 };
    size_t n_axes = 0;
    TRY(check_size(file, "in_channels", c->in_channels, err));
    TRY(check_size(file, "out_channels", c->out_channels, err));
    TRY(check_size(file, "num_layers", c->n_double, err));
    TRY(check_size(file, "num_single_layers", c->n_single, err));
    TRY(check_size(file, "attention_head_dim", c->head_dim, err));
    TRY(check_size(file, "num_attention_heads", c->n_heads, err));
    TRY(check_size(file, "joint_attention_dim", c->text_width, err));
    TRY(check_size(file, "timestep_guidance_channels", c->n_sinusoids, err));
    TRY(check_size(file, "patch_size", 1, err));
    TRY(config_get_float_or(file, "eps", 1e-12, 1e-2, c->eps, &c->eps, err));
    TRY(config_get_float_or(file, "rope_theta", 1.0, 1e12, c->axes.theta, &c->axes.theta, err));
    if (config_has(file, "axes_dims_rope")) {
        TRY(config_get_ints(file, "axes_dims_rope", 2, 4096, ROPE_MAX_AXES, dims, &n_axes, err));
        if (n_axes != 4) {
            return error_set(err, CYI_E_UNSUPPORTED, "transformer: axes_dims_rope has %zu axes, FLUX.2 has 4", n_axes);
        }
        memcpy(c->axes.dims, dims, sizeof dims);
    }
done:
    return st;
}

static enum cyi_status check_config(const struct flux2_config *c, const char *path, struct cyi_error *err) {
    int64_t rope_dims = 0;
    for (int a = 0; a < 4; a++) {
        rope_dims += c->axes.dims[a];
        if (c->axes.dims[a] % 2 != 0) {
            return error_set(err, CYI_E_SHAPE, "%s: rope axis %d has %lld dimensions, an odd number", path, a,
                             (long long)c->axes.dims[a]);
        }
    }
    if (c->width < 1 || c->head_dim < 2 || c->n_heads * c->head_dim != c->width || rope_dims != c->head_dim) {
        return error_set(err, CYI_E_SHAPE, "%s: width %lld, head size %lld and rope dimensions %lld do not go together",
                         path, (long long)c->width, (long long)c->head_dim, (long long)rope_dims);
    }
    if (c->mlp_width < 1 || c->n_sinusoids < 2 || c->n_sinusoids % 2 != 0 || c->n_double + c->n_single < 1) {
        return error_set(
            err, CYI_E_SHAPE, "%s: feed-forward width %lld, %lld sinusoids, %lld + %lld blocks are no FLUX.2", path,
            (long long)c->mlp_width, (long long)c->n_sinusoids, (long long)c->n_double, (long long)c->n_single);
    }
    return CYI_OK;
}

static enum cyi_status bind_weights(struct flux2 *model, const char *prefix, struct cyi_error *err) {
    const struct flux2_config *c = &model->config;
    struct weight_dims dims = { .value = { ['D'] = c->width,
                                           ['K'] = c->head_dim,
                                           ['F'] = c->mlp_width,
                                           ['I'] = c->in_channels,
                                           ['O'] = c->out_channels,
                                           ['X'] = c->text_width,
                                           ['E'] = c->n_sinusoids,
                                           ['P'] = 3 * c->width + 2 * c->mlp_width,
                                           ['Q'] = c->width + c->mlp_width } };
    enum cyi_status st = CYI_OK;
    TRY(weights_bind(model->weights, prefix, model_rows, N_ROWS(model_rows), 0, &dims, model, err));
    if (c->has_guidance) {
        TRY(weights_bind(model->weights, prefix, guidance_rows, N_ROWS(guidance_rows), 0, &dims, model, err));
    }
    for (int i = 0; i < c->n_double; i++) {
        TRY(weights_bind(model->weights, prefix, double_rows, N_ROWS(double_rows), i, &dims, &model->doubles[i], err));
    }
    for (int i = 0; i < c->n_single; i++) {
        TRY(weights_bind(model->weights, prefix, single_rows, N_ROWS(single_rows), i, &dims, &model->singles[i], err));
    }
done:
    return st;
}

static enum cyi_status load_model(struct flux2 *model, const char *path, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct config *file = NULL;
    char *config_path = NULL;
    const char *prefix = "";
    struct flux2_config *c = &model->config;

    TRY(weight_set_open(model->allocator, path, "diffusion_pytorch_model", &model->weights, err));
    if (find_tensor(model->weights, model_rows[4].name, model_rows[4].alt, 0, &prefix) == NULL) {
        TRY(error_set(err, CYI_E_UNSUPPORTED, "%s: not a FLUX.2 transformer (it has no double_stream_modulation_img)",
                      path));
    }
    infer_config(model->weights, c);
    if (folder_exists(path)) {
        config_path = path_join(model->allocator, path, "config.json");
        if (config_path == NULL) {
            TRY(error_memory(err, "a path", strlen(path)));
        }
        if (file_exists(config_path)) {
            TRY(config_open(model->allocator, config_path, &file, err));
            TRY(read_config(file, c, err));
        }
    }
    TRY(check_config(c, path, err));
    model->doubles = mem_alloc_zeroed(model->allocator, (size_t)c->n_double + 1, sizeof *model->doubles);
    model->singles = mem_alloc_zeroed(model->allocator, (size_t)c->n_single + 1, sizeof *model->singles);
    if (model->doubles == NULL || model->singles == NULL) {
        TRY(error_memory(err, "the transformer's blocks",
                         (size_t)(c->n_double + c->n_single) * sizeof *model->doubles));
    }
    TRY(bind_weights(model, prefix, err));
done:
    config_close(file);
    mem_free(model->allocator, config_path);
    return st;
}

enum cyi_status flux2_open(const struct cyi_allocator *allocator, const char *path, struct flux2 **ret_model,
                           struct cyi_error *err) {
    struct flux2 *model = mem_alloc_zeroed(allocator, 1, sizeof *model);
    if (model == NULL) {
        return error_memory(err, "the transformer", sizeof *model);
    }
    model->allocator = allocator;
    enum cyi_status st = load_model(model, path, err);
    if (st != CYI_OK) {
        flux2_close(model);
        return st;
    }
    *ret_model = model;
    return CYI_OK;
}

void flux2_close(struct flux2 *model) {
    if (model != NULL) {
        mem_free(model->allocator, model->doubles);
        mem_free(model->allocator, model->singles);
        weight_set_close(model->weights);
        mem_free(model->allocator, model);
    }
}

const struct flux2_config *flux2_get_config(const struct flux2 *model) {
    return &model->config;
}

const struct weight_set *flux2_get_weights(const struct flux2 *model) {
    return model->weights;
}

/* ---- Before the first step ---- */

/* Text token l stands at (0, 0, 0, l), an image token at (t, row, column, 0). */
static enum cyi_status fill_rope(const struct flux2 *model, struct exec *ex, const struct flux2_grid *grids,
                                 int n_grids, struct flux2_run *run, struct cyi_error *err) {
    int64_t n_tokens = run->n_text + run->n_noise + run->n_references;
    enum cyi_status st = CYI_OK;
    struct tensor cos;
    struct tensor sin;
    TRY(tensor_new_2d(ex->arena, DTYPE_F32, n_tokens, model->config.head_dim / 2, &cos, err));
    TRY(tensor_new_2d(ex->arena, DTYPE_F32, n_tokens, model->config.head_dim / 2, &sin, err));
    struct arena_mark mark = arena_get_mark(ex->arena);
    double(*position)[4] = arena_alloc(ex->arena, (size_t)n_tokens, sizeof *position);
    if (position == NULL) {
        TRY(error_memory(err, "token positions", (size_t)n_tokens * sizeof *position));
    }
    const double *first = position[0];
    for (int64_t l = 0; l < run->n_text; l++, position++) {
        memcpy(*position, (const double[4]){ 0, 0, 0, (double)l }, sizeof *position);
    }
    for (int g = 0; g < n_grids; g++) {
        for (int64_t i = 0; i < grids[g].n_rows * grids[g].n_cols; i++, position++) {
            double row = (double)(i / grids[g].n_cols);
            double col = (double)(i % grids[g].n_cols);
            memcpy(*position, (const double[4]){ (double)grids[g].t, row, col, 0 }, sizeof *position);
        }
    }
    rope_fill(&model->config.axes, first, &cos, &sin);
    arena_release(ex->arena, mark);
    TRY(exec_send(ex, &cos, &run->cos, err));
    TRY(exec_send(ex, &sin, &run->sin, err));
done:
    return st;
}

/* y [M, D] F32 = x Wᵀ for an x that is F32 but multiplied as ex->act_dtype. */
static enum cyi_status embed_rows(struct exec *ex, const struct tensor *x, const struct tensor *weight,
                                  struct tensor *y, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct exec_mark mark = exec_get_mark(ex);
    struct tensor cast = *x;
    if (ex->act_dtype != DTYPE_F32) {
        TRY(exec_new_2d(ex, ex->act_dtype, tensor_n_rows(x), tensor_n_cols(x), &cast, err));
        TRY(op_cast(ex, &(struct cast_args){ .x = x, .y = &cast }, err));
    }
    TRY(op_linear(ex, &(struct linear_args){ .x = &cast, .weight = weight, .y = y }, err));
done:
    exec_release(ex, mark);
    return st;
}

/* The same for an x of the host. */
static enum cyi_status embed_host_rows(struct exec *ex, const struct tensor *x, const struct tensor *weight,
                                       struct tensor *y, struct cyi_error *err) {
    struct tensor sent;
    struct exec_mark mark = exec_get_mark(ex);
    enum cyi_status st = CYI_OK;
    TRY(exec_send(ex, x, &sent, err));
    TRY(embed_rows(ex, &sent, weight, y, err));
done:
    exec_release(ex, mark);
    return st;
}

enum cyi_status flux2_prepare(const struct flux2 *model, struct exec *ex, const struct tensor *text,
                              const struct flux2_grid *grids, int n_grids, const struct tensor *references,
                              struct flux2_run *ret_run, struct cyi_error *err) {
    const struct flux2_config *c = &model->config;
    struct flux2_run run = { .n_text = tensor_n_rows(text), .n_noise = grids[0].n_rows * grids[0].n_cols };
    enum cyi_status st = CYI_OK;
    for (int g = 1; g < n_grids; g++) {
        run.n_references += grids[g].n_rows * grids[g].n_cols;
    }
    if (tensor_n_cols(text) != c->text_width) {
        return error_set(err, CYI_E_SHAPE, "the text features have %lld columns, the transformer reads %lld",
                         (long long)tensor_n_cols(text), (long long)c->text_width);
    }
    exec_enter(ex);
    TRY(exec_new_2d(ex, DTYPE_F32, run.n_text, c->width, &run.text, err));
    TRY(exec_new_2d(ex, DTYPE_F32, run.n_references, c->width, &run.references, err));
    TRY(fill_rope(model, ex, grids, n_grids, &run, err));
    TRY(embed_host_rows(ex, text, &model->context_embedder, &run.text, err));
    if (run.n_references > 0) {
        TRY(embed_host_rows(ex, references, &model->x_embedder, &run.references, err));
    }
    *ret_run = run;
done:
    return st;
}

/* ---- The forward pass ---- */

/* Shift, scale and gate of one modulated part: [D] F32 views. */
struct modulation {
    struct tensor shift, scale, gate;
};

static struct modulation modulation_at(const struct tensor *chunks, int64_t part, int64_t width) {
    float *start = (float *)chunks->data + part * 3 * width;
    return (struct modulation){ .shift = tensor_1d(DTYPE_F32, width, start),
                                .scale = tensor_1d(DTYPE_F32, width, start + width),
                                .gate = tensor_1d(DTYPE_F32, width, start + 2 * width) };
}

/* Everything that a step derives from sigma and guidance alone; all F32. */
struct conditioning {
    struct tensor embedding;                /* [1, D] */
    struct tensor activated;                /* [1, D]: silu of it */
    struct tensor image, text, single;      /* [1, 6D], [1, 6D], [1, 3D] */
    struct tensor final_scale, final_shift; /* [1, D] */
};

/* Buffers of one step, used by every block. A is ex->act_dtype. */
struct step_state {
    const struct flux2 *model;
    struct exec *ex;
    const struct flux2_run *run;
    struct conditioning cond;
    struct tensor stream; /* [S, D] F32: the residual stream */
    struct tensor normed; /* [S, D] A */
    /* A device does one large product of a single block at a time and cares for the bytes that it writes: all that the block projects
     * is one matrix there, of which the next four are columns. A processor likes what stays in its caches, and keeps projections in
     * fp32 until they are used. */
    struct tensor projected;    /* [S, 3D + 2F] A: q, k, v, gate, up; data NULL on a processor */
    struct tensor raw_q, raw_k; /* [S, D]: before norm and rotation; on a processor one F32 matrix */
    struct tensor q, k, v;      /* [S, D] A; on a device q is raw_q and k is raw_k */
    struct tensor hidden;       /* [S, 2F]: gate and up; F32 on a processor */
    struct tensor joined; /* [S, D + F] A: attention, then feed-forward, as the single blocks' output reads them */
};

/* What a step gets from the host, where operations read it. */
struct step_inputs {
    struct tensor x;              /* [N, in_channels] F32 */
    struct tensor time, guidance; /* [1, E] F32: sinusoids; guidance empty when none is embedded */
    struct tensor velocity;       /* [N, out_channels] F32: where the result goes */
};

static enum cyi_status send_sinusoid(struct exec *ex, float argument, int64_t n, struct tensor *ret,
                                     struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct tensor waves;
    TRY(tensor_new_2d(ex->arena, DTYPE_F32, 1, n, &waves, err));
    timestep_sinusoid(argument, n, waves.data);
    TRY(exec_send(ex, &waves, ret, err));
done:
    return st;
}

static enum cyi_status send_inputs(const struct flux2 *model, struct exec *ex, const struct flux2_step *step,
                                   struct step_inputs *in, struct cyi_error *err) {
    const struct flux2_config *c = &model->config;
    enum cyi_status st = CYI_OK;
    *in = (struct step_inputs){ 0 };
    TRY(exec_send(ex, step->x, &in->x, err));
    TRY(exec_mirror(ex, step->velocity, &in->velocity, err));
    TRY(send_sinusoid(ex, timestep_argument(step->timestep), c->n_sinusoids, &in->time, err));
    exec_observe(ex, "time.sinusoid", 0, &in->time);
    if (c->has_guidance && step->guidance >= 0.0F) {
        TRY(send_sinusoid(ex, step->guidance * 1000.0F, c->n_sinusoids, &in->guidance, err));
    }
done:
    return st;
}

/* y = embedder(waves) + sum; sum NULL: 0, y itself: added to. */
static enum cyi_status embed_waves(struct exec *ex, const struct embedder *embedder, const struct tensor *waves,
                                   struct tensor *y, const struct tensor *sum, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct exec_mark mark = exec_get_mark(ex);
    struct tensor hidden;
    TRY(exec_new_2d(ex, DTYPE_F32, 1, tensor_n_cols(y), &hidden, err));
    TRY(op_linear(ex, &(struct linear_args){ .x = waves, .weight = &embedder->in, .act = ACT_SILU, .y = &hidden },
                  err));
    TRY(op_linear(ex, &(struct linear_args){ .x = &hidden, .weight = &embedder->out, .residual = sum, .y = y }, err));
done:
    exec_release(ex, mark);
    return st;
}

static enum cyi_status project_condition(struct exec *ex, const struct tensor *activated, const struct tensor *weight,
                                         struct tensor *y, struct cyi_error *err) {
    enum cyi_status st = exec_new_2d(ex, DTYPE_F32, 1, tensor_n_rows(weight), y, err);
    return st != CYI_OK ? st : op_linear(ex, &(struct linear_args){ .x = activated, .weight = weight, .y = y }, err);
}

static enum cyi_status condition(const struct flux2 *model, struct exec *ex, const struct step_inputs *in,
                                 struct conditioning *ret, struct cyi_error *err) {
    const struct flux2_config *c = &model->config;
    struct conditioning cond;
    enum cyi_status st = CYI_OK;
    TRY(exec_new_2d(ex, DTYPE_F32, 1, c->width, &cond.embedding, err));
    TRY(exec_new_2d(ex, DTYPE_F32, 1, c->width, &cond.activated, err));
    TRY(embed_waves(ex, &model->time, &in->time, &cond.embedding, NULL, err));
    if (in->guidance.data != NULL) {
        TRY(embed_waves(ex, &model->guidance, &in->guidance, &cond.embedding, &cond.embedding, err));
    }
    exec_observe(ex, "time.embedding", 0, &cond.embedding);
    TRY(op_silu(ex, &(struct silu_args){ .x = &cond.embedding, .y = &cond.activated }, err));
    TRY(project_condition(ex, &cond.activated, &model->mod_image, &cond.image, err));
    TRY(project_condition(ex, &cond.activated, &model->mod_text, &cond.text, err));
    TRY(project_condition(ex, &cond.activated, &model->mod_single, &cond.single, err));
    TRY(project_condition(ex, &cond.activated, &model->final_scale, &cond.final_scale, err));
    TRY(project_condition(ex, &cond.activated, &model->final_shift, &cond.final_shift, err));
    exec_observe(ex, "mod.image", 0, &cond.image);
    exec_observe(ex, "mod.text", 0, &cond.text);
    exec_observe(ex, "mod.single", 0, &cond.single);
    *ret = cond;
done:
    return st;
}

static enum cyi_status make_projections(struct step_state *s, int64_t n, struct cyi_error *err) {
    const struct flux2_config *c = &s->model->config;
    struct exec *ex = s->ex;
    enum cyi_status st = CYI_OK;
    if (ex->device != NULL) {
        TRY(exec_new_2d(ex, ex->act_dtype, n, 3 * c->width + 2 * c->mlp_width, &s->projected, err));
        s->raw_q = tensor_cols(&s->projected, 0, c->width);
        s->raw_k = tensor_cols(&s->projected, c->width, c->width);
        s->v = tensor_cols(&s->projected, 2 * c->width, c->width);
        s->hidden = tensor_cols(&s->projected, 3 * c->width, 2 * c->mlp_width);
        s->q = s->raw_q;
        s->k = s->raw_k;
        return CYI_OK;
    }
    TRY(exec_new_2d(ex, DTYPE_F32, n, c->width, &s->raw_q, err));
    s->raw_k = s->raw_q;
    TRY(exec_new_2d(ex, ex->act_dtype, n, c->width, &s->q, err));
    TRY(exec_new_2d(ex, ex->act_dtype, n, c->width, &s->k, err));
    TRY(exec_new_2d(ex, ex->act_dtype, n, c->width, &s->v, err));
    TRY(exec_new_2d(ex, DTYPE_F32, n, 2 * c->mlp_width, &s->hidden, err));
done:
    return st;
}

static enum cyi_status make_state(const struct flux2 *model, struct exec *ex, const struct flux2_run *run,
                                  struct step_state *s, struct cyi_error *err) {
    const struct flux2_config *c = &model->config;
    int64_t n = run->n_text + run->n_noise + run->n_references;
    enum cyi_status st = CYI_OK;
    *s = (struct step_state){ .model = model, .ex = ex, .run = run };
    TRY(exec_new_2d(ex, DTYPE_F32, n, c->width, &s->stream, err));
    TRY(exec_new_2d(ex, ex->act_dtype, n, c->width, &s->normed, err));
    TRY(make_projections(s, n, err));
    TRY(exec_new_2d(ex, ex->act_dtype, n, c->width + c->mlp_width, &s->joined, err));
done:
    return st;
}

size_t flux2_get_working_bytes(const struct flux2 *model, int64_t n_text, int64_t n_image, enum dtype act_dtype,
                               bool is_device) {
    const struct flux2_config *c = &model->config;
    size_t act = dtype_size(act_dtype);
    size_t n = (size_t)(n_text + n_image);
    size_t d = (size_t)c->width;
    size_t f = (size_t)c->mlp_width;
    size_t projections = is_device ? (3 * d + 2 * f) * act : d * 4 + 3 * d * act + 2 * f * 4;
    size_t step = n * (d * 4 + d * act + projections + (d + f) * act);
    size_t run = n * (d * 4 + (size_t)c->head_dim * 4);
    size_t inputs = (size_t)n_text * (size_t)c->text_width * (4 + act);
    return step + run + inputs + 20 * d * 4;
}

/* Rows first … first + n of the normed stream = LN(stream) (1 + scale) + shift. */
static enum cyi_status modulate(struct step_state *s, int64_t first, int64_t n, const struct tensor *scale,
                                const struct tensor *shift, struct cyi_error *err) {
    struct tensor x = tensor_rows(&s->stream, first, n);
    struct tensor y = tensor_rows(&s->normed, first, n);
    return op_layer_norm(s->ex,
                         &(struct layer_norm_args){
                             .x = &x, .scale = scale, .shift = shift, .eps = (float)s->model->config.eps, .y = &y },
                         err);
}

/* One of q and k for some rows: RMS norm over each head, rotation. */
static enum cyi_status rotate(struct step_state *s, int64_t first, int64_t n, const struct tensor *raw,
                              const struct tensor *norm, const struct tensor *target, struct cyi_error *err) {
    const struct flux2_config *c = &s->model->config;
    struct tensor x = tensor_rows(raw, first, n);
    struct tensor cos = tensor_rows(&s->run->cos, first, n);
    struct tensor sin = tensor_rows(&s->run->sin, first, n);
    struct tensor y = tensor_rows(target, first, n);
    return op_qk_norm_rope(s->ex,
                           &(struct qk_norm_rope_args){ .x = &x,
                                                        .weight = norm,
                                                        .cos = &cos,
                                                        .sin = &sin,
                                                        .n_heads = c->n_heads,
                                                        .eps = (float)c->eps,
                                                        .pairs = ROPE_ADJACENT,
                                                        .y = &y },
                           err);
}

/* target = normed · weightᵀ, for some rows. */
static enum cyi_status project(struct step_state *s, int64_t first, int64_t n, const struct tensor *weight,
                               const struct tensor *target, struct cyi_error *err) {
    struct tensor x = tensor_rows(&s->normed, first, n);
    struct tensor y = tensor_rows(target, first, n);
    return op_linear(s->ex, &(struct linear_args){ .x = &x, .weight = weight, .is_tolerant = true, .y = &y }, err);
}

/* The three projections of some rows, from weights of [D, D] each. */
static enum cyi_status project_qkv(struct step_state *s, int64_t first, int64_t n, const struct stream_weights *w,
                                   struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    TRY(project(s, first, n, &w->q, &s->raw_q, err));
    TRY(rotate(s, first, n, &s->raw_q, &w->norm_q, &s->q, err));
    TRY(project(s, first, n, &w->k, &s->raw_k, err));
    TRY(rotate(s, first, n, &s->raw_k, &w->norm_k, &s->k, err));
    TRY(project(s, first, n, &w->v, &s->v, err));
done:
    return st;
}

/* Attention of all rows over all rows, into the first D columns of `joined`. */
static enum cyi_status attend(struct step_state *s, struct cyi_error *err) {
    const struct flux2_config *c = &s->model->config;
    struct tensor out = tensor_cols(&s->joined, 0, c->width);
    return op_attention(s->ex,
                        &(struct attention_args){ .q = &s->q,
                                                  .k = &s->k,
                                                  .v = &s->v,
                                                  .n_heads = c->n_heads,
                                                  .n_kv_heads = c->n_heads,
                                                  .n_keys = tensor_n_rows(&s->k),
                                                  .scale = 1.0F / sqrtf((float)c->head_dim),
                                                  .out = &out },
                        err);
}

/* silu(gate) · up of some rows of `hidden`, into the last F columns of `joined`. */
static enum cyi_status activate(struct step_state *s, int64_t first, int64_t n, struct cyi_error *err) {
    const struct flux2_config *c = &s->model->config;
    struct tensor hidden = tensor_rows(&s->hidden, first, n);
    struct tensor gate = tensor_cols(&hidden, 0, c->mlp_width);
    struct tensor up = tensor_cols(&hidden, c->mlp_width, c->mlp_width);
    struct tensor rows = tensor_rows(&s->joined, first, n);
    struct tensor y = tensor_cols(&rows, c->width, c->mlp_width);
    return op_swiglu(s->ex, &(struct swiglu_args){ .gate = &gate, .up = &up, .y = &y }, err);
}

/* Rows of the stream += gate · (columns of `joined` · Wᵀ). */
static enum cyi_status add_gated(struct step_state *s, int64_t first, int64_t n, int64_t first_col,
                                 const struct tensor *weight, const struct tensor *gate, struct cyi_error *err) {
    struct tensor rows = tensor_rows(&s->joined, first, n);
    struct tensor x = tensor_cols(&rows, first_col, tensor_n_cols(weight));
    struct tensor y = tensor_rows(&s->stream, first, n);
    return op_linear(
        s->ex,
        &(struct linear_args){ .x = &x, .weight = weight, .gate = gate, .residual = &y, .is_tolerant = true, .y = &y },
        err);
}

/* The rows of one stream of the double blocks, with what belongs to it. */
struct stream {
    int64_t first, n;
    const struct stream_weights *weights;
    struct modulation attention, mlp;
};

static enum cyi_status run_double(struct step_state *s, int index, struct cyi_error *err) {
    const struct double_block *block = &s->model->doubles[index];
    int64_t width = s->model->config.width;
    int64_t n_image = s->run->n_noise + s->run->n_references;
    const struct stream streams[2] = {
        { 0, s->run->n_text, &block->text, modulation_at(&s->cond.text, 0, width),
          modulation_at(&s->cond.text, 1, width) },
        { s->run->n_text, n_image, &block->image, modulation_at(&s->cond.image, 0, width),
          modulation_at(&s->cond.image, 1, width) },
    };
    enum cyi_status st = CYI_OK;
    for (int i = 0; i < 2; i++) {
        const struct stream *r = &streams[i];
        TRY(modulate(s, r->first, r->n, &r->attention.scale, &r->attention.shift, err));
        TRY(project_qkv(s, r->first, r->n, r->weights, err));
    }
    TRY(attend(s, err));
    for (int i = 0; i < 2; i++) {
        const struct stream *r = &streams[i];
        TRY(add_gated(s, r->first, r->n, 0, &r->weights->proj, &r->attention.gate, err));
        TRY(modulate(s, r->first, r->n, &r->mlp.scale, &r->mlp.shift, err));
        TRY(project(s, r->first, r->n, &r->weights->mlp_in, &s->hidden, err));
        TRY(activate(s, r->first, r->n, err));
        TRY(add_gated(s, r->first, r->n, width, &r->weights->mlp_out, &r->mlp.gate, err));
    }
    struct tensor text = tensor_rows(&s->stream, 0, s->run->n_text);
    struct tensor image = tensor_rows(&s->stream, s->run->n_text, n_image);
    exec_observe(s->ex, "step0.double.%d.text", index, &text);
    exec_observe(s->ex, "step0.double.%d.image", index, &image);
done:
    return st;
}

/* All that a single block projects, into q, k, v and hidden. */
static enum cyi_status project_single(struct step_state *s, const struct single_block *block, struct cyi_error *err) {
    int64_t width = s->model->config.width;
    int64_t n = tensor_n_rows(&s->stream);
    struct tensor mlp = tensor_rows(&block->qkv_mlp, 3 * width, 2 * s->model->config.mlp_width);
    const struct stream_weights qkv = { .q = tensor_rows(&block->qkv_mlp, 0, width),
                                        .k = tensor_rows(&block->qkv_mlp, width, width),
                                        .v = tensor_rows(&block->qkv_mlp, 2 * width, width),
                                        .norm_q = block->norm_q,
                                        .norm_k = block->norm_k };
    enum cyi_status st = CYI_OK;
    if (s->projected.data == NULL) {
        TRY(project_qkv(s, 0, n, &qkv, err));
        TRY(project(s, 0, n, &mlp, &s->hidden, err));
    } else {
        TRY(project(s, 0, n, &block->qkv_mlp, &s->projected, err));
        TRY(rotate(s, 0, n, &s->raw_q, &block->norm_q, &s->q, err));
        TRY(rotate(s, 0, n, &s->raw_k, &block->norm_k, &s->k, err));
    }
done:
    return st;
}

static enum cyi_status run_single(struct step_state *s, int index, struct cyi_error *err) {
    const struct single_block *block = &s->model->singles[index];
    int64_t n = tensor_n_rows(&s->stream);
    struct modulation mod = modulation_at(&s->cond.single, 0, s->model->config.width);
    enum cyi_status st = CYI_OK;
    TRY(modulate(s, 0, n, &mod.scale, &mod.shift, err));
    TRY(project_single(s, block, err));
    TRY(attend(s, err));
    TRY(activate(s, 0, n, err));
    TRY(add_gated(s, 0, n, 0, &block->out, &mod.gate, err));
    exec_observe(s->ex, "step0.single.%d", index, &s->stream);
done:
    return st;
}

/* The stream at the start: text and references as prepared, the noisy latents embedded. */
static enum cyi_status fill_stream(struct step_state *s, const struct tensor *x, struct cyi_error *err) {
    const struct flux2_run *run = s->run;
    struct tensor text = tensor_rows(&s->stream, 0, run->n_text);
    struct tensor noise = tensor_rows(&s->stream, run->n_text, run->n_noise);
    struct tensor references = tensor_rows(&s->stream, run->n_text + run->n_noise, run->n_references);
    enum cyi_status st = CYI_OK;
    TRY(op_cast(s->ex, &(struct cast_args){ .x = &run->text, .y = &text }, err));
    TRY(embed_rows(s->ex, x, &s->model->x_embedder, &noise, err));
    if (run->n_references > 0) {
        TRY(op_cast(s->ex, &(struct cast_args){ .x = &run->references, .y = &references }, err));
    }
    struct tensor image = tensor_rows(&s->stream, run->n_text, run->n_noise + run->n_references);
    exec_observe(s->ex, "step0.embed.image", 0, &image);
    exec_observe(s->ex, "step0.embed.text", 0, &text);
done:
    return st;
}

/* The velocity, of the noise rows only. */
static enum cyi_status finish(struct step_state *s, struct tensor *velocity, struct cyi_error *err) {
    int64_t width = s->model->config.width;
    struct tensor scale = tensor_1d(DTYPE_F32, width, s->cond.final_scale.data);
    struct tensor shift = tensor_1d(DTYPE_F32, width, s->cond.final_shift.data);
    struct tensor x = tensor_rows(&s->normed, s->run->n_text, s->run->n_noise);
    enum cyi_status st = CYI_OK;
    TRY(modulate(s, s->run->n_text, s->run->n_noise, &scale, &shift, err));
    exec_observe(s->ex, "step0.norm_out", 0, &x);
    TRY(op_linear(s->ex, &(struct linear_args){ .x = &x, .weight = &s->model->proj_out, .y = velocity }, err));
    exec_observe(s->ex, "step0.output", 0, velocity);
done:
    return st;
}

/* The step as operations alone, from inputs to velocity. */
static enum cyi_status run_step(struct step_state *s, const struct flux2_step *step, struct step_inputs *in,
                                struct cyi_error *err) {
    const struct flux2_config *c = &s->model->config;
    enum cyi_status st = CYI_OK;
    TRY(condition(s->model, s->ex, in, &s->cond, err));
    TRY(fill_stream(s, &in->x, err));
    for (int i = 0; i < c->n_double; i++) {
        TRY(run_double(s, i, err));
        TRY(exec_report_block(s->ex, step->first_block + i + 1, step->n_blocks_all, err));
    }
    for (int i = 0; i < c->n_single; i++) {
        TRY(run_single(s, i, err));
        TRY(exec_report_block(s->ex, step->first_block + c->n_double + i + 1, step->n_blocks_all, err));
    }
    TRY(finish(s, &in->velocity, err));
done:
    return st;
}

/* Everything that the operations of a step depend on, in one number: FNV-1a over what makes their arguments. */
static uint64_t recording_key(const struct step_state *s, const struct step_inputs *in) {
    const struct flux2_run *run = s->run;
    const uint64_t parts[] = { (uintptr_t)s->model,          (uint64_t)run->n_text,
                               (uint64_t)run->n_noise,       (uint64_t)run->n_references,
                               (uintptr_t)run->text.data,    (uintptr_t)run->references.data,
                               (uintptr_t)run->cos.data,     (uintptr_t)run->sin.data,
                               (uintptr_t)in->x.data,        (uintptr_t)in->time.data,
                               (uintptr_t)in->guidance.data, (uintptr_t)in->velocity.data,
                               (uintptr_t)s->stream.data,    (uintptr_t)s->normed.data,
                               (uintptr_t)s->projected.data, (uintptr_t)s->joined.data };
    uint64_t key = 0xcbf29ce484222325U;
    for (size_t i = 0; i < N_ROWS(parts); i++) {
        key = (key ^ parts[i]) * 0x100000001b3U;
    }
    return key;
}

enum cyi_status flux2_forward(const struct flux2 *model, struct exec *ex, const struct flux2_run *run,
                              const struct flux2_step *step, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct exec_mark mark = exec_get_mark(ex);
    struct step_state s;
    struct step_inputs in;
    bool is_replayed = false;
    bool is_lost = true;
    TRY(make_state(model, ex, run, &s, err));
    TRY(send_inputs(model, ex, step, &in, err));
    while (is_lost && !is_replayed) {
        if (tensor_n_rows(&s.stream) <= MAX_RECORDED_TOKENS) {
            TRY(exec_begin_recording(ex, recording_key(&s, &in), &is_replayed, err));
        }
        if (!is_replayed) {
            TRY(exec_end_recording(ex, run_step(&s, step, &in, err), &is_lost, err));
        }
    }
    TRY(exec_receive(ex, &in.velocity, step->velocity, err));
    if (is_replayed) {
        TRY(exec_report_block(ex, step->first_block + model->config.n_double + model->config.n_single,
                              step->n_blocks_all, err));
    }
done:
    exec_release(ex, mark);
    return st;
}
