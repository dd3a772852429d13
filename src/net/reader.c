/* reader.c - see reader.h. */
#include "net/reader.h"

#include "base/checked.h"
#include "base/instance.h"
#include "tasks/future.h"
#include "net/proto.h"

#include <string.h>

/* The feature rests on what feed_data() does in the versions that were read. */
#define READER_KNOWN (PY_VERSION_HEX < 0x03100000)

/* -- is everything the standard library's own? ------------------------------------------ */

/* Where each function of enum own_function belongs. */
static const struct {
    enum {
        PROTOCOL,
        READER,
        WRITER,
    } type;
    const char *name;
} own_names[OWN_FUNCTIONS] = {
    [OWN_DATA_RECEIVED] = {PROTOCOL, "data_received"},
    [OWN_DRAIN_HELPER] = {PROTOCOL, "_drain_helper"},
    [OWN_DEL] = {PROTOCOL, "__del__"},
    [OWN_FEED_DATA] = {READER, "feed_data"},
    [OWN_WAKEUP_WAITER] = {READER, "_wakeup_waiter"},
    [OWN_WAIT_FOR_DATA] = {READER, "_wait_for_data"},
    [OWN_MAYBE_RESUME_TRANSPORT] = {READER, "_maybe_resume_transport"},
    [OWN_READ] = {READER, "read"},
    [OWN_READEXACTLY] = {READER, "readexactly"},
    [OWN_READLINE] = {READER, "readline"},
    [OWN_READUNTIL] = {READER, "readuntil"},
    [OWN_EXCEPTION] = {READER, "exception"},
    [OWN_WRITE] = {WRITER, "write"},
    [OWN_DRAIN] = {WRITER, "drain"},
};

static PyObject *
own_type(const struct reader_state *reader, int i)
{
    PyObject *const types[] = {reader->ProtocolType, reader->ReaderType, reader->WriterType};
    return types[own_names[i].type];
}

