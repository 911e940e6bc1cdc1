/* Rows of pictures: see store/images.h. */
#include "store/images.h"

#include "base/clock.h"
#include "store/query.h"

#include <stdlib.h>
#include <string.h>

#define NOW ((json_int_t)clock_now_us())
#define MAX_SEARCH_WORDS 16

static enum problem_code not_found(struct problem *problem) {
    return problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such picture");
}

/* ---- The words that are searched ---- */

#define WORD_COLUMNS "prompt, prompt_enriched, prompt_sent, negative_prompt, name, seed, id"

/* After a row was added or renamed. */
static enum problem_code index_add(struct db *db, const char *id, struct problem *problem) {
    return db_run(
        db, "INSERT INTO prompts (rowid, " WORD_COLUMNS ") SELECT number, " WORD_COLUMNS " FROM images WHERE id = ?1",
        ARGS("s]", id), problem);
}

/* Before a row is removed or renamed: the index is told the words that it forgets. */
static enum problem_code index_remove(struct db *db, const char *id, struct problem *problem) {
    return db_run(db,
                  "INSERT INTO prompts (prompts, rowid, " WORD_COLUMNS ") SELECT 'delete', number, " WORD_COLUMNS
                  " FROM images WHERE id = ?1",
                  ARGS("s]", id), problem);
}

/* ---- One picture more ---- */

enum problem_code images_add(struct db *db, const json_t *row, const json_t *parents, struct problem *problem) {
    static const char *const columns[] = { "id",
                                           "kind",
                                           "owner",
                                           "job_id",
                                           "job_index",
                                           "created_us",
                                           "zone_minutes",
                                           "width",
                                           "height",
                                           "size_bytes",
                                           "sha256",
                                           "blurhash",
                                           "model",
                                           "model_hash",
                                           "prompt",
                                           "prompt_enriched",
                                           "prompt_sent",
                                           "negative_prompt",
                                           "enrichment_id",
                                           "seed",
                                           "steps",
                                           "guidance",
                                           "strength",
                                           "duration_ms",
                                           "engine",
                                           "device",
                                           "settings",
                                           "name" };
    json_t *values = JSON("[]");
    size_t i;
    json_t *parent;
    enum problem_code st = PROBLEM_NONE;
    for (i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        json_t *value = json_object_get(row, columns[i]);
        json_add(values, value != NULL ? json_incref(value) : json_null());
    }
    TRY(db_run(db,
               "INSERT INTO images (id, kind, owner, job_id, job_index, created_us, zone_minutes, width, height, "
               "size_bytes, sha256, "
               "blurhash, model, model_hash, prompt, prompt_enriched, prompt_sent, negative_prompt, enrichment_id, "
               "seed, steps, "
               "guidance, strength, duration_ms, engine, device, settings, name) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, "
               "?8, ?9, ?10, "
               "?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28)",
               values, problem));
    TRY(index_add(db, json_get_text(row, "id"), problem));
    json_array_foreach(parents, i, parent) {
        TRY(db_run(db, "INSERT INTO image_parents (child, parent, role, position) VALUES (?1, ?2, ?3, ?4)",
                   ARGS("O,O,O,i]", json_object_get(row, "id"), json_object_get(parent, "id"),
                        json_object_get(parent, "role"), (int)i),
                   problem));
    }
done:
    return st;
}

/* ---- Lists ---- */

/* What people type becomes a query that cannot be misread: every word is quoted, the last one may go on, "words in quotes" stay
 * together, and -word rules out. NULL: there is nothing to look for. A new string. */
static char *make_match(const char *q) {
    char *wanted = text_copy(""), *unwanted = text_copy("");
    const char *rest = q;
    for (int n = 0; n < MAX_SEARCH_WORDS; n++) {
        rest += strspn(rest, " \t\r\n");
        const bool is_out = rest[0] == '-' && rest[1] != '\0' && rest[1] != ' ';
        rest += is_out ? 1 : 0;
        const bool is_phrase = rest[0] == '"';
        rest += is_phrase ? 1 : 0;
        const size_t length = is_phrase ? strcspn(rest, "\"") : strcspn(rest, " \t\r\n\"");
        if (length == 0 && rest[0] == '\0') {
            break;
        }
        const char *after = rest + length;
        const bool is_last = !is_phrase && after[0] == '\0';
        if (length > 0) {
            char **list = is_out ? &unwanted : &wanted;
            char *longer = text_format("%s%s\"%.*s\"%s", *list,
                                       (*list)[0] == '\0' ? ""
                                       : is_out           ? " OR "
                                                          : " AND ",
                                       (int)length, rest, is_last ? "*" : "");
            free(*list);
            *list = longer;
        }
        rest = after + (after[0] == '"' ? 1 : 0);
    }
    char *match = wanted[0] == '\0'     ? NULL
                  : unwanted[0] == '\0' ? text_copy(wanted)
                                        : text_format("(%s) NOT (%s)", wanted, unwanted);
    free(wanted);
    free(unwanted);
    return match;
}

