/* SQLite: see db.h. */
#include "store/db.h"

#include "base/clock.h"
#include "base/log.h"
#include "files.h"
#include "store/migrations.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_CACHED 96 /* prepared statements of a connection */
#define MAX_READERS 32
#define BUSY_MS 5000
#define BACKUP_PAGES 256 /* copied before other connections may go on */

struct cached {
    sqlite3_stmt *statement;
    char *sql;
    uint64_t used; /* the connection's counter when it was used last */
    bool is_busy;
};

struct db {
    sqlite3 *connection;
    struct store *store;
    struct cached cached[N_CACHED];
    uint64_t counter;
    bool is_writer, is_free;
};

struct store {
    char *path;
    pthread_mutex_t writer_mutex; /* held from begin to commit or rollback */
    struct db writer;
    pthread_mutex_t readers_mutex; /* guards is_free of the readers */
    pthread_cond_t reader_is_free;
    struct db readers[MAX_READERS];
    int n_readers;
    atomic_bool is_sick;
};

/* ---- What SQLite says ---- */

static enum problem_code report(struct db *db, int code, const char *what, struct problem *problem) {
    const char *words = db->connection != NULL ? sqlite3_errmsg(db->connection) : sqlite3_errstr(code);
    switch (code & 0xFF) {
    case SQLITE_FULL:
        return problem_set(problem, PROBLEM_NO_SPACE, NULL, "the database cannot grow: the disk is full");
    case SQLITE_CONSTRAINT:
        return problem_set(problem, PROBLEM_CONFLICT, NULL, "that is there already, or something that it names is not");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return problem_set(problem, PROBLEM_UNAVAILABLE, NULL, "the database is in use by another program");
    case SQLITE_CORRUPT:
    case SQLITE_IOERR:
    case SQLITE_NOTADB:
    case SQLITE_CANTOPEN:
        if (code == SQLITE_IOERR_NOMEM) {
            break;
        }
        atomic_store(&db->store->is_sick, true);
        break;
    default:
        break;
    }
    log_event(LOG_ERROR, "store.failed", JSON("{s:i, s:o, s:s}", "code", code, "error", json_text(words), "sql", what));
    return (code & 0xFF) == SQLITE_CORRUPT || (code & 0xFF) == SQLITE_NOTADB
               ? problem_set(problem, PROBLEM_INTERNAL, NULL,
                             "the database is damaged (code %d): put a backup back, or let cyberimage fsck --rebuild "
                             "make one from the pictures",
                             code)
               : problem_set(problem, PROBLEM_INTERNAL, NULL, "the database failed (code %d)", code);
}

/* ---- Statements ---- */

static enum problem_code prepare(struct db *db, const char *sql, struct cached **ret_cached, struct problem *problem) {
    struct cached *oldest = NULL;
    for (int i = 0; i < N_CACHED; i++) {
        struct cached *cached = &db->cached[i];
        if (!cached->is_busy && cached->sql != NULL && strcmp(cached->sql, sql) == 0) {
            oldest = cached;
            break;
        }
        if (!cached->is_busy && (oldest == NULL || cached->used < oldest->used)) {
            oldest = cached;
        }
    }
    if (oldest == NULL) {
        return problem_set(problem, PROBLEM_INTERNAL, NULL, "too many statements are under way at one time");
    }
    if (oldest->sql == NULL || strcmp(oldest->sql, sql) != 0) {
        (void)sqlite3_finalize(oldest->statement);
        free(oldest->sql);
        *oldest = (struct cached){ 0 };
        const int code =
            sqlite3_prepare_v3(db->connection, sql, -1, SQLITE_PREPARE_PERSISTENT, &oldest->statement, NULL);
        if (code != SQLITE_OK) {
            return report(db, code, sql, problem);
        }
        oldest->sql = text_copy(sql);
    }
    oldest->used = ++db->counter;
    oldest->is_busy = true;
    *ret_cached = oldest;
    return PROBLEM_NONE;
}

static void release(struct cached *cached) {
    (void)sqlite3_reset(cached->statement);
    (void)sqlite3_clear_bindings(cached->statement);
    cached->is_busy = false;
}

