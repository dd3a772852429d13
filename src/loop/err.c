/* err.c - where an exception goes that nobody waits for: the loop's exception handler,
 * or out of run_forever(). */
#include "loop/loop.h"

void
loop_propagate_from(Loop *loop, struct run *run)
{
    if (!PyErr_Occurred()) {
        return;
    }
    if (run == NULL || run->exception != NULL) {
        PyErr_WriteUnraisable((PyObject *)loop);
        return;
    }
    run->exception = PyErr_GetRaisedException();
}

void
loop_propagate(Loop *loop)
{
    loop_propagate_from(loop, loop->run);
}

void
handling_begin(_PyErr_StackItem *level, PyObject *exc)
{
    PyThreadState *thread = PyThreadState_Get();
    *level = (_PyErr_StackItem){exc == Py_None ? NULL : Py_XNewRef(exc), thread->exc_info};
    thread->exc_info = level;
}

void
handling_end(_PyErr_StackItem *level)
{
    PyThreadState_Get()->exc_info = level->previous_item;
    Py_XDECREF(level->exc_value);
}

int
loop_call_exception_handler(Loop *loop, PyObject *context)
{
    _PyErr_StackItem level;
    handling_begin(&level, PyDict_GetItemWithError(context, loop->state->names.exception));
    PyObject *result = PyObject_CallMethodOneArg(
        (PyObject *)loop, loop->state->names.call_exception_handler, context);
    handling_end(&level);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

void
loop_report(Loop *loop, const char *message, const char *key, PyObject *value)
{
    if (is_exit_exception()) {
        loop_propagate(loop);
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *context = Py_BuildValue("{s:s,s:O}", "message", message, "exception",
                                      exc == NULL ? Py_None : exc);
    Py_XDECREF(exc);
    if (context == NULL
        || (key != NULL && value != NULL && PyDict_SetItemString(context, key, value) < 0)) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
    else if (loop_call_exception_handler(loop, context) < 0) {
        loop_propagate(loop);
    }
    Py_XDECREF(context);
}

/* A program's slow_callback_duration is no number: 1, 0, -1. */
static int
is_slow(Loop *loop, double duration)
{
    PyObject *limit = PyObject_GetAttrString((PyObject *)loop, "slow_callback_duration");
    PyObject *seconds = limit == NULL ? NULL : PyFloat_FromDouble(duration);
    int slow = seconds == NULL ? -1 : PyObject_RichCompareBool(seconds, limit, Py_GE);
    Py_XDECREF(seconds);
    Py_XDECREF(limit);
    return slow;
}

void
loop_warn_slow(Loop *loop, PyObject *item, double started)
{
    double duration = loop_time(loop) - started;
    if (!(duration >= loop->slow_callback_duration)) {    /* NaN: never */
        return;
    }
    int slow = loop->slow_callback_duration == SLOW_COMPARES ? is_slow(loop, duration) : 1;
    if (UNLIKELY(slow <= 0)) {
        if (slow < 0) {
            loop_propagate(loop);
        }
        return;
    }
    bool is_handle = Py_IS_TYPE(item, loop_state(loop->state)->types.Handle)
                     || Py_IS_TYPE(item, loop_state(loop->state)->types.TimerHandle);
    PyObject *text = is_handle ? PyObject_CallOneArg(loop_state(loop->state)->loops.format_handle, item)
                               : PyObject_Repr(item);
    PyObject *seconds = PyFloat_FromDouble(duration);
    PyObject *logger = PyObject_GetAttrString(loop_state(loop->state)->loops.base_events, "logger");
    PyObject *result = text == NULL || seconds == NULL || logger == NULL
                           ? NULL
                           : PyObject_CallMethod(logger, "warning", "sOO",
                                                 "Executing %s took %.3f seconds", text, seconds);
    if (result == NULL) {
        loop_propagate(loop);
    }
    Py_XDECREF(result);
    Py_XDECREF(logger);
    Py_XDECREF(text);
    Py_XDECREF(seconds);
}
