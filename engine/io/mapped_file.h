/* A file mapped read-only into memory. Immutable after open, share freely. */
#ifndef IO_MAPPED_FILE_H
#define IO_MAPPED_FILE_H

#include "core/memory.h"

struct mapped_file;

/* Errors: IO (names the file and the system's reason; not a regular file; empty), MEMORY. The file must not shrink while mapped:
 * the system would end the process (SIGBUS) at the next read behind the new end. */
enum cyi_status mapped_file_open(const struct cyi_allocator *allocator, const char *path, struct mapped_file **ret_file,
                                 struct cyi_error *err);
void mapped_file_close(struct mapped_file *file);

const uint8_t *mapped_file_data(const struct mapped_file *file);
size_t mapped_file_size(const struct mapped_file *file);
const char *mapped_file_path(const struct mapped_file *file);

/* Tells the system that a stretch will be read soon, or not again. Wishes: they never fail. */
void mapped_file_will_need(const struct mapped_file *file, size_t offset, size_t size_bytes);

/* A small whole file (configs, indexes, tokenizers) as text with a final NUL, released with mem_free.
 * Errors: IO, FORMAT when it is larger than max_bytes, MEMORY. */
enum cyi_status file_read_all(const struct cyi_allocator *allocator, const char *path, size_t max_bytes,
                              char **ret_text, size_t *ret_size, struct cyi_error *err);
bool file_exists(const char *path);   /* a regular file (or a link to one) */
bool folder_exists(const char *path); /* a folder (or a link to one) */

/* Writes a file in one go: temporary file beside it, fsync, rename, fsync of the folder. On failure nothing is left. Errors: IO, MEMORY. */
enum cyi_status file_write_atomically(const struct cyi_allocator *allocator, const char *path, const void *data,
                                      size_t size_bytes, struct cyi_error *err);

/* The same from pieces that follow each other in the file. */
struct file_piece {
    const void *data;
    size_t size_bytes;
};
enum cyi_status file_write_pieces(const struct cyi_allocator *allocator, const char *path,
                                  const struct file_piece *pieces, size_t n_pieces, struct cyi_error *err);

/* folder + "/" + name, released with mem_free. NULL when there is no memory. */
char *path_join(const struct cyi_allocator *allocator, const char *folder, const char *name);

#endif
