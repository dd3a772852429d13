/* channel.c - see channel.h.
 *
 * Danger: every call of a protocol, an exception handler or a logger may close or abort the transport,
 * run the loop inside itself, and drop the last outside reference. Who calls what is here holds the
 * transport. */
#include "net/channel.h"

#include "base/args.h"
#include "loop/overrides.h"
#include "loop/schedule.h"
#include "net/reader.h"

#include <string.h>

/* -- life ------------------------------------------------------------------------ */

/* Where asyncio's classes keep an attribute of the instance. */
static inline PyObject **
channel_slot(Channel *ch, Py_ssize_t offset)
{
    return (PyObject **)(void *)((char *)ch + offset);
}

static inline int
channel_slot_count(const Channel *ch)
{
    return ch->state == NULL ? 0 : net_state(ch->state)->transports.slot_count;
}

int
channel_traverse(Channel *ch, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(ch));
    Py_VISIT(ch->dict);
    for (int i = channel_slot_count(ch); i-- > 0;) {
        Py_VISIT(*channel_slot(ch, net_state(ch->state)->transports.slots[i]));
    }
    Py_VISIT(ch->loop);
    Py_VISIT(ch->extra);
    Py_VISIT(ch->limits.pair);
    return proto_traverse(&ch->proto, visit, arg);
}

void
channel_clear(Channel *ch)
{
    SET_FLAG(ch->closing, true);
    ch->conn_lost += ch->conn_lost == 0;
    Py_CLEAR(ch->dict);
    const struct net_state *net = net_state(ch->state);
    for (int i = channel_slot_count(ch); i-- > 0;) {
        Py_CLEAR(*channel_slot(ch, net->transports.slots[i]));
    }
    proto_clear(&ch->proto);
    Py_CLEAR(ch->extra);
    Py_CLEAR(ch->limits.pair);
}

/* The place in asyncio where the transport that stands for this one warns: filters of warnings know its
 * module. 0 / -1, without an exception where there is none (the interpreter ends). */
static int
find_warning_place(Channel *ch, PyObject **module, int *line)
{
    static const struct {
        const char *part, *module, *class;
        int line;    /* of the warning, behind the first line of __del__() */
    } places[] = {
        {"SSL", "asyncio.sslproto", "_SSLProtocolTransport", 3},
        {"ReadPipe", "asyncio.unix_events", "_UnixReadPipeTransport", 2},
        {"WritePipe", "asyncio.unix_events", "_UnixWritePipeTransport", 2},
        {"", "asyncio.selector_events", "_SelectorTransport", 2},
    };
    int i = 0;
    while (strstr(Py_TYPE(ch)->tp_name, places[i].part) == NULL) {
        i++;
    }
    *module = PyImport_ImportModule(places[i].module);
    PyObject *class = *module == NULL ? NULL : PyObject_GetAttrString(*module, places[i].class);
    PyObject *method = class == NULL ? NULL : PyObject_GetAttrString(class, "__del__");
    PyObject *code = method == NULL ? NULL : PyObject_GetAttrString(method, "__code__");
    PyObject *first = code == NULL ? NULL : PyObject_GetAttrString(code, "co_firstlineno");
    *line = first == NULL ? -1 : (int)PyLong_AsLong(first) + places[i].line;
    Py_XDECREF(first);
    Py_XDECREF(code);
    Py_XDECREF(method);
    Py_XDECREF(class);
    PyErr_Clear();
    if (*line > 0) {
        return 0;
    }
    Py_CLEAR(*module);
    return -1;
}

