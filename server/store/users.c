/* Accounts, sessions, tokens: see users.h. */
#include "store/users.h"

#include "base/clock.h"

#include <stdlib.h>

#define NOW ((json_int_t)clock_now_us())

/* ---- Users ---- */

#define USER_COLUMNS                                                                                                   \
    "id, name, role, is_disabled AS \"disabled:b\", password IS NOT NULL AS \"has_password:b\", quota_jobs, "          \
    "quota_pictures, quota_mib, created_us AS \"created:t\" "

enum problem_code users_get(struct db *db, const char *id, json_t **ret_user, struct problem *problem) {
    return db_one(db, "SELECT " USER_COLUMNS "FROM users WHERE id = ?1", ARGS("s]", id), ret_user, problem);
}

enum problem_code users_list(struct db *db, json_t **ret_users, struct problem *problem) {
    return db_all(db, "SELECT " USER_COLUMNS "FROM users ORDER BY name LIMIT 10000", NO_ARGS, ret_users, problem);
}

enum problem_code users_find(struct db *db, const char *name, json_t **ret_user, struct problem *problem) {
    return db_one(db, "SELECT id, password, is_disabled AS \"disabled:b\" FROM users WHERE name = ?1", ARGS("s]", name),
                  ret_user, problem);
}

enum problem_code users_first_admin(struct db *db, json_t **ret_user, struct problem *problem) {
    return db_one(db,
                  "SELECT " USER_COLUMNS "FROM users WHERE role = 'admin' AND is_disabled = 0 "
                  "ORDER BY created_us, id LIMIT 1",
                  NO_ARGS, ret_user, problem);
}

enum problem_code users_count_passwords(struct db *db, int64_t *ret_n, struct problem *problem) {
    return db_int(db, "SELECT count(*) FROM users WHERE password IS NOT NULL AND is_disabled = 0", NO_ARGS, 0, ret_n,
                  problem);
}

static enum problem_code check_name(struct db *db, const char *name, const char *but_id, struct problem *problem) {
    int64_t n = 0;
    const enum problem_code st = db_int(db, "SELECT count(*) FROM users WHERE name = ?1 AND id <> ?2",
                                        ARGS("s,s]", name, but_id), 0, &n, problem);
    return st == PROBLEM_NONE && n > 0
               ? problem_set(problem, PROBLEM_CONFLICT, "name", "there is a user \"%.60s\" already", name)
               : st;
}

enum problem_code users_add(struct db *db, const char *id, const char *name, const char *role, const char *password,
                            struct problem *problem) {
    const enum problem_code st = check_name(db, name, "", problem);
    return st != PROBLEM_NONE
               ? st
               : db_run(db, "INSERT INTO users (id, name, role, password, created_us) VALUES (?1, ?2, ?3, ?4, ?5)",
                        ARGS("s,s,s,s?,I]", id, name, role, password, NOW), problem);
}

/* Called after a change in the same transaction: somebody must be left who can undo it. */
static enum problem_code check_admins(struct db *db, struct problem *problem) {
    int64_t n = 0;
    const enum problem_code st =
        db_int(db, "SELECT count(*) FROM users WHERE role = 'admin' AND is_disabled = 0", NO_ARGS, 0, &n, problem);
    return st == PROBLEM_NONE && n == 0
               ? problem_set(problem, PROBLEM_CONFLICT, NULL, "this is the last administrator; make another one first")
               : st;
}

enum problem_code users_change(struct db *db, const char *id, const json_t *changes, struct problem *problem) {
    static const struct {
        const char *member, *sql;
    } columns[] = {
        { "name", "UPDATE users SET name = ?1 WHERE id = ?2" },
        { "role", "UPDATE users SET role = ?1 WHERE id = ?2" },
        { "disabled", "UPDATE users SET is_disabled = ?1 WHERE id = ?2" },
        { "quota_jobs", "UPDATE users SET quota_jobs = ?1 WHERE id = ?2" },
        { "quota_pictures", "UPDATE users SET quota_pictures = ?1 WHERE id = ?2" },
        { "quota_mib", "UPDATE users SET quota_mib = ?1 WHERE id = ?2" },
    };
    int64_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(db_int(db, "SELECT count(*) FROM users WHERE id = ?1", ARGS("s]", id), 0, &n, problem));
    if (n == 0) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such user");
        goto done;
    }
    if (json_get_text(changes, "name") != NULL) {
        TRY(check_name(db, json_get_text(changes, "name"), id, problem));
    }
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        json_t *value = json_object_get(changes, columns[i].member);
        if (value != NULL) {
            TRY(db_run(db, columns[i].sql, ARGS("O,s]", value, id), problem));
        }
    }
    TRY(check_admins(db, problem));
