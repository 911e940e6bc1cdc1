/* What differs between the generations of oneDNN, for shim.c alone. In 2.x a memory descriptor is a struct, in 3.x a pointer to one
 * that must be destroyed; the text below means both. */
#ifndef BACKEND_ONEDNN_SHIM_VERSION_H
#define BACKEND_ONEDNN_SHIM_VERSION_H

#include <oneapi/dnnl/dnnl.h>

#include "backend/onednn/shim.h"

struct shim_op {
    struct shim_spec spec;
    dnnl_engine_t engine; /* borrowed */
    dnnl_primitive_t primitive;
    dnnl_primitive_t pack; /* NULL unless PACKED */
    dnnl_memory_desc_t a, b, c, plain, scratch, pack_scratch;
    int64_t column_stride; /* of a result of one column that goes through scratch; else 0 */
};

/* Fills everything after `engine`. What was filled before a failure is destroyed by its owner. */
dnnl_status_t shim_version_prepare(struct shim_op *op);
void shim_version_destroy_descs(struct shim_op *op);

size_t shim_version_get_size(const dnnl_memory_desc_t *desc);
bool shim_version_is_equal(const dnnl_memory_desc_t *a, const dnnl_memory_desc_t *b);
dnnl_status_t shim_version_create_memory(dnnl_memory_t *ret_memory, const dnnl_memory_desc_t *desc,
                                         dnnl_engine_t engine, void *data);

#endif
