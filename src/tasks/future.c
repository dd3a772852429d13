/* future.c - the state of a Future: settled once, asked any number of times.
 *
 * Owns:     future_state, outcome and what cancelling leaves behind; the methods that
 *           change or return these.
 * Promises: the state changes first, then the waiters are woken (future_waiters.c), so that a
 *           failure to wake one leaves a settled future.
 * Ignores:  memory, attributes and the type (future_type.c).
 * Python:   making an exception calls its class, which may do anything to the future: what is
 *           used across such a call is held, and fields are read again after. */
#include "tasks/future.h"

#include "base/args.h"
#include "base/checked.h"
#include "tasks/future_methods.h"
#include "tasks/future_waiters.h"

static void
invalid_state(const Future *self, const char *message)
{
    PyObject *type = tasks_state(self->state_ptr)->futures.InvalidStateError;
    PyErr_SetString(type, self->loop == NULL ? "Future object is not initialized." : message);
}

/* -- settling ------------------------------------------------------------------- */

static inline int
future_wake(Future *self)
{
    if (LIKELY(self->callbacks == NULL)) {
        PyObject *first = self->callback0;
        if (first == NULL) {
            return 0;
        }
        if (self->parked0) {
            self->callback0 = NULL;
            self->parked0 = false;
            return future_wake_task_steal(self, first);
        }
    }
    return future_wake_several(self);
}

#ifdef Py_GIL_DISABLED
/* The usual case, in a turn of the loop itself: nobody waits, or one does. False: nothing was done. */
static inline bool
future_set_result_briefly(Future *self, PyObject *value, int *result)
{
    struct brief brief;
    if (UNLIKELY(!brief_begin(&brief, &self->own_loop))) {
        return false;
    }
    Loop *loop = brief.loop;
    bool usual = self->future_state == FUTURE_PENDING && self->callbacks == NULL;
    PyObject *waiter = self->callback0, *context = self->context0;    /* no context: a parked Task */
    if (LIKELY(usual)) {
        self->outcome = Py_NewRef(value);
        SHARED_STORE(self->future_state, FUTURE_FINISHED);
        self->callback0 = self->context0 = NULL;
        self->parked0 = false;
    }
    brief_end(&brief);
    if (LIKELY(usual)) {
        *result = waiter == NULL    ? 0
                  : context == NULL ? future_wake_task_of_steal(loop, self, waiter)
                                    : future_wake_first_steal(self, waiter, context);
    }
    return usual;
}
#else
#define future_set_result_briefly(future, value, result) ((void)(result), false)
#endif

int
future_set_result(Future *self, PyObject *value)
{
    int result;
    if (future_set_result_briefly(self, value, &result)) {
        return result;
    }
    FUTURE_GUARD(self);
    if (UNLIKELY(self->future_state != FUTURE_PENDING)) {
        invalid_state(self, "invalid state");
        return -1;
    }
    self->outcome = Py_NewRef(value);
    SHARED_STORE(self->future_state, FUTURE_FINISHED);
    return future_wake(self);
}

int
future_set_result_if_pending(Future *self, PyObject *value)
{
    FUTURE_GUARD(self);
    return LIKELY(future_is_pending(self)) ? future_set_result(self, value) : 0;
}

/* A StopIteration would end the coroutine that awaits. Steals and gives back a reference. */
static PyObject *
replace_stop_iteration_steal(PyObject *exc)
{
    const char *message =
        "StopIteration interacts badly with generators and cannot be raised into a Future";
#if PY_VERSION_HEX < 0x030C0200
    /* as those versions do: exactly StopIteration is refused, subclasses pass */
    if (Py_IS_TYPE(exc, (PyTypeObject *)PyExc_StopIteration)) {
        PyErr_SetString(PyExc_TypeError, message);
        Py_CLEAR(exc);
    }
    return exc;
#else
    if (!PyErr_GivenExceptionMatches(exc, PyExc_StopIteration)) {
        return exc;
    }
    PyObject *instead = PyObject_CallFunction(PyExc_RuntimeError, "s", message);
    if (instead != NULL) {
        PyException_SetCause(instead, Py_NewRef(exc));
        PyException_SetContext(instead, Py_NewRef(exc));
    }
    Py_DECREF(exc);
    return instead;
#endif
}

