/* stream_api.c - see stream_api.h.
 *
 * An attempt looks at the reader each time: its coroutine shares it with whatever else the
 * user runs. Values of its __dict__ are borrowed only while no Python runs.
 *
 * Without a GIL: an Operation runs in the thread that has its loop (Operation_am_send()), and a write
 * where the transport's loop is (write_here()). Reader, writer, their dicts and the buffer may be used by
 * other threads at any time: what is taken from a dict is a reference of our own, and the buffer is
 * looked into behind its critical section, each time anew. */
#include "streams/stream_api.h"

#include "tasks/future.h"
#include "net/reader.h"
#include "net/stream.h"
#include "streams/stream_adopt.h"

#include <string.h>

/* -- looking at a reader -------------------------------------------------------------------- */

struct reader_view {
    PyObject *dict;        /* strong */
    PyObject *buffer;      /* strong; an exact bytearray */
    Py_ssize_t length;     /* of it, at this moment */
};

static void
view_release(struct reader_view *view)
{
    Py_CLEAR(view->dict);
    Py_CLEAR(view->buffer);
}

/* New reference to a field of an object; NULL (and no exception) where it has none. */
static PyObject *
own_field(PyObject *op, PyObject *name, enum field_place place)
{
    PyObject *dict = PyObject_GenericGetDict(op, NULL);
    if (UNLIKELY(dict == NULL)) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *value = field_ref(dict, name, place);
    Py_DECREF(dict);
    return value;
}

/* The exception is asked for at the beginning only, as in asyncio. False (and no exception):
 * the standard method is to do it. */
static bool
view_open(Operation *op, struct reader_view *view)
{
    struct state *state = op->state;
    *view = (struct reader_view){0};
    if (UNLIKELY(!reader_classes_are_standard(state))) {
        return false;
    }
    view->dict = PyObject_GenericGetDict(op->args[0], NULL);
    if (UNLIKELY(view->dict == NULL)) {
        PyErr_Clear();
        return false;
    }
    view->buffer = field_ref(view->dict, state->names._buffer, READER_BUFFER);
    if (UNLIKELY(view->buffer == NULL || !PyByteArray_CheckExact(view->buffer)
                 || !reader_is_plain(state, op->args[0], view->dict)
                 || (!op->started && !field_is(view->dict, state->names._exception, READER_EXCEPTION, Py_None)))) {
        view_release(view);
        return false;
    }
    view->length = PyByteArray_GET_SIZE(view->buffer);
    return true;
}

static inline bool
view_at_end(struct state *state, const struct reader_view *view)
{
    return !field_is(view->dict, state->names._eof, READER_EOF, Py_False);
}

/* The reader's limit in bytes, or -1 */
static Py_ssize_t
view_limit(struct state *state, const struct reader_view *view)
{
    PyObject *limit = field_ref(view->dict, state->names._limit, READER_LIMIT);
    Py_ssize_t n = limit != NULL && PyLong_CheckExact(limit) ? PyLong_AsSsize_t(limit) : -1;
    Py_XDECREF(limit);
    if (UNLIKELY(n < 0)) {
        PyErr_Clear();
        return -1;
    }
    return n;
}

/* -- outcomes of an attempt ------------------------------------------------------------------- */

/* The standard method does it, from the beginning. */
static enum attempt
leave_to_standard(Operation *op, enum own_function which)
{
    PyObject *function = net_state(op->state)->reader.own[which];
    PyObject *stack[2] = {op->args[0], op->nargs > 1 ? op->args[1] : NULL};
    return operation_await_steal(
        op, PyObject_Vectorcall(function, stack, 1 + (size_t)(stack[1] != NULL), NULL));
}

/* What the standard method returned. */
static inline bool
is_answered(Operation *op, PyObject **result)
{
    if (LIKELY(op->value == NULL)) {
        return false;
    }
    *result = Py_NewRef(op->value);
    return true;
}

