/* Pictures on their way in and out. A file comes into the folder ".moving" first, durably; its row commits; then it goes to
 * its place. It leaves the same way: into ".moving", the row goes, then the file. Whatever happens between, the next start
 * finds in ".moving" all that is unsettled, and the rows say what becomes of it. So no file is ever without a row, and an
 * older database that is put back never costs a picture that it does not know. */
#include "gallery/gallery_internal.h"

#include "base/id.h"
#include "base/log.h"
#include "store/images.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER ".moving"
#define MAX_TRIES 3

static const char *moving_path(const char *id, char buffer[64]) {
    (void)snprintf(buffer, 64, FOLDER "/%.36s.png", id);
    return buffer;
}

enum problem_code moving_write(struct gallery *gallery, const char *id, const void *data, size_t n,
                               struct problem *problem) {
    char path[64];
    return file_write_below(gallery->images_fd, moving_path(id, path), data, n, true, problem);
}

void moving_settle(struct gallery *gallery, const char *id) {
    char from[64], to[64];
    (void)file_move_below(gallery->images_fd, moving_path(id, from), gallery_relative_path(id, to));
}

bool moving_take_out(struct gallery *gallery, const char *id) {
    char from[64], to[64];
    return file_move_below(gallery->images_fd, gallery_relative_path(id, from), moving_path(id, to)) == 0 ||
           errno == ENOENT;
}

enum problem_code moving_sync(struct gallery *gallery, struct problem *problem) {
    const int fd = file_open_below(gallery->images_fd, FOLDER, O_RDONLY | O_DIRECTORY);
    const int code = fd < 0 ? -1 : fsync(fd);
    const int error = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    return code != 0 && error != ENOENT ? problem_system(problem, error, "the folder of the pictures") : PROBLEM_NONE;
}

void moving_remove(struct gallery *gallery, const char *id) {
    char path[64];
    file_remove_below(gallery->images_fd, moving_path(id, path));
}

int picture_open(struct gallery *gallery, const char *id) {
    char path[64];
    int fd = -1;
    errno = ENOENT;
    for (int i = 0; i < MAX_TRIES && fd < 0 && errno == ENOENT; i++) { /* it may move between two looks */
        fd = file_open_below(gallery->images_fd, i % 2 == 0 ? gallery_relative_path(id, path) : moving_path(id, path),
                             O_RDONLY);
    }
    return fd;
}

/* ---- At the start ---- */

/* "ID.png" → ID. */
static bool read_id(const char *name, char ret_id[ID_TEXT]) {
    if (strlen(name) != ID_TEXT - 1 + strlen(".png") || strcmp(name + ID_TEXT - 1, ".png") != 0) {
        return false;
    }
    (void)snprintf(ret_id, ID_TEXT, "%.36s", name);
    return id_is_valid(ret_id);
}

static enum problem_code settle_one(struct gallery *gallery, struct db *db, const char *id, int64_t *n_kept,
                                    int64_t *n_removed, struct problem *problem) {
    json_t *row = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(images_find(db, NULL, id, &row, problem));
    if (row != NULL) {
        moving_settle(gallery, id);
        ++*n_kept;
    } else {
        picture_remove_files(gallery, id);
        ++*n_removed;
    }
done:
    json_decref(row);
    return st;
}

enum problem_code moving_settle_all(struct gallery *gallery, struct problem *problem) {
    int64_t n_kept = 0, n_removed = 0;
    enum problem_code st = PROBLEM_NONE;
    if (mkdirat(gallery->images_fd, FOLDER, 0700) != 0 && errno != EEXIST) {
        return problem_system(problem, errno, "the folder of the pictures");
    }
    const int fd = file_open_below(gallery->images_fd, FOLDER, O_RDONLY | O_DIRECTORY);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (folder == NULL) {
        return problem_system(problem, errno, "the folder of the pictures");
    }
    struct db *db = store_read(gallery->studio->store);
    for (const struct dirent *entry; st == PROBLEM_NONE && (entry = readdir(folder)) != NULL;) {
        char id[ID_TEXT];
        if (read_id(entry->d_name, id)) {
            st = settle_one(gallery, db, id, &n_kept, &n_removed, problem);
        } else {
            (void)unlinkat(fd, entry->d_name, 0); /* half-written; folders stay */
        }
    }
    store_read_done(gallery->studio->store, db);
    (void)closedir(folder);
    if (n_kept + n_removed > 0) {
        log_event(LOG_INFO, "pictures.settled",
                  JSON("{s:I, s:I}", "kept", (json_int_t)n_kept, "removed", (json_int_t)n_removed));
    }
    return st;
}
