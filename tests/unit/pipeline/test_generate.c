/* Making pictures: the same bytes again, cancelling, previews, caches, memory limits, and every refusal in one sentence. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "golden/golden.h"
#include "pipeline/model.h"

#define PROMPT "A red fox sleeps in the snow, soft light"

struct studio {
    struct cyi_engine *engine;
    struct cyi_model *model;
};

static struct studio open_studio(const struct cyi_engine_options *options, const char *model_path) {
    struct studio studio = { 0 };
    struct cyi_error err = { 0 };
    if (cyi_engine_create(options, &studio.engine, &err) != CYI_OK ||
        cyi_model_open(studio.engine, &(struct cyi_model_options){ .path = model_path }, &studio.model, &err) !=
            CYI_OK) {
        fail_msg("%s", err.text);
    }
    return studio;
}

static struct studio open_klein(int n_threads) {
    return open_studio(&(struct cyi_engine_options){ .n_threads = n_threads }, fixture_path("golden/flux2-klein"));
}

static void close_studio(struct studio *studio) {
    cyi_model_close(studio->model);
    cyi_engine_free(studio->engine);
}

static struct cyi_request small_request(const struct cyi_model *model) {
    struct cyi_request request;
    cyi_request_init(model, &request);
    request.prompt = PROMPT;
    request.width = 48;
    request.height = 32;
    request.n_steps = 2;
    request.seed = 3;
    return request;
}

static struct cyi_image *generate(struct studio *studio, const struct cyi_request *request, struct cyi_report *report) {
    struct cyi_error err = { 0 };
    struct cyi_image *image = NULL;
    if (cyi_generate(studio->model, request, &image, report, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    return image;
}

static void assert_same_image(const struct cyi_image *a, const struct cyi_image *b) {
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_memory_equal(a->pixels, b->pixels, (size_t)a->width * (size_t)a->height * 3);
}

/* ---- The same bytes ---- */

static void same_seed_gives_same_bytes(void **state) {
    (void)state;
    struct studio studio = open_klein(2);
    struct cyi_request request = small_request(studio.model);
    struct cyi_image *first = generate(&studio, &request, NULL);
    request.seed++;
    struct cyi_image *other = generate(&studio, &request, NULL);
    request.seed--;
    struct cyi_image *again = generate(&studio, &request, NULL);
    assert_same_image(first, again);
    assert_memory_not_equal(first->pixels, other->pixels, (size_t)first->width * (size_t)first->height * 3);
    cyi_image_free(first);
    cyi_image_free(other);
    cyi_image_free(again);
    close_studio(&studio);
}

static void number_of_threads_does_not_change_bytes(void **state) {
    (void)state;
    struct cyi_image *images[3];
    for (int n = 1; n <= 3; n++) {
        struct studio studio = open_klein(n);
        struct cyi_request request = small_request(studio.model);
        images[n - 1] = generate(&studio, &request, NULL);
        close_studio(&studio);
    }
    assert_same_image(images[0], images[1]);
    assert_same_image(images[0], images[2]);
    for (int i = 0; i < 3; i++) {
        cyi_image_free(images[i]);
    }
}

