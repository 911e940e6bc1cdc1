/* Opening models: names and defaults, and one clear sentence for each way in which a folder can be wrong. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "golden/golden.h"
#include "pipeline/model.h"

/* A copy of a tiny checkpoint that a test may damage. */
struct copy {
    char folder[64];
};

__attribute__((format(printf, 1, 2))) static void run_command(const char *format, ...) {
    char command[8192];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(command, sizeof command, format, args);
    va_end(args);
    assert_int_equal(system(command), 0);
}

static struct copy copy_model(const char *name) {
    struct copy copy = { P_tmpdir "/cyberimage-model-XXXXXX" };
    char path[128];
    assert_non_null(mkdtemp(copy.folder));
    (void)snprintf(path, sizeof path, "golden/%s", name);
    run_command("cp -r %s/. %s", fixture_path(path), copy.folder);
    return copy;
}

static void remove_copy(const struct copy *copy) {
    run_command("rm -r %s", copy->folder);
}

static void write_text(const struct copy *copy, const char *name, const char *text) {
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", copy->folder, name);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

/* Overwrites the start of a tensor's data. */
static void damage_tensor(const struct copy *copy, const char *name, const char *tensor, const void *bytes, size_t n) {
    char path[256];
    struct safetensors *file = NULL;
    struct cyi_error err = { 0 };
    (void)snprintf(path, sizeof path, "%s/%s", copy->folder, name);
    assert_int_equal(safetensors_open(&mem_default_allocator, path, &file, &err), CYI_OK);
    const struct safetensors_entry *entry = safetensors_find(file, tensor);
    assert_non_null(entry);
    size_t offset = entry->offset_bytes;
    safetensors_close(file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, (off_t)offset), n);
    assert_int_equal(close(fd), 0);
}

static struct cyi_engine *create_engine(void) {
    struct cyi_engine *engine = NULL;
    struct cyi_error err = { 0 };
    assert_int_equal(cyi_engine_create(&(struct cyi_engine_options){ .n_threads = 2 }, &engine, &err), CYI_OK);
    return engine;
}

/* Opening fails with a code, and the sentence has the part. */
static void assert_not_opened(const char *folder, enum cyi_status code, const char *part) {
    struct cyi_engine *engine = create_engine();
    struct cyi_model *model = NULL;
    struct cyi_error err = { 0 };
    enum cyi_status st = cyi_model_open(engine, &(struct cyi_model_options){ .path = folder }, &model, &err);
    print_message("%s\n", err.text);
    assert_null(model);
    assert_int_equal(st, code);
    if (strstr(err.text, part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, part);
    }
    cyi_engine_free(engine);
}

static void neon_has_its_own_name_and_defaults(void **state) {
    (void)state;
    struct cyi_engine *engine = create_engine();
    struct cyi_model *model = NULL;
    struct cyi_error err = { 0 };
    struct cyi_model_info info;
    assert_int_equal(
        cyi_model_open(engine, &(struct cyi_model_options){ .path = fixture_path("../../models/neon") }, &model, &err),
        CYI_OK);
    cyi_model_get_info(model, &info);
    assert_string_equal(info.name, "neon");
    assert_string_equal(info.family, "flux2");
    assert_int_equal(strlen(info.fingerprint), 64);
    assert_false(info.is_distilled);
    assert_false(info.has_embedded_guidance);
    assert_true(info.n_parameters > 1000000);
    assert_true(info.mapped_bytes >= 2 * info.n_parameters);
    assert_int_equal(info.default_steps, 20);
    assert_int_equal(info.default_width, 256);
    assert_int_equal(info.size_multiple, 16);
    cyi_model_close(model);
    cyi_engine_free(engine);
}

static void fingerprint_tells_weights_apart(void **state) {
    (void)state;
    struct copy copy = copy_model("flux2-klein");
    struct cyi_engine *engine = create_engine();
    struct cyi_error err = { 0 };
    char fingerprints[2][65];
    for (int i = 0; i < 2; i++) {
        struct cyi_model *model = NULL;
        struct cyi_model_info info;
        assert_int_equal(cyi_model_open(engine, &(struct cyi_model_options){ .path = copy.folder }, &model, &err),
                         CYI_OK);
        cyi_model_get_info(model, &info);
        memcpy(fingerprints[i], info.fingerprint, 65);
        cyi_model_close(model);
        damage_tensor(&copy, "vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.weight", "\x12\x3f", 2);
    }
    assert_string_not_equal(fingerprints[0], fingerprints[1]);
    cyi_engine_free(engine);
    remove_copy(&copy);
}

static void missing_parts_are_named(void **state) {
    (void)state;
    static const char *const parts[][2] = {
        { "transformer", "the transformer is missing" },
        { "text_encoder", "the text encoder is missing" },
        { "vae", "the VAE is missing" },
        { "tokenizer", "the tokenizer is missing" },
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        struct copy copy = copy_model("flux2-klein");
        run_command("rm -r %s/%s", copy.folder, parts[i][0]);
        assert_not_opened(copy.folder, CYI_E_IO, parts[i][1]);
        remove_copy(&copy);
    }
    assert_not_opened("no-such-folder", CYI_E_IO, "no-such-folder: no such file or folder");
}

