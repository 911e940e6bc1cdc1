/* The list of backends that this build has, best first. */
#include <string.h>

#include "backend/backend.h"

struct row {
    const char *name;
    const struct backend_kind *kind;
};

static const struct row rows[] = {
#ifdef CYI_HAVE_ONEDNN
    { "onednn", &backend_onednn },
#endif
    { "reference", &backend_reference },
};

const struct backend_kind *backend_find(const char *name) {
    if (name == NULL || strcmp(name, "auto") == 0) {
        return rows[0].kind;
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(name, rows[i].name) == 0) {
            return rows[i].kind;
        }
    }
    return NULL;
}

void backend_free(struct backend *backend) {
    if (backend != NULL) {
        backend->vtable->free(backend);
    }
}
