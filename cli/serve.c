/* cyberimage serve: the studio. Starts it, says where it is, and stops it in order at Ctrl-C or SIGTERM. */
#include "base/log.h"
#include "commands.h"
#include "server_settings.h"
#include "studio.h"

#include "http/http.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

static enum log_level log_level_of(const char *name) {
    return strcmp(name, "debug") == 0     ? LOG_DEBUG
           : strcmp(name, "warning") == 0 ? LOG_WARNING
           : strcmp(name, "error") == 0   ? LOG_ERROR
                                          : LOG_INFO;
}

static void start_log(struct settings *settings) {
    char *level = settings_text(settings, SETTING_log_level), *format = settings_text(settings, SETTING_log_format);
    log_configure(log_level_of(level), strcmp(format, "json") == 0);
    free(level);
    free(format);
}

/* What models are searched with is the environment's, also for workers. */
static void export_models(struct settings *settings) {
    char *models = settings_text(settings, SETTING_models);
    if (models[0] != '\0') {
        (void)setenv("CYBERIMAGE_MODELS", models, 1);
    }
    free(models);
}

static void greet(struct studio *studio) {
    char *link = studio_sign_in_link(studio);
    printf("CyberImage is at %s\n", http_url(studio->http));
    if (link != NULL) {
        printf("Sign in once with %s\n", link);
    }
    printf("Ctrl-C stops it; what is under way goes on at the next start.\n");
    (void)fflush(stdout);
    free(link);
}

static int serve(struct settings *settings) {
    struct problem problem = { 0 };
    struct studio *studio = NULL;
    sigset_t ends;
    int number = 0;
    start_log(settings);
    export_models(settings);
    (void)prctl(PR_SET_DUMPABLE, 0); /* keys and sessions stay out of core files */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigemptyset(&ends); /* blocked in every thread: only this one waits for them */
    (void)sigaddset(&ends, SIGINT);
    (void)sigaddset(&ends, SIGTERM);
    (void)sigaddset(&ends, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &ends, NULL);
    if (studio_start(settings, &studio, &problem) != PROBLEM_NONE) {
        return server_report(&problem);
    }
    greet(studio);
    (void)sigwait(&ends, &number);
    studio_stop(studio);
    return CLI_OK;
}

static int run(const struct command *command, int argc, char **argv) {
    struct server_options options = { 0 };
    struct option_arguments arguments;
    int exit_code = CLI_OK;
    struct problem problem = { 0 };
    struct settings *settings = NULL;
    if (!options_begin(command, argc, argv, &options, &arguments, &exit_code)) {
        return exit_code;
    }
    if (server_settings_read(&options, &settings, &problem) != PROBLEM_NONE) {
        return server_report(&problem);
    }
    const int code = serve(settings);
    settings_free(settings);
    return code;
}

const struct command command_serve = {
    .name = "serve",
    .arguments = "",
    .summary = "start the studio",
    .description =
        "Starts the studio: a queue, a gallery and an audit log behind an HTTP interface, on this machine only unless\n"
        "accounts and TLS are set up. Prints its address and a link that signs the owner in, once.",
    .examples = "  cyberimage serve\n"
                "  cyberimage serve --listen 127.0.0.1:8080 --data /srv/pictures\n",
    .rows = server_option_rows,
    .n_rows = N_SERVER_OPTION_ROWS,
    .argument_hint = "it takes no arguments",
    .run = run,
};
