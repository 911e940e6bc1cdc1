/* Whole pictures against the reference implementation: every recorded run, every stage that the engine shows, on every backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "golden/golden.h"
#include "pipeline/model.h"

struct run {
    const char *golden; /* folder of the numbers */
    const char *name;   /* run in it */
    const char *model;  /* folder of the checkpoint, NULL: the golden's own */
    const char *prompt, *negative;
    int width, height, n_steps;
    float guidance;
    uint64_t seed;
    const char *references[2];
    const char *init, *mask;
    float strength;
};

#define LONG_PART                                                                                                      \
    "A red fox sleeps in the snow, soft light An owl made of brass, close up The old lighthouse, oil painting Make "   \
    "the sky "                                                                                                         \
    "pink and add a hat A cat wearing round glasses, watercolour Mountains reflected in a still lake, mist"
#define FOX "A red fox sleeps in the snow, soft light"
#define OWL "An owl made of brass, close up"
#define EDIT "Make the sky pink and add a hat"
#define CAT "A cat wearing round glasses, watercolour"

static const struct run runs[] = {
    { .golden = "flux2-klein",
      .name = "square",
      .prompt = FOX,
      .width = 64,
      .height = 64,
      .n_steps = 4,
      .guidance = 1,
      .seed = 42 },
    { .golden = "flux2-klein",
      .name = "wide",
      .prompt = OWL " – é 猫 😀",
      .width = 96,
      .height = 64,
      .n_steps = 3,
      .guidance = 4,
      .seed = 7 },
    { .golden = "flux2-klein",
      .name = "long",
      .prompt = LONG_PART LONG_PART LONG_PART,
      .width = 64,
      .height = 64,
      .n_steps = 1,
      .guidance = 1,
      .seed = 0 },
    /* Every choice of the configs taken otherwise than in the published models. */
    { .golden = "flux2-odd",
      .name = "odd",
      .prompt = CAT " – é 猫",
      .width = 80,
      .height = 64,
      .n_steps = 3,
      .guidance = 2,
      .seed = 9 },
    { .golden = "flux2-base",
      .name = "guided",
      .prompt = "The old lighthouse, oil painting",
      .width = 64,
      .height = 80,
      .n_steps = 3,
      .guidance = 4,
      .seed = 5 },
    { .golden = "flux2-base",
      .name = "plain",
      .prompt = CAT,
      .width = 64,
      .height = 64,
      .n_steps = 2,
      .guidance = 1,
      .seed = 6 },
    { .golden = "flux2-base",
      .name = "negative",
      .prompt = CAT,
      .negative = "blurry, dark",
      .width = 64,
      .height = 64,
      .n_steps = 1,
      .guidance = 3,
      .seed = 6 },
    { .golden = "flux2-edit",
      .name = "one",
      .model = "flux2-klein",
      .prompt = EDIT,
      .width = 64,
      .height = 64,
      .n_steps = 2,
      .guidance = 1,
      .seed = 11,
      .references = { "a.png" } },
    { .golden = "flux2-edit",
      .name = "two",
      .model = "flux2-klein",
      .prompt = EDIT,
      .width = 80,
      .height = 64,
      .n_steps = 2,
      .guidance = 1,
      .seed = 12,
      .references = { "a.png", "b.png" } },
    { .golden = "flux2-img2img",
      .name = "run",
      .model = "flux2-klein",
      .prompt = "Mountains reflected in a still lake, mist",
      .width = 80,
      .height = 64,
      .n_steps = 5,
      .guidance = 1,
      .seed = 21,
      .init = "init.png",
      .strength = 0.6F },
    { .golden = "flux2-inpaint",
      .name = "mask",
      .model = "flux2-klein",
      .prompt = OWL,
      .width = 80,
      .height = 64,
      .n_steps = 5,
      .guidance = 1,
      .seed = 31,
      .init = "init.png",
      .mask = "mask.png",
      .strength = 0.7F },
    { .golden = "flux2-inpaint",
      .name = "mask_and_reference",
      .model = "flux2-klein",
      .prompt = OWL,
      .width = 80,
      .height = 64,
      .n_steps = 2,
      .guidance = 1,
      .seed = 32,
      .init = "init.png",
      .mask = "mask.png",
      .references = { "reference.png" },
      .strength = 1.0F },
    /* The same numbers from the single files with BFL's names. */
    { .golden = "flux2-klein",
      .name = "square",
      .model = "flux2-bfl",
      .prompt = FOX,
      .width = 64,
      .height = 64,
      .n_steps = 4,
      .guidance = 1,
      .seed = 42 },
};

/* How close a backend must come: in a forward whose inputs are the golden's own, in what grew out of several forwards (guidance of 4
 * makes four times the error of each), and in the picture. */
