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

/* --config and every setting. For a struct whose only member is a struct server_options. */
extern const struct option_row server_option_rows[];
#define N_SERVER_OPTION_ROWS (N_SETTINGS + 2)
/* Only what says where things lie: --config, --data, --images, --database, --cache. */
extern const struct option_row server_place_rows[];
#define N_SERVER_PLACE_ROWS 6

/* Flags, environment, and the settings file: --config, CYBERIMAGE_CONFIG, else cyberimage.conf in the data folder when
 * there is one. */
enum problem_code server_settings_read(const struct server_options *options, struct settings **ret_settings,
                                       struct problem *problem);

#endif
