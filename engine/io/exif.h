/* EXIF: the little TIFF file that travels inside PNG, JPEG and WebP. Read: orientation and the two texts. Written: the
 * two texts. A block that breaks the format's rules counts as empty where its rules are broken: pictures open anyway.
 */
#ifndef IO_EXIF_H
#define IO_EXIF_H

#include "io/image_codec.h"

/* data: with or without the "Exif\0\0" in front. */
int exif_get_orientation(const uint8_t *data, size_t size_bytes); /* 1…8; 1 when absent or broken */

/* UserComment becomes texts->parameters, an ImageDescription that looks like a JSON object becomes texts->json; texts
 * that are there already stay. Errors: MEMORY. */
enum cyi_status exif_read_texts(const struct cyi_allocator *allocator, const uint8_t *data, size_t size_bytes,
                                struct image_texts *texts, struct cyi_error *err);

/* Appends a TIFF block (without "Exif\0\0") with the texts that are not NULL. Errors: MEMORY, ARGUMENT when it would
 * pass the buffer's maximum. */
enum cyi_status exif_write_texts(struct byte_buffer *out, const char *parameters, const char *json,
                                 struct cyi_error *err);

#endif
