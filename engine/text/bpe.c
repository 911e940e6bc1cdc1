/* Byte-level BPE: see bpe.h. This file: opening and encoding; bpe_load.c reads tokenizer.json, bpe_merge.c merges words. */
#include "text/bpe.h"

#include <string.h>

#include "io/mapped_file.h"
#include "text/bpe_private.h"
#include "text/unicode.h"

#define TEXT_MAX_BYTES ((size_t)256 * 1024 * 1024)

static void free_added(const struct cyi_allocator *allocator, struct added_set *set) {
    for (size_t i = 0; i < set->n; i++) {
        mem_free(allocator, set->tokens[i].content);
    }
    mem_free(allocator, set->tokens);
}

void bpe_free(struct bpe *bpe) {
    if (bpe == NULL) {
        return;
    }
    const struct cyi_allocator *allocator = bpe->allocator;
    mem_free(allocator, bpe->vocabulary.slots);
    mem_free(allocator, bpe->vocabulary.pool);
    mem_free(allocator, bpe->merges.slots);
    free_added(allocator, &bpe->raw);
    free_added(allocator, &bpe->composed);
    presplit_free(bpe->presplit);
    mem_free(allocator, bpe);
}

enum cyi_status bpe_parse(const struct cyi_allocator *allocator, const char *name, const char *json, size_t size_bytes,
                          struct bpe **ret_bpe, struct cyi_error *err) {
    if (size_bytes > TOKENIZER_MAX_FILE_BYTES) {
        return error_set(err, CYI_E_FORMAT, "%s: %zu bytes are more than a tokenizer may have (%zu)", name, size_bytes,
                         TOKENIZER_MAX_FILE_BYTES);
    }
    struct bpe *bpe = mem_alloc_zeroed(allocator, 1, sizeof *bpe);
    if (bpe == NULL) {
        return error_memory(err, "a tokenizer", sizeof *bpe);
    }
    bpe->allocator = allocator;
    enum cyi_status st = bpe_read_json(bpe, name, json, size_bytes, err);
    if (st != CYI_OK) {
        bpe_free(bpe);
        return st;
    }
    *ret_bpe = bpe;
    return CYI_OK;
}

enum cyi_status bpe_load(const struct cyi_allocator *allocator, const char *path, struct bpe **ret_bpe,
                         struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    char *joined = NULL;
    char *text = NULL;
    size_t size = 0;
    if (folder_exists(path)) {
        joined = path_join(allocator, path, "tokenizer.json");
        if (joined == NULL) {
            return error_memory(err, "a path", strlen(path) + sizeof "/tokenizer.json");
        }
        path = joined;
    }
    TRY(file_read_all(allocator, path, TOKENIZER_MAX_FILE_BYTES, &text, &size, err));
    TRY(bpe_parse(allocator, path, text, size, ret_bpe, err));
done:
    mem_free(allocator, text);
    mem_free(allocator, joined);
    return st;
}

int32_t bpe_token_id(const struct bpe *bpe, const char *content) {
    return token_table_find(&bpe->vocabulary, content, strlen(content), "", 0);
}

int32_t bpe_n_ids(const struct bpe *bpe) {
    return bpe->n_ids;
}

/* ---- Encoding ---- */

/* What one call of bpe_encode needs. */
struct encoder {
    const struct bpe *bpe;
    struct bpe_merger merger;
    struct presplit_state *state;
    struct byte_buffer ids;
    struct cyi_error *err;
};

typedef enum cyi_status (*encode_stretch)(struct encoder *encoder, const char *text, size_t size_bytes);

/* What the pattern matches are words, and so is what lies between the matches. */
static enum cyi_status encode_words(struct encoder *encoder, const char *text, size_t size) {
    const struct presplit *presplit = encoder->bpe->presplit;
    enum cyi_status st = CYI_OK;
    size_t taken = 0;
    size_t from = 0;
    while (presplit != NULL && from < size) {
        size_t start;
        size_t end;
        TRY(presplit_find(presplit, encoder->state, text, size, from, &start, &end, encoder->err));
        TRY(bpe_merge_word(&encoder->merger, text + taken, start - taken, &encoder->ids, encoder->err));
        TRY(bpe_merge_word(&encoder->merger, text + start, end - start, &encoder->ids, encoder->err));
        taken = from = end;
        if (start == end && end < size) {
            size_t step;
            (void)unicode_decode(text + end, size - end, &step);
            from += step;
        }
    }
    if (taken < size) {
        TRY(bpe_merge_word(&encoder->merger, text + taken, size - taken, &encoder->ids, encoder->err));
    }
done:
    return st;
}

