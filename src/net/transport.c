/* transport.c - the base type of all transports. See transport.h for the states.
 *
 * Danger: every call of a protocol, an exception handler or a logger may close or abort
 * the transport, run the loop inside itself, and drop the last outside reference. Each
 * function below that calls out holds the transport itself, or its caller does, and looks
 * at its state again afterwards. */
#include "net/transport.h"

#include "base/args.h"
#include "loop/owner.h"
#include "tasks/future.h"
#include "net/clients.h"
#include "net/reader.h"

#include <errno.h>

/* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
#define DROPPED_WRITES_BEFORE_WARNING 5
#define DEFAULT_HIGH_WATER (64 * 1024)    /* bytes, as asyncio */

static int transport_run_lost(PyObject *owner, PyObject *exc);

/* -- telling ------------------------------------------------------------------------- */

/* Gives exc (borrowed) to the loop's exception handler. `message_steal` may be NULL with
 * an exception set. Fails silently into sys.unraisablehook. */
static void
transport_report(Transport *tr, PyObject *message_steal, PyObject *exc)
{
    struct state_names *names = &tr->state->names;
    PyObject *protocol = Py_NewRef(tr->proto.protocol != NULL ? tr->proto.protocol : Py_None);
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
    Py_DECREF(protocol);
}

int
transport_callback_failed(Transport *tr, const char *format)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *protocol = tr->proto.protocol;
    transport_report(tr, PyUnicode_FromFormat(format, protocol == NULL ? "protocol" : Py_TYPE(protocol)->tp_name),
                     exc);
    Py_DECREF(exc);
    return 0;
}

int
transport_call_failed(Transport *tr, PyObject *object, const char *method, PyObject *arg)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    Loop *loop = (Loop *)Py_XNewRef(tr->loop);
    PyObject *callback = PyObject_GetAttrString(object, method);
    if (callback == NULL) {
        PyErr_Clear();    /* it was taken away meanwhile */
        callback = Py_NewRef(object);
    }
    PyErr_SetRaisedException(exc);
    if (loop != NULL) {
        handle_call_failed(loop, callback, arg);
    }
    else {
        PyErr_WriteUnraisable(callback);
    }
    Py_DECREF(callback);
    Py_XDECREF(loop);
    return 0;
}

PyObject *
transport_own_method(Transport *tr, const char *name)
{
    if (LIKELY(tr->dict == NULL)) {
        return NULL;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *method = Py_XNewRef(PyDict_GetItemString(tr->dict, name));
    PyErr_SetRaisedException(exc);
    return method;
}

/* Calls it (stolen) with nargs arguments, of which there are none, exc, or exc and a message. 0, or -1
 * with what it raised. */
static int
call_own_steal(PyObject *method, PyObject *exc, const char *message)
{
    PyObject *result = exc == NULL       ? PyObject_CallNoArgs(method)
                       : message == NULL ? PyObject_CallOneArg(method, exc)
                                         : PyObject_CallFunction(method, "Os", exc, message);
    Py_DECREF(method);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

PyObject *
transport_logger(struct state *state, const char *module)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *where = PyImport_ImportModule(module);
    PyObject *logger = where == NULL ? NULL : PyObject_GetAttrString(where, "logger");
    Py_XDECREF(where);
    if (logger == NULL) {
        PyErr_Clear();
        logger = Py_NewRef(net_state(state)->transports.logger);
    }
    PyErr_SetRaisedException(exc);
    return logger;
}

static PyObject *
logger_of(Transport *tr)
{
    return transport_logger(tr->state, tr->kind->is_socket ? "asyncio.selector_events"
                                                           : "asyncio.unix_events");
}

static void
transport_log(Transport *tr, const char *level, const char *format)
{
    if (LIKELY(tr->loop == NULL || !FLAG(tr->loop->debug))) {
        return;
    }
    PyObject *logger = logger_of(tr);
    PyObject *result = PyObject_CallMethod(logger, level, "sO", format, tr);
    Py_DECREF(logger);
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
    PyObject *logger = logger_of(tr);
    PyObject *result = PyObject_CallMethod(logger, "warning", "s", message);
    Py_DECREF(logger);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)tr);
    }
    Py_XDECREF(result);
}

