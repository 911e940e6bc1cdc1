/* Memory of the fake device: blocks in one reserved region that can be touched only between fake_cuda_open_memory and
 * fake_cuda_close_memory, which is around every kernel, copy and library call. So host code that looks at device memory crashes.
 *
 * Blocks begin on pages of their own, with a page between them that ASan knows as poisoned; new places are searched behind the last one,
 * so that addresses are used again late. A new block is full of NaN, in every floating type: the region is a private view of a file of such
 * bytes, over and over, so that large blocks cost what is written of them. */
#include "fake_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#define REGION_BYTES ((size_t)64 << 30)
#define PAGE ((size_t)4096)
#define NAN_BYTES ((size_t)16 << 20) /* of the file of NaN */
#define POISON_BYTES ((size_t)64 << 10)
#define HOST_LARGE                                                                                                     \
    ((size_t)1 << 20) /* from which memory of the host is pages of zeros, not a heap block of NaN: it costs less */
#define GRAIN ((size_t)512) /* what a block takes of the device is rounded up to it */

struct device_block {
    size_t offset, size_bytes;
    bool is_released; /* given to cudaFreeAsync; the stream has not come to it yet */
    bool is_from_pool;
};

struct host_block {
    void *data;
    size_t size_bytes;
    bool is_registered; /* memory of somebody else */
};

static unsigned char *region;
static size_t mapped_bytes; /* of the region: what shows the file */
static int nan_file = -1;
static int n_open;
static struct device_block *blocks; /* by offset */
static size_t n_blocks, max_blocks, search_offset;
static size_t held_bytes, peak_bytes;
static struct host_block *host_blocks;
static size_t n_host_blocks, max_host_blocks;

static size_t round_up(size_t size, size_t grain) {
    return (size + grain - 1) / grain * grain;
}

/* What a block takes of the region, the page behind it included. */
static size_t get_span(size_t size_bytes) {
    return round_up(size_bytes, PAGE) + PAGE;
}

static void need_region(void) {
    if (region != NULL) {
        return;
    }
    void *pages = mmap(NULL, REGION_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) {
        fake_cuda_abort("no addresses for the memory of the device");
    }
    region = pages;
}

static void need_nan_file(void) {
    if (nan_file >= 0) {
        return;
    }
    nan_file = memfd_create("nan", 0);
    void *bytes = MAP_FAILED;
    if (nan_file >= 0 && ftruncate(nan_file, (off_t)NAN_BYTES) == 0) {
        bytes = mmap(NULL, NAN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, nan_file, 0);
    }
    if (bytes == MAP_FAILED) {
        fake_cuda_abort("no memory for a file of NaN");
    }
    memset(bytes, 0xff, NAN_BYTES);
    (void)munmap(bytes, NAN_BYTES);
}

static void map_region(size_t size_bytes) {
    need_nan_file();
    for (; mapped_bytes < size_bytes; mapped_bytes += NAN_BYTES) {
        if (mmap(region + mapped_bytes, NAN_BYTES, PROT_NONE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, nan_file, 0) ==
            MAP_FAILED) {
            fake_cuda_abort("no addresses for the memory of the device");
        }
    }
}

/* Everything between the first block and the last. */
static void protect(int protection) {
    if (n_blocks == 0) {
        return;
    }
    const struct device_block *last = &blocks[n_blocks - 1];
    size_t first = blocks[0].offset;
    if (mprotect(region + first, last->offset + get_span(last->size_bytes) - first, protection) != 0) {
        fake_cuda_abort("the memory of the device cannot be protected");
    }
}

void fake_cuda_open_memory(void) {
    if (n_open++ == 0) {
        protect(PROT_READ | PROT_WRITE);
    }
}

void fake_cuda_close_memory(void) {
    if (--n_open == 0) {
        protect(PROT_NONE);
    }
}

bool fake_memory_is_in_region(const void *address) {
    uintptr_t at = (uintptr_t)address;
    return region != NULL && at >= (uintptr_t)region && at < (uintptr_t)region + REGION_BYTES;
}

/* The block that holds an address, or NULL. */
static struct device_block *find_block(const void *address) {
    if (!fake_memory_is_in_region(address)) {
        return NULL;
    }
    size_t offset = (size_t)((uintptr_t)address - (uintptr_t)region);
    size_t low = 0;
    size_t high = n_blocks; /* the first block behind the address is in low … high */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (blocks[middle].offset <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0 || offset - blocks[low - 1].offset >= blocks[low - 1].size_bytes) {
        return NULL;
    }
    return &blocks[low - 1];
}

bool fake_memory_is_valid(const void *address, size_t size_bytes) {
    const struct device_block *block = find_block(address);
    return block != NULL && !block->is_released &&
           (uintptr_t)address + size_bytes <= (uintptr_t)region + block->offset + block->size_bytes;
}

