/* What the files of a model do not say: a table of known models, then the folder's own model_index.json,
 * scheduler_config.json, cyberimage.json and card. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "io/config.h"
#include "io/mapped_file.h"
#include "pipeline/model.h"

/* A known model, told apart by the transformer's width and by being distilled. */
struct known_model {
    int64_t width;
    bool is_distilled, has_guidance;
    const char *name, *licence;
};

static const struct known_model known_models[] = {
    { 3072, true, false, "FLUX.2-klein-4B", "Apache-2.0" },
    { 3072, false, false, "FLUX.2-klein-base-4B", "Apache-2.0" },
    { 4096, true, false, "FLUX.2-klein-9B", "FLUX Non-Commercial License" },
    { 4096, false, false, "FLUX.2-klein-base-9B", "FLUX Non-Commercial License" },
    { 6144, false, true, "FLUX.2-dev", "FLUX Non-Commercial License" },
};

/* The part of a path that names the model: the last one, or ORG--NAME of a Hugging Face cache folder. */
static void name_from_path(const char *path, char *name, size_t size) {
    const char *cached = strstr(path, "models--");
    const char *start = cached != NULL ? strstr(cached + 8, "--") : NULL;
    size_t length;
    if (start != NULL) {
        start += 2;
        length = strcspn(start, "/");
    } else {
        size_t end = strlen(path);
        while (end > 1 && path[end - 1] == '/') {
            end--;
        }
        size_t first = end;
        while (first > 0 && path[first - 1] != '/') {
            first--;
        }
        start = path + first;
        length = end - first;
        if (length > 12 && strncmp(start + length - 12, ".safetensors", 12) == 0) {
            length -= 12;
        }
    }
    (void)snprintf(name, size, "%.*s", (int)length, start);
}

/* Base and distilled checkpoints have the same shapes: only the name tells, where no model_index.json does. */
static bool guess_distilled(const char *path, const struct flux2_config *transformer) {
    char name[128];
    name_from_path(path, name, sizeof name);
    return !transformer->has_guidance && strcasestr(name, "base") == NULL;
}

static void apply_table(const char *path, const struct flux2_config *transformer, struct model_options *o) {
    for (size_t i = 0; i < sizeof known_models / sizeof known_models[0]; i++) {
        const struct known_model *known = &known_models[i];
        if (known->width == transformer->width && known->is_distilled == o->is_distilled &&
            known->has_guidance == transformer->has_guidance) {
            (void)snprintf(o->name, sizeof o->name, "%s", known->name);
            (void)snprintf(o->licence, sizeof o->licence, "%s", known->licence);
        }
    }
    if (o->name[0] == '\0') {
        name_from_path(path, o->name, sizeof o->name);
    }
    o->n_steps = o->is_distilled ? 4 : 50;
    o->guidance = o->is_distilled ? 1.0 : 4.0;
}

static enum cyi_status open_config(const struct cyi_allocator *allocator, const char *folder, const char *name,
                                   struct config **ret_file, struct cyi_error *err) {
    char *path = path_join(allocator, folder, name);
    if (path == NULL) {
        return error_memory(err, "a path", strlen(folder) + strlen(name) + 2);
    }
    enum cyi_status st = file_exists(path) ? config_open(allocator, path, ret_file, err) : CYI_OK;
    mem_free(allocator, path);
    return st;
}

static enum cyi_status read_index(const struct cyi_allocator *allocator, const char *folder, struct model_options *o,
                                  struct cyi_error *err) {
    struct config *file = NULL;
    enum cyi_status st = open_config(allocator, folder, "model_index.json", &file, err);
    if (st == CYI_OK && file != NULL) {
        const char *name = config_get_string(file, "_class_name");
        o->embeds_guidance = o->embeds_guidance && (name == NULL || strstr(name, "Klein") == NULL);
        st = config_get_bool_or(file, "is_distilled", o->is_distilled, &o->is_distilled, err);
    }
    config_close(file);
    return st;
}

