/* studio: the parts of a running server, and how they are started and stopped. Routes get this and hand on what a part
 * needs. */
#ifndef SERVER_STUDIO_H
#define SERVER_STUDIO_H

#include "base/events.h"
#include "base/settings.h"
#include "base/signing.h"
#include "store/db.h"

struct dialects;
struct enricher;
struct gallery;
struct gate;
struct http;
struct queue;
struct route_table;
struct upkeep;

/* Where things lie: absolute paths, made from the settings. */
struct studio_paths {
    char *data, *images, *database, *cache;
    char *program; /* this executable, started again as worker */
    int lock_fd;   /* of the data folder; < 0: not taken */
};

struct studio {
    struct settings *settings;
    struct studio_paths paths;
    struct store *store;
    struct signing_key audit_key;
    struct events *events;
    struct gate *gate;         /* security/: who may what */
    struct gallery *gallery;   /* gallery/: pictures */
    struct queue *queue;       /* jobs/: jobs and workers */
    struct enricher *enricher; /* enrich/ */
    struct dialects *dialects; /* routes/: the APIs of other programs */
    struct upkeep *upkeep;
    struct http *http;
    struct route_table *tables; /* all routes; as long as http */
    int64_t started_us;
};

/* The paths that the settings mean. Errors: INTERNAL. */
enum problem_code studio_paths_init(struct settings *settings, struct studio_paths *ret_paths, struct problem *problem);
/* Makes the folders that are not there. Errors: INTERNAL. */
enum problem_code studio_paths_make(const struct studio_paths *paths, struct problem *problem);
void studio_paths_done(struct studio_paths *paths);

/* Only data folder (one program at a time), database and its settings: for commands. is_new: the database that is there is put
 * aside, and a new one is made. Ended by studio_stop. Errors: CONFLICT (a studio is at work there), as store_open. */
enum problem_code studio_open(struct settings *settings, bool is_new, struct studio **ret_studio,
                              struct problem *problem);
/* Opens the data folder (one studio at a time), database, parts and listener. Errors: a sentence for the console. */
enum problem_code studio_start(struct settings *settings, struct studio **ret_studio, struct problem *problem);
/* The link that signs the owner in once; NULL with no-auth. A new string. */
char *studio_sign_in_link(struct studio *studio);
/* Ends everything in order: listener, queue (the running job goes back), gallery, database. */
void studio_stop(struct studio *studio);

#endif
