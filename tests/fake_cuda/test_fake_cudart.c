/* The fake runtime keeps the promises of the real one, and no more: order, captures, memory, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake_cuda.h"
#include "test_kernels.h"

#define N 300

static cudaStream_t stream, other;

#define OK(call) assert_int_equal(call, cudaSuccess)

static int setup(void **state) {
    (void)state;
    fake_cuda_reset();
    return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
                   cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess
               ? 0
               : -1;
}

static int setup_lazy(void **state) {
    int failed = setup(state);
    fake_cuda_set_lazy(true);
    return failed;
}

static int teardown(void **state) {
    (void)state;
    fake_cuda_lose_device(cudaSuccess);
    bool is_done = cudaStreamDestroy(stream) == cudaSuccess && cudaStreamDestroy(other) == cudaSuccess;
    return is_done && fake_cuda_get_n_held() == 0 && fake_cuda_get_held_bytes() == 0 ? 0 : -1;
}

static float *new_floats(int n) {
    void *block = NULL;
    OK(cudaMalloc(&block, (size_t)n * sizeof(float)));
    return block;
}

static float get_first(const float *x, cudaStream_t on) {
    float value = 0.0F;
    OK(cudaMemcpyAsync(&value, x, sizeof value, cudaMemcpyDeviceToHost, on));
    OK(cudaStreamSynchronize(on));
    return value;
}

static void put_all(float *x, float value, cudaStream_t on) {
    float host[N];
    for (int i = 0; i < N; i++) {
        host[i] = value;
    }
    OK(cudaMemcpyAsync(x, host, sizeof host, cudaMemcpyHostToDevice, on));
    memset(host, 0, sizeof host); /* taken already */
}

/* ---- Memory ---- */

static void new_memory_is_nan(void **state) {
    (void)state;
    float *x = new_floats(N);
    assert_true(isnan(get_first(x, stream)));
    OK(cudaMemsetAsync(x, 0, N * sizeof(float), stream));
    assert_true(get_first(x, stream) == 0.0F);
    OK(cudaFree(x));
    float *pinned = NULL;
    OK(cudaMallocHost((void **)&pinned, sizeof(float)));
    assert_true(isnan(*pinned));
    OK(cudaFreeHost(pinned));
}

static void memory_has_an_end(void **state) {
    (void)state;
    fake_cuda_set_memory((size_t)1 << 20);
    size_t n_free = 0;
    size_t n_all = 0;
    void *a = NULL;
    void *b = NULL;
    OK(cudaMalloc(&a, (size_t)600 << 10));
    OK(cudaMemGetInfo(&n_free, &n_all));
    assert_int_equal(n_all, 1 << 20);
    assert_int_equal(n_free, 424 << 10);
    assert_int_equal(cudaMalloc(&b, (size_t)425 << 10), cudaErrorMemoryAllocation);
    assert_null(b);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    OK(cudaMallocAsync(&b, (size_t)424 << 10, stream));
    OK(cudaFreeAsync(b, stream));
    OK(cudaFree(a));
    OK(cudaMalloc(&a, (size_t)1 << 20));
    assert_int_equal(fake_cuda_get_peak_bytes(), 1 << 20);
    OK(cudaFree(a));
}

static void the_nth_allocation_fails(void **state) {
    (void)state;
    void *blocks[4] = { NULL };
    fake_cuda_fail_allocation(3);
    OK(cudaMalloc(&blocks[0], 64));
    OK(cudaMallocHost(&blocks[1], 64));
    assert_int_equal(cudaMallocAsync(&blocks[2], 64, stream), cudaErrorMemoryAllocation);
    OK(cudaMallocAsync(&blocks[3], 64, stream));
    OK(cudaFree(blocks[0]));
    OK(cudaFreeHost(blocks[1]));
    OK(cudaFreeAsync(blocks[3], stream));
}

