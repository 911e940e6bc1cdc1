/* signing: the studio's own Ed25519 key, for what must be known to be its work: the records of what retention removed from
 * the audit log. It lies in DATA/audit.key, readable by the studio's user alone, beside the database and not within it: who
 * gets hold of the database (a backup, a hole in the SQL) cannot sign. Who can read the studio's files can; against that
 * only a head that was noted elsewhere helps. */
#ifndef SERVER_BASE_SIGNING_H
#define SERVER_BASE_SIGNING_H

#include "base/problem.h"

#include <stdbool.h>
#include <stdint.h>

#define SIGNING_PUBLIC_TEXT 65 /* hex digits and a zero byte */
#define SIGNING_SIGNATURE_TEXT 129

struct signing_key {
    uint8_t public_key[32], secret_key[64];
};

/* Reads the key, or makes it when there is none and may_make. Errors: NOT_FOUND, INTERNAL (the file cannot be read, or is
 * none of ours). */
enum problem_code signing_key_load(const char *data_folder, bool may_make, struct signing_key *ret_key,
                                   struct problem *problem);
const char *signing_public_text(const struct signing_key *key, char buffer[SIGNING_PUBLIC_TEXT]);
void signing_sign(const struct signing_key *key, const char *text, char ret_signature[SIGNING_SIGNATURE_TEXT]);
bool signing_is_right(const struct signing_key *key, const char *text, const char *signature);

#endif
