/* How fast a model's phases are on the fast CPU backend, beside R: the rate of oneDNN's own bf16 matrix product at the phase's largest
 * shape, measured right before and after the picture. Only the ratios mean something on a machine that others use too.
 *
 *   bench_model MODEL SIZE [STEPS]    ends with 1 when a figure is behind its limit
 *
 * Then a second process makes the same picture with its prompt remembered, up to its first step: how long that takes from its start. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pipeline/request.h"
#include "rival.h"
#include "support.h"

#define N_REPEATS 3
#define PROMPT "a red fox in the snow, morning light"
#define MAX_ANONYMOUS_BYTES 1.5e9
#define MAX_START_SECONDS 1.0

/* ---- R ---- */

struct shape {
    int64_t m, n, k;
};

/* Best floating-point operations a second of y [M, N] = x [M, K] · w [N, K]ᵀ in bf16. */
static double measure_rate(const struct shape *s, int n_threads) {
    struct rival *rival = rival_create(s->m, s->n, s->k, n_threads);
    double best = 1e30;
    for (int i = 0; i <= N_REPEATS; i++) {
        double seconds = rival_time(rival);
        best = i > 0 && seconds < best ? seconds : best; /* the first one only warms up */
    }
    rival_free(rival);
    return 2 * (double)s->m * (double)s->n * (double)s->k / best;
}

/* ---- A picture ---- */

struct watch {
    double first_step; /* when the transformer began to work */
    double anonymous_bytes;
    bool stops_there;
};

/* A line of /proc/self/status, in bytes. */
static double read_status(const char *key) {
    char line[256];
    double kibibytes = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0) {
            kibibytes = strtod(line + strlen(key), NULL);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return kibibytes * 1024;
}

static bool on_progress(void *user, const struct cyi_progress *progress) {
    struct watch *watch = user;
    double bytes = read_status("RssAnon:");
    watch->anonymous_bytes = bytes > watch->anonymous_bytes ? bytes : watch->anonymous_bytes;
    if (progress->phase == CYI_PHASE_DENOISE && watch->first_step == 0.0) {
        watch->first_step = now_seconds(CLOCK_MONOTONIC);
        return !watch->stops_there;
    }
    return true;
}

struct bench {
    struct cyi_engine *engine;
    struct cyi_model *model;
    struct cyi_request request;
    struct cyi_report report;
    struct watch watch;
};

static void open_model(struct bench *b, const char *path, const char *cache_dir) {
    struct cyi_error err = { 0 };
    const struct cyi_engine_options engine = { .backend = "onednn",
                                               .precision = CYI_PRECISION_BF16,
                                               .cache_dir = cache_dir };
    check(cyi_engine_create(&engine, &b->engine, &err), &err);
    check(cyi_model_open(b->engine, &(struct cyi_model_options){ .path = path }, &b->model, &err), &err);
}

static void make_picture(struct bench *b, int size, int n_steps) {
    struct cyi_error err = { 0 };
    struct cyi_image *image = NULL;
    cyi_request_init(b->model, &b->request);
    b->request.prompt = PROMPT;
    b->request.width = size;
    b->request.height = size;
    b->request.n_steps = n_steps;
    b->request.on_progress = on_progress;
    b->request.user = &b->watch;
    enum cyi_status st = cyi_generate(b->model, &b->request, &image, &b->report, &err);
    if (!(st == CYI_E_CANCELLED && b->watch.stops_there)) {
        check(st, &err);
    }
    cyi_image_free(image);
}

static void close_model(struct bench *b) {
    cyi_model_close(b->model);
    cyi_engine_free(b->engine);
}

/* ---- Figures ---- */

static int print_ratio(const char *name, double seconds, double flops, double rate, double limit) {
    double ratio = flops / seconds / rate;
    (void)printf("%-26s %9.3f s %8.0f GF/s   R %8.0f GF/s   ratio %.2f (limit %.2f)%s\n", name, seconds,
                 flops / seconds * 1e-9, rate * 1e-9, ratio, limit, ratio < limit ? "   BEHIND" : "");
    return ratio < limit;
}

static int print_amount(const char *name, double amount, const char *unit, double limit) {
    (void)printf("%-26s %9.3f %s   (limit %.3f)%s\n", name, amount, unit, limit, amount > limit ? "   BEHIND" : "");
    return amount > limit;
}

