/* Running the engine once, with progress, plan and report: see generate.h. */
#include "generate.h"

#include "progress.h"

#include <stdlib.h>

void generate_fill_request(const struct recipe *recipe, struct cyi_request *request) {
    request->prompt = recipe->prompt;
    request->negative_prompt = recipe->negative_prompt;
    request->width = recipe->width;
    request->height = recipe->height;
    request->n_steps = recipe->n_steps;
    request->guidance = (float)recipe->guidance;
    request->seed = recipe->seed;
    if (recipe->init.name != NULL) {
        request->strength = (float)recipe->strength;
    }
}

void generate_fill_origin(const struct session *session, struct recipe *recipe) {
    recipe->model_name = text_copy(session->model_info.name);
    recipe->model_family = text_copy(session->model_info.family);
    recipe->model_fingerprint = text_copy(session->model_info.fingerprint);
    recipe->version = text_copy(CYI_VERSION);
    recipe->backend = text_copy(session->engine_info.backend);
    recipe->backend_version = text_copy(session->engine_info.backend_version);
    recipe->isa = text_copy(session->engine_info.cpu_isa);
    recipe->precision = text_copy(session->engine_info.precision);
}

static bool show_progress(void *user, const struct cyi_progress *state) {
    if (session_is_cancelled()) {
        return false;
    }
    progress_update(user, state);
    return true;
}

enum cyi_status generate_run(const struct session *session, struct cyi_request *request, int picture, int n_pictures,
                             struct cyi_image **ret_image, struct cyi_report *ret_report, struct cyi_error *err) {
    struct progress progress;
    progress_init(&progress, stderr, session->options->is_quiet, n_pictures);
    if (session->options->is_verbose && progress.style == PROGRESS_BAR) {
        progress.style = PROGRESS_LINES; /* the log's lines would tear the bar */
    }
    progress.picture = picture;
    request->on_progress = show_progress;
    request->user = &progress;
    const enum cyi_status st = cyi_generate(session->model, request, ret_image, ret_report, err);
    progress_clear(&progress);
    return st;
}

void generate_print_plan(const struct cyi_memory_plan *plan) {
    char mapped[TEXT_SHORT], working[TEXT_SHORT], peak[TEXT_SHORT], available[TEXT_SHORT];
    fprintf(stderr, "Memory: %s of weights stay in their files, up to %s of our own, %s at the peak; %s available%s\n",
            text_bytes(mapped, plan->mapped_bytes), text_bytes(working, plan->working_bytes),
            text_bytes(peak, plan->peak_bytes), text_bytes(available, plan->available_bytes),
            plan->is_tiled ? "; decoding in tiles" : "");
}

void generate_print_report(const struct cyi_report *report) {
    char text[TEXT_SHORT];
    for (int phase = 0; phase < CYI_N_PHASES; phase++) {
        fprintf(stderr, "%-20s %10s\n", progress_phase_title((enum cyi_phase)phase),
                text_seconds(text, report->phase_seconds[phase]));
    }
    fprintf(stderr, "%-20s %10s\n", "Together", text_seconds(text, report->total_seconds));
    fprintf(stderr, "%d text tokens%s, %s held at most", report->n_text_tokens,
            report->is_prompt_cached ? " (from the cache)" : "", text_bytes(text, report->working_bytes));
    if (report->n_fallbacks > 0) {
        fprintf(stderr, ", %llu operations fell back to the slow reference", (unsigned long long)report->n_fallbacks);
    }
    fputc('\n', stderr);
}

enum cyi_status generate_check_plan(const struct session *session, const struct cyi_request *request,
                                    struct cyi_error *err) {
    struct cyi_memory_plan plan;
    const enum cyi_status st = cyi_plan_memory(session->model, request, &plan, err);
    if (st != CYI_OK) {
        return st;
    }
    if (session->options->is_verbose) {
        generate_print_plan(&plan);
    }
    if (!plan.fits) {
        char working[TEXT_SHORT], available[TEXT_SHORT];
        return text_error(err, CYI_E_MEMORY,
                          "%d×%d pixels need %s of memory, and %s are available; a smaller size needs less",
                          request->width, request->height, text_bytes(working, plan.working_bytes),
                          text_bytes(available, plan.available_bytes));
    }
    return CYI_OK;
}
