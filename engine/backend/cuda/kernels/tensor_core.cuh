/* Instructions that C++ has no words for: matrix products of a warp, loads of their operands from shared memory, copies
 * into shared memory that run beside the computation, the hardware's exp2. Compute capability 8.0 and newer.
 *
 * Each has two bodies: the instruction itself, and one for tests/fake_cuda that does what the instruction is documented
 * to do, lane by lane. Source: PTX ISA, "Warp-level matrix instructions" (layouts of m16n8k16 and of ldmatrix) and
 * "cp.async". */
#ifndef BACKEND_CUDA_KERNELS_TENSOR_CORE_CUH
#define BACKEND_CUDA_KERNELS_TENSOR_CORE_CUH

#include "backend/cuda/gpu.cuh"

#include <stdint.h>
#include <string.h>

/* Two BF16 numbers in a register, the first one in the low half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

#ifndef CYI_FAKE_CUDA

/* A place in shared memory, in bytes. */
typedef uint32_t shared_address;

__device__ __forceinline__ shared_address get_shared_address(const void *pointer) {
    return (shared_address)__cvta_generic_to_shared(pointer);
}

/* 2^x to about 2 units in the last place; 2^-inf is 0, denormal results are 0. */
__device__ __forceinline__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Four 8 × 8 matrices of 16-bit elements. Lane l gives the address of 16 bytes, row l % 8 of matrix l / 8, and
 * receives in part[m] of matrix m the elements 2 · (l % 4) and the next of row l / 4. */
__device__ __forceinline__ void load_matrices(uint32_t (&part)[4], shared_address row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(part[0]), "=r"(part[1]), "=r"(part[2]), "=r"(part[3])
                 : "r"(row)
                 : "memory");
}

/* The same with every matrix transposed: elements of column l / 4, rows 2 · (l % 4) and the next. */
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&part)[4], shared_address row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(part[0]), "=r"(part[1]), "=r"(part[2]), "=r"(part[3])
                 : "r"(row)
                 : "memory");
}

/* c [16, 8] += a [16, 16] · b [16, 8] of BF16. With g = lane / 4 and t = 2 · (lane % 4), and "and the next"
 * understood:
 *   a[0] row g, column t    a[1] row g + 8, column t    a[2] row g, column t + 8    a[3] row g + 8, column t + 8
 *   b0   row t, column g    b1   row t + 8, column g    c[0], c[1] row g, column t  c[2], c[3] row g + 8, column t */
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* A thread's copies into shared memory. They are done for the whole block after every thread has waited and then the
 * block has met. */
struct async_copies {
    /* 16 bytes from device memory, or zeros without reading; both addresses are multiples of 16. */
    __device__ __forceinline__ void copy(shared_address to, const void *from, bool is_wanted) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                     "r"(is_wanted ? 16 : 0)
                     : "memory");
    }
    /* The copies since the last call become a group. */
    __device__ __forceinline__ void commit() {
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    /* Until at most the N newest groups are still under way. */
    template <int N> __device__ __forceinline__ void wait() {
        asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
    }
};

#else

typedef uintptr_t shared_address;

__device__ __forceinline__ shared_address get_shared_address(const void *pointer) {
    return (shared_address)pointer;
}

__device__ __forceinline__ float fast_exp2(float x) {
    return exp2f(x);
}

struct fake_parts {
    uint32_t part[4];
};

/* Both loads: element (i, j) of the pair that starts at `row`, or at its column when transposed. */
inline fake_parts fake_load_matrices(shared_address row, bool is_transposed) {
    const char *name = is_transposed ? "ldmatrix.trans" : "ldmatrix";
    if (row % 16 != 0) {
        fake_cuda_abort("%s: the address of a row is not a multiple of 16", name);
    }
    return fake_warp<shared_address, fake_parts>(
        0xffffffffu, name, row, [=](const shared_address *const *rows, fake_parts *const *out) {
            for (int i = 0; i < 32 * 4 * 2; i++) {
                int lane = i / 8;
                int matrix = i / 2 % 4;
                int first = lane / 4;
                int second = lane % 4 * 2 + i % 2;
                const uint16_t *elements = (const uint16_t *)*rows[matrix * 8 + (is_transposed ? second : first)];
                uint32_t element = elements[is_transposed ? first : second];
                out[lane]->part[matrix] |= element << i % 2 * 16;
            }
        });
}

