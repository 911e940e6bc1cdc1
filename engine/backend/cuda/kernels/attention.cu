/* Fused attention: softmax(scale · q kᵀ) v without ever holding the scores in memory.
 *
 * A block of four warps takes ROWS rows of one head of q into shared memory and walks over the keys in steps of KEYS:
 * scores on the tensor cores, exp2 in registers against a running maximum, probabilities rounded to BF16 times the
 * values on the tensor cores again. When the maximum of a row grows, what was summed so far is scaled down. Sums are
 * fp32. Keys and values arrive by asynchronous copies, one step ahead (STAGES 2), or each while the other is used
 * (STAGES 1).
 *
 * A warp owns ROWS / 4 rows alone, so that the softmax needs no shared memory. With 32 rows a warp each load of keys or
 * values feeds two products; with 16 rows shared memory would be the bottleneck on compute capability 9.0.
 * Shared memory holds rows of 16-byte chunks, chunk c of row r at place c ^ (r % 8): the eight rows that ldmatrix reads
 * at once then lie in different banks.
 * Source of the method: Dao 2023, "FlashAttention-2". */
#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/tensor_core.cuh"

#include <limits.h>
#include <math.h>

enum { WARP_SIZE = 32, N_WARPS = 4, N_THREADS = N_WARPS * WARP_SIZE, CHUNK_SIZE = 8 /* elements */, CHUNK_BYTES = 16 };

struct attention_work {
    const __nv_bfloat16 *q, *k, *v;
    __nv_bfloat16 *out;
    int64_t q_stride, k_stride, v_stride, out_stride;
    int n_rows, n_keys;
    int n_sharing; /* heads of q a head of k and v */
    bool is_causal;
    float scale; /* of scores in powers of two: scale · log2(e) */
};

/* Sizes of a tile that follow from its template arguments. */
template <int WIDTH, int ROWS, int KEYS, int STAGES> struct tile {
    static constexpr int ROW_BYTES = WIDTH * 2;
    static constexpr int Q_BYTES = ROWS * ROW_BYTES;
    static constexpr int KEYS_BYTES = KEYS * ROW_BYTES;
    static constexpr int SHARED_BYTES = Q_BYTES + 2 * STAGES * KEYS_BYTES;
    static constexpr int WARP_ROWS = ROWS / N_WARPS;
    static constexpr int N_BANDS = WARP_ROWS / 16; /* of 16 rows, the height of a product */
};

/* Registers of a thread: row g = lane / 4 of a band, and row g + 8; columns 2 · (lane % 4) and the next of each 8. */
template <int N_BANDS, int N_COLS> struct fragment {
    float part[N_BANDS][N_COLS / 8][4]; /* the last: row g, row g, row g + 8, row g + 8 */
};
template <int N_BANDS> struct row_values { float part[N_BANDS][2]; };

/* Starts copies of N rows from `first` on, rows from n_valid on are zeros. */
template <int WIDTH, int N>
__device__ __forceinline__ void copy_rows(async_copies &copies, shared_address to, const __nv_bfloat16 *matrix,
                                          int64_t stride, int first, int n_valid) {
    constexpr int N_CHUNKS = WIDTH / CHUNK_SIZE;
    constexpr int N_AT_ONCE = N_THREADS / N_CHUNKS; /* a multiple of 8: a thread's rows all have the same row % 8 */
    int chunk = threadIdx.x % N_CHUNKS;
    int row = threadIdx.x / N_CHUNKS;
    int n_left = n_valid - first - row;
    const __nv_bfloat16 *from = matrix + (first + row) * stride + chunk * CHUNK_SIZE;
    to += row * (WIDTH * 2) + (chunk ^ (row % 8)) * CHUNK_BYTES;
#pragma unroll
    for (int i = 0; i < N / N_AT_ONCE; i++) {
        copies.copy(to + i * N_AT_ONCE * (WIDTH * 2), from, i * N_AT_ONCE < n_left);
        from += N_AT_ONCE * stride;
    }
}