/* What would be another algorithm is refused, not left out. */
static enum cyi_status check_scheduler(const struct config *file, const char *folder, struct cyi_error *err) {
    static const char *const flags[] = { "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
                                         "stochastic_sampling", "invert_sigmas" };
    const char *name = config_get_string(file, "_class_name");
    enum cyi_status st = CYI_OK;
    if (name != NULL && strcmp(name, "FlowMatchEulerDiscreteScheduler") != 0) {
        return error_set(err, CYI_E_UNSUPPORTED,
                         "%s/scheduler: a %.60s; this version has FlowMatchEulerDiscreteScheduler", folder, name);
    }
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        bool is_set = false;
        TRY(config_get_bool_or(file, flags[i], false, &is_set, err));
        if (is_set) {
            return error_set(err, CYI_E_UNSUPPORTED, "%s/scheduler: %s is true, which is not supported", folder,
                             flags[i]);
        }
    }
done:
    return st;
}

static enum cyi_status read_schedule(const struct config *file, const char *folder, struct schedule_config *c,
                                     struct cyi_error *err) {
    const char *kind = config_get_string(file, "time_shift_type");
    bool is_dynamic = false; /* as in the reference, where the file does not say */
    enum cyi_status st = CYI_OK;
    TRY(check_scheduler(file, folder, err));
    TRY(config_get_bool_or(file, "use_dynamic_shifting", false, &is_dynamic, err));
    TRY(config_get_float_or(file, "shift", 1e-3, 1e3, 1.0, &c->shift, err));
    TRY(config_get_float_or(file, "shift_terminal", 0.0, 0.999, 0.0, &c->terminal, err));
    TRY(config_get_float_or(file, "num_train_timesteps", 1.0, 1e6, 1000.0, &c->n_timesteps, err));
    c->kind = !is_dynamic                                   ? SCHEDULE_STATIC
              : kind != NULL && strcmp(kind, "linear") == 0 ? SCHEDULE_LINEAR
                                                            : SCHEDULE_EXPONENTIAL;
    if (kind != NULL && strcmp(kind, "linear") != 0 && strcmp(kind, "exponential") != 0) {
        st = error_set(err, CYI_E_UNSUPPORTED, "%s/scheduler: time_shift_type is %.40s, neither exponential nor linear",
                       folder, kind);
    }
done:
    return st;
}

static enum cyi_status find_schedule(const struct cyi_allocator *allocator, const char *folder, struct model_options *o,
                                     struct cyi_error *err) {
    struct config *file = NULL;
    enum cyi_status st = CYI_OK;
    TRY(open_config(allocator, folder, "scheduler/scheduler_config.json", &file, err));
    if (file != NULL) {
        TRY(read_schedule(file, folder, &o->schedule, err));
    }
done:
    config_close(file);
    return st;
}

static enum cyi_status read_own(const struct cyi_allocator *allocator, const char *folder, struct model_options *o,
                                struct cyi_error *err) {
    struct config *file = NULL;
    enum cyi_status st = CYI_OK;
    TRY(open_config(allocator, folder, "cyberimage.json", &file, err));
    if (file == NULL) {
        return CYI_OK;
    }
    const char *name = config_get_string(file, "name");
    const char *licence = config_get_string(file, "licence");
    if (name != NULL) {
        (void)snprintf(o->name, sizeof o->name, "%s", name);
    }
    if (licence != NULL) {
        (void)snprintf(o->licence, sizeof o->licence, "%s", licence);
    }
    if (config_has(file, "text_encoder_out_layers")) {
        int64_t layers[MODEL_MAX_TEXT_LAYERS];
        size_t n_layers;
        TRY(config_get_ints(file, "text_encoder_out_layers", 1, 1000, MODEL_MAX_TEXT_LAYERS, layers, &n_layers, err));
        for (size_t i = 0; i < n_layers; i++) {
            o->text_layers[i] = (int)layers[i];
        }
        o->n_text_layers = (int)n_layers;
    }
    TRY(config_get_bool_or(file, "is_distilled", o->is_distilled, &o->is_distilled, err));
    TRY(config_get_int_or(file, "max_sequence_length", 1, MODEL_MAX_TEXT_TOKENS, o->max_text_tokens,
                          &o->max_text_tokens, err));
    TRY(config_get_int_or(file, "default.width", 1, CYI_MAX_IMAGE_SIDE, o->width, &o->width, err));
    TRY(config_get_int_or(file, "default.height", 1, CYI_MAX_IMAGE_SIDE, o->height, &o->height, err));
    TRY(config_get_int_or(file, "default.steps", 1, CYI_MAX_STEPS, o->n_steps, &o->n_steps, err));
    TRY(config_get_float_or(file, "default.guidance", 0.0, 100.0, o->guidance, &o->guidance, err));
done:
    config_close(file);
    return st;
}

