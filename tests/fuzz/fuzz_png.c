/* Fuzz target: a PNG file, as it is and with its checksums put right, so that mutations reach what lies behind them. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "fuzz_image.h"

#define SIGNATURE_BYTES 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void repair_checksums(uint8_t *data, size_t size) {
    size_t at = SIGNATURE_BYTES;
    while (size >= 12 && at <= size - 12) {
        size_t n = (size_t)data[at] << 24 | (size_t)data[at + 1] << 16 | (size_t)data[at + 2] << 8 | data[at + 3];
        if (n > size - at - 12) {
            return;
        }
        unsigned long sum = crc32(crc32(0, NULL, 0), data + at + 4, (unsigned)n + 4);
        for (int i = 0; i < 4; i++) {
            data[at + 8 + n + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        }
        at += n + 12;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_image(data, size);
    uint8_t *repaired = malloc(size + 1);
    if (repaired != NULL && size > 0) {
        memcpy(repaired, data, size);
        repair_checksums(repaired, size);
        fuzz_image(repaired, size);
    }
    free(repaired);
    return 0;
}
