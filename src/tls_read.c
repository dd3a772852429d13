/* tls_read.c - from the peer's bytes to the user's protocol.
 *
 * tls_received() lends the engine what the transport below has read, for the time of the call;
 * tls_read() takes plaintext out of the engine for as long as there is any, the protocol wants it
 * and the connection stands. What is left when the protocol pauses stays in the engine (`unread`).
 *
 * Danger: each call of the protocol may pause, close or abort this transport, or replace the
 * protocol: the state is looked at again after each. */
#include "tls.h"

#include "scratch.h"

/* -- the end --------------------------------------------------------------------- */

int
tls_call_eof_received(Tls *tls)
{
    if (tls->app != TLS_APP_MADE) {
        return 0;
    }
    tls->app = TLS_APP_EOF;
    PyObject *answer = proto_call(&tls->proto, tls->state->names.eof_received, NULL);
    int keep_open = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    if (keep_open < 0) {
        return tls_fatal(tls, "Error calling eof_received()");
    }
    if (keep_open) {
        PyObject *result = PyObject_CallMethod(
            tls->state->asyncio_logger, "warning", "s",
            "returning true from eof_received() has no effect when using ssl");
        if (result == NULL) {
            PyErr_WriteUnraisable((PyObject *)tls);
        }
        Py_XDECREF(result);
    }
    return 0;
}

/* The peer has ended, with a close_notify or with the wire, and everything is read. */
static int
tls_finish_eof(Tls *tls)
{
    int result = tls_call_eof_received(tls);
    return result < 0 ? -1 : tls_start_shutdown(tls);    /* what was written still goes out */
}

/* The end, or a failure, that came behind bytes which the protocol gets first. */
static inline void
tls_defer_end(struct tls_engine *engine, enum tls_status status, bool *more)
{
    if (UNLIKELY(status == TLS_EOF || status == TLS_FAILED)) {
        engine->deferred = status;
        engine->failure = status == TLS_FAILED ? PyErr_GetRaisedException() : NULL;
        *more = true;
    }
}

/* Takes up what was put off: TLS_EOF, or TLS_FAILED with its exception set. */
static enum tls_status
tls_take_end(struct tls_engine *engine)
{
    enum tls_status status = engine->deferred;
    engine->deferred = TLS_OK;
    PyErr_SetRaisedException(engine->failure);
    engine->failure = NULL;
    return status;
}

/* -- plaintext ------------------------------------------------------------------- */

/* What get_buffer() gave. 0, or -1 with an exception. */
static int
get_view(Tls *tls, PyObject **buffer, Py_buffer *view)
{
    if (proto_get_buffer(&tls->proto, tls->state, buffer) < 0) {
        return -1;
    }
    if (PyObject_GetBuffer(*buffer, view, PyBUF_WRITABLE) < 0) {
        Py_CLEAR(*buffer);
        return -1;
    }
    if (view->len == 0) {
        PyBuffer_Release(view);
        Py_CLEAR(*buffer);
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        return -1;
    }
    return 0;
}

/* Plaintext into a BufferedProtocol's own memory. TLS_FAILED with an exception of the
 * engine's or the protocol's. */
static enum tls_status
tls_read_buffered(Tls *tls, bool *more)
{
    struct tls_engine *engine = &tls->engine;
    PyObject *buffer;
    Py_buffer view;
    PyObject *protocol = Py_XNewRef(tls->proto.protocol);
    enum tls_status status = TLS_FAILED;
    *more = true;
    if (get_view(tls, &buffer, &view) < 0) {
        goto done;
    }
    if (tls->tls_state != TLS_WRAPPED || tls->paused || tls->proto.protocol != protocol) {
        PyBuffer_Release(&view);    /* get_buffer() itself closed, paused or replaced */
        Py_DECREF(buffer);
        status = TLS_OK;
        goto done;
    }
    size_t total = 0, room = (size_t)view.len;
    do {
        size_t n = 0;
        status = engine->ops->read(engine, (char *)view.buf + total, room - total, &n, more);
        total += status == TLS_OK ? n : 0;
    } while (status == TLS_OK && *more && total < room);
    PyBuffer_Release(&view);
    Py_DECREF(buffer);
    if (total > 0) {
        tls_defer_end(engine, status, more);
        status = proto_buffer_updated(&tls->proto, tls->state, total) < 0 ? TLS_FAILED : TLS_OK;
    }
done:
    Py_XDECREF(protocol);
    return status;
}

/* Plaintext into a StreamReader, or another TLS transport, without an object for it. */
static enum tls_status
tls_read_native(Tls *tls, bool *more)
{
    struct tls_engine *engine = &tls->engine;
    char *plain = scratch_take(tls->loop);
    if (plain == NULL) {
        return TLS_FAILED;
    }
    size_t total = 0;
    enum tls_status status;
    do {
        size_t n = 0;
        status = engine->ops->read(engine, plain + total, SCRATCH_BYTES - total, &n, more);
        total += status == TLS_OK ? n : 0;
    } while (status == TLS_OK && *more && total + TLS_RECORD_BYTES <= SCRATCH_BYTES);
    if (total > 0) {
        tls_defer_end(engine, status, more);
        status = stream_feed(&tls->proto, tls->state, plain, total) < 0 ? TLS_FAILED : TLS_OK;
    }
    scratch_give(tls->loop, plain);
    return status;
}

static enum tls_status
tls_read_some(Tls *tls, bool *more)
{
    struct tls_engine *engine = &tls->engine;
    if (UNLIKELY(engine->deferred != TLS_OK)) {
        return tls_take_end(engine);
    }
    if (tls->proto.kind == PROTO_BUFFERED) {
        return tls_read_buffered(tls, more);
    }
    if (tls->proto.kind != PROTO_DATA) {
        return tls_read_native(tls, more);
    }
    PyObject *data;
    enum tls_status status = engine->ops->read_bytes(engine, &data, more);
    if (LIKELY(status == TLS_OK)) {
        status = proto_data_received_bytes(&tls->proto, tls->state, data) < 0 ? TLS_FAILED : TLS_OK;
        Py_DECREF(data);
    }
    return status;
}

