/* unbound.c - asyncio.Task.cancel(task) of a Task of ours.
 *
 * Ours derive from asyncio's types, so that they pass for them everywhere. What is taken from those types, as
 * in map(asyncio.Task.cancel, tasks) or asyncio.Future._state.__get__(future), would work on asyncio's part of
 * ours, which is empty: done() were False for ever, cancel() without effect, get_coro() a crash, and __init__()
 * a second task in the same object. So what asyncio's descriptors call is ours, which looks whether it was given
 * one of ours, and else goes on with asyncio's.
 *
 * It is what they call that changes, not the descriptors: programs that took `asyncio.Task.cancel` before we
 * were imported have the same object as those that take it later, and nothing tells it from asyncio's; bound
 * methods and the interpreter's specialised calls look there as well. Other descriptors in the dicts of the
 * types would be none of this, and these types are immutable.
 * What methods and attributes call is in tables of _asyncio's, which all interpreters of a process share; what
 * slots call is in the descriptor, from 3.12 on one for each interpreter. Both stay as they are until the
 * process ends: no extension is unloaded, and where there are no types of ours, asyncio's goes on. A second
 * copy of this extension in the process finds the first one's, and goes on with it.
 *
 * Ignores: __del__(), which does nothing with asyncio's part (what ends an object is the type's, not this); a
 *          thread that calls such a method at the moment in which the first one imports us, on machines on
 *          which it may see the new function before `originals`. */
#include "tasks/task.h"

#include <string.h>

/* X(how it is called, whose, name). Task has what Future has and is not here once more, as the same
 * functions. _asyncio_awaited_by is asyncio's part of ours, in use (introspect.c). */
#if PY_VERSION_HEX >= 0x030C0000
#define METHODS_BY_VERSION(X) \
    X(CLASS, Future, exception) X(CLASS, Future, get_loop) X(CLASS, Future, set_result) \
    X(CLASS, Future, set_exception) X(CLASS, Future, add_done_callback) \
    X(CLASS, Future, remove_done_callback) X(CLASS, Future, cancel) X(NOARGS, Task, get_context)
#else
#define METHODS_BY_VERSION(X) \
    X(NOARGS, Future, exception) X(NOARGS, Future, get_loop) X(O, Future, set_result) \
    X(O, Future, set_exception) X(FASTCALL, Future, add_done_callback) \
    X(O, Future, remove_done_callback) X(FASTCALL, Future, cancel)
#endif
#define MEMBERS(X) \
    X(NOARGS, Future, result) X(NOARGS, Future, cancelled) X(NOARGS, Future, done) \
    X(NOARGS, Future, _make_cancelled_error) X(NOARGS, Task, _make_cancelled_error) \
    X(NOARGS, Task, cancelling) X(NOARGS, Task, uncancel) X(NOARGS, Task, get_coro) \
    X(NOARGS, Task, get_name) X(O, Task, set_name) X(FASTCALL, Task, cancel) METHODS_BY_VERSION(X) \
    X(GET, Future, _state) X(GET, Future, _loop) X(GET, Future, _callbacks) X(GET, Future, _result) \
    X(GET, Future, _exception) X(GET, Future, _source_traceback) X(GETSET, Future, _asyncio_future_blocking) \
    X(GETSET, Future, _log_traceback) X(GETSET, Future, _cancel_message) X(GET, Task, _coro) \
    X(GET, Task, _fut_waiter) X(GET, Task, _must_cancel) X(GETSET, Task, _log_destroy_pending) \
    X(UNARY, Future, __await__) X(UNARY, Future, __iter__) X(UNARY, Future, __repr__) \
    X(UNARY, Task, __repr__) X(INIT, Future, __init__) X(INIT, Task, __init__)

/* clang-format off */
enum member {
#define X(kind, owner, name) owner##_##name,
    MEMBERS(X)
#undef X
    MEMBER_COUNT,
};
/* clang-format on */

typedef void (*function)(void);
typedef PyObject *(*fastcall)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
typedef PyObject *(*method)(PyObject *, PyTypeObject *, PyObject *const *, Py_ssize_t, PyObject *);

/* Of asyncio: the same for all interpreters. */
static function originals[MEMBER_COUNT], original_setters[MEMBER_COUNT];

/* Each of the functions that are called instead of asyncio's would have it once more. */
#define ONCE __attribute__((noinline)) static

#define OF_TASK(owner) (sizeof(#owner) == sizeof("Task"))

enum kind {
    KIND_NOARGS = METH_NOARGS,    /* a method with these flags */
    KIND_O = METH_O,
    KIND_FASTCALL = METH_FASTCALL | METH_KEYWORDS,
    KIND_CLASS = METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
    KIND_GET = -3,                /* an attribute */
    KIND_GETSET,
    KIND_UNARY,                   /* slots */
    KIND_INIT = KIND_UNARY,
};

