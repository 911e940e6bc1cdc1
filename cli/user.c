/* cyberimage user: the accounts, for the operator on the machine while the studio is stopped. */
#include "commands.h"
#include "server_settings.h"
#include "studio.h"

#include "security/accounts.h"
#include "store/users.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define MAX_PASSWORD_LINE 1100

struct user_options {
    struct server_options server;
    const char *role;
    bool is_json;
};

#define FIELD(name) offsetof(struct user_options, name)

static const struct option_row rows[] = {
    { OPTION_CHOICE, 0, "role", "ROLE", "add: admin, user or viewer (default: user)", FIELD(role), 0, 0,
      "admin|user|viewer" },
    { OPTION_FLAG, 0, "json", NULL, "list: as JSON", FIELD(is_json), 0, 0, NULL },
    SERVER_PLACE_ROWS(user_options, server),
};

/* The operator, as the audit log shows it. */
static const struct actor actor_operator = { .name = "operator" };

/* ---- Passwords: from the terminal without showing them, or the first line of standard input ---- */

static enum problem_code read_line(const char *prompt, char *line, size_t size, struct problem *problem) {
    struct termios before, silent;
    const bool is_terminal = isatty(STDIN_FILENO) == 1 && tcgetattr(STDIN_FILENO, &before) == 0;
    if (is_terminal) {
        fputs(prompt, stderr);
        silent = before;
        silent.c_lflag &= ~(tcflag_t)ECHO;
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    }
    const bool is_there = fgets(line, (int)size, stdin) != NULL;
    if (is_terminal) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        fputc('\n', stderr);
    }
    line[is_there ? strcspn(line, "\r\n") : 0] = '\0';
    return is_there ? PROBLEM_NONE
                    : problem_set(problem, PROBLEM_INVALID, "password",
                                  "a password is read from standard input, and there is none");
}

static enum problem_code read_password(char *password, size_t size, struct problem *problem) {
    char again[MAX_PASSWORD_LINE];
    enum problem_code st = PROBLEM_NONE;
    TRY(read_line("Password: ", password, size, problem));
    if (isatty(STDIN_FILENO) == 1) {
        TRY(read_line("Once more: ", again, sizeof again, problem));
        if (strcmp(password, again) != 0) {
            st = problem_set(problem, PROBLEM_INVALID, "password", "the two are not the same");
        }
    }
done:
    sodium_memzero(again, sizeof again);
    return st;
}

/* ---- The words ---- */

struct user_work {
    const struct user_options *options;
    struct store *store;
    const char *name, *value; /* arguments behind the word, or NULL */
};

static enum problem_code find_id(struct user_work *work, char ret_id[40], struct problem *problem) {
    json_t *user = NULL;
    struct db *db = store_read(work->store);
    enum problem_code st = users_find(db, work->name, &user, problem);
    store_read_done(work->store, db);
    if (st == PROBLEM_NONE && user == NULL) {
        st = problem_set(problem, PROBLEM_NOT_FOUND, "name", "there is no user \"%.63s\"", work->name);
    } else if (st == PROBLEM_NONE) {
        (void)snprintf(ret_id, 40, "%s", json_get_text(user, "id"));
    }
    json_decref(user);
    return st;
}

static enum problem_code list(struct user_work *work, struct problem *problem) {
    json_t *users = NULL, *user;
    size_t i;
    struct db *db = store_read(work->store);
    const enum problem_code st = users_list(db, &users, problem);
    store_read_done(work->store, db);
    if (st == PROBLEM_NONE && work->options->is_json) {
        (void)json_dumpf(users, stdout, JSON_INDENT(2));
        fputc('\n', stdout);
    } else if (st == PROBLEM_NONE) {
        json_array_foreach(users, i, user) {
            printf("%-7s %-9s %-12s ", json_get_text(user, "role"),
                   json_is_true(json_object_get(user, "disabled")) ? "disabled" : "",
                   json_is_true(json_object_get(user, "has_password")) ? "" : "no password");
            text_write_safe(stdout, json_get_text(user, "name"), false);
            fputc('\n', stdout);
        }
    }
    json_decref(users);
    return st;
}

/* Takes members over. */
static enum problem_code change(struct user_work *work, json_t *members, struct problem *problem) {
    char id[40];
    json_t *user = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(find_id(work, id, problem));
    TRY(account_change(work->store, &actor_operator, id, members, NULL, &user, problem));
done:
    json_decref(user);
    json_decref(members);
    return st;
}

