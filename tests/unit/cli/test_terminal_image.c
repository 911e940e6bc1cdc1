/* Pictures in the terminal: the bytes of every protocol, read back by small decoders, and which protocol is chosen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../../cli/sixel.h"
#include "../../../cli/terminal_image.h"

static struct cyi_engine *engine;

static const char *const variables[] = { "TMUX",         "STY",         "TERM",           "KITTY_WINDOW_ID",
                                         "TERM_PROGRAM", "LC_TERMINAL", "KONSOLE_VERSION" };

static int create_engine(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        (void)unsetenv(variables[i]);
    }
    return cyi_engine_create(NULL, &engine, NULL) == CYI_OK ? 0 : -1;
}

static int free_engine(void **state) {
    (void)state;
    cyi_engine_free(engine);
    return 0;
}

static struct cyi_image *make_picture(int width, int height, int n_channels) {
    struct cyi_image *image = NULL;
    assert_int_equal(cyi_image_create(engine, width, height, n_channels, &image, NULL), CYI_OK);
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            for (int c = 0; c < n_channels; c++) {
                int value = c == 0 ? x * 255 / width : c == 1 ? y * 255 / height : (x + y) * 255 / (width + height);
                image->pixels[(y * width + x) * n_channels + c] = (uint8_t)value;
            }
        }
    }
    return image;
}

/* What is written, as text; released with free. */
static char *shown(const struct cyi_image *image, const char *protocol, size_t *ret_size) {
    char *text = NULL;
    FILE *out = open_memstream(&text, ret_size);
    struct cyi_error err = { 0 };
    assert_non_null(out);
    if (terminal_image_show(out, engine, image, protocol, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(fclose(out), 0);
    return text;
}

/* Text that must come next; returns what is behind it. */
static const char *expect(const char *at, const char *text) {
    if (strncmp(at, text, strlen(text)) != 0) {
        fail_msg("\"%.40s\" where \"%s\" was expected", at + (at[0] == '\033'), text + (text[0] == '\033'));
    }
    return at + strlen(text);
}

static int digit_value(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = c != 0 ? strchr(digits, c) : NULL;
    return found != NULL ? (int)(found - digits) : -1;
}

/* Appends the bytes of base64 at *at, which moves behind it. */
static void read_base64(const char **at, uint8_t *bytes, size_t *n) {
    unsigned bits = 0, n_bits = 0;
    for (; digit_value(**at) >= 0; (*at)++) {
        bits = bits << 6 | (unsigned)digit_value(**at);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            bytes[(*n)++] = (uint8_t)(bits >> n_bits);
        }
    }
    while (**at == '=') {
        (*at)++;
    }
}

static void assert_is_png_of(const uint8_t *png, size_t n, const struct cyi_image *image) {
    struct cyi_image *again = NULL;
    assert_int_equal(cyi_image_decode(engine, png, n, &again, NULL), CYI_OK);
    assert_int_equal(again->width, image->width);
    assert_int_equal(again->height, image->height);
    assert_memory_equal(again->pixels, image->pixels, (size_t)image->width * (size_t)image->height * 3);
    cyi_image_free(again);
}

static void kitty_gets_the_png_in_pieces_of_4096(void **state) {
    (void)state;
    struct cyi_image *image = make_picture(300, 200, 3);
    for (int i = 0; i < 300 * 200 * 3; i++) {
        image->pixels[i] ^= (uint8_t)((unsigned)i * 2654435761u >> 27); /* so that the file has many pieces */
    }
    size_t size, n = 0;
    int n_pieces = 0;
    char *text = shown(image, "kitty", &size);
    uint8_t *png = malloc(size);
    assert_non_null(png);
    const char *at = expect(text, "\033_Ga=T,f=100,q=2,c=38,m=1;");
    for (bool has_more = true; has_more; n_pieces++) {
        if (n_pieces > 0) {
            at = expect(at, "\033_Gm=");
            has_more = *at == '1';
            at = expect(at + 1, ";");
        }
        const char *start = at;
        read_base64(&at, png, &n);
        assert_true(has_more ? at - start == 4096 : at - start <= 4096);
        at = expect(at, "\033\\");
    }
    assert_true(n_pieces > 2);
    assert_string_equal(at, "\n");
    assert_is_png_of(png, n, image);
    free(png);
    free(text);
    cyi_image_free(image);
}

static void kitty_gets_a_small_picture_in_one_piece(void **state) {
    (void)state;
    struct cyi_image *image = make_picture(5, 4, 3);
    size_t size;
    char *text = shown(image, "kitty", &size);
    (void)expect(text, "\033_Ga=T,f=100,q=2,c=1,m=0;iVBORw0KGgo");
    assert_non_null(strstr(text, "\033\\\n"));
    assert_null(strstr(text + 1, "\033_G"));
    free(text);
    cyi_image_free(image);
}

static void iterm2_gets_the_png_with_its_size(void **state) {
    (void)state;
    struct cyi_image *image = make_picture(64, 64, 3);
    size_t size, n = 0;
    char *text = shown(image, "iterm2", &size);
    uint8_t *png = malloc(size);
    assert_non_null(png);
    const char *at = expect(text, "\033]1337;File=inline=1;size=");
    char *end;
    unsigned long said = strtoul(at, &end, 10);
    at = expect(end, ";width=8;preserveAspectRatio=1:");
    read_base64(&at, png, &n);
    assert_string_equal(at, "\a\n");
    assert_int_equal(n, said);
    assert_is_png_of(png, n, image);
    free(png);
    free(text);
    cyi_image_free(image);
}

/* A sixel terminal: draws text into image, which has the size that the sequence says. Returns what is behind the sequence. */
static const char *draw_sixel(const char *text, struct cyi_image *image) {
    static uint8_t colours[256][3];
    int colour = 0, x = 0, band = 0;
    char *end;
    const char *at = expect(text, "\033P0;1q\"1;1;");
    assert_int_equal(strtol(at, &end, 10), image->width);
    assert_int_equal(strtol(end + 1, &end, 10), image->height);
    for (at = end; *at != '\033';) {
        long n = 1;
        if (*at == '#') {
            colour = (int)strtol(at + 1, &end, 10);
            assert_in_range(colour, 0, 255);
            if (*end == ';') {
                end = (char *)(uintptr_t)expect(end, ";2");
                for (int c = 0; c < 3; c++) {
                    long percent = strtol(end + 1, &end, 10);
                    assert_in_range(percent, 0, 100);
                    colours[colour][c] = (uint8_t)(percent * 255 / 100);
                }
            }
            at = end;
            continue;
        }
        if (*at == '$' || *at == '-') {
            band += *at++ == '-';
            x = 0;
            continue;
        }
        if (*at == '!') {
            n = strtol(at + 1, &end, 10);
            at = end;
        }
        assert_in_range(*at, '?', '~');
        for (int bits = *at++ - '?'; n > 0; n--, x++) {
            assert_in_range(x, 0, image->width - 1);
            for (int row = 0; row < 6; row++) {
                if ((bits >> row & 1) != 0) {
                    assert_in_range(band * 6 + row, 0, image->height - 1);
                    memcpy(image->pixels + ((band * 6 + row) * image->width + x) * 3, colours[colour], 3);
                }
            }
        }
    }
    assert_int_equal(band, (image->height + 5) / 6);
    return expect(at, "\033\\");
}

static double mean_difference(const struct cyi_image *x, const struct cyi_image *y) {
    double sum = 0;
    int n = x->width * x->height * 3;
    for (int i = 0; i < n; i++) {
        sum += abs(x->pixels[i] - y->pixels[x->n_channels == y->n_channels ? i : i / 3]);
    }
    return sum / n;
}

static void sixel_draws_the_picture(void **state) {
    static const int sizes[][3] = { { 120, 90, 3 }, { 31, 13, 1 }, { 1, 1, 3 }, { 7, 6, 3 } };
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct cyi_image *image = make_picture(sizes[i][0], sizes[i][1], sizes[i][2]), *drawn = NULL;
        size_t size;
        char *text = shown(image, "sixel", &size);
        assert_int_equal(cyi_image_create(engine, image->width, image->height, 3, &drawn, NULL), CYI_OK);
        assert_string_equal(draw_sixel(text, drawn), "\n");
        assert_true(mean_difference(drawn, image) < 8);
        cyi_image_free(drawn);
        cyi_image_free(image);
        free(text);
    }
}

