/* The prompt template: golden prompts, cutting and padding, prompts and tokenizers that are refused, memory running out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "golden/golden.h"
#include "support/failing_allocator.h"
#include "support/tokenizer_json.h"
#include "text/chat_template.h"

#define N_IDS 512
#define TEMPLATE_TOKENS                                                                                                \
    "{\"id\":301,\"content\":\"<|im_start|>\"},{\"id\":302,\"content\":\"<|im_end|>\"},"                               \
    "{\"id\":303,\"content\":\"<think>\"},{\"id\":304,\"content\":\"</think>\"}"
#define ALL_TOKENS "[{\"id\":300,\"content\":\"<|endoftext|>\"}," TEMPLATE_TOKENS "]"

static struct bpe *open_qwen(void) {
    char command[4200];
    (void)snprintf(command, sizeof command, "xz -dc '%s'", fixture_path("golden/tokenizer-qwen/tokenizer.json.xz"));
    FILE *pipe = popen(command, "r");
    char *text = malloc(TOKENIZER_MAX_FILE_BYTES);
    assert_non_null(pipe);
    assert_non_null(text);
    size_t size = fread(text, 1, TOKENIZER_MAX_FILE_BYTES, pipe);
    assert_int_equal(pclose(pipe), 0);
    struct bpe *bpe = NULL;
    struct cyi_error err = { 0 };
    if (bpe_parse(&mem_default_allocator, "tokenizer.json", text, size, &bpe, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    free(text);
    return bpe;
}

static struct bpe *parse(const struct cyi_allocator *allocator, const char *added_tokens) {
    size_t size;
    char *json = tokenizer_json(&(struct tokenizer_parts){ .added_tokens = added_tokens }, &size);
    struct bpe *bpe = NULL;
    struct cyi_error err = { 0 };
    if (bpe_parse(allocator, "some.json", json, size, &bpe, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    free(json);
    return bpe;
}

static void check_golden_line(const struct bpe *bpe, const char *line, size_t number) {
    json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
    const json_t *golden = json_object_get(row, "ids");
    int32_t ids[N_IDS];
    size_t used = 0;
    size_t full = 0;
    struct cyi_error err = { 0 };
    if (chat_template_encode(bpe, &mem_default_allocator, json_string_value(json_object_get(row, "prompt")), ids, N_IDS,
                             &used, &full, &err) != CYI_OK) {
        fail_msg("line %zu: %s", number, err.text);
    }
    assert_int_equal(json_array_size(golden), N_IDS);
    assert_int_equal(used, json_integer_value(json_object_get(row, "used")));
    assert_int_equal(full, json_integer_value(json_object_get(row, "tokens")));
    for (size_t i = 0; i < N_IDS; i++) {
        if (ids[i] != json_integer_value(json_array_get(golden, i))) {
            fail_msg("line %zu, id %zu is %d", number, i, ids[i]);
        }
    }
    json_decref(row);
}

static void template_gives_the_golden_ids_of_every_prompt(void **state) {
    (void)state;
    struct bpe *bpe = open_qwen();
    FILE *file = fopen(fixture_path("golden/tokenizer-qwen/prompts.jsonl"), "r");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0;
    size_t n = 0;
    while (getline(&line, &capacity, file) > 0) {
        check_golden_line(bpe, line, ++n);
    }
    assert_int_equal(n, 22);
    free(line);
    (void)fclose(file);
    bpe_free(bpe);
}

static void check_run(const struct bpe *bpe, const struct safetensors *golden, const char *name, const char *prompt) {
    const struct tensor expected = golden_tensor(golden, name);
    const int64_t *expected_ids = expected.data;
    int32_t ids[64];
    size_t used = 0;
    size_t full = 0;
    struct cyi_error err = { 0 };
    assert_int_equal(chat_template_encode(bpe, &mem_default_allocator, prompt, ids, 64, &used, &full, &err), CYI_OK);
    for (size_t i = 0; i < 64; i++) {
        if (ids[i] != expected_ids[i]) {
            fail_msg("%s: id %zu is %d", name, i, ids[i]);
        }
    }
}

static void template_gives_the_ids_of_the_golden_runs(void **state) {
    (void)state;
    struct bpe *bpe = NULL;
    struct cyi_error err = { 0 };
    if (bpe_load(&mem_default_allocator, fixture_path("golden/flux2-klein/tokenizer"), &bpe, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    struct safetensors *golden = golden_open("flux2-klein");
    json_t *about = json_load_file(fixture_path("golden/flux2-klein/golden.json"), 0, NULL);
    static const char *const runs[] = { "square", "wide", "long" };
    for (size_t i = 0; i < 3; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "%s.tokens.ids", runs[i]);
        const json_t *run = json_object_get(json_object_get(about, "runs"), runs[i]);
        check_run(bpe, golden, name, json_string_value(json_object_get(run, "prompt")));
    }
    json_decref(about);
    safetensors_close(golden);
    bpe_free(bpe);
}

/* Without merges every byte of the template is an id: 1 + 5 bytes before the prompt, 2 + 1 + … after it. */
static void template_cuts_and_pads_on_the_right(void **state) {
    (void)state;
    struct bpe *bpe = parse(&mem_default_allocator, ALL_TOKENS);
    int32_t ids[64];
    size_t used = 0;
    size_t full = 0;
    assert_int_equal(chat_template_encode(bpe, &mem_default_allocator, "ab", ids, 64, &used, &full, NULL), CYI_OK);
    static const int32_t all[] = { 301, 'u', 's', 'e', 'r', '\n', 'a',  'b', 302,  '\n', 301, 'a',  's', 's',
                                   'i', 's', 't', 'a', 'n', 't',  '\n', 303, '\n', '\n', 304, '\n', '\n' };
    size_t n_all = sizeof all / sizeof all[0];
    assert_int_equal(used, n_all);
    assert_int_equal(full, n_all);
    assert_memory_equal(ids, all, sizeof all);
    for (size_t i = n_all; i < 64; i++) {
        assert_int_equal(ids[i], 300);
    }
    ids[8] = -5;
    assert_int_equal(chat_template_encode(bpe, &mem_default_allocator, "ab", ids, 8, &used, &full, NULL), CYI_OK);
    assert_int_equal(used, 8);
    assert_int_equal(full, n_all);
    assert_memory_equal(ids, all, 8 * sizeof ids[0]);
    assert_int_equal(ids[8], -5); /* nothing written behind n_max */
    assert_int_equal(chat_template_encode(bpe, &mem_default_allocator, "ab", NULL, 0, &used, &full, NULL), CYI_OK);
    assert_int_equal(used, 0);
    bpe_free(bpe);
}

