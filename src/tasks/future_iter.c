/* future_iter.c - the iterator behind `await future`.
 *
 * It yields the future once, marked as blocking, and ends with its result. The interpreter
 * calls iternext for every await, so a result of None ends it without a StopIteration. */
#include "tasks/future.h"

#include "base/freelist.h"
#include "base/tuning.h"

typedef struct {
    PyObject_HEAD
    struct state *state;          /* borrowed: the type keeps the module alive */
    Future *future;               /* strong; NULL once exhausted */
#ifdef Py_GIL_DISABLED
    bool ended;                   /* by a thread that may not take the future out */
#endif
} FutureIter;

PyObject *
Future_await(PyObject *op)
{
    Future *future = (Future *)op;
    struct state *state = future->state_ptr;
    if (UNLIKELY(future->loop == NULL)) {
        return future_not_initialised();
    }
    FutureIter *self = (FutureIter *)freelist_take(&tasks_state(state)->futures.free_iters, tasks_state(state)->types.FutureIter);
    if (self != NULL) {
        self->state = state;
        self->future = (Future *)Py_NewRef(op);
#ifdef Py_GIL_DISABLED
        self->ended = false;
#endif
    }
    return (PyObject *)self;
}

#ifdef Py_GIL_DISABLED
/* The thread that made the iterator alone takes the future out, in the critical section: so it may look at it
 * without. Another one marks the iterator. */
static inline bool
future_iter_is_mine(FutureIter *self)
{
    return LIKELY(_Py_IsOwnedByCurrentThread((PyObject *)self));
}

/* For the time of a step: borrowed where this thread made the iterator, else *held as well. NULL: it is exhausted. */
static inline Future *
future_iter_future(FutureIter *self, Future **held)
{
    if (UNLIKELY(SHARED_LOAD(self->ended))) {
        return NULL;
    }
    if (future_iter_is_mine(self)) {
        return self->future;
    }
    GUARD(self);
    *held = (Future *)Py_XNewRef(self->future);
    return *held;
}

/* It is exhausted. What it had, or NULL. */
static Future *
future_iter_take(FutureIter *self)
{
    Future *future = NULL;
    GUARD(self);
    if (future_iter_is_mine(self)) {
        future = self->future;
        self->future = NULL;
    }
    SHARED_STORE(self->ended, true);
    return future;
}
#else
static inline Future *
future_iter_future(FutureIter *self, Future **held UNUSED)
{
    return self->future;
}

static inline Future *
future_iter_take(FutureIter *self)
{
    Future *future = self->future;
    self->future = NULL;
    return future;
}
#endif

/* Ends with the result of a future that is done. */
static inline PySendResult
future_iter_finish(FutureIter *self, Future *future, PyObject **result)
{
    PyObject *outcome;
#if PY_VERSION_HEX >= 0x030E0000
    (void)self;    /* as asyncio's, it answers again if it is asked again */
    int failed = future_take(future, &outcome);
#else
    Future *own = future_iter_take(self);
    int failed = future_take(future, &outcome);
    Py_XDECREF(own);
#endif
    if (LIKELY(failed == 0)) {
        *result = outcome;
        return PYGEN_RETURN;
    }
    *result = NULL;
    if (outcome != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(outcome), outcome);
        Py_DECREF(outcome);
    }
    return PYGEN_ERROR;
}

static inline PySendResult
future_iter_step(FutureIter *self, Future *future, PyObject **result)
{
    if (UNLIKELY(future == NULL)) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    if (!future_is_pending(future)) {
        return future_iter_finish(self, future, result);
    }
    if (UNLIKELY(SHARED_LOAD(future->blocking))) {
        *result = NULL;
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        return PYGEN_ERROR;
    }
    SHARED_STORE(future->blocking, true);
    *result = Py_NewRef(future);
    return PYGEN_NEXT;
}

static PySendResult
FutureIter_send(PyObject *op, PyObject *ignored UNUSED, PyObject **result)
{
    FutureIter *self = (FutureIter *)op;
    Future *held = NULL;
    PySendResult status = future_iter_step(self, future_iter_future(self, &held), result);
    Py_XDECREF(held);
    return status;
}

static void
future_iter_end(PyObject *op)
{
    Py_XDECREF(future_iter_take((FutureIter *)op));
}

/* StopIteration(value), made by hand: PyErr_SetObject() would take a tuple for its
 * arguments, and an exception for itself. */
