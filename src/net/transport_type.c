/* transport_type.c - Python's face of all transports: methods, attributes, garbage.
 *
 * Each method is a parse and a call of transport.c. A kind adds its own (stream.c, pipe.c,
 * datagram.c).
 *
 * Threads:  without a GIL a method that touches the loop owns it; what is only looked at is
 *           read in the critical section, or with SHARED_LOAD(). */
#include "net/transport.h"

#include "base/args.h"
#include "base/context.h"
#include "base/standard.h"
#include "loop/owner.h"
#include "loop/schedule.h"
#include "net/clients.h"

#include <string.h>

/* -- life ----------------------------------------------------------------------- */

int
transport_traverse(PyObject *op, visitproc visit, void *arg)
{
    Transport *tr = transport_cast(op);
    Py_VISIT(tr->file);
    Py_VISIT(tr->made);
    Py_VISIT(tr->server);
    Py_VISIT(tr->socket_view);
    return channel_traverse(&tr->head, visit, arg);
}

int
transport_clear(PyObject *op)
{
    Transport *tr = transport_cast(op);
    server_leave(tr);
    if (tr->head.loop != NULL) {
        watch_abandon(&tr->read_watch);
        watch_abandon(&tr->write_watch);
        transport_release_fd(tr);
    }
    channel_clear(&tr->head);
    io_forget_class(&tr->io);
    io_forget_number(&tr->io);
    Py_CLEAR(tr->file);
    Py_CLEAR(tr->made);
    server_forget(tr);
    Py_CLEAR(tr->socket_view);
    Py_CLEAR(tr->sockname);
    PyObject *peer = transport_named_peer(tr);
    tr->peer.addr.length = 0;
    Py_XDECREF(peer);
    transport_leave_loop(tr);
    return 0;
}

void
transport_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) == 0) {
        PyObject_GC_UnTrack(op);
        server_leave(transport_cast(op));
        channel_free(op);
    }
}

/* Native callback: nobody has it any more, and it was not closed. */
static int
transport_run_abandon(PyObject *op, PyObject *ignored UNUSED)
{
    Transport *tr = transport_cast(op);
    if (tr->file != NULL && !tr->file_closed) {
        channel_warn_unclosed(&tr->head);
        transport_stop_watches(tr);
        transport_release_fd(tr);
        if (transport_close_file(tr) < 0) {
            PyErr_WriteUnraisable(op);
        }
        server_abandon(tr);
    }
#ifdef Py_GIL_DISABLED
    /* From here on any thread may free it: the loop knows its descriptor no more. */
    SET_FLAG(tr->head.closing, true);
    if (tr->head.conn_lost == 0) {
        SHARED_STORE(tr->head.conn_lost, 1);
    }
    transport_leave_loop(tr);
#endif
    return 0;
}

void
transport_finalize(PyObject *op)
{
    Transport *tr = transport_cast(op);
    if (tr->file != NULL && !tr->file_closed) {
        channel_abandon(&tr->head, transport_run_abandon);
    }
}

/* -- methods -------------------------------------------------------------------- */

/* What stops to watch, for a method: 0, or -1 also with what the program's _remove_reader() raises. */
static int
call_stopping(PyObject *op, int (*stops)(Transport *tr, PyObject *exc), PyObject *exc)
{
    Loop *loop = (Loop *)Py_XNewRef(transport_cast(op)->head.loop);
    PyObject *outer = loop == NULL ? NULL : watch_begin_stopping(&loop->fds);
    int result = stops(transport_cast(op), exc);
    if (loop != NULL && watch_end_stopping(loop, outer) < 0) {
        result = -1;
    }
    Py_XDECREF(loop);
    return result;
}

static int
close_stopping(Transport *tr, PyObject *ignored UNUSED)
{
    return transport_close(tr);
}

static int
pause_stopping(Transport *tr, PyObject *ignored UNUSED)
{
    watch_stop(&tr->read_watch);
    return 0;
}

static PyObject *
Transport_close(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return none_or_error(call_stopping(op, close_stopping, NULL));
}

static PyObject *
Transport_abort(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    if (UNLIKELY(transport_cast(op)->head.loop == NULL) && !transport_cast(op)->kind->is_socket) {
        return args_none_has_no("_remove_reader");    /* which asyncio's pipes call first */
    }
    return none_or_error(call_stopping(op, transport_force_close, NULL));
}

static PyObject *
Transport__force_close(PyObject *op, PyObject *exc)
{
    OWN_LOOP_OF(op, Channel);
    return none_or_error(call_stopping(op, transport_force_close_here, exc == Py_None ? NULL : exc));
}

