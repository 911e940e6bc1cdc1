/* The texts that travel in picture files: written and read back, read from what A1111 and Pillow write, and bombs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "golden/golden.h"
#include "io/charset.h"
#include "io/exif.h"
#include "support/failing_allocator.h"

static const struct cyi_allocator *const memory = &mem_default_allocator;

static const enum cyi_image_format formats[] = { CYI_FORMAT_PNG, CYI_FORMAT_JPEG, CYI_FORMAT_WEBP };

/* What the fixtures were made with. */
static const char words[] = "a café at night, 雨, 🌧\nNegative prompt: blurry\n"
                            "Steps: 4, Sampler: Euler, CFG scale: 1, Seed: 7, Size: 20x12";
static const char latin[] = "a café at night\nSteps: 4, Seed: 7";

static struct cyi_image *make_picture(void) {
    struct cyi_image *image = NULL;
    assert_int_equal(image_create(memory, 20, 12, 3, &image, NULL), CYI_OK);
    for (int i = 0; i < 20 * 12 * 3; i++) {
        image->pixels[i] = (uint8_t)(i * 5);
    }
    return image;
}

static void assert_text(const char *text, const char *expected) {
    if (expected == NULL) {
        assert_null(text);
    } else {
        assert_non_null(text);
        assert_string_equal(text, expected);
    }
}

