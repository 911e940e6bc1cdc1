/* output: where pictures go. Decides folder, name and format before the run, checks that writing will work, and saves so that a
 * file is there complete or not at all and none is lost:
 *   a FILE that the user named is replaced when it exists; with --count N the names are FILE-1 … FILE-N, which must be free;
 *   in a folder the name is MODEL-DATE-TIME-seedSEED, with -2, -3 … behind it until it is free. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include "metadata.h"

struct output {
    const char *file; /* as named by the user, or NULL */
    char *folder;
    bool makes_folder; /* it does not exist yet and is made with the first picture */
    enum cyi_image_format format;
    int quality; /* 0 for PNG */
    int n_pictures;
};

/* argument is --output or NULL, format "png", "jpg", "webp" or NULL, quality OPTION_UNSET or 1…100.
 * Errors: ARGUMENT (name, ending and format do not go together), IO (folder missing or read-only, names taken). */
enum cyi_status output_plan(const char *argument, const char *format, int quality, int n_pictures,
                            struct output *ret_output, struct cyi_error *err);
void output_done(struct output *output);

/* Saves picture i (from 0). Returns the file's name (a new string) in ret_path. Errors: IO, MEMORY. */
enum cyi_status output_save(const struct output *output, struct cyi_engine *engine, const struct cyi_image *image,
                            const struct recipe *recipe, int i, char **ret_path, struct cyi_error *err);

#endif