static int bind_value(sqlite3_stmt *statement, int i, const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_STRING:
        return sqlite3_bind_text(statement, i, json_string_value(value), (int)json_string_length(value), SQLITE_STATIC);
    case JSON_INTEGER:
        return sqlite3_bind_int64(statement, i, json_integer_value(value));
    case JSON_REAL:
        return sqlite3_bind_double(statement, i, json_real_value(value));
    case JSON_TRUE:
    case JSON_FALSE:
        return sqlite3_bind_int(statement, i, json_is_true(value));
    case JSON_NULL:
        return sqlite3_bind_null(statement, i);
    default: { /* an object or a list is kept as its text */
        char *text = json_text_of(value);
        return sqlite3_bind_text(statement, i, text, -1, free);
    }
    }
}

static int bind_all(sqlite3_stmt *statement, const json_t *arguments) {
    int code = (int)json_array_size(arguments) == sqlite3_bind_parameter_count(statement) ? SQLITE_OK : SQLITE_RANGE;
    for (size_t i = 0; i < json_array_size(arguments) && code == SQLITE_OK; i++) {
        code = bind_value(statement, (int)i + 1, json_array_get(arguments, i));
    }
    return code;
}

static json_t *read_text(sqlite3_stmt *statement, int i) {
    const char *text = (const char *)sqlite3_column_text(statement, i);
    return text != NULL ? json_text(text) : json_null();
}

static json_t *read_column(sqlite3_stmt *statement, int i, char kind) {
    const int type = sqlite3_column_type(statement, i);
    char time[CLOCK_TEXT];
    if (type == SQLITE_NULL) {
        return json_null();
    }
    switch (kind) {
    case 'b':
        return json_boolean(sqlite3_column_int(statement, i) != 0);
    case 't':
        return json_string(clock_utc_text(time, sqlite3_column_int64(statement, i)));
    case 'j': {
        const char *text = (const char *)sqlite3_column_text(statement, i);
        json_t *value = text != NULL ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
        return value != NULL ? value : json_null();
    }
    default:
        return type == SQLITE_INTEGER ? json_integer(sqlite3_column_int64(statement, i))
               : type == SQLITE_FLOAT ? json_real(sqlite3_column_double(statement, i))
                                      : read_text(statement, i);
    }
}

static json_t *read_row(sqlite3_stmt *statement) {
    json_t *row = JSON("{}");
    for (int i = 0; i < sqlite3_column_count(statement); i++) {
        const char *name = sqlite3_column_name(statement, i);
        const size_t n = strlen(name);
        const bool has_kind = n > 2 && name[n - 2] == ':';
        char plain[128];
        (void)snprintf(plain, sizeof plain, "%.*s", (int)(has_kind ? n - 2 : n), name);
        json_put(row, plain, read_column(statement, i, has_kind ? name[n - 1] : '\0'));
    }
    return row;
}

enum problem_code db_each(struct db *db, const char *sql, json_t *arguments, bool (*on_row)(void *user, json_t *row),
                          void *user, struct problem *problem) {
    struct cached *cached = NULL;
    enum problem_code st = prepare(db, sql, &cached, problem);
    if (st == PROBLEM_NONE) {
        int code = bind_all(cached->statement, arguments);
        while (code == SQLITE_OK || code == SQLITE_ROW) {
            code = sqlite3_step(cached->statement);
            if (code == SQLITE_ROW) {
                json_t *row = read_row(cached->statement);
                if (!on_row(user, row)) {
                    code = SQLITE_DONE;
                }
                json_decref(row);
            }
        }
        if (code != SQLITE_DONE) {
            st = report(db,
                        sqlite3_extended_errcode(db->connection) != SQLITE_OK ? sqlite3_extended_errcode(db->connection)
                                                                              : code,
                        sql, problem);
        }
        release(cached);
    }
    json_decref(arguments);
    return st;
}

static bool skip_row(void *user, json_t *row) {
    (void)user;
    (void)row;
    return true;
}

static bool take_first(void *user, json_t *row) {
    *(json_t **)user = json_incref(row);
    return false;
}

static bool append_row(void *user, json_t *row) {
    json_add(user, json_incref(row));
    return true;
}

enum problem_code db_run(struct db *db, const char *sql, json_t *arguments, struct problem *problem) {
    return db_each(db, sql, arguments, skip_row, NULL, problem);
}

int64_t db_changes(struct db *db) {
    return sqlite3_changes64(db->connection);
}

int64_t db_last_rowid(struct db *db) {
    return sqlite3_last_insert_rowid(db->connection);
}

