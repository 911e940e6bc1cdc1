/* Messages over a socket pair: whole, in pieces, cut off, and each rule of their form broken once. */
#include "protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct pair {
    int near, far; /* the test writes bytes to far, messages are received from near */
};

static int set_up(void **state) {
    static struct pair pair;
    int fds[2];
    *state = &pair;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
        return -1;
    }
    pair = (struct pair){ fds[0], fds[1] };
    return 0;
}

static int tear_down(void **state) {
    const struct pair *pair = *state;
    (void)close(pair->near);
    (void)close(pair->far);
    return 0;
}

/* Lets the other side send these bytes and close. */
static void feed(const struct pair *pair, const void *bytes, size_t n) {
    assert_int_equal(send(pair->far, bytes, n, MSG_NOSIGNAL), n);
    assert_int_equal(shutdown(pair->far, SHUT_WR), 0);
}

static void expect_refused(const struct pair *pair, const void *bytes, size_t n, enum cyi_status code,
                           const char *words) {
    struct message message = { 0 };
    struct cyi_error err = { 0 };
    bool is_end = false;
    feed(pair, bytes, n);
    assert_int_equal(message_receive(pair->near, &message, &is_end, &err), code);
    assert_false(is_end);
    if (strstr(err.text, words) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    }
    assert_null(message.header);
    assert_null(message.body);
}

#define REFUSES(bytes, code, words) expect_refused(*state, bytes, sizeof(bytes) - 1, code, words)

static void a_message_arrives_as_it_was_sent(void **state) {
    const struct pair *pair = *state;
    struct message message = { 0 };
    struct cyi_error err = { 0 };
    bool is_end = true;
    json_t *header = json_pack("{s:s, s:I, s:f, s:b, s:s}", "type", "test", "seed", (json_int_t)4294967295, "guidance",
                               3.5, "has_init", 1, "prompt", "neon \xe2\x9c\xa8");
    assert_int_equal(message_send(pair->far, header, "\0\1\2", 3, &err), CYI_OK);
    assert_int_equal(message_receive(pair->near, &message, &is_end, &err), CYI_OK);
    assert_false(is_end);
    assert_string_equal(message.type, "test");
    assert_string_equal(message_text(&message, "prompt"), "neon \xe2\x9c\xa8");
    assert_true(message_int(&message, "seed", 0) == 4294967295);
    assert_true(message_number(&message, "guidance", 0) == 3.5 && message_number(&message, "seed", 0) == 4294967295.0);
    assert_true(message_is_true(&message, "has_init") && !message_is_true(&message, "seed"));
    assert_int_equal(message.body_bytes, 3);
    assert_memory_equal(message.body, "\0\1\2", 3);
    message_done(&message);
    assert_null(message.header);
}

static void members_of_another_type_give_the_fallback(void **state) {
    const struct pair *pair = *state;
    struct message message = { 0 };
    struct cyi_error err = { 0 };
    bool is_end = true;
    assert_int_equal(message_send(pair->far, json_pack("{s:s, s:s}", "type", "t", "a", "7"), NULL, 0, &err), CYI_OK);
    assert_int_equal(message_receive(pair->near, &message, &is_end, &err), CYI_OK);
    assert_true(message_int(&message, "a", -3) == -3 && message_int(&message, "b", -4) == -4);
    assert_true(message_number(&message, "a", 0.5) == 0.5);
    assert_string_equal(message_text(&message, "b"), "");
    assert_false(message_is_true(&message, "a"));
    assert_null(message.body);
    message_done(&message);
}

static void the_wire_is_little_endian(void **state) {
    const struct pair *pair = *state;
    struct cyi_error err = { 0 };
    char bytes[64] = { 0 };
    assert_int_equal(message_send(pair->far, json_pack("{s:s}", "type", "quit"), "xyz", 3, &err), CYI_OK);
    assert_int_equal(recv(pair->near, bytes, sizeof bytes, 0), 12 + 15 + 3);
    assert_memory_equal(bytes, "CYW1\x0f\0\0\0\3\0\0\0{\"type\":\"quit\"}xyz", 30);
}

static void *send_slowly(void *user) {
    static const char bytes[] = "CYW1\x0f\0\0\0\3\0\0\0{\"type\":\"quit\"}xyzCYW1\x0c\0\0\0\0\0\0\0{\"type\":\"a\"}";
    const struct pair *pair = user;
    for (size_t i = 0; i < sizeof bytes - 1; i++) {
        (void)usleep(200);
        (void)send(pair->far, bytes + i, 1, MSG_NOSIGNAL);
    }
    (void)shutdown(pair->far, SHUT_WR);
    return NULL;
}

