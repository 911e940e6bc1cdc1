/* The audit log: whatever is changed, taken out or put in is found and named, and what retention removes leaves a record that
 * only the studio's key can make. */
#include "store/audit_log.h"

#include "base/clock.h"

#include <setjmp.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka.h needs those above. */
#include <cmocka.h>

#define N_ROWS 20
#define HOUR_US (3600 * CLOCK_SECOND)

struct log {
    char folder[64], path[80];
    struct store *store;
    struct signing_key key;
    struct problem problem;
};

static int set_up(void **state) {
    static const struct actor alice = { "alice", "0199-alice", "127.0.0.1", "test/1" };
    struct log *log = test_calloc(1, sizeof *log);
    int n = 0;
    assert_true(sodium_init() >= 0);
    (void)snprintf(log->folder, sizeof log->folder, "/tmp/audit-XXXXXX");
    assert_non_null(mkdtemp(log->folder));
    (void)snprintf(log->path, sizeof log->path, "%s/db", log->folder);
    assert_int_equal(store_open(log->path, 2, &log->store, &n, &log->problem), PROBLEM_NONE);
    assert_int_equal(signing_key_load(log->folder, true, &log->key, &log->problem), PROBLEM_NONE);
    for (int i = 0; i < N_ROWS; i++) {
        char object[16];
        (void)snprintf(object, sizeof object, "job-%d", i);
        assert_int_equal(audit_write(log->store, i % 2 == 0 ? &alice : &actor_system,
                                     i % 4 == 0 ? "job.submitted" : "image.added", object,
                                     JSON("{s:i, s:s}", "n", i, "text", "=1+1 \"quoted\", ünï"), &log->problem),
                         PROBLEM_NONE);
    }
    *state = log;
    return 0;
}

static int tear_down(void **state) {
    struct log *log = *state;
    static const char *const files[] = { "db", "db-wal", "db-shm", "audit.key" };
    store_close(log->store);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[100];
        (void)snprintf(path, sizeof path, "%s/%s", log->folder, files[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(log->folder), 0);
    test_free(log);
    return 0;
}

/* As somebody who has the file, and knows what protects it. */
static void tamper(struct log *log, const char *sql) {
    sqlite3 *connection = NULL;
    char *words = NULL;
    assert_int_equal(sqlite3_open(log->path, &connection), SQLITE_OK);
    (void)sqlite3_exec(connection, "DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_removed", NULL, NULL,
                       NULL);
    if (sqlite3_exec(connection, sql, NULL, NULL, &words) != SQLITE_OK) {
        fail_msg("%s: %s", sql, words);
    }
    (void)sqlite3_close(connection);
}

static json_t *check(struct log *log, const struct signing_key *key, const struct audit_anchor *anchor) {
    json_t *verdict = NULL;
    struct db *db = store_read(log->store);
    assert_int_equal(audit_verify(db, key, anchor, &verdict, &log->problem), PROBLEM_NONE);
    store_read_done(log->store, db);
    return verdict;
}

static void expect_whole(struct log *log, int64_t n_rows) {
    json_t *verdict = check(log, &log->key, NULL);
    assert_true(json_is_true(json_object_get(verdict, "ok")));
    assert_int_equal(json_get_int(verdict, "rows", -1), n_rows);
    json_decref(verdict);
}

static void expect_fault(struct log *log, const struct audit_anchor *anchor, int64_t seq, const char *words) {
    json_t *verdict = check(log, &log->key, anchor);
    const json_t *fault = json_object_get(verdict, "fault");
    assert_true(json_is_false(json_object_get(verdict, "ok")));
    assert_int_equal(json_get_int(fault, "seq", -1), seq);
    if (strstr(json_get_text(fault, "sentence"), words) == NULL) {
        fail_msg("\"%s\" does not speak of \"%s\"", json_get_text(fault, "sentence"), words);
    }
    json_decref(verdict);
}

static void an_untouched_log_is_whole(void **state) {
    expect_whole(*state, N_ROWS);
}

static void every_change_is_found(void **state) {
    static const struct {
        const char *sql;
        int64_t seq;
        const char *words;
    } cases[] = {
        { "UPDATE audit SET details = '{\"n\":99}' WHERE seq = 7", 7, "row 7 does not fit" },
        { "UPDATE audit SET actor = NULL WHERE seq = 7", 7, "row 7 does not fit" },
        { "UPDATE audit SET time_us = time_us + 1 WHERE seq = 7", 7, "row 7 does not fit" },
        { "UPDATE audit SET hash = (SELECT hash FROM audit WHERE seq = 6) WHERE seq = 7", 7, "row 7 does not fit" },
        { "DELETE FROM audit WHERE seq = 7", 7, "rows 7 to 7 are missing" },
        { "DELETE FROM audit WHERE seq <= 7", 1, "rows 1 to 7 are missing" },
        { "UPDATE audit SET seq = seq + 100 WHERE seq >= 7; INSERT INTO audit SELECT 7, time_us, actor, actor_id, "
          "address, "
          "user_agent, action, object, details, hash FROM audit WHERE seq = 6; UPDATE audit SET seq = seq - 99 WHERE "
          "seq > 100",
          7, "row 7 does not fit" },
        { "INSERT INTO audit_gaps VALUES (7, 1, (SELECT hash FROM audit WHERE seq = 7), 1, 'ab'); DELETE FROM audit "
          "WHERE "
          "seq <= 7",
          1, "not signed by this studio's key" },
    };
    struct log *log = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        void *one = NULL;
        assert_int_equal(set_up(&one), 0);
        tamper(one, cases[i].sql);
        expect_fault(one, NULL, cases[i].seq, cases[i].words);
        assert_int_equal(tear_down(&one), 0);
    }
    expect_whole(log, N_ROWS);
}

