/* Checking and mending: see fsck.h. */
#include "gallery/fsck.h"

#include "base/id.h"
#include "files.h"
#include "gallery/gallery_internal.h"
#include "metadata.h"
#include "security/gate.h"
#include "store/audit_log.h"
#include "store/images.h"
#include "store/users.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOST "lost+found"

struct fsck {
    struct studio *studio;
    const struct fsck_options *options;
    json_t *faults, *strangers;
    json_t *rows;   /* {"id", "size_bytes", "sha256"} */
    json_t *files;  /* ids, of what lies at its place */
    char owner[40]; /* who gets what is read back; "": nobody */
};

__attribute__((format(printf, 5, 6))) static void add_fault(struct fsck *fsck, const char *kind, const char *object,
                                                            bool is_mended, const char *format, ...) {
    char sentence[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    json_add(fsck->faults, JSON("{s:s, s:o, s:o, s:b}", "kind", kind, "object", json_text(object), "sentence",
                                json_text(sentence), "mended", is_mended));
}

/* ---- The database by itself ---- */

static enum problem_code check_database(struct fsck *fsck, struct problem *problem) {
    json_t *found = NULL, *one;
    size_t i;
    enum problem_code st = store_check(fsck->studio->store, &found, problem);
    json_array_foreach(found, i, one) {
        add_fault(fsck, "database", NULL, false, "the database is damaged: %.400s", json_string_value(one));
    }
    json_decref(found);
    return st;
}

static enum problem_code check_audit(struct fsck *fsck, struct problem *problem) {
    json_t *verdict = NULL;
    struct db *db = store_read(fsck->studio->store);
    const enum problem_code st = audit_verify(db, &fsck->studio->audit_key, NULL, &verdict, problem);
    store_read_done(fsck->studio->store, db);
    const json_t *fault = json_object_get(verdict, "fault");
    if (json_is_object(fault)) {
        add_fault(fsck, "audit", NULL, false, "the audit log is broken: %.400s", json_get_text(fault, "sentence"));
    }
    json_decref(verdict);
    return st;
}

static enum problem_code note(struct db *db, const char *object, json_t *details, struct problem *problem) {
    return audit_append(db, &actor_system, "store.mended", object, details, problem);
}

static enum problem_code check_search(struct fsck *fsck, struct problem *problem) {
    struct store *store = fsck->studio->store;
    struct db *db = NULL;
    bool fits = true;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(store, &db, problem));
    TRY(images_check_search(db, &fits, problem));
    if (!fits) {
        if (fsck->options->mends) {
            TRY(images_rebuild_search(db, problem));
            TRY(note(db, NULL, JSON("{s:s}", "what", "the index of prompts was made anew"), problem));
            TRY(store_commit(store, &db, problem));
        }
        add_fault(fsck, "search", NULL, fsck->options->mends, "what is searched does not fit the pictures' rows");
    }
done:
    store_rollback(store, &db);
    return st;
}

/* ---- Rows and their files ---- */

static bool collect_row(void *user, json_t *row) {
    json_add(user, json_incref(row));
    return true;
}

static enum problem_code forget(struct fsck *fsck, const char *id, const char *why, struct problem *problem) {
    struct store *store = fsck->studio->store;
    struct db *db = NULL;
    json_t *image = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(store, &db, problem));
    TRY(images_get(db, NULL, id, &image, problem));
    TRY(images_forget(db, id, problem));
    TRY(note(db, id, JSON("{s:s, s:O}", "what", why, "row", image), problem)); /* so that it can be made again */
    TRY(store_commit(store, &db, problem));
done:
    store_rollback(store, &db);
    json_decref(image);
    return st;
}

/* To IMAGES/lost+found, with its thumbnails gone. */
static enum problem_code put_away(struct fsck *fsck, const char *id, struct problem *problem) {
    struct gallery *gallery = fsck->studio->gallery;
    char from[64], to[80];
    (void)snprintf(to, sizeof to, LOST "/%.36s.png", id);
    if (file_move_below(gallery->images_fd, gallery_relative_path(id, from), to) != 0) {
        return problem_system(problem, errno, "the folder lost+found");
    }
    picture_remove_files(gallery, id);
    return PROBLEM_NONE;
}

static enum problem_code set_file(struct fsck *fsck, const char *id, int64_t n, const char *sha256, const char *before,
                                  struct problem *problem) {
    struct store *store = fsck->studio->store;
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(store, &db, problem));
    TRY(images_set_file(db, id, n, sha256, problem));
    TRY(note(db, id, JSON("{s:s, s:s, s:s}", "what", "the file is another one", "from", before, "to", sha256),
             problem));
    TRY(store_commit(store, &db, problem));
