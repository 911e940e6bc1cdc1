/* Recipes as JSON and as A1111 text: see metadata.h. */
#include "metadata.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- A recipe ---- */

static void clear_text(char **text) {
    free(*text);
    *text = NULL;
}

void recipe_done(struct recipe *recipe) {
    for (int i = 0; i < CYI_MAX_REFERENCES; i++) {
        clear_text(&recipe->references[i].name);
    }
    char **const texts[] = { &recipe->prompt,    &recipe->negative_prompt, &recipe->init.name,
                             &recipe->mask.name, &recipe->model_name,      &recipe->model_family,
                             &recipe->version,   &recipe->backend,         &recipe->model_fingerprint,
                             &recipe->isa,       &recipe->precision,       &recipe->backend_version };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        clear_text(texts[i]);
    }
}

/* ---- JSON, out ---- */

static json_t *check_json(json_t *json) {
    if (json == NULL) {
        text_out_of_memory();
    }
    return json;
}

/* Text that may hold bytes that are not UTF-8 (file names). */
static json_t *text_to_json(const char *text) {
    char *clean = text_clean(text != NULL ? text : "");
    json_t *json = check_json(json_string(clean));
    free(clean);
    return json;
}

static void put(json_t *object, const char *name, json_t *value) {
    if (json_object_set_new(object, name, value) != 0) {
        text_out_of_memory();
    }
}

static json_t *file_to_json(const struct recipe_file *file) {
    json_t *json = check_json(json_object());
    put(json, "file", text_to_json(file->name));
    put(json, "sha256", text_to_json(file->sha256));
    return json;
}

static json_t *engine_to_json(const struct recipe *recipe) {
    json_t *json = check_json(json_object());
    put(json, "version", text_to_json(recipe->version));
    put(json, "backend", text_to_json(recipe->backend));
    put(json, "backend_version", text_to_json(recipe->backend_version));
    put(json, "isa", text_to_json(recipe->isa));
    put(json, "precision", text_to_json(recipe->precision));
    return json;
}

static json_t *model_to_json(const struct recipe *recipe) {
    json_t *json = check_json(json_object());
    put(json, "name", text_to_json(recipe->model_name));
    put(json, "family", text_to_json(recipe->model_family));
    put(json, "fingerprint", text_to_json(recipe->model_fingerprint));
    return json;
}

static json_t *output_to_json(const struct recipe *recipe) {
    json_t *json = check_json(json_object());
    put(json, "format", text_to_json(files_format_name(recipe->format)));
    if (recipe->format != CYI_FORMAT_PNG) {
        put(json, "quality", json_integer(recipe->quality));
    }
    return json;
}

json_t *recipe_to_json(const struct recipe *recipe) {
    json_t *json = check_json(json_object());
    put(json, "cyberimage", json_integer(METADATA_FORMAT));
    put(json, "prompt", text_to_json(recipe->prompt));
    if (recipe->negative_prompt != NULL) {
        put(json, "negative_prompt", text_to_json(recipe->negative_prompt));
    }
    put(json, "width", json_integer(recipe->width));
    put(json, "height", json_integer(recipe->height));
    put(json, "steps", json_integer(recipe->n_steps));
    put(json, "guidance", check_json(json_real(recipe->guidance)));
    put(json, "seed", json_integer(recipe->seed));
    if (recipe->n_references > 0) {
        json_t *references = check_json(json_array());
        for (int i = 0; i < recipe->n_references; i++) {
            if (json_array_append_new(references, file_to_json(&recipe->references[i])) != 0) {
                text_out_of_memory();
            }
        }
        put(json, "references", references);
    }
    if (recipe->init.name != NULL) {
        put(json, "init", file_to_json(&recipe->init));
        put(json, "strength", check_json(json_real(recipe->strength)));
    }
    if (recipe->mask.name != NULL) {
        put(json, "mask", file_to_json(&recipe->mask));
    }
    put(json, "model", model_to_json(recipe));
    put(json, "engine", engine_to_json(recipe));
    put(json, "output", output_to_json(recipe));
    return json;
}

