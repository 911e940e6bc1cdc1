/* Errors: the first failure wins, sentences are cut to their space, every status has a name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/error.h"

static void the_first_failure_wins(void **state) {
    (void)state;
    struct cyi_error err = { 0 };
    assert_int_equal(error_set(&err, CYI_E_SHAPE, "q has K=%d", 64), CYI_E_SHAPE);
    assert_int_equal(error_set(&err, CYI_E_IO, "later"), CYI_E_IO);
    assert_int_equal(err.code, CYI_E_SHAPE);
    assert_string_equal(err.text, "q has K=64");
}

static void no_error_struct_is_fine(void **state) {
    (void)state;
    assert_int_equal(error_set(NULL, CYI_E_IO, "nobody reads this"), CYI_E_IO);
    assert_int_equal(error_memory(NULL, "a model", 1), CYI_E_MEMORY);
}

static void long_sentences_are_cut(void **state) {
    (void)state;
    struct cyi_error err = { 0 };
    (void)error_set(&err, CYI_E_FORMAT, "%2000s", "end");
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

static void no_memory_says_what_and_how_much(void **state) {
    (void)state;
    struct cyi_error err = { 0 };
    assert_int_equal(error_memory(&err, "an arena", 4096), CYI_E_MEMORY);
    assert_string_equal(err.text, "out of memory: an arena needs 4096 bytes");
}

static void every_status_has_a_name_of_its_own(void **state) {
    (void)state;
    for (int i = 0; i < CYI_N_STATUSES; i++) {
        assert_string_not_equal(cyi_status_name((enum cyi_status)i), "unknown");
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(cyi_status_name((enum cyi_status)i), cyi_status_name((enum cyi_status)j));
        }
    }
    assert_string_equal(cyi_status_name(CYI_N_STATUSES), "unknown");
    assert_string_equal(cyi_status_name((enum cyi_status)12345), "unknown");
}

static enum cyi_status try_twice(enum cyi_status first, enum cyi_status second, int *n_done) {
    enum cyi_status st;
    TRY(first);
    ++*n_done;
    TRY(second);
    ++*n_done;
done:
    return st;
}

static void try_leaves_at_the_first_failure(void **state) {
    (void)state;
    int n_done = 0;
    assert_int_equal(try_twice(CYI_OK, CYI_OK, &n_done), CYI_OK);
    assert_int_equal(n_done, 2);
    assert_int_equal(try_twice(CYI_OK, CYI_E_IO, &n_done), CYI_E_IO);
    assert_int_equal(n_done, 3);
    assert_int_equal(try_twice(CYI_E_SHAPE, CYI_E_IO, &n_done), CYI_E_SHAPE);
    assert_int_equal(n_done, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_failure_wins),
        cmocka_unit_test(no_error_struct_is_fine),
        cmocka_unit_test(long_sentences_are_cut),
        cmocka_unit_test(no_memory_says_what_and_how_much),
        cmocka_unit_test(every_status_has_a_name_of_its_own),
        cmocka_unit_test(try_leaves_at_the_first_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
