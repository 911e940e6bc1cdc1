/* The fast CPU backend: matrix products and convolutions by oneDNN, everything else by kernels.c. See onednn.h. */
#include "backend/onednn/onednn.h"

#include <stdio.h>

static enum cyi_status run_op(struct backend *backend, enum op op, const void *args, struct cyi_error *err) {
    struct onednn *b = (struct onednn *)backend;
    switch (op) {
#define OP(ID, name)                                                                                                   \
    case OP_##ID:                                                                                                      \
        return onednn_##name(b, args, err);
#include "ops/ops.def"
#undef OP
    case N_OPS:
        break;
    }
    return error_set(err, CYI_E_UNSUPPORTED, "the CPU backend knows no operation number %d", (int)op);
}

static size_t get_peak(const struct backend *backend) {
    return ((const struct onednn *)backend)->peak_bytes;
}

static void free_backend(struct backend *backend) {
    struct onednn *b = (struct onednn *)backend;
    for (size_t i = 0; i < b->n_prepared; i++) {
        shim_op_free(b->shim, b->prepared[i].op);
    }
    for (size_t i = 0; i < b->n_packed; i++) {
        onednn_release(b, &b->packed[i].block);
    }
    for (int i = 0; b->lanes != NULL && i < b->n_threads; i++) {
        shim_stream_free(b->lanes[i].stream);
        onednn_release(b, &b->lanes[i].block);
    }
    onednn_release(b, &b->shared);
    shim_free(b->shim);
    mem_free(b->allocator, b->prepared);
    mem_free(b->allocator, b->packed);
    mem_free(b->allocator, b->lanes);
    mem_free(b->allocator, b);
}

static const struct backend_vtable vtable = {
    .name = "onednn",
    .run = run_op,
    .get_peak = get_peak,
    .free = free_backend,
};

static enum cyi_status create_lanes(struct onednn *b, struct cyi_error *err) {
    b->lanes = mem_alloc_zeroed(b->allocator, (size_t)b->n_threads, sizeof *b->lanes);
    if (b->lanes == NULL) {
        return error_memory(err, "threads of the CPU backend", (size_t)b->n_threads * sizeof *b->lanes);
    }
    enum cyi_status st = CYI_OK;
    for (int i = 0; i < b->n_threads && st == CYI_OK; i++) {
        b->lanes[i].kernels = b->kernels;
        st = shim_stream_create(b->shim, &b->lanes[i].stream, err);
    }
    return st;
}

static enum cyi_status create(const struct backend_options *options, struct backend **ret_backend,
                              struct cyi_error *err) {
    struct onednn *b = mem_alloc_zeroed(options->allocator, 1, sizeof *b);
    if (b == NULL) {
        return error_memory(err, "the CPU backend", sizeof *b);
    }
    b->base.vtable = &vtable;
    b->allocator = options->allocator;
    b->n_threads = options->n_threads;
    b->kernels = kernels_select(shim_get_vector_bits());
    (void)shim_get_isa(&b->has_fast_bf16);
    enum cyi_status st = shim_create(b->allocator, &b->shim, err);
    if (st == CYI_OK) {
        st = create_lanes(b, err);
    }
    if (st != CYI_OK) {
        free_backend(&b->base);
        return st;
    }
    *ret_backend = &b->base;
    return CYI_OK;
}

static enum cyi_status get_info(int device, struct backend_info *ret_info, struct cyi_error *err) {
    (void)device;
    (void)err;
    *ret_info = (struct backend_info){ .name = "onednn" };
    (void)snprintf(ret_info->version, sizeof ret_info->version, "%s", shim_get_version());
    (void)snprintf(ret_info->isa, sizeof ret_info->isa, "%s", shim_get_isa(&ret_info->has_fast_bf16));
    return CYI_OK;
}

const struct backend_kind backend_onednn = { create, get_info };