void
stop_iteration_steal(PyObject *value)
{
    PyTypeObject *type = (PyTypeObject *)PyExc_StopIteration;
    PyObject *args = PyTuple_Pack(1, value);
    PyObject *exc = args == NULL ? NULL : type->tp_new(type, args, NULL);
    if (exc != NULL && type->tp_init(exc, args, NULL) < 0) {
        Py_CLEAR(exc);
    }
    Py_XDECREF(args);
    Py_DECREF(value);
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

/* Bytes: what the spare exception may keep alive. (Guarded path sock, which takes 7 % more instructions without it
 * on 3.13; before 3.12 an await ends without an exception.) */
#define KEPT_VALUE_MAX TUNED(KEPT_VALUE_MAX, 16384)

void
stop_iteration_bytes_steal(struct state *state, PyObject *value)
{
#ifndef Py_GIL_DISABLED
    if (PyBytes_CheckExact(value) && PyBytes_GET_SIZE(value) <= KEPT_VALUE_MAX) {
        PyObject *spare = tasks_state(state)->futures.stop_iteration;
        if (UNLIKELY(spare == NULL)) {
            spare = tasks_state(state)->futures.stop_iteration = PyObject_CallNoArgs(PyExc_StopIteration);
            if (spare == NULL) {
                Py_DECREF(value);
                return;
            }
        }
        if (LIKELY(Py_REFCNT(spare) == 1)) {
            PyStopIterationObject *stop = (PyStopIterationObject *)spare;
            Py_XSETREF(stop->value, value);
            Py_CLEAR(stop->traceback);
            Py_CLEAR(stop->context);
            PyErr_SetRaisedException(Py_NewRef(spare));
            return;
        }
    }
#else
    (void)state;
#endif
    stop_iteration_steal(value);
}

static PyObject *
FutureIter_iternext(PyObject *op)
{
    PyObject *result;
    if (FutureIter_send(op, Py_None, &result) != PYGEN_RETURN) {
        return result;
    }
    if (result == Py_None) {
        Py_DECREF(result);
    }
    else {
        stop_iteration_steal(result);
    }
    return NULL;
}

static PyObject *
FutureIter_send_method(PyObject *op, PyObject *value UNUSED)
{
    PyObject *result;
    if (FutureIter_send(op, Py_None, &result) != PYGEN_RETURN) {
        return result;
    }
    stop_iteration_steal(result);
    return NULL;
}

PyObject *
exception_from_throw(PyObject *type, PyObject *value, PyObject *traceback)
{
    if (traceback == Py_None) {
        traceback = NULL;
    }
    if (traceback != NULL && !PyTraceBack_Check(traceback)) {
        PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback");
        return NULL;
    }
    if (PyExceptionInstance_Check(type)) {
        if (value != NULL && value != Py_None) {
            PyErr_SetString(PyExc_TypeError, "instance exception may not have a separate value");
            return NULL;
        }
        Py_INCREF(type);
        if (traceback != NULL && PyException_SetTraceback(type, traceback) < 0) {
            Py_CLEAR(type);
        }
        return type;
    }
    if (!PyExceptionClass_Check(type)) {
        PyErr_SetString(PyExc_TypeError,
                        "exceptions must be classes deriving BaseException or instances of such a class");
        return NULL;
    }
    /* a class: made from the value as `raise` makes it */
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), Py_XNewRef(traceback));
    return PyErr_GetRaisedException();
}

static PyObject *
FutureIter_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        return PyErr_Format(PyExc_TypeError, "throw expected at %s, got %zd",
                            nargs < 1 ? "least 1 argument" : "most 3 arguments", nargs);
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (nargs > 1
        && PyErr_WarnEx(PyExc_DeprecationWarning,
                        "the (type, exc, tb) signature of throw() is deprecated, "
                        "use the single-arg signature instead.",
                        1)
               < 0) {
        return NULL;
    }
#endif
    PyObject *exc = exception_from_throw(args[0], nargs > 1 ? args[1] : NULL,
                                         nargs > 2 ? args[2] : NULL);
    if (exc == NULL) {
        return NULL;
    }
    future_iter_end(op);
    PyErr_SetRaisedException(exc);
    return NULL;
}

static PyObject *
FutureIter_close(PyObject *op, PyObject *ignored UNUSED)
{
    future_iter_end(op);
    Py_RETURN_NONE;
}

static int
FutureIter_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((FutureIter *)op)->future);
    return 0;
}

static int
FutureIter_clear(PyObject *op)
{
    Py_CLEAR(((FutureIter *)op)->future);
    return 0;
}

static void
FutureIter_dealloc(PyObject *op)
{
    FutureIter *self = (FutureIter *)op;
    PyTypeObject *type = Py_TYPE(op);
    struct state *state = self->state;
    untrack_dying(op);
    Py_CLEAR(self->future);
    if (!freelist_keep(&tasks_state(state)->futures.free_iters, op)) {
        type->tp_free(op);
    }
    own_type_drop(type);
}

static PyMethodDef future_iter_methods[] = {
    {"send", FutureIter_send_method, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))FutureIter_throw, METH_FASTCALL, NULL},
    {"close", FutureIter_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot future_iter_slots[] = {
    {Py_tp_dealloc, FutureIter_dealloc},
    {Py_tp_traverse, FutureIter_traverse},
    {Py_tp_clear, FutureIter_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, FutureIter_iternext},
    {Py_am_send, FutureIter_send},
    {Py_tp_methods, future_iter_methods},
    {0, NULL},
};

static PyType_Spec future_iter_spec = {
    .name = "asyncloop.FutureIter",
    .basicsize = sizeof(FutureIter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = future_iter_slots,
};

int
future_iter_type_init(PyObject *module, struct state *state)
{
    struct tasks_state *own = tasks_state(state);
    if (state_add_type(module, &future_iter_spec, NULL, 0, &own->types.FutureIter) < 0) {
        return -1;
    }
    freelist_init(state, &own->futures.free_iters, own->types.FutureIter);
    return 0;
}
