/* sockop.c - see sockop.h.
 *
 * A socket that is exactly a socket.socket, whose method nobody has replaced, is read and written
 * by the system calls; anything else (subclasses, wrappers, doubles of tests) by its own methods,
 * whose BlockingIOError means "wait". Calls never block, not even on a blocking socket. */
#include "ops/sockop.h"

#include "base/args.h"
#include "base/standard.h"
#include "base/tuning.h"
#include "loop/overrides.h"
#include "loop/scratch.h"
#include "net/addr.h"
#include "net/io.h"
#include "ops/sockop_accept.h"
#include "ops/sockop_connect.h"
#include "ops/sockop_socket.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* Sending this much or more takes the kernel long enough that other threads may run. */
#define SEND_UNLOCKED_BYTES TUNED(SEND_UNLOCKED_BYTES, 64 * 1024)

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

/* The memory of op->args[0]. To ask for it may run Python, which may close the socket: the number of its
 * descriptor is looked up afterwards. 0 / -1 */
static int
sockop_get_buffer(Operation *op, Py_buffer *view, int flags)
{
    if (PyObject_GetBuffer(op->args[0], view, flags) < 0) {
        if (flags == PyBUF_WRITABLE) {
            args_not_writable("recv_into() argument 1", op->args[0]);
        }
        return -1;
    }
    if (UNLIKELY(sockop_find_plain_fd(op) < 0)) {
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}

/* args[0] is how many bytes are wanted: fills op->count, once. 0 / -1 */
static int
sockop_parse_size(Operation *op, const char *function)
{
    if (op->phase > 0) {
        return 0;
    }
    op->count = PyLong_CheckExact(op->args[0]) ? long_if_small(op->args[0]) : -1;
    if (LIKELY(op->count >= 0)) {
        op->phase = 1;
        return 0;
    }
    PyObject *number = PyNumber_Index(op->args[0]);
    op->count = number == NULL ? -1 : PyLong_AsSsize_t(number);
    Py_XDECREF(number);
    if (op->count == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (UNLIKELY(!PyLong_CheckExact(op->args[0])) && sockop_find_plain_fd(op) < 0) {
        return -1;    /* its __index__() may have closed the socket, and the number may be another's by now */
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
        char *buffer = scratch_take(&loop->scratch);
        if (buffer == NULL) {
            return ATTEMPT_FAILED;
        }
        got = receive(op, buffer, (size_t)op->count, address, length);
        int err = errno;
        *data = got < 0 ? NULL : PyBytes_FromStringAndSize(buffer, got);
        scratch_give(&loop->scratch, buffer);
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
    if (sockop_get_buffer(op, &view, PyBUF_WRITABLE) < 0) {
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

/* A memoryview of `data` whose items are bytes, as send() counts them: asyncio's counts items, and waits for ever
 * where these are larger. NULL with an exception. */
static PyObject *
view_of_bytes(PyObject *data)
{
    PyObject *view = PyMemoryView_FromObject(data);
    if (view == NULL) {
        return NULL;
    }
    const Py_buffer *buffer = PyMemoryView_GET_BUFFER(view);
    if (LIKELY(buffer->itemsize == 1 && buffer->ndim == 1)) {
        return view;
    }
    PyObject *bytes = PyObject_CallMethod(view, "cast", "s", "B");
    Py_DECREF(view);
    return bytes;
}

/* Other bytes-like objects. From the first wait on, a memoryview (args[1]) keeps the buffer: a new one, as
 * asyncio's, and an object may give another buffer than before. */
static enum attempt
sockop_sendall_buffer(Operation *op, PyObject **result)
{
    if (op->args[1] != NULL) {
        Py_buffer *kept = PyMemoryView_GET_BUFFER(op->args[1]);
        if (UNLIKELY(kept->len < op->count)) {
            PyErr_SetString(PyExc_BufferError, "the buffer is shorter than what was sent of it");
            return ATTEMPT_FAILED;
        }
        return sockop_send_rest(op, kept->buf, kept->len, result);
    }
    Py_buffer view;
    if (sockop_get_buffer(op, &view, PyBUF_SIMPLE) < 0) {
        return ATTEMPT_FAILED;
    }
    enum attempt outcome = sockop_send_rest(op, view.buf, view.len, result);
    if (outcome == ATTEMPT_WAIT_WRITE) {
        op->args[1] = view_of_bytes(op->args[0]);
        if (op->args[1] == NULL) {
            outcome = ATTEMPT_FAILED;
        }
    }
    PyBuffer_Release(&view);
    return outcome;
}

/* The bytes of what was given to send(), or the length of what has none. -1 with an exception. */
static Py_ssize_t
length_for_send(PyObject *data)
{
    Py_ssize_t length = PyObject_Length(data);
    if (length < 0 || PyBytes_Check(data) || PyByteArray_Check(data)) {
        return length;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return length;
    }
    length = view.len;
    PyBuffer_Release(&view);
    return length;
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
        sockop_count(op, ATTEMPT_WAIT_WRITE, count);
        op->count += count;
    }
    Py_ssize_t length = op->args[1] != NULL ? PyObject_Length(op->args[1]) : length_for_send(op->args[0]);
    if (length < 0) {
        return ATTEMPT_FAILED;
    }
    if (sent != NULL && op->count >= length) {
        *result = Py_NewRef(Py_None);
        return ATTEMPT_DONE;
    }
    if (op->args[1] == NULL) {
        op->args[1] = view_of_bytes(op->args[0]);
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

/* -- the methods -------------------------------------------------------------------------------- */

/* By asyncio's method of that name: it waits in what create_future() gives, which is somebody's. */
static PyObject *
sockop_by_asyncio(PyObject *loop, const char *name, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    PyObject *module = PyImport_ImportModule("asyncio.selector_events");
    PyObject *class = module == NULL ? NULL : PyObject_GetAttrString(module, "BaseSelectorEventLoop");
    PyObject *method = class == NULL ? NULL : PyObject_GetAttrString(class, name);
    PyObject *bound = method == NULL ? NULL : PyMethod_New(method, loop);
    PyObject *result = bound == NULL ? NULL : PyObject_Vectorcall(bound, args, (size_t)nargs, kwnames);
    Py_XDECREF(bound);
    Py_XDECREF(method);
    Py_XDECREF(class);
    Py_XDECREF(module);
    return result;
}

/* Makes the method Loop_NAME: the first REQUIRED of the given names must be there, NARGS
 * are taken, and so much room for arguments has the Operation (ROOM >= NARGS - 1). */
#define METHOD(NAME, ATTEMPT, REQUIRED, NARGS, ROOM, ...)                                      \
    PyObject *Loop_##NAME(PyObject *loop, PyObject *const *args, Py_ssize_t nargs,             \
                          PyObject *kwnames)                                                   \
    {                                                                                          \
        static const struct operation_kind kind = {                                            \
            .name = #NAME, .attempt = ATTEMPT, .owner = "BaseSelectorEventLoop", .warns = true}; \
        static const char *const names[] = {__VA_ARGS__, NULL};                                \
        if (UNLIKELY(loop_has_custom_futures((Loop *)loop))) {                                 \
            return sockop_by_asyncio(loop, #NAME, args, nargs, kwnames);                       \
        }                                                                                      \
        if (LIKELY(kwnames == NULL && nargs == (NARGS) && (ROOM) == (NARGS) - 1)) {            \
            return operation_new((Loop *)loop, &kind, args[0], args + 1, ROOM);                \
        }                                                                                      \
        PyObject *values[OPERATION_MAX_ARGS + 1] = {NULL};                                     \
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
