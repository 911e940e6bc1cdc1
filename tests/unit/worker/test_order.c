/* Which orders a worker takes: one good one of each type, and each member missing, of another type and outside its bounds. */
#include "order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>

static enum cyi_status check(const char *json, size_t body_bytes, struct cyi_error *err) {
    struct message message = { .header = json_loads(json, 0, NULL), .body_bytes = body_bytes };
    assert_non_null(message.header);
    message.type = json_string_value(json_object_get(message.header, "type"));
    const enum cyi_status st = order_check(&message, err);
    json_decref(message.header);
    return st;
}

static void takes_each_type(void **state) {
    static const char *const good[] = {
        "{\"type\":\"hello\",\"version\":1}",
        "{\"type\":\"generate\",\"id\":\"a\",\"model\":\"/m\",\"prompt\":\"\"}",
        "{\"type\":\"generate\",\"id\":\"a\",\"picture\":63,\"model\":\"/"
        "m\",\"prompt\":\"p\",\"negative_prompt\":null,\"width\":16384,"
        "\"height\":1,\"steps\":1000,\"guidance\":3,\"seed\":9007199254740991,\"strength\":1.0,\"n_references\":10,"
        "\"has_init\":true,"
        "\"has_mask\":false,\"wants_preview\":true,\"something_new\":[]}",
        "{\"type\":\"cancel\",\"id\":\"123456789012345678901234567890123456789012345678901234567890123\"}",
        "{\"type\":\"forget\",\"id\":\"a\"}",
        "{\"type\":\"describe\",\"path\":\"/m\"}",
        "{\"type\":\"unload\"}",
        "{\"type\":\"quit\"}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct cyi_error err = { 0 };
        if (check(good[i], 0, &err) != CYI_OK) {
            fail_msg("%s: %s", good[i], err.text);
        }
    }
    for (int index = 0; index < CYI_MAX_REFERENCES; index++) {
        char *input = text_format("{\"type\":\"input\",\"id\":\"a\",\"role\":\"reference\",\"index\":%d}", index);
        assert_int_equal(check(input, 100, NULL), CYI_OK);
        free(input);
    }
    assert_int_equal(check("{\"type\":\"input\",\"id\":\"a\",\"role\":\"init\"}", 100, NULL), CYI_OK);
    assert_int_equal(check("{\"type\":\"input\",\"id\":\"a\",\"role\":\"mask\",\"index\":0}", 100, NULL), CYI_OK);
}

struct bad {
    const char *json, *words;
};

#define GENERATE "{\"type\":\"generate\",\"id\":\"a\",\"model\":\"/m\",\"prompt\":\"p\","

static void says_what_is_wrong_with_an_order(void **state) {
    static const struct bad bad[] = {
        { "{\"type\":\"dance\"}", "there is no order \"dance\"" },
        { "{\"type\":\"\"}", "there is no order \"\"" },
        { "{\"type\":\"picture\",\"id\":\"a\"}", "there is no order \"picture\"" },
        { "{\"type\":\"hello\"}", "\"version\" is missing" },
        { "{\"type\":\"hello\",\"version\":1.0}", "\"version\" is not an integer" },
        { "{\"type\":\"generate\",\"model\":\"/m\",\"prompt\":\"p\"}", "\"id\" is missing" },
        { "{\"type\":\"generate\",\"id\":\"a\",\"prompt\":\"p\"}", "\"model\" is missing" },
        { "{\"type\":\"generate\",\"id\":\"a\",\"model\":\"/m\"}", "\"prompt\" is missing" },
        { "{\"type\":\"generate\",\"id\":\"a\",\"model\":\"/m\",\"prompt\":null}", "\"prompt\" is missing" },
        { "{\"type\":\"generate\",\"id\":\"a\",\"model\":\"\",\"prompt\":\"p\"}", "\"model\" has 0 bytes" },
        { GENERATE "\"width\":\"64\"}", "\"width\" is not an integer" },
        { GENERATE "\"width\":4294967360}", "\"width\" is 4294967360; from 1 to 16384" },
        { GENERATE "\"height\":0}", "\"height\" is 0; from 1 to 16384" },
        { GENERATE "\"steps\":1001}", "\"steps\" is 1001; from 1 to 1000" },
        { GENERATE "\"guidance\":-1}", "\"guidance\" is -1; from 0 to 1000" },
        { GENERATE "\"guidance\":\"3\"}", "\"guidance\" is not a number" },
        { GENERATE "\"seed\":-1}", "\"seed\" is -1" },
        { GENERATE "\"seed\":9007199254740992}", "\"seed\" is 9007199254740992" },
        { GENERATE "\"strength\":1.5}", "\"strength\" is 1.5; from 0 to 1" },
        { GENERATE "\"picture\":-1}", "\"picture\" is -1" },
        { GENERATE "\"n_references\":11}", "\"n_references\" is 11; from 0 to 10" },
        { GENERATE "\"has_init\":1}", "\"has_init\" is not true or false" },
        { GENERATE "\"has_mask\":\"yes\"}", "\"has_mask\" is not true or false" },
        { GENERATE "\"wants_preview\":0}", "\"wants_preview\" is not true or false" },
        { GENERATE "\"negative_prompt\":1}", "\"negative_prompt\" is not a text" },
        { "{\"type\":\"input\",\"id\":\"a\"}", "\"role\" is missing" },
        { "{\"type\":\"input\",\"id\":\"a\",\"role\":\"frame\"}", "not reference, init or mask" },
        { "{\"type\":\"input\",\"id\":\"a\",\"role\":\"reference\",\"index\":10}", "\"index\" is 10; from 0 to 9" },
        { "{\"type\":\"input\",\"id\":\"a\",\"role\":\"reference\",\"index\":-1}", "\"index\" is -1" },
        { "{\"type\":\"input\",\"id\":\"a\",\"role\":\"mask\",\"index\":1}", "one picture as mask" },
        { "{\"type\":\"cancel\"}", "\"id\" is missing" },
        { "{\"type\":\"cancel\",\"id\":\"\"}", "\"id\" has 0 bytes; from 1 to 63" },
        { "{\"type\":\"cancel\",\"id\":\"1234567890123456789012345678901234567890123456789012345678901234\"}",
          "\"id\" has 64 bytes; from 1 to 63" },
        { "{\"type\":\"forget\",\"id\":7}", "\"id\" is not a text" },
        { "{\"type\":\"describe\"}", "\"path\" is missing" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct cyi_error err = { 0 };
        if (check(bad[i].json, 0, &err) != CYI_E_ARGUMENT || strstr(err.text, bad[i].words) == NULL) {
            fail_msg("%s: \"%s\" does not say \"%s\"", bad[i].json, err.text, bad[i].words);
        }
    }
}

static void only_an_input_has_a_body(void **state) {
    struct cyi_error err = { 0 };
    (void)state;
    assert_int_equal(check("{\"type\":\"quit\"}", 5, &err), CYI_E_ARGUMENT);
    assert_non_null(strstr(err.text, "quit: has a body of 5 bytes"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_each_type),
        cmocka_unit_test(says_what_is_wrong_with_an_order),
        cmocka_unit_test(only_an_input_has_a_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
