/* Reading pictures: every recorded file, and files that are cut, damaged, too large or something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "golden/golden.h"
#include "io/image_file.h"
#include "support/failing_allocator.h"

static struct {
    json_t *list; /* golden.json's "decode" */
    json_t *root;
} recorded;

static int open_recorded(void **state) {
    (void)state;
    recorded.root = json_load_file(fixture_path("golden/image/golden.json"), 0, NULL);
    recorded.list = json_object_get(recorded.root, "decode");
    return json_array_size(recorded.list) > 30 ? 0 : -1;
}

static int close_recorded(void **state) {
    (void)state;
    json_decref(recorded.root);
    return 0;
}

static const char *file_at(size_t i) {
    return json_string_value(json_object_get(json_array_get(recorded.list, i), "file"));
}

/* A file below fixtures/ in a block of exactly its size, so that a sanitizer sees the first byte read too far. */
static uint8_t *read_fixture(const char *relative, size_t *ret_size) {
    FILE *stream = fopen(fixture_path(relative), "rb");
    assert_non_null(stream);
    assert_int_equal(fseek(stream, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(stream);
    rewind(stream);
    uint8_t *data = malloc(size);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, size, stream), size);
    assert_int_equal(fclose(stream), 0);
    *ret_size = size;
    return data;
}

static uint8_t *read_golden(size_t i, size_t *ret_size) {
    char relative[128];
    (void)snprintf(relative, sizeof relative, "golden/image/%s", file_at(i));
    return read_fixture(relative, ret_size);
}

static void recorded_files_decode_within_their_tolerance(void **state) {
    (void)state;
    struct safetensors *golden = golden_open("image");
    for (size_t i = 0; i < json_array_size(recorded.list); i++) {
        char name[128];
        struct cyi_image *image = NULL;
        struct cyi_error err = { 0 };
        (void)snprintf(name, sizeof name, "golden/image/%s", file_at(i));
        if (image_load(&mem_default_allocator, fixture_path(name), &image, &err) != CYI_OK) {
            fail_msg("%s", err.text);
        }
        (void)snprintf(name, sizeof name, "decode.%s", strrchr(file_at(i), '/') + 1);
        struct tensor expected = golden_tensor(golden, name);
        assert_int_equal(image->n_channels, 3);
        assert_int_equal(image->height, expected.shape[0]);
        assert_int_equal(image->width, expected.shape[1]);
        int worst = 0;
        for (int64_t k = 0; k < tensor_n_elements(&expected); k++) {
            int difference = abs(image->pixels[k] - ((const uint8_t *)expected.data)[k]);
            worst = difference > worst ? difference : worst;
        }
        json_int_t tolerance = json_integer_value(json_object_get(json_array_get(recorded.list, i), "tolerance"));
        if (worst > tolerance) {
            fail_msg("%s is off by %d levels", name, worst);
        }
        cyi_image_free(image);
    }
    safetensors_close(golden);
}

static void expect_format_error(const uint8_t *data, size_t size, const char *word) {
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    struct cyi_image *image = NULL;
    struct cyi_error err = { 0 };
    assert_non_null(copy);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    enum cyi_status st = image_decode(&mem_default_allocator, "input.file", copy, size, &image, &err);
    if (st != CYI_E_FORMAT || image != NULL) {
        fail_msg("%zu bytes gave \"%s\" %s", size, cyi_status_name(st), err.text);
    }
    assert_non_null(strstr(err.text, "input.file"));
    if (word != NULL && strstr(err.text, word) == NULL) {
        fail_msg("\"%s\" does not say %s", err.text, word);
    }
    free(copy);
}

static void a_file_cut_anywhere_is_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < json_array_size(recorded.list); i++) {
        size_t size;
        uint8_t *data = read_golden(i, &size);
        for (size_t cut = 0; cut < size; cut += 64) {
            expect_format_error(data, cut, NULL);
        }
        for (size_t missing = 1; missing < 16; missing++) {
            expect_format_error(data, size - missing, NULL);
        }
        free(data);
    }
}

