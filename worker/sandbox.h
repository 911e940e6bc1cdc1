/* sandbox: what a worker gives up before it reads anything of others. It needs neither network nor programs: its models are files,
 * its orders come over a socket that is open already. */
#ifndef WORKER_SANDBOX_H
#define WORKER_SANDBOX_H

#include <stdbool.h>

/* Dies with the thread that started it (the system counts that thread, not its process, as the parent), gains no rights, leaves no
 * memory for others to read, and is what the system ends first when memory runs out. false: expected_parent is gone already. */
bool sandbox_bind_to_parent(int expected_parent);

/* From now on no new sockets, connections, programs or debugging: such calls fail with EPERM, in every thread. Not for cards: their
 * drivers open sockets and start helpers. false: the kernel has no such filters; nothing has changed then. */
bool sandbox_enter(void);

#endif
