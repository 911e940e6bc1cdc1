/* CONV2D, channels last. The output is cut into tiles by the shapes alone. A task gathers the input of its tile, after affine part,
 * activation, upsampling and padding, into a patch that stays in its cache, convolves it without padding on one thread, and finishes
 * the tile (bias, residual, rounding). Output channels go in chunks, each with weights packed once and kept by the backend. */
#include "backend/onednn/onednn.h"

#define TILE_COLUMNS 64
#define TILE_BYTES (1280 * 1024) /* patch and product of a task, about */
#define O_CHUNK 256              /* output channels at a time */
#define ENOUGH_TASKS 16
#define MIN_TILE_ROWS 4
#define FLOATS 1024 /* of a block on the stack */

struct conv_job {
    const struct conv2d_args *a;
    enum dtype dtype; /* that is multiplied */
    const float *bias, *scale, *shift;
    int64_t channels, outputs, kernel_rows, kernel_cols;
    int64_t rows, cols; /* of y */
    int64_t tile_rows, tile_cols, n_tiles_x, n_tiles_y;
    int64_t o_chunk, n_o;
    const struct shim_op *ops[2][2][2]; /* [last tile row][last tile column][last chunk of outputs] */
    const void **packed;                /* weights for every operation: [8][n_o], NULL where it is not used */
    size_t op_scratch;
};

static int64_t last_part(int64_t n, int64_t part) {
    return n - (divide_up(n, part) - 1) * part;
}

/* How much input an output of n pixels needs. */
static int64_t get_extent(const struct conv_job *job, int64_t n, int64_t kernel) {
    return (n - 1) * job->a->stride + kernel;
}

/* ---- Gathering ---- */

/* n pixels in a row of x, prepared, into `to`. */
static void gather_pixels(const struct conv_job *job, const struct kernels *k, const void *from, int64_t n, void *to) {
    const struct conv2d_args *a = job->a;
    int64_t c = job->channels;
    size_t from_size = dtype_size(a->x->dtype);
    size_t to_size = dtype_size(job->dtype);
    if (a->scale == NULL && a->x->dtype == job->dtype) {
        memcpy(to, from, (size_t)(n * c) * to_size);
        return;
    }
    if (a->scale != NULL) {
        k->affine_pixels(a->x->dtype, from, job->scale, job->shift, a->in_act, job->dtype, to, c, n);
        return;
    }
    for (int64_t first = 0; first < n * c; first += FLOATS) {
        float values[FLOATS];
        int64_t part = min_i64(FLOATS, n * c - first);
        k->load(a->x->dtype, (const uint8_t *)from + (size_t)first * from_size, values, part);
        k->store(job->dtype, values, (uint8_t *)to + (size_t)first * to_size, part);
    }
}

/* n pixels of row y of the (upsampled) input, from column x on, which may lie outside. */
static void gather_row(const struct conv_job *job, const struct kernels *k, int64_t y, int64_t x, int64_t n,
                       uint8_t *to) {
    const struct conv2d_args *a = job->a;
    size_t pixel = (size_t)job->channels * dtype_size(job->dtype);
    size_t from_pixel = (size_t)job->channels * dtype_size(a->x->dtype);
    int64_t up = a->upsample;
    int64_t first = min_i64(max_i64(0, -x), n); /* columns before it are padding */
    int64_t end = max_i64(first, min_i64(n, a->x->shape[1] * up - x));
    if (y < 0 || y >= a->x->shape[0] * up) {
        memset(to, 0, (size_t)n * pixel);
        return;
    }
    const uint8_t *from = (const uint8_t *)a->x->data + (size_t)(y / up * a->x->shape[1]) * from_pixel;
    memset(to, 0, (size_t)first * pixel);
    memset(to + (size_t)end * pixel, 0, (size_t)(n - end) * pixel);
    if (up == 1) {
        gather_pixels(job, k, from + (size_t)(x + first) * from_pixel, end - first, to + (size_t)first * pixel);
        return;
    }
    for (int64_t i = first; i < end; i++) {
        if (i > first && (x + i) / up == (x + i - 1) / up) {
            memcpy(to + (size_t)i * pixel, to + (size_t)(i - 1) * pixel, pixel);
        } else {
            gather_pixels(job, k, from + (size_t)((x + i) / up) * from_pixel, 1, to + (size_t)i * pixel);
        }
    }
}

