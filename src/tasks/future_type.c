/* future_type.c - the type Future: memory, attributes, the report of a forgotten exception.
 *
 * Owns:     the making and the end of a Future, and the parts of both that Task shares.
 * Promises: memory goes to the free list only if the base's own fields were never used. */
#include "tasks/future.h"

#include "base/freelist.h"
#include "tasks/future_methods.h"

/* -- life ----------------------------------------------------------------------- */

static int
future_set_source_traceback(Future *self)
{
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    if (frame == NULL || Py_IsFinalizing()) {
        return 0;
    }
    Py_INCREF(frame);
    PyObject *traceback = PyObject_CallOneArg(tasks_state(self->state_ptr)->futures.extract_stack, frame);
    Py_DECREF(frame);
    Py_XSETREF(self->source_traceback, traceback);
    return traceback == NULL ? -1 : 0;
}

static int
loop_object_debugs(struct state *state, PyObject *loop)
{
    PyObject *debug = PyObject_CallMethodNoArgs(loop, state->names.get_debug);
    if (debug == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(debug);
    Py_DECREF(debug);
    return result;
}

static inline void
future_bind(Future *self, PyObject *loop)
{
    self->loop = Py_NewRef(loop);
    self->own_loop = loop_check(self->state_ptr, loop) ? (Loop *)loop : NULL;
    SHARED_STORE(self->future_state, FUTURE_PENDING);
}

int
future_init(Future *self, PyObject *loop)
{
    struct state *state = self->state_ptr;
    if (loop == NULL || loop == Py_None) {
        loop = PyObject_CallNoArgs(tasks_state(state)->futures.get_event_loop);
        if (loop == NULL) {
            return -1;
        }
    }
    else {
        Py_INCREF(loop);
    }
    if (UNLIKELY(self->loop != NULL || self->future_state != FUTURE_UNINITIALISED)) {
        future_clear(self);    /* __init__ called again */
    }
    bool own = loop_check(state, loop);
    int debug = own ? FLAG(((Loop *)loop)->debug) : loop_object_debugs(state, loop);
    if (debug < 0) {
        Py_DECREF(loop);
        return -1;
    }
    /* get_debug() may have initialised it in between */
    Py_XDECREF(self->loop);
    self->loop = loop;
    SHARED_STORE(self->future_state, FUTURE_PENDING);
    int result = UNLIKELY(debug) ? future_set_source_traceback(self) : 0;
    SHARED_STORE(self->own_loop, own && self->loop == loop ? (Loop *)loop : NULL);
    return result;
}

PyObject *
future_new(struct state *state, PyObject *loop)
{
    Future *self = (Future *)freelist_take(&tasks_state(state)->futures.free, tasks_state(state)->types.Future);
    if (self == NULL) {
        return NULL;
    }
    self->state_ptr = state;
    if (LIKELY(loop_check(state, loop) && !FLAG(((Loop *)loop)->debug))) {
        future_bind(self, loop);
    }
    else if (future_init(self, loop) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

bool
future_is_ours(struct state *state, PyObject *op)
{
    return future_check_native(state, op) || PyObject_TypeCheck(op, tasks_state(state)->types.Future);
}

int
future_traverse(Future *self, visitproc visit, void *arg)
{
    Py_VISIT(self->loop);
    Py_VISIT(self->outcome);
    Py_VISIT(self->callback0);
    Py_VISIT(self->context0);
    Py_VISIT(self->callbacks);
    Py_VISIT(self->exception_traceback);
    Py_VISIT(self->source_traceback);
    Py_VISIT(self->cancel_message);
    return 0;
}

void
future_clear(Future *self)
{
    SHARED_STORE(self->future_state, FUTURE_UNINITIALISED);
    self->parked0 = false;
    SHARED_STORE(self->blocking, false);
    SHARED_STORE(self->log_traceback, false);
    SHARED_STORE(self->own_loop, NULL);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->outcome);
    Py_CLEAR(self->callback0);
    Py_CLEAR(self->context0);
    Py_CLEAR(self->callbacks);
    Py_CLEAR(self->exception_traceback);
    Py_CLEAR(self->source_traceback);
    Py_CLEAR(self->cancel_message);
}

bool
future_is_deep(const Future *self)
{
    return self->callback0 != NULL || self->callbacks != NULL || self->cancelled_error != NULL
           || (self->outcome != NULL && Py_REFCNT(self->outcome) == 1
               && PyType_IS_GC(Py_TYPE(self->outcome)));
}

/* False if anything in the base's own fields was filled: by `future_add_to_awaited_by`,
 * an attribute in the instance's dict, or a method of the base that was called unbound. */
static inline bool
future_base_is_clean(const Future *self)
{
    const uint64_t *word = (const uint64_t *)(const void *)(self->asyncio_fields + sizeof(PyObject));
    uint64_t any = 0;
    for (size_t i = 0; i < (ASYNCIO_FUTURE_SIZE - sizeof(PyObject)) / sizeof(uint64_t); i++) {
        any |= word[i];
    }
    return any == 0;
}

#if PY_VERSION_HEX >= 0x030D0000
static int
visit_any(PyObject *op UNUSED, void *arg UNUSED)
{
    return 1;
}

bool
future_has_attributes(PyObject *op)
{
    return PyObject_VisitManagedDict(op, visit_any, NULL) != 0;
}
#endif

void
future_free(Future *self, struct freelist *list, PyTypeObject *exact,
            const struct base_slots *base)
{
    PyObject *op = (PyObject *)self;
    PyTypeObject *type = Py_TYPE(op);
    if (LIKELY(type == exact)) {
        bool keep = true;
#if PY_VERSION_HEX >= 0x030D0000
        /* They are before the header, not in the base's fields, or from 3.14 on behind the object: memory in
         * which some were cleared has no place for them any more, and each look-up would make a dict. */
        if (UNLIKELY(future_has_attributes(op))) {
            PyObject_ClearManagedDict(op);
            keep = PY_VERSION_HEX < 0x030E0000;
        }
#endif
        if (LIKELY(future_base_is_clean(self))) {
            if (!keep || !freelist_keep(list, op)) {
                type->tp_free(op);
            }
            own_type_drop(type);
            return;
        }
    }
    PyObject_GC_Track(op);    /* the base's dealloc wants it so */
    base->dealloc(op);
#if PY_VERSION_HEX < 0x030C0000
    Py_DECREF(type);          /* a static base knows nothing of heap types */
#endif
}

/* -- attributes ----------------------------------------------------------------- */

static PyObject *
Future_repr(PyObject *op)
{
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    return PyObject_CallOneArg(tasks_state(self->state_ptr)->futures.repr, op);
}

PyObject *
Future_get__state(PyObject *op, void *closure UNUSED)
{
    Future *self = (Future *)op;
    struct state_names *names = &self->state_ptr->names;
    switch (SHARED_LOAD(self->future_state)) {
    case FUTURE_PENDING:
        return Py_NewRef(names->PENDING);
    case FUTURE_CANCELLED:
        return Py_NewRef(names->CANCELLED);
    case FUTURE_FINISHED:
    case FUTURE_FAILED:
        return Py_NewRef(names->FINISHED);
    default:
        return future_not_initialised();
    }
}

int
future_attribute_bool(PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    return PyObject_IsTrue(value);
}

PyObject *
Future_get_blocking(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Future *)op)->blocking));
}

