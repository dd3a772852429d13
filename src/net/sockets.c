/* sockets.c - see sockets.h. (Benchmark rows: accept, connect.) */
#include "net/sockets.h"

#include "base/args.h"
#include "base/standard.h"
#include "loop/overrides.h"
#include "net/io.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Without a hook nobody asks for the arguments of an event. */
static PyObject *
arguments_wanted(void *audited)
{
    *(bool *)audited = true;
    PyErr_SetNone(PyExc_StopIteration);    /* there are none: so no hook is called */
    return NULL;
}

bool
sockets_are_audited(void)
{
    bool audited = false;
    if (PySys_Audit("asyncloop.look", "O&", arguments_wanted, &audited) < 0) {
        PyErr_Clear();
    }
    return audited;
}

bool
sockets_are_plain(struct state *state)
{
#ifdef SOCK_NONBLOCK
    return standard_is(state, STANDARD_SOCKET_SOCKET)
           && standard_sockets_have(state, 1u << SOCKET_NEW | 1u << SOCKET_INIT
                                               | 1u << SOCKET_SETBLOCKING
                                               | 1u << SOCKET_GETATTRIBUTE)
           && !sockets_are_audited();
#else
    (void)state;
    return false;
#endif
}

/* socket.socket(family, type, proto, fileno), which does not block: new reference */
static PyObject *
make_plain(struct state *state, PyObject *family, int type, PyObject *proto, PyObject *fileno)
{
#ifdef SOCK_NONBLOCK
    type |= SOCK_NONBLOCK;
#endif
    PyObject *number = PyLong_FromLong(type);
    if (number == NULL) {
        return NULL;
    }
    PyObject *args[] = {NULL, family, number, proto, fileno};
    size_t count = fileno == NULL ? 3 : 4;
    PyObject *sock = PyObject_Vectorcall(state->standard.socket_class, args + 1,
                                         count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(number);
    return sock;
}

/* Of a socket that nobody else has: on failure it is closed, and dropped. */
static PyObject *
set_nonblocking_steal(struct state *state, PyObject *sock)
{
    if (sock == NULL) {
        return NULL;
    }
    PyObject *done = PyObject_CallMethodOneArg(sock, state->names.setblocking, Py_False);
    if (done == NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        PyObject *closed = PyObject_CallMethodNoArgs(sock, state->names.close);
        if (closed == NULL) {
            PyErr_WriteUnraisable(sock);
        }
        Py_XDECREF(closed);
        PyErr_SetRaisedException(exc);
        Py_CLEAR(sock);
    }
    Py_XDECREF(done);
    return sock;
}

PyObject *
sockets_accepted(struct state *state, PyObject *family, int type, PyObject *proto, int fd)
{
    PyObject *fileno = PyLong_FromLong(fd);
    PyObject *sock = NULL;
    if (fileno != NULL && LIKELY(sockets_are_plain(state))) {
        sock = make_plain(state, family, type, proto, fileno);
    }
    else if (fileno != NULL) {
        sock = PyObject_CallFunction(state->standard.socket_class, "OiOO", family, type, proto, fileno);
        if (sock != NULL) {
            Py_DECREF(fileno);
            return set_nonblocking_steal(state, sock);
        }
    }
    Py_XDECREF(fileno);
    if (sock == NULL) {
        close(fd);
    }
    return sock;
}

/* -- for create_connection() ----------------------------------------------------------------- */

/* Asyncio's create_connection() would do just what ours does in its place. */
static PyObject *
module_connects_as_usual(PyObject *module, PyObject *op)
{
    Loop *loop = loop_from_argument(module, op);
    if (loop == NULL) {
        return NULL;
    }
    unsigned int bits = LOOP_BIT(create_connection) | LOOP_BIT(_connect_sock);
    return PyBool_FromLong(!FLAG(loop->debug) && (loop_replaced(loop) & bits) == 0
                           && !loop_has_custom_futures(loop)
                           && standard_is(loop->state, STANDARD_BASE_EVENTS_SOCKET));
}

static PyObject *
module_has_custom_futures(PyObject *module, PyObject *op)
{
    Loop *loop = loop_from_argument(module, op);
    return loop == NULL ? NULL : PyBool_FromLong(loop_has_custom_futures(loop));
}

/* Does asyncio's _ensure_resolved() find out by itself what is an address? */
static bool
resolves_as_usual(Loop *loop)
{
    struct state *state = loop->state;
    return (loop_replaced(loop) & LOOP_BIT(_ensure_resolved)) == 0
           && standard_is(state, STANDARD_BASE_EVENTS_IPADDR_INFO)
           && standard_is(state, STANDARD_BASE_EVENTS_SOCKET)
           && standard_is(state, STANDARD_SOCKET_INET_PTON);
}

static bool
knows_ipv6(struct state *state)
{
    PyObject *namespace = state->standard.modules[MODULE_BASE_EVENTS].dict;
    return namespace != NULL && PyDict_GetItemString(namespace, "_HAS_IPv6") == Py_True;
}

/* The family of a numeric host, or AF_UNSPEC. */
static int
numeric_family(struct state *state, PyObject *host)
{
    struct in6_addr parsed;
    if (!PyUnicode_CheckExact(host) || !PyUnicode_IS_ASCII(host)) {
        return AF_UNSPEC;
    }
    const char *text = (const char *)PyUnicode_1BYTE_DATA(host);
    if (strlen(text) != (size_t)PyUnicode_GET_LENGTH(host) || strchr(text, '%') != NULL) {
        return AF_UNSPEC;
    }
    if (inet_pton(AF_INET, text, &parsed) == 1) {
        return AF_INET;
    }
    return inet_pton(AF_INET6, text, &parsed) == 1 && knows_ipv6(state) ? AF_INET6 : AF_UNSPEC;
}

/* (socket, address) for a host that is an address; None if it is none, or if asyncio would not come
 * to this socket by calls that nobody can see. */
static PyObject *
module_socket_for(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "_socket_for() takes a loop, a host and a port");
        return NULL;
    }
    Loop *loop = loop_from_argument(module, args[0]);
    if (loop == NULL) {
        return NULL;
    }
    struct state *state = loop->state;
    PyObject *host = args[1], *port = args[2];
    int family = numeric_family(state, host);
    if (family == AF_UNSPEC || !resolves_as_usual(loop) || !sockets_are_plain(state)) {
        return Py_NewRef(Py_None);
    }
    PyObject *zero = PyLong_FromLong(0);
    PyObject *number = PyLong_FromLong(family);
    PyObject *proto = PyLong_FromLong(IPPROTO_TCP);
    PyObject *sock = NULL, *address = NULL, *pair = NULL;
    if (zero != NULL && number != NULL && proto != NULL) {
        sock = make_plain(state, number, SOCK_STREAM, proto, NULL);
    }
    if (sock != NULL) {
        address = family == AF_INET ? PyTuple_Pack(2, host, port)
                                    : PyTuple_Pack(4, host, port, zero, zero);
        pair = address == NULL ? NULL : PyTuple_Pack(2, sock, address);
    }
    Py_XDECREF(address);
    Py_XDECREF(sock);
    Py_XDECREF(proto);
    Py_XDECREF(number);
    Py_XDECREF(zero);
    return pair;
}

