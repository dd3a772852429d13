/* io_methods.c - see io_methods.h. */
#include "net/io_methods.h"

#include <string.h>

#define STREAM_SOCKET_METHODS                                                              \
    (1u << SOCKET_RECV | 1u << SOCKET_RECV_INTO | 1u << SOCKET_SEND | 1u << SOCKET_SENDMSG \
     | 1u << SOCKET_SHUTDOWN | 1u << SOCKET_GETATTRIBUTE)

static bool
socket_is_standard(Transport *tr)
{
    if (!standard_socket_has_all(tr->head.state, tr->file, STREAM_SOCKET_METHODS)) {
        return false;
    }
    tr->io.class_version = &Py_TYPE(tr->file)->tp_version_tag;
    tr->io.seen_version = standard_version(Py_TYPE(tr->file));
    return true;
}

/* The functions of a module are looked at each time. */
static bool
os_is_standard(Transport *tr)
{
    struct state *state = tr->head.state;
    return standard_is(state, STANDARD_OS_READ) && standard_is(state, STANDARD_OS_WRITE)
           && standard_is(state, STANDARD_UNIX_EVENTS_OS);
}

void
io_choose_slowly(Transport *tr)
{
    bool is_socket = tr->kind->is_socket;
    io_forget_class(&tr->io);
    if (tr->file == NULL || tr->file_closed || io_drops_output(&tr->io)
        || (SHORT_WAY(sockets) && (is_socket ? socket_is_standard(tr) : os_is_standard(tr)))) {
        return;
    }
    tr->io.ops = is_socket ? &io_socket_methods : &io_os_functions;
}

static Transport *
owner_of(struct io *io)
{
    return container_of(io, Transport, io);
}

/* A call has raised: BlockingIOError means "wait". */
static enum io_status
raised(struct io *io, enum io_status would_block)
{
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
        || PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return would_block;
    }
    io->err = 0;    /* see io_methods.h */
    return IO_ERROR;
}

/* The bytes-like object that a call has returned, or NULL with an exception. Steals it. */
static enum io_status
take_bytes_steal(struct io *io, PyObject *data, void *buffer, size_t capacity, size_t *n)
{
    Py_buffer view;
    if (data == NULL || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        Py_XDECREF(data);
        return raised(io, IO_WANT_READ);
    }
    enum io_status status = view.len == 0 ? IO_EOF : IO_OK;
    if (view.len > 0 && (size_t)view.len > capacity) {
        PyErr_SetString(PyExc_ValueError, "more was received than was asked for");
        status = raised(io, IO_WANT_READ);
    }
    else {
        *n = (size_t)view.len;
        memcpy(buffer, view.buf, *n);
    }
    PyBuffer_Release(&view);
    Py_DECREF(data);
    return status;
}

/* How many bytes a call says that it has moved. Steals it. */
static enum io_status
take_count_steal(struct io *io, PyObject *count, size_t wanted, enum io_status would_block,
                 enum io_status for_nothing, size_t *n)
{
    *n = 0;
    Py_ssize_t number = count == NULL ? -1 : PyNumber_AsSsize_t(count, PyExc_OverflowError);
    Py_XDECREF(count);
    if (number == -1 && PyErr_Occurred()) {
        return raised(io, would_block);
    }
    if (number < 0) {
        PyErr_SetString(PyExc_ValueError, "a wrong number of bytes was moved");
        return raised(io, would_block);
    }
    *n = (size_t)number < wanted ? (size_t)number : wanted;    /* as asyncio, which drops so many */
    return number == 0 ? for_nothing : IO_OK;
}

/* What is to be sent, in an object of its own: the queue may be another one after the call. */
static PyObject *
bytes_of(const struct iovec *iov)
{
    return PyBytes_FromStringAndSize(iov->iov_base, (Py_ssize_t)iov->iov_len);
}

static size_t
iov_length(const struct iovec *iov, int count)
{
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        length += iov[i].iov_len;
    }
    return length;
}

/* What waits is one bytearray for asyncio: for sockets up to 3.11, for pipes always. */
static PyObject *
joined_bytes(const struct iovec *iov, int count)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)iov_length(iov, count));
    char *to = bytes == NULL ? NULL : PyBytes_AS_STRING(bytes);
    for (int i = 0; bytes != NULL && i < count; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    return bytes;
}

/* -- sockets ------------------------------------------------------------------------ */

static enum io_status
method_read(struct io *io, void *buffer, size_t capacity, size_t *n)
{
    Transport *tr = owner_of(io);
    PyObject *file = Py_NewRef(tr->file);
    PyObject *size = PyLong_FromSize_t(capacity);
    PyObject *data = size == NULL ? NULL
                                  : PyObject_CallMethodOneArg(file, tr->head.state->names.recv, size);
    Py_XDECREF(size);
    Py_DECREF(file);
    return take_bytes_steal(io, data, buffer, capacity, n);
}

enum io_status
io_recv_into(Transport *tr, PyObject *buffer, size_t *n)
{
    PyObject *file = Py_NewRef(tr->file);
    PyObject *count = PyObject_CallMethodOneArg(file, tr->head.state->names.recv_into, buffer);
    Py_DECREF(file);
    return take_count_steal(&tr->io, count, PY_SSIZE_T_MAX, IO_WANT_READ, IO_EOF, n);
}

#if PY_VERSION_HEX >= 0x030C0000
#define SENDS_LISTS 1    /* asyncio gives what is queued to sendmsg() */
#else
#define SENDS_LISTS 0
#endif

