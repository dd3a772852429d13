/* loop_type.c - the methods and attributes of asyncloop._core.Loop: parse, check, forward.
 *
 * asyncloop.Loop derives from this type and from asyncio.BaseEventLoop. Attributes that
 * both sides need (_debug, _closed, _stopping, _thread_id, _task_factory,
 * slow_callback_duration) are ours here, and BaseEventLoop's methods use them. */
#include "loop_type.h"

#include "base/args.h"
#include "loop/activity.h"
#include "loop/clock.h"
#include "loop/current.h"
#include "loop/inbox.h"
#include "loop/overrides.h"
#include "loop/owner.h"
#include "loop/poll.h"
#include "loop/signals.h"
#include "loop/timer.h"
#include "loop/wake.h"
#include "loop/watch.h"
#include "tasks/executor.h"
#include "tasks/future.h"
#include "tasks/record.h"
#include "tasks/task.h"
#include "tasks/trace.h"
#include "net/hold.h"
#include "net/transport.h"
#include "tls/tls.h"
#include "ops/look_up.h"
#include "ops/ops_loop.h"
#include "ops/resolve.h"
#include "ops/sockop.h"
#include "insides.h"
#include "iteration.h"
#include "life.h"
#include "readers.h"
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>

/* -- scheduling ----------------------------------------------------------------------- */

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

static PyObject *
Loop_call_soon(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Loop *loop = (Loop *)op;
    PyObject *context;
    unsigned int replaced = loop_replaced(loop);
    if (UNLIKELY(replaced & LOOP_BIT(call_soon)) && (loop->overrides.base & LOOP_BIT(call_soon))) {
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
static PyObject *
Loop__call_soon(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3 || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "_call_soon(callback, args, context): args is a tuple");
        return NULL;
    }
    return loop_call_soon((Loop *)op, args[0], &PyTuple_GET_ITEM(args[1], 0),
                          PyTuple_GET_SIZE(args[1]), args[2] == Py_None ? NULL : args[2]);
}

static PyObject *
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
    if (UNLIKELY(kept != NULL)) {
        if (timer != NULL && timer_handle_keep_when(timer, kept) < 0) {
            timer_cancel(timer);
            Py_CLEAR(timer);
        }
        Py_DECREF(kept);
    }
    return (PyObject *)timer;
}

static PyObject *
Loop_call_later(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Loop *loop = (Loop *)op;
    /* asyncio's method calls the others */
    unsigned int replaced = loop_replaced(loop);
    if (UNLIKELY(replaced & (LOOP_BIT(call_at) | LOOP_BIT(time)))
        || UNLIKELY(loop->overrides.base & LOOP_BIT(call_later))
        || UNLIKELY(!loop_timer_handles_are_own(loop)) || GLOBAL_REPLACED(loop->state, TIME_MONOTONIC)) {
        return overrides_call_base(loop, loop->state->names.call_later, args, nargs, kwnames);
    }
    return schedule_timer(loop, "call_later", true, loop_call_later, args, nargs, kwnames);
}

static PyObject *
Loop_call_at(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Loop *loop = (Loop *)op;
    if (loop_base_replaced(loop, LOOP_BIT(call_at))
        || UNLIKELY(!loop_timer_handles_are_own(loop))) {
        return overrides_call_base(loop, loop->state->names.call_at, args, nargs, kwnames);
    }
    return schedule_timer(loop, "call_at", false, loop_call_at, args, nargs, kwnames);
}

static PyObject *
Loop_time(PyObject *op, PyObject *ignored UNUSED)
{
    Loop *loop = (Loop *)op;
    if (loop_base_replaced(loop, LOOP_BIT(time)) || GLOBAL_REPLACED(loop->state, TIME_MONOTONIC)) {
        return overrides_call_base(loop, loop->state->names.time, NULL, 0, NULL);
    }
    return PyFloat_FromDouble(loop_time(loop));
}

static PyObject *
Loop__add_callback(PyObject *op, PyObject *item)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    bool ours = Py_IS_TYPE(item, loop_state(loop->state)->handles.Type)
                || Py_IS_TYPE(item, loop_state(loop->state)->handles.TimerType);
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
        handle_set_place((Handle *)item, HANDLE_SHARED);
    }
    return none_or_error(loop_push_steal(loop, Py_NewRef(item), ours ? READY_HANDLE : READY_FOREIGN));
}

static PyObject *
Loop__timer_handle_cancelled(PyObject *op, PyObject *handle)
{
    /* asyncio counts cancelled timers in order to clean its heap; ours have left at once. */
    insides_timer_cancelled((Loop *)op, handle);
    Py_RETURN_NONE;
}

/* -- futures and tasks --------------------------------------------------------------------- */

static PyObject *
Loop_create_future(PyObject *op, PyObject *ignored UNUSED)
{
    Loop *loop = (Loop *)op;
    if (loop_base_replaced(loop, LOOP_BIT(create_future))
        || GLOBAL_REPLACED(loop->state, FUTURES_FUTURE)) {
        return overrides_call_base(loop, loop->state->names.create_future, NULL, 0, NULL);
    }
    return future_new(loop->state, op);
}

