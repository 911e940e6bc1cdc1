/* pages: what people read in a browser when there is only the API: the first page, its style, the API's description. */
#ifndef SERVER_ROUTES_PAGES_H
#define SERVER_ROUTES_PAGES_H

#include "http/http.h"

enum problem_code page_home(struct studio *studio, struct request *request, struct response *response,
                            struct problem *problem);
enum problem_code page_style(struct studio *studio, struct request *request, struct response *response,
                             struct problem *problem);
enum problem_code page_api(struct studio *studio, struct request *request, struct response *response,
                           struct problem *problem);
enum problem_code page_openapi(struct studio *studio, struct request *request, struct response *response,
                               struct problem *problem);

/* Made by tools/embed_openapi.py. */
extern const char embedded_openapi[], embedded_api_page[], embedded_home_page[], embedded_style[];
extern const char embedded_tag[]; /* of all four together */

#endif
