/* Announcements of jobs' ends: a row each, written in the transaction of the end, sent by a thread of its own until the
 * other side says yes or has had its chances. Signed over time and body, so that neither can be changed or sent again
 * later.
 *
 * Addresses that people name must not lead into our own network: the address is looked at when the connection is made,
 * after all names and redirects (there are none) are resolved. Only the origin of the studio's own setting may be
 * anywhere. */
#include "jobs/jobs_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/url.h"
#include "http/address.h"
#include "store/jobs.h"

#include <curl/curl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define MAX_ATTEMPTS 8
#define FIRST_PAUSE_US (2 * CLOCK_SECOND) /* doubled with each attempt: the last is made after four minutes */
#define MAX_WAIT_SECONDS 60
#define CONNECT_SECONDS 5L
#define TOTAL_SECONDS 15L
#define MAX_ANSWER_BYTES 65536
#define SIGNATURE_TEXT (2 * crypto_auth_hmacsha256_BYTES + 1)

struct webhooks {
    struct studio *studio;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool is_stopping, is_woken;
};

/* ---- Addresses ---- */

enum problem_code webhook_check_url(const char *url, struct problem *problem) {
    char *origin = url_origin(url);
    const enum problem_code st =
        origin != NULL ? PROBLEM_NONE
                       : problem_set(problem, PROBLEM_INVALID, "webhook.url",
                                     "a webhook's address is http:// or https:// without a user name in it");
    free(origin);
    return st;
}

static bool is_studios_own(struct studio *studio, const char *url) {
    char *setting = settings_text(studio->settings, SETTING_webhook_url);
    char *own = url_origin(setting), *origin = url_origin(url);
    const bool is_own = own != NULL && origin != NULL && strcasecmp(own, origin) == 0;
    free(own);
    free(origin);
    free(setting);
    return is_own;
}

/* Everything that is not the open internet. */
static bool is_public(const struct sockaddr *socket_address) {
    static const char inner[] =
        "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, "
        "192.0.0.0/24, 192.0.2.0/24, 192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, "
        "198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3, ::/96, 64:ff9b::/96, 64:ff9b:1::/48, "
        "100::/64, 2001::/23, 2001:db8::/32, 2002::/16, fc00::/7, fe80::/10, fec0::/10, ff00::/8";
    struct address_range *ranges = NULL;
    struct address address;
    struct problem ignored = { 0 };
    size_t n = 0;
    if ((socket_address->sa_family != AF_INET && socket_address->sa_family != AF_INET6) ||
        address_parse_ranges(inner, &ranges, &n, &ignored) != PROBLEM_NONE) {
        return false;
    }
    address_of_socket(socket_address, &address);
    const bool is_inner = address_is_within(&address, ranges, n);
    free(ranges);
    return !is_inner;
}

