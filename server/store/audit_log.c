/* Reading, checking and trimming the audit log: see audit_log.h. */
#include "store/audit_log.h"

#include "base/clock.h"
#include "store/audit_chain.h"
#include "store/query.h"

#include <stdlib.h>
#include <string.h>

/* ---- Reading ---- */

#define SHOWN                                                                                                          \
    "SELECT seq, time_us AS \"time:t\", actor, actor_id, address, user_agent, action, object, details AS "             \
    "\"details:j\", hash FROM audit WHERE seq > ?1"

/* "job." → everything between "job." and "job/", the character after the dot: the index finds it. */
static void add_action(struct query *query, const char *action) {
    const size_t n = action != NULL ? strlen(action) : 0;
    if (n > 0 && action[n - 1] == '.') {
        char *end = text_format("%.*s/", (int)n - 1, action);
        query_add(query, " AND action >= ?", json_text(action));
        query_add(query, " AND action < ?", json_text(end));
        free(end);
    } else {
        query_add_text(query, " AND action = ?", action);
    }
}

enum problem_code audit_list(struct db *db, const struct audit_filter *filter, json_t **ret_rows,
                             struct problem *problem) {
    struct query query = { text_copy(SHOWN), ARGS("I]", (json_int_t)filter->after_seq) };
    query_add_text(&query, " AND actor_id = ?", filter->reader_id);
    query_add_text(&query, " AND actor = ?", filter->actor);
    add_action(&query, filter->action);
    query_add_text(&query, " AND object = ?", filter->object);
    query_add_text(&query,
                   " AND instr(lower(action || ' ' || coalesce(object, '') || ' ' || coalesce(actor, '') || ' ' || "
                   "coalesce(address, '') || ' ' || coalesce(details, '')), lower(?)) > 0",
                   filter->text);
    if (filter->since_us > 0) {
        query_add(&query, " AND time_us >= ?", json_integer(filter->since_us));
    }
    if (filter->until_us > 0) {
        query_add(&query, " AND time_us < ?", json_integer(filter->until_us));
    }
    if (filter->before_seq > 0) {
        query_add(&query, " AND seq < ?", json_integer(filter->before_seq));
    }
    char *sql = text_format("%s ORDER BY seq %s LIMIT ?", query.sql, filter->is_oldest_first ? "ASC" : "DESC");
    json_add(query.arguments, json_integer(filter->limit));
    const enum problem_code st = db_all(db, sql, query.arguments, ret_rows, problem);
    free(sql);
    free(query.sql);
    return st;
}

enum problem_code audit_head(struct db *db, json_t **ret_head, struct problem *problem) {
    const enum problem_code st = db_one(
        db, "SELECT seq, hash, time_us AS \"time:t\" FROM audit ORDER BY seq DESC LIMIT 1", NO_ARGS, ret_head, problem);
    if (st == PROBLEM_NONE && *ret_head == NULL) {
        *ret_head = JSON("{s:n, s:n, s:n}", "seq", "hash", "time");
    }
    return st;
}

enum problem_code audit_oldest(struct db *db, int64_t *ret_us, struct problem *problem) {
    return db_int(db, "SELECT time_us FROM audit ORDER BY seq LIMIT 1", NO_ARGS, *ret_us, ret_us, problem);
}

/* ---- Export ---- */

#define PAGE_ROWS 500

static const char *const columns[] = { "seq",        "time",   "actor",  "actor_id", "address",
                                       "user_agent", "action", "object", "details",  "hash" };
#define N_COLUMNS (sizeof columns / sizeof columns[0])

static void put_cell(FILE *out, const json_t *value) {
    char *made = json_is_string(value) || json_is_null(value) ? NULL : json_text_of(value);
    const char *text = made != NULL ? made : json_is_string(value) ? json_string_value(value) : "";
    fputs(text[0] != '\0' && strchr("=+-@\t\r", text[0]) != NULL ? "\"'" : "\"", out);
    for (const char *c = text; *c != '\0'; c++) {
        fputs(*c == '"' ? "\"" : "", out);
        fputc(*c, out);
    }
    fputc('"', out);
    free(made);
}

static void put_row(FILE *out, const json_t *row, enum audit_form form) {
    if (form == AUDIT_JSONL) {
        char *text = json_text_of(row);
        fprintf(out, "%s\n", text);
        free(text);
        return;
    }
    for (size_t i = 0; i < N_COLUMNS; i++) {
        fputs(i > 0 ? "," : "", out);
        put_cell(out, json_object_get(row, columns[i]));
    }
    fputs("\r\n", out);
}

static void put_names(FILE *out) {
    for (size_t i = 0; i < N_COLUMNS; i++) {
        fprintf(out, "%s%s", i > 0 ? "," : "", columns[i]);
    }
    fputs("\r\n", out);
}

