/* Settings in the database: see store/settings.h. */
#include "store/settings.h"

#include "base/clock.h"
#include "base/log.h"

enum problem_code settings_load(struct store *store, struct settings *settings, struct problem *problem) {
    json_t *rows = NULL;
    size_t i;
    json_t *row;
    struct db *db = store_read(store);
    const enum problem_code st = db_all(db, "SELECT name, value FROM settings LIMIT 1000", NO_ARGS, &rows, problem);
    store_read_done(store, db);
    json_array_foreach(rows, i, row) {
        struct problem found = { 0 };
        const enum setting setting = setting_find(json_get_text(row, "name"));
        if (setting == N_SETTINGS || settings_set(settings, setting, SETTING_FROM_DATABASE, json_get_text(row, "value"),
                                                  &found) != PROBLEM_NONE) {
            log_event(LOG_WARNING, "setting.skipped",
                      JSON("{s:O, s:s}", "name", json_object_get(row, "name"), "why",
                           setting == N_SETTINGS ? "it is not known" : found.detail));
        }
    }
    json_decref(rows);
    return st;
}

static enum problem_code check_change(struct settings *settings, const char *name, const json_t *value,
                                      struct problem *problem) {
    const enum setting setting = setting_find(name);
    if (setting == N_SETTINGS) {
        return problem_set(problem, PROBLEM_INVALID, name, "there is no setting \"%.60s\"", name);
    }
    if (!setting_row(setting)->is_live) {
        return problem_set(problem, PROBLEM_CONFLICT, name, "%s is read at the start only; set it there", name);
    }
    const enum setting_source source = settings_source(settings, setting);
    if (source > SETTING_FROM_DATABASE) {
        return problem_set(problem, PROBLEM_CONFLICT, name, "%s is set by %s, which counts more", name,
                           source == SETTING_FROM_FLAG   ? "a flag"
                           : source == SETTING_FROM_FILE ? "the settings file"
                                                         : "the environment");
    }
    if (!json_is_string(value) && !json_is_null(value)) {
        return problem_set(problem, PROBLEM_INVALID, name, "the value of %s must be a text, or null for its default",
                           name);
    }
    return json_is_null(value) ? PROBLEM_NONE : settings_check(setting, json_string_value(value), problem);
}

/* What an audit row may say of a value: a secret only whether it is set. */
static json_t *shown(const char *name, const char *value) {
    const bool is_secret = setting_row(setting_find(name))->kind == SETTING_SECRET;
    return is_secret ? json_text(value != NULL && value[0] != '\0' ? "set" : NULL) : json_text(value);
}

static enum problem_code write_change(struct db *db, const struct actor *actor, const char *name, json_t *value,
                                      struct problem *problem) {
    json_t *before = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(db_one(db, "SELECT value FROM settings WHERE name = ?1", ARGS("s]", name), &before, problem));
    TRY(db_run(db, "DELETE FROM settings WHERE name = ?1", ARGS("s]", name), problem));
    if (json_is_string(value)) {
        TRY(db_run(db, "INSERT INTO settings (name, value, changed_us, changed_by) VALUES (?1, ?2, ?3, ?4)",
                   ARGS("s,O,I,o]", name, value, (json_int_t)clock_now_us(), json_text(actor->name)), problem));
    }
    TRY(audit_append(db, actor, "setting.changed", name,
                     JSON("{s:o, s:o}", "from", shown(name, json_get_text(before, "value")), "to",
                          shown(name, json_string_value(value))),
                     problem));
done:
    json_decref(before);
    return st;
}

enum problem_code settings_change(struct store *store, struct settings *settings, const struct actor *actor,
                                  const json_t *changes, struct problem *problem) {
    json_t *copy = json_need(json_deep_copy(changes)), *value;
    struct db *db = NULL;
    const char *name;
    enum problem_code st = PROBLEM_NONE;
    json_object_foreach(copy, name, value) {
        TRY(check_change(settings, name, value, problem));
    }
    TRY(store_begin(store, &db, problem));
    json_object_foreach(copy, name, value) {
        TRY(write_change(db, actor, name, value, problem));
    }
    TRY(store_commit(store, &db, problem));
    json_object_foreach(copy, name, value) {
        if (json_is_string(value)) {
            (void)settings_set(settings, setting_find(name), SETTING_FROM_DATABASE, json_string_value(value), NULL);
        } else {
            settings_unset(settings, setting_find(name), SETTING_FROM_DATABASE);
        }
    }
done:
    store_rollback(store, &db);
    json_decref(copy);
    return st;
}
