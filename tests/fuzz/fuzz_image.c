/* Reading a picture file from memory: see fuzz_image.h. */
#include "fuzz_image.h"

#include <stdlib.h>
#include <string.h>

#include "io/image_file.h"

#define MAX_BLOCK_BYTES ((size_t)16 * 1024 * 1024) /* larger pictures only cost time */

static void *allocate(void *user, size_t size_bytes) {
    (void)user;
    return size_bytes <= MAX_BLOCK_BYTES ? malloc(size_bytes) : NULL;
}

static void release(void *user, void *block) {
    (void)user;
    free(block);
}

static void require(int condition) {
    if (!condition) {
        __builtin_trap();
    }
}

static void require_round_trip(const struct cyi_allocator *memory, const struct cyi_image *image,
                               const char *parameters, const char *json) {
    struct cyi_image_options options = { .format = CYI_FORMAT_PNG, .parameters = parameters, .json = json };
    void *png = NULL;
    size_t size = 0;
    struct cyi_image *again = NULL;
    char *same_parameters = NULL, *same_json = NULL;
    if (image_encode(memory, image, &options, &png, &size, NULL) == CYI_OK) {
        require(image_decode(memory, "ours", png, size, &again, NULL) == CYI_OK);
        require(again->width == image->width && again->height == image->height);
        require(memcmp(again->pixels, image->pixels, (size_t)image->width * (size_t)image->height * 3) == 0);
        require(image_read_texts(memory, "ours", png, size, &same_parameters, &same_json, NULL) == CYI_OK);
        require(parameters == NULL || strcmp(parameters, same_parameters) == 0);
        require(json == NULL || strcmp(json, same_json) == 0);
    }
    cyi_image_free(again);
    mem_free(memory, same_parameters);
    mem_free(memory, same_json);
    mem_free(memory, png);
}

void fuzz_image(const uint8_t *data, size_t size) {
    const struct cyi_allocator memory = { allocate, release, NULL };
    struct cyi_image *image = NULL, *alpha = NULL;
    struct cyi_error err = { 0 };
    char *parameters = NULL, *json = NULL;
    enum cyi_status st = image_read_texts(&memory, "input", data, size, &parameters, &json, &err);
    require((st == CYI_OK) == (err.code == CYI_OK));
    err.code = CYI_OK;
    st = image_decode(&memory, "input", data, size, &image, &err);
    require((st == CYI_OK) == (err.code == CYI_OK) && (st == CYI_OK) == (image != NULL));
    err.code = CYI_OK;
    st = image_decode_alpha(&memory, "input", data, size, &alpha, &err);
    require((st == CYI_OK) == (err.code == CYI_OK) && (alpha == NULL || image == NULL || alpha->width == image->width));
    if (image != NULL) {
        require_round_trip(&memory, image, parameters, json);
    }
    cyi_image_free(image);
    cyi_image_free(alpha);
    mem_free(&memory, parameters);
    mem_free(&memory, json);
}
