/* Asking an endpoint through libcurl: see client.h. */
#include "enrich/client.h"

#include "base/clock.h"

#include <curl/curl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONNECT_SECONDS 10
#define POLL_MS 150
#define MAX_ERROR_BYTES ((size_t)64 * 1024)
#define MAX_WAIT_SECONDS 86400 /* of what an endpoint says in Retry-After */

/* ---- The endpoint ---- */

static char *part_of(CURLU *url, CURLUPart part) {
    char *text = NULL;
    char *copy = curl_url_get(url, part, &text, 0) == CURLUE_OK ? text_copy(text) : NULL;
    curl_free(text);
    return copy;
}

/* Appends the path of completions, unless the address ends with it already. */
static void complete_path(CURLU *url) {
    static const char tail[] = "/chat/completions";
    char *path = part_of(url, CURLUPART_PATH);
    size_t n = path != NULL ? strlen(path) : 0;
    while (n > 0 && path[n - 1] == '/') {
        n--;
    }
    const bool is_complete = n >= strlen(tail) && strncmp(path + n - strlen(tail), tail, strlen(tail)) == 0;
    char *longer = text_format("%.*s%s", (int)n, path != NULL ? path : "", is_complete ? "" : tail);
    (void)curl_url_set(url, CURLUPART_PATH, longer, 0);
    free(longer);
    free(path);
}

static char *shown_address(CURLU *url) {
    CURLU *copy = curl_url_dup(url);
    if (copy == NULL) {
        text_out_of_memory();
    }
    static const CURLUPart secrets[] = { CURLUPART_QUERY, CURLUPART_FRAGMENT };
    for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++) {
        (void)curl_url_set(copy, secrets[i], NULL, 0);
    }
    char *text = part_of(copy, CURLUPART_URL);
    curl_url_cleanup(copy);
    return text;
}

bool endpoint_read(struct settings *settings, struct endpoint *endpoint) {
    char *text = settings_text(settings, SETTING_enrich_url);
    const bool is_set = text[0] != '\0';
    *endpoint = (struct endpoint){ 0 };
    if (!is_set) {
        free(text);
        return false;
    }
    CURLU *url = curl_url();
    if (url == NULL || curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK) {
        text_out_of_memory(); /* the address was checked when it was set */
    }
    endpoint->shown = shown_address(url);
    complete_path(url);
    (void)curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0);
    endpoint->url = part_of(url, CURLUPART_URL);
    endpoint->host = part_of(url, CURLUPART_HOST);
    endpoint->key = settings_text(settings, SETTING_enrich_key);
    endpoint->model = settings_text(settings, SETTING_enrich_model);
    endpoint->temperature = settings_number(settings, SETTING_enrich_temperature);
    endpoint->timeout_seconds = (int)settings_int(settings, SETTING_enrich_timeout);
    curl_url_cleanup(url);
    free(text);
    return true;
}

void endpoint_free(struct endpoint *endpoint) {
    if (endpoint->key != NULL) {
        sodium_memzero(endpoint->key, strlen(endpoint->key));
    }
    free(endpoint->url);
    free(endpoint->shown);
    free(endpoint->host);
    free(endpoint->key);
    free(endpoint->model);
    *endpoint = (struct endpoint){ 0 };
}

/* ---- One transfer ---- */

struct transfer {
    const struct endpoint *endpoint;
    struct exchange *exchange;
    const struct client_hooks *hooks;
    size_t i;
    CURL *easy;
    struct curl_slist *headers;
    char *body, *error_body;
    size_t n_error;
    int64_t started_us;
    bool is_ended;
};

static char *request_body(const struct endpoint *endpoint, const struct exchange *exchange) {
    json_t *body =
        JSON("{s:[{s:s, s:s}, {s:s, s:o}], s:b, s:f}", "messages", "role", "system", "content", exchange->system,
             "role", "user", "content", json_text(exchange->user), "stream", 1, "temperature", endpoint->temperature);
    if (endpoint->model[0] != '\0') {
        json_put(body, "model", json_text(endpoint->model));
    }
    if (exchange->seed >= 0) {
        json_put(body, "seed", json_integer(exchange->seed & 0x7fffffff)); /* some take no more */
    }
    char *text = json_text_of(body);
    json_decref(body);
    return text;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *user) {
    struct transfer *transfer = user;
    struct exchange *exchange = transfer->exchange;
    long status = 0;
    n *= size;
    (void)curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200 || status > 299) {
        const size_t room = MAX_ERROR_BYTES - transfer->n_error, n_kept = n < room ? n : room;
        transfer->error_body = text_resize(transfer->error_body, transfer->n_error + n_kept + 1, 1);
        memcpy(transfer->error_body + transfer->n_error, bytes, n_kept);
        transfer->n_error += n_kept;
        return n_kept == n ? n : 0; /* enough to know */
    }
    const size_t n_before = exchange->reply.text.n;
    if (reply_feed(&exchange->reply, bytes, n, &exchange->problem) != PROBLEM_NONE) {
        return 0;
    }
    if (exchange->reply.text.n > n_before) {
        transfer->hooks->on_text(transfer->hooks->user, transfer->i);
    }
    return n;
}