int
tls_read(Tls *tls)
{
    bool more = true;
    while (more) {
        if (tls->tls_state != TLS_WRAPPED) {
            return 0;
        }
        if (tls->paused || tls->read_waits) {
            tls->unread = true;
            return 0;
        }
        tls->unread = false;
        more = false;
        enum tls_status status = tls_read_some(tls, &more);
        if (LIKELY(status == TLS_OK)) {
            continue;
        }
        if (status == TLS_FAILED) {
            return tls_engine_failed(tls, TLS_FATAL_MESSAGE);
        }
        if (status == TLS_EOF) {
            return tls_finish_eof(tls);
        }
        break;
    }
    return tls->eof && tls->tls_state == TLS_WRAPPED && !tls->paused ? tls_finish_eof(tls) : 0;
}

/* -- the peer's bytes --------------------------------------------------------------- */

/* More of the peer's bytes are there. */
static int
tls_advance(Tls *tls)
{
    switch (tls->tls_state) {
    case TLS_WRAPPED:
        return tls_read(tls);
    case TLS_HANDSHAKE:
        return tls_step_handshake(tls);
    case TLS_SHUTDOWN:
        return tls_advance_shutdown(tls);
    default:
        return 0;
    }
}

/* Before the handshake begins the peer's bytes are kept, after the end they are dropped. */
static int
tls_received_early(Tls *tls, const char *data, size_t n)
{
    const struct tls_engine_ops *ops = tls->engine.ops;
    if (tls->closed || tls->lower != NULL || n == 0) {
        return 0;
    }
    return ops->feed(&tls->engine, data, n) < 0 || ops->keep(&tls->engine) < 0
               ? tls_fatal(tls, TLS_FATAL_MESSAGE)
               : 0;
}

int
tls_received(Tls *tls, const char *data, size_t n)
{
    if (UNLIKELY(tls->tls_state == TLS_UNWRAPPED || n == 0)) {
        return tls_received_early(tls, data, n);
    }
    struct tls_engine *engine = &tls->engine;
    Py_INCREF(tls);
    bool outer = tls->feeding;
    tls->feeding = true;
    int result = engine->ops->feed(engine, data, n) < 0 ? tls_fatal(tls, TLS_FATAL_MESSAGE)
                                                        : tls_advance(tls);
    if (UNLIKELY(engine->ops->keep(engine) < 0)) {
        result = tls_fatal(tls, TLS_FATAL_MESSAGE);
    }
    tls->feeding = outer;
    if (LIKELY(result == 0)) {
        result = wqueue_is_empty(&tls->output) ? tls_send_output(tls) : tls_flush(tls);
    }
    Py_DECREF(tls);
    return result;
}

int
tls_feed(PyObject *op, const char *data, size_t n)
{
    return tls_received(tls_cast(op), data, n);
}

int
tls_read_rest(Tls *tls)
{
    bool outer = tls->feeding;
    tls->feeding = true;
    int result = tls_read(tls);
    tls->feeding = outer;
    if (result == 0 && !wqueue_is_empty(&tls->output)) {
        result = tls_flush(tls);
    }
    return result;
}

/* -- later -------------------------------------------------------------------------- */

/* Native callback */
static int
tls_run_resumed(PyObject *owner, PyObject *arg UNUSED)
{
    return tls_read_rest(tls_cast(owner));
}

/* Native callback: start_tls() has returned, most probably */
static int
tls_run_begun(PyObject *owner, PyObject *arg UNUSED)
{
    Tls *tls = tls_cast(owner);
    tls->read_waits = false;
    return tls_read_rest(tls);
}

void
tls_read_later(Tls *tls)
{
    static const struct owed_kind begun = {tls_run_begun, offsetof(Tls, owed_reading)};
    tls->read_waits = loop_call_soon_surely(tls->loop, &tls->owed_reading, &begun, NULL) == 0;
    if (!tls->read_waits) {
        PyErr_Clear();
    }
}

int
tls_resume(Tls *tls)
{
    if (!tls->paused) {
        return 0;
    }
    tls->paused = false;
    tls_update_lower(tls);
    if (tls->tls_state != TLS_WRAPPED || !(tls->unread || tls->eof)) {
        return 0;
    }
    if (tls->owed_reading.kind != NULL) {
        return 0;    /* that comes without memory, and begins to read, too */
    }
    static const struct owed_kind resumed = {tls_run_resumed, offsetof(Tls, owed_reading)};
    return loop_call_soon_surely(tls->loop, &tls->owed_reading, &resumed, NULL);
}

/* -- after close() -------------------------------------------------------------- */

enum tls_status
tls_discard(Tls *tls)
{
    struct tls_engine *engine = &tls->engine;
    if (UNLIKELY(engine->deferred != TLS_OK)) {
        return tls_take_end(engine);
    }
    char *memory = scratch_take(tls->loop);
    if (memory == NULL) {
        return TLS_FAILED;
    }
    bool more = true;
    enum tls_status status = TLS_OK;
    while (status == TLS_OK && more && tls->late <= TLS_LATE_BYTES) {
        size_t n = 0;
        status = engine->ops->read(engine, memory, SCRATCH_BYTES, &n, &more);
        tls->late += status == TLS_OK ? (uint32_t)n : 0;
    }
    scratch_give(tls->loop, memory);
    return status != TLS_OK || tls->late > TLS_LATE_BYTES ? status : TLS_WANT;
}
