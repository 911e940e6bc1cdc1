/* Engine, model and Ctrl-C for the sub-commands: see session.h. */
#include "session.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>
#include <unistd.h>

/* ---- Signals: the one thing that cannot do without a global ---- */

#define MAX_SIGNALS 3
#define PATIENCE_MICROSECONDS 800000

static volatile sig_atomic_t n_signals, is_saving;

/* setitimer is one system call on Linux, so a handler may use it. */
static void start_timer(void) {
    const struct itimerval timer = { .it_value = { .tv_usec = PATIENCE_MICROSECONDS } };
    (void)setitimer(ITIMER_REAL, &timer, NULL);
}

static void count_signal(int signal_number) {
    (void)signal_number;
    n_signals = n_signals + 1;
    if (n_signals >= MAX_SIGNALS) {
        _exit(CLI_CANCELLED);
    }
    start_timer();
}

static void lose_patience(int signal_number) {
    static const char sentence[] = "\ncyberimage: cancelled\n";
    (void)signal_number;
    if (is_saving != 0) {
        start_timer();
        return;
    }
    const ssize_t n_written = write(STDERR_FILENO, sentence, sizeof sentence - 1);
    (void)n_written;
    _exit(CLI_CANCELLED);
}

void session_catch_signals(void) {
    struct sigaction action = { .sa_flags = SA_RESTART };
    (void)sigemptyset(&action.sa_mask);
    action.sa_handler = lose_patience;
    (void)sigaction(SIGALRM, &action, NULL);
    action.sa_handler = count_signal;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

void session_begin_saving(void) {
    is_saving = 1;
}

void session_end_saving(void) {
    is_saving = 0;
}

bool session_is_cancelled(void) {
    return n_signals > 0;
}

int session_exit_code(enum cyi_status status) {
    switch (status) {
    case CYI_OK:
        return CLI_OK;
    case CYI_E_CANCELLED:
        return CLI_CANCELLED;
    case CYI_E_ARGUMENT: /* what was asked for or given is at fault: weights that are not numbers as well */
    case CYI_E_SHAPE:
    case CYI_E_DTYPE:
    case CYI_E_FORMAT:
    case CYI_E_UNSUPPORTED:
    case CYI_E_NUMERIC:
        return CLI_BAD_INPUT;
    default:
        return CLI_FAILED;
    }
}

/* ---- Engine ---- */

enum cyi_precision session_precision(const char *name) {
    static const char *const names[] = { [CYI_PRECISION_AUTO] = "auto",
                                         [CYI_PRECISION_F32] = "f32",
                                         [CYI_PRECISION_BF16] = "bf16",
                                         [CYI_PRECISION_FP8] = "fp8",
                                         [CYI_PRECISION_INT8] = "int8" };
    for (size_t i = 0; name != NULL && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            return (enum cyi_precision)i;
        }
    }
    return CYI_PRECISION_AUTO;
}

static void print_log(void *user, enum cyi_log_level level, const char *event) {
    const struct session_options *options = user;
    if (options->is_verbose || level == CYI_LOG_WARNING) {
        text_write_safe(stderr, event, false);
        fputc('\n', stderr);
    }
}

enum cyi_status session_choose_cache(const struct session_options *options, char **ret_cache, struct cyi_error *err) {
    struct cyi_error problem = { 0 };
    char *cache = NULL;
    if (options->has_no_cache) {
        return CYI_OK;
    }
    cache = options->cache != NULL ? text_copy(options->cache) : files_default_cache();
    if (cache == NULL) {
        return CYI_OK;
    }
    if (files_make_folder(cache, 0700, &problem) != CYI_OK || files_check_writable(cache, 0, &problem) != CYI_OK) {
        free(cache);
        if (options->cache != NULL) {
            return text_error(err, CYI_E_IO, "--cache: %.480s", problem.text);
        }
        if (!options->is_quiet) {
            (void)text_report(&problem, 0);
            fputs("cyberimage: going on without a cache (--no-cache says so from the start)\n", stderr);
        }
        return CYI_OK;
    }
    *ret_cache = cache;
    return CYI_OK;
}

