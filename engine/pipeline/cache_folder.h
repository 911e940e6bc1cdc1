/* The cache folder: tensors that can be computed again, one file each, under CACHE/KIND/. A cache never fails: what
 * cannot be read is absent, what cannot be written is not kept. Files that are not what was asked for are ignored. */
#ifndef PIPELINE_CACHE_FOLDER_H
#define PIPELINE_CACHE_FOLDER_H

#include "pipeline/engine.h"

/* Most bytes that a kind keeps; the files that were not used for longest go first. */
#define CACHE_KIND_MAX_BYTES ((uint64_t)512 * 1024 * 1024)

/* Reads n floats. false: not there. */
bool cache_read(const struct cyi_engine *engine, const char *kind, const char *key, float *values, size_t n);
void cache_write(const struct cyi_engine *engine, const char *kind, const char *key, const float *values, size_t n);

#endif
