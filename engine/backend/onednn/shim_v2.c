/* oneDNN 2.x (operation descriptors, memory descriptors by value): see shim.h. */
#include "backend/onednn/shim.h"

#include <inttypes.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

#define TEXT(x) #x
#define DIGITS(x) TEXT(x)
#define VERSION "oneDNN " DIGITS(DNNL_VERSION_MAJOR) "." DIGITS(DNNL_VERSION_MINOR) "." DIGITS(DNNL_VERSION_PATCH)

struct shim {
    const struct cyi_allocator *allocator;
    dnnl_engine_t engine;
};

struct shim_op {
    struct shim_spec spec;
    dnnl_engine_t engine; /* borrowed */
    dnnl_primitive_t primitive;
    dnnl_primitive_t pack; /* NULL unless PACKED */
    dnnl_memory_desc_t a, b, c, plain, scratch, pack_scratch;
};

const char *shim_get_version(void) {
    return VERSION;
}

const char *shim_get_isa(bool *ret_has_fast_bf16) {
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } names[] = {
        { dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx" },
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

/* ---- Engine and streams ---- */

static enum cyi_status fail(struct cyi_error *err, const char *what, dnnl_status_t status) {
    if (status == dnnl_out_of_memory) {
        return error_set(err, CYI_E_MEMORY, "out of memory: oneDNN could not %s", what);
    }
    return error_set(err, CYI_E_UNSUPPORTED, "oneDNN could not %s (%s)", what,
                     status == dnnl_unimplemented ? "it has no code for this" : "status of the library is not success");
}

enum cyi_status shim_create(const struct cyi_allocator *allocator, struct shim **ret_shim, struct cyi_error *err) {
    struct shim *shim = mem_alloc_zeroed(allocator, 1, sizeof *shim);
    if (shim == NULL) {
        return error_memory(err, "the oneDNN engine", sizeof *shim);
    }
    shim->allocator = allocator;
    dnnl_status_t status = dnnl_engine_create(&shim->engine, dnnl_cpu, 0);
    if (status != dnnl_success) {
        mem_free(allocator, shim);
        return fail(err, "make an engine for the CPU", status);
    }
    *ret_shim = shim;
    return CYI_OK;
}

void shim_free(struct shim *shim) {
    if (shim != NULL) {
        (void)dnnl_engine_destroy(shim->engine);
        mem_free(shim->allocator, shim);
    }
}

enum cyi_status shim_stream_create(struct shim *shim, struct shim_stream **ret_stream, struct cyi_error *err) {
    dnnl_stream_t stream = NULL;
    dnnl_status_t status = dnnl_stream_create(&stream, shim->engine, dnnl_stream_default_flags);
    *ret_stream = (struct shim_stream *)stream;
    return status == dnnl_success ? CYI_OK : fail(err, "make a stream", status);
}

void shim_stream_free(struct shim_stream *stream) {
    if (stream != NULL) {
        (void)dnnl_stream_destroy((dnnl_stream_t)stream);
    }
}

/* ---- Preparing ---- */

static dnnl_data_type_t data_type(int32_t dtype) {
    return dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_status_t describe_matrix(dnnl_memory_desc_t *md, int32_t dtype, int64_t n_rows, int64_t n_cols,
                                     int64_t row_step, int64_t col_step) {
    return dnnl_memory_desc_init_by_strides(md, 2, (const dnnl_dims_t){ n_rows, n_cols }, data_type(dtype),
                                            (const dnnl_dims_t){ row_step, col_step });
}

static dnnl_status_t describe_matmul(struct shim_op *op, dnnl_memory_desc_t *b_wish) {
    const struct shim_spec *s = &op->spec;
    int32_t plain = s->weights == SHIM_PACKED ? s->plain : s->weights;
    dnnl_status_t status = describe_matrix(&op->a, s->in, s->m, s->k, s->a_stride, 1);
    if (status == dnnl_success) {
        status = describe_matrix(&op->c, s->out, s->m, s->n, s->c_stride, 1);
    }
    if (status == dnnl_success) {
        status = plain == SHIM_NK ? describe_matrix(&op->plain, s->in, s->k, s->n, 1, s->b_stride)
                                  : describe_matrix(&op->plain, s->in, s->k, s->n, s->b_stride, 1);
    }
    *b_wish = op->plain;
    if (status == dnnl_success && s->weights == SHIM_PACKED) {
        status = dnnl_memory_desc_init_by_tag(b_wish, 2, (const dnnl_dims_t){ s->k, s->n }, data_type(s->in),
                                              dnnl_format_tag_any);
    }
    return status;
}

static dnnl_status_t describe_conv(struct shim_op *op, dnnl_memory_desc_t *b_wish) {
    const struct shim_spec *s = &op->spec;
    const dnnl_dims_t x = { 1, s->k, s->rows, s->cols };
    const dnnl_dims_t w = { s->n, s->k, s->kernel_rows, s->kernel_cols };
    const dnnl_dims_t y = { 1, s->n, (s->rows - s->kernel_rows) / s->stride + 1,
                            (s->cols - s->kernel_cols) / s->stride + 1 };
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&op->a, 4, x, data_type(s->in), dnnl_nhwc);
    if (status == dnnl_success) {
        status = dnnl_memory_desc_init_by_tag(&op->c, 4, y, data_type(s->out), dnnl_nhwc);
    }
    if (status == dnnl_success) {
        status = dnnl_memory_desc_init_by_tag(&op->plain, 4, w, data_type(s->in), dnnl_oihw);
    }
    if (status == dnnl_success) {
        status = dnnl_memory_desc_init_by_tag(b_wish, 4, w, data_type(s->in), dnnl_format_tag_any);
    }
    return status;
}

static dnnl_status_t prepare_matmul(struct shim_op *op, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *ret_pd) {
    dnnl_memory_desc_t b_wish;
    dnnl_matmul_desc_t desc;
    dnnl_status_t status = describe_matmul(op, &b_wish);
    if (status == dnnl_success) {
        status = dnnl_matmul_desc_init(&desc, &op->a, &b_wish, NULL, &op->c);
    }
    return status != dnnl_success ? status : dnnl_primitive_desc_create(ret_pd, &desc, attr, op->engine, NULL);
}

static dnnl_status_t prepare_conv(struct shim_op *op, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *ret_pd) {
    const dnnl_dims_t strides = { op->spec.stride, op->spec.stride };
    const dnnl_dims_t none = { 0, 0 };
    dnnl_memory_desc_t b_wish;
    dnnl_convolution_desc_t desc;
    dnnl_status_t status = describe_conv(op, &b_wish);
    if (status == dnnl_success) {
        status = dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference, dnnl_convolution_direct, &op->a,
                                                    &b_wish, NULL, &op->c, strides, none, none);
    }
    return status != dnnl_success ? status : dnnl_primitive_desc_create(ret_pd, &desc, attr, op->engine, NULL);
}

/* The reorder from plain to packed weights. */
static dnnl_status_t prepare_pack(struct shim_op *op, dnnl_primitive_attr_t attr) {
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&pd, &op->plain, op->engine, &op->b, op->engine, attr);
    if (status == dnnl_success) {
        op->pack_scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        status = dnnl_primitive_create(&op->pack, pd);
    }
    (void)dnnl_primitive_desc_destroy(pd);
    return status;
}

