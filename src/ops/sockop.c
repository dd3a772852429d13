/* sockop.c - see sockop.h.
 *
 * A socket that is exactly a socket.socket, whose method nobody has replaced, is read and written
 * by the system calls; anything else (subclasses, wrappers, doubles of tests) by its own methods,
 * whose BlockingIOError means "wait". Calls never block, not even on a blocking socket. */
#include "ops/sockop.h"

#include "base/args.h"
#include "base/standard.h"
#include "loop/scratch.h"
#include "net/addr.h"
#include "net/io.h"
#include "net/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* Sending this much or more takes the kernel long enough that other threads may run. */
#define SEND_UNLOCKED_BYTES (64 * 1024)

/* -- the socket ------------------------------------------------------------------------- */

static inline bool
is_plain_socket(Operation *op)
{
    return Py_IS_TYPE(op->sock, (PyTypeObject *)op->state->standard.socket_class);
}

/* Is that method of the socket nobody's but the standard library's? */
static inline bool
has_own(Operation *op, enum standard_socket_method method)
{
    return standard_socket_has(op->state, op->sock, method);
}

/* Fills op->fd of a plain socket: 0 / -1. A closed one has -1, which the system calls refuse. */
static int
sockop_find_plain_fd(Operation *op)
{
    PyCFunction fileno = ops_state(op->state)->sockops.socket_fileno;
    PyObject *number = LIKELY(fileno != NULL) && has_own(op, SOCKET_FILENO)
                           ? fileno(op->sock, NULL)
                           : PyObject_CallMethodNoArgs(op->sock, op->state->names.fileno);
    if (number == NULL) {
        return -1;
    }
    int overflow;
    long fd = PyLong_AsLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    op->fd = fd < 0 || fd > INT_MAX ? -1 : (int)fd;
    return fd == -1 && PyErr_Occurred() ? -1 : 0;
}

/* asyncio's checks, at the first attempt: no TLS socket; in debug mode a non-blocking one. */
static int
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

/* What every attempt begins with. 0 / -1 */
static inline int
sockop_begin(Operation *op)
{
    if (!op->started && UNLIKELY((FLAG(op->loop->debug) || !is_plain_socket(op)) && sockop_check(op) < 0)) {
        return -1;
    }
    return LIKELY(is_plain_socket(op)) ? sockop_find_plain_fd(op) : 0;
}

/* A system call has failed: wait for `direction`, or an OSError. */
static enum attempt
sockop_failed(enum attempt direction)
{
    if (LIKELY(errno == EAGAIN || errno == EWOULDBLOCK)) {
        return direction;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return ATTEMPT_FAILED;
}

/* A method of the socket has raised: the same. */
static enum attempt
sockop_raised(enum attempt direction)
{
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
        || PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return direction;
    }
    return ATTEMPT_FAILED;
}

