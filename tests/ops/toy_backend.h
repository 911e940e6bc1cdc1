/* A backend of one operation: the example of docs/add-a-backend.md. */
#ifndef TESTS_OPS_TOY_BACKEND_H
#define TESTS_OPS_TOY_BACKEND_H

#include "backend/backend.h"

/* Adds packed matrices of floats, leaves everything else to the reference. */
extern const struct backend_kind backend_toy;

#endif