static void assert_round_trip(enum cyi_image_format format, const char *parameters, const char *json) {
    struct cyi_image *image = make_picture(), *again = NULL;
    struct cyi_image_options options = { .format = format, .quality = 100, .parameters = parameters, .json = json };
    void *data = NULL;
    size_t size = 0;
    char *read_parameters = NULL, *read_json = NULL;
    struct cyi_error err = { 0 };
    if (image_encode(memory, image, &options, &data, &size, &err) != CYI_OK ||
        image_read_texts(memory, "input", data, size, &read_parameters, &read_json, &err) != CYI_OK ||
        image_decode(memory, "input", data, size, &again, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    assert_text(read_parameters, parameters);
    assert_text(read_json, json);
    if (format != CYI_FORMAT_JPEG) {
        assert_memory_equal(again->pixels, image->pixels, 20 * 12 * 3);
    }
    mem_free(memory, read_parameters);
    mem_free(memory, read_json);
    mem_free(memory, data);
    cyi_image_free(again);
    cyi_image_free(image);
}

static void texts_come_back_in_every_format(void **state) {
    static const char json[] = "{\"prompt\":\"ein Bär, 雨, 🌧\",\"seed\":18446744073709551615}";
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_round_trip(formats[i], NULL, NULL);
        assert_round_trip(formats[i], "plain ASCII,\nSteps: 4", NULL);
        assert_round_trip(formats[i], latin, "{}");
        assert_round_trip(formats[i], words, json);
        assert_round_trip(formats[i], NULL, json);
        assert_round_trip(formats[i], "tabs\tand \"quotes\" and \\ and \r\n and \x7f", "{\"a\":1}");
    }
}

static void long_texts_come_back_in_png_and_webp(void **state) {
    enum { N = 3000000 };
    (void)state;
    char *text = malloc(N + 1);
    assert_non_null(text);
    for (int i = 0; i < N; i += 3) {
        memcpy(text + i, "雨", 3);
    }
    text[N] = 0;
    assert_round_trip(CYI_FORMAT_PNG, text, "{}");
    assert_round_trip(CYI_FORMAT_WEBP, text, "{}");
    free(text);
}

static void texts_too_long_for_jpeg_are_refused(void **state) {
    (void)state;
    struct cyi_image *image = make_picture();
    char *text = malloc(70001);
    assert_non_null(text);
    memset(text, 'a', 70000);
    text[70000] = 0;
    struct cyi_image_options options = { .format = CYI_FORMAT_JPEG, .json = text };
    void *data = NULL;
    size_t size = 0;
    struct cyi_error err = { 0 };
    assert_int_equal(image_encode(memory, image, &options, &data, &size, &err), CYI_E_ARGUMENT);
    assert_non_null(strstr(err.text, "save as PNG or WebP"));
    assert_null(data);
    text[65000] = 0;
    assert_round_trip(CYI_FORMAT_JPEG, "short", "{ }");
    free(text);
    cyi_image_free(image);
}

static void texts_that_are_not_utf8_are_refused(void **state) {
    (void)state;
    struct cyi_image *image = make_picture();
    struct cyi_image_options options = { .format = CYI_FORMAT_PNG, .parameters = "\xff\xfe" };
    void *data = NULL;
    size_t size = 0;
    assert_int_equal(image_encode(memory, image, &options, &data, &size, NULL), CYI_E_ARGUMENT);
    assert_null(data);
    cyi_image_free(image);
}

static bool contains(const uint8_t *data, size_t size, const char *bytes, size_t n) {
    return memmem(data, size, bytes, n) != NULL;
}

static void parameters_are_stored_as_a1111_stores_them(void **state) {
    (void)state;
    struct cyi_image *image = make_picture();
    void *data = NULL;
    size_t size = 0;
    struct cyi_image_options options = { .format = CYI_FORMAT_PNG, .parameters = latin };
    assert_int_equal(image_encode(memory, image, &options, &data, &size, NULL), CYI_OK);
    assert_true(contains(data, size, "tEXtparameters\0a caf\xe9 at", 24));
    mem_free(memory, data);
    options.parameters = words;
    assert_int_equal(image_encode(memory, image, &options, &data, &size, NULL), CYI_OK);
    assert_true(contains(data, size, "iTXtparameters\0\0\0\0\0a caf\xc3\xa9", 26));
    mem_free(memory, data);
    options.format = CYI_FORMAT_JPEG;
    assert_int_equal(image_encode(memory, image, &options, &data, &size, NULL), CYI_OK);
    assert_true(contains(data, size, "Exif\0\0MM\0*", 10));
    assert_true(contains(data, size, "UNICODE\0\0a\0 \0c\0a\0f\0\xe9", 20));
    mem_free(memory, data);
    cyi_image_free(image);
}

static void texts_written_by_others_are_read(void **state) {
    static const struct {
        const char *file, *parameters;
    } rows[] = {
        { "a1111-itxt.png", words },      { "a1111-itxt-packed.png", words }, { "a1111-text.png", latin },
        { "a1111-text-last.png", latin }, { "a1111-ztxt.png", latin },        { "a1111.jpg", words },
        { "a1111.webp", words },          { "comment-little.jpg", words },    { "comment-ascii.jpg", "plain words" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char path[128];
        char *data = NULL, *parameters = NULL, *json = NULL;
        size_t size = 0;
        struct cyi_error err = { 0 };
        (void)snprintf(path, sizeof path, "image/%s", rows[i].file);
        assert_int_equal(file_read_all(memory, fixture_path(path), 100000, &data, &size, &err), CYI_OK);
        if (image_read_texts(memory, path, data, size, &parameters, &json, &err) != CYI_OK) {
            fail_msg("%s", err.text);
        }
        assert_text(parameters, rows[i].parameters);
        assert_null(json);
        mem_free(memory, parameters);
        mem_free(memory, data);
    }
}

static void a_packed_text_that_unpacks_without_end_is_refused(void **state) {
    (void)state;
    char *data = NULL, *parameters = NULL, *json = NULL;
    size_t size = 0;
    struct cyi_error err = { 0 };
    struct cyi_image *image = NULL;
    assert_int_equal(file_read_all(memory, fixture_path("image/bomb-ztxt.png"), 100000, &data, &size, NULL), CYI_OK);
    assert_int_equal(image_read_texts(memory, "bomb.png", data, size, &parameters, &json, &err), CYI_E_FORMAT);
    assert_non_null(strstr(err.text, "bomb.png"));
    assert_non_null(strstr(err.text, "unpacks to more than"));
    assert_null(parameters);
    /* The pixels are fine, and may be had. */
    enum cyi_status st = image_decode(memory, "bomb.png", data, size, &image, NULL);
    assert_true(st == CYI_OK || st == CYI_E_FORMAT);
    cyi_image_free(image);
    mem_free(memory, data);
}

/* Every byte of a small EXIF block replaced by every value that matters: nothing is read outside. */
static void damaged_exif_is_harmless(void **state) {
    static const uint8_t values[] = { 0, 1, 2, 7, 0x7F, 0x80, 0xFF };
    (void)state;
    struct byte_buffer block;
    byte_buffer_init(&block, memory, 10000);
    assert_int_equal(exif_write_texts(&block, "some parameters", "{\"seed\":1}", NULL), CYI_OK);
    for (size_t at = 0; at < block.size_bytes; at++) {
        for (size_t k = 0; k < sizeof values; k++) {
            struct image_texts texts = { NULL, NULL };
            uint8_t *copy = malloc(block.size_bytes);
            assert_non_null(copy);
            memcpy(copy, block.data, block.size_bytes);
            copy[at] = values[k];
            assert_in_range(exif_get_orientation(copy, block.size_bytes), 1, 8);
            assert_int_equal(exif_read_texts(memory, copy, block.size_bytes, &texts, NULL), CYI_OK);
            mem_free(memory, texts.parameters);
            mem_free(memory, texts.json);
            free(copy);
        }
    }
    for (size_t n = 0; n < block.size_bytes; n++) {
        struct image_texts texts = { NULL, NULL };
        uint8_t *copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy + 1, block.data, n);
        assert_int_equal(exif_get_orientation(copy + 1, n), 1);
        assert_int_equal(exif_read_texts(memory, copy + 1, n, &texts, NULL), CYI_OK);
        mem_free(memory, texts.parameters);
        mem_free(memory, texts.json);
        free(copy);
    }
    byte_buffer_done(&block);
}

static void lone_surrogates_become_replacement_characters(void **state) {
    static const uint8_t units[] = { 0xD8, 0x00, 0x00, 'a', 0xDC, 0x00, 0x00, 'b', 0xD8, 0x3C, 0xDF, 0x27, 0xD8, 0x01 };
    (void)state;
    char *text = charset_from_utf16(memory, units, sizeof units, true);
    assert_text(text, "\xEF\xBF\xBD"
                      "a\xEF\xBF\xBD"
                      "b\xF0\x9F\x8C\xA7\xEF\xBF\xBD");
    mem_free(memory, text);
}

static void every_failed_allocation_is_reported_without_a_leak(void **state) {
    (void)state;
    struct cyi_image *image = make_picture();
    for (size_t i = 0; i < 6; i++) {
        struct cyi_image_options options = { .format = formats[i % 3],
                                             .parameters = i < 3 ? words : latin,
                                             .json = "{}" };
        enum cyi_status st = CYI_E_MEMORY;
        for (size_t n = 1; st != CYI_OK; n++) {
            struct failing_allocator failing;
            struct cyi_error err = { 0 };
            void *data = NULL;
            size_t size = 0;
            char *parameters = NULL, *json = NULL;
            failing_allocator_init(&failing, n);
            st = image_encode(&failing.allocator, image, &options, &data, &size, &err);
            if (st == CYI_OK) {
                st = image_read_texts(&failing.allocator, "input", data, size, &parameters, &json, &err);
            }
            mem_free(&failing.allocator, data);
            mem_free(&failing.allocator, parameters);
            mem_free(&failing.allocator, json);
            assert_int_equal(failing.n_live, 0);
            assert_true(st == CYI_OK || (st == CYI_E_MEMORY && strstr(err.text, "out of memory") != NULL));
        }
    }
    cyi_image_free(image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_come_back_in_every_format),
        cmocka_unit_test(long_texts_come_back_in_png_and_webp),
        cmocka_unit_test(texts_too_long_for_jpeg_are_refused),
        cmocka_unit_test(texts_that_are_not_utf8_are_refused),
        cmocka_unit_test(parameters_are_stored_as_a1111_stores_them),
        cmocka_unit_test(texts_written_by_others_are_read),
        cmocka_unit_test(a_packed_text_that_unpacks_without_end_is_refused),
        cmocka_unit_test(damaged_exif_is_harmless),
        cmocka_unit_test(lone_surrogates_become_replacement_characters),
        cmocka_unit_test(every_failed_allocation_is_reported_without_a_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
