/* safetensors, writing: see safetensors.h. The header is built as a JSON tree; data is written from where it lies. */
#include <string.h>

#include "core/size.h"
#include "io/json_text.h"
#include "io/safetensors.h"

#define LENGTH_BYTES 8

static json_t *make_entry(const struct tensor *t, size_t begin, size_t end) {
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++) {
        (void)json_array_append_new(shape, json_integer(t->shape[i]));
    }
    json_t *offsets = json_pack("[I, I]", (json_int_t)begin, (json_int_t)end);
    return json_pack("{s:s, s:o, s:o}", "dtype", dtype_name(t->dtype), "shape", shape, "data_offsets", offsets);
}

static enum cyi_status check_tensor(const char *name, const struct tensor *t, size_t end, struct cyi_error *err) {
    size_t sum;
    if (t->rank < 1 || t->rank > TENSOR_MAX_RANK || !tensor_is_packed(t)) {
        return error_set(err, CYI_E_ARGUMENT, "tensor \"%s\" is not packed and cannot be written", name);
    }
    if (!size_add(&sum, end, tensor_n_bytes(t)) || sum > INT64_MAX) {
        return error_set(err, CYI_E_ARGUMENT, "tensor \"%s\" makes the file too large", name);
    }
    return CYI_OK;
}

static enum cyi_status make_header(const char *const *names, const struct tensor *tensors, size_t n_tensors,
                                   json_t *root, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    size_t end = 0;
    for (size_t i = 0; i < n_tensors; i++) {
        TRY(check_tensor(names[i], &tensors[i], end, err));
        if (json_object_get(root, names[i]) != NULL) {
            return error_set(err, CYI_E_ARGUMENT, "two tensors are called \"%s\"", names[i]);
        }
        size_t begin = end;
        end += tensor_n_bytes(&tensors[i]);
        if (json_object_set_new(root, names[i], make_entry(&tensors[i], begin, end)) != 0) {
            return error_set(err, CYI_E_ARGUMENT, "the name \"%s\" cannot be written (not UTF-8, or no memory)",
                             names[i]);
        }
    }
done:
    return st;
}

static int append_text(const char *text, size_t size, void *user) {
    return byte_buffer_append(user, text, size, NULL) == CYI_OK ? 0 : -1;
}

/* The header as bytes, with its length in front and spaces behind, so that the data begins at a multiple of 8. */
static enum cyi_status encode_header(const json_t *root, struct byte_buffer *buffer, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    TRY(byte_buffer_append(buffer, NULL, LENGTH_BYTES, err));
    if (json_dump_callback(root, append_text, buffer, JSON_COMPACT) != 0) {
        st = error_memory(err, "the header of a safetensors file", buffer->size_bytes);
        goto done;
    }
    while (buffer->size_bytes % 8 != 0) {
        TRY(byte_buffer_append(buffer, " ", 1, err));
    }
    uint64_t length = buffer->size_bytes - LENGTH_BYTES;
    for (int i = 0; i < LENGTH_BYTES; i++) {
        buffer->data[i] = (uint8_t)(length >> 8 * i);
    }
done:
    return st;
}

enum cyi_status safetensors_write(const struct cyi_allocator *allocator, const char *path, const char *const *names,
                                  const struct tensor *tensors, size_t n_tensors, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct file_piece *pieces = NULL;
    struct byte_buffer header;
    json_t *root = json_object();
    byte_buffer_init(&header, allocator, SAFETENSORS_MAX_HEADER_BYTES);
    pieces = mem_alloc_zeroed(allocator, n_tensors + 1, sizeof *pieces);
    if (root == NULL || pieces == NULL) {
        st = error_memory(err, "a safetensors header", n_tensors * sizeof *pieces);
        goto done;
    }
    TRY(make_header(names, tensors, n_tensors, root, err));
    TRY(encode_header(root, &header, err));
    pieces[0] = (struct file_piece){ .data = header.data, .size_bytes = header.size_bytes };
    for (size_t i = 0; i < n_tensors; i++) {
        pieces[i + 1] = (struct file_piece){ .data = tensors[i].data, .size_bytes = tensor_n_bytes(&tensors[i]) };
    }
    TRY(file_write_pieces(allocator, path, pieces, n_tensors + 1, err));
done:
    json_decref(root);
    byte_buffer_done(&header);
    mem_free(allocator, pieces);
    return st;
}
