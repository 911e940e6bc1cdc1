/* Random weights into safetensors files: see random_file.h.
 *
 * Numbers come from a table of 2^15 normal values that is scaled to a tensor's standard deviation; xorshift picks four entries a
 * step. Files are written through shared mappings by all cores, a chunk at a time: how many steps come before a chunk is known, and
 * xorshift is linear over bits, so a chunk's first state is found at once. The values are those of one long sequence. */
#include "bench/random_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/dtype.h"

#define TABLE_BITS 15
#define TABLE_SIZE ((size_t)1 << TABLE_BITS)
#define CHUNK ((size_t)4 * 1024 * 1024) /* values that one core makes at a time; a multiple of 4 */
#define PATH_BYTES 4096

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

static uint64_t step(uint64_t state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Column i of matrix p: what 2^p steps make of bit i. */
struct jumps {
    uint64_t column[64][64];
};

static uint64_t multiply(const uint64_t column[64], uint64_t bits) {
    uint64_t sum = 0;
    for (int i = 0; i < 64; i++) {
        sum ^= column[i] & -(bits >> i & 1);
    }
    return sum;
}

static void init_jumps(struct jumps *jumps) {
    for (int i = 0; i < 64; i++) {
        jumps->column[0][i] = step(UINT64_C(1) << i);
    }
    for (int p = 1; p < 64; p++) {
        for (int i = 0; i < 64; i++) {
            jumps->column[p][i] = multiply(jumps->column[p - 1], jumps->column[p - 1][i]);
        }
    }
}

static uint64_t jump(const struct jumps *jumps, uint64_t state, uint64_t n_steps) {
    for (int p = 0; p < 64; p++) {
        state = (n_steps >> p & 1) != 0 ? multiply(jumps->column[p], state) : state;
    }
    return state;
}

/* One core's. */
struct source {
    uint64_t state;
    double std;
    uint16_t scaled[TABLE_SIZE]; /* normal × std as BF16 */
};

static double draw_uniform(uint64_t *state) {
    *state = step(*state);
    return (double)(*state >> 11) * 0x1p-53;
}

static float *create_table(uint64_t *state) {
    float *normal = calloc(TABLE_SIZE, sizeof *normal);
    if (normal == NULL) {
        die("out of memory");
    }
    for (size_t i = 0; i < TABLE_SIZE; i += 2) {
        double radius = sqrt(-2.0 * log(1.0 - draw_uniform(state)));
        double angle = 6.283185307179586 * draw_uniform(state);
        normal[i] = (float)(radius * cos(angle));
        normal[i + 1] = (float)(radius * sin(angle));
    }
    return normal;
}

static void set_std(struct source *source, const float *normal, double std) {
    if (fabs(source->std - std) <= 0.0) {
        return;
    }
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        source->scaled[i] = float_to_bf16(normal[i] * (float)std);
    }
    source->std = std;
}

static void fill_normal(struct source *source, uint16_t *values, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        uint64_t bits = source->state = step(source->state);
        for (size_t k = i; k < i + 4 && k < n; k++) {
            values[k] = source->scaled[bits >> (64 - TABLE_BITS)];
            bits <<= TABLE_BITS;
        }
    }
}

/* How many steps the first n values of a tensor take. */
static uint64_t count_steps(const struct random_entry *entry, size_t n) {
    switch (entry->fill) {
    case FILL_NORMAL:
    case FILL_SINUSOIDS:
        return (n + 3) / 4;
    case FILL_VARIANCE:
        return n;
    case FILL_ONES:
    case FILL_COUNT:
        return 0;
    }
    return 0;
}

/* How much column `col` of a time embedding's first weight counts: trained models do not follow the fast sinusoids either. */
static float damping(int64_t col, int64_t n_cols) {
    int64_t half = n_cols / 2;
    double speed = 1000.0 * exp(-log(10000.0) * (double)(col % half) / (double)half);
    return (float)(20.0 / (20.0 + speed));
}

