/* safetensors, reading: see safetensors.h.
 *
 * The file is 8 bytes with the header's length, the header (JSON), the data. Everything that outlives the JSON tree
 * (names, entries, metadata) lies in one arena that dies with the file. Entries stand in the order of their offsets; a
 * second list of pointers is sorted by name. */
#include "io/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/size.h"
#include "io/json_text.h"

#define LENGTH_BYTES ((size_t)8)
#define MAX_RANK 32 /* of tensors that are only checked; those in use have TENSOR_MAX_RANK at most */
#define AT_TENSOR "%s: tensor \"%.100s\": " /* begins every message about one tensor */

struct metadata_row {
    const char *key, *value;
};

struct safetensors {
    const struct cyi_allocator *allocator;
    struct arena *arena;
    struct mapped_file *mapping; /* NULL when parsed from memory */
    const char *name;
    const uint8_t *bytes; /* the whole file */
    size_t size_bytes;
    size_t header_bytes;
    struct safetensors_entry *entries;        /* [n_entries] by offset */
    const struct safetensors_entry **by_name; /* [n_entries] */
    size_t n_entries;
    struct metadata_row *metadata;
    size_t n_metadata;
};

/* Every type that the format has. Those that the engine does not compute with are checked like the others. */
struct format_dtype {
    const char *name;
    size_t n_bits;
    bool is_usable;
    enum dtype dtype;
};

static const struct format_dtype format_dtypes[] = {
    { "F32", 32, true, DTYPE_F32 },        { "F16", 16, true, DTYPE_F16 },        { "BF16", 16, true, DTYPE_BF16 },
    { "F8_E4M3", 8, true, DTYPE_F8_E4M3 }, { "F8_E5M2", 8, true, DTYPE_F8_E5M2 }, { "U8", 8, true, DTYPE_U8 },
    { "I32", 32, true, DTYPE_I32 },        { "I64", 64, true, DTYPE_I64 },        { "BOOL", 8, false, DTYPE_U8 },
    { "I8", 8, false, DTYPE_U8 },          { "F8_E8M0", 8, false, DTYPE_U8 },     { "F4", 4, false, DTYPE_U8 },
    { "F6_E2M3", 6, false, DTYPE_U8 },     { "F6_E3M2", 6, false, DTYPE_U8 },     { "I16", 16, false, DTYPE_U8 },
    { "U16", 16, false, DTYPE_U8 },        { "U32", 32, false, DTYPE_U8 },        { "F64", 64, false, DTYPE_U8 },
    { "U64", 64, false, DTYPE_U8 },        { "C64", 64, false, DTYPE_U8 },
};

static const struct format_dtype *find_format_dtype(const char *name) {
    for (size_t i = 0; name != NULL && i < sizeof format_dtypes / sizeof format_dtypes[0]; i++) {
        if (strcmp(format_dtypes[i].name, name) == 0) {
            return &format_dtypes[i];
        }
    }
    return NULL;
}

/* The engine's views are not const; the mapping behind them is read-only all the same. */
static void *view_bytes(const uint8_t *bytes) {
    void *view;
    memcpy(&view, &bytes, sizeof view);
    return view;
}

static void *allocate(struct safetensors *file, size_t n, size_t size_bytes, struct cyi_error *err) {
    void *block = arena_alloc(file->arena, n, size_bytes);
    if (block == NULL) {
        (void)error_memory(err, "the header of a safetensors file", file->header_bytes);
    }
    return block;
}

static const char *copy_text(struct safetensors *file, const char *text, struct cyi_error *err) {
    size_t size = strlen(text) + 1;
    char *copy = allocate(file, size, 1, err);
    return copy == NULL ? NULL : memcpy(copy, text, size);
}

/* ---- One entry ---- */

