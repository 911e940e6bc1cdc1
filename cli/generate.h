/* generate: one run of the engine with everything the command line shows beside it. Shared by generate and verify. */
#ifndef CLI_GENERATE_H
#define CLI_GENERATE_H

#include "inputs.h"
#include "session.h"

/* Fills the request from the recipe (size, steps, guidance, seed, prompts, strength). Borrows the recipe's texts. */
void generate_fill_request(const struct recipe *recipe, struct cyi_request *request);
/* Fills in what the engine and the model say about themselves. */
void generate_fill_origin(const struct session *session, struct recipe *recipe);

/* cyi_generate with a progress line (picture of n_pictures, from 1) that ends when Ctrl-C was pressed. */
enum cyi_status generate_run(const struct session *session, struct cyi_request *request, int picture, int n_pictures,
                             struct cyi_image **ret_image, struct cyi_report *ret_report, struct cyi_error *err);

/* What --verbose prints. */
void generate_print_plan(const struct cyi_memory_plan *plan);
void generate_print_report(const struct cyi_report *report);

/* Refuses with the numbers when the plan does not fit. Errors: MEMORY, and those of cyi_plan_memory. */
enum cyi_status generate_check_plan(const struct session *session, const struct cyi_request *request,
                                    struct cyi_error *err);

#endif