struct target {
    const char *backend;
    enum cyi_precision precision;
    double nmse, nmse_grown, psnr;
};

static const struct target targets[] = {
    { "reference", CYI_PRECISION_F32, 1e-9, 1e-9, 55 }, { "onednn", CYI_PRECISION_F32, 1e-9, 1e-9, 55 },
    { "onednn", CYI_PRECISION_BF16, 3e-4, 1e-3, 35 },   { "distant", CYI_PRECISION_F32, 1e-9, 1e-9, 55 },
    { "cuda", CYI_PRECISION_F32, 1e-9, 1e-9, 55 },      { "cuda", CYI_PRECISION_BF16, 3e-4, 1e-3, 35 },
};

#define N_OF(list) (sizeof(list) / sizeof(list)[0])

struct test_case {
    char name[96];
    const struct run *run;
    const struct target *target;
};

/* ---- Watching the stages ---- */

struct watch {
    const struct safetensors *golden;
    const struct test_case *test;
    char seen[256][64]; /* later steps show the names of the first step again */
    size_t n_seen, n_checked;
};

static bool is_new(struct watch *watch, const char *stage) {
    for (size_t i = 0; i < watch->n_seen; i++) {
        if (strcmp(watch->seen[i], stage) == 0) {
            return false;
        }
    }
    assert_true(watch->n_seen < N_OF(watch->seen));
    (void)snprintf(watch->seen[watch->n_seen++], sizeof watch->seen[0], "%s", stage);
    return true;
}

/* The golden as the engine has it: planes [C, Y, X] become rows of channels, outputs lose the rows of references. */
static struct tensor arrange(const struct tensor *golden, const struct tensor *value, float *buffer) {
    if (golden->rank != 3) {
        int64_t n = tensor_n_elements(value) / tensor_n_cols(golden);
        return golden->rank == 2 && n < golden->shape[0] ? tensor_rows(golden, 0, n) : *golden;
    }
    int64_t n_channels = golden->shape[0];
    int64_t n_pixels = golden->shape[1] * golden->shape[2];
    for (int64_t p = 0; p < n_pixels; p++) {
        for (int64_t c = 0; c < n_channels; c++) {
            buffer[p * n_channels + c] = dtype_load(golden->dtype, golden->data, c * n_pixels + p);
        }
    }
    return tensor_2d(DTYPE_F32, n_pixels, n_channels, buffer);
}

/* Is the stage behind the first step, or guided? Its inputs are the engine's own results then. The VAE alone is measured in test_vae.c. */
static bool is_grown(const struct run *run, const char *stage) {
    static const char *const grown[] = { "latents.unpacked", "vae.decode.", "image." };
    for (size_t i = 0; i < N_OF(grown); i++) {
        if (strncmp(stage, grown[i], strlen(grown[i])) == 0) {
            return true;
        }
    }
    if (strcmp(stage, "step0.velocity") == 0) {
        return run->guidance > 1;
    }
    return strncmp(stage, "step", 4) == 0 && stage[4] != '0';
}

static void check_stage(void *user, const char *stage, const struct tensor *value) {
    struct watch *watch = user;
    char name[128];
    (void)snprintf(name, sizeof name, "%s.%s", watch->test->run->name, stage);
    const struct safetensors_entry *entry = safetensors_find(watch->golden, name);
    if (entry == NULL || !is_new(watch, stage)) {
        return;
    }
    float *buffer = malloc((size_t)tensor_n_elements(&entry->tensor) * sizeof *buffer);
    assert_non_null(buffer);
    struct tensor golden = arrange(&entry->tensor, value, buffer);
    const struct target *target = watch->test->target;
    golden_check(name, value, &golden, is_grown(watch->test->run, stage) ? target->nmse_grown : target->nmse);
    watch->n_checked++;
    free(buffer);
}

/* ---- Running ---- */

static void fail_on_error(enum cyi_status st, const struct cyi_error *err) {
    if (st != CYI_OK) {
        fail_msg("%s: %s", cyi_status_name(st), err->text);
    }
}

static struct cyi_engine *create_engine(const struct target *target) {
    struct cyi_error err = { 0 };
    struct cyi_engine *engine = NULL;
    const struct cyi_engine_options options = { .backend = target->backend,
                                                .precision = target->precision,
                                                .n_threads = 2 };
    enum cyi_status st = cyi_engine_create(&options, &engine, &err);
    if (st == CYI_E_ARGUMENT || st == CYI_E_UNSUPPORTED) {
        print_message("%s\n", err.text);
        skip();
    }
    fail_on_error(st, &err);
    return engine;
}