static void copies_of_rows_leave_gaps_alone(void **state) {
    (void)state;
    unsigned char host[4][5];
    unsigned char back[4][7];
    memset(host, 7, sizeof host);
    memset(back, 1, sizeof back);
    void *x = NULL;
    OK(cudaMalloc(&x, 4 * 6));
    OK(cudaMemsetAsync(x, 9, 4 * 6, stream));
    OK(cudaMemcpy2DAsync(x, 6, host, 5, 3, 4, cudaMemcpyHostToDevice, stream));
    OK(cudaMemcpy2DAsync(back, 7, x, 6, 5, 4, cudaMemcpyDeviceToHost, stream));
    OK(cudaStreamSynchronize(stream));
    for (int i = 0; i < 4; i++) {
        assert_memory_equal(back[i], ((unsigned char[]){ 7, 7, 7, 9, 9, 1, 1 }), 7);
    }
    OK(cudaFree(x));
}

static void copies_beyond_blocks_are_refused(void **state) {
    (void)state;
    float host[8] = { 0 };
    float *x = new_floats(4);
    assert_int_equal(cudaMemcpyAsync(x, host, 5 * sizeof(float), cudaMemcpyHostToDevice, stream),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(host, host, 4, cudaMemcpyHostToDevice, stream), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(host, x, 4, cudaMemcpyHostToDevice, stream), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy2DAsync(x, 4, host, 4, 8, 1, cudaMemcpyHostToDevice, stream), cudaErrorInvalidValue);
    OK(cudaMemcpyAsync(x, host, 4 * sizeof(float), cudaMemcpyDefault, stream));
    OK(cudaFree(x));
    (void)cudaGetLastError();
}

/* ---- Order ---- */

static void lazy_work_waits_to_be_waited_for(void **state) {
    (void)state;
    float *x = new_floats(N);
    put_all(x, 1.0F, stream);
    test_run_add(x, 2.0F, N, stream);
    assert_int_equal(fake_cuda_get_n_work(), 0);
    assert_int_equal(cudaStreamQuery(stream), cudaErrorNotReady); /* asked, it moves on */
    assert_int_equal(fake_cuda_get_n_work(), 1);
    assert_true(get_first(x, stream) == 3.0F);
    assert_int_equal(cudaStreamQuery(stream), cudaSuccess);
    OK(cudaFree(x));
}

/* What the real device may do, and a test on a quick one would not show. */
static void pinned_memory_is_read_late(void **state) {
    (void)state;
    float *x = new_floats(1);
    float *pinned = NULL;
    OK(cudaMallocHost((void **)&pinned, sizeof(float)));
    *pinned = 1.0F;
    OK(cudaMemcpyAsync(x, pinned, sizeof(float), cudaMemcpyHostToDevice, stream));
    *pinned = 2.0F;
    assert_true(get_first(x, stream) == 2.0F);
    OK(cudaMemcpyAsync(pinned, x, sizeof(float), cudaMemcpyDeviceToHost, stream));
    *pinned = 5.0F;
    OK(cudaStreamSynchronize(stream));
    assert_true(*pinned == 2.0F);
    OK(cudaFreeHost(pinned));
    float registered = 3.0F;
    OK(cudaHostRegister(&registered, sizeof registered, cudaHostRegisterDefault));
    assert_int_equal(cudaHostRegister(&registered, sizeof registered, cudaHostRegisterDefault),
                     cudaErrorHostMemoryAlreadyRegistered);
    OK(cudaMemcpyAsync(x, &registered, sizeof(float), cudaMemcpyHostToDevice, stream));
    registered = 4.0F;
    OK(cudaHostUnregister(&registered));
    assert_true(get_first(x, stream) == 4.0F);
    OK(cudaFree(x));
}

static void streams_without_events_have_no_order(void **state) {
    (void)state;
    float *x = new_floats(N);
    put_all(x, 1.0F, stream);
    OK(cudaStreamSynchronize(stream));
    test_run_add(x, 1.0F, N, other);
    assert_true(get_first(x, stream) == 1.0F); /* nobody waits for other */
    OK(cudaDeviceSynchronize());
    assert_true(get_first(x, stream) == 2.0F);
    OK(cudaFree(x));
}

