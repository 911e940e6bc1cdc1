/* Rows as 8-bit codes, each by its own largest magnitude. */
#include "backend/cuda/kernels/access.cuh"

template <typename X, bool IS_FAST>
__global__ void __launch_bounds__(MAX_THREADS)
    quantise_rows(const X *x, int64_t stride, int n_cols, struct gpu_codes codes) {
    __shared__ float shared[WARP];
    const X *row = x + (int64_t)blockIdx.x * stride;
    float v[LANES];
    float largest = 0.0F;
    for (int at = (int)threadIdx.x * LANES; at < n_cols; at += (int)blockDim.x * LANES) {
        load8<IS_FAST>(row + at, n_cols - at, v);
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            largest = fmaxf(largest, fabsf(v[i]));
        }
    }
    bool is_fp8 = codes.type == GPU_F8_E4M3;
    float factor = set_scale(codes, blockIdx.x, block_max(largest, shared));
    unsigned char *to = static_cast<unsigned char *>(codes.data) + (int64_t)blockIdx.x * n_cols;
    for (int at = (int)threadIdx.x * LANES; at < n_cols; at += (int)blockDim.x * LANES) {
        load8<IS_FAST>(row + at, n_cols - at, v); /* from a cache: the block has just read it */
        store_codes(to + at, v, factor, is_fp8);
    }
}

void gpu_quantise_rows(const struct gpu_matrix *x, const struct gpu_codes *codes, cudaStream_t stream) {
    if (x->n_rows == 0) {
        return;
    }
    unsigned n_threads = threads_for_row(x->n_cols / LANES / 2 + 1);
    with_act_type(x->type, [&](auto *x_type) {
        with_flag(is_fast_matrix(x), [&](auto fast) {
            using X = decltype(pointee(x_type));
            GPU_LAUNCH((quantise_rows<X, decltype(fast)::value>), (unsigned)x->n_rows, n_threads, 0, stream,
                       static_cast<const X *>(x->data), x->row_stride, (int)x->n_cols, *codes);
        });
    });
}
