/* tls_handshake.c - from the transport below to connection_made().
 *
 * Danger: as in tls.c. */
#include "tls/tls.h"

#include "loop/overrides.h"
#include "loop/schedule.h"

/* -- how it ends ------------------------------------------------------------------------ */

/* Native callback */
static int
tls_handshake_timed_out(PyObject *owner, PyObject *arg UNUSED)
{
    Tls *tls = tls_cast(owner);
    if (tls->tls_state != TLS_HANDSHAKE) {
        return 0;
    }
    PyErr_Format(PyExc_ConnectionAbortedError,
                 "SSL handshake is taking longer than %S seconds: aborting the connection",
                 tls->handshake_timeout);
    return tls_fatal(tls, "Fatal error on transport");
}

int
tls_handshake_failed(Tls *tls)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return is_exit_exception() ? -1 : tls_fatal(tls, "SSL handshake failed");
    }
    tls_cancel_timer(tls);
    tls_send_alert(tls);
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int certificate = PyObject_IsInstance(exc, tls_state(tls->head.state)->tls.CertificateError);
    if (certificate < 0) {
        PyErr_Clear();
    }
    tls->tls_state = TLS_UNWRAPPED;
    SET_FLAG(tls->head.closing, true);
    PyErr_SetRaisedException(Py_NewRef(exc));
    int result = tls_fatal(tls, certificate > 0
                                    ? "SSL handshake failed on verifying the certificate"
                                    : "SSL handshake failed");
    if (result == 0) {    /* else the transport below has raised: connection_lost() wakes it, as with asyncio */
        tls_wake_waiter(tls, exc);
    }
    Py_DECREF(exc);
    return result;
}

/* Most connections of a process agree on the same cipher: they share one tuple, which saves 220 bytes for each
 * (benchmark row "idle TLS connection"). */
static PyObject *
shared_cipher_steal(Tls *tls UNUSED, PyObject *value)
{
#ifndef Py_GIL_DISABLED
    PyObject **last = &tls_state(tls->head.state)->tls.cipher;
    if (!PyTuple_CheckExact(value) || PyTuple_GET_SIZE(value) != 3 || !PyUnicode_CheckExact(PyTuple_GET_ITEM(value, 0))
        || !PyUnicode_CheckExact(PyTuple_GET_ITEM(value, 1)) || !PyLong_CheckExact(PyTuple_GET_ITEM(value, 2))) {
        return value;    /* None, or what a program has put in place of that method */
    }
    if (*last != NULL && PyObject_RichCompareBool(*last, value, Py_EQ) > 0) {
        Py_INCREF(*last);
        Py_DECREF(value);
        return *last;
    }
    Py_XSETREF(*last, Py_NewRef(value));
#endif
    return value;
}

static int
extra_from_method(Tls *tls, PyObject *key, PyObject *method)
{
    PyObject *value = PyObject_CallMethodNoArgs(tls->engine.object, method);
    if (value != NULL && key == tls->head.state->names.cipher) {
        value = shared_cipher_steal(tls, value);
    }
    int result = value == NULL ? -1 : PyDict_SetItem(tls->head.extra, key, value);
    Py_XDECREF(value);
    return result;
}

static int
tls_log_handshake(Tls *tls)
{
    PyObject *ms = PyFloat_FromDouble((loop_time(tls->head.loop) - tls->handshake_started) * 1e3);
    if (ms == NULL) {
        PyErr_Clear();
        return 0;
    }
    int result = channel_log(&tls->head, "debug", "%r: SSL handshake took %.1f ms", ms);
    Py_DECREF(ms);
    return result;
}

/* -1 with asyncio's RuntimeError */
static int
switch_failed(Tls *tls, const char *wanted)
{
    static const char *const names[] = {"UNWRAPPED", "DO_HANDSHAKE", "WRAPPED", "FLUSHING",
                                        "SHUTDOWN"};
    PyErr_Format(PyExc_RuntimeError, "cannot switch state from SSLProtocolState.%s to SSLProtocolState.%s",
                 names[tls->tls_state], wanted);
    return -1;
}

static int
tls_handshake_done(Tls *tls)
{
    struct state_names *names = &tls->head.state->names;
    bool started = false;    /* by start_tls() */
    tls_cancel_timer(tls);
    if (tls->tls_state != TLS_HANDSHAKE) {    /* a callback of the ssl module has ended it */
        switch_failed(tls, "WRAPPED");
        return tls_handshake_failed(tls);
    }
    tls->tls_state = TLS_WRAPPED;
    if (extra_from_method(tls, names->peercert, names->getpeercert) < 0
        || extra_from_method(tls, names->cipher, names->cipher) < 0
        || extra_from_method(tls, names->compression, names->compression) < 0
        || PyDict_SetItem(tls->head.extra, names->ssl_object, tls->engine.object) < 0) {
        return tls_handshake_failed(tls);
    }
    int debug = loop_debugs(tls->head.loop);
    if (UNLIKELY(debug != 0) && (debug < 0 || tls_log_handshake(tls) < 0)) {
        return -1;    /* for whoever has brought the peer's bytes */
    }
    if (tls->app == TLS_APP_INIT) {
        tls->app = TLS_APP_MADE;
        PyObject *value = proto_connection_made(&tls->head.proto, tls->head.state, (PyObject *)tls);
        if (value == NULL) {
            return -1;    /* the same */
        }
        Py_DECREF(value);
    }
    else {
        started = true;
    }
    tls_wake_waiter(tls, NULL);
    if (started) {
        /* A StreamReader learns of its new transport when start_tls() has returned. What came
         * before would make it pause the old one, and later resume the new one (3.14). */
        tls_read_later(tls);
    }
    if (FLAG(tls->head.paused) || tls->read_waits) {
        /* asyncio keeps the last message of the handshake until the protocol resumes */
        bool queued = !wqueue_is_empty(&tls->output) && tls->tls_state == TLS_WRAPPED;
        int result = queued ? tls_do_write(tls) : tls_process_outgoing(tls);
        return result < 0 ? tls_failed(tls, TLS_FATAL_MESSAGE) : 0;
    }
    return tls_do_read(tls);
}

