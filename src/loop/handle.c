/* handle.c - handles are made, cancelled and dropped.
 *
 * Owns: what a handle calls, until it is cancelled. What few keep lies apart, made when there is something
 *       to keep. */
#include "loop/handle_inside.h"

#include "base/checked.h"
#include "base/freelist.h"
#include "loop/loop.h"

#include <string.h>

/* -- what few handles keep --------------------------------------------------------- */

/* Two arguments go into a tuple, so that there is a place. 0, or -1 without memory, with no exception. */
static int
handle_make_place(Handle *handle)
{
    if (call_slots(handle->nargs) < 2) {
        return 0;
    }
    PyObject *tuple = PyTuple_New(2);    /* may collect garbage, and so cancel the call */
    if (tuple == NULL) {
        PyErr_Clear();
        return -1;
    }
    if (UNLIKELY(call_slots(handle->nargs) < 2)) {
        Py_DECREF(tuple);
        return 0;
    }
    PyTuple_SET_ITEM(tuple, 0, handle->args[0]);
    PyTuple_SET_ITEM(tuple, 1, handle->args[1]);
    handle->args[0] = tuple;
    handle->args[1] = NULL;
    handle->nargs = HANDLE_ARGS_TUPLE;
    return 0;
}

/* NULL without memory, with no exception. */
static struct handle_extra *
handle_make_extra(Handle *handle)
{
    if (!handle->has_extra && handle_make_place(handle) == 0 && !handle->has_extra) {
        handle->args[1] = PyMem_Calloc(1, sizeof(struct handle_extra));
        handle->has_extra = handle->args[1] != NULL;
    }
    return handle_extra(handle);
}

void
handle_free_extra(Handle *handle)
{
    struct handle_extra *extra = handle_extra(handle);
    handle->has_extra = false;
    handle->args[1] = NULL;
    Py_XDECREF(extra->source_traceback);
    Py_XDECREF(extra->repr);
    Py_XDECREF(extra->when);
    Py_XDECREF(extra->public);
    PyMem_Free(extra);
}

int
handle_keep_extra(Handle *handle, size_t field, PyObject *value)
{
    PyObject *old = NULL;
    bool failed;
    {
        GUARD(handle);
        struct handle_extra *extra = value == NULL ? handle_extra(handle) : handle_make_extra(handle);
        failed = extra == NULL && value != NULL;
        if (extra != NULL) {
            PyObject **place = (PyObject **)(void *)((char *)extra + field);
            old = *place;
            *place = Py_XNewRef(value);
        }
    }
    Py_XDECREF(old);
    if (failed) {
        PyErr_NoMemory();
    }
    return failed ? -1 : 0;
}

int
timer_handle_keep_when(TimerHandle *timer, PyObject *when)
{
    return handle_keep_extra(&timer->handle, HANDLE_EXTRA(when), when);
}

int
handle_trim_source_traceback(Handle *handle, long own)
{
    PyObject *frames = handle_source_traceback(handle);
    PyObject *depth = frames == NULL ? NULL
                                     : PyObject_GetAttrString(loop_state(handle_state(handle))->handles.constants,
                                                              "DEBUG_STACK_DEPTH");
    long limit = depth == NULL ? -1 : PyLong_AsLong(depth);
    Py_XDECREF(depth);
    if (PyErr_Occurred()) {
        return -1;
    }
    long more = frames == NULL || !PyList_Check(frames) ? 0 : (long)PyList_GET_SIZE(frames) - Py_MAX(limit - own, 0);
    return more > 0 ? PyList_SetSlice(frames, 0, more, NULL) : 0;
}

