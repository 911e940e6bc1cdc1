/* cyberimage doctor: is this machine ready, and if not, what to do. */
#include "commands.h"
#include "session.h"
#include "system_info.h"

#include <gnu/libc-version.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/statvfs.h>

#define LOW_MEMORY ((uint64_t)1500 * 1000 * 1000) /* below this only small models work */
#define LOW_DISK ((uint64_t)1000 * 1000 * 1000)

struct doctor_options {
    struct session_options session;
    bool is_json;
};

#define FIELD(name) offsetof(struct doctor_options, name)

static const struct option_row rows[] = {
    { OPTION_FLAG, 0, "json", NULL, "The findings as a JSON object", FIELD(is_json), 0, 0, NULL },
    SESSION_ENGINE_ROWS(doctor_options, session),
};

enum level { LEVEL_OK, LEVEL_WARNING, LEVEL_ERROR };

struct finding {
    enum level level;
    const char *title;
    char *text;
    const char *advice; /* NULL: nothing to do */
};

#define MAX_FINDINGS 64

struct findings {
    struct finding items[MAX_FINDINGS];
    int n;
};

/* Takes text over. */
static void add(struct findings *findings, enum level level, const char *title, char *text, const char *advice) {
    if (findings->n == MAX_FINDINGS) {
        free(text);
        return;
    }
    findings->items[findings->n++] = (struct finding){ level, title, text, advice };
}

/* ---- The machine ---- */

static void check_processor(const struct system_info *info, struct findings *findings) {
    const bool is_slow = info->is_x86 && !info->has_avx2;
    add(findings, is_slow ? LEVEL_WARNING : LEVEL_OK, "processor",
        text_format("%s%s%s", info->processor, info->processor[0] != '\0' ? ": " : "",
                    info->features[0] != '\0' ? info->features : "no vector extensions of interest"),
        is_slow ? "Without AVX2 pictures take very long; a processor from 2014 or later has it. In a virtual machine, "
                  "pass the host's processor through."
                : NULL);
    add(findings, LEVEL_OK, "system", text_format("%s, glibc %s", info->kernel, gnu_get_libc_version()), NULL);
}

static void check_cores(const struct system_info *info, struct findings *findings) {
    const bool has_quota = info->quota_cores > 0.0 && info->quota_cores < (double)info->n_allowed_cores;
    if (has_quota) {
        add(findings, LEVEL_WARNING, "cores",
            text_format("%d of %d may be used, but the control group grants the time of %.1f", info->n_allowed_cores,
                        info->n_cores, info->quota_cores),
            "More threads than granted cores slow each other down: give the container more, or set --threads.");
    } else {
        add(findings, LEVEL_OK, "cores", text_format("%d of %d may be used", info->n_allowed_cores, info->n_cores),
            NULL);
    }
}

static void check_memory(const struct system_info *info, struct findings *findings) {
    char total[TEXT_SHORT], available[TEXT_SHORT], limit[TEXT_SHORT];
    uint64_t usable = info->available_bytes;
    char *text = text_format("%s of %s available", text_bytes(available, info->available_bytes),
                             text_bytes(total, info->memory_bytes));
    if (info->limit_bytes > 0) {
        const uint64_t left = info->limit_bytes > info->used_bytes ? info->limit_bytes - info->used_bytes : 0;
        usable = left < usable ? left : usable;
        char *longer = text_format("%s; the control group allows %s, %s are left", text,
                                   text_bytes(limit, info->limit_bytes), text_bytes(available, left));
        free(text);
        text = longer;
    }
    const bool is_low = usable < LOW_MEMORY;
    add(findings, is_low ? LEVEL_WARNING : LEVEL_OK, "memory", text,
        is_low ? "Enough for the bundled model; larger models want 1.5 GB and more beside their files." : NULL);
}

/* ---- What we bring along ---- */

static void check_cache(const struct session_options *options, struct findings *findings) {
    struct cyi_error err = { 0 };
    struct statvfs space;
    char *cache = options->cache != NULL ? text_copy(options->cache) : files_default_cache();
    if (cache == NULL) {
        add(findings, LEVEL_WARNING, "cache", text_copy("no folder: neither HOME nor XDG_CACHE_HOME is set"),
            "Set one of them, so that prompts need not be read again.");
    } else if (files_make_folder(cache, 0700, &err) != CYI_OK || files_check_writable(cache, 0, &err) != CYI_OK) {
        add(findings, LEVEL_WARNING, "cache", text_copy(err.text),
            "Make it writable, name another with --cache, or use --no-cache; pictures are made all the same.");
    } else {
        char text[TEXT_SHORT];
        const bool is_known = statvfs(cache, &space) == 0;
        const uint64_t n_free = is_known ? (uint64_t)space.f_bavail * (uint64_t)space.f_frsize : 0;
        const bool is_low = is_known && n_free < LOW_DISK;
        add(findings, is_low ? LEVEL_WARNING : LEVEL_OK, "cache",
            text_format("%s is writable, %s are free", cache,
                        is_known ? text_bytes(text, n_free) : "unknown many bytes"),
            is_low ? "Make room on this disk." : NULL);
    }
    free(cache);
}

static void check_here(struct findings *findings) {
    struct cyi_error err = { 0 };
    const bool is_fine = files_check_writable(".", LOW_DISK / 10, &err) == CYI_OK;
    add(findings, is_fine ? LEVEL_OK : LEVEL_WARNING, "this folder",
        text_copy(is_fine ? "pictures can be written here" : err.text),
        is_fine ? NULL : "Use another folder, or --output.");
}

