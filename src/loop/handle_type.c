/* handle_type.c - Handle and TimerHandle as Python sees them.
 *
 * Texts and comparisons are asyncio's own methods, called with our object. */
#include "loop/handle_inside.h"

#include "base/freelist.h"
#include "loop/timer.h"

/* -- the end ------------------------------------------------------------------------ */

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
    if (self->callback != NULL || handle_context(self) != NULL) {
        handle_discard(self);
    }
    if (UNLIKELY(self->extra != NULL)) {
        handle_free_extra(self);
    }
    if (!freelist_keep_plain(freelist_of(state), op)) {
        type->tp_free(op);
    }
    Py_XDECREF(loop);
    Py_DECREF(type);
}

static struct freelist *
free_handles_of(struct state *state)
{
    return &loop_state(state)->handles.free;
}

static struct freelist *
free_timer_handles_of(struct state *state)
{
    return &loop_state(state)->handles.free_timers;
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

/* -- methods -------------------------------------------------------------------------- */

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
    GUARD(op);
    context = handle_context((Handle *)op);
    context = Py_NewRef(context != NULL ? context : Py_None);
    return context;
}

static PyObject *
Handle__run(PyObject *op, PyObject *ignored UNUSED)
{
    Handle *handle = (Handle *)op;
    Loop *loop = handle_hold_loop(handle);
    if (loop == NULL) {
        Py_RETURN_NONE;    /* it has run, or was cancelled */
    }
    /* What leaves the loop leaves this call, whether the loop runs or not. */
    struct run run = {0};
    bool mine = loop_is_mine(loop);
    Py_INCREF(op);
    Py_INCREF(loop);
    if (mine) {
        loop_begin_run(loop, &run);
    }
    int result = handle_run_by_hand(handle);
    if (mine) {
        PyObject *raised = PyErr_GetRaisedException();
        loop_state(loop->state)->run.end_turn_by_hand(loop, &run);
        PyErr_SetRaisedException(raised);
        loop_end_run(loop, &run);
    }
    Py_DECREF(loop);
    handle_release_loop(loop);
    Py_DECREF(op);
    if (run.exception != NULL) {
        PyErr_SetRaisedException(run.exception);
        return NULL;
    }
    if (result < 0 && PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* New reference, or NULL. */
static PyObject *
timer_when(TimerHandle *timer)
{
    PyObject *when = NULL;
    {
        GUARD(timer);
        if (UNLIKELY(timer->handle.extra != NULL)) {
            when = Py_XNewRef(timer->handle.extra->when);
        }
    }
    return LIKELY(when == NULL) ? PyFloat_FromDouble(timer->when) : when;
}

static PyObject *
TimerHandle_when(PyObject *op, PyObject *ignored UNUSED)
{
    return timer_when((TimerHandle *)op);
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
    GUARD(op);
    return handle_args((const Handle *)op);
}

static PyObject *
Handle_get__scheduled(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((TimerHandle *)op)->heap_index) != TIMER_NOT_WAITING);
}

/* asyncio's own iteration sets it where it takes a timer out, which has been done by then. */
static int
Handle_set__scheduled(PyObject *op UNUSED, PyObject *value UNUSED, void *closure UNUSED)
{
    return 0;
}

static PyObject *
Handle_get___class__(PyObject *op, void *closure UNUSED)
{
    Handle *self = (Handle *)op;
    struct state *state = handle_state(self);
    return Py_NewRef(self->threadsafe ? loop_state(state)->handles.asyncio_ThreadSafeHandle
                                      : loop_state(state)->handles.asyncio_Handle);
}

static PyObject *
TimerHandle_get___class__(PyObject *op, void *closure UNUSED)
{
    return Py_NewRef(loop_state(handle_state((Handle *)op))->handles.asyncio_TimerHandle);
}

/* -- what asyncio's own classes do for us: texts and comparisons ------------------------ */

static PyObject *
Handle__repr_info(PyObject *op, PyObject *ignored UNUSED)
{
    Handle *self = (Handle *)op;
    bool has_call, looking;
    /* asyncio's method asks for the callback, and if there is one for the loop. */
    {
        GUARD(op);
        has_call = self->callback != NULL;
        looking = self->lookers < HANDLE_LOOKERS_MAX;
        self->lookers += looking;
    }
    PyObject *class = PyObject_GetAttr(op, handle_state(self)->names.__class__);
    PyObject *result =
        class == NULL ? NULL : PyObject_CallMethod(class, "_repr_info", "O", op);
    Py_XDECREF(class);
    {
        GUARD(op);
        self->lookers -= looking;
        has_call = has_call && self->callback == NULL;
    }
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
    {
        GUARD(op);
        kept = Py_XNewRef(handle_kept_repr(self));
    }
    if (kept != NULL) {
        return kept;
    }
    return PyObject_CallMethod(loop_state(handle_state(self))->handles.asyncio_Handle, "__repr__", "O", op);
}

