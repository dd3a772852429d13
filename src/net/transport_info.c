/* transport_info.c - what get_extra_info() tells of a connection.
 *
 * Owns:     the addresses of both ends, each asked for when somebody first wants it, and the dict
 *           `extra`, which is completed only for those who look at all of it.
 * Promises: what was known of a connection is told after its end, too.
 * Python:   a name of the user's is compared and looked up, and a socket object may be asked. */
#include "net/transport.h"

#include "base/standard.h"

/* -- addresses ------------------------------------------------------------------ */

typedef int (*name_call)(int fd, struct sockaddr *address, socklen_t *length);

/* What the socket's own method tells; None for an OSError. 0 / -1 with another exception. */
static int
transport_call_name(Transport *tr, const char *method, PyObject **name)
{
    PyObject *value = PyObject_CallMethod(tr->file, method, NULL);
    if (value == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_OSError)) {
            return -1;
        }
        PyErr_Clear();
        value = Py_NewRef(Py_None);
    }
    Py_XSETREF(*name, value);
    return 0;
}

/* Does the kernel tell what the socket's methods would tell? */
static bool
transport_names_are_native(Transport *tr)
{
    return standard_socket_has_all(tr->head.state, tr->file,
                                   1u << SOCKET_GETSOCKNAME | 1u << SOCKET_GETPEERNAME
                                       | 1u << SOCKET_GETATTRIBUTE);
}

/* Asks the kernel, and keeps what it says in one of the two forms (addr may be NULL: it is left as it is for the
 * other one). None where there is no such address, or the number is another file's by now; `method` asks the socket object about a family that addr.c does not know.
 * 0 / -1 with an exception that is no OSError. */
static int
transport_ask_name(Transport *tr, name_call call, const char *method, struct addr *addr,
                   PyObject **name)
{
    struct sockaddr_storage storage;
    socklen_t length = sizeof(storage);
    struct sockaddr *address = (struct sockaddr *)&storage;
    if (io_is_gone(&tr->io) || call(tr->fd, address, &length) < 0) {
        Py_XSETREF(*name, Py_NewRef(Py_None));
        return 0;
    }
    if (addr != NULL && addr_keep(addr, address, length)) {
        return 0;
    }
    PyObject *value = addr_build(address, length);
    if (value == NULL && !PyErr_Occurred()) {
        return transport_call_name(tr, method, name);
    }
    if (value == NULL) {
        return -1;
    }
    Py_XSETREF(*name, value);
    return 0;
}

/* The address has to be known before the descriptor goes: get_extra_info() works after. */
int
transport_remember_sockname(Transport *tr)
{
    if (!tr->kind->is_socket || tr->sockname != NULL || tr->file_closed || tr->fd_gone) {
        return 0;
    }
    return transport_ask_name(tr, getsockname, "getsockname", NULL, &tr->sockname);
}

/* `name` may be NULL: then there is nothing to keep. */
static void
transport_name_peer_steal(Transport *tr, PyObject *name)
{
    if (name != NULL) {
        PyObject *old = transport_named_peer(tr);
        tr->peer.named.length = PEER_IS_NAMED;
        tr->peer.named.name = name;
        Py_XDECREF(old);
    }
}

/* new reference; None if it is not known */
static PyObject *
transport_peername(Transport *tr)
{
    PyObject *name = transport_named_peer(tr);
    if (name == NULL) {
        name = addr_build(&tr->peer.addr.any, tr->peer.addr.length);
        transport_name_peer_steal(tr, name);
    }
    return Py_XNewRef(name);
}

int
transport_set_peer(Transport *tr, const struct sockaddr *address, socklen_t length)
{
    bool native = LIKELY(transport_names_are_native(tr));
    if (!native && transport_call_name(tr, "getsockname", &tr->sockname) < 0) {
        return -1;
    }
    if (tr->head.extra != NULL) {
        int known = PyDict_Contains(tr->head.extra, tr->head.state->names.peername);
        if (known != 0) {
            return known < 0 ? -1 : 0;
        }
    }
    if (length > 0 && addr_keep(&tr->peer.addr, address, length)) {
        return 0;
    }
    PyObject *name = length > 0 ? addr_build(address, length) : NULL;
    int result = PyErr_Occurred() ? -1 : 0;
    if (name == NULL && result == 0) {
        result = length == 0 && !native
                     ? transport_call_name(tr, "getpeername", &name)
                     : transport_ask_name(tr, getpeername, "getpeername", &tr->peer.addr, &name);
    }
    transport_name_peer_steal(tr, name);
    /* The own name of what is no internet connection may change: it is told as it was, as by asyncio. */
    return result == 0 && transport_named_peer(tr) != NULL ? transport_remember_sockname(tr) : result;
}

/* -- get_extra_info() ----------------------------------------------------------- */

/* The extra information that is not in the dict: new reference, NULL without an exception
 * if there is none of that name. */
static PyObject *
transport_own_info(Transport *tr, PyObject *name)
{
    struct state_names *names = &tr->head.state->names;
    if (!tr->kind->is_socket) {
        return PyUnicode_Compare(name, names->pipe) == 0 && tr->file != NULL ? Py_NewRef(tr->file)
                                                                             : NULL;
    }
    if (PyUnicode_Compare(name, names->socket) == 0) {
        if (tr->socket_view == NULL && tr->file != NULL) {
            tr->socket_view = PyObject_CallOneArg(net_state(tr->head.state)->transports.TransportSocket, tr->file);
        }
        return Py_XNewRef(tr->socket_view);
    }
    if (PyUnicode_Compare(name, names->peername) == 0) {
        return transport_peername(tr);
    }
    if (PyUnicode_Compare(name, names->sockname) == 0) {
        if (transport_remember_sockname(tr) < 0) {
            return NULL;
        }
        return Py_NewRef(tr->sockname != NULL ? tr->sockname : Py_None);
    }
    return NULL;
}

static int
dict_add_own_info(Transport *tr, PyObject *dict, PyObject *name)
{
    int known = PyDict_Contains(dict, name);
    if (known != 0) {
        return known < 0 ? -1 : 0;
    }
    PyObject *value = transport_own_info(tr, name);
    if (value == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int result = PyDict_SetItem(dict, name, value);
    Py_DECREF(value);
    return result;
}

PyObject *
transport_extra(Transport *tr)
{
    if (tr->head.extra == NULL && (tr->head.extra = PyDict_New()) == NULL) {
        return NULL;
    }
    if (!tr->head.extra_complete) {
        struct state_names *names = &tr->head.state->names;
        PyObject *own[] = {names->socket, names->sockname, names->peername, names->pipe};
        for (size_t i = 0; i < ARRAY_LEN(own); i++) {
            if (dict_add_own_info(tr, tr->head.extra, own[i]) < 0) {
                return NULL;
            }
        }
        tr->head.extra_complete = true;
    }
    return tr->head.extra;
}

PyObject *
transport_get_info(Transport *tr, PyObject *name, PyObject *otherwise)
{
    PyObject *extra = tr->head.extra;
    if (!PyUnicode_Check(name) && (extra = transport_extra(tr)) == NULL) {
        return NULL;
    }
    PyObject *value = NULL;
    if (extra != NULL && PyDict_GetItemRef(extra, name, &value) != 0) {
        return value;
    }
    if (!tr->head.extra_complete) {
        value = transport_own_info(tr, name);
        if (value != NULL || PyErr_Occurred()) {
            return value;
        }
    }
    return Py_NewRef(otherwise);
}
