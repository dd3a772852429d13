/* pipe.c - one-way transports: pipes, FIFOs, terminals, sockets and other character devices.
 *
 * Both read and write as a stream does (stream_read.c, stream_write.c), and differ where asyncio's differ:
 *   - close() of the writing end is write_eof(): nothing can be written after it;
 *   - the end of input always closes; eof_received() is called in the next iteration;
 *   - a failing data_received() is reported, and reading goes on;
 *   - the descriptor is not the transport's alone: two may share one, and add_reader() takes
 *     it, too.
 *
 * The writing end watches its descriptor for reading, which tells when the other end is
 * closed, before there is anything to write. It does so where that works: on pipes and
 * sockets, not on terminals, whose input belongs to somebody else. */
#include "net/stream.h"

#include "base/args.h"
#include "loop/overrides.h"
#include "loop/owner.h"
#include "loop/schedule.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    Stream stream;
    unsigned int dropped;    /* writes after the end */
    bool is_socket;
} WritePipe;

/* In asyncio's form. */
static PyObject *
pipe_text(Transport *tr, const char *state, bool polls)
{
    const char *name = tr->kind->has_output ? "WritePipeTransport" : "ReadPipeTransport";
    struct watch *watch = tr->kind->has_output ? &tr->write_watch : &tr->read_watch;
    const char *polling = strcmp(state, " closed") == 0 ? "closed"
                          : !polls                      ? "open"
                          : watch_is_active(watch)      ? "polling"
                                                        : "idle";
    return tr->kind->has_output && polls && strcmp(polling, "closed") != 0
               ? PyUnicode_FromFormat("<%s%s fd=%d %s bufsize=%zu>", name, state, tr->fd, polling,
                                      tr->kind->queued(tr))
               : PyUnicode_FromFormat("<%s%s fd=%d %s>", name, state, tr->fd, polling);
}

/* -- reading ------------------------------------------------------------------------- */

static size_t
read_pipe_queued(Transport *tr UNUSED)
{
    return 0;
}

static void
read_pipe_discard_output(Transport *tr UNUSED)
{
}

/* A terminal whose other side is closed fails with EIO: that is its end of input. */
static bool
read_pipe_is_expected(Transport *tr, PyObject *exc)
{
    PyObject *number = ((PyOSErrorObject *)exc)->myerrno;
    return tr->fd_gone || (number != NULL && PyLong_Check(number) && PyLong_AsLong(number) == EIO);
}

/* Native callback. */
static int
read_pipe_run_eof(PyObject *owner, PyObject *arg UNUSED)
{
    Transport *tr = (Transport *)owner;
    if (tr->head.loop == NULL) {
        return 0;
    }
    PyObject *answer = proto_call(&tr->head.proto, tr->head.state->names.eof_received, NULL);
    if (answer == NULL) {
        PyObject *protocol = Py_NewRef(tr->head.proto.protocol != NULL ? tr->head.proto.protocol : owner);
        int result = channel_call_failed(tr->head.loop, protocol, "eof_received", NULL);
        Py_DECREF(protocol);
        return result;
    }
    Py_DECREF(answer);    /* a pipe cannot stay open for the other direction */
    return 0;
}

static int
read_pipe_received_eof(Transport *tr)
{
    if (channel_log(&tr->head, "info", "%r was closed by peer", NULL) < 0) {
        return -1;
    }
    if (FLAG(tr->head.closing) || tr->head.loop == NULL) {
        return 0;    /* the log's handler did that */
    }
    bool told = (loop_replaced(tr->head.loop) & LOOP_SOON) != 0;
    PyObject *end = told ? PyObject_GetAttr(tr->head.proto.protocol, tr->head.state->names.eof_received) : NULL;
    if ((told ? transport_call_soon_steal(tr, end, PyTuple_New(0))
              : loop_call_soon_native(tr->head.loop, read_pipe_run_eof, (PyObject *)tr, NULL))
            < 0
        || transport_close(tr) < 0) {
        return transport_fatal(tr, READ_FAILED(tr));
    }
    return 0;
}

static int
read_pipe_data_failed(Transport *tr UNUSED)
{
    return -1;    /* asyncio's _read_ready() lets it out */
}

static const struct transport_kind read_pipe_kind = {
    .queued = read_pipe_queued,
    .discard_output = read_pipe_discard_output,
    .is_expected = read_pipe_is_expected,
    .text = pipe_text,
    .received_eof = read_pipe_received_eof,
    .data_failed = read_pipe_data_failed,
};

/* -- writing -------------------------------------------------------------------------- */

/* As asyncio counts: the write that failed is one of them. */
static unsigned int
write_pipe_lost_writes(const WritePipe *pipe)
{
    return pipe->dropped + pipe->stream.write_failed;
}