int
future_set_exception(Future *self, PyObject *exception)
{
    FUTURE_GUARD(self);
    if (UNLIKELY(self->future_state != FUTURE_PENDING)) {
        invalid_state(self, "invalid state");
        return -1;
    }
    PyObject *exc = PyExceptionClass_Check(exception) ? PyObject_CallNoArgs(exception)
                                                      : Py_NewRef(exception);
    if (exc == NULL) {
        return -1;
    }
    if (!PyExceptionInstance_Check(exc)) {
        Py_DECREF(exc);
        PyErr_SetString(PyExc_TypeError, "invalid exception object");
        return -1;
    }
    exc = replace_stop_iteration_steal(exc);
    if (exc == NULL) {
        return -1;
    }
    /* the exception's class may have settled the future */
    if (UNLIKELY(self->future_state != FUTURE_PENDING)) {
        Py_DECREF(exc);
        invalid_state(self, "invalid state");
        return -1;
    }
    self->outcome = exc;
    Py_XSETREF(self->exception_traceback, PyException_GetTraceback(exc));
    SHARED_STORE(self->future_state, FUTURE_FAILED);
    SHARED_STORE(self->log_traceback, true);
    if (future_wake(self) < 0) {
        SHARED_STORE(self->log_traceback, false);    /* the caller has an exception to look at already */
        return -1;
    }
    return 0;
}

#ifdef Py_GIL_DISABLED
/* The Operation's watch is the business of the loop's thread, which alone knows whether the
 * Operation still is there. */
static int
future_tell_watcher(PyObject *op, PyObject *ignored UNUSED)
{
    Future *self = (Future *)op;
    FUTURE_GUARD(op);
    if (self->watcher != NULL) {
        tasks_state(self->state_ptr)->futures.cancelled(self->watcher);
    }
    return 0;
}
#endif

static inline void
future_stop_watcher(Future *self)
{
#ifdef Py_GIL_DISABLED
    if (self->own_loop != NULL && !loop_is_mine(self->own_loop)) {
        if (loop_call_soon_native(self->own_loop, future_tell_watcher, (PyObject *)self, NULL) < 0) {
            PyErr_Clear();    /* the loop is closed: nothing waits any more */
        }
        return;
    }
#endif
    tasks_state(self->state_ptr)->futures.cancelled(self->watcher);
}

int
future_cancel(Future *self, PyObject *message)
{
    FUTURE_GUARD(self);
    SHARED_STORE(self->log_traceback, false);
    if (self->future_state != FUTURE_PENDING) {
        return 0;
    }
    SHARED_STORE(self->future_state, FUTURE_CANCELLED);
    Py_XSETREF(self->cancel_message, Py_XNewRef(message));
    if (self->watcher != NULL) {
        future_stop_watcher(self);
    }
    return future_wake(self) < 0 ? -1 : 1;
}

