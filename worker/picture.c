/* Models, inputs and pictures of a worker: see picture.h. */
#include "picture.h"

#include "sandbox.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIN_PROGRESS_SECONDS 0.05 /* between two messages without a preview */

void worker_session_send(struct worker_session *session, json_t *header, const void *body, size_t body_bytes) {
    struct cyi_error ignored = { 0 };
    (void)pthread_mutex_lock(&session->send_mutex);
    (void)message_send(session->fd, header, body, body_bytes, &ignored);
    (void)pthread_mutex_unlock(&session->send_mutex);
}

void worker_session_fail(struct worker_session *session, const struct message *order, const struct cyi_error *err) {
    char *clean = text_clean(err->text);
    worker_session_send(session,
                        json_pack("{s:s, s:s, s:I, s:s, s:s}", "type",
                                  err->code == CYI_E_CANCELLED ? "cancelled" : "failed", "id",
                                  order != NULL ? message_text(order, "id") : "", "picture",
                                  (json_int_t)(order != NULL ? message_int(order, "picture", 0) : 0), "code",
                                  cyi_status_name(err->code), "text", clean),
                        NULL, 0);
    free(clean);
}

enum cyi_status worker_session_start(struct worker_session *session, const struct cyi_engine_options *options,
                                     struct cyi_error *err) {
    (void)pthread_mutex_init(&session->send_mutex, NULL);
    const enum cyi_status st = cyi_engine_create(options, &session->engine, err);
    if (st == CYI_OK) {
        cyi_engine_get_info(session->engine, &session->engine_info);
        if (strcmp(session->engine_info.backend, "cuda") != 0 && !sandbox_enter() && options->log != NULL) {
            options->log(options->log_user, CYI_LOG_WARNING,
                         "worker.unfiltered the kernel takes no system call filter");
        }
    }
    return st;
}

void worker_session_done(struct worker_session *session) {
    worker_session_forget(session, session->inputs_id);
    cyi_model_close(session->model);
    free(session->model_path);
    cyi_engine_free(session->engine);
    (void)pthread_mutex_destroy(&session->send_mutex);
    (void)close(session->fd);
}

static json_t *engine_to_json(const struct cyi_engine_info *info) {
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s*}", "version", CYI_VERSION, "backend", info->backend,
                     "backend_version", info->backend_version, "isa", info->cpu_isa, "precision", info->precision,
                     "threads", info->n_threads, "gpu_status", info->gpu_status);
}

void worker_session_greet(struct worker_session *session, const struct message *order) {
    if (message_int(order, "version", 0) != PROTOCOL_VERSION) {
        struct cyi_error err = { 0 };
        (void)text_error(&err, CYI_E_UNSUPPORTED, "the server speaks version %lld of the protocol, this worker %d",
                         (long long)message_int(order, "version", 0), PROTOCOL_VERSION);
        worker_session_fail(session, order, &err);
        return;
    }
    worker_session_send(session,
                        json_pack("{s:s, s:i, s:i, s:o}", "type", "ready", "version", PROTOCOL_VERSION, "pid",
                                  (int)getpid(), "engine", engine_to_json(&session->engine_info)),
                        NULL, 0);
}

/* ---- Models ---- */

static void send_state(struct worker_session *session) {
    worker_session_send(
        session,
        json_pack("{s:s, s:s?, s:b}", "type", "state", "model", session->model_path, "loaded", session->model != NULL),
        NULL, 0);
}

void worker_session_unload(struct worker_session *session) {
    if (session->model != NULL) {
        cyi_model_close(session->model);
        free(session->model_path);
        session->model = NULL;
        session->model_path = NULL;
        send_state(session);
    }
}

static enum cyi_status open_model(struct worker_session *session, const char *path, struct cyi_error *err) {
    if (session->model != NULL && strcmp(session->model_path, path) == 0) {
        return CYI_OK;
    }
    worker_session_unload(session);
    const enum cyi_status st =
        cyi_model_open(session->engine, &(struct cyi_model_options){ .path = path }, &session->model, err);
    if (st == CYI_OK) {
        session->model_path = text_copy(path);
        send_state(session);
    }
    return st;
}

static json_t *model_to_json(const char *path, const struct cyi_model_info *info) {
    return json_pack("{s:s, s:s, s:b, s:s, s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:i, s:i, s:i, s:i, s:f, s:i, s:i}",
                     "type", "model", "path", path, "ok", true, "name", info->name, "family", info->family, "licence",
                     info->licence, "fingerprint", info->fingerprint, "distilled", info->is_distilled,
                     "guidance_embedded", info->has_embedded_guidance, "parameters", (json_int_t)info->n_parameters,
                     "mapped_bytes", (json_int_t)info->mapped_bytes, "max_text_tokens", info->max_text_tokens, "width",
                     info->default_width, "height", info->default_height, "steps", info->default_steps, "guidance",
                     (double)info->default_guidance, "size_multiple", info->size_multiple, "max_references",
                     info->max_references);
}

