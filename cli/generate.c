/* cyberimage generate: a prompt becomes one or more pictures. Everything that can be wrong with what was asked for is found before
 * the long run begins. */
#include "generate.h"

#include "commands.h"
#include "output.h"
#include "terminal_image.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_COUNT 10000

struct generate_options {
    struct session_options session;
    const char *negative;
    int width, height, n_steps, n_pictures;
    double guidance, strength;
    struct option_seed seed;
    struct option_files references;
    const char *init, *mask;
    const char *output, *format;
    int quality;
    bool is_json, is_shown;
    const char *protocol; /* how to show; NULL: what the terminal understands */
};

#define FIELD(name) offsetof(struct generate_options, name)

static const struct option_row rows[] = {
    { OPTION_HEADING, 0, NULL, NULL, "Picture", 0, 0, 0, NULL },
    { OPTION_TEXT, 'n', "negative", "TEXT", "What should not be there (models that are not distilled, guidance > 1)",
      FIELD(negative), 0, 0, NULL },
    { OPTION_INT, 'W', "width", "PIXELS",
      "Width, a multiple of 16 (default: the model's, or that of --init\nor the first --image, made smaller where it "
      "is "
      "larger than the model's)",
      FIELD(width), 1, CYI_MAX_IMAGE_SIDE, NULL },
    { OPTION_INT, 'H', "height", "PIXELS", "Height, likewise", FIELD(height), 1, CYI_MAX_IMAGE_SIDE, NULL },
    { OPTION_INT, 's', "steps", "N", "Steps (default: the model's)", FIELD(n_steps), 1, CYI_MAX_STEPS, NULL },
    { OPTION_NUMBER, 'g', "guidance", "X", "How closely to follow the prompt (default: the model's)", FIELD(guidance),
      0, 100, NULL },
    { OPTION_SEED, 'S', "seed", "N",
      "The same seed gives the same picture; its low 32 bits count\n(default: a random one, which is recorded)",
      FIELD(seed), 0, 0, NULL },
    { OPTION_INT, 'c', "count", "N", "Number of pictures: with seed, seed+1, … (default: 1)", FIELD(n_pictures), 1,
      MAX_COUNT, NULL },
    { OPTION_HEADING, 0, NULL, NULL, "Pictures that go in (PNG, JPEG, WebP)", 0, 0, 0, NULL },
    { OPTION_LIST, 'i', "image", "FILE", "A reference to look at; up to 10: --image A --image B, or --image A B",
      FIELD(references), 0, 0, NULL },
    { OPTION_TEXT, 0, "init", "FILE", "Start from this picture", FIELD(init), 0, 0, NULL },
    { OPTION_NUMBER, 0, "strength", "X", "How much of --init is made anew, above 0 up to 1 (default: 0.8)",
      FIELD(strength), 0, 1, NULL },
    { OPTION_TEXT, 0, "mask", "FILE", "With --init: white is painted anew, black stays", FIELD(mask), 0, 0, NULL },
    { OPTION_HEADING, 0, NULL, NULL, "Output", 0, 0, 0, NULL },
    { OPTION_TEXT, 'o', "output", "FILE|DIR",
      "A file to write (an existing one is replaced), or a folder, where\na free name is found (default: this folder). "
      "With --count, FILE gets\n-1, -2, … before its ending, and no file is replaced",
      FIELD(output), 0, 0, NULL },
    { OPTION_CHOICE, 'f', "format", "FORMAT", "png, jpg or webp (default: by the file's ending, else png)",
      FIELD(format), 0, 0, "png|jpg|jpeg|webp" },
    { OPTION_INT, 'q', "quality", "N", "For jpg and webp, 1 to 100 (default: 92; webp at 100 is lossless)",
      FIELD(quality), 1, 100, NULL },
    { OPTION_FLAG, 0, "json", NULL, "One JSON object a picture on standard output instead of its name", FIELD(is_json),
      0, 0, NULL },
    { OPTION_FLAG, 0, "show", NULL, "Show the picture in the terminal (kitty, iTerm2, sixel, else coloured blocks)",
      FIELD(is_shown), 0, 0, NULL },
    { OPTION_CHOICE, 0, "show-as", "HOW", "The same, as kitty, iterm2, sixel or blocks", FIELD(protocol), 0, 0,
      "kitty|iterm2|sixel|blocks" },
    { OPTION_FLAG, 0, "quiet", NULL, "No progress and no notes, only results and errors", FIELD(session.is_quiet), 0, 0,
      NULL },
    { OPTION_FLAG, 'v', "verbose", NULL, "Memory plan, log and time of each phase on standard error",
      FIELD(session.is_verbose), 0, 0, NULL },
    SESSION_MODEL_ROWS(generate_options, session),
    SESSION_ENGINE_ROWS(generate_options, session),
};

