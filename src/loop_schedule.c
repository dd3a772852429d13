/* loop_schedule.c - see loop_schedule.h. */
#include "loop_schedule.h"

#include "base/args.h"
#include "loop/clock.h"
#include "loop/handle.h"
#include "loop/inbox.h"
#include "loop/owner.h"
#include "loop/timer.h"
#include "loop/wake.h"
#include "tasks/future.h"
#include "tasks/task.h"
#include "insides.h"

static const char *const soon_names[] = {"callback", "context", NULL};
static const char *const timer_names[][4] = {{"delay", "callback", "context", NULL},
                                             {"when", "callback", "context", NULL}};

/* The rare call with `callback` by name. Fills values[] with the `required` arguments and,
 * behind them, the context. 0, or -1 with TypeError. */
static int
unpack_by_name(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
               const char *const *names, Py_ssize_t required, PyObject **values)
{
    values[required] = NULL;
    if (args_unpack(function, args, nargs, kwnames, names, required, required, values) < 0) {
        return -1;
    }
    if (values[required] == Py_None) {
        values[required] = NULL;
    }
    return 0;
}

static int
check_debug(Loop *loop, PyObject *callback, const char *function, bool this_thread)
{
    if (this_thread && loop_check_thread(loop) < 0) {
        return -1;
    }
    return loop_check_callback(loop, callback, function);
}

PyObject *
Loop_call_soon(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Loop *loop = (Loop *)op;
    PyObject *context;
    unsigned int replaced = loop_replaced(loop);
    if (UNLIKELY(replaced & LOOP_BIT(call_soon)) && (SHARED_LOAD(loop->overrides.base) & LOOP_BIT(call_soon))) {
        return overrides_call_base(loop, loop->state->names.call_soon, args, nargs, kwnames);
    }
    if (UNLIKELY(nargs < 1)) {
        PyObject *values[2];
        if (unpack_by_name("call_soon", args, nargs, kwnames, soon_names, 1, values) < 0
            || loop_check_closed(loop) < 0
            || (FLAG(loop->debug) && check_debug(loop, values[0], "call_soon", true) < 0)) {
            return NULL;
        }
        return loop_call_soon_knowing(loop, replaced, values[0], NULL, 0, values[1]);
    }
    PyObject *callback = args[0];
    if (args_context("call_soon", args, nargs, kwnames, &context) < 0
        || loop_check_closed(loop) < 0) {
        return NULL;
    }
    if (UNLIKELY(FLAG(loop->debug) || (replaced & (LOOP_HANDLE_CLASS | LOOP_HANDLE_RUN)) != 0)) {
        if (FLAG(loop->debug) && check_debug(loop, callback, "call_soon", true) < 0) {
            return NULL;
        }
        return loop_call_soon_knowing(loop, replaced, callback, args + 1, nargs - 1, context);
    }
    /* The same without a call and a second look (guarded path: call-soon). */
    Handle *handle = handle_new(loop, callback, args + 1, nargs - 1, context);
    if (handle != NULL && loop_push_steal(loop, Py_NewRef(handle), READY_HANDLE) < 0) {
        Py_CLEAR(handle);
    }
    return (PyObject *)handle;
}

/* What BaseEventLoop.call_soon() calls, for who has replaced that and calls it. */
PyObject *
Loop__call_soon(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3 || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "_call_soon(callback, args, context): args is a tuple");
        return NULL;
    }
    if (loop_base_replaced((Loop *)op, LOOP_BIT(_call_soon))) {
        return overrides_call_base((Loop *)op, ((Loop *)op)->state->names._call_soon, args, nargs, NULL);
    }
    return loop_call_soon((Loop *)op, args[0], &PyTuple_GET_ITEM(args[1], 0),
                          PyTuple_GET_SIZE(args[1]), args[2] == Py_None ? NULL : args[2]);
}

