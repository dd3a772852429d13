/* future.h - Future: its struct, and what the rest of the core does with one.
 *
 * Both types derive from _asyncio.Future and _asyncio.Task, whose structs come first
 * and stay empty (their __init__ never runs); everything is overridden. */
#ifndef ASYNCLOOP_FUTURE_H
#define ASYNCLOOP_FUTURE_H

#include "loop.h"

enum future_state { FUTURE_UNINITIALISED = 0, FUTURE_PENDING, FUTURE_CANCELLED, FUTURE_FINISHED };

/* The fields below are a proposal: future.c may arrange them as it needs. */
struct Future {
    union {
        PyObject ob_base;
        char asyncio_fields[ASYNCIO_FUTURE_SIZE];
    };
    struct state *state_ptr;      /* the module's state (borrowed) */
    PyObject *loop;               /* strong; NULL: not initialised */
    Loop *own_loop;               /* the same object if it is a Loop of ours, else NULL */
    PyObject *result;
    PyObject *exception;
    PyObject *exception_traceback;
    PyObject *callback0;          /* first callback, or the Task that awaits (waiter0_is_task) */
    PyObject *context0;
    PyObject *callbacks;          /* list of (callback, context) beyond the first, or NULL */
    PyObject *source_traceback;
    PyObject *cancel_message;
    PyObject *cancelled_error;
    PyObject *awaited_by;         /* 3.14: object, set or NULL */
    uint8_t future_state;
    bool waiter0_is_task;
    bool blocking;                /* _asyncio_future_blocking */
    bool log_traceback;
};

int future_types_init(PyObject *module, struct state *state);

/* New pending Future of the loop (any loop object; fast when it is ours). */
PyObject *future_new(struct state *state, PyObject *loop);

/* True for instances of exactly our Future (not Task, not a subclass). */
static inline bool
future_check_exact(struct state *state, PyObject *op)
{
    return Py_IS_TYPE(op, state->FutureType);
}
bool future_is_ours(struct state *state, PyObject *op);    /* Future, Task or a subclass */

/* Settle a future of ours and queue its waiters, oldest first. 0 / -1 with an
 * exception (InvalidStateError when it was not pending). Runs no Python for a
 * future of our own loop. Values are borrowed. */
int future_set_result(Future *future, PyObject *value);
int future_set_exception(Future *future, PyObject *exception);
bool future_is_pending(const Future *future);
/* The same for any future-like object (ours by the fast way): used for waiters that the
 * standard library hands to us. Does nothing if it is done already. 0 / -1. */
int future_settle_result(struct state *state, PyObject *future, PyObject *value);
int future_settle_exception(struct state *state, PyObject *future, PyObject *exception);

#endif
