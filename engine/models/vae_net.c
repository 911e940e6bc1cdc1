/* Encoder and decoder of a VAE, the list of layers: see vae_net.h. */
#include "models/vae_net.h"

#include <stdio.h>

#include "models/weights.h"

/* ---- What each layer needs ---- */

#define PAIR(field, shape, vector, name, alt)                                                                          \
    { name ".weight", alt ".weight", offsetof(struct vae_layer, field.weight), shape, false }, {                       \
        name ".bias", alt ".bias", offsetof(struct vae_layer, field.bias), vector, false                               \
    }

static const struct weight_row conv_rows[] = { PAIR(conv1, "[O,I,3,3]", "[O]", "conv_in", "conv_in") };
static const struct weight_row sample_rows[] = { PAIR(conv1, "[O,I,3,3]", "[O]", "conv", "conv") };
static const struct weight_row quant_rows[] = { PAIR(shortcut, "[O,I,1*]", "[O]", "quant_conv", "quant_conv") };
static const struct weight_row out_rows[] = {
    PAIR(norm1, "[I]", "[I]", "conv_norm_out", "norm_out"),
    PAIR(conv1, "[O,I,3,3]", "[O]", "conv_out", "conv_out"),
};
static const struct weight_row residual_rows[] = {
    PAIR(norm1, "[I]", "[I]", "norm1", "norm1"),
    PAIR(conv1, "[O,I,3,3]", "[O]", "conv1", "conv1"),
    PAIR(norm2, "[O]", "[O]", "norm2", "norm2"),
    PAIR(conv2, "[O,O,3,3]", "[O]", "conv2", "conv2"),
};
static const struct weight_row shortcut_rows[] = { PAIR(shortcut, "[O,I,1*]", "[O]", "conv_shortcut", "nin_shortcut") };
static const struct weight_row attention_rows[] = {
    PAIR(norm1, "[I]", "[I]", "group_norm", "norm"),
    PAIR(q, "[I,I,1*]", "[I]", "to_q", "q"),
    PAIR(k, "[I,I,1*]", "[I]", "to_k", "k"),
    PAIR(v, "[I,I,1*]", "[I]", "to_v", "v"),
    PAIR(out, "[I,I,1*]", "[I]", "to_out.0", "proj_out"),
};
#undef PAIR

#define N_ROWS(rows) (sizeof(rows) / sizeof(rows)[0])

static const struct rows {
    const struct weight_row *rows;
    size_t n;
} rows_of_kind[VAE_N_LAYER_KINDS] = {
    [VAE_LAYER_CONV] = { conv_rows, N_ROWS(conv_rows) },
    [VAE_LAYER_QUANT] = { quant_rows, N_ROWS(quant_rows) },
    [VAE_LAYER_RESIDUAL] = { residual_rows, N_ROWS(residual_rows) },
    [VAE_LAYER_ATTENTION] = { attention_rows, N_ROWS(attention_rows) },
    [VAE_LAYER_DOWN] = { sample_rows, N_ROWS(sample_rows) },
    [VAE_LAYER_UP] = { sample_rows, N_ROWS(sample_rows) },
    [VAE_LAYER_OUT] = { out_rows, N_ROWS(out_rows) },
};

/* ---- Building the list ---- */

struct builder {
    struct vae_net *net;
    const struct weight_set *set;
    const struct vae_names *names;
    const struct vae_config *config;
    int64_t width; /* channels after the last layer */
};

/* Adds a layer whose tensors stand behind names->prefix + name. */
static enum cyi_status add_layer(struct builder *b, enum vae_layer_kind kind, int64_t n_out, const char *name,
                                 const char *stage, int stage_index, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct vae_net *net = b->net;
    struct vae_layer *layer = &net->layers[net->n_layers];
    struct weight_dims dims = { .value = { ['I'] = b->width, ['O'] = n_out } };
    char prefix[128];
    (void)snprintf(prefix, sizeof prefix, "%s%s", b->names->prefix, name);
    *layer = (struct vae_layer){
        .kind = kind, .n_in = b->width, .n_out = n_out, .stage = stage, .stage_index = stage_index
    };
    TRY(weights_bind(b->set, prefix, rows_of_kind[kind].rows, rows_of_kind[kind].n, 0, &dims, layer, err));
    if (kind == VAE_LAYER_RESIDUAL && layer->n_in != n_out) {
        TRY(weights_bind(b->set, prefix, shortcut_rows, N_ROWS(shortcut_rows), 0, &dims, layer, err));
    }
    net->n_layers++;
    b->width = n_out;
done:
    return st;
}