/* Fills the shape and counts the elements, both checked. Shapes of higher rank than the engine's are only counted. */
static enum cyi_status read_shape(const struct safetensors *file, const json_t *value, struct safetensors_entry *entry,
                                  size_t *ret_n, struct cyi_error *err) {
    const json_t *shape = json_object_get(value, "shape");
    size_t rank = json_array_size(shape);
    size_t n = 1;
    if (!json_is_array(shape) || rank > MAX_RANK) {
        return error_set(err, CYI_E_FORMAT, AT_TENSOR "shape is not a list of at most %d numbers", file->name,
                         entry->name, MAX_RANK);
    }
    entry->tensor.rank = rank == 0 ? 1 : (int)(rank <= TENSOR_MAX_RANK ? rank : 0);
    entry->tensor.shape[0] = 1;
    for (size_t i = 0; i < rank; i++) {
        const json_t *item = json_array_get(shape, i);
        if (!json_is_integer(item) || json_integer_value(item) < 0) {
            return error_set(err, CYI_E_FORMAT, AT_TENSOR "shape[%zu] is not a number from 0 on", file->name,
                             entry->name, i);
        }
        if (!size_mul(&n, n, (size_t)json_integer_value(item)) || n > INT64_MAX) {
            return error_set(err, CYI_E_FORMAT, AT_TENSOR "the product of its shape overflows", file->name,
                             entry->name);
        }
        if (rank <= TENSOR_MAX_RANK) {
            entry->tensor.shape[i] = json_integer_value(item);
        }
    }
    *ret_n = n;
    return CYI_OK;
}

/* Offsets count from the end of the header; those of the entry from the start of the file. */
static enum cyi_status read_offsets(const struct safetensors *file, const json_t *value,
                                    struct safetensors_entry *entry, struct cyi_error *err) {
    const json_t *offsets = json_object_get(value, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0);
    const json_t *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end)) {
        return error_set(err, CYI_E_FORMAT, AT_TENSOR "data_offsets is not a list of two whole numbers", file->name,
                         entry->name);
    }
    int64_t first = json_integer_value(begin);
    int64_t behind = json_integer_value(end);
    if (first < 0 || first > behind) {
        return error_set(err, CYI_E_FORMAT, AT_TENSOR "data_offsets [%" PRId64 ", %" PRId64 "] are not in order",
                         file->name, entry->name, first, behind);
    }
    size_t data_start = LENGTH_BYTES + file->header_bytes;
    if ((size_t)behind > file->size_bytes - data_start) {
        return error_set(err, CYI_E_FORMAT,
                         AT_TENSOR "data_offsets end at %" PRId64 ", past the end of the file's %zu bytes of data",
                         file->name, entry->name, behind, file->size_bytes - data_start);
    }
    entry->offset_bytes = data_start + (size_t)first;
    entry->size_bytes = (size_t)(behind - first);
    return CYI_OK;
}

static enum cyi_status read_entry(struct safetensors *file, const char *name, const json_t *value,
                                  struct safetensors_entry *entry, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    size_t n_elements = 0;
    size_t n_bits;
    *entry = (struct safetensors_entry){ .name = copy_text(file, name, err) };
    if (entry->name == NULL) {
        return CYI_E_MEMORY;
    }
    if (!json_is_object(value)) {
        return error_set(err, CYI_E_FORMAT, AT_TENSOR "its entry is not an object", file->name, name);
    }
    const char *dtype_text = json_string_value(json_object_get(value, "dtype"));
    const struct format_dtype *type = find_format_dtype(dtype_text);
    if (type == NULL) {
        return error_set(err, CYI_E_FORMAT, AT_TENSOR "unknown dtype \"%.20s\"", file->name, name,
                         dtype_text == NULL ? "" : dtype_text);
    }
    TRY(read_shape(file, value, entry, &n_elements, err));
    TRY(read_offsets(file, value, entry, err));
    if (!size_mul(&n_bits, n_elements, type->n_bits) || n_bits % 8 != 0 || n_bits / 8 != entry->size_bytes) {
        return error_set(err, CYI_E_FORMAT, AT_TENSOR "%zu bytes of data do not fit %zu elements of %s", file->name,
                         name, entry->size_bytes, n_elements, type->name);
    }
    entry->is_usable = type->is_usable && entry->tensor.rank > 0;
    entry->tensor.dtype = type->dtype;
    entry->tensor.row_stride = entry->tensor.rank > 0 ? tensor_n_cols(&entry->tensor) : 0;
    entry->tensor.data = view_bytes(file->bytes + entry->offset_bytes);
done:
    return st;
}

