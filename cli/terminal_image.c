/* terminal_image: see terminal_image.h. */
#include "terminal_image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>

#include "sixel.h"
#include "text.h"

#define KITTY_PIECE_BYTES 4096 /* of base64 in one escape sequence, by its specification */

/* ---- Which protocol ---- */

/* A variable of the environment that gives a terminal away. value NULL: set at all; else its beginning. */
struct clue {
    const char *variable, *value, *protocol;
};

/* The first that fits decides. Multiplexers come first: the variables of the terminal around them are still set, but pictures do
 * not pass through. */
static const struct clue clues[] = {
    { "TMUX", NULL, "blocks" },
    { "STY", NULL, "blocks" },
    { "TERM", "tmux", "blocks" },
    { "TERM", "screen", "blocks" },
    { "KITTY_WINDOW_ID", NULL, "kitty" },
    { "TERM", "xterm-kitty", "kitty" },
    { "TERM", "xterm-ghostty", "kitty" },
    { "TERM_PROGRAM", "ghostty", "kitty" },
    { "TERM_PROGRAM", "iTerm", "iterm2" },
    { "LC_TERMINAL", "iTerm2", "iterm2" },
    { "TERM_PROGRAM", "WezTerm", "iterm2" },
    { "TERM_PROGRAM", "mintty", "iterm2" },
    { "TERM_PROGRAM", "rio", "iterm2" },
    { "KONSOLE_VERSION", NULL, "kitty" },
    { "TERM", "foot", "sixel" },
    { "TERM", "mlterm", "sixel" },
    { "TERM", "yaft", "sixel" },
    { "TERM", "contour", "sixel" },
    { "TERM", "xterm-sixel", "sixel" },
};

static bool fits(const struct clue *clue) {
    const char *value = getenv(clue->variable);
    if (value == NULL || value[0] == 0) {
        return false;
    }
    return clue->value == NULL || strncasecmp(value, clue->value, strlen(clue->value)) == 0;
}

const char *terminal_image_detect(void) {
    for (size_t i = 0; i < sizeof clues / sizeof clues[0]; i++) {
        if (fits(&clues[i])) {
            return clues[i].protocol;
        }
    }
    return "blocks";
}

/* ---- How large ---- */

/* In characters, and a character in pixels. */
struct terminal {
    int columns, rows;
    int cell_width, cell_height;
};

static struct terminal measure_terminal(FILE *out) {
    struct terminal terminal = { .columns = 80, .rows = 24, .cell_width = 8, .cell_height = 16 };
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
        terminal.columns = size.ws_col;
        terminal.rows = size.ws_row;
        if (size.ws_xpixel >= size.ws_col && size.ws_ypixel >= size.ws_row) {
            terminal.cell_width = size.ws_xpixel / size.ws_col;
            terminal.cell_height = size.ws_ypixel / size.ws_row;
        }
    }
    return terminal;
}

/* width × height becomes the largest size of the same shape inside the limits; it never grows. */
static void fit(int max_width, int max_height, int *width, int *height) {
    int64_t w = *width, h = *height;
    if (w > max_width) {
        h = h * max_width / w;
        w = max_width;
    }
    if (h > max_height) {
        w = w * max_height / h;
        h = max_height;
    }
    *width = w < 1 ? 1 : (int)w;
    *height = h < 1 ? 1 : (int)h;
}

/* How many columns the picture gets when the terminal scales it. */
static int fit_columns(const struct terminal *terminal, const struct cyi_image *image) {
    int width = image->width, height = image->height;
    fit(terminal->columns * terminal->cell_width, (terminal->rows - 1) * terminal->cell_height, &width, &height);
    int columns = (width + terminal->cell_width - 1) / terminal->cell_width;
    return columns < 1 ? 1 : columns;
}

