/* Fuzz target: what a worker reads from its socket. Messages are received until one is refused or the stream ends; what is received
 * must hold together, and each is checked as an order. */
#include "order.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_INPUT_BYTES 65536 /* a socket holds as much, so that no second thread is needed */

static void read_messages(int fd) {
    for (;;) {
        struct message message = { 0 };
        struct cyi_error err = { 0 };
        bool is_end = false;
        const enum cyi_status st = message_receive(fd, &message, &is_end, &err);
        if (st != CYI_OK || is_end) {
            if (message.header != NULL || message.body != NULL || (st != CYI_OK) != (err.text[0] != '\0')) {
                abort();
            }
            return;
        }
        if (message.type == NULL || (message.body == NULL) != (message.body_bytes == 0)) {
            abort();
        }
        if (order_check(&message, &err) == CYI_OK) { /* the engine's side may rely on these */
            const int64_t index = message_int(&message, "index", 0);
            if (strlen(message_text(&message, "id")) > ORDER_MAX_ID_BYTES || index < 0 || index >= CYI_MAX_REFERENCES) {
                abort();
            }
        } else if (err.code != CYI_E_ARGUMENT || err.text[0] == '\0') {
            abort();
        }
        message_done(&message);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int pair[2];
    if (size > MAX_INPUT_BYTES || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return 0;
    }
    if (size == 0 || send(pair[0], data, size, MSG_NOSIGNAL) == (ssize_t)size) {
        (void)shutdown(pair[0], SHUT_WR);
        read_messages(pair[1]);
    }
    (void)close(pair[0]);
    (void)close(pair[1]);
    return 0;
}
