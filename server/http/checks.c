/* checks: what a request must be before anybody looks at what it wants. Framing that two programs could read
 * differently is refused; the name under which we are asked must be ours (a page of another name that points here is an
 * attack: DNS rebinding); and pages of other origins may not act in the name of whoever is signed in. */
#include "http/http_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- Framing ---- */

bool check_header_token(const char *text) {
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (const char *c = text; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && strchr(others, *c) == NULL) {
            return false;
        }
    }
    return text[0] != '\0';
}

static bool is_clean_value(const char *text) {
    for (const char *c = text; *c != '\0'; c++) {
        if (((unsigned char)*c < ' ' && *c != '\t') || *c == 0x7F) {
            return false;
        }
    }
    return true;
}

static size_t count_header(const struct request *request, const char *name) {
    size_t n = 0;
    for (size_t i = 0; i < request->n_headers; i++) {
        n += strcasecmp(request->headers[i].name, name) == 0;
    }
    return n;
}

enum problem_code check_framing(struct request *request, const char *version, struct problem *problem) {
    static const char *const single[] = {
        "Content-Length", "Transfer-Encoding", "Content-Type",  "Content-Encoding", "Authorization", "Cookie", "Origin",
        "Range",          "If-Range",          "Last-Event-ID", "X-Forwarded-Host"
    };
    const char *length = request_header(request, "Content-Length");
    const char *coding = request_header(request, "Transfer-Encoding");
    for (size_t i = 0; i < request->n_headers; i++) {
        const struct pair *header = &request->headers[i];
        if (!check_header_token(header->name) || !is_clean_value(header->value)) {
            return problem_set(problem, PROBLEM_MALFORMED, NULL, "a line of the head cannot be read");
        }
    }
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++) {
        if (count_header(request, single[i]) > 1) {
            return problem_set(problem, PROBLEM_MALFORMED, NULL, "the head says %s more than once", single[i]);
        }
    }
    if (!check_header_token(request->method) ||
        (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)) {
        return problem_set(problem, PROBLEM_MALFORMED, NULL, "the request is not of HTTP/1.1");
    }
    if (length != NULL && (length[0] == '\0' || strlen(length) > 18 || length[strspn(length, "0123456789")] != '\0')) {
        return problem_set(problem, PROBLEM_MALFORMED, NULL, "Content-Length is no number of bytes");
    }
    if (coding != NULL && (length != NULL || strcasecmp(coding, "chunked") != 0 || strcmp(version, "HTTP/1.1") != 0)) {
        return problem_set(problem, PROBLEM_MALFORMED, NULL, "the length of the body is not clear");
    }
    return PROBLEM_NONE;
}

/* ---- Who asks, and under which name ---- */

/* The last address that a proxy of ours did not vouch for. */
static void find_address(struct request *request, bool is_proxied) {
    const char *header = is_proxied ? request_header(request, "X-Forwarded-For") : NULL;
    struct address address = request->connection->address, next;
    char *list = text_copy(header != NULL ? header : ""), *comma;
    do {
        comma = strrchr(list, ',');
        char *item = comma != NULL ? comma + 1 : list;
        item += strspn(item, " \t");
        item[strcspn(item, " \t")] = '\0';
        if (!http_is_trusted(request->http, &address) || !address_parse(item, &next)) {
            break;
        }
        address = next;
        if (comma != NULL) {
            *comma = '\0';
        }
    } while (comma != NULL);
    free(list);
    (void)address_text(&address, request->address);
}

/* "name:port" → its name; *ret_port -1: none is said. false: it is no host at all. */
static bool split_host(const char *host, char name[256], int *ret_port) {
    const bool has_brackets = host[0] == '[';
    const char *close = has_brackets ? strchr(host, ']') : NULL;
    const size_t n = has_brackets ? (close != NULL ? (size_t)(close - host) + 1 : 0) : strcspn(host, ":");
    const char *rest = host + n;
    if (n == 0 || n > 255 ||
        strspn(host + has_brackets, has_brackets
                                        ? "0123456789abcdefABCDEF:."
                                        : "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") +
                (has_brackets ? 2U : 0U) !=
            n) {
        return false;
    }
    (void)snprintf(name, 256, "%.*s", (int)n, host);
    *ret_port = -1;
    if (*rest == ':' && rest[1] != '\0' && strlen(rest) <= 6 && rest[1 + strspn(rest + 1, "0123456789")] == '\0') {
        *ret_port = (int)strtol(rest + 1, NULL, 10);
        rest += strlen(rest);
    }
    return *rest == '\0';
}

