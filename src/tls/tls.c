/* tls.c - the states of a TLS connection. See tls.h.
 *
 * Danger: every call into the user's protocol, an exception handler, a logger, or the
 * transport below may close or abort this transport, or run the loop inside itself. Each
 * function holds the transport itself, or its caller does, and looks at its state again. */
#include "tls/tls.h"

#include "base/checked.h"
#include "loop/timer.h"
#include "tasks/future.h"
#include "tls/tls_object.h"

/* Lets go of what get_extra_info() of another thread may be looking at. */
static void
tls_drop(Tls *tls, PyObject **field)
{
    PyObject *old;
    {
        GUARD(tls);
        old = *field;
        *field = NULL;
    }
    Py_XDECREF(old);
}

/* -- timer and waiter ---------------------------------------------------------------- */

void
tls_cancel_timer(Tls *tls)
{
    TimerHandle *timer = tls->timer;
    if (timer != NULL) {
        tls->timer = NULL;
        loop_cancel_public(timer);
    }
}

int
tls_start_timer(Tls *tls, PyObject *delay, native_callback callback)
{
    double seconds = PyFloat_AsDouble(delay);
    if (seconds == -1. && PyErr_Occurred()) {
        return -1;
    }
    tls_cancel_timer(tls);
    tls->timer = loop_call_later_public(tls->head.loop, seconds, callback, (PyObject *)tls);
    return tls->timer == NULL ? -1 : 0;
}

void
tls_wake_waiter(Tls *tls, PyObject *exc)
{
    PyObject *waiter = tls->waiter;
    if (waiter == NULL) {
        return;
    }
    tls->waiter = NULL;
    int result = exc == NULL ? future_settle_result(tls->head.state, waiter, Py_None)
                             : future_settle_exception(tls->head.state, waiter, exc);
    if (result < 0) {
        PyErr_WriteUnraisable(waiter);
    }
    Py_DECREF(waiter);
}

/* -- the transport below ------------------------------------------------------------------ */

