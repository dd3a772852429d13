/* args.c - unpacking of arguments: cold enough for plain loops. */
#include "base/args.h"

#include <limits.h>
#include <string.h>

int
args_context_keyword(const char *function, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames, PyObject **context)
{
    Py_ssize_t count = PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (PyUnicode_CompareWithASCIIString(name, "context") != 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'",
                         function, name);
            return -1;
        }
        PyObject *value = args[nargs + i];
        *context = value == Py_None ? NULL : value;
    }
    return 0;
}

static Py_ssize_t
args_find(const char *const *names, PyObject *name)
{
    for (Py_ssize_t i = 0; names[i] != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

int
args_unpack(const char *function, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames, const char *const *names, Py_ssize_t positional,
            Py_ssize_t required, PyObject **values)
{
    if (nargs > positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd positional arguments (%zd given)",
                     function, positional, nargs);
        return -1;
    }
    uint64_t given = 0;
    for (Py_ssize_t i = 0; i < nargs; i++) {
        values[i] = args[i];
        given |= UINT64_C(1) << i;
    }
    Py_ssize_t keywords = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < keywords; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        Py_ssize_t i = args_find(names, name);
        if (i < 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'",
                         function, name);
            return -1;
        }
        if (given & (UINT64_C(1) << i)) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'", function,
                         name);
            return -1;
        }
        values[i] = args[nargs + k];
        given |= UINT64_C(1) << i;
    }
    for (Py_ssize_t i = 0; i < required; i++) {
        if (!(given & (UINT64_C(1) << i))) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'", function,
                         names[i]);
            return -1;
        }
    }
    return 0;
}

PyObject *
args_fileno(PyObject *object)
{
    if (PyLong_Check(object)) {
        return Py_NewRef(object);
    }
    PyObject *result = PyObject_CallMethod(object, "fileno", NULL);
    PyObject *number = result == NULL ? NULL : PyNumber_Long(result);
    Py_XDECREF(result);
    if (number == NULL
        && (PyErr_ExceptionMatches(PyExc_AttributeError)
            || PyErr_ExceptionMatches(PyExc_TypeError)
            || PyErr_ExceptionMatches(PyExc_ValueError))) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "Invalid file object: %R", object);
    }
    return number;
}

int
args_fd(PyObject *number)
{
    int overflow;
    long fd = PyLong_AsLongAndOverflow(number, &overflow);
    if (fd == -1 && overflow == 0 && PyErr_Occurred()) {
        return -1;
    }
    if (overflow < 0 || (overflow == 0 && fd < 0)) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %S", number);
        return -1;
    }
    if (overflow > 0 || fd > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
        return -1;
    }
    return (int)fd;
}

int
args_descriptor(PyObject *object)
{
    PyObject *number = args_fileno(object);
    int fd = number == NULL ? -1 : args_fd(number);
    Py_XDECREF(number);
    return fd;
}

int
args_size(PyObject *whole, size_t *bytes)
{
    *bytes = PyLong_AsSize_t(whole);
    if (*bytes == (size_t)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return 0;
}

void
args_not_writable(const char *argument, PyObject *object)
{
    if (!is_exit_exception()) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s must be read-write bytes-like object, not %.50s", argument,
                     object == Py_None ? "None" : Py_TYPE(object)->tp_name);
    }
}

const char *
type_name(PyTypeObject *type)
{
    const char *dot = strrchr(type->tp_name, '.');
    return dot == NULL ? type->tp_name : dot + 1;
}

int
call_for_effect(PyObject *function, PyObject *first, PyObject *second)
{
    PyObject *args[] = {first, second};
    PyObject *result = PyObject_Vectorcall(function, args, second == NULL ? 1 : 2, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

bool
is_exit_exception(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)
           || PyErr_ExceptionMatches(PyExc_SystemExit);
}

PyObject *
args_none_has_no(const char *name)
{
    PyObject *value = PyObject_GetAttrString(Py_None, name);
    assert(value == NULL);
    Py_XDECREF(value);
    return NULL;
}

int
args_slice_end(PyObject *number, Py_ssize_t *end)
{
    if (number == Py_None) {
        *end = PY_SSIZE_T_MAX;
        return 0;
    }
    if (!PyIndex_Check(number)) {
        PyErr_SetString(PyExc_TypeError, PY_VERSION_HEX >= 0x030F0000
                                             ? "slice indices must be integers or have an __index__ method"
                                             : "slice indices must be integers or None or have an __index__ method");
        return -1;
    }
    *end = PyNumber_AsSsize_t(number, NULL);    /* clipped */
    return *end == -1 && PyErr_Occurred() ? -1 : 0;
}