/* As StreamReader._maybe_resume_transport(): 0 / -1 */
static int
maybe_resume(struct state *state, PyObject *reader, struct reader_view *view)
{
    if (LIKELY(field_is(view->dict, state->names._paused, READER_PAUSED, Py_False))) {
        return 0;
    }
    PyObject *result = PyObject_CallOneArg(net_state(state)->reader.own[OWN_MAYBE_RESUME_TRANSPORT], reader);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* n bytes off the buffer: a new bytes object. NULL without an exception: another thread has taken them
 * meanwhile. */
static PyObject *
buffer_take(PyObject *buffer, Py_ssize_t n)
{
    GUARD(buffer);
    Py_ssize_t length = PyByteArray_GET_SIZE(buffer);
#ifdef Py_GIL_DISABLED
    if (UNLIKELY(length < n)) {
        return NULL;
    }
#endif
    PyObject *bytes = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), n);
    if (bytes == NULL) {
        return NULL;
    }
    int removed = n == length ? PyByteArray_Resize(buffer, 0) : PySequence_DelSlice(buffer, 0, n);
    if (removed < 0) {
        Py_CLEAR(bytes);
    }
    return bytes;
}

/* Takes n bytes off the buffer; releases the view. */
static enum attempt
take(Operation *op, struct reader_view *view, Py_ssize_t n, enum own_function which, PyObject **result)
{
    PyObject *bytes = buffer_take(view->buffer, n);
    if (UNLIKELY(bytes == NULL && !PyErr_Occurred())) {
        view_release(view);
        return leave_to_standard(op, which);
    }
    if (bytes == NULL || maybe_resume(op->state, op->args[0], view) < 0) {
        Py_XDECREF(bytes);
        view_release(view);
        return ATTEMPT_FAILED;
    }
    view_release(view);
    *result = bytes;
    return ATTEMPT_DONE;
}

static int
resume_transport(struct state *state, PyObject *reader)
{
    PyObject *transport = PyObject_GetAttr(reader, state->names._transport);
    PyObject *resumed = NULL;
    if (transport != NULL && PyObject_SetAttr(reader, state->names._paused, Py_False) == 0) {
        resumed = PyObject_CallMethodNoArgs(transport, state->names.resume_reading);
    }
    Py_XDECREF(transport);
    Py_XDECREF(resumed);
    return resumed == NULL ? -1 : 0;
}

/* As StreamReader._wait_for_data(); releases the view. Another reader that waits already
 * is an error, which the standard method `which` raises. */
static enum attempt
wait_for_data(Operation *op, struct reader_view *view, enum own_function which)
{
    struct state *state = op->state;
    PyObject *reader = op->args[0];
    bool paused = !field_is(view->dict, state->names._paused, READER_PAUSED, Py_False);
    bool busy = !field_is(view->dict, state->names._waiter, READER_WAITER, Py_None);
    PyObject *dict = Py_NewRef(view->dict);
    view_release(view);
    if (UNLIKELY(busy || loop_has_custom_futures(op->loop))) {
        Py_DECREF(dict);
        return leave_to_standard(op, which);
    }
    if (UNLIKELY(paused) && resume_transport(state, reader) < 0) {
        Py_DECREF(dict);
        return ATTEMPT_FAILED;
    }
    Future *waiter = (Future *)future_new(state, (PyObject *)op->loop);
    if (waiter == NULL) {
        Py_DECREF(dict);
        return ATTEMPT_FAILED;
    }
    int set = PyDict_SetItem(dict, state->names._waiter, (PyObject *)waiter);
    Py_DECREF(dict);
    if (set < 0) {
        Py_DECREF(waiter);
        return ATTEMPT_FAILED;
    }
    SHARED_STORE(waiter->watcher, (PyObject *)op);    /* for reader_feed(): see op->kind->counts */
    op->future = waiter;
    return ATTEMPT_WAIT_FUTURE;
}

