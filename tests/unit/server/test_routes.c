/* Every route of the program stands in the API's description, and the reverse. */
#include "enrich/enrich.h"
#include "gallery/gallery.h"
#include "jobs/queue.h"
#include "routes/pages.h"
#include "routes/routes.h"
#include "security/gate.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h needs those above. */
#include <cmocka.h>

/* "GET /api/v1/jobs" → true */
static json_t *routes_of_program(void) {
    const struct route_table *tables[] = { &system_routes,   &session_routes,  &account_routes, &queue_routes,
                                           &delivery_routes, &listing_routes,  &change_routes,  &enrich_routes,
                                           &audit_routes,    &settings_routes, &openai_routes,  &sdapi_routes };
    json_t *set = JSON("{}");
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        for (size_t k = 0; k < tables[i]->n; k++) {
            const struct route *route = &tables[i]->routes[k];
            char *name = text_format("%s %s", route->method, route->path);
            json_put(set, name, json_boolean(route->access == ACCESS_ANYBODY));
            free(name);
        }
    }
    return set;
}

/* The same of the description; the value says whether anybody may. */
static json_t *routes_of_description(const json_t *document) {
    json_t *set = JSON("{}"), *paths = json_object_get(document, "paths"), *path, *operation;
    const char *name, *method;
    json_object_foreach(paths, name, path) {
        json_object_foreach(path, method, operation) {
            char *key = text_format("%s %s", method, name);
            for (char *c = key; *c != ' '; c++) {
                *c = (char)toupper((unsigned char)*c);
            }
            const json_t *security = json_object_get(operation, "security");
            json_put(set, key, json_boolean(security != NULL && json_array_size(security) == 0));
            free(key);
        }
    }
    return set;
}

static void program_and_description_agree(void **state) {
    (void)state;
    json_t *document = json_loads(embedded_openapi, 0, NULL);
    assert_non_null(document);
    json_t *program = routes_of_program(), *description = routes_of_description(document), *value;
    const char *name;
    int n_faults = 0;
    json_object_foreach(program, name, value) {
        const json_t *described = json_object_get(description, name);
        if (described == NULL) {
            print_error("%s is not in api/openapi.yaml\n", name);
            n_faults++;
        } else if (json_is_true(value) != json_is_true(described)) {
            print_error("%s: program and description disagree on who may\n", name);
            n_faults++;
        }
    }
    json_object_foreach(description, name, value) {
        if (json_object_get(program, name) == NULL) {
            print_error("%s is in api/openapi.yaml and not in the program\n", name);
            n_faults++;
        }
    }
    json_decref(program);
    json_decref(description);
    json_decref(document);
    assert_int_equal(n_faults, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(program_and_description_agree) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
