/* Choosing a backend, built in or from a plug-in. See backend.h. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend.h"

#define GPU_BACKEND "cuda"
#define N_FOLDERS 3

/* The folder of the running program into text; "." when it cannot be known. */
static void program_folder(char text[PATH_MAX]) {
    ssize_t n = readlink("/proc/self/exe", text, PATH_MAX - 1);
    text[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(text, '/');
    if (slash == NULL) {
        (void)snprintf(text, PATH_MAX, ".");
    } else {
        *slash = '\0';
    }
}

/* Opens the library where it is found first. Errors: ARGUMENT (it is nowhere), UNSUPPORTED (the system cannot load it). */
static enum cyi_status open_library(const char *name, void **ret_library, struct cyi_error *err) {
    const char *named = getenv("CYBERIMAGE_PLUGINS");
    char program[PATH_MAX];
    char path[PATH_MAX + 64];
    program_folder(program);
    const struct {
        const char *base, *below;
    } folders[N_FOLDERS] = { { named, "" }, { program, "" }, { program, "/../lib/cyberimage" } };
    for (int i = 0; i < N_FOLDERS; i++) {
        if (folders[i].base == NULL) {
            continue;
        }
        int n = snprintf(path, sizeof path, "%s%s/libcyberimage-%s.so", folders[i].base, folders[i].below, name);
        if (n < 0 || (size_t)n >= sizeof path || access(path, F_OK) != 0) {
            continue;
        }
        *ret_library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (*ret_library == NULL) {
            const char *problem = dlerror();
            return error_set(err, CYI_E_UNSUPPORTED, "the plug-in for %s could not be loaded: %.300s", name,
                             problem != NULL ? problem : "the system does not say why");
        }
        return CYI_OK;
    }
    return error_set(err, CYI_E_ARGUMENT,
                     "the plug-in for %s is not installed (libcyberimage-%s.so is neither beside the program nor in "
                     "../lib/cyberimage nor where CYBERIMAGE_PLUGINS says)",
                     name, name);
}

static enum cyi_status choose_plugin(const char *name, int device, struct backend_choice *ret_choice,
                                     struct cyi_error *err) {
    struct backend_choice choice = { 0 };
    enum cyi_status st = open_library(name, &choice.library, err);
    if (st != CYI_OK) {
        return st;
    }
    union {
        void *address;
        backend_entry function;
    } entry = { .address = dlsym(choice.library, BACKEND_ENTRY) };
    choice.kind = entry.address != NULL ? entry.function(BACKEND_ABI) : NULL;
    if (choice.kind == NULL) {
        st = error_set(err, CYI_E_UNSUPPORTED, "the plug-in for %s belongs to another version of the program", name);
    } else {
        st = choice.kind->get_info(device, &choice.info, err);
    }
    if (st != CYI_OK) {
        backend_choice_done(&choice);
        return st;
    }
    *ret_choice = choice;
    return CYI_OK;
}

/* A name that can be part of a file's name. */
static bool is_plain(const char *name) {
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789");
    return n > 0 && n <= 16 && name[n] == '\0';
}

static enum cyi_status choose_built_in(const char *name, const char *gpu_status, struct backend_choice *ret_choice,
                                       struct cyi_error *err) {
    struct backend_choice choice = { .kind = backend_find(name) };
    (void)snprintf(choice.gpu_status, sizeof choice.gpu_status, "%.380s", gpu_status);
    enum cyi_status st = choice.kind->get_info(0, &choice.info, err);
    if (st == CYI_OK) {
        *ret_choice = choice;
    }
    return st;
}

enum cyi_status backend_choose(const char *name, int device, struct backend_choice *ret_choice, struct cyi_error *err) {
    struct cyi_error problem = { 0 };
    if (name == NULL || strcmp(name, "auto") == 0) {
        return choose_plugin(GPU_BACKEND, device, ret_choice, &problem) == CYI_OK
                   ? CYI_OK
                   : choose_built_in("auto", problem.text, ret_choice, err);
    }
    if (backend_find(name) != NULL) {
        return choose_built_in(name, "another backend was asked for", ret_choice, err);
    }
    enum cyi_status st = is_plain(name) ? choose_plugin(name, device, ret_choice, &problem) : CYI_E_ARGUMENT;
    if (st == CYI_OK) {
        return CYI_OK;
    }
    if (st == CYI_E_ARGUMENT && strcmp(name, GPU_BACKEND) != 0) {
        return error_set(err, st, "backend \"%.40s\" is unknown; there are: auto, cuda, reference%s", name,
                         backend_find("onednn") != NULL ? ", onednn" : "");
    }
    return error_set(err, CYI_E_UNSUPPORTED, "%s", problem.text);
}

void backend_choice_done(struct backend_choice *choice) {
    if (choice->library != NULL) {
        (void)dlclose(choice->library);
    }
    *choice = (struct backend_choice){ 0 };
}
