/* store/users: accounts, their sessions and their tokens. Secrets come here as hashes only. Rows are named like the
 * API's members. */
#ifndef SERVER_STORE_USERS_H
#define SERVER_STORE_USERS_H

#include "store/audit.h"

/* {"id", "name", "role", "disabled", "has_password", "quota_jobs", "quota_pictures", "quota_mib", "created"}, or NULL. */
enum problem_code users_get(struct db *db, const char *id, json_t **ret_user, struct problem *problem);
enum problem_code users_list(struct db *db, json_t **ret_users, struct problem *problem);
/* {"id", "password" (a hash, or null), "disabled"}, or NULL. Names are alike in upper and lower case. */
enum problem_code users_find(struct db *db, const char *name, json_t **ret_user, struct problem *problem);
/* The administrator that was made first and is not disabled, or NULL. */
enum problem_code users_first_admin(struct db *db, json_t **ret_user, struct problem *problem);
enum problem_code users_count_passwords(struct db *db, int64_t *ret_n, struct problem *problem);
/* password: a hash, or NULL. Errors: CONFLICT (the name is taken). */
enum problem_code users_add(struct db *db, const char *id, const char *name, const char *role, const char *password,
                            struct problem *problem);
/* Sets the members that are in changes: name, role, disabled, quota_… (null: none of its own). Errors: NOT_FOUND,
 * CONFLICT (the last administrator, a taken name). */
enum problem_code users_change(struct db *db, const char *id, const json_t *changes, struct problem *problem);
enum problem_code users_set_password(struct db *db, const char *id, const char *password, struct problem *problem);
/* What is the user's stays, without an owner. Errors: NOT_FOUND, CONFLICT (the last administrator). */
enum problem_code users_remove(struct db *db, const char *id, struct problem *problem);
/* The model that this user's programs chose without naming it in each request; NULL when they chose none. A new string. */
enum problem_code users_get_model(struct db *db, const char *id, char **ret_model, struct problem *problem);
enum problem_code users_set_model(struct db *db, const char *id, const char *model, struct problem *problem);
/* {"jobs" (that wait or run), "pictures", "bytes"} of this user; what lies in the trash counts. */
enum problem_code users_usage(struct db *db, const char *id, json_t **ret_usage, struct problem *problem);

enum problem_code sessions_add(struct db *db, const char *hash, const char *id, const char *user_id,
                               const char *address, const char *user_agent, struct problem *problem);
/* {"id", "used_us", "user_id", "name", "role"} of a session that was used since used_after_us, of a user that is not
 * disabled; or NULL. */
enum problem_code sessions_find(struct db *db, const char *hash, int64_t used_after_us, json_t **ret_session,
                                struct problem *problem);
enum problem_code sessions_touch(struct db *db, const char *hash, struct problem *problem);
enum problem_code sessions_list(struct db *db, const char *user_id, json_t **ret_sessions, struct problem *problem);
/* user_id NULL: anyone's. Errors: NOT_FOUND. */
enum problem_code sessions_remove(struct db *db, const char *user_id, const char *id, struct problem *problem);
/* All of a user's but one (NULL: all). */
enum problem_code sessions_remove_others(struct db *db, const char *user_id, const char *but_id,
                                         struct problem *problem);
/* Does it still hold? By id, as a caller carries it; the row as sessions_find, or NULL. */
enum problem_code sessions_get(struct db *db, const char *id, int64_t used_after_us, json_t **ret_session,
                               struct problem *problem);

/* scopes: an array of texts. expires_us 0: never. */
enum problem_code tokens_add(struct db *db, const char *id, const char *hash, const char *user_id, const char *name,
                             const char *prefix, const json_t *scopes, int64_t expires_us, struct problem *problem);
/* {"id", "scopes", "user_id", "name", "role", "used_us"} of a token that holds; or NULL. by: "hash" or "id". */
enum problem_code tokens_find(struct db *db, const char *hash, json_t **ret_token, struct problem *problem);
enum problem_code tokens_get(struct db *db, const char *id, json_t **ret_token, struct problem *problem);
enum problem_code tokens_touch(struct db *db, const char *id, struct problem *problem);
/* {"id", "name", "prefix", "scopes", "created", "used", "expires", "owner"}; user_id NULL: everybody's. */
enum problem_code tokens_list(struct db *db, const char *user_id, json_t **ret_tokens, struct problem *problem);
enum problem_code tokens_revoke(struct db *db, const char *user_id, const char *id, struct problem *problem);

#endif
