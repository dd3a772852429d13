/* owed.h - what has to come although there was no memory to put it into the ready ring.
 *
 * Nobody would make up for a connection_lost() that never comes, for a Task that is not woken or
 * for the callbacks of a future that is done. So what is owed lies where memory was had before:
 *   a call       in the object that it is about (struct owed_call);
 *   a Task       marked, and found among all tasks (owed_tasks.h);
 *   callbacks    left in their future, which takes one place in the ring (READY_DONE), or, if it is
 *                a Task and there is no place either, is marked itself.
 *
 * Room that is kept free in the ring for each Task would not do in its place: the callbacks of a future that
 * is done need handles, a connection's end needs a place in the order of calls, and a Task that another
 * thread wakes goes by the inbox. All of these would be left, and each Task would pay for the count.
 *
 * Owns:     loop->owed, and a reference to each object in it.
 * Promises: takes no memory. A debt is paid at the end of an iteration: calls after
 *           all that came before them, Tasks as soon as the ring has a place.
 * Threads:  calls belong to the loop's thread; a Task may be owed by any. */
#ifndef ASYNCLOOP_OWED_H
#define ASYNCLOOP_OWED_H

#include "loop/handle.h"

struct run;                           /* loop.h */

/* What an object may have to call: run(object, arg), with the struct owed_call `offset` bytes
 * behind the object's beginning. */
struct owed_kind {
    native_callback run;
    size_t offset;
};
struct owed_call {
    struct list_node node;            /* in loop->owed while it waits there */
    const struct owed_kind *kind;     /* NULL while it does not */
    PyObject *arg;                    /* strong, or NULL */
};

struct owed {
    struct list_node calls;
    struct list_node due;             /* calls that have let a whole iteration pass, as in the ring */
    struct flag tasks;                /* there are Tasks with `owed` */
    struct flag any;                  /* either of the two: to be paid at the end of the iteration */
};

void owed_init(struct owed *owed);
int owed_traverse(struct owed *owed, visitproc visit, void *arg);
void owed_clear(Loop *loop);          /* no call of it comes any more; may run Python */

/* The call waits for memory from now on, and holds the object that it lies in. */
void owed_add_call(Loop *loop, struct owed_call *call, const struct owed_kind *kind);

/* The end of an iteration: runs the calls that are due. */
void owed_pay_calls(Loop *loop, struct run *run);

#ifdef ASYNCLOOP_DEBUG
void owed_verify(Loop *loop, uint64_t turn);    /* checked.h */
#endif

#endif