/* Where a list begins to read, which is what it is in the order of: words, a tag's or an album's pictures (ids are in the order of
 * time as well), or all. */
struct source {
    const char *tables, *key;
    bool is_by_id;
};

static struct source choose_source(const struct image_filter *filter, bool has_words) {
    return has_words ? (struct source){ "prompts p CROSS JOIN images i ON i.number = p.rowid", "p.rowid", false }
           : filter->tag != NULL
               ? (struct source){ "image_tags t CROSS JOIN images i ON i.id = t.image_id", "t.image_id", true }
           : filter->album != NULL
               ? (struct source){ "album_images a CROSS JOIN images i ON i.id = a.image_id", "a.image_id", true }
               : (struct source){ "images i", "i.number", false };
}

/* Behind the picture with this number. It may be gone by now: then from its neighbour on, which was shown. */
static void add_after(struct query *query, const struct source *source, const struct image_filter *filter) {
    const bool rises = filter->is_oldest_first;
    char *condition =
        !source->is_by_id ? text_format(" AND %s %s ?", source->key, rises ? ">" : "<")
        : rises
            ? text_format(" AND %s > coalesce((SELECT id FROM images WHERE number <= ? ORDER BY number DESC "
                          "LIMIT 1), '')",
                          source->key)
            : text_format(" AND %s < coalesce((SELECT id FROM images WHERE number >= ? ORDER BY number LIMIT 1), 'g')",
                          source->key);
    query_add(query, condition, json_integer(filter->after));
    free(condition);
}

static struct query make_query(const struct image_filter *filter) {
    struct query query = { NULL, JSON("[]") };
    char *match = filter->q != NULL ? make_match(filter->q) : NULL;
    const struct source source = choose_source(filter, match != NULL);
    const bool joins_tag = filter->tag != NULL && match != NULL;
    const bool joins_album = filter->album != NULL && (match != NULL || filter->tag != NULL);
    query.sql = text_format(
        "SELECT i.number, i.id, i.kind, i.created_us AS \"created:t\", i.width, i.height, i.blurhash, i.model, "
        "substr(i.prompt, 1, 300) AS prompt, i.seed, i.is_favourite AS \"favourite:b\", i.size_bytes, "
        "i.job_id AS job, i.name, u.name AS owner, i.deleted_us AS \"deleted:t\" FROM %s %s%s"
        "LEFT JOIN users u ON u.id = i.owner WHERE ",
        source.tables, joins_tag ? "JOIN image_tags t ON t.image_id = i.id " : "",
        joins_album ? "JOIN album_images a ON a.image_id = i.id " : "");
    /* A job has few pictures: their index is better than the order, which the plus sign takes away. */
    query_add(&query,
              filter->is_deleted    ? "i.deleted_us IS NOT NULL"
              : filter->job != NULL ? "+i.deleted_us IS NULL"
                                    : "i.deleted_us IS NULL",
              NULL);
    if (match != NULL) {
        query_add(&query, " AND prompts MATCH ?", json_string(match));
    }
    query_add_text(&query, " AND i.owner = ?", filter->owner);
    query_add_text(&query, " AND i.owner = ?", filter->of);
    query_add_text(&query, " AND i.model = ?", filter->model);
    query_add_text(&query, " AND i.kind = ?", filter->kind);
    query_add_text(&query, " AND i.job_id = ?", filter->job);
    query_add_text(&query, " AND t.tag_id = (SELECT id FROM tags WHERE name = ?)", filter->tag);
    query_add_text(&query, " AND a.album_id = ?", filter->album);
    if (filter->width >= 0) {
        query_add(&query, " AND i.width = ?", json_integer(filter->width));
    }
    if (filter->height >= 0) {
        query_add(&query, " AND i.height = ?", json_integer(filter->height));
    }
    if (filter->seed >= 0) {
        query_add(&query, " AND i.seed = ?", json_integer(filter->seed));
    }
    if (filter->is_favourite) {
        query_add(&query, " AND i.is_favourite = 1", NULL);
    }
    if (filter->since_us > 0) {
        query_add(&query, " AND i.created_us >= ?", json_integer(filter->since_us));
    }
    if (filter->until_us > 0) {
        query_add(&query, " AND i.created_us < ?", json_integer(filter->until_us));
    }
    if (filter->after > 0) {
        add_after(&query, &source, filter);
    }
    char *order = text_format(" ORDER BY %s %s LIMIT ?", source.key, filter->is_oldest_first ? "ASC" : "DESC");
    query_add(&query, order, json_integer(filter->limit));
    free(order);
    free(match);
    return query;
}

