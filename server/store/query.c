/* Statements that grow: see query.h. */
#include "store/query.h"

#include <stdlib.h>

void query_add(struct query *query, const char *sql, json_t *value) {
    char *longer = text_format("%s%s", query->sql, sql);
    free(query->sql);
    query->sql = longer;
    if (value != NULL) {
        json_add(query->arguments, value);
    }
}

void query_add_text(struct query *query, const char *sql, const char *text) {
    if (text != NULL) {
        query_add(query, sql, json_text(text));
    }
}
