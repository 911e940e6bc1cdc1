/* A worker's process: see jobs_internal.h. It is started with a clean environment, one socket, and nothing else of ours. */
#include "jobs/jobs_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define WORKER_FD 3
#define START_SECONDS 60 /* a big card's driver takes a while */
#define SOCKET_SECONDS 2 /* within a message: a worker that stops there is as good as dead */
#define QUIT_MS 500
#define SLICE_MS 100
#define MAX_ARGUMENTS 24
#define NUMBER_TEXT 24

/* Everything but our own settings, among which are secrets. hides_cards: the processor is wanted. The caller frees the
 * array. */
static char **make_environment(bool hides_cards) {
    size_t n = 0, n_kept = 0;
    while (environ[n] != NULL) {
        n++;
    }
    char **kept = text_alloc(n + 2, sizeof *kept);
    for (size_t i = 0; i < n; i++) {
        if (strncmp(environ[i], "CYBERIMAGE_", strlen("CYBERIMAGE_")) != 0 &&
            !(hides_cards && strncmp(environ[i], "CUDA_VISIBLE_DEVICES=", strlen("CUDA_VISIBLE_DEVICES=")) == 0)) {
            kept[n_kept++] = environ[i];
        }
    }
    if (hides_cards) {
        static char hidden[] = "CUDA_VISIBLE_DEVICES=";
        kept[n_kept++] = hidden;
    }
    kept[n_kept] = NULL;
    return kept;
}

struct arguments {
    const char *items[MAX_ARGUMENTS];
    size_t n;
    char numbers[6][NUMBER_TEXT];
    size_t n_numbers;
};

static void add_text(struct arguments *arguments, const char *option, const char *value) {
    arguments->items[arguments->n++] = option;
    arguments->items[arguments->n++] = value;
}

static void add_number(struct arguments *arguments, const char *option, int value) {
    char *text = arguments->numbers[arguments->n_numbers++];
    (void)snprintf(text, NUMBER_TEXT, "%d", value);
    add_text(arguments, option, text);
}

static void make_arguments(const struct process_options *options, struct arguments *arguments) {
    add_text(arguments, options->program, "worker");
    add_number(arguments, "--fd", WORKER_FD);
    add_number(arguments, "--parent", (int)getpid());
    add_number(arguments, "--idle", options->idle_seconds);
    add_text(arguments, "--backend", options->backend);
    add_text(arguments, "--precision", options->precision);
    if (options->n_threads > 0) {
        add_number(arguments, "--threads", options->n_threads);
    }
    if (options->card >= 0) {
        add_number(arguments, "--device", options->card);
    }
    if (options->cache != NULL) {
        add_text(arguments, "--cache", options->cache);
    } else {
        arguments->items[arguments->n++] = "--no-cache";
    }
}

static enum problem_code spawn(const struct process_options *options, int fd, pid_t *ret_pid, struct problem *problem) {
    struct arguments arguments = { 0 };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    make_arguments(options, &arguments);
    char **environment = make_environment(options->card < 0);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawnattr_init(&attributes);
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    (void)posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_adddup2(&actions, fd, WORKER_FD); /* this one is not closed by exec */
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setsigdefault(&attributes, &all);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    /* The system's interface wants the arguments writable, and leaves them alone. */
    const int code = posix_spawn(ret_pid, options->program, &actions, &attributes,
                                 (char *const *)(uintptr_t)arguments.items, environment);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)posix_spawnattr_destroy(&attributes);
    free(environment);
    return code == 0
               ? PROBLEM_NONE
               : problem_set(problem, PROBLEM_UNAVAILABLE, NULL, "a worker cannot be started: %s", strerror(code));
}

