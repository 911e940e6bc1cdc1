/* What every backend owes its caller beside right numbers: counted fall backs, memory from the given allocator, errors that say what
 * happened, the same bytes every time. */
#include "ops_test.h"

#include <stdlib.h>
#include <string.h>

#include "toy_backend.h"

/* ---- One small case an operation ---- */

struct op_case {
    struct tensor tensors[6];
    union op_args args;
};

/* Fills args for op; results go to the last tensor. Sizes are large enough that threads are worth it in places. */
static void make_case(struct ops_test *t, enum op op, struct op_case *c) {
    const enum dtype act = DTYPE_BF16;
    struct tensor *s = c->tensors;
    ops_clear(t, 77 + (uint64_t)op);
    memset(c, 0, sizeof *c);
    for (int i = 0; i < 4; i++) {
        s[i] = ops_matrix(t, "matrix", act, 64, 64, PACKED);
    }
    s[4] = ops_vector(t, "vector", DTYPE_F32, 64);
    struct tensor angles = ops_matrix(t, "angles", DTYPE_F32, 64, 8, PACKED);
    int64_t picture[3] = { 8, 8, 64 };
    int64_t kernel[4] = { 64, 64, 1, 1 };
    switch (op) {
    case OP_LINEAR:
        c->args.linear = (struct linear_args){ .x = s, .weight = s + 1, .bias = s + 4, .act = ACT_SILU, .y = s + 3 };
        break;
    case OP_LAYER_NORM:
        c->args.layer_norm = (struct layer_norm_args){ .x = s, .weight = s + 4, .eps = 1e-6F, .y = s + 3 };
        break;
    case OP_RMS_NORM:
        c->args.rms_norm = (struct rms_norm_args){ .x = s, .weight = s + 4, .eps = 1e-6F, .y = s + 3 };
        break;
    case OP_QK_NORM_ROPE:
        s[5] = angles;
        c->args.qk_norm_rope =
            (struct qk_norm_rope_args){ .x = s, .cos = s + 5, .sin = s + 5, .n_heads = 4, .y = s + 3 };
        break;
    case OP_ATTENTION:
        c->args.attention = (struct attention_args){
            .q = s,
            .k = s + 1,
            .v = s + 2,
            .n_heads = 4,
            .n_kv_heads = 4,
            .n_keys = 63,
            .scale = 0.25F,
            .out = s + 3,
        };
        break;
    case OP_SWIGLU:
        c->args.swiglu = (struct swiglu_args){ .gate = s, .up = s + 1, .y = s + 3 };
        break;
    case OP_SILU:
        c->args.silu = (struct silu_args){ .x = s, .y = s + 3 };
        break;
    case OP_ADD:
        c->args.add = (struct add_args){ .a = s, .b = s + 1, .y = s + 3 };
        break;
    case OP_CAST:
        s[0] = ops_matrix(t, "half", DTYPE_F16, 64, 64, PACKED);
        c->args.cast = (struct cast_args){ .x = s, .y = s + 3 };
        break;
    case OP_EMBED:
        s[5] = ops_vector(t, "ids", DTYPE_I32, 64);
        c->args.embed = (struct embed_args){ .ids = s + 5, .table = s, .y = s + 3 };
        break;
    case OP_GROUP_NORM:
        s[0] = ops_tensor(t, "picture", act, 3, picture, PACKED);
        s[3] = ops_matrix(t, "factors", DTYPE_F32, 1, 64, PACKED);
        c->args.group_norm = (struct group_norm_args){
            .x = s,
            .weight = s + 4,
            .bias = s + 4,
            .n_groups = 8,
            .eps = 1e-6F,
            .scale = s + 3,
            .shift = s + 5,
        };
        s[5] = ops_vector(t, "shift", DTYPE_F32, 64);
        break;
    case OP_CHANNEL_AFFINE:
        c->args.channel_affine = (struct channel_affine_args){ .x = s, .scale = s + 4, .shift = s + 4, .y = s + 3 };
        break;
    case OP_CONV2D:
        s[0] = ops_tensor(t, "picture", act, 3, picture, PACKED);
        s[1] = ops_tensor(t, "kernel", act, 4, kernel, PACKED);
        s[3] = ops_tensor(t, "result", act, 3, picture, PACKED);
        c->args.conv2d = (struct conv2d_args){
            .x = s,
            .scale = s + 4,
            .shift = s + 4,
            .weight = s + 1,
            .in_act = ACT_SILU,
            .upsample = 1,
            .stride = 1,
            .y = s + 3,
        };
        break;
    default:
        fail_msg("no case for operation %d", (int)op);
    }
}