static int
write_pipe_drop_write(Transport *tr)
{
    WritePipe *pipe = (WritePipe *)tr;
    if (write_pipe_lost_writes(pipe) >= DROPPED_WRITES_BEFORE_WARNING
        && channel_log_warning(&tr->head, "pipe closed by peer or os.write(pipe, data) raised exception.") < 0) {
        return -1;
    }
    if (pipe->dropped < UINT_MAX - 1) {
        pipe->dropped++;
    }
    return 0;
}

static const struct transport_kind write_pipe_kind = {
    .has_output = true,
    .flow = FLOW_PIPE,
    .close_ends_output = true,
    .queued = stream_queued,
    .discard_output = stream_discard_output,
    .lost = stream_lost,
    .text = pipe_text,
    .drop_write = write_pipe_drop_write,
};

/* Why a writing end is readable. */
enum other_end {
    OTHER_END_CLOSED,
    OTHER_END_OPEN,      /* no reason any more */
    OTHER_END_SENDS,     /* there is input: a socket, or a FIFO that is open both ways */
};

static enum other_end
write_pipe_look(const WritePipe *pipe)
{
    int fd = pipe->stream.base.fd;
    struct pollfd state = {.fd = fd, .events = POLLIN};
    if (poll(&state, 1, 0) == 0) {
        return OTHER_END_OPEN;
    }
    if (state.revents & (POLLERR | POLLHUP | POLLNVAL)) {
        return OTHER_END_CLOSED;
    }
    if (!pipe->is_socket) {
        return OTHER_END_SENDS;
    }
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return OTHER_END_OPEN;
    }
    return n > 0 ? OTHER_END_SENDS : OTHER_END_CLOSED;
}

static int
write_pipe_closed_by_peer(Transport *tr)
{
    if (channel_log(&tr->head, "info", "%r was closed by peer", NULL) < 0) {
        return -1;
    }
    PyObject *exc = NULL;
    if (stream_queued(tr) > 0 && (exc = PyObject_CallNoArgs(PyExc_BrokenPipeError)) == NULL) {
        return transport_fatal(tr, WRITE_FAILED(tr));
    }
    if (tr->head.loop != NULL && transport_force_close(tr, exc) < 0) {
        PyErr_Clear();    /* the loop was closed: nobody is left to be told */
    }
    Py_XDECREF(exc);
    return 0;
}

static void
write_pipe_on_readable(struct watch *watch, int revents)
{
    Transport *tr = container_of(watch, Transport, read_watch);
    Loop *loop = watch_loop(watch);
    Py_INCREF(tr);
    int result = 0;
    if (UNLIKELY(revents & EV_ERROR) || io_is_gone(&tr->io)) {
        result = transport_descriptor_gone(tr);
    }
    else {
        switch (write_pipe_look((WritePipe *)tr)) {
        case OTHER_END_CLOSED:
            result = write_pipe_closed_by_peer(tr);
            break;
        case OTHER_END_OPEN:
            break;
        case OTHER_END_SENDS:
            /* asyncio would take this for the end. Nobody reads it here, so that it would be
             * told again and again: from now on only a failing write tells of the end. */
            tr->read_eof = true;
            watch_stop(watch);
            break;
        }
    }
    if (UNLIKELY(result < 0)) {
        transport_step_failed(tr, loop, "_read_ready", revents);
    }
    Py_DECREF(tr);
}

/* -- life ------------------------------------------------------------------------------ */

/* The descriptor of a file object in *fd, made non-blocking, and its type in *mode. -1 with
 * ValueError for what cannot be watched. */
