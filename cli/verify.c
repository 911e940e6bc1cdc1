/* cyberimage verify: makes a picture again from the settings in its file, and says whether it is the same, and if not, why. */
#include "commands.h"
#include "generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CLOSE_DB 35.0 /* two honest runs in other precisions stay above */
#define MAX_REASONS 8

struct verify_options {
    struct session_options session;
    struct option_files references;
    const char *init, *mask;
    bool is_json;
};

#define FIELD(name) offsetof(struct verify_options, name)

static const struct option_row rows[] = {
    { OPTION_HEADING, 0, NULL, NULL,
      "Pictures that went in (default: the recorded names beside FILE or in this folder)", 0, 0, 0, NULL },
    { OPTION_FILES, 'i', "image", "FILE", "The references, in their order", FIELD(references), 0, 0, NULL },
    { OPTION_TEXT, 0, "init", "FILE", "The picture that it started from", FIELD(init), 0, 0, NULL },
    { OPTION_TEXT, 0, "mask", "FILE", "The mask", FIELD(mask), 0, 0, NULL },
    { OPTION_HEADING, 0, NULL, NULL, "Output", 0, 0, 0, NULL },
    { OPTION_FLAG, 0, "json", NULL, "The verdict as a JSON object", FIELD(is_json), 0, 0, NULL },
    { OPTION_FLAG, 0, "quiet", NULL, "No progress", FIELD(session.is_quiet), 0, 0, NULL },
    { OPTION_FLAG, 'v', "verbose", NULL, "Memory plan and log on standard error", FIELD(session.is_verbose), 0, 0,
      NULL },
    SESSION_MODEL_ROWS(verify_options, session),
    SESSION_ENGINE_ROWS(verify_options, session),
};

enum verdict { VERDICT_IDENTICAL, VERDICT_CLOSE, VERDICT_DIFFERENT };

struct verification {
    const char *path;
    struct recipe recipe;
    struct cyi_image *recorded; /* as it is in the file */
    struct inputs inputs;
    enum verdict verdict;
    double psnr_db;
    char *reasons[MAX_REASONS]; /* what is not as it was */
    int n_reasons;
};

/* ---- What is in the file ---- */

static enum cyi_status read_recipe(const char *path, struct recipe *ret_recipe, struct cyi_error *err) {
    struct cyi_engine *engine = NULL;
    char *parameters = NULL, *json = NULL;
    enum cyi_status st = cyi_engine_create(NULL, &engine, err);
    if (st == CYI_OK) {
        st = cyi_image_read_texts(engine, path, &parameters, &json, err);
    }
    if (st == CYI_OK && json == NULL) {
        st = text_error(err, CYI_E_FORMAT, "%.200s carries no settings of CyberImage%s, so it cannot be made again",
                        path, parameters != NULL ? ", only the \"parameters\" text of some program" : "");
    }
    if (st == CYI_OK) {
        st = recipe_from_text(json, ret_recipe, err);
    }
    cyi_release(engine, parameters);
    cyi_release(engine, json);
    cyi_engine_free(engine);
    return st;
}

/* One input: the file that the user named, else the recorded name beside the picture, else in this folder. */
static enum cyi_status load_input(const struct verification *check, struct cyi_engine *engine, const char *option,
                                  const char *named, const struct recipe_file *recorded, struct input *ret_input,
                                  struct cyi_error *err) {
    if (named != NULL) {
        return inputs_load(engine, option, named, recorded->sha256, ret_input, err);
    }
    char *folder = files_folder_of(check->path);
    char *beside = files_join(folder, recorded->name);
    enum cyi_status st = CYI_OK;
    if (files_exists(beside) || files_exists(recorded->name)) {
        st = inputs_load(engine, option, files_exists(beside) ? beside : recorded->name, recorded->sha256, ret_input,
                         err);
    } else {
        st = text_error(err, CYI_E_IO,
                        "%s was %.150s (SHA-256 %.12s…), which is not beside the picture: name it with %s", option,
                        recorded->name, recorded->sha256, option);
    }
    free(beside);
    free(folder);
    return st;
}

static enum cyi_status load_inputs(const struct verify_options *options, struct verification *check,
                                   struct cyi_engine *engine, struct cyi_error *err) {
    const struct recipe *recipe = &check->recipe;
    enum cyi_status st = CYI_OK;
    if (options->references.n > recipe->n_references) {
        return text_error(err, CYI_E_ARGUMENT, "--image: the picture was made with %d references, %d are named",
                          recipe->n_references, options->references.n);
    }
    for (int i = 0; i < recipe->n_references && st == CYI_OK; i++) {
        const char *named = i < options->references.n ? options->references.items[i] : NULL;
        st = load_input(check, engine, "--image", named, &recipe->references[i], &check->inputs.references[i], err);
        check->inputs.n_references += st == CYI_OK;
    }
    if (st == CYI_OK && recipe->init.name != NULL) {
        st = load_input(check, engine, "--init", options->init, &recipe->init, &check->inputs.init, err);
    }
    if (st == CYI_OK && recipe->mask.name != NULL) {
        st = load_input(check, engine, "--mask", options->mask, &recipe->mask, &check->inputs.mask, err);
    }
    return st;
}

