/* inputs: pictures that go into a picture (references, the one to start from, the mask), read once, decoded and hashed. */
#ifndef CLI_INPUTS_H
#define CLI_INPUTS_H

#include "metadata.h"

struct input {
    struct cyi_image *image; /* NULL: there is none */
    struct recipe_file file;
};

struct inputs {
    struct input references[CYI_MAX_REFERENCES];
    int n_references;
    struct input init, mask;
};

/* Loads one picture. option stands in sentences ("--init"); sha256, when not NULL, is what the file must have.
 * Errors: IO, FORMAT, MEMORY, ARGUMENT (another SHA-256). */
enum cyi_status inputs_load(struct cyi_engine *engine, const char *option, const char *path, const char *sha256,
                            struct input *ret_input, struct cyi_error *err);
void inputs_done(struct inputs *inputs);

/* Points the request at the pictures; references is the request's array and must live as long as the request. */
void inputs_attach(const struct inputs *inputs, const struct cyi_image *references[CYI_MAX_REFERENCES],
                   struct cyi_request *request);

#endif
