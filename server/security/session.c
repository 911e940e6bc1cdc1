/* Routes: signing in and out, one's own sessions and password. */
#include "security/gate_internal.h"

#include "base/id.h"
#include "base/log.h"
#include "store/users.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define LOGIN_PERIOD_SECONDS 600
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- Signing in ---- */

struct credentials {
    const char *link, *name, *password;
};

static const struct json_row credential_rows[] = {
    { "link", JSON_ROW_TEXT, offsetof(struct credentials, link), 1, 256, NULL, 0 },
    { "name", JSON_ROW_TEXT, offsetof(struct credentials, name), 1, 63, NULL, 0 },
    { "password", JSON_ROW_TEXT, offsetof(struct credentials, password), 1, MAX_PASSWORD_BYTES, NULL, 0 },
};

static enum problem_code refuse(struct studio *studio, struct request *request, const struct credentials *credentials,
                                struct problem *problem) {
    const char *name = credentials->name != NULL ? credentials->name : "(link)";
    const struct actor *asker = request_actor(request);
    const struct actor nobody = { .address = asker->address, .user_agent = asker->user_agent };
    log_event(LOG_WARNING, "session.refused", JSON("{s:s, s:o}", "name", name, "address", json_text(asker->address)));
    (void)rates_take(studio->gate->logins, request_address(request),
                     settings_int(studio->settings, SETTING_rate_logins), LOGIN_PERIOD_SECONDS);
    const enum problem_code st = audit_write(studio->store, &nobody, "session.refused", name, NULL, problem);
    return st != PROBLEM_NONE ? st
           : credentials->link != NULL
               ? problem_set(
                     problem, PROBLEM_UNAUTHENTICATED, "link",
                     "the sign-in link was used already or is too old; the studio prints a new one when it starts")
               : problem_set(problem, PROBLEM_UNAUTHENTICATED, NULL, "name or password is not right");
}

static enum problem_code find_user(struct studio *studio, const struct credentials *credentials, json_t **ret_user,
                                   struct problem *problem) {
    json_t *user = NULL;
    struct db *db = store_read(studio->store);
    const enum problem_code st = credentials->link != NULL ? users_first_admin(db, &user, problem)
                                                           : users_find(db, credentials->name, &user, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        const bool is_disabled = json_is_true(json_object_get(user, "disabled"));
        const bool is_right = credentials->link != NULL
                                  ? gate_use_link(studio->gate, credentials->link)
                                  : password_is_right(json_get_text(user, "password"), credentials->password);
        if (user == NULL || !is_right || is_disabled) {
            json_decref(user);
            user = NULL;
        }
        *ret_user = user;
    }
    return st;
}

static void set_cookie(struct studio *studio, const struct request *request, struct response *response,
                       const char *secret, int64_t seconds) {
    char *base = settings_text(studio->settings, SETTING_base_path);
    const bool is_secure = strncmp(request_base_url(request), "https:", 6) == 0;
    char *cookie = text_format(COOKIE_NAME "=%s; Path=%s; HttpOnly; SameSite=Strict; Max-Age=%lld%s", secret,
                               base[0] != '\0' ? base : "/", (long long)seconds, is_secure ? "; Secure" : "");
    response_header(response, "Set-Cookie", cookie);
    free(cookie);
    free(base);
}

static enum problem_code open_session(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    struct credentials credentials = { 0 };
    char secret[SECRET_TEXT], hash[SECRET_HASH_TEXT], id[ID_TEXT];
    struct db *db = NULL;
    json_t *user = NULL, *row = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read(request_json(request), credential_rows, COUNT(credential_rows), &credentials, problem));
    if ((credentials.link == NULL) == (credentials.name == NULL || credentials.password == NULL)) {
        st = problem_set(problem, PROBLEM_INVALID, "name", "give either a link, or a name and a password");
        goto done;
    }
    const int wait = rates_ask(studio->gate->logins, request_address(request),
                               settings_int(studio->settings, SETTING_rate_logins), LOGIN_PERIOD_SECONDS);
    if (wait > 0) {
        problem->retry_after_seconds = wait;
        st = problem_set(problem, PROBLEM_TOO_MANY, NULL,
                         "too many failed sign-ins from this address; try again in %d s", wait);
        goto done;
    }
    TRY(find_user(studio, &credentials, &user, problem));
    if (user == NULL) {
        st = refuse(studio, request, &credentials, problem);
        goto done;
    }
    const char *user_id = json_get_text(user, "id");
    secret_make(secret, hash);
    TRY(store_begin(studio->store, &db, problem));
    TRY(sessions_add(db, hash, id_make(id), user_id, request_address(request), request_header(request, "User-Agent"),
                     problem));
    TRY(users_get(db, user_id, &row, problem));
    const struct actor actor = { json_get_text(row, "name"), user_id, request_address(request),
                                 request_header(request, "User-Agent") };
    TRY(audit_append(db, &actor, "session.opened", id,
                     JSON("{s:s}", "by", credentials.link != NULL ? "link" : "password"), problem));
    TRY(store_commit(studio->store, &db, problem));
    log_event(LOG_INFO, "session.opened", JSON("{s:s, s:o}", "name", actor.name, "address", json_text(actor.address)));
    set_cookie(studio, request, response, secret, settings_int(studio->settings, SETTING_session_days) * 24 * 3600);
    response_json(response, 201, JSON("{s:O}", "user", row));
