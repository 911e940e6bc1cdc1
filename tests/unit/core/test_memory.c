/* Memory: checked sizes, byte buffers, arenas, and what happens when an allocation fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/memory.h"
#include "core/size.h"

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

/* ---- An allocator that counts and fails on demand ---- */

struct faulty {
    long n_held, n_asked, fails_at; /* fails_at: the request that gets nothing, counted from 1; 0: none */
    size_t last_bytes;
};

static void *allocate(void *user, size_t size_bytes) {
    struct faulty *faulty = user;
    faulty->last_bytes = size_bytes;
    if (++faulty->n_asked == faulty->fails_at) {
        return NULL;
    }
    faulty->n_held++;
    return malloc(size_bytes);
}

static void release(void *user, void *block) {
    ((struct faulty *)user)->n_held--;
    free(block);
}

/* ---- Sizes and blocks ---- */

static void sizes_that_overflow_are_told(void **state) {
    (void)state;
    size_t result = 7;
    assert_true(size_mul(&result, SIZE_MAX / 2, 2) && result == SIZE_MAX - 1);
    assert_false(size_mul(&result, SIZE_MAX / 2 + 1, 2));
    assert_true(size_add(&result, SIZE_MAX - 1, 1) && result == SIZE_MAX);
    assert_false(size_add(&result, SIZE_MAX, 1));
    assert_true(size_mul3(&result, 3, 5, 7) && result == 105);
    assert_false(size_mul3(&result, SIZE_MAX / 8, 3, 3));
    assert_false(size_mul3(&result, SIZE_MAX, SIZE_MAX, 0)); /* the first product counts, whatever follows */
    assert_true(size_mul3(&result, 0, SIZE_MAX, SIZE_MAX) && result == 0);
}

static void blocks_come_from_the_allocator(void **state) {
    (void)state;
    struct faulty faulty = { 0 };
    struct cyi_allocator allocator = { allocate, release, &faulty };
    void *block = mem_alloc(&allocator, 10);
    assert_non_null(block);
    assert_int_equal(faulty.last_bytes, 10);
    uint8_t *zeros = mem_alloc_zeroed(&allocator, 3, 5);
    for (int i = 0; i < 15; i++) {
        assert_int_equal(zeros[i], 0);
    }
    char *text = mem_copy_string(&allocator, "sigma");
    assert_string_equal(text, "sigma");
    assert_int_equal(faulty.n_held, 3);
    mem_free(&allocator, block);
    mem_free(&allocator, zeros);
    mem_free(&allocator, text);
    mem_free(&allocator, NULL);
    assert_int_equal(faulty.n_held, 0);
}

static void blocks_of_no_or_impossible_size_are_null(void **state) {
    (void)state;
    struct faulty faulty = { 0 };
    struct cyi_allocator allocator = { allocate, release, &faulty };
    assert_null(mem_alloc(&allocator, 0));
    assert_null(mem_alloc_zeroed(&allocator, 0, 8));
    assert_null(mem_alloc_zeroed(&allocator, SIZE_MAX / 4, 8));
    assert_int_equal(faulty.n_asked, 0);
    faulty.fails_at = 1;
    assert_null(mem_copy_string(&allocator, "no memory"));
}

static void large_default_blocks_can_be_used_whole(void **state) {
    (void)state;
    size_t size = 5 * MIB + 3;
    uint8_t *block = mem_alloc(&mem_default_allocator, size);
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % (2 * MIB), 0);
    block[0] = 1;
    block[size - 1] = 2;
    mem_free(&mem_default_allocator, block);
}

/* ---- Byte buffers ---- */

static void byte_buffer_keeps_what_is_appended(void **state) {
    (void)state;
    struct byte_buffer buffer;
    byte_buffer_init(&buffer, &mem_default_allocator, 100000);
    uint8_t piece[97];
    for (int i = 0; i < 1000; i++) {
        memset(piece, i % 251, sizeof piece);
        assert_int_equal(byte_buffer_append(&buffer, piece, sizeof piece, NULL), CYI_OK);
    }
    assert_int_equal(buffer.size_bytes, 97000);
    for (size_t i = 0; i < buffer.size_bytes; i++) {
        assert_int_equal(buffer.data[i], i / 97 % 251);
    }
    assert_int_equal(byte_buffer_append(&buffer, NULL, 3000, NULL), CYI_OK);
    assert_int_equal(buffer.data[99999], 0);
    byte_buffer_done(&buffer);
    assert_null(buffer.data);
}

static void byte_buffer_stops_exactly_at_its_limit(void **state) {
    (void)state;
    struct byte_buffer buffer;
    struct cyi_error err = { 0 };
    byte_buffer_init(&buffer, &mem_default_allocator, 10);
    assert_int_equal(byte_buffer_append(&buffer, "0123456789", 10, &err), CYI_OK);
    assert_int_equal(byte_buffer_append(&buffer, "", 0, &err), CYI_OK);
    assert_int_equal(byte_buffer_append(&buffer, "x", 1, &err), CYI_E_ARGUMENT);
    assert_string_equal(err.text, "data is larger than its limit of 10 bytes");
    assert_int_equal(byte_buffer_append(&buffer, "x", SIZE_MAX, NULL), CYI_E_ARGUMENT);
    assert_int_equal(buffer.size_bytes, 10);
    assert_memory_equal(buffer.data, "0123456789", 10);
    byte_buffer_done(&buffer);
}