static void check_libraries(struct findings *findings) {
    add(findings, LEVEL_OK, "libraries", system_info_libraries(), NULL);
}

static bool check_engine(const struct session_options *options, struct session *session, struct findings *findings) {
    struct cyi_error err = { 0 };
    if (session_start(options, session, &err) != CYI_OK) {
        add(findings, LEVEL_ERROR, "engine", text_copy(err.text),
            "Try --backend reference; if that works, oneDNN is missing or broken: reinstall it.");
        return false;
    }
    const struct cyi_engine_info *info = &session->engine_info;
    const bool is_reference = strcmp(info->backend, "reference") == 0;
    add(findings, is_reference ? LEVEL_WARNING : LEVEL_OK, "engine",
        text_format("%s (%s), %s, %s, %d threads", info->backend, info->backend_version, info->cpu_isa, info->precision,
                    info->n_threads),
        is_reference ? "The reference backend is right but slow; the fast one needs oneDNN when the program is built."
                     : NULL);
    if (info->gpu_status != NULL) {
        add(findings, LEVEL_OK, "card", text_format("none in use: %s", info->gpu_status), NULL);
    }
    return true;
}

static void check_models(struct session *session, struct findings *findings) {
    struct model_list list;
    int n_usable = 0;
    bool has_bundled = false;
    model_search_find(NULL, &list);
    for (size_t i = 0; i < list.n; i++) {
        struct cyi_error err = { 0 };
        if (session_open_path(session, list.items[i].path, &err) == CYI_OK) {
            n_usable++;
            has_bundled = has_bundled || strcasecmp(list.items[i].name, MODEL_BUNDLED) == 0;
            session_close_model(session);
        } else {
            add(findings, LEVEL_WARNING, "model", text_format("%s cannot be used: %s", list.items[i].name, err.text),
                "Download it again, or take it out of the folder.");
        }
    }
    add(findings, n_usable > 0 ? LEVEL_OK : LEVEL_ERROR, "models",
        text_format("%d of %zu can be used", n_usable, list.n),
        n_usable == 0  ? "Put a model in diffusers layout into ./models, or name its folder with CYBERIMAGE_MODELS; "
                         "\"cyberimage models\" shows where is looked."
        : !has_bundled ? "The bundled model " MODEL_BUNDLED " was not found: name one with --model."
                       : NULL);
    model_search_done(&list);
}

/* ---- The report ---- */

static const char *const level_names[] = { "ok", "warning", "error" };

static void print_json(const struct findings *findings, bool is_ready) {
    json_t *array = json_array();
    for (int i = 0; i < findings->n; i++) {
        const struct finding *item = &findings->items[i];
        char *text = text_clean(item->text);
        (void)json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:s?}", "level", level_names[item->level],
                                                     "about", item->title, "text", text, "advice", item->advice));
        free(text);
    }
    json_t *json = json_pack("{s:s, s:b, s:o}", "version", CYI_VERSION, "ready", (int)is_ready, "findings", array);
    (void)json_dumpf(json, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
    json_decref(json);
}

static void print_findings(const struct findings *findings, bool is_ready) {
    static const char *const marks[] = { "  ok  ", " note ", "ERROR " };
    printf("cyberimage " CYI_VERSION "\n\n");
    for (int i = 0; i < findings->n; i++) {
        const struct finding *item = &findings->items[i];
        printf("%s %-12s ", marks[item->level], item->title);
        text_write_safe(stdout, item->text, false);
        if (item->advice != NULL) {
            printf("\n%*s→ %s", 20, "", item->advice);
        }
        fputc('\n', stdout);
    }
    puts(is_ready ? "\nReady. Try: cyberimage generate \"a neon fox in the rain\"" : "\nNot ready: see ERROR above.");
}

static int run(const struct command *command, int argc, char **argv) {
    struct doctor_options options = { .session = { .is_quiet = true } };
    struct option_arguments arguments;
    struct findings findings = { .n = 0 };
    struct session session = { 0 };
    struct system_info info;
    struct cyi_error err = { 0 };
    bool is_ready = true;
    enum cyi_status st = options_parse(command, argc, argv, &options, &arguments, &err);
    if (st == CYI_OK && arguments.wants_help) {
        options_print_help(command, stdout);
        return CLI_OK;
    }
    if (st != CYI_OK) {
        return text_report(&err, CLI_BAD_INPUT);
    }
    system_info_read(&info);
    check_processor(&info, &findings);
    check_cores(&info, &findings);
    check_memory(&info, &findings);
    check_libraries(&findings);
    check_cache(&options.session, &findings);
    check_here(&findings);
    options.session.has_no_cache = true; /* the cache was looked at already */
    if (check_engine(&options.session, &session, &findings)) {
        check_models(&session, &findings);
    }
    session_done(&session);
    for (int i = 0; i < findings.n; i++) {
        is_ready = is_ready && findings.items[i].level != LEVEL_ERROR;
    }
    if (options.is_json) {
        print_json(&findings, is_ready);
    } else {
        print_findings(&findings, is_ready);
    }
    for (int i = 0; i < findings.n; i++) {
        free(findings.items[i].text);
    }
    return is_ready ? CLI_OK : CLI_FAILED;
}

const struct command command_doctor = {
    .name = "doctor",
    .arguments = "",
    .summary = "is this machine ready, and if not, what to do",
    .description =
        "Looks at processor, cores, memory, libraries, folders and models, and says what is wrong and what to do.\n\n"
        "Exit code: 0 ready, 1 something essential is wrong.",
    .examples = "  cyberimage doctor\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .max_arguments = 0,
    .argument_hint = "it takes none",
    .run = run,
};