void worker_session_describe(struct worker_session *session, const char *path) {
    struct cyi_error err = { 0 };
    struct cyi_model *other = NULL;
    struct cyi_model_info info;
    const bool is_open = session->model != NULL && strcmp(session->model_path, path) == 0;
    if (is_open ||
        cyi_model_open(session->engine, &(struct cyi_model_options){ .path = path }, &other, &err) == CYI_OK) {
        cyi_model_get_info(is_open ? session->model : other, &info);
        worker_session_send(session, model_to_json(path, &info), NULL, 0);
        cyi_model_close(other);
        return;
    }
    char *clean = text_clean(err.text);
    worker_session_send(
        session, json_pack("{s:s, s:s, s:b, s:s}", "type", "model", "path", path, "ok", false, "text", clean), NULL, 0);
    free(clean);
}

/* ---- Inputs ---- */

static struct worker_input *find_input(struct worker_session *session, const char *role, int64_t index) {
    const size_t place = strcmp(role, "reference") == 0 ? (size_t)index
                         : strcmp(role, "init") == 0    ? CYI_MAX_REFERENCES
                                                        : CYI_MAX_REFERENCES + 1;
    return &session->inputs[place];
}

static void clear_input(struct worker_input *input) {
    cyi_image_free(input->image);
    *input = (struct worker_input){ 0 };
}

void worker_session_forget(struct worker_session *session, const char *id) {
    if (strcmp(session->inputs_id, id) == 0) {
        for (size_t i = 0; i < WORKER_MAX_INPUTS; i++) {
            clear_input(&session->inputs[i]);
        }
        session->inputs_id[0] = '\0';
    }
}

/* One job at a time has inputs: those of another one go. */
void worker_session_keep_input(struct worker_session *session, const struct message *order) {
    const char *id = message_text(order, "id");
    struct worker_input *input = find_input(session, message_text(order, "role"), message_int(order, "index", 0));
    if (strcmp(session->inputs_id, id) != 0) {
        worker_session_forget(session, session->inputs_id);
        (void)snprintf(session->inputs_id, sizeof session->inputs_id, "%s", id);
    }
    clear_input(input);
    (void)cyi_image_decode(session->engine, order->body, order->body_bytes, &input->image, &input->err);
}

static enum cyi_status attach_input(struct worker_session *session, const struct message *order, const char *role,
                                    int64_t index, const struct cyi_image **ret_image, struct cyi_error *err) {
    const struct worker_input *input = find_input(session, role, index);
    if (strcmp(session->inputs_id, message_text(order, "id")) != 0 ||
        (input->image == NULL && input->err.code == CYI_OK)) {
        return text_error(err, CYI_E_ARGUMENT, "%s picture %lld of the job was not sent", role, (long long)index);
    }
    if (input->image == NULL) {
        return text_error(err, input->err.code, "%s picture %lld cannot be read: %.400s", role, (long long)index,
                          input->err.text);
    }
    *ret_image = input->image;
    return CYI_OK;
}

static enum cyi_status attach_inputs(struct worker_session *session, const struct message *order,
                                     const struct cyi_image *references[CYI_MAX_REFERENCES],
                                     struct cyi_request *request, struct cyi_error *err) {
    enum cyi_status st = CYI_OK;
    request->references = references;
    request->n_references = (int)message_int(order, "n_references", 0);
    for (int i = 0; st == CYI_OK && i < request->n_references; i++) {
        st = attach_input(session, order, "reference", i, &references[i], err);
    }
    if (st == CYI_OK && message_is_true(order, "has_init")) {
        request->strength = (float)message_number(order, "strength", (double)request->strength);
        st = attach_input(session, order, "init", 0, &request->init, err);
    }
    if (st == CYI_OK && message_is_true(order, "has_mask")) {
        st = attach_input(session, order, "mask", 0, &request->mask, err);
    }
    return st;
}

/* ---- One picture ---- */

struct run {
    struct worker_session *session;
    const char *id;
    int64_t picture;
    double last_sent; /* seconds since the picture began */
};

static bool report_progress(void *user, const struct cyi_progress *progress) {
    struct run *run = user;
    const struct cyi_image *preview = progress->preview;
    (void)atomic_fetch_add(&run->session->n_operations, 1);
    if (preview != NULL || progress->elapsed_seconds - run->last_sent >= MIN_PROGRESS_SECONDS) {
        json_t *header =
            json_pack("{s:s, s:s, s:I, s:s, s:i, s:i, s:f, s:f, s:f, s:f}", "type", "progress", "id", run->id,
                      "picture", (json_int_t)run->picture, "phase", cyi_phase_name(progress->phase), "step",
                      progress->step, "n_steps", progress->n_steps, "phase_fraction", (double)progress->phase_fraction,
                      "fraction", (double)progress->fraction, "elapsed_seconds", progress->elapsed_seconds,
                      "remaining_seconds", progress->remaining_seconds);
        if (preview != NULL) {
            (void)json_object_set_new(header, "preview",
                                      json_pack("{s:i, s:i}", "width", preview->width, "height", preview->height));
        }
        run->last_sent = progress->elapsed_seconds;
        worker_session_send(run->session, header, preview != NULL ? preview->pixels : NULL,
                            preview != NULL ? (size_t)preview->width * (size_t)preview->height * 3 : 0);
    }
    return !atomic_load(&run->session->wants_cancel);
}

