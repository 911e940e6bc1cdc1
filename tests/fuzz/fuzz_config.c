/* Fuzz target: a config, and every getter on keys that real configs have. */
#include "io/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(const struct config *config, const char *key) {
    int64_t number;
    int64_t numbers[8];
    size_t n_numbers;
    double real;
    bool flag;
    (void)config_has(config, key);
    (void)config_get_int(config, key, 1, 1 << 20, &number, NULL);
    (void)config_get_int_or(config, key, INT64_MIN, INT64_MAX, 7, &number, NULL);
    (void)config_get_float(config, key, 0.0, 1.0, &real, NULL);
    (void)config_get_float_or(config, key, -1e300, 1e300, 0.5, &real, NULL);
    (void)config_get_bool_or(config, key, true, &flag, NULL);
    (void)config_get_ints(config, key, 0, 1000, sizeof numbers / sizeof numbers[0], numbers, &n_numbers, NULL);
    (void)config_get_string(config, key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const keys[] = { "hidden_size",
                                        "rope_parameters.rope_theta",
                                        "rope_parameters",
                                        "axes_dims_rope",
                                        "_class_name",
                                        "guidance_embeds",
                                        "eps",
                                        "a",
                                        "a.b.c",
                                        "",
                                        ".",
                                        "a..b" };
    struct config *config = NULL;
    struct cyi_error err = { 0 };
    if (config_parse(&mem_default_allocator, "input", (const char *)data, size, &config, &err) == CYI_OK) {
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
            ask(config, keys[i]);
        }
        config_close(config);
    }
    return 0;
}
