/* store/system: numbers of the whole studio, for the system view and the metrics. */
#ifndef SERVER_STORE_SYSTEM_H
#define SERVER_STORE_SYSTEM_H

#include "store/db.h"

/* {"queued", "running", "held", "pictures_waiting"}: cheap, from indexes of what is not finished. */
enum problem_code system_queue_numbers(struct db *db, json_t **ret_numbers, struct problem *problem);
/* {"jobs": {STATE: n…}, "images", "images_bytes", "trashed", "users", "audit_rows"}: walks through the tables. */
enum problem_code system_all_numbers(struct db *db, json_t **ret_numbers, struct problem *problem);

#endif
