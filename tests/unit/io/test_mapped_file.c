/* Mapped files, small whole files, writing in one go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/mapped_file.h"
#include "support/failing_allocator.h"
#include "support/temp_folder.h"

static void mapped_file_shows_the_bytes_of_the_file(void **state) {
    char path[TEMP_PATH_BYTES];
    struct mapped_file *file = NULL;
    struct cyi_error err = { 0 };
    temp_write(temp_path(path, *state, "a"), "hello", 5);
    assert_int_equal(mapped_file_open(&mem_default_allocator, path, &file, &err), CYI_OK);
    assert_int_equal(mapped_file_size(file), 5);
    assert_memory_equal(mapped_file_data(file), "hello", 5);
    assert_string_equal(mapped_file_path(file), path);
    mapped_file_will_need(file, 0, 5);
    mapped_file_will_need(file, 3, SIZE_MAX);
    mapped_file_will_need(file, 5, 1);
    mapped_file_will_need(file, SIZE_MAX, SIZE_MAX);
    assert_int_equal(unlink(path), 0); /* a mapping outlives the name */
    assert_memory_equal(mapped_file_data(file), "hello", 5);
    mapped_file_close(file);
    mapped_file_close(NULL);
}

static void check_not_opened(const char *path, const char *reason) {
    struct mapped_file *file = NULL;
    struct cyi_error err = { 0 };
    assert_int_equal(mapped_file_open(&mem_default_allocator, path, &file, &err), CYI_E_IO);
    assert_null(file);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, reason));
}

static void mapped_file_names_the_file_and_the_reason(void **state) {
    char path[TEMP_PATH_BYTES];
    check_not_opened(temp_path(path, *state, "absent"), "No such file");
    check_not_opened(*state, "not a regular file");
    temp_write(temp_path(path, *state, "empty"), "", 0);
    check_not_opened(path, "empty");
    assert_int_equal(mkfifo(temp_path(path, *state, "pipe"), 0600), 0);
    check_not_opened(path, "not a regular file");
    assert_int_equal(symlink("loop", temp_path(path, *state, "loop")), 0);
    check_not_opened(path, "symbolic");
}

static void mapped_file_reports_every_failing_allocation(void **state) {
    char path[TEMP_PATH_BYTES];
    temp_write(temp_path(path, *state, "a"), "hello", 5);
    for (size_t n = 1; n <= 3; n++) {
        struct failing_allocator failing;
        struct mapped_file *file = NULL;
        struct cyi_error err = { 0 };
        failing_allocator_init(&failing, n);
        assert_int_equal(mapped_file_open(&failing.allocator, path, &file, &err), n < 3 ? CYI_E_MEMORY : CYI_OK);
        mapped_file_close(file);
        assert_int_equal(failing.n_live, 0);
    }
}

static void file_read_all_gives_text_with_a_final_nul(void **state) {
    char path[TEMP_PATH_BYTES];
    char *text = NULL;
    size_t size = 0;
    struct cyi_error err = { 0 };
    temp_write(temp_path(path, *state, "a"), "a\0bc", 4);
    assert_int_equal(file_read_all(&mem_default_allocator, path, 4, &text, &size, &err), CYI_OK);
    assert_int_equal(size, 4);
    assert_memory_equal(text, "a\0bc", 5);
    mem_free(&mem_default_allocator, text);
    temp_write(temp_path(path, *state, "empty"), "", 0);
    assert_int_equal(file_read_all(&mem_default_allocator, path, 0, &text, &size, &err), CYI_OK);
    assert_string_equal(text, "");
    mem_free(&mem_default_allocator, text);
}

static void check_not_read(const struct cyi_allocator *allocator, const char *path, size_t max_bytes,
                           enum cyi_status expected) {
    char *text = NULL;
    size_t size;
    struct cyi_error err = { 0 };
    assert_int_equal(file_read_all(allocator, path, max_bytes, &text, &size, &err), expected);
    assert_null(text);
    assert_non_null(strstr(err.text, path));
}

static void file_read_all_refuses_what_is_no_small_file(void **state) {
    char path[TEMP_PATH_BYTES];
    struct failing_allocator failing;
    temp_write(temp_path(path, *state, "a"), "12345", 5);
    check_not_read(&mem_default_allocator, path, 4, CYI_E_FORMAT);
    failing_allocator_init(&failing, 1);
    check_not_read(&failing.allocator, path, 5, CYI_E_MEMORY);
    check_not_read(&mem_default_allocator, *state, 100, CYI_E_IO);
    check_not_read(&mem_default_allocator, temp_path(path, *state, "absent"), 100, CYI_E_IO);
}

