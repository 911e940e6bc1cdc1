/* JSON text: see json_text.h. */
#include "io/json_text.h"

enum cyi_status json_text_parse(const char *name, const char *text, size_t size_bytes, json_t **ret_object,
                                struct cyi_error *err) {
    json_error_t fault;
    json_t *root = json_loadb(text, size_bytes, JSON_REJECT_DUPLICATES, &fault);
    if (root == NULL && json_error_code(&fault) == json_error_out_of_memory) {
        return error_memory(err, "the tree of a JSON text", size_bytes);
    }
    if (root == NULL) {
        return error_set(err, CYI_E_FORMAT, "%s: not valid JSON (line %d, column %d): %s", name, fault.line,
                         fault.column, fault.text);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(err, CYI_E_FORMAT, "%s: the JSON is not an object", name);
    }
    *ret_object = root;
    return CYI_OK;
}
