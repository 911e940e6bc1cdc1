/* files: what the command line does with folders and files beside the pictures themselves: cache folder, reading an input with its
 * SHA-256, and naming what comes out so that nothing is ever overwritten by accident. */
#ifndef COMMON_FILES_H
#define COMMON_FILES_H

#include "text.h"

#define FILES_SHA256_TEXT 65

bool files_is_folder(const char *path);
bool files_exists(const char *path); /* anything of that name, a dangling link as well */

/* The last part of a path, without the folders. Points into path. */
const char *files_base_name(const char *path);
/* A new string. */
char *files_join(const char *folder, const char *name);
/* The folder that holds path ("." when path has no slash). A new string. */
char *files_folder_of(const char *path);

/* Creates folder and what is missing above it with the given mode. Errors: IO. */
enum cyi_status files_make_folder(const char *folder, unsigned mode, struct cyi_error *err);

/* $XDG_CACHE_HOME/cyberimage, else ~/.cache/cyberimage; NULL when neither variable is set. A new string. */
char *files_default_cache(void);

/* Reads a whole file of at most max_bytes. Errors: IO, FORMAT (too big). */
enum cyi_status files_read(const char *path, size_t max_bytes, void **ret_data, size_t *ret_size_bytes,
                           struct cyi_error *err);
void files_hash(const void *data, size_t size_bytes, char ret_sha256[FILES_SHA256_TEXT]);

/* Can a file be made in this folder, with room for need_bytes? Errors: IO. */
enum cyi_status files_check_writable(const char *folder, uint64_t need_bytes, struct cyi_error *err);

/* "png", "jpeg", "webp" by the ending, BY_NAME when it is none of ours. */
enum cyi_image_format files_format_of(const char *path);
const char *files_format_ending(enum cyi_image_format format); /* ".png" */
const char *files_format_name(enum cyi_image_format format);   /* "png", "jpeg", "webp" */

/* "cat.png", 3 → "cat-3.png". A new string. */
char *files_numbered(const char *path, int number);

/* Gives the finished file temporary the name FOLDER/STEM.ENDING, or STEM-2.ENDING, … when that exists; never replaces one.
 * Returns the name (a new string), or NULL with err (IO). */
char *files_publish(const char *temporary, const char *folder, const char *stem, const char *ending,
                    struct cyi_error *err);

#endif
