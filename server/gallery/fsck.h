/* fsck: holds database, pictures and audit log against each other, and mends what can be mended. What it changes is said in the
 * audit log. Nothing else may use the data folder meanwhile. */
#ifndef SERVER_GALLERY_FSCK_H
#define SERVER_GALLERY_FSCK_H

#include "studio.h"

struct fsck_options {
    bool mends;
    bool is_deep; /* every file is read: its hash, and whether it is a picture */
};

/* studio: from studio_open. Like a start, it first settles pictures that were on their way. A file without a row is read back by
 * what it says of itself, or put into IMAGES/lost+found when it is no picture; a row whose file is gone is removed, and stands in
 * the audit log. *ret_report: {"pictures", "faults": [{"kind", "object", "sentence", "mended"}], "strangers": [paths of files that
 * are no pictures of the studio]}; the caller decrefs. */
enum problem_code fsck_run(struct studio *studio, const struct fsck_options *options, json_t **ret_report,
                           struct problem *problem);

#endif
