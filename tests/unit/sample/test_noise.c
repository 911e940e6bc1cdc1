/* Noise against the recorded numbers of the reference, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <sodium.h>

#include "golden/golden.h"
#include "sample/noise.h"

#define SEQUENCE "sequence."

struct fixture {
    json_t *info;
    struct safetensors *golden;
};

static int open_fixture(void **state) {
    static struct fixture fixture;
    json_error_t fault;
    fixture.info = json_load_file(fixture_path("golden/noise/golden.json"), 0, &fault);
    assert_non_null(fixture.info);
    fixture.golden = golden_open("noise");
    *state = &fixture;
    return 0;
}

static int close_fixture(void **state) {
    struct fixture *fixture = *state;
    json_decref(fixture->info);
    safetensors_close(fixture->golden);
    return 0;
}

static void check_hash(const json_t *row, const float *values, size_t n) {
    unsigned char digest[crypto_hash_sha256_BYTES];
    char hex[2 * sizeof digest + 1];
    (void)crypto_hash_sha256(digest, (const unsigned char *)values, n * sizeof *values);
    (void)sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    if (strcmp(hex, json_string_value(json_object_get(row, "sha256_avx2"))) != 0) {
        fail_msg("%s differs from the reference", json_string_value(json_object_get(row, "name")));
    }
}

/* The stored values of one draw: all of them, or the first and last ones. Returns how many were compared. */
static size_t check_stored(const struct safetensors *golden, const char *name, const char *part, const float *values,
                           size_t n) {
    char key[96];
    (void)snprintf(key, sizeof key, "avx2.%s%s", name, part);
    const struct safetensors_entry *entry = safetensors_find(golden, key);
    if (entry == NULL) {
        return 0;
    }
    size_t n_stored = (size_t)tensor_n_elements(&entry->tensor);
    assert_true(n_stored <= n);
    const float *first = strcmp(part, ".last") == 0 ? values + (n - n_stored) : values;
    assert_memory_equal(first, entry->tensor.data, n_stored * sizeof *values);
    return n_stored;
}

static void check_row(const struct fixture *fixture, const json_t *row, struct noise_generator *generator) {
    size_t n = (size_t)json_integer_value(json_object_get(row, "n"));
    const char *name = json_string_value(json_object_get(row, "name"));
    float *values = malloc(n * sizeof *values);
    assert_non_null(values);
    noise_draw(generator, values, n);
    check_hash(row, values, n);
    size_t n_compared = check_stored(fixture->golden, name, "", values, n) +
                        check_stored(fixture->golden, name, ".first", values, n) +
                        check_stored(fixture->golden, name, ".last", values, n);
    assert_true(n_compared > 0 || n > 2048);
    free(values);
}

static void noise_equals_reference_for_all_recorded_draws(void **state) {
    const struct fixture *fixture = *state;
    struct noise_generator generator;
    size_t i;
    json_t *row;
    size_t n_rows = 0;
    json_array_foreach(json_object_get(fixture->info, "draws"), i, row) {
        if (strncmp(json_string_value(json_object_get(row, "name")), SEQUENCE, strlen(SEQUENCE)) != 0) {
            noise_seed(&generator, (uint64_t)json_integer_value(json_object_get(row, "seed")));
            check_row(fixture, row, &generator);
            n_rows++;
        }
    }
    assert_true(n_rows > 100);
    print_message("%zu draws are equal\n", n_rows);
}

static void noise_keeps_the_spare_value_between_small_draws(void **state) {
    const struct fixture *fixture = *state;
    struct noise_generator generator;
    size_t i;
    json_t *row;
    size_t n_rows = 0;
    noise_seed(&generator, 42);
    json_array_foreach(json_object_get(fixture->info, "draws"), i, row) {
        if (strncmp(json_string_value(json_object_get(row, "name")), SEQUENCE, strlen(SEQUENCE)) == 0) {
            check_row(fixture, row, &generator);
            n_rows++;
        }
    }
    assert_int_equal(n_rows, 4);
}

static void noise_uses_the_low_32_bits_of_the_seed(void **state) {
    (void)state;
    struct noise_generator low;
    struct noise_generator high;
    float x[32];
    float y[32];
    noise_seed(&low, 7);
    noise_seed(&high, (UINT64_C(0xdeadbeef) << 32) + 7);
    noise_draw(&low, x, 32);
    noise_draw(&high, y, 32);
    assert_memory_equal(x, y, sizeof x);
}

static void noise_of_no_values_changes_nothing(void **state) {
    (void)state;
    struct noise_generator a;
    struct noise_generator b;
    float x;
    float y;
    noise_seed(&a, 3);
    noise_seed(&b, 3);
    noise_draw(&a, NULL, 0);
    noise_draw(&a, &x, 1);
    noise_draw(&b, &y, 1);
    assert_memory_equal(&x, &y, sizeof x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_equals_reference_for_all_recorded_draws),
        cmocka_unit_test(noise_keeps_the_spare_value_between_small_draws),
        cmocka_unit_test(noise_uses_the_low_32_bits_of_the_seed),
        cmocka_unit_test(noise_of_no_values_changes_nothing),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
