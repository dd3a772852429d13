/* server.c - accepting connections on a listening socket.
 *
 * An Acceptor is what loop._start_serving() makes for each socket of an asyncio.Server.
 * It does not own the listening socket: the Server does.
 *
 * One readable event of the listening socket accepts what waits, up to the backlog, as with asyncio. For
 * each connection: a socket.socket object, the protocol by the factory, the transport; connection_made()
 * follows in the next iteration. From accept4() until the socket object exists the
 * descriptor is ours to close; from then on it is closed through that object, by us on
 * an error, by the transport else. */
#include "net/stream.h"

#include "base/args.h"
#include "base/checked.h"
#include "base/standard.h"
#include "loop/overrides.h"
#include "loop/owner.h"
#include "loop/schedule.h"
#include "loop/timer.h"
#include "loop/watch.h"
#include "net/addr.h"
#include "net/io.h"
#include "net/sockets.h"
#include "tasks/task.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

/* Out of descriptors or memory: accepting stops for this time, in seconds, as with
 * asyncio (constants.ACCEPT_RETRY_DELAY), because the kernel would go on reporting the
 * socket as readable. */
#define ACCEPT_RETRY_DELAY 1.0

typedef struct {
    PyObject_HEAD
    Loop *loop;                 /* strong; NULL once stopped */
    PyObject *sock;             /* the listening socket */
    PyObject *protocol_factory;
    PyObject *server;           /* asyncio.Server, or NULL */
    PyObject *context;          /* a copy of it is each connection's */
    PyObject *accepted;         /* callable(sock, peername, context) that takes connections in
                                 * our place (TLS), or NULL */
    PyObject *otherwise;        /* the same, for who has replaced what asyncio calls for each of them */
    PyObject *family;           /* of the listening socket: ints */
    PyObject *proto;
    int type;
    TimerHandle *retry;         /* while accepting is stopped for want of resources */
    struct io io;
    struct watch watch;
    int most;                   /* connections that one event accepts */
    bool nodelay;
    bool family_is_known;       /* its addresses can be told: addr.h */
} Acceptor;

#define acceptor_cast(op) ((Acceptor *)(op))

/* -- one connection --------------------------------------------------------------------- */

/* Creation failed, with an exception set: told in debug mode only, as asyncio does.
 * 0, or -1 with an exit exception. */
static int
accept_failed(Loop *loop, PyObject *protocol)
{
    if (is_exit_exception()) {
        return -1;
    }
    if (!FLAG(loop->debug)) {
        PyErr_Clear();
        return 0;
    }
    loop_report(loop, "Error on transport creation for incoming connection",
                protocol == NULL || protocol == Py_None ? NULL : "protocol", protocol);
    return 0;
}

/* The current exception came out of what asyncio's _accept_connection() does: 0 when the exception handler
 * has it, or -1 with an exit exception. */
static int
accepting_raised(Loop *loop)
{
    if (is_exit_exception()) {
        return -1;
    }
    loop_report(loop, "Exception in callback BaseSelectorEventLoop._accept_connection()", NULL, NULL);
    return 0;
}

/* Keeps the current exception. */
static void
close_socket(struct state *state, PyObject *sock)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *result = PyObject_CallMethodNoArgs(sock, state->names.close);
    if (result == NULL) {
        PyErr_WriteUnraisable(sock);
    }
    Py_XDECREF(result);
    PyErr_SetRaisedException(exc);
}

