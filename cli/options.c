/* Reading the command line by a table, and printing the table as help: see options.h. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_ROWS 96
#define FIRST_LONG 1000 /* getopt values of the rows, above every character */
#define LONG_HELP 999

/* ---- Values ---- */

enum cyi_status options_parse_int(const char *name, const char *text, int min, int max, int *ret_value,
                                  struct cyi_error *err) {
    const char *digits = text[0] == '-' ? text + 1 : text;
    if (digits[0] == '\0' || digits[strspn(digits, "0123456789")] != '\0') {
        return text_error(err, CYI_E_ARGUMENT, "%s: \"%.60s\" is not a whole number (%d to %d)", name, text, min, max);
    }
    errno = 0;
    const long long value = strtoll(text, NULL, 10);
    if (errno != 0 || value < min || value > max) {
        return text_error(err, CYI_E_ARGUMENT, "%s: %.60s is outside %d to %d", name, text, min, max);
    }
    *ret_value = (int)value;
    return CYI_OK;
}

enum cyi_status options_parse_number(const char *name, const char *text, double min, double max, double *ret_value,
                                     struct cyi_error *err) {
    char *end = NULL;
    const bool is_plain = text[0] != '\0' && text[strspn(text, "0123456789.eE+-")] == '\0';
    const double value = is_plain ? strtod(text, &end) : 0.0;
    if (!is_plain || end == text || *end != '\0') {
        return text_error(err, CYI_E_ARGUMENT, "%s: \"%.60s\" is not a number (%g to %g)", name, text, min, max);
    }
    if (!(value >= min && value <= max)) {
        return text_error(err, CYI_E_ARGUMENT, "%s: %.60s is outside %g to %g", name, text, min, max);
    }
    *ret_value = value;
    return CYI_OK;
}

enum cyi_status options_parse_seed(const char *name, const char *text, uint64_t *ret_value, struct cyi_error *err) {
    if (text[0] == '\0' || text[strspn(text, "0123456789")] != '\0') {
        return text_error(err, CYI_E_ARGUMENT, "%s: \"%.60s\" is not a whole number (0 to 18446744073709551615)", name,
                          text);
    }
    errno = 0;
    const unsigned long long value = strtoull(text, NULL, 10);
    if (errno != 0) {
        return text_error(err, CYI_E_ARGUMENT, "%s: %.60s is outside 0 to 18446744073709551615", name, text);
    }
    *ret_value = value;
    return CYI_OK;
}

static enum cyi_status parse_choice(const char *name, const char *choices, const char *text, const char **ret_value,
                                    struct cyi_error *err) {
    const size_t length = strlen(text);
    for (const char *choice = choices; choice != NULL;) {
        const char *end = strchr(choice, '|');
        const size_t n = end != NULL ? (size_t)(end - choice) : strlen(choice);
        if (n == length && strncmp(choice, text, n) == 0) {
            *ret_value = text;
            return CYI_OK;
        }
        choice = end != NULL ? end + 1 : NULL;
    }
    return text_error(err, CYI_E_ARGUMENT, "%s: \"%.60s\" is none of %s", name, text, choices);
}

static enum cyi_status add_file(const char *name, struct option_files *files, const char *path, struct cyi_error *err) {
    if (files->n == OPTION_MAX_FILES) {
        return text_error(err, CYI_E_ARGUMENT, "%s: at most %d files, and \"%.200s\" is one more", name,
                          OPTION_MAX_FILES, path);
    }
    files->items[files->n++] = path;
    return CYI_OK;
}

