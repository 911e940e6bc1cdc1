/* safetensors: a header of JSON and the raw numbers behind it, used where they are mapped.
 *
 * Every rule of the format is checked at open (tests/unit/io/test_safetensors.c breaks each): header length, JSON, duplicate
 * names, known types, offsets that are contiguous, without holes, and end with the file, sizes that equal shape × type.
 * Immutable after open, share freely. */
#ifndef IO_SAFETENSORS_H
#define IO_SAFETENSORS_H

#include "core/tensor.h"
#include "io/mapped_file.h"

#define SAFETENSORS_MAX_HEADER_BYTES ((uint64_t)100000000)
#define SAFETENSORS_MAX_TENSORS 100000

struct safetensors;

struct safetensors_entry {
    const char *name; /* owned by the file */
    bool
        is_usable; /* false: a type that the format has but the engine does not compute with (BOOL, I16, F64, rank > 4 …) */
    struct tensor tensor;            /* data inside the mapping, read-only; a scalar (rank 0) appears as [1] */
    size_t offset_bytes, size_bytes; /* in the file */
};

/* Errors: IO, FORMAT (names file, tensor and rule), MEMORY. */
enum cyi_status safetensors_open(const struct cyi_allocator *allocator, const char *path, struct safetensors **ret_file,
                                 struct cyi_error *err);
/* The same for a file that is already in memory (fuzzing, tests); data is borrowed until close. name is for messages. */
enum cyi_status safetensors_parse(const struct cyi_allocator *allocator, const char *name, const void *data,
                                  size_t size_bytes, struct safetensors **ret_file, struct cyi_error *err);
void safetensors_close(struct safetensors *file);

size_t safetensors_n_entries(const struct safetensors *file);
const struct safetensors_entry *safetensors_entry_at(const struct safetensors *file, size_t i); /* in file order */
const struct safetensors_entry *safetensors_find(const struct safetensors *file,
                                                 const char *name); /* NULL: absent. O(log n) */
/* A value of __metadata__, NULL when absent. */
const char *safetensors_metadata(const struct safetensors *file, const char *key);
const char *safetensors_path(const struct safetensors *file);
/* The header's bytes (JSON), for fingerprints. */
const void *safetensors_header(const struct safetensors *file, size_t *ret_size);
const struct mapped_file *safetensors_mapping(const struct safetensors *file); /* NULL when parsed from memory */

/* Writes tensors (packed, any dtype) as a safetensors file, atomically. Used for caches, tests and tools. Errors: IO, MEMORY, ARGUMENT. */
enum cyi_status safetensors_write(const struct cyi_allocator *allocator, const char *path, const char *const *names,
                                  const struct tensor *tensors, size_t n_tensors, struct cyi_error *err);

/* ---- Weight sets: the tensors of one model part, in one file or many ---- */

struct weight_set;

/* Opens a .safetensors file, or a folder that holds STEM.safetensors, or STEM.safetensors.index.json and its shards
 * (stem: "diffusion_pytorch_model" or "model"). Shard names must be plain file names; a shard that is missing, a tensor that the index
 * names but its shard lacks, is an error that names both. Errors: IO, FORMAT, MEMORY. */
enum cyi_status weight_set_open(const struct cyi_allocator *allocator, const char *path, const char *stem,
                                struct weight_set **ret_set, struct cyi_error *err);
void weight_set_close(struct weight_set *set);

size_t weight_set_n_files(const struct weight_set *set);
const struct safetensors *weight_set_file(const struct weight_set *set, size_t i);
const struct safetensors_entry *weight_set_find(const struct weight_set *set, const char *name); /* NULL: absent */
bool weight_set_has(const struct weight_set *set, const char *name);
/* Names the set in messages: its path. */
const char *weight_set_path(const struct weight_set *set);
uint64_t weight_set_mapped_bytes(const struct weight_set *set);
uint64_t weight_set_n_parameters(const struct weight_set *set); /* elements of floating tensors */

/* SHA-256 over every file's header and, of every tensor, its first and last 2 KiB: tells different weights apart in milliseconds.
 * hex: 65 bytes. Errors: none (reads mapped pages). */
void weight_set_fingerprint(const struct weight_set *set, char hex[65]);

#endif
