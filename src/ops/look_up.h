/* look_up.h - names that the C library looks up in threads of the loop's own.
 *
 * The threads are plain ones that Python knows nothing of: they take no GIL, touch no object
 * and allocate with malloc(). Up to LOOK_UPS_MAX of them work for a loop at a time; others wait.
 *
 * Owns:     struct look_ups, one per loop that has asked for a name: the loop's and each of its
 *           threads', by a count; whoever leaves last frees it. The threads are detached.
 *           struct look_up, one per question, with copies of its strings: the queue's, then that
 *           thread's which asks, then the inbox's until the loop has taken the answer; the C
 *           library's list in it goes with it. No descriptor is kept.
 * Holds:    a look-up whose Operation waits holds that Operation (strong: nothing else need hold
 *           the Task that waits), and is known to it by a borrowed pointer. Both are the loop's
 *           thread's alone, in a list that the loop's traverse function visits. An Operation that
 *           is left (cancelled, closed) takes itself out: what is still in the queue is freed at
 *           once, the answer to what is not when it comes.
 * Promises: a thread touches the loop only under the lock under which look_ups_close() forgets
 *           it, so that a name server that does not answer delays no close() and no end of the
 *           process, and its answer after that is freed. Threads block all signals. */
#ifndef ASYNCLOOP_LOOK_UP_H
#define ASYNCLOOP_LOOK_UP_H

#include "base/tuning.h"
#include "ops/operation.h"

#include <netdb.h>

/* They mostly wait for a name server, so there may be more than processors: so many names are asked at once. */
#define LOOK_UPS_MAX 16
/* How long a thread stays that has nothing to ask. */
#define LOOK_UP_IDLE_MS TUNED(LOOK_UP_IDLE_MS, 10000)

/* What getaddrinfo() has returned, with its errno: new list, or NULL with an exception. */
typedef PyObject *(*look_up_reader)(struct state *state, int code, int error,
                                    const struct addrinfo *found);

/* Looks up a name for an Operation, whose future is done when op->value is what `read` has
 * made of the answer, or the exception that it has raised: op->phase says which. host and port
 * may be NULL. 0, or -1 with RuntimeError (no thread can be started) or MemoryError. */
enum {
    LOOK_UP_NEW,
    LOOK_UP_ASKED,
    LOOK_UP_ANSWERED,
    LOOK_UP_FAILED,
};
int look_up_begin(Operation *op, const char *host, const char *port, const struct addrinfo *hints,
                  look_up_reader read);
void look_up_leave(Operation *op);      /* the kind's leave() */

void look_ups_close(Loop *loop);        /* safe to repeat */
void look_ups_forked(Loop *loop);       /* in the child, after inbox_forked() */
void look_ups_after_fork(Loop *loop);   /* and before the loop is used there */
int look_ups_traverse(Loop *loop, visitproc visit, void *arg);

#endif