static PyObject *
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
    if (loop_check_closed(loop) < 0) {
        return NULL;
    }
    PyObject *factory = SHARED_LOAD(loop->task_factory);    /* only compared */
    bool eager_factory = factory != NULL && factory == tasks_state(loop->state)->tasks.eager_task_factory;
    if ((factory != NULL && !eager_factory) || loop_base_replaced(loop, LOOP_BIT(create_task))
        || GLOBAL_REPLACED(loop->state, TASKS_TASK)) {
        /* Asyncio's own method does what this version does. */
        return overrides_call_base(loop, loop->state->names.create_task, args, nargs, kwnames);
    }
    if (args_unpack("create_task", args, nargs, kwnames, names, 1, 1, values) < 0) {
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
    return task_new(loop->state, op, values[0], name, context, eager);
}

/* -- descriptors ---------------------------------------------------------------------------- */

/* Of what the user gave: its number (new reference), and whether a transport uses that. NULL with
 * ValueError or RuntimeError. */
static PyObject *
descriptor_for_users(Loop *loop, PyObject *object, bool check_transport)
{
    PyObject *number = args_fileno(object);
    int overflow;
    long fd = number == NULL ? -1 : PyLong_AsLongAndOverflow(number, &overflow);
    if (check_transport && fd >= 0 && fd <= INT_MAX
        && transport_ensure_free(loop, (int)fd, object) < 0) {
        Py_CLEAR(number);
    }
    return number;
}

/* The number that the table knows, of one from descriptor_for_users() (stolen; NULL: an exception is
 * set). An object that was closed meanwhile is found by itself: *closed. -1 with an exception. */
static int
descriptor_known_steal(Loop *loop, PyObject *object, PyObject *number, bool *closed)
{
    int fd = number == NULL ? -1 : args_fd(number);
    *closed = false;
    if (UNLIKELY(fd < 0) && number != NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
        int known = watch_find_fileobj(loop, object);
        if (known >= 0) {
            PyErr_Clear();
            *closed = true;
            fd = known;
        }
    }
    Py_XDECREF(number);
    return fd;
}

/* Of a descriptor that was closed, asyncio can tell the kernel no change: that fails, and takes reader
 * and writer with it. Always -1. */
static int
fail_closed(Loop *loop, int fd)
{
    watch_remove(loop, fd, EV_READ);
    watch_remove(loop, fd, EV_WRITE);
    errno = fcntl(fd, F_GETFD) < 0 ? EBADF : ENOENT;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* add_reader() of an object that is registered and was closed since: the callback alone is changed. */
static int
add_callback_of_closed(Loop *loop, int fd, int event, Handle *handle)
{
    return readers_change(loop, fd, event, (Handle *)Py_NewRef(handle))
               ? 0
               : fail_closed(loop, fd);
}

static PyObject *
add_callback(Loop *loop, const char *function, int event, bool check_transport,
             PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"fd", "callback", NULL};
    PyObject *values[2];
    if (UNLIKELY(nargs < 2 || kwnames != NULL)) {
        if (args_unpack(function, args, nargs, kwnames, names, 2, 2, values) < 0) {
            return NULL;
        }
        args = values;
        nargs = 2;
    }
    PyObject *number = descriptor_for_users(loop, args[0], check_transport);
    bool closed;
    if (number == NULL || loop_check_closed(loop) < 0) {
        Py_XDECREF(number);
        return NULL;
    }
    int fd = descriptor_known_steal(loop, args[0], number, &closed);
    Handle *handle = fd < 0 ? NULL : handle_new(loop, args[1], args + 2, nargs - 2, NULL);
    if (handle == NULL) {
        return NULL;
    }
    int result;
    if (UNLIKELY(closed)) {
        result = add_callback_of_closed(loop, fd, event, handle);
    }
    else {
        result = watch_check_pollable(fd);
        if (result == 0) {
            result = readers_set(loop, fd, event, (Handle *)Py_NewRef(handle), args[0]);
        }
    }
    if (result < 0) {
        Py_CLEAR(handle);
    }
    return (PyObject *)handle;
}

/* The private methods take a transport's own reader or writer away, as asyncio's do: it is not told any
 * more. True if there was one. */
static bool
remove_of_transport(Loop *loop, int fd, int event)
{
    PyObject *transport = watch_fd_transport(loop, fd);
    bool found = false;
    if (transport != NULL && PyObject_TypeCheck(transport, net_state(loop->state)->transports.Type)) {
        Transport *tr = (Transport *)transport;
        struct watch *watch = event == EV_READ ? &tr->read_watch : &tr->write_watch;
        found = watch_is_active(watch) && !watch->lent;    /* who looks after a lent one, knows */
        if (found) {
            watch_abandon(watch);
        }
    }
    Py_XDECREF(transport);
    return found;
}

static PyObject *
remove_callback(Loop *loop, const char *function, int event, bool check_transport,
                PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"fd", NULL};
    PyObject *object;
    bool closed;
    if (args_unpack(function, args, nargs, kwnames, names, 1, 1, &object) < 0) {
        return NULL;
    }
    PyObject *number = descriptor_for_users(loop, object, check_transport);
    if (number == NULL) {
        return NULL;
    }
    if (FLAG(loop->closed)) {
        Py_DECREF(number);
        Py_RETURN_FALSE;
    }
    int fd = descriptor_known_steal(loop, object, number, &closed);
    if (fd < 0) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return NULL;
        }
        PyErr_Clear();    /* asyncio only looks it up */
        Py_RETURN_FALSE;
    }
    if (UNLIKELY(watch_has_both(loop, fd)) && (closed || fcntl(fd, F_GETFD) < 0)) {
        (void)fail_closed(loop, fd);
        return NULL;
    }
    bool found = watch_remove(loop, fd, event) != 0;
    return PyBool_FromLong(found || (!check_transport && remove_of_transport(loop, fd, event)));
}

