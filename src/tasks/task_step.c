/* task_step.c - one step of a Task: resume its coroutine, then act on what it yields.
 *
 * On a loop of ours the loop calls task_run() for every Task in the ready ring. On any
 * other loop the step is a callback that is given to call_soon(), and so it is when a
 * future that is not ours wakes the Task: those callbacks run in the Task's context
 * already.
 *
 * How a step ends (task_act_on): the coroutine
 *   returned              the Task has its result, and its waiters are queued;
 *   raised                the exception, or cancelled; KeyboardInterrupt and SystemExit
 *                         also leave the loop;
 *   yielded None          back onto the ring;
 *   yielded our future    the Task is parked in it, without a callback;
 *   yielded another one   add_done_callback(), as asyncio does;
 *   yielded rubbish       RuntimeError, thrown in at the next step. */
#include "tasks/task_inside.h"

#include "loop/current.h"
#include "loop/owner.h"
#include "tasks/all_tasks.h"
#include "tasks/awaited_by.h"
#include "tasks/future.h"
#include "tasks/future_waiters.h"
#include "tasks/record.h"

/* what asyncio calls a step in its errors */
#if PY_VERSION_HEX >= 0x030E0000
#define STEP_NAME "__step"
#else
#define STEP_NAME "_step"
#endif

static PyObject *task_wakeup(PyObject *op, PyObject *future);
static PyObject *task_step_callback(PyObject *op, PyObject *ignored);

/* Bound to the Task: __self__ is how asyncio finds it from a callback. */
static PyMethodDef task_wakeup_def = {"task_wakeup", task_wakeup, METH_O, NULL};
static PyMethodDef task_step_def = {"TaskStepMethWrapper", task_step_callback, METH_NOARGS, NULL};

#define TASK_BRIEFLY(task, ...) BRIEFLY(task, &(task)->future.own_loop, __VA_ARGS__)

/* -- scheduling --------------------------------------------------------------------- */

PyObject *
task_step_function(PyObject *task, bool woken)
{
    return PyCFunction_New(woken ? &task_wakeup_def : &task_step_def, task);
}

PyObject *
task_of_step_function(PyObject *callback)
{
    if (!PyCFunction_CheckExact(callback)) {
        return NULL;
    }
    PyCFunction function = PyCFunction_GET_FUNCTION(callback);
    return function == task_wakeup || function == task_step_callback ? PyCFunction_GET_SELF(callback) : NULL;
}

/* Whatever it takes. */
static __attribute__((noinline)) int
task_schedule_anyhow(Task *self, Loop *loop)
{
    if (LIKELY(loop != NULL && (loop_replaced(loop) & LOOP_SOON) == 0)) {
        return future_push_task_steal(loop, Py_NewRef(self));
    }
    PyObject *step = PyCFunction_New(&task_step_def, (PyObject *)self);
    if (step == NULL) {
        return -1;
    }
    if (loop != NULL && SHARED_LOAD(loop->task_accounting)) {
        record_ready((PyObject *)self, loop);
    }
    int result = future_call_soon(&self->future, step, NULL, self->context);
    Py_DECREF(step);
    return result;
}

int
task_schedule(Task *self)
{
    Loop *loop = self->future.own_loop;
    return LIKELY(loop != NULL) && future_push_task_simply(loop, (PyObject *)self)
               ? 0
               : task_schedule_anyhow(self, loop);
}

/* -- steps ---------------------------------------------------------------------------- */

static int
task_as_callback(PyObject *op, PyObject **callback, PyObject **context)
{
    Task *self = (Task *)op;
    *callback = PyCFunction_New(&task_wakeup_def, op);
    *context = Py_NewRef(self->context != NULL ? self->context : Py_None);
    if (*callback == NULL) {
        Py_CLEAR(*context);
        return -1;
    }
    return 0;
}

/* -- awaiting ------------------------------------------------------------------------- */

