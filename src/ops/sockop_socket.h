/* sockop_socket.h - the socket of an Operation: its descriptor, its methods, what they raise. */
#ifndef ASYNCLOOP_SOCKOP_SOCKET_H
#define ASYNCLOOP_SOCKOP_SOCKET_H

#include "base/standard.h"
#include "ops/operation.h"

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
static inline int
sockop_find_plain_fd(Operation *op)
{
    PyCFunction fileno = ops_state(op->state)->sockops.socket_fileno;
    PyObject *number = LIKELY(fileno != NULL) && has_own(op, SOCKET_FILENO)
                           ? fileno(op->sock, NULL)
                           : PyObject_CallMethodNoArgs(op->sock, op->state->names.fileno);
    if (number == NULL) {
        return -1;
    }
    int small = args_small_fd(number);
    if (LIKELY(small >= 0)) {
        Py_DECREF(number);
        op->fd = small;
        return 0;
    }
    int overflow;
    long fd = PyLong_AsLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    op->fd = fd < 0 || fd > INT_MAX ? -1 : (int)fd;
    return fd == -1 && PyErr_Occurred() ? -1 : 0;
}

/* asyncio's checks, at the first attempt: no TLS socket; in debug mode a non-blocking one. */
int sockop_check(Operation *op);

/* What every attempt begins with. 0 / -1 */
static inline int
sockop_begin(Operation *op)
{
    if (!op->started && UNLIKELY((FLAG(op->loop->debug) || !is_plain_socket(op)) && sockop_check(op) < 0)) {
        return -1;
    }
    return LIKELY(is_plain_socket(op)) ? sockop_find_plain_fd(op) : 0;
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

/* A system call has failed: wait for `direction`, or an OSError. */
enum attempt sockop_failed(enum attempt direction);
/* A method of the socket has raised: the same. */
enum attempt sockop_raised(enum attempt direction);
/* Calls sock.name(*args) with the first nargs of op->args. */
enum attempt sockop_call(Operation *op, PyObject *name, Py_ssize_t nargs, enum attempt direction,
                         PyObject **result);
/* The address family of the socket, as far as possible without the enum that its property
 * makes; -1 with an exception. */
int sockop_family(Operation *op);
/* May we make Python's form of the addresses of this socket ourselves? 1, 0, -1 */
int sockop_knows_family(Operation *op);

#endif
