/* transport.c - the base type of all transports. See transport.h for the states.
 *
 * Danger: every call of a protocol, an exception handler or a logger may close or abort
 * the transport, run the loop inside itself, and drop the last outside reference. Each
 * function below that calls out holds the transport itself, or its caller does, and looks
 * at its state again afterwards. */
#include "transport.h"

#include <errno.h>
#include <string.h>

#include "args.h"
#include "clients.h"
#include "future.h"
#include "owner.h"
#include "reader.h"

/* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
#define DROPPED_WRITES_BEFORE_WARNING 5
#define DEFAULT_HIGH_WATER (64 * 1024)    /* bytes, as asyncio */

static int transport_run_lost(PyObject *owner, PyObject *exc);

static inline Transport *
transport_cast(PyObject *op)
{
    return (Transport *)op;
}

/* -- telling ------------------------------------------------------------------------- */

/* Gives exc (borrowed) to the loop's exception handler. `message_steal` may be NULL with
 * an exception set. Fails silently into sys.unraisablehook. */
static void
transport_report(Transport *tr, PyObject *message_steal, PyObject *exc)
{
    struct state_names *names = &tr->state->names;
    PyObject *protocol = tr->proto.protocol != NULL ? tr->proto.protocol : Py_None;
    PyObject *context = message_steal == NULL ? NULL : PyDict_New();
    if (context == NULL
        || PyDict_SetItem(context, names->message, message_steal) < 0
        || PyDict_SetItem(context, names->exception, exc) < 0
        || PyDict_SetItem(context, names->transport, (PyObject *)tr) < 0
        || PyDict_SetItem(context, names->protocol, protocol) < 0) {
        PyErr_WriteUnraisable((PyObject *)tr);
    }
    else if (tr->loop != NULL) {
        Loop *loop = (Loop *)Py_NewRef(tr->loop);
        loop_call_exception_handler(loop, context);
        Py_DECREF(loop);
    }
    Py_XDECREF(context);
    Py_XDECREF(message_steal);
}

int
transport_callback_failed(Transport *tr, const char *format)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *protocol = tr->proto.protocol;
    transport_report(tr, PyUnicode_FromFormat(
                             format, protocol == NULL ? "protocol" : Py_TYPE(protocol)->tp_name),
                     exc);
    Py_DECREF(exc);
    return 0;
}

static void
transport_log(Transport *tr, const char *level, const char *format)
{
    if (LIKELY(tr->loop == NULL || !tr->loop->debug)) {
        return;
    }
    PyObject *result = PyObject_CallMethod(tr->state->asyncio_logger, level, "sO", format, tr);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)tr);
    }
    Py_XDECREF(result);
}

void
transport_log_debug(Transport *tr, const char *format)
{
    transport_log(tr, "debug", format);
}

void
transport_log_info(Transport *tr, const char *format)
{
    transport_log(tr, "info", format);
}

void
transport_log_warning(Transport *tr, const char *message)
{
    PyObject *result = PyObject_CallMethod(tr->state->asyncio_logger, "warning", "s", message);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)tr);
    }
    Py_XDECREF(result);
}

/* logger.debug('%r: %s', transport, message, exc_info=exc) */
static void
transport_log_os_error(Transport *tr, const char *message, PyObject *exc)
{
    PyObject *debug = PyObject_GetAttrString(tr->state->asyncio_logger, "debug");
    PyObject *args = Py_BuildValue("(sOs)", "%r: %s", tr, message);
    PyObject *kwargs = Py_BuildValue("{s:O}", "exc_info", exc);
    PyObject *result = debug == NULL || args == NULL || kwargs == NULL
                           ? NULL
                           : PyObject_Call(debug, args, kwargs);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)tr);
    }
    Py_XDECREF(debug);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(result);
}

void
transport_drop_write(Transport *tr)
{
    if (tr->conn_lost >= DROPPED_WRITES_BEFORE_WARNING) {
        transport_log_warning(tr, "socket.send() raised exception.");
    }
    if (tr->conn_lost < UINT_MAX) {
        tr->conn_lost++;
    }
}

/* -- the descriptor and its owner ------------------------------------------------------ */

static void
transport_stop_watches(Transport *tr)
{
    watch_stop(&tr->read_watch);
    watch_stop(&tr->write_watch);
}

static void
transport_release_fd(Transport *tr)
{
    if (tr->loop != NULL) {
        watch_release_fd(tr->loop, tr->fd, (PyObject *)tr);
    }
}

/* Closes the descriptor through the object that owns it. Where the descriptor was closed
 * behind its back the number may be another file's by now: then the object only forgets
 * it. Errors go to sys.unraisablehook. */
