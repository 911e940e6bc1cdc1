/* Progress of one picture: phases with their expected work, the caller's callback, cancelling, the estimate of what
 * remains. */
#ifndef PIPELINE_PROGRESS_H
#define PIPELINE_PROGRESS_H

#include "core/error.h"

struct progress {
    cyi_progress_fn on_progress;
    void *user;
    double work[CYI_N_PHASES]; /* expected share of the time, any unit; 0: the phase does not happen */
    double phase_seconds[CYI_N_PHASES];
    double start, phase_start; /* engine_seconds() */
    enum cyi_phase phase;
    int part, n_parts; /* a phase may be several equal runs: prompts, pictures */
    bool is_paused;    /* blocks that come now are no part of the estimate; they only ask whether to go on */
    float phase_fraction;
    int step, n_steps;
};

void progress_begin(struct progress *progress, const struct cyi_request *request, const double work[CYI_N_PHASES]);
/* Enters a phase of n_parts runs; the one before is complete. CANCELLED when the caller says so. */
enum cyi_status progress_enter(struct progress *progress, enum cyi_phase phase, int n_parts, struct cyi_error *err);
/* For struct exec: user is the progress. */
bool progress_on_block(void *user, float fraction);
/* A step is done; preview may be NULL. */
enum cyi_status progress_step(struct progress *progress, int n_done, const struct cyi_image *preview,
                              struct cyi_error *err);
/* The picture is done. */
void progress_end(struct progress *progress);

#endif
