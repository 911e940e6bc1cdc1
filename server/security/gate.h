/* gate: who may what. Sign-in links, passwords, sessions, tokens, rates; what an address to listen on demands. Secrets
 * are compared in constant time and kept only as hashes. Threads: locks inside. */
#ifndef SERVER_SECURITY_GATE_H
#define SERVER_SECURITY_GATE_H

#include "http/http.h"

struct gate;

/* Refuses settings that would open the studio to others without accounts and TLS (or a trusted proxy). Errors: INVALID
 * (says what to set). */
enum problem_code gate_check_binding(struct settings *settings, struct store *store, struct problem *problem);

/* Somebody must be there to own things: makes the account that the first link signs in, when there is no administrator. */
enum problem_code gate_ensure_owner(struct store *store, struct problem *problem);
enum problem_code gate_start(struct studio *studio, struct gate **ret_gate, struct problem *problem);
void gate_stop(struct gate *gate);

/* The secret of a link that signs the owner in once, within a day; each call makes a new one and ends the last. A new
 * string. */
char *gate_make_link(struct gate *gate);

/* The hooks of http_options. */
enum problem_code gate_identify(struct studio *studio, const char *cookie, const char *authorization,
                                const char *address, struct caller *ret_caller, struct problem *problem);
enum problem_code gate_count(struct studio *studio, const struct caller *caller, const char *address,
                             struct problem *problem);
bool gate_still_holds(struct studio *studio, const struct caller *caller);

extern const struct route_table session_routes; /* sign-in page, session, me, sessions */
extern const struct route_table account_routes; /* users, tokens */

#endif
