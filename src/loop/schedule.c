/* schedule.c - see schedule.h. */
#include "loop/schedule.h"

#include "base/context.h"
#include "loop/clock.h"
#include "loop/handle_inside.h"
#include "loop/overrides.h"
#include "loop/owed.h"
#include "loop/timer.h"
#include "loop/wake.h"

/* asyncio's own Handle, or what is in its place, made as asyncio makes it. */
static PyObject *
make_foreign_handle(Loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *context)
{
    PyObject *handle = NULL;
    PyObject *events = PyObject_GetAttrString(loop_state(loop->state)->loops.base_events, "events");
    PyObject *class = events == NULL ? NULL : PyObject_GetAttrString(events, "Handle");
    PyObject *tuple = class == NULL ? NULL : PyTuple_New(nargs);
    if (tuple != NULL) {
        for (Py_ssize_t i = 0; i < nargs; i++) {
            PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
        }
        handle = PyObject_CallFunctionObjArgs(class, callback, tuple, (PyObject *)loop,
                                              context != NULL ? context : Py_None, NULL);
    }
    Py_XDECREF(tuple);
    Py_XDECREF(class);
    Py_XDECREF(events);
    return handle;
}

/* What asyncio's Handle shows of who made it begins with the caller of call_soon(). */
static PyObject *
call_soon_by_foreign_handle(Loop *loop, PyObject *callback, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *context)
{
    PyObject *handle = make_foreign_handle(loop, callback, args, nargs, context);
    if (handle != NULL && loop_push_steal(loop, Py_NewRef(handle), READY_FOREIGN) < 0) {
        Py_CLEAR(handle);
    }
    return handle;
}

PyObject *
loop_call_soon(Loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
               PyObject *context)
{
    return loop_call_soon_knowing(loop, loop_replaced(loop), callback, args, nargs, context);
}

PyObject *
loop_call_soon_knowing(Loop *loop, unsigned int replaced, PyObject *callback,
                       PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    if (UNLIKELY(loop_check_closed(loop) < 0)) {
        if ((replaced & LOOP_BIT(_check_closed)) == 0) {
            return NULL;
        }
        PyErr_Clear();    /* the program's own one has not refused: it is never made */
        Handle *unused = handle_new(loop, callback, args, nargs, context);
        if (unused != NULL) {
            handle_track(unused);    /* in no place of the loop's */
        }
        return (PyObject *)unused;
    }
    if (UNLIKELY(replaced & (LOOP_HANDLE_CLASS | LOOP_HANDLE_RUN))) {
        return call_soon_by_foreign_handle(loop, callback, args, nargs, context);
    }
    Handle *handle = handle_new(loop, callback, args, nargs, context);
    if (handle == NULL
        || loop_push_steal(loop, Py_NewRef(handle), READY_HANDLE) < 0) {
        Py_XDECREF(handle);
        return NULL;
    }
    return (PyObject *)handle;
}

/* A call of our own for which the program wants to be asked: `self` is its handle, which has no
 * other way to run. */
