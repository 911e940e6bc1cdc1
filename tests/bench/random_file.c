/* Random weights into safetensors files: see random_file.h.
 *
 * Numbers come from a table of 2^15 normal values that is scaled to each tensor's standard deviation once; xorshift picks four
 * entries a step. That is faster than a disk, and no two rows are alike. */
#include "bench/random_file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"

#define TABLE_BITS 15
#define TABLE_SIZE ((size_t)1 << TABLE_BITS)
#define CHUNK ((size_t)512 * 1024) /* values made and written at a time */
#define PATH_BYTES 4096

void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

/* ---- The list ---- */

void random_list_add(struct random_list *list, const char *prefix, const char *name, const int64_t shape[4],
                     enum fill fill, double std) {
    if (list->n == list->capacity) {
        list->capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        list->entries = realloc(list->entries, list->capacity * sizeof *list->entries);
        if (list->entries == NULL) {
            die("out of memory");
        }
    }
    struct random_entry *entry = &list->entries[list->n++];
    *entry = (struct random_entry){ .fill = fill, .std = std };
    int size = snprintf(entry->name, sizeof entry->name, "%s%s", prefix, name);
    if (size < 0 || (size_t)size >= sizeof entry->name) {
        die("the name %s%s is too long", prefix, name);
    }
    while (entry->rank < 4 && shape[entry->rank] != 0) {
        entry->shape[entry->rank] = shape[entry->rank];
        entry->rank++;
    }
}

void random_list_done(struct random_list *list) {
    free(list->entries);
    *list = (struct random_list){ 0 };
}

static size_t count_elements(const struct random_entry *entry) {
    size_t n = 1;
    for (int i = 0; i < entry->rank; i++) {
        n *= (size_t)entry->shape[i];
    }
    return n;
}

static uint64_t count_bytes(const struct random_entry *entry) {
    return count_elements(entry) * (entry->fill == FILL_COUNT ? 8 : 2);
}

/* ---- Numbers ---- */

struct source {
    uint64_t state;
    float normal[TABLE_SIZE];
    uint16_t scaled[TABLE_SIZE]; /* normal × std as BF16 */
    double std;
    uint16_t chunk[CHUNK];
};

static uint64_t draw(struct source *source) {
    source->state ^= source->state << 13;
    source->state ^= source->state >> 7;
    source->state ^= source->state << 17;
    return source->state;
}

static double draw_uniform(struct source *source) {
    return (double)(draw(source) >> 11) * 0x1p-53;
}

static struct source *create_source(uint64_t seed) {
    struct source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        die("out of memory");
    }
    source->state = seed * 0x9e3779b97f4a7c15U + 1;
    for (size_t i = 0; i < TABLE_SIZE; i += 2) {
        double radius = sqrt(-2.0 * log(1.0 - draw_uniform(source)));
        double angle = 6.283185307179586 * draw_uniform(source);
        source->normal[i] = (float)(radius * cos(angle));
        source->normal[i + 1] = (float)(radius * sin(angle));
    }
    return source;
}

static void set_std(struct source *source, double std) {
    if (fabs(source->std - std) <= 0.0) {
        return;
    }
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        source->scaled[i] = float_to_bf16(source->normal[i] * (float)std);
    }
    source->std = std;
}

static void fill_normal(struct source *source, uint16_t *values, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        uint64_t bits = draw(source);
        for (size_t k = i; k < i + 4 && k < n; k++) {
            values[k] = source->scaled[bits >> (64 - TABLE_BITS)];
            bits <<= TABLE_BITS;
        }
    }
}

/* How much column `col` of a time embedding's first weight counts: trained models do not follow the fast sinusoids either. */
static float damping(int64_t col, int64_t n_cols) {
    int64_t half = n_cols / 2;
    double speed = 1000.0 * exp(-log(10000.0) * (double)(col % half) / (double)half);
    return (float)(20.0 / (20.0 + speed));
}

/* Values first … first + n of a tensor. */
static void fill_values(struct source *source, const struct random_entry *entry, size_t first, size_t n) {
    uint16_t *values = source->chunk;
    if (entry->fill == FILL_NORMAL || entry->fill == FILL_SINUSOIDS) {
        fill_normal(source, values, n);
    }
    for (size_t i = 0; i < n && entry->fill == FILL_SINUSOIDS; i++) {
        int64_t n_cols = entry->shape[entry->rank - 1];
        values[i] = float_to_bf16(float_from_bf16(values[i]) * damping((int64_t)(first + i) % n_cols, n_cols));
    }
    for (size_t i = 0; i < n && entry->fill == FILL_ONES; i++) {
        values[i] = float_to_bf16(1.0F);
    }
    for (size_t i = 0; i < n && entry->fill == FILL_VARIANCE; i++) {
        values[i] = float_to_bf16((float)(0.4 + 1.6 * draw_uniform(source)));
    }
}

/* ---- Files ---- */

static FILE *open_file(const char *folder, const char *name) {
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *stream = n > 0 && n < PATH_BYTES ? fopen(path, "wb") : NULL;
    if (stream == NULL) {
        die("%s/%s: cannot be created: %s", folder, name, strerror(errno));
    }
    return stream;
}

static void close_file(FILE *stream, const char *name) {
    bool is_bad = ferror(stream) != 0;
    if (fclose(stream) != 0 || is_bad) {
        die("%s: cannot be written", name);
    }
}

