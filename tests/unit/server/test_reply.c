/* Replies of language models: the same text however the bytes are cut, bounded, cleaned. */
#include "enrich/reply.h"
#include "enrich/reply_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h needs those above. */
#include <cmocka.h>

static const char stream[] =
    "\xef\xbb\xbf: hello\r\n\r\n"
    "data: {\"model\":\"m-1\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\r\n\r\n"
    "data:{\"choices\":[{\"delta\":{\"content\":\"Grün \"}}]}\n\n"
    "event: message\rdata: {\"choices\":[{\"delta\":{\"content\":[{\"type\":\"text\",\"text\":\"und "
    "\"},{\"type\":\"image\"}]}}]}\r\r"
    "data: {\"choices\":[],\"usage\":{}}\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"blau\"},\"finish_reason\":\"stop\"}]}\n\n"
    "data: [DONE]";

static void any_cut_gives_the_same_text(void **state) {
    (void)state;
    for (size_t piece = 1; piece <= sizeof stream; piece++) {
        struct reply reply = { 0 };
        struct problem problem = { 0 };
        for (size_t at = 0; at < sizeof stream - 1; at += piece) {
            const size_t n = sizeof stream - 1 - at < piece ? sizeof stream - 1 - at : piece;
            assert_int_equal(reply_feed(&reply, stream + at, n, &problem), PROBLEM_NONE);
        }
        assert_int_equal(reply_end(&reply, &problem), PROBLEM_NONE);
        assert_string_equal(reply_text(&reply), "Grün und blau");
        assert_string_equal(reply.model, "m-1");
        reply_free(&reply);
    }
}

static enum problem_code read_all(const char *text, struct problem *problem) {
    struct reply reply = { 0 };
    enum problem_code st = reply_feed(&reply, text, strlen(text), problem);
    st = st == PROBLEM_NONE ? reply_end(&reply, problem) : st;
    reply_free(&reply);
    return st;
}