/* `n` bytes went in or out, by the direction in which it would have waited; none if that is below 0. */
static inline void
sockop_count(Operation *op, enum attempt direction, Py_ssize_t n)
{
    if (LIKELY(n > 0) && LIKELY(op->loop != NULL)) {
        if (direction == ATTEMPT_WAIT_READ) {
            COUNT(op->loop->counters->bytes_in, (uint64_t)n);
        }
        else {
            COUNT(op->loop->counters->bytes_out, (uint64_t)n);
        }
    }
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

/* Calls sock.name(*args) with the first nargs of op->args. */
static enum attempt
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

/* -- receiving -------------------------------------------------------------------------- */

static ssize_t
receive(Operation *op, void *buffer, size_t size, struct sockaddr *address, socklen_t *length)
{
    ssize_t got;
    do {
        got = address == NULL ? recv(op->fd, buffer, size, MSG_DONTWAIT)
                              : recvfrom(op->fd, buffer, size, MSG_DONTWAIT, address, length);
    } while (UNLIKELY(got < 0 && errno == EINTR));
    sockop_count(op, ATTEMPT_WAIT_READ, got);
    return got;
}

/* args[0] is how many bytes are wanted: fills op->count, once. 0 / -1 */
static int
sockop_parse_size(Operation *op, const char *function)
{
    if (op->phase > 0) {
        return 0;
    }
    PyObject *number = PyNumber_Index(op->args[0]);
    op->count = number == NULL ? -1 : PyLong_AsSsize_t(number);
    Py_XDECREF(number);
    if (op->count == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (op->count < 0) {
        PyErr_Format(PyExc_ValueError, "negative buffersize in %s", function);
        return -1;
    }
    op->phase = 1;
    return 0;
}

/* Receives op->count bytes at most, and the sender's address if asked for: new bytes in
 * *data. A buffer of the loop takes them first, so that the object has the right size. */
static enum attempt
sockop_receive_bytes(Operation *op, struct sockaddr *address, socklen_t *length, PyObject **data)
{
    ssize_t got;
    if (LIKELY(op->count <= (Py_ssize_t)SCRATCH_BYTES)) {
        Loop *loop = op->loop;
        char *buffer = scratch_take(loop);
        if (buffer == NULL) {
            return ATTEMPT_FAILED;
        }
        got = receive(op, buffer, (size_t)op->count, address, length);
        int err = errno;
        *data = got < 0 ? NULL : PyBytes_FromStringAndSize(buffer, got);
        scratch_give(loop, buffer);
        if (got < 0) {
            errno = err;
            return sockop_failed(ATTEMPT_WAIT_READ);
        }
    }
    else {
        *data = PyBytes_FromStringAndSize(NULL, op->count);
        if (*data == NULL) {
            return ATTEMPT_FAILED;
        }
        got = receive(op, PyBytes_AS_STRING(*data), (size_t)op->count, address, length);
        if (got < 0) {
            Py_CLEAR(*data);
            return sockop_failed(ATTEMPT_WAIT_READ);
        }
        (void)_PyBytes_Resize(data, got);
    }
    return *data != NULL ? ATTEMPT_DONE : ATTEMPT_FAILED;
}

static enum attempt
attempt_recv(Operation *op, PyObject **result)
{
    if (sockop_begin(op) < 0) {
        return ATTEMPT_FAILED;
    }
    if (UNLIKELY(!has_own(op, SOCKET_RECV))) {
        return sockop_call(op, op->state->names.recv, 1, ATTEMPT_WAIT_READ, result);
    }
    if (sockop_parse_size(op, "recv") < 0) {
        return ATTEMPT_FAILED;
    }
    if (UNLIKELY(op->count == 0)) {
        *result = PyBytes_FromStringAndSize(NULL, 0);    /* as socket.recv(0): no system call */
        return *result != NULL ? ATTEMPT_DONE : ATTEMPT_FAILED;
    }
    return sockop_receive_bytes(op, NULL, NULL, result);
}

static enum attempt
attempt_recv_into(Operation *op, PyObject **result)
{
    if (sockop_begin(op) < 0) {
        return ATTEMPT_FAILED;
    }
    if (UNLIKELY(!has_own(op, SOCKET_RECV_INTO))) {
        return sockop_call(op, op->state->names.recv_into, 1, ATTEMPT_WAIT_READ, result);
    }
    /* Taken anew for each attempt: a bytearray may change its size while we wait. */
    Py_buffer view;
    if (PyObject_GetBuffer(op->args[0], &view, PyBUF_WRITABLE) < 0) {
        args_not_writable("recv_into() argument 1", op->args[0]);
        return ATTEMPT_FAILED;
    }
    ssize_t got = view.len == 0 ? 0 : receive(op, view.buf, (size_t)view.len, NULL, NULL);
    int err = errno;
    PyBuffer_Release(&view);
    errno = err;
    if (got < 0) {
        return sockop_failed(ATTEMPT_WAIT_READ);
    }
    *result = PyLong_FromSsize_t(got);
    return *result != NULL ? ATTEMPT_DONE : ATTEMPT_FAILED;
}

/* The address family of the socket, as far as possible without the enum that its property
 * makes; -1 with an exception. */
static int
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

/* May we make Python's form of the addresses of this socket ourselves? 1, 0, -1 */
static int
sockop_knows_family(Operation *op)
{
    int family = sockop_family(op);
    return family < 0 ? -1 : family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

static enum attempt
attempt_recvfrom(Operation *op, PyObject **result)
{
    if (sockop_begin(op) < 0) {
        return ATTEMPT_FAILED;
    }
    int native = has_own(op, SOCKET_RECVFROM) ? sockop_knows_family(op) : 0;
    if (native <= 0) {
        return native < 0 ? ATTEMPT_FAILED
                          : sockop_call(op, op->state->names.recvfrom, 1, ATTEMPT_WAIT_READ,
                                        result);
    }
    if (sockop_parse_size(op, "recvfrom") < 0) {
        return ATTEMPT_FAILED;
    }
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    PyObject *data;
    enum attempt outcome =
        sockop_receive_bytes(op, (struct sockaddr *)&address, &length, &data);
    if (outcome != ATTEMPT_DONE) {
        return outcome;
    }
    PyObject *sender = addr_build((struct sockaddr *)&address, length);
    *result = sender == NULL ? NULL : PyTuple_Pack(2, data, sender);
    Py_XDECREF(sender);
    Py_DECREF(data);
    return *result != NULL ? ATTEMPT_DONE : ATTEMPT_FAILED;
}

static enum attempt
attempt_recvfrom_into(Operation *op, PyObject **result)
{
    if (sockop_begin(op) < 0) {
        return ATTEMPT_FAILED;
    }
    if (op->phase == 0) {
        int given = op->args[1] == NULL ? 0 : PyObject_IsTrue(op->args[1]);
        if (given < 0) {
            return ATTEMPT_FAILED;
        }
        if (!given) {
            Py_ssize_t length = PyObject_Length(op->args[0]);
            if (length < 0) {
                return ATTEMPT_FAILED;
            }
            Py_XSETREF(op->args[1], PyLong_FromSsize_t(length));
            if (op->args[1] == NULL) {
                return ATTEMPT_FAILED;
            }
        }
        op->phase = 1;
    }
    return sockop_call(op, op->state->names.recvfrom_into, 2, ATTEMPT_WAIT_READ, result);
}

static enum attempt
attempt_recvmsg(Operation *op, PyObject **result)
{
    if (sockop_begin(op) < 0) {
        return ATTEMPT_FAILED;
    }
    return sockop_call(op, op->state->names.recvmsg, op->nargs, ATTEMPT_WAIT_READ, result);
}

/* -- sending ------------------------------------------------------------------------------ */

static ssize_t
transmit(Operation *op, const char *data, size_t size)
{
    ssize_t sent;
    int fd = op->fd;
    do {
        if (size < SEND_UNLOCKED_BYTES) {
            sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        else {
            Py_BEGIN_ALLOW_THREADS
            sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
            Py_END_ALLOW_THREADS
        }
    } while (UNLIKELY(sent < 0 && errno == EINTR));
    sockop_count(op, ATTEMPT_WAIT_WRITE, sent);
    return sent;
}

/* Sends what is left of `size` bytes, of which op->count have gone. */
static enum attempt
sockop_send_rest(Operation *op, const char *data, Py_ssize_t size, PyObject **result)
{
    size_t left = (size_t)(size - op->count);
    if (UNLIKELY(left > WRITE_BUDGET_BYTES) && op->count > 0) {
        left = WRITE_BUDGET_BYTES;    /* not the first time: asyncio has given all that the kernel takes */
    }
    ssize_t sent = transmit(op, data + op->count, left);
    if (sent < 0) {
        return sockop_failed(ATTEMPT_WAIT_WRITE);
    }
    op->count += sent;
    if (op->count < size) {
        return ATTEMPT_WAIT_WRITE;    /* the kernel is full, or it is the others' turn */
    }
    *result = Py_NewRef(Py_None);
    return ATTEMPT_DONE;
}

/* Other bytes-like objects. From the first wait on, a memoryview (args[1]) keeps the buffer. */
static enum attempt
sockop_sendall_buffer(Operation *op, PyObject **result)
{
    if (op->args[1] != NULL) {
        Py_buffer *kept = PyMemoryView_GET_BUFFER(op->args[1]);
        return sockop_send_rest(op, kept->buf, kept->len, result);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(op->args[0], &view, PyBUF_SIMPLE) < 0) {
        return ATTEMPT_FAILED;
    }
    enum attempt outcome = sockop_send_rest(op, view.buf, view.len, result);
    if (outcome == ATTEMPT_WAIT_WRITE) {
        op->args[1] = PyMemoryView_FromObject(op->args[0]);
        if (op->args[1] == NULL) {
            outcome = ATTEMPT_FAILED;
        }
    }
    PyBuffer_Release(&view);
    return outcome;
}

/* By the method send() of a socket of another kind: args[1] is a memoryview of all. */
static enum attempt
sockop_sendall_method(Operation *op, PyObject **result)
{
    PyObject *name = op->state->names.send;
    PyObject *data;
    if (op->args[1] == NULL) {
        data = Py_NewRef(op->args[0]);
    }
    else {
        data = PySequence_GetSlice(op->args[1], op->count, PY_SSIZE_T_MAX);
    }
    PyObject *sent = data == NULL ? NULL : PyObject_CallMethodOneArg(op->sock, name, data);
    Py_XDECREF(data);
    if (sent == NULL) {
        if (sockop_raised(ATTEMPT_WAIT_WRITE) == ATTEMPT_FAILED) {
            return ATTEMPT_FAILED;
        }
    }
    else {
        Py_ssize_t count = PyLong_AsSsize_t(sent);
        Py_DECREF(sent);
        if (count == -1 && PyErr_Occurred()) {
            return ATTEMPT_FAILED;
        }
        op->count += count;
    }
    Py_ssize_t length = PyObject_Length(op->args[1] != NULL ? op->args[1] : op->args[0]);
    if (length < 0) {
        return ATTEMPT_FAILED;
    }
    if (sent != NULL && op->count >= length) {
        *result = Py_NewRef(Py_None);
        return ATTEMPT_DONE;
    }
    if (op->args[1] == NULL) {
        op->args[1] = PyMemoryView_FromObject(op->args[0]);
    }
    return op->args[1] != NULL ? ATTEMPT_WAIT_WRITE : ATTEMPT_FAILED;
}

static enum attempt
attempt_sendall(Operation *op, PyObject **result)
{
    if (sockop_begin(op) < 0) {
        return ATTEMPT_FAILED;
    }
    if (UNLIKELY(!has_own(op, SOCKET_SEND))) {
        return sockop_sendall_method(op, result);
    }
    PyObject *data = op->args[0];
    if (LIKELY(PyBytes_CheckExact(data))) {
        return sockop_send_rest(op, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), result);
    }
    return sockop_sendall_buffer(op, result);
}

static enum attempt
attempt_sendto(Operation *op, PyObject **result)
{
    if (sockop_begin(op) < 0) {
        return ATTEMPT_FAILED;
    }
    return sockop_call(op, op->state->names.sendto, 2, ATTEMPT_WAIT_WRITE, result);
}

static enum attempt
attempt_sendmsg(Operation *op, PyObject **result)
{
    if (sockop_begin(op) < 0) {
        return ATTEMPT_FAILED;
    }
    return sockop_call(op, op->state->names.sendmsg, op->nargs, ATTEMPT_WAIT_WRITE, result);
}

/* Only waits: for what sends by other means than ours. */
static enum attempt
attempt_wait_writable(Operation *op, PyObject **result)
{
    if (op->phase > 0) {
        *result = Py_NewRef(Py_None);
        return ATTEMPT_DONE;
    }
    op->phase = 1;
    if (is_plain_socket(op)) {
        if (sockop_find_plain_fd(op) < 0) {
            return ATTEMPT_FAILED;
        }
        if (op->fd < 0) {
            errno = EBADF;
            return sockop_failed(ATTEMPT_FAILED);
        }
    }
    return ATTEMPT_WAIT_WRITE;
}

/* -- connecting ----------------------------------------------------------------------------- */

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

static enum attempt
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

/* -- accepting ------------------------------------------------------------------------------- */

/* accept() of a blocking socket would block: only when there is somebody. */
static int
accept_at_once(int fd, struct sockaddr *address, socklen_t *length)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK)) {
        struct pollfd one = {.fd = fd, .events = POLLIN};
        if (poll(&one, 1, 0) == 0) {
            errno = EAGAIN;
            return -1;
        }
    }
    int conn;
    do {
#ifdef SOCK_CLOEXEC
        conn = accept4(fd, address, length, SOCK_CLOEXEC | SOCK_NONBLOCK);
#else
        conn = accept(fd, address, length);
        if (conn >= 0) {
            (void)fcntl(conn, F_SETFD, FD_CLOEXEC);
            (void)fcntl(conn, F_SETFL, O_NONBLOCK);
        }
#endif
    } while (UNLIKELY(conn < 0 && errno == EINTR));
    return conn;
}

