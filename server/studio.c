/* Starting and stopping the parts of a studio: see studio.h. */
#include "studio.h"

#include "base/clock.h"
#include "base/log.h"
#include "enrich/enrich.h"
#include "files.h"
#include "gallery/gallery.h"
#include "jobs/queue.h"
#include "lock.h"
#include "routes/dialects.h"
#include "routes/routes.h"
#include "security/gate.h"
#include "store/settings.h"
#include "upkeep.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define N_READERS 8

/* ---- Paths ---- */

/* The setting as absolute path; when nobody said, name in folder, or folder itself (name NULL). A new string. */
static char *path_setting(struct settings *settings, enum setting setting, const char *folder, const char *name) {
    char *path = settings_text(settings, setting);
    if (path[0] == '\0') {
        free(path);
        return name != NULL ? files_join(folder, name) : text_copy(folder);
    }
    if (path[0] == '/') {
        return path;
    }
    char *here = getcwd(NULL, 0);
    char *absolute = files_join(here != NULL ? here : ".", path);
    free(here);
    free(path);
    return absolute;
}

static char *default_data(void) {
    const char *share = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    return share != NULL && share[0] == '/'  ? files_join(share, "cyberimage/studio")
           : home != NULL && home[0] != '\0' ? files_join(home, ".local/share/cyberimage/studio")
                                             : text_copy("/var/lib/cyberimage");
}

static enum problem_code make_folder(const char *folder, struct problem *problem) {
    struct cyi_error err = { 0 };
    return files_make_folder(folder, 0700, &err) == CYI_OK
               ? PROBLEM_NONE
               : problem_set(problem, PROBLEM_INTERNAL, NULL, "%.500s", err.text);
}

enum problem_code studio_paths_init(struct settings *settings, struct studio_paths *ret_paths,
                                    struct problem *problem) {
    struct studio_paths paths = { .lock_fd = -1, .program = realpath("/proc/self/exe", NULL) };
    if (paths.program == NULL) {
        return problem_system(problem, errno, "this program's own path");
    }
    char *usual = default_data();
    paths.data = path_setting(settings, SETTING_data, usual, NULL);
    paths.images = path_setting(settings, SETTING_images, paths.data, "images");
    paths.database = path_setting(settings, SETTING_database, paths.data, "db/cyberimage.sqlite");
    paths.cache = path_setting(settings, SETTING_cache, paths.data, "cache");
    free(usual);
    *ret_paths = paths;
    return PROBLEM_NONE;
}

enum problem_code studio_paths_make(const struct studio_paths *paths, struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    char *database_folder = files_folder_of(paths->database);
    TRY(make_folder(paths->data, problem));
    TRY(make_folder(paths->images, problem));
    TRY(make_folder(database_folder, problem));
    TRY(make_folder(paths->cache, problem));
done:
    free(database_folder);
    return st;
}

void studio_paths_done(struct studio_paths *paths) {
    free(paths->data);
    free(paths->images);
    free(paths->database);
    free(paths->cache);
    free(paths->program);
    if (paths->lock_fd >= 0) {
        (void)close(paths->lock_fd);
    }
    *paths = (struct studio_paths){ .lock_fd = -1 };
}

/* ---- Start ---- */

static enum problem_code start_listening(struct studio *studio, struct problem *problem) {
    const struct route_table tables[] = { system_routes,   session_routes,  account_routes, queue_routes,
                                          delivery_routes, listing_routes,  change_routes,  enrich_routes,
                                          audit_routes,    settings_routes, openai_routes,  sdapi_routes };
    studio->tables = text_alloc(1, sizeof tables);
    memcpy(studio->tables, tables, sizeof tables);
    const struct http_options options = {
        .studio = studio,
        .settings = studio->settings,
        .tables = studio->tables,
        .n_tables = sizeof tables / sizeof tables[0],
        .identify = gate_identify,
        .count = gate_count,
        .still_holds = gate_still_holds,
        .foreign_problem = foreign_problem,
    };
    return http_start(&options, &studio->http, problem);
}

