/* CONV2D on every backend against a convolution written out here: the picture is enlarged and padded first, then convolved. */
#include <math.h>

#include "ops_test.h"

struct shape {
    int64_t y, x, c, o, kh, kw;
    int upsample, stride;
    int pad_top, pad_left, pad_bottom, pad_right;
};

static const struct shape shapes[] = {
    { 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0 },
    { 5, 7, 3, 2, 1, 1, 1, 1, 0, 0, 0, 0 },
    { 5, 7, 3, 11, 3, 3, 1, 1, 1, 1, 1, 1 },
    { 8, 6, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1 },
    { 9, 11, 17, 13, 3, 3, 1, 2, 0, 0, 1, 1 }, /* as the VAE encoder goes down: an odd picture */
    { 8, 10, 16, 32, 3, 3, 1, 2, 0, 0, 1, 1 }, /* and an even one */
    { 5, 3, 7, 5, 3, 3, 2, 1, 1, 1, 1, 1 },    /* as the decoder goes up */
    { 6, 9, 32, 16, 3, 3, 2, 1, 1, 1, 1, 1 },
    { 6, 5, 4, 6, 3, 3, 2, 2, 1, 0, 2, 1 }, /* everything at once, no two pads alike */
    { 4, 9, 5, 3, 3, 1, 1, 1, 0, 0, 0, 0 }, /* kernels that are not square */
    { 4, 9, 5, 3, 1, 5, 1, 1, 0, 2, 0, 1 },
    { 3, 3, 8, 8, 3, 3, 1, 1, 0, 0, 0, 0 }, /* one output */
    { 1, 40, 2, 4, 3, 3, 1, 1, 1, 1, 1, 1 },
    { 7, 7, 6, 4, 2, 2, 1, 2, 0, 0, 0, 0 },
    { 31, 29, 24, 40, 3, 3, 1, 1, 1, 1, 1, 1 },
    { 33, 20, 16, 3, 3, 3, 1, 1, 1, 1, 1, 1 }, /* the last convolution of a decoder */
    { 12, 12, 64, 96, 3, 3, 1, 1, 1, 1, 1, 1 },
    { 20, 150, 3, 5, 3, 3, 1, 1, 1, 1, 1, 1 }, /* wider than any tile */
    { 37, 75, 4, 6, 3, 3, 2, 1, 1, 1, 1, 1 },
    { 75, 141, 4, 5, 3, 3, 1, 2, 0, 0, 1, 1 },
    { 9, 70, 8, 8, 3, 3, 2, 2, 1, 0, 2, 1 },
    { 3, 4, 6, 300, 3, 3, 1, 1, 1, 1, 1, 1 },  /* more outputs than any chunk */
    { 3, 3, 1100, 5, 3, 3, 1, 1, 1, 1, 1, 1 }, /* more channels than any block */
};
#define N_SHAPES (sizeof shapes / sizeof shapes[0])

/* The picture after the affine part, the activation, the enlargement and the padding: [rows, cols, C]. */
static double *expect_input(struct ops_test *t, const struct conv2d_args *a, int64_t rows, int64_t cols) {
    int64_t c = a->x->shape[2];
    double *picture = ops_doubles(t, rows * cols * c);
    for (int64_t i = 0; i < rows * cols * c; i++) {
        picture[i] = 0.0;
    }
    for (int64_t y = 0; y < a->x->shape[0] * a->upsample; y++) {
        for (int64_t x = 0; x < a->x->shape[1] * a->upsample; x++) {
            for (int64_t i = 0; i < c; i++) {
                double value = ops_get(a->x, y / a->upsample * a->x->shape[1] + x / a->upsample, i, 0.0);
                if (a->scale != NULL) {
                    value =
                        ops_activate(a->in_act, value * ops_get(a->scale, 0, i, 0.0) + ops_get(a->shift, 0, i, 0.0));
                }
                picture[((y + a->pad_top) * cols + x + a->pad_left) * c + i] = value;
            }
        }
    }
    return picture;
}

