/* The cursor over JSON text: strings and their escapes, numbers, skipping, members. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "text/json_scan.h"

static char scratch[JSON_SCAN_STRING_MAX];

static struct json_scan scan_text(const char *text) {
    return (struct json_scan){ text, text + strlen(text) };
}

static void scan_reads_strings_and_escapes(void **state) {
    (void)state;
    static const struct {
        const char *json, *text;
    } rows[] = {
        { "\"\"", "" },
        { " \n\t\r\"a b\"", "a b" },
        { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t" },
        { "\"x\\u0041\\u00e9\\u20ac\\uD83D\\ude00y\"", "xA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80y" },
        { "\"\xe7\x8c\xab\"", "\xe7\x8c\xab" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct json_scan scan = scan_text(rows[i].json);
        struct json_slice slice;
        assert_true(json_scan_string(&scan, scratch, &slice));
        assert_int_equal(slice.size_bytes, strlen(rows[i].text));
        assert_memory_equal(slice.data, rows[i].text, slice.size_bytes);
        assert_ptr_equal(scan.at, scan.end);
    }
}

static void scan_refuses_broken_strings(void **state) {
    (void)state;
    static const char *const rows[] = {
        "",
        "a",
        "\"",
        "\"a",
        "\"a\\\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud800\\n\"",
        "\"\\ud800a",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"a\nb\"",
        "\"\\n\n\"",
        "\"\\u",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct json_scan scan = scan_text(rows[i]);
        struct json_slice slice;
        if (json_scan_string(&scan, scratch, &slice)) {
            fail_msg("row %zu was read", i);
        }
        assert_true(scan.at <= scan.end);
    }
}

static void scan_refuses_strings_beyond_their_limit(void **state) {
    (void)state;
    static char text[JSON_SCAN_STRING_MAX + 8];
    for (int escaped = 0; escaped < 2; escaped++) {
        memset(text, 'a', sizeof text);
        text[0] = '"';
        text[1] = escaped != 0 ? '\\' : 'a';
        text[2] = '"';
        if (escaped == 0) {
            text[2] = 'a';
        }
        text[sizeof text - 1] = '"';
        struct json_scan scan = { text, text + sizeof text };
        struct json_slice slice;
        assert_false(json_scan_string(&scan, scratch, &slice));
    }
}

static void scan_reads_whole_numbers_only(void **state) {
    (void)state;
    int64_t value;
    struct json_scan scan = scan_text(" 0");
    assert_true(json_scan_whole(&scan, &value));
    assert_int_equal(value, 0);
    scan = scan_text("999999999999999");
    assert_true(json_scan_whole(&scan, &value));
    assert_int_equal(value, 999999999999999);
    static const char *const rows[] = { "", "-1", "01", "a", "\"1\"", "+1" };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        scan = scan_text(rows[i]);
        assert_false(json_scan_whole(&scan, &value));
    }
}

static void check_skip(const char *json, const char *value) {
    struct json_scan scan = scan_text(json);
    struct json_scan skipped;
    assert_true(json_scan_skip(&scan, &skipped));
    assert_int_equal(skipped.end - skipped.at, strlen(value));
    assert_memory_equal(skipped.at, value, strlen(value));
    assert_ptr_equal(scan.at, skipped.end);
}

static void scan_skips_values_by_their_brackets(void **state) {
    (void)state;
    check_skip(" 12 ,3", "12");
    check_skip("true}", "true");
    check_skip("\"a\\\"]\",1", "\"a\\\"]\"");
    check_skip("[1,[2,{\"]\":\"}\"}],3] ]", "[1,[2,{\"]\":\"}\"}],3]");
    check_skip("{}{}", "{}");
    static const char *const rows[] = { "", " ", "]", ",", "[1", "{\"a\":[}", "\"a", "[\"a", "\"\\" };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct json_scan scan = scan_text(rows[i]);
        struct json_scan skipped;
        assert_false(json_scan_skip(&scan, &skipped));
        assert_true(scan.at <= scan.end);
    }
}

static void scan_finds_members_of_the_outer_object(void **state) {
    (void)state;
    struct json_scan value;
    const char *json = "{\"a\": {\"b\": 1}, \"b\" : [2], \"bb\":3 }";
    assert_true(json_scan_member(scan_text(json), "b", &value));
    assert_memory_equal(value.at, "[2]", 3);
    assert_true(json_scan_member(scan_text(json), "bb", &value));
    assert_int_equal(value.end - value.at, 1);
    assert_false(json_scan_member(scan_text(json), "c", &value));
    assert_false(json_scan_member(scan_text(json), "", &value));
    static const char *const rows[] = {
        "", "[]", "{}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{\"a\" \"b\":1}"
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_false(json_scan_member(scan_text(rows[i]), "b", &value));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scan_reads_strings_and_escapes),
        cmocka_unit_test(scan_refuses_broken_strings),
        cmocka_unit_test(scan_refuses_strings_beyond_their_limit),
        cmocka_unit_test(scan_reads_whole_numbers_only),
        cmocka_unit_test(scan_skips_values_by_their_brackets),
        cmocka_unit_test(scan_finds_members_of_the_outer_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