static void
transport_close_file(Transport *tr)
{
    if (tr->file_closed || tr->file == NULL) {
        return;
    }
    tr->file_closed = true;
    if (tr->io.ops != NULL) {
        tr->io.ops->close(&tr->io);
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *result =
        tr->fd_gone && tr->kind->is_socket
            ? PyObject_CallMethod(tr->file, "detach", NULL)
            : PyObject_CallMethodNoArgs(tr->file, tr->state->names.close);
    if (result == NULL) {
        PyErr_WriteUnraisable(tr->file);
    }
    Py_XDECREF(result);
    PyErr_SetRaisedException(exc);
}

/* -- addresses ------------------------------------------------------------------------------ */

typedef int (*name_call)(int fd, struct sockaddr *address, socklen_t *length);

/* Asks the kernel, and keeps what it says in one of the two forms (addr may be NULL). None where there is no
 * such address; `method` asks the socket object about a family that addr.c does not know.
 * 0 / -1 with an exception that is no OSError. */
static int
transport_ask_name(Transport *tr, name_call call, const char *method, struct addr *addr,
                   PyObject **name)
{
    struct sockaddr_storage storage;
    socklen_t length = sizeof(storage);
    struct sockaddr *address = (struct sockaddr *)&storage;
    if (call(tr->fd, address, &length) < 0) {
        Py_XSETREF(*name, Py_NewRef(Py_None));
        return 0;
    }
    if (addr != NULL && addr_keep(addr, address, length)) {
        return 0;
    }
    PyObject *value = addr_build(address, length);
    if (value == NULL && !PyErr_Occurred()) {
        value = PyObject_CallMethod(tr->file, method, NULL);
        if (value == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
            PyErr_Clear();
            value = Py_NewRef(Py_None);
        }
    }
    if (value == NULL) {
        return -1;
    }
    Py_XSETREF(*name, value);
    return 0;
}

/* The address has to be known before the descriptor goes: get_extra_info() works after. */
static int
transport_remember_sockname(Transport *tr)
{
    if (!tr->kind->is_socket || tr->sockname != NULL || tr->file_closed || tr->fd_gone) {
        return 0;
    }
    return transport_ask_name(tr, getsockname, "getsockname", NULL, &tr->sockname);
}

/* new reference; None if it is not known */
static PyObject *
transport_peername(Transport *tr)
{
    if (tr->peername == NULL) {
        tr->peername = addr_build(&tr->peer_addr.any, tr->peer_addr.length);
    }
    return Py_XNewRef(tr->peername);
}

/* -- connection_lost() ------------------------------------------------------------------------- */

/* May get_extra_info() be called later on? A connection that is known to the caller alone, with
 * two references, saves getsockname() (benchmark row "accept"). */
static bool
transport_is_known(Transport *tr)
{
#ifdef Py_GIL_DISABLED
    (void)tr;
    return true;
#else
    return Py_REFCNT(tr) > 2 || tr->weakrefs != NULL;
#endif
}

/* The last step of a transport: the descriptor is closed, everything is forgotten. */
static void
transport_finish(Transport *tr)
{
    Py_INCREF(tr);
    transport_stop_watches(tr);
    transport_release_fd(tr);
    proto_drop_protocol(&tr->proto);
    Py_BEGIN_CRITICAL_SECTION(tr);    /* get_extra_info() may come from any thread */
    if (transport_is_known(tr) && transport_remember_sockname(tr) < 0) {
        PyErr_WriteUnraisable((PyObject *)tr);
    }
    transport_close_file(tr);
    Py_END_CRITICAL_SECTION();
    proto_clear(&tr->proto);
    Loop *loop = (Loop *)Py_XNewRef(tr->loop);
    shared_loop_drop((PyObject *)tr, &tr->loop);
    server_detach(tr, false);
    Py_BEGIN_CRITICAL_SECTION(tr);    /* without a loop, it is what guards the transport */
    if (tr->kind->lost != NULL) {
        tr->kind->lost(tr);
    }
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(loop);
    Py_DECREF(tr);
}

/* Native callback: exc is NULL for a connection that ended in order. */
static int
transport_run_lost(PyObject *owner, PyObject *exc)
{
    Transport *tr = transport_cast(owner);
    if (tr->loop == NULL) {
        return 0;
    }
    int result = 0;
    PyObject *protocol = exc == NULL ? NULL : Py_XNewRef(tr->proto.protocol);
    PyObject *value = proto_call(&tr->proto, tr->state->names.connection_lost,
                                 exc == NULL ? Py_None : exc);
    if (value == NULL) {
        result = transport_callback_failed(tr, "Exception in callback %.200s.connection_lost()");
    }
    Py_XDECREF(value);
    PyObject *leaving = PyErr_GetRaisedException();
    if (protocol != NULL) {
        reader_error_is_known(tr->state, protocol);
        Py_DECREF(protocol);
    }
    transport_finish(tr);
    PyErr_SetRaisedException(leaving);
    return result;
}

static const struct owed_kind transport_lost = {transport_run_lost, offsetof(Transport, owed)};

/* Marks the connection as lost and schedules connection_lost(). */
static int
transport_schedule_lost(Transport *tr, PyObject *exc)
{
    assert(tr->conn_lost == 0 && tr->loop != NULL);
    tr->conn_lost = 1;
    return loop_call_soon_surely(tr->loop, &tr->owed, &transport_lost, exc);
}

static void
transport_set_closing(Transport *tr)
{
    SHARED_STORE(tr->closing, true);
    transport_release_fd(tr);
    watch_stop(&tr->read_watch);
}

static inline void
transport_let_go(Transport *tr)
{
    if (tr->kind->let_go != NULL) {
        tr->kind->let_go(tr);
    }
}

int
transport_close(Transport *tr)
{
    transport_let_go(tr);
    if (tr->closing) {
        return 0;
    }
    transport_set_closing(tr);
    if (tr->kind->queued(tr) > 0) {
        return 0;    /* transport_drained() goes on */
    }
    watch_stop(&tr->write_watch);
    return transport_schedule_lost(tr, NULL);
}

int
transport_force_close(Transport *tr, PyObject *exc)
{
    if (tr->conn_lost > 0) {
        return 0;
    }
    tr->kind->discard_output(tr);
    watch_stop(&tr->write_watch);
    if (!tr->closing) {
        transport_set_closing(tr);
    }
    return transport_schedule_lost(tr, exc);
}

int
transport_drained(Transport *tr)
{
    if (!tr->closing || tr->conn_lost > 0 || tr->loop == NULL) {
        return 0;
    }
    tr->conn_lost = 1;
    return transport_run_lost((PyObject *)tr, NULL);
}

static bool
transport_expects(Transport *tr, PyObject *exc)
{
    return PyErr_GivenExceptionMatches(exc, PyExc_OSError)
           && (tr->kind->is_expected == NULL || tr->kind->is_expected(tr, exc));
}

int
transport_fatal(Transport *tr, const char *message)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    Py_INCREF(tr);
    if (!transport_expects(tr, exc)) {
        transport_report(tr, PyUnicode_FromString(message), exc);
    }
    else if (tr->loop != NULL && tr->loop->debug) {
        transport_log_os_error(tr, message, exc);
    }
    if (tr->loop != NULL && transport_force_close(tr, exc) < 0) {
        /* the loop was closed meanwhile: nobody is left to call connection_lost() */
        PyErr_Clear();
    }
    Py_DECREF(tr);
    Py_DECREF(exc);
    return 0;
}

