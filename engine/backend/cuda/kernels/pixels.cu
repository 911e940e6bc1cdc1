/* What a VAE needs beside products: statistics of group norms, inputs of convolutions, the order of their weights. */
#include "backend/cuda/kernels/access.cuh"

/* ---- Group norm ---- */

static constexpr int THREADS = 256;
static constexpr int MAX_CHUNKS = 512;
static constexpr int PIXELS_A_THREAD = 8;
static constexpr int MAX_VECTORS = 32; /* of channels, in a block */

/* How a picture is cut for its statistics: blocks of vectors of channels, each over chunks of pixels. */
struct cut {
    int n_vectors, block_vectors, block_pixels; /* pixels that a block reads at one time */
    int n_chunks;
    int64_t chunk_pixels;
};

static struct cut cut_of(int64_t n_pixels, int64_t n_channels) {
    struct cut c = {};
    c.n_vectors = (int)((n_channels + LANES - 1) / LANES);
    c.block_vectors = c.n_vectors < MAX_VECTORS ? c.n_vectors : MAX_VECTORS;
    c.block_pixels = THREADS / c.block_vectors;
    int64_t n = n_pixels / ((int64_t)c.block_pixels * PIXELS_A_THREAD);
    c.n_chunks = (int)(n < 1 ? 1 : n > MAX_CHUNKS ? MAX_CHUNKS : n);
    c.chunk_pixels = (n_pixels + c.n_chunks - 1) / c.n_chunks;
    return c;
}

size_t gpu_group_norm_scratch(int64_t n_pixels, int64_t n_channels) {
    return (size_t)cut_of(n_pixels, n_channels).n_chunks * (size_t)n_channels * 2 * sizeof(float);
}

/* Sums and sums of squares of each channel's distance from its first pixel, a chunk at a time: [chunk, channel, 2]. The distance keeps
 * squares small where a channel is far from zero. */