/* 0, or -1 with what a filter or a handler of logging has raised. */
static int
log_connection(Acceptor *acceptor, struct state *state, PyObject *sock, PyObject *peername)
{
    PyObject *server = acceptor->server != NULL ? acceptor->server : Py_None;
    PyObject *logger = asyncio_logger(state, "asyncio.selector_events");
    PyObject *result = PyObject_CallMethod(logger, "debug", "sOOO", "%r got a new connection from %r: %r",
                                           server, peername, sock);
    Py_DECREF(logger);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
call_in_context(PyObject *context, PyObject *callable, PyObject *const *args, size_t nargs)
{
    if (PyContext_Enter(context) < 0) {
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(callable, args, nargs, NULL);
    if (PyContext_Exit(context) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* Who takes a connection: borrowed, or NULL for us. */
static PyObject *
taker(const Acceptor *acceptor, Loop *loop)
{
    bool seen = (loop_replaced(loop) & LOOP_ACCEPTING) != 0 || tasks_are_seen(loop);
    return UNLIKELY(seen) ? acceptor->otherwise : acceptor->accepted;
}

/* A connection that others make a transport of. Takes over the socket object. */
static int
hand_over(PyObject *accepted, Loop *loop, PyObject *sock, PyObject *context,
          const struct sockaddr *peer, socklen_t peer_length, PyObject *known_name)
{
    PyObject *peername = known_name != NULL ? Py_NewRef(known_name) : addr_build(peer, peer_length);
    PyObject *result = NULL;
    if (peername == NULL && !PyErr_Occurred()) {
        peername = Py_NewRef(Py_None);
    }
    if (peername != NULL) {
        Py_INCREF(accepted);
        PyObject *args[] = {sock, peername, context};
        result = call_in_context(context, accepted, args, 3);
        Py_DECREF(accepted);
        Py_DECREF(peername);
    }
    if (result == NULL) {
        close_socket(loop->state, sock);
        return accept_failed(loop, NULL);
    }
    Py_DECREF(result);
    return 0;
}

/* The usual case: protocol and transport. */
static int
make_stream(Acceptor *acceptor, Loop *loop, PyObject *sock, int fd, PyObject *context,
            const struct sockaddr *peer, socklen_t peer_length, PyObject *extra)
{
    PyObject *factory = Py_NewRef(acceptor->protocol_factory);
    PyObject *server = Py_XNewRef(acceptor->server);
    PyObject *transport = NULL;
    task_next_number(loop->state);
    PyObject *protocol = call_in_context(context, factory, NULL, 0);
    int result = 0;
    if (protocol != NULL && transport_socket_number(loop->state, sock, fd) == NULL) {
        fd = args_descriptor(sock);    /* the factory, or a handler of the log, may have closed it */
    }
    if (protocol != NULL && fd >= 0) {
        transport = stream_new(loop, sock, fd, protocol, NULL, extra, server, context, peer,
                               peer_length);
    }
    if (transport == NULL) {
        close_socket(loop->state, sock);
        result = accept_failed(loop, protocol);
    }
    Py_XDECREF(transport);
    Py_XDECREF(protocol);
    Py_XDECREF(server);
    Py_DECREF(factory);
    return result;
}

/* The table still names a transport for a number that the kernel has just given out: its
 * descriptor was closed behind its back. It must not see the new connection's bytes. */
static int
evict_stale_owner(Loop *loop, int fd)
{
    PyObject *stale = watch_fd_transport(loop, fd);
    if (LIKELY(stale == NULL)) {
        return 0;
    }
    int result = transport_descriptor_gone((Transport *)stale);
    Py_DECREF(stale);
    return result;
}

/* 0, or -1 with an exit exception; the connection is served or closed in any case. */
static int
accept_connection(Acceptor *acceptor, Loop *loop, int fd, const struct sockaddr *peer,
                  socklen_t peer_length)
{
    if (UNLIKELY(evict_stale_owner(loop, fd) < 0)) {
        close(fd);
        return -1;
    }
    if (acceptor->nodelay) {
        io_set_nodelay(fd);
    }
    PyObject *context = PyContext_Copy(acceptor->context);
    if (context == NULL) {
        close(fd);
        return accept_failed(loop, NULL);
    }
    int result = -1;
    PyObject *sock = sockets_accepted(loop->state, acceptor->family, acceptor->type,
                                      acceptor->proto, fd);
    if (sock == NULL) {
        result = accept_failed(loop, NULL);
        goto done;
    }
    if (UNLIKELY(FLAG(loop->debug))) {
        PyObject *peername = addr_build(peer, peer_length);
        PyErr_Clear();
        result = log_connection(acceptor, loop->state, sock, peername != NULL ? peername : Py_None);
        Py_XDECREF(peername);
        if (result < 0) {
            close_socket(loop->state, sock);
            Py_DECREF(sock);
            result = accepting_raised(loop);
            goto done;
        }
    }
    PyObject *accepted = taker(acceptor, loop);
    result = accepted != NULL
                 ? hand_over(accepted, loop, sock, context, peer, peer_length, NULL)
                 : make_stream(acceptor, loop, sock, fd, context, peer, peer_length, NULL);
    Py_DECREF(sock);
done:
    Py_DECREF(context);
    return result;
}

/* -- by the socket's own method ------------------------------------------------------------ */

/* What socket.socket.accept() does is done here as well, unless somebody has replaced it, or what it
 * makes its sockets of. */
static bool
accepts_natively(Acceptor *acceptor, struct state *state)
{
    return acceptor->family_is_known
           && standard_socket_has_all(state, acceptor->sock,
                                      1u << SOCKET_ACCEPT | 1u << SOCKET_RAW_ACCEPT
                                          | 1u << SOCKET_SETBLOCKING | 1u << SOCKET_SETSOCKOPT | 1u << SOCKET_NEW
                                          | 1u << SOCKET_INIT | 1u << SOCKET_FILENO | 1u << SOCKET_GETATTRIBUTE)
           && standard_is(state, STANDARD_SOCKET_SOCKET);
}

/* Takes over a socket that accept() has given, and its address. 0, or -1 with an exit exception. */
static int
accept_socket(Acceptor *acceptor, Loop *loop, PyObject *sock, PyObject *peername)
{
    int result = -1;
    PyObject *extra = NULL, *context = NULL;
    PyObject *done = PyObject_CallMethod(sock, "setblocking", "O", Py_False);
    int fd = done == NULL ? -1 : args_descriptor(sock);
    Py_XDECREF(done);
    if (fd < 0) {
        goto failed;
    }
    if (evict_stale_owner(loop, fd) < 0) {
        close_socket(loop->state, sock);
        return -1;
    }
    context = PyContext_Copy(acceptor->context);
    extra = context == NULL ? NULL : PyDict_New();
    if (extra == NULL || PyDict_SetItem(extra, loop->state->names.peername, peername) < 0) {
        goto failed;
    }
    if (UNLIKELY(FLAG(loop->debug)) && log_connection(acceptor, loop->state, sock, peername) < 0) {
        close_socket(loop->state, sock);
        result = accepting_raised(loop);
    }
    else {
        PyObject *accepted = taker(acceptor, loop);
        result = accepted != NULL
                     ? hand_over(accepted, loop, sock, context, NULL, 0, peername)
                     : make_stream(acceptor, loop, sock, fd, context, NULL, 0, extra);
    }
    Py_DECREF(extra);
    Py_DECREF(context);
    return result;
failed:
    Py_XDECREF(extra);
    Py_XDECREF(context);
    close_socket(loop->state, sock);
    return accept_failed(loop, NULL);
}

/* 1: a connection was taken, 0: there is none, -1 with what accept() has raised. */
static int
accept_by_method(Acceptor *acceptor, PyObject **sock, PyObject **peername)
{
    PyObject *listening = Py_NewRef(acceptor->sock);
    PyObject *pair = PyObject_CallMethodNoArgs(listening, acceptor->loop->state->names.accept);
    Py_DECREF(listening);
    if (pair == NULL) {
        if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
            || PyErr_ExceptionMatches(PyExc_InterruptedError)
            || PyErr_ExceptionMatches(PyExc_ConnectionAbortedError)) {
            PyErr_Clear();
            return 0;
        }
        return -1;
    }
    *sock = PySequence_GetItem(pair, 0);
    *peername = *sock == NULL ? NULL : PySequence_GetItem(pair, 1);
    Py_DECREF(pair);
    if (*peername == NULL) {
        Py_CLEAR(*sock);
        return -1;
    }
    return 1;
}

/* -- errors of the listening socket --------------------------------------------------------- */

/* The number may be another socket's by now. */
static void
acceptor_descriptor_gone(Acceptor *acceptor, Loop *loop)
{
    watch_stop(&acceptor->watch);
    errno = EBADF;
    PyErr_SetFromErrno(PyExc_OSError);
    loop_report(loop, "A listening socket was closed while it was served", "socket",
                acceptor->sock);
}

static int
acceptor_resume(PyObject *owner, PyObject *ignored UNUSED)
{
    Acceptor *acceptor = acceptor_cast(owner);
    Py_CLEAR(acceptor->retry);
    if (acceptor->loop != NULL && io_is_gone(&acceptor->io)) {
        acceptor_descriptor_gone(acceptor, acceptor->loop);
        return 0;
    }
    return acceptor->loop == NULL ? 0 : watch_take_place(&acceptor->watch, NULL);
}

/* The current exception stops accepting for a while; it is told once. */
static void
acceptor_back_off(Acceptor *acceptor, Loop *loop, const char *message)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (acceptor->retry == NULL) {
        acceptor->retry = loop_call_later_public(loop, ACCEPT_RETRY_DELAY, acceptor_resume, (PyObject *)acceptor);
    }
    if (LIKELY(acceptor->retry != NULL)) {
        watch_stop(&acceptor->watch);
    }
    else {
        PyErr_WriteUnraisable((PyObject *)acceptor);    /* no pause: the next poll tries again */
    }
    PyObject *view = PyObject_CallOneArg(net_state(loop->state)->transports.TransportSocket, acceptor->sock);
    if (view == NULL) {
        PyErr_Clear();
    }
    PyErr_SetRaisedException(exc);
    loop_report(loop, message, "socket", view);
    Py_XDECREF(view);
}

/* accept4() failed: true to try for the next connection */
static bool
acceptor_failed(Acceptor *acceptor, Loop *loop)
{
    int err = acceptor->io.err;
    if (io_is_of_connection(err)) {
        return true;
    }
    if (io_is_gone(&acceptor->io)) {
        acceptor_descriptor_gone(acceptor, loop);
        return false;
    }
    errno = err;
    PyErr_SetFromErrno(PyExc_OSError);
    acceptor_back_off(acceptor, loop,
                      io_is_shortage(err) ? "socket.accept() out of system resource"
                                          : "socket.accept() failed");
    return false;
}

/* -- the event -------------------------------------------------------------------------------- */

/* Is there another one? An accept4() in vain makes a socket and drops it: 3 µs, a tenth of a connection (benchmark row
 * "accept"), where this takes 0.2. */
static bool
another_waits(const Acceptor *acceptor)
{
    struct pollfd listening = {.fd = acceptor->io.fd, .events = POLLIN};
    return poll(&listening, 1, 0) > 0;
}

/* What accept() has raised: a shortage pauses, anything else is for the exception handler, or leaves the loop. */
static void
acceptor_method_failed(Acceptor *acceptor, Loop *loop)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *number = PyErr_GivenExceptionMatches(exc, PyExc_OSError)
                           ? PyObject_GetAttrString(exc, "errno")
                           : NULL;
    bool shortage = number != NULL && PyLong_Check(number) && io_is_shortage((int)PyLong_AsLong(number));
    Py_XDECREF(number);
    PyErr_Clear();
    PyErr_SetRaisedException(exc);
    if (shortage) {
        acceptor_back_off(acceptor, loop, "socket.accept() out of system resource");
    }
    else if (accepting_raised(loop) < 0) {
        loop_propagate(loop);
    }
}

static void
acceptor_accept_by_method(Acceptor *acceptor, Loop *loop)
{
    for (int budget = acceptor->most; budget > 0 && watch_is_active(&acceptor->watch); budget--) {
        PyObject *sock, *peername;
        int taken = accept_by_method(acceptor, &sock, &peername);
        if (taken <= 0) {
            if (taken < 0) {
                acceptor_method_failed(acceptor, loop);
            }
            return;
        }
        int result = accept_socket(acceptor, loop, sock, peername);
        Py_DECREF(sock);
        Py_DECREF(peername);
        if (result < 0) {
            loop_propagate(loop);
            return;
        }
    }
}

static void
acceptor_on_readable(struct watch *watch, int revents)
{
    Acceptor *acceptor = container_of(watch, Acceptor, watch);
    Loop *loop = watch_loop(watch);
    Py_INCREF(acceptor);    /* a protocol factory may close the server */
    if (UNLIKELY(revents & EV_ERROR) || io_is_gone(&acceptor->io)) {
        acceptor_descriptor_gone(acceptor, loop);
        Py_DECREF(acceptor);
        return;
    }
    int budget = acceptor->most;
    if (UNLIKELY(!accepts_natively(acceptor, loop->state))) {
        acceptor_accept_by_method(acceptor, loop);
        budget = 0;
    }
    while (budget-- > 0) {
        struct sockaddr_storage peer;
        socklen_t peer_length;
        int fd;
        enum io_status status = io_accept(&acceptor->io, &fd, &peer, &peer_length);
        if (status == IO_WANT_READ || (UNLIKELY(status == IO_ERROR) && !acceptor_failed(acceptor, loop))) {
            break;
        }
        if (LIKELY(status == IO_OK)
            && UNLIKELY(accept_connection(acceptor, loop, fd, (struct sockaddr *)&peer, peer_length) < 0)) {
            loop_propagate(loop);
            break;
        }
        if (!watch_is_active(watch) || io_is_gone(&acceptor->io) || !another_waits(acceptor)) {
            break;
        }
    }
    Py_DECREF(acceptor);
}

/* -- the type ------------------------------------------------------------------------------------ */

static void
acceptor_stop(Acceptor *acceptor)
{
    if (acceptor->loop == NULL) {
        return;
    }
    watch_stop(&acceptor->watch);
    if (acceptor->retry != NULL) {
        TimerHandle *retry = acceptor->retry;
        acceptor->retry = NULL;
        loop_cancel_public(retry);
    }
    shared_loop_drop((PyObject *)acceptor, &acceptor->loop);
}

static PyObject *
Acceptor_stop(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Acceptor);
    Py_INCREF(op);
    acceptor_stop(acceptor_cast(op));
    Py_DECREF(op);
    return Py_NewRef(Py_None);
}

