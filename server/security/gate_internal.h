/* gate_internal: the parts of security/ among themselves. */
#ifndef SERVER_SECURITY_GATE_INTERNAL_H
#define SERVER_SECURITY_GATE_INTERNAL_H

#include "security/gate.h"
#include "studio.h"

#include <pthread.h>

#define SECRET_BYTES 32
#define SECRET_TEXT 44 /* base64url without padding, and a zero byte */
#define SECRET_HASH_TEXT 65
#define MIN_PASSWORD_BYTES 10
#define MAX_PASSWORD_BYTES 1024
#define COOKIE_NAME "cyberimage"
#define TOKEN_PREFIX "cyi_"

/* ---- secrets.c: random secrets and passwords ---- */

/* 256 random bits as text, and the hash by which they are known. */
void secret_make(char ret_secret[SECRET_TEXT], char ret_hash[SECRET_HASH_TEXT]);
void secret_hash(const char *secret, char ret_hash[SECRET_HASH_TEXT]);
bool secret_is_equal(const char hash_a[SECRET_HASH_TEXT], const char hash_b[SECRET_HASH_TEXT]); /* in constant time */

/* Argon2id; takes a good part of a second and 64 MiB, so one at a time. A new string. */
enum problem_code password_hash(const char *password, char **ret_hash, struct problem *problem);
/* hash NULL: takes as long, and says false. */
bool password_is_right(const char *hash, const char *password);

/* ---- rates.c: how often ---- */

/* A bounded table of counters by name. Locks inside. */
struct rates;
struct rates *rates_create(void);
void rates_free(struct rates *rates);
/* A bucket of limit drops that fills again within period_seconds; takes one. 0: there was one; else seconds until there is. */
int rates_take(struct rates *rates, const char *name, int64_t limit, int period_seconds);
/* The same question without taking. */
int rates_ask(struct rates *rates, const char *name, int64_t limit, int period_seconds);

/* ---- gate.c ---- */

struct gate {
    struct studio *studio;
    struct rates *requests, *logins;
    pthread_mutex_t mutex;            /* guards the link */
    char link_hash[SECRET_HASH_TEXT]; /* "": there is none */
    int64_t link_ends_us;
};

/* Is this the link's secret? It is used up then. */
bool gate_use_link(struct gate *gate, const char *secret);
int64_t gate_session_start(struct studio *studio); /* sessions that were not used since have ended */
enum role role_of(const char *name);               /* "admin", "user", "viewer" */
unsigned role_access(enum role role);
unsigned scope_access(const char *name); /* 0: there is no such scope */

/* Writes the transaction's audit row and commits: the end of every route that changes something. */
enum problem_code gate_finish(struct studio *studio, struct request *request, struct db **db, const char *action,
                              const char *object, json_t *details, struct problem *problem);

#endif
