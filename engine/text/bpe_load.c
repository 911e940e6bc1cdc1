/* tokenizer.json to tables. What a file asks for is done exactly or refused with a sentence: never ids that are slightly off. */
#include <inttypes.h>
#include <string.h>

#include "io/json_text.h"
#include "text/bpe_private.h"
#include "text/unicode.h"

#define N_ID_BYTES (BPE_MAX_IDS / 8)

struct loader {
    struct bpe *bpe;
    const char *name;
    uint8_t *used; /* a bit for every id that is taken */
    struct cyi_error *err;
};

static const char *read_type(const json_t *object) {
    const char *type = json_string_value(json_object_get(object, "type"));
    return type == NULL ? "" : type;
}

static bool is_absent(const json_t *value) {
    return value == NULL || json_is_null(value);
}

/* ---- The steps around the model ---- */

static enum cyi_status read_normalizer(struct loader *loader, const json_t *normalizer) {
    loader->bpe->composes = !is_absent(normalizer);
    if (is_absent(normalizer) || strcmp(read_type(normalizer), "NFC") == 0) {
        return CYI_OK;
    }
    return error_set(loader->err, CYI_E_FORMAT, "%s: the normalizer \"%.60s\" is not supported, only NFC or none",
                     loader->name, read_type(normalizer));
}

static enum cyi_status read_split(struct loader *loader, const json_t *split) {
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

static enum cyi_status check_byte_level(struct loader *loader, const json_t *step) {
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

static enum cyi_status read_pre_tokenizer(struct loader *loader, const json_t *pre_tokenizer) {
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
static enum cyi_status check_post_processor(struct loader *loader, const json_t *post) {
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

static enum cyi_status check_decoder(struct loader *loader, const json_t *decoder) {
    if (is_absent(decoder) || strcmp(read_type(decoder), "ByteLevel") == 0) {
        return CYI_OK;
    }
    return error_set(loader->err, CYI_E_FORMAT, "%s: the decoder \"%.60s\" is not supported, only \"ByteLevel\"",
                     loader->name, read_type(decoder));
}

/* ---- The model ---- */

static enum cyi_status check_model(struct loader *loader, const json_t *model) {
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
    if (!json_is_object(json_object_get(model, "vocab")) || !json_is_array(json_object_get(model, "merges"))) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: the model lacks \"vocab\" or \"merges\"", loader->name);
    }
    return CYI_OK;
}

/* Checks an id, takes it and counts it. */
static enum cyi_status claim_id(struct loader *loader, const json_t *value, int32_t *ret_id) {
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= BPE_MAX_IDS) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: a token's id is not a whole number from 0 to %d", loader->name,
                         BPE_MAX_IDS - 1);
    }
    uint8_t bit = (uint8_t)(1 << (id & 7));
    if (loader->used[id >> 3] & bit) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: two tokens have the id %" PRId64, loader->name, (int64_t)id);
    }
    loader->used[id >> 3] |= bit;
    *ret_id = (int32_t)id;
    if (*ret_id >= loader->bpe->n_ids) {
        loader->bpe->n_ids = *ret_id + 1;
    }
    return CYI_OK;
}

static enum cyi_status read_vocabulary(struct loader *loader, const json_t *vocab, const json_t *added) {
    enum cyi_status st = CYI_OK;
    struct bpe *bpe = loader->bpe;
    size_t pool_bytes = 0;
    for (void *i = json_object_iter((json_t *)(uintptr_t)vocab); i != NULL;
         i = json_object_iter_next((json_t *)(uintptr_t)vocab, i)) {
        pool_bytes += strlen(json_object_iter_key(i));
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        pool_bytes += json_string_length(json_object_get(json_array_get(added, i), "content"));
    }
    TRY(token_table_create(bpe->allocator, json_object_size(vocab) + json_array_size(added), pool_bytes,
                           &bpe->vocabulary, loader->err));
    for (void *i = json_object_iter((json_t *)(uintptr_t)vocab); i != NULL;
         i = json_object_iter_next((json_t *)(uintptr_t)vocab, i)) {
        const char *content = json_object_iter_key(i);
        int32_t id;
        TRY(claim_id(loader, json_object_iter_value(i), &id));
        token_table_add(&bpe->vocabulary, content, strlen(content), id);
    }
done:
    return st;
}

/* The two halves of a merge: ["a", "b"] or "a b". */
static bool read_halves(const json_t *merge, const char *halves[2], size_t sizes[2]) {
    if (json_is_array(merge)) {
        for (size_t i = 0; i < 2; i++) {
            const json_t *half = json_array_get(merge, i);
            halves[i] = json_string_value(half);
            sizes[i] = json_string_length(half);
        }
        return json_array_size(merge) == 2 && halves[0] != NULL && halves[1] != NULL;
    }
    const char *text = json_string_value(merge);
    const char *space = text == NULL ? NULL : strchr(text, ' ');
    if (space == NULL || strchr(space + 1, ' ') != NULL) {
        return false;
    }
    halves[0] = text;
    halves[1] = space + 1;
    sizes[0] = (size_t)(space - text);
    sizes[1] = json_string_length(merge) - sizes[0] - 1;
    return true;
}