/* The input of the tile whose first output is (row, col). */
static void gather_patch(const struct conv_job *job, const struct kernels *k, int64_t row, int64_t col, int64_t n_rows,
                         int64_t n_cols, uint8_t *patch) {
    const struct conv2d_args *a = job->a;
    int64_t height = get_extent(job, n_rows, job->kernel_rows);
    int64_t width = get_extent(job, n_cols, job->kernel_cols);
    size_t row_bytes = (size_t)(width * job->channels) * dtype_size(job->dtype);
    int64_t top = row * a->stride - a->pad_top;
    int64_t left = col * a->stride - a->pad_left;
    int64_t limit = a->x->shape[0] * a->upsample;
    for (int64_t i = 0; i < height; i++) {
        int64_t y = top + i;
        if (i > 0 && y > 0 && y < limit && y / a->upsample == (y - 1) / a->upsample) {
            memcpy(patch + (size_t)i * row_bytes, patch + (size_t)(i - 1) * row_bytes, row_bytes);
        } else {
            gather_row(job, k, y, left, width, patch + (size_t)i * row_bytes);
        }
    }
}

/* ---- A tile ---- */

struct conv_scratch {
    void *op;
    uint8_t *patch;
    float *tile; /* [pixels, o_chunk] */
};

static struct conv_scratch carve_conv(const struct conv_job *job, struct carve *carve) {
    struct conv_scratch s = { .op = carve_take(carve, 1, job->op_scratch) };
    int64_t patch =
        get_extent(job, job->tile_rows, job->kernel_rows) * get_extent(job, job->tile_cols, job->kernel_cols);
    s.patch = carve_take(carve, patch * job->channels, dtype_size(job->dtype));
    s.tile = carve_take(carve, job->tile_rows * job->tile_cols * job->o_chunk, sizeof(float));
    return s;
}

static void finish_tile(const struct conv_job *job, const struct kernels *k, const float *tile, int64_t row,
                        int64_t col, int64_t n_rows, int64_t n_cols, int64_t first_o, int64_t n_o) {
    const struct conv2d_args *a = job->a;
    size_t size = dtype_size(a->y->dtype);
    struct row_finish finish = { .act = ACT_NONE, .out = a->y->dtype };
    finish.bias = job->bias == NULL ? NULL : job->bias + first_o;
    for (int64_t i = 0; i < n_rows; i++) {
        for (int64_t j = 0; j < n_cols; j++) {
            size_t at = (size_t)(((row + i) * job->cols + col + j) * job->outputs + first_o) * size;
            finish.y = (uint8_t *)a->y->data + at;
            finish.residual = a->residual == NULL ? NULL : (const uint8_t *)a->residual->data + at;
            k->finish(tile + (i * n_cols + j) * n_o, &finish, n_o);
        }
    }
}

static enum cyi_status run_tile(const void *context, int64_t task, struct lane *lane) {
    const struct conv_job *job = context;
    struct carve carve = { .at = lane->scratch };
    struct conv_scratch s = carve_conv(job, &carve);
    int64_t row = task / job->n_tiles_x * job->tile_rows;
    int64_t col = task % job->n_tiles_x * job->tile_cols;
    int64_t n_rows = min_i64(job->tile_rows, job->rows - row);
    int64_t n_cols = min_i64(job->tile_cols, job->cols - col);
    int last_row = n_rows < job->tile_rows;
    int last_col = n_cols < job->tile_cols;
    gather_patch(job, lane->kernels, row, col, n_rows, n_cols, s.patch);
    for (int64_t o = 0; o < job->n_o; o++) {
        int64_t first_o = o * job->o_chunk;
        int64_t n_o = min_i64(job->o_chunk, job->outputs - first_o);
        int last_o = n_o < job->o_chunk;
        const struct shim_op *op = job->ops[last_row][last_col][last_o];
        const void *weights = job->packed[(last_row * 4 + last_col * 2 + last_o) * job->n_o + o];
        enum cyi_status st = shim_run(op, lane->stream, s.patch, weights, s.tile, s.op, &lane->err);
        if (st != CYI_OK) {
            return st;
        }
        finish_tile(job, lane->kernels, s.tile, row, col, n_rows, n_cols, first_o, n_o);
    }
    return CYI_OK;
}

/* ---- Preparing ---- */

/* Tiles of about TILE_BYTES, smaller where there would be too few of them. */
static void choose_tiles(struct conv_job *job) {
    job->o_chunk = min_i64(O_CHUNK, job->outputs);
    job->n_o = divide_up(job->outputs, job->o_chunk);
    int64_t pixel_bytes = job->channels * (int64_t)dtype_size(job->dtype) + job->o_chunk * (int64_t)sizeof(float);
    int64_t pixels = min_i64(max_i64(TILE_BYTES / pixel_bytes, 64), 2048);
    job->tile_cols = divide_up(job->cols, divide_up(job->cols, TILE_COLUMNS));
    job->n_tiles_x = divide_up(job->cols, job->tile_cols);
    job->tile_rows = min_i64(max_i64(1, pixels / job->tile_cols), job->rows);
    while (job->tile_rows > MIN_TILE_ROWS && job->n_tiles_x * divide_up(job->rows, job->tile_rows) < ENOUGH_TASKS) {
        job->tile_rows = max_i64(MIN_TILE_ROWS, job->tile_rows / 2);
    }
    job->n_tiles_y = divide_up(job->rows, job->tile_rows);
}

