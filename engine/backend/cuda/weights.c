/* Weights on the card: see cuda_get_weight in cuda.h.
 *
 * The first use of a weight copies it from the mapped file and puts it into the form that the operation needs. It stays while there is
 * room. Weights that this phase has not read go first when room is needed; when the phase's own do not all fit, those that came first stay
 * and the others stream: each use copies into the next slot of a ring, on a stream of its own, while the host is ahead of the card and
 * earlier operations still compute. */
#include <string.h>

#include "backend/cuda/private.h"

#define N_SLOTS 3
#define FIRST_PLACES 1024            /* of the table, a power of two */
#define SLAB_BYTES ((size_t)4 << 20) /* small weights share blocks of this size */
#define SLAB_MAX ((size_t)64 << 10)  /* up to which a weight is small */
#define MAX_SLABS 256
#define STREAMING_RESERVE ((uint64_t)512 << 20) /* that stays free for activations and scratch when weights stream … */
#define RESERVE_PART 8                          /* … but no more than one of so many parts of the memory */

struct entry {
    const void *host; /* NULL: an empty place */
    enum weight_form form;
    int64_t n_elements;
    uint8_t *data; /* NULL: it streams */
    float *scale;
    size_t size_bytes;         /* of the block; 0: in a slab */
    uint64_t phase, operation; /* in which it was read last */
};

/* A place that streaming weights take turns in. */
struct slot {
    void *data;
    size_t size_bytes;
    cudaEvent_t is_filled, is_read;
};

struct cuda_weights {
    struct entry *entries;
    size_t n_places, n_entries;
    uint64_t phase, operation, n_losses;
    void *slabs[MAX_SLABS];
    size_t n_slabs, slab_used_bytes;
    struct slot slots[N_SLOTS];
    size_t next_slot;
    struct slot *in_use; /* by the operation that runs: its is_read is recorded when the next weight streams */
    cudaStream_t stream;
};

/* ---- The table ---- */

static size_t place_of(const struct cuda_weights *w, const void *host, enum weight_form form) {
    uint64_t hash = ((uint64_t)(uintptr_t)host ^ (uint64_t)form << 60) * 0x9e3779b97f4a7c15U;
    return (size_t)(hash >> 20) & (w->n_places - 1);
}

/* The entry, or the empty place where it belongs. */
static struct entry *find(const struct cuda_weights *w, const struct tensor *host, enum weight_form form) {
    size_t i = place_of(w, host->data, form);
    while (w->entries[i].host != NULL && (w->entries[i].host != host->data || w->entries[i].form != form ||
                                          w->entries[i].n_elements != tensor_n_elements(host))) {
        i = (i + 1) & (w->n_places - 1);
    }
    return &w->entries[i];
}

static enum cyi_status grow(struct cuda *c, struct cyi_error *err) {
    struct cuda_weights *w = c->weights;
    struct entry *old = w->entries;
    size_t n_old = w->n_places;
    size_t n_new = n_old == 0 ? FIRST_PLACES : 2 * n_old;
    struct entry *entries = mem_alloc_zeroed(c->allocator, n_new, sizeof *entries);
    if (entries == NULL) {
        return error_memory(err, "the table of weights", n_new * sizeof *entries);
    }
    w->entries = entries;
    w->n_places = n_new;
    for (size_t i = 0; i < n_old; i++) {
        if (old[i].host != NULL) {
            size_t at = place_of(w, old[i].host, old[i].form);
            while (entries[at].host != NULL) {
                at = (at + 1) & (n_new - 1);
            }
            entries[at] = old[i];
        }
    }
    mem_free(c->allocator, old);
    return CYI_OK;
}

/* ---- Room ---- */

void weights_enter(struct cuda *c) {
    c->weights->phase++;
}

void weights_begin_operation(struct cuda *c) {
    c->weights->operation++;
}

/* The resident weight that was read longest ago. Small ones stay for good. */
static struct entry *find_oldest(const struct cuda_weights *w, bool is_any_phase) {
    struct entry *oldest = NULL;
    for (size_t i = 0; i < w->n_places; i++) {
        struct entry *e = &w->entries[i];
        if (e->data != NULL && e->size_bytes > 0 && (is_any_phase || e->phase != w->phase) &&
            e->operation != w->operation && (oldest == NULL || e->phase < oldest->phase)) {
            oldest = e;
        }
    }
    return oldest;
}

