/* Creating an engine: which backend, which precision, how many threads. */
#include "pipeline/engine.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MAX_THREADS 1024

/* Cores that this process may use. */
static int count_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        return 1;
    }
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

/* What the precision means for the backend that was chosen. */
static enum cyi_status choose_precision(struct cyi_engine *engine, enum cyi_precision precision,
                                        struct cyi_error *err) {
    const struct backend_info *info = &engine->choice.info;
    bool is_bf16 = precision == CYI_PRECISION_AUTO ? info->has_fast_bf16 : precision != CYI_PRECISION_F32;
    if ((precision == CYI_PRECISION_FP8 && !info->has_fp8) || (precision == CYI_PRECISION_INT8 && !info->has_int8)) {
        return error_set(err, CYI_E_UNSUPPORTED, "%s (%.80s) has no products in %s: choose auto, bf16 or f32",
                         info->name, info->isa, precision == CYI_PRECISION_FP8 ? "fp8" : "int8");
    }
    engine->act_dtype = is_bf16 ? DTYPE_BF16 : DTYPE_F32;
    engine->products = precision == CYI_PRECISION_FP8    ? BACKEND_PRODUCTS_FP8
                       : precision == CYI_PRECISION_INT8 ? BACKEND_PRODUCTS_INT8
                                                         : BACKEND_PRODUCTS_PLAIN;
    engine->precision = precision == CYI_PRECISION_FP8    ? "fp8"
                        : precision == CYI_PRECISION_INT8 ? "int8"
                        : is_bf16                         ? "bf16"
                                                          : "f32";
    return CYI_OK;
}

static enum cyi_status fill_engine(struct cyi_engine *engine, const struct cyi_engine_options *options,
                                   struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    if (options->n_threads < 0 || options->n_threads > MAX_THREADS) {
        return error_set(err, CYI_E_ARGUMENT, "%d threads: the number must be 0 (one a core) to %d", options->n_threads,
                         MAX_THREADS);
    }
    if ((unsigned)options->precision > CYI_PRECISION_INT8) {
        return error_set(err, CYI_E_ARGUMENT, "precision %d is unknown", (int)options->precision);
    }
    if (options->device < 0) {
        return error_set(err, CYI_E_ARGUMENT, "device %d: cards are numbered from 0", options->device);
    }
    TRY(backend_choose(options->backend, options->device, &engine->choice, err));
    TRY(choose_precision(engine, options->precision, err));
    engine->device = options->device;
    engine->max_device_bytes = options->max_device_bytes;
    engine->n_threads = options->n_threads > 0 ? options->n_threads : count_cores();
    engine->log = options->log;
    engine->log_user = options->log_user;
    engine->max_memory_bytes = options->max_memory_bytes;
    if (options->cache_dir != NULL && options->cache_dir[0] != '\0') {
        engine->cache_dir = mem_copy_string(&engine->allocator, options->cache_dir);
        if (engine->cache_dir == NULL) {
            TRY(error_memory(err, "the cache folder's name", strlen(options->cache_dir) + 1));
        }
    }
done:
    return st;
}

enum cyi_status cyi_engine_create(const struct cyi_engine_options *options, struct cyi_engine **ret_engine,
                                  struct cyi_error *err) {
    static const struct cyi_engine_options defaults = { 0 };
    if (options == NULL) {
        options = &defaults;
    }
    const struct cyi_allocator *allocator = options->allocator != NULL ? options->allocator : &mem_default_allocator;
    struct cyi_engine *engine = mem_alloc_zeroed(allocator, 1, sizeof *engine);
    if (engine == NULL) {
        return error_memory(err, "the engine", sizeof *engine);
    }
    engine->allocator = *allocator;
    enum cyi_status st = fill_engine(engine, options, err);
    if (st != CYI_OK) {
        cyi_engine_free(engine);
        return st;
    }
    *ret_engine = engine;
    return CYI_OK;
}

void cyi_engine_free(struct cyi_engine *engine) {
    if (engine != NULL) {
        struct cyi_allocator allocator = engine->allocator;
        mem_free(&allocator, engine->cache_dir);
        backend_choice_done(&engine->choice);
        mem_free(&allocator, engine);
    }
}

void cyi_engine_get_info(const struct cyi_engine *engine, struct cyi_engine_info *ret_info) {
    const struct backend_choice *choice = &engine->choice;
    *ret_info = (struct cyi_engine_info){ .backend = choice->info.name,
                                          .backend_version = choice->info.version,
                                          .cpu_isa = choice->info.isa,
                                          .precision = engine->precision,
                                          .gpu_status = choice->gpu_status[0] != '\0' ? choice->gpu_status : NULL,
                                          .n_threads = engine->n_threads };
}

void cyi_release(struct cyi_engine *engine, void *block) {
    mem_free(&engine->allocator, block);
}

void engine_log(const struct cyi_engine *engine, enum cyi_log_level level, const char *format, ...) {
    if (engine->log == NULL) {
        return;
    }
    char event[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(event, sizeof event, format, args);
    va_end(args);
    engine->log(engine->log_user, level, event);
}

double engine_seconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- Available memory ---- */

/* The number after `key` in a small text file of the kernel ("" for a file that is one number). false: not there, or
 * "max". */
static bool read_number(const char *path, const char *key, uint64_t *ret) {
    char line[256];
    bool is_found = false;
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    while (!is_found && fgets(line, sizeof line, file) != NULL) {
        unsigned long long value;
        size_t length = strlen(key);
        if (strncmp(line, key, length) == 0 && sscanf(line + length, "%llu", &value) == 1) {
            *ret = value;
            is_found = true;
        }
    }
    (void)fclose(file);
    return is_found;
}

/* What the control group still allows; file pages that it can drop count as free. */
static uint64_t group_available_bytes(void) {
    uint64_t limit;
    uint64_t used;
    uint64_t pages = 0;
    if (!read_number("/sys/fs/cgroup/memory.max", "", &limit) ||
        !read_number("/sys/fs/cgroup/memory.current", "", &used)) {
        return UINT64_MAX;
    }
    (void)read_number("/sys/fs/cgroup/memory.stat", "file ", &pages);
    used = used > pages ? used - pages : 0;
    return limit > used ? limit - used : 0;
}

uint64_t engine_available_bytes(const struct cyi_engine *engine) {
    if (engine->max_memory_bytes > 0) {
        return engine->max_memory_bytes;
    }
    uint64_t kibibytes;
    uint64_t system = read_number("/proc/meminfo", "MemAvailable:", &kibibytes) ? kibibytes * 1024 : UINT64_MAX;
    uint64_t group = group_available_bytes();
    return system < group ? system : group;
}