/* Copies what stands behind the key of a "key: value" line, without quotes, as far as there is room. */
static void copy_line_value(const char *start, char *value, size_t size) {
    start += strspn(start, " \"'");
    size_t length = strcspn(start, "\"'\r\n");
    length = length < size ? length : size - 1;
    memcpy(value, start, length);
    value[length] = '\0';
}

/* The value of a line of a card that names the licence, behind the colon; NULL for any other line. */
static const char *find_licence(const char *line) {
    static const char *const keys[] = { "license:", "license_name:" };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strncmp(line, keys[i], strlen(keys[i])) == 0) {
            return line + strlen(keys[i]);
        }
    }
    return NULL;
}

/* The licence in the head of a card: Hugging Face's README.md begins with a block between two lines of "---". */
static enum cyi_status read_card(const struct cyi_allocator *allocator, const char *folder, struct model_options *o,
                                 struct cyi_error *err) {
    char *text = NULL;
    size_t size = 0;
    enum cyi_status st = CYI_OK;
    char *path = path_join(allocator, folder, "README.md");
    if (path == NULL) {
        return error_memory(err, "a path", strlen(folder));
    }
    if (o->licence[0] == '\0' && file_exists(path)) {
        TRY(file_read_all(allocator, path, CONFIG_MAX_BYTES, &text, &size, err));
        const char *end = strncmp(text, "---\n", 4) == 0 ? strstr(text + 4, "\n---") : NULL;
        for (const char *line = text; end != NULL && line < end; line = strchr(line, '\n') + 1) {
            const char *value = find_licence(line);
            if (value != NULL) {
                copy_line_value(value, o->licence, sizeof o->licence);
            }
        }
    }
done:
    mem_free(allocator, text);
    mem_free(allocator, path);
    return st;
}

enum cyi_status model_options_find(const struct cyi_allocator *allocator, const struct model_paths *paths,
                                   const struct flux2_config *transformer, struct model_options *ret_options,
                                   struct cyi_error *err) {
    struct model_options o = { .text_layers = { 9, 18, 27 },
                               .n_text_layers = 3,
                               .max_text_tokens = 512,
                               .width = 1024,
                               .height = 1024,
                               .embeds_guidance = transformer->has_guidance,
                               .schedule = schedule_default };
    enum cyi_status st = CYI_OK;
    /* A single file's own name says more than the name of its folder. */
    const char *named = file_exists(paths->transformer) ? paths->transformer : paths->base;
    o.is_distilled = guess_distilled(named, transformer);
    TRY(read_index(allocator, paths->base, &o, err));
    TRY(find_schedule(allocator, paths->base, &o, err));
    apply_table(named, transformer, &o);
    TRY(read_own(allocator, paths->base, &o, err));
    TRY(read_card(allocator, paths->base, &o, err));
    if (o.licence[0] == '\0') {
        (void)snprintf(o.licence, sizeof o.licence, "unknown");
    }
    *ret_options = o;
done:
    return st;
}