static PyObject *
TimerHandle_richcompare(PyObject *op, PyObject *other, int operation)
{
    static const char *const methods[] = {
        [Py_LT] = "__lt__",
        [Py_LE] = "__le__",
        [Py_EQ] = "__eq__",
        [Py_NE] = "__ne__",
        [Py_GT] = "__gt__",
        [Py_GE] = "__ge__",
    };
    return PyObject_CallMethod(loop_state(handle_state((Handle *)op))->handles.asyncio_TimerHandle,
                               methods[operation], "OO", op, other);
}

static Py_hash_t
TimerHandle_hash(PyObject *op)
{
    PyObject *when = timer_when((TimerHandle *)op);
    Py_hash_t hash = when == NULL ? -1 : PyObject_Hash(when);
    Py_XDECREF(when);
    return hash;
}

/* -- attributes and methods ---------------------------------------------------------------- */

#define OBJECT_GETTER(field, borrowed)                                \
    static PyObject *                                                 \
    Handle_get__##field(PyObject *op, void *closure UNUSED)           \
    {                                                                 \
        GUARD(op);                                                    \
        const Handle *self = (const Handle *)op;                      \
        PyObject *value = (PyObject *)(borrowed);                     \
        return Py_NewRef(value != NULL ? value : Py_None);            \
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
    return timer_when((TimerHandle *)op);
}

/* -- what a program puts into a handle of its own ------------------------------------------ */

/* In its critical section: is there a call, which Python can see? What has run or was cancelled holds
 * nothing, and no cycle could be found if it were given something again (handle.h). */
static bool
handle_has_call(const Handle *self)
{
    return self->callback != NULL && !self->is_native;
}

static int
handle_is_over(const char *name)
{
    PyErr_Format(PyExc_AttributeError, "%s of a call that is over, or the loop's own, cannot be set", name);
    return -1;
}

static int
handle_set_object(PyObject *op, PyObject *value, PyObject **field, const char *name)
{
    PyObject *old = NULL;
    bool done = false;
    {
        GUARD(op);
        if (handle_has_call((Handle *)op)) {
            old = *field;
            SHARED_STORE(*field, Py_NewRef(value));
            done = true;
        }
    }
    Py_XDECREF(old);
    return done || value == Py_None ? 0 : handle_is_over(name);
}

static int
handle_no_delete(PyObject *value, const char *name)
{
    if (UNLIKELY(value == NULL)) {
        PyErr_Format(PyExc_AttributeError, "%s of a handle cannot be deleted", name);
        return -1;
    }
    return 0;
}

static int
Handle_set__callback(PyObject *op, PyObject *value, void *closure UNUSED)
{
    return handle_no_delete(value, "_callback") < 0
               ? -1
               : handle_set_object(op, value, &((Handle *)op)->callback, "_callback");
}

static int
Handle_set__context(PyObject *op, PyObject *value, void *closure UNUSED)
{
    return handle_no_delete(value, "_context") < 0
               ? -1
               : handle_set_object(op, value, &((Handle *)op)->how.context, "_context");
}

static int
Handle_set__args(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Handle *self = (Handle *)op;
    if (handle_no_delete(value, "_args") < 0) {
        return -1;
    }
    PyObject *args = value == Py_None ? PyTuple_New(0) : PySequence_Tuple(value);
    if (args == NULL) {
        return -1;
    }
    PyObject *old[HANDLE_INLINE_ARGS] = {NULL};
    bool done = false;
    {
        GUARD(op);
        if (handle_has_call(self)) {
            for (int i = 0; i < HANDLE_INLINE_ARGS; i++) {
                old[i] = self->args[i];
                self->args[i] = NULL;
            }
            self->args[0] = Py_NewRef(args);
            self->nargs = HANDLE_ARGS_TUPLE;
            done = true;
        }
    }
    for (int i = 0; i < HANDLE_INLINE_ARGS; i++) {
        Py_XDECREF(old[i]);
    }
    Py_DECREF(args);
    return done || value == Py_None ? 0 : handle_is_over("_args");
}

