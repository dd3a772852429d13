/* sockop_socket.c - see sockop_socket.h. */
#include "ops/sockop_socket.h"

#include "base/standard.h"
#include "net/addr.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>

int
sockop_check(Operation *op)
{
    struct state *state = op->state;
    PyObject *result;
    if (!is_plain_socket(op)) {
        result = PyObject_CallOneArg(ops_state(state)->sockops.check_ssl_socket, op->sock);
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
    if (LIKELY(!FLAG(op->loop->debug))) {
        return 0;
    }
    result = PyObject_CallMethod(op->sock, "gettimeout", NULL);
    PyObject *zero = result == NULL ? NULL : PyLong_FromLong(0);
    int blocking = zero == NULL ? -1 : PyObject_RichCompareBool(result, zero, Py_NE);
    Py_XDECREF(zero);
    Py_XDECREF(result);
    if (blocking > 0) {
        PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
    }
    return blocking == 0 ? 0 : -1;
}

enum attempt
sockop_failed(enum attempt direction)
{
    if (LIKELY(errno == EAGAIN || errno == EWOULDBLOCK)) {
        return direction;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return ATTEMPT_FAILED;
}

enum attempt
sockop_raised(enum attempt direction)
{
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
        || PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return direction;
    }
    return ATTEMPT_FAILED;
}

/* How many bytes a method of the socket has moved: it gives bytes, a number, or a tuple that begins
 * with one of these. */
static Py_ssize_t
length_of_result(PyObject *result)
{
    if (PyTuple_CheckExact(result) && PyTuple_GET_SIZE(result) > 0) {
        result = PyTuple_GET_ITEM(result, 0);
    }
    if (PyBytes_CheckExact(result)) {
        return PyBytes_GET_SIZE(result);
    }
    Py_ssize_t n = PyLong_CheckExact(result) ? PyLong_AsSsize_t(result) : 0;
    if (n == -1) {
        PyErr_Clear();
    }
    return n;
}

enum attempt
sockop_call(Operation *op, PyObject *name, Py_ssize_t nargs, enum attempt direction,
            PyObject **result)
{
    PyObject *stack[OPERATION_MAX_ARGS + 1] = {op->sock};
    for (Py_ssize_t i = 0; i < nargs; i++) {
        stack[i + 1] = op->args[i];
    }
    *result = PyObject_VectorcallMethod(name, stack, (size_t)nargs + 1, NULL);
    if (*result == NULL) {
        return sockop_raised(direction);
    }
    sockop_count(op, direction, length_of_result(*result));
    return ATTEMPT_DONE;
}

int
sockop_family(Operation *op)
{
    struct state *state = op->state;
    PyObject *descriptor = ops_state(state)->sockops.socket_family;
    PyObject *family = PyObject_TypeCheck(op->sock, (PyTypeObject *)state->standard.socket_class)
                           ? Py_TYPE(descriptor)->tp_descr_get(descriptor, op->sock, state->standard.socket_class)
                           : PyObject_GetAttr(op->sock, state->names.family);
    long number = family == NULL ? -1 : PyLong_AsLong(family);
    Py_XDECREF(family);
    return (int)number;
}

int
sockop_knows_family(Operation *op)
{
    int family = sockop_family(op);
    return family < 0 ? -1 : addr_family_is_known(family);
}
