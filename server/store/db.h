/* db: SQLite as the files of store/ see it. One writer connection, which also does all checkpoints, and several
 * readers, which never do, not even when they close: SQLite's WAL-reset race needs two connections that checkpoint.
 * Nothing outside of store/ writes SQL.
 *
 * Values go in and come out as JSON: arguments are an array (ARGS("s,I", name, number)), a row is an object whose
 * members are named like the columns. A column's alias may end in a type:
 *     "favourite:b"  a truth value      "settings:j"  a text that holds JSON      "created:t"  microseconds as RFC
 * 3339, NULL stays null
 *
 * Writing:   struct db *db; TRY(store_begin(store, &db, problem)); TRY(db_run(db, …)); TRY(store_commit(store, &db, problem));
 *            done: store_rollback(store, &db);    (does nothing after the commit)
 * Reading:   db = store_read(store); … store_read_done(store, db);
 * Threads:   a struct db belongs to the thread that took it until it gives it back. store locks inside.
 * Errors:    NO_SPACE (disk full), CONFLICT (a constraint), UNAVAILABLE (locked by another process), INTERNAL
 * (anything else: the store
 *            is sick from then on if SQLite speaks of damage or failed writes). */
#ifndef SERVER_STORE_DB_H
#define SERVER_STORE_DB_H

#include "base/json.h"

struct db;
struct store;

#define ARGS(...) JSON("[" __VA_ARGS__)
#define NO_ARGS NULL

/* Opens or creates the database, checks that SQLite is safe to use, and brings the schema up to date, each migration in
 * one transaction. *ret_migrated: the number of migrations that ran (0: it was up to date). Errors: also CONFLICT (the
 * file is of a newer version of the program, or no database). */
enum problem_code store_open(const char *path, int n_readers, struct store **ret_store, int *ret_migrated,
                             struct problem *problem);
/* Only readers, for commands beside a studio that may be running: nothing is written, migrated or checkpointed. Errors:
 * NOT_FOUND (no such file), CONFLICT (the schema is of another version of the program), INTERNAL. */
enum problem_code store_open_to_read(const char *path, struct store **ret_store, struct problem *problem);
void store_close(struct store *store);
bool store_is_sick(struct store *store);

/* The writer, in a transaction. Waits until other writers are done. */
enum problem_code store_begin(struct store *store, struct db **ret_db, struct problem *problem);
/* On success *db is NULL and everything is on disk; on failure the transaction is rolled back by store_rollback as always. */
enum problem_code store_commit(struct store *store, struct db **db, struct problem *problem);
void store_rollback(struct store *store, struct db **db);

/* A reader with one consistent view until it is given back. Waits for a free one. */
struct db *store_read(struct store *store);
void store_read_done(struct store *store, struct db *db); /* NULL is fine */

/* Runs a statement; arguments (an array or NULL) are taken over by all of these. */
enum problem_code db_run(struct db *db, const char *sql, json_t *arguments, struct problem *problem);
int64_t db_changes(struct db *db); /* rows that the last db_run changed */
int64_t db_last_rowid(struct db *db);
/* The first row, or NULL when there is none. */
enum problem_code db_one(struct db *db, const char *sql, json_t *arguments, json_t **ret_row, struct problem *problem);
/* All rows, an array. The statement must have its own LIMIT. */
enum problem_code db_all(struct db *db, const char *sql, json_t *arguments, json_t **ret_rows, struct problem *problem);
/* The first column of the first row as a whole number; fallback when there is none. */
enum problem_code db_int(struct db *db, const char *sql, json_t *arguments, int64_t fallback, int64_t *ret_value,
                         struct problem *problem);
/* Calls on_row for each row until it returns false; for long exports. row is only lent. */
enum problem_code db_each(struct db *db, const char *sql, json_t *arguments, bool (*on_row)(void *user, json_t *row),
                          void *user, struct problem *problem);

/* A consistent copy of the whole database into a new file, while everything goes on. Errors: also CONFLICT (path exists). */
enum problem_code store_backup(struct store *store, const char *path, struct problem *problem);
/* SQLite's own integrity check and that of foreign keys: an array of sentences, empty when all is well. */
enum problem_code store_check(struct store *store, json_t **ret_faults, struct problem *problem);

#endif
