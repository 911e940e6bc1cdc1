/* JSON text to a jansson object, with errors that name the file. Only for files inside engine/io and engine/text. */
#ifndef IO_JSON_TEXT_H
#define IO_JSON_TEXT_H

#include <jansson.h>

#include "core/error.h"

/* The object that text holds; released with json_decref. Twice the same key in one object is an error.
 * Errors: FORMAT (names line and column; not an object), MEMORY. */
enum cyi_status json_text_parse(const char *name, const char *text, size_t size_bytes, json_t **ret_object,
                                struct cyi_error *err);

#endif