static void a_file_with_a_flipped_bit_decodes_or_is_refused(void **state) {
    (void)state;
    uint32_t random = 1;
    for (size_t i = 0; i < json_array_size(recorded.list); i++) {
        size_t size;
        uint8_t *data = read_golden(i, &size);
        for (int k = 0; k < 200; k++) {
            random = random * 1664525u + 1013904223u;
            size_t at = (random >> 4) % size;
            struct cyi_image *image = NULL;
            char *parameters = NULL, *json = NULL;
            data[at] ^= (uint8_t)(1u << (random & 7));
            enum cyi_status st = image_decode(&mem_default_allocator, "input", data, size, &image, NULL);
            assert_true(st == CYI_OK || st == CYI_E_FORMAT || st == CYI_E_MEMORY);
            assert_int_equal(st == CYI_OK, image != NULL);
            cyi_image_free(image);
            st = image_read_texts(&mem_default_allocator, "input", data, size, &parameters, &json, NULL);
            assert_true(st == CYI_OK || st == CYI_E_FORMAT || st == CYI_E_MEMORY);
            mem_free(&mem_default_allocator, parameters);
            mem_free(&mem_default_allocator, json);
            data[at] ^= (uint8_t)(1u << (random & 7));
        }
        free(data);
    }
}

static void damaged_pixels_of_a_png_are_refused(void **state) {
    (void)state;
    size_t size;
    uint8_t *data = read_fixture("golden/image/decode/rgb8.png", &size);
    data[size / 2] ^= 1;
    expect_format_error(data, size, "not a valid PNG");
    free(data);
}

static void other_files_are_refused_by_their_content(void **state) {
    static const char gif[] = "GIF89a\1\0\1\0";
    (void)state;
    expect_format_error((const uint8_t *)gif, sizeof gif, "neither PNG, JPEG nor WebP");
    expect_format_error(NULL, 0, "neither PNG, JPEG nor WebP");
}

static void animations_are_refused(void **state) {
    static const char *const files[] = { "image/animated.png", "image/animated.webp" };
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        size_t size;
        uint8_t *data = read_fixture(files[i], &size);
        expect_format_error(data, size, "animated");
        free(data);
    }
}

/* A counting allocator's calls stand for pixels: none may be asked for. */
static void expect_refused_before_pixels(const uint8_t *data, size_t size, const char *word) {
    struct failing_allocator failing;
    struct cyi_image *image = NULL;
    struct cyi_error err = { 0 };
    failing_allocator_init(&failing, 0);
    assert_int_equal(image_decode(&failing.allocator, "input", data, size, &image, &err), CYI_E_FORMAT);
    assert_int_equal(failing.n_calls, 0);
    if (strstr(err.text, word) == NULL) {
        fail_msg("\"%s\" does not say %s", err.text, word);
    }
}

static void put_big_endian(uint8_t *at, unsigned value, int n_bytes) {
    for (int i = 0; i < n_bytes; i++) {
        at[i] = (uint8_t)(value >> 8 * (n_bytes - 1 - i));
    }
}

static void too_large_pngs_are_refused_before_pixels_are_allocated(void **state) {
    static const unsigned sizes[][2] = { { 16385, 1 }, { 1, 16385 }, { 16384, 4097 },
                                         { 0, 5 },     { 5, 0 },     { 0xFFFFFFFF, 0xFFFFFFFF } };
    (void)state;
    size_t size;
    uint8_t *data = read_fixture("golden/image/decode/rgb8.png", &size);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        put_big_endian(data + 16, sizes[i][0], 4);
        put_big_endian(data + 20, sizes[i][1], 4);
        expect_refused_before_pixels(data, size, "pixels");
    }
    free(data);
}

static void too_large_jpegs_are_refused_before_pixels_are_allocated(void **state) {
    static const unsigned sizes[][2] = { { 16385, 8 }, { 8, 16385 }, { 16384, 4097 }, { 65500, 65500 } };
    (void)state;
    size_t size, at = 0;
    uint8_t *data = read_fixture("golden/image/decode/444.jpg", &size);
    while (data[at] != 0xFF || data[at + 1] != 0xC0) { /* the frame header */
        at++;
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        put_big_endian(data + at + 5, sizes[i][1], 2);
        put_big_endian(data + at + 7, sizes[i][0], 2);
        expect_refused_before_pixels(data, size, "pixels");
    }
    free(data);
}