static curl_socket_t open_public(void *user, curlsocktype purpose, struct curl_sockaddr *address) {
    bool *was_refused = user;
    (void)purpose;
    if (!is_public(&address->addr)) {
        *was_refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* ---- Sending ---- */

static bool is_stopping(struct webhooks *webhooks) {
    (void)pthread_mutex_lock(&webhooks->mutex);
    const bool is_stopping = webhooks->is_stopping;
    (void)pthread_mutex_unlock(&webhooks->mutex);
    return is_stopping;
}

static size_t drop_answer(char *data, size_t size, size_t n, void *user) {
    size_t *n_read = user;
    (void)data;
    *n_read += size * n;
    return *n_read <= MAX_ANSWER_BYTES ? size * n : 0;
}

static struct curl_slist *add_header(struct curl_slist *headers, char *line) {
    struct curl_slist *longer = curl_slist_append(headers, line);
    if (longer == NULL) {
        text_out_of_memory();
    }
    free(line);
    return longer;
}

static struct curl_slist *make_headers(const json_t *webhook, const char *secret) {
    struct curl_slist *headers = NULL;
    const char *body = json_get_text(webhook, "body");
    const long long now = (long long)(clock_now_us() / CLOCK_SECOND);
    headers = add_header(headers, text_copy("Content-Type: application/json"));
    headers = add_header(headers, text_copy("User-Agent: CyberImage/" CYI_VERSION));
    headers = add_header(headers, text_format("X-CyberImage-Delivery: %s", json_get_text(webhook, "id")));
    headers = add_header(headers, text_format("X-CyberImage-Timestamp: %lld", now));
    if (secret != NULL && secret[0] != '\0') {
        uint8_t mac[crypto_auth_hmacsha256_BYTES];
        char hex[SIGNATURE_TEXT];
        crypto_auth_hmacsha256_state state;
        char *signed_text = text_format("%lld.%s", now, body);
        (void)crypto_auth_hmacsha256_init(&state, (const uint8_t *)secret, strlen(secret));
        (void)crypto_auth_hmacsha256_update(&state, (const uint8_t *)signed_text, strlen(signed_text));
        (void)crypto_auth_hmacsha256_final(&state, mac);
        (void)sodium_bin2hex(hex, sizeof hex, mac, sizeof mac);
        headers = add_header(headers, text_format("X-CyberImage-Signature: sha256=%s", hex));
        free(signed_text);
    }
    return headers;
}

/* Asked about once a second: a studio that stops does not wait for others. */
static int go_on(void *user, curl_off_t n_down, curl_off_t down, curl_off_t n_up, curl_off_t up) {
    (void)n_down;
    (void)down;
    (void)n_up;
    (void)up;
    return is_stopping(user) ? 1 : 0;
}

/* A sentence on why it did not arrive; NULL: it did. A new string. */
static char *deliver(struct webhooks *webhooks, const json_t *webhook) {
    struct studio *studio = webhooks->studio;
    const char *url = json_get_text(webhook, "url"), *body = json_get_text(webhook, "body");
    const bool is_own = is_studios_own(studio, url);
    char *setting = settings_text(studio->settings, SETTING_webhook_secret);
    const char *secret = json_get_text(webhook, "secret") != NULL     ? json_get_text(webhook, "secret")
                         : json_get_int(webhook, "is_studio", 0) != 0 ? setting
                                                                      : NULL;
    struct curl_slist *headers = make_headers(webhook, secret);
    bool was_refused = false;
    size_t n_read = 0;
    long status = 0;
    CURL *curl = curl_easy_init();
    if (curl == NULL) {
        text_out_of_memory();
    }
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl_easy_setopt(curl, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT, TOTAL_SECONDS);
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, go_on);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFODATA, webhooks);
    (void)curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, drop_answer);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &n_read);
    if (!is_own) {
        (void)curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, open_public);
        (void)curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, &was_refused);
    }
    const CURLcode code = curl_easy_perform(curl);
    (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    sodium_memzero(setting, strlen(setting));
    free(setting);
    return was_refused         ? text_copy("the address lies in a private network")
           : code != CURLE_OK  ? text_format("it cannot be reached: %s", curl_easy_strerror(code))
           : status / 100 != 2 ? text_format("the other side answered %ld", status)
                               : NULL;
}

/* ---- The thread ---- */

static enum problem_code note_result(struct webhooks *webhooks, const json_t *webhook, const char *error,
                                     struct problem *problem) {
    struct store *store = webhooks->studio->store;
    struct db *db = NULL;
    const char *id = json_get_text(webhook, "id"), *job = json_get_text(webhook, "job_id");
    const int64_t n_before = json_get_int(webhook, "attempts", 0);
    const bool is_over = error == NULL || n_before + 1 >= MAX_ATTEMPTS;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_begin(store, &db, problem));
    TRY(is_over ? webhooks_done(db, id, problem)
                : webhooks_later(db, id, clock_now_us() + (FIRST_PAUSE_US << n_before), error, problem));
    if (is_over) {
        TRY(audit_append(db, &actor_system, error == NULL ? "webhook.sent" : "webhook.failed", job,
                         JSON("{s:o, s:I}", "error", json_text(error), "attempts", (json_int_t)(n_before + 1)),
                         problem));
    }
    TRY(store_commit(store, &db, problem));
    log_event(error == NULL ? LOG_INFO : LOG_WARNING, error == NULL ? "webhook.sent" : "webhook.failed",
              JSON("{s:s, s:I, s:o}", "job", job, "attempt", (json_int_t)(n_before + 1), "error", json_text(error)));
