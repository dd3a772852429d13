/* context.c - see context.h. */
#include "base/context.h"

#if PY_VERSION_HEX >= 0x030F0000

/* 1 with a new reference; 0: it has none; -1 with an exception. */
static int
context_of(PyObject *owner, PyObject **context)
{
    return PyObject_GetOptionalAttrString(owner, "_context", context);
}

PyObject *
context_step_out(PyObject *owner)
{
    PyObject *context;
    if (context_of(owner, &context) < 0) {
        PyErr_Clear();
    }
    if (context != NULL && (context != PyThreadState_Get()->context || PyContext_Exit(context) < 0)) {
        PyErr_Clear();
        Py_CLEAR(context);
    }
    return context;
}

void
context_step_in(PyObject *context)
{
    if (context == NULL) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (PyContext_Enter(context) < 0) {
        PyErr_WriteUnraisable(context);    /* another thread is in it */
    }
    PyErr_SetRaisedException(exc);
    Py_DECREF(context);
}

#else

static int
context_of(PyObject *owner UNUSED, PyObject **context)
{
    *context = NULL;
    return 0;
}

PyObject *
context_step_out(PyObject *owner UNUSED)
{
    return NULL;
}

void
context_step_in(PyObject *context UNUSED)
{
}

#endif

PyObject *
context_call_method_steal(PyObject *object, const char *name, PyObject *args, PyObject *owner)
{
    PyObject *context = NULL, *keywords = NULL, *result = NULL;
    int found = args == NULL ? -1 : context_of(owner, &context);
    if (found > 0) {
        keywords = Py_BuildValue("{sO}", "context", context);
    }
    PyObject *method = found < 0 || (found > 0 && keywords == NULL) ? NULL : PyObject_GetAttrString(object, name);
    if (method != NULL) {
        result = PyObject_Call(method, args, keywords);
        Py_DECREF(method);
    }
    Py_XDECREF(keywords);
    Py_XDECREF(context);
    Py_XDECREF(args);
    return result;
}
