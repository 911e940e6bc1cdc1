/* How long whole pictures take, through the public header alone: medians by phase, from the process's start to the first picture, most
 * memory held. Every picture has a prompt of its own, so that no embedding is remembered. One process may measure several sizes. */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "support.h"

static const char usage[] = "usage: bench_picture [OPTIONS] MODEL\n"
                            "\n"
                            "  --backend NAME      auto, cuda, onednn, reference\n"
                            "  --precision NAME    auto, f32, bf16, fp8, int8\n"
                            "  --device N          number of the card\n"
                            "  --device-mib N      most memory of the card to use (default: all)\n"
                            "  --size LIST         512 or 512,1024x768 (default: the model's)\n"
                            "  --steps N           (default: the model's)\n"
                            "  --count N           measured pictures of each size (default 5)\n"
                            "  --warm-up N         pictures before them (default 1)\n"
                            "  --output FILE       the first picture of the first size is saved here\n"
                            "  --compare FILE      prints how far that picture is from this one, in dB\n";

#define MAX_SIZES 8
#define MIB (UINT64_C(1) << 20)

struct options {
    struct cyi_engine_options engine;
    const char *model, *output, *compare;
    int widths[MAX_SIZES], heights[MAX_SIZES], n_sizes;
    int n_steps, n_pictures, n_warm_up;
};

/* ---- Options ---- */

static long parse_number(const char *text, long min, long max) {
    char *end = NULL;
    const long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < min || value > max) {
        die("%s is not a number of %ld to %ld", text, min, max);
    }
    return value;
}

static enum cyi_precision parse_precision(const char *text) {
    static const char *const names[] = { [CYI_PRECISION_AUTO] = "auto",
                                         [CYI_PRECISION_F32] = "f32",
                                         [CYI_PRECISION_BF16] = "bf16",
                                         [CYI_PRECISION_FP8] = "fp8",
                                         [CYI_PRECISION_INT8] = "int8" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            return (enum cyi_precision)i;
        }
    }
    die("%s is not a precision", text);
}

static void parse_sizes(const char *text, struct options *options) {
    while (*text != '\0') {
        char *end = NULL;
        const long width = strtol(text, &end, 10);
        const long height = *end == 'x' ? strtol(end + 1, &end, 10) : width;
        if (options->n_sizes == MAX_SIZES || width < 1 || height < 1 || width > CYI_MAX_IMAGE_SIDE ||
            height > CYI_MAX_IMAGE_SIDE || (*end != ',' && *end != '\0')) {
            die("%s is not a list of at most %d sizes", text, MAX_SIZES);
        }
        options->widths[options->n_sizes] = (int)width;
        options->heights[options->n_sizes++] = (int)height;
        text = *end == ',' ? end + 1 : end;
    }
}

/* false: no option of that name. */
static bool parse_option(const char *name, const char *value, struct options *options) {
    if (strcmp(name, "--backend") == 0) {
        options->engine.backend = value;
    } else if (strcmp(name, "--precision") == 0) {
        options->engine.precision = parse_precision(value);
    } else if (strcmp(name, "--device") == 0) {
        options->engine.device = (int)parse_number(value, 0, 1023);
    } else if (strcmp(name, "--device-mib") == 0) {
        options->engine.max_device_bytes = (uint64_t)parse_number(value, 1, 1L << 40) * MIB;
    } else if (strcmp(name, "--size") == 0) {
        parse_sizes(value, options);
    } else if (strcmp(name, "--steps") == 0) {
        options->n_steps = (int)parse_number(value, 1, CYI_MAX_STEPS);
    } else if (strcmp(name, "--count") == 0) {
        options->n_pictures = (int)parse_number(value, 1, 1000000);
    } else if (strcmp(name, "--warm-up") == 0) {
        options->n_warm_up = (int)parse_number(value, 0, 1000);
    } else if (strcmp(name, "--output") == 0) {
        options->output = value;
    } else if (strcmp(name, "--compare") == 0) {
        options->compare = value;
    } else {
        return false;
    }
    return true;
}

/* ---- What the system says of this process ---- */

