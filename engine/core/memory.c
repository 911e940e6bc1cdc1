/* Memory: see memory.h. The only file of the engine that calls malloc. */
#include "core/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/size.h"

#define HUGE_PAGE ((size_t)2 * 1024 * 1024)
#define HUGE_FROM (2 * HUGE_PAGE)
#define CHUNK_MIN ((size_t)1024 * 1024)
#define MAX_CHUNKS 256

static void *default_allocate(void *user, size_t size_bytes) {
    (void)user;
    if (size_bytes < HUGE_FROM) {
        return malloc(size_bytes);
    }
    void *block = NULL;
    if (posix_memalign(&block, HUGE_PAGE, size_bytes) != 0) {
        return NULL;
    }
    (void)madvise(block, size_bytes, MADV_HUGEPAGE); /* a wish: fewer page faults and TLB misses where granted */
    return block;
}

static void default_release(void *user, void *block) {
    (void)user;
    free(block);
}

const struct cyi_allocator mem_default_allocator = { default_allocate, default_release, NULL };

void *mem_alloc(const struct cyi_allocator *allocator, size_t size_bytes) {
    return size_bytes == 0 ? NULL : allocator->allocate(allocator->user, size_bytes);
}

void *mem_alloc_zeroed(const struct cyi_allocator *allocator, size_t n, size_t size_bytes) {
    size_t total;
    if (!size_mul(&total, n, size_bytes)) {
        return NULL;
    }
    void *block = mem_alloc(allocator, total);
    if (block != NULL) {
        memset(block, 0, total);
    }
    return block;
}

char *mem_copy_string(const struct cyi_allocator *allocator, const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = mem_alloc(allocator, size);
    if (copy != NULL) {
        memcpy(copy, text, size);
    }
    return copy;
}

void mem_free(const struct cyi_allocator *allocator, void *block) {
    if (block != NULL) {
        allocator->release(allocator->user, block);
    }
}

/* ---- Byte buffer ---- */

void byte_buffer_init(struct byte_buffer *buffer, const struct cyi_allocator *allocator, size_t max_bytes) {
    *buffer = (struct byte_buffer){ .allocator = allocator, .max_bytes = max_bytes };
}

static enum cyi_status grow_buffer(struct byte_buffer *buffer, size_t needed, struct cyi_error *err) {
    size_t capacity = buffer->capacity_bytes < 256 ? 256 : buffer->capacity_bytes;
    while (capacity < needed) {
        capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    }
    uint8_t *data = mem_alloc(buffer->allocator, capacity);
    if (data == NULL) {
        return error_memory(err, "a buffer", capacity);
    }
    if (buffer->size_bytes > 0) {
        memcpy(data, buffer->data, buffer->size_bytes);
    }
    mem_free(buffer->allocator, buffer->data);
    buffer->data = data;
    buffer->capacity_bytes = capacity;
    return CYI_OK;
}

enum cyi_status byte_buffer_append(struct byte_buffer *buffer, const void *data, size_t n, struct cyi_error *err) {
    size_t needed;
    if (!size_add(&needed, buffer->size_bytes, n) || needed > buffer->max_bytes) {
        return error_set(err, CYI_E_ARGUMENT, "data is larger than its limit of %zu bytes", buffer->max_bytes);
    }
    if (needed > buffer->capacity_bytes) {
        enum cyi_status st = grow_buffer(buffer, needed, err);
        if (st != CYI_OK) {
            return st;
        }
    }
    if (n > 0 && data != NULL) {
        memcpy(buffer->data + buffer->size_bytes, data, n);
    } else if (n > 0) {
        memset(buffer->data + buffer->size_bytes, 0, n);
    }
    buffer->size_bytes = needed;
    return CYI_OK;
}

void byte_buffer_done(struct byte_buffer *buffer) {
    mem_free(buffer->allocator, buffer->data);
    buffer->data = NULL;
    buffer->size_bytes = buffer->capacity_bytes = 0;
}

/* ---- Arena ---- */

struct chunk {
    void *block;    /* as the allocator gave it */
    uint8_t *start; /* the first aligned byte */
    size_t size_bytes, used_bytes;
};

