/* Routes: what changes pictures, tags and albums, and uploads. One transaction a request: all of it or nothing. */
#include "gallery/gallery_internal.h"

#include "base/id.h"
#include "store/images.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define MAX_ACTION 1000
#define MAX_TAGS 64
#define MAX_NAME_BYTES 200
#define MAX_TAG_BYTES 100

/* ---- What can be done with a picture ---- */

struct action_fields {
    const char *action, *tag, *album;
    json_t *ids;
};

struct act {
    struct db *db;
    const char *owner, *tag, *album;
    const struct actor *actor;
};

typedef enum problem_code (*act_fn)(const struct act *act, const char *id, bool *ret_changed, struct problem *problem);

#define ACT(name, call)                                                                                                \
    static enum problem_code name(const struct act *act, const char *id, bool *ret_changed, struct problem *problem) { \
        return call;                                                                                                   \
    }
ACT(act_delete, images_trash(act->db, act->owner, id, ret_changed, problem))
ACT(act_restore, images_restore(act->db, act->owner, id, ret_changed, problem))
ACT(act_favourite, images_set_favourite(act->db, act->owner, id, true, ret_changed, problem))
ACT(act_unfavourite, images_set_favourite(act->db, act->owner, id, false, ret_changed, problem))
ACT(act_tag, images_tag(act->db, act->owner, id, act->tag, ret_changed, problem))
ACT(act_untag, images_untag(act->db, act->owner, id, act->tag, ret_changed, problem))
ACT(act_add, albums_put(act->db, act->owner, act->album, id, true, ret_changed, problem))
ACT(act_remove, albums_put(act->db, act->owner, act->album, id, false, ret_changed, problem))

enum action_kind { DELETE, RESTORE, FAVOURITE, UNFAVOURITE, TAG, UNTAG, ADD_TO_ALBUM, REMOVE_FROM_ALBUM, N_ACTIONS };

static const struct action {
    const char *name, *audit;
    act_fn run;
    bool needs_tag, needs_album;
} actions[N_ACTIONS] = {
    [DELETE] = { "delete", "image.deleted", act_delete, false, false },
    [RESTORE] = { "restore", "image.restored", act_restore, false, false },
    [FAVOURITE] = { "favourite", "image.favoured", act_favourite, false, false },
    [UNFAVOURITE] = { "unfavourite", "image.unfavoured", act_unfavourite, false, false },
    [TAG] = { "tag", "image.tagged", act_tag, true, false },
    [UNTAG] = { "untag", "image.untagged", act_untag, true, false },
    [ADD_TO_ALBUM] = { "add_to_album", "album.filled", act_add, false, true },
    [REMOVE_FROM_ALBUM] = { "remove_from_album", "album.emptied", act_remove, false, true },
};
#define ACTION_NAMES "delete|restore|favourite|unfavourite|tag|untag|add_to_album|remove_from_album|purge"

static const struct action *find_action(const char *name) {
    for (size_t i = 0; i < N_ACTIONS; i++) {
        if (strcmp(actions[i].name, name) == 0) {
            return &actions[i];
        }
    }
    return NULL;
}

/* One picture, and its audit row when something changed. */
static enum problem_code run_action(const struct action *action, const struct act *act, const char *id,
                                    json_t *changed_ids, struct problem *problem) {
    bool changed = false;
    enum problem_code st = PROBLEM_NONE;
    TRY(action->run(act, id, &changed, problem));
    if (changed) {
        json_add(changed_ids, json_string(id));
        TRY(audit_append(act->db, act->actor, action->audit, id,
                         action->needs_tag     ? JSON("{s:s}", "tag", act->tag)
                         : action->needs_album ? JSON("{s:s}", "album", act->album)
                                               : NULL,
                         problem));
    }
done:
    return st;
}

static void announce(struct studio *studio, const struct request *request, const char *event, const json_t *ids) {
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id) {
        (void)events_publish(studio->events, event, request_caller(request)->user_id, JSON("{s:O}", "id", id));
    }
}

static enum problem_code check_tag(const char *field, const char *tag, struct problem *problem) {
    const size_t n = strlen(tag);
    bool is_fine = n > 0 && n <= MAX_TAG_BYTES && tag[0] != ' ' && tag[n - 1] != ' ';
    for (size_t i = 0; i < n; i++) {
        is_fine = is_fine && (unsigned char)tag[i] >= 0x20 && tag[i] != ',' && tag[i] != 0x7F;
    }
    return is_fine ? PROBLEM_NONE
                   : problem_set(problem, PROBLEM_INVALID, field,
                                 "a tag has 1 to %d bytes, no commas, no control characters and no blanks at its ends",
                                 MAX_TAG_BYTES);
}