static enum cyi_status prepare_ops(struct onednn *b, struct conv_job *job, struct cyi_error *err) {
    for (int i = 0; i < 8; i++) {
        int64_t n_rows = i / 4 % 2 == 1 ? last_part(job->rows, job->tile_rows) : job->tile_rows;
        int64_t n_cols = i / 2 % 2 == 1 ? last_part(job->cols, job->tile_cols) : job->tile_cols;
        struct shim_spec spec = {
            .kind = SHIM_CONV, .weights = SHIM_PACKED, .in = (int32_t)job->dtype, .out = DTYPE_F32
        };
        spec.kernel_rows = (int32_t)job->kernel_rows;
        spec.kernel_cols = (int32_t)job->kernel_cols;
        spec.stride = job->a->stride;
        spec.n = i % 2 == 1 ? last_part(job->outputs, job->o_chunk) : job->o_chunk;
        spec.k = job->channels;
        spec.rows = get_extent(job, n_rows, job->kernel_rows);
        spec.cols = get_extent(job, n_cols, job->kernel_cols);
        const struct shim_op **op = &job->ops[i / 4][i / 2 % 2][i % 2];
        enum cyi_status st = onednn_prepare(b, &spec, op, err);
        if (st != CYI_OK) {
            return st;
        }
        size_t scratch = shim_op_get_scratch(*op);
        job->op_scratch = scratch > job->op_scratch ? scratch : job->op_scratch;
    }
    return CYI_OK;
}

/* A hash of all the bytes: weights of another model, or numbers that were edited in place, must never be taken for those that were
 * packed. Four chains, so that it runs at the speed of memory. */
static uint64_t get_fingerprint(const uint8_t *data, size_t size_bytes) {
    uint64_t hash[4] = { 0x9e3779b97f4a7c15U, 0xbf58476d1ce4e5b9U, 0x94d049bb133111ebU, size_bytes };
    size_t i = 0;
    for (; size_bytes - i >= sizeof hash; i += sizeof hash) {
        uint64_t words[4];
        memcpy(words, data + i, sizeof words);
        for (int j = 0; j < 4; j++) {
            hash[j] = (hash[j] ^ words[j]) * 0x9fb21c651e98df25U;
            hash[j] ^= hash[j] >> 32;
        }
    }
    for (; i < size_bytes; i++) {
        hash[0] = (hash[0] ^ data[i]) * 1099511628211U;
    }
    for (int j = 1; j < 4; j++) {
        hash[0] = (hash[0] ^ hash[j]) * 0x9fb21c651e98df25U;
        hash[0] ^= hash[0] >> 32;
    }
    return hash[0];
}

/* Weights of n_o outputs from any type into the operation's layout. */
static enum cyi_status pack_weights(struct onednn *b, const struct conv_job *job, const struct shim_op *op,
                                    const uint8_t *source, int64_t n_o, void *packed, struct cyi_error *err) {
    enum dtype from = job->a->weight->dtype;
    int64_t n = n_o * job->channels * job->kernel_rows * job->kernel_cols;
    size_t to_size = dtype_size(job->dtype);
    struct block plain = { 0 };
    struct block scratch = { 0 };
    enum cyi_status st;
    TRY(onednn_reserve(b, &plain, (size_t)n * to_size, err));
    TRY(onednn_reserve(b, &scratch, shim_op_get_scratch(op), err));
    for (int64_t first = 0; first < n; first += FLOATS) {
        float values[FLOATS];
        int64_t part = min_i64(FLOATS, n - first);
        b->kernels->load(from, source + (size_t)first * dtype_size(from), values, part);
        b->kernels->store(job->dtype, values, plain.start + (size_t)first * to_size, part);
    }
    TRY(shim_pack(op, b->lanes[0].stream, plain.start, packed, scratch.start, err));
done:
    onednn_release(b, &plain);
    onednn_release(b, &scratch);
    return st;
}

