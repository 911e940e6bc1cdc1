/* upkeep: what is done once a minute while the studio runs: old trash and copies go, and of the audit log what is older than the
 * setting audit-days. */
#ifndef SERVER_UPKEEP_H
#define SERVER_UPKEEP_H

#include "base/problem.h"

struct studio;
struct upkeep;

enum problem_code upkeep_start(struct studio *studio, struct upkeep **ret_upkeep, struct problem *problem);
void upkeep_stop(struct upkeep *upkeep); /* NULL is fine */

#endif