static enum problem_code open_store(struct studio *studio, struct problem *problem) {
    int n_migrated = 0;
    enum problem_code st = PROBLEM_NONE;
    TRY(store_open(studio->paths.database, N_READERS, &studio->store, &n_migrated, problem));
    if (n_migrated > 0) {
        TRY(audit_write(studio->store, &actor_system, "store.migrated", NULL, JSON("{s:i}", "steps", n_migrated),
                        problem));
    }
    TRY(signing_key_load(studio->paths.data, true, &studio->audit_key, problem));
    TRY(settings_load(studio->store, studio->settings, problem));
done:
    return st;
}

/* A damaged database is kept beside the new one, under a name that says when. */
static enum problem_code put_database_aside(const char *path, struct problem *problem) {
    static const char *const endings[] = { "", "-wal", "-shm" };
    const time_t now = time(NULL);
    struct tm tm;
    char stamp[24] = "";
    (void)strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
    enum problem_code st = PROBLEM_NONE;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0] && st == PROBLEM_NONE; i++) {
        char *from = text_format("%s%s", path, endings[i]), *to = text_format("%s.%s%s", path, stamp, endings[i]);
        if (files_exists(from) && rename(from, to) != 0) {
            st = problem_system(problem, errno, from);
        }
        free(from);
        free(to);
    }
    return st;
}

enum problem_code studio_open(struct settings *settings, bool is_new, struct studio **ret_studio,
                              struct problem *problem) {
    struct studio *studio = text_alloc(1, sizeof *studio);
    enum problem_code st = PROBLEM_NONE;
    studio->settings = settings;
    studio->paths.lock_fd = -1;
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    TRY(studio_paths_init(settings, &studio->paths, problem));
    TRY(studio_paths_make(&studio->paths, problem));
    TRY(data_lock(studio->paths.data, &studio->paths.lock_fd, problem));
    if (is_new) {
        TRY(put_database_aside(studio->paths.database, problem));
    }
    TRY(open_store(studio, problem));
    *ret_studio = studio;
    studio = NULL;
done:
    studio_stop(studio);
    return st;
}

enum problem_code studio_start(struct settings *settings, struct studio **ret_studio, struct problem *problem) {
    struct studio *studio = NULL;
    enum problem_code st = PROBLEM_NONE;
    TRY(studio_open(settings, false, &studio, problem));
    studio->started_us = clock_now_us();
    TRY(gate_check_binding(settings, studio->store, problem));
    studio->events = events_create();
    TRY(gate_start(studio, &studio->gate, problem));
    TRY(gallery_start(studio, &studio->gallery, problem));
    TRY(enricher_create(studio, &studio->enricher, problem));
    TRY(queue_start(studio, &studio->queue, problem));
    studio->dialects = dialects_create();
    TRY(upkeep_start(studio, &studio->upkeep, problem));
    TRY(start_listening(studio, problem));
    TRY(audit_write(studio->store, &actor_system, "studio.started", NULL,
                    JSON("{s:s, s:s}", "version", CYI_VERSION, "url", http_url(studio->http)), problem));
    log_event(
        LOG_INFO, "studio.started",
        JSON("{s:s, s:s, s:s}", "version", CYI_VERSION, "url", http_url(studio->http), "data", studio->paths.data));
    *ret_studio = studio;
    studio = NULL;
done:
    studio_stop(studio);
    return st;
}

char *studio_sign_in_link(struct studio *studio) {
    if (settings_bool(studio->settings, SETTING_no_auth)) {
        return NULL;
    }
    char *secret = gate_make_link(studio->gate);
    char *link = text_format("%s/signin#%s", http_url(studio->http), secret);
    free(secret);
    return link;
}

void studio_stop(struct studio *studio) {
    if (studio == NULL) {
        return;
    }
    const bool has_run = studio->http != NULL;
    if (studio->http != NULL) {
        http_stop(studio->http);
    }
    if (studio->queue != NULL) {
        queue_stop(studio->queue);
    }
    if (studio->enricher != NULL) {
        enricher_free(studio->enricher);
    }
    upkeep_stop(studio->upkeep);
    dialects_free(studio->dialects);
    gallery_stop(studio->gallery);
    gate_stop(studio->gate);
    if (has_run) {
        struct problem ignored = { 0 };
        (void)audit_write(studio->store, &actor_system, "studio.stopped", NULL, NULL, &ignored);
        log_event(LOG_INFO, "studio.stopped", NULL);
    }
    events_free(studio->events);
    store_close(studio->store);
    free(studio->tables);
    studio_paths_done(&studio->paths);
    curl_global_cleanup();
    free(studio);
}
