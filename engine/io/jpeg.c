/* JPEG by TurboJPEG. The markers are walked here first, for size, EXIF, the number of scans and the end of the file;
 * what the library only warns about (missing data, damaged data) is an error. */
#include <string.h>
#include <turbojpeg.h>

#include "core/size.h"
#include "io/exif.h"

#define MARKER_EOI 0xD9
#define MARKER_SOS 0xDA
#define MARKER_APP0 0xE0
#define MARKER_APP1 0xE1
#define MAX_SCANS 100           /* a progressive file has about ten; thousands would take hours */
#define MAX_SEGMENT_BYTES 65533 /* behind the two bytes that hold the size */
#define EXIF_NAME_BYTES 6       /* "Exif\0\0" */
#define FULL_COLOUR_QUALITY 90  /* from here on colours keep the full resolution */

/* ---- Markers ---- */

struct marker {
    unsigned code;
    const uint8_t *data; /* behind the size */
    size_t size_bytes;
};

static enum cyi_status refuse_end(const struct image_source *source, struct cyi_error *err) {
    return error_set(err, CYI_E_FORMAT, "%s: the JPEG file ends after %zu bytes, before the picture's end (truncated?)",
                     source->name, source->size_bytes);
}

static bool has_segment(unsigned code) {
    return code != MARKER_EOI && code != 0x01 && (code < 0xD0 || code > 0xD8);
}

/* The next marker at or behind *offset, over compressed data where it stands; *offset moves behind the marker and its
 * segment. */
static enum cyi_status next_marker(const struct image_source *source, size_t *offset, struct marker *ret_marker,
                                   struct cyi_error *err) {
    const uint8_t *data = source->data;
    size_t size = source->size_bytes, at = *offset;
    unsigned code = 0;
    while (code == 0 || (code >= 0xD0 && code <= 0xD7)) { /* in compressed data: a stuffed FF, or a restart */
        const uint8_t *found = at < size ? memchr(data + at, 0xFF, size - at) : NULL;
        if (found == NULL) {
            return refuse_end(source, err);
        }
        at = (size_t)(found - data);
        while (at < size && data[at] == 0xFF) {
            at++;
        }
        if (at == size) {
            return refuse_end(source, err);
        }
        code = data[at++];
    }
    *ret_marker = (struct marker){ .code = code };
    if (has_segment(code)) {
        if (size - at < 2) {
            return refuse_end(source, err);
        }
        size_t length = (size_t)data[at] << 8 | data[at + 1];
        if (length < 2) {
            return error_set(err, CYI_E_FORMAT, "%s: a JPEG segment at byte %zu has an impossible size", source->name,
                             at);
        }
        if (length > size - at) {
            return refuse_end(source, err);
        }
        ret_marker->data = data + at + 2;
        ret_marker->size_bytes = length - 2;
        at += length;
    }
    *offset = at;
    return CYI_OK;
}

/* Walks to the end of the picture. *ret_exif is the first EXIF segment, its data NULL when there is none. */
static enum cyi_status check_markers(const struct image_source *source, struct marker *ret_exif,
                                     struct cyi_error *err) {
    struct marker marker = { 0 }, exif = { 0 };
    int n_scans = 0;
    enum cyi_status st = CYI_OK;
    for (size_t offset = 2; marker.code != MARKER_EOI;) {
        TRY(next_marker(source, &offset, &marker, err));
        if (marker.code == MARKER_SOS && ++n_scans > MAX_SCANS) {
            return error_set(err, CYI_E_FORMAT, "%s: a JPEG file of more than %d scans", source->name, MAX_SCANS);
        }
        if (marker.code == MARKER_APP1 && exif.data == NULL && marker.size_bytes > EXIF_NAME_BYTES &&
            memcmp(marker.data, "Exif\0\0", EXIF_NAME_BYTES) == 0) {
            exif = marker;
        }
    }
    if (n_scans == 0) {
        return error_set(err, CYI_E_FORMAT, "%s: a JPEG file without a picture", source->name);
    }
    *ret_exif = exif;
done:
    return st;
}

/* ---- Pixels ---- */

static enum cyi_status refuse_damage(const struct image_source *source, tjhandle handle, struct cyi_error *err) {
    return error_set(err, CYI_E_FORMAT, "%s: not a valid JPEG file (%s)", source->name, tjGetErrorStr2(handle));
}

/* Inverted CMYK, as Adobe writes it and as everybody reads it, in place of RGB. cmyk: [n, 4], rgb: [n, 3] */
static void convert_cmyk(const uint8_t *cmyk, uint8_t *rgb, size_t n) {
    for (size_t i = 0; i < n; i++, cmyk += 4, rgb += 3) {
        for (int c = 0; c < 3; c++) {
            unsigned product = (255u - cmyk[c]) * cmyk[3] + 128;
            rgb[c] = (uint8_t)(cmyk[3] - ((product + (product >> 8)) >> 8));
        }
    }
}

