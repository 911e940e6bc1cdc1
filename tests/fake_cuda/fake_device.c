/* Runs the threads of a block on one thread of the processor, as fibers.
 *
 * A thread runs until it has to wait for others. Then the fiber goes on with the next one that can run: a thread whose wait is over,
 * else one that has not begun (on an idle fiber, or a new one). A thread that ends without waiting leaves its fiber to the next thread
 * without any switch, so kernels without synchronisation run as loops. When nothing can run and threads are left, they wait for each
 * other. */
#include "fake_cuda.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_THREADS 1024
#define LANES 32
#define PAGE 4096

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define STACK_BYTES ((size_t)512 * 1024)
#else
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define STACK_BYTES ((size_t)128 * 1024)
#endif

/* A page that faults, the stack, a page with the fiber itself. */
#define FIBER_BYTES (STACK_BYTES + 2 * (size_t)PAGE)

uint3 threadIdx, blockIdx;
dim3 blockDim = { 1, 1, 1 }, gridDim = { 1, 1, 1 };
unsigned char *fake_shared_memory;
size_t fake_shared_bytes;

typedef void (*fake_combine)(const void *const *in, void *const *out, const void *user);
void fake_sync_block(void);
int fake_sync_block_count(int predicate);
int fake_lane(void);
void fake_sync_warp(unsigned mask, const char *name, const void *in, void *out, fake_combine combine, const void *user);

/* Checks of every access would double the time of switches; kernels are what they are for. */
#define QUICK __attribute__((no_sanitize("address", "undefined")))

/* ---- Switching stacks ---- */

struct fiber {
    void *stack_pointer; /* where it was left */
    unsigned char *stack;
    size_t stack_bytes;
    void *sanitizer_state;
    int thread; /* of the block; the main fiber has none */
    struct fiber *next_idle;
};

static struct fiber main_fiber;
static struct fiber *current = &main_fiber;
static struct fiber *idle;
static size_t n_fibers;

#ifdef __x86_64__
/* Saves what a call must keep, leaves the stack pointer in *from and goes on where `to` was left. */
void fake_switch_stack(void **from, void *to);
__asm__(".text\n"
        ".type fake_switch_stack, @function\n"
        "fake_switch_stack:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size fake_switch_stack, . - fake_switch_stack\n");

static void prepare_stack(struct fiber *fiber, void (*entry)(void)) {
    void **top = (void **)(void *)(fiber->stack + fiber->stack_bytes);
    *--top = NULL; /* entry sees the alignment of a call */
    *--top = (void *)(uintptr_t)entry;
    for (int i = 0; i < 6; i++) {
        *--top = NULL;
    }
    fiber->stack_pointer = top;
}
#else
#include <ucontext.h>

static void fake_switch_stack(void **from, void *to) {
    ucontext_t here;
    *from = &here;
    (void)swapcontext(&here, to);
}

static void prepare_stack(struct fiber *fiber, void (*entry)(void)) {
    ucontext_t *context = (ucontext_t *)(void *)fiber->stack; /* below the stack itself */
    (void)getcontext(context);
    context->uc_stack.ss_sp = fiber->stack + PAGE;
    context->uc_stack.ss_size = fiber->stack_bytes - PAGE;
    context->uc_link = NULL;
    makecontext(context, entry, 0);
    fiber->stack_pointer = context;
}
#endif

static struct fiber *switched_from;

/* The first thing after every switch. */
QUICK static void arrive(void) {
#ifdef __SANITIZE_ADDRESS__
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(current->sanitizer_state, &bottom, &size);
    if (switched_from == &main_fiber) {
        main_fiber.stack = (unsigned char *)(uintptr_t)bottom;
        main_fiber.stack_bytes = size;
    }
#endif
}

QUICK static void switch_to(struct fiber *fiber) {
    struct fiber *from = current;
    if (fiber == from) {
        return;
    }
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from->sanitizer_state, fiber->stack, fiber->stack_bytes);
#endif
    switched_from = from;
    current = fiber;
    fake_switch_stack(&from->stack_pointer, fiber->stack_pointer);
    arrive();
}

static void run_fiber(void);

static struct fiber *get_fiber(void) {
    struct fiber *fiber = idle;
    if (fiber != NULL) {
        idle = fiber->next_idle;
        return fiber;
    }
    unsigned char *pages =
        mmap(NULL, FIBER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages, PAGE, PROT_NONE) != 0) {
        fake_cuda_abort("no memory for the stack of a thread");
    }
    /* Stacks that end at the same place of a page would share the same few lines of the cache. */
    size_t shift = n_fibers++ % (PAGE / 64) * 64;
    fiber = (struct fiber *)(void *)(pages + PAGE + STACK_BYTES + shift);
    fiber->stack = pages + PAGE;
    fiber->stack_bytes = STACK_BYTES - shift;
    prepare_stack(fiber, run_fiber);
    return fiber;
}