static bool stands_alone(const char *text, size_t size, size_t start, size_t end) {
    size_t step;
    return (start == 0 || !unicode_is_word(unicode_decode_before(text, start, &step))) &&
           (end == size || !unicode_is_word(unicode_decode(text + end, size - end, &step)));
}

static size_t skip_spaces_left(const char *text, size_t start, size_t stop) {
    size_t step;
    while (start > stop && unicode_is_space(unicode_decode_before(text, start, &step))) {
        start -= step;
    }
    return start < stop ? stop : start;
}

static size_t skip_spaces_right(const char *text, size_t size, size_t end) {
    size_t step;
    while (end < size && unicode_is_space(unicode_decode(text + end, size - end, &step))) {
        end += step;
    }
    return end;
}

/* Cuts the tokens of a set out and hands the stretches between them on. */
static enum cyi_status encode_around(struct encoder *encoder, const struct added_set *set, const char *text,
                                     size_t size, encode_stretch encode) {
    enum cyi_status st = CYI_OK;
    size_t taken = 0;
    size_t from = 0;
    size_t start;
    const struct added_token *token;
    while ((token = added_set_find(set, text, size, from, &start)) != NULL) {
        size_t end = start + token->size_bytes;
        from = end;
        if (token->single_word && !stands_alone(text, size, start, end)) {
            continue;
        }
        if (token->strips_left) {
            start = skip_spaces_left(text, start, taken < start ? taken : start);
        }
        if (token->strips_right) {
            end = skip_spaces_right(text, size, end);
        }
        if (taken < start) {
            TRY(encode(encoder, text + taken, start - taken));
        }
        TRY(byte_buffer_append(&encoder->ids, &token->id, sizeof token->id, encoder->err));
        taken = end;
    }
    if (taken < size) {
        TRY(encode(encoder, text + taken, size - taken));
    }
done:
    return st;
}

static enum cyi_status encode_composed(struct encoder *encoder, const char *text, size_t size) {
    const struct bpe *bpe = encoder->bpe;
    void *block = NULL;
    if (bpe->composes) {
        enum cyi_status st = unicode_compose(bpe->allocator, text, size, &text, &size, &block, encoder->err);
        if (st != CYI_OK) {
            return st;
        }
    }
    enum cyi_status st = encode_around(encoder, &bpe->composed, text, size, encode_words);
    mem_free(bpe->allocator, block);
    return st;
}

enum cyi_status bpe_encode(const struct bpe *bpe, const char *text, size_t size_bytes, int32_t **ret_ids, size_t *ret_n,
                           struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct encoder encoder = { .bpe = bpe, .merger = { .bpe = bpe }, .err = err };
    byte_buffer_init(&encoder.ids, bpe->allocator, SIZE_MAX);
    if (size_bytes > TEXT_MAX_BYTES) {
        return error_set(err, CYI_E_ARGUMENT, "the text has %zu bytes, more than %zu", size_bytes, TEXT_MAX_BYTES);
    }
    TRY(unicode_check_utf8("the text", text, size_bytes, err));
    if (bpe->presplit != NULL) {
        TRY(presplit_begin(bpe->presplit, &encoder.state, err));
    }
    TRY(encode_around(&encoder, &bpe->raw, text, size_bytes, encode_composed));
    *ret_n = encoder.ids.size_bytes / sizeof(int32_t);
    *ret_ids = (int32_t *)(void *)encoder.ids.data;
    encoder.ids.data = NULL;
done:
    byte_buffer_done(&encoder.ids);
    bpe_merger_done(&encoder.merger);
    presplit_end(encoder.state);
    return st;
}