static double *expect_conv2d(struct ops_test *t, const struct conv2d_args *a) {
    int64_t c = a->x->shape[2];
    int64_t kh = a->weight->shape[2];
    int64_t kw = a->weight->shape[3];
    int64_t n_out = a->y->shape[2];
    int64_t cols = a->x->shape[1] * a->upsample + a->pad_left + a->pad_right;
    const double *in = expect_input(t, a, a->x->shape[0] * a->upsample + a->pad_top + a->pad_bottom, cols);
    double *expected = ops_doubles(t, tensor_n_elements(a->y));
    for (int64_t i = 0; i < tensor_n_elements(a->y); i++) {
        int64_t o = i % n_out;
        int64_t x = i / n_out % a->y->shape[1];
        int64_t y = i / n_out / a->y->shape[1];
        double sum = ops_get(a->bias, 0, o, 0.0) + ops_get(a->residual, i / n_out, o, 0.0);
        for (int64_t tap = 0; tap < c * kh * kw; tap++) {
            int64_t from = ((y * a->stride + tap / kw % kh) * cols + x * a->stride + tap % kw) * c + tap / kw / kh;
            sum += in[from] * (double)dtype_load(a->weight->dtype, a->weight->data, o * c * kh * kw + tap);
        }
        expected[i] = sum;
    }
    return expected;
}

struct options {
    bool has_affine, has_bias;
    enum { NO_RESIDUAL, RESIDUAL, RESIDUAL_IN_PLACE } residual;
    enum activation act;
    enum dtype x_dtype, weight_dtype, y_dtype;
    enum layout weight_layout;
};

static void check_conv2d(struct ops_test *t, const struct shape *p, const struct options *o) {
    int64_t y_shape[3] = {
        (p->y * p->upsample + p->pad_top + p->pad_bottom - p->kh) / p->stride + 1,
        (p->x * p->upsample + p->pad_left + p->pad_right - p->kw) / p->stride + 1,
        p->o,
    };
    struct tensor x = ops_tensor(t, "x", o->x_dtype, 3, (const int64_t[]){ p->y, p->x, p->c }, PACKED);
    struct tensor weight =
        ops_tensor(t, "weight", o->weight_dtype, 4, (const int64_t[]){ p->o, p->c, p->kh, p->kw }, o->weight_layout);
    struct tensor y = ops_tensor(t, "y", o->y_dtype, 3, y_shape, PACKED);
    struct tensor residual = ops_tensor(t, "residual", o->y_dtype, 3, y_shape, PACKED);
    struct tensor scale = ops_vector(t, "scale", DTYPE_F32, p->c);
    struct tensor shift = ops_vector(t, "shift", DTYPE_F32, p->c);
    struct tensor bias = ops_vector(t, "bias", ops_weight_dtypes[ops_random(t) % 5], p->o);
    struct conv2d_args args = {
        .x = &x,
        .scale = o->has_affine ? &scale : NULL,
        .shift = o->has_affine ? &shift : NULL,
        .weight = &weight,
        .bias = o->has_bias ? &bias : NULL,
        .residual = o->residual == RESIDUAL            ? &residual
                    : o->residual == RESIDUAL_IN_PLACE ? &y
                                                       : NULL,
        .in_act = o->act,
        .upsample = p->upsample,
        .stride = p->stride,
        .pad_top = p->pad_top,
        .pad_left = p->pad_left,
        .pad_bottom = p->pad_bottom,
        .pad_right = p->pad_right,
        .y = &y,
    };
    ops_check_one(t, OP_CONV2D, &args, &y, expect_conv2d(t, &args));
}