int
Future_set_blocking(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        future_not_initialised();
        return -1;
    }
    int blocking = future_attribute_bool(value);
    if (blocking < 0) {
        return -1;
    }
    SHARED_STORE(self->blocking, blocking);
    return 0;
}

PyObject *
Future_get__loop(PyObject *op, void *closure UNUSED)
{
    GUARD(op);
    PyObject *value = ((Future *)op)->loop;
    return Py_NewRef(value != NULL ? value : Py_None);
}

PyObject *
Future_get__result(PyObject *op, void *closure UNUSED)
{
    FUTURE_GUARD(op);
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    return Py_NewRef(self->future_state == FUTURE_FINISHED ? self->outcome : Py_None);
}

PyObject *
Future_get__exception(PyObject *op, void *closure UNUSED)
{
    FUTURE_GUARD(op);
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    return Py_NewRef(self->future_state == FUTURE_FAILED ? self->outcome : Py_None);
}

PyObject *
Future_get__log_traceback(PyObject *op, void *closure UNUSED)
{
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    return PyBool_FromLong(SHARED_LOAD(self->log_traceback));
}

int
Future_set__log_traceback(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int wanted = future_attribute_bool(value);
    if (wanted > 0) {
        PyErr_SetString(PyExc_ValueError, "_log_traceback can only be set to False");
    }
    if (wanted != 0) {
        return -1;
    }
    SHARED_STORE(((Future *)op)->log_traceback, false);
    return 0;
}

