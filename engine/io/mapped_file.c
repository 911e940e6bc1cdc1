/* Mapped files: see mapped_file.h. The size is taken once, at open: whoever cuts a mapped file short makes its readers
 * fault (SIGBUS), which is why models are replaced by renaming and never rewritten in place. */
#include "io/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct mapped_file {
    const struct cyi_allocator *allocator;
    char *path;
    void *data;
    size_t size_bytes;
};

/* An open file's size, if it is a file that can be mapped. */
static enum cyi_status check_file(int fd, const char *path, size_t *ret_size, struct cyi_error *err) {
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return error_set(err, CYI_E_IO, "%s: cannot be examined: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return error_set(err, CYI_E_IO, "%s: is not a regular file", path);
    }
    if (info.st_size <= 0) {
        return error_set(err, CYI_E_IO, "%s: the file is empty", path);
    }
    *ret_size = (size_t)info.st_size;
    return CYI_OK;
}

static enum cyi_status map_file(struct mapped_file *file, const char *path, struct cyi_error *err) {
    /* Without O_NONBLOCK the open of a named pipe would wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_set(err, CYI_E_IO, "%s: cannot be opened: %s", path, strerror(errno));
    }
    enum cyi_status st = CYI_OK;
    size_t size = 0;
    TRY(check_file(fd, path, &size, err));
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        st = error_set(err, CYI_E_IO, "%s: %zu bytes cannot be mapped: %s", path, size, strerror(errno));
        goto done;
    }
    file->data = data;
    file->size_bytes = size;
done:
    (void)close(fd);
    return st;
}

enum cyi_status mapped_file_open(const struct cyi_allocator *allocator, const char *path, struct mapped_file **ret_file,
                                 struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct mapped_file *file = mem_alloc_zeroed(allocator, 1, sizeof *file);
    if (file == NULL) {
        return error_memory(err, "a mapped file", sizeof *file);
    }
    file->allocator = allocator;
    file->path = mem_copy_string(allocator, path);
    if (file->path == NULL) {
        st = error_memory(err, "the path of a file", strlen(path) + 1);
        goto done;
    }
    TRY(map_file(file, path, err));
    *ret_file = file;
    file = NULL;
done:
    mapped_file_close(file);
    return st;
}

void mapped_file_close(struct mapped_file *file) {
    if (file == NULL) {
        return;
    }
    if (file->data != NULL) {
        (void)munmap(file->data, file->size_bytes);
    }
    mem_free(file->allocator, file->path);
    mem_free(file->allocator, file);
}

const uint8_t *mapped_file_data(const struct mapped_file *file) {
    return file->data;
}

size_t mapped_file_size(const struct mapped_file *file) {
    return file->size_bytes;
}

const char *mapped_file_path(const struct mapped_file *file) {
    return file->path;
}

void mapped_file_will_need(const struct mapped_file *file, size_t offset, size_t size_bytes) {
    if (offset >= file->size_bytes || size_bytes == 0) {
        return;
    }
    size_t left = file->size_bytes - offset;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t before = offset % page;
    size_t length = (size_bytes < left ? size_bytes : left) + before;
    (void)madvise((uint8_t *)file->data + (offset - before), length, MADV_WILLNEED);
}