enum problem_code images_list(struct db *db, const struct image_filter *filter, json_t **ret_rows,
                              struct problem *problem) {
    struct query query = make_query(filter);
    const enum problem_code st = db_all(db, query.sql, query.arguments, ret_rows, problem);
    free(query.sql);
    return st;
}

enum problem_code images_explain(struct db *db, const struct image_filter *filter, char **ret_plan,
                                 struct problem *problem) {
    struct query query = make_query(filter);
    json_t *rows = NULL, *row;
    size_t i;
    char *sql = text_format("EXPLAIN QUERY PLAN %s", query.sql), *plan = text_copy("");
    const enum problem_code st = db_all(db, sql, query.arguments, &rows, problem);
    json_array_foreach(rows, i, row) {
        char *longer = text_format("%s%s\n", plan, json_get_text(row, "detail"));
        free(plan);
        plan = longer;
    }
    *ret_plan = plan;
    json_decref(rows);
    free(sql);
    free(query.sql);
    return st;
}

enum problem_code images_facets(struct db *db, const char *owner, json_t **ret_facets, struct problem *problem) {
    static const struct {
        const char *name, *sql;
    } lists[] = {
        { "models",
          "SELECT model AS name, count(*) AS n FROM images WHERE deleted_us IS NULL AND model IS NOT NULL AND "
          "(?1 IS NULL OR owner = ?1) GROUP BY model ORDER BY n DESC LIMIT 100" },
        { "sizes",
          "SELECT width, height, count(*) AS n FROM images WHERE deleted_us IS NULL AND (?1 IS NULL OR owner = ?1) "
          "GROUP BY width, height ORDER BY n DESC LIMIT 100" },
        { "tags",
          "SELECT g.name, count(*) AS n FROM image_tags t JOIN tags g ON g.id = t.tag_id JOIN images i ON i.id = "
          "t.image_id "
          "WHERE i.deleted_us IS NULL AND (?1 IS NULL OR i.owner = ?1) GROUP BY g.id ORDER BY n DESC LIMIT 200" },
        { "months", "SELECT strftime('%Y-%m', created_us / 1000000, 'unixepoch') AS name, count(*) AS n FROM images "
                    "WHERE deleted_us IS NULL AND (?1 IS NULL OR owner = ?1) GROUP BY 1 ORDER BY 1 DESC LIMIT 240" },
    };
    json_t *facets = JSON("{}"), *rows = NULL;
    enum problem_code st = PROBLEM_NONE;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        TRY(db_all(db, lists[i].sql, ARGS("s?]", owner), &rows, problem));
        json_put(facets, lists[i].name, rows);
    }
    TRY(albums_list(db, owner, &rows, problem));
    json_put(facets, "albums", rows);
    *ret_facets = facets;
    facets = NULL;
done:
    json_decref(facets);
    return st;
}

/* ---- One picture ---- */

static enum problem_code attach(struct db *db, json_t *image, const char *name, const char *sql,
                                struct problem *problem) {
    json_t *rows = NULL;
    const enum problem_code st = db_all(db, sql, ARGS("O]", json_object_get(image, "id")), &rows, problem);
    if (st == PROBLEM_NONE) {
        json_put(image, name, rows);
    }
    return st;
}

