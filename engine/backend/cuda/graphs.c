/* Recordings: the operations of a step as one CUDA graph. See begin_recording in backend.h.
 *
 * The first time a key is seen the operations run as they come: weights are loaded, libraries make their plans, scratch grows. When
 * nothing that they used has moved since, they are captured the next time, and replayed from then on. A capture never copies: what needs
 * the card at once ends it (graphs_break), and the step runs again without one. */
#include "backend/cuda/private.h"

#define MAX_GRAPHS 8

struct recording {
    uint64_t key; /* 0: an empty place */
    uint64_t last_use;
    bool is_steady;                  /* when it ran last, all that it used stayed where it was … */
    uint64_t n_moves, layout, phase; /* … and then memory was like this */
    cudaGraphExec_t graph;           /* NULL: not captured */
    bool is_never;                   /* it could not be captured once */
};

struct cuda_graphs {
    struct recording recordings[MAX_GRAPHS];
    struct recording *current;
    bool is_capturing, is_broken;
    uint64_t n_uses;
    uint64_t n_losses; /* of weights, when the current one began */
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
    if (c->graphs != NULL && c->graphs->is_capturing) {
        (void)graphs_break(c, NULL);
    }
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
    *oldest = (struct recording){ .key = key };
    return oldest;
}

/* Ends the capture. NULL: nothing came of it. */
static cudaGraph_t take_graph(struct cuda *c) {
    cudaGraph_t graph = NULL;
    c->graphs->is_capturing = false;
    if (cudaStreamEndCapture(c->stream, &graph) != cudaSuccess) {
        (void)cudaGetLastError(); /* dealt with: the step runs without a recording */
        return NULL;
    }
    return graph;
}

enum cyi_status graphs_break(struct cuda *c, struct cyi_error *err) {
    if (!c->graphs->is_capturing) {
        return CYI_OK;
    }
    cudaGraph_t graph = take_graph(c);
    c->graphs->is_broken = true;
    c->graphs->current->is_steady = false;
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    return error_set(err, CYI_E_UNSUPPORTED, "a step that needs a copy cannot be recorded");
}

bool graphs_is_broken(const struct cuda *c) {
    return c->graphs->is_broken;
}

static bool has_moved(const struct cuda *c, const struct recording *r) {
    return !r->is_steady || r->n_moves != memory_get_n_moves(c) || r->layout != memory_get_layout(c);
}

enum cyi_status graphs_begin(struct cuda *c, uint64_t key, bool *ret_is_replayed, struct cyi_error *err) {
    struct cuda_graphs *all = c->graphs;
    struct recording *r = find(all, key == 0 ? 1 : key);
    enum cyi_status st = CYI_OK;
    r->last_use = ++all->n_uses;
    all->current = r;
    all->is_broken = false;
    all->n_losses = weights_get_n_losses(c);
    *ret_is_replayed = false;
    codes_forget(c); /* a replay does not tell what it writes */
    if (has_moved(c, r)) {
        drop(r);
    } else if (r->graph != NULL) {
        TRY(cuda_check(cudaGraphLaunch(r->graph, c->stream), "a recorded step", err));
        weights_renew(c, r->phase);
        r->phase = weights_get_phase(c);
        *ret_is_replayed = true;
    } else if (!r->is_never) {
        all->is_capturing = cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed) == cudaSuccess;
        r->is_never = !all->is_capturing;
        if (r->is_never) {
            (void)cudaGetLastError(); /* dealt with */
        }
    }
done:
    return st;
}

/* Runs what was captured. *ret_is_lost: nothing has run, the operations must be called again. */
static enum cyi_status end_capture(struct cuda *c, struct recording *r, bool is_complete, bool *ret_is_lost,
                                   struct cyi_error *err) {
    cudaGraph_t graph = take_graph(c);
    bool is_good = graph != NULL && is_complete && !has_moved(c, r);
    bool is_made = is_good && cudaGraphInstantiate(&r->graph, graph, 0) == cudaSuccess;
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    if (is_made) {
        return cuda_check(cudaGraphLaunch(r->graph, c->stream), "a recorded step", err);
    }
    if (is_good) {
        (void)cudaGetLastError();
    }
    r->graph = NULL;
    r->is_never = is_complete && (graph == NULL || is_good);
    *ret_is_lost = is_complete;
    return CYI_OK;
}

enum cyi_status graphs_end(struct cuda *c, bool is_complete, bool *ret_is_lost, struct cyi_error *err) {
    struct cuda_graphs *all = c->graphs;
    struct recording *r = all->current;
    enum cyi_status st = CYI_OK;
    *ret_is_lost = all->is_broken && is_complete;
    if (all->is_capturing) {
        st = end_capture(c, r, is_complete, ret_is_lost, err);
    }
    all->is_broken = false;
    codes_forget(c);
    r->is_steady = st == CYI_OK && is_complete && !*ret_is_lost && all->n_losses == weights_get_n_losses(c);
    r->n_moves = memory_get_n_moves(c);
    r->layout = memory_get_layout(c);
    r->phase = weights_get_phase(c);
    return st;
}