/* What a chain cannot see by itself: the end that was cut off, or all written anew. */
static void a_noted_head_finds_what_the_chain_cannot(void **state) {
    struct log *log = *state;
    json_t *head = NULL;
    struct db *db = store_read(log->store);
    assert_int_equal(audit_head(db, &head, &log->problem), PROBLEM_NONE);
    store_read_done(log->store, db);
    const struct audit_anchor anchor = { json_get_int(head, "seq", 0), json_get_text(head, "hash") };
    assert_int_equal(anchor.seq, N_ROWS);
    json_t *verdict = check(log, &log->key, &anchor);
    assert_true(json_is_true(json_object_get(verdict, "ok")));
    json_decref(verdict);
    const struct audit_anchor other = { N_ROWS, "00000000000000000000000000000000000000000000000000000000000000ff" };
    expect_fault(log, &other, N_ROWS, "not the one that was noted");
    tamper(log, "DELETE FROM audit WHERE seq > 15");
    expect_whole(log, 15);
    expect_fault(log, &anchor, N_ROWS, "rows are missing at its end");
    json_decref(head);
}

static void the_program_itself_can_neither_change_nor_remove(void **state) {
    struct log *log = *state;
    static const char *const sql[] = { "UPDATE audit SET actor = 'eve' WHERE seq = 3",
                                       "DELETE FROM audit WHERE seq = 3", "DELETE FROM audit" };
    for (size_t i = 0; i < sizeof sql / sizeof sql[0]; i++) {
        struct db *db = NULL;
        struct problem problem = { 0 };
        assert_int_equal(store_begin(log->store, &db, &problem), PROBLEM_NONE);
        assert_int_not_equal(db_run(db, sql[i], NO_ARGS, &problem), PROBLEM_NONE);
        store_rollback(log->store, &db);
    }
    expect_whole(log, N_ROWS);
}

static int64_t time_of(struct log *log, int64_t seq) {
    int64_t time_us = 0;
    struct db *db = store_read(log->store);
    assert_int_equal(
        db_int(db, "SELECT time_us FROM audit WHERE seq = ?1", ARGS("I]", (json_int_t)seq), 0, &time_us, &log->problem),
        PROBLEM_NONE);
    store_read_done(log->store, db);
    return time_us;
}