/* One page as text. */
static char *page_text(const json_t *rows, enum audit_form form, bool is_first, size_t *ret_n) {
    char *text = NULL;
    FILE *out = open_memstream(&text, ret_n);
    if (out == NULL) {
        text_out_of_memory();
    }
    if (is_first && form == AUDIT_CSV) {
        put_names(out);
    }
    for (size_t i = 0; i < json_array_size(rows); i++) {
        put_row(out, json_array_get(rows, i), form);
    }
    if (fclose(out) != 0) {
        text_out_of_memory();
    }
    return text;
}

static enum problem_code find_last(struct db *db, int64_t *ret_seq, struct problem *problem) {
    return db_int(db, "SELECT max(seq) FROM audit", NO_ARGS, 0, ret_seq, problem);
}

enum problem_code audit_export(struct store *store, const struct audit_filter *filter, enum audit_form form,
                               bool (*write)(void *user, const char *text, size_t n), void *user,
                               struct problem *problem) {
    struct audit_filter page = *filter;
    int64_t last = 0;
    bool goes_on = true;
    enum problem_code st = PROBLEM_NONE;
    page.limit = PAGE_ROWS;
    page.is_oldest_first = true;
    for (bool is_first = true; goes_on && st == PROBLEM_NONE; is_first = false) {
        json_t *rows = NULL;
        struct db *db = store_read(store);
        if (is_first && (st = find_last(db, &last, problem)) == PROBLEM_NONE && page.before_seq == 0) {
            page.before_seq = last + 1;
        }
        st = st != PROBLEM_NONE ? st : audit_list(db, &page, &rows, problem);
        store_read_done(store, db);
        if (st == PROBLEM_NONE) {
            const size_t n_rows = json_array_size(rows);
            size_t n = 0;
            char *text = page_text(rows, form, is_first, &n);
            goes_on = write(user, text, n) && n_rows == PAGE_ROWS;
            page.after_seq = json_get_int(json_array_get(rows, n_rows > 0 ? n_rows - 1 : 0), "seq", 0);
            free(text);
        }
        json_decref(rows);
    }
    return st;
}

/* ---- Gaps ---- */

static char *gap_text(const json_t *gap) {
    return text_format("cyberimage audit gap %lld %lld %s %lld", (long long)json_get_int(gap, "first_seq", 0),
                       (long long)json_get_int(gap, "last_seq", 0), json_get_text(gap, "last_hash"),
                       (long long)json_get_int(gap, "removed_us", 0));
}

/* ---- Checking ---- */

struct check {
    const struct signing_key *key;
    const struct audit_anchor *anchor;
    int64_t n_rows, first_seq, last_seq;
    char hash[AUDIT_HASH_TEXT];
    bool has_anchor; /* it was met, and holds */
    json_t *gaps;
    int64_t fault_seq;
    char *fault; /* NULL: none so far */
};

static bool find_fault(struct check *check, int64_t seq, char *sentence) {
    check->fault_seq = seq;
    check->fault = sentence;
    return false;
}

static void meet(struct check *check, int64_t seq, const char *hash) {
    check->last_seq = seq;
    (void)snprintf(check->hash, sizeof check->hash, "%s", hash);
    if (check->anchor != NULL && check->anchor->seq == seq) {
        check->has_anchor = strcmp(check->anchor->hash, hash) == 0;
    }
}

static bool check_gap(void *user, json_t *gap) {
    struct check *check = user;
    const int64_t first = json_get_int(gap, "first_seq", 0), last = json_get_int(gap, "last_seq", 0);
    const char *signature = json_get_text(gap, "signature");
    char *text = gap_text(gap);
    const bool is_right = check->key != NULL && signing_is_right(check->key, text, signature);
    free(text);
    if (first != check->last_seq + 1 || last < first) {
        return find_fault(check, first,
                          text_format("the record of the removed rows %lld to %lld does not begin where the one "
                                      "before it ended",
                                      (long long)first, (long long)last));
    }
    if (!is_right) {
        return find_fault(
            check, first,
            text_format("the record of the removed rows %lld to %lld is not signed by this studio's key%s",
                        (long long)first, (long long)last, check->key == NULL ? ", which is not there" : ""));
    }
    json_add(check->gaps, JSON("{s:I, s:I, s:O}", "first_seq", (json_int_t)first, "last_seq", (json_int_t)last,
                               "removed", json_object_get(gap, "removed")));
    meet(check, last, json_get_text(gap, "last_hash"));
    return true;
}

static bool check_row(void *user, json_t *row) {
    struct check *check = user;
    const int64_t seq = json_get_int(row, "seq", 0);
    char hash[AUDIT_HASH_TEXT];
    if (seq != check->last_seq + 1) {
        return find_fault(
            check, check->last_seq + 1,
            text_format("rows %lld to %lld are missing", (long long)check->last_seq + 1, (long long)seq - 1));
    }
    audit_hash(check->hash, row, hash);
    if (strcmp(hash, json_get_text(row, "hash")) != 0) {
        return find_fault(
            check, seq,
            text_format("row %lld does not fit: it was changed, or what was in front of it", (long long)seq));
    }
    check->n_rows++;
    check->first_seq = check->first_seq == 0 ? seq : check->first_seq;
    meet(check, seq, hash);
    return true;
}

