/* The command line's table of options: strict values, sentences that name option, value and bounds. */
#include "../../../cli/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>

struct fields {
    bool is_json;
    int width;
    double guidance;
    struct option_seed seed;
    struct option_files files;
    const char *text, *format;
};

static const struct option_row rows[] = {
    { OPTION_HEADING, 0, NULL, NULL, "Things", 0, 0, 0, NULL },
    { OPTION_FLAG, 0, "json", NULL, "JSON", offsetof(struct fields, is_json), 0, 0, NULL },
    { OPTION_INT, 'W', "width", "N", "Width", offsetof(struct fields, width), 1, 100, NULL },
    { OPTION_NUMBER, 0, "guidance", "X", "Guidance", offsetof(struct fields, guidance), 0, 10, NULL },
    { OPTION_SEED, 0, "seed", "N", "Seed", offsetof(struct fields, seed), 0, 0, NULL },
    { OPTION_LIST, 'i', "image", "FILE", "Pictures", offsetof(struct fields, files), 0, 0, NULL },
    { OPTION_TEXT, 0, "text", "TEXT", "Text", offsetof(struct fields, text), 0, 0, NULL },
    { OPTION_CHOICE, 0, "format", "F", "Format", offsetof(struct fields, format), 0, 0, "png|jpg|webp" },
};

static const struct command command = { .name = "test",
                                        .arguments = "PROMPT",
                                        .summary = "",
                                        .description = "Tests.",
                                        .rows = rows,
                                        .n_rows = sizeof rows / sizeof rows[0],
                                        .min_arguments = 1,
                                        .max_arguments = 1,
                                        .argument_hint = "use quotes" };

#define MAX_WORDS 32

/* Parses words (after the command's name), NULL at the end. What the options point to lasts until the next call. */
static enum cyi_status parse(const char *const *words, struct fields *fields, struct option_arguments *arguments,
                             struct cyi_error *err) {
    static char storage[MAX_WORDS][128];
    char *argv[MAX_WORDS + 1] = { 0 };
    int argc = 0;
    (void)snprintf(storage[argc], sizeof storage[0], "test");
    argv[argc] = storage[argc];
    argc++;
    for (; words[argc - 1] != NULL; argc++) {
        (void)snprintf(storage[argc], sizeof storage[0], "%s", words[argc - 1]);
        argv[argc] = storage[argc];
    }
    *err = (struct cyi_error){ 0 };
    *fields = (struct fields){ .width = OPTION_UNSET, .guidance = OPTION_UNSET };
    return options_parse(&command, argc, argv, fields, arguments, err);
}

#define PARSE(...) parse((const char *const[]){ __VA_ARGS__, NULL }, &fields, &arguments, &err)

/* The sentence must hold all of these words. */
static void assert_refused(enum cyi_status st, const struct cyi_error *err, const char *first, const char *second) {
    assert_int_equal(st, CYI_E_ARGUMENT);
    assert_int_equal(err->code, CYI_E_ARGUMENT);
    assert_non_null(strstr(err->text, first));
    assert_non_null(strstr(err->text, second));
}

static void options_reads_every_kind(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    (void)state;
    assert_int_equal(
        PARSE("--json", "-W", "64", "a cat", "--guidance=2.5", "--seed", "18446744073709551615", "--format", "jpg"),
        CYI_OK);
    assert_true(fields.is_json);
    assert_int_equal(fields.width, 64);
    assert_true(fields.guidance > 2.49 && fields.guidance < 2.51);
    assert_true(fields.seed.is_set && fields.seed.value == UINT64_MAX);
    assert_int_equal(arguments.n, 1);
}

static void options_leaves_absent_fields_alone(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    (void)state;
    assert_int_equal(PARSE("a cat"), CYI_OK);
    assert_int_equal(fields.width, OPTION_UNSET);
    assert_false(fields.seed.is_set);
    assert_null(fields.format);
}

static void options_refuses_numbers_with_a_tail(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    (void)state;
    static const char *const words[] = { "12x", "0x10", "1.5", "--5", "-", "nan", "1e2", "9 9" };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_refused(PARSE("a", "--width", words[i]), &err, "--width", words[i]);
    }
    static const char *const reals[] = { "1,5", "nan", "inf", "0x1p1", "e5", "1e", "1.5.2" };
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        assert_refused(PARSE("a", "--guidance", reals[i]), &err, "--guidance", reals[i]);
    }
    assert_refused(PARSE("a", "--seed", "-1"), &err, "--seed", "-1");
    assert_refused(PARSE("a", "--seed", "+1"), &err, "--seed", "+1");
}

