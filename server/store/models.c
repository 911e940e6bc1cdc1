/* Models and their speeds: see store/models.h. */
#include "store/models.h"

#include "base/clock.h"

enum problem_code models_replace(struct db *db, const json_t *models, struct problem *problem) {
    size_t i;
    json_t *model;
    enum problem_code st = PROBLEM_NONE;
    TRY(db_run(db, "DELETE FROM models", NO_ARGS, problem));
    json_array_foreach(models, i, model) {
        TRY(db_run(db, "INSERT INTO models (path, name, info, seen_us) VALUES (?1, ?2, ?3, ?4)",
                   ARGS("O,O,O,I]", json_object_get(model, "path"), json_object_get(model, "name"), model,
                        (json_int_t)clock_now_us()),
                   problem));
    }
done:
    return st;
}

enum problem_code models_list(struct db *db, json_t **ret_models, struct problem *problem) {
    json_t *rows = NULL, *row, *models = JSON("[]");
    size_t i;
    const enum problem_code st =
        db_all(db, "SELECT info AS \"info:j\" FROM models ORDER BY name LIMIT 10000", NO_ARGS, &rows, problem);
    json_array_foreach(rows, i, row) {
        json_add(models, json_incref(json_object_get(row, "info")));
    }
    json_decref(rows);
    *ret_models = models;
    return st;
}

enum problem_code speeds_add(struct db *db, const char *model, const char *device, int width, int height,
                             double step_ms, double rest_ms, struct problem *problem) {
    return db_run(db,
                  "INSERT INTO speeds (model, device, width, height, step_ms, rest_ms, n, measured_us) "
                  "VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7) ON CONFLICT DO UPDATE SET "
                  "step_ms = 0.7 * step_ms + 0.3 * excluded.step_ms, rest_ms = 0.7 * rest_ms + 0.3 * excluded.rest_ms, "
                  "n = n + 1, measured_us = excluded.measured_us",
                  ARGS("s,s,i,i,f,f,I]", model, device, width, height, step_ms, rest_ms, (json_int_t)clock_now_us()),
                  problem);
}

enum problem_code speeds_estimate(struct db *db, const char *model, int width, int height, int n_steps, double *ret_ms,
                                  struct problem *problem) {
    json_t *row = NULL;
    const double pixels = (double)width * height;
    const enum problem_code st =
        db_one(db,
               "SELECT step_ms, rest_ms, 1.0 * width * height AS pixels FROM speeds WHERE model = ?1 "
               "ORDER BY abs(1.0 * width * height - ?2), measured_us DESC LIMIT 1",
               ARGS("s,f]", model, pixels), &row, problem);
    if (st == PROBLEM_NONE) {
        const double ms = json_number_value(json_object_get(row, "step_ms")) * n_steps +
                          json_number_value(json_object_get(row, "rest_ms"));
        *ret_ms = row != NULL ? ms * pixels / json_number_value(json_object_get(row, "pixels")) : -1.0;
    }
    json_decref(row);
    return st;
}
