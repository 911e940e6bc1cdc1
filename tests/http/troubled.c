/* troubled: the whole program, serve and worker, in which the linker puts some calls of ours in the place of the real ones, so that a
 * prompt can bring about what life brings rarely. Only tests build it. Words in a prompt:
 *
 *     [die]              the worker dies in the middle of the picture, by a signal
 *     [die 2 PATH]       so do the first two; PATH is a file that counts them by its length
 *     [hang]             the engine stops without a word: no progress, no end, deaf to a cancel
 *     [nan]              the engine says that it met a number that is none
 *     [slow 250]         every step takes 250 ms more
 *     [slow saving]      writing the picture's file takes 3 s more
 *
 * A model whose folder is called "slow-loading" takes 3 s more to open. */
#include "gallery/gallery.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOW_US 3000000

/* The linker's names: -Wl,--wrap=NAME sends calls of NAME to __wrap_NAME, and __real_NAME is the one that was meant. */
enum cyi_status __real_cyi_generate(struct cyi_model *model, const struct cyi_request *request,
                                    struct cyi_image **ret_image, struct cyi_report *ret_report, struct cyi_error *err);
enum cyi_status __wrap_cyi_generate(struct cyi_model *model, const struct cyi_request *request,
                                    struct cyi_image **ret_image, struct cyi_report *ret_report, struct cyi_error *err);
enum cyi_status __real_cyi_model_open(struct cyi_engine *engine, const struct cyi_model_options *options,
                                      struct cyi_model **ret_model, struct cyi_error *err);
enum cyi_status __wrap_cyi_model_open(struct cyi_engine *engine, const struct cyi_model_options *options,
                                      struct cyi_model **ret_model, struct cyi_error *err);
enum problem_code __real_gallery_write(struct gallery *gallery, const struct new_picture *picture,
                                       struct written_picture *ret_written, struct problem *problem);
enum problem_code __wrap_gallery_write(struct gallery *gallery, const struct new_picture *picture,
                                       struct written_picture *ret_written, struct problem *problem);

/* Adds one to the file's count; false when it had n already. */
static bool is_within_count(const char *path, int n) {
    struct stat info;
    const int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    const bool is_within =
        fd >= 0 && fstat(fd, &info) == 0 && info.st_size < (off_t)n && write(fd, "x", 1) == 1 && fsync(fd) == 0;
    (void)close(fd);
    return is_within;
}

static void die_when_told(const char *prompt) {
    const char *word = strstr(prompt, "[die");
    char path[1024];
    int n = 0;
    if (word != NULL && (sscanf(word, "[die %d %1023[^]]", &n, path) != 2 || is_within_count(path, n))) {
        (void)raise(SIGKILL);
    }
}

struct slowed {
    const struct cyi_request *request;
    unsigned us;
    int step; /* that was slowed last */
};

static bool report_slowly(void *user, const struct cyi_progress *progress) {
    struct slowed *slowed = user;
    if (progress->phase == CYI_PHASE_DENOISE && progress->step > slowed->step) {
        slowed->step = progress->step;
        (void)usleep(slowed->us);
    }
    if (progress->fraction > 0.5F) {
        die_when_told(slowed->request->prompt);
    }
    return slowed->request->on_progress(slowed->request->user, progress);
}

enum cyi_status __wrap_cyi_generate(struct cyi_model *model, const struct cyi_request *request,
                                    struct cyi_image **ret_image, struct cyi_report *ret_report,
                                    struct cyi_error *err) {
    struct slowed slowed = { .request = request };
    struct cyi_request troubled = *request;
    const char *slow = strstr(request->prompt, "[slow ");
    unsigned ms = 0;
    while (strstr(request->prompt, "[hang]") != NULL) {
        (void)pause();
    }
    if (strstr(request->prompt, "[nan]") != NULL) {
        return text_error(err, CYI_E_NUMERIC, "step 1 of 2 gave a number that is none");
    }
    if (slow != NULL && sscanf(slow, "[slow %u]", &ms) == 1) {
        slowed.us = ms * 1000;
    }
    troubled.on_progress = report_slowly;
    troubled.user = &slowed;
    return __real_cyi_generate(model, &troubled, ret_image, ret_report, err);
}

enum cyi_status __wrap_cyi_model_open(struct cyi_engine *engine, const struct cyi_model_options *options,
                                      struct cyi_model **ret_model, struct cyi_error *err) {
    if (strstr(options->path, "slow-loading") != NULL) {
        (void)usleep(SLOW_US);
    }
    return __real_cyi_model_open(engine, options, ret_model, err);
}

enum problem_code __wrap_gallery_write(struct gallery *gallery, const struct new_picture *picture,
                                       struct written_picture *ret_written, struct problem *problem) {
    if (picture->prompt != NULL && strstr(picture->prompt, "[slow saving]") != NULL) {
        (void)usleep(SLOW_US);
    }
    return __real_gallery_write(gallery, picture, ret_written, problem);
}
