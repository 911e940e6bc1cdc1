/* Naming and saving pictures: see output.h. */
#include "output.h"

#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_QUALITY 92

static enum cyi_image_format parse_format(const char *format) {
    return format == NULL                ? CYI_FORMAT_BY_NAME
           : strcmp(format, "png") == 0  ? CYI_FORMAT_PNG
           : strcmp(format, "webp") == 0 ? CYI_FORMAT_WEBP
                                         : CYI_FORMAT_JPEG;
}

/* A file that is to be replaced must be an ordinary one: renaming over a device or a pipe would destroy it. */
static enum cyi_status check_target(const char *path, bool may_exist, struct cyi_error *err) {
    struct stat info;
    if (lstat(path, &info) != 0) {
        return errno == ENOENT ? CYI_OK
                               : text_error(err, CYI_E_IO, "--output: cannot use %.300s: %s", path, strerror(errno));
    }
    if (!may_exist) {
        return text_error(err, CYI_E_IO, "--output: %.300s exists already, and only a file named exactly is replaced",
                          path);
    }
    if (!S_ISREG(info.st_mode)) {
        return text_error(err, CYI_E_IO, "--output: %.300s exists and is no ordinary file", path);
    }
    return CYI_OK;
}

static enum cyi_status check_names(const struct output *output, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    if (output->n_pictures == 1) {
        return check_target(output->file, true, err);
    }
    for (int i = 0; i < output->n_pictures && st == CYI_OK; i++) {
        char *path = files_numbered(output->file, i + 1);
        st = check_target(path, false, err);
        free(path);
    }
    return st;
}

static enum cyi_status plan_file(const char *argument, struct output *output, struct cyi_error *err) {
    const enum cyi_image_format by_name = files_format_of(argument);
    if (by_name == CYI_FORMAT_BY_NAME) {
        return text_error(err, CYI_E_ARGUMENT,
                          "--output: %.200s is no folder, and as a file it must end in .png, .jpg, .jpeg or .webp",
                          argument);
    }
    if (output->format != CYI_FORMAT_BY_NAME && output->format != by_name) {
        return text_error(err, CYI_E_ARGUMENT, "--format %s does not go with the ending of --output %.200s",
                          files_format_name(output->format), argument);
    }
    output->format = by_name;
    output->file = argument;
    output->folder = files_folder_of(argument);
    return CYI_OK;
}

/* A folder that does not exist yet is made with the first picture; what it will stand in must be writable now. */
static enum cyi_status check_folder(const struct output *output, struct cyi_error *err) {
    char *folder = text_copy(output->folder);
    while (output->makes_folder && !files_exists(folder) && strcmp(folder, ".") != 0) {
        const size_t n = strlen(folder);
        if (n > 1 && folder[n - 1] == '/') {
            folder[n - 1] = '\0';
            continue;
        }
        char *above = files_folder_of(folder);
        free(folder);
        folder = above;
    }
    struct cyi_error problem = { 0 };
    enum cyi_status st = files_check_writable(folder, 0, &problem);
    if (st != CYI_OK) {
        st = text_error(err, st, "--output: %.480s", problem.text);
    }
    free(folder);
    return st;
}

enum cyi_status output_plan(const char *argument, const char *format, int quality, int n_pictures,
                            struct output *ret_output, struct cyi_error *err) {
    struct output output = { .format = parse_format(format), .n_pictures = n_pictures };
    const size_t n = argument != NULL ? strlen(argument) : 0;
    const bool is_folder = argument == NULL || (n > 0 && argument[n - 1] == '/') || files_is_folder(argument);
    enum cyi_status st = CYI_OK;
    if (argument != NULL && n == 0) {
        return text_error(err, CYI_E_ARGUMENT, "--output: the name is empty");
    }
    if (is_folder) {
        output.folder = text_copy(argument != NULL ? argument : ".");
        output.makes_folder = argument != NULL && !files_is_folder(argument);
    } else {
        st = plan_file(argument, &output, err);
    }
    if (st == CYI_OK && output.format == CYI_FORMAT_BY_NAME) {
        output.format = CYI_FORMAT_PNG;
    }
    if (st == CYI_OK && output.format == CYI_FORMAT_PNG && quality != OPTION_UNSET) {
        st = text_error(err, CYI_E_ARGUMENT, "--quality goes with jpg and webp; png keeps every pixel as it is");
    }
    if (st == CYI_OK) {
        output.quality = output.format == CYI_FORMAT_PNG ? 0 : quality != OPTION_UNSET ? quality : DEFAULT_QUALITY;
        st = check_folder(&output, err);
    }
    if (st == CYI_OK && output.file != NULL) {
        st = check_names(&output, err);
    }
    if (st != CYI_OK) {
        output_done(&output);
        return st;
    }
    *ret_output = output;
    return CYI_OK;
}

void output_done(struct output *output) {
    free(output->folder);
    *output = (struct output){ 0 };
}

/* "neon-20261124-153012-seed42": only characters that are harmless in file names everywhere. A new string. */
static char *make_stem(const struct recipe *recipe) {
    char stamp[32] = "";
    const time_t now = time(NULL);
    struct tm local;
    if (localtime_r(&now, &local) != NULL) {
        (void)strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &local);
    }
    char *stem = text_format("%.60s-%s-seed%lu", recipe->model_name, stamp, (unsigned long)recipe->seed);
    for (char *c = stem; *c != '\0'; c++) {
        const bool is_fine = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                             *c == '-' || *c == '_' || (*c == '.' && c > stem);
        *c = is_fine ? *c : '_';
    }
    return stem;
}

enum cyi_status output_save(const struct output *output, struct cyi_engine *engine, const struct cyi_image *image,
                            const struct recipe *recipe, int i, char **ret_path, struct cyi_error *err) {
    char *parameters = metadata_write_parameters(recipe);
    char *json = recipe_to_text(recipe);
    const struct cyi_image_options options = {
        .format = output->format, .quality = output->quality, .parameters = parameters, .json = json
    };
    const char *ending = files_format_ending(output->format);
    enum cyi_status st = CYI_OK;
    char *path = NULL;
    if (output->makes_folder) {
        st = files_make_folder(output->folder, 0777, err);
    }
    if (st != CYI_OK) {
        path = NULL;
    } else if (output->file != NULL) {
        path = output->n_pictures == 1 ? text_copy(output->file) : files_numbered(output->file, i + 1);
        st = cyi_image_save(engine, image, path, &options, err);
    } else {
        char *hidden = text_format(".cyberimage-%ld-%d%s", (long)getpid(), i, ending);
        char *temporary = files_join(output->folder, hidden);
        char *stem = make_stem(recipe);
        st = cyi_image_save(engine, image, temporary, &options, err);
        if (st == CYI_OK) {
            path = files_publish(temporary, output->folder, stem, ending, err);
            st = path != NULL ? CYI_OK : err->code;
        }
        free(stem);
        free(temporary);
        free(hidden);
    }
    free(json);
    free(parameters);
    if (st != CYI_OK) {
        free(path);
        return st;
    }
    *ret_path = path;
    return CYI_OK;
}
