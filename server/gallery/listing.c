/* Routes: lists, details, tags, albums, archives; what only reads. */
#include "gallery/gallery_internal.h"

#include "base/id.h"
#include "base/page.h"
#include "store/images.h"

#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define MAX_PAGE 200
#define MAX_ARCHIVE 1000

/* ---- Lists ---- */

struct list_fields {
    struct image_filter filter;
    const char *since, *until, *sort, *cursor;
};

#define FILTER(member) offsetof(struct list_fields, filter.member)

static const struct json_row list_rows[] = {
    { "q", JSON_ROW_TEXT, FILTER(q), 0, 500, NULL, 0 },
    { "model", JSON_ROW_TEXT, FILTER(model), 1, 256, NULL, 0 },
    { "tag", JSON_ROW_TEXT, FILTER(tag), 1, 100, NULL, 0 },
    { "album", JSON_ROW_ID, FILTER(album), 0, 0, NULL, 0 },
    { "job", JSON_ROW_ID, FILTER(job), 0, 0, NULL, 0 },
    { "owner", JSON_ROW_ID, FILTER(of), 0, 0, NULL, 0 },
    { "kind", JSON_ROW_CHOICE, FILTER(kind), 0, 0, "generated|upload", 0 },
    { "width", JSON_ROW_INT, FILTER(width), 1, CYI_MAX_IMAGE_SIDE, NULL, 0 },
    { "height", JSON_ROW_INT, FILTER(height), 1, CYI_MAX_IMAGE_SIDE, NULL, 0 },
    { "seed", JSON_ROW_INT, FILTER(seed), 0, UINT32_MAX, NULL, 0 },
    { "favourite", JSON_ROW_BOOL, FILTER(is_favourite), 0, 0, NULL, 0 },
    { "deleted", JSON_ROW_BOOL, FILTER(is_deleted), 0, 0, NULL, 0 },
    { "since", JSON_ROW_TEXT, offsetof(struct list_fields, since), 1, 40, NULL, 0 },
    { "until", JSON_ROW_TEXT, offsetof(struct list_fields, until), 1, 40, NULL, 0 },
    { "sort", JSON_ROW_CHOICE, offsetof(struct list_fields, sort), 0, 0, "newest|oldest", 0 },
    { "cursor", JSON_ROW_TEXT, offsetof(struct list_fields, cursor), 1, 20, NULL, 0 },
    { "limit", JSON_ROW_INT, FILTER(limit), 1, MAX_PAGE, NULL, 0 },
};

static enum problem_code read_filter(const struct request *request, struct list_fields *fields,
                                     struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    *fields = (struct list_fields){
        .filter = { .width = -1, .height = -1, .seed = -1, .limit = 60, .owner = gallery_viewer(request) }
    };
    TRY(request_read_query(request, list_rows, COUNT(list_rows), fields, problem));
    TRY(page_read_time("since", fields->since, &fields->filter.since_us, problem));
    TRY(page_read_time("until", fields->until, &fields->filter.until_us, problem));
    fields->filter.is_oldest_first = fields->sort != NULL && strcmp(fields->sort, "oldest") == 0;
    TRY(page_read_cursor(fields->cursor, &fields->filter.after, problem));
done:
    return st;
}

void picture_add_links(json_t *image) {
    const char *id = json_get_text(image, "id");
    const struct {
        const char *name, *format;
    } links[] = { { "url", "/images/%s.png" },
                  { "thumbnail", "/thumbnails/%s/256.webp" },
                  { "thumbnail_large", "/thumbnails/%s/512.webp" } };
    for (size_t i = 0; i < COUNT(links); i++) {
        char link[80];
        const char *format = links[i].format, *hole = strchr(format, '%');
        (void)snprintf(link, sizeof link, "%.*s%s%s", (int)(hole - format), format, id, hole + 2);
        json_put(image, links[i].name, json_string(link));
    }
}