/* new reference to type.name if it is a function of the module asyncio.streams */
static PyObject *
own_function(PyObject *type, PyObject *name, PyObject *globals)
{
    PyObject *function = PyObject_GetAttr(type, name);
    if (function == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (!PyFunction_Check(function) || PyFunction_GET_GLOBALS(function) != globals) {
        Py_CLEAR(function);
    }
    return function;
}

int
reader_init(PyObject *core UNUSED, struct state *state)
{
    struct reader_state *reader = &net_state(state)->reader;
    STATE_OWN_UNTIL(state, reader, wanted_length);
    for (int i = 0; i < OWN_FUNCTIONS; i++) {
        reader->names[i] = PyUnicode_InternFromString(own_names[i].name);
        if (reader->names[i] == NULL) {
            return -1;
        }
    }
    PyObject *module = PyImport_ImportModule("asyncio.streams");
    if (module == NULL) {
        return -1;
    }
    PyObject *globals = PyModule_GetDict(module);
    reader->ProtocolType = PyObject_GetAttrString(module, "StreamReaderProtocol");
    reader->ReaderType = PyObject_GetAttrString(module, "StreamReader");
    reader->WriterType = PyObject_GetAttrString(module, "StreamWriter");
    Py_DECREF(module);
    if (reader->ProtocolType == NULL || reader->ReaderType == NULL || reader->WriterType == NULL) {
        return -1;
    }
    if (!READER_KNOWN || !PyType_Check(reader->ProtocolType) || !PyType_Check(reader->ReaderType)
        || !PyType_Check(reader->WriterType)) {
        return 0;
    }
    reader->protocol_version = reader->reader_version = reader->writer_version = UINT_MAX;
    reader->stream_reader = PyObject_GetAttrString(reader->ProtocolType, "_stream_reader");
    if (reader->stream_reader == NULL) {
        PyErr_Clear();
    }
    reader->usable = reader->stream_reader != NULL && SHORT_WAY(streams);
    for (int i = 0; i < OWN_FUNCTIONS; i++) {
        reader->own[i] = own_function(own_type(reader, i), reader->names[i], globals);
        reader->usable = reader->usable && reader->own[i] != NULL;
    }
    return 0;
}

static bool
attribute_is(PyObject *type, PyObject *name, PyObject *expected)
{
    PyObject *value = PyObject_GetAttr(type, name);
    if (value == NULL) {
        PyErr_Clear();
        return false;
    }
    Py_DECREF(value);
    return value == expected;
}

/* A class that gets no version is looked at each time. */
bool
reader_classes_look(struct state *state)
{
    struct reader_state *reader = &net_state(state)->reader;
    unsigned int protocol_version = standard_version_given((PyTypeObject *)reader->ProtocolType);
    unsigned int reader_version = standard_version_given((PyTypeObject *)reader->ReaderType);
    unsigned int writer_version = standard_version_given((PyTypeObject *)reader->WriterType);
    bool ok = reader->usable
              && attribute_is(reader->ProtocolType, state->names._stream_reader, reader->stream_reader);
    for (int i = 0; ok && i < OWN_FUNCTIONS; i++) {
        ok = attribute_is(own_type(reader, i), reader->names[i], reader->own[i]);
    }
    GUARD(reader->ProtocolType);
    if (!reader_classes_are_same(reader)) {    /* no other thread has looked later */
        SHARED_STORE(reader->classes_ok, ok);
        SHARED_STORE(reader->protocol_version, protocol_version);
        SHARED_STORE(reader->reader_version, reader_version);
        SHARED_STORE(reader->writer_version, writer_version);
    }
    return ok;
}

PyObject *
reader_current_function(struct state *state, enum own_function which)
{
    const struct reader_state *reader = &net_state(state)->reader;
    return PyObject_GetAttr(own_type(reader, which), reader->names[which]);
}

bool
reader_protocol_is_plain(struct state *state, PyObject *protocol)
{
    struct reader_state *reader = &net_state(state)->reader;
    return reader->usable && (PyObject *)Py_TYPE(protocol) == reader->ProtocolType
           && reader_classes_are_standard(state);
}

void
reader_error_is_known(struct state *state, PyObject *protocol)
{
    struct reader_state *reader = &net_state(state)->reader;
    if (!reader->usable || !PyObject_TypeCheck(protocol, (PyTypeObject *)reader->ProtocolType)
        || !attribute_is((PyObject *)Py_TYPE(protocol), reader->names[OWN_DEL], reader->own[OWN_DEL])) {
        return;
    }
    PyObject *closed = PyObject_GetAttr(protocol, state->names._closed);
    if (closed == NULL) {
        PyErr_Clear();
    }
    else if (future_check_exact(state, closed)) {
        future_error_is_known((Future *)closed);
    }
    Py_XDECREF(closed);
}

/* Does op.name give the method `function`, not something put on the instance? */
static bool
method_is(PyObject *op, PyObject *name, PyObject *function)
{
    PyObject *bound = PyObject_GetAttr(op, name);
    if (bound == NULL) {
        PyErr_Clear();
        return false;
    }
    bool same = PyMethod_Check(bound) && PyMethod_GET_FUNCTION(bound) == function;
    Py_DECREF(bound);
    return same;
}

/* new reference to what a weak reference points at, or NULL without an exception */
static inline PyObject *
weakref_get(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *op;
    if (PyWeakref_GetRef(reference, &op) < 0) {
        PyErr_Clear();
        return NULL;
    }
    return op;
#else
    PyObject *op = PyWeakref_GetObject(reference);
    if (op == NULL) {
        PyErr_Clear();
        return NULL;
    }
    return op == Py_None ? NULL : Py_NewRef(op);
#endif
}

/* The protocol's instance has changed, or was never looked at. */
static __attribute__((noinline)) bool
protocol_looks_standard(struct state *state, struct proto *proto)
{
    struct reader_state *reader = &net_state(state)->reader;
    PyObject *protocol = proto->protocol;
    PyObject *names[] = {state->names.data_received, state->names._drain_helper};
    if (protocol == NULL || (PyObject *)Py_TYPE(protocol) != reader->ProtocolType
        || !method_is(protocol, state->names.data_received, reader->own[OWN_DATA_RECEIVED])
        || !method_is(protocol, state->names._drain_helper, reader->own[OWN_DRAIN_HELPER])) {
        return false;
    }
    if (instance_see(state, protocol, &proto->seen, names, ARRAY_LEN(names))) {
        Py_XSETREF(proto->feed, Py_NewRef(reader->own[OWN_DATA_RECEIVED]));    /* see proto.h */
    }
    return true;
}

bool
reader_proto_is_standard(struct state *state, struct proto *proto)
{
    return LIKELY(reader_classes_are_standard(state))
           && (LIKELY(proto->protocol != NULL && instance_is_as_seen(proto->protocol, &proto->seen))
               || protocol_looks_standard(state, proto));
}

bool
reader_has_own_methods(struct state *state, PyObject *op, PyObject *dict)
{
    static const enum own_function looked_up[] = {
        OWN_FEED_DATA,
        OWN_WAKEUP_WAITER,
        OWN_WAIT_FOR_DATA,
        OWN_MAYBE_RESUME_TRANSPORT,
        OWN_READUNTIL,
        OWN_EXCEPTION,
    };
    const struct reader_state *reader = &net_state(state)->reader;
    for (size_t i = 0; i < ARRAY_LEN(looked_up); i++) {
        PyObject *name = reader->names[looked_up[i]];
        if (dict == NULL) {
            if (!method_is(op, name, reader->own[looked_up[i]])) {
                return true;
            }
        }
        else if (PyDict_Contains(dict, name) != 0) {
            PyErr_Clear();
            return true;
        }
    }
    return false;
}

/* -- feed_data() ------------------------------------------------------------------------------ */

static int
wake_waiter(struct state *state, PyObject *reader, PyObject *dict, PyObject *waiter)
{
    int taken = dict != NULL ? PyDict_SetItem(dict, state->names._waiter, Py_None)
                             : PyObject_SetAttr(reader, state->names._waiter, Py_None);
    if (taken < 0) {
        return -1;
    }
    if (LIKELY(future_check_exact(state, waiter) && future_is_pending((Future *)waiter))) {
        return future_set_result_if_pending((Future *)waiter, Py_None);
    }
    PyObject *cancelled = PyObject_CallMethodNoArgs(waiter, state->names.cancelled);
    if (cancelled == NULL) {
        return -1;
    }
    int is_cancelled = PyObject_IsTrue(cancelled);
    Py_DECREF(cancelled);
    if (is_cancelled != 0) {
        return is_cancelled < 0 ? -1 : 0;
    }
    PyObject *result = PyObject_CallMethodOneArg(waiter, state->names.set_result, Py_None);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The buffer is longer than twice the limit: the transport is to pause. */
static int
pause_transport(struct state *state, PyObject *reader)
{
    PyObject *paused = PyObject_GetAttr(reader, state->names._paused);
    if (paused == NULL) {
        return -1;
    }
    int is_paused = PyObject_IsTrue(paused);
    Py_DECREF(paused);
    if (is_paused != 0) {
        return is_paused < 0 ? -1 : 0;
    }
    PyObject *transport = PyObject_GetAttr(reader, state->names._transport);
    if (transport == NULL || transport == Py_None) {
        Py_XDECREF(transport);
        return transport == NULL ? -1 : 0;
    }
    PyObject *result = PyObject_CallMethodNoArgs(transport, state->names.pause_reading);
    Py_DECREF(transport);
    if (result == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
            return -1;
        }
        PyErr_Clear();
        return PyObject_SetAttr(reader, state->names._transport, Py_None);
    }
    Py_DECREF(result);
    return PyObject_SetAttr(reader, state->names._paused, Py_True);
}

/* After a resize that failed: from 3.15 on, a bytearray that finds no memory is empty. What was in it
 * cannot be had again, so nothing may go on with what comes behind it. */
static inline bool
buffer_is_lost(PyObject *buffer, Py_ssize_t length)
{
    return PyByteArray_GET_SIZE(buffer) != length;
}

/* Makes the buffer `size` bytes long. One that grows towards a large message gets room for twice of what is
 * in it, but for no more than the message: else it is copied for each packet, as it would be with more room
 * than that when the packet is smaller than `size` (a bytearray less than half full gives its room back).
 * 0 / -1; see buffer_is_lost(). */
static inline int
buffer_resize(PyObject *buffer, Py_ssize_t size, Py_ssize_t wanted)
{
    Py_ssize_t length = PyByteArray_GET_SIZE(buffer);
    if (wanted > size && length > size / 2 && size >= READER_LARGE_BYTES
        && size >= ((PyByteArrayObject *)buffer)->ob_alloc) {
        if (PyByteArray_Resize(buffer, wanted / 2 > length ? 2 * length : wanted) < 0) {
            if (UNLIKELY(buffer_is_lost(buffer, length))) {
                return -1;
            }
            PyErr_Clear();    /* without memory for so much, or by the buffer's own rules: see below */
        }
    }
    return PyByteArray_Resize(buffer, size);
}

static int
buffer_extend(PyObject *buffer, const char *data, size_t n, Py_ssize_t wanted)
{
    int result;
    GUARD(buffer);
    Py_ssize_t length = PyByteArray_GET_SIZE(buffer);
    result = buffer_resize(buffer, length + (Py_ssize_t)n, wanted);
    if (LIKELY(result == 0)) {
        memcpy(PyByteArray_AS_STRING(buffer) + length, data, n);
    }
    return result;
}

/* New reference to a field of the reader, or NULL. A reader that has changed its class (see
 * stream_api.h) has a dict, which is quicker to ask than the object. */
static inline PyObject *
reader_field(PyObject *reader, PyObject *dict, PyObject *name, enum field_place place)
{
    return dict != NULL ? field_ref(dict, name, place) : PyObject_GetAttr(reader, name);
}

/* The length of the buffer without which readexactly(), which waits, cannot go on: until then
 * nobody is woken, and nothing paused that it would resume. 0: whatever comes is wanted. */
static inline Py_ssize_t
wanted_length(struct state *state, PyObject *reader, PyObject *waiter)
{
    if (waiter == Py_None || !future_check_exact(state, waiter)
        || !future_is_pending((Future *)waiter)) {
        return 0;
    }
    GUARD(waiter);    /* behind which the Operation takes itself off */
    PyObject *watcher = ((Future *)waiter)->watcher;
    return watcher == NULL ? 0 : net_state(state)->reader.wanted_length(watcher, reader);
}

/* What feed_data() works with: strong references, `dict` may be NULL. */
struct feeding {
    PyObject *reader, *dict, *buffer, *waiter;
    Py_ssize_t limit;
    Py_ssize_t wanted;    /* see wanted_length() */
};

static inline void
feeding_end(struct feeding *feeding)
{
    Py_XDECREF(feeding->dict);
    Py_XDECREF(feeding->buffer);
    Py_XDECREF(feeding->waiter);
    Py_DECREF(feeding->reader);
}

/* False: it is left to data_received(), which says what is missing. No exception is set, and
 * feeding_end() comes in any case. */
static inline __attribute__((always_inline)) bool
feeding_begin(struct feeding *feeding, struct state *state, PyObject *reader_steal)
{
    PyObject *dict = NULL, *limit = NULL;
    *feeding = (struct feeding){.reader = reader_steal};
    if (Py_IS_TYPE(reader_steal, net_state(state)->types.FastReader)
        && (dict = PyObject_GenericGetDict(reader_steal, NULL)) == NULL) {
        PyErr_Clear();
    }
    feeding->dict = dict;
    PyObject *eof = reader_field(reader_steal, dict, state->names._eof, READER_EOF);
    feeding->buffer = eof == NULL ? NULL : reader_field(reader_steal, dict, state->names._buffer, READER_BUFFER);
    limit = feeding->buffer == NULL ? NULL : reader_field(reader_steal, dict, state->names._limit, READER_LIMIT);
    feeding->waiter = limit == NULL ? NULL
                                    : reader_field(reader_steal, dict, state->names._waiter, READER_WAITER);
    bool usual = eof == Py_False && reader_is_plain(state, reader_steal, dict)
                 && feeding->waiter != NULL && PyLong_CheckExact(limit)
                 && PyByteArray_CheckExact(feeding->buffer);
    if (LIKELY(usual)) {
        feeding->limit = PyLong_AsSsize_t(limit);
        if (UNLIKELY(feeding->limit < 0)) {
            PyErr_Clear();
            feeding->limit = PY_SSIZE_T_MAX;    /* more than fits: never paused */
        }
        feeding->wanted = wanted_length(state, reader_steal, feeding->waiter);
    }
    else {
        PyErr_Clear();
    }
    Py_XDECREF(eof);
    Py_XDECREF(limit);
    return usual;
}

/* The buffer has grown: wakes and pauses. 0 / -1 */
static inline __attribute__((always_inline)) int
feeding_done(struct feeding *feeding, struct state *state)
{
    Py_ssize_t left = PyByteArray_GET_SIZE(feeding->buffer) - feeding->wanted;
    if (left < 0) {
        return 0;
    }
    if (feeding->waiter != Py_None
        && UNLIKELY(wake_waiter(state, feeding->reader, feeding->dict, feeding->waiter) < 0)) {
        return -1;
    }
    /* What is wanted is taken in a moment. */
    if (UNLIKELY(left / 2 >= feeding->limit) && left - feeding->limit > feeding->limit) {
        return pause_transport(state, feeding->reader);
    }
    return 0;
}

/* The protocol's reader, a new reference, or NULL where the standard method is to do it. Sets no
 * exception. */
static inline PyObject *
feedable_reader(struct state *state, struct proto *proto)
{
    if (UNLIKELY(!reader_proto_is_standard(state, proto))) {
        return NULL;
    }
    PyObject *reference = PyObject_GetAttr(proto->protocol, state->names._stream_reader_wr);
    if (UNLIKELY(reference == NULL)) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *reader = PyWeakref_CheckRefExact(reference) ? weakref_get(reference) : NULL;
    Py_DECREF(reference);
    if (UNLIKELY(reader != NULL && Py_TYPE(reader) != net_state(state)->types.FastReader
                 && (PyObject *)Py_TYPE(reader) != net_state(state)->reader.ReaderType)) {
        Py_CLEAR(reader);
    }
    return reader;
}

int
reader_feed(struct state *state, struct proto *proto, const char *data, size_t n)
{
    PyObject *reader = feedable_reader(state, proto);
    if (UNLIKELY(reader == NULL)) {
        return 0;
    }
    struct feeding feeding;
    int result = 0;
    if (LIKELY(feeding_begin(&feeding, state, reader))) {
        result = buffer_extend(feeding.buffer, data, n, feeding.wanted) < 0
                         || feeding_done(&feeding, state) < 0
                     ? -1
                     : 1;
    }
    feeding_end(&feeding);
    return result;
}

int
reader_receive(struct state *state, struct proto *proto, struct io *io, size_t max,
               enum io_status *status, size_t *n, bool *complete)
{
    PyObject *reader = feedable_reader(state, proto);
    if (UNLIKELY(reader == NULL)) {
        return 0;
    }
    struct feeding feeding;
    int result = 0;
    if (UNLIKELY(!feeding_begin(&feeding, state, reader))) {
        goto done;
    }
    PyObject *buffer = feeding.buffer;
    Py_ssize_t length = PyByteArray_GET_SIZE(buffer);
    if (feeding.wanted - length < READER_LARGE_BYTES) {
        goto done;
    }
    size_t room = (size_t)(feeding.wanted - length) < max ? (size_t)(feeding.wanted - length) : max;
    if (UNLIKELY(buffer_resize(buffer, length + (Py_ssize_t)room, feeding.wanted) < 0)) {
        if (buffer_is_lost(buffer, length)) {
            result = -1;
        }
        else {
            PyErr_Clear();    /* whoever feeds it the usual way is told */
        }
        goto done;
    }
    *n = 0;
    *status = io->ops->read(io, PyByteArray_AS_STRING(buffer) + length, room, n);
    *complete = length + (Py_ssize_t)*n == feeding.wanted;
    result = PyByteArray_Resize(buffer, length + (Py_ssize_t)*n) < 0
                     || (*n > 0 && feeding_done(&feeding, state) < 0)
                 ? -1
                 : 1;
done:
    feeding_end(&feeding);
    return result;
}