/* ---- The same model, the same engine ---- */

/* The model with the recorded fingerprint wherever it is, else the one with the recorded name. */
static enum cyi_status open_recorded_model(struct session *session, struct session_options *options,
                                           const struct recipe *recipe, struct cyi_error *err) {
    struct model_list list;
    bool is_found = false;
    if (options->model != NULL) {
        return session_open_model(session, err);
    }
    model_search_find(NULL, &list);
    for (size_t i = 0; i < list.n && !is_found; i++) {
        struct cyi_error ignored = { 0 };
        if (session_open_path(session, list.items[i].path, &ignored) == CYI_OK) {
            is_found = strcmp(session->model_info.fingerprint, recipe->model_fingerprint) == 0;
            if (!is_found) {
                session_close_model(session);
            }
        }
    }
    model_search_done(&list);
    options->model = recipe->model_name;
    return is_found ? CYI_OK : session_open_model(session, err);
}

static void add_reason(struct verification *check, const char *what, const char *then, const char *now) {
    if (strcmp(then, now) != 0 && check->n_reasons < MAX_REASONS) {
        check->reasons[check->n_reasons++] = text_format("%s was %.100s, and is %.100s", what, then, now);
    }
}

static void find_reasons(struct verification *check, const struct session *session) {
    const struct recipe *recipe = &check->recipe;
    struct recipe now = { 0 };
    generate_fill_origin(session, &now);
    add_reason(check, "the model's fingerprint", recipe->model_fingerprint, now.model_fingerprint);
    add_reason(check, "the engine's version", recipe->version, now.version);
    add_reason(check, "the backend", recipe->backend, now.backend);
    add_reason(check, "the backend's version", recipe->backend_version, now.backend_version);
    add_reason(check, "the precision", recipe->precision, now.precision);
    add_reason(check, "the instruction set", recipe->isa, now.isa);
    recipe_done(&now);
}

/* ---- Comparing ---- */

/* Passes the new picture through the same lossy format as the old one. */
static enum cyi_status encode_alike(struct cyi_engine *engine, const struct recipe *recipe, struct cyi_image **image,
                                    struct cyi_error *err) {
    const struct cyi_image_options options = { .format = recipe->format, .quality = recipe->quality };
    struct cyi_image *decoded = NULL;
    void *data = NULL;
    size_t size_bytes = 0;
    if (recipe->format == CYI_FORMAT_PNG) {
        return CYI_OK;
    }
    enum cyi_status st = cyi_image_encode(engine, *image, &options, &data, &size_bytes, err);
    if (st == CYI_OK) {
        st = cyi_image_decode(engine, data, size_bytes, &decoded, err);
    }
    cyi_release(engine, data);
    if (st == CYI_OK) {
        cyi_image_free(*image);
        *image = decoded;
    }
    return st;
}

static void compare_images(struct verification *check, const struct cyi_image *made) {
    const struct cyi_image *recorded = check->recorded;
    const size_t n = (size_t)made->width * (size_t)made->height * (size_t)made->n_channels;
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double difference = (double)made->pixels[i] - (double)recorded->pixels[i];
        sum += difference * difference;
    }
    check->psnr_db = sum > 0.0 ? 10.0 * log10(255.0 * 255.0 * (double)n / sum) : (double)INFINITY;
    check->verdict = sum > 0.0 ? check->psnr_db >= CLOSE_DB ? VERDICT_CLOSE : VERDICT_DIFFERENT : VERDICT_IDENTICAL;
}

/* Width, height and channels must agree before pixels can be compared. */
static bool has_same_size(struct verification *check, int width, int height, int n_channels) {
    const struct cyi_image *recorded = check->recorded;
    if (recorded->width == width && recorded->height == height && recorded->n_channels == n_channels) {
        return true;
    }
    check->verdict = VERDICT_DIFFERENT;
    check->psnr_db = 0.0;
    check->reasons[check->n_reasons++] =
        text_format("the file has %d×%d pixels, and its settings make %d×%d: it was changed afterwards",
                    recorded->width, recorded->height, width, height);
    return false;
}

static enum cyi_status make_again(struct verification *check, struct session *session, struct cyi_error *err) {
    const struct cyi_image *references[CYI_MAX_REFERENCES];
    struct cyi_image *made = NULL;
    struct cyi_request request;
    struct cyi_report report;
    cyi_request_init(session->model, &request);
    generate_fill_request(&check->recipe, &request);
    inputs_attach(&check->inputs, references, &request);
    enum cyi_status st = generate_check_plan(session, &request, err);
    if (st == CYI_OK) {
        st = generate_run(session, &request, 1, 1, &made, &report, err);
    }
    if (st == CYI_OK) {
        st = encode_alike(session->engine, &check->recipe, &made, err);
    }
    if (st == CYI_OK && has_same_size(check, made->width, made->height, made->n_channels)) {
        compare_images(check, made);
    }
    cyi_image_free(made);
    return st;
}

