/* The tables of the byte-level BPE: vocabulary, merges, added tokens. */
#include <stdlib.h>
#include <string.h>

#include "core/size.h"
#include "text/bpe_private.h"

#define MIN_SLOTS 16

/* Slots for n entries, at most two thirds full; 0 when that overflows. */
static size_t count_slots(size_t n) {
    size_t needed;
    if (!size_mul(&needed, n, 3) || needed / 2 > SIZE_MAX / 4) {
        return 0;
    }
    size_t n_slots = MIN_SLOTS;
    while (n_slots < needed / 2 + 1) {
        n_slots *= 2;
    }
    return n_slots;
}

/* ---- Vocabulary ---- */

static uint64_t hash_more(uint64_t hash, const char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static uint64_t hash_two(const char *left, size_t left_bytes, const char *right, size_t right_bytes) {
    uint64_t hash = hash_more(UINT64_C(0xcbf29ce484222325), left, left_bytes);
    hash = hash_more(hash, right, right_bytes);
    return hash ^ (hash >> 32);
}

enum cyi_status token_table_create(const struct cyi_allocator *allocator, size_t n_tokens, size_t pool_bytes,
                                   struct token_table *ret_table, struct cyi_error *err) {
    struct token_table *table = ret_table;
    table->n_slots = count_slots(n_tokens);
    table->slots = mem_alloc_zeroed(allocator, table->n_slots, sizeof *table->slots);
    table->pool_size_bytes = pool_bytes;
    table->pool = mem_alloc(allocator, pool_bytes == 0 ? 1 : pool_bytes);
    if (table->slots == NULL || table->pool == NULL) {
        return error_memory(err, "the vocabulary of a tokenizer", table->n_slots * sizeof *table->slots + pool_bytes);
    }
    for (size_t i = 0; i < table->n_slots; i++) {
        table->slots[i].id = -1;
    }
    return CYI_OK;
}

int32_t token_table_find(const struct token_table *table, const char *left, size_t left_bytes, const char *right,
                         size_t right_bytes) {
    size_t mask = table->n_slots - 1;
    for (size_t i = hash_two(left, left_bytes, right, right_bytes) & mask;; i = (i + 1) & mask) {
        const struct token_slot *slot = &table->slots[i];
        if (slot->id < 0) {
            return -1;
        }
        if (slot->size_bytes == left_bytes + right_bytes && memcmp(table->pool + slot->offset, left, left_bytes) == 0 &&
            memcmp(table->pool + slot->offset + left_bytes, right, right_bytes) == 0) {
            return slot->id;
        }
    }
}

void token_table_add(struct token_table *table, const char *content, size_t size_bytes, int32_t id) {
    size_t mask = table->n_slots - 1;
    size_t i = hash_two(content, size_bytes, "", 0) & mask;
    while (table->slots[i].id >= 0) {
        i = (i + 1) & mask;
    }
    memcpy(table->pool + table->pool_used_bytes, content, size_bytes);
    table->slots[i] = (struct token_slot){ (uint32_t)table->pool_used_bytes, (uint32_t)size_bytes, id };
    table->pool_used_bytes += size_bytes;
}

/* ---- Merges ---- */

static size_t hash_pair(int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key *= UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(key ^ (key >> 29));
}

enum cyi_status merge_table_create(const struct cyi_allocator *allocator, size_t n_merges,
                                   struct merge_table *ret_table, struct cyi_error *err) {
    struct merge_table *table = ret_table;
    table->n_slots = count_slots(n_merges);
    table->slots = mem_alloc_zeroed(allocator, table->n_slots, sizeof *table->slots);
    if (table->slots == NULL) {
        return error_memory(err, "the merges of a tokenizer", table->n_slots * sizeof *table->slots);
    }
    for (size_t i = 0; i < table->n_slots; i++) {
        table->slots[i].left = -1;
    }
    return CYI_OK;
}

static struct merge_slot *find_merge_slot(const struct merge_table *table, int32_t left, int32_t right) {
    size_t mask = table->n_slots - 1;
    size_t i = hash_pair(left, right) & mask;
    while (table->slots[i].left >= 0 && (table->slots[i].left != left || table->slots[i].right != right)) {
        i = (i + 1) & mask;
    }
    return &table->slots[i];
}

void merge_table_add(struct merge_table *table, struct merge_slot merge) {
    *find_merge_slot(table, merge.left, merge.right) = merge; /* twice the same pair: the later one counts */
}

const struct merge_slot *merge_table_find(const struct merge_table *table, int32_t left, int32_t right) {
    const struct merge_slot *slot = find_merge_slot(table, left, right);
    return slot->left < 0 ? NULL : slot;
}

/* ---- Added tokens ---- */

static int compare_tokens(const void *a, const void *b) {
    const struct added_token *x = a;
    const struct added_token *y = b;
    size_t shorter = x->size_bytes < y->size_bytes ? x->size_bytes : y->size_bytes;
    int order = memcmp(x->content, y->content, shorter);
    return order != 0 ? order : (x->size_bytes > y->size_bytes) - (x->size_bytes < y->size_bytes);
}

void added_set_index(struct added_set *set) {
    if (set->n > 1) {
        qsort(set->tokens, set->n, sizeof *set->tokens, compare_tokens);
    }
    size_t i = 0;
    for (size_t byte = 0; byte < 257; byte++) {
        while (i < set->n && (unsigned char)set->tokens[i].content[0] < byte) {
            i++;
        }
        set->first[byte] = i;
    }
}

/* The first of tokens[low … high − 1], equal up to depth, whose byte at depth is at least `byte`. */
static size_t find_lower_bound(const struct added_set *set, size_t low, size_t high, size_t depth, unsigned byte) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct added_token *token = &set->tokens[middle];
        if (token->size_bytes <= depth || (unsigned char)token->content[depth] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest token that text begins with. */
static const struct added_token *match_longest(const struct added_set *set, const char *text, size_t size_bytes) {
    const struct added_token *found = NULL;
    unsigned byte = (unsigned char)text[0];
    size_t low = set->first[byte];
    size_t high = set->first[byte + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (set->tokens[low].size_bytes == depth) {
            found = &set->tokens[low]; /* of those that begin alike the shortest comes first */
        }
        if (depth == size_bytes) {
            break;
        }
        byte = (unsigned char)text[depth];
        low = find_lower_bound(set, low, high, depth, byte);
        high = find_lower_bound(set, low, high, depth, byte + 1);
    }
    return found;
}

const struct added_token *added_set_find(const struct added_set *set, const char *text, size_t size_bytes, size_t from,
                                         size_t *ret_start) {
    if (set->n == 0) {
        return NULL;
    }
    for (size_t i = from; i < size_bytes; i++) {
        unsigned byte = (unsigned char)text[i];
        if (set->first[byte] == set->first[byte + 1]) {
            continue;
        }
        const struct added_token *token = match_longest(set, text + i, size_bytes - i);
        if (token != NULL) {
            *ret_start = i;
            return token;
        }
    }
    return NULL;
}
