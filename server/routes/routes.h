/* routes: what belongs to no other part: system, settings, audit, events, the dialects of other programs. */
#ifndef SERVER_ROUTES_ROUTES_H
#define SERVER_ROUTES_ROUTES_H

#include "http/http.h"

extern const struct route_table audit_routes;    /* /api/v1/audit… */
extern const struct route_table settings_routes; /* /api/v1/settings… */
extern const struct route_table
    system_routes; /* /, /healthz, /readyz, /metrics, /openapi.json, /api, /api/v1/events, /api/v1/system, /api/v1/backup */
extern const struct route_table openai_routes; /* /v1/… */
extern const struct route_table
    sdapi_routes; /* /sdapi/v1/…: what A1111 (AUTOMATIC1111's stable-diffusion-webui) answers to */

/* A problem in the form of the dialect that owns this path, or NULL. */
json_t *foreign_problem(const char *path, const struct problem *problem);

#endif