static void messages_come_in_single_bytes(void **state) {
    const struct pair *pair = *state;
    struct message message = { 0 };
    struct cyi_error err = { 0 };
    pthread_t sender;
    bool is_end = true;
    assert_int_equal(pthread_create(&sender, NULL, send_slowly, *state), 0);
    assert_int_equal(message_receive(pair->near, &message, &is_end, &err), CYI_OK);
    assert_string_equal(message.type, "quit");
    assert_memory_equal(message.body, "xyz", 3);
    message_done(&message);
    assert_int_equal(message_receive(pair->near, &message, &is_end, &err), CYI_OK);
    assert_string_equal(message.type, "a");
    assert_false(is_end);
    message_done(&message);
    assert_int_equal(message_receive(pair->near, &message, &is_end, &err), CYI_OK);
    assert_true(is_end);
    assert_int_equal(pthread_join(sender, NULL), 0);
}

#define BIG_BYTES ((size_t)5 * 1024 * 1024 + 1) /* more than a socket holds */

static void *send_big(void *user) {
    const struct pair *pair = user;
    struct cyi_error err = { 0 };
    uint8_t *body = text_alloc(BIG_BYTES, 1);
    for (size_t i = 0; i < BIG_BYTES; i++) {
        body[i] = (uint8_t)(i * 7 % 251);
    }
    const bool is_sent = message_send(pair->far, json_pack("{s:s}", "type", "big"), body, BIG_BYTES, &err) == CYI_OK;
    free(body);
    return is_sent ? user : NULL;
}

static void a_body_larger_than_the_sockets_buffer_arrives_whole(void **state) {
    const struct pair *pair = *state;
    struct message message = { 0 };
    struct cyi_error err = { 0 };
    pthread_t sender;
    void *sent = NULL;
    bool is_end = true;
    assert_int_equal(pthread_create(&sender, NULL, send_big, *state), 0);
    assert_int_equal(message_receive(pair->near, &message, &is_end, &err), CYI_OK);
    assert_int_equal(pthread_join(sender, &sent), 0);
    assert_non_null(sent);
    assert_int_equal(message.body_bytes, BIG_BYTES);
    for (size_t i = 0; i < BIG_BYTES; i++) {
        if (((uint8_t *)message.body)[i] != (uint8_t)(i * 7 % 251)) {
            fail_msg("byte %zu is wrong", i);
        }
    }
    message_done(&message);
}

static void an_end_between_messages_is_no_error(void **state) {
    const struct pair *pair = *state;
    struct message message = { 0 };
    struct cyi_error err = { 0 };
    bool is_end = false;
    feed(pair, "", 0);
    assert_int_equal(message_receive(pair->near, &message, &is_end, &err), CYI_OK);
    assert_true(is_end);
    assert_int_equal(err.code, CYI_OK);
}

static void refuses_another_magic(void **state) {
    REFUSES("CYW2\x0c\0\0\0\0\0\0\0{\"type\":\"a\"}", CYI_E_FORMAT, "CYW1");
}

static void refuses_a_header_of_no_bytes(void **state) {
    REFUSES("CYW1\0\0\0\0\0\0\0\0", CYI_E_FORMAT, "header of 0 bytes; from 2 to 1048576");
}

static void refuses_a_header_over_the_limit(void **state) {
    REFUSES("CYW1\1\0\x10\0\0\0\0\0", CYI_E_FORMAT, "header of 1048577 bytes; from 2 to 1048576");
}

static void refuses_a_body_over_the_limit(void **state) {
    REFUSES("CYW1\x0c\0\0\0\1\0\0\x10{\"type\":\"a\"}", CYI_E_FORMAT, "body of 268435457 bytes; at most 268435456");
}

static void refuses_the_largest_lengths(void **state) {
    REFUSES("CYW1\xff\xff\xff\xff\xff\xff\xff\xff", CYI_E_FORMAT, "4294967295");
}

static void refuses_a_header_that_is_no_json(void **state) {
    REFUSES("CYW1\x0c\0\0\0\0\0\0\0{\"type\":\"a\"]", CYI_E_FORMAT, "no JSON");
}

static void refuses_a_header_with_something_after_it(void **state) {
    REFUSES("CYW1\x0d\0\0\0\0\0\0\0{\"type\":\"a\"}x", CYI_E_FORMAT, "no JSON");
}

static void refuses_a_member_that_is_there_twice(void **state) {
    REFUSES("CYW1\x17\0\0\0\0\0\0\0{\"type\":\"a\",\"type\":\"b\"}", CYI_E_FORMAT, "no JSON");
}

static void refuses_a_header_that_is_not_utf8(void **state) {
    REFUSES("CYW1\x0c\0\0\0\0\0\0\0{\"type\":\"\xff\"}", CYI_E_FORMAT, "no JSON");
}

static void refuses_a_text_with_a_zero_in_it(void **state) {
    REFUSES("CYW1\x11\0\0\0\0\0\0\0{\"type\":\"\\u0000\"}", CYI_E_FORMAT, "no JSON");
}

static void refuses_a_header_that_is_a_list(void **state) {
    REFUSES("CYW1\2\0\0\0\0\0\0\0[]", CYI_E_FORMAT, "no object with a type");
}

static void refuses_a_type_that_is_a_number(void **state) {
    REFUSES("CYW1\x0a\0\0\0\0\0\0\0{\"type\":1}", CYI_E_FORMAT, "no object with a type");
}

