/* order: which orders a worker takes, and what their members must be. docs/worker-protocol.md has the same table in words. */
#ifndef WORKER_ORDER_H
#define WORKER_ORDER_H

#include "protocol.h"

#define ORDER_MAX_ID_BYTES 63

/* Errors: ARGUMENT (an unknown type; a member that is missing, of another type or outside its bounds; a body where none belongs).
 * Members that the table does not know are left alone. */
enum cyi_status order_check(const struct message *order, struct cyi_error *err);

#endif
