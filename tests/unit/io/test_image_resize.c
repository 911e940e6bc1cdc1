/* Resizing against Pillow's and diffusers' recorded results. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "golden/golden.h"
#include "io/resize.h"
#include "support/failing_allocator.h"

static struct cyi_image *load(const char *relative) {
    struct cyi_image *image = NULL;
    struct cyi_error err = { 0 };
    if (image_load(&mem_default_allocator, fixture_path(relative), &image, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    return image;
}

static void assert_equal_to_golden(const struct cyi_image *image, const struct safetensors *golden, const char *name) {
    struct tensor expected = golden_tensor(golden, name);
    assert_int_equal(expected.shape[0], image->height);
    assert_int_equal(expected.shape[1], image->width);
    assert_int_equal(expected.shape[2], image->n_channels);
    assert_memory_equal(image->pixels, expected.data, (size_t)tensor_n_elements(&expected));
}

static void lanczos_equals_pillow_bit_for_bit(void **state) {
    static const int sizes[][2] = { { 30, 23 }, { 61, 20 }, { 100, 80 }, { 16, 47 }, { 7, 5 } };
    (void)state;
    struct safetensors *golden = golden_open("image");
    struct cyi_image *source = load("golden/image/reference/lanczos.png");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct cyi_image *out = NULL;
        char name[64];
        assert_int_equal(image_resize_lanczos(&mem_default_allocator, source, sizes[i][0], sizes[i][1], &out, NULL),
                         CYI_OK);
        (void)snprintf(name, sizeof name, "resize.%dx%d", sizes[i][0], sizes[i][1]);
        assert_equal_to_golden(out, golden, name);
        cyi_image_free(out);
    }
    cyi_image_free(source);
    safetensors_close(golden);
}

static void lanczos_equals_the_default_resize_mode(void **state) {
    (void)state;
    struct safetensors *golden = golden_open("image");
    struct cyi_image *source = load("golden/image/reference/lanczos.png"), *out = NULL;
    struct tensor expected = golden_tensor(golden, "resize.default"); /* [3, 32, 48], -1 … 1 */
    assert_int_equal(image_resize_lanczos(&mem_default_allocator, source, 48, 32, &out, NULL), CYI_OK);
    for (int i = 0; i < 32 * 48; i++) {
        for (int c = 0; c < 3; c++) {
            float value = dtype_load(expected.dtype, expected.data, c * 32 * 48 + i);
            assert_int_equal(lrintf((value + 1.0f) * 127.5f), out->pixels[3 * i + c]);
        }
    }
    cyi_image_free(out);
    cyi_image_free(source);
    safetensors_close(golden);
}

static void references_equal_the_pipelines(void **state) {
    static const char *const names[] = { "crop", "odd", "exact", "wide" };
    static const char *const resized[] = { "big", "long" };
    (void)state;
    struct safetensors *golden = golden_open("image");
    char name[96];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct cyi_image *out = NULL;
        (void)snprintf(name, sizeof name, "golden/image/reference/%s.png", names[i]);
        struct cyi_image *source = load(name);
        assert_int_equal(image_prepare_reference(&mem_default_allocator, source, 1024 * 1024, 16, &out, NULL), CYI_OK);
        (void)snprintf(name, sizeof name, "reference.%s.u8", names[i]);
        assert_equal_to_golden(out, golden, name);
        cyi_image_free(out);
        cyi_image_free(source);
    }
    for (size_t i = 0; i < sizeof resized / sizeof resized[0]; i++) {
        struct cyi_image *out = NULL;
        (void)snprintf(name, sizeof name, "golden/image/reference/%s.png", resized[i]);
        struct cyi_image *source = load(name);
        (void)snprintf(name, sizeof name, "golden/image/reference/%s.expected.png", resized[i]);
        struct cyi_image *expected = load(name);
        assert_int_equal(image_prepare_reference(&mem_default_allocator, source, 1024 * 1024, 16, &out, NULL), CYI_OK);
        assert_int_equal(out->width, expected->width);
        assert_int_equal(out->height, expected->height);
        assert_memory_equal(out->pixels, expected->pixels, (size_t)out->width * (size_t)out->height * 3);
        cyi_image_free(out);
        cyi_image_free(source);
        cyi_image_free(expected);
    }
    safetensors_close(golden);
}

