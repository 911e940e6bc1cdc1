/* The FLUX.2 transformer alone, with embedded guidance (dev has no text encoder here): one forward pass, stage by stage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "golden/golden.h"
#include "models/flux2.h"

struct fixture {
    const struct safetensors *golden;
    double limit;
    size_t n_checked;
};

static void check_stage(void *user, const char *stage, const struct tensor *value) {
    struct fixture *fixture = user;
    char name[96];
    (void)snprintf(name, sizeof name, "forward.%s", stage);
    const struct safetensors_entry *entry = safetensors_find(fixture->golden, name);
    if (entry != NULL) {
        golden_check(name, value, &entry->tensor, fixture->limit);
        fixture->n_checked++;
    }
}

static void run_forward(const char *backend_name, enum dtype act_dtype, double limit) {
    const struct backend_kind *kind = backend_find(backend_name);
    if (kind == NULL) {
        skip();
    }
    const struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = 2 };
    struct cyi_error err = { 0 };
    struct flux2 *model = NULL;
    struct flux2_run run;
    struct safetensors *golden = golden_open("flux2-dev");
    struct fixture fixture = { .golden = golden, .limit = limit };
    struct exec ex = {
        .act_dtype = act_dtype, .allocator = &mem_default_allocator, .observe = check_stage, .observe_user = &fixture
    };
    assert_int_equal(kind->create(&options, &ex.backend, &err), CYI_OK);
    assert_int_equal(backend_reference.create(&options, &ex.reference, &err), CYI_OK);
    assert_int_equal(arena_create(&mem_default_allocator, &ex.arena, &err), CYI_OK);
    assert_int_equal(flux2_open(&mem_default_allocator, fixture_path("golden/flux2-dev/transformer"), &model, &err),
                     CYI_OK);
    assert_true(flux2_get_config(model)->has_guidance);

    const struct tensor text = golden_tensor(golden, "forward.prompt_embeds");
    const struct tensor x = golden_tensor(golden, "forward.step0.input");
    const struct tensor expected = golden_tensor(golden, "forward.output");
    const struct flux2_grid grid = { .n_rows = 3, .n_cols = 5 };
    struct tensor velocity;
    assert_int_equal(tensor_new_2d(ex.arena, DTYPE_F32, 15, 128, &velocity, &err), CYI_OK);
    assert_int_equal(flux2_prepare(model, &ex, &text, &grid, 1, NULL, &run, &err), CYI_OK);
    const struct flux2_step step = {
        .x = &x, .timestep = 718.75F, .guidance = 4.0F, .n_blocks_all = 4, .velocity = &velocity
    };
    assert_int_equal(flux2_forward(model, &ex, &run, &step, &err), CYI_OK);
    golden_check("forward.output", &velocity, &expected, limit);
    assert_true(fixture.n_checked >= 8);
    assert_int_equal(ex.n_fallbacks, 0);

    flux2_close(model);
    arena_free(ex.arena);
    backend_free(ex.backend);
    backend_free(ex.reference);
    safetensors_close(golden);
}

static void dev_forward_matches_golden_on_reference(void **state) {
    (void)state;
    run_forward("reference", DTYPE_F32, 1e-9);
}

static void dev_forward_matches_golden_on_onednn_f32(void **state) {
    (void)state;
    run_forward("onednn", DTYPE_F32, 1e-9);
}

static void dev_forward_matches_golden_on_onednn_bf16(void **state) {
    (void)state;
    run_forward("onednn", DTYPE_BF16, 3e-4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dev_forward_matches_golden_on_reference),
        cmocka_unit_test(dev_forward_matches_golden_on_onednn_f32),
        cmocka_unit_test(dev_forward_matches_golden_on_onednn_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