static PyObject *
Transport__fatal_error(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
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
    return none_or_error(transport_fatal_here(transport_cast(op), message));
}

static PyObject *
Transport_is_closing(PyObject *op, PyObject *ignored UNUSED)
{
    return PyBool_FromLong(FLAG(transport_cast(op)->head.closing));
}

static PyObject *
Transport_is_reading(PyObject *op, PyObject *ignored UNUSED)
{
    Transport *tr = transport_cast(op);
    return PyBool_FromLong(!FLAG(tr->head.closing) && !FLAG(tr->head.paused));
}

static PyObject *
Transport_pause_reading(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Transport *tr = transport_cast(op);
    if (FLAG(tr->head.closing) || FLAG(tr->head.paused)) {
        return Py_NewRef(Py_None);
    }
    SET_FLAG(tr->head.paused, true);
    if (call_stopping(op, pause_stopping, NULL) < 0) {
        return NULL;
    }
    server_stops_reading(tr);
    return none_or_error(channel_log(&tr->head, "debug", "%r pauses reading", NULL));
}

static PyObject *
Transport_resume_reading(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Transport *tr = transport_cast(op);
    if (FLAG(tr->head.closing) || !FLAG(tr->head.paused)) {
        return Py_NewRef(Py_None);
    }
    SET_FLAG(tr->head.paused, false);
    tr->read_eof = false;
    if (transport_update_reading(tr) < 0) {
        return NULL;
    }
    return none_or_error(channel_log(&tr->head, "debug", "%r resumes reading", NULL));
}

/* asyncio's transports have these from classes that anybody can reach; who replaces one there means ours as
 * well. */
enum above {
    ABOVE_INFO,
    ABOVE_SET_LIMITS,
    ABOVE_GET_LIMITS,
    ABOVE_SET,
    ABOVE_PAUSE,
    ABOVE_RESUME,
    ABOVE_COUNT,
};
static const char *const above_names[ABOVE_COUNT] = {
    "BaseTransport.get_extra_info",
    "_FlowControlMixin.set_write_buffer_limits",
    "_FlowControlMixin.get_write_buffer_limits",
    "_FlowControlMixin._set_write_buffer_limits",
    "_FlowControlMixin._maybe_pause_protocol",
    "_FlowControlMixin._maybe_resume_protocol",
};

/* The method above ours, bound to the transport: new reference, or NULL with an exception. *own: it is
 * asyncio's. */
static PyObject *
method_above(PyObject *op, const char *qualname, bool *own)
{
    PyObject *module = PyImport_ImportModule("asyncio.transports");
    PyTypeObject *type = net_state(transport_cast(op)->head.state)->types.Transport;
    PyObject *super = module == NULL ? NULL
                                     : PyObject_CallFunctionObjArgs((PyObject *)&PySuper_Type,
                                                                    (PyObject *)type, op, NULL);
    PyObject *found = super == NULL ? NULL : PyObject_GetAttrString(super, strchr(qualname, '.') + 1);
    *own = found != NULL && PyMethod_Check(found)
           && standard_function(PyMethod_GET_FUNCTION(found), PyModule_GetDict(module), qualname);
    Py_XDECREF(super);
    Py_XDECREF(module);
    return found;
}

/* What a program has put in the place of that method: new reference. NULL: nothing, or with an
 * exception. */
static PyObject *
replaced_above(PyObject *op, enum above which)
{
    struct net_state *net = net_state(transport_cast(op)->head.state);
    PyTypeObject *type = net->types.Transport;
    if (LIKELY(standard_class_is_same(type, &net->transports.above_version))) {
        return NULL;
    }
    unsigned int version = standard_version_given(type);
    bool all = true;
    PyObject *replaced = NULL;
    for (int i = 0; i < ABOVE_COUNT; i++) {
        bool own;
        PyObject *found = method_above(op, above_names[i], &own);
        if (found == NULL) {
            Py_XDECREF(replaced);
            return NULL;
        }
        all &= own;
        if (i == (int)which && !own) {
            replaced = Py_NewRef(found);
        }
        Py_DECREF(found);
    }
    if (all) {
        SHARED_STORE(net->transports.above_version, version);
    }
    return replaced;
}

/* Calls what was put in the place of the method. False: nothing was. */
static bool
call_replaced_above(PyObject *op, enum above which, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames, PyObject **result)
{
    PyObject *replaced = replaced_above(op, which);
    *result = NULL;
    if (LIKELY(replaced == NULL)) {
        return PyErr_Occurred() != NULL;
    }
    *result = PyObject_Vectorcall(replaced, args, (size_t)nargs, kwnames);
    Py_DECREF(replaced);
    return true;
}

