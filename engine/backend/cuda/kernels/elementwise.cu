/* What works element by element: a thread computes eight neighbours of a row. */
#include "backend/cuda/kernels/access.cuh"

static constexpr int THREADS = 256;
static constexpr int MAX_GRID_ROWS = 65535;
static constexpr int N_KEPT = 8;
static constexpr unsigned MAX_CODES_THREADS = 512; /* twice as many have too few registers for what is kept */

/* body(row, column): the eight elements from there on. */
template <typename Body> __global__ void for_rows(Body body, int64_t n_rows, int n_vectors) {
    int vector = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (vector >= n_vectors) {
        return;
    }
    for (int64_t row = blockIdx.y; row < n_rows; row += gridDim.y) {
        body(row, vector * LANES);
    }
}

template <typename Body> static void run_rows(const Body &body, int64_t n_rows, int64_t n_cols, cudaStream_t stream) {
    int64_t n_vectors = (n_cols + LANES - 1) / LANES;
    if (n_rows == 0 || n_vectors == 0) {
        return;
    }
    unsigned n_threads = n_vectors < THREADS ? threads_for_row(n_vectors) : THREADS;
    dim3 grid((unsigned)((n_vectors + n_threads - 1) / n_threads),
              (unsigned)(n_rows < MAX_GRID_ROWS ? n_rows : MAX_GRID_ROWS));
    GPU_LAUNCH(for_rows<Body>, grid, n_threads, 0, stream, body, n_rows, (int)n_vectors);
}

/* A matrix of known type inside a body. */
template <typename T> struct view {
    T *data;
    int64_t stride;
    __device__ T *at(int64_t row, int col) const {
        return data + row * stride + col;
    }
};

template <typename T> static view<T> view_of(const struct gpu_matrix *m) {
    return view<T>{ static_cast<T *>(m->data), m->row_stride };
}

/* ---- One input ---- */

template <typename X, typename Y, bool IS_FAST> struct silu_body {
    view<X> x;
    view<Y> y;
    int n_cols;
    __device__ void operator()(int64_t row, int col) const {
        float v[LANES];
        load8<IS_FAST>(x.at(row, col), n_cols - col, v);
        activate8<is_float<Y>::value>(GPU_ACT_SILU, v);
        store8<IS_FAST>(y.at(row, col), n_cols - col, v);
    }
};

/* f(x's type, y's type, flag) for matrices of activations. */
template <typename F>
static void with_types(const struct gpu_matrix *x, const struct gpu_matrix *y, bool is_fast, const F &f) {
    with_act_type(x->type, [&](auto *x_type) {
        with_act_type(y->type, [&](auto *y_type) { with_flag(is_fast, [&](auto fast) { f(x_type, y_type, fast); }); });
    });
}

void gpu_silu(const struct gpu_matrix *x, const struct gpu_matrix *y, cudaStream_t stream) {
    with_types(x, y, is_fast_matrix(x) && is_fast_matrix(y), [&](auto *x_type, auto *y_type, auto fast) {
        using X = decltype(pointee(x_type));
        using Y = decltype(pointee(y_type));
        silu_body<X, Y, decltype(fast)::value> body{ view_of<X>(x), view_of<Y>(y), (int)x->n_cols };
        run_rows(body, x->n_rows, x->n_cols, stream);
    });
}

template <typename X, typename Y, bool IS_FAST> struct affine_body {
    view<X> x;
    view<Y> y;
    int n_cols;
    const float *scale, *shift;
    int act;
    __device__ void operator()(int64_t row, int col) const {
        float v[LANES], factor[LANES], summand[LANES];
        load8<IS_FAST>(x.at(row, col), n_cols - col, v);
        load8_or(scale, col, n_cols - col, 1.0F, factor);
        load8_or(shift, col, n_cols - col, 0.0F, summand);
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            v[i] = v[i] * factor[i] + summand[i];
        }
        activate8<is_float<Y>::value>(act, v);
        store8<IS_FAST>(y.at(row, col), n_cols - col, v);
    }
};