template <typename X, bool IS_FAST>
__global__ void sum_channels(const X *x, int64_t n_pixels, int n_channels, struct cut c, float *partial) {
    __shared__ float shared[THREADS][2 * LANES];
    int lane = (int)threadIdx.x % c.block_vectors;
    int line = (int)threadIdx.x / c.block_vectors;
    int vector = (int)blockIdx.y * c.block_vectors + lane;
    bool is_there = vector < c.n_vectors && line < c.block_pixels;
    int at = vector * LANES;
    float pivot[LANES], v[LANES], sum[LANES] = {}, squares[LANES] = {};
    if (is_there) {
        load8<IS_FAST>(x + at, n_channels - at, pivot);
        int64_t end = min((int64_t)(blockIdx.x + 1) * c.chunk_pixels, n_pixels);
#pragma unroll 4
        for (int64_t p = (int64_t)blockIdx.x * c.chunk_pixels + line; p < end; p += c.block_pixels) {
            load8<IS_FAST>(x + p * n_channels + at, n_channels - at, v);
#pragma unroll
            for (int i = 0; i < LANES; i++) {
                float d = v[i] - pivot[i];
                sum[i] += d;
                squares[i] += d * d;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < LANES; i++) {
        shared[threadIdx.x][2 * i] = sum[i];
        shared[threadIdx.x][2 * i + 1] = squares[i];
    }
    __syncthreads();
    /* One thread adds up one number of one channel, lines in order. */
    for (int i = (int)threadIdx.x; i < c.block_vectors * 2 * LANES; i += THREADS) {
        int channel = ((int)blockIdx.y * c.block_vectors + i / (2 * LANES)) * LANES + i % (2 * LANES) / 2;
        float total = 0.0F;
        for (int l = 0; l < c.block_pixels; l++) {
            total += shared[l * c.block_vectors + i / (2 * LANES)][i % (2 * LANES)];
        }
        if (channel < n_channels) {
            partial[((int64_t)blockIdx.x * n_channels + channel) * 2 + i % 2] = total;
        }
    }
}

__device__ __forceinline__ double block_sum_double(double x, double *shared) {
    shared[threadIdx.x] = x;
    __syncthreads();
    for (int d = THREADS / 2; d > 0; d /= 2) {
        if ((int)threadIdx.x < d) {
            shared[threadIdx.x] += shared[threadIdx.x + d];
        }
        __syncthreads();
    }
    x = shared[0];
    __syncthreads();
    return x;
}

struct group_arguments {
    const float *partial, *weight, *bias;
    float *scale, *shift;
    int64_t n_pixels;
    int n_chunks, n_channels, group_channels;
    float eps;
};

/* One block a group. Distances of channels from their pivots become distances from the pivot of the group's first channel. */
template <typename X> __global__ void fold_groups(const X *x, group_arguments a) {
    __shared__ double shared[THREADS];
    int first = (int)blockIdx.x * a.group_channels;
    double pivot = (double)(float)x[first];
    double n = (double)a.n_pixels;
    double sum = 0.0;
    double squares = 0.0;
    for (int i = (int)threadIdx.x; i < a.n_chunks * a.group_channels; i += THREADS) {
        int channel = first + i % a.group_channels;
        int chunk = i / a.group_channels;
        const float *p = a.partial + ((int64_t)chunk * a.n_channels + channel) * 2;
        int64_t chunk_pixels = (a.n_pixels + a.n_chunks - 1) / a.n_chunks;
        double count = (double)max((int64_t)0, min(chunk_pixels, a.n_pixels - chunk * chunk_pixels));
        double d = (double)(float)x[channel] - pivot;
        sum += (double)p[0] + count * d;
        squares += (double)p[1] + 2.0 * d * (double)p[0] + count * d * d;
    }
    n *= (double)a.group_channels;
    sum = block_sum_double(sum, shared) / n;
    squares = block_sum_double(squares, shared) / n;
    double variance = squares - sum * sum;
    double rstd = 1.0 / sqrt((variance > 0.0 ? variance : 0.0) + (double)a.eps);
    double mean = pivot + sum;
    for (int i = (int)threadIdx.x; i < a.group_channels; i += THREADS) {
        double factor = rstd * (double)a.weight[first + i];
        a.scale[first + i] = (float)factor;
        a.shift[first + i] = (float)((double)a.bias[first + i] - mean * factor);
    }
}

void gpu_group_norm(const struct gpu_matrix *x, const float *weight, const float *bias, int64_t n_groups, float eps,
                    float *scale, float *shift, void *partial, cudaStream_t stream) {
    struct cut c = cut_of(x->n_rows, x->n_cols);
    group_arguments a = {};
    a.partial = static_cast<const float *>(partial);
    a.weight = weight;
    a.bias = bias;
    a.scale = scale;
    a.shift = shift;
    a.n_pixels = x->n_rows;
    a.n_chunks = c.n_chunks;
    a.n_channels = (int)x->n_cols;
    a.group_channels = (int)(x->n_cols / n_groups);
    a.eps = eps;
    dim3 grid((unsigned)c.n_chunks, (unsigned)((c.n_vectors + c.block_vectors - 1) / c.block_vectors));
    with_act_type(x->type, [&](auto *x_type) {
        using X = decltype(pointee(x_type));
        const X *data = static_cast<const X *>(x->data);
        with_flag(is_fast_matrix(x), [&](auto fast) {
            GPU_LAUNCH((sum_channels<X, decltype(fast)::value>), grid, THREADS, 0, stream, data, x->n_rows,
                       (int)x->n_cols, c, static_cast<float *>(partial));
        });
        GPU_LAUNCH(fold_groups<X>, (unsigned)n_groups, THREADS, 0, stream, data, a);
    });
}

/* ---- Inputs of convolutions ---- */

template <typename X, typename Y, bool IS_FAST>
__global__ void gather_pixels(struct gpu_gather g, int y_cols, int n_vectors) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= y_cols * n_vectors) {
        return;
    }
    int at = i % n_vectors * LANES;
    int col = i / n_vectors - g.pad_left;
    int row = (int)blockIdx.y - g.pad_top;
    int n = (int)g.n_channels - at;
    float v[LANES] = {};
    bool is_inside = col >= 0 && row >= 0 && col < g.upsample * (int)g.n_cols && row < g.upsample * (int)g.n_rows;
    if (is_inside && n > 0) {
        if (g.upsample == 2) {
            col /= 2;
            row /= 2;
        }
        load8<IS_FAST>(static_cast<const X *>(g.x) + ((int64_t)row * g.n_cols + col) * g.n_channels + at, n, v);
        if (g.scale != nullptr) {
            float factor[LANES], summand[LANES];
            load8_or(g.scale, at, n, 0.0F, factor);
            load8_or(g.shift, at, n, 0.0F, summand);
#pragma unroll
            for (int j = 0; j < LANES; j++) {
                v[j] = v[j] * factor[j] + summand[j];
            }
            activate8<is_float<Y>::value>((int)g.act, v); /* of 0 it is 0, for the channels that are not there */
        }
    }
    Y *y = static_cast<Y *>(g.y) + ((int64_t)blockIdx.y * y_cols + i / n_vectors) * g.y_channels + at;
    store8<IS_FAST>(y, (int)g.y_channels - at, v);
}

