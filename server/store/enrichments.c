/* Enrichments in the database: see enrichments.h. */
#include "store/enrichments.h"

#include <stdlib.h>
#include <string.h>

#define DIRECTIONS_STATE "enrich.directions"
#define COLUMNS                                                                                                        \
    "id, created_us AS \"created:t\", before, after, directions AS \"directions:j\", source, endpoint, model, seed, "  \
    "duration_ms, error "

enum problem_code enrichments_insert(struct db *db, const struct new_enrichment *enrichment, struct problem *problem) {
    char *directions = json_text_of(enrichment->directions);
    json_t *seed = enrichment->seed >= 0 ? json_need(json_integer(enrichment->seed)) : json_null();
    const enum problem_code st = db_run(
        db,
        "INSERT INTO enrichments (id, owner, created_us, before, after, directions, source, endpoint, model, seed, "
        "duration_ms, error) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        ARGS("s,o,I,o,o,s,s,o,o,o,I,o]", enrichment->id, json_text(enrichment->owner),
             (json_int_t)enrichment->created_us, json_text(enrichment->before), json_text(enrichment->after),
             directions, enrichment->source, json_text(enrichment->endpoint), json_text(enrichment->model), seed,
             (json_int_t)enrichment->duration_ms, json_text(enrichment->error)),
        problem);
    free(directions);
    return st;
}

enum problem_code enrichments_get(struct db *db, const char *owner, const char *id, json_t **ret_enrichment,
                                  struct problem *problem) {
    return db_one(db, "SELECT " COLUMNS "FROM enrichments WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)",
                  ARGS("s,o]", id, json_text(owner)), ret_enrichment, problem);
}

/* The id breaks ties of the time; ids grow with it. */
enum problem_code enrichments_list(struct db *db, const char *owner, const char *before, int64_t limit,
                                   json_t **ret_list, struct problem *problem) {
    if (owner == NULL) {
        return db_all(db, "SELECT " COLUMNS "FROM enrichments WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2",
                      ARGS("o,I]", json_text(before), (json_int_t)limit), ret_list, problem);
    }
    return db_all(
        db,
        "SELECT " COLUMNS "FROM enrichments WHERE owner = ?1 AND (?2 IS NULL OR (created_us, id) < "
        "((SELECT created_us FROM enrichments WHERE id = ?2), ?2)) ORDER BY created_us DESC, id DESC LIMIT ?3",
        ARGS("s,o,I]", owner, json_text(before), (json_int_t)limit), ret_list, problem);
}

enum problem_code enrichments_read_directions(struct db *db, json_t **ret_texts, struct problem *problem) {
    json_t *row = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(db_one(db, "SELECT value AS \"value:j\" FROM state WHERE name = '" DIRECTIONS_STATE "'", NO_ARGS, &row,
               problem));
    json_t *texts = json_object_get(row, "value");
    *ret_texts = json_is_object(texts) ? json_incref(texts) : JSON("{}");
done:
    json_decref(row);
    return st;
}

enum problem_code enrichments_write_directions(struct db *db, const json_t *texts, struct problem *problem) {
    char *text = json_text_of(texts);
    const enum problem_code st = db_run(db,
                                        "INSERT INTO state (name, value) VALUES ('" DIRECTIONS_STATE
                                        "', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1",
                                        ARGS("s]", text), problem);
    free(text);
    return st;
}
