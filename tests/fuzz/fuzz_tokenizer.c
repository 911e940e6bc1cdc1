/* Fuzz target: a tokenizer.json, then a NUL byte and a text to encode (without one: the JSON itself is the text too). */
#include <string.h>

#include "text/bpe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_INPUT_BYTES 65536 /* patterns may take time that grows with the text */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *json = (const char *)data;
    const char *end = size == 0 || size > MAX_INPUT_BYTES ? NULL : memchr(json, '\0', size);
    size_t json_bytes = end == NULL ? size : (size_t)(end - json);
    const char *text = end == NULL ? json : end + 1;
    size_t text_bytes = end == NULL ? size : size - json_bytes - 1;
    struct bpe *bpe = NULL;
    if (size == 0 || size > MAX_INPUT_BYTES ||
        bpe_parse(&mem_default_allocator, "input", json, json_bytes, &bpe, NULL) != CYI_OK) {
        return 0;
    }
    int32_t *ids = NULL;
    size_t n = 0;
    if (bpe_encode(bpe, text, text_bytes, &ids, &n, NULL) == CYI_OK) {
        for (size_t i = 0; i < n; i++) {
            if (ids[i] < 0 || ids[i] >= bpe_n_ids(bpe)) {
                __builtin_trap();
            }
        }
    }
    mem_free(&mem_default_allocator, ids);
    bpe_free(bpe);
    return 0;
}
