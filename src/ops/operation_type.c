/* operation_type.c - see operation_inside.h. */
#include "ops/operation_inside.h"

#include "base/checked.h"
#include "base/freelist.h"
#include "loop/owner.h"
#include "net/transport.h"

PyObject *
operation_new(Loop *loop, const struct operation_kind *kind, PyObject *sock,
              PyObject *const *args, Py_ssize_t nargs)
{
    struct state *state = loop->state;
    Operation *op = (Operation *)freelist_take(&ops_state(state)->operations.free, ops_state(state)->types.Operation);
    if (op == NULL) {
        return NULL;
    }
    op->state = state;
    op->kind = kind;
    op->loop = (Loop *)Py_NewRef(loop);
    op->sock = Py_XNewRef(sock);
    for (Py_ssize_t i = 0; i < nargs; i++) {
        op->args[i] = Py_XNewRef(args[i]);
    }
    op->nargs = (uint8_t)nargs;
    op->fd = -1;
    op->count = 0;
    op->phase = op->retries = 0;
    op->started = op->running = op->descriptor_gone = false;
    list_init(&op->watch.active);
    list_init(&op->waiting);
    return (PyObject *)op;
}

static PyObject *
Operation_await(PyObject *self)
{
    return Py_NewRef(self);
}

static int
Operation_traverse(PyObject *self, visitproc visit, void *arg)
{
    Operation *op = (Operation *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(op->loop);
    Py_VISIT(op->sock);
    Py_VISIT(op->number);
    for (int i = 0; i < op->nargs; i++) {
        Py_VISIT(op->args[i]);
    }
    Py_VISIT(op->inner);
    Py_VISIT(op->value);
    Py_VISIT(op->future);
    Py_VISIT(op->timer);
    Py_VISIT(op->handle);
    return 0;
}

static int
Operation_clear(PyObject *self)
{
    watch_abandon(&((Operation *)self)->watch);
    Py_CLEAR(((Operation *)self)->handle);
    operation_finish((Operation *)self);
    return 0;
}

static PyObject *
operation_qualname(Operation *op)
{
    const char *owner = op->kind->owner != NULL ? op->kind->owner : "Loop";
    return PyUnicode_FromFormat("%s.%s", owner, op->kind->name);
}

/* The words of every other coroutine, from its dealloc. */
static void
operation_warn_never_awaited(Operation *op)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s.%s' was never awaited",
                         op->kind->owner, op->kind->name)
        < 0) {
        PyErr_WriteUnraisable(NULL);
    }
    PyErr_SetRaisedException(exc);
}

static void
Operation_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Operation *op = (Operation *)self;
    struct state *state = op->state;
    untrack_dying(self);
    if (UNLIKELY(SHARED_LOAD(op->weakrefs) != NULL)) {
        PyObject_ClearWeakRefs(self);
    }
    if (UNLIKELY(op->kind->warns && !op->started && op->loop != NULL)) {
        operation_warn_never_awaited(op);
    }
    if (op->loop != NULL) {
        operation_finish(op);
    }
    VERIFY(op->sock == NULL && op->future == NULL && op->inner == NULL && op->value == NULL && op->timer == NULL);
    VERIFY(!watch_is_active(&op->watch) && list_empty(&op->waiting));
    if (!freelist_keep(&ops_state(state)->operations.free, self)) {
        type->tp_free(self);
    }
    own_type_drop(type);
}

static PyObject *
Operation_get_name(PyObject *self, void *closure UNUSED)
{
    return PyUnicode_FromString(((Operation *)self)->kind->name);
}

static PyObject *
Operation_get_qualname(PyObject *self, void *closure UNUSED)
{
    return operation_qualname((Operation *)self);
}

static PyObject *
Operation_repr(PyObject *self)
{
    PyObject *name = operation_qualname((Operation *)self);
    if (name == NULL) {
        return NULL;
    }
    PyObject *text = PyUnicode_FromFormat("<coroutine object %U at %p>", name, (void *)self);
    Py_DECREF(name);
    return text;
}

/* What an overridden loop._add_reader() gets: watch.h. */
static PyObject *
Operation_ready(PyObject *self, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(self, Operation);
    Operation *op = (Operation *)self;
    if (op->loop == NULL || op->future == NULL || FLAG(op->loop->closed)) {
        Py_RETURN_NONE;
    }
    return watch_call_ready(op->loop, &op->watch);
}

static PyMethodDef Operation_methods[] = {
    {"send", Operation_send, METH_O,
     INSIDE_DOC("send($self, value, /)\n--\n\nGo on; StopIteration carries the result.")},
    {"throw", (PyCFunction)(void (*)(void))Operation_throw, METH_FASTCALL,
     INSIDE_DOC("throw($self, exc, /)\n--\n\nEnd it with an exception, which is raised.")},
    {"_read_ready", Operation_ready, METH_NOARGS, NULL},
    {"_write_ready", Operation_ready, METH_NOARGS, NULL},
    {"close", Operation_close, METH_NOARGS,
     INSIDE_DOC("close($self, /)\n--\n\nEnd it; nothing waits any more.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Operation_getset[] = {
    {"__name__", Operation_get_name, NULL, NULL, NULL},
    {"__qualname__", Operation_get_qualname, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Operation_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Operation, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot Operation_slots[] = {
    {Py_tp_doc, INSIDE_DOC("What a method of the loop returns to be awaited; it begins when it is.")},
    {Py_tp_dealloc, Operation_dealloc},
    {Py_tp_traverse, Operation_traverse},
    {Py_tp_clear, Operation_clear},
    {Py_tp_repr, Operation_repr},
    {Py_tp_iternext, Operation_iternext},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_am_await, Operation_await},
    {Py_am_send, Operation_am_send},
    {Py_tp_methods, Operation_methods},
    {Py_tp_members, Operation_members},
    {Py_tp_getset, Operation_getset},
    {0, NULL},
};

static PyType_Spec Operation_spec = {
    .name = "asyncloop._core.Operation",
    .basicsize = sizeof(Operation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Operation_slots,
};

/* asyncio.create_task() and the like ask for a collections.abc.Coroutine. */
static int
register_as_coroutine(PyObject *type)
{
    PyObject *abc = PyImport_ImportModule("collections.abc");
    PyObject *coroutine = abc == NULL ? NULL : PyObject_GetAttrString(abc, "Coroutine");
    PyObject *result = coroutine == NULL
                           ? NULL
                           : PyObject_CallMethod(coroutine, "register", "O", type);
    Py_XDECREF(result);
    Py_XDECREF(coroutine);
    Py_XDECREF(abc);
    return result == NULL ? -1 : 0;
}

int
operation_type_init(PyObject *module, struct state *state)
{
    struct ops_state *own = ops_state(state);
    tasks_state(state)->futures.cancelled = operation_cancelled;
    if (state_add_type(module, &Operation_spec, NULL, 0, &own->types.Operation) < 0) {
        return -1;
    }
    freelist_init(state, &own->operations.free, own->types.Operation);
    return register_as_coroutine((PyObject *)own->types.Operation);
}
