/* Numbers of the whole studio: see system.h. */
#include "store/system.h"

enum problem_code system_queue_numbers(struct db *db, json_t **ret_numbers, struct problem *problem) {
    return db_one(
        db,
        "SELECT coalesce(sum(state = 'queued'), 0) AS queued, coalesce(sum(state = 'running'), 0) AS running, "
        "coalesce(sum(state = 'held'), 0) AS held, "
        "coalesce(sum(CASE WHEN state <> 'held' THEN n_pictures - n_done END), 0) AS pictures_waiting "
        "FROM jobs WHERE state IN ('queued', 'running', 'held')",
        NO_ARGS, ret_numbers, problem);
}

enum problem_code system_all_numbers(struct db *db, json_t **ret_numbers, struct problem *problem) {
    json_t *numbers = NULL, *states = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(db_one(db,
               "SELECT (SELECT count(*) FROM images WHERE deleted_us IS NULL) AS images, "
               "(SELECT coalesce(sum(size_bytes), 0) FROM images) AS images_bytes, "
               "(SELECT count(*) FROM images WHERE deleted_us IS NOT NULL) AS trashed, "
               "(SELECT count(*) FROM users) AS users, (SELECT coalesce(max(seq), 0) FROM audit) AS audit_rows",
               NO_ARGS, &numbers, problem));
    TRY(db_all(db, "SELECT state, count(*) AS n FROM jobs GROUP BY state LIMIT 16", NO_ARGS, &states, problem));
    json_t *jobs = JSON("{s:i, s:i, s:i, s:i, s:i, s:i}", "queued", 0, "running", 0, "done", 0, "failed", 0,
                        "cancelled", 0, "held", 0);
    for (size_t i = 0; i < json_array_size(states); i++) {
        const json_t *row = json_array_get(states, i);
        json_put(jobs, json_get_text(row, "state"), json_integer(json_get_int(row, "n", 0)));
    }
    json_put(numbers, "jobs", jobs);
    *ret_numbers = numbers;
    numbers = NULL;
done:
    json_decref(numbers);
    json_decref(states);
    return st;
}