done:
    store_rollback(store, &db);
    return st;
}

static bool is_picture(struct gallery *gallery, const void *data, size_t n) {
    struct cyi_image *image = NULL;
    struct cyi_error err = { 0 };
    const bool is_one = cyi_image_decode(gallery->codec, data, n, &image, &err) == CYI_OK;
    cyi_image_free(image);
    return is_one;
}

/* Its file is not the one that was written: it may be a picture all the same. */
static enum problem_code settle_other_file(struct fsck *fsck, const json_t *row, const void *data, size_t n,
                                           const char *sha256, struct problem *problem) {
    const char *id = json_get_text(row, "id");
    const bool mends = fsck->options->mends;
    enum problem_code st = PROBLEM_NONE;
    if (is_picture(fsck->studio->gallery, data, n)) {
        if (mends) {
            TRY(set_file(fsck, id, (int64_t)n, sha256, json_get_text(row, "sha256"), problem));
        }
        add_fault(fsck, "changed", id, mends, "the file of picture %s was changed; it is a picture", id);
    } else {
        if (mends) {
            TRY(forget(fsck, id, "the file is damaged", problem));
            TRY(put_away(fsck, id, problem));
        }
        add_fault(fsck, "damaged", id, mends, "the file of picture %s is damaged%s", id,
                  mends ? "; it lies in lost+found now" : "");
    }
done:
    return st;
}

static enum problem_code check_row(struct fsck *fsck, const json_t *row, struct problem *problem) {
    const char *id = json_get_text(row, "id");
    const int64_t size = json_get_int(row, "size_bytes", 0);
    char sha256[FILES_SHA256_TEXT] = "";
    struct stat info;
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    int fd = picture_open(fsck->studio->gallery, id);
    if (fd < 0 && errno == ENOENT) {
        if (fsck->options->mends) {
            TRY(forget(fsck, id, "the file is gone", problem));
        }
        add_fault(fsck, "missing", id, fsck->options->mends, "the file of picture %s is gone%s", id,
                  fsck->options->mends ? "; its row stands in the audit log now" : "");
        goto done;
    }
    const bool is_other = fd >= 0 && fstat(fd, &info) == 0 && info.st_size != size;
    if (fd >= 0 && !is_other && !fsck->options->is_deep) {
        goto done;
    }
    st = file_read(fd, CYI_MAX_IMAGE_FILE_BYTES, &data, &n, problem);
    fd = -1; /* closed by it */
    if (st != PROBLEM_NONE) {
        add_fault(fsck, "unreadable", id, false, "the file of picture %s cannot be read: %.300s", id, problem->detail);
        *problem = (struct problem){ 0 };
        st = PROBLEM_NONE;
        goto done;
    }
    files_hash(data, n, sha256);
    if (is_other || strcmp(sha256, json_get_text(row, "sha256")) != 0) {
        TRY(settle_other_file(fsck, row, data, n, sha256, problem));
    }
done:
    if (fd >= 0) {
        (void)close(fd);
    }
    free(data);
    return st;
}

static enum problem_code check_rows(struct fsck *fsck, struct problem *problem) {
    json_t *row;
    size_t i;
    struct db *db = store_read(fsck->studio->store);
    enum problem_code st = images_each(db, collect_row, fsck->rows, problem);
    store_read_done(fsck->studio->store, db);
    json_array_foreach(fsck->rows, i, row) {
        TRY(check_row(fsck, row, problem));
    }
done:
    return st;
}

/* ---- Files without a row ---- */

/* The id of a path below the folder that lies where its name says; else false. */
static bool id_of_path(const char *relative, char ret_id[ID_TEXT]) {
    char expected[64];
    const char *name = files_base_name(relative);
    if (strlen(name) != ID_TEXT - 1 + strlen(".png")) {
        return false;
    }
    (void)snprintf(ret_id, ID_TEXT, "%.36s", name);
    return id_is_valid(ret_id) && strcmp(gallery_relative_path(ret_id, expected), relative) == 0;
}

