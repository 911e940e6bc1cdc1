/* safetensors: every rule of the header broken once, cut and damaged files, memory running out, and what is read and written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "io/safetensors.h"
#include "support/failing_allocator.h"
#include "support/temp_folder.h"

#define FILE_NAME "some-file"
#define N_FLIPS 10000

/* A file in memory, in a block of exactly its size. */
struct image {
    uint8_t *bytes;
    size_t size_bytes;
};

static struct image make_image(const char *header, size_t header_bytes, uint64_t length, size_t n_data) {
    struct image image = { .size_bytes = 8 + header_bytes + n_data };
    image.bytes = calloc(1, image.size_bytes);
    assert_non_null(image.bytes);
    for (int i = 0; i < 8; i++) {
        image.bytes[i] = (uint8_t)(length >> 8 * i);
    }
    memcpy(image.bytes + 8, header, header_bytes);
    for (size_t i = 0; i < n_data; i++) {
        image.bytes[8 + header_bytes + i] = (uint8_t)i;
    }
    return image;
}

static struct image image_of(const char *header, size_t n_data) {
    return make_image(header, strlen(header), strlen(header), n_data);
}

static enum cyi_status parse(const struct image *image, struct safetensors **ret_file, struct cyi_error *err) {
    return safetensors_parse(&mem_default_allocator, FILE_NAME, image->bytes, image->size_bytes, ret_file, err);
}

/* The image is refused with a sentence that holds the file's name and the given words. */
static void check_refused(struct image image, const char *tensor, const char *rule) {
    struct safetensors *file = NULL;
    struct cyi_error err = { 0 };
    assert_int_equal(parse(&image, &file, &err), CYI_E_FORMAT);
    assert_null(file);
    assert_int_equal(err.code, CYI_E_FORMAT);
    if (strstr(err.text, FILE_NAME) != err.text || strstr(err.text, tensor) == NULL || strstr(err.text, rule) == NULL) {
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", err.text, tensor, rule);
    }
    free(image.bytes);
}

