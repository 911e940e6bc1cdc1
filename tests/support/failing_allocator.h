/* An allocator that fails the N-th request and counts what is still held, for tests of running out of memory. */
#ifndef TESTS_FAILING_ALLOCATOR_H
#define TESTS_FAILING_ALLOCATOR_H

#include "cyberimage.h"

struct failing_allocator {
    struct cyi_allocator allocator; /* give its address to what is tested */
    size_t n_calls, n_live;
    size_t fail_at; /* the request that fails, counted from 1; 0: none */
};

void failing_allocator_init(struct failing_allocator *failing, size_t fail_at);

#endif
