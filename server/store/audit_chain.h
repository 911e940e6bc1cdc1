/* audit_chain: the hash of one row, shared by who appends and who verifies. */
#ifndef SERVER_STORE_AUDIT_CHAIN_H
#define SERVER_STORE_AUDIT_CHAIN_H

#include "store/audit.h"

#define AUDIT_FIRST_HASH "0000000000000000000000000000000000000000000000000000000000000000"

/* row has the columns of table audit by name, times and details as they are kept. */
void audit_hash(const char *previous, const json_t *row, char ret_hash[AUDIT_HASH_TEXT]);

#endif