static bool is_our_name(const struct http *http, const char *name) {
    const struct listen_address *listen = &http->listen;
    const bool answers_locally = listen->is_loopback || listen->is_any;
    return strcasecmp(name, listen->text) == 0 ||
           (answers_locally &&
            (strcasecmp(name, "localhost") == 0 || strcmp(name, "127.0.0.1") == 0 || strcasecmp(name, "[::1]") == 0));
}

static bool is_our_host(const struct http *http, const char *host) {
    char name[256];
    int port;
    if (!split_host(host, name, &port)) {
        return false;
    }
    const int usual = http->certificate != NULL ? 443 : 80;
    return settings_list_has(http->options.settings, SETTING_hosts, host) ||
           settings_list_has(http->options.settings, SETTING_hosts, name) ||
           (is_our_name(http, name) && (port == -1 ? usual : port) == http->listen.port);
}

static bool is_prefix(const char *text) {
    const size_t n = strlen(text);
    return n > 1 && n < 256 && text[0] == '/' && text[n - 1] != '/' && strstr(text, "//") == NULL &&
           strstr(text, "..") == NULL &&
           text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_-.~")] == '\0';
}

enum problem_code check_host(struct request *request, struct problem *problem) {
    struct http *http = request->http;
    const bool is_proxied = http_is_trusted(http, &request->connection->address);
    const char *forwarded = is_proxied ? request_header(request, "X-Forwarded-Host") : NULL;
    const char *scheme = is_proxied ? request_header(request, "X-Forwarded-Proto") : NULL;
    const char *prefix = is_proxied ? request_header(request, "X-Forwarded-Prefix") : NULL;
    const char *host = forwarded != NULL ? forwarded : request_header(request, "Host");
    find_address(request, is_proxied);
    if (count_header(request, "Host") != 1 || !is_our_host(http, host)) {
        return problem_set(
            problem, PROBLEM_WRONG_HOST, NULL,
            "this studio does not answer to the name \"%.100s\"; its owner can add it to the setting hosts",
            host != NULL && is_clean_value(host) && text_is_utf8(host) ? host : "");
    }
    request->is_secure = http->certificate != NULL || (scheme != NULL && strcasecmp(scheme, "https") == 0);
    request->origin = text_format("%s://%s", request->is_secure ? "https" : "http", host);
    const char *base = http->base_path[0] == '\0' && prefix != NULL && is_prefix(prefix) ? prefix : http->base_path;
    request->base_url = text_format("%s%s", request->origin, base);
    return PROBLEM_NONE;
}

/* ---- Pages of other origins ---- */

void check_origin(struct request *request) {
    const char *origin = request_header(request, "Origin");
    const char *site = request_header(request, "Sec-Fetch-Site");
    const bool is_configured = origin != NULL && strcmp(origin, "null") != 0 &&
                               settings_list_has(request->http->options.settings, SETTING_cors_origins, origin);
    const bool is_elsewhere =
        site != NULL && (strcasecmp(site, "cross-site") == 0 || strcasecmp(site, "same-site") == 0);
    request->cors_origin = is_configured ? origin : NULL;
    request->is_foreign_origin =
        !is_configured && (origin != NULL ? strcasecmp(origin, request->origin) != 0 || is_elsewhere : is_elsewhere);
}

/* What a browser sends by itself (cookies, or nothing where everybody may all) must come from our own page. Tokens are
 * never sent by a browser by itself. */
enum problem_code check_forgery(const struct request *request, struct problem *problem) {
    const bool is_read = request->is_head || strcmp(request->method, "GET") == 0;
    if (is_read || request->caller.token_id[0] != '\0') {
        return PROBLEM_NONE;
    }
    const char *origin = request_header(request, "Origin");
    if (request->is_foreign_origin) {
        return problem_set(problem, PROBLEM_FORBIDDEN, NULL,
                           "the page \"%.100s\" is not this studio's (%.200s) and may not act here",
                           origin != NULL && text_is_utf8(origin) ? origin : "of another site", request->origin);
    }
    const bool is_form = strcmp(request->method, "POST") == 0 && (request->route->flags & ROUTE_SIMPLE) == 0;
    return !is_form || origin != NULL || request_type_is(request, "application/json") ||
                   request_header(request, "X-CyberImage") != NULL
               ? PROBLEM_NONE
               : problem_set(
                     problem, PROBLEM_FORBIDDEN, NULL,
                     "without a token the request must be application/json, or have the header X-CyberImage: 1");
}
