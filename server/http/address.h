/* address: numeric internet addresses, ranges of them, and the address to listen on. An IPv4 address is kept in its
 * mapped form. */
#ifndef SERVER_HTTP_ADDRESS_H
#define SERVER_HTTP_ADDRESS_H

#include "base/problem.h"

#include <sys/socket.h>

#define ADDRESS_TEXT 48

struct address {
    unsigned char bytes[16];
};

struct address_range {
    struct address base;
    int n_bits;
};

struct listen_address {
    struct sockaddr_storage socket;
    socklen_t size;
    char text[ADDRESS_TEXT]; /* "127.0.0.1", "[::1]" */
    int port;
    bool is_loopback, is_any;
};

bool address_parse(const char *text, struct address *ret_address);
void address_of_socket(const struct sockaddr *socket, struct address *ret_address);
const char *address_text(const struct address *address, char buffer[ADDRESS_TEXT]);
/* "10.0.0.1, 172.16.0.0/12, ::1". Errors: INVALID (names the setting). The caller frees. */
enum problem_code address_parse_ranges(const char *list, struct address_range **ret_ranges, size_t *ret_n,
                                       struct problem *problem);
bool address_is_within(const struct address *address, const struct address_range *ranges, size_t n);
/* "127.0.0.1:5050", "[::]:80", "localhost:0". Errors: INVALID. */
enum problem_code address_parse_listen(const char *text, struct listen_address *ret_listen, struct problem *problem);
/* Under which this machine reaches it, for links: "127.0.0.1" for all addresses of IPv4. */
const char *address_host(const struct listen_address *listen);
/* A listening socket; port becomes the real one. Errors: INTERNAL (in use, not ours). */
enum problem_code address_listen(struct listen_address *listen, int *ret_fd, struct problem *problem);

#endif