done:
    return st;
}

enum problem_code users_set_password(struct db *db, const char *id, const char *password, struct problem *problem) {
    return db_run(db, "UPDATE users SET password = ?1 WHERE id = ?2", ARGS("s,s]", password, id), problem);
}

enum problem_code users_remove(struct db *db, const char *id, struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    TRY(db_run(db, "DELETE FROM users WHERE id = ?1", ARGS("s]", id), problem));
    if (db_changes(db) == 0) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such user");
        goto done;
    }
    TRY(db_run(db, "DELETE FROM state WHERE name = 'model.' || ?1", ARGS("s]", id), problem));
    TRY(check_admins(db, problem));
done:
    return st;
}

enum problem_code users_get_model(struct db *db, const char *id, char **ret_model, struct problem *problem) {
    json_t *row = NULL;
    const enum problem_code st =
        db_one(db, "SELECT value FROM state WHERE name = 'model.' || ?1", ARGS("s]", id), &row, problem);
    if (st == PROBLEM_NONE) {
        *ret_model = text_copy(json_get_text(row, "value"));
    }
    json_decref(row);
    return st;
}

enum problem_code users_set_model(struct db *db, const char *id, const char *model, struct problem *problem) {
    return db_run(db,
                  "INSERT INTO state (name, value) VALUES ('model.' || ?1, ?2) "
                  "ON CONFLICT (name) DO UPDATE SET value = ?2",
                  ARGS("s,s]", id, model), problem);
}

enum problem_code users_usage(struct db *db, const char *id, json_t **ret_usage, struct problem *problem) {
    return db_one(db,
                  "SELECT (SELECT count(*) FROM jobs WHERE owner = ?1 AND state IN ('queued', 'running')) AS jobs, "
                  "count(*) AS pictures, coalesce(sum(size_bytes), 0) AS bytes FROM images WHERE owner = ?1",
                  ARGS("s]", id), ret_usage, problem);
}

/* ---- Sessions ---- */

#define SESSION_ROW                                                                                                    \
    "SELECT s.id, s.used_us, s.user_id, u.name, u.role FROM sessions s JOIN users u ON u.id = s.user_id "              \
    "WHERE u.is_disabled = 0 AND s.used_us > ?2 AND "

enum problem_code sessions_add(struct db *db, const char *hash, const char *id, const char *user_id,
                               const char *address, const char *user_agent, struct problem *problem) {
    return db_run(db,
                  "INSERT INTO sessions (hash, id, user_id, created_us, used_us, address, user_agent) "
                  "VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6)",
                  ARGS("s,s,s,I,o,o]", hash, id, user_id, NOW, json_text(address), json_text(user_agent)), problem);
}

enum problem_code sessions_find(struct db *db, const char *hash, int64_t used_after_us, json_t **ret_session,
                                struct problem *problem) {
    return db_one(db, SESSION_ROW "s.hash = ?1", ARGS("s,I]", hash, (json_int_t)used_after_us), ret_session, problem);
}

enum problem_code sessions_get(struct db *db, const char *id, int64_t used_after_us, json_t **ret_session,
                               struct problem *problem) {
    return db_one(db, SESSION_ROW "s.id = ?1", ARGS("s,I]", id, (json_int_t)used_after_us), ret_session, problem);
}

enum problem_code sessions_touch(struct db *db, const char *hash, struct problem *problem) {
    return db_run(db, "UPDATE sessions SET used_us = ?1 WHERE hash = ?2", ARGS("I,s]", NOW, hash), problem);
}

