/* handle.c - Handle and TimerHandle.
 *
 * The callback and its arguments are copied to the C stack, with references of its
 * own, before they are called: the call itself may cancel the handle. */
#include "handle.h"

#include <string.h>

#include "freelist.h"
#include "inbox.h"
#include "loop.h"
#include "timer.h"

/* -- making and dropping ------------------------------------------------------- */

/* What a handle calls, taken out of it or held beside it. `args` is the end of an array whose
 * first slot is the callee's to use (PY_VECTORCALL_ARGUMENTS_OFFSET). */
struct call {
    PyObject *callback;
    PyObject *context;
    PyObject *scratch;
    PyObject *args[HANDLE_INLINE_ARGS];
    unsigned nargs;
    native_callback native;    /* or NULL */
};

/* Borrowed, or NULL. */
static inline PyObject *
handle_context(const Handle *handle)
{
    return handle->is_native ? NULL : handle->how.context;
}

static inline void
handle_copy_call(const Handle *handle, struct call *call)
{
    call->callback = handle->callback;
    call->context = handle_context(handle);
    call->native = handle->is_native ? handle->how.native : NULL;
    call->nargs = handle->nargs;
}

static inline unsigned
call_slots(unsigned nargs)
{
    return nargs == HANDLE_ARGS_TUPLE ? 1 : nargs;
}

static inline void
handle_take_call(Handle *handle, struct call *call)
{
    handle_copy_call(handle, call);
    for (unsigned i = 0, slots = call_slots(call->nargs); i < slots; i++) {
        call->args[i] = handle->args[i];
        handle->args[i] = NULL;
    }
    SHARED_STORE(handle->callback, NULL);
    handle->how.context = NULL;
    handle->nargs = 0;
}

static inline void
call_release(struct call *call)
{
    Py_XDECREF(call->callback);
    for (unsigned i = 0, slots = call_slots(call->nargs); i < slots; i++) {
        Py_XDECREF(call->args[i]);
    }
    Py_XDECREF(call->context);
}

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

/* NULL without memory, with no exception. */
static struct handle_debug *
handle_debug(Handle *handle)
{
    if (handle->debug == NULL) {
        handle->debug = PyMem_Calloc(1, sizeof(struct handle_debug));
    }
    return handle->debug;
}

static void
handle_free_debug(Handle *handle)
{
    struct handle_debug *debug = handle->debug;
    if (debug != NULL) {
        handle->debug = NULL;
        Py_XDECREF(debug->source_traceback);
        Py_XDECREF(debug->repr);
        PyMem_Free(debug);
    }
}

/* Borrowed, or NULL. */
static inline PyObject *
handle_source_traceback(const Handle *handle)
{
    return handle->debug == NULL ? NULL : handle->debug->source_traceback;
}

static inline PyObject *
handle_kept_repr(const Handle *handle)
{
    return handle->debug == NULL ? NULL : handle->debug->repr;
}

