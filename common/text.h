/* text: the program's small change. Strings that grow, memory that is never NULL, numbers for people, and text of others made
 * safe for a terminal. When memory runs out these functions say so and end the program with exit code 1: unlike the engine, the
 * command line has nothing better to do then. */
#ifndef COMMON_TEXT_H
#define COMMON_TEXT_H

#include "cyberimage.h"

#include <stdio.h>

/* Exit codes of every sub-command. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,      /* it went wrong while it ran; verify: the picture is different */
    CLI_BAD_INPUT = 2,   /* what was asked for cannot be; nothing was written */
    CLI_CANCELLED = 130, /* Ctrl-C or SIGTERM */
};

/* Memory. The caller releases with free(). */
_Noreturn void text_out_of_memory(void);
void *text_alloc(size_t n, size_t size_bytes); /* zeroed, n × size_bytes checked */
void *text_resize(void *block, size_t n, size_t size_bytes);
char *text_copy(const char *text); /* NULL gives NULL */
__attribute__((format(printf, 1, 2))) char *text_format(const char *format, ...);

/* As the engine's own: writes code and sentence unless err is filled already; returns code. */
__attribute__((format(printf, 3, 4))) enum cyi_status text_error(struct cyi_error *err, enum cyi_status code,
                                                                 const char *format, ...);
/* Prints "cyberimage: SENTENCE" on stderr and returns exit_code. */
int text_report(const struct cyi_error *err, int exit_code);

/* Writes text with every control character, bidirectional override and invalid UTF-8 byte shown as \xNN or \u{N}; newlines and
 * tabs stay only when keep_newlines. What comes from files and other programs goes through here before it meets a terminal. */
void text_write_safe(FILE *out, const char *text, bool keep_newlines);
bool text_is_utf8(const char *text);
/* A copy in which every byte that is not UTF-8 is "?": for JSON. */
char *text_clean(const char *text);

/* Reads one UTF-8 character of text, which ends with a zero byte. Returns its length in bytes, or 0 when it is not valid. */
size_t text_read_character(const char *text, uint32_t *ret_code);

#define TEXT_SHORT 32
/* "24.1 MB", "16.0 GB": decimal, as disks are sold and as the engine's sentences count. Returns buffer. */
const char *text_bytes(char buffer[TEXT_SHORT], uint64_t n_bytes);
/* "8.2 M", "3.88 G": a count of parameters. */
const char *text_count(char buffer[TEXT_SHORT], uint64_t n);
/* "0.84 s", "12 s", "3 min 05 s", "2 h 07 min". */
const char *text_seconds(char buffer[TEXT_SHORT], double seconds);

#endif
