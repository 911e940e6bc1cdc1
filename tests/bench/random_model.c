/* Writes a FLUX.2 klein 4B of random numbers: the folders, names, shapes, types and sizes of the published model, for measuring
 * time and memory where the real weights are not at hand. Weights are scaled so that activations stay of order one. */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/random_file.h"
#include "io/safetensors.h"

#define SHAPE(...) ((const int64_t[4]){ __VA_ARGS__ })

static const char usage[] =
    "usage: random_model [--tiny] [--seed N] --tokenizer FOLDER OUTPUT\n"
    "\n"
    "Writes a FLUX.2 klein 4B in diffusers layout with random weights into the folder OUTPUT: 16 GB of BF16.\n"
    "  --tokenizer FOLDER  its tokenizer files are copied (a small one: tests/fixtures/golden/flux2-klein/tokenizer)\n"
    "  --tiny              the same structure with small numbers, 1 MB\n"
    "  --seed N            other weights (default 1)\n";

struct sizes {
    int64_t n_heads, head_dim, n_double, n_single;                                    /* transformer */
    int64_t hidden, ffn, n_layers, llm_heads, llm_kv_heads, llm_head_dim, vocabulary; /* text encoder */
    int64_t channels[4], res_per_level, n_groups;                                     /* VAE */
    uint64_t shard_bytes;
};

static const struct sizes klein_4b = {
    .n_heads = 24,
    .head_dim = 128,
    .n_double = 5,
    .n_single = 20,
    .hidden = 2560,
    .ffn = 9728,
    .n_layers = 36,
    .llm_heads = 32,
    .llm_kv_heads = 8,
    .llm_head_dim = 128,
    .vocabulary = 151936,
    .channels = { 128, 256, 512, 512 },
    .res_per_level = 2,
    .n_groups = 32,
    .shard_bytes = UINT64_C(5000000000),
};

static const struct sizes tiny = {
    .n_heads = 2,
    .head_dim = 32,
    .n_double = 2,
    .n_single = 3,
    .hidden = 48,
    .ffn = 96,
    .n_layers = 6,
    .llm_heads = 4,
    .llm_kv_heads = 2,
    .llm_head_dim = 16,
    .vocabulary = 480,
    .channels = { 8, 16, 16, 32 },
    .res_per_level = 1,
    .n_groups = 8,
    .shard_bytes = 200000,
};

/* A matrix whose outputs have `gain` times the deviation of its inputs. */
static void add_linear(struct random_list *list, const char *prefix, const char *name, int64_t n_out, int64_t n_in,
                       double gain) {
    random_list_add(list, prefix, name, SHAPE(n_out, n_in), FILL_NORMAL, gain / sqrt((double)n_in));
}

static void add_ones(struct random_list *list, const char *prefix, const char *name, int64_t n) {
    random_list_add(list, prefix, name, SHAPE(n), FILL_ONES, 0.0);
}

/* ---- Transformer ---- */

static void add_double(struct random_list *list, const struct sizes *s, int64_t index) {
    int64_t d = s->n_heads * s->head_dim;
    char prefix[64];
    (void)snprintf(prefix, sizeof prefix, "transformer_blocks.%d.", (int)index);
    add_linear(list, prefix, "attn.to_q.weight", d, d, 1.0);
    add_linear(list, prefix, "attn.to_k.weight", d, d, 1.0);
    add_linear(list, prefix, "attn.to_v.weight", d, d, 1.5);
    add_ones(list, prefix, "attn.norm_q.weight", s->head_dim);
    add_ones(list, prefix, "attn.norm_k.weight", s->head_dim);
    add_linear(list, prefix, "attn.to_out.0.weight", d, d, 1.0);
    add_ones(list, prefix, "attn.norm_added_q.weight", s->head_dim);
    add_ones(list, prefix, "attn.norm_added_k.weight", s->head_dim);
    add_linear(list, prefix, "attn.add_q_proj.weight", d, d, 1.0);
    add_linear(list, prefix, "attn.add_k_proj.weight", d, d, 1.0);
    add_linear(list, prefix, "attn.add_v_proj.weight", d, d, 1.5);
    add_linear(list, prefix, "attn.to_add_out.weight", d, d, 1.0);
    add_linear(list, prefix, "ff.linear_in.weight", 6 * d, d, 1.4);
    add_linear(list, prefix, "ff.linear_out.weight", d, 3 * d, 0.9);
    add_linear(list, prefix, "ff_context.linear_in.weight", 6 * d, d, 1.4);
    add_linear(list, prefix, "ff_context.linear_out.weight", d, 3 * d, 0.9);
}

