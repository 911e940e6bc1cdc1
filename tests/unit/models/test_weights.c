/* Binding weights: names, chunks, shapes, and what is said when they do not fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "models/weights.h"

struct target {
    struct tensor a, b;
};

#define ROW(name, alt, shape, optional) ((struct weight_row){ name, alt, offsetof(struct target, a), shape, optional })

static char path[512];
static struct weight_set *set;
static const struct weight_dims dims = { .value = { ['D'] = 2, ['F'] = 6 } };

/* A file with a matrix [6, 2] of 0 … 11, a vector, a 1×1 convolution and integers. */
static int write_file(void **state) {
    (void)state;
    static float matrix[12];
    static int32_t numbers[2];
    static const char *const names[] = { "conv", "layer.3.matrix", "numbers", "vector" };
    for (int i = 0; i < 12; i++) {
        matrix[i] = (float)i;
    }
    const struct tensor tensors[] = {
        { .dtype = DTYPE_F32, .rank = 4, .shape = { 6, 2, 1, 1 }, .row_stride = 1, .data = matrix },
        tensor_2d(DTYPE_F32, 6, 2, matrix),
        tensor_1d(DTYPE_I32, 2, numbers),
        tensor_1d(DTYPE_F32, 6, matrix),
    };
    const char *root = getenv("TMPDIR");
    (void)snprintf(path, sizeof path, "%s/cyi-weights-XXXXXX.safetensors", root != NULL ? root : P_tmpdir);
    int descriptor = mkstemps(path, 12);
    assert_true(descriptor >= 0);
    assert_int_equal(close(descriptor), 0);
    assert_int_equal(safetensors_write(&mem_default_allocator, path, names, tensors, 4, NULL), CYI_OK);
    assert_int_equal(weight_set_open(&mem_default_allocator, path, "model", &set, NULL), CYI_OK);
    return 0;
}

static int delete_file(void **state) {
    (void)state;
    weight_set_close(set);
    return unlink(path);
}

static enum cyi_status bind_one(struct weight_row row, struct target *target, struct cyi_error *err) {
    *target = (struct target){ 0 };
    *err = (struct cyi_error){ 0 };
    return weights_bind(set, "layer.", &row, 1, 3, &dims, target, err);
}

static void weights_bind_puts_the_index_into_names(void **state) {
    (void)state;
    struct target target;
    struct cyi_error err;
    struct weight_row row = { "%d.matrix", NULL, offsetof(struct target, b), "[F,D]", false };
    assert_int_equal(bind_one(row, &target, &err), CYI_OK);
    assert_null(target.a.data);
    assert_int_equal(target.b.rank, 2);
    assert_true(tensor_get(&target.b, 5, 1) == 11.0F);
    assert_non_null(weights_peek(set, "layer.", "%d.matrix#1/3", 3));
    assert_null(weights_peek(set, "layer.", "%d.matrix", 4));
}

static void weights_bind_takes_the_other_name_when_the_first_is_absent(void **state) {
    (void)state;
    struct target target;
    struct cyi_error err;
    assert_int_equal(bind_one(ROW("nothing.%d", "%d.matrix", "[3D,D]", false), &target, &err), CYI_OK);
    assert_int_equal(target.a.shape[0], 6);
}

static void weights_bind_cuts_chunks_of_the_outermost_dimension(void **state) {
    (void)state;
    struct target target;
    struct cyi_error err;
    assert_int_equal(bind_one(ROW("%d.matrix#2/3", NULL, "[D,2]", false), &target, &err), CYI_OK);
    assert_true(tensor_get(&target.a, 0, 0) == 8.0F);
    assert_true(tensor_get(&target.a, 1, 1) == 11.0F);
    const struct weight_row row = ROW("vector#1/2", NULL, "[3]", false);
    assert_int_equal(weights_bind(set, "", &row, 1, 0, &dims, &target, &err), CYI_OK);
    assert_true(tensor_is_packed(&target.a));
    assert_true(tensor_get(&target.a, 0, 0) == 3.0F);
}

static void weights_bind_refuses_a_chunk_that_does_not_divide(void **state) {
    (void)state;
    struct target target;
    struct cyi_error err;
    assert_int_equal(bind_one(ROW("%d.matrix#0/4", NULL, "[D,D]", false), &target, &err), CYI_E_SHAPE);
    assert_non_null(
        strstr(err.text, "tensor layer.3.matrix is [6, 2] F32, but the model needs [2, 2] for its chunk 0/4"));
}

static void weights_bind_drops_ones_only_where_the_shape_says_so(void **state) {
    (void)state;
    struct target target;
    struct cyi_error err = { 0 };
    const struct weight_row dropping = ROW("conv", NULL, "[F,D,1*]", false);
    const struct weight_row strict = ROW("conv", NULL, "[F,D]", false);
    assert_int_equal(weights_bind(set, "", &dropping, 1, 0, &dims, &target, &err), CYI_OK);
    assert_int_equal(target.a.rank, 2);
    assert_int_equal(target.a.row_stride, 2);
    assert_true(tensor_get(&target.a, 5, 0) == 10.0F);
    assert_int_equal(weights_bind(set, "", &strict, 1, 0, &dims, &target, &err), CYI_E_SHAPE);
    assert_non_null(strstr(err.text, "tensor conv is [6, 2, 1, 1] F32, but the model needs [6, 2]"));
}

static void weights_bind_names_missing_tensors_in_both_styles(void **state) {
    (void)state;
    struct target target;
    struct cyi_error err;
    assert_int_equal(bind_one(ROW("%d.one", NULL, "[D]", false), &target, &err), CYI_E_FORMAT);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "tensor layer.3.one is missing"));
    assert_int_equal(bind_one(ROW("%d.one", "two.%d", "[D]", false), &target, &err), CYI_E_FORMAT);
    assert_non_null(strstr(err.text, "tensor layer.3.one (or layer.two.3) is missing"));
}

static void weights_bind_leaves_absent_optional_fields_alone(void **state) {
    (void)state;
    struct target target;
    struct cyi_error err;
    assert_int_equal(bind_one(ROW("%d.one", "two.%d", "[D]", true), &target, &err), CYI_OK);
    assert_null(target.a.data);
    assert_int_equal(bind_one(ROW("%d.matrix", NULL, "[D]", true), &target, &err), CYI_E_SHAPE);
}

static void weights_bind_refuses_integers(void **state) {
    (void)state;
    struct target target;
    struct cyi_error err = { 0 };
    const struct weight_row row = ROW("numbers", NULL, "[D]", false);
    assert_int_equal(weights_bind(set, "", &row, 1, 0, &dims, &target, &err), CYI_E_DTYPE);
    assert_non_null(strstr(err.text, "tensor numbers is I32, but the model needs a floating type"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_bind_puts_the_index_into_names),
        cmocka_unit_test(weights_bind_takes_the_other_name_when_the_first_is_absent),
        cmocka_unit_test(weights_bind_cuts_chunks_of_the_outermost_dimension),
        cmocka_unit_test(weights_bind_refuses_a_chunk_that_does_not_divide),
        cmocka_unit_test(weights_bind_drops_ones_only_where_the_shape_says_so),
        cmocka_unit_test(weights_bind_names_missing_tensors_in_both_styles),
        cmocka_unit_test(weights_bind_leaves_absent_optional_fields_alone),
        cmocka_unit_test(weights_bind_refuses_integers),
    };
    return cmocka_run_group_tests(tests, write_file, delete_file);
}
