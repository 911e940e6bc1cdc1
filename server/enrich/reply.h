/* reply: reads the body of an answer to POST …/chat/completions as it comes: server-sent events, or one JSON object
 * from endpoints that do not stream. Everything in it is bounded, and nothing of it is believed. */
#ifndef SERVER_ENRICH_REPLY_H
#define SERVER_ENRICH_REPLY_H

#include "base/json.h"

#define REPLY_MAX_BYTES ((size_t)1024 * 1024) /* of the body */
#define REPLY_MAX_LINE ((size_t)128 * 1024)   /* one event */
#define REPLY_MAX_TEXT ((size_t)128 * 1024)   /* the model's words, with its thinking */

enum reply_form { REPLY_UNKNOWN, REPLY_EVENTS, REPLY_OBJECT };

struct reply {
    enum reply_form form;
    size_t n_bytes; /* of the body so far */
    struct {
        char *bytes;
        size_t n, capacity;
    } line, text;     /* line: what has no end yet, of an object all of it. text ends with a zero byte or is NULL */
    bool is_finished; /* the endpoint said that there is no more */
    bool is_refused;  /* its filter ended the reply */
    char model[128];  /* what it calls the model; "" when it does not say */
    struct problem problem; /* what reply_feed found */
};

/* *reply zeroed is a new one. */
void reply_free(struct reply *reply);

/* Takes the next bytes. The same bytes give the same text, however they are cut. Errors: UPSTREAM (too much,
 * unreadable, or an error that the endpoint tells within its reply), and the same again for everything after that. */
enum problem_code reply_feed(struct reply *reply, const void *bytes, size_t n, struct problem *problem);
/* The body has ended. Errors: UPSTREAM (cut off, no text, refused, not a chat completion). */
enum problem_code reply_end(struct reply *reply, struct problem *problem);
/* The model's words so far, "" when there are none. */
const char *reply_text(const struct reply *reply);

/* The sentence in an error's body, {"error": {"message": …}}, {"error": "…"}, {"message": …} or {"detail": …}, cleaned,
 * into buffer; "" when there is none. secret (may be NULL) is blotted out. */
const char *reply_error_text(const char *body, size_t n, const char *secret, char *buffer, size_t size);

#endif