/* Each id of a list in turn; the first that is none is named. */
static enum problem_code check_ids(const json_t *ids, struct problem *problem) {
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id) {
        if (!json_is_string(id) || !id_is_valid(json_string_value(id))) {
            return problem_set(problem, PROBLEM_INVALID, "ids", "\"ids\" must be a list of ids; number %zu is none",
                               i + 1);
        }
    }
    return PROBLEM_NONE;
}

static enum problem_code run_on_all(struct studio *studio, struct request *request, const struct action *action,
                                    struct act *act, const json_t *ids, json_t *changed, struct problem *problem) {
    size_t i;
    json_t *id;
    enum problem_code st = PROBLEM_NONE;
    act->owner = gallery_viewer(request);
    act->actor = request_actor(request);
    TRY(store_begin(studio->store, &act->db, problem));
    json_array_foreach(ids, i, id) {
        TRY(run_action(action, act, json_string_value(id), changed, problem));
    }
    TRY(store_commit(studio->store, &act->db, problem));
    announce(studio, request, action == &actions[DELETE] ? "image.removed" : "image.changed", changed);
done:
    store_rollback(studio->store, &act->db);
    return st;
}

static const struct json_row action_rows[] = {
    { "action", JSON_ROW_CHOICE, offsetof(struct action_fields, action), 0, 0, ACTION_NAMES, JSON_NEEDED },
    { "ids", JSON_ROW_ARRAY, offsetof(struct action_fields, ids), 1, MAX_ACTION, NULL, JSON_NEEDED },
    { "tag", JSON_ROW_TEXT, offsetof(struct action_fields, tag), 1, MAX_TAG_BYTES, NULL, 0 },
    { "album", JSON_ROW_ID, offsetof(struct action_fields, album), 0, 0, NULL, 0 },
};

static enum problem_code act_on_images(struct studio *studio, struct request *request, struct response *response,
                                       struct problem *problem) {
    struct action_fields fields = { 0 };
    json_t *changed = JSON("[]");
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read(request_json(request), action_rows, COUNT(action_rows), &fields, problem));
    TRY(check_ids(fields.ids, problem));
    const struct action *action = find_action(fields.action);
    if (action == NULL) { /* purge, which has files to remove as well */
        TRY(gallery_purge(studio->gallery, request_actor(request), gallery_viewer(request), fields.ids, problem));
        response_json(response, 200, JSON("{s:O}", "changed", fields.ids));
        goto done;
    }
    if (action->needs_tag != (fields.tag != NULL) || action->needs_album != (fields.album != NULL)) {
        st = problem_set(problem, PROBLEM_INVALID, fields.tag != NULL || action->needs_tag ? "tag" : "album",
                         "\"%s\" takes %s", action->name,
                         action->needs_tag     ? "a tag"
                         : action->needs_album ? "an album"
                                               : "neither tag nor album");
        goto done;
    }
    if (fields.tag != NULL) {
        TRY(check_tag("tag", fields.tag, problem));
    }
    struct act act = { .tag = fields.tag, .album = fields.album };
    TRY(run_on_all(studio, request, action, &act, fields.ids, changed, problem));
    response_json(response, 200, JSON("{s:O}", "changed", changed));
done:
    json_decref(changed);
    return st;
}

static enum problem_code act_on_one(struct studio *studio, struct request *request, struct response *response,
                                    enum action_kind kind, struct problem *problem) {
    const char *id = request_parameter(request, "id");
    json_t *ids = JSON("[s]", id), *changed = JSON("[]");
    struct act act = { 0 };
    enum problem_code st = id_is_valid(id) ? run_on_all(studio, request, &actions[kind], &act, ids, changed, problem)
                                           : problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such picture");
    if (st == PROBLEM_NONE) {
        response_empty(response);
    }
    json_decref(ids);
    json_decref(changed);
    return st;
}

static enum problem_code delete_image(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    return act_on_one(studio, request, response, DELETE, problem);
}

