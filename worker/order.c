/* What orders must be: see order.h. */
#include "order.h"

#include <string.h>

enum kind { INT, NUMBER, FLAG, TEXT }; /* bounds: of the value; of a text, its length in bytes */

struct member {
    const char *type, *name;
    enum kind kind;
    bool is_needed;
    double min, max;
};

#define MAX_PATH_BYTES 4096
#define MAX_SEED 9007199254740991.0 /* what a double, and so every JSON reader, holds exactly */

static const struct member members[] = {
    { "hello", "version", INT, true, 0, 1000000 },
    { "input", "id", TEXT, true, 1, ORDER_MAX_ID_BYTES },
    { "input", "role", TEXT, true, 1, 16 },
    { "input", "index", INT, false, 0, CYI_MAX_REFERENCES - 1 },
    { "generate", "id", TEXT, true, 1, ORDER_MAX_ID_BYTES },
    { "generate", "picture", INT, false, 0, 1000000 },
    { "generate", "model", TEXT, true, 1, MAX_PATH_BYTES },
    { "generate", "prompt", TEXT, true, 0, CYI_MAX_PROMPT_BYTES },
    { "generate", "negative_prompt", TEXT, false, 0, CYI_MAX_PROMPT_BYTES },
    { "generate", "width", INT, false, 1, CYI_MAX_IMAGE_SIDE },
    { "generate", "height", INT, false, 1, CYI_MAX_IMAGE_SIDE },
    { "generate", "steps", INT, false, 1, CYI_MAX_STEPS },
    { "generate", "guidance", NUMBER, false, 0, 1000 },
    { "generate", "seed", INT, false, 0, MAX_SEED },
    { "generate", "strength", NUMBER, false, 0, 1 },
    { "generate", "n_references", INT, false, 0, CYI_MAX_REFERENCES },
    { "generate", "has_init", FLAG, false, 0, 0 },
    { "generate", "has_mask", FLAG, false, 0, 0 },
    { "generate", "wants_preview", FLAG, false, 0, 0 },
    { "cancel", "id", TEXT, true, 1, ORDER_MAX_ID_BYTES },
    { "forget", "id", TEXT, true, 1, ORDER_MAX_ID_BYTES },
    { "describe", "path", TEXT, true, 1, MAX_PATH_BYTES },
    { "unload", NULL, FLAG, false, 0, 0 }, /* these have no members */
    { "quit", NULL, FLAG, false, 0, 0 },
};
#define N_MEMBERS (sizeof members / sizeof members[0])

static const char *const kind_names[] = { "an integer", "a number", "true or false", "a text" };

static bool is_of_kind(const json_t *value, enum kind kind) {
    switch (kind) {
    case INT:
        return json_is_integer(value);
    case NUMBER:
        return json_is_number(value);
    case FLAG:
        return json_is_boolean(value);
    default:
        return json_is_string(value);
    }
}

static enum cyi_status check_member(const struct message *order, const struct member *member, struct cyi_error *err) {
    const json_t *value = json_object_get(order->header, member->name);
    if (value == NULL || json_is_null(value)) {
        return member->is_needed ? text_error(err, CYI_E_ARGUMENT, "%s: \"%s\" is missing", member->type, member->name)
                                 : CYI_OK;
    }
    if (!is_of_kind(value, member->kind)) {
        return text_error(err, CYI_E_ARGUMENT, "%s: \"%s\" is not %s", member->type, member->name,
                          kind_names[member->kind]);
    }
    const double size = member->kind == TEXT ? (double)json_string_length(value) : json_number_value(value);
    if (member->kind != FLAG && !(size >= member->min && size <= member->max)) {
        return text_error(err, CYI_E_ARGUMENT, "%s: \"%s\" %s %.16g%s; from %.16g to %.16g are accepted", member->type,
                          member->name, member->kind == TEXT ? "has" : "is", size, member->kind == TEXT ? " bytes" : "",
                          member->min, member->max);
    }
    return CYI_OK;
}

static enum cyi_status check_input(const struct message *order, struct cyi_error *err) {
    const char *role = message_text(order, "role");
    const bool is_reference = strcmp(role, "reference") == 0;
    if (!is_reference && strcmp(role, "init") != 0 && strcmp(role, "mask") != 0) {
        return text_error(err, CYI_E_ARGUMENT, "input: \"role\" is not reference, init or mask");
    }
    if (!is_reference && message_int(order, "index", 0) != 0) {
        return text_error(err, CYI_E_ARGUMENT, "input: a job has one picture as %s, so \"index\" is 0", role);
    }
    return CYI_OK;
}

enum cyi_status order_check(const struct message *order, struct cyi_error *err) {
    bool is_known = false;
    for (size_t i = 0; i < N_MEMBERS; i++) {
        if (strcmp(members[i].type, order->type) == 0) {
            is_known = true;
            if (members[i].name != NULL && check_member(order, &members[i], err) != CYI_OK) {
                return CYI_E_ARGUMENT;
            }
        }
    }
    if (!is_known) {
        return text_error(err, CYI_E_ARGUMENT, "there is no order \"%.40s\"", order->type);
    }
    if (strcmp(order->type, "input") == 0) {
        return check_input(order, err);
    }
    return order->body_bytes == 0 ? CYI_OK
                                  : text_error(err, CYI_E_ARGUMENT, "%s: has a body of %zu bytes, and takes none",
                                               order->type, order->body_bytes);
}