bool fake_cuda_is_device_memory(const void *address) {
    return find_block(address) != NULL;
}

bool fake_memory_is_pinned(const void *address) {
    for (size_t i = 0; i < n_host_blocks; i++) {
        uintptr_t start = (uintptr_t)host_blocks[i].data;
        if ((uintptr_t)address >= start && (uintptr_t)address < start + host_blocks[i].size_bytes) {
            return true;
        }
    }
    return false;
}

/* ---- Blocks of the device ---- */

/* A gap of span bytes at or behind `from`; ret_index: where the block stands in the list. */
static bool find_gap(size_t from, size_t span, size_t *ret_offset, size_t *ret_index) {
    size_t start = 0;
    for (size_t i = 0; i <= n_blocks; i++) {
        size_t end = i < n_blocks ? blocks[i].offset : REGION_BYTES;
        size_t at = start > from ? start : from;
        if (at <= end && end - at >= span) {
            *ret_offset = at;
            *ret_index = i;
            return true;
        }
        start = i < n_blocks ? blocks[i].offset + get_span(blocks[i].size_bytes) : 0;
    }
    return false;
}

static void *add_block(size_t size_bytes, bool is_from_pool) {
    size_t offset = 0;
    size_t index = 0;
    size_t span = get_span(size_bytes);
    if (!find_gap(search_offset, span, &offset, &index) && !find_gap(0, span, &offset, &index)) {
        return NULL;
    }
    if (n_blocks == max_blocks) {
        max_blocks = max_blocks * 2 + 64;
        blocks = realloc(blocks, max_blocks * sizeof *blocks);
        if (blocks == NULL) {
            fake_cuda_abort("no memory for the list of blocks");
        }
    }
    memmove(&blocks[index + 1], &blocks[index], (n_blocks - index) * sizeof *blocks);
    blocks[index] = (struct device_block){ .offset = offset, .size_bytes = size_bytes, .is_from_pool = is_from_pool };
    n_blocks++;
    search_offset = offset + span;
    held_bytes += round_up(size_bytes, GRAIN);
    peak_bytes = held_bytes > peak_bytes ? held_bytes : peak_bytes;
    map_region(offset + span);
    unsigned char *data = region + offset;
    ASAN_UNPOISON_MEMORY_REGION(data, size_bytes);
    ASAN_POISON_MEMORY_REGION(data + size_bytes, span - size_bytes);
    if (n_open > 0) {
        protect(PROT_READ | PROT_WRITE);
    }
    return data;
}

/* The beginning and the end of a block that is gone: of large ones, every byte would take long. */
static void poison_ends(unsigned char *data, size_t span) {
    size_t n = span < POISON_BYTES ? span : POISON_BYTES;
    ASAN_POISON_MEMORY_REGION(data, n);
    ASAN_POISON_MEMORY_REGION(data + span - n, n);
}

static void remove_block(struct device_block *block) {
    unsigned char *data = region + block->offset;
    (void)madvise(data, get_span(block->size_bytes), MADV_DONTNEED); /* NaN again */
    poison_ends(data, get_span(block->size_bytes));
    held_bytes -= round_up(block->size_bytes, GRAIN);
    size_t index = (size_t)(block - blocks);
    n_blocks--;
    memmove(&blocks[index], &blocks[index + 1], (n_blocks - index) * sizeof *blocks);
    search_offset = n_blocks == 0 ? 0 : search_offset;
}

/* Counts down to the allocation that is to fail. */
static bool is_to_fail(void) {
    long *n = &fake_settings()->allocations_to_failure;
    return *n > 0 && --*n == 0;
}

static bool has_room(size_t size_bytes) {
    size_t limit = fake_settings()->memory_bytes;
    return size_bytes <= limit && round_up(size_bytes, GRAIN) <= limit - (held_bytes < limit ? held_bytes : limit);
}

static cudaError_t allocate(void **ret, size_t size_bytes, bool is_from_pool) {
    *ret = NULL;
    if (size_bytes == 0) {
        return cudaSuccess;
    }
    if (is_to_fail()) {
        return fake_fail(cudaErrorMemoryAllocation);
    }
    need_region();
    if (!has_room(size_bytes)) {
        cudaError_t code = fake_drain_all(); /* frees in the order of streams may be under way */
        if (code != cudaSuccess) {
            return code;
        }
    }
    void *data = has_room(size_bytes) ? add_block(size_bytes, is_from_pool) : NULL;
    if (data == NULL) {
        return fake_fail(cudaErrorMemoryAllocation);
    }
    *ret = data;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **ret, size_t size_bytes) {
    cudaError_t code = fake_begin_call();
    code = code == cudaSuccess ? fake_forbid_in_capture(false) : code;
    return code == cudaSuccess ? allocate(ret, size_bytes, false) : code;
}