/* Whether a future-like object of any kind is done: 1, 0, -1 */
static int
future_like_is_done(struct state *state, PyObject *future)
{
    if (LIKELY(future_check_exact(state, future))) {
        return !future_is_pending((Future *)future);
    }
    PyObject *done = PyObject_CallMethodNoArgs(future, state->names.done);
    if (done == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(done);
    Py_DECREF(done);
    return result;
}

int
future_settle_result(struct state *state, PyObject *future, PyObject *value)
{
    int done = future_like_is_done(state, future);
    if (done != 0) {
        return done < 0 ? -1 : 0;
    }
    if (LIKELY(future_check_exact(state, future))) {
        return future_set_result_if_pending((Future *)future, value);
    }
    PyObject *result = PyObject_CallMethodOneArg(future, state->names.set_result, value);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
future_settle_exception(struct state *state, PyObject *future, PyObject *exception)
{
    int done = future_like_is_done(state, future);
    if (done != 0) {
        return done < 0 ? -1 : 0;
    }
    if (LIKELY(future_check_exact(state, future))) {
        FUTURE_GUARD(future);
        return future_is_pending((Future *)future)
                   ? future_set_exception((Future *)future, exception)
                   : 0;
    }
    PyObject *result = PyObject_CallMethodOneArg(future, state->names.set_exception, exception);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* -- asking --------------------------------------------------------------------- */

PyObject *
future_make_cancelled_error(Future *self)
{
    FUTURE_GUARD(self);
    if (self->future_state == FUTURE_CANCELLED && self->cancelled_error != NULL) {
        /* Whoever raises it adds to its traceback: it is given away only once. */
        PyObject *exc = self->cancelled_error;
        self->cancelled_error = NULL;
        return exc;
    }
    PyObject *type = tasks_state(self->state_ptr)->futures.CancelledError;
    if (self->cancel_message == NULL || self->cancel_message == Py_None) {
        return PyObject_CallNoArgs(type);
    }
    PyObject *message = Py_NewRef(self->cancel_message);
    PyObject *error = PyObject_CallOneArg(type, message);
    Py_DECREF(message);
    return error;
}

/* The exception that was set, with the traceback that it had then: each retrieval would
 * add to it otherwise. New reference. */
static PyObject *
future_take_exception(Future *self)
{
    PyObject *traceback = self->exception_traceback;
    self->exception_traceback = NULL;
    PyObject *exc = Py_NewRef(self->outcome);
    (void)PyException_SetTraceback(exc, traceback != NULL ? traceback : Py_None);
    Py_XDECREF(traceback);
    return exc;
}

#ifdef Py_GIL_DISABLED
/* False if it has no result, or not in a turn of its loop. */
static inline bool
future_take_result_briefly(Future *self, PyObject **outcome)
{
    struct brief brief;
    if (UNLIKELY(!brief_begin(&brief, &self->own_loop))) {
        return false;
    }
    bool finished = self->future_state == FUTURE_FINISHED;
    if (LIKELY(finished)) {
        *outcome = Py_NewRef(self->outcome);
    }
    brief_end(&brief);
    return finished;
}
#else
static inline bool
future_take_result_briefly(Future *self, PyObject **outcome)
{
    bool finished = self->future_state == FUTURE_FINISHED;
    if (LIKELY(finished)) {
        *outcome = Py_NewRef(self->outcome);
    }
    return finished;
}
#endif

static PyObject *
new_invalid_state(Future *self, const char *message)
{
    invalid_state(self, message);
    return PyErr_GetRaisedException();
}

static int
future_take_guarded(Future *self, PyObject **outcome)
{
    FUTURE_GUARD(self);
    switch (self->future_state) {
    case FUTURE_FINISHED:
        *outcome = Py_NewRef(self->outcome);
        return 0;
    case FUTURE_FAILED:
        SHARED_STORE(self->log_traceback, false);
        *outcome = future_take_exception(self);
        return 1;
    case FUTURE_CANCELLED:
        *outcome = future_make_cancelled_error(self);
        break;
    default:
        *outcome = new_invalid_state(self, "Result is not set.");
        break;
    }
    VERIFY((*outcome == NULL) == (PyErr_Occurred() != NULL));
    return *outcome == NULL ? -1 : 1;
}

/* Apart, so that no registers are saved for a result (guarded path: gather-100). */
static __attribute__((noinline)) int
future_take_anyhow(Future *self, PyObject **outcome)
{
    Py_INCREF(self);    /* the class of an exception may drop the one that the caller has looked at */
    int result = future_take_guarded(self, outcome);
    Py_DECREF(self);
    return result;
}

int
future_take(Future *self, PyObject **outcome)
{
    return LIKELY(future_take_result_briefly(self, outcome)) ? 0 : future_take_anyhow(self, outcome);
}

/* -- methods -------------------------------------------------------------------- */

/* raises `exc`, with what is being handled now as its context */
static PyObject *
raise_steal(PyObject *exc)
{
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return NULL;
}

PyObject *
Future_result(PyObject *op, PyObject *ignored UNUSED)
{
    PyObject *outcome;
    int failed = future_take((Future *)op, &outcome);
    return LIKELY(failed == 0) ? outcome : raise_steal(outcome);
}

PyObject *
Future_exception(PyObject *op, PyObject *ignored UNUSED)
{
    Future *self = (Future *)op;
    if (LIKELY(SHARED_LOAD(self->future_state) == FUTURE_FINISHED)) {
        Py_RETURN_NONE;    /* nothing to read that would take its lock (guarded path: gather-100) */
    }
    FUTURE_GUARD(op);
    if (self->future_state == FUTURE_CANCELLED) {
        return raise_steal(future_make_cancelled_error(self));
    }
    if (self->future_state != FUTURE_FAILED) {
        invalid_state(self, "Exception is not set.");
        return NULL;
    }
    SHARED_STORE(self->log_traceback, false);
    return Py_NewRef(self->outcome);
}

PyObject *
Future_set_result(PyObject *op, PyObject *value)
{
    Future *self = (Future *)op;
    if (UNLIKELY(self->loop == NULL)) {
        return future_not_initialised();
    }
    if (future_set_result(self, value) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
Future_set_exception(PyObject *op, PyObject *exception)
{
    Future *self = (Future *)op;
    if (UNLIKELY(self->loop == NULL)) {
        return future_not_initialised();
    }
    if (future_set_exception(self, exception) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
Future_cancel(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"msg", NULL};
    Future *self = (Future *)op;
    PyObject *message = NULL;
    if ((nargs != 0 || kwnames != NULL)
        && args_unpack("cancel", args, nargs, kwnames, names, 1, 0, &message) < 0) {
        return NULL;
    }
    if (UNLIKELY(self->loop == NULL)) {
        return future_not_initialised();
    }
    int result = future_cancel(self, message);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

PyObject *
Future_cancelled(PyObject *op, PyObject *ignored UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Future *)op)->future_state) == FUTURE_CANCELLED);
}

PyObject *
Future_done(PyObject *op, PyObject *ignored UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Future *)op)->future_state) > FUTURE_PENDING);
}

