/* A backend of one operation: see toy_backend.h. */
#include "toy_backend.h"

struct toy {
    struct backend base; /* first: a struct backend * to it is a struct toy * */
    const struct cyi_allocator *allocator;
};

static bool is_simple(const struct tensor *t) {
    return t->dtype == DTYPE_F32 && tensor_is_packed(t);
}

static bool supports(const struct backend *backend, enum op op, const void *args) {
    (void)backend;
    const struct add_args *add = args;
    return op == OP_ADD && is_simple(add->a) && is_simple(add->b) && is_simple(add->y);
}

static enum cyi_status run(struct backend *backend, enum op op, const void *args, struct cyi_error *err) {
    (void)backend;
    (void)op; /* supports lets only one pass */
    (void)err;
    const struct add_args *add = args;
    const float *a = add->a->data;
    const float *b = add->b->data;
    float *y = add->y->data;
    for (int64_t i = 0; i < tensor_n_elements(add->y); i++) {
        y[i] = a[i] + b[i];
    }
    return CYI_OK;
}

static void free_toy(struct backend *backend) {
    struct toy *toy = (struct toy *)backend;
    mem_free(toy->allocator, toy);
}

static const struct backend_vtable vtable = {
    .name = "toy",
    .supports = supports,
    .run = run,
    .free = free_toy,
};

static enum cyi_status create(const struct backend_options *options, struct backend **ret_backend,
                              struct cyi_error *err) {
    struct toy *toy = mem_alloc(options->allocator, sizeof *toy);
    if (toy == NULL) {
        return error_memory(err, "the toy backend", sizeof *toy);
    }
    *toy = (struct toy){ .base = { &vtable }, .allocator = options->allocator };
    *ret_backend = &toy->base;
    return CYI_OK;
}

static enum cyi_status get_info(int device, struct backend_info *ret_info, struct cyi_error *err) {
    (void)device;
    (void)err;
    *ret_info = (struct backend_info){ .name = "toy", .version = "toy 1", .isa = "generic" };
    return CYI_OK;
}

const struct backend_kind backend_toy = { create, get_info };
