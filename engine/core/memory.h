/* Memory: every byte of the engine comes through here, from the caller's allocator.
 *
 * Single blocks (mem_*) have one owner. Arenas hold what dies together: a model, a job. An arena hands out 64-byte aligned pieces
 * and takes back whole stretches at once (mark and release); released stretches are kept and used again until the arena is freed. */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include "core/error.h"

#define MEM_ALIGN 64

extern const struct cyi_allocator mem_default_allocator; /* malloc; blocks of 4 MiB and more ask for huge pages */

/* Blocks. NULL when there is no memory (or size is 0). Alignment of malloc. Threads: as the allocator. */
void *mem_alloc(const struct cyi_allocator *allocator, size_t size_bytes);
void *mem_alloc_zeroed(const struct cyi_allocator *allocator, size_t n,
                       size_t size_bytes); /* n × size_bytes, checked */
char *mem_copy_string(const struct cyi_allocator *allocator, const char *text);
void mem_free(const struct cyi_allocator *allocator, void *block); /* NULL is fine */

/* A byte buffer that grows up to a maximum given at init. Owner: whoever called init. */
struct byte_buffer {
    const struct cyi_allocator *allocator;
    uint8_t *data;
    size_t size_bytes, capacity_bytes, max_bytes;
};
void byte_buffer_init(struct byte_buffer *buffer, const struct cyi_allocator *allocator, size_t max_bytes);
/* Appends n bytes (data NULL: zeros). Errors: MEMORY, ARGUMENT when max_bytes would be passed; the buffer is unchanged then. */
enum cyi_status byte_buffer_append(struct byte_buffer *buffer, const void *data, size_t n, struct cyi_error *err);
void byte_buffer_done(struct byte_buffer *buffer);

struct arena;
struct arena_mark {
    size_t chunk, used_bytes;
};

/* One thread at a time. */
enum cyi_status arena_create(const struct cyi_allocator *allocator, struct arena **ret_arena, struct cyi_error *err);
/* An arena whose pieces come from `blocks`, memory that the arena itself never touches (a device's). */
enum cyi_status arena_create_over(const struct cyi_allocator *allocator, const struct cyi_allocator *blocks,
                                  struct arena **ret_arena, struct cyi_error *err);
void arena_free(struct arena *arena);
/* A piece of n × size_bytes, not initialised. NULL when there is no memory or the product overflows. */
void *arena_alloc(struct arena *arena, size_t n, size_t size_bytes);
struct arena_mark arena_get_mark(const struct arena *arena);
/* Everything handed out since the mark is free again; the chunks stay with the arena. */
void arena_release(struct arena *arena, struct arena_mark mark);
/* Gives chunks that hold nothing back to the allocator (between phases, so that the next one does not stand on top). */
void arena_trim(struct arena *arena);
/* Most bytes ever held from the allocator at one time. */
size_t arena_get_peak(const struct arena *arena);

#endif
