/* Finding models in folders of a temporary home, naming outputs, limits of control groups. */
#include "../../../cli/output.h"
#include "model_search.h"
#include "system_info.h"

#include "../../../cli/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Every test runs in a fresh folder, with no home and no variables of the user. */
struct fixture {
    char *folder, *before;
};

static int set_up(void **state) {
    struct fixture *fixture = text_alloc(1, sizeof *fixture);
    static const char *const variables[] = { "CYBERIMAGE_MODELS", "XDG_DATA_HOME", "XDG_CACHE_HOME", "HF_HOME",
                                             "HF_HUB_CACHE" };
    const char *temporary = getenv("TMPDIR");
    char *folder = files_join(temporary != NULL ? temporary : P_tmpdir, "cyberimage-XXXXXX");
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        (void)unsetenv(variables[i]);
    }
    fixture->before = getcwd(NULL, 0);
    fixture->folder = folder;
    *state = fixture;
    return mkdtemp(folder) != NULL && chdir(folder) == 0 && setenv("HOME", folder, 1) == 0 ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *walk) {
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;
    int failed = chdir(fixture->before) != 0;
    failed |= nftw(fixture->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0;
    free(fixture->folder);
    free(fixture->before);
    free(fixture);
    return failed;
}

/* Writes a small file, and the folders above it. */
static void write_file(const char *path, const char *text) {
    struct cyi_error err = { 0 };
    char *folder = files_folder_of(path);
    assert_int_equal(files_make_folder(folder, 0755, &err), CYI_OK);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    free(folder);
}

static void model_search_looks_everywhere_in_order(void **state) {
    struct model_list list;
    (void)state;
    write_file("models/here/model_index.json", "{}");
    write_file("one/first/model_index.json", "{}");
    write_file("two/second/transformer/config.json", "{}");
    write_file("two/nothing/readme.txt", "");
    write_file(".local/share/cyberimage/models/home/model_index.json", "{}");
    write_file("prefix/share/cyberimage/models/shared/model_index.json", "{}");
    write_file("prefix/bin/cyberimage", "");
    write_file("prefix/models/above/model_index.json", "{}");
    assert_int_equal(setenv("CYBERIMAGE_MODELS", "one::two:missing", 1), 0);
    model_search_find("prefix/bin/cyberimage", &list);
    static const char *const names[] = { "here", "first", "second", "home", "above", "shared" };
    assert_int_equal(list.n, sizeof names / sizeof names[0]);
    for (size_t i = 0; i < list.n; i++) {
        assert_string_equal(list.items[i].name, names[i]);
    }
    model_search_done(&list);
}

static void model_search_reads_the_hugging_face_cache(void **state) {
    struct model_list list;
    (void)state;
    write_file(".cache/huggingface/hub/models--org--name/snapshots/aaa/model_index.json", "{}");
    write_file(".cache/huggingface/hub/models--org--name/snapshots/bbb/model_index.json", "{}");
    write_file(".cache/huggingface/hub/models--org--name/refs/main", "bbb\n");
    write_file(".cache/huggingface/hub/models--org--other/snapshots/ccc/model_index.json", "{}");
    write_file(".cache/huggingface/hub/models--org--llm/snapshots/ddd/config.json", "{}");
    write_file(".cache/huggingface/hub/datasets--org--data/snapshots/ddd/model_index.json", "{}");
    model_search_find("/proc/self/exe", &list);
    assert_int_equal(list.n, 2);
    assert_string_equal(list.items[0].name, "org/name");
    assert_non_null(strstr(list.items[0].path, "/snapshots/bbb"));
    assert_string_equal(list.items[1].name, "org/other");
    assert_ptr_equal(model_search_get(&list, "NAME"), &list.items[0]);
    assert_ptr_equal(model_search_get(&list, "org/other"), &list.items[1]);
    assert_null(model_search_get(&list, "org"));
    model_search_done(&list);
}

static void model_search_obeys_the_variables_of_hugging_face(void **state) {
    struct model_list list;
    (void)state;
    write_file("a/hub/models--o--x/snapshots/r/model_index.json", "{}");
    write_file("b/models--o--y/snapshots/r/model_index.json", "{}");
    assert_int_equal(setenv("HF_HOME", "a", 1), 0);
    model_search_find(NULL, &list);
    assert_non_null(model_search_get(&list, "o/x"));
    model_search_done(&list);
    assert_int_equal(setenv("HF_HUB_CACHE", "b", 1), 0);
    model_search_find(NULL, &list);
    assert_null(model_search_get(&list, "o/x"));
    assert_non_null(model_search_get(&list, "o/y"));
    model_search_done(&list);
}

static void model_search_lists_a_linked_model_once(void **state) {
    struct model_list list;
    (void)state;
    write_file("models/real/model_index.json", "{}");
    write_file("models/org/deep/model_index.json", "12345");
    assert_int_equal(symlink("real", "models/zlink"), 0);
    write_file("models/single.safetensors", "1234567");
    model_search_find("/proc/self/exe", &list);
    assert_int_equal(list.n, 3);
    assert_non_null(model_search_get(&list, "org/deep"));
    assert_non_null(model_search_get(&list, "single.safetensors"));
    assert_int_equal(model_search_size("models"), 2 + 2 + 5 + 7);
    model_search_done(&list);
}

static void output_is_refused_before_the_run(void **state) {
    static const struct {
        const char *argument, *format, *part;
        int quality, n;
    } rows[] = {
        { "missing/x.png", NULL, "missing", OPTION_UNSET, 1 },
        { "x.bmp", NULL, ".png", OPTION_UNSET, 1 },
        { "x", NULL, "x", OPTION_UNSET, 1 },
        { "", NULL, "empty", OPTION_UNSET, 1 },
        { "x.png", "jpg", "--format", OPTION_UNSET, 1 },
        { "x.png", NULL, "--quality", 50, 1 },
        { NULL, NULL, "--quality", 50, 1 },
        { "fifo.png", NULL, "ordinary", OPTION_UNSET, 1 },
        { "taken.png", NULL, "taken-2.png", OPTION_UNSET, 3 },
    };
    (void)state;
    assert_int_equal(mkfifo("fifo.png", 0600), 0);
    write_file("taken-2.png", "");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct output output = { 0 };
        struct cyi_error err = { 0 };
        assert_int_not_equal(output_plan(rows[i].argument, rows[i].format, rows[i].quality, rows[i].n, &output, &err),
                             CYI_OK);
        assert_non_null(strstr(err.text, rows[i].part));
    }
}

