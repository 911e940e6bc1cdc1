/* The janitor: what lay in the trash too long goes for ever, and copies in other formats beyond their room go, the oldest
 * first. */
#include "gallery/gallery_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "files.h"
#include "store/images.h"

#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DAY_US (24 * 3600 * CLOCK_SECOND)
#define MOST_AT_ONCE 200
#define STALE_SECONDS 3600 /* a half-written file that is older belongs to nobody */

enum problem_code gallery_purge(struct gallery *gallery, const struct actor *actor, const char *owner,
                                const json_t *ids, struct problem *problem) {
    struct studio *studio = gallery->studio;
    json_t *gone = JSON("[]"), *id;
    struct db *db = NULL;
    size_t i;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(studio->store, &db, problem));
    json_array_foreach(ids, i, id) {
        bool changed = false;
        TRY(images_purge(db, owner, json_string_value(id), &changed, problem));
        if (changed) {
            json_add(gone, json_incref(id));
            if (!moving_take_out(gallery, json_string_value(id))) {
                st = problem_system(problem, errno, "the picture's file");
                goto done;
            }
            TRY(audit_append(db, actor, "image.purged", json_string_value(id), NULL, problem));
        }
    }
    TRY(moving_sync(gallery, problem));
    TRY(store_commit(studio->store, &db, problem));
    json_array_foreach(gone, i, id) {
        picture_remove_files(gallery, json_string_value(id));
        (void)events_publish(studio->events, "image.removed", owner, JSON("{s:O}", "id", id));
    }
done:
    store_rollback(studio->store, &db);
    if (st != PROBLEM_NONE) {
        json_array_foreach(gone, i, id) {
            moving_settle(gallery, json_string_value(id));
        }
    }
    json_decref(gone);
    return st;
}

static void empty_trash(struct gallery *gallery) {
    struct problem problem = { 0 };
    json_t *ids = NULL;
    const int64_t days = settings_int(gallery->studio->settings, SETTING_trash_days);
    if (days == 0) {
        return;
    }
    struct db *db = store_read(gallery->studio->store);
    enum problem_code st = images_in_trash(db, NULL, clock_now_us() - days * DAY_US, MOST_AT_ONCE, &ids, &problem);
    store_read_done(gallery->studio->store, db);
    if (st == PROBLEM_NONE && json_array_size(ids) > 0) {
        st = gallery_purge(gallery, &actor_system, NULL, ids, &problem);
    }
    if (st != PROBLEM_NONE) {
        log_event(LOG_WARNING, "trash.failed", JSON("{s:s}", "error", problem.detail));
    }
    json_decref(ids);
}

/* ---- Copies ---- */

struct copy {
    char *path;
    time_t used;
    int64_t size;
};

static int by_age(const void *a, const void *b) {
    const struct copy *x = a, *y = b;
    return x->used < y->used ? -1 : x->used > y->used;
}

static void trim_copies(struct gallery *gallery) {
    char *folder = files_join(gallery->studio->paths.cache, "converted");
    char *const roots[] = { folder, NULL };
    struct copy *copies = NULL;
    size_t n = 0;
    int64_t total = 0;
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; tree != NULL && (entry = fts_read(tree)) != NULL;) {
        if (entry->fts_info != FTS_F) {
            continue;
        }
        const bool is_part =
            strlen(entry->fts_name) > 5 && strcmp(entry->fts_name + strlen(entry->fts_name) - 5, ".part") == 0;
        if (is_part && time(NULL) - entry->fts_statp->st_mtime > STALE_SECONDS) {
            (void)unlink(entry->fts_path);
            continue;
        }
        copies = text_resize(copies, n + 1, sizeof *copies);
        copies[n++] =
            (struct copy){ text_copy(entry->fts_path), entry->fts_statp->st_mtime, (int64_t)entry->fts_statp->st_size };
        total += (int64_t)entry->fts_statp->st_size;
    }
    if (tree != NULL) {
        (void)fts_close(tree);
    }
    if (n > 0) {
        qsort(copies, n, sizeof *copies, by_age);
    }
    for (size_t i = 0; i < n; i++) {
        if (total > CONVERTED_MAX_BYTES && unlink(copies[i].path) == 0) {
            total -= copies[i].size;
        }
        free(copies[i].path);
    }
    free(copies);
    free(folder);
}

void gallery_tidy(struct gallery *gallery) {
    empty_trash(gallery);
    trim_copies(gallery);
}