static enum problem_code restore_image(struct studio *studio, struct request *request, struct response *response,
                                       struct problem *problem) {
    return act_on_one(studio, request, response, RESTORE, problem);
}

/* ---- PATCH ---- */

struct patch_fields {
    bool is_favourite;
    const char *name;
    json_t *tags;
};

static const struct json_row patch_rows[] = {
    { "favourite", JSON_ROW_BOOL, offsetof(struct patch_fields, is_favourite), 0, 0, NULL, 0 },
    { "name", JSON_ROW_TEXT, offsetof(struct patch_fields, name), 0, MAX_NAME_BYTES, NULL, 0 },
    { "tags", JSON_ROW_ARRAY, offsetof(struct patch_fields, tags), 0, MAX_TAGS, NULL, 0 },
};

static bool has_text(const json_t *list, const char *text) {
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item) {
        const char *one = json_is_string(item) ? json_string_value(item) : json_get_text(item, "name");
        if (one != NULL && strcmp(one, text) == 0) {
            return true;
        }
    }
    return false;
}

/* The picture gets exactly these tags. */
static enum problem_code set_tags(struct act *act, const char *id, const json_t *tags, json_t *changed,
                                  struct problem *problem) {
    json_t *image = NULL, *tag;
    size_t i;
    enum problem_code st = PROBLEM_NONE;
    TRY(images_get(act->db, act->owner, id, &image, problem));
    json_array_foreach(tags, i, tag) {
        act->tag = json_string_value(tag);
        if (act->tag == NULL) {
            st = problem_set(problem, PROBLEM_INVALID, "tags", "\"tags\" must be a list of texts");
            goto done;
        }
        TRY(check_tag("tags", act->tag, problem));
        TRY(run_action(&actions[TAG], act, id, changed, problem));
    }
    json_array_foreach(json_object_get(image, "tags"), i, tag) {
        act->tag = json_get_text(tag, "name");
        if (!has_text(tags, act->tag)) {
            TRY(run_action(&actions[UNTAG], act, id, changed, problem));
        }
    }
done:
    json_decref(image);
    return st;
}

static enum problem_code patch_image(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    const char *id = request_parameter(request, "id");
    struct patch_fields fields = { 0 };
    struct act act = { .owner = gallery_viewer(request), .actor = request_actor(request) };
    json_t *changed = JSON("[]"), *image = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read(request_json(request), patch_rows, COUNT(patch_rows), &fields, problem));
    if (!id_is_valid(id)) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such picture");
        goto done;
    }
    TRY(store_begin(studio->store, &act.db, problem));
    if (json_object_get(request_json(request), "favourite") != NULL) {
        TRY(run_action(&actions[fields.is_favourite ? FAVOURITE : UNFAVOURITE], &act, id, changed, problem));
    }
    if (fields.name != NULL) {
        TRY(images_set_name(act.db, act.owner, id, fields.name, problem));
        TRY(audit_append(act.db, act.actor, "image.named", id, JSON("{s:s}", "name", fields.name), problem));
    }
    if (fields.tags != NULL) {
        TRY(set_tags(&act, id, fields.tags, changed, problem));
    }
    TRY(images_get(act.db, act.owner, id, &image, problem));
    TRY(store_commit(studio->store, &act.db, problem));
    (void)events_publish(studio->events, "image.changed", request_caller(request)->user_id, JSON("{s:s}", "id", id));
    picture_add_links(image);
    response_json(response, 200, image);
    image = NULL;
done:
    store_rollback(studio->store, &act.db);
    json_decref(changed);
    json_decref(image);
    return st;
}

/* ---- Trash ---- */

static enum problem_code empty_trash(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    int64_t n = 0;
    json_t *ids = NULL;
    enum problem_code st = PROBLEM_NONE;
    do { /* in transactions of their own, so that others get their turn */
        json_decref(ids);
        struct db *db = store_read(studio->store);
        st = images_in_trash(db, gallery_viewer(request), INT64_MAX, MAX_ACTION, &ids, problem);
        store_read_done(studio->store, db);
        if (st == PROBLEM_NONE) {
            st = gallery_purge(studio->gallery, request_actor(request), gallery_viewer(request), ids, problem);
        }
        n += (int64_t)json_array_size(ids);
    } while (st == PROBLEM_NONE && json_array_size(ids) == MAX_ACTION);
    json_decref(ids);
    if (st == PROBLEM_NONE) {
        response_json(response, 200, JSON("{s:I}", "purged", (json_int_t)n));
    }
    return st;
}