bool weights_evict(struct cuda *c, size_t size_bytes, bool is_any_phase) {
    struct cuda_weights *w = c->weights;
    size_t n_given = 0;
    while (w != NULL && n_given < size_bytes) {
        struct entry *e = find_oldest(w, is_any_phase);
        if (e == NULL) {
            break;
        }
        n_given += e->size_bytes;
        memory_give(c, e->data);
        memory_moved(c);
        e->data = NULL;
        w->n_losses += e->phase == w->phase ? 1 : 0;
    }
    return n_given > 0;
}

uint64_t weights_get_evictable(const struct cuda *c) {
    const struct cuda_weights *w = c->weights;
    uint64_t sum = 0;
    for (size_t i = 0; i < w->n_places; i++) {
        sum += w->entries[i].data != NULL ? w->entries[i].size_bytes : 0;
    }
    return sum;
}

uint64_t weights_get_n_losses(const struct cuda *c) {
    return c->weights->n_losses;
}

uint64_t weights_get_phase(const struct cuda *c) {
    return c->weights->phase;
}

void weights_renew(struct cuda *c, uint64_t phase) {
    struct cuda_weights *w = c->weights;
    for (size_t i = 0; i < w->n_places && phase != w->phase; i++) {
        if (w->entries[i].phase == phase) {
            w->entries[i].phase = w->phase;
        }
    }
}

/* ---- Forms ---- */

static bool is_codes(enum weight_form form) {
    return form == WEIGHT_FP8 || form == WEIGHT_INT8;
}

