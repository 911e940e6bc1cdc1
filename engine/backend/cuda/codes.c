/* Quantised twins of activations: see cuda.h. */
#include "backend/cuda/private.h"

#define MAX_TWINS 32

struct twin {
    struct tensor of; /* data NULL: an empty place */
    struct gpu_codes codes;
    uint64_t operation; /* that made it; 0: dead, the memory is kept for the next time */
};

struct cuda_codes {
    struct twin twins[MAX_TWINS];
    uint64_t operation; /* number of the one that runs, from 1 */
    size_t next;        /* place to use when all are taken */
};

enum cyi_status codes_create(struct cuda *c, struct cyi_error *err) {
    c->codes = mem_alloc_zeroed(c->allocator, 1, sizeof *c->codes);
    if (c->codes == NULL) {
        return error_memory(err, "the table of codes", sizeof *c->codes);
    }
    c->codes->operation = 1;
    return CYI_OK;
}

static void drop(struct cuda *c, struct twin *t) {
    if (t->codes.data != NULL) {
        memory_moved(c);
    }
    memory_give(c, t->codes.data);
    memory_give(c, t->codes.scale);
    *t = (struct twin){ 0 };
}

void codes_free(struct cuda *c) {
    mem_free(c->allocator, c->codes); /* the blocks go with the pool */
}

static bool is_same(const struct tensor *a, const struct tensor *b) {
    return a->data == b->data && a->row_stride == b->row_stride && tensor_n_rows(a) == tensor_n_rows(b) &&
           tensor_n_cols(a) == tensor_n_cols(b);
}

void cuda_new_codes(struct cuda *c, const struct tensor *y, struct gpu_codes *ret) {
    struct cuda_codes *all = c->codes;
    size_t n_rows = (size_t)tensor_n_rows(y);
    size_t n_cols = (size_t)tensor_n_cols(y);
    *ret = (struct gpu_codes){ 0 };
    if (c->products == BACKEND_PRODUCTS_PLAIN || n_cols % 16 != 0) {
        return;
    }
    struct twin *place = NULL;
    for (size_t i = 0; i < MAX_TWINS && place == NULL; i++) {
        place = is_same(&all->twins[i].of, y) ? &all->twins[i] : NULL;
    }
    if (place == NULL) {
        place = &all->twins[all->next];
        all->next = (all->next + 1) % MAX_TWINS;
        drop(c, place);
        void *data = memory_take(c, n_rows * n_cols, true);
        void *scale = memory_take(c, n_rows * sizeof(float), true);
        if (data == NULL || scale == NULL) {
            memory_give(c, data);
            memory_give(c, scale);
            return; /* whoever reads y makes codes of its own then */
        }
        place->of = *y;
        place->codes = (struct gpu_codes){ data, scale, cuda_code_type(c) };
    }
    place->operation = all->operation;
    *ret = place->codes;
}

void cuda_find_codes(struct cuda *c, const struct tensor *x, struct gpu_codes *ret) {
    *ret = (struct gpu_codes){ 0 };
    for (size_t i = 0; i < MAX_TWINS; i++) {
        const struct twin *t = &c->codes->twins[i];
        if (t->operation != 0 && is_same(&t->of, x)) {
            *ret = t->codes;
            return;
        }
    }
}

void codes_forget(struct cuda *c) {
    for (size_t i = 0; i < MAX_TWINS; i++) {
        c->codes->twins[i].operation = 0;
    }
}

/* From the first byte of a tensor to behind its last. */
static void range_of(const struct tensor *t, uintptr_t *ret_first, uintptr_t *ret_end) {
    int64_t n = (tensor_n_rows(t) - 1) * t->row_stride + tensor_n_cols(t);
    *ret_first = (uintptr_t)t->data;
    *ret_end = *ret_first + (uintptr_t)n * dtype_size(t->dtype);
}

void codes_end_operation(struct cuda *c, const struct tensor *written) {
    struct cuda_codes *all = c->codes;
    uintptr_t first;
    uintptr_t end;
    range_of(written, &first, &end);
    for (size_t i = 0; i < MAX_TWINS; i++) {
        struct twin *t = &all->twins[i];
        if (t->operation == 0 || t->operation == all->operation) {
            continue;
        }
        uintptr_t twin_first;
        uintptr_t twin_end;
        range_of(&t->of, &twin_first, &twin_end);
        if (twin_first < end && first < twin_end) {
            t->operation = 0;
        }
    }
    all->operation++;
}