/* Where a lane finds its row of a product's operand: chunk column 2 · i + second of row `row`. Of the chunk's number
 * the lowest three bits are swizzled, the others move the address by whole groups of eight chunks. */
__device__ __forceinline__ shared_address find_chunk(shared_address rows, int i) {
    return (rows ^ ((i % 4) * 2 * CHUNK_BYTES)) + (i / 4) * 8 * CHUNK_BYTES;
}
__device__ __forceinline__ shared_address find_row(shared_address matrix, int row_bytes, int row, int second) {
    return matrix + row * row_bytes + (second ^ (row % 8)) * CHUNK_BYTES;
}

/* scores = q kᵀ of the warp's rows. */
template <int WIDTH, int KEYS, int N_BANDS>
__device__ __forceinline__ void multiply_keys(fragment<N_BANDS, KEYS> &scores, shared_address q, shared_address k) {
    int lane = threadIdx.x % WARP_SIZE;
    shared_address q_rows = find_row(q, WIDTH * 2, lane % 16, lane / 16);
    shared_address k_rows = find_row(k, WIDTH * 2, lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (int b = 0; b < N_BANDS; b++) {
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                scores.part[b][n][i] = 0.0f;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < WIDTH / 16; i++) {
        uint32_t a[N_BANDS][4];
#pragma unroll
        for (int b = 0; b < N_BANDS; b++) {
            load_matrices(a[b], find_chunk(q_rows, i) + b * 16 * (WIDTH * 2));
        }
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            uint32_t keys[4];
            load_matrices(keys, find_chunk(k_rows, i) + n * 16 * (WIDTH * 2));
#pragma unroll
            for (int b = 0; b < N_BANDS; b++) {
                multiply_add(scores.part[b][2 * n], a[b], keys[0], keys[1]);
                multiply_add(scores.part[b][2 * n + 1], a[b], keys[2], keys[3]);
            }
        }
    }
}

/* sums += p v. p: the probabilities as first operands, [KEYS / 16]. */
template <int WIDTH, int KEYS, int N_BANDS>
__device__ __forceinline__ void multiply_values(fragment<N_BANDS, WIDTH> &sums,
                                                const uint32_t (&p)[N_BANDS][KEYS / 16][4], shared_address v) {
    int lane = threadIdx.x % WARP_SIZE;
    shared_address v_rows = find_row(v, WIDTH * 2, lane % 16, lane / 16);
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) {
#pragma unroll
        for (int n = 0; n < WIDTH / 16; n++) {
            uint32_t values[4];
            load_matrices_transposed(values, find_chunk(v_rows, n) + i * 16 * (WIDTH * 2));
#pragma unroll
            for (int b = 0; b < N_BANDS; b++) {
                multiply_add(sums.part[b][2 * n], p[b][i], values[0], values[1]);
                multiply_add(sums.part[b][2 * n + 1], p[b][i], values[2], values[3]);
            }
        }
    }
}

/* Keys from n_keys on, and beyond the row when causal, get the score -inf. first_row, first_key: of the warp and of
 * this step. */
template <int KEYS, int N_BANDS>
__device__ __forceinline__ void mask_keys(fragment<N_BANDS, KEYS> &scores, const attention_work &work, int first_row,
                                          int first_key) {
    int lane = threadIdx.x % WARP_SIZE;
#pragma unroll
    for (int b = 0; b < N_BANDS; b++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = first_row + b * 16 + lane / 4 + i / 2 * 8;
            int n_seen = (work.is_causal ? min(work.n_keys, row + 1) : work.n_keys) - first_key - lane % 4 * 2 - i % 2;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
                if (n * 8 >= n_seen) {
                    scores.part[b][n][i] = -INFINITY;
                }
            }
        }
    }
}

