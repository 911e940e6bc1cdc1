/* What a process cannot do after sandbox_enter. Each test does it in a child, whose exit code is the answer. */
#include "sandbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define X32_BIT 0x40000000L

static int run_in_child(bool (*holds)(void)) {
    int status = -1;
    const pid_t child = fork();
    if (child == 0) {
        _exit(holds() ? 0 : 1);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static bool is_refused(long result) {
    return result == -1 && errno == EPERM;
}

static bool network_is_refused(void) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 || !sandbox_enter()) {
        return false;
    }
    return is_refused(socket(AF_INET, SOCK_STREAM, 0)) && is_refused(socket(AF_UNIX, SOCK_DGRAM, 0)) &&
           is_refused(connect(pair[0], NULL, 0)) && is_refused(bind(pair[0], NULL, 0)) &&
           is_refused(listen(pair[0], 1)) && is_refused(accept(pair[0], NULL, NULL)) &&
           is_refused(accept4(pair[0], NULL, NULL, 0)) && is_refused(syscall(SYS_io_uring_setup, 1, NULL));
}

static bool programs_are_refused(void) {
    char *const arguments[] = { (char[]){ "true" }, NULL };
    return sandbox_enter() && is_refused(execve("/bin/true", arguments, arguments + 1)) &&
           is_refused(syscall(SYS_execveat, AT_FDCWD, "/bin/true", arguments, arguments + 1, 0)) &&
           is_refused(ptrace(PTRACE_TRACEME, 0, NULL, NULL)) &&
           is_refused(syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0));
}

/* The same calls have a second number each, on kernels that still have the x32 interface. */
static bool second_numbers_are_refused(void) {
#ifdef __x86_64__
    return sandbox_enter() && is_refused(syscall(X32_BIT | SYS_socket, AF_INET, SOCK_STREAM, 0));
#else
    return sandbox_enter();
#endif
}

static void *open_socket(void *user) {
    int *gate = user;
    char byte;
    return read(gate[0], &byte, 1) == 1 && is_refused(socket(AF_INET, SOCK_STREAM, 0)) ? user : NULL;
}

static bool threads_that_run_already_are_bound_too(void) {
    int gate[2];
    pthread_t thread;
    void *result = NULL;
    return pipe(gate) == 0 && pthread_create(&thread, NULL, open_socket, gate) == 0 && sandbox_enter() &&
           write(gate[1], "x", 1) == 1 && pthread_join(thread, &result) == 0 && result != NULL;
}

static bool what_a_worker_needs_still_works(void) {
    int pair[2];
    char byte = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 || !sandbox_enter()) {
        return false;
    }
    const int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    void *memory = malloc(1 << 24);
    const bool is_fine = fd >= 0 && memory != NULL && send(pair[0], "x", 1, MSG_NOSIGNAL) == 1 &&
                         recv(pair[1], &byte, 1, 0) == 1 && byte == 'x' && close(fd) == 0;
    free(memory);
    return is_fine;
}

/* As a user without rights: after PR_SET_DUMPABLE the files in /proc belong to root. */
static bool is_bound_to_its_parent(void) {
    char adjustment[8] = "";
    int signal_number = 0;
    if (geteuid() == 0 && (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0 ||
                           prctl(PR_SET_DUMPABLE, 1) != 0)) { /* changing the user clears it */
        return false;
    }
    if (!sandbox_bind_to_parent(getppid()) || sandbox_bind_to_parent(getpid())) {
        return false;
    }
    const int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, adjustment, sizeof adjustment - 1) > 0 && atoi(adjustment) == 500 &&
           prctl(PR_GET_PDEATHSIG, &signal_number) == 0 && signal_number == SIGKILL &&
           prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_DUMPABLE) == 0;
}

#define CLAIM(name)                                                                                                    \
    static void test_##name(void **state) {                                                                            \
        (void)state;                                                                                                   \
        assert_int_equal(run_in_child(name), 0);                                                                       \
    }

CLAIM(network_is_refused)
CLAIM(programs_are_refused)
CLAIM(second_numbers_are_refused)
CLAIM(threads_that_run_already_are_bound_too)
CLAIM(what_a_worker_needs_still_works)
CLAIM(is_bound_to_its_parent)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_network_is_refused),
        cmocka_unit_test(test_programs_are_refused),
        cmocka_unit_test(test_second_numbers_are_refused),
        cmocka_unit_test(test_threads_that_run_already_are_bound_too),
        cmocka_unit_test(test_what_a_worker_needs_still_works),
        cmocka_unit_test(test_is_bound_to_its_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