/* The waiting is over. Who gives the waiter a result takes it off before; nobody does when
 * the wait is cancelled or given up. */
static void
leave_reader(Operation *op)
{
    if (LIKELY(SHARED_LOAD(op->future->future_state) >= FUTURE_FINISHED)) {
        return;
    }
    PyObject *waiter;
    PyObject *exc = PyErr_GetRaisedException();
    if (PyObject_GetOptionalAttr(op->args[0], op->state->names._waiter, &waiter) < 0
        || (waiter == (PyObject *)op->future
            && PyObject_SetAttr(op->args[0], op->state->names._waiter, Py_None) < 0)) {
        PyErr_WriteUnraisable(op->args[0]);
    }
    Py_XDECREF(waiter);
    PyErr_SetRaisedException(exc);
}

/* -- the kinds ------------------------------------------------------------------------------------ */

static enum attempt
attempt_readexactly(Operation *op, PyObject **result)
{
    struct reader_view view;
    if (is_answered(op, result)) {
        return ATTEMPT_DONE;
    }
    if (!view_open(op, &view)) {
        return leave_to_standard(op, OWN_READEXACTLY);
    }
    if (view.length >= op->count) {
        return take(op, &view, op->count, OWN_READEXACTLY, result);
    }
    if (view_at_end(op->state, &view)) {
        view_release(&view);
        return leave_to_standard(op, OWN_READEXACTLY);
    }
    return wait_for_data(op, &view, OWN_READEXACTLY);
}

static enum attempt
attempt_read(Operation *op, PyObject **result)
{
    struct reader_view view;
    if (is_answered(op, result)) {
        return ATTEMPT_DONE;
    }
    if (!view_open(op, &view)) {
        return leave_to_standard(op, OWN_READ);
    }
    if (view.length > 0 || view_at_end(op->state, &view) || op->phase > 0) {
        return take(op, &view, op->count < view.length ? op->count : view.length, OWN_READ, result);
    }
    op->phase = 1;    /* it waits once, whatever it is woken for */
    return wait_for_data(op, &view, OWN_READ);
}

/* Where the separator is behind the first `start` bytes of the buffer, or -1. `length` is that of the
 * buffer when it was looked into. */
static Py_ssize_t
find(PyObject *buffer, Py_ssize_t start, const char *separator, Py_ssize_t separator_length,
     Py_ssize_t *length)
{
    GUARD(buffer);
    *length = PyByteArray_GET_SIZE(buffer);
    if (*length - start < separator_length) {
        return -1;
    }
    const char *data = PyByteArray_AS_STRING(buffer);
    size_t n = (size_t)(*length - start);
    const char *at = separator_length == 1
                         ? memchr(data + start, separator[0], n)
                         : memmem(data + start, n, separator, (size_t)separator_length);
    return at == NULL ? -1 : at - data;
}

/* op->count: so many bytes from the start hold no beginning of a separator. */
static enum attempt
read_until(Operation *op, const char *separator, Py_ssize_t separator_length,
           enum own_function which, PyObject **result)
{
    struct reader_view view;
    if (is_answered(op, result)) {
        return ATTEMPT_DONE;
    }
    if (!view_open(op, &view)) {
        return leave_to_standard(op, which);
    }
    Py_ssize_t limit = view_limit(op->state, &view);
    if (limit >= 0 && view.length - op->count >= separator_length) {
        Py_ssize_t length;
        Py_ssize_t at = find(view.buffer, op->count, separator, separator_length, &length);
        if (at >= 0 && at <= limit) {
            return take(op, &view, at + separator_length, which, result);
        }
        if (at >= 0) {
            limit = -1;
        }
        op->count = length < separator_length ? 0 : length + 1 - separator_length;
    }
    if (limit < 0 || op->count > limit || view_at_end(op->state, &view)) {
        view_release(&view);
        return leave_to_standard(op, which);
    }
    return wait_for_data(op, &view, which);
}

