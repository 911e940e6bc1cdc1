/* Routes: the accounts, for administrators; the tokens, for everybody's own. */
#include "security/accounts.h"
#include "security/gate_internal.h"

#include "base/clock.h"
#include "base/id.h"
#include "store/users.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define TOKEN_SHOWN 12 /* characters by which people tell tokens apart: "cyi_" and 8 more */

/* ---- Users ---- */

static enum problem_code list_users(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    (void)request;
    json_t *users = NULL;
    struct db *db = store_read(studio->store);
    const enum problem_code st = users_list(db, &users, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        response_json(response, 200, JSON("{s:o}", "users", users));
    }
    return st;
}

static enum problem_code show_user(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    json_t *user = NULL;
    struct db *db = store_read(studio->store);
    enum problem_code st = users_get(db, request_parameter(request, "id"), &user, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE && user == NULL) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such user");
    } else if (st == PROBLEM_NONE) {
        response_json(response, 200, user);
    }
    return st;
}

struct user_fields {
    const char *name, *role, *password;
    bool is_disabled;
    int64_t quota_jobs, quota_pictures, quota_mib;
};

#define MAX_QUOTA 1000000000
#define ROLES "admin|user|viewer"

/* name and role come first: they are needed for a new user only. */
static const struct json_row user_rows[] = {
    { "name", JSON_ROW_TEXT, offsetof(struct user_fields, name), 1, 63, NULL, 0 },
    { "role", JSON_ROW_CHOICE, offsetof(struct user_fields, role), 0, 0, ROLES, 0 },
    { "password", JSON_ROW_TEXT, offsetof(struct user_fields, password), MIN_PASSWORD_BYTES, MAX_PASSWORD_BYTES, NULL,
      0 },
    { "disabled", JSON_ROW_BOOL, offsetof(struct user_fields, is_disabled), 0, 0, NULL, 0 },
    { "quota_jobs", JSON_ROW_INT, offsetof(struct user_fields, quota_jobs), 0, MAX_QUOTA, NULL, JSON_NULLABLE },
    { "quota_pictures", JSON_ROW_INT, offsetof(struct user_fields, quota_pictures), 0, MAX_QUOTA, NULL, JSON_NULLABLE },
    { "quota_mib", JSON_ROW_INT, offsetof(struct user_fields, quota_mib), 0, MAX_QUOTA, NULL, JSON_NULLABLE },
};

static enum problem_code check_user_name(const char *name, struct problem *problem) {
    for (const char *c = name; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7F) {
            return problem_set(problem, PROBLEM_INVALID, "name", "a name has no control characters");
        }
    }
    return PROBLEM_NONE;
}

/* A copy of the request without the password: what goes into the row, and into the audit log. */
static json_t *without_password(const json_t *json) {
    json_t *copy = json_need(json_deep_copy(json));
    (void)json_object_del(copy, "password");
    return copy;
}

/* The audit row, the account as it is now, and the commit. */
static enum problem_code finish(struct store *store, struct db **db, const struct actor *actor, const char *action,
                                const char *id, json_t *details, json_t **ret_user, struct problem *problem) {
    json_t *user = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(audit_append(*db, actor, action, id, details, problem));
    TRY(users_get(*db, id, &user, problem));
    TRY(store_commit(store, db, problem));
    *ret_user = user;
    user = NULL;
done:
    json_decref(user);
    return st;
}

enum problem_code account_add(struct store *store, const struct actor *actor, const json_t *members, json_t **ret_user,
                              struct problem *problem) {
    struct user_fields fields = { 0 };
    char id[ID_TEXT];
    char *hash = NULL;
    struct db *db = NULL;
    json_t *changes = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read(members, user_rows, COUNT(user_rows), &fields, problem));
    if (fields.name == NULL || fields.role == NULL || fields.password == NULL) {
        st = problem_set(problem, PROBLEM_INVALID,
                         fields.name == NULL   ? "name"
                         : fields.role == NULL ? "role"
                                               : "password",
                         "a new user has a name, a role and a password");
        goto done;
    }
    TRY(check_user_name(fields.name, problem));
    TRY(password_hash(fields.password, &hash, problem));
    changes = without_password(members);
    TRY(store_begin(store, &db, problem));
    TRY(users_add(db, id_make(id), fields.name, fields.role, hash, problem));
    TRY(users_change(db, id, changes, problem));
    TRY(finish(store, &db, actor, "user.added", id, json_incref(changes), ret_user, problem));
