/* Resizing and cropping: see resize.h. The arithmetic is Pillow's, so that results are equal bit for bit. */
#include "io/resize.h"

#include <math.h>
#include <string.h>

#include "core/size.h"

#define LANCZOS_SUPPORT 3.0
#define PRECISION_BITS 22 /* of a coefficient; 8 for the sample and 2 for overshoot fill the int */

/* ---- LANCZOS ---- */

static double sinc(double x) {
    if (x == 0.0) {
        return 1.0;
    }
    x *= M_PI;
    return sin(x) / x;
}

static double lanczos(double x) {
    return x >= -LANCZOS_SUPPORT && x < LANCZOS_SUPPORT ? sinc(x) * sinc(x / LANCZOS_SUPPORT) : 0.0;
}

/* For each output position the first input position, how many, and their weights. */
struct kernel {
    int n_outputs, max_taps;
    int *first, *n_taps; /* [n_outputs] */
    int32_t *weights;    /* [n_outputs, max_taps], fixed point */
};

static void kernel_done(const struct cyi_allocator *allocator, struct kernel *kernel) {
    mem_free(allocator, kernel->first);
    mem_free(allocator, kernel->n_taps);
    mem_free(allocator, kernel->weights);
}

/* The weights of one output position; reals: room for max_taps. */
static void fill_weights(struct kernel *kernel, int output, int n_inputs, double scale, double *reals) {
    double stretch = scale < 1.0 ? 1.0 : scale, support = LANCZOS_SUPPORT * stretch, inverse = 1.0 / stretch;
    double centre = (output + 0.5) * scale, sum = 0.0;
    int first = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);
    int32_t *weights = kernel->weights + (size_t)output * (size_t)kernel->max_taps;
    if (first < 0) {
        first = 0;
    }
    if (end > n_inputs) {
        end = n_inputs;
    }
    for (int i = 0; i < end - first; i++) {
        reals[i] = lanczos((i + first - centre + 0.5) * inverse);
        sum += reals[i];
    }
    for (int i = 0; i < end - first; i++) {
        double weight = (sum != 0.0 ? reals[i] / sum : reals[i]) * (1 << PRECISION_BITS);
        weights[i] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    kernel->first[output] = first;
    kernel->n_taps[output] = end - first;
}

/* On failure the kernel must be released all the same. */
static enum cyi_status kernel_init(const struct cyi_allocator *allocator, int n_inputs, int n_outputs,
                                   struct kernel *kernel, struct cyi_error *err) {
    double scale = (double)n_inputs / n_outputs;
    int max_taps = (int)ceil(LANCZOS_SUPPORT * (scale < 1.0 ? 1.0 : scale)) * 2 + 1;
    size_t n = (size_t)n_outputs;
    *kernel = (struct kernel){ .n_outputs = n_outputs, .max_taps = max_taps };
    kernel->first = mem_alloc_zeroed(allocator, n, sizeof *kernel->first);
    kernel->n_taps = mem_alloc_zeroed(allocator, n, sizeof *kernel->n_taps);
    kernel->weights = mem_alloc_zeroed(allocator, n * (size_t)max_taps, sizeof *kernel->weights);
    double *reals = mem_alloc_zeroed(allocator, (size_t)max_taps, sizeof *reals);
    enum cyi_status st = CYI_OK;
    if (kernel->first == NULL || kernel->n_taps == NULL || kernel->weights == NULL || reals == NULL) {
        st = error_memory(err, "resizing a picture", n * (size_t)max_taps * sizeof *kernel->weights);
    } else {
        for (int i = 0; i < n_outputs; i++) {
            fill_weights(kernel, i, n_inputs, scale, reals);
        }
    }
    mem_free(allocator, reals);
    return st;
}

