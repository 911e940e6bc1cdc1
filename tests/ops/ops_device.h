/* Operations of a backend that computes in memory of its own, for ops_test.c. */
#ifndef TESTS_OPS_DEVICE_H
#define TESTS_OPS_DEVICE_H

#include "ops_test.h"

/* As ops_run, with every tensor of the test copied to the device before and back after it, gaps and margins included: views of one piece
 * of memory are views of one piece there. Weights, biases, tables and ids stay where they are. */
enum cyi_status ops_run_on_device(struct ops_test *t, struct exec *ex, enum op op, const void *args,
                                  struct cyi_error *err);

#endif
