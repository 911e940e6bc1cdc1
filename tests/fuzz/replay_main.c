/* Runs a fuzz target over every file of the corpus folders given on the command line, in order of their names, without
 * a fuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_INPUT_BYTES ((size_t)64 * 1024 * 1024)

/* The file's bytes in a block of exactly their number, so that a sanitizer sees the first byte read too far. */
static int replay_file(const char *path) {
    FILE *stream = fopen(path, "rb");
    if (stream == NULL) {
        perror(path);
        return -1;
    }
    int result = -1;
    uint8_t *data = NULL;
    if (fseek(stream, 0, SEEK_END) == 0) {
        long size = ftell(stream);
        if (size >= 0 && (size_t)size <= MAX_INPUT_BYTES && fseek(stream, 0, SEEK_SET) == 0) {
            data = malloc(size == 0 ? 1 : (size_t)size);
            result = data != NULL && fread(data, 1, (size_t)size, stream) == (size_t)size ? 0 : -1;
        }
        if (result == 0) {
            (void)LLVMFuzzerTestOneInput(data, (size_t)size);
        } else {
            (void)fprintf(stderr, "%s: cannot be read\n", path);
        }
    }
    free(data);
    (void)fclose(stream);
    return result;
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

/* Returns the number of files, -1 when one could not be read. */
static int replay_folder(const char *folder) {
    struct dirent **entries;
    int n = scandir(folder, &entries, is_visible, alphasort);
    if (n < 0) {
        perror(folder);
        return -1;
    }
    int result = n;
    for (int i = 0; i < n; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        if (replay_file(path) != 0) {
            result = -1;
        }
        free(entries[i]);
    }
    free(entries);
    return result;
}

int main(int argc, char **argv) {
    int n_files = 0;
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s CORPUS_FOLDER …\n", argv[0]);
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        int n = replay_folder(argv[i]);
        if (n < 0) {
            return 1;
        }
        n_files += n;
    }
    (void)printf("%d inputs replayed\n", n_files);
    return n_files > 0 ? 0 : 1;
}
