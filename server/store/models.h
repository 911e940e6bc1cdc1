/* store/models: models that were found, with what the worker said of them, and how fast they were on this machine. */
#ifndef SERVER_STORE_MODELS_H
#define SERVER_STORE_MODELS_H

#include "store/db.h"

/* Replaces the list: an array of {"path", "name", …}. */
enum problem_code models_replace(struct db *db, const json_t *models, struct problem *problem);
/* The objects that models_replace was given, by name. */
enum problem_code models_list(struct db *db, json_t **ret_models, struct problem *problem);

/* A picture took so long: milliseconds of a step, and of all else. Averaged with what was measured before. */
enum problem_code speeds_add(struct db *db, const char *model, const char *device, int width, int height,
                             double step_ms, double rest_ms, struct problem *problem);
/* Milliseconds of a picture: measured at this size, else at the size nearest in pixels, scaled by them. < 0: never measured. */
enum problem_code speeds_estimate(struct db *db, const char *model, int width, int height, int n_steps, double *ret_ms,
                                  struct problem *problem);

#endif
