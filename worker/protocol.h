/* protocol: the messages between server and worker, over a stream socket pair. docs/worker-protocol.md describes each type.
 *
 * A message is 4 bytes "CYW1", the lengths of header and body (32 bits each, little-endian), the header (one JSON object with a
 * member "type"), and the body (pixels or an encoded picture). Lengths are checked against the limits before anything is allocated.
 * Threads: one sender and one receiver of a socket at a time; both at once are fine. */
#ifndef WORKER_PROTOCOL_H
#define WORKER_PROTOCOL_H

#include "text.h"

#include <jansson.h>

#define PROTOCOL_VERSION 1
#define PROTOCOL_MAX_HEADER_BYTES (1024 * 1024)
#define PROTOCOL_MAX_BODY_BYTES (256 * 1024 * 1024)

struct message {
    json_t *header;
    const char *type; /* in header */
    void *body;       /* NULL when body_bytes is 0 */
    size_t body_bytes;
};

/* Sends all of it, waiting as long as the other side takes; header is taken over. Errors: IO, ARGUMENT (over a limit). */
enum cyi_status message_send(int fd, json_t *header, const void *body, size_t body_bytes, struct cyi_error *err);

/* Waits for a whole message. *ret_is_end: the other side has closed between two messages; nothing was received then.
 * Errors: FORMAT (magic, lengths, JSON), IO (the socket, its time limit, or an end within a message), MEMORY. */
enum cyi_status message_receive(int fd, struct message *ret_message, bool *ret_is_end, struct cyi_error *err);
void message_done(struct message *message);

/* Members of a header. Absent or of another type: "", fallback. */
const char *message_text(const struct message *message, const char *name);
int64_t message_int(const struct message *message, const char *name, int64_t fallback);
double message_number(const struct message *message, const char *name, double fallback);
bool message_is_true(const struct message *message, const char *name);

#endif
