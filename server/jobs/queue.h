/* queue: jobs and the workers that do them. Rows are in store/jobs; a thread for each worker takes the next job, has
 * its pictures made one by one, keeps each as it comes, and ends the job. What is in flight when the server dies is
 * taken up again at the next start. Threads: locks inside. */
#ifndef SERVER_JOBS_QUEUE_H
#define SERVER_JOBS_QUEUE_H

#include "http/http.h"

struct queue;

/* Takes jobs that were running back into the queue, starts the workers. */
enum problem_code queue_start(struct studio *studio, struct queue **ret_queue, struct problem *problem);
/* The running jobs go back to the queue with their finished pictures kept; workers end. */
void queue_stop(struct queue *queue);

struct submission {
    const struct actor *actor;
    const char *owner;           /* the user's id */
    const json_t *request;       /* as POST /api/v1/jobs takes it, checked here */
    const char *source;          /* "api", "openai", "sdapi" */
    const char *idempotency_key; /* or NULL */
};

/* Checks everything, writes the job durably. *ret_job: the job as the API shows it. The same key with the same request
 * gives the job that is there (*ret_is_new, which may be NULL: false); with another request CONFLICT. Errors: INVALID
 * (field), NOT_FOUND (model, input picture), TOO_MANY (depth), FORBIDDEN (quota), NO_SPACE. */
enum problem_code queue_submit(struct queue *queue, const struct submission *submission, json_t **ret_job,
                               bool *ret_is_new, struct problem *problem);
/* The job as the API shows it, with progress; owner NULL: anyone's. Errors: NOT_FOUND. */
enum problem_code queue_get(struct queue *queue, const char *owner, const char *job_id, json_t **ret_job,
                            struct problem *problem);
/* Waits until the job is in an end state (done, failed, cancelled, held), or is_wanted says false (asked twice a
 * second). *ret_job as queue_get. */
enum problem_code queue_wait(struct queue *queue, const char *owner, const char *job_id, bool (*is_wanted)(void *user),
                             void *user, json_t **ret_job, struct problem *problem);
/* Cancels within a second, in every phase. Errors: NOT_FOUND, CONFLICT (it has ended). */
enum problem_code queue_cancel(struct queue *queue, const struct actor *actor, const char *owner, const char *job_id,
                               struct problem *problem);
/* What runs now for this owner (NULL: anyone's): {"job", "fraction", "remaining_seconds", "step", "n_steps",
 * "picture", "n_pictures"}, or null. */
json_t *queue_running(struct queue *queue, const char *owner);
/* A copy of the running job's preview, RGB; free() its pixels. false: there is none now, or the job is another's. */
bool queue_preview(struct queue *queue, const char *owner, const char *job_id, struct cyi_image *ret_image);
/* The model of that name (the whole name, or what follows ORG/) as the API shows it, usable or not; NULL when there is none. */
json_t *queue_model(struct queue *queue, const char *name);
/* Installed models as the API shows them: array of {"name", "family", "licence", "default_width", …}. */
json_t *queue_models(struct queue *queue);
/* Workers and devices: array of {"device", "state", "model", "job", …}; for the system view and metrics. */
json_t *queue_workers(struct queue *queue);
bool queue_is_ready(struct queue *queue); /* at least one worker answers */

extern const struct route_table queue_routes; /* jobs, queue, models, workers, webhooks */

#endif
