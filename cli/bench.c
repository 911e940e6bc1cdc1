/* cyberimage bench: how long a picture takes on this machine, by phase. The first run reads the weights from the disk, the best of the
 * others shows what the processor can do. */
#include "commands.h"
#include "generate.h"

#include <stdlib.h>
#include <time.h>

#define DEFAULT_STEPS 4

struct bench_options {
    struct session_options session;
    int width, height, n_steps, n_runs;
    bool is_json;
};

#define FIELD(name) offsetof(struct bench_options, name)

static const struct option_row rows[] = {
    { OPTION_HEADING, 0, NULL, NULL, "Picture", 0, 0, 0, NULL },
    { OPTION_INT, 'W', "width", "PIXELS", "Width (default: the model's)", FIELD(width), 1, CYI_MAX_IMAGE_SIDE, NULL },
    { OPTION_INT, 'H', "height", "PIXELS", "Height, likewise", FIELD(height), 1, CYI_MAX_IMAGE_SIDE, NULL },
    { OPTION_INT, 's', "steps", "N", "Steps of each run (default: 4)", FIELD(n_steps), 1, CYI_MAX_STEPS, NULL },
    { OPTION_INT, 'r', "runs", "N", "Runs; the best after the first counts (default: 3)", FIELD(n_runs), 1, 100, NULL },
    { OPTION_FLAG, 0, "json", NULL, "The figures as a JSON object", FIELD(is_json), 0, 0, NULL },
    { OPTION_FLAG, 0, "quiet", NULL, "No progress", FIELD(session.is_quiet), 0, 0, NULL },
    { OPTION_FLAG, 'v', "verbose", NULL, "Memory plan and log on standard error", FIELD(session.is_verbose), 0, 0,
      NULL },
    SESSION_MODEL_ROWS(bench_options, session),
    SESSION_ENGINE_ROWS(bench_options, session),
};

enum figure { FIGURE_LOAD, FIGURE_ENCODE, FIGURE_STEP, FIGURE_DECODE, FIGURE_TOTAL, N_FIGURES };

static const char *const figure_names[N_FIGURES] = {
    [FIGURE_LOAD] = "load",     [FIGURE_ENCODE] = "encode", [FIGURE_STEP] = "step",
    [FIGURE_DECODE] = "decode", [FIGURE_TOTAL] = "picture",
};

/* Seconds. */
struct figures {
    double first[N_FIGURES], best[N_FIGURES];
    uint64_t working_bytes;
};

