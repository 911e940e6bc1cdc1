/* The core of the CUDA backend on the fake device: copies, weights, room, recordings, codes, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/private.h"
#include "fake_cuda.h"
#include "ops/ops.h"
#include "support/failing_allocator.h"

#define MIB ((uint64_t)1 << 20)
#define WIDTH 512
#define N_LAYERS 12
#define N_TOKENS 16
#define BACKEND_BYTES (64 * MIB) /* what the backend holds for itself */
#define ENOUGH (512 * MIB)
#define TIGHT (BACKEND_BYTES + 12 * MIB) /* some of the layers stay, the others stream */

const struct backend_kind *cyberimage_backend(int abi);

/* ---- A model: a row of products ---- */

struct model {
    struct tensor layers[N_LAYERS];
    struct tensor input; /* host */
    uint16_t *weights;
    uint16_t x[N_TOKENS * WIDTH];
};

struct session {
    struct exec ex;
    struct cuda *c;
    struct tensor a, b; /* on the device */
};

static uint32_t random_state;

static float next_random(void) {
    random_state = random_state * 1664525U + 1013904223U;
    return (float)(random_state >> 8) / (float)(1U << 24) - 0.5F;
}

static uint16_t to_bf16(float x) {
    uint16_t y;
    dtype_store(DTYPE_BF16, &y, 0, x);
    return y;
}

static struct model *new_model(uint32_t seed) {
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    random_state = seed;
    size_t n = (size_t)WIDTH * WIDTH;
    m->weights = malloc(N_LAYERS * n * sizeof *m->weights);
    assert_non_null(m->weights);
    for (size_t i = 0; i < N_LAYERS * n; i++) {
        m->weights[i] = to_bf16(next_random() * 0.15F);
    }
    for (int i = 0; i < N_LAYERS; i++) {
        m->layers[i] = tensor_2d(DTYPE_BF16, WIDTH, WIDTH, m->weights + (size_t)i * n);
    }
    for (int i = 0; i < N_TOKENS * WIDTH; i++) {
        m->x[i] = to_bf16(next_random());
    }
    m->input = tensor_2d(DTYPE_BF16, N_TOKENS, WIDTH, m->x);
    return m;
}

static void free_model(struct model *m) {
    free(m->weights);
    free(m);
}

static enum cyi_status open_session(struct session *s, const struct cyi_allocator *allocator, uint64_t max_bytes,
                                    enum backend_products products, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct backend_options options = {
        .allocator = allocator, .n_threads = 2, .max_device_bytes = max_bytes, .products = products
    };
    *s = (struct session){ .ex = { .allocator = allocator, .act_dtype = DTYPE_BF16 } };
    TRY(cyberimage_backend(BACKEND_ABI)->create(&options, &s->ex.backend, err));
    s->c = (struct cuda *)s->ex.backend;
    const struct cyi_allocator *memory = s->ex.backend->vtable->device->get_memory(s->ex.backend);
    TRY(arena_create(allocator, &s->ex.arena, err));
    TRY(arena_create_over(allocator, memory, &s->ex.device, err));
    TRY(exec_new_2d(&s->ex, DTYPE_BF16, N_TOKENS, WIDTH, &s->a, err));
    TRY(exec_new_2d(&s->ex, DTYPE_BF16, N_TOKENS, WIDTH, &s->b, err));
done:
    return st;
}

static void close_session(struct session *s) {
    arena_free(s->ex.device);
    arena_free(s->ex.arena);
    backend_free(s->ex.backend);
}