static PyObject *
Transport_get_extra_info(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *result;
    if (call_replaced_above(op, ABOVE_INFO, args, nargs, kwnames, &result)) {
        return result;
    }
    static const char *const names[] = {"name", "default", NULL};
    PyObject *values[2] = {NULL, Py_None};
    if (args_unpack("get_extra_info", args, nargs, kwnames, names, 2, 1, values) < 0) {
        return NULL;
    }
    GUARD(op);
    return transport_get_info(transport_cast(op), values[0], values[1]);
}

static PyObject *
Transport_get_write_buffer_size(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Transport *tr = transport_cast(op);
    return PyLong_FromSize_t(tr->kind->queued(tr));
}

static PyObject *
Transport_get_write_buffer_limits(PyObject *op, PyObject *ignored UNUSED)
{
    PyObject *result;
    OWN_LOOP_OF(op, Channel);
    if (call_replaced_above(op, ABOVE_GET_LIMITS, NULL, 0, NULL, &result)) {
        return result;
    }
    return limits_get(&transport_cast(op)->head.limits);
}

static int
set_limits(PyObject *op, const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return limits_set(&transport_cast(op)->head.limits, TRANSPORT_HIGH_WATER, function, args, nargs, kwnames);
}

static PyObject *
Transport_set_write_buffer_limits(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *kwnames)
{
    PyObject *result;
    OWN_LOOP_OF(op, Channel);
    if (call_replaced_above(op, ABOVE_SET_LIMITS, args, nargs, kwnames, &result)) {
        return result;
    }
    if (call_replaced_above(op, ABOVE_SET, args, nargs, kwnames, &result)) {    /* which asyncio calls */
        if (result == NULL) {
            return NULL;
        }
        Py_DECREF(result);
    }
    else if (set_limits(op, "set_write_buffer_limits", args, nargs, kwnames) < 0) {
        return NULL;
    }
    return none_or_error(transport_maybe_pause(transport_cast(op)));
}

static PyObject *
Transport__set_write_buffer_limits(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames)
{
    PyObject *result;
    OWN_LOOP_OF(op, Channel);
    if (call_replaced_above(op, ABOVE_SET, args, nargs, kwnames, &result)) {
        return result;
    }
    return none_or_error(set_limits(op, "_set_write_buffer_limits", args, nargs, kwnames));
}

/* Calls asyncio's own method, if a program has its own get_write_buffer_size(), which that asks. False: it has
 * none. */
static bool
call_above_for_size(PyObject *op, enum above which, PyObject **result)
{
    PyObject *size = PyObject_GetAttrString(op, "get_write_buffer_size");
    bool ours = size != NULL && PyCFunction_Check(size)
                && PyCFunction_GET_FUNCTION(size) == Transport_get_write_buffer_size;
    *result = NULL;
    if (size != NULL && !ours) {
        bool own;
        PyObject *method = method_above(op, above_names[which], &own);
        *result = method == NULL ? NULL : PyObject_CallNoArgs(method);
        Py_XDECREF(method);
    }
    Py_XDECREF(size);
    return !ours;
}

static PyObject *Transport__maybe_pause_protocol(PyObject *op, PyObject *ignored);
static PyObject *Transport__maybe_resume_protocol(PyObject *op, PyObject *ignored);

/* What is called of the class is ours, and what that calls asyncio's: then it need not be called any more. */
static void
note_own_flow(Transport *tr)
{
    static const struct {
        const char *name;
        PyCFunction ours;
        enum above above;
    } methods[] = {
        {"get_write_buffer_size", Transport_get_write_buffer_size, ABOVE_PAUSE},
        {"_maybe_pause_protocol", Transport__maybe_pause_protocol, ABOVE_PAUSE},
        {"_maybe_resume_protocol", Transport__maybe_resume_protocol, ABOVE_RESUME},
    };
    PyTypeObject *type = Py_TYPE(tr);
    PyObject *exc = PyErr_GetRaisedException();
    unsigned int version = standard_version_given(type);
    bool own = true;
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        PyObject *method = PyObject_GetAttrString((PyObject *)type, methods[i].name);
        PyObject *above = replaced_above((PyObject *)tr, methods[i].above);
        own = own && method != NULL && Py_IS_TYPE(method, &PyMethodDescr_Type)
              && ((PyMethodDescrObject *)method)->d_method->ml_meth == methods[i].ours && above == NULL
              && !PyErr_Occurred();
        Py_XDECREF(above);
        Py_XDECREF(method);
    }
    PyErr_Clear();
    PyErr_SetRaisedException(exc);
    if (own) {
        SHARED_STORE(net_state(tr->head.state)->transports.flow_version[tr->kind->flow], version);
    }
}

