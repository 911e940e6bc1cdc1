/* Writing pictures: lossless where promised, all at once, and nothing left behind when it fails. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "golden/golden.h"
#include "io/image_file.h"
#include "support/failing_allocator.h"
#include "support/temp_folder.h"

static const struct cyi_allocator *const memory = &mem_default_allocator;

static char folder[TEMP_PATH_BYTES]; /* of the running test, empty at its start */

static int make_folder(void **state) {
    (void)state;
    temp_folder_create(folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    temp_folder_remove(folder);
    return 0;
}

static size_t n_files(void) {
    return temp_count(folder);
}

static const char *path_of(const char *name) {
    static char path[TEMP_PATH_BYTES];
    return temp_path(path, folder, name);
}

/* Smooth, with a little noise. */
static struct cyi_image *make_picture(int width, int height, int n_channels) {
    struct cyi_image *image = NULL;
    uint32_t random = 7;
    assert_int_equal(image_create(memory, width, height, n_channels, &image, NULL), CYI_OK);
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            for (int c = 0; c < n_channels; c++) {
                random = random * 1664525u + 1013904223u;
                int value = (x * 200 / width + y * 50 / height + c * 20) % 251 + (int)(random >> 30);
                image->pixels[(y * width + x) * n_channels + c] = (uint8_t)value;
            }
        }
    }
    return image;
}

