/* Probabilities of rows of scores, one block a row. */
#include "backend/cuda/kernels/access.cuh"

enum { THREADS = 256 };

template <typename P> __global__ void softmax_rows(struct gpu_softmax s) {
    __shared__ float shared[WARP];
    constexpr bool IS_EXACT = is_float<P>::value;
    const float *scores = s.scores + (int64_t)blockIdx.x * s.n_cols;
    P *p = static_cast<P *>(s.p) + (int64_t)blockIdx.x * s.n_cols;
    int64_t query = s.first_row + (int64_t)blockIdx.x % s.n_rows;
    int64_t n_seen = s.is_causal ? min(s.n_keys, query + 1) : s.n_keys;
    float largest = -INFINITY;
    for (int64_t i = threadIdx.x; i < n_seen; i += THREADS) {
        largest = fmaxf(largest, scores[i]);
    }
    largest = block_max(largest, shared);
    float offset = -s.scale * largest;
    float sum = 0.0F;
    for (int64_t i = threadIdx.x; i < n_seen; i += THREADS) {
        float x = scores[i] * s.scale + offset;
        sum += IS_EXACT ? expf(x) : __expf(x);
    }
    float factor = 1.0F / block_sum(sum, shared);
    for (int64_t i = threadIdx.x; i < s.n_cols; i += THREADS) {
        float x = i < n_seen ? scores[i] * s.scale + offset : -INFINITY;
        p[i] = P((IS_EXACT ? expf(x) : __expf(x)) * factor);
    }
}

void gpu_softmax_rows(const struct gpu_softmax *softmax, cudaStream_t stream) {
    unsigned n_blocks = (unsigned)(softmax->n_matrices * softmax->n_rows);
    if (n_blocks == 0) {
        return;
    }
    with_act_type(softmax->p_type, [&](auto *tag) {
        using P = decltype(pointee(tag));
        GPU_LAUNCH(softmax_rows<P>, n_blocks, THREADS, 0, stream, *softmax);
    });
}
