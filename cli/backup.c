/* cyberimage backup: a consistent copy of the studio's database, while it runs or not. Only reads. */
#include "commands.h"
#include "server_settings.h"
#include "studio.h"

#include <sys/stat.h>

struct backup_options {
    struct server_options server;
};

static const struct option_row rows[] = { SERVER_PLACE_ROWS(backup_options, server) };

static enum problem_code make_backup(const struct backup_options *options, const char *file, struct problem *problem) {
    struct settings *settings = NULL;
    struct studio_paths paths = { .lock_fd = -1 };
    struct store *store = NULL;
    struct stat info;
    char size[TEXT_SHORT];
    enum problem_code st = PROBLEM_NONE;
    TRY(server_settings_read(&options->server, &settings, problem));
    TRY(studio_paths_init(settings, &paths, problem));
    TRY(store_open_to_read(paths.database, &store, problem));
    TRY(store_backup(store, file, problem));
    printf("%s: %s. The pictures are files of their own: copy %s as well.\n", file,
           text_bytes(size, stat(file, &info) == 0 ? (uint64_t)info.st_size : 0), paths.images);
done:
    store_close(store);
    studio_paths_done(&paths);
    settings_free(settings);
    return st;
}

static int run(const struct command *command, int argc, char **argv) {
    struct backup_options options = { 0 };
    struct option_arguments arguments;
    int exit_code = CLI_OK;
    struct problem problem = { 0 };
    if (!options_begin(command, argc, argv, &options, &arguments, &exit_code)) {
        return exit_code;
    }
    return make_backup(&options, arguments.items[0], &problem) == PROBLEM_NONE ? CLI_OK : server_report(&problem);
}

const struct command command_backup = {
    .name = "backup",
    .arguments = "FILE",
    .summary = "copy the studio's database into a file",
    .description =
        "Copies the database as it is at one moment, also while the studio runs. FILE must not exist; it is there as "
        "a\n"
        "whole or not at all. The pictures' folder is to be copied after it. To put both back: stop the studio, copy\n"
        "them to their places, remove what is named like the database with -wal or -shm behind it, and start.",
    .examples = "  cyberimage backup /backup/studio-2026-11-27.sqlite\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .min_arguments = 1,
    .max_arguments = 1,
    .argument_hint = "it takes the name of the file to make",
    .run = run,
};
