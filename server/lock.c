/* The data folder's lock: see lock.h. */
#include "lock.h"

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

enum problem_code data_lock(const char *data_folder, int *ret_fd, struct problem *problem) {
    char *path = files_join(data_folder, "lock");
    enum problem_code st = PROBLEM_NONE;
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        st = problem_system(problem, errno, path);
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        st = errno == EWOULDBLOCK ? problem_set(problem, PROBLEM_CONFLICT, NULL,
                                                "a studio (or a command that changes it) is at work in %.300s; while "
                                                "it runs, its API does what commands do",
                                                data_folder)
                                  : problem_system(problem, errno, path);
        (void)close(fd);
    } else {
        *ret_fd = fd;
    }
    free(path);
    return st;
}
