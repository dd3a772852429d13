/* references.c - see references.h; without ASYNCLOOP_SMALL there is nothing in here.
 *
 * Names in parentheses are Python.h's own functions, not the macros over them. */
#include "base/compat.h"

#ifdef ASYNCLOOP_SMALL

void
reference_drop(PyObject *op)
{
    (Py_DECREF)(op);
}

/* op: or NULL */
void
reference_drop_any(PyObject *op)
{
    if (op != NULL) {
        (Py_DECREF)(op);
    }
}

PyObject *
reference_new_any(PyObject *op)
{
    (Py_XINCREF)(op);
    return op;
}

void
reference_clear(PyObject **place)
{
    PyObject *op = *place;
    *place = NULL;
    reference_drop_any(op);
}

#ifdef Py_GIL_DISABLED
void
reference_take(PyObject *op)
{
    (Py_INCREF)(op);
}

PyObject *
reference_new(PyObject *op)
{
    (Py_INCREF)(op);
    return op;
}
#endif

#endif
