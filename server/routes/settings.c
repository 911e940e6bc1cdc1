/* The settings: what each is and where it comes from, and changing those that may change while the studio runs. */
#include "store/settings.h"

#include "routes/routes.h"
#include "studio.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static json_t *describe_all(struct settings *settings) {
    json_t *list = JSON("[]");
    for (int i = 0; i < N_SETTINGS; i++) {
        json_add(list, settings_describe(settings, (enum setting)i));
    }
    return JSON("{s:o}", "settings", list);
}

static enum problem_code list_settings(struct studio *studio, struct request *request, struct response *response,
                                       struct problem *problem) {
    (void)request;
    (void)problem;
    response_json(response, 200, describe_all(studio->settings));
    return PROBLEM_NONE;
}

static enum problem_code change_settings(struct studio *studio, struct request *request, struct response *response,
                                         struct problem *problem) {
    const json_t *changes = request_json(request);
    enum problem_code st = PROBLEM_NONE;
    if (!json_is_object(changes) || json_object_size(changes) == 0) {
        st = problem_set(problem, PROBLEM_MALFORMED, NULL,
                         "the body must be an object of settings: {\"trash-days\": \"7\", \"model\": null}");
        goto done;
    }
    TRY(settings_change(studio->store, studio->settings, request_actor(request), changes, problem));
    response_json(response, 200, describe_all(studio->settings));
done:
    return st;
}

static const struct route routes[] = {
    { "GET", "/api/v1/settings", ACCESS_ADMIN, BODY_NONE, 0, list_settings },
    { "PATCH", "/api/v1/settings", ACCESS_ADMIN, BODY_JSON, 0, change_settings },
};

const struct route_table settings_routes = { routes, COUNT(routes) };
