/* Binding tensors of a weight set to the fields of a model's structs: names, shapes and types are checked here, once,
 * at open. */
#ifndef MODELS_WEIGHTS_H
#define MODELS_WEIGHTS_H

#include "io/safetensors.h"

/* One tensor that a model needs.
 *   name, alt : its name in two key styles (alt may be NULL), behind the prefix; "%d" becomes the block's index.
 *               "NAME#1/3" takes chunk 1 of 3 equal ones of the outermost dimension
 *   field     : where its struct tensor lies in the struct that is filled (offsetof)
 *   shape     : "[6D,D]", "[O,I,3,3]": numbers, letters of struct weight_dims, or a number times a letter. A last entry
 * "1*" accepts any number of further dimensions of size 1 and drops them: a 1×1 convolution is a matrix then
 *   is_optional : when absent, the field stays as it is (zeroed: data NULL) */
struct weight_row {
    const char *name;
    const char *alt;
    size_t field;
    const char *shape;
    bool is_optional;
};

/* Sizes that shapes refer to, by letter: dims.value['D']. */
struct weight_dims {
    int64_t value[128];
};

/* Fills the fields of base. Views of the mapped file: they live as long as the set.
 * Errors name file, tensor and what was wanted: FORMAT (missing), SHAPE, DTYPE (not a floating type). */
enum cyi_status weights_bind(const struct weight_set *set, const char *prefix, const struct weight_row *rows,
                             size_t n_rows, int index, const struct weight_dims *dims, void *base,
                             struct cyi_error *err);

/* The tensor prefix + name with "%d" replaced, whole ("#…" is ignored); NULL when absent or of a type that is no use.
 */
const struct tensor *weights_peek(const struct weight_set *set, const char *prefix, const char *name, int index);

#endif