static PyObject *
none_for(PyObject *result)
{
    if (result == NULL) {
        return NULL;
    }
    Py_DECREF(result);
    Py_RETURN_NONE;
}

/* The private method, where it is somebody else's: asyncio's public one calls it. */
static PyObject *
call_private(Loop *loop, const char *function, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *number = descriptor_for_users(loop, args[0], true);
    PyObject *method = number == NULL ? NULL : PyObject_GetAttrString((PyObject *)loop, function);
    Py_XDECREF(number);
    PyObject *result = method == NULL ? NULL : PyObject_Vectorcall(method, args, (size_t)nargs, NULL);
    Py_XDECREF(method);
    return result;
}

static inline bool
is_overridden(PyObject *loop, unsigned int bit, Py_ssize_t nargs, PyObject *kwnames)
{
    return UNLIKELY((loop_replaced((Loop *)loop) & bit) != 0) && kwnames == NULL && nargs > 0;
}

static PyObject *
Loop_add_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    if (is_overridden(op, LOOP_BIT(_add_reader), nargs, kwnames)) {
        return none_for(call_private((Loop *)op, "_add_reader", args, nargs));
    }
    return none_for(add_callback((Loop *)op, "add_reader", EV_READ, true, args, nargs, kwnames));
}

static PyObject *
Loop_add_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    if (is_overridden(op, LOOP_BIT(_add_writer), nargs, kwnames)) {
        return none_for(call_private((Loop *)op, "_add_writer", args, nargs));
    }
    return none_for(add_callback((Loop *)op, "add_writer", EV_WRITE, true, args, nargs, kwnames));
}

static PyObject *
Loop_remove_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    if (is_overridden(op, LOOP_BIT(_remove_reader), nargs, kwnames)) {
        return call_private((Loop *)op, "_remove_reader", args, nargs);
    }
    return remove_callback((Loop *)op, "remove_reader", EV_READ, true, args, nargs, kwnames);
}

static PyObject *
Loop_remove_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    if (is_overridden(op, LOOP_BIT(_remove_writer), nargs, kwnames)) {
        return call_private((Loop *)op, "_remove_writer", args, nargs);
    }
    return remove_callback((Loop *)op, "remove_writer", EV_WRITE, true, args, nargs, kwnames);
}

static PyObject *
Loop__add_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    return add_callback((Loop *)op, "_add_reader", EV_READ, false, args, nargs, kwnames);
}

static PyObject *
Loop__add_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    return add_callback((Loop *)op, "_add_writer", EV_WRITE, false, args, nargs, kwnames);
}

static PyObject *
Loop__remove_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    return remove_callback((Loop *)op, "_remove_reader", EV_READ, false, args, nargs, kwnames);
}

static PyObject *
Loop__remove_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    return remove_callback((Loop *)op, "_remove_writer", EV_WRITE, false, args, nargs, kwnames);
}

static PyObject *
Loop__ensure_fd_no_transport(PyObject *op, PyObject *object)
{
    OWN_LOOP(op);
    PyObject *number = descriptor_for_users((Loop *)op, object, true);
    if (number == NULL) {
        return NULL;
    }
    Py_DECREF(number);
    Py_RETURN_NONE;
}

/* -- life --------------------------------------------------------------------------------------- */

static PyObject *
Loop__run(PyObject *op, PyObject *ignored UNUSED)
{
    return none_or_error(loop_run((Loop *)op));
}

static PyObject *
Loop__run_turn(PyObject *op, PyObject *ignored UNUSED)
{
    return none_or_error(loop_turn((Loop *)op));
}

static PyObject *
Loop__enter_nested(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    loop_enter_nested((Loop *)op);
    Py_RETURN_NONE;
}

static PyObject *
Loop__leave_nested(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    return none_or_error(loop_leave_nested((Loop *)op));
}

static PyObject *
Loop__close(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    loop_close((Loop *)op);
    Py_RETURN_NONE;
}

static PyObject *
Loop__signal_fd(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    int fd = signals_fd((Loop *)op);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

static PyObject *
Loop__write_to_self(PyObject *op, PyObject *ignored UNUSED)
{
    loop_wake((Loop *)op);
    Py_RETURN_NONE;
}

static PyObject *
Loop_stop(PyObject *op, PyObject *ignored UNUSED)
{
    SET_FLAG(((Loop *)op)->stopping, true);
    Py_RETURN_NONE;
}

static PyObject *
Loop_is_running(PyObject *op, PyObject *ignored UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Loop *)op)->thread_id) != 0);
}

static PyObject *
Loop_is_closed(PyObject *op, PyObject *ignored UNUSED)
{
    Loop *loop = (Loop *)op;
    return PyBool_FromLong(FLAG(loop->closed) || SHARED_LOAD(loop->ev) == NULL);
}

