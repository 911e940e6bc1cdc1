/* What the core files of the backend tell each other: memory, weights, codes, graphs. Inside of engine/backend/cuda. */
#ifndef BACKEND_CUDA_PRIVATE_H
#define BACKEND_CUDA_PRIVATE_H

#include "backend/cuda/cuda.h"

/* ---- memory.c ---- */

enum cyi_status memory_create(struct cuda *c, uint64_t max_bytes, int n_threads, struct cyi_error *err);
void memory_free(struct cuda *c);
const struct cyi_allocator *memory_get_allocator(struct cuda *c);
/* Device memory from the pool, in stream order. NULL: none left, even after weights that are not in use have gone (may_evict: any weight,
 * else only those of earlier phases). */
void *memory_take(struct cuda *c, size_t size_bytes, bool may_evict);
void memory_give(struct cuda *c, void *block); /* NULL is fine */
void memory_reset_scratch(struct cuda *c);
/* Gives back the pieces of scratch that the current operation has not asked for. false: there are none. */
bool memory_release_scratch(struct cuda *c);
uint64_t memory_get_free(const struct cuda *c); /* that may still be taken */
uint64_t memory_get_max(const struct cuda *c);
/* Memory that a recording may hold the address of is about to become another's: recordings made before are void. */
void memory_moved(struct cuda *c);
uint64_t memory_get_n_moves(const struct cuda *c);
/* The blocks that arenas hold, in one number: recordings hold addresses in them. */
uint64_t memory_get_layout(const struct cuda *c);
size_t memory_get_peak(const struct cuda *c);
/* Copies from the host through pinned memory, on a stream; the host's memory may change at once. */
enum cyi_status memory_upload(struct cuda *c, const void *host, void *device, size_t n_bytes, cudaStream_t stream,
                              struct cyi_error *err);
enum cyi_status memory_upload_tensor(struct cuda *c, const struct tensor *host, const struct tensor *device,
                                     struct cyi_error *err);
enum cyi_status memory_download_tensor(struct cuda *c, const struct tensor *device, const struct tensor *host,
                                       struct cyi_error *err);

/* ---- weights.c ---- */

enum cyi_status weights_create(struct cuda *c, struct cyi_error *err);
void weights_free(struct cuda *c);
void weights_enter(struct cuda *c);
void weights_begin_operation(struct cuda *c); /* what an operation has asked for stays until the next begins */
/* Gives back at least so many bytes, if there are weights that can go. false: nothing went. */
bool weights_evict(struct cuda *c, size_t size_bytes, bool is_any_phase);
uint64_t weights_get_evictable(const struct cuda *c);
/* How often a weight that the current phase reads did not stay: while it grows, nothing can be recorded. */
uint64_t weights_get_n_losses(const struct cuda *c);
uint64_t weights_get_phase(const struct cuda *c);
/* What was read in that phase has been read in the current one, by a recording. */
void weights_renew(struct cuda *c, uint64_t phase);

/* ---- codes.c ---- */

enum cyi_status codes_create(struct cuda *c, struct cyi_error *err);
void codes_free(struct cuda *c);
/* The operation is over that wrote this; codes of overlapping memory die unless that operation made them. */
void codes_end_operation(struct cuda *c, const struct tensor *written);
void codes_forget(struct cuda *c); /* all of them die */

/* ---- graphs.c ---- */

enum cyi_status graphs_create(struct cuda *c, struct cyi_error *err);
void graphs_free(struct cuda *c);
/* Something needs the card at once, a copy for example: what is being captured is thrown away, and the step will be called again. An
 * operation that is told so gives up with any status; the rest of the step does nothing. */
enum cyi_status graphs_break(struct cuda *c, struct cyi_error *err);
bool graphs_is_broken(const struct cuda *c);
enum cyi_status graphs_begin(struct cuda *c, uint64_t key, bool *ret_is_replayed, struct cyi_error *err);
enum cyi_status graphs_end(struct cuda *c, bool is_complete, bool *ret_is_lost, struct cyi_error *err);

#endif
