/* The cache folder: see cache_folder.h. */
#include "pipeline/cache_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/mapped_file.h"
#include "io/safetensors.h"

static char *kind_folder(const struct cyi_engine *engine, const char *kind) {
    return engine->cache_dir == NULL ? NULL : path_join(&engine->allocator, engine->cache_dir, kind);
}

static char *entry_path(const struct cyi_engine *engine, const char *kind, const char *key) {
    char name[128];
    char *folder = kind_folder(engine, kind);
    if (folder == NULL) {
        return NULL;
    }
    (void)snprintf(name, sizeof name, "%s.safetensors", key);
    char *path = path_join(&engine->allocator, folder, name);
    mem_free(&engine->allocator, folder);
    return path;
}

bool cache_read(const struct cyi_engine *engine, const char *kind, const char *key, float *values, size_t n) {
    bool is_read = false;
    struct safetensors *file = NULL;
    char *path = entry_path(engine, kind, key);
    if (path != NULL && file_exists(path) && safetensors_open(&engine->allocator, path, &file, NULL) == CYI_OK) {
        const struct safetensors_entry *entry = safetensors_find(file, "values");
        if (entry != NULL && entry->tensor.dtype == DTYPE_F32 && entry->size_bytes == n * sizeof *values) {
            memcpy(values, entry->tensor.data, entry->size_bytes);
            is_read = true;
            for (size_t i = 0; i < n && is_read; i++) {
                is_read = isfinite(values[i]);
            }
            (void)utimensat(AT_FDCWD, path, NULL, 0); /* used just now */
        }
    }
    safetensors_close(file);
    mem_free(&engine->allocator, path);
    return is_read;
}

/* The file of a folder that was used longest ago, and how much all of them hold. */
static uint64_t find_oldest(int folder, char oldest[256]) {
    uint64_t sum = 0;
    struct timespec first = { 0 };
    oldest[0] = '\0';
    int copy = dup(folder);
    DIR *list = copy >= 0 ? fdopendir(copy) : NULL;
    if (list == NULL) {
        return 0;
    }
    rewinddir(list);
    for (struct dirent *row = readdir(list); row != NULL; row = readdir(list)) {
        struct stat info;
        if (strstr(row->d_name, ".safetensors") == NULL || fstatat(folder, row->d_name, &info, 0) != 0) {
            continue;
        }
        sum += (uint64_t)info.st_size;
        if (oldest[0] == '\0' || info.st_mtim.tv_sec < first.tv_sec ||
            (info.st_mtim.tv_sec == first.tv_sec && info.st_mtim.tv_nsec < first.tv_nsec)) {
            first = info.st_mtim;
            (void)snprintf(oldest, 256, "%s", row->d_name);
        }
    }
    (void)closedir(list);
    return sum;
}

/* Makes room for size_bytes more. */
static void prune(const char *path, uint64_t size_bytes) {
    char oldest[256];
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        return;
    }
    while (find_oldest(folder, oldest) + size_bytes > CACHE_KIND_MAX_BYTES && oldest[0] != '\0') {
        if (unlinkat(folder, oldest, 0) != 0) {
            break;
        }
    }
    (void)close(folder);
}

void cache_write(const struct cyi_engine *engine, const char *kind, const char *key, const float *values, size_t n) {
    struct cyi_error err = { 0 };
    char *folder = kind_folder(engine, kind);
    char *path = entry_path(engine, kind, key);
    if (folder != NULL && path != NULL) {
        const char *name = "values";
        /* The tensor is only read from. */
        const struct tensor tensor = tensor_1d(DTYPE_F32, (int64_t)n, (void *)(uintptr_t)values);
        (void)mkdir(engine->cache_dir, 0700);
        (void)mkdir(folder, 0700);
        prune(folder, n * sizeof *values);
        if (safetensors_write(&engine->allocator, path, &name, &tensor, 1, &err) != CYI_OK) {
            engine_log(engine, CYI_LOG_WARNING, "cache.not_written kind=%s reason=\"%s\"", kind, err.text);
        }
    }
    mem_free(&engine->allocator, folder);
    mem_free(&engine->allocator, path);
}
