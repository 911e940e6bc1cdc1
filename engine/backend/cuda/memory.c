/* Memory of the card, and the way to it: a pool of blocks, scratch for operations, pinned buffers for copies. See private.h.
 *
 * Everything is in stream order: a block that was given back may be handed out at once, since whoever uses it next does so on the same
 * stream, behind the work that still reads it. */
#include <stdint.h>
#include <string.h>

#include "backend/cuda/private.h"

#define MAX_BLOCKS 4096
#define BLOCK_ALIGN ((size_t)512)
#define SMALL_BLOCK ((size_t)1 << 20)  /* blocks up to this are rounded up to powers of two: they are exchanged often */
#define SCRATCH_MIN ((size_t)64 << 20) /* bytes of a piece of scratch */
#define MAX_SCRATCH 64                 /* pieces */
#define N_STAGES 4                     /* pinned buffers that take turns */
#define STAGE_BYTES ((size_t)32 << 20)
#define PARALLEL_BYTES ((size_t)1 << 20) /* copies of this size are shared out among threads */
#define DRIVER_RESERVE ((uint64_t)256 << 20)
/* What is said of copies that fail. */
#define UPLOAD "a copy to the card"
#define DOWNLOAD "a copy from the card"

struct block {
    void *data;
    size_t size_bytes;
    bool is_free;
    bool is_of_arena;
};

struct piece {
    uint8_t *data;
    size_t size_bytes, used_bytes;
};

struct stage {
    uint8_t *data;
    cudaEvent_t is_done; /* the last copy out of it or into it */
};

struct cuda_memory {
    struct cyi_allocator allocator; /* for arenas */
    struct block blocks[MAX_BLOCKS];
    size_t n_blocks;
    uint64_t max_bytes, held_bytes, used_bytes, peak_bytes, n_moves;
    struct piece scratch[MAX_SCRATCH];
    size_t n_scratch;
    struct stage stages[N_STAGES];
    size_t next_stage;
    int n_threads;
};

/* ---- The pool ---- */