static PyObject *
Transport__maybe_pause_protocol(PyObject *op, PyObject *ignored UNUSED)
{
    PyObject *result;
    OWN_LOOP_OF(op, Channel);
    if (call_replaced_above(op, ABOVE_PAUSE, NULL, 0, NULL, &result)
        || call_above_for_size(op, ABOVE_PAUSE, &result)) {
        return result;
    }
    note_own_flow(transport_cast(op));
    return none_or_error(transport_pause_if_full(transport_cast(op)));
}

static PyObject *
Transport__maybe_resume_protocol(PyObject *op, PyObject *ignored UNUSED)
{
    PyObject *result;
    OWN_LOOP_OF(op, Channel);
    if (call_replaced_above(op, ABOVE_RESUME, NULL, 0, NULL, &result)
        || call_above_for_size(op, ABOVE_RESUME, &result)) {
        return result;
    }
    note_own_flow(transport_cast(op));
    return none_or_error(transport_resume_if_empty(transport_cast(op)));
}

static PyObject *
transport_text(Transport *tr, const char *state, bool polls)
{
    const char *name = type_name(Py_TYPE(tr));
    if (!polls) {
        return PyUnicode_FromFormat("<%s%s fd=%d>", name, state, tr->fd);
    }
    return PyUnicode_FromFormat("<%s%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, state,
                                tr->fd, watch_is_active(&tr->read_watch) ? "polling" : "idle",
                                watch_is_active(&tr->write_watch) ? "polling" : "idle",
                                tr->kind->queued(tr));
}

static PyObject *
Transport_repr(PyObject *op)
{
    Transport *tr = transport_cast(op);
    const char *state = FLAG(tr->head.closing) ? " closing" : "";
    {
        GUARD(op);
        if (tr->file == NULL || tr->file_closed) {
            state = " closed";
        }
    }
    struct claim claim;
    bool claimed = channel_claim(&tr->head, &claim);
    bool polls = claimed && tr->head.loop != NULL && !FLAG(tr->head.loop->closed);
    PyObject *text = (tr->kind->text != NULL ? tr->kind->text : transport_text)(tr, state, polls);
    if (claimed) {
        loop_unclaim(&claim);
    }
    return text;
}

/* -- what asyncio's loop calls, for whoever calls it in its place -------------------------- */

static PyObject *
transport_call_ready(Transport *tr, struct watch *watch)
{
    if (tr->head.loop == NULL || FLAG(tr->head.loop->closed)) {
        Py_RETURN_NONE;
    }
    return watch_call_ready(tr->head.loop, watch);
}

static PyObject *
Transport__read_ready(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return transport_call_ready(transport_cast(op), &transport_cast(op)->read_watch);
}

static PyObject *
Transport__write_ready(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return transport_call_ready(transport_cast(op), &transport_cast(op)->write_watch);
}

static PyObject *
Transport__call_connection_lost(PyObject *op, PyObject *exc)
{
    OWN_LOOP_OF(op, Channel);
    return none_or_error(transport_lose_now(transport_cast(op), exc == Py_None ? NULL : exc));
}

/* A method of the loop's, with the transport's context where asyncio passes it on: None, or NULL. */
static PyObject *
call_of_loop(Transport *tr, const char *name, PyObject *args)
{
    if (tr->head.loop == NULL) {
        return args_none_has_no(name);
    }
    PyObject *loop = Py_NewRef(tr->head.loop);
    PyObject *result = context_call_method_steal(loop, name, Py_NewRef(args), (PyObject *)tr);
    Py_DECREF(loop);
    return none_for_steal(result);
}

/* If it reads. */
static PyObject *
Transport__add_reader(PyObject *op, PyObject *args)
{
    OWN_LOOP_OF(op, Channel);
    Transport *tr = transport_cast(op);
    if (FLAG(tr->head.closing) || FLAG(tr->head.paused) || tr->head.loop == NULL) {
        Py_RETURN_NONE;
    }
    return call_of_loop(tr, "_add_reader", args);
}

static PyObject *
Transport__add_writer(PyObject *op, PyObject *args)
{
    OWN_LOOP_OF(op, Channel);
    return call_of_loop(transport_cast(op), "_add_writer", args);
}

static PyObject *
Transport__call_soon(PyObject *op, PyObject *args)
{
    OWN_LOOP_OF(op, Channel);
    return call_of_loop(transport_cast(op), "call_soon", args);
}

/* -- the type ------------------------------------------------------------------- */