enum problem_code images_get(struct db *db, const char *owner, const char *id, json_t **ret_image,
                             struct problem *problem) {
    json_t *image = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(db_one(
        db,
        "SELECT i.id, i.kind, u.name AS owner, i.job_id AS job, i.job_index, i.created_us AS \"created:t\", "
        "i.zone_minutes, "
        "i.deleted_us AS \"deleted:t\", i.is_favourite AS \"favourite:b\", i.width, i.height, i.size_bytes, i.sha256, "
        "i.blurhash, i.model, i.model_hash, i.prompt, i.prompt_enriched, i.prompt_sent, i.negative_prompt, "
        "i.enrichment_id AS enrichment, "
        "i.seed, i.steps, i.guidance, i.strength, i.duration_ms, i.engine, i.device, i.settings AS \"settings:j\", "
        "i.name "
        "FROM images i LEFT JOIN users u ON u.id = i.owner WHERE i.id = ?1 AND (?2 IS NULL OR i.owner = ?2)",
        ARGS("s,s?]", id, owner), &image, problem));
    if (image == NULL) {
        st = not_found(problem);
        goto done;
    }
    TRY(attach(db, image, "parents",
               "SELECT parent AS id, role FROM image_parents WHERE child = ?1 ORDER BY position LIMIT 100", problem));
    TRY(attach(
        db, image, "children",
        "SELECT p.child AS id, p.role FROM image_parents p JOIN images i ON i.id = p.child WHERE p.parent = ?1 AND "
        "i.deleted_us IS NULL ORDER BY i.number DESC LIMIT 1000",
        problem));
    TRY(attach(db, image, "tags",
               "SELECT g.name FROM image_tags t JOIN tags g ON g.id = t.tag_id WHERE t.image_id = ?1 ORDER BY g.name",
               problem));
    TRY(attach(db, image, "albums",
               "SELECT a.id, a.name FROM album_images m JOIN albums a ON a.id = m.album_id WHERE m.image_id = ?1 ORDER "
               "BY a.name",
               problem));
    *ret_image = image;
    image = NULL;
done:
    json_decref(image);
    return st;
}

enum problem_code images_find(struct db *db, const char *owner, const char *id, json_t **ret_row,
                              struct problem *problem) {
    return db_one(db,
                  "SELECT id, owner, kind, width, height, size_bytes, sha256, deleted_us, name, blurhash FROM images "
                  "WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)",
                  ARGS("s,s?]", id, owner), ret_row, problem);
}

enum problem_code images_find_upload(struct db *db, const char *owner, const char *sha256, char **ret_id,
                                     struct problem *problem) {
    json_t *row = NULL;
    const enum problem_code st = db_one(
        db, "SELECT id FROM images WHERE sha256 = ?1 AND owner = ?2 AND kind = 'upload' AND deleted_us IS NULL LIMIT 1",
        ARGS("s,s?]", sha256, owner), &row, problem);
    if (st == PROBLEM_NONE) {
        *ret_id = text_copy(json_get_text(row, "id"));
    }
    json_decref(row);
    return st;
}

static enum problem_code check_is_there(struct db *db, const char *owner, const char *id, struct problem *problem) {
    int64_t n = 0;
    const enum problem_code st = db_int(db, "SELECT count(*) FROM images WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)",
                                        ARGS("s,s?]", id, owner), 0, &n, problem);
    return st == PROBLEM_NONE && n == 0 ? not_found(problem) : st;
}

/* The picture is there and may be changed; then the statement, and whether it changed anything. arguments are taken over. */
static enum problem_code change(struct db *db, const char *owner, const char *id, const char *sql, json_t *arguments,
                                bool *ret_changed, struct problem *problem) {
    enum problem_code st = check_is_there(db, owner, id, problem);
    if (st != PROBLEM_NONE) {
        json_decref(arguments);
        return st;
    }
    st = db_run(db, sql, arguments, problem);
    *ret_changed = st == PROBLEM_NONE && db_changes(db) > 0;
    return st;
}

enum problem_code images_set_favourite(struct db *db, const char *owner, const char *id, bool is_favourite,
                                       bool *ret_changed, struct problem *problem) {
    return change(db, owner, id, "UPDATE images SET is_favourite = ?1 WHERE id = ?2 AND is_favourite <> ?1",
                  ARGS("b,s]", is_favourite, id), ret_changed, problem);
}

enum problem_code images_set_name(struct db *db, const char *owner, const char *id, const char *name,
                                  struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    TRY(check_is_there(db, owner, id, problem));
    TRY(index_remove(db, id, problem));
    TRY(db_run(db, "UPDATE images SET name = ?1 WHERE id = ?2", ARGS("s,s]", name, id), problem));
    TRY(index_add(db, id, problem));
done:
    return st;
}

