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
    Loop *loop;                   /* strong: what the thread that made it ran, or NULL; for brief sections */
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
        self->loop = (Loop *)Py_XNewRef(brief_loop);
#endif
    }
    return (PyObject *)self;
}

#ifdef Py_GIL_DISABLED
#define ITER_BRIEFLY(self, ...) BRIEFLY(self, &(self)->loop, __VA_ARGS__)
#else
#define ITER_BRIEFLY(self, ...) BRIEFLY(self, NULL, __VA_ARGS__)
#endif

/* What the next step is. A future that is done is given away in *done. */
static inline PySendResult
future_iter_look(FutureIter *self, PyObject **result, Future **done)
{
    Future *future = self->future;
    if (UNLIKELY(future == NULL)) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    if (future_is_pending(future)) {
        if (UNLIKELY(SHARED_LOAD(future->blocking))) {
            return PYGEN_ERROR;
        }
        SHARED_STORE(future->blocking, true);
        *result = Py_NewRef(future);
        return PYGEN_NEXT;
    }
#if PY_VERSION_HEX >= 0x030E0000
    *done = (Future *)Py_NewRef(future);    /* as asyncio's, it answers again if it is asked again */
#else
    self->future = NULL;
    *done = future;
#endif
    return PYGEN_RETURN;
}

static inline PySendResult
future_iter_finish_steal(Future *future, PyObject **result)
{
    PyObject *outcome;
    int failed = future_take(future, &outcome);
    Py_DECREF(future);
    if (LIKELY(failed == 0)) {
        *result = outcome;
        return PYGEN_RETURN;
    }
    if (outcome != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(outcome), outcome);
        Py_DECREF(outcome);
    }
    return PYGEN_ERROR;
}

static inline PySendResult
future_iter_send(FutureIter *self, PyObject **result)
{
    PySendResult status;
    Future *done = NULL;
    *result = NULL;
    ITER_BRIEFLY(self, { status = future_iter_look(self, result, &done); });
    if (done != NULL) {
        return future_iter_finish_steal(done, result);
    }
    if (UNLIKELY(status == PYGEN_ERROR)) {
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
    }
    return status;
}

static PySendResult
FutureIter_send(PyObject *op, PyObject *ignored UNUSED, PyObject **result)
{
    return future_iter_send((FutureIter *)op, result);
}

static void
future_iter_end(PyObject *op)
{
    FutureIter *self = (FutureIter *)op;
    Future *future;
    ITER_BRIEFLY(self, {
        future = self->future;
        self->future = NULL;
    });
    Py_XDECREF(future);
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
#ifdef Py_GIL_DISABLED
    Py_VISIT(((FutureIter *)op)->loop);
#endif
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
    PyObject_GC_UnTrack(op);
    Py_CLEAR(self->future);
#ifdef Py_GIL_DISABLED
    Py_CLEAR(self->loop);
#endif
    if (!freelist_keep(&tasks_state(state)->futures.free_iters, op)) {
        type->tp_free(op);
    }
    Py_DECREF(type);
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
