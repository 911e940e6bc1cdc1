/* Finding models: see model_search.h. */
#include "model_search.h"

#include "files.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_PLACES 4096 /* a folder with more is no folder of models */
#define MAX_DEPTH 4     /* of files below a model */

static bool has_file(const char *folder, const char *name) {
    char *path = files_join(folder, name);
    const bool is_there = access(path, R_OK) == 0;
    free(path);
    return is_there;
}

static bool is_model_folder(const char *path) {
    return has_file(path, "model_index.json") || has_file(path, "transformer/config.json");
}

/* Adds a model unless its real folder is in the list already. */
static void add_place(struct model_list *list, const char *path, const char *name) {
    char *real = realpath(path, NULL);
    for (size_t i = 0; real != NULL && i < list->n; i++) {
        char *other = realpath(list->items[i].path, NULL);
        const bool is_same = other != NULL && strcmp(real, other) == 0;
        free(other);
        if (is_same) {
            free(real);
            return;
        }
    }
    free(real);
    if (list->n < MAX_PLACES) {
        list->items = text_resize(list->items, list->n + 1, sizeof *list->items);
        list->items[list->n++] = (struct model_place){ .path = text_copy(path), .name = text_copy(name) };
    }
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static bool is_single_file(const char *name) {
    const size_t n = strlen(name), n_ending = strlen(".safetensors");
    return n > n_ending && strcasecmp(name + n - n_ending, ".safetensors") == 0;
}

/* Models in a folder; where an entry is only a folder (ORG), the models in it as ORG/NAME. */
static void search_folder(struct model_list *list, const char *folder, const char *prefix) {
    struct dirent **entries = NULL;
    const int n = scandir(folder, &entries, is_visible, alphasort);
    for (int i = 0; i < n; i++) {
        char *path = files_join(folder, entries[i]->d_name);
        char *name = text_format("%s%s", prefix, entries[i]->d_name);
        if (!files_is_folder(path)) {
            if (is_single_file(path)) {
                add_place(list, path, name);
            }
        } else if (is_model_folder(path)) {
            add_place(list, path, name);
        } else if (prefix[0] == '\0') {
            char *deeper = text_format("%s/", entries[i]->d_name);
            search_folder(list, path, deeper);
            free(deeper);
        }
        free(name);
        free(path);
        free(entries[i]);
    }
    free(entries);
}

/* The revision that refs/main names, else the newest snapshot. A new string, or NULL. */
static char *find_snapshot(const char *repository) {
    char *snapshots = files_join(repository, "snapshots");
    char *ref = files_join(repository, "refs/main");
    char *found = NULL;
    void *data = NULL;
    size_t size_bytes = 0;
    struct cyi_error err = { 0 };
    if (files_read(ref, 256, &data, &size_bytes, &err) == CYI_OK) {
        char *revision = text_format("%.*s", (int)size_bytes, (const char *)data);
        revision[strcspn(revision, "/\r\n ")] = '\0';
        found = files_join(snapshots, revision);
        if (revision[0] == '\0' || revision[0] == '.' || !files_is_folder(found)) {
            free(found);
            found = NULL;
        }
        free(revision);
        free(data);
    }
    struct dirent **entries = NULL;
    const int n = found == NULL ? scandir(snapshots, &entries, is_visible, alphasort) : 0;
    struct timespec newest = { 0 };
    for (int i = 0; i < n; i++) {
        char *path = files_join(snapshots, entries[i]->d_name);
        struct stat info;
        if (stat(path, &info) == 0 && S_ISDIR(info.st_mode) && (found == NULL || info.st_mtim.tv_sec > newest.tv_sec)) {
            newest = info.st_mtim;
            free(found);
            found = path;
            path = NULL;
        }
        free(path);
        free(entries[i]);
    }
    free(entries);
    free(ref);
    free(snapshots);
    return found;
}

/* models--ORG--NAME → "ORG/NAME". A new string. */
static char *repository_name(const char *folder) {
    char *name = text_copy(folder + strlen("models--"));
    char *dashes = strstr(name, "--");
    if (dashes != NULL) {
        *dashes = '/';
        memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
    }
    return name;
}

static void search_hugging_face(struct model_list *list, const char *folder) {
    struct dirent **entries = NULL;
    const int n = scandir(folder, &entries, is_visible, alphasort);
    for (int i = 0; i < n; i++) {
        if (strncmp(entries[i]->d_name, "models--", strlen("models--")) == 0) {
            char *repository = files_join(folder, entries[i]->d_name);
            char *snapshot = find_snapshot(repository);
            if (snapshot != NULL && is_model_folder(snapshot)) {
                char *name = repository_name(entries[i]->d_name);
                add_place(list, snapshot, name);
                free(name);
            }
            free(snapshot);
            free(repository);
        }
        free(entries[i]);
    }
    free(entries);
}

/* Takes folder over. */
static const char *add_folder(struct model_list *list, char *folder) {
    list->folders = text_resize(list->folders, list->n_folders + 1, sizeof *list->folders);
    list->folders[list->n_folders++] = folder;
    return folder;
}

static void search_each(struct model_list *list, const char *folders) {
    while (folders != NULL && *folders != '\0') {
        const size_t n = strcspn(folders, ":");
        if (n > 0) {
            search_folder(list, add_folder(list, text_format("%.*s", (int)n, folders)), "");
        }
        folders += n + (folders[n] == ':');
    }
}

static void search_beside_program(struct model_list *list, const char *program) {
    static const char *const places[] = { "models", "../models", "../share/cyberimage/models" };
    char *own = program != NULL ? realpath(program, NULL) : realpath("/proc/self/exe", NULL);
    if (own == NULL) {
        return;
    }
    char *folder = files_folder_of(own);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        search_folder(list, add_folder(list, files_join(folder, places[i])), "");
    }
    free(folder);
    free(own);
}