static void file_write_replaces_the_whole_file(void **state) {
    char path[TEMP_PATH_BYTES];
    char *text = NULL;
    size_t size;
    struct cyi_error err = { 0 };
    (void)temp_path(path, *state, "a");
    const struct file_piece pieces[] = { { "one ", 4 }, { NULL, 0 }, { "two", 3 } };
    assert_int_equal(file_write_atomically(&mem_default_allocator, path, "a longer text", 13, &err), CYI_OK);
    assert_int_equal(file_write_pieces(&mem_default_allocator, path, pieces, 3, &err), CYI_OK);
    assert_int_equal(file_read_all(&mem_default_allocator, path, 100, &text, &size, &err), CYI_OK);
    assert_string_equal(text, "one two");
    mem_free(&mem_default_allocator, text);
    assert_int_equal(temp_count(*state), 1);
}

static void file_write_works_beside_leftover_temporary_files(void **state) {
    char path[TEMP_PATH_BYTES];
    struct cyi_error err = { 0 };
    temp_write(temp_path(path, *state, ".cyberimage-0123456789abcdef.tmp"), "old", 3);
    (void)temp_path(path, *state, "a");
    assert_int_equal(file_write_atomically(&mem_default_allocator, path, "x", 1, &err), CYI_OK);
    assert_int_equal(temp_count(*state), 2);
}

static void file_write_takes_the_longest_name(void **state) {
    char path[TEMP_PATH_BYTES];
    char name[256];
    struct cyi_error err = { 0 };
    memset(name, 'a', 255);
    name[255] = '\0';
    assert_int_equal(file_write_atomically(&mem_default_allocator, temp_path(path, *state, name), "x", 1, &err),
                     CYI_OK);
    assert_true(file_exists(path));
}

static void file_write_leaves_nothing_when_it_fails(void **state) {
    char path[TEMP_PATH_BYTES];
    struct cyi_error err = { 0 };
    assert_int_equal(mkdir(temp_path(path, *state, "folder"), 0777), 0);
    assert_int_equal(file_write_atomically(&mem_default_allocator, path, "x", 1, &err), CYI_E_IO);
    assert_int_equal(temp_count(*state), 1);
    err = (struct cyi_error){ 0 };
    (void)temp_path(path, *state, "absent/a");
    assert_int_equal(file_write_atomically(&mem_default_allocator, path, "x", 1, &err), CYI_E_IO);
    assert_non_null(strstr(err.text, path));
}

static void file_write_knows_files_in_the_working_folder(void **state) {
    char old_folder[TEMP_PATH_BYTES];
    struct cyi_error err = { 0 };
    assert_non_null(getcwd(old_folder, sizeof old_folder));
    assert_int_equal(chdir(*state), 0);
    enum cyi_status st = file_write_atomically(&mem_default_allocator, "plain", "x", 1, &err);
    bool exists = file_exists("plain");
    assert_int_equal(chdir(old_folder), 0);
    assert_int_equal(st, CYI_OK);
    assert_true(exists);
}

static void files_and_folders_are_told_apart(void **state) {
    char path[TEMP_PATH_BYTES];
    temp_write(temp_path(path, *state, "a"), "", 0);
    assert_true(file_exists(path) && !folder_exists(path));
    assert_true(folder_exists(*state) && !file_exists(*state));
    (void)temp_path(path, *state, "absent");
    assert_false(file_exists(path) || folder_exists(path));
    char *joined = path_join(&mem_default_allocator, "x/y", "z");
    assert_string_equal(joined, "x/y/z");
    mem_free(&mem_default_allocator, joined);
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
        WITH_FOLDER(mapped_file_shows_the_bytes_of_the_file),
        WITH_FOLDER(mapped_file_names_the_file_and_the_reason),
        WITH_FOLDER(mapped_file_reports_every_failing_allocation),
        WITH_FOLDER(file_read_all_gives_text_with_a_final_nul),
        WITH_FOLDER(file_read_all_refuses_what_is_no_small_file),
        WITH_FOLDER(file_write_replaces_the_whole_file),
        WITH_FOLDER(file_write_works_beside_leftover_temporary_files),
        WITH_FOLDER(file_write_takes_the_longest_name),
        WITH_FOLDER(file_write_leaves_nothing_when_it_fails),
        WITH_FOLDER(file_write_knows_files_in_the_working_folder),
        WITH_FOLDER(files_and_folders_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
