/* A backend with memory of its own, for tests: the reference backend on memory that nobody else may touch. It lies in one reserved range
 * without access rights but while an operation or a copy runs, so that an engine that looks at a device's memory crashes here. Loaded as a
 * plug-in, "libcyberimage-distant.so". */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/backend.h"

#define RANGE_BYTES ((size_t)2 * 1024 * 1024 * 1024)
#define MAX_BLOCKS 512
#define BLOCK_ALIGN 256

struct block {
    size_t first, size_bytes; /* ascending */
};

struct distant {
    struct backend base;
    const struct cyi_allocator *allocator;
    struct cyi_allocator memory;
    struct backend *reference;
    uint8_t *range;
    struct block blocks[MAX_BLOCKS];
    size_t n_blocks;
    size_t used_bytes, peak_bytes;
};

/* ---- Memory ---- */

static void *allocate(void *user, size_t size_bytes) {
    struct distant *d = user;
    size_t size = (size_bytes + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
    size_t first = 0;
    size_t at = 0;
    while (at < d->n_blocks && d->blocks[at].first - first < size) {
        first = d->blocks[at].first + d->blocks[at].size_bytes;
        at++;
    }
    if (d->n_blocks == MAX_BLOCKS || size > RANGE_BYTES - first) {
        return NULL;
    }
    memmove(&d->blocks[at + 1], &d->blocks[at], (d->n_blocks - at) * sizeof d->blocks[0]);
    d->blocks[at] = (struct block){ first, size };
    d->n_blocks++;
    d->used_bytes += size;
    d->peak_bytes = d->used_bytes > d->peak_bytes ? d->used_bytes : d->peak_bytes;
    return d->range + first;
}

static void release(void *user, void *block) {
    struct distant *d = user;
    for (size_t i = 0; i < d->n_blocks; i++) {
        if (d->range + d->blocks[i].first == block) {
            d->used_bytes -= d->blocks[i].size_bytes;
            d->n_blocks--;
            memmove(&d->blocks[i], &d->blocks[i + 1], (d->n_blocks - i) * sizeof d->blocks[0]);
            return;
        }
    }
}

static void open_range(struct distant *d) {
    (void)mprotect(d->range, RANGE_BYTES, PROT_READ | PROT_WRITE);
}

static void close_range_again(struct distant *d) {
    (void)mprotect(d->range, RANGE_BYTES, PROT_NONE);
}

/* ---- The device ---- */

static const struct cyi_allocator *get_memory(struct backend *backend) {
    return &((struct distant *)backend)->memory;
}

static enum cyi_status copy(struct backend *backend, const struct tensor *from, const struct tensor *to,
                            struct cyi_error *err) {
    (void)err;
    struct distant *d = (struct distant *)backend;
    size_t row_bytes = (size_t)tensor_n_cols(from) * dtype_size(from->dtype);
    open_range(d);
    for (int64_t r = 0; r < tensor_n_rows(from); r++) {
        memcpy(tensor_row(to, r), tensor_row(from, r), row_bytes);
    }
    close_range_again(d);
    return CYI_OK;
}

static void enter(struct backend *backend) {
    (void)backend;
}

static enum cyi_status begin_recording(struct backend *backend, uint64_t key, bool *ret_is_replayed,
                                       struct cyi_error *err) {
    (void)backend;
    (void)key;
    (void)err;
    *ret_is_replayed = false;
    return CYI_OK;
}

static enum cyi_status end_recording(struct backend *backend, bool is_complete, bool *ret_is_lost,
                                     struct cyi_error *err) {
    (void)backend;
    (void)is_complete;
    (void)err;
    *ret_is_lost = false;
    return CYI_OK;
}

static uint64_t get_available_bytes(struct backend *backend) {
    return RANGE_BYTES - ((const struct distant *)backend)->used_bytes;
}

static const struct device_vtable device = {
    .get_memory = get_memory,
    .upload = copy,
    .download = copy,
    .enter = enter,
    .begin_recording = begin_recording,
    .end_recording = end_recording,
    .get_available_bytes = get_available_bytes,
};

/* ---- The backend ---- */

static enum cyi_status run(struct backend *backend, enum op op, const void *args, struct cyi_error *err) {
    struct distant *d = (struct distant *)backend;
    open_range(d);
    enum cyi_status st = d->reference->vtable->run(d->reference, op, args, err);
    close_range_again(d);
    return st;
}

static enum cyi_status sync(struct backend *backend, struct cyi_error *err) {
    (void)backend;
    (void)err;
    return CYI_OK;
}

static size_t get_peak(const struct backend *backend) {
    return ((const struct distant *)backend)->peak_bytes;
}

static void free_distant(struct backend *backend) {
    struct distant *d = (struct distant *)backend;
    backend_free(d->reference);
    (void)munmap(d->range, RANGE_BYTES);
    mem_free(d->allocator, d);
}

static const struct backend_vtable vtable = {
    .name = "distant",
    .run = run,
    .sync = sync,
    .get_peak = get_peak,
    .free = free_distant,
    .device = &device,
};

static enum cyi_status create(const struct backend_options *options, struct backend **ret_backend,
                              struct cyi_error *err) {
    struct distant *d = mem_alloc_zeroed(options->allocator, 1, sizeof *d);
    if (d == NULL) {
        return error_memory(err, "the distant backend", sizeof *d);
    }
    d->base.vtable = &vtable;
    d->allocator = options->allocator;
    d->memory = (struct cyi_allocator){ allocate, release, d };
    d->range = mmap(NULL, RANGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    enum cyi_status st = d->range != MAP_FAILED ? backend_reference.create(options, &d->reference, err)
                                                : error_memory(err, "distant memory", RANGE_BYTES);
    if (st != CYI_OK) {
        mem_free(options->allocator, d);
        return st;
    }
    *ret_backend = &d->base;
    return CYI_OK;
}

static enum cyi_status get_info(int number, struct backend_info *ret_info, struct cyi_error *err) {
    if (number > 0) {
        return error_set(err, CYI_E_UNSUPPORTED, "device %d was asked for, there is one distant device, number 0",
                         number);
    }
    *ret_info = (struct backend_info){ .name = "distant", .version = "distant 1", .isa = "generic" };
    return CYI_OK;
}

static const struct backend_kind backend_distant = { create, get_info };

__attribute__((visibility("default"))) const struct backend_kind *cyberimage_backend(int abi);

const struct backend_kind *cyberimage_backend(int abi) {
    return abi == BACKEND_ABI ? &backend_distant : NULL;
}
