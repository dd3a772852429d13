/* stream.c - the type StreamTransport and its life. */
#include "net/stream.h"

#include "base/args.h"
#include "loop/overrides.h"
#include "loop/owner.h"
#include "tasks/future.h"
#include "net/reader.h"
#include "net/sockets.h"

/* -- kind ---------------------------------------------------------------------------- */

size_t
stream_queued(Transport *tr)
{
    return ((Stream *)tr)->output.bytes;
}

static void
stream_push_held(Transport *tr)
{
    (void)stream_push((Stream *)tr);
}

void
stream_discard_output(Transport *tr)
{
    wqueue_clear(&((Stream *)tr)->output);
}

/* Whoever waits for the end of the output waits in vain. */
void
stream_lost(Transport *tr)
{
    Stream *stream = (Stream *)tr;
    wqueue_clear(&stream->output);
    if (stream->empty_waiter == NULL) {
        return;
    }
    PyObject *exc = PyObject_CallFunction(PyExc_ConnectionError, "s",
                                          "Connection is closed by peer");
    PyObject *waiter = Py_NewRef(stream->empty_waiter);
    if (exc == NULL) {
        exc = PyErr_GetRaisedException();    /* no memory: then that is the reason */
    }
    if (future_settle_exception(tr->head.state, waiter, exc) < 0) {
        PyErr_WriteUnraisable((PyObject *)tr);
    }
    Py_DECREF(exc);
    Py_DECREF(waiter);
}

static const struct transport_kind stream_kind = {
    .is_socket = true,
    .has_output = true,
    .queued = stream_queued,
    .discard_output = stream_discard_output,
    .push = stream_push_held,
    .lost = stream_lost,
    .received_eof = stream_received_eof,
    .data_failed = stream_data_failed,
    .drop_write = transport_drop_write,
};

/* -- life ------------------------------------------------------------------------------ */

PyObject *
stream_new(Loop *loop, PyObject *sock, int fd, PyObject *protocol, PyObject *waiter,
           PyObject *extra, PyObject *server, PyObject *context, const struct sockaddr *peer,
           socklen_t peer_length)
{
    /* Before the protocol's class is looked at, which may run Python, and close the socket. */
    const int *number = transport_socket_number(loop->state, sock, fd);
    Transport *tr = transport_new(net_state(loop->state)->types.Stream, &stream_kind, loop, sock, fd, protocol,
                                  extra, server, context);
    if (tr == NULL) {
        return NULL;
    }
    io_init_socket(&tr->io, fd, number);
    tr->read_watch.ready = stream_on_readable;
    tr->write_watch.ready = stream_on_writable;
    if (transport_set_peer(tr, peer, peer == NULL ? 0 : peer_length) < 0
        || transport_begin(tr, waiter) < 0) {
        transport_undo(tr);
        return NULL;
    }
    if (peer == NULL) {
        /* who knows the peer has accepted it, and done so */
        if (UNLIKELY(socket_set_nodelay(tr->head.state, tr->file, fd) < 0)) {
            transport_undo(tr);
            return NULL;
        }
    }
    return (PyObject *)tr;
}

int
stream_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(stream_cast(op)->empty_waiter);
    return transport_traverse(op, visit, arg);
}

int
stream_clear(PyObject *op)
{
    Stream *stream = stream_cast(op);
    (void)stream_push(stream);
    wqueue_clear(&stream->output);
    Py_CLEAR(stream->empty_waiter);
    return transport_clear(op);
}

/* -- methods ------------------------------------------------------------------------------ */

static PyObject *
Stream_write(PyObject *op, PyObject *data)
{
    OWN_LOOP_OF(op, Channel);
    return none_or_error(stream_write(stream_cast(op), data));
}

/* A call of write(data) does not come here, once the interpreter knows that call; one of write(data=...) does. To take
 * names by itself write() would be 5 % dearer (guarded path: write-burst). */
static PyObject *
call_write(PyObject *descriptor, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    struct state *state = state_of_type(PyDescr_TYPE(descriptor));
    if (kwnames != NULL && PyVectorcall_NARGS(nargsf) == 1 && PyTuple_GET_SIZE(kwnames) == 1
        && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "data") == 0) {
        nargsf++;
        kwnames = NULL;
    }
    return net_state(state)->streams.write_by_position(descriptor, args, nargsf, kwnames);
}

static int
take_write_by_name(struct state *state)
{
    PyObject *descriptor = PyObject_GetAttrString((PyObject *)net_state(state)->types.Stream, "write");
    if (descriptor == NULL) {
        return -1;
    }
    vectorcallfunc *call = &((PyMethodDescrObject *)descriptor)->vectorcall;
    net_state(state)->streams.write_by_position = *call;
    *call = call_write;
    Py_DECREF(descriptor);
    return 0;
}