static PyMethodDef sockets_functions[] = {
    {"_connects_as_usual", module_connects_as_usual, METH_O,
     INSIDE_DOC("_connects_as_usual(loop, /)\n--\n\n"
                "Is nothing replaced that asyncio's create_connection() would call?")},
    {"_has_custom_futures", module_has_custom_futures, METH_O,
     INSIDE_DOC("_has_custom_futures(loop, /)\n--\n\n"
                "Does create_future() of this loop give something else than the core's own?")},
    {"_socket_for", (PyCFunction)(void (*)(void))module_socket_for, METH_FASTCALL,
     INSIDE_DOC("_socket_for(loop, host, port, /)\n--\n\n"
                "A non-blocking TCP socket and the address to connect it to, for a numeric host.\n\n"
                "None for another host, and where a program may look how such a socket is made.")},
    {NULL, NULL, 0, NULL},
};

int
socket_set_nodelay(struct state *state, PyObject *sock, int fd)
{
    if (LIKELY(standard_socket_has(state, sock, SOCKET_SETSOCKOPT))) {
        io_set_nodelay(fd);
        return 0;
    }
    PyObject *result = PyObject_CallMethod(loop_state(state)->loops.base_events, "_set_nodelay", "O", sock);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
sockets_init(PyObject *module, struct state *state UNUSED)
{
    return PyModule_AddFunctions(module, sockets_functions);
}
