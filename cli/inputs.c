/* Input pictures: see inputs.h. */
#include "inputs.h"

#include <stdlib.h>
#include <string.h>

enum cyi_status inputs_load(struct cyi_engine *engine, const char *option, const char *path, const char *sha256,
                            struct input *ret_input, struct cyi_error *err) {
    struct input input = { 0 };
    struct cyi_error problem = { 0 };
    void *data = NULL;
    size_t size_bytes = 0;
    enum cyi_status st = files_read(path, CYI_MAX_IMAGE_FILE_BYTES, &data, &size_bytes, &problem);
    if (st == CYI_OK) {
        files_hash(data, size_bytes, input.file.sha256);
        if (sha256 != NULL && strcmp(sha256, input.file.sha256) != 0) {
            st = text_error(err, CYI_E_ARGUMENT,
                            "%s: %.200s is another file than the one used (SHA-256 %.12s…, not %.12s…)", option, path,
                            input.file.sha256, sha256);
        }
    }
    if (st == CYI_OK) {
        st = cyi_image_decode(engine, data, size_bytes, &input.image, &problem);
    }
    free(data);
    if (st != CYI_OK) {
        return text_error(err, st, "%s: %.200s: %.250s", option, path, problem.text);
    }
    input.file.name = text_copy(files_base_name(path));
    *ret_input = input;
    return CYI_OK;
}

static void clear_input(struct input *input) {
    cyi_image_free(input->image);
    free(input->file.name);
    *input = (struct input){ 0 };
}

void inputs_done(struct inputs *inputs) {
    for (int i = 0; i < CYI_MAX_REFERENCES; i++) {
        clear_input(&inputs->references[i]);
    }
    clear_input(&inputs->init);
    clear_input(&inputs->mask);
    inputs->n_references = 0;
}

void inputs_attach(const struct inputs *inputs, const struct cyi_image *references[CYI_MAX_REFERENCES],
                   struct cyi_request *request) {
    for (int i = 0; i < inputs->n_references; i++) {
        references[i] = inputs->references[i].image;
    }
    request->references = inputs->n_references > 0 ? references : NULL;
    request->n_references = inputs->n_references;
    request->init = inputs->init.image;
    request->mask = inputs->mask.image;
}
