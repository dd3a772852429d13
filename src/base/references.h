/* references.h - references counted by a call, where the code is to be small.
 *
 * Python.h writes Py_DECREF() out at each place: 20 bytes, and 60 without a GIL, where Py_INCREF()
 * takes as much. In files compiled with ASYNCLOOP_SMALL, which the wheels do with those that no turn
 * of the loop runs through (tools/wheels/build.py), each place calls a function of references.c. */
#ifndef ASYNCLOOP_REFERENCES_H
#define ASYNCLOOP_REFERENCES_H

#ifdef ASYNCLOOP_SMALL

void reference_drop(PyObject *op);
void reference_drop_any(PyObject *op);    /* which may be NULL */

#undef Py_DECREF
#define Py_DECREF(op) reference_drop(_PyObject_CAST(op))
#undef Py_XDECREF
#define Py_XDECREF(op) reference_drop_any(_PyObject_CAST(op))

PyObject *reference_new_any(PyObject *op);
void reference_clear(PyObject **place);

#undef Py_XNewRef
#define Py_XNewRef(op) reference_new_any(_PyObject_CAST(op))
#undef Py_CLEAR
#define Py_CLEAR(place) reference_clear((PyObject **)(void *)&(place))

#ifdef Py_GIL_DISABLED
void reference_take(PyObject *op);
PyObject *reference_new(PyObject *op);

#undef Py_INCREF
#define Py_INCREF(op) reference_take(_PyObject_CAST(op))
#undef Py_NewRef
#define Py_NewRef(op) reference_new(_PyObject_CAST(op))
#endif

#endif

#endif