static void add_single(struct random_list *list, const struct sizes *s, int64_t index) {
    int64_t d = s->n_heads * s->head_dim;
    char prefix[64];
    (void)snprintf(prefix, sizeof prefix, "single_transformer_blocks.%d.", (int)index);
    add_linear(list, prefix, "attn.to_qkv_mlp_proj.weight", 9 * d, d, 1.4);
    add_ones(list, prefix, "attn.norm_q.weight", s->head_dim);
    add_ones(list, prefix, "attn.norm_k.weight", s->head_dim);
    add_linear(list, prefix, "attn.to_out.weight", d, 4 * d, 1.0);
}

static void list_transformer(struct random_list *list, const struct sizes *s) {
    int64_t d = s->n_heads * s->head_dim;
    random_list_add(list, "", "time_guidance_embed.timestep_embedder.linear_1.weight", SHAPE(d, 256), FILL_SINUSOIDS,
                    2.5 / 16.0);
    add_linear(list, "", "time_guidance_embed.timestep_embedder.linear_2.weight", d, d, 1.0);
    add_linear(list, "", "double_stream_modulation_img.linear.weight", 6 * d, d, 1.1);
    add_linear(list, "", "double_stream_modulation_txt.linear.weight", 6 * d, d, 1.1);
    add_linear(list, "", "single_stream_modulation.linear.weight", 3 * d, d, 1.1);
    add_linear(list, "", "x_embedder.weight", d, 128, 1.0);
    add_linear(list, "", "context_embedder.weight", d, 3 * s->hidden, 1.0);
    for (int64_t i = 0; i < s->n_double; i++) {
        add_double(list, s, i);
    }
    for (int64_t i = 0; i < s->n_single; i++) {
        add_single(list, s, i);
    }
    add_linear(list, "", "norm_out.linear.weight", 2 * d, d, 1.1);
    add_linear(list, "", "proj_out.weight", 128, d, 1.0);
}

/* ---- Text encoder ---- */

static void list_text_encoder(struct random_list *list, const struct sizes *s) {
    int64_t q = s->llm_heads * s->llm_head_dim;
    int64_t kv = s->llm_kv_heads * s->llm_head_dim;
    random_list_add(list, "", "model.embed_tokens.weight", SHAPE(s->vocabulary, s->hidden), FILL_NORMAL, 0.8);
    for (int64_t i = 0; i < s->n_layers; i++) {
        char prefix[64];
        (void)snprintf(prefix, sizeof prefix, "model.layers.%d.", (int)i);
        add_linear(list, prefix, "self_attn.q_proj.weight", q, s->hidden, 1.0);
        add_linear(list, prefix, "self_attn.k_proj.weight", kv, s->hidden, 1.0);
        add_linear(list, prefix, "self_attn.v_proj.weight", kv, s->hidden, 1.5);
        add_linear(list, prefix, "self_attn.o_proj.weight", s->hidden, q, 1.0);
        add_ones(list, prefix, "self_attn.q_norm.weight", s->llm_head_dim);
        add_ones(list, prefix, "self_attn.k_norm.weight", s->llm_head_dim);
        add_linear(list, prefix, "mlp.gate_proj.weight", s->ffn, s->hidden, 1.0);
        add_linear(list, prefix, "mlp.up_proj.weight", s->ffn, s->hidden, 1.0);
        add_linear(list, prefix, "mlp.down_proj.weight", s->hidden, s->ffn, 1.0);
        add_ones(list, prefix, "input_layernorm.weight", s->hidden);
        add_ones(list, prefix, "post_attention_layernorm.weight", s->hidden);
    }
    add_ones(list, "", "model.norm.weight", s->hidden);
}

/* ---- VAE ---- */

static void add_biased(struct random_list *list, const char *prefix, const char *name, const int64_t shape[4],
                       enum fill fill, double std) {
    char text[96];
    (void)snprintf(text, sizeof text, "%s.weight", name);
    random_list_add(list, prefix, text, shape, fill, std);
    (void)snprintf(text, sizeof text, "%s.bias", name);
    random_list_add(list, prefix, text, SHAPE(shape[0]), FILL_NORMAL, 0.05);
}

static void add_conv(struct random_list *list, const char *prefix, const char *name, int64_t n_out, int64_t n_in,
                     int64_t side, double gain) {
    add_biased(list, prefix, name, SHAPE(n_out, n_in, side, side), FILL_NORMAL,
               gain / sqrt((double)(n_in * side * side)));
}