/* ---- Checks ---- */

/* The prompt of the command line, or standard input for "-", without newlines at its end. A new string. */
static enum cyi_status read_prompt(const char *argument, char **ret_prompt, struct cyi_error *err) {
    if (strcmp(argument, "-") != 0) {
        *ret_prompt = text_copy(argument);
        return CYI_OK;
    }
    void *data = NULL;
    size_t n = 0;
    struct cyi_error problem = { 0 };
    if (files_read("/dev/stdin", CYI_MAX_PROMPT_BYTES, &data, &n, &problem) != CYI_OK) {
        return text_error(err, problem.code, "the prompt: %.480s", problem.text);
    }
    const char *bytes = data;
    const bool has_zero = n > 0 && memchr(data, 0, n) != NULL;
    while (n > 0 && (bytes[n - 1] == '\n' || bytes[n - 1] == '\r')) {
        n--;
    }
    *ret_prompt = text_format("%.*s", (int)n, bytes);
    free(data);
    return has_zero ? text_error(err, CYI_E_ARGUMENT, "the prompt holds a zero byte") : CYI_OK;
}

static enum cyi_status check_prompt(const char *what, const char *text, bool may_be_empty, struct cyi_error *err) {
    const size_t n = strlen(text);
    if (!may_be_empty && text[strspn(text, " \t\r\n")] == '\0') {
        return text_error(err, CYI_E_ARGUMENT, "the %s is empty; say what the picture should show", what);
    }
    if (n > CYI_MAX_PROMPT_BYTES) {
        return text_error(err, CYI_E_ARGUMENT, "the %s has %zu bytes, and at most %d are read", what, n,
                          CYI_MAX_PROMPT_BYTES);
    }
    if (!text_is_utf8(text)) {
        return text_error(err, CYI_E_ARGUMENT, "the %s is not valid UTF-8", what);
    }
    return CYI_OK;
}

static enum cyi_status check_options(const struct generate_options *options, const char *prompt,
                                     struct cyi_error *err) {
    const enum cyi_status st = check_prompt("prompt", prompt, false, err);
    if (st != CYI_OK) {
        return st;
    }
    if (options->init == NULL && options->strength >= 0.0) {
        return text_error(err, CYI_E_ARGUMENT, "--strength goes with --init");
    }
    if (options->init == NULL && options->mask != NULL) {
        return text_error(err, CYI_E_ARGUMENT, "--mask goes with --init");
    }
    if (options->init != NULL && options->strength == 0.0) {
        return text_error(err, CYI_E_ARGUMENT, "--strength: 0 would change nothing, it must be above 0 and at most 1");
    }
    return check_prompt("negative prompt", options->negative != NULL ? options->negative : "", true, err);
}

/* ---- The recipe ---- */

/* The size of a picture that goes in, scaled down to the model's own area and cut to the multiple that the model needs. */
static void choose_size(const struct cyi_model_info *model, const struct cyi_image *image, int *ret_width,
                        int *ret_height) {
    const double limit = (double)model->default_width * model->default_height;
    const double area = (double)image->width * image->height;
    const double scale = area > limit ? sqrt(limit / area) : 1.0;
    const int multiple = model->size_multiple > 0 ? model->size_multiple : 1;
    const int width = (int)(image->width * scale) / multiple * multiple;
    const int height = (int)(image->height * scale) / multiple * multiple;
    *ret_width = width > multiple ? width : multiple;
    *ret_height = height > multiple ? height : multiple;
}