static PyMethodDef Transport_methods[] = {
    {"close", Transport_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\n"
               "Stop reading, send what is buffered, then close. connection_lost(None) follows.")},
    {"abort", Transport_abort, METH_NOARGS,
     PyDoc_STR("abort($self, /)\n--\n\n"
               "Close at once; what is buffered is lost. connection_lost(None) follows.")},
    {"is_closing", Transport_is_closing, METH_NOARGS,
     PyDoc_STR("is_closing($self, /)\n--\n\nWhether the transport is closing or closed.")},
    {"is_reading", Transport_is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self, /)\n--\n\nWhether the transport takes new data.")},
    {"pause_reading", Transport_pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self, /)\n--\n\n"
               "No more data until resume_reading(). No effect on a paused or closed one.")},
    {"resume_reading", Transport_resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self, /)\n--\n\nTake data again after pause_reading().")},
    {"set_protocol", (PyCFunction)(void (*)(void))Channel_set_protocol, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set_protocol($self, /, protocol)\n--\n\nGive the connection to another protocol.")},
    {"get_protocol", Channel_get_protocol, METH_NOARGS,
     PyDoc_STR("get_protocol($self, /)\n--\n\nThe current protocol; None after the end.")},
    {"get_extra_info", (PyCFunction)(void (*)(void))Transport_get_extra_info,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("get_extra_info($self, /, name, default=None)\n--\n\n"
               "What is known of the connection: 'socket', 'sockname', 'peername'.")},
    {"get_write_buffer_size", Transport_get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self, /)\n--\n\nBytes that wait to be sent.")},
    {"get_write_buffer_limits", Transport_get_write_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_write_buffer_limits($self, /)\n--\n\nThe limits (low, high), in bytes.")},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))Transport_set_write_buffer_limits,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
               "The protocol pauses above `high` waiting bytes and resumes at `low`.\n\n"
               "ValueError unless high >= low >= 0.")},
    {"_set_write_buffer_limits", (PyCFunction)(void (*)(void))Transport__set_write_buffer_limits,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_maybe_pause_protocol", Transport__maybe_pause_protocol, METH_NOARGS, NULL},
    {"_maybe_resume_protocol", Transport__maybe_resume_protocol, METH_NOARGS, NULL},
    {"_force_close", Transport__force_close, METH_O, NULL},
    {"_read_ready", Transport__read_ready, METH_NOARGS, NULL},
    {"_write_ready", Transport__write_ready, METH_NOARGS, NULL},
    {"_call_connection_lost", Transport__call_connection_lost, METH_O, NULL},
    {"_add_reader", Transport__add_reader, METH_VARARGS, NULL},
    {"_add_writer", Transport__add_writer, METH_VARARGS, NULL},
    {"_call_soon", Transport__call_soon, METH_VARARGS, NULL},
    {"_fatal_error", (PyCFunction)(void (*)(void))Transport__fatal_error,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Transport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(Channel, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Channel, weakrefs), READONLY, NULL},
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
        PyObject *descriptor = PyObject_GetAttrString(net_state(state)->transports.FlowControlMixin, names[i]);
        if (descriptor == NULL) {
            PyErr_Clear();    /* a version without that slot */
            continue;
        }
        if (Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
            PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
            net_state(state)->transports.slots[net_state(state)->transports.slot_count++] = member->offset;
        }
        Py_DECREF(descriptor);
    }
}

int
transport_types_init(PyObject *module, struct state *state)
{
    struct net_state *own = net_state(state);
    STATE_OWN_UNTIL(state, &own->transports, above_version);
    STATE_OWN_UNTIL(state, &own->protocols, count.value);
    state_own(state, &own->packets.bytes, 1);
    const struct state_import wanted[] = {
        {&own->transports.FlowControlMixin, "asyncio.transports", "_FlowControlMixin", false},
        {&own->transports.TransportSocket, "asyncio.trsock", "TransportSocket", false},
        {&own->transports.logger, "asyncio.log", "logger", false},
        {&own->protocols.BufferedProtocol, "asyncio.protocols", "BufferedProtocol", false},
    };
    if (STATE_IMPORT(wanted) < 0) {
        return -1;
    }
    find_base_slots(state);
    if (state_add_type(module, &Transport_spec, own->transports.FlowControlMixin,
                       ASYNCIO_TRANSPORT_SIZE, &own->types.Transport)
        < 0) {
        return -1;
    }
    PyObject *most = PyLong_FromSize_t(TRANSPORT_MAX_SIZE);
    int result = most == NULL
                     ? -1
                     : PyObject_SetAttrString((PyObject *)own->types.Transport, "max_size", most);
    Py_XDECREF(most);
    return result;
}
