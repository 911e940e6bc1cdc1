/* Byte-level BPE: ids equal to the reference tokenizer's, files that are refused, invalid text, memory running out, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <pthread.h>

#include "golden/golden.h"
#include "support/failing_allocator.h"
#include "support/tokenizer_json.h"
#include "text/bpe.h"

#define N_THREADS 2
#define BIG_BYTES 1000000

static struct bpe *qwen; /* the published tokenizer, read once for the whole program */

/* ---- Helpers ---- */

static int open_qwen(void **state) {
    (void)state;
    char command[4200];
    (void)snprintf(command, sizeof command, "xz -dc '%s'", fixture_path("golden/tokenizer-qwen/tokenizer.json.xz"));
    FILE *pipe = popen(command, "r");
    char *text = malloc(TOKENIZER_MAX_FILE_BYTES);
    struct cyi_error err = { 0 };
    if (pipe == NULL || text == NULL) {
        return -1;
    }
    size_t size = fread(text, 1, TOKENIZER_MAX_FILE_BYTES, pipe);
    int result = pclose(pipe);
    if (result == 0 && bpe_parse(&mem_default_allocator, "tokenizer.json", text, size, &qwen, &err) != CYI_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
        result = -1;
    }
    free(text);
    return result;
}

static int close_qwen(void **state) {
    (void)state;
    bpe_free(qwen);
    return 0;
}