/* Writes down what it awaits, which is stolen. True if a cancel() came before. */
static bool
task_set_waiter_steal(Task *self, PyObject *waiter)
{
    PyObject *old;
    bool must_cancel;
    TASK_BRIEFLY(self, {
        old = self->waiter;
        self->waiter = waiter;
        must_cancel = self->must_cancel;
    });
    Py_XDECREF(old);
    return must_cancel;
}

/* The Task waits in `waiter`, one of our futures: what is left to do. */
static inline int
task_has_parked(Task *self, PyObject *waiter, bool must_cancel)
{
    if (self->parked && task_is_shown(self->future.state_ptr, waiter)) {
        task_show_awaited_by(self, waiter);
    }
    return UNLIKELY(must_cancel) ? task_forward_cancel(self) : 0;
}

#ifdef Py_GIL_DISABLED
/* The usual case, in a turn of the loop of both: nobody else waits. One section, of the loop, is that of both.
 * False: nothing was done. (Guarded path future on 3.14t.) */
static inline bool
task_park_briefly_steal(Task *self, PyObject *waiter, bool *must_cancel)
{
    Future *future = (Future *)waiter;
    struct brief brief;
    if (UNLIKELY(!brief_begin(&brief, &self->future.own_loop))) {
        return false;
    }
    bool usual = SHARED_LOAD(future->own_loop) == brief.loop && future_is_pending(future)
                 && future_has_no_waiter(future) && self->waiter == NULL
                 && SHARED_LOAD(future->blocking) && future != &self->future;
    if (LIKELY(usual)) {
        SHARED_STORE(future->blocking, false);
        future->callback0 = Py_NewRef(self);
        future->parked0 = true;
        self->waiter = waiter;
        self->parked = true;
        *must_cancel = self->must_cancel;
    }
    brief_end(&brief);
    return usual;
}
#else
#define task_park_briefly_steal(task, waiter, must_cancel) false
#endif

/* The coroutine awaits exactly one of our futures. Steals `waiter`. */
static int
task_await_native_steal(Task *self, PyObject *waiter)
{
    Future *future = (Future *)waiter;
    bool must_cancel;
    int result;
    if (task_park_briefly_steal(self, waiter, &must_cancel)) {
        return task_has_parked(self, waiter, must_cancel);
    }
    /* both on the same loop of ours; one that steps by callbacks has none */
    bool parks = LIKELY(self->future.own_loop != NULL && future->own_loop == self->future.own_loop);
    if (UNLIKELY(!parks && future->loop != self->future.loop)) {
        result = task_bad_yield(self, "Task %R got Future %R attached to a different loop",
                                (PyObject *)self, waiter);
        goto wrong;
    }
    if (UNLIKELY(!SHARED_LOAD(future->blocking)) && waiter != (PyObject *)self) {
        result = task_bad_yield(self, "yield was used instead of yield from in task %R with %R",
                                (PyObject *)self, waiter);
        goto wrong;
    }
    if (UNLIKELY(waiter == (PyObject *)self)) {
        result = task_bad_yield(self, "Task cannot await on itself: %R", (PyObject *)self, NULL);
        goto wrong;
    }
    SHARED_STORE(future->blocking, false);
    if (UNLIKELY(!parks)) {
        PyObject *wakeup = PyCFunction_New(&task_wakeup_def, (PyObject *)self);
        result = wakeup == NULL ? -1 : future_add_callback(future, wakeup, self->context);
        Py_XDECREF(wakeup);
        if (result == 0) {
            task_tell_awaited_by(self, waiter);
        }
    }
    else {
        bool done;
        result = future_park(future, (PyObject *)self, &done);
        if (UNLIKELY(done)) {
            result = future_wake_task_steal((Future *)waiter, Py_NewRef(self));
        }
        self->parked = true;
    }
    if (UNLIKELY(result < 0)) {
        self->parked = false;
        result = is_exit_exception() ? -1 : 0;
        if (result == 0) {
            task_set_pending_exception_steal(self, PyErr_GetRaisedException());
        }
        goto wrong;
    }
    must_cancel = task_set_waiter_steal(self, waiter);
    return task_has_parked(self, waiter, must_cancel);
wrong:
    Py_DECREF(waiter);
    return result == 0 ? task_schedule(self) : -1;
}

