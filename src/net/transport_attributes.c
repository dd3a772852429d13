/* transport_attributes.c - the names of asyncio's private attributes, which programs read and set. */
#include "net/transport.h"

#include "base/args.h"

/* -- what a program reads ----------------------------------------------------------------- */

#define OBJECT_GETTER(name, guard, expression)              \
    static PyObject *                                       \
    Transport_get_##name(PyObject *op, void *closure UNUSED) \
    {                                                       \
        guard;                                              \
        Transport *tr = transport_cast(op);                 \
        PyObject *value = (PyObject *)(expression);         \
        return Py_NewRef(value != NULL ? value : Py_None);  \
    }

OBJECT_GETTER(file, GUARD(op), tr->file_closed ? NULL : tr->file)
OBJECT_GETTER(server, OWN_LOOP_OF(op, Channel), tr->server)

#if PY_VERSION_HEX >= 0x030F0000
/* Of datagrams nobody gives one. */
static PyObject *
Transport_get_context(PyObject *op, void *closure UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Transport *tr = transport_cast(op);
    PyObject *context = tr->kind->received_eof == NULL ? NULL : tr->head.proto.context;
    return Py_NewRef(context != NULL ? context : Py_None);
}
#endif

static PyObject *
Transport_get_protocol_connected(PyObject *op, void *closure UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return PyBool_FromLong(transport_cast(op)->head.proto.protocol != NULL);
}

static PyObject *
Transport_get_fd(PyObject *op, void *closure UNUSED)
{
    return PyLong_FromLong(transport_cast(op)->fd);
}

static PyObject *
Transport_get_extra(PyObject *op, void *closure UNUSED)
{
    GUARD(op);
    return Py_XNewRef(transport_extra(transport_cast(op)));
}

static PyObject *
Transport_get_limit(PyObject *op, void *closure)
{
    PyObject *pair = limits_get(&transport_cast(op)->head.limits);
    PyObject *limit = pair == NULL ? NULL : Py_NewRef(PyTuple_GET_ITEM(pair, closure != NULL));
    Py_XDECREF(pair);
    return limit;
}

static PyObject *
Transport_get_buffer_size(PyObject *op, void *closure UNUSED)
{
    return PyObject_CallMethod(op, "get_write_buffer_size", NULL);
}

static PyObject *
Transport_get_header_size(PyObject *op UNUSED, void *closure UNUSED)
{
    return PyLong_FromLong(8);    /* of each datagram that waits, by asyncio's count */
}

/* -- what a program sets ---------------------------------------------------------------------- */

static int
no_delete(PyObject *value, const char *name)
{
    if (value == NULL) {
        PyErr_Format(PyExc_AttributeError, "%s of a transport cannot be deleted", name);
        return -1;
    }
    return 0;
}

/* As asyncio's attributes: they say what happens next, and nothing happens by itself. To delete one, as
 * mock.patch.object() does behind itself, is to set what it is at first. */
#define BOOL_SETTER(name, field)                                                    \
    static int                                                                      \
    Transport_set_##name(PyObject *op, PyObject *value, void *closure UNUSED)       \
    {                                                                               \
        int truth = value == NULL ? 0 : PyObject_IsTrue(value);                     \
        if (truth >= 0) {                                                           \
            channel_note_set_by_hand(&transport_cast(op)->head);                    \
            SET_FLAG(transport_cast(op)->head.field, truth > 0);                     \
        }                                                                           \
        return truth < 0 ? -1 : 0;                                                  \
    }
BOOL_SETTER(closing, closing)
BOOL_SETTER(paused, paused)
BOOL_SETTER(protocol_paused, protocol_paused)
#undef BOOL_SETTER

static int
Transport_set_protocol(PyObject *op, PyObject *value, void *closure UNUSED)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_protocol cannot be deleted");
        return -1;
    }
    Transport *tr = transport_cast(op);
    return proto_set(&tr->head.proto, tr->head.state, value);
}