PyObject *
Future_get_loop(PyObject *op, PyObject *ignored UNUSED)
{
    FUTURE_GUARD(op);
    Future *self = (Future *)op;
    return self->loop == NULL ? future_not_initialised() : Py_NewRef(self->loop);
}

PyObject *
Future__make_cancelled_error(PyObject *op, PyObject *ignored UNUSED)
{
    return future_make_cancelled_error((Future *)op);
}

#ifdef ASYNCLOOP_DEBUG
/* Of a Future or Task. What is done has waiters only while there is no memory to wake them. */
void
future_verify(Future *self, uint64_t turn)
{
    FUTURE_GUARD(self);
    VERIFY(verify_lives(self) && self->state_ptr != NULL);
    VERIFY(self->future_state <= FUTURE_FAILED);
    if (self->future_state == FUTURE_UNINITIALISED) {
        return;
    }
    VERIFY(verify_lives(self->loop));
    VERIFY(self->own_loop == NULL || (PyObject *)self->own_loop == self->loop);
    VERIFY((self->outcome != NULL) == (self->future_state >= FUTURE_FINISHED));
    VERIFY(self->outcome == NULL || verify_lives(self->outcome));
    VERIFY(self->future_state != FUTURE_FAILED || PyExceptionInstance_Check(self->outcome));
    VERIFY(!self->log_traceback || self->future_state == FUTURE_FAILED);
    VERIFY(self->watcher == NULL || verify_lives(self->watcher));
    future_verify_waiters(self, turn);
}
#endif
