/* dialects: what the APIs of other programs share. Their requests become jobs like all others: the same queue, accounts,
 * quotas and audit. The client waits for the answer, so the route waits for the job, and cancels it when the client
 * hangs up. */
#ifndef SERVER_ROUTES_DIALECTS_H
#define SERVER_ROUTES_DIALECTS_H

#include "http/http.h"

struct dialects; /* how many wait, and the key of links; locks inside */

struct dialects *dialects_create(void);
void dialects_free(struct dialects *dialects);

/* ---- Jobs ---- */

/* Submits the request (as POST /api/v1/jobs takes it) for the caller and waits for the job's end. *ret_job: as the API
 * shows it, done or ended otherwise. Errors: as queue_submit; UNAVAILABLE (the client has gone or the studio stops: the
 * job is cancelled), TOO_MANY (too many wait). */
enum problem_code dialect_run(struct studio *studio, struct request *request, struct response *response,
                              const json_t *job_request, const char *source, json_t **ret_job, struct problem *problem);
/* The sentence of a job that is not done. Errors: INVALID (it failed), CONFLICT (it was cancelled), INTERNAL (it is held). */
enum problem_code dialect_check_done(const json_t *job, struct response *response, struct problem *problem);
/* The dialect's name for the field at fault. names: pairs of ours and theirs, ends with NULL. */
void dialect_rename_field(struct problem *problem, const char *const names[][2]);

/* ---- Pictures in ---- */

/* Keeps a picture of the request as an upload of the caller. field: which one it is. */
enum problem_code dialect_upload(struct studio *studio, const struct request *request, const char *field,
                                 const char *name, const void *data, size_t n, char ret_id[40],
                                 struct problem *problem);
/* The same for one that was made here. */
enum problem_code dialect_upload_image(struct studio *studio, const struct request *request, const char *field,
                                       const struct cyi_image *image, char ret_id[40], struct problem *problem);
/* Base64 with or without "data:…;base64," in front of it. free() the data. Errors: INVALID (field). */
enum problem_code dialect_decode_base64(const char *field, const char *text, void **ret_data, size_t *ret_n,
                                        struct problem *problem);

/* ---- Pictures out ---- */

struct dialect_format {
    const char *name, *ending, *type; /* "jpeg", "jpg", "image/jpeg" */
    enum cyi_image_format format;
};

/* By name or ending; NULL when there is none. */
const struct dialect_format *dialect_find_format(const char *name);
/* The picture's file in that format. owner NULL: anyone's. free() the data. Errors: NOT_FOUND, INTERNAL. */
enum problem_code dialect_read_picture(struct studio *studio, const char *owner, const char *id,
                                       const struct dialect_format *format, int quality, void **ret_data, size_t *ret_n,
                                       struct problem *problem);

/* Writes to a stream that has been begun. Errors: UNAVAILABLE (the client has gone). */
enum problem_code dialect_write(struct response *response, const char *text, struct problem *problem);
/* A JSON string of the data's base64, piece by piece: pictures may be large, and many. */
enum problem_code dialect_write_base64(struct response *response, const void *data, size_t n, struct problem *problem);
/* The same text as one JSON string; for small ones. */
json_t *dialect_base64(const void *data, size_t n);

/* The signature of a link's text, as hex: by a key of this run. */
#define DIALECT_SIGNATURE_TEXT 65
void dialect_sign(const struct dialects *dialects, const char *text, char ret_signature[DIALECT_SIGNATURE_TEXT]);
bool dialect_is_signed(const struct dialects *dialects, const char *text, const char *signature);

#endif
