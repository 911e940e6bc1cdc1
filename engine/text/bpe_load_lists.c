/* The vocabulary and the merges of tokenizer.json, read from the text in two passes: one checks and counts, one fills the tables. */
#include <inttypes.h>
#include <string.h>

#include "text/bpe_load.h"
#include "text/unicode.h"

/* ---- Cutting the lists out ---- */

static enum cyi_status append_without(struct byte_buffer *rest, const char *from, const struct json_scan *list,
                                      const char *instead, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    TRY(byte_buffer_append(rest, from, (size_t)(list->at - from), err));
    TRY(byte_buffer_append(rest, instead, strlen(instead), err));
    for (const char *at = list->at; (at = memchr(at, '\n', (size_t)(list->end - at))) != NULL; at++) {
        TRY(byte_buffer_append(rest, "\n", 1, err));
    }
done:
    return st;
}

enum cyi_status bpe_cut_lists(struct bpe_loader *loader, const char *json, size_t size_bytes,
                              struct byte_buffer *rest) {
    enum cyi_status st = CYI_OK;
    size_t n_valid = unicode_count_valid(json, size_bytes);
    if (n_valid < size_bytes) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: not valid JSON: not UTF-8 at byte %zu", loader->name, n_valid);
    }
    struct json_scan text = { json, json + size_bytes };
    struct json_scan model;
    struct json_scan list;
    const char *from = json;
    if (json_scan_member(text, "model", &model)) {
        if (json_scan_member(model, "vocab", &list) && *list.at == '{') {
            loader->vocabulary = list;
        }
        if (json_scan_member(model, "merges", &list) && *list.at == '[') {
            loader->merges = list;
        }
    }
    const struct json_scan *lists[] = { &loader->vocabulary, &loader->merges };
    bool is_swapped = loader->vocabulary.at > loader->merges.at;
    for (size_t i = 0; i < 2; i++) {
        const struct json_scan *next = lists[is_swapped ? 1 - i : i];
        if (next->at != NULL) {
            TRY(append_without(rest, from, next, *next->at == '{' ? "{}" : "[]", loader->err));
            from = next->end;
        }
    }
    TRY(byte_buffer_append(rest, from, (size_t)(text.end - from), loader->err));
done:
    return st;
}

/* ---- Vocabulary ---- */

enum cyi_status bpe_claim_id(struct bpe_loader *loader, int64_t id, int32_t *ret_id) {
    if (id < 0 || id >= BPE_MAX_IDS) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: a token's id is not a whole number from 0 to %d", loader->name,
                         BPE_MAX_IDS - 1);
    }
    uint8_t bit = (uint8_t)(1 << (id & 7));
    if (loader->used[id >> 3] & bit) {
        return error_set(loader->err, CYI_E_FORMAT, "%s: two tokens have the id %" PRId64, loader->name, id);
    }
    loader->used[id >> 3] |= bit;
    *ret_id = (int32_t)id;
    if (*ret_id >= loader->bpe->n_ids) {
        loader->bpe->n_ids = *ret_id + 1;
    }
    return CYI_OK;
}

struct vocabulary_entry {
    struct json_slice content;
    int64_t id; /* −1: not a whole number */
};

/* One entry with the comma or bracket behind it. */
static bool scan_entry(struct json_scan *scan, char *scratch, struct vocabulary_entry *ret, bool *ret_last) {
    struct json_scan value;
    if (!json_scan_string(scan, scratch, &ret->content) || !json_scan_take(scan, ':') ||
        !json_scan_skip(scan, &value)) {
        return false;
    }
    if (!json_scan_whole(&value, &ret->id) || value.at != value.end) {
        ret->id = -1;
    }
    *ret_last = json_scan_take(scan, '}');
    return *ret_last || json_scan_take(scan, ',');
}

static enum cyi_status fail_list(const struct bpe_loader *loader, const char *list, size_t i) {
    return error_set(loader->err, CYI_E_FORMAT,
                     "%s: \"%s\" is not valid JSON, or has a string of more than %zu bytes, at entry %zu", loader->name,
                     list, JSON_SCAN_STRING_MAX, i);
}

static enum cyi_status measure_vocabulary(const struct bpe_loader *loader, size_t *ret_n, size_t *ret_bytes) {
    struct json_scan scan = loader->vocabulary;
    struct vocabulary_entry entry;
    *ret_n = *ret_bytes = 0;
    bool is_last = json_scan_take(&scan, '{') && json_scan_take(&scan, '}');
    while (!is_last) {
        if (!scan_entry(&scan, loader->scratch, &entry, &is_last)) {
            return fail_list(loader, "vocab", *ret_n);
        }
        *ret_n += 1;
        *ret_bytes += entry.content.size_bytes;
    }
    return CYI_OK;
}

