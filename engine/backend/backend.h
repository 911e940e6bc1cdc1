/* Backends: who computes operations. A backend is one folder that exports one create function (registry.c lists them).
 * Arguments reach a backend with shapes and types already checked by ops.c. */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include "ops/ops.h"

struct backend_vtable {
    const char *name;
    /* Able, and worth it. NULL: everything. */
    bool (*supports)(const struct backend *backend, enum op op, const void *args);
    /* args points to the struct of the operation. Scratch comes from the backend's own allocator. */
    enum cyi_status (*run)(struct backend *backend, enum op op, const void *args, struct cyi_error *err);
    /* Waits until all results can be read by the host. NULL: run is synchronous. */
    enum cyi_status (*sync)(struct backend *backend, struct cyi_error *err);
    /* Most bytes of scratch and prepared weights held at one time. NULL: 0. */
    size_t (*get_peak)(const struct backend *backend);
    void (*free)(struct backend *backend); /* never called with NULL */
};

/* First member of every backend's own struct. One thread at a time. */
struct backend {
    const struct backend_vtable *vtable;
};

struct backend_options {
    const struct cyi_allocator *allocator;
    int n_threads; /* ≥ 1 */
};

/* What a backend says of itself without being created. */
struct backend_info {
    const char *name;
    const char *version; /* library and version, static storage */
    const char *isa;     /* instruction set in use */
    bool has_fast_bf16;  /* AUTO precision becomes bf16 */
};

/* A row of the registry. */
struct backend_kind {
    enum cyi_status (*create)(const struct backend_options *options, struct backend **ret_backend,
                              struct cyi_error *err);
    void (*get_info)(struct backend_info *ret_info);
};

/* By name; NULL or "auto" gives the best one built in. NULL when there is none of that name. */
const struct backend_kind *backend_find(const char *name);
extern const struct backend_kind backend_reference;
extern const struct backend_kind backend_onednn; /* only in builds with oneDNN */

void backend_free(struct backend *backend); /* NULL is fine */

#endif