static enum attempt
attempt_readline(Operation *op, PyObject **result)
{
    return read_until(op, "\n", 1, OWN_READLINE, result);
}

static enum attempt
attempt_readuntil(Operation *op, PyObject **result)
{
    PyObject *separator = op->nargs > 1 ? op->args[1] : NULL;
    return read_until(op, separator == NULL ? "\n" : PyBytes_AS_STRING(separator),
                      separator == NULL ? 1 : PyBytes_GET_SIZE(separator), OWN_READUNTIL, result);
}

/* Does a transport of ours take output at once, on behalf of the same protocol, and has nobody put
 * a method on either? What the protocol knows of it (_paused, _connection_lost) it was told by the
 * transport. */
static bool
transport_is_free(struct state *state, PyObject *transport)
{
    Channel *ch = channel_of_stream(state, transport);
    return !FLAG(ch->closing) && ch->conn_lost == 0 && !FLAG(ch->protocol_paused)
           && ch->proto.kind == PROTO_READER && channel_is_plain(state, ch)
           && reader_proto_is_standard(state, &ch->proto);
}

static bool
reader_is_well(struct state *state, PyObject *writer)
{
    PyObject *reader = own_field(writer, state->names._reader, WRITER_READER);
    bool well = reader == Py_None;
    if (LIKELY(reader != NULL && Py_IS_TYPE(reader, net_state(state)->types.FastReader))) {
        PyObject *dict = PyObject_GenericGetDict(reader, NULL);
        well = dict != NULL && field_is(dict, state->names._exception, READER_EXCEPTION, Py_None)
               && reader_is_plain(state, reader, dict);
        if (UNLIKELY(dict == NULL)) {
            PyErr_Clear();
        }
        Py_XDECREF(dict);
    }
    Py_XDECREF(reader);
    return well;
}

/* op->sock is the transport. */
static enum attempt
attempt_drain(Operation *op, PyObject **result)
{
    struct state *state = op->state;
    if (is_answered(op, result)) {
        return ATTEMPT_DONE;
    }
    if (UNLIKELY(!transport_is_free(state, op->sock)
                 || !reader_is_well(state, op->args[0]))) {
        return leave_to_standard(op, OWN_DRAIN);
    }
    *result = Py_NewRef(Py_None);
    return ATTEMPT_DONE;
}

#define KIND(function, class) \
    {.name = #function, .attempt = attempt_##function, .owner = class, .warns = true, \
     .leave = leave_reader}

static const struct operation_kind kind_read = KIND(read, "StreamReader");
static const struct operation_kind kind_readexactly = {
    .name = "readexactly",
    .attempt = attempt_readexactly,
    .owner = "StreamReader",
    .warns = true,
    .leave = leave_reader,
    .counts = true,
};
static const struct operation_kind kind_readline = KIND(readline, "StreamReader");
static const struct operation_kind kind_readuntil = KIND(readuntil, "StreamReader");
static const struct operation_kind kind_drain = KIND(drain, "StreamWriter");

/* -- the methods ------------------------------------------------------------------------------------ */

#define METHOD_ARGS                                                                        \
    PyObject *self, PyTypeObject *type, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames

/* The standard method, for a call of another form than the plain one. */
static PyObject *
call_standard(struct state *state, enum own_function which, PyObject *self,
              PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *function = reader_current_function(state, which);
    Py_ssize_t total = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    PyObject **stack = function == NULL ? NULL : PyMem_New(PyObject *, total + 1);
    PyObject *result = NULL;
    if (stack != NULL) {
        stack[0] = self;
        if (total > 0) {
            memcpy(stack + 1, args, (size_t)total * sizeof(*stack));
        }
        result = PyObject_Vectorcall(function, stack, (size_t)nargs + 1, kwnames);
    }
    else if (function != NULL) {
        PyErr_NoMemory();
    }
    PyMem_Free(stack);
    Py_XDECREF(function);
    return result;
}

