/* The gallery's lists at any size: each is read from an index in its own order, so that a page costs the same whatever lies behind
 * it. SQLite's plans say so. */
#include "store/images.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka.h needs those above. */
#include <cmocka.h>

#define ID "0199aaaa-0000-7000-8000-000000000000"
#define ANY .width = -1, .height = -1, .seed = -1, .limit = 60

static const struct {
    const char *name;
    struct image_filter filter;
} lists[] = {
    { "all", { ANY } },
    { "all, later", { ANY, .after = 1000 } },
    { "all, oldest first", { ANY, .is_oldest_first = true } },
    { "one's own", { ANY, .owner = ID } },
    { "one's own, later", { ANY, .owner = ID, .after = 1000 } },
    { "of another", { ANY, .of = ID } },
    { "by model", { ANY, .model = "neon" } },
    { "by size", { .width = 64, .height = 64, .seed = -1, .limit = 60 } },
    { "by kind", { ANY, .kind = "upload" } },
    { "by seed", { .width = -1, .height = -1, .seed = 7, .limit = 60 } },
    { "by job", { ANY, .job = ID } },
    { "favourites", { ANY, .is_favourite = true } },
    { "favourites, later", { ANY, .is_favourite = true, .after = 1000 } },
    { "by tag", { ANY, .tag = "fox" } },
    { "by tag, later", { ANY, .tag = "fox", .after = 1000 } },
    { "by tag, later, oldest first", { ANY, .tag = "fox", .after = 1000, .is_oldest_first = true } },
    { "by album", { ANY, .album = ID } },
    { "by album and tag", { ANY, .album = ID, .tag = "fox" } },
    { "by tag, one's own favourites", { ANY, .tag = "fox", .owner = ID, .is_favourite = true } },
    { "the trash", { ANY, .is_deleted = true } },
    { "by words", { ANY, .q = "fox" } },
    { "by words, later", { ANY, .q = "fox", .after = 1000 } },
    { "by words of one's own", { ANY, .q = "fox", .owner = ID } },
};

static void every_list_is_read_from_an_index(void **state) {
    char folder[] = "/tmp/plans-XXXXXX", path[64];
    struct store *store = NULL;
    struct problem problem = { 0 };
    int n = 0, n_faults = 0;
    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/db", folder);
    assert_int_equal(store_open(path, 1, &store, &n, &problem), PROBLEM_NONE);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        char *plan = NULL;
        struct db *db = store_read(store);
        assert_int_equal(images_explain(db, &lists[i].filter, &plan, &problem), PROBLEM_NONE);
        store_read_done(store, db);
        /* A table that is read from end to end, but for the words' own index; or sorted, but for the few of one job. */
        const bool is_scan = strstr(plan, "SCAN ") != NULL && strstr(plan, "SCAN p VIRTUAL TABLE INDEX") == NULL &&
                             strstr(plan, "USING INDEX images_trash") == NULL;
        const bool is_sorted = strstr(plan, "TEMP B-TREE") != NULL && lists[i].filter.job == NULL;
        if (is_scan || is_sorted) {
            print_error("%s:\n%s", lists[i].name, plan);
            n_faults++;
        }
        free(plan);
    }
    store_close(store);
    (void)unlink(path);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(n_faults, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_list_is_read_from_an_index) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
