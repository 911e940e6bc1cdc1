/* The public picture calls: thin wrappers that bring the engine's allocator to io/image_file. */
#include "io/image_file.h"
#include "io/mapped_file.h"
#include "pipeline/engine.h"

enum cyi_status cyi_image_load(struct cyi_engine *engine, const char *path, struct cyi_image **ret_image,
                               struct cyi_error *err) {
    return image_load(&engine->allocator, path, ret_image, err);
}

enum cyi_status cyi_image_decode(struct cyi_engine *engine, const void *data, size_t size_bytes,
                                 struct cyi_image **ret_image, struct cyi_error *err) {
    return image_decode(&engine->allocator, "the picture", data, size_bytes, ret_image, err);
}

enum cyi_status cyi_image_decode_alpha(struct cyi_engine *engine, const void *data, size_t size_bytes,
                                       struct cyi_image **ret_alpha, struct cyi_error *err) {
    return image_decode_alpha(&engine->allocator, "the picture", data, size_bytes, ret_alpha, err);
}

enum cyi_status cyi_image_decode_texts(struct cyi_engine *engine, const void *data, size_t size_bytes,
                                       char **ret_parameters, char **ret_json, struct cyi_error *err) {
    return image_read_texts(&engine->allocator, "the picture", data, size_bytes, ret_parameters, ret_json, err);
}

enum cyi_status cyi_image_encode(struct cyi_engine *engine, const struct cyi_image *image,
                                 const struct cyi_image_options *options, void **ret_data, size_t *ret_size_bytes,
                                 struct cyi_error *err) {
    struct cyi_image_options filled = options != NULL ? *options : (struct cyi_image_options){ 0 };
    if (filled.format == CYI_FORMAT_BY_NAME) {
        filled.format = CYI_FORMAT_PNG;
    }
    return image_encode(&engine->allocator, image, &filled, ret_data, ret_size_bytes, err);
}

enum cyi_status cyi_image_save(struct cyi_engine *engine, const struct cyi_image *image, const char *path,
                               const struct cyi_image_options *options, struct cyi_error *err) {
    return image_save(&engine->allocator, image, path, options, err);
}

enum cyi_status cyi_image_read_texts(struct cyi_engine *engine, const char *path, char **ret_parameters,
                                     char **ret_json, struct cyi_error *err) {
    char *data = NULL;
    size_t size_bytes = 0;
    enum cyi_status st = file_read_all(&engine->allocator, path, CYI_MAX_IMAGE_FILE_BYTES, &data, &size_bytes, err);
    if (st == CYI_OK) {
        st = image_read_texts(&engine->allocator, path, data, size_bytes, ret_parameters, ret_json, err);
    }
    mem_free(&engine->allocator, data);
    return st;
}

enum cyi_status cyi_image_create(struct cyi_engine *engine, int width, int height, int n_channels,
                                 struct cyi_image **ret_image, struct cyi_error *err) {
    return image_create(&engine->allocator, width, height, n_channels, ret_image, err);
}
