/* Streams, events and graphs of the fake runtime.
 *
 * A stream is a queue of work. Eagerly (the default) the queue runs at every call. Lazily, work runs when somebody waits for it, and then
 * only what has to: one stream up to the point that is waited for, others up to the events that stand in its way. Both orders are such as
 * the real device may take. While a stream is captured, its work is appended to a graph instead. */
#include "fake_internal.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum work_kind { WORK_DEVICE, WORK_HOST, WORK_RECORD, WORK_WAIT, WORK_RELEASE };

struct work {
    struct work *next;
    enum work_kind kind;
    const char *name;
    void (*run)(void *data);
    size_t size_bytes;
    struct CUevent_st *event; /* RECORD and WAIT, held */
    uint64_t number;          /* of the event's records */
    struct CUstream_st *recorded_on;
    void *block; /* RELEASE */
    alignas(16) unsigned char data[];
};

struct queue {
    struct work *first, *last;
};

struct CUstream_st {
    struct CUstream_st *next;
    struct queue queue;
    bool is_non_blocking;
    bool is_captured;
};

struct CUevent_st {
    long n_users; /* the owner, and work that names it */
    bool has_no_time;
    uint64_t n_recorded, n_done;
    struct CUstream_st *stream; /* of the last record */
    double time_ms;
    uint64_t capture; /* the capture of the last record; 0: none */
};

struct CUgraph_st {
    struct queue queue;
};

struct CUgraphExec_st {
    struct queue queue;
};

static struct CUstream_st null_stream;
static struct CUstream_st *streams;
static long n_events, n_graphs, n_work;

/* The capture that is going on: one at a time. */
static struct {
    uint64_t number;
    struct CUgraph_st *graph; /* NULL: none */
    struct CUstream_st *origin;
    bool is_relaxed, is_broken;
} capture;

/* ---- Queues ---- */

static struct work *new_work(enum work_kind kind, const char *name, size_t size_bytes) {
    struct work *work = calloc(1, (sizeof *work + size_bytes + 15) / 16 * 16);
    if (work == NULL) {
        fake_cuda_abort("no memory for work of a stream");
    }
    work->kind = kind;
    work->name = name;
    work->size_bytes = size_bytes;
    return work;
}

static void release_event(struct CUevent_st *event) {
    if (event != NULL && --event->n_users == 0) {
        free(event);
    }
}

static void free_work(struct work *work) {
    release_event(work->event);
    free(work);
}

static void append(struct queue *queue, struct work *work) {
    if (queue->last != NULL) {
        queue->last->next = work;
    } else {
        queue->first = work;
    }
    queue->last = work;
}

static struct work *take_first(struct queue *queue) {
    struct work *work = queue->first;
    if (work != NULL) {
        queue->first = work->next;
        queue->last = queue->first == NULL ? NULL : queue->last;
        work->next = NULL;
    }
    return work;
}

static void clear(struct queue *queue) {
    for (struct work *work = take_first(queue); work != NULL; work = take_first(queue)) {
        free_work(work);
    }
}

static void append_copies(struct queue *to, const struct queue *from) {
    for (const struct work *work = from->first; work != NULL; work = work->next) {
        struct work *copy = new_work(work->kind, work->name, work->size_bytes);
        copy->run = work->run;
        memcpy(copy->data, work->data, work->size_bytes);
        append(to, copy);
    }
}

static double get_time_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/* ---- Running ---- */

static void run_first(struct CUstream_st *stream);

static void run_until_recorded(struct CUstream_st *stream, const struct CUevent_st *event, uint64_t number) {
    while (event->n_done < number && stream->queue.first != NULL) {
        run_first(stream);
    }
    if (event->n_done < number) {
        fake_cuda_abort("a stream waits for an event that no stream will record");
    }
}

