/* Where operations run: memory, recording and reports. See ops.h. */
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "ops/ops.h"

#define BLOCKS_UNDER_WAY 8 /* that a device may be behind the host */

static const struct device_vtable *device_of(const struct exec *ex) {
    return ex->device != NULL ? ex->backend->vtable->device : NULL;
}

static struct arena *arena_of(const struct exec *ex) {
    return ex->device != NULL ? ex->device : ex->arena;
}

/* ---- Memory ---- */

enum cyi_status exec_new(struct exec *ex, enum dtype dtype, int rank, const int64_t *shape, struct tensor *ret,
                         struct cyi_error *err) {
    return tensor_new(arena_of(ex), dtype, rank, shape, ret, err);
}

enum cyi_status exec_new_2d(struct exec *ex, enum dtype dtype, int64_t n_rows, int64_t n_cols, struct tensor *ret,
                            struct cyi_error *err) {
    return tensor_new_2d(arena_of(ex), dtype, n_rows, n_cols, ret, err);
}

enum cyi_status exec_mirror(struct exec *ex, const struct tensor *host, struct tensor *ret, struct cyi_error *err) {
    if (ex->device == NULL) {
        *ret = *host;
        return CYI_OK;
    }
    return tensor_new(ex->device, host->dtype, host->rank, host->shape, ret, err);
}

enum cyi_status exec_send(struct exec *ex, const struct tensor *host, struct tensor *ret, struct cyi_error *err) {
    enum cyi_status st = exec_mirror(ex, host, ret, err);
    if (st != CYI_OK || ex->device == NULL) {
        return st;
    }
    return device_of(ex)->upload(ex->backend, host, ret, err);
}

enum cyi_status exec_receive(struct exec *ex, const struct tensor *from, const struct tensor *host,
                             struct cyi_error *err) {
    return ex->device == NULL ? CYI_OK : device_of(ex)->download(ex->backend, from, host, err);
}

struct exec_mark exec_get_mark(const struct exec *ex) {
    struct exec_mark mark = { .host = arena_get_mark(ex->arena) };
    if (ex->device != NULL) {
        mark.device = arena_get_mark(ex->device);
    }
    return mark;
}

void exec_release(struct exec *ex, struct exec_mark mark) {
    arena_release(ex->arena, mark.host);
    if (ex->device != NULL) {
        arena_release(ex->device, mark.device);
    }
}

void exec_trim(struct exec *ex) {
    arena_trim(ex->arena);
    if (ex->device != NULL) {
        arena_trim(ex->device);
    }
}

/* ---- Devices ---- */

void exec_enter(struct exec *ex) {
    if (ex->device != NULL) {
        device_of(ex)->enter(ex->backend);
    }
}

enum cyi_status exec_begin_recording(struct exec *ex, uint64_t key, bool *ret_is_replayed, struct cyi_error *err) {
    *ret_is_replayed = false;
    if (ex->device == NULL || ex->observe != NULL) {
        return CYI_OK;
    }
    enum cyi_status st = device_of(ex)->begin_recording(ex->backend, key, ret_is_replayed, err);
    ex->is_recording = st == CYI_OK && !*ret_is_replayed;
    return st;
}

enum cyi_status exec_end_recording(struct exec *ex, enum cyi_status st, bool *ret_is_lost, struct cyi_error *err) {
    *ret_is_lost = false;
    if (!ex->is_recording) {
        return st;
    }
    ex->is_recording = false;
    enum cyi_status ended = device_of(ex)->end_recording(ex->backend, st == CYI_OK, ret_is_lost, err);
    return st != CYI_OK ? st : ended;
}

/* ---- Reports ---- */

enum cyi_status exec_report_block(struct exec *ex, int64_t n_done, int64_t n_all, struct cyi_error *err) {
    bool is_pause = n_done % BLOCKS_UNDER_WAY == 0 || n_done == n_all;
    if (ex->device != NULL && !ex->is_recording && is_pause) {
        enum cyi_status st = ex->backend->vtable->sync(ex->backend, err);
        if (st != CYI_OK) {
            return st;
        }
    }
    if (ex->on_block != NULL && !ex->on_block(ex->user, (float)n_done / (float)n_all)) {
        return error_set(err, CYI_E_CANCELLED, "cancelled");
    }
    return CYI_OK;
}

void exec_observe_host(struct exec *ex, const char *stage, int index, const struct tensor *value) {
    if (ex->observe == NULL) {
        return;
    }
    char name[96];
    const char *mark = strstr(stage, "%d");
    if (mark == NULL) {
        (void)snprintf(name, sizeof name, "%s", stage);
    } else {
        (void)snprintf(name, sizeof name, "%.*s%d%s", (int)(mark - stage), stage, index, mark + 2);
    }
    ex->observe(ex->observe_user, name, value);
}

void exec_observe(struct exec *ex, const char *stage, int index, const struct tensor *value) {
    if (ex->observe == NULL || ex->device == NULL) {
        exec_observe_host(ex, stage, index, value);
        return;
    }
    struct arena_mark mark = arena_get_mark(ex->arena);
    struct tensor copy;
    if (tensor_new(ex->arena, value->dtype, value->rank, value->shape, &copy, NULL) == CYI_OK &&
        exec_receive(ex, value, &copy, NULL) == CYI_OK) {
        exec_observe_host(ex, stage, index, &copy);
    }
    arena_release(ex->arena, mark);
}
