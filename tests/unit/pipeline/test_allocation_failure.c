/* When the N-th allocation fails, for every N: one clear error, no leak (the sanitizer watches), and the next try works. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "golden/golden.h"

struct failing {
    long n_until_failure; /* 1: the next one fails; 0 or less: never */
};

static void *allocate(void *user, size_t size_bytes) {
    struct failing *failing = user;
    if (failing->n_until_failure > 0 && --failing->n_until_failure == 0) {
        return NULL;
    }
    return malloc(size_bytes);
}

static void release(void *user, void *block) {
    (void)user;
    free(block);
}

static void assert_memory_error(enum cyi_status st, const struct cyi_error *err) {
    if (st != CYI_E_MEMORY || strstr(err->text, "memory") == NULL) {
        fail_msg("%s: %s", cyi_status_name(st), err->text);
    }
}

static void open_survives_every_failing_allocation(void **state) {
    (void)state;
    struct failing failing = { 0 };
    const struct cyi_allocator allocator = { allocate, release, &failing };
    const struct cyi_engine_options options = { .allocator = &allocator, .n_threads = 1 };
    const struct cyi_model_options model_options = { .path = fixture_path("golden/flux2-klein") };
    enum cyi_status st = CYI_E_MEMORY;
    long n = 0;
    while (st != CYI_OK) {
        struct cyi_engine *engine = NULL;
        struct cyi_model *model = NULL;
        struct cyi_error err = { 0 };
        failing.n_until_failure = ++n;
        st = cyi_engine_create(&options, &engine, &err);
        if (st == CYI_OK) {
            st = cyi_model_open(engine, &model_options, &model, &err);
        }
        failing.n_until_failure = 0;
        if (st != CYI_OK) {
            assert_memory_error(st, &err);
            assert_null(model);
        }
        cyi_model_close(model);
        cyi_engine_free(engine);
    }
    print_message("opening makes %ld allocations\n", n - 1);
    assert_true(n > 20);
}

static void generate_survives_every_failing_allocation(void **state) {
    (void)state;
    struct failing failing = { 0 };
    const struct cyi_allocator allocator = { allocate, release, &failing };
    const struct cyi_engine_options options = { .allocator = &allocator, .n_threads = 1 };
    const struct cyi_model_options model_options = { .path = fixture_path("golden/flux2-klein") };
    struct cyi_error first = { 0 };
    struct cyi_engine *engine = NULL;
    struct cyi_image *init = NULL;
    assert_int_equal(cyi_engine_create(&options, &engine, &first), CYI_OK);
    assert_int_equal(cyi_image_load(engine, fixture_path("golden/flux2-inpaint/init.png"), &init, &first), CYI_OK);
    enum cyi_status st = CYI_E_MEMORY;
    long n = 0;
    while (st != CYI_OK) {
        struct cyi_model *model = NULL;
        struct cyi_image *image = NULL;
        struct cyi_error err = { 0 };
        struct cyi_request request;
        assert_int_equal(cyi_model_open(engine, &model_options, &model, &err), CYI_OK);
        cyi_request_init(model, &request);
        request.prompt = "a fox";
        request.width = 32;
        request.height = 32;
        request.n_steps = 1;
        request.init = init;
        request.mask = init;
        request.strength = 1.0F;
        request.wants_preview = true;
        failing.n_until_failure = ++n;
        st = cyi_generate(model, &request, &image, NULL, &err);
        failing.n_until_failure = 0;
        if (st != CYI_OK) {
            assert_memory_error(st, &err);
            assert_null(image);
        }
        cyi_image_free(image);
        cyi_model_close(model);
    }
    print_message("generating makes %ld allocations\n", n - 1);
    assert_true(n > 20);
    cyi_image_free(init);
    cyi_engine_free(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_survives_every_failing_allocation),
        cmocka_unit_test(generate_survives_every_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
