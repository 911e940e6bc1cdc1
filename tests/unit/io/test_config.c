/* Configs: bounds and types of every getter, broken files, memory running out. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "io/config.h"
#include "support/failing_allocator.h"
#include "support/temp_folder.h"

#define FILE_NAME "some/config.json"

static const char text[] = "{\n"
                           "  \"whole\": 24, \"wholeReal\": 2.0, \"real\": 1.5, \"negative\": -3, \"huge\": 1e300,\n"
                           "  \"yes\": true, \"no\": false, \"nothing\": null, \"name\": \"Flux2\",\n"
                           "  \"axes\": [32, 32.0, 16], \"none\": [], \"mixed\": [1, \"2\"],\n"
                           "  \"rope\": {\"theta\": 2000, \"deep\": {\"er\": 7}, \"nothing\": null}\n"
                           "}\n";

static struct config *parse(void) {
    struct config *config = NULL;
    struct cyi_error err = { 0 };
    assert_int_equal(config_parse(&mem_default_allocator, FILE_NAME, text, strlen(text), &config, &err), CYI_OK);
    return config;
}

/* The sentence of a failed getter names the file, the key and what is wrong. */
static void check_fault(enum cyi_status st, struct cyi_error *err, const char *key, const char *rule) {
    assert_int_equal(st, CYI_E_FORMAT);
    assert_int_equal(err->code, CYI_E_FORMAT);
    if (strstr(err->text, FILE_NAME) == NULL || strstr(err->text, key) == NULL || strstr(err->text, rule) == NULL) {
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", err->text, key, rule);
    }
    *err = (struct cyi_error){ 0 };
}

static void config_rejects_text_that_is_no_json_object(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t size;
        const char *rule;
    } rows[] = {
        { "", 0, "JSON" },
        { "[1]", 3, "not an object" },
        { "{\"a\":1", 6, "line 1" },
        { "{\n\n \"a\" 1}", 10, "line 3" },
        { "{} {}", 5, "JSON" },
        { "{\"a\":1,\"a\":2}", 13, "duplicate" },
        { "{}\0", 3, "JSON" },
        { "{\"a\":\"\xc3\x28\"}", 10, "JSON" },
        { "{\"a\":99999999999999999999}", 26, "JSON" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config *config = NULL;
        struct cyi_error err = { 0 };
        enum cyi_status st = config_parse(&mem_default_allocator, FILE_NAME, rows[i].text, rows[i].size, &config, &err);
        check_fault(st, &err, "", rows[i].rule);
        assert_null(config);
    }
}

static void config_int_is_checked(void **state) {
    (void)state;
    struct config *config = parse();
    struct cyi_error err = { 0 };
    int64_t value = -99;
    assert_int_equal(config_get_int(config, "whole", 24, 24, &value, &err), CYI_OK);
    assert_int_equal(value, 24);
    assert_int_equal(config_get_int(config, "wholeReal", 1, 9, &value, &err), CYI_OK);
    assert_int_equal(value, 2);
    assert_int_equal(config_get_int(config, "rope.deep.er", 1, 9, &value, &err), CYI_OK);
    assert_int_equal(value, 7);
    check_fault(config_get_int(config, "whole", 25, 30, &value, &err), &err, "\"whole\"",
                "24, it must be between 25 and 30");
    check_fault(config_get_int(config, "whole", 1, 23, &value, &err), &err, "\"whole\"", "between 1 and 23");
    check_fault(config_get_int(config, "real", 1, 9, &value, &err), &err, "\"real\"", "whole");
    check_fault(config_get_int(config, "huge", 1, INT64_MAX, &value, &err), &err, "\"huge\"", "whole");
    check_fault(config_get_int(config, "yes", 0, 9, &value, &err), &err, "\"yes\"", "whole");
    check_fault(config_get_int(config, "name", 0, 9, &value, &err), &err, "\"name\"", "whole");
    check_fault(config_get_int(config, "absent", 0, 9, &value, &err), &err, "\"absent\"", "missing");
    check_fault(config_get_int(config, "nothing", 0, 9, &value, &err), &err, "\"nothing\"", "missing");
    check_fault(config_get_int(config, "rope.nothing", 0, 9, &value, &err), &err, "rope.nothing", "missing");
    check_fault(config_get_int(config, "whole.deeper", 0, 9, &value, &err), &err, "whole.deeper", "missing");
    assert_int_equal(value, 7); /* written on success only */
    config_close(config);
}

static void config_float_is_checked(void **state) {
    (void)state;
    struct config *config = parse();
    struct cyi_error err = { 0 };
    double value = -99.0;
    assert_int_equal(config_get_float(config, "rope.theta", 1.0, 1e9, &value, &err), CYI_OK);
    assert_true(value >= 2000.0 && value <= 2000.0);
    check_fault(config_get_float(config, "real", 2.0, 3.0, &value, &err), &err, "\"real\"", "between 2 and 3");
    check_fault(config_get_float(config, "axes", 2.0, 3.0, &value, &err), &err, "\"axes\"", "not a number");
    check_fault(config_get_float(config, "absent", 2.0, 3.0, &value, &err), &err, "\"absent\"", "missing");
    assert_true(value >= 2000.0);
    config_close(config);
}