cudaError_t cudaMallocAsync(void **ret, size_t size_bytes, cudaStream_t stream) {
    cudaError_t code = fake_begin_call();
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    code = code == cudaSuccess ? cudaStreamIsCapturing(stream, &status) : code;
    if (code == cudaSuccess && status != cudaStreamCaptureStatusNone) {
        return fake_forbid_in_capture(true); /* the real one would make a node of it: this fake can not */
    }
    return code == cudaSuccess ? allocate(ret, size_bytes, true) : code;
}

/* The block that begins at an address; ends the program when there is none. */
static struct device_block *need_block(const void *address, const char *call) {
    struct device_block *block = find_block(address);
    if (block == NULL || region + block->offset != address || block->is_released) {
        fake_cuda_abort("%s of %p, which is no block%s", call, address,
                        block != NULL && block->is_released ? " any more: it was freed before" : "");
    }
    return block;
}

/* What freeing does before the block goes: it waits for all work. *ret_is_over: there is nothing to free, or it may not be freed now. */
static cudaError_t begin_free(const void *block, bool *ret_is_over) {
    cudaError_t code = fake_begin_call();
    *ret_is_over = block == NULL;
    if (block == NULL || code != cudaSuccess) {
        return code;
    }
    code = fake_forbid_in_capture(false);
    *ret_is_over = code != cudaSuccess;
    return *ret_is_over ? code : fake_drain_all();
}

cudaError_t cudaFree(void *block) {
    bool is_over;
    cudaError_t code = begin_free(block, &is_over);
    if (is_over) {
        return code;
    }
    remove_block(need_block(block, "cudaFree"));
    return code;
}

cudaError_t cudaFreeAsync(void *block, cudaStream_t stream) {
    cudaError_t code = fake_begin_call();
    if (block == NULL) {
        return code;
    }
    struct device_block *found = need_block(block, "cudaFreeAsync");
    if (code != cudaSuccess) {
        remove_block(found);
        return code;
    }
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    code = cudaStreamIsCapturing(stream, &status);
    if (code == cudaSuccess && status != cudaStreamCaptureStatusNone) {
        return fake_forbid_in_capture(true);
    }
    if (code == cudaSuccess) {
        found->is_released = true;
        code = fake_queue_release(stream, block);
    }
    return code;
}

void fake_memory_release(void *block) {
    struct device_block *found = find_block(block);
    if (found != NULL) {
        remove_block(found);
    }
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total) {
    cudaError_t code = fake_begin_call();
    if (code == cudaSuccess) {
        size_t total = fake_settings()->memory_bytes;
        *ret_total = total;
        *ret_free = held_bytes < total ? total - held_bytes : 0;
    }
    return code;
}

size_t fake_cuda_get_held_bytes(void) {
    return held_bytes;
}

size_t fake_cuda_get_peak_bytes(void) {
    return peak_bytes;
}

long fake_memory_get_n_held(void) {
    long n = (long)n_host_blocks;
    for (size_t i = 0; i < n_blocks; i++) {
        n += blocks[i].is_released ? 0 : 1;
    }
    return n;
}

/* ---- The pool: everything goes back at once, so there is nothing to set ---- */

static int pool;

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *ret_pool, int device) {
    cudaError_t code = cudaSetDevice(device);
    if (code == cudaSuccess) {
        *ret_pool = (cudaMemPool_t)(void *)&pool;
    }
    return code;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t p, enum cudaMemPoolAttr attribute, void *value) {
    (void)attribute;
    (void)value;
    cudaError_t code = fake_begin_call();
    return code != cudaSuccess || (void *)p == (void *)&pool ? code : fake_fail(cudaErrorInvalidValue);
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t p, enum cudaMemPoolAttr attribute, void *value) {
    cudaError_t code = cudaMemPoolSetAttribute(p, attribute, value);
    uint64_t bytes = 0;
    for (size_t i = 0; i < n_blocks && attribute != cudaMemPoolAttrReleaseThreshold; i++) {
        bytes += blocks[i].is_from_pool ? round_up(blocks[i].size_bytes, GRAIN) : 0;
    }
    if (code == cudaSuccess) {
        *(uint64_t *)value = bytes;
    }
    return code;
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t p, size_t min_bytes_to_keep) {
    (void)min_bytes_to_keep;
    return cudaMemPoolSetAttribute(p, cudaMemPoolAttrReleaseThreshold, NULL);
}

/* ---- Memory of the host that the device can reach ---- */

