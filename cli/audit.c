/* cyberimage audit: the audit log from the machine itself, whether the studio runs or not. Only reads. */
#include "commands.h"
#include "server_settings.h"
#include "studio.h"

#include "base/clock.h"
#include "store/audit_log.h"

#include <stdlib.h>
#include <string.h>

struct audit_options {
    struct server_options server;
    const char *actor, *action, *object, *text, *since, *until, *from, *format;
    int limit;
    bool is_json;
};

#define FIELD(name) offsetof(struct audit_options, name)

static const struct option_row rows[] = {
    { OPTION_HEADING, 0, NULL, NULL, "Which rows (list, export)", 0, 0, 0, NULL },
    { OPTION_TEXT, 0, "actor", "NAME", "Of this user, or system", FIELD(actor), 0, 0, NULL },
    { OPTION_TEXT, 0, "action", "NAME", "Of this action, such as job.done, or job. for all of jobs", FIELD(action), 0,
      0, NULL },
    { OPTION_TEXT, 0, "object", "ID", "About this picture, job, user and so on", FIELD(object), 0, 0, NULL },
    { OPTION_TEXT, 0, "text", "TEXT", "That hold this text somewhere", FIELD(text), 0, 0, NULL },
    { OPTION_TEXT, 0, "since", "TIME", "Not before, such as 2026-11-26 or 2026-11-26T12:00:00Z", FIELD(since), 0, 0,
      NULL },
    { OPTION_TEXT, 0, "until", "TIME", "Before", FIELD(until), 0, 0, NULL },
    { OPTION_INT, 0, "limit", "N", "list: the newest N (default: 50)", FIELD(limit), 1, 1000000, NULL },
    { OPTION_CHOICE, 'f', "format", "FORMAT", "export: csv or jsonl (default: csv)", FIELD(format), 0, 0, "csv|jsonl" },
    { OPTION_HEADING, 0, NULL, NULL, "Check", 0, 0, 0, NULL },
    { OPTION_TEXT, 0, "from", "SEQ:HASH", "verify: a head that was noted; it must still be in the log", FIELD(from), 0,
      0, NULL },
    { OPTION_FLAG, 0, "json", NULL, "list, head, verify: the answer as JSON", FIELD(is_json), 0, 0, NULL },
    SERVER_PLACE_ROWS(audit_options, server),
};

struct audit_work {
    const struct audit_options *options;
    struct audit_filter filter;
    struct store *store;
    struct signing_key key;
    bool has_key;
};

static void print_json(const json_t *value) {
    (void)json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    fputc('\n', stdout);
}

static void print_cell(const char *text, const char *fallback) {
    fputs("  ", stdout);
    text_write_safe(stdout, text != NULL ? text : fallback, false);
}

/* ---- The four words ---- */

static enum problem_code list(struct audit_work *work, int *exit_code, struct problem *problem) {
    json_t *found = NULL;
    (void)exit_code;
    struct db *db = store_read(work->store);
    const enum problem_code st = audit_list(db, &work->filter, &found, problem);
    store_read_done(work->store, db);
    if (st == PROBLEM_NONE && work->options->is_json) {
        print_json(found);
    }
    for (size_t i = json_array_size(found); i > 0 && !work->options->is_json; i--) { /* the newest stands last */
        const json_t *row = json_array_get(found, i - 1);
        char *details = json_is_object(json_object_get(row, "details")) ? json_text_of(json_object_get(row, "details"))
                                                                        : text_copy("");
        printf("%lld  %s", (long long)json_get_int(row, "seq", 0), json_get_text(row, "time"));
        print_cell(json_get_text(row, "actor"), "-");
        print_cell(json_get_text(row, "action"), "");
        print_cell(json_get_text(row, "object"), "-");
        print_cell(details, "");
        fputc('\n', stdout);
        free(details);
    }
    json_decref(found);
    return st;
}

static bool write_text(void *user, const char *text, size_t n) {
    return fwrite(text, 1, n, user) == n;
}

static enum problem_code export(struct audit_work *work, int *exit_code, struct problem *problem) {
    const bool is_jsonl = work->options->format != NULL && strcmp(work->options->format, "jsonl") == 0; (void)exit_code;
    work->filter.limit = 0;
    return audit_export(work->store, &work->filter, is_jsonl ? AUDIT_JSONL : AUDIT_CSV, write_text, stdout, problem);
}

static enum problem_code head(struct audit_work *work, int *exit_code, struct problem *problem) {
    json_t *row = NULL;
    char key[SIGNING_PUBLIC_TEXT];
    (void)exit_code;
    struct db *db = store_read(work->store);
    const enum problem_code st = audit_head(db, &row, problem);
    store_read_done(work->store, db);
    if (st == PROBLEM_NONE && work->options->is_json) {
        json_put(row, "public_key", work->has_key ? json_string(signing_public_text(&work->key, key)) : json_null());
        print_json(row);
    } else if (st == PROBLEM_NONE && json_get_text(row, "hash") != NULL) {
        printf("%lld:%s\n", (long long)json_get_int(row, "seq", 0), json_get_text(row, "hash"));
    }
    json_decref(row);
    return st;
}

static enum problem_code read_anchor(const char *text, char hash[AUDIT_HASH_TEXT], struct audit_anchor *ret_anchor,
                                     struct problem *problem) {
    const size_t digits = strspn(text, "0123456789");
    const char *rest = text + digits;
    if (digits == 0 || digits > 18 || rest[0] != ':' || strlen(rest + 1) != AUDIT_HASH_TEXT - 1 ||
        strspn(rest + 1, "0123456789abcdef") != AUDIT_HASH_TEXT - 1) {
        return problem_set(problem, PROBLEM_INVALID, "from",
                           "--from: \"%.100s\" is not SEQ:HASH as \"cyberimage audit head\" prints it", text);
    }
    memcpy(hash, rest + 1, AUDIT_HASH_TEXT);
    *ret_anchor = (struct audit_anchor){ strtoll(text, NULL, 10), hash };
    return PROBLEM_NONE;
}