static size_t round_size(size_t size_bytes) {
    size_t size = BLOCK_ALIGN;
    if (size_bytes <= SMALL_BLOCK) {
        while (size < size_bytes) {
            size *= 2;
        }
        return size;
    }
    return (size_bytes + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
}

/* The smallest free block that holds so much and wastes at most a quarter. NULL: none. */
static struct block *find_free(struct cuda_memory *m, size_t size_bytes) {
    struct block *best = NULL;
    for (size_t i = 0; i < m->n_blocks; i++) {
        struct block *b = &m->blocks[i];
        if (b->is_free && b->size_bytes >= size_bytes && b->size_bytes - size_bytes <= size_bytes / 4 &&
            (best == NULL || b->size_bytes < best->size_bytes)) {
            best = b;
        }
    }
    return best;
}

/* Gives free blocks back to the driver, which waits for the card. */
static void trim(struct cuda_memory *m) {
    size_t n = 0;
    for (size_t i = 0; i < m->n_blocks; i++) {
        if (m->blocks[i].is_free) {
            m->held_bytes -= m->blocks[i].size_bytes;
            (void)cudaFree(m->blocks[i].data);
        } else {
            m->blocks[n++] = m->blocks[i];
        }
    }
    m->n_blocks = n;
}

/* A block, used from now on. NULL: the limit or the card says no. */
static void *add_block(struct cuda_memory *m, size_t size_bytes) {
    void *data = NULL;
    if (m->n_blocks == MAX_BLOCKS || m->held_bytes + size_bytes > m->max_bytes) {
        return NULL;
    }
    if (cudaMalloc(&data, size_bytes) != cudaSuccess) {
        (void)cudaGetLastError(); /* this one is dealt with */
        return NULL;
    }
    m->blocks[m->n_blocks++] = (struct block){ .data = data, .size_bytes = size_bytes };
    m->held_bytes += size_bytes;
    return data;
}

static void *take_block(struct cuda_memory *m, size_t size_bytes) {
    struct block *b = find_free(m, size_bytes);
    if (b != NULL) {
        b->is_free = false;
        b->is_of_arena = false;
        m->used_bytes += b->size_bytes;
        return b->data;
    }
    void *data = add_block(m, size_bytes);
    m->used_bytes += data != NULL ? size_bytes : 0;
    return data;
}

static void note_peak(struct cuda_memory *m) {
    m->peak_bytes = m->used_bytes > m->peak_bytes ? m->used_bytes : m->peak_bytes;
}

/* A block when there is one without taking anything from anybody. */
static void *take_spare(struct cuda_memory *m, size_t size_bytes) {
    size_t size = round_size(size_bytes);
    void *data = take_block(m, size);
    if (data == NULL) {
        trim(m);
        data = take_block(m, size);
    }
    note_peak(m);
    return data;
}

void *memory_take(struct cuda *c, size_t size_bytes, bool may_evict) {
    struct cuda_memory *m = c->memory;
    size_t size = round_size(size_bytes);
    void *data = take_spare(m, size_bytes);
    if (data == NULL && memory_release_scratch(c)) {
        trim(m);
        data = take_block(m, size);
    }
    for (int round = 0; data == NULL && round < (may_evict ? 2 : 1); round++) {
        while (data == NULL && weights_evict(c, size, round == 1)) {
            trim(m);
            data = take_block(m, size);
        }
    }
    note_peak(m);
    return data;
}

static struct block *find_block(struct cuda_memory *m, const void *data) {
    for (size_t i = 0; data != NULL && i < m->n_blocks; i++) {
        if (m->blocks[i].data == data) {
            return &m->blocks[i];
        }
    }
    return NULL;
}

void memory_give(struct cuda *c, void *block) {
    struct block *b = find_block(c->memory, block);
    if (b != NULL) {
        b->is_free = true;
        c->memory->used_bytes -= b->size_bytes;
    }
}

static void *allocate(void *user, size_t size_bytes) {
    struct cuda *c = user;
    void *data = memory_take(c, size_bytes, true);
    if (data != NULL) {
        find_block(c->memory, data)->is_of_arena = true;
    }
    return data;
}

static void release(void *user, void *block) {
    memory_give(user, block);
}

const struct cyi_allocator *memory_get_allocator(struct cuda *c) {
    return &c->memory->allocator;
}

uint64_t memory_get_free(const struct cuda *c) {
    return c->memory->max_bytes - c->memory->used_bytes;
}

uint64_t memory_get_max(const struct cuda *c) {
    return c->memory->max_bytes;
}

void memory_moved(struct cuda *c) {
    c->memory->n_moves++;
}

uint64_t memory_get_n_moves(const struct cuda *c) {
    return c->memory->n_moves;
}

uint64_t memory_get_layout(const struct cuda *c) {
    uint64_t sum = 0; /* in any order */
    for (size_t i = 0; i < c->memory->n_blocks; i++) {
        const struct block *b = &c->memory->blocks[i];
        if (!b->is_free && b->is_of_arena) {
            uint64_t part = (uint64_t)(uintptr_t)b->data * 0x9e3779b97f4a7c15U + b->size_bytes;
            sum += (part ^ part >> 29) * 0xbf58476d1ce4e5b9U;
        }
    }
    return sum;
}

size_t memory_get_peak(const struct cuda *c) {
    return (size_t)c->memory->peak_bytes;
}

/* ---- Scratch: the same sizes in the same order get the same addresses ---- */

void memory_reset_scratch(struct cuda *c) {
    for (size_t i = 0; i < c->memory->n_scratch; i++) {
        c->memory->scratch[i].used_bytes = 0;
    }
}

/* Gives back the pieces below a size that the current operation has not asked for. */
static bool release_scratch(struct cuda *c, size_t below_bytes) {
    struct cuda_memory *m = c->memory;
    size_t n = 0;
    for (size_t i = 0; i < m->n_scratch; i++) {
        if (m->scratch[i].used_bytes == 0 && m->scratch[i].size_bytes < below_bytes) {
            memory_give(c, m->scratch[i].data);
        } else {
            m->scratch[n++] = m->scratch[i];
        }
    }
    bool is_less = n < m->n_scratch;
    m->n_scratch = n;
    if (is_less) {
        memory_moved(c);
    }
    return is_less;
}

bool memory_release_scratch(struct cuda *c) {
    return release_scratch(c, SIZE_MAX);
}

void *cuda_scratch(struct cuda *c, size_t size_bytes) {
    struct cuda_memory *m = c->memory;
    size_t size = (size_bytes + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
    for (size_t i = 0; i < m->n_scratch; i++) {
        struct piece *p = &m->scratch[i];
        if (p->size_bytes - p->used_bytes >= size) {
            p->used_bytes += size;
            return p->data + p->used_bytes - size;
        }
    }
    /* What is too small is not wanted beside something larger: sizes grow over a few operations, then stay. */
    (void)release_scratch(c, size);
    if (m->n_scratch == MAX_SCRATCH) {
        return NULL;
    }
    size_t whole = size > SCRATCH_MIN ? size : SCRATCH_MIN;
    void *data = whole > size ? take_spare(m, whole) : NULL;
    if (data == NULL) {
        whole = size;
        data = memory_take(c, whole, true);
    }
    if (data == NULL) {
        return NULL;
    }
    m->scratch[m->n_scratch++] = (struct piece){ data, whole, size };
    return data;
}

enum cyi_status cuda_new_scratch(struct cuda *c, size_t size_bytes, void **ret, struct cyi_error *err) {
    *ret = cuda_scratch(c, size_bytes);
    return *ret != NULL ? CYI_OK : error_memory(err, "scratch on the card", size_bytes);
}

/* ---- Copies ---- */

/* memcpy by several threads: one alone does not fill the link to the card. */
static void copy_bytes(const struct cuda_memory *m, void *to, const void *from, size_t n_bytes) {
    if (n_bytes < PARALLEL_BYTES || m->n_threads == 1) {
        memcpy(to, from, n_bytes);
        return;
    }
    size_t part = (n_bytes / (size_t)m->n_threads + 4095) / 4096 * 4096;
#pragma omp parallel for num_threads(m->n_threads) schedule(static, 1)
    for (int i = 0; i < m->n_threads; i++) {
        size_t first = (size_t)i * part;
        if (first < n_bytes) {
            memcpy((uint8_t *)to + first, (const uint8_t *)from + first,
                   n_bytes - first < part ? n_bytes - first : part);
        }
    }
}

/* The next pinned buffer, when the copy that used it last is over. */
static enum cyi_status next_stage(struct cuda_memory *m, struct stage **ret, struct cyi_error *err) {
    *ret = &m->stages[m->next_stage];
    m->next_stage = (m->next_stage + 1) % N_STAGES;
    return cuda_check(cudaEventSynchronize((*ret)->is_done), "waiting for a copy", err);
}

enum cyi_status memory_upload(struct cuda *c, const void *host, void *device, size_t n_bytes, cudaStream_t stream,
                              struct cyi_error *err) {
    struct cuda_memory *m = c->memory;
    enum cyi_status st = CYI_OK;
    for (size_t at = 0; at < n_bytes; at += STAGE_BYTES) {
        size_t n = n_bytes - at < STAGE_BYTES ? n_bytes - at : STAGE_BYTES;
        struct stage *stage;
        TRY(next_stage(m, &stage, err));
        copy_bytes(m, stage->data, (const uint8_t *)host + at, n);
        TRY(cuda_check(cudaMemcpyAsync((uint8_t *)device + at, stage->data, n, cudaMemcpyHostToDevice, stream), UPLOAD,
                       err));
        TRY(cuda_check(cudaEventRecord(stage->is_done, stream), UPLOAD, err));
    }
done:
    return st;
}

enum cyi_status cuda_upload_bytes(struct cuda *c, const void *host, void *device, size_t n_bytes,
                                  struct cyi_error *err) {
    enum cyi_status st = graphs_break(c, err);
    return st != CYI_OK ? st : memory_upload(c, host, device, n_bytes, c->stream, err);
}

static enum cyi_status download_bytes(struct cuda *c, const void *device, void *host, size_t n_bytes,
                                      struct cyi_error *err) {
    struct cuda_memory *m = c->memory;
    enum cyi_status st = CYI_OK;
    for (size_t at = 0; at < n_bytes; at += STAGE_BYTES) {
        size_t n = n_bytes - at < STAGE_BYTES ? n_bytes - at : STAGE_BYTES;
        struct stage *stage;
        TRY(next_stage(m, &stage, err));
        TRY(cuda_check(cudaMemcpyAsync(stage->data, (const uint8_t *)device + at, n, cudaMemcpyDeviceToHost, c->stream),
                       DOWNLOAD, err));
        TRY(cuda_check(cudaStreamSynchronize(c->stream), DOWNLOAD, err));
        copy_bytes(m, (uint8_t *)host + at, stage->data, n);
    }
done:
    return st;
}

/* Between tensors of which one has gaps between its rows: whole rows, as many as a stage holds. */
static enum cyi_status copy_rows(struct cuda *c, const struct tensor *host, const struct tensor *device, bool is_upload,
                                 struct cyi_error *err) {
    const char *what = is_upload ? UPLOAD : DOWNLOAD;
    struct cuda_memory *m = c->memory;
    size_t size = dtype_size(host->dtype);
    size_t row_bytes = (size_t)tensor_n_cols(host) * size;
    size_t gap_bytes = (size_t)device->row_stride * size;
    int64_t n_rows = tensor_n_rows(host);
    enum cyi_status st = CYI_OK;
    if (row_bytes > STAGE_BYTES) {
        return error_set(err, CYI_E_UNSUPPORTED, "a row of %zu bytes cannot be copied in parts", row_bytes);
    }
    int64_t step = (int64_t)(STAGE_BYTES / row_bytes);
    for (int64_t r = 0; r < n_rows; r += step) {
        int64_t n = n_rows - r < step ? n_rows - r : step;
        uint8_t *there = (uint8_t *)device->data + (size_t)r * gap_bytes;
        struct stage *stage;
        TRY(next_stage(m, &stage, err));
        if (is_upload) {
            for (int64_t i = 0; i < n; i++) {
                memcpy(stage->data + (size_t)i * row_bytes, tensor_row(host, r + i), row_bytes);
            }
            TRY(cuda_check(cudaMemcpy2DAsync(there, gap_bytes, stage->data, row_bytes, row_bytes, (size_t)n,
                                             cudaMemcpyHostToDevice, c->stream),
                           what, err));
            TRY(cuda_check(cudaEventRecord(stage->is_done, c->stream), what, err));
            continue;
        }
        TRY(cuda_check(cudaMemcpy2DAsync(stage->data, row_bytes, there, gap_bytes, row_bytes, (size_t)n,
                                         cudaMemcpyDeviceToHost, c->stream),
                       what, err));
        TRY(cuda_check(cudaStreamSynchronize(c->stream), what, err));
        for (int64_t i = 0; i < n; i++) {
            memcpy(tensor_row(host, r + i), stage->data + (size_t)i * row_bytes, row_bytes);
        }
    }
done:
    return st;
}

enum cyi_status memory_upload_tensor(struct cuda *c, const struct tensor *host, const struct tensor *device,
                                     struct cyi_error *err) {
    (void)graphs_break(c, NULL);
    return tensor_is_packed(host) && tensor_is_packed(device)
               ? memory_upload(c, host->data, device->data, tensor_n_bytes(host), c->stream, err)
               : copy_rows(c, host, device, true, err);
}

enum cyi_status memory_download_tensor(struct cuda *c, const struct tensor *device, const struct tensor *host,
                                       struct cyi_error *err) {
    (void)graphs_break(c, NULL);
    return tensor_is_packed(host) && tensor_is_packed(device)
               ? download_bytes(c, device->data, host->data, tensor_n_bytes(host), err)
               : copy_rows(c, host, device, false, err);
}

/* ---- Beginning and end ---- */

enum cyi_status memory_create(struct cuda *c, uint64_t max_bytes, int n_threads, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    size_t free_bytes = 0;
    size_t all_bytes = 0;
    struct cuda_memory *m = mem_alloc_zeroed(c->allocator, 1, sizeof *m);
    if (m == NULL) {
        return error_memory(err, "the table of the card's memory", sizeof *m);
    }
    c->memory = m;
    m->allocator = (struct cyi_allocator){ allocate, release, c };
    m->n_threads = n_threads;
    TRY(cuda_check(cudaMemGetInfo(&free_bytes, &all_bytes), "the size of the card's memory", err));
    m->max_bytes = free_bytes > DRIVER_RESERVE ? free_bytes - DRIVER_RESERVE : 0;
    if (max_bytes > 0 && max_bytes < m->max_bytes) {
        m->max_bytes = max_bytes;
    }
    for (int i = 0; i < N_STAGES; i++) {
        void *data = NULL;
        TRY(cuda_check(cudaEventCreateWithFlags(&m->stages[i].is_done, cudaEventDisableTiming), "an event", err));
        TRY(cuda_check(cudaMallocHost(&data, STAGE_BYTES), "pinned memory", err));
        m->stages[i].data = data;
    }
done:
    return st;
}

void memory_free(struct cuda *c) {
    struct cuda_memory *m = c->memory;
    if (m == NULL) {
        return;
    }
    for (size_t i = 0; i < m->n_blocks; i++) {
        (void)cudaFree(m->blocks[i].data);
    }
    for (int i = 0; i < N_STAGES; i++) {
        if (m->stages[i].data != NULL) {
            (void)cudaFreeHost(m->stages[i].data);
        }
        if (m->stages[i].is_done != NULL) {
            (void)cudaEventDestroy(m->stages[i].is_done);
        }
    }
    mem_free(c->allocator, m);
}