static size_t result_bytes(const struct op_case *c) {
    return (size_t)tensor_n_elements(&c->tensors[3]) * dtype_size(c->tensors[3].dtype);
}

/* ---- An allocator that counts and fails on demand ---- */

struct faulty {
    long n_held, n_asked, fails_at; /* fails_at: the request that gets nothing, counted from 1; 0: none */
};

static void *allocate(void *user, size_t size_bytes) {
    struct faulty *faulty = user;
    if (__atomic_add_fetch(&faulty->n_asked, 1, __ATOMIC_RELAXED) == faulty->fails_at) {
        return NULL;
    }
    (void)__atomic_add_fetch(&faulty->n_held, 1, __ATOMIC_RELAXED);
    return malloc(size_bytes);
}

static void release(void *user, void *block) {
    struct faulty *faulty = user;
    (void)__atomic_sub_fetch(&faulty->n_held, 1, __ATOMIC_RELAXED);
    free(block);
}

/* Creates a backend, runs the operation and frees the backend. */
static enum cyi_status run_once(struct ops_test *t, enum op op, const void *args, struct faulty *faulty,
                                struct cyi_error *err) {
    struct cyi_allocator allocator = { allocate, release, faulty };
    struct backend_options options = { .allocator = &allocator, .n_threads = 2 };
    struct exec ex = { .arena = t->arena, .allocator = &allocator };
    enum cyi_status st = t->kind->create(&options, &ex.backend, err);
    if (st == CYI_OK) {
        st = ops_run(&ex, op, args, err);
        backend_free(ex.backend);
    }
    return st;
}

static void no_memory_is_an_error_that_leaves_nothing_behind(void **state) {
    struct ops_test *t = ops_begin(state);
    for (enum op op = 0; op < N_OPS; op++) {
        struct op_case c;
        make_case(t, op, &c);
        enum cyi_status st = CYI_E_MEMORY;
        for (long n = 1; st != CYI_OK; n++) {
            struct faulty faulty = { .fails_at = n };
            struct cyi_error err = { 0 };
            st = run_once(t, op, &c.args, &faulty, &err);
            if (faulty.n_held != 0) {
                fail_msg("%s keeps %ld blocks when request %ld fails", op_name(op), faulty.n_held, n);
            }
            if (st != CYI_OK && (st != CYI_E_MEMORY || err.code != st || strstr(err.text, "out of memory") == NULL)) {
                fail_msg("%s says %s \"%s\" when request %ld fails", op_name(op), cyi_status_name(st), err.text, n);
            }
            assert_true(n < 100);
        }
    }
}

/* All memory that grows with the sizes comes from the allocator, and get_peak knows of it. */
static void a_backend_tells_its_peak(void **state) {
    struct ops_test *t = ops_begin(state);
    struct op_case c;
    make_case(t, OP_LINEAR, &c);
    struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = 1 };
    struct exec ex = { .arena = t->arena, .allocator = &mem_default_allocator };
    assert_int_equal(t->kind->create(&options, &ex.backend, NULL), CYI_OK);
    assert_int_equal(op_linear(&ex, &c.args.linear, NULL), CYI_OK);
    assert_non_null(ex.backend->vtable->get_peak);
    assert_true(ex.backend->vtable->get_peak(ex.backend) < (size_t)64 * 1024 * 1024);
    backend_free(ex.backend);
}

static void a_backend_gives_the_same_bytes_when_asked_again(void **state) {
    struct ops_test *t = ops_begin(state);
    struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = 2 };
    struct exec ex = { .arena = t->arena, .allocator = &mem_default_allocator };
    assert_int_equal(t->kind->create(&options, &ex.backend, NULL), CYI_OK);
    uint8_t *results[N_OPS] = { NULL };
    for (int round = 0; round < 3; round++) {
        for (enum op op = 0; op < N_OPS; op++) {
            struct op_case c;
            make_case(t, op, &c);
            assert_int_equal(ops_run(&ex, op, &c.args, NULL), CYI_OK);
            if (round == 0) {
                results[op] = malloc(result_bytes(&c));
                assert_non_null(results[op]);
                memcpy(results[op], c.tensors[3].data, result_bytes(&c));
            } else if (memcmp(results[op], c.tensors[3].data, result_bytes(&c)) != 0) {
                fail_msg("%s: other bytes in round %d", op_name(op), round);
            }
        }
    }
    for (enum op op = 0; op < N_OPS; op++) {
        free(results[op]);
    }
    backend_free(ex.backend);
}

static void a_backend_describes_itself(void **state) {
    struct ops_test *t = ops_begin(state);
    struct backend_info info = { 0 };
    assert_int_equal(t->kind->get_info(0, &info, NULL), CYI_OK);
    assert_string_equal(info.name, t->backend);
    assert_non_null(strstr(info.version, "."));
    assert_true(strlen(info.isa) > 0);
}