static int
handle_set_source_traceback(Handle *handle)
{
    struct state *state = handle->loop->state;
    if (handle_debug(handle) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *frame = PyObject_CallNoArgs(state->sys_getframe);
    if (frame == NULL) {
        /* no Python frame: called by an embedding program */
        PyErr_Clear();
        return 0;
    }
    handle->debug->source_traceback = PyObject_CallOneArg(state->extract_stack, frame);
    Py_DECREF(frame);
    return handle->debug->source_traceback == NULL ? -1 : 0;
}

static int
handle_init(Handle *handle, Loop *loop, PyObject *callback, PyObject *const *args,
            Py_ssize_t nargs, PyObject *context)
{
    handle->callback = Py_NewRef(callback);
    handle->how.context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (handle->how.context == NULL || handle_set_args(handle, args, nargs) < 0) {
        return -1;
    }
    return UNLIKELY(loop->debug) ? handle_set_source_traceback(handle) : 0;
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
    Handle *handle = (Handle *)freelist_take_plain(list, type);
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
    return handle_alloc_type(loop, &state->free_handles, state->HandleType);
}

static inline TimerHandle *
timer_handle_alloc(Loop *loop)
{
    struct state *state = loop->state;
    Handle *handle = handle_alloc_type(loop, &state->free_timer_handles, state->TimerHandleType);
    if (LIKELY(handle != NULL)) {
        ((TimerHandle *)handle)->heap_index = TIMER_NOT_WAITING;
    }
    return (TimerHandle *)handle;
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

/* Also of a handle that has let its loop go. */
static inline struct state *
handle_state(const Handle *handle)
{
#ifndef Py_GIL_DISABLED    /* another thread may make it do so just now */
    if (LIKELY(handle->loop != NULL)) {
        return handle->loop->state;
    }
#endif
    return PyType_GetModuleState(Py_TYPE(handle));
}

void
handle_let_loop_go(Handle *handle)
{
    Loop *loop = NULL;
    Py_BEGIN_CRITICAL_SECTION(handle);
    if (handle->place == HANDLE_ONCE && handle->callback == NULL && handle->lookers == 0
        && SHARED_LOAD(handle->runner) == 0) {
        loop = handle->loop;
        handle->loop = NULL;
    }
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(loop);
}

static const char *
handle_name(Handle *handle)
{
    return Py_IS_TYPE(handle, handle_state(handle)->TimerHandleType) ? "TimerHandle"
           : handle->threadsafe ? "_ThreadSafeHandle" : "Handle";
}

/* In debug mode: what the handle is called when it holds its callback no more. */
static void
handle_keep_repr(Handle *handle)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *repr, *kept;
    Py_BEGIN_CRITICAL_SECTION(handle);
    kept = Py_XNewRef(handle_kept_repr(handle));
    Py_END_CRITICAL_SECTION();
    if (kept == NULL) {
        repr = PyObject_Repr((PyObject *)handle);
    }
    else {
        /* it has run, and was cancelled after that */
        Py_ssize_t length = PyUnicode_GET_LENGTH(kept);
        Py_ssize_t space = PyUnicode_FindChar(kept, ' ', 0, length, 1);
        PyObject *rest = PyUnicode_Substring(kept, space < 0 ? length : space, length);
        repr = rest == NULL ? NULL : PyUnicode_FromFormat("<%s cancelled%U",
                                                          handle_name(handle), rest);
        Py_XDECREF(rest);
        Py_DECREF(kept);
    }
    if (repr == NULL) {
        PyErr_Clear();
    }
    else {
        Py_BEGIN_CRITICAL_SECTION(handle);
        struct handle_debug *debug = handle_debug(handle);
        kept = debug == NULL ? repr : debug->repr;
        if (debug != NULL) {
            debug->repr = repr;
        }
        Py_END_CRITICAL_SECTION();
        Py_XDECREF(kept);
    }
    PyErr_SetRaisedException(exc);
}

static inline void
handle_drop_cancelled(Handle *handle)
{
    bool tells;
    Py_BEGIN_CRITICAL_SECTION(handle);
    tells = handle->loop != NULL ? SHARED_LOAD(handle->loop->debug)
                                 : handle_kept_repr(handle) != NULL;
    Py_END_CRITICAL_SECTION();
    if (UNLIKELY(tells && !handle->is_native)) {
        /* As asyncio: what was cancelled can still be told from its repr. */
        handle_keep_repr(handle);
    }
    handle_discard(handle);
}

#ifdef Py_GIL_DISABLED
static bool handle_runs_elsewhere(const Handle *handle);

/* What is cancelled is marked first, and dropped a moment later. */
#define IS_CANCELLED_MEANWHILE(handle) (handle)->cancelled

/* False: another thread runs it just now. */
static bool
handle_try_cancel(Handle *handle)
{
    bool busy, cancelled;
    Py_BEGIN_CRITICAL_SECTION(handle);
    busy = handle_runs_elsewhere(handle);
    cancelled = handle->cancelled;
    if (!busy) {
        SHARED_STORE(handle->cancelled, true);
    }
    Py_END_CRITICAL_SECTION();
    if (!busy && !cancelled) {
        handle_drop_cancelled(handle);
    }
    return !busy;
}
#else
#define IS_CANCELLED_MEANWHILE(handle) false

static inline bool
handle_try_cancel(Handle *handle)
{
    handle_cancel(handle);
    return true;
}
#endif

void
handle_cancel(Handle *handle)
{
    bool cancelled;
    Py_BEGIN_CRITICAL_SECTION(handle);
    cancelled = handle->cancelled;
    SHARED_STORE(handle->cancelled, true);
    Py_END_CRITICAL_SECTION();
    if (!cancelled) {
        handle_drop_cancelled(handle);
    }
}

void
handle_discard(Handle *handle)
{
    struct call call;
    Py_BEGIN_CRITICAL_SECTION(handle);
    handle_take_call(handle, &call);
    Py_END_CRITICAL_SECTION();
    call_release(&call);
}

int
handle_traverse(Handle *handle, enum handle_place place, visitproc visit, void *arg)
{
    if (handle->place != place) {
        return 0;
    }
    Py_VISIT(handle->loop);
    Py_VISIT(handle->callback);
    Py_VISIT(handle_context(handle));
    for (int i = 0; i < HANDLE_INLINE_ARGS; i++) {
        Py_VISIT(handle->args[i]);
    }
    Py_VISIT(handle_source_traceback(handle));
    return 0;
}

/* -- running ---------------------------------------------------------------------- */

static void
handle_report(Handle *handle, Loop *loop, PyObject *callback, PyObject *exc)
{
    struct state *state = loop->state;
    PyObject *context = NULL, *source = NULL, *message = NULL;
    PyObject *args = PyObject_GetAttrString((PyObject *)handle, "_args");
    if (args == NULL || args == Py_None) {
        PyErr_Clear();
        Py_XSETREF(args, Py_NewRef(state->empty_tuple));
    }
#if PY_VERSION_HEX >= 0x030D0000
    /* arguments may be secrets: only debug mode tells them */
    PyObject *stack[] = {callback, args, loop->debug ? Py_True : Py_False};
    source = PyObject_Vectorcall(state->format_callback_source, stack, 2, state->keywords_debug);
#else
    source = PyObject_CallFunctionObjArgs(state->format_callback_source, callback, args, NULL);
#endif
    if (source == NULL) {
        PyErr_Clear();    /* a failing repr must not hide the exception itself */
        source = PyUnicode_FromFormat("<%s>", Py_TYPE(callback)->tp_name);
    }
    message = source == NULL ? NULL : PyUnicode_FromFormat("Exception in callback %U", source);
    context = message == NULL ? NULL : PyDict_New();
    if (context == NULL
        || PyDict_SetItem(context, state->names.message, message) < 0
        || PyDict_SetItem(context, state->names.exception, exc) < 0
        || PyDict_SetItem(context, state->names.handle, (PyObject *)handle) < 0
        || (handle_source_traceback(handle) != NULL
            && PyDict_SetItem(context, state->names.source_traceback,
                              handle_source_traceback(handle)) < 0)) {
        goto done;
    }
    loop_call_exception_handler(loop, context);
done:
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable((PyObject *)handle);
    }
    Py_XDECREF(args);
    Py_XDECREF(source);
    Py_XDECREF(message);
    Py_XDECREF(context);
}