static void byte_buffer_is_unchanged_when_memory_ends(void **state) {
    (void)state;
    struct faulty faulty = { .fails_at = 2 };
    struct cyi_allocator allocator = { allocate, release, &faulty };
    struct byte_buffer buffer;
    struct cyi_error err = { 0 };
    byte_buffer_init(&buffer, &allocator, MIB);
    assert_int_equal(byte_buffer_append(&buffer, "abc", 3, &err), CYI_OK);
    assert_int_equal(byte_buffer_append(&buffer, NULL, 4096, &err), CYI_E_MEMORY);
    assert_int_equal(buffer.size_bytes, 3);
    assert_memory_equal(buffer.data, "abc", 3);
    byte_buffer_done(&buffer);
    assert_int_equal(faulty.n_held, 0);
}

/* ---- Arenas ---- */

static struct arena *new_arena(const struct cyi_allocator *allocator) {
    struct arena *arena = NULL;
    assert_int_equal(arena_create(allocator, &arena, NULL), CYI_OK);
    return arena;
}

static void arena_pieces_are_aligned_and_apart(void **state) {
    (void)state;
    struct arena *arena = new_arena(&mem_default_allocator);
    uint8_t *pieces[300];
    for (size_t i = 0; i < 300; i++) {
        size_t size = i * i % 9001;
        pieces[i] = arena_alloc(arena, size, 1);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % MEM_ALIGN, 0);
        memset(pieces[i], (int)(i % 256), size);
    }
    for (size_t i = 0; i < 300; i++) {
        for (size_t j = 0; j < i * i % 9001; j++) {
            assert_int_equal(pieces[i][j], i % 256);
        }
    }
    arena_free(arena);
    arena_free(NULL);
}

static void arena_hands_out_released_memory_again(void **state) {
    (void)state;
    struct faulty faulty = { 0 };
    struct cyi_allocator allocator = { allocate, release, &faulty };
    struct arena *arena = new_arena(&allocator);
    uint8_t *kept = arena_alloc(arena, 100, 1);
    memset(kept, 42, 100);
    struct arena_mark mark = arena_get_mark(arena);
    void *first = arena_alloc(arena, 1000, 1);
    assert_non_null(arena_alloc(arena, 3 * MIB, 1));
    assert_non_null(arena_alloc(arena, 700 * KIB, 1));
    long n_held = faulty.n_held;
    for (int round = 0; round < 5; round++) {
        arena_release(arena, mark);
        assert_ptr_equal(arena_alloc(arena, 1000, 1), first);
        assert_non_null(arena_alloc(arena, 3 * MIB, 1));
        assert_non_null(arena_alloc(arena, 700 * KIB, 1));
        assert_int_equal(faulty.n_held, n_held);
    }
    for (int i = 0; i < 100; i++) {
        assert_int_equal(kept[i], 42);
    }
    arena_free(arena);
    assert_int_equal(faulty.n_held, 0);
}

static void arena_marks_nest(void **state) {
    (void)state;
    struct arena *arena = new_arena(&mem_default_allocator);
    struct arena_mark outer = arena_get_mark(arena); /* of an empty arena */
    void *a = arena_alloc(arena, 600 * KIB, 1);
    struct arena_mark inner = arena_get_mark(arena);
    void *b = arena_alloc(arena, 600 * KIB, 1); /* does not fit beside a */
    arena_release(arena, inner);
    assert_ptr_equal(arena_alloc(arena, 600 * KIB, 1), b);
    void *c = arena_alloc(arena, 300 * KIB, 1);
    assert_true((uint8_t *)c >= (uint8_t *)b + 600 * KIB || (uint8_t *)c + 300 * KIB <= (uint8_t *)b);
    arena_release(arena, outer);
    assert_ptr_equal(arena_alloc(arena, 600 * KIB, 1), a);
    arena_free(arena);
}

static void arena_trim_gives_back_what_holds_nothing(void **state) {
    (void)state;
    struct faulty faulty = { 0 };
    struct cyi_allocator allocator = { allocate, release, &faulty };
    struct arena *arena = new_arena(&allocator);
    uint8_t *kept = arena_alloc(arena, 10, 1);
    kept[9] = 9;
    struct arena_mark mark = arena_get_mark(arena);
    assert_non_null(arena_alloc(arena, 4 * MIB, 1));
    assert_non_null(arena_alloc(arena, 8 * MIB, 1));
    assert_int_equal(faulty.n_held, 4); /* the arena and three chunks */
    arena_trim(arena);
    assert_int_equal(faulty.n_held, 4);
    arena_release(arena, mark);
    arena_trim(arena);
    assert_int_equal(faulty.n_held, 2);
    assert_int_equal(kept[9], 9);
    mark = arena_get_mark(arena);
    assert_non_null(arena_alloc(arena, 4 * MIB, 1));
    arena_release(arena, mark);
    arena_trim(arena);
    assert_int_equal(faulty.n_held, 2);
    assert_ptr_equal(arena_alloc(arena, 10, 1), kept + MEM_ALIGN);
    arena_free(arena);
    assert_int_equal(faulty.n_held, 0);
}

