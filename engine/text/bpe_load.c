/* tokenizer.json to tables. What a file asks for is done exactly or refused with a sentence: never ids that are slightly off. */
#include <inttypes.h>
#include <string.h>

#include "io/json_text.h"
#include "text/bpe_load.h"
#include "text/unicode.h"

static const char *read_type(const json_t *object) {
    const char *type = json_string_value(json_object_get(object, "type"));
    return type == NULL ? "" : type;
}

static bool is_absent(const json_t *value) {
    return value == NULL || json_is_null(value);
}

/* ---- The steps around the model ---- */

static enum cyi_status read_normalizer(struct bpe_loader *loader, const json_t *normalizer) {
    loader->bpe->composes = !is_absent(normalizer);
    if (is_absent(normalizer) || strcmp(read_type(normalizer), "NFC") == 0) {
        return CYI_OK;
    }
    return error_set(loader->err, CYI_E_FORMAT, "%s: the normalizer \"%.60s\" is not supported, only NFC or none",
                     loader->name, read_type(normalizer));
}

static enum cyi_status read_split(struct bpe_loader *loader, const json_t *split) {
    const json_t *pattern = json_object_get(json_object_get(split, "pattern"), "Regex");
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    if (!json_is_string(pattern)) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: the pre-tokenizer \"Split\" has no \"Regex\" pattern",
                         loader->name);
    }
    if (behavior == NULL || strcmp(behavior, "Isolated") != 0 || json_is_true(json_object_get(split, "invert"))) {
        return error_set(loader->err, CYI_E_FORMAT,
                         "%s: the pre-tokenizer \"Split\" must be \"Isolated\" and not inverted", loader->name);
    }
    if (loader->bpe->presplit != NULL) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: two pre-tokenizers \"Split\" are not supported", loader->name);
    }
    return presplit_compile(loader->bpe->allocator, loader->name, json_string_value(pattern),
                            json_string_length(pattern), &loader->bpe->presplit, loader->err);
}

static enum cyi_status check_byte_level(struct bpe_loader *loader, const json_t *step) {
    if (strcmp(read_type(step), "ByteLevel") != 0) {
        return error_set(loader->err, CYI_E_FORMAT,
                         "%s: the pre-tokenizer \"%.60s\" is not supported, only \"Split\" and then \"ByteLevel\"",
                         loader->name, read_type(step));
    }
    if (!json_is_false(json_object_get(step, "add_prefix_space")) ||
        !json_is_false(json_object_get(step, "use_regex"))) {
        return error_set(loader->err, CYI_E_FORMAT,
                         "%s: the pre-tokenizer \"ByteLevel\" must have add_prefix_space and use_regex false",
                         loader->name);
    }
    return CYI_OK;
}

static enum cyi_status read_pre_tokenizer(struct bpe_loader *loader, const json_t *pre_tokenizer) {
    if (strcmp(read_type(pre_tokenizer), "Sequence") != 0) {
        return check_byte_level(loader, pre_tokenizer);
    }
    const json_t *steps = json_object_get(pre_tokenizer, "pretokenizers");
    size_t n = json_array_size(steps);
    if (n == 0) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: the pre-tokenizer \"Sequence\" is empty", loader->name);
    }
    for (size_t i = 0; i + 1 < n; i++) {
        const json_t *step = json_array_get(steps, i);
        if (strcmp(read_type(step), "Split") != 0) {
            return error_set(loader->err, CYI_E_FORMAT,
                             "%s: step %zu of the pre-tokenizer is \"%.60s\", it must be \"Split\"", loader->name,
                             i + 1, read_type(step));
        }
        enum cyi_status st = read_split(loader, step);
        if (st != CYI_OK) {
            return st;
        }
    }
    return check_byte_level(loader, json_array_get(steps, n - 1));
}

