/* How fast the tokenizer loads and encodes. Ends with 1 when a figure misses its limit.
 *
 *   bench_tokenizer TOKENIZER.json[.xz] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "text/bpe.h"

#define N_REPEATS 5
#define TEXT_BYTES ((size_t)1000 * 1000)
#define LOAD_LIMIT_MS 500.0
#define RATE_LIMIT_MBS 1.0

static const struct {
    const char *name, *piece;
} texts[] = {
    { "prompts", "A red fox sleeps in the snow under a tall pine tree, soft morning light, photograph, 85mm lens.\n" },
    { "marks",
      "e\xcc\x81t\xc3\xa9 na\xc3\xafve \xd0\x97\xd0\xb8\xd0\xbc\xd0\xbd\xd0\xb8\xd0\xb9 \xd0\xbb\xd0\xb5\xd1\x81 "
      "\xe7\x8c\xab\xe3\x81\x8c\xe7\xaa\x93 \xf0\x9f\x98\x80 " },
    { "one word", "abcdefghij" },
    { "one letter", "x" },
    { "spaces", " " },
    { "added tokens", "<|im_start|><|im_end|>" },
};

/* The file's text, unpacked by xz when its name says so. */
static char *read_text(const char *path, size_t *ret_size) {
    size_t length = strlen(path);
    bool is_packed = length > 3 && strcmp(path + length - 3, ".xz") == 0;
    char command[4096];
    (void)snprintf(command, sizeof command, "xz -dc '%s'", path);
    FILE *stream = is_packed ? popen(command, "r") : fopen(path, "rb");
    char *text = malloc(TOKENIZER_MAX_FILE_BYTES);
    *ret_size = stream == NULL || text == NULL ? 0 : fread(text, 1, TOKENIZER_MAX_FILE_BYTES, stream);
    if (stream != NULL) {
        (void)(is_packed ? pclose(stream) : fclose(stream));
    }
    return text;
}

/* Prints one row; true when the figure keeps its limit. */
static bool report(const char *name, double figure, const char *unit, double limit, bool at_least) {
    bool is_met = at_least ? figure >= limit : figure <= limit;
    (void)printf("%-22s %10.2f %-5s limit %s %7.2f  ratio %6.2f  %s\n", name, figure, unit,
                 at_least ? ">=" : "<=", limit, figure / limit, is_met ? "ok" : "MISSED");
    return is_met;
}

static bool bench_load(const char *json, size_t size, struct bpe **ret_bpe) {
    double best = 1e9;
    for (int i = 0; i < N_REPEATS; i++) {
        bpe_free(*ret_bpe);
        *ret_bpe = NULL;
        struct cyi_error err = { 0 };
        double start = now_seconds(CLOCK_MONOTONIC);
        if (bpe_parse(&mem_default_allocator, "tokenizer", json, size, ret_bpe, &err) != CYI_OK) {
            (void)fprintf(stderr, "%s\n", err.text);
            return false;
        }
        double taken = now_seconds(CLOCK_MONOTONIC) - start;
        best = taken < best ? taken : best;
    }
    return report("tokenizer load", best * 1e3, "ms", LOAD_LIMIT_MS, false);
}

static bool bench_text(const struct bpe *bpe, size_t row) {
    static char text[TEXT_BYTES];
    size_t piece_bytes = strlen(texts[row].piece);
    size_t size = TEXT_BYTES / piece_bytes * piece_bytes;
    for (size_t i = 0; i < size; i += piece_bytes) {
        memcpy(text + i, texts[row].piece, piece_bytes);
    }
    double best = 1e9;
    for (int i = 0; i < N_REPEATS; i++) {
        int32_t *ids = NULL;
        size_t n = 0;
        struct cyi_error err = { 0 };
        double start = now_seconds(CLOCK_MONOTONIC);
        if (bpe_encode(bpe, text, size, &ids, &n, &err) != CYI_OK) {
            (void)fprintf(stderr, "%s\n", err.text);
            return false;
        }
        double taken = now_seconds(CLOCK_MONOTONIC) - start;
        best = taken < best ? taken : best;
        mem_free(&mem_default_allocator, ids);
    }
    char name[64];
    (void)snprintf(name, sizeof name, "encode %s", texts[row].name);
    return report(name, (double)size / best / 1e6, "MB/s", RATE_LIMIT_MBS, true);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s TOKENIZER.json[.xz]\n", argv[0]);
        return 2;
    }
    size_t size = 0;
    char *json = read_text(argv[1], &size);
    struct bpe *bpe = NULL;
    bool is_met = bench_load(json, size, &bpe);
    for (size_t i = 0; bpe != NULL && i < sizeof texts / sizeof texts[0]; i++) {
        is_met = bench_text(bpe, i) && is_met;
    }
    bpe_free(bpe);
    free(json);
    return is_met ? 0 : 1;
}