static void fill_recipe(const struct generate_options *options, const struct session *session,
                        const struct inputs *inputs, const struct output *output, struct recipe *recipe) {
    const struct cyi_model_info *model = &session->model_info;
    const struct cyi_image *like = inputs->init.image         ? inputs->init.image
                                   : inputs->n_references > 0 ? inputs->references[0].image
                                                              : NULL;
    recipe->width = model->default_width;
    recipe->height = model->default_height;
    if (like != NULL && options->width == OPTION_UNSET && options->height == OPTION_UNSET) {
        choose_size(model, like, &recipe->width, &recipe->height);
    }
    recipe->width = options->width != OPTION_UNSET ? options->width : recipe->width;
    recipe->height = options->height != OPTION_UNSET ? options->height : recipe->height;
    recipe->n_steps = options->n_steps != OPTION_UNSET ? options->n_steps : model->default_steps;
    recipe->guidance = options->guidance >= 0.0 ? options->guidance : (double)model->default_guidance;
    recipe->strength = options->strength >= 0.0 ? options->strength : 0.8;
    recipe->seed = options->seed.is_set ? (uint32_t)(options->seed.value & UINT32_MAX) : randombytes_random();
    recipe->negative_prompt = text_copy(options->negative);
    recipe->format = output->format;
    recipe->quality = output->quality;
    recipe->n_references = inputs->n_references;
    for (int i = 0; i < inputs->n_references; i++) {
        recipe->references[i] = inputs->references[i].file;
        recipe->references[i].name = text_copy(inputs->references[i].file.name);
    }
    recipe->init = inputs->init.file;
    recipe->init.name = text_copy(inputs->init.file.name);
    recipe->mask = inputs->mask.file;
    recipe->mask.name = text_copy(inputs->mask.file.name);
    generate_fill_origin(session, recipe);
}

static enum cyi_status load_inputs(const struct generate_options *options, struct cyi_engine *engine,
                                   struct inputs *inputs, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    for (int i = 0; i < options->references.n && st == CYI_OK; i++) {
        st = inputs_load(engine, "--image", options->references.items[i], NULL, &inputs->references[i], err);
        inputs->n_references += st == CYI_OK;
    }
    if (st == CYI_OK && options->init != NULL) {
        st = inputs_load(engine, "--init", options->init, NULL, &inputs->init, err);
    }
    if (st == CYI_OK && options->mask != NULL) {
        st = inputs_load(engine, "--mask", options->mask, NULL, &inputs->mask, err);
    }
    return st;
}

/* ---- The run ---- */

static void print_note(const struct session *session, const char *note) {
    if (!session->options->is_quiet) {
        fprintf(stderr, "Note: %s\n", note);
    }
}

/* What was asked for and will have no effect. */
static void print_notes(const struct generate_options *options, const struct session *session,
                        const struct recipe *recipe) {
    const struct cyi_model_info *model = &session->model_info;
    const bool has_negative = recipe->negative_prompt != NULL && recipe->negative_prompt[0] != '\0';
    if (model->is_distilled && options->guidance >= 0.0) {
        print_note(session, "this model is distilled, --guidance has no effect");
    }
    if (has_negative && (model->is_distilled || model->has_embedded_guidance)) {
        print_note(session, "this model does not read a negative prompt, --negative has no effect");
    } else if (has_negative && recipe->guidance <= 1.0) {
        print_note(session, "--negative has no effect with a guidance of 1 or less");
    }
    if (options->seed.is_set && options->seed.value > UINT32_MAX) {
        print_note(session, "only the low 32 bits of --seed count; they are recorded");
    }
}