/* Values first … first + n of a tensor. */
static void fill_values(struct source *source, const struct random_entry *entry, size_t first, size_t n,
                        uint16_t *values) {
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
        values[i] = float_to_bf16((float)(0.4 + 1.6 * draw_uniform(&source->state)));
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

/* The length, then the header; released by the caller. */
static uint8_t *create_header(const struct random_entry *entries, size_t n, size_t *ret_size) {
    size_t capacity = 24;
    uint64_t begin = 0;
    for (size_t i = 0; i < n; i++) {
        capacity += (size_t)print_entry(NULL, 0, &entries[i], UINT64_MAX / 2, false);
    }
    char *text = calloc(capacity, 1);
    if (text == NULL) {
        die("out of memory");
    }
    size_t used = 8;
    for (size_t i = 0; i < n; i++) {
        used += (size_t)print_entry(text + used, capacity - used, &entries[i], begin, i == 0);
        begin += count_bytes(&entries[i]);
    }
    text[used++] = '}';
    while (used % 8 != 0) {
        text[used++] = ' ';
    }
    for (int i = 0; i < 8; i++) {
        text[i] = (char)(uint8_t)((uint64_t)(used - 8) >> 8 * i);
    }
    *ret_size = used;
    return (uint8_t *)text;
}

/* A mapped file that grows to its size at once and starts with the header. */
static uint8_t *map_shard(const char *folder, const char *name, const struct random_entry *entries, size_t n,
                          size_t *ret_begin, size_t *ret_size) {
    char path[PATH_BYTES];
    struct statvfs space;
    uint8_t *header = create_header(entries, n, ret_begin);
    size_t size = *ret_begin;
    for (size_t i = 0; i < n; i++) {
        size += count_bytes(&entries[i]);
    }
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = length > 0 && length < PATH_BYTES ? open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    if (fd < 0) {
        die("%s/%s: cannot be created: %s", folder, name, strerror(errno));
    }
    if (fstatvfs(fd, &space) == 0 && space.f_bavail < size / space.f_frsize) { /* a full disk would be a signal */
        die("%s: %zu bytes do not fit on the disk", path, size);
    }
    uint8_t *data =
        ftruncate(fd, (off_t)size) == 0 ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (data == MAP_FAILED) {
        die("%s: cannot be written: %s", path, strerror(errno));
    }
    (void)close(fd);
    memcpy(data, header, *ret_begin);
    free(header);
    *ret_size = size;
    return data;
}

struct job {
    const struct random_entry *entry;
    size_t first, n;
    uint64_t n_steps; /* before it */
    uint16_t *values;
};

struct numbers {
    struct jumps jumps;
    float *normal;
    uint64_t state; /* where the next tensor begins */
};

static void run_jobs(const struct numbers *numbers, const struct job *jobs, size_t n_jobs) {
#pragma omp parallel
    {
        struct source *source = calloc(1, sizeof *source);
        if (source == NULL) {
            die("out of memory");
        }
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < n_jobs; i++) {
            const struct job *job = &jobs[i];
            set_std(source, numbers->normal, job->entry->std);
            source->state = jump(&numbers->jumps, numbers->state, job->n_steps);
            fill_values(source, job->entry, job->first, job->n, job->values);
        }
        free(source);
    }
}

static void write_shard(const char *folder, const char *name, const struct random_entry *entries, size_t n,
                        struct numbers *numbers) {
    size_t offset = 0;
    size_t size = 0;
    size_t n_jobs = 0;
    uint64_t n_steps = 0;
    uint8_t *data = map_shard(folder, name, entries, n, &offset, &size);
    struct job *jobs = calloc(size / (CHUNK * sizeof(uint16_t)) + n, sizeof *jobs);
    if (jobs == NULL) {
        die("out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        size_t n_values = entries[i].fill == FILL_COUNT ? 0 : count_elements(&entries[i]); /* the count is 0 already */
        for (size_t first = 0; first < n_values; first += CHUNK) {
            jobs[n_jobs++] = (struct job){ .entry = &entries[i],
                                           .first = first,
                                           .n = n_values - first < CHUNK ? n_values - first : CHUNK,
                                           .n_steps = n_steps + count_steps(&entries[i], first),
                                           .values = (uint16_t *)(void *)(data + offset) + first };
        }
        n_steps += count_steps(&entries[i], n_values);
        offset += count_bytes(&entries[i]);
    }
    run_jobs(numbers, jobs, n_jobs);
    numbers->state = jump(&numbers->jumps, numbers->state, n_steps);
    free(jobs);
    if (munmap(data, size) != 0) {
        die("%s: cannot be written: %s", name, strerror(errno));
    }
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
                         uint64_t total, struct numbers *numbers) {
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
        write_shard(folder, name, list->entries + first, n, numbers);
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
    struct numbers numbers = { .state = seed * 0x9e3779b97f4a7c15U + 1 };
    numbers.normal = create_table(&numbers.state);
    init_jumps(&numbers.jumps);
    for (size_t i = 0; i < list->n; i++) {
        total += count_bytes(&list->entries[i]);
    }
    if (total > max_bytes) {
        write_shards(list, folder, stem, max_bytes, total, &numbers);
    } else {
        char name[160];
        (void)snprintf(name, sizeof name, "%s.safetensors", stem);
        write_shard(folder, name, list->entries, list->n, &numbers);
    }
    free(numbers.normal);
    return total;
}
