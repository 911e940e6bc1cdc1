/* Configs: see config.h. A config is a jansson tree; getters walk it by dotted paths and check types and bounds. */
#include "io/config.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "io/json_text.h"
#include "io/mapped_file.h"

#define KEY_MAX_BYTES 256
#define WHOLE_MAX 9007199254740992.0 /* 2^53: up to here a double tells neighbouring whole numbers apart */

struct config {
    const struct cyi_allocator *allocator;
    char *name;
    json_t *root;
};

enum cyi_status config_parse(const struct cyi_allocator *allocator, const char *name, const char *text, size_t size,
                             struct config **ret_config, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct config *config = mem_alloc_zeroed(allocator, 1, sizeof *config);
    if (config == NULL) {
        return error_memory(err, "a config", sizeof *config);
    }
    config->allocator = allocator;
    config->name = mem_copy_string(allocator, name);
    if (config->name == NULL) {
        st = error_memory(err, "the name of a config", strlen(name) + 1);
        goto done;
    }
    TRY(json_text_parse(name, text, size, &config->root, err));
    *ret_config = config;
    config = NULL;
done:
    config_close(config);
    return st;
}

enum cyi_status config_open(const struct cyi_allocator *allocator, const char *path, struct config **ret_config,
                            struct cyi_error *err) {
    char *text = NULL;
    size_t size = 0;
    enum cyi_status st = file_read_all(allocator, path, CONFIG_MAX_BYTES, &text, &size, err);
    if (st == CYI_OK) {
        st = config_parse(allocator, path, text, size, ret_config, err);
    }
    mem_free(allocator, text);
    return st;
}

void config_close(struct config *config) {
    if (config == NULL) {
        return;
    }
    json_decref(config->root);
    mem_free(config->allocator, config->name);
    mem_free(config->allocator, config);
}

/* The value at a dotted path; NULL when any part is absent or null. */
static const json_t *find_value(const struct config *config, const char *key) {
    const json_t *value = config->root;
    for (;;) {
        char part[KEY_MAX_BYTES];
        size_t size = strcspn(key, ".");
        if (size >= sizeof part) {
            return NULL;
        }
        memcpy(part, key, size);
        part[size] = '\0';
        value = json_object_get(value, part);
        if (key[size] == '\0') {
            return json_is_null(value) ? NULL : value;
        }
        key += size + 1;
    }
}

bool config_has(const struct config *config, const char *key) {
    return find_value(config, key) != NULL;
}

static enum cyi_status fail_absent(const struct config *config, const char *key, struct cyi_error *err) {
    return error_set(err, CYI_E_FORMAT, "%s: \"%s\" is missing", config->name, key);
}

/* A whole number, which may be written as 2.0. */
static bool read_whole(const json_t *value, int64_t *ret) {
    if (json_is_integer(value)) {
        *ret = json_integer_value(value);
        return true;
    }
    double number = json_is_real(value) ? json_real_value(value) : 0.5;
    if (fabs(number) > WHOLE_MAX || floor(number) < number) {
        return false;
    }
    *ret = (int64_t)number;
    return true;
}

static enum cyi_status check_int(const struct config *config, const char *key, const json_t *value, int64_t min,
                                 int64_t max, int64_t *ret, struct cyi_error *err) {
    int64_t number;
    if (!read_whole(value, &number)) {
        return error_set(err, CYI_E_FORMAT, "%s: \"%s\" is not a whole number", config->name, key);
    }
    if (number < min || number > max) {
        return error_set(err, CYI_E_FORMAT, "%s: \"%s\" is %" PRId64 ", it must be between %" PRId64 " and %" PRId64,
                         config->name, key, number, min, max);
    }
    *ret = number;
    return CYI_OK;
}

static enum cyi_status check_float(const struct config *config, const char *key, const json_t *value, double min,
                                   double max, double *ret, struct cyi_error *err) {
    if (!json_is_number(value)) {
        return error_set(err, CYI_E_FORMAT, "%s: \"%s\" is not a number", config->name, key);
    }
    double number = json_number_value(value);
    if (!(number >= min && number <= max)) {
        return error_set(err, CYI_E_FORMAT, "%s: \"%s\" is %g, it must be between %g and %g", config->name, key, number,
                         min, max);
    }
    *ret = number;
    return CYI_OK;
}

enum cyi_status config_get_int(const struct config *config, const char *key, int64_t min, int64_t max, int64_t *ret,
                               struct cyi_error *err) {
    const json_t *value = find_value(config, key);
    return value == NULL ? fail_absent(config, key, err) : check_int(config, key, value, min, max, ret, err);
}

enum cyi_status config_get_float(const struct config *config, const char *key, double min, double max, double *ret,
                                 struct cyi_error *err) {
    const json_t *value = find_value(config, key);
    return value == NULL ? fail_absent(config, key, err) : check_float(config, key, value, min, max, ret, err);
}

enum cyi_status config_get_int_or(const struct config *config, const char *key, int64_t min, int64_t max,
                                  int64_t fallback, int64_t *ret, struct cyi_error *err) {
    const json_t *value = find_value(config, key);
    if (value == NULL) {
        *ret = fallback;
        return CYI_OK;
    }
    return check_int(config, key, value, min, max, ret, err);
}

enum cyi_status config_get_float_or(const struct config *config, const char *key, double min, double max,
                                    double fallback, double *ret, struct cyi_error *err) {
    const json_t *value = find_value(config, key);
    if (value == NULL) {
        *ret = fallback;
        return CYI_OK;
    }
    return check_float(config, key, value, min, max, ret, err);
}

enum cyi_status config_get_bool_or(const struct config *config, const char *key, bool fallback, bool *ret,
                                   struct cyi_error *err) {
    const json_t *value = find_value(config, key);
    if (value != NULL && !json_is_boolean(value)) {
        return error_set(err, CYI_E_FORMAT, "%s: \"%s\" is neither true nor false", config->name, key);
    }
    *ret = value == NULL ? fallback : json_is_true(value);
    return CYI_OK;
}

enum cyi_status config_get_ints(const struct config *config, const char *key, int64_t min, int64_t max, size_t max_n,
                                int64_t *ret, size_t *ret_n, struct cyi_error *err) {
    const json_t *list = find_value(config, key);
    if (list == NULL) {
        return fail_absent(config, key, err);
    }
    size_t n = json_array_size(list);
    if (n < 1 || n > max_n) {
        return error_set(err, CYI_E_FORMAT, "%s: \"%s\" is not a list of 1 to %zu numbers", config->name, key, max_n);
    }
    for (int is_checked = 0; is_checked < 2; is_checked++) {
        for (size_t i = 0; i < n; i++) {
            int64_t number = 0;
            enum cyi_status st = check_int(config, key, json_array_get(list, i), min, max, &number, err);
            if (st != CYI_OK) {
                return st;
            }
            if (is_checked) {
                ret[i] = number;
            }
        }
    }
    *ret_n = n;
    return CYI_OK;
}

const char *config_get_string(const struct config *config, const char *key) {
    return json_string_value(find_value(config, key));
}