static enum problem_code add(struct user_work *work, struct problem *problem) {
    char password[MAX_PASSWORD_LINE] = "";
    json_t *members = NULL, *user = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(read_password(password, sizeof password, problem));
    members = JSON("{s:o, s:s, s:o}", "name", json_text(work->name), "role",
                   work->options->role != NULL ? work->options->role : "user", "password", json_text(password));
    TRY(account_add(work->store, &actor_operator, members, &user, problem));
done:
    sodium_memzero(password, sizeof password);
    json_decref(members);
    json_decref(user);
    return st;
}

static enum problem_code set_password(struct user_work *work, struct problem *problem) {
    char password[MAX_PASSWORD_LINE] = "";
    enum problem_code st = PROBLEM_NONE;
    TRY(read_password(password, sizeof password, problem));
    TRY(change(work, JSON("{s:o}", "password", json_text(password)), problem));
done:
    sodium_memzero(password, sizeof password);
    return st;
}

static enum problem_code set_role(struct user_work *work, struct problem *problem) {
    return change(work, JSON("{s:o}", "role", json_text(work->value)), problem);
}

static enum problem_code disable(struct user_work *work, struct problem *problem) {
    return change(work, JSON("{s:b}", "disabled", 1), problem);
}

static enum problem_code enable(struct user_work *work, struct problem *problem) {
    return change(work, JSON("{s:b}", "disabled", 0), problem);
}

static enum problem_code remove_user(struct user_work *work, struct problem *problem) {
    char id[40];
    enum problem_code st = PROBLEM_NONE;
    TRY(find_id(work, id, problem));
    TRY(account_remove(work->store, &actor_operator, id, problem));
done:
    return st;
}

static const struct {
    const char *name;
    int n_arguments; /* behind the word */
    enum problem_code (*run)(struct user_work *work, struct problem *problem);
} words[] = { { "list", 0, list },         { "add", 1, add },         { "password", 1, set_password },
              { "role", 2, set_role },     { "disable", 1, disable }, { "enable", 1, enable },
              { "remove", 1, remove_user } };
#define N_WORDS (sizeof words / sizeof words[0])

/* ---- Around them ---- */

static int run(const struct command *command, int argc, char **argv) {
    struct user_options options = { 0 };
    struct user_work work = { .options = &options };
    struct option_arguments arguments;
    int exit_code = CLI_OK;
    struct cyi_error err = { 0 };
    struct problem problem = { 0 };
    struct settings *settings = NULL;
    struct studio *studio = NULL;
    size_t i = 0;
    enum problem_code st = PROBLEM_NONE;
    if (!options_begin(command, argc, argv, &options, &arguments, &exit_code)) {
        return exit_code;
    }
    while (i < N_WORDS && strcmp(arguments.items[0], words[i].name) != 0) {
        i++;
    }
    if (i == N_WORDS || arguments.n != 1 + words[i].n_arguments) {
        (void)text_error(&err, CYI_E_ARGUMENT, "user: %s", command->argument_hint);
        return text_report(&err, CLI_BAD_INPUT);
    }
    work.name = words[i].n_arguments > 0 ? arguments.items[1] : NULL;
    work.value = words[i].n_arguments > 1 ? arguments.items[2] : NULL;
    TRY(server_settings_read(&options.server, &settings, &problem));
    TRY(studio_open(settings, false, &studio, &problem));
    work.store = studio->store;
    TRY(words[i].run(&work, &problem));
done:
    studio_stop(studio);
    settings_free(settings);
    return st == PROBLEM_NONE ? CLI_OK : server_report(&problem);
}

const struct command command_user = {
    .name = "user",
    .arguments = "WORD [NAME [ROLE]]",
    .summary = "list and change the studio's accounts",
    .description = "While the studio is stopped; while it runs its API does the same. Passwords are read from the "
                   "terminal, or from\n"
                   "the first line of standard input.\n"
                   "  list                 all accounts\n"
                   "  add NAME             a new one, with --role\n"
                   "  password NAME        a new password; its sessions end\n"
                   "  role NAME ROLE       admin, user or viewer\n"
                   "  disable, enable NAME\n"
                   "  remove NAME          its pictures stay",
    .examples = "  cyberimage user add alice --role admin\n"
                "  cyberimage user password alice < secret.txt\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .min_arguments = 1,
    .max_arguments = 3,
    .argument_hint = "it takes list, add NAME, password NAME, role NAME ROLE, disable NAME, enable NAME or remove NAME",
    .run = run,
};