static void add_group_norm(struct random_list *list, const char *prefix, const char *name, int64_t n) {
    add_biased(list, prefix, name, SHAPE(n), FILL_ONES, 0.0);
}

static void add_res(struct random_list *list, const char *prefix, int64_t n_out, int64_t n_in) {
    add_group_norm(list, prefix, "norm1", n_in);
    add_conv(list, prefix, "conv1", n_out, n_in, 3, 1.4);
    add_group_norm(list, prefix, "norm2", n_out);
    add_conv(list, prefix, "conv2", n_out, n_out, 3, 1.0);
    if (n_out != n_in) {
        add_conv(list, prefix, "conv_shortcut", n_out, n_in, 1, 1.0);
    }
}

static void add_mid(struct random_list *list, const char *side, int64_t n) {
    static const char *const projections[] = { "to_q", "to_k", "to_v", "to_out.0" };
    char prefix[64];
    for (int i = 0; i < 2; i++) {
        (void)snprintf(prefix, sizeof prefix, "%s.mid_block.resnets.%d.", side, i);
        add_res(list, prefix, n, n);
    }
    (void)snprintf(prefix, sizeof prefix, "%s.mid_block.attentions.0.", side);
    add_group_norm(list, prefix, "group_norm", n);
    for (int i = 0; i < 4; i++) {
        add_biased(list, prefix, projections[i], SHAPE(n, n), FILL_NORMAL, 1.0 / sqrt((double)n));
    }
}

/* The levels of one side: `channels` from its first to its last, a resampling after each but the last. */
static void add_levels(struct random_list *list, const char *side, const char *blocks, const char *resampler,
                       const int64_t channels[4], int64_t n_res) {
    int64_t n_in = channels[0];
    for (int level = 0; level < 4; level++) {
        char prefix[80];
        for (int64_t i = 0; i < n_res; i++) {
            (void)snprintf(prefix, sizeof prefix, "%s.%s.%d.resnets.%d.", side, blocks, level, (int)i);
            add_res(list, prefix, channels[level], n_in);
            n_in = channels[level];
        }
        (void)snprintf(prefix, sizeof prefix, "%s.%s.%d.%s.0.", side, blocks, level, resampler);
        if (level < 3) {
            add_conv(list, prefix, "conv", channels[level], channels[level], 3, 1.0);
        }
    }
}

static void list_vae(struct random_list *list, const struct sizes *s) {
    const int64_t *c = s->channels;
    const int64_t reversed[4] = { c[3], c[2], c[1], c[0] };
    random_list_add(list, "", "bn.num_batches_tracked", SHAPE(0), FILL_COUNT,
                    0.0); /* first: 8-byte numbers want to be aligned */
    random_list_add(list, "", "bn.running_mean", SHAPE(128), FILL_NORMAL, 0.4);
    random_list_add(list, "", "bn.running_var", SHAPE(128), FILL_VARIANCE, 0.0);
    add_conv(list, "", "encoder.conv_in", c[0], 3, 3, 1.0);
    add_levels(list, "encoder", "down_blocks", "downsamplers", c, s->res_per_level);
    add_mid(list, "encoder", c[3]);
    add_group_norm(list, "", "encoder.conv_norm_out", c[3]);
    add_conv(list, "", "encoder.conv_out", 64, c[3], 3, 1.0);
    add_conv(list, "", "quant_conv", 64, 64, 1, 1.0);
    add_conv(list, "", "post_quant_conv", 32, 32, 1, 1.0);
    add_conv(list, "", "decoder.conv_in", c[3], 32, 3, 1.0);
    add_mid(list, "decoder", c[3]);
    add_levels(list, "decoder", "up_blocks", "upsamplers", reversed, s->res_per_level + 1);
    add_group_norm(list, "", "decoder.conv_norm_out", c[0]);
    add_conv(list, "", "decoder.conv_out", 3, c[0], 3, 0.6);
}

/* ---- Configs ---- */

static const char model_index[] =
    "{\n  \"_class_name\": \"Flux2KleinPipeline\",\n  \"_diffusers_version\": \"0.37.0\",\n  \"is_distilled\": true,\n"
    "  \"scheduler\": [\"diffusers\", \"FlowMatchEulerDiscreteScheduler\"],\n"
    "  \"text_encoder\": [\"transformers\", \"Qwen3ForCausalLM\"],\n"
    "  \"tokenizer\": [\"transformers\", \"Qwen2TokenizerFast\"],\n"
    "  \"transformer\": [\"diffusers\", \"Flux2Transformer2DModel\"],\n"
    "  \"vae\": [\"diffusers\", \"AutoencoderKLFlux2\"]\n}\n";

