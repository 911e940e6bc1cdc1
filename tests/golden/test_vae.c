/* The VAE against every golden that has its stages, and its tiles against their definition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "golden/model_test.h"
#include "io/image_file.h"
#include "models/vae.h"

static struct vae *open_vae(const char *relative) {
    struct vae *model = NULL;
    struct cyi_error err = { 0 };
    if (vae_open(&mem_default_allocator, fixture_path(relative), &model, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    return model;
}

static struct tensor new_pixels(struct exec *ex, int64_t height, int64_t width) {
    struct tensor pixels;
    assert_int_equal(tensor_new(ex->arena, DTYPE_F32, 3, (const int64_t[]){ height, width, 3 }, &pixels, NULL), CYI_OK);
    return pixels;
}

static struct tensor new_tokens(struct exec *ex, int64_t n, int64_t n_channels) {
    struct tensor tokens;
    assert_int_equal(tensor_new_2d(ex->arena, DTYPE_F32, n, n_channels, &tokens, NULL), CYI_OK);
    return tokens;
}

/* ---- Goldens ---- */

struct decode_case {
    const char *vae, *golden, *run, *tokens;
    int64_t height, width;
    int n_stages;
};

static void check_decode(const struct variant *variant, const struct decode_case *c) {
    struct exec ex;
    if (!exec_make(variant, &ex)) {
        return;
    }
    struct vae *model = open_vae(c->vae);
    struct safetensors *golden = golden_open(c->golden);
    struct tensor tokens = golden_floats(&ex, golden, c->tokens);
    struct tensor pixels = new_pixels(&ex, c->height, c->width);
    struct stage_check check = { .golden = golden, .prefix = c->run, .limit = variant->limit };
    struct cyi_error err = { 0 };
    stage_check_attach(&check, &ex);
    enum cyi_status st = vae_decode(model, &ex, &tokens, NULL, &pixels, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(st, CYI_OK);
    assert_int_equal(check.n_checked, c->n_stages);
    assert_true(arena_get_peak(ex.arena) <=
                vae_get_working_bytes(model, c->height, c->width, 0, false, ex.act_dtype) + 1024 * 1024);
    safetensors_close(golden);
    vae_close(model);
    exec_done(&ex);
}

static void vae_decode_equals_diffusers_at_every_recorded_stage(void **state) {
    (void)state;
    static const struct decode_case cases[] = {
        { "golden/flux2-klein/vae", "flux2-klein", "square", "square.step3.latents", 64, 64, 9 },
        { "golden/flux2-klein/vae", "flux2-klein", "wide", "wide.step2.latents", 64, 96, 1 },
        { "golden/flux2-base/vae", "flux2-base", "guided", "guided.step2.latents", 80, 64, 5 },
    };
    for (int i = 0; i < N_VARIANTS; i++) {
        for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
            check_decode(&variants[i], &cases[k]);
        }
    }
}

static void vae_single_file_with_bfl_names_gives_the_same_numbers(void **state) {
    (void)state;
    const struct decode_case c = {
        "golden/flux2-bfl/ae.safetensors", "flux2-klein", "square", "square.step3.latents", 64, 64, 9
    };
    check_decode(&variants[0], &c);
}

struct encode_case {
    const char *vae, *golden, *run, *pixels, *latent;
    int n_stages;
};

static void check_encode(const struct variant *variant, const struct encode_case *c) {
    struct exec ex;
    if (!exec_make(variant, &ex)) {
        return;
    }
    struct vae *model = open_vae(c->vae);
    struct safetensors *golden = golden_open(c->golden);
    struct tensor pixels = golden_picture(&ex, golden, c->pixels);
    struct tensor expected = golden_picture(&ex, golden, c->latent);
    struct tensor tokens = new_tokens(&ex, tensor_n_rows(&expected), tensor_n_cols(&expected));
    struct stage_check check = { .golden = golden, .prefix = c->run, .limit = variant->limit };
    struct cyi_error err = { 0 };
    stage_check_attach(&check, &ex);
    enum cyi_status st = vae_encode(model, &ex, &pixels, NULL, &tokens, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(st, CYI_OK);
    assert_int_equal(check.n_checked, c->n_stages);
    golden_check(c->latent, &tokens, &expected, variant->limit);
    assert_true(arena_get_peak(ex.arena) <=
                vae_get_working_bytes(model, pixels.shape[0], pixels.shape[1], 0, true, ex.act_dtype) + 1024 * 1024);
    safetensors_close(golden);
    vae_close(model);
    exec_done(&ex);
}

static void vae_encode_equals_diffusers_at_every_recorded_stage(void **state) {
    (void)state;
    static const struct encode_case cases[] = {
        { "golden/flux2-klein/vae", "flux2-edit", "one", "one.reference.0.pixels", "one.reference.0.latent", 6 },
        { "golden/flux2-klein/vae", "flux2-img2img", "run", "run.init.pixels", "run.init.latent", 0 },
        { "golden/flux2-bfl/ae.safetensors", "flux2-edit", "one", "one.reference.0.pixels", "one.reference.0.latent",
          6 },
    };
    for (int i = 0; i < N_VARIANTS; i++) {
        for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
            check_encode(&variants[i], &cases[k]);
        }
    }
}