/* The mean of the pixels that fall on each new pixel; neither side grows. */
static enum cyi_status shrink(struct cyi_engine *engine, const struct cyi_image *image, int width, int height,
                              struct cyi_image **ret_image, struct cyi_error *err) {
    struct cyi_image *small = NULL;
    enum cyi_status st = cyi_image_create(engine, width, height, image->n_channels, &small, err);
    if (st != CYI_OK) {
        return st;
    }
    int n_channels = image->n_channels;
    for (int y = 0; y < height; y++) {
        int64_t top = (int64_t)y * image->height / height, bottom = (int64_t)(y + 1) * image->height / height;
        for (int x = 0; x < width; x++) {
            int64_t left = (int64_t)x * image->width / width, right = (int64_t)(x + 1) * image->width / width;
            int64_t sums[3] = { 0, 0, 0 }, n = (bottom - top) * (right - left);
            for (int64_t row = top; row < bottom; row++) {
                const uint8_t *pixel = image->pixels + (row * image->width + left) * n_channels;
                for (int64_t i = 0; i < (right - left) * n_channels; i++) {
                    sums[i % n_channels] += pixel[i];
                }
            }
            for (int c = 0; c < n_channels; c++) {
                small->pixels[((int64_t)y * width + x) * n_channels + c] = (uint8_t)((sums[c] + n / 2) / n);
            }
        }
    }
    *ret_image = small;
    return CYI_OK;
}

/* ---- Protocols that take a PNG file ---- */

/* Base64 of n bytes into text (4 / 3 of them, rounded up, no end). Returns the length. */
static size_t encode_base64(const uint8_t *bytes, size_t n, char *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *to = text;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t group =
            (uint32_t)bytes[i] << 16 | (i + 1 < n ? (uint32_t)bytes[i + 1] << 8 : 0) | (i + 2 < n ? bytes[i + 2] : 0);
        *to++ = digits[group >> 18];
        *to++ = digits[group >> 12 & 63];
        *to++ = i + 1 < n ? digits[group >> 6 & 63] : '=';
        *to++ = i + 2 < n ? digits[group & 63] : '=';
    }
    return (size_t)(to - text);
}

/* a=T: take and show; f=100: PNG; q=2: no answer; c: columns; m=1: more follows. */
static void write_kitty(FILE *out, const uint8_t *png, size_t size_bytes, int columns) {
    size_t piece_bytes = KITTY_PIECE_BYTES / 4 * 3;
    char text[KITTY_PIECE_BYTES];
    for (size_t at = 0; at < size_bytes; at += piece_bytes) {
        size_t n = size_bytes - at < piece_bytes ? size_bytes - at : piece_bytes;
        int has_more = at + n < size_bytes;
        if (at == 0) {
            (void)fprintf(out, "\033_Ga=T,f=100,q=2,c=%d,m=%d;", columns, has_more);
        } else {
            (void)fprintf(out, "\033_Gm=%d;", has_more);
        }
        (void)fwrite(text, 1, encode_base64(png + at, n, text), out);
        (void)fputs("\033\\", out);
    }
}

static void write_iterm2(FILE *out, const uint8_t *png, size_t size_bytes, int columns) {
    size_t piece_bytes = KITTY_PIECE_BYTES / 4 * 3;
    char text[KITTY_PIECE_BYTES];
    (void)fprintf(out, "\033]1337;File=inline=1;size=%zu;width=%d;preserveAspectRatio=1:", size_bytes, columns);
    for (size_t at = 0; at < size_bytes; at += piece_bytes) {
        size_t n = size_bytes - at < piece_bytes ? size_bytes - at : piece_bytes;
        (void)fwrite(text, 1, encode_base64(png + at, n, text), out);
    }
    (void)fputc('\a', out);
}

typedef void (*write_png_fn)(FILE *out, const uint8_t *png, size_t size_bytes, int columns);

static enum cyi_status show_png(FILE *out, struct cyi_engine *engine, const struct cyi_image *image,
                                write_png_fn write_png, struct cyi_error *err) {
    struct cyi_image_options options = { .format = CYI_FORMAT_PNG };
    struct terminal terminal = measure_terminal(out);
    void *png = NULL;
    size_t size_bytes = 0;
    enum cyi_status st = cyi_image_encode(engine, image, &options, &png, &size_bytes, err);
    if (st == CYI_OK) {
        write_png(out, png, size_bytes, fit_columns(&terminal, image));
        (void)fputc('\n', out);
        cyi_release(engine, png);
    }
    return st;
}

static enum cyi_status show_kitty(FILE *out, struct cyi_engine *engine, const struct cyi_image *image,
                                  struct cyi_error *err) {
    return show_png(out, engine, image, write_kitty, err);
}

