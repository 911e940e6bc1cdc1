/* gallery: the pictures' files. A picture lies at IMAGES/YYYY/MM/DD/ID.png (the day in UTC that its id names). It is
 * complete and on disk, in IMAGES/.moving, before its row commits, and goes to its place after that. Thumbnails (256 and
 * 512 pixels, WebP) and converted copies lie in the cache and can be made again. Every path is opened below the images
 * or cache folder by one helper (openat2 with RESOLVE_BENEATH or its equal). Threads: locks inside. */
#ifndef SERVER_GALLERY_GALLERY_H
#define SERVER_GALLERY_GALLERY_H

#include "http/http.h"

struct gallery;

/* A picture that is about to be kept. Strings are borrowed; NULL: unknown. */
struct new_picture {
    const char *kind;  /* "generated", "upload" */
    const char *owner; /* a user's id, or NULL */
    const char *job_id;
    int job_index;
    const struct cyi_image *image;
    const char *parameters, *json; /* texts for the file: common/metadata.h */
    const char *model, *model_hash;
    const char *prompt, *prompt_enriched, *prompt_sent, *negative_prompt, *enrichment_id;
    int64_t seed; /* < 0: none */
    int steps;
    double guidance, strength; /* < 0: none */
    int64_t duration_ms;
    const char *engine, *device;
    const char *name;      /* of an uploaded file */
    const json_t *parents; /* [{"id", "role"}…] or NULL */
};

/* What gallery_write has put on disk, for the row. */
struct written_picture {
    char id[40];
    int64_t created_us;
    int64_t size_bytes;
    char sha256[65];
    char blurhash[64];
};

/* images and cache are absolute folders; they are made when missing. */
enum problem_code gallery_start(struct studio *studio, struct gallery **ret_gallery, struct problem *problem);
void gallery_stop(struct gallery *gallery);

/* Writes the file (durable: file and folders synced) and its thumbnails. Errors: NO_SPACE (also below the reserve),
 * INTERNAL. */
enum problem_code gallery_write(struct gallery *gallery, const struct new_picture *picture,
                                struct written_picture *ret_written, struct problem *problem);
/* Adds the row within the caller's transaction, with parents and the audit row "image.added". */
enum problem_code gallery_insert(struct db *db, const struct actor *actor, const struct new_picture *picture,
                                 const struct written_picture *written, struct problem *problem);
/* After the commit: the file goes to its place, and whoever watches is told. */
void gallery_place(struct gallery *gallery, const struct new_picture *picture, const struct written_picture *written);
/* When the transaction failed: removes the files again. */
void gallery_discard(struct gallery *gallery, const struct written_picture *written);

/* Decodes within the limits, strips, keeps as kind "upload" with row, audit and event. Also for pictures that come
 * inside of other requests (base64, forms). The same bytes of the same owner give the id that is there already. Errors:
 * INVALID, TOO_LARGE, NO_SPACE, FORBIDDEN (quota). */
enum problem_code gallery_upload(struct gallery *gallery, const struct actor *actor, const char *owner,
                                 const char *name, const void *data, size_t n, char ret_id[40],
                                 struct problem *problem);
/* The stored PNG of a picture that this caller may see (owner NULL: any). Errors: NOT_FOUND (also: in the trash).
 * free() the data. */
enum problem_code gallery_read(struct gallery *gallery, const char *owner, const char *id, void **ret_data,
                               size_t *ret_n, struct problem *problem);
/* A codec for those who only decode and encode; belongs to the gallery, share freely. */
struct cyi_engine *gallery_codec(struct gallery *gallery);
/* Free bytes of the pictures' disk above the reserve; negative: below it. */
int64_t gallery_room(struct gallery *gallery);
/* FORBIDDEN when n more pictures would go over the owner's quota of pictures or bytes. */
enum problem_code gallery_check_quota(struct gallery *gallery, const char *owner, int n, struct problem *problem);

/* Ids are checked before; "FOLDER/YYYY/MM/DD/ID.png" relative to the images folder. Returns buffer. */
const char *gallery_relative_path(const char *id, char buffer[64]);

/* Now and then: what lay in the trash too long goes for ever, and so do the oldest copies beyond their room. */
void gallery_tidy(struct gallery *gallery);

extern const struct route_table delivery_routes; /* /images/…, /thumbnails/… */
extern const struct route_table listing_routes;  /* lists, details, facets, tags, albums, archives */
extern const struct route_table change_routes;   /* actions, trash, albums, uploads */

#endif