static struct bpe *parse(const struct tokenizer_parts *parts) {
    size_t size;
    char *json = tokenizer_json(parts, &size);
    struct bpe *bpe = NULL;
    struct cyi_error err = { 0 };
    if (bpe_parse(&mem_default_allocator, "some.json", json, size, &bpe, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    free(json);
    return bpe;
}

/* The ids of a text as "1 2 3", in a buffer that the next call uses again. */
static const char *encode(const struct bpe *bpe, const char *text, size_t size) {
    static char line[4096];
    int32_t *ids = NULL;
    size_t n = 0;
    struct cyi_error err = { 0 };
    if (bpe_encode(bpe, text, size, &ids, &n, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    size_t used = 0;
    line[0] = '\0';
    for (size_t i = 0; i < n && used < sizeof line - 16; i++) {
        used += (size_t)snprintf(line + used, sizeof line - used, "%s%d", i == 0 ? "" : " ", ids[i]);
    }
    mem_free(&mem_default_allocator, ids);
    return line;
}

static void check_ids(const struct bpe *bpe, const char *text, const char *ids) {
    assert_string_equal(encode(bpe, text, strlen(text)), ids);
}

static void check_refused(const struct tokenizer_parts *parts, const char *rule) {
    size_t size;
    char *json = tokenizer_json(parts, &size);
    struct bpe *bpe = NULL;
    struct cyi_error err = { 0 };
    assert_int_equal(bpe_parse(&mem_default_allocator, "some.json", json, size, &bpe, &err), CYI_E_FORMAT);
    assert_null(bpe);
    if (strstr(err.text, "some.json") == NULL || strstr(err.text, rule) == NULL) {
        fail_msg("\"%s\" does not name the file and say \"%s\"", err.text, rule);
    }
    free(json);
}

/* ---- Equal ids ---- */

static void check_golden_line(const char *line, size_t number) {
    json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
    const json_t *text = json_object_get(row, "text");
    const json_t *golden = json_object_get(row, "ids");
    int32_t *ids = NULL;
    size_t n = 0;
    struct cyi_error err = { 0 };
    if (bpe_encode(qwen, json_string_value(text), json_string_length(text), &ids, &n, &err) != CYI_OK) {
        fail_msg("line %zu: %s", number, err.text);
    }
    assert_int_equal(n, json_array_size(golden));
    for (size_t i = 0; i < n; i++) {
        if (ids[i] != json_integer_value(json_array_get(golden, i))) {
            fail_msg("line %zu, id %zu: %d is not %d", number, i, ids[i],
                     (int)json_integer_value(json_array_get(golden, i)));
        }
    }
    mem_free(&mem_default_allocator, ids);
    json_decref(row);
}

static void bpe_gives_the_golden_ids_of_every_text(void **state) {
    (void)state;
    FILE *file = fopen(fixture_path("golden/tokenizer-qwen/texts.jsonl"), "r");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0;
    size_t n = 0;
    while (getline(&line, &capacity, file) > 0) {
        check_golden_line(line, ++n);
    }
    assert_int_equal(n, 422);
    free(line);
    (void)fclose(file);
}

static void bpe_reads_the_published_tokenizer(void **state) {
    (void)state;
    assert_int_equal(bpe_n_ids(qwen), 151669);
    assert_int_equal(bpe_token_id(qwen, "<|endoftext|>"), 151643);
    assert_int_equal(bpe_token_id(qwen, "</think>"), 151668);
    assert_int_equal(bpe_token_id(qwen, "!"), 0);
    assert_int_equal(bpe_token_id(qwen, "no such token"), -1);
    assert_int_equal(bpe_token_id(qwen, ""), -1);
}

static void bpe_encodes_with_the_bundled_tokenizer(void **state) {
    (void)state;
    struct bpe *bpe = NULL;
    struct cyi_error err = { 0 };
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/models/neon/tokenizer", getenv("CYI_SOURCE_ROOT"));
    if (bpe_load(&mem_default_allocator, path, &bpe, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    check_ids(bpe, "a neon green cat neon sign, wet street, violet skyline, rain",
              "64 272 411 623 272 316 11 468 467 11 437 327 11 321");
    check_ids(bpe, "A robot, it's 1985! \xc3\xa9 e\xcc\x81 \xe7\x8c\xab\n",
              "32 619 11 220 72 83 6 82 220 16 24 23 20 0 220 127 102 220 127 102 220 163 234 104 198");
    check_ids(bpe, "\xe1\x84\x82\xe1\x85\xa9\xe1\x86\xa7", "167 227 116 157 228 100");
    assert_int_equal(bpe_n_ids(bpe), 881);
    bpe_free(bpe);
}

static void bpe_opens_a_folder_or_a_file(void **state) {
    (void)state;
    static const char *const paths[] = { "golden/flux2-klein/tokenizer",
                                         "golden/flux2-klein/tokenizer/tokenizer.json" };
    for (size_t i = 0; i < 2; i++) {
        struct bpe *bpe = NULL;
        struct cyi_error err = { 0 };
        if (bpe_load(&mem_default_allocator, fixture_path(paths[i]), &bpe, &err) != CYI_OK) {
            fail_msg("%s", err.text);
        }
        assert_int_equal(bpe_n_ids(bpe), 453);
        bpe_free(bpe);
    }
}

static void bpe_merges_the_lowest_rank_first_and_then_from_the_left(void **state) {
    (void)state;
    struct bpe *bpe = parse(&(struct tokenizer_parts){
        .vocabulary = ",\"bc\":300,\"ab\":301,\"aa\":302,\"abc\":303,\"aaa\":304",
        .merges = "[\"b c\",[\"a\",\"b\"],[\"a\",\"a\"],\"ab c\",[\"aa\",\"a\"]]",
    });
    check_ids(bpe, "abc", "97 300"); /* "bc" comes before "ab" */
    check_ids(bpe, "ab", "301");
    check_ids(bpe, "aaa", "304");
    check_ids(bpe, "aaaa", "302 302"); /* from the left, and both before "aaa" */
    check_ids(bpe, "aaaaa", "302 304");
    check_ids(bpe, "aab", "97 301");
    check_ids(bpe, "a bc", "97 32 300"); /* words are merged apart */
    assert_int_equal(bpe_n_ids(bpe), 305);
    bpe_free(bpe);
}

static void bpe_lets_the_later_of_two_equal_merges_count(void **state) {
    (void)state;
    struct bpe *bpe = parse(
        &(struct tokenizer_parts){ .vocabulary = ",\"ab\":300,\"bc\":301", .merges = "[\"a b\",\"b c\",\"a b\"]" });
    check_ids(bpe, "abc", "97 301");
    bpe_free(bpe);
}

static void bpe_cuts_out_the_longest_added_token(void **state) {
    (void)state;
    struct bpe *bpe = parse(&(struct tokenizer_parts){
        .added_tokens =
            "[{\"id\":300,\"content\":\"<a>\"},{\"id\":301,\"content\":\"<a>b\"},{\"id\":60,\"content\":\"<\"},"
            "{\"id\":97,\"content\":\"a\"}]" });
    check_ids(bpe, "<a>", "300");
    check_ids(bpe, "<a>b<a>c", "301 300 99");
    check_ids(bpe, "<<a", "60 60 97");
    check_ids(bpe, "x<a", "120 60 97");
    assert_int_equal(bpe_token_id(bpe, "<a>b"), 301);
    bpe_free(bpe);
}

static void bpe_obeys_the_flags_of_added_tokens(void **state) {
    (void)state;
    struct bpe *bpe = parse(&(struct tokenizer_parts){
        .added_tokens =
            "[{\"id\":300,\"content\":\"<l>\",\"lstrip\":true},{\"id\":301,\"content\":\"<r>\",\"rstrip\":true},"
            "{\"id\":302,\"content\":\"word\",\"single_word\":true},"
            "{\"id\":303,\"content\":\"e\xcc\x81!\",\"normalized\":true},"
            "{\"id\":304,\"content\":\"\xc3\xa9?\",\"normalized\":false}]" });
    check_ids(bpe, "a \xe3\x80\x80<l> b", "97 300 32 98");
    check_ids(bpe,
              "a <r> \n\xc2\xa0"
              "b",
              "97 32 301 98");
    check_ids(bpe, "<r>  <l>", "301 300");
    check_ids(bpe, "a word, words \xc3\xa9word word",
              "97 32 302 44 32 119 111 114 100 115 32 195 169 119 111 114 100 32 302");
    check_ids(bpe, "\xc3\xa9!", "303"); /* found after NFC, in whichever form it was written */
    check_ids(bpe, "e\xcc\x81!", "303");
    check_ids(bpe, "\xc3\xa9?", "304"); /* found before NFC, as it is written only */
    check_ids(bpe, "e\xcc\x81?", "195 169 63");
    bpe_free(bpe);
}

static void bpe_composes_only_when_the_file_says_so(void **state) {
    (void)state;
    struct bpe *bpe = parse(&(struct tokenizer_parts){ .normalizer = "null" });
    check_ids(bpe, "e\xcc\x81", "101 204 129");
    bpe_free(bpe);
    bpe = parse(&(struct tokenizer_parts){ 0 });
    check_ids(bpe, "e\xcc\x81", "195 169");
    check_ids(bpe, "q\xcc\x87\xcc\xa3", "113 204 163 204 135"); /* marks are put in order */
    bpe_free(bpe);
}

#define SPLIT_BEFORE "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\""
#define SPLIT_AFTER                                                                                                    \
    "\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"
#define SPLIT(pattern) SPLIT_BEFORE pattern SPLIT_AFTER

static void bpe_splits_by_matches_and_by_what_lies_between(void **state) {
    (void)state;
    static const struct {
        const char *pre_tokenizer, *text, *ids;
    } rows[] = {
        { SPLIT("zzz"), "aabaa", "300 301 97" },
        { SPLIT("b"), "aabaa", "300 98 300" },
        { SPLIT("x*"), "aabaa", "97 97 98 97 97" }, /* an empty match cuts too */
        { SPLIT("(?<=a)(?=a)"), "aaba", "97 97 301" },
        { SPLIT("[ab]{2}"), "aabaa", "300 301 97" },
        { SPLIT("[]b]"), "aabaa", "300 98 300" },
        { SPLIT("[[:alpha:]\\\\s]"), "aa", "97 97" },
        { "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}", "aabaa", "300 301 97" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bpe *bpe = parse(&(struct tokenizer_parts){ .pre_tokenizer = rows[i].pre_tokenizer,
                                                           .vocabulary = ",\"aa\":300,\"ba\":301",
                                                           .merges = "[\"b a\",\"a a\"]" });
        check_ids(bpe, rows[i].text, rows[i].ids);
        bpe_free(bpe);
    }
}

static void bpe_takes_white_space_as_unicode_defines_it(void **state) {
    (void)state;
    static const char *const pre_tokenizers[] = { SPLIT("\\\\s"), SPLIT("[^\\\\s]+"), SPLIT("\\\\S+"),
                                                  SPLIT("[\\\\s-b]") };
    for (size_t i = 0; i < 4; i++) {
        struct bpe *bpe =
            parse(&(struct tokenizer_parts){ .pre_tokenizer = pre_tokenizers[i],
                                             .vocabulary = ",\"a\xc3\xa1\":300,\"a\xc3\xa2\":301,\"a-\":302",
                                             .merges = "[\"a \xc3\xa1\",\"a \xc3\xa2\",\"a -\"]" });
        check_ids(bpe, "a\xe1\xa0\x8e", "300 160 142");    /* U+180E is none since Unicode 6.3 */
        check_ids(bpe, "a\xe2\x80\x83", "97 226 128 131"); /* U+2003 is one */
        check_ids(bpe, "a-", i == 3 ? "97 45" : "302");    /* after \s in a class a hyphen is a hyphen */
        bpe_free(bpe);
    }
}

/* ---- Texts ---- */

static void bpe_gives_no_ids_for_an_empty_text(void **state) {
    (void)state;
    int32_t dummy = 0;
    int32_t *ids = &dummy;
    size_t n = 99;
    assert_int_equal(bpe_encode(qwen, "", 0, &ids, &n, NULL), CYI_OK);
    assert_int_equal(n, 0);
    assert_null(ids);
}

static void bpe_takes_nul_bytes_as_text(void **state) {
    (void)state;
    struct bpe *bpe = parse(&(struct tokenizer_parts){ 0 });
    assert_string_equal(encode(bpe, "a\0b\0", 4), "97 0 98 0");
    bpe_free(bpe);
}

static void bpe_refuses_invalid_utf8_and_says_where(void **state) {
    (void)state;
    static const struct {
        const char *text, *where;
    } rows[] = {
        { "\x80", "at byte 0" },
        { "ab\xff", "at byte 2" },
        { "\xc3\xa9\xc3", "at byte 2" },
        { "a\xc0\x80", "at byte 1" },         /* overlong */
        { "a\xe0\x80\x80", "at byte 1" },     /* overlong */
        { "a\xed\xa0\x80", "at byte 1" },     /* a surrogate */
        { "a\xf4\x90\x80\x80", "at byte 1" }, /* above U+10FFFF */
        { "a\xf0\x9f\x98", "at byte 1" },
        { "\xe7\x8c\xab\xe7\x8c", "at byte 3" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int32_t *ids = NULL;
        size_t n = 99;
        struct cyi_error err = { 0 };
        assert_int_equal(bpe_encode(qwen, rows[i].text, strlen(rows[i].text), &ids, &n, &err), CYI_E_ARGUMENT);
        assert_null(ids);
        assert_int_equal(n, 99);
        if (strstr(err.text, rows[i].where) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", err.text, rows[i].where);
        }
    }
}

static void check_big(const char *piece, const char *after, size_t expected) {
    size_t piece_size = strlen(piece);
    size_t n_pieces = BIG_BYTES / piece_size;
    size_t size = n_pieces * piece_size + strlen(after);
    char *text = malloc(size + 1);
    assert_non_null(text);
    for (size_t i = 0; i < n_pieces; i++) {
        memcpy(text + i * piece_size, piece, piece_size);
    }
    memcpy(text + n_pieces * piece_size, after, strlen(after));
    int32_t *ids = NULL;
    size_t n = 0;
    struct cyi_error err = { 0 };
    if (bpe_encode(qwen, text, size, &ids, &n, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(n, expected);
    mem_free(&mem_default_allocator, ids);
    free(text);
}

static void bpe_encodes_a_megabyte_of_anything(void **state) {
    (void)state;
    check_big("x", "", 125000); /* one word */
    check_big("abcdefghij", "", 200000);
    check_big(" ", "x", 7814);
    check_big("\n", "", 31250);
    check_big("\xe7\x8c\xab", "", 333333);
    check_big("\xcc\x81\xcc\xa3", "", 750000); /* marks in the wrong order */
    check_big("<|im_end|>", "", 100000);
    check_big("<|im_end", "", 500000);
    check_big("<", "", 125000);
}

static void bpe_gives_up_on_a_pattern_that_takes_too_long(void **state) {
    (void)state;
    struct bpe *bpe = parse(&(struct tokenizer_parts){ .pre_tokenizer = SPLIT("(a+)+[bc]") });
    int32_t *ids = NULL;
    size_t n = 0;
    struct cyi_error err = { 0 };
    assert_int_equal(bpe_encode(bpe, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 40, &ids, &n, &err), CYI_E_FORMAT);
    assert_non_null(strstr(err.text, "takes too long at byte 0"));
    assert_null(ids);
    bpe_free(bpe);
}

/* ---- Files that are refused ---- */

static void bpe_refuses_text_that_is_no_json_object(void **state) {
    (void)state;
    static const char *const texts[] = { "",
                                         "[]",
                                         "{\"model\":",
                                         "{\"model\":{}} x",
                                         "null",
                                         "{\"model\":\"\\ud800\"}",
                                         "{\"model\":{\"vocab\":{},\"vocab\":{}}}",
                                         "\xef\xbb\xbf{}",
                                         "{\"a\\u0000\":1}" };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct bpe *bpe = NULL;
        struct cyi_error err = { 0 };
        assert_int_equal(bpe_parse(&mem_default_allocator, "some.json", texts[i], strlen(texts[i]), &bpe, &err),
                         CYI_E_FORMAT);
        assert_null(bpe);
        assert_non_null(strstr(err.text, "some.json"));
    }
}

static void bpe_refuses_models_it_cannot_do(void **state) {
    (void)state;
    static const struct {
        const char *model, *rule;
    } rows[] = {
        { "", "model \"\"" },
        { "\"type\":\"Unigram\",", "\"Unigram\"" },
        { "\"type\":7,", "model \"\"" },
        { "\"type\":\"BPE\",\"byte_fallback\":true,", "byte_fallback" },
        { "\"type\":\"BPE\",\"ignore_merges\":true,", "ignore_merges" },
        { "\"type\":\"BPE\",\"ignore_merges\":1,", "ignore_merges" },
        { "\"type\":\"BPE\",\"dropout\":0.1,", "dropout" },
        { "\"type\":\"BPE\",\"continuing_subword_prefix\":\"##\",", "continuing_subword_prefix" },
        { "\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",", "end_of_word_suffix" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_refused(&(struct tokenizer_parts){ .model = rows[i].model }, rows[i].rule);
    }
    bpe_free(parse(&(struct tokenizer_parts){
        .model = "\"type\":\"BPE\",\"byte_fallback\":false,\"ignore_merges\":null,\"dropout\":null,\"unk_token\":\"a\","
                 "\"end_of_word_suffix\":\"\",\"continuing_subword_prefix\":null," }));
}

static void bpe_refuses_vocabularies_and_merges_that_break_rules(void **state) {
    (void)state;
    static const struct {
        const char *vocabulary, *merges, *rule;
    } rows[] = {
        { ",\"aa\":-1", NULL, "id is not a whole number" },
        { ",\"aa\":16777216", NULL, "id is not a whole number" },
        { ",\"aa\":4294967297", NULL, "id is not a whole number" },
        { ",\"aa\":300.0", NULL, "id is not a whole number" },
        { ",\"aa\":\"300\"", NULL, "id is not a whole number" },
        { ",\"aa\":null", NULL, "id is not a whole number" },
        { ",\"aa\":97", NULL, "two tokens have the id 97" },
        { ",\"aa\":300,\"aa\":301", NULL, "duplicate at entry 257" },
        { ",\"aa\":300,\"\\u0061a\":301", NULL, "duplicate at entry 257" },
        { ",\"aa\":300,", NULL, "\"vocab\" is not valid JSON" },
        { ",\"aa\" 300", NULL, "\"vocab\" is not valid JSON" },
        { ",\"a\na\":300", NULL, "\"vocab\" is not valid JSON" },
        { ",\"a\\u0000\":300", NULL, "\"vocab\" is not valid JSON" },
        { ",\"aa\":0300", NULL, "id is not a whole number" },
        { ",\"aa\":300", "[\"a a\",]", "merge 1 is neither" },
        { ",\"aa\":300", "[\"a a\" \"a a\"]", "merge 0 is neither" },
        { ",\"aa\":300", "{}", "lacks \"vocab\" or \"merges\"" },
        { ",\"aa\":300", "null", "lacks \"vocab\" or \"merges\"" },
        { ",\"aa\":300", "[\"aa\"]", "merge 0 is neither" },
        { ",\"aa\":300", "[\"a a\",\"a a a\"]", "merge 1 is neither" },
        { ",\"aa\":300", "[[\"a\"]]", "merge 0 is neither" },
        { ",\"aa\":300", "[[\"a\",\"a\",\"a\"]]", "merge 0 is neither" },
        { ",\"aa\":300", "[[\"a\",7]]", "merge 0 is neither" },
        { ",\"aa\":300", "[7]", "merge 0 is neither" },
        { ",\"aa\":300", "[\"a b\"]", "vocabulary lacks" },
        { ",\"aa\":300", "[\"aa aa\"]", "vocabulary lacks" },
        { ",\"aa\":300", "[\"\xe7\x8c\xab a\"]", "vocabulary lacks" },
        { ",\"aa\":300", "[\" a\"]", "vocabulary lacks" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_refused(&(struct tokenizer_parts){ .vocabulary = rows[i].vocabulary, .merges = rows[i].merges },
                      rows[i].rule);
    }
}

static void bpe_refuses_a_vocabulary_without_all_bytes(void **state) {
    (void)state;
    static const char json[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":"
                               "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}}";
    struct bpe *bpe = NULL;
    struct cyi_error err = { 0 };
    assert_int_equal(bpe_parse(&mem_default_allocator, "some.json", json, sizeof json - 1, &bpe, &err), CYI_E_FORMAT);
    assert_non_null(strstr(err.text, "no token for the byte 0x00"));
}

static void bpe_refuses_steps_it_cannot_do(void **state) {
    (void)state;
    static const char no_split[] =
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},{\"type\":\"ByteLevel\"}]}";
    static const struct {
        struct tokenizer_parts parts;
        const char *rule;
    } rows[] = {
        { { .normalizer = "{\"type\":\"NFKC\"}" }, "normalizer \"NFKC\"" },
        { { .normalizer = "[]" }, "normalizer \"\"" },
        { { .pre_tokenizer = "null" }, "pre-tokenizer \"\"" },
        { { .pre_tokenizer = "{\"type\":\"Whitespace\"}" }, "pre-tokenizer \"Whitespace\"" },
        { { .pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false}" },
          "add_prefix_space" },
        { { .pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}" }, "use_regex" },
        { { .pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[]}" }, "is empty" },
        { { .pre_tokenizer = "{\"type\":\"Sequence\"}" }, "is empty" },
        { { .pre_tokenizer = no_split }, "\"Digits\"" },
        { { .pre_tokenizer = SPLIT("(") }, "not understood" },
        { { .pre_tokenizer = SPLIT("\\\\C") }, "not understood" },
        { { .decoder = "{\"type\":\"WordPiece\"}" }, "decoder \"WordPiece\"" },
        { { .post_processor = "{\"type\":\"BertProcessing\"}" }, "post-processor \"BertProcessing\"" },
        { { .post_processor = "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}},"
                              "{\"Sequence\":{\"id\":\"A\"}}]}" },
          "adds tokens" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_refused(&rows[i].parts, rows[i].rule);
    }
}

#define STEP_SPLIT(members) "{\"type\":\"Split\"," members "},"

static void bpe_refuses_splits_it_cannot_do(void **state) {
    (void)state;
    static const struct {
        const char *steps, *rule;
    } rows[] = {
        { STEP_SPLIT("\"pattern\":{\"String\":\"a\"},\"behavior\":\"Isolated\""), "no \"Regex\" pattern" },
        { STEP_SPLIT("\"pattern\":\"a\",\"behavior\":\"Isolated\""), "no \"Regex\" pattern" },
        { STEP_SPLIT("\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Removed\""), "must be \"Isolated\"" },
        { STEP_SPLIT("\"pattern\":{\"Regex\":\"a\"}"), "must be \"Isolated\"" },
        { STEP_SPLIT("\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Isolated\",\"invert\":true"), "not inverted" },
        { STEP_SPLIT("\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Isolated\"")
              STEP_SPLIT("\"pattern\":{\"Regex\":\"b\"},\"behavior\":\"Isolated\""),
          "two pre-tokenizers" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char json[1024];
        (void)snprintf(json, sizeof json, "{\"type\":\"Sequence\",\"pretokenizers\":[%s{\"type\":\"ByteLevel\"}]}",
                       rows[i].steps);
        check_refused(&(struct tokenizer_parts){ .pre_tokenizer = json }, rows[i].rule);
    }
}

static void bpe_refuses_added_tokens_that_break_rules(void **state) {
    (void)state;
    static const struct {
        const char *added, *rule;
    } rows[] = {
        { "{}", "\"added_tokens\" is not a list" },
        { "[7]", "added token 0 has no content" },
        { "[{\"id\":300,\"content\":\"\"}]", "added token 0 has no content" },
        { "[{\"content\":\"<a>\"}]", "id is not a whole number" },
        { "[{\"id\":-1,\"content\":\"<a>\"}]", "id is not a whole number" },
        { "[{\"id\":97,\"content\":\"<a>\"}]", "two tokens have the id 97" },
        { "[{\"id\":98,\"content\":\"a\"}]", "another id in the vocabulary (97)" },
        { "[{\"id\":300,\"content\":\"<a>\"},{\"id\":301,\"content\":\"<a>\"}]", "another id in the vocabulary (300)" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_refused(&(struct tokenizer_parts){ .added_tokens = rows[i].added }, rows[i].rule);
    }
}

static void bpe_says_which_file_cannot_be_read(void **state) {
    (void)state;
    struct bpe *bpe = NULL;
    struct cyi_error err = { 0 };
    assert_int_equal(bpe_load(&mem_default_allocator, fixture_path("golden/nothing.json"), &bpe, &err), CYI_E_IO);
    assert_non_null(strstr(err.text, "nothing.json"));
    err = (struct cyi_error){ 0 };
    assert_int_equal(bpe_load(&mem_default_allocator, fixture_path("golden"), &bpe, &err), CYI_E_IO);
    assert_non_null(strstr(err.text, "golden/tokenizer.json"));
    assert_null(bpe);
}

/* ---- Memory and threads ---- */

static enum cyi_status parse_and_encode(const struct cyi_allocator *allocator, const char *json, size_t size) {
    /* A word beyond the first scratch and marks beyond a short run, so that every kind of block is asked for. */
    static const char text[] =
        "e\xcc\x81 <a> aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa "
        "o\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3"
        "\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3"
        "\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3\xcc\x81\xcc\xa3";
    struct bpe *bpe = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    struct cyi_error err = { 0 };
    enum cyi_status st = bpe_parse(allocator, "some.json", json, size, &bpe, &err);
    if (st == CYI_OK) {
        st = bpe_encode(bpe, text, sizeof text - 1, &ids, &n, &err);
    }
    if (st != CYI_OK) {
        assert_null(ids);
        assert_int_equal(err.code, st);
        assert_non_null(strstr(err.text, "memory"));
    }
    mem_free(allocator, ids);
    bpe_free(bpe);
    return st;
}

static void bpe_survives_every_failed_allocation(void **state) {
    (void)state;
    size_t size;
    char *json = tokenizer_json(
        &(struct tokenizer_parts){
            .vocabulary = ",\"aa\":300",
            .merges = "[\"a a\"]",
            .added_tokens =
                "[{\"id\":301,\"content\":\"<a>\"},{\"id\":302,\"content\":\"e\xcc\x81!\",\"normalized\":true}]" },
        &size);
    size_t n_failed = 0;
    struct failing_allocator failing;
    for (size_t fail_at = 1; fail_at == 1 || failing.n_calls >= failing.fail_at; fail_at++) {
        failing_allocator_init(&failing, fail_at);
        enum cyi_status st = parse_and_encode(&failing.allocator, json, size);
        assert_true(st == CYI_OK || st == CYI_E_MEMORY); /* OK: without the compiled form of the pattern it goes on */
        assert_int_equal(failing.n_live, 0);
        n_failed += st != CYI_OK;
        assert_true(fail_at < 1000);
    }
    assert_in_range(n_failed, 20, 1000);
    free(json);
}

static void *encode_repeatedly(void *argument) {
    size_t *n_wrong = argument;
    static const char text[] = "A red fox sleeps in the snow, soft light \xe7\x8c\xab e\xcc\x81 <|im_end|>";
    for (int i = 0; i < 200; i++) {
        int32_t *ids = NULL;
        size_t n = 0;
        enum cyi_status st = bpe_encode(qwen, text, sizeof text - 1, &ids, &n, NULL);
        *n_wrong += st != CYI_OK || n != 16 || ids[15] != 151645;
        mem_free(&mem_default_allocator, ids);
    }
    return NULL;
}

static void bpe_encodes_from_two_threads_at_once(void **state) {
    (void)state;
    pthread_t threads[N_THREADS];
    size_t n_wrong[N_THREADS] = { 0 };
    for (size_t i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, encode_repeatedly, &n_wrong[i]), 0);
    }
    for (size_t i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(n_wrong[i], 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bpe_gives_the_golden_ids_of_every_text),
        cmocka_unit_test(bpe_reads_the_published_tokenizer),
        cmocka_unit_test(bpe_encodes_with_the_bundled_tokenizer),
        cmocka_unit_test(bpe_opens_a_folder_or_a_file),
        cmocka_unit_test(bpe_merges_the_lowest_rank_first_and_then_from_the_left),
        cmocka_unit_test(bpe_lets_the_later_of_two_equal_merges_count),
        cmocka_unit_test(bpe_cuts_out_the_longest_added_token),
        cmocka_unit_test(bpe_obeys_the_flags_of_added_tokens),
        cmocka_unit_test(bpe_composes_only_when_the_file_says_so),
        cmocka_unit_test(bpe_splits_by_matches_and_by_what_lies_between),
        cmocka_unit_test(bpe_takes_white_space_as_unicode_defines_it),
        cmocka_unit_test(bpe_gives_no_ids_for_an_empty_text),
        cmocka_unit_test(bpe_takes_nul_bytes_as_text),
        cmocka_unit_test(bpe_refuses_invalid_utf8_and_says_where),
        cmocka_unit_test(bpe_encodes_a_megabyte_of_anything),
        cmocka_unit_test(bpe_gives_up_on_a_pattern_that_takes_too_long),
        cmocka_unit_test(bpe_refuses_text_that_is_no_json_object),
        cmocka_unit_test(bpe_refuses_models_it_cannot_do),
        cmocka_unit_test(bpe_refuses_vocabularies_and_merges_that_break_rules),
        cmocka_unit_test(bpe_refuses_a_vocabulary_without_all_bytes),
        cmocka_unit_test(bpe_refuses_steps_it_cannot_do),
        cmocka_unit_test(bpe_refuses_splits_it_cannot_do),
        cmocka_unit_test(bpe_refuses_added_tokens_that_break_rules),
        cmocka_unit_test(bpe_says_which_file_cannot_be_read),
        cmocka_unit_test(bpe_survives_every_failed_allocation),
        cmocka_unit_test(bpe_encodes_from_two_threads_at_once),
    };
    return cmocka_run_group_tests(tests, open_qwen, close_qwen);
}
