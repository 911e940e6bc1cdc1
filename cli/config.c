/* cyberimage config: every setting of the studio, its value, and where that comes from. */
#include "commands.h"
#include "server_settings.h"
#include "studio.h"

#include "store/settings.h"

#include <string.h>

struct config_options {
    struct server_options server;
    bool is_json;
};

static const struct option_row rows[] = {
    { OPTION_FLAG, 0, "json", NULL, "A JSON object", offsetof(struct config_options, is_json), 0, 0, NULL },
    SERVER_PLACE_ROWS(config_options, server),
};

/* What an administrator set while a studio ran. A folder in which none ran yet has no such settings. */
static enum problem_code load_database(const char *database, struct settings *settings, struct problem *problem) {
    struct store *store = NULL;
    struct problem found = { 0 };
    enum problem_code st = store_open_to_read(database, &store, &found);
    if (st == PROBLEM_NONE) {
        st = settings_load(store, settings, problem);
    } else if (st == PROBLEM_NOT_FOUND) {
        st = PROBLEM_NONE;
    } else {
        *problem = found;
    }
    store_close(store);
    return st;
}

/* Where things lie when nobody said. */
static const char *usual_value(enum setting setting, const struct studio_paths *paths) {
    return setting == SETTING_data       ? paths->data
           : setting == SETTING_images   ? paths->images
           : setting == SETTING_database ? paths->database
           : setting == SETTING_cache    ? paths->cache
                                         : "";
}

static void print_settings(struct settings *settings, const struct studio_paths *paths) {
    printf("%-20s %-12s %s\n", "SETTING", "FROM", "VALUE");
    for (int i = 0; i < N_SETTINGS; i++) {
        json_t *row = settings_describe(settings, (enum setting)i);
        printf("%-20s %-12s ", json_get_text(row, "name"), json_get_text(row, "source"));
        const char *value = json_get_text(row, "value");
        text_write_safe(stdout, value[0] != '\0' ? value : usual_value((enum setting)i, paths), false);
        fputc('\n', stdout);
        json_decref(row);
    }
}

static void print_json(struct settings *settings, const struct studio_paths *paths) {
    json_t *list = JSON("[]");
    for (int i = 0; i < N_SETTINGS; i++) {
        json_add(list, settings_describe(settings, (enum setting)i));
    }
    json_t *all =
        JSON("{s:o, s:{s:o, s:o, s:o, s:o}}", "settings", list, "paths", "data", json_text(paths->data), "images",
             json_text(paths->images), "database", json_text(paths->database), "cache", json_text(paths->cache));
    (void)json_dumpf(all, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
    json_decref(all);
}

static int run(const struct command *command, int argc, char **argv) {
    struct config_options options = { 0 };
    struct option_arguments arguments;
    int exit_code = CLI_OK;
    struct problem problem = { 0 };
    struct settings *settings = NULL;
    struct studio_paths paths = { .lock_fd = -1 };
    enum problem_code st = PROBLEM_NONE;
    if (!options_begin(command, argc, argv, &options, &arguments, &exit_code)) {
        return exit_code;
    }
    TRY(server_settings_read(&options.server, &settings, &problem));
    TRY(studio_paths_init(settings, &paths, &problem));
    TRY(load_database(paths.database, settings, &problem));
    if (options.is_json) {
        print_json(settings, &paths);
    } else {
        print_settings(settings, &paths);
    }
done:
    studio_paths_done(&paths);
    settings_free(settings);
    return st == PROBLEM_NONE ? CLI_OK : server_report(&problem);
}

const struct command command_config = {
    .name = "config",
    .arguments = "",
    .summary = "show the studio's settings and where they come from",
    .description =
        "Prints every setting of the studio with its value and its source. The first of these that names a setting\n"
        "counts: flag, environment (CYBERIMAGE_NAME), settings file, what an administrator set while the studio ran\n"
        "(database), default. Of secrets only whether they are set is shown.",
    .examples = "  cyberimage config\n  cyberimage config --data /srv/studio --json\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .argument_hint = "it takes no arguments",
    .run = run,
};
