/* Messages between server and worker: see protocol.h. */
#include "protocol.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PREFIX_BYTES 12

static const char magic[4] = { 'C', 'Y', 'W', '1' };

static void put_length(uint8_t *bytes, size_t length) {
    for (int i = 0; i < 4; i++) {
        bytes[i] = (uint8_t)(length >> (8 * i));
    }
}

static size_t get_length(const uint8_t *bytes) {
    return (size_t)bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
}

static enum cyi_status check_lengths(size_t header_bytes, size_t body_bytes, enum cyi_status code,
                                     struct cyi_error *err) {
    if (header_bytes < 2 || header_bytes > PROTOCOL_MAX_HEADER_BYTES) {
        return text_error(err, code, "a message has a header of %zu bytes; from 2 to %d are accepted", header_bytes,
                          PROTOCOL_MAX_HEADER_BYTES);
    }
    if (body_bytes > PROTOCOL_MAX_BODY_BYTES) {
        return text_error(err, code, "a message has a body of %zu bytes; at most %d are accepted", body_bytes,
                          PROTOCOL_MAX_BODY_BYTES);
    }
    return CYI_OK;
}

static enum cyi_status send_parts(int fd, struct iovec *parts, size_t n_parts, struct cyi_error *err) {
    while (n_parts > 0) {
        const struct msghdr head = { .msg_iov = parts, .msg_iovlen = n_parts };
        const ssize_t n = sendmsg(fd, &head, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return text_error(err, CYI_E_IO, "a message could not be sent: %s", strerror(errno));
        }
        size_t left = (size_t)n;
        while (n_parts > 0 && left >= parts->iov_len) {
            left -= parts->iov_len;
            parts++;
            n_parts--;
        }
        if (n_parts > 0) {
            parts->iov_base = (char *)parts->iov_base + left;
            parts->iov_len -= left;
        }
    }
    return CYI_OK;
}

enum cyi_status message_send(int fd, json_t *header, const void *body, size_t body_bytes, struct cyi_error *err) {
    uint8_t prefix[PREFIX_BYTES];
    char *text = header != NULL ? json_dumps(header, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(header);
    if (text == NULL) {
        text_out_of_memory();
    }
    enum cyi_status st = check_lengths(strlen(text), body_bytes, CYI_E_ARGUMENT, err);
    if (st == CYI_OK) {
        union {
            const void *in;
            void *out; /* sendmsg only reads, though its type does not say so */
        } body_of = { .in = body };
        struct iovec parts[] = { { prefix, PREFIX_BYTES }, { text, strlen(text) }, { body_of.out, body_bytes } };
        memcpy(prefix, magic, sizeof magic);
        put_length(prefix + 4, strlen(text));
        put_length(prefix + 8, body_bytes);
        st = send_parts(fd, parts, body_bytes > 0 ? 3 : 2, err);
    }
    free(text);
    return st;
}

/* *ret_n: bytes that came before the end of the stream, n when all did. */
static enum cyi_status receive_bytes(int fd, void *data, size_t n, size_t *ret_n, struct cyi_error *err) {
    size_t got = 0;
    while (got < n) {
        const ssize_t m = recv(fd, (char *)data + got, n - got, 0);
        if (m < 0 && errno == EINTR) {
            continue;
        }
        if (m < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK
                       ? text_error(err, CYI_E_IO, "a message stopped coming after %zu of %zu bytes", got, n)
                       : text_error(err, CYI_E_IO, "a message could not be received: %s", strerror(errno));
        }
        if (m == 0) {
            break;
        }
        got += (size_t)m;
    }
    *ret_n = got;
    return CYI_OK;
}

static enum cyi_status receive_whole(int fd, void *data, size_t n, struct cyi_error *err) {
    size_t got = 0;
    const enum cyi_status st = receive_bytes(fd, data, n, &got, err);
    return st == CYI_OK && got < n ? text_error(err, CYI_E_IO, "the other side closed within a message") : st;
}

static enum cyi_status parse_header(const char *text, size_t n, struct message *message, struct cyi_error *err) {
    json_error_t error;
    message->header = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (message->header == NULL) {
        return text_error(err, CYI_E_FORMAT, "a message's header is no JSON object: byte %d is wrong", error.position);
    }
    message->type = json_string_value(json_object_get(message->header, "type"));
    return message->type != NULL ? CYI_OK
                                 : text_error(err, CYI_E_FORMAT, "a message's header is no object with a type");
}

enum cyi_status message_receive(int fd, struct message *ret_message, bool *ret_is_end, struct cyi_error *err) {
    struct message message = { 0 };
    uint8_t prefix[PREFIX_BYTES];
    size_t got = 0;
    char *text = NULL;
    enum cyi_status st = receive_bytes(fd, prefix, PREFIX_BYTES, &got, err);
    *ret_is_end = st == CYI_OK && got == 0;
    if (st != CYI_OK || *ret_is_end) {
        return st;
    }
    if (got < PREFIX_BYTES) {
        return text_error(err, CYI_E_IO, "the other side closed within a message");
    }
    if (memcmp(prefix, magic, sizeof magic) != 0) {
        return text_error(err, CYI_E_FORMAT, "a message does not begin with CYW1");
    }
    const size_t header_bytes = get_length(prefix + 4);
    message.body_bytes = get_length(prefix + 8);
    if ((st = check_lengths(header_bytes, message.body_bytes, CYI_E_FORMAT, err)) != CYI_OK) {
        return st;
    }
    text = text_alloc(header_bytes, 1);
    if ((st = receive_whole(fd, text, header_bytes, err)) == CYI_OK &&
        (st = parse_header(text, header_bytes, &message, err)) == CYI_OK && message.body_bytes > 0) {
        message.body = malloc(message.body_bytes);
        st = message.body != NULL
                 ? receive_whole(fd, message.body, message.body_bytes, err)
                 : text_error(err, CYI_E_MEMORY, "there is no memory for a message of %zu bytes", message.body_bytes);
    }
    free(text);
    if (st == CYI_OK) {
        *ret_message = message;
    } else {
        message_done(&message);
    }
    return st;
}

void message_done(struct message *message) {
    json_decref(message->header);
    free(message->body);
    *message = (struct message){ 0 };
}

const char *message_text(const struct message *message, const char *name) {
    const char *text = json_string_value(json_object_get(message->header, name));
    return text != NULL ? text : "";
}

int64_t message_int(const struct message *message, const char *name, int64_t fallback) {
    const json_t *value = json_object_get(message->header, name);
    return json_is_integer(value) ? json_integer_value(value) : fallback;
}

double message_number(const struct message *message, const char *name, double fallback) {
    const json_t *value = json_object_get(message->header, name);
    return json_is_number(value) ? json_number_value(value) : fallback;
}

bool message_is_true(const struct message *message, const char *name) {
    return json_is_true(json_object_get(message->header, name));
}