static double saved_psnr(const char *name, int quality, int n_channels) {
    struct cyi_image *image = make_picture(67, 45, n_channels), *again = NULL;
    struct cyi_error err = { 0 };
    if (image_save(memory, image, path_of(name), &(struct cyi_image_options){ .quality = quality }, &err) != CYI_OK ||
        image_load(memory, path_of(name), &again, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(again->width, 67);
    assert_int_equal(again->height, 45);
    assert_int_equal(again->n_channels, 3);
    uint8_t expected[67 * 45 * 3];
    for (int i = 0; i < 67 * 45 * 3; i++) {
        expected[i] = image->pixels[n_channels == 3 ? i : i / 3];
    }
    double psnr = golden_psnr(again->pixels, expected, sizeof expected);
    cyi_image_free(again);
    cyi_image_free(image);
    return psnr;
}

static void png_and_webp_at_100_are_lossless(void **state) {
    (void)state;
    for (int n_channels = 1; n_channels <= 3; n_channels += 2) {
        assert_true(isinf(saved_psnr("a.png", 0, n_channels)));
        assert_true(isinf(saved_psnr("a.PNG", 0, n_channels)));
        assert_true(isinf(saved_psnr("a.webp", 100, n_channels)));
    }
    assert_int_equal(n_files(), 3);
}

static void lossy_formats_keep_what_their_quality_promises(void **state) {
    (void)state;
    for (int n_channels = 1; n_channels <= 3; n_channels += 2) {
        double high = saved_psnr("a.jpg", 95, n_channels), middle = saved_psnr("a.jpeg", 0, n_channels),
               low = saved_psnr("b.jpg", 10, n_channels);
        assert_true(high > 40 && middle > 37 && low > 20 && high > middle && middle > low);
        high = saved_psnr("a.webp", 95, n_channels);
        low = saved_psnr("b.webp", 10, n_channels);
        assert_true(high > 28 && low > 20 && high > low); /* colours always have half the resolution */
    }
}

static void an_existing_file_is_replaced(void **state) {
    (void)state;
    struct cyi_image *small = make_picture(5, 4, 3), *large = make_picture(50, 40, 3), *again = NULL;
    assert_int_equal(image_save(memory, large, path_of("a.png"), NULL, NULL), CYI_OK);
    assert_int_equal(image_save(memory, small, path_of("a.png"), NULL, NULL), CYI_OK);
    assert_int_equal(image_load(memory, path_of("a.png"), &again, NULL), CYI_OK);
    assert_int_equal(again->width, 5);
    assert_int_equal(n_files(), 1);
    cyi_image_free(again);
    cyi_image_free(small);
    cyi_image_free(large);
}

static void expect_io_error(const struct cyi_image *image, const char *path, const char *word) {
    struct cyi_error err = { 0 };
    assert_int_equal(image_save(memory, image, path, NULL, &err), CYI_E_IO);
    if (strstr(err.text, word) == NULL) {
        fail_msg("\"%s\" does not say %s", err.text, word);
    }
}

static void a_full_disk_leaves_the_old_file_and_nothing_else(void **state) {
    struct rlimit before, tight;
    (void)state;
    struct cyi_image *small = make_picture(5, 4, 3), *large = make_picture(200, 200, 3), *again = NULL;
    assert_int_equal(image_save(memory, small, path_of("a.png"), NULL, NULL), CYI_OK);
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    tight = before;
    tight.rlim_cur = 4096; /* stands in for a disk with 4 KiB left */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    expect_io_error(large, path_of("a.png"), strerror(EFBIG));
    expect_io_error(large, path_of("b.png"), "b.png");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(n_files(), 1);
    assert_int_equal(image_load(memory, path_of("a.png"), &again, NULL), CYI_OK);
    assert_int_equal(again->width, 5);
    cyi_image_free(again);
    cyi_image_free(small);
    cyi_image_free(large);
}

static void places_that_cannot_be_written_are_named(void **state) {
    (void)state;
    struct cyi_image *image = make_picture(5, 4, 3);
    expect_io_error(image, path_of("missing/a.png"), "missing");
    assert_int_equal(mkdir(path_of("folder.png"), 0700), 0);
    expect_io_error(image, path_of("folder.png"), "folder.png");
    assert_int_equal(rmdir(path_of("folder.png")), 0);
    if (geteuid() != 0) { /* root may write anywhere */
        assert_int_equal(chmod(folder, 0500), 0);
        expect_io_error(image, path_of("a.png"), strerror(EACCES));
        assert_int_equal(chmod(folder, 0700), 0);
    }
    assert_int_equal(n_files(), 0);
    cyi_image_free(image);
}

static void options_that_cannot_be_are_refused(void **state) {
    (void)state;
    struct cyi_image *image = make_picture(5, 4, 3);
    struct cyi_image broken = *image;
    void *data = NULL;
    size_t size = 0;
    struct cyi_error err = { 0 };
    assert_int_equal(image_save(memory, image, path_of("a.gif"), NULL, &err), CYI_E_ARGUMENT);
    assert_non_null(strstr(err.text, "a.gif"));
    assert_int_equal(image_save(memory, image, path_of(".png"), NULL, NULL), CYI_OK);
    struct cyi_image_options options = { .format = CYI_FORMAT_JPEG, .quality = 101 };
    assert_int_equal(image_encode(memory, image, &options, &data, &size, NULL), CYI_E_ARGUMENT);
    options.quality = -1;
    assert_int_equal(image_encode(memory, image, &options, &data, &size, NULL), CYI_E_ARGUMENT);
    options = (struct cyi_image_options){ .format = CYI_FORMAT_BY_NAME };
    assert_int_equal(image_encode(memory, image, &options, &data, &size, NULL), CYI_E_ARGUMENT);
    options.format = CYI_FORMAT_PNG;
    broken.n_channels = 4;
    assert_int_equal(image_encode(memory, &broken, &options, &data, &size, NULL), CYI_E_ARGUMENT);
    broken = *image;
    broken.height = 0;
    assert_int_equal(image_encode(memory, &broken, &options, &data, &size, NULL), CYI_E_ARGUMENT);
    broken.height = CYI_MAX_IMAGE_SIDE + 1;
    assert_int_equal(image_encode(memory, &broken, &options, &data, &size, NULL), CYI_E_ARGUMENT);
    assert_null(data);
    cyi_image_free(image);
}

static void webp_refuses_sides_that_it_cannot_hold(void **state) {
    (void)state;
    struct cyi_image *image = NULL;
    void *data = NULL;
    size_t size = 0;
    struct cyi_error err = { 0 };
    struct cyi_image_options options = { .format = CYI_FORMAT_WEBP };
    assert_int_equal(image_create(memory, 16384, 1, 1, &image, NULL), CYI_OK);
    assert_int_equal(image_encode(memory, image, &options, &data, &size, &err), CYI_E_ARGUMENT);
    assert_non_null(strstr(err.text, "16383"));
    cyi_image_free(image);
}

static void endings_name_formats(void **state) {
    (void)state;
    assert_int_equal(image_format_of_path("a/b.c/d.png"), CYI_FORMAT_PNG);
    assert_int_equal(image_format_of_path("x.JPG"), CYI_FORMAT_JPEG);
    assert_int_equal(image_format_of_path("x.jpeg"), CYI_FORMAT_JPEG);
    assert_int_equal(image_format_of_path("x.WebP"), CYI_FORMAT_WEBP);
    assert_int_equal(image_format_of_path("png"), CYI_FORMAT_BY_NAME);
    assert_int_equal(image_format_of_path("x.png.txt"), CYI_FORMAT_BY_NAME);
    assert_int_equal(image_format_of_path(""), CYI_FORMAT_BY_NAME);
}

static void every_failed_allocation_is_reported_and_leaves_no_file(void **state) {
    static const char *const names[] = { "a.png", "a.jpg", "a.webp" };
    (void)state;
    struct cyi_image *image = make_picture(40, 30, 3);
    for (size_t i = 0; i < 3; i++) {
        for (size_t n = 1;; n++) {
            struct failing_allocator failing;
            struct cyi_error err = { 0 };
            failing_allocator_init(&failing, n);
            enum cyi_status st = image_save(&failing.allocator, image, path_of(names[i]), NULL, &err);
            assert_int_equal(failing.n_live, 0);
            if (st == CYI_OK) {
                assert_int_equal(n_files(), 1);
                assert_int_equal(unlink(path_of(names[i])), 0);
                break;
            }
            assert_int_equal(st, CYI_E_MEMORY);
            assert_non_null(strstr(err.text, "out of memory"));
            assert_int_equal(n_files(), 0);
        }
    }
    cyi_image_free(image);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(png_and_webp_at_100_are_lossless),
        IN_FOLDER(lossy_formats_keep_what_their_quality_promises),
        IN_FOLDER(an_existing_file_is_replaced),
        IN_FOLDER(a_full_disk_leaves_the_old_file_and_nothing_else),
        IN_FOLDER(places_that_cannot_be_written_are_named),
        IN_FOLDER(options_that_cannot_be_are_refused),
        IN_FOLDER(every_failed_allocation_is_reported_and_leaves_no_file),
        cmocka_unit_test(webp_refuses_sides_that_it_cannot_hold),
        cmocka_unit_test(endings_name_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