static void retention_leaves_signed_records(void **state) {
    struct log *log = *state;
    int64_t n = -1;
    assert_int_equal(audit_trim(log->store, &log->key, time_of(log, 1), &n, &log->problem), PROBLEM_NONE);
    assert_int_equal(n, 0);
    expect_whole(log, N_ROWS);
    assert_int_equal(audit_trim(log->store, &log->key, time_of(log, 6), &n, &log->problem), PROBLEM_NONE);
    assert_int_equal(n, 5);
    expect_whole(log, N_ROWS - 5 + 1);
    assert_int_equal(audit_trim(log->store, &log->key, time_of(log, 11), &n, &log->problem), PROBLEM_NONE);
    assert_int_equal(n, 5);
    expect_whole(log, N_ROWS - 10 + 2);
    json_t *verdict = check(log, &log->key, NULL);
    assert_int_equal(json_array_size(json_object_get(verdict, "gaps")), 2);
    assert_int_equal(json_get_int(verdict, "first_seq", 0), 11);
    json_decref(verdict);
    json_t *without = check(log, NULL, NULL);
    assert_true(json_is_false(json_object_get(without, "ok")));
    json_decref(without);
    tamper(log, "UPDATE audit_gaps SET last_hash = replace(last_hash, '1', '2') WHERE last_seq = 10");
    expect_fault(log, NULL, 6, "not signed");
}

static void retention_never_takes_all(void **state) {
    struct log *log = *state;
    int64_t n = -1;
    assert_int_equal(audit_trim(log->store, &log->key, clock_now_us() + HOUR_US, &n, &log->problem), PROBLEM_NONE);
    assert_int_equal(n, N_ROWS - 1);
    expect_whole(log, 2); /* the last one, and "audit.trimmed" */
}

/* ---- Reading ---- */

static size_t count(struct log *log, struct audit_filter filter) {
    json_t *rows = NULL;
    filter.limit = filter.limit > 0 ? filter.limit : 1000;
    struct db *db = store_read(log->store);
    assert_int_equal(audit_list(db, &filter, &rows, &log->problem), PROBLEM_NONE);
    store_read_done(log->store, db);
    const size_t n = json_array_size(rows);
    json_decref(rows);
    return n;
}

static void filters_find_what_they_say(void **state) {
    struct log *log = *state;
    assert_int_equal(count(log, (struct audit_filter){ 0 }), N_ROWS);
    assert_int_equal(count(log, (struct audit_filter){ .limit = 3 }), 3);
    assert_int_equal(count(log, (struct audit_filter){ .actor = "alice" }), N_ROWS / 2);
    assert_int_equal(count(log, (struct audit_filter){ .reader_id = "0199-alice" }), N_ROWS / 2);
    assert_int_equal(count(log, (struct audit_filter){ .action = "job.submitted" }), N_ROWS / 4);
    assert_int_equal(count(log, (struct audit_filter){ .action = "job." }), N_ROWS / 4);
    assert_int_equal(count(log, (struct audit_filter){ .action = "job.sub" }), 0);
    assert_int_equal(count(log, (struct audit_filter){ .object = "job-3" }), 1);
    assert_int_equal(count(log, (struct audit_filter){ .text = "QUOTED" }), N_ROWS);
    assert_int_equal(count(log, (struct audit_filter){ .text = "job-19" }), 1);
    assert_int_equal(count(log, (struct audit_filter){ .text = "%" }), 0);
    assert_int_equal(count(log, (struct audit_filter){ .since_us = time_of(log, 6) }), N_ROWS - 5);
    assert_int_equal(count(log, (struct audit_filter){ .until_us = time_of(log, 6) }), 5);
    assert_int_equal(count(log, (struct audit_filter){ .before_seq = 6 }), 5);
    assert_int_equal(count(log, (struct audit_filter){ .after_seq = 6, .is_oldest_first = true }), N_ROWS - 6);
}

static bool gather(void *user, const char *text, size_t n) {
    char **all = user;
    char *longer = text_format("%s%.*s", *all != NULL ? *all : "", (int)n, text);
    free(*all);
    *all = longer;
    return true;
}

static void exports_are_safe_to_open(void **state) {
    struct log *log = *state;
    const struct actor eve = { .name = "=HYPERLINK(\"http://evil\")", .user_agent = "+1\r\n-2" };
    char *csv = NULL, *jsonl = NULL;
    assert_int_equal(audit_write(log->store, &eve, "session.refused", "@x", NULL, &log->problem), PROBLEM_NONE);
    const struct audit_filter filter = { .after_seq = N_ROWS - 1 };
    assert_int_equal(audit_export(log->store, &filter, AUDIT_CSV, gather, &csv, &log->problem), PROBLEM_NONE);
    assert_non_null(strstr(csv, "seq,time,actor,actor_id,address,user_agent,action,object,details,hash\r\n\"20\",\""));
    assert_non_null(strstr(csv, "\"{\"\"n\"\":19,\"\"text\"\":\"\"=1+1 \\\"\"quoted\\\"\""));
    assert_non_null(
        strstr(csv, ",\"'=HYPERLINK(\"\"http://evil\"\")\",\"\",\"\",\"'+1\r\n-2\",\"session.refused\",\"'@x\","));
    assert_int_equal(audit_export(log->store, &filter, AUDIT_JSONL, gather, &jsonl, &log->problem), PROBLEM_NONE);
    json_t *first = json_loads(jsonl, JSON_DISABLE_EOF_CHECK, NULL);
    assert_int_equal(json_get_int(first, "seq", 0), N_ROWS);
    assert_string_equal(json_get_text(json_object_get(first, "details"), "text"), "=1+1 \"quoted\", ünï");
    json_decref(first);
    free(csv);
    free(jsonl);
}

