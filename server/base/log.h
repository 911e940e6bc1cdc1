/* log: one line an event on standard error, for the operator: time, level, name, context.
 *
 *     2026-11-22T15:41:55.123+01:00 INFO job.done id=0199… model=neon steps=20 ms=5210
 *
 * or the same as a JSON object a line. Control characters, bidirectional overrides and broken UTF-8 are escaped, so
 * that one event is always one line. A process has one standard error, and so one log: this is the server's only state
 * outside of its structs. */
#ifndef SERVER_BASE_LOG_H
#define SERVER_BASE_LOG_H

#include <jansson.h>
#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_NOTHING };

/* Before other threads start. LOG_NOTHING as the lowest: there is no log. */
void log_configure(enum log_level lowest, bool is_json);

/* Writes an event, such as log_event(LOG_INFO, "job.done", json_pack("{s:s, s:I}", "id", id, "ms", ms)). fields (an
 * object, or NULL) is taken over. Never a secret, never a prompt. Locks inside. */
void log_event(enum log_level level, const char *name, json_t *fields);

#endif
