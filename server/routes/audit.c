/* The audit log: lists, export, head, check. A user sees what it did itself; an administrator sees everything. */
#include "routes/routes.h"

#include "base/page.h"
#include "store/audit_log.h"
#include "studio.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define MAX_PAGE 500

struct audit_fields {
    struct audit_filter filter;
    const char *since, *until, *sort, *cursor, *format;
};

#define FILTER(member) offsetof(struct audit_fields, filter.member)

static const struct json_row filter_rows[] = {
    { "actor", JSON_ROW_TEXT, FILTER(actor), 1, 64, NULL, 0 },
    { "action", JSON_ROW_TEXT, FILTER(action), 1, 64, NULL, 0 },
    { "object", JSON_ROW_TEXT, FILTER(object), 1, 300, NULL, 0 },
    { "q", JSON_ROW_TEXT, FILTER(text), 1, 300, NULL, 0 },
    { "since", JSON_ROW_TEXT, offsetof(struct audit_fields, since), 1, 40, NULL, 0 },
    { "until", JSON_ROW_TEXT, offsetof(struct audit_fields, until), 1, 40, NULL, 0 },
    /* only for lists */
    { "sort", JSON_ROW_CHOICE, offsetof(struct audit_fields, sort), 0, 0, "newest|oldest", 0 },
    { "cursor", JSON_ROW_TEXT, offsetof(struct audit_fields, cursor), 1, 18, NULL, 0 },
    { "limit", JSON_ROW_INT, FILTER(limit), 1, MAX_PAGE, NULL, 0 },
};
#define N_SHARED_ROWS 6

static enum problem_code read_filter(const struct request *request, const struct json_row *rows, size_t n_rows,
                                     struct audit_fields *fields, struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    *fields = (struct audit_fields){ .filter = { .limit = 100 }, .format = "csv" };
    TRY(request_read_query(request, rows, n_rows, fields, problem));
    TRY(page_read_time("since", fields->since, &fields->filter.since_us, problem));
    TRY(page_read_time("until", fields->until, &fields->filter.until_us, problem));
    fields->filter.reader_id = request_is_admin(request) ? NULL : request_caller(request)->user_id;
    fields->filter.is_oldest_first = fields->sort != NULL && strcmp(fields->sort, "oldest") == 0;
    TRY(page_read_cursor(fields->cursor,
                         fields->filter.is_oldest_first ? &fields->filter.after_seq : &fields->filter.before_seq,
                         problem));
done:
    return st;
}

static enum problem_code list_audit(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    struct audit_fields fields;
    json_t *rows = NULL;
    enum problem_code st = read_filter(request, filter_rows, COUNT(filter_rows), &fields, problem);
    if (st != PROBLEM_NONE) {
        return st;
    }
    const int64_t limit = fields.filter.limit++; /* one more tells whether there is another page */
    struct db *db = store_read(studio->store);
    st = audit_list(db, &fields.filter, &rows, problem);
    store_read_done(studio->store, db);
    if (st != PROBLEM_NONE) {
        return st;
    }
    json_t *next = page_cut(rows, limit, "seq");
    response_json(response, 200, JSON("{s:o, s:o}", "rows", rows, "next", next));
    return PROBLEM_NONE;
}

/* ---- Export ---- */

static bool write_page(void *user, const char *text, size_t n) {
    return response_write(user, text, n);
}

static enum problem_code export_audit(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    struct json_row rows[N_SHARED_ROWS + 1];
    struct audit_fields fields;
    enum problem_code st = PROBLEM_NONE;
    memcpy(rows, filter_rows, N_SHARED_ROWS * sizeof rows[0]);
    rows[N_SHARED_ROWS] =
        (struct json_row){ "format", JSON_ROW_CHOICE, offsetof(struct audit_fields, format), 0, 0, "csv|jsonl", 0 };
    TRY(read_filter(request, rows, COUNT(rows), &fields, problem));
    TRY(audit_write(studio->store, request_actor(request), "audit.exported", NULL,
                    JSON("{s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?}", "format", fields.format, "actor",
                         fields.filter.actor, "action", fields.filter.action, "object", fields.filter.object, "q",
                         fields.filter.text, "since", fields.since, "until", fields.until),
                    problem));
    const bool is_csv = strcmp(fields.format, "csv") == 0;
    response_begin_stream(response, 200, is_csv ? "text/csv; charset=utf-8" : "application/jsonl; charset=utf-8");
    response_header(response, "Content-Disposition",
                    is_csv ? "attachment; filename=\"audit.csv\"" : "attachment; filename=\"audit.jsonl\"");
    TRY(audit_export(studio->store, &fields.filter, is_csv ? AUDIT_CSV : AUDIT_JSONL, write_page, response, problem));
done:
    return st;
}

/* ---- Head and check ---- */

static enum problem_code show_head(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    json_t *head = NULL;
    char key[SIGNING_PUBLIC_TEXT];
    (void)request;
    struct db *db = store_read(studio->store);
    const enum problem_code st = audit_head(db, &head, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        json_put(head, "public_key", json_string(signing_public_text(&studio->audit_key, key)));
        response_json(response, 200, head);
    }
    return st;
}

static enum problem_code verify_audit(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    static const struct json_row rows[] = {
        { "seq", JSON_ROW_INT, offsetof(struct audit_anchor, seq), 1, 9007199254740991.0, NULL, 0 },
        { "hash", JSON_ROW_TEXT, offsetof(struct audit_anchor, hash), AUDIT_HASH_TEXT - 1, AUDIT_HASH_TEXT - 1, NULL,
          0 },
    };
    struct audit_anchor anchor = { 0 };
    json_t *verdict = NULL;
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(request_read_query(request, rows, COUNT(rows), &anchor, problem));
    if ((anchor.seq == 0) != (anchor.hash == NULL)) {
        st = problem_set(problem, PROBLEM_INVALID, anchor.seq == 0 ? "seq" : "hash",
                         "\"seq\" and \"hash\" belong together: give both or none");
        goto done;
    }
    db = store_read(studio->store);
    TRY(audit_verify(db, &studio->audit_key, anchor.seq != 0 ? &anchor : NULL, &verdict, problem));
    response_json(response, 200, verdict);
done:
    store_read_done(studio->store, db);
    return st;
}

static const struct route routes[] = {
    { "GET", "/api/v1/audit", ACCESS_READ, BODY_NONE, 0, list_audit },
    { "GET", "/api/v1/audit/export", ACCESS_READ, BODY_NONE, ROUTE_SLOW, export_audit },
    { "GET", "/api/v1/audit/head", ACCESS_ADMIN, BODY_NONE, 0, show_head },
    { "GET", "/api/v1/audit/verify", ACCESS_ADMIN, BODY_NONE, ROUTE_SLOW, verify_audit },
};

const struct route_table audit_routes = { routes, COUNT(routes) };
