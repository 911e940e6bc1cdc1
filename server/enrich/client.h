/* client: asks an OpenAI-compatible endpoint for completions, several at a time on the calling thread. The key goes to
 * the configured host and nowhere else: redirects are not followed, and neither proxies nor passwords are taken from
 * the environment. */
#ifndef SERVER_ENRICH_CLIENT_H
#define SERVER_ENRICH_CLIENT_H

#include "base/settings.h"
#include "enrich/reply.h"

/* Copies of the settings, so that a change while a request runs does not touch it. */
struct endpoint {
    char *url;   /* of the completions */
    char *shown; /* the base address without query and fragment */
    char *host;
    char *key, *model; /* "" when there is none */
    double temperature;
    int timeout_seconds;
};

/* false: there is no endpoint, and nothing is to be freed. */
bool endpoint_read(struct settings *settings, struct endpoint *endpoint);
void endpoint_free(struct endpoint *endpoint);

struct exchange {
    char *system, *user; /* what is said; borrowed */
    int64_t seed;        /* < 0: none is sent */

    struct reply reply; /* the caller frees it with reply_free */
    enum problem_code status;
    struct problem problem; /* when status is not NONE */
    int64_t duration_ms;
};

struct client_hooks {
    void (*on_text)(void *user, size_t i); /* exchange i has more words */
    void (*on_end)(void *user, size_t i);  /* exchange i has ended, well or not */
    bool (*is_wanted)(void *user);         /* asked several times a second; false ends everything */
    void *user;
};

/* Runs all exchanges to their ends. Errors of each stand in it: UPSTREAM and UPSTREAM_TIME with a sentence that names
 * the host; an exchange that was no longer wanted has UNAVAILABLE. */
void client_run(const struct endpoint *endpoint, struct exchange *exchanges, size_t n,
                const struct client_hooks *hooks);

#endif
