/* Config files: JSON objects read with bounds. Every getter writes only on success and names file, key and limit when it fails.
 * Not thread-safe while open; values are copied out. */
#ifndef IO_CONFIG_H
#define IO_CONFIG_H

#include "core/memory.h"

#define CONFIG_MAX_BYTES ((size_t)16 * 1024 * 1024)

struct config;

/* Errors: IO, FORMAT (not JSON, not an object; names line and column), MEMORY. */
enum cyi_status config_open(const struct cyi_allocator *allocator, const char *path, struct config **ret_config,
                            struct cyi_error *err);
/* From text in memory; name is for messages. */
enum cyi_status config_parse(const struct cyi_allocator *allocator, const char *name, const char *text, size_t size,
                             struct config **ret_config, struct cyi_error *err);
void config_close(struct config *config);

/* Keys may be paths with dots, such as "rope_parameters.rope_theta". A null value counts as absent. */
bool config_has(const struct config *config, const char *key);
/* Required values. Errors: FORMAT (absent, wrong type, outside min … max). Numbers that are whole may be written as 2.0. */
enum cyi_status config_get_int(const struct config *config, const char *key, int64_t min, int64_t max, int64_t *ret,
                               struct cyi_error *err);
enum cyi_status config_get_float(const struct config *config, const char *key, double min, double max, double *ret,
                                 struct cyi_error *err);
/* Optional values: fallback when absent. */
enum cyi_status config_get_int_or(const struct config *config, const char *key, int64_t min, int64_t max,
                                  int64_t fallback, int64_t *ret, struct cyi_error *err);
enum cyi_status config_get_float_or(const struct config *config, const char *key, double min, double max,
                                    double fallback, double *ret, struct cyi_error *err);
enum cyi_status config_get_bool_or(const struct config *config, const char *key, bool fallback, bool *ret,
                                   struct cyi_error *err);
/* A list of whole numbers, 1 … max_n of them. */
enum cyi_status config_get_ints(const struct config *config, const char *key, int64_t min, int64_t max, size_t max_n,
                                int64_t *ret, size_t *ret_n, struct cyi_error *err);
/* A string that lives as long as the config; NULL when absent or not a string. */
const char *config_get_string(const struct config *config, const char *key);

#endif