static void too_large_webps_are_refused_before_pixels_are_allocated(void **state) {
    (void)state;
    size_t size, at = 12;
    uint8_t *data = read_fixture("golden/image/decode/lossless.webp", &size);
    assert_memory_equal(data + at, "VP8L", 4);
    uint32_t sides = 16383 | 16383u << 14; /* 16384 × 16384, each less one */
    for (int i = 0; i < 4; i++) {
        data[at + 9 + (size_t)i] = (uint8_t)(sides >> 8 * i);
    }
    expect_refused_before_pixels(data, size, "pixels");
    free(data);
}

static void jpegs_of_endless_scans_are_refused(void **state) {
    (void)state;
    size_t size, at = 0;
    uint8_t *data = read_fixture("golden/image/decode/progressive.jpg", &size);
    while (data[at] != 0xFF || data[at + 1] != 0xDA) { /* the first scan */
        at++;
    }
    size_t scan_bytes = 2 + ((size_t)data[at + 2] << 8 | data[at + 3]), more = 200 * scan_bytes;
    uint8_t *longer = malloc(size + more);
    assert_non_null(longer);
    memcpy(longer, data, at);
    for (int i = 0; i < 200; i++) {
        memcpy(longer + at + (size_t)i * scan_bytes, data + at, scan_bytes);
    }
    memcpy(longer + at + more, data + at, size - at);
    expect_refused_before_pixels(longer, size + more, "scans");
    free(longer);
    free(data);
}

static void files_over_the_limit_are_refused_unread(void **state) {
    static const uint8_t signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n' };
    (void)state;
    expect_refused_before_pixels(signature, CYI_MAX_IMAGE_FILE_BYTES + 1, "bytes");
}

static void every_failed_allocation_is_reported_without_a_leak(void **state) {
    (void)state;
    for (size_t i = 0; i < json_array_size(recorded.list); i++) {
        size_t size;
        uint8_t *data = read_golden(i, &size);
        enum cyi_status st = CYI_E_MEMORY;
        for (size_t n = 1; st != CYI_OK; n++) {
            struct failing_allocator failing;
            struct cyi_image *image = NULL;
            struct cyi_error err = { 0 };
            failing_allocator_init(&failing, n);
            st = image_decode(&failing.allocator, "input", data, size, &image, &err);
            assert_true(st == CYI_OK ||
                        (st == CYI_E_MEMORY && image == NULL && strstr(err.text, "out of memory") != NULL));
            cyi_image_free(image);
            assert_int_equal(failing.n_live, 0);
        }
        free(data);
    }
}