/* The callback raised: 0 when the exception handler has it, -1 when it leaves the loop. */
static int
handle_failed(Handle *handle, Loop *loop, PyObject *callback, PyObject *context)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (exc != NULL) {
        Py_BEGIN_CRITICAL_SECTION(handle);
        if (handle->how.context == NULL) {
            /* cancelled by its own callback: the exception handler still runs in the context */
            handle->how.context = Py_NewRef(context);
        }
        Py_END_CRITICAL_SECTION();
        handle_report(handle, loop, callback, exc);
        Py_BEGIN_CRITICAL_SECTION(handle);
        if (handle->cancelled) {
            Py_CLEAR(handle->how.context);
        }
        Py_END_CRITICAL_SECTION();
        Py_DECREF(exc);
    }
    return loop->run != NULL && loop->run->exception != NULL ? -1 : 0;
}

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

/* A tuple of the arguments that are kept so (new reference), or NULL. */
static PyObject *
args_as_tuple(PyObject *const *args, unsigned nargs)
{
    if (nargs == HANDLE_ARGS_TUPLE) {
        return Py_NewRef(args[0]);
    }
    PyObject *tuple = PyTuple_New(nargs);
    for (unsigned i = 0; tuple != NULL && i < nargs; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    }
    return tuple;
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
    int result = call->native(call->callback, call->nargs > 0 ? call->args[0] : NULL);
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

void
handle_finished(Handle *handle)
{
    if (handle->place != HANDLE_ONCE) {
        return;
    }
    if (Py_REFCNT(handle) > 1 && !handle->is_native
        && SHARED_LOAD(handle->callback) != NULL) {
        handle_keep_repr(handle);    /* somebody else has it, and may ask */
    }
    handle_discard(handle);
    handle_let_loop_go(handle);
}

/* In debug mode the loop still wants to name what has run. */
static inline void
handle_ran(Handle *handle, Loop *loop)
{
    if (LIKELY(handle->place == HANDLE_ONCE && !loop->debug)) {
        handle_discard(handle);
        handle_let_loop_go(handle);
    }
}

/* Never 0; no two threads of an interpreter that live have the same. */
static inline uint32_t
this_thread(void)
{
    return (uint32_t)PyThreadState_GetID(PyThreadState_Get());
}

/* Holds what the handle calls, in its critical section. False: there is nothing to call, it was
 * cancelled or has run. */
static inline bool
handle_hold_call(Handle *handle, struct call *call, Loop **loop)
{
    handle_copy_call(handle, call);
    if (UNLIKELY(call->callback == NULL || IS_CANCELLED_MEANWHILE(handle))) {
        return false;
    }
    Py_INCREF(call->callback);
    Py_XINCREF(call->context);
    for (unsigned i = 0, slots = call_slots(call->nargs); i < slots; i++) {
        call->args[i] = Py_NewRef(handle->args[i]);
    }
    /* The callback may close it, or cancel the handle, which lets it go then. */
    *loop = (Loop *)Py_NewRef(handle->loop);
    if (UNLIKELY(handle->threadsafe)) {
        __atomic_store_n(&handle->runner, this_thread(), __ATOMIC_SEQ_CST);
    }
    return true;
}

/* Nobody else can look at the handle, so what it calls need not stay in it meanwhile. */
static inline bool
handle_is_ours_alone(Handle *handle)
{
    return Py_REFCNT(handle) == 1 && handle->weakrefs == NULL && handle->place == HANDLE_ONCE;
}

/* Takes the call out of the handle or holds it, and the loop with it, as *alone says. False:
 * there is none. */
static inline bool
handle_begin(Handle *handle, struct call *call, Loop **loop, bool *alone)
{
    *alone = handle_is_ours_alone(handle);
    if (LIKELY(*alone)) {
        *loop = handle->loop;
        handle_take_call(handle, call);
        return call->callback != NULL;
    }
    bool held;
    Py_BEGIN_CRITICAL_SECTION(handle);
    held = handle_hold_call(handle, call, loop);
    Py_END_CRITICAL_SECTION();
    return held;
}

/* The callback raised: the report names what the handle calls. */
static int
handle_failed_alone(Handle *handle, Loop *loop, struct call *call)
{
    handle->callback = Py_NewRef(call->callback);
    handle->how.context = Py_NewRef(call->context);
    handle->nargs = call->nargs;
    for (unsigned i = 0, slots = call_slots(call->nargs); i < slots; i++) {
        handle->args[i] = Py_NewRef(call->args[i]);
    }
    return handle_failed(handle, loop, call->callback, call->context);
}

int
handle_run(Handle *handle)
{
    struct call call;
    Loop *loop;
    bool alone;
    if (UNLIKELY(!handle_begin(handle, &call, &loop, &alone))) {
        handle_let_loop_go(handle);
        return 0;    /* it was cancelled, or has run */
    }
    int result = 0;
    bool was_alone = alone;
    if (call.native != NULL) {
        result = handle_run_native(loop, &call);
    }
    else {
        PyObject *value = call_make_in_context(&call);
        if (LIKELY(value != NULL)) {
            Py_DECREF(value);
        }
        else if (alone) {
            result = handle_failed_alone(handle, loop, &call);
            alone = false;
        }
        else {
            result = handle_failed(handle, loop, call.callback, call.context);
        }
    }
    if (UNLIKELY(handle->threadsafe)) {
        __atomic_store_n(&handle->runner, 0, __ATOMIC_SEQ_CST);
        inbox_tell_waiters(loop);
    }
    call_release(&call);
    if (UNLIKELY(!alone)) {
        handle_ran(handle, loop);
    }
    if (UNLIKELY(!was_alone)) {
        Py_DECREF(loop);
    }
    return result;
}

/* asyncio's handles of call_soon_threadsafe() have, from 3.14 on, a lock: another thread
 * that cancels one, or asks whether it is cancelled, waits for the end of a callback that
 * has begun, whichever thread runs it. Here it waits to be told. */
static bool
handle_runs_elsewhere(const Handle *handle)
{
    if (LIKELY(!handle->threadsafe)) {
        return false;
    }
    uint32_t runner = __atomic_load_n(&handle->runner, __ATOMIC_SEQ_CST);
    return runner != 0 && runner != this_thread();
}

static void
handle_wait(Handle *handle)
{
    if (UNLIKELY(handle_runs_elsewhere(handle))) {
        Loop *loop;
        Py_BEGIN_CRITICAL_SECTION(handle);
        loop = (Loop *)Py_XNewRef(handle->loop);    /* it lets it go when it has run */
        Py_END_CRITICAL_SECTION();
        if (loop != NULL) {
            inbox_wait_while(loop, &handle->runner);
            Py_DECREF(loop);
        }
    }
}

/* -- the types ------------------------------------------------------------------------ */

static void
handle_dealloc(PyObject *op, struct freelist *(*freelist_of)(struct state *))
{
    Handle *self = (Handle *)op;
    PyTypeObject *type = Py_TYPE(op);
    struct state *state = handle_state(self);
    Loop *loop = self->loop;
    if (UNLIKELY(self->weakrefs != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
    handle_discard(self);
    handle_free_debug(self);
    if (!freelist_keep_plain(freelist_of(state), op)) {
        type->tp_free(op);
    }
    Py_XDECREF(loop);
    Py_DECREF(type);
}

static struct freelist *
free_handles_of(struct state *state)
{
    return &state->free_handles;
}

static struct freelist *
free_timer_handles_of(struct state *state)
{
    return &state->free_timer_handles;
}

static void
Handle_dealloc(PyObject *op)
{
    handle_dealloc(op, free_handles_of);
}

static void
TimerHandle_dealloc(PyObject *op)
{
    handle_dealloc(op, free_timer_handles_of);
}

static PyObject *
Handle_cancel(PyObject *op, PyObject *ignored UNUSED)
{
    Handle *handle = (Handle *)op;
    handle_wait(handle);
    while (!handle_try_cancel(handle)) {
        handle_wait(handle);    /* it began in between */
    }
    Py_RETURN_NONE;
}

static PyObject *
TimerHandle_cancel(PyObject *op, PyObject *ignored UNUSED)
{
    timer_cancel((TimerHandle *)op);
    Py_RETURN_NONE;
}

static PyObject *
Handle_cancelled(PyObject *op, PyObject *ignored UNUSED)
{
    handle_wait((Handle *)op);
    return PyBool_FromLong(SHARED_LOAD(((Handle *)op)->cancelled));
}

static PyObject *
Handle_get_context(PyObject *op, PyObject *ignored UNUSED)
{
    PyObject *context;
    Py_BEGIN_CRITICAL_SECTION(op);
    context = handle_context((Handle *)op);
    context = Py_NewRef(context != NULL ? context : Py_None);
    Py_END_CRITICAL_SECTION();
    return context;
}

static PyObject *
Handle__run(PyObject *op, PyObject *ignored UNUSED)
{
    Py_INCREF(op);
    int result = handle_run((Handle *)op);
    Py_DECREF(op);
    if (result < 0 && PyErr_Occurred()) {    /* else the run has it already: loop_propagate() */
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
TimerHandle_when(PyObject *op, PyObject *ignored UNUSED)
{
    return PyFloat_FromDouble(((TimerHandle *)op)->when);
}

/* New reference: the arguments, or None once there is nothing to call. */
static PyObject *
handle_args(const Handle *self)
{
    if (self->callback == NULL) {
        Py_RETURN_NONE;
    }
    return args_as_tuple(self->args, self->nargs);
}

static PyObject *
Handle_get__args(PyObject *op, void *closure UNUSED)
{
    PyObject *args;
    Py_BEGIN_CRITICAL_SECTION(op);
    args = handle_args((const Handle *)op);
    Py_END_CRITICAL_SECTION();
    return args;
}

static PyObject *
Handle_get__scheduled(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((TimerHandle *)op)->heap_index) != TIMER_NOT_WAITING);
}

static PyObject *
Handle_get___class__(PyObject *op, void *closure UNUSED)
{
    Handle *self = (Handle *)op;
    struct state *state = handle_state(self);
    return Py_NewRef(self->threadsafe ? state->asyncio_ThreadSafeHandle : state->asyncio_Handle);
}

static PyObject *
TimerHandle_get___class__(PyObject *op, void *closure UNUSED)
{
    return Py_NewRef(handle_state((Handle *)op)->asyncio_TimerHandle);
}

/* -- what asyncio's own classes do for us: texts and comparisons ------------------------ */

static PyObject *
Handle__repr_info(PyObject *op, PyObject *ignored UNUSED)
{
    Handle *self = (Handle *)op;
    bool has_call, looking;
    /* asyncio's method asks for the callback, and if there is one for the loop. */
    Py_BEGIN_CRITICAL_SECTION(op);
    has_call = self->callback != NULL;
    looking = self->lookers < HANDLE_LOOKERS_MAX;
    self->lookers += looking;
    Py_END_CRITICAL_SECTION();
    PyObject *class = PyObject_GetAttr(op, handle_state(self)->names.__class__);
    PyObject *result =
        class == NULL ? NULL : PyObject_CallMethod(class, "_repr_info", "O", op);
    Py_XDECREF(class);
    Py_BEGIN_CRITICAL_SECTION(op);
    self->lookers -= looking;
    has_call = has_call && self->callback == NULL;
    Py_END_CRITICAL_SECTION();
    if (has_call) {
        handle_let_loop_go(self);    /* what ended it meanwhile could not */
    }
    return result;
}

static PyObject *
Handle_repr(PyObject *op)
{
    Handle *self = (Handle *)op;
    PyObject *kept;
    Py_BEGIN_CRITICAL_SECTION(op);
    kept = Py_XNewRef(handle_kept_repr(self));
    Py_END_CRITICAL_SECTION();
    if (kept != NULL) {
        return kept;
    }
    return PyObject_CallMethod(handle_state(self)->asyncio_Handle, "__repr__", "O", op);
}

static PyObject *
TimerHandle_richcompare(PyObject *op, PyObject *other, int operation)
{
    static const char *const methods[] = {
        [Py_LT] = "__lt__", [Py_LE] = "__le__", [Py_EQ] = "__eq__",
        [Py_NE] = "__ne__", [Py_GT] = "__gt__", [Py_GE] = "__ge__",
    };
    return PyObject_CallMethod(handle_state((Handle *)op)->asyncio_TimerHandle,
                               methods[operation], "OO", op, other);
}

static Py_hash_t
TimerHandle_hash(PyObject *op)
{
    PyObject *when = PyFloat_FromDouble(((TimerHandle *)op)->when);
    Py_hash_t hash = when == NULL ? -1 : PyObject_Hash(when);
    Py_XDECREF(when);
    return hash;
}

/* -- attributes and methods ---------------------------------------------------------------- */

#define OBJECT_GETTER(field, borrowed)                                \
    static PyObject *                                                 \
    Handle_get__##field(PyObject *op, void *closure UNUSED)           \
    {                                                                 \
        const Handle *self = (const Handle *)op;                      \
        PyObject *value;                                              \
        Py_BEGIN_CRITICAL_SECTION(op);                                \
        value = (PyObject *)(borrowed);                               \
        value = Py_NewRef(value != NULL ? value : Py_None);           \
        Py_END_CRITICAL_SECTION();                                    \
        return value;                                                 \
    }
OBJECT_GETTER(callback, self->callback)
OBJECT_GETTER(context, handle_context(self))
OBJECT_GETTER(loop, self->loop)
OBJECT_GETTER(source_traceback, handle_source_traceback(self))
OBJECT_GETTER(repr, handle_kept_repr(self))
#undef OBJECT_GETTER

static PyObject *
Handle_get__cancelled(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Handle *)op)->cancelled));
}