done:
    store_rollback(studio->store, &db);
    sodium_memzero(secret, sizeof secret);
    json_decref(user);
    json_decref(row);
    return st;
}

static enum problem_code close_session(struct studio *studio, struct request *request, struct response *response,
                                       struct problem *problem) {
    const struct caller *caller = request_caller(request);
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    if (caller->session_id[0] != '\0') {
        TRY(store_begin(studio->store, &db, problem));
        TRY(sessions_remove(db, caller->user_id, caller->session_id, problem));
        TRY(gate_finish(studio, request, &db, "session.closed", caller->session_id, NULL, problem));
    }
    set_cookie(studio, request, response, "", 0);
    response_empty(response);
done:
    store_rollback(studio->store, &db);
    return st;
}

/* ---- One's own account ---- */

static enum problem_code show_me(struct studio *studio, struct request *request, struct response *response,
                                 struct problem *problem) {
    static const struct {
        const char *name;
        unsigned access;
    } names[] = {
        { "read", ACCESS_READ }, { "generate", ACCESS_GENERATE }, { "edit", ACCESS_EDIT }, { "admin", ACCESS_ADMIN }
    };
    const struct caller *caller = request_caller(request);
    json_t *user = NULL, *usage = NULL, *access = JSON("[]");
    struct db *db = store_read(studio->store);
    enum problem_code st = PROBLEM_NONE;
    for (size_t i = 0; i < COUNT(names); i++) {
        if ((caller->access & names[i].access) != 0) {
            json_add(access, json_string(names[i].name));
        }
    }
    TRY(users_get(db, caller->user_id, &user, problem));
    TRY(users_usage(db, caller->user_id, &usage, problem));
    response_json(response, 200,
                  JSON("{s:O, s:O, s:O, s:o}", "user", user, "access", access, "usage", usage, "session",
                       json_text(caller->session_id[0] != '\0' ? caller->session_id : NULL)));
done:
    store_read_done(studio->store, db);
    json_decref(user);
    json_decref(usage);
    json_decref(access);
    return st;
}

struct new_password {
    const char *current, *password;
};

static const struct json_row password_rows[] = {
    { "current", JSON_ROW_TEXT, offsetof(struct new_password, current), 1, MAX_PASSWORD_BYTES, NULL, 0 },
    { "password", JSON_ROW_TEXT, offsetof(struct new_password, password), MIN_PASSWORD_BYTES, MAX_PASSWORD_BYTES, NULL,
      JSON_NEEDED },
};

static enum problem_code change_password(struct studio *studio, struct request *request, struct response *response,
                                         struct problem *problem) {
    const struct caller *caller = request_caller(request);
    struct new_password change = { 0 };
    struct db *db = NULL;
    json_t *user = NULL;
    char *hash = NULL;
    enum problem_code st = PROBLEM_NONE;
    if (caller->session_id[0] == '\0') {
        st = problem_set(problem, PROBLEM_FORBIDDEN, NULL, "a password is changed in a session, not with a token");
        goto done;
    }
    TRY(json_read(request_json(request), password_rows, COUNT(password_rows), &change, problem));
    db = store_read(studio->store);
    st = users_find(db, caller->name, &user, problem);
    store_read_done(studio->store, db);
    db = NULL;
    if (st != PROBLEM_NONE) {
        goto done;
    }
    const char *current = json_get_text(user, "password");
    if (current != NULL && (change.current == NULL || !password_is_right(current, change.current))) {
        st = problem_set(problem, PROBLEM_INVALID, "current", "the current password is not right");
        goto done;
    }
    TRY(password_hash(change.password, &hash, problem));
    TRY(store_begin(studio->store, &db, problem));
    TRY(users_set_password(db, caller->user_id, hash, problem));
    TRY(sessions_remove_others(db, caller->user_id, caller->session_id, problem));
    TRY(gate_finish(studio, request, &db, "password.changed", caller->user_id, NULL, problem));
    response_empty(response);
done:
    store_rollback(studio->store, &db);
    json_decref(user);
    free(hash);
    return st;
}