static void *new_host_memory(size_t size_bytes) {
    void *data = NULL;
    if (size_bytes >= HOST_LARGE) {
        size_t n = round_up(size_bytes, PAGE);
        data = mmap(NULL, n + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return data == MAP_FAILED || mprotect((unsigned char *)data + n, PAGE, PROT_NONE) != 0 ? NULL : data;
    }
    if (posix_memalign(&data, 512, size_bytes) != 0) {
        return NULL;
    }
    return memset(data, 0xff, size_bytes);
}

static void free_host_memory(void *data, size_t size_bytes) {
    if (size_bytes >= HOST_LARGE) {
        (void)munmap(data, get_span(size_bytes));
    } else {
        free(data);
    }
}

static void add_host_block(void *data, size_t size_bytes, bool is_registered) {
    if (n_host_blocks == max_host_blocks) {
        max_host_blocks = max_host_blocks * 2 + 16;
        host_blocks = realloc(host_blocks, max_host_blocks * sizeof *host_blocks);
        if (host_blocks == NULL) {
            fake_cuda_abort("no memory for the list of blocks");
        }
    }
    host_blocks[n_host_blocks++] = (struct host_block){ data, size_bytes, is_registered };
}

/* Takes the block that begins at an address off the list; frees it unless it is somebody else's. */
static bool remove_host_block(const void *data, bool is_registered) {
    for (size_t i = 0; i < n_host_blocks; i++) {
        if (host_blocks[i].data == data && host_blocks[i].is_registered == is_registered) {
            if (!is_registered) {
                free_host_memory(host_blocks[i].data, host_blocks[i].size_bytes);
            }
            host_blocks[i] = host_blocks[--n_host_blocks];
            return true;
        }
    }
    return false;
}

cudaError_t cudaHostAlloc(void **ret, size_t size_bytes, unsigned flags) {
    (void)flags;
    cudaError_t code = fake_begin_call();
    code = code == cudaSuccess ? fake_forbid_in_capture(false) : code;
    if (code != cudaSuccess) {
        return code;
    }
    *ret = NULL;
    if (size_bytes == 0) {
        return cudaSuccess;
    }
    void *data = is_to_fail() ? NULL : new_host_memory(size_bytes);
    if (data == NULL) {
        return fake_fail(cudaErrorMemoryAllocation);
    }
    add_host_block(data, size_bytes, false);
    *ret = data;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **ret, size_t size_bytes) {
    return cudaHostAlloc(ret, size_bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *block) {
    bool is_over;
    cudaError_t code = begin_free(block, &is_over);
    if (is_over) {
        return code;
    }
    if (!remove_host_block(block, false)) {
        fake_cuda_abort("cudaFreeHost of %p, which is no block", block);
    }
    return code;
}

cudaError_t cudaHostRegister(void *block, size_t size_bytes, unsigned flags) {
    (void)flags;
    cudaError_t code = fake_begin_call();
    code = code == cudaSuccess ? fake_forbid_in_capture(false) : code;
    if (code != cudaSuccess) {
        return code;
    }
    if (block == NULL || size_bytes == 0) {
        return fake_fail(cudaErrorInvalidValue);
    }
    if (fake_memory_is_pinned(block) || fake_memory_is_pinned((const unsigned char *)block + size_bytes - 1)) {
        return fake_fail(cudaErrorHostMemoryAlreadyRegistered);
    }
    add_host_block(block, size_bytes, true);
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *block) {
    cudaError_t code = fake_begin_call();
    code = code == cudaSuccess ? fake_drain_all() : code;
    if (!remove_host_block(block, true)) {
        return fake_fail(cudaErrorHostMemoryNotRegistered);
    }
    return code;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *ret, const void *address) {
    cudaError_t code = fake_begin_call();
    if (code != cudaSuccess) {
        return code;
    }
    *ret = (struct cudaPointerAttributes){ .type = cudaMemoryTypeUnregistered };
    if (fake_memory_is_valid(address, 0)) {
        ret->type = cudaMemoryTypeDevice;
        ret->devicePointer = (void *)(uintptr_t)address;
    } else if (fake_memory_is_pinned(address)) {
        ret->type = cudaMemoryTypeHost;
        ret->devicePointer = (void *)(uintptr_t)address;
        ret->hostPointer = (void *)(uintptr_t)address;
    }
    return cudaSuccess;
}

void fake_memory_reset(void) {
    while (n_blocks > 0) {
        remove_block(&blocks[n_blocks - 1]);
    }
    for (size_t i = 0; i < n_host_blocks; i++) {
        if (!host_blocks[i].is_registered) {
            free_host_memory(host_blocks[i].data, host_blocks[i].size_bytes);
        }
    }
    free(blocks);
    free(host_blocks);
    blocks = NULL;
    host_blocks = NULL;
    n_blocks = max_blocks = n_host_blocks = max_host_blocks = 0;
    peak_bytes = 0;
    if (region != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(region, mapped_bytes);
        (void)munmap(region, REGION_BYTES);
    }
    if (nan_file >= 0) {
        (void)close(nan_file);
    }
    region = NULL;
    nan_file = -1;
    mapped_bytes = search_offset = 0;
    n_open = 0;
}