static dnnl_status_t prepare(struct shim_op *op) {
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
        op->b = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        op->scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        status = dnnl_primitive_create(&op->primitive, pd);
    }
    if (status == dnnl_success && op->spec.weights == SHIM_PACKED) {
        status = prepare_pack(op, attr);
    }
    (void)dnnl_primitive_desc_destroy(pd);
    (void)dnnl_primitive_attr_destroy(attr);
    return status;
}

enum cyi_status shim_op_create(struct shim *shim, const struct shim_spec *spec, struct shim_op **ret_op,
                               struct cyi_error *err) {
    struct shim_op *op = mem_alloc_zeroed(shim->allocator, 1, sizeof *op);
    if (op == NULL) {
        return error_memory(err, "a prepared operation", sizeof *op);
    }
    op->spec = *spec;
    op->engine = shim->engine;
    /* oneDNN plans for as many threads as OpenMP would start now. */
    int n_threads = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_status_t status = prepare(op);
    omp_set_num_threads(n_threads);
    if (status != dnnl_success) {
        shim_op_free(shim, op);
        char what[160];
        (void)snprintf(what, sizeof what,
                       "prepare a %s of %s, m %" PRId64 ", n %" PRId64 ", k %" PRId64 ", %" PRId64 "x%" PRId64,
                       spec->kind == SHIM_MATMUL ? "matrix product" : "convolution", dtype_name((enum dtype)spec->in),
                       spec->m, spec->n, spec->k, spec->rows, spec->cols);
        return fail(err, what, status);
    }
    *ret_op = op;
    return CYI_OK;
}

