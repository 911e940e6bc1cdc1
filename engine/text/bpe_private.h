/* What the files of the byte-level BPE share. */
#ifndef TEXT_BPE_PRIVATE_H
#define TEXT_BPE_PRIVATE_H

#include "text/bpe.h"
#include "text/presplit.h"

#define BPE_MAX_IDS (1 << 24)
#define BPE_NO_RANK UINT32_MAX

/* Contents to ids, open addressing; a slot with id −1 is free. The contents stand one after the other in pool. */
struct token_slot {
    uint32_t offset, size_bytes;
    int32_t id;
};
struct token_table {
    struct token_slot *slots;
    size_t n_slots; /* a power of two */
    char *pool;
    size_t pool_used_bytes, pool_size_bytes;
};

/* Pairs of ids to what they merge to, open addressing; a slot with left −1 is free. */
struct merge_slot {
    int32_t left, right;
    uint32_t rank;
    int32_t merged;
};
struct merge_table {
    struct merge_slot *slots;
    size_t n_slots; /* a power of two */
};

/* Tokens that are cut out of the text before everything else. */
struct added_token {
    char *content;
    size_t size_bytes;
    int32_t id;
    bool single_word, strips_left, strips_right;
};
struct added_set {
    struct added_token *tokens; /* sorted by content */
    size_t n;
    size_t first[257]; /* tokens that begin with byte b: first[b] … first[b + 1] − 1 */
};

struct bpe {
    const struct cyi_allocator *allocator;
    struct token_table vocabulary; /* with the added tokens */
    struct merge_table merges;
    int32_t byte_ids[256];
    int32_t n_ids;
    bool composes;             /* NFC before the pattern */
    struct presplit *presplit; /* NULL: a stretch of text is one word */
    struct added_set raw;      /* looked for in the text as it came */
    struct added_set composed; /* looked for after NFC */
};

/* ---- bpe_tables.c ---- */

/* Room for n_tokens contents of pool_bytes together. what is for messages. Errors: MEMORY. */
enum cyi_status token_table_create(const struct cyi_allocator *allocator, size_t n_tokens, size_t pool_bytes,
                                   struct token_table *ret_table, struct cyi_error *err);
/* The id of the two strings one after the other, −1 when absent. */
int32_t token_table_find(const struct token_table *table, const char *left, size_t left_bytes, const char *right,
                         size_t right_bytes);
/* Adds a content that is not there yet; there is room for as many as were asked for at create. */
void token_table_add(struct token_table *table, const char *content, size_t size_bytes, int32_t id);

enum cyi_status merge_table_create(const struct cyi_allocator *allocator, size_t n_merges,
                                   struct merge_table *ret_table, struct cyi_error *err);
void merge_table_add(struct merge_table *table, struct merge_slot merge);
/* NULL when the two do not merge. */
const struct merge_slot *merge_table_find(const struct merge_table *table, int32_t left, int32_t right);

/* Sorts the tokens and fills `first`. */
void added_set_index(struct added_set *set);
/* The longest token that begins at the earliest place at or after `from`; NULL when there is none. */
const struct added_token *added_set_find(const struct added_set *set, const char *text, size_t size_bytes, size_t from,
                                         size_t *ret_start);

/* ---- bpe_merge.c ---- */

/* Scratch for merging, grown to the longest word; fill with zeros before, done after. */
struct bpe_symbol;
struct bpe_merger {
    const struct bpe *bpe;
    struct bpe_symbol *symbols;
    uint64_t *heap; /* rank and place of the pairs that may merge */
    size_t capacity, heap_size;
};
/* Appends the ids of one word. Errors: MEMORY. */
enum cyi_status bpe_merge_word(struct bpe_merger *merger, const char *word, size_t size_bytes, struct byte_buffer *ids,
                               struct cyi_error *err);
void bpe_merger_done(struct bpe_merger *merger);

/* ---- bpe_load.c ---- */

/* Fills an empty bpe from the text of a tokenizer.json. */
enum cyi_status bpe_read_json(struct bpe *bpe, const char *name, const char *json, size_t size_bytes,
                              struct cyi_error *err);

#endif
