/* sandbox: what a worker gives up before it reads anything of others. It needs neither network nor programs: its
 * models are files, its
 * orders come over a socket that is open already. */
#ifndef WORKER_SANDBOX_H
#define WORKER_SANDBOX_H

#include <stdbool.h>

/* Dies with its parent (expected_parent is the process that started it; false when that is gone already), gains no
 * rights, leaves no
 * memory for others to read, and is what the system ends first when memory runs out. */
bool sandbox_bind_to_parent(int expected_parent);

/* From now on no new sockets, connections, programs or debugging: such calls fail with EPERM. Not for cards: their
 * drivers open sockets
 * and start helpers. false: the kernel has no such filters; the worker goes on without. */
bool sandbox_enter(void);

#endif