static void references_have_the_sizes_of_diffusers(void **state) {
    static const int cases[][4] = { { 1025, 1024, 1024, 1023 }, { 2048, 2048, 1024, 1024 }, { 4000, 3000, 1182, 886 },
                                    { 1920, 1080, 1365, 768 },  { 5000, 700, 2736, 383 },   { 1023, 1027, 1022, 1026 },
                                    { 9999, 1251, 2895, 362 } };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cyi_image *source = NULL, *out = NULL;
        assert_int_equal(image_create(&mem_default_allocator, cases[i][0], cases[i][1], 1, &source, NULL), CYI_OK);
        assert_int_equal(image_prepare_reference(&mem_default_allocator, source, 1024 * 1024, 1, &out, NULL), CYI_OK);
        assert_int_equal(out->width, cases[i][2]);
        assert_int_equal(out->height, cases[i][3]);
        assert_int_equal(out->n_channels, 3); /* grey became RGB */
        cyi_image_free(out);
        cyi_image_free(source);
    }
}

static void references_too_small_or_too_long_are_refused(void **state) {
    static const int refused[][2] = { { 63, 64 }, { 64, 63 }, { 64, 513 }, { 520, 64 } };
    (void)state;
    struct cyi_image *source = NULL, *out = NULL;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct cyi_error err = { 0 };
        assert_int_equal(image_create(&mem_default_allocator, refused[i][0], refused[i][1], 3, &source, NULL), CYI_OK);
        assert_int_equal(image_prepare_reference(&mem_default_allocator, source, 1024 * 1024, 16, &out, &err),
                         CYI_E_ARGUMENT);
        assert_null(out);
        assert_non_null(strstr(err.text, "reference picture"));
        cyi_image_free(source);
    }
    assert_int_equal(image_create(&mem_default_allocator, 64, 512, 3, &source, NULL), CYI_OK);
    assert_int_equal(image_prepare_reference(&mem_default_allocator, source, 1024 * 1024, 16, &out, NULL), CYI_OK);
    cyi_image_free(out);
    cyi_image_free(source);
}

static void masks_equal_the_mask_processor(void **state) {
    (void)state;
    struct safetensors *golden = golden_open("image");
    struct cyi_image *source = load("golden/image/reference/mask.png");
    struct arena *arena = NULL;
    struct tensor plane, expected = golden_tensor(golden, "mask.resized");
    assert_int_equal(arena_create(&mem_default_allocator, &arena, NULL), CYI_OK);
    assert_int_equal(image_prepare_mask(&mem_default_allocator, arena, source, 80, 64, &plane, NULL), CYI_OK);
    assert_true(golden_nmse(&plane, &expected) <= 0);
    arena_free(arena);
    cyi_image_free(source);
    safetensors_close(golden);
}

/* The same picture as in the recording: channel c of pixel (x, y) is (x (7 + c) + y (3 + 2 c) + x y) mod 256. */
static struct cyi_image *make_pattern(int width, int height, int n_channels) {
    struct cyi_image *image = NULL;
    assert_int_equal(image_create(&mem_default_allocator, width, height, n_channels, &image, NULL), CYI_OK);
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            for (int c = 0; c < n_channels; c++) {
                image->pixels[(y * width + x) * n_channels + c] = (uint8_t)(x * (7 + c) + y * (3 + 2 * c) + x * y);
            }
        }
    }
    return image;
}

static uint32_t adler32_of(const struct cyi_image *image) {
    uint32_t low = 1, high = 0;
    size_t n = (size_t)image->width * (size_t)image->height * (size_t)image->n_channels;
    for (size_t i = 0; i < n; i++) {
        low = (low + image->pixels[i]) % 65521;
        high = (high + low) % 65521;
    }
    return high << 16 | low;
}

struct recorded {
    int width, height, n_channels, to_width, to_height;
    uint32_t adler32;
};