static const char scheduler_config[] =
    "{\n  \"_class_name\": \"FlowMatchEulerDiscreteScheduler\",\n  \"base_image_seq_len\": 256,\n  \"base_shift\": "
    "0.5,\n"
    "  \"max_image_seq_len\": 4096,\n  \"max_shift\": 1.15,\n  \"num_train_timesteps\": 1000,\n  \"shift\": 3.0,\n"
    "  \"time_shift_type\": \"exponential\",\n  \"use_dynamic_shifting\": true\n}\n";

static const char transformer_config[] =
    "{\n  \"_class_name\": \"Flux2Transformer2DModel\",\n  \"attention_head_dim\": %d,\n  \"axes_dims_rope\": [%d, %d, "
    "%d, %d],\n"
    "  \"eps\": 1e-06,\n  \"guidance_embeds\": false,\n  \"in_channels\": 128,\n  \"joint_attention_dim\": %d,\n"
    "  \"mlp_ratio\": 3.0,\n  \"num_attention_heads\": %d,\n  \"num_layers\": %d,\n  \"num_single_layers\": %d,\n"
    "  \"out_channels\": null,\n  \"patch_size\": 1,\n  \"rope_theta\": 2000,\n  \"timestep_guidance_channels\": "
    "256\n}\n";

static const char text_encoder_config[] =
    "{\n  \"architectures\": [\"Qwen3ForCausalLM\"],\n  \"attention_bias\": false,\n  \"attention_dropout\": 0.0,\n"
    "  \"head_dim\": %d,\n  \"hidden_act\": \"silu\",\n  \"hidden_size\": %d,\n  \"intermediate_size\": %d,\n"
    "  \"max_position_embeddings\": 40960,\n  \"model_type\": \"qwen3\",\n  \"num_attention_heads\": %d,\n"
    "  \"num_hidden_layers\": %d,\n  \"num_key_value_heads\": %d,\n  \"rms_norm_eps\": 1e-06,\n  \"rope_scaling\": "
    "null,\n"
    "  \"rope_theta\": 1000000,\n  \"sliding_window\": null,\n  \"tie_word_embeddings\": true,\n"
    "  \"torch_dtype\": \"bfloat16\",\n  \"use_sliding_window\": false,\n  \"vocab_size\": %d\n}\n";

static const char vae_config[] =
    "{\n  \"_class_name\": \"AutoencoderKLFlux2\",\n  \"act_fn\": \"silu\",\n  \"batch_norm_eps\": 0.0001,\n"
    "  \"batch_norm_momentum\": 0.1,\n  \"block_out_channels\": [%d, %d, %d, %d],\n"
    "  \"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", \"DownEncoderBlock2D\", "
    "\"DownEncoderBlock2D\"],\n"
    "  \"in_channels\": 3,\n  \"latent_channels\": 32,\n  \"layers_per_block\": %d,\n  \"mid_block_add_attention\": "
    "true,\n"
    "  \"norm_num_groups\": %d,\n  \"out_channels\": 3,\n  \"patch_size\": [2, 2],\n  \"sample_size\": 1024,\n"
    "  \"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\"],\n"
    "  \"use_post_quant_conv\": true,\n  \"use_quant_conv\": true\n}\n";

/* What the engine needs beside the configs when a model has not the published sizes. */
static const char tiny_settings[] = "{\n  \"text_encoder_out_layers\": [1, 3, 5],\n  \"max_sequence_length\": 64\n}\n";

static void write_transformer_config(const char *folder, const struct sizes *s) {
    char text[2048];
    int axis = (int)s->head_dim / 4;
    (void)snprintf(text, sizeof text, transformer_config, (int)s->head_dim, axis, axis, axis, axis, 3 * (int)s->hidden,
                   (int)s->n_heads, (int)s->n_double, (int)s->n_single);
    write_text_file(folder, "config.json", text);
}

static void write_text_encoder_config(const char *folder, const struct sizes *s) {
    char text[2048];
    (void)snprintf(text, sizeof text, text_encoder_config, (int)s->llm_head_dim, (int)s->hidden, (int)s->ffn,
                   (int)s->llm_heads, (int)s->n_layers, (int)s->llm_kv_heads, (int)s->vocabulary);
    write_text_file(folder, "config.json", text);
}

