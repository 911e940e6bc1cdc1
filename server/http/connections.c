/* connections: every open socket, so that one address does not take them all and a request that drips in is cut. */
#include "http/http_internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void connections_init(struct connections *connections) {
    (void)pthread_mutex_init(&connections->mutex, NULL);
}

void connections_done(struct connections *connections) {
    (void)pthread_mutex_destroy(&connections->mutex);
}

bool connections_have_room(struct http *http, const struct sockaddr *socket) {
    struct connections *connections = &http->connections;
    struct address address;
    size_t n = 0;
    address_of_socket(socket, &address);
    if (http_is_trusted(http, &address)) { /* it stands for many */
        return true;
    }
    (void)pthread_mutex_lock(&connections->mutex);
    for (const struct connection *connection = connections->first; connection != NULL; connection = connection->next) {
        n += memcmp(&connection->address, &address, sizeof address) == 0;
    }
    (void)pthread_mutex_unlock(&connections->mutex);
    return n < http->max_per_address;
}

struct connection *connections_add(struct http *http, int fd, const struct sockaddr *socket) {
    struct connections *connections = &http->connections;
    struct connection *connection = text_alloc(1, sizeof *connection);
    connection->fd = fd;
    connection->deadline_us = clock_monotonic_us() + 4 * http->timeout_us;
    address_of_socket(socket, &connection->address);
    (void)pthread_mutex_lock(&connections->mutex);
    connection->next = connections->first;
    if (connection->next != NULL) {
        connection->next->previous = connection;
    }
    connections->first = connection;
    connections->n++;
    (void)pthread_mutex_unlock(&connections->mutex);
    return connection;
}

void connections_remove(struct connections *connections, struct connection *connection) {
    (void)pthread_mutex_lock(&connections->mutex);
    if (connection->previous != NULL) {
        connection->previous->next = connection->next;
    } else {
        connections->first = connection->next;
    }
    if (connection->next != NULL) {
        connection->next->previous = connection->previous;
    }
    connections->n--;
    (void)pthread_mutex_unlock(&connections->mutex);
    free(connection);
}

void connections_expect(struct connections *connections, struct connection *connection, int64_t deadline_us) {
    (void)pthread_mutex_lock(&connections->mutex);
    connection->deadline_us = deadline_us;
    (void)pthread_mutex_unlock(&connections->mutex);
}

/* The library sees the end of the socket and closes it. A listed socket is open: it leaves the list before it is closed. */
void connections_sweep(struct http *http) {
    struct connections *connections = &http->connections;
    const int64_t now_us = clock_monotonic_us();
    (void)pthread_mutex_lock(&connections->mutex);
    for (struct connection *connection = connections->first; connection != NULL; connection = connection->next) {
        if (connection->deadline_us != 0 && connection->deadline_us < now_us) {
            (void)shutdown(connection->fd, SHUT_RDWR);
        }
    }
    (void)pthread_mutex_unlock(&connections->mutex);
}
