/* schedule.h - what runs in the next iteration, or later: into the ring, by way of the inbox from other
 * threads, or into the heap. Who takes it out and runs it: iteration.c. */
#ifndef ASYNCLOOP_SCHEDULE_H
#define ASYNCLOOP_SCHEDULE_H

#include "loop/inbox.h"
#include "loop/loop.h"

/* Steals op into the ready ring, or by way of the inbox. 0, or -1 with MemoryError. */
static inline int
loop_push_steal(Loop *loop, PyObject *op, enum ready_kind kind)
{
    return LIKELY(loop_is_mine(loop)) ? ready_push_steal(&loop->ready, op, kind)
                                      : inbox_push_steal(loop, op, kind);
}

/* call_soon() of ours: a new Handle, or asyncio's (see overrides.h), or NULL. `context` may be NULL:
 * the current one is copied. */
PyObject *loop_call_soon(Loop *loop, PyObject *callback, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *context);
/* The same where loop_replaced() was asked: `replaced` is what it said. */
PyObject *loop_call_soon_knowing(Loop *loop, unsigned int replaced, PyObject *callback,
                                 PyObject *const *args, Py_ssize_t nargs, PyObject *context);

/* Runs run(owner, arg) in the next iteration: for our own C code, no context is entered.
 * Both references are borrowed and held until then; arg may be NULL. 0 / -1. */
int loop_call_soon_native(Loop *loop, native_callback run, PyObject *owner, PyObject *arg);

/* The same for what nobody would ever make up for. 0, or -1 with RuntimeError: the loop is closed.
 * A `call` that waits already without memory becomes this one. */
int loop_call_soon_surely(Loop *loop, struct owed_call *call, const struct owed_kind *kind,
                          PyObject *arg);

/* call_at() and call_later() of ours: `when` in seconds of loop.time(), `delay` in seconds from now. New
 * reference or NULL. `context` may be NULL: the current one is copied. */
TimerHandle *loop_call_at(Loop *loop, double when, PyObject *callback,
                          PyObject *const *args, Py_ssize_t nargs, PyObject *context);
TimerHandle *loop_call_later(Loop *loop, double delay, PyObject *callback,
                             PyObject *const *args, Py_ssize_t nargs, PyObject *context);
/* The same where asyncio calls call_later(), which may be the program's. New reference: loop_cancel_public()
 * ends it. */
TimerHandle *loop_call_later_public(Loop *loop, double delay, native_callback run, PyObject *owner);
void loop_cancel_public(TimerHandle *timer_steal);

/* Like loop_call_later, for our own C code. New reference: timer_cancel() ends it. */
TimerHandle *loop_call_later_native(Loop *loop, double delay, native_callback run,
                                    PyObject *owner, PyObject *arg);

/* Schedules the handle from any thread, and wakes the loop. 0, or -1 with RuntimeError (closed) or MemoryError. */
int loop_call_soon_threadsafe(Loop *loop, Handle *handle_steal);

#endif