/* ---- Tiles ---- */

/* A picture [n_rows, n_cols, n_channels] of floats, packed. */
struct picture {
    float *data;
    int64_t n_rows, n_cols, n_channels;
};

static struct picture new_picture(struct exec *ex, int64_t n_rows, int64_t n_cols, int64_t n_channels) {
    struct picture p = { arena_alloc(ex->arena, (size_t)(n_rows * n_cols * n_channels), sizeof(float)), n_rows, n_cols,
                         n_channels };
    assert_non_null(p.data);
    return p;
}

static float *at(const struct picture *p, int64_t row, int64_t col) {
    return p->data + (row * p->n_cols + col) * p->n_channels;
}

static int64_t least(int64_t a, int64_t b, int64_t c) {
    int64_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* diffusers' blend_v and blend_h: b's first rows (columns) fade in over a's last ones. */
static void blend_pictures(const struct picture *a, struct picture *b, bool is_vertical, int64_t extent) {
    extent = is_vertical ? least(a->n_rows, b->n_rows, extent) : least(a->n_cols, b->n_cols, extent);
    for (int64_t k = 0; k < extent; k++) {
        double share = (double)k / (double)extent;
        for (int64_t i = 0; i < (is_vertical ? b->n_cols : b->n_rows); i++) {
            const float *from = is_vertical ? at(a, a->n_rows - extent + k, i) : at(a, i, a->n_cols - extent + k);
            float *to = is_vertical ? at(b, k, i) : at(b, i, k);
            for (int64_t c = 0; c < b->n_channels; c++) {
                to[c] = (float)((double)from[c] * (1 - share) + (double)to[c] * share);
            }
        }
    }
}

#define MAX_GRID 3

/* All tiles at hand, blended in the reference's order, cut to `step` and put together. */
static struct picture assemble(struct exec *ex, struct picture tiles[MAX_GRID][MAX_GRID], int n_down, int n_across,
                               int64_t blend, int64_t step, int64_t n_rows, int64_t n_cols) {
    struct picture all = new_picture(ex, n_rows, n_cols, tiles[0][0].n_channels);
    for (int i = 0; i < n_down; i++) {
        for (int j = 0; j < n_across; j++) {
            struct picture *tile = &tiles[i][j];
            if (i > 0) {
                blend_pictures(&tiles[i - 1][j], tile, true, blend);
            }
            if (j > 0) {
                blend_pictures(&tiles[i][j - 1], tile, false, blend);
            }
            for (int64_t y = 0; y < tile->n_rows && y < step; y++) {
                for (int64_t x = 0; x < tile->n_cols && x < step; x++) {
                    memcpy(at(&all, i * step + y, j * step + x), at(tile, y, x),
                           (size_t)tile->n_channels * sizeof(float));
                }
            }
        }
    }
    return all;
}

static void fill_waves(struct tensor *t) {
    float *data = t->data;
    for (int64_t i = 0; i < tensor_n_elements(t); i++) {
        data[i] = (float)sin(0.37 * (double)i + 0.0011 * (double)(i % 97) * (double)(i % 89));
    }
}

/* Rows and columns of a grid of tokens (or blocks of 16 × 16 pixels), as packed floats. */
static void cut(const struct picture *all, int64_t row, int64_t col, struct picture *part) {
    for (int64_t y = 0; y < part->n_rows; y++) {
        memcpy(at(part, y, 0), at(all, row + y, col), (size_t)(part->n_cols * part->n_channels) * sizeof(float));
    }
}

/* Tokens [Y·X, 4z] as the latents [2Y, 2X, z] that they hold. */
static struct picture spread_tokens(struct exec *ex, const struct picture *tokens) {
    int64_t z = tokens->n_channels / 4;
    struct picture latents = new_picture(ex, 2 * tokens->n_rows, 2 * tokens->n_cols, z);
    for (int64_t y = 0; y < latents.n_rows; y++) {
        for (int64_t x = 0; x < latents.n_cols; x++) {
            for (int64_t c = 0; c < z; c++) {
                at(&latents, y, x)[c] = at(tokens, y / 2, x / 2)[c * 4 + y % 2 * 2 + x % 2];
            }
        }
    }
    return latents;
}

/* Seven by five tokens in tiles of four (64 pixels), which start every three: a grid of 3 × 2, the last ones narrow. */
enum { N_DOWN = 7, N_ACROSS = 5, TILE = 4, STEP = 3, SIDE = 16 };

static void vae_tiled_decode_is_the_blend_of_its_tiles(void **state) {
    (void)state;
    struct exec ex;
    struct picture tiles[MAX_GRID][MAX_GRID];
    struct vae *model = open_vae("golden/flux2-klein/vae");
    int64_t width = vae_get_config(model)->token_channels;
    assert_true(exec_make(&variants[0], &ex));
    struct tensor tokens = new_tokens(&ex, N_DOWN * N_ACROSS, width);
    struct picture all = { tokens.data, N_DOWN, N_ACROSS, width };
    fill_waves(&tokens);
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 2; j++) {
            struct picture part =
                new_picture(&ex, least(TILE, N_DOWN - i * STEP, TILE), least(TILE, N_ACROSS - j * STEP, TILE), width);
            cut(&all, i * STEP, j * STEP, &part);
            struct tensor x = tensor_2d(DTYPE_F32, part.n_rows * part.n_cols, width, part.data);
            struct tensor y = new_pixels(&ex, part.n_rows * SIDE, part.n_cols * SIDE);
            assert_int_equal(vae_decode(model, &ex, &x, NULL, &y, NULL), CYI_OK);
            tiles[i][j] = (struct picture){ y.data, part.n_rows * SIDE, part.n_cols * SIDE, 3 };
        }
    }
    struct picture expected = assemble(&ex, tiles, 3, 2, SIDE, STEP * SIDE, N_DOWN * SIDE, N_ACROSS * SIDE);
    struct tensor want = tensor_3d(DTYPE_F32, expected.n_rows, expected.n_cols, 3, expected.data);
    struct tensor have = new_pixels(&ex, N_DOWN * SIDE, N_ACROSS * SIDE);
    assert_int_equal(vae_decode(model, &ex, &tokens, &(struct vae_options){ .tile = TILE * SIDE }, &have, NULL),
                     CYI_OK);
    golden_check("tiled decode", &have, &want, 1e-13);
    vae_close(model);
    exec_done(&ex);
}