void gpu_channel_affine(const struct gpu_matrix *x, const float *scale, const float *shift, enum gpu_act act,
                        const struct gpu_matrix *y, cudaStream_t stream) {
    with_types(x, y, is_fast_matrix(x) && is_fast_matrix(y), [&](auto *x_type, auto *y_type, auto fast) {
        using X = decltype(pointee(x_type));
        using Y = decltype(pointee(y_type));
        affine_body<X, Y, decltype(fast)::value> body{ view_of<X>(x), view_of<Y>(y), (int)x->n_cols,
                                                       scale,         shift,         (int)act };
        run_rows(body, x->n_rows, x->n_cols, stream);
    });
}

/* ---- Casts ---- */

__device__ __forceinline__ float to_float(float v) {
    return v;
}
__device__ __forceinline__ float to_float(__nv_bfloat16 v) {
    return __bfloat162float(v);
}
__device__ __forceinline__ float to_float(__half v) {
    return __half2float(v);
}
struct e4m3 {
    unsigned char code;
};
struct e5m2 {
    unsigned char code;
};
__device__ __forceinline__ float to_float(e4m3 v) {
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(v.code, __NV_E4M3)));
}
__device__ __forceinline__ float to_float(e5m2 v) {
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(v.code, __NV_E5M2)));
}

template <typename X, typename Y, bool IS_FAST> struct cast_body {
    view<X> x;
    view<Y> y;
    int n_cols;
    __device__ void operator()(int64_t row, int col) const {
        const X *from = x.at(row, col);
        float v[LANES];
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            v[i] = IS_FAST || col + i < n_cols ? to_float(from[i]) : 0.0F;
        }
        store8<IS_FAST>(y.at(row, col), n_cols - col, v);
    }
};

/* The types that every step reads, by 16 bytes. */
template <typename X, typename Y> struct cast_body<X, Y, true> {
    view<X> x;
    view<Y> y;
    int n_cols;
    __device__ void operator()(int64_t row, int col) const {
        float v[LANES];
        load8<true>(x.at(row, col), LANES, v);
        store8<true>(y.at(row, col), LANES, v);
    }
};

template <typename X, bool IS_FAST>
static void run_cast(const struct gpu_matrix *x, const struct gpu_matrix *y, cudaStream_t stream) {
    with_act_type(y->type, [&](auto *y_type) {
        using Y = decltype(pointee(y_type));
        cast_body<X, Y, IS_FAST> body{ view_of<X>(x), view_of<Y>(y), (int)x->n_cols };
        run_rows(body, x->n_rows, x->n_cols, stream);
    });
}

void gpu_cast(const struct gpu_matrix *x, const struct gpu_matrix *y, cudaStream_t stream) {
    bool is_fast = is_fast_matrix(x) && is_fast_matrix(y);
    switch (x->type) {
    case GPU_F32:
        return is_fast ? run_cast<float, true>(x, y, stream) : run_cast<float, false>(x, y, stream);
    case GPU_BF16:
        return is_fast ? run_cast<__nv_bfloat16, true>(x, y, stream) : run_cast<__nv_bfloat16, false>(x, y, stream);
    case GPU_F16:
        return run_cast<__half, false>(x, y, stream);
    case GPU_F8_E4M3:
        return run_cast<e4m3, false>(x, y, stream);
    default:
        return run_cast<e5m2, false>(x, y, stream);
    }
}

/* ---- Two inputs ---- */

template <typename A, typename B, typename Y, bool IS_FAST> struct add_body {
    view<A> a;
    view<B> b;
    view<Y> y;
    int n_cols;
    __device__ void operator()(int64_t row, int col) const {
        float v[LANES], w[LANES];
        load8<IS_FAST>(a.at(row, col), n_cols - col, v);
        load8<IS_FAST>(b.at(row, col), n_cols - col, w);
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            v[i] += w[i];
        }
        store8<IS_FAST>(y.at(row, col), n_cols - col, v);
    }
};

