/* cyberimage.h: the public interface of the CyberImage engine, a prompt in, a picture out.
 *
 * A complete program (a test compiles and runs it):
 *
 *     #include <cyberimage.h>
 *     #include <stdio.h>
 *
 *     int main(int argc, char **argv) {
 *         struct cyi_engine *engine = NULL;
 *         struct cyi_model *model = NULL;
 *         struct cyi_image *image = NULL;
 *         struct cyi_error err = {0};
 *         struct cyi_request request;
 *
 *         if (argc != 4) return 2;
 *         if (cyi_engine_create(NULL, &engine, &err) == CYI_OK &&
 *             cyi_model_open(engine, &(struct cyi_model_options){ .path = argv[1] }, &model, &err) == CYI_OK) {
 *             cyi_request_init(model, &request);
 *             request.prompt = argv[2];
 *             request.seed = 7;
 *             if (cyi_generate(model, &request, &image, NULL, &err) == CYI_OK)
 *                 cyi_image_save(engine, image, argv[3], NULL, &err);
 *         }
 *         if (err.code != CYI_OK) fprintf(stderr, "%s\n", err.text);
 *         cyi_image_free(image);
 *         cyi_model_close(model);
 *         cyi_engine_free(engine);
 *         return err.code == CYI_OK ? 0 : 1;
 *     }
 *
 * Errors:    every call that can fail returns a status and, when err is not NULL, writes one sentence into it. Results are
 *            written only on success. The engine never prints, never exits, and keeps no global state.
 * Ownership: what a call creates is released by the matching free or close, all of which accept NULL. Strings and pictures that
 *            are passed in are borrowed for the duration of the call.
 * Threads:   an engine may be shared by threads. A model serves one call at a time; two models are independent.
 * Shapes:    outermost first, row-major, letters as in docs/glossary.md. Pictures are [Y, X, 3] or [Y, X, 1], 8 bits a sample. */
#ifndef CYBERIMAGE_H
#define CYBERIMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CYI_VERSION "0.1.0"

/* ---- Errors ---- */

enum cyi_status {
    CYI_OK = 0,
    CYI_E_ARGUMENT,    /* the caller asked for something that cannot be */
    CYI_E_SHAPE,       /* a tensor has other sizes than its use needs */
    CYI_E_DTYPE,       /* a tensor has a type that its use does not accept */
    CYI_E_FORMAT,      /* a file breaks a rule of its format */
    CYI_E_MEMORY,      /* memory could not be had, or the plan does not fit */
    CYI_E_IO,          /* the operating system refused to read or write */
    CYI_E_CANCELLED,   /* the progress callback said so */
    CYI_E_NUMERIC,     /* not-a-number or infinity where a number must be */
    CYI_E_UNSUPPORTED, /* well-formed, but this build cannot do it */
    CYI_N_STATUSES
};

struct cyi_error {
    enum cyi_status code;
    char text[512]; /* one sentence in UTF-8, without a final newline */
};

/* A short name for a status, such as "format". Never NULL. */
const char *cyi_status_name(enum cyi_status status);

/* ---- Engine ---- */

/* Memory from the caller. allocate returns NULL when there is none; blocks need the alignment of malloc.
 * Both are called from any thread that runs the engine. */
struct cyi_allocator {
    void *(*allocate)(void *user, size_t size_bytes);
    void (*release)(void *user, void *block);
    void *user;
};

enum cyi_log_level { CYI_LOG_DEBUG, CYI_LOG_INFO, CYI_LOG_WARNING };

/* One event a call, such as "text.encoded tokens=512 ms=2950". Never holds a prompt. Called on the thread that called the engine. */
typedef void (*cyi_log_fn)(void *user, enum cyi_log_level level, const char *event);

enum cyi_precision {
    CYI_PRECISION_AUTO, /* bf16 where the processor or the card multiplies it fast, else f32 */
    CYI_PRECISION_F32,
    CYI_PRECISION_BF16,
    CYI_PRECISION_FP8, /* bf16, and the products of the transformer's blocks in 8-bit floating point: cards of compute 8.9 and newer */
    CYI_PRECISION_INT8 /* bf16, and those products in 8-bit integers: any card */
};

