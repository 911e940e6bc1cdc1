/* The engine's side of a worker, in this process and without its sandbox, so that the leak checker sees it: the bundled model, orders
 * in, messages out. */
#include "picture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MEMORY_BYTES ((uint64_t)64 << 20) /* enough for 64×64 pixels, too little for 2048×2048 */

struct fixture {
    struct worker_session session;
    int server; /* where its messages come out */
};

static int set_up(void **state) {
    struct fixture *fixture = text_alloc(1, sizeof *fixture);
    struct cyi_error err = { 0 };
    int fds[2], room = 4 << 20; /* one thread plays both sides: the socket must hold what is sent */
    *state = fixture;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0 ||
        setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) != 0 ||
        setsockopt(fds[1], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 5 }, sizeof(struct timeval)) != 0) {
        return -1;
    }
    fixture->session.fd = fds[0];
    fixture->server = fds[1];
    (void)pthread_mutex_init(&fixture->session.send_mutex, NULL);
    const struct cyi_engine_options options = { .max_memory_bytes = MEMORY_BYTES };
    if (cyi_engine_create(&options, &fixture->session.engine, &err) != CYI_OK) {
        return -1;
    }
    cyi_engine_get_info(fixture->session.engine, &fixture->session.engine_info);
    return 0;
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;
    worker_session_done(&fixture->session);
    (void)close(fixture->server);
    free(fixture);
    return 0;
}

static char *neon(void) {
    return text_format("%s/models/neon", getenv("CYI_SOURCE_ROOT"));
}

/* The next message of this type; others before it are passed over. */
static struct message expect(struct fixture *fixture, const char *type) {
    for (;;) {
        struct message message = { 0 };
        struct cyi_error err = { 0 };
        bool is_end = false;
        if (message_receive(fixture->server, &message, &is_end, &err) != CYI_OK || is_end) {
            fail_msg("no message \"%s\": %s", type, err.text);
        }
        if (strcmp(message.type, type) == 0) {
            return message;
        }
        message_done(&message);
    }
}

static void generate(struct fixture *fixture, const char *id, int side, bool has_init) {
    char *path = neon();
    struct message order = { .header = json_pack("{s:s, s:s, s:i, s:s, s:s, s:i, s:i, s:i, s:b}", "type", "generate",
                                                 "id", id, "picture", 2, "model", path, "prompt", "a cat", "width",
                                                 side, "height", side, "steps", 1, "has_init", has_init) };
    order.type = "generate";
    assert_int_equal(order_check(&order, NULL), CYI_OK);
    worker_session_generate(&fixture->session, &order);
    json_decref(order.header);
    free(path);
}

static void keep_input(struct fixture *fixture, const char *id, const void *body, size_t body_bytes) {
    struct message order = { .header = json_pack("{s:s, s:s, s:s}", "type", "input", "id", id, "role", "init") };
    union {
        const void *in;
        void *out;
    } bytes = { .in = body };
    order.type = "input";
    order.body = bytes.out;
    order.body_bytes = body_bytes;
    assert_int_equal(order_check(&order, NULL), CYI_OK);
    worker_session_keep_input(&fixture->session, &order);
    json_decref(order.header);
}

static void a_picture_says_all_about_itself(void **state) {
    struct fixture *fixture = *state;
    generate(fixture, "job", 64, false);
    struct message picture = expect(fixture, "picture");
    const json_t *report = json_object_get(picture.header, "report");
    const json_t *model = json_object_get(picture.header, "model");
    const json_t *engine = json_object_get(picture.header, "engine");
    assert_int_equal(picture.body_bytes, 64 * 64 * 3);
    assert_int_equal(message_int(&picture, "picture", 0), 2);
    assert_string_equal(message_text(&picture, "id"), "job");
    assert_string_equal(json_string_value(json_object_get(model, "name")), "neon");
    assert_string_equal(json_string_value(json_object_get(engine, "version")), CYI_VERSION);
    assert_true(json_integer_value(json_object_get(report, "text_tokens")) > 0);
    assert_true(json_integer_value(json_object_get(report, "working_bytes")) > 0);
    assert_true(json_number_value(json_object_get(report, "total_seconds")) > 0.0);
    for (int phase = 0; phase < CYI_N_PHASES; phase++) {
        assert_true(
            json_is_real(json_object_get(json_object_get(report, "phases"), cyi_phase_name((enum cyi_phase)phase))));
    }
    message_done(&picture);
}

