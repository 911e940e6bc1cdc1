/* See failing_allocator.h. */
#include "support/failing_allocator.h"

#include <stdlib.h>

static void *allocate(void *user, size_t size_bytes) {
    struct failing_allocator *failing = user;
    failing->n_calls++;
    if (failing->n_calls == failing->fail_at) {
        return NULL;
    }
    void *block = malloc(size_bytes);
    failing->n_live += block != NULL ? 1 : 0;
    return block;
}

static void release(void *user, void *block) {
    struct failing_allocator *failing = user;
    failing->n_live--;
    free(block);
}

void failing_allocator_init(struct failing_allocator *failing, size_t fail_at) {
    *failing = (struct failing_allocator){ .allocator = { allocate, release, failing }, .fail_at = fail_at };
}