char *recipe_to_text(const struct recipe *recipe) {
    json_t *json = recipe_to_json(recipe);
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(json);
    if (text == NULL) {
        text_out_of_memory();
    }
    return text;
}

/* ---- JSON, in ---- */

static enum cyi_status read_text(const json_t *object, const char *name, bool is_needed, char **ret_text,
                                 struct cyi_error *err) {
    const json_t *value = json_object_get(object, name);
    if (value == NULL && !is_needed) {
        return CYI_OK;
    }
    if (!json_is_string(value)) {
        return text_error(err, CYI_E_FORMAT, "the picture's settings: \"%s\" is not a text", name);
    }
    *ret_text = text_copy(json_string_value(value));
    return CYI_OK;
}

static enum cyi_status read_number(const json_t *object, const char *name, double min, double max, double *ret_value,
                                   struct cyi_error *err) {
    const json_t *value = json_object_get(object, name);
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max)) {
        return text_error(err, CYI_E_FORMAT, "the picture's settings: \"%s\" is not a number from %g to %g", name, min,
                          max);
    }
    *ret_value = number;
    return CYI_OK;
}

static enum cyi_status read_int(const json_t *object, const char *name, int min, int max, int *ret_value,
                                struct cyi_error *err) {
    double number = 0.0;
    const enum cyi_status st = read_number(object, name, min, max, &number, err);
    if (st == CYI_OK && !json_is_integer(json_object_get(object, name))) {
        return text_error(err, CYI_E_FORMAT, "the picture's settings: \"%s\" is not a whole number", name);
    }
    *ret_value = (int)number;
    return st;
}

static enum cyi_status read_file(const json_t *value, const char *what, struct recipe_file *ret_file,
                                 struct cyi_error *err) {
    const char *name = json_string_value(json_object_get(value, "file"));
    const char *sha256 = json_string_value(json_object_get(value, "sha256"));
    if (name == NULL || sha256 == NULL || strlen(sha256) != FILES_SHA256_TEXT - 1 ||
        strspn(sha256, "0123456789abcdef") != FILES_SHA256_TEXT - 1) {
        return text_error(err, CYI_E_FORMAT, "the picture's settings: \"%s\" has no file name and SHA-256", what);
    }
    ret_file->name = text_copy(files_base_name(name)); /* a name, never a path into other folders */
    memcpy(ret_file->sha256, sha256, FILES_SHA256_TEXT);
    return CYI_OK;
}

static enum cyi_status read_inputs(const json_t *json, struct recipe *recipe, struct cyi_error *err) {
    const json_t *references = json_object_get(json, "references");
    const size_t n = json_array_size(references);
    enum cyi_status st = CYI_OK;
    if (references != NULL && (!json_is_array(references) || n > CYI_MAX_REFERENCES)) {
        return text_error(err, CYI_E_FORMAT, "the picture's settings: \"references\" is no list of at most %d",
                          CYI_MAX_REFERENCES);
    }
    for (size_t i = 0; i < n && st == CYI_OK; i++) {
        st = read_file(json_array_get(references, i), "references", &recipe->references[i], err);
    }
    recipe->n_references = (int)n;
    if (st == CYI_OK && json_object_get(json, "init") != NULL) {
        st = read_file(json_object_get(json, "init"), "init", &recipe->init, err);
        if (st == CYI_OK) {
            st = read_number(json, "strength", 0.0, 1.0, &recipe->strength, err);
        }
    }
    if (st == CYI_OK && json_object_get(json, "mask") != NULL) {
        st = read_file(json_object_get(json, "mask"), "mask", &recipe->mask, err);
    }
    return st;
}

