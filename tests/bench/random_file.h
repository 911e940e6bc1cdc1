/* Random weights into safetensors files, streamed: a list of named shapes, then one file or shards with an index.
 * For tools: every failure is printed and ends the program. */
#ifndef BENCH_RANDOM_FILE_H
#define BENCH_RANDOM_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "bench/support.h"

enum fill {
    FILL_NORMAL,    /* N(0, std) */
    FILL_SINUSOIDS, /* N(0, std), less for the fast ones of as many cosines and sines as there are columns */
    FILL_ONES,
    FILL_VARIANCE, /* uniform in 0.4 … 2 */
    FILL_COUNT     /* I64, one zero */
};

struct random_entry {
    char name[112];
    int rank; /* 0…4 */
    int64_t shape[4];
    enum fill fill;
    double std;
};

struct random_list {
    struct random_entry *entries;
    size_t n, capacity;
};

/* Adds a tensor. Its shape is the numbers of `shape` that are not 0; prefix and name are joined. */
void random_list_add(struct random_list *list, const char *prefix, const char *name, const int64_t shape[4],
                     enum fill fill, double std);
void random_list_done(struct random_list *list);

/* Writes folder/STEM.safetensors, or, when the tensors have more than max_bytes together, shards of at most max_bytes and their
 * index. Everything but I64 is BF16. Returns the bytes written. */
uint64_t random_list_write(const struct random_list *list, const char *folder, const char *stem, uint64_t max_bytes,
                           uint64_t seed);

/* A small file in a folder. */
void write_text_file(const char *folder, const char *name, const char *text);

#endif
