/* Arithmetic on packed latents: see latents.h. */
#include "pipeline/latents.h"

#include "sample/noise.h"

enum cyi_status latents_draw_noise(struct arena *arena, uint64_t seed, int64_t n_rows, int64_t n_cols,
                                   const struct tensor *tokens, struct cyi_error *err) {
    int64_t n_channels = tensor_n_cols(tokens);
    int64_t n_tokens = n_rows * n_cols;
    struct arena_mark mark = arena_get_mark(arena);
    struct noise_generator *generator = arena_alloc(arena, 1, sizeof *generator);
    float *planes = arena_alloc(arena, (size_t)(n_channels * n_tokens), sizeof *planes);
    enum cyi_status st = CYI_OK;
    if (generator == NULL || planes == NULL) {
        st = error_memory(err, "the noise", (size_t)(n_channels * n_tokens) * sizeof *planes);
    } else {
        float *to = tokens->data;
        noise_seed(generator, seed);
        noise_draw(generator, planes, (size_t)(n_channels * n_tokens));
        for (int64_t t = 0; t < n_tokens; t++) {
            for (int64_t c = 0; c < n_channels; c++) {
                to[t * n_channels + c] = planes[c * n_tokens + t];
            }
        }
    }
    arena_release(arena, mark);
    return st;
}

void latents_mix(float sigma, const struct tensor *noise, const struct tensor *z, const struct tensor *x) {
    const float *from_noise = noise->data;
    const float *from_z = z->data;
    float *to = x->data;
    int64_t n = tensor_n_elements(x);
    for (int64_t i = 0; i < n; i++) {
        to[i] = sigma * from_noise[i] + (1.0F - sigma) * from_z[i];
    }
}

void latents_step(const struct tensor *x, const struct tensor *velocity, float sigma, float sigma_next) {
    const float *v = velocity->data;
    float *to = x->data;
    float delta = sigma_next - sigma;
    int64_t n = tensor_n_elements(x);
    for (int64_t i = 0; i < n; i++) {
        to[i] += delta * v[i];
    }
}

void latents_guide(const struct tensor *v, const struct tensor *v_negative, float guidance) {
    const float *negative = v_negative->data;
    float *to = v->data;
    int64_t n = tensor_n_elements(v);
    for (int64_t i = 0; i < n; i++) {
        to[i] = negative[i] + guidance * (to[i] - negative[i]);
    }
}

void latents_blend(const struct tensor *x, const struct tensor *mask, float sigma, const struct tensor *noise,
                   const struct tensor *z) {
    const float *m = mask->data;
    const float *from_noise = noise->data;
    const float *from_z = z->data;
    float *to = x->data;
    int64_t n_channels = tensor_n_cols(x);
    int64_t n = tensor_n_elements(x);
    for (int64_t i = 0; i < n; i++) {
        float kept = sigma * from_noise[i] + (1.0F - sigma) * from_z[i];
        float weight = m[i / n_channels];
        to[i] = (1.0F - weight) * kept + weight * to[i];
    }
}

bool latents_are_finite(const struct tensor *x) {
    const uint32_t all_ones = 0x7f800000U; /* the exponent of infinities and of what is not a number */
    const float *values = x->data;
    int64_t n = tensor_n_elements(x);
    uint32_t n_bad = 0; /* counted without a branch, so that the compiler can take many at a time */
    for (int64_t i = 0; i < n; i++) {
        n_bad += (float_to_bits(values[i]) & all_ones) == all_ones;
    }
    return n_bad == 0;
}

enum cyi_status pixels_from_image(struct arena *arena, const struct cyi_image *image, struct tensor *ret_pixels,
                                  struct cyi_error *err) {
    const int64_t shape[3] = { image->height, image->width, 3 };
    enum cyi_status st = tensor_new(arena, DTYPE_F32, 3, shape, ret_pixels, err);
    if (st != CYI_OK) {
        return st;
    }
    float *to = ret_pixels->data;
    int64_t n = (int64_t)image->width * image->height;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < 3; c++) {
            uint8_t level = image->n_channels == 3 ? image->pixels[3 * i + c] : image->pixels[i];
            to[3 * i + c] = 2.0F * ((float)level / 255.0F) - 1.0F;
        }
    }
    return CYI_OK;
}

void pixels_to_image(const struct tensor *pixels, struct cyi_image *image) {
    const float *from = pixels->data;
    uint8_t *to = image->pixels;
    int64_t n = tensor_n_elements(pixels);
    for (int64_t i = 0; i < n; i++) {
        float level = from[i] * 0.5F + 0.5F;
        level = level > 0.0F ? level : 0.0F;
        level = level < 1.0F ? level : 1.0F;
        /* Adding 2^23 rounds to nearest, ties to even, as rintf does, and needs no instruction that old processors lack. */
        to[i] = (uint8_t)float_to_bits(level * 255.0F + 8388608.0F);
    }
}