static void cached_prompt_gives_same_bytes(void **state) {
    (void)state;
    char folder[] = P_tmpdir "/cyberimage-test-XXXXXX";
    assert_non_null(mkdtemp(folder));
    struct cyi_image *images[3];
    struct cyi_report report;
    for (int i = 0; i < 2; i++) {
        struct studio studio = open_studio(&(struct cyi_engine_options){ .n_threads = 2, .cache_dir = folder },
                                           fixture_path("golden/flux2-klein"));
        struct cyi_request request = small_request(studio.model);
        images[i] = generate(&studio, &request, &report);
        assert_int_equal(report.is_prompt_cached, i == 1);
        if (i == 1) {
            images[2] = generate(&studio, &request, &report);
            assert_true(report.is_prompt_cached);
        }
        close_studio(&studio);
    }
    assert_same_image(images[0], images[1]);
    assert_same_image(images[0], images[2]);
    for (int i = 0; i < 3; i++) {
        cyi_image_free(images[i]);
    }
    char command[128];
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

/* ---- Progress, previews, cancelling ---- */

struct watcher {
    int n_calls, n_steps_seen, cancel_at;
    float last_fraction;
    int preview_width, preview_height;
    bool is_monotonic;
};

static bool watch(void *user, const struct cyi_progress *progress) {
    struct watcher *watcher = user;
    watcher->is_monotonic &= progress->fraction >= watcher->last_fraction - 1e-6F;
    watcher->last_fraction = progress->fraction;
    if (progress->preview != NULL) {
        watcher->n_steps_seen++;
        watcher->preview_width = progress->preview->width;
        watcher->preview_height = progress->preview->height;
    }
    return ++watcher->n_calls != watcher->cancel_at;
}

static void progress_rises_and_previews_come_with_each_step(void **state) {
    (void)state;
    struct studio studio = open_klein(2);
    struct cyi_request request = small_request(studio.model);
    struct watcher watcher = { .is_monotonic = true };
    request.on_progress = watch;
    request.user = &watcher;
    request.wants_preview = true;
    struct cyi_image *image = generate(&studio, &request, NULL);
    assert_true(watcher.is_monotonic);
    assert_true(watcher.n_calls > 20);
    assert_true(fabsf(watcher.last_fraction - 1.0F) < 1e-5F);
    assert_int_equal(watcher.n_steps_seen, 2);
    assert_int_equal(watcher.preview_width, 6);
    assert_int_equal(watcher.preview_height, 4);
    cyi_image_free(image);
    close_studio(&studio);
}

static void preview_resembles_the_decoded_picture(void **state) {
    (void)state;
    struct studio studio =
        open_studio(&(struct cyi_engine_options){ .n_threads = 2 }, fixture_path("../../models/neon"));
    struct exec ex = { .backend = studio.model->backend,
                       .reference = studio.model->reference,
                       .act_dtype = studio.engine->act_dtype,
                       .allocator = &studio.engine->allocator };
    struct cyi_error err = { 0 };
    struct tensor tokens;
    struct tensor pixels;
    struct cyi_image *preview = NULL;
    int64_t n_channels = vae_get_config(studio.model->vae)->token_channels;
    assert_int_equal(arena_create(&mem_default_allocator, &ex.arena, &err), CYI_OK);
    assert_int_equal(preview_prepare(studio.model, &ex, &err), CYI_OK);
    assert_int_equal(tensor_new_2d(ex.arena, DTYPE_F32, 16, n_channels, &tokens, &err), CYI_OK);
    assert_int_equal(tensor_new(ex.arena, DTYPE_F32, 3, (const int64_t[3]){ 64, 64, 3 }, &pixels, &err), CYI_OK);
    float *values = tokens.data;
    for (int64_t i = 0; i < tensor_n_elements(&tokens); i++) {
        values[i] = 0.7F * sinf((float)(i / n_channels / 8) + (float)(i % n_channels / 4));
    }
    assert_int_equal(vae_decode(studio.model->vae, &ex, &tokens, NULL, &pixels, &err), CYI_OK);
    assert_int_equal(cyi_image_create(studio.engine, 8, 8, 3, &preview, &err), CYI_OK);
    preview_draw(&studio.model->preview, &tokens, 4, 4, preview);
    double difference = 0;
    for (int y = 0; y < 8; y++) {
        for (int x = 0; x < 8; x++) {
            for (int c = 0; c < 3; c++) {
                double mean = 0;
                for (int i = 0; i < 64; i++) {
                    double level = (double)((float *)pixels.data)[((y * 8 + i / 8) * 64 + x * 8 + i % 8) * 3 + c];
                    mean += level / 64;
                }
                double d = mean * 127.5 + 127.5 - (double)preview->pixels[(y * 8 + x) * 3 + c];
                difference += d * d / (8 * 8 * 3);
            }
        }
    }
    print_message("preview differs by %.1f levels (root mean square)\n", sqrt(difference));
    assert_true(sqrt(difference) < 40.0);
    cyi_image_free(preview);
    arena_free(ex.arena);
    close_studio(&studio);
}

static void cancel_works_at_every_call(void **state) {
    (void)state;
    struct studio studio = open_klein(2);
    struct cyi_request request = small_request(studio.model);
    struct watcher all = { 0 };
    request.on_progress = watch;
    request.user = &all;
    cyi_image_free(generate(&studio, &request, NULL));
    for (int i = 1; i < all.n_calls; i += 3) {
        struct watcher watcher = { .cancel_at = i };
        struct cyi_error err = { 0 };
        struct cyi_image *image = NULL;
        char prompt[32];
        (void)snprintf(prompt, sizeof prompt, "prompt %d", i); /* not in the cache */
        request.prompt = prompt;
        request.user = &watcher;
        assert_int_equal(cyi_generate(studio.model, &request, &image, NULL, &err), CYI_E_CANCELLED);
        assert_int_equal(watcher.n_calls, i);
        assert_null(image);
    }
    close_studio(&studio);
}

/* ---- Refusals ---- */

static void assert_refused(struct studio *studio, const struct cyi_request *request, enum cyi_status code,
                           const char *part) {
    struct cyi_error err = { 0 };
    struct cyi_image *image = NULL;
    assert_int_equal(cyi_generate(studio->model, request, &image, NULL, &err), code);
    assert_null(image);
    if (strstr(err.text, part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, part);
    }
}

static void bad_requests_are_refused_in_one_sentence(void **state) {
    (void)state;
    struct studio studio = open_klein(2);
    const struct cyi_request good = small_request(studio.model);
    struct cyi_request r;
    char *huge = malloc(100001);
    assert_non_null(huge);
    memset(huge, 'a', 100000);
    huge[100000] = '\0';
#define REFUSED(change, part) (r = good, change, assert_refused(&studio, &r, CYI_E_ARGUMENT, part))
    REFUSED(r.width = 50, "width 50 is not a multiple of 16; 48 and 64");
    REFUSED(r.height = 0, "height 0 is outside");
    REFUSED(r.height = -16, "height -16 is outside");
    REFUSED(r.width = 1 << 20, "width 1048576 is outside");
    REFUSED((r.width = 16384, r.height = 16384), "268435456 pixels");
    REFUSED(r.n_steps = 0, "0 steps");
    REFUSED(r.n_steps = 1001, "1001 steps");
    REFUSED(r.guidance = NAN, "guidance nan");
    REFUSED(r.guidance = -1, "guidance -1");
    REFUSED(r.prompt = NULL, "the prompt is empty");
    REFUSED(r.prompt = "", "the prompt is empty");
    REFUSED(r.prompt = huge, "the prompt is longer than 65536 bytes");
    REFUSED(r.negative_prompt = huge, "the negative prompt is longer");
    REFUSED(r.prompt = "caf\xe9 at night", "byte 3");
    REFUSED(r.n_references = 11, "11 reference pictures");
    const struct cyi_image pixel = { 1, 1, 3, (uint8_t[3]){ 0 } };
    const struct cyi_image *tiny[1] = { &pixel };
    REFUSED((r.references = tiny, r.n_references = 1), "64");
    REFUSED(r.mask = &pixel, "a mask needs the picture");
    REFUSED((r.init = &pixel, r.strength = 0), "strength 0");
    REFUSED((r.init = &pixel, r.strength = 1.5F), "strength 1.5");
#undef REFUSED
    free(huge);
    close_studio(&studio);
}

static void memory_that_does_not_fit_is_refused_with_numbers(void **state) {
    (void)state;
    const struct cyi_engine_options options = { .n_threads = 1, .max_memory_bytes = (uint64_t)200 << 20 };
    struct studio studio = open_studio(&options, fixture_path("golden/flux2-klein"));
    struct cyi_request request = small_request(studio.model);
    struct cyi_memory_plan plan;
    struct cyi_error err = { 0 };
    request.width = 8192;
    request.height = 4096;
    assert_int_equal(cyi_plan_memory(studio.model, &request, &plan, &err), CYI_OK);
    assert_false(plan.fits);
    assert_refused(&studio, &request, CYI_E_MEMORY, "8192 × 4096 needs");
    close_studio(&studio);
}

static void plan_holds(void **state) {
    (void)state;
    struct studio studio = open_klein(2);
    struct cyi_request request = small_request(studio.model);
    struct cyi_memory_plan plan;
    struct cyi_report report;
    struct cyi_error err = { 0 };
    request.width = 256;
    request.height = 192;
    assert_int_equal(cyi_plan_memory(studio.model, &request, &plan, &err), CYI_OK);
    struct cyi_image *image = generate(&studio, &request, &report);
    assert_true(report.working_bytes > 0);
    assert_true(report.working_bytes <= plan.working_bytes);
    cyi_image_free(image);
    close_studio(&studio);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_gives_same_bytes),
        cmocka_unit_test(number_of_threads_does_not_change_bytes),
        cmocka_unit_test(cached_prompt_gives_same_bytes),
        cmocka_unit_test(progress_rises_and_previews_come_with_each_step),
        cmocka_unit_test(preview_resembles_the_decoded_picture),
        cmocka_unit_test(cancel_works_at_every_call),
        cmocka_unit_test(bad_requests_are_refused_in_one_sentence),
        cmocka_unit_test(memory_that_does_not_fit_is_refused_with_numbers),
        cmocka_unit_test(plan_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
