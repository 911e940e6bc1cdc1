/* Weight sets: declared in safetensors.h. One file, or shards under an index that says which tensor is where. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "core/size.h"
#include "io/json_text.h"
#include "io/safetensors.h"

#define INDEX_MAX_BYTES ((size_t)64 * 1024 * 1024)
#define MAX_SHARDS 1000
#define SAMPLE_BYTES ((size_t)2048) /* of each end of a tensor, for the fingerprint */

struct weight_set {
    const struct cyi_allocator *allocator;
    char *path;
    struct safetensors **files; /* [n_files] in the order of their names */
    size_t n_files;
    const struct safetensors_entry **by_name; /* [n_named] what the index names; NULL for one file */
    size_t n_named;
};

void weight_set_close(struct weight_set *set) {
    if (set == NULL) {
        return;
    }
    for (size_t i = 0; i < set->n_files; i++) {
        safetensors_close(set->files[i]);
    }
    mem_free(set->allocator, set->files);
    mem_free(set->allocator, set->by_name);
    mem_free(set->allocator, set->path);
    mem_free(set->allocator, set);
}

static enum cyi_status open_single(struct weight_set *set, const char *path, struct cyi_error *err) {
    set->files = mem_alloc_zeroed(set->allocator, 1, sizeof *set->files);
    if (set->files == NULL) {
        return error_memory(err, "a list of files", sizeof *set->files);
    }
    enum cyi_status st = safetensors_open(set->allocator, path, &set->files[0], err);
    set->n_files = st == CYI_OK ? 1 : 0;
    return st;
}

/* ---- Shards ---- */

static int compare_texts(const void *left, const void *right) {
    const char *const *a = left;
    const char *const *b = right;
    return strcmp(*a, *b);
}

