/* handle_run.c - handles run.
 *
 * The callback and its arguments are copied to the C stack, with references of its
 * own, before they are called: the call itself may cancel the handle. */
#include "loop/handle_inside.h"

#include "base/checked.h"
#include "loop/loop.h"
#include "loop/wake.h"

/* -- an exception ------------------------------------------------------------------ */

/* 0, or -1 with what the exception handler has raised. */
static int
handle_report(Handle *handle, Loop *loop, PyObject *exc)
{
    int result = 0;
    struct state *state = loop->state;
    PyObject *context = NULL, *source = NULL, *message = NULL;
    _PyErr_StackItem level;
    handling_begin(&level, exc);
    PyObject *args = PyObject_GetAttrString((PyObject *)handle, "_args");
    if (args == NULL || args == Py_None) {
        PyErr_Clear();
        Py_XSETREF(args, Py_NewRef(state->empty_tuple));
    }
    /* as it is now: a handle that was cancelled in its own call has none any more */
    PyObject *callback = PyObject_GetAttrString((PyObject *)handle, "_callback");
    if (callback == NULL) {
        PyErr_Clear();
        callback = Py_NewRef(Py_None);
    }
#if PY_VERSION_HEX >= 0x030D0000
    /* arguments may be secrets: only debug mode tells them */
    PyObject *stack[] = {callback, args, FLAG(loop->debug) ? Py_True : Py_False};
    source = PyObject_Vectorcall(loop_state(state)->handles.format_callback_source, stack, 2, state->keywords.debug);
#else
    source = PyObject_CallFunctionObjArgs(loop_state(state)->handles.format_callback_source, callback, args, NULL);
#endif
    if (source == NULL && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        result = -1;    /* a repr() has raised: that leaves the loop, as asyncio's */
        goto done;
    }
    if (source == NULL) {
        PyErr_Clear();
        source = PyUnicode_FromFormat("<%s>", Py_TYPE(callback)->tp_name);
    }
    message = source == NULL ? NULL : PyUnicode_FromFormat("Exception in callback %U", source);
    context = message == NULL ? NULL : PyDict_New();
    if (context == NULL
        || PyDict_SetItem(context, state->names.message, message) < 0
        || PyDict_SetItem(context, state->names.exception, exc) < 0
        || PyDict_SetItem(context, state->names.handle, (PyObject *)handle) < 0
        || (handle_source_traceback(handle) != NULL
            && PyDict_SetItem(context, state->names.source_traceback, handle_source_traceback(handle)) < 0)) {
        PyErr_WriteUnraisable((PyObject *)handle);
    }
    else {
        result = loop_call_exception_handler(loop, context);
    }
done:;
    PyObject *leaving = PyErr_GetRaisedException();
    handling_end(&level);
    Py_XDECREF(args);
    Py_DECREF(callback);
    Py_XDECREF(source);
    Py_XDECREF(message);
    Py_XDECREF(context);
    PyErr_SetRaisedException(leaving);
    return result;
}

void
handle_call_failed_steal(Loop *loop, Handle *handle)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (handle_report(handle, loop, exc) < 0) {
        loop_propagate(loop);
    }
    handle_left(handle);    /* whoever keeps the report keeps it */
    Py_DECREF(handle);
    Py_DECREF(exc);
}

void
handle_call_failed(Loop *loop, PyObject *callback, PyObject *arg)
{
    PyObject *exc = PyErr_GetRaisedException();
    Handle *handle = handle_new(loop, callback, &arg, arg != NULL, NULL);
    PyErr_SetRaisedException(exc);    /* in place of the MemoryError, too */
    if (handle == NULL) {
        PyErr_WriteUnraisable(callback);
        return;
    }
    handle_call_failed_steal(loop, handle);
}

/* The callback raised: 0 when the exception handler has it, -1 when it leaves the loop. */
static int
handle_failed(Handle *handle, Loop *loop)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int result = 0;
    if (exc != NULL) {
        result = handle_report(handle, loop, exc);
        PyObject *leaving = PyErr_GetRaisedException();
        Py_DECREF(exc);
        PyErr_SetRaisedException(leaving);
    }
    return result < 0 || (loop->run != NULL && loop->run->exception != NULL) ? -1 : 0;
}

/* -- the call ------------------------------------------------------------------------ */