/* The residual blocks of one level, and the change of size behind them. */
static enum cyi_status add_level(struct builder *b, bool is_encoder, int level, int64_t width, struct cyi_error *err) {
    int n_levels = b->config->n_levels;
    int64_t n_blocks = is_encoder ? b->config->n_encoder_blocks : b->config->n_decoder_blocks;
    bool is_bfl = b->names->is_bfl;
    int index =
        is_bfl && !is_encoder ? n_levels - 1 - level : level; /* BFL counts the decoder's levels from the finest */
    const char *stage = is_encoder ? "vae.encode.down.%d" : "vae.decode.up.%d";
    bool is_last = level == n_levels - 1;
    char name[96];
    enum cyi_status st = CYI_OK;
    for (int j = 0; j < n_blocks; j++) {
        if (is_encoder) {
            (void)snprintf(name, sizeof name,
                           is_bfl ? "encoder.down.%d.block.%d." : "encoder.down_blocks.%d.resnets.%d.", index, j);
        } else {
            (void)snprintf(name, sizeof name, is_bfl ? "decoder.up.%d.block.%d." : "decoder.up_blocks.%d.resnets.%d.",
                           index, j);
        }
        TRY(add_layer(b, VAE_LAYER_RESIDUAL, width, name, is_last && j == n_blocks - 1 ? stage : NULL, level, err));
    }
    if (!is_last && is_encoder) {
        (void)snprintf(name, sizeof name,
                       is_bfl ? "encoder.down.%d.downsample." : "encoder.down_blocks.%d.downsamplers.0.", index);
        TRY(add_layer(b, VAE_LAYER_DOWN, width, name, stage, level, err));
    } else if (!is_last) {
        (void)snprintf(name, sizeof name, is_bfl ? "decoder.up.%d.upsample." : "decoder.up_blocks.%d.upsamplers.0.",
                       index);
        TRY(add_layer(b, VAE_LAYER_UP, width, name, stage, level, err));
    }
done:
    return st;
}

static enum cyi_status add_middle(struct builder *b, bool is_encoder, struct cyi_error *err) {
    static const char *const parts[2][3] = { { "mid_block.resnets.0.", "mid_block.attentions.0.",
                                               "mid_block.resnets.1." },
                                             { "mid.block_1.", "mid.attn_1.", "mid.block_2." } };
    const enum vae_layer_kind kinds[3] = { VAE_LAYER_RESIDUAL, VAE_LAYER_ATTENTION, VAE_LAYER_RESIDUAL };
    const char *stage = is_encoder ? "vae.encode.mid" : "vae.decode.mid";
    enum cyi_status st = CYI_OK;
    for (int i = 0; i < 3; i++) {
        char name[96];
        if (kinds[i] == VAE_LAYER_ATTENTION && !b->config->has_attention) {
            continue;
        }
        (void)snprintf(name, sizeof name, "%s.%s", is_encoder ? "encoder" : "decoder", parts[b->names->is_bfl][i]);
        TRY(add_layer(b, kinds[i], b->width, name, i == 2 ? stage : NULL, 0, err));
    }
done:
    return st;
}

static enum cyi_status build_encoder(struct builder *b, struct cyi_error *err) {
    const struct vae_config *c = b->config;
    enum cyi_status st = CYI_OK;
    b->width = 3;
    TRY(add_layer(b, VAE_LAYER_CONV, c->encoder_widths[0], "encoder.", "vae.encode.conv_in", 0, err));
    for (int level = 0; level < c->n_levels; level++) {
        TRY(add_level(b, true, level, c->encoder_widths[level], err));
    }
    TRY(add_middle(b, true, err));
    TRY(add_layer(b, VAE_LAYER_OUT, 2 * c->latent_channels, "encoder.", "vae.encode.conv_out", 0, err));
    if (c->has_quant) {
        TRY(add_layer(b, VAE_LAYER_QUANT, 2 * c->latent_channels, b->names->is_bfl ? "encoder." : "",
                      "vae.encode.moments", 0, err));
    }
done:
    return st;
}

static enum cyi_status build_decoder(struct builder *b, struct cyi_error *err) {
    const struct vae_config *c = b->config;
    enum cyi_status st = CYI_OK;
    b->width = c->latent_channels;
    if (c->has_post_quant) {
        TRY(add_layer(b, VAE_LAYER_QUANT, b->width, b->names->is_bfl ? "decoder.post_" : "post_",
                      "vae.decode.post_quant", 0, err));
    }
    TRY(add_layer(b, VAE_LAYER_CONV, c->decoder_widths[c->n_levels - 1], "decoder.", "vae.decode.conv_in", 0, err));
    TRY(add_middle(b, false, err));
    for (int level = 0; level < c->n_levels; level++) {
        TRY(add_level(b, false, level, c->decoder_widths[c->n_levels - 1 - level], err));
    }
    TRY(add_layer(b, VAE_LAYER_OUT, 3, "decoder.", "image.raw", 0, err));
done:
    return st;
}

enum cyi_status vae_net_create(const struct cyi_allocator *allocator, const struct weight_set *set,
                               const struct vae_names *names, const struct vae_config *config, bool is_encoder,
                               struct vae_net **ret_net, struct cyi_error *err) {
    int64_t n_blocks = is_encoder ? config->n_encoder_blocks : config->n_decoder_blocks;
    int64_t max_layers = config->n_levels * (n_blocks + 1) + 8;
    struct vae_net *net = mem_alloc_zeroed(allocator, 1, sizeof *net);
    if (net == NULL) {
        return error_memory(err, "the VAE", sizeof *net);
    }
    *net = (struct vae_net){ .allocator = allocator, .n_groups = config->n_groups, .eps = (float)config->eps };
    net->layers = mem_alloc_zeroed(allocator, (size_t)max_layers, sizeof *net->layers);
    if (net->layers == NULL) {
        vae_net_free(net);
        return error_memory(err, "the VAE's layers", (size_t)max_layers * sizeof *net->layers);
    }
    struct builder builder = { .net = net, .set = set, .names = names, .config = config };
    enum cyi_status st = is_encoder ? build_encoder(&builder, err) : build_decoder(&builder, err);
    if (st != CYI_OK) {
        vae_net_free(net);
        return st;
    }
    *ret_net = net;
    return CYI_OK;
}

void vae_net_free(struct vae_net *net) {
    if (net != NULL) {
        mem_free(net->allocator, net->layers);
        mem_free(net->allocator, net);
    }
}