static void config_optional_values_fall_back_only_when_absent(void **state) {
    (void)state;
    struct config *config = parse();
    struct cyi_error err = { 0 };
    int64_t whole = 0;
    double real = 0.0;
    bool flag = false;
    assert_int_equal(config_get_int_or(config, "nothing", 1, 2, 77, &whole, &err), CYI_OK);
    assert_int_equal(whole, 77);
    assert_int_equal(config_get_int_or(config, "whole", 1, 99, 77, &whole, &err), CYI_OK);
    assert_int_equal(whole, 24);
    check_fault(config_get_int_or(config, "whole", 1, 2, 77, &whole, &err), &err, "\"whole\"", "between");
    assert_int_equal(config_get_float_or(config, "absent", 0.0, 1.0, 1e-6, &real, &err), CYI_OK);
    assert_true(real > 0.0 && real < 1e-5);
    check_fault(config_get_float_or(config, "name", 0.0, 1.0, 1e-6, &real, &err), &err, "\"name\"", "not a number");
    assert_int_equal(config_get_bool_or(config, "absent", true, &flag, &err), CYI_OK);
    assert_true(flag);
    assert_int_equal(config_get_bool_or(config, "no", true, &flag, &err), CYI_OK);
    assert_false(flag);
    check_fault(config_get_bool_or(config, "whole", true, &flag, &err), &err, "\"whole\"", "neither true nor false");
    config_close(config);
}

static void config_lists_are_checked(void **state) {
    (void)state;
    struct config *config = parse();
    struct cyi_error err = { 0 };
    int64_t values[4] = { -1, -1, -1, -1 };
    size_t n = 99;
    check_fault(config_get_ints(config, "axes", 1, 31, 4, values, &n, &err), &err, "\"axes\"", "between 1 and 31");
    check_fault(config_get_ints(config, "axes", 1, 99, 2, values, &n, &err), &err, "\"axes\"", "1 to 2");
    check_fault(config_get_ints(config, "none", 1, 99, 4, values, &n, &err), &err, "\"none\"", "1 to 4");
    check_fault(config_get_ints(config, "mixed", 1, 99, 4, values, &n, &err), &err, "\"mixed\"", "whole");
    check_fault(config_get_ints(config, "whole", 1, 99, 4, values, &n, &err), &err, "\"whole\"", "list");
    check_fault(config_get_ints(config, "absent", 1, 99, 4, values, &n, &err), &err, "\"absent\"", "missing");
    assert_true(n == 99 && values[0] == -1);
    assert_int_equal(config_get_ints(config, "axes", 1, 99, 3, values, &n, &err), CYI_OK);
    assert_int_equal(n, 3);
    assert_true(values[0] == 32 && values[1] == 32 && values[2] == 16 && values[3] == -1);
    config_close(config);
}

static void config_strings_and_presence(void **state) {
    (void)state;
    struct config *config = parse();
    char long_key[1000];
    memset(long_key, 'k', sizeof long_key);
    long_key[sizeof long_key - 1] = '\0';
    assert_string_equal(config_get_string(config, "name"), "Flux2");
    assert_null(config_get_string(config, "whole"));
    assert_null(config_get_string(config, "absent"));
    assert_true(config_has(config, "rope") && config_has(config, "rope.deep.er") && config_has(config, "no"));
    assert_false(config_has(config, "nothing") || config_has(config, "rope.") || config_has(config, ".rope") ||
                 config_has(config, long_key));
    config_close(config);
    config_close(NULL);
}

static void config_reports_every_failing_allocation(void **state) {
    char path[TEMP_PATH_BYTES];
    enum cyi_status st = CYI_E_MEMORY;
    temp_write(temp_path(path, *state, "config.json"), text, strlen(text));
    for (size_t n = 1; st != CYI_OK; n++) {
        struct failing_allocator failing;
        struct config *config = NULL;
        struct cyi_error err = { 0 };
        failing_allocator_init(&failing, n);
        st = config_open(&failing.allocator, path, &config, &err);
        assert_true(st == CYI_OK ? n == 4 : st == CYI_E_MEMORY);
        config_close(config);
        assert_int_equal(failing.n_live, 0);
    }
}

static void config_open_names_absent_files(void **state) {
    char path[TEMP_PATH_BYTES];
    struct config *config = NULL;
    struct cyi_error err = { 0 };
    assert_int_equal(config_open(&mem_default_allocator, temp_path(path, *state, "absent.json"), &config, &err),
                     CYI_E_IO);
    assert_non_null(strstr(err.text, path));
    assert_null(config);
}

static int create_folder(void **state) {
    static char folder[TEMP_PATH_BYTES];
    temp_folder_create(folder);
    *state = folder;
    return 0;
}

static int remove_folder(void **state) {
    temp_folder_remove(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_rejects_text_that_is_no_json_object),
        cmocka_unit_test(config_int_is_checked),
        cmocka_unit_test(config_float_is_checked),
        cmocka_unit_test(config_optional_values_fall_back_only_when_absent),
        cmocka_unit_test(config_lists_are_checked),
        cmocka_unit_test(config_strings_and_presence),
        cmocka_unit_test_setup_teardown(config_reports_every_failing_allocation, create_folder, remove_folder),
        cmocka_unit_test_setup_teardown(config_open_names_absent_files, create_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