static void arena_trim_empties_an_arena_that_goes_on(void **state) {
    (void)state;
    struct faulty faulty = { 0 };
    struct cyi_allocator allocator = { allocate, release, &faulty };
    struct arena *arena = new_arena(&allocator);
    struct arena_mark mark = arena_get_mark(arena);
    for (int round = 0; round < 3; round++) {
        assert_non_null(arena_alloc(arena, 2 * MIB, 1));
        assert_non_null(arena_alloc(arena, 2 * MIB, 1));
        arena_release(arena, mark);
        arena_trim(arena);
        assert_int_equal(faulty.n_held, 1);
    }
    arena_free(arena);
}

static void arena_peak_is_the_most_ever_held(void **state) {
    (void)state;
    struct arena *arena = new_arena(&mem_default_allocator);
    assert_int_equal(arena_get_peak(arena), 0);
    struct arena_mark mark = arena_get_mark(arena);
    assert_non_null(arena_alloc(arena, 3 * MIB, 1));
    size_t first = arena_get_peak(arena);
    assert_true(first >= 3 * MIB && first < 4 * MIB);
    arena_release(arena, mark);
    arena_trim(arena);
    assert_non_null(arena_alloc(arena, 2 * MIB, 1));
    assert_int_equal(arena_get_peak(arena), first);
    assert_non_null(arena_alloc(arena, 2 * MIB, 1));
    assert_true(arena_get_peak(arena) >= 4 * MIB);
    arena_free(arena);
}

static void arena_refuses_sizes_that_overflow(void **state) {
    (void)state;
    struct faulty faulty = { 0 };
    struct cyi_allocator allocator = { allocate, release, &faulty };
    struct arena *arena = new_arena(&allocator);
    assert_null(arena_alloc(arena, SIZE_MAX / 2, 4));
    assert_null(arena_alloc(arena, SIZE_MAX, 1));
    assert_null(arena_alloc(arena, SIZE_MAX - MEM_ALIGN, 1));
    assert_int_equal(faulty.n_asked, 1);
    assert_non_null(arena_alloc(arena, 16, 1));
    arena_free(arena);
}

static void arena_goes_on_after_a_failed_allocation(void **state) {
    (void)state;
    for (long n = 1; n <= 5; n++) {
        struct faulty faulty = { .fails_at = n };
        struct cyi_allocator allocator = { allocate, release, &faulty };
        struct arena *arena = NULL;
        struct cyi_error err = { 0 };
        enum cyi_status st = arena_create(&allocator, &arena, &err);
        if (n == 1) {
            assert_int_equal(st, CYI_E_MEMORY);
            assert_int_equal(err.code, CYI_E_MEMORY);
            assert_int_equal(faulty.n_held, 0);
            continue;
        }
        struct arena_mark mark = arena_get_mark(arena);
        int n_failed = 0;
        for (int i = 0; i < 4; i++) {
            n_failed += arena_alloc(arena, 900 * KIB, 1) == NULL;
        }
        assert_int_equal(n_failed, n <= 5 ? 1 : 0);
        arena_release(arena, mark);
        for (int i = 0; i < 4; i++) {
            assert_non_null(arena_alloc(arena, 900 * KIB, 1));
        }
        arena_free(arena);
        assert_int_equal(faulty.n_held, 0);
    }
}

static void arena_with_too_many_chunks_says_no(void **state) {
    (void)state;
    struct arena *arena = new_arena(&mem_default_allocator);
    int n = 0;
    while (n < 100000 && arena_alloc(arena, MIB, 1) != NULL) {
        n++;
    }
    assert_true(n >= 100 && n < 100000);
    arena_free(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_that_overflow_are_told),
        cmocka_unit_test(blocks_come_from_the_allocator),
        cmocka_unit_test(blocks_of_no_or_impossible_size_are_null),
        cmocka_unit_test(large_default_blocks_can_be_used_whole),
        cmocka_unit_test(byte_buffer_keeps_what_is_appended),
        cmocka_unit_test(byte_buffer_stops_exactly_at_its_limit),
        cmocka_unit_test(byte_buffer_is_unchanged_when_memory_ends),
        cmocka_unit_test(arena_pieces_are_aligned_and_apart),
        cmocka_unit_test(arena_hands_out_released_memory_again),
        cmocka_unit_test(arena_marks_nest),
        cmocka_unit_test(arena_trim_gives_back_what_holds_nothing),
        cmocka_unit_test(arena_trim_empties_an_arena_that_goes_on),
        cmocka_unit_test(arena_peak_is_the_most_ever_held),
        cmocka_unit_test(arena_refuses_sizes_that_overflow),
        cmocka_unit_test(arena_goes_on_after_a_failed_allocation),
        cmocka_unit_test(arena_with_too_many_chunks_says_no),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
