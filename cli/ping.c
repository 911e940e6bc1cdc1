/* cyberimage ping: does the studio answer, and does it take work? For health checks of containers and services. */
#include "commands.h"
#include "server_settings.h"

#include "http/address.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_SECONDS 5L

struct ping_options {
    struct server_options server;
};

static const struct option_row rows[] = {
    { OPTION_HEADING, 0, NULL, NULL, "Where it listens, as for cyberimage serve", 0, 0, 0, NULL },
    SERVER_CONFIG_ROW(ping_options, server.config),
    { OPTION_TEXT, 0, "listen", "TEXT", "Address and port (default: 127.0.0.1:5050)",
      offsetof(struct ping_options, server.values[SETTING_listen]), 0, 0, NULL },
    { OPTION_TEXT, 0, "base-path", "TEXT", "Path below which it is served",
      offsetof(struct ping_options, server.values[SETTING_base_path]), 0, 0, NULL },
    { OPTION_TEXT, 0, "tls-certificate", "PATH", "When it speaks HTTPS",
      offsetof(struct ping_options, server.values[SETTING_tls_certificate]), 0, 0, NULL },
};

/* The address of its readiness on this machine. A new string. */
static enum problem_code make_url(struct settings *settings, char **ret_url, struct problem *problem) {
    char *text = settings_text(settings, SETTING_listen), *base = settings_text(settings, SETTING_base_path);
    char *certificate = settings_text(settings, SETTING_tls_certificate);
    struct listen_address listen;
    const enum problem_code st = address_parse_listen(text, &listen, problem);
    if (st == PROBLEM_NONE) {
        *ret_url = text_format("%s://%s:%d%s/readyz", certificate[0] != '\0' ? "https" : "http", address_host(&listen),
                               listen.port, base);
    }
    free(certificate);
    free(base);
    free(text);
    return st;
}

static size_t ignore(char *data, size_t size, size_t n, void *user) {
    (void)data;
    (void)user;
    return size * n;
}

static enum problem_code ask(const char *url, struct problem *problem) {
    CURL *easy = curl_easy_init();
    long status = 0;
    if (easy == NULL) {
        text_out_of_memory();
    }
    (void)curl_easy_setopt(easy, CURLOPT_URL, url);
    (void)curl_easy_setopt(easy, CURLOPT_TIMEOUT, TIMEOUT_SECONDS);
    (void)curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    (void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, ignore);
    /* The certificate names the studio's public name and not this address; nothing secret is sent. */
    (void)curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    (void)curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    const CURLcode code = curl_easy_perform(easy);
    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(easy);
    return code != CURLE_OK
               ? problem_set(problem, PROBLEM_UNAVAILABLE, NULL, "%.300s: %s", url, curl_easy_strerror(code))
           : status != 200 ? problem_set(problem, PROBLEM_UNAVAILABLE, NULL,
                                         "%.300s: it answers, and takes no work (%ld)", url, status)
                           : PROBLEM_NONE;
}

static int run(const struct command *command, int argc, char **argv) {
    struct ping_options options = { 0 };
    struct option_arguments arguments;
    int exit_code = CLI_OK;
    struct problem problem = { 0 };
    struct settings *settings = NULL;
    char *url = NULL;
    enum problem_code st = PROBLEM_NONE;
    if (!options_begin(command, argc, argv, &options, &arguments, &exit_code)) {
        return exit_code;
    }
    TRY(server_settings_read(&options.server, &settings, &problem));
    TRY(make_url(settings, &url, &problem));
    TRY(ask(url, &problem));
    printf("ready\n");
done:
    free(url);
    settings_free(settings);
    return st == PROBLEM_NONE ? CLI_OK : server_report(&problem);
}

const struct command command_ping = {
    .name = "ping",
    .arguments = "",
    .summary = "ask whether the studio takes work",
    .description =
        "Asks the studio of this machine, at the address of its settings, whether it is ready. Exit code 0: it is;\n"
        "1: it does not answer, or takes no work now. For health checks.",
    .examples = "  cyberimage ping\n  cyberimage ping --listen 127.0.0.1:8080\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .argument_hint = "it takes no arguments",
    .run = run,
};