static void vae_tiled_encode_is_the_blend_of_its_tiles(void **state) {
    (void)state;
    struct exec ex;
    struct picture tiles[MAX_GRID][MAX_GRID];
    struct vae *model = open_vae("golden/flux2-klein/vae");
    int64_t width = vae_get_config(model)->token_channels;
    assert_true(exec_make(&variants[0], &ex));
    struct tensor pixels = new_pixels(&ex, N_DOWN * SIDE, N_ACROSS * SIDE);
    struct picture all = { pixels.data, N_DOWN * SIDE, N_ACROSS * SIDE, 3 };
    fill_waves(&pixels);
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 2; j++) {
            int64_t n_rows = least(TILE, N_DOWN - i * STEP, TILE);
            int64_t n_cols = least(TILE, N_ACROSS - j * STEP, TILE);
            struct picture part = new_picture(&ex, n_rows * SIDE, n_cols * SIDE, 3);
            cut(&all, i * STEP * SIDE, j * STEP * SIDE, &part);
            struct tensor x = tensor_3d(DTYPE_F32, part.n_rows, part.n_cols, 3, part.data);
            struct tensor y = new_tokens(&ex, n_rows * n_cols, width);
            assert_int_equal(vae_encode(model, &ex, &x, NULL, &y, NULL), CYI_OK);
            tiles[i][j] = spread_tokens(&ex, &(struct picture){ y.data, n_rows, n_cols, width });
        }
    }
    struct picture expected = assemble(&ex, tiles, 3, 2, 2, 2 * STEP, 2 * N_DOWN, 2 * N_ACROSS);
    struct tensor tokens = new_tokens(&ex, N_DOWN * N_ACROSS, width);
    assert_int_equal(vae_encode(model, &ex, &pixels, &(struct vae_options){ .tile = TILE * SIDE }, &tokens, NULL),
                     CYI_OK);
    struct picture found = spread_tokens(&ex, &(struct picture){ tokens.data, N_DOWN, N_ACROSS, width });
    struct tensor want = tensor_3d(DTYPE_F32, expected.n_rows, expected.n_cols, width / 4, expected.data);
    struct tensor have = tensor_3d(DTYPE_F32, found.n_rows, found.n_cols, width / 4, found.data);
    golden_check("tiled encode", &have, &want, 1e-12);
    vae_close(model);
    exec_done(&ex);
}

