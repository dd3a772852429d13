/* unbound.c - asyncio.Task.cancel(task) of a Task of ours.
 *
 * Ours derive from asyncio's types, so that they pass for them everywhere. Methods that are taken from those
 * types, as in map(asyncio.Task.cancel, tasks), would run on asyncio's part of ours, which is empty: done()
 * were False for ever, cancel() without effect, and get_coro() a crash. So what these methods call is ours,
 * which looks whether it was given one of ours, and else goes on with asyncio's.
 *
 * Ignores: attributes that are taken from these types (asyncio.Future._state.__get__(future)). */
#include "tasks/task.h"

/* X(how it is called, whose, name). Task has the methods of Future that are not here once more, as the
 * same functions. */
#if PY_VERSION_HEX >= 0x030C0000
#define METHODS_BY_VERSION(X) \
    X(METHOD, Future, exception) X(METHOD, Future, get_loop) X(METHOD, Future, set_result) \
    X(METHOD, Future, set_exception) X(METHOD, Future, add_done_callback) \
    X(METHOD, Future, remove_done_callback) X(METHOD, Future, cancel) X(NOARGS, Task, get_context)
#else
#define METHODS_BY_VERSION(X) \
    X(NOARGS, Future, exception) X(NOARGS, Future, get_loop) X(O, Future, set_result) \
    X(O, Future, set_exception) X(FASTCALL, Future, add_done_callback) \
    X(O, Future, remove_done_callback) X(FASTCALL, Future, cancel)
#endif
#define METHODS(X) \
    X(NOARGS, Future, result) X(NOARGS, Future, cancelled) X(NOARGS, Future, done) \
    X(NOARGS, Future, _make_cancelled_error) X(NOARGS, Task, _make_cancelled_error) \
    X(NOARGS, Task, cancelling) X(NOARGS, Task, uncancel) X(NOARGS, Task, get_coro) \
    X(NOARGS, Task, get_name) X(O, Task, set_name) X(FASTCALL, Task, cancel) METHODS_BY_VERSION(X)

/* clang-format off */
enum {
#define X(kind, owner, name) owner##_##name,
    METHODS(X)
#undef X
    METHOD_COUNT,
};
/* clang-format on */

typedef void (*function)(void);
typedef PyObject *(*fastcall)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
typedef PyObject *(*method)(PyObject *, PyTypeObject *, PyObject *const *, Py_ssize_t, PyObject *);
/* Of asyncio: the same for all interpreters, as the tables of its methods are. */
static function originals[METHOD_COUNT];

/* The type of ours that has the method, or NULL: the object is none of ours. */
static PyTypeObject *
own_type(PyObject *self, bool of_task)
{
    if (LIKELY(Py_TYPE(self)->tp_basicsize < (Py_ssize_t)sizeof(Future))) {
        return NULL;
    }
    struct state *state = state_of_type(Py_TYPE(self));
    PyErr_Clear();
    PyTypeObject *type = state == NULL ? NULL
                         : of_task     ? tasks_state(state)->types.Task
                                       : tasks_state(state)->types.Future;
    return type != NULL && PyObject_TypeCheck(self, type) ? type : NULL;
}

static PyObject *
call_own(PyTypeObject *type, const char *name, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
         PyObject *kwnames)
{
    PyObject *stack[4] = {self};
    size_t count = (size_t)nargs + (kwnames == NULL ? 0 : (size_t)PyTuple_GET_SIZE(kwnames));
    if (count >= ARRAY_LEN(stack)) {
        return PyErr_Format(PyExc_TypeError, "%s() got too many arguments", name);
    }
    for (size_t i = 0; i < count; i++) {
        stack[i + 1] = args[i];
    }
    PyObject *own = PyObject_GetAttrString((PyObject *)type, name);
    PyObject *result = own == NULL ? NULL : PyObject_Vectorcall(own, stack, (size_t)nargs + 1, kwnames);
    Py_XDECREF(own);
    return result;
}

#define OF_TASK(owner) (sizeof(#owner) == sizeof("Task"))

#define DEFINE(owner, name, parameters, type_of_original, arguments, args, nargs, kwnames)       \
    static PyObject *call_##owner##_##name parameters                                            \
    {                                                                                            \
        PyTypeObject *type = own_type(self, OF_TASK(owner));                                     \
        return LIKELY(type == NULL) ? ((type_of_original)originals[owner##_##name])arguments     \
                                    : call_own(type, #name, self, args, nargs, kwnames);         \
    }
#define DEFINE_NOARGS(owner, name) \
    DEFINE(owner, name, (PyObject * self, PyObject *arg), PyCFunction, (self, arg), NULL, 0, NULL)
#define DEFINE_O(owner, name) \
    DEFINE(owner, name, (PyObject * self, PyObject *arg), PyCFunction, (self, arg), &arg, 1, NULL)
#define DEFINE_FASTCALL(owner, name)                                                                   \
    DEFINE(owner, name, (PyObject * self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames), \
           fastcall, (self, args, nargs, kwnames), args, nargs, kwnames)
#define DEFINE_METHOD(owner, name)                                                                  \
    DEFINE(owner, name,                                                                             \
           (PyObject * self, PyTypeObject * class, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames), \
           method, (self, class, args, nargs, kwnames), args, nargs, kwnames)
#define X(kind, owner, name) DEFINE_##kind(owner, name)
METHODS(X)
#undef X

#define FLAGS_NOARGS METH_NOARGS
#define FLAGS_O METH_O
#define FLAGS_FASTCALL (METH_FASTCALL | METH_KEYWORDS)
#define FLAGS_METHOD (METH_METHOD | METH_FASTCALL | METH_KEYWORDS)

static const struct {
    const char *name;
    function instead;
    int flags;
    bool of_task;
} methods[] = {
#define X(kind, owner, name) {#name, (function)call_##owner##_##name, FLAGS_##kind, OF_TASK(owner)},
    METHODS(X)
#undef X
};

/* Where the type's method is called as it was on each Python that is known, it calls ours from now on. */
static void
lead_to_ours(PyTypeObject *type, size_t i)
{
    PyObject *theirs = PyObject_GetAttrString((PyObject *)type, methods[i].name);
    if (theirs != NULL && Py_IS_TYPE(theirs, &PyMethodDescr_Type)) {
        PyMethodDef *def = ((PyMethodDescrObject *)theirs)->d_method;
        function now = (function)SHARED_LOAD(def->ml_meth);
        if (def->ml_flags == methods[i].flags && now != methods[i].instead
            && (originals[i] == NULL || originals[i] == now)) {
            originals[i] = now;
            SHARED_STORE(def->ml_meth, (PyCFunction)methods[i].instead);
        }
    }
    PyErr_Clear();
    Py_XDECREF(theirs);
}

int
unbound_init(PyObject *module UNUSED, struct state *state)
{
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (!methods[i].of_task) {
            lead_to_ours(tasks_state(state)->futures.asyncio_Future, i);
        }
        /* What Task has of Future is the same function, or one of its own. */
        lead_to_ours(tasks_state(state)->tasks.asyncio_Task, i);
    }
    return 0;
}