PyObject *
Stream_writelines(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
    PyObject *list = args_one("writelines", "list_of_data", args, nargs, kwnames);
    if (UNLIKELY(list == NULL)) {
        return NULL;
    }
    return none_or_error(stream_writelines(stream_cast(op), list));
}

static PyObject *
Stream_write_eof(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return none_or_error(stream_write_eof(stream_cast(op)));
}

PyObject *
Stream_can_write_eof(PyObject *op UNUSED, PyObject *ignored UNUSED)
{
    return Py_NewRef(Py_True);
}

/* As the loop's create_future() makes it. */
static PyObject *
transport_create_future(Transport *tr)
{
    struct state *state = tr->head.state;
    PyObject *loop = Py_NewRef((PyObject *)tr->head.loop);
    PyObject *future = LIKELY(!loop_has_custom_futures(tr->head.loop))
                           ? future_new(state, loop)
                           : PyObject_CallMethodNoArgs(loop, state->names.create_future);
    Py_DECREF(loop);
    return future;
}

static PyObject *
Stream__make_empty_waiter(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Stream *stream = stream_cast(op);
    if (stream->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (stream->base.head.loop == NULL) {
        return args_none_has_no("create_future");
    }
    PyObject *waiter = transport_create_future(&stream->base);
    if (waiter == NULL) {
        return NULL;
    }
    Py_XSETREF(stream->empty_waiter, Py_NewRef(waiter));    /* NULL, unless somebody's create_future() did this */
    if (wqueue_is_empty(&stream->output)
        && future_settle_result(stream->base.head.state, waiter, Py_None) < 0) {
        Py_CLEAR(waiter);
    }
    return waiter;
}

static PyObject *
Stream__reset_empty_waiter(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Py_CLEAR(stream_cast(op)->empty_waiter);
    return Py_NewRef(Py_None);
}

/* What asyncio's _read_ready() and _write_ready() lead to: here they are one. */
static PyObject *
Stream_read_ready(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return PyObject_CallMethod(op, "_read_ready", NULL);
}

#if PY_VERSION_HEX >= 0x030C0000
static PyObject *
Stream_write_ready(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return PyObject_CallMethod(op, "_write_ready", NULL);
}
#endif

static PyObject *
Stream_get_read_ready_cb(PyObject *op, void *closure UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return PyObject_GetAttrString(op, stream_cast(op)->base.head.proto.kind == PROTO_BUFFERED
                                          ? "_read_ready__get_buffer"
                                          : "_read_ready__data_received");
}

static PyObject *
Stream_read_ready__on_eof(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Transport *tr = &stream_cast(op)->base;
    return tr->head.loop == NULL ? args_none_has_no("get_debug") : none_or_error(stream_received_eof(tr));
}

static int
Stream_set_eof(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int eof = value == NULL ? 0 : PyObject_IsTrue(value);
    if (eof >= 0) {
        channel_note_set_by_hand(&stream_cast(op)->base.head);
        stream_cast(op)->eof = eof > 0;
    }
    return eof < 0 ? -1 : 0;
}

static PyObject *
Stream_get_buffer(PyObject *op, void *closure UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return wqueue_as_list(&stream_cast(op)->output);
}

static PyObject *
Stream_get_eof(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(stream_cast(op)->eof);
}

static PyObject *
Stream_get_empty_waiter(PyObject *op, void *closure UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    PyObject *waiter = stream_cast(op)->empty_waiter;
    return Py_NewRef(waiter != NULL ? waiter : Py_None);
}

#if PY_VERSION_HEX >= 0x030C0000
#endif

static PyMethodDef Stream_methods[] = {
    {"write", Stream_write, METH_O,    /* by name: call_write() */
     PyDoc_STR("write($self, /, data)\n--\n\n"
               "Send bytes, now or as soon as the peer takes them. Does not block.\n\n"
               "TypeError for anything but bytes, bytearray or memoryview; RuntimeError after\n"
               "write_eof(). After the connection is lost the data is dropped.")},
    {"writelines", (PyCFunction)(void (*)(void))Stream_writelines, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("writelines($self, /, list_of_data)\n--\n\n"
               "Send several pieces, gathered into as few system calls as possible.")},
    {"write_eof", Stream_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self, /)\n--\n\n"
               "Close the sending side after what is buffered; receiving goes on.")},
    {"can_write_eof", Stream_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self, /)\n--\n\nTrue: write_eof() is possible.")},
    {"_read_ready__data_received", Stream_read_ready, METH_NOARGS, NULL},
    {"_read_ready__get_buffer", Stream_read_ready, METH_NOARGS, NULL},
    {"_read_ready__on_eof", Stream_read_ready__on_eof, METH_NOARGS, NULL},