static void vae_tile_as_large_as_the_picture_changes_nothing(void **state) {
    (void)state;
    struct exec ex;
    struct vae *model = open_vae("golden/flux2-klein/vae");
    assert_true(exec_make(&variants[0], &ex));
    struct tensor tokens = new_tokens(&ex, 4, vae_get_config(model)->token_channels);
    struct tensor plain = new_pixels(&ex, 32, 32);
    struct tensor tiled = new_pixels(&ex, 32, 32);
    fill_waves(&tokens);
    assert_int_equal(vae_decode(model, &ex, &tokens, NULL, &plain, NULL), CYI_OK);
    assert_int_equal(vae_decode(model, &ex, &tokens, &(struct vae_options){ .tile = 32 }, &tiled, NULL), CYI_OK);
    assert_memory_equal(plain.data, tiled.data, 32 * 32 * 3 * sizeof(float));
    vae_close(model);
    exec_done(&ex);
}

static void vae_plans_the_memory_that_it_uses(void **state) {
    (void)state;
    static const int64_t tiles[] = { 0, 32, 64 };
    struct vae *model = open_vae("golden/flux2-klein/vae");
    int64_t width = vae_get_config(model)->token_channels;
    static float values[35 * 128];
    static float pixel_values[7 * 16 * 5 * 16 * 3];
    struct tensor tokens = tensor_2d(DTYPE_F32, 35, width, values);
    struct tensor pixels = tensor_3d(DTYPE_F32, 112, 80, 3, pixel_values);
    size_t bytes[3];
    fill_waves(&tokens);
    for (int i = 0; i < 3; i++) {
        struct exec ex;
        assert_true(exec_make(&variants[0], &ex));
        bytes[i] = vae_get_working_bytes(model, 112, 80, tiles[i], false, DTYPE_F32);
        assert_int_equal(vae_decode(model, &ex, &tokens, &(struct vae_options){ .tile = tiles[i] }, &pixels, NULL),
                         CYI_OK);
        assert_true(arena_get_peak(ex.arena) <= bytes[i] + 1024 * 1024);
        exec_done(&ex);
    }
    assert_true(bytes[1] < bytes[2] && bytes[2] < bytes[0]);
    vae_close(model);
}

/* ---- Everything else ---- */

static bool count_call(void *user, float fraction) {
    float *last = user;
    last[0] += 1;
    assert_true(fraction > last[1]);
    last[1] = fraction;
    return true;
}

static void vae_reports_every_layer_of_every_tile(void **state) {
    (void)state;
    struct exec ex;
    float calls[2] = { 0, 0 };
    struct vae *model = open_vae("golden/flux2-klein/vae");
    assert_true(exec_make(&variants[0], &ex));
    struct tensor tokens = new_tokens(&ex, 12, vae_get_config(model)->token_channels);
    struct tensor pixels = new_pixels(&ex, 48, 64);
    fill_waves(&tokens);
    ex.on_block = count_call;
    ex.user = calls;
    assert_int_equal(vae_decode(model, &ex, &tokens, &(struct vae_options){ .tile = 32 }, &pixels, NULL), CYI_OK);
    assert_true((int64_t)calls[0] == vae_count_blocks(model, 48, 64, 32, false));
    assert_true(calls[1] == 1.0F);
    calls[0] = 0;
    calls[1] = 0;
    assert_int_equal(vae_encode(model, &ex, &pixels, NULL, &tokens, NULL), CYI_OK);
    assert_true((int64_t)calls[0] == vae_count_blocks(model, 48, 64, 0, true));
    assert_true(calls[1] == 1.0F);
    vae_close(model);
    exec_done(&ex);
}

