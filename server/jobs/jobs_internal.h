/* jobs_internal: the parts of jobs/ among themselves. */
#ifndef SERVER_JOBS_JOBS_INTERNAL_H
#define SERVER_JOBS_JOBS_INTERNAL_H

#include "base/id.h"
#include "jobs/queue.h"
#include "protocol.h"
#include "studio.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* ---- process.c: a worker's process and the socket to it ---- */

struct process {
    pid_t pid; /* 0: there is none */
    int fd;
    json_t *engine; /* what it said of its engine when it was ready */
};

struct process_options {
    const char *program, *backend, *precision, *cache; /* cache NULL: none */
    int n_threads;                                     /* 0: one for each core */
    int idle_seconds;
    int card; /* < 0: the processor */
};

enum process_event { PROCESS_NOTHING, PROCESS_MESSAGE, PROCESS_ENDED };

/* Starts the worker and waits until it is ready. The calling thread must live as long as the worker: the kernel ends it
 * with its starter. is_stopping ends the waiting. Errors: INVALID (its engine refuses the options), UNAVAILABLE
 * (anything else). */
enum problem_code process_start(const struct process_options *options, const atomic_bool *is_stopping,
                                struct process *ret_process, struct problem *problem);
/* Waits for a message, at most timeout_ms. wake_fd (an eventfd, < 0: none) ends the waiting and is emptied. */
enum process_event process_receive(struct process *process, int wake_fd, int timeout_ms, struct message *ret_message);
/* header is taken over. What cannot be sent shows when the process has ended. */
void process_send(struct process *process, json_t *header, const void *body, size_t body_bytes);
/* Asks it to end. */
void process_quit(struct process *process);
/* Ends it, at once or after half a second in which it may end by itself. Returns how it ended ("by signal 9", "with
 * exit code 1"): a
 * new string. */
char *process_kill(struct process *process, bool waits);

/* ---- catalogue.c: which models there are ---- */

/* Looks for models and asks a worker of its own about each; writes the list. Takes as long as the disk. One at a time. */
enum problem_code catalogue_refresh(struct queue *queue, struct problem *problem);
/* The model of that name (the whole name, or what follows ORG/), with "path"; NULL when there is none. The caller decrefs. */
json_t *catalogue_find(struct queue *queue, const char *name);
/* Its name for people: of the model whose path that is, else the path's last part. A new string. */
char *catalogue_name(struct queue *queue, const char *path);

/* ---- eta.c: how long it will take ---- */

/* Milliseconds of one picture as the request (a job's) asks for it; < 0: nothing like it was made here yet. */
double eta_picture_ms(struct db *db, const json_t *request);
/* Seconds until a waiting job is done, with what is ahead of it (jobs_ahead); < 0: not known. */
double eta_job_seconds(struct queue *queue, struct db *db, const json_t *job, const json_t *sorts);
/* Seconds that the running jobs still take, all together; < 0: not known. */
double eta_running_seconds(struct queue *queue);

/* ---- submit.c ---- */

/* A complete request from one as POST /api/v1/jobs takes it, with the model's defaults. Only what needs no database is
 * checked. */
enum problem_code submit_complete(struct queue *queue, const json_t *request, json_t **ret_complete,
                                  int64_t *ret_priority, const json_t **ret_webhook, struct problem *problem);

/* ---- runner.c: the thread that feeds one worker ---- */

struct runner {
    struct queue *queue;
    char device[16]; /* "cpu", "cuda:0" */
    int card;        /* < 0: the processor */
    pthread_t thread;
    int wake_fd;
    atomic_bool must_look; /* something changed in the queue: perhaps a job waits, perhaps ours is cancelled */

    /* The thread's own. */
    struct process process;
    char *precision;  /* with which the process was started */
    int64_t pause_us; /* before the next start; grows with each death */

    /* What others see; guarded by the queue's mutex. */
    struct shown {
        const char *state; /* "starting", "idle", "working", "waiting", "restarting" */
        char error[512];   /* why it is not working, "" */
        char *model;       /* that is loaded, or NULL */
        json_t *engine;    /* or NULL */
        pid_t pid;
        int n_deaths;
        char job_id[ID_TEXT], owner[ID_TEXT]; /* "": none */
        char phase[40];
        int picture, n_pictures, step, n_steps;
        double fraction;          /* of the picture */
        double remaining_seconds; /* of the job; < 0: not known */
        uint8_t *preview;         /* RGB, or NULL */
        int preview_width, preview_height;
        int64_t preview_number; /* grows with each */
    } shown;
};

enum problem_code runner_start(struct runner *runner, struct problem *problem);
void runner_wake(struct runner *runner);
void runner_join(struct runner *runner); /* the queue is stopping */
json_t *runner_describe(struct runner *runner);
/* {"picture", "n_pictures", "phase", …}; the caller holds the mutex. */
json_t *runner_progress(const struct runner *runner);
/* For the parts of a runner. Frees what was there. */
void runner_set_state(struct runner *runner, const char *state, const char *error);
/* Starts the process when there is none, or none with this precision. Errors: as process_start. */
enum problem_code runner_need_process(struct runner *runner, const char *precision, struct problem *problem);
/* The process has ended or must: audit, log, event; the next start waits a while. why: a sentence's end, "did not move
 * for 300 s". */
void runner_bury(struct runner *runner, const char *why);
/* Messages that belong to no picture: state, log, alive. */
void runner_hear(struct runner *runner, const struct message *message);

/* ---- run.c: one job on one worker ---- */

/* job: the claimed row. Afterwards the job is not running any more, or (when the database cannot be written) the queue
 * is stopping. */
void run_job(struct runner *runner, const json_t *job);

/* ---- webhook.c ---- */

struct webhooks;
struct webhooks *webhooks_start(struct studio *studio);
void webhooks_wake(struct webhooks *webhooks);
void webhooks_stop(struct webhooks *webhooks);
/* Errors: INVALID (webhook.url). */
enum problem_code webhook_check_url(const char *url, struct problem *problem);

/* ---- queue.c ---- */

struct queue {
    struct studio *studio;
    struct runner *runners;
    int n_runners;
    struct webhooks *webhooks;
    atomic_bool is_stopping;
    pthread_t catalogue_thread;
    pthread_mutex_t catalogue_mutex; /* one refresh at a time */
    pthread_mutex_t mutex;           /* guards what follows, and what runners show */
    pthread_cond_t changed;          /* a job has changed its state */
    json_t *models;                  /* as catalogue_refresh wrote them; replaced as a whole */
    bool is_catalogue_read;
};

/* Tells everybody of a job's new state: events, those who wait, the runners, the announcements. */
void queue_job_changed(struct queue *queue, const char *job_id);
/* Publishes queue.changed. */
void queue_changed(struct queue *queue);
/* A row of the store as the API shows it: progress of a running one, place and time of a waiting one when wants_eta. */
void queue_decorate(struct queue *queue, struct db *db, json_t *job, bool wants_eta);

#endif