static void sixel_keeps_a_picture_of_few_colours(void **state) {
    static const uint8_t colours[4][3] = { { 0, 0, 0 }, { 255, 0, 0 }, { 0, 255, 255 }, { 255, 255, 255 } };
    (void)state;
    struct cyi_image *image = make_picture(40, 20, 3), *drawn = NULL;
    for (int i = 0; i < 40 * 20; i++) {
        memcpy(image->pixels + 3 * i, colours[i % 7 % 4], 3);
    }
    size_t size;
    char *text = shown(image, "sixel", &size);
    assert_int_equal(cyi_image_create(engine, 40, 20, 3, &drawn, NULL), CYI_OK);
    (void)draw_sixel(text, drawn);
    assert_memory_equal(drawn->pixels, image->pixels, 40 * 20 * 3);
    cyi_image_free(drawn);
    cyi_image_free(image);
    free(text);
}

static void large_pictures_are_made_to_fit(void **state) {
    (void)state;
    struct cyi_image *image = make_picture(2000, 500, 3), *drawn = NULL;
    size_t size;
    char *text = shown(image, "sixel", &size); /* no terminal: 80 × 24 characters of 8 × 16 pixels */
    assert_int_equal(cyi_image_create(engine, 640, 160, 3, &drawn, NULL), CYI_OK);
    (void)draw_sixel(text, drawn);
    cyi_image_free(drawn);
    cyi_image_free(image);
    free(text);
    image = make_picture(500, 2000, 3);
    text = shown(image, "kitty", &size);
    (void)expect(text, "\033_Ga=T,f=100,q=2,c=12,");
    cyi_image_free(image);
    free(text);
}

