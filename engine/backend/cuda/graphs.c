/* Recordings: the operations of a step as one CUDA graph. See begin_recording in backend.h.
 *
 * The first time a key is seen the operations run as they come: weights are loaded, libraries make their plans, scratch grows. The second
 * time they are captured, from then on replayed, unless weights moved in between. */
#include "backend/cuda/private.h"

#define MAX_GRAPHS 8

struct recording {
    uint64_t key;        /* 0: an empty place */
    uint64_t generation; /* of the weights when it last ran */
    uint64_t last_use;
    cudaGraphExec_t graph; /* NULL: not captured */
    bool is_never;         /* it could not be captured once */
};

struct cuda_graphs {
    struct recording recordings[MAX_GRAPHS];
    struct recording *current;
    bool is_capturing;
    uint64_t n_uses;
};

enum cyi_status graphs_create(struct cuda *c, struct cyi_error *err) {
    c->graphs = mem_alloc_zeroed(c->allocator, 1, sizeof *c->graphs);
    return c->graphs != NULL ? CYI_OK : error_memory(err, "the table of recordings", sizeof *c->graphs);
}

static void drop(struct recording *r) {
    if (r->graph != NULL) {
        (void)cudaGraphExecDestroy(r->graph);
        r->graph = NULL;
    }
}

void graphs_free(struct cuda *c) {
    for (int i = 0; c->graphs != NULL && i < MAX_GRAPHS; i++) {
        drop(&c->graphs->recordings[i]);
    }
    mem_free(c->allocator, c->graphs);
}

/* The recording of a key; a new one in the place that was not used for longest. */
static struct recording *find(struct cuda_graphs *all, uint64_t key) {
    struct recording *oldest = &all->recordings[0];
    for (int i = 0; i < MAX_GRAPHS; i++) {
        struct recording *r = &all->recordings[i];
        if (r->key == key) {
            return r;
        }
        oldest = r->last_use < oldest->last_use ? r : oldest;
    }
    drop(oldest);
    *oldest = (struct recording){ .key = key, .generation = UINT64_MAX };
    return oldest;
}

enum cyi_status graphs_begin(struct cuda *c, uint64_t key, bool *ret_is_replayed, struct cyi_error *err) {
    struct cuda_graphs *all = c->graphs;
    struct recording *r = find(all, key == 0 ? 1 : key);
    bool is_steady = r->generation == weights_get_generation(c);
    enum cyi_status st = CYI_OK;
    r->last_use = ++all->n_uses;
    all->current = r;
    all->is_capturing = false;
    *ret_is_replayed = false;
    if (!is_steady) {
        drop(r);
    } else if (r->graph != NULL) {
        TRY(cuda_check(cudaGraphLaunch(r->graph, c->stream), "a recorded step", err));
        *ret_is_replayed = true;
    } else if (!r->is_never) {
        TRY(cuda_check(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed), "recording a step", err));
        all->is_capturing = true;
    }
    r->generation = weights_get_generation(c);
done:
    return st;
}

/* Ends a capture and runs what was captured. *ret_is_lost: nothing has run, the operations must be called again. */
static enum cyi_status end_capture(struct cuda *c, struct recording *r, bool is_complete, bool *ret_is_lost,
                                   struct cyi_error *err) {
    cudaGraph_t graph = NULL;
    bool is_good = cudaStreamEndCapture(c->stream, &graph) == cudaSuccess && graph != NULL && is_complete &&
                   r->generation == weights_get_generation(c) &&
                   cudaGraphInstantiate(&r->graph, graph, 0) == cudaSuccess;
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    if (!is_good) {
        (void)cudaGetLastError(); /* dealt with: the step runs without a recording */
        drop(r);
        r->is_never = is_complete;
        *ret_is_lost = is_complete;
        return CYI_OK;
    }
    return cuda_check(cudaGraphLaunch(r->graph, c->stream), "a recorded step", err);
}

enum cyi_status graphs_end(struct cuda *c, bool is_complete, bool *ret_is_lost, struct cyi_error *err) {
    struct cuda_graphs *all = c->graphs;
    enum cyi_status st = CYI_OK;
    *ret_is_lost = false;
    if (all->is_capturing) {
        st = end_capture(c, all->current, is_complete, ret_is_lost, err);
    }
    all->current->generation = weights_get_generation(c);
    all->is_capturing = false;
    return st;
}