static int
task_await_foreign_steal(Task *self, PyObject *yielded)
{
    int result = task_await_foreign(self, yielded);
    if (result <= 0) {
        Py_DECREF(yielded);
        return result == 0 ? task_schedule(self) : -1;
    }
    bool must_cancel = task_set_waiter_steal(self, yielded);
    task_tell_awaited_by(self, yielded);
    return must_cancel ? task_forward_cancel(self) : 0;
}

static inline int
task_await_steal(Task *self, PyObject *yielded)
{
    if (yielded == Py_None) {
        Py_DECREF(yielded);
        return task_schedule(self);
    }
    if (LIKELY(future_check_native(self->future.state_ptr, yielded))) {
        return task_await_native_steal(self, yielded);
    }
    return task_await_foreign_steal(self, yielded);
}

/* -- ending ------------------------------------------------------------------------------ */

void
task_done(Task *self)
{
    if (UNLIKELY(self->recorded)) {
        record_end(self);
    }
    if (self->registered) {
        task_set_unregistered(self);
        all_tasks_remove(self->future.state_ptr, (PyObject *)self, &self->node);
    }
}

static PyObject *
task_cancel_message_ref(Task *self)
{
    GUARD(self);
    return Py_XNewRef(self->future.cancel_message);
}

static int
task_finish_steal(Task *self, PyObject *value)
{
    int result;
    if (UNLIKELY(task_take_must_cancel(self))) {
        /* cancelled by its own last words */
        PyObject *message = task_cancel_message_ref(self);
        result = future_cancel(&self->future, message);
        Py_XDECREF(message);
    }
    else {
        result = future_set_result(&self->future, value);
    }
    Py_DECREF(value);
    task_done(self);
    return result < 0 ? -1 : 0;
}

/* the coroutine raised: the current exception */
static int
task_fail(Task *self)
{
    struct state *state = self->future.state_ptr;
    PyObject *exc = PyErr_GetRaisedException();
    int result;
    if (exc == NULL) {
        PyErr_SetString(PyExc_SystemError, "a coroutine failed without an exception");
        exc = PyErr_GetRaisedException();
    }
    if (Py_IS_TYPE(exc, (PyTypeObject *)PyExc_StopIteration)
        || PyErr_GivenExceptionMatches(exc, PyExc_StopIteration)) {
        /* what throw() gives when the coroutine returns */
        PyObject *value = ((PyStopIterationObject *)exc)->value;
        value = Py_NewRef(value != NULL ? value : Py_None);
        Py_DECREF(exc);
        return task_finish_steal(self, value);
    }
    if (PyErr_GivenExceptionMatches(exc, tasks_state(state)->futures.CancelledError)) {
        PyObject *old;
        {
            FUTURE_GUARD(self);
            old = self->future.cancelled_error;
            self->future.cancelled_error = exc;
        }
        Py_XDECREF(old);
        result = future_cancel(&self->future, NULL);
        task_done(self);
        return result < 0 ? -1 : 0;
    }
    bool leaves = PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)
                  || PyErr_GivenExceptionMatches(exc, PyExc_SystemExit);
    result = future_set_exception(&self->future, exc);
    task_done(self);
    if (leaves && result == 0) {
        PyErr_SetRaisedException(exc);
        return -1;
    }
    Py_DECREF(exc);
    return result;
}

/* -- the step ------------------------------------------------------------------------------- */