/* warnings.warn_explicit(), as warnings.warn() would call it from there. 0 / -1 */
static int
warn_at(Channel *ch, PyObject *module, int line)
{
    PyObject *op = (PyObject *)ch;
    bool is_tls = ch->proto.use == PROTO_FOR_TLS;
    PyObject *dict = PyModule_GetDict(module);
    PyObject *registry = PyDict_GetItemString(dict, "__warningregistry__");
    PyObject *made = registry == NULL ? PyDict_New() : Py_NewRef(registry);
    PyObject *result = NULL;
    if (made != NULL && PyDict_SetItemString(dict, "__warningregistry__", made) == 0) {
        PyObject *text =
            is_tls ? PyUnicode_FromString("unclosed transport <asyncio._SSLProtocolTransport object>")
                   : PyUnicode_FromFormat("unclosed transport %R", op);
        PyObject *file = PyModule_GetFilenameObject(module);
        PyObject *name = PyModule_GetNameObject(module);
        PyObject *warnings = PyImport_ImportModule("warnings");
        if (text != NULL && file != NULL && name != NULL && warnings != NULL) {
            result = PyObject_CallMethod(warnings, "warn_explicit", "OOOiOOOO", text,
                                         PyExc_ResourceWarning, file, line, name, made, dict,
                                         is_tls ? Py_None : op);
        }
        Py_XDECREF(warnings);
        Py_XDECREF(name);
        Py_XDECREF(file);
        Py_XDECREF(text);
    }
    Py_XDECREF(made);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

void
channel_warn_unclosed(Channel *ch)
{
    PyObject *op = (PyObject *)ch;
    PyObject *module = NULL;
    int line;
    int warned = find_warning_place(ch, &module, &line) == 0
                     ? warn_at(ch, module, line)
                     : PyErr_ResourceWarning(op, 1, "unclosed transport %R", op);
    Py_XDECREF(module);
    if (warned < 0) {
        PyErr_WriteUnraisable(op);    /* warnings are errors */
    }
}

void
channel_abandon(Channel *ch, native_callback abandon)
{
    PyObject *exc = PyErr_GetRaisedException();
#ifdef Py_GIL_DISABLED
    struct claim claim;
    if (ch->loop != NULL && loop_claim(&claim, ch->loop) == 0) {
        abandon((PyObject *)ch, NULL);
        loop_unclaim(&claim);
    }
    else if (ch->loop != NULL) {
        PyErr_Clear();
        if (loop_call_soon_native(ch->loop, abandon, (PyObject *)ch, NULL) < 0) {
            PyErr_Clear();    /* the loop was closed meanwhile: it knows nothing any more */
        }
    }
#else
    abandon((PyObject *)ch, NULL);
#endif
    PyErr_SetRaisedException(exc);
}

bool
channel_claim(Channel *ch, struct claim *claim)
{
    bool claimed = loop_claim_steal(claim, shared_loop_ref((PyObject *)ch, &ch->loop)) == 0;
    if (!claimed) {
        PyErr_Clear();    /* another thread runs it */
    }
    return claimed;
}

/* -- the log ------------------------------------------------------------------------- */

PyObject *
asyncio_logger(struct state *state, const char *module)
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

/* logger.level(*args, exc_info=exc). exc may be NULL, `args_steal` with an exception set. 0 / -1 */
static int
log_steal(Channel *ch, const char *level, PyObject *args_steal, PyObject *exc)
{
    static const char *const modules[] = {
        [PROTO_FOR_SOCKET] = "asyncio.selector_events",
        [PROTO_FOR_PIPE] = "asyncio.unix_events",
        [PROTO_FOR_TLS] = "asyncio.sslproto",
    };
    PyObject *method = NULL, *kwargs = NULL, *result = NULL;
    if (args_steal != NULL) {
        PyObject *logger = asyncio_logger(ch->state, modules[ch->proto.use]);
        method = PyObject_GetAttrString(logger, level);
        Py_DECREF(logger);
    }
    if (method != NULL) {
        kwargs = exc == NULL ? PyDict_New() : Py_BuildValue("{s:O}", "exc_info", exc);
    }
    if (kwargs != NULL) {
        result = PyObject_Call(method, args_steal, kwargs);
    }
    Py_XDECREF(args_steal);
    Py_XDECREF(method);
    Py_XDECREF(kwargs);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
channel_log(Channel *ch, const char *level, const char *format, PyObject *arg)
{
    int debug = ch->loop == NULL ? 0 : loop_debugs(ch->loop);
    return UNLIKELY(debug > 0)
               ? log_steal(ch, level, Py_BuildValue(arg == NULL ? "(sO)" : "(sOO)", format, ch, arg), NULL)
               : debug;
}

int
channel_log_warning(Channel *ch, const char *message)
{
    return log_steal(ch, "warning", Py_BuildValue("(s)", message), NULL);
}

/* -- the exception handler ----------------------------------------------------------- */

/* Gives exc (borrowed) to the loop's exception handler. `message_steal` may be NULL with
 * an exception set: that goes to sys.unraisablehook. For asyncio's TLS the protocol is that of the
 * transport below. 0, or -1 with what the handler has raised. */
static int
report(Channel *ch, PyObject *transport, PyObject *message_steal, PyObject *exc)
{
    struct state_names *names = &ch->state->names;
    PyObject *protocol = ch->proto.use == PROTO_FOR_TLS ? (PyObject *)ch : ch->proto.protocol;
    int result = 0;
    Py_XINCREF(protocol);
    PyObject *context = message_steal == NULL ? NULL : PyDict_New();
    if (context == NULL
        || PyDict_SetItem(context, names->message, message_steal) < 0
        || PyDict_SetItem(context, names->exception, exc) < 0
        || PyDict_SetItem(context, names->transport, transport) < 0
        || PyDict_SetItem(context, names->protocol, protocol == NULL ? Py_None : protocol) < 0) {
        PyErr_WriteUnraisable((PyObject *)ch);
    }
    else if (ch->loop != NULL) {
        Loop *loop = (Loop *)Py_NewRef(ch->loop);
        result = loop_call_exception_handler(loop, context);
        Py_DECREF(loop);
    }
    PyObject *leaving = PyErr_GetRaisedException();
    Py_XDECREF(context);
    Py_XDECREF(message_steal);
    Py_XDECREF(protocol);
    PyErr_SetRaisedException(leaving);
    return result;
}

int
channel_callback_failed(Channel *ch, const char *message)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    /* asyncio's TLS has let go of its transport when the connection is lost. */
    PyObject *transport = ch->proto.use == PROTO_FOR_TLS
                              ? PyObject_GetAttrString((PyObject *)ch, "_app_transport")
                              : Py_NewRef((PyObject *)ch);
    if (transport == NULL) {
        PyErr_Clear();
        transport = Py_NewRef((PyObject *)ch);
    }
    int result = report(ch, transport, PyUnicode_FromString(message), exc);
    Py_DECREF(transport);
    Py_DECREF(exc);
    return result;
}

int
channel_call_failed(Loop *loop, PyObject *object, const char *method, PyObject *arg)
{
    if (is_exit_exception()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    Py_XINCREF(loop);
    PyObject *callback = method == NULL ? Py_NewRef(object) : PyObject_GetAttrString(object, method);
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

int
channel_tell_fatal(Channel *ch, PyObject *transport, const char *message, PyObject *exc, bool expected)
{
    if (!expected) {
        return report(ch, transport, PyUnicode_FromString(message), exc);
    }
    int debug = ch->loop == NULL ? 0 : loop_debugs(ch->loop);
    return debug > 0 ? log_steal(ch, "debug", Py_BuildValue("(sOs)", "%r: %s", ch, message), exc) : debug;
}

/* -- the end --------------------------------------------------------------------- */

int
channel_drop_write(Channel *ch, const char *warning)
{
    if (ch->conn_lost >= DROPPED_WRITES_BEFORE_WARNING && channel_log_warning(ch, warning) < 0) {
        return -1;
    }
    if (ch->conn_lost < UINT_MAX) {
        SHARED_STORE(ch->conn_lost, ch->conn_lost + 1);
    }
    return 0;
}

void
channel_lost_was_told(Channel *ch, PyObject *protocol, PyObject *exc)
{
    if (exc != NULL && protocol != NULL) {
        PyObject *leaving = PyErr_GetRaisedException();
        reader_error_is_known(ch->state, protocol);
        PyErr_SetRaisedException(leaving);
    }
}

/* -- flow control ---------------------------------------------------------------------- */

/* What pause_writing() or resume_writing() gave. */
static int
flow_was_told(Channel *ch, PyObject *result_steal, const char *failed)
{
    if (result_steal == NULL) {
        return channel_callback_failed(ch, failed);
    }
    Py_DECREF(result_steal);
    return 0;
}

/* When the connection is lost asyncio's protocol is None, and None has no such method. */
static bool
has_no_protocol(Channel *ch, PyObject *name, PyObject **result)
{
    *result = NULL;
    if (UNLIKELY(ch->proto.protocol == NULL)) {
        *result = PyObject_GetAttr(Py_None, name);
        return true;
    }
    return false;
}

int
channel_pause_writing(Channel *ch)
{
    PyObject *result, *name = ch->state->names.pause_writing;
    SET_FLAG(ch->protocol_paused, true);
    if (!has_no_protocol(ch, name, &result)) {
        result = proto_call_here(&ch->proto, name);
    }
    return flow_was_told(ch, result, "protocol.pause_writing() failed");
}

int
channel_resume_writing(Channel *ch)
{
    PyObject *result, *name = ch->state->names.resume_writing;
    SET_FLAG(ch->protocol_paused, false);
    if (!has_no_protocol(ch, name, &result)) {
        result = proto_call(&ch->proto, name, NULL);
    }
    return flow_was_told(ch, result, "protocol.resume_writing() failed");
}

/* A limit in whole bytes; what is too large for a size is "never". -1 with an exception. */
static int
limit_in_bytes(PyObject *limit, size_t *bytes)
{
    if (PyLong_Check(limit)) {
        return args_size(limit, bytes);
    }
    double value = PyFloat_AsDouble(limit);
    if (value == -1. && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear();
        value = Py_HUGE_VAL;
    }
    *bytes = value >= (double)PY_SSIZE_T_MAX ? SIZE_MAX : value > 0. ? (size_t)value
                                                                     : 0;
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
limits_complete(size_t high_water, PyObject *high, PyObject *low, PyObject **full_high, PyObject **full_low)
{
    PyObject *four = PyLong_FromLong(4);
    if (four == NULL) {
        return -1;
    }
    *full_low = NULL;
    if (high != Py_None) {
        *full_high = Py_NewRef(high);
    }
    else {
        *full_high = low == Py_None ? PyLong_FromSize_t(high_water) : PyNumber_Multiply(four, low);
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
limits_set(struct limits *limits, size_t high_water, const char *function, PyObject *const *args,
           Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"high", "low", NULL};
    PyObject *values[2] = {Py_None, Py_None}, *high, *low;
    if (args_unpack(function, args, nargs, kwnames, names, 2, 0, values) < 0
        || limits_complete(high_water, values[0], values[1], &high, &low) < 0) {
        return -1;
    }
    PyObject *pair = NULL;
    size_t high_bytes, low_bytes;
    int ordered = limits_are_ordered(high, low);
    if (ordered == 0) {
        PyErr_Format(PyExc_ValueError, "high (%R) must be >= low (%R) must be >= 0", high, low);
    }
    if (ordered > 0 && limit_in_bytes(high, &high_bytes) == 0 && limit_in_bytes(low, &low_bytes) == 0
        && (pair = PyTuple_Pack(2, low, high)) != NULL) {
        limits->high = high_bytes;
        limits->low = low_bytes;
        Py_XSETREF(limits->pair, pair);
    }
    Py_DECREF(high);
    Py_DECREF(low);
    return pair == NULL ? -1 : 0;
}

int
limits_set_one(struct limits *limits, bool high, PyObject *value)
{
    size_t bytes;
    PyObject *pair = limit_in_bytes(value, &bytes) < 0 ? NULL : limits_get(limits);
    PyObject *changed = pair == NULL ? NULL
                        : high       ? PyTuple_Pack(2, PyTuple_GET_ITEM(pair, 0), value)
                                     : PyTuple_Pack(2, value, PyTuple_GET_ITEM(pair, 1));
    Py_XDECREF(pair);
    if (changed == NULL) {
        return -1;
    }
    *(high ? &limits->high : &limits->low) = bytes;
    Py_XSETREF(limits->pair, changed);
    return 0;
}

PyObject *
limits_get(const struct limits *limits)
{
    return limits->pair != NULL ? Py_NewRef(limits->pair)
                                : Py_BuildValue("(nn)", (Py_ssize_t)limits->low, (Py_ssize_t)limits->high);
}

/* -- methods and attributes of both types --------------------------------------------- */

PyObject *
Channel_set_protocol(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
    PyObject *protocol = args_one("set_protocol", "protocol", args, nargs, kwnames);
    Channel *ch = (Channel *)op;
    return UNLIKELY(protocol == NULL) ? NULL : none_or_error(proto_set(&ch->proto, ch->state, protocol));
}

PyObject *
Channel_protocol(PyObject *op, void *closure UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    PyObject *protocol = ((Channel *)op)->proto.protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

PyObject *
Channel_get_protocol(PyObject *op, PyObject *ignored UNUSED)
{
    return Channel_protocol(op, NULL);
}

PyObject *
Channel_get_write_buffer_limits(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return limits_get(&((Channel *)op)->limits);
}

PyObject *
Channel_loop(PyObject *op, void *closure UNUSED)
{
    GUARD(op);
    Loop *loop = ((Channel *)op)->loop;
    return Py_NewRef(loop != NULL ? (PyObject *)loop : Py_None);
}

PyObject *
Channel_closing(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(FLAG(((Channel *)op)->closing));
}

PyObject *
Channel_paused(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(FLAG(((Channel *)op)->paused));
}

PyObject *
Channel_protocol_paused(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(FLAG(((Channel *)op)->protocol_paused));
}

PyObject *
Channel_conn_lost(PyObject *op, void *closure UNUSED)
{
    return PyLong_FromUnsignedLong(SHARED_LOAD(((Channel *)op)->conn_lost));
}