static void blocks_have_two_pixels_a_character(void **state) {
    static const uint8_t pixels[3 * 2 * 3] = { 1, 2, 3, 1, 2, 3, 40, 50, 60, 7, 8, 9, 70, 80, 90, 255, 0, 255 };
    (void)state;
    struct cyi_image *image = make_picture(2, 3, 3);
    memcpy(image->pixels, pixels, sizeof pixels);
    size_t size;
    char *text = shown(image, "blocks", &size);
    assert_string_equal(text, "\033[38;2;1;2;3m\033[48;2;40;50;60m▀\033[48;2;7;8;9m▀\033[0m\n"
                              "\033[38;2;70;80;90m▀\033[38;2;255;0;255m▀\033[0m\n");
    free(text);
    cyi_image_free(image);
}

static void blocks_fit_the_screen(void **state) {
    (void)state;
    struct cyi_image *image = make_picture(400, 100, 1);
    size_t size;
    int n_lines = 0, n_blocks = 0;
    char *text = shown(image, NULL, &size);
    for (const char *at = text; *at != 0; at++) {
        n_lines += *at == '\n';
        n_blocks += strncmp(at, "▀", strlen("▀")) == 0;
    }
    assert_int_equal(n_lines, 10);
    assert_int_equal(n_blocks, 10 * 80);
    free(text);
    cyi_image_free(image);
}

static void the_environment_says_which_protocol(void **state) {
    static const struct {
        const char *variable, *value, *protocol;
    } rows[] = {
        { "TERM", "xterm-256color", "blocks" },  { "TERM", "xterm-kitty", "kitty" },
        { "TERM", "xterm-ghostty", "kitty" },    { "TERM", "foot-extra", "sixel" },
        { "TERM", "mlterm", "sixel" },           { "TERM_PROGRAM", "iTerm.app", "iterm2" },
        { "TERM_PROGRAM", "WezTerm", "iterm2" }, { "KITTY_WINDOW_ID", "1", "kitty" },
        { "KITTY_WINDOW_ID", "", "blocks" },     { "TERM", "screen-256color", "blocks" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(setenv(rows[i].variable, rows[i].value, 1), 0);
        assert_string_equal(terminal_image_detect(), rows[i].protocol);
        assert_int_equal(unsetenv(rows[i].variable), 0);
    }
    assert_int_equal(setenv("KITTY_WINDOW_ID", "1", 1), 0);
    assert_int_equal(setenv("TMUX", "/run/tmux,1,0", 1), 0);
    assert_string_equal(terminal_image_detect(), "blocks");
    assert_int_equal(unsetenv("TMUX"), 0);
    assert_int_equal(unsetenv("KITTY_WINDOW_ID"), 0);
}

static void unknown_protocols_are_refused(void **state) {
    (void)state;
    struct cyi_image *image = make_picture(2, 2, 3);
    struct cyi_error err = { 0 };
    assert_int_equal(terminal_image_show(stdout, engine, image, "ascii", &err), CYI_E_ARGUMENT);
    assert_non_null(strstr(err.text, "\"ascii\""));
    cyi_image_free(image);
}

static void a_terminal_that_is_gone_is_an_error(void **state) {
    (void)state;
    FILE *full = fopen("/dev/full", "w");
    if (full == NULL) {
        skip();
    }
    struct cyi_image *image = make_picture(20, 20, 3);
    struct cyi_error err = { 0 };
    assert_int_equal(terminal_image_show(full, engine, image, "blocks", &err), CYI_E_IO);
    (void)fclose(full);
    cyi_image_free(image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kitty_gets_the_png_in_pieces_of_4096),
        cmocka_unit_test(kitty_gets_a_small_picture_in_one_piece),
        cmocka_unit_test(iterm2_gets_the_png_with_its_size),
        cmocka_unit_test(sixel_draws_the_picture),
        cmocka_unit_test(sixel_keeps_a_picture_of_few_colours),
        cmocka_unit_test(large_pictures_are_made_to_fit),
        cmocka_unit_test(blocks_have_two_pixels_a_character),
        cmocka_unit_test(blocks_fit_the_screen),
        cmocka_unit_test(the_environment_says_which_protocol),
        cmocka_unit_test(unknown_protocols_are_refused),
        cmocka_unit_test(a_terminal_that_is_gone_is_an_error),
    };
    return cmocka_run_group_tests(tests, create_engine, free_engine);
}
