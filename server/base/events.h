/* events: what happens, told to everybody who watches. A ring of the last events with growing ids; each event is kept
 * once, already in the form in which it is sent, however many watch. A watcher asks for what follows an id; what has
 * left the ring is lost to it, and it is told so.
 *
 * An event belongs to an owner (a user's id) or to all. Administrators see every event. Locks inside. */
#ifndef SERVER_BASE_EVENTS_H
#define SERVER_BASE_EVENTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EVENTS_KEPT 4096

struct events;
struct event_text; /* reference-counted bytes "id: N\nevent: TYPE\ndata: {…}\n\n" */

struct events *events_create(void);
void events_free(struct events *events);

/* Adds an event; data (an object) is taken over; owner NULL: for all. Returns its id. wake is called afterwards, while
 * events may be read but not published from it. */
uint64_t events_publish(struct events *events, const char *type, const char *owner, json_t *data);
/* Who is called after each event, on the publishing thread: the HTTP side wakes its watchers. One at a time; NULL:
 * nobody, and whoever
 * was called before is not being called any more when this returns. */
void events_on_publish(struct events *events, void (*wake)(void *user), void *user);

/* Ids begin with the time of the start in microseconds, so that no id of an earlier run lies among those of this one.
 * They stay below
 * 2^53. */
uint64_t events_last_id(struct events *events);

struct event_text *event_ref(struct event_text *text);
void event_unref(struct event_text *text);
const char *event_bytes(const struct event_text *text, size_t *ret_n);

/* The first event after *after that this viewer may see (viewer_id: its user's id, sees_all: administrators), with one
 * reference for the caller; NULL when there is none yet. *after moves on to it, or past those that are not for this
 * viewer. *ret_is_gap: events after *after have left the ring, or *after is from another run of the server; the watcher
 * must read the state anew. */
struct event_text *events_next(struct events *events, uint64_t *after, const char *viewer_id, bool sees_all,
                               bool *ret_is_gap);

#endif