static double larger(double a, double b) {
    return a > b ? a : b;
}

static int report_phases(const char *path, int size, int n_steps, const char *cache_dir) {
    struct bench b = { 0 };
    struct cyi_error err = { 0 };
    struct job_shape shape;
    double work[CYI_N_PHASES];
    int n_behind = 0;
    open_model(&b, path, cache_dir);
    const struct flux2_config *t = flux2_get_config(b.model->transformer);
    const struct qwen3_config *q = qwen3_get_config(b.model->encoder);
    int64_t n_text = b.model->options.max_text_tokens;
    int64_t side = size / b.model->size_multiple;
    const struct shape step_shape = { n_text + side * side, 3 * t->width + 2 * t->mlp_width, t->width };
    const struct shape text_shape = { n_text, q->mlp_width, q->width };
    int n_threads = omp_get_max_threads();
    double step_rate = measure_rate(&step_shape, n_threads);
    double text_rate = measure_rate(&text_shape, n_threads);
    make_picture(&b, size, n_steps);
    step_rate = larger(step_rate, measure_rate(&step_shape, n_threads));
    text_rate = larger(text_rate, measure_rate(&text_shape, n_threads));
    check(request_check(b.model, &b.request, &shape, &err), &err);
    request_estimate_work(b.model, &b.request, &shape, work);

    char name[64];
    const double *seconds = b.report.phase_seconds;
    (void)snprintf(name, sizeof name, "encode %d tokens", (int)n_text);
    n_behind += print_ratio(name, seconds[CYI_PHASE_ENCODE_TEXT], work[CYI_PHASE_ENCODE_TEXT], text_rate, 0.75);
    (void)snprintf(name, sizeof name, "step %dx%d", size, size);
    n_behind +=
        print_ratio(name, seconds[CYI_PHASE_DENOISE] / n_steps, work[CYI_PHASE_DENOISE] / n_steps, step_rate, 0.80);
    (void)snprintf(name, sizeof name, "decode %dx%d", size, size);
    n_behind += print_ratio(name, seconds[CYI_PHASE_DECODE], work[CYI_PHASE_DECODE], step_rate, 0.60);
    n_behind += print_amount("anonymous memory", b.watch.anonymous_bytes * 1e-9, "GB", MAX_ANONYMOUS_BYTES * 1e-9);
    close_model(&b);
    return n_behind;
}

/* ---- From the start of a process to its first step ---- */

static double begun; /* when main was entered */

static int report_start(const char *path, int size, const char *cache_dir) {
    struct bench b = { .watch = { .stops_there = true } };
    open_model(&b, path, cache_dir);
    make_picture(&b, size, 4);
    close_model(&b);
    return print_amount("start to first step", b.watch.first_step - begun, "s", MAX_START_SECONDS);
}

static int run_again(char **argv, const char *cache_dir) {
    int status = 0;
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        (void)setenv("BENCH_MODEL_CACHE", cache_dir, 1);
        (void)execv("/proc/self/exe", argv);
        _exit(2);
    }
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

int main(int argc, char **argv) {
    begun = now_seconds(CLOCK_MONOTONIC);
    int size = argc > 2 ? atoi(argv[2]) : 0;
    int n_steps = argc > 3 ? atoi(argv[3]) : 2;
    const char *remembered = getenv("BENCH_MODEL_CACHE"); /* set for the second process */
    if (size < 16 || size > 4096 || n_steps < 1) {
        (void)fprintf(stderr, "usage: bench_model MODEL SIZE [STEPS]\n");
        return 2;
    }
    if (remembered != NULL) {
        return report_start(argv[1], size, remembered);
    }
    char cache_dir[] = "/tmp/bench-model-XXXXXX";
    if (mkdtemp(cache_dir) == NULL) {
        perror(cache_dir);
        return 2;
    }
    int n_behind = report_phases(argv[1], size, n_steps, cache_dir);
    n_behind += run_again(argv, cache_dir);
    char command[64];
    (void)snprintf(command, sizeof command, "rm -r %s", cache_dir);
    if (system(command) != 0) {
        (void)fprintf(stderr, "bench_model: %s could not be removed\n", cache_dir);
    }
    return n_behind > 0;
}
