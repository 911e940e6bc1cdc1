/* The studio itself: health, readiness, metrics, the system view, events, backup, and the pages for people. */
#include "routes/routes.h"

#include "base/clock.h"
#include "files.h"
#include "gallery/gallery.h"
#include "jobs/queue.h"
#include "routes/pages.h"
#include "store/system.h"
#include "studio.h"
#include "system_info.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BACKUP_NAME 100

/* ---- Health ---- */

static enum problem_code get_health(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    (void)studio;
    (void)request;
    (void)problem;
    response_json(response, 200, JSON("{s:s, s:s}", "status", "ok", "version", CYI_VERSION));
    return PROBLEM_NONE;
}

/* What keeps the studio from taking work, in one sentence; NULL: nothing. */
static const char *find_hindrance(struct studio *studio) {
    return store_is_sick(studio->store)        ? "the database cannot be written"
           : !queue_is_ready(studio->queue)    ? "no worker answers yet"
           : gallery_room(studio->gallery) < 0 ? "the pictures' disk has less room than its reserve"
                                               : NULL;
}

static enum problem_code get_ready(struct studio *studio, struct request *request, struct response *response,
                                   struct problem *problem) {
    const char *hindrance = find_hindrance(studio);
    (void)request;
    if (hindrance != NULL) {
        problem->retry_after_seconds = 5;
        return problem_set(problem, PROBLEM_UNAVAILABLE, NULL, "%s", hindrance);
    }
    response_json(response, 200, JSON("{s:s}", "status", "ready"));
    return PROBLEM_NONE;
}

/* ---- Numbers ---- */

static int64_t resident_bytes(void) {
    long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file != NULL) {
        if (fscanf(file, "%*s %lld", &pages) != 1) {
            pages = 0;
        }
        (void)fclose(file);
    }
    return pages * sysconf(_SC_PAGESIZE);
}

static json_t *describe_memory(void) {
    struct system_info info;
    system_info_read(&info);
    return JSON("{s:I, s:I, s:I}", "resident_bytes", (json_int_t)resident_bytes(), "total_bytes",
                (json_int_t)info.memory_bytes, "available_bytes", (json_int_t)info.available_bytes);
}

static json_t *describe_disk(struct studio *studio) {
    const int64_t reserve = settings_int(studio->settings, SETTING_reserve_mib) * 1024 * 1024;
    return JSON("{s:I, s:I}", "room_bytes", (json_int_t)gallery_room(studio->gallery), "reserve_bytes",
                (json_int_t)reserve);
}

static enum problem_code get_system(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    json_t *queue = NULL;
    char started[CLOCK_TEXT];
    enum problem_code st = PROBLEM_NONE;
    struct db *db = store_read(studio->store);
    TRY(system_queue_numbers(db, &queue, problem));
    const char *hindrance = find_hindrance(studio);
    json_t *system = JSON("{s:s, s:s, s:f, s:b, s:o, s:O, s:o, s:o, s:o, s:o}", "version", CYI_VERSION, "started",
                          clock_utc_text(started, studio->started_us), "uptime_seconds",
                          (double)(clock_now_us() - studio->started_us) / 1e6, "ready", hindrance == NULL, "hindrance",
                          json_text(hindrance), "queue", queue, "workers", queue_workers(studio->queue), "models",
                          queue_models(studio->queue), "disk", describe_disk(studio), "memory", describe_memory());
    if (request_is_admin(request)) {
        json_put(system, "http", http_metrics(studio->http));
        json_put(system, "paths",
                 JSON("{s:o, s:o, s:o, s:o}", "data", json_text(studio->paths.data), "images",
                      json_text(studio->paths.images), "database", json_text(studio->paths.database), "cache",
                      json_text(studio->paths.cache)));
    }
    response_json(response, 200, system);
done:
    store_read_done(studio->store, db);
    json_decref(queue);
    return st;
}

/* ---- Metrics: Prometheus' text form ---- */

static void put_number(FILE *out, const char *name, const char *kind, const char *help, double value) {
    (void)fprintf(out, "# HELP cyberimage_%s %s\n# TYPE cyberimage_%s %s\ncyberimage_%s %.16g\n", name, help, name,
                  kind, name, value);
}

