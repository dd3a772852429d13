/* sockop_connect.c - see sockop_connect.h. */
#include "ops/sockop_connect.h"

#include "base/standard.h"
#include "net/addr.h"
#include "ops/sockop_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum {
    CONNECT_NEW,
    CONNECT_RESOLVING,
    CONNECT_RESOLVED,
    CONNECT_UNDER_WAY,
};

/* A complete address with a numeric host: nothing to resolve. */
static bool
address_is_numeric(PyObject *address, int family)
{
    Py_ssize_t length = family == AF_INET ? 2 : 4;
    if (!PyTuple_CheckExact(address) || PyTuple_GET_SIZE(address) != length
        || !PyUnicode_CheckExact(PyTuple_GET_ITEM(address, 0))
        || !PyLong_CheckExact(PyTuple_GET_ITEM(address, 1))) {
        return false;
    }
    Py_ssize_t size;
    const char *host = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(address, 0), &size);
    if (host == NULL) {
        PyErr_Clear();
        return false;
    }
    struct in6_addr parsed;
    return strlen(host) == (size_t)size && inet_pton(family, host, &parsed) == 1;
}

/* Asks the loop, as asyncio does: ATTEMPT_AWAIT, or ATTEMPT_FAILED. */
static enum attempt
connect_resolve(Operation *op)
{
    PyObject *loop = (PyObject *)op->loop;
    PyObject *function = PyObject_GetAttrString(loop, "_ensure_resolved");
    PyObject *args = function == NULL ? NULL : PyTuple_Pack(1, op->args[0]);
    PyObject *kwargs = NULL;
    if (args != NULL) {
        PyObject *family = PyObject_GetAttr(op->sock, op->state->names.family);
        PyObject *type = family == NULL ? NULL : PyObject_GetAttr(op->sock, op->state->names.type);
        PyObject *proto = type == NULL ? NULL : PyObject_GetAttr(op->sock, op->state->names.proto);
        if (proto != NULL) {
            kwargs = Py_BuildValue("{s:O,s:O,s:O,s:O}", "family", family, "type", type, "proto",
                                   proto, "loop", loop);
        }
        Py_XDECREF(proto);
        Py_XDECREF(type);
        Py_XDECREF(family);
    }
    PyObject *awaitable = kwargs == NULL ? NULL : PyObject_Call(function, args, kwargs);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(function);
    return operation_await_steal(op, awaitable);
}

/* The first of the resolved addresses becomes the one to connect to: 0 / -1 */
static int
connect_take_resolved(Operation *op)
{
    PyObject *info = PySequence_GetItem(op->value, 0);
    PyObject *address = info == NULL ? NULL : PySequence_GetItem(info, 4);
    Py_XDECREF(info);
    if (address == NULL) {
        return -1;
    }
    Py_SETREF(op->args[0], address);
    return 0;
}

/* EAGAIN is not EINPROGRESS: nothing was begun. */
static bool
connect_was_refused_for_now(void)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *number = PyObject_GetAttrString(exc, "errno");
    bool again = number != NULL && PyLong_Check(number) && PyLong_AsLong(number) == EAGAIN;
    Py_XDECREF(number);
    PyErr_Clear();
    PyErr_SetRaisedException(exc);
    return again;
}

/* connect() of a plain socket to a numeric address, without the exception that Python's has
 * for EINPROGRESS. */