int
task_resume(Task *self, PyObject *exc)
{
    if (UNLIKELY(self->coro == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        return -1;
    }
    PyObject *coro = Py_NewRef(self->coro);    /* the step may run __init__ again */
    PyObject *value;
    PySendResult status;
    if (LIKELY(exc == NULL)) {
        status = PyIter_Send(coro, Py_None, &value);
    }
    else {
        value = PyObject_CallMethodOneArg(coro, self->future.state_ptr->names.throw, exc);
        status = value == NULL ? PYGEN_ERROR : PYGEN_NEXT;
    }
    Py_DECREF(coro);
    if (status == PYGEN_NEXT) {
        return task_await_steal(self, value);
    }
    return status == PYGEN_RETURN ? task_finish_steal(self, value) : task_fail(self);
}

static int
task_already_done(Task *self, PyObject *exc)
{
    PyErr_Format(tasks_state(self->future.state_ptr)->futures.InvalidStateError, STEP_NAME "(): already done: %R %R",
                 self, exc == NULL ? Py_None : exc);
    return -1;
}

/* A cancel() replaces whatever was to be thrown in. Steals `exc` (may be NULL); new
 * reference, or NULL. */
static PyObject *
task_take_cancel_steal(Task *self, PyObject *exc)
{
    if (exc != NULL
        && PyErr_GivenExceptionMatches(exc, tasks_state(self->future.state_ptr)->futures.CancelledError)) {
        return exc;
    }
    Py_XDECREF(exc);
    return future_make_cancelled_error(&self->future);
}

/* What the step has to throw in: 0 and a new reference or NULL in *exc; -1. What the Task has
 * waited for: a new reference or, if it throws, NULL in *awaited. */
static inline int
task_take_wakeup(Task *self, PyObject **exc, PyObject **awaited)
{
    *exc = NULL;
    *awaited = NULL;
    PyObject *waiter, *pending;
    bool must_cancel;
    TASK_BRIEFLY(self, {
        waiter = self->waiter;
        pending = self->pending_exception;
        must_cancel = self->must_cancel;
        self->waiter = NULL;
        if (UNLIKELY(pending != NULL || must_cancel)) {
            self->pending_exception = NULL;
            SHARED_STORE(self->must_cancel, false);
        }
    });
    if (waiter != NULL) {
        if (self->parked) {
            Future *future = (Future *)waiter;
            self->parked = false;
            if (self->awaited_by_added) {
                task_hide_awaited_by(self, waiter);
            }
            if (UNLIKELY(SHARED_LOAD(future->future_state) != FUTURE_FINISHED)
                && future_take(future, exc) < 0) {
                Py_DECREF(waiter);
                Py_XDECREF(pending);
                return -1;
            }
        }
        else if (self->awaited_by_added) {
            task_forget_awaited_by(self, waiter);
        }
    }
    if (UNLIKELY(pending != NULL)) {
        Py_XSETREF(*exc, pending);
    }
    if (UNLIKELY(must_cancel)) {
        *exc = task_take_cancel_steal(self, *exc);
        if (*exc == NULL) {
            Py_XDECREF(waiter);
            return -1;
        }
    }
    if (UNLIKELY(*exc != NULL)) {
        Py_CLEAR(waiter);    /* who catches it is to be its only owner */
    }
    *awaited = waiter;
    return 0;
}

#ifdef Py_GIL_DISABLED
/* The usual case, in a turn of the loop itself: nothing is to be thrown in. False: nothing was done. (Guarded
 * path await-task.) */
static inline bool
task_take_awaited(Task *self, PyObject **awaited)
{
    struct brief brief;
    if (UNLIKELY(self->awaited_by_added || !brief_begin(&brief, &self->future.own_loop))) {
        return false;
    }
    PyObject *waiter = self->waiter;
    bool usual = self->pending_exception == NULL && !self->must_cancel
                 && (waiter == NULL
                     || (self->parked && SHARED_LOAD(((Future *)waiter)->future_state) == FUTURE_FINISHED));
    if (LIKELY(usual)) {
        self->waiter = NULL;
        self->parked = false;
    }
    brief_end(&brief);
    *awaited = waiter;
    return usual;
}
#else
#define task_take_awaited(task, awaited) false
#endif

/* The step failed for a reason outside the coroutine: 0 if that was reported, else -1 */
static int
task_run_failed(Loop *loop, PyObject *op)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    Handle *handle = task_step_handle(loop, (Task *)op);
    PyErr_SetRaisedException(exc);
    if (handle == NULL) {
        PyErr_WriteUnraisable(op);
    }
    else {
        handle_call_failed_steal(loop, handle);
    }
    return 0;
}

