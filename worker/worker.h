/* worker: the process that owns one device and the engine. It has no network and no database; its orders come over a socket
 * (protocol.h), its pictures go back over it. It is disposable: whatever befalls it, the server starts another one. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "text.h"

struct worker_options {
    int fd;                           /* the socket; the worker closes it */
    struct cyi_engine_options engine; /* log and log_user are set here */
    int idle_seconds;                 /* without work, after which the model is closed */
    int parent;                       /* process that started it; 0: not checked */
};

/* Serves until the other side closes or says quit. Returns an exit code. Errors: those of cyi_engine_create, and of
 * the socket. */
int worker_run(const struct worker_options *options, struct cyi_error *err);

#endif
