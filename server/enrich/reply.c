/* Reading chat completions: see reply.h. */
#include "enrich/reply.h"

#include "enrich/reply_text.h"

#include <stdlib.h>
#include <string.h>

void reply_free(struct reply *reply) {
    free(reply->line.bytes);
    free(reply->text.bytes);
    *reply = (struct reply){ 0 };
}

const char *reply_text(const struct reply *reply) {
    return reply->text.bytes != NULL ? reply->text.bytes : "";
}

static void grow(char **bytes, size_t *capacity, size_t need) {
    if (need > *capacity) {
        *capacity = need * 2;
        *bytes = text_resize(*bytes, *capacity, 1);
    }
}

/* ---- The members of a completion ---- */

static enum problem_code add_text(struct reply *reply, const char *text, struct problem *problem) {
    const size_t n = strlen(text);
    if (reply->text.n + n >= REPLY_MAX_TEXT) {
        return problem_set(problem, PROBLEM_UPSTREAM, NULL, "the endpoint's reply has more than %zu bytes of text",
                           REPLY_MAX_TEXT);
    }
    grow(&reply->text.bytes, &reply->text.capacity, reply->text.n + n + 1);
    memcpy(reply->text.bytes + reply->text.n, text, n + 1);
    reply->text.n += n;
    return PROBLEM_NONE;
}

/* content is a text, or a list of parts of which those with a text count; null and whatever else say nothing. */
static enum problem_code add_content(struct reply *reply, const json_t *content, struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    if (json_is_string(content)) {
        return add_text(reply, json_string_value(content), problem);
    }
    for (size_t i = 0; i < json_array_size(content); i++) {
        const char *text = json_get_text(json_array_get(content, i), "text");
        if (text != NULL) {
            TRY(add_text(reply, text, problem));
        }
    }
done:
    return st;
}

static const char *error_of(const json_t *object) {
    const json_t *error = json_object_get(object, "error");
    return json_is_string(error) ? json_string_value(error) : json_get_text(error, "message");
}

static enum problem_code read_completion(struct reply *reply, const json_t *object, struct problem *problem) {
    const json_t *choice = json_array_get(json_object_get(object, "choices"), 0);
    const json_t *delta = json_object_get(choice, "delta");
    const json_t *message = delta != NULL ? delta : json_object_get(choice, "message");
    const char *finish = json_get_text(choice, "finish_reason"), *model = json_get_text(object, "model");
    const json_t *error = json_object_get(object, "error");
    if (error != NULL && !json_is_null(error)) {
        const char *words = error_of(object);
        char *clean = reply_clean(words != NULL ? words : "no reason given", true);
        const enum problem_code st =
            problem_set(problem, PROBLEM_UPSTREAM, NULL, "the endpoint gave up within its reply: %.200s", clean);
        free(clean);
        return st;
    }
    if (model != NULL && reply->model[0] == '\0') {
        char *clean = reply_clean(model, true);
        if (strlen(clean) < sizeof reply->model) {
            (void)snprintf(reply->model, sizeof reply->model, "%s", clean);
        }
        free(clean);
    }
    if (finish != NULL) {
        reply->is_finished = true;
        reply->is_refused = strcmp(finish, "content_filter") == 0;
    }
    return add_content(reply, json_object_get(message, "content"), problem);
}

static enum problem_code read_json(struct reply *reply, const char *text, struct problem *problem) {
    struct problem fault = { 0 };
    json_t *object = NULL;
    char *clean = text_clean(text);
    enum problem_code st = json_parse(clean, strlen(clean), &object, &fault);
    if (st != PROBLEM_NONE || !json_is_object(object)) {
        st = problem_set(problem, PROBLEM_UPSTREAM, NULL, "the endpoint's reply cannot be read as a chat completion");
    } else {
        st = read_completion(reply, object, problem);
    }
    json_decref(object);
    free(clean);
    return st;
}

/* ---- Lines of server-sent events ---- */

/* Each data line is a whole object with all endpoints that are known; other fields and comments say nothing here. */
static enum problem_code read_line(struct reply *reply, struct problem *problem) {
    const char *line = reply->line.bytes;
    if (reply->line.n == 0 || strncmp(line, "data:", 5) != 0) {
        return PROBLEM_NONE;
    }
    line += 5 + (line[5] == ' ');
    if (strcmp(line, "[DONE]") == 0) {
        reply->is_finished = true;
        return PROBLEM_NONE;
    }
    return line[0] != '\0' ? read_json(reply, line, problem) : PROBLEM_NONE;
}