static uint8_t clip_sum(int32_t sum) {
    int32_t value = sum >> PRECISION_BITS;
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

/* to: as wide as the kernel has outputs, as high as from. */
static void resize_rows(const struct kernel *kernel, const struct cyi_image *from, struct cyi_image *to) {
    int n_channels = from->n_channels;
    uint8_t *out = to->pixels;
    for (int y = 0; y < to->height; y++) {
        const uint8_t *row = from->pixels + (size_t)y * (size_t)from->width * (size_t)n_channels;
        for (int x = 0; x < to->width; x++) {
            const int32_t *weights = kernel->weights + (size_t)x * (size_t)kernel->max_taps;
            const uint8_t *in = row + (size_t)kernel->first[x] * (size_t)n_channels;
            for (int c = 0; c < n_channels; c++) {
                int32_t sum = 1 << (PRECISION_BITS - 1);
                for (int i = 0; i < kernel->n_taps[x]; i++) {
                    sum += in[i * n_channels + c] * weights[i];
                }
                *out++ = clip_sum(sum);
            }
        }
    }
}

/* sums: [width × channels]. Row by row, so that memory is read in its order. */
static void resize_columns(const struct kernel *kernel, const struct cyi_image *from, struct cyi_image *to,
                           int32_t *sums) {
    size_t n = (size_t)from->width * (size_t)from->n_channels;
    uint8_t *out = to->pixels;
    for (int y = 0; y < to->height; y++, out += n) {
        const int32_t *weights = kernel->weights + (size_t)y * (size_t)kernel->max_taps;
        const uint8_t *in = from->pixels + (size_t)kernel->first[y] * n;
        for (size_t x = 0; x < n; x++) {
            sums[x] = 1 << (PRECISION_BITS - 1);
        }
        for (int i = 0; i < kernel->n_taps[y]; i++, in += n) {
            for (size_t x = 0; x < n; x++) {
                sums[x] += in[x] * weights[i];
            }
        }
        for (size_t x = 0; x < n; x++) {
            out[x] = clip_sum(sums[x]);
        }
    }
}

static enum cyi_status resize_width(const struct cyi_allocator *allocator, const struct cyi_image *image, int width,
                                    struct cyi_image **ret_image, struct cyi_error *err) {
    struct kernel kernel;
    struct cyi_image *out = NULL;
    enum cyi_status st = CYI_OK;
    TRY(kernel_init(allocator, image->width, width, &kernel, err));
    TRY(image_create(allocator, width, image->height, image->n_channels, &out, err));
    resize_rows(&kernel, image, out);
    *ret_image = out;
done:
    kernel_done(allocator, &kernel);
    return st;
}

static enum cyi_status resize_height(const struct cyi_allocator *allocator, const struct cyi_image *image, int height,
                                     struct cyi_image **ret_image, struct cyi_error *err) {
    struct kernel kernel;
    struct cyi_image *out = NULL;
    int32_t *sums = NULL;
    size_t n = (size_t)image->width * (size_t)image->n_channels;
    enum cyi_status st = CYI_OK;
    TRY(kernel_init(allocator, image->height, height, &kernel, err));
    sums = mem_alloc_zeroed(allocator, n, sizeof *sums);
    if (sums == NULL) {
        st = error_memory(err, "resizing a picture", n * sizeof *sums);
        goto done;
    }
    TRY(image_create(allocator, image->width, height, image->n_channels, &out, err));
    resize_columns(&kernel, image, out, sums);
    *ret_image = out;
done:
    mem_free(allocator, sums);
    kernel_done(allocator, &kernel);
    return st;
}

enum cyi_status image_resize_lanczos(const struct cyi_allocator *allocator, const struct cyi_image *image, int width,
                                     int height, struct cyi_image **ret_image, struct cyi_error *err) {
    struct cyi_image *narrow = NULL, *out = NULL;
    enum cyi_status st = CYI_OK;
    if (width < 1 || height < 1 || width > CYI_MAX_IMAGE_SIDE || height > CYI_MAX_IMAGE_SIDE) {
        return error_set(err, CYI_E_ARGUMENT, "a picture cannot be resized to %d × %d", width, height);
    }
    if (width == image->width && height == image->height) {
        return image_crop(allocator, image, 0, 0, width, height, ret_image, err);
    }
    if (width != image->width) {
        TRY(resize_width(allocator, image, width, height != image->height ? &narrow : &out, err));
    }
    if (height != image->height) {
        TRY(resize_height(allocator, narrow != NULL ? narrow : image, height, &out, err));
    }
    *ret_image = out;
done:
    cyi_image_free(narrow);
    return st;
}

/* ---- Cropping ---- */

enum cyi_status image_crop(const struct cyi_allocator *allocator, const struct cyi_image *image, int left, int top,
                           int width, int height, struct cyi_image **ret_image, struct cyi_error *err) {
    struct cyi_image *out = NULL;
    if (left < 0 || top < 0 || width < 1 || height < 1 || width > image->width - left || height > image->height - top) {
        return error_set(err, CYI_E_ARGUMENT, "the rectangle %d × %d at %d, %d is not inside a picture of %d × %d",
                         width, height, left, top, image->width, image->height);
    }
    enum cyi_status st = image_create(allocator, width, height, image->n_channels, &out, err);
    if (st != CYI_OK) {
        return st;
    }
    size_t n_channels = (size_t)image->n_channels, row_bytes = (size_t)width * n_channels;
    for (int y = 0; y < height; y++) {
        size_t from = ((size_t)(top + y) * (size_t)image->width + (size_t)left) * n_channels;
        memcpy(out->pixels + (size_t)y * row_bytes, image->pixels + from, row_bytes);
    }
    *ret_image = out;
    return CYI_OK;
}

/* ---- As models want them ---- */

static enum cyi_status check_reference(const struct cyi_image *image, int64_t max_pixels, int multiple,
                                       struct cyi_error *err) {
    int width = image->width, height = image->height;
    if (max_pixels < 1 || multiple < 1) {
        return error_set(err, CYI_E_ARGUMENT, "a reference picture cannot be cut to a multiple of %d and %lld pixels",
                         multiple, (long long)max_pixels);
    }
    if (width < CYI_MIN_REFERENCE_SIDE || height < CYI_MIN_REFERENCE_SIDE) {
        return error_set(err, CYI_E_ARGUMENT,
                         "the reference picture is too small: %d × %d, both sides must be at least %d", width, height,
                         CYI_MIN_REFERENCE_SIDE);
    }
    if (width > CYI_MAX_REFERENCE_ASPECT * height || height > CYI_MAX_REFERENCE_ASPECT * width) {
        return error_set(err, CYI_E_ARGUMENT,
                         "the reference picture is too long: %d × %d, one side may be %d times the other", width,
                         height, CYI_MAX_REFERENCE_ASPECT);
    }
    return CYI_OK;
}

static enum cyi_status copy_as_rgb(const struct cyi_allocator *allocator, const struct cyi_image *image,
                                   struct cyi_image **ret_image, struct cyi_error *err) {
    struct cyi_image *out = NULL;
    enum cyi_status st = image_create(allocator, image->width, image->height, 3, &out, err);
    if (st == CYI_OK) {
        size_t n = (size_t)image->width * (size_t)image->height;
        for (size_t i = 0; i < n; i++) {
            memset(out->pixels + 3 * i, image->pixels[i], 3);
        }
        *ret_image = out;
    }
    return st;
}

enum cyi_status image_prepare_reference(const struct cyi_allocator *allocator, const struct cyi_image *image,
                                        int64_t max_pixels, int multiple, struct cyi_image **ret_image,
                                        struct cyi_error *err) {
    struct cyi_image *small = NULL, *cut = NULL;
    enum cyi_status st = CYI_OK;
    TRY(check_reference(image, max_pixels, multiple, err));
    int width = image->width, height = image->height;
    if ((int64_t)width * height > max_pixels) {
        double scale = sqrt((double)max_pixels / (double)((int64_t)width * height));
        width = (int)(width * scale);
        height = (int)(height * scale);
        TRY(image_resize_lanczos(allocator, image, width, height, &small, err));
        image = small;
    }
    int cut_width = width / multiple * multiple, cut_height = height / multiple * multiple;
    TRY(image_crop(allocator, image, (width - cut_width) / 2, (height - cut_height) / 2, cut_width, cut_height, &cut,
                   err));
    if (cut->n_channels == 1) {
        TRY(copy_as_rgb(allocator, cut, ret_image, err));
    } else {
        *ret_image = cut;
        cut = NULL;
    }
done:
    cyi_image_free(small);
    cyi_image_free(cut);
    return st;
}

enum cyi_status image_cover(const struct cyi_allocator *allocator, const struct cyi_image *image, int width, int height,
                            struct cyi_image **ret_image, struct cyi_error *err) {
    struct cyi_image *large = NULL;
    enum cyi_status st = CYI_OK;
    if (width < 1 || height < 1 || width > CYI_MAX_IMAGE_SIDE || height > CYI_MAX_IMAGE_SIDE) {
        return error_set(err, CYI_E_ARGUMENT, "a picture cannot be resized to %d × %d", width, height);
    }
    int64_t from_width = image->width, from_height = image->height, cover_width = width, cover_height = height;
    if (width * from_height > height * from_width) {
        cover_height = from_height * width / from_width;
    } else {
        cover_width = from_width * height / from_height;
    }
    if (cover_width > CYI_MAX_IMAGE_SIDE || cover_height > CYI_MAX_IMAGE_SIDE) {
        return error_set(err, CYI_E_ARGUMENT, "a picture of %d × %d is too long to cover %d × %d", image->width,
                         image->height, width, height);
    }
    TRY(image_resize_lanczos(allocator, image, (int)cover_width, (int)cover_height, &large, err));
    int left = large->width / 2 - width / 2, top = large->height / 2 - height / 2;
    TRY(image_crop(allocator, large, left, top, width, height, ret_image, err));
done:
    cyi_image_free(large);
    return st;
}

/* ITU-R 601 in fixed point. */
static int luma(const uint8_t *rgb) {
    return (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16;
}

enum cyi_status image_prepare_mask(const struct cyi_allocator *allocator, struct arena *arena,
                                   const struct cyi_image *mask, int width, int height, struct tensor *ret,
                                   struct cyi_error *err) {
    struct cyi_image *resized = NULL;
    struct tensor plane;
    enum cyi_status st = CYI_OK;
    TRY(image_resize_lanczos(allocator, mask, width, height, &resized, err));
    TRY(tensor_new_2d(arena, DTYPE_F32, height, width, &plane, err));
    float *values = plane.data;
    size_t n = (size_t)width * (size_t)height;
    for (size_t i = 0; i < n; i++) {
        int value = resized->n_channels == 3 ? luma(resized->pixels + 3 * i) : resized->pixels[i];
        values[i] = value >= 128 ? 1.0f : 0.0f; /* value / 255 ≥ 0.5 */
    }
    *ret = plane;
done:
    cyi_image_free(resized);
    return st;
}

/* ---- Planes of floats ---- */

/* Where an output position lies between two inputs: share is what the second one contributes. */
struct between {
    int64_t first, second;
    float share;
};

static struct between place(int64_t output, float scale, int64_t n_inputs) {
    float at = scale * ((float)output + 0.5f) - 0.5f;
    if (at < 0.0f) {
        at = 0.0f;
    }
    int64_t first = (int64_t)at;
    if (first > n_inputs - 1) {
        first = n_inputs - 1;
    }
    return (struct between){ first, first < n_inputs - 1 ? first + 1 : first, at - (float)first };
}

enum cyi_status plane_resize_bilinear(struct arena *arena, const struct tensor *x, int64_t height, int64_t width,
                                      struct tensor *ret, struct cyi_error *err) {
    if (x->dtype != DTYPE_F32 || x->rank != 2 || height < 1 || width < 1) {
        char text[64];
        return error_set(err, CYI_E_ARGUMENT, "%s cannot be resized to [%lld, %lld]",
                         tensor_describe(x, text, sizeof text), (long long)height, (long long)width);
    }
    struct tensor out;
    enum cyi_status st = tensor_new_2d(arena, DTYPE_F32, height, width, &out, err);
    if (st != CYI_OK) {
        return st;
    }
    float scale_y = (float)x->shape[0] / (float)height, scale_x = (float)x->shape[1] / (float)width;
    for (int64_t row = 0; row < height; row++) {
        struct between y = place(row, scale_y, x->shape[0]);
        const float *upper = tensor_row(x, y.first), *lower = tensor_row(x, y.second);
        float *to = tensor_row(&out, row);
        for (int64_t col = 0; col < width; col++) {
            struct between at = place(col, scale_x, x->shape[1]);
            float above = (1.0f - at.share) * upper[at.first] + at.share * upper[at.second];
            float below = (1.0f - at.share) * lower[at.first] + at.share * lower[at.second];
            to[col] = (1.0f - y.share) * above + y.share * below;
        }
    }
    *ret = out;
    return CYI_OK;
}