static enum attempt
connect_natively(Operation *op, const struct addr *addr, PyObject **result)
{
    if (PySys_Audit("socket.connect", "OO", op->sock, op->args[0]) < 0) {
        return ATTEMPT_FAILED;
    }
    /* A hook may have closed the socket, and its number may be another's. */
    if (has_own(op, SOCKET_FILENO) && sockop_find_plain_fd(op) < 0) {
        return ATTEMPT_FAILED;
    }
    if (connect(op->fd, &addr->any, addr->length) == 0) {
        *result = Py_NewRef(Py_None);
        return ATTEMPT_DONE;
    }
    if (errno == EINPROGRESS || errno == EINTR) {
        op->phase = CONNECT_UNDER_WAY;
        return ATTEMPT_WAIT_WRITE;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return ATTEMPT_FAILED;
}

static enum attempt
connect_start(Operation *op, int family, PyObject **result)
{
    if (!is_plain_socket(op) && operation_ask_fileno(op) < 0) {
        return ATTEMPT_FAILED;
    }
    struct addr addr;
    if ((family == AF_INET || family == AF_INET6) && has_own(op, SOCKET_CONNECT)
        && addr_parse(&addr, family, op->args[0])) {
        return connect_natively(op, &addr, result);
    }
    *result = PyObject_CallMethodOneArg(op->sock, op->state->names.connect, op->args[0]);
    if (*result != NULL) {
        Py_SETREF(*result, Py_NewRef(Py_None));
        return ATTEMPT_DONE;
    }
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError) && connect_was_refused_for_now()) {
        /* A Unix socket, and its peer's queue is full; nobody tells when it is not. */
        if (family != AF_UNIX) {
            return ATTEMPT_FAILED;
        }
        PyErr_Clear();
        return ATTEMPT_WAIT_RETRY;
    }
    enum attempt outcome = sockop_raised(ATTEMPT_WAIT_WRITE);
    if (outcome == ATTEMPT_WAIT_WRITE) {
        op->phase = CONNECT_UNDER_WAY;
    }
    return outcome;
}

/* SO_ERROR, which the kernel tells once: new reference or NULL. */
static PyObject *
connect_error(Operation *op)
{
    int number;
    socklen_t size = sizeof(number);
    if (!has_own(op, SOCKET_GETSOCKOPT)) {
        return PyObject_CallMethod(op->sock, "getsockopt", "ii", SOL_SOCKET, SO_ERROR);
    }
    if (getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &number, &size) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(number);
}

static enum attempt
connect_end(Operation *op, PyObject **result)
{
    PyObject *error = connect_error(op);
    if (error == NULL) {
        return sockop_raised(ATTEMPT_WAIT_WRITE);
    }
    int failed = PyObject_IsTrue(error);
    if (failed == 0) {
        Py_DECREF(error);
        *result = Py_NewRef(Py_None);
        return ATTEMPT_DONE;
    }
    PyObject *message = failed < 0 ? NULL
                                   : PyUnicode_FromFormat("Connect call failed %S", op->args[0]);
    PyObject *exc = message == NULL
                        ? NULL
                        : PyObject_CallFunctionObjArgs(PyExc_OSError, error, message, NULL);
    Py_XDECREF(message);
    Py_DECREF(error);
    if (exc == NULL) {
        return ATTEMPT_FAILED;
    }
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_DECREF(exc);
    return sockop_raised(ATTEMPT_WAIT_WRITE);
}

enum attempt
attempt_connect(Operation *op, PyObject **result)
{
    if (sockop_begin(op) < 0) {
        return ATTEMPT_FAILED;
    }
    if (op->phase == CONNECT_UNDER_WAY) {
        return connect_end(op, result);
    }
    int family = sockop_family(op);
    if (family < 0 && PyErr_Occurred()) {
        return ATTEMPT_FAILED;
    }
    if (op->phase == CONNECT_NEW) {
        if ((family == AF_INET || family == AF_INET6) && !address_is_numeric(op->args[0], family)) {
            op->phase = CONNECT_RESOLVING;
            return connect_resolve(op);
        }
        op->phase = CONNECT_RESOLVED;
    }
    else if (op->phase == CONNECT_RESOLVING) {
        if (connect_take_resolved(op) < 0) {
            return ATTEMPT_FAILED;
        }
        op->phase = CONNECT_RESOLVED;
    }
    return connect_start(op, family, result);
}