static enum cyi_status read_merges(struct loader *loader, const json_t *merges) {
    struct bpe *bpe = loader->bpe;
    const struct token_table *vocabulary = &bpe->vocabulary;
    size_t n = json_array_size(merges);
    enum cyi_status st = merge_table_create(bpe->allocator, n, &bpe->merges, loader->err);
    for (size_t i = 0; i < n && st == CYI_OK; i++) {
        const char *halves[2];
        size_t sizes[2];
        if (!read_halves(json_array_get(merges, i), halves, sizes)) {
            return error_set(loader->err, CYI_E_FORMAT, "%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]",
                             loader->name, i);
        }
        struct merge_slot merge = { .left = token_table_find(vocabulary, halves[0], sizes[0], "", 0),
                                    .right = token_table_find(vocabulary, halves[1], sizes[1], "", 0),
                                    .rank = (uint32_t)i,
                                    .merged = token_table_find(vocabulary, halves[0], sizes[0], halves[1], sizes[1]) };
        if (merge.left < 0 || merge.right < 0 || merge.merged < 0) {
            return error_set(loader->err, CYI_E_FORMAT,
                             "%s: merge %zu is of tokens, or makes a token, that the vocabulary lacks", loader->name,
                             i);
        }
        merge_table_add(&bpe->merges, merge);
    }
    return st;
}

/* GPT-2's alphabet: printable bytes stand for themselves, the others follow from U+0100 in their order. */
static enum cyi_status read_byte_ids(struct loader *loader) {
    struct bpe *bpe = loader->bpe;
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool prints = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        unsigned point = prints ? byte : next++;
        char text[2] = { (char)(0xc0 | point >> 6), (char)(0x80 | (point & 0x3f)) };
        if (point < 0x80) {
            text[0] = (char)point;
        }
        bpe->byte_ids[byte] = token_table_find(&bpe->vocabulary, text, point < 0x80 ? 1 : 2, "", 0);
        if (bpe->byte_ids[byte] < 0) {
            return error_set(loader->err, CYI_E_FORMAT, "%s: the vocabulary has no token for the byte 0x%02x",
                             loader->name, byte);
        }
    }
    return CYI_OK;
}

/* ---- Added tokens ---- */

/* Tokens looked for after NFC are looked for in their own composed form. */
static enum cyi_status copy_content(struct loader *loader, const char *content, size_t size, bool composed,
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

static enum cyi_status read_added_token(struct loader *loader, const json_t *entry, size_t i) {
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
        TRY(claim_id(loader, id_value, &token.id));
        token_table_add(&bpe->vocabulary, text, size, token.id);
    }
    bool composed = json_is_true(json_object_get(entry, "normalized"));
    struct added_set *set = composed ? &bpe->composed : &bpe->raw;
    TRY(copy_content(loader, text, size, composed && bpe->composes, &token));
    set->tokens[set->n++] = token;
done:
    return st;
}

static enum cyi_status read_added(struct loader *loader, const json_t *added) {
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

enum cyi_status bpe_read_json(struct bpe *bpe, const char *name, const char *json, size_t size_bytes,
                              struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    json_t *root = NULL;
    struct loader loader = { .bpe = bpe, .name = name, .err = err };
    loader.used = mem_alloc_zeroed(bpe->allocator, N_ID_BYTES, 1);
    if (loader.used == NULL) {
        return error_memory(err, "checking the ids of a tokenizer", N_ID_BYTES);
    }
    TRY(json_text_parse(name, json, size_bytes, &root, err));
    const json_t *model = json_object_get(root, "model");
    const json_t *added = json_object_get(root, "added_tokens");
    if (!is_absent(added) && !json_is_array(added)) {
        st = error_set(err, CYI_E_FORMAT, "%s: \"added_tokens\" is not a list", name);
        goto done;
    }
    TRY(check_model(&loader, model));
    TRY(read_normalizer(&loader, json_object_get(root, "normalizer")));
    TRY(read_pre_tokenizer(&loader, json_object_get(root, "pre_tokenizer")));
    TRY(check_post_processor(&loader, json_object_get(root, "post_processor")));
    TRY(check_decoder(&loader, json_object_get(root, "decoder")));
    TRY(read_vocabulary(&loader, json_object_get(model, "vocab"), added));
    TRY(read_merges(&loader, json_object_get(model, "merges")));
    TRY(read_byte_ids(&loader));
    TRY(read_added(&loader, added));
done:
    json_decref(root);
    mem_free(bpe->allocator, loader.used);
    return st;
}