static enum problem_code list_images(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    struct list_fields fields;
    json_t *rows = NULL, *row;
    size_t i;
    enum problem_code st = read_filter(request, &fields, problem);
    if (st != PROBLEM_NONE) {
        return st;
    }
    const int64_t limit = fields.filter.limit++; /* one more tells whether there is another page */
    struct db *db = store_read(studio->store);
    st = images_list(db, &fields.filter, &rows, problem);
    store_read_done(studio->store, db);
    if (st != PROBLEM_NONE) {
        return st;
    }
    json_t *next = page_cut(rows, limit, "number");
    json_array_foreach(rows, i, row) {
        (void)json_object_del(row, "number");
        picture_add_links(row);
    }
    response_json(response, 200, JSON("{s:o, s:o}", "images", rows, "next", next));
    return PROBLEM_NONE;
}

static enum problem_code show_facets(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    json_t *facets = NULL;
    struct db *db = store_read(studio->store);
    const enum problem_code st = images_facets(db, gallery_viewer(request), &facets, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        response_json(response, 200, facets);
    }
    return st;
}

static enum problem_code show_image(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    const char *id = request_parameter(request, "id");
    json_t *image = NULL;
    struct db *db = store_read(studio->store);
    enum problem_code st = id_is_valid(id) ? images_get(db, gallery_viewer(request), id, &image, problem)
                                           : problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such picture");
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        st = audit_write(studio->store, request_actor(request), "image.viewed", id, NULL, problem);
    }
    if (st == PROBLEM_NONE) {
        picture_add_links(image);
        response_json(response, 200, image);
    } else {
        json_decref(image);
    }
    return st;
}

/* ---- Tags, albums ---- */

static enum problem_code list_tags(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    json_t *tags = NULL;
    struct db *db = store_read(studio->store);
    const enum problem_code st = tags_list(db, gallery_viewer(request), &tags, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        response_json(response, 200, JSON("{s:o}", "tags", tags));
    }
    return st;
}

static enum problem_code list_albums(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    json_t *albums = NULL;
    struct db *db = store_read(studio->store);
    const enum problem_code st = albums_list(db, gallery_viewer(request), &albums, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        response_json(response, 200, JSON("{s:o}", "albums", albums));
    }
    return st;
}

/* ---- Archives ---- */

static const struct json_row archive_rows[] = { { "ids", JSON_ROW_ARRAY, 0, 1, MAX_ARCHIVE, NULL, JSON_NEEDED } };

static enum problem_code send_archive(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    json_t *ids = NULL, *id, *rows = JSON("[]"), *row = NULL;
    struct db *db = NULL;
    size_t i;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read(request_json(request), archive_rows, COUNT(archive_rows), &ids, problem));
    db = store_read(studio->store);
    json_array_foreach(ids, i, id) {
        const char *text = json_string_value(id);
        row = NULL;
        if (text != NULL && id_is_valid(text)) {
            TRY(images_find(db, gallery_viewer(request), text, &row, problem));
        }
        if (row == NULL) {
            st = problem_set(problem, PROBLEM_NOT_FOUND, "ids", "there is no picture \"%.40s\"",
                             text != NULL ? text : "?");
            goto done;
        }
        json_add(rows, row);
    }
    store_read_done(studio->store, db);
    db = NULL;
    TRY(audit_write(studio->store, request_actor(request), "image.downloaded", NULL,
                    JSON("{s:s, s:O}", "format", "zip", "ids", ids), problem));
    archive_stream(studio->gallery, response, rows);
done:
    store_read_done(studio->store, db);
    json_decref(rows);
    return st;
}

static const struct route rows[] = {
    { "GET", "/api/v1/images", ACCESS_READ, BODY_NONE, 0, list_images },
    { "GET", "/api/v1/images/facets", ACCESS_READ, BODY_NONE, 0, show_facets },
    { "POST", "/api/v1/images/archive", ACCESS_READ, BODY_JSON, ROUTE_SLOW, send_archive },
    { "GET", "/api/v1/images/{id}", ACCESS_READ, BODY_NONE, 0, show_image },
    { "GET", "/api/v1/tags", ACCESS_READ, BODY_NONE, 0, list_tags },
    { "GET", "/api/v1/albums", ACCESS_READ, BODY_NONE, 0, list_albums },
};

const struct route_table listing_routes = { rows, COUNT(rows) };
