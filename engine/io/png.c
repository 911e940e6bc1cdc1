/* PNG by libspng. The chunk list is walked here first: it says the size, animations are refused, and the file must be
 * complete to its end; texts and EXIF are read from that walk, so that no more of them is unpacked than wanted. */
#include <spng.h>
#include <string.h>
#include <zlib.h>

#include "core/size.h"
#include "io/charset.h"
#include "io/exif.h"

#define SIGNATURE_BYTES 8
#define MAX_ANCILLARY_BYTES ((size_t)32 * 1024 * 1024) /* of one chunk, unpacked, inside libspng */
#define MAX_CACHED_BYTES ((size_t)64 * 1024 * 1024)    /* of all chunks that libspng keeps */
#define KEYWORD_PARAMETERS "parameters"
#define KEYWORD_JSON "cyberimage"
/* A photograph of 1024 × 1024: 0.15 s for 1.58 MB, where zlib's usual level 6 takes 0.54 s for 1.47 MB. */
#define COMPRESSION_LEVEL 3

/* ---- Chunks ---- */

struct chunk {
    const uint8_t *type; /* four letters */
    const uint8_t *data;
    size_t size_bytes;
};

static uint32_t read_u32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool has_type(const struct chunk *chunk, const char *type) {
    return memcmp(chunk->type, type, 4) == 0;
}

/* The chunk at *offset, which moves behind it. */
static enum cyi_status next_chunk(const struct image_source *source, size_t *offset, struct chunk *ret_chunk,
                                  struct cyi_error *err) {
    size_t left = source->size_bytes - *offset;
    if (left < 12) {
        return error_set(err, CYI_E_FORMAT, "%s: the PNG file ends after %zu bytes, before its last chunk (truncated?)",
                         source->name, source->size_bytes);
    }
    const uint8_t *at = source->data + *offset;
    size_t size = read_u32(at);
    if (size > left - 12) {
        return error_set(err, CYI_E_FORMAT,
                         "%s: a PNG chunk at byte %zu has %zu bytes, the file only %zu more (truncated?)", source->name,
                         *offset, size, left - 12);
    }
    *ret_chunk = (struct chunk){ .type = at + 4, .data = at + 8, .size_bytes = size };
    *offset += size + 12;
    return CYI_OK;
}

/* Ancillary chunks with a wrong checksum are passed over, as libspng does with its own. */
static bool is_intact(const struct chunk *chunk) {
    return crc32(crc32(0, NULL, 0), chunk->type, (uInt)chunk->size_bytes + 4) ==
           read_u32(chunk->data + chunk->size_bytes);
}

/* Walks all chunks: size, animation, end. *ret_exif is the first intact eXIf chunk, its data NULL when there is none.
 */
static enum cyi_status check_chunks(const struct image_source *source, int *ret_width, int *ret_height,
                                    struct chunk *ret_exif, struct cyi_error *err) {
    size_t offset = SIGNATURE_BYTES;
    struct chunk chunk = { 0 }, exif = { 0 };
    enum cyi_status st = CYI_OK;
    TRY(next_chunk(source, &offset, &chunk, err));
    if (!has_type(&chunk, "IHDR") || chunk.size_bytes != 13) {
        return error_set(err, CYI_E_FORMAT, "%s: the PNG file does not begin with a header chunk", source->name);
    }
    uint32_t width = read_u32(chunk.data), height = read_u32(chunk.data + 4);
    TRY(image_check_size(source->name, width, height, err));
    while (!has_type(&chunk, "IEND")) {
        TRY(next_chunk(source, &offset, &chunk, err));
        if (has_type(&chunk, "acTL") && (chunk.size_bytes < 4 || read_u32(chunk.data) != 1)) {
            return error_set(err, CYI_E_FORMAT, "%s: an animated PNG; only still pictures can be read", source->name);
        }
        if (has_type(&chunk, "eXIf") && exif.data == NULL && is_intact(&chunk)) {
            exif = chunk;
        }
    }
    *ret_width = (int)width;
    *ret_height = (int)height;
    *ret_exif = exif;
done:
    return st;
}

/* ---- Pixels ---- */

static enum cyi_status spng_check(const char *name, int code, struct cyi_error *err) {
    if (code == SPNG_OK) {
        return CYI_OK;
    }
    if (code == SPNG_EMEM) {
        return error_set(err, CYI_E_MEMORY, "out of memory: the PNG library, for %s", name);
    }
    return error_set(err, CYI_E_FORMAT, "%s: not a valid PNG file (%s)", name, spng_strerror(code));
}