static PyObject *
TimerHandle_get__when(PyObject *op, void *closure UNUSED)
{
    return PyFloat_FromDouble(((TimerHandle *)op)->when);
}

#define HANDLE_GETSETS                                                    \
    {"_args", Handle_get__args, NULL, NULL, NULL},                        \
    {"_callback", Handle_get__callback, NULL, NULL, NULL},                \
    {"_cancelled", Handle_get__cancelled, NULL, NULL, NULL},              \
    {"_context", Handle_get__context, NULL, NULL, NULL},                  \
    {"_loop", Handle_get__loop, NULL, NULL, NULL},                        \
    {"_repr", Handle_get__repr, NULL, NULL, NULL},                        \
    {"_source_traceback", Handle_get__source_traceback, NULL, NULL, NULL}

#define HANDLE_METHODS                                                                     \
    {"cancelled", Handle_cancelled, METH_NOARGS,                                           \
     PyDoc_STR("cancelled($self, /)\n--\n\nTrue if the call was cancelled.")},             \
    {"get_context", Handle_get_context, METH_NOARGS,                                       \
     PyDoc_STR("get_context($self, /)\n--\n\nThe contextvars.Context of the callback.")},  \
    {"_repr_info", Handle__repr_info, METH_NOARGS, NULL},                                   \
    {"_run", Handle__run, METH_NOARGS, NULL}