done:
    store_rollback(store, &db);
    return st;
}

/* Sends the next one that is due. false: there is none, or the database cannot be written. */
static bool send_next(struct webhooks *webhooks) {
    struct problem problem = { 0 };
    json_t *webhook = NULL;
    struct db *db = store_read(webhooks->studio->store);
    enum problem_code st = webhooks_next(db, &webhook, &problem);
    store_read_done(webhooks->studio->store, db);
    if (st != PROBLEM_NONE || webhook == NULL) {
        return false;
    }
    char *error = deliver(webhooks, webhook);
    if (error == NULL || !is_stopping(webhooks)) { /* what we broke off ourselves is no attempt */
        st = note_result(webhooks, webhook, error, &problem);
    }
    free(error);
    json_decref(webhook);
    return st == PROBLEM_NONE;
}

static int64_t seconds_until_next(struct webhooks *webhooks) {
    struct problem ignored = { 0 };
    int64_t next_us = INT64_MAX;
    struct db *db = store_read(webhooks->studio->store);
    (void)webhooks_next_us(db, &next_us, &ignored);
    store_read_done(webhooks->studio->store, db);
    const int64_t us = next_us == INT64_MAX ? MAX_WAIT_SECONDS * CLOCK_SECOND : next_us - clock_now_us();
    return us < CLOCK_SECOND ? 1 : us > MAX_WAIT_SECONDS * CLOCK_SECOND ? MAX_WAIT_SECONDS : us / CLOCK_SECOND;
}

static void wait_for_next(struct webhooks *webhooks) {
    struct timespec until;
    const int64_t seconds = seconds_until_next(webhooks);
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    (void)pthread_mutex_lock(&webhooks->mutex);
    int code = 0;
    while (!webhooks->is_stopping && !webhooks->is_woken && code == 0) {
        code = pthread_cond_timedwait(&webhooks->changed, &webhooks->mutex, &until);
    }
    webhooks->is_woken = false;
    (void)pthread_mutex_unlock(&webhooks->mutex);
}

static void *run(void *user) {
    struct webhooks *webhooks = user;
    while (!is_stopping(webhooks)) {
        if (!send_next(webhooks)) {
            wait_for_next(webhooks);
        }
    }
    return NULL;
}

static void free_webhooks(struct webhooks *webhooks) {
    (void)pthread_cond_destroy(&webhooks->changed);
    (void)pthread_mutex_destroy(&webhooks->mutex);
    free(webhooks);
}

struct webhooks *webhooks_start(struct studio *studio) {
    struct webhooks *webhooks = text_alloc(1, sizeof *webhooks);
    pthread_condattr_t clock;
    webhooks->studio = studio;
    (void)pthread_mutex_init(&webhooks->mutex, NULL);
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&webhooks->changed, &clock);
    (void)pthread_condattr_destroy(&clock);
    if (pthread_create(&webhooks->thread, NULL, run, webhooks) != 0) {
        free_webhooks(webhooks);
        return NULL;
    }
    return webhooks;
}

static void tell(struct webhooks *webhooks, bool is_stopping) {
    (void)pthread_mutex_lock(&webhooks->mutex);
    webhooks->is_woken = true;
    webhooks->is_stopping = webhooks->is_stopping || is_stopping;
    (void)pthread_cond_broadcast(&webhooks->changed);
    (void)pthread_mutex_unlock(&webhooks->mutex);
}

void webhooks_wake(struct webhooks *webhooks) {
    if (webhooks != NULL) {
        tell(webhooks, false);
    }
}

void webhooks_stop(struct webhooks *webhooks) {
    if (webhooks != NULL) {
        tell(webhooks, true);
        (void)pthread_join(webhooks->thread, NULL);
        free_webhooks(webhooks);
    }
}