static void lanczos_equals_pillow_for_odd_sizes(void **state) {
    static const struct recorded rows[] = {
        { 61, 47, 3, 61, 47, 0xCCA3957E }, { 61, 47, 3, 33, 90, 0x4B542E6E }, { 61, 47, 1, 1, 1, 0x00800080 },
        { 1, 1, 3, 9, 4, 0x006C0001 },     { 200, 3, 1, 7, 300, 0x675B07E5 }, { 301, 257, 3, 128, 77, 0x61199436 },
        { 64, 64, 3, 64, 31, 0xEF8482A8 }, { 64, 64, 1, 31, 64, 0x75FBDD0B }, { 500, 400, 3, 499, 401, 0x62CC9FF2 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cyi_image *source = make_pattern(rows[i].width, rows[i].height, rows[i].n_channels), *out = NULL;
        assert_int_equal(
            image_resize_lanczos(&mem_default_allocator, source, rows[i].to_width, rows[i].to_height, &out, NULL),
            CYI_OK);
        assert_int_equal(adler32_of(out), rows[i].adler32);
        cyi_image_free(out);
        cyi_image_free(source);
    }
}

static void covering_equals_diffusers_crop_mode(void **state) {
    static const struct recorded rows[] = {
        { 90, 70, 3, 64, 64, 0x2996E3BD },   { 70, 90, 3, 64, 64, 0x28FBE858 }, { 100, 50, 3, 50, 25, 0xDC753DAC },
        { 99, 51, 3, 64, 48, 0xB274ECC3 },   { 51, 99, 3, 64, 48, 0x7646E904 }, { 33, 33, 3, 65, 33, 0x3F6785BE },
        { 640, 480, 3, 97, 61, 0x81D08BED },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cyi_image *source = make_pattern(rows[i].width, rows[i].height, rows[i].n_channels), *out = NULL;
        assert_int_equal(image_cover(&mem_default_allocator, source, rows[i].to_width, rows[i].to_height, &out, NULL),
                         CYI_OK);
        assert_int_equal(adler32_of(out), rows[i].adler32);
        cyi_image_free(out);
        cyi_image_free(source);
    }
}

static void colour_masks_equal_the_mask_processor(void **state) {
    static const struct recorded rows[] = {
        { 90, 70, 3, 80, 64, 0xE69809BA },
        { 50, 60, 3, 64, 96, 0x2D590B63 },
        { 50, 60, 1, 64, 96, 0x56240BE7 },
        { 300, 200, 3, 64, 64, 0x166007C8 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cyi_image *source = make_pattern(rows[i].width, rows[i].height, rows[i].n_channels), *out = NULL;
        struct arena *arena = NULL;
        struct tensor plane;
        assert_int_equal(arena_create(&mem_default_allocator, &arena, NULL), CYI_OK);
        assert_int_equal(image_prepare_mask(&mem_default_allocator, arena, source, rows[i].to_width, rows[i].to_height,
                                            &plane, NULL),
                         CYI_OK);
        assert_int_equal(image_create(&mem_default_allocator, rows[i].to_width, rows[i].to_height, 1, &out, NULL),
                         CYI_OK);
        for (int64_t k = 0; k < tensor_n_elements(&plane); k++) {
            out->pixels[k] = ((const float *)plane.data)[k] > 0.5f;
        }
        assert_int_equal(adler32_of(out), rows[i].adler32);
        arena_free(arena);
        cyi_image_free(out);
        cyi_image_free(source);
    }
}

static void bilinear_equals_torch_interpolate(void **state) {
    /* x[i] = ((i × 37) mod 101) / 101 */
    static const struct {
        int64_t from_y, from_x, to_y, to_x;
        float values[12]; /* every (n / 12)-th */
    } rows[] = {
        { 4,
          5,
          8,
          10,
          { 0.0f, 0.25742576f, 0.41584161f, 0.62376237f, 0.69368815f, 0.24752477f, 0.70544553f, 0.71287131f, 0.2667079f,
            0.53712869f, 0.54455447f, 0.70297027f } },
        { 8,
          8,
          3,
          5,
          { 0.63547862f, 0.63828385f, 0.22442244f, 0.7105611f, 0.56732672f, 0.4534654f, 0.53960395f, 0.62574255f,
            0.68250823f, 0.3686468f, 0.43811893f, 0.44092405f } },
        { 6,
          7,
          6,
          7,
          { 0.0f, 0.099009901f, 0.56435645f, 0.66336632f, 0.12871288f, 0.22772278f, 0.69306928f, 0.79207921f,
            0.25742576f, 0.35643566f, 0.82178217f, 0.9207921f } },
        { 1,
          9,
          4,
          3,
          { 0.36633664f, 0.46534654f, 0.56435645f, 0.36633664f, 0.46534654f, 0.56435645f, 0.36633664f, 0.46534654f,
            0.56435645f, 0.36633664f, 0.46534654f, 0.56435645f } },
        { 7,
          3,
          29,
          17,
          { 0.0f, 0.3119314f, 0.79071361f, 0.23748319f, 0.73781461f, 0.2492318f, 0.66336632f, 0.07750085f, 0.58891815f,
            0.38336712f, 0.53601915f, 0.83833063f } },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        float data[64];
        struct arena *arena = NULL;
        struct tensor x = tensor_2d(DTYPE_F32, rows[i].from_y, rows[i].from_x, data), out;
        for (int k = 0; k < rows[i].from_y * rows[i].from_x; k++) {
            data[k] = (float)(k * 37 % 101) / 101.0f;
        }
        assert_int_equal(arena_create(&mem_default_allocator, &arena, NULL), CYI_OK);
        assert_int_equal(plane_resize_bilinear(arena, &x, rows[i].to_y, rows[i].to_x, &out, NULL), CYI_OK);
        int64_t n = tensor_n_elements(&out);
        for (int k = 0; k < 12; k++) {
            assert_true(fabsf(((const float *)out.data)[k * n / 12] - rows[i].values[k]) <= 1e-6f);
        }
        arena_free(arena);
    }
}

static void impossible_sizes_are_refused(void **state) {
    (void)state;
    struct cyi_image *source = make_pattern(8, 8, 3), *out = NULL;
    const struct cyi_allocator *memory = &mem_default_allocator;
    struct cyi_image *line = make_pattern(16384, 1, 1);
    assert_int_equal(image_resize_lanczos(memory, source, 0, 4, &out, NULL), CYI_E_ARGUMENT);
    assert_int_equal(image_resize_lanczos(memory, source, 4, CYI_MAX_IMAGE_SIDE + 1, &out, NULL), CYI_E_ARGUMENT);
    assert_int_equal(image_resize_lanczos(memory, source, 16384, 16384, &out, NULL), CYI_E_ARGUMENT);
    assert_int_equal(image_crop(memory, source, 5, 0, 4, 8, &out, NULL), CYI_E_ARGUMENT);
    assert_int_equal(image_crop(memory, source, -1, 0, 4, 8, &out, NULL), CYI_E_ARGUMENT);
    assert_int_equal(image_crop(memory, source, 0, 8, 1, 1, &out, NULL), CYI_E_ARGUMENT);
    assert_int_equal(image_cover(memory, line, 64, 64, &out, NULL), CYI_E_ARGUMENT);
    assert_null(out);
    cyi_image_free(line);
    cyi_image_free(source);
}

static void every_failed_allocation_is_reported_without_a_leak(void **state) {
    (void)state;
    struct cyi_image *source = make_pattern(80, 70, 1);
    for (size_t n = 1;; n++) {
        struct failing_allocator failing;
        struct cyi_image *cover = NULL, *reference = NULL;
        struct cyi_error err = { 0 };
        failing_allocator_init(&failing, n);
        enum cyi_status st = image_cover(&failing.allocator, source, 30, 40, &cover, &err);
        if (st == CYI_OK) {
            st = image_prepare_reference(&failing.allocator, source, 4500, 16, &reference, &err);
        }
        cyi_image_free(cover);
        cyi_image_free(reference);
        assert_int_equal(failing.n_live, 0);
        if (st == CYI_OK) {
            assert_true(n > 10);
            break;
        }
        assert_int_equal(st, CYI_E_MEMORY);
        assert_non_null(strstr(err.text, "out of memory"));
    }
    cyi_image_free(source);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanczos_equals_pillow_bit_for_bit),
        cmocka_unit_test(lanczos_equals_the_default_resize_mode),
        cmocka_unit_test(lanczos_equals_pillow_for_odd_sizes),
        cmocka_unit_test(references_equal_the_pipelines),
        cmocka_unit_test(references_have_the_sizes_of_diffusers),
        cmocka_unit_test(references_too_small_or_too_long_are_refused),
        cmocka_unit_test(covering_equals_diffusers_crop_mode),
        cmocka_unit_test(masks_equal_the_mask_processor),
        cmocka_unit_test(colour_masks_equal_the_mask_processor),
        cmocka_unit_test(bilinear_equals_torch_interpolate),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(every_failed_allocation_is_reported_without_a_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