/* Only one that adds no ids of its own. */
static enum cyi_status check_post_processor(struct bpe_loader *loader, const json_t *post) {
    bool adds = !is_absent(post) && strcmp(read_type(post), "ByteLevel") != 0;
    if (strcmp(read_type(post), "TemplateProcessing") == 0) {
        const json_t *single = json_object_get(post, "single");
        adds = json_array_size(single) != 1 || json_object_get(json_array_get(single, 0), "Sequence") == NULL;
    }
    if (adds) {
        return error_set(loader->err, CYI_E_FORMAT,
                         "%s: the post-processor \"%.60s\" adds tokens, which is not supported", loader->name,
                         read_type(post));
    }
    return CYI_OK;
}

static enum cyi_status check_decoder(struct bpe_loader *loader, const json_t *decoder) {
    if (is_absent(decoder) || strcmp(read_type(decoder), "ByteLevel") == 0) {
        return CYI_OK;
    }
    return error_set(loader->err, CYI_E_FORMAT, "%s: the decoder \"%.60s\" is not supported, only \"ByteLevel\"",
                     loader->name, read_type(decoder));
}

/* ---- The model ---- */

static enum cyi_status check_model(struct bpe_loader *loader, const json_t *model) {
    static const char *const empty[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    static const char *const off[] = { "byte_fallback", "ignore_merges" };
    if (strcmp(read_type(model), "BPE") != 0) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: the model \"%.60s\" is not supported, only \"BPE\"",
                         loader->name, read_type(model));
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_object_get(model, empty[i]);
        if (!is_absent(value) && json_string_length(value) != 0) {
            return error_set(loader->err, CYI_E_FORMAT, "%s: \"%s\" is not supported", loader->name, empty[i]);
        }
        value = json_object_get(model, off[i]);
        if (!is_absent(value) && !json_is_false(value)) {
            return error_set(loader->err, CYI_E_FORMAT, "%s: \"%s\" is not supported", loader->name, off[i]);
        }
    }
    const json_t *dropout = json_object_get(model, "dropout");
    if (!is_absent(dropout) && !(json_number_value(dropout) <= 0.0)) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: \"dropout\" is not supported", loader->name);
    }
    if (loader->vocabulary.at == NULL || loader->merges.at == NULL) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: the model lacks \"vocab\" or \"merges\"", loader->name);
    }
    return CYI_OK;
}

/* ---- Added tokens ---- */

/* Tokens looked for after NFC are looked for in their own composed form. */
static enum cyi_status copy_content(struct bpe_loader *loader, const char *content, size_t size, bool composed,
                                    struct added_token *token) {
    const struct cyi_allocator *allocator = loader->bpe->allocator;
    void *block = NULL;
    if (composed) {
        enum cyi_status st = unicode_compose(allocator, content, size, &content, &size, &block, loader->err);
        if (st != CYI_OK) {
            return st;
        }
    }
    token->content = mem_alloc(allocator, size);
    token->size_bytes = size;
    if (token->content != NULL) {
        memcpy(token->content, content, size);
    }
    mem_free(allocator, block);
    return token->content == NULL ? error_memory(loader->err, "an added token", size) : CYI_OK;
}

static enum cyi_status read_added_token(struct bpe_loader *loader, const json_t *entry, size_t i) {
    struct bpe *bpe = loader->bpe;
    const json_t *content = json_object_get(entry, "content");
    const char *text = json_string_value(content);
    size_t size = json_string_length(content);
    if (size == 0) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: added token %zu has no content", loader->name, i);
    }
    const json_t *id_value = json_object_get(entry, "id");
    struct added_token token = { .single_word = json_is_true(json_object_get(entry, "single_word")),
                                 .strips_left = json_is_true(json_object_get(entry, "lstrip")),
                                 .strips_right = json_is_true(json_object_get(entry, "rstrip")) };
    token.id = token_table_find(&bpe->vocabulary, text, size, "", 0);
    if (token.id >= 0 && json_integer_value(id_value) != token.id) {
        return error_set(loader->err, CYI_E_FORMAT,
                         "%s: added token %zu has another id in the vocabulary (%" PRId32 ")", loader->name, i,
                         token.id);
    }
    enum cyi_status st = CYI_OK;
    if (token.id < 0) {
        TRY(bpe_claim_id(loader, json_is_integer(id_value) ? json_integer_value(id_value) : -1, &token.id));
        token_table_add(&bpe->vocabulary, text, size, token.id);
    }
    bool composed = json_is_true(json_object_get(entry, "normalized"));
    struct added_set *set = composed ? &bpe->composed : &bpe->raw;
    TRY(copy_content(loader, text, size, composed && bpe->composes, &token));
    set->tokens[set->n++] = token;