static enum problem_code find_files(struct fsck *fsck, struct problem *problem) {
    char *root = fsck->studio->paths.images;
    char *const roots[] = { root, NULL };
    const size_t n_root = strlen(root) + (root[strlen(root) - 1] == '/' ? 0 : 1);
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (tree == NULL) {
        return problem_system(problem, errno, "the folder of the pictures");
    }
    for (FTSENT *entry; (entry = fts_read(tree)) != NULL;) {
        char id[ID_TEXT];
        const bool is_own =
            entry->fts_level == 1 && (strcmp(entry->fts_name, LOST) == 0 || strcmp(entry->fts_name, ".moving") == 0);
        if (entry->fts_info == FTS_D && is_own) {
            (void)fts_set(tree, entry, FTS_SKIP);
        } else if (entry->fts_info == FTS_F && id_of_path(entry->fts_path + n_root, id)) {
            json_add(fsck->files, json_string(id));
        } else if (entry->fts_info != FTS_D && entry->fts_info != FTS_DP) {
            json_add(fsck->strangers, json_text(entry->fts_path));
        }
    }
    (void)fts_close(tree);
    return PROBLEM_NONE;
}

/* "ID.png" of a recipe's input → a parent. */
static void add_parent(json_t *parents, const struct recipe_file *file, const char *role) {
    char id[ID_TEXT];
    if (file->name != NULL && strlen(file->name) == ID_TEXT - 1 + strlen(".png")) {
        (void)snprintf(id, sizeof id, "%.36s", file->name);
        if (id_is_valid(id)) {
            json_add(parents, JSON("{s:s, s:s}", "id", id, "role", role));
        }
    }
}

static json_t *parents_of(const struct recipe *recipe) {
    json_t *parents = JSON("[]");
    for (int i = 0; i < recipe->n_references; i++) {
        add_parent(parents, &recipe->references[i], "reference");
    }
    add_parent(parents, &recipe->init, "init");
    add_parent(parents, &recipe->mask, "mask");
    return parents;
}

/* What the recipe says, into the row. */
static void put_recipe(json_t *row, const struct recipe *recipe, const char *json) {
    char *engine = text_format("CyberImage %s, %s %s, %s", recipe->version, recipe->backend, recipe->backend_version,
                               recipe->precision);
    json_t *more = JSON("{s:s, s:s, s:s, s:s, s:s?, s:I, s:i, s:f, s:s, s:s}", "model", recipe->model_name,
                        "model_hash", recipe->model_fingerprint, "prompt", recipe->prompt, "prompt_sent",
                        recipe->prompt, "negative_prompt", recipe->negative_prompt, "seed", (json_int_t)recipe->seed,
                        "steps", recipe->n_steps, "guidance", recipe->guidance, "engine", engine, "settings", json);
    if (recipe->init.name != NULL) {
        json_put(more, "strength", json_real(recipe->strength));
    }
    (void)json_object_update(row, more);
    json_decref(more);
    free(engine);
}

/* The row and parents of a file by what it says of itself; false: it is no picture. */
static bool describe_file(struct fsck *fsck, const char *id, const void *data, size_t n, json_t **ret_row,
                          json_t **ret_parents) {
    struct cyi_engine *codec = fsck->studio->gallery->codec;
    struct cyi_image *image = NULL, *small = NULL;
    struct cyi_error err = { 0 };
    struct problem problem = { 0 };
    struct recipe recipe = { 0 };
    char *parameters = NULL, *json = NULL, sha256[FILES_SHA256_TEXT], blurhash[64];
    const bool is_picture = cyi_image_decode(codec, data, n, &image, &err) == CYI_OK &&
                            thumbnail_scale(codec, image, BLURHASH_SIDE, &small, &problem) == PROBLEM_NONE;
    if (is_picture) {
        const int64_t created_us = picture_time_us(id);
        files_hash(data, n, sha256);
        thumbnail_blurhash(small, blurhash);
        *ret_row = JSON("{s:s, s:s, s:s?, s:I, s:i, s:i, s:i, s:I, s:s, s:s}", "id", id, "kind", "upload", "owner",
                        fsck->owner[0] != '\0' ? fsck->owner : NULL, "created_us", (json_int_t)created_us,
                        "zone_minutes", picture_zone_minutes(created_us), "width", image->width, "height",
                        image->height, "size_bytes", (json_int_t)n, "sha256", sha256, "blurhash", blurhash);
        (void)cyi_image_decode_texts(codec, data, n, &parameters, &json, &err);
        const bool has_recipe = json != NULL && recipe_from_text(json, &recipe, &err) == CYI_OK;
        *ret_parents = parents_of(&recipe);
        if (has_recipe) {
            json_put(*ret_row, "kind", json_string("generated"));
            put_recipe(*ret_row, &recipe, json);
        }
    }
    recipe_done(&recipe);
    cyi_release(codec, parameters);
    cyi_release(codec, json);
    cyi_image_free(image);
    cyi_image_free(small);
    return is_picture;
}

