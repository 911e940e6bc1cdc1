/* enrich_probe: the enricher over a real database and the HTTP part, for test_enrich.py: enrich_probe DATABASE NAME=VALUE…. Prints its
 * URL on the first line. "NAME=VALUE" on standard input sets a setting while it runs and prints "ok"; the end of the input stops it.
 * Accounts: "Authorization: Bearer NAME" with alice (administrator), bob and carl (users), eve (viewer). */
#include "base/log.h"
#include "enrich/enrich.h"
#include "studio.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum role role;
    unsigned access;
} users[] = {
    { "alice", ROLE_ADMIN, 15 }, { "bob", ROLE_USER, 7 }, { "carl", ROLE_USER, 7 }, { "eve", ROLE_VIEWER, 1 }
};

static enum problem_code identify(struct studio *studio, const char *cookie, const char *authorization,
                                  const char *address, struct caller *ret_caller, struct problem *problem) {
    (void)studio;
    (void)cookie;
    (void)address;
    for (size_t i = 0; authorization != NULL && i < sizeof users / sizeof users[0]; i++) {
        if (strncmp(authorization, "Bearer ", 7) == 0 && strcmp(users[i].name, authorization + 7) == 0) {
            struct caller caller = { .role = users[i].role, .access = users[i].access };
            (void)snprintf(caller.user_id, sizeof caller.user_id, "%s", users[i].name);
            (void)snprintf(caller.name, sizeof caller.name, "%s", users[i].name);
            (void)snprintf(caller.token_id, sizeof caller.token_id, "%s", users[i].name);
            *ret_caller = caller;
            return PROBLEM_NONE;
        }
    }
    return authorization != NULL ? problem_set(problem, PROBLEM_UNAUTHENTICATED, NULL, "this token does not hold")
                                 : PROBLEM_NONE;
}

static enum problem_code add_users(struct store *store, struct problem *problem) {
    struct db *db = NULL;
    enum problem_code st = store_begin(store, &db, problem);
    for (size_t i = 0; st == PROBLEM_NONE && i < sizeof users / sizeof users[0]; i++) {
        st = db_run(db, "INSERT INTO users (id, name, role, created_us) VALUES (?1, ?1, 'user', 0)",
                    ARGS("s]", users[i].name), problem);
    }
    if (st == PROBLEM_NONE) {
        st = store_commit(store, &db, problem);
    }
    store_rollback(store, &db);
    return st;
}

static enum problem_code set(struct settings *settings, char *line, struct problem *problem) {
    char *value = strchr(line, '=');
    if (value == NULL) {
        return problem_set(problem, PROBLEM_INVALID, NULL, "\"%s\" is not NAME=VALUE", line);
    }
    *value++ = '\0';
    const enum setting setting = setting_find(line);
    return setting != N_SETTINGS ? settings_set(settings, setting, SETTING_FROM_DATABASE, value, problem)
                                 : problem_set(problem, PROBLEM_INVALID, NULL, "there is no setting \"%s\"", line);
}

int main(int argc, char **argv) {
    struct studio studio = { .settings = settings_create(), .events = events_create() };
    struct problem problem = { 0 };
    int n_migrations = 0;
    char line[4096];
    enum problem_code st = argc > 1 ? PROBLEM_NONE : PROBLEM_INVALID;
    for (int i = 2; st == PROBLEM_NONE && i < argc; i++) {
        st = set(studio.settings, argv[i], &problem);
    }
    log_configure(LOG_DEBUG, false);
    TRY(st);
    TRY(store_open(argv[1], 2, &studio.store, &n_migrations, &problem));
    TRY(add_users(studio.store, &problem));
    TRY(enricher_create(&studio, &studio.enricher, &problem));
    const struct http_options options = {
        .studio = &studio, .settings = studio.settings, .tables = &enrich_routes, .n_tables = 1, .identify = identify
    };
    TRY(http_start(&options, &studio.http, &problem));
    (void)printf("%s\n", http_url(studio.http));
    (void)fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        struct problem fault = { 0 };
        (void)printf("%s\n", set(studio.settings, line, &fault) == PROBLEM_NONE ? "ok" : fault.detail);
        (void)fflush(stdout);
    }
    http_stop(studio.http);
done:
    if (st != PROBLEM_NONE) {
        (void)fprintf(stderr, "%s\n", problem.detail);
    }
    enricher_free(studio.enricher);
    if (studio.store != NULL) {
        store_close(studio.store);
    }
    events_free(studio.events);
    settings_free(studio.settings);
    return st == PROBLEM_NONE ? 0 : 1;
}
