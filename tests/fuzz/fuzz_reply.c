/* Fuzz target: a language model's reply, read at once and in pieces, which must come to the same; and what is made of it. The first byte
 * says how long the pieces are. */
#include "enrich/reply.h"
#include "enrich/reply_text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum problem_code read_pieces(struct reply *reply, const uint8_t *data, size_t size, size_t piece,
                                     struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    for (size_t at = 0; at < size && st == PROBLEM_NONE; at += piece) {
        st = reply_feed(reply, data + at, size - at < piece ? size - at : piece, problem);
    }
    return st == PROBLEM_NONE ? reply_end(reply, problem) : st;
}

static void check_text(const char *text, bool is_whole) {
    char *clean = reply_clean(text, is_whole);
    size_t n = 0;
    for (const char *c = clean; *c != '\0'; c++) {
        n += ((unsigned char)*c & 0xc0) != 0x80;
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            abort();
        }
    }
    if (!text_is_utf8(clean) || n > REPLY_MAX_CHARACTERS) {
        abort();
    }
    free(clean);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct reply whole = { 0 }, pieces = { 0 };
    struct problem first = { 0 }, second = { 0 };
    char words[100];
    if (size < 1) {
        return 0;
    }
    const size_t piece = 1 + data[0] % 64;
    const enum problem_code st = read_pieces(&whole, data + 1, size - 1, size, &first);
    if (st != read_pieces(&pieces, data + 1, size - 1, piece, &second) ||
        strcmp(reply_text(&whole), reply_text(&pieces)) != 0 || strcmp(first.detail, second.detail) != 0) {
        abort();
    }
    check_text(reply_text(&whole), true);
    check_text(reply_text(&whole), false);
    char *raw = text_format("%.*s", (int)(size - 1), (const char *)data + 1);
    check_text(raw, true);
    check_text(raw, false);
    free(raw);
    (void)reply_error_text((const char *)data + 1, size - 1, "secret", words, sizeof words);
    reply_free(&whole);
    reply_free(&pieces);
    return 0;
}