static void begin(struct session *s, uint64_t max_bytes) {
    struct cyi_error err = { 0 };
    if (open_session(s, &mem_default_allocator, max_bytes, BACKEND_PRODUCTS_PLAIN, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
}

static enum cyi_status run_layers(struct session *s, const struct model *m, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    for (int i = 0; i < N_LAYERS; i++) {
        struct linear_args args = { .x = i % 2 == 0 ? &s->a : &s->b,
                                    .weight = &m->layers[i],
                                    .act = ACT_SILU,
                                    .is_tolerant = true,
                                    .y = i % 2 == 0 ? &s->b : &s->a };
        TRY(op_linear(&s->ex, &args, err));
    }
done:
    return st;
}

static enum cyi_status run_model(struct session *s, const struct model *m, uint16_t *ret, struct cyi_error *err) {
    const struct device_vtable *device = s->ex.backend->vtable->device;
    struct tensor host = tensor_2d(DTYPE_BF16, N_TOKENS, WIDTH, ret);
    enum cyi_status st = CYI_OK;
    TRY(device->upload(s->ex.backend, &m->input, &s->a, err));
    TRY(run_layers(s, m, err));
    TRY(device->download(s->ex.backend, &s->a, &host, err));
done:
    return st;
}

static void must_run(struct session *s, const struct model *m, uint16_t *ret) {
    struct cyi_error err = { 0 };
    if (run_model(s, m, ret, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
}

/* As run_model, recorded. Returns whether it was replayed. */
static bool run_recorded(struct session *s, const struct model *m, uint64_t key, uint16_t *ret) {
    const struct device_vtable *device = s->ex.backend->vtable->device;
    struct tensor host = tensor_2d(DTYPE_BF16, N_TOKENS, WIDTH, ret);
    struct cyi_error err = { 0 };
    bool is_replayed = false;
    bool is_lost = true;
    assert_int_equal(device->upload(s->ex.backend, &m->input, &s->a, &err), CYI_OK);
    while (is_lost && !is_replayed) {
        assert_int_equal(exec_begin_recording(&s->ex, key, &is_replayed, &err), CYI_OK);
        if (!is_replayed) {
            assert_int_equal(exec_end_recording(&s->ex, run_layers(s, m, &err), &is_lost, &err), CYI_OK);
        }
    }
    assert_int_equal(device->download(s->ex.backend, &s->a, &host, &err), CYI_OK);
    return is_replayed;
}

static int setup(void **state) {
    (void)state;
    fake_cuda_reset();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_cuda_lose_device(cudaSuccess);
    fake_cuda_fail_allocation(0);
    return fake_cuda_get_n_held() == 0 && fake_cuda_get_held_bytes() == 0 ? 0 : -1;
}

/* ---- Copies ---- */

static void check_copy(struct session *s, int64_t n_rows, int64_t n_cols, int64_t host_gap, int64_t device_gap) {
    const struct device_vtable *device = s->ex.backend->vtable->device;
    size_t n = (size_t)(n_rows * (n_cols + host_gap));
    struct cyi_error err = { 0 };
    struct tensor wide;
    uint16_t *from = malloc(n * sizeof *from);
    uint16_t *to = malloc(n * sizeof *to);
    assert_true(from != NULL && to != NULL);
    for (size_t i = 0; i < n; i++) {
        from[i] = (uint16_t)(i * 31);
        to[i] = 7;
    }
    struct exec_mark mark = exec_get_mark(&s->ex);
    assert_int_equal(exec_new_2d(&s->ex, DTYPE_BF16, n_rows, n_cols + device_gap, &wide, &err), CYI_OK);
    struct tensor there = tensor_cols(&wide, device_gap / 2, n_cols);
    struct tensor host = tensor_2d(DTYPE_BF16, n_rows, n_cols + host_gap, from);
    host = tensor_cols(&host, host_gap / 2, n_cols);
    assert_int_equal(device->upload(s->ex.backend, &host, &there, &err), CYI_OK);
    memset(from, 0, n * sizeof *from < 64 ? n * sizeof *from : 64); /* the host's memory may change at once */
    host.data = to + host_gap / 2;
    assert_int_equal(device->download(s->ex.backend, &there, &host, &err), CYI_OK);
    for (size_t i = 0; i < n; i++) {
        int64_t col = (int64_t)i % (n_cols + host_gap) - host_gap / 2;
        uint16_t expected = col >= 0 && col < n_cols ? (uint16_t)(i * 31) : 7;
        if (to[i] != expected) {
            fail_msg("element %zu of %lld x %lld is %d, not %d", i, (long long)n_rows, (long long)n_cols, to[i],
                     expected);
        }
    }
    exec_release(&s->ex, mark);
    free(from);
    free(to);
}

static void copies_keep_gaps(void **state) {
    (void)state;
    struct session s;
    begin(&s, ENOUGH);
    for (int lazy = 0; lazy < 2; lazy++) {
        fake_cuda_set_lazy(lazy != 0);
        check_copy(&s, 1, 1, 0, 0);
        check_copy(&s, 7, 33, 0, 0);
        check_copy(&s, 7, 33, 5, 0);
        check_copy(&s, 7, 33, 0, 9);
        check_copy(&s, 7, 33, 5, 9);
        check_copy(&s, 1, 9 << 20, 0, 0); /* in several parts */
        check_copy(&s, 4100, 4097, 3, 5);
    }
    close_session(&s);
}

/* ---- Weights ---- */

static const enum dtype weight_dtypes[] = { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F8_E4M3, DTYPE_F8_E5M2 };

#define N_OUT 24
#define N_IN 48 /* [6, 2, 4] as a filter's */
#define N_PADDED 8

/* Element of the form on the card. */
static float read_form(const struct device_weight *w, enum weight_form form, int64_t row, int64_t col) {
    int64_t channel = col / 8; /* col of [I, kh, kw] */
    int64_t tap = col % 8;
    int64_t at = row * N_IN + col;
    int64_t filter_at = (row * 8 + tap) * N_PADDED + channel;
    switch (form) {
    case WEIGHT_F32:
        return dtype_load(DTYPE_F32, w->data, at);
    case WEIGHT_BF16:
        return dtype_load(DTYPE_BF16, w->data, at);
    case WEIGHT_FP8:
        return dtype_load(DTYPE_F8_E4M3, w->data, at) * w->scale[row];
    case WEIGHT_INT8:
        return (float)((const int8_t *)w->data)[at] * w->scale[row];
    default:
        return dtype_load(form == WEIGHT_CONV_F32 ? DTYPE_F32 : DTYPE_BF16, w->data, filter_at);
    }
}

static float get_tolerance(enum weight_form form) {
    switch (form) {
    case WEIGHT_F32:
    case WEIGHT_CONV_F32:
        return 0.0F;
    case WEIGHT_FP8:
        return 0.07F;
    case WEIGHT_INT8:
        return 0.009F;
    default:
        return 0.005F;
    }
}

/* x, or for types that are not computed with any value below 2, depending on x. */
static void store(enum dtype dtype, void *data, int i, float x) {
    if (dtype == DTYPE_F32 || dtype == DTYPE_BF16) {
        dtype_store(dtype, data, i, x);
    } else if (dtype == DTYPE_F16) {
        ((uint16_t *)data)[i] = (uint16_t)((int)(x * 32767.0F) & 0xbfff);
    } else {
        ((uint8_t *)data)[i] = (uint8_t)((int)(x * 127.0F) & 0xbf);
    }
}

static void check_weight(struct session *s, enum dtype dtype, enum weight_form form) {
    uint32_t words[N_OUT * N_IN] = { 0 };
    uint8_t bytes[sizeof words + 1];
    void *data = words;
    struct device_weight w;
    struct device_weight again;
    struct cyi_error err = { 0 };
    for (int i = 0; i < N_OUT * N_IN; i++) {
        store(dtype, words, i, i / N_IN == 3 ? 0.0F : next_random() * 2.0F);
    }
    bool is_filter = form == WEIGHT_CONV_F32 || form == WEIGHT_CONV_BF16;
    memcpy(bytes + 1, words, sizeof words); /* badly aligned, as in files */
    struct tensor host = tensor_2d(dtype, N_OUT, N_IN, bytes + 1);
    if (is_filter) {
        host.rank = 4;
        host.shape[1] = 6;
        host.shape[2] = 2;
        host.shape[3] = 4;
        host.row_stride = 4;
    }
    assert_int_equal(cuda_get_weight(s->c, &host, form, &w, &err), CYI_OK);
    long n_work = fake_cuda_get_n_work();
    assert_int_equal(cuda_get_weight(s->c, &host, form, &again, &err), CYI_OK);
    assert_ptr_equal(again.data, w.data);
    assert_ptr_equal(again.scale, w.scale);
    assert_int_equal(fake_cuda_get_n_work(), n_work);
    assert_int_equal(s->ex.backend->vtable->sync(s->ex.backend, &err), CYI_OK);
    assert_int_equal(w.scale != NULL, form == WEIGHT_FP8 || form == WEIGHT_INT8);
    fake_cuda_open_memory();
    for (int64_t row = 0; row < N_OUT; row++) {
        for (int64_t col = 0; col < N_IN; col++) {
            float expected = dtype_load(dtype, data, row * N_IN + col);
            float found = read_form(&w, form, row, col);
            if (!(fabsf(found - expected) <= get_tolerance(form))) {
                fail_msg("%s in form %d at [%d, %d]: %g, not %g", dtype_name(dtype), (int)form, (int)row, (int)col,
                         (double)found, (double)expected);
            }
        }
    }
    fake_cuda_close_memory();
}

static void weights_take_every_form(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof weight_dtypes / sizeof weight_dtypes[0]; i++) {
        for (int form = WEIGHT_F32; form <= WEIGHT_CONV_BF16; form++) {
            struct session s; /* of its own: the table knows weights by their addresses */
            begin(&s, ENOUGH);
            check_weight(&s, weight_dtypes[i], (enum weight_form)form);
            close_session(&s);
        }
    }
}

static void a_missing_weight_is_nothing(void **state) {
    (void)state;
    struct session s;
    struct device_weight w;
    const float *floats = NULL;
    begin(&s, ENOUGH);
    assert_int_equal(cuda_get_weight(s.c, NULL, WEIGHT_BF16, &w, NULL), CYI_OK);
    assert_null(w.data);
    assert_int_equal(cuda_get_floats(s.c, NULL, &floats, NULL), CYI_OK);
    assert_null(floats);
    close_session(&s);
}

static void a_model_computes_what_it_should(void **state) {
    (void)state;
    struct session s;
    struct model *m = new_model(1);
    static double x[N_TOKENS][WIDTH];
    static double y[N_TOKENS][WIDTH];
    static uint16_t found[N_TOKENS * WIDTH];
    begin(&s, ENOUGH);
    must_run(&s, m, found);
    for (int i = 0; i < N_TOKENS * WIDTH; i++) {
        x[i / WIDTH][i % WIDTH] = (double)dtype_load(DTYPE_BF16, m->x, i);
    }
    for (int layer = 0; layer < N_LAYERS; layer++) {
        for (int i = 0; i < N_TOKENS * WIDTH; i++) {
            double sum = 0.0;
            for (int k = 0; k < WIDTH; k++) {
                sum += x[i / WIDTH][k] *
                       (double)dtype_load(DTYPE_BF16, m->layers[layer].data, (int64_t)(i % WIDTH) * WIDTH + k);
            }
            y[i / WIDTH][i % WIDTH] = sum / (1.0 + exp(-sum));
        }
        memcpy(x, y, sizeof x);
    }
    double error = 0.0;
    double size = 0.0;
    for (int i = 0; i < N_TOKENS * WIDTH; i++) {
        double d = x[i / WIDTH][i % WIDTH] - (double)dtype_load(DTYPE_BF16, found, i);
        error += d * d;
        size += x[i / WIDTH][i % WIDTH] * x[i / WIDTH][i % WIDTH];
    }
    assert_true(size > 0.0 && error / size < 1e-3);
    close_session(&s);
    free_model(m);
}

/* ---- Room ---- */

static void weights_stay_while_there_is_room(void **state) {
    (void)state;
    struct session s;
    struct model *m = new_model(2);
    static uint16_t first[N_TOKENS * WIDTH];
    static uint16_t second[N_TOKENS * WIDTH];
    begin(&s, ENOUGH);
    must_run(&s, m, first);
    long before = fake_cuda_get_n_work();
    must_run(&s, m, second);
    assert_memory_equal(first, second, sizeof first);
    assert_true(fake_cuda_get_n_work() - before <= 2 * N_LAYERS + 2); /* products and what follows them, two copies */
    assert_int_equal(weights_get_n_losses(s.c), 0);
    close_session(&s);
    free_model(m);
}

static void weights_of_other_phases_go(void **state) {
    (void)state;
    struct session s;
    struct model *models[3] = { new_model(3), new_model(4), new_model(5) };
    static uint16_t found[3][N_TOKENS * WIDTH];
    static uint16_t again[N_TOKENS * WIDTH];
    const struct device_vtable *device;
    /* Room for two of them. */
    begin(&s, BACKEND_BYTES + 28 * MIB);
    device = s.ex.backend->vtable->device;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            device->enter(s.ex.backend);
            must_run(&s, models[i], round == 0 ? found[i] : again);
            assert_true(round == 0 || memcmp(found[i], again, sizeof again) == 0);
            assert_true(device->get_available_bytes(s.ex.backend) > 24 * MIB);
        }
    }
    assert_int_equal(weights_get_n_losses(s.c), 0); /* those of the current phase stayed */
    assert_true(memory_get_n_moves(s.c) > 0);
    assert_true(fake_cuda_get_peak_bytes() <= BACKEND_BYTES + 28 * MIB);
    close_session(&s);
    for (int i = 0; i < 3; i++) {
        free_model(models[i]);
    }
}

static void weights_that_do_not_fit_stream(void **state) {
    (void)state;
    struct model *m = new_model(6);
    static uint16_t resident[N_TOKENS * WIDTH];
    static uint16_t streamed[N_TOKENS * WIDTH];
    for (int lazy = 0; lazy < 2; lazy++) {
        struct session s;
        fake_cuda_set_lazy(lazy != 0);
        begin(&s, ENOUGH);
        must_run(&s, m, resident);
        close_session(&s);
        begin(&s, TIGHT);
        s.ex.backend->vtable->device->enter(s.ex.backend);
        uint64_t n_losses = 0;
        for (int i = 0; i < 3; i++) {
            memset(streamed, 0, sizeof streamed);
            n_losses = weights_get_n_losses(s.c);
            must_run(&s, m, streamed);
            assert_memory_equal(resident, streamed, sizeof resident);
        }
        n_losses = weights_get_n_losses(s.c) - n_losses;
        assert_in_range(n_losses, 1, N_LAYERS - 1); /* not all of them, in the last run */
        assert_true(s.ex.backend->vtable->get_peak(s.ex.backend) <= TIGHT);
        close_session(&s);
        assert_int_equal(fake_cuda_get_held_bytes(), 0);
    }
    free_model(m);
}

static void streaming_is_quantised_as_well(void **state) {
    (void)state;
    struct model *m = new_model(7);
    static uint16_t found[2][N_TOKENS * WIDTH];
    for (int products = BACKEND_PRODUCTS_FP8; products <= BACKEND_PRODUCTS_INT8; products++) {
        for (int is_tight = 0; is_tight < 2; is_tight++) {
            struct session s;
            struct cyi_error err = { 0 };
            uint64_t max_bytes = is_tight != 0 ? BACKEND_BYTES + 10 * MIB : ENOUGH;
            assert_int_equal(open_session(&s, &mem_default_allocator, max_bytes, (enum backend_products)products, &err),
                             CYI_OK);
            must_run(&s, m, found[is_tight]);
            must_run(&s, m, found[is_tight]);
            assert_int_equal(weights_get_n_losses(s.c) > 0, is_tight);
            close_session(&s);
        }
        assert_memory_equal(found[0], found[1], sizeof found[0]);
    }
    free_model(m);
}

static void scratch_is_stable(void **state) {
    (void)state;
    struct session s;
    begin(&s, ENOUGH);
    void *first[2] = { NULL, NULL };
    for (int round = 0; round < 3; round++) {
        memory_reset_scratch(s.c);
        uint8_t *a = cuda_scratch(s.c, 1000);
        uint8_t *b = cuda_scratch(s.c, (size_t)100 << 20);
        assert_true(a != NULL && b != NULL);
        assert_true(a + 1000 <= b || b + ((size_t)100 << 20) <= a);
        assert_true(round < 2 || (a == first[0] && b == first[1]));
        first[0] = a;
        first[1] = b;
    }
    assert_null(cuda_scratch(s.c, (size_t)600 << 20));
    close_session(&s);
}

/* ---- Recordings ---- */

static void recordings_give_the_same_bytes(void **state) {
    (void)state;
    struct model *m = new_model(8);
    static uint16_t eager[N_TOKENS * WIDTH];
    static uint16_t found[N_TOKENS * WIDTH];
    for (int lazy = 0; lazy < 2; lazy++) {
        struct session s;
        fake_cuda_set_lazy(lazy != 0);
        begin(&s, ENOUGH);
        must_run(&s, m, eager);
        for (int i = 0; i < 4; i++) {
            memset(found, 0, sizeof found);
            bool is_replayed = run_recorded(&s, m, 42, found);
            assert_int_equal(is_replayed, i >= 2);
            assert_memory_equal(eager, found, sizeof found);
        }
        assert_false(run_recorded(&s, m, 43, found)); /* another key */
        assert_memory_equal(eager, found, sizeof found);
        assert_true(run_recorded(&s, m, 42, found));
        /* Another input is read by the same recording. */
        for (int i = 0; i < N_TOKENS * WIDTH; i++) {
            m->x[i] = to_bf16(next_random());
        }
        must_run(&s, m, eager);
        assert_true(run_recorded(&s, m, 42, found));
        assert_memory_equal(eager, found, sizeof found);
        close_session(&s);
    }
    free_model(m);
}

static void many_recordings_take_turns(void **state) {
    (void)state;
    struct session s;
    struct model *m = new_model(9);
    static uint16_t found[N_TOKENS * WIDTH];
    begin(&s, ENOUGH);
    for (uint64_t key = 1; key <= 12; key++) {
        for (int i = 0; i < 3; i++) {
            assert_int_equal(run_recorded(&s, m, key, found), i == 2);
        }
    }
    assert_true(run_recorded(&s, m, 12, found));
    assert_false(run_recorded(&s, m, 1, found)); /* the oldest went */
    close_session(&s);
    free_model(m);
}

static void nothing_is_recorded_while_weights_stream(void **state) {
    (void)state;
    struct session s;
    struct model *m = new_model(10);
    static uint16_t eager[N_TOKENS * WIDTH];
    static uint16_t found[N_TOKENS * WIDTH];
    begin(&s, ENOUGH);
    must_run(&s, m, eager);
    close_session(&s);
    begin(&s, TIGHT);
    for (int i = 0; i < 4; i++) {
        assert_false(run_recorded(&s, m, 1, found));
        assert_memory_equal(eager, found, sizeof found);
    }
    close_session(&s);
    free_model(m);
}

static void a_weight_that_went_voids_recordings(void **state) {
    (void)state;
    struct session s;
    struct model *m = new_model(11);
    static uint16_t eager[N_TOKENS * WIDTH];
    static uint16_t found[N_TOKENS * WIDTH];
    begin(&s, ENOUGH);
    must_run(&s, m, eager);
    for (int i = 0; i < 3; i++) {
        (void)run_recorded(&s, m, 1, found);
    }
    weights_begin_operation(s.c);
    assert_true(weights_evict(s.c, 1, true));
    assert_false(run_recorded(&s, m, 1, found)); /* loads it again */
    assert_memory_equal(eager, found, sizeof found);
    assert_false(run_recorded(&s, m, 1, found));
    assert_true(run_recorded(&s, m, 1, found));
    assert_memory_equal(eager, found, sizeof found);
    close_session(&s);
    free_model(m);
}

static void a_weight_that_is_missing_ends_a_capture(void **state) {
    (void)state;
    struct session s;
    struct model *m = new_model(12);
    struct model *other = new_model(13);
    static uint16_t eager[N_TOKENS * WIDTH];
    static uint16_t found[N_TOKENS * WIDTH];
    begin(&s, ENOUGH);
    must_run(&s, other, eager);
    must_run(&s, m, found);
    (void)run_recorded(&s, m, 1, found);
    close_session(&s);
    begin(&s, ENOUGH);
    (void)run_recorded(&s, m, 1, found);
    /* The same key for other weights: a mistake of the caller, that must not leave garbage in the table of weights. */
    assert_false(run_recorded(&s, other, 1, found));
    assert_memory_equal(eager, found, sizeof found);
    must_run(&s, other, found);
    assert_memory_equal(eager, found, sizeof found);
    close_session(&s);
    free_model(m);
    free_model(other);
}

static void a_failed_step_is_not_replayed(void **state) {
    (void)state;
    struct session s;
    struct model *m = new_model(14);
    static uint16_t eager[N_TOKENS * WIDTH];
    static uint16_t found[N_TOKENS * WIDTH];
    bool is_replayed = true;
    bool is_lost = true;
    begin(&s, ENOUGH);
    must_run(&s, m, eager);
    (void)run_recorded(&s, m, 1, found);
    assert_int_equal(exec_begin_recording(&s.ex, 1, &is_replayed, NULL), CYI_OK);
    assert_false(is_replayed);
    assert_int_equal(exec_end_recording(&s.ex, CYI_E_CANCELLED, &is_lost, NULL), CYI_E_CANCELLED);
    assert_false(is_lost);
    assert_false(run_recorded(&s, m, 1, found));
    assert_memory_equal(eager, found, sizeof found);
    close_session(&s);
    free_model(m);
}

/* ---- Codes ---- */

static void codes_die_when_overwritten(void **state) {
    (void)state;
    struct session s;
    struct cyi_error err = { 0 };
    struct gpu_codes codes;
    static uint16_t ones[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
        ones[i] = to_bf16(1.0F);
    }
    struct tensor weight = tensor_1d(DTYPE_BF16, WIDTH, ones);
    struct model *m = new_model(15);
    assert_int_equal(open_session(&s, &mem_default_allocator, ENOUGH, BACKEND_PRODUCTS_FP8, &err), CYI_OK);
    const struct device_vtable *device = s.ex.backend->vtable->device;
    assert_int_equal(device->upload(s.ex.backend, &m->input, &s.a, &err), CYI_OK);
    cuda_find_codes(s.c, &s.b, &codes);
    assert_null(codes.data);
    struct rms_norm_args norm = { .x = &s.a, .weight = &weight, .eps = 1e-6F, .y = &s.b };
    assert_int_equal(op_rms_norm(&s.ex, &norm, &err), CYI_OK);
    cuda_find_codes(s.c, &s.b, &codes);
    assert_non_null(codes.data);
    assert_non_null(codes.scale);
    struct tensor part = tensor_rows(&s.b, 1, 2);
    cuda_find_codes(s.c, &part, &codes);
    assert_null(codes.data); /* only of exactly this one */
    struct tensor part_of_a = tensor_rows(&s.a, 3, 2);
    struct silu_args elsewhere = { .x = &s.b, .y = &s.a };
    assert_int_equal(op_silu(&s.ex, &elsewhere, &err), CYI_OK);
    cuda_find_codes(s.c, &s.b, &codes);
    assert_non_null(codes.data);
    struct silu_args over = { .x = &part_of_a, .y = &part };
    assert_int_equal(op_silu(&s.ex, &over, &err), CYI_OK);
    cuda_find_codes(s.c, &s.b, &codes);
    assert_null(codes.data);
    close_session(&s);
    free_model(m);
}

static void plain_products_have_no_codes(void **state) {
    (void)state;
    struct session s;
    struct gpu_codes codes;
    begin(&s, ENOUGH);
    cuda_new_codes(s.c, &s.a, &codes);
    assert_null(codes.data);
    close_session(&s);
}

/* ---- Errors ---- */

/* A session from its beginning to its end. */
static enum cyi_status try_all(const struct cyi_allocator *allocator, const struct model *m, uint16_t *ret,
                               struct cyi_error *err) {
    struct session s;
    enum cyi_status st = open_session(&s, allocator, ENOUGH, BACKEND_PRODUCTS_FP8, err);
    if (st == CYI_OK) {
        st = run_model(&s, m, ret, err);
    }
    close_session(&s);
    return st;
}

static void no_memory_on_the_card_is_an_error(void **state) {
    (void)state;
    struct model *m = new_model(16);
    static uint16_t right[N_TOKENS * WIDTH];
    static uint16_t found[N_TOKENS * WIDTH];
    int n_errors = 0;
    assert_int_equal(try_all(&mem_default_allocator, m, right, NULL), CYI_OK);
    for (int n = 1; n <= 40; n++) {
        struct cyi_error err = { 0 };
        fake_cuda_fail_allocation(n);
        enum cyi_status st = try_all(&mem_default_allocator, m, found, &err);
        fake_cuda_fail_allocation(0);
        assert_int_equal(fake_cuda_get_n_held(), 0);
        if (st == CYI_OK) {
            assert_memory_equal(right, found, sizeof right);
        } else {
            n_errors++;
            assert_int_equal(st, CYI_E_MEMORY);
            assert_true(err.text[0] != '\0');
        }
    }
    assert_true(n_errors > 0);
    free_model(m);
}

static void no_memory_on_the_host_is_an_error(void **state) {
    (void)state;
    struct model *m = new_model(17);
    static uint16_t found[N_TOKENS * WIDTH];
    enum cyi_status st = CYI_E_MEMORY;
    for (size_t n = 1; st != CYI_OK; n++) {
        struct failing_allocator failing;
        struct cyi_error err = { 0 };
        failing_allocator_init(&failing, n);
        st = try_all(&failing.allocator, m, found, &err);
        assert_int_equal(failing.n_live, 0);
        assert_int_equal(fake_cuda_get_n_held(), 0);
        assert_true(st == CYI_OK || st == CYI_E_MEMORY);
        assert_true(n < 200);
    }
    free_model(m);
}

static void a_card_that_is_too_small_is_an_error(void **state) {
    (void)state;
    struct session s;
    struct cyi_error err = { 0 };
    assert_int_equal(open_session(&s, &mem_default_allocator, 32 * MIB, BACKEND_PRODUCTS_PLAIN, &err), CYI_E_MEMORY);
    assert_true(err.text[0] != '\0');
    close_session(&s);
}

static void a_lost_card_is_an_error(void **state) {
    (void)state;
    struct session s;
    struct cyi_error err = { 0 };
    struct model *m = new_model(18);
    static uint16_t found[N_TOKENS * WIDTH];
    begin(&s, ENOUGH);
    must_run(&s, m, found);
    fake_cuda_lose_device(cudaErrorLaunchFailure);
    assert_int_equal(run_model(&s, m, found, &err), CYI_E_IO);
    assert_non_null(strstr(err.text, "the card failed"));
    assert_int_equal(s.ex.backend->vtable->sync(s.ex.backend, &err), CYI_E_IO);
    fake_cuda_lose_device(cudaSuccess);
    close_session(&s);
    free_model(m);
}

static void a_fault_while_it_computes_is_an_error(void **state) {
    (void)state;
    struct session s;
    struct cyi_error err = { 0 };
    struct model *m = new_model(19);
    static uint16_t found[N_TOKENS * WIDTH];
    begin(&s, ENOUGH);
    fake_cuda_fail_work(9, cudaErrorIllegalAddress);
    assert_int_equal(run_model(&s, m, found, &err), CYI_E_IO);
    fake_cuda_fail_work(0, cudaSuccess);
    fake_cuda_lose_device(cudaSuccess);
    close_session(&s);
    free_model(m);
}

/* ---- What it says of itself ---- */

static void it_says_what_it_is(void **state) {
    (void)state;
    const struct backend_kind *kind = cyberimage_backend(BACKEND_ABI);
    struct backend_info info;
    struct cyi_error err = { 0 };
    assert_non_null(kind);
    assert_null(cyberimage_backend(BACKEND_ABI + 1));
    fake_cuda_set_compute(90);
    assert_int_equal(kind->get_info(0, &info, &err), CYI_OK);
    assert_string_equal(info.name, "cuda");
    assert_ptr_equal(strstr(info.isa, "sm_90 "), info.isa);
    assert_ptr_equal(strstr(info.version, "CUDA 13.0, "), info.version);
    assert_true(info.has_fast_bf16 && info.has_fp8 && info.has_int8);
    fake_cuda_set_compute(80);
    assert_int_equal(kind->get_info(0, &info, &err), CYI_OK);
    assert_true(info.has_fast_bf16 && !info.has_fp8 && info.has_int8);
}

static void it_says_why_it_cannot_be_used(void **state) {
    (void)state;
    const struct backend_kind *kind = cyberimage_backend(BACKEND_ABI);
    struct backend_info info;
    struct cyi_error err = { 0 };
    assert_int_equal(kind->get_info(7, &info, &err), CYI_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "card 7 was asked for"));
    assert_int_equal(kind->get_info(-1, &info, &err), CYI_E_UNSUPPORTED);
    err = (struct cyi_error){ 0 };
    fake_cuda_set_compute(75);
    assert_int_equal(kind->get_info(0, &info, &err), CYI_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "compute capability 7.5, at least 8.0"));
    fake_cuda_set_compute(90);
    fake_cuda_lose_device(cudaErrorNoDevice);
    assert_int_equal(kind->get_info(0, &info, &err), CYI_E_UNSUPPORTED);
    fake_cuda_lose_device(cudaErrorInsufficientDriver);
    assert_int_equal(kind->get_info(0, &info, &err), CYI_E_UNSUPPORTED);
    fake_cuda_lose_device(cudaSuccess);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(it_says_what_it_is),
        TEST(it_says_why_it_cannot_be_used),
        TEST(copies_keep_gaps),
        TEST(weights_take_every_form),
        TEST(a_missing_weight_is_nothing),
        TEST(a_model_computes_what_it_should),
        TEST(weights_stay_while_there_is_room),
        TEST(weights_of_other_phases_go),
        TEST(weights_that_do_not_fit_stream),
        TEST(streaming_is_quantised_as_well),
        TEST(scratch_is_stable),
        TEST(recordings_give_the_same_bytes),
        TEST(many_recordings_take_turns),
        TEST(nothing_is_recorded_while_weights_stream),
        TEST(a_weight_that_went_voids_recordings),
        TEST(a_weight_that_is_missing_ends_a_capture),
        TEST(a_failed_step_is_not_replayed),
        TEST(codes_die_when_overwritten),
        TEST(plain_products_have_no_codes),
        TEST(no_memory_on_the_card_is_an_error),
        TEST(no_memory_on_the_host_is_an_error),
        TEST(a_card_that_is_too_small_is_an_error),
        TEST(a_lost_card_is_an_error),
        TEST(a_fault_while_it_computes_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