enum problem_code images_trash(struct db *db, const char *owner, const char *id, bool *ret_changed,
                               struct problem *problem) {
    return change(db, owner, id, "UPDATE images SET deleted_us = ?1 WHERE id = ?2 AND deleted_us IS NULL",
                  ARGS("I,s]", NOW, id), ret_changed, problem);
}

enum problem_code images_restore(struct db *db, const char *owner, const char *id, bool *ret_changed,
                                 struct problem *problem) {
    return change(db, owner, id, "UPDATE images SET deleted_us = NULL WHERE id = ?1 AND deleted_us IS NOT NULL",
                  ARGS("s]", id), ret_changed, problem);
}

enum problem_code images_purge(struct db *db, const char *owner, const char *id, bool *ret_changed,
                               struct problem *problem) {
    json_t *row = NULL;
    enum problem_code st = PROBLEM_NONE;
    *ret_changed = false;
    TRY(images_find(db, owner, id, &row, problem));
    if (row == NULL) {
        st = not_found(problem);
        goto done;
    }
    if (!json_is_null(json_object_get(row, "deleted_us"))) {
        TRY(images_forget(db, id, problem));
        *ret_changed = true;
    }
done:
    json_decref(row);
    return st;
}

enum problem_code images_tag(struct db *db, const char *owner, const char *id, const char *tag, bool *ret_changed,
                             struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    TRY(db_run(db, "INSERT INTO tags (name) VALUES (?1) ON CONFLICT DO NOTHING", ARGS("s]", tag), problem));
    TRY(change(
        db, owner, id,
        "INSERT INTO image_tags (tag_id, image_id) SELECT id, ?2 FROM tags WHERE name = ?1 ON CONFLICT DO NOTHING",
        ARGS("s,s]", tag, id), ret_changed, problem));
done:
    return st;
}

enum problem_code images_untag(struct db *db, const char *owner, const char *id, const char *tag, bool *ret_changed,
                               struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    TRY(change(db, owner, id,
               "DELETE FROM image_tags WHERE image_id = ?2 AND tag_id = (SELECT id FROM tags WHERE name = ?1)",
               ARGS("s,s]", tag, id), ret_changed, problem));
    TRY(db_run(db, "DELETE FROM tags WHERE name = ?1 AND NOT EXISTS (SELECT 1 FROM image_tags WHERE tag_id = tags.id)",
               ARGS("s]", tag), problem));
done:
    return st;
}

enum problem_code images_in_trash(struct db *db, const char *owner, int64_t before_us, int64_t limit, json_t **ret_ids,
                                  struct problem *problem) {
    json_t *rows = NULL, *row, *ids = JSON("[]");
    size_t i;
    const enum problem_code st = db_all(
        db, "SELECT id FROM images WHERE deleted_us < ?1 AND (?2 IS NULL OR owner = ?2) ORDER BY deleted_us LIMIT ?3",
        ARGS("I,s?,I]", (json_int_t)before_us, owner, (json_int_t)limit), &rows, problem);
    json_array_foreach(rows, i, row) {
        json_add(ids, json_incref(json_object_get(row, "id")));
    }
    json_decref(rows);
    *ret_ids = ids;
    return st;
}

/* ---- Tags and albums ---- */

enum problem_code tags_list(struct db *db, const char *owner, json_t **ret_tags, struct problem *problem) {
    return db_all(
        db,
        "SELECT g.name, count(*) AS n FROM image_tags t JOIN tags g ON g.id = t.tag_id JOIN images i ON i.id = "
        "t.image_id "
        "WHERE i.deleted_us IS NULL AND (?1 IS NULL OR i.owner = ?1) GROUP BY g.id ORDER BY g.name LIMIT 10000",
        ARGS("s?]", owner), ret_tags, problem);
}

#define ALBUM_COLUMNS                                                                                                  \
    "SELECT a.id, a.name, u.name AS owner, a.created_us AS \"created:t\", (SELECT count(*) FROM album_images m WHERE " \
    "m.album_id = a.id) AS n, (SELECT image_id FROM album_images m WHERE m.album_id = a.id ORDER BY added_us DESC "    \
    "LIMIT 1) "                                                                                                        \
    "AS cover FROM albums a LEFT JOIN users u ON u.id = a.owner WHERE "

