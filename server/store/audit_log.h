/* audit_log: reading the audit log, checking it, and letting go of its oldest rows. */
#ifndef SERVER_STORE_AUDIT_LOG_H
#define SERVER_STORE_AUDIT_LOG_H

#include "base/signing.h"
#include "store/audit.h"

/* Strings are borrowed; NULL: any. */
struct audit_filter {
    const char *reader_id; /* only rows of this user's actions; NULL: everybody's */
    const char *actor;     /* a name */
    const char *action;    /* "job.done", or "job." for all that begin so */
    const char *object;    /* an id or a name */
    const char *text;      /* somewhere in action, object, actor, address or details; case of ASCII does not count */
    int64_t since_us, until_us;    /* 0: open */
    int64_t before_seq, after_seq; /* pages go on from there; 0: from the end */
    int64_t limit;
    bool is_oldest_first;
};

/* Rows {"seq", "time", "actor", "actor_id", "address", "user_agent", "action", "object", "details", "hash"}. */
enum problem_code audit_list(struct db *db, const struct audit_filter *filter, json_t **ret_rows,
                             struct problem *problem);
/* {"seq", "hash", "time"} of the last row; null each when there is none. */
enum problem_code audit_head(struct db *db, json_t **ret_head, struct problem *problem);

/* Microseconds of the first row; *ret_us stays as it is when there is none. */
enum problem_code audit_oldest(struct db *db, int64_t *ret_us, struct problem *problem);

enum audit_form { AUDIT_CSV, AUDIT_JSONL };

/* Hands out the rows of the filter, oldest first, as text: CSV (RFC 4180, with a line of names; a cell that a spreadsheet would
 * take for a formula has ' in front) or one JSON object a line. No view is held for long, and what is appended meanwhile is not
 * in it. Ends early when write gives false. */
enum problem_code audit_export(struct store *store, const struct audit_filter *filter, enum audit_form form,
                               bool (*write)(void *user, const char *text, size_t n), void *user,
                               struct problem *problem);

/* A head that was noted elsewhere. */
struct audit_anchor {
    int64_t seq;
    const char *hash;
};

/* Goes through the whole log, in constant memory. {"ok", "rows", "first_seq", "last_seq", "hash", "gaps", "fault":
 * {"seq", "sentence"} or null}. key NULL: there is none; then records of gaps cannot hold. anchor may be NULL. */
enum problem_code audit_verify(struct db *db, const struct signing_key *key, const struct audit_anchor *anchor,
                               json_t **ret_verdict, struct problem *problem);

/* Rows before that time go, but never the last one; a signed record of them and the row "audit.trimmed" stay. *ret_n is
 * how many went. */
enum problem_code audit_trim(struct store *store, const struct signing_key *key, int64_t before_us, int64_t *ret_n,
                             struct problem *problem);

#endif