static const struct member_of_theirs {
    function instead, instead_setter;
    int16_t kind;
    bool of_task;
} members[MEMBER_COUNT];

/* One behind the other: smaller than a pointer to each. */
static const char names[] =
#define X(kind, owner, name) #name "\0"
    MEMBERS(X)
#undef X
    ;

/* The type of ours that has the member, or NULL: the object is none of ours. */
static PyTypeObject *
own_type(PyObject *self, enum member i)
{
    if (LIKELY(Py_TYPE(self)->tp_basicsize < (Py_ssize_t)sizeof(Future))) {
        return NULL;
    }
    struct state *state = state_of_type(Py_TYPE(self));
    PyErr_Clear();
    PyTypeObject *type = state == NULL        ? NULL
                         : members[i].of_task ? tasks_state(state)->types.Task
                                              : tasks_state(state)->types.Future;
    return type != NULL && PyObject_TypeCheck(self, type) ? type : NULL;
}

static PyObject *
own_member(PyTypeObject *type, enum member i)
{
    const char *name = names;
    while (i-- > 0) {
        name += strlen(name) + 1;
    }
    return PyObject_GetAttrString((PyObject *)type, name);
}

#define ARGUMENTS_MAX 2

static size_t
argument_count(Py_ssize_t nargs, PyObject *kwnames)
{
    return (size_t)nargs + (kwnames == NULL ? 0 : (size_t)PyTuple_GET_SIZE(kwnames));
}

static PyObject *
call_own(PyTypeObject *type, enum member i, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
         PyObject *kwnames)
{
    PyObject *stack[1 + ARGUMENTS_MAX] = {self};
    for (size_t arg = 0; arg < argument_count(nargs, kwnames); arg++) {
        stack[1 + arg] = args[arg];
    }
    PyObject *own = own_member(type, i);
    PyObject *result = own == NULL ? NULL : PyObject_Vectorcall(own, stack, (size_t)nargs + 1, kwnames);
    Py_XDECREF(own);
    return result;
}

ONCE PyObject *
call_noargs(PyObject *self, PyObject *arg, enum member i)
{
    PyTypeObject *type = own_type(self, i);
    return LIKELY(type == NULL) ? ((PyCFunction)originals[i])(self, arg)
                                : call_own(type, i, self, &arg, members[i].kind == KIND_O, NULL);
}

/* asyncio's complains about more than any of these takes. */
static inline PyTypeObject *
own_type_with(PyObject *self, Py_ssize_t nargs, PyObject *kwnames, enum member i)
{
    return argument_count(nargs, kwnames) > ARGUMENTS_MAX ? NULL : own_type(self, i);
}

ONCE PyObject *
call_fastcall(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, enum member i)
{
    PyTypeObject *type = own_type_with(self, nargs, kwnames, i);
    return LIKELY(type == NULL) ? ((fastcall)originals[i])(self, args, nargs, kwnames)
                                : call_own(type, i, self, args, nargs, kwnames);
}

#if PY_VERSION_HEX >= 0x030C0000
ONCE PyObject *
call_class(PyObject *self, PyTypeObject *class, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
           enum member i)
{
    PyTypeObject *type = own_type_with(self, nargs, kwnames, i);
    return LIKELY(type == NULL) ? ((method)originals[i])(self, class, args, nargs, kwnames)
                                : call_own(type, i, self, args, nargs, kwnames);
}
#endif

ONCE PyObject *
call_unary(PyObject *self, enum member i)
{
    PyTypeObject *type = own_type(self, i);
    return LIKELY(type == NULL) ? ((unaryfunc)originals[i])(self) : call_own(type, i, self, NULL, 0, NULL);
}

ONCE int
call_init(PyObject *self, PyObject *args, PyObject *kwargs, enum member i)
{
    PyTypeObject *type = own_type(self, i);
    return LIKELY(type == NULL) ? ((initproc)originals[i])(self, args, kwargs)
                                : type->tp_init(self, args, kwargs);
}

ONCE PyObject *
call_get(PyObject *self, void *closure, enum member i)
{
    PyTypeObject *type = own_type(self, i);
    if (LIKELY(type == NULL)) {
        return ((getter)originals[i])(self, closure);
    }
    PyObject *own = own_member(type, i);
    PyObject *value = own == NULL ? NULL : Py_TYPE(own)->tp_descr_get(own, self, (PyObject *)type);
    Py_XDECREF(own);
    return value;
}

ONCE int
call_set(PyObject *self, PyObject *value, void *closure, enum member i)
{
    PyTypeObject *type = own_type(self, i);
    if (LIKELY(type == NULL)) {
        return ((setter)original_setters[i])(self, value, closure);
    }
    PyObject *own = own_member(type, i);
    int result = own == NULL ? -1 : Py_TYPE(own)->tp_descr_set(own, self, value);
    Py_XDECREF(own);
    return result;
}