done:
    store_rollback(store, &db);
    json_decref(changes);
    free(hash);
    return st;
}

enum problem_code account_change(struct store *store, const struct actor *actor, const char *id, const json_t *members,
                                 const char *session_id, json_t **ret_user, struct problem *problem) {
    struct user_fields fields = { 0 };
    char *hash = NULL;
    struct db *db = NULL;
    json_t *changes = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read(members, user_rows, COUNT(user_rows), &fields, problem));
    if (fields.name != NULL) {
        TRY(check_user_name(fields.name, problem));
    }
    if (fields.password != NULL) {
        TRY(password_hash(fields.password, &hash, problem));
    }
    changes = without_password(members);
    TRY(store_begin(store, &db, problem));
    TRY(users_change(db, id, changes, problem));
    if (hash != NULL) { /* whoever knew the old one is out */
        TRY(users_set_password(db, id, hash, problem));
        TRY(sessions_remove_others(db, id, session_id, problem));
    }
    json_put(changes, "password_set", json_boolean(hash != NULL));
    TRY(finish(store, &db, actor, "user.changed", id, json_incref(changes), ret_user, problem));
done:
    store_rollback(store, &db);
    json_decref(changes);
    free(hash);
    return st;
}

enum problem_code account_remove(struct store *store, const struct actor *actor, const char *id,
                                 struct problem *problem) {
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(store, &db, problem));
    TRY(users_remove(db, id, problem));
    TRY(audit_append(db, actor, "user.removed", id, NULL, problem));
    TRY(store_commit(store, &db, problem));
done:
    store_rollback(store, &db);
    return st;
}

static enum problem_code add_user(struct studio *studio, struct request *request, struct response *response,
                                  struct problem *problem) {
    json_t *user = NULL;
    const enum problem_code st =
        account_add(studio->store, request_actor(request), request_json(request), &user, problem);
    if (st == PROBLEM_NONE) {
        response_json(response, 201, user);
    }
    return st;
}

static enum problem_code change_user(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    json_t *user = NULL;
    const enum problem_code st =
        account_change(studio->store, request_actor(request), request_parameter(request, "id"), request_json(request),
                       request_caller(request)->session_id, &user, problem);
    if (st == PROBLEM_NONE) {
        response_json(response, 200, user);
    }
    return st;
}

static enum problem_code remove_user(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    const enum problem_code st =
        account_remove(studio->store, request_actor(request), request_parameter(request, "id"), problem);
    if (st == PROBLEM_NONE) {
        response_empty(response);
    }
    return st;
}

/* ---- Tokens ---- */

static enum problem_code list_tokens(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    json_t *tokens = NULL;
    struct db *db = store_read(studio->store);
    const enum problem_code st =
        tokens_list(db, request_is_admin(request) ? NULL : request_caller(request)->user_id, &tokens, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        response_json(response, 200, JSON("{s:o}", "tokens", tokens));
    }
    return st;
}

struct token_fields {
    const char *name, *expires;
    json_t *scopes;
};

static const struct json_row token_rows[] = {
    { "name", JSON_ROW_TEXT, offsetof(struct token_fields, name), 1, 100, NULL, JSON_NEEDED },
    { "scopes", JSON_ROW_ARRAY, offsetof(struct token_fields, scopes), 1, 4, NULL, JSON_NEEDED },
    { "expires", JSON_ROW_TEXT, offsetof(struct token_fields, expires), 1, 40, NULL, JSON_NULLABLE },
};

