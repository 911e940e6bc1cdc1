/* Threads, scratch and prepared operations of the fast CPU backend: see onednn.h. */
#include <omp.h>
#include <stdatomic.h>

#include "backend/onednn/onednn.h"
#include "core/size.h"

enum cyi_status onednn_reserve(struct onednn *b, struct block *block, size_t size_bytes, struct cyi_error *err) {
    if (block->size_bytes >= size_bytes) {
        return CYI_OK;
    }
    onednn_release(b, block);
    size_t total;
    void *raw = size_add(&total, size_bytes, MEM_ALIGN) ? mem_alloc(b->allocator, total) : NULL;
    if (raw == NULL) {
        return error_memory(err, "scratch of the CPU backend", size_bytes);
    }
    block->raw = raw;
    block->start = (uint8_t *)(((uintptr_t)raw + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN);
    block->size_bytes = size_bytes;
    b->held_bytes += size_bytes;
    b->peak_bytes = b->held_bytes > b->peak_bytes ? b->held_bytes : b->peak_bytes;
    return CYI_OK;
}

void onednn_release(struct onednn *b, struct block *block) {
    b->held_bytes -= block->size_bytes;
    mem_free(b->allocator, block->raw);
    *block = (struct block){ 0 };
}

enum cyi_status onednn_grow(struct onednn *b, void **array, size_t *capacity, size_t n, size_t element_bytes,
                            struct cyi_error *err) {
    if (n < *capacity) {
        return CYI_OK;
    }
    size_t wanted = *capacity == 0 ? 16 : *capacity * 2;
    void *larger = mem_alloc_zeroed(b->allocator, wanted, element_bytes);
    if (larger == NULL) {
        return error_memory(err, "a table of the CPU backend", wanted * element_bytes);
    }
    if (n > 0) {
        memcpy(larger, *array, n * element_bytes);
    }
    mem_free(b->allocator, *array);
    *array = larger;
    *capacity = wanted;
    return CYI_OK;
}

void *carve_take(struct carve *carve, int64_t n, size_t size_bytes) {
    uint8_t *piece = carve->at == NULL ? NULL : carve->at + carve->used_bytes;
    carve->used_bytes += ((size_t)n * size_bytes + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
    return piece;
}

enum cyi_status onednn_run_tasks(struct onednn *b, int64_t n_tasks, size_t scratch_bytes, onednn_task_fn fn,
                                 const void *context, struct cyi_error *err) {
    int n_lanes = (int)min_i64(b->n_threads, max_i64(n_tasks, 1));
    for (int i = 0; i < n_lanes; i++) {
        enum cyi_status st = onednn_reserve(b, &b->lanes[i].block, scratch_bytes, err);
        if (st != CYI_OK) {
            return st;
        }
        b->lanes[i].scratch = b->lanes[i].block.start;
    }
    atomic_int failed = -1; /* the lane that failed first */
#pragma omp parallel num_threads(n_lanes)
    {
        omp_set_num_threads(1); /* of this thread's own regions: the library must not start more */
        struct lane *lane = &b->lanes[omp_get_thread_num()];
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < n_tasks; task++) {
            int none = -1;
            if (atomic_load_explicit(&failed, memory_order_relaxed) < 0 && fn(context, task, lane) != CYI_OK) {
                (void)atomic_compare_exchange_strong(&failed, &none, omp_get_thread_num());
            }
        }
    }
    int first = atomic_load(&failed);
    if (first < 0) {
        return CYI_OK;
    }
    struct cyi_error why = b->lanes[first].err;
    for (int i = 0; i < n_lanes; i++) {
        b->lanes[i].err = (struct cyi_error){ 0 };
    }
    return error_set(err, why.code, "%s", why.text);
}

enum cyi_status onednn_prepare(struct onednn *b, const struct shim_spec *spec, const struct shim_op **ret_op,
                               struct cyi_error *err) {
    for (size_t i = 0; i < b->n_prepared; i++) {
        if (memcmp(&b->prepared[i].spec, spec, sizeof *spec) == 0) {
            *ret_op = b->prepared[i].op;
            return CYI_OK;
        }
    }
    void *array = b->prepared;
    enum cyi_status st = onednn_grow(b, &array, &b->prepared_capacity, b->n_prepared, sizeof *b->prepared, err);
    b->prepared = array;
    if (st != CYI_OK) {
        return st;
    }
    struct shim_op *op;
    st = shim_op_create(b->shim, spec, &op, err);
    if (st == CYI_OK) {
        b->prepared[b->n_prepared++] = (struct prepared){ .spec = *spec, .op = op };
        *ret_op = op;
    }
    return st;
}

const float *onednn_vector(const struct onednn *b, const struct tensor *t, struct carve *carve) {
    if (t == NULL) {
        return NULL;
    }
    if (t->dtype == DTYPE_F32 && (uintptr_t)t->data % sizeof(float) == 0) {
        return t->data;
    }
    int64_t n = tensor_n_elements(t);
    float *values = carve_take(carve, n, sizeof *values);
    if (values != NULL) {
        b->kernels->load(t->dtype, t->data, values, n);
    }
    return values;
}