int
transport_fatal_errno(Transport *tr, int err, const char *message)
{
    if (err == EBADF && io_is_gone(&tr->io)) {
        tr->fd_gone = true;
        transport_stop_watches(tr);
        transport_release_fd(tr);
    }
    errno = err;
    PyErr_SetFromErrno(PyExc_OSError);
    return transport_fatal(tr, message);
}

int
transport_descriptor_gone(Transport *tr)
{
    tr->fd_gone = true;
    transport_stop_watches(tr);
    transport_release_fd(tr);
    return transport_fatal_errno(tr, EBADF, "The descriptor of the transport was closed");
}

/* -- reading ---------------------------------------------------------------------------------- */

int
transport_update_reading(Transport *tr)
{
    if (transport_wants_data(tr)) {
        return watch_start(&tr->read_watch);
    }
    watch_stop(&tr->read_watch);
    return 0;
}

/* -- flow control ------------------------------------------------------------------------------ */

int
transport_maybe_pause(Transport *tr)
{
    if (LIKELY(tr->kind->queued(tr) <= tr->high_water) || tr->protocol_paused) {
        return 0;
    }
    tr->protocol_paused = true;
    PyObject *result = proto_call(&tr->proto, tr->state->names.pause_writing, NULL);
    if (result == NULL) {
        return transport_callback_failed(tr, "protocol.pause_writing() failed");
    }
    Py_DECREF(result);
    return 0;
}

int
transport_maybe_resume(Transport *tr)
{
    if (LIKELY(!tr->protocol_paused) || tr->kind->queued(tr) > tr->low_water) {
        return 0;
    }
    tr->protocol_paused = false;
    PyObject *result = proto_call(&tr->proto, tr->state->names.resume_writing, NULL);
    if (result == NULL) {
        return transport_callback_failed(tr, "protocol.resume_writing() failed");
    }
    Py_DECREF(result);
    return 0;
}

