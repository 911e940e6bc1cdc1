/* How fast the operations of the fast CPU backend are, at the shapes of FLUX.2 klein 4B. Rates stand beside R, the rate of oneDNN's
 * own matrix product with its own threads, bf16, measured at the same shapes between our runs: only the ratios mean something on a
 * machine that others use too. Ends with 1 when a ratio is under its limit.
 *
 *   bench_ops [THREADS [WORD]]    WORD: only the rows whose name contains it */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "rival.h"
#include "support.h"

#define N_REPEATS 5

static const struct {
    const char *name;
    int64_t m, n, k;
    bool has_gate; /* y = y + gate · x Wᵀ, as the last product of a block */
} linears[] = {
    { "single qkv+mlp 256x256", 768, 27648, 3072, false },
    { "single out 256x256", 768, 3072, 12288, true },
    { "double qkv 256x256", 256, 9216, 3072, false },
    { "double mlp in 256x256", 256, 18432, 3072, false },
    { "double mlp out 256x256", 256, 3072, 9216, true },
    { "text qkv", 512, 9216, 3072, false },
    { "single qkv+mlp 512x512", 1536, 27648, 3072, false },
    { "single out 512x512", 1536, 3072, 12288, true },
    { "encoder q", 512, 4096, 2560, false },
    { "encoder out", 512, 2560, 4096, true },
    { "encoder gate", 512, 9728, 2560, false },
    { "encoder down", 512, 2560, 9728, true },
};

static const struct {
    const char *name;
    int64_t n_rows, n_heads, n_kv_heads;
    bool is_causal;
} attentions[] = {
    { "attention 256x256", 768, 24, 24, false },
    { "attention 512x512", 1536, 24, 24, false },
    { "attention 1024x1024", 4608, 24, 24, false },
    { "encoder attention", 512, 32, 8, true },
};

static const struct {
    const char *name;
    int64_t size, channels, outputs;
    int upsample;
    bool has_norm;
} convs[] = {
    { "conv 32x32 32>512", 32, 32, 512, 1, false },     { "conv 32x32 512>512", 32, 512, 512, 1, true },
    { "conv 64x64 512>512", 64, 512, 512, 1, true },    { "conv up 64>128 512>512", 64, 512, 512, 2, false },
    { "conv 128x128 512>256", 128, 512, 256, 1, true }, { "conv 128x128 256>256", 128, 256, 256, 1, true },
    { "conv 256x256 256>128", 256, 256, 128, 1, true }, { "conv 256x256 128>128", 256, 128, 128, 1, true },
    { "conv 512x512 128>128", 512, 128, 128, 1, true }, { "conv 512x512 128>3", 512, 128, 3, 1, true },
};

struct bench {
    struct exec ex;
    int n_threads;
    const char *word;
    int n_slow;
};

/* A tensor of small numbers between −0.5 and 0.5. */
static struct tensor fill(struct bench *b, enum dtype dtype, int rank, const int64_t *shape) {
    struct tensor t;
    struct cyi_error err = { 0 };
    check(tensor_new(b->ex.arena, dtype, rank, shape, &t, &err), &err);
    uint32_t state = 1;
    for (int64_t i = 0; i < tensor_n_elements(&t); i++) {
        state = state * 1664525U + 1013904223U;
        dtype_store(dtype, t.data, i, (float)(state >> 8) / 0x1p24F - 0.5F);
    }
    return t;
}

static struct tensor fill_2d(struct bench *b, enum dtype dtype, int64_t n_rows, int64_t n_cols) {
    return fill(b, dtype, 2, (const int64_t[]){ n_rows, n_cols });
}

/* ---- Rows ---- */

static double run_op(struct bench *b, enum op op, const union op_args *args) {
    struct cyi_error err = { 0 };
    double start = now_seconds(CLOCK_MONOTONIC);
    check(b->ex.backend->vtable->run(b->ex.backend, op, args, &err), &err);
    return now_seconds(CLOCK_MONOTONIC) - start;
}

static bool is_wanted(const struct bench *b, const char *name) {
    return b->word == NULL || strstr(name, b->word) != NULL;
}

/* Our best time beside the rival's, run in turn, and the row that says so. */
static void report_flops(struct bench *b, const char *name, enum op op, const union op_args *args, double flops,
                         struct rival *rival, double rival_flops, double limit) {
    double best = 1e30;
    double rival_best = 1e30;
    for (int i = 0; i <= N_REPEATS; i++) {
        double rival_seconds = rival_time(rival);
        double time = run_op(b, op, args);
        if (i > 0) { /* the first round only warms up */
            best = time < best ? time : best;
            rival_best = rival_seconds < rival_best ? rival_seconds : rival_best;
        }
    }
    double rate = flops / best * 1e-9;
    double rival_rate = rival_flops / rival_best * 1e-9;
    bool is_fast = rate >= limit * rival_rate;
    b->n_slow += !is_fast;
    (void)printf("%-26s %9.2f ms %8.0f GF/s   R %8.0f GF/s   ratio %.2f (limit %.2f)%s\n", name, best * 1e3, rate,
                 rival_rate, rate / rival_rate, limit, is_fast ? "" : "   BEHIND");
    (void)fflush(stdout);
    rival_free(rival);
}

