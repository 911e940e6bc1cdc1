/* progress: shows how far a picture is, on a terminal as one line that is drawn again and again, elsewhere as plain lines. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "text.h"

enum progress_style {
    PROGRESS_NONE,
    PROGRESS_BAR,  /* a terminal */
    PROGRESS_LINES /* a file or a pipe: a line for every phase and step, at most one a second within a phase */
};

struct progress {
    FILE *out;
    enum progress_style style;
    int n_columns;
    int picture, n_pictures; /* from 1 */
    /* what was drawn last */
    double drawn_seconds;
    enum cyi_phase drawn_phase;
    int drawn_step;
    bool has_drawn;
};

/* BAR when out is a terminal that can move the cursor, else LINES; NONE when quiet. */
void progress_init(struct progress *progress, FILE *out, bool is_quiet, int n_pictures);
void progress_start_picture(struct progress *progress, int picture);
void progress_update(struct progress *progress, const struct cyi_progress *state);
/* Clears the bar, so that other text can follow. */
void progress_clear(struct progress *progress);

/* The line itself, without colours: at most n_columns columns. For BAR with a bar, for LINES without. */
#define PROGRESS_LINE_BYTES 512
void progress_render(const struct progress *progress, const struct cyi_progress *state, char line[PROGRESS_LINE_BYTES]);

/* What a phase is called for people: "Reading the prompt". */
const char *progress_phase_title(enum cyi_phase phase);

#endif
