/* sixel: see sixel.h. */
#include "sixel.h"

#include <stdlib.h>
#include <string.h>

#include "text.h"

#define MAX_COLOURS 256
#define CELL_BITS 5 /* colours are counted in cells of 2^3 levels a side */
#define CELLS_A_SIDE (1 << CELL_BITS)
#define N_CELLS (CELLS_A_SIDE * CELLS_A_SIDE * CELLS_A_SIDE)
#define BAND_ROWS 6

/* ---- Palette ---- */

/* A part of the colour cube in cells, ends included. */
struct box {
    int low[3], high[3];
    uint64_t n_pixels;
};

struct palette {
    uint32_t counts[N_CELLS]; /* pixels in each cell */
    int16_t nearest[N_CELLS]; /* the colour for a cell; -1: not looked for yet */
    struct box boxes[MAX_COLOURS];
    uint8_t colours[MAX_COLOURS][3];
    int n_colours;
};

static int cell_of(int red, int green, int blue) {
    return (red << CELL_BITS | green) << CELL_BITS | blue;
}

static const uint8_t *pixel_at(const struct cyi_image *image, int x, int y) {
    return image->pixels + ((size_t)y * (size_t)image->width + (size_t)x) * (size_t)image->n_channels;
}

static int channel_of(const struct cyi_image *image, const uint8_t *pixel, int channel) {
    return pixel[image->n_channels == 3 ? channel : 0];
}

static void count_colours(const struct cyi_image *image, struct palette *palette) {
    for (int y = 0; y < image->height; y++) {
        for (int x = 0; x < image->width; x++) {
            const uint8_t *pixel = pixel_at(image, x, y);
            int shift = 8 - CELL_BITS;
            palette->counts[cell_of(channel_of(image, pixel, 0) >> shift, channel_of(image, pixel, 1) >> shift,
                                    channel_of(image, pixel, 2) >> shift)]++;
        }
    }
}

/* Pixels of the box by their position along an axis. */
static void project(const struct palette *palette, const struct box *box, int axis, uint64_t sums[CELLS_A_SIDE]) {
    memset(sums, 0, CELLS_A_SIDE * sizeof sums[0]);
    for (int red = box->low[0]; red <= box->high[0]; red++) {
        for (int green = box->low[1]; green <= box->high[1]; green++) {
            for (int blue = box->low[2]; blue <= box->high[2]; blue++) {
                sums[axis == 0 ? red : axis == 1 ? green : blue] += palette->counts[cell_of(red, green, blue)];
            }
        }
    }
}

/* Cuts off what is empty on all sides, and counts. */
static void shrink(const struct palette *palette, struct box *box) {
    for (int axis = 0; axis < 3; axis++) {
        uint64_t sums[CELLS_A_SIDE];
        project(palette, box, axis, sums);
        while (box->low[axis] < box->high[axis] && sums[box->low[axis]] == 0) {
            box->low[axis]++;
        }
        while (box->low[axis] < box->high[axis] && sums[box->high[axis]] == 0) {
            box->high[axis]--;
        }
        box->n_pixels = 0;
        for (int i = box->low[axis]; i <= box->high[axis]; i++) {
            box->n_pixels += sums[i];
        }
    }
}

static int longest_axis(const struct box *box) {
    int best = 0;
    for (int axis = 1; axis < 3; axis++) {
        if (box->high[axis] - box->low[axis] > box->high[best] - box->low[best]) {
            best = axis;
        }
    }
    return best;
}

/* Halves the pixels of a box of more than one cell. */
static void split(const struct palette *palette, struct box *box, struct box *ret_other) {
    int axis = longest_axis(box), cut = box->low[axis];
    uint64_t sums[CELLS_A_SIDE], before = 0;
    project(palette, box, axis, sums);
    while (cut < box->high[axis] - 1 && before + sums[cut] < box->n_pixels / 2) {
        before += sums[cut++];
    }
    *ret_other = *box;
    box->high[axis] = cut;
    ret_other->low[axis] = cut + 1;
    shrink(palette, box);
    shrink(palette, ret_other);
}

/* The box with the most pixels times length; -1 when all are single cells. */
static int widest_box(const struct palette *palette) {
    uint64_t best_weight = 0;
    int best = -1;
    for (int i = 0; i < palette->n_colours; i++) {
        const struct box *box = &palette->boxes[i];
        int axis = longest_axis(box);
        uint64_t weight = box->n_pixels * (uint64_t)(box->high[axis] - box->low[axis]);
        if (weight > best_weight) {
            best_weight = weight;
            best = i;
        }
    }
    return best;
}

/* The mean of a box, from the middles of its cells. */
static void average(const struct palette *palette, const struct box *box, uint8_t colour[3]) {
    for (int axis = 0; axis < 3; axis++) {
        uint64_t sums[CELLS_A_SIDE], total = 0;
        project(palette, box, axis, sums);
        for (int i = box->low[axis]; i <= box->high[axis]; i++) {
            total += sums[i] * (uint64_t)(i * 255);
        }
        colour[axis] = (uint8_t)(total / (box->n_pixels * (CELLS_A_SIDE - 1)));
    }
}