/* Opens the file for decoding; *ret_ctx is the caller's, also after a failure. */
static enum cyi_status open_pixels(const struct image_source *source, spng_ctx **ret_ctx, int *ret_width,
                                   int *ret_height, int *ret_orientation, struct cyi_error *err) {
    struct chunk exif;
    enum cyi_status st = CYI_OK;
    TRY(check_chunks(source, ret_width, ret_height, &exif, err));
    *ret_ctx = spng_ctx_new(0);
    if (*ret_ctx == NULL) {
        return error_set(err, CYI_E_MEMORY, "out of memory: the PNG library, for %s", source->name);
    }
    TRY(spng_check(source->name, spng_set_image_limits(*ret_ctx, CYI_MAX_IMAGE_SIDE, CYI_MAX_IMAGE_SIDE), err));
    TRY(spng_check(source->name, spng_set_chunk_limits(*ret_ctx, MAX_ANCILLARY_BYTES, MAX_CACHED_BYTES), err));
    TRY(spng_check(source->name, spng_set_png_buffer(*ret_ctx, source->data, source->size_bytes), err));
    *ret_orientation = exif.data != NULL ? exif_get_orientation(exif.data, exif.size_bytes) : 1;
done:
    return st;
}

enum cyi_status png_decode(const struct cyi_allocator *allocator, const struct image_source *source,
                           struct cyi_image **ret_image, int *ret_orientation, struct cyi_error *err) {
    struct cyi_image *image = NULL;
    spng_ctx *ctx = NULL;
    int width, height, orientation = 1;
    enum cyi_status st = CYI_OK;
    TRY(open_pixels(source, &ctx, &width, &height, &orientation, err));
    TRY(image_create(allocator, width, height, 3, &image, err));
    size_t size_bytes = (size_t)width * (size_t)height * 3;
    TRY(spng_check(source->name, spng_decode_image(ctx, image->pixels, size_bytes, SPNG_FMT_RGB8, 0), err));
    *ret_orientation = orientation;
    *ret_image = image;
    image = NULL;
done:
    spng_ctx_free(ctx);
    cyi_image_free(image);
    return st;
}

/* An alpha channel, or a transparent colour that stands for one. */
static bool has_alpha(spng_ctx *ctx) {
    struct spng_ihdr header;
    struct spng_trns transparent;
    return (spng_get_ihdr(ctx, &header) == SPNG_OK && (header.color_type == SPNG_COLOR_TYPE_TRUECOLOR_ALPHA ||
                                                       header.color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA)) ||
           spng_get_trns(ctx, &transparent) == SPNG_OK;
}

enum cyi_status png_decode_alpha(const struct cyi_allocator *allocator, const struct image_source *source,
                                 struct cyi_image **ret_alpha, int *ret_orientation, struct cyi_error *err) {
    struct cyi_image *alpha = NULL;
    uint8_t *rgba = NULL;
    spng_ctx *ctx = NULL;
    int width, height, orientation = 1;
    enum cyi_status st = CYI_OK;
    TRY(open_pixels(source, &ctx, &width, &height, &orientation, err));
    if (!has_alpha(ctx)) {
        goto done;
    }
    TRY(image_create(allocator, width, height, 1, &alpha, err));
    const size_t size_bytes = (size_t)width * (size_t)height * 4;
    rgba = mem_alloc_zeroed(allocator, 1, size_bytes);
    if (rgba == NULL) {
        st = error_memory(err, "a picture", size_bytes);
        goto done;
    }
    TRY(spng_check(source->name, spng_decode_image(ctx, rgba, size_bytes, SPNG_FMT_RGBA8, SPNG_DECODE_TRNS), err));
    for (size_t i = 0; i < size_bytes / 4; i++) {
        alpha->pixels[i] = rgba[i * 4 + 3];
    }
    *ret_orientation = orientation;
    *ret_alpha = alpha;
    alpha = NULL;
done:
    spng_ctx_free(ctx);
    mem_free(allocator, rgba);
    cyi_image_free(alpha);
    return st;
}

/* ---- Reading texts ---- */

/* Unpacks a zlib stream up to IMAGE_MAX_TEXT_BYTES. */
static enum cyi_status inflate_text(const struct image_source *source, const uint8_t *data, size_t size_bytes,
                                    struct byte_buffer *out, struct cyi_error *err) {
    z_stream stream = { .next_in = (z_const Bytef *)(uintptr_t)data, .avail_in = (uInt)size_bytes };
    uint8_t piece[4096];
    enum cyi_status st = CYI_OK;
    int code = inflateInit(&stream);
    if (code != Z_OK) {
        return error_set(err, CYI_E_MEMORY, "out of memory: unpacking a text of %s", source->name);
    }
    while (code == Z_OK) {
        stream.next_out = piece;
        stream.avail_out = sizeof piece;
        code = inflate(&stream, Z_NO_FLUSH);
        if (code != Z_OK && code != Z_STREAM_END) {
            st = error_set(err, CYI_E_FORMAT, "%s: a packed text chunk is damaged", source->name);
            goto done;
        }
        size_t n = sizeof piece - stream.avail_out;
        if (out->size_bytes + n > IMAGE_MAX_TEXT_BYTES) {
            st = error_set(err, CYI_E_FORMAT, "%s: a text chunk unpacks to more than %zu bytes", source->name,
                           IMAGE_MAX_TEXT_BYTES);
            goto done;
        }
        TRY(byte_buffer_append(out, piece, n, err));
    }
done:
    inflateEnd(&stream);
    return st;
}

