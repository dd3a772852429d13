/* operation_inside.h - what goes on in an Operation (operation.c), for its type (operation_type.c). */
#ifndef ASYNCLOOP_OPERATION_INSIDE_H
#define ASYNCLOOP_OPERATION_INSIDE_H

#include "ops/operation.h"

/* The awaiting Task was cancelled, and with it our future. */
void operation_cancelled(PyObject *watcher);
void operation_finish(Operation *op);

PySendResult Operation_am_send(PyObject *self, PyObject *value, PyObject **result);
PyObject *Operation_iternext(PyObject *self);
PyObject *Operation_send(PyObject *self, PyObject *value);
PyObject *Operation_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *Operation_close(PyObject *self, PyObject *ignored);

#endif