static void write_vae_config(const char *folder, const struct sizes *s) {
    char text[2048];
    const int64_t *c = s->channels;
    (void)snprintf(text, sizeof text, vae_config, (int)c[0], (int)c[1], (int)c[2], (int)c[3], (int)s->res_per_level,
                   (int)s->n_groups);
    write_text_file(folder, "config.json", text);
}

/* ---- The model ---- */

struct part {
    const char *folder, *stem; /* stem: NULL when there are no weights */
    void (*list)(struct random_list *list, const struct sizes *s);
    void (*write_config)(const char *folder, const struct sizes *s);
};

static const struct part parts[] = {
    { "transformer", "diffusion_pytorch_model", list_transformer, write_transformer_config },
    { "text_encoder", "model", list_text_encoder, write_text_encoder_config },
    { "vae", "diffusion_pytorch_model", list_vae, write_vae_config },
};

#define N_PARTS (sizeof parts / sizeof parts[0])

static const char *join(char path[4096], const char *folder, const char *name) {
    int n = snprintf(path, 4096, "%s/%s", folder, name);
    if (n < 0 || n >= 4096) {
        die("%s/%s: the path is too long", folder, name);
    }
    return path;
}

static void make_folder(const char *path) {
    if (mkdir(path, 0777) != 0 && errno != EEXIST) {
        die("%s: cannot be created: %s", path, strerror(errno));
    }
}

/* Weights of at most one shard stay in one file, as the published transformer does whatever its size. */
static void write_part(const struct part *part, const char *output, const struct sizes *s, uint64_t seed) {
    char folder[4096];
    struct random_list list = { 0 };
    bool is_sharded = strcmp(part->folder, "text_encoder") == 0;
    make_folder(join(folder, output, part->folder));
    part->write_config(folder, s);
    part->list(&list, s);
    uint64_t bytes = random_list_write(&list, folder, part->stem, is_sharded ? s->shard_bytes : UINT64_MAX, seed);
    (void)printf("%s: %zu tensors, %.3f GB\n", folder, list.n, (double)bytes / 1e9);
    (void)fflush(stdout);
    random_list_done(&list);
}

/* The engine's own reader has the last word on what was written. */
static void check_part(const struct part *part, const char *output) {
    char folder[4096];
    struct weight_set *set = NULL;
    struct cyi_error err = { 0 };
    if (weight_set_open(&mem_default_allocator, join(folder, output, part->folder), part->stem, &set, &err) != CYI_OK) {
        die("%s", err.text);
    }
    weight_set_close(set);
}

static void copy_tokenizer(const char *from, const char *output) {
    static const char *const names[] = {
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",    "vocab.json",
        "merges.txt",     "added_tokens.json",     "special_tokens_map.json"
    };
    char folder[4096];
    make_folder(join(folder, output, "tokenizer"));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[4096];
        char *text = NULL;
        size_t size;
        struct cyi_error err = { 0 };
        if (i > 0 && !file_exists(join(path, from, names[i]))) {
            continue; /* only the first one is needed */
        }
        if (file_read_all(&mem_default_allocator, join(path, from, names[i]), (size_t)1 << 28, &text, &size, &err) !=
                CYI_OK ||
            file_write_atomically(&mem_default_allocator, join(path, folder, names[i]), text, size, &err) != CYI_OK) {
            die("%s", err.text);
        }
        mem_free(&mem_default_allocator, text);
    }
}

static void write_model(const char *output, const char *tokenizer, const struct sizes *s, uint64_t seed) {
    char folder[4096];
    make_folder(output);
    copy_tokenizer(tokenizer, output);
    write_text_file(output, "model_index.json", model_index);
    make_folder(join(folder, output, "scheduler"));
    write_text_file(folder, "scheduler_config.json", scheduler_config);
    if (s == &tiny) {
        write_text_file(output, "cyberimage.json", tiny_settings);
    }
    for (size_t i = 0; i < N_PARTS; i++) {
        write_part(&parts[i], output, s, seed * N_PARTS + i);
        check_part(&parts[i], output);
    }
}

int main(int argc, char **argv) {
    const struct sizes *s = &klein_4b;
    const char *tokenizer = NULL;
    const char *output = NULL;
    uint64_t seed = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tiny") == 0) {
            s = &tiny;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--tokenizer") == 0 && i + 1 < argc) {
            tokenizer = argv[++i];
        } else if (argv[i][0] != '-' && output == NULL) {
            output = argv[i];
        } else {
            die("%s", usage);
        }
    }
    if (tokenizer == NULL || output == NULL) {
        die("%s", usage);
    }
    write_model(output, tokenizer, s, seed);
    return 0;
}