static enum cyi_status fill_vocabulary(struct bpe_loader *loader, size_t n) {
    struct token_table *table = &loader->bpe->vocabulary;
    struct json_scan scan = loader->vocabulary;
    bool is_last = !json_scan_take(&scan, '{');
    for (size_t i = 0; i < n && !is_last; i++) {
        struct vocabulary_entry entry;
        int32_t id = -1;
        if (!scan_entry(&scan, loader->scratch, &entry, &is_last)) {
            return fail_list(loader, "vocab", i);
        }
        if (token_table_find(table, entry.content.data, entry.content.size_bytes, "", 0) >= 0) {
            return error_set(loader->err, CYI_E_FORMAT, "%s: the vocabulary has a duplicate at entry %zu", loader->name,
                             i);
        }
        enum cyi_status st = bpe_claim_id(loader, entry.id, &id);
        if (st != CYI_OK) {
            return st;
        }
        token_table_add(table, entry.content.data, entry.content.size_bytes, id);
    }
    return CYI_OK;
}

/* GPT-2's alphabet: printable bytes stand for themselves, the others follow from U+0100 in their order. */
static enum cyi_status read_byte_ids(struct bpe_loader *loader) {
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

enum cyi_status bpe_read_vocabulary(struct bpe_loader *loader, size_t n_added, size_t added_bytes) {
    enum cyi_status st = CYI_OK;
    size_t n;
    size_t n_bytes;
    TRY(measure_vocabulary(loader, &n, &n_bytes));
    TRY(token_table_create(loader->bpe->allocator, n + n_added, n_bytes + added_bytes, &loader->bpe->vocabulary,
                           loader->err));
    TRY(fill_vocabulary(loader, n));
    TRY(read_byte_ids(loader));
done:
    return st;
}

/* ---- Merges ---- */

/* The two halves of "a b". */
static bool split_halves(struct json_slice text, struct json_slice halves[2]) {
    const char *space = memchr(text.data, ' ', text.size_bytes);
    if (space == NULL) {
        return false;
    }
    size_t before = (size_t)(space - text.data);
    halves[0] = (struct json_slice){ text.data, before };
    halves[1] = (struct json_slice){ space + 1, text.size_bytes - before - 1 };
    return memchr(halves[1].data, ' ', halves[1].size_bytes) == NULL;
}

/* "a b" or ["a", "b"], with the comma or bracket behind it. */
static bool scan_merge(struct json_scan *scan, char *scratch, struct json_slice halves[2], bool *ret_last) {
    struct json_slice text;
    bool is_read;
    if (json_scan_take(scan, '[')) {
        is_read = json_scan_string(scan, scratch, &halves[0]) && json_scan_take(scan, ',') &&
                  json_scan_string(scan, scratch + JSON_SCAN_STRING_MAX, &halves[1]) && json_scan_take(scan, ']');
    } else {
        is_read = json_scan_string(scan, scratch, &text) && split_halves(text, halves);
    }
    *ret_last = is_read && json_scan_take(scan, ']');
    return is_read && (*ret_last || json_scan_take(scan, ','));
}

static enum cyi_status count_merges(const struct bpe_loader *loader, size_t *ret_n) {
    struct json_scan scan = loader->merges;
    struct json_slice halves[2];
    *ret_n = 0;
    bool is_last = json_scan_take(&scan, '[') && json_scan_take(&scan, ']');
    while (!is_last) {
        if (!scan_merge(&scan, loader->scratch, halves, &is_last)) {
            return error_set(loader->err, CYI_E_FORMAT, "%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]",
                             loader->name, *ret_n);
        }
        *ret_n += 1;
    }
    return CYI_OK;
}

enum cyi_status bpe_read_merges(struct bpe_loader *loader) {
    const struct token_table *vocabulary = &loader->bpe->vocabulary;
    struct merge_table *table = &loader->bpe->merges;
    struct json_scan scan = loader->merges;
    enum cyi_status st = CYI_OK;
    size_t n;
    TRY(count_merges(loader, &n));
    TRY(merge_table_create(loader->bpe->allocator, n, table, loader->err));
    bool is_last = !json_scan_take(&scan, '[');
    for (size_t i = 0; i < n && !is_last; i++) {
        struct json_slice h[2];
        if (!scan_merge(&scan, loader->scratch, h, &is_last)) {
            return fail_list(loader, "merges", i);
        }
        struct merge_slot merge = {
            .left = token_table_find(vocabulary, h[0].data, h[0].size_bytes, "", 0),
            .right = token_table_find(vocabulary, h[1].data, h[1].size_bytes, "", 0),
            .rank = (uint32_t)i,
            .merged = token_table_find(vocabulary, h[0].data, h[0].size_bytes, h[1].data, h[1].size_bytes),
        };
        if (merge.left < 0 || merge.right < 0 || merge.merged < 0) {
            return error_set(loader->err, CYI_E_FORMAT,
                             "%s: merge %zu is of tokens, or makes a token, that the vocabulary lacks", loader->name,
                             i);
        }
        merge_table_add(table, merge);
    }
done:
    return st;
}