/* All zero means: every default. */
struct cyi_engine_options {
    const struct cyi_allocator *allocator; /* NULL: malloc and free */
    cyi_log_fn log;                        /* NULL: no log */
    void *log_user;
    const char *backend; /* NULL or "auto" (a card when there is one), "reference", "onednn", "cuda" */
    enum cyi_precision precision;
    int n_threads;             /* 0: one a core that this process may use */
    const char *cache_dir;     /* NULL: nothing is kept on disk (prompt embeddings, preview maps) */
    uint64_t max_memory_bytes; /* 0: what the system has available when a picture starts */
    int device;                /* number of the card, from 0 */
    uint64_t max_device_bytes; /* 0: all memory of the card that is free */
};

struct cyi_engine;

/* Creates an engine. options may be NULL. Errors: ARGUMENT (unknown backend, threads outside 0…1024), UNSUPPORTED (the
 * backend or the precision cannot be had here; the sentence says why), MEMORY. */
enum cyi_status cyi_engine_create(const struct cyi_engine_options *options, struct cyi_engine **ret_engine,
                                  struct cyi_error *err);
/* All models of the engine must be closed before. */
void cyi_engine_free(struct cyi_engine *engine);

/* What the processor and the libraries offer, for diagnosis. Strings live as long as the engine. */
struct cyi_engine_info {
    const char *backend;         /* the backend in use */
    const char *backend_version; /* for example "oneDNN 2.6.3" */
    const char *cpu_isa;         /* what the matrix library uses, for example "avx512_core_bf16"; or the card */
    const char *precision;       /* "f32", "bf16", "fp8" or "int8": what AUTO became */
    const char *gpu_status;      /* why no card is in use, in one sentence; NULL when one is */
    int n_threads;
};
void cyi_engine_get_info(const struct cyi_engine *engine, struct cyi_engine_info *ret_info);

/* ---- Models ---- */

struct cyi_model;

struct cyi_model_options {
    const char *path;         /* folder in diffusers layout, or a transformer as one .safetensors file */
    const char *text_encoder; /* needed for a single file: folder or .safetensors; else NULL */
    const char *vae;          /* likewise */
    const char *tokenizer;    /* likewise: tokenizer.json or its folder */
};

/* Opens a model: maps its files, checks every header, name and shape. Reads no weights, so it takes milliseconds.
 * Errors: IO, FORMAT, SHAPE, DTYPE, UNSUPPORTED (a family that this engine does not know), MEMORY. */
enum cyi_status cyi_model_open(struct cyi_engine *engine, const struct cyi_model_options *options,
                               struct cyi_model **ret_model, struct cyi_error *err);
void cyi_model_close(struct cyi_model *model);

/* Strings live as long as the model. */
struct cyi_model_info {
    const char *name;        /* "neon", "FLUX.2-klein-4B", else the folder's name */
    const char *family;      /* "flux2" */
    const char *licence;     /* SPDX or a short name; "unknown" */
    const char *fingerprint; /* 64 hex digits: SHA-256 over all headers and a sample of every tensor */
    bool is_distilled;       /* guidance has no effect */
    bool has_embedded_guidance;
    uint64_t n_parameters;
    uint64_t mapped_bytes;
    int max_text_tokens;
    int default_width, default_height; /* pixels */
    int default_steps;
    float default_guidance;
    int size_multiple; /* width and height must be multiples of this, pixels */
    int max_references;
};
void cyi_model_get_info(const struct cyi_model *model, struct cyi_model_info *ret_info);

/* ---- Pictures ---- */

struct cyi_image {
    int width, height;
    int n_channels;  /* 3: RGB, 1: grey (masks) */
    uint8_t *pixels; /* [height, width, n_channels], no padding */
};

#define CYI_MAX_IMAGE_SIDE 16384
#define CYI_MAX_IMAGE_PIXELS (64 * 1024 * 1024)
#define CYI_MAX_IMAGE_FILE_BYTES ((size_t)256 * 1024 * 1024)