static struct safetensors *open_image(const struct image *image) {
    struct safetensors *file = NULL;
    struct cyi_error err = { 0 };
    if (parse(image, &file, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    return file;
}

/* ---- What breaks a rule ---- */

struct broken {
    const char *header;
    size_t n_data;
    const char *tensor, *rule;
};

#define ENTRY(dtype, shape, begin, end)                                                                                \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void check_rows(const struct broken *rows, size_t n_rows) {
    for (size_t i = 0; i < n_rows; i++) {
        check_refused(image_of(rows[i].header, rows[i].n_data), rows[i].tensor, rows[i].rule);
    }
}

static void safetensors_rejects_wrong_header_length(void **state) {
    (void)state;
    uint8_t *few = calloc(1, 7);
    check_refused((struct image){ few, 7 }, "", "too few");
    check_refused(make_image("", 0, 0, 0), "", "does not begin with {");
    check_refused(make_image("{}", 2, 3, 0), "", "do not fit");
    check_refused(make_image("{}", 2, UINT64_MAX, 0), "", "limit");
    check_refused(make_image("{}", 2, SAFETENSORS_MAX_HEADER_BYTES + 1, 0), "", "limit");
}

static void safetensors_rejects_header_that_is_not_a_json_object(void **state) {
    (void)state;
    static const struct broken rows[] = {
        { " {}", 0, "", "begin with {" },
        { "[]", 0, "", "begin with {" },
        { "{\"a\":", 0, "", "JSON" },
        { "{}x", 0, "", "JSON" },
        { "{} {}", 0, "", "JSON" },
        { "{\"\xff\":{}}", 0, "", "JSON" },
        { "{\"a\\u0000b\":{}}", 0, "", "JSON" },
        { "{\"a\":\"b\"}", 0, "\"a\"", "not an object" },
    };
    check_rows(rows, sizeof rows / sizeof rows[0]);
}

static void safetensors_rejects_json_nested_without_end(void **state) {
    (void)state;
    enum { DEPTH = 100000 };
    char *header = malloc(DEPTH);
    assert_non_null(header);
    memset(header, '[', DEPTH);
    memcpy(header, "{\"a\":", 5);
    check_refused(make_image(header, DEPTH, DEPTH, 0), "", "JSON");
    free(header);
}

static void safetensors_rejects_duplicate_names(void **state) {
    (void)state;
    static const struct broken rows[] = {
        { "{\"twin\":" ENTRY("U8", "[1]", "0", "1") ",\"twin\":" ENTRY("U8", "[1]", "1", "2") "}", 2, "twin",
          "duplicate" },
        { "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype", "duplicate" },
        { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__", "duplicate" },
    };
    check_rows(rows, sizeof rows / sizeof rows[0]);
}

static void safetensors_rejects_wrong_metadata(void **state) {
    (void)state;
    static const struct broken rows[] = {
        { "{\"__metadata__\":[]}", 0, "__metadata__", "not an object" },
        { "{\"__metadata__\":{\"key\":1}}", 0, "key", "not a string" },
        { "{\"__metadata__\":{\"key\":null}}", 0, "key", "not a string" },
    };
    check_rows(rows, sizeof rows / sizeof rows[0]);
}

static void safetensors_rejects_unknown_dtype(void **state) {
    (void)state;
    static const struct broken rows[] = {
        { "{\"t\":" ENTRY("F33", "[1]", "0", "4") "}", 4, "\"t\"", "F33" },
        { "{\"t\":" ENTRY("f32", "[1]", "0", "4") "}", 4, "\"t\"", "dtype" },
        { "{\"t\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"t\"", "dtype" },
        { "{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"t\"", "dtype" },
    };
    check_rows(rows, sizeof rows / sizeof rows[0]);
}

static void safetensors_rejects_wrong_shape(void **state) {
    (void)state;
    static const struct broken rows[] = {
        { "{\"t\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "\"t\"", "shape" },
        { "{\"t\":" ENTRY("U8", "5", "0", "1") "}", 1, "\"t\"", "shape" },
        { "{\"t\":" ENTRY("U8", "[2,-1]", "0", "1") "}", 1, "\"t\"", "shape[1]" },
        { "{\"t\":" ENTRY("U8", "[1.0]", "0", "1") "}", 1, "\"t\"", "shape[0]" },
        { "{\"t\":" ENTRY("U8", "[\"1\"]", "0", "1") "}", 1, "\"t\"", "shape[0]" },
        { "{\"t\":" ENTRY("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "0", "1") "}", 1,
          "\"t\"", "shape" },
        { "{\"t\":" ENTRY("U8", "[4611686018427387904,4]", "0", "0") "}", 0, "\"t\"", "overflow" },
        { "{\"t\":" ENTRY("U8", "[4611686018427387904,2,0]", "0", "0") "}", 0, "\"t\"", "overflow" },
        { "{\"t\":" ENTRY("F64", "[1152921504606846976]", "0", "0") "}", 0, "\"t\"", "do not fit" },
        { "{\"t\":" ENTRY("U8", "[99999999999999999999]", "0", "0") "}", 0, "", "JSON" },
    };
    check_rows(rows, sizeof rows / sizeof rows[0]);
}

static void safetensors_rejects_wrong_offsets(void **state) {
    (void)state;
    static const struct broken rows[] = {
        { "{\"t\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "\"t\"", "data_offsets" },
        { "{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "\"t\"", "data_offsets" },
        { "{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1, "\"t\"", "data_offsets" },
        { "{\"t\":" ENTRY("U8", "[1]", "\"0\"", "\"1\"") "}", 1, "\"t\"", "data_offsets" },
        { "{\"t\":" ENTRY("U8", "[1]", "0.0", "1.0") "}", 1, "\"t\"", "data_offsets" },
        { "{\"t\":" ENTRY("U8", "[1]", "1", "0") "}", 1, "\"t\"", "not in order" },
        { "{\"t\":" ENTRY("U8", "[1]", "-1", "0") "}", 1, "\"t\"", "not in order" },
    };
    check_rows(rows, sizeof rows / sizeof rows[0]);
}

static void safetensors_rejects_offset_past_end_of_file(void **state) {
    (void)state;
    static const struct broken rows[] = {
        { "{\"t\":" ENTRY("U8", "[2]", "0", "2") "}", 1, "\"t\"", "past the end" },
        { "{\"t\":" ENTRY("U8", "[2]", "9223372036854775805", "9223372036854775807") "}", 1, "\"t\"", "past the end" },
    };
    check_rows(rows, sizeof rows / sizeof rows[0]);
}

static void safetensors_rejects_size_unequal_to_shape_and_type(void **state) {
    (void)state;
    static const struct broken rows[] = {
        { "{\"t\":" ENTRY("F32", "[2]", "0", "4") "}", 4, "\"t\"", "do not fit" },
        { "{\"t\":" ENTRY("F32", "[]", "0", "8") "}", 8, "\"t\"", "do not fit" },
        { "{\"t\":" ENTRY("F32", "[0]", "0", "4") "}", 4, "\"t\"", "do not fit" },
        { "{\"t\":" ENTRY("F4", "[3]", "0", "1") "}", 1, "\"t\"", "do not fit" },
    };
    check_rows(rows, sizeof rows / sizeof rows[0]);
}

static void safetensors_rejects_holes_overlaps_and_a_tail(void **state) {
    (void)state;
    static const struct broken rows[] = {
        { "{\"t\":" ENTRY("U8", "[1]", "1", "2") "}", 2, "\"t\"", "first data" },
        { "{\"a\":" ENTRY("U8", "[1]", "0", "1") ",\"t\":" ENTRY("U8", "[1]", "2", "3") "}", 3, "\"t\"",
          "begins at 2" },
        { "{\"a\":" ENTRY("U8", "[2]", "0", "2") ",\"t\":" ENTRY("U8", "[2]", "1", "3") "}", 3, "\"t\"",
          "begins at 1" },
        { "{\"a\":" ENTRY("U8", "[2]", "0", "2") ",\"t\":" ENTRY("U8", "[2]", "0", "2") "}", 2, "\"t\"",
          "begins at 0" },
        { "{\"t\":" ENTRY("U8", "[1]", "0", "1") "}", 2, "", "ends at byte" },
        { "{}", 1, "", "ends at byte" },
    };
    check_rows(rows, sizeof rows / sizeof rows[0]);
}

/* ---- Damaged files ---- */

/* A small file of several tensors with metadata and spaces behind the header. */
static struct image make_sample(void) {
    return image_of(
        "{\"__metadata__\":{\"format\":\"pt\"},\"second\":" ENTRY("BF16", "[8,16]", "96", "352") ",\"first\":" ENTRY(
            "F32", "[2,3,4]", "0",
            "96") ",\"none\":" ENTRY("I64", "[0,5]", "352",
                                     "352") ",\"scalar\":" ENTRY("I64", "[]", "352",
                                                                 "360") ",\"flags\":" ENTRY("BOOL", "[3]", "360",
                                                                                            "363") "}   ",
        363);
}

static void safetensors_rejects_files_cut_at_every_64_bytes(void **state) {
    (void)state;
    struct image sample = make_sample();
    safetensors_close(open_image(&sample));
    for (size_t size = 0; size < sample.size_bytes; size += 64) {
        struct image cut = { malloc(size == 0 ? 1 : size), size };
        assert_non_null(cut.bytes);
        memcpy(cut.bytes, sample.bytes, size);
        check_refused(cut, "", "");
    }
    sample.size_bytes--;
    check_refused(sample, "flags", "past the end");
}

/* Reads everything that an accepted file promises. */
static size_t read_everything(const struct safetensors *file) {
    size_t sum = 0;
    for (size_t i = 0; i < safetensors_n_entries(file); i++) {
        const struct safetensors_entry *entry = safetensors_entry_at(file, i);
        const uint8_t *bytes = entry->tensor.data;
        for (size_t k = 0; k < entry->size_bytes; k++) {
            sum += bytes[k];
        }
        assert_ptr_equal(safetensors_find(file, entry->name), entry);
    }
    return sum;
}

static void safetensors_survives_random_bit_flips(void **state) {
    (void)state;
    struct image sample = make_sample();
    uint32_t random = 12345;
    size_t n_accepted = 0;
    for (int i = 0; i < N_FLIPS; i++) {
        struct safetensors *file = NULL;
        struct cyi_error err = { 0 };
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        size_t bit = random % (8 * (sample.size_bytes - 363));
        sample.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        if (parse(&sample, &file, &err) == CYI_OK) {
            (void)read_everything(file);
            safetensors_close(file);
            n_accepted++;
        } else {
            assert_int_equal(err.code, CYI_E_FORMAT);
            assert_ptr_equal(strstr(err.text, FILE_NAME), err.text);
        }
        sample.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    assert_true(n_accepted > 0 && n_accepted < N_FLIPS);
    free(sample.bytes);
}

static void safetensors_reports_every_failing_allocation(void **state) {
    (void)state;
    struct image sample = make_sample();
    enum cyi_status st = CYI_E_MEMORY;
    for (size_t n = 1; st != CYI_OK; n++) {
        struct failing_allocator failing;
        struct safetensors *file = NULL;
        struct cyi_error err = { 0 };
        failing_allocator_init(&failing, n);
        st = safetensors_parse(&failing.allocator, FILE_NAME, sample.bytes, sample.size_bytes, &file, &err);
        if (st != CYI_OK) {
            assert_int_equal(st, CYI_E_MEMORY);
            assert_non_null(strstr(err.text, "out of memory"));
            assert_null(file);
        } else {
            assert_true(n > 3);
        }
        safetensors_close(file);
        assert_int_equal(failing.n_live, 0);
    }
    free(sample.bytes);
}

/* ---- What is read ---- */

static void safetensors_gives_tensors_in_the_order_of_their_data(void **state) {
    (void)state;
    struct image sample = make_sample();
    struct safetensors *file = open_image(&sample);
    size_t header_bytes;
    assert_int_equal(safetensors_n_entries(file), 5);
    const struct safetensors_entry *first = safetensors_entry_at(file, 0);
    assert_string_equal(first->name, "first");
    assert_true(first->is_usable && first->tensor.dtype == DTYPE_F32 && first->tensor.rank == 3);
    assert_int_equal(first->tensor.shape[2], 4);
    assert_int_equal(first->tensor.row_stride, 4);
    assert_ptr_equal(first->tensor.data, sample.bytes + first->offset_bytes);
    const char *header = safetensors_header(file, &header_bytes);
    assert_int_equal(first->offset_bytes, 8 + header_bytes);
    assert_int_equal(header[0], '{');
    assert_string_equal(safetensors_entry_at(file, 1)->name, "second");
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    assert_null(safetensors_metadata(file, "absent"));
    assert_null(safetensors_find(file, "absent"));
    assert_null(safetensors_find(file, "__metadata__"));
    assert_null(safetensors_mapping(file));
    safetensors_close(file);
    free(sample.bytes);
}

static void safetensors_shows_scalars_as_one_element(void **state) {
    (void)state;
    struct image sample = make_sample();
    struct safetensors *file = open_image(&sample);
    const struct safetensors_entry *scalar = safetensors_find(file, "scalar");
    assert_true(scalar->is_usable && scalar->tensor.rank == 1 && scalar->tensor.shape[0] == 1);
    assert_int_equal(tensor_n_elements(&safetensors_find(file, "none")->tensor), 0);
    safetensors_close(file);
    free(sample.bytes);
}

static void safetensors_marks_what_the_engine_cannot_compute_with(void **state) {
    (void)state;
    struct image image =
        image_of("{\"high\":" ENTRY("F32", "[1,1,1,1,2]", "0", "8") ",\"six\":" ENTRY(
                     "F6_E2M3", "[4]", "8", "11") ",\"ok\":" ENTRY("F8_E5M2", "[1,1,1,2]", "11", "13") "}",
                 13);
    struct safetensors *file = open_image(&image);
    assert_false(safetensors_find(file, "high")->is_usable);
    assert_false(safetensors_find(file, "six")->is_usable);
    assert_true(safetensors_find(file, "ok")->is_usable);
    safetensors_close(file);
    free(image.bytes);
}

static void safetensors_opens_a_file_without_tensors(void **state) {
    (void)state;
    struct image image = image_of("{}", 0);
    struct safetensors *file = open_image(&image);
    assert_int_equal(safetensors_n_entries(file), 0);
    assert_null(safetensors_find(file, "a"));
    safetensors_close(file);
    free(image.bytes);
}

/* ---- What is written ---- */

static const char *const names[] = { "plain", "with \"quotes\" and \n", "über" };

static void make_tensors(float *values, struct tensor tensors[3]) {
    for (int i = 0; i < 12; i++) {
        values[i] = (float)i - 5.5F;
    }
    tensors[0] = tensor_3d(DTYPE_F32, 1, 3, 2, values);
    tensors[1] = tensor_1d(DTYPE_U8, 5, values);
    tensors[2] = tensor_2d(DTYPE_BF16, 2, 6, values);
}

static void safetensors_reads_back_what_it_wrote(void **state) {
    float values[12];
    struct tensor tensors[3];
    struct safetensors *file = NULL;
    struct cyi_error err = { 0 };
    char path[TEMP_PATH_BYTES];
    make_tensors(values, tensors);
    (void)temp_path(path, *state, "written.safetensors");
    for (int i = 0; i < 2; i++) { /* the second time over the first file */
        assert_int_equal(safetensors_write(&mem_default_allocator, path, names, tensors, 3, &err), CYI_OK);
    }
    assert_int_equal(safetensors_open(&mem_default_allocator, path, &file, &err), CYI_OK);
    assert_int_equal(safetensors_n_entries(file), 3);
    for (size_t i = 0; i < 3; i++) {
        const struct safetensors_entry *entry = safetensors_find(file, names[i]);
        assert_non_null(entry);
        assert_int_equal(entry->tensor.dtype, tensors[i].dtype);
        assert_int_equal(entry->tensor.rank, tensors[i].rank);
        assert_memory_equal(entry->tensor.data, tensors[i].data, entry->size_bytes);
    }
    assert_int_equal(safetensors_entry_at(file, 0)->offset_bytes % 8, 0);
    assert_string_equal(safetensors_path(file), path);
    safetensors_close(file);
    assert_int_equal(temp_count(*state), 1);
}

static void safetensors_write_refuses_bad_tensors(void **state) {
    float values[12];
    struct tensor tensors[3];
    struct cyi_error err = { 0 };
    char path[TEMP_PATH_BYTES];
    make_tensors(values, tensors);
    (void)temp_path(path, *state, "refused.safetensors");
    const char *const twins[] = { "a", "a", "b" };
    assert_int_equal(safetensors_write(&mem_default_allocator, path, twins, tensors, 3, &err), CYI_E_ARGUMENT);
    tensors[2] = tensor_cols(&tensors[2], 0, 3);
    err = (struct cyi_error){ 0 };
    assert_int_equal(safetensors_write(&mem_default_allocator, path, names, tensors, 3, &err), CYI_E_ARGUMENT);
    assert_non_null(strstr(err.text, "packed"));
    assert_int_equal(temp_count(*state), 0);
}

static void safetensors_write_leaves_nothing_when_it_fails(void **state) {
    float values[12];
    struct tensor tensors[3];
    struct cyi_error err = { 0 };
    char path[TEMP_PATH_BYTES];
    make_tensors(values, tensors);
    (void)temp_path(path, *state, "folder");
    assert_int_equal(mkdir(path, 0777), 0); /* a file cannot replace it */
    assert_int_equal(safetensors_write(&mem_default_allocator, path, names, tensors, 3, &err), CYI_E_IO);
    assert_non_null(strstr(err.text, path));
    err = (struct cyi_error){ 0 };
    (void)temp_path(path, *state, "absent/file.safetensors");
    assert_int_equal(safetensors_write(&mem_default_allocator, path, names, tensors, 3, &err), CYI_E_IO);
    for (size_t n = 1; n <= 3; n++) {
        struct failing_allocator failing;
        failing_allocator_init(&failing, n);
        err = (struct cyi_error){ 0 };
        (void)temp_path(path, *state, "memory.safetensors");
        assert_int_equal(safetensors_write(&failing.allocator, path, names, tensors, 3, &err), CYI_E_MEMORY);
        assert_int_equal(failing.n_live, 0);
    }
    assert_int_equal(temp_count(*state), 1);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_rejects_wrong_header_length),
        cmocka_unit_test(safetensors_rejects_header_that_is_not_a_json_object),
        cmocka_unit_test(safetensors_rejects_json_nested_without_end),
        cmocka_unit_test(safetensors_rejects_duplicate_names),
        cmocka_unit_test(safetensors_rejects_wrong_metadata),
        cmocka_unit_test(safetensors_rejects_unknown_dtype),
        cmocka_unit_test(safetensors_rejects_wrong_shape),
        cmocka_unit_test(safetensors_rejects_wrong_offsets),
        cmocka_unit_test(safetensors_rejects_offset_past_end_of_file),
        cmocka_unit_test(safetensors_rejects_size_unequal_to_shape_and_type),
        cmocka_unit_test(safetensors_rejects_holes_overlaps_and_a_tail),
        cmocka_unit_test(safetensors_rejects_files_cut_at_every_64_bytes),
        cmocka_unit_test(safetensors_survives_random_bit_flips),
        cmocka_unit_test(safetensors_reports_every_failing_allocation),
        cmocka_unit_test(safetensors_gives_tensors_in_the_order_of_their_data),
        cmocka_unit_test(safetensors_shows_scalars_as_one_element),
        cmocka_unit_test(safetensors_marks_what_the_engine_cannot_compute_with),
        cmocka_unit_test(safetensors_opens_a_file_without_tensors),
        cmocka_unit_test_setup_teardown(safetensors_reads_back_what_it_wrote, create_folder, remove_folder),
        cmocka_unit_test_setup_teardown(safetensors_write_refuses_bad_tensors, create_folder, remove_folder),
        cmocka_unit_test_setup_teardown(safetensors_write_leaves_nothing_when_it_fails, create_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
