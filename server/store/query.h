/* query: a statement that grows by conditions, for lists with filters. */
#ifndef SERVER_STORE_QUERY_H
#define SERVER_STORE_QUERY_H

#include "base/json.h"

struct query {
    char *sql;         /* owned */
    json_t *arguments; /* an array; db_all and friends take it over */
};

/* Appends SQL, with the value of its one parameter (taken over), or none (NULL). */
void query_add(struct query *query, const char *sql, json_t *value);
/* The same when text is not NULL. */
void query_add_text(struct query *query, const char *sql, const char *text);

#endif
