/* Previews: see preview.h. */
#include "pipeline/preview.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pipeline/cache_folder.h"
#include "pipeline/model.h"
#include "sample/noise.h"

#define CACHE_KIND "previews"
#define FIT_PICTURES 5
#define FIT_SIDE 8      /* tokens along a side of a picture that the fit decodes */
#define FIT_SMOOTH 0.8F /* share of one value for the whole picture in each channel: real latents are smooth */
#define FIT_ROUGH 0.6F
#define N_COLOURS 3
#define N_PIXELS 4 /* latent pixels of a token */

static size_t n_factors(int64_t n_channels) {
    return (size_t)(N_PIXELS * N_COLOURS * (n_channels + 1));
}

void preview_done(const struct cyi_allocator *allocator, struct preview_map *map) {
    mem_free(allocator, map->factors);
    *map = (struct preview_map){ 0 };
}

/* ---- Fitting ---- */

/* The normal equations of one latent pixel's map: `order` unknowns, the summand last. */
struct equations {
    int64_t order;
    double *matrix; /* [order, order] */
    double *right;  /* [order, 3] */
};

static void add_sample(const struct equations *e, const float *channels, const double colours[N_COLOURS]) {
    for (int64_t i = 0; i < e->order; i++) {
        double a = i + 1 < e->order ? (double)channels[i * N_PIXELS] : 1.0;
        for (int64_t j = 0; j <= i; j++) {
            e->matrix[i * e->order + j] += a * (j + 1 < e->order ? (double)channels[j * N_PIXELS] : 1.0);
        }
        for (int64_t c = 0; c < N_COLOURS; c++) {
            e->right[i * N_COLOURS + c] += a * colours[c];
        }
    }
}

/* Solves in place by Cholesky: afterwards right holds the unknowns. A little is added to the diagonal, so that it
 * always can. */
static void solve(const struct equations *e) {
    int64_t n = e->order;
    double *m = e->matrix;
    for (int64_t i = 0; i < n; i++) {
        m[i * n + i] = m[i * n + i] * (1.0 + 1e-6) + 1e-3;
        for (int64_t j = 0; j <= i; j++) {
            double sum = m[i * n + j];
            for (int64_t k = 0; k < j; k++) {
                sum -= m[i * n + k] * m[j * n + k];
            }
            m[i * n + j] = i == j ? sqrt(sum) : sum / m[j * n + j];
        }
    }
    for (int64_t c = 0; c < N_COLOURS; c++) {
        double *x = e->right + c;
        for (int64_t i = 0; i < n; i++) {
            for (int64_t k = 0; k < i; k++) {
                x[i * N_COLOURS] -= m[i * n + k] * x[k * N_COLOURS];
            }
            x[i * N_COLOURS] /= m[i * n + i];
        }
        for (int64_t i = n - 1; i >= 0; i--) {
            for (int64_t k = i + 1; k < n; k++) {
                x[i * N_COLOURS] -= m[k * n + i] * x[k * N_COLOURS];
            }
            x[i * N_COLOURS] /= m[i * n + i];
        }
    }
}

/* The mean colour of a square of decoded pixels. */
static void mean_colour(const struct tensor *pixels, int64_t top, int64_t left, int64_t side,
                        double colours[N_COLOURS]) {
    const float *from = pixels->data;
    for (int64_t c = 0; c < N_COLOURS; c++) {
        double sum = 0;
        for (int64_t y = top; y < top + side; y++) {
            for (int64_t x = left; x < left + side; x++) {
                sum += (double)from[(y * pixels->shape[1] + x) * N_COLOURS + c];
            }
        }
        colours[c] = sum / (double)(side * side);
    }
}

/* Decodes one picture of random latents and adds its samples. */
static enum cyi_status sample_picture(struct cyi_model *model, struct exec *ex, struct noise_generator *generator,
                                      const struct equations equations[N_PIXELS], struct cyi_error *err) {
    int64_t width = vae_get_config(model->vae)->token_channels;
    int64_t side = vae_get_config(model->vae)->latent_pixels;
    struct arena_mark mark = arena_get_mark(ex->arena);
    enum cyi_status st = CYI_OK;
    struct tensor tokens;
    struct tensor smooth;
    struct tensor pixels;
    TRY(tensor_new_2d(ex->arena, DTYPE_F32, 1, width / N_PIXELS, &smooth, err));
    TRY(tensor_new_2d(ex->arena, DTYPE_F32, FIT_SIDE * FIT_SIDE, width, &tokens, err));
    noise_draw(generator, smooth.data, (size_t)(width / N_PIXELS));
    noise_draw(generator, tokens.data, (size_t)tensor_n_elements(&tokens));
    float *values = tokens.data;
    const float *base = smooth.data;
    for (int64_t i = 0; i < tensor_n_elements(&tokens); i++) {
        /* The four latent pixels of a token share the smooth part of their channel. */
        values[i] = FIT_ROUGH * values[i] + FIT_SMOOTH * base[i % width / N_PIXELS];
    }
    TRY(tensor_new(ex->arena, DTYPE_F32, 3, (const int64_t[3]){ FIT_SIDE * 2 * side, FIT_SIDE * 2 * side, N_COLOURS },
                   &pixels, err));
    TRY(vae_decode(model->vae, ex, &tokens, NULL, &pixels, err));
    for (int64_t t = 0; t < FIT_SIDE * FIT_SIDE; t++) {
        for (int64_t p = 0; p < N_PIXELS; p++) {
            double colours[N_COLOURS];
            mean_colour(&pixels, (t / FIT_SIDE * 2 + p / 2) * side, (t % FIT_SIDE * 2 + p % 2) * side, side, colours);
            add_sample(&equations[p], values + t * width + p, colours);
        }
    }
done:
    arena_release(ex->arena, mark);
    return st;
}

