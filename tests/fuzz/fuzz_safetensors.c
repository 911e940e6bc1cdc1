/* Fuzz target: a safetensors file in memory. What is accepted must be readable to the last byte. */
#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct safetensors *file = NULL;
    struct cyi_error err = { 0 };
    if (safetensors_parse(&mem_default_allocator, "input", data, size, &file, &err) != CYI_OK) {
        return 0;
    }
    unsigned sum = 0;
    for (size_t i = 0; i < safetensors_n_entries(file); i++) {
        const struct safetensors_entry *entry = safetensors_entry_at(file, i);
        const uint8_t *bytes = entry->tensor.data;
        for (size_t k = 0; k < entry->size_bytes; k++) {
            sum += bytes[k];
        }
        if (safetensors_find(file, entry->name) != entry) {
            __builtin_trap();
        }
    }
    volatile unsigned sink = sum; /* so that the reads stay */
    (void)sink;
    (void)safetensors_metadata(file, "format");
    safetensors_close(file);
    return 0;
}