/* A limit in whole bytes; what is too large for a size is "never". -1 with an exception. */
static int
limit_in_bytes(PyObject *limit, size_t *bytes)
{
    PyObject *whole = PyLong_Check(limit) ? Py_NewRef(limit) : NULL;
    if (whole == NULL) {
        PyObject *real = PyNumber_Float(limit);
        if (real == NULL) {
            return -1;
        }
        double value = PyFloat_AS_DOUBLE(real);
        Py_DECREF(real);
        *bytes = value >= (double)PY_SSIZE_T_MAX ? SIZE_MAX : (size_t)value;
        return 0;
    }
    *bytes = PyLong_AsSize_t(whole);
    Py_DECREF(whole);
    if (*bytes == (size_t)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return 0;
}

/* 1 if high >= low >= 0, 0 if not, -1 with an exception */
static int
limits_are_ordered(PyObject *high, PyObject *low)
{
    PyObject *zero = PyLong_FromLong(0);
    if (zero == NULL) {
        return -1;
    }
    int ordered = PyObject_RichCompareBool(high, low, Py_GE);
    if (ordered > 0) {
        ordered = PyObject_RichCompareBool(low, zero, Py_GE);
    }
    Py_DECREF(zero);
    return ordered;
}

/* What is missing follows from the other one, as in asyncio: new references. */
static int
limits_complete(PyObject *high, PyObject *low, PyObject **full_high, PyObject **full_low)
{
    PyObject *four = PyLong_FromLong(4);
    if (four == NULL) {
        return -1;
    }
    *full_low = NULL;
    if (high != Py_None) {
        *full_high = Py_NewRef(high);
    }
    else if (low == Py_None) {
        *full_high = PyLong_FromLong(DEFAULT_HIGH_WATER);
    }
    else {
        *full_high = PyNumber_Multiply(four, low);
    }
    if (*full_high != NULL) {
        *full_low = low != Py_None ? Py_NewRef(low) : PyNumber_FloorDivide(*full_high, four);
    }
    Py_DECREF(four);
    if (*full_low == NULL) {
        Py_CLEAR(*full_high);
        return -1;
    }
    return 0;
}

static int
transport_set_limits(Transport *tr, PyObject *high, PyObject *low)
{
    PyObject *full_high, *full_low;
    if (limits_complete(high, low, &full_high, &full_low) < 0) {
        return -1;
    }
    int result = -1;
    size_t high_bytes, low_bytes;
    int ordered = limits_are_ordered(full_high, full_low);
    if (ordered == 0) {
        PyErr_Format(PyExc_ValueError, "high (%R) must be >= low (%R) must be >= 0", full_high,
                     full_low);
    }
    if (ordered <= 0 || limit_in_bytes(full_high, &high_bytes) < 0
        || limit_in_bytes(full_low, &low_bytes) < 0) {
        goto done;
    }
    PyObject *limits = PyTuple_Pack(2, full_low, full_high);
    if (limits == NULL) {
        goto done;
    }
    Py_XSETREF(tr->limits, limits);
    tr->high_water = high_bytes;
    tr->low_water = low_bytes;
    result = 0;
done:
    Py_DECREF(full_high);
    Py_DECREF(full_low);
    return result;
}

/* -- life ------------------------------------------------------------------------------------- */

static void transport_on_no_event(struct watch *watch, int revents);

Transport *
transport_new(PyTypeObject *type, const struct transport_kind *kind, Loop *loop, PyObject *file,
              int fd, PyObject *protocol, PyObject *extra, PyObject *server, PyObject *context)
{
    Transport *tr = (Transport *)type->tp_alloc(type, 0);
    if (tr == NULL) {
        return NULL;
    }
    tr->kind = kind;
    tr->state = loop->state;
    tr->fd = fd;
    list_init(&tr->client);
    tr->high_water = DEFAULT_HIGH_WATER;
    tr->low_water = DEFAULT_HIGH_WATER / 4;
    watch_init(&tr->read_watch, loop, (PyObject *)tr, fd, EV_READ, transport_on_no_event);
    watch_init(&tr->write_watch, loop, (PyObject *)tr, fd, EV_WRITE, transport_on_no_event);
    tr->loop = (Loop *)Py_NewRef(loop);
    tr->extra = Py_XNewRef(extra);
    if (proto_init(&tr->proto, protocol, context) < 0
        || proto_set(&tr->proto, tr->state, protocol) < 0
        || (kind->is_socket && watch_claim_fd(loop, fd, (PyObject *)tr) < 0)) {
        Py_DECREF(tr);
        return NULL;
    }
    if (server != NULL && server_attach(tr, server) < 0) {
        transport_release_fd(tr);
        Py_DECREF(tr);
        return NULL;
    }
    tr->file = Py_NewRef(file);
    return tr;
}

const int *
transport_socket_number(struct state *state, PyObject *sock, int fd)
{
    /* So begins a socket in every version of CPython; no header says it, hence the checks. */
    struct socket_object {
        PyObject ob_base;
        int number;
    };
    if (!PyObject_TypeCheck(sock, (PyTypeObject *)state->socket_class)
        || Py_TYPE(sock)->tp_basicsize < (Py_ssize_t)sizeof(struct socket_object)) {
        return NULL;
    }
    const struct socket_object *object = (const struct socket_object *)sock;
    return object->number == fd ? &object->number : NULL;
}

int
transport_ensure_free(Loop *loop, int fd)
{
    PyObject *user = watch_fd_transport(loop, fd);
    if (LIKELY(user == NULL)) {
        return 0;
    }
    int result = io_is_gone(&transport_cast(user)->io)
                     ? transport_descriptor_gone(transport_cast(user))
                     : 0;
    Py_DECREF(user);
    return result < 0 ? -1 : watch_ensure_free(loop, fd);
}

/* Until the kind says what to do. */
static void
transport_on_no_event(struct watch *watch, int revents UNUSED)
{
    watch_stop(watch);
}

void
transport_undo(Transport *tr)
{
    PyObject *exc = PyErr_GetRaisedException();
    transport_stop_watches(tr);
    transport_release_fd(tr);
    server_detach(tr, true);
    tr->closing = tr->file_closed = true;
    tr->conn_lost = 1;
    Py_CLEAR(tr->file);
    Py_DECREF(tr);
    PyErr_SetRaisedException(exc);
}

/* Native callback: the transport's first iteration. */
static int
transport_run_begin(PyObject *owner, PyObject *waiter)
{
    Transport *tr = transport_cast(owner);
    int result = 0;
    PyObject *value = proto_connection_made(&tr->proto, tr->state, owner);
    if (value == NULL) {
        result = transport_callback_failed(tr, "Exception in callback %.200s.connection_made()");
    }
    Py_XDECREF(value);
    PyObject *leaving = PyErr_GetRaisedException();
    tr->begun = true;
    if (tr->loop != NULL && transport_update_reading(tr) < 0
        && transport_fatal(tr, READ_FAILED(tr)) < 0) {
        PyErr_WriteUnraisable(owner);
    }
    if (waiter != NULL && future_settle_result(tr->state, waiter, Py_None) < 0) {
        PyErr_WriteUnraisable(waiter);
    }
    PyErr_SetRaisedException(leaving);
    return result;
}

int
transport_begin(Transport *tr, PyObject *waiter)
{
    return loop_call_soon_native(tr->loop, transport_run_begin, (PyObject *)tr, waiter);
}

int
transport_set_peer(Transport *tr, const struct sockaddr *address, socklen_t length)
{
    if (tr->extra != NULL) {
        int known = PyDict_Contains(tr->extra, tr->state->names.peername);
        if (known != 0) {
            return known < 0 ? -1 : 0;
        }
    }
    if (length == 0) {
        return transport_ask_name(tr, getpeername, "getpeername", &tr->peer_addr, &tr->peername);
    }
    if (addr_keep(&tr->peer_addr, address, length)) {
        return 0;
    }
    PyObject *name = addr_build(address, length);
    if (name == NULL && !PyErr_Occurred()) {
        return transport_ask_name(tr, getpeername, "getpeername", &tr->peer_addr, &tr->peername);
    }
    Py_XSETREF(tr->peername, name);
    return name == NULL ? -1 : 0;
}

/* The slots that asyncio's classes give each instance. */
static PyObject **
transport_slot(PyObject *op, Py_ssize_t offset)
{
    return (PyObject **)(void *)((char *)op + offset);
}

int
transport_traverse(PyObject *op, visitproc visit, void *arg)
{
    Transport *tr = transport_cast(op);
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(tr->dict);
    if (tr->state != NULL) {
        for (int i = 0; i < tr->state->transport_slot_count; i++) {
            Py_VISIT(*transport_slot(op, tr->state->transport_slots[i]));
        }
    }
    Py_VISIT(tr->loop);
    Py_VISIT(tr->file);
    Py_VISIT(tr->server);
    Py_VISIT(tr->extra);
    Py_VISIT(tr->socket_view);
    Py_VISIT(tr->limits);
    return proto_traverse(&tr->proto, visit, arg);
}

int
transport_clear(PyObject *op)
{
    Transport *tr = transport_cast(op);
    if (tr->loop != NULL) {
        transport_stop_watches(tr);
        transport_release_fd(tr);
    }
    Py_CLEAR(tr->dict);
    if (tr->state != NULL) {
        for (int i = 0; i < tr->state->transport_slot_count; i++) {
            Py_CLEAR(*transport_slot(op, tr->state->transport_slots[i]));
        }
    }
    /* A method that is called on what is left finds a transport that was closed. */
    tr->closing = true;
    if (tr->conn_lost == 0) {
        tr->conn_lost = 1;
    }
    proto_clear(&tr->proto);
    Py_CLEAR(tr->file);
    server_forget(tr);
    Py_CLEAR(tr->extra);
    Py_CLEAR(tr->socket_view);
    Py_CLEAR(tr->sockname);
    Py_CLEAR(tr->peername);
    Py_CLEAR(tr->limits);
    shared_loop_drop(op, &tr->loop);
    return 0;
}

void
transport_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (transport_cast(op)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    type->tp_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Nobody has it any more, and it was not closed. */
static void
transport_abandon(Transport *tr)
{
    PyObject *op = (PyObject *)tr;
    PyObject *exc = PyErr_GetRaisedException();
    if (PyErr_ResourceWarning(op, 1, "unclosed transport %R", op) < 0) {
        /* warnings are errors */
        PyErr_WriteUnraisable(op);
    }
    transport_stop_watches(tr);
    transport_release_fd(tr);
    transport_close_file(tr);
    server_detach(tr, true);
    PyErr_SetRaisedException(exc);
}

#ifdef Py_GIL_DISABLED
static int
transport_run_abandon(PyObject *owner, PyObject *ignored UNUSED)
{
    Transport *tr = transport_cast(owner);
    if (tr->file != NULL && !tr->file_closed) {
        transport_abandon(tr);
    }
    /* From here on any thread may free it. */
    SHARED_STORE(tr->closing, true);
    tr->conn_lost += tr->conn_lost == 0;
    shared_loop_drop(owner, &tr->loop);
    return 0;
}

/* Garbage of a loop that another thread runs goes to that thread, and comes back to life for
 * it: the loop knows its descriptor. */
void
transport_finalize(PyObject *op)
{
    Transport *tr = transport_cast(op);
    if (tr->loop == NULL || tr->file == NULL || tr->file_closed) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    struct claim claim;
    if (loop_claim(&claim, tr->loop) == 0) {
        transport_run_abandon(op, NULL);
        loop_unclaim(&claim);
    }
    else {
        PyErr_Clear();
        if (loop_call_soon_native(tr->loop, transport_run_abandon, op, NULL) < 0) {
            PyErr_Clear();    /* the loop was closed meanwhile: it knows nothing any more */
        }
    }
    PyErr_SetRaisedException(exc);
}
#else
void
transport_finalize(PyObject *op)
{
    Transport *tr = transport_cast(op);
    if (tr->file != NULL && !tr->file_closed) {
        transport_abandon(tr);
    }
}
#endif

/* -- methods ---------------------------------------------------------------------------------- */

static PyObject *
Transport_close(PyObject *op, PyObject *ignored UNUSED)
{
    return none_or_error(transport_close(transport_cast(op)));
}

static PyObject *
Transport_abort(PyObject *op, PyObject *ignored UNUSED)
{
    return none_or_error(transport_force_close(transport_cast(op), NULL));
}

static PyObject *
Transport__force_close(PyObject *op, PyObject *exc)
{
    return none_or_error(transport_force_close(transport_cast(op), exc == Py_None ? NULL : exc));
}

static PyObject *
Transport__fatal_error(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"exc", "message", NULL};
    PyObject *values[2] = {NULL, NULL};
    if (args_unpack("_fatal_error", args, nargs, kwnames, names, 2, 1, values) < 0) {
        return NULL;
    }
    const char *message = transport_cast(op)->kind->is_socket ? "Fatal error on transport"
                                                              : "Fatal error on pipe transport";
    if (values[1] != NULL && (message = PyUnicode_AsUTF8(values[1])) == NULL) {
        return NULL;
    }
    if (!PyExceptionInstance_Check(values[0])) {
        PyErr_SetString(PyExc_TypeError, "_fatal_error() takes an exception");
        return NULL;
    }
    PyErr_SetRaisedException(Py_NewRef(values[0]));
    return none_or_error(transport_fatal(transport_cast(op), message));
}

static PyObject *
Transport_is_closing(PyObject *op, PyObject *ignored UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(transport_cast(op)->closing));
}

