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

    /* The rest is for backends that compute in memory of their own; backends on host memory leave it NULL.
     * Then data of activations are addresses of blocks of get_memory, data of weights (every argument that ops.h calls a weight, a bias
     * or a table) and of ids stay host memory, and nobody but the backend may look at device memory. */
    const struct device_vtable *device;
};

struct device_vtable {
    /* Device blocks for arenas; valid as long as the backend. Blocks that are released may still be in use by work under way. */
    const struct cyi_allocator *(*get_memory)(struct backend *backend);
    /* Copies of one shape and type; either side may have gaps between rows. After upload the host's memory may change at once; download
     * waits for everything before it. Errors: what the device reports. */
    enum cyi_status (*upload)(struct backend *backend, const struct tensor *host, const struct tensor *device,
                              struct cyi_error *err);
    enum cyi_status (*download)(struct backend *backend, const struct tensor *device, const struct tensor *host,
                                struct cyi_error *err);
    /* What follows reads the weights of one model part over and over and no others: those may go to make room. */
    void (*enter)(struct backend *backend);
    /* Around operations that are called again and again with equal arguments, addresses included (key stands for them all). When
     * *ret_is_replayed, they are under way already and must not be called; else they must, and end_recording after them.
     * *ret_is_lost: nothing of them has been done, begin again. */
    enum cyi_status (*begin_recording)(struct backend *backend, uint64_t key, bool *ret_is_replayed,
                                       struct cyi_error *err);
    enum cyi_status (*end_recording)(struct backend *backend, bool is_complete, bool *ret_is_lost,
                                     struct cyi_error *err);
    /* Memory of the device that is free, or is held by weights that could be loaded again. */
    uint64_t (*get_available_bytes)(struct backend *backend);
};

/* First member of every backend's own struct. One thread at a time. */
struct backend {
    const struct backend_vtable *vtable;
};

/* How matrix products that may lose precision are computed. */
enum backend_products { BACKEND_PRODUCTS_PLAIN, BACKEND_PRODUCTS_FP8, BACKEND_PRODUCTS_INT8 };

struct backend_options {
    const struct cyi_allocator *allocator;
    int n_threads;                  /* ≥ 1 */
    int device;                     /* number of the card, for backends with several */
    uint64_t max_device_bytes;      /* 0: all of the card's memory */
    enum backend_products products; /* of the operations that are marked tolerant */
};

/* What a backend says of itself without being created. */
struct backend_info {
    const char *name;
    char version[96];   /* libraries and their versions */
    char isa[96];       /* instruction set in use, or the card */
    bool has_fast_bf16; /* AUTO precision becomes bf16 */
    bool has_fp8;       /* BACKEND_PRODUCTS_… that it can do */
    bool has_int8;
};

/* A row of the registry. */
struct backend_kind {
    enum cyi_status (*create)(const struct backend_options *options, struct backend **ret_backend,
                              struct cyi_error *err);
    /* device: number of the card, for backends with several. Errors: UNSUPPORTED, with the reason why it cannot be used here. */
    enum cyi_status (*get_info)(int device, struct backend_info *ret_info, struct cyi_error *err);
};

/* By name; NULL or "auto" gives the best one built in. NULL when there is none of that name. */
const struct backend_kind *backend_find(const char *name);

/* A backend in a library of its own, "libcyberimage-NAME.so", that exports one function of this type by the name BACKEND_ENTRY. It gives
 * NULL for another ABI than its own. The ABI grows with every change of backend.h, ops.h, ops.def or what they include. */
#define BACKEND_ABI 1
#define BACKEND_ENTRY "cyberimage_backend"
typedef const struct backend_kind *(*backend_entry)(int abi);

/* A backend that was chosen, and what keeps it loaded. */
struct backend_choice {
    const struct backend_kind *kind;
    struct backend_info info;
    void *library;        /* NULL: built in */
    char gpu_status[384]; /* why no card is used, in one sentence; empty when one is */
};

/* By name, built in or loaded; NULL or "auto": the card's when there is one that can be used, else the best one built in.
 * Plug-ins are looked for in the folder that the environment variable CYBERIMAGE_PLUGINS names, beside the program, and in
 * ../lib/cyberimage beside it. Errors: ARGUMENT (no such name), UNSUPPORTED (it cannot be used here: the sentence says why). */
enum cyi_status backend_choose(const char *name, int device, struct backend_choice *ret_choice, struct cyi_error *err);
/* No backend of the choice may live any more. */
void backend_choice_done(struct backend_choice *choice);
extern const struct backend_kind backend_reference;
extern const struct backend_kind backend_onednn; /* only in builds with oneDNN */

void backend_free(struct backend *backend); /* NULL is fine */

#endif