/* A new Operation over the stream's loop; NULL without an exception where that is not ours. */
static Operation *
begin(struct state *state, const struct operation_kind *kind, PyObject *self, PyObject *arg)
{
    PyObject *op = NULL;
    PyObject *loop = own_field(self, state->names._loop, READER_LOOP);
    if (LIKELY(loop != NULL && loop_check(state, loop) && reader_classes_are_standard(state))) {
        PyObject *args[2] = {self, arg};
        op = operation_new((Loop *)loop, kind, NULL, args, 1 + (arg != NULL));
    }
    Py_XDECREF(loop);
    return (Operation *)op;
}

/* A method whose argument is a positive number of bytes. */
static PyObject *
sized_method(struct state *state, const struct operation_kind *kind, enum own_function which,
             PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (LIKELY(nargs == 1 && kwnames == NULL && PyLong_CheckExact(args[0]))) {
        Py_ssize_t n = PyLong_AsSsize_t(args[0]);
        Operation *op = n > 0 ? begin(state, kind, self, args[0]) : NULL;
        if (LIKELY(op != NULL)) {
            op->count = n;
            return (PyObject *)op;
        }
        if (PyErr_Occurred()) {
            if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
                return NULL;
            }
            PyErr_Clear();
        }
    }
    return call_standard(state, which, self, args, nargs, kwnames);
}

/* One without an argument, or with one that was looked at. */
static PyObject *
plain_method(struct state *state, const struct operation_kind *kind, enum own_function which,
             PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, bool plain)
{
    if (LIKELY(plain && kwnames == NULL)) {
        Operation *op = begin(state, kind, self, nargs > 0 ? args[0] : NULL);
        if (LIKELY(op != NULL) || PyErr_Occurred()) {
            return (PyObject *)op;
        }
    }
    return call_standard(state, which, self, args, nargs, kwnames);
}

static PyObject *
Reader_read(METHOD_ARGS)
{
    return sized_method(PyType_GetModuleState(type), &kind_read, OWN_READ, self, args, nargs, kwnames);
}

static PyObject *
Reader_readexactly(METHOD_ARGS)
{
    return sized_method(PyType_GetModuleState(type), &kind_readexactly, OWN_READEXACTLY, self, args,
                        nargs, kwnames);
}

static PyObject *
Reader_readline(METHOD_ARGS)
{
    return plain_method(PyType_GetModuleState(type), &kind_readline, OWN_READLINE, self, args, nargs,
                        kwnames, nargs == 0);
}

static PyObject *
Reader_readuntil(METHOD_ARGS)
{
    bool plain = nargs == 0
                 || (nargs == 1 && PyBytes_CheckExact(args[0]) && PyBytes_GET_SIZE(args[0]) > 0);
    return plain_method(PyType_GetModuleState(type), &kind_readuntil, OWN_READUNTIL, self, args,
                        nargs, kwnames, plain);
}

/* The transport of a writer: new reference, NULL with an exception. */
static PyObject *
writer_transport(struct state *state, PyObject *writer)
{
    PyObject *transport = own_field(writer, state->names._transport, WRITER_TRANSPORT);
    if (UNLIKELY(transport == NULL)) {
        return PyObject_GetAttr(writer, state->names._transport);
    }
    return transport;
}

static PyObject *
Writer_drain(METHOD_ARGS)
{
    struct state *state = PyType_GetModuleState(type);
    if (UNLIKELY(nargs != 0 || kwnames != NULL)) {
        return call_standard(state, OWN_DRAIN, self, args, nargs, kwnames);
    }
    PyObject *transport = writer_transport(state, self);
    if (transport == NULL) {
        return NULL;
    }
    Channel *ch = channel_of_stream(state, transport);
    Loop *loop = ch == NULL ? NULL : channel_loop_ref(ch);
    PyObject *op = loop == NULL ? call_standard(state, OWN_DRAIN, self, args, nargs, kwnames)
                                : operation_new(loop, &kind_drain, transport, &self, 1);
    Py_XDECREF(loop);
    Py_DECREF(transport);
    return op;
}

