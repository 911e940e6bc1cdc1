/* The Qwen3 text encoder against the goldens of flux2-klein and flux2-base. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "golden/model_test.h"
#include "models/qwen3.h"

#define MAX_TOKENS 64
#define WIDTH_OF_ALL 256

static struct qwen3 *open_encoder(const char *relative) {
    struct qwen3 *model = NULL;
    struct cyi_error err = { 0 };
    if (qwen3_open(&mem_default_allocator, fixture_path(relative), &model, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    return model;
}

/* Ids and the number of them that are no padding, as the golden has them. */
static int64_t load_ids(const struct safetensors *golden, const char *run, int32_t *ids, int64_t *n_used) {
    char name[96];
    (void)snprintf(name, sizeof name, "%s.tokens.ids", run);
    struct tensor all = golden_tensor(golden, name);
    (void)snprintf(name, sizeof name, "%s.tokens.mask", run);
    struct tensor mask = golden_tensor(golden, name);
    int64_t n = tensor_n_elements(&all);
    assert_true(n <= MAX_TOKENS);
    *n_used = 0;
    for (int64_t i = 0; i < n; i++) {
        ids[i] = (int32_t)((const int64_t *)all.data)[i];
        *n_used += ((const int64_t *)mask.data)[i];
    }
    return n;
}

/* All hidden states of a run's prompt on one variant; their bytes must fit into what the model says it needs. */
static void check_run(const struct variant *variant, const char *folder, const char *run, const int *layers,
                      int n_layers, int n_stages) {
    struct exec ex;
    char path[96];
    int32_t ids[MAX_TOKENS];
    int64_t n_used;
    static float values[MAX_TOKENS * WIDTH_OF_ALL];
    if (!exec_make(variant, &ex)) {
        return;
    }
    (void)snprintf(path, sizeof path, "golden/%s/text_encoder", folder);
    struct qwen3 *model = open_encoder(path);
    struct safetensors *golden = golden_open(folder);
    int64_t n = load_ids(golden, run, ids, &n_used);
    struct tensor features = tensor_2d(DTYPE_F32, n, n_layers * qwen3_get_config(model)->width, values);
    struct stage_check check = { .golden = golden, .prefix = run, .limit = variant->limit };
    struct cyi_error err = { 0 };
    stage_check_attach(&check, &ex);
    assert_true(tensor_n_elements(&features) <= MAX_TOKENS * WIDTH_OF_ALL);
    enum cyi_status st = qwen3_forward(model, &ex,
                                       &(struct qwen3_prompt){ .ids = ids,
                                                               .n_tokens = n,
                                                               .n_used = n_used,
                                                               .layers = layers,
                                                               .n_layers = n_layers,
                                                               .features = &features },
                                       &err);
    assert_string_equal(err.text, "");
    assert_int_equal(st, CYI_OK);
    assert_int_equal(check.n_checked, n_stages);
    assert_true(arena_get_peak(ex.arena) <= qwen3_get_working_bytes(model, n, ex.act_dtype) + 1024 * 1024);
    safetensors_close(golden);
    qwen3_close(model);
    exec_done(&ex);
}

static void qwen3_equals_transformers_at_every_recorded_layer(void **state) {
    (void)state;
    for (int i = 0; i < N_VARIANTS; i++) {
        check_run(&variants[i], "flux2-klein", "square", (const int[]){ 1, 3, 5 }, 3, 4);
        check_run(&variants[i], "flux2-base", "guided", (const int[]){ 1, 2, 3 }, 3, 4);
        check_run(&variants[i], "flux2-base", "guided.negative", (const int[]){ 1, 2, 3 }, 3, 4);
    }
}

/* One forward on the reference backend over tokens 1, 2, 3 … of klein's encoder. */
static enum cyi_status encode_some(struct exec *ex, const struct qwen3 *model, int64_t n_tokens, int64_t n_used,
                                   int layer, struct tensor *features, struct cyi_error *err) {
    int32_t ids[MAX_TOKENS];
    for (int i = 0; i < MAX_TOKENS; i++) {
        ids[i] = i < n_used ? i + 1 : 0;
    }
    return qwen3_forward(
        model, ex,
        &(struct qwen3_prompt){
            .ids = ids, .n_tokens = n_tokens, .n_used = n_used, .layers = &layer, .n_layers = 1, .features = features },
        err);
}

