/* cyberimage worker: the process that the studio starts for each device. Nobody starts it by hand. */
#include "worker.h"
#include "commands.h"
#include "session.h"

#include <stdlib.h>
#include <string.h>

struct worker_command {
    struct session_options session;
    int fd, idle, parent;
};

#define FIELD(name) offsetof(struct worker_command, name)

static const struct option_row rows[] = {
    { OPTION_HEADING, 0, NULL, NULL, "Worker", 0, 0, 0, NULL },
    { OPTION_INT, 0, "fd", "N", "The socket to the server (default: 3)", FIELD(fd), 0, 1024, NULL },
    { OPTION_INT, 0, "idle", "SECONDS", "Let go of the model after so long without work (default: 300)", FIELD(idle), 1,
      86400, NULL },
    { OPTION_INT, 0, "parent", "PID", "End when this process does", FIELD(parent), 0, 2147483647, NULL },
    SESSION_ENGINE_ROWS(worker_command, session),
};

static int run(const struct command *command, int argc, char **argv) {
    struct worker_command options = { .fd = 3, .idle = 300 };
    struct option_arguments arguments;
    struct cyi_error err = { 0 };
    char *cache = NULL;
    if (options_parse(command, argc, argv, &options, &arguments, &err) != CYI_OK) {
        return text_report(&err, CLI_BAD_INPUT);
    }
    if (arguments.wants_help) {
        options_print_help(command, stdout);
        return CLI_OK;
    }
    if (session_choose_cache(&options.session, &cache, &err) != CYI_OK) {
        return text_report(&err, CLI_BAD_INPUT);
    }
    const struct worker_options worker = {
        .fd = options.fd,
        .idle_seconds = options.idle,
        .parent = options.parent,
        .engine = { .backend = options.session.backend,
                    .precision = session_precision(options.session.precision),
                    .n_threads = options.session.n_threads,
                    .cache_dir = cache,
                    .device = options.session.device,
                    .max_device_bytes = (uint64_t)options.session.device_memory * 1024 * 1024 },
    };
    const int code = worker_run(&worker, &err);
    free(cache);
    return code == CLI_OK ? CLI_OK : text_report(&err, code);
}

const struct command command_worker = {
    .name = "worker",
    .arguments = "",
    .summary = "make the studio's pictures on one device (the studio starts it)",
    .description = "Owns one device and the engine. Its orders come over the socket --fd, in the protocol of\n"
                   "docs/worker-protocol.md; it opens no network connection and no database, and ends with its server.",
    .examples = "  The studio starts it: cyberimage serve\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .argument_hint = "it takes no arguments",
    .run = run,
};
