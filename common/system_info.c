/* Reading /proc and control groups: see system_info.h. */
#include "system_info.h"

#include "files.h"

#include <link.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MAX_PROC_BYTES ((size_t)4 * 1024 * 1024)
#define GROUP_ROOT "/sys/fs/cgroup"

/* A small text file, or "". A new string. */
static char *read_text(const char *path) {
    struct cyi_error ignored = { 0 };
    void *data = NULL;
    size_t n = 0;
    if (files_read(path, MAX_PROC_BYTES, &data, &n, &ignored) != CYI_OK) {
        return text_copy("");
    }
    char *text = text_format("%.*s", (int)n, (const char *)data);
    free(data);
    return text;
}

/* The value of "NAME : value" or "NAME: value" at the start of a line. A new string, or NULL. */
static char *find_value(const char *text, const char *name) {
    const size_t n = strlen(name);
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *next = strchr(line, '\n');
        const char *rest = line + n;
        if (strncmp(line, name, n) == 0 && rest[strspn(rest, " \t")] == ':') {
            rest += strspn(rest, " \t:");
            return text_format("%.*s", (int)strcspn(rest, "\n"), rest);
        }
        line = next != NULL ? next + 1 : NULL;
    }
    return NULL;
}

static bool has_word(const char *words, const char *word) {
    const size_t n = strlen(word);
    for (const char *at = strstr(words, word); at != NULL; at = strstr(at + 1, word)) {
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) {
            return true;
        }
    }
    return false;
}

static void read_processor(struct system_info *info) {
    static const char *const wanted[] = { "avx2",        "fma",      "f16c",     "avx_vnni", "avx512f", "avx512_vnni",
                                          "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "asimd",   "asimdhp",
                                          "bf16",        "i8mm",     "sve",      "sve2" };
    char *text = read_text("/proc/cpuinfo");
    char *name = find_value(text, "model name");
    char *flags = find_value(text, "flags");
    info->is_x86 = flags != NULL;
    if (flags == NULL) {
        flags = find_value(text, "Features");
    }
    (void)snprintf(info->processor, sizeof info->processor, "%s", name != NULL ? name : "");
    size_t n = 0;
    for (size_t i = 0; flags != NULL && i < sizeof wanted / sizeof wanted[0]; i++) {
        if (has_word(flags, wanted[i]) && n < sizeof info->features) {
            const int got =
                snprintf(info->features + n, sizeof info->features - n, "%s%s", n > 0 ? " " : "", wanted[i]);
            n += got > 0 ? (size_t)got : 0;
        }
    }
    info->has_avx2 = has_word(info->features, "avx2");
    info->has_avx512_bf16 = has_word(info->features, "avx512_bf16");
    info->has_amx = has_word(info->features, "amx_bf16");
    free(flags);
    free(name);
    free(text);
}

/* ---- Control groups ---- */

uint64_t system_info_group_limit(const char *root, const char *group, const char *file) {
    uint64_t lowest = UINT64_MAX;
    char *folder = text_format("%s%s", root, group);
    for (;;) {
        char *path = files_join(folder, file);
        char *text = read_text(path);
        if (text[0] >= '0' && text[0] <= '9') {
            const uint64_t limit = strtoull(text, NULL, 10);
            lowest = limit < lowest ? limit : lowest;
        }
        free(text);
        free(path);
        char *slash = strrchr(folder, '/');
        if (slash == NULL || strlen(folder) <= strlen(root)) {
            break;
        }
        *slash = '\0';
    }
    free(folder);
    return lowest;
}

/* The group of this process in version 2: what follows "0::". A new string. */
static char *own_group(void) {
    char *text = read_text("/proc/self/cgroup");
    const char *at = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    at = at == NULL ? "" : at + (at[0] == '\n') + 3;
    char *group = text_format("%.*s", (int)strcspn(at, "\n"), at);
    free(text);
    return group;
}

