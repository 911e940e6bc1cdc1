/* Weight sets: single files, shards under an index, what is missing or wrong in them, fingerprints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/safetensors.h"
#include "support/failing_allocator.h"
#include "support/temp_folder.h"

#define STEM "model"
#define INDEX STEM ".safetensors.index.json"

static float values[4096];

static void write_tensors(const char *folder, const char *file_name, const char *const *names, size_t n) {
    char path[TEMP_PATH_BYTES];
    struct tensor tensors[4];
    struct cyi_error err = { 0 };
    for (size_t i = 0; i < n; i++) {
        tensors[i] = tensor_1d(DTYPE_F32, (int64_t)(i + 1) * 8, values);
    }
    enum cyi_status st =
        safetensors_write(&mem_default_allocator, temp_path(path, folder, file_name), names, tensors, n, &err);
    assert_int_equal(st, CYI_OK);
}

static void write_index(const char *folder, const char *index) {
    char path[TEMP_PATH_BYTES];
    temp_write(temp_path(path, folder, INDEX), index, strlen(index));
}

/* Two shards with a, b and c, and the index over them. */
static void write_shards(const char *folder) {
    write_tensors(folder, "one.safetensors", (const char *const[]){ "a", "b" }, 2);
    write_tensors(folder, "two.safetensors", (const char *const[]){ "c", "extra" }, 2);
    write_index(folder, "{\"metadata\":{\"total_size\":1},\"weight_map\":{\"c\":\"two.safetensors\","
                        "\"b\":\"one.safetensors\",\"a\":\"one.safetensors\"}}");
}

static struct weight_set *open_set(const char *path) {
    struct weight_set *set = NULL;
    struct cyi_error err = { 0 };
    if (weight_set_open(&mem_default_allocator, path, STEM, &set, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    return set;
}

static void check_refused(const char *path, enum cyi_status expected, const char *first, const char *second) {
    struct weight_set *set = NULL;
    struct cyi_error err = { 0 };
    assert_int_equal(weight_set_open(&mem_default_allocator, path, STEM, &set, &err), expected);
    assert_null(set);
    if (strstr(err.text, first) == NULL || strstr(err.text, second) == NULL) {
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", err.text, first, second);
    }
}

static void weight_set_opens_one_file_by_path_or_folder(void **state) {
    char path[TEMP_PATH_BYTES];
    write_tensors(*state, STEM ".safetensors", (const char *const[]){ "a", "b" }, 2);
    const char *const paths[] = { *state, temp_path(path, *state, STEM ".safetensors") };
    for (size_t i = 0; i < 2; i++) {
        struct weight_set *set = open_set(paths[i]);
        assert_int_equal(weight_set_n_files(set), 1);
        assert_true(weight_set_has(set, "a") && !weight_set_has(set, "c"));
        assert_int_equal(weight_set_find(set, "b")->tensor.shape[0], 16);
        assert_int_equal(weight_set_n_parameters(set), 24);
        assert_true(weight_set_mapped_bytes(set) > 24 * 4);
        assert_string_equal(weight_set_path(set), paths[i]);
        weight_set_close(set);
    }
    weight_set_close(NULL);
}

static void weight_set_opens_shards_by_their_index(void **state) {
    write_shards(*state);
    struct weight_set *set = open_set(*state);
    assert_int_equal(weight_set_n_files(set), 2);
    assert_non_null(strstr(safetensors_path(weight_set_file(set, 0)), "one.safetensors"));
    assert_int_equal(weight_set_find(set, "a")->tensor.shape[0], 8);
    assert_int_equal(weight_set_find(set, "b")->tensor.shape[0], 16);
    assert_ptr_equal(weight_set_find(set, "c"), safetensors_find(weight_set_file(set, 1), "c"));
    assert_false(weight_set_has(set, "extra")); /* the index does not name it */
    weight_set_close(set);
}

static void weight_set_prefers_the_single_file(void **state) {
    write_shards(*state);
    write_tensors(*state, STEM ".safetensors", (const char *const[]){ "z" }, 1);
    struct weight_set *set = open_set(*state);
    assert_true(weight_set_has(set, "z") && !weight_set_has(set, "a"));
    weight_set_close(set);
}

static void weight_set_names_what_is_missing(void **state) {
    char path[TEMP_PATH_BYTES];
    check_refused(*state, CYI_E_IO, *state, INDEX);
    check_refused(temp_path(path, *state, "absent.safetensors"), CYI_E_IO, path, "No such file");
    write_shards(*state);
    assert_int_equal(unlink(temp_path(path, *state, "two.safetensors")), 0);
    check_refused(*state, CYI_E_IO, INDEX, "two.safetensors");
    write_tensors(*state, "two.safetensors", (const char *const[]){ "d" }, 1);
    check_refused(*state, CYI_E_FORMAT, "\"c\"", "two.safetensors");
    temp_write(temp_path(path, *state, "two.safetensors"), "damaged", 7);
    check_refused(*state, CYI_E_FORMAT, "two.safetensors", "too few");
}

static void weight_set_rejects_shards_outside_the_folder(void **state) {
    static const char *const names[] = { "../one.safetensors", "sub/one.safetensors", "..", ".", "", "a\\\\b" };
    write_shards(*state);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char index[200];
        (void)snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        write_index(*state, index);
        check_refused(*state, CYI_E_FORMAT, "\"a\"", "plain file name");
    }
}

static void weight_set_rejects_broken_indexes(void **state) {
    static const struct {
        const char *index, *rule;
    } rows[] = {
        { "", "JSON" },
        { "[]", "not an object" },
        { "{}", "weight_map" },
        { "{\"weight_map\":[]}", "weight_map" },
        { "{\"weight_map\":{}}", "weight_map" },
        { "{\"weight_map\":{\"a\":1}}", "plain file name" },
        { "{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"two.safetensors\"}}", "duplicate" },
    };
    write_shards(*state);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_index(*state, rows[i].index);
        check_refused(*state, CYI_E_FORMAT, INDEX, rows[i].rule);
    }
}