static void output_follows_the_name(void **state) {
    struct output output = { 0 };
    struct cyi_error err = { 0 };
    (void)state;
    write_file("old.png", "");
    assert_int_equal(output_plan("old.png", NULL, OPTION_UNSET, 1, &output, &err), CYI_OK);
    assert_int_equal(output.format, CYI_FORMAT_PNG);
    output_done(&output);
    assert_int_equal(output_plan("x.JPEG", NULL, 80, 1, &output, &err), CYI_OK);
    assert_int_equal(output.format, CYI_FORMAT_JPEG);
    assert_int_equal(output.quality, 80);
    output_done(&output);
    assert_int_equal(output_plan("new/deeper/", "webp", OPTION_UNSET, 2, &output, &err), CYI_OK);
    assert_int_equal(output.format, CYI_FORMAT_WEBP);
    assert_int_equal(output.quality, 92);
    assert_null(output.file);
    assert_false(files_exists("new"));
    output_done(&output);
    char *name = files_numbered("some.dir/cat.one.png", 3);
    assert_string_equal(name, "some.dir/cat.one-3.png");
    free(name);
}

static void output_never_takes_a_name_that_is_taken(void **state) {
    struct cyi_error err = { 0 };
    (void)state;
    write_file("a.png", "first");
    assert_int_equal(symlink("nowhere", "a-2.png"), 0);
    write_file("new", "second");
    char *path = files_publish("new", ".", "a", ".png", &err);
    assert_string_equal(path, "./a-3.png");
    assert_false(files_exists("new"));
    free(path);
}

static void control_groups_limit_by_the_lowest_above(void **state) {
    (void)state;
    write_file("group/memory.max", "max\n");
    write_file("group/a/memory.max", "3000\n");
    write_file("group/a/b/memory.max", "5000\n");
    assert_int_equal(system_info_group_limit("group", "/a/b", "memory.max"), 3000);
    assert_int_equal(system_info_group_limit("group", "/", "memory.max"), UINT64_MAX);
    assert_int_equal(system_info_group_limit("group", "/missing/too", "memory.max"), UINT64_MAX);
}

static void system_info_describes_this_machine(void **state) {
    struct system_info info;
    (void)state;
    system_info_read(&info);
    assert_true(info.n_allowed_cores >= 1 && info.n_cores >= 1);
    assert_true(info.memory_bytes > 0 && info.available_bytes <= info.memory_bytes);
    char *libraries = system_info_libraries();
    assert_non_null(strstr(libraries, "libc"));
    free(libraries);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(model_search_looks_everywhere_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(model_search_reads_the_hugging_face_cache, set_up, tear_down),
        cmocka_unit_test_setup_teardown(model_search_obeys_the_variables_of_hugging_face, set_up, tear_down),
        cmocka_unit_test_setup_teardown(model_search_lists_a_linked_model_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(output_is_refused_before_the_run, set_up, tear_down),
        cmocka_unit_test_setup_teardown(output_follows_the_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(output_never_takes_a_name_that_is_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(control_groups_limit_by_the_lowest_above, set_up, tear_down),
        cmocka_unit_test(system_info_describes_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
