/* What tests of models share: see model_test.h. */
#include "golden/model_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "io/mapped_file.h"

const struct variant variants[N_VARIANTS] = {
    { "reference", DTYPE_F32, 1e-9 },
    { "reference", DTYPE_BF16, 3e-4 },
    { "onednn", DTYPE_F32, 1e-9 },
    { "onednn", DTYPE_BF16, 3e-4 },
};

static struct backend *backend_make(const struct backend_kind *kind) {
    struct backend *backend = NULL;
    struct cyi_error err = { 0 };
    if (kind->create(&(struct backend_options){ .allocator = &mem_default_allocator, .n_threads = 2 }, &backend,
                     &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
    return backend;
}

bool exec_make(const struct variant *variant, struct exec *ret_ex) {
    const struct backend_kind *kind = backend_find(variant->backend);
    if (kind == NULL) {
        return false;
    }
    print_message("-- %s %s\n", variant->backend, dtype_name(variant->act_dtype));
    *ret_ex = (struct exec){ .act_dtype = variant->act_dtype, .allocator = &mem_default_allocator };
    ret_ex->backend = backend_make(kind);
    ret_ex->reference = backend_make(backend_find("reference"));
    assert_int_equal(arena_create(&mem_default_allocator, &ret_ex->arena, NULL), CYI_OK);
    return true;
}

void exec_done(struct exec *ex) {
    backend_free(ex->backend);
    backend_free(ex->reference);
    arena_free(ex->arena);
}

struct tensor golden_floats(struct exec *ex, const struct safetensors *golden, const char *name) {
    struct tensor from = golden_tensor(golden, name);
    struct tensor to;
    int64_t n = tensor_n_elements(&from);
    assert_int_equal(tensor_new(ex->arena, DTYPE_F32, from.rank, from.shape, &to, NULL), CYI_OK);
    for (int64_t i = 0; i < n; i++) {
        ((float *)to.data)[i] = dtype_load(from.dtype, from.data, i);
    }
    return to;
}

struct tensor golden_picture(struct exec *ex, const struct safetensors *golden, const char *name) {
    struct tensor from = golden_tensor(golden, name);
    struct tensor to;
    assert_int_equal(from.rank, 3);
    const int64_t shape[3] = { from.shape[1], from.shape[2], from.shape[0] };
    int64_t n_places = shape[0] * shape[1];
    assert_int_equal(tensor_new(ex->arena, DTYPE_F32, 3, shape, &to, NULL), CYI_OK);
    for (int64_t c = 0; c < shape[2]; c++) {
        for (int64_t i = 0; i < n_places; i++) {
            ((float *)to.data)[i * shape[2] + c] = dtype_load(from.dtype, from.data, c * n_places + i);
        }
    }
    return to;
}

static void check_stage(void *user, const char *stage, const struct tensor *value) {
    struct stage_check *check = user;
    struct exec scratch = { 0 };
    char name[160];
    (void)snprintf(name, sizeof name, "%s.%s", check->prefix, stage);
    if (safetensors_find(check->golden, name) == NULL) {
        return;
    }
    struct tensor expected = golden_tensor(check->golden, name);
    assert_int_equal(arena_create(&mem_default_allocator, &scratch.arena, NULL), CYI_OK);
    if (expected.rank == 3) {
        expected = golden_picture(&scratch, check->golden, name);
    }
    golden_check(name, value, &expected, check->limit);
    arena_free(scratch.arena);
    check->n_checked++;
}

void stage_check_attach(struct stage_check *check, struct exec *ex) {
    ex->observe = check_stage;
    ex->observe_user = check;
}

/* ---- Changed checkpoints ---- */

#define PATH_BYTES 4096
#define MAX_TENSORS 1000

/* STEM.safetensors with its change. */
static void copy_weights(const struct weight_set *set, const char *path, const struct checkpoint_edit *edit) {
    const struct safetensors *file = weight_set_file(set, 0);
    static const char *names[MAX_TENSORS];
    static struct tensor tensors[MAX_TENSORS];
    struct cyi_error err = { 0 };
    size_t n = 0;
    assert_true(safetensors_n_entries(file) <= MAX_TENSORS);
    for (size_t i = 0; i < safetensors_n_entries(file); i++) {
        const struct safetensors_entry *entry = safetensors_entry_at(file, i);
        struct tensor t = entry->tensor;
        if (!entry->is_usable || (edit->drop != NULL && strcmp(entry->name, edit->drop) == 0)) {
            continue;
        }
        if (edit->flat != NULL && strcmp(entry->name, edit->flat) == 0) {
            t = tensor_1d(t.dtype, tensor_n_elements(&t), t.data);
        }
        if (edit->bytes != NULL && strcmp(entry->name, edit->bytes) == 0) {
            t.dtype = DTYPE_U8;
        }
        names[n] = entry->name;
        tensors[n++] = t;
    }
    if (safetensors_write(&mem_default_allocator, path, names, tensors, n, &err) != CYI_OK) {
        fail_msg("%s", err.text);
    }
}

/* config.json with its change. */
static void copy_config(const char *from, const char *to, const struct checkpoint_edit *edit) {
    char *text = NULL;
    size_t size = 0;
    assert_int_equal(file_read_all(&mem_default_allocator, from, 65536, &text, &size, NULL), CYI_OK);
    FILE *file = fopen(to, "wb");
    assert_non_null(file);
    const char *at = edit->find == NULL ? NULL : strstr(text, edit->find);
    assert_true(edit->find == NULL || at != NULL);
    if (at == NULL) {
        assert_int_equal(fwrite(text, 1, size, file), size);
    } else {
        assert_true(fprintf(file, "%.*s%s%s", (int)(at - text), text, edit->change, at + strlen(edit->find)) > 0);
    }
    assert_int_equal(fclose(file), 0);
    mem_free(&mem_default_allocator, text);
}

const char *checkpoint_copy(const char *relative, const struct checkpoint_edit *edit) {
    static char folder[PATH_BYTES];
    char from[PATH_BYTES];
    char to[PATH_BYTES + 64];
    struct weight_set *set = NULL;
    const char *root = getenv("TMPDIR");
    (void)snprintf(folder, sizeof folder, "%s/cyi-test-XXXXXX", root != NULL ? root : P_tmpdir);
    assert_non_null(mkdtemp(folder));
    assert_int_equal(weight_set_open(&mem_default_allocator, fixture_path(relative), edit->stem, &set, NULL), CYI_OK);
    (void)snprintf(to, sizeof to, "%s/%s.safetensors", folder, edit->stem);
    copy_weights(set, to, edit);
    weight_set_close(set);
    (void)snprintf(from, sizeof from, "%s/config.json", relative);
    (void)snprintf(to, sizeof to, "%s/config.json", folder);
    copy_config(fixture_path(from), to, edit);
    return folder;
}

void checkpoint_delete(const char *path, const char *stem) {
    char file[PATH_BYTES];
    (void)snprintf(file, sizeof file, "%s/%s.safetensors", path, stem);
    assert_int_equal(unlink(file), 0);
    (void)snprintf(file, sizeof file, "%s/config.json", path);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(path), 0);
}