static void vae_refuses_impossible_sizes(void **state) {
    (void)state;
    struct exec ex;
    struct cyi_error err = { 0 };
    struct vae *model = open_vae("golden/flux2-klein/vae");
    assert_true(exec_make(&variants[0], &ex));
    struct tensor tokens = new_tokens(&ex, 4, vae_get_config(model)->token_channels);
    struct tensor odd = new_pixels(&ex, 32, 40);
    struct tensor large = new_pixels(&ex, 32, 48);
    struct tensor right = new_pixels(&ex, 32, 32);
    assert_int_equal(vae_decode(model, &ex, &tokens, NULL, &odd, &err), CYI_E_ARGUMENT);
    assert_string_equal(err.text, "VAE: the picture is [32, 40, 3] F32, needs packed [Y, X, 3] F32 in multiples of 16");
    assert_int_equal(vae_decode(model, &ex, &tokens, NULL, &large, NULL), CYI_E_ARGUMENT);
    assert_int_equal(vae_encode(model, &ex, &large, NULL, &tokens, NULL), CYI_E_ARGUMENT);
    assert_int_equal(vae_decode(model, &ex, &tokens, &(struct vae_options){ .tile = 24 }, &right, NULL),
                     CYI_E_ARGUMENT);
    vae_close(model);
    exec_done(&ex);
}