static PyObject *
run_native_handle(PyObject *self, PyObject *ignored UNUSED)
{
    PyObject *owner;
    {
        GUARD(self);
        owner = Py_XNewRef(((Handle *)self)->callback);
    }
    PyObject *context = owner == NULL ? NULL : context_step_out(owner);
    int result = handle_run((Handle *)self);
    context_step_in(context);
    Py_XDECREF(owner);
    return result < 0 && PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef native_call_def = {"asyncloop_callback", run_native_handle, METH_NOARGS, NULL};

static int
call_soon_by_method_steal(Loop *loop, Handle *handle, PyObject *owner)
{
    handle_track(handle);
    PyObject *callback = PyCFunction_New(&native_call_def, (PyObject *)handle);
    Py_DECREF(handle);
    if (callback == NULL) {
        return -1;
    }
    PyObject *result = context_call_method_steal((PyObject *)loop, "call_soon", Py_BuildValue("(N)", callback),
                                                 owner);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
loop_call_soon_native(Loop *loop, native_callback run, PyObject *owner, PyObject *arg)
{
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    Handle *handle = handle_new_native(loop, run, owner, arg);
    if (handle == NULL) {
        return -1;
    }
    if (UNLIKELY(loop_replaced(loop) & LOOP_SOON)) {
        return call_soon_by_method_steal(loop, handle, owner);
    }
    return loop_push_steal(loop, (PyObject *)handle, READY_HANDLE);
}

int
loop_call_soon_surely(Loop *loop, struct owed_call *call, const struct owed_kind *kind,
                      PyObject *arg)
{
    PyObject *owner = (PyObject *)(void *)((char *)call - kind->offset);
    if (LIKELY(call->kind == NULL)) {
        if (LIKELY(loop_call_soon_native(loop, kind->run, owner, arg) == 0)) {
            return 0;
        }
        if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
            return -1;
        }
        PyErr_Clear();
        owed_add_call(loop, call, kind);
    }
    call->kind = kind;
    Py_XSETREF(call->arg, Py_XNewRef(arg));
    return 0;
}

/* steals nothing; the caller keeps its reference to the timer */
static int
loop_schedule(Loop *loop, TimerHandle *timer, double when)
{
    timer->when = when;
    return timer_schedule(loop, timer);
}

TimerHandle *
loop_call_at(Loop *loop, double when, PyObject *callback, PyObject *const *args,
             Py_ssize_t nargs, PyObject *context)
{
    if (loop_check_closed(loop) < 0) {
        return NULL;
    }
    TimerHandle *timer = timer_handle_new(loop, callback, args, nargs, context);
    if (timer != NULL && loop_schedule(loop, timer, when) < 0) {
        Py_CLEAR(timer);
    }
    return timer;
}

TimerHandle *
loop_call_later(Loop *loop, double delay, PyObject *callback, PyObject *const *args,
                Py_ssize_t nargs, PyObject *context)
{
    double now = loop_time(loop);
    return loop_call_at(loop, now + delay, callback, args, nargs, context);
}

TimerHandle *
loop_call_later_native(Loop *loop, double delay, native_callback run, PyObject *owner,
                       PyObject *arg)
{
    double now;
    if (loop_check_closed(loop) < 0 || loop_now_seconds(loop, &now) < 0) {
        return NULL;
    }
    TimerHandle *timer = timer_handle_new_native(loop, run, owner, arg);
    if (timer != NULL && loop_schedule(loop, timer, now + delay) < 0) {
        Py_CLEAR(timer);
    }
    return timer;
}

static int
call_later_by_method(Loop *loop, double delay, TimerHandle *timer)
{
    handle_track(&timer->handle);
    PyObject *callback = PyCFunction_New(&native_call_def, (PyObject *)timer);
    PyObject *public = callback == NULL ? NULL
                                        : PyObject_CallMethod((PyObject *)loop, "call_later", "dO", delay, callback);
    int result = public == NULL ? -1 : handle_keep_extra(&timer->handle, HANDLE_EXTRA(public), public);
    Py_XDECREF(public);
    Py_XDECREF(callback);
    return result;
}

TimerHandle *
loop_call_later_public(Loop *loop, double delay, native_callback run, PyObject *owner)
{
    unsigned int ways = LOOP_BIT(call_later) | LOOP_BIT(call_at) | LOOP_HANDLE_CLASS | LOOP_HANDLE_RUN;
    if (LIKELY((loop_replaced(loop) & ways) == 0)) {
        return loop_call_later_native(loop, delay, run, owner, NULL);
    }
    TimerHandle *timer = loop_check_closed(loop) < 0 ? NULL : timer_handle_new_native(loop, run, owner, NULL);
    if (timer != NULL && call_later_by_method(loop, delay, timer) < 0) {
        Py_CLEAR(timer);
    }
    return timer;
}

void
loop_cancel_public(TimerHandle *timer)
{
    PyObject *public = timer->handle.has_extra ? Py_XNewRef(handle_extra(&timer->handle)->public) : NULL;
    if (UNLIKELY(public != NULL)) {
        PyObject *result = PyObject_CallMethodNoArgs(public, timer->handle.loop->state->names.cancel);
        if (result == NULL) {
            PyErr_WriteUnraisable(public);
        }
        Py_XDECREF(result);
        Py_DECREF(public);
    }
    timer_cancel(timer);
    Py_DECREF(timer);
}

/* -- from other threads ---------------------------------------------------------------- */

#ifdef Py_GIL_DISABLED
int
loop_call_soon_threadsafe(Loop *loop, Handle *handle_steal)
{
    return loop_push_steal(loop, (PyObject *)handle_steal, READY_HANDLE);
}
#else
/* A call of the loop's own thread keeps its place among those of call_soon(); one of another thread
 * queues if others do already, or if there were enough for this iteration. */
static bool
called_from_elsewhere(Loop *loop)
{
    return loop->thread_id != 0 && loop->thread_id != PyThread_get_thread_ident();
}

int
loop_call_soon_threadsafe(Loop *loop, Handle *handle_steal)
{
    struct inbox *inbox = &loop->inbox;
    if (loop_check_closed(loop) < 0) {
        Py_DECREF(handle_steal);
        return -1;
    }
    if (UNLIKELY(inbox->direct >= DIRECT_MAX || inbox->count > 0) && called_from_elsewhere(loop)) {
        return inbox_push_steal(loop, (PyObject *)handle_steal, READY_HANDLE);
    }
    inbox->direct++;
    COUNT(loop->counters->from_threads, called_from_elsewhere(loop));
    if (ready_push_steal(&loop->ready, (PyObject *)handle_steal, READY_HANDLE) < 0) {
        return -1;
    }
    if (wake_is_asleep(inbox)) {
        loop_wake(loop);
    }
    return 0;
}
#endif
