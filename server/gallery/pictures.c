/* Pictures in, pictures out: see gallery.h. */
#include "gallery/gallery_internal.h"

#include "base/clock.h"
#include "base/id.h"
#include "files.h"
#include "store/images.h"
#include "store/users.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define MIB 1048576

/* ---- Start ---- */

static enum problem_code open_folder(const char *path, int *ret_fd, struct problem *problem) {
    struct cyi_error err = { 0 };
    if (files_make_folder(path, 0700, &err) != CYI_OK) {
        return problem_set(problem, PROBLEM_INTERNAL, NULL, "%.500s", err.text);
    }
    *ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd < 0 ? problem_system(problem, errno, path) : PROBLEM_NONE;
}

enum problem_code gallery_start(struct studio *studio, struct gallery **ret_gallery, struct problem *problem) {
    struct gallery *gallery = text_alloc(1, sizeof *gallery);
    /* Pictures are encoded and decoded on the thread that asks: one thread, and the smallest backend there is. */
    const struct cyi_engine_options options = { .backend = "reference", .n_threads = 1 };
    struct cyi_error err = { 0 };
    enum problem_code st = PROBLEM_NONE;
    *gallery = (struct gallery){ .studio = studio, .images_fd = -1, .cache_fd = -1 };
    TRY(open_folder(studio->paths.images, &gallery->images_fd, problem));
    TRY(open_folder(studio->paths.cache, &gallery->cache_fd, problem));
    if (cyi_engine_create(&options, &gallery->codec, &err) != CYI_OK) {
        st = problem_engine(problem, NULL, &err);
        goto done;
    }
    TRY(moving_settle_all(gallery, problem));
    *ret_gallery = gallery;
    gallery = NULL;
done:
    gallery_stop(gallery);
    return st;
}

void gallery_stop(struct gallery *gallery) {
    if (gallery == NULL) {
        return;
    }
    cyi_engine_free(gallery->codec);
    const int folders[] = { gallery->images_fd, gallery->cache_fd };
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        if (folders[i] >= 0) {
            (void)close(folders[i]);
        }
    }
    free(gallery);
}

struct cyi_engine *gallery_codec(struct gallery *gallery) {
    return gallery->codec;
}

int64_t gallery_room(struct gallery *gallery) {
    struct statvfs disk;
    if (fstatvfs(gallery->images_fd, &disk) != 0) {
        return 0;
    }
    return (int64_t)disk.f_bavail * (int64_t)disk.f_frsize -
           settings_int(gallery->studio->settings, SETTING_reserve_mib) * MIB;
}

int64_t picture_time_us(const char *id) {
    char digits[13];
    (void)snprintf(digits, sizeof digits, "%.8s%.4s", id, id + 9);
    return (int64_t)strtoull(digits, NULL, 16) * 1000;
}

const char *gallery_relative_path(const char *id, char buffer[64]) {
    struct tm day;
    const time_t seconds = (time_t)(picture_time_us(id) / CLOCK_SECOND);
    if (gmtime_r(&seconds, &day) == NULL || day.tm_year + 1900 > 9999) {
        (void)snprintf(buffer, 64, "1970/01/01/%.36s.png", id); /* of no clock that we know */
        return buffer;
    }
    char date[16];
    (void)strftime(date, sizeof date, "%Y/%m/%d", &day);
    (void)snprintf(buffer, 64, "%.10s/%.36s.png", date, id);
    return buffer;
}

/* ---- In ---- */

enum problem_code gallery_write(struct gallery *gallery, const struct new_picture *picture,
                                struct written_picture *ret_written, struct problem *problem) {
    const struct cyi_image_options options = { .format = CYI_FORMAT_PNG,
                                               .parameters = picture->parameters,
                                               .json = picture->json };
    struct written_picture written = { 0 };
    struct cyi_image *small = NULL;
    struct cyi_error err = { 0 };
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    if (gallery_room(gallery) < 0) {
        st = problem_set(problem, PROBLEM_NO_SPACE, NULL,
                         "the pictures' disk has less room than its reserve of %lld MiB",
                         (long long)settings_int(gallery->studio->settings, SETTING_reserve_mib));
        goto done;
    }
    if (cyi_image_encode(gallery->codec, picture->image, &options, &data, &n, &err) != CYI_OK) {
        st = problem_engine(problem, NULL, &err);
        goto done;
    }
    (void)id_make(written.id);
    written.created_us = picture_time_us(written.id); /* the id alone brings it back: see fsck.c */
    written.size_bytes = (int64_t)n;
    files_hash(data, n, written.sha256);
    TRY(thumbnail_scale(gallery->codec, picture->image, BLURHASH_SIDE, &small, problem));
    thumbnail_blurhash(small, written.blurhash);
    TRY(moving_write(gallery, written.id, data, n, problem));
    TRY(thumbnail_write(gallery, written.id, picture->image, problem)); /* after it: so none is left alone */
    *ret_written = written;
done:
    if (st != PROBLEM_NONE && written.id[0] != '\0') {
        picture_remove_files(gallery, written.id);
    }
    cyi_image_free(small);
    cyi_release(gallery->codec, data);
    return st;
}

