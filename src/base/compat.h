/* compat.h - <Python.h> and the differences between CPython 3.11 and 3.15.
 *
 * The only way by which Python.h enters, so that it always comes before any
 * system header. A shim has the name that newer CPython versions give it. */
#ifndef ASYNCLOOP_COMPAT_H
#define ASYNCLOOP_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "base/base.h"
#include "base/references.h"

#if PY_VERSION_HEX < 0x030B0000
#error "asyncloop needs CPython 3.11 or newer"
#endif

#if PY_VERSION_HEX < 0x030C0000
/* new reference to the raised exception with its traceback set, or NULL */
static inline PyObject *
PyErr_GetRaisedException(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* steals exc */
static inline void
PyErr_SetRaisedException(PyObject *exc)
{
    if (exc == NULL) {
        PyErr_Clear();
        return;
    }
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc,
                  PyException_GetTraceback(exc));
}
#endif

#if PY_VERSION_HEX < 0x030D0000
/* 1 with a new reference, 0 with NULL and no exception, -1 with an exception */
static inline int
PyObject_GetOptionalAttr(PyObject *object, PyObject *name, PyObject **result)
{
    *result = PyObject_GetAttr(object, name);
    if (*result != NULL) {
        return 1;
    }
    if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return 0;
    }
    return -1;
}

static inline int
PyDict_GetItemRef(PyObject *dict, PyObject *key, PyObject **result)
{
    *result = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    if (*result != NULL) {
        return 1;
    }
    return PyErr_Occurred() ? -1 : 0;
}

static inline int
PyList_Extend(PyObject *list, PyObject *iterable)
{
    return PyList_SetSlice(list, PY_SSIZE_T_MAX, PY_SSIZE_T_MAX, iterable);
}

static inline int
Py_IsFinalizing(void)
{
    return _Py_IsFinalizing();
}
#endif

/* The value of an int that is small and not negative, as nearly all numbers of descriptors; else -1. */
static inline int
long_if_small(PyObject *number)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (LIKELY(PyUnstable_Long_IsCompact((PyLongObject *)number))) {
        Py_ssize_t value = PyUnstable_Long_CompactValue((PyLongObject *)number);
        return value >= 0 ? (int)value : -1;
    }
    return -1;
#else
    Py_ssize_t digits = Py_SIZE(number);
    return LIKELY(digits == 1) ? (int)((PyLongObject *)number)->ob_digit[0] : (int)digits == 0 ? 0
                                                                                               : -1;
#endif
}

/* New list with `item` in it, whose reference it steals, or NULL. */
static inline PyObject *
list_of_one_steal(PyObject *item)
{
#ifdef Py_GIL_DISABLED
    /* PyList_New(1) of 3.13 and 3.14 frees rubbish if it gets no memory for the items there. */
    PyObject *list = PyList_New(0);
    if (list != NULL && PyList_Append(list, item) < 0) {
        Py_CLEAR(list);
    }
    Py_DECREF(item);
#else
    PyObject *list = PyList_New(1);
    if (list == NULL) {
        Py_DECREF(item);
        return NULL;
    }
    PyList_SET_ITEM(list, 0, item);
#endif
    return list;
}

#endif
