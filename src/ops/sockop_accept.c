/* sockop_accept.c - see sockop_accept.h. */
#include "ops/sockop_accept.h"

#include "base/standard.h"
#include "net/addr.h"
#include "net/sockets.h"
#include "ops/sockop_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

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

enum attempt
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