static void conv2d_takes_all_shapes_in_both_types(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < N_SHAPES * 4; i++) {
        ops_clear(t, i);
        check_conv2d(t, &shapes[i / 4],
                     &(struct options){
                         .has_bias = true,
                         .has_affine = i / 2 % 2 == 1,
                         .act = ACT_SILU,
                         .x_dtype = ops_act_dtypes[i % 2],
                         .weight_dtype = DTYPE_BF16,
                         .y_dtype = ops_act_dtypes[i % 2],
                     });
    }
}

static void conv2d_takes_all_types_of_weights(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < 40; i++) {
        ops_clear(t, 1000 + i);
        check_conv2d(t, &shapes[i % 2 == 0 ? 4 : 6],
                     &(struct options){
                         .x_dtype = ops_act_dtypes[i / 2 % 2],
                         .weight_dtype = ops_weight_dtypes[i / 4 % 5],
                         .y_dtype = ops_act_dtypes[i / 20],
                         .weight_layout = UNALIGNED,
                     });
    }
}

static void conv2d_takes_all_options(void **state) {
    struct ops_test *t = ops_begin(state);
    for (uint64_t i = 0; i < 72; i++) {
        ops_clear(t, 2000 + i);
        check_conv2d(t, &shapes[ops_random(t) % N_SHAPES],
                     &(struct options){
                         .has_affine = i % 2 == 1,
                         .has_bias = i / 2 % 2 == 1,
                         .residual = i / 4 % 3,
                         .act = i / 12 % 3,
                         .x_dtype = ops_act_dtypes[i / 36],
                         .weight_dtype = ops_weight_dtypes[ops_random(t) % 5],
                         .y_dtype = ops_act_dtypes[ops_random(t) % 2],
                     });
    }
}

/* A backend may keep weights in another layout, but must notice any number that changes. The numbers are bf16 in F32, as in files of
 * converted models: half of the bytes are zero. */
static void conv2d_sees_every_new_number_in_a_weight_that_stays_where_it_is(void **state) {
    struct ops_test *t = ops_begin(state);
    struct backend_options options = { .allocator = &mem_default_allocator, .n_threads = 1 };
    struct exec ex = { .arena = t->arena, .allocator = &mem_default_allocator };
    assert_int_equal(t->kind->create(&options, &ex.backend, NULL), CYI_OK);
    ops_clear(t, 3000);
    struct tensor x = ops_tensor(t, "x", DTYPE_F32, 3, (const int64_t[]){ 3, 3, 16 }, PACKED);
    struct tensor weight = ops_tensor(t, "weight", DTYPE_F32, 4, (const int64_t[]){ 16, 16, 3, 3 }, PACKED);
    struct tensor y = ops_tensor(t, "y", DTYPE_F32, 3, (const int64_t[]){ 1, 1, 16 }, PACKED);
    float *numbers = weight.data;
    for (int i = 0; i < 16 * 16 * 9; i++) {
        numbers[i] = float_from_bf16(float_to_bf16(numbers[i]));
    }
    struct conv2d_args args = { .x = &x, .weight = &weight, .upsample = 1, .stride = 1, .y = &y };
    for (int round = 0; round < 300; round++) {
        numbers[ops_random(t) % (16 * 16 * 9)] += 1.0F;
        assert_int_equal(op_conv2d(&ex, &args, NULL), CYI_OK);
        const double *expected = expect_conv2d(t, &args);
        for (int64_t o = 0; o < 16; o++) {
            if (!(fabs(ops_get(&y, 0, o, 0.0) - expected[o]) < 1e-3)) {
                fail_msg("old weights in round %d", round);
            }
        }
    }
    backend_free(ex.backend);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OPS_TEST(conv2d_takes_all_shapes_in_both_types),
        OPS_TEST(conv2d_takes_all_types_of_weights),
        OPS_TEST(conv2d_takes_all_options),
        OPS_TEST_HOST(conv2d_sees_every_new_number_in_a_weight_that_stays_where_it_is),
    };
    return ops_run_tests(tests);
}
