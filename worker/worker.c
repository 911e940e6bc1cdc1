/* The worker's loop: see worker.h. The main thread runs the engine, one thread reads orders, so that a cancel acts at once, and one
 * thread says every second that the process lives and how far the engine has come. */
#include "worker.h"

#include "picture.h"
#include "sandbox.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_WAITING 256 /* orders that may wait; a server sends a few */

struct worker {
    struct worker_session session; /* main thread only, but for its atomics and its locked sending */
    int idle_seconds;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct message waiting[MAX_WAITING];
    size_t n_waiting;
    char running[ORDER_MAX_ID_BYTES + 1]; /* id of the picture in hand, "" when there is none */
    bool is_ending;
};

/* The clock of every wait here: it does not jump when somebody sets the time. */
static struct timespec after(int seconds) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    return until;
}

static void send_log(void *user, enum cyi_log_level level, const char *event) {
    static const char *const levels[] = { "debug", "info", "warning" };
    struct worker *worker = user;
    char *clean = text_clean(event);
    worker_session_send(&worker->session,
                        json_pack("{s:s, s:s, s:s}", "type", "log", "level", levels[level], "event", clean), NULL, 0);
    free(clean);
}

/* ---- The thread that reads ---- */

/* Takes the orders for pictures of this id out of the queue. The caller holds the mutex. */
static size_t drop_waiting(struct worker *worker, const char *id, struct message dropped[MAX_WAITING]) {
    size_t n_kept = 0, n_dropped = 0;
    for (size_t i = 0; i < worker->n_waiting; i++) {
        struct message *message = &worker->waiting[i];
        if (strcmp(message->type, "generate") == 0 && strcmp(message_text(message, "id"), id) == 0) {
            dropped[n_dropped++] = *message;
        } else {
            worker->waiting[n_kept++] = *message;
        }
    }
    worker->n_waiting = n_kept;
    return n_dropped;
}

/* The picture in hand answers for itself, those that had not begun are answered here. */
static void cancel(struct worker *worker, const char *id) {
    struct message dropped[MAX_WAITING];
    (void)pthread_mutex_lock(&worker->mutex);
    if (strcmp(worker->running, id) == 0) {
        atomic_store(&worker->session.wants_cancel, true);
    }
    const size_t n_dropped = drop_waiting(worker, id, dropped);
    (void)pthread_mutex_unlock(&worker->mutex);
    for (size_t i = 0; i < n_dropped; i++) {
        worker_session_fail(&worker->session, &dropped[i],
                            &(struct cyi_error){ CYI_E_CANCELLED, "cancelled before it began" });
        message_done(&dropped[i]);
    }
}

static void end(struct worker *worker) {
    (void)pthread_mutex_lock(&worker->mutex);
    worker->is_ending = true;
    atomic_store(&worker->session.wants_cancel, true);
    (void)pthread_cond_broadcast(&worker->changed);
    (void)pthread_mutex_unlock(&worker->mutex);
}

/* false: nothing more is read. */
static bool take(struct worker *worker, struct message *message) {
    struct cyi_error err = { 0 };
    bool is_quit = false, is_queued = false;
    if (order_check(message, &err) != CYI_OK) {
        worker_session_fail(&worker->session, message, &err);
    } else if (strcmp(message->type, "cancel") == 0) {
        cancel(worker, message_text(message, "id"));
    } else if (strcmp(message->type, "quit") == 0) {
        is_quit = true;
    } else {
        (void)pthread_mutex_lock(&worker->mutex);
        is_queued = worker->n_waiting < MAX_WAITING;
        if (is_queued) {
            worker->waiting[worker->n_waiting++] = *message;
            (void)pthread_cond_broadcast(&worker->changed);
        }
        (void)pthread_mutex_unlock(&worker->mutex);
        if (!is_queued) {
            (void)text_error(&err, CYI_E_MEMORY, "%d orders wait already", MAX_WAITING);
            worker_session_fail(&worker->session, message, &err);
        }
    }
    if (!is_queued) {
        message_done(message);
    }
    return !is_quit;
}

static void *read_orders(void *user) {
    struct worker *worker = user;
    struct message message;
    struct cyi_error err = { 0 };
    bool is_end = false;
    while (message_receive(worker->session.fd, &message, &is_end, &err) == CYI_OK && !is_end &&
           take(worker, &message)) {
    }
    if (err.code != CYI_OK) {
        send_log(worker, CYI_LOG_WARNING, err.text);
    }
    end(worker);
    return NULL;
}

/* ---- The thread that says that we live ---- */

static void *beat(void *user) {
    struct worker *worker = user;
    for (;;) {
        const struct timespec until = after(1);
        (void)pthread_mutex_lock(&worker->mutex);
        int code = 0;
        while (!worker->is_ending && code != ETIMEDOUT) {
            code = pthread_cond_timedwait(&worker->changed, &worker->mutex, &until);
        }
        const bool is_ending = worker->is_ending, is_busy = worker->running[0] != '\0';
        (void)pthread_mutex_unlock(&worker->mutex);
        if (is_ending) {
            return NULL;
        }
        worker_session_send(&worker->session,
                            json_pack("{s:s, s:b, s:I}", "type", "alive", "busy", is_busy, "operations",
                                      (json_int_t)atomic_load(&worker->session.n_operations)),
                            NULL, 0);
    }
}

