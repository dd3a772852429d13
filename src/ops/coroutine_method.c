/* coroutine_method.c - see coroutine_method.h.
 *
 * Owns: the method of C that it stands for, and the function of asyncio that describes it. */
#include "ops/coroutine_method.h"

#include "loop/loop.h"
#include "ops/ops_state.h"

typedef PyObject *(*loop_method)(PyObject *loop, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames);

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    struct state *state;
    loop_method call;
    PyObject *method;      /* a method descriptor of C */
    PyObject *function;    /* in Python, of the same name: its code and what belongs to that */
} CoroutineMethod;

static PyObject *
CoroutineMethod_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    CoroutineMethod *self = (CoroutineMethod *)op;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (UNLIKELY(nargs < 1 || !loop_check(self->state, args[0]))) {
        return PyObject_Vectorcall(self->method, args, nargsf, kwnames);    /* says what is wrong */
    }
    return self->call(args[0], args + 1, nargs - 1, kwnames);
}

static PyObject *
CoroutineMethod_get(PyObject *op, PyObject *loop, PyObject *type UNUSED)
{
    return loop == NULL || loop == Py_None ? Py_NewRef(op) : PyMethod_New(op, loop);
}

static PyObject *
CoroutineMethod_repr(PyObject *op)
{
    return PyObject_Repr(((CoroutineMethod *)op)->method);
}

static PyObject *
CoroutineMethod_of_function(PyObject *op, void *name)
{
    return PyObject_GetAttrString(((CoroutineMethod *)op)->function, name);
}

static PyObject *
CoroutineMethod_of_method(PyObject *op, void *name)
{
    return PyObject_GetAttrString(((CoroutineMethod *)op)->method, name);
}

static int
CoroutineMethod_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((CoroutineMethod *)op)->method);
    Py_VISIT(((CoroutineMethod *)op)->function);
    return 0;
}

static int
CoroutineMethod_clear(PyObject *op)
{
    Py_CLEAR(((CoroutineMethod *)op)->function);
    return 0;
}

static void
CoroutineMethod_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)CoroutineMethod_clear(op);
    Py_CLEAR(((CoroutineMethod *)op)->method);
    type->tp_free(op);
    Py_DECREF(type);
}

#define OF_FUNCTION(name) {name, CoroutineMethod_of_function, NULL, NULL, (void *)name}
#define OF_METHOD(name) {name, CoroutineMethod_of_method, NULL, NULL, (void *)name}

static PyGetSetDef CoroutineMethod_getset[] = {
    OF_FUNCTION("__code__"),
    OF_FUNCTION("__defaults__"),
    OF_FUNCTION("__kwdefaults__"),
    OF_FUNCTION("__annotations__"),
    OF_METHOD("__name__"),
    OF_METHOD("__qualname__"),
    OF_METHOD("__doc__"),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef CoroutineMethod_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(CoroutineMethod, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot CoroutineMethod_slots[] = {
    {Py_tp_dealloc, CoroutineMethod_dealloc},
    {Py_tp_traverse, CoroutineMethod_traverse},
    {Py_tp_clear, CoroutineMethod_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, CoroutineMethod_get},
    {Py_tp_repr, CoroutineMethod_repr},
    {Py_tp_getset, CoroutineMethod_getset},
    {Py_tp_members, CoroutineMethod_members},
    {0, NULL},
};

static PyType_Spec CoroutineMethod_spec = {
    .name = "asyncloop._core._CoroutineMethod",
    .basicsize = sizeof(CoroutineMethod),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL
             | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = CoroutineMethod_slots,
};

/* Both references are stolen, also on failure. */
static int
replace_steal(struct state *state, const char *name, PyObject *method, PyObject *function)
{
    PyTypeObject *type = ops_state(state)->types.CoroutineMethod;
    int result = -1;
    if (method != NULL && function != NULL && PyFunction_Check(function)
        && Py_IS_TYPE(method, &PyMethodDescr_Type)) {
        CoroutineMethod *self = (CoroutineMethod *)type->tp_alloc(type, 0);
        if (self != NULL) {
            self->vectorcall = CoroutineMethod_vectorcall;
            self->call = (loop_method)(void (*)(void))((PyMethodDescrObject *)method)->d_method->ml_meth;
            self->method = Py_NewRef(method);
            self->function = Py_NewRef(function);
            self->state = state;
            result = PyObject_SetAttrString((PyObject *)loop_state(state)->types.Loop, name, (PyObject *)self);
            Py_DECREF(self);
        }
    }
    else if (method != NULL) {
        PyErr_Clear();
        result = 0;    /* asyncio's has been replaced by what describes nothing: it stays C's */
    }
    Py_XDECREF(method);
    Py_XDECREF(function);
    return result;
}

int
coroutine_methods_init(PyObject *module, struct state *state)
{
    static const char *const names[] = {
        "sock_recv",
        "sock_recv_into",
        "sock_recvfrom",
        "sock_recvfrom_into",
        "sock_sendall",
        "sock_sendto",
        "sock_connect",
        "sock_accept",
        "getaddrinfo",
    };
    PyTypeObject **type = &ops_state(state)->types.CoroutineMethod;
    PyObject *loop_type = (PyObject *)loop_state(state)->types.Loop;
    if (state_add_type(module, &CoroutineMethod_spec, NULL, 0, type) < 0) {
        return -1;
    }
    PyObject *events = PyImport_ImportModule("asyncio.selector_events");
    PyObject *described = events == NULL ? NULL
                                         : PyObject_GetAttrString(events, "BaseSelectorEventLoop");
    Py_XDECREF(events);
    int result = described == NULL ? -1 : 0;
    for (size_t i = 0; result == 0 && i < ARRAY_LEN(names); i++) {
        PyObject *method = PyObject_GetAttrString(loop_type, names[i]);
        PyObject *function = method == NULL ? NULL : PyObject_GetAttrString(described, names[i]);
        result = replace_steal(state, names[i], method, function);
    }
    Py_XDECREF(described);
    return result;
}
