/* url: addresses that the studio itself may call. */
#ifndef SERVER_BASE_URL_H
#define SERVER_BASE_URL_H

/* "https://host:port" of an address of http or https without a user name in it; NULL: it is none. A new string. */
char *url_origin(const char *url);

#endif
