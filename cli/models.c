/* cyberimage models: what lies in the model folders, what can be used, and why the rest cannot. */
#include "commands.h"
#include "session.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct models_options {
    struct session_options session;
    bool is_json;
};

static const struct option_row rows[] = {
    { OPTION_FLAG, 0, "json", NULL, "A JSON array with one object a model", offsetof(struct models_options, is_json), 0,
      0, NULL },
};

/* ---- For programs ---- */

static json_t *model_to_json(const struct session *session, const struct model_place *place,
                             const struct cyi_error *problem) {
    const struct cyi_model_info *info = &session->model_info;
    char *name = text_clean(place->name), *path = text_clean(place->path);
    json_t *json = json_pack("{s:s, s:s, s:b, s:I}", "name", name, "path", path, "usable", problem->code == CYI_OK,
                             "disk_bytes", (json_int_t)model_search_size(place->path));
    if (problem->code != CYI_OK) {
        char *text = text_clean(problem->text);
        (void)json_object_set_new(json, "problem", json_string(text));
        free(text);
    } else {
        json_t *more =
            json_pack("{s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:i, s:i, s:i, s:f, s:i, s:i, s:i}", "title", info->name,
                      "family", info->family, "licence", info->licence, "fingerprint", info->fingerprint, "distilled",
                      (int)info->is_distilled, "parameters", (json_int_t)info->n_parameters, "mapped_bytes",
                      (json_int_t)info->mapped_bytes, "default_width", info->default_width, "default_height",
                      info->default_height, "default_steps", info->default_steps, "default_guidance",
                      (double)info->default_guidance, "size_multiple", info->size_multiple, "max_text_tokens",
                      info->max_text_tokens, "max_references", info->max_references);
        (void)json_object_update(json, more);
        json_decref(more);
    }
    free(name);
    free(path);
    return json;
}

static int print_json(struct session *session, const struct model_list *list) {
    json_t *array = json_array();
    for (size_t i = 0; i < list->n; i++) {
        struct cyi_error problem = { 0 };
        (void)session_open_path(session, list->items[i].path, &problem);
        (void)json_array_append_new(array, model_to_json(session, &list->items[i], &problem));
        session_close_model(session);
    }
    (void)json_dumpf(array, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    fputc('\n', stdout);
    json_decref(array);
    return CLI_OK;
}

/* ---- For people ---- */

static void print_model(const struct session *session, const struct model_place *place, int name_width) {
    const struct cyi_model_info *info = &session->model_info;
    char parameters[TEXT_SHORT], size[TEXT_SHORT];
    text_write_safe(stdout, place->name, false);
    const int n_name = (int)strnlen(place->name, (size_t)name_width);
    printf("%*s  %-8s %9s %9s  ", name_width - n_name, "", info->family, text_count(parameters, info->n_parameters),
           text_bytes(size, model_search_size(place->path)));
    text_write_safe(stdout, info->licence, false);
    fputs("\n    ", stdout);
    text_write_safe(stdout, place->path, false);
    printf("\n    %s%d×%d, %d steps, guidance %g, up to %d references\n", info->is_distilled ? "distilled, " : "",
           info->default_width, info->default_height, info->default_steps, (double)info->default_guidance,
           info->max_references);
}

static void print_problem(const struct model_place *place, const struct cyi_error *problem) {
    text_write_safe(stdout, place->name, false);
    fputs("  cannot be used: ", stdout);
    text_write_safe(stdout, problem->text, false);
    fputs("\n    ", stdout);
    text_write_safe(stdout, place->path, false);
    fputc('\n', stdout);
}

static int print_list(struct session *session, const struct model_list *list) {
    int name_width = 4;
    for (size_t i = 0; i < list->n; i++) {
        const int n = (int)strnlen(list->items[i].name, 60);
        name_width = n > name_width ? n : name_width;
    }
    if (list->n > 0) {
        printf("%-*s  %-8s %9s %9s  %s\n", name_width, "NAME", "FAMILY", "PARAMS", "ON DISK", "LICENCE");
    }
    for (size_t i = 0; i < list->n; i++) {
        struct cyi_error problem = { 0 };
        if (session_open_path(session, list->items[i].path, &problem) == CYI_OK) {
            print_model(session, &list->items[i], name_width);
        } else {
            print_problem(&list->items[i], &problem);
        }
        session_close_model(session);
    }
    printf("%s\n", list->n > 0 ? "\nLooked in:" : "No models. Looked in:");
    for (size_t i = 0; i < list->n_folders; i++) {
        fputs("  ", stdout);
        text_write_safe(stdout, list->folders[i], false);
        fputs(files_is_folder(list->folders[i]) ? "\n" : "  (not there)\n", stdout);
    }
    return CLI_OK;
}

static int run(const struct command *command, int argc, char **argv) {
    struct models_options options = { .session = { .has_no_cache = true } };
    struct option_arguments arguments;
    struct session session = { 0 };
    struct model_list list = { 0 };
    struct cyi_error err = { 0 };
    enum cyi_status st = options_parse(command, argc, argv, &options, &arguments, &err);
    if (st == CYI_OK && arguments.wants_help) {
        options_print_help(command, stdout);
        return CLI_OK;
    }
    if (st != CYI_OK || (st = session_start(&options.session, &session, &err)) != CYI_OK) {
        return text_report(&err, st == CYI_E_ARGUMENT ? CLI_BAD_INPUT : CLI_FAILED);
    }
    model_search_find(NULL, &list);
    const int exit_code = options.is_json ? print_json(&session, &list) : print_list(&session, &list);
    model_search_done(&list);
    session_done(&session);
    return exit_code;
}

const struct command command_models = {
    .name = "models",
    .arguments = "",
    .summary = "list the models on this machine",
    .description =
        "Lists the models that are found, and says of each that cannot be used why. A model is a folder in diffusers\n"
        "layout (model_index.json) or a transformer as one .safetensors file. Looked at are: models/ in this folder,\n"
        "the folders of CYBERIMAGE_MODELS (colon-separated), $XDG_DATA_HOME/cyberimage/models or\n"
        "~/.local/share/cyberimage/models, models/ beside and above the program, and the Hugging Face cache\n"
        "(HF_HUB_CACHE, HF_HOME or ~/.cache/huggingface/hub).",
    .examples = "  cyberimage models\n  cyberimage models --json\n",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
    .max_arguments = 0,
    .argument_hint = "it takes none",
    .run = run,
};
