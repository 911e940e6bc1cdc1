/* settings: everything that can be chosen, one row each in settings.def. Where several places name a setting, the first
 * of these counts: flag, environment, settings file, what an administrator set while the studio ran (in the database),
 * default.
 *
 * Values are read by copy at any time from any thread (settings_text and friends lock inside); LIVE ones may change. */
#ifndef SERVER_BASE_SETTINGS_H
#define SERVER_BASE_SETTINGS_H

#include "base/problem.h"

#include <jansson.h>

enum setting {
#define SETTING(field, kind, name, preset, min, max, choices, flags, help) SETTING_##field,
#include "base/settings.def"
#undef SETTING
    N_SETTINGS
};

enum setting_kind {
    SETTING_TEXT,
    SETTING_PATH,
    SETTING_URL, /* of http or https, or "" */
    SETTING_SECRET,
    SETTING_CHOICE,
    SETTING_INT,
    SETTING_NUMBER,
    SETTING_BOOL
};

enum setting_source {
    SETTING_FROM_DEFAULT,
    SETTING_FROM_DATABASE,
    SETTING_FROM_FILE,
    SETTING_FROM_ENVIRONMENT,
    SETTING_FROM_FLAG
};

struct setting_row {
    enum setting_kind kind;
    const char *name;
    const char *preset;
    double min, max; /* of the number, or of the text's bytes */
    const char *choices;
    bool is_live;
    const char *help;
};

struct settings;

const struct setting_row *setting_row(enum setting setting);
/* N_SETTINGS when there is none of that name. */
enum setting setting_find(const char *name);
const char *setting_source_name(enum setting_source source); /* "default", "database", "file", "environment", "flag" */
/* The environment variable of a setting: "CYBERIMAGE_LOG_LEVEL". Returns buffer. */
const char *setting_environment_name(enum setting setting, char buffer[64]);

struct settings *settings_create(void); /* all defaults */
void settings_free(struct settings *settings);

/* Checks text against the row and takes it, unless a stronger source has spoken. Errors: INVALID (field: the name). */
enum problem_code settings_set(struct settings *settings, enum setting setting, enum setting_source source,
                               const char *text, struct problem *problem);
/* Only checks. */
enum problem_code settings_check(enum setting setting, const char *text, struct problem *problem);
/* Forgets what this source said of the setting: the next one counts again. */
void settings_unset(struct settings *settings, enum setting setting, enum setting_source source);
/* CYBERIMAGE_… of every setting. Errors: INVALID (names the variable). */
enum problem_code settings_read_environment(struct settings *settings, struct problem *problem);
/* Lines "name = value", "# comment" and empty ones. Errors: INVALID (file, line and name), NOT_FOUND (no such file),
 * INTERNAL. */
enum problem_code settings_read_file(struct settings *settings, const char *path, struct problem *problem);

/* A new string, "" when it is not set. */
char *settings_text(struct settings *settings, enum setting setting);
int64_t settings_int(struct settings *settings, enum setting setting);
double settings_number(struct settings *settings, enum setting setting);
bool settings_bool(struct settings *settings, enum setting setting);
enum setting_source settings_source(struct settings *settings, enum setting setting);
/* Is the comma-separated list of the setting holding this item? Upper and lower case alike, blanks around items do not
 * count. */
bool settings_list_has(struct settings *settings, enum setting setting, const char *item);

/* One object: name, kind, value (as text; of a SECRET only "set" or ""), default, source, live, min, max, choices, help. */
json_t *settings_describe(struct settings *settings, enum setting setting);

#endif