static enum problem_code add_byte(struct reply *reply, char byte, struct problem *problem) {
    const size_t max = reply->form == REPLY_OBJECT ? REPLY_MAX_BYTES : REPLY_MAX_LINE;
    const bool is_end = reply->form == REPLY_EVENTS && (byte == '\n' || byte == '\r');
    if (reply->line.n >= max) {
        return problem_set(problem, PROBLEM_UPSTREAM, NULL, "the endpoint's reply has a line of more than %zu bytes",
                           max);
    }
    grow(&reply->line.bytes, &reply->line.capacity, reply->line.n + 1);
    reply->line.bytes[reply->line.n] = is_end ? '\0' : byte == '\0' ? ' ' : byte;
    if (!is_end) {
        reply->line.n++;
        return PROBLEM_NONE;
    }
    const enum problem_code st = read_line(reply, problem);
    reply->line.n = 0;
    return st;
}

/* The first byte that is no blank and no mark of byte order tells the form. */
static bool is_before_form(struct reply *reply, char byte) {
    if (reply->form == REPLY_UNKNOWN && strchr(" \t\r\n\xef\xbb\xbf", byte) == NULL) {
        reply->form = byte == '{' ? REPLY_OBJECT : REPLY_EVENTS;
    }
    return reply->form == REPLY_UNKNOWN;
}

enum problem_code reply_feed(struct reply *reply, const void *bytes, size_t n, struct problem *problem) {
    const char *in = bytes;
    enum problem_code st = reply->problem.code;
    for (size_t i = 0; st == PROBLEM_NONE && i < n; i++) {
        if (++reply->n_bytes > REPLY_MAX_BYTES) {
            st = problem_set(&reply->problem, PROBLEM_UPSTREAM, NULL, "the endpoint's reply is larger than %zu bytes",
                             REPLY_MAX_BYTES);
        } else if (!is_before_form(reply, in[i])) {
            st = add_byte(reply, in[i], &reply->problem);
        }
    }
    return st == PROBLEM_NONE ? st : problem_set(problem, st, NULL, "%s", reply->problem.detail);
}

enum problem_code reply_end(struct reply *reply, struct problem *problem) {
    enum problem_code st = reply->problem.code;
    if (st == PROBLEM_NONE && reply->line.n > 0) { /* an object, or a last line without its end */
        grow(&reply->line.bytes, &reply->line.capacity, reply->line.n + 1);
        reply->line.bytes[reply->line.n] = '\0';
        st = reply->form == REPLY_OBJECT ? read_json(reply, reply->line.bytes, &reply->problem)
                                         : read_line(reply, &reply->problem);
        reply->is_finished = reply->is_finished || reply->form == REPLY_OBJECT;
        reply->line.n = 0;
    }
    if (st != PROBLEM_NONE) {
        return problem_set(problem, st, NULL, "%s", reply->problem.detail);
    }
    char *clean = reply_clean(reply_text(reply), true);
    const bool has_text = clean[0] != '\0';
    free(clean);
    if (reply->is_refused) {
        return problem_set(problem, PROBLEM_UPSTREAM, NULL, "the endpoint's filter refused this prompt");
    }
    if (!reply->is_finished) {
        return problem_set(problem, PROBLEM_UPSTREAM, NULL,
                           reply->n_bytes == 0 ? "the endpoint's reply is empty"
                           : reply->text.n > 0 ? "the endpoint's reply was cut off before its end"
                                               : "the endpoint's reply is not a chat completion");
    }
    return has_text ? PROBLEM_NONE : problem_set(problem, PROBLEM_UPSTREAM, NULL, "the endpoint's reply has no text");
}

/* ---- Errors' bodies ---- */

static void blot(char *text, const char *secret) {
    const size_t n = secret != NULL ? strlen(secret) : 0;
    for (char *place = n >= 4 ? strstr(text, secret) : NULL; place != NULL; place = strstr(place, secret)) {
        memset(place, '*', n);
    }
}

const char *reply_error_text(const char *body, size_t n, const char *secret, char *buffer, size_t size) {
    struct problem fault = { 0 };
    json_t *object = NULL;
    buffer[0] = '\0';
    if (n > 0 && json_parse(body, n, &object, &fault) == PROBLEM_NONE) {
        const json_t *first = json_is_array(object) ? json_array_get(object, 0) : object; /* Google's is in a list */
        const char *words = error_of(first);
        words = words != NULL ? words : json_get_text(first, "message");
        words = words != NULL ? words : json_get_text(first, "detail");
        char *clean = reply_clean(words != NULL ? words : "", true);
        blot(clean, secret);
        size_t end = strlen(clean) < size ? strlen(clean) : size - 1;
        while (end > 0 && ((unsigned char)clean[end] & 0xc0) == 0x80) { /* not within a character */
            end--;
        }
        (void)snprintf(buffer, size, "%.*s", (int)end, clean);
        free(clean);
    }
    json_decref(object);
    return buffer;
}