/* Calls it with the arguments that are held in `call`. New reference or NULL. */
static inline PyObject *
call_make(struct call *call)
{
    if (LIKELY(call->nargs != HANDLE_ARGS_TUPLE)) {
        return PyObject_Vectorcall(call->callback, call->args,
                                   (size_t)call->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    return PyObject_Call(call->callback, call->args[0], NULL);
}

/* A context that is not contextvars' own: asyncio asks for no more than a method run(). */
static PyObject *
call_make_in_foreign_context(struct call *call)
{
    PyObject *args = args_as_tuple(call->args, call->nargs);
    PyObject *first = args == NULL ? NULL : PyTuple_Pack(1, call->callback);
    PyObject *all = first == NULL ? NULL : PySequence_Concat(first, args);
    PyObject *run = all == NULL ? NULL : PyObject_GetAttrString(call->context, "run");
    PyObject *value = run == NULL ? NULL : PyObject_Call(run, all, NULL);
    Py_XDECREF(run);
    Py_XDECREF(all);
    Py_XDECREF(first);
    Py_XDECREF(args);
    return value;
}

/* The result of the callback, called in its context, or NULL. */
static inline PyObject *
call_make_in_context(struct call *call)
{
    PyObject *value = NULL;
    if (UNLIKELY(!PyContext_CheckExact(call->context))) {
        value = call_make_in_foreign_context(call);
    }
    else if (LIKELY(PyContext_Enter(call->context) == 0)) {
        value = call_make(call);
        PyObject *exc = LIKELY(value != NULL) ? NULL : PyErr_GetRaisedException();
        if (UNLIKELY(PyContext_Exit(call->context) < 0)) {
            Py_CLEAR(value);
        }
        if (UNLIKELY(exc != NULL)) {
            PyErr_SetRaisedException(exc);
        }
    }
    return value;
}

/* With what it calls held in `call`. */
static int
handle_run_native(Loop *loop, struct call *call)
{
    int result = CHECKED_STATUS(call->native(call->callback, call->nargs > 0 ? call->args[0] : NULL));
    if (result < 0 && PyErr_Occurred()) {
        if (!is_exit_exception()) {
            loop_report(loop, "Exception in a callback of the event loop", NULL, NULL);
            result = 0;
        }
    }
    else {
        result = 0;
    }
    return result;
}

/* -- a run ---------------------------------------------------------------------------- */

/* Holds what the handle calls, in its critical section. False: there is nothing to call, it was
 * cancelled. */
static inline bool
handle_hold_call(Handle *handle, struct call *call)
{
    handle_copy_call(handle, call);
    if (UNLIKELY(call->callback == NULL || handle->cancelled)) {
        return false;
    }
    Py_INCREF(call->callback);
    Py_XINCREF(call->context);
    for (unsigned i = 0, slots = call_slots(call->nargs); i < slots; i++) {
        call->args[i] = Py_NewRef(handle->args[i]);
    }
    if (UNLIKELY(handle->threadsafe)) {
        __atomic_store_n(&handle->runner, this_thread(), __ATOMIC_SEQ_CST);
    }
    return true;
}

/* Nobody else can look at the handle, so what it calls need not stay in it meanwhile. */
static inline bool
handle_is_ours_alone(Handle *handle)
{
    return Py_REFCNT(handle) == 1 && SHARED_LOAD(handle->weakrefs) == NULL;
}

/* Takes the call out of the handle or holds it, as *alone says. False: there is none. */
static inline bool
handle_begin(Handle *handle, struct call *call, bool *alone)
{
    *alone = handle_is_ours_alone(handle);
    if (LIKELY(*alone)) {
        if (UNLIKELY(handle->cancelled)) {
            return false;
        }
        handle_take_call(handle, call);
        return true;
    }
    GUARD(handle);
    return handle_hold_call(handle, call);
}

/* The callback raised: the report names what the handle calls. */
static int
handle_failed_alone(Handle *handle, Loop *loop, struct call *call)
{
    handle->callback = Py_NewRef(call->callback);
    handle->nargs = call->nargs;
    for (unsigned i = 0, slots = call_slots(call->nargs); i < slots; i++) {
        handle->args[i] = Py_NewRef(call->args[i]);
    }
    int result = handle_failed(handle, loop);
    PyObject *leaving = PyErr_GetRaisedException();
    handle_left(handle);    /* whoever keeps the report keeps it */
    PyErr_SetRaisedException(leaving);
    return result;
}

int
handle_run(Handle *handle)
{
    struct call call;
    bool alone;
    if (UNLIKELY(!handle_begin(handle, &call, &alone))) {
        handle_left(handle);
        return 0;    /* it was cancelled */
    }
    Loop *loop = handle->loop;
    int result = 0;
    if (call.native != NULL) {
        result = handle_run_native(loop, &call);
    }
    else {
        PyObject *value = call_make_in_context(&call);
        if (LIKELY(value != NULL)) {
            Py_DECREF(value);
        }
        else {
            result = alone ? handle_failed_alone(handle, loop, &call)
                           : handle_failed(handle, loop);
        }
    }
    if (UNLIKELY(handle->threadsafe)) {
        __atomic_store_n(&handle->runner, 0, __ATOMIC_SEQ_CST);
        wake_tell_waiters(loop);
    }
    call_release(&call);
    if (UNLIKELY(!alone)) {
        Py_XDECREF(call.context);
        handle_left(handle);
    }
    return result;
}

/* -- waiting for the end of one that another thread runs ---------------------------------- */

void
handle_wait(Handle *handle)
{
    if (UNLIKELY(handle_runs_elsewhere(handle))) {
        wake_wait_while(handle->loop, &handle->runner);
    }
}
