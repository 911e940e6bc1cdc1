/* Tensors: shapes, views and their descriptions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/tensor.h"

static struct arena *arena;

static int setup(void **state) {
    (void)state;
    return arena_create(&mem_default_allocator, &arena, NULL) == CYI_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    arena_free(arena);
    return 0;
}

static void tensors_count_rows_columns_and_elements(void **state) {
    (void)state;
    struct tensor t = tensor_3d(DTYPE_F32, 2, 3, 5, NULL);
    assert_int_equal(tensor_n_rows(&t), 6);
    assert_int_equal(tensor_n_cols(&t), 5);
    assert_int_equal(tensor_n_elements(&t), 30);
    assert_int_equal(t.row_stride, 5);
    t = tensor_1d(DTYPE_F32, 7, NULL);
    assert_int_equal(tensor_n_rows(&t), 1);
    assert_int_equal(tensor_n_cols(&t), 7);
    t = tensor_2d(DTYPE_F32, 0, 7, NULL);
    assert_int_equal(tensor_n_elements(&t), 0);
}

static void new_tensors_are_packed_and_aligned(void **state) {
    (void)state;
    struct tensor t;
    assert_int_equal(tensor_new(arena, DTYPE_BF16, 4, (const int64_t[]){ 2, 3, 5, 7 }, &t, NULL), CYI_OK);
    assert_int_equal(t.rank, 4);
    assert_true(tensor_is_packed(&t));
    assert_int_equal((uintptr_t)t.data % MEM_ALIGN, 0);
    memset(t.data, 1, (size_t)2 * 3 * 5 * 7 * 2);
    assert_int_equal(tensor_new_2d(arena, DTYPE_F32, 0, 9, &t, NULL), CYI_OK);
    assert_non_null(t.data);
}

static void new_tensors_refuse_sizes_that_overflow(void **state) {
    (void)state;
    struct tensor t = { .rank = 42 };
    struct cyi_error err = { 0 };
    assert_int_equal(tensor_new_2d(arena, DTYPE_F32, INT64_MAX, 3, &t, &err), CYI_E_SHAPE);
    assert_string_equal(err.text, "a tensor's size overflows in dimension 1 (3)");
    assert_int_equal(t.rank, 42);
    assert_int_equal(tensor_new_2d(arena, DTYPE_F32, -1, 3, &t, NULL), CYI_E_SHAPE);
    err = (struct cyi_error){ 0 };
    assert_int_equal(tensor_new_2d(arena, DTYPE_I64, INT64_MAX, 1, &t, &err), CYI_E_MEMORY);
    assert_non_null(strstr(err.text, "out of memory"));
}

static void row_views_keep_the_stride(void **state) {
    (void)state;
    float numbers[6 * 4];
    for (int i = 0; i < 24; i++) {
        numbers[i] = (float)i;
    }
    struct tensor t = tensor_3d(DTYPE_F32, 2, 3, 4, numbers);
    struct tensor rows = tensor_rows(&t, 2, 3);
    assert_int_equal(rows.rank, 2);
    assert_int_equal(tensor_n_rows(&rows), 3);
    assert_true(tensor_get(&rows, 0, 0) == 8.0F && tensor_get(&rows, 2, 3) == 19.0F);
    assert_true(tensor_is_packed(&rows));
    struct tensor none = tensor_rows(&t, 6, 0);
    assert_int_equal(tensor_n_rows(&none), 0);
}

static void column_views_are_tensors_with_gaps(void **state) {
    (void)state;
    uint16_t numbers[3 * 8];
    for (int i = 0; i < 24; i++) {
        numbers[i] = float_to_bf16((float)i);
    }
    struct tensor t = tensor_2d(DTYPE_BF16, 3, 8, numbers);
    struct tensor cols = tensor_cols(&t, 3, 4);
    assert_int_equal(tensor_n_rows(&cols), 3);
    assert_int_equal(tensor_n_cols(&cols), 4);
    assert_false(tensor_is_packed(&cols));
    assert_true(tensor_get(&cols, 0, 0) == 3.0F && tensor_get(&cols, 2, 3) == 22.0F);
    struct tensor corner = tensor_rows(&cols, 1, 2);
    corner = tensor_cols(&corner, 1, 2);
    assert_true(tensor_get(&corner, 0, 0) == 12.0F && tensor_get(&corner, 1, 1) == 21.0F);
    assert_ptr_equal(tensor_row(&corner, 1), numbers + 20);
    struct tensor row = tensor_rows(&cols, 1, 1);
    assert_true(tensor_is_packed(&row)); /* one row has no gaps */
}

static void packed_tensors_reshape(void **state) {
    (void)state;
    float numbers[24] = { 0 };
    struct tensor t = tensor_3d(DTYPE_F32, 2, 3, 4, numbers);
    struct tensor flat = tensor_reshape_2d(&t, 4, 6);
    assert_int_equal(tensor_n_rows(&flat), 4);
    assert_int_equal(flat.row_stride, 6);
    assert_ptr_equal(flat.data, numbers);
}

static void descriptions_fit_any_space(void **state) {
    (void)state;
    struct tensor t = tensor_3d(DTYPE_BF16, 512, 7680, 3, NULL);
    char text[64];
    assert_string_equal(tensor_describe(&t, text, sizeof text), "[512, 7680, 3] BF16");
    for (size_t size = 1; size < 20; size++) {
        char *exact = malloc(size); /* so that the sanitizer sees one byte too many */
        assert_non_null(exact);
        (void)tensor_describe(&t, exact, size);
        assert_int_equal(strncmp(exact, "[512, 7680, 3] BF16", strlen(exact)), 0);
        free(exact);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_count_rows_columns_and_elements),
        cmocka_unit_test(new_tensors_are_packed_and_aligned),
        cmocka_unit_test(new_tensors_refuse_sizes_that_overflow),
        cmocka_unit_test(row_views_keep_the_stride),
        cmocka_unit_test(column_views_are_tensors_with_gaps),
        cmocka_unit_test(packed_tensors_reshape),
        cmocka_unit_test(descriptions_fit_any_space),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