enum cyi_status jpeg_decode(const struct cyi_allocator *allocator, const struct image_source *source,
                            struct cyi_image **ret_image, int *ret_orientation, struct cyi_error *err) {
    struct cyi_image *image = NULL;
    uint8_t *cmyk = NULL;
    tjhandle handle = NULL;
    struct marker exif;
    int width = 0, height = 0, subsampling = 0, space = 0;
    enum cyi_status st = CYI_OK;
    unsigned long size_bytes = (unsigned long)source->size_bytes;
    TRY(check_markers(source, &exif, err));
    handle = tjInitDecompress();
    if (handle == NULL) {
        st = error_set(err, CYI_E_MEMORY, "out of memory: the JPEG library, for %s", source->name);
        goto done;
    }
    if (tjDecompressHeader3(handle, source->data, size_bytes, &width, &height, &subsampling, &space) != 0) {
        st = refuse_damage(source, handle, err);
        goto done;
    }
    TRY(image_check_size(source->name, (uint64_t)width, (uint64_t)height, err));
    TRY(image_create(allocator, width, height, 3, &image, err));
    bool is_cmyk = space == TJCS_CMYK || space == TJCS_YCCK;
    size_t n_pixels = (size_t)width * (size_t)height;
    if (is_cmyk) {
        cmyk = mem_alloc(allocator, n_pixels * 4);
        if (cmyk == NULL) {
            st = error_memory(err, "a CMYK picture", n_pixels * 4);
            goto done;
        }
    }
    if (tjDecompress2(handle, source->data, size_bytes, is_cmyk ? cmyk : image->pixels, width, 0, height,
                      is_cmyk ? TJPF_CMYK : TJPF_RGB, TJFLAG_STOPONWARNING | TJFLAG_ACCURATEDCT) != 0) {
        st = refuse_damage(source, handle, err);
        goto done;
    }
    if (is_cmyk) {
        convert_cmyk(cmyk, image->pixels, n_pixels);
    }
    *ret_orientation = exif.data != NULL ? exif_get_orientation(exif.data, exif.size_bytes) : 1;
    *ret_image = image;
    image = NULL;
done:
    (void)tjDestroy(handle);
    mem_free(allocator, cmyk);
    cyi_image_free(image);
    return st;
}

enum cyi_status jpeg_read_texts(const struct cyi_allocator *allocator, const struct image_source *source,
                                struct image_texts *texts, struct cyi_error *err) {
    struct marker exif;
    enum cyi_status st = CYI_OK;
    TRY(check_markers(source, &exif, err));
    if (exif.data != NULL) {
        TRY(exif_read_texts(allocator, exif.data, exif.size_bytes, texts, err));
    }
done:
    return st;
}

/* ---- Writing ---- */

/* Appends the EXIF segment. */
static enum cyi_status append_exif(const struct cyi_image_options *options, struct byte_buffer *out,
                                   struct cyi_error *err) {
    uint8_t head[] = { 0xFF, MARKER_APP1, 0, 0, 'E', 'x', 'i', 'f', 0, 0 };
    size_t start = out->size_bytes;
    enum cyi_status st = CYI_OK;
    TRY(byte_buffer_append(out, head, sizeof head, err));
    TRY(exif_write_texts(out, options->parameters, options->json, err));
    size_t segment_bytes = out->size_bytes - start - 4;
    if (segment_bytes > MAX_SEGMENT_BYTES) {
        st = error_set(err, CYI_E_ARGUMENT,
                       "the texts need %zu bytes, a JPEG file takes at most %d: save as PNG or WebP, or without texts",
                       segment_bytes, MAX_SEGMENT_BYTES);
        goto done;
    }
    out->data[start + 2] = (uint8_t)((segment_bytes + 2) >> 8);
    out->data[start + 3] = (uint8_t)(segment_bytes + 2);
done:
    return st;
}

enum cyi_status jpeg_encode(const struct cyi_image *image, const struct cyi_image_options *options,
                            struct byte_buffer *out, struct cyi_error *err) {
    unsigned char *jpeg = NULL;
    unsigned long size_bytes = 0;
    bool is_grey = image->n_channels == 1;
    int subsampling = is_grey ? TJSAMP_GRAY : options->quality >= FULL_COLOUR_QUALITY ? TJSAMP_444 : TJSAMP_420;
    enum cyi_status st = CYI_OK;
    tjhandle handle = tjInitCompress();
    if (handle == NULL) {
        return error_set(err, CYI_E_MEMORY, "out of memory: the JPEG library");
    }
    if (tjCompress2(handle, image->pixels, image->width, 0, image->height, is_grey ? TJPF_GRAY : TJPF_RGB, &jpeg,
                    &size_bytes, subsampling, options->quality, TJFLAG_ACCURATEDCT) != 0) {
        st = error_set(err, CYI_E_MEMORY, "the JPEG library refused to write: %s", tjGetErrorStr2(handle));
        goto done;
    }
    /* The library's file begins with SOI and the JFIF segment; EXIF comes behind them. */
    size_t head_bytes = jpeg[3] == MARKER_APP0 ? 4 + ((size_t)jpeg[4] << 8 | jpeg[5]) : 2;
    TRY(byte_buffer_append(out, jpeg, head_bytes, err));
    if (options->parameters != NULL || options->json != NULL) {
        TRY(append_exif(options, out, err));
    }
    TRY(byte_buffer_append(out, jpeg + head_bytes, size_bytes - head_bytes, err));
done:
    tjFree(jpeg);
    (void)tjDestroy(handle);
    return st;
}
