/* model_search: where models lie on this machine. Looks at folders only; whether a model can be used says cyi_model_open.
 *
 * In this order: ./models, each folder of CYBERIMAGE_MODELS (colon-separated), $XDG_DATA_HOME/cyberimage/models or
 * ~/.local/share/cyberimage/models, models/ beside the program, above it and in ../share/cyberimage/, and the Hugging Face cache
 * ($HF_HUB_CACHE, $HF_HOME/hub or ~/.cache/huggingface/hub). */
#ifndef COMMON_MODEL_SEARCH_H
#define COMMON_MODEL_SEARCH_H

#include "text.h"

#define MODEL_BUNDLED "neon" /* what generate uses when no model is named */

struct model_place {
    char *path; /* the folder (diffusers layout) or the .safetensors file */
    char *name; /* the folder's name; "ORG/NAME" for the Hugging Face cache */
};

struct model_list {
    struct model_place *items; /* each real folder once, first place first, by name within a place */
    size_t n;
    char **folders; /* where was looked, whether it exists or not */
    size_t n_folders;
};

/* program is the path of the running program, or NULL to ask the system. */
void model_search_find(const char *program, struct model_list *ret_list);
/* The same with these folders (colon-separated, or NULL) in the place of those of CYBERIMAGE_MODELS. */
void model_search_find_in(const char *program, const char *folders, struct model_list *ret_list);
void model_search_done(struct model_list *list);

/* The first place with this name, upper and lower case alike: the whole name, or what follows ORG/. NULL when there is none. */
const struct model_place *model_search_get(const struct model_list *list, const char *name);

/* Bytes of all files at or below path, links followed. */
uint64_t model_search_size(const char *path);

#endif
