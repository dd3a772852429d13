/* tls_inside.c - see tls_inside.h. */
#include "tls/tls_inside.h"

#include "loop/owner.h"
#include "tls/tls.h"

/* asyncio.sslproto.ENUM.NAME */
static PyObject *
member(const char *enumeration, const char *name)
{
    PyObject *module = PyImport_ImportModule("asyncio.sslproto");
    PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, enumeration);
    PyObject *value = type == NULL ? NULL : PyObject_GetAttrString(type, name);
    Py_XDECREF(type);
    Py_XDECREF(module);
    return value;
}

static PyObject *
phase_of(const Tls *tls)
{
    static const char *const names[] = {
        [TLS_UNWRAPPED] = "UNWRAPPED",
        [TLS_HANDSHAKE] = "DO_HANDSHAKE",
        [TLS_WRAPPED] = "WRAPPED",
        [TLS_FLUSHING] = "FLUSHING",
        [TLS_SHUTDOWN] = "SHUTDOWN",
    };
    return member("SSLProtocolState", names[tls->tls_state]);
}

static PyObject *
app_state_of(const Tls *tls)
{
    static const char *const names[] = {
        [TLS_APP_INIT] = "STATE_INIT",
        [TLS_APP_MADE] = "STATE_CON_MADE",
        [TLS_APP_EOF] = "STATE_EOF",
        [TLS_APP_LOST] = "STATE_CON_LOST",
    };
    return member("AppProtocolState", names[tls->app]);
}

/* As the ssl module was told it: asyncio does not keep the one of a server. */
static PyObject *
hostname_of(const Tls *tls)
{
    if (tls->server_side || tls->engine.object == NULL) {
        Py_RETURN_NONE;
    }
    return PyObject_GetAttrString(tls->engine.object, "server_hostname");
}

/* A copy, as asyncio's deque. */
static PyObject *
backlog_of(const Tls *tls)
{
    PyObject *list = wqueue_as_list(&tls->output);
    PyObject *module = list == NULL ? NULL : PyImport_ImportModule("collections");
    PyObject *backlog = module == NULL ? NULL : PyObject_CallMethod(module, "deque", "O", list);
    Py_XDECREF(module);
    Py_XDECREF(list);
    return backlog;
}

static PyObject *
object_of(PyObject *value)
{
    return Py_NewRef(value != NULL ? value : Py_None);
}

PyObject *
Tls_get_inside(PyObject *op, void *closure)
{
    OWN_LOOP_OF(op, Channel);
    const Tls *tls = tls_cast(op);
    switch ((enum tls_inside)(intptr_t)closure) {
    case TLS_INSIDE_STATE:
        return phase_of(tls);
    case TLS_INSIDE_APP_STATE:
        return app_state_of(tls);
    case TLS_INSIDE_HOSTNAME:
        return hostname_of(tls);
    case TLS_INSIDE_HANDSHAKE_TIMEOUT:
        return object_of(tls->handshake_timeout);
    case TLS_INSIDE_SHUTDOWN_TIMEOUT:
        return object_of(tls->shutdown_timeout);
    case TLS_INSIDE_BACKLOG:
        return backlog_of(tls);
    case TLS_INSIDE_BACKLOG_BYTES:
        return PyLong_FromSize_t(tls->output.bytes);
    case TLS_INSIDE_EOF:
        return PyBool_FromLong(tls->eof);
    case TLS_INSIDE_WRITING_PAUSED:
        return PyBool_FromLong(tls->writing_paused);
    case TLS_INSIDE_READING_PAUSED:
        return PyBool_FromLong(tls->lower_paused);
    case TLS_INSIDE_IS_BUFFERED:
        return PyBool_FromLong(tls->head.proto.kind == PROTO_BUFFERED);
    case TLS_INSIDE_MADE:
        return PyBool_FromLong(tls->app != TLS_APP_INIT);
    case TLS_INSIDE_INCOMING_HIGH:
        return PyLong_FromSize_t(tls->read_limits.high);
    case TLS_INSIDE_INCOMING_LOW:
        return PyLong_FromSize_t(tls->read_limits.low);
    case TLS_INSIDE_OUTGOING_HIGH:
        return PyLong_FromSize_t(tls->head.limits.high);
    case TLS_INSIDE_OUTGOING_LOW:
        return PyLong_FromSize_t(tls->head.limits.low);
    case TLS_INSIDE_APP_PAUSED:
        return PyBool_FromLong(FLAG(tls->head.protocol_paused));
    case TLS_INSIDE_HANDSHAKE_TIMER:
        return object_of(tls->tls_state <= TLS_HANDSHAKE ? (PyObject *)tls->timer : NULL);
    case TLS_INSIDE_SHUTDOWN_TIMER:
        return object_of(tls->tls_state > TLS_HANDSHAKE ? (PyObject *)tls->timer : NULL);
    case TLS_INSIDE_HANDSHAKE_STARTED:
        return tls->handshake_started > 0 ? PyFloat_FromDouble(tls->handshake_started) : Py_NewRef(Py_None);
    case TLS_INSIDE_MAX_SIZE:
        break;
    }
    return PyLong_FromLong(TRANSPORT_MAX_SIZE);
}