void write_text_file(const char *folder, const char *name, const char *text) {
    FILE *stream = open_file(folder, name);
    (void)fputs(text, stream);
    close_file(stream, name);
}

/* One header entry, or its length when text is NULL. */
static int print_entry(char *text, size_t size, const struct random_entry *entry, uint64_t begin, bool is_first) {
    char shape[96] = "";
    int used = 0;
    for (int i = 0; i < entry->rank; i++) {
        used += snprintf(shape + used, sizeof shape - (size_t)used, "%s%" PRId64, i == 0 ? "" : ",", entry->shape[i]);
    }
    return snprintf(text, size, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
                    is_first ? "{" : ",", entry->name, entry->fill == FILL_COUNT ? "I64" : "BF16", shape, begin,
                    begin + count_bytes(entry));
}

static void write_header(FILE *stream, const char *name, const struct random_entry *entries, size_t n) {
    size_t capacity = 16;
    uint64_t begin = 0;
    for (size_t i = 0; i < n; i++) {
        capacity += (size_t)print_entry(NULL, 0, &entries[i], UINT64_MAX / 2, false);
    }
    char *text = calloc(capacity, 1);
    if (text == NULL) {
        die("out of memory");
    }
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        used += (size_t)print_entry(text + used, capacity - used, &entries[i], begin, i == 0);
        begin += count_bytes(&entries[i]);
    }
    text[used++] = '}';
    while (used % 8 != 0) {
        text[used++] = ' ';
    }
    uint8_t length[8];
    for (int i = 0; i < 8; i++) {
        length[i] = (uint8_t)((uint64_t)used >> 8 * i);
    }
    if (fwrite(length, 1, sizeof length, stream) != sizeof length || fwrite(text, 1, used, stream) != used) {
        die("%s: cannot be written: %s", name, strerror(errno));
    }
    free(text);
}

static void write_entry(FILE *stream, const char *name, const struct random_entry *entry, struct source *source) {
    size_t n = count_elements(entry);
    if (entry->fill == FILL_COUNT) {
        const uint8_t zero[8] = { 0 };
        (void)fwrite(zero, 1, sizeof zero, stream);
        return;
    }
    set_std(source, entry->std);
    for (size_t first = 0; first < n; first += CHUNK) {
        size_t n_chunk = n - first < CHUNK ? n - first : CHUNK;
        fill_values(source, entry, first, n_chunk);
        if (fwrite(source->chunk, sizeof(uint16_t), n_chunk, stream) != n_chunk) {
            die("%s: cannot be written: %s", name, strerror(errno));
        }
    }
}

static void write_shard(const char *folder, const char *name, const struct random_entry *entries, size_t n,
                        struct source *source) {
    FILE *stream = open_file(folder, name);
    write_header(stream, name, entries, n);
    for (size_t i = 0; i < n; i++) {
        write_entry(stream, name, &entries[i], source);
    }
    close_file(stream, name);
}

/* How many entries from `first` on go into one shard. */
static size_t count_shard(const struct random_list *list, size_t first, uint64_t max_bytes) {
    uint64_t sum = count_bytes(&list->entries[first]);
    size_t n = 1;
    while (first + n < list->n && sum + count_bytes(&list->entries[first + n]) <= max_bytes) {
        sum += count_bytes(&list->entries[first + n]);
        n++;
    }
    return n;
}

static void name_shard(char *name, size_t size, const char *stem, size_t shard, size_t n_shards) {
    (void)snprintf(name, size, "%s-%05zu-of-%05zu.safetensors", stem, shard + 1, n_shards);
}

static void write_shards(const struct random_list *list, const char *folder, const char *stem, uint64_t max_bytes,
                         uint64_t total, struct source *source) {
    char name[160];
    size_t n_shards = 0;
    for (size_t first = 0; first < list->n; first += count_shard(list, first, max_bytes)) {
        n_shards++;
    }
    (void)snprintf(name, sizeof name, "%s.safetensors.index.json", stem);
    FILE *index = open_file(folder, name);
    (void)fprintf(index, "{\"metadata\":{\"total_size\":%" PRIu64 "},\"weight_map\":{", total);
    size_t first = 0;
    for (size_t shard = 0; shard < n_shards; shard++) {
        size_t n = count_shard(list, first, max_bytes);
        name_shard(name, sizeof name, stem, shard, n_shards);
        write_shard(folder, name, list->entries + first, n, source);
        for (size_t i = first; i < first + n; i++) {
            (void)fprintf(index, "%s\n\"%s\":\"%s\"", i == 0 ? "" : ",", list->entries[i].name, name);
        }
        first += n;
    }
    (void)fputs("}}\n", index);
    close_file(index, "the index");
}

uint64_t random_list_write(const struct random_list *list, const char *folder, const char *stem, uint64_t max_bytes,
                           uint64_t seed) {
    uint64_t total = 0;
    struct source *source = create_source(seed);
    for (size_t i = 0; i < list->n; i++) {
        total += count_bytes(&list->entries[i]);
    }
    if (total > max_bytes) {
        write_shards(list, folder, stem, max_bytes, total, source);
    } else {
        char name[160];
        (void)snprintf(name, sizeof name, "%s.safetensors", stem);
        write_shard(folder, name, list->entries, list->n, source);
    }
    free(source);
    return total;
}