/* A token has no more access than who makes it. */
static enum problem_code check_scopes(const struct request *request, const json_t *scopes, struct problem *problem) {
    size_t i;
    json_t *scope;
    json_array_foreach(scopes, i, scope) {
        const char *name = json_string_value(scope);
        const unsigned access = name != NULL ? scope_access(name) : 0;
        if (access == 0) {
            return problem_set(problem, PROBLEM_INVALID, "scopes", "a scope is one of read, generate, edit and admin");
        }
        if ((request_caller(request)->access & access) == 0) {
            return problem_set(problem, PROBLEM_FORBIDDEN, "scopes", "you have no right to \"%s\" yourself", name);
        }
    }
    return PROBLEM_NONE;
}

static enum problem_code make_token(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    const struct caller *caller = request_caller(request);
    struct token_fields fields = { 0 };
    char secret[SECRET_TEXT], hash[SECRET_HASH_TEXT], id[ID_TEXT], shown[TOKEN_SHOWN + 1];
    int64_t expires_us = 0;
    char *token = NULL;
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read(request_json(request), token_rows, COUNT(token_rows), &fields, problem));
    TRY(check_scopes(request, fields.scopes, problem));
    if (fields.expires != NULL && (!clock_parse(fields.expires, &expires_us) || expires_us <= clock_now_us())) {
        st = problem_set(problem, PROBLEM_INVALID, "expires",
                         "\"expires\" must be a time to come, such as 2030-01-01T00:00:00Z");
        goto done;
    }
    secret_make(secret, hash);
    token = text_format(TOKEN_PREFIX "%s", secret);
    secret_hash(token, hash);
    (void)snprintf(shown, sizeof shown, "%s", token);
    TRY(store_begin(studio->store, &db, problem));
    TRY(tokens_add(db, id_make(id), hash, caller->user_id, fields.name, shown, fields.scopes, expires_us, problem));
    TRY(gate_finish(studio, request, &db, "token.made", id,
                    JSON("{s:s, s:O}", "name", fields.name, "scopes", fields.scopes), problem));
    response_json(response, 201,
                  JSON("{s:s, s:s, s:s, s:O, s:s}", "id", id, "name", fields.name, "prefix", shown, "scopes",
                       fields.scopes, "token", token));
done:
    store_rollback(studio->store, &db);
    sodium_memzero(secret, sizeof secret);
    free(token);
    return st;
}

static enum problem_code revoke_token(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    const char *id = request_parameter(request, "id");
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(studio->store, &db, problem));
    TRY(tokens_revoke(db, request_is_admin(request) ? NULL : request_caller(request)->user_id, id, problem));
    TRY(gate_finish(studio, request, &db, "token.revoked", id, NULL, problem));
    response_empty(response);
done:
    store_rollback(studio->store, &db);
    return st;
}

static const struct route rows[] = {
    { "GET", "/api/v1/users", ACCESS_ADMIN, BODY_NONE, 0, list_users },
    { "POST", "/api/v1/users", ACCESS_ADMIN, BODY_JSON, ROUTE_SLOW, add_user },
    { "GET", "/api/v1/users/{id}", ACCESS_ADMIN, BODY_NONE, 0, show_user },
    { "PATCH", "/api/v1/users/{id}", ACCESS_ADMIN, BODY_JSON, ROUTE_SLOW, change_user },
    { "DELETE", "/api/v1/users/{id}", ACCESS_ADMIN, BODY_NONE, 0, remove_user },
    { "GET", "/api/v1/tokens", ACCESS_READ, BODY_NONE, 0, list_tokens },
    { "POST", "/api/v1/tokens", ACCESS_READ, BODY_JSON, 0, make_token },
    { "DELETE", "/api/v1/tokens/{id}", ACCESS_READ, BODY_NONE, 0, revoke_token },
};

const struct route_table account_routes = { rows, COUNT(rows) };