PyObject *
Loop_call_soon_threadsafe(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    Loop *loop = (Loop *)op;
    PyObject *context;
    PyObject *values[2];
    unsigned int replaced = loop_replaced(loop);
    if (UNLIKELY(replaced & (LOOP_BIT(call_soon_threadsafe) | LOOP_HANDLE_CLASS | LOOP_HANDLE_RUN))
        && ((replaced & (LOOP_HANDLE_CLASS | LOOP_HANDLE_RUN)) != 0
            || loop_base_replaced(loop, LOOP_BIT(call_soon_threadsafe)))) {
        return overrides_call_base(loop, loop->state->names.call_soon_threadsafe, args, nargs,
                                   kwnames);
    }
    if (UNLIKELY(nargs < 1)) {
        if (unpack_by_name("call_soon_threadsafe", args, nargs, kwnames, soon_names, 1, values)
            < 0) {
            return NULL;
        }
        args = values;
        nargs = 1;
        context = values[1];
    }
    else if (args_context("call_soon_threadsafe", args, nargs, kwnames, &context) < 0) {
        return NULL;
    }
    if (loop_check_closed(loop) < 0
        || (UNLIKELY(FLAG(loop->debug))
            && check_debug(loop, args[0], "call_soon_threadsafe", false) < 0)) {
        return NULL;
    }
    Handle *handle = handle_new(loop, args[0], args + 1, nargs - 1, context);
    if (handle == NULL) {
        return NULL;
    }
    handle->threadsafe = loop_state(loop->state)->handles.asyncio_ThreadSafeHandle != NULL;
#ifdef Py_GIL_DISABLED
    if (!loop_is_mine(loop)) {
        if (context == NULL) {
            share_count(handle->how.context);
        }
        share_count((PyObject *)handle);
    }
#endif
    if (loop_call_soon_threadsafe(loop, (Handle *)Py_NewRef(handle)) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    if (UNLIKELY((replaced & LOOP_BIT(_write_to_self)) != 0)) {
        PyObject *result = PyObject_CallMethod(op, "_write_to_self", NULL);
        if (result == NULL) {
            Py_CLEAR(handle);
        }
        Py_XDECREF(result);
    }
    return (PyObject *)handle;
}

/* Any number as seconds: *kept is NULL, or a new reference to the moment where it is no float and the
 * handle has to give it back as it was. call_later(): of `self.time() + value`, which takes no Decimal
 * and no string. 0, or -1 with an exception. */
static int
seconds_of(Loop *loop, PyObject *value, bool later, double *seconds, PyObject **kept)
{
    *kept = NULL;
    if (LIKELY(PyFloat_CheckExact(value))) {
        *seconds = PyFloat_AS_DOUBLE(value);
        return 0;
    }
    if (later && PyLong_CheckExact(value)) {
        *seconds = PyLong_AsDouble(value);
        return *seconds == -1. && PyErr_Occurred() ? -1 : 0;
    }
    /* To 0. for its errors alone: asyncio's come out of run_forever() later, and end it. */
    double now = 0.;
    if (later && loop_now_seconds(loop, &now) < 0) {
        return -1;
    }
    PyObject *base = PyFloat_FromDouble(now);
    PyObject *sum = base == NULL ? NULL : PyNumber_Add(base, value);
    Py_XDECREF(base);
    *seconds = sum == NULL ? -1. : PyFloat_AsDouble(sum);
    if (*seconds == -1. && PyErr_Occurred()) {
        Py_XDECREF(sum);
        return -1;
    }
    if (later) {
        *kept = PyFloat_CheckExact(sum) ? NULL : Py_NewRef(sum);
        *seconds -= now;
    }
    else {
        *kept = Py_NewRef(value);
    }
    Py_DECREF(sum);
    return 0;
}

typedef TimerHandle *(*schedule_function)(Loop *, double, PyObject *, PyObject *const *,
                                          Py_ssize_t, PyObject *);

static PyObject *
schedule_timer(Loop *loop, const char *function, bool later, schedule_function schedule,
               PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    const char *const *names = timer_names[!later];
    PyObject *context;
    PyObject *values[3];
    if (UNLIKELY(nargs < 2)) {
        if (unpack_by_name(function, args, nargs, kwnames, names, 2, values) < 0) {
            return NULL;
        }
        args = values;
        nargs = 2;
        context = values[2];
    }
    else if (args_context(function, args, nargs, kwnames, &context) < 0) {
        return NULL;
    }
    if (UNLIKELY(args[0] == Py_None)) {
        PyErr_Format(PyExc_TypeError, later ? "%s must not be None" : "%s cannot be None", names[0]);
        return NULL;
    }
    double seconds;
    PyObject *kept;
    if (seconds_of(loop, args[0], later, &seconds, &kept) < 0) {
        return NULL;
    }
    TimerHandle *timer = NULL;
    if (loop_check_closed(loop) == 0
        && (LIKELY(!FLAG(loop->debug)) || check_debug(loop, args[1], "call_at", true) == 0)) {
        timer = schedule(loop, seconds, args[1], args + 2, nargs - 2, context);
    }
    if (UNLIKELY(FLAG(loop->debug)) && later && timer != NULL
        && handle_trim_source_traceback((Handle *)timer, 3) < 0) {
        timer_cancel(timer);
        Py_CLEAR(timer);
    }
    if (UNLIKELY(kept != NULL)) {
        if (timer != NULL && timer_handle_keep_when(timer, kept) < 0) {
            timer_cancel(timer);
            Py_CLEAR(timer);
        }
        Py_DECREF(kept);
    }
    return (PyObject *)timer;
}

PyObject *
Loop_call_later(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Loop *loop = (Loop *)op;
    /* asyncio's method calls the others */
    unsigned int replaced = loop_replaced(loop);
    if (UNLIKELY(replaced & (LOOP_BIT(call_at) | LOOP_BIT(time)))
        || UNLIKELY(SHARED_LOAD(loop->overrides.base) & LOOP_BIT(call_later))
        || UNLIKELY(!loop_timer_handles_are_own(loop)) || GLOBAL_REPLACED(loop->state, TIME_MONOTONIC)) {
        return overrides_call_base(loop, loop->state->names.call_later, args, nargs, kwnames);
    }
    return schedule_timer(loop, "call_later", true, loop_call_later, args, nargs, kwnames);
}

PyObject *
Loop_call_at(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Loop *loop = (Loop *)op;
    if (loop_base_replaced(loop, LOOP_BIT(call_at))
        || UNLIKELY(!loop_timer_handles_are_own(loop))) {
        return overrides_call_base(loop, loop->state->names.call_at, args, nargs, kwnames);
    }
    return schedule_timer(loop, "call_at", false, loop_call_at, args, nargs, kwnames);
}

PyObject *
Loop_time(PyObject *op, PyObject *ignored UNUSED)
{
    Loop *loop = (Loop *)op;
    if (loop_base_replaced(loop, LOOP_BIT(time)) || GLOBAL_REPLACED(loop->state, TIME_MONOTONIC)) {
        return overrides_call_base(loop, loop->state->names.time, NULL, 0, NULL);
    }
    return PyFloat_FromDouble(loop_time(loop));
}

PyObject *
Loop__add_callback(PyObject *op, PyObject *item)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    bool ours = handle_check(loop->state, item);
    if (!ours) {
        PyObject *cancelled = PyObject_GetAttrString(item, "_cancelled");
        int is_cancelled = cancelled == NULL ? -1 : PyObject_IsTrue(cancelled);
        Py_XDECREF(cancelled);
        if (is_cancelled < 0) {
            return NULL;
        }
        if (is_cancelled) {
            Py_RETURN_NONE;
        }
    }
    if (FLAG(loop->closed)) {
        Py_RETURN_NONE;    /* nothing will run it */
    }
    if (ours) {
        handle_track((Handle *)item);
    }
    return none_or_error(loop_push_steal(loop, Py_NewRef(item), ours ? READY_HANDLE : READY_FOREIGN));
}

