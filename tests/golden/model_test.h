/* What tests of models share: executions on every backend of this build, an observer that compares each stage with its golden,
 * checkpoints of which one tensor or one config line was changed. */
#ifndef TESTS_MODEL_TEST_H
#define TESTS_MODEL_TEST_H

#include "golden/golden.h"
#include "ops/ops.h"

/* A way to compute and how near the goldens it must come. */
struct variant {
    const char *backend;
    enum dtype act_dtype;
    double limit; /* NMSE of one forward */
};
#define N_VARIANTS 4
extern const struct variant variants[N_VARIANTS];

/* false: this build has no such backend. ex is released with exec_done. */
bool exec_make(const struct variant *variant, struct exec *ret_ex);
void exec_done(struct exec *ex);

/* Compares every stage that the golden knows as PREFIX.STAGE; pictures [C, Y, X] there are [Y, X, C] here. */
struct stage_check {
    const struct safetensors *golden;
    const char *prefix;
    double limit;
    int n_checked;
};
void stage_check_attach(struct stage_check *check, struct exec *ex);

/* A golden picture [C, Y, X] as [Y, X, C] in the arena of ex; F32. */
struct tensor golden_picture(struct exec *ex, const struct safetensors *golden, const char *name);
/* Any golden tensor converted to F32, packed, in the arena of ex. */
struct tensor golden_floats(struct exec *ex, const struct safetensors *golden, const char *name);

/* One change of a checkpoint folder. NULL fields change nothing. */
struct checkpoint_edit {
    const char *stem;   /* of the weights: "model" */
    const char *drop;   /* a tensor to leave out */
    const char *flat;   /* a tensor to store as a vector */
    const char *bytes;  /* a tensor to store as U8 */
    const char *find;   /* text in config.json … */
    const char *change; /* … and what stands there instead */
};
/* A changed copy of FIXTURES/relative in a new temporary folder, whose path is returned in a static buffer. */
const char *checkpoint_copy(const char *relative, const struct checkpoint_edit *edit);
/* Deletes it. */
void checkpoint_delete(const char *path, const char *stem);

#endif