static void refuses_a_stack_of_brackets(void **state) {
    enum { N = 100000 };
    char *bytes = text_alloc(12 + N, 1);
    memcpy(bytes, "CYW1\xa0\x86\1\0\0\0\0\0", 12);
    memset(bytes + 12, '[', N);
    expect_refused(*state, bytes, 12 + N, CYI_E_FORMAT, "no JSON");
    free(bytes);
}

/* Every place where a message can be cut but the end. */
static void refuses_a_message_that_is_cut_anywhere(void **state) {
    static const char whole[] = "CYW1\x0c\0\0\0\3\0\0\0{\"type\":\"a\"}xyz";
    for (size_t n = 1; n < sizeof whole - 1; n++) {
        expect_refused(*state, whole, n, CYI_E_IO, "closed within a message");
        (void)tear_down(state);
        assert_int_equal(set_up(state), 0);
    }
}

static void a_time_limit_of_the_socket_holds(void **state) {
    const struct pair *pair = *state;
    const struct timeval limit = { .tv_usec = 20000 };
    struct message message = { 0 };
    struct cyi_error err = { 0 };
    bool is_end = true;
    assert_int_equal(setsockopt(pair->near, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    assert_int_equal(send(pair->far, "CYW1\x0c\0\0\0", 8, MSG_NOSIGNAL), 8);
    assert_int_equal(message_receive(pair->near, &message, &is_end, &err), CYI_E_IO);
    assert_non_null(strstr(err.text, "stopped coming after 8 of 12 bytes"));
    assert_false(is_end);
}

/* Address space is the proof: 256 MB cannot be had under a limit of less. The sanitizers' own maps are larger than any limit. */
static void a_body_without_memory_is_an_error(void **state) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    const struct pair *pair = *state;
    struct rlimit before;
    struct message message = { 0 };
    struct cyi_error err = { 0 };
    bool is_end = true;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    feed(pair, "CYW1\x0c\0\0\0\0\0\0\x10{\"type\":\"a\"}", 24);
    assert_int_equal(setrlimit(RLIMIT_AS, &(struct rlimit){ 128U << 20, before.rlim_max }), 0);
    const enum cyi_status st = message_receive(pair->near, &message, &is_end, &err);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(st, CYI_E_MEMORY);
    assert_non_null(strstr(err.text, "268435456"));
#else
    (void)state;
    skip();
#endif
}

static void sending_to_nobody_is_an_error_and_no_signal(void **state) {
    const struct pair *pair = *state;
    struct cyi_error err = { 0 };
    assert_int_equal(shutdown(pair->near, SHUT_RDWR), 0);
    assert_int_equal(message_send(pair->far, json_pack("{s:s}", "type", "a"), NULL, 0, &err), CYI_E_IO);
    assert_non_null(strstr(err.text, "Broken pipe"));
}

static void refuses_to_send_over_the_limits(void **state) {
    const struct pair *pair = *state;
    struct cyi_error err = { 0 };
    char *text = text_alloc(PROTOCOL_MAX_HEADER_BYTES + 1, 1);
    memset(text, 'a', PROTOCOL_MAX_HEADER_BYTES);
    assert_int_equal(message_send(pair->far, json_pack("{s:s}", "type", text), NULL, 0, &err), CYI_E_ARGUMENT);
    free(text);
    err = (struct cyi_error){ 0 };
    assert_int_equal(message_send(pair->far, json_pack("{s:s}", "type", "a"), "", PROTOCOL_MAX_BODY_BYTES + 1, &err),
                     CYI_E_ARGUMENT);
    char byte;
    assert_int_equal(recv(pair->near, &byte, 1, MSG_DONTWAIT), -1); /* nothing of either went out */
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        ROW(a_message_arrives_as_it_was_sent),
        ROW(members_of_another_type_give_the_fallback),
        ROW(the_wire_is_little_endian),
        ROW(messages_come_in_single_bytes),
        ROW(a_body_larger_than_the_sockets_buffer_arrives_whole),
        ROW(an_end_between_messages_is_no_error),
        ROW(refuses_another_magic),
        ROW(refuses_a_header_of_no_bytes),
        ROW(refuses_a_header_over_the_limit),
        ROW(refuses_a_body_over_the_limit),
        ROW(refuses_the_largest_lengths),
        ROW(refuses_a_header_that_is_no_json),
        ROW(refuses_a_header_with_something_after_it),
        ROW(refuses_a_member_that_is_there_twice),
        ROW(refuses_a_header_that_is_not_utf8),
        ROW(refuses_a_text_with_a_zero_in_it),
        ROW(refuses_a_header_that_is_a_list),
        ROW(refuses_a_type_that_is_a_number),
        ROW(refuses_a_stack_of_brackets),
        ROW(refuses_a_message_that_is_cut_anywhere),
        ROW(a_time_limit_of_the_socket_holds),
        ROW(a_body_without_memory_is_an_error),
        ROW(sending_to_nobody_is_an_error_and_no_signal),
        ROW(refuses_to_send_over_the_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
