/* Small tokenizer.json texts for tests: the 256 bytes with ids 0 to 255, and parts that a test sets. */
#ifndef TESTS_TOKENIZER_JSON_H
#define TESTS_TOKENIZER_JSON_H

#include <stddef.h>

/* JSON texts; NULL takes the default in brackets. */
struct tokenizer_parts {
    const char *normalizer;     /* [{"type": "NFC"}] */
    const char *pre_tokenizer;  /* [the one of Qwen] */
    const char *post_processor; /* [null] */
    const char *decoder;        /* [{"type": "ByteLevel"}] */
    const char *model;          /* members of the model before the vocabulary, each with a final comma [type BPE] */
    const char *vocabulary;     /* entries after the bytes, each with a comma before [none] */
    const char *merges;         /* [an empty list] */
    const char *added_tokens;   /* [an empty list] */
};

/* The text, released with free. Fails the running test when there is no memory. */
char *tokenizer_json(const struct tokenizer_parts *parts, size_t *ret_size);

#endif
