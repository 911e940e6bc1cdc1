/* Merging one word: symbols in a linked list, the pairs that may merge in a heap by rank, then by place. n log n. */
#include <string.h>

#include "core/size.h"
#include "text/bpe_private.h"

#define NO_SYMBOL UINT32_MAX
#define MIN_CAPACITY 64

struct bpe_symbol {
    int32_t id;
    uint32_t
        rank; /* of the merge with the next symbol, BPE_NO_RANK when there is none; what a heap entry says must still hold */
    uint32_t previous, next;
};

void bpe_merger_done(struct bpe_merger *merger) {
    mem_free(merger->bpe->allocator, merger->symbols);
    mem_free(merger->bpe->allocator, merger->heap);
    merger->symbols = NULL;
    merger->heap = NULL;
    merger->capacity = 0;
}

/* n symbols make at most n − 1 pairs at first and two more with each of at most n − 1 merges. */
static enum cyi_status reserve(struct bpe_merger *merger, size_t n, struct cyi_error *err) {
    if (n <= merger->capacity) {
        return CYI_OK;
    }
    const struct cyi_allocator *allocator = merger->bpe->allocator;
    bpe_merger_done(merger);
    size_t capacity = MIN_CAPACITY;
    while (capacity < n) {
        capacity *= 2;
    }
    merger->symbols = mem_alloc(allocator, capacity * sizeof *merger->symbols);
    merger->heap = mem_alloc(allocator, 3 * capacity * sizeof *merger->heap);
    if (merger->symbols == NULL || merger->heap == NULL) {
        bpe_merger_done(merger);
        return error_memory(err, "merging a word", capacity * (sizeof *merger->symbols + 3 * sizeof *merger->heap));
    }
    merger->capacity = capacity;
    return CYI_OK;
}

static void push_pair(struct bpe_merger *merger, uint32_t rank, size_t place) {
    uint64_t entry = (uint64_t)rank << 32 | place;
    uint64_t *heap = merger->heap;
    size_t i = merger->heap_size++;
    while (i > 0 && heap[(i - 1) / 2] > entry) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = entry;
}

static uint64_t pop_pair(struct bpe_merger *merger) {
    uint64_t *heap = merger->heap;
    uint64_t top = heap[0];
    size_t n = --merger->heap_size;
    uint64_t entry = heap[n];
    size_t i = 0;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (heap[child] >= entry) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = entry;
    return top;
}

/* Notes whether the symbol at place merges with its next one. */
static void offer_pair(struct bpe_merger *merger, uint32_t place) {
    struct bpe_symbol *symbol = &merger->symbols[place];
    symbol->rank = BPE_NO_RANK;
    if (symbol->next == NO_SYMBOL) {
        return;
    }
    const struct merge_slot *merge =
        merge_table_find(&merger->bpe->merges, symbol->id, merger->symbols[symbol->next].id);
    if (merge != NULL) {
        symbol->rank = merge->rank;
        push_pair(merger, merge->rank, place);
    }
}

static void merge_at(struct bpe_merger *merger, uint32_t place) {
    struct bpe_symbol *symbols = merger->symbols;
    struct bpe_symbol *left = &symbols[place];
    struct bpe_symbol *right = &symbols[left->next];
    left->id = merge_table_find(&merger->bpe->merges, left->id, right->id)->merged;
    right->rank = BPE_NO_RANK; /* gone: entries of it are out of date */
    left->next = right->next;
    if (left->next != NO_SYMBOL) {
        symbols[left->next].previous = place;
    }
    offer_pair(merger, place);
    if (left->previous != NO_SYMBOL) {
        offer_pair(merger, left->previous);
    }
}

enum cyi_status bpe_merge_word(struct bpe_merger *merger, const char *word, size_t size_bytes, struct byte_buffer *ids,
                               struct cyi_error *err) {
    const int32_t *byte_ids = merger->bpe->byte_ids;
    if (size_bytes == 1) {
        return byte_buffer_append(ids, &byte_ids[(unsigned char)word[0]], sizeof *byte_ids, err);
    }
    enum cyi_status st = reserve(merger, size_bytes, err);
    if (st != CYI_OK || size_bytes == 0) {
        return st;
    }
    uint32_t n = (uint32_t)size_bytes;
    struct bpe_symbol *symbols = merger->symbols;
    for (uint32_t i = 0; i < n; i++) {
        symbols[i] = (struct bpe_symbol){ byte_ids[(unsigned char)word[i]], BPE_NO_RANK, i == 0 ? NO_SYMBOL : i - 1,
                                          i + 1 == n ? NO_SYMBOL : i + 1 };
    }
    merger->heap_size = 0;
    for (uint32_t i = 0; i < n; i++) {
        offer_pair(merger, i);
    }
    while (merger->heap_size > 0) {
        uint64_t entry = pop_pair(merger);
        uint32_t place = (uint32_t)entry;
        if (symbols[place].rank == (uint32_t)(entry >> 32)) {
            merge_at(merger, place);
        }
    }
    for (uint32_t i = 0; i != NO_SYMBOL && st == CYI_OK; i = symbols[i].next) {
        st = byte_buffer_append(ids, &symbols[i].id, sizeof symbols[i].id, err);
    }
    return st;
}