static void long_exports_hold_every_row_once(void **state) {
    struct log *log = *state;
    struct db *db = NULL;
    char *jsonl = NULL;
    int n = 0;
    assert_int_equal(store_begin(log->store, &db, &log->problem), PROBLEM_NONE);
    for (int i = 0; i < 1200; i++) {
        assert_int_equal(audit_append(db, &actor_system, "image.added", NULL, NULL, &log->problem), PROBLEM_NONE);
    }
    assert_int_equal(store_commit(log->store, &db, &log->problem), PROBLEM_NONE);
    const struct audit_filter none = { 0 };
    assert_int_equal(audit_export(log->store, &none, AUDIT_JSONL, gather, &jsonl, &log->problem), PROBLEM_NONE);
    for (char *rest = jsonl, *line; (line = strsep(&rest, "\n")) != NULL && line[0] != '\0';) {
        json_t *row = json_loads(line, 0, NULL);
        assert_int_equal(json_get_int(row, "seq", 0), ++n);
        json_decref(row);
    }
    assert_int_equal(n, N_ROWS + 1200);
    free(jsonl);
}

/* ---- The key, and readers from outside ---- */

static void the_key_is_made_once_and_for_the_owner_alone(void **state) {
    struct log *log = *state;
    struct signing_key again = { 0 }, none;
    char first[SIGNING_PUBLIC_TEXT], second[SIGNING_PUBLIC_TEXT];
    assert_int_equal(signing_key_load(log->folder, false, &again, &log->problem), PROBLEM_NONE);
    assert_string_equal(signing_public_text(&log->key, first), signing_public_text(&again, second));
    assert_int_equal(signing_key_load("/nowhere", false, &none, &log->problem), PROBLEM_NOT_FOUND);
}

static void a_reader_beside_the_studio_sees_what_is_committed(void **state) {
    struct log *log = *state;
    struct store *beside = NULL;
    struct problem problem = { 0 };
    json_t *head = NULL;
    assert_int_equal(store_open_to_read(log->path, &beside, &log->problem), PROBLEM_NONE);
    assert_int_equal(audit_write(log->store, &actor_system, "studio.stopped", NULL, NULL, &log->problem), PROBLEM_NONE);
    struct db *db = store_read(beside);
    assert_int_equal(audit_head(db, &head, &log->problem), PROBLEM_NONE);
    assert_int_equal(json_get_int(head, "seq", 0), N_ROWS + 1);
    assert_int_not_equal(db_run(db, "CREATE TABLE x (y)", NO_ARGS, &problem), PROBLEM_NONE);
    store_read_done(beside, db);
    store_close(beside);
    json_decref(head);
    struct problem missing = { 0 };
    assert_int_equal(store_open_to_read("/nowhere/db", &beside, &missing), PROBLEM_NOT_FOUND);
    tamper(log, "PRAGMA user_version = 1");
    struct problem old = { 0 };
    assert_int_equal(store_open_to_read(log->path, &beside, &old), PROBLEM_CONFLICT);
    assert_non_null(strstr(old.detail, "start the studio once"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_untouched_log_is_whole),
        TEST(every_change_is_found),
        TEST(a_noted_head_finds_what_the_chain_cannot),
        TEST(the_program_itself_can_neither_change_nor_remove),
        TEST(retention_leaves_signed_records),
        TEST(retention_never_takes_all),
        TEST(filters_find_what_they_say),
        TEST(exports_are_safe_to_open),
        TEST(long_exports_hold_every_row_once),
        TEST(the_key_is_made_once_and_for_the_owner_alone),
        TEST(a_reader_beside_the_studio_sees_what_is_committed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
