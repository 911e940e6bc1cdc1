/* Binding weights: see weights.h. */
#include "models/weights.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAME 256

/* A row's name without its chunk, the index put in. */
static void expand_name(const char *prefix, const char *name, int index, char text[MAX_NAME]) {
    int length = (int)strcspn(name, "#");
    const char *mark = strstr(name, "%d");
    if (mark == NULL) {
        (void)snprintf(text, MAX_NAME, "%s%.*s", prefix, length, name);
    } else {
        int head = (int)(mark - name);
        (void)snprintf(text, MAX_NAME, "%s%.*s%d%.*s", prefix, head, name, index, length - head - 2, mark + 2);
    }
}

const struct tensor *weights_peek(const struct weight_set *set, const char *prefix, const char *name, int index) {
    char text[MAX_NAME];
    expand_name(prefix, name, index, text);
    const struct safetensors_entry *entry = weight_set_find(set, text);
    return entry != NULL && entry->is_usable ? &entry->tensor : NULL;
}

/* The shape that a row asks for, in numbers. */
struct wanted_shape {
    int rank;
    int64_t size[TENSOR_MAX_RANK];
    bool drops_ones; /* "1*" */
};

static struct wanted_shape read_shape(const char *text, const struct weight_dims *dims) {
    struct wanted_shape want = { 0 };
    assert(text[0] == '[');
    while (*text != ']') {
        char *end;
        text++;
        int64_t size = strtol(text, &end, 10);
        bool has_number = end != text;
        text = end;
        if (*text == '*') {
            want.drops_ones = true;
            text++;
            break;
        }
        if (*text != ',' && *text != ']') {
            size = (has_number ? size : 1) * dims->value[*text & 127];
            text++;
        }
        assert(want.rank < TENSOR_MAX_RANK);
        want.size[want.rank++] = size;
    }
    assert(*text == ']' && want.rank > 0);
    return want;
}

/* Chunk i of n of the outermost dimension, as "#i/n" behind the name says. false: it cannot be cut like that. */
static bool cut_chunk(const char *name, struct tensor *t) {
    const char *mark = strchr(name, '#');
    if (mark == NULL) {
        return true;
    }
    char *end;
    int64_t i = strtol(mark + 1, &end, 10);
    int64_t n = strtol(end + 1, NULL, 10);
    assert(*end == '/' && i >= 0 && i < n);
    if (t->shape[0] % n != 0) {
        return false;
    }
    size_t chunk_bytes = (size_t)(tensor_n_elements(t) / n) * dtype_size(t->dtype);
    t->data = (uint8_t *)t->data + (size_t)i * chunk_bytes;
    t->shape[0] /= n;
    if (t->rank == 1) {
        t->row_stride = t->shape[0];
    }
    return true;
}

static void drop_ones(struct tensor *t, int rank) {
    while (t->rank > rank && t->shape[t->rank - 1] == 1) {
        t->rank--;
    }
    t->row_stride = tensor_n_cols(t);
}

static bool has_shape(const struct tensor *t, const struct wanted_shape *want) {
    if (t->rank != want->rank) {
        return false;
    }
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] != want->size[i]) {
            return false;
        }
    }
    return true;
}

static bool is_floating(const struct safetensors_entry *entry) {
    return entry->is_usable && entry->tensor.dtype <= DTYPE_F8_E5M2;
}

static enum cyi_status refuse_shape(const struct weight_set *set, const struct safetensors_entry *entry,
                                    const char *chunk, const struct wanted_shape *want, struct cyi_error *err) {
    char have_text[96];
    char want_text[96] = "";
    size_t used = 0;
    for (int i = 0; i < want->rank; i++) {
        int n = snprintf(want_text + used, sizeof want_text - used, "%s%" PRId64, i == 0 ? "[" : ", ", want->size[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    return error_set(err, CYI_E_SHAPE, "%s: tensor %s is %s, but the model needs %s]%s%s", weight_set_path(set),
                     entry->name, tensor_describe(&entry->tensor, have_text, sizeof have_text), want_text,
                     chunk == NULL ? "" : " for its chunk ", chunk == NULL ? "" : chunk + 1);
}

static enum cyi_status refuse_missing(const struct weight_set *set, const char *name, const char *alt,
                                      struct cyi_error *err) {
    if (alt[0] == '\0' || strcmp(alt, name) == 0) {
        return error_set(err, CYI_E_FORMAT, "%s: tensor %s is missing", weight_set_path(set), name);
    }
    return error_set(err, CYI_E_FORMAT, "%s: tensor %s (or %s) is missing", weight_set_path(set), name, alt);
}

static enum cyi_status bind_row(const struct weight_set *set, const char *prefix, const struct weight_row *row,
                                int index, const struct weight_dims *dims, struct tensor *field,
                                struct cyi_error *err) {
    char text[MAX_NAME];
    char alt_text[MAX_NAME] = "";
    const char *name = row->name;
    expand_name(prefix, row->name, index, text);
    const struct safetensors_entry *entry = weight_set_find(set, text);
    if (entry == NULL && row->alt != NULL) {
        name = row->alt;
        expand_name(prefix, row->alt, index, alt_text);
        entry = weight_set_find(set, alt_text);
    }
    if (entry == NULL) {
        return row->is_optional ? CYI_OK : refuse_missing(set, text, alt_text, err);
    }
    if (!is_floating(entry)) {
        return error_set(err, CYI_E_DTYPE, "%s: tensor %s is %s, but the model needs a floating type",
                         weight_set_path(set), entry->name,
                         entry->is_usable ? dtype_name(entry->tensor.dtype)
                                          : "of a type that the engine does not compute with");
    }
    struct wanted_shape want = read_shape(row->shape, dims);
    struct tensor t = entry->tensor;
    bool is_cut = cut_chunk(name, &t);
    if (want.drops_ones) {
        drop_ones(&t, want.rank);
    }
    if (!is_cut || !has_shape(&t, &want)) {
        return refuse_shape(set, entry, strchr(name, '#'), &want, err);
    }
    *field = t;
    return CYI_OK;
}

enum cyi_status weights_bind(const struct weight_set *set, const char *prefix, const struct weight_row *rows,
                             size_t n_rows, int index, const struct weight_dims *dims, void *base,
                             struct cyi_error *err) {
    for (size_t i = 0; i < n_rows; i++) {
        struct tensor *field = (void *)((uint8_t *)base + rows[i].field);
        enum cyi_status st = bind_row(set, prefix, &rows[i], index, dims, field, err);
        if (st != CYI_OK) {
            return st;
        }
    }
    return CYI_OK;
}
