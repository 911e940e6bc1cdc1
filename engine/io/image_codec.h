/* What the picture formats share inside io/: every codec reads from memory, checks sizes before it allocates, and
 * appends its file to a buffer. Not for other folders: they use image_file.h. */
#ifndef IO_IMAGE_CODEC_H
#define IO_IMAGE_CODEC_H

#include "io/image_file.h"

#define IMAGE_MAX_TEXT_BYTES ((size_t)16 * 1024 * 1024) /* of one text, unpacked */

/* A file in memory. */
struct image_source {
    const char *name; /* for messages */
    const uint8_t *data;
    size_t size_bytes;
};

/* Owner: whoever passes it in; both start as NULL. */
struct image_texts {
    char *parameters, *json; /* UTF-8 */
};

/* FORMAT unless 1 ≤ side ≤ CYI_MAX_IMAGE_SIDE and the product is at most CYI_MAX_IMAGE_PIXELS. */
enum cyi_status image_check_size(const char *name, uint64_t width, uint64_t height, struct cyi_error *err);

/* Pixels as they are stored, always RGB; *ret_orientation is EXIF's 1…8. */
enum cyi_status png_decode(const struct cyi_allocator *allocator, const struct image_source *source,
                           struct cyi_image **ret_image, int *ret_orientation, struct cyi_error *err);
/* The alpha as a grey picture; *ret_alpha stays as it is when there is none. */
enum cyi_status png_decode_alpha(const struct cyi_allocator *allocator, const struct image_source *source,
                                 struct cyi_image **ret_alpha, int *ret_orientation, struct cyi_error *err);
enum cyi_status jpeg_decode(const struct cyi_allocator *allocator, const struct image_source *source,
                            struct cyi_image **ret_image, int *ret_orientation, struct cyi_error *err);
enum cyi_status webp_decode(const struct cyi_allocator *allocator, const struct image_source *source,
                            struct cyi_image **ret_image, int *ret_orientation, struct cyi_error *err);

/* Fills what the file has. Errors: FORMAT, MEMORY; texts may be partly filled then. */
enum cyi_status png_read_texts(const struct cyi_allocator *allocator, const struct image_source *source,
                               struct image_texts *texts, struct cyi_error *err);
enum cyi_status jpeg_read_texts(const struct cyi_allocator *allocator, const struct image_source *source,
                                struct image_texts *texts, struct cyi_error *err);
enum cyi_status webp_read_texts(const struct cyi_allocator *allocator, const struct image_source *source,
                                struct image_texts *texts, struct cyi_error *err);

/* The picture and the options have been checked: 1 or 3 channels, texts in UTF-8, quality 1…100. */
enum cyi_status png_encode(const struct cyi_image *image, const struct cyi_image_options *options,
                           struct byte_buffer *out, struct cyi_error *err);
enum cyi_status jpeg_encode(const struct cyi_image *image, const struct cyi_image_options *options,
                            struct byte_buffer *out, struct cyi_error *err);
enum cyi_status webp_encode(const struct cyi_image *image, const struct cyi_image_options *options,
                            struct byte_buffer *out, struct cyi_error *err);

#endif
