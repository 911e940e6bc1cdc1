/* WebP by libwebp: pixels by its decoder and encoder, EXIF by its container libraries (demux to read, mux to write). */
#include <string.h>
#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>
#include <webp/mux.h>

#include "core/size.h"
#include "io/exif.h"

#define LOSSLESS_QUALITY 100
#define LOSSLESS_EFFORT 4 /* of 0 … 9 */
#define LOSSY_METHOD 4    /* of 0 … 6 */

/* ---- Reading ---- */

static enum cyi_status check_header(const struct image_source *source, WebPBitstreamFeatures *ret_features,
                                    struct cyi_error *err) {
    VP8StatusCode code = WebPGetFeatures(source->data, source->size_bytes, ret_features);
    if (code != VP8_STATUS_OK) {
        return error_set(err, CYI_E_FORMAT, "%s: not a valid WebP file (%s)", source->name,
                         code == VP8_STATUS_NOT_ENOUGH_DATA ? "truncated" : "damaged header");
    }
    if (ret_features->has_animation) {
        return error_set(err, CYI_E_FORMAT, "%s: an animated WebP; only still pictures can be read", source->name);
    }
    return image_check_size(source->name, (uint64_t)ret_features->width, (uint64_t)ret_features->height, err);
}

/* The container must be complete. *ret_exif stays valid until the iterator is released. */
static enum cyi_status open_container(const struct image_source *source, WebPDemuxer **ret_demuxer,
                                      struct cyi_error *err) {
    WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
    WebPData data = { source->data, source->size_bytes };
    WebPDemuxer *demuxer = WebPDemuxPartial(&data, &state);
    if (demuxer == NULL || state != WEBP_DEMUX_DONE) {
        WebPDemuxDelete(demuxer);
        return error_set(err, CYI_E_FORMAT, "%s: not a valid WebP file (%s)", source->name,
                         state == WEBP_DEMUX_PARSE_ERROR ? "damaged container" : "truncated");
    }
    *ret_demuxer = demuxer;
    return CYI_OK;
}

enum cyi_status webp_decode(const struct cyi_allocator *allocator, const struct image_source *source,
                            struct cyi_image **ret_image, int *ret_orientation, struct cyi_error *err) {
    struct cyi_image *image = NULL;
    WebPDemuxer *demuxer = NULL;
    WebPBitstreamFeatures features;
    WebPChunkIterator exif;
    int orientation = 1;
    enum cyi_status st = CYI_OK;
    TRY(check_header(source, &features, err));
    TRY(open_container(source, &demuxer, err));
    if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &exif)) {
        orientation = exif_get_orientation(exif.chunk.bytes, exif.chunk.size);
        WebPDemuxReleaseChunkIterator(&exif);
    }
    TRY(image_create(allocator, features.width, features.height, 3, &image, err));
    size_t row_bytes = (size_t)features.width * 3;
    if (WebPDecodeRGBInto(source->data, source->size_bytes, image->pixels, row_bytes * (size_t)features.height,
                          (int)row_bytes) == NULL) {
        st = error_set(err, CYI_E_FORMAT, "%s: the WebP picture data is damaged", source->name);
        goto done;
    }
    *ret_orientation = orientation;
    *ret_image = image;
    image = NULL;
done:
    WebPDemuxDelete(demuxer);
    cyi_image_free(image);
    return st;
}

enum cyi_status webp_read_texts(const struct cyi_allocator *allocator, const struct image_source *source,
                                struct image_texts *texts, struct cyi_error *err) {
    WebPDemuxer *demuxer = NULL;
    WebPBitstreamFeatures features;
    WebPChunkIterator exif;
    enum cyi_status st = CYI_OK;
    TRY(check_header(source, &features, err));
    TRY(open_container(source, &demuxer, err));
    if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &exif)) {
        st = exif_read_texts(allocator, exif.chunk.bytes, exif.chunk.size, texts, err);
        WebPDemuxReleaseChunkIterator(&exif);
    }
done:
    WebPDemuxDelete(demuxer);
    return st;
}

/* ---- Writing ---- */

/* Where the encoder's output goes; the status is kept beside it, because the encoder only knows that writing failed. */
struct sink {
    struct byte_buffer *out;
    struct cyi_error *err;
    enum cyi_status status;
};

