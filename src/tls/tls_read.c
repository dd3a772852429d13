/* tls_read.c - from the peer's bytes to the user's protocol.
 *
 * tls_received() lends the engine what the transport below has read, for the time of the call;
 * tls_do_read() takes plaintext out of the engine for as long as there is any, the protocol wants it
 * and the connection stands. What is left when the protocol pauses stays in the engine; the transport
 * below goes on until that is too much, as with asyncio, so that the end of the wire is noticed.
 *
 * Danger: each call of the protocol may pause, close or abort this transport, or replace the
 * protocol: the state is looked at again after each. */
#include "tls/tls.h"

#include "base/args.h"
#include "base/tuning.h"
#include "loop/schedule.h"
#include "loop/scratch.h"
#include "tls/tls_object.h"

/* -- the end --------------------------------------------------------------------- */

int
tls_call_eof_received(Tls *tls)
{
    if (tls->app != TLS_APP_MADE) {
        return 0;
    }
    tls->app = TLS_APP_EOF;
    PyObject *answer = proto_call(&tls->head.proto, tls->head.state->names.eof_received, NULL);
    int keep_open = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    if (keep_open < 0) {
        return tls_fatal(tls, "Error calling eof_received()");
    }
    if (keep_open
        && channel_log_warning(&tls->head, "returning true from eof_received() has no effect when using ssl") < 0) {
        return tls_fatal(tls, "Error calling eof_received()");
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

/* What came behind plaintext that is to be delivered. A failure comes instead of it, as with asyncio:
 * TLS_FAILED with its exception. The end comes after it, see tls_end_of(). */
static inline enum tls_status
tls_stopped_by(struct tls_engine *engine)
{
    if (LIKELY(engine->deferred != TLS_FAILED)) {
        return TLS_OK;
    }
    engine->deferred = TLS_OK;
    PyErr_SetRaisedException(engine->failure);
    engine->failure = NULL;
    return TLS_FAILED;
}

/* The protocol has got the plaintext, or has raised: TLS_OK, TLS_EOF or TLS_FAILED. */
static inline enum tls_status
tls_end_of(struct tls_engine *engine, int delivered)
{
    enum tls_status status = engine->deferred;
    engine->deferred = TLS_OK;
    return UNLIKELY(delivered < 0) ? TLS_FAILED : status;
}

/* -- plaintext ------------------------------------------------------------------- */

/* Does the protocol get what is there? */
static inline bool
tls_may_read(const Tls *tls)
{
    return LIKELY(tls->tls_state == TLS_WRAPPED || tls->tls_state == TLS_FLUSHING) && !FLAG(tls->head.paused)
           && !tls->read_waits;
}

static void tls_schedule_read(Tls *tls);

/* What get_buffer() gave, and how much of it is wanted: its len(), which for some views is less than its
 * bytes. 0, or -1 with an exception. */
static int
get_view(Tls *tls, PyObject **buffer, Py_buffer *view, size_t *room)
{
    size_t waiting = tls->engine.ops->waiting(&tls->engine);
    if (proto_get_buffer(&tls->head.proto, tls->head.state, (Py_ssize_t)waiting, buffer) < 0) {
        return -1;
    }
    Py_ssize_t length = PyObject_Size(*buffer);
    if (length >= 0 && PyObject_GetBuffer(*buffer, view, PyBUF_WRITABLE) < 0) {
        args_not_writable("read() argument 2", *buffer);
        length = -1;
    }
    if (length < 0) {
        Py_CLEAR(*buffer);
        return -1;
    }
    *room = (size_t)(length < view->len && length > 0 ? length : view->len);
    return 0;
}

/* By read(size, buffer) of an SSLObject whose methods are a user's, with the user's own buffer, and
 * then with what is left of it. */
static enum tls_status
read_into_by_object(struct tls_engine *engine, PyObject *buffer, size_t room, size_t *total)
{
    enum tls_status status = TLS_OK;
    *total = 0;
    while (status == TLS_OK && *total < room) {
        PyObject *rest = Py_NewRef(buffer);
        if (*total > 0) {
            PyObject *view = PyMemoryView_FromObject(buffer);
            Py_SETREF(rest, view == NULL ? NULL
                                         : PySequence_GetSlice(view, (Py_ssize_t)*total,
                                                               (Py_ssize_t)room));
            Py_XDECREF(view);
        }
        size_t n = 0;
        status = rest == NULL ? TLS_FAILED : tls_object_read_into(engine, rest, room - *total, &n);
        *total += status == TLS_OK ? n : 0;
        Py_XDECREF(rest);
    }
    return status;
}

/* buffer_updated() of whoever is the protocol now; if that one has no buffers, of `before`, as with
 * asyncio. */
static int
tell_updated(Tls *tls, PyObject *before, size_t n)
{
    if (LIKELY(tls->head.proto.kind == PROTO_BUFFERED)) {
        return proto_buffer_updated(&tls->head.proto, tls->head.state, n);
    }
    PyObject *count = PyLong_FromSize_t(n);
    PyObject *value = count == NULL ? NULL : proto_call_bound(&tls->head.proto, before, count);
    Py_XDECREF(count);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

/* Plaintext into a BufferedProtocol's own memory, also where get_buffer() has closed, paused or
 * replaced. An empty buffer is the end, as for asyncio. TLS_FAILED with an exception of the engine's or the
 * protocol's. */
static enum tls_status
tls_read_buffered(Tls *tls, bool *more)
{
    struct tls_engine *engine = &tls->engine;
    PyObject *buffer;
    Py_buffer view;
    PyObject *updated = Py_NewRef(tls->head.proto.updated);
    enum tls_status status = TLS_FAILED;
    *more = true;
    size_t total = 0, room;
    if (get_view(tls, &buffer, &view, &room) < 0) {
        goto done;
    }
    if (UNLIKELY(room == 0)) {
        PyBuffer_Release(&view);
        status = TLS_EOF;
    }
    else if (UNLIKELY(tls_is_foreign(engine))) {
        PyBuffer_Release(&view);
        status = read_into_by_object(engine, buffer, room, &total);
        *more = status == TLS_OK;
    }
    else {
        do {
            size_t n = 0;
            status = engine->ops->read(engine, (char *)view.buf + total, room - total, &n, more);
            total += status == TLS_OK ? n : 0;
        } while (status == TLS_OK && *more && total < room && !tls_is_foreign(engine));
        PyBuffer_Release(&view);
    }
    Py_DECREF(buffer);
    if (total > 0 && status != TLS_FAILED) {
        tls_put_off(engine, status, more);
        if (total == room && !tls->eof) {
            /* the rest, if any, in the next iteration; at the end of the wire, now */
            *more = false;
            tls_schedule_read(tls);
        }
        status = tls_end_of(engine, tell_updated(tls, updated, total));
    }
done:
    Py_DECREF(updated);
    return status;
}

#define PLAIN_BYTES TUNED(PLAIN_BYTES, SCRATCH_BYTES)    /* that are decrypted at once: asyncio's max_size */

/* Plaintext into a StreamReader, or another TLS transport, without an object for it. */
static enum tls_status
tls_read_native(Tls *tls, bool *more)
{
    struct tls_engine *engine = &tls->engine;
    char *plain = scratch_take(&tls->head.loop->scratch);
    if (plain == NULL) {
        return TLS_FAILED;
    }
    size_t total = 0;
    enum tls_status status;
    do {
        size_t n = 0;
        status = engine->ops->read(engine, plain + total, PLAIN_BYTES - total, &n, more);
        total += status == TLS_OK ? n : 0;
    } while (status == TLS_OK && *more && total + TLS_RECORD_BYTES <= PLAIN_BYTES
             && !tls_is_foreign(engine));
    if (total > 0 && status != TLS_FAILED) {
        tls_put_off(engine, status, more);
        status = tls_end_of(engine, stream_feed(&tls->head.proto, tls->head.state, plain, total));
    }
    scratch_give(&tls->head.loop->scratch, plain);
    return status;
}

/* Bytes, or whatever a user's read() gave, into a StreamReader or another TLS transport. */
static int
feed_object(Tls *tls, PyObject *data)
{
    PyObject *bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL) {
        return -1;
    }
    int result;
    if (UNLIKELY(tls->head.proto.kind == PROTO_BUFFERED)) {    /* read() has replaced the protocol */
        PyObject *value = proto_call(&tls->head.proto, tls->head.state->names.data_received, bytes);
        result = value == NULL ? -1 : 0;
        Py_XDECREF(value);
    }
    else {
        result = stream_feed(&tls->head.proto, tls->head.state, PyBytes_AS_STRING(bytes),
                             (size_t)PyBytes_GET_SIZE(bytes));
    }
    Py_DECREF(bytes);
    return result;
}

static enum tls_status
tls_read_some(Tls *tls, bool *more)
{
    struct tls_engine *engine = &tls->engine;
    if (tls->head.proto.kind == PROTO_BUFFERED) {
        return tls_read_buffered(tls, more);
    }
    if (tls->head.proto.kind != PROTO_DATA && LIKELY(!tls_is_foreign(engine))) {
        return tls_read_native(tls, more);
    }
    PyObject *data;
    enum tls_status status = engine->ops->read_bytes(engine, &data, more);
    if (LIKELY(status == TLS_OK) && UNLIKELY((status = tls_stopped_by(engine)) != TLS_OK)) {
        Py_DECREF(data);
    }
    if (LIKELY(status == TLS_OK)) {
        int result = LIKELY(tls->head.proto.kind == PROTO_DATA)
                         ? proto_data_received_bytes(&tls->head.proto, tls->head.state, data)
                         : feed_object(tls, data);
        Py_DECREF(data);
        status = tls_end_of(engine, result);
    }
    return status;
}

/* All the plaintext that there is. */
static int
tls_read_all(Tls *tls)
{
    bool more = true;
    while (more && tls_may_read(tls)) {
        more = false;
        enum tls_status status = tls_read_some(tls, &more);
        if (LIKELY(status == TLS_OK)) {
            continue;
        }
        if (status == TLS_FAILED) {
            tls_send_alert(tls);
            return -1;
        }
        return status == TLS_EOF ? tls_finish_eof(tls) : 0;
    }
    return 0;
}

/* Pauses or resumes the transport below by what waits to be decrypted. */
int
tls_control_reading(Tls *tls)
{
    return UNLIKELY(tls->lower == NULL) ? 0 : tls_control_reading_strictly(tls);
}

/* asyncio's _control_ssl_reading(), which does not look whether anything is below. */
int
tls_control_reading_strictly(Tls *tls)
{
    size_t size = tls_waiting(tls);
    if (UNLIKELY(size >= tls->read_limits.high && !tls->lower_paused)) {
        tls->lower_paused = true;
        return tls_call_lower(tls, tls->head.state->names.pause_reading, NULL);
    }
    if (UNLIKELY(tls->lower_paused) && size <= tls->read_limits.low) {
        tls->lower_paused = false;
        return tls_call_lower(tls, tls->head.state->names.resume_reading, NULL);
    }
    return 0;
}

int
tls_do_read(Tls *tls)
{
    if (UNLIKELY(tls->tls_state != TLS_WRAPPED && tls->tls_state != TLS_FLUSHING)) {
        return 0;
    }
    int result = 0;
    if (LIKELY(!FLAG(tls->head.paused) && !tls->read_waits)) {
        result = tls_read_all(tls);
        if (LIKELY(result == 0)) {
            result = LIKELY(wqueue_is_empty(&tls->output)) ? tls_process_outgoing(tls)
                                                           : tls_do_write(tls);
        }
    }
    if (LIKELY(result == 0)) {
        result = tls_control_reading_strictly(tls);
    }
    return LIKELY(result == 0) ? 0 : tls_failed(tls, TLS_FATAL_MESSAGE);
}

/* -- the peer's bytes --------------------------------------------------------------- */

/* What is there may let the connection go on. */
static inline int
tls_advance(Tls *tls)
{
    switch (tls->tls_state) {
    case TLS_WRAPPED:
        return tls_do_read(tls);
    case TLS_HANDSHAKE:
        return tls_step_handshake(tls);
    case TLS_FLUSHING:
        return tls_do_flush(tls);
    case TLS_SHUTDOWN:
        return tls_do_shutdown(tls);
    default:
        return 0;
    }
}

/* Before the handshake begins the peer's bytes are kept, after the end they are only counted. */
static int
tls_received_early(Tls *tls, const char *data, size_t n)
{
    const struct tls_engine_ops *ops = tls->engine.ops;
    if (tls->lost) {
        tls->never_read += n;
    }
    if (FLAG(tls->head.closing) || tls->lower != NULL || n == 0) {
        return 0;
    }
    return ops->feed(&tls->engine, data, n) < 0 || ops->keep(&tls->engine) < 0
               ? tls_fatal(tls, TLS_FATAL_MESSAGE)
               : 0;
}

int
tls_received(Tls *tls, const char *data, size_t n)
{
    struct tls_engine *engine = &tls->engine;
    if (UNLIKELY(tls->tls_state == TLS_UNWRAPPED || n == 0)) {
        return tls_received_early(tls, data, n);
    }
    tls_enter(tls);
    int result = engine->ops->feed(engine, data, n) < 0 ? tls_failed(tls, TLS_FATAL_MESSAGE)
                                                        : tls_advance(tls);
    if (LIKELY(result == 0)) {
        result = LIKELY(engine->ops->keep(engine) == 0) ? 0 : tls_failed(tls, TLS_FATAL_MESSAGE);
    }
    else {
        PyObject *exc = PyErr_GetRaisedException();
        (void)engine->ops->keep(engine);
        PyErr_SetRaisedException(exc);
    }
    tls_leave(tls);
    return result;
}

int
tls_feed(PyObject *op, const char *data, size_t n)
{
    return tls_received(tls_cast(op), data, n);
}

/* -- later -------------------------------------------------------------------------- */

/* Native callback: resume_reading() */
static int
tls_run_resumed(PyObject *owner, PyObject *arg UNUSED)
{
    Tls *tls = tls_cast(owner);
    if (tls->tls_state == TLS_HANDSHAKE) {
        return 0;
    }
    tls_enter(tls);
    int result = tls_advance(tls);
    tls_leave(tls);
    return result;
}

/* Native callback: what did not fit into the protocol's buffer */
static int
tls_run_read(PyObject *owner, PyObject *arg UNUSED)
{
    Tls *tls = tls_cast(owner);
    tls_enter(tls);
    int result = tls_do_read(tls);
    tls_leave(tls);
    return result;
}

/* Native callback: start_tls() has returned, most probably */
static int
tls_run_begun(PyObject *owner, PyObject *arg UNUSED)
{
    tls_cast(owner)->read_waits = false;
    return tls_run_resumed(owner, arg);
}

static int
tls_advance_later(Tls *tls, const struct owed_kind *kind)
{
    /* A call that waits for memory already becomes this one: either reads what there is. */
    return loop_call_soon_surely(tls->head.loop, &tls->owed_reading, kind, NULL);
}

static void
tls_schedule_read(Tls *tls)
{
    static const struct owed_kind read = {tls_run_read, offsetof(Tls, owed_reading)};
    if (tls_advance_later(tls, &read) < 0) {
        PyErr_Clear();    /* the loop was closed: nobody is left to be told */
    }
}

void
tls_read_later(Tls *tls)
{
    static const struct owed_kind begun = {tls_run_begun, offsetof(Tls, owed_reading)};
    tls->read_waits = tls_advance_later(tls, &begun) == 0;
    if (!tls->read_waits) {
        PyErr_Clear();
    }
}

int
tls_resume(Tls *tls)
{
    static const struct owed_kind resumed = {tls_run_resumed, offsetof(Tls, owed_reading)};
    if (!FLAG(tls->head.paused)) {
        return 0;
    }
    SET_FLAG(tls->head.paused, false);
    return tls_advance_later(tls, tls->owed_reading.kind != NULL ? tls->owed_reading.kind : &resumed);
}

/* -- after close() -------------------------------------------------------------- */

enum tls_status
tls_discard(Tls *tls)
{
    struct tls_engine *engine = &tls->engine;
    char *memory = scratch_take(&tls->head.loop->scratch);
    if (memory == NULL) {
        return TLS_FAILED;
    }
    bool more = true;
    enum tls_status status = TLS_OK;
    while (status == TLS_OK && more && tls->late <= TLS_LATE_BYTES && !tls_is_foreign(engine)) {
        size_t n = 0;
        status = engine->ops->read(engine, memory, PLAIN_BYTES, &n, &more);
        tls->late += status == TLS_OK ? (uint32_t)n : 0;
    }
    scratch_give(&tls->head.loop->scratch, memory);
    return status != TLS_OK || tls->late > TLS_LATE_BYTES ? status : TLS_WANT;
}