static void bench_linear(struct bench *b) {
    for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++) {
        int64_t m = linears[i].m;
        int64_t n = linears[i].n;
        int64_t k = linears[i].k;
        if (!is_wanted(b, linears[i].name)) {
            continue;
        }
        struct arena_mark mark = arena_get_mark(b->ex.arena);
        struct rival *rival = rival_create(m, n, k, b->n_threads);
        struct tensor x = fill_2d(b, DTYPE_BF16, m, k);
        struct tensor weight = fill_2d(b, DTYPE_BF16, n, k);
        struct tensor gate = fill(b, DTYPE_F32, 1, &n);
        struct tensor y = fill_2d(b, linears[i].has_gate ? DTYPE_F32 : DTYPE_BF16, m, n);
        union op_args args = { .linear = { .x = &x, .weight = &weight, .y = &y } };
        if (linears[i].has_gate) {
            args.linear.gate = &gate;
            args.linear.residual = &y;
        }
        double flops = 2 * (double)m * (double)n * (double)k;
        report_flops(b, linears[i].name, OP_LINEAR, &args, flops, rival, flops, 0.9);
        arena_release(b->ex.arena, mark);
    }
}

static void bench_attention(struct bench *b) {
    for (size_t i = 0; i < sizeof attentions / sizeof attentions[0]; i++) {
        int64_t s = attentions[i].n_rows;
        if (!is_wanted(b, attentions[i].name)) {
            continue;
        }
        struct arena_mark mark = arena_get_mark(b->ex.arena);
        struct rival *rival = rival_create(768, 9216, 3072, b->n_threads);
        struct tensor q = fill_2d(b, DTYPE_BF16, s, attentions[i].n_heads * 128);
        struct tensor k = fill_2d(b, DTYPE_BF16, s, attentions[i].n_kv_heads * 128);
        struct tensor v = fill_2d(b, DTYPE_BF16, s, attentions[i].n_kv_heads * 128);
        struct tensor out = fill_2d(b, DTYPE_BF16, s, attentions[i].n_heads * 128);
        union op_args args = { .attention = { .q = &q, .k = &k, .v = &v, .out = &out } };
        args.attention.n_heads = attentions[i].n_heads;
        args.attention.n_kv_heads = attentions[i].n_kv_heads;
        args.attention.n_keys = s;
        args.attention.is_causal = attentions[i].is_causal;
        args.attention.scale = 0.08838835F;
        double flops = 4.0 * (double)s * (double)s * 128 * (double)attentions[i].n_heads;
        report_flops(b, attentions[i].name, OP_ATTENTION, &args, attentions[i].is_causal ? flops / 2 : flops, rival,
                     2.0 * 768 * 9216 * 3072, attentions[i].is_causal ? 0.25 : 0.5);
        arena_release(b->ex.arena, mark);
    }
}

static void bench_conv(struct bench *b) {
    for (size_t i = 0; i < sizeof convs / sizeof convs[0]; i++) {
        int64_t c = convs[i].channels;
        int64_t o = convs[i].outputs;
        int64_t size = convs[i].size;
        int64_t to = size * convs[i].upsample;
        if (!is_wanted(b, convs[i].name)) {
            continue;
        }
        struct arena_mark mark = arena_get_mark(b->ex.arena);
        struct rival *rival = rival_create(768, 9216, 3072, b->n_threads);
        struct tensor x = fill(b, DTYPE_BF16, 3, (const int64_t[]){ size, size, c });
        struct tensor weight = fill(b, DTYPE_BF16, 4, (const int64_t[]){ o, c, 3, 3 });
        struct tensor scale = fill(b, DTYPE_F32, 1, &c);
        struct tensor shift = fill(b, DTYPE_F32, 1, &c);
        struct tensor bias = fill(b, DTYPE_BF16, 1, &o);
        struct tensor y = fill(b, DTYPE_BF16, 3, (const int64_t[]){ to, to, o });
        union op_args args = { .conv2d = { .x = &x, .weight = &weight, .bias = &bias, .y = &y } };
        args.conv2d.in_act = ACT_SILU;
        args.conv2d.scale = convs[i].has_norm ? &scale : NULL;
        args.conv2d.shift = convs[i].has_norm ? &shift : NULL;
        args.conv2d.upsample = convs[i].upsample;
        args.conv2d.stride = 1;
        args.conv2d.pad_top = args.conv2d.pad_left = args.conv2d.pad_bottom = args.conv2d.pad_right = 1;
        double flops = 18.0 * (double)(to * to) * (double)c * (double)o;
        report_flops(b, convs[i].name, OP_CONV2D, &args, flops, rival, 2.0 * 768 * 9216 * 3072, o < 16 ? 0.0 : 0.6);
        arena_release(b->ex.arena, mark);
    }
}

