/* tls_portable.c - the engine over the ssl module's own objects: MemoryBIO for the bytes
 * on the wire, SSLObject for the plaintext. Works with every build of the ssl module.
 *
 * Reading and writing go to the C object inside the SSLObject. An exception for "more data is needed" costs a microsecond, so that the engine
 * reads only while there is something to read. */
#include "tls/tls_object.h"

/* 0 / -1: an attribute that is a size */
static int
size_attribute(PyObject *op, PyObject *name, size_t *size)
{
    PyObject *value = PyObject_GetAttr(op, name);
    if (value == NULL) {
        return -1;
    }
    *size = PyLong_AsSize_t(value);
    Py_DECREF(value);
    return *size == (size_t)-1 && PyErr_Occurred() ? -1 : 0;
}

/* Only feed() adds to it (guarded path: tls-portable). */
static inline size_t
portable_incoming(struct tls_engine *engine)
{
    size_t size;
    if (engine->portable.drained || engine->portable.incoming == NULL) {
        return 0;
    }
    if (size_attribute(engine->portable.incoming, engine->state->names.pending, &size) < 0) {
        PyErr_Clear();
        return 0;
    }
    engine->portable.drained = size == 0;
    return size;
}

static int
portable_open(struct tls_engine *engine, PyObject *context, bool server_side, PyObject *hostname)
{
    struct tls_objects *tls = &tls_state(engine->state)->tls;
    engine->portable.incoming = PyObject_CallNoArgs(tls->MemoryBIO);
    if (engine->portable.incoming != NULL) {
        engine->portable.outgoing = PyObject_CallNoArgs(tls->MemoryBIO);
    }
    if (engine->portable.outgoing == NULL) {
        return -1;
    }
    PyObject *args[] = {context, engine->portable.incoming, engine->portable.outgoing,
                        server_side ? Py_True : Py_False, hostname == NULL ? Py_None : hostname};
    engine->object = PyObject_VectorcallMethod(engine->state->names.wrap_bio, args, 3,
                                               tls->keywords_wrap_bio);
    if (engine->object == NULL) {
        return -1;
    }
    engine->inner = PyObject_GetAttr(engine->object, engine->state->names._sslobj);
    if (engine->inner == NULL) {
        return -1;
    }
    tls_watch_object(engine, context);
    return 0;
}

static void
portable_close(struct tls_engine *engine)
{
    Py_CLEAR(engine->portable.incoming);
    Py_CLEAR(engine->portable.outgoing);
}