enum problem_code sessions_list(struct db *db, const char *user_id, json_t **ret_sessions, struct problem *problem) {
    return db_all(db,
                  "SELECT id, created_us AS \"created:t\", used_us AS \"used:t\", address, user_agent FROM sessions "
                  "WHERE user_id = ?1 ORDER BY used_us DESC LIMIT 1000",
                  ARGS("s]", user_id), ret_sessions, problem);
}

enum problem_code sessions_remove(struct db *db, const char *user_id, const char *id, struct problem *problem) {
    const enum problem_code st = db_run(db, "DELETE FROM sessions WHERE id = ?1 AND (?2 IS NULL OR user_id = ?2)",
                                        ARGS("s,s?]", id, user_id), problem);
    return st == PROBLEM_NONE && db_changes(db) == 0
               ? problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such session")
               : st;
}

enum problem_code sessions_remove_others(struct db *db, const char *user_id, const char *but_id,
                                         struct problem *problem) {
    return db_run(db, "DELETE FROM sessions WHERE user_id = ?1 AND id <> ?2",
                  ARGS("s,s]", user_id, but_id != NULL ? but_id : ""), problem);
}

/* ---- Tokens ---- */

#define TOKEN_ROW                                                                                                      \
    "SELECT t.id, t.scopes AS \"scopes:j\", t.user_id, u.name, u.role, t.used_us FROM tokens t "                       \
    "JOIN users u ON u.id = t.user_id WHERE u.is_disabled = 0 AND t.revoked_us IS NULL AND "                           \
    "(t.expires_us IS NULL OR t.expires_us > ?2) AND "

enum problem_code tokens_add(struct db *db, const char *id, const char *hash, const char *user_id, const char *name,
                             const char *prefix, const json_t *scopes, int64_t expires_us, struct problem *problem) {
    char *text = json_text_of(scopes);
    const enum problem_code st =
        db_run(db,
               "INSERT INTO tokens (id, hash, user_id, name, prefix, scopes, created_us, expires_us) "
               "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
               ARGS("s,s,s,s,s,s,I,o]", id, hash, user_id, name, prefix, text, NOW,
                    expires_us > 0 ? json_integer(expires_us) : json_null()),
               problem);
    free(text);
    return st;
}

enum problem_code tokens_find(struct db *db, const char *hash, json_t **ret_token, struct problem *problem) {
    return db_one(db, TOKEN_ROW "t.hash = ?1", ARGS("s,I]", hash, NOW), ret_token, problem);
}

enum problem_code tokens_get(struct db *db, const char *id, json_t **ret_token, struct problem *problem) {
    return db_one(db, TOKEN_ROW "t.id = ?1", ARGS("s,I]", id, NOW), ret_token, problem);
}

enum problem_code tokens_touch(struct db *db, const char *id, struct problem *problem) {
    return db_run(db, "UPDATE tokens SET used_us = ?1 WHERE id = ?2", ARGS("I,s]", NOW, id), problem);
}

enum problem_code tokens_list(struct db *db, const char *user_id, json_t **ret_tokens, struct problem *problem) {
    return db_all(db,
                  "SELECT t.id, t.name, t.prefix, t.scopes AS \"scopes:j\", t.created_us AS \"created:t\", "
                  "t.used_us AS \"used:t\", t.expires_us AS \"expires:t\", u.name AS owner FROM tokens t "
                  "JOIN users u ON u.id = t.user_id WHERE t.revoked_us IS NULL AND (?1 IS NULL OR t.user_id = ?1) "
                  "ORDER BY t.created_us DESC LIMIT 1000",
                  ARGS("s?]", user_id), ret_tokens, problem);
}

enum problem_code tokens_revoke(struct db *db, const char *user_id, const char *id, struct problem *problem) {
    const enum problem_code st = db_run(
        db, "UPDATE tokens SET revoked_us = ?1 WHERE id = ?2 AND revoked_us IS NULL AND (?3 IS NULL OR user_id = ?3)",
        ARGS("I,s,s?]", NOW, id, user_id), problem);
    return st == PROBLEM_NONE && db_changes(db) == 0
               ? problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such token")
               : st;
}
