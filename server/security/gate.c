/* Who may what: see gate.h. */
#include "security/gate_internal.h"

#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "http/address.h"
#include "store/users.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LINK_SECONDS (24 * 3600)
#define TOUCH_SECONDS 300 /* how exactly it is known when a session was used last */
#define OWNER_NAME "owner"

/* ---- Roles ---- */

enum role role_of(const char *name) {
    return strcmp(name, "admin") == 0    ? ROLE_ADMIN
           : strcmp(name, "user") == 0   ? ROLE_USER
           : strcmp(name, "viewer") == 0 ? ROLE_VIEWER
                                         : ROLE_NONE;
}

unsigned role_access(enum role role) {
    static const unsigned access[] = {
        [ROLE_NONE] = 0,
        [ROLE_VIEWER] = ACCESS_READ,
        [ROLE_USER] = ACCESS_READ | ACCESS_GENERATE | ACCESS_EDIT,
        [ROLE_ADMIN] = ACCESS_READ | ACCESS_GENERATE | ACCESS_EDIT | ACCESS_ADMIN,
    };
    return access[role];
}

unsigned scope_access(const char *name) {
    return strcmp(name, "read") == 0       ? ACCESS_READ
           : strcmp(name, "generate") == 0 ? ACCESS_GENERATE
           : strcmp(name, "edit") == 0     ? ACCESS_EDIT
           : strcmp(name, "admin") == 0    ? ACCESS_ADMIN
                                           : 0;
}

/* ---- What an address demands ---- */

enum problem_code gate_check_binding(struct settings *settings, struct store *store, struct problem *problem) {
    struct listen_address listen;
    int64_t n_passwords = 0;
    char *text = settings_text(settings, SETTING_listen), *proxies = settings_text(settings, SETTING_trusted_proxies);
    char *certificate = settings_text(settings, SETTING_tls_certificate),
         *key = settings_text(settings, SETTING_tls_key);
    struct db *db = store_read(store);
    enum problem_code st = PROBLEM_NONE;
    TRY(address_parse_listen(text, &listen, problem));
    if (listen.is_loopback) {
        goto done;
    }
    if (settings_bool(settings, SETTING_no_auth)) {
        st = problem_set(problem, PROBLEM_INVALID, "no-auth",
                         "no-auth on %.60s would open the studio to everybody; it works on loopback only", text);
        goto done;
    }
    if ((certificate[0] == '\0' || key[0] == '\0') && proxies[0] == '\0') {
        st = problem_set(problem, PROBLEM_INVALID, "listen",
                         "%.60s can be reached by others: set tls-certificate and tls-key, or trusted-proxies when a "
                         "proxy in front of it speaks TLS",
                         text);
        goto done;
    }
    TRY(users_count_passwords(db, &n_passwords, problem));
    if (n_passwords == 0) {
        st = problem_set(problem, PROBLEM_INVALID, "listen",
                         "%.60s can be reached by others, and no account has a password yet: make one with "
                         "\"cyberimage user add NAME --role admin\"",
                         text);
    }
done:
    store_read_done(store, db);
    free(text);
    free(proxies);
    free(certificate);
    free(key);
    return st;
}

/* ---- Start ---- */

enum problem_code gate_ensure_owner(struct store *store, struct problem *problem) {
    struct db *db = NULL;
    json_t *admin = NULL;
    char id[ID_TEXT];
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(store, &db, problem));
    TRY(users_first_admin(db, &admin, problem));
    if (admin == NULL) {
        TRY(users_add(db, id_make(id), OWNER_NAME, "admin", NULL, problem));
        TRY(audit_append(db, &actor_system, "user.added", id, JSON("{s:s, s:s}", "name", OWNER_NAME, "role", "admin"),
                         problem));
        TRY(store_commit(store, &db, problem));
    }
done:
    store_rollback(store, &db);
    json_decref(admin);
    return st;
}

enum problem_code gate_start(struct studio *studio, struct gate **ret_gate, struct problem *problem) {
    const enum problem_code st = gate_ensure_owner(studio->store, problem);
    if (st == PROBLEM_NONE) {
        struct gate *gate = text_alloc(1, sizeof *gate);
        gate->studio = studio;
        gate->requests = rates_create();
        gate->logins = rates_create();
        (void)pthread_mutex_init(&gate->mutex, NULL);
        *ret_gate = gate;
    }
    return st;
}

void gate_stop(struct gate *gate) {
    if (gate != NULL) {
        rates_free(gate->requests);
        rates_free(gate->logins);
        (void)pthread_mutex_destroy(&gate->mutex);
        sodium_memzero(gate, sizeof *gate);
        free(gate);
    }
}

/* ---- The sign-in link ---- */