/* Packed weights of a chunk of outputs: those at hand, or new ones. */
static enum cyi_status get_packed(struct onednn *b, const struct conv_job *job, const struct shim_op *op,
                                  const uint8_t *source, uint64_t fingerprint, int64_t n_o, const void **ret_packed,
                                  struct cyi_error *err) {
    enum dtype dtype = job->a->weight->dtype;
    struct packed_weights *entry = NULL;
    for (size_t i = 0; i < b->n_packed; i++) {
        struct packed_weights *p = &b->packed[i];
        if (p->source == source && p->dtype == dtype && shim_op_shares_packed(p->op, op)) {
            entry = p;
        }
    }
    if (entry != NULL && entry->fingerprint == fingerprint) {
        *ret_packed = entry->block.start;
        return CYI_OK;
    }
    enum cyi_status st;
    if (entry == NULL) {
        void *array = b->packed;
        st = onednn_grow(b, &array, &b->packed_capacity, b->n_packed, sizeof *b->packed, err);
        b->packed = array;
        if (st != CYI_OK) {
            return st;
        }
        entry = &b->packed[b->n_packed];
        *entry = (struct packed_weights){ .source = source, .dtype = dtype, .op = op };
        st = onednn_reserve(b, &entry->block, shim_op_get_packed(op), err);
        if (st != CYI_OK) {
            return st;
        }
        b->n_packed++;
    }
    entry->fingerprint = ~fingerprint; /* not those, should packing fail */
    st = pack_weights(b, job, op, source, n_o, entry->block.start, err);
    if (st == CYI_OK) {
        entry->fingerprint = fingerprint;
        *ret_packed = entry->block.start;
    }
    return st;
}

static enum cyi_status prepare_weights(struct onednn *b, struct conv_job *job, struct cyi_error *err) {
    int64_t per_output = job->channels * job->kernel_rows * job->kernel_cols;
    size_t output_bytes = (size_t)per_output * dtype_size(job->a->weight->dtype);
    for (int64_t o = 0; o < job->n_o; o++) {
        int64_t first_o = o * job->o_chunk;
        int64_t n_o = min_i64(job->o_chunk, job->outputs - first_o);
        const uint8_t *source = (const uint8_t *)job->a->weight->data + (size_t)first_o * output_bytes;
        uint64_t fingerprint = get_fingerprint(source, (size_t)n_o * output_bytes);
        for (int i = 0; i < 8; i++) {
            const void **packed = &job->packed[i * job->n_o + o];
            const struct shim_op *op = job->ops[i / 4][i / 2 % 2][i % 2];
            *packed = NULL;
            if (i % 2 == (n_o < job->o_chunk)) {
                enum cyi_status st = get_packed(b, job, op, source, fingerprint, n_o, packed, err);
                if (st != CYI_OK) {
                    return st;
                }
            }
        }
    }
    return CYI_OK;
}

/* A convolution that is a matrix product over pixels. */
static bool is_linear(const struct conv2d_args *a) {
    return a->weight->shape[2] == 1 && a->weight->shape[3] == 1 && a->scale == NULL && a->upsample == 1 &&
           a->stride == 1 && a->pad_top == 0 && a->pad_left == 0 && a->pad_bottom == 0 && a->pad_right == 0;
}

static enum cyi_status run_linear(struct onednn *b, const struct conv2d_args *a, struct cyi_error *err) {
    struct tensor weight = tensor_2d(a->weight->dtype, a->weight->shape[0], a->weight->shape[1], a->weight->data);
    return onednn_linear(
        b, &(struct linear_args){ .x = a->x, .weight = &weight, .bias = a->bias, .residual = a->residual, .y = a->y },
        err);
}

static void fill_job(const struct onednn *b, const struct conv2d_args *a, struct conv_job *job) {
    *job = (struct conv_job){ .a = a, .dtype = a->x->dtype };
    if (!b->has_fast_bf16) {
        job->dtype = DTYPE_F32;
    }
    job->scale = a->scale == NULL ? NULL : a->scale->data;
    job->shift = a->shift == NULL ? NULL : a->shift->data;
    job->outputs = a->weight->shape[0];
    job->channels = a->weight->shape[1];
    job->kernel_rows = a->weight->shape[2];
    job->kernel_cols = a->weight->shape[3];
    job->rows = a->y->shape[0];
    job->cols = a->y->shape[1];
    choose_tiles(job);
}

enum cyi_status onednn_conv2d(struct onednn *b, const struct conv2d_args *a, struct cyi_error *err) {
    if (is_linear(a)) {
        return run_linear(b, a, err);
    }
    struct conv_job job;
    fill_job(b, a, &job);
    struct carve size = { 0 };
    (void)carve_take(&size, 8 * job.n_o, sizeof *job.packed);
    (void)onednn_vector(b, a->bias, &size);
    enum cyi_status st;
    TRY(onednn_reserve(b, &b->shared, size.used_bytes, err));
    struct carve carve = { .at = b->shared.start };
    job.packed = carve_take(&carve, 8 * job.n_o, sizeof *job.packed);
    job.bias = onednn_vector(b, a->bias, &carve);
    TRY(prepare_ops(b, &job, err));
    TRY(prepare_weights(b, &job, err));
    struct carve scratch = { 0 };
    (void)carve_conv(&job, &scratch);
    TRY(onednn_run_tasks(b, job.n_tiles_y * job.n_tiles_x, scratch.used_bytes, run_tile, &job, err));
done:
    return st;
}
