/* Resizing and cropping of pictures, with Pillow's results (±1 level), and the way pictures enter the VAE. */
#ifndef IO_RESIZE_H
#define IO_RESIZE_H

#include "core/tensor.h"
#include "io/image_file.h"

/* Pillow's LANCZOS (a = 3, support scaled when shrinking, horizontal pass then vertical, 8-bit intermediate with 22-bit fixed-point
 * coefficients). Channels as in the input. Errors: ARGUMENT (sizes), MEMORY. */
enum cyi_status image_resize_lanczos(const struct cyi_allocator *allocator, const struct cyi_image *image, int width,
                                     int height, struct cyi_image **ret_image, struct cyi_error *err);

/* A rectangle of the picture; must lie inside. */
enum cyi_status image_crop(const struct cyi_allocator *allocator, const struct cyi_image *image, int left, int top,
                           int width, int height, struct cyi_image **ret_image, struct cyi_error *err);

/* What diffusers' FLUX.2 pipelines make of a reference picture: refused when a side is below 64 or the aspect above 8; shrunk to an
 * area of max_pixels when larger (LANCZOS); both sides cut down to a multiple of `multiple` from the centre. Grey becomes RGB. */
enum cyi_status image_prepare_reference(const struct cyi_allocator *allocator, const struct cyi_image *image,
                                        int64_t max_pixels, int multiple, struct cyi_image **ret_image,
                                        struct cyi_error *err);

/* diffusers' resize_mode "crop" (img2img): the picture covers width × height (LANCZOS), the rest is cut from the centre. */
enum cyi_status image_cover(const struct cyi_allocator *allocator, const struct cyi_image *image, int width, int height,
                            struct cyi_image **ret_image, struct cyi_error *err);

/* diffusers' mask processor: grey (Pillow's ITU-R 601 luma when RGB), LANCZOS to width × height, 1 where the value is ≥ 0.5, else 0.
 *   ret [height, width] F32 from the arena */
enum cyi_status image_prepare_mask(const struct cyi_allocator *allocator, struct arena *arena,
                                   const struct cyi_image *mask, int width, int height, struct tensor *ret,
                                   struct cyi_error *err);

/* torch.nn.functional.interpolate(mode="bilinear", align_corners=False, no antialias): x [Y, X] F32 → ret [height, width] F32. */
enum cyi_status plane_resize_bilinear(struct arena *arena, const struct tensor *x, int64_t height, int64_t width,
                                      struct tensor *ret, struct cyi_error *err);

#endif