static uint64_t read_number(const char *path) {
    char *text = read_text(path);
    const uint64_t value = text[0] >= '0' && text[0] <= '9' ? strtoull(text, NULL, 10) : 0;
    free(text);
    return value;
}

static void read_cpu_quota(struct system_info *info) {
    char *group = own_group();
    char *path = text_format(GROUP_ROOT "%s/cpu.max", group);
    char *text = read_text(path);
    if (text[0] == '\0') {
        free(text);
        text = read_text(GROUP_ROOT "/cpu.max");
    }
    char *end = NULL;
    double quota = strtod(text, &end); /* "max 100000" gives 0 */
    double period = end != text ? strtod(end, NULL) : 0.0;
    if (text[0] == '\0') { /* version 1 */
        quota = (double)read_number(GROUP_ROOT "/cpu/cpu.cfs_quota_us");
        period = (double)read_number(GROUP_ROOT "/cpu/cpu.cfs_period_us");
    }
    info->quota_cores = quota > 0.0 && period > 0.0 ? quota / period : 0.0;
    free(text);
    free(path);
    free(group);
}

static void read_memory(struct system_info *info) {
    char *text = read_text("/proc/meminfo");
    char *total = find_value(text, "MemTotal");
    char *available = find_value(text, "MemAvailable");
    info->memory_bytes = total != NULL ? strtoull(total, NULL, 10) * 1024 : 0;
    info->available_bytes = available != NULL ? strtoull(available, NULL, 10) * 1024 : 0;
    free(total);
    free(available);
    free(text);

    char *group = own_group();
    uint64_t limit = system_info_group_limit(GROUP_ROOT, group, "memory.max");
    if (limit == UINT64_MAX) { /* version 1 */
        limit = system_info_group_limit(GROUP_ROOT "/memory", "", "memory.limit_in_bytes");
    }
    if (limit < info->memory_bytes) {
        char *path = text_format(GROUP_ROOT "%s/memory.stat", group);
        char *stat = read_text(path);
        const char *anon = strncmp(stat, "anon ", 5) == 0 ? stat + 5 : NULL;
        info->limit_bytes = limit;
        info->used_bytes = anon != NULL ? strtoull(anon, NULL, 10) : 0;
        free(stat);
        free(path);
    }
    free(group);
}

void system_info_read(struct system_info *ret_info) {
    struct system_info info = { 0 };
    struct utsname name;
    cpu_set_t allowed;
    read_processor(&info);
    read_cpu_quota(&info);
    read_memory(&info);
    const long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
    info.n_cores = n_cores > 0 ? (int)n_cores : 1;
    info.n_allowed_cores = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : info.n_cores;
    if (uname(&name) == 0) {
        (void)snprintf(info.kernel, sizeof info.kernel, "%.40s %.60s %.20s", name.sysname, name.release, name.machine);
    }
    *ret_info = info;
}

/* ---- Libraries ---- */

static int add_library(struct dl_phdr_info *library, size_t size, void *user) {
    static const char *const wanted[] = { "libdnnl",  "libjansson",  "libspng",   "libturbojpeg", "libwebp",
                                          "libpcre2", "libutf8proc", "libsodium", "libgomp",      "libc" };
    char **text = user;
    (void)size;
    char *real = library->dlpi_name[0] != '\0' ? realpath(library->dlpi_name, NULL) : NULL;
    const char *name = real != NULL ? files_base_name(real) : "";
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        const size_t n = strlen(wanted[i]);
        if (strncmp(name, wanted[i], n) == 0 && (name[n] == '.' || name[n] == '-')) {
            const char *version = strstr(name, ".so.");
            char *longer = text_format("%s%s%.*s %s", *text, (*text)[0] != '\0' ? ", " : "", (int)strcspn(name, "."),
                                       name, version != NULL ? version + 4 : "");
            free(*text);
            *text = longer;
            break;
        }
    }
    free(real);
    return 0;
}

char *system_info_libraries(void) {
    char *text = text_copy("");
    (void)dl_iterate_phdr(add_library, &text);
    return text;
}