static int
call_method(PyObject *op, PyObject *name, PyObject *arg)
{
    PyObject *stack[2] = {op, arg};
    PyObject *result = PyObject_VectorcallMethod(name, stack, 1 + (size_t)(arg != NULL), NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
tls_call_lower(Tls *tls, PyObject *name, PyObject *arg)
{
    PyObject *lower = Py_NewRef(tls->lower == NULL ? Py_None : tls->lower);    /* None has no methods */
    int result = call_method(lower, name, arg);
    Py_DECREF(lower);
    return result;
}

/* Native callback: the shutdown is complete. `close` is a method of what was below then, which may be
 * there no more. */
static int
tls_run_close_lower(PyObject *owner, PyObject *close)
{
    Tls *tls = tls_cast(owner);
    int result = 0;
    tls_enter(tls);
    if (close != NULL) {
        PyObject *value = PyObject_CallNoArgs(close);
        Py_XDECREF(value);
        result = value == NULL ? channel_call_failed(tls->head.loop, close, NULL, NULL) : 0;
    }
    else if (tls->lower != NULL) {    /* there was no memory for the bound method */
        result = tls_call_lower(tls, tls->head.state->names.close, NULL);
    }
    tls_leave(tls);
    return result;
}

/* Is the transport below one of ours? */
static bool
tls_is_over_ours(const Tls *tls)
{
    return tls->stream != NULL
           || (tls->lower != NULL && Py_IS_TYPE(tls->lower, tls_state(tls->head.state)->types.Tls));
}

/* Has it a method _force_close(), as asyncio's own have? */
static bool
has_force_close(Tls *tls)
{
    PyObject *method;
    if (PyObject_GetOptionalAttr(tls->lower, tls->head.state->names._force_close, &method) < 0) {
        PyErr_Clear();
        return false;
    }
    Py_XDECREF(method);
    return method != NULL;
}

/* Ends the transport below at once; exc may be NULL. */
static int
lower_force_close(Tls *tls, PyObject *exc)
{
    struct state_names *names = &tls->head.state->names;
    if (tls->lower == NULL) {
        return 0;
    }
    if (tls->stream != NULL && tls->stream->base.head.dict == NULL) {
        return transport_force_close(&tls->stream->base, exc);
    }
#if PY_VERSION_HEX < 0x030D0000
    bool plain = exc == NULL;    /* asyncio's abort() calls abort() up to 3.12 */
#else
    bool plain = false;
#endif
    if (plain || !has_force_close(tls)) {
        return tls_call_lower(tls, names->abort, NULL);
    }
    return tls_call_lower(tls, names->_force_close, exc == NULL ? Py_None : exc);
}

/* -- the end ---------------------------------------------------------------------------------- */

/* asyncio's SSLProtocol._fatal_error(): the state stays, until the transport below says that the
 * connection is lost. */
int
tls_fatal(Tls *tls, const char *message)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    tls_enter(tls);
    tls->failed = true;
    int result = lower_force_close(tls, exc);
    if (result < 0) {
        /* and nobody hears of the first one, as with asyncio */
    }
    else if (!PyErr_GivenExceptionMatches(exc, tasks_state(tls->head.state)->futures.CancelledError)) {
        PyObject *lower = Py_NewRef(tls->lower == NULL ? Py_None : tls->lower);
        result = channel_tell_fatal(&tls->head, lower, message, exc, PyErr_GivenExceptionMatches(exc, PyExc_OSError));
        Py_DECREF(lower);
    }
    tls_leave(tls);
    Py_DECREF(exc);
    return result;
}

int
tls_failed(Tls *tls, const char *message)
{
    return PyErr_ExceptionMatches(PyExc_Exception) ? tls_fatal(tls, message) : -1;
}

void
tls_send_alert(Tls *tls)
{
    if (tls->writing_paused || !tls_is_over_ours(tls)
        || !PyErr_ExceptionMatches(tls_state(tls->head.state)->tls.SSLError)) {
        return;    /* a transport of somebody else's gets what asyncio gives to it */
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (tls_send(tls) == 0 || PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_SetRaisedException(exc);
    }
    else {
        Py_DECREF(exc);
    }
}

int
tls_abort(Tls *tls, PyObject *exc)
{
    tls_enter(tls);
    SET_FLAG(tls->head.closing, true);
    tls->tls_state = TLS_UNWRAPPED;
    tls_cancel_timer(tls);
    int result = lower_force_close(tls, exc);
    tls_leave(tls);
    return result;
}

void
tls_close_engine(Tls *tls)
{
    PyObject *exc = PyErr_GetRaisedException();
    tls->engine.ops->close(&tls->engine);
    if (FLAG(tls->parted)) {    /* nobody can ask for these any more: asyncio's SSLProtocol is gone as well */
        Py_CLEAR(tls->engine.object);
        Py_CLEAR(tls->engine.inner);
        Py_CLEAR(tls->engine.dict);
        Py_CLEAR(tls->sslcontext);
        tls_drop(tls, &tls->head.extra);
    }
    PyErr_SetRaisedException(exc);
}

/* Nothing of what waits is sent any more. */
static void
tls_drop_output(Tls *tls)
{
    struct tls_output output = {0};
    list_remove(&tls->pending);
    wqueue_clear(&tls->output);
    if (tls->engine.ops->take(&tls->engine, &output) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(output.bytes);
    free(output.memory);
}

void
tls_forked(Loop *loop)
{
    while (!list_empty(&tls_loop(loop)->pending)) {
        tls_drop_output(container_of(tls_loop(loop)->pending.next, Tls, pending));
    }
}

/* Native callback: exc is NULL for a connection that ended in order. */
static int
tls_run_lost(PyObject *owner, PyObject *exc)
{
    Tls *tls = tls_cast(owner);
    int result = 0;
    PyObject *protocol = tls->last_protocol, *method = tls->tell_lost;
    PyObject *arg = exc == NULL ? Py_None : exc;
    if (protocol == NULL) {
        return 0;
    }
    tls->last_protocol = tls->tell_lost = NULL;
    PyObject *value = LIKELY(method != NULL)
                          ? proto_call_bound(&tls->head.proto, method, arg)
                          : proto_call_of(&tls->head.proto, protocol, tls->head.state->names.connection_lost, arg);
    if (value == NULL) {
        result = channel_call_failed(tls->head.loop, method != NULL ? method : protocol, NULL, arg);
    }
    Py_XDECREF(value);
    channel_lost_was_told(&tls->head, protocol, exc);
    PyObject *leaving = PyErr_GetRaisedException();
    Py_DECREF(protocol);
    Py_XDECREF(method);
    PyErr_SetRaisedException(leaving);
    return result;
}

/* The protocol hears of the end in a later iteration, whoever is the protocol then. 0, or -1 with what
 * the look-up of its method has raised. */
static int
tls_tell_lost(Tls *tls, PyObject *exc)
{
    static const struct owed_kind lost = {tls_run_lost, offsetof(Channel, owed_lost)};
    PyObject *protocol = Py_NewRef(tls->head.proto.protocol == NULL ? Py_None : tls->head.proto.protocol);
    PyObject *method = PyObject_GetAttr(protocol, tls->head.state->names.connection_lost);
    if (method == NULL && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        Py_DECREF(protocol);
        return -1;
    }
    PyErr_Clear();    /* no memory: then it is looked up later */
    Py_XSETREF(tls->last_protocol, protocol);
    Py_XSETREF(tls->tell_lost, method);
    if (loop_call_soon_surely(tls->head.loop, &tls->head.owed_lost, &lost, exc) < 0) {
        PyErr_Clear();    /* the loop was closed: nobody is left to be told */
    }
    return 0;
}

/* Somebody calls connection_lost() once more. What the protocol was not told the first time, in the middle
 * of a handshake, is for None now, as with asyncio. */
static int
tls_lost_again(Tls *tls)
{
    SHARED_STORE(tls->head.conn_lost, tls->head.conn_lost + 1);
    tls->never_written += tls->output.bytes;
    tls_drop_output(tls);
    if (tls->app != TLS_APP_MADE && tls->app != TLS_APP_EOF) {
        return 0;
    }
    tls->app = TLS_APP_LOST;
    return tls_tell_lost(tls, NULL);
}

int
tls_lower_lost(Tls *tls, PyObject *exc)
{
    if (tls->lost) {
        return tls_lost_again(tls);
    }
    tls_enter(tls);
    tls->lost = true;
    SET_FLAG(tls->head.closing, true);
    SHARED_STORE(tls->head.conn_lost, tls->head.conn_lost + 1);
    tls->never_read = tls->engine.ops->waiting(&tls->engine);
    tls->never_written += tls->output.bytes;
    tls_drop_output(tls);
    tls_cancel_timer(tls);
    if (tls->late_error != NULL) {
        exc = tls->late_error;
    }
    bool made = tls->app == TLS_APP_MADE || tls->app == TLS_APP_EOF;
    bool tell = made && tls->tls_state != TLS_HANDSHAKE;
    tls->tls_state = TLS_UNWRAPPED;
    if (tell) {
        tls->app = TLS_APP_LOST;
    }
    int result = tell ? tls_tell_lost(tls, exc) : 0;
    PyObject *failure = PyErr_GetRaisedException();
    proto_drop_protocol(&tls->head.proto);
    tls->stream = NULL;
    tls_drop(tls, &tls->lower);
    if (tls->waiter != NULL && exc == NULL && !made) {
        /* asyncio reports success here, of a handshake that has not taken place; in start_tls() it
         * has no transport to give, and says so. */
        PyObject *aborted = PyObject_CallFunction(PyExc_ConnectionAbortedError, "s",
                                                  "SSL handshake was aborted");
        if (aborted == NULL) {
            aborted = PyErr_GetRaisedException();    /* no memory: then that is the reason */
        }
        tls_wake_waiter(tls, aborted);
        Py_DECREF(aborted);
    }
    else {
        tls_wake_waiter(tls, exc);
    }
    PyErr_SetRaisedException(failure);
    tls_leave(tls);
    return result;
}

/* -- the end of the wire -------------------------------------------------------- */

static int tls_enter_shutdown(Tls *tls);

static int
tls_take_eof(Tls *tls, bool *keep_open)
{
    switch (tls->tls_state) {
    case TLS_HANDSHAKE:
        if (tls->handshake_waits) {
            *keep_open = true;    /* its last bytes may be all that is missing */
            return 0;
        }
        PyErr_SetNone(PyExc_ConnectionResetError);
        return tls_handshake_failed(tls);
    case TLS_WRAPPED:
        *keep_open = FLAG(tls->head.paused) || tls->read_waits;    /* it goes on after resume_reading() */
        return tls_flush_at_eof(tls);
    case TLS_FLUSHING:
        if (tls_do_write(tls) < 0) {
            return -1;
        }
        return tls_enter_shutdown(tls);
    case TLS_SHUTDOWN:
        return tls_do_shutdown(tls);
    default:
        return 0;
    }
}

int
tls_lower_eof(Tls *tls, bool *keep_open)
{
    tls->eof = true;
    *keep_open = false;
    tls_enter(tls);
    int result = channel_log(&tls->head, "debug", "%r received EOF", NULL);
    if (LIKELY(result == 0)) {
        result = tls_take_eof(tls, keep_open);
    }
    if (result < 0 && PyErr_ExceptionMatches(PyExc_Exception) && tls->lower != NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        if (tls_call_lower(tls, tls->head.state->names.close, NULL) == 0) {
            PyErr_SetRaisedException(exc);
        }
        else {
            Py_DECREF(exc);
        }
    }
    tls_leave(tls);
    return result;
}

/* -- shutdown ------------------------------------------------------------------------------------ */

static int
tls_shutdown_timed_out(PyObject *owner, PyObject *arg UNUSED)
{
    Tls *tls = tls_cast(owner);
    if (tls->tls_state != TLS_FLUSHING && tls->tls_state != TLS_SHUTDOWN) {
        return 0;
    }
    PyObject *exc = PyObject_CallFunction(PyExc_TimeoutError, "s", "SSL shutdown timed out");
    if (exc == NULL) {
        PyErr_Clear();
    }
    tls_enter(tls);
    int result = lower_force_close(tls, exc);
    tls_leave(tls);
    Py_XDECREF(exc);
    return result;
}

/* The transport below is closed in the next iteration. What was written and it did not want yet is in
 * its queue by then, and leaves before the end: asyncio loses it. */
static int
tls_shutdown_done(Tls *tls)
{
    static const struct owed_kind close = {tls_run_close_lower, offsetof(Tls, owed_close)};
    tls_cancel_timer(tls);
    if (tls->lower == NULL) {
        return 0;
    }
    int result = tls->owes_output ? tls_send(tls) : 0;
    if (tls->lower != NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        PyObject *lower = Py_NewRef(tls->lower);
        PyObject *method = PyObject_GetAttr(lower, tls->head.state->names.close);
        Py_DECREF(lower);
        if (method == NULL && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
            Py_XDECREF(exc);
            return -1;
        }
        PyErr_Clear();
        if (loop_call_soon_surely(tls->head.loop, &tls->owed_close, &close, method) < 0) {
            PyErr_Clear();    /* the loop was closed: nobody is left to be told */
        }
        Py_XDECREF(method);
        PyErr_SetRaisedException(exc);
    }
    return result;
}

/* The exception that the ssl module has for data of the peer's after our close_notify. */
static PyObject *
make_late_error(void)
{
    PyObject *module = PyImport_ImportModule("asyncloop._tls");
    PyObject *exc = module == NULL ? NULL : PyObject_CallMethod(module, "late_error", NULL);
    Py_XDECREF(module);
    return exc != NULL ? exc : PyErr_GetRaisedException();    /* no memory: then that is the reason */
}

/* What the peer has sent since close(), and what nobody has read before. asyncio meets it in
 * SSL_shutdown() and resets the connection, which may cost the peer what it has not read of our output.
 * Here the protocol is told the same, but later, and the peer has the time to read.
 * TLS_WANT: nothing is left; TLS_OK: it was too much; or the end. */
static enum tls_status
tls_drop_late(Tls *tls)
{
    enum tls_status status = tls_discard(tls);
    if (tls->late > 0 && tls->late_error == NULL && !tls->failed) {
        PyObject *exc = PyErr_GetRaisedException();
        tls->late_error = make_late_error();
        PyErr_SetRaisedException(exc);
    }
    return status;
}

/* Down to the socket every transport has to be ours, to know what it means to close it. And a user's
 * SSLObject is asked for nothing that asyncio does not ask it for. */
static bool
tls_may_drop_late(Tls *tls)
{
    return (tls_is_over_ours(tls) || tls->eof) && !tls_is_foreign(&tls->engine);
}

/* The current exception came out of the engine. */
static int
tls_shutdown_failed(Tls *tls)
{
    if (!PyErr_ExceptionMatches(tls_state(tls->head.state)->tls.SSLError)) {
        return -1;
    }
    if (tls->late_error != NULL) {
        PyErr_Clear();    /* the end has its reason */
        return tls_shutdown_done(tls);
    }
    tls_cancel_timer(tls);
    tls_send_alert(tls);
    return tls_failed(tls, "Fatal error on transport");
}

/* asyncio's SSLProtocol._do_shutdown() */
int
tls_do_shutdown(Tls *tls)
{
    if (tls->tls_state != TLS_SHUTDOWN || tls->lower == NULL) {
        return 0;
    }
    enum tls_status status = TLS_WANT;
    bool done = tls->eof;
    if ((!tls->eof || FLAG(tls->head.paused)) && tls_may_drop_late(tls)) {
        status = tls_drop_late(tls);
        done |= status == TLS_OK;
    }
    /* When the wire has ended a close_notify is of no use any more, and may be answered by a reset. */
    if (status != TLS_FAILED && !tls->eof) {
        status = tls->engine.ops->shutdown(&tls->engine);
        done |= status == TLS_OK;
    }
    if (status == TLS_FAILED) {
        return tls_shutdown_failed(tls);
    }
    int result = tls_process_outgoing(tls);
    if (result < 0 || !done || tls->tls_state != TLS_SHUTDOWN) {
        return result < 0 ? -1 : tls_control_reading(tls);
    }
    if (tls->late_error == NULL) {
        result = tls_call_eof_received(tls);
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (tls_shutdown_done(tls) < 0) {
        result = -1;
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
    return result;
}

static int
tls_enter_shutdown(Tls *tls)
{
    if (tls->tls_state != TLS_FLUSHING) {
        return 0;    /* somebody was quicker, inside a call of ours */
    }
    tls->tls_state = TLS_SHUTDOWN;
    tls->owes_output = tls_queued(tls) > 0;
    return tls_do_shutdown(tls);
}

int
tls_do_flush(Tls *tls)
{
    if (tls_do_read(tls) < 0) {
        return -1;
    }
    return tls_enter_shutdown(tls);
}

int
tls_start_shutdown(Tls *tls)
{
    if (tls->tls_state == TLS_HANDSHAKE) {
        return tls_abort(tls, NULL);
    }
    if (tls->tls_state == TLS_FLUSHING && tls->eof && FLAG(tls->head.paused)) {
        return tls_do_flush(tls);    /* asyncio waits for a resume_reading() that nobody makes */
    }
    if (tls->tls_state != TLS_WRAPPED) {
        return 0;
    }
    SET_FLAG(tls->head.closing, true);
    tls->tls_state = TLS_FLUSHING;
    if (tls_start_timer(tls, tls->shutdown_timeout, tls_shutdown_timed_out) < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        if (tls_abort(tls, exc) < 0) {    /* nothing would end it */
            PyErr_Clear();
        }
        PyErr_SetRaisedException(exc);
        return -1;
    }
    return tls_do_flush(tls);
}

int
tls_close(Tls *tls)
{
    if (FLAG(tls->head.closing)) {
        return 0;
    }
    SET_FLAG(tls->head.closing, true);
    tls_enter(tls);
    int result = tls_start_shutdown(tls);
    tls_leave(tls);
    return result;
}

/* -- making ---------------------------------------------------------------------------------------- */

Tls *
tls_new(Loop *loop, PyObject *protocol, PyObject *sslcontext, PyObject *waiter, bool server_side,
        PyObject *hostname, PyObject *handshake_timeout, PyObject *shutdown_timeout,
        bool call_connection_made, PyObject *context)
{
    struct state *state = loop->state;
    const struct tls_engine_ops *ops = tls_choose_engine(state, sslcontext);
    if (ops == NULL) {
        return NULL;
    }
    Tls *tls = (Tls *)tls_state(state)->types.Tls->tp_alloc(tls_state(state)->types.Tls, 0);
    if (tls == NULL) {
        return NULL;
    }
    list_init(&tls->pending);
    tls->engine.ops = ops;
    tls->engine.state = state;
    tls->sslcontext = Py_NewRef(sslcontext);
    tls->handshake_timeout = Py_NewRef(handshake_timeout);
    tls->shutdown_timeout = Py_NewRef(shutdown_timeout);
    tls->read_limits.high = TLS_READ_HIGH_WATER;
    tls->read_limits.low = TLS_READ_HIGH_WATER / 4;
    tls->server_side = server_side;
    tls->app = call_connection_made ? TLS_APP_INIT : TLS_APP_MADE;
    SET_FLAG(tls->head.closing, true);    /* until it is complete: no warning of an unclosed transport */
    if (channel_init(&tls->head, loop, protocol, context, PROTO_FOR_TLS, TLS_HIGH_WATER) < 0
        || (tls->head.extra = PyDict_New()) == NULL
        || PyDict_SetItem(tls->head.extra, state->names.sslcontext, sslcontext) < 0
        || ops->open(&tls->engine, sslcontext, server_side, hostname) < 0) {
        Py_DECREF(tls);
        return NULL;
    }
    SET_FLAG(tls->head.closing, false);
    tls->waiter = Py_XNewRef(waiter);
    return tls;
}

#ifdef ASYNCLOOP_DEBUG
static void
tls_verify(Tls *tls, Loop *loop, uint64_t turn)
{
    wqueue_verify(&tls->output, turn);
    VERIFY(verify_node(&tls->pending));
    VERIFY(tls->lower == NULL || verify_lives(tls->lower));
    VERIFY(tls->stream == NULL || (PyObject *)tls->stream == tls->lower);
    VERIFY(tls->head.loop == NULL || tls->head.loop == loop);
    VERIFY(tls->timer == NULL || verify_lives(tls->timer));
    if (loop->run->outer == NULL) {
        VERIFY(tls->in_use == 0 && !tls->encrypting);
    }
}

void
tls_verify_all(Loop *loop, uint64_t turn)
{
    const struct list_node *pending = &tls_loop(loop)->pending, *active = &loop->fds.active;
    size_t most = verify_most(turn);
    for (const struct list_node *node = pending->next; node != pending && most-- > 0; node = node->next) {
        VERIFY(verify_node(node));
        tls_verify(container_of(node, Tls, pending), loop, turn);
    }
    most = verify_most(turn);
    for (const struct list_node *node = active->next; node != active && most-- > 0; node = node->next) {
        PyObject *owner = container_of(node, struct watch, active)->owner;
        if (PyObject_TypeCheck(owner, net_state(loop->state)->types.Transport)
            && transport_cast(owner)->head.proto.kind == PROTO_TLS) {
            tls_verify(tls_cast(transport_cast(owner)->head.proto.protocol), loop, turn);
        }
    }
}
#endif