/* True: the call will not be made. What it was goes, as by cancel(), so that there is no way back. */
static int
Handle_set__cancelled(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int cancelled = handle_no_delete(value, "_cancelled") < 0 ? -1 : PyObject_IsTrue(value);
    if (cancelled < 0) {
        return -1;
    }
    if (!cancelled) {
        return SHARED_LOAD(((Handle *)op)->cancelled) ? handle_is_over("_cancelled") : 0;
    }
    PyTypeObject *timer = loop_state(handle_state((Handle *)op))->handles.TimerType;
    PyObject *result = Py_IS_TYPE(op, timer)
                           ? TimerHandle_cancel(op, NULL)
                           : Handle_cancel(op, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Of a timer that waits: it is due then. */
static int
TimerHandle_set__when(PyObject *op, PyObject *value, void *closure UNUSED)
{
    TimerHandle *timer = (TimerHandle *)op;
    double when = handle_no_delete(value, "_when") < 0 ? -1. : PyFloat_AsDouble(value);
    if (when == -1. && PyErr_Occurred()) {
        return -1;
    }
    Loop *loop = handle_hold_loop(&timer->handle);
    int result = handle_keep_extra(&timer->handle, HANDLE_EXTRA(when),
                                   PyFloat_CheckExact(value) ? NULL : value);
    if (result == 0) {
        result = timer_move(loop, timer, when);
    }
    handle_release_loop(loop);
    return result;
}

static int
Handle_set__loop(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Loop *loop = handle_hold_loop((Handle *)op);
    bool same = value == (PyObject *)loop;
    handle_release_loop(loop);
    if (!same) {
        PyErr_SetString(PyExc_AttributeError, "_loop: a call stays with the loop that made it");
    }
    return same ? 0 : -1;
}

static int
Handle_set__repr(PyObject *op, PyObject *value, void *closure UNUSED)
{
    if (handle_no_delete(value, "_repr") < 0) {
        return -1;
    }
    if (value != Py_None && !PyUnicode_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "_repr must be a str or None");
        return -1;
    }
    return handle_keep_extra((Handle *)op, HANDLE_EXTRA(repr), value == Py_None ? NULL : value);
}

static int
Handle_set__source_traceback(PyObject *op, PyObject *value, void *closure UNUSED)
{
    return handle_no_delete(value, "_source_traceback") < 0
               ? -1
               : handle_keep_extra((Handle *)op, HANDLE_EXTRA(source_traceback),
                                   value == Py_None ? NULL : value);
}

#define HANDLE_GETSETS                                                                          \
    {"_args", Handle_get__args, Handle_set__args, NULL, NULL},                                  \
    {"_callback", Handle_get__callback, Handle_set__callback, NULL, NULL},                      \
    {"_cancelled", Handle_get__cancelled, Handle_set__cancelled, NULL, NULL},                   \
    {"_context", Handle_get__context, Handle_set__context, NULL, NULL},                         \
    {"_loop", Handle_get__loop, Handle_set__loop, NULL, NULL},                                              \
    {"_repr", Handle_get__repr, Handle_set__repr, NULL, NULL},                                  \
    {"_source_traceback", Handle_get__source_traceback, Handle_set__source_traceback, NULL, NULL}

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
    {"_scheduled", Handle_get__scheduled, Handle_set__scheduled, NULL, NULL},
    {"_when", TimerHandle_get__when, TimerHandle_set__when, NULL, NULL},
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
    struct loop_state *own = loop_state(state);
    STATE_OWN_UNTIL(state, &own->handles, free);
    const struct state_import wanted[] = {
        {&own->handles.asyncio_Handle, "asyncio.events", "Handle", false},
        {&own->handles.asyncio_ThreadSafeHandle, "asyncio.events", "_ThreadSafeHandle", true},
        {&own->handles.asyncio_TimerHandle, "asyncio.events", "TimerHandle", false},
        {&own->handles.extract_stack, "asyncio.format_helpers", "extract_stack", false},
        {&own->handles.format_callback_source, "asyncio.format_helpers", "_format_callback_source",
         false},
        {&own->handles.sys_getframe, "sys", "_getframe", false},
    };
    if (STATE_IMPORT(wanted) < 0
        || state_add_type(module, &Handle_spec, NULL, 0, &own->handles.Type) < 0
        || state_add_type(module, &TimerHandle_spec, NULL, 0, &own->handles.TimerType) < 0) {
        return -1;
    }
    freelist_init(state, &own->handles.free, own->handles.Type);
    freelist_init(state, &own->handles.free_timers, own->handles.TimerType);
    return 0;
}