int picture_zone_minutes(int64_t time_us) {
    const time_t seconds = (time_t)(time_us / CLOCK_SECOND);
    struct tm local;
    return localtime_r(&seconds, &local) != NULL ? (int)(local.tm_gmtoff / 60) : 0;
}

enum problem_code gallery_insert(struct db *db, const struct actor *actor, const struct new_picture *picture,
                                 const struct written_picture *written, struct problem *problem) {
    const bool is_made = picture->job_id != NULL;
    enum problem_code st = PROBLEM_NONE;
    json_t *row =
        JSON("{s:s, s:s, s:s?, s:s?, s:I, s:i, s:i, s:i, s:I, s:s, s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, "
             "s:s?, s:s?, s:s?, s:s?}",
             "id", written->id, "kind", picture->kind, "owner", picture->owner, "job_id", picture->job_id, "created_us",
             (json_int_t)written->created_us, "zone_minutes", picture_zone_minutes(written->created_us), "width",
             picture->image->width, "height", picture->image->height, "size_bytes", (json_int_t)written->size_bytes,
             "sha256", written->sha256, "blurhash", written->blurhash, "model", picture->model, "model_hash",
             picture->model_hash, "prompt", picture->prompt, "prompt_enriched", picture->prompt_enriched, "prompt_sent",
             picture->prompt_sent, "negative_prompt", picture->negative_prompt, "enrichment_id", picture->enrichment_id,
             "engine", picture->engine, "device", picture->device, "settings", picture->json, "name", picture->name);
    if (is_made) {
        json_put(row, "job_index", json_integer(picture->job_index));
        json_put(row, "steps", json_integer(picture->steps));
        json_put(row, "duration_ms", json_integer(picture->duration_ms));
    }
    if (picture->seed >= 0 && is_made) {
        json_put(row, "seed", json_integer(picture->seed));
    }
    if (picture->guidance >= 0.0 && is_made) {
        json_put(row, "guidance", json_real(picture->guidance));
    }
    if (picture->strength > 0.0) {
        json_put(row, "strength", json_real(picture->strength));
    }
    TRY(images_add(db, row, picture->parents, problem));
    TRY(audit_append(db, actor, "image.added", written->id,
                     JSON("{s:s, s:s?, s:s?, s:s}", "kind", picture->kind, "job", picture->job_id, "model",
                          picture->model, "sha256", written->sha256),
                     problem));
done:
    json_decref(row);
    return st;
}

void gallery_place(struct gallery *gallery, const struct new_picture *picture, const struct written_picture *written) {
    moving_settle(gallery, written->id);
    (void)events_publish(gallery->studio->events, "image.added", picture->owner,
                         JSON("{s:s, s:s, s:s?, s:i, s:i, s:s}", "id", written->id, "kind", picture->kind, "job",
                              picture->job_id, "width", picture->image->width, "height", picture->image->height,
                              "blurhash", written->blurhash));
}

void picture_remove_files(struct gallery *gallery, const char *id) {
    char path[GALLERY_PATH], relative[64];
    file_remove_below(gallery->images_fd, gallery_relative_path(id, relative));
    moving_remove(gallery, id);
    file_remove_below(gallery->cache_fd, thumbnail_path(id, THUMBNAIL_SMALL, path));
    file_remove_below(gallery->cache_fd, thumbnail_path(id, THUMBNAIL_LARGE, path));
}

void gallery_discard(struct gallery *gallery, const struct written_picture *written) {
    picture_remove_files(gallery, written->id);
}

