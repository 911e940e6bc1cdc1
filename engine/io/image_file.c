/* Picture files: see image_file.h. Here is what the formats have in common: the picture's memory, which codec a file
 * needs, turning by EXIF orientation, checks of options. The codecs are png.c, jpeg.c and webp.c behind image_codec.h.
 */
#include "io/image_file.h"

#include <string.h>
#include <strings.h>

#include "core/size.h"
#include "io/charset.h"
#include "io/image_codec.h"
#include "io/mapped_file.h"

#define DEFAULT_QUALITY 92

/* ---- The picture's memory ---- */

/* A picture in one block: what the caller sees, who gave the memory, then the pixels. */
struct owned_image {
    struct cyi_image image;
    struct cyi_allocator allocator;
    uint8_t pixels[];
};

enum cyi_status image_check_size(const char *name, uint64_t width, uint64_t height, struct cyi_error *err) {
    if (width < 1 || height < 1 || width > CYI_MAX_IMAGE_SIDE || height > CYI_MAX_IMAGE_SIDE) {
        return error_set(err, CYI_E_FORMAT, "%s: a picture of %llu × %llu pixels; sides must be 1 to %d", name,
                         (unsigned long long)width, (unsigned long long)height, CYI_MAX_IMAGE_SIDE);
    }
    if (width * height > CYI_MAX_IMAGE_PIXELS) {
        return error_set(err, CYI_E_FORMAT, "%s: a picture of %llu × %llu pixels; at most %d million are allowed", name,
                         (unsigned long long)width, (unsigned long long)height, CYI_MAX_IMAGE_PIXELS / (1024 * 1024));
    }
    return CYI_OK;
}

enum cyi_status image_create(const struct cyi_allocator *allocator, int width, int height, int n_channels,
                             struct cyi_image **ret_image, struct cyi_error *err) {
    struct cyi_error why = { 0 };
    if (width < 1 || height < 1 || image_check_size("new picture", (uint64_t)width, (uint64_t)height, &why) != CYI_OK) {
        return error_set(err, CYI_E_ARGUMENT,
                         "a picture of %d × %d pixels cannot be: sides must be 1 to %d, pixels at most %d", width,
                         height, CYI_MAX_IMAGE_SIDE, CYI_MAX_IMAGE_PIXELS);
    }
    if (n_channels != 1 && n_channels != 3) {
        return error_set(err, CYI_E_ARGUMENT, "a picture has 1 or 3 channels, not %d", n_channels);
    }
    size_t size;
    if (!size_mul3(&size, (size_t)width, (size_t)height, (size_t)n_channels) ||
        !size_add(&size, size, sizeof(struct owned_image))) {
        return error_memory(err, "a picture", SIZE_MAX);
    }
    struct owned_image *owned = mem_alloc_zeroed(allocator, 1, size);
    if (owned == NULL) {
        return error_memory(err, "a picture", size);
    }
    owned->allocator = *allocator;
    owned->image =
        (struct cyi_image){ .width = width, .height = height, .n_channels = n_channels, .pixels = owned->pixels };
    *ret_image = &owned->image;
    return CYI_OK;
}

void cyi_image_free(struct cyi_image *image) {
    if (image != NULL) {
        struct owned_image *owned = (struct owned_image *)image; /* its first member */
        struct cyi_allocator allocator = owned->allocator;
        mem_free(&allocator, owned);
    }
}

/* ---- Formats ---- */

typedef enum cyi_status (*decode_fn)(const struct cyi_allocator *allocator, const struct image_source *source,
                                     struct cyi_image **ret_image, int *ret_orientation, struct cyi_error *err);
typedef enum cyi_status (*read_texts_fn)(const struct cyi_allocator *allocator, const struct image_source *source,
                                         struct image_texts *texts, struct cyi_error *err);
typedef enum cyi_status (*encode_fn)(const struct cyi_image *image, const struct cyi_image_options *options,
                                     struct byte_buffer *out, struct cyi_error *err);

struct codec {
    decode_fn decode;
    decode_fn decode_alpha; /* NULL: none is looked for */
    read_texts_fn read_texts;
    encode_fn encode;
};

static const struct codec codecs[] = {
    [CYI_FORMAT_PNG] = { png_decode, png_decode_alpha, png_read_texts, png_encode },
    [CYI_FORMAT_JPEG] = { jpeg_decode, NULL, jpeg_read_texts, jpeg_encode },
    [CYI_FORMAT_WEBP] = { webp_decode, NULL, webp_read_texts, webp_encode },
};

static bool starts_with(const struct image_source *source, size_t offset, const char *bytes, size_t n) {
    return source->size_bytes >= offset + n && memcmp(source->data + offset, bytes, n) == 0;
}