static int
handle_set_source_traceback(Handle *handle)
{
    struct state *state = handle->loop->state;
    if (handle_make_extra(handle) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *frame = PyObject_CallNoArgs(loop_state(state)->handles.sys_getframe);
    if (frame == NULL) {
        /* no Python frame: called by an embedding program */
        PyErr_Clear();
        return 0;
    }
    handle_extra(handle)->source_traceback = PyObject_CallOneArg(loop_state(state)->handles.extract_stack, frame);
    Py_DECREF(frame);
    return handle_source_traceback(handle) == NULL ? -1 : handle_trim_source_traceback(handle, 2);
}

void
handle_keep_repr(Handle *handle)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *repr = PyObject_Repr((PyObject *)handle);
    if (repr == NULL || handle_keep_extra(handle, HANDLE_EXTRA(repr), repr) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(repr);
    PyErr_SetRaisedException(exc);
}

/* -- making ---------------------------------------------------------------------- */

static int
handle_set_args(Handle *handle, PyObject *const *args, Py_ssize_t nargs)
{
    if (LIKELY(nargs <= HANDLE_INLINE_ARGS)) {
        for (Py_ssize_t i = 0; i < nargs; i++) {
            handle->args[i] = Py_NewRef(args[i]);
        }
    }
    else {
        PyObject *tuple = PyTuple_New(nargs);
        if (tuple == NULL) {
            return -1;
        }
        for (Py_ssize_t i = 0; i < nargs; i++) {
            PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
        }
        handle->args[0] = tuple;
        nargs = HANDLE_ARGS_TUPLE;
    }
    handle->nargs = (uint8_t)nargs;
    return 0;
}

static inline int
handle_init(Handle *handle, Loop *loop, PyObject *callback, PyObject *const *args,
            Py_ssize_t nargs, PyObject *context)
{
    handle->callback = Py_NewRef(callback);
    handle->how.context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (handle->how.context == NULL || handle_set_args(handle, args, nargs) < 0) {
        return -1;
    }
    return UNLIKELY(FLAG(loop->debug)) ? handle_set_source_traceback(handle) : 0;
}

static void
handle_init_native(Handle *handle, native_callback run, PyObject *owner, PyObject *arg)
{
    handle->is_native = true;
    handle->how.native = run;
    handle->callback = Py_NewRef(owner);
    handle->args[0] = Py_XNewRef(arg);
    handle->nargs = arg != NULL;
}

/* Memory of a Handle or TimerHandle with nothing in it but its loop. */
static inline Handle *
handle_alloc_type(Loop *loop, struct freelist *list, PyTypeObject *type)
{
    Handle *handle = (Handle *)freelist_take_untracked(list, type);
    if (LIKELY(handle != NULL)) {
        size_t head = offsetof(Handle, loop);
        memset((char *)handle + head, 0, sizeof(Handle) - head);
        handle->loop = (Loop *)Py_NewRef(loop);
    }
    return handle;
}

static inline Handle *
handle_alloc(Loop *loop)
{
    struct state *state = loop->state;
    return handle_alloc_type(loop, &loop_state(state)->handles.free, loop_state(state)->types.Handle);
}

static inline TimerHandle *
timer_handle_alloc(Loop *loop)
{
    struct state *state = loop->state;
    return (TimerHandle *)handle_alloc_type(loop, &loop_state(state)->handles.free_timers,
                                            loop_state(state)->types.TimerHandle);
}

Handle *
handle_new(Loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
           PyObject *context)
{
    Handle *handle = handle_alloc(loop);
    if (handle != NULL && handle_init(handle, loop, callback, args, nargs, context) < 0) {
        Py_CLEAR(handle);
    }
    return handle;
}

Handle *
handle_new_native(Loop *loop, native_callback run, PyObject *owner, PyObject *arg)
{
    Handle *handle = handle_alloc(loop);
    if (handle != NULL) {
        handle_init_native(handle, run, owner, arg);
    }
    return handle;
}

TimerHandle *
timer_handle_new(Loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *context)
{
    TimerHandle *timer = timer_handle_alloc(loop);
    if (timer != NULL && handle_init(&timer->handle, loop, callback, args, nargs, context) < 0) {
        Py_CLEAR(timer);
    }
    return timer;
}

TimerHandle *
timer_handle_new_native(Loop *loop, native_callback run, PyObject *owner, PyObject *arg)
{
    TimerHandle *timer = timer_handle_alloc(loop);
    if (timer != NULL) {
        handle_init_native(&timer->handle, run, owner, arg);
    }
    return timer;
}

bool
handle_check(struct state *state, PyObject *op)
{
    return Py_IS_TYPE(op, loop_state(state)->types.Handle) || Py_IS_TYPE(op, loop_state(state)->types.TimerHandle);
}

/* -- leaving its place --------------------------------------------------------------- */

void
handle_track(Handle *handle)
{
    GUARD(handle);
    if (!handle->tracked) {
        handle->tracked = true;
        PyObject_GC_Track(handle);
    }
}

void
handle_discard(Handle *handle)
{
    struct call call;
    {
        GUARD(handle);
        handle_take_call(handle, &call);
    }
    call_release(&call);
}

void
handle_drop_steal(Handle *handle)
{
    if (UNLIKELY(handle->loop->collected)) {
        handle_discard(handle);
    }
    handle_left(handle);
    Py_DECREF(handle);
}

/* -- cancelling ------------------------------------------------------------------ */

void
handle_cancel_telling(Handle *handle)
{
    handle_keep_repr(handle);
    handle_discard(handle);
}

bool
handle_try_cancel(Handle *handle)
{
    struct cancel cancel = {.left = CANCEL_DONE};
    bool busy;
    {
        GUARD(handle);
        busy = handle_runs_elsewhere(handle);
        if (!busy) {
            handle_begin_cancel(handle, &cancel);
        }
    }
    handle_end_cancel(handle, &cancel);
    return !busy;
}

void
handle_cancel(Handle *handle)
{
    struct cancel cancel;
    {
        GUARD(handle);
        handle_begin_cancel(handle, &cancel);
    }
    handle_end_cancel(handle, &cancel);
}

int
handle_traverse_inside(Handle *handle, visitproc visit, void *arg)
{
    Py_VISIT(handle->loop);
    Py_VISIT(handle->callback);
    Py_VISIT(handle_context(handle));
    for (unsigned i = 0; i < call_slots(handle->nargs); i++) {
        Py_VISIT(handle->args[i]);
    }
    if (handle->has_extra) {
        Py_VISIT(handle_extra(handle)->source_traceback);
        Py_VISIT(handle_extra(handle)->public);
    }
    return 0;
}

int
handle_traverse(Handle *handle, bool watched, visitproc visit, void *arg)
{
    if (handle->tracked) {
        Py_VISIT(handle);
        return 0;
    }
    return handle->watched == watched ? handle_traverse_inside(handle, visit, arg) : 0;
}

bool
handle_runs_elsewhere(const Handle *handle)
{
    if (LIKELY(!handle->threadsafe)) {
        return false;
    }
    uint32_t runner = __atomic_load_n(&handle->runner, __ATOMIC_SEQ_CST);
    return runner != 0 && runner != this_thread();
}

#ifdef ASYNCLOOP_DEBUG
/* Of one that waits in the ring, the heap or the table of descriptors. */
void
handle_verify(Handle *handle)
{
    GUARD(handle);
    bool holds = handle->callback != NULL;
    VERIFY(handle->nargs <= HANDLE_ARGS_TUPLE);
    VERIFY(!holds || verify_lives(handle->callback));
    VERIFY(handle->loop != NULL);
    VERIFY(holds || handle->cancelled);
    VERIFY(handle->how.context != NULL);
    VERIFY(holds || handle->nargs == 0);
    for (unsigned i = 0; i < call_slots(handle->nargs); i++) {
        VERIFY(verify_lives(handle->args[i]));
    }
    VERIFY(handle->nargs != HANDLE_ARGS_TUPLE || PyTuple_CheckExact(handle->args[0]));
    VERIFY(!handle->has_extra || (call_slots(handle->nargs) < 2 && handle_extra(handle) != NULL));
}
#endif
