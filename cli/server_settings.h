/* server_settings: the studio's settings on the command line: one option for each row of settings.def, and the
 * settings file. */
#ifndef CLI_SERVER_SETTINGS_H
#define CLI_SERVER_SETTINGS_H

#include "base/settings.h"
#include "options.h"

struct server_options {
    const char *config;             /* --config FILE */
    const char *values[N_SETTINGS]; /* NULL: not said */
    bool flags[N_SETTINGS];         /* of those that are true or false */
};

#define SERVER_CONFIG_ROW(type, field)                                                                                 \
    {                                                                                                                  \
        OPTION_TEXT, 0, "config", "FILE",                                                                              \
            "Settings file: lines of NAME = VALUE (default: cyberimage.conf in the data folder)",                      \
            offsetof(struct type, field), 0, 0, NULL                                                                   \
    }

/* Rows for commands that only need to know where things lie; member is a struct server_options. */
#define SERVER_PLACE_ROWS(type, member)                                                                                \
    { OPTION_HEADING, 0, NULL, NULL, "Where the studio keeps things, as for cyberimage serve", 0, 0, 0, NULL },        \
        SERVER_CONFIG_ROW(type, member.config),                                                                        \
        SERVER_PLACE_ROW(type, member, data, "Folder of everything that is kept"),                                     \
        SERVER_PLACE_ROW(type, member, images, "Folder of the pictures"),                                              \
        SERVER_PLACE_ROW(type, member, database, "The database file"),                                                 \
        SERVER_PLACE_ROW(type, member, cache, "Folder of what can be made again")
#define SERVER_PLACE_ROW(type, member, name, help)                                                                     \
    { OPTION_TEXT, 0, #name, "PATH", help, offsetof(struct type, member.values[SETTING_##name]), 0, 0, NULL }

/* --config and every setting. For a struct whose only member is a struct server_options. */
extern const struct option_row server_option_rows[];
#define N_SERVER_OPTION_ROWS (N_SETTINGS + 2)

/* Flags, environment, and the settings file: --config, CYBERIMAGE_CONFIG, else cyberimage.conf in the data folder when
 * there is one. */
enum problem_code server_settings_read(const struct server_options *options, struct settings **ret_settings,
                                       struct problem *problem);

/* "cyberimage: SENTENCE" on standard error. Returns the exit code: BAD_INPUT for what the caller can mend. */
int server_report(const struct problem *problem);

#endif