void gpu_add(const struct gpu_matrix *a, const struct gpu_matrix *b, const struct gpu_matrix *y, cudaStream_t stream) {
    bool is_fast = is_fast_matrix(a) && is_fast_matrix(b) && is_fast_matrix(y);
    with_act_type(a->type, [&](auto *a_type) {
        with_types(b, y, is_fast, [&](auto *b_type, auto *y_type, auto fast) {
            using A = decltype(pointee(a_type));
            using B = decltype(pointee(b_type));
            using Y = decltype(pointee(y_type));
            add_body<A, B, Y, decltype(fast)::value> body{ view_of<A>(a), view_of<B>(b), view_of<Y>(y),
                                                           (int)a->n_cols };
            run_rows(body, a->n_rows, a->n_cols, stream);
        });
    });
}

template <typename G, typename U, typename Y, bool IS_FAST> struct swiglu_body {
    view<G> gate;
    view<U> up;
    view<Y> y;
    int n_cols;
    __device__ void compute(int64_t row, int col, float v[LANES]) const {
        float u[LANES];
        load8<IS_FAST>(gate.at(row, col), n_cols - col, v);
        load8<IS_FAST>(up.at(row, col), n_cols - col, u);
        activate8<is_float<Y>::value>(GPU_ACT_SILU, v);
#pragma unroll
        for (int i = 0; i < LANES; i++) {
            v[i] *= u[i];
        }
    }
    __device__ void operator()(int64_t row, int col) const {
        float v[LANES];
        compute(row, col, v);
        store8<IS_FAST>(y.at(row, col), n_cols - col, v);
    }
};

/* The same with codes: a block a row, whose results are kept until the largest is known. */
template <typename Body>
__global__ void __launch_bounds__(MAX_CODES_THREADS) swiglu_codes(Body body, struct gpu_codes codes) {
    __shared__ float shared[WARP];
    int64_t row = blockIdx.x;
    int n_vectors = body.n_cols / LANES;
    float kept[N_KEPT][LANES];
    float largest = 0.0F;
    /* Longer rows are computed twice. */
    int n_parts = (n_vectors + (int)blockDim.x - 1) / (int)blockDim.x;
    for (int i = N_KEPT; i < n_parts; i++) {
        int vector = (int)threadIdx.x + i * (int)blockDim.x;
        if (vector < n_vectors) {
            float v[LANES];
            body.compute(row, vector * LANES, v);
#pragma unroll
            for (int j = 0; j < LANES; j++) {
                largest = fmaxf(largest, fabsf(v[j]));
            }
        }
    }
#pragma unroll
    for (int i = 0; i < N_KEPT; i++) {
        int vector = (int)threadIdx.x + i * (int)blockDim.x;
        if (vector < n_vectors) {
            body.compute(row, vector * LANES, kept[i]);
#pragma unroll
            for (int j = 0; j < LANES; j++) {
                largest = fmaxf(largest, fabsf(kept[i][j]));
            }
        }
    }
    bool is_fp8 = codes.type == GPU_F8_E4M3;
    float factor = set_scale(codes, row, block_max(largest, shared));
    unsigned char *to = static_cast<unsigned char *>(codes.data) + row * body.n_cols;
#pragma unroll
    for (int i = 0; i < N_KEPT; i++) {
        int vector = (int)threadIdx.x + i * (int)blockDim.x;
        if (vector < n_vectors) {
            store_codes(to + vector * LANES, kept[i], factor, is_fp8);
            store8<true>(body.y.at(row, vector * LANES), LANES, kept[i]);
        }
    }
    for (int i = N_KEPT; i < n_parts; i++) {
        int vector = (int)threadIdx.x + i * (int)blockDim.x;
        if (vector < n_vectors) {
            float v[LANES];
            body.compute(row, vector * LANES, v);
            store_codes(to + vector * LANES, v, factor, is_fp8);
            store8<true>(body.y.at(row, vector * LANES), LANES, v);
        }
    }
}

