/* Files below a folder: see gallery_internal.h. Paths are made of ids by this program; that they cannot leave the
 * folder is checked by the kernel all the same. */
#include "gallery/gallery_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MODE 0600
#define FOLDER_MODE 0700

/* Without openat2 (Linux before 5.6, some sandboxes): one part after the other, none of them a link. */
static int open_by_parts(int folder_fd, const char *path, int flags) {
    int at = dup(folder_fd);
    const char *rest = path;
    for (const char *slash; at >= 0 && (slash = strchr(rest, '/')) != NULL; rest = slash + 1) {
        char part[GALLERY_PATH];
        (void)snprintf(part, sizeof part, "%.*s", (int)(slash - rest), rest);
        if (part[0] == '\0' || strcmp(part, "..") == 0) {
            (void)close(at);
            errno = EXDEV;
            return -1;
        }
        const int next = openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        const int error = errno;
        (void)close(at);
        at = next;
        errno = error;
    }
    if (at < 0) {
        return -1;
    }
    const int fd = openat(at, rest, flags | O_NOFOLLOW | O_CLOEXEC, (flags & O_CREAT) != 0 ? MODE : 0);
    const int error = errno;
    (void)close(at);
    errno = error;
    return fd;
}

int file_open_below(int folder_fd, const char *path, int flags) {
    const struct open_how how = { .flags = (unsigned)(flags | O_CLOEXEC),
                                  .mode = (flags & O_CREAT) != 0 ? MODE : 0,
                                  .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
    const long fd = syscall(SYS_openat2, folder_fd, path, &how, sizeof how);
    return fd < 0 && (errno == ENOSYS || errno == EPERM) ? open_by_parts(folder_fd, path, flags) : (int)fd;
}

enum problem_code file_read(int fd, size_t max_bytes, void **ret_data, size_t *ret_n, struct problem *problem) {
    struct stat info;
    char *data = NULL;
    size_t got = 0;
    enum problem_code st = PROBLEM_NONE;
    if (fd < 0) {
        return errno == ENOENT ? problem_set(problem, PROBLEM_NOT_FOUND, NULL, "the picture's file is not there")
                               : problem_system(problem, errno, "the picture's file");
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || (uint64_t)info.st_size > max_bytes) {
        st = problem_set(problem, PROBLEM_TOO_LARGE, NULL, "the picture's file is no file of at most %zu bytes",
                         max_bytes);
        goto done;
    }
    data = text_alloc((size_t)info.st_size + 1, 1);
    while (got < (size_t)info.st_size) {
        const ssize_t n = read(fd, data + got, (size_t)info.st_size - got);
        if (n <= 0 && !(n < 0 && errno == EINTR)) {
            st = problem_system(problem, n < 0 ? errno : EIO, "the picture's file");
            goto done;
        }
        got += n > 0 ? (size_t)n : 0;
    }
    *ret_data = data;
    *ret_n = got;
    data = NULL;
done:
    free(data);
    (void)close(fd);
    return st;
}

/* Makes the folders of path; new ones are on disk when this returns. */
static int make_folders(int folder_fd, const char *path, bool is_durable) {
    char part[GALLERY_PATH];
    for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        (void)snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (mkdirat(folder_fd, part, FOLDER_MODE) == 0) {
            char *above = strrchr(part, '/');
            if (above != NULL) {
                *above = '\0';
            }
            const int fd =
                is_durable ? above != NULL ? file_open_below(folder_fd, part, O_RDONLY | O_DIRECTORY) : dup(folder_fd)
                           : -1;
            const int code = fd >= 0 ? fsync(fd) : 0;
            if (fd >= 0) {
                (void)close(fd);
            }
            if (code != 0) {
                return -1;
            }
        } else if (errno != EEXIST) {
            return -1;
        }
    }
    return 0;
}

static int write_all(int fd, const void *data, size_t n) {
    for (size_t done = 0; done < n;) {
        const ssize_t m = write(fd, (const char *)data + done, n - done);
        if (m < 0 && errno != EINTR) {
            return -1;
        }
        done += m > 0 ? (size_t)m : 0;
    }
    return 0;
}

static int sync_folder_of(int folder_fd, const char *path) {
    char folder[GALLERY_PATH];
    const char *slash = strrchr(path, '/');
    (void)snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash - path) : 1, slash != NULL ? path : ".");
    const int fd = file_open_below(folder_fd, folder, O_RDONLY | O_DIRECTORY);
    const int code = fd >= 0 ? fsync(fd) : -1;
    const int error = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    errno = error;
    return code;
}

enum problem_code file_write_below(int folder_fd, const char *path, const void *data, size_t n, bool is_durable,
                                   struct problem *problem) {
    char temporary[GALLERY_PATH + 8];
    (void)snprintf(temporary, sizeof temporary, "%s.part", path);
    int fd = -1, code = make_folders(folder_fd, path, is_durable);
    if (code == 0) {
        fd = file_open_below(folder_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC);
        code = fd < 0 ? -1 : write_all(fd, data, n);
    }
    if (code == 0 && is_durable) {
        code = fsync(fd);
    }
    int error = errno;
    if (fd >= 0 && close(fd) != 0 && code == 0) {
        code = -1;
        error = errno;
    }
    if (code == 0 && renameat(folder_fd, temporary, folder_fd, path) != 0) {
        code = -1;
        error = errno;
    }
    if (code == 0 && is_durable && sync_folder_of(folder_fd, path) != 0) {
        code = -1;
        error = errno;
    }
    if (code != 0) {
        (void)unlinkat(folder_fd, temporary, 0);
        return problem_system(problem, error, "the picture");
    }
    return PROBLEM_NONE;
}

int file_move_below(int folder_fd, const char *from, const char *to) {
    return make_folders(folder_fd, to, true) == 0 && renameat(folder_fd, from, folder_fd, to) == 0 ? 0 : -1;
}

void file_remove_below(int folder_fd, const char *path) {
    (void)unlinkat(folder_fd, path, 0);
}
