/* Picture files: PNG (libspng), JPEG (TurboJPEG), WebP (libwebp), in and out, with the texts that travel in them.
 * Functions take an allocator, not an engine; the public cyi_image_* calls are thin wrappers around them in pipeline/. */
#ifndef IO_IMAGE_FILE_H
#define IO_IMAGE_FILE_H

#include "core/memory.h"

enum cyi_status image_create(const struct cyi_allocator *allocator, int width, int height, int n_channels,
                             struct cyi_image **ret_image, struct cyi_error *err);
/* image_create's pictures remember their allocator; cyi_image_free(image) is the way to free them. */

/* Type by content. Sizes are read and checked before pixels are allocated. name is for messages. The picture is always RGB, also
 * when the file is grey.
 * Animations and pictures over CYI_MAX_IMAGE_SIDE / _PIXELS are refused. Errors: FORMAT, MEMORY. */
enum cyi_status image_decode(const struct cyi_allocator *allocator, const char *name, const void *data,
                             size_t size_bytes, struct cyi_image **ret_image, struct cyi_error *err);
/* The alpha of a PNG file as a grey picture, upright as image_decode's; *ret_alpha is NULL when it has none, and for other types. */
enum cyi_status image_decode_alpha(const struct cyi_allocator *allocator, const char *name, const void *data,
                                   size_t size_bytes, struct cyi_image **ret_alpha, struct cyi_error *err);
enum cyi_status image_load(const struct cyi_allocator *allocator, const char *path, struct cyi_image **ret_image,
                           struct cyi_error *err);

/* The texts of a file: A1111 "parameters" (PNG tEXt/iTXt/zTXt, EXIF UserComment in JPEG and WebP) and our JSON (PNG iTXt "cyberimage",
 * XMP-free: EXIF ImageDescription in JPEG and WebP). Absent: NULL. Released with mem_free. */
enum cyi_status image_read_texts(const struct cyi_allocator *allocator, const char *name, const void *data,
                                 size_t size_bytes, char **ret_parameters, char **ret_json, struct cyi_error *err);

/* options->format must not be BY_NAME. *ret_data is released with mem_free. */
enum cyi_status image_encode(const struct cyi_allocator *allocator, const struct cyi_image *image,
                             const struct cyi_image_options *options, void **ret_data, size_t *ret_size_bytes,
                             struct cyi_error *err);
/* options may be NULL; resolves BY_NAME from the path's ending; written by file_write_atomically. */
enum cyi_status image_save(const struct cyi_allocator *allocator, const struct cyi_image *image, const char *path,
                           const struct cyi_image_options *options, struct cyi_error *err);
/* By ending; BY_NAME when the ending is unknown. */
enum cyi_image_format image_format_of_path(const char *path);

#endif