static json_t *report_to_json(const struct cyi_report *report) {
    json_t *phases = json_object();
    for (int phase = 0; phase < CYI_N_PHASES; phase++) {
        (void)json_object_set_new(phases, cyi_phase_name((enum cyi_phase)phase),
                                  json_real(report->phase_seconds[phase]));
    }
    return json_pack("{s:o, s:f, s:i, s:b, s:b, s:I, s:I, s:I, s:i}", "phases", phases, "total_seconds",
                     report->total_seconds, "text_tokens", report->n_text_tokens, "prompt_cut", report->is_prompt_cut,
                     "prompt_cached", report->is_prompt_cached, "fallbacks", (json_int_t)report->n_fallbacks,
                     "working_bytes", (json_int_t)report->working_bytes, "device_bytes",
                     (json_int_t)report->device_bytes, "first_step", report->first_step);
}

static void send_picture(struct worker_session *session, const struct message *order, const struct cyi_request *request,
                         const struct cyi_image *image, const struct cyi_report *report) {
    struct cyi_model_info info;
    cyi_model_get_info(session->model, &info);
    json_t *header =
        json_pack("{s:s, s:s, s:I, s:i, s:i, s:I, s:o, s:o, s:{s:s, s:s, s:s, s:s}}", "type", "picture", "id",
                  message_text(order, "id"), "picture", (json_int_t)message_int(order, "picture", 0), "width",
                  image->width, "height", image->height, "seed", (json_int_t)(uint32_t)request->seed, "report",
                  report_to_json(report), "engine", engine_to_json(&session->engine_info), "model", "name", info.name,
                  "family", info.family, "fingerprint", info.fingerprint, "licence", info.licence);
    worker_session_send(session, header, image->pixels, (size_t)image->width * (size_t)image->height * 3);
}

static enum cyi_status check_plan(struct worker_session *session, const struct cyi_request *request,
                                  struct cyi_error *err) {
    struct cyi_memory_plan plan;
    const enum cyi_status st = cyi_plan_memory(session->model, request, &plan, err);
    if (st != CYI_OK || plan.fits) {
        return st;
    }
    char working[TEXT_SHORT], available[TEXT_SHORT];
    return text_error(err, CYI_E_MEMORY,
                      "%d×%d pixels need %s of memory, and %s are available; a smaller size needs less", request->width,
                      request->height, text_bytes(working, plan.working_bytes),
                      text_bytes(available, plan.available_bytes));
}

void worker_session_generate(struct worker_session *session, const struct message *order) {
    const struct cyi_image *references[CYI_MAX_REFERENCES];
    struct run run = { .session = session,
                       .id = message_text(order, "id"),
                       .picture = message_int(order, "picture", 0),
                       .last_sent = -1.0 };
    struct cyi_request request;
    struct cyi_image *image = NULL;
    struct cyi_report report;
    struct cyi_error err = { 0 };
    const char *negative = json_string_value(json_object_get(order->header, "negative_prompt"));
    worker_session_send(session,
                        json_pack("{s:s, s:s, s:I, s:s, s:f}", "type", "progress", "id", run.id, "picture",
                                  (json_int_t)run.picture, "phase", "load", "fraction", 0.0),
                        NULL, 0);
    if (open_model(session, message_text(order, "model"), &err) == CYI_OK) {
        cyi_request_init(session->model, &request);
        request.prompt = message_text(order, "prompt");
        request.negative_prompt = negative;
        request.width = (int)message_int(order, "width", request.width);
        request.height = (int)message_int(order, "height", request.height);
        request.n_steps = (int)message_int(order, "steps", request.n_steps);
        request.guidance = (float)message_number(order, "guidance", (double)request.guidance);
        request.seed = (uint64_t)message_int(order, "seed", 0);
        request.wants_preview = message_is_true(order, "wants_preview");
        request.on_progress = report_progress;
        request.user = &run;
        if (atomic_load(&session->wants_cancel)) {
            (void)text_error(&err, CYI_E_CANCELLED, "cancelled while the model was opened");
        } else if (attach_inputs(session, order, references, &request, &err) == CYI_OK &&
                   check_plan(session, &request, &err) == CYI_OK &&
                   cyi_generate(session->model, &request, &image, &report, &err) == CYI_OK) {
            send_picture(session, order, &request, image, &report);
        }
    }
    if (err.code != CYI_OK) {
        worker_session_fail(session, order, &err);
    }
    cyi_image_free(image);
}