/* The four lanes that share a row agree. */
__device__ __forceinline__ float max_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float sum_of_row(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* Scores become 2^(scale · (score - largest)); sums and totals follow a largest that has grown. Every row has seen a
 * finite score by the end of the first step, so largest is finite from then on. totals: of this thread's columns alone.
 * */
template <int WIDTH, int KEYS, int N_BANDS>
__device__ __forceinline__ void exponentiate(fragment<N_BANDS, KEYS> &scores, fragment<N_BANDS, WIDTH> &sums,
                                             row_values<N_BANDS> &largest, row_values<N_BANDS> &totals, float scale) {
#pragma unroll
    for (int b = 0; b < N_BANDS; b++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float before = largest.part[b][h];
            float now = before;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
                now = fmaxf(now, fmaxf(scores.part[b][n][2 * h], scores.part[b][n][2 * h + 1]));
            }
            now = max_of_row(now);
            largest.part[b][h] = now;
            float factor = fast_exp2((before - now) * scale);
            float offset = now * scale;
            float total = totals.part[b][h] * factor;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; i++) {
                    scores.part[b][n][i] = fast_exp2(fmaf(scores.part[b][n][i], scale, -offset));
                    total += scores.part[b][n][i];
                }
            }
            totals.part[b][h] = total;
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++) {
                sums.part[b][n][2 * h] *= factor;
                sums.part[b][n][2 * h + 1] *= factor;
            }
        }
    }
}

/* A product's result as the first operand of the next: columns of two neighbouring eights are the 16 of a step. */
template <int KEYS, int N_BANDS>
__device__ __forceinline__ void pack_probabilities(uint32_t (&p)[N_BANDS][KEYS / 16][4],
                                                   const fragment<N_BANDS, KEYS> &scores) {
#pragma unroll
    for (int b = 0; b < N_BANDS; b++) {
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *pair = &scores.part[b][2 * n + i / 2][i % 2 * 2];
                p[b][n][i] = pack_bf16(pair[0], pair[1]);
            }
        }
    }
}

/* The warp's rows of out, through its own rows of q's shared memory, so that 16 bytes at a time are written. */
template <int WIDTH, int N_BANDS>
__device__ __forceinline__ void store_rows(const fragment<N_BANDS, WIDTH> &sums, const row_values<N_BANDS> &totals,
                                           unsigned char *staging, __nv_bfloat16 *out, int64_t stride, int first_row,
                                           int n_rows) {
    constexpr int ROW_BYTES = WIDTH * 2;
    constexpr int N_CHUNKS = WIDTH / CHUNK_SIZE;
    int lane = threadIdx.x % WARP_SIZE;
#pragma unroll
    for (int b = 0; b < N_BANDS; b++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float factor = __fdividef(1.0f, sum_of_row(totals.part[b][h]));
            int row = b * 16 + lane / 4 + h * 8;
            unsigned char *to = staging + row * ROW_BYTES + lane % 4 * 4;
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++) {
                uint32_t pair = pack_bf16(sums.part[b][n][2 * h] * factor, sums.part[b][n][2 * h + 1] * factor);
                *reinterpret_cast<uint32_t *>(to + (n ^ (row % 8)) * CHUNK_BYTES) = pair;
            }
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < N_BANDS * 16 * N_CHUNKS / WARP_SIZE; i++) {
        int row = i * (WARP_SIZE / N_CHUNKS) + lane / N_CHUNKS;
        int chunk = lane % N_CHUNKS;
        if (first_row + row < n_rows) {
            const unsigned char *from = staging + row * ROW_BYTES + (chunk ^ (row % 8)) * CHUNK_BYTES;
            *reinterpret_cast<uint4 *>(out + (first_row + row) * stride + chunk * CHUNK_SIZE) =
                *reinterpret_cast<const uint4 *>(from);
        }
    }
}