static PyObject *
list_of_buffers(const struct iovec *iov, int count)
{
    PyObject *list = PyList_New(0);
    for (int i = 0; list != NULL && i < count; i++) {
        PyObject *bytes = bytes_of(&iov[i]);
        if (bytes == NULL || PyList_Append(list, bytes) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(bytes);
    }
    return list;
}

static enum io_status
method_writev(struct io *io, const struct iovec *iov, int count, bool more UNUSED, size_t *n)
{
    Transport *tr = owner_of(io);
    size_t wanted = iov_length(iov, count);
    PyObject *name = SENDS_LISTS ? tr->head.state->names.sendmsg : tr->head.state->names.send;
    PyObject *data = SENDS_LISTS ? list_of_buffers(iov, count) : joined_bytes(iov, count);
    PyObject *file = Py_NewRef(tr->file);
    PyObject *sent = data == NULL ? NULL : PyObject_CallMethodOneArg(file, name, data);
    Py_DECREF(file);
    Py_XDECREF(data);
    return take_count_steal(io, sent, wanted, IO_WANT_WRITE, IO_WANT_WRITE, n);
}

static enum io_status
method_shutdown(struct io *io)
{
    Transport *tr = owner_of(io);
    PyObject *file = Py_NewRef(tr->file);
    PyObject *result = PyObject_CallMethod(file, "shutdown", "i", SHUT_WR);
    Py_XDECREF(result);
    Py_DECREF(file);
    io->err = 0;    /* see io_methods.h */
    return result == NULL ? IO_ERROR : IO_OK;
}

static void
method_close(struct io *io)
{
    io->fd = -1;
    io->owned = NULL;
}

const struct io_ops io_socket_methods = {
    .read = method_read,
    .writev = method_writev,
    .shutdown = method_shutdown,
    .close = method_close,
    .calls_python = true,
};

/* -- os.read() and os.write() ------------------------------------------------------------- */

/* By asyncio's name for the module: whoever replaces it there means this call as well. New
 * reference, or NULL. */
static PyObject *
call_os(Transport *tr, const char *name, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    PyObject *os = PyDict_GetItemString(tr->head.state->standard.modules[MODULE_UNIX_EVENTS].dict, "os");
    PyObject *function = NULL, *result = NULL;
    if (os == NULL) {
        PyErr_SetString(PyExc_AttributeError, "asyncio.unix_events has no os");
    }
    else {
        Py_INCREF(os);
        function = PyObject_GetAttrString(os, name);
        Py_DECREF(os);
    }
    PyObject *args = function == NULL ? NULL : Py_VaBuildValue(format, values);
    va_end(values);
    if (args != NULL) {
        result = PyObject_CallObject(function, args);
    }
    Py_XDECREF(args);
    Py_XDECREF(function);
    return result;
}

static enum io_status
os_read(struct io *io, void *buffer, size_t capacity, size_t *n)
{
    PyObject *data = call_os(owner_of(io), "read", "(in)", io->fd, (Py_ssize_t)capacity);
    return take_bytes_steal(io, data, buffer, capacity, n);
}

static enum io_status
os_writev(struct io *io, const struct iovec *iov, int count, bool more UNUSED, size_t *n)
{
    PyObject *data = joined_bytes(iov, count);
    PyObject *sent = data == NULL ? NULL : call_os(owner_of(io), "write", "(iO)", io->fd, data);
    Py_XDECREF(data);
    return take_count_steal(io, sent, iov_length(iov, count), IO_WANT_WRITE, IO_WANT_WRITE, n);
}

static enum io_status
os_shutdown(struct io *io UNUSED)
{
    return IO_OK;    /* only close() ends the output of a pipe */
}

const struct io_ops io_os_functions = {
    .read = os_read,
    .writev = os_writev,
    .shutdown = os_shutdown,
    .close = method_close,
    .calls_python = true,
};

/* -- the user's own object ---------------------------------------------------------------------- */

static PyObject *
send_object(Transport *tr, PyObject *data)
{
    if (tr->io.ops == &io_os_functions) {
        return call_os(tr, "write", "(iO)", tr->io.fd, data);
    }
    PyObject *file = Py_NewRef(tr->file);
    PyObject *count = PyObject_CallMethodOneArg(file, tr->head.state->names.send, data);
    Py_DECREF(file);
    return count;
}

/* data[count:] */
static PyObject *
rest_after(PyObject *data, PyObject *count)
{
    PyObject *rest = NULL;
    PyObject *slice = PySlice_New(count, NULL, NULL);
    PyObject *whole = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyMemoryView_FromObject(data);
    if (slice != NULL && whole != NULL) {
        rest = PyObject_GetItem(whole, slice);
    }
    Py_XDECREF(slice);
    Py_XDECREF(whole);
    return rest;
}

enum io_status
io_send(Transport *tr, PyObject *data, PyObject **rest)
{
    bool views = tr->io.ops == &io_os_functions && PyByteArray_Check(data);
    PyObject *given = views ? PyMemoryView_FromObject(data) : Py_NewRef(data);
    PyObject *count = given == NULL ? NULL : send_object(tr, given);
    enum io_status status = IO_OK;
    if (count == NULL) {
        status = raised(&tr->io, IO_WANT_WRITE);
    }
    else {
        transport_count_sent(tr, count);
        *rest = rest_after(given, count);
        Py_DECREF(count);
    }
    Py_XDECREF(given);
    return status;
}
