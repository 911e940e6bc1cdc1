/* cyberimage: the program. Finds the sub-command and hands over; one file each does the work. */
#include "commands.h"
#include "session.h"

#include "base/log.h"

#include <sodium.h>
#include <string.h>

static const struct command *const commands[] = {
    &command_serve,  &command_generate, &command_info,   &command_verify, &command_models,
    &command_doctor, &command_bench,    &command_config, &command_user,   &command_audit,
    &command_backup, &command_fsck,     &command_ping,   &command_worker,
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void print_help(FILE *out) {
    fputs("cyberimage " CYI_VERSION ": FLUX pictures on your own machine\n\n"
          "Usage: cyberimage COMMAND [OPTION…] [ARGUMENT…]\n\nCommands:\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\nOptions:\n"
          "  -h, --help     This text; after a command: its options\n"
          "  -V, --version  The version\n\n"
          "Start here:\n"
          "  cyberimage doctor                              is this machine ready?\n"
          "  cyberimage generate \"a neon fox in the rain\"   a first picture\n"
          "  cyberimage generate --help                     everything that can be set\n\n"
          "Environment:\n"
          "  CYBERIMAGE_MODELS   folders with models, separated by colons, beside the usual ones (cyberimage models)\n"
          "  XDG_CACHE_HOME, XDG_DATA_HOME, HF_HOME, HF_HUB_CACHE   as everywhere\n",
          out);
}

static const struct command *find_command(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

static int print_and_finish(void (*print)(FILE *out)) {
    print(stdout);
    return fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
}

static void print_version(FILE *out) {
    fputs("cyberimage " CYI_VERSION "\n", out);
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    struct cyi_error err = { 0 };
    if (sodium_init() < 0) {
        (void)text_error(&err, CYI_E_UNSUPPORTED, "libsodium does not start on this machine");
        return text_report(&err, CLI_FAILED);
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        return print_and_finish(print_version);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        return print_and_finish(print_help);
    }
    if (strcmp(name, "help") == 0) {
        const struct command *about = argc > 2 ? find_command(argv[2]) : NULL;
        if (about == NULL) {
            return print_and_finish(print_help);
        }
        options_print_help(about, stdout);
        return CLI_OK;
    }
    if (name[0] == '\0') {
        print_help(stderr);
        return CLI_BAD_INPUT;
    }
    const struct command *command = find_command(name);
    if (command == NULL) {
        (void)text_error(&err, CYI_E_ARGUMENT, "there is no command \"%.60s\"; \"cyberimage --help\" lists all", name);
        return text_report(&err, CLI_BAD_INPUT);
    }
    log_configure(LOG_NOTHING, false); /* commands say in sentences what went wrong; serve has a log, and says how */
    return command->run(command, argc - 1, argv + 1);
}
