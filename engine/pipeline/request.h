/* Requests: whether they can be done at all, and what they need. */
#ifndef PIPELINE_REQUEST_H
#define PIPELINE_REQUEST_H

#include "pipeline/model.h"

/* What follows from a checked request. */
struct job_shape {
    int64_t n_rows, n_cols; /* tokens of the picture */
    int64_t n_reference_tokens;
    int64_t max_input_pixels; /* of the largest picture that the VAE encodes */
    int first_step;
    bool is_guided; /* two evaluations a step, against the negative prompt */
    int64_t tile;   /* side of the VAE's tiles in pixels; 0: in one piece. request_plan decides */
};

/* Errors: ARGUMENT, with the sentence that the user reads. */
enum cyi_status request_check(const struct cyi_model *model, const struct cyi_request *request,
                              struct job_shape *ret_shape, struct cyi_error *err);

/* The memory that the request needs; decides on shape->tile. Never fails. */
void request_plan(const struct cyi_model *model, struct job_shape *shape, struct cyi_memory_plan *ret_plan);

/* The expected work of each phase, in floating-point operations of the matrix unit. */
void request_estimate_work(const struct cyi_model *model, const struct cyi_request *request,
                           const struct job_shape *shape, double work[CYI_N_PHASES]);

#endif
