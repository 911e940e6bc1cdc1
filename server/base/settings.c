/* Settings: see settings.h. */
#include "base/settings.h"

#include "base/json.h"
#include "base/url.h"
#include "files.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define N_SOURCES (SETTING_FROM_FLAG + 1)
#define MAX_FILE_BYTES (256 * 1024)
#define LIVE true

static const struct setting_row rows[N_SETTINGS] = {
#define SETTING(field, kind, name, preset, min, max, choices, flags, help)                                             \
    { SETTING_##kind, name, preset, min, max, choices, flags, help },
#include "base/settings.def"
#undef SETTING
};

struct settings {
    pthread_mutex_t mutex; /* guards values */
    char *values[N_SETTINGS][N_SOURCES];
};

const struct setting_row *setting_row(enum setting setting) {
    return &rows[setting];
}

enum setting setting_find(const char *name) {
    int i = 0;
    while (i < N_SETTINGS && strcmp(rows[i].name, name) != 0) {
        i++;
    }
    return (enum setting)i;
}

const char *setting_source_name(enum setting_source source) {
    static const char *const names[N_SOURCES] = { "default", "database", "file", "environment", "flag" };
    return names[source];
}

const char *setting_environment_name(enum setting setting, char buffer[64]) {
    (void)snprintf(buffer, 64, "CYBERIMAGE_%s", rows[setting].name);
    for (char *c = buffer; *c != '\0'; c++) {
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    }
    return buffer;
}

struct settings *settings_create(void) {
    struct settings *settings = text_alloc(1, sizeof *settings);
    (void)pthread_mutex_init(&settings->mutex, NULL);
    for (int i = 0; i < N_SETTINGS; i++) {
        settings->values[i][SETTING_FROM_DEFAULT] = text_copy(rows[i].preset);
    }
    return settings;
}

void settings_free(struct settings *settings) {
    if (settings == NULL) {
        return;
    }
    for (int i = 0; i < N_SETTINGS; i++) {
        for (int source = 0; source < N_SOURCES; source++) {
            free(settings->values[i][source]);
        }
    }
    (void)pthread_mutex_destroy(&settings->mutex);
    free(settings);
}

/* ---- Values in ---- */

static bool read_bool(const char *text, bool *ret_value) {
    *ret_value = strcmp(text, "true") == 0 || strcmp(text, "1") == 0 || strcmp(text, "yes") == 0;
    return *ret_value || strcmp(text, "false") == 0 || strcmp(text, "0") == 0 || strcmp(text, "no") == 0;
}

static bool read_number(const struct setting_row *row, const char *text, double *ret_value) {
    char *end = NULL;
    if (!isdigit((unsigned char)text[0]) || (row->kind == SETTING_INT && text[strspn(text, "0123456789")] != '\0')) {
        return false;
    }
    *ret_value = strtod(text, &end);
    return *end == '\0';
}

/* The choices are checked by the reader of JSON, which knows them in this form. */
static enum problem_code check_choice(const struct setting_row *row, const char *text, struct problem *problem) {
    const char *value = NULL;
    const struct json_row choice = { row->name, JSON_ROW_CHOICE, 0, 0, 0, row->choices, 0 };
    json_t *object = JSON("{s:o}", row->name, json_text(text));
    const enum problem_code st = json_read(object, &choice, 1, &value, problem);
    json_decref(object);
    return st;
}

static enum problem_code check_url(const struct setting_row *row, const char *text, struct problem *problem) {
    char *origin = url_origin(text);
    const bool is_right = text[0] == '\0' || (origin != NULL && (double)strlen(text) <= row->max);
    free(origin);
    return is_right ? PROBLEM_NONE
                    : problem_set(problem, PROBLEM_INVALID, row->name,
                                  "%s must be an address of http:// or https:// without a user name, such as "
                                  "http://127.0.0.1:11434/v1, of at most %.0f bytes",
                                  row->name, row->max);
}

enum problem_code settings_check(enum setting setting, const char *text, struct problem *problem) {
    const struct setting_row *row = &rows[setting];
    const double length = (double)strlen(text);
    double number = 0.0;
    bool truth = false;
    switch (row->kind) {
    case SETTING_BOOL:
        return read_bool(text, &truth) ? PROBLEM_NONE
                                       : problem_set(problem, PROBLEM_INVALID, row->name,
                                                     "%s must be true or false, not \"%.60s\"", row->name, text);
    case SETTING_INT:
    case SETTING_NUMBER:
        return read_number(row, text, &number) && number >= row->min && number <= row->max
                   ? PROBLEM_NONE
                   : problem_set(problem, PROBLEM_INVALID, row->name,
                                 "%s must be a %snumber from %.16g to %.16g, not \"%.60s\"", row->name,
                                 row->kind == SETTING_INT ? "whole " : "", row->min, row->max, text);
    case SETTING_CHOICE:
        return check_choice(row, text, problem);
    case SETTING_URL:
        return check_url(row, text, problem);
    default:
        if (!text_is_utf8(text) || strpbrk(text, "\r\n") != NULL) {
            return problem_set(problem, PROBLEM_INVALID, row->name, "%s must be one line of UTF-8", row->name);
        }
        return length >= row->min && length <= row->max
                   ? PROBLEM_NONE
                   : problem_set(problem, PROBLEM_INVALID, row->name,
                                 "%s has %.0f bytes, and from %.0f to %.0f are accepted", row->name, length, row->min,
                                 row->max);
    }
}

static void replace(struct settings *settings, enum setting setting, enum setting_source source, const char *text) {
    (void)pthread_mutex_lock(&settings->mutex);
    free(settings->values[setting][source]);
    settings->values[setting][source] = text_copy(text);
    (void)pthread_mutex_unlock(&settings->mutex);
}

enum problem_code settings_set(struct settings *settings, enum setting setting, enum setting_source source,
                               const char *text, struct problem *problem) {
    const enum problem_code st = settings_check(setting, text, problem);
    if (st == PROBLEM_NONE) {
        replace(settings, setting, source, text);
    }
    return st;
}

void settings_unset(struct settings *settings, enum setting setting, enum setting_source source) {
    if (source != SETTING_FROM_DEFAULT) {
        replace(settings, setting, source, NULL);
    }
}

enum problem_code settings_read_environment(struct settings *settings, struct problem *problem) {
    for (int i = 0; i < N_SETTINGS; i++) {
        char name[64];
        struct problem found = { 0 };
        const char *text = getenv(setting_environment_name((enum setting)i, name));
        if (text != NULL &&
            settings_set(settings, (enum setting)i, SETTING_FROM_ENVIRONMENT, text, &found) != PROBLEM_NONE) {
            return problem_set(problem, found.code, found.field, "%s: %.400s", name, found.detail);
        }
    }
    return PROBLEM_NONE;
}

static char *trim(char *text) {
    text += strspn(text, " \t\r");
    size_t n = strlen(text);
    while (n > 0 && strchr(" \t\r", text[n - 1]) != NULL) {
        n--;
    }
    text[n] = '\0';
    return text;
}

static enum problem_code read_line(struct settings *settings, const char *path, int number, char *line,
                                   struct problem *problem) {
    struct problem found = { 0 };
    char *text = trim(line);
    if (text[0] == '\0' || text[0] == '#') {
        return PROBLEM_NONE;
    }
    char *equals = strchr(text, '=');
    if (equals == NULL) {
        return problem_set(problem, PROBLEM_INVALID, NULL, "%.200s, line %d: there is no \"=\"", path, number);
    }
    *equals = '\0';
    const char *name = trim(text);
    const enum setting setting = setting_find(name);
    if (setting == N_SETTINGS) {
        return problem_set(problem, PROBLEM_INVALID, NULL, "%.200s, line %d: there is no setting \"%.60s\"", path,
                           number, name);
    }
    if (settings_set(settings, setting, SETTING_FROM_FILE, trim(equals + 1), &found) != PROBLEM_NONE) {
        return problem_set(problem, found.code, found.field, "%.200s, line %d: %.250s", path, number, found.detail);
    }
    return PROBLEM_NONE;
}

enum problem_code settings_read_file(struct settings *settings, const char *path, struct problem *problem) {
    struct cyi_error err = { 0 };
    void *data = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    if (!files_exists(path)) {
        return problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no settings file %.300s", path);
    }
    if (files_read(path, MAX_FILE_BYTES, &data, &n, &err) != CYI_OK) {
        return problem_set(problem, PROBLEM_INTERNAL, NULL, "%.500s", err.text);
    }
    char *text = text_format("%.*s", (int)n, (const char *)data), *rest = text;
    for (int number = 1; rest != NULL && st == PROBLEM_NONE; number++) {
        char *line = strsep(&rest, "\n");
        st = read_line(settings, path, number, line, problem);
    }
    free(text);
    free(data);
    return st;
}

/* ---- Values out ---- */

/* The strongest source that has spoken. The caller holds the mutex. */
static const char *value_of(const struct settings *settings, enum setting setting, enum setting_source *ret_source) {
    int source = N_SOURCES - 1;
    while (settings->values[setting][source] == NULL) {
        source--; /* the default is always there */
    }
    *ret_source = (enum setting_source)source;
    return settings->values[setting][source];
}

char *settings_text(struct settings *settings, enum setting setting) {
    enum setting_source source;
    (void)pthread_mutex_lock(&settings->mutex);
    char *text = text_copy(value_of(settings, setting, &source));
    (void)pthread_mutex_unlock(&settings->mutex);
    return text;
}

double settings_number(struct settings *settings, enum setting setting) {
    char *text = settings_text(settings, setting);
    const double number = strtod(text, NULL);
    free(text);
    return number;
}

int64_t settings_int(struct settings *settings, enum setting setting) {
    char *text = settings_text(settings, setting);
    const int64_t number = strtoll(text, NULL, 10);
    free(text);
    return number;
}

bool settings_bool(struct settings *settings, enum setting setting) {
    bool truth = false;
    char *text = settings_text(settings, setting);
    (void)read_bool(text, &truth);
    free(text);
    return truth;
}

enum setting_source settings_source(struct settings *settings, enum setting setting) {
    enum setting_source source;
    (void)pthread_mutex_lock(&settings->mutex);
    (void)value_of(settings, setting, &source);
    (void)pthread_mutex_unlock(&settings->mutex);
    return source;
}

bool settings_list_has(struct settings *settings, enum setting setting, const char *item) {
    bool has = false;
    char *text = settings_text(settings, setting), *rest = text;
    while (rest != NULL && !has) {
        const char *one = trim(strsep(&rest, ","));
        has = one[0] != '\0' && strcasecmp(one, item) == 0;
    }
    free(text);
    return has;
}

json_t *settings_describe(struct settings *settings, enum setting setting) {
    static const char *const kinds[] = { "text", "path", "url", "secret", "choice", "int", "number", "bool" };
    const struct setting_row *row = &rows[setting];
    char *text = settings_text(settings, setting);
    const char *shown = row->kind != SETTING_SECRET ? text : text[0] != '\0' ? "set" : "";
    json_t *object =
        JSON("{s:s, s:s, s:o, s:s, s:s, s:b, s:s}", "name", row->name, "kind", kinds[row->kind], "value",
             json_text(shown), "default", row->preset, "source",
             setting_source_name(settings_source(settings, setting)), "live", row->is_live, "help", row->help);
    if (row->kind == SETTING_INT || row->kind == SETTING_NUMBER) {
        json_put(object, "min", json_real(row->min));
        json_put(object, "max", json_real(row->max));
    }
    if (row->choices != NULL) {
        json_put(object, "choices", json_string(row->choices));
    }
    free(text);
    return object;
}