void shim_op_free(struct shim *shim, struct shim_op *op) {
    if (op != NULL) {
        (void)dnnl_primitive_destroy(op->primitive);
        (void)dnnl_primitive_destroy(op->pack);
        mem_free(shim->allocator, op);
    }
}

size_t shim_op_get_scratch(const struct shim_op *op) {
    size_t run = dnnl_memory_desc_get_size(&op->scratch);
    size_t pack = op->pack == NULL ? 0 : dnnl_memory_desc_get_size(&op->pack_scratch);
    return run > pack ? run : pack;
}

size_t shim_op_get_packed(const struct shim_op *op) {
    return op->pack == NULL ? 0 : dnnl_memory_desc_get_size(&op->b);
}

bool shim_op_shares_packed(const struct shim_op *a, const struct shim_op *b) {
    return dnnl_memory_desc_equal(&a->b, &b->b) != 0;
}

/* ---- Running ---- */

struct argument {
    int index;
    const dnnl_memory_desc_t *desc;
    const void *data;
};

static enum cyi_status execute(const struct shim_op *op, dnnl_primitive_t primitive, struct shim_stream *stream,
                               const struct argument *arguments, int n, struct cyi_error *err) {
    dnnl_exec_arg_t args[4] = { 0 };
    dnnl_status_t status = dnnl_success;
    int n_made = 0;
    while (n_made < n && status == dnnl_success) {
        args[n_made].arg = arguments[n_made].index;
        /* The library takes inputs and outputs alike as void *. */
        void *data = (void *)(uintptr_t)arguments[n_made].data;
        status = dnnl_memory_create(&args[n_made].memory, arguments[n_made].desc, op->engine, data);
        n_made += status == dnnl_success;
    }
    if (status == dnnl_success) {
        status = dnnl_primitive_execute(primitive, (dnnl_stream_t)stream, n, args);
    }
    if (status == dnnl_success) {
        status = dnnl_stream_wait((dnnl_stream_t)stream);
    }
    for (int i = 0; i < n_made; i++) {
        (void)dnnl_memory_destroy(args[i].memory);
    }
    return status == dnnl_success ? CYI_OK : fail(err, "run a prepared operation", status);
}

enum cyi_status shim_pack(const struct shim_op *op, struct shim_stream *stream, const void *plain, void *packed,
                          void *scratch, struct cyi_error *err) {
    const struct argument arguments[] = {
        { DNNL_ARG_FROM, &op->plain, plain },
        { DNNL_ARG_TO, &op->b, packed },
        { DNNL_ARG_SCRATCHPAD, &op->pack_scratch, scratch },
    };
    return execute(op, op->pack, stream, arguments, 3, err);
}

enum cyi_status shim_run(const struct shim_op *op, struct shim_stream *stream, const void *a, const void *b, void *c,
                         void *scratch, struct cyi_error *err) {
    const struct argument arguments[] = {
        { DNNL_ARG_SRC, &op->a, a },
        { DNNL_ARG_WEIGHTS, &op->b, b },
        { DNNL_ARG_DST, &op->c, c },
        { DNNL_ARG_SCRATCHPAD, &op->scratch, scratch },
    };
    return execute(op, op->primitive, stream, arguments, 4, err);
}