/* ---- The header ---- */

static enum cyi_status read_metadata(struct safetensors *file, json_t *object, struct cyi_error *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(object)) {
        return error_set(err, CYI_E_FORMAT, "%s: __metadata__ is not an object", file->name);
    }
    file->metadata = allocate(file, json_object_size(object), sizeof *file->metadata, err);
    if (file->metadata == NULL) {
        return CYI_E_MEMORY;
    }
    json_object_foreach(object, key, value) {
        if (!json_is_string(value)) {
            return error_set(err, CYI_E_FORMAT, "%s: __metadata__ \"%.100s\" is not a string", file->name, key);
        }
        struct metadata_row row = { copy_text(file, key, err), copy_text(file, json_string_value(value), err) };
        if (row.key == NULL || row.value == NULL) {
            return CYI_E_MEMORY;
        }
        file->metadata[file->n_metadata++] = row;
    }
    return CYI_OK;
}

static enum cyi_status read_entries(struct safetensors *file, json_t *root, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    const char *name;
    json_t *value;
    size_t n = json_object_size(root);
    if (n > SAFETENSORS_MAX_TENSORS + 1) {
        return error_set(err, CYI_E_FORMAT, "%s: the header has %zu tensors, more than the limit of %d", file->name, n,
                         SAFETENSORS_MAX_TENSORS);
    }
    file->entries = allocate(file, n, sizeof *file->entries, err);
    file->by_name = allocate(file, n, sizeof *file->by_name, err);
    if (file->entries == NULL || file->by_name == NULL) {
        return CYI_E_MEMORY;
    }
    json_object_foreach(root, name, value) {
        if (strcmp(name, "__metadata__") == 0) {
            TRY(read_metadata(file, value, err));
        } else {
            TRY(read_entry(file, name, value, &file->entries[file->n_entries], err));
            file->n_entries++;
        }
    }
done:
    return st;
}

/* Entries of no bytes may share their offset with the one behind them. */
static int compare_offsets(const void *left, const void *right) {
    const struct safetensors_entry *a = left;
    const struct safetensors_entry *b = right;
    if (a->offset_bytes != b->offset_bytes) {
        return a->offset_bytes < b->offset_bytes ? -1 : 1;
    }
    if (a->size_bytes != b->size_bytes) {
        return a->size_bytes < b->size_bytes ? -1 : 1;
    }
    return strcmp(a->name, b->name);
}

