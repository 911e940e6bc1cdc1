/* store/jobs: the queue's rows. Every change of state names the state that it starts from, so that of two who act at once one wins; who
 * runs a job also names its claim, so that what was taken from him (cancelled, queued anew) stays taken. Rows are named like the API's
 * members. */
#ifndef SERVER_STORE_JOBS_H
#define SERVER_STORE_JOBS_H

#include "store/audit.h"

struct new_job {
    const char *id, *owner, *model, *source;
    const json_t *request; /* complete: every choice that was left open is made */
    int n_pictures;
    int64_t priority;
    const char *idempotency_key; /* or NULL */
    const char *request_hash;    /* of the request as it came, or NULL */
    const json_t *webhook;       /* {"url", "secret"?} or NULL */
};

enum problem_code jobs_add(struct db *db, const struct new_job *job, struct problem *problem);
/* {"id", "request_hash"} of this owner's job with this key, or NULL. */
enum problem_code jobs_find_key(struct db *db, const char *owner, const char *key, json_t **ret_job,
                                struct problem *problem);

/* The job as the API shows it, with the ids of its pictures, and "owner_id", which the API does not show. NOT_FOUND for those of others
 * (owner NULL: anyone's). */
enum problem_code jobs_get(struct db *db, const char *owner, const char *id, json_t **ret_job, struct problem *problem);

struct job_filter {
    const char *owner;     /* NULL: everybody's */
    const char *state;     /* NULL: any */
    const char *source;    /* NULL: any */
    const char *before_id; /* the page after this one; NULL: the first */
    int64_t limit;
};
/* Newest first. */
enum problem_code jobs_list(struct db *db, const struct job_filter *filter, json_t **ret_jobs, struct problem *problem);
/* All that waits (at most 10,000), in the order of priority and position. */
enum problem_code jobs_waiting(struct db *db, json_t **ret_jobs, struct problem *problem);
/* How much waits in front of this one: {"model", "width", "height", "steps", "n" (pictures), "n_jobs"} for each sort. */
enum problem_code jobs_ahead(struct db *db, const char *id, json_t **ret_sorts, struct problem *problem);
/* {"width", "height"}. NOT_FOUND (field) when this owner has no such picture, or has it in the trash; the same for an
 * enrichment. */
enum problem_code jobs_find_image(struct db *db, const char *owner, const char *id, const char *field, json_t **ret_row,
                                  struct problem *problem);
enum problem_code jobs_check_enrichment(struct db *db, const char *owner, const char *id, struct problem *problem);
/* Jobs that wait: all, and this owner's. */
enum problem_code jobs_count_waiting(struct db *db, const char *owner, int64_t *ret_all, int64_t *ret_own,
                                     struct problem *problem);
/* The number of pictures that waiting and running jobs of this owner will still add. */
enum problem_code jobs_count_pictures(struct db *db, const char *owner, int64_t *ret_n, struct problem *problem);

/* Takes the next one: the highest priority, among these the owner whose last job began longest ago, then the lowest position.
 * queued → running, attempts + 1. NULL: nothing waits, or the queue is paused. The row has "claim" too. */
enum problem_code jobs_claim(struct db *db, const char *device, json_t **ret_job, struct problem *problem);
/* Does the job still run under this claim? CONFLICT: it does not. */
enum problem_code jobs_check_claim(struct db *db, const char *id, int64_t claim, struct problem *problem);
/* One more picture is kept, and the attempts up to it do not count for the next. CONFLICT: the claim has ended, or the picture is not
 * the next one. */
enum problem_code jobs_count_done(struct db *db, const char *id, int64_t claim, int picture, struct problem *problem);
/* running → done, failed or held; the webhook's row is written with it. CONFLICT: the claim has ended. */
enum problem_code jobs_end(struct db *db, const char *id, int64_t claim, const char *state, const char *code,
                           const char *error, struct problem *problem);
/* running → queued, where it stood. counts: the attempt counts. error: why, or NULL. CONFLICT: the claim has ended. */
enum problem_code jobs_release(struct db *db, const char *id, int64_t claim, bool counts, const char *error,
                               struct problem *problem);
/* What was running when the server ended: each goes back to the queue, or is held after so many attempts. *ret_ids: an array. */
enum problem_code jobs_recover(struct db *db, int64_t max_attempts, json_t **ret_ids, struct problem *problem);

/* queued, running, held → cancelled. CONFLICT: it has ended. NOT_FOUND. */
enum problem_code jobs_cancel(struct db *db, const char *owner, const char *id, struct problem *problem);
/* failed, cancelled, held → queued, at the end. */
enum problem_code jobs_retry(struct db *db, const char *owner, const char *id, struct problem *problem);
/* These two are for jobs that wait: CONFLICT for others. */
enum problem_code jobs_set_priority(struct db *db, const char *owner, const char *id, int64_t priority,
                                    struct problem *problem);
/* before_id: another one that waits, and whose priority is taken as well; NULL: to the end, "": to the front. */
enum problem_code jobs_move(struct db *db, const char *owner, const char *id, const char *before_id,
                            struct problem *problem);
/* All that wait → cancelled. *ret_ids: an array. */
enum problem_code jobs_clear(struct db *db, const char *owner, json_t **ret_ids, struct problem *problem);

enum problem_code queue_is_paused(struct db *db, bool *ret_is_paused, struct problem *problem);
enum problem_code queue_set_paused(struct db *db, bool is_paused, struct problem *problem);

/* ---- Announcements of ends ---- */

/* The next that is due: {"id", "job_id", "url", "body", "attempts", "secret", "is_studio" (1: the secret is the studio's)}, or NULL. */
enum problem_code webhooks_next(struct db *db, json_t **ret_webhook, struct problem *problem);
/* When the next one is due, in microseconds since 1970; INT64_MAX: there is none. */
enum problem_code webhooks_next_us(struct db *db, int64_t *ret_us, struct problem *problem);
enum problem_code webhooks_done(struct db *db, const char *id, struct problem *problem);
enum problem_code webhooks_later(struct db *db, const char *id, int64_t next_us, const char *error,
                                 struct problem *problem);

#endif