PyObject *
Future_get__source_traceback(PyObject *op, void *closure UNUSED)
{
    GUARD(op);
    PyObject *value = ((Future *)op)->source_traceback;
    return Py_NewRef(value != NULL ? value : Py_None);
}

PyObject *
Future_get__cancel_message(PyObject *op, void *closure UNUSED)
{
    GUARD(op);
    PyObject *value = ((Future *)op)->cancel_message;
    return Py_NewRef(value != NULL ? value : Py_None);
}

int
Future_set__cancel_message(PyObject *op, PyObject *value, void *closure UNUSED)
{
    if (value == NULL) {
        return future_attribute_bool(value);
    }
    PyObject *old;
    {
        GUARD(op);
        old = ((Future *)op)->cancel_message;
        ((Future *)op)->cancel_message = Py_NewRef(value);
    }
    Py_XDECREF(old);
    return 0;
}

/* -- the end -------------------------------------------------------------------- */

void
future_report_steal(Future *self, PyObject *context)
{
    struct state *state = self->state_ptr;
    PyObject *loop = Py_XNewRef(self->loop);
    if (context == NULL || loop == NULL
        || (self->source_traceback != NULL
            && PyDict_SetItem(context, state->names.source_traceback, self->source_traceback) < 0)) {
        goto done;
    }
    PyObject *function = PyObject_GetAttr(loop, state->names.call_exception_handler);
    PyObject *result = function == NULL ? NULL : PyObject_CallOneArg(function, context);
    if (result == NULL && function != NULL) {
#if PY_VERSION_HEX >= 0x030E0000
        PyErr_FormatUnraisable("Exception ignored while calling asyncio function %R", function);
#else
        PyErr_WriteUnraisable(function);
#endif
    }
    Py_XDECREF(result);
    Py_XDECREF(function);
done:
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(context);
    Py_XDECREF(loop);
}

void
future_error_is_known(Future *self)
{
    SHARED_STORE(self->log_traceback, false);
}

void
future_finalize(Future *self)
{
    if (!self->log_traceback || self->future_state != FUTURE_FAILED) {
        return;
    }
    SHARED_STORE(self->log_traceback, false);
    struct state *state = self->state_ptr;
    PyObject *context = NULL, *message = NULL;
    PyObject *name = PyType_GetName(Py_TYPE(self));
    if (name == NULL) {
        goto failed;
    }
    message = PyUnicode_FromFormat("%U exception was never retrieved", name);
    context = message == NULL ? NULL : PyDict_New();
    if (context == NULL
        || PyDict_SetItem(context, state->names.message, message) < 0
        || PyDict_SetItem(context, state->names.exception, self->outcome) < 0
        || PyDict_SetItem(context, state->names.future, (PyObject *)self) < 0) {
        Py_CLEAR(context);
    }
failed:
    Py_XDECREF(name);
    Py_XDECREF(message);
    future_report_steal(self, context);
}

static void
Future_finalize(PyObject *op)
{
    if (!((Future *)op)->log_traceback) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    future_finalize((Future *)op);
    PyErr_SetRaisedException(exc);
}

