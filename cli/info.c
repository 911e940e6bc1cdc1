/* cyberimage info: what a picture says about how it was made, ours or that of another program. */
#include "commands.h"
#include "metadata.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct info_options {
    bool is_json;
};

static const struct option_row rows[] = {
    { OPTION_FLAG, 0, "json", NULL, "Everything as one JSON object", offsetof(struct info_options, is_json), 0, 0,
      NULL },
};

/* What the file holds. */
struct findings {
    const char *path;
    int width, height; /* pixels */
    char *parameters, *json;
    struct recipe recipe;
    bool has_recipe;
    struct cyi_error recipe_error; /* why the JSON could not be read */
};

static enum cyi_status read_findings(const char *path, struct findings *findings, struct cyi_error *err) {
    struct cyi_engine *engine = NULL;
    struct cyi_image *image = NULL;
    char *parameters = NULL, *json = NULL;
    enum cyi_status st = cyi_engine_create(NULL, &engine, err);
    findings->path = path;
    if (st == CYI_OK) {
        st = cyi_image_load(engine, path, &image, err);
    }
    if (st == CYI_OK) {
        st = cyi_image_read_texts(engine, path, &parameters, &json, err);
    }
    if (st == CYI_OK) {
        findings->width = image->width;
        findings->height = image->height;
        findings->parameters = text_copy(parameters);
        findings->json = text_copy(json);
        findings->has_recipe =
            json != NULL && recipe_from_text(json, &findings->recipe, &findings->recipe_error) == CYI_OK;
    }
    cyi_release(engine, parameters);
    cyi_release(engine, json);
    cyi_image_free(image);
    cyi_engine_free(engine);
    return st;
}

/* ---- For people ---- */

static void print_text(const char *title, const char *text) {
    printf("%-14s ", title);
    for (const char *line = text; line != NULL;) { /* further lines stand below the first */
        const char *end = strchr(line, '\n');
        char *part = text_format("%.*s", end != NULL ? (int)(end - line) : (int)strlen(line), line);
        text_write_safe(stdout, part, false);
        free(part);
        fputc('\n', stdout);
        line = end != NULL ? end + 1 : NULL;
        if (line != NULL) {
            printf("%-14s ", "");
        }
    }
}

__attribute__((format(printf, 2, 3))) static void print_field(const char *title, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    print_text(title, text);
}

static void print_input(const char *title, const struct recipe_file *file) {
    if (file->name != NULL) {
        print_field(title, "%.200s (SHA-256 %.12s…)", file->name, file->sha256);
    }
}

static void print_recipe(const struct recipe *recipe) {
    print_text("Prompt", recipe->prompt);
    if (recipe->negative_prompt != NULL) {
        print_text("Negative", recipe->negative_prompt);
    }
    print_field("Seed", "%lu", (unsigned long)recipe->seed);
    print_field("Steps", "%d", recipe->n_steps);
    print_field("Guidance", "%g", recipe->guidance);
    print_field("Made as", "%d×%d %s", recipe->width, recipe->height, files_format_name(recipe->format));
    for (int i = 0; i < recipe->n_references; i++) {
        print_input("Reference", &recipe->references[i]);
    }
    print_input("Started from", &recipe->init);
    if (recipe->init.name != NULL) {
        print_field("Strength", "%g", recipe->strength);
    }
    print_input("Mask", &recipe->mask);
    print_field("Model", "%.200s (%.60s, fingerprint %.16s…)", recipe->model_name, recipe->model_family,
                recipe->model_fingerprint);
    print_field("Engine", "CyberImage %.60s, %.60s (%.100s), %.60s, %.20s", recipe->version, recipe->backend,
                recipe->backend_version, recipe->isa, recipe->precision);
}

static void print_parameters(const char *parameters) {
    json_t *json = metadata_read_parameters(parameters);
    const char *negative = json_string_value(json_object_get(json, "negative_prompt"));
    const char *name = NULL;
    json_t *value = NULL;
    print_text("Prompt", json_string_value(json_object_get(json, "prompt")));
    if (negative != NULL) {
        print_text("Negative", negative);
    }
    json_object_foreach(json_object_get(json, "settings"), name, value) {
        print_text(name, json_string_value(value));
    }
    json_decref(json);
}

static void print_findings(const struct findings *findings) {
    print_text("File", findings->path);
    print_field("Size", "%d×%d", findings->width, findings->height);
    if (findings->has_recipe) {
        print_recipe(&findings->recipe);
        return;
    }
    if (findings->json != NULL) {
        print_text("Note", findings->recipe_error.text);
    }
    if (findings->parameters != NULL) {
        print_parameters(findings->parameters);
    } else if (findings->json == NULL) {
        print_text("Note", "the file carries no settings");
    }
}

/* ---- For programs ---- */

static void print_json(const struct findings *findings) {
    char *path = text_clean(findings->path);
    json_t *json = json_pack("{s:s, s:i, s:i}", "file", path, "width", findings->width, "height", findings->height);
    json_t *own = findings->json != NULL ? json_loads(findings->json, 0, NULL) : NULL;
    (void)json_object_set_new(json, "cyberimage", own != NULL ? own : json_null());
    if (findings->parameters != NULL) {
        char *text = text_clean(findings->parameters);
        (void)json_object_set_new(json, "parameters_text", json_string(text));
        (void)json_object_set_new(json, "parameters", metadata_read_parameters(text));
        free(text);
    } else {
        (void)json_object_set_new(json, "parameters_text", json_null());
        (void)json_object_set_new(json, "parameters", json_null());
    }
    (void)json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    fputc('\n', stdout);
    json_decref(json);
    free(path);
}

static int run(const struct command *command, int argc, char **argv) {
    struct info_options options = { 0 };
    struct option_arguments arguments;
    struct findings findings = { 0 };
    struct cyi_error err = { 0 };
    enum cyi_status st = options_parse(command, argc, argv, &options, &arguments, &err);
    if (st == CYI_OK && arguments.wants_help) {
        options_print_help(command, stdout);
        return CLI_OK;
    }
    if (st == CYI_OK) {
        st = read_findings(arguments.items[0], &findings, &err);
    }
    if (st == CYI_OK && options.is_json) {
        print_json(&findings);
    } else if (st == CYI_OK) {
        print_findings(&findings);
    }
    recipe_done(&findings.recipe);
    free(findings.parameters);
    free(findings.json);
    return st == CYI_OK ? CLI_OK : text_report(&err, CLI_BAD_INPUT);
}

const struct command command_info = {
    .name = "info",
    .arguments = "FILE",
    .summary = "show how a picture was made",
    .description =
        "Shows the settings that a PNG, JPEG or WebP file carries: those of CyberImage, or the \"parameters\" text "
        "that\n"
        "A1111 and many other programs write.\n\nExit code: 0 shown (or there are none), 2 the file cannot be read.",
    .examples = "  cyberimage info neon-20261124-153012-seed42.png\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .min_arguments = 1,
    .max_arguments = 1,
    .argument_hint = "name one picture: cyberimage info picture.png",
    .run = run,
};
