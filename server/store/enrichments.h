/* enrichments: prompts that were enriched, whether they were used or not, and the texts of the directions that
 * somebody changed. */
#ifndef SERVER_STORE_ENRICHMENTS_H
#define SERVER_STORE_ENRICHMENTS_H

#include "store/audit.h"

/* Strings are borrowed; NULL: none. */
struct new_enrichment {
    const char *id, *owner;
    int64_t created_us;
    const char *before, *after;
    const json_t *directions; /* their names */
    const char *source;       /* "endpoint", "builtin" */
    const char *endpoint;     /* its address without credentials */
    const char *model;
    int64_t seed; /* < 0: none */
    int64_t duration_ms;
    const char *error;
};

enum problem_code enrichments_insert(struct db *db, const struct new_enrichment *enrichment, struct problem *problem);
/* One enrichment as the API shows it, or NULL; owner NULL: anyone's. */
enum problem_code enrichments_get(struct db *db, const char *owner, const char *id, json_t **ret_enrichment,
                                  struct problem *problem);
/* The newest first, older than the one with the id before (NULL: from the newest on); owner NULL: everybody's. */
enum problem_code enrichments_list(struct db *db, const char *owner, const char *before, int64_t limit,
                                   json_t **ret_list, struct problem *problem);

/* The instructions that were changed: {"cinematic": "…"}. */
enum problem_code enrichments_read_directions(struct db *db, json_t **ret_texts, struct problem *problem);
enum problem_code enrichments_write_directions(struct db *db, const json_t *texts, struct problem *problem);

#endif
