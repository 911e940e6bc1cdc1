/* SWIGLU, SILU, ADD, CAST, CHANNEL_AFFINE and EMBED on the card. */
#include <inttypes.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "core/size.h"

enum cyi_status cuda_swiglu(struct cuda *c, const struct swiglu_args *args, struct cyi_error *err) {
    (void)err;
    struct gpu_matrix gate = cuda_matrix(args->gate);
    struct gpu_matrix up = cuda_matrix(args->up);
    struct gpu_matrix y = cuda_matrix(args->y);
    struct gpu_codes codes;
    cuda_new_codes(c, args->y, &codes);
    gpu_swiglu(&gate, &up, &y, &codes, c->stream);
    return CYI_OK;
}

enum cyi_status cuda_silu(struct cuda *c, const struct silu_args *args, struct cyi_error *err) {
    (void)err;
    struct gpu_matrix x = cuda_matrix(args->x);
    struct gpu_matrix y = cuda_matrix(args->y);
    gpu_silu(&x, &y, c->stream);
    return CYI_OK;
}

enum cyi_status cuda_add(struct cuda *c, const struct add_args *args, struct cyi_error *err) {
    (void)err;
    struct gpu_matrix a = cuda_matrix(args->a);
    struct gpu_matrix b = cuda_matrix(args->b);
    struct gpu_matrix y = cuda_matrix(args->y);
    gpu_add(&a, &b, &y, c->stream);
    return CYI_OK;
}

enum cyi_status cuda_cast(struct cuda *c, const struct cast_args *args, struct cyi_error *err) {
    (void)err;
    struct gpu_matrix x = cuda_matrix(args->x);
    struct gpu_matrix y = cuda_matrix(args->y);
    gpu_cast(&x, &y, c->stream);
    return CYI_OK;
}

enum cyi_status cuda_channel_affine(struct cuda *c, const struct channel_affine_args *args, struct cyi_error *err) {
    (void)err;
    struct gpu_matrix x = cuda_matrix(args->x);
    struct gpu_matrix y = cuda_matrix(args->y);
    enum gpu_act act = args->act == ACT_SILU        ? GPU_ACT_SILU
                       : args->act == ACT_GELU_TANH ? GPU_ACT_GELU_TANH
                                                    : GPU_ACT_NONE;
    gpu_channel_affine(&x, args->scale->data, args->shift->data, act, &y, c->stream);
    return CYI_OK;
}

/* The rows that the ids name, packed, in the table's own type. */
static enum cyi_status gather_rows(const struct embed_args *args, uint8_t *rows, struct cyi_error *err) {
    const struct tensor *table = args->table;
    int64_t n_ids = tensor_n_elements(args->ids);
    int64_t n_rows = tensor_n_rows(table);
    size_t row_bytes = (size_t)tensor_n_cols(table) * dtype_size(table->dtype);
    for (int64_t i = 0; i < n_ids; i++) {
        int32_t id = ((const int32_t *)args->ids->data)[i];
        if (id < 0 || id >= n_rows) {
            return error_set(err, CYI_E_SHAPE,
                             "embed: id %" PRId32 " at place %" PRId64 " is not in a table of %" PRId64, id, i, n_rows);
        }
        memcpy(rows + (size_t)i * row_bytes, tensor_row(table, id), row_bytes);
    }
    return CYI_OK;
}

/* The table stays in the file: only the rows that are asked for travel. */
enum cyi_status cuda_embed(struct cuda *c, const struct embed_args *args, struct cyi_error *err) {
    struct gpu_matrix y = cuda_matrix(args->y);
    struct gpu_matrix rows = { NULL, cuda_type(args->table->dtype), y.n_rows, y.n_cols, y.n_cols };
    uint8_t *host = NULL;
    size_t n_bytes = 0;
    enum cyi_status st = CYI_OK;
    if (!size_mul3(&n_bytes, (size_t)y.n_rows, (size_t)y.n_cols, dtype_size(args->table->dtype))) {
        return error_memory(err, "the rows of a table", SIZE_MAX);
    }
    host = mem_alloc(c->allocator, n_bytes);
    if (host == NULL) {
        return error_memory(err, "the rows of a table", n_bytes);
    }
    TRY(gather_rows(args, host, err));
    TRY(cuda_new_scratch(c, n_bytes, &rows.data, err));
    TRY(cuda_upload_bytes(c, host, rows.data, n_bytes, err));
    gpu_cast(&rows, &y, c->stream);
done:
    mem_free(c->allocator, host);
    return st;
}