static void options_refuses_numbers_out_of_bounds_with_the_bounds(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    (void)state;
    static const char *const words[] = { "0", "101", "-7", "99999999999999999999", "2147483648" };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_refused(PARSE("a", "--width", words[i]), &err, words[i], "1 to 100");
    }
    assert_refused(PARSE("a", "--guidance", "1e999"), &err, "1e999", "0 to 10");
    assert_refused(PARSE("a", "--guidance", "-0.1"), &err, "-0.1", "0 to 10");
    assert_refused(PARSE("a", "--seed", "18446744073709551616"), &err, "18446744073709551616",
                   "0 to 18446744073709551615");
}

static void options_refuses_empty_values(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    (void)state;
    assert_refused(PARSE("a", "--width", ""), &err, "--width", "empty");
    assert_refused(PARSE("a", "--format="), &err, "--format", "empty");
    assert_int_equal(PARSE("a", "--text", ""), CYI_OK);
}

static void options_names_unknown_and_incomplete_options(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    (void)state;
    assert_refused(PARSE("a", "--colour", "red"), &err, "--colour", "unknown");
    assert_refused(PARSE("a", "-x"), &err, "-x", "unknown");
    assert_refused(PARSE("a", "--width"), &err, "--width", "needs a value");
    assert_refused(PARSE("a", "--json=yes"), &err, "--json", "no value");
    assert_refused(PARSE("a", "--format", "bmp"), &err, "bmp", "png|jpg|webp");
    assert_refused(PARSE("a", "--format", "pn"), &err, "pn", "png|jpg|webp");
}

static void options_counts_arguments(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    (void)state;
    assert_refused(PARSE("--json"), &err, "PROMPT", "use quotes");
    assert_refused(PARSE("two", "words"), &err, "words", "use quotes");
}

static void options_after_two_dashes_are_arguments(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    (void)state;
    assert_int_equal(PARSE("--json", "--", "--width"), CYI_OK);
    assert_string_equal(arguments.items[0], "--width");
    assert_int_equal(PARSE("-"), CYI_OK);
    assert_string_equal(arguments.items[0], "-");
}

static void options_take_existing_files_after_a_list(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    (void)state;
    assert_int_equal(PARSE("--image", "/proc/self/exe", "/proc/self/maps", "a cat", "-i", "third"), CYI_OK);
    assert_int_equal(fields.files.n, 3);
    assert_string_equal(fields.files.items[2], "third");
    assert_string_equal(arguments.items[0], "a cat");
    assert_refused(PARSE("a cat", "/proc/self/exe"), &err, "/proc/self/exe", "too many");
}

static void options_refuses_the_eleventh_file(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    (void)state;
    assert_refused(PARSE("a", "-i", "1", "-i", "2", "-i", "3", "-i", "4", "-i", "5", "-i", "6", "-i", "7", "-i", "8",
                         "-i", "9", "-i", "10", "-i", "11.png"),
                   &err, "11.png", "at most 10");
}

static void options_help_names_every_row(void **state) {
    struct fields fields;
    struct option_arguments arguments;
    struct cyi_error err;
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    (void)state;
    assert_int_equal(PARSE("--width", "12", "--help", "--nonsense"), CYI_OK);
    assert_true(arguments.wants_help);
    options_print_help(&command, out);
    assert_int_equal(fclose(out), 0);
    for (size_t i = 1; i < sizeof rows / sizeof rows[0]; i++) {
        assert_non_null(strstr(text, rows[i].name));
        assert_non_null(strstr(text, rows[i].help));
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_reads_every_kind),
        cmocka_unit_test(options_leaves_absent_fields_alone),
        cmocka_unit_test(options_refuses_numbers_with_a_tail),
        cmocka_unit_test(options_refuses_numbers_out_of_bounds_with_the_bounds),
        cmocka_unit_test(options_refuses_empty_values),
        cmocka_unit_test(options_names_unknown_and_incomplete_options),
        cmocka_unit_test(options_counts_arguments),
        cmocka_unit_test(options_after_two_dashes_are_arguments),
        cmocka_unit_test(options_take_existing_files_after_a_list),
        cmocka_unit_test(options_refuses_the_eleventh_file),
        cmocka_unit_test(options_help_names_every_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
