/* What the two files that read tokenizer.json share: bpe_load.c reads the small parts from a tree, bpe_load_lists.c the vocabulary
 * and the merges straight from the text. */
#ifndef TEXT_BPE_LOAD_H
#define TEXT_BPE_LOAD_H

#include "text/bpe_private.h"
#include "text/json_scan.h"

struct bpe_loader {
    struct bpe *bpe;
    const char *name;
    struct json_scan vocabulary, merges; /* the values of model.vocab and model.merges; at is NULL when there is none */
    uint8_t *used;                       /* a bit for every id that is taken */
    char *scratch;                       /* two decoded strings */
    struct cyi_error *err;
};

/* Finds the two lists and writes the text without them into rest: "{}" and "[]" in their places, line numbers as before.
 * Errors: FORMAT (not UTF-8), MEMORY. */
enum cyi_status bpe_cut_lists(struct bpe_loader *loader, const char *json, size_t size_bytes, struct byte_buffer *rest);
/* Fills bpe->vocabulary, with room for the added tokens, and bpe->byte_ids. */
enum cyi_status bpe_read_vocabulary(struct bpe_loader *loader, size_t n_added, size_t added_bytes);
enum cyi_status bpe_read_merges(struct bpe_loader *loader);
/* Checks an id, takes it and counts it. Errors: FORMAT. */
enum cyi_status bpe_claim_id(struct bpe_loader *loader, int64_t id, int32_t *ret_id);

#endif
