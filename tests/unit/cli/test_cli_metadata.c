/* What a picture says about itself: the recipe as JSON and as A1111 text, there and back; and the texts of other programs. */
#include "metadata.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>

static const char hash[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/* A recipe with everything in it. */
static void fill_recipe(struct recipe *recipe) {
    *recipe = (struct recipe){ .prompt = text_copy("an owl, \"close up\"\nsecond line é 猫"),
                               .negative_prompt = text_copy("blurry"),
                               .width = 256,
                               .height = 128,
                               .n_steps = 20,
                               .guidance = 4.5,
                               .seed = 4294967295U,
                               .n_references = 1,
                               .strength = 0.6,
                               .model_name = text_copy("neon, two"),
                               .model_family = text_copy("flux2"),
                               .model_fingerprint = text_copy(hash),
                               .version = text_copy("0.1.0"),
                               .backend = text_copy("onednn"),
                               .backend_version = text_copy("oneDNN 2.6.3"),
                               .isa = text_copy("avx2"),
                               .precision = text_copy("f32"),
                               .format = CYI_FORMAT_WEBP,
                               .quality = 90 };
    recipe->references[0].name = text_copy("cat.png");
    recipe->init.name = text_copy("start.png");
    recipe->mask.name = text_copy("mask.png");
    memcpy(recipe->references[0].sha256, hash, sizeof hash);
    memcpy(recipe->init.sha256, hash, sizeof hash);
    memcpy(recipe->mask.sha256, hash, sizeof hash);
}

static void recipe_comes_back_from_its_text(void **state) {
    struct recipe recipe, back = { 0 };
    struct cyi_error err = { 0 };
    (void)state;
    fill_recipe(&recipe);
    char *text = recipe_to_text(&recipe);
    assert_int_equal(recipe_from_text(text, &back, &err), CYI_OK);
    char *again = recipe_to_text(&back);
    assert_string_equal(text, again);
    assert_int_equal(back.seed, 4294967295U);
    assert_string_equal(back.prompt, recipe.prompt);
    assert_string_equal(back.init.name, "start.png");
    free(text);
    free(again);
    recipe_done(&recipe);
    recipe_done(&back);
}

/* Takes or replaces one field of a good recipe's JSON and expects a sentence with its name. value NULL removes. */
static void assert_field_refused(const char *field, json_t *value) {
    struct recipe recipe, back = { 0 };
    struct cyi_error err = { 0 };
    fill_recipe(&recipe);
    json_t *json = recipe_to_json(&recipe);
    if (value != NULL) {
        assert_int_equal(json_object_set_new(json, field, value), 0);
    } else {
        assert_int_equal(json_object_del(json, field), 0);
    }
    char *text = json_dumps(json, 0);
    assert_int_equal(recipe_from_text(text, &back, &err), CYI_E_FORMAT);
    assert_true(err.text[0] != '\0');
    free(text);
    json_decref(json);
    recipe_done(&recipe);
}

static void recipe_refuses_fields_that_are_wrong(void **state) {
    (void)state;
    static const char *const needed[] = { "prompt", "width",  "height", "steps",    "guidance",  "seed",
                                          "model",  "engine", "output", "strength", "cyberimage" };
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        assert_field_refused(needed[i], NULL);
        assert_field_refused(needed[i], json_true());
    }
    assert_field_refused("width", json_integer(0));
    assert_field_refused("width", json_integer(1000000));
    assert_field_refused("width", json_real(64.5));
    assert_field_refused("steps", json_integer(-1));
    assert_field_refused("seed", json_integer(4294967296));
    assert_field_refused("negative_prompt", json_integer(1));
    assert_field_refused("references", json_integer(1));
    assert_field_refused("references", json_pack("[s]", "cat.png"));
    assert_field_refused("init", json_pack("{s:s, s:s}", "file", "a.png", "sha256", "short"));
}

static void recipe_refuses_text_that_is_no_recipe(void **state) {
    static const char *const texts[] = { "", "{", "[]", "null", "{\"prompt\": \"a\"}", "{\"a\":1,\"a\":2}" };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct recipe back = { 0 };
        struct cyi_error err = { 0 };
        assert_int_equal(recipe_from_text(texts[i], &back, &err), CYI_E_FORMAT);
    }
}

static void recipe_of_a_later_format_is_named(void **state) {
    struct recipe back = { 0 };
    struct cyi_error err = { 0 };
    (void)state;
    assert_int_equal(recipe_from_text("{\"cyberimage\": 2}", &back, &err), CYI_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "2"));
}

static void recipe_keeps_only_the_name_of_an_input(void **state) {
    struct recipe recipe, back = { 0 };
    struct cyi_error err = { 0 };
    (void)state;
    fill_recipe(&recipe);
    free(recipe.init.name);
    recipe.init.name = text_copy("../../etc/secret.png");
    char *text = recipe_to_text(&recipe);
    assert_int_equal(recipe_from_text(text, &back, &err), CYI_OK);
    assert_string_equal(back.init.name, "secret.png");
    free(text);
    recipe_done(&recipe);
    recipe_done(&back);
}

static const char *setting(const json_t *json, const char *name) {
    return json_string_value(json_object_get(json_object_get(json, "settings"), name));
}

