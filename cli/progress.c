/* The progress line: see progress.h. */
#include "progress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_SECONDS 0.1  /* between two drawings of the bar */
#define LINE_SECONDS 1.0 /* between two lines of one phase */
#define DEFAULT_COLUMNS 80

const char *progress_phase_title(enum cyi_phase phase) {
    static const char *const titles[CYI_N_PHASES] = {
        [CYI_PHASE_ENCODE_TEXT] = "Reading the prompt",
        [CYI_PHASE_ENCODE_IMAGES] = "Reading pictures",
        [CYI_PHASE_DENOISE] = "Painting",
        [CYI_PHASE_DECODE] = "Developing",
    };
    return (unsigned)phase < CYI_N_PHASES ? titles[phase] : "Working";
}

void progress_init(struct progress *progress, FILE *out, bool is_quiet, int n_pictures) {
    const char *terminal = getenv("TERM");
    const bool can_move = isatty(fileno(out)) && terminal != NULL && strcmp(terminal, "dumb") != 0;
    struct winsize size;
    *progress = (struct progress){ .out = out, .n_columns = DEFAULT_COLUMNS, .picture = 1, .n_pictures = n_pictures };
    progress->style = is_quiet ? PROGRESS_NONE : can_move ? PROGRESS_BAR : PROGRESS_LINES;
    if (can_move && ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        progress->n_columns = size.ws_col;
    }
}

void progress_start_picture(struct progress *progress, int picture) {
    progress->picture = picture;
    progress->has_drawn = false;
}

/* "Painting 12/20", and before it "2/4 " when there are several pictures. */
static void write_title(const struct progress *progress, const struct cyi_progress *state, char *title, size_t size) {
    char picture[48] = "", step[32] = "";
    if (progress->n_pictures > 1) {
        (void)snprintf(picture, sizeof picture, "[%d/%d] ", progress->picture, progress->n_pictures);
    }
    if (state->phase == CYI_PHASE_DENOISE && state->n_steps > 0) {
        (void)snprintf(step, sizeof step, " %d/%d", state->step, state->n_steps);
    }
    (void)snprintf(title, size, "%s%s%s", picture, progress_phase_title(state->phase), step);
}

static int whole_percent(const struct cyi_progress *state) {
    const float fraction = state->fraction;
    return fraction >= 1.0F ? 100 : fraction > 0.0F ? (int)(fraction * 100.0F) : 0;
}

/* Whole seconds: digits that change with every drawing only make the line restless. */
static const char *write_seconds(char text[TEXT_SHORT], double seconds) {
    if (seconds < 59.5) {
        (void)snprintf(text, TEXT_SHORT, "%.0f s", seconds > 0.0 ? seconds : 0.0);
        return text;
    }
    return text_seconds(text, seconds);
}

static void write_times(const struct cyi_progress *state, char *times, size_t size) {
    char elapsed[TEXT_SHORT], remaining[TEXT_SHORT];
    (void)write_seconds(elapsed, state->elapsed_seconds);
    if (state->remaining_seconds >= 0.0) {
        (void)snprintf(times, size, "%s, %s left", elapsed, write_seconds(remaining, state->remaining_seconds));
    } else {
        (void)snprintf(times, size, "%s", elapsed);
    }
}

void progress_render(const struct progress *progress, const struct cyi_progress *state,
                     char line[PROGRESS_LINE_BYTES]) {
    char title[96], times[2 * TEXT_SHORT + 16], bar[40 * 3 + 1];
    const int percent = whole_percent(state);
    write_title(progress, state, title, sizeof title);
    write_times(state, times, sizeof times);
    int n_bar = progress->style == PROGRESS_BAR ? progress->n_columns - 26 - 5 - (int)strlen(times) - 4 : 0;
    n_bar = n_bar > 40 ? 40 : n_bar;
    if (n_bar < 5) {
        (void)snprintf(line, PROGRESS_LINE_BYTES, "%s  %d %%  %s", title, percent, times);
    } else {
        size_t n = 0;
        for (int i = 0; i < n_bar; i++) {
            const char *cell = (i + 1) * 100 <= percent * n_bar ? "█" : "░";
            memcpy(bar + n, cell, strlen(cell));
            n += strlen(cell);
        }
        bar[n] = '\0';
        (void)snprintf(line, PROGRESS_LINE_BYTES, "%-26s %s %3d %%  %s", title, bar, percent, times);
    }
    if (n_bar < 5 && progress->style == PROGRESS_BAR && progress->n_columns > 0 &&
        (size_t)progress->n_columns < strlen(line)) {
        line[progress->n_columns] = '\0'; /* plain ASCII here: a narrow terminal must not wrap the line */
    }
}

static bool is_due(const struct progress *progress, const struct cyi_progress *state) {
    const double since = state->elapsed_seconds - progress->drawn_seconds;
    if (!progress->has_drawn || state->phase != progress->drawn_phase) {
        return true;
    }
    if (progress->style == PROGRESS_BAR) {
        return since >= BAR_SECONDS || since < 0.0;
    }
    return since >= LINE_SECONDS && (state->phase != CYI_PHASE_DENOISE || state->step != progress->drawn_step);
}

void progress_update(struct progress *progress, const struct cyi_progress *state) {
    char line[PROGRESS_LINE_BYTES];
    if (progress->style == PROGRESS_NONE || !is_due(progress, state)) {
        return;
    }
    progress_render(progress, state, line);
    if (progress->style == PROGRESS_BAR) {
        fprintf(progress->out, "\r\033[K%s", line);
    } else {
        fprintf(progress->out, "%s\n", line);
    }
    (void)fflush(progress->out);
    progress->has_drawn = true;
    progress->drawn_seconds = state->elapsed_seconds;
    progress->drawn_phase = state->phase;
    progress->drawn_step = state->step;
}

void progress_clear(struct progress *progress) {
    if (progress->style == PROGRESS_BAR && progress->has_drawn) {
        fputs("\r\033[K", progress->out);
        (void)fflush(progress->out);
    }
}