static int
portable_feed(struct tls_engine *engine, const char *data, size_t n)
{
    PyObject *view = PyMemoryView_FromMemory((char *)data, (Py_ssize_t)n, PyBUF_READ);
    if (view == NULL) {
        return -1;
    }
    PyObject *result = tls_call(engine->portable.incoming, engine->state->names.write, view, NULL);
    engine->portable.drained = false;
    Py_DECREF(view);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
portable_keep(struct tls_engine *engine UNUSED)
{
    return 0;
}

static size_t
portable_waiting(struct tls_engine *engine)
{
    return engine->portable.incoming == NULL ? 0 : portable_incoming(engine);
}

/* Is there plaintext, or something that might become some? */
static bool
portable_has_more(struct tls_engine *engine, size_t got, size_t wanted)
{
    if (portable_incoming(engine) > 0) {
        return true;
    }
    if (got < wanted) {
        return false;    /* a read gives a whole record, unless there is no room for it */
    }
    PyObject *pending = tls_call(engine->inner, engine->state->names.pending, NULL, NULL);
    int any = pending == NULL ? -1 : PyObject_IsTrue(pending);
    Py_XDECREF(pending);
    if (any < 0) {
        PyErr_Clear();
    }
    return any > 0;
}

/* Of a call of the C object: its SSLZeroReturnError is the end, whatever we have sent. */
static enum tls_status
portable_failed(struct tls_engine *engine)
{
    if (PyErr_ExceptionMatches(tls_state(engine->state)->tls.SSLZeroReturnError)) {
        PyErr_Clear();
        return TLS_EOF;
    }
    return tls_status_of_exception(engine);
}

static enum tls_status
portable_read(struct tls_engine *engine, char *buffer, size_t capacity, size_t *n, bool *more)
{
    *more = false;
    PyObject *view = PyMemoryView_FromMemory(buffer, (Py_ssize_t)capacity, PyBUF_WRITE);
    PyObject *size = view == NULL ? NULL : PyLong_FromSize_t(capacity);
    PyObject *got = size == NULL ? NULL : tls_call(engine->inner, engine->state->names.read, size, view);
    Py_XDECREF(size);
    Py_XDECREF(view);
    if (got == NULL) {
        return portable_failed(engine);
    }
    *n = PyLong_AsSize_t(got);
    Py_DECREF(got);
    if (*n == (size_t)-1 && PyErr_Occurred()) {
        return TLS_FAILED;
    }
    if (*n == 0) {
        return TLS_EOF;
    }
    *more = portable_has_more(engine, *n, capacity);
    return TLS_OK;
}

/* One record as bytes. TLS_OK: *data is a new reference, not empty. */
static enum tls_status
read_record(struct tls_engine *engine, PyObject **data, bool *more)
{
    *data = tls_call(engine->inner, engine->state->names.read, tls_state(engine->state)->tls.record_bytes, NULL);
    if (*data == NULL) {
        return portable_failed(engine);
    }
    Py_ssize_t length = PyBytes_Check(*data) ? PyBytes_GET_SIZE(*data) : 0;
    if (length == 0) {
        Py_CLEAR(*data);
        return TLS_EOF;
    }
    *more = portable_has_more(engine, (size_t)length, TLS_RECORD_BYTES);
    return TLS_OK;
}

/* The records of one feed() in one object. */
static enum tls_status
portable_read_bytes(struct tls_engine *engine, PyObject **data, bool *more)
{
    *more = false;
    if (UNLIKELY(tls_is_foreign(engine))) {
        return tls_object_read_bytes(engine, data, more);
    }
    enum tls_status status = read_record(engine, data, more);
    if (status != TLS_OK || !*more) {
        return status;
    }
    PyObject *list = list_of_one_steal(*data);
    if (list == NULL) {
        *data = NULL;
        return TLS_FAILED;
    }
    while (*more) {
        *more = false;
        status = read_record(engine, data, more);
        if (status != TLS_OK) {
            break;
        }
        int appended = PyList_Append(list, *data);
        Py_DECREF(*data);
        if (appended < 0) {
            Py_DECREF(list);
            *data = NULL;
            return TLS_FAILED;
        }
    }
    tls_put_off(engine, status, more);
    *data = PyObject_CallMethodOneArg(tls_state(engine->state)->tls.empty_bytes, engine->state->names.join, list);
    Py_DECREF(list);
    return *data == NULL ? TLS_FAILED : TLS_OK;
}

static enum tls_status
portable_write(struct tls_engine *engine, PyObject *bytes, const char *data, size_t length,
               size_t *n)
{
    *n = 0;
    if (UNLIKELY(tls_is_foreign(engine))) {
        return tls_object_write(engine, bytes, data, length, n);
    }
    if (length > TLS_RECORD_BYTES) {
        length = TLS_RECORD_BYTES;    /* it would encrypt all at once, and hold all the output */
        bytes = NULL;
    }
    /* whose __buffer__() is in Python may give other memory the next time */
    PyObject *source = bytes != NULL && PyBytes_CheckExact(bytes)
                           ? Py_NewRef(bytes)
                           : PyMemoryView_FromMemory((char *)data, (Py_ssize_t)length, PyBUF_READ);
    PyObject *count = source == NULL
                          ? NULL
                          : tls_call(engine->inner, engine->state->names.write, source, NULL);
    Py_XDECREF(source);
    if (count == NULL) {
        return portable_failed(engine);
    }
    engine->portable.wrote = true;
    *n = PyLong_AsSize_t(count);
    Py_DECREF(count);
    return *n == (size_t)-1 && PyErr_Occurred() ? TLS_FAILED : TLS_OK;
}

static int
portable_settle(struct tls_engine *engine UNUSED)
{
    return 0;
}

static size_t
portable_pending(const struct tls_engine *engine)
{
    size_t size;
    if (engine->portable.outgoing == NULL) {
        return 0;
    }
    if (size_attribute(engine->portable.outgoing, engine->state->names.pending, &size) < 0) {
        PyErr_Clear();
        return 0;
    }
    return size;
}

static void
portable_lend(struct tls_engine *engine UNUSED, char *memory UNUSED, size_t capacity UNUSED)
{
}

static bool
portable_is_full(const struct tls_engine *engine)
{
    return portable_pending(engine) >= TLS_OUT_BYTES;
}

static int
portable_take(struct tls_engine *engine, struct tls_output *output)
{
    *output = (struct tls_output){0};
    if (engine->portable.outgoing == NULL) {
        return 0;
    }
    size_t pending = 1;    /* where something was encrypted, it is not asked for (guarded path: tls-portable) */
    if (!engine->portable.wrote
        && size_attribute(engine->portable.outgoing, engine->state->names.pending, &pending) < 0) {
        return -1;
    }
    engine->portable.wrote = false;
    if (pending == 0) {
        return 0;
    }
    output->bytes = tls_call(engine->portable.outgoing, engine->state->names.read, NULL, NULL);
    if (output->bytes == NULL) {
        return -1;
    }
    output->data = PyBytes_AS_STRING(output->bytes);
    output->n = (size_t)PyBytes_GET_SIZE(output->bytes);
    return 0;
}

const struct tls_engine_ops tls_portable_ops = {
    .name = "portable",
    .open = portable_open,
    .close = portable_close,
    .feed = portable_feed,
    .keep = portable_keep,
    .waiting = portable_waiting,
    .handshake = tls_object_handshake,
    .read = portable_read,
    .read_bytes = portable_read_bytes,
    .write = portable_write,
    .shutdown = tls_object_shutdown,
    .settle = portable_settle,
    .pending = portable_pending,
    .lend = portable_lend,
    .is_full = portable_is_full,
    .take = portable_take,
};
