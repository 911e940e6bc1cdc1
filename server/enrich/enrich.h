/* enrich: a short prompt becomes a rich one, by an OpenAI-compatible endpoint or, without one, by the built-in
 * enricher. Threads: locks inside. */
#ifndef SERVER_ENRICH_ENRICH_H
#define SERVER_ENRICH_ENRICH_H

#include "http/http.h"

struct enricher;

enum problem_code enricher_create(struct studio *studio, struct enricher **ret_enricher, struct problem *problem);
void enricher_free(struct enricher *enricher);

extern const struct route_table enrich_routes;

#endif