static enum problem_code verify(struct audit_work *work, int *exit_code, struct problem *problem) {
    char hash[AUDIT_HASH_TEXT];
    struct audit_anchor anchor = { 0 };
    json_t *verdict = NULL;
    struct db *db = NULL;
    enum problem_code st = PROBLEM_NONE;
    if (work->options->from != NULL) {
        TRY(read_anchor(work->options->from, hash, &anchor, problem));
    }
    db = store_read(work->store);
    TRY(audit_verify(db, work->has_key ? &work->key : NULL, anchor.hash != NULL ? &anchor : NULL, &verdict, problem));
    const json_t *fault = json_object_get(verdict, "fault");
    if (work->options->is_json) {
        print_json(verdict);
    } else if (json_is_object(fault)) {
        printf("The audit log is broken: %s.\n", json_get_text(fault, "sentence"));
    } else {
        printf("The audit log is whole: %lld rows, the last is %lld:%s.\n", (long long)json_get_int(verdict, "rows", 0),
               (long long)json_get_int(verdict, "last_seq", 0), json_get_text(verdict, "hash"));
    }
    *exit_code = json_is_object(fault) ? CLI_FAILED : CLI_OK;
done:
    store_read_done(work->store, db);
    json_decref(verdict);
    return st;
}

static const struct {
    const char *name;
    enum problem_code (*run)(struct audit_work *work, int *exit_code, struct problem *problem);
} words[] = { { "list", list }, { "export", export }, { "head", head }, { "verify", verify } };
#define N_WORDS (sizeof words / sizeof words[0])

/* ---- Around them ---- */

static enum problem_code read_time(const char *option, const char *text, int64_t *ret_us, struct problem *problem) {
    return text == NULL || clock_parse(text, ret_us)
               ? PROBLEM_NONE
               : problem_set(problem, PROBLEM_INVALID, option,
                             "%s: \"%.60s\" is neither a date nor a time such as 2026-11-26T12:00:00Z", option, text);
}

static enum problem_code prepare(struct audit_work *work, struct settings *settings, struct problem *problem) {
    const struct audit_options *options = work->options;
    struct studio_paths paths = { .lock_fd = -1 };
    struct problem no_key = { 0 };
    enum problem_code st = PROBLEM_NONE;
    work->filter = (struct audit_filter){ .actor = options->actor,
                                          .action = options->action,
                                          .object = options->object,
                                          .text = options->text,
                                          .limit = options->limit };
    TRY(read_time("--since", options->since, &work->filter.since_us, problem));
    TRY(read_time("--until", options->until, &work->filter.until_us, problem));
    TRY(studio_paths_init(settings, &paths, problem));
    TRY(store_open_to_read(paths.database, &work->store, problem));
    work->has_key = signing_key_load(paths.data, false, &work->key, &no_key) == PROBLEM_NONE;
done:
    studio_paths_done(&paths);
    return st;
}

static int run(const struct command *command, int argc, char **argv) {
    struct audit_options options = { .limit = 50 };
    struct audit_work work = { .options = &options };
    struct option_arguments arguments;
    struct cyi_error err = { 0 };
    struct problem problem = { 0 };
    struct settings *settings = NULL;
    size_t i = 0;
    int exit_code = CLI_OK;
    enum problem_code st = PROBLEM_NONE;
    if (!options_begin(command, argc, argv, &options, &arguments, &exit_code)) {
        return exit_code;
    }
    while (i < N_WORDS && strcmp(arguments.items[0], words[i].name) != 0) {
        i++;
    }
    if (i == N_WORDS) {
        (void)text_error(&err, CYI_E_ARGUMENT, "audit: \"%.60s\" is none of list, export, head, verify",
                         arguments.items[0]);
        return text_report(&err, CLI_BAD_INPUT);
    }
    TRY(server_settings_read(&options.server, &settings, &problem));
    TRY(prepare(&work, settings, &problem));
    TRY(words[i].run(&work, &exit_code, &problem));
    if (fflush(stdout) != 0 || ferror(stdout)) {
        st = problem_set(&problem, PROBLEM_INTERNAL, NULL, "standard output cannot be written");
    }
done:
    store_close(work.store);
    settings_free(settings);
    return st == PROBLEM_NONE ? exit_code : server_report(&problem);
}

const struct command command_audit = {
    .name = "audit",
    .arguments = "list|export|head|verify",
    .summary = "read and check the studio's audit log",
    .description =
        "Reads the audit log in the studio's folder, also while the studio runs.\n"
        "  list    the newest rows\n"
        "  export  all rows as CSV or JSON lines on standard output\n"
        "  head    number and hash of the last row: note it elsewhere, and verify --from proves later that nothing\n"
        "          before it was changed\n"
        "  verify  goes through the whole chain of hashes; exit code 1 and the first row that does not fit when it\n"
        "          is broken",
    .examples = "  cyberimage audit list --action session. --since 2026-11-26\n"
                "  cyberimage audit head >> anchors.txt\n"
                "  cyberimage audit verify --from \"$(tail -n 1 anchors.txt)\"\n"
                "  cyberimage audit export --format jsonl > audit.jsonl\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .min_arguments = 1,
    .max_arguments = 1,
    .argument_hint = "it takes one of list, export, head and verify",
    .run = run,
};