/* $VARIABLE/below, else $HOME/otherwise; NULL when neither is set. A new string. */
static char *home_folder(const char *variable, const char *below, const char *otherwise) {
    const char *value = getenv(variable);
    const char *home = getenv("HOME");
    if (value != NULL && value[0] != '\0') {
        return below[0] != '\0' ? files_join(value, below) : text_copy(value);
    }
    return otherwise != NULL && home != NULL && home[0] == '/' ? files_join(home, otherwise) : NULL;
}

void model_search_find(const char *program, struct model_list *ret_list) {
    model_search_find_in(program, getenv("CYBERIMAGE_MODELS"), ret_list);
}

void model_search_find_in(const char *program, const char *folders, struct model_list *ret_list) {
    *ret_list = (struct model_list){ 0 };
    search_folder(ret_list, add_folder(ret_list, text_copy("models")), "");
    search_each(ret_list, folders);
    char *data = home_folder("XDG_DATA_HOME", "cyberimage/models", ".local/share/cyberimage/models");
    if (data != NULL) {
        search_folder(ret_list, add_folder(ret_list, data), "");
    }
    search_beside_program(ret_list, program);
    char *hub = home_folder("HF_HUB_CACHE", "", NULL);
    if (hub == NULL) {
        hub = home_folder("HF_HOME", "hub", ".cache/huggingface/hub");
    }
    if (hub != NULL) {
        search_hugging_face(ret_list, add_folder(ret_list, hub));
    }
}

void model_search_done(struct model_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        free(list->items[i].path);
        free(list->items[i].name);
    }
    for (size_t i = 0; i < list->n_folders; i++) {
        free(list->folders[i]);
    }
    free(list->items);
    free(list->folders);
    *list = (struct model_list){ 0 };
}

const struct model_place *model_search_get(const struct model_list *list, const char *name) {
    for (size_t i = 0; i < list->n; i++) {
        const char *slash = strchr(list->items[i].name, '/');
        if (strcasecmp(list->items[i].name, name) == 0 || (slash != NULL && strcasecmp(slash + 1, name) == 0)) {
            return &list->items[i];
        }
    }
    return NULL;
}

static uint64_t measure_path(const char *path, int depth) {
    struct stat info;
    struct dirent **entries = NULL;
    uint64_t total = 0;
    if (stat(path, &info) != 0) {
        return 0;
    }
    if (!S_ISDIR(info.st_mode)) {
        return S_ISREG(info.st_mode) && info.st_size > 0 ? (uint64_t)info.st_size : 0;
    }
    const int n = depth > 0 ? scandir(path, &entries, is_visible, alphasort) : 0;
    for (int i = 0; i < n; i++) {
        char *below = files_join(path, entries[i]->d_name);
        total += measure_path(below, depth - 1);
        free(below);
        free(entries[i]);
    }
    free(entries);
    return total;
}

uint64_t model_search_size(const char *path) {
    return measure_path(path, MAX_DEPTH);
}