static int
pipe_open(struct state *state, PyObject *file, const char *refusal, int *fd, mode_t *mode)
{
    PyObject *number = PyObject_CallMethodNoArgs(file, state->names.fileno);
    if (number == NULL) {
        return -1;
    }
    int overflow;
    long value = PyLong_AsLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (overflow != 0 || value > INT_MAX || value < INT_MIN) {
        PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
        return -1;
    }
    *fd = value < 0 ? -1 : (int)value;
    struct stat st;
    if (fstat(*fd, &st) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    *mode = st.st_mode;
    if (!S_ISFIFO(*mode) && !S_ISSOCK(*mode) && !S_ISCHR(*mode)) {
        PyErr_SetString(PyExc_ValueError, refusal);
        return -1;
    }
    int flags = fcntl(*fd, F_GETFL);
    if (flags < 0 || (!(flags & O_NONBLOCK) && fcntl(*fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static void
pipe_init_io(Transport *tr, mode_t mode)
{
    if (S_ISSOCK(mode)) {
        io_init_socket(&tr->io, tr->fd, transport_socket_number(tr->head.state, tr->file, tr->fd));
    }
    else {
        io_init_pipe(&tr->io, tr->fd);
    }
}

/* Arguments of both functions of the module. */
struct pipe_args {
    Loop *loop;
    PyObject *file;
    PyObject *protocol;
    PyObject *waiter;    /* or NULL */
    PyObject *extra;     /* or NULL */
};

static int
pipe_args_parse(PyObject *module, PyObject *tuple, struct pipe_args *args)
{
    PyObject *loop;
    if (!PyArg_ParseTuple(tuple, "OOOOO", &loop, &args->file, &args->protocol, &args->waiter,
                          &args->extra)) {
        return -1;
    }
    args->loop = loop_from_argument(module, loop);
    if (args->loop == NULL) {
        return -1;
    }
    if (args->extra != Py_None && !PyDict_Check(args->extra)) {
        PyErr_SetString(PyExc_TypeError, "extra must be a dict or None");
        return -1;
    }
    args->waiter = args_null_for_none(args->waiter);
    args->extra = args_null_for_none(args->extra);
    return 0;
}

static PyObject *
pipe_begin(Transport *tr, PyObject *waiter)
{
    if (transport_begin(tr, waiter) < 0) {
        transport_undo(tr);
        return NULL;
    }
    return (PyObject *)tr;
}

static PyObject *
module_read_pipe_new(PyObject *module, PyObject *tuple)
{
    OWN_LOOP_ARGUMENT(module, tuple);
    struct pipe_args args;
    int fd;
    mode_t mode;
    if (pipe_args_parse(module, tuple, &args) < 0
        || pipe_open(args.loop->state, args.file, "Pipe transport is for pipes/sockets only.", &fd, &mode) < 0) {
        return NULL;
    }
    Transport *tr = transport_new(net_state(args.loop->state)->types.ReadPipe, &read_pipe_kind, args.loop,
                                  args.file, fd, args.protocol, args.extra, NULL, NULL);
    if (tr == NULL) {
        return NULL;
    }
    pipe_init_io(tr, mode);
    tr->read_watch.ready = stream_on_readable;
    return pipe_begin(tr, args.waiter);
}

static PyObject *
module_write_pipe_new(PyObject *module, PyObject *tuple)
{
    OWN_LOOP_ARGUMENT(module, tuple);
    struct pipe_args args;
    int fd;
    mode_t mode;
    if (pipe_args_parse(module, tuple, &args) < 0
        || pipe_open(args.loop->state, args.file,
                     "Pipe transport is only for pipes, sockets and character devices", &fd,
                     &mode)
               < 0) {
        return NULL;
    }
    Transport *tr = transport_new(net_state(args.loop->state)->types.WritePipe, &write_pipe_kind, args.loop,
                                  args.file, fd, args.protocol, args.extra, NULL, NULL);
    if (tr == NULL) {
        return NULL;
    }
    pipe_init_io(tr, mode);
    tr->read_watch.ready = write_pipe_on_readable;
    tr->write_watch.ready = stream_on_writable;
    tr->read_eof = S_ISCHR(mode);    /* never read from, not even to see its end */
    ((WritePipe *)tr)->is_socket = S_ISSOCK(mode);
    return pipe_begin(tr, args.waiter);
}

/* -- methods ----------------------------------------------------------------------------- */

static PyObject *
Pipe_get_pipe(PyObject *op, void *closure UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Transport *tr = (Transport *)op;
    return Py_NewRef(tr->file == NULL || tr->file_closed ? Py_None : tr->file);
}

/* None, as in asyncio: the file is the caller's again, who has closed it or will. */
static int
Pipe_set_pipe(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Transport *tr = (Transport *)op;
    if (value != Py_None) {
        PyErr_SetString(PyExc_AttributeError, "_pipe can be set to None only");
        return -1;
    }
    Py_INCREF(op);
    watch_stop(&tr->read_watch);
    watch_stop(&tr->write_watch);
    tr->file_closed = true;
    Py_DECREF(op);
    return 0;
}

static PyObject *
Pipe_get_fileno(PyObject *op, void *closure UNUSED)
{
    return PyLong_FromLong(((Transport *)op)->fd);
}

static PyObject *
WritePipe_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
    PyObject *data = args_one("write", "data", args, nargs, kwnames);
    if (UNLIKELY(data == NULL)) {
        return NULL;
    }
    if (UNLIKELY(!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data))) {
        return PyErr_Format(PyExc_AssertionError, "%R", data);    /* asyncio's pipes have an assert */
    }
    return none_or_error(stream_write(stream_cast(op), data));
}

static PyObject *
WritePipe_write_eof(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return none_or_error(transport_close(&stream_cast(op)->base));
}

/* What the base has for reading would switch off the look-out for the other end. */
static PyObject *
WritePipe_no_reading(PyObject *op UNUSED, PyObject *ignored UNUSED)
{
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

static PyObject *
WritePipe_get_buffer(PyObject *op, void *closure UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return wqueue_as_list(&stream_cast(op)->output);
}

static PyObject *
WritePipe_get_conn_lost(PyObject *op, void *closure UNUSED)
{
    return PyLong_FromUnsignedLong(write_pipe_lost_writes((WritePipe *)op));
}

/* asyncio's end of a pipe: what waits to be sent is dropped. */
static PyObject *
Pipe__close(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
    static const char *const names[] = {"exc", NULL};
    PyObject *exc = Py_None;
    if (args_unpack("_close", args, nargs, kwnames, names, 1, 0, &exc) < 0) {
        return NULL;
    }
    return none_or_error(transport_force_close_here((Transport *)op, exc == Py_None ? NULL : exc));
}

#define PIPE_CLOSE \
    {"_close", (PyCFunction)(void (*)(void))Pipe__close, METH_FASTCALL | METH_KEYWORDS, NULL}

static PyMethodDef ReadPipe_methods[] = {
    PIPE_CLOSE,
    {NULL, NULL, 0, NULL},
};

static PyMethodDef WritePipe_methods[] = {
    PIPE_CLOSE,
    {"write", (PyCFunction)(void (*)(void))WritePipe_write, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("write($self, /, data)\n--\n\n"
               "Send bytes, now or as soon as the pipe has room. Does not block.\n\n"
               "TypeError for anything but bytes, bytearray or memoryview. After close(), or\n"
               "when the other end is closed, the data is dropped.")},
    {"writelines", (PyCFunction)(void (*)(void))Stream_writelines, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("writelines($self, /, list_of_data)\n--\n\n"
               "Send several pieces, gathered into as few system calls as possible.")},
    {"write_eof", WritePipe_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self, /)\n--\n\n"
               "The same as close(): the pipe is closed after what is buffered.")},
    {"can_write_eof", Stream_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self, /)\n--\n\nTrue: write_eof() is possible.")},
    {"is_reading", WritePipe_no_reading, METH_NOARGS, NULL},
    {"pause_reading", WritePipe_no_reading, METH_NOARGS, NULL},
    {"resume_reading", WritePipe_no_reading, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ReadPipe_getset[] = {
    {"_pipe", Pipe_get_pipe, Pipe_set_pipe, NULL, NULL},
    {"_fileno", Pipe_get_fileno, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef WritePipe_getset[] = {
    {"_pipe", Pipe_get_pipe, Pipe_set_pipe, NULL, NULL},
    {"_fileno", Pipe_get_fileno, NULL, NULL, NULL},
    {"_buffer", WritePipe_get_buffer, NULL, NULL, NULL},
    {"_conn_lost", WritePipe_get_conn_lost, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ReadPipe_slots[] = {
    {Py_tp_doc, "The transport of the reading end of a pipe: asyncio.ReadTransport."},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_methods, ReadPipe_methods},
    {Py_tp_getset, ReadPipe_getset},
    {0, NULL},
};

static PyType_Slot WritePipe_slots[] = {
    {Py_tp_doc, "The transport of the writing end of a pipe: asyncio.WriteTransport."},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_traverse, stream_traverse},
    {Py_tp_clear, stream_clear},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_methods, WritePipe_methods},
    {Py_tp_getset, WritePipe_getset},
    {0, NULL},
};

static PyType_Spec ReadPipe_spec = {
    .name = "asyncloop._core.ReadPipeTransport",
    .basicsize = sizeof(Transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ReadPipe_slots,
};

static PyType_Spec WritePipe_spec = {
    .name = "asyncloop._core.WritePipeTransport",
    .basicsize = sizeof(WritePipe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = WritePipe_slots,
};

static PyMethodDef pipe_functions[] = {
    {"_read_pipe_new", module_read_pipe_new, METH_VARARGS,
     INSIDE_DOC("_read_pipe_new(loop, pipe, protocol, waiter, extra, /)\n--\n\n"
                "A transport that reads from a file object, which it owns from now on.\n\n"
                "ValueError for what is no pipe, socket or character device.")},
    {"_write_pipe_new", module_write_pipe_new, METH_VARARGS,
     INSIDE_DOC("_write_pipe_new(loop, pipe, protocol, waiter, extra, /)\n--\n\n"
                "A transport that writes to a file object, which it owns from now on.\n\n"
                "ValueError for what is no pipe, socket or character device.")},
    {NULL, NULL, 0, NULL},
};

int
pipe_types_init(PyObject *module, struct state *state)
{
    PyObject *base = (PyObject *)net_state(state)->types.Transport;
    Py_ssize_t room = (Py_ssize_t)sizeof(Transport);
    if (state_add_type(module, &ReadPipe_spec, base, room, &net_state(state)->types.ReadPipe) < 0
        || state_add_type(module, &WritePipe_spec, base, room, &net_state(state)->types.WritePipe) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, pipe_functions);
}