/* -- what asyncio's descriptors call: each knows only its name ---------------------- */

#define DEFINE(prefix, result, member, parameters, call) \
    static result prefix##_##member parameters           \
    {                                                    \
        return call;                                     \
    }
#define DEFINE_NOARGS(m) \
    DEFINE(do, PyObject *, m, (PyObject * self, PyObject *arg), call_noargs(self, arg, m))
#define DEFINE_O(m) DEFINE_NOARGS(m)
#define DEFINE_FASTCALL(m)                                                                           \
    DEFINE(do, PyObject *, m,                                                                        \
           (PyObject * self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames),            \
           call_fastcall(self, args, nargs, kwnames, m))
#define DEFINE_CLASS(m)                                                                              \
    DEFINE(do, PyObject *, m,                                                                        \
           (PyObject * self, PyTypeObject * class, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames), \
           call_class(self, class, args, nargs, kwnames, m))
#define DEFINE_UNARY(m) DEFINE(do, PyObject *, m, (PyObject * self), call_unary(self, m))
#define DEFINE_INIT(m) \
    DEFINE(do, int, m, (PyObject * self, PyObject *args, PyObject *kwargs), call_init(self, args, kwargs, m))
#define DEFINE_GET(m) DEFINE(do, PyObject *, m, (PyObject * self, void *closure), call_get(self, closure, m))
#define DEFINE_GETSET(m) \
    DEFINE_GET(m)        \
    DEFINE(set, int, m, (PyObject * self, PyObject *value, void *closure), call_set(self, value, closure, m))
#define X(kind, owner, name) DEFINE_##kind(owner##_##name)
MEMBERS(X)
#undef X

#define SETTER_NOARGS(m) NULL
#define SETTER_O(m) NULL
#define SETTER_FASTCALL(m) NULL
#define SETTER_CLASS(m) NULL
#define SETTER_UNARY(m) NULL
#define SETTER_INIT(m) NULL
#define SETTER_GET(m) NULL
#define SETTER_GETSET(m) (function)set_##m

static const struct member_of_theirs members[] = {
#define X(kind, owner, name)                                                                              \
    {(function)do_##owner##_##name, SETTER_##kind(owner##_##name), KIND_##kind, OF_TASK(owner)},
    MEMBERS(X)
#undef X
};

/* -- leading there ------------------------------------------------------------------- */

static void
lead(function *place, function *original, function instead)
{
    function now = __atomic_load_n(place, __ATOMIC_ACQUIRE);
    if (now != instead && (*original == NULL || *original == now)) {
        *original = now;
        __atomic_store_n(place, instead, __ATOMIC_RELEASE);    /* each interpreter may have a GIL of its own */
    }
}

/* Where the type's member is what it was on each Python that is known, it leads to ours from now on. */
static void
lead_to_ours(PyTypeObject *type, PyTypeObject *own_type, enum member i)
{
    PyObject *theirs = own_member(type, i), *own = own_member(own_type, i);
    int kind = members[i].kind;
    if (theirs == NULL || own == NULL || theirs == own) {
        /* nothing there, or nothing of ours */
    }
    else if (kind > 0 && Py_IS_TYPE(theirs, &PyMethodDescr_Type)) {
        PyMethodDef *def = ((PyMethodDescrObject *)theirs)->d_method;
        if (def->ml_flags == kind) {
            lead((function *)&def->ml_meth, &originals[i], members[i].instead);
        }
    }
    else if ((kind == KIND_GET || kind == KIND_GETSET) && Py_IS_TYPE(theirs, &PyGetSetDescr_Type)) {
        PyGetSetDef *def = ((PyGetSetDescrObject *)theirs)->d_getset;
        lead((function *)&def->get, &originals[i], members[i].instead);
        if (kind == KIND_GETSET && def->set != NULL) {
            lead((function *)&def->set, &original_setters[i], members[i].instead_setter);
        }
    }
    else if (kind == KIND_UNARY && Py_IS_TYPE(theirs, &PyWrapperDescr_Type)) {
        lead((function *)&((PyWrapperDescrObject *)theirs)->d_wrapped, &originals[i], members[i].instead);
    }
    PyErr_Clear();
    Py_XDECREF(theirs);
    Py_XDECREF(own);
}

int
unbound_init(PyObject *module UNUSED, struct state *state)
{
    struct tasks_state *own = tasks_state(state);
    for (size_t i = 0; i < MEMBER_COUNT; i++) {
        if (!members[i].of_task) {
            lead_to_ours(own->futures.asyncio_Future, own->types.Future, i);
        }
        /* What Task has of Future is the same function, or one of its own. */
        lead_to_ours(own->tasks.asyncio_Task, own->types.Task, i);
    }
    return 0;
}
