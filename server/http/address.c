/* Addresses: see address.h. */
#include "http/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BACKLOG 1024

static void from_v4(const void *four_bytes, struct address *ret_address) {
    *ret_address = (struct address){ .bytes = { [10] = 0xFF, [11] = 0xFF } };
    memcpy(ret_address->bytes + 12, four_bytes, 4);
}

static bool is_v4(const struct address *address) {
    struct address mapped;
    from_v4(address->bytes + 12, &mapped);
    return memcmp(&mapped, address, sizeof mapped) == 0;
}

bool address_parse(const char *text, struct address *ret_address) {
    unsigned char four[4];
    if (inet_pton(AF_INET, text, four) == 1) {
        from_v4(four, ret_address);
        return true;
    }
    return inet_pton(AF_INET6, text, ret_address->bytes) == 1;
}

void address_of_socket(const struct sockaddr *socket, struct address *ret_address) {
    *ret_address = (struct address){ { 0 } };
    if (socket != NULL && socket->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, socket, sizeof in);
        from_v4(&in.sin_addr, ret_address);
    } else if (socket != NULL && socket->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, socket, sizeof in6);
        memcpy(ret_address->bytes, &in6.sin6_addr, sizeof ret_address->bytes);
    }
}

const char *address_text(const struct address *address, char buffer[ADDRESS_TEXT]) {
    const bool is_four = is_v4(address);
    buffer[0] = '\0';
    (void)inet_ntop(is_four ? AF_INET : AF_INET6, address->bytes + (is_four ? 12 : 0), buffer, ADDRESS_TEXT);
    return buffer;
}

/* ---- Ranges ---- */

static bool parse_range(const char *text, struct address_range *ret_range) {
    const char *slash = strchr(text, '/');
    char base[ADDRESS_TEXT];
    const int n = slash != NULL ? (int)(slash - text) : (int)strlen(text);
    if (n >= ADDRESS_TEXT) {
        return false;
    }
    (void)snprintf(base, sizeof base, "%.*s", n, text);
    if (!address_parse(base, &ret_range->base)) {
        return false;
    }
    const int first_bit = is_v4(&ret_range->base) ? 96 : 0;
    ret_range->n_bits = 128;
    if (slash != NULL) {
        char *end = NULL;
        const long bits = strtol(slash + 1, &end, 10);
        if (end == slash + 1 || *end != '\0' || bits < 0 || bits > 128 - first_bit) {
            return false;
        }
        ret_range->n_bits = first_bit + (int)bits;
    }
    return true;
}

enum problem_code address_parse_ranges(const char *list, struct address_range **ret_ranges, size_t *ret_n,
                                       struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    struct address_range *ranges = NULL;
    size_t n = 0;
    char *copy = text_copy(list), *rest = copy;
    while (rest != NULL && st == PROBLEM_NONE) {
        char *item = strsep(&rest, ",");
        item += strspn(item, " \t");
        item[strcspn(item, " \t")] = '\0';
        if (item[0] == '\0') {
            continue;
        }
        ranges = text_resize(ranges, n + 1, sizeof *ranges);
        if (!parse_range(item, &ranges[n++])) {
            st = problem_set(problem, PROBLEM_INVALID, "trusted-proxies",
                             "trusted-proxies: \"%.60s\" is neither an address nor a range such as 10.0.0.0/8", item);
        }
    }
    free(copy);
    if (st != PROBLEM_NONE) {
        free(ranges);
        return st;
    }
    *ret_ranges = ranges;
    *ret_n = n;
    return PROBLEM_NONE;
}

static bool is_within(const struct address *address, const struct address_range *range) {
    const size_t n_bytes = (size_t)range->n_bits / 8;
    const int rest = range->n_bits % 8;
    return memcmp(address->bytes, range->base.bytes, n_bytes) == 0 &&
           (rest == 0 || ((address->bytes[n_bytes] ^ range->base.bytes[n_bytes]) >> (8 - rest)) == 0);
}