#if PY_VERSION_HEX >= 0x030C0000
    {"_write_send", Stream_write_ready, METH_NOARGS, NULL},
    {"_write_sendmsg", Stream_write_ready, METH_NOARGS, NULL},
#endif
    {"_make_empty_waiter", Stream__make_empty_waiter, METH_NOARGS, NULL},
    {"_reset_empty_waiter", Stream__reset_empty_waiter, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Stream_getset[] = {
    {"_buffer", Stream_get_buffer, NULL, NULL, NULL},
    {"_eof", Stream_get_eof, Stream_set_eof, NULL, NULL},
    {"_read_ready_cb", Stream_get_read_ready_cb, NULL, NULL, NULL},
    {"_empty_waiter", Stream_get_empty_waiter, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Stream_slots[] = {
    {Py_tp_doc, "The transport of a connected stream socket: asyncio.Transport."},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_traverse, stream_traverse},
    {Py_tp_clear, stream_clear},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_methods, Stream_methods},
    {Py_tp_getset, Stream_getset},
    {0, NULL},
};

static PyType_Spec Stream_spec = {
    .name = "asyncloop._core.StreamTransport",
    .basicsize = sizeof(Stream),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Stream_slots,
};

/* -- functions of the module ------------------------------------------------------------------ */

static PyObject *
module_stream_new(PyObject *module, PyObject *args)
{
    OWN_LOOP_ARGUMENT(module, args);
    PyObject *op, *sock, *protocol, *waiter, *extra, *server, *context;
    if (!PyArg_ParseTuple(args, "OOOOOOO:_stream_new", &op, &sock, &protocol, &waiter, &extra,
                          &server, &context)) {
        return NULL;
    }
    Loop *loop = loop_from_argument(module, op);
    if (loop == NULL) {
        return NULL;
    }
    if (extra != Py_None && !PyDict_Check(extra)) {
        PyErr_SetString(PyExc_TypeError, "extra must be a dict or None");
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
    return stream_new(loop, sock, fd, protocol, args_null_for_none(waiter),
                      args_null_for_none(extra), args_null_for_none(server),
                      args_null_for_none(context), NULL, 0);
}

#ifndef ASYNCLOOP_SMALL
static PyObject *
module_io_set_flaky(PyObject *module UNUSED, PyObject *seed)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(seed);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    io_set_flaky(value);
    return Py_NewRef(Py_None);
}
#endif

static PyMethodDef stream_functions[] = {
    {"_stream_new", module_stream_new, METH_VARARGS,
     INSIDE_DOC("_stream_new(loop, sock, protocol, waiter, extra, server, context, /)\n--\n\n"
                "A transport over a connected, non-blocking socket, which it owns from now on.")},
#ifndef ASYNCLOOP_SMALL
    {"_io_set_flaky", module_io_set_flaky, METH_O,
     PyDoc_STR("_io_set_flaky(seed, /)\n--\n\n"
               "For tests: sockets of new transports send and receive in random small pieces,\n"
               "as a function of the seed; 0 ends it.")},
#endif
    {NULL, NULL, 0, NULL},
};

int
stream_type_init(PyObject *module, struct state *state)
{
    if (state_add_type(module, &Stream_spec, (PyObject *)net_state(state)->types.Transport,
                       (Py_ssize_t)sizeof(Transport), &net_state(state)->types.Stream)
            < 0
        || standard_transport_init(state, &net_state(state)->streams.methods, net_state(state)->types.Stream) < 0
        || take_write_by_name(state) < 0) {
        return -1;
    }
    PyObject *constants = PyImport_ImportModule("asyncio.constants");
    PyObject *modes = constants == NULL ? NULL : PyObject_GetAttrString(constants, "_SendfileMode");
    PyObject *mode = modes == NULL ? NULL : PyObject_GetAttrString(modes, "TRY_NATIVE");
    PyObject *type = (PyObject *)net_state(state)->types.Stream;
    int result = mode == NULL
                         || PyObject_SetAttrString(type, "_sendfile_compatible", mode) < 0
                         || PyObject_SetAttrString(type, "_start_tls_compatible", Py_True) < 0
                     ? -1
                     : PyModule_AddFunctions(module, stream_functions);
    Py_XDECREF(constants);
    Py_XDECREF(modes);
    Py_XDECREF(mode);
    return result;
}
