/* The engine's insides: what cyi_engine_create fixed for good. Immutable afterwards, shared by threads. */
#ifndef PIPELINE_ENGINE_H
#define PIPELINE_ENGINE_H

#include "backend/backend.h"

struct cyi_engine {
    struct cyi_allocator allocator;
    cyi_log_fn log;
    void *log_user;
    struct backend_choice choice;
    enum dtype act_dtype; /* F32 or BF16: what the precision became */
    int n_threads;
    char *cache_dir; /* NULL: nothing is kept on disk */
    uint64_t max_memory_bytes;
    int device;
    uint64_t max_device_bytes;
    enum backend_products products;
    const char *precision; /* what it is called */
};

/* One event for the caller's log, "name key=value …". Does nothing without a log. */
__attribute__((format(printf, 3, 4))) void engine_log(const struct cyi_engine *engine, enum cyi_log_level level,
                                                      const char *format, ...);

/* Seconds of a clock that never goes back. */
double engine_seconds(void);

/* Bytes that this process may still take: the system's available memory, less where a control group allows less, or the
 * engine's own limit. */
uint64_t engine_available_bytes(const struct cyi_engine *engine);

#endif