void gpu_gather_pixels(const struct gpu_gather *g, cudaStream_t stream) {
    int64_t y_rows = g->upsample * g->n_rows + g->pad_top + g->pad_bottom;
    int64_t y_cols = g->upsample * g->n_cols + g->pad_left + g->pad_right;
    int64_t n_vectors = (g->y_channels + LANES - 1) / LANES;
    bool is_fast = g->n_channels % LANES == 0 && g->y_channels == g->n_channels && (uintptr_t)g->x % 16 == 0 &&
                   (uintptr_t)g->y % 16 == 0;
    dim3 grid((unsigned)((y_cols * n_vectors + THREADS - 1) / THREADS), (unsigned)y_rows);
    with_act_type(g->x_type, [&](auto *x_type) {
        with_act_type(g->y_type, [&](auto *y_type) {
            with_flag(is_fast, [&](auto fast) {
                using X = decltype(pointee(x_type));
                using Y = decltype(pointee(y_type));
                GPU_LAUNCH((gather_pixels<X, Y, decltype(fast)::value>), grid, THREADS, 0, stream, *g, (int)y_cols,
                           (int)n_vectors);
            });
        });
    });
}

/* ---- Weights of convolutions ---- */

struct filter_sizes {
    int64_t n_out, n_in, n_taps, i_channels;
};

__device__ __forceinline__ float element(const void *p, int type, int64_t i) {
    switch (type) {
    case GPU_F32:
        return static_cast<const float *>(p)[i];
    case GPU_BF16:
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[i]);
    case GPU_F16:
        return __half2float(static_cast<const __half *>(p)[i]);
    default:
        return __half2float(__half(__nv_cvt_fp8_to_halfraw(static_cast<const unsigned char *>(p)[i],
                                                           type == GPU_F8_E4M3 ? __NV_E4M3 : __NV_E5M2)));
    }
}

template <typename Y> __global__ void reorder_filter(const void *weight, int type, filter_sizes s, Y *y) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= s.n_out * s.n_taps * s.i_channels) {
        return;
    }
    int64_t in = i % s.i_channels;
    int64_t tap = i / s.i_channels % s.n_taps;
    int64_t out = i / s.i_channels / s.n_taps;
    y[i] = Y(in < s.n_in ? element(weight, type, (out * s.n_in + in) * s.n_taps + tap) : 0.0F);
}

void gpu_reorder_filter(const void *weight, enum gpu_type type, int64_t n_out, int64_t n_in, int64_t kh, int64_t kw,
                        int64_t i_channels, void *y, enum gpu_type y_type, cudaStream_t stream) {
    filter_sizes s{ n_out, n_in, kh * kw, i_channels };
    unsigned n_blocks = (unsigned)((n_out * kh * kw * i_channels + THREADS - 1) / THREADS);
    with_act_type(y_type, [&](auto *tag) {
        using Y = decltype(pointee(tag));
        GPU_LAUNCH(reorder_filter<Y>, n_blocks, THREADS, 0, stream, weight, (int)type, s, static_cast<Y *>(y));
    });
}