static struct cyi_model *open_model(struct cyi_engine *engine, const char *name) {
    char path[128];
    struct cyi_error err = { 0 };
    struct cyi_model *model = NULL;
    struct cyi_model_options options = { 0 };
    (void)snprintf(path, sizeof path, "golden/%s", name);
    options.path = fixture_path(path);
    if (strcmp(name, "flux2-bfl") == 0) {
        options.path = fixture_path("golden/flux2-bfl/transformer.safetensors");
        options.vae = fixture_path("golden/flux2-bfl/ae.safetensors");
        options.text_encoder = fixture_path("golden/flux2-klein/text_encoder");
        options.tokenizer = fixture_path("golden/flux2-klein/tokenizer");
    }
    fail_on_error(cyi_model_open(engine, &options, &model, &err), &err);
    return model;
}

static struct cyi_image *load_image(struct cyi_engine *engine, const struct run *run, const char *name) {
    char path[128];
    struct cyi_error err = { 0 };
    struct cyi_image *image = NULL;
    if (name == NULL) {
        return NULL;
    }
    (void)snprintf(path, sizeof path, "golden/%s/%s", run->golden, name);
    fail_on_error(cyi_image_load(engine, fixture_path(path), &image, &err), &err);
    return image;
}

static void picture_matches_golden(void **state) {
    const struct test_case *test = *state;
    const struct run *run = test->run;
    struct cyi_error err = { 0 };
    struct cyi_report report;
    struct cyi_request request;
    struct cyi_image *image = NULL;
    struct cyi_engine *engine = create_engine(test->target);
    struct cyi_model *model = open_model(engine, run->model != NULL ? run->model : run->golden);
    struct safetensors *golden = golden_open(run->golden);
    struct watch watch = { .golden = golden, .test = test };
    struct cyi_image *references[2] = { load_image(engine, run, run->references[0]),
                                        load_image(engine, run, run->references[1]) };
    struct cyi_image *init = load_image(engine, run, run->init);
    struct cyi_image *mask = load_image(engine, run, run->mask);

    model->observer = (struct model_observer){ check_stage, &watch };
    cyi_request_init(model, &request);
    request.prompt = run->prompt;
    request.negative_prompt = run->negative;
    request.width = run->width;
    request.height = run->height;
    request.n_steps = run->n_steps;
    request.guidance = run->guidance;
    request.seed = run->seed;
    request.references = (const struct cyi_image *const *)references;
    request.n_references = (references[0] != NULL) + (references[1] != NULL);
    request.init = init;
    request.mask = mask;
    request.strength = run->strength;
    fail_on_error(cyi_generate(model, &request, &image, &report, &err), &err);

    char name[128];
    (void)snprintf(name, sizeof name, "%s.image.u8", run->name);
    const struct tensor pixels = golden_tensor(golden, name);
    size_t n_pixels = (size_t)(image->width * image->height * 3);
    assert_int_equal(tensor_n_elements(&pixels), n_pixels);
    double psnr = golden_psnr(image->pixels, pixels.data, n_pixels);
    print_message("%-32s %.1f dB (limit %.0f), %zu stages\n", name, psnr, test->target->psnr, watch.n_checked);
    assert_true(psnr >= test->target->psnr);
    assert_true(watch.n_checked >= (size_t)(2 * run->n_steps - 2 * report.first_step));
    assert_int_equal(report.n_fallbacks, 0);

    cyi_image_free(image);
    cyi_image_free(mask);
    cyi_image_free(init);
    cyi_image_free(references[0]);
    cyi_image_free(references[1]);
    safetensors_close(golden);
    cyi_model_close(model);
    cyi_engine_free(engine);
}

int main(void) {
    static struct test_case cases[N_OF(targets) * N_OF(runs)];
    struct CMUnitTest tests[N_OF(cases)];
    size_t n = 0;
    for (size_t t = 0; t < N_OF(targets); t++) {
        for (size_t r = 0; r < N_OF(runs); r++, n++) {
            const struct run *run = &runs[r];
            cases[n] = (struct test_case){ .run = run, .target = &targets[t] };
            (void)snprintf(cases[n].name, sizeof cases[n].name, "picture_matches_golden_%s_%s%s_%s_%s", run->golden,
                           run->name, run->model != NULL && strcmp(run->model, "flux2-bfl") == 0 ? "_bfl" : "",
                           targets[t].backend, targets[t].precision == CYI_PRECISION_F32 ? "f32" : "bf16");
            tests[n] = (struct CMUnitTest){ .name = cases[n].name,
                                            .test_func = picture_matches_golden,
                                            .initial_state = &cases[n] };
        }
    }
    cmocka_set_test_filter(getenv("CYI_TEST_FILTER")); /* "*_cuda_*"; NULL: all */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
