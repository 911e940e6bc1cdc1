/* Routes: the pictures' bytes. The PNG is sent as it lies there; other formats are made once and kept in the cache. */
#include "gallery/gallery_internal.h"

#include "base/id.h"
#include "store/images.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_QUALITY 90

static const struct format {
    const char *ending, *type;
    enum cyi_image_format format;
} formats[] = {
    { "png", "image/png", CYI_FORMAT_PNG },
    { "jpg", "image/jpeg", CYI_FORMAT_JPEG },
    { "jpeg", "image/jpeg", CYI_FORMAT_JPEG },
    { "webp", "image/webp", CYI_FORMAT_WEBP },
};

struct delivery {
    int64_t quality;
    bool is_download;
};

static const struct json_row delivery_rows[] = {
    { "quality", JSON_ROW_INT, offsetof(struct delivery, quality), 1, 100, NULL, 0 },
    { "download", JSON_ROW_BOOL, offsetof(struct delivery, is_download), 0, 0, NULL, 0 },
};

/* The row of a picture that this caller may see; those in the trash are shown too, to whom they belong. */
static enum problem_code find_row(struct studio *studio, const struct request *request, const char *id,
                                  json_t **ret_row, struct problem *problem) {
    json_t *row = NULL;
    struct db *db = store_read(studio->store);
    enum problem_code st = id_is_valid(id) ? images_find(db, gallery_viewer(request), id, &row, problem) : PROBLEM_NONE;
    store_read_done(studio->store, db);
    if (st == PROBLEM_NONE && row == NULL) {
        return problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no such picture");
    }
    *ret_row = row;
    return st;
}

/* Makes the copy in the cache. */
static enum problem_code convert(struct gallery *gallery, const char *id, const struct format *format, int64_t quality,
                                 const char *path, struct problem *problem) {
    const struct cyi_image_options options = { .format = format->format, .quality = (int)quality };
    struct cyi_image *image = NULL;
    struct cyi_error err = { 0 };
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(picture_decode(gallery, id, &image, problem));
    if (cyi_image_encode(gallery->codec, image, &options, &data, &n, &err) != CYI_OK) {
        st = problem_engine(problem, NULL, &err);
        goto done;
    }
    TRY(file_write_below(gallery->cache_fd, path, data, n, false, problem));
done:
    cyi_release(gallery->codec, data);
    cyi_image_free(image);
    return st;
}

static enum problem_code open_converted(struct gallery *gallery, const char *id, const struct format *format,
                                        int64_t quality, int *ret_fd, struct problem *problem) {
    char path[GALLERY_PATH];
    (void)snprintf(path, sizeof path, "converted/%s/%s-%lld.%s", id + strlen(id) - 2, id, (long long)quality,
                   format->ending);
    int fd = file_open_below(gallery->cache_fd, path, O_RDONLY);
    if (fd < 0) {
        const enum problem_code st = convert(gallery, id, format, quality, path, problem);
        if (st != PROBLEM_NONE) {
            return st;
        }
        fd = file_open_below(gallery->cache_fd, path, O_RDONLY);
    }
    *ret_fd = fd;
    return fd < 0 ? problem_system(problem, errno, "the converted picture") : PROBLEM_NONE;
}

static enum problem_code send_picture(struct studio *studio, struct request *request, struct response *response,
                                      struct problem *problem) {
    struct gallery *gallery = studio->gallery;
    const char *id = request_parameter(request, "id"), *ending = request_parameter(request, "ending");
    const struct format *format = NULL;
    struct delivery delivery = { .quality = DEFAULT_QUALITY };
    char etag[96], name[64];
    json_t *row = NULL;
    int fd = -1;
    enum problem_code st = PROBLEM_NONE;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        format = strcmp(formats[i].ending, ending) == 0 ? &formats[i] : format;
    }
    if (format == NULL) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, NULL, "pictures end with .png, .jpg or .webp");
        goto done;
    }
    TRY(request_read_query(request, delivery_rows, sizeof delivery_rows / sizeof delivery_rows[0], &delivery, problem));
    TRY(find_row(studio, request, id, &row, problem));
    if (format->format == CYI_FORMAT_PNG) {
        fd = picture_open(gallery, id);
        if (fd < 0) {
            st = problem_set(problem, PROBLEM_NOT_FOUND, NULL,
                             "the picture's file is not there; cyberimage fsck says more");
            goto done;
        }
        (void)snprintf(etag, sizeof etag, "%s", json_get_text(row, "sha256"));
    } else {
        TRY(open_converted(gallery, id, format, delivery.quality, &fd, problem));
        (void)snprintf(etag, sizeof etag, "%.40s-%lld-%s", json_get_text(row, "sha256"), (long long)delivery.quality,
                       format->ending);
    }
    if (delivery.is_download) {
        TRY(audit_write(studio->store, request_actor(request), "image.downloaded", id,
                        JSON("{s:s}", "format", format->ending), problem));
    }
    (void)snprintf(name, sizeof name, "%s.%s", id, format->ending);
    st = response_file(response, fd, format->type, etag, true, delivery.is_download ? name : NULL, problem);
    fd = -1;
done:
    if (fd >= 0) {
        (void)close(fd);
    }
    json_decref(row);
    return st;
}

static enum problem_code send_thumbnail(struct studio *studio, struct request *request, struct response *response,
                                        struct problem *problem) {
    struct gallery *gallery = studio->gallery;
    const char *id = request_parameter(request, "id"), *size_text = request_parameter(request, "size");
    const int size = strcmp(size_text, "256") == 0   ? THUMBNAIL_SMALL
                     : strcmp(size_text, "512") == 0 ? THUMBNAIL_LARGE
                                                     : 0;
    char path[GALLERY_PATH], etag[64];
    json_t *row = NULL;
    enum problem_code st = PROBLEM_NONE;
    if (size == 0) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, NULL, "thumbnails have 256 or 512 pixels");
        goto done;
    }
    TRY(find_row(studio, request, id, &row, problem));
    int fd = file_open_below(gallery->cache_fd, thumbnail_path(id, size, path), O_RDONLY);
    if (fd < 0) { /* the cache may be emptied at any time */
        TRY(thumbnail_remake(gallery, id, problem));
        fd = file_open_below(gallery->cache_fd, path, O_RDONLY);
    }
    if (fd < 0) {
        st = problem_system(problem, errno, "the thumbnail");
        goto done;
    }
    (void)snprintf(etag, sizeof etag, "%.40s-%d", json_get_text(row, "sha256"), size);
    st = response_file(response, fd, "image/webp", etag, true, NULL, problem);
done:
    json_decref(row);
    return st;
}

static const struct route rows[] = {
    { "GET", "/images/{id}.{ending}", ACCESS_READ, BODY_NONE, ROUTE_SLOW | ROUTE_UNCOUNTED, send_picture },
    { "GET", "/thumbnails/{id}/{size}.webp", ACCESS_READ, BODY_NONE, ROUTE_UNCOUNTED, send_thumbnail },
};

const struct route_table delivery_routes = { rows, sizeof rows / sizeof rows[0] };
