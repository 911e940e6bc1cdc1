/* What the files of the fake runtime share. */
#ifndef FAKE_INTERNAL_H
#define FAKE_INTERNAL_H

#include "fake_cuda.h"

struct fake_settings {
    size_t memory_bytes;
    int compute;
    bool is_lazy;
    long allocations_to_failure; /* 0: never */
    long work_to_failure;
    cudaError_t work_failure;
    enum fake_gemm_limits gemm_limits;
};

/* Settings of this run; the first call reads the environment. */
struct fake_settings *fake_settings(void);

/* ---- fake_cudart.c: errors ---- */

/* Every call of the runtime begins with this: the sticky error, or success. */
cudaError_t fake_begin_call(void);
/* Remembers an error of a call and returns it. */
cudaError_t fake_fail(cudaError_t code);
void fake_set_sticky(cudaError_t code);
cudaError_t fake_get_sticky(void);

/* ---- fake_memory.c ---- */

void fake_memory_reset(void);
long fake_memory_get_n_held(void);
/* Is [address, address + size) inside one block that is allocated and not given back to a stream? */
bool fake_memory_is_valid(const void *address, size_t size_bytes);
bool fake_memory_is_in_region(const void *address);
bool fake_memory_is_pinned(const void *address);
void fake_memory_release(void *block); /* of cudaFreeAsync, in stream order */

/* ---- fake_streams.c ---- */

void fake_streams_reset(void);
long fake_streams_get_n_held(void);
/* Runs all that is queued. */
cudaError_t fake_drain_all(void);
/* For calls that a capture does not allow: breaks the capture. is_always: even a relaxed one. */
cudaError_t fake_forbid_in_capture(bool is_always);
/* Puts cudaFreeAsync's block on the stream. */
cudaError_t fake_queue_release(cudaStream_t stream, void *block);
cudaError_t fake_check_stream(cudaStream_t stream);

#endif