/* As the transport's own write(). */
static PyObject *
write_here(PyObject *transport, PyObject *data)
{
    OWN_LOOP_OF(transport, Channel);
    return stream_write(stream_cast(transport), data) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
Writer_write(METHOD_ARGS)
{
    struct state *state = PyType_GetModuleState(type);
    if (UNLIKELY(nargs != 1 || kwnames != NULL || !reader_classes_are_standard(state))) {
        return call_standard(state, OWN_WRITE, self, args, nargs, kwnames);
    }
    PyObject *transport = writer_transport(state, self);
    if (transport == NULL) {
        return NULL;
    }
    PyObject *result = LIKELY(transport_is_plain_stream(state, transport))
                           ? write_here(transport, args[0])
                           : PyObject_CallMethodOneArg(transport, state->names.write, args[0]);
    Py_DECREF(transport);
    if (UNLIKELY(result == NULL)) {
        return NULL;
    }
    Py_DECREF(result);
    Py_RETURN_NONE;
}

/* -- the types ---------------------------------------------------------------------------------------------- */

#define METHOD(class, name, signature, doc)                                       \
    {#name, (PyCFunction)(void (*)(void))class##_##name,                          \
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS,                                 \
     PyDoc_STR(#name "($self, /" signature ")\n--\n\n" doc)}

static PyMethodDef Reader_methods[] = {
    METHOD(Reader, read, ", n=-1", "As asyncio.StreamReader.read()."),
    METHOD(Reader, readexactly, ", n", "As asyncio.StreamReader.readexactly()."),
    METHOD(Reader, readline, "", "As asyncio.StreamReader.readline()."),
    METHOD(Reader, readuntil, ", separator=b'\\n'", "As asyncio.StreamReader.readuntil()."),
    {NULL, NULL, 0, NULL},
};

static PyMethodDef Writer_methods[] = {
    METHOD(Writer, write, ", data", "As asyncio.StreamWriter.write()."),
    METHOD(Writer, drain, "", "As asyncio.StreamWriter.drain()."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Reader_slots[] = {
    {Py_tp_doc, "An asyncio.StreamReader whose hot methods are in C."},
    {Py_tp_methods, Reader_methods},
    {0, NULL},
};

static PyType_Slot Writer_slots[] = {
    {Py_tp_doc, "An asyncio.StreamWriter whose hot methods are in C."},
    {Py_tp_methods, Writer_methods},
    {0, NULL},
};

/* No size of their own: __class__ can change only between equal layouts. */
static PyType_Spec Reader_spec = {
    .name = "asyncloop._core.StreamReader",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Reader_slots,
};

static PyType_Spec Writer_spec = {
    .name = "asyncloop._core.StreamWriter",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Writer_slots,
};

/* For reader_feed(): see op->kind->counts. */
static Py_ssize_t
stream_wanted_length(PyObject *watcher, PyObject *reader)
{
    const Operation *op = (Operation *)watcher;
    return op->kind->counts && op->args[0] == reader ? op->count : 0;
}

int
stream_api_init(PyObject *module, struct state *state)
{
    struct reader_state *reader = &net_state(state)->reader;
    net_state(state)->protocols.stream_connection_made = stream_adopt_connection_made;
    reader->wanted_length = stream_wanted_length;
    if (!reader->usable) {
        return 0;    /* no protocol is of the kind PROTO_READER */
    }
    if (state_add_type(module, &Reader_spec, reader->ReaderType, PY_SSIZE_T_MAX, &net_state(state)->types.FastReader) < 0) {
        return -1;
    }
    return state_add_type(module, &Writer_spec, reader->WriterType, PY_SSIZE_T_MAX,
                          &net_state(state)->types.FastWriter);
}