enum cyi_status session_start(const struct session_options *options, struct session *ret_session,
                              struct cyi_error *err) {
    struct session session = { .options = options };
    enum cyi_status st = session_choose_cache(options, &session.cache, err);
    if (st != CYI_OK) {
        return st;
    }
    union {
        const struct session_options *in;
        void *out;
    } log_user = { .in = options }; /* the callback's argument is not const, and print_log only reads */
    const struct cyi_engine_options engine_options = {
        .log = print_log,
        .log_user = log_user.out,
        .backend = options->backend,
        .precision = session_precision(options->precision),
        .n_threads = options->n_threads,
        .cache_dir = session.cache,
        .device = options->device,
        .max_device_bytes = (uint64_t)options->device_memory * 1024 * 1024,
    };
    st = cyi_engine_create(&engine_options, &session.engine, err);
    if (st != CYI_OK) {
        free(session.cache);
        return st;
    }
    cyi_engine_get_info(session.engine, &session.engine_info);
    *ret_session = session;
    return CYI_OK;
}

void session_close_model(struct session *session) {
    cyi_model_close(session->model);
    free(session->model_path);
    session->model = NULL;
    session->model_path = NULL;
}

void session_done(struct session *session) {
    session_close_model(session);
    cyi_engine_free(session->engine);
    free(session->cache);
    *session = (struct session){ 0 };
}

/* ---- Model ---- */

enum cyi_status session_open_path(struct session *session, const char *path, struct cyi_error *err) {
    const struct cyi_model_options options = { .path = path,
                                               .text_encoder = session->options->text_encoder,
                                               .vae = session->options->vae,
                                               .tokenizer = session->options->tokenizer };
    const enum cyi_status st = cyi_model_open(session->engine, &options, &session->model, err);
    if (st == CYI_OK) {
        cyi_model_get_info(session->model, &session->model_info);
        session->model_path = text_copy(path);
    }
    return st;
}

/* A model may call itself otherwise than its folder: opens each and asks. */
static bool open_by_own_name(struct session *session, const struct model_list *list, const char *name) {
    for (size_t i = 0; i < list->n; i++) {
        struct cyi_error ignored = { 0 };
        if (session_open_path(session, list->items[i].path, &ignored) == CYI_OK) {
            if (strcasecmp(session->model_info.name, name) == 0) {
                return true;
            }
            session_close_model(session);
        }
    }
    return false;
}

static enum cyi_status refuse_name(const struct model_list *list, const char *name, struct cyi_error *err) {
    char names[256] = "";
    size_t n = 0;
    for (size_t i = 0; i < list->n && n + 2 < sizeof names; i++) {
        const int got = snprintf(names + n, sizeof names - n, "%s%s", i > 0 ? ", " : "", list->items[i].name);
        n += got > 0 ? (size_t)got : 0;
    }
    return text_error(err, CYI_E_ARGUMENT,
                      "there is no model \"%.100s\"%s%s; \"cyberimage models\" shows where models are looked for", name,
                      list->n > 0 ? ", only " : " and no other either", names);
}

enum cyi_status session_open_model(struct session *session, struct cyi_error *err) {
    const char *name = session->options->model != NULL ? session->options->model : MODEL_BUNDLED;
    struct model_list list;
    enum cyi_status st = CYI_OK;
    if (name[0] == '\0') {
        return text_error(err, CYI_E_ARGUMENT, "--model: the name is empty");
    }
    if (strchr(name, '/') != NULL && files_exists(name)) {
        return session_open_path(session, name, err);
    }
    model_search_find(NULL, &list);
    const struct model_place *place = model_search_get(&list, name);
    if (place != NULL) {
        st = session_open_path(session, place->path, err);
    } else if (files_exists(name)) {
        st = session_open_path(session, name, err);
    } else if (!open_by_own_name(session, &list, name)) {
        st = refuse_name(&list, name, err);
    }
    model_search_done(&list);
    return st;
}