enum cyi_image_format { CYI_FORMAT_BY_NAME, CYI_FORMAT_PNG, CYI_FORMAT_JPEG, CYI_FORMAT_WEBP };

struct cyi_image_options {
    enum cyi_image_format format; /* BY_NAME: by the file's ending (.png .jpg .jpeg .webp) */
    int quality;                  /* JPEG and WebP, 1…100; 0: 92. WebP at 100 is lossless */
    const char *parameters;       /* A1111 "parameters" text, UTF-8; NULL: none */
    const char *json;             /* CyberImage's own settings as JSON; NULL: none */
};

/* Reads PNG, JPEG or WebP by content. 16 bits become 8, grey and palettes RGB, alpha is dropped, EXIF orientation is applied.
 * Sizes are checked against the limits above before anything is decoded. Errors: IO, FORMAT, MEMORY. */
enum cyi_status cyi_image_load(struct cyi_engine *engine, const char *path, struct cyi_image **ret_image,
                               struct cyi_error *err);
enum cyi_status cyi_image_decode(struct cyi_engine *engine, const void *data, size_t size_bytes,
                                 struct cyi_image **ret_image, struct cyi_error *err);

/* The alpha that cyi_image_decode drops, as a grey picture: 255 covers, 0 lets through. *ret_alpha is NULL when the file has none;
 * it is looked for in PNG files only. Errors: FORMAT, MEMORY. */
enum cyi_status cyi_image_decode_alpha(struct cyi_engine *engine, const void *data, size_t size_bytes,
                                       struct cyi_image **ret_alpha, struct cyi_error *err);

/* Encodes into memory (released with cyi_release) or into a file: temporary file beside it, fsync, rename.
 * options may be NULL. BY_NAME without a file means PNG. Errors: ARGUMENT, IO, MEMORY. */
enum cyi_status cyi_image_encode(struct cyi_engine *engine, const struct cyi_image *image,
                                 const struct cyi_image_options *options, void **ret_data, size_t *ret_size_bytes,
                                 struct cyi_error *err);
enum cyi_status cyi_image_save(struct cyi_engine *engine, const struct cyi_image *image, const char *path,
                               const struct cyi_image_options *options, struct cyi_error *err);

/* Reads what cyi_image_save wrote beside the pixels (and A1111 "parameters" of others). Absent texts become NULL.
 * Both strings are released with cyi_release. Errors: IO, FORMAT, MEMORY. */
enum cyi_status cyi_image_read_texts(struct cyi_engine *engine, const char *path, char **ret_parameters,
                                     char **ret_json, struct cyi_error *err);
enum cyi_status cyi_image_decode_texts(struct cyi_engine *engine, const void *data, size_t size_bytes,
                                       char **ret_parameters, char **ret_json, struct cyi_error *err);

/* An empty (black) picture. Errors: ARGUMENT (limits above, channels not 1 or 3), MEMORY. */
enum cyi_status cyi_image_create(struct cyi_engine *engine, int width, int height, int n_channels,
                                 struct cyi_image **ret_image, struct cyi_error *err);
/* Only for pictures that the engine made. */
void cyi_image_free(struct cyi_image *image);
/* Releases a block that the engine handed out. */
void cyi_release(struct cyi_engine *engine, void *block);

/* ---- Generation ---- */

enum cyi_phase {
    CYI_PHASE_ENCODE_TEXT,
    CYI_PHASE_ENCODE_IMAGES, /* reference pictures, the picture to start from */
    CYI_PHASE_DENOISE,
    CYI_PHASE_DECODE,
    CYI_N_PHASES
};
const char *cyi_phase_name(enum cyi_phase phase); /* "encode_text", … */

struct cyi_progress {
    enum cyi_phase phase;
    int step, n_steps;        /* denoise: finished steps and all steps that this run does; else 0 */
    float phase_fraction;     /* 0…1 within the phase */
    float fraction;           /* 0…1 of the whole picture, by expected work */
    double elapsed_seconds;   /* since cyi_generate began */
    double remaining_seconds; /* estimate; negative while there is none */
    const struct cyi_image
        *preview; /* only right after a step and when wanted: a small picture, valid during the call */
};