static void choose_colours(const struct cyi_image *image, struct palette *palette) {
    memset(palette->nearest, 0xFF, sizeof palette->nearest);
    count_colours(image, palette);
    for (int axis = 0; axis < 3; axis++) {
        palette->boxes[0].high[axis] = CELLS_A_SIDE - 1;
    }
    shrink(palette, &palette->boxes[0]);
    palette->n_colours = 1;
    for (int i; palette->n_colours < MAX_COLOURS && (i = widest_box(palette)) >= 0; palette->n_colours++) {
        split(palette, &palette->boxes[i], &palette->boxes[palette->n_colours]);
    }
    for (int i = 0; i < palette->n_colours; i++) {
        average(palette, &palette->boxes[i], palette->colours[i]);
    }
}

static int nearest_colour(struct palette *palette, const int colour[3]) {
    int shift = 8 - CELL_BITS, cell = cell_of(colour[0] >> shift, colour[1] >> shift, colour[2] >> shift);
    if (palette->nearest[cell] < 0) {
        int best_distance = INT32_MAX;
        for (int i = 0; i < palette->n_colours; i++) {
            int distance = 0;
            for (int c = 0; c < 3; c++) {
                int d = palette->colours[i][c] -
                        (((colour[c] >> shift) * 255 + (CELLS_A_SIDE - 1) / 2) / (CELLS_A_SIDE - 1));
                distance += d * d;
            }
            if (distance < best_distance) {
                best_distance = distance;
                palette->nearest[cell] = (int16_t)i;
            }
        }
    }
    return palette->nearest[cell];
}

/* ---- Drawing ---- */

/* One band: which colours its pixels have, and the errors that dithering carries on (Floyd and Steinberg). */
struct canvas {
    struct palette *palette;
    uint8_t *bits; /* [colours, width]: bit r is set where row r of the band has the colour */
    bool used[MAX_COLOURS];
    int *
        errors[2]; /* this row's and the next one's, sixteenths: [width + 2, 3], the first stands left of the picture */
};

static void dither_row(struct canvas *canvas, const struct cyi_image *image, int y) {
    int *here = canvas->errors[0], *below = canvas->errors[1];
    memset(below, 0, (size_t)(image->width + 2) * 3 * sizeof *below);
    for (int x = 0; x < image->width; x++) {
        const uint8_t *pixel = pixel_at(image, x, y);
        int colour[3];
        for (int c = 0; c < 3; c++) {
            int value = channel_of(image, pixel, c) + here[(x + 1) * 3 + c] / 16;
            colour[c] = value < 0 ? 0 : value > 255 ? 255 : value;
        }
        int i = nearest_colour(canvas->palette, colour);
        canvas->bits[(size_t)i * (size_t)image->width + (size_t)x] |= (uint8_t)(1 << y % BAND_ROWS);
        canvas->used[i] = true;
        for (int c = 0; c < 3; c++) {
            int error = colour[c] - canvas->palette->colours[i][c];
            here[(x + 2) * 3 + c] += error * 7;
            below[x * 3 + c] += error * 3;
            below[(x + 1) * 3 + c] += error * 5;
            below[(x + 2) * 3 + c] += error;
        }
    }
    canvas->errors[0] = below;
    canvas->errors[1] = here;
}

/* n times the same six pixels. */
static void write_run(FILE *out, int n, uint8_t bits) {
    char letter = (char)('?' + bits);
    if (n > 3) {
        (void)fprintf(out, "!%d%c", n, letter);
    } else {
        while (n-- > 0) {
            (void)fputc(letter, out);
        }
    }
}

static void write_band(FILE *out, struct canvas *canvas, int width) {
    for (int i = 0; i < canvas->palette->n_colours; i++) {
        uint8_t *bits = canvas->bits + (size_t)i * (size_t)width;
        if (!canvas->used[i]) {
            continue;
        }
        (void)fprintf(out, "#%d", i);
        int start = 0;
        for (int x = 1; x < width; x++) {
            if (bits[x] != bits[start]) {
                write_run(out, x - start, bits[start]);
                start = x;
            }
        }
        if (bits[start] != 0) { /* blanks at the end say nothing */
            write_run(out, width - start, bits[start]);
        }
        (void)fputc('$', out);
        canvas->used[i] = false;
        memset(bits, 0, (size_t)width);
    }
    (void)fputc('-', out);
}

void sixel_write(FILE *out, const struct cyi_image *image) {
    size_t n_errors = (size_t)(image->width + 2) * 3;
    struct palette *palette = text_alloc(1, sizeof *palette);
    int *errors = text_alloc(2 * n_errors, sizeof *errors);
    uint8_t *bits = text_alloc(MAX_COLOURS, (size_t)image->width);
    struct canvas canvas = { .palette = palette, .bits = bits, .errors = { errors, errors + n_errors } };
    choose_colours(image, palette);
    (void)fprintf(out, "\033P0;1q\"1;1;%d;%d", image->width, image->height);
    for (int i = 0; i < palette->n_colours; i++) {
        const uint8_t *colour = palette->colours[i];
        (void)fprintf(out, "#%d;2;%d;%d;%d", i, (colour[0] * 100 + 127) / 255, (colour[1] * 100 + 127) / 255,
                      (colour[2] * 100 + 127) / 255);
    }
    for (int y = 0; y < image->height; y++) {
        dither_row(&canvas, image, y);
        if (y % BAND_ROWS == BAND_ROWS - 1 || y == image->height - 1) {
            write_band(out, &canvas, image->width);
        }
    }
    (void)fputs("\033\\", out);
    free(bits);
    free(errors);
    free(palette);
}