static void run_on_device(struct work *work) {
    struct fake_settings *settings = fake_settings();
    if (fake_get_sticky() != cudaSuccess) {
        return;
    }
    if (settings->work_to_failure > 0 && --settings->work_to_failure == 0) {
        fake_set_sticky(settings->work_failure);
        return;
    }
    n_work++;
    fake_cuda_open_memory();
    work->run(work->data);
    fake_cuda_close_memory();
}

static void run_first(struct CUstream_st *stream) {
    struct work *work = take_first(&stream->queue);
    switch (work->kind) {
    case WORK_DEVICE:
        run_on_device(work);
        break;
    case WORK_HOST:
        work->run(*(void **)(void *)work->data);
        break;
    case WORK_RECORD:
        work->event->time_ms = get_time_ms();
        work->event->n_done = work->number > work->event->n_done ? work->number : work->event->n_done;
        break;
    case WORK_WAIT:
        if (work->event->n_done < work->number) {
            run_until_recorded(work->recorded_on, work->event, work->number);
        }
        break;
    case WORK_RELEASE:
        fake_memory_release(work->block);
        break;
    }
    free_work(work);
}

static void drain(struct CUstream_st *stream) {
    while (stream->queue.first != NULL) {
        run_first(stream);
    }
}

/* Later streams first: another order than that of the calls. */
static void drain_blocking(void) {
    drain(&null_stream);
    for (struct CUstream_st *stream = streams; stream != NULL; stream = stream->next) {
        if (!stream->is_non_blocking) {
            drain(stream);
        }
    }
}

cudaError_t fake_drain_all(void) {
    drain(&null_stream);
    for (struct CUstream_st *stream = streams; stream != NULL; stream = stream->next) {
        drain(stream);
    }
    return fake_get_sticky();
}

/* ---- Putting work on a stream ---- */

static struct CUstream_st *find_stream(cudaStream_t stream) {
    if (stream == NULL || stream == cudaStreamLegacy || stream == cudaStreamPerThread) {
        return &null_stream;
    }
    for (struct CUstream_st *s = streams; s != NULL; s = s->next) {
        if (s == stream) {
            return s;
        }
    }
    return NULL;
}

cudaError_t fake_check_stream(cudaStream_t stream) {
    return find_stream(stream) != NULL ? cudaSuccess : fake_fail(cudaErrorInvalidResourceHandle);
}

static cudaError_t break_capture(cudaError_t code) {
    capture.is_broken = true;
    return fake_fail(code);
}

cudaError_t fake_forbid_in_capture(bool is_always) {
    if (capture.graph == NULL || (capture.is_relaxed && !is_always)) {
        return cudaSuccess;
    }
    return break_capture(cudaErrorStreamCaptureUnsupported);
}

/* Owns work, whatever happens. */
static cudaError_t push(struct CUstream_st *stream, struct work *work) {
    if (stream->is_captured) {
        if (capture.is_broken) {
            free_work(work);
            return fake_fail(cudaErrorStreamCaptureInvalidated);
        }
        append(&capture.graph->queue, work);
        return cudaSuccess;
    }
    if (stream == &null_stream) {
        for (struct CUstream_st *s = streams; s != NULL; s = s->next) {
            if (s->is_captured && !s->is_non_blocking) {
                free_work(work);
                return break_capture(cudaErrorStreamCaptureImplicit);
            }
        }
        drain_blocking();
    }
    append(&stream->queue, work);
    if (!fake_settings()->is_lazy || stream == &null_stream) {
        drain(stream);
    }
    return fake_get_sticky();
}

