/* options: one table of rows describes what a sub-command takes; reading the command line, checking the values and --help all come
 * from it. A value is read strictly: "12x", "1e999" or a number outside its bounds is one sentence that names the option, the
 * value and the bounds. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "text.h"

enum option_kind {
    OPTION_HEADING, /* only a line in --help */
    OPTION_FLAG,    /* bool */
    OPTION_TEXT,    /* const char *, borrowed from argv */
    OPTION_INT,     /* int within min…max */
    OPTION_NUMBER,  /* double within min…max */
    OPTION_SEED,    /* struct option_seed */
    OPTION_CHOICE,  /* const char *, one of choices */
    OPTION_FILES,   /* struct option_files: may be repeated */
    OPTION_LIST,    /* the same, and existing files may follow without the option's name */
};

#define OPTION_MAX_FILES 10
#define OPTION_UNSET (-1) /* what a command puts into INT and NUMBER fields that may be absent */

struct option_seed {
    bool is_set;
    uint64_t value;
};

struct option_files {
    const char *items[OPTION_MAX_FILES];
    int n;
};

struct option_row {
    enum option_kind kind;
    char short_name; /* 0: none */
    const char *name;
    const char *value; /* how --help calls the value: "N" */
    const char *help;
    size_t offset; /* of the field in the command's struct */
    double min, max;
    const char *choices; /* "png|jpg|webp" */
};

struct command {
    const char *name;
    const char *arguments; /* after the options in the usage line: "PROMPT" */
    const char *summary;   /* one line for the list of commands */
    const char *description;
    const char *examples;
    const struct option_row *rows;
    size_t n_rows;
    int min_arguments, max_arguments;
    const char *argument_hint; /* a sentence for a wrong number of arguments */
    int (*run)(const struct command *command, int argc, char **argv);
};

#define OPTION_MAX_ARGUMENTS 8

struct option_arguments {
    const char *items[OPTION_MAX_ARGUMENTS];
    int n;
    bool wants_help; /* --help was there: nothing else is checked */
};

/* Reads argv[1…argc-1] (argv[0] is the sub-command's name) into fields, a struct that the rows describe and that already holds the
 * defaults. Errors: ARGUMENT. Not for two threads: getopt has one state. */
enum cyi_status options_parse(const struct command *command, int argc, char **argv, void *fields,
                              struct option_arguments *ret_arguments, struct cyi_error *err);

/* The same as commands begin: reports what is wrong, prints the help when it is asked for. false: the command is over, with
 * *exit_code. */
bool options_begin(const struct command *command, int argc, char **argv, void *fields,
                   struct option_arguments *ret_arguments, int *exit_code);

/* Prints the help of a sub-command. */
void options_print_help(const struct command *command, FILE *out);

/* Strict numbers; name stands in the sentence ("--width"). Errors: ARGUMENT. */
enum cyi_status options_parse_int(const char *name, const char *text, int min, int max, int *ret_value,
                                  struct cyi_error *err);
enum cyi_status options_parse_number(const char *name, const char *text, double min, double max, double *ret_value,
                                     struct cyi_error *err);
enum cyi_status options_parse_seed(const char *name, const char *text, uint64_t *ret_value, struct cyi_error *err);

#endif