static enum problem_code read_back(struct fsck *fsck, const char *id, bool *ret_is_picture, struct problem *problem) {
    struct store *store = fsck->studio->store;
    struct db *db = NULL;
    json_t *row = NULL, *parents = NULL;
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(file_read(picture_open(fsck->studio->gallery, id), CYI_MAX_IMAGE_FILE_BYTES, &data, &n, problem));
    *ret_is_picture = describe_file(fsck, id, data, n, &row, &parents);
    if (!*ret_is_picture) {
        st = put_away(fsck, id, problem);
        goto done;
    }
    TRY(store_begin(store, &db, problem));
    TRY(images_add(db, row, parents, problem));
    TRY(note(
        db, id,
        JSON("{s:s, s:O}", "what", "the file had no row, and was read back", "sha256", json_object_get(row, "sha256")),
        problem));
    TRY(store_commit(store, &db, problem));
done:
    store_rollback(store, &db);
    json_decref(row);
    json_decref(parents);
    free(data);
    return st;
}

static enum problem_code check_file(struct fsck *fsck, const char *id, struct problem *problem) {
    json_t *row = NULL;
    bool is_one = true;
    struct db *db = store_read(fsck->studio->store);
    enum problem_code st = images_find(db, NULL, id, &row, problem);
    store_read_done(fsck->studio->store, db);
    if (st != PROBLEM_NONE || row != NULL) {
        json_decref(row);
        return st;
    }
    if (fsck->options->mends) {
        st = read_back(fsck, id, &is_one, problem);
    }
    if (st == PROBLEM_NONE) {
        add_fault(fsck, "orphan", id, fsck->options->mends, "the file %s.png has no row%s", id,
                  !fsck->options->mends ? ""
                  : is_one              ? "; it was read back"
                                        : " and is no picture; it lies in lost+found now");
    }
    return st;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* In the order of their time, which is the order of lists. */
static enum problem_code check_files(struct fsck *fsck, struct problem *problem) {
    const size_t n = json_array_size(fsck->files);
    const char **ids = text_alloc(n + 1, sizeof *ids);
    enum problem_code st = PROBLEM_NONE;
    for (size_t i = 0; i < n; i++) {
        ids[i] = json_string_value(json_array_get(fsck->files, i));
    }
    qsort(ids, n, sizeof *ids, by_text);
    for (size_t i = 0; i < n && st == PROBLEM_NONE; i++) {
        st = check_file(fsck, ids[i], problem);
    }
    free(ids);
    return st;
}

/* ---- All of it ---- */

static enum problem_code find_owner(struct fsck *fsck, struct problem *problem) {
    struct store *store = fsck->studio->store;
    json_t *user = NULL;
    enum problem_code st = fsck->options->mends ? gate_ensure_owner(store, problem) : PROBLEM_NONE;
    struct db *db = store_read(store);
    st = st != PROBLEM_NONE ? st : users_first_admin(db, &user, problem);
    store_read_done(store, db);
    (void)snprintf(fsck->owner, sizeof fsck->owner, "%s", user != NULL ? json_get_text(user, "id") : "");
    json_decref(user);
    return st;
}

enum problem_code fsck_run(struct studio *studio, const struct fsck_options *options, json_t **ret_report,
                           struct problem *problem) {
    struct fsck fsck = { .studio = studio,
                         .options = options,
                         .faults = JSON("[]"),
                         .strangers = JSON("[]"),
                         .rows = JSON("[]"),
                         .files = JSON("[]") };
    enum problem_code st = PROBLEM_NONE;
    TRY(gallery_start(studio, &studio->gallery, problem));
    TRY(find_owner(&fsck, problem));
    TRY(check_database(&fsck, problem));
    TRY(check_audit(&fsck, problem));
    TRY(check_search(&fsck, problem));
    TRY(check_rows(&fsck, problem));
    TRY(find_files(&fsck, problem));
    TRY(check_files(&fsck, problem));
    *ret_report = JSON("{s:I, s:O, s:O}", "pictures", (json_int_t)json_array_size(fsck.files), "faults", fsck.faults,
                       "strangers", fsck.strangers);
done:
    json_decref(fsck.faults);
    json_decref(fsck.strangers);
    json_decref(fsck.rows);
    json_decref(fsck.files);
    return st;
}
