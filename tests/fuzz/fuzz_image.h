/* What the picture targets share: a file is read in every way, and what was accepted must come back from our own PNG. */
#ifndef TESTS_FUZZ_IMAGE_H
#define TESTS_FUZZ_IMAGE_H

#include <stddef.h>
#include <stdint.h>

void fuzz_image(const uint8_t *data, size_t size);

#endif
