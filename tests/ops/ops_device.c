/* See ops_device.h. */
#include "ops_device.h"

#include <string.h>

/* Arguments that lie on the device. */
#define MAX_FIELDS 7
#define FIELD(struct_name, field) (offsetof(struct struct_name, field) + 1) /* 0: none */
static const size_t fields[N_OPS][MAX_FIELDS] = {
    [OP_LINEAR] = { FIELD(linear_args, x), FIELD(linear_args, gate), FIELD(linear_args, residual),
                    FIELD(linear_args, y) },
    [OP_LAYER_NORM] = { FIELD(layer_norm_args, x), FIELD(layer_norm_args, scale), FIELD(layer_norm_args, shift),
                        FIELD(layer_norm_args, y) },
    [OP_RMS_NORM] = { FIELD(rms_norm_args, x), FIELD(rms_norm_args, y) },
    [OP_QK_NORM_ROPE] = { FIELD(qk_norm_rope_args, x), FIELD(qk_norm_rope_args, cos), FIELD(qk_norm_rope_args, sin),
                          FIELD(qk_norm_rope_args, y) },
    [OP_ATTENTION] = { FIELD(attention_args, q), FIELD(attention_args, k), FIELD(attention_args, v),
                       FIELD(attention_args, out) },
    [OP_SWIGLU] = { FIELD(swiglu_args, gate), FIELD(swiglu_args, up), FIELD(swiglu_args, y) },
    [OP_SILU] = { FIELD(silu_args, x), FIELD(silu_args, y) },
    [OP_ADD] = { FIELD(add_args, a), FIELD(add_args, b), FIELD(add_args, y) },
    [OP_CAST] = { FIELD(cast_args, x), FIELD(cast_args, y) },
    [OP_EMBED] = { FIELD(embed_args, y) },
    [OP_GROUP_NORM] = { FIELD(group_norm_args, x), FIELD(group_norm_args, scale), FIELD(group_norm_args, shift) },
    [OP_CHANNEL_AFFINE] = { FIELD(channel_affine_args, x), FIELD(channel_affine_args, scale),
                            FIELD(channel_affine_args, shift), FIELD(channel_affine_args, y) },
    [OP_CONV2D] = { FIELD(conv2d_args, x), FIELD(conv2d_args, scale), FIELD(conv2d_args, shift),
                    FIELD(conv2d_args, residual), FIELD(conv2d_args, y) },
};

static const size_t args_sizes[N_OPS] = {
#define OP(ID, name) [OP_##ID] = sizeof(struct name##_args),
#include "ops/ops.def"
#undef OP
};

/* The memory of tensor i and its twin on the device, as plain bytes. */
struct twin {
    struct tensor host, device;
};

static enum cyi_status make_twins(const struct ops_test *t, struct exec *ex, struct twin *twins,
                                  struct cyi_error *err) {
    for (int i = 0; i < t->n_tensors; i++) {
        const struct tensor *tensor = &t->tensors[i].tensor;
        int64_t n = (int64_t)t->tensors[i].size_bytes;
        size_t element = dtype_size(tensor->dtype);
        size_t shift = (element - (size_t)((uint8_t *)tensor->data - t->tensors[i].bytes) % element) % element;
        uint8_t *data = arena_alloc(ex->device, (size_t)n + shift, 1);
        assert_non_null(data);
        data += shift; /* there, every tensor is aligned to its elements */
        twins[i].host = tensor_1d(DTYPE_U8, n, t->tensors[i].bytes);
        twins[i].device = tensor_1d(DTYPE_U8, n, data);
        enum cyi_status st = ex->backend->vtable->device->upload(ex->backend, &twins[i].host, &twins[i].device, err);
        if (st != CYI_OK) {
            return st;
        }
    }
    return CYI_OK;
}

/* The same place on the device. */
static void *translate(const struct ops_test *t, const struct twin *twins, const void *address) {
    for (int i = 0; i < t->n_tensors; i++) {
        uintptr_t offset = (uintptr_t)address - (uintptr_t)t->tensors[i].bytes;
        if (offset < t->tensors[i].size_bytes) {
            return (uint8_t *)twins[i].device.data + offset;
        }
    }
    fail_msg("an argument is not a tensor of the test");
    return NULL;
}

enum cyi_status ops_run_on_device(struct ops_test *t, struct exec *ex, enum op op, const void *args,
                                  struct cyi_error *err) {
    const struct device_vtable *device = ex->backend->vtable->device;
    struct twin twins[OPS_MAX_TENSORS];
    struct tensor translated[MAX_FIELDS];
    union op_args copy;
    enum cyi_status st = CYI_OK;
    memcpy(&copy, args, args_sizes[op]);
    TRY(arena_create_over(&mem_default_allocator, device->get_memory(ex->backend), &ex->device, err));
    TRY(make_twins(t, ex, twins, err));
    for (int i = 0; i < MAX_FIELDS && fields[op][i] != 0; i++) {
        const struct tensor **field = (const struct tensor **)(void *)((uint8_t *)&copy + fields[op][i] - 1);
        if (*field != NULL) {
            translated[i] = **field;
            translated[i].data = translate(t, twins, (*field)->data);
            *field = &translated[i];
        }
    }
    TRY(ops_run(ex, op, &copy, err));
    for (int i = 0; i < t->n_tensors; i++) {
        TRY(device->download(ex->backend, &twins[i].device, &twins[i].host, err));
    }
done:
    arena_free(ex->device);
    ex->device = NULL;
    return st;
}