static PyObject *
Transport_is_reading(PyObject *op, PyObject *ignored UNUSED)
{
    Transport *tr = transport_cast(op);
    return PyBool_FromLong(!SHARED_LOAD(tr->closing) && !SHARED_LOAD(tr->paused));
}

static PyObject *
Transport_pause_reading(PyObject *op, PyObject *ignored UNUSED)
{
    Transport *tr = transport_cast(op);
    if (tr->closing || tr->paused) {
        return Py_NewRef(Py_None);
    }
    SHARED_STORE(tr->paused, true);
    watch_stop(&tr->read_watch);
    transport_log_debug(tr, "%r pauses reading");
    return Py_NewRef(Py_None);
}

static PyObject *
Transport_resume_reading(PyObject *op, PyObject *ignored UNUSED)
{
    Transport *tr = transport_cast(op);
    if (tr->closing || !tr->paused) {
        return Py_NewRef(Py_None);
    }
    SHARED_STORE(tr->paused, false);
    if (transport_update_reading(tr) < 0) {
        return NULL;
    }
    transport_log_debug(tr, "%r resumes reading");
    return Py_NewRef(Py_None);
}

static PyObject *
Transport_set_protocol(PyObject *op, PyObject *protocol)
{
    Transport *tr = transport_cast(op);
    return none_or_error(proto_set(&tr->proto, tr->state, protocol));
}