/* conn.setblocking(False): 0 / -1 */
static int
set_nonblocking(PyObject *conn)
{
    PyObject *result = PyObject_CallMethod(conn, "setblocking", "O", Py_False);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* A socket object like the listening one, which owns fd from now on. On failure fd is closed. */
static PyObject *
socket_like(Operation *op, int fd)
{
    struct state *state = op->state;
    PyObject *family = PyObject_GetAttr(op->sock, state->names.family);
    PyObject *type = family == NULL ? NULL : PyObject_GetAttr(op->sock, state->names.type);
    PyObject *proto = type == NULL ? NULL : PyObject_GetAttr(op->sock, state->names.proto);
    PyObject *conn = NULL;
    long kind = proto == NULL ? -1 : PyLong_AsLong(type);
    if (kind < 0) {
        close(fd);
    }
    else {
        conn = sockets_accepted(state, family, (int)kind, proto, fd);
    }
    Py_XDECREF(proto);
    Py_XDECREF(type);
    Py_XDECREF(family);
    return conn;
}

static enum attempt
accept_by_method(Operation *op, PyObject **result)
{
    if (!is_plain_socket(op) && operation_ask_fileno(op) < 0) {
        return ATTEMPT_FAILED;
    }
    enum attempt outcome =
        sockop_call(op, op->state->names.accept, 0, ATTEMPT_WAIT_READ, result);
    if (outcome != ATTEMPT_DONE) {
        return outcome;
    }
    PyObject *conn = PySequence_GetItem(*result, 0);
    if (conn == NULL || set_nonblocking(conn) < 0) {
        Py_CLEAR(*result);
        outcome = ATTEMPT_FAILED;
    }
    Py_XDECREF(conn);
    return outcome;
}

/* socket.socket.accept() makes an object of what socket.socket is now. */
static bool
accepts_natively(Operation *op)
{
    return has_own(op, SOCKET_ACCEPT) && has_own(op, SOCKET_RAW_ACCEPT)
           && has_own(op, SOCKET_NEW) && has_own(op, SOCKET_INIT)
           && standard_is(op->state, STANDARD_SOCKET_SOCKET);
}

static enum attempt
attempt_accept(Operation *op, PyObject **result)
{
    if (sockop_begin(op) < 0) {
        return ATTEMPT_FAILED;
    }
    int native = accepts_natively(op) ? sockop_knows_family(op) : 0;
    if (native <= 0) {
        return native < 0 ? ATTEMPT_FAILED : accept_by_method(op, result);
    }
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    int fd = accept_at_once(op->fd, (struct sockaddr *)&address, &length);
    if (fd < 0) {
        return sockop_failed(ATTEMPT_WAIT_READ);
    }
    PyObject *conn = socket_like(op, fd);
    PyObject *peer = conn == NULL ? NULL : addr_build((struct sockaddr *)&address, length);
    *result = peer == NULL ? NULL : PyTuple_Pack(2, conn, peer);
    Py_XDECREF(peer);
    Py_XDECREF(conn);
    return *result != NULL ? ATTEMPT_DONE : ATTEMPT_FAILED;
}

/* -- the methods -------------------------------------------------------------------------------- */

/* Makes the method Loop_NAME: the first REQUIRED of the given names must be there, NARGS
 * are taken, and so much room for arguments has the Operation (ROOM >= NARGS - 1). */
#define METHOD(NAME, ATTEMPT, REQUIRED, NARGS, ROOM, ...)                                      \
    PyObject *Loop_##NAME(PyObject *loop, PyObject *const *args, Py_ssize_t nargs,             \
                          PyObject *kwnames)                                                   \
    {                                                                                          \
        static const struct operation_kind kind = {                                            \
            .name = #NAME, .attempt = ATTEMPT, .owner = "BaseSelectorEventLoop", .warns = true}; \
        static const char *const names[] = {__VA_ARGS__, NULL};                                \
        PyObject *values[OPERATION_MAX_ARGS + 1] = {NULL};                                     \
        if (LIKELY(kwnames == NULL && nargs == (NARGS) && (ROOM) == (NARGS) - 1)) {            \
            return operation_new((Loop *)loop, &kind, args[0], args + 1, ROOM);                \
        }                                                                                      \
        if (args_unpack(#NAME, args, nargs, kwnames, names, NARGS, REQUIRED, values) < 0) {    \
            return NULL;                                                                       \
        }                                                                                      \
        return operation_new((Loop *)loop, &kind, values[0], values + 1, ROOM);                \
    }

METHOD(sock_recv, attempt_recv, 2, 2, 1, "sock", "n")
METHOD(sock_recv_into, attempt_recv_into, 2, 2, 1, "sock", "buf")
METHOD(sock_recvfrom, attempt_recvfrom, 2, 2, 1, "sock", "bufsize")
METHOD(sock_recvfrom_into, attempt_recvfrom_into, 2, 3, 2, "sock", "buf", "nbytes")
METHOD(sock_sendall, attempt_sendall, 2, 2, 2, "sock", "data")
METHOD(sock_sendto, attempt_sendto, 3, 3, 2, "sock", "data", "address")
METHOD(sock_connect, attempt_connect, 2, 2, 1, "sock", "address")
METHOD(sock_accept, attempt_accept, 1, 1, 0, "sock")
#undef METHOD

PyObject *
Loop__wait_writable(PyObject *loop, PyObject *sock)
{
    static const struct operation_kind kind = {
        .name = "_wait_writable", .attempt = attempt_wait_writable, .beside_transport = true};
    return operation_new((Loop *)loop, &kind, sock, NULL, 0);
}

/* recvmsg() and sendmsg(): positional arguments go through as they are, so that the socket's
 * own defaults hold. */
static PyObject *
message_method(PyObject *loop, const char *function, const struct operation_kind *kind,
               Py_ssize_t limit, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) {
        return PyErr_Format(PyExc_TypeError, "%s() takes no keyword arguments", function);
    }
    if (nargs < 2 || nargs > limit) {
        return PyErr_Format(PyExc_TypeError, "%s() takes 2 to %zd arguments (%zd given)", function,
                            limit, nargs);
    }
    return operation_new((Loop *)loop, kind, args[0], args + 1, nargs - 1);
}

PyObject *
Loop_sock_recvmsg(PyObject *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct operation_kind kind = {.name = "sock_recvmsg", .attempt = attempt_recvmsg};
    return message_method(loop, "sock_recvmsg", &kind, 4, args, nargs, kwnames);
}

PyObject *
Loop_sock_sendmsg(PyObject *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct operation_kind kind = {.name = "sock_sendmsg", .attempt = attempt_sendmsg};
    return message_method(loop, "sock_sendmsg", &kind, 5, args, nargs, kwnames);
}

/* The C function behind socket.fileno(): called for each operation, so without the way
 * through the attribute. NULL where it is not what we know. */
static int
find_fileno(struct state *state, PyObject *socket_type)
{
    PyObject *method = PyObject_GetAttrString(socket_type, "fileno");
    if (method == NULL) {
        return -1;
    }
    if (Py_IS_TYPE(method, &PyMethodDescr_Type)) {
        PyMethodDef *definition = ((PyMethodDescrObject *)method)->d_method;
        if (definition->ml_flags == METH_NOARGS) {
            ops_state(state)->sockops.socket_fileno = definition->ml_meth;
        }
    }
    Py_DECREF(method);
    return 0;
}

int
sockop_init(PyObject *module UNUSED, struct state *state)
{
    STATE_OWN_UNTIL(state, &ops_state(state)->sockops, socket_fileno);
    PyObject *base_events = PyImport_ImportModule("asyncio.base_events");
    if (base_events == NULL) {
        return -1;
    }
    ops_state(state)->sockops.check_ssl_socket = PyObject_GetAttrString(base_events, "_check_ssl_socket");
    Py_DECREF(base_events);
    PyObject *socket_module = PyImport_ImportModule("_socket");
    PyObject *socket_type = socket_module == NULL
                                ? NULL
                                : PyObject_GetAttrString(socket_module, "socket");
    Py_XDECREF(socket_module);
    if (ops_state(state)->sockops.check_ssl_socket == NULL || socket_type == NULL) {
        Py_XDECREF(socket_type);
        return -1;
    }
    ops_state(state)->sockops.socket_family = PyObject_GetAttrString(socket_type, "family");
    int result = ops_state(state)->sockops.socket_family == NULL ? -1 : find_fileno(state, socket_type);
    if (result == 0 && Py_TYPE(ops_state(state)->sockops.socket_family)->tp_descr_get == NULL) {
        PyErr_SetString(PyExc_ImportError, "socket.family is no descriptor");
        result = -1;
    }
    Py_DECREF(socket_type);
    return result;
}
