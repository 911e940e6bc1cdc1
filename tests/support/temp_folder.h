/* A fresh folder for a test's files. */
#ifndef TESTS_TEMP_FOLDER_H
#define TESTS_TEMP_FOLDER_H

#include <stddef.h>

#define TEMP_PATH_BYTES 512

/* Creates a folder below TMPDIR (or the system's default). Fails the running test when it cannot. */
void temp_folder_create(char folder[TEMP_PATH_BYTES]);
/* Removes it with all that is in it. */
void temp_folder_remove(const char *folder);
/* folder/name into path. Returns path. */
const char *temp_path(char path[TEMP_PATH_BYTES], const char *folder, const char *name);
/* A file with these bytes. Fails the running test when it cannot be written. */
void temp_write(const char *path, const void *data, size_t size_bytes);
/* How many files and folders lie in a folder, hidden ones too. */
size_t temp_count(const char *folder);

#endif