static enum cyi_status read_origin(const json_t *json, struct recipe *recipe, struct cyi_error *err) {
    const json_t *model = json_object_get(json, "model"), *engine = json_object_get(json, "engine");
    const struct {
        const json_t *object;
        const char *name;
        char **text;
    } rows[] = { { model, "name", &recipe->model_name },
                 { model, "family", &recipe->model_family },
                 { model, "fingerprint", &recipe->model_fingerprint },
                 { engine, "version", &recipe->version },
                 { engine, "backend", &recipe->backend },
                 { engine, "backend_version", &recipe->backend_version },
                 { engine, "isa", &recipe->isa },
                 { engine, "precision", &recipe->precision } };
    enum cyi_status st = CYI_OK;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && st == CYI_OK; i++) {
        st = read_text(rows[i].object, rows[i].name, true, rows[i].text, err);
    }
    return st;
}

static enum cyi_status read_output(const json_t *json, struct recipe *recipe, struct cyi_error *err) {
    const json_t *output = json_object_get(json, "output");
    const char *format = json_string_value(json_object_get(output, "format"));
    for (enum cyi_image_format i = CYI_FORMAT_PNG; i <= CYI_FORMAT_WEBP; i++) {
        if (format != NULL && strcmp(format, files_format_name(i)) == 0) {
            recipe->format = i;
            return i == CYI_FORMAT_PNG ? CYI_OK : read_int(output, "quality", 1, 100, &recipe->quality, err);
        }
    }
    return text_error(err, CYI_E_FORMAT, "the picture's settings: \"output\" names no known format");
}

static enum cyi_status read_recipe(const json_t *json, struct recipe *recipe, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    double seed = 0.0;
    const json_t *format = json_object_get(json, "cyberimage");
    if (!json_is_integer(format)) {
        return text_error(err, CYI_E_FORMAT, "the picture's JSON was not written by CyberImage");
    }
    if (json_integer_value(format) != METADATA_FORMAT) {
        return text_error(err, CYI_E_UNSUPPORTED,
                          "the picture's settings have format %lld, and this program reads only %d",
                          (long long)json_integer_value(format), METADATA_FORMAT);
    }
    if ((st = read_text(json, "prompt", true, &recipe->prompt, err)) != CYI_OK ||
        (st = read_text(json, "negative_prompt", false, &recipe->negative_prompt, err)) != CYI_OK ||
        (st = read_int(json, "width", 1, CYI_MAX_IMAGE_SIDE, &recipe->width, err)) != CYI_OK ||
        (st = read_int(json, "height", 1, CYI_MAX_IMAGE_SIDE, &recipe->height, err)) != CYI_OK ||
        (st = read_int(json, "steps", 1, CYI_MAX_STEPS, &recipe->n_steps, err)) != CYI_OK ||
        (st = read_number(json, "guidance", 0.0, 1000.0, &recipe->guidance, err)) != CYI_OK ||
        (st = read_number(json, "seed", 0.0, (double)UINT32_MAX, &seed, err)) != CYI_OK ||
        (st = read_inputs(json, recipe, err)) != CYI_OK || (st = read_origin(json, recipe, err)) != CYI_OK) {
        return st;
    }
    recipe->seed = (uint32_t)seed;
    return read_output(json, recipe, err);
}

enum cyi_status recipe_from_text(const char *text, struct recipe *ret_recipe, struct cyi_error *err) {
    json_error_t problem;
    struct recipe recipe = { 0 };
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &problem);
    if (json == NULL) {
        return text_error(err, CYI_E_FORMAT, "the picture's settings are no valid JSON: %s", problem.text);
    }
    const enum cyi_status st = read_recipe(json, &recipe, err);
    json_decref(json);
    if (st != CYI_OK) {
        recipe_done(&recipe);
        return st;
    }
    *ret_recipe = recipe;
    return CYI_OK;
}

/* ---- A1111 ---- */

/* A value with a comma, colon, quote or newline is written as a JSON string, as A1111 does. A new string. */
static char *quote_value(const char *value) {
    if (strpbrk(value, ",:\"\n") == NULL) {
        return text_copy(value);
    }
    json_t *json = text_to_json(value);
    char *quoted = json_dumps(json, JSON_ENCODE_ANY);
    json_decref(json);
    if (quoted == NULL) {
        text_out_of_memory();
    }
    return quoted;
}