/* The part of a text chunk that holds the text, and how it is stored there. */
struct text_part {
    const uint8_t *data;
    size_t size_bytes;
    bool is_packed, is_utf8;
};

/* Behind the NUL that ends the field at data; false when there is none. */
static bool skip_field(struct text_part *part) {
    const uint8_t *end = part->size_bytes > 0 ? memchr(part->data, 0, part->size_bytes) : NULL;
    if (end == NULL) {
        return false;
    }
    part->size_bytes -= (size_t)(end - part->data) + 1;
    part->data = end + 1;
    return true;
}

/* tEXt: keyword, NUL, text. zTXt: keyword, NUL, method, zlib. iTXt: keyword, NUL, is packed, method, language, NUL,
 * translated keyword, NUL, text. False when the chunk is none of these or breaks the rules. */
static bool open_text(const struct chunk *chunk, struct text_part *ret_part) {
    struct text_part part = { .data = chunk->data, .size_bytes = chunk->size_bytes };
    if (!skip_field(&part)) {
        return false;
    }
    if (has_type(chunk, "zTXt")) {
        if (part.size_bytes < 1 || part.data[0] != 0) {
            return false;
        }
        part.is_packed = true;
        part.data++;
        part.size_bytes--;
    } else if (has_type(chunk, "iTXt")) {
        if (part.size_bytes < 2 || part.data[0] > 1 || part.data[1] != 0) {
            return false;
        }
        part.is_packed = part.data[0] == 1;
        part.is_utf8 = true;
        part.data += 2;
        part.size_bytes -= 2;
        if (!skip_field(&part) || !skip_field(&part)) {
            return false;
        }
    } else if (!has_type(chunk, "tEXt")) {
        return false;
    }
    *ret_part = part;
    return true;
}

/* The text of a chunk as UTF-8; *ret_text stays NULL when the chunk breaks the rules. */
static enum cyi_status read_text(const struct cyi_allocator *allocator, const struct image_source *source,
                                 const struct chunk *chunk, char **ret_text, struct cyi_error *err) {
    struct text_part part;
    struct byte_buffer unpacked;
    enum cyi_status st = CYI_OK;
    byte_buffer_init(&unpacked, allocator, IMAGE_MAX_TEXT_BYTES);
    if (!is_intact(chunk) || !open_text(chunk, &part)) {
        return CYI_OK;
    }
    if (part.is_packed) {
        TRY(inflate_text(source, part.data, part.size_bytes, &unpacked, err));
        part.data = unpacked.data;
        part.size_bytes = unpacked.size_bytes;
    }
    if (part.size_bytes > IMAGE_MAX_TEXT_BYTES) {
        st = error_set(err, CYI_E_FORMAT, "%s: a text of %zu bytes; at most %zu are read", source->name,
                       part.size_bytes, IMAGE_MAX_TEXT_BYTES);
        goto done;
    }
    *ret_text = part.is_utf8 ? charset_from_utf8(allocator, part.data, part.size_bytes)
                             : charset_from_latin1(allocator, part.data, part.size_bytes);
    if (*ret_text == NULL) {
        st = error_memory(err, "a text of a picture", part.size_bytes);
    }
done:
    byte_buffer_done(&unpacked);
    return st;
}

static bool has_keyword(const struct chunk *chunk, const char *keyword) {
    size_t n = strlen(keyword) + 1;
    return chunk->size_bytes >= n && memcmp(chunk->data, keyword, n) == 0;
}

