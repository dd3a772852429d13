/* current.h - which Task asyncio.current_task() sees.
 *
 * Current:  our Task stays in asyncio's books until something else runs, so that steps of
 *           our own tasks in a row cost one change each, or none for the same Task again.
 *           The loop calls current_leave() before it runs anything that is no Task of ours:
 *           a stock Task refuses to run where another one is entered. */
#ifndef ASYNCLOOP_CURRENT_H
#define ASYNCLOOP_CURRENT_H

#include "loop/loop.h"

/* For the two that follow. 0, or -1 with RuntimeError: asyncio's books name another Task. */
int current_replace(Loop *loop, PyObject *task);
void current_drop(Loop *loop);

/* `task` (borrowed) is about to make a step on a loop of ours. 0 / -1. */
static inline int
current_enter(Loop *loop, PyObject *task)
{
    return LIKELY(loop->current_task == task) ? 0 : current_replace(loop, task);
}

/* Something that is no Task of ours is about to run. Keeps the error indicator. */
static inline void
current_leave(Loop *loop)
{
    if (loop->current_task != NULL) {
        current_drop(loop);
    }
}

/* Something else runs inside whatever runs, and tasks may make steps in it: what the books said, which a
 * program may have changed meanwhile, and what we had entered. Both are owned, or NULL. */
void current_take(Loop *loop, PyObject **books, PyObject **entered);
void current_put_back_steal(Loop *loop, PyObject *books, PyObject *entered);

/* The loop is being freed: outside a run nothing is entered, so this is for one that died in
 * the middle of one (a thread that was never joined). */
static inline void
current_forget_loop(Loop *loop)
{
    Py_CLEAR(loop->current_task);
}

/* The same as current_enter() and current_leave() on any other loop. 0 / -1. */
int current_enter_foreign(struct state *state, PyObject *loop, PyObject *task);
int current_leave_foreign(struct state *state, PyObject *loop, PyObject *task);

/* For an eager start, inside whatever runs: makes `task` current and gives what was
 * current before (new reference, Py_None for nothing), or NULL. Not before 3.12. */
PyObject *current_swap(struct state *state, PyObject *loop, PyObject *task);

#endif