static PyObject *
Loop__check_closed(PyObject *op, PyObject *ignored UNUSED)
{
    return none_or_error(loop_check_closed((Loop *)op));
}

static PyObject *
Loop__check_thread(PyObject *op, PyObject *ignored UNUSED)
{
    return none_or_error(loop_check_thread((Loop *)op));
}

static PyObject *
Loop_get_debug(PyObject *op, PyObject *ignored UNUSED)
{
    return PyBool_FromLong(FLAG(((Loop *)op)->debug));
}

/* -- attributes ------------------------------------------------------------------------------------- */

#define BOOL_ATTRIBUTE(field)                                              \
    static PyObject *                                                      \
    Loop_get__##field(PyObject *op, void *closure UNUSED)                  \
    {                                                                      \
        return PyBool_FromLong(FLAG(((Loop *)op)->field));          \
    }                                                                      \
    static int                                                             \
    Loop_set__##field(PyObject *op, PyObject *value, void *closure UNUSED) \
    {                                                                      \
        int truth = value == NULL ? 0 : PyObject_IsTrue(value);            \
        if (truth < 0) {                                                   \
            return -1;                                                     \
        }                                                                  \
        SET_FLAG(((Loop *)op)->field, truth);                              \
        if (offsetof(Loop, field) == offsetof(Loop, debug)) {              \
            loop_update_careful((Loop *)op);                               \
        }                                                                  \
        return 0;                                                          \
    }
BOOL_ATTRIBUTE(closed)
BOOL_ATTRIBUTE(stopping)
BOOL_ATTRIBUTE(debug)
BOOL_ATTRIBUTE(looked_at)
#undef BOOL_ATTRIBUTE

/* True or False, nothing that is only true: -1 with TypeError. */
static int
plain_bool(PyObject *value, const char *name)
{
    if (value == NULL || PyBool_Check(value)) {
        return value == Py_True;
    }
    PyErr_Format(PyExc_TypeError, "%s has to be True or False, not %R", name, value);
    return -1;
}

static PyObject *
Loop_get_strong_tasks(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Loop *)op)->strong_tasks));
}

static int
Loop_set_strong_tasks(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int truth = plain_bool(value, "strong_tasks");
    return truth < 0 ? -1 : record_set_strong((Loop *)op, truth);
}

static PyObject *
Loop_get_task_accounting(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Loop *)op)->task_accounting));
}

static int
Loop_set_task_accounting(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int truth = plain_bool(value, "task_accounting");
    if (truth < 0 || record_set_accounting((Loop *)op, truth) < 0) {
        return -1;
    }
    loop_update_careful((Loop *)op);
    return 0;
}

static PyObject *
Loop_get__visible_tasks(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Loop *)op)->visible_tasks));
}

static int
Loop_set__visible_tasks(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int truth = plain_bool(value, "_visible_tasks");
    return truth < 0 ? -1 : record_set_visible((Loop *)op, truth);
}

static PyObject *
Loop__task_records(PyObject *op, PyObject *ignored UNUSED)
{
    return record_list((Loop *)op);
}

static PyObject *
Loop_get__thread_id(PyObject *op, void *closure UNUSED)
{
    unsigned long thread_id = SHARED_LOAD(((Loop *)op)->thread_id);
    if (thread_id == 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLong(thread_id);
}

static int
Loop_set__thread_id(PyObject *op, PyObject *value, void *closure UNUSED)
{
    unsigned long thread_id = 0;
    if (value != NULL && value != Py_None) {
        thread_id = PyLong_AsUnsignedLong(value);
        if (thread_id == (unsigned long)-1 && PyErr_Occurred()) {
            return -1;
        }
    }
    SHARED_STORE(((Loop *)op)->thread_id, thread_id);
    return 0;
}

static PyObject *
Loop_get__task_factory(PyObject *op, void *closure UNUSED)
{
    PyObject *factory;
    GUARD(op);
    factory = ((Loop *)op)->task_factory;
    factory = Py_NewRef(factory != NULL ? factory : Py_None);
    return factory;
}

static int
Loop_set__task_factory(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Loop *loop = (Loop *)op;
    PyObject *old;
    {
        GUARD(op);
        old = loop->task_factory;
        SHARED_STORE(loop->task_factory, value == Py_None ? NULL : Py_XNewRef(value));
    }
    Py_XDECREF(old);
    return 0;
}

static PyObject *
Loop_get_slow_callback_duration(PyObject *op, void *closure UNUSED)
{
    PyObject *number;
    {
        GUARD(op);
        number = Py_XNewRef(((Loop *)op)->slow_callback_number);
    }
    return number != NULL ? number : PyFloat_FromDouble(((Loop *)op)->slow_callback_duration);
}

/* What is within the resolution of the clock, which is one of our nanoseconds, is no difference. */
static PyObject *
Loop_get_clock_resolution(PyObject *op, void *closure UNUSED)
{
    return PyFloat_FromDouble(((Loop *)op)->resolution);
}

static int
Loop_set_clock_resolution(PyObject *op, PyObject *value, void *closure UNUSED)
{
    double seconds = value == NULL ? 1e-9 : PyFloat_AsDouble(value);
    if (seconds == -1. && PyErr_Occurred()) {
        return -1;
    }
    ((Loop *)op)->resolution = seconds;
    ((Loop *)op)->resolution_ns = seconds <= 1e-9 ? 0 : seconds > 1e8 ? (int64_t)1e17
                                                                      : timer_deadline(seconds);
    return 0;
}

static int
Loop_set_slow_callback_duration(PyObject *op, PyObject *value, void *closure UNUSED)
{
    double seconds = value == NULL ? 0.1 : PyFloat_AsDouble(value);
    if (seconds == -1. && PyErr_Occurred()) {
        return -1;
    }
    PyObject *old;
    {
        GUARD(op);
        old = ((Loop *)op)->slow_callback_number;
        ((Loop *)op)->slow_callback_number =
            value == NULL || PyFloat_CheckExact(value) ? NULL : Py_NewRef(value);
        ((Loop *)op)->slow_callback_duration = seconds;
    }
    Py_XDECREF(old);
    return 0;
}

static PyObject *
Loop_get_turn_budget(PyObject *op, void *closure UNUSED)
{
    int64_t ns = SHARED_LOAD(((Loop *)op)->turn_budget_ns);
    if (ns == 0) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble((double)ns / 1e9);
}

static int
Loop_set_turn_budget(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Loop *loop = (Loop *)op;
    int64_t ns = 0;
    if (value != NULL && value != Py_None) {
        bool is_number = PyNumber_Check(value) && !PyBool_Check(value) && !PyComplex_Check(value);
        double seconds = is_number ? PyFloat_AsDouble(value) : -1.;
        if (seconds == -1. && PyErr_Occurred()) {
            if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
                return -1;
            }
            PyErr_Clear();
        }
        if (!(seconds > 0. && seconds < 1e9)) {
            PyErr_Format(PyExc_ValueError,
                         "turn_budget has to be a finite number of seconds > 0, or None, not %R",
                         value);
            return -1;
        }
        ns = seconds < 1e-9 ? 1 : (int64_t)(seconds * 1e9);
    }
    SHARED_STORE(loop->turn_budget_ns, ns);
    SET_FLAG(loop->turns_change, true);
    return 0;
}

