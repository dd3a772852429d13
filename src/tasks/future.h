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
 *           may use it all the same, in its critical section (*_inside): whom it wakes goes
 *           through the loop's inbox then.
 * Python:   settling a future of our own loop runs none. */
#ifndef ASYNCLOOP_FUTURE_H
#define ASYNCLOOP_FUTURE_H

#include "tasks/tasks_state.h"
#include "loop/loop.h"
#include "loop/overrides.h"

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

int future_types_init(PyObject *module, struct state *state);

/* -- for the rest of the core -------------------------------------------------- */

/* New pending Future of the loop (any loop object; fast when it is ours). */
PyObject *future_new(struct state *state, PyObject *loop);

/* True for instances of exactly our Future (not Task, not a subclass). */
static inline bool
future_check_exact(struct state *state, PyObject *op)
{
    return Py_IS_TYPE(op, tasks_state(state)->futures.Type);
}

/* True for instances of exactly our Future or exactly our Task. */
static inline bool
future_check_native(struct state *state, PyObject *op)
{
    return Py_IS_TYPE(op, tasks_state(state)->futures.Type) || Py_IS_TYPE(op, tasks_state(state)->tasks.Type);
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

/* Runs `callback` when the future is done, or soon if it is. Context NULL: a copy of the
 * current one. 0 / -1. */
int future_add_callback(Future *future, PyObject *callback, PyObject *context);

/* call_soon(callback[, future]) of the future's loop. 0 / -1. */
int future_call_soon(Future *future, PyObject *callback, PyObject *argument, PyObject *context);

/* -1 with RuntimeError where call_soon() of our own loop would raise one. */
int future_check_own_loop(Loop *loop);

static inline int
future_push_task_steal(Loop *loop, PyObject *task)
{
    if (UNLIKELY(SHARED_LOAD(loop->debug) || SHARED_LOAD(loop->ev) == NULL)
        && future_check_own_loop(loop) < 0) {
        Py_DECREF(task);
        return -1;
    }
    return loop_push_task_steal(loop, task);
}

/* The Task's wake-up goes through call_soon(), with the future that is done. 0 / -1 */
int future_wake_task_by_call_steal(Future *future, PyObject *task);

/* A Task that was parked in the future goes on. */
static inline int
future_wake_task_steal(Future *future, PyObject *task)
{
    if (UNLIKELY(loop_replaced(future->own_loop) & LOOP_SOON)) {
        return future_wake_task_by_call_steal(future, task);
    }
    return future_push_task_steal(future->own_loop, task);
}

/* -- waiters (future_waiters.c) -------------------------------------------------- */

/* What an item of `callbacks` that is not None stands for, borrowed. Context NULL: a parked Task. */
static inline void
future_waiter_parts(PyObject *item, PyObject **callback, PyObject **context)
{
    bool parked = !PyTuple_CheckExact(item);
    *callback = parked ? item : PyTuple_GET_ITEM(item, 0);
    *context = parked ? NULL : PyTuple_GET_ITEM(item, 1);
}

/* Takes all off: callback0, context0 and callbacks are the caller's, each may be NULL. */
void future_take_waiters(Future *future, PyObject **callback, PyObject **context,
                         PyObject **later);
/* Wakes one that is off already (both borrowed; context NULL: a parked Task). 0 / -1 */
int future_wake_one(Future *future, PyObject *callback, PyObject *context);
/* Takes all off and wakes them. -1 with the exception of the first that could not be woken. */
int future_wake_several(Future *future);

int future_park_later(Future *future, PyObject *task);

/* of a future that is pending */
static inline int
future_park_pending(Future *future, PyObject *task)
{
    if (LIKELY(future->callback0 == NULL && future->callbacks == NULL)) {
        future->callback0 = Py_NewRef(task);
        future->parked0 = true;
        return 0;
    }
    return future_park_later(future, task);
}

/* Parks a Task (borrowed) of the same loop, one of ours, until the future is done, or says in
 * *done that it is. 0 / -1. */
#ifdef Py_GIL_DISABLED
int future_park(Future *future, PyObject *task, bool *done);
#else
static inline int
future_park(Future *future, PyObject *task, bool *done)
{
    *done = UNLIKELY(!future_is_pending(future));
    return *done ? 0 : future_park_pending(future, task);
}
#endif

/* Puts 'source_traceback' into the context of a report and gives it to the loop's exception
 * handler. Steals `context` (NULL: an exception is set). Never fails. */
void future_report_steal(Future *future, PyObject *context);
void future_error_is_known(Future *future);    /* it need not be reported */
void future_finalize(Future *future);     /* reports an exception that nobody has seen */

/* Methods and attributes of both types. */
PyObject *Future_await(PyObject *op);     /* future_iter.c */
int future_iter_type_init(PyObject *module, struct state *state);
/* Raises StopIteration(value). */
void stop_iteration_steal(PyObject *value);
/* The same where the interpreter's own `await` takes the value at once: short bytes go into
 * an exception that is used again and again, without its args (benchmark rows: sock_recv,
 * streams). */
void stop_iteration_bytes_steal(struct state *state, PyObject *value);
/* Turns what throw() was given into one exception to raise: new, or NULL with TypeError. */
PyObject *exception_from_throw(PyObject *type, PyObject *value, PyObject *traceback);
PyObject *future_not_initialised(void);

PyObject *Future_result(PyObject *op, PyObject *ignored);
PyObject *Future_exception(PyObject *op, PyObject *ignored);
PyObject *Future_set_result(PyObject *op, PyObject *value);           /* of a Future alone */
PyObject *Future_set_exception(PyObject *op, PyObject *exception);
PyObject *Future_cancel(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames);
PyObject *Future_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames);
PyObject *Future_remove_done_callback(PyObject *op, PyObject *callback);
PyObject *Future_cancelled(PyObject *op, PyObject *ignored);
PyObject *Future_done(PyObject *op, PyObject *ignored);
PyObject *Future_get_loop(PyObject *op, PyObject *ignored);
PyObject *Future__make_cancelled_error(PyObject *op, PyObject *ignored);