static void template_counts_bytes_of_a_fault_from_the_start_of_the_prompt(void **state) {
    (void)state;
    struct bpe *bpe = parse(&mem_default_allocator, ALL_TOKENS);
    int32_t ids[8];
    size_t used = 99;
    size_t full = 99;
    struct cyi_error err = { 0 };
    assert_int_equal(chat_template_encode(bpe, &mem_default_allocator, "ab\xff", ids, 8, &used, &full, &err),
                     CYI_E_ARGUMENT);
    assert_string_equal(err.text, "the prompt is not valid UTF-8 at byte 2");
    assert_int_equal(used, 99);
    assert_int_equal(full, 99);
    bpe_free(bpe);
}

static void template_refuses_a_tokenizer_that_lacks_one_of_its_tokens(void **state) {
    (void)state;
    static const struct {
        const char *added, *missing;
    } rows[] = {
        { NULL, "<|im_start|>" },
        { "[" TEMPLATE_TOKENS "]", "<|endoftext|>" },
        { "[{\"id\":301,\"content\":\"<|im_start|>\"},{\"id\":302,\"content\":\"<|im_end|>\"}]", "<think>" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bpe *bpe = parse(&mem_default_allocator, rows[i].added);
        int32_t ids[8];
        size_t used;
        size_t full;
        struct cyi_error err = { 0 };
        assert_int_equal(chat_template_encode(bpe, &mem_default_allocator, "a", ids, 8, &used, &full, &err),
                         CYI_E_FORMAT);
        assert_non_null(strstr(err.text, rows[i].missing));
        bpe_free(bpe);
    }
}

static void template_survives_every_failed_allocation(void **state) {
    (void)state;
    struct failing_allocator owner; /* the tokenizer's allocator: another one than the call's */
    failing_allocator_init(&owner, 0);
    struct bpe *bpe = parse(&owner.allocator, ALL_TOKENS);
    size_t n_live = owner.n_live;
    size_t n_failed = 0;
    for (bool passed = false; !passed;) {
        struct failing_allocator failing;
        failing_allocator_init(&failing, n_failed + 1);
        owner.n_calls = 0;
        owner.fail_at = n_failed + 1;
        int32_t ids[64];
        size_t used;
        size_t full;
        struct cyi_error err = { 0 };
        enum cyi_status st = chat_template_encode(bpe, &failing.allocator, "a e\xcc\x81", ids, 64, &used, &full, &err);
        assert_true(st == CYI_OK || st == CYI_E_MEMORY);
        assert_int_equal(failing.n_live, 0);
        assert_int_equal(owner.n_live, n_live);
        passed = st == CYI_OK;
        n_failed += !passed;
    }
    assert_in_range(n_failed, 4, 100);
    bpe_free(bpe);
    assert_int_equal(owner.n_live, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(template_gives_the_golden_ids_of_every_prompt),
        cmocka_unit_test(template_gives_the_ids_of_the_golden_runs),
        cmocka_unit_test(template_cuts_and_pads_on_the_right),
        cmocka_unit_test(template_counts_bytes_of_a_fault_from_the_start_of_the_prompt),
        cmocka_unit_test(template_refuses_a_tokenizer_that_lacks_one_of_its_tokens),
        cmocka_unit_test(template_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
