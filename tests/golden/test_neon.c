/* The bundled model against what the reference pipeline makes of it: same prompt, seed and settings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "golden/golden.h"

struct target {
    const char *backend;
    enum cyi_precision precision;
    double psnr;
};

static void fail_on_error(enum cyi_status st, const struct cyi_error *err) {
    if (st != CYI_OK) {
        fail_msg("%s", err->text);
    }
}

static void check_case(struct cyi_engine *engine, struct cyi_model *model, const json_t *row, double limit) {
    const char *name = json_string_value(json_object_get(row, "name"));
    char path[128];
    struct cyi_error err = { 0 };
    struct cyi_request request;
    struct cyi_report report;
    struct cyi_image *image = NULL;
    struct cyi_image *expected = NULL;
    cyi_request_init(model, &request);
    request.prompt = json_string_value(json_object_get(row, "prompt"));
    request.seed = (uint64_t)json_integer_value(json_object_get(row, "seed"));
    request.width = (int)json_integer_value(json_object_get(row, "width"));
    request.height = (int)json_integer_value(json_object_get(row, "height"));
    request.n_steps = (int)json_integer_value(json_object_get(row, "steps"));
    request.guidance = (float)json_number_value(json_object_get(row, "guidance"));
    (void)snprintf(path, sizeof path, "neon/%s.png", name);
    fail_on_error(cyi_image_load(engine, fixture_path(path), &expected, &err), &err);
    fail_on_error(cyi_generate(model, &request, &image, &report, &err), &err);
    assert_int_equal(image->width, expected->width);
    assert_int_equal(image->height, expected->height);
    double psnr = golden_psnr(image->pixels, expected->pixels, (size_t)image->width * (size_t)image->height * 3);
    print_message("%-8s %.1f dB (limit %.0f)\n", name, psnr, limit);
    assert_true(psnr >= limit);
    assert_int_equal(report.n_fallbacks, 0);
    cyi_image_free(image);
    cyi_image_free(expected);
}

static void run_cases(const struct target *target) {
    struct cyi_error err = { 0 };
    struct cyi_engine *engine = NULL;
    struct cyi_model *model = NULL;
    const struct cyi_engine_options options = { .backend = target->backend, .precision = target->precision };
    enum cyi_status st = cyi_engine_create(&options, &engine, &err);
    if (st == CYI_E_ARGUMENT || st == CYI_E_UNSUPPORTED) { /* not in this build, or no card */
        print_message("%s\n", err.text);
        skip();
    }
    fail_on_error(st, &err);
    fail_on_error(
        cyi_model_open(engine, &(struct cyi_model_options){ .path = fixture_path("../../models/neon") }, &model, &err),
        &err);
    json_t *expected = json_load_file(fixture_path("neon/expected.json"), 0, NULL);
    const json_t *rows = json_object_get(expected, "cases");
    assert_true(json_array_size(rows) > 0);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        check_case(engine, model, json_array_get(rows, i), target->psnr);
    }
    json_decref(expected);
    cyi_model_close(model);
    cyi_engine_free(engine);
}

static void neon_equals_recorded_pictures(void **state) {
    run_cases(*state);
}

int main(void) {
    static struct target targets[] = {
        { "onednn", CYI_PRECISION_F32, 40 },
        { "onednn", CYI_PRECISION_BF16, 30 },
        { "cuda", CYI_PRECISION_F32, 40 },
        { "cuda", CYI_PRECISION_BF16, 30 },
    };
    const struct CMUnitTest tests[] = {
        { "neon_equals_recorded_pictures_onednn_f32", neon_equals_recorded_pictures, NULL, NULL, &targets[0] },
        { "neon_equals_recorded_pictures_onednn_bf16", neon_equals_recorded_pictures, NULL, NULL, &targets[1] },
        { "neon_equals_recorded_pictures_cuda_f32", neon_equals_recorded_pictures, NULL, NULL, &targets[2] },
        { "neon_equals_recorded_pictures_cuda_bf16", neon_equals_recorded_pictures, NULL, NULL, &targets[3] },
    };
    cmocka_set_test_filter(getenv("CYI_TEST_FILTER")); /* "*_cuda_*"; NULL: all */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
