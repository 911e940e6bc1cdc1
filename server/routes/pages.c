/* Pages: see pages.h. */
#include "routes/pages.h"

#include <stdlib.h>
#include <string.h>

static const char html[] = "text/html; charset=utf-8";

/* text with "{who}" replaced by words, which must be safe within HTML. A new string. */
static char *fill(const char *text, const char *words) {
    const char *place = strstr(text, "{who}");
    return place != NULL ? text_format("%.*s%s%s", (int)(place - text), text, words, place + strlen("{who}"))
                         : text_copy(text);
}

static char *escape_html(const char *text) {
    char *out = text_alloc(strlen(text) + 1, 6), *end = out;
    for (const char *c = text; *c != '\0'; c++) {
        const char *name = *c == '<' ? "&lt;" : *c == '>' ? "&gt;" : *c == '&' ? "&amp;" : *c == '"' ? "&quot;" : NULL;
        if (name != NULL) {
            memcpy(end, name, strlen(name));
            end += strlen(name);
        } else {
            *end++ = *c;
        }
    }
    return out;
}

enum problem_code page_home(struct studio *studio, struct request *request, struct response *response,
                            struct problem *problem) {
    const struct caller *caller = request_caller(request);
    (void)studio;
    (void)problem;
    char *name = escape_html(caller->name);
    char *words = caller->role != ROLE_NONE
                      ? text_format("You are signed in as <strong>%s</strong>.", name[0] != '\0' ? name : "the owner")
                      : text_copy("You are not signed in. Open the link that the studio printed when it started.");
    char *page = fill(embedded_home_page, words);
    response_bytes(response, 200, html, page, strlen(page));
    free(page);
    free(words);
    free(name);
    return PROBLEM_NONE;
}

static enum problem_code send_constant(struct request *request, struct response *response, const char *type,
                                       const char *text) {
    if (!response_is_unchanged(request, response, embedded_tag)) {
        response_bytes(response, 200, type, text, strlen(text));
    }
    return PROBLEM_NONE;
}

enum problem_code page_style(struct studio *studio, struct request *request, struct response *response,
                             struct problem *problem) {
    (void)studio;
    (void)problem;
    return send_constant(request, response, "text/css; charset=utf-8", embedded_style);
}

enum problem_code page_api(struct studio *studio, struct request *request, struct response *response,
                           struct problem *problem) {
    (void)studio;
    (void)problem;
    return send_constant(request, response, html, embedded_api_page);
}

enum problem_code page_openapi(struct studio *studio, struct request *request, struct response *response,
                               struct problem *problem) {
    (void)studio;
    (void)problem;
    return send_constant(request, response, "application/json", embedded_openapi);
}