static json_t *report_to_json(const struct cyi_report *report) {
    json_t *phases = json_object();
    for (int phase = 0; phase < CYI_N_PHASES; phase++) {
        (void)json_object_set_new(phases, cyi_phase_name((enum cyi_phase)phase),
                                  json_real(report->phase_seconds[phase]));
    }
    return json_pack("{s:f, s:o, s:i, s:b, s:b, s:I, s:I}", "seconds", report->total_seconds, "phase_seconds", phases,
                     "text_tokens", report->n_text_tokens, "prompt_cut", (int)report->is_prompt_cut, "prompt_cached",
                     (int)report->is_prompt_cached, "fallbacks", (json_int_t)report->n_fallbacks, "working_bytes",
                     (json_int_t)report->working_bytes);
}

/* The line on standard output that says what was made. */
static enum cyi_status print_result(const struct generate_options *options, const char *path, int i,
                                    const struct recipe *recipe, const struct cyi_report *report,
                                    struct cyi_error *err) {
    if (!options->is_json) {
        puts(path);
    } else {
        char *clean = text_clean(path);
        json_t *json = json_pack("{s:s, s:i, s:I, s:i, s:i}", "path", clean, "index", i, "seed",
                                 (json_int_t)recipe->seed, "width", recipe->width, "height", recipe->height);
        free(clean);
        (void)json_object_update_new(json, report_to_json(report));
        (void)json_object_set_new(json, "settings", recipe_to_json(recipe));
        (void)json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fputc('\n', stdout);
        json_decref(json);
    }
    if (fflush(stdout) != 0) {
        return text_error(err, CYI_E_IO, "cannot write to standard output (%.200s was saved)", path);
    }
    return CYI_OK;
}

/* Draws on the terminal, which may be standard error when the output goes elsewhere. A picture that is saved is not lost because it
 * cannot be shown. */
static void show_picture(const struct generate_options *options, const struct session *session,
                         const struct cyi_image *image) {
    struct cyi_error problem = { 0 };
    FILE *out = isatty(STDOUT_FILENO) ? stdout : isatty(STDERR_FILENO) ? stderr : NULL;
    if (!options->is_shown && options->protocol == NULL) {
        return;
    }
    if (out == NULL && options->protocol == NULL) {
        print_note(session, "--show needs a terminal");
    } else if (terminal_image_show(out != NULL ? out : stderr, session->engine, image, options->protocol, &problem) !=
               CYI_OK) {
        print_note(session, problem.text);
    }
}

static enum cyi_status make_picture(const struct generate_options *options, const struct session *session,
                                    const struct output *output, struct cyi_request *request,
                                    const struct recipe *recipe, int i, struct cyi_error *err) {
    struct cyi_image *image = NULL;
    struct cyi_report report = { 0 };
    char *path = NULL;
    enum cyi_status st = generate_run(session, request, i + 1, output->n_pictures, &image, &report, err);
    if (st != CYI_OK) {
        return st;
    }
    if (report.is_prompt_cut && i == 0) {
        char *note = text_format("the prompt is longer than the %d tokens that this model reads; the rest was not seen",
                                 session->model_info.max_text_tokens);
        print_note(session, note);
        free(note);
    }
    session_begin_saving();
    st = output_save(output, session->engine, image, recipe, i, &path, err);
    if (st == CYI_OK) {
        if (session->options->is_verbose) {
            generate_print_report(&report);
        }
        st = print_result(options, path, i, recipe, &report, err);
    } else {
        st = CYI_E_IO; /* whatever the cause, the run itself was fine: exit code 1 */
    }
    if (st == CYI_OK) {
        show_picture(options, session, image);
    }
    session_end_saving();
    free(path);
    cyi_image_free(image);
    return st;
}

