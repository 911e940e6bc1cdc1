/* id: UUIDv7 (RFC 9562) as text: 36 lower-case characters that sort by the time of their making, within a process strictly. */
#ifndef SERVER_BASE_ID_H
#define SERVER_BASE_ID_H

#include <stdbool.h>

#define ID_TEXT 37

/* Locks inside. Returns buffer. */
const char *id_make(char buffer[ID_TEXT]);
/* Exactly the form that id_make gives, of any version. */
bool id_is_valid(const char *text);

#endif