static void add_header(struct transfer *transfer, const char *header) {
    struct curl_slist *longer = curl_slist_append(transfer->headers, header);
    if (longer == NULL) {
        text_out_of_memory();
    }
    transfer->headers = longer;
}

/* A handle of its own for each request: nothing of another one's connection or credentials is used again. */
static void open_transfer(struct transfer *transfer) {
    const struct endpoint *endpoint = transfer->endpoint;
    CURL *easy = transfer->easy = curl_easy_init();
    if (easy == NULL) {
        text_out_of_memory();
    }
    add_header(transfer, "Content-Type: application/json");
    add_header(transfer, "Accept: text/event-stream, application/json");
    add_header(transfer, "Expect:");
    if (endpoint->key[0] != '\0') {
        char *header = text_format("Authorization: Bearer %s", endpoint->key);
        add_header(transfer, header);
        sodium_memzero(header, strlen(header));
        free(header);
    }
    transfer->body = request_body(endpoint, transfer->exchange);
    transfer->started_us = clock_monotonic_us();
    (void)curl_easy_setopt(easy, CURLOPT_URL, endpoint->url);
    (void)curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl_easy_setopt(easy, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    (void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    (void)curl_easy_setopt(easy, CURLOPT_TIMEOUT, (long)endpoint->timeout_seconds);
    (void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
    (void)curl_easy_setopt(easy, CURLOPT_USERAGENT, "CyberImage/" CYI_VERSION);
    (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(transfer->body));
    (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->body);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    (void)curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
}

/* ---- What went wrong, in one sentence ---- */

static enum problem_code tell_redirect(struct transfer *transfer, long status, struct problem *problem) {
    char *place = NULL;
    CURLU *url = curl_url();
    (void)curl_easy_getinfo(transfer->easy, CURLINFO_REDIRECT_URL, &place);
    char *host = url != NULL && place != NULL && curl_url_set(url, CURLUPART_URL, place, 0) == CURLUE_OK
                     ? part_of(url, CURLUPART_HOST)
                     : NULL;
    const enum problem_code st = problem_set(problem, PROBLEM_UPSTREAM, NULL,
                                             "%s sends on to %.100s (%ld), which is not followed so that the key stays "
                                             "here: set enrich-url to the final address",
                                             transfer->endpoint->host, host != NULL ? host : "another place", status);
    curl_url_cleanup(url);
    free(host);
    return st;
}

static enum problem_code tell_wait(struct transfer *transfer, long status, struct problem *problem) {
    curl_off_t wait = 0;
    (void)curl_easy_getinfo(transfer->easy, CURLINFO_RETRY_AFTER, &wait);
    if (wait > 0 && wait <= MAX_WAIT_SECONDS) {
        problem->retry_after_seconds = (int)wait;
        return problem_set(problem, PROBLEM_UPSTREAM, NULL,
                           "%s takes no more requests for now (%ld); it says to try again in %d s",
                           transfer->endpoint->host, status, (int)wait);
    }
    return problem_set(problem, PROBLEM_UPSTREAM, NULL,
                       "%s takes no more requests for now (%ld): its rate or its credit is used up",
                       transfer->endpoint->host, status);
}

/* The endpoint's own words help with what it does not like in the request; with a refused key they may repeat the key. */
static enum problem_code tell_status(struct transfer *transfer, long status, struct problem *problem) {
    const struct endpoint *endpoint = transfer->endpoint;
    char words[256];
    (void)reply_error_text(transfer->error_body, transfer->n_error, endpoint->key, words, sizeof words);
    const char *colon = words[0] != '\0' ? ": " : "";
    if (status >= 300 && status <= 399) {
        return tell_redirect(transfer, status, problem);
    }
    if (status == 401 || status == 403) {
        return problem_set(problem, PROBLEM_UPSTREAM, NULL,
                           endpoint->key[0] != '\0' ? "%s does not accept the key (%ld): check enrich-key"
                                                    : "%s wants a key (%ld): set enrich-key",
                           endpoint->host, status);
    }
    if (status == 402 || status == 429) {
        return tell_wait(transfer, status, problem);
    }
    if (status == 404) {
        return problem_set(problem, PROBLEM_UPSTREAM, NULL,
                           "%s knows no such path or no model \"%.60s\" (404): check enrich-url and enrich-model%s%s",
                           endpoint->host, endpoint->model, colon, words);
    }
    if (status >= 500) {
        return problem_set(problem, PROBLEM_UPSTREAM, NULL, "%s has a fault of its own (%ld)%s%s", endpoint->host,
                           status, colon, words);
    }
    return problem_set(problem, PROBLEM_UPSTREAM, NULL, "%s does not take the request (%ld)%s%s", endpoint->host,
                       status, colon, words);
}

static enum problem_code tell_transfer(struct transfer *transfer, CURLcode code, struct problem *problem) {
    const struct endpoint *endpoint = transfer->endpoint;
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return problem_set(problem, PROBLEM_UPSTREAM, NULL, "the name %s of enrich-url is not known", endpoint->host);
    case CURLE_COULDNT_CONNECT:
        return problem_set(problem, PROBLEM_UPSTREAM, NULL, "nobody answers at %s: is the endpoint running?",
                           endpoint->shown);
    case CURLE_OPERATION_TIMEDOUT:
        return problem_set(problem, PROBLEM_UPSTREAM_TIME, NULL, "%s took longer than %d s (enrich-timeout)",
                           endpoint->host, endpoint->timeout_seconds);
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return problem_set(problem, PROBLEM_UPSTREAM, NULL,
                           "the connection to %s was cut off before the end of its reply", endpoint->host);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return problem_set(problem, PROBLEM_UPSTREAM, NULL, "no safe connection to %s: %s", endpoint->host,
                           curl_easy_strerror(code));
    default:
        return problem_set(problem, PROBLEM_UPSTREAM, NULL, "the request to %s failed: %s", endpoint->host,
                           curl_easy_strerror(code));
    }
}

static void end_transfer(struct transfer *transfer, CURLcode code) {
    struct exchange *exchange = transfer->exchange;
    long status = 0;
    (void)curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    if (exchange->problem.code != PROBLEM_NONE) { /* on_body found it */
        exchange->status = exchange->problem.code;
    } else if (status >= 300) {
        exchange->status = tell_status(transfer, status, &exchange->problem);
    } else if (code != CURLE_OK) {
        exchange->status = tell_transfer(transfer, code, &exchange->problem);
    } else {
        exchange->status = reply_end(&exchange->reply, &exchange->problem);
    }
    exchange->duration_ms = (clock_monotonic_us() - transfer->started_us) / 1000;
    transfer->is_ended = true;
    transfer->hooks->on_end(transfer->hooks->user, transfer->i);
}

/* ---- All of them ---- */

static void collect_ended(CURLM *multi) {
    int n_left = 0;
    for (CURLMsg *message = curl_multi_info_read(multi, &n_left); message != NULL;
         message = curl_multi_info_read(multi, &n_left)) {
        struct transfer *transfer = NULL;
        if (message->msg == CURLMSG_DONE) {
            (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
            end_transfer(transfer, message->data.result);
        }
    }
}

static void close_transfer(CURLM *multi, struct transfer *transfer) {
    struct exchange *exchange = transfer->exchange;
    if (!transfer->is_ended) {
        exchange->problem = (struct problem){ 0 };
        exchange->status = problem_set(&exchange->problem, PROBLEM_UNAVAILABLE, NULL,
                                       "the request was given up before it had an answer");
        exchange->duration_ms = (clock_monotonic_us() - transfer->started_us) / 1000;
        transfer->hooks->on_end(transfer->hooks->user, transfer->i);
    }
    (void)curl_multi_remove_handle(multi, transfer->easy);
    curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->headers);
    free(transfer->body);
    free(transfer->error_body);
}

void client_run(const struct endpoint *endpoint, struct exchange *exchanges, size_t n,
                const struct client_hooks *hooks) {
    struct transfer *transfers = text_alloc(n, sizeof *transfers);
    CURLM *multi = curl_multi_init();
    if (multi == NULL) {
        text_out_of_memory();
    }
    for (size_t i = 0; i < n; i++) {
        transfers[i] = (struct transfer){ .endpoint = endpoint, .exchange = &exchanges[i], .hooks = hooks, .i = i };
        open_transfer(&transfers[i]);
        if (curl_multi_add_handle(multi, transfers[i].easy) != CURLM_OK) {
            text_out_of_memory();
        }
    }
    for (int n_running = 1; n_running > 0 && hooks->is_wanted(hooks->user);) {
        if (curl_multi_perform(multi, &n_running) != CURLM_OK) {
            break;
        }
        collect_ended(multi);
        if (n_running > 0) {
            (void)curl_multi_poll(multi, NULL, 0, POLL_MS, NULL);
        }
    }
    for (size_t i = 0; i < n; i++) {
        close_transfer(multi, &transfers[i]);
    }
    (void)curl_multi_cleanup(multi);
    free(transfers);
}