static void vae_names_what_is_wrong_with_a_checkpoint(void **state) {
    (void)state;
    static const struct {
        struct checkpoint_edit edit;
        enum cyi_status status;
        const char *says;
    } cases[] = {
        { { .drop = "decoder.conv_out.bias" }, CYI_E_FORMAT, "tensor decoder.conv_out.bias is missing" },
        { { .drop = "encoder.down_blocks.1.resnets.0.conv1.weight" },
          CYI_E_FORMAT,
          "tensor encoder.down_blocks.1.resnets.0.conv1.weight is missing" },
        { { .drop = "decoder.up_blocks.2.resnets.0.conv1.weight" },
          CYI_E_FORMAT,
          "decoder.up_blocks.2.resnets.0.conv1.weight" },
        { { .drop = "bn.running_var" }, CYI_E_FORMAT, "tensor bn.running_var is missing" },
        { { .drop = "decoder.conv_in.weight" }, CYI_E_FORMAT, "decoder.conv_in.weight" },
        { { .drop = "quant_conv.weight" }, CYI_E_SHAPE, "use_quant_conv = 1, the tensors say 0" },
        { { .flat = "decoder.mid_block.attentions.0.to_q.weight" },
          CYI_E_SHAPE,
          "tensor decoder.mid_block.attentions.0.to_q.weight is [1024] BF16, but the model needs [32, 32]" },
        { { .bytes = "encoder.conv_norm_out.bias" }, CYI_E_DTYPE, "encoder.conv_norm_out.bias is U8" },
        { { .find = "\"latent_channels\": 32", .change = "\"latent_channels\": 16" },
          CYI_E_SHAPE,
          "config.json says latent_channels = 16, the tensors say 32" },
        { { .find = "[8, 16, 16, 32]", .change = "[8, 16, 32, 32]" },
          CYI_E_SHAPE,
          "block_out_channels = 32, the tensors say 16" },
        { { .find = "[8, 16, 16, 32]", .change = "[8, 16, 32]" },
          CYI_E_SHAPE,
          "gives 3 values for block_out_channels" },
        { { .find = "\"layers_per_block\": 1", .change = "\"layers_per_block\": 2" },
          CYI_E_FORMAT,
          "encoder.down_blocks.0.resnets.1.norm1.weight" },
        { { .find = "\"norm_num_groups\": 8", .change = "\"norm_num_groups\": 32" },
          CYI_E_SHAPE,
          "cannot be cut into 32 groups" },
        { { .find = "\"patch_size\": [2, 2]", .change = "\"patch_size\": [1, 1]" }, CYI_E_UNSUPPORTED, "patch_size" },
        { { .find = "\"act_fn\": \"silu\"", .change = "\"act_fn\": \"gelu\"" }, CYI_E_UNSUPPORTED, "act_fn = gelu" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct checkpoint_edit edit = cases[i].edit;
        struct vae *model = NULL;
        struct cyi_error err = { 0 };
        edit.stem = "diffusion_pytorch_model";
        const char *path = checkpoint_copy("golden/flux2-klein/vae", &edit);
        enum cyi_status st = vae_open(&mem_default_allocator, path, &model, &err);
        checkpoint_delete(path, edit.stem);
        print_message("%s\n", err.text);
        assert_int_equal(st, cases[i].status);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_null(model);
    }
}

/* The bundled model's recorded latents [1, z, 2Y, 2X] as the tokens that they came from. */
static struct tensor pack_latents(struct exec *ex, const struct vae *model, const struct tensor *latents) {
    const struct weight_set *set = vae_get_weights(model);
    struct tensor mean = weight_set_find(set, "bn.running_mean")->tensor;
    struct tensor variance = weight_set_find(set, "bn.running_var")->tensor;
    int64_t n_cols = latents->shape[3];
    int64_t n_places = latents->shape[2] * n_cols;
    struct tensor tokens = new_tokens(ex, n_places / 4, 4 * latents->shape[1]);
    for (int64_t i = 0; i < tensor_n_elements(latents); i++) {
        int64_t y = i % n_places / n_cols;
        int64_t x = i % n_cols;
        int64_t c = i / n_places * 4 + y % 2 * 2 + x % 2;
        double deviation =
            sqrt((double)dtype_load(variance.dtype, variance.data, c) + vae_get_config(model)->batch_norm_eps);
        float *token = tensor_row(&tokens, y / 2 * (n_cols / 2) + x / 2);
        token[c] =
            (float)((double)(((const float *)latents->data)[i] - dtype_load(mean.dtype, mean.data, c)) / deviation);
    }
    return tokens;
}

static void vae_of_the_bundled_model_draws_the_recorded_picture(void **state) {
    (void)state;
    struct exec ex;
    struct safetensors *file = NULL;
    struct cyi_image *expected = NULL;
    struct vae *model = open_vae("../../models/neon/vae");
    assert_int_equal(vae_get_config(model)->token_pixels, 16);
    assert_true(exec_make(&(struct variant){ .backend = "auto", .act_dtype = DTYPE_F32 }, &ex));
    assert_int_equal(safetensors_open(&mem_default_allocator, fixture_path("neon/city.safetensors"), &file, NULL),
                     CYI_OK);
    assert_int_equal(image_load(&mem_default_allocator, fixture_path("neon/city.png"), &expected, NULL), CYI_OK);
    struct tensor latents = golden_tensor(file, "latents");
    struct tensor tokens = pack_latents(&ex, model, &latents);
    struct tensor pixels = new_pixels(&ex, expected->height, expected->width);
    assert_int_equal(vae_decode(model, &ex, &tokens, NULL, &pixels, NULL), CYI_OK);
    size_t n = (size_t)tensor_n_elements(&pixels);
    uint8_t *drawn = arena_alloc(ex.arena, n, 1);
    for (size_t i = 0; i < n; i++) {
        double level = rint(((double)((const float *)pixels.data)[i] * 0.5 + 0.5) * 255.0);
        drawn[i] = (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
    }
    assert_true(golden_psnr(drawn, expected->pixels, n) >= 60.0);
    safetensors_close(file);
    cyi_image_free(expected);
    vae_close(model);
    exec_done(&ex);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vae_decode_equals_diffusers_at_every_recorded_stage),
        cmocka_unit_test(vae_single_file_with_bfl_names_gives_the_same_numbers),
        cmocka_unit_test(vae_encode_equals_diffusers_at_every_recorded_stage),
        cmocka_unit_test(vae_tiled_decode_is_the_blend_of_its_tiles),
        cmocka_unit_test(vae_tiled_encode_is_the_blend_of_its_tiles),
        cmocka_unit_test(vae_tile_as_large_as_the_picture_changes_nothing),
        cmocka_unit_test(vae_plans_the_memory_that_it_uses),
        cmocka_unit_test(vae_reports_every_layer_of_every_tile),
        cmocka_unit_test(vae_refuses_impossible_sizes),
        cmocka_unit_test(vae_names_what_is_wrong_with_a_checkpoint),
        cmocka_unit_test(vae_of_the_bundled_model_draws_the_recorded_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