/* ---- Albums ---- */

static const struct json_row album_rows[] = { { "name", JSON_ROW_TEXT, 0, 1, MAX_NAME_BYTES, NULL, JSON_NEEDED } };

/* Adds (id NULL), renames, or removes (removes) an album. */
static enum problem_code change_album(struct studio *studio, struct request *request, struct response *response,
                                      const char *id, bool removes, struct problem *problem) {
    const char *name = NULL, *owner = gallery_viewer(request);
    char new_id[ID_TEXT];
    struct db *db = NULL;
    json_t *album = NULL;
    enum problem_code st = PROBLEM_NONE;
    if (!removes) {
        TRY(json_read(request_json(request), album_rows, COUNT(album_rows), &name, problem));
    }
    TRY(store_begin(studio->store, &db, problem));
    if (id == NULL) {
        id = id_make(new_id);
        TRY(albums_add(db, request_caller(request)->user_id, id, name, problem));
        TRY(audit_append(db, request_actor(request), "album.added", id, JSON("{s:s}", "name", name), problem));
    } else if (removes) {
        TRY(albums_remove(db, owner, id, problem));
        TRY(audit_append(db, request_actor(request), "album.removed", id, NULL, problem));
    } else {
        TRY(albums_rename(db, owner, id, name, problem));
        TRY(audit_append(db, request_actor(request), "album.named", id, JSON("{s:s}", "name", name), problem));
    }
    if (!removes) {
        TRY(albums_get(db, owner, id, &album, problem));
    }
    TRY(store_commit(studio->store, &db, problem));
    if (removes) {
        response_empty(response);
    } else {
        response_json(response, id == new_id ? 201 : 200, album);
        album = NULL;
    }
done:
    store_rollback(studio->store, &db);
    json_decref(album);
    return st;
}

static enum problem_code add_album(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    return change_album(studio, request, response, NULL, false, problem);
}

static enum problem_code rename_album(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    return change_album(studio, request, response, request_parameter(request, "id"), false, problem);
}

static enum problem_code remove_album(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    return change_album(studio, request, response, request_parameter(request, "id"), true, problem);
}

/* ---- Uploads ---- */

static enum problem_code upload(struct studio *studio, struct request *request, struct response *response,
                                struct problem *problem) {
    size_t n_parts = 0;
    const struct form_part *parts = request_parts(request, &n_parts);
    json_t *image = NULL;
    char id[40] = "";
    enum problem_code st = PROBLEM_NONE;
    if (n_parts != 1) {
        return problem_set(problem, PROBLEM_INVALID, "file", "send a form with one picture, not with %zu parts",
                           n_parts);
    }
    TRY(gallery_upload(studio->gallery, request_actor(request), request_caller(request)->user_id, parts[0].file_name,
                       parts[0].data, parts[0].n, id, problem));
    struct db *db = store_read(studio->store);
    st = images_get(db, gallery_viewer(request), id, &image, problem);
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE) {
        picture_add_links(image);
        response_json(response, 201, image);
    }
done:
    return st;
}

static const struct route rows[] = {
    { "POST", "/api/v1/images/actions", ACCESS_EDIT, BODY_JSON, ROUTE_SLOW, act_on_images },
    { "PATCH", "/api/v1/images/{id}", ACCESS_EDIT, BODY_JSON, 0, patch_image },
    { "DELETE", "/api/v1/images/{id}", ACCESS_EDIT, BODY_NONE, 0, delete_image },
    { "POST", "/api/v1/images/{id}/restore", ACCESS_EDIT, BODY_JSON, 0, restore_image },
    { "POST", "/api/v1/trash/empty", ACCESS_EDIT, BODY_JSON, ROUTE_SLOW, empty_trash },
    { "POST", "/api/v1/albums", ACCESS_EDIT, BODY_JSON, 0, add_album },
    { "PATCH", "/api/v1/albums/{id}", ACCESS_EDIT, BODY_JSON, 0, rename_album },
    { "DELETE", "/api/v1/albums/{id}", ACCESS_EDIT, BODY_NONE, 0, remove_album },
    { "POST", "/api/v1/uploads", ACCESS_EDIT, BODY_FORM, ROUTE_SLOW, upload },
};

const struct route_table change_routes = { rows, COUNT(rows) };