done:
    return st;
}

static enum cyi_status read_added(struct bpe_loader *loader, const json_t *added) {
    struct bpe *bpe = loader->bpe;
    size_t n = json_array_size(added);
    enum cyi_status st = CYI_OK;
    if (n > 0) {
        bpe->raw.tokens = mem_alloc_zeroed(bpe->allocator, n, sizeof *bpe->raw.tokens);
        bpe->composed.tokens = mem_alloc_zeroed(bpe->allocator, n, sizeof *bpe->composed.tokens);
        if (bpe->raw.tokens == NULL || bpe->composed.tokens == NULL) {
            return error_memory(loader->err, "the added tokens of a tokenizer", 2 * n * sizeof *bpe->raw.tokens);
        }
    }
    for (size_t i = 0; i < n && st == CYI_OK; i++) {
        st = read_added_token(loader, json_array_get(added, i), i);
    }
    added_set_index(&bpe->raw);
    added_set_index(&bpe->composed);
    return st;
}

/* ---- The whole file ---- */

/* Everything but the two large lists, as a tree. */
static enum cyi_status read_tree(struct bpe_loader *loader, const json_t *root) {
    enum cyi_status st = CYI_OK;
    const json_t *added = json_object_get(root, "added_tokens");
    if (!is_absent(added) && !json_is_array(added)) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: \"added_tokens\" is not a list", loader->name);
    }
    TRY(check_model(loader, json_object_get(root, "model")));
    TRY(read_normalizer(loader, json_object_get(root, "normalizer")));
    TRY(read_pre_tokenizer(loader, json_object_get(root, "pre_tokenizer")));
    TRY(check_post_processor(loader, json_object_get(root, "post_processor")));
    TRY(check_decoder(loader, json_object_get(root, "decoder")));
    size_t added_bytes = 0;
    for (size_t i = 0; i < json_array_size(added); i++) {
        added_bytes += json_string_length(json_object_get(json_array_get(added, i), "content"));
    }
    TRY(bpe_read_vocabulary(loader, json_array_size(added), added_bytes));
    TRY(bpe_read_merges(loader));
    TRY(read_added(loader, added));
done:
    return st;
}

enum cyi_status bpe_read_json(struct bpe *bpe, const char *name, const char *json, size_t size_bytes,
                              struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    json_t *root = NULL;
    struct byte_buffer rest;
    byte_buffer_init(&rest, bpe->allocator, TOKENIZER_MAX_FILE_BYTES);
    struct bpe_loader loader = { .bpe = bpe, .name = name, .err = err };
    loader.scratch = mem_alloc(bpe->allocator, 2 * JSON_SCAN_STRING_MAX);
    loader.used = mem_alloc_zeroed(bpe->allocator, BPE_MAX_IDS / 8, 1);
    if (loader.used == NULL || loader.scratch == NULL) {
        st = error_memory(err, "reading a tokenizer", BPE_MAX_IDS / 8 + 2 * JSON_SCAN_STRING_MAX);
        goto done;
    }
    TRY(bpe_cut_lists(&loader, json, size_bytes, &rest));
    TRY(json_text_parse(name, (const char *)rest.data, rest.size_bytes, &root, err));
    TRY(read_tree(&loader, root));
done:
    json_decref(root);
    byte_buffer_done(&rest);
    mem_free(bpe->allocator, loader.scratch);
    mem_free(bpe->allocator, loader.used);
    return st;
}