cudaError_t fake_cuda_enqueue(cudaStream_t stream, const char *name, void (*run)(void *data), const void *data,
                              size_t size) {
    cudaError_t code = fake_begin_call();
    struct CUstream_st *found = find_stream(stream);
    if (code != cudaSuccess || found == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    struct work *work = new_work(WORK_DEVICE, name, size);
    work->run = run;
    memcpy(work->data, data, size);
    return push(found, work);
}

cudaError_t fake_queue_release(cudaStream_t stream, void *block) {
    struct CUstream_st *found = find_stream(stream);
    if (found == NULL) {
        return fake_fail(cudaErrorInvalidResourceHandle);
    }
    struct work *work = new_work(WORK_RELEASE, "cudaFreeAsync", 0);
    work->block = block;
    return push(found, work);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *user) {
    cudaError_t code = fake_begin_call();
    struct CUstream_st *found = find_stream(stream);
    if (code != cudaSuccess || found == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    struct work *work = new_work(WORK_HOST, "cudaLaunchHostFunc", sizeof user);
    work->run = function;
    memcpy(work->data, &user, sizeof user);
    return push(found, work);
}

/* ---- Copies ---- */

struct copy {
    unsigned char *to;
    const unsigned char *from; /* NULL: the bytes behind this struct, packed */
    size_t to_pitch, from_pitch, width_bytes, n_rows;
};

static void run_copy(void *data) {
    const struct copy *copy = data;
    const unsigned char *from = copy->from != NULL ? copy->from : (const unsigned char *)(copy + 1);
    for (size_t i = 0; i < copy->n_rows; i++) {
        memmove(copy->to + i * copy->to_pitch, from + i * copy->from_pitch, copy->width_bytes);
    }
}

static size_t get_extent(size_t pitch, size_t width_bytes, size_t n_rows) {
    return pitch * (n_rows - 1) + width_bytes;
}

static cudaError_t check_side(const void *address, size_t extent, bool is_device) {
    if (address == NULL || fake_memory_is_in_region(address) != is_device) {
        return fake_fail(cudaErrorInvalidValue);
    }
    return !is_device || fake_memory_is_valid(address, extent) ? cudaSuccess : fake_fail(cudaErrorInvalidValue);
}

/* Lazily, memory that the runtime does not know behaves as on the real device: such a source is read before the call returns, such a
 * target is written. */
static cudaError_t queue_copy(const struct copy *copy, enum cudaMemcpyKind kind, cudaStream_t stream,
                              bool is_synchronous) {
    cudaError_t code = fake_begin_call();
    struct CUstream_st *found = find_stream(stream);
    if (code != cudaSuccess || copy->width_bytes == 0 || copy->n_rows == 0) {
        return code;
    }
    if (found == NULL) {
        return fake_fail(cudaErrorInvalidResourceHandle);
    }
    if (copy->width_bytes > copy->to_pitch || copy->width_bytes > copy->from_pitch) {
        return fake_fail(cudaErrorInvalidValue);
    }
    bool is_from_device = kind == cudaMemcpyDefault
                              ? fake_memory_is_in_region(copy->from)
                              : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool is_to_device = kind == cudaMemcpyDefault ? fake_memory_is_in_region(copy->to)
                                                  : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    code = check_side(copy->from, get_extent(copy->from_pitch, copy->width_bytes, copy->n_rows), is_from_device);
    code = code == cudaSuccess
               ? check_side(copy->to, get_extent(copy->to_pitch, copy->width_bytes, copy->n_rows), is_to_device)
               : code;
    if (code != cudaSuccess) {
        return code;
    }
    bool is_late = fake_settings()->is_lazy && !found->is_captured;
    bool is_taken = is_late && !is_from_device && !fake_memory_is_pinned(copy->from);
    size_t taken_bytes = is_taken ? copy->width_bytes * copy->n_rows : 0;
    struct work *work = new_work(WORK_DEVICE, "copy", sizeof *copy + taken_bytes);
    struct copy *queued = (struct copy *)(void *)work->data;
    work->run = run_copy;
    *queued = *copy;
    if (is_taken) {
        struct copy taking = *copy;
        taking.to = (unsigned char *)(queued + 1);
        taking.to_pitch = copy->width_bytes;
        run_copy(&taking);
        queued->from = NULL;
        queued->from_pitch = copy->width_bytes;
    }
    code = push(found, work);
    if (code == cudaSuccess && is_late && (is_synchronous || (!is_to_device && !fake_memory_is_pinned(copy->to)))) {
        drain(found);
        code = fake_get_sticky();
    }
    return code;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size_bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return queue_copy(&(struct copy){ to, from, size_bytes, size_bytes, size_bytes, 1 }, kind, stream, false);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width_bytes,
                              size_t n_rows, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return queue_copy(&(struct copy){ to, from, to_pitch, from_pitch, width_bytes, n_rows }, kind, stream, false);
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width_bytes,
                         size_t n_rows, enum cudaMemcpyKind kind) {
    cudaError_t code = fake_forbid_in_capture(true);
    return code != cudaSuccess
               ? code
               : queue_copy(&(struct copy){ to, from, to_pitch, from_pitch, width_bytes, n_rows }, kind, NULL, true);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size_bytes, enum cudaMemcpyKind kind) {
    return cudaMemcpy2D(to, size_bytes, from, size_bytes, size_bytes, size_bytes > 0 ? 1 : 0, kind);
}

struct fill {
    unsigned char *to;
    size_t pitch, width_bytes, n_rows;
    int value;
};

static void run_fill(void *data) {
    const struct fill *fill = data;
    for (size_t i = 0; i < fill->n_rows; i++) {
        memset(fill->to + i * fill->pitch, fill->value, fill->width_bytes);
    }
}

cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width_bytes, size_t n_rows,
                              cudaStream_t stream) {
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess || width_bytes == 0 || n_rows == 0) {
        return code;
    }
    if (width_bytes > pitch || !fake_memory_is_valid(to, get_extent(pitch, width_bytes, n_rows))) {
        return fake_fail(cudaErrorInvalidValue);
    }
    struct fill fill = { to, pitch, width_bytes, n_rows, value };
    return fake_cuda_enqueue(stream, "memset", run_fill, &fill, sizeof fill);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t size_bytes, cudaStream_t stream) {
    return cudaMemset2DAsync(to, size_bytes, value, size_bytes, 1, stream);
}