/* logger.debug('%r: %s', transport, message, exc_info=exc) */
static void
transport_log_os_error(Transport *tr, const char *message, PyObject *exc)
{
    PyObject *logger = logger_of(tr);
    PyObject *debug = PyObject_GetAttrString(logger, "debug");
    Py_DECREF(logger);
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

void
transport_stop_watches(Transport *tr)
{
    watch_stop(&tr->read_watch);
    watch_stop(&tr->write_watch);
}

void
transport_release_fd(Transport *tr)
{
    if (tr->loop != NULL) {
        watch_release_fd(tr->loop, tr->fd, (PyObject *)tr);
    }
}

/* Closes the descriptor through the object that owns it. Where the descriptor was closed
 * behind its back the number may be another file's by now: then the object only forgets
 * it. */
int
transport_close_file(Transport *tr)
{
    if (tr->kind->push != NULL) {
        tr->kind->push(tr);    /* with unread input close() would drop it */
    }
    if (tr->file_closed || tr->file == NULL) {
        return 0;
    }
    tr->file_closed = true;
    if (tr->io.ops != NULL) {
        tr->io.ops->close(&tr->io);
    }
    PyObject *result =
        tr->fd_gone && tr->kind->is_socket
            ? PyObject_CallMethod(tr->file, "detach", NULL)
            : PyObject_CallMethodNoArgs(tr->file, tr->state->names.close);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Only what the kernel did not take waits, and so its watch is active. */
static void
transports_forked_in(Loop *loop, const struct list_node *head, PyObject *found)
{
    for (struct list_node *node = head->next; node != head; node = node->next) {
        struct watch *watch = container_of(node, struct watch, active);
        if (PyObject_TypeCheck(watch->owner, net_state(loop->state)->transports.Type)
            && watch == &transport_cast(watch->owner)->write_watch
            && PyList_Append(found, watch->owner) < 0) {
            PyErr_WriteUnraisable(watch->owner);
        }
    }
}

void
transports_forked(struct state *state)
{
    PyObject *found = PyList_New(0);    /* to drop an address of the user's may run Python */
    if (found == NULL) {
        PyErr_WriteUnraisable(NULL);
        return;
    }
    for (struct list_node *node = loop_state(state)->loops.all.next; node != &loop_state(state)->loops.all; node = node->next) {
        Loop *loop = container_of(node, Loop, all_loops);
        transports_forked_in(loop, &loop->fds.active, found);
        transports_forked_in(loop, &loop->fds.noted, found);
        transports_forked_in(loop, &loop->fds.lent, found);
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(found); i++) {
        Transport *tr = transport_cast(PyList_GET_ITEM(found, i));
        io_drop_output(&tr->io, tr->kind->is_socket);
        tr->kind->discard_output(tr);
    }
    Py_DECREF(found);
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

/* The last step of a transport: the descriptor is closed, everything is forgotten. 0, or -1 with an exit
 * exception of close(); any other goes to the exception handler. */
static int
transport_finish(Transport *tr)
{
    int result = 0;
    Py_INCREF(tr);
    transport_stop_watches(tr);
    transport_release_fd(tr);
    proto_drop_protocol(&tr->proto);
    {
        GUARD(tr);    /* get_extra_info() may come from any thread */
        if (transport_is_known(tr) && transport_remember_sockname(tr) < 0) {
            PyErr_WriteUnraisable((PyObject *)tr);
        }
        result = transport_close_file(tr);
    }
    PyObject *exc = NULL;
    if (UNLIKELY(result < 0)) {
        result = transport_callback_failed(
            tr, "Exception in callback _SelectorTransport._call_connection_lost()");
        exc = PyErr_GetRaisedException();
    }
    proto_clear(&tr->proto);
    Loop *loop = (Loop *)Py_XNewRef(tr->loop);
    transport_leave_loop(tr);
    server_detach(tr, false);
    {
        GUARD(tr);    /* without a loop, it is what guards the transport */
        if (tr->kind->lost != NULL) {
            tr->kind->lost(tr);
        }
    }
    Py_XDECREF(loop);
    Py_DECREF(tr);
    PyErr_SetRaisedException(exc);
    return result;
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
        result = transport_call_failed(tr, owner, "_call_connection_lost", exc == NULL ? Py_None : exc);
    }
    Py_XDECREF(value);
    PyObject *leaving = PyErr_GetRaisedException();
    if (protocol != NULL) {
        reader_error_is_known(tr->state, protocol);
        Py_DECREF(protocol);
    }
    if (transport_finish(tr) < 0) {
        result = -1;
        Py_XDECREF(leaving);
    }
    else {
        PyErr_SetRaisedException(leaving);
    }
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

int
transport_close(Transport *tr)
{
    if (tr->closing) {
        return 0;
    }
    transport_set_closing(tr);
    if (tr->kind->queued(tr) > 0) {
        return 0;    /* transport_drained() goes on */
    }
    if (LIKELY(tr->kind->is_socket)) {
        watch_stop_anyway(&tr->write_watch);
    }
    else {
        watch_stop(&tr->write_watch);
    }
    return LIKELY(tr->conn_lost == 0) ? transport_schedule_lost(tr, NULL)
                                      : 0;    /* it was lost in what stops the watches */
}

int
transport_force_close(Transport *tr, PyObject *exc)
{
    PyObject *own = transport_own_method(tr, "_force_close");
    return LIKELY(own == NULL) ? transport_force_close_here(tr, exc)
                               : call_own_steal(own, exc == NULL ? Py_None : exc, NULL);
}

int
transport_force_close_here(Transport *tr, PyObject *exc)
{
    if (tr->conn_lost > 0) {
        return 0;
    }
    watch_stop(&tr->write_watch);
    if (!tr->closing) {
        transport_set_closing(tr);
    }
    if (UNLIKELY(tr->conn_lost > 0)) {
        return 0;    /* in what stops the watches */
    }
    int result = transport_schedule_lost(tr, exc);
    tr->kind->discard_output(tr);    /* last: to drop an address of the user's may run Python */
    return result;
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

int
transport_lose_now(Transport *tr, PyObject *exc)
{
    if (tr->loop == NULL) {
        return 0;
    }
    if (!tr->closing) {
        transport_set_closing(tr);
    }
    watch_stop(&tr->write_watch);
    tr->conn_lost += tr->conn_lost == 0;
    tr->kind->discard_output(tr);
    return transport_run_lost((PyObject *)tr, exc);
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
    PyObject *own = is_exit_exception() ? NULL : transport_own_method(tr, "_fatal_error");
    if (LIKELY(own == NULL)) {
        return transport_fatal_here(tr, message);
    }
    PyObject *exc = PyErr_GetRaisedException();
    int result = call_own_steal(own, exc, message);
    Py_DECREF(exc);
    if (result < 0 && !is_exit_exception()) {
        PyErr_WriteUnraisable((PyObject *)tr);
        result = 0;
    }
    return result;
}

int
transport_fatal_here(Transport *tr, const char *message)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    Py_INCREF(tr);
    if (!transport_expects(tr, exc)) {
        transport_report(tr, PyUnicode_FromString(message), exc);
    }
    else if (tr->loop != NULL && FLAG(tr->loop->debug)) {
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
    if (err != 0) {
        errno = err;
        PyErr_SetFromErrno(PyExc_OSError);
    }
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

size_t
transport_max_size(Transport *tr, size_t most)
{
    size_t size = most;
    PyObject *value = PyObject_GetAttrString((PyObject *)tr, "max_size");
    if (value == NULL || args_size(value, &size) < 0 || size == 0) {
        PyErr_Clear();
        size = most;
    }
    Py_XDECREF(value);
    return size < most ? size : most;
}

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

/* By the transport's method of that name, which may be somebody else's. */
static int
transport_call_flow(Transport *tr, PyObject *name)
{
    PyObject *op = Py_NewRef((PyObject *)tr);
    PyObject *result = PyObject_CallMethodNoArgs(op, name);
    Py_DECREF(op);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
transport_maybe_pause(Transport *tr)
{
    return UNLIKELY(transport_flow_is_replaced(tr))
               ? transport_call_flow(tr, tr->state->names._maybe_pause_protocol)
               : transport_pause_if_full(tr);
}

int
transport_maybe_resume(Transport *tr)
{
    if (LIKELY(!transport_flow_is_replaced(tr))) {
        return transport_resume_if_empty(tr);
    }
    return transport_call_flow(tr, tr->state->names._maybe_resume_protocol) < 0
               ? transport_callback_failed(tr, "Exception in callback _SelectorTransport._write_ready()")
               : 0;
}

int
transport_pause_if_full(Transport *tr)
{
    if (LIKELY(tr->kind->queued(tr) <= tr->high_water) || tr->protocol_paused) {
        return 0;
    }
    tr->protocol_paused = true;
    PyObject *result = proto_call_here(&tr->proto, tr->state->names.pause_writing);
    if (result == NULL) {
        return transport_callback_failed(tr, "protocol.pause_writing() failed");
    }
    Py_DECREF(result);
    return 0;
}

int
transport_resume_if_empty(Transport *tr)
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
    if (PyLong_Check(limit)) {
        return args_size(limit, bytes);
    }
    PyObject *real = PyNumber_Float(limit);
    if (real == NULL) {
        return -1;
    }
    double value = PyFloat_AS_DOUBLE(real);
    Py_DECREF(real);
    *bytes = value >= (double)PY_SSIZE_T_MAX ? SIZE_MAX : (size_t)value;
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

int
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
    watch_init(&tr->read_watch, loop, (PyObject *)tr, WATCH_TRANSPORT, fd, EV_READ,
               transport_on_no_event);
    watch_init(&tr->write_watch, loop, (PyObject *)tr, WATCH_TRANSPORT, fd, EV_WRITE,
               transport_on_no_event);
    tr->loop = (Loop *)Py_NewRef(loop);
    COUNT_SHARED(loop->counters->transports, 1);
    tr->extra = Py_XNewRef(extra);
    if (proto_init(&tr->proto, protocol, context, kind->is_socket ? PROTO_FOR_SOCKET : PROTO_FOR_PIPE) < 0
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
    if (!PyObject_TypeCheck(sock, (PyTypeObject *)state->standard.socket_class)
        || Py_TYPE(sock)->tp_basicsize < (Py_ssize_t)sizeof(struct socket_object)) {
        return NULL;
    }
    const struct socket_object *object = (const struct socket_object *)sock;
    return object->number == fd ? &object->number : NULL;
}

int
transport_ensure_free(Loop *loop, int fd, PyObject *named)
{
    PyObject *user = watch_fd_transport(loop, fd);
    if (LIKELY(user == NULL)) {
        return 0;
    }
    int result = io_is_gone(&transport_cast(user)->io)
                     ? transport_descriptor_gone(transport_cast(user))
                     : 0;
    bool closing = transport_cast(user)->closing;
    Py_DECREF(user);
    return result < 0 ? -1
           : closing  ? 0
                      : watch_ensure_free(loop, fd, named);
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
    io_forget_class(&tr->io);
    Py_CLEAR(tr->file);
    Py_CLEAR(tr->made);
    Py_DECREF(tr);
    PyErr_SetRaisedException(exc);
}

/* Native callback: the transport's first iteration. */
static int
transport_run_begin(PyObject *owner, PyObject *waiter)
{
    Transport *tr = transport_cast(owner);
    int result = 0;
    PyObject *made = tr->made;
    tr->made = NULL;
    PyObject *value = made == NULL ? proto_connection_made(&tr->proto, tr->state, owner)
                                   : proto_call_bound(&tr->proto, made, owner);
    if (value == NULL && (made == NULL || tr->loop == NULL || is_exit_exception())) {
        result = transport_callback_failed(tr, "Exception in callback %.200s.connection_made()");
    }
    else if (value == NULL) {
        Loop *loop = (Loop *)Py_NewRef(tr->loop);
        handle_call_failed(loop, made, owner);    /* for asyncio it is a callback of its own */
        Py_DECREF(loop);
    }
    Py_XDECREF(made);
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
    if (tr->proto.kind != PROTO_READER) {
        /* Looked up now: who makes a transport for what is no protocol hears of it. */
        tr->made = PyObject_GetAttr(tr->proto.protocol, tr->state->names.connection_made);
        if (tr->made == NULL) {
            return -1;
        }
        if (UNLIKELY(tr->loop == NULL)) {
            return loop_closed_error(NULL);    /* by what gave the attribute */
        }
    }
    return loop_call_soon_native(tr->loop, transport_run_begin, (PyObject *)tr, waiter);
}