static enum cyi_status find_codec(const struct image_source *source, const struct codec **ret_codec,
                                  struct cyi_error *err) {
    enum cyi_image_format format;
    if (source->size_bytes > CYI_MAX_IMAGE_FILE_BYTES) {
        return error_set(err, CYI_E_FORMAT, "%s: a picture file of %zu bytes; at most %zu are allowed", source->name,
                         source->size_bytes, CYI_MAX_IMAGE_FILE_BYTES);
    }
    if (starts_with(source, 0, "\x89PNG\r\n\x1a\n", 8)) {
        format = CYI_FORMAT_PNG;
    } else if (starts_with(source, 0, "\xff\xd8\xff", 3)) {
        format = CYI_FORMAT_JPEG;
    } else if (starts_with(source, 0, "RIFF", 4) && starts_with(source, 8, "WEBP", 4)) {
        format = CYI_FORMAT_WEBP;
    } else {
        return error_set(err, CYI_E_FORMAT, "%s: neither PNG, JPEG nor WebP", source->name);
    }
    *ret_codec = &codecs[format];
    return CYI_OK;
}

enum cyi_image_format image_format_of_path(const char *path) {
    static const struct {
        const char *ending;
        enum cyi_image_format format;
    } endings[] = {
        { ".png", CYI_FORMAT_PNG },
        { ".jpg", CYI_FORMAT_JPEG },
        { ".jpeg", CYI_FORMAT_JPEG },
        { ".webp", CYI_FORMAT_WEBP },
    };
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t n_ending = strlen(endings[i].ending);
        if (n > n_ending && strcasecmp(path + n - n_ending, endings[i].ending) == 0) {
            return endings[i].format;
        }
    }
    return CYI_FORMAT_BY_NAME;
}

/* ---- Reading ---- */

/* EXIF: what the stored picture needs so that it stands upright. Bit 0: mirrored left-right, bit 1: upside down, bit 2:
 * rows and columns are exchanged first. */
static const uint8_t turns[9] = { 0, 0, 1, 3, 2, 4, 5, 7, 6 };

static enum cyi_status turn_upright(const struct cyi_allocator *allocator, struct cyi_image **image, int orientation,
                                    struct cyi_error *err) {
    const struct cyi_image *from = *image;
    unsigned turn = turns[orientation];
    if (turn == 0) {
        return CYI_OK;
    }
    bool is_exchanged = (turn & 4) != 0;
    struct cyi_image *to = NULL;
    enum cyi_status st = image_create(allocator, is_exchanged ? from->height : from->width,
                                      is_exchanged ? from->width : from->height, from->n_channels, &to, err);
    if (st != CYI_OK) {
        return st;
    }
    ptrdiff_t n_channels = from->n_channels;
    ptrdiff_t step_x =
        is_exchanged ? (ptrdiff_t)from->width * n_channels : n_channels; /* in `from`, for one step right in `to` */
    ptrdiff_t step_y = is_exchanged ? n_channels : (ptrdiff_t)from->width * n_channels;
    uint8_t *out = to->pixels;
    for (int y = 0; y < to->height; y++) {
        ptrdiff_t row = ((turn & 2) != 0 ? to->height - 1 - y : y) * step_y;
        for (int x = 0; x < to->width; x++) {
            memcpy(out, from->pixels + row + ((turn & 1) != 0 ? to->width - 1 - x : x) * step_x, (size_t)n_channels);
            out += n_channels;
        }
    }
    cyi_image_free(*image);
    *image = to;
    return CYI_OK;
}

enum cyi_status image_decode(const struct cyi_allocator *allocator, const char *name, const void *data,
                             size_t size_bytes, struct cyi_image **ret_image, struct cyi_error *err) {
    struct image_source source = { name, data, size_bytes };
    const struct codec *codec = NULL;
    struct cyi_image *image = NULL;
    int orientation = 1;
    enum cyi_status st = CYI_OK;
    TRY(find_codec(&source, &codec, err));
    TRY(codec->decode(allocator, &source, &image, &orientation, err));
    TRY(turn_upright(allocator, &image, orientation, err));
    *ret_image = image;
    image = NULL;
done:
    cyi_image_free(image);
    return st;
}

enum cyi_status image_decode_alpha(const struct cyi_allocator *allocator, const char *name, const void *data,
                                   size_t size_bytes, struct cyi_image **ret_alpha, struct cyi_error *err) {
    struct image_source source = { name, data, size_bytes };
    const struct codec *codec = NULL;
    struct cyi_image *alpha = NULL;
    int orientation = 1;
    enum cyi_status st = CYI_OK;
    TRY(find_codec(&source, &codec, err));
    if (codec->decode_alpha != NULL) {
        TRY(codec->decode_alpha(allocator, &source, &alpha, &orientation, err));
    }
    if (alpha != NULL) {
        TRY(turn_upright(allocator, &alpha, orientation, err));
    }
    *ret_alpha = alpha;
    alpha = NULL;
done:
    cyi_image_free(alpha);
    return st;
}