static enum problem_code open_sockets(int ret_pair[2], struct problem *problem) {
    const struct timeval limit = { .tv_sec = SOCKET_SECONDS };
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_pair) != 0) {
        return problem_system(problem, errno, "a worker's socket");
    }
    (void)setsockopt(ret_pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(ret_pair[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return PROBLEM_NONE;
}

/* ---- Messages ---- */

static void empty(int wake_fd) {
    uint64_t n;
    while (wake_fd >= 0 && read(wake_fd, &n, sizeof n) < 0 && errno == EINTR) {
    }
}

enum process_event process_receive(struct process *process, int wake_fd, int timeout_ms, struct message *ret_message) {
    struct pollfd fds[] = { { .fd = process->pid != 0 ? process->fd : -1, .events = POLLIN },
                            { .fd = wake_fd, .events = POLLIN } };
    struct cyi_error err = { 0 };
    bool is_end = false;
    if (poll(fds, 2, timeout_ms) <= 0) {
        return PROCESS_NOTHING;
    }
    if (fds[1].revents != 0) {
        empty(wake_fd);
    }
    if (fds[0].revents == 0) {
        return PROCESS_NOTHING;
    }
    return message_receive(process->fd, ret_message, &is_end, &err) == CYI_OK && !is_end ? PROCESS_MESSAGE
                                                                                         : PROCESS_ENDED;
}

void process_send(struct process *process, json_t *header, const void *body, size_t body_bytes) {
    struct cyi_error ignored = { 0 };
    if (process->pid == 0) {
        json_decref(header);
        return;
    }
    (void)message_send(process->fd, header, body, body_bytes, &ignored);
}

/* ---- Ends ---- */

static char *name_end(int status) {
    return WIFSIGNALED(status) ? text_format("by signal %d", WTERMSIG(status))
                               : text_format("with exit code %d", WEXITSTATUS(status));
}

static char *forget(struct process *process, int status) {
    (void)close(process->fd);
    json_decref(process->engine);
    *process = (struct process){ .fd = -1 };
    return name_end(status);
}

static bool reap(const struct process *process, int flags, int *ret_status) {
    pid_t pid;
    do {
        pid = waitpid(process->pid, ret_status, flags);
    } while (pid < 0 && errno == EINTR);
    return pid != 0; /* also when it is nobody's child any more */
}

/* A process that is about to end by itself gets the moment that it takes, so that its own reason is what is told. */
static bool wait_for_end(const struct process *process, int limit_ms, int *ret_status) {
    for (int ms = 0; ms < limit_ms; ms += 5) {
        if (reap(process, WNOHANG, ret_status)) {
            return true;
        }
        (void)usleep(5000);
    }
    return reap(process, WNOHANG, ret_status);
}

char *process_kill(struct process *process, bool waits) {
    int status = 0;
    if (process->pid == 0) {
        return text_copy("already");
    }
    if (!wait_for_end(process, waits ? QUIT_MS : 0, &status)) {
        (void)kill(process->pid, SIGKILL);
        (void)reap(process, 0, &status);
    }
    return forget(process, status);
}

void process_quit(struct process *process) {
    if (process->pid != 0) {
        process_send(process, JSON("{s:s}", "type", "quit"), NULL, 0);
        (void)shutdown(process->fd, SHUT_RDWR);
        free(process_kill(process, true));
    }
}

/* ---- Start ---- */

static enum problem_code fail_start(struct process *process, const struct message *message, struct problem *problem) {
    const char *code = message_text(message, "code");
    const bool is_refused = strcmp(code, "unsupported") == 0 || strcmp(code, "argument") == 0;
    const enum problem_code st = problem_set(problem, is_refused ? PROBLEM_INVALID : PROBLEM_UNAVAILABLE, NULL, "%s",
                                             message_text(message, "text"));
    free(process_kill(process, true));
    return st;
}

static enum problem_code wait_until_ready(struct process *process, const atomic_bool *is_stopping,
                                          struct problem *problem) {
    const int64_t deadline = clock_monotonic_us() + START_SECONDS * CLOCK_SECOND;
    while (clock_monotonic_us() < deadline && !atomic_load(is_stopping)) {
        struct message message = { 0 };
        const enum process_event event = process_receive(process, -1, SLICE_MS, &message);
        if (event == PROCESS_ENDED) {
            char *end = process_kill(process, true);
            const enum problem_code st =
                problem_set(problem, PROBLEM_UNAVAILABLE, NULL, "the worker ended %s before it was ready", end);
            free(end);
            return st;
        }
        if (event == PROCESS_MESSAGE) {
            const bool is_ready = strcmp(message.type, "ready") == 0, is_failed = strcmp(message.type, "failed") == 0;
            if (is_ready) {
                process->engine = json_deep_copy(json_object_get(message.header, "engine"));
            }
            const enum problem_code st = is_failed ? fail_start(process, &message, problem) : PROBLEM_NONE;
            message_done(&message);
            if (is_ready || is_failed) {
                return st;
            }
        }
    }
    free(process_kill(process, false));
    return problem_set(problem, PROBLEM_UNAVAILABLE, NULL, "the worker was not ready within %d s", START_SECONDS);
}

enum problem_code process_start(const struct process_options *options, const atomic_bool *is_stopping,
                                struct process *ret_process, struct problem *problem) {
    struct process process = { .fd = -1 };
    int pair[2];
    enum problem_code st = open_sockets(pair, problem);
    if (st != PROBLEM_NONE) {
        return st;
    }
    st = spawn(options, pair[1], &process.pid, problem);
    (void)close(pair[1]);
    if (st != PROBLEM_NONE) {
        (void)close(pair[0]);
        return st;
    }
    process.fd = pair[0];
    process_send(&process, JSON("{s:s, s:i}", "type", "hello", "version", PROTOCOL_VERSION), NULL, 0);
    st = wait_until_ready(&process, is_stopping, problem);
    if (st == PROBLEM_NONE) {
        *ret_process = process;
    }
    return st;
}