static void qwen3_padding_does_not_change_the_text(void **state) {
    (void)state;
    struct exec ex;
    struct qwen3 *model = open_encoder("golden/flux2-klein/text_encoder");
    int64_t width = qwen3_get_config(model)->width;
    static float values[2][MAX_TOKENS * WIDTH_OF_ALL];
    struct tensor plain = tensor_2d(DTYPE_F32, 7, width, values[0]);
    struct tensor padded = tensor_2d(DTYPE_F32, 30, width, values[1]);
    struct tensor text = tensor_rows(&padded, 0, 7);
    assert_true(exec_make(&variants[0], &ex));
    assert_int_equal(encode_some(&ex, model, 7, 7, 4, &plain, NULL), CYI_OK);
    assert_int_equal(encode_some(&ex, model, 30, 7, 4, &padded, NULL), CYI_OK);
    assert_true(golden_nmse(&text, &plain) < 1e-12);
    qwen3_close(model);
    exec_done(&ex);
}

static void qwen3_last_hidden_state_has_passed_the_final_norm(void **state) {
    (void)state;
    struct exec ex;
    struct qwen3 *model = open_encoder("golden/flux2-klein/text_encoder");
    const struct qwen3_config *c = qwen3_get_config(model);
    const struct tensor weight = weight_set_find(qwen3_get_weights(model), "model.norm.weight")->tensor;
    static float values[MAX_TOKENS * WIDTH_OF_ALL];
    struct tensor last = tensor_2d(DTYPE_F32, 5, c->width, values);
    assert_true(exec_make(&variants[0], &ex));
    assert_int_equal(encode_some(&ex, model, 5, 5, (int)c->n_layers, &last, NULL), CYI_OK);
    for (int row = 0; row < 5; row++) {
        double sum = 0;
        for (int64_t i = 0; i < c->width; i++) {
            double x = (double)(tensor_get(&last, row, i) / dtype_load(weight.dtype, weight.data, i));
            sum += x * x;
        }
        assert_true(fabs(sum / (double)c->width - 1.0) < 1e-3);
    }
    qwen3_close(model);
    exec_done(&ex);
}

static void qwen3_refuses_impossible_prompts(void **state) {
    (void)state;
    struct exec ex;
    struct qwen3 *model = open_encoder("golden/flux2-klein/text_encoder");
    static float values[MAX_TOKENS * WIDTH_OF_ALL];
    struct tensor features = tensor_2d(DTYPE_F32, 8, qwen3_get_config(model)->width, values);
    struct cyi_error err = { 0 };
    assert_true(exec_make(&variants[0], &ex));
    assert_int_equal(encode_some(&ex, model, 8, 8, 7, &features, &err), CYI_E_ARGUMENT);
    assert_string_equal(err.text, "text encoder: hidden state 7 was asked for, there are 0 … 6");
    assert_int_equal(encode_some(&ex, model, 8, 9, 1, &features, NULL), CYI_E_ARGUMENT);
    assert_int_equal(encode_some(&ex, model, 8, 0, 1, &features, NULL), CYI_E_ARGUMENT);
    assert_int_equal(encode_some(&ex, model, 9, 9, 1, &features, NULL), CYI_E_ARGUMENT);
    qwen3_close(model);
    exec_done(&ex);
}

static bool stop_at_half(void *user, float fraction) {
    *(float *)user = fraction;
    return fraction < 0.5F;
}

static void qwen3_stops_when_cancelled(void **state) {
    (void)state;
    struct exec ex;
    struct qwen3 *model = open_encoder("golden/flux2-klein/text_encoder");
    static float values[MAX_TOKENS * WIDTH_OF_ALL];
    struct tensor features = tensor_2d(DTYPE_F32, 8, qwen3_get_config(model)->width, values);
    float last = 0;
    assert_true(exec_make(&variants[0], &ex));
    ex.on_block = stop_at_half;
    ex.user = &last;
    assert_int_equal(encode_some(&ex, model, 8, 8, 4, &features, NULL), CYI_E_CANCELLED);
    assert_true(last == 0.5F);
    qwen3_close(model);
    exec_done(&ex);
}

