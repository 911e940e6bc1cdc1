/* Folders, inputs and the names of outputs: see files.h. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

bool files_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool files_exists(const char *path) {
    struct stat info;
    return lstat(path, &info) == 0;
}

const char *files_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

char *files_join(const char *folder, const char *name) {
    const size_t n = strlen(folder);
    return text_format("%s%s%s", folder, n > 0 && folder[n - 1] == '/' ? "" : "/", name);
}

char *files_folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return text_copy(".");
    }
    return slash == path ? text_copy("/") : text_format("%.*s", (int)(slash - path), path);
}

enum cyi_status files_make_folder(const char *folder, unsigned mode, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    char *path = text_copy(folder);
    for (char *at = path + 1; path[0] != '\0' && st == CYI_OK; at++) {
        const char here = *at;
        if (here != '/' && here != '\0') {
            continue;
        }
        *at = '\0';
        if (mkdir(path, (mode_t)mode) != 0 && errno != EEXIST) {
            st = text_error(err, CYI_E_IO, "cannot make the folder %s: %s", path, strerror(errno));
        }
        *at = here;
        if (here == '\0') {
            break;
        }
    }
    if (st == CYI_OK && !files_is_folder(path)) {
        st = text_error(err, CYI_E_IO, "%s is not a folder", path);
    }
    free(path);
    return st;
}

char *files_default_cache(void) {
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (cache != NULL && cache[0] == '/') {
        return files_join(cache, "cyberimage");
    }
    return home != NULL && home[0] == '/' ? files_join(home, ".cache/cyberimage") : NULL;
}

enum cyi_status files_read(const char *path, size_t max_bytes, void **ret_data, size_t *ret_size_bytes,
                           struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    unsigned char *data = NULL;
    size_t n = 0, capacity = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return text_error(err, CYI_E_IO, "cannot open %s: %s", path, strerror(errno));
    }
    for (;;) {
        if (n == capacity) {
            capacity = capacity == 0 ? (size_t)64 * 1024 : capacity * 2;
            data = text_resize(data, capacity, 1);
        }
        const ssize_t got = read(fd, data + n, capacity - n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            st = text_error(err, CYI_E_IO, "cannot read %s: %s", path, strerror(errno));
        }
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
        if (n > max_bytes) {
            st = text_error(err, CYI_E_FORMAT, "%s is larger than %zu bytes", path, max_bytes);
            break;
        }
    }
    (void)close(fd);
    if (st != CYI_OK) {
        free(data);
        return st;
    }
    *ret_data = data;
    *ret_size_bytes = n;
    return CYI_OK;
}

void files_hash(const void *data, size_t size_bytes, char ret_sha256[FILES_SHA256_TEXT]) {
    unsigned char hash[crypto_hash_sha256_BYTES];
    (void)crypto_hash_sha256(hash, data, size_bytes);
    (void)sodium_bin2hex(ret_sha256, FILES_SHA256_TEXT, hash, sizeof hash);
}

/* By making a file and removing it: rights alone do not tell (/proc, a read-only mount, somebody else's rules). */
static bool can_make_file(const char *folder) {
    char *path = files_join(folder, ".cyberimage-XXXXXX");
    const int fd = mkostemp(path, O_CLOEXEC);
    const int error = errno;
    if (fd >= 0) {
        (void)unlink(path);
        (void)close(fd);
    }
    free(path);
    errno = error;
    return fd >= 0;
}

enum cyi_status files_check_writable(const char *folder, uint64_t need_bytes, struct cyi_error *err) {
    struct statvfs space;
    if (!files_is_folder(folder)) {
        return text_error(err, CYI_E_IO, "the folder %s does not exist", folder);
    }
    if (!can_make_file(folder)) {
        return text_error(err, CYI_E_IO, "cannot write into the folder %s: %s", folder, strerror(errno));
    }
    if (statvfs(folder, &space) == 0 && space.f_blocks > 0) {
        const uint64_t free_bytes = (uint64_t)space.f_bavail * (uint64_t)space.f_frsize;
        if (free_bytes < need_bytes) {
            char have[TEXT_SHORT], need[TEXT_SHORT];
            return text_error(err, CYI_E_IO, "the disk of %s has %s left, and up to %s may be needed", folder,
                              text_bytes(have, free_bytes), text_bytes(need, need_bytes));
        }
    }
    return CYI_OK;
}

enum cyi_image_format files_format_of(const char *path) {
    static const struct {
        const char *ending;
        enum cyi_image_format format;
    } endings[] = { { ".png", CYI_FORMAT_PNG },
                    { ".jpg", CYI_FORMAT_JPEG },
                    { ".jpeg", CYI_FORMAT_JPEG },
                    { ".webp", CYI_FORMAT_WEBP } };
    const char *dot = strrchr(files_base_name(path), '.');
    for (size_t i = 0; dot != NULL && i < sizeof endings / sizeof endings[0]; i++) {
        if (strcasecmp(dot, endings[i].ending) == 0) {
            return endings[i].format;
        }
    }
    return CYI_FORMAT_BY_NAME;
}

const char *files_format_ending(enum cyi_image_format format) {
    return format == CYI_FORMAT_JPEG ? ".jpg" : format == CYI_FORMAT_WEBP ? ".webp" : ".png";
}

const char *files_format_name(enum cyi_image_format format) {
    return format == CYI_FORMAT_JPEG ? "jpeg" : format == CYI_FORMAT_WEBP ? "webp" : "png";
}

char *files_numbered(const char *path, int number) {
    const char *dot = strrchr(files_base_name(path), '.');
    const int n_stem = dot != NULL && dot != files_base_name(path) ? (int)(dot - path) : (int)strlen(path);
    return text_format("%.*s-%d%s", n_stem, path, number, path + n_stem);
}

/* Renames without replacing. Where the file system cannot, a hard link and the removal of the old name do the same. */
static int rename_to_new(const char *from, const char *to) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
        return 0;
    }
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) {
        return -1;
    }
    return link(from, to) == 0 ? unlink(from) : -1;
}

char *files_publish(const char *temporary, const char *folder, const char *stem, const char *ending,
                    struct cyi_error *err) {
    for (int number = 1; number < 10000; number++) {
        char *name = number == 1 ? text_format("%s%s", stem, ending) : text_format("%s-%d%s", stem, number, ending);
        char *path = files_join(folder, name);
        free(name);
        if (rename_to_new(temporary, path) == 0) {
            return path;
        }
        if (errno != EEXIST) {
            (void)text_error(err, CYI_E_IO, "cannot write %s: %s", path, strerror(errno));
            free(path);
            break;
        }
        free(path);
    }
    (void)text_error(err, CYI_E_IO, "cannot find a free name for %s%s in %s", stem, ending, folder);
    (void)unlink(temporary);
    return NULL;
}