/* All of them are idle when the library goes. */
__attribute__((destructor)) static void free_fibers(void) {
    while (idle != NULL) {
        struct fiber *next = idle->next_idle;
        unsigned char *pages = idle->stack - PAGE;
        ASAN_UNPOISON_MEMORY_REGION(pages,
                                    FIBER_BYTES); /* calls stand on it, and somebody else will have the addresses */
        (void)munmap(pages, FIBER_BYTES);
        idle = next;
    }
}

/* ---- The block that runs ---- */

struct lane_wait {
    unsigned mask; /* 0: does not wait for its warp */
    const char *name;
    const void *in;
    void *out;
    fake_combine combine;
    const void *user;
};

static struct {
    const char *name;
    void (*thread)(void *data);
    void *data;
    int n_threads, n_begun, n_ended;
    bool is_reversed;
    struct fiber *fibers[MAX_THREADS]; /* of threads that wait */
    bool waits_for_block[MAX_THREADS];
    int n_at_barrier, count, last_count;
    struct lane_wait waits[MAX_THREADS];
    unsigned alive[MAX_THREADS / LANES], waiting[MAX_THREADS / LANES]; /* lanes of every warp */
    int ready[MAX_THREADS];                                            /* a ring */
    int first_ready, n_ready;
} block;

static uint64_t n_launches;

QUICK static void take_thread(int thread) {
    unsigned i = (unsigned)thread;
    bool is_flat = i < blockDim.x; /* no divisions then */
    threadIdx.x = is_flat ? i : i % blockDim.x;
    threadIdx.y = is_flat ? 0 : i / blockDim.x % blockDim.y;
    threadIdx.z = is_flat ? 0 : i / blockDim.x / blockDim.y;
    current->thread = thread;
}

QUICK int fake_lane(void) {
    return current->thread % LANES;
}

QUICK static void push_ready(int thread) {
    block.ready[(block.first_ready + block.n_ready++) % MAX_THREADS] = thread;
}

/* The fiber to go on with: the main one when there is nothing to run. */
QUICK static struct fiber *next_fiber(void) {
    if (block.n_ready > 0) {
        int thread = block.ready[block.first_ready];
        block.first_ready = (block.first_ready + 1) % MAX_THREADS;
        block.n_ready--;
        return block.fibers[thread];
    }
    if (block.n_begun < block.n_threads) {
        struct fiber *fiber = get_fiber();
        fiber->thread = -1; /* begins the next one */
        return fiber;
    }
    return &main_fiber;
}

QUICK static void wait_for_others(void) {
    int thread = current->thread;
    block.fibers[thread] = current;
    switch_to(next_fiber());
    take_thread(thread);
}

/* Everybody who has not left is there: the barrier opens. */
QUICK static void open_barrier(void) {
    if (block.n_at_barrier == 0 || block.n_at_barrier < block.n_threads - block.n_ended) {
        return;
    }
    block.n_at_barrier = 0;
    block.last_count = block.count;
    block.count = 0;
    for (int i = 0; i < block.n_threads; i++) {
        int thread = block.is_reversed ? block.n_threads - 1 - i : i;
        if (block.waits_for_block[thread]) {
            block.waits_for_block[thread] = false;
            push_ready(thread);
        }
    }
}

QUICK int fake_sync_block_count(int predicate) {
    int thread = current->thread;
    block.waits_for_block[thread] = true;
    block.n_at_barrier++;
    block.count += predicate != 0 ? 1 : 0;
    open_barrier();
    wait_for_others();
    return block.last_count;
}

void fake_sync_block(void) {
    (void)fake_sync_block_count(0);
}