static bool has_alpha(const char *name) {
    static const char *const with_alpha[] = { "greyalpha8.png", "palette1.png", "palette2.png", "palette4.png",
                                              "palette8.png",   "rgb8-key.png", "rgba16.png",   "rgba8.png" };
    for (size_t i = 0; i < sizeof with_alpha / sizeof with_alpha[0]; i++) {
        if (strcmp(with_alpha[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static void alpha_is_found_where_a_png_has_it(void **state) {
    (void)state;
    for (size_t i = 0; i < json_array_size(recorded.list); i++) {
        size_t size;
        uint8_t *data = read_golden(i, &size);
        struct cyi_image *alpha = NULL;
        assert_int_equal(image_decode_alpha(&mem_default_allocator, "input", data, size, &alpha, NULL), CYI_OK);
        if ((alpha != NULL) != has_alpha(strrchr(file_at(i), '/') + 1)) {
            fail_msg("%s: %s", file_at(i), alpha != NULL ? "has no alpha" : "has alpha");
        }
        cyi_image_free(alpha);
        free(data);
    }
}

/* 2 × 2 pixels, RGBA; alpha 0, 128, 255 and 77. */
static const uint8_t small_png[] = {
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00,
    0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x02, 0x08, 0x06, 0x00, 0x00, 0x00, 0x72, 0xb6, 0x0d, 0x24, 0x00,
    0x00, 0x00, 0x1a, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0x60, 0x64, 0x62, 0x66, 0x60, 0x61, 0x65,
    0x6b, 0x60, 0x60, 0xe7, 0xe0, 0xfc, 0xcf, 0xc8, 0xc8, 0xe8, 0x0b, 0x00, 0x0c, 0x19, 0x01, 0xfd, 0x44,
    0xf9, 0x5c, 0xfc, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
};

static void alpha_comes_as_it_is_stored_or_is_refused(void **state) {
    static const uint8_t expected[] = { 0, 128, 255, 77 };
    (void)state;
    enum cyi_status st = CYI_E_MEMORY;
    for (size_t n = 1; st != CYI_OK; n++) {
        struct failing_allocator failing;
        struct cyi_image *alpha = NULL;
        failing_allocator_init(&failing, n);
        st = image_decode_alpha(&failing.allocator, "input", small_png, sizeof small_png, &alpha, NULL);
        assert_true(st == CYI_E_MEMORY ? alpha == NULL : st == CYI_OK && alpha != NULL);
        if (alpha != NULL) {
            assert_int_equal(alpha->width * 10 + alpha->height, 22);
            assert_int_equal(alpha->n_channels, 1);
            assert_memory_equal(alpha->pixels, expected, sizeof expected);
        }
        cyi_image_free(alpha);
        assert_int_equal(failing.n_live, 0);
    }
    for (size_t cut = 0; cut < sizeof small_png; cut++) {
        struct cyi_image *alpha = NULL;
        assert_int_equal(image_decode_alpha(&mem_default_allocator, "input", small_png, cut, &alpha, NULL),
                         CYI_E_FORMAT);
        assert_null(alpha);
    }
}

static void new_pictures_are_black_and_checked(void **state) {
    (void)state;
    struct cyi_image *image = NULL;
    const struct cyi_allocator *memory = &mem_default_allocator;
    assert_int_equal(image_create(memory, 3, 2, 3, &image, NULL), CYI_OK);
    for (int i = 0; i < 18; i++) {
        assert_int_equal(image->pixels[i], 0);
    }
    cyi_image_free(image);
    image = NULL;
    cyi_image_free(NULL);
    assert_int_equal(image_create(memory, 0, 2, 3, &image, NULL), CYI_E_ARGUMENT);
    assert_int_equal(image_create(memory, 2, -2, 3, &image, NULL), CYI_E_ARGUMENT);
    assert_int_equal(image_create(memory, 2, 2, 4, &image, NULL), CYI_E_ARGUMENT);
    assert_int_equal(image_create(memory, 16385, 1, 1, &image, NULL), CYI_E_ARGUMENT);
    assert_int_equal(image_create(memory, 16384, 16384, 1, &image, NULL), CYI_E_ARGUMENT);
    assert_null(image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_files_decode_within_their_tolerance),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_file_with_a_flipped_bit_decodes_or_is_refused),
        cmocka_unit_test(damaged_pixels_of_a_png_are_refused),
        cmocka_unit_test(other_files_are_refused_by_their_content),
        cmocka_unit_test(animations_are_refused),
        cmocka_unit_test(too_large_pngs_are_refused_before_pixels_are_allocated),
        cmocka_unit_test(too_large_jpegs_are_refused_before_pixels_are_allocated),
        cmocka_unit_test(too_large_webps_are_refused_before_pixels_are_allocated),
        cmocka_unit_test(jpegs_of_endless_scans_are_refused),
        cmocka_unit_test(files_over_the_limit_are_refused_unread),
        cmocka_unit_test(every_failed_allocation_is_reported_without_a_leak),
        cmocka_unit_test(alpha_is_found_where_a_png_has_it),
        cmocka_unit_test(alpha_comes_as_it_is_stored_or_is_refused),
        cmocka_unit_test(new_pictures_are_black_and_checked),
    };
    return cmocka_run_group_tests(tests, open_recorded, close_recorded);
}
