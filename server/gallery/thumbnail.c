/* Thumbnails and blur-hashes: see gallery_internal.h. */
#include "gallery/gallery_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define QUALITY 82
#define N_ACROSS 4
#define N_DOWN 3

/* The share of every source pixel in target pixel i of n_to, from n_from: [first, first + n) with these weights. */
struct span {
    int first, n;
    float left, right; /* weights of the first and the last pixel; 1 between */
};

static struct span find_span(int i, int n_to, int n_from) {
    const double scale = (double)n_from / n_to, begin = i * scale, end = (i + 1) * scale;
    struct span span = { .first = (int)begin };
    int last = (int)ceil(end) - 1;
    last = last >= n_from ? n_from - 1 : last < span.first ? span.first : last;
    span.n = last - span.first + 1;
    span.left = (float)(1.0 - (begin - span.first));
    span.right = span.n > 1 ? (float)(end - last) : span.left;
    return span;
}

static float weight(const struct span *span, int i) {
    return i == 0 ? span->left : i == span->n - 1 ? span->right : 1.0F;
}

/* Columns first, a whole row of sums at a time, then the row is narrowed. */
static void scale_down(const struct cyi_image *from, struct cyi_image *to) {
    const size_t n_samples = (size_t)from->width * (size_t)from->n_channels;
    float *sums = text_alloc(n_samples, sizeof *sums);
    for (int y = 0; y < to->height; y++) {
        const struct span rows = find_span(y, to->height, from->height);
        memset(sums, 0, n_samples * sizeof *sums);
        float height = 0.0F;
        for (int j = 0; j < rows.n; j++) {
            const uint8_t *row = from->pixels + (size_t)(rows.first + j) * n_samples;
            const float share = weight(&rows, j);
            height += share;
            for (size_t i = 0; i < n_samples; i++) {
                sums[i] += share * (float)row[i];
            }
        }
        for (int x = 0; x < to->width; x++) {
            const struct span columns = find_span(x, to->width, from->width);
            for (int c = 0; c < from->n_channels; c++) {
                float sum = 0.0F, width = 0.0F;
                for (int i = 0; i < columns.n; i++) {
                    const float share = weight(&columns, i);
                    width += share;
                    sum += share * sums[(size_t)(columns.first + i) * (size_t)from->n_channels + (size_t)c];
                }
                to->pixels[((size_t)y * (size_t)to->width + (size_t)x) * (size_t)to->n_channels + (size_t)c] =
                    (uint8_t)(sum / (width * height) + 0.5F);
            }
        }
    }
    free(sums);
}

enum problem_code thumbnail_scale(struct cyi_engine *codec, const struct cyi_image *image, int max_side,
                                  struct cyi_image **ret_small, struct problem *problem) {
    const int longest = image->width > image->height ? image->width : image->height;
    const double scale = longest > max_side ? (double)max_side / longest : 1.0;
    const int width = (int)fmax(1.0, image->width * scale + 0.5), height = (int)fmax(1.0, image->height * scale + 0.5);
    struct cyi_image *small = NULL;
    struct cyi_error err = { 0 };
    if (cyi_image_create(codec, width, height, image->n_channels, &small, &err) != CYI_OK) {
        return problem_engine(problem, NULL, &err);
    }
    scale_down(image, small);
    *ret_small = small;
    return PROBLEM_NONE;
}

/* ---- BlurHash ---- */

static float to_linear(uint8_t value) {
    const float v = (float)value / 255.0F;
    return v <= 0.04045F ? v / 12.92F : powf((v + 0.055F) / 1.055F, 2.4F);
}

static int to_srgb(float value) {
    const float v = fminf(fmaxf(value, 0.0F), 1.0F);
    return (int)((v <= 0.0031308F ? v * 12.92F : 1.055F * powf(v, 1.0F / 2.4F) - 0.055F) * 255.0F + 0.5F);
}

static char *put_83(char *out, int value, int n_digits) {
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~";
    for (int i = n_digits - 1; i >= 0; i--) {
        out[i] = digits[value % 83];
        value /= 83;
    }
    return out + n_digits;
}

static int quantise(float value, float most) {
    const float v = value / most;
    return (int)fminf(fmaxf(floorf(copysignf(sqrtf(fabsf(v)), v) * 9.0F + 9.5F), 0.0F), 18.0F);
}