/* If all lanes wait for whom `thread` waits, they go on. */
QUICK static void open_warp(int thread) {
    int first = thread / LANES * LANES;
    const struct lane_wait *own = &block.waits[thread];
    unsigned group = own->mask & block.alive[thread / LANES];
    if ((block.waiting[thread / LANES] & group) != group) {
        return;
    }
    const void *in[LANES] = { NULL };
    void *out[LANES] = { NULL };
    for (int i = 0; i < LANES; i++) {
        const struct lane_wait *wait = &block.waits[first + i];
        if ((group >> i & 1U) == 0) {
            continue;
        }
        if (wait->mask != own->mask) {
            return;
        }
        if (wait->name != own->name && strcmp(wait->name, own->name) != 0) {
            fake_cuda_abort("%s: lanes of a warp meet in %s and %s", block.name, own->name, wait->name);
        }
        in[i] = wait->in;
        out[i] = wait->out;
    }
    if (own->combine != NULL) {
        own->combine(in, out, own->user);
    }
    for (int i = 0; i < LANES; i++) {
        int lane = block.is_reversed ? LANES - 1 - i : i;
        if ((group >> lane & 1U) != 0) {
            block.waits[first + lane].mask = 0;
            block.waiting[thread / LANES] &= ~(1U << lane);
            push_ready(first + lane);
        }
    }
}

QUICK void fake_sync_warp(unsigned mask, const char *name, const void *in, void *out, fake_combine combine,
                          const void *user) {
    int thread = current->thread;
    if ((mask >> (thread % LANES) & 1U) == 0) {
        fake_cuda_abort("%s: %s by a lane that its mask %#x does not name", block.name, name, mask);
    }
    block.waits[thread] = (struct lane_wait){ mask, name, in, out, combine, user };
    block.waiting[thread / LANES] |= 1U << (thread % LANES);
    open_warp(thread);
    wait_for_others();
}

/* Those who wait for a thread that has left need not. */
QUICK static void end_thread(void) {
    int thread = current->thread;
    int warp = thread / LANES;
    block.alive[warp] &= ~(1U << (thread % LANES));
    block.n_ended++;
    for (int i = warp * LANES; block.waiting[warp] != 0 && i < (warp + 1) * LANES; i++) {
        if (block.waits[i].mask != 0) {
            open_warp(i);
        }
    }
    open_barrier();
}

/* What every fiber does: threads, one after the other. */
QUICK static void run_fiber(void) {
    arrive();
    for (;;) {
        while (block.n_ready == 0 && block.n_begun < block.n_threads) {
            int i = block.n_begun++;
            take_thread(block.is_reversed ? block.n_threads - 1 - i : i);
            block.thread(block.data);
            end_thread();
        }
        current->next_idle = idle;
        idle = current;
        switch_to(next_fiber());
    }
}

static __attribute__((noreturn)) void report_deadlock(void) {
    for (int i = 0; i < block.n_threads; i++) {
        if (block.waits[i].mask != 0 || block.waits_for_block[i]) {
            (void)fprintf(stderr, "  thread %d waits in %s\n", i,
                          block.waits_for_block[i] ? "__syncthreads" : block.waits[i].name);
        }
    }
    fake_cuda_abort("%s: the threads of block (%u, %u, %u) wait for each other", block.name, blockIdx.x, blockIdx.y,
                    blockIdx.z);
}

static void run_block(void) {
    block.n_begun = 0;
    block.n_ended = 0;
    block.n_at_barrier = 0;
    block.count = 0;
    block.first_ready = 0;
    block.n_ready = 0;
    for (int i = 0; i < block.n_threads; i += LANES) {
        int n = block.n_threads - i;
        block.alive[i / LANES] = n >= LANES ? ~0U : (1U << n) - 1U;
    }
    if (fake_shared_bytes > 0) {
        memset(fake_shared_memory, 0xff, fake_shared_bytes);
    }
    switch_to(next_fiber());
    if (block.n_ended < block.n_threads) {
        report_deadlock();
    }
}

void fake_device_run(const char *name, dim3 grid, dim3 block_size, size_t shared_bytes, void (*thread)(void *data),
                     void *data) {
    void *shared = NULL;
    if (shared_bytes > 0 && posix_memalign(&shared, 128, shared_bytes) != 0) {
        fake_cuda_abort("%s: no memory for %zu bytes of shared memory", name, shared_bytes);
    }
    block.name = name;
    block.thread = thread;
    block.data = data;
    block.n_threads = (int)(block_size.x * block_size.y * block_size.z);
    fake_shared_memory = shared;
    fake_shared_bytes = shared_bytes;
    gridDim = grid;
    blockDim = block_size;
    uint64_t n_blocks = (uint64_t)grid.x * grid.y * grid.z;
    n_launches++;
    for (uint64_t i = 0; i < n_blocks; i++) {
        blockIdx.x = (unsigned)(i % grid.x);
        blockIdx.y = (unsigned)(i / grid.x % grid.y);
        blockIdx.z = (unsigned)(i / grid.x / grid.y);
        block.is_reversed = ((n_launches + i) & 1U) != 0;
        run_block();
    }
    fake_shared_memory = NULL;
    fake_shared_bytes = 0;
    free(shared);
}