static int compare_names(const void *left, const void *right) {
    const struct safetensors_entry *const *a = left;
    const struct safetensors_entry *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

/* Sorts the entries and checks that their data fills the file from the header to the end. */
static enum cyi_status order_entries(struct safetensors *file, struct cyi_error *err) {
    size_t start = LENGTH_BYTES + file->header_bytes;
    size_t expected = start;
    if (file->n_entries > 0) {
        qsort(file->entries, file->n_entries, sizeof *file->entries, compare_offsets);
    }
    for (size_t i = 0; i < file->n_entries; i++) {
        const struct safetensors_entry *entry = &file->entries[i];
        if (entry->offset_bytes != expected) {
            return error_set(err, CYI_E_FORMAT, AT_TENSOR "its data begins at %zu, but %s at %zu", file->name,
                             entry->name, entry->offset_bytes - start,
                             i == 0 ? "the first data must begin" : "the data before it ends", expected - start);
        }
        expected += entry->size_bytes;
        file->by_name[i] = entry;
    }
    if (expected != file->size_bytes) {
        return error_set(err, CYI_E_FORMAT, "%s: the data of its tensors ends at byte %zu, the file at byte %zu",
                         file->name, expected, file->size_bytes);
    }
    if (file->n_entries > 0) {
        qsort(file->by_name, file->n_entries, sizeof *file->by_name, compare_names);
    }
    return CYI_OK;
}

static enum cyi_status check_header_length(struct safetensors *file, struct cyi_error *err) {
    if (file->size_bytes < LENGTH_BYTES) {
        return error_set(err, CYI_E_FORMAT, "%s: %zu bytes are too few for the header's length", file->name,
                         file->size_bytes);
    }
    uint64_t length = 0;
    for (size_t i = LENGTH_BYTES; i-- > 0;) {
        length = length << 8 | file->bytes[i];
    }
    if (length > SAFETENSORS_MAX_HEADER_BYTES) {
        return error_set(err, CYI_E_FORMAT, "%s: the header's length is %" PRIu64 " bytes, the limit is %" PRIu64,
                         file->name, length, SAFETENSORS_MAX_HEADER_BYTES);
    }
    if (length > file->size_bytes - LENGTH_BYTES) {
        return error_set(err, CYI_E_FORMAT, "%s: the header's %" PRIu64 " bytes do not fit the file's %zu", file->name,
                         length, file->size_bytes);
    }
    if (length == 0 || file->bytes[LENGTH_BYTES] != '{') {
        return error_set(err, CYI_E_FORMAT, "%s: the header does not begin with {", file->name);
    }
    file->header_bytes = (size_t)length;
    return CYI_OK;
}

enum cyi_status safetensors_parse(const struct cyi_allocator *allocator, const char *name, const void *data,
                                  size_t size_bytes, struct safetensors **ret_file, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    json_t *root = NULL;
    struct safetensors *file = mem_alloc_zeroed(allocator, 1, sizeof *file);
    if (file == NULL) {
        return error_memory(err, "a safetensors file", sizeof *file);
    }
    *file = (struct safetensors){ .allocator = allocator, .bytes = data, .size_bytes = size_bytes };
    TRY(arena_create(allocator, &file->arena, err));
    file->name = copy_text(file, name, err);
    if (file->name == NULL) {
        st = CYI_E_MEMORY;
        goto done;
    }
    TRY(check_header_length(file, err));
    TRY(json_text_parse(name, (const char *)file->bytes + LENGTH_BYTES, file->header_bytes, &root, err));
    TRY(read_entries(file, root, err));
    TRY(order_entries(file, err));
    *ret_file = file;
    file = NULL;
done:
    json_decref(root);
    safetensors_close(file);
    return st;
}

enum cyi_status safetensors_open(const struct cyi_allocator *allocator, const char *path, struct safetensors **ret_file,
                                 struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct mapped_file *mapping = NULL;
    struct safetensors *file = NULL;
    TRY(mapped_file_open(allocator, path, &mapping, err));
    TRY(safetensors_parse(allocator, path, mapped_file_data(mapping), mapped_file_size(mapping), &file, err));
    file->mapping = mapping;
    mapping = NULL;
    *ret_file = file;
done:
    mapped_file_close(mapping);
    return st;
}

void safetensors_close(struct safetensors *file) {
    if (file == NULL) {
        return;
    }
    mapped_file_close(file->mapping);
    arena_free(file->arena);
    mem_free(file->allocator, file);
}

/* ---- Asking ---- */

size_t safetensors_n_entries(const struct safetensors *file) {
    return file->n_entries;
}

const struct safetensors_entry *safetensors_entry_at(const struct safetensors *file, size_t i) {
    return &file->entries[i];
}

static int compare_to_name(const void *name, const void *row) {
    const struct safetensors_entry *const *entry = row;
    return strcmp(name, (*entry)->name);
}

const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name) {
    const struct safetensors_entry *const *row = NULL;
    if (file->n_entries > 0) {
        row = bsearch(name, file->by_name, file->n_entries, sizeof *file->by_name, compare_to_name);
    }
    return row == NULL ? NULL : *row;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key) {
    for (size_t i = 0; i < file->n_metadata; i++) {
        if (strcmp(file->metadata[i].key, key) == 0) {
            return file->metadata[i].value;
        }
    }
    return NULL;
}

const char *safetensors_path(const struct safetensors *file) {
    return file->name;
}

const void *safetensors_header(const struct safetensors *file, size_t *ret_size) {
    *ret_size = file->header_bytes;
    return file->bytes + LENGTH_BYTES;
}

const struct mapped_file *safetensors_mapping(const struct safetensors *file) {
    return file->mapping;
}
