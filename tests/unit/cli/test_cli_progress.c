/* The progress line: what it says, how often, and that it never wraps. */
#include "../../../cli/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>

static struct cyi_progress make_state(enum cyi_phase phase, int step, double elapsed) {
    return (struct cyi_progress){ .phase = phase,
                                  .step = step,
                                  .n_steps = phase == CYI_PHASE_DENOISE ? 20 : 0,
                                  .fraction = (float)step / 20.0F,
                                  .elapsed_seconds = elapsed,
                                  .remaining_seconds = 8.0 };
}

/* Columns of a line: every character counts as one. */
static int count_columns(const char *line) {
    int n = 0;
    uint32_t code = 0;
    while (*line != '\0') {
        const size_t length = text_read_character(line, &code);
        assert_true(length > 0);
        line += length;
        n++;
    }
    return n;
}

static void progress_line_names_phase_step_and_time_left(void **state) {
    struct progress progress = { .style = PROGRESS_LINES, .n_columns = 80, .picture = 1, .n_pictures = 1 };
    char line[PROGRESS_LINE_BYTES];
    (void)state;
    const struct cyi_progress now = make_state(CYI_PHASE_DENOISE, 5, 2.0);
    progress_render(&progress, &now, line);
    assert_string_equal(line, "Painting 5/20  25 %  2 s, 8 s left");
    progress.n_pictures = 4;
    progress.picture = 2;
    progress_render(&progress, &now, line);
    assert_string_equal(line, "[2/4] Painting 5/20  25 %  2 s, 8 s left");
}

static void progress_line_without_an_estimate_says_none(void **state) {
    const struct progress progress = { .style = PROGRESS_LINES, .n_columns = 80, .picture = 1, .n_pictures = 1 };
    char line[PROGRESS_LINE_BYTES];
    (void)state;
    struct cyi_progress now = make_state(CYI_PHASE_ENCODE_TEXT, 0, 0.5);
    now.remaining_seconds = -1.0;
    progress_render(&progress, &now, line);
    assert_string_equal(line, "Reading the prompt  0 %  0 s");
}

static void progress_bar_fits_every_terminal(void **state) {
    struct progress progress = { .style = PROGRESS_BAR, .picture = 10, .n_pictures = 10 };
    char line[PROGRESS_LINE_BYTES];
    (void)state;
    for (progress.n_columns = 1; progress.n_columns < 300; progress.n_columns++) {
        for (int step = 0; step <= 20; step++) {
            const struct cyi_progress now = make_state(CYI_PHASE_DENOISE, step, 3000.0);
            progress_render(&progress, &now, line);
            assert_true(count_columns(line) <= progress.n_columns);
        }
    }
}

static void progress_bar_is_full_only_at_the_end(void **state) {
    const struct progress progress = { .style = PROGRESS_BAR, .n_columns = 100, .picture = 1, .n_pictures = 1 };
    char line[PROGRESS_LINE_BYTES];
    (void)state;
    struct cyi_progress now = make_state(CYI_PHASE_DECODE, 20, 3.0);
    now.fraction = 0.999F;
    progress_render(&progress, &now, line);
    assert_non_null(strstr(line, "░"));
    assert_non_null(strstr(line, " 99 %"));
    now.fraction = 1.0F;
    progress_render(&progress, &now, line);
    assert_null(strstr(line, "░"));
    assert_non_null(strstr(line, "100 %"));
    now.fraction = -3.0F;
    progress_render(&progress, &now, line);
    assert_null(strstr(line, "█"));
}

static void progress_prints_one_line_a_second_and_one_a_phase(void **state) {
    char *text = NULL;
    size_t n = 0;
    int n_lines = 0;
    FILE *out = open_memstream(&text, &n);
    struct progress progress = { .out = out, .style = PROGRESS_LINES, .n_columns = 80, .picture = 1, .n_pictures = 1 };
    (void)state;
    for (int i = 0; i < 100; i++) { /* ten steps a second, three calls a step */
        for (int k = 0; k < 3; k++) {
            const struct cyi_progress now = make_state(CYI_PHASE_DENOISE, i, i * 0.1 + k * 0.03);
            progress_update(&progress, &now);
        }
    }
    const struct cyi_progress last = make_state(CYI_PHASE_DECODE, 0, 9.95);
    progress_update(&progress, &last);
    assert_int_equal(fclose(out), 0);
    for (const char *c = text; *c != '\0'; c++) {
        n_lines += *c == '\n';
    }
    assert_in_range(n_lines, 10, 12);
    assert_non_null(strstr(text, "Developing"));
    free(text);
}

static void progress_that_is_quiet_writes_nothing(void **state) {
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    struct progress progress = { .out = out, .style = PROGRESS_NONE };
    const struct cyi_progress now = make_state(CYI_PHASE_DENOISE, 1, 1.0);
    (void)state;
    progress_update(&progress, &now);
    progress_clear(&progress);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(n, 0);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(progress_line_names_phase_step_and_time_left),
        cmocka_unit_test(progress_line_without_an_estimate_says_none),
        cmocka_unit_test(progress_bar_fits_every_terminal),
        cmocka_unit_test(progress_bar_is_full_only_at_the_end),
        cmocka_unit_test(progress_prints_one_line_a_second_and_one_a_phase),
        cmocka_unit_test(progress_that_is_quiet_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
