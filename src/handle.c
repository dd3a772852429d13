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

static void
handle_drop_call(Handle *handle)
{
    PyObject *callback = handle->callback;
    PyObject *args[HANDLE_INLINE_ARGS];
    int32_t count = handle->nargs > HANDLE_INLINE_ARGS ? 1 : handle->nargs;
    for (int32_t i = 0; i < count; i++) {
        args[i] = handle->args[i];
        handle->args[i] = NULL;
    }
    handle->callback = NULL;
    handle->nargs = 0;
    Py_XDECREF(callback);
    for (int32_t i = 0; i < count; i++) {
        Py_XDECREF(args[i]);
    }
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
    }
    handle->nargs = (int32_t)nargs;
    return 0;
}

static int
handle_set_source_traceback(Handle *handle)
{
    struct state *state = handle->loop->state;
    PyObject *frame = PyObject_CallNoArgs(state->sys_getframe);
    if (frame == NULL) {
        /* no Python frame: called by an embedding program */
        PyErr_Clear();
        return 0;
    }
    handle->source_traceback = PyObject_CallOneArg(state->extract_stack, frame);
    Py_DECREF(frame);
    return handle->source_traceback == NULL ? -1 : 0;
}

static int
handle_init(Handle *handle, Loop *loop, PyObject *callback, PyObject *const *args,
            Py_ssize_t nargs, PyObject *context)
{
    handle->callback = Py_NewRef(callback);
    handle->context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (handle->context == NULL || handle_set_args(handle, args, nargs) < 0) {
        return -1;
    }
    return UNLIKELY(loop->debug) ? handle_set_source_traceback(handle) : 0;
}

static void
handle_init_native(Handle *handle, native_callback run, PyObject *owner, PyObject *arg)
{
    handle->native = run;
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
        ((TimerHandle *)handle)->heap_index = -1;
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

static const char *
handle_name(Handle *handle)
{
    return Py_IS_TYPE(handle, handle->loop->state->TimerHandleType) ? "TimerHandle"
           : handle->threadsafe ? "_ThreadSafeHandle" : "Handle";
}

/* In debug mode: what the handle is called when it holds its callback no more. */
static void
handle_keep_repr(Handle *handle)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *repr;
    if (handle->repr == NULL) {
        repr = PyObject_Repr((PyObject *)handle);
    }
    else {
        /* it has run, and was cancelled after that */
        Py_ssize_t length = PyUnicode_GET_LENGTH(handle->repr);
        Py_ssize_t space = PyUnicode_FindChar(handle->repr, ' ', 0, length, 1);
        PyObject *rest = PyUnicode_Substring(handle->repr, space < 0 ? length : space, length);
        repr = rest == NULL ? NULL : PyUnicode_FromFormat("<%s cancelled%U",
                                                          handle_name(handle), rest);
        Py_XDECREF(rest);
    }
    if (repr == NULL) {
        PyErr_Clear();
    }
    else {
        Py_XSETREF(handle->repr, repr);
    }
    PyErr_SetRaisedException(exc);
}

void
handle_cancel(Handle *handle)
{
    if (handle->cancelled) {
        return;
    }
    handle->cancelled = true;
    if (UNLIKELY(handle->loop != NULL && handle->loop->debug && handle->native == NULL)) {
        /* As asyncio: what was cancelled can still be told from its repr. */
        handle_keep_repr(handle);
    }
    handle_discard(handle);
}

void
handle_discard(Handle *handle)
{
    PyObject *context = handle->context;
    handle->context = NULL;
    handle_drop_call(handle);
    Py_XDECREF(context);
}

int
handle_traverse(Handle *handle, enum handle_place place, visitproc visit, void *arg)
{
    if (handle->place != place) {
        return 0;
    }
    Py_VISIT(handle->loop);
    Py_VISIT(handle->callback);
    Py_VISIT(handle->context);
    for (int i = 0; i < HANDLE_INLINE_ARGS; i++) {
        Py_VISIT(handle->args[i]);
    }
    Py_VISIT(handle->source_traceback);
    return 0;
}

/* -- running ---------------------------------------------------------------------- */

static void
handle_report(Handle *handle, PyObject *callback, PyObject *exc)
{
    struct state *state = handle->loop->state;
    PyObject *context = NULL, *source = NULL, *message = NULL;
    PyObject *args = PyObject_GetAttrString((PyObject *)handle, "_args");
    if (args == NULL || args == Py_None) {
        PyErr_Clear();
        Py_XSETREF(args, Py_NewRef(state->empty_tuple));
    }
#if PY_VERSION_HEX >= 0x030D0000
    /* arguments may be secrets: only debug mode tells them */
    PyObject *stack[] = {callback, args, handle->loop->debug ? Py_True : Py_False};
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
        || (handle->source_traceback != NULL
            && PyDict_SetItem(context, state->names.source_traceback,
                              handle->source_traceback) < 0)) {
        goto done;
    }
    loop_call_exception_handler(handle->loop, context);
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
handle_failed(Handle *handle, PyObject *callback, PyObject *context)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (exc != NULL) {
        if (handle->context == NULL) {
            /* cancelled by its own callback: the exception handler still runs in the context */
            handle->context = Py_NewRef(context);
        }
        handle_report(handle, callback, exc);
        if (handle->cancelled) {
            Py_CLEAR(handle->context);
        }
        Py_DECREF(exc);
    }
    return handle->loop->run != NULL && handle->loop->run->exception != NULL ? -1 : 0;
}

