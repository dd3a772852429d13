/* reader.c - see reader.h. */
#include "reader.h"

#include <string.h>

#include "future.h"

/* The feature rests on what feed_data() does in the versions that were read. */
#define READER_KNOWN (PY_VERSION_HEX < 0x03100000)

/* -- is everything the standard library's own? ------------------------------------------ */

/* Where each function of enum own_function belongs. */
static const struct {
    enum { PROTOCOL, READER, WRITER } type;
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
    [OWN_WRITE] = {WRITER, "write"},
    [OWN_DRAIN] = {WRITER, "drain"},
};

static PyObject *
own_type(struct reader_state *reader, int i)
{
    PyObject *const types[] = {reader->ProtocolType, reader->ReaderType, reader->WriterType};
    return types[own_names[i].type];
}

/* new reference to type.name if it is a function of the module asyncio.streams */
static PyObject *
own_function(PyObject *type, const char *name, PyObject *globals)
{
    PyObject *function = PyObject_GetAttrString(type, name);
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
reader_init(struct state *state)
{
    struct reader_state *reader = &state->reader;
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
    reader->stream_reader = PyObject_GetAttrString(reader->ProtocolType, "_stream_reader");
    if (reader->stream_reader == NULL) {
        PyErr_Clear();
    }
    reader->usable = reader->stream_reader != NULL;
    for (int i = 0; i < OWN_FUNCTIONS; i++) {
        reader->own[i] = own_function(own_type(reader, i), own_names[i].name, globals);
        reader->usable = reader->usable && reader->own[i] != NULL;
    }
    return 0;
}

static bool
attribute_is(PyObject *type, const char *name, PyObject *expected)
{
    PyObject *value = PyObject_GetAttrString(type, name);
    if (value == NULL) {
        PyErr_Clear();
        return false;
    }
    Py_DECREF(value);
    return value == expected;
}

static inline unsigned int
version_of(PyObject *class)
{
    return SHARED_LOAD(((PyTypeObject *)class)->tp_version_tag);
}

/* The lookups give each class a version tag; it changes with the class. */
static bool
classes_look_standard(struct reader_state *reader)
{
    bool ok = reader->usable
              && attribute_is(reader->ProtocolType, "_stream_reader", reader->stream_reader);
    for (int i = 0; ok && i < OWN_FUNCTIONS; i++) {
        ok = attribute_is(own_type(reader, i), own_names[i].name, reader->own[i]);
    }
    SHARED_STORE(reader->classes_ok, ok);
    SHARED_STORE(reader->protocol_version, version_of(reader->ProtocolType));
    SHARED_STORE(reader->reader_version, version_of(reader->ReaderType));
    SHARED_STORE(reader->writer_version, version_of(reader->WriterType));
    return ok;
}

bool
reader_classes_are_standard(struct state *state)
{
    struct reader_state *reader = &state->reader;
    unsigned int protocol_version = version_of(reader->ProtocolType);
    unsigned int reader_version = version_of(reader->ReaderType);
    unsigned int writer_version = version_of(reader->WriterType);
    if (LIKELY(protocol_version == SHARED_LOAD(reader->protocol_version) && protocol_version != 0
               && reader_version == SHARED_LOAD(reader->reader_version) && reader_version != 0
               && writer_version == SHARED_LOAD(reader->writer_version) && writer_version != 0)) {
        return SHARED_LOAD(reader->classes_ok);
    }
    return classes_look_standard(reader);
}

PyObject *
reader_current_function(struct state *state, enum own_function which)
{
    return PyObject_GetAttrString(own_type(&state->reader, which), own_names[which].name);
}

bool
reader_protocol_is_plain(struct state *state, PyObject *protocol)
{
    struct reader_state *reader = &state->reader;
    return reader->usable && (PyObject *)Py_TYPE(protocol) == reader->ProtocolType
           && reader_classes_are_standard(state);
}

void
reader_error_is_known(struct state *state, PyObject *protocol)
{
    struct reader_state *reader = &state->reader;
    if (!reader->usable || !PyObject_TypeCheck(protocol, (PyTypeObject *)reader->ProtocolType)
        || !attribute_is((PyObject *)Py_TYPE(protocol), "__del__", reader->own[OWN_DEL])) {
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
method_is(PyObject *op, const char *name, PyObject *function)
{
    PyObject *bound = PyObject_GetAttrString(op, name);
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

PyObject *
reader_bind(struct state *state, PyObject *protocol)
{
    struct reader_state *reader = &state->reader;
    if (!reader_protocol_is_plain(state, protocol)
        || !method_is(protocol, "data_received", reader->own[OWN_DATA_RECEIVED])) {
        return NULL;
    }
    PyObject *reference = PyObject_GetAttr(protocol, state->names._stream_reader_wr);
    if (reference == NULL) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *target = PyWeakref_CheckRefExact(reference) ? weakref_get(reference) : NULL;
    if (target == NULL
        || ((PyObject *)Py_TYPE(target) != reader->ReaderType
            && Py_TYPE(target) != reader->FastReaderType)
        || !method_is(target, "feed_data", reader->own[OWN_FEED_DATA])
        || !method_is(target, "_wakeup_waiter", reader->own[OWN_WAKEUP_WAITER])) {
        Py_CLEAR(reference);
    }
    Py_XDECREF(target);
    return reference;
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

static int
buffer_extend(PyObject *buffer, const char *data, size_t n)
{
    int result;
    Py_BEGIN_CRITICAL_SECTION(buffer);
    Py_ssize_t length = PyByteArray_GET_SIZE(buffer);
    result = PyByteArray_Resize(buffer, length + (Py_ssize_t)n);
    if (LIKELY(result == 0)) {
        memcpy(PyByteArray_AS_STRING(buffer) + length, data, n);
    }
    Py_END_CRITICAL_SECTION();
    return result;
}

/* New reference to a field of the reader, or NULL. A reader that has changed its class (see
 * stream_api.h) has a dict, which is quicker to ask than the object. */
static inline PyObject *
reader_field(PyObject *reader, PyObject *dict, PyObject *name)
{
    return dict != NULL ? Py_XNewRef(PyDict_GetItemWithError(dict, name))
                        : PyObject_GetAttr(reader, name);
}

static int
feed(struct state *state, PyObject *reader, const char *data, size_t n)
{
    PyObject *dict = NULL, *eof = NULL, *buffer = NULL, *limit = NULL, *waiter = NULL;
    int result = 0;
    if (Py_IS_TYPE(reader, state->reader.FastReaderType)
        && (dict = PyObject_GenericGetDict(reader, NULL)) == NULL) {
        PyErr_Clear();
    }
    eof = reader_field(reader, dict, state->names._eof);
    buffer = eof == NULL ? NULL : reader_field(reader, dict, state->names._buffer);
    limit = buffer == NULL ? NULL : reader_field(reader, dict, state->names._limit);
    waiter = limit == NULL ? NULL : reader_field(reader, dict, state->names._waiter);
    if (UNLIKELY(waiter == NULL)) {
        PyErr_Clear();    /* data_received() says what is missing */
        goto done;
    }
    if (UNLIKELY(eof != Py_False || !PyByteArray_CheckExact(buffer) || !PyLong_CheckExact(limit))) {
        goto done;
    }
    Py_ssize_t limit_bytes = PyLong_AsSsize_t(limit);
    if (UNLIKELY(limit_bytes < 0)) {
        PyErr_Clear();    /* more than fits: never paused */
        limit_bytes = PY_SSIZE_T_MAX;
    }
    result = -1;
    if (UNLIKELY(buffer_extend(buffer, data, n) < 0)) {
        goto done;
    }
    if (waiter != Py_None && UNLIKELY(wake_waiter(state, reader, dict, waiter) < 0)) {
        goto done;
    }
    if (UNLIKELY(PyByteArray_GET_SIZE(buffer) / 2 >= limit_bytes)
        && PyByteArray_GET_SIZE(buffer) - limit_bytes > limit_bytes
        && pause_transport(state, reader) < 0) {
        goto done;
    }
    result = 1;
done:
    Py_XDECREF(dict);
    Py_XDECREF(eof);
    Py_XDECREF(buffer);
    Py_XDECREF(limit);
    Py_XDECREF(waiter);
    return result;
}

int
reader_feed(struct state *state, PyObject *reader_ref, const char *data, size_t n)
{
    if (UNLIKELY(!reader_classes_are_standard(state))) {
        return 0;
    }
    PyObject *reader = weakref_get(reader_ref);
    if (UNLIKELY(reader == NULL)) {
        return 0;
    }
    int result = feed(state, reader, data, n);
    Py_DECREF(reader);
    return result;
}