static PyObject *
Transport_get_protocol(PyObject *op, PyObject *ignored UNUSED)
{
    PyObject *protocol = transport_cast(op)->proto.protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

/* The extra information that is not in the dict: new reference, NULL without an exception
 * if there is none of that name. */
static PyObject *
transport_own_info(Transport *tr, PyObject *name)
{
    struct state_names *names = &tr->state->names;
    if (!tr->kind->is_socket) {
        return PyUnicode_Compare(name, names->pipe) == 0 && tr->file != NULL ? Py_NewRef(tr->file)
                                                                            : NULL;
    }
    if (PyUnicode_Compare(name, names->socket) == 0) {
        if (tr->socket_view == NULL && tr->file != NULL) {
            tr->socket_view = PyObject_CallOneArg(tr->state->TransportSocket, tr->file);
        }
        return Py_XNewRef(tr->socket_view);
    }
    if (PyUnicode_Compare(name, names->peername) == 0) {
        return transport_peername(tr);
    }
    if (PyUnicode_Compare(name, names->sockname) == 0) {
        if (transport_remember_sockname(tr) < 0) {
            return NULL;
        }
        return Py_NewRef(tr->sockname != NULL ? tr->sockname : Py_None);
    }
    return NULL;
}

static int
dict_add_own_info(Transport *tr, PyObject *dict, PyObject *name)
{
    int known = PyDict_Contains(dict, name);
    if (known != 0) {
        return known < 0 ? -1 : 0;
    }
    PyObject *value = transport_own_info(tr, name);
    if (value == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int result = PyDict_SetItem(dict, name, value);
    Py_DECREF(value);
    return result;
}

/* The whole dict, as asyncio's transports have it (borrowed), or NULL. */
static PyObject *
transport_extra(Transport *tr)
{
    if (tr->extra == NULL && (tr->extra = PyDict_New()) == NULL) {
        return NULL;
    }
    if (!tr->extra_complete) {
        struct state_names *names = &tr->state->names;
        PyObject *own[] = {names->socket, names->sockname, names->peername, names->pipe};
        for (size_t i = 0; i < ARRAY_LEN(own); i++) {
            if (dict_add_own_info(tr, tr->extra, own[i]) < 0) {
                return NULL;
            }
        }
        tr->extra_complete = true;
    }
    return tr->extra;
}

static PyObject *
transport_get_info(Transport *tr, PyObject *name, PyObject *otherwise)
{
    PyObject *extra = tr->extra;
    if (!PyUnicode_Check(name) && (extra = transport_extra(tr)) == NULL) {
        return NULL;
    }
    PyObject *value = NULL;
    if (extra != NULL && PyDict_GetItemRef(extra, name, &value) != 0) {
        return value;
    }
    if (!tr->extra_complete) {
        value = transport_own_info(tr, name);
        if (value != NULL || PyErr_Occurred()) {
            return value;
        }
    }
    return Py_NewRef(otherwise);
}

static PyObject *
Transport_get_extra_info(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name", "default", NULL};
    PyObject *values[2] = {NULL, Py_None};
    if (args_unpack("get_extra_info", args, nargs, kwnames, names, 2, 1, values) < 0) {
        return NULL;
    }
    PyObject *value;
    Py_BEGIN_CRITICAL_SECTION(op);
    value = transport_get_info(transport_cast(op), values[0], values[1]);
    Py_END_CRITICAL_SECTION();
    return value;
}

static PyObject *
Transport_get_write_buffer_size(PyObject *op, PyObject *ignored UNUSED)
{
    Transport *tr = transport_cast(op);
    transport_let_go(tr);    /* what the kernel takes is not waiting */
    return PyLong_FromSize_t(tr->kind->queued(tr));
}

static PyObject *
Transport_get_write_buffer_limits(PyObject *op, PyObject *ignored UNUSED)
{
    Transport *tr = transport_cast(op);
    if (tr->limits != NULL) {
        return Py_NewRef(tr->limits);
    }
    return Py_BuildValue("(nn)", (Py_ssize_t)tr->low_water, (Py_ssize_t)tr->high_water);
}

static int
set_limits_from_args(Transport *tr, const char *function, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"high", "low", NULL};
    PyObject *values[2] = {Py_None, Py_None};
    if (args_unpack(function, args, nargs, kwnames, names, 2, 0, values) < 0) {
        return -1;
    }
    return transport_set_limits(tr, values[0], values[1]);
}

static PyObject *
Transport_set_write_buffer_limits(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *kwnames)
{
    Transport *tr = transport_cast(op);
    if (set_limits_from_args(tr, "set_write_buffer_limits", args, nargs, kwnames) < 0) {
        return NULL;
    }
    transport_let_go(tr);
    return none_or_error(transport_maybe_pause(tr));
}

static PyObject *
Transport__set_write_buffer_limits(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames)
{
    return none_or_error(set_limits_from_args(transport_cast(op), "_set_write_buffer_limits", args,
                                              nargs, kwnames));
}

static PyObject *
Transport__maybe_pause_protocol(PyObject *op, PyObject *ignored UNUSED)
{
    transport_let_go(transport_cast(op));
    return none_or_error(transport_maybe_pause(transport_cast(op)));
}

static PyObject *
Transport__maybe_resume_protocol(PyObject *op, PyObject *ignored UNUSED)
{
    return none_or_error(transport_maybe_resume(transport_cast(op)));
}

/* without its module */
static const char *
type_name(PyTypeObject *type)
{
    const char *dot = strrchr(type->tp_name, '.');
    return dot == NULL ? type->tp_name : dot + 1;
}

/* With what only the thread of the loop may look at. */
static PyObject *
transport_full_repr(Transport *tr, const char *name, const char *state)
{
    const char *reading = watch_is_active(&tr->read_watch) ? "polling" : "idle";
    if (!tr->kind->has_output) {
        return PyUnicode_FromFormat("<%s%s fd=%d read=%s>", name, state, tr->fd, reading);
    }
    return PyUnicode_FromFormat("<%s%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, state,
                                tr->fd, reading,
                                watch_is_active(&tr->write_watch) ? "polling" : "idle",
                                tr->kind->queued(tr));
}

static PyObject *
Transport_repr(PyObject *op)
{
    Transport *tr = transport_cast(op);
    const char *name = type_name(Py_TYPE(op));
    Loop *loop;
    bool closed;
    Py_BEGIN_CRITICAL_SECTION(op);
    loop = (Loop *)Py_XNewRef(tr->loop);
    closed = tr->file == NULL || tr->file_closed;
    Py_END_CRITICAL_SECTION();
    const char *state = closed ? " closed" : SHARED_LOAD(tr->closing) ? " closing" : "";
    PyObject *text = NULL;
    if (loop != NULL && !SHARED_LOAD(loop->closed)) {
        struct claim claim;
        if (loop_claim(&claim, loop) == 0) {
            text = transport_full_repr(tr, name, state);
            loop_unclaim(&claim);
        }
        else {
            PyErr_Clear();    /* another thread runs it: then without */
            text = PyUnicode_FromFormat("<%s%s fd=%d>", name, state, tr->fd);
        }
    }
    else {
        text = PyUnicode_FromFormat("<%s%s fd=%d>", name, state, tr->fd);
    }
    Py_XDECREF(loop);
    return text;
}

/* -- attributes ----------------------------------------------------------------------------------- */

#define OBJECT_GETTER(name, expression)                     \
    static PyObject *                                       \
    Transport_get_##name(PyObject *op, void *closure UNUSED) \
    {                                                       \
        Transport *tr = transport_cast(op);                 \
        PyObject *value;                                    \
        Py_BEGIN_CRITICAL_SECTION(op);                      \
        value = (PyObject *)(expression);                   \
        value = Py_NewRef(value != NULL ? value : Py_None); \
        Py_END_CRITICAL_SECTION();                          \
        return value;                                       \
    }
#define BOOL_GETTER(name, expression)                       \
    static PyObject *                                       \
    Transport_get_##name(PyObject *op, void *closure UNUSED) \
    {                                                       \
        Transport *tr = transport_cast(op);                 \
        return PyBool_FromLong(expression);                 \
    }

OBJECT_GETTER(loop, tr->loop)
OBJECT_GETTER(protocol_attribute, tr->proto.protocol)
OBJECT_GETTER(file, tr->file_closed ? NULL : tr->file)
OBJECT_GETTER(server, tr->server)
OBJECT_GETTER(context, tr->proto.context)
BOOL_GETTER(closing, tr->closing)
BOOL_GETTER(paused, tr->paused)
BOOL_GETTER(protocol_paused, tr->protocol_paused)
BOOL_GETTER(protocol_connected, tr->proto.protocol != NULL)

static PyObject *
Transport_get_conn_lost(PyObject *op, void *closure UNUSED)
{
    return PyLong_FromUnsignedLong(transport_cast(op)->conn_lost);
}

static PyObject *
Transport_get_fd(PyObject *op, void *closure UNUSED)
{
    return PyLong_FromLong(transport_cast(op)->fd);
}

static SYNCHRONIZED_GETTER(Transport_get_extra)(PyObject *op, void *closure UNUSED)
{
    return Py_XNewRef(transport_extra(transport_cast(op)));
}

static PyObject *
Transport_get_limit(PyObject *op, void *closure)
{
    PyObject *limits = Transport_get_write_buffer_limits(op, NULL);
    if (limits == NULL) {
        return NULL;
    }
    PyObject *limit = Py_NewRef(PyTuple_GET_ITEM(limits, closure != NULL));
    Py_DECREF(limits);
    return limit;
}

DEFINE_OWNED_FAST(Transport, Transport_set_write_buffer_limits)
DEFINE_OWNED_FAST(Transport, Transport__set_write_buffer_limits)
DEFINE_OWNED_FAST(Transport, Transport__fatal_error)
DEFINE_OWNED(Transport, Transport_close)
DEFINE_OWNED(Transport, Transport_abort)
DEFINE_OWNED(Transport, Transport_pause_reading)
DEFINE_OWNED(Transport, Transport_resume_reading)
DEFINE_OWNED(Transport, Transport_set_protocol)
DEFINE_OWNED(Transport, Transport_get_protocol)
DEFINE_OWNED(Transport, Transport_get_write_buffer_size)
DEFINE_OWNED(Transport, Transport_get_write_buffer_limits)
DEFINE_OWNED(Transport, Transport__maybe_pause_protocol)
DEFINE_OWNED(Transport, Transport__maybe_resume_protocol)
DEFINE_OWNED(Transport, Transport__force_close)
DEFINE_OWNED_GETTER(Transport, Transport_get_protocol_attribute)
DEFINE_OWNED_GETTER(Transport, Transport_get_protocol_connected)
DEFINE_OWNED_GETTER(Transport, Transport_get_server)
DEFINE_OWNED_GETTER(Transport, Transport_get_context)

static PyMethodDef Transport_methods[] = {
    {"close", OWNED(Transport_close), METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\n"
               "Stop reading, send what is buffered, then close. connection_lost(None) follows.")},
    {"abort", OWNED(Transport_abort), METH_NOARGS,
     PyDoc_STR("abort($self, /)\n--\n\n"
               "Close at once; what is buffered is lost. connection_lost(None) follows.")},
    {"is_closing", Transport_is_closing, METH_NOARGS,
     PyDoc_STR("is_closing($self, /)\n--\n\nWhether the transport is closing or closed.")},
    {"is_reading", Transport_is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self, /)\n--\n\nWhether the transport takes new data.")},
    {"pause_reading", OWNED(Transport_pause_reading), METH_NOARGS,
     PyDoc_STR("pause_reading($self, /)\n--\n\n"
               "No more data until resume_reading(). No effect on a paused or closed one.")},
    {"resume_reading", OWNED(Transport_resume_reading), METH_NOARGS,
     PyDoc_STR("resume_reading($self, /)\n--\n\nTake data again after pause_reading().")},
    {"set_protocol", OWNED(Transport_set_protocol), METH_O,
     PyDoc_STR("set_protocol($self, protocol, /)\n--\n\nGive the connection to another protocol.")},
    {"get_protocol", OWNED(Transport_get_protocol), METH_NOARGS,
     PyDoc_STR("get_protocol($self, /)\n--\n\nThe current protocol; None after the end.")},
    {"get_extra_info", (PyCFunction)(void (*)(void))Transport_get_extra_info,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("get_extra_info($self, /, name, default=None)\n--\n\n"
               "What is known of the connection: 'socket', 'sockname', 'peername'.")},
    {"get_write_buffer_size", OWNED(Transport_get_write_buffer_size), METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self, /)\n--\n\nBytes that wait to be sent.")},
    {"get_write_buffer_limits", OWNED(Transport_get_write_buffer_limits), METH_NOARGS,
     PyDoc_STR("get_write_buffer_limits($self, /)\n--\n\nThe limits (low, high), in bytes.")},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))OWNED(Transport_set_write_buffer_limits),
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
               "The protocol pauses above `high` waiting bytes and resumes at `low`.\n\n"
               "ValueError unless high >= low >= 0.")},
    {"_set_write_buffer_limits", (PyCFunction)(void (*)(void))OWNED(Transport__set_write_buffer_limits),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_maybe_pause_protocol", OWNED(Transport__maybe_pause_protocol), METH_NOARGS, NULL},
    {"_maybe_resume_protocol", OWNED(Transport__maybe_resume_protocol), METH_NOARGS, NULL},
    {"_force_close", OWNED(Transport__force_close), METH_O, NULL},
    {"_fatal_error", (PyCFunction)(void (*)(void))OWNED(Transport__fatal_error),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
Transport_set_protocol_attribute(PyObject *op, PyObject *value, void *closure UNUSED)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_protocol cannot be deleted");
        return -1;
    }
    Transport *tr = transport_cast(op);
    return proto_set(&tr->proto, tr->state, value);
}