enum cyi_status image_load(const struct cyi_allocator *allocator, const char *path, struct cyi_image **ret_image,
                           struct cyi_error *err) {
    char *data = NULL;
    size_t size_bytes = 0;
    enum cyi_status st = CYI_OK;
    TRY(file_read_all(allocator, path, CYI_MAX_IMAGE_FILE_BYTES, &data, &size_bytes, err));
    TRY(image_decode(allocator, path, data, size_bytes, ret_image, err));
done:
    mem_free(allocator, data);
    return st;
}

enum cyi_status image_read_texts(const struct cyi_allocator *allocator, const char *name, const void *data,
                                 size_t size_bytes, char **ret_parameters, char **ret_json, struct cyi_error *err) {
    struct image_source source = { name, data, size_bytes };
    struct image_texts texts = { NULL, NULL };
    const struct codec *codec = NULL;
    enum cyi_status st = CYI_OK;
    TRY(find_codec(&source, &codec, err));
    TRY(codec->read_texts(allocator, &source, &texts, err));
    *ret_parameters = texts.parameters;
    *ret_json = texts.json;
    texts = (struct image_texts){ NULL, NULL };
done:
    mem_free(allocator, texts.parameters);
    mem_free(allocator, texts.json);
    return st;
}

/* ---- Writing ---- */

static enum cyi_status check_text(const char *what, const char *text, struct cyi_error *err) {
    size_t n = text != NULL ? strlen(text) : 0;
    if (n > IMAGE_MAX_TEXT_BYTES) {
        return error_set(err, CYI_E_ARGUMENT, "the %s text has %zu bytes; a picture file takes at most %zu", what, n,
                         IMAGE_MAX_TEXT_BYTES);
    }
    if (n > 0 && !charset_is_utf8(text, n)) {
        return error_set(err, CYI_E_ARGUMENT, "the %s text is not valid UTF-8", what);
    }
    return CYI_OK;
}

static enum cyi_status check_encode(const struct cyi_image *image, const struct cyi_image_options *options,
                                    struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    if (image->pixels == NULL || image->width < 1 || image->height < 1 || image->width > CYI_MAX_IMAGE_SIDE ||
        image->height > CYI_MAX_IMAGE_SIDE || (int64_t)image->width * image->height > CYI_MAX_IMAGE_PIXELS ||
        (image->n_channels != 1 && image->n_channels != 3)) {
        return error_set(err, CYI_E_ARGUMENT, "a picture of %d × %d pixels and %d channels cannot be written",
                         image->width, image->height, image->n_channels);
    }
    if (options->quality < 0 || options->quality > 100) {
        return error_set(err, CYI_E_ARGUMENT, "quality must be 1 to 100, or 0 for the default, not %d",
                         options->quality);
    }
    if (options->format != CYI_FORMAT_PNG && options->format != CYI_FORMAT_JPEG && options->format != CYI_FORMAT_WEBP) {
        return error_set(err, CYI_E_ARGUMENT, "unknown picture format %d", (int)options->format);
    }
    TRY(check_text("parameters", options->parameters, err));
    TRY(check_text("settings", options->json, err));
done:
    return st;
}

enum cyi_status image_encode(const struct cyi_allocator *allocator, const struct cyi_image *image,
                             const struct cyi_image_options *options, void **ret_data, size_t *ret_size_bytes,
                             struct cyi_error *err) {
    struct cyi_image_options filled = *options;
    struct byte_buffer out;
    enum cyi_status st = CYI_OK;
    byte_buffer_init(&out, allocator, SIZE_MAX / 2);
    TRY(check_encode(image, options, err));
    if (filled.quality == 0) {
        filled.quality = DEFAULT_QUALITY;
    }
    TRY(codecs[filled.format].encode(image, &filled, &out, err));
    *ret_data = out.data;
    *ret_size_bytes = out.size_bytes;
    out.data = NULL;
done:
    byte_buffer_done(&out);
    return st;
}

enum cyi_status image_save(const struct cyi_allocator *allocator, const struct cyi_image *image, const char *path,
                           const struct cyi_image_options *options, struct cyi_error *err) {
    struct cyi_image_options filled = options != NULL ? *options : (struct cyi_image_options){ 0 };
    void *data = NULL;
    size_t size_bytes = 0;
    enum cyi_status st = CYI_OK;
    if (filled.format == CYI_FORMAT_BY_NAME) {
        filled.format = image_format_of_path(path);
    }
    if (filled.format == CYI_FORMAT_BY_NAME) {
        return error_set(err, CYI_E_ARGUMENT, "%s: the ending says no picture format (.png, .jpg, .jpeg, .webp)", path);
    }
    TRY(image_encode(allocator, image, &filled, &data, &size_bytes, err));
    TRY(file_write_atomically(allocator, path, data, size_bytes, err));
done:
    mem_free(allocator, data);
    return st;
}