/* A step of a handshake takes up to some milliseconds, and a client needs no effort to ask for
 * hundreds at once. When those of one iteration have taken so long, the rest waits for the
 * next ones, so that everybody else is served in between. */
#define HANDSHAKES_NS INT64_C(4000000)

static int tls_run_handshake(PyObject *owner, PyObject *arg);

/* Is there no time for another step in this iteration? */
static bool
tls_handshakes_took_enough(Loop *loop)
{
    if (tls_loop(loop)->handshakes_at_ns != loop->now_ns) {
        tls_loop(loop)->handshakes_at_ns = loop->now_ns;
        tls_loop(loop)->handshakes_took_ns = 0;
    }
    return tls_loop(loop)->handshakes_took_ns >= HANDSHAKES_NS;
}

static int
tls_handshake_later(Tls *tls)
{
    if (tls->handshake_waits) {
        return 0;
    }
    if (loop_call_soon_native(tls->head.loop, tls_run_handshake, (PyObject *)tls, NULL) < 0) {
        return tls_fatal(tls, TLS_FATAL_MESSAGE);
    }
    tls->handshake_waits = true;
    return 0;
}

int
tls_step_handshake(Tls *tls)
{
    Loop *loop = tls->head.loop;
    if (UNLIKELY(tls->handshake_waits || tls_handshakes_took_enough(loop))) {
        return tls_handshake_later(tls) < 0 ? -1 : tls_control_reading(tls);
    }
    int64_t begun = monotonic_ns();
    enum tls_status status = tls->engine.ops->handshake(&tls->engine);
    tls_loop(loop)->handshakes_took_ns += monotonic_ns() - begun;
    switch (status) {
    case TLS_OK:
        return tls_handshake_done(tls);
    case TLS_WANT:
        /* What the transport below raises is for whoever has called, as with asyncio. */
        return tls_process_outgoing(tls) < 0 ? -1 : tls_control_reading(tls);
    default:
        return tls_handshake_failed(tls);
    }
}

int
tls_flush_at_eof(Tls *tls)
{
    tls->tls_state = TLS_FLUSHING;
    return FLAG(tls->head.paused) || tls->read_waits ? 0 : tls_do_flush(tls);
}

/* Native callback: the step that had to wait. */
static int
tls_run_handshake(PyObject *owner, PyObject *arg UNUSED)
{
    Tls *tls = tls_cast(owner);
    tls->handshake_waits = false;
    if (tls->tls_state != TLS_HANDSHAKE) {
        return 0;
    }
    tls_enter(tls);
    int result = tls_step_handshake(tls);
    if (result < 0) {
        result = tls_fatal(tls, "Fatal error: protocol.buffer_updated() call failed.");
    }
    if (result == 0 && tls->tls_state == TLS_HANDSHAKE && !tls->handshake_waits && tls->eof) {
        PyErr_SetNone(PyExc_ConnectionResetError);
        result = tls_handshake_failed(tls);
    }
    else if (result == 0 && tls->tls_state == TLS_WRAPPED && tls->eof) {
        result = tls_flush_at_eof(tls);
    }
    tls_leave(tls);
    return result;
}

int
tls_lower_made(Tls *tls, PyObject *transport)
{
    if (tls->lost) {
        return 0;    /* start_tls() on a transport that was closing */
    }
    if (tls->lower != NULL || transport == (PyObject *)tls) {
        return switch_failed(tls, "DO_HANDSHAKE");
    }
    SHARED_STORE(tls->lower, Py_NewRef(transport));
    if (Py_IS_TYPE(transport, net_state(tls->head.state)->types.Stream)) {
        tls->stream = stream_cast(transport);
        /* start_tls() on a stream that has paused the protocol, which is resumed by us now */
        tls->writing_paused = FLAG(tls->stream->base.head.protocol_paused);
        SET_FLAG(tls->head.protocol_paused, tls->writing_paused && tls->app == TLS_APP_MADE);
    }
    if (FLAG(tls->head.closing)) {
        return tls_abort(tls, NULL);    /* cancelled before it began */
    }
    int debug = loop_debugs(tls->head.loop);
    if (UNLIKELY(debug != 0)) {
        if (debug < 0 || channel_log(&tls->head, "debug", "%r starts SSL handshake", NULL) < 0) {
            return -1;
        }
        tls->handshake_started = loop_time(tls->head.loop);
    }
    tls->tls_state = TLS_HANDSHAKE;
    if (tls_start_timer(tls, tls->handshake_timeout, tls_handshake_timed_out) < 0) {
        return tls_fatal(tls, TLS_FATAL_MESSAGE);
    }
    tls_enter(tls);
    int result = tls_step_handshake(tls);
    tls_leave(tls);
    return result;
}