static PyGetSetDef Transport_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_loop", Transport_get_loop, NULL, NULL, NULL},
    {"_protocol", OWNED(Transport_get_protocol_attribute), Transport_set_protocol_attribute, NULL, NULL},
    {"_protocol_connected", OWNED(Transport_get_protocol_connected), NULL, NULL, NULL},
    {"_protocol_paused", Transport_get_protocol_paused, NULL, NULL, NULL},
    {"_sock", Transport_get_file, NULL, NULL, NULL},
    {"_sock_fd", Transport_get_fd, NULL, NULL, NULL},
    {"_server", OWNED(Transport_get_server), NULL, NULL, NULL},
    {"_context", OWNED(Transport_get_context), NULL, NULL, NULL},
    {"_extra", Transport_get_extra, NULL, NULL, NULL},
    {"_closing", Transport_get_closing, NULL, NULL, NULL},
    {"_conn_lost", Transport_get_conn_lost, NULL, NULL, NULL},
    {"_paused", Transport_get_paused, NULL, NULL, NULL},
    {"_low_water", Transport_get_limit, NULL, NULL, NULL},
    {"_high_water", Transport_get_limit, NULL, NULL, (void *)1},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Transport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(Transport, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Transport, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot Transport_slots[] = {
    {Py_tp_doc, "What all transports of asyncloop share."},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_repr, Transport_repr},
    {Py_tp_methods, Transport_methods},
    {Py_tp_getset, Transport_getset},
    {Py_tp_members, Transport_members},
    {0, NULL},
};

static PyType_Spec Transport_spec = {
    .name = "asyncloop._core.Transport",
    .basicsize = sizeof(Transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Transport_slots,
};

/* Where asyncio's classes keep their slots in an instance. */
static void
find_base_slots(struct state *state)
{
    static const char *const names[] = {"_extra", "_loop", "_protocol_paused", "_high_water",
                                        "_low_water"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        PyObject *descriptor = PyObject_GetAttrString(state->asyncio_FlowControlMixin, names[i]);
        if (descriptor == NULL) {
            PyErr_Clear();    /* a version without that slot */
            continue;
        }
        if (Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
            PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
            state->transport_slots[state->transport_slot_count++] = member->offset;
        }
        Py_DECREF(descriptor);
    }
}

int
transport_types_init(PyObject *module, struct state *state)
{
    find_base_slots(state);
    return state_add_type(module, &Transport_spec, state->asyncio_FlowControlMixin,
                          ASYNCIO_TRANSPORT_SIZE, &state->TransportType);
}