static double now_seconds(void) {
    struct timespec now = { 0 };
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void take_run(const struct cyi_report *report, double load_seconds, int i, int n_steps,
                     struct figures *figures) {
    const double run[N_FIGURES] = {
        [FIGURE_LOAD] = load_seconds,
        [FIGURE_ENCODE] = report->phase_seconds[CYI_PHASE_ENCODE_TEXT],
        [FIGURE_STEP] = report->phase_seconds[CYI_PHASE_DENOISE] / n_steps,
        [FIGURE_DECODE] = report->phase_seconds[CYI_PHASE_DECODE],
        [FIGURE_TOTAL] = report->total_seconds,
    };
    for (int k = 0; k < N_FIGURES; k++) {
        if (i == 0) {
            figures->first[k] = run[k];
        }
        if (i <= 1 || run[k] < figures->best[k]) { /* the second run replaces the first */
            figures->best[k] = run[k];
        }
    }
    figures->working_bytes =
        report->working_bytes > figures->working_bytes ? report->working_bytes : figures->working_bytes;
}

static enum cyi_status measure(const struct bench_options *options, struct session *session,
                               struct cyi_request *request, struct figures *figures, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    for (int i = 0; i < options->n_runs && st == CYI_OK; i++) {
        char *prompt = text_format("run %d: a neon fox in the rain before a wet street, holographic signs", i);
        struct cyi_image *image = NULL;
        struct cyi_report report = { 0 };
        const double start = now_seconds();
        session_close_model(session);
        st = session_open_model(session, err);
        const double load_seconds = now_seconds() - start;
        if (st == CYI_OK && i == 0) {
            cyi_request_init(session->model, request);
            request->width = options->width != OPTION_UNSET ? options->width : request->width;
            request->height = options->height != OPTION_UNSET ? options->height : request->height;
            request->n_steps = options->n_steps;
        }
        request->prompt = prompt; /* another one each time, so that none is remembered */
        request->seed = (uint64_t)i;
        if (st == CYI_OK && i == 0) {
            st = generate_check_plan(session, request, err);
        }
        if (st == CYI_OK) {
            st = generate_run(session, request, i + 1, options->n_runs, &image, &report, err);
        }
        if (st == CYI_OK) {
            take_run(&report, load_seconds, i, request->n_steps, figures);
        }
        cyi_image_free(image);
        free(prompt);
    }
    return st;
}

static void print_table(const struct session *session, const struct cyi_request *request, const struct figures *figures,
                        int n_runs) {
    static const char *const titles[N_FIGURES] = {
        [FIGURE_LOAD] = "Open the model", [FIGURE_ENCODE] = "Read the prompt", [FIGURE_STEP] = "One step",
        [FIGURE_DECODE] = "Decode",       [FIGURE_TOTAL] = "Whole picture",
    };
    char text[TEXT_SHORT];
    printf("%s, %d×%d, %d steps, %s (%s, %s), %d threads\n\n", session->model_info.name, request->width,
           request->height, request->n_steps, session->engine_info.backend_version, session->engine_info.cpu_isa,
           session->engine_info.precision, session->engine_info.n_threads);
    printf("%-18s %12s %12s\n", "", "first run", n_runs > 1 ? "best run" : "");
    for (int k = 0; k < N_FIGURES; k++) {
        printf("%-18s %12s", titles[k], text_seconds(text, figures->first[k]));
        printf(" %12s\n", n_runs > 1 ? text_seconds(text, figures->best[k]) : "");
    }
    printf("%-18s %12s\n", "Memory held", text_bytes(text, figures->working_bytes));
}

static void print_json(const struct session *session, const struct cyi_request *request,
                       const struct figures *figures) {
    json_t *first = json_object(), *best = json_object();
    char *name = text_clean(session->model_info.name);
    for (int k = 0; k < N_FIGURES; k++) {
        (void)json_object_set_new(first, figure_names[k], json_real(figures->first[k]));
        (void)json_object_set_new(best, figure_names[k], json_real(figures->best[k]));
    }
    json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:o, s:o, s:I}", "model", name, "backend",
                             session->engine_info.backend_version, "isa", session->engine_info.cpu_isa, "precision",
                             session->engine_info.precision, "threads", session->engine_info.n_threads, "width",
                             request->width, "height", request->height, "steps", request->n_steps, "first_seconds",
                             first, "best_seconds", best, "working_bytes", (json_int_t)figures->working_bytes);
    (void)json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    fputc('\n', stdout);
    json_decref(json);
    free(name);
}

static int run(const struct command *command, int argc, char **argv) {
    struct bench_options options = { .session = { .has_no_cache = true },
                                     .width = OPTION_UNSET,
                                     .height = OPTION_UNSET,
                                     .n_steps = DEFAULT_STEPS,
                                     .n_runs = 3 };
    struct option_arguments arguments;
    struct session session = { 0 };
    struct figures figures = { 0 };
    struct cyi_request request = { 0 };
    struct cyi_error err = { 0 };
    enum cyi_status st = options_parse(command, argc, argv, &options, &arguments, &err);
    if (st == CYI_OK && arguments.wants_help) {
        options_print_help(command, stdout);
        return CLI_OK;
    }
    session_catch_signals();
    if (st == CYI_OK && (st = session_start(&options.session, &session, &err)) == CYI_OK) {
        st = measure(&options, &session, &request, &figures, &err);
    }
    if (st == CYI_OK && options.is_json) {
        print_json(&session, &request, &figures);
    } else if (st == CYI_OK) {
        print_table(&session, &request, &figures, options.n_runs);
    }
    session_done(&session);
    return st == CYI_OK            ? CLI_OK
           : st == CYI_E_CANCELLED ? text_report(&err, CLI_CANCELLED)
                                   : text_report(&err, CLI_BAD_INPUT);
}

const struct command command_bench = {
    .name = "bench",
    .arguments = "",
    .summary = "how long a picture takes here, by phase",
    .description = "Makes a few pictures, which are not kept, and prints how long each phase took: in the first run, "
                   "when weights\n"
                   "may come from the disk, and at best. Nothing is taken from or put into the cache.\n\n"
                   "Exit code: 0 measured, 2 cannot be done as asked, 130 cancelled.",
    .examples = "  cyberimage bench\n  cyberimage bench --model FLUX.2-klein-4B --width 512 --height 512 --json\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .max_arguments = 0,
    .argument_hint = "it takes none",
    .run = run,
};
