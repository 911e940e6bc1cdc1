/* An allocator for tests: counts what is held, and fails the n-th allocation. */
#ifndef TESTS_FAILING_ALLOCATOR_H
#define TESTS_FAILING_ALLOCATOR_H

#include <stdlib.h>

#include "core/memory.h"

struct failing_allocator {
    struct cyi_allocator allocator;
    size_t fail_at; /* counted from 1; 0: never */
    size_t n_calls, n_held;
};

static inline void *failing_allocate(void *user, size_t size_bytes) {
    struct failing_allocator *failing = user;
    void *block = ++failing->n_calls == failing->fail_at ? NULL : malloc(size_bytes);
    failing->n_held += block != NULL;
    return block;
}

static inline void failing_release(void *user, void *block) {
    struct failing_allocator *failing = user;
    failing->n_held--;
    free(block);
}

static inline void failing_init(struct failing_allocator *failing, size_t fail_at) {
    *failing =
        (struct failing_allocator){ .allocator = { failing_allocate, failing_release, failing }, .fail_at = fail_at };
}

#endif
