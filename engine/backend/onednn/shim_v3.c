/* oneDNN 3.x: primitives are described in one step, memory descriptors are objects. See shim_version.h. */
#include "backend/onednn/shim_version.h"

const char *shim_get_isa(bool *ret_has_fast_bf16) {
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } names[] = {
        { dnnl_cpu_isa_avx512_core_amx_fp16, "avx512_core_amx_fp16" },
        { dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx" },
        { dnnl_cpu_isa_avx512_core_fp16, "avx512_core_fp16" },
        { dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16" },
        { dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni" },
        { dnnl_cpu_isa_avx512_core, "avx512_core" },
        { dnnl_cpu_isa_avx2_vnni, "avx2_vnni" },
        { dnnl_cpu_isa_avx2, "avx2" },
        { dnnl_cpu_isa_avx, "avx" },
        { dnnl_cpu_isa_sse41, "sse41" },
    };
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    unsigned bf16 = (unsigned)dnnl_cpu_isa_avx512_core_bf16;
    *ret_has_fast_bf16 = (isa & bf16) == bf16;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if ((isa & (unsigned)names[i].isa) == (unsigned)names[i].isa) {
            return names[i].name;
        }
    }
    return "generic";
}

/* ---- Memory ---- */

void shim_version_destroy_descs(struct shim_op *op) {
    (void)dnnl_memory_desc_destroy(op->a);
    (void)dnnl_memory_desc_destroy(op->b);
    (void)dnnl_memory_desc_destroy(op->c);
    (void)dnnl_memory_desc_destroy(op->plain);
    (void)dnnl_memory_desc_destroy(op->scratch);
    (void)dnnl_memory_desc_destroy(op->pack_scratch);
}

size_t shim_version_get_size(const dnnl_memory_desc_t *desc) {
    return dnnl_memory_desc_get_size(*desc);
}

bool shim_version_is_equal(const dnnl_memory_desc_t *a, const dnnl_memory_desc_t *b) {
    return dnnl_memory_desc_equal(*a, *b) != 0;
}

dnnl_status_t shim_version_create_memory(dnnl_memory_t *ret_memory, const dnnl_memory_desc_t *desc,
                                         dnnl_engine_t engine, void *data) {
    return dnnl_memory_create(ret_memory, *desc, engine, data);
}

/* ---- Preparing ---- */

static dnnl_data_type_t data_type(int32_t dtype) {
    return dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_status_t describe_matrix(dnnl_memory_desc_t *md, int32_t dtype, int64_t n_rows, int64_t n_cols,
                                     int64_t row_step, int64_t col_step) {
    return dnnl_memory_desc_create_with_strides(md, 2, (const dnnl_dims_t){ n_rows, n_cols }, data_type(dtype),
                                                (const dnnl_dims_t){ row_step, col_step });
}

/* The caller destroys the wish. */
static dnnl_status_t describe_matmul(struct shim_op *op, dnnl_memory_desc_t *b_wish) {
    const struct shim_spec *s = &op->spec;
    const dnnl_dims_t b = { s->k, s->n };
    int32_t plain = s->weights == SHIM_PACKED ? s->plain : s->weights;
    dnnl_status_t status = describe_matrix(&op->a, s->in, s->m, s->k, s->a_stride, 1);
    if (status == dnnl_success) {
        status = describe_matrix(&op->c, s->out, s->m, s->n, s->c_stride, 1);
    }
    if (status == dnnl_success) {
        status = plain == SHIM_NK ? describe_matrix(&op->plain, s->in, s->k, s->n, 1, s->b_stride)
                                  : describe_matrix(&op->plain, s->in, s->k, s->n, s->b_stride, 1);
    }
    if (status == dnnl_success) {
        status = s->weights == SHIM_PACKED
                     ? dnnl_memory_desc_create_with_tag(b_wish, 2, b, data_type(s->in), dnnl_format_tag_any)
                     : dnnl_memory_desc_clone(b_wish, op->plain);
    }
    return status;
}

/* The caller destroys the wish. */
static dnnl_status_t describe_conv(struct shim_op *op, dnnl_memory_desc_t *b_wish) {
    const struct shim_spec *s = &op->spec;
    const dnnl_dims_t x = { 1, s->k, s->rows, s->cols };
    const dnnl_dims_t w = { s->n, s->k, s->kernel_rows, s->kernel_cols };
    const dnnl_dims_t y = { 1, s->n, (s->rows - s->kernel_rows) / s->stride + 1,
                            (s->cols - s->kernel_cols) / s->stride + 1 };
    dnnl_status_t status = dnnl_memory_desc_create_with_tag(&op->a, 4, x, data_type(s->in), dnnl_nhwc);
    if (status == dnnl_success) {
        status = dnnl_memory_desc_create_with_tag(&op->c, 4, y, data_type(s->out), dnnl_nhwc);
    }
    if (status == dnnl_success) {
        status = dnnl_memory_desc_create_with_tag(&op->plain, 4, w, data_type(s->in), dnnl_oihw);
    }
    if (status == dnnl_success) {
        status = dnnl_memory_desc_create_with_tag(b_wish, 4, w, data_type(s->in), dnnl_format_tag_any);
    }
    return status;
}

static dnnl_status_t prepare_matmul(struct shim_op *op, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *ret_pd) {
    dnnl_memory_desc_t b_wish = NULL;
    dnnl_status_t status = describe_matmul(op, &b_wish);
    if (status == dnnl_success) {
        status = dnnl_matmul_primitive_desc_create(ret_pd, op->engine, op->a, b_wish, NULL, op->c, attr);
    }
    (void)dnnl_memory_desc_destroy(b_wish);
    return status;
}

static dnnl_status_t prepare_conv(struct shim_op *op, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *ret_pd) {
    const dnnl_dims_t strides = { op->spec.stride, op->spec.stride };
    const dnnl_dims_t none = { 0, 0 };
    dnnl_memory_desc_t b_wish = NULL;
    dnnl_status_t status = describe_conv(op, &b_wish);
    if (status == dnnl_success) {
        status = dnnl_convolution_forward_primitive_desc_create(ret_pd, op->engine, dnnl_forward_inference,
                                                                dnnl_convolution_direct, op->a, b_wish, NULL, op->c,
                                                                strides, none, none, none, attr);
    }
    (void)dnnl_memory_desc_destroy(b_wish);
    return status;
}

/* A copy of a description that lives as long as the operation. */
static dnnl_status_t copy_desc(dnnl_memory_desc_t *ret_desc, const_dnnl_primitive_desc_t pd, dnnl_query_t what) {
    return dnnl_memory_desc_clone(ret_desc, dnnl_primitive_desc_query_md(pd, what, 0));
}

/* The reorder from plain to packed weights. */
static dnnl_status_t prepare_pack(struct shim_op *op, dnnl_primitive_attr_t attr) {
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&pd, op->plain, op->engine, op->b, op->engine, attr);
    if (status == dnnl_success) {
        status = copy_desc(&op->pack_scratch, pd, dnnl_query_scratchpad_md);
    }
    if (status == dnnl_success) {
        status = dnnl_primitive_create(&op->pack, pd);
    }
    (void)dnnl_primitive_desc_destroy(pd);
    return status;
}

dnnl_status_t shim_version_prepare(struct shim_op *op) {
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success) {
        status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    }
    if (status == dnnl_success) {
        status = op->spec.kind == SHIM_MATMUL ? prepare_matmul(op, attr, &pd) : prepare_conv(op, attr, &pd);
    }
    if (status == dnnl_success) {
        status = copy_desc(&op->b, pd, dnnl_query_weights_md);
    }
    if (status == dnnl_success) {
        status = copy_desc(&op->scratch, pd, dnnl_query_scratchpad_md);
    }
    if (status == dnnl_success) {
        status = dnnl_primitive_create(&op->primitive, pd);
    }
    if (status == dnnl_success && op->spec.weights == SHIM_PACKED) {
        status = prepare_pack(op, attr);
    }
    (void)dnnl_primitive_desc_destroy(pd);
    (void)dnnl_primitive_attr_destroy(attr);
    return status;
}