static PyObject *
Loop_get__current_handle(PyObject *op, void *closure UNUSED)
{
    PyObject *handle;
    GUARD(op);
    handle = ((Loop *)op)->current_handle;
    handle = Py_NewRef(handle != NULL ? handle : Py_None);
    return handle;
}

static int
Loop_set__current_handle(PyObject *op, PyObject *value, void *closure UNUSED)
{
    loop_set_current_handle_steal((Loop *)op, value == Py_None ? NULL : Py_XNewRef(value));
    return 0;
}

/* What is put on the instance has to be called: see overrides.h; an iteration and its parts as well. */
static int
Loop_setattro(PyObject *op, PyObject *name, PyObject *value)
{
    if (PyObject_GenericSetAttr(op, name, value) < 0) {
        return -1;
    }
    overrides_attribute_set((Loop *)op, name);
    if (!PyUnicode_Check(name)) {
        return 0;
    }
    if (PyUnicode_CompareWithASCIIString(name, "_run_once") == 0) {
        SET_FLAG(((Loop *)op)->turns_change, true);
    }
    else if (PyUnicode_CompareWithASCIIString(name, "_process_events") == 0) {
        SET_FLAG(((Loop *)op)->looked_at, true);
    }
    return 0;
}

static PyObject *
Loop__instance_dict(PyObject *op, PyObject *ignored UNUSED)
{
    return overrides_expose_dict((Loop *)op);
}

static PyObject *
Loop__has_own(PyObject *op, PyObject *name)
{
    PyObject *dict = PyObject_GenericGetDict(op, NULL);
    int found = dict == NULL ? -1 : PyDict_Contains(dict, name);
    Py_XDECREF(dict);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

static PyObject *
Loop__set_instance_dict(PyObject *op, PyObject *dict)
{
    if (PyObject_GenericSetDict(op, dict, NULL) < 0) {
        return NULL;
    }
    PyObject *exposed = overrides_expose_dict((Loop *)op);
    Py_XDECREF(exposed);
    return none_or_error(exposed == NULL ? -1 : 0);
}

/* -- the type ------------------------------------------------------------------------------------------ */

static PyObject *
Loop_new(PyTypeObject *type, PyObject *args UNUSED, PyObject *kwargs UNUSED)
{
    struct state *state = state_of_type(type);
    Loop *loop = state == NULL ? NULL : (Loop *)type->tp_alloc(type, 0);
    if (loop == NULL) {
        return NULL;
    }
    loop->state = state;
    loop->timer_fd = -1;
    list_init(&loop->all_loops);
    list_init(&tls_loop(loop)->pending);
    owed_init(&loop->owed);
    list_init(&loop->fds.active);
    list_init(&loop->fds.noted);
    list_init(&loop->fds.lent);
    list_init(&ops_loop(loop)->waiting_operations);
    inbox_init(loop);
    loop->activity = activity_new(loop_state(state)->loops.activities);
    if (loop->activity == NULL) {
        Py_DECREF(loop);
        return PyErr_NoMemory();
    }
    loop->counters = loop->activity->counters;
    if (loop_state(state)->loops.usual == NULL && type->tp_base == loop_state(state)->loops.Type) {
        /* Never a program's own subclass: the class would live for good, with all that hangs on
         * it, like the cells of a method that is defined in a function. */
        loop_state(state)->loops.usual = (PyTypeObject *)Py_NewRef(type);
    }
    loop->slow_callback_duration = 0.1;
    loop->resolution = 1e-9;
    overrides_forget(loop);
    if (ready_init(&loop->ready) < 0) {
        Py_DECREF(loop);
        return NULL;
    }
    return (PyObject *)loop;
}

static int
Loop_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) > 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)) {
        PyErr_SetString(PyExc_TypeError, "Loop() takes no arguments");
        return -1;
    }
    return loop_open((Loop *)op);
}