/* ---- The main thread ---- */

/* The next order; false when it is time to end. After the idle time without one, the model is closed. */
static bool wait_for_order(struct worker *worker, struct message *ret_message) {
    const struct timespec until = after(worker->idle_seconds);
    (void)pthread_mutex_lock(&worker->mutex);
    worker->running[0] = '\0';
    while (!worker->is_ending && worker->n_waiting == 0) {
        if (worker->session.model == NULL) {
            (void)pthread_cond_wait(&worker->changed, &worker->mutex);
        } else if (pthread_cond_timedwait(&worker->changed, &worker->mutex, &until) == ETIMEDOUT) {
            (void)pthread_mutex_unlock(&worker->mutex);
            worker_session_unload(&worker->session);
            (void)pthread_mutex_lock(&worker->mutex);
        }
    }
    const bool is_ending = worker->is_ending;
    if (!is_ending) {
        *ret_message = worker->waiting[0];
        memmove(worker->waiting, worker->waiting + 1, --worker->n_waiting * sizeof worker->waiting[0]);
        if (strcmp(ret_message->type, "generate") == 0) {
            (void)snprintf(worker->running, sizeof worker->running, "%s", message_text(ret_message, "id"));
        }
        atomic_store(&worker->session.wants_cancel, false);
    }
    (void)pthread_mutex_unlock(&worker->mutex);
    return !is_ending;
}

static void follow(struct worker_session *session, struct message *message) {
    if (strcmp(message->type, "hello") == 0) {
        worker_session_greet(session, message);
    } else if (strcmp(message->type, "input") == 0) {
        worker_session_keep_input(session, message);
    } else if (strcmp(message->type, "forget") == 0) {
        worker_session_forget(session, message_text(message, "id"));
    } else if (strcmp(message->type, "generate") == 0) {
        worker_session_generate(session, message);
    } else if (strcmp(message->type, "describe") == 0) {
        worker_session_describe(session, message_text(message, "path"));
    } else { /* order_check lets nothing else through */
        worker_session_unload(session);
    }
}

static enum cyi_status check_socket(int fd, struct cyi_error *err) {
    int kind = 0;
    socklen_t n = sizeof kind;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &n) != 0 || kind != SOCK_STREAM) {
        return text_error(err, CYI_E_ARGUMENT, "--fd %d is not a stream socket; the studio starts its workers itself",
                          fd);
    }
    return CYI_OK;
}

static void start_waiting(struct worker *worker) {
    pthread_condattr_t clock;
    (void)pthread_mutex_init(&worker->mutex, NULL);
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&worker->changed, &clock);
    (void)pthread_condattr_destroy(&clock);
}

int worker_run(const struct worker_options *options, struct cyi_error *err) {
    struct cyi_engine_options engine_options = options->engine;
    struct message message;
    pthread_t reader, heart;
    if (check_socket(options->fd, err) != CYI_OK) {
        return CLI_BAD_INPUT;
    }
    struct worker *worker = text_alloc(1, sizeof *worker);
    worker->session.fd = options->fd;
    worker->idle_seconds = options->idle_seconds;
    engine_options.log = send_log;
    engine_options.log_user = worker;
    /* What is sent to the whole group (Ctrl-C, a service manager's stop) is meant for the server, which then tells us. */
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGTERM, SIG_IGN);
    (void)signal(SIGPIPE, SIG_IGN);
    if (!sandbox_bind_to_parent(options->parent)) {
        free(worker);
        (void)text_error(err, CYI_E_IO, "the server has ended already");
        return CLI_FAILED;
    }
    start_waiting(worker);
    if (worker_session_start(&worker->session, &engine_options, err) != CYI_OK) {
        worker_session_fail(&worker->session, NULL, err);
        free(worker);
        return CLI_FAILED;
    }
    if (pthread_create(&reader, NULL, read_orders, worker) != 0 || pthread_create(&heart, NULL, beat, worker) != 0) {
        (void)text_error(err, CYI_E_MEMORY, "the worker's threads cannot be started");
        return CLI_FAILED;
    }
    while (wait_for_order(worker, &message)) {
        follow(&worker->session, &message);
        message_done(&message);
    }
    (void)pthread_join(heart, NULL);
    (void)pthread_join(reader, NULL); /* it is the reader that ends the loop */
    for (size_t i = 0; i < worker->n_waiting; i++) {
        message_done(&worker->waiting[i]);
    }
    worker_session_done(&worker->session);
    (void)pthread_cond_destroy(&worker->changed);
    (void)pthread_mutex_destroy(&worker->mutex);
    free(worker);
    return CLI_OK;
}
