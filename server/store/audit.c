/* Appending to the audit log: see audit.h. */
#include "store/audit.h"

#include "base/clock.h"
#include "store/audit_chain.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

const struct actor actor_system = { .name = "system" };

void audit_hash(const char *previous, const json_t *row, char ret_hash[AUDIT_HASH_TEXT]) {
    static const char *const columns[] = { "seq",        "time_us", "actor",  "actor_id", "address",
                                           "user_agent", "action",  "object", "details" };
    json_t *list = JSON("[]");
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        json_t *value = json_object_get(row, columns[i]);
        json_add(list, value != NULL ? json_incref(value) : json_null());
    }
    char *text = json_text_of(list);
    uint8_t hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_state state;
    (void)crypto_hash_sha256_init(&state);
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)previous, strlen(previous));
    (void)crypto_hash_sha256_update(&state, (const uint8_t *)text, strlen(text));
    (void)crypto_hash_sha256_final(&state, hash);
    (void)sodium_bin2hex(ret_hash, AUDIT_HASH_TEXT, hash, sizeof hash);
    free(text);
    json_decref(list);
}

enum problem_code audit_append(struct db *db, const struct actor *actor, const char *action, const char *object,
                               json_t *details, struct problem *problem) {
    json_t *last = NULL, *row = NULL;
    char hash[AUDIT_HASH_TEXT];
    enum problem_code st = PROBLEM_NONE;
    char *details_text = details != NULL ? json_text_of(details) : NULL;
    TRY(db_one(db, "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", NO_ARGS, &last, problem));
    const char *previous = last != NULL ? json_get_text(last, "hash") : AUDIT_FIRST_HASH;
    row = JSON("{s:I, s:I, s:o, s:o, s:o, s:o, s:s, s:o, s:o}", "seq", (json_int_t)(json_get_int(last, "seq", 0) + 1),
               "time_us", (json_int_t)clock_now_us(), "actor", json_text(actor->name), "actor_id", json_text(actor->id),
               "address", json_text(actor->address), "user_agent", json_text(actor->user_agent), "action", action,
               "object", json_text(object), "details", json_text(details_text));
    audit_hash(previous, row, hash);
    TRY(db_run(db,
               "INSERT INTO audit (seq, time_us, actor, actor_id, address, user_agent, action, object, details, hash) "
               "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
               ARGS("O,O,O,O,O,O,O,O,O,s]", json_object_get(row, "seq"), json_object_get(row, "time_us"),
                    json_object_get(row, "actor"), json_object_get(row, "actor_id"), json_object_get(row, "address"),
                    json_object_get(row, "user_agent"), json_object_get(row, "action"), json_object_get(row, "object"),
                    json_object_get(row, "details"), hash),
               problem));
done:
    json_decref(last);
    json_decref(row);
    json_decref(details);
    free(details_text);
    return st;
}

enum problem_code audit_write(struct store *store, const struct actor *actor, const char *action, const char *object,
                              json_t *details, struct problem *problem) {
    struct db *db = NULL;
    enum problem_code st = store_begin(store, &db, problem);
    if (st != PROBLEM_NONE) {
        json_decref(details);
        return st;
    }
    TRY(audit_append(db, actor, action, object, details, problem));
    TRY(store_commit(store, &db, problem));
done:
    store_rollback(store, &db);
    return st;
}