PyObject *Future_get__state(PyObject *op, void *closure);
PyObject *Future_get_blocking(PyObject *op, void *closure);
int Future_set_blocking(PyObject *op, PyObject *value, void *closure);
PyObject *Future_get__loop(PyObject *op, void *closure);
PyObject *Future_get__callbacks(PyObject *op, void *closure);
PyObject *Future_get__result(PyObject *op, void *closure);
PyObject *Future_get__exception(PyObject *op, void *closure);
PyObject *Future_get__log_traceback(PyObject *op, void *closure);
int Future_set__log_traceback(PyObject *op, PyObject *value, void *closure);
PyObject *Future_get__source_traceback(PyObject *op, void *closure);
PyObject *Future_get__cancel_message(PyObject *op, void *closure);
int Future_set__cancel_message(PyObject *op, PyObject *value, void *closure);
PyObject *Future_get__awaited_by(PyObject *op, void *closure);

/* value is NULL: "cannot delete attribute". The new truth value, or -1. */
int future_attribute_bool(PyObject *value);

#define FUTURE_METHODS                                                                        \
    {"result", Future_result, METH_NOARGS,                                                    \
     PyDoc_STR("result($self, /)\n--\n\n"                                                     \
               "The result; raises the exception where one was set, CancelledError if\n"      \
               "cancelled, and InvalidStateError if it is not done yet.")},                   \
    {"exception", Future_exception, METH_NOARGS,                                              \
     PyDoc_STR("exception($self, /)\n--\n\n"                                                  \
               "The exception that was set, or None; raises CancelledError if cancelled,\n"   \
               "and InvalidStateError if it is not done yet.")},                              \
    {"add_done_callback", (PyCFunction)(void (*)(void))Future_add_done_callback,              \
     METH_FASTCALL | METH_KEYWORDS,                                                           \
     PyDoc_STR("add_done_callback($self, fn, /, *, context=None)\n--\n\n"                     \
               "Call fn(self) by way of the loop's call_soon() once this is done, in the\n"   \
               "given context, by default a copy of the current one.")},                      \
    {"remove_done_callback", Future_remove_done_callback, METH_O,                             \
     PyDoc_STR("remove_done_callback($self, fn, /)\n--\n\n"                                   \
               "Forget every callback that is equal to fn; returns how many there were.")},   \
    {"cancelled", Future_cancelled, METH_NOARGS,                                              \
     PyDoc_STR("cancelled($self, /)\n--\n\nTrue if it was cancelled.")},                      \
    {"done", Future_done, METH_NOARGS,                                                        \
     PyDoc_STR("done($self, /)\n--\n\n"                                                       \
               "True if a result or an exception is set, or it was cancelled.")},             \
    {"get_loop", Future_get_loop, METH_NOARGS,                                                \
     PyDoc_STR("get_loop($self, /)\n--\n\nThe loop it belongs to.")},                         \
    {"_make_cancelled_error", Future__make_cancelled_error, METH_NOARGS,                      \
     PyDoc_STR("_make_cancelled_error($self, /)\n--\n\n"                                      \
               "The CancelledError to raise: the one that ended it, the first time.")},       \
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL}

#if PY_VERSION_HEX >= 0x030E0000
#define FUTURE_AWAITED_BY {"_asyncio_awaited_by", Future_get__awaited_by, NULL, NULL, NULL},
#else
#define FUTURE_AWAITED_BY
#endif

#define FUTURE_GETSETS                                                                       \
    FUTURE_AWAITED_BY                                                                        \
    {"_state", Future_get__state, NULL, NULL, NULL},                                         \
    {"_asyncio_future_blocking", Future_get_blocking, Future_set_blocking, NULL, NULL},      \
    {"_loop", Future_get__loop, NULL, NULL, NULL},                                           \
    {"_callbacks", Future_get__callbacks, NULL, NULL, NULL},                                 \
    {"_result", Future_get__result, NULL, NULL, NULL},                                       \
    {"_exception", Future_get__exception, NULL, NULL, NULL},                                 \
    {"_log_traceback", Future_get__log_traceback, Future_set__log_traceback, NULL, NULL},    \
    {"_source_traceback", Future_get__source_traceback, NULL, NULL, NULL},                   \
    {"_cancel_message", Future_get__cancel_message, Future_set__cancel_message, NULL, NULL}

#endif
