/* readers.h - add_reader() and add_writer(), and who is told what a poll has noted.
 *
 * Owns: the handles in the table of descriptors (watch_inside.h). */
#ifndef ASYNCLOOP_READERS_H
#define ASYNCLOOP_READERS_H

#include "loop/watch.h"

struct fd_entry;

/* add_reader() or add_writer(), by `event`: EV_READ or EV_WRITE. `fileobj` is what the user gave (borrowed), `entry`
 * that of the descriptor, or NULL: there is none yet. Whoever calls these holds the loop. 0, or -1 with an
 * exception. */
int readers_set(Loop *loop, int fd, struct fd_entry *entry, int event, Handle *handle_steal, PyObject *fileobj);
/* Has the descriptor a reader or writer? Then it is the handle from now on (stolen, also if not), and
 * the kernel is not told of it. */
bool readers_change(Loop *loop, int fd, int event, Handle *handle_steal);

/* remove_reader() and remove_writer(), of a descriptor that has an entry: 1, or 0: there was none. */
int readers_remove(struct fd_entry *entry, int event);

void readers_tell(Loop *loop);          /* tells what was noted, until the run has to end */
void readers_clear(Loop *loop);
int readers_traverse(Loop *loop, visitproc visit, void *arg);

/* -- for insides.c: the events of a poll as a list, and not told by themselves ---- */
PyObject *readers_list(Loop *loop);         /* all that is watched, and what wakes the loop:
                                           * [(descriptor, event, what it was registered by,
                                           * its Handle or None)] */
PyObject *readers_take_events(Loop *loop);  /* [(descriptor, event)]: what was noted */
/* The reader or the writer is told in the iteration that runs what is ready now. 0 / -1 */
int readers_post_event(Loop *loop, int fd, int event);

#endif