/* Calls with arguments on the stack: the first slot is the callee's to use
 * (PY_VECTORCALL_ARGUMENTS_OFFSET). New reference or NULL. */
static PyObject *
handle_call(Handle *handle, PyObject *callback)
{
    PyObject *stack[1 + HANDLE_INLINE_ARGS];
    PyObject *result;
    int32_t nargs = handle->nargs;
    if (LIKELY(nargs <= HANDLE_INLINE_ARGS)) {
        for (int32_t i = 0; i < nargs; i++) {
            stack[1 + i] = Py_NewRef(handle->args[i]);
        }
        result = PyObject_Vectorcall(callback, stack + 1,
                                     (size_t)nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        for (int32_t i = 0; i < nargs; i++) {
            Py_DECREF(stack[1 + i]);
        }
        return result;
    }
    PyObject *tuple = Py_NewRef(handle->args[0]);
    result = PyObject_Call(callback, tuple, NULL);
    Py_DECREF(tuple);
    return result;
}

static PyObject *Handle_get__args(PyObject *op, void *closure);

/* A context that is not contextvars' own: asyncio asks for no more than a method run(). */
static PyObject *
handle_call_in_foreign_context(Handle *handle, PyObject *context, PyObject *callback)
{
    PyObject *args = Handle_get__args((PyObject *)handle, NULL);
    PyObject *first = args == NULL ? NULL : PyTuple_Pack(1, callback);
    PyObject *all = first == NULL ? NULL : PySequence_Concat(first, args);
    PyObject *run = all == NULL ? NULL : PyObject_GetAttrString(context, "run");
    PyObject *value = run == NULL ? NULL : PyObject_Call(run, all, NULL);
    Py_XDECREF(run);
    Py_XDECREF(all);
    Py_XDECREF(first);
    Py_XDECREF(args);
    return value;
}

/* The result of the callback, called in its context, or NULL. */
static PyObject *
handle_call_in_context(Handle *handle, PyObject *callback, PyObject *context)
{
    PyObject *value = NULL;
    if (UNLIKELY(!PyContext_CheckExact(context))) {
        value = handle_call_in_foreign_context(handle, context, callback);
    }
    else if (LIKELY(PyContext_Enter(context) == 0)) {
        value = handle_call(handle, callback);
        PyObject *exc = LIKELY(value != NULL) ? NULL : PyErr_GetRaisedException();
        if (UNLIKELY(PyContext_Exit(context) < 0)) {
            Py_CLEAR(value);
        }
        if (UNLIKELY(exc != NULL)) {
            PyErr_SetRaisedException(exc);
        }
    }
    return value;
}

static int
handle_run_native(Handle *handle)
{
    PyObject *owner = Py_NewRef(handle->callback);
    PyObject *arg = handle->nargs > 0 ? Py_NewRef(handle->args[0]) : NULL;
    int result = handle->native(owner, arg);
    if (result < 0 && PyErr_Occurred()) {
        if (!is_exit_exception()) {
            loop_report(handle->loop, "Exception in a callback of the event loop", NULL, NULL);
            result = 0;
        }
    }
    else {
        result = 0;
    }
    Py_DECREF(owner);
    Py_XDECREF(arg);
    return result;
}

void
handle_finished(Handle *handle)
{
    if (handle->place != HANDLE_ONCE) {
        return;
    }
    if (Py_REFCNT(handle) > 1 && handle->native == NULL && handle->callback != NULL) {
        handle_keep_repr(handle);    /* somebody else has it, and may ask */
    }
    handle_discard(handle);
}

/* In debug mode the loop still wants to name what has run. */
static inline void
handle_ran(Handle *handle)
{
    if (LIKELY(handle->place == HANDLE_ONCE && !handle->loop->debug)) {
        handle_discard(handle);
    }
}

int
handle_run(Handle *handle)
{
    if (UNLIKELY(handle->callback == NULL)) {
        return 0;    /* cancelled, or it has run */
    }
    int result = 0;
    if (handle->native != NULL) {
        result = handle_run_native(handle);
        handle_ran(handle);
        return result;
    }
    PyObject *callback = Py_NewRef(handle->callback);
    PyObject *context = Py_NewRef(handle->context);
    handle->running = true;
    PyObject *value = handle_call_in_context(handle, callback, context);
    if (LIKELY(value != NULL)) {
        Py_DECREF(value);
    }
    else {
        result = handle_failed(handle, callback, context);
    }
    Py_DECREF(context);
    handle->running = false;
    if (UNLIKELY(handle->threadsafe)) {
        inbox_tell_waiters(handle->loop);
    }
    Py_DECREF(callback);
    handle_ran(handle);
    return result;
}

/* asyncio's handles of call_soon_threadsafe() have, from 3.14 on, a lock: another thread
 * that cancels one, or asks whether it is cancelled, waits for the end of a callback that
 * has begun. Here it waits for the loop to tell. */
static void
handle_wait(Handle *handle)
{
    if (UNLIKELY(handle->threadsafe && handle->running
                 && handle->loop->thread_id != PyThread_get_thread_ident())) {
        inbox_wait_while(handle->loop, &handle->running);
    }
}

/* -- the types ------------------------------------------------------------------------ */

static void
handle_dealloc(PyObject *op, struct freelist *(*freelist_of)(struct state *))
{
    Handle *self = (Handle *)op;
    PyTypeObject *type = Py_TYPE(op);
    Loop *loop = self->loop;
    if (UNLIKELY(self->weakrefs != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
    handle_discard(self);
    Py_CLEAR(self->source_traceback);
    Py_CLEAR(self->repr);
    if (!freelist_keep_plain(freelist_of(loop->state), op)) {
        type->tp_free(op);
    }
    Py_DECREF(loop);
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
    handle_wait((Handle *)op);
    handle_cancel((Handle *)op);
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
    return PyBool_FromLong(((Handle *)op)->cancelled);
}

static PyObject *
Handle_get_context(PyObject *op, PyObject *ignored UNUSED)
{
    PyObject *context = ((Handle *)op)->context;
    return Py_NewRef(context != NULL ? context : Py_None);
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

static PyObject *
Handle_get__args(PyObject *op, void *closure UNUSED)
{
    Handle *self = (Handle *)op;
    if (self->callback == NULL) {
        Py_RETURN_NONE;
    }
    if (self->nargs > HANDLE_INLINE_ARGS) {
        return Py_NewRef(self->args[0]);
    }
    PyObject *tuple = PyTuple_New(self->nargs);
    for (int32_t i = 0; tuple != NULL && i < self->nargs; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(self->args[i]));
    }
    return tuple;
}

static PyObject *
Handle_get__scheduled(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(((TimerHandle *)op)->heap_index >= 0);
}

static PyObject *
Handle_get___class__(PyObject *op, void *closure UNUSED)
{
    Handle *self = (Handle *)op;
    struct state *state = self->loop->state;
    return Py_NewRef(self->threadsafe ? state->asyncio_ThreadSafeHandle : state->asyncio_Handle);
}

static PyObject *
TimerHandle_get___class__(PyObject *op, void *closure UNUSED)
{
    return Py_NewRef(((Handle *)op)->loop->state->asyncio_TimerHandle);
}

/* -- what asyncio's own classes do for us: texts and comparisons ------------------------ */

static PyObject *
Handle__repr_info(PyObject *op, PyObject *ignored UNUSED)
{
    PyObject *class = PyObject_GetAttr(op, ((Handle *)op)->loop->state->names.__class__);
    PyObject *result =
        class == NULL ? NULL : PyObject_CallMethod(class, "_repr_info", "O", op);
    Py_XDECREF(class);
    return result;
}

static PyObject *
Handle_repr(PyObject *op)
{
    Handle *self = (Handle *)op;
    if (self->repr != NULL) {
        return Py_NewRef(self->repr);
    }
    return PyObject_CallMethod(self->loop->state->asyncio_Handle, "__repr__", "O", op);
}

static PyObject *
TimerHandle_richcompare(PyObject *op, PyObject *other, int operation)
{
    static const char *const methods[] = {
        [Py_LT] = "__lt__", [Py_LE] = "__le__", [Py_EQ] = "__eq__",
        [Py_NE] = "__ne__", [Py_GT] = "__gt__", [Py_GE] = "__ge__",
    };
    return PyObject_CallMethod(((Handle *)op)->loop->state->asyncio_TimerHandle,
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

#define OBJECT_GETTER(field)                                          \
    static PyObject *                                                 \
    Handle_get__##field(PyObject *op, void *closure UNUSED)           \
    {                                                                 \
        PyObject *value = (PyObject *)((Handle *)op)->field;          \
        return Py_NewRef(value != NULL ? value : Py_None);            \
    }
OBJECT_GETTER(callback)
OBJECT_GETTER(context)
OBJECT_GETTER(loop)
OBJECT_GETTER(source_traceback)
OBJECT_GETTER(repr)
#undef OBJECT_GETTER

static PyObject *
Handle_get__cancelled(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(((Handle *)op)->cancelled);
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