static enum problem_code list_sessions(struct studio *studio, struct request *request, struct response *response,
                                       struct problem *problem) {
    json_t *sessions = NULL;
    struct db *db = store_read(studio->store);
    const enum problem_code st = sessions_list(db, request_caller(request)->user_id, &sessions, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        response_json(response, 200, JSON("{s:o}", "sessions", sessions));
    }
    return st;
}

static enum problem_code remove_session(struct studio *studio, struct request *request, struct response *response,
                                        struct problem *problem) {
    const char *id = request_parameter(request, "id");
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(studio->store, &db, problem));
    TRY(sessions_remove(db, request_is_admin(request) ? NULL : request_caller(request)->user_id, id, problem));
    TRY(gate_finish(studio, request, &db, "session.closed", id, NULL, problem));
    response_empty(response);
done:
    store_rollback(studio->store, &db);
    return st;
}

/* ---- The page that a sign-in link opens: the secret stands behind "#", so that it reaches neither logs nor other
 * servers ---- */

static const char signin_page[] =
    "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>CyberImage: sign in</title>\n"
    "<link rel=\"stylesheet\" href=\"style.css\">\n<script src=\"signin.js\" defer></script>\n"
    "<main>\n<h1>CyberImage</h1>\n<p id=\"message\" role=\"status\">Sign in to the studio.</p>\n"
    "<form id=\"form\">\n<label>Name <input name=\"name\" autocomplete=\"username\" required "
    "maxlength=\"63\"></label>\n"
    "<label>Password <input name=\"password\" type=\"password\" autocomplete=\"current-password\" required></label>\n"
    "<button>Sign in</button>\n</form>\n</main>\n</html>\n";

static const char signin_script[] =
    "const message = document.getElementById('message');\n"
    "async function signIn(body) {\n"
    "  message.textContent = 'Signing in…';\n"
    "  const answer = await fetch('api/v1/session', {method: 'POST', body: JSON.stringify(body),\n"
    "    headers: {'Content-Type': 'application/json'}});\n"
    "  if (answer.ok) location.replace('./');\n"
    "  else message.textContent = (await answer.json()).detail;\n"
    "}\n"
    "const link = location.hash.slice(1);\n"
    "history.replaceState(null, '', location.pathname);\n"
    "if (link) signIn({link});\n"
    "document.getElementById('form').addEventListener('submit', (event) => {\n"
    "  event.preventDefault();\n"
    "  signIn(Object.fromEntries(new FormData(event.target)));\n"
    "});\n";

static enum problem_code show_signin(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    (void)studio;
    (void)problem;
    const bool is_script = strcmp(request_path(request), "/signin.js") == 0;
    response_bytes(response, 200, is_script ? "text/javascript; charset=utf-8" : "text/html; charset=utf-8",
                   is_script ? signin_script : signin_page,
                   is_script ? sizeof signin_script - 1 : sizeof signin_page - 1);
    return PROBLEM_NONE;
}

static const struct route rows[] = {
    { "GET", "/signin", ACCESS_ANYBODY, BODY_NONE, ROUTE_UNCOUNTED, show_signin },
    { "GET", "/signin.js", ACCESS_ANYBODY, BODY_NONE, ROUTE_UNCOUNTED, show_signin },
    { "POST", "/api/v1/session", ACCESS_ANYBODY, BODY_JSON, ROUTE_SLOW, open_session },
    { "DELETE", "/api/v1/session", ACCESS_READ, BODY_NONE, 0, close_session },
    { "GET", "/api/v1/me", ACCESS_READ, BODY_NONE, 0, show_me },
    { "PUT", "/api/v1/me/password", ACCESS_READ, BODY_JSON, ROUTE_SLOW, change_password },
    { "GET", "/api/v1/sessions", ACCESS_READ, BODY_NONE, 0, list_sessions },
    { "DELETE", "/api/v1/sessions/{id}", ACCESS_READ, BODY_NONE, 0, remove_session },
};

const struct route_table session_routes = { rows, COUNT(rows) };
