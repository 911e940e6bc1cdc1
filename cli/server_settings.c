/* Settings on the command line: see server_settings.h. */
#include "server_settings.h"

#include "files.h"

#include <stdlib.h>
#include <string.h>

#define VALUE(setting) (offsetof(struct server_options, values) + (setting) * sizeof(const char *))
#define FLAG(setting) (offsetof(struct server_options, flags) + (setting) * sizeof(bool))

/* A row by the setting's kind. Bounds are the settings' own, so that all sources say the same sentence. */
#define ROW_TEXT(name, value, setting, choices, help)                                                                  \
    { OPTION_TEXT, 0, name, value, help, VALUE(setting), 0, 0, NULL }
#define ROW_PATH(name, value, setting, choices, help) ROW_TEXT(name, "PATH", setting, choices, help)
#define ROW_URL(name, value, setting, choices, help) ROW_TEXT(name, "URL", setting, choices, help)
#define ROW_SECRET(name, value, setting, choices, help) ROW_TEXT(name, "SECRET", setting, choices, help)
#define ROW_INT(name, value, setting, choices, help) ROW_TEXT(name, "N", setting, choices, help)
#define ROW_NUMBER(name, value, setting, choices, help) ROW_TEXT(name, "X", setting, choices, help)
#define ROW_CHOICE(name, value, setting, choices, help)                                                                \
    { OPTION_CHOICE, 0, name, "NAME", help, VALUE(setting), 0, 0, choices }
#define ROW_BOOL(name, value, setting, choices, help)                                                                  \
    { OPTION_FLAG, 0, name, NULL, help, FLAG(setting), 0, 0, NULL }

const struct option_row server_option_rows[N_SERVER_OPTION_ROWS] = {
    { OPTION_HEADING, 0, NULL, NULL,
      "Settings, each also as CYBERIMAGE_NAME in the environment or as a line of the file", 0, 0, 0, NULL },
    SERVER_CONFIG_ROW(server_options, config),
#define SETTING(field, kind, name, preset, min, max, choices, flags, help)                                             \
    ROW_##kind(name, "TEXT", SETTING_##field, choices, help),
#include "base/settings.def"
#undef SETTING
};

static enum problem_code take_flags(const struct server_options *options, struct settings *settings,
                                    struct problem *problem) {
    for (int i = 0; i < N_SETTINGS; i++) {
        const char *text = options->flags[i] ? "true" : options->values[i];
        struct problem found = { 0 };
        if (text != NULL && settings_set(settings, (enum setting)i, SETTING_FROM_FLAG, text, &found) != PROBLEM_NONE) {
            return problem_set(problem, found.code, found.field, "--%.480s", found.detail);
        }
    }
    return PROBLEM_NONE;
}

static enum problem_code read_file(const struct server_options *options, struct settings *settings,
                                   struct problem *problem) {
    const char *named = options->config != NULL ? options->config : getenv("CYBERIMAGE_CONFIG");
    if (named != NULL) {
        return settings_read_file(settings, named, problem);
    }
    char *data = settings_text(settings, SETTING_data);
    char *usual = data[0] != '\0' ? files_join(data, "cyberimage.conf") : NULL;
    const enum problem_code st =
        usual != NULL && files_exists(usual) ? settings_read_file(settings, usual, problem) : PROBLEM_NONE;
    free(usual);
    free(data);
    return st;
}

int server_report(const struct problem *problem) {
    fputs("cyberimage: ", stderr);
    text_write_safe(stderr, problem->detail, false);
    fputc('\n', stderr);
    return problem->code == PROBLEM_INVALID || problem->code == PROBLEM_CONFLICT || problem->code == PROBLEM_NOT_FOUND
               ? CLI_BAD_INPUT
               : CLI_FAILED;
}

enum problem_code server_settings_read(const struct server_options *options, struct settings **ret_settings,
                                       struct problem *problem) {
    struct settings *settings = settings_create();
    enum problem_code st = PROBLEM_NONE;
    TRY(take_flags(options, settings, problem));
    TRY(settings_read_environment(settings, problem));
    TRY(read_file(options, settings, problem));
    *ret_settings = settings;
    settings = NULL;
done:
    settings_free(settings);
    return st;
}
