/* clock: the time of day in microseconds, a clock that never jumps, and times as text. */
#ifndef SERVER_BASE_CLOCK_H
#define SERVER_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_TEXT 40
#define CLOCK_SECOND INT64_C(1000000)

int64_t clock_now_us(void);       /* UTC, since 1970 */
int64_t clock_monotonic_us(void); /* for spans and deadlines */

/* "2026-11-22T14:41:55.123456Z". Returns buffer. */
const char *clock_utc_text(char buffer[CLOCK_TEXT], int64_t time_us);
/* "2026-11-22T15:41:55.123+01:00", in the zone of this machine. Returns buffer. */
const char *clock_local_text(char buffer[CLOCK_TEXT], int64_t time_us);
/* Reads RFC 3339 ("2026-11-22T14:41:55.5Z", "…+01:00") or a date ("2026-11-22", its midnight in UTC). false: it is neither. */
bool clock_parse(const char *text, int64_t *ret_time_us);

#endif
