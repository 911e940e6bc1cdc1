/* audit: the append-only log of who did what. A row is written in the transaction of its effect; its hash covers the
 * row and the hash of the row before it, so that a change, a removal or an insertion breaks the chain from there on.
 *
 * hash = SHA-256 over the previous hash (64 hex digits; 64 zeros in front of the first row) and the compact JSON text
 *     [seq,time_us,actor,actor_id,address,user_agent,action,object,details]
 * in which details is a text and what is absent is null. */
#ifndef SERVER_STORE_AUDIT_H
#define SERVER_STORE_AUDIT_H

#include "store/db.h"

#define AUDIT_HASH_TEXT 65

/* Who acts. All strings are borrowed and may be NULL. */
struct actor {
    const char *name; /* "alice", "system" */
    const char *id;   /* the user's id */
    const char *address, *user_agent;
};

extern const struct actor actor_system;

/* Appends within the transaction of db (the writer). action: "job.submitted"; object: an id or a name, or NULL;
 * details: an object, or NULL; it is taken over. */
enum problem_code audit_append(struct db *db, const struct actor *actor, const char *action, const char *object,
                               json_t *details, struct problem *problem);
/* A transaction of its own, for what changes nothing else: views, failed logins, worker deaths. */
enum problem_code audit_write(struct store *store, const struct actor *actor, const char *action, const char *object,
                              json_t *details, struct problem *problem);

#endif