__device__ __forceinline__ void load_matrices(uint32_t (&part)[4], shared_address row) {
    fake_parts loaded = fake_load_matrices(row, false);
    memcpy(part, loaded.part, sizeof part);
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&part)[4], shared_address row) {
    fake_parts loaded = fake_load_matrices(row, true);
    memcpy(part, loaded.part, sizeof part);
}

struct fake_operands {
    uint32_t a[4], b[2];
};
struct fake_product {
    float c[4];
};

/* Number k % 2 of a pair. */
inline float fake_number(uint32_t pair, int k) {
    uint32_t bits = k % 2 == 0 ? pair << 16 : pair & 0xffff0000u;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* Gathers a [16, 16] and b [16, 8], as rows and as columns, from the lanes. */
inline void fake_gather(const fake_operands *const *in, float (*a)[16], float (*b)[16]) {
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 8; i++) {
            a[lane / 4 + i / 2 % 2 * 8][lane % 4 * 2 + i % 2 + i / 4 * 8] = fake_number(in[lane]->a[i / 2], i);
        }
        for (int i = 0; i < 4; i++) {
            b[lane / 4][lane % 4 * 2 + i % 2 + i / 2 * 8] = fake_number(in[lane]->b[i / 2], i);
        }
    }
}

__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    fake_operands mine = { { a[0], a[1], a[2], a[3] }, { b0, b1 } };
    fake_product product = fake_warp<fake_operands, fake_product>(
        0xffffffffu, "mma", mine, [](const fake_operands *const *in, fake_product *const *out) {
            float rows[16][16];
            float columns[8][16];
            fake_gather(in, rows, columns);
            for (int i = 0; i < 16 * 8; i++) {
                int row = i / 8;
                int column = i % 8;
                float sum = 0.0f;
                for (int k = 0; k < 16; k++) {
                    sum += rows[row][k] * columns[column][k];
                }
                out[row % 8 * 4 + column / 2]->c[row / 8 * 2 + column % 2] = sum;
            }
        });
    for (int i = 0; i < 4; i++) {
        c[i] += product.c[i];
    }
}

/* Copies happen as late as they may: when their group is waited for. Until then their place holds not-a-numbers. */
struct async_copies {
    enum { FAKE_MAX_COPIES = 64, FAKE_POISON = 0xff };
    struct {
        shared_address to;
        const void *from;
        bool is_wanted;
        int group;
    } waiting[FAKE_MAX_COPIES];
    int n_waiting = 0;
    int n_groups = 0;

    void copy(shared_address to, const void *from, bool is_wanted) {
        if (to % 16 != 0 || (uintptr_t)from % 16 != 0 || n_waiting == FAKE_MAX_COPIES) {
            fake_cuda_abort("cp.async: an address is not a multiple of 16, or too many copies wait");
        }
        memset((void *)to, FAKE_POISON, 16);
        waiting[n_waiting++] = { to, from, is_wanted, n_groups };
    }
    void commit() {
        n_groups++;
    }
    template <int N> void wait() {
        int n_left = 0;
        for (int i = 0; i < n_waiting; i++) {
            if (waiting[i].group >= n_groups - N) {
                waiting[n_left++] = waiting[i];
            } else if (waiting[i].is_wanted) {
                memcpy((void *)waiting[i].to, waiting[i].from, 16);
            } else {
                memset((void *)waiting[i].to, 0, 16);
            }
        }
        n_waiting = n_left;
    }
};

#endif

#endif
