/* tasks: slow routes, each on a thread of its own while its connection is suspended. */
#include "http/http_internal.h"

#include <string.h>

enum problem_code request_run(struct request *request) {
    const enum problem_code st =
        request->route->run(request->http->options.studio, request, &request->response, &request->problem);
    if (st == PROBLEM_NONE) {
        return PROBLEM_NONE;
    }
    (void)problem_set(&request->problem, st, NULL, "%s", problem_title(st)); /* for a route that gave no sentence */
    return request->problem.code;
}

static void *task_run(void *user) {
    struct request *request = user;
    struct tasks *tasks = &request->http->tasks;
    const enum problem_code st = request_run(request);
    (void)pthread_mutex_lock(&request->mutex);
    if (request->stream.bytes == NULL) { /* else the head is on its way already */
        request->status = st;
    }
    request->stream.is_done = true;
    request->stream.is_broken = st != PROBLEM_NONE;
    request_resume(request);
    (void)pthread_mutex_unlock(&request->mutex);
    request_unref(request);
    (void)pthread_mutex_lock(&tasks->mutex);
    tasks->n--;
    (void)pthread_cond_broadcast(&tasks->ended);
    (void)pthread_mutex_unlock(&tasks->mutex);
    return NULL;
}

enum problem_code task_start(struct request *request, struct problem *problem) {
    struct tasks *tasks = &request->http->tasks;
    pthread_t thread;
    (void)pthread_mutex_lock(&tasks->mutex);
    const bool is_stopping = atomic_load(&request->http->is_stopping), has_room = !is_stopping && tasks->n < MAX_TASKS;
    tasks->n += has_room;
    (void)pthread_mutex_unlock(&tasks->mutex);
    if (!has_room) {
        problem->retry_after_seconds = 5;
        return is_stopping ? problem_set(problem, PROBLEM_UNAVAILABLE, NULL, "the studio is stopping")
                           : problem_set(problem, PROBLEM_UNAVAILABLE, NULL,
                                         "%d slow requests are being answered, try again soon", MAX_TASKS);
    }
    (void)pthread_mutex_lock(&request->mutex);
    request->n_references++;
    request_suspend(request);
    (void)pthread_mutex_unlock(&request->mutex);
    if (pthread_create(&thread, NULL, task_run, request) == 0) {
        (void)pthread_detach(thread);
        return PROBLEM_NONE;
    }
    /* As if the task had run and failed: the connection is suspended already. */
    (void)pthread_mutex_lock(&tasks->mutex);
    tasks->n--;
    (void)pthread_mutex_unlock(&tasks->mutex);
    request->status = problem_set(&request->problem, PROBLEM_UNAVAILABLE, NULL, "there is no room for one more thread");
    (void)pthread_mutex_lock(&request->mutex);
    request_resume(request);
    (void)pthread_mutex_unlock(&request->mutex);
    request_unref(request);
    return PROBLEM_NONE;
}

void tasks_wait(struct tasks *tasks) {
    (void)pthread_mutex_lock(&tasks->mutex);
    while (tasks->n > 0) {
        (void)pthread_cond_wait(&tasks->ended, &tasks->mutex);
    }
    (void)pthread_mutex_unlock(&tasks->mutex);
}