static enum cyi_status show_iterm2(FILE *out, struct cyi_engine *engine, const struct cyi_image *image,
                                   struct cyi_error *err) {
    return show_png(out, engine, image, write_iterm2, err);
}

/* ---- Protocols that take pixels ---- */

static enum cyi_status show_sixel(FILE *out, struct cyi_engine *engine, const struct cyi_image *image,
                                  struct cyi_error *err) {
    struct terminal terminal = measure_terminal(out);
    struct cyi_image *small = NULL;
    int width = image->width, height = image->height;
    fit(terminal.columns * terminal.cell_width, (terminal.rows - 1) * terminal.cell_height, &width, &height);
    enum cyi_status st = shrink(engine, image, width, height, &small, err);
    if (st == CYI_OK) {
        sixel_write(out, small);
        (void)fputc('\n', out);
        cyi_image_free(small);
    }
    return st;
}

/* The colour of a pixel as 0xRRGGBB; -1 below the picture. */
static int32_t colour_at(const struct cyi_image *image, int x, int y) {
    if (y >= image->height) {
        return -1;
    }
    const uint8_t *pixel = image->pixels + ((size_t)y * (size_t)image->width + (size_t)x) * (size_t)image->n_channels;
    return image->n_channels == 3 ? pixel[0] << 16 | pixel[1] << 8 | pixel[2] : pixel[0] * 0x010101;
}

/* layer: 38 for the foreground, 48 for the background. */
static void write_colour(FILE *out, int layer, int32_t colour) {
    if (colour < 0) {
        (void)fprintf(out, "\033[%dm", layer + 1);
    } else {
        (void)fprintf(out, "\033[%d;2;%d;%d;%dm", layer, colour >> 16, colour >> 8 & 255, colour & 255);
    }
}

/* Two pixels a character: the upper one is the upper half block's colour, the lower one the background's. */
static enum cyi_status show_blocks(FILE *out, struct cyi_engine *engine, const struct cyi_image *image,
                                   struct cyi_error *err) {
    struct terminal terminal = measure_terminal(out);
    struct cyi_image *small = NULL;
    int width = image->width, height = image->height;
    fit(terminal.columns, 2 * (terminal.rows - 1), &width, &height);
    enum cyi_status st = shrink(engine, image, width, height, &small, err);
    if (st != CYI_OK) {
        return st;
    }
    for (int y = 0; y < height; y += 2) {
        int32_t upper_before = -1, lower_before = -1;
        for (int x = 0; x < width; x++) {
            int32_t upper = colour_at(small, x, y), lower = colour_at(small, x, y + 1);
            if (upper != upper_before) {
                write_colour(out, 38, upper);
            }
            if (lower != lower_before) {
                write_colour(out, 48, lower);
            }
            (void)fputs("▀", out);
            upper_before = upper;
            lower_before = lower;
        }
        (void)fputs("\033[0m\n", out);
    }
    cyi_image_free(small);
    return CYI_OK;
}

/* ---- */

typedef enum cyi_status (*show_fn)(FILE *out, struct cyi_engine *engine, const struct cyi_image *image,
                                   struct cyi_error *err);

enum cyi_status terminal_image_show(FILE *out, struct cyi_engine *engine, const struct cyi_image *image,
                                    const char *protocol, struct cyi_error *err) {
    static const struct {
        const char *name;
        show_fn show;
    } protocols[] = {
        { "kitty", show_kitty },
        { "iterm2", show_iterm2 },
        { "sixel", show_sixel },
        { "blocks", show_blocks },
    };
    if (protocol == NULL) {
        protocol = terminal_image_detect();
    }
    for (size_t i = 0; i < sizeof protocols / sizeof protocols[0]; i++) {
        if (strcmp(protocol, protocols[i].name) == 0) {
            enum cyi_status st = protocols[i].show(out, engine, image, err);
            if (st == CYI_OK && (fflush(out) != 0 || ferror(out))) {
                st = text_error(err, CYI_E_IO, "the picture could not be written to the terminal: %s", strerror(errno));
            }
            return st;
        }
    }
    return text_error(err, CYI_E_ARGUMENT, "unknown way to show a picture: \"%s\" (kitty, iterm2, sixel or blocks)",
                      protocol);
}