enum problem_code gallery_check_quota(struct gallery *gallery, const char *owner, int n, struct problem *problem) {
    json_t *user = NULL, *usage = NULL;
    struct settings *settings = gallery->studio->settings;
    enum problem_code st = PROBLEM_NONE;
    if (owner == NULL || owner[0] == '\0') {
        return st;
    }
    struct db *db = store_read(gallery->studio->store);
    TRY(users_get(db, owner, &user, problem));
    const int64_t most = json_get_int(user, "quota_pictures", settings_int(settings, SETTING_quota_pictures));
    const int64_t most_mib = json_get_int(user, "quota_mib", settings_int(settings, SETTING_quota_mib));
    if (most <= 0 && most_mib <= 0) {
        goto done;
    }
    TRY(users_usage(db, owner, &usage, problem));
    const int64_t pictures = json_get_int(usage, "pictures", 0), bytes = json_get_int(usage, "bytes", 0);
    if (most > 0 && pictures + n > most) {
        st = problem_set(problem, PROBLEM_FORBIDDEN, NULL,
                         "you may keep %lld pictures and have %lld (those in the trash count): %d more are too many",
                         (long long)most, (long long)pictures, n);
    } else if (most_mib > 0 && bytes >= most_mib * MIB) {
        st = problem_set(problem, PROBLEM_FORBIDDEN, NULL, "your pictures take %lld MiB, and %lld MiB are allowed",
                         (long long)(bytes / MIB), (long long)most_mib);
    }
done:
    store_read_done(gallery->studio->store, db);
    json_decref(user);
    json_decref(usage);
    return st;
}

/* ---- Uploads ---- */

static enum problem_code keep_upload(struct gallery *gallery, const struct actor *actor,
                                     const struct new_picture *picture, char ret_id[40], struct problem *problem) {
    struct store *store = gallery->studio->store;
    struct written_picture written = { 0 };
    struct db *db = NULL;
    char *same = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(gallery_write(gallery, picture, &written, problem));
    TRY(store_begin(store, &db, problem));
    TRY(images_find_upload(db, picture->owner, written.sha256, &same, problem));
    if (same == NULL) {
        TRY(gallery_insert(db, actor, picture, &written, problem));
        TRY(store_commit(store, &db, problem));
        gallery_place(gallery, picture, &written);
    }
    (void)snprintf(ret_id, 40, "%s", same != NULL ? same : written.id);
done:
    store_rollback(store, &db);
    if (written.id[0] != '\0' && (st != PROBLEM_NONE || same != NULL)) {
        gallery_discard(gallery, &written);
    }
    free(same);
    return st;
}

enum problem_code gallery_upload(struct gallery *gallery, const struct actor *actor, const char *owner,
                                 const char *name, const void *data, size_t n, char ret_id[40],
                                 struct problem *problem) {
    struct cyi_image *image = NULL;
    struct cyi_error err = { 0 };
    enum problem_code st = PROBLEM_NONE;
    char *clean = name != NULL ? text_clean(files_base_name(name)) : NULL;
    const int64_t most = settings_int(gallery->studio->settings, SETTING_upload_mib) * MIB;
    if ((int64_t)n > most) {
        st = problem_set(problem, PROBLEM_TOO_LARGE, NULL,
                         "the picture has %zu bytes, and at most %lld MiB are accepted", n, (long long)(most / MIB));
        goto done;
    }
    TRY(gallery_check_quota(gallery, owner, 1, problem));
    if (cyi_image_decode(gallery->codec, data, n, &image, &err) != CYI_OK) {
        st = problem_engine(problem, NULL, &err);
        goto done;
    }
    const struct new_picture picture = {
        .kind = "upload", .owner = owner, .image = image, .seed = -1, .guidance = -1.0, .name = clean
    };
    TRY(keep_upload(gallery, actor, &picture, ret_id, problem));
done:
    cyi_image_free(image);
    free(clean);
    return st;
}

/* ---- Out ---- */

enum problem_code gallery_read(struct gallery *gallery, const char *owner, const char *id, void **ret_data,
                               size_t *ret_n, struct problem *problem) {
    json_t *row = NULL;
    struct db *db = store_read(gallery->studio->store);
    enum problem_code st = id_is_valid(id) ? images_find(db, owner, id, &row, problem) : PROBLEM_NONE;
    store_read_done(gallery->studio->store, db);
    if (st == PROBLEM_NONE && (row == NULL || !json_is_null(json_object_get(row, "deleted_us")))) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such picture");
    }
    if (st == PROBLEM_NONE) {
        st = file_read(picture_open(gallery, id), CYI_MAX_IMAGE_FILE_BYTES, ret_data, ret_n, problem);
    }
    json_decref(row);
    return st;
}

enum problem_code picture_decode(struct gallery *gallery, const char *id, struct cyi_image **ret_image,
                                 struct problem *problem) {
    struct cyi_error err = { 0 };
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = file_read(picture_open(gallery, id), CYI_MAX_IMAGE_FILE_BYTES, &data, &n, problem);
    if (st == PROBLEM_NONE && cyi_image_decode(gallery->codec, data, n, ret_image, &err) != CYI_OK) {
        st = problem_set(problem, PROBLEM_INTERNAL, NULL, "the picture's file is damaged: %.400s", err.text);
    }
    free(data);
    return st;
}

const char *gallery_viewer(const struct request *request) {
    return request_is_admin(request) ? NULL : request_caller(request)->user_id;
}