/* A connection that is lost stays so. */
static int
Transport_set_conn_lost(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Transport *tr = transport_cast(op);
    size_t count;
    if (no_delete(value, "_conn_lost") < 0 || args_size(value, &count) < 0) {
        return -1;
    }
    if (count == 0 && tr->head.conn_lost > 0) {
        PyErr_SetString(PyExc_AttributeError, "_conn_lost: the connection is lost, and stays so");
        return -1;
    }
    channel_note_set_by_hand(&tr->head);
    SHARED_STORE(tr->head.conn_lost, count < UINT_MAX ? (unsigned int)count : UINT_MAX);
    return 0;
}

/* One of the two; unlike those of set_write_buffer_limits() they may be in any order. */
static int
Transport_set_limit(PyObject *op, PyObject *value, void *closure)
{
    channel_note_set_by_hand(&transport_cast(op)->head);
    return no_delete(value, "a limit") < 0
               ? -1
               : limits_set_one(&transport_cast(op)->head.limits, closure != NULL, value);
}

static int
Transport_set_extra(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Transport *tr = transport_cast(op);
    if (no_delete(value, "_extra") < 0) {
        return -1;
    }
    if (!PyDict_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "_extra must be a dict");
        return -1;
    }
    PyObject *old;
    {
        GUARD(op);
        old = tr->head.extra;
        tr->head.extra = Py_NewRef(value);
        tr->head.extra_complete = true;
    }
    Py_XDECREF(old);
    return 0;
}

/* A double in the place of the socket: its methods receive, send and close. The descriptor that is
 * watched stays. */
static int
Transport_set_sock(PyObject *op, PyObject *value, void *closure)
{
    Transport *tr = transport_cast(op);
    bool gone = tr->file == NULL || tr->file_closed || tr->head.loop == NULL;
    if (gone && (value == NULL || value == Py_None)) {
        return 0;
    }
    if (value == NULL && tr->socket_view != NULL) {
        PyObject *real = PyObject_GetAttrString(tr->socket_view, "_sock");
        int result = real == NULL ? -1 : Transport_set_sock(op, real, closure);
        Py_XDECREF(real);
        return result;
    }
    if (no_delete(value, "_sock") < 0) {
        return -1;
    }
    if (gone || value == Py_None || !tr->kind->is_socket) {
        PyErr_SetString(PyExc_AttributeError, "_sock of this transport cannot be set to that");
        return -1;
    }
    if (transport_extra(tr) == NULL) {
        return -1;    /* get_extra_info() goes on to tell of the real one */
    }
    PyObject *old;
    {
        GUARD(op);
        old = tr->file;
        tr->file = Py_NewRef(value);
        tr->io.owned = transport_socket_number(tr->head.state, value, tr->fd);
        io_forget_class(&tr->io);
    }
    Py_XDECREF(old);
    return 0;
}

PyGetSetDef Transport_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_loop", Channel_loop, NULL, NULL, NULL},
    {"_protocol", Channel_protocol, Transport_set_protocol, NULL, NULL},
    {"_protocol_connected", Transport_get_protocol_connected, NULL, NULL, NULL},
    {"_protocol_paused", Channel_protocol_paused, Transport_set_protocol_paused, NULL, NULL},
    {"_sock", Transport_get_file, Transport_set_sock, NULL, NULL},
    {"_sock_fd", Transport_get_fd, NULL, NULL, NULL},
    {"_server", Transport_get_server, NULL, NULL, NULL},
#if PY_VERSION_HEX >= 0x030F0000
    {"_context", Transport_get_context, NULL, NULL, NULL},
#endif
    {"_extra", Transport_get_extra, Transport_set_extra, NULL, NULL},
    {"_closing", Channel_closing, Transport_set_closing, NULL, NULL},
    {"_conn_lost", Channel_conn_lost, Transport_set_conn_lost, NULL, NULL},
    {"_paused", Channel_paused, Transport_set_paused, NULL, NULL},
    {"_low_water", Transport_get_limit, Transport_set_limit, NULL, NULL},
    {"_high_water", Transport_get_limit, Transport_set_limit, NULL, (void *)1},
    {"_buffer_size", Transport_get_buffer_size, NULL, NULL, NULL},
    {"_header_size", Transport_get_header_size, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