char *gate_make_link(struct gate *gate) {
    char secret[SECRET_TEXT], hash[SECRET_HASH_TEXT];
    secret_make(secret, hash);
    (void)pthread_mutex_lock(&gate->mutex);
    memcpy(gate->link_hash, hash, sizeof hash);
    gate->link_ends_us = clock_monotonic_us() + LINK_SECONDS * CLOCK_SECOND;
    (void)pthread_mutex_unlock(&gate->mutex);
    return text_copy(secret);
}

bool gate_use_link(struct gate *gate, const char *secret) {
    char hash[SECRET_HASH_TEXT];
    secret_hash(secret, hash);
    (void)pthread_mutex_lock(&gate->mutex);
    const bool is_right = gate->link_hash[0] != '\0' && clock_monotonic_us() < gate->link_ends_us &&
                          secret_is_equal(gate->link_hash, hash);
    if (is_right) {
        memset(gate->link_hash, 0, sizeof gate->link_hash);
    }
    (void)pthread_mutex_unlock(&gate->mutex);
    return is_right;
}

/* ---- Who is it? ---- */

int64_t gate_session_start(struct studio *studio) {
    return clock_now_us() - settings_int(studio->settings, SETTING_session_days) * 24 * 3600 * CLOCK_SECOND;
}

static void fill_caller(const json_t *row, unsigned scopes, struct caller *ret_caller) {
    ret_caller->role = role_of(json_get_text(row, "role"));
    ret_caller->access = role_access(ret_caller->role) & scopes;
    (void)snprintf(ret_caller->user_id, sizeof ret_caller->user_id, "%s", json_get_text(row, "user_id"));
    (void)snprintf(ret_caller->name, sizeof ret_caller->name, "%s", json_get_text(row, "name"));
}

static unsigned scopes_of(const json_t *token) {
    unsigned access = 0;
    size_t i;
    json_t *scope;
    json_array_foreach(json_object_get(token, "scopes"), i, scope) {
        access |= scope_access(json_string_value(scope));
    }
    return access;
}

static bool is_stale(const json_t *row) {
    return clock_now_us() - json_get_int(row, "used_us", 0) > TOUCH_SECONDS * CLOCK_SECOND;
}

/* When it was used last is worth a row now and then, and never worth a failed request. */
static void touch(struct studio *studio,
                  enum problem_code (*mark)(struct db *db, const char *key, struct problem *problem), const char *key) {
    struct problem ignored = { 0 };
    struct db *db = NULL;
    if (store_begin(studio->store, &db, &ignored) == PROBLEM_NONE && mark(db, key, &ignored) == PROBLEM_NONE) {
        (void)store_commit(studio->store, &db, &ignored);
    }
    store_rollback(studio->store, &db);
}

static enum problem_code identify_token(struct studio *studio, const char *token, struct caller *ret_caller,
                                        struct problem *problem) {
    char hash[SECRET_HASH_TEXT];
    json_t *row = NULL;
    secret_hash(token, hash);
    struct db *db = store_read(studio->store);
    enum problem_code st = tokens_find(db, hash, &row, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE && row == NULL) {
        st = problem_set(problem, PROBLEM_UNAUTHENTICATED, NULL, "the token is not known, has ended or was revoked");
    } else if (st == PROBLEM_NONE) {
        fill_caller(row, scopes_of(row), ret_caller);
        (void)snprintf(ret_caller->token_id, sizeof ret_caller->token_id, "%s", json_get_text(row, "id"));
        if (is_stale(row)) {
            touch(studio, tokens_touch, ret_caller->token_id);
        }
    }
    json_decref(row);
    return st;
}

static enum problem_code identify_session(struct studio *studio, const char *secret, struct caller *ret_caller,
                                          struct problem *problem) {
    char hash[SECRET_HASH_TEXT];
    json_t *row = NULL;
    secret_hash(secret, hash);
    struct db *db = store_read(studio->store);
    enum problem_code st = sessions_find(db, hash, gate_session_start(studio), &row, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE && row == NULL) {
        st = problem_set(problem, PROBLEM_UNAUTHENTICATED, NULL, "the session has ended; sign in again");
    } else if (st == PROBLEM_NONE) {
        fill_caller(row, ~0U, ret_caller);
        (void)snprintf(ret_caller->session_id, sizeof ret_caller->session_id, "%s", json_get_text(row, "id"));
        if (is_stale(row)) {
            touch(studio, sessions_touch, hash);
        }
    }
    json_decref(row);
    return st;
}

static enum problem_code identify_nobody(struct studio *studio, struct caller *ret_caller, struct problem *problem) {
    json_t *admin = NULL;
    if (!settings_bool(studio->settings, SETTING_no_auth)) {
        return PROBLEM_NONE;
    }
    struct db *db = store_read(studio->store);
    const enum problem_code st = users_first_admin(db, &admin, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE && admin != NULL) {
        json_put(admin, "user_id", json_incref(json_object_get(admin, "id")));
        fill_caller(admin, ~0U, ret_caller);
    }
    json_decref(admin);
    return st;
}

