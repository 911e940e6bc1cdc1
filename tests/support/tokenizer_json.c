/* See tokenizer_json.h. */
#include "support/tokenizer_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define QWEN_PRE_TOKENIZER                                                                                             \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"                            \
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "                                \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|"                                                                         \
    "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},"                       \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,\"use_regex\":false}]}"

static const char *pick(const char *part, const char *otherwise) {
    return part == NULL ? otherwise : part;
}

static void write_bytes(FILE *stream) {
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; byte++) {
        int prints = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        (void)fprintf(stream, "%s\"\\u%04x\":%u", byte == 0 ? "" : ",", prints ? byte : next, byte);
        next += prints ? 0 : 1;
    }
}

char *tokenizer_json(const struct tokenizer_parts *parts, size_t *ret_size) {
    char *text = NULL;
    FILE *stream = open_memstream(&text, ret_size);
    assert_non_null(stream);
    (void)fprintf(stream, "{\"version\":\"1.0\",\"added_tokens\":%s,\n\"normalizer\":%s,\n\"pre_tokenizer\":%s,\n",
                  pick(parts->added_tokens, "[]"), pick(parts->normalizer, "{\"type\":\"NFC\"}"),
                  pick(parts->pre_tokenizer, QWEN_PRE_TOKENIZER));
    (void)fprintf(stream, "\"post_processor\":%s,\n\"decoder\":%s,\n\"model\":{%s\n\"vocab\":{",
                  pick(parts->post_processor, "null"), pick(parts->decoder, "{\"type\":\"ByteLevel\"}"),
                  pick(parts->model, "\"type\":\"BPE\","));
    write_bytes(stream);
    (void)fprintf(stream, "%s},\n\"merges\":%s}}\n", pick(parts->vocabulary, ""), pick(parts->merges, "[]"));
    assert_int_equal(fclose(stream), 0);
    return text;
}
