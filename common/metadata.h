/* metadata: what a picture says about itself. A recipe holds every setting that decides about its pixels; it is written into the file
 * twice, as JSON of our own (complete, read by verify) and as the "parameters" text that A1111 began and most programs read.
 *
 * Nothing in it depends on when or how fast a picture was made, so that the same recipe gives the same bytes. Input pictures are
 * known by their file name (without folders) and the SHA-256 of the file. */
#ifndef COMMON_METADATA_H
#define COMMON_METADATA_H

#include "files.h"

#include <jansson.h>

#define METADATA_FORMAT 1 /* "cyberimage": 1 in the JSON; raised when a reader must know better */

struct recipe_file {
    char *name; /* NULL: there is none */
    char sha256[FILES_SHA256_TEXT];
};

struct recipe {
    char *prompt;
    char *negative_prompt; /* NULL: none was given */
    int width, height;     /* pixels */
    int n_steps;
    double guidance;
    uint32_t seed;
    struct recipe_file references[CYI_MAX_REFERENCES];
    int n_references;
    struct recipe_file init, mask;
    double strength; /* with init */
    char *model_name, *model_family, *model_fingerprint;
    char *version; /* of the engine */
    char *backend, *backend_version, *isa, *precision;
    enum cyi_image_format format;
    int quality; /* 0 for PNG */
};

/* Frees what a recipe holds; a recipe of zeros is fine. */
void recipe_done(struct recipe *recipe);

/* The recipe as JSON object; the caller decrefs. */
json_t *recipe_to_json(const struct recipe *recipe);
/* The same as the compact text that goes into a file. A new string. */
char *recipe_to_text(const struct recipe *recipe);
/* Reads what recipe_to_text wrote, checking every field's type and bounds. Errors: FORMAT, with the field's name. */
enum cyi_status recipe_from_text(const char *text, struct recipe *ret_recipe, struct cyi_error *err);

/* The A1111 text: prompt, "Negative prompt: …", "Steps: …, Sampler: …". A new string. */
char *metadata_write_parameters(const struct recipe *recipe);
/* Reads such a text of any program into an object of strings: "prompt", "negative_prompt" (when there) and "settings", an object
 * with the names as they stand ("CFG scale"). Never fails: what is no setting is prompt. The caller decrefs. */
json_t *metadata_read_parameters(const char *text);

#endif
