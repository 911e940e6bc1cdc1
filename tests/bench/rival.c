/* oneDNN's own matrix product: see rival.h. */
#include "rival.h"

#include "backend/onednn/shim.h"
#include "core/memory.h"
#include "support.h"

struct rival {
    struct arena *arena; /* of this struct and the matrices */
    struct shim *shim;
    struct shim_stream *stream;
    struct shim_op *op;
    uint16_t *x, *w, *y;
    void *scratch;
};

static void *allocate(struct arena *arena, size_t n, size_t size_bytes) {
    void *block = arena_alloc(arena, n, size_bytes);
    if (block == NULL) {
        die("out of memory: %zu values", n);
    }
    return block;
}

static uint16_t *fill(struct arena *arena, int64_t n) {
    uint16_t *values = allocate(arena, (size_t)n, sizeof *values);
    uint32_t state = 1;
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525U + 1013904223U;
        values[i] = float_to_bf16((float)(state >> 8) / 0x1p24F - 0.5F);
    }
    return values;
}

struct rival *rival_create(int64_t m, int64_t n, int64_t k, int n_threads) {
    struct cyi_error err = { 0 };
    struct arena *arena = NULL;
    const struct shim_spec spec = { .kind = SHIM_MATMUL,
                                    .weights = SHIM_NK,
                                    .plain = SHIM_NK,
                                    .in = DTYPE_BF16,
                                    .out = DTYPE_BF16,
                                    .m = m,
                                    .n = n,
                                    .k = k,
                                    .a_stride = k,
                                    .b_stride = k,
                                    .c_stride = n,
                                    .n_threads = n_threads };
    check(arena_create(&mem_default_allocator, &arena, &err), &err);
    struct rival *r = allocate(arena, 1, sizeof *r);
    *r = (struct rival){ .arena = arena, .x = fill(arena, m * k), .w = fill(arena, n * k), .y = fill(arena, m * n) };
    check(shim_create(&mem_default_allocator, &r->shim, &err), &err);
    check(shim_stream_create(r->shim, &r->stream, &err), &err);
    check(shim_op_create(r->shim, &spec, &r->op, &err), &err);
    r->scratch = arena_alloc(arena, 1, shim_op_get_scratch(r->op));
    return r;
}

void rival_free(struct rival *r) {
    shim_op_free(r->shim, r->op);
    shim_stream_free(r->stream);
    shim_free(r->shim);
    arena_free(r->arena);
}

double rival_time(struct rival *r) {
    struct cyi_error err = { 0 };
    double start = now_seconds(CLOCK_MONOTONIC);
    check(shim_run(r->op, r->stream, r->x, r->w, r->y, r->scratch, &err), &err);
    return now_seconds(CLOCK_MONOTONIC) - start;
}