static bool is_plain_name(const char *name) {
    return name[0] != '\0' && strchr(name, '/') == NULL && strchr(name, '\\') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* Every shard that the map names, once, sorted. names: as many pointers as the map has entries. */
static enum cyi_status list_shards(const char *index_path, json_t *map, const char **names, size_t *ret_n,
                                   struct cyi_error *err) {
    const char *tensor;
    json_t *value;
    size_t n = 0;
    json_object_foreach(map, tensor, value) {
        const char *name = json_string_value(value);
        if (name == NULL || !is_plain_name(name)) {
            return error_set(err, CYI_E_FORMAT, "%s: tensor \"%.100s\": its shard \"%.100s\" is not a plain file name",
                             index_path, tensor, name == NULL ? "" : name);
        }
        names[n++] = name;
    }
    qsort(names, n, sizeof *names, compare_texts);
    size_t n_unique = 0;
    for (size_t i = 0; i < n; i++) {
        if (n_unique == 0 || strcmp(names[n_unique - 1], names[i]) != 0) {
            names[n_unique++] = names[i];
        }
    }
    if (n_unique > MAX_SHARDS) {
        return error_set(err, CYI_E_FORMAT, "%s: names %zu shards, more than the limit of %d", index_path, n_unique,
                         MAX_SHARDS);
    }
    *ret_n = n_unique;
    return CYI_OK;
}

static enum cyi_status open_shard(struct weight_set *set, const char *index_path, const char *name,
                                  struct cyi_error *err) {
    char *path = path_join(set->allocator, set->path, name);
    enum cyi_status st = CYI_OK;
    if (path == NULL) {
        return error_memory(err, "the path of a shard", strlen(name));
    }
    if (!file_exists(path)) {
        st = error_set(err, CYI_E_IO, "%s: the shard %s is missing", index_path, name);
    } else {
        st = safetensors_open(set->allocator, path, &set->files[set->n_files], err);
    }
    set->n_files += st == CYI_OK ? 1 : 0;
    mem_free(set->allocator, path);
    return st;
}

static int compare_to_text(const void *name, const void *row) {
    const char *const *text = row;
    return strcmp(name, *text);
}

static int compare_entries(const void *left, const void *right) {
    const struct safetensors_entry *const *a = left;
    const struct safetensors_entry *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

/* Finds every tensor of the map in its shard. names: the n_files shards, sorted. */
static enum cyi_status find_named(struct weight_set *set, const char *index_path, json_t *map, const char **names,
                                  struct cyi_error *err) {
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value) {
        const char *shard = json_string_value(value);
        const char **row = bsearch(shard, names, set->n_files, sizeof *names, compare_to_text);
        const struct safetensors_entry *entry = safetensors_find(set->files[row - names], tensor);
        if (entry == NULL) {
            return error_set(err, CYI_E_FORMAT, "%s: tensor \"%.100s\" is not in its shard %s", index_path, tensor,
                             shard);
        }
        set->by_name[set->n_named++] = entry;
    }
    qsort(set->by_name, set->n_named, sizeof *set->by_name, compare_entries);
    return CYI_OK;
}

static enum cyi_status open_shards(struct weight_set *set, const char *index_path, json_t *map, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    size_t n_tensors = json_object_size(map);
    size_t n_shards = 0;
    if (n_tensors == 0 || n_tensors > SAFETENSORS_MAX_TENSORS) {
        return error_set(err, CYI_E_FORMAT, "%s: weight_map is not an object of 1 to %d tensors", index_path,
                         SAFETENSORS_MAX_TENSORS);
    }
    const char **names = mem_alloc_zeroed(set->allocator, n_tensors, sizeof *names);
    set->by_name = mem_alloc_zeroed(set->allocator, n_tensors, sizeof *set->by_name);
    if (names == NULL || set->by_name == NULL) {
        st = error_memory(err, "the index of a weight set", n_tensors * sizeof *names);
        goto done;
    }
    TRY(list_shards(index_path, map, names, &n_shards, err));
    set->files = mem_alloc_zeroed(set->allocator, n_shards, sizeof *set->files);
    if (set->files == NULL) {
        st = error_memory(err, "a list of files", n_shards * sizeof *set->files);
        goto done;
    }
    for (size_t i = 0; i < n_shards; i++) {
        TRY(open_shard(set, index_path, names[i], err));
    }
    TRY(find_named(set, index_path, map, names, err));
done:
    mem_free(set->allocator, names);
    return st;
}

static enum cyi_status open_index(struct weight_set *set, const char *index_path, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    json_t *root = NULL;
    char *text = NULL;
    size_t size = 0;
    TRY(file_read_all(set->allocator, index_path, INDEX_MAX_BYTES, &text, &size, err));
    TRY(json_text_parse(index_path, text, size, &root, err));
    TRY(open_shards(set, index_path, json_object_get(root, "weight_map"), err));
done:
    json_decref(root);
    mem_free(set->allocator, text);
    return st;
}

/* ---- Opening ---- */

/* folder/STEM + ending, released with mem_free. */
static char *stem_path(const struct weight_set *set, const char *stem, const char *ending) {
    size_t folder_size = strlen(set->path);
    size_t stem_size = strlen(stem);
    size_t ending_size = strlen(ending) + 1;
    char *path = mem_alloc(set->allocator, folder_size + 1 + stem_size + ending_size);
    if (path != NULL) {
        memcpy(path, set->path, folder_size);
        path[folder_size] = '/';
        memcpy(path + folder_size + 1, stem, stem_size);
        memcpy(path + folder_size + 1 + stem_size, ending, ending_size);
    }
    return path;
}

static enum cyi_status open_folder(struct weight_set *set, const char *stem, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    char *single = stem_path(set, stem, ".safetensors");
    char *index = stem_path(set, stem, ".safetensors.index.json");
    if (single == NULL || index == NULL) {
        st = error_memory(err, "the path of a weight file", strlen(set->path) + strlen(stem));
    } else if (file_exists(single)) {
        st = open_single(set, single, err);
    } else if (file_exists(index)) {
        st = open_index(set, index, err);
    } else {
        st = error_set(err, CYI_E_IO, "%s: holds neither %s.safetensors nor %s.safetensors.index.json", set->path, stem,
                       stem);
    }
    mem_free(set->allocator, single);
    mem_free(set->allocator, index);
    return st;
}

enum cyi_status weight_set_open(const struct cyi_allocator *allocator, const char *path, const char *stem,
                                struct weight_set **ret_set, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    struct weight_set *set = mem_alloc_zeroed(allocator, 1, sizeof *set);
    if (set == NULL) {
        return error_memory(err, "a weight set", sizeof *set);
    }
    set->allocator = allocator;
    set->path = mem_copy_string(allocator, path);
    if (set->path == NULL) {
        st = error_memory(err, "the path of a weight set", strlen(path) + 1);
        goto done;
    }
    if (folder_exists(path)) {
        TRY(open_folder(set, stem, err));
    } else {
        TRY(open_single(set, path, err));
    }
    *ret_set = set;
    set = NULL;
done:
    weight_set_close(set);
    return st;
}

/* ---- Asking ---- */

size_t weight_set_n_files(const struct weight_set *set) {
    return set->n_files;
}

const struct safetensors *weight_set_file(const struct weight_set *set, size_t i) {
    return set->files[i];
}

static int compare_to_entry(const void *name, const void *row) {
    const struct safetensors_entry *const *entry = row;
    return strcmp(name, (*entry)->name);
}

const struct safetensors_entry *weight_set_find(const struct weight_set *set, const char *name) {
    if (set->by_name == NULL) {
        return safetensors_find(set->files[0], name);
    }
    const struct safetensors_entry *const *row =
        bsearch(name, set->by_name, set->n_named, sizeof *set->by_name, compare_to_entry);
    return row == NULL ? NULL : *row;
}

bool weight_set_has(const struct weight_set *set, const char *name) {
    return weight_set_find(set, name) != NULL;
}

const char *weight_set_path(const struct weight_set *set) {
    return set->path;
}

uint64_t weight_set_mapped_bytes(const struct weight_set *set) {
    uint64_t sum = 0;
    for (size_t i = 0; i < set->n_files; i++) {
        sum += mapped_file_size(safetensors_mapping(set->files[i]));
    }
    return sum;
}

static bool is_floating(const struct safetensors_entry *entry) {
    enum dtype dtype = entry->tensor.dtype;
    return entry->is_usable && dtype != DTYPE_U8 && dtype != DTYPE_I32 && dtype != DTYPE_I64;
}

uint64_t weight_set_n_parameters(const struct weight_set *set) {
    uint64_t sum = 0;
    for (size_t i = 0; i < set->n_files; i++) {
        for (size_t k = 0; k < safetensors_n_entries(set->files[i]); k++) {
            const struct safetensors_entry *entry = safetensors_entry_at(set->files[i], k);
            sum += is_floating(entry) ? (uint64_t)tensor_n_elements(&entry->tensor) : 0;
        }
    }
    return sum;
}

/* ---- Fingerprint ---- */

/* The whole of a small tensor, else both ends. */
static void hash_entry(crypto_hash_sha256_state *hash, const struct safetensors_entry *entry) {
    const uint8_t *bytes = entry->tensor.data;
    if (entry->size_bytes <= 2 * SAMPLE_BYTES) {
        (void)crypto_hash_sha256_update(hash, bytes, entry->size_bytes);
        return;
    }
    (void)crypto_hash_sha256_update(hash, bytes, SAMPLE_BYTES);
    (void)crypto_hash_sha256_update(hash, bytes + (entry->size_bytes - SAMPLE_BYTES), SAMPLE_BYTES);
}

void weight_set_fingerprint(const struct weight_set *set, char hex[65]) {
    crypto_hash_sha256_state hash;
    unsigned char digest[crypto_hash_sha256_BYTES];
    (void)crypto_hash_sha256_init(&hash);
    for (size_t i = 0; i < set->n_files; i++) {
        size_t header_bytes;
        const void *header = safetensors_header(set->files[i], &header_bytes);
        (void)crypto_hash_sha256_update(&hash, header, header_bytes);
        for (size_t k = 0; k < safetensors_n_entries(set->files[i]); k++) {
            hash_entry(&hash, safetensors_entry_at(set->files[i], k));
        }
    }
    (void)crypto_hash_sha256_final(&hash, digest);
    (void)sodium_bin2hex(hex, 65, digest, sizeof digest);
}