static void check_anchor(struct check *check) {
    const struct audit_anchor *anchor = check->anchor;
    if (check->fault == NULL && anchor != NULL && !check->has_anchor) {
        (void)find_fault(
            check, anchor->seq,
            anchor->seq > check->last_seq
                ? text_format("the log ends at row %lld, and row %lld was noted: rows are missing at its end",
                              (long long)check->last_seq, (long long)anchor->seq)
            : anchor->seq < check->first_seq
                ? text_format("row %lld was removed by retention and cannot be compared", (long long)anchor->seq)
                : text_format("row %lld is not the one that was noted: the log was written anew from there or "
                              "before",
                              (long long)anchor->seq));
    }
}

enum problem_code audit_verify(struct db *db, const struct signing_key *key, const struct audit_anchor *anchor,
                               json_t **ret_verdict, struct problem *problem) {
    struct check check = { .key = key, .anchor = anchor, .hash = AUDIT_FIRST_HASH, .gaps = JSON("[]") };
    enum problem_code st = PROBLEM_NONE;
    TRY(db_each(
        db,
        "SELECT first_seq, last_seq, last_hash, removed_us, removed_us AS \"removed:t\", signature FROM audit_gaps "
        "ORDER BY last_seq",
        NO_ARGS, check_gap, &check, problem));
    if (check.fault == NULL) {
        TRY(db_each(
            db,
            "SELECT seq, time_us, actor, actor_id, address, user_agent, action, object, details, hash FROM audit "
            "ORDER BY seq",
            NO_ARGS, check_row, &check, problem));
    }
    check_anchor(&check);
    *ret_verdict = JSON("{s:b, s:I, s:I, s:I, s:s, s:O, s:o}", "ok", check.fault == NULL, "rows",
                        (json_int_t)check.n_rows, "first_seq", (json_int_t)check.first_seq, "last_seq",
                        (json_int_t)check.last_seq, "hash", check.hash, "gaps", check.gaps, "fault",
                        check.fault != NULL
                            ? JSON("{s:I, s:o}", "seq", (json_int_t)check.fault_seq, "sentence", json_text(check.fault))
                            : json_null());
done:
    json_decref(check.gaps);
    free(check.fault);
    return st;
}

/* ---- Trimming ---- */

/* The last row of the unbroken beginning that is older: a clock that was set back keeps what follows. */
static enum problem_code find_end(struct db *db, int64_t before_us, json_t **ret_last, struct problem *problem) {
    return db_one(
        db,
        "SELECT seq, hash, (SELECT min(seq) FROM audit) AS first_seq FROM audit WHERE seq < coalesce((SELECT min(seq) "
        "FROM audit WHERE time_us >= ?1), 9223372036854775807) AND seq < (SELECT max(seq) FROM audit) ORDER BY seq "
        "DESC LIMIT 1",
        ARGS("I]", (json_int_t)before_us), ret_last, problem);
}

enum problem_code audit_trim(struct store *store, const struct signing_key *key, int64_t before_us, int64_t *ret_n,
                             struct problem *problem) {
    json_t *last = NULL, *gap = NULL;
    char *text = NULL, signature[SIGNING_SIGNATURE_TEXT];
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    *ret_n = 0;
    TRY(store_begin(store, &db, problem));
    TRY(find_end(db, before_us, &last, problem));
    if (last == NULL) {
        goto done;
    }
    gap = JSON("{s:O, s:O, s:O, s:I}", "first_seq", json_object_get(last, "first_seq"), "last_seq",
               json_object_get(last, "seq"), "last_hash", json_object_get(last, "hash"), "removed_us",
               (json_int_t)clock_now_us());
    text = gap_text(gap);
    signing_sign(key, text, signature);
    TRY(db_run(
        db,
        "INSERT INTO audit_gaps (first_seq, last_seq, last_hash, removed_us, signature) VALUES (?1, ?2, ?3, ?4, ?5)",
        ARGS("O,O,O,O,s]", json_object_get(gap, "first_seq"), json_object_get(gap, "last_seq"),
             json_object_get(gap, "last_hash"), json_object_get(gap, "removed_us"), signature),
        problem));
    TRY(db_run(db, "DELETE FROM audit WHERE seq <= ?1", ARGS("O]", json_object_get(last, "seq")), problem));
    const int64_t n = db_changes(db);
    TRY(audit_append(
        db, &actor_system, "audit.trimmed", NULL,
        JSON("{s:O, s:O}", "first_seq", json_object_get(last, "first_seq"), "last_seq", json_object_get(last, "seq")),
        problem));
    TRY(store_commit(store, &db, problem));
    *ret_n = n;
done:
    store_rollback(store, &db);
    json_decref(last);
    json_decref(gap);
    free(text);
    return st;
}