/* ---- Dispatch ---- */

static void unsupported_operations_go_to_the_reference_and_are_counted(void **state) {
    struct ops_test *t = ops_begin(state);
    struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = 1 };
    struct exec ex = { .arena = t->arena, .allocator = &mem_default_allocator };
    assert_int_equal(backend_toy.create(&options, &ex.backend, NULL), CYI_OK);
    assert_int_equal(backend_reference.create(&options, &ex.reference, NULL), CYI_OK);
    for (enum op op = 0; op < N_OPS; op++) {
        struct op_case c;
        make_case(t, op, &c); /* bf16: the toy can do none of them */
        struct cyi_error err = { 0 };
        assert_int_equal(ops_run(&ex, op, &c.args, &err), CYI_OK);
        assert_int_equal(ex.n_fallbacks, (int)op + 1);
    }
    ops_clear(t, 1);
    struct tensor a = ops_matrix(t, "a", DTYPE_F32, 3, 5, PACKED);
    struct tensor y = ops_matrix(t, "y", DTYPE_F32, 3, 5, PACKED);
    float first = *(float *)a.data;
    assert_int_equal(op_add(&ex, &(struct add_args){ .a = &a, .b = &a, .y = &y }, NULL), CYI_OK);
    assert_int_equal(ex.n_fallbacks, N_OPS);
    assert_true(*(float *)y.data == first + first);
    backend_free(ex.backend);
    backend_free(ex.reference);
}

static void backends_are_found_by_name(void **state) {
    (void)state;
    assert_ptr_equal(backend_find("reference"), &backend_reference);
    assert_non_null(backend_find(NULL));
    assert_ptr_equal(backend_find("auto"), backend_find(NULL));
    assert_null(backend_find("abacus"));
    assert_null(backend_find(""));
    backend_free(NULL);
}

static void operations_have_the_names_of_the_list(void **state) {
    (void)state;
    assert_string_equal(op_name(OP_LINEAR), "linear");
    assert_string_equal(op_name(OP_QK_NORM_ROPE), "qk_norm_rope");
    assert_string_equal(op_name(OP_CONV2D), "conv2d");
}

/* ---- What exec tells the outside ---- */

static char last_stage[96];

static void remember_stage(void *user, const char *stage, const struct tensor *value) {
    (void)user;
    (void)value;
    (void)strncpy(last_stage, stage, sizeof last_stage - 1);
}

static void observers_see_stages_by_name(void **state) {
    (void)state;
    struct tensor value = tensor_1d(DTYPE_F32, 0, NULL);
    struct exec ex = { .observe = remember_stage };
    exec_observe(&ex, "embedding", 3, &value);
    assert_string_equal(last_stage, "embedding");
    exec_observe(&ex, "step0.double.%d.text", 12, &value);
    assert_string_equal(last_stage, "step0.double.12.text");
    exec_observe(&(struct exec){ 0 }, "nobody looks", 0, &value);
    assert_string_equal(last_stage, "step0.double.12.text");
}

static bool stop_after_half(void *user, float fraction) {
    *(float *)user = fraction;
    return fraction < 0.5F;
}

static void a_callback_that_says_no_cancels(void **state) {
    (void)state;
    float seen = -1.0F;
    struct cyi_error err = { 0 };
    struct exec ex = { .on_block = stop_after_half, .user = &seen };
    assert_int_equal(exec_report_block(&ex, 1, 4, &err), CYI_OK);
    assert_true(seen == 0.25F);
    assert_int_equal(exec_report_block(&ex, 2, 4, &err), CYI_E_CANCELLED);
    assert_int_equal(err.code, CYI_E_CANCELLED);
    ex.on_block = NULL;
    assert_int_equal(exec_report_block(&ex, 4, 4, NULL), CYI_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OPS_TEST_HOST(no_memory_is_an_error_that_leaves_nothing_behind),
        OPS_TEST_HOST(a_backend_tells_its_peak),
        OPS_TEST_HOST(a_backend_gives_the_same_bytes_when_asked_again),
        OPS_TEST(a_backend_describes_itself),
        { "unsupported_operations_go_to_the_reference_and_are_counted",
          unsupported_operations_go_to_the_reference_and_are_counted, ops_setup_reference, ops_teardown, NULL },
        cmocka_unit_test(backends_are_found_by_name),
        cmocka_unit_test(operations_have_the_names_of_the_list),
        cmocka_unit_test(observers_see_stages_by_name),
        cmocka_unit_test(a_callback_that_says_no_cancels),
    };
    return ops_run_tests(tests);
}