static enum cyi_status fit(struct cyi_model *model, struct exec *ex, int64_t n_channels, float *factors,
                           struct cyi_error *err) {
    int64_t order = n_channels + 1;
    size_t n_values = (size_t)(order * (order + N_COLOURS));
    struct equations equations[N_PIXELS];
    struct arena_mark mark = arena_get_mark(ex->arena);
    enum cyi_status st = CYI_OK;
    struct noise_generator *generator = arena_alloc(ex->arena, 1, sizeof *generator);
    double *values = arena_alloc(ex->arena, N_PIXELS * n_values, sizeof *values);
    if (generator == NULL || values == NULL) {
        TRY(error_memory(err, "the preview's fit", N_PIXELS * n_values * sizeof *values));
    }
    memset(values, 0, N_PIXELS * n_values * sizeof *values);
    for (size_t p = 0; p < N_PIXELS; p++) {
        double *first = values + p * n_values;
        equations[p] = (struct equations){ .order = order, .matrix = first, .right = first + order * order };
    }
    noise_seed(generator, 1);
    for (int i = 0; i < FIT_PICTURES; i++) {
        TRY(sample_picture(model, ex, generator, equations, err));
    }
    for (int64_t p = 0; p < N_PIXELS; p++) {
        solve(&equations[p]);
        for (int64_t c = 0; c < N_COLOURS; c++) {
            for (int64_t i = 0; i < order; i++) {
                factors[(p * N_COLOURS + c) * order + i] = (float)equations[p].right[i * N_COLOURS + c];
            }
        }
    }
done:
    arena_release(ex->arena, mark);
    return st;
}

enum cyi_status preview_prepare(struct cyi_model *model, struct exec *ex, struct cyi_error *err) {
    const struct cyi_allocator *allocator = &model->engine->allocator;
    int64_t n_channels = vae_get_config(model->vae)->latent_channels;
    struct preview_map *map = &model->preview;
    enum cyi_status st = CYI_OK;
    if (map->n_channels > 0) {
        return CYI_OK;
    }
    float *factors = mem_alloc(allocator, n_factors(n_channels) * sizeof *factors);
    if (factors == NULL) {
        return error_memory(err, "the preview's map", n_factors(n_channels) * sizeof *factors);
    }
    if (!cache_read(model->engine, CACHE_KIND, model->vae_fingerprint, factors, n_factors(n_channels))) {
        double start = engine_seconds();
        st = fit(model, ex, n_channels, factors, err);
        if (st != CYI_OK) {
            mem_free(allocator, factors);
            return st;
        }
        cache_write(model->engine, CACHE_KIND, model->vae_fingerprint, factors, n_factors(n_channels));
        engine_log(model->engine, CYI_LOG_INFO, "preview.fitted ms=%.0f", 1000.0 * (engine_seconds() - start));
    }
    *map = (struct preview_map){ .n_channels = n_channels, .factors = factors };
    return CYI_OK;
}

/* ---- Drawing ---- */

static uint8_t level_of(float value) {
    float level = rintf((value * 0.5F + 0.5F) * 255.0F);
    return level > 0.0F ? level < 255.0F ? (uint8_t)level : 255 : 0; /* not-a-number gives black */
}

void preview_draw(const struct preview_map *map, const struct tensor *tokens, int64_t n_rows, int64_t n_cols,
                  struct cyi_image *image) {
    int64_t order = map->n_channels + 1;
    for (int64_t t = 0; t < n_rows * n_cols; t++) {
        const float *channels = tensor_row(tokens, t);
        for (int64_t p = 0; p < N_PIXELS; p++) {
            int64_t y = t / n_cols * 2 + p / 2;
            int64_t x = t % n_cols * 2 + p % 2;
            uint8_t *pixel = image->pixels + (y * image->width + x) * N_COLOURS;
            for (int64_t c = 0; c < N_COLOURS; c++) {
                const float *factors = map->factors + (p * N_COLOURS + c) * order;
                float sum = factors[map->n_channels];
                for (int64_t i = 0; i < map->n_channels; i++) {
                    sum += factors[i] * channels[i * N_PIXELS + p];
                }
                pixel[c] = level_of(sum);
            }
        }
    }
}