static void events_order_streams(void **state) {
    (void)state;
    cudaEvent_t event = NULL;
    float ms = -1.0F;
    cudaEvent_t end = NULL;
    OK(cudaEventCreate(&event));
    OK(cudaEventCreate(&end));
    float *x = new_floats(N);
    put_all(x, 1.0F, other);
    test_run_add(x, 2.0F, N, other);
    OK(cudaEventRecord(event, other));
    test_run_add(x, 10.0F, N, other); /* behind the event */
    OK(cudaStreamWaitEvent(stream, event, 0));
    assert_true(get_first(x, stream) == 3.0F);
    OK(cudaEventQuery(event));
    OK(cudaEventRecord(end, other));
    assert_int_equal(cudaEventElapsedTime(&ms, event, end), cudaErrorNotReady);
    OK(cudaEventSynchronize(end));
    OK(cudaEventElapsedTime(&ms, event, end));
    assert_true(ms >= 0.0F);
    assert_true(get_first(x, stream) == 13.0F);
    OK(cudaEventDestroy(event));
    OK(cudaEventDestroy(end));
    OK(cudaFree(x));
}

static void an_event_may_go_before_its_time(void **state) {
    (void)state;
    cudaEvent_t event = NULL;
    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    OK(cudaEventRecord(event, other));
    OK(cudaStreamWaitEvent(stream, event, 0));
    OK(cudaEventDestroy(event));
    OK(cudaStreamSynchronize(stream));
}

static void memory_is_freed_in_the_order_of_the_stream(void **state) {
    (void)state;
    fake_cuda_set_memory((size_t)1 << 20);
    void *x = NULL;
    OK(cudaMallocAsync(&x, (size_t)1 << 20, stream));
    put_all(x, 1.0F, stream);
    test_run_add(x, 1.0F, N, stream);
    OK(cudaFreeAsync(x, stream));
    assert_int_equal(fake_cuda_get_held_bytes(), 1 << 20);
    OK(cudaMallocAsync(&x, (size_t)1 << 20, stream)); /* waits for the other to go */
    assert_int_equal(fake_cuda_get_n_work(), 2);
    OK(cudaFreeAsync(x, stream));
    OK(cudaStreamSynchronize(stream));
}

/* ---- Graphs ---- */

static void captured_work_runs_when_launched(void **state) {
    (void)state;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    cudaEvent_t event = NULL;
    size_t n_nodes = 0;
    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    float *x = new_floats(N);
    put_all(x, 0.0F, stream);
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    test_run_add(x, 1.0F, N, stream);
    OK(cudaEventRecord(event, stream));
    OK(cudaStreamWaitEvent(other, event, 0)); /* fork */
    test_run_add(x, 2.0F, N, other);
    OK(cudaEventRecord(event, other));
    OK(cudaStreamWaitEvent(stream, event, 0)); /* join */
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphGetNodes(graph, NULL, &n_nodes));
    assert_int_equal(n_nodes, 2);
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    assert_true(get_first(x, stream) == 0.0F);
    for (int i = 0; i < 3; i++) {
        OK(cudaGraphLaunch(exec, stream));
    }
    OK(cudaGraphExecDestroy(exec));
    assert_true(get_first(x, stream) == 9.0F);
    OK(cudaEventDestroy(event));
    OK(cudaFree(x));
}