/* The step did not come as far as the coroutine, for want of memory: the Task ends with the
 * current exception, where it would wait for ever else. 0, or -1 when it leaves the loop. */
static int
task_end_without_step(Loop *loop, PyObject *op)
{
    return task_fail((Task *)op) == 0 ? 0 : task_run_failed(loop, op);
}

/* Somebody has settled it by the methods of Future, and its coroutine is not asked any more. What
 * would have been thrown in is told. */
static int
task_run_done(Task *self, Loop *loop)
{
    PyObject *exc = Py_XNewRef(self->pending_exception);
    if (exc == NULL && self->waiter != NULL && self->parked) {
        PyObject *waiter = Py_NewRef(self->waiter);
        int failed = future_take((Future *)waiter, &exc);
        if (failed == 0) {
            Py_CLEAR(exc);    /* a result */
        }
        else if (failed < 0) {
            PyErr_Clear();
        }
        Py_DECREF(waiter);
    }
    task_already_done(self, exc);
    Py_XDECREF(exc);
    return task_run_failed(loop, (PyObject *)self);
}

/* The loop's upward call: one step of a Task from its ready ring. What the Task has waited for
 * lives until the step is over, as under asyncio: a result that nobody keeps is freed when the
 * coroutine has sent its next request, not before (benchmark row: asyncpg, 1,000 rows). */
int
task_run(Loop *loop, PyObject *op)
{
    Task *self = (Task *)op;
    PyObject *exc = NULL, *awaited;
    if (UNLIKELY(!future_is_pending(&self->future))) {
        return task_run_done(self, loop);
    }
    if (!task_take_awaited(self, &awaited) && UNLIKELY(task_take_wakeup(self, &exc, &awaited) < 0)) {
        return task_end_without_step(loop, op);
    }
    if (UNLIKELY(current_enter(loop, op) < 0)) {
        Py_XDECREF(exc);
        Py_XDECREF(awaited);
        return task_end_without_step(loop, op);
    }
    PyObject *context = Py_XNewRef(self->context);
    int result = -1;
    if (UNLIKELY(context == NULL)) {
        /* __init__ was called again, and failed */
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
    }
    else if (LIKELY(PyContext_Enter(context) == 0)) {
        result = task_resume(self, exc);
        if (UNLIKELY(result < 0)) {
            PyObject *raised = PyErr_GetRaisedException();
            PyContext_Exit(context);
            PyErr_SetRaisedException(raised);
        }
        else if (UNLIKELY(PyContext_Exit(context) < 0)) {
            result = -1;
        }
    }
    Py_XDECREF(context);
    Py_XDECREF(exc);
    result = LIKELY(result == 0) ? 0 : task_run_failed(loop, op);
    Py_XDECREF(awaited);
    return result;
}

/* The step itself, of a Task that is entered: with what it has waited for, or `exc`, which is stolen
 * (may be NULL). `woken`: whoever calls knows what woke it. 0 / -1 */
static int
task_step_entered_steal(Task *self, PyObject *exc, bool woken)
{
    if (UNLIKELY(!future_is_pending(&self->future))) {
        task_already_done(self, exc);
        Py_XDECREF(exc);
        return -1;
    }
    if (woken) {
        self->parked = false;
    }
    if (exc != NULL) {
        task_set_pending_exception_steal(self, exc);
    }
    PyObject *pending, *awaited;
    if (task_take_wakeup(self, &pending, &awaited) < 0) {
        return task_fail(self);
    }
    int result = task_resume(self, pending);
    Py_XDECREF(pending);
    Py_XDECREF(awaited);
    return result;
}