static void parameters_come_back_from_their_text(void **state) {
    struct recipe recipe;
    (void)state;
    fill_recipe(&recipe);
    char *text = metadata_write_parameters(&recipe);
    json_t *json = metadata_read_parameters(text);
    assert_string_equal(json_string_value(json_object_get(json, "prompt")), recipe.prompt);
    assert_string_equal(json_string_value(json_object_get(json, "negative_prompt")), "blurry");
    assert_string_equal(setting(json, "Steps"), "20");
    assert_string_equal(setting(json, "Sampler"), "Euler");
    assert_string_equal(setting(json, "CFG scale"), "4.5");
    assert_string_equal(setting(json, "Seed"), "4294967295");
    assert_string_equal(setting(json, "Size"), "256x128");
    assert_string_equal(setting(json, "Model hash"), "0123456789");
    assert_string_equal(setting(json, "Model"), "neon, two");
    assert_string_equal(setting(json, "Denoising strength"), "0.6");
    assert_string_equal(setting(json, "Version"), "CyberImage 0.1.0");
    json_decref(json);
    free(text);
    recipe_done(&recipe);
}

static void parameters_of_others_are_read(void **state) {
    (void)state;
    json_t *json = metadata_read_parameters(
        "masterpiece, (cat:1.2)\nNegative prompt: bad hands,\nugly\nSteps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, "
        "Seed: 1, Size: 512x768, Model hash: 6ce0161689, Lora hashes: \"a: 1, b: 2\", Version: v1.7.0\n");
    assert_string_equal(json_string_value(json_object_get(json, "prompt")), "masterpiece, (cat:1.2)");
    assert_string_equal(json_string_value(json_object_get(json, "negative_prompt")), "bad hands,\nugly");
    assert_string_equal(setting(json, "Sampler"), "DPM++ 2M Karras");
    assert_string_equal(setting(json, "Lora hashes"), "a: 1, b: 2");
    assert_string_equal(setting(json, "Version"), "v1.7.0");
    json_decref(json);
}

static void parameters_without_settings_are_all_prompt(void **state) {
    static const char *const texts[] = { "a cat", "two\nlines", "note: a cat", "",
                                         "\n\n",  "Steps: 4",   "a: \"",       "a: 1, b: \"x" };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        json_t *json = metadata_read_parameters(texts[i]);
        assert_int_equal(json_object_size(json_object_get(json, "settings")), 0);
        assert_true(json_is_string(json_object_get(json, "prompt")));
        json_decref(json);
    }
}

static void parameters_with_only_a_negative_prompt_are_read(void **state) {
    (void)state;
    json_t *json = metadata_read_parameters("Negative prompt: x\nSteps: 1, Seed: 2, Size: 8x8");
    assert_string_equal(json_string_value(json_object_get(json, "prompt")), "");
    assert_string_equal(json_string_value(json_object_get(json, "negative_prompt")), "x");
    json_decref(json);
    json = metadata_read_parameters("Steps: 1, Seed: 2, Size: 8x8");
    assert_string_equal(json_string_value(json_object_get(json, "prompt")), "");
    assert_string_equal(setting(json, "Seed"), "2");
    json_decref(json);
}

static void text_from_files_is_harmless_on_a_terminal(void **state) {
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    (void)state;
    text_write_safe(out, "a\033[31m\n\xff\xc2\x9b\xe2\x80\xae é 猫", false);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text, "a\\x1B[31m\\x0A\\xFF\\x9B\\u{202E} é 猫");
    free(text);
}

static void text_tells_utf8_from_other_bytes(void **state) {
    static const char *const bad[] = { "\x80",     "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                       "\xe7\x8c", "a\xf8",    "\xc3" };
    (void)state;
    assert_true(text_is_utf8("plain, é, 猫, 😀"));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(text_is_utf8(bad[i]));
    }
    char *clean = text_clean("a\xff"
                             "b");
    assert_string_equal(clean, "a?b");
    free(clean);
}

static void text_writes_numbers_for_people(void **state) {
    char buffer[TEXT_SHORT];
    (void)state;
    assert_string_equal(text_bytes(buffer, 0), "0 bytes");
    assert_string_equal(text_bytes(buffer, 999), "999 bytes");
    assert_string_equal(text_bytes(buffer, 24100000), "24.1 MB");
    assert_string_equal(text_bytes(buffer, 16000000000), "16.0 GB");
    assert_string_equal(text_bytes(buffer, 999999), "1.00 MB");
    assert_string_equal(text_count(buffer, 3880000000), "3.88 G");
    assert_string_equal(text_seconds(buffer, 0.84), "0.84 s");
    assert_string_equal(text_seconds(buffer, 59.4), "59 s");
    assert_string_equal(text_seconds(buffer, 185.0), "3 min 05 s");
    assert_string_equal(text_seconds(buffer, 3599.9), "1 h 00 min");
    assert_string_equal(text_seconds(buffer, 7620.0), "2 h 07 min");
    assert_string_equal(text_seconds(buffer, -1.0), "?");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recipe_comes_back_from_its_text),
        cmocka_unit_test(recipe_refuses_fields_that_are_wrong),
        cmocka_unit_test(recipe_refuses_text_that_is_no_recipe),
        cmocka_unit_test(recipe_of_a_later_format_is_named),
        cmocka_unit_test(recipe_keeps_only_the_name_of_an_input),
        cmocka_unit_test(parameters_come_back_from_their_text),
        cmocka_unit_test(parameters_of_others_are_read),
        cmocka_unit_test(parameters_without_settings_are_all_prompt),
        cmocka_unit_test(parameters_with_only_a_negative_prompt_are_read),
        cmocka_unit_test(text_from_files_is_harmless_on_a_terminal),
        cmocka_unit_test(text_tells_utf8_from_other_bytes),
        cmocka_unit_test(text_writes_numbers_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