/* grid: [tiles of rows, heads]. Tiles run from the last to the first: when causal, the longest start first. */
template <int WIDTH, int ROWS, int KEYS, int STAGES>
__global__ void __launch_bounds__(N_THREADS, 2) attention_kernel(attention_work work) {
    using sizes = tile<WIDTH, ROWS, KEYS, STAGES>;
    constexpr int N_BANDS = sizes::N_BANDS;
    GPU_SHARED(unsigned char, shared);
    shared_address shared_q = get_shared_address(shared);
    shared_address shared_k = shared_q + sizes::Q_BYTES;
    shared_address shared_v = shared_k + STAGES * sizes::KEYS_BYTES;
    int block_row = (int)(gridDim.x - 1 - blockIdx.x) * ROWS;
    int warp_row = (int)threadIdx.x / WARP_SIZE * sizes::WARP_ROWS; /* in the block */
    const __nv_bfloat16 *k = work.k + blockIdx.y / work.n_sharing * WIDTH;
    const __nv_bfloat16 *v = work.v + blockIdx.y / work.n_sharing * WIDTH;
    int n_keys = work.is_causal ? min(work.n_keys, block_row + ROWS) : work.n_keys;
    int n_steps = (n_keys + KEYS - 1) / KEYS;

    async_copies copies;
    copy_rows<WIDTH, ROWS>(copies, shared_q, work.q + blockIdx.y * WIDTH, work.q_stride, block_row, work.n_rows);
    copy_rows<WIDTH, KEYS>(copies, shared_k, k, work.k_stride, 0, work.n_keys);
    if (STAGES == 2) {
        copy_rows<WIDTH, KEYS>(copies, shared_v, v, work.v_stride, 0, work.n_keys);
    }
    copies.commit();

    fragment<N_BANDS, WIDTH> sums = {};
    row_values<N_BANDS> largest;
    row_values<N_BANDS> totals = {};
#pragma unroll
    for (int b = 0; b < N_BANDS; b++) {
        largest.part[b][0] = largest.part[b][1] = -INFINITY;
    }
    for (int step = 0; step < n_steps; step++) {
        int stage = step % STAGES * sizes::KEYS_BYTES;
        int next_stage = (step + 1) % STAGES * sizes::KEYS_BYTES;
        int next_key = (step + 1) * KEYS;
        copies.wait<0>();
        __syncthreads(); /* the keys are there, and every warp has used the values of the step before */
        if (STAGES == 1) {
            copy_rows<WIDTH, KEYS>(copies, shared_v, v, work.v_stride, step * KEYS, work.n_keys);
        } else if (step + 1 < n_steps) {
            copy_rows<WIDTH, KEYS>(copies, shared_k + next_stage, k, work.k_stride, next_key, work.n_keys);
            copy_rows<WIDTH, KEYS>(copies, shared_v + next_stage, v, work.v_stride, next_key, work.n_keys);
        }
        copies.commit();

        fragment<N_BANDS, KEYS> scores;
        multiply_keys<WIDTH, KEYS, N_BANDS>(scores, shared_q + warp_row * sizes::ROW_BYTES, shared_k + stage);
        if (STAGES == 1) {
            copies.wait<0>();
            __syncthreads(); /* the values are there, and every warp has used the keys */
            if (step + 1 < n_steps) {
                copy_rows<WIDTH, KEYS>(copies, shared_k, k, work.k_stride, next_key, work.n_keys);
            }
            copies.commit();
        }
        if (next_key > work.n_keys || (work.is_causal && next_key > block_row + warp_row + 1)) {
            mask_keys<KEYS, N_BANDS>(scores, work, block_row + warp_row, step * KEYS);
        }
        exponentiate<WIDTH, KEYS, N_BANDS>(scores, sums, largest, totals, work.scale);
        uint32_t p[N_BANDS][KEYS / 16][4];
        pack_probabilities<KEYS, N_BANDS>(p, scores);
        multiply_values<WIDTH, KEYS, N_BANDS>(sums, p, shared_v + stage);
    }
    __syncwarp();
    store_rows<WIDTH, N_BANDS>(sums, totals, shared + warp_row * sizes::ROW_BYTES, work.out + blockIdx.y * WIDTH,
                               work.out_stride, block_row + warp_row, work.n_rows);
}

static bool matrix_fits(const struct gpu_matrix *m, int64_t n_cols) {
    bool is_aligned = (uintptr_t)m->data % 16 == 0 && (m->row_stride % CHUNK_SIZE == 0 || m->n_rows == 1);
    return m->type == GPU_BF16 && m->n_cols == n_cols && m->n_rows >= 1 && m->n_rows <= INT_MAX / 2 && is_aligned;
}