void gpu_swiglu(const struct gpu_matrix *gate, const struct gpu_matrix *up, const struct gpu_matrix *y,
                const struct gpu_codes *codes, cudaStream_t stream) {
    bool is_fast = is_fast_matrix(gate) && is_fast_matrix(up) && is_fast_matrix(y);
    bool has_codes = codes != nullptr && codes->data != nullptr;
    with_act_type(gate->type, [&](auto *gate_type) {
        with_types(up, y, is_fast, [&](auto *up_type, auto *y_type, auto fast) {
            using G = decltype(pointee(gate_type));
            using U = decltype(pointee(up_type));
            using Y = decltype(pointee(y_type));
            using Body = swiglu_body<G, U, Y, decltype(fast)::value>;
            Body body{ view_of<G>(gate), view_of<U>(up), view_of<Y>(y), (int)y->n_cols };
            /* Results may be computed twice where the row is long: y must not be an input then. */
            bool is_apart = y->data != gate->data && y->data != up->data;
            if (has_codes && is_fast && is_apart && y->n_rows > 0) {
                unsigned n_threads = threads_for_row(y->n_cols / LANES / 3 + 1);
                n_threads = n_threads < MAX_CODES_THREADS ? n_threads : MAX_CODES_THREADS;
                GPU_LAUNCH(swiglu_codes<Body>, (unsigned)y->n_rows, n_threads, 0, stream, body, *codes);
                return;
            }
            run_rows(body, y->n_rows, y->n_cols, stream);
            if (has_codes) {
                gpu_quantise_rows(y, codes, stream);
            }
        });
    });
}

/* ---- The rest of a product ---- */

template <typename P, typename Y, bool IS_FAST> struct finish_body {
    view<P> product;
    view<Y> residual, y;
    int n_cols;
    const float *row_scale, *col_scale, *bias, *gate;
    int act;
    __device__ void operator()(int64_t row, int col) const {
        int n = n_cols - col;
        float v[LANES], w[LANES];
        load8<IS_FAST>(product.at(row, col), n, v);
        if (row_scale != nullptr || col_scale != nullptr) {
            float factor = row_scale != nullptr ? row_scale[row] : 1.0F;
            load8_or(col_scale, col, n, 1.0F, w);
#pragma unroll
            for (int i = 0; i < LANES; i++) {
                v[i] *= factor * w[i];
            }
        }
        if (bias != nullptr) {
            load8_or(bias, col, n, 0.0F, w);
#pragma unroll
            for (int i = 0; i < LANES; i++) {
                v[i] += w[i];
            }
        }
        activate8<is_float<Y>::value>(act, v);
        if (gate != nullptr) {
            load8_or(gate, col, n, 1.0F, w);
#pragma unroll
            for (int i = 0; i < LANES; i++) {
                v[i] *= w[i];
            }
        }
        if (residual.data != nullptr) {
            load8<IS_FAST>(residual.at(row, col), n, w);
#pragma unroll
            for (int i = 0; i < LANES; i++) {
                v[i] += w[i];
            }
        }
        store8<IS_FAST>(y.at(row, col), n, v);
    }
};

template <typename P> static void run_finish(const struct gpu_finish *f, cudaStream_t stream) {
    bool is_fast =
        is_fast_matrix(f->product) && is_fast_matrix(f->y) && (f->residual == nullptr || is_fast_matrix(f->residual));
    with_act_type(f->y->type, [&](auto *y_type) {
        with_flag(is_fast, [&](auto fast) {
            using Y = decltype(pointee(y_type));
            view<Y> residual{ nullptr, 0 };
            if (f->residual != nullptr) {
                residual = view_of<Y>(f->residual);
            }
            finish_body<P, Y, decltype(fast)::value> body{
                view_of<P>(f->product), residual, view_of<Y>(f->y), (int)f->y->n_cols, f->row_scale,
                f->col_scale,           f->bias,  f->gate,          (int)f->act
            };
            run_rows(body, f->y->n_rows, f->y->n_cols, stream);
        });
    });
}

void gpu_finish_product(const struct gpu_finish *finish, cudaStream_t stream) {
    if (finish->product->type == GPU_I32) {
        run_finish<int>(finish, stream);
    } else if (finish->product->type == GPU_BF16) {
        run_finish<__nv_bfloat16>(finish, stream);
    } else {
        run_finish<float>(finish, stream);
    }
}
