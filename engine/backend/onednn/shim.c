/* oneDNN: see shim.h. This file is the part that both generations of the library share. */
#include "backend/onednn/shim.h"

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "backend/onednn/shim_version.h"

#define TEXT(x) #x
#define DIGITS(x) TEXT(x)
#define VERSION "oneDNN " DIGITS(DNNL_VERSION_MAJOR) "." DIGITS(DNNL_VERSION_MINOR) "." DIGITS(DNNL_VERSION_PATCH)

struct shim {
    const struct cyi_allocator *allocator;
    dnnl_engine_t engine;
};

const char *shim_get_version(void) {
    return VERSION;
}

int shim_get_vector_bits(void) {
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    if ((isa & (unsigned)dnnl_cpu_isa_avx512_core) == (unsigned)dnnl_cpu_isa_avx512_core) {
        return 512;
    }
    return (isa & (unsigned)dnnl_cpu_isa_avx2) == (unsigned)dnnl_cpu_isa_avx2 ? 256 : 0;
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

enum cyi_status shim_op_create(struct shim *shim, const struct shim_spec *spec, struct shim_op **ret_op,
                               struct cyi_error *err) {
    struct shim_op *op = mem_alloc_zeroed(shim->allocator, 1, sizeof *op);
    if (op == NULL) {
        return error_memory(err, "a prepared operation", sizeof *op);
    }
    op->spec = *spec;
    op->engine = shim->engine;
    /* oneDNN 3.7 writes a product of one column as if its elements lay side by side, whatever its stride says. */
    if (spec->kind == SHIM_MATMUL && spec->n == 1 && spec->c_stride > 1) {
        op->column_stride = spec->c_stride;
        op->spec.c_stride = 1;
    }
    /* oneDNN plans for as many threads as OpenMP would start now. */
    int n_threads = omp_get_max_threads();
    omp_set_num_threads(spec->n_threads > 1 ? spec->n_threads : 1);
    dnnl_status_t status = shim_version_prepare(op);
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
        shim_version_destroy_descs(op);
        mem_free(shim->allocator, op);
    }
}

/* Where the scratch has the column that shim_run spreads: after the library's own. */
static size_t column_offset(const struct shim_op *op) {
    return (shim_version_get_size(&op->scratch) + 63) / 64 * 64;
}

size_t shim_op_get_scratch(const struct shim_op *op) {
    size_t run = shim_version_get_size(&op->scratch);
    if (op->column_stride > 0) {
        run = column_offset(op) + (size_t)op->spec.m * dtype_size((enum dtype)op->spec.out);
    }
    size_t pack = op->pack == NULL ? 0 : shim_version_get_size(&op->pack_scratch);
    return run > pack ? run : pack;
}

size_t shim_op_get_packed(const struct shim_op *op) {
    return op->pack == NULL ? 0 : shim_version_get_size(&op->b);
}

bool shim_op_shares_packed(const struct shim_op *a, const struct shim_op *b) {
    return shim_version_is_equal(&a->b, &b->b);
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
        status = shim_version_create_memory(&args[n_made].memory, arguments[n_made].desc, op->engine, data);
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
    uint8_t *column = op->column_stride == 0 ? NULL : (uint8_t *)scratch + column_offset(op);
    const struct argument arguments[] = {
        { DNNL_ARG_SRC, &op->a, a },
        { DNNL_ARG_WEIGHTS, &op->b, b },
        { DNNL_ARG_DST, &op->c, column == NULL ? c : column },
        { DNNL_ARG_SCRATCHPAD, &op->scratch, scratch },
    };
    enum cyi_status st = execute(op, op->primitive, stream, arguments, 4, err);
    size_t size = dtype_size((enum dtype)op->spec.out);
    for (size_t i = 0; column != NULL && st == CYI_OK && i < (size_t)op->spec.m; i++) {
        memcpy((uint8_t *)c + i * (size_t)op->column_stride * size, column + i * size, size);
    }
    return st;
}