char *metadata_write_parameters(const struct recipe *recipe) {
    const char *negative = recipe->negative_prompt != NULL ? recipe->negative_prompt : "";
    char *model = quote_value(recipe->model_name);
    char *strength =
        recipe->init.name != NULL ? text_format("Denoising strength: %g, ", recipe->strength) : text_copy("");
    char *text =
        text_format("%s%s%s\nSteps: %d, Sampler: Euler, CFG scale: %g, Seed: %lu, Size: %dx%d, Model hash: %.10s, "
                    "Model: %s, %sVersion: CyberImage %s",
                    recipe->prompt, negative[0] != '\0' ? "\nNegative prompt: " : "", negative, recipe->n_steps,
                    recipe->guidance, (unsigned long)recipe->seed, recipe->width, recipe->height,
                    recipe->model_fingerprint, model, strength, recipe->version);
    free(strength);
    free(model);
    return text;
}

/* Reads one `name: value` pair. Returns what follows it, or NULL when there is none. */
static const char *read_pair(const char *at, json_t *settings) {
    at += strspn(at, " \t");
    const char *colon = strchr(at, ':');
    if (colon == NULL || !isalnum((unsigned char)*at)) {
        return NULL;
    }
    for (const char *c = at; c < colon; c++) {
        if (!isalnum((unsigned char)*c) && strchr(" _-/.()", *c) == NULL) {
            return NULL;
        }
    }
    const char *value = colon + 1 + strspn(colon + 1, " ");
    const char *end = value + strcspn(value, ",");
    char *text = NULL;
    if (*value == '"') {
        json_t *json = json_loads(value, JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, NULL);
        if (json_is_string(json)) {
            text = text_copy(json_string_value(json));
            for (end = value + 1; *end != '"'; end++) {
                end += *end == '\\';
            }
            end++;
        }
        json_decref(json);
    }
    if (text == NULL) {
        text = text_format("%.*s", (int)(end - value), value);
    }
    char *name = text_format("%.*s", (int)(colon - at), at);
    put(settings, name, text_to_json(text));
    free(name);
    free(text);
    end += strspn(end, " ");
    return *end == ',' ? end + 1 : *end == '\0' ? end : NULL;
}

/* The pairs of one line, or NULL when it is no such line (A1111 wants three at least). */
static json_t *read_settings(const char *line) {
    json_t *settings = check_json(json_object());
    const char *at = line;
    while (at != NULL && *at != '\0') {
        at = read_pair(at, settings);
    }
    if (at == NULL || json_object_size(settings) < 3) {
        json_decref(settings);
        return NULL;
    }
    return settings;
}

json_t *metadata_read_parameters(const char *text) {
    static const char mark[] = "Negative prompt:";
    json_t *json = check_json(json_object());
    char *copy = text_copy(text);
    for (size_t n = strlen(copy); n > 0 && isspace((unsigned char)copy[n - 1]); n--) {
        copy[n - 1] = '\0';
    }
    char *last = strrchr(copy, '\n');
    json_t *settings = read_settings(last != NULL ? last + 1 : copy);
    if (settings != NULL) {
        *(last != NULL ? last : copy) = '\0';
    }
    for (char *line = copy;
         line != NULL;) { /* the negative prompt begins at the start of a line and goes on to the end */
        char *next = strchr(line, '\n');
        if (strncmp(line, mark, sizeof mark - 1) == 0) {
            const char *negative = line + sizeof mark - 1;
            put(json, "negative_prompt", text_to_json(negative + strspn(negative, " ")));
            line[line > copy ? -1 : 0] = '\0';
            break;
        }
        line = next != NULL ? next + 1 : NULL;
    }
    put(json, "prompt", text_to_json(copy));
    put(json, "settings", settings != NULL ? settings : check_json(json_object()));
    free(copy);
    return json;
}
