/* transport.c - the base type of all transports. See transport.h for the states.
 *
 * Danger: every call of a protocol, an exception handler or a logger may close or abort
 * the transport, run the loop inside itself, and drop the last outside reference. Each
 * function below that calls out holds the transport itself, or its caller does, and looks
 * at its state again afterwards. */
#include "net/transport.h"

#include "base/args.h"
#include "base/context.h"
#include "loop/overrides.h"
#include "loop/owner.h"
#include "tasks/future.h"
#include "net/clients.h"

#include <errno.h>

/* -- methods of its own --------------------------------------------------------------- */

PyObject *
transport_own_method(Transport *tr, const char *name)
{
    if (LIKELY(tr->head.dict == NULL)) {
        return NULL;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *method = Py_XNewRef(PyDict_GetItemString(tr->head.dict, name));
    PyErr_SetRaisedException(exc);
    return method;
}

/* Calls it (stolen) with exc, and with a message if there is one. 0, or -1 with what it raised. */
static int
call_own_steal(PyObject *method, PyObject *exc, const char *message)
{
    PyObject *result = message == NULL ? PyObject_CallOneArg(method, exc)
                                       : PyObject_CallFunction(method, "Os", exc, message);
    Py_DECREF(method);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
transport_drop_write(Transport *tr)
{
    return channel_drop_write(&tr->head, "socket.send() raised exception.");
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
    if (tr->head.loop != NULL) {
        watch_release_fd(tr->head.loop, tr->fd, (PyObject *)tr);
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
            : PyObject_CallMethodNoArgs(tr->file, tr->head.state->names.close);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Only what the kernel did not take waits, and so its watch is active. */
static void
transports_forked_in(Loop *loop, const struct list_node *head, PyObject *found)
{
    for (struct list_node *node = head->next; node != head; node = node->next) {
        struct watch *watch = container_of(node, struct watch, active);
        if (PyObject_TypeCheck(watch->owner, net_state(loop->state)->types.Transport)
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
    return Py_REFCNT(tr) > 2 || SHARED_LOAD(tr->head.weakrefs) != NULL;
#endif
}

/* The current exception came later than *failed, and takes its place. */
static void
failed_later(PyObject **failed)
{
    Py_XSETREF(*failed, PyErr_GetRaisedException());
}

/* The last step of a transport: the descriptor is closed, everything is forgotten, whatever fails. */
static void
transport_finish(Transport *tr, PyObject **failed)
{
    transport_stop_watches(tr);
    transport_release_fd(tr);
    proto_drop_protocol(&tr->head.proto);
    {
        GUARD(tr);    /* get_extra_info() may come from any thread */
        if (transport_is_known(tr) && transport_remember_sockname(tr) < 0) {
            PyErr_WriteUnraisable((PyObject *)tr);
        }
        if (UNLIKELY(transport_close_file(tr) < 0)) {
            failed_later(failed);
        }
    }
    proto_clear(&tr->head.proto);
    transport_leave_loop(tr);
    if (UNLIKELY(server_detach(tr) < 0)) {
        failed_later(failed);
    }
    GUARD(tr);    /* without a loop, it is what guards the transport */
    if (tr->kind->lost != NULL) {
        tr->kind->lost(tr);
    }
}

/* asyncio's _call_connection_lost(): exc is NULL for a connection that ended in order. 0, or -1 with what
 * connection_lost(), close() of the socket or _detach() of the server has raised last. */
static int
transport_lose(Transport *tr, PyObject *exc)
{
    PyObject *loop = Py_XNewRef((PyObject *)tr->head.loop);
    PyObject *failed = NULL;
    if (loop == NULL) {
        return 0;    /* it has ended in what stops the watches */
    }
    PyObject *protocol = exc == NULL ? NULL : Py_XNewRef(tr->head.proto.protocol);
    Py_INCREF(tr);
    PyObject *value = proto_call(&tr->head.proto, tr->head.state->names.connection_lost, exc == NULL ? Py_None : exc);
    Py_XDECREF(value);
    if (protocol != NULL) {
        channel_lost_was_told(&tr->head, protocol, exc);
    }
    if (LIKELY(value != NULL)) {
        Py_XDECREF(protocol);
        transport_finish(tr, &failed);
    }
    else {
        _PyErr_StackItem level;
        failed_later(&failed);
        Py_XDECREF(protocol);
        handling_begin(&level, failed);
        transport_finish(tr, &failed);
        handling_end(&level);
    }
    Py_DECREF(tr);
    Py_DECREF(loop);
    PyErr_SetRaisedException(failed);
    return failed == NULL ? 0 : -1;
}

/* Native callback. */
static int
transport_run_lost(PyObject *owner, PyObject *exc)
{
    Loop *loop = (Loop *)Py_XNewRef(transport_cast(owner)->head.loop);
    int result = transport_lose(transport_cast(owner), exc);
    if (UNLIKELY(result < 0)) {
        result = channel_call_failed(loop, owner, "_call_connection_lost", exc == NULL ? Py_None : exc);
    }
    Py_XDECREF(loop);
    return result;
}

static const struct owed_kind transport_lost = {transport_run_lost, offsetof(Channel, owed_lost)};

int
transport_call_soon_steal(Transport *tr, PyObject *callback, PyObject *args)
{
    PyObject *all = callback == NULL || args == NULL ? NULL : PyTuple_Pack(1, callback);
    if (all != NULL) {
        Py_SETREF(all, PySequence_Concat(all, args));
    }
    Py_XDECREF(callback);
    Py_XDECREF(args);
    PyObject *loop = tr->head.loop == NULL ? Py_None : (PyObject *)tr->head.loop;    /* ended by the last call */
    Py_INCREF(loop);
    PyObject *handle = context_call_method_steal(loop, "call_soon", all, (PyObject *)tr);
    Py_DECREF(loop);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* Marks the connection as lost and schedules connection_lost(). */
static int
transport_schedule_lost(Transport *tr, PyObject *exc)
{
    assert(tr->head.conn_lost == 0 && tr->head.loop != NULL);
    SHARED_STORE(tr->head.conn_lost, 1);
    bool told = (loop_replaced(tr->head.loop) & LOOP_SOON) != 0;
    PyObject *own = UNLIKELY(told) ? PyObject_GetAttrString((PyObject *)tr, "_call_connection_lost")
                                   : transport_own_method(tr, "_call_connection_lost");
    if (UNLIKELY(told || own != NULL)) {
        return transport_call_soon_steal(tr, own, PyTuple_Pack(1, exc == NULL ? Py_None : exc));
    }
    return loop_call_soon_surely(tr->head.loop, &tr->head.owed_lost, &transport_lost, exc);
}

static void
transport_set_closing(Transport *tr)
{
    SET_FLAG(tr->head.closing, true);
    transport_release_fd(tr);
    if (!tr->kind->close_ends_output || tr->kind->queued(tr) == 0) {    /* else the other end is still watched */
        watch_stop(&tr->read_watch);
    }
}

int
transport_close(Transport *tr)
{
    if (FLAG(tr->head.closing)) {
        return 0;
    }
    transport_set_closing(tr);
    if (tr->kind->queued(tr) > 0) {
        return 0;    /* transport_drained() goes on */
    }
    if (LIKELY(tr->kind->is_socket)) {
        watch_stop_anyway(&tr->write_watch);
        if (LIKELY(tr->head.loop != NULL)) {
            watch_clear_place(tr->head.loop, tr->fd, EV_WRITE);
        }
    }
    else {
        watch_stop(&tr->write_watch);
    }
    return LIKELY(tr->head.conn_lost == 0) ? transport_schedule_lost(tr, NULL)
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
    if (tr->head.conn_lost > 0) {
        return 0;
    }
    watch_stop(&tr->write_watch);
    if (!FLAG(tr->head.closing)) {
        transport_set_closing(tr);
    }
    watch_stop(&tr->read_watch);
    if (UNLIKELY(tr->head.conn_lost > 0)) {
        return 0;    /* in what stops the watches */
    }
    int result = transport_schedule_lost(tr, exc);
    tr->kind->discard_output(tr);    /* last: to drop an address of the user's may run Python */
    return result;
}

int
transport_drained(Transport *tr)
{
    if (!FLAG(tr->head.closing) || tr->head.conn_lost > 0 || tr->head.loop == NULL) {
        return 0;
    }
    SHARED_STORE(tr->head.conn_lost, 1);
    return transport_lose(tr, NULL);
}

int
transport_lose_now(Transport *tr, PyObject *exc)
{
    if (tr->head.loop == NULL) {
        return 0;
    }
    if (!FLAG(tr->head.closing)) {
        transport_set_closing(tr);
    }
    watch_stop(&tr->write_watch);
    if (tr->head.conn_lost == 0) {
        SHARED_STORE(tr->head.conn_lost, 1);
    }
    tr->kind->discard_output(tr);
    return transport_lose(tr, exc);
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
    int result = channel_tell_fatal(&tr->head, (PyObject *)tr, message, exc, transport_expects(tr, exc));
    if (LIKELY(result == 0) && tr->head.loop != NULL && transport_force_close(tr, exc) < 0) {
        /* the loop was closed meanwhile: nobody is left to call connection_lost() */
        PyErr_Clear();
    }
    Py_DECREF(tr);
    Py_DECREF(exc);
    return result;
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

void
transport_step_failed(Transport *tr, Loop *loop, const char *method, int revents)
{
    if ((revents & WATCH_BY_HAND) || channel_call_failed(loop, (PyObject *)tr, method, NULL) < 0) {
        loop_propagate(loop);
    }
}

/* -- reading ---------------------------------------------------------------------------------- */

int
transport_watch(Transport *tr, struct watch *watch)
{
    PyObject *own = transport_own_method(tr, watch == &tr->read_watch ? "_read_ready" : "_write_ready");
    int result = LIKELY(own == NULL) ? watch_start(watch) : watch_start_by_method(watch);
    Py_XDECREF(own);
    if (watch == &tr->write_watch && LIKELY(result == 0) && tr->kind->is_socket) {
        transport_clear_writer(tr);
    }
    return result;
}

int
transport_update_reading(Transport *tr)
{
    if (transport_wants_data(tr)) {
        return transport_watch(tr, &tr->read_watch);
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
               ? transport_call_flow(tr, tr->head.state->names._maybe_pause_protocol)
               : transport_pause_if_full(tr);
}

int
transport_maybe_resume(Transport *tr)
{
    if (LIKELY(!transport_flow_is_replaced(tr))) {
        return transport_resume_if_empty(tr);
    }
    return transport_call_flow(tr, tr->head.state->names._maybe_resume_protocol);
}

int
transport_pause_if_full(Transport *tr)
{
    if (LIKELY(tr->kind->queued(tr) <= tr->head.limits.high) || FLAG(tr->head.protocol_paused)) {
        return 0;
    }
    return channel_pause_writing(&tr->head);
}

int
transport_resume_if_empty(Transport *tr)
{
    if (LIKELY(!FLAG(tr->head.protocol_paused)) || tr->kind->queued(tr) > tr->head.limits.low) {
        return 0;
    }
    return channel_resume_writing(&tr->head);
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
    tr->fd = fd;
    list_init(&tr->client);
    watch_init(&tr->read_watch, loop, (PyObject *)tr, WATCH_TRANSPORT, fd, EV_READ,
               transport_on_no_event);
    watch_init(&tr->write_watch, loop, (PyObject *)tr, WATCH_TRANSPORT, fd, EV_WRITE,
               transport_on_no_event);
    COUNT_SHARED(loop->counters->transports, 1);
    tr->head.extra = Py_XNewRef(extra);
    if (channel_init(&tr->head, loop, protocol, context,
                     kind->is_socket ? PROTO_FOR_SOCKET : PROTO_FOR_PIPE, TRANSPORT_HIGH_WATER)
            < 0
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
    bool closing = FLAG(transport_cast(user)->head.closing);
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
    server_abandon(tr);
    tr->file_closed = true;
    SET_FLAG(tr->head.closing, true);
    SHARED_STORE(tr->head.conn_lost, 1);
    io_forget_class(&tr->io);
    io_forget_number(&tr->io);
    Py_CLEAR(tr->file);
    Py_CLEAR(tr->made);
    Py_DECREF(tr);
    PyErr_SetRaisedException(exc);
}

/* To watch it has failed. For asyncio that is a callback of its own: reported, and the transport reads nothing.
 * Without memory nobody would ever hear of that. */
static void
transport_not_watched(Transport *tr, Loop *loop)
{
    if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
        loop_report(loop, "Exception in callback _add_reader()", NULL, NULL);
    }
    else if (transport_fatal(tr, READ_FAILED(tr)) < 0) {
        PyErr_WriteUnraisable((PyObject *)tr);
    }
}

/* After connection_made(); the caller holds the loop, if there is one. asyncio has taken _read_ready() from the
 * transport by then: what connection_made() puts there counts from resume_reading() on. 0 / -1 */
static inline int
transport_begin_reading(Transport *tr, Loop *loop)
{
    tr->begun = true;
    if (loop != NULL && tr->kind->is_socket) {
        watch_clear_place(loop, tr->fd, EV_READ);
    }
    return loop == NULL || !transport_wants_data(tr) ? 0 : watch_start(&tr->read_watch);
}

/* Native callback: the transport's first iteration. */
static int
transport_run_begin(PyObject *owner, PyObject *waiter)
{
    Transport *tr = transport_cast(owner);
    int result = 0;
    PyObject *made = tr->made;
    Loop *loop = (Loop *)Py_XNewRef(tr->head.loop);    /* what is called may end the transport */
    tr->made = NULL;
    PyObject *protocol = Py_XNewRef(tr->head.proto.protocol);
    PyObject *value = made == NULL ? proto_connection_made(&tr->head.proto, tr->head.state, owner)
                                   : proto_call_bound(&tr->head.proto, made, owner);
    if (UNLIKELY(value == NULL)) {    /* for asyncio it is a callback of its own */
        result = made == NULL ? channel_call_failed(loop, protocol, "connection_made", owner)
                              : channel_call_failed(loop, made, NULL, owner);
    }
    Py_XDECREF(protocol);
    Py_XDECREF(made);
    Py_XDECREF(value);
    PyObject *leaving = PyErr_GetRaisedException();
    if (transport_begin_reading(tr, tr->head.loop == NULL ? NULL : loop) < 0) {
        transport_not_watched(tr, loop);
    }
    Py_XDECREF(loop);
    if (waiter != NULL && future_settle_result(tr->head.state, waiter, Py_None) < 0) {
        PyErr_WriteUnraisable(waiter);
    }
    PyErr_SetRaisedException(leaving);
    return result;
}

/* What asyncio schedules for that is transport._add_reader(fd, transport._read_ready). */
static PyObject *
begin_reading(PyObject *op, PyObject *args UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Transport *tr = transport_cast(op);
    Loop *loop = (Loop *)Py_XNewRef(tr->head.loop);
    int result = transport_begin_reading(tr, loop);
    Py_XDECREF(loop);
    return none_or_error(result);
}

static PyMethodDef begin_reading_def = {"_add_reader", begin_reading, METH_VARARGS, NULL};

/* The program looks at what is scheduled: the calls that asyncio makes, in their order. */
static int
transport_begin_by_method(Transport *tr, PyObject *waiter)
{
    PyObject *op = (PyObject *)tr;
    PyObject *made = PyObject_GetAttr(tr->head.proto.protocol, tr->head.state->names.connection_made);
    if (transport_call_soon_steal(tr, made, PyTuple_Pack(1, op)) < 0) {
        return -1;
    }
    if (!tr->read_eof) {
        PyObject *ready = PyObject_GetAttrString(op, "_read_ready");
        PyObject *args = ready == NULL ? NULL : Py_BuildValue("(iN)", tr->fd, ready);
        if (transport_call_soon_steal(tr, PyCFunction_New(&begin_reading_def, op), args) < 0) {
            return -1;
        }
    }
    if (waiter == NULL) {
        return 0;
    }
    PyObject *futures = PyImport_ImportModule("asyncio.futures");
    PyObject *set = futures == NULL ? NULL : PyObject_GetAttrString(futures, "_set_result_unless_cancelled");
    Py_XDECREF(futures);
    return transport_call_soon_steal(tr, set, PyTuple_Pack(2, waiter, Py_None));
}

int
transport_begin(Transport *tr, PyObject *waiter)
{
    if (UNLIKELY((loop_replaced(tr->head.loop) & LOOP_SOON) != 0)) {
        return transport_begin_by_method(tr, waiter);
    }
    if (tr->head.proto.kind != PROTO_READER) {
        /* Looked up now: who makes a transport for what is no protocol hears of it. */
        tr->made = PyObject_GetAttr(tr->head.proto.protocol, tr->head.state->names.connection_made);
        if (tr->made == NULL) {
            return -1;
        }
        if (UNLIKELY(tr->head.loop == NULL)) {
            return loop_closed_error(NULL);    /* by what gave the attribute */
        }
    }
    return loop_call_soon_native(tr->head.loop, transport_run_begin, (PyObject *)tr, waiter);
}