cudaError_t cudaMemset(void *to, int value, size_t size_bytes) {
    return cudaMemsetAsync(to, value, size_bytes, NULL);
}

/* ---- Streams ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret, unsigned flags) {
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess) {
        return code;
    }
    struct CUstream_st *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        return fake_fail(cudaErrorMemoryAllocation);
    }
    stream->is_non_blocking = (flags & cudaStreamNonBlocking) != 0;
    stream->next = streams;
    streams = stream;
    *ret = stream;
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *ret) {
    return cudaStreamCreateWithFlags(ret, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *ret, unsigned flags, int priority) {
    (void)priority;
    return cudaStreamCreateWithFlags(ret, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    cudaError_t code = fake_begin_call();
    for (struct CUstream_st **at = &streams; *at != NULL; at = &(*at)->next) {
        if (*at == stream) {
            drain(stream);
            if (stream->is_captured) {
                clear(&capture.graph->queue);
                free(capture.graph);
                capture.graph = NULL;
                n_graphs--;
            }
            *at = stream->next;
            free(stream);
            return code;
        }
    }
    fake_cuda_abort("cudaStreamDestroy of %p, which is no stream", (void *)stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    cudaError_t code = fake_begin_call();
    struct CUstream_st *found = find_stream(stream);
    if (code != cudaSuccess || found == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    if (found->is_captured) {
        return break_capture(cudaErrorStreamCaptureUnsupported);
    }
    if (found == &null_stream) {
        drain_blocking();
    }
    drain(found);
    return fake_get_sticky();
}

cudaError_t cudaDeviceSynchronize(void) {
    cudaError_t code = fake_begin_call();
    code = code == cudaSuccess ? fake_forbid_in_capture(true) : code;
    return code == cudaSuccess ? fake_drain_all() : code;
}

/* Every question moves the stream on by one piece of work, so that who asks again and again comes to an end. */
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    cudaError_t code = fake_begin_call();
    struct CUstream_st *found = find_stream(stream);
    if (code != cudaSuccess || found == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    if (found->is_captured) {
        return break_capture(cudaErrorStreamCaptureUnsupported);
    }
    if (found->queue.first != NULL) {
        run_first(found);
        code = fake_get_sticky();
        return code != cudaSuccess ? code : cudaErrorNotReady;
    }
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    (void)flags;
    cudaError_t code = fake_begin_call();
    struct CUstream_st *found = find_stream(stream);
    if (code != cudaSuccess || found == NULL || event == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    if (event->capture != 0) {
        if (capture.graph == NULL || event->capture != capture.number) {
            return fake_fail(cudaErrorInvalidValue);
        }
        found->is_captured = true; /* joins; the graph keeps the order of the calls */
        return cudaSuccess;
    }
    if (found->is_captured) {
        return break_capture(cudaErrorStreamCaptureUnsupported);
    }
    if (event->n_recorded == 0) {
        return cudaSuccess;
    }
    struct work *work = new_work(WORK_WAIT, "cudaStreamWaitEvent", 0);
    work->event = event;
    work->number = event->n_recorded;
    work->recorded_on = event->stream;
    event->n_users++;
    return push(found, work);
}

/* ---- Events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret, unsigned flags) {
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess) {
        return code;
    }
    struct CUevent_st *event = calloc(1, sizeof *event);
    if (event == NULL) {
        return fake_fail(cudaErrorMemoryAllocation);
    }
    event->n_users = 1;
    event->has_no_time = (flags & cudaEventDisableTiming) != 0;
    n_events++;
    *ret = event;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *ret) {
    return cudaEventCreateWithFlags(ret, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    cudaError_t code = fake_begin_call();
    if (event == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    n_events--;
    release_event(event);
    return code;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    cudaError_t code = fake_begin_call();
    struct CUstream_st *found = find_stream(stream);
    if (code != cudaSuccess || found == NULL || event == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    if (found->is_captured) {
        event->capture = capture.number;
        return cudaSuccess;
    }
    event->capture = 0;
    event->stream = found;
    event->n_recorded++;
    struct work *work = new_work(WORK_RECORD, "cudaEventRecord", 0);
    work->event = event;
    work->number = event->n_recorded;
    event->n_users++;
    return push(found, work);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess || event == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    if (event->capture != 0) {
        return break_capture(cudaErrorStreamCaptureUnsupported);
    }
    if (event->n_done < event->n_recorded) {
        run_first(event->stream);
        code = fake_get_sticky();
        return code != cudaSuccess ? code : cudaErrorNotReady;
    }
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess || event == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    if (event->capture != 0) {
        return break_capture(cudaErrorStreamCaptureUnsupported);
    }
    if (event->n_done < event->n_recorded) {
        run_until_recorded(event->stream, event, event->n_recorded);
    }
    return fake_get_sticky();
}

cudaError_t cudaEventElapsedTime(float *ret_ms, cudaEvent_t start, cudaEvent_t end) {
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess) {
        return code;
    }
    if (start == NULL || end == NULL || start->has_no_time || end->has_no_time || start->n_recorded == 0 ||
        end->n_recorded == 0) {
        return fake_fail(cudaErrorInvalidResourceHandle);
    }
    if (start->n_done < start->n_recorded || end->n_done < end->n_recorded) {
        return cudaErrorNotReady;
    }
    *ret_ms = (float)(end->time_ms - start->time_ms);
    return cudaSuccess;
}

/* ---- Graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    cudaError_t code = fake_begin_call();
    struct CUstream_st *found = find_stream(stream);
    if (code != cudaSuccess || found == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    if (found == &null_stream || capture.graph != NULL) {
        return fake_fail(cudaErrorStreamCaptureUnsupported);
    }
    struct CUgraph_st *graph = calloc(1, sizeof *graph);
    if (graph == NULL) {
        return fake_fail(cudaErrorMemoryAllocation);
    }
    n_graphs++;
    capture.number++;
    capture.graph = graph;
    capture.origin = found;
    capture.is_relaxed = mode == cudaStreamCaptureModeRelaxed;
    capture.is_broken = false;
    found->is_captured = true;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret_graph) {
    cudaError_t code = fake_begin_call();
    struct CUstream_st *found = find_stream(stream);
    *ret_graph = NULL;
    if (code != cudaSuccess || found == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    if (capture.graph == NULL || capture.origin != found) {
        return fake_fail(cudaErrorStreamCaptureUnmatched);
    }
    for (struct CUstream_st *s = streams; s != NULL; s = s->next) {
        s->is_captured = false;
    }
    struct CUgraph_st *graph = capture.graph;
    capture.graph = NULL;
    if (capture.is_broken) {
        (void)cudaGraphDestroy(graph);
        return fake_fail(cudaErrorStreamCaptureInvalidated);
    }
    *ret_graph = graph;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *ret_status) {
    cudaError_t code = fake_begin_call();
    const struct CUstream_st *found = find_stream(stream);
    if (code != cudaSuccess || found == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    *ret_status = !found->is_captured ? cudaStreamCaptureStatusNone
                  : capture.is_broken ? cudaStreamCaptureStatusInvalidated
                                      : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ret, cudaGraph_t graph, unsigned long long flags) {
    (void)flags;
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess || graph == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidValue);
    }
    struct CUgraphExec_st *exec = calloc(1, sizeof *exec);
    if (exec == NULL) {
        return fake_fail(cudaErrorMemoryAllocation);
    }
    append_copies(&exec->queue, &graph->queue);
    n_graphs++;
    *ret = exec;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *ret, cudaGraph_t graph, unsigned long long flags) {
    return cudaGraphInstantiate(ret, graph, flags);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *ret_n_nodes) {
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess || graph == NULL || nodes != NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorNotSupported);
    }
    *ret_n_nodes = 0;
    for (const struct work *work = graph->queue.first; work != NULL; work = work->next) {
        (*ret_n_nodes)++;
    }
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess || exec == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidValue);
    }
    return fake_check_stream(stream);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    cudaError_t code = fake_begin_call();
    struct CUstream_st *found = find_stream(stream);
    if (code != cudaSuccess || found == NULL || exec == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidResourceHandle);
    }
    struct queue copies = { NULL, NULL };
    append_copies(&copies, &exec->queue);
    for (struct work *work = take_first(&copies); work != NULL; work = take_first(&copies)) {
        cudaError_t pushed = push(found, work);
        code = code == cudaSuccess ? pushed : code;
    }
    return code;
}

/* owner: the graph, recorded or ready to run, that holds the queue. */
static cudaError_t destroy_graph(void *owner, struct queue *queue) {
    cudaError_t code = fake_begin_call();
    if (owner == NULL) {
        return code != cudaSuccess ? code : fake_fail(cudaErrorInvalidValue);
    }
    clear(queue);
    free(owner);
    n_graphs--;
    return code;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    return destroy_graph(exec, exec != NULL ? &exec->queue : NULL);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    return destroy_graph(graph, graph != NULL ? &graph->queue : NULL);
}

/* ---- All of it ---- */

long fake_cuda_get_n_work(void) {
    return n_work;
}

long fake_streams_get_n_held(void) {
    long n = n_events + n_graphs;
    for (const struct CUstream_st *stream = streams; stream != NULL; stream = stream->next) {
        n++;
    }
    return n;
}

/* Events and graphs belong to who made them; streams go. */
void fake_streams_reset(void) {
    clear(&null_stream.queue);
    while (streams != NULL) {
        struct CUstream_st *next = streams->next;
        clear(&streams->queue);
        free(streams);
        streams = next;
    }
    if (capture.graph != NULL) {
        clear(&capture.graph->queue);
        free(capture.graph);
        capture.graph = NULL;
    }
    n_events = 0;
    n_graphs = 0;
    n_work = 0;
}