bool address_is_within(const struct address *address, const struct address_range *ranges, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (is_within(address, &ranges[i])) {
            return true;
        }
    }
    return false;
}

/* ---- Listening ---- */

static bool is_loopback(const struct address *address) {
    static const struct address v6 = { .bytes = { [15] = 1 } };
    return (is_v4(address) && address->bytes[12] == 127) || memcmp(address, &v6, sizeof v6) == 0;
}

static bool is_any(const struct address *address) {
    struct address any = { { 0 } }, any_v4;
    from_v4(any.bytes, &any_v4);
    return memcmp(address, &any, sizeof any) == 0 || memcmp(address, &any_v4, sizeof any) == 0;
}

static void fill_socket(const struct address *address, int port, struct listen_address *listen) {
    if (is_v4(address)) {
        struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
        memcpy(&in.sin_addr, address->bytes + 12, 4);
        memcpy(&listen->socket, &in, sizeof in);
        listen->size = sizeof in;
    } else {
        struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
        memcpy(&in6.sin6_addr, address->bytes, 16);
        memcpy(&listen->socket, &in6, sizeof in6);
        listen->size = sizeof in6;
    }
}

enum problem_code address_parse_listen(const char *text, struct listen_address *ret_listen, struct problem *problem) {
    struct listen_address listen = { 0 };
    struct address address;
    char host[ADDRESS_TEXT] = "", plain[ADDRESS_TEXT];
    const char *colon = strrchr(text, ':');
    const size_t n = colon != NULL ? (size_t)(colon - text) : 0;
    const bool has_brackets = n > 2 && text[0] == '[' && text[n - 1] == ']';
    if (n > 0 && n < sizeof host) {
        (void)snprintf(host, sizeof host, "%.*s", (int)(has_brackets ? n - 2 : n), text + (has_brackets ? 1 : 0));
    }
    const char *digits = colon != NULL ? colon + 1 : "";
    const long port = strtol(digits, NULL, 10);
    const bool is_name = strcmp(host, "localhost") == 0;
    if (digits[0] == '\0' || digits[strspn(digits, "0123456789")] != '\0' || strlen(digits) > 5 || port > 65535 ||
        !address_parse(is_name ? "127.0.0.1" : host, &address) || is_v4(&address) == has_brackets) {
        return problem_set(
            problem, PROBLEM_INVALID, "listen",
            "listen must be a numeric address and a port such as 127.0.0.1:5050 or [::1]:5050, not \"%.100s\"", text);
    }
    listen.port = (int)port;
    listen.is_loopback = is_loopback(&address);
    listen.is_any = is_any(&address);
    (void)address_text(&address, plain);
    (void)snprintf(listen.text, sizeof listen.text, has_brackets ? "[%.45s]" : "%.45s", plain);
    fill_socket(&address, listen.port, &listen);
    *ret_listen = listen;
    return PROBLEM_NONE;
}

const char *address_host(const struct listen_address *listen) {
    return !listen->is_any ? listen->text : listen->text[0] == '[' ? "[::1]" : "127.0.0.1";
}

enum problem_code address_listen(struct listen_address *listen_at, int *ret_fd, struct problem *problem) {
    const int on = 1;
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    char words[128];
    const int fd = socket(listen_at->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (const struct sockaddr *)&listen_at->socket, listen_at->size) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &size) != 0) {
        const int error = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return problem_set(problem, PROBLEM_INTERNAL, "listen", "cannot listen on %s:%d: %s", listen_at->text,
                           listen_at->port, strerror_r(error, words, sizeof words));
    }
    if (bound.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &bound, sizeof in);
        listen_at->port = ntohs(in.sin_port);
    } else {
        struct sockaddr_in6 in6;
        memcpy(&in6, &bound, sizeof in6);
        listen_at->port = ntohs(in6.sin6_port);
    }
    *ret_fd = fd;
    return PROBLEM_NONE;
}
