/* lock: one program at a time writes in a data folder. */
#ifndef SERVER_LOCK_H
#define SERVER_LOCK_H

#include "base/problem.h"

/* Takes the lock DATA/lock, which ends with the descriptor (or the process). The folder must exist. Errors: CONFLICT
 * (another program has
 * it), INTERNAL. */
enum problem_code data_lock(const char *data_folder, int *ret_fd, struct problem *problem);

#endif
