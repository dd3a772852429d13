/* sockop.c - see sockop.h.
 *
 * A FdWaiter watches one descriptor until it is ready once, or until stop(). The one who
 * waits calls stop() as soon as it no longer waits, for whatever reason, before it closes
 * the descriptor: no watch outlives its operation. */
#include "sockop.h"

#include <errno.h>

#include "future.h"
#include "watch.h"

typedef struct {
    PyObject_HEAD
    Loop *loop;            /* strong; NULL once stopped */
    PyObject *future;
    struct watch watch;
} FdWaiter;

static void
fd_waiter_stop(FdWaiter *self)
{
    if (self->loop != NULL) {
        watch_stop(&self->watch);
        Py_CLEAR(self->loop);
    }
}

static void
fd_waiter_ready(struct watch *watch, int revents)
{
    FdWaiter *self = container_of(watch, FdWaiter, watch);
    Loop *loop = watch->loop;
    Py_INCREF(self);
    Py_INCREF(loop);
    fd_waiter_stop(self);
    int result = 0;
    if (self->future == NULL) {
        goto done;
    }
    if (revents & EV_ERROR) {
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
        PyObject *exc = PyErr_GetRaisedException();
        result = future_settle_exception(loop->state, self->future, exc);
        Py_DECREF(exc);
    }
    else {
        result = future_settle_result(loop->state, self->future, Py_None);
    }
    if (result < 0) {
        loop_report(loop, "A waiter for a descriptor could not be told", "future", self->future);
    }
done:
    Py_DECREF(loop);
    Py_DECREF(self);
}

static PyObject *
FdWaiter_stop(PyObject *op, PyObject *ignored UNUSED)
{
    fd_waiter_stop((FdWaiter *)op);
    return Py_NewRef(Py_None);
}

static PyObject *
FdWaiter_get_future(PyObject *op, void *closure UNUSED)
{
    PyObject *future = ((FdWaiter *)op)->future;
    return Py_NewRef(future != NULL ? future : Py_None);
}

static int
FdWaiter_traverse(PyObject *op, visitproc visit, void *arg)
{
    FdWaiter *self = (FdWaiter *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->future);
    return 0;
}

static int
FdWaiter_clear(PyObject *op)
{
    FdWaiter *self = (FdWaiter *)op;
    fd_waiter_stop(self);
    Py_CLEAR(self->future);
    return 0;
}

static void
FdWaiter_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)FdWaiter_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef FdWaiter_methods[] = {
    {"stop", FdWaiter_stop, METH_NOARGS,
     PyDoc_STR("stop($self, /)\n--\n\nStop watching, at once; safe to repeat.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef FdWaiter_getset[] = {
    {"future", FdWaiter_get_future, NULL,
     PyDoc_STR("Done when the descriptor is ready; OSError if it was closed."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot FdWaiter_slots[] = {
    {Py_tp_doc, "Waits until a descriptor is ready, once."},
    {Py_tp_dealloc, FdWaiter_dealloc},
    {Py_tp_traverse, FdWaiter_traverse},
    {Py_tp_clear, FdWaiter_clear},
    {Py_tp_methods, FdWaiter_methods},
    {Py_tp_getset, FdWaiter_getset},
    {0, NULL},
};

static PyType_Spec FdWaiter_spec = {
    .name = "asyncloop._core.FdWaiter",
    .basicsize = sizeof(FdWaiter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = FdWaiter_slots,
};

static PyObject *
module_fd_waiter_new(PyObject *module, PyObject *args)
{
    struct state *state = PyModule_GetState(module);
    PyObject *loop;
    int fd, writable;
    if (!PyArg_ParseTuple(args, "O!ip:_fd_waiter_new", state->LoopType, &loop, &fd, &writable)) {
        return NULL;
    }
    if (fd < 0) {
        errno = EBADF;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    FdWaiter *self = (FdWaiter *)state->FdWaiterType->tp_alloc(state->FdWaiterType, 0);
    if (self == NULL) {
        return NULL;
    }
    watch_init(&self->watch, (Loop *)loop, (PyObject *)self, fd, writable ? EV_WRITE : EV_READ,
               fd_waiter_ready);
    self->loop = (Loop *)Py_NewRef(loop);
    self->future = future_new(state, loop);
    if (self->future == NULL || watch_start(&self->watch) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef sockop_functions[] = {
    {"_fd_waiter_new", module_fd_waiter_new, METH_VARARGS,
     PyDoc_STR("_fd_waiter_new(loop, fd, writable, /)\n--\n\n"
               "A FdWaiter: its future is done when fd is writable, or readable.")},
    {NULL, NULL, 0, NULL},
};

int
sockop_type_init(PyObject *module, struct state *state)
{
    if (state_add_type(module, &FdWaiter_spec, NULL, 0, &state->FdWaiterType) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, sockop_functions);
}