static PyGetSetDef Handle_getset[] = {
    HANDLE_GETSETS,
    {"__class__", Handle_get___class__, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef TimerHandle_getset[] = {
    HANDLE_GETSETS,
    {"__class__", TimerHandle_get___class__, NULL, NULL, NULL},
    {"_scheduled", Handle_get__scheduled, NULL, NULL, NULL},
    {"_when", TimerHandle_get__when, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef Handle_methods[] = {
    {"cancel", Handle_cancel, METH_NOARGS,
     PyDoc_STR("cancel($self, /)\n--\n\nDrops the callback and its arguments; no effect if it "
               "has run.")},
    HANDLE_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyMethodDef TimerHandle_methods[] = {
    {"cancel", TimerHandle_cancel, METH_NOARGS,
     PyDoc_STR("cancel($self, /)\n--\n\nTakes the call out of the loop's timers and drops its "
               "callback and arguments.")},
    {"when", TimerHandle_when, METH_NOARGS,
     PyDoc_STR("when($self, /)\n--\n\nThe time of the call, in seconds of loop.time().")},
    HANDLE_METHODS,
    {NULL, NULL, 0, NULL},
};

#define HANDLE_FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION)

static PyMemberDef Handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Handle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot Handle_slots[] = {
    {Py_tp_doc, "A call that waits in the event loop: asyncio.Handle."},
    {Py_tp_dealloc, Handle_dealloc},
    {Py_tp_repr, Handle_repr},
    {Py_tp_members, Handle_members},
    {Py_tp_methods, Handle_methods},
    {Py_tp_getset, Handle_getset},
    {0, NULL},
};

static PyType_Spec Handle_spec = {
    .name = "asyncloop._core.Handle",
    .basicsize = sizeof(Handle),
    .flags = HANDLE_FLAGS,
    .slots = Handle_slots,
};

static PyType_Slot TimerHandle_slots[] = {
    {Py_tp_doc, "A call at a given time: asyncio.TimerHandle."},
    {Py_tp_dealloc, TimerHandle_dealloc},
    {Py_tp_repr, Handle_repr},
    {Py_tp_richcompare, TimerHandle_richcompare},
    {Py_tp_hash, TimerHandle_hash},
    {Py_tp_members, Handle_members},
    {Py_tp_methods, TimerHandle_methods},
    {Py_tp_getset, TimerHandle_getset},
    {0, NULL},
};

static PyType_Spec TimerHandle_spec = {
    .name = "asyncloop._core.TimerHandle",
    .basicsize = sizeof(TimerHandle),
    .flags = HANDLE_FLAGS,
    .slots = TimerHandle_slots,
};

int
handle_types_init(PyObject *module, struct state *state)
{
    if (state_add_type(module, &Handle_spec, NULL, 0, &state->HandleType) < 0) {
        return -1;
    }
    return state_add_type(module, &TimerHandle_spec, NULL, 0, &state->TimerHandleType);
}