enum problem_code db_one(struct db *db, const char *sql, json_t *arguments, json_t **ret_row, struct problem *problem) {
    json_t *row = NULL;
    const enum problem_code st = db_each(db, sql, arguments, take_first, &row, problem);
    if (st == PROBLEM_NONE) {
        *ret_row = row;
    } else {
        json_decref(row);
    }
    return st;
}

enum problem_code db_all(struct db *db, const char *sql, json_t *arguments, json_t **ret_rows,
                         struct problem *problem) {
    json_t *rows = JSON("[]");
    const enum problem_code st = db_each(db, sql, arguments, append_row, rows, problem);
    if (st == PROBLEM_NONE) {
        *ret_rows = rows;
    } else {
        json_decref(rows);
    }
    return st;
}

enum problem_code db_int(struct db *db, const char *sql, json_t *arguments, int64_t fallback, int64_t *ret_value,
                         struct problem *problem) {
    json_t *row = NULL;
    const enum problem_code st = db_one(db, sql, arguments, &row, problem);
    if (st == PROBLEM_NONE) {
        const json_t *value = row != NULL ? json_object_iter_value(json_object_iter(row)) : NULL;
        *ret_value = json_is_integer(value) ? json_integer_value(value) : fallback;
        json_decref(row);
    }
    return st;
}

/* ---- Connections ---- */

static void close_connection(struct db *db) {
    for (int i = 0; i < N_CACHED; i++) {
        (void)sqlite3_finalize(db->cached[i].statement);
        free(db->cached[i].sql);
    }
    (void)sqlite3_close_v2(db->connection);
    memset(db, 0, sizeof *db);
}