bool gpu_attention_fits(const struct gpu_attention *a) {
    if (a->n_heads < 1 || a->n_heads > UINT16_MAX || a->n_kv_heads < 1 || a->n_heads % a->n_kv_heads != 0) {
        return false;
    }
    int64_t width = a->q.n_cols / a->n_heads;
    return (width == 64 || width == 128) && matrix_fits(&a->q, a->n_heads * width) &&
           matrix_fits(&a->out, a->n_heads * width) && matrix_fits(&a->k, a->n_kv_heads * width) &&
           matrix_fits(&a->v, a->n_kv_heads * width) && a->q.n_rows == a->out.n_rows && a->n_keys >= 1 &&
           a->n_keys <= a->k.n_rows && a->n_keys <= a->v.n_rows && a->scale > 0.0f;
}

template <int WIDTH, int ROWS, int KEYS, int STAGES>
static void launch(const struct attention_work *work, unsigned n_heads, cudaStream_t stream) {
    constexpr int SHARED_BYTES = tile<WIDTH, ROWS, KEYS, STAGES>::SHARED_BYTES;
    auto kernel = attention_kernel<WIDTH, ROWS, KEYS, STAGES>;
    GPU_ALLOW_SHARED(kernel, SHARED_BYTES);
    GPU_LAUNCH(kernel, dim3((unsigned)((work->n_rows + ROWS - 1) / ROWS), n_heads), dim3(N_THREADS), SHARED_BYTES,
               stream, *work);
}

template <int WIDTH>
static void launch_tiling(const struct attention_work *work, enum attention_tiling tiling, unsigned n_heads,
                          cudaStream_t stream) {
    switch (tiling) {
    case ATTENTION_128_64_2:
        launch<WIDTH, 128, 64, 2>(work, n_heads, stream);
        break;
    case ATTENTION_128_64_1:
        launch<WIDTH, 128, 64, 1>(work, n_heads, stream);
        break;
    case ATTENTION_128_32_1:
        launch<WIDTH, 128, 32, 1>(work, n_heads, stream);
        break;
    default:
        launch<WIDTH, 64, 64, 1>(work, n_heads, stream);
        break;
    }
}

enum attention_tiling attention_choose_tiling(const struct gpu_attention *a) {
    int device = 0;
    int n_processors = 0;
    int shared_bytes = 0;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&n_processors, cudaDevAttrMultiProcessorCount, device);
    (void)cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if ((a->q.n_rows + 127) / 128 * a->n_heads < 2 * (int64_t)n_processors) {
        return ATTENTION_64_64_1;
    }
    if (shared_bytes >= 200 * 1024) {
        return ATTENTION_128_64_2;
    }
    return shared_bytes >= 128 * 1024 ? ATTENTION_128_64_1 : ATTENTION_128_32_1;
}

void attention_run_tiling(const struct gpu_attention *a, enum attention_tiling tiling, cudaStream_t stream) {
    struct attention_work work = {
        (const __nv_bfloat16 *)a->q.data,
        (const __nv_bfloat16 *)a->k.data,
        (const __nv_bfloat16 *)a->v.data,
        (__nv_bfloat16 *)a->out.data,
        a->q.row_stride,
        a->k.row_stride,
        a->v.row_stride,
        a->out.row_stride,
        (int)a->q.n_rows,
        (int)a->n_keys,
        (int)(a->n_heads / a->n_kv_heads),
        a->is_causal,
        a->scale * 1.44269504f,
    };
    if (a->q.n_cols / a->n_heads == 128) {
        launch_tiling<128>(&work, tiling, (unsigned)a->n_heads, stream);
    } else {
        launch_tiling<64>(&work, tiling, (unsigned)a->n_heads, stream);
    }
}

void gpu_attention_run(const struct gpu_attention *attention, cudaStream_t stream) {
    attention_run_tiling(attention, attention_choose_tiling(attention), stream);
}
