/* future.h - Future: its struct, and what the rest of the core does with one.
 *
 * future.c settles and answers, future_waiters.c keeps and wakes who waits, future_iter.c is what
 * `await` drives, future_type.c makes and ends one and defines the type.
 *
 * Both types derive from _asyncio.Future and _asyncio.Task, whose structs come first
 * and stay empty (their __init__ never runs); everything is overridden. Task derives from Future as
 * well: it has the same fields first, so every function here takes either.
 *
 * Waiters:  the first one is a field, later ones are in a list; they are woken in the
 *           order in which they came. A Task of our own loop is parked as itself: no
 *           callback object, no context, no Handle.
 * Threads:  a future belongs to the thread of its loop, as asyncio's. Without a GIL any thread
 *           may use it all the same, in its critical section (GUARD()): whom it wakes goes
 *           through the loop's inbox then.
 * Python:   settling a future of our own loop runs none. */
#ifndef ASYNCLOOP_FUTURE_H
#define ASYNCLOOP_FUTURE_H

#include "loop/brief.h"
#include "loop/overrides.h"
#include "loop/schedule.h"
#include "tasks/tasks_state.h"

/* Beyond FUTURE_PENDING it is done. */
enum future_state {
    FUTURE_UNINITIALISED = 0,
    FUTURE_PENDING,
    FUTURE_CANCELLED,
    FUTURE_FINISHED,              /* with a result */
    FUTURE_FAILED,                /* finished with an exception */
};

/* Programs have one for each thing that they wait for, and a Task besides: fields that never are in
 * use together share their place (benchmark row: waiting task). */
struct Future {
    union {
        PyObject ob_base;
        char asyncio_fields[ASYNCIO_FUTURE_SIZE];
    };
    struct state *state_ptr;      /* the module's state (borrowed) */
    PyObject *loop;               /* strong; NULL: not initialised */
    Loop *own_loop;               /* the same object if it is a Loop of ours, else NULL */
    PyObject *outcome;            /* the result, or the exception if FUTURE_FAILED */
    PyObject *callback0;          /* first waiter: a callable, or the parked Task */
    PyObject *context0;           /* NULL for a parked Task */
    PyObject *callbacks;          /* later waiters: list of (callable, context) and of parked Tasks */
    union {
        PyObject *exception_traceback;    /* FUTURE_FAILED: given back when it is first retrieved */
        PyObject *cancelled_error;        /* else: to be raised again by the next one who asks, or NULL */
    };
    PyObject *source_traceback;   /* debug mode: where it was made, or NULL */
    PyObject *cancel_message;
    PyObject *watcher;            /* borrowed: the Operation that waits with it, or NULL */
    uint8_t future_state;
    bool parked0;                 /* callback0 is a parked Task */
    bool blocking;                /* _asyncio_future_blocking */
    bool log_traceback;           /* an exception is set and nobody has seen it */
    int32_t cancel_requests;      /* of a Task: cancelling() */
};

/* The critical section of a Future or Task, in any thread. */
#define FUTURE_GUARD(op) LOOP_GUARD(op, &((Future *)(op))->own_loop)

static inline PyObject *
future_not_initialised(void)
{
    PyErr_SetString(PyExc_RuntimeError, "Future object is not initialized.");
    return NULL;
}

/* -- for the rest of the core -------------------------------------------------- */

/* New pending Future of the loop (any loop object; fast when it is ours). */
PyObject *future_new(struct state *state, PyObject *loop);

/* True for instances of exactly our Future (not Task, not a subclass). */
static inline bool
future_check_exact(struct state *state, PyObject *op)
{
    return Py_IS_TYPE(op, tasks_state(state)->types.Future);
}

/* True for instances of exactly our Future or exactly our Task. */
static inline bool
future_check_native(struct state *state, PyObject *op)
{
    return Py_IS_TYPE(op, tasks_state(state)->types.Future) || Py_IS_TYPE(op, tasks_state(state)->types.Task);
}

bool future_is_ours(struct state *state, PyObject *op);    /* Future, Task or a subclass */

static inline bool
future_is_pending(const Future *future)
{
    return SHARED_LOAD(future->future_state) == FUTURE_PENDING;
}

/* Settle a future of ours and queue its waiters, oldest first. 0 / -1 with an
 * exception (InvalidStateError when it was not pending). Runs no Python for a
 * future of our own loop. Values are borrowed. */
int future_set_result(Future *future, PyObject *value);
int future_set_result_if_pending(Future *future, PyObject *value);
int future_set_exception(Future *future, PyObject *exception);
/* 1 cancelled, 0 it was done already, -1. `message` may be NULL. Not for a Task, whose
 * cancel() asks its coroutine first. */
int future_cancel(Future *future, PyObject *message);

/* The same for any future-like object (ours by the fast way): used for waiters that the
 * standard library hands to us. Does nothing if it is done already. 0 / -1. */
int future_settle_result(struct state *state, PyObject *future, PyObject *value);
int future_settle_exception(struct state *state, PyObject *future, PyObject *exception);

/* -- for task.c, task_step.c and future_iter.c ----------------------------------- */

/* Binds a new or used future to `loop` (NULL: the running one's) and makes it pending. 0 / -1 */
int future_init(Future *future, PyObject *loop);
int future_traverse(Future *future, visitproc visit, void *arg);
void future_clear(Future *future);            /* drops everything; may run Python */
/* True if dropping the fields may start a long chain of deallocations. */
bool future_is_deep(const Future *future);
/* Takes dead memory: to the free list where nothing of the base's was used, else through
 * the base's own dealloc. The fields are clear by now. */
void future_free(Future *future, struct freelist *list, PyTypeObject *exact,
                 const struct base_slots *base);

/* What result() would do: 0 and a new reference to the value; 1 and a new reference to the
 * exception that it would raise; -1 if not even that could be made. */
int future_take(Future *future, PyObject **outcome);
PyObject *future_make_cancelled_error(Future *future);    /* new, or NULL */

/* Puts 'source_traceback' into the context of a report and gives it to the loop's exception
 * handler. Steals `context` (NULL: an exception is set). Never fails. */
void future_report_steal(Future *future, PyObject *context);
void future_error_is_known(Future *future);    /* it need not be reported */
void future_finalize(Future *future);     /* reports an exception that nobody has seen */
#if PY_VERSION_HEX >= 0x030D0000
/* Of a Future or Task: has the instance attributes, or a dict? Makes none. */
bool future_has_attributes(PyObject *op);
#endif

/* Methods and attributes of both types. */
PyObject *Future_await(PyObject *op);     /* future_iter.c */
/* Raises StopIteration(value). */
void stop_iteration_steal(PyObject *value);
/* The same where the interpreter's own `await` takes the value at once: short bytes go into
 * an exception that is used again and again, without its args (guarded path sock from
 * 3.12 on: 7 % of the instructions). */
void stop_iteration_bytes_steal(struct state *state, PyObject *value);
/* Turns what throw() was given into one exception to raise: new, or NULL with TypeError. */
PyObject *exception_from_throw(PyObject *type, PyObject *value, PyObject *traceback);

#ifdef ASYNCLOOP_DEBUG
void future_verify(Future *future, uint64_t turn);    /* checked.h */
#endif

#endif