/* All pictures. Before the first one *ret_exit_code is BAD_INPUT, so that everything that is checked until then ends so. */
static enum cyi_status make_pictures(const struct generate_options *options, struct session *session,
                                     const struct output *output, char *prompt, int *ret_exit_code,
                                     struct cyi_error *err) {
    struct inputs inputs = { 0 };
    struct recipe recipe = { .prompt = prompt };
    const struct cyi_image *references[CYI_MAX_REFERENCES];
    struct cyi_request request;
    enum cyi_status st = session_open_model(session, err);
    if (st == CYI_OK) {
        st = load_inputs(options, session->engine, &inputs, err);
    }
    if (st == CYI_OK) {
        fill_recipe(options, session, &inputs, output, &recipe);
        cyi_request_init(session->model, &request);
        generate_fill_request(&recipe, &request);
        inputs_attach(&inputs, references, &request);
        st = generate_check_plan(session, &request, err);
    }
    if (st == CYI_OK) {
        print_notes(options, session, &recipe);
    }
    for (int i = 0; i < output->n_pictures && st == CYI_OK; i++) {
        st = session_is_cancelled() ? text_error(err, CYI_E_CANCELLED, "cancelled")
                                    : make_picture(options, session, output, &request, &recipe, i, err);
        *ret_exit_code = session_exit_code(st);
        recipe.seed++; /* wraps at 32 bits, as the generator does */
        request.seed = recipe.seed;
    }
    recipe.prompt = NULL;
    recipe_done(&recipe);
    inputs_done(&inputs);
    return st;
}

static int run(const struct command *command, int argc, char **argv) {
    struct generate_options options = { .width = OPTION_UNSET,
                                        .height = OPTION_UNSET,
                                        .n_steps = OPTION_UNSET,
                                        .n_pictures = 1,
                                        .guidance = OPTION_UNSET,
                                        .strength = OPTION_UNSET,
                                        .quality = OPTION_UNSET };
    struct option_arguments arguments;
    struct cyi_error err = { 0 };
    struct session session = { 0 };
    struct output output = { 0 };
    char *prompt = NULL;
    int exit_code = CLI_BAD_INPUT;

    enum cyi_status st = options_parse(command, argc, argv, &options, &arguments, &err);
    if (st == CYI_OK && arguments.wants_help) {
        options_print_help(command, stdout);
        return CLI_OK;
    }
    session_catch_signals();
    if (st == CYI_OK && (st = read_prompt(arguments.items[0], &prompt, &err)) == CYI_OK &&
        (st = check_options(&options, prompt, &err)) == CYI_OK &&
        (st = output_plan(options.output, options.format, options.quality, options.n_pictures, &output, &err)) ==
            CYI_OK &&
        (st = session_start(&options.session, &session, &err)) == CYI_OK) {
        st = make_pictures(&options, &session, &output, prompt, &exit_code, &err);
    }
    session_done(&session);
    output_done(&output);
    free(prompt);
    if (st == CYI_OK) {
        return CLI_OK;
    }
    return text_report(&err, st == CYI_E_CANCELLED ? CLI_CANCELLED : exit_code);
}

const struct command command_generate = {
    .name = "generate",
    .arguments = "PROMPT",
    .summary = "make pictures from a prompt",
    .description =
        "Makes a picture of what PROMPT says and prints the name of its file. With - as PROMPT it is read from\n"
        "standard input; after -- nothing is an option. The file carries all settings: \"cyberimage info\" shows\n"
        "them, \"cyberimage verify\" makes the picture again. Ctrl-C ends at once and leaves nothing half done.\n\n"
        "Exit code: 0 done, 1 failed while running, 2 cannot be done as asked (nothing was written), 130 cancelled.",
    .examples = "  cyberimage generate \"a neon fox in the rain\"\n"
                "  cyberimage generate --seed 42 --count 4 --output pictures/ \"a lighthouse, holographic\"\n"
                "  cyberimage generate --image cat.png --model FLUX.2-klein-4B \"the cat wears a hat\"\n"
                "  cyberimage generate --init photo.jpg --mask sky.png --strength 0.9 \"aurora over the city\"\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .min_arguments = 1,
    .max_arguments = 1,
    .argument_hint = "put the prompt in quotes: cyberimage generate \"a neon fox\"",
    .run = run,
};