/* One line for each member of object, with its key as label. */
static void put_object(FILE *out, const char *name, const char *kind, const char *help, const char *label,
                       json_t *object) {
    const char *key;
    json_t *value;
    (void)fprintf(out, "# HELP cyberimage_%s %s\n# TYPE cyberimage_%s %s\n", name, help, name, kind);
    json_object_foreach(object, key, value) {
        (void)fprintf(out, "cyberimage_%s{%s=\"%s\"} %.16g\n", name, label, key, json_number_value(value));
    }
}

static json_t *count_workers(struct queue *queue) {
    json_t *workers = queue_workers(queue), *states = JSON("{}");
    for (size_t i = 0; i < json_array_size(workers); i++) {
        const char *state = json_get_text(json_array_get(workers, i), "state");
        if (state != NULL) {
            json_put(states, state, json_integer(json_get_int(states, state, 0) + 1));
        }
    }
    json_decref(workers);
    return states;
}

static void write_metrics(FILE *out, struct studio *studio, const json_t *numbers, const json_t *http) {
    json_t *workers = count_workers(studio->queue);
    put_number(out, "uptime_seconds", "gauge", "Since the studio started.",
               (double)(clock_now_us() - studio->started_us) / 1e6);
    put_number(out, "ready", "gauge", "1 when the studio takes work.", find_hindrance(studio) == NULL ? 1.0 : 0.0);
    put_object(out, "jobs", "gauge", "Jobs by state.", "state", json_object_get(numbers, "jobs"));
    put_object(out, "workers", "gauge", "Workers by state.", "state", workers);
    put_number(out, "images", "gauge", "Pictures in the gallery.", (double)json_get_int(numbers, "images", 0));
    put_number(out, "images_trashed", "gauge", "Pictures in the trash.", (double)json_get_int(numbers, "trashed", 0));
    put_number(out, "images_bytes", "gauge", "Bytes of all pictures.",
               (double)json_get_int(numbers, "images_bytes", 0));
    put_number(out, "users", "gauge", "Accounts.", (double)json_get_int(numbers, "users", 0));
    put_number(out, "audit_rows_total", "counter", "Rows of the audit log.",
               (double)json_get_int(numbers, "audit_rows", 0));
    put_number(out, "disk_room_bytes", "gauge", "Room of the pictures' disk above the reserve.",
               (double)gallery_room(studio->gallery));
    put_number(out, "memory_resident_bytes", "gauge", "Memory of the server process.", (double)resident_bytes());
    put_number(out, "http_connections", "gauge", "Open connections.", (double)json_get_int(http, "connections", 0));
    put_number(out, "http_watchers", "gauge", "Open streams of events.", (double)json_get_int(http, "watchers", 0));
    put_number(out, "http_requests_total", "counter", "Requests.", (double)json_get_int(http, "requests", 0));
    put_object(out, "http_responses_total", "counter", "Answers by class.", "class",
               json_object_get(http, "responses_by_class"));
    put_number(out, "http_seconds_total", "counter", "Seconds from requests to their answers.",
               json_number_value(json_object_get(http, "seconds")));
    json_decref(workers);
}

/* For administrators in a browser, and for any token that may read: a collector has a token. */
static enum problem_code get_metrics(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    json_t *numbers = NULL, *http = NULL;
    char *text = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    if (!request_is_admin(request) && request_caller(request)->token_id[0] == '\0') {
        return problem_set(problem, PROBLEM_FORBIDDEN, NULL, "metrics are for administrators and for tokens");
    }
    struct db *db = store_read(studio->store);
    TRY(system_all_numbers(db, &numbers, problem));
    http = http_metrics(studio->http);
    FILE *out = open_memstream(&text, &n);
    if (out == NULL) {
        text_out_of_memory();
    }
    write_metrics(out, studio, numbers, http);
    (void)fclose(out);
    response_bytes(response, 200, "text/plain; version=0.0.4; charset=utf-8", text, n);
done:
    store_read_done(studio->store, db);
    free(text);
    json_decref(http);
    json_decref(numbers);
    return st;
}