/* On a loop of ours that runs no other Task: out of a Handle. 0 / -1 */
static int
task_step_here_steal(Task *self, Loop *loop, PyObject *exc, bool woken)
{
    int result;
    if (UNLIKELY(current_enter(loop, (PyObject *)self) < 0)) {
        Py_XDECREF(exc);
        result = task_fail(self);
    }
    else {
        result = task_step_entered_steal(self, exc, woken);
    }
    current_leave(loop);
    return result;
}

/* On any loop, or in the middle of a step, by somebody's hand: as asyncio, which refuses to enter a
 * Task while another one runs. 0 / -1 */
static int
task_step_by_books_steal(Task *self, PyObject *exc, bool woken)
{
    struct state *state = self->future.state_ptr;
    PyObject *loop = Py_NewRef(self->future.loop);    /* __init__ may run inside and bind another one */
    int result = current_enter_foreign(state, loop, (PyObject *)self);
    if (result < 0) {
        Py_XDECREF(exc);    /* nothing has happened: it still waits */
    }
    else {
        result = task_step_entered_steal(self, exc, woken);
        PyObject *raised = PyErr_GetRaisedException();
        if (current_leave_foreign(state, loop, (PyObject *)self) < 0 && raised == NULL) {
            result = -1;
        }
        else {
            PyErr_SetRaisedException(raised);
        }
    }
    Py_DECREF(loop);
    return result;
}

/* A step from a callback, which runs in the context already. Steals `exc` (may be NULL),
 * which comes from the future that woke the Task. */
static PyObject *
task_step_in_callback_steal(Task *self, PyObject *exc, bool woken)
{
    Loop *loop = (Loop *)Py_XNewRef(self->future.own_loop);    /* __init__ may run inside and bind another one */
    struct record_step step = {NULL, 0};
    if (loop != NULL && SHARED_LOAD(loop->task_accounting)) {
        record_step_begin(&step, loop, (PyObject *)self);
    }
    bool alone = loop != NULL && loop->current_task == NULL;
    int result = alone ? task_step_here_steal(self, loop, exc, woken)
                       : task_step_by_books_steal(self, exc, woken);
    record_step_end(&step);
    if (loop != NULL) {
        COUNT(loop->counters->task_steps, 1);
        Py_DECREF(loop);
    }
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* The callback of a step where there is no ready ring, or of one that was looked at there. */
static PyObject *
task_step_callback(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_BY(op, Task, future.own_loop);
    return task_step_in_callback_steal((Task *)op, NULL, false);
}

/* The callback that wakes the Task when `future` is done. */
static PyObject *
task_wakeup(PyObject *op, PyObject *future)
{
    OWN_LOOP_BY(op, Task, future.own_loop);
    Task *self = (Task *)op;
    struct state *state = self->future.state_ptr;
    PyObject *outcome;
    if (future_check_native(state, future)) {
        int failed = future_take((Future *)future, &outcome);
        if (failed < 0) {
            outcome = PyErr_GetRaisedException();    /* no memory for it: that is thrown in */
        }
        else if (failed == 0) {
            Py_CLEAR(outcome);
        }
    }
    else {
        /* The await itself asks for the value: only an exception matters here. */
        outcome = PyObject_CallMethodNoArgs(future, state->names.result);
        if (outcome != NULL) {
            Py_CLEAR(outcome);
        }
        else {
            outcome = PyErr_GetRaisedException();
        }
    }
    return task_step_in_callback_steal(self, outcome, true);
}

PyObject *
task_context_ref(PyObject *op)
{
    GUARD(op);
    return Py_XNewRef(((Task *)op)->context);
}

void
task_step_init(struct state *state)
{
    tasks_state(state)->tasks.as_callback = task_as_callback;
}