static int
Loop_traverse(PyObject *op, visitproc visit, void *arg)
{
    Loop *loop = (Loop *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(loop->task_factory);
    Py_VISIT(loop->records);
    Py_VISIT(loop->places);
    Py_VISIT(loop->slow_callback_number);
    Py_VISIT(loop->current_handle);
#if PY_VERSION_HEX < 0x030C0000
    Py_VISIT(loop->overrides.exposed);
#endif
    int result = ready_traverse(&loop->ready, visit, arg);
    if (result == 0) {
        result = ready_traverse(&loop->deferred, visit, arg);
    }
    if (result == 0) {
        result = timer_traverse(loop, visit, arg);
    }
    if (result == 0) {
        result = inbox_traverse(loop, visit, arg);
    }
    if (result == 0) {
        result = owed_traverse(&loop->owed, visit, arg);
    }
    if (result == 0) {
        result = look_ups_traverse(loop, visit, arg);
    }
    if (result == 0) {
        result = watch_traverse(loop, visit, arg);
    }
    return result != 0 ? result : readers_traverse(loop, visit, arg);
}

static int
Loop_clear(PyObject *op)
{
    Loop *loop = (Loop *)op;
    if (loop->run == NULL) {
        loop_close(loop);
    }
    Py_CLEAR(loop->task_factory);
    Py_CLEAR(loop->records);
    Py_CLEAR(loop->places);
    Py_CLEAR(loop->slow_callback_number);
    Py_CLEAR(loop->current_handle);
#if PY_VERSION_HEX < 0x030C0000
    Py_CLEAR(loop->overrides.exposed);
#endif
    return 0;
}

static void
Loop_dealloc(PyObject *op)
{
    Loop *loop = (Loop *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Loop_clear(op);
    loop_free_buffers(loop);    /* an Operation goes on after close(), too */
    inbox_free(loop);
    current_forget_loop(loop);
    ready_free(&loop->ready);
    ready_free(&loop->deferred);
    watch_free(loop);
    pthread_cond_destroy(&loop->inbox.released);
    pthread_mutex_destroy(&loop->inbox.lock);
    activity_free(loop->activity);
    type->tp_free(op);
    Py_DECREF(type);
}

#define FASTCALL(name) (PyCFunction)(void (*)(void))(name)

#if PY_VERSION_HEX >= 0x030D0300
#define CREATE_TASK_KEYWORDS "**kwargs"
#else
#define CREATE_TASK_KEYWORDS "*, name=None, context=None"
#endif

static PyMethodDef Loop_methods[] = {
    {"call_soon", FASTCALL(Loop_call_soon), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("call_soon($self, callback, *args, context=None)\n--\n\n"
               "Schedules callback(*args) for the next iteration of the loop, in order of calls.\n\n"
               "It runs in `context`, a copy of the current one by default. Returns a Handle.\n"
               "RuntimeError if the loop is closed. Follows asyncio.loop.call_soon.")},
    {"call_soon_threadsafe", FASTCALL(Loop_call_soon_threadsafe), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
               "call_soon() from any thread or signal handler: wakes the loop. Returns a Handle.\n"
               "RuntimeError if the loop is closed.")},
    {"call_later", FASTCALL(Loop_call_later), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("call_later($self, delay, callback, *args, context=None)\n--\n\n"
               "Schedules callback(*args) after `delay` seconds, never earlier.\n\n"
               "Returns a TimerHandle. RuntimeError if the loop is closed. Follows\n"
               "asyncio.loop.call_later.")},
    {"call_at", FASTCALL(Loop_call_at), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("call_at($self, when, callback, *args, context=None)\n--\n\n"
               "Schedules callback(*args) for the moment `when`, in seconds of time().\n\n"
               "Returns a TimerHandle. RuntimeError if the loop is closed. Follows\n"
               "asyncio.loop.call_at.")},
    {"time", Loop_time, METH_NOARGS,
     PyDoc_STR("time($self, /)\n--\n\nThe monotonic clock of the loop, in seconds.")},
    {"create_future", Loop_create_future, METH_NOARGS,
     PyDoc_STR("create_future($self, /)\n--\n\nA new Future of this loop.")},
    {"create_task", FASTCALL(Loop_create_task), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("create_task($self, coro, " CREATE_TASK_KEYWORDS ")\n--\n\n"
               "A new Task that runs the coroutine on this loop.\n\n"
               "Keywords as the running Python has them: name, context, and eager_start.\n"
               "TypeError for what is no coroutine, RuntimeError if the loop is closed.\n"
               "Follows asyncio.loop.create_task.")},
    {"add_reader", FASTCALL(Loop_add_reader), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("add_reader($self, fd, callback, *args)\n--\n\n"
               "Calls callback(*args) whenever the descriptor is readable, instead of an earlier\n"
               "reader of it. `fd` is a number or has fileno(); its blocking mode stays as it is.\n\n"
               "ValueError for what is no descriptor, OSError for one that is closed, RuntimeError\n"
               "if a transport uses it or the loop is closed.")},
    {"add_writer", FASTCALL(Loop_add_writer), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("add_writer($self, fd, callback, *args)\n--\n\n"
               "Calls callback(*args) whenever the descriptor is writable; otherwise as\n"
               "add_reader().")},
    {"remove_reader", FASTCALL(Loop_remove_reader), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("remove_reader($self, fd)\n--\n\n"
               "Ends add_reader(); True if there was a reader. ValueError for what is no\n"
               "descriptor, RuntimeError if a transport uses it.")},
    {"remove_writer", FASTCALL(Loop_remove_writer), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("remove_writer($self, fd)\n--\n\n"
               "Ends add_writer(); True if there was a writer. Otherwise as remove_reader().")},
    {"stop", Loop_stop, METH_NOARGS,
     PyDoc_STR("stop($self, /)\n--\n\nEnds run_forever() after the current iteration.")},
    {"is_running", Loop_is_running, METH_NOARGS,
     PyDoc_STR("is_running($self, /)\n--\n\nTrue inside run_forever().")},
    {"is_closed", Loop_is_closed, METH_NOARGS,
     PyDoc_STR("is_closed($self, /)\n--\n\nTrue after close().")},
    {"get_debug", Loop_get_debug, METH_NOARGS,
     PyDoc_STR("get_debug($self, /)\n--\n\nTrue in debug mode.")},
    SOCKOP_METHODS,
    RESOLVE_METHODS,
    EXECUTOR_METHODS,
    {"_add_callback", Loop__add_callback, METH_O, NULL},
    {"_add_reader", FASTCALL(Loop__add_reader), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_add_writer", FASTCALL(Loop__add_writer), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_remove_reader", FASTCALL(Loop__remove_reader), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_remove_writer", FASTCALL(Loop__remove_writer), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_ensure_fd_no_transport", Loop__ensure_fd_no_transport, METH_O, NULL},
    {"_timer_handle_cancelled", Loop__timer_handle_cancelled, METH_O, NULL},
    {"_call_soon", (PyCFunction)(void (*)(void))Loop__call_soon, METH_FASTCALL, NULL},
    {"_check_closed", Loop__check_closed, METH_NOARGS, NULL},
    {"_has_own", Loop__has_own, METH_O, NULL},
    {"_instance_dict", Loop__instance_dict, METH_NOARGS, NULL},
    {"_set_instance_dict", Loop__set_instance_dict, METH_O, NULL},
    {"_check_thread", Loop__check_thread, METH_NOARGS, NULL},
    {"_run", Loop__run, METH_NOARGS, NULL},
    {"_run_turn", Loop__run_turn, METH_NOARGS, NULL},
    {"_task_records", Loop__task_records, METH_NOARGS, NULL},
    {"_enter_nested", Loop__enter_nested, METH_NOARGS, NULL},
    {"_leave_nested", Loop__leave_nested, METH_NOARGS, NULL},
    INSIDES_METHODS,
    STATS_METHODS,
    {"_trace_begin", Loop__trace_begin, METH_NOARGS, NULL},
    {"_trace_end", Loop__trace_end, METH_NOARGS, NULL},
    {"_close", Loop__close, METH_NOARGS, NULL},
    {"_signal_fd", Loop__signal_fd, METH_NOARGS, NULL},
    {"_write_to_self", Loop__write_to_self, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Loop_getset[] = {
    {"_closed", Loop_get__closed, Loop_set__closed, NULL, NULL},
    {"_stopping", Loop_get__stopping, Loop_set__stopping, NULL, NULL},
    {"_looked_at", Loop_get__looked_at, Loop_set__looked_at, NULL, NULL},
    {"_visible_tasks", Loop_get__visible_tasks, Loop_set__visible_tasks, NULL, NULL},
    {"_debug", Loop_get__debug, Loop_set__debug, NULL, NULL},
    {"_thread_id", Loop_get__thread_id, Loop_set__thread_id, NULL, NULL},
    {"_task_factory", Loop_get__task_factory, Loop_set__task_factory, NULL, NULL},
    {"_current_handle", Loop_get__current_handle, Loop_set__current_handle, NULL, NULL},
    {"strong_tasks", Loop_get_strong_tasks, Loop_set_strong_tasks,
     PyDoc_STR("Whether each Task that is made from now on is held until it is done; False, as it is by\n"
               "default: the collector may take it, as with asyncio. TypeError if it is no bool."),
     NULL},
    {"task_accounting", Loop_get_task_accounting, Loop_set_task_accounting,
     PyDoc_STR("Whether it is written down what each Task costs that is made from now on, for\n"
               "asyncloop.task_stats(); False by default. TypeError if it is no bool."),
     NULL},
    {"turn_budget", Loop_get_turn_budget, Loop_set_turn_budget,
     PyDoc_STR("Seconds after which what is ready waits for a look at the kernel and the timers, in the\n"
               "middle of a turn; None, as it is by default: a turn ends first. ValueError for anything\n"
               "else than a finite number above zero."),
     NULL},
    {"_clock_resolution", Loop_get_clock_resolution, Loop_set_clock_resolution, NULL, NULL},
    {"slow_callback_duration", Loop_get_slow_callback_duration, Loop_set_slow_callback_duration,
     "Seconds after which debug mode warns of a callback.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Loop_slots[] = {
    {Py_tp_doc, "Loop()\n--\n\n"
                "The core of asyncloop.Loop: scheduling, timers, descriptors, over libev."},
    {Py_tp_new, Loop_new},
    {Py_tp_init, Loop_init},
    {Py_tp_dealloc, Loop_dealloc},
    {Py_tp_traverse, Loop_traverse},
    {Py_tp_clear, Loop_clear},
    {Py_tp_setattro, Loop_setattro},
    {Py_tp_methods, Loop_methods},
    {Py_tp_getset, Loop_getset},
    {0, NULL},
};

static PyType_Spec Loop_spec = {
    .name = "asyncloop._core.Loop",
    .basicsize = sizeof(struct ops_loop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Loop_slots,
};

/* -- finding a loop by its number ----------------------------------------------------------- */

PyObject *
loop_by_number(PyObject *module, PyObject *number)
{
    struct state *state = PyModule_GetState(module);
    unsigned long long wanted = PyLong_AsUnsignedLongLong(number);
    PyObject *found = NULL;
    if (wanted == (unsigned long long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    state_lock_lists(state);
    for (struct list_node *node = loop_state(state)->loops.all.next; node != &loop_state(state)->loops.all; node = node->next) {
        Loop *loop = container_of(node, Loop, all_loops);
        if (loop->activity->number == wanted && SHARED_LOAD(loop->run) != NULL) {
            found = Py_NewRef((PyObject *)loop);    /* its run holds it */
            break;
        }
    }
    state_unlock_lists(state);
    return found == NULL ? Py_NewRef(Py_None) : found;
}

/* A reference to each in a list: a run holds its loop. */
static PyObject *
running_loops_list(struct state *state)
{
    PyObject *list = PyList_New(0);
    state_lock_lists(state);
    for (struct list_node *node = loop_state(state)->loops.all.next; list != NULL && node != &loop_state(state)->loops.all;
         node = node->next) {
        Loop *loop = container_of(node, Loop, all_loops);
        if (SHARED_LOAD(loop->run) != NULL && PyList_Append(list, (PyObject *)loop) < 0) {
            Py_CLEAR(list);
        }
    }
    state_unlock_lists(state);
    return list;
}

PyObject *
running_loops(PyObject *module, PyObject *ignored UNUSED)
{
    PyObject *list = running_loops_list(PyModule_GetState(module));
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        Loop *loop = (Loop *)PyList_GET_ITEM(list, i);
        PyObject *entry = Py_BuildValue("(KkO)", (unsigned long long)loop->activity->number,
                                        activity_thread(loop->activity), loop);
        if (entry == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SetItem(list, i, entry);
        }
    }
    return list;
}

/* -- fork ---------------------------------------------------------------------------------------------- */

/* Called in the child of each os.fork(): its loops get a kernel side of their own before
 * they are used again, and no descriptor is touched until then. */
static PyObject *
after_fork_in_child(PyObject *module, PyObject *ignored UNUSED)
{
    struct state *state = PyModule_GetState(module);
#ifdef Py_GIL_DISABLED
    /* A thread that is gone may have held it. */
    pthread_mutex_init(&loop_state(state)->loops.lock, NULL);
#endif
    activities_forked(loop_state(state)->loops.activities);
    for (struct list_node *node = loop_state(state)->loops.all.next; node != &loop_state(state)->loops.all; node = node->next) {
        Loop *loop = container_of(node, Loop, all_loops);
        inbox_forked(loop);
        look_ups_forked(loop);
        loop_forget_unpushed(loop);
        loop->forked = true;
        if (loop->run != NULL && loop->run->thread != 0
            && loop->run->thread != PyThread_get_thread_ident()) {
            loop->run = NULL;    /* of a thread that the child does not have */
            activity_forked(loop->activity);
        }
        tls_forked(loop);
    }
    transports_forked(state);
    Py_RETURN_NONE;
}

static PyMethodDef after_fork_def = {"_after_fork_in_child", after_fork_in_child, METH_NOARGS,
                                     NULL};

static int
register_fork_hook(PyObject *module)
{
    int result = -1;
    PyObject *os = PyImport_ImportModule("os");
    PyObject *hook = os == NULL ? NULL : PyCFunction_New(&after_fork_def, module);
    PyObject *function = hook == NULL ? NULL : PyObject_GetAttrString(os, "register_at_fork");
    PyObject *kwargs = function == NULL ? NULL : Py_BuildValue("{s:O}", "after_in_child", hook);
    PyObject *value = kwargs == NULL
                          ? NULL
                          : PyObject_VectorcallDict(function, NULL, 0, kwargs);
    if (value != NULL) {
        result = 0;
    }
    Py_XDECREF(value);
    Py_XDECREF(kwargs);
    Py_XDECREF(function);
    Py_XDECREF(hook);
    Py_XDECREF(os);
    return result;
}

int
loop_type_init(PyObject *module, struct state *state)
{
    if (state_add_type(module, &Loop_spec, NULL, 0, &loop_state(state)->loops.Type) < 0) {
        return -1;
    }
    return register_fork_hook(module);
}