static void a_picture_that_does_not_fit_says_the_numbers(void **state) {
    struct fixture *fixture = *state;
    generate(fixture, "job", 2048, false);
    struct message failed = expect(fixture, "failed");
    assert_string_equal(message_text(&failed, "code"), "memory");
    assert_non_null(strstr(message_text(&failed, "text"), "2048×2048 pixels need "));
    assert_non_null(strstr(message_text(&failed, "text"), "67.1 MB are available"));
    message_done(&failed);
    generate(fixture, "job", 64, false);
    struct message picture = expect(fixture, "picture");
    message_done(&picture);
}

static void inputs_come_and_go(void **state) {
    struct fixture *fixture = *state;
    struct cyi_image *image = NULL;
    void *png = NULL;
    size_t png_bytes = 0;
    assert_int_equal(cyi_image_create(fixture->session.engine, 64, 64, 3, &image, NULL), CYI_OK);
    assert_int_equal(cyi_image_encode(fixture->session.engine, image, NULL, &png, &png_bytes, NULL), CYI_OK);
    for (int i = 0; i < 3; i++) {
        keep_input(fixture, i < 2 ? "one" : "two", png, png_bytes);
    }
    generate(fixture, "one", 64, true); /* its inputs went when those of two came */
    struct message failed = expect(fixture, "failed");
    assert_string_equal(message_text(&failed, "text"), "init picture 0 of the job was not sent");
    message_done(&failed);
    generate(fixture, "two", 64, true);
    struct message picture = expect(fixture, "picture");
    message_done(&picture);
    keep_input(fixture, "two", png, png_bytes / 2);
    generate(fixture, "two", 64, true);
    failed = expect(fixture, "failed");
    assert_non_null(strstr(message_text(&failed, "text"), "init picture 0 cannot be read: "));
    message_done(&failed);
    worker_session_forget(&fixture->session, "one"); /* nobody's */
    keep_input(fixture, "two", png, png_bytes);      /* left for tear_down */
    cyi_release(fixture->session.engine, png);
    cyi_image_free(image);
}

static void a_cancel_while_the_model_opens_is_the_pictures_answer(void **state) {
    struct fixture *fixture = *state;
    atomic_store(&fixture->session.wants_cancel, true);
    generate(fixture, "job", 64, false);
    struct message cancelled = expect(fixture, "cancelled");
    assert_int_equal(message_int(&cancelled, "picture", 0), 2);
    message_done(&cancelled);
}

static void models_are_described_opened_once_and_let_go(void **state) {
    struct fixture *fixture = *state;
    char *path = neon();
    worker_session_describe(&fixture->session, path); /* from the file */
    struct message model = expect(fixture, "model");
    assert_true(message_is_true(&model, "ok"));
    assert_null(fixture->session.model);
    message_done(&model);
    worker_session_describe(&fixture->session, "/nowhere");
    model = expect(fixture, "model");
    assert_false(message_is_true(&model, "ok"));
    assert_non_null(strstr(message_text(&model, "text"), "/nowhere"));
    message_done(&model);
    generate(fixture, "job", 64, false);
    generate(fixture, "job", 64, false);
    struct message state_message = expect(fixture, "state");
    assert_true(message_is_true(&state_message, "loaded"));
    assert_string_equal(message_text(&state_message, "model"), path);
    message_done(&state_message);
    worker_session_describe(&fixture->session, path); /* the open one */
    worker_session_unload(&fixture->session);
    state_message = expect(fixture, "state");
    assert_false(message_is_true(&state_message, "loaded"));
    assert_true(json_is_null(json_object_get(state_message.header, "model")));
    message_done(&state_message);
    worker_session_unload(&fixture->session); /* says nothing: nothing was open */
    assert_int_equal(recv(fixture->server, &(char){ 0 }, 1, MSG_DONTWAIT), -1);
    free(path);
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        ROW(a_picture_says_all_about_itself),
        ROW(a_picture_that_does_not_fit_says_the_numbers),
        ROW(inputs_come_and_go),
        ROW(a_cancel_while_the_model_opens_is_the_pictures_answer),
        ROW(models_are_described_opened_once_and_let_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