/* The value of our cookie in "a=b; cyberimage=…", cut at its length; false when it is not there. */
static bool find_cookie(const char *cookies, char ret_secret[SECRET_TEXT]) {
    static const char name[] = COOKIE_NAME "=";
    for (const char *rest = cookies; rest != NULL && *rest != '\0';) {
        rest += strspn(rest, " ;");
        const size_t n = strcspn(rest, ";");
        if (strncmp(rest, name, sizeof name - 1) == 0) {
            const size_t length = n - (sizeof name - 1);
            (void)snprintf(ret_secret, SECRET_TEXT, "%.*s", (int)(length < SECRET_TEXT ? length : 0),
                           rest + sizeof name - 1);
            return true;
        }
        rest += n;
    }
    return false;
}

/* A1111's clients send "Basic base64(name:password)"; the password is a token here. */
static bool read_basic(const char *text, char *ret_token, size_t size) {
    uint8_t plain[512];
    size_t n = 0;
    if (sodium_base642bin(plain, sizeof plain - 1, text, strlen(text), NULL, &n, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0) {
        return false;
    }
    plain[n] = '\0';
    const char *colon = strchr((const char *)plain, ':');
    if (colon == NULL || strlen(colon + 1) >= size) {
        return false;
    }
    (void)snprintf(ret_token, size, "%s", colon + 1);
    return true;
}

enum problem_code gate_identify(struct studio *studio, const char *cookie, const char *authorization,
                                const char *address, struct caller *ret_caller, struct problem *problem) {
    struct caller caller = { 0 };
    char secret[SECRET_TEXT], basic[256];
    enum problem_code st;
    (void)address;
    if (authorization != NULL && strncasecmp(authorization, "Bearer ", 7) == 0) {
        st = identify_token(studio, authorization + 7, &caller, problem);
    } else if (authorization != NULL && strncasecmp(authorization, "Basic ", 6) == 0 &&
               read_basic(authorization + 6, basic, sizeof basic)) {
        st = identify_token(studio, basic, &caller, problem);
    } else if (authorization != NULL) {
        st = problem_set(problem, PROBLEM_UNAUTHENTICATED, NULL, "the Authorization header is not \"Bearer TOKEN\"");
    } else if (find_cookie(cookie, secret)) {
        st = identify_session(studio, secret, &caller, problem);
    } else {
        st = identify_nobody(studio, &caller, problem);
    }
    if (st == PROBLEM_UNAUTHENTICATED && settings_bool(studio->settings, SETTING_no_auth)) {
        *problem = (struct problem){ 0 }; /* many programs cannot leave the token out */
        st = identify_nobody(studio, &caller, problem);
    }
    if (st == PROBLEM_NONE) {
        *ret_caller = caller;
    }
    return st;
}

enum problem_code gate_count(struct studio *studio, const struct caller *caller, const char *address,
                             struct problem *problem) {
    const int64_t limit = settings_int(studio->settings, SETTING_rate_requests);
    const char *name = caller->token_id[0] != '\0'  ? caller->token_id
                       : caller->user_id[0] != '\0' ? caller->user_id
                                                    : address;
    const int wait = limit > 0 ? rates_take(studio->gate->requests, name, limit, 60) : 0;
    if (wait > 0) {
        problem->retry_after_seconds = wait;
        return problem_set(problem, PROBLEM_TOO_MANY, NULL, "more than %lld requests a minute; try again in %d s",
                           (long long)limit, wait);
    }
    return PROBLEM_NONE;
}

bool gate_still_holds(struct studio *studio, const struct caller *caller) {
    struct problem ignored = { 0 };
    json_t *row = NULL;
    if (caller->session_id[0] == '\0' && caller->token_id[0] == '\0') {
        return true; /* no-auth */
    }
    struct db *db = store_read(studio->store);
    const enum problem_code st = caller->session_id[0] != '\0'
                                     ? sessions_get(db, caller->session_id, gate_session_start(studio), &row, &ignored)
                                     : tokens_get(db, caller->token_id, &row, &ignored);
    store_read_done(studio->store, db);
    const bool holds = st == PROBLEM_NONE && row != NULL && role_of(json_get_text(row, "role")) == caller->role;
    json_decref(row);
    return holds || st != PROBLEM_NONE; /* a database that is busy revokes nobody */
}

enum problem_code gate_finish(struct studio *studio, struct request *request, struct db **db, const char *action,
                              const char *object, json_t *details, struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    TRY(audit_append(*db, request_actor(request), action, object, details, problem));
    TRY(store_commit(studio->store, db, problem));
done:
    return st;
}
