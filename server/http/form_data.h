/* form_data: multipart/form-data (RFC 7578) in memory. Parts are not copied: they point into the body, into which zero
 * bytes are written. Strict: exactly the form that browsers, curl and the usual libraries send. */
#ifndef SERVER_HTTP_FORM_DATA_H
#define SERVER_HTTP_FORM_DATA_H

#include "http/http.h"

#define FORM_MAX_PARTS 64
#define FORM_MAX_NAME 256
#define FORM_MAX_HEAD 4096

/* type: the request's Content-Type with its boundary. body: n bytes that may be written, and a zero byte. *ret_parts, which the
 * caller frees, points into body. Errors: MALFORMED. */
enum problem_code form_data_parse(const char *type, char *body, size_t n, struct form_part **ret_parts, size_t *ret_n,
                                  struct problem *problem);

#endif
