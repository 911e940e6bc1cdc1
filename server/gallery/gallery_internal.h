/* gallery_internal: the parts of gallery/ among themselves. */
#ifndef SERVER_GALLERY_GALLERY_INTERNAL_H
#define SERVER_GALLERY_GALLERY_INTERNAL_H

#include "gallery/gallery.h"
#include "studio.h"

#define GALLERY_PATH 128 /* bytes of a relative path */
#define THUMBNAIL_SMALL 256
#define THUMBNAIL_LARGE 512
#define BLURHASH_SIDE 32                       /* pixels from which a hash is made: it keeps a dozen numbers */
#define CONVERTED_MAX_BYTES (INT64_C(1) << 30) /* of copies in other formats; beyond, the oldest go */

struct gallery {
    struct studio *studio;
    int images_fd, cache_fd; /* the folders */
    struct cyi_engine *codec;
};

/* ---- files.c: below a folder, and nowhere else ---- */

/* Opens a file below folder_fd without following links or leaving it. Returns the descriptor, or -1 with errno. */
int file_open_below(int folder_fd, const char *path, int flags);
/* Reads and closes a picture's file that was just opened; fd < 0: errno says why there is none. free() the data. Errors:
 * NOT_FOUND, TOO_LARGE, INTERNAL. */
enum problem_code file_read(int fd, size_t max_bytes, void **ret_data, size_t *ret_n, struct problem *problem);
/* Writes a file that is there whole or not at all; folders on the way are made. is_durable: on disk when this returns.
 * Errors: NO_SPACE, INTERNAL. */
enum problem_code file_write_below(int folder_fd, const char *path, const void *data, size_t n, bool is_durable,
                                   struct problem *problem);
/* Renames; folders on the way to the new name are made. Returns 0, or -1 with errno. */
int file_move_below(int folder_fd, const char *from, const char *to);
void file_remove_below(int folder_fd, const char *path); /* what is not there is fine */

/* ---- moving.c: on the way in and out ---- */

/* A picture comes in; durable. Errors: NO_SPACE, INTERNAL. */
enum problem_code moving_write(struct gallery *gallery, const char *id, const void *data, size_t n,
                               struct problem *problem);
/* Its row is there: to its place. If that fails it is found where it is, and the next start tries again. */
void moving_settle(struct gallery *gallery, const char *id);
/* Out of its place, before its row goes; then moving_sync, the commit, and picture_remove_files. */
bool moving_take_out(struct gallery *gallery, const char *id);
enum problem_code moving_sync(struct gallery *gallery, struct problem *problem);
void moving_remove(struct gallery *gallery, const char *id);
/* Before anything is served: what an earlier end left unsettled. */
enum problem_code moving_settle_all(struct gallery *gallery, struct problem *problem);
/* Opens a picture's file, wherever it is. Returns -1 with errno when there is none. */
int picture_open(struct gallery *gallery, const char *id);

/* ---- thumbnail.c ---- */

/* A copy with no side longer than max_side, by averaging areas; smaller pictures stay as they are. Errors: INTERNAL. */
enum problem_code thumbnail_scale(struct cyi_engine *codec, const struct cyi_image *image, int max_side,
                                  struct cyi_image **ret_small, struct problem *problem);
/* BlurHash of 4 × 3 components (blurha.sh), at most 32 characters. */
void thumbnail_blurhash(const struct cyi_image *image, char ret_hash[64]);
/* "thumbnails/XY/ID-256.webp" in the cache. Returns buffer. */
const char *thumbnail_path(const char *id, int size, char buffer[GALLERY_PATH]);
/* Writes both into the cache. */
enum problem_code thumbnail_write(struct gallery *gallery, const char *id, const struct cyi_image *image,
                                  struct problem *problem);
/* Makes them anew from the picture's file. */
enum problem_code thumbnail_remake(struct gallery *gallery, const char *id, struct problem *problem);

/* ---- pictures.c ---- */

enum problem_code picture_decode(struct gallery *gallery, const char *id, struct cyi_image **ret_image,
                                 struct problem *problem);
/* What the first 48 bits of a UUIDv7 say, and how far this machine's zone was east of UTC at a time. */
int64_t picture_time_us(const char *id);
int picture_zone_minutes(int64_t time_us);
/* File, thumbnails and copies go; the row is gone already. */
void picture_remove_files(struct gallery *gallery, const char *id);
/* Whose pictures this caller may see: its own, or everybody's (NULL). */
const char *gallery_viewer(const struct request *request);

/* ---- listing.c ---- */

/* Members "url", "thumbnail", "thumbnail_large" of a picture's row. */
void picture_add_links(json_t *image);

/* ---- janitor.c ---- */

/* Rows of these ids go for ever, then their files. */
enum problem_code gallery_purge(struct gallery *gallery, const struct actor *actor, const char *owner,
                                const json_t *ids, struct problem *problem);

/* ---- archive.c ---- */

/* A zip of these pictures (rows with "id" and "name"), while the function runs. */
void archive_stream(struct gallery *gallery, struct response *response, const json_t *rows);

#endif