/* One number of a file of /proc, the n-th word after `after`; 0 when there is none. */
static uint64_t read_word(const char *path, const char *after, int n) {
    char text[1024] = "";
    FILE *stream = fopen(path, "r");
    if (stream == NULL) {
        return 0;
    }
    text[fread(text, 1, sizeof text - 1, stream)] = '\0';
    (void)fclose(stream);
    char *rest = NULL;
    const char *begin = after != NULL ? strstr(text, after) : text;
    char *word = begin != NULL ? strtok_r(text + (begin - text), " ", &rest) : NULL;
    for (int i = 1; i < n && word != NULL; i++) {
        word = strtok_r(NULL, " ", &rest);
    }
    return word != NULL ? strtoull(word, NULL, 10) : 0;
}

/* To a hundredth of a second. */
static double seconds_since_start(void) {
    const uint64_t ticks = read_word("/proc/self/stat", ") ", 21);
    return now_seconds(CLOCK_BOOTTIME) - (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* Without the pages of mapped files. */
static double anonymous_mib(void) {
    const uint64_t resident = read_word("/proc/self/statm", NULL, 2);
    const uint64_t shared = read_word("/proc/self/statm", NULL, 3);
    return (double)(resident - shared) * (double)sysconf(_SC_PAGESIZE) / (double)MIB;
}

/* ---- Pictures ---- */

enum figure { FIGURE_TEXT, FIGURE_STEP, FIGURE_DECODE, FIGURE_PICTURE, N_FIGURES };

struct bench {
    const struct options *options;
    struct cyi_engine *engine;
    struct cyi_model *model;
    struct cyi_engine_info info;
    double *seconds[N_FIGURES]; /* [n_pictures] each */
    uint64_t working_bytes, device_bytes, n_fallbacks;
    int n_made;
};

static double compare(struct bench *bench, const struct cyi_image *image) {
    struct cyi_image *other = NULL;
    struct cyi_error err = { 0 };
    double sum = 0.0;
    if (cyi_image_load(bench->engine, bench->options->compare, &other, &err) != CYI_OK) {
        die("%s", err.text);
    }
    if (other->width != image->width || other->height != image->height || other->n_channels != image->n_channels) {
        die("%s: the sizes differ", bench->options->compare);
    }
    const size_t n = (size_t)image->width * (size_t)image->height * (size_t)image->n_channels;
    for (size_t i = 0; i < n; i++) {
        const double difference = (double)image->pixels[i] - (double)other->pixels[i];
        sum += difference * difference;
    }
    cyi_image_free(other);
    return 10.0 * log10(255.0 * 255.0 * (double)n / sum);
}

static void keep_first(struct bench *bench, const struct cyi_image *image) {
    struct cyi_error err = { 0 };
    (void)printf("%-34s %.2f s\n", "process start to first picture", seconds_since_start());
    if (bench->options->compare != NULL) {
        (void)printf("%-34s %.1f dB\n", "first picture against the other", compare(bench, image));
    }
    if (bench->options->output != NULL &&
        cyi_image_save(bench->engine, image, bench->options->output, NULL, &err) != CYI_OK) {
        die("%s", err.text);
    }
    (void)fflush(stdout);
}

static void make_picture(struct bench *bench, struct cyi_request *request, struct cyi_report *report) {
    char prompt[128];
    struct cyi_image *image = NULL;
    struct cyi_error err = { 0 };
    (void)snprintf(prompt, sizeof prompt, "run %d: a neon fox in the rain before a wet street, holographic signs",
                   bench->n_made);
    request->prompt = prompt;
    request->seed = (uint64_t)bench->n_made;
    if (cyi_generate(bench->model, request, &image, report, &err) != CYI_OK) {
        die("%s", err.text);
    }
    if (report->is_prompt_cached) {
        die("a prompt's embedding was remembered");
    }
    if (bench->n_made++ == 0) {
        keep_first(bench, image);
    }
    bench->working_bytes = report->working_bytes > bench->working_bytes ? report->working_bytes : bench->working_bytes;
    bench->device_bytes = report->device_bytes > bench->device_bytes ? report->device_bytes : bench->device_bytes;
    bench->n_fallbacks += report->n_fallbacks;
    cyi_image_free(image);
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, compare_doubles);
    return n % 2 != 0 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

static void measure(struct bench *bench, int width, int height) {
    const int n = bench->options->n_pictures;
    struct cyi_request request;
    struct cyi_report report;
    cyi_request_init(bench->model, &request);
    request.width = width != 0 ? width : request.width;
    request.height = height != 0 ? height : request.height;
    request.n_steps = bench->options->n_steps != 0 ? bench->options->n_steps : request.n_steps;
    for (int i = 0; i < bench->options->n_warm_up; i++) {
        make_picture(bench, &request, &report);
    }
    const double mib_before = anonymous_mib();
    for (int i = 0; i < n; i++) {
        make_picture(bench, &request, &report);
        bench->seconds[FIGURE_TEXT][i] = report.phase_seconds[CYI_PHASE_ENCODE_TEXT];
        bench->seconds[FIGURE_STEP][i] = report.phase_seconds[CYI_PHASE_DENOISE] / request.n_steps;
        bench->seconds[FIGURE_DECODE][i] = report.phase_seconds[CYI_PHASE_DECODE];
        bench->seconds[FIGURE_PICTURE][i] = report.total_seconds;
    }
    const double mib_after = anonymous_mib();
    (void)printf("%d×%d %s %d steps, %d pictures, ms:", request.width, request.height, bench->info.precision,
                 request.n_steps, n);
    static const char *const names[N_FIGURES] = { "text", "step", "decode", "picture" };
    for (int k = 0; k < N_FIGURES; k++) {
        (void)printf(" %s %.2f", names[k], 1e3 * median(bench->seconds[k], n));
    }
    (void)printf(" (fastest %.2f)\n", 1e3 * bench->seconds[FIGURE_PICTURE][0]); /* sorted by now */
    (void)printf("%-34s device %" PRIu64 " MiB, working %" PRIu64 " MiB, process %.0f → %.0f MiB, %" PRIu64
                 " fallbacks\n",
                 "", bench->device_bytes / MIB, bench->working_bytes / MIB, mib_before, mib_after, bench->n_fallbacks);
    (void)fflush(stdout);
}

static void run(const struct options *options) {
    struct bench bench = { .options = options };
    struct cyi_error err = { 0 };
    struct cyi_model_info model_info;
    for (int k = 0; k < N_FIGURES; k++) {
        bench.seconds[k] = calloc((size_t)options->n_pictures, sizeof(double));
        if (bench.seconds[k] == NULL) {
            die("out of memory");
        }
    }
    if (cyi_engine_create(&options->engine, &bench.engine, &err) != CYI_OK ||
        cyi_model_open(bench.engine, &(struct cyi_model_options){ .path = options->model }, &bench.model, &err) !=
            CYI_OK) {
        die("%s", err.text);
    }
    cyi_engine_get_info(bench.engine, &bench.info);
    cyi_model_get_info(bench.model, &model_info);
    (void)printf("%s on %s (%s, %s), %d threads%s%s\n", model_info.name, bench.info.backend, bench.info.backend_version,
                 bench.info.cpu_isa, bench.info.n_threads, bench.info.gpu_status != NULL ? ", no card: " : "",
                 bench.info.gpu_status != NULL ? bench.info.gpu_status : "");
    if (options->n_sizes == 0) {
        measure(&bench, 0, 0);
    }
    for (int i = 0; i < options->n_sizes; i++) {
        measure(&bench, options->widths[i], options->heights[i]);
    }
    for (int k = 0; k < N_FIGURES; k++) {
        free(bench.seconds[k]);
    }
    cyi_model_close(bench.model);
    cyi_engine_free(bench.engine);
}

int main(int argc, char **argv) {
    struct options options = { .n_pictures = 5, .n_warm_up = 1 };
    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && parse_option(argv[i], argv[i + 1], &options)) {
            i++;
        } else if (argv[i][0] != '-' && options.model == NULL) {
            options.model = argv[i];
        } else {
            die("%s", usage);
        }
    }
    if (options.model == NULL) {
        die("%s", usage);
    }
    run(&options);
    return 0;
}
