/* oneDNN behind a small interface. shim.c implements it with shim_v2.c or shim_v3.c, whichever generation of the library the build
 * has; nothing else in the engine includes oneDNN's headers.
 *
 * Everything prepared here is for one thread: the caller splits the work and runs one prepared operation on many threads at once,
 * each with its own stream and scratch. */
#ifndef BACKEND_ONEDNN_SHIM_H
#define BACKEND_ONEDNN_SHIM_H

#include "core/dtype.h"
#include "core/memory.h"

struct shim;        /* the library's engine for the CPU */
struct shim_stream; /* one thread's queue */
struct shim_op;     /* a prepared operation of fixed shapes */

enum shim_kind { SHIM_MATMUL, SHIM_CONV };

enum shim_weights {
    SHIM_NK,    /* matmul: B is [N, K]: C = A Bᵀ */
    SHIM_KN,    /* matmul: B is [K, N]: C = A B */
    SHIM_PACKED /* in the layout that the operation likes best, made by shim_pack */
};

/* What to prepare. Without holes, so that specifications compare as bytes; unused fields are zero.
 * MATMUL: C [m, n] = A [m, k] · B, rows a_stride, b_stride, c_stride elements apart; for PACKED, plain says what shim_pack reads.
 * CONV: y [rows', cols', n] = conv(x [rows, cols, k], weight [n, k, kernel_rows, kernel_cols]) without padding, all packed. */
struct shim_spec {
    int32_t kind, weights, plain;
    int32_t in, out; /* enum dtype: F32 or BF16 */
    int32_t kernel_rows, kernel_cols;
    int32_t n_threads; /* 0: the caller's thread alone; more only to compare with the library's own threads */
    int64_t m, n, k;
    int64_t a_stride, b_stride, c_stride;
    int64_t rows, cols, stride;
};

/* "oneDNN 2.6.3" */
const char *shim_get_version(void);
/* The instruction set in use, and whether it multiplies bf16 natively. */
const char *shim_get_isa(bool *ret_has_fast_bf16);
/* Bits of the vectors that the library uses: 512 (AVX-512 with BW, DQ, VL), 256 (AVX2), or 0. The processor decides, or the user's
 * ONEDNN_MAX_CPU_ISA. */
int shim_get_vector_bits(void);

enum cyi_status shim_create(const struct cyi_allocator *allocator, struct shim **ret_shim, struct cyi_error *err);
void shim_free(struct shim *shim); /* NULL is fine */

enum cyi_status shim_stream_create(struct shim *shim, struct shim_stream **ret_stream, struct cyi_error *err);
void shim_stream_free(struct shim_stream *stream); /* NULL is fine */

/* Prepares an operation. Errors: UNSUPPORTED (the library cannot do it), MEMORY. Not while other threads prepare. */
enum cyi_status shim_op_create(struct shim *shim, const struct shim_spec *spec, struct shim_op **ret_op,
                               struct cyi_error *err);
void shim_op_free(struct shim *shim, struct shim_op *op); /* NULL is fine */

size_t shim_op_get_scratch(const struct shim_op *op); /* bytes that shim_run and shim_pack need, 64-byte aligned */
size_t shim_op_get_packed(const struct shim_op *op);  /* bytes of packed weights (64-byte aligned); 0 unless PACKED */
/* True when both read packed weights of the same layout. */
bool shim_op_shares_packed(const struct shim_op *a, const struct shim_op *b);

/* Plain weights into the operation's layout: matmul [N, K] or [K, N] rows b_stride apart, convolution [O, C, kh, kw] packed. */
enum cyi_status shim_pack(const struct shim_op *op, struct shim_stream *stream, const void *plain, void *packed,
                          void *scratch, struct cyi_error *err);
/* A, B → C. Any number of threads, each with its own stream and scratch. */
enum cyi_status shim_run(const struct shim_op *op, struct shim_stream *stream, const void *a, const void *b, void *c,
                         void *scratch, struct cyi_error *err);

#endif