static void missing_shard_is_named(void **state) {
    (void)state;
    struct copy copy = copy_model("flux2-base");
    run_command("rm %s/transformer/%s", copy.folder, "diffusion_pytorch_model-00002-of-00003.safetensors");
    assert_not_opened(copy.folder, CYI_E_IO, "diffusion_pytorch_model-00002-of-00003.safetensors");
    remove_copy(&copy);
}

static void other_families_are_refused_by_name(void **state) {
    (void)state;
    struct copy copy = copy_model("flux2-klein");
    write_text(&copy, "model_index.json", "{\"_class_name\": \"StableDiffusionPipeline\"}");
    assert_not_opened(copy.folder, CYI_E_UNSUPPORTED, "StableDiffusionPipeline");
    write_text(&copy, "model_index.json", "{\"_class_name\": \"Flux2Pipeline\"}");
    write_text(&copy, "text_encoder/config.json", "{\"model_type\": \"mistral3\"}");
    assert_not_opened(copy.folder, CYI_E_UNSUPPORTED, "mistral3");
    remove_copy(&copy);
}

static void parts_that_do_not_fit_are_refused_with_sizes(void **state) {
    (void)state;
    struct copy copy = copy_model("flux2-klein");
    write_text(&copy, "cyberimage.json", "{\"text_encoder_out_layers\": [1, 3]}");
    assert_not_opened(copy.folder, CYI_E_SHAPE, "features, the transformer reads");
    write_text(&copy, "cyberimage.json", "{\"text_encoder_out_layers\": [1, 3, 99]}");
    assert_not_opened(copy.folder, CYI_E_SHAPE, "text_encoder_out_layers has 99");
    write_text(&copy, "cyberimage.json", "{\"max_sequence_length\": 0}");
    assert_not_opened(copy.folder, CYI_E_FORMAT, "max_sequence_length");
    write_text(&copy, "cyberimage.json", "{");
    assert_not_opened(copy.folder, CYI_E_FORMAT, "cyberimage.json");
    remove_copy(&copy);
    copy = copy_model("flux2-klein");
    run_command("cp %s %s/transformer/config.json", fixture_path("golden/flux2-base/transformer/config.json"),
                copy.folder);
    assert_not_opened(copy.folder, CYI_E_SHAPE, "config.json says");
    remove_copy(&copy);
}

static void not_a_number_names_the_step(void **state) {
    (void)state;
    static const struct {
        const char *file, *tensor, *part;
    } cases[] = {
        { "transformer/diffusion_pytorch_model.safetensors", "x_embedder.weight", "step 1 of 2" },
        { "vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.bias", "the VAE gave values" },
        { "text_encoder/model.safetensors", "model.layers.0.self_attn.q_proj.weight", "the text encoder gave values" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct copy copy = copy_model("flux2-klein");
        struct cyi_engine *engine = create_engine();
        struct cyi_model *model = NULL;
        struct cyi_image *image = NULL;
        struct cyi_error err = { 0 };
        struct cyi_request request;
        damage_tensor(&copy, cases[i].file, cases[i].tensor, "\xc0\x7f", 2);
        assert_int_equal(cyi_model_open(engine, &(struct cyi_model_options){ .path = copy.folder }, &model, &err),
                         CYI_OK);
        cyi_request_init(model, &request);
        request.prompt = "a fox";
        request.width = request.height = 32;
        request.n_steps = 2;
        assert_int_equal(cyi_generate(model, &request, &image, NULL, &err), CYI_E_NUMERIC);
        assert_null(image);
        if (strstr(err.text, cases[i].part) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].part);
        }
        cyi_model_close(model);
        cyi_engine_free(engine);
        remove_copy(&copy);
    }
}

static void engine_options_are_checked(void **state) {
    (void)state;
    struct cyi_engine *engine = NULL;
    struct cyi_error err = { 0 };
    assert_int_equal(cyi_engine_create(&(struct cyi_engine_options){ .backend = "abacus" }, &engine, &err),
                     CYI_E_ARGUMENT);
    assert_non_null(strstr(err.text, "abacus"));
    err = (struct cyi_error){ 0 };
    assert_int_equal(cyi_engine_create(&(struct cyi_engine_options){ .n_threads = 5000 }, &engine, &err),
                     CYI_E_ARGUMENT);
    assert_non_null(strstr(err.text, "5000 threads"));
    assert_null(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neon_has_its_own_name_and_defaults),
        cmocka_unit_test(fingerprint_tells_weights_apart),
        cmocka_unit_test(missing_parts_are_named),
        cmocka_unit_test(missing_shard_is_named),
        cmocka_unit_test(other_families_are_refused_by_name),
        cmocka_unit_test(parts_that_do_not_fit_are_refused_with_sizes),
        cmocka_unit_test(not_a_number_names_the_step),
        cmocka_unit_test(engine_options_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