static void a_capture_breaks_when_the_host_waits_or_allocates(void **state) {
    (void)state;
    float *x = new_floats(N);
    void *block = NULL;
    cudaGraph_t graph = NULL;
    enum cudaStreamCaptureStatus status;
    for (int i = 0; i < 6; i++) {
        OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        OK(cudaStreamIsCapturing(stream, &status));
        assert_int_equal(status, cudaStreamCaptureStatusActive);
        cudaError_t code = i == 0   ? cudaStreamSynchronize(stream)
                           : i == 1 ? cudaMalloc(&block, 64)
                           : i == 2 ? cudaFree(x)
                           : i == 3 ? cudaMallocHost(&block, 64)
                           : i == 4 ? cudaDeviceSynchronize()
                                    : cudaMallocAsync(&block, 64, stream);
        assert_int_equal(code, cudaErrorStreamCaptureUnsupported);
        OK(cudaStreamIsCapturing(stream, &status));
        assert_int_equal(status, cudaStreamCaptureStatusInvalidated);
        (void)cudaGetLastError();
        test_run_add(x, 1.0F, N, stream);
        assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
        assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
        assert_null(graph);
    }
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    OK(cudaMalloc(&block, 64));
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphDestroy(graph));
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureUnmatched);
    OK(cudaFree(block));
    OK(cudaFree(x));
}

/* ---- Faults ---- */

static void a_lost_device_says_so_at_every_call(void **state) {
    (void)state;
    void *x = new_floats(N);
    void *block = NULL;
    fake_cuda_lose_device(cudaErrorDevicesUnavailable);
    assert_int_equal(cudaMalloc(&block, 64), cudaErrorDevicesUnavailable);
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorDevicesUnavailable);
    assert_int_equal(cudaMemsetAsync(x, 0, 4, stream), cudaErrorDevicesUnavailable);
    assert_int_equal(cudaGetLastError(), cudaErrorDevicesUnavailable);
    assert_int_equal(cudaGetLastError(), cudaErrorDevicesUnavailable);
    assert_int_equal(cudaFree(x), cudaErrorDevicesUnavailable); /* but gone it is */
    assert_int_equal(fake_cuda_get_held_bytes(), 0);
}

static void work_that_fails_is_reported_when_waited_for(void **state) {
    (void)state;
    float *x = new_floats(N);
    fake_cuda_fail_work(2, cudaErrorIllegalAddress);
    put_all(x, 1.0F, stream);
    test_run_add(x, 1.0F, N, stream);
    assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
    assert_string_equal(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress");
    assert_int_equal(cudaFree(x), cudaErrorIllegalAddress);
}

static void the_device_is_what_it_was_set_to(void **state) {
    (void)state;
    struct cudaDeviceProp properties;
    int value = 0;
    fake_cuda_set_compute(120);
    OK(cudaGetDeviceProperties(&properties, 0));
    assert_int_equal(properties.major * 10 + properties.minor, 120);
    OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    assert_int_equal(value, 99 * 1024);
    OK(cudaGetDeviceCount(&value));
    assert_int_equal(value, 1);
    assert_int_equal(cudaSetDevice(1), cudaErrorInvalidDevice);
    (void)cudaGetLastError();
}

#define EAGER(function)                                                                                                \
    { #function, function, setup, teardown, NULL }
#define LAZY(function)                                                                                                 \
    { #function " lazily", function, setup_lazy, teardown, NULL }
#define BOTH(function) EAGER(function), LAZY(function)

int main(void) {
    const struct CMUnitTest tests[] = {
        BOTH(new_memory_is_nan),
        BOTH(memory_has_an_end),
        BOTH(the_nth_allocation_fails),
        BOTH(copies_of_rows_leave_gaps_alone),
        BOTH(copies_beyond_blocks_are_refused),
        LAZY(lazy_work_waits_to_be_waited_for),
        LAZY(pinned_memory_is_read_late),
        LAZY(streams_without_events_have_no_order),
        LAZY(events_order_streams),
        BOTH(an_event_may_go_before_its_time),
        LAZY(memory_is_freed_in_the_order_of_the_stream),
        BOTH(captured_work_runs_when_launched),
        BOTH(a_capture_breaks_when_the_host_waits_or_allocates),
        BOTH(a_lost_device_says_so_at_every_call),
        LAZY(work_that_fails_is_reported_when_waited_for),
        EAGER(the_device_is_what_it_was_set_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
