/* cyberimage fsck: holds database, pictures and audit log against each other, and mends. */
#include "commands.h"
#include "server_settings.h"

#include "files.h"
#include "gallery/fsck.h"

#include <string.h>

#define COULD_NOT 3 /* the check itself did not come to its end */

struct command_options {
    struct server_options server;
    struct fsck_options fsck;
    bool rebuilds, is_json;
};

#define FIELD(name) offsetof(struct command_options, name)

static const struct option_row rows[] = {
    { OPTION_FLAG, 0, "mend", NULL, "Mend what can be mended", FIELD(fsck.mends), 0, 0, NULL },
    { OPTION_FLAG, 0, "deep", NULL, "Read every file: its hash, and whether it is a picture", FIELD(fsck.is_deep), 0, 0,
      NULL },
    { OPTION_FLAG, 0, "rebuild", NULL,
      "Put the database aside and make a new one from the\npictures' own texts: accounts, favourites, tags, "
      "albums,\njobs and the audit log "
      "are not in it",
      FIELD(rebuilds), 0, 0, NULL },
    { OPTION_FLAG, 0, "json", NULL, "The report as JSON", FIELD(is_json), 0, 0, NULL },
    SERVER_PLACE_ROWS(command_options, server),
};

static size_t count_mended(const json_t *faults) {
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(faults); i++) {
        n += json_is_true(json_object_get(json_array_get(faults, i), "mended"));
    }
    return n;
}

static void print_report(const struct command_options *options, const json_t *report) {
    const json_t *faults = json_object_get(report, "faults"), *strangers = json_object_get(report, "strangers");
    const size_t n = json_array_size(faults), n_mended = count_mended(faults);
    if (options->is_json) {
        (void)json_dumpf(report, stdout, JSON_INDENT(2));
        fputc('\n', stdout);
        return;
    }
    for (size_t i = 0; i < json_array_size(strangers); i++) {
        fputs("not of the studio: ", stdout);
        text_write_safe(stdout, json_string_value(json_array_get(strangers, i)), false);
        fputc('\n', stdout);
    }
    for (size_t i = 0; i < n && !options->rebuilds; i++) {
        const json_t *fault = json_array_get(faults, i);
        printf("%s: ", json_is_true(json_object_get(fault, "mended")) ? "mended" : "fault");
        text_write_safe(stdout, json_get_text(fault, "sentence"), false);
        fputc('\n', stdout);
    }
    printf("%lld pictures; ", (long long)json_get_int(report, "pictures", 0));
    if (options->rebuilds) {
        printf("%zu were read back.\n", n_mended);
    } else if (n == 0) {
        printf("all is well.\n");
    } else {
        printf("%zu faults, %zu mended%s.\n", n, n_mended,
               options->fsck.mends ? "" : "; --mend mends what can be mended");
    }
}

static enum problem_code check(const struct command_options *options, int *exit_code, struct problem *problem) {
    struct settings *settings = NULL;
    struct studio_paths paths = { .lock_fd = -1 };
    struct studio *studio = NULL;
    json_t *report = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(server_settings_read(&options->server, &settings, problem));
    TRY(studio_paths_init(settings, &paths, problem));
    if (!options->rebuilds && !files_exists(paths.database)) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, NULL,
                         "there is no database %.300s; --rebuild makes one from the pictures", paths.database);
        goto done;
    }
    TRY(studio_open(settings, options->rebuilds, &studio, problem));
    TRY(fsck_run(studio, &options->fsck, &report, problem));
    print_report(options, report);
    const json_t *faults = json_object_get(report, "faults");
    *exit_code = json_array_size(faults) > count_mended(faults) ? CLI_FAILED : CLI_OK;
done:
    json_decref(report);
    studio_stop(studio);
    studio_paths_done(&paths);
    settings_free(settings);
    return st;
}

static int run(const struct command *command, int argc, char **argv) {
    struct command_options options = { 0 };
    struct option_arguments arguments;
    struct problem problem = { 0 };
    int exit_code = CLI_OK;
    if (!options_begin(command, argc, argv, &options, &arguments, &exit_code)) {
        return exit_code;
    }
    options.fsck.mends = options.fsck.mends || options.rebuilds;
    if (check(&options, &exit_code, &problem) == PROBLEM_NONE) {
        return exit_code;
    }
    const int code = server_report(&problem);
    return code == CLI_FAILED ? COULD_NOT : code;
}

const struct command command_fsck = {
    .name = "fsck",
    .arguments = "",
    .summary = "check the studio's database and pictures, and mend them",
    .description =
        "While the studio is stopped: checks the database, the audit log's chain, the index of prompts, that every\n"
        "picture has its file and every file its row. Exit code 0: all is well, or mended; 1: faults are left; 2: it\n"
        "cannot be done as asked; 3: the check did not come to its end. With --mend a file without a row is read back\n"
        "by what it says of itself, or put into lost+found in the pictures' folder when it is no picture; a row whose\n"
        "file is gone is removed and stands in the audit log.",
    .examples = "  cyberimage fsck\n  cyberimage fsck --deep --mend\n  cyberimage fsck --rebuild\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .argument_hint = "it takes no arguments",
    .run = run,
};