PyObject *
Loop__timer_handle_cancelled(PyObject *op, PyObject *handle)
{
    /* asyncio counts cancelled timers in order to clean its heap; ours have left at once. */
    insides_timer_cancelled((Loop *)op, handle);
    if (loop_base_replaced((Loop *)op, LOOP_BIT(_timer_handle_cancelled))) {
        return overrides_call_base((Loop *)op, ((Loop *)op)->state->names._timer_handle_cancelled, &handle, 1, NULL);
    }
    Py_RETURN_NONE;
}

/* -- futures and tasks --------------------------------------------------------------------- */

PyObject *
Loop_create_future(PyObject *op, PyObject *ignored UNUSED)
{
    Loop *loop = (Loop *)op;
    if (loop_base_replaced(loop, LOOP_BIT(create_future))
        || GLOBAL_REPLACED(loop->state, FUTURES_FUTURE)) {
        return overrides_call_base(loop, loop->state->names.create_future, NULL, 0, NULL);
    }
    PyObject *future = future_new(loop->state, op);
    if (UNLIKELY(FLAG(loop->debug)) && future != NULL) {
        /* where asyncio's own method makes it: the last line of what is taken down */
        PyObject *place = PyObject_GetAttrString(op, "_place_of_futures");
        PyObject *frames = ((Future *)future)->source_traceback;
        if (place == NULL || (frames != NULL && PyList_Check(frames) && PyList_Append(frames, place) < 0)) {
            Py_CLEAR(future);
        }
        Py_XDECREF(place);
    }
    return future;
}

PyObject *
Loop_create_task(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {
        "coro",
        "name",
        "context",
#if PY_VERSION_HEX >= 0x030D0300
        "eager_start",
#endif
        NULL,
    };
    Loop *loop = (Loop *)op;
    PyObject *values[4] = {NULL, NULL, NULL, NULL};
    PyObject *factory = SHARED_LOAD(loop->task_factory);    /* only compared */
    bool eager_factory = factory != NULL && factory == tasks_state(loop->state)->tasks.eager_task_factory;
    if ((factory != NULL && !eager_factory) || loop_base_replaced(loop, LOOP_BIT(create_task))
        || GLOBAL_REPLACED(loop->state, TASKS_TASK)) {
        /* Asyncio's own method does what this version does. */
        return overrides_call_base(loop, loop->state->names.create_task, args, nargs, kwnames);
    }
    if (loop_check_closed(loop) < 0
        || args_unpack("create_task", args, nargs, kwnames, names, 1, 1, values) < 0) {
        return NULL;
    }
    PyObject *name = values[1] == Py_None ? NULL : values[1];
    PyObject *context = values[2] == Py_None ? NULL : values[2];
    int eager = eager_factory;
    if (values[3] != NULL && values[3] != Py_None) {
        eager = PyObject_IsTrue(values[3]);
        if (eager < 0) {
            return NULL;
        }
    }
    /* asyncio.eager_task_factory() was not told the name in earlier releases: the task began without. */
    PyObject *later = eager_factory && Py_Version < 0x030D0300 ? name : NULL;
    PyObject *task = task_new(loop->state, op, values[0], later == NULL ? name : NULL, context, eager);
    if (task != NULL && later != NULL) {
        PyObject *result = PyObject_CallMethodOneArg(task, loop->state->names.set_name, later);
        if (result == NULL) {
            Py_CLEAR(task);
        }
        Py_XDECREF(result);
    }
    return task;
}