enum cyi_status png_read_texts(const struct cyi_allocator *allocator, const struct image_source *source,
                               struct image_texts *texts, struct cyi_error *err) {
    struct chunk chunk = { 0 }, exif;
    int width, height;
    enum cyi_status st = CYI_OK;
    TRY(check_chunks(source, &width, &height, &exif, err));
    for (size_t offset = SIGNATURE_BYTES; chunk.type == NULL || !has_type(&chunk, "IEND");) {
        TRY(next_chunk(source, &offset, &chunk, err));
        if (has_type(&chunk, "tEXt") || has_type(&chunk, "iTXt") || has_type(&chunk, "zTXt")) {
            if (texts->parameters == NULL && has_keyword(&chunk, KEYWORD_PARAMETERS)) {
                TRY(read_text(allocator, source, &chunk, &texts->parameters, err));
            } else if (texts->json == NULL && has_keyword(&chunk, KEYWORD_JSON)) {
                TRY(read_text(allocator, source, &chunk, &texts->json, err));
            }
        }
    }
    if (exif.data != NULL) {
        TRY(exif_read_texts(allocator, exif.data, exif.size_bytes, texts, err));
    }
done:
    return st;
}

/* ---- Writing ---- */

/* Where libspng's output goes; the status is kept beside it, because libspng only passes its own codes. */
struct sink {
    struct byte_buffer *out;
    struct cyi_error *err;
    enum cyi_status status;
};

static int write_piece(spng_ctx *ctx, void *user, void *data, size_t n) {
    struct sink *sink = user;
    (void)ctx;
    sink->status = byte_buffer_append(sink->out, data, n, sink->err);
    return sink->status == CYI_OK ? SPNG_OK : SPNG_IO_ERROR;
}

/* Fills a text row; *ret_latin1 is what must be freed after writing. A1111 and Pillow choose tEXt where Latin-1 is
 * enough. */
static enum cyi_status make_text(const struct byte_buffer *out, const char *keyword, const char *utf8,
                                 bool is_always_utf8, struct spng_text *ret_text, char **ret_latin1,
                                 struct cyi_error *err) {
    char *nothing = (char *)(uintptr_t) ""; /* libspng does not write to texts */
    *ret_text = (struct spng_text){ .type = SPNG_ITXT, .language_tag = nothing, .translated_keyword = nothing };
    memcpy(ret_text->keyword, keyword, strlen(keyword) + 1);
    ret_text->text = (char *)(uintptr_t)utf8;
    if (!is_always_utf8 && charset_fits_latin1(utf8)) {
        *ret_latin1 = charset_to_latin1(out->allocator, utf8);
        if (*ret_latin1 == NULL) {
            return error_memory(err, "a text of a picture", strlen(utf8));
        }
        ret_text->type = SPNG_TEXT;
        ret_text->text = *ret_latin1;
    }
    ret_text->length = strlen(ret_text->text);
    return CYI_OK;
}

static enum cyi_status add_texts(spng_ctx *ctx, const struct byte_buffer *out, const struct cyi_image_options *options,
                                 char **ret_latin1, struct cyi_error *err) {
    struct spng_text texts[2];
    uint32_t n = 0;
    enum cyi_status st = CYI_OK;
    if (options->parameters != NULL) {
        TRY(make_text(out, KEYWORD_PARAMETERS, options->parameters, false, &texts[n++], ret_latin1, err));
    }
    if (options->json != NULL) {
        TRY(make_text(out, KEYWORD_JSON, options->json, true, &texts[n++], NULL, err));
    }
    if (n > 0) {
        TRY(spng_check("the picture's texts", spng_set_text(ctx, texts, n), err));
    }
done:
    return st;
}

enum cyi_status png_encode(const struct cyi_image *image, const struct cyi_image_options *options,
                           struct byte_buffer *out, struct cyi_error *err) {
    static const char name[] = "the new picture";
    struct sink sink = { out, err, CYI_OK };
    char *latin1 = NULL;
    enum cyi_status st = CYI_OK;
    struct spng_ihdr header = {
        .width = (uint32_t)image->width,
        .height = (uint32_t)image->height,
        .bit_depth = 8,
        .color_type = image->n_channels == 1 ? SPNG_COLOR_TYPE_GRAYSCALE : SPNG_COLOR_TYPE_TRUECOLOR,
    };
    size_t size_bytes = (size_t)image->width * (size_t)image->height * (size_t)image->n_channels;
    spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
    if (ctx == NULL) {
        return error_set(err, CYI_E_MEMORY, "out of memory: the PNG library");
    }
    TRY(spng_check(name, spng_set_png_stream(ctx, write_piece, &sink), err));
    TRY(spng_check(name, spng_set_ihdr(ctx, &header), err));
    TRY(spng_check(name, spng_set_option(ctx, SPNG_IMG_COMPRESSION_LEVEL, COMPRESSION_LEVEL), err));
    TRY(add_texts(ctx, out, options, &latin1, err));
    int code = spng_encode_image(ctx, image->pixels, size_bytes, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    TRY(sink.status);
    TRY(spng_check(name, code, err));
done:
    spng_ctx_free(ctx);
    mem_free(out->allocator, latin1);
    return st;
}
