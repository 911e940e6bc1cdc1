/* store/images: rows of pictures, their tags and albums, and what is searched. Lists are in the order of images.number,
 * which grows with time. owner arguments: a user's id, or NULL for everybody's pictures. Rows are named like the API's
 * members. */
#ifndef SERVER_STORE_IMAGES_H
#define SERVER_STORE_IMAGES_H

#include "store/audit.h"

/* row: members are columns of the table. parents: [{"id", "role"}…] or NULL. */
enum problem_code images_add(struct db *db, const json_t *row, const json_t *parents, struct problem *problem);

struct image_filter {
    const char *owner; /* who may be seen; NULL: everybody */
    const char *of;    /* pictures of this user only, or NULL */
    const char *q, *model, *tag, *album, *job, *kind;
    int64_t width, height, seed; /* < 0: any */
    int64_t since_us, until_us;  /* 0: open */
    bool is_favourite, is_deleted, is_oldest_first;
    int64_t after; /* the number behind which the page begins; 0: the first page */
    int64_t limit;
};

/* Rows for a list: number, id, kind, created, width, height, blurhash, model, prompt, seed, favourite, size_bytes,
 * owner, deleted. */
enum problem_code images_list(struct db *db, const struct image_filter *filter, json_t **ret_rows,
                              struct problem *problem);
/* The plan that SQLite has for such a list, its lines joined: a test looks for scans. */
enum problem_code images_explain(struct db *db, const struct image_filter *filter, char **ret_plan,
                                 struct problem *problem);
/* {"models": [{"name", "n"}…], "sizes", "tags", "albums", "months"}. */
enum problem_code images_facets(struct db *db, const char *owner, json_t **ret_facets, struct problem *problem);

/* Everything about one picture, with parents, children, tags, albums. NOT_FOUND, also for those of others. */
enum problem_code images_get(struct db *db, const char *owner, const char *id, json_t **ret_image,
                             struct problem *problem);
/* {"id", "owner", "kind", "width", "height", "size_bytes", "sha256", "deleted_us", "name"}, or NULL. */
enum problem_code images_find(struct db *db, const char *owner, const char *id, json_t **ret_row,
                              struct problem *problem);
/* The id of this owner's upload with this hash that is not deleted, or NULL. A new string. */
enum problem_code images_find_upload(struct db *db, const char *owner, const char *sha256, char **ret_id,
                                     struct problem *problem);

/* One picture each; *ret_changed: was it not so already? NOT_FOUND as above. */
enum problem_code images_set_favourite(struct db *db, const char *owner, const char *id, bool is_favourite,
                                       bool *ret_changed, struct problem *problem);
enum problem_code images_set_name(struct db *db, const char *owner, const char *id, const char *name,
                                  struct problem *problem);
enum problem_code images_trash(struct db *db, const char *owner, const char *id, bool *ret_changed,
                               struct problem *problem);
enum problem_code images_restore(struct db *db, const char *owner, const char *id, bool *ret_changed,
                                 struct problem *problem);
/* The row goes for ever; only from the trash. */
enum problem_code images_purge(struct db *db, const char *owner, const char *id, bool *ret_changed,
                               struct problem *problem);
enum problem_code images_tag(struct db *db, const char *owner, const char *id, const char *tag, bool *ret_changed,
                             struct problem *problem);
enum problem_code images_untag(struct db *db, const char *owner, const char *id, const char *tag, bool *ret_changed,
                               struct problem *problem);
/* Ids in the trash, deleted before then. */
enum problem_code images_in_trash(struct db *db, const char *owner, int64_t before_us, int64_t limit, json_t **ret_ids,
                                  struct problem *problem);

enum problem_code tags_list(struct db *db, const char *owner, json_t **ret_tags, struct problem *problem);

enum problem_code albums_list(struct db *db, const char *owner, json_t **ret_albums, struct problem *problem);
enum problem_code albums_get(struct db *db, const char *owner, const char *id, json_t **ret_album,
                             struct problem *problem);
enum problem_code albums_add(struct db *db, const char *owner, const char *id, const char *name,
                             struct problem *problem);
enum problem_code albums_rename(struct db *db, const char *owner, const char *id, const char *name,
                                struct problem *problem);
enum problem_code albums_remove(struct db *db, const char *owner, const char *id, struct problem *problem);
enum problem_code albums_put(struct db *db, const char *owner, const char *album, const char *id, bool is_in,
                             bool *ret_changed, struct problem *problem);

/* For fsck. Does the index of what is searched fit the pictures' rows? Errors: INTERNAL. */
enum problem_code images_check_search(struct db *writer, bool *ret_fits, struct problem *problem);
enum problem_code images_rebuild_search(struct db *db, struct problem *problem);
enum problem_code images_set_file(struct db *db, const char *id, int64_t size_bytes, const char *sha256,
                                  struct problem *problem);
/* Calls on_row with {"id", "size_bytes", "sha256"} of every picture. */
enum problem_code images_each(struct db *db, bool (*on_row)(void *user, json_t *row), void *user,
                              struct problem *problem);
/* The row of a picture whose file is gone. */
enum problem_code images_forget(struct db *db, const char *id, struct problem *problem);

#endif
