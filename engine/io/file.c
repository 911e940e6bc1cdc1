/* Small whole files: reading, writing in one go, paths. Declared in mapped_file.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/size.h"
#include "io/mapped_file.h"

#define TEMPORARY_EXTRA 48 /* bytes that a temporary file's path may be longer than the final one */
#define TEMPORARY_ATTEMPTS 100
#define WRITE_MAX ((size_t)1 << 30) /* bytes given to one write() */

bool file_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool folder_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *path_join(const struct cyi_allocator *allocator, const char *folder, const char *name) {
    size_t folder_size = strlen(folder);
    size_t name_size = strlen(name);
    size_t total;
    if (!size_add(&total, folder_size, name_size) || !size_add(&total, total, 2)) {
        return NULL;
    }
    char *path = mem_alloc(allocator, total);
    if (path != NULL) {
        memcpy(path, folder, folder_size);
        path[folder_size] = '/';
        memcpy(path + folder_size + 1, name, name_size + 1);
    }
    return path;
}

/* ---- Reading ---- */

/* Reads until size bytes are there or the file ends. */
static enum cyi_status read_bytes(int fd, const char *path, char *text, size_t size, size_t *ret_size,
                                  struct cyi_error *err) {
    size_t used = 0;
    while (used < size) {
        ssize_t n = read(fd, text + used, size - used);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return error_set(err, CYI_E_IO, "%s: cannot be read: %s", path, strerror(errno));
        }
        if (n == 0) {
            break;
        }
        used += (size_t)n;
    }
    *ret_size = used;
    return CYI_OK;
}

static enum cyi_status check_size(int fd, const char *path, size_t max_bytes, size_t *ret_size, struct cyi_error *err) {
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return error_set(err, CYI_E_IO, "%s: cannot be examined: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return error_set(err, CYI_E_IO, "%s: is not a regular file", path);
    }
    if ((uint64_t)info.st_size > max_bytes) {
        return error_set(err, CYI_E_FORMAT, "%s: has %lld bytes, more than the limit of %zu", path,
                         (long long)info.st_size, max_bytes);
    }
    *ret_size = (size_t)info.st_size;
    return CYI_OK;
}

enum cyi_status file_read_all(const struct cyi_allocator *allocator, const char *path, size_t max_bytes,
                              char **ret_text, size_t *ret_size, struct cyi_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_set(err, CYI_E_IO, "%s: cannot be opened: %s", path, strerror(errno));
    }
    enum cyi_status st = CYI_OK;
    char *text = NULL;
    size_t size = 0;
    TRY(check_size(fd, path, max_bytes, &size, err));
    text = mem_alloc(allocator, size + 1);
    if (text == NULL) {
        st = error_memory(err, path, size + 1);
        goto done;
    }
    TRY(read_bytes(fd, path, text, size, &size, err));
    text[size] = '\0';
    *ret_text = text;
    *ret_size = size;
    text = NULL;
done:
    mem_free(allocator, text);
    (void)close(fd);
    return st;
}

/* ---- Writing ---- */

/* A new file in path's folder, under a name that nobody can guess and that does not grow with path's own; it goes into `name`
 * (strlen(path) + TEMPORARY_EXTRA bytes). -1 and errno on failure. */
static int open_temporary(const char *path, char *name, size_t name_size) {
    const char *slash = strrchr(path, '/');
    size_t folder_bytes = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    memcpy(name, path, folder_bytes);
    for (int i = 0; i < TEMPORARY_ATTEMPTS; i++) {
        uint64_t random;
        if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) {
            return -1;
        }
        (void)snprintf(name + folder_bytes, name_size - folder_bytes, ".cyberimage-%016" PRIx64 ".tmp", random);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) {
            return fd;
        }
    }
    return -1;
}

static bool write_bytes(int fd, const uint8_t *data, size_t size_bytes) {
    while (size_bytes > 0) {
        ssize_t n = write(fd, data, size_bytes < WRITE_MAX ? size_bytes : WRITE_MAX);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return false;
        }
        data += n;
        size_bytes -= (size_t)n;
    }
    return true;
}

static bool write_pieces(int fd, const struct file_piece *pieces, size_t n_pieces) {
    for (size_t i = 0; i < n_pieces; i++) {
        if (!write_bytes(fd, pieces[i].data, pieces[i].size_bytes)) {
            return false;
        }
    }
    return fsync(fd) == 0;
}

/* Makes a rename in the file's folder last. `scratch` holds at least strlen(path) + 1 bytes. */
static bool sync_folder_of(const char *path, char *scratch) {
    const char *slash = strrchr(path, '/');
    size_t size = slash == NULL ? 0 : (size_t)(slash - path);
    memcpy(scratch, path, size);
    scratch[size] = '\0';
    const char *folder = slash == NULL ? "." : size == 0 ? "/" : scratch;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool is_synced = fsync(fd) == 0 || errno == EINVAL; /* some file systems have no fsync for folders */
    (void)close(fd);
    return is_synced;
}

enum cyi_status file_write_pieces(const struct cyi_allocator *allocator, const char *path,
                                  const struct file_piece *pieces, size_t n_pieces, struct cyi_error *err) {
    size_t name_size = strlen(path) + TEMPORARY_EXTRA;
    char *name = mem_alloc(allocator, name_size);
    if (name == NULL) {
        return error_memory(err, "the name of a temporary file", name_size);
    }
    enum cyi_status st = CYI_OK;
    bool is_left_over = false;
    int fd = open_temporary(path, name, name_size);
    if (fd < 0) {
        st = error_set(err, CYI_E_IO, "%s: cannot be created: %s", path, strerror(errno));
        goto done;
    }
    is_left_over = true;
    bool is_written = write_pieces(fd, pieces, n_pieces);
    int reason = errno;
    if (close(fd) != 0 && is_written) {
        is_written = false;
        reason = errno;
    }
    if (!is_written) {
        st = error_set(err, CYI_E_IO, "%s: cannot be written: %s", path, strerror(reason));
        goto done;
    }
    if (rename(name, path) != 0) {
        st = error_set(err, CYI_E_IO, "%s: cannot be replaced: %s", path, strerror(errno));
        goto done;
    }
    is_left_over = false;
    if (!sync_folder_of(path, name)) {
        st = error_set(err, CYI_E_IO, "%s: its folder cannot be synced: %s", path, strerror(errno));
    }
done:
    if (is_left_over) {
        (void)unlink(name);
    }
    mem_free(allocator, name);
    return st;
}

enum cyi_status file_write_atomically(const struct cyi_allocator *allocator, const char *path, const void *data,
                                      size_t size_bytes, struct cyi_error *err) {
    const struct file_piece piece = { .data = data, .size_bytes = size_bytes };
    return file_write_pieces(allocator, path, &piece, 1, err);
}