/* Stores the value of one row into its field. */
static enum cyi_status store_value(const struct option_row *row, const char *text, void *fields,
                                   struct cyi_error *err) {
    char name[64];
    char *field = (char *)fields + row->offset;
    (void)snprintf(name, sizeof name, "--%s", row->name);
    if (row->kind == OPTION_FLAG) {
        *(bool *)(void *)field = true;
        return CYI_OK;
    }
    if (text[0] == '\0' && row->kind != OPTION_TEXT) {
        return text_error(err, CYI_E_ARGUMENT, "%s: the value is empty", name);
    }
    switch (row->kind) {
    case OPTION_TEXT:
        *(const char **)(void *)field = text;
        return CYI_OK;
    case OPTION_INT:
        return options_parse_int(name, text, (int)row->min, (int)row->max, (int *)(void *)field, err);
    case OPTION_NUMBER:
        return options_parse_number(name, text, row->min, row->max, (double *)(void *)field, err);
    case OPTION_SEED: {
        struct option_seed *seed = (struct option_seed *)(void *)field;
        seed->is_set = true;
        return options_parse_seed(name, text, &seed->value, err);
    }
    case OPTION_CHOICE:
        return parse_choice(name, row->choices, text, (const char **)(void *)field, err);
    case OPTION_FILES:
    case OPTION_LIST:
        return add_file(name, (struct option_files *)(void *)field, text, err);
    default:
        return CYI_OK;
    }
}

/* ---- The command line ---- */

/* The rows as getopt wants them. short_names begins with "-:": arguments come in order, and we report errors ourselves. */
static void build_getopt(const struct command *command, struct option *long_options, char *short_names) {
    size_t n_long = 0, n_short = 0;
    short_names[n_short++] = '-';
    short_names[n_short++] = ':';
    short_names[n_short++] = 'h';
    for (size_t i = 0; i < command->n_rows && i < MAX_ROWS; i++) {
        const struct option_row *row = &command->rows[i];
        if (row->kind == OPTION_HEADING) {
            continue;
        }
        const bool has_value = row->kind != OPTION_FLAG;
        long_options[n_long++] =
            (struct option){ row->name, has_value ? required_argument : no_argument, NULL, FIRST_LONG + (int)i };
        if (row->short_name != 0) {
            short_names[n_short++] = row->short_name;
            if (has_value) {
                short_names[n_short++] = ':';
            }
        }
    }
    long_options[n_long++] = (struct option){ "help", no_argument, NULL, LONG_HELP };
    long_options[n_long] = (struct option){ 0 };
    short_names[n_short] = '\0';
}

static const struct option_row *find_row(const struct command *command, int code) {
    if (code >= FIRST_LONG) {
        return &command->rows[code - FIRST_LONG];
    }
    for (size_t i = 0; i < command->n_rows; i++) {
        if (command->rows[i].kind != OPTION_HEADING && command->rows[i].short_name == code) {
            return &command->rows[i];
        }
    }
    return NULL;
}

static bool is_existing_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && !S_ISDIR(info.st_mode);
}

static enum cyi_status add_argument(const struct command *command, struct option_arguments *arguments, const char *text,
                                    struct cyi_error *err) {
    if (arguments->n >= command->max_arguments || arguments->n >= OPTION_MAX_ARGUMENTS) {
        return text_error(err, CYI_E_ARGUMENT, "%s: \"%.100s\" is one argument too many; %s", command->name, text,
                          command->argument_hint);
    }
    arguments->items[arguments->n++] = text;
    return CYI_OK;
}

static enum cyi_status refuse_option(const struct command *command, int code, char **argv, struct cyi_error *err) {
    const struct option_row *row = optopt != 0 ? find_row(command, optopt) : NULL;
    if (code == ':') {
        return text_error(err, CYI_E_ARGUMENT, "%.60s needs a value (%s)", argv[optind - 1],
                          row != NULL ? row->value : "VALUE");
    }
    if (optopt >= LONG_HELP) {
        return text_error(err, CYI_E_ARGUMENT, "%.60s takes no value", argv[optind - 1]);
    }
    if (optopt != 0) {
        return text_error(err, CYI_E_ARGUMENT, "unknown option -%c; \"cyberimage %s --help\" lists all", optopt,
                          command->name);
    }
    return text_error(err, CYI_E_ARGUMENT, "unknown option %.60s; \"cyberimage %s --help\" lists all", argv[optind - 1],
                      command->name);
}

/* One result of getopt. files is the row whose values may follow without the option's name, or NULL. */
static enum cyi_status take_result(const struct command *command, int code, char **argv, void *fields,
                                   const struct option_row **files, struct option_arguments *arguments,
                                   struct cyi_error *err) {
    if (code == 'h' || code == LONG_HELP) {
        arguments->wants_help = true;
        return CYI_OK;
    }
    if (code == 1) {
        if (*files != NULL && is_existing_file(optarg)) {
            return store_value(*files, optarg, fields, err);
        }
        *files = NULL;
        return add_argument(command, arguments, optarg, err);
    }
    if (code == '?' || code == ':') {
        return refuse_option(command, code, argv, err);
    }
    const struct option_row *row = find_row(command, code);
    *files = row->kind == OPTION_LIST ? row : NULL;
    return store_value(row, optarg, fields, err);
}

