/* future_waiters.h - who waits for a future, and wakes. */
#ifndef ASYNCLOOP_FUTURE_WAITERS_H
#define ASYNCLOOP_FUTURE_WAITERS_H

#include "base/checked.h"
#include "tasks/future.h"
#include "tasks/owed_tasks.h"

/* Runs `callback` when the future is done, or soon if it is. Context NULL: a copy of the
 * current one. 0 / -1. */
int future_add_callback(Future *future, PyObject *callback, PyObject *context);

/* call_soon(callback[, future]) of the future's loop. 0 / -1. */
int future_call_soon(Future *future, PyObject *callback, PyObject *argument, PyObject *context);

/* -1 with RuntimeError where call_soon() of our own loop would raise one. */
int future_check_own_loop(Loop *loop);

/* The same for a Task of our own loop that is about to be scheduled, which is written down. */
int future_look_at_push(Loop *loop, PyObject *task);

static inline int
future_push_task_steal(Loop *loop, PyObject *task)
{
    if (UNLIKELY(FLAG(loop->careful) || SHARED_LOAD(loop->ev) == NULL)
        && future_look_at_push(loop, task) < 0) {
        Py_DECREF(task);
        return -1;
    }
    return task_push_steal(loop, task);
}

/* The same with a new reference, where nothing is to be done for it but that; false: it was not. Apart, so that
 * no registers are saved for more (guarded path: sleep-one). */
static inline bool
future_push_task_simply(Loop *loop, PyObject *task)
{
    if (UNLIKELY(!overrides_are_known(loop) || (SHARED_LOAD(loop->overrides.replaced) & LOOP_SOON) != 0
                 || FLAG(loop->careful) || SHARED_LOAD(loop->ev) == NULL || !loop_is_mine(loop)
                 || !ready_has_space(&loop->ready))) {
        return false;
    }
    ready_put_steal(&loop->ready, task, READY_TASK);
    Py_INCREF(task);    /* the ring's: nobody has looked into it yet */
    return true;
}

/* The Task's wake-up goes through call_soon(), with the future that is done. 0 / -1 */
int future_wake_task_by_call_steal(Future *future, PyObject *task);

/* A Task that was parked in the future goes on, in the future's loop. */
static inline int
future_wake_task_of_steal(Loop *loop, Future *future, PyObject *task)
{
    if (UNLIKELY(loop_replaced(loop) & LOOP_SOON)) {
        return future_wake_task_by_call_steal(future, task);
    }
    return future_push_task_steal(loop, task);
}

static inline int
future_wake_task_steal(Future *future, PyObject *task)
{
    return future_wake_task_of_steal(future->own_loop, future, task);
}

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
#ifdef Py_GIL_DISABLED
/* The same for the only one, who is off already. */
int future_wake_first_steal(Future *future, PyObject *callback, PyObject *context);
#endif

/* READY_DONE: runs the callbacks that are left in a future. 0, or -1 with an exit exception. */
int future_run_left_callbacks(Loop *loop, Future *future);

static inline bool
future_has_no_waiter(const Future *future)
{
    return future->callback0 == NULL && future->callbacks == NULL;
}

int future_park_later(Future *future, PyObject *task);    /* behind others: for the next one */

/* Parks a Task (borrowed) of the same loop in a future that is pending. 0, or -1 with MemoryError. */
static inline int
future_park_pending(Future *future, PyObject *task)
{
    VERIFY(future_is_pending(future) && future->own_loop != NULL && future->own_loop == ((Future *)task)->own_loop);
    if (LIKELY(future_has_no_waiter(future))) {
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

#ifdef ASYNCLOOP_DEBUG
void future_verify_waiters(const Future *future, uint64_t turn);    /* checked.h */
#endif

#endif