static int
Future_traverse(PyObject *op, visitproc visit, void *arg)
{
    Future *self = (Future *)op;
#if PY_VERSION_HEX < 0x030C0000
    Py_VISIT(Py_TYPE(op));    /* the base is a heap type later, and does it */
#endif
    if (self->state_ptr != NULL) {
        int result = tasks_state(self->state_ptr)->futures.base.traverse(op, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return future_traverse(self, visit, arg);
}

static int
Future_clear(PyObject *op)
{
    Future *self = (Future *)op;
    future_clear(self);
    return tasks_state(self->state_ptr)->futures.base.clear(op);
}

static void
future_dealloc_now(Future *self)
{
    struct state *state = self->state_ptr;
    PyObject *op = (PyObject *)self;
    if (UNLIKELY(SHARED_LOAD(*(PyObject **)((char *)op + Py_TYPE(op)->tp_weaklistoffset)) != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
    future_clear(self);
    future_free(self, &tasks_state(state)->futures.free, tasks_state(state)->types.Future, &tasks_state(state)->futures.base);
}

static void
Future_dealloc(PyObject *op)
{
    Future *self = (Future *)op;
    /* A subclass with __del__ has run it by now, in the interpreter's own dealloc. */
    if (UNLIKELY(self->log_traceback) && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    untrack_dying(op);
    if (LIKELY(!future_is_deep(self))) {
        future_dealloc_now(self);
        return;
    }
    Py_TRASHCAN_BEGIN(op, Future_dealloc)
        future_dealloc_now(self);
    Py_TRASHCAN_END
}

static PyObject *
Future_new(PyTypeObject *type, PyObject *args UNUSED, PyObject *kwargs UNUSED)
{
    struct state *state = state_of_type(type);
    if (state == NULL) {
        return NULL;
    }
    PyObject *op = type == tasks_state(state)->types.Future
                       ? freelist_take(&tasks_state(state)->futures.free, type)
                       : type->tp_alloc(type, 0);
    if (op != NULL) {
        ((Future *)op)->state_ptr = state;
    }
    return op;
}

static int
Future_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop", NULL};
    PyObject *loop = NULL;
    if (PyTuple_GET_SIZE(args) != 0) {
        PyErr_SetString(PyExc_TypeError, "Future() takes no positional arguments");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Future", names, &loop)) {
        return -1;
    }
#if PY_VERSION_HEX >= 0x030F0000
    if (((Future *)op)->loop != NULL) {
        PyErr_Format(PyExc_RuntimeError, "%T object is already initialized", op);
        return -1;
    }
#endif
    FUTURE_GUARD(op);    /* __init__ may be called again, from anywhere */
    return future_init((Future *)op, loop);
}

/* -- the type ------------------------------------------------------------------- */

static PyMethodDef future_methods[] = {
    FUTURE_METHODS,
    {"set_result", Future_set_result, METH_O,
     PyDoc_STR("set_result($self, result, /)\n--\n\n"
               "Set the result and wake who waits; InvalidStateError if it is done already.")},
    {"set_exception", Future_set_exception, METH_O,
     PyDoc_STR("set_exception($self, exception, /)\n--\n\n"
               "Set an exception (or a class of one) and wake who waits; InvalidStateError\n"
               "if it is done already.")},
    {"cancel", (PyCFunction)(void (*)(void))Future_cancel, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("cancel($self, /, msg=None)\n--\n\n"
               "Cancel it and wake who waits. Returns False if it is done already.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef future_getsets[] = {
    FUTURE_GETSETS,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR(
                    "Future(*, loop=None)\n--\n\n"
                    "A result that is not there yet; asyncio.Future of an asyncloop loop.")},
    {Py_tp_new, Future_new},
    {Py_tp_init, Future_init},
    {Py_tp_dealloc, Future_dealloc},
    {Py_tp_finalize, Future_finalize},
    {Py_tp_traverse, Future_traverse},
    {Py_tp_clear, Future_clear},
    {Py_tp_repr, Future_repr},
    {Py_tp_iter, Future_await},
    {Py_am_await, Future_await},
    {Py_tp_methods, future_methods},
    {Py_tp_getset, future_getsets},
    {0, NULL},
};

static PyType_Spec future_spec = {
    .name = "asyncloop.Future",
    .basicsize = sizeof(Future),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = future_slots,
};

int
future_types_init(PyObject *module, struct state *state)
{
    struct tasks_state *own = tasks_state(state);
    STATE_OWN_UNTIL(state, &own->futures, base);
    const struct state_import wanted[] = {
        {&own->futures.asyncio_Future, "_asyncio", "Future", false},
        {&own->futures.CancelledError, "asyncio.exceptions", "CancelledError", false},
        {&own->futures.InvalidStateError, "asyncio.exceptions", "InvalidStateError", false},
        {&own->futures.get_event_loop, "asyncio.events", "get_event_loop", false},
        {&own->futures.repr, "asyncio.base_futures", "_future_repr", false},
        {&own->futures.extract_stack, "traceback", "extract_stack", false},
    };
    if (STATE_IMPORT(wanted) < 0) {
        return -1;
    }
    PyTypeObject *base = own->futures.asyncio_Future;
    own->futures.base = (struct base_slots){base->tp_traverse, base->tp_clear, base->tp_dealloc};
    if (state_add_type(module, &future_spec, (PyObject *)base, ASYNCIO_FUTURE_SIZE, &own->types.Future) < 0) {
        return -1;
    }
    freelist_init(state, &own->futures.free, own->types.Future);
    standard_set_classes(state, STANDARD_FUTURES_FUTURE, base, own->types.Future);
    return 0;
}