static int write_piece(const uint8_t *data, size_t n, const WebPPicture *picture) {
    struct sink *sink = picture->custom_ptr;
    sink->status = byte_buffer_append(sink->out, data, n, sink->err);
    return sink->status == CYI_OK;
}

static void fill_picture(const struct cyi_image *image, WebPPicture *picture) {
    const uint8_t *from = image->pixels;
    int green = image->n_channels == 3 ? 1 : 0, blue = image->n_channels == 3 ? 2 : 0;
    for (int y = 0; y < image->height; y++) {
        uint32_t *row = picture->argb + (size_t)y * (size_t)picture->argb_stride;
        for (int x = 0; x < image->width; x++, from += image->n_channels) {
            row[x] = 0xFF000000u | (uint32_t)from[0] << 16 | (uint32_t)from[green] << 8 | from[blue];
        }
    }
}

static enum cyi_status encode_pixels(const struct cyi_image *image, int quality, struct byte_buffer *out,
                                     struct cyi_error *err) {
    struct sink sink = { out, err, CYI_OK };
    WebPConfig config;
    WebPPicture picture;
    enum cyi_status st = CYI_OK;
    if (!WebPConfigInit(&config) || !WebPPictureInit(&picture)) {
        return error_set(err, CYI_E_UNSUPPORTED, "the WebP library has another version than its headers");
    }
    if (quality == LOSSLESS_QUALITY) {
        (void)WebPConfigLosslessPreset(&config, LOSSLESS_EFFORT);
    } else {
        config.quality = (float)quality;
        config.method = LOSSY_METHOD;
    }
    picture.use_argb = 1;
    picture.width = image->width;
    picture.height = image->height;
    picture.writer = write_piece;
    picture.custom_ptr = &sink;
    if (!WebPPictureAlloc(&picture)) {
        return error_set(err, CYI_E_MEMORY, "out of memory: the WebP library");
    }
    fill_picture(image, &picture);
    int is_ok = WebPEncode(&config, &picture);
    TRY(sink.status);
    if (!is_ok) {
        st = error_set(err, CYI_E_MEMORY, "the WebP library could not write the picture (its error %d)",
                       (int)picture.error_code);
    }
done:
    WebPPictureFree(&picture);
    return st;
}

/* Replaces the plain file in out by one that has EXIF too. */
static enum cyi_status add_exif(const struct cyi_image_options *options, struct byte_buffer *out,
                                struct cyi_error *err) {
    WebPData plain = { out->data, out->size_bytes }, whole = { NULL, 0 };
    struct byte_buffer exif;
    WebPMux *mux = NULL;
    enum cyi_status st = CYI_OK;
    byte_buffer_init(&exif, out->allocator, 4 * IMAGE_MAX_TEXT_BYTES);
    TRY(exif_write_texts(&exif, options->parameters, options->json, err));
    mux = WebPMuxCreate(&plain, 0);
    WebPData chunk = { exif.data, exif.size_bytes };
    if (mux == NULL || WebPMuxSetChunk(mux, "EXIF", &chunk, 0) != WEBP_MUX_OK ||
        WebPMuxAssemble(mux, &whole) != WEBP_MUX_OK) {
        st = error_set(err, CYI_E_MEMORY, "out of memory: the WebP library, for the picture's texts");
        goto done;
    }
    out->size_bytes = 0;
    TRY(byte_buffer_append(out, whole.bytes, whole.size, err));
done:
    WebPDataClear(&whole);
    WebPMuxDelete(mux);
    byte_buffer_done(&exif);
    return st;
}

enum cyi_status webp_encode(const struct cyi_image *image, const struct cyi_image_options *options,
                            struct byte_buffer *out, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    if (image->width > WEBP_MAX_DIMENSION || image->height > WEBP_MAX_DIMENSION) {
        return error_set(err, CYI_E_ARGUMENT, "WebP holds at most %d pixels a side; this picture has %d × %d",
                         WEBP_MAX_DIMENSION, image->width, image->height);
    }
    TRY(encode_pixels(image, options->quality, out, err));
    if (options->parameters != NULL || options->json != NULL) {
        TRY(add_exif(options, out, err));
    }
done:
    return st;
}