static int
Acceptor_traverse(PyObject *op, visitproc visit, void *arg)
{
    Acceptor *self = acceptor_cast(op);
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->protocol_factory);
    Py_VISIT(self->server);
    Py_VISIT(self->context);
    Py_VISIT(self->accepted);
    Py_VISIT(self->otherwise);
    Py_VISIT(self->retry);
    return 0;
}

static int
Acceptor_clear(PyObject *op)
{
    Acceptor *self = acceptor_cast(op);
    watch_abandon(&self->watch);
    acceptor_stop(self);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->protocol_factory);
    Py_CLEAR(self->server);
    Py_CLEAR(self->context);
    Py_CLEAR(self->accepted);
    Py_CLEAR(self->otherwise);
    Py_CLEAR(self->family);
    Py_CLEAR(self->proto);
    return 0;
}

static void
Acceptor_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)Acceptor_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* What an overridden loop._add_reader() gets: watch.h. */
static PyObject *
Acceptor_ready(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Acceptor);
    Acceptor *acceptor = acceptor_cast(op);
    if (acceptor->loop == NULL || FLAG(acceptor->loop->closed)) {
        Py_RETURN_NONE;
    }
    return watch_call_ready(acceptor->loop, &acceptor->watch);
}

static PyMethodDef Acceptor_methods[] = {
    {"_read_ready", Acceptor_ready, METH_NOARGS, NULL},
    {"stop", Acceptor_stop, METH_NOARGS,
     INSIDE_DOC("stop($self, /)\n--\n\nAccept no more; safe to repeat. The socket stays open.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Acceptor_slots[] = {
    {Py_tp_doc, INSIDE_DOC("Accepts the connections of one listening socket.")},
    {Py_tp_dealloc, Acceptor_dealloc},
    {Py_tp_traverse, Acceptor_traverse},
    {Py_tp_clear, Acceptor_clear},
    {Py_tp_methods, Acceptor_methods},
    {0, NULL},
};

static PyType_Spec Acceptor_spec = {
    .name = "asyncloop._core.Acceptor",
    .basicsize = sizeof(Acceptor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Acceptor_slots,
};

/* -- functions of the module ---------------------------------------------------------------------- */

static PyObject *
int_attribute(PyObject *op, const char *name)
{
    PyObject *value = PyObject_GetAttrString(op, name);
    PyObject *number = value == NULL ? NULL : PyNumber_Index(value);
    Py_XDECREF(value);
    PyObject *plain = number == NULL ? NULL : PyLong_FromLong(PyLong_AsLong(number));
    Py_XDECREF(number);
    if (PyErr_Occurred()) {
        Py_CLEAR(plain);
    }
    return plain;
}

/* What the socket objects of accepted connections are made with. */
static int
acceptor_learn_socket(Acceptor *acceptor)
{
    acceptor->family = int_attribute(acceptor->sock, "family");
    acceptor->proto = acceptor->family == NULL ? NULL : int_attribute(acceptor->sock, "proto");
    PyObject *type = acceptor->proto == NULL ? NULL : int_attribute(acceptor->sock, "type");
    if (type == NULL) {
        return -1;
    }
    long family = PyLong_AsLong(acceptor->family);
    long stream = PyLong_AsLong(type);
    acceptor->nodelay = (family == AF_INET || family == AF_INET6) && stream == SOCK_STREAM
                        && PyLong_AsLong(acceptor->proto) == IPPROTO_TCP;
    Py_DECREF(type);
    acceptor->type = (int)stream;
    acceptor->family_is_known = addr_family_is_known((int)family);
    return 0;
}

static PyObject *
module_acceptor_new(PyObject *module, PyObject *args)
{
    OWN_LOOP_ARGUMENT(module, args);
    struct state *state = PyModule_GetState(module);
    PyObject *loop, *factory, *sock, *server, *context, *accepted, *otherwise;
    int most;
    if (!PyArg_ParseTuple(args, "O!OOOOOOi:_acceptor_new", loop_state(state)->types.Loop, &loop, &factory, &sock,
                          &server, &context, &accepted, &otherwise, &most)) {
        return NULL;
    }
    if (context != Py_None && !PyContext_CheckExact(context)) {
        PyErr_SetString(PyExc_TypeError, "context must be a contextvars.Context or None");
        return NULL;
    }
    int fd = args_descriptor(sock);
    if (fd < 0) {
        return NULL;
    }
    Acceptor *acceptor = (Acceptor *)net_state(state)->types.Acceptor->tp_alloc(net_state(state)->types.Acceptor, 0);
    if (acceptor == NULL) {
        return NULL;
    }
    watch_init(&acceptor->watch, (Loop *)loop, (PyObject *)acceptor, WATCH_TRANSPORT, fd, EV_READ,
               acceptor_on_readable);
    acceptor->io.fd = fd;
    acceptor->most = most;
    acceptor->io.owned = transport_socket_number(state, sock, fd);
    acceptor->loop = (Loop *)Py_NewRef(loop);
    acceptor->sock = Py_NewRef(sock);
    acceptor->protocol_factory = Py_NewRef(factory);
    acceptor->server = server == Py_None ? NULL : Py_NewRef(server);
    acceptor->accepted = accepted == Py_None ? NULL : Py_NewRef(accepted);
    acceptor->otherwise = Py_NewRef(otherwise);
    acceptor->context = context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
    if (acceptor->context == NULL || acceptor_learn_socket(acceptor) < 0
        || watch_take_place(&acceptor->watch, NULL) < 0) {
        Py_DECREF(acceptor);
        return NULL;
    }
    return (PyObject *)acceptor;
}

static PyMethodDef server_functions[] = {
    {"_acceptor_new", module_acceptor_new, METH_VARARGS,
     INSIDE_DOC("_acceptor_new(loop, protocol_factory, sock, server, context, accepted, otherwise, most, /)\n--\n\n"
                "Accept connections of a listening, non-blocking socket until stop(). Each gets a transport,\n"
                "unless one of the last two takes it: see the struct.")},
    {NULL, NULL, 0, NULL},
};

int
server_type_init(PyObject *module, struct state *state)
{
    if (state_add_type(module, &Acceptor_spec, NULL, 0, &net_state(state)->types.Acceptor) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, server_functions);
}