static void faults_are_told_apart(void **state) {
    static const struct {
        const char *text, *words;
    } cases[] = {
        { "", "is empty" },
        { "  \n", "not a chat completion" },
        { "hello", "not a chat completion" },
        { "{\"choices\":[]}", "no text" },
        { "{\"choices\":", "cannot be read" },
        { "{} x", "cannot be read" },
        { "data: 17\n\n", "cannot be read" },
        { "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", "cut off" },
        { "data: {\"error\":\"no\\nmore\"}\n\n", "gave up within its reply: no more" },
        { "{\"choices\":[{\"message\":{\"content\":\"\"},\"finish_reason\":\"content_filter\"}]}", "filter" },
        { "{\"choices\":[{\"message\":{\"content\":\"<think>only thoughts</think>\"}}]}", "no text" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct problem problem = { 0 };
        assert_int_equal(read_all(cases[i].text, &problem), PROBLEM_UPSTREAM);
        if (strstr(problem.detail, cases[i].words) == NULL) {
            fail_msg("\"%s\" gives: %s", cases[i].text, problem.detail);
        }
    }
}

static void a_fault_stays(void **state) {
    struct reply reply = { 0 };
    struct problem first = { 0 }, second = { 0 }, third = { 0 };
    (void)state;
    assert_int_equal(reply_feed(&reply, "data: x\n", 8, &first), PROBLEM_UPSTREAM);
    assert_int_equal(reply_feed(&reply, stream, sizeof stream - 1, &second), PROBLEM_UPSTREAM);
    assert_int_equal(reply_end(&reply, &third), PROBLEM_UPSTREAM);
    assert_string_equal(first.detail, second.detail);
    assert_string_equal(first.detail, third.detail);
    reply_free(&reply);
}

static void too_much_is_refused(void **state) {
    static const char event[] =
        "data: {\"choices\":[{\"delta\":{\"content\":\"0123456789012345678901234567890123456789\"}}]}\n";
    struct reply reply = { 0 };
    struct problem problem = { 0 };
    size_t n = 0;
    (void)state;
    while (reply_feed(&reply, event, sizeof event - 1, &problem) == PROBLEM_NONE) {
        n += sizeof event - 1;
        assert_true(n <= REPLY_MAX_BYTES);
    }
    assert_true(reply.text.n < REPLY_MAX_TEXT);
    reply_free(&reply);
}

static void texts_are_cleaned(void **state) {
    static const struct {
        const char *text, *clean;
    } cases[] = {
        { "", "" },
        { "  A  cat \n\n on\ta roof. ", "A cat on a roof." },
        { "<think>hm\n</think>A cat.", "A cat." },
        { "I should write\n</think>\nA cat.", "A cat." },
        { "A cat.<THINKING>more</THINKING> Done.", "A cat. Done." },
        { "<think>never ends", "" },
        { "\"A cat.\"", "A cat." },
        { "“A cat.”", "A cat." },
        { "A sign that says \"OPEN\"", "A sign that says \"OPEN\"" },
        { "\"OPEN\" on a sign, \"CLOSED\" below", "\"OPEN\" on a sign, \"CLOSED\" below" },
        { "```\nA cat.\n```", "A cat." },
        { "```text\nA cat.\n```", "A cat." },
        { "**Prompt:** A cat.", "A cat." },
        { "Enriched prompt: \"A cat.\"", "A cat." },
        { "A\x1b[31m cat\x07 \xe2\x80\xaeon\xc2\x85 a\xef\xbb\xbf roof", "A[31m cat on a roof" },
        { "3 < 4 and 5 > 4", "3 < 4 and 5 > 4" },
        { "2 * 3 is *six*", "2 * 3 is *six*" },
        { "a\xff\xfe", "a??" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *clean = reply_clean(cases[i].text, true);
        assert_string_equal(clean, cases[i].clean);
        free(clean);
    }
}

/* Bytes that come one by one: what is shown is never taken back. */
static void what_is_shown_of_a_beginning_stays(void **state) {
    static const char *const texts[] = { "<think>\nThey want a cat.</think>\n\n\"A cat on a **warm** roof.\"",
                                         "```text\nA cat.\n```", "A sign that says \"OPEN\" over a door.",
                                         "Ein “grüner” Bär <b>tanzt</b>." };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char *whole = reply_clean(texts[i], true);
        for (size_t n = 0; n <= strlen(texts[i]); n++) {
            char *part = text_format("%.*s", (int)n, texts[i]);
            while (n > 0 && !text_is_utf8(part)) { /* the reply holds whole characters, as its JSON does */
                part[strlen(part) - 1] = '\0';
            }
            char *shown = reply_clean(part, false);
            if (strncmp(whole, shown, strlen(shown)) != 0 && strstr(texts[i], "</think>") == NULL) {
                fail_msg("\"%s\" does not go on \"%s\"", whole, shown);
            }
            free(shown);
            free(part);
        }
        free(whole);
    }
}

static void long_texts_end_after_a_sentence(void **state) {
    char *text = text_alloc(20001, 1);
    (void)state;
    for (size_t i = 0; i < 20000; i += 20) {
        memcpy(text + i, "Äine Sätze lang rot. ", 20);
    }
    text[20000] = '\0';
    char *clean = reply_clean(text, true);
    size_t n = 0;
    for (const char *c = clean; *c != '\0'; c++) {
        n += ((unsigned char)*c & 0xc0) != 0x80;
    }
    assert_true(n <= REPLY_MAX_CHARACTERS && n > REPLY_MAX_CHARACTERS / 2);
    assert_true(text_is_utf8(clean));
    free(clean);
    free(text);
}

static void errors_are_quoted_without_the_key(void **state) {
    static const struct {
        const char *body, *words;
    } cases[] = {
        { "{\"error\":{\"message\":\"bad key sk-12345 here\"}}", "bad key ******** here" },
        { "{\"error\":\"no\\u001b[1m credit\"}", "no[1m credit" },
        { "{\"message\":\"one\"}", "one" },
        { "{\"detail\":\"two\"}", "two" },
        { "[{\"error\":{\"message\":\"three\"}}]", "three" },
        { "<html>", "" },
        { "", "" },
        { "{\"error\":17}", "" },
    };
    char words[128], small[6];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(reply_error_text(cases[i].body, strlen(cases[i].body), "sk-12345", words, sizeof words),
                            cases[i].words);
    }
    assert_string_equal(reply_error_text("{\"message\":\"abcdé\"}", 20, NULL, small, sizeof small), "abcd");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_cut_gives_the_same_text),
        cmocka_unit_test(faults_are_told_apart),
        cmocka_unit_test(a_fault_stays),
        cmocka_unit_test(too_much_is_refused),
        cmocka_unit_test(texts_are_cleaned),
        cmocka_unit_test(what_is_shown_of_a_beginning_stays),
        cmocka_unit_test(long_texts_end_after_a_sentence),
        cmocka_unit_test(errors_are_quoted_without_the_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
