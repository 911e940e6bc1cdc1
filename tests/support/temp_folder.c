/* See temp_folder.h. */
#include "support/temp_folder.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void temp_folder_create(char folder[TEMP_PATH_BYTES]) {
    const char *root = getenv("TMPDIR");
    (void)snprintf(folder, TEMP_PATH_BYTES, "%s/cyi-test-XXXXXX", root != NULL && root[0] != '\0' ? root : P_tmpdir);
    assert_non_null(mkdtemp(folder));
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

void temp_folder_remove(const char *folder) {
    (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *temp_path(char path[TEMP_PATH_BYTES], const char *folder, const char *name) {
    int n = snprintf(path, TEMP_PATH_BYTES, "%s/%s", folder, name);
    assert_true(n > 0 && n < TEMP_PATH_BYTES);
    return path;
}

void temp_write(const char *path, const void *data, size_t size_bytes) {
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(data, 1, size_bytes, stream), size_bytes);
    assert_int_equal(fclose(stream), 0);
}

size_t temp_count(const char *folder) {
    size_t n = 0;
    DIR *stream = opendir(folder);
    assert_non_null(stream);
    for (const struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0; /* hidden ones too */
    }
    (void)closedir(stream);
    return n;
}