static void qwen3_names_what_is_wrong_with_a_checkpoint(void **state) {
    (void)state;
    static const struct {
        struct checkpoint_edit edit;
        enum cyi_status status;
        const char *says;
    } cases[] = {
        { { .drop = "model.layers.2.mlp.up_proj.weight" },
          CYI_E_FORMAT,
          "tensor model.layers.2.mlp.up_proj.weight is missing" },
        { { .drop = "model.layers.3.input_layernorm.weight" },
          CYI_E_FORMAT,
          "model.layers.3.input_layernorm.weight is missing" },
        { { .drop = "model.layers.0.self_attn.q_norm.weight" },
          CYI_E_FORMAT,
          "model.layers.0.self_attn.q_norm.weight is missing" },
        { { .drop = "model.embed_tokens.weight" }, CYI_E_FORMAT, "model.embed_tokens.weight is missing" },
        { { .flat = "model.layers.1.self_attn.q_proj.weight" },
          CYI_E_SHAPE,
          "tensor model.layers.1.self_attn.q_proj.weight is [3072] BF16, but the model needs [64, 48]" },
        { { .bytes = "model.norm.weight" },
          CYI_E_DTYPE,
          "tensor model.norm.weight is U8, but the model needs a floating type" },
        { { .find = "\"hidden_size\": 48", .change = "\"hidden_size\": 64" },
          CYI_E_SHAPE,
          "config.json says hidden_size = 64, the tensors say 48" },
        { { .find = "\"num_hidden_layers\": 6", .change = "\"num_hidden_layers\": 5" },
          CYI_E_SHAPE,
          "config.json says num_hidden_layers = 5, the tensors say 6" },
        { { .find = "\"num_hidden_layers\": 6", .change = "\"num_hidden_layers\": 7" },
          CYI_E_FORMAT,
          "model.layers.6.input_layernorm.weight is missing" },
        { { .find = "\"rope_theta\": 1000000", .change = "\"rope_theta\": \"much\"" }, CYI_E_FORMAT, "rope_theta" },
        { { .find = "\"rope_scaling\": null", .change = "\"rope_scaling\": {\"rope_type\": \"yarn\"}" },
          CYI_E_UNSUPPORTED,
          "rope_scaling.rope_type = yarn" },
        { { .find = "\"attention_bias\": false", .change = "\"attention_bias\": true" },
          CYI_E_UNSUPPORTED,
          "attention_bias" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct checkpoint_edit edit = cases[i].edit;
        struct qwen3 *model = NULL;
        struct cyi_error err = { 0 };
        edit.stem = "model";
        const char *path = checkpoint_copy("golden/flux2-klein/text_encoder", &edit);
        enum cyi_status st = qwen3_open(&mem_default_allocator, path, &model, &err);
        checkpoint_delete(path, edit.stem);
        print_message("%s\n", err.text);
        assert_int_equal(st, cases[i].status);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_null(model);
    }
}

static void qwen3_opens_the_bundled_model(void **state) {
    (void)state;
    struct qwen3 *model = open_encoder("../../models/neon/text_encoder");
    const struct qwen3_config *c = qwen3_get_config(model);
    assert_int_equal(c->n_heads / c->n_kv_heads * c->n_kv_heads, c->n_heads);
    assert_true(c->rope_theta > 1.0);
    qwen3_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen3_equals_transformers_at_every_recorded_layer),
        cmocka_unit_test(qwen3_padding_does_not_change_the_text),
        cmocka_unit_test(qwen3_last_hidden_state_has_passed_the_final_norm),
        cmocka_unit_test(qwen3_refuses_impossible_prompts),
        cmocka_unit_test(qwen3_stops_when_cancelled),
        cmocka_unit_test(qwen3_names_what_is_wrong_with_a_checkpoint),
        cmocka_unit_test(qwen3_opens_the_bundled_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