static size_t round_up(size_t n, size_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* Bytes of a weight in its form; codes are followed by their scales. */
static size_t size_of_form(const struct tensor *host, enum weight_form form, size_t *ret_scale_at) {
    size_t n = (size_t)tensor_n_elements(host);
    size_t filter = 0;
    *ret_scale_at = 0;
    switch (form) {
    case WEIGHT_F32:
        return n * sizeof(float);
    case WEIGHT_BF16:
        return n * sizeof(uint16_t);
    case WEIGHT_FP8:
    case WEIGHT_INT8:
        *ret_scale_at = round_up(n, 256);
        return *ret_scale_at + (size_t)tensor_n_rows(host) * sizeof(float);
    default:
        filter = n / (size_t)host->shape[1] * round_up((size_t)host->shape[1], 8);
        return filter * (form == WEIGHT_CONV_F32 ? sizeof(float) : sizeof(uint16_t));
    }
}

/* Does the file hold it as the form is? */
static bool is_as_it_stands(const struct tensor *host, enum weight_form form) {
    return (form == WEIGHT_F32 && host->dtype == DTYPE_F32) || (form == WEIGHT_BF16 && host->dtype == DTYPE_BF16);
}

/* From the bytes of the file, on the card already, to the form. */
static enum cyi_status convert(struct cuda *c, const struct tensor *host, const void *raw, enum weight_form form,
                               uint8_t *data, float *scale, struct cyi_error *err) {
    struct gpu_matrix from = cuda_matrix(host);
    from.data = (void *)(uintptr_t)raw;
    from.row_stride = from.n_cols;
    struct gpu_matrix to = { data, GPU_F32, from.n_rows, from.n_cols, from.n_cols };
    enum cyi_status st = CYI_OK;
    switch (form) {
    case WEIGHT_BF16:
        to.type = GPU_BF16;
        gpu_cast(&from, &to, c->stream);
        break;
    case WEIGHT_F32:
        gpu_cast(&from, &to, c->stream);
        break;
    case WEIGHT_FP8:
    case WEIGHT_INT8:
        if (from.type != GPU_F32 && from.type != GPU_BF16) {
            void *floats;
            TRY(cuda_new_scratch(c, (size_t)tensor_n_elements(host) * sizeof(float), &floats, err));
            to.data = floats;
            gpu_cast(&from, &to, c->stream);
            from = to;
        }
        gpu_quantise_rows(&from, &(struct gpu_codes){ data, scale, form == WEIGHT_FP8 ? GPU_F8_E4M3 : GPU_I8 },
                          c->stream);
        break;
    default:
        gpu_reorder_filter(raw, from.type, host->shape[0], host->shape[1], host->shape[2], host->shape[3],
                           (int64_t)round_up((size_t)host->shape[1], 8), data,
                           form == WEIGHT_CONV_F32 ? GPU_F32 : GPU_BF16, c->stream);
        break;
    }
    TRY(cuda_check_launch("preparing a weight", err));
done:
    return st;
}

/* ---- Loading ---- */

static enum cyi_status load(struct cuda *c, const struct tensor *host, enum weight_form form, uint8_t *data,
                            float *scale, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    void *raw = data;
    if (!is_as_it_stands(host, form)) {
        TRY(cuda_new_scratch(c, tensor_n_bytes(host), &raw, err));
    }
    TRY(memory_upload(c, host->data, raw, tensor_n_bytes(host), c->stream, err));
    if (raw != data) {
        TRY(convert(c, host, raw, form, data, scale, err));
    }
done:
    return st;
}

/* A piece of a slab. NULL: none left. */
static uint8_t *take_small(struct cuda *c, size_t size_bytes) {
    struct cuda_weights *w = c->weights;
    size_t size = round_up(size_bytes, 256);
    if (w->n_slabs == 0 || SLAB_BYTES - w->slab_used_bytes < size) {
        void *slab = w->n_slabs < MAX_SLABS ? memory_take(c, SLAB_BYTES, true) : NULL;
        if (slab == NULL) {
            return NULL;
        }
        w->slabs[w->n_slabs++] = slab;
        w->slab_used_bytes = 0;
    }
    w->slab_used_bytes += size;
    return (uint8_t *)w->slabs[w->n_slabs - 1] + w->slab_used_bytes - size;
}

/* Room for a weight that is to stay: what the rest of the phase needs for itself is left alone. NULL: it streams. */
static uint8_t *take_resident(struct cuda *c, size_t size_bytes) {
    uint64_t part = memory_get_max(c) / RESERVE_PART;
    uint64_t reserve = part < STREAMING_RESERVE ? part : STREAMING_RESERVE;
    while (memory_get_free(c) < size_bytes + reserve) {
        if (!memory_release_scratch(c) && !weights_evict(c, size_bytes, false)) {
            return NULL;
        }
    }
    return memory_take(c, size_bytes, false);
}

/* ---- Streaming ---- */

/* The next slot, large enough, and free once the copies' stream has waited. */
static enum cyi_status next_slot(struct cuda *c, size_t size_bytes, struct slot **ret, struct cyi_error *err) {
    struct cuda_weights *w = c->weights;
    enum cyi_status st = CYI_OK;
    if (w->in_use != NULL) {
        TRY(cuda_check(cudaEventRecord(w->in_use->is_read, c->stream), "an event", err));
    }
    struct slot *s = &w->slots[w->next_slot];
    w->next_slot = (w->next_slot + 1) % N_SLOTS;
    w->in_use = s;
    if (s->is_filled == NULL) {
        TRY(cuda_check(cudaEventCreateWithFlags(&s->is_filled, cudaEventDisableTiming), "an event", err));
        TRY(cuda_check(cudaEventCreateWithFlags(&s->is_read, cudaEventDisableTiming), "an event", err));
    }
    if (s->size_bytes < size_bytes) {
        TRY(cuda_check(cudaStreamSynchronize(w->stream), "waiting for copies", err));
        memory_give(c, s->data);
        s->size_bytes = 0;
        s->data = memory_take(c, size_bytes, true);
        if (s->data == NULL) {
            w->in_use = NULL;
            TRY(error_memory(err, "a weight on the card", size_bytes));
        }
        s->size_bytes = size_bytes;
        /* The block may still be read by what was before it on the other stream. */
        TRY(cuda_check(cudaEventRecord(s->is_read, c->stream), "an event", err));
    }
    TRY(cuda_check(cudaStreamWaitEvent(w->stream, s->is_read, 0), "an event", err));
    *ret = s;
done:
    return st;
}

static enum cyi_status stream(struct cuda *c, const struct tensor *host, enum weight_form form, size_t size_bytes,
                              size_t scale_at, struct device_weight *ret, struct cyi_error *err) {
    struct cuda_weights *w = c->weights;
    struct slot *s = NULL;
    void *data;
    enum cyi_status st = CYI_OK;
    w->n_losses++; /* a recording would read the slot as it is when it is replayed */
    TRY(next_slot(c, tensor_n_bytes(host), &s, err));
    TRY(memory_upload(c, host->data, s->data, tensor_n_bytes(host), w->stream, err));
    TRY(cuda_check(cudaEventRecord(s->is_filled, w->stream), "an event", err));
    TRY(cuda_check(cudaStreamWaitEvent(c->stream, s->is_filled, 0), "an event", err));
    *ret = (struct device_weight){ .data = s->data };
    if (!is_as_it_stands(host, form)) {
        TRY(cuda_new_scratch(c, size_bytes, &data, err));
        ret->data = data;
        ret->scale = is_codes(form) ? (float *)(void *)((uint8_t *)data + scale_at) : NULL;
        TRY(convert(c, host, s->data, form, data, (float *)(void *)((uint8_t *)data + scale_at), err));
    }
done:
    return st;
}

/* ---- Getting ---- */

enum cyi_status cuda_get_weight(struct cuda *c, const struct tensor *host, enum weight_form form,
                                struct device_weight *ret, struct cyi_error *err) {
    struct cuda_weights *w = c->weights;
    enum cyi_status st = CYI_OK;
    size_t scale_at;
    *ret = (struct device_weight){ 0 };
    if (host == NULL) {
        return CYI_OK;
    }
    if (2 * w->n_entries >= w->n_places) {
        TRY(grow(c, err));
    }
    struct entry *e = find(w, host, form);
    size_t size = size_of_form(host, form, &scale_at);
    if (e->host == NULL) {
        *e = (struct entry){ .host = host->data, .form = form, .n_elements = tensor_n_elements(host) };
        w->n_entries++;
    }
    e->phase = w->phase;
    e->operation = w->operation;
    if (e->data == NULL) {
        TRY(graphs_break(c, err)); /* or the copy would only be recorded */
        bool is_small = size <= SLAB_MAX;
        uint8_t *data = is_small ? take_small(c, size) : take_resident(c, size);
        if (data == NULL) {
            return stream(c, host, form, size, scale_at, ret, err);
        }
        float *scale = is_codes(form) ? (float *)(void *)(data + scale_at) : NULL;
        st = load(c, host, form, data, scale, err);
        if (st != CYI_OK) {
            if (!is_small) {
                memory_give(c, data);
            }
            goto done;
        }
        e->data = data;
        e->scale = scale;
        e->size_bytes = is_small ? 0 : size;
    }
    *ret = (struct device_weight){ e->data, e->scale };
done:
    return st;
}

enum cyi_status cuda_get_floats(struct cuda *c, const struct tensor *host, const float **ret, struct cyi_error *err) {
    struct device_weight weight;
    enum cyi_status st = cuda_get_weight(c, host, WEIGHT_F32, &weight, err);
    *ret = weight.data;
    return st;
}

/* ---- Beginning and end ---- */

enum cyi_status weights_create(struct cuda *c, struct cyi_error *err) {
    c->weights = mem_alloc_zeroed(c->allocator, 1, sizeof *c->weights);
    if (c->weights == NULL) {
        return error_memory(err, "the table of weights", sizeof *c->weights);
    }
    enum cyi_status st = grow(c, err);
    return st != CYI_OK ? st
                        : cuda_check(cudaStreamCreateWithFlags(&c->weights->stream, cudaStreamNonBlocking),
                                     "a stream for copies", err);
}

void weights_free(struct cuda *c) {
    struct cuda_weights *w = c->weights;
    if (w == NULL) {
        return;
    }
    for (int i = 0; i < N_SLOTS; i++) {
        if (w->slots[i].is_filled != NULL) {
            (void)cudaEventDestroy(w->slots[i].is_filled);
        }
        if (w->slots[i].is_read != NULL) {
            (void)cudaEventDestroy(w->slots[i].is_read);
        }
    }
    if (w->stream != NULL) {
        (void)cudaStreamDestroy(w->stream);
    }
    mem_free(c->allocator, w->entries);
    mem_free(c->allocator, w); /* the blocks go with the pool */
}