static void weight_set_reports_every_failing_allocation(void **state) {
    enum cyi_status st = CYI_E_MEMORY;
    write_shards(*state);
    for (size_t n = 1; st != CYI_OK; n++) {
        struct failing_allocator failing;
        struct weight_set *set = NULL;
        struct cyi_error err = { 0 };
        failing_allocator_init(&failing, n);
        st = weight_set_open(&failing.allocator, *state, STEM, &set, &err);
        assert_true(st == CYI_E_MEMORY || (st == CYI_OK && n > 10));
        weight_set_close(set);
        assert_int_equal(failing.n_live, 0);
    }
}

static void get_fingerprint(const char *path, char hex[65]) {
    struct weight_set *set = open_set(path);
    weight_set_fingerprint(set, hex);
    weight_set_close(set);
}

static void weight_set_fingerprint_tells_weights_apart(void **state) {
    char path[TEMP_PATH_BYTES];
    char first[65];
    char other[65];
    const char *const names[] = { "large" };
    struct tensor large = tensor_1d(DTYPE_F32, 4096, values);
    const size_t changes[] = { 0, 511, 4095, 4096 - 512 };
    (void)temp_path(path, *state, "a.safetensors");
    assert_int_equal(safetensors_write(&mem_default_allocator, path, names, &large, 1, NULL), CYI_OK);
    get_fingerprint(path, first);
    assert_int_equal(strlen(first), 64);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        values[changes[i]] += 1.0F;
        assert_int_equal(safetensors_write(&mem_default_allocator, path, names, &large, 1, NULL), CYI_OK);
        get_fingerprint(path, other);
        assert_string_not_equal(first, other);
        values[changes[i]] -= 1.0F;
    }
    assert_int_equal(safetensors_write(&mem_default_allocator, path, names, &large, 1, NULL), CYI_OK);
    get_fingerprint(path, other);
    assert_string_equal(first, other);
    large.shape[0] = large.row_stride = 4095; /* another header */
    assert_int_equal(safetensors_write(&mem_default_allocator, path, names, &large, 1, NULL), CYI_OK);
    get_fingerprint(path, other);
    assert_string_not_equal(first, other);
}

static int create_folder(void **state) {
    static char folder[TEMP_PATH_BYTES];
    temp_folder_create(folder);
    *state = folder;
    return 0;
}

static int remove_folder(void **state) {
    temp_folder_remove(*state);
    return 0;
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, create_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(weight_set_opens_one_file_by_path_or_folder),
        WITH_FOLDER(weight_set_opens_shards_by_their_index),
        WITH_FOLDER(weight_set_prefers_the_single_file),
        WITH_FOLDER(weight_set_names_what_is_missing),
        WITH_FOLDER(weight_set_rejects_shards_outside_the_folder),
        WITH_FOLDER(weight_set_rejects_broken_indexes),
        WITH_FOLDER(weight_set_reports_every_failing_allocation),
        WITH_FOLDER(weight_set_fingerprint_tells_weights_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
