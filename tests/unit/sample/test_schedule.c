/* Schedules against the recorded numbers of the reference, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "golden/golden.h"
#include "sample/schedule.h"

static int open_fixture(void **state) {
    json_error_t fault;
    *state = json_load_file(fixture_path("golden/schedule/golden.json"), 0, &fault);
    assert_non_null(*state);
    return 0;
}

static int close_fixture(void **state) {
    json_decref(*state);
    return 0;
}

static void check_sigmas(const struct schedule_config *config, const json_t *row, double mu, int n_steps) {
    const json_t *expected = json_object_get(row, "sigmas");
    float sigmas[64];
    assert_int_equal(json_array_size(expected), n_steps + 1);
    schedule_sigmas(config, mu, n_steps, sigmas);
    for (int i = 0; i <= n_steps; i++) {
        float sigma = (float)json_number_value(json_array_get(expected, (size_t)i));
        if (memcmp(&sigma, &sigmas[i], sizeof sigma) != 0) {
            fail_msg("mu %.17g, %d steps: sigma %d is %.9g, the reference has %.9g", mu, n_steps, i, (double)sigmas[i],
                     (double)sigma);
        }
    }
}

static void schedule_mu_equals_reference(void **state) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(*state, "flux2"), i, row) {
        int64_t n_tokens = json_integer_value(json_object_get(row, "tokens"));
        int n_steps = (int)json_integer_value(json_object_get(row, "steps"));
        double expected = json_number_value(json_object_get(row, "mu"));
        double mu = schedule_mu_flux2(n_tokens, n_steps);
        assert_memory_equal(&mu, &expected, sizeof mu);
    }
    assert_true(i > 60);
}

static void schedule_sigmas_equal_reference(void **state) {
    static const char *const families[] = { "flux2", "flux1-dev" };
    for (size_t f = 0; f < 2; f++) {
        size_t i;
        json_t *row;
        json_array_foreach(json_object_get(*state, families[f]), i, row) {
            check_sigmas(&schedule_default, row, json_number_value(json_object_get(row, "mu")),
                         (int)json_integer_value(json_object_get(row, "steps")));
        }
        assert_true(i > 10);
    }
}

/* What scheduler_config.json may say instead; recorded with diffusers 0.42.1. */
static void other_schedules_equal_reference(void **state) {
    (void)state;
    json_error_t fault;
    json_t *rows = json_load_file(fixture_path("golden/schedule/others.json"), 0, &fault), *row;
    size_t i;
    assert_non_null(rows);
    json_array_foreach(rows, i, row) {
        const char *kind = json_string_value(json_object_get(row, "kind"));
        const struct schedule_config config = {
            .kind = strcmp(kind, "static") == 0   ? SCHEDULE_STATIC
                    : strcmp(kind, "linear") == 0 ? SCHEDULE_LINEAR
                                                  : SCHEDULE_EXPONENTIAL,
            .shift = json_number_value(json_object_get(row, "shift")),
            .terminal = json_number_value(json_object_get(row, "terminal")),
            .n_timesteps = 1000.0,
        };
        check_sigmas(&config, row, json_number_value(json_object_get(row, "mu")),
                     (int)json_integer_value(json_object_get(row, "steps")));
    }
    assert_true(i > 40);
    json_decref(rows);
}

static void schedule_first_step_equals_reference(void **state) {
    (void)state;
    static const struct {
        int n_steps;
        float strength;
        int expected; /* int(N - min(N * strength, N)) in Python */
    } rows[] = {
        { 4, 1.0F, 0 },     { 4, 0.8F, 0 },  { 4, 0.75F, 1 },   { 4, 0.6F, 1 },  { 4, 0.5F, 2 },     { 4, 0.25F, 3 },
        { 4, 0.1F, 3 },     { 5, 0.6F, 2 },  { 10, 0.7F, 3 },   { 10, 0.3F, 7 }, { 100, 0.29F, 71 }, { 100, 0.55F, 44 },
        { 100, 0.57F, 43 }, { 50, 0.9F, 5 }, { 50, 0.02F, 49 }, { 1, 0.99F, 0 }, { 4, 1.5F, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(schedule_first_step(rows[i].n_steps, rows[i].strength), rows[i].expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedule_mu_equals_reference),
        cmocka_unit_test(schedule_sigmas_equal_reference),
        cmocka_unit_test(other_schedules_equal_reference),
        cmocka_unit_test(schedule_first_step_equals_reference),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