enum cyi_status options_parse(const struct command *command, int argc, char **argv, void *fields,
                              struct option_arguments *ret_arguments, struct cyi_error *err) {
    struct option long_options[MAX_ROWS + 2];
    char short_names[4 + 2 * MAX_ROWS];
    struct option_arguments arguments = { 0 };
    const struct option_row *files = NULL;
    enum cyi_status st = CYI_OK;

    build_getopt(command, long_options, short_names);
    optind = 0; /* 0, not 1: glibc then forgets the scan before this one */
    opterr = 0;
    for (int code = 0; (code = getopt_long(argc, argv, short_names, long_options, NULL)) != -1;) {
        st = take_result(command, code, argv, fields, &files, &arguments, err);
        if (st != CYI_OK || arguments.wants_help) {
            *ret_arguments = arguments;
            return st;
        }
    }
    for (; optind < argc; optind++) { /* after "--" */
        st = add_argument(command, &arguments, argv[optind], err);
        if (st != CYI_OK) {
            return st;
        }
    }
    if (arguments.n < command->min_arguments) {
        return text_error(err, CYI_E_ARGUMENT, "%s: %s is missing; %s", command->name, command->arguments,
                          command->argument_hint);
    }
    *ret_arguments = arguments;
    return CYI_OK;
}

/* ---- Help ---- */

#define HELP_COLUMN 28

static void print_row(const struct option_row *row, FILE *out) {
    char left[80];
    const char *help = row->help;
    if (row->kind == OPTION_HEADING) {
        fprintf(out, "\n%s:\n", row->help);
        return;
    }
    const int n = snprintf(left, sizeof left, "  %c%c%s--%s%s%s", row->short_name != 0 ? '-' : ' ',
                           row->short_name != 0 ? row->short_name : ' ', row->short_name != 0 ? ", " : "  ", row->name,
                           row->value != NULL ? " " : "", row->value != NULL ? row->value : "");
    fprintf(out, "%-*s", HELP_COLUMN, left);
    if (n >= HELP_COLUMN) {
        fprintf(out, "\n%*s", HELP_COLUMN, "");
    }
    while (help != NULL) { /* one line of help per line of the row's text */
        const char *end = strchr(help, '\n');
        fprintf(out, "%.*s\n", end != NULL ? (int)(end - help) : (int)strlen(help), help);
        help = end != NULL ? end + 1 : NULL;
        if (help != NULL) {
            fprintf(out, "%*s", HELP_COLUMN, "");
        }
    }
}

void options_print_help(const struct command *command, FILE *out) {
    fprintf(out, "Usage: cyberimage %s [OPTION…]%s%s\n\n%s\n", command->name, command->arguments[0] != '\0' ? " " : "",
            command->arguments, command->description);
    for (size_t i = 0; i < command->n_rows; i++) {
        if (i == 0 && command->rows[i].kind != OPTION_HEADING) {
            fputs("\nOptions:\n", out);
        }
        print_row(&command->rows[i], out);
    }
    fprintf(out, "%s  -h, --help%*sThis text\n", command->n_rows == 0 ? "\nOptions:\n" : "", HELP_COLUMN - 12, "");
    if (command->examples != NULL) {
        fprintf(out, "\nExamples:\n%s", command->examples);
    }
}

bool options_begin(const struct command *command, int argc, char **argv, void *fields,
                   struct option_arguments *ret_arguments, int *exit_code) {
    struct cyi_error err = { 0 };
    if (options_parse(command, argc, argv, fields, ret_arguments, &err) != CYI_OK) {
        *exit_code = text_report(&err, CLI_BAD_INPUT);
        return false;
    }
    if (ret_arguments->wants_help) {
        options_print_help(command, stdout);
        *exit_code = CLI_OK;
        return false;
    }
    return true;
}
