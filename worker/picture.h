/* picture: the engine's side of a worker: its model, the pictures that wait as inputs, and one picture from order to answer. */
#ifndef WORKER_PICTURE_H
#define WORKER_PICTURE_H

#include "order.h"

#include <pthread.h>
#include <stdatomic.h>

#define WORKER_MAX_INPUTS (CYI_MAX_REFERENCES + 2)

/* An input picture of the job. One that cannot be read keeps its error for the picture that needs it. */
struct worker_input {
    struct cyi_image *image; /* NULL: none, or err says why */
    struct cyi_error err;
};

struct worker_session {
    int fd;
    pthread_mutex_t send_mutex; /* one message at a time */
    struct cyi_engine *engine;
    struct cyi_engine_info engine_info;
    struct cyi_model *model; /* NULL: none is open */
    char *model_path;
    char inputs_id[ORDER_MAX_ID_BYTES + 1];        /* of the job whose inputs are kept, "": of none */
    struct worker_input inputs[WORKER_MAX_INPUTS]; /* references, then init, then mask */
    atomic_bool wants_cancel;
    atomic_llong n_operations; /* calls of the engine's progress function: what tells slow from hung */
};

/* Creates the engine and gives up what the process does not need. Errors: those of cyi_engine_create. */
enum cyi_status worker_session_start(struct worker_session *session, const struct cyi_engine_options *options,
                                     struct cyi_error *err);
void worker_session_done(struct worker_session *session);

/* header is taken over. When the server is gone, the reading thread notices: nothing to be done here. */
void worker_session_send(struct worker_session *session, json_t *header, const void *body, size_t body_bytes);
/* "failed" with id and picture of the order (NULL: none). */
void worker_session_fail(struct worker_session *session, const struct message *order, const struct cyi_error *err);

/* One for each order that order_check accepts. Of the answers, "generate" has one: a picture, "failed" or "cancelled". */
void worker_session_greet(struct worker_session *session, const struct message *order);
void worker_session_keep_input(struct worker_session *session, const struct message *order);
void worker_session_forget(struct worker_session *session, const char *id);
void worker_session_generate(struct worker_session *session, const struct message *order);
void worker_session_describe(struct worker_session *session, const char *path);
void worker_session_unload(struct worker_session *session);

#endif