static enum cyi_status verify_picture(struct verify_options *options, struct verification *check,
                                      struct cyi_error *err) {
    struct session session = { 0 };
    enum cyi_status st = read_recipe(check->path, &check->recipe, err);
    if (st != CYI_OK) {
        return st;
    }
    const struct recipe *recipe = &check->recipe;
    const bool is_known_backend = strcmp(recipe->backend, "onednn") == 0 || strcmp(recipe->backend, "reference") == 0;
    const bool is_known_precision = strcmp(recipe->precision, "f32") == 0 || strcmp(recipe->precision, "bf16") == 0;
    if (options->session.backend == NULL && is_known_backend) {
        options->session.backend = recipe->backend;
    }
    if (options->session.precision == NULL && is_known_precision) {
        options->session.precision = recipe->precision;
    }
    if ((st = session_start(&options->session, &session, err)) == CYI_OK &&
        (st = cyi_image_load(session.engine, check->path, &check->recorded, err)) == CYI_OK &&
        has_same_size(check, recipe->width, recipe->height, 3) &&
        (st = open_recorded_model(&session, &options->session, recipe, err)) == CYI_OK &&
        (st = load_inputs(options, check, session.engine, err)) == CYI_OK) {
        find_reasons(check, &session);
        st = make_again(check, &session, err);
    }
    inputs_done(&check->inputs);
    cyi_image_free(check->recorded);
    session_done(&session);
    return st;
}

/* ---- The verdict ---- */

static void print_json(const struct verification *check) {
    static const char *const names[] = { "identical", "close", "different" };
    json_t *reasons = json_array();
    for (int i = 0; i < check->n_reasons; i++) {
        char *clean = text_clean(check->reasons[i]);
        (void)json_array_append_new(reasons, json_string(clean));
        free(clean);
    }
    char *path = text_clean(check->path);
    json_t *json =
        json_pack("{s:s, s:s, s:o, s:o}", "file", path, "verdict", names[check->verdict], "psnr_db",
                  check->verdict == VERDICT_IDENTICAL ? json_null() : json_real(check->psnr_db), "reasons", reasons);
    (void)json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    fputc('\n', stdout);
    json_decref(json);
    free(path);
}

static void print_verdict(const struct verification *check) {
    if (check->verdict == VERDICT_IDENTICAL) {
        fputs("identical: the settings make exactly these pixels\n", stdout);
    } else if (check->verdict == VERDICT_CLOSE) {
        printf("equal within %.1f dB (%.0f dB or more count as the same picture)\n", check->psnr_db, CLOSE_DB);
    } else if (check->psnr_db > 0.0) {
        printf("different: %.1f dB (below %.0f dB)\n", check->psnr_db, CLOSE_DB);
    } else {
        fputs("different\n", stdout);
    }
    for (int i = 0; i < check->n_reasons; i++) {
        fputs("  ", stdout);
        text_write_safe(stdout, check->reasons[i], false);
        fputc('\n', stdout);
    }
    if (check->verdict == VERDICT_DIFFERENT && check->n_reasons == 0) {
        fputs("  model and engine are the same: the pixels were changed after the picture was made\n", stdout);
    }
}

static int run(const struct command *command, int argc, char **argv) {
    struct verify_options options = { 0 };
    struct verification check = { 0 };
    struct option_arguments arguments;
    struct cyi_error err = { 0 };
    enum cyi_status st = options_parse(command, argc, argv, &options, &arguments, &err);
    if (st == CYI_OK && arguments.wants_help) {
        options_print_help(command, stdout);
        return CLI_OK;
    }
    session_catch_signals();
    if (st == CYI_OK) {
        check.path = arguments.items[0];
        st = verify_picture(&options, &check, &err);
    }
    if (st == CYI_OK && options.is_json) {
        print_json(&check);
    } else if (st == CYI_OK) {
        print_verdict(&check);
    }
    for (int i = 0; i < check.n_reasons; i++) {
        free(check.reasons[i]);
    }
    recipe_done(&check.recipe);
    if (st != CYI_OK) {
        return text_report(&err, st == CYI_E_CANCELLED ? CLI_CANCELLED : CLI_BAD_INPUT);
    }
    return check.verdict == VERDICT_DIFFERENT ? CLI_FAILED : CLI_OK;
}

const struct command command_verify = {
    .name = "verify",
    .arguments = "FILE",
    .summary = "make a picture again and compare",
    .description =
        "Makes the picture again from the settings in its own file, with the same model (found by its fingerprint, or\n"
        "named by --model), and says: identical, equal within so many dB, or different, and what is not as it was.\n"
        "JPEG and WebP are compared after encoding in the same way.\n\n"
        "Exit code: 0 identical or 35 dB and more, 1 different, 2 it cannot be made again (the sentence says why),\n"
        "130 cancelled.",
    .examples = "  cyberimage verify neon-20261124-153012-seed42.png\n"
                "  cyberimage verify --image cat.png edited.png\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .min_arguments = 1,
    .max_arguments = 1,
    .argument_hint = "name one picture: cyberimage verify picture.png",
    .run = run,
};