/* ---- Events ---- */

/* From Last-Event-ID, which a browser sends when it comes back, or from ?after=; else from now on. */
static enum problem_code get_events(struct studio *studio, struct request *request, struct response *response,
                                    struct problem *problem) {
    int64_t after = (int64_t)events_last_id(studio->events);
    const struct json_row rows[] = { { "after", JSON_ROW_INT, 0, 0, 9007199254740991.0, NULL, 0 } };
    const char *last = request_header(request, "Last-Event-ID");
    enum problem_code st = PROBLEM_NONE;
    TRY(request_read_query(request, rows, 1, &after, problem));
    if (last != NULL) {
        const bool is_number = last[0] != '\0' && strlen(last) <= 16 && last[strspn(last, "0123456789")] == '\0';
        after = is_number ? strtoll(last, NULL, 10) : 0; /* what is none of our ids is a gap */
    }
    response_events(response, studio->events, (uint64_t)after, request_caller(request)->user_id,
                    request_is_admin(request));
done:
    return st;
}

/* ---- Backup ---- */

static bool is_file_name(const char *name) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    return name[0] != '\0' && name[0] != '.' && name[strspn(name, allowed)] == '\0';
}

static enum problem_code post_backup(struct studio *studio, struct request *request, struct response *response,
                                     struct problem *problem) {
    const char *name = NULL;
    const struct json_row rows[] = { { "file", JSON_ROW_TEXT, 0, 1, MAX_BACKUP_NAME, NULL, JSON_NEEDED } };
    char *folder = files_join(studio->paths.data, "backups"), *path = NULL;
    struct cyi_error err = { 0 };
    struct stat info;
    enum problem_code st = PROBLEM_NONE;
    TRY(json_read(request_json(request), rows, 1, &name, problem));
    if (!is_file_name(name)) {
        st = problem_set(
            problem, PROBLEM_INVALID, "file",
            "\"file\" must be a name of letters, digits, dots, dashes and underscores that begins with no dot");
        goto done;
    }
    path = files_join(folder, name);
    if (files_make_folder(folder, 0700, &err) != CYI_OK) {
        st = problem_set(problem, PROBLEM_INTERNAL, NULL, "%s", err.text);
        goto done;
    }
    TRY(store_backup(studio->store, path, problem));
    const int64_t size = stat(path, &info) == 0 ? info.st_size : 0;
    TRY(audit_write(studio->store, request_actor(request), "backup.made", name,
                    JSON("{s:I}", "size_bytes", (json_int_t)size), problem));
    response_json(response, 201, JSON("{s:s, s:s, s:I}", "file", name, "path", path, "size_bytes", (json_int_t)size));
done:
    free(path);
    free(folder);
    return st;
}

static const struct route routes[] = {
    { "GET", "/", ACCESS_ANYBODY, BODY_NONE, ROUTE_UNCOUNTED, page_home },
    { "GET", "/style.css", ACCESS_ANYBODY, BODY_NONE, ROUTE_UNCOUNTED, page_style },
    { "GET", "/api", ACCESS_ANYBODY, BODY_NONE, ROUTE_UNCOUNTED, page_api },
    { "GET", "/openapi.json", ACCESS_ANYBODY, BODY_NONE, ROUTE_UNCOUNTED, page_openapi },
    { "GET", "/healthz", ACCESS_ANYBODY, BODY_NONE, ROUTE_UNCOUNTED, get_health },
    { "GET", "/readyz", ACCESS_ANYBODY, BODY_NONE, ROUTE_UNCOUNTED, get_ready },
    { "GET", "/metrics", ACCESS_READ, BODY_NONE, ROUTE_SLOW | ROUTE_UNCOUNTED, get_metrics },
    { "GET", "/api/v1/events", ACCESS_READ, BODY_NONE, 0, get_events },
    { "GET", "/api/v1/system", ACCESS_READ, BODY_NONE, 0, get_system },
    { "POST", "/api/v1/backup", ACCESS_ADMIN, BODY_JSON, ROUTE_SLOW, post_backup },
};

const struct route_table system_routes = { routes, sizeof routes / sizeof routes[0] };