static void find_factors(const struct cyi_image *image, float factors[N_DOWN][N_ACROSS][3]) {
    const double pi = 3.14159265358979323846;
    const double n = (double)image->width * image->height;
    for (int v = 0; v < N_DOWN; v++) {
        for (int u = 0; u < N_ACROSS; u++) {
            double sum[3] = { 0.0 };
            for (int y = 0; y < image->height; y++) {
                for (int x = 0; x < image->width; x++) {
                    const double basis = cos(pi * u * x / image->width) * cos(pi * v * y / image->height);
                    const uint8_t *pixel =
                        image->pixels + ((size_t)y * (size_t)image->width + (size_t)x) * (size_t)image->n_channels;
                    for (int c = 0; c < 3; c++) {
                        sum[c] += basis * (double)to_linear(pixel[image->n_channels == 3 ? c : 0]);
                    }
                }
            }
            for (int c = 0; c < 3; c++) {
                factors[v][u][c] = (float)(sum[c] * (u == 0 && v == 0 ? 1.0 : 2.0) / n);
            }
        }
    }
}

void thumbnail_blurhash(const struct cyi_image *image, char ret_hash[64]) {
    float factors[N_DOWN][N_ACROSS][3], most = 0.0F;
    find_factors(image, factors);
    for (int i = 1; i < N_DOWN * N_ACROSS; i++) {
        for (int c = 0; c < 3; c++) {
            most = fmaxf(most, fabsf(factors[i / N_ACROSS][i % N_ACROSS][c]));
        }
    }
    const int scale = (int)fminf(fmaxf(floorf(most * 166.0F - 0.5F), 0.0F), 82.0F);
    const float unit = (float)(scale + 1) / 166.0F;
    char *out = put_83(ret_hash, (N_ACROSS - 1) + (N_DOWN - 1) * 9, 1);
    out = put_83(out, scale, 1);
    const float *mean = factors[0][0];
    out = put_83(out, (to_srgb(mean[0]) << 16) + (to_srgb(mean[1]) << 8) + to_srgb(mean[2]), 4);
    for (int i = 1; i < N_DOWN * N_ACROSS; i++) {
        const float *factor = factors[i / N_ACROSS][i % N_ACROSS];
        out = put_83(
            out, quantise(factor[0], unit) * 19 * 19 + quantise(factor[1], unit) * 19 + quantise(factor[2], unit), 2);
    }
    *out = '\0';
}

/* ---- Files ---- */

const char *thumbnail_path(const char *id, int size, char buffer[GALLERY_PATH]) {
    (void)snprintf(buffer, GALLERY_PATH, "thumbnails/%s/%s-%d.webp", id + strlen(id) - 2, id, size);
    return buffer;
}

static enum problem_code write_one(struct gallery *gallery, const char *id, const struct cyi_image *small, int size,
                                   struct problem *problem) {
    const struct cyi_image_options options = { .format = CYI_FORMAT_WEBP, .quality = QUALITY };
    struct cyi_error err = { 0 };
    char path[GALLERY_PATH];
    void *data = NULL;
    size_t n = 0;
    if (cyi_image_encode(gallery->codec, small, &options, &data, &n, &err) != CYI_OK) {
        return problem_engine(problem, NULL, &err);
    }
    const enum problem_code st =
        file_write_below(gallery->cache_fd, thumbnail_path(id, size, path), data, n, false, problem);
    cyi_release(gallery->codec, data);
    return st;
}

enum problem_code thumbnail_write(struct gallery *gallery, const char *id, const struct cyi_image *image,
                                  struct problem *problem) {
    struct cyi_image *large = NULL, *small = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(thumbnail_scale(gallery->codec, image, THUMBNAIL_LARGE, &large, problem));
    TRY(thumbnail_scale(gallery->codec, large, THUMBNAIL_SMALL, &small, problem));
    TRY(write_one(gallery, id, large, THUMBNAIL_LARGE, problem));
    TRY(write_one(gallery, id, small, THUMBNAIL_SMALL, problem));
done:
    cyi_image_free(large);
    cyi_image_free(small);
    return st;
}

enum problem_code thumbnail_remake(struct gallery *gallery, const char *id, struct problem *problem) {
    struct cyi_image *image = NULL;
    enum problem_code st = picture_decode(gallery, id, &image, problem);
    if (st == PROBLEM_NONE) {
        st = thumbnail_write(gallery, id, image, problem);
    }
    cyi_image_free(image);
    return st;
}
