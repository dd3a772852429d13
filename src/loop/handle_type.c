/* handle_type.c - Handle and TimerHandle as Python sees them.
 *
 * Texts and comparisons are asyncio's own methods, called with our object. */
#include "loop/handle_inside.h"

#include "base/freelist.h"
#include "loop/timer.h"

/* -- the end ------------------------------------------------------------------------ */

static inline void
handle_dealloc(PyObject *op, struct freelist *(*freelist_of)(struct state *))
{
    Handle *self = (Handle *)op;
    PyTypeObject *type = Py_TYPE(op);
    Loop *loop = self->loop;
    PyObject *context = handle_context(self);
    if (UNLIKELY(SHARED_LOAD(self->weakrefs) != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
    if (self->callback != NULL) {
        handle_discard(self);
    }
    Py_XDECREF(context);
    if (UNLIKELY(self->has_extra)) {
        handle_free_extra(self);
    }
    if (!freelist_keep_plain(freelist_of(loop->state), op)) {
        untracked_free(op);
    }
    Py_DECREF(loop);
    own_type_drop(type);
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

/* One that leads to the next, and so on: only what is tracked can. */
#define TRACKED_DEALLOC(op, dealloc, freelist_of)      \
    PyObject_GC_UnTrack(op);                           \
    Py_TRASHCAN_BEGIN(op, dealloc)                     \
        handle_dealloc(op, freelist_of);               \
    Py_TRASHCAN_END

static void
Handle_dealloc(PyObject *op)
{
    if (LIKELY(!((Handle *)op)->tracked)) {
        handle_dealloc(op, free_handles_of);
        return;
    }
    TRACKED_DEALLOC(op, Handle_dealloc, free_handles_of)
}

static void
TimerHandle_dealloc(PyObject *op)
{
    if (LIKELY(!((Handle *)op)->tracked)) {
        handle_dealloc(op, free_timer_handles_of);
        return;
    }
    TRACKED_DEALLOC(op, TimerHandle_dealloc, free_timer_handles_of)
}

static int
Handle_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return handle_traverse_inside((Handle *)op, visit, arg);
}

static int
Handle_clear(PyObject *op)
{
    Handle *self = (Handle *)op;
    handle_discard(self);
    if (!self->is_native) {
        Py_CLEAR(self->how.context);
    }
    if (self->has_extra) {
        handle_free_extra(self);
    }
    return 0;
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
#if PY_VERSION_HEX >= 0x030E0000
    /* A local variable may have lent its reference, which then looks like the caller's own. */
    if (Py_REFCNT(op) == 1 && !PyUnstable_Object_IsUniqueReferencedTemporary(op)) {
        handle_track((Handle *)op);
    }
#endif
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
    Loop *loop = handle->loop;
    /* What leaves the loop leaves this call, whether the loop runs or not. */
    struct run *run = NULL;
    PyObject *exception = NULL;
    if (loop_is_mine(loop) && (run = loop_begin_run(loop)) == NULL) {
        return NULL;
    }
    Py_INCREF(op);
    int result = handle_run(handle);
    if (run != NULL) {
        PyObject *raised = PyErr_GetRaisedException();
        loop_state(loop->state)->run.end_turn_by_hand(loop, run);
        PyErr_SetRaisedException(raised);
        exception = loop_end_run(loop, run);
    }
    Py_DECREF(op);
    if (exception != NULL) {
        PyErr_SetRaisedException(exception);
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
        if (UNLIKELY(timer->handle.has_extra)) {
            when = Py_XNewRef(handle_extra(&timer->handle)->when);
        }
    }
    return LIKELY(when == NULL) ? PyFloat_FromDouble(timer_seconds(timer)) : when;
}

static PyObject *
TimerHandle_when(PyObject *op, PyObject *ignored UNUSED)
{
    return timer_when((TimerHandle *)op);
}

/* New reference: the arguments, or None once it is cancelled. */
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
    return PyBool_FromLong(SHARED_LOAD(((Handle *)op)->waits) != 0);
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
    PyObject *class = PyObject_GetAttr(op, handle_state((Handle *)op)->names.__class__);
    PyObject *result = class == NULL ? NULL : PyObject_CallMethod(class, "_repr_info", "O", op);
    Py_XDECREF(class);
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

/* For the copy module: one of asyncio's own with the same in it. */
static PyObject *
Handle___reduce_ex__(PyObject *op, PyObject *protocol UNUSED)
{
    PyObject *class = PyObject_GetAttr(op, handle_state((Handle *)op)->names.__class__);
    PyObject *copyreg = class == NULL ? NULL : PyImport_ImportModule("copyreg");
    PyObject *names = copyreg == NULL ? NULL : PyObject_CallMethod(copyreg, "_slotnames", "O", class);
    PyObject *slots = names == NULL || !PyList_Check(names) ? NULL : PyDict_New();
    for (Py_ssize_t i = 0; slots != NULL && i < PyList_GET_SIZE(names); i++) {
        PyObject *name = PyList_GET_ITEM(names, i), *value;
        int found = PyObject_GetOptionalAttr(op, name, &value);
        if (found < 0 || (found > 0 && PyDict_SetItem(slots, name, value) < 0)) {
            Py_CLEAR(slots);
        }
        Py_XDECREF(value);
    }
    PyObject *make = slots == NULL ? NULL : PyObject_GetAttrString(copyreg, "__newobj__");
    PyObject *result = make == NULL ? NULL : Py_BuildValue("O(O)(OO)", make, class, Py_None, slots);
    Py_XDECREF(make);
    Py_XDECREF(slots);
    Py_XDECREF(names);
    Py_XDECREF(copyreg);
    Py_XDECREF(class);
    return result;
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

static int
handle_is_native(const char *name)
{
    PyErr_Format(PyExc_AttributeError, "%s of a call of the loop's own cannot be set", name);
    return -1;
}

static int
handle_set_object(PyObject *op, PyObject *value, PyObject **field, const char *name)
{
    if (((Handle *)op)->is_native) {
        return value == Py_None ? 0 : handle_is_native(name);
    }
    PyObject *old;
    {
        GUARD(op);
        old = *field;
        SHARED_STORE(*field, Py_NewRef(value));
    }
    Py_XDECREF(old);
    return 0;
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
    if (value == Py_None && (self->is_native || self->callback == NULL)) {
        return 0;
    }
    if (self->is_native) {
        return handle_is_native("_args");
    }
    PyObject *args = value == Py_None ? PyTuple_New(0) : PySequence_Tuple(value);
    if (args == NULL) {
        return -1;
    }
    PyObject *old[2] = {NULL, NULL};
    {
        GUARD(op);
        for (unsigned i = 0; i < call_slots(self->nargs); i++) {
            old[i] = self->args[i];
            self->args[i] = NULL;
        }
        self->args[0] = args;
        self->nargs = HANDLE_ARGS_TUPLE;
        if (self->callback == NULL) {
            self->callback = Py_NewRef(Py_None);    /* what was cancelled is as it is said to be */
        }
    }
    Py_XDECREF(old[0]);
    Py_XDECREF(old[1]);
    return 0;
}

/* Nothing but the mark, as with asyncio: what it calls stays. */
static int
Handle_set__cancelled(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Handle *self = (Handle *)op;
    int cancelled = handle_no_delete(value, "_cancelled") < 0 ? -1 : PyObject_IsTrue(value);
    if (cancelled < 0) {
        return -1;
    }
    GUARD(op);
    if (!cancelled && self->callback == NULL) {
        if (self->is_native) {
            return handle_is_native("_cancelled");
        }
        self->callback = Py_NewRef(Py_None);    /* to be called, and refused */
    }
    SHARED_STORE(self->cancelled, cancelled);
    return 0;
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
    int result = handle_keep_extra(&timer->handle, HANDLE_EXTRA(when),
                                   PyFloat_CheckExact(value) ? NULL : value);
    if (result == 0) {
        result = timer_move(timer->handle.loop, timer, when);
    }
    return result;
}

static int
Handle_set__loop(PyObject *op, PyObject *value, void *closure UNUSED)
{
    bool same = value == (PyObject *)((Handle *)op)->loop;
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

/* A handle of call_soon_threadsafe() has a lock with asyncio: for whoever copies one, or takes it. */
static PyObject *
Handle_get__lock(PyObject *op, void *closure UNUSED)
{
    if (!((Handle *)op)->threadsafe) {
        PyErr_SetString(PyExc_AttributeError, "_lock");
        return NULL;
    }
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *lock = threading == NULL ? NULL : PyObject_CallMethod(threading, "RLock", NULL);
    Py_XDECREF(threading);
    return lock;
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
    {"__reduce_ex__", Handle___reduce_ex__, METH_O, NULL},                                 \
    {"_repr_info", Handle__repr_info, METH_NOARGS, NULL},                                   \
    {"_run", Handle__run, METH_NOARGS, NULL}

static PyGetSetDef Handle_getset[] = {
    HANDLE_GETSETS,
    {"__class__", Handle_get___class__, NULL, NULL, NULL},
    {"_lock", Handle_get__lock, NULL, NULL, NULL},
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

#define HANDLE_FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION)

static PyMemberDef Handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Handle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot Handle_slots[] = {
    {Py_tp_doc, "A call that waits in the event loop: asyncio.Handle."},
    {Py_tp_dealloc, Handle_dealloc},
    {Py_tp_traverse, Handle_traverse},
    {Py_tp_clear, Handle_clear},
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
    {Py_tp_traverse, Handle_traverse},
    {Py_tp_clear, Handle_clear},
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
        {&own->handles.constants, "asyncio", "constants", false},
        {&own->handles.extract_stack, "asyncio.format_helpers", "extract_stack", false},
        {&own->handles.format_callback_source, "asyncio.format_helpers", "_format_callback_source",
         false},
        {&own->handles.sys_getframe, "sys", "_getframe", false},
    };
    if (STATE_IMPORT(wanted) < 0
        || state_add_type(module, &Handle_spec, NULL, 0, &own->types.Handle) < 0
        || state_add_type(module, &TimerHandle_spec, NULL, 0, &own->types.TimerHandle) < 0) {
        return -1;
    }
    freelist_init(state, &own->handles.free, own->types.Handle);
    freelist_init(state, &own->handles.free_timers, own->types.TimerHandle);
    return 0;
}
