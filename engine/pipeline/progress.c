/* Progress of one picture: see progress.h. */
#include "pipeline/progress.h"

#include "pipeline/engine.h"

#define ESTIMATE_FROM 0.02F /* below this part of the work an estimate would only be noise */

const char *cyi_phase_name(enum cyi_phase phase) {
    static const char *const names[CYI_N_PHASES] = {
        [CYI_PHASE_ENCODE_TEXT] = "encode_text",
        [CYI_PHASE_ENCODE_IMAGES] = "encode_images",
        [CYI_PHASE_DENOISE] = "denoise",
        [CYI_PHASE_DECODE] = "decode",
    };
    return (unsigned)phase < CYI_N_PHASES ? names[phase] : "unknown";
}

void progress_begin(struct progress *progress, const struct cyi_request *request, const double work[CYI_N_PHASES]) {
    *progress =
        (struct progress){ .on_progress = request->on_progress, .user = request->user, .start = engine_seconds() };
    progress->phase_start = progress->start;
    for (int i = 0; i < CYI_N_PHASES; i++) {
        progress->work[i] = work[i];
    }
}

/* Tells the caller. false: cancel. */
static bool tell(const struct progress *progress, float phase_fraction, const struct cyi_image *preview) {
    if (progress->on_progress == NULL) {
        return true;
    }
    double done = 0;
    double all = 0;
    for (int i = 0; i < CYI_N_PHASES; i++) {
        double part = i < (int)progress->phase ? 1.0 : i == (int)progress->phase ? (double)phase_fraction : 0.0;
        done += part * progress->work[i];
        all += progress->work[i];
    }
    double elapsed = engine_seconds() - progress->start;
    float fraction = all > 0 ? (float)(done / all) : 0.0F;
    bool is_denoise = progress->phase == CYI_PHASE_DENOISE;
    const struct cyi_progress report = { .phase = progress->phase,
                                         .step = is_denoise ? progress->step : 0,
                                         .n_steps = is_denoise ? progress->n_steps : 0,
                                         .phase_fraction = phase_fraction,
                                         .fraction = fraction,
                                         .elapsed_seconds = elapsed,
                                         .remaining_seconds = fraction >= ESTIMATE_FROM
                                                                  ? elapsed * (1.0 / (double)fraction - 1.0)
                                                                  : -1.0,
                                         .preview = preview };
    return progress->on_progress(progress->user, &report);
}

static enum cyi_status cancelled(struct cyi_error *err) {
    return error_set(err, CYI_E_CANCELLED, "cancelled");
}

static void close_phase(struct progress *progress) {
    double now = engine_seconds();
    progress->phase_seconds[progress->phase] += now - progress->phase_start;
    progress->phase_start = now;
}

enum cyi_status progress_enter(struct progress *progress, enum cyi_phase phase, int n_parts, struct cyi_error *err) {
    close_phase(progress);
    progress->phase = phase;
    progress->part = 0;
    progress->n_parts = n_parts;
    progress->phase_fraction = 0.0F;
    return tell(progress, 0.0F, NULL) ? CYI_OK : cancelled(err);
}

bool progress_on_block(void *user, float fraction) {
    struct progress *progress = user;
    if (!progress->is_paused) {
        progress->phase_fraction = ((float)progress->part + fraction) / (float)progress->n_parts;
    }
    return tell(progress, progress->phase_fraction, NULL);
}

enum cyi_status progress_step(struct progress *progress, int n_done, const struct cyi_image *preview,
                              struct cyi_error *err) {
    progress->step = n_done;
    return tell(progress, (float)n_done / (float)progress->n_steps, preview) ? CYI_OK : cancelled(err);
}

void progress_end(struct progress *progress) {
    close_phase(progress);
    (void)tell(progress, 1.0F, NULL);
}