/* Chunks before `current` are full or skipped, chunks after it hold nothing. */
struct arena {
    const struct cyi_allocator *allocator; /* of this struct */
    const struct cyi_allocator *blocks;    /* of the chunks */
    struct chunk chunks[MAX_CHUNKS];
    size_t n_chunks, current;
    size_t held_bytes, peak_bytes;
};

enum cyi_status arena_create(const struct cyi_allocator *allocator, struct arena **ret_arena, struct cyi_error *err) {
    return arena_create_over(allocator, allocator, ret_arena, err);
}

enum cyi_status arena_create_over(const struct cyi_allocator *allocator, const struct cyi_allocator *blocks,
                                  struct arena **ret_arena, struct cyi_error *err) {
    struct arena *arena = mem_alloc_zeroed(allocator, 1, sizeof *arena);
    if (arena == NULL) {
        return error_memory(err, "an arena", sizeof *arena);
    }
    arena->allocator = allocator;
    arena->blocks = blocks;
    *ret_arena = arena;
    return CYI_OK;
}

void arena_free(struct arena *arena) {
    if (arena == NULL) {
        return;
    }
    for (size_t i = 0; i < arena->n_chunks; i++) {
        mem_free(arena->blocks, arena->chunks[i].block);
    }
    mem_free(arena->allocator, arena);
}

static struct chunk *add_chunk(struct arena *arena, size_t needed) {
    size_t size = needed < CHUNK_MIN ? CHUNK_MIN : needed;
    size_t total;
    if (arena->n_chunks == MAX_CHUNKS || !size_add(&total, size, MEM_ALIGN)) {
        return NULL;
    }
    void *block = mem_alloc(arena->blocks, total);
    if (block == NULL) {
        return NULL;
    }
    struct chunk *chunk = &arena->chunks[arena->n_chunks++];
    uintptr_t start = ((uintptr_t)block + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
    *chunk = (struct chunk){ .block = block, .start = (uint8_t *)start, .size_bytes = size };
    arena->held_bytes += total;
    if (arena->held_bytes > arena->peak_bytes) {
        arena->peak_bytes = arena->held_bytes;
    }
    return chunk;
}

void *arena_alloc(struct arena *arena, size_t n, size_t size_bytes) {
    size_t needed;
    if (!size_mul(&needed, n, size_bytes) || !size_add(&needed, needed, MEM_ALIGN - 1)) {
        return NULL;
    }
    needed = needed / MEM_ALIGN * MEM_ALIGN;
    if (needed == 0) {
        needed = MEM_ALIGN;
    }
    while (arena->current < arena->n_chunks) {
        struct chunk *chunk = &arena->chunks[arena->current];
        if (chunk->size_bytes - chunk->used_bytes >= needed) {
            void *piece = chunk->start + chunk->used_bytes;
            chunk->used_bytes += needed;
            return piece;
        }
        arena->current++;
    }
    struct chunk *chunk = add_chunk(arena, needed);
    if (chunk == NULL) {
        arena->current = arena->n_chunks == 0 ? 0 : arena->n_chunks - 1;
        return NULL;
    }
    arena->current = arena->n_chunks - 1;
    chunk->used_bytes = needed;
    return chunk->start;
}

struct arena_mark arena_get_mark(const struct arena *arena) {
    struct arena_mark mark = { .chunk = arena->current };
    if (arena->current < arena->n_chunks) {
        mark.used_bytes = arena->chunks[arena->current].used_bytes;
    }
    return mark;
}

void arena_release(struct arena *arena, struct arena_mark mark) {
    for (size_t i = mark.chunk; i < arena->n_chunks; i++) {
        arena->chunks[i].used_bytes = i == mark.chunk ? mark.used_bytes : 0;
    }
    arena->current = mark.chunk;
}

void arena_trim(struct arena *arena) {
    while (arena->n_chunks > 0 && arena->chunks[arena->n_chunks - 1].used_bytes == 0) {
        struct chunk *chunk = &arena->chunks[--arena->n_chunks];
        arena->held_bytes -= chunk->size_bytes + MEM_ALIGN;
        mem_free(arena->blocks, chunk->block);
    }
    if (arena->current > arena->n_chunks) {
        arena->current = arena->n_chunks;
    }
}

size_t arena_get_peak(const struct arena *arena) {
    return arena->peak_bytes;
}
