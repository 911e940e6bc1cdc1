/* accounts: making, changing and removing them, for the API and for the operator's command. Members are those of the API: name,
 * role, password, disabled, quota_jobs, quota_pictures, quota_mib. Passwords are hashed here, which takes a good part of a
 * second. Each change is one transaction with its audit row. */
#ifndef SERVER_SECURITY_ACCOUNTS_H
#define SERVER_SECURITY_ACCOUNTS_H

#include "store/audit.h"

/* name, role and password must be there. The caller decrefs *ret_user. Errors: INVALID (names the member), CONFLICT (the name
 * is taken). */
enum problem_code account_add(struct store *store, const struct actor *actor, const json_t *members, json_t **ret_user,
                              struct problem *problem);
/* A new password ends the account's sessions but session_id (NULL: all). Errors: also NOT_FOUND; CONFLICT for the last
 * administrator. */
enum problem_code account_change(struct store *store, const struct actor *actor, const char *id, const json_t *members,
                                 const char *session_id, json_t **ret_user, struct problem *problem);
enum problem_code account_remove(struct store *store, const struct actor *actor, const char *id,
                                 struct problem *problem);

#endif