static enum problem_code execute(struct db *db, const char *sql, struct problem *problem) {
    const int code = sqlite3_exec(db->connection, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? PROBLEM_NONE : report(db, sqlite3_extended_errcode(db->connection), sql, problem);
}

static enum problem_code open_connection(struct store *store, bool is_writer, struct db *db, struct problem *problem) {
    const int flags = is_writer ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    enum problem_code st = PROBLEM_NONE;
    db->store = store;
    db->is_writer = is_writer;
    db->is_free = true;
    const int code =
        sqlite3_open_v2(store->path, &db->connection, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (code != SQLITE_OK) {
        return problem_set(problem, PROBLEM_INTERNAL, NULL, "the database %.300s cannot be opened: %s", store->path,
                           sqlite3_errstr(code));
    }
    (void)sqlite3_busy_timeout(db->connection, BUSY_MS);
    (void)sqlite3_db_config(db->connection, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    (void)sqlite3_db_config(db->connection, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    (void)sqlite3_db_config(db->connection, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, is_writer ? 0 : 1, NULL);
    TRY(execute(
        db, "PRAGMA mmap_size = 0; PRAGMA foreign_keys = ON; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY",
        problem));
    if (is_writer) {
        TRY(execute(db,
                    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; "
                    "PRAGMA wal_autocheckpoint = 1000; PRAGMA journal_size_limit = 67108864",
                    problem));
    } else {
        TRY(execute(db, "PRAGMA wal_autocheckpoint = 0; PRAGMA query_only = ON", problem));
    }
done:
    return st;
}

/* ---- Schema ---- */

static enum problem_code migrate(struct store *store, int *ret_migrated, struct problem *problem) {
    struct db *db = &store->writer;
    int64_t version = 0;
    enum problem_code st = PROBLEM_NONE;
    *ret_migrated = 0;
    TRY(db_int(db, "PRAGMA user_version", NO_ARGS, 0, &version, problem));
    if (version > n_migrations) {
        st = problem_set(problem, PROBLEM_CONFLICT, NULL,
                         "the database %.300s is of a newer version of the program (schema %lld, this one knows %d)",
                         store->path, (long long)version, n_migrations);
        goto done;
    }
    for (int i = (int)version; i < n_migrations; i++) {
        char *sql = text_format("BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; COMMIT", migrations[i].sql, i + 1);
        st = execute(db, sql, problem);
        free(sql);
        if (st != PROBLEM_NONE) {
            (void)sqlite3_exec(db->connection, "ROLLBACK", NULL, NULL, NULL);
            goto done;
        }
        (*ret_migrated)++;
        log_event(LOG_INFO, "store.migrated", JSON("{s:i, s:s}", "schema", i + 1, "name", migrations[i].name));
    }
done:
    return st;
}

static enum problem_code check_library(struct problem *problem) {
    if (sqlite3_threadsafe() == 0 || sqlite3_compileoption_used("ENABLE_FTS5") == 0) {
        return problem_set(problem, PROBLEM_INTERNAL, NULL,
                           "this SQLite (%s) was built without threads or without full-text search",
                           sqlite3_libversion());
    }
    return PROBLEM_NONE;
}

static struct store *make_store(const char *path) {
    struct store *store = text_alloc(1, sizeof *store);
    store->path = text_copy(path);
    (void)pthread_mutex_init(&store->writer_mutex, NULL);
    (void)pthread_mutex_init(&store->readers_mutex, NULL);
    (void)pthread_cond_init(&store->reader_is_free, NULL);
    return store;
}

static enum problem_code open_readers(struct store *store, int n, struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    for (; store->n_readers < n && store->n_readers < MAX_READERS; store->n_readers++) {
        TRY(open_connection(store, false, &store->readers[store->n_readers], problem));
    }
done:
    return st;
}

/* Prompts and hashes of secrets are nobody else's affair; -wal and -shm take the mode of the file. Only a new file: to open and
 * close one that SQLite has open would end its locks. */
static enum problem_code make_private(const char *path, struct problem *problem) {
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
        (void)close(fd);
    } else if (errno != EEXIST) {
        return problem_system(problem, errno, "the database's file");
    }
    return PROBLEM_NONE;
}

enum problem_code store_open(const char *path, int n_readers, struct store **ret_store, int *ret_migrated,
                             struct problem *problem) {
    struct store *store = make_store(path);
    enum problem_code st = PROBLEM_NONE;
    TRY(check_library(problem));
    TRY(make_private(path, problem));
    TRY(open_connection(store, true, &store->writer, problem));
    TRY(migrate(store, ret_migrated, problem));
    TRY(open_readers(store, n_readers, problem));
    *ret_store = store;
    store = NULL;
done:
    store_close(store);
    return st;
}

enum problem_code store_open_to_read(const char *path, struct store **ret_store, struct problem *problem) {
    struct store *store = make_store(path);
    int64_t version = 0;
    enum problem_code st = PROBLEM_NONE;
    if (!files_exists(path)) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no database %.400s", path);
        goto done;
    }
    TRY(check_library(problem));
    TRY(open_readers(store, 1, problem));
    TRY(db_int(&store->readers[0], "PRAGMA user_version", NO_ARGS, 0, &version, problem));
    if (version != n_migrations) {
        st = problem_set(problem, PROBLEM_CONFLICT, NULL,
                         "the database %.300s is of %s version of the program (schema %lld, this one knows %d)%s", path,
                         version > n_migrations ? "a newer" : "an older", (long long)version, n_migrations,
                         version > n_migrations ? "" : ": start the studio once, which brings it up to date");
        goto done;
    }
    *ret_store = store;
    store = NULL;
done:
    store_close(store);
    return st;
}

void store_close(struct store *store) {
    if (store == NULL) {
        return;
    }
    for (int i = 0; i < MAX_READERS; i++) {
        close_connection(&store->readers[i]);
    }
    close_connection(&store->writer); /* last: it alone checkpoints */
    (void)pthread_mutex_destroy(&store->writer_mutex);
    (void)pthread_mutex_destroy(&store->readers_mutex);
    (void)pthread_cond_destroy(&store->reader_is_free);
    free(store->path);
    free(store);
}

bool store_is_sick(struct store *store) {
    return atomic_load(&store->is_sick);
}

/* ---- Transactions ---- */

enum problem_code store_begin(struct store *store, struct db **ret_db, struct problem *problem) {
    (void)pthread_mutex_lock(&store->writer_mutex);
    const enum problem_code st = db_run(&store->writer, "BEGIN IMMEDIATE", NO_ARGS, problem);
    if (st != PROBLEM_NONE) {
        (void)pthread_mutex_unlock(&store->writer_mutex);
        return st;
    }
    *ret_db = &store->writer;
    return PROBLEM_NONE;
}

enum problem_code store_commit(struct store *store, struct db **db, struct problem *problem) {
    const enum problem_code st = db_run(*db, "COMMIT", NO_ARGS, problem);
    if (st == PROBLEM_NONE) {
        *db = NULL;
        (void)pthread_mutex_unlock(&store->writer_mutex);
    }
    return st;
}

void store_rollback(struct store *store, struct db **db) {
    if (*db == NULL) {
        return;
    }
    if (sqlite3_get_autocommit((*db)->connection) == 0) { /* a full disk may have rolled back already */
        (void)sqlite3_exec((*db)->connection, "ROLLBACK", NULL, NULL, NULL);
    }
    *db = NULL;
    (void)pthread_mutex_unlock(&store->writer_mutex);
}

struct db *store_read(struct store *store) {
    struct db *found = NULL;
    (void)pthread_mutex_lock(&store->readers_mutex);
    while (found == NULL) {
        for (int i = 0; i < store->n_readers && found == NULL; i++) {
            found = store->readers[i].is_free ? &store->readers[i] : NULL;
        }
        if (found == NULL) {
            (void)pthread_cond_wait(&store->reader_is_free, &store->readers_mutex);
        }
    }
    found->is_free = false;
    (void)pthread_mutex_unlock(&store->readers_mutex);
    (void)sqlite3_exec(found->connection, "BEGIN", NULL, NULL, NULL);
    return found;
}

void store_read_done(struct store *store, struct db *db) {
    if (db == NULL) {
        return;
    }
    (void)sqlite3_exec(db->connection, "COMMIT", NULL, NULL, NULL);
    (void)pthread_mutex_lock(&store->readers_mutex);
    db->is_free = true;
    (void)pthread_cond_signal(&store->reader_is_free);
    (void)pthread_mutex_unlock(&store->readers_mutex);
}

/* ---- Backup, check ---- */

static bool sync_folder_of(const char *path) {
    char *folder = files_folder_of(path);
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool is_synced = fd >= 0 && fsync(fd) == 0;
    free(folder);
    if (fd >= 0) {
        (void)close(fd);
    }
    return is_synced;
}

/* The copy is made beside the name and renamed when it is complete and on disk, so that an interrupted backup is never
 * taken for one. */
enum problem_code store_backup(struct store *store, const char *path, struct problem *problem) {
    char *partial = text_format("%s.partial", path);
    sqlite3 *copy = NULL;
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    if (files_exists(path)) {
        st = problem_set(problem, PROBLEM_CONFLICT, NULL, "%.400s exists already", path);
        goto done;
    }
    (void)unlink(partial);
    const int fd = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        st = problem_system(problem, errno, "the backup");
        goto done;
    }
    (void)close(fd);
    int code = sqlite3_open_v2(partial, &copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE, NULL);
    db = store_read(store);
    sqlite3_backup *backup = code == SQLITE_OK ? sqlite3_backup_init(copy, "main", db->connection, "main") : NULL;
    for (code = SQLITE_OK; backup != NULL && (code == SQLITE_OK || code == SQLITE_BUSY);) {
        code = sqlite3_backup_step(backup, BACKUP_PAGES);
    }
    if (backup == NULL || sqlite3_backup_finish(backup) != SQLITE_OK || code != SQLITE_DONE ||
        sqlite3_exec(copy, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL) != SQLITE_OK) {
        st = (sqlite3_errcode(copy) & 0xFF) == SQLITE_FULL
                 ? problem_set(problem, PROBLEM_NO_SPACE, NULL, "the backup does not fit on the disk")
                 : problem_set(problem, PROBLEM_INTERNAL, NULL, "the backup failed: %.200s", sqlite3_errmsg(copy));
        goto done;
    }
    (void)sqlite3_close(copy);
    copy = NULL;
    if (rename(partial, path) != 0 || !sync_folder_of(path)) {
        st = problem_system(problem, errno, "the backup");
    }
done:
    (void)sqlite3_close(copy);
    store_read_done(store, db);
    if (st != PROBLEM_NONE) {
        (void)unlink(partial);
    }
    free(partial);
    return st;
}

static bool collect_fault(void *user, json_t *row) {
    const char *words = json_string_value(json_object_iter_value(json_object_iter(row)));
    if (words == NULL || strcmp(words, "ok") != 0) {
        json_add(user, json_text(words != NULL ? words : "a row names another that is not there"));
    }
    return true;
}

enum problem_code store_check(struct store *store, json_t **ret_faults, struct problem *problem) {
    struct db *db = store_read(store);
    json_t *faults = JSON("[]");
    enum problem_code st = db_each(db, "PRAGMA integrity_check(20)", NO_ARGS, collect_fault, faults, problem);
    if (st == PROBLEM_NONE) {
        st = db_each(db, "PRAGMA foreign_key_check", NO_ARGS, collect_fault, faults, problem);
    }
    store_read_done(store, db);
    if (st == PROBLEM_NONE) {
        *ret_faults = faults;
    } else {
        json_decref(faults);
    }
    return st;
}