enum problem_code albums_list(struct db *db, const char *owner, json_t **ret_albums, struct problem *problem) {
    return db_all(db, ALBUM_COLUMNS "(?1 IS NULL OR a.owner = ?1) ORDER BY a.name LIMIT 10000", ARGS("s?]", owner),
                  ret_albums, problem);
}

static enum problem_code no_album(struct problem *problem) {
    return problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such album");
}

enum problem_code albums_get(struct db *db, const char *owner, const char *id, json_t **ret_album,
                             struct problem *problem) {
    const enum problem_code st = db_one(db, ALBUM_COLUMNS "a.id = ?2 AND (?1 IS NULL OR a.owner = ?1)",
                                        ARGS("s?,s]", owner, id), ret_album, problem);
    return st == PROBLEM_NONE && *ret_album == NULL ? no_album(problem) : st;
}

enum problem_code albums_add(struct db *db, const char *owner, const char *id, const char *name,
                             struct problem *problem) {
    return db_run(db, "INSERT INTO albums (id, owner, name, created_us) VALUES (?1, ?2, ?3, ?4)",
                  ARGS("s,s?,s,I]", id, owner, name, NOW), problem);
}

enum problem_code albums_rename(struct db *db, const char *owner, const char *id, const char *name,
                                struct problem *problem) {
    const enum problem_code st = db_run(db, "UPDATE albums SET name = ?1 WHERE id = ?2 AND (?3 IS NULL OR owner = ?3)",
                                        ARGS("s,s,s?]", name, id, owner), problem);
    return st == PROBLEM_NONE && db_changes(db) == 0 ? no_album(problem) : st;
}

enum problem_code albums_remove(struct db *db, const char *owner, const char *id, struct problem *problem) {
    const enum problem_code st = db_run(db, "DELETE FROM albums WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)",
                                        ARGS("s,s?]", id, owner), problem);
    return st == PROBLEM_NONE && db_changes(db) == 0 ? no_album(problem) : st;
}

enum problem_code albums_put(struct db *db, const char *owner, const char *album, const char *id, bool is_in,
                             bool *ret_changed, struct problem *problem) {
    json_t *row = NULL;
    const enum problem_code st = albums_get(db, owner, album, &row, problem);
    json_decref(row);
    return st != PROBLEM_NONE ? st
           : is_in            ? change(db, owner, id,
                                       "INSERT INTO album_images (album_id, image_id, added_us) VALUES (?1, ?2, ?3) ON CONFLICT "
                                                  "DO NOTHING",
                                       ARGS("s,s,I]", album, id, NOW), ret_changed, problem)
                              : change(db, owner, id, "DELETE FROM album_images WHERE album_id = ?1 AND image_id = ?2",
                                       ARGS("s,s]", album, id), ret_changed, problem);
}

/* ---- Files against rows ---- */

enum problem_code images_each(struct db *db, bool (*on_row)(void *user, json_t *row), void *user,
                              struct problem *problem) {
    return db_each(db, "SELECT id, size_bytes, sha256 FROM images ORDER BY number", NO_ARGS, on_row, user, problem);
}

enum problem_code images_forget(struct db *db, const char *id, struct problem *problem) {
    const enum problem_code st = index_remove(db, id, problem);
    return st != PROBLEM_NONE ? st : db_run(db, "DELETE FROM images WHERE id = ?1", ARGS("s]", id), problem);
}

enum problem_code images_check_search(struct db *writer, bool *ret_fits, struct problem *problem) {
    struct problem found = { 0 };
    const enum problem_code st =
        db_run(writer, "INSERT INTO prompts (prompts, rank) VALUES ('integrity-check', 1)", NO_ARGS, &found);
    *ret_fits = st == PROBLEM_NONE;
    return st == PROBLEM_NONE || st == PROBLEM_INTERNAL ? PROBLEM_NONE
                                                        : problem_set(problem, st, NULL, "%s", found.detail);
}

enum problem_code images_rebuild_search(struct db *db, struct problem *problem) {
    return db_run(db, "INSERT INTO prompts (prompts) VALUES ('rebuild')", NO_ARGS, problem);
}

enum problem_code images_set_file(struct db *db, const char *id, int64_t size_bytes, const char *sha256,
                                  struct problem *problem) {
    return db_run(db, "UPDATE images SET size_bytes = ?2, sha256 = ?3 WHERE id = ?1",
                  ARGS("s,I,s]", id, (json_int_t)size_bytes, sha256), problem);
}