/* Asked after every transformer block and every VAE layer, on the calling thread, unlocked. false cancels. */
typedef bool (*cyi_progress_fn)(void *user, const struct cyi_progress *progress);

#define CYI_MAX_REFERENCES 10
#define CYI_MIN_REFERENCE_SIDE 64  /* pixels */
#define CYI_MAX_REFERENCE_ASPECT 8 /* the longer side by the shorter */
#define CYI_MAX_STEPS 1000
#define CYI_MAX_PROMPT_BYTES (64 * 1024)

struct cyi_request {
    const char *prompt;          /* UTF-8 */
    const char *negative_prompt; /* NULL: "". Only models that are not distilled look at it, when guidance > 1 */
    int width, height;           /* pixels */
    int n_steps;
    float guidance;
    uint64_t seed;                             /* torch's CPU generator: its low 32 bits count */
    const struct cyi_image *const *references; /* pictures that the model looks at */
    int n_references;                          /* 0…CYI_MAX_REFERENCES */
    const struct cyi_image *init;              /* NULL, or the picture to start from */
    float strength;                            /* with init: 0 < strength ≤ 1, how much is made anew */
    const struct cyi_image *mask;              /* with init: white is painted anew, black kept */
    bool wants_preview;                        /* a preview picture with the progress call after every step */
    cyi_progress_fn on_progress;               /* may be NULL */
    void *user;
};

/* Fills in the model's defaults: size, steps, guidance, seed 0, strength 0.8, nothing else. */
void cyi_request_init(const struct cyi_model *model, struct cyi_request *ret_request);

struct cyi_memory_plan {
    uint64_t mapped_bytes;    /* weights, used where the files are mapped: the system may drop and reread these pages */
    uint64_t working_bytes;   /* most memory that the engine itself will hold at one time */
    uint64_t peak_bytes;      /* working_bytes + the largest part of the weights that one phase reads */
    uint64_t available_bytes; /* what the system has, or max_memory_bytes */
    bool fits;                /* working_bytes ≤ available_bytes, and the same on the device */
    bool is_tiled;            /* the VAE works in tiles */
    /* Backends on a card; else 0. */
    uint64_t device_bytes;           /* most memory of the card that is needed beside weights */
    uint64_t device_weight_bytes;    /* the largest part of the weights that one phase reads */
    uint64_t device_available_bytes; /* free memory of the card, within max_device_bytes */
    bool streams_weights;            /* that part does not stay on the card: it comes anew in every step */
};

/* Says what a request will need, and checks the request. Errors: ARGUMENT. */
enum cyi_status cyi_plan_memory(struct cyi_model *model, const struct cyi_request *request,
                                struct cyi_memory_plan *ret_plan, struct cyi_error *err);

struct cyi_report {
    double phase_seconds[CYI_N_PHASES];
    double total_seconds;
    int n_text_tokens;      /* of the prompt in its template, before padding */
    bool is_prompt_cut;     /* the prompt was longer than the model reads */
    bool is_prompt_cached;  /* its embedding was taken from the cache */
    uint64_t n_fallbacks;   /* operations that the backend lacked and the reference did */
    uint64_t working_bytes; /* most memory held at one time */
    uint64_t device_bytes;  /* likewise of the card, weights included; 0 without one */
    int first_step;         /* with init: the schedule's step where the run began */
};

/* Makes one picture. Pictures of a batch are separate calls with seed, seed + 1, …; the prompt's embedding is kept between calls.
 * ret_report may be NULL. Errors: ARGUMENT, MEMORY (the plan does not fit), CANCELLED, NUMERIC (names the step), UNSUPPORTED. */
enum cyi_status cyi_generate(struct cyi_model *model, const struct cyi_request *request, struct cyi_image **ret_image,
                             struct cyi_report *ret_report, struct cyi_error *err);

#ifdef __cplusplus
}
#endif

#endif
