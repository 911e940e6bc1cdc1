/* How long it will take, from what was measured on this machine: see jobs_internal.h. */
#include "jobs/jobs_internal.h"

#include "store/jobs.h"
#include "store/models.h"

double eta_picture_ms(struct db *db, const json_t *request) {
    struct problem ignored = { 0 };
    double ms = -1.0;
    const char *model = json_get_text(request, "model");
    if (model == NULL ||
        speeds_estimate(db, model, (int)json_get_int(request, "width", 0), (int)json_get_int(request, "height", 0),
                        (int)json_get_int(request, "steps", 0), &ms, &ignored) != PROBLEM_NONE) {
        return -1.0;
    }
    return ms;
}

double eta_running_seconds(struct queue *queue) {
    double sum = 0.0;
    (void)pthread_mutex_lock(&queue->mutex);
    for (int i = 0; i < queue->n_runners && sum >= 0.0; i++) {
        const struct shown *shown = &queue->runners[i].shown;
        if (shown->job_id[0] != '\0') {
            sum = shown->remaining_seconds < 0.0 ? -1.0 : sum + shown->remaining_seconds;
        }
    }
    (void)pthread_mutex_unlock(&queue->mutex);
    return sum;
}

double eta_job_seconds(struct queue *queue, struct db *db, const json_t *job, const json_t *sorts) {
    const json_t *sort;
    size_t i;
    const double own_ms = eta_picture_ms(db, json_object_get(job, "request"));
    double ahead = eta_running_seconds(queue);
    bool is_known = own_ms >= 0.0 && ahead >= 0.0;
    json_array_foreach(sorts, i, sort) {
        const double ms = eta_picture_ms(db, sort);
        is_known = is_known && ms >= 0.0;
        ahead += ms * 1e-3 * (double)json_get_int(sort, "n", 0);
    }
    const double own = own_ms * 1e-3 * (double)(json_get_int(job, "count", 0) - json_get_int(job, "done", 0));
    return is_known ? ahead / queue->n_runners + own : -1.0;
}