/* An operation that memory limits: bytes read and written a second. */
static void report_bytes(struct bench *b, const char *name, enum op op, const union op_args *args, double bytes) {
    double best = 1e30;
    if (!is_wanted(b, name)) {
        return;
    }
    for (int i = 0; i <= N_REPEATS; i++) {
        double time = run_op(b, op, args);
        best = time < best ? time : best;
    }
    (void)printf("%-26s %9.2f ms %8.1f GB/s\n", name, best * 1e3, bytes / best * 1e-9);
    (void)fflush(stdout);
}

static void bench_rows(struct bench *b) {
    const int64_t m = 768;
    const int64_t d = 3072;
    const int64_t f = 9216;
    struct tensor x = fill_2d(b, DTYPE_BF16, m, d);
    struct tensor wide = fill_2d(b, DTYPE_BF16, m, 2 * f);
    struct tensor stream = fill_2d(b, DTYPE_F32, m, d);
    struct tensor scale = fill(b, DTYPE_F32, 1, &d);
    struct tensor weight = fill(b, DTYPE_BF16, 1, (const int64_t[]){ 128 });
    struct tensor wide_weight = fill(b, DTYPE_BF16, 1, &d);
    struct tensor cos = fill_2d(b, DTYPE_F32, m, 64);
    struct tensor gate = tensor_cols(&wide, 0, f);
    struct tensor up = tensor_cols(&wide, f, f);
    struct tensor picture = fill(b, DTYPE_BF16, 3, (const int64_t[]){ 512, 512, 128 });
    struct tensor channel = fill(b, DTYPE_F32, 1, (const int64_t[]){ 128 });
    double n = (double)(m * d);
    report_bytes(
        b, "layer_norm", OP_LAYER_NORM,
        &(union op_args){ .layer_norm = { .x = &stream, .scale = &scale, .shift = &scale, .eps = 1e-6F, .y = &x } },
        n * 6);
    report_bytes(b, "rms_norm", OP_RMS_NORM,
                 &(union op_args){ .rms_norm = { .x = &stream, .weight = &wide_weight, .eps = 1e-6F, .y = &x } },
                 n * 6);
    report_bytes(b, "qk_norm_rope", OP_QK_NORM_ROPE,
                 &(union op_args){ .qk_norm_rope = { &x, &weight, &cos, &cos, 24, 1e-6F, ROPE_ADJACENT, &x } }, n * 4);
    report_bytes(b, "swiglu", OP_SWIGLU, &(union op_args){ .swiglu = { &gate, &up, &gate } }, (double)(m * f) * 6);
    report_bytes(b, "add", OP_ADD, &(union op_args){ .add = { &stream, &stream, &stream } }, n * 12);
    report_bytes(b, "cast", OP_CAST, &(union op_args){ .cast = { &stream, &x } }, n * 6);
    report_bytes(b, "group_norm", OP_GROUP_NORM,
                 &(union op_args){ .group_norm = { &picture, &weight, &weight, 32, 1e-6F, &channel, &channel } },
                 512.0 * 512 * 256);
    struct tensor row = tensor_rows(&x, 0, 1);
    struct tensor matrix = fill_2d(b, DTYPE_BF16, 6 * d, d);
    struct tensor out = fill_2d(b, DTYPE_F32, 1, 6 * d);
    report_bytes(b, "linear of one row", OP_LINEAR,
                 &(union op_args){ .linear = { .x = &row, .weight = &matrix, .y = &out } },
                 n / (double)m * 2 * 6 * (double)d);
}

int main(int argc, char **argv) {
    struct bench b = { .n_threads = argc > 1 ? atoi(argv[1]) : omp_get_max_threads(),
                       .word = argc > 2 ? argv[2] : NULL };
    struct cyi_error err = { 0 };
    if (b.n_threads < 1 || b.n_threads > 1024) {
        (void)fprintf(stderr, "usage: bench_ops [THREADS [WORD]]\n");
        return 2;
    }
    struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = b.n_threads };
    struct backend_info info;
    omp_set_num_threads(b.n_threads);
    (void)backend_onednn.get_info(0, &info, NULL);
    check(arena_create(&mem_default_allocator, &b.ex.arena, &err), &err);
    check(backend_onednn.create(&options, &b.ex.backend, &err), &err);
    (void)printf("%s, %s, %d threads\n", info.version, info.isa, b.n_threads);
    bench_linear(&b);
    bench_attention(&b);
    bench_conv(&b);
    bench_rows(&b);
    (void)printf("scratch and packed weights: %.1f MB at most\n",
                 (double)b.ex.backend->vtable->get_peak(b.ex.backend) * 1e-6);
    backend_free(b.ex.backend);
    arena_free(b.ex.arena);
    return b.n_slow > 0;
}
