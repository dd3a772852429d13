/* tls_type.c - Python's face of the TLS transport: the methods of asyncio's TLS transport
 * and of its SSLProtocol, and the attributes that libraries read of either. */
#include "tls/tls.h"

#include "base/args.h"
#include "loop/owner.h"
#include "tls/tls_inside.h"

#include <string.h>

/* -- life ---------------------------------------------------------------------------------- */

static int
Tls_traverse(PyObject *op, visitproc visit, void *arg)
{
    Tls *tls = tls_cast(op);
    Py_VISIT(tls->lower);
    Py_VISIT(tls->engine.object);
    Py_VISIT(tls->engine.inner);
    Py_VISIT(tls->engine.dict);
    Py_VISIT(tls->engine.failure);
    Py_VISIT(tls->sslcontext);
    Py_VISIT(tls->late_error);
    Py_VISIT(tls->bad_part);
    Py_VISIT(tls->last_protocol);
    Py_VISIT(tls->tell_lost);
    Py_VISIT(tls->waiter);
    Py_VISIT(tls->timer);
    Py_VISIT(tls->read_limits.pair);
    return channel_traverse(&tls->head, visit, arg);
}

static int
Tls_clear(PyObject *op)
{
    Tls *tls = tls_cast(op);
    if (tls->head.state != NULL) {
        list_remove(&tls->pending);
    }
    tls->lost = true;
    tls->tls_state = TLS_UNWRAPPED;
    wqueue_clear(&tls->output);
    tls->stream = NULL;
    Py_CLEAR(tls->lower);
    Py_CLEAR(tls->timer);
    if (tls->engine.ops != NULL) {
        tls->engine.ops->close(&tls->engine);
    }
    Py_CLEAR(tls->engine.object);
    Py_CLEAR(tls->engine.inner);
    Py_CLEAR(tls->engine.dict);
    Py_CLEAR(tls->engine.failure);
    channel_clear(&tls->head);
    Py_CLEAR(tls->sslcontext);
    Py_CLEAR(tls->waiter);
    Py_CLEAR(tls->handshake_timeout);
    Py_CLEAR(tls->shutdown_timeout);
    Py_CLEAR(tls->read_limits.pair);
    Py_CLEAR(tls->read_buffer);
    Py_CLEAR(tls->late_error);
    Py_CLEAR(tls->bad_part);
    Py_CLEAR(tls->last_protocol);
    Py_CLEAR(tls->tell_lost);
    return 0;
}

/* Native callback: nobody has it any more. */
static int
tls_run_abandon(PyObject *op, PyObject *ignored UNUSED)
{
    Tls *tls = tls_cast(op);
    list_remove(&tls->pending);
    if (!FLAG(tls->head.closing)) {
        SET_FLAG(tls->head.closing, true);
        channel_warn_unclosed(&tls->head);
    }
    return 0;
}

static void
Tls_finalize(PyObject *op)
{
    if (tls_cast(op)->head.loop != NULL) {
        channel_abandon(&tls_cast(op)->head, tls_run_abandon);
    }
}

static void
Tls_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) == 0) {
        PyObject_GC_UnTrack(op);
        channel_free(op);
    }
}

static PyObject *
Tls_repr(PyObject *op)
{
    static const char *const states[] = {"", " handshake", "", " closing", " closing"};
    Tls *tls = tls_cast(op);
    struct claim claim;
    if (!channel_claim(&tls->head, &claim)) {
        return PyUnicode_FromString("<SSLTransport>");
    }
    const char *state = tls->lost ? " closed" : states[tls->tls_state];
    PyObject *text;
    if (tls->lower == NULL || Py_ReprEnter(op) != 0) {
        text = PyUnicode_FromFormat("<SSLTransport%s>", state);
    }
    else {
        text = PyUnicode_FromFormat("<SSLTransport%s over %R>", state, tls->lower);
        Py_ReprLeave(op);
    }
    loop_unclaim(&claim);
    return text;
}

/* -- as a transport -------------------------------------------------------------------------- */

/* A second close() parts asyncio's transport from its SSLProtocol: from then on abort() does nothing,
 * and what needs the other has the AttributeError of None. Sets that, with asyncio's name of what is
 * needed. */
static bool
tls_is_parted(Tls *tls, const char *name)
{
    if (LIKELY(!FLAG(tls->parted))) {
        return false;
    }
    (void)args_none_has_no(name);
    return true;
}

static PyObject *
Tls_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    PyObject *data = args_one("write", "data", args, nargs, kwnames);
    if (UNLIKELY(data == NULL)) {
        return NULL;
    }
    int wanted = UNLIKELY(FLAG(tls->parted)) ? tls_is_data(data) : 0;
    if (UNLIKELY(wanted < 0 || (wanted > 0 && tls_is_parted(tls, "_write_appdata")))) {
        return NULL;
    }
    return none_or_error(tls_write(tls, data));
}

static PyObject *
Tls_writelines(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
    PyObject *list = args_one("writelines", "list_of_data", args, nargs, kwnames);
    if (UNLIKELY(list == NULL) || tls_is_parted(tls_cast(op), "_write_appdata")) {
        return NULL;
    }
    return none_or_error(tls_writelines(tls_cast(op), list));
}

/* CPython's tests fill the queue by this name. */
static PyObject *
Tls__test__append_write_backlog(PyObject *op, PyObject *data)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    return tls_is_parted(tls, "_write_backlog") ? NULL : none_or_error(tls_append_backlog(tls, data));
}

static PyObject *
Tls_write_eof(PyObject *op UNUSED, PyObject *ignored UNUSED)
{
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

static PyObject *
Tls_can_write_eof(PyObject *op UNUSED, PyObject *ignored UNUSED)
{
    return Py_NewRef(Py_False);
}

static PyObject *
Tls_close(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    if (FLAG(tls->head.closing)) {
        tls_enter(tls);
        SET_FLAG(tls->parted, true);
        tls_leave(tls);    /* if the connection is lost already */
        return Py_NewRef(Py_None);
    }
    return none_or_error(tls_close(tls));
}

static PyObject *
Tls_abort(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    return none_or_error(FLAG(tls->parted) ? 0 : tls_abort(tls, NULL));
}

static PyObject *
Tls__force_close(PyObject *op, PyObject *exc)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
#if PY_VERSION_HEX < 0x030D0000
    if (tls_is_parted(tls, "_abort")) {
        return NULL;
    }
#endif
    return none_or_error(FLAG(tls->parted) ? 0 : tls_abort(tls, exc == Py_None ? NULL : exc));
}

/* Any thread may ask. New reference, or NULL. */
static inline PyObject *
tls_lower_ref(Tls *tls)
{
    GUARD(tls);
    return Py_XNewRef(tls->lower);
}

static PyObject *
Tls_is_closing(PyObject *op, PyObject *ignored UNUSED)
{
    Tls *tls = tls_cast(op);
#if PY_VERSION_HEX >= 0x030E0000
    PyObject *lower = FLAG(tls->head.closing) ? NULL : tls_lower_ref(tls);
    if (lower != NULL) {
        PyObject *closing = Py_IS_TYPE(lower, net_state(tls->head.state)->types.Stream)
                                ? PyBool_FromLong(FLAG(stream_cast(lower)->base.head.closing))
                                : PyObject_CallMethod(lower, "is_closing", NULL);
        Py_DECREF(lower);
        return closing;
    }
#endif
    return PyBool_FromLong(FLAG(tls->head.closing));
}

static PyObject *
Tls_is_reading(PyObject *op, PyObject *ignored UNUSED)
{
    Tls *tls = tls_cast(op);
    return tls_is_parted(tls, "_app_reading_paused") ? NULL : PyBool_FromLong(!FLAG(tls->head.paused));
}

static PyObject *
Tls_pause_reading(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    if (tls_is_parted(tls_cast(op), "_pause_reading")) {
        return NULL;
    }
    SET_FLAG(tls_cast(op)->head.paused, true);
    return Py_NewRef(Py_None);
}

static PyObject *
Tls_resume_reading(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    return tls_is_parted(tls, "_resume_reading") ? NULL : none_or_error(tls_resume(tls));
}

static PyObject *
Tls_set_protocol(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
    if (UNLIKELY(FLAG(tls_cast(op)->parted))
        && args_one("set_protocol", "protocol", args, nargs, kwnames) != NULL) {
        (void)tls_is_parted(tls_cast(op), "_set_app_protocol");
        return NULL;
    }
    return Channel_set_protocol(op, args, nargs, kwnames);
}

static PyObject *
Tls_get_protocol(PyObject *op, PyObject *ignored UNUSED)
{
    return tls_is_parted(tls_cast(op), "_app_protocol") ? NULL : Channel_protocol(op, NULL);
}

static PyObject *
Tls_get_extra_info(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"name", "default", NULL};
    Tls *tls = tls_cast(op);
    PyObject *values[2] = {NULL, Py_None};
    if (args_unpack("get_extra_info", args, nargs, kwnames, names, 2, 1, values) < 0
        || tls_is_parted(tls, "_get_extra_info")) {
        return NULL;
    }
    PyObject *value = NULL;
    PyObject *lower = tls_lower_ref(tls);
    PyObject *extra;
    {
        GUARD(op);
        extra = Py_XNewRef(tls->head.extra);
    }
    if (extra == NULL || PyDict_GetItemRef(extra, values[0], &value) == 0) {
        PyObject *stack[] = {lower, values[0], values[1]};
        value = lower == NULL
                    ? Py_NewRef(values[1])
                    : PyObject_VectorcallMethod(tls->head.state->names.get_extra_info, stack, 3, NULL);
    }
    Py_XDECREF(extra);
    Py_XDECREF(lower);
    return value;
}

static PyObject *
Tls_get_write_buffer_size(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    return tls_is_parted(tls, "_get_write_buffer_size") ? NULL : PyLong_FromSize_t(tls_queued(tls));
}

static PyObject *
Tls_get_read_buffer_size(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    if (tls_is_parted(tls, "_get_read_buffer_size")) {
        return NULL;
    }
    return PyLong_FromSize_t(tls_waiting(tls));
}

/* A change of limits shows at once. */
static PyObject *
control(Tls *tls, int (*check)(Tls *tls))
{
    tls_enter(tls);
    int result = check(tls);
    tls_leave(tls);
    return none_or_error(result);
}

static PyObject *
Tls_set_write_buffer_limits(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    if (tls_is_parted(tls, "_set_write_buffer_limits")
        || limits_set(&tls->head.limits, TLS_HIGH_WATER, "set_write_buffer_limits", args, nargs, kwnames) < 0) {
        return NULL;
    }
    return control(tls, tls_control_writing);
}

static PyObject *
Tls_get_write_buffer_limits(PyObject *op, PyObject *ignored UNUSED)
{
    return tls_is_parted(tls_cast(op), "_outgoing_low_water") ? NULL : Channel_get_write_buffer_limits(op, NULL);
}

static PyObject *
Tls_set_read_buffer_limits(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    if (tls_is_parted(tls, "_set_read_buffer_limits")
        || limits_set(&tls->read_limits, TLS_READ_HIGH_WATER, "set_read_buffer_limits", args, nargs, kwnames) < 0) {
        return NULL;
    }
    return control(tls, tls_control_reading_strictly);
}

static PyObject *
Tls_get_read_buffer_limits(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    return tls_is_parted(tls, "_incoming_low_water") ? NULL : limits_get(&tls->read_limits);
}

/* -- as the protocol of the transport below ------------------------------------------------------ */

static PyObject *
Tls_connection_made(PyObject *op, PyObject *transport)
{
    OWN_LOOP_OF(op, Channel);
    return none_or_error(tls_lower_made(tls_cast(op), transport));
}

static PyObject *
Tls_connection_lost(PyObject *op, PyObject *exc)
{
    OWN_LOOP_OF(op, Channel);
    return none_or_error(tls_lower_lost(tls_cast(op), exc == Py_None ? NULL : exc));
}

static int
tls_make_read_buffer(Tls *tls)
{
    if (tls->read_buffer != NULL) {
        return 0;
    }
    PyObject *buffer = PyByteArray_FromStringAndSize(NULL, TLS_READ_HIGH_WATER);
    if (buffer == NULL) {
        return -1;
    }
    memset(PyByteArray_AS_STRING(buffer), 0, TLS_READ_HIGH_WATER);
    Py_XSETREF(tls->read_buffer, buffer);
    return 0;
}

/* A BufferedProtocol, as asyncio's SSLProtocol. Whatever is asked for, it is the whole buffer, but it has
 * to be a number. */
static PyObject *
Tls_get_buffer(PyObject *op, PyObject *size_hint)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    PyObject *zero = PyLong_FromLong(0);
    int is_number = zero == NULL ? -1 : PyObject_RichCompareBool(size_hint, zero, Py_LE);
    Py_XDECREF(zero);
    if (is_number < 0) {
        return NULL;
    }
    return tls_make_read_buffer(tls) < 0 ? NULL : PyMemoryView_FromObject(tls->read_buffer);
}

static PyObject *
Tls_buffer_updated(PyObject *op, PyObject *count)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    Py_ssize_t n;
    if (args_slice_end(count, &n) < 0 || tls_make_read_buffer(tls) < 0) {
        return NULL;
    }
    Py_ssize_t size = PyByteArray_GET_SIZE(tls->read_buffer);
    if (n < 0) {
        n = n + size > 0 ? n + size : 0;
    }
    PyObject *bytes =
        PyBytes_FromStringAndSize(PyByteArray_AS_STRING(tls->read_buffer), n < size ? n : size);
    if (bytes == NULL) {
        return NULL;
    }
    int result = tls_received(tls, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    return none_or_error(result);
}

/* What came before start_tls(). */
static PyObject *
Tls__feed(PyObject *op, PyObject *data)
{
    OWN_LOOP_OF(op, Channel);
    PyObject *bytes = PyBytes_FromObject(data);
    if (bytes == NULL) {
        return NULL;
    }
    int result = tls_received(tls_cast(op), PyBytes_AS_STRING(bytes),
                              (size_t)PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    return none_or_error(result);
}

static PyObject *
Tls_eof_received(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    bool keep_open;
    if (tls_lower_eof(tls_cast(op), &keep_open) < 0) {
        return NULL;
    }
    return Py_NewRef(keep_open ? Py_True : Py_None);
}

/* Does Python leave assertions out? */
static bool
is_optimizing(void)
{
    PyObject *flags = PySys_GetObject("flags");
    PyObject *level = flags == NULL ? NULL : PyObject_GetAttrString(flags, "optimize");
    long value = level == NULL ? 0 : PyLong_AsLong(level);
    Py_XDECREF(level);
    PyErr_Clear();
    return value > 0;
}

/* asyncio asserts that the transport below alternates. */
static bool
tls_is_paused_as_expected(Tls *tls, bool paused)
{
    if (LIKELY(tls->writing_paused == paused) || is_optimizing()) {
        return true;
    }
    PyErr_SetNone(PyExc_AssertionError);
    return false;
}

static PyObject *
Tls_pause_writing(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    if (!tls_is_paused_as_expected(tls_cast(op), false)) {
        return NULL;
    }
    tls_cast(op)->writing_paused = true;
    return Py_NewRef(Py_None);
}

static PyObject *
Tls_resume_writing(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Tls *tls = tls_cast(op);
    if (!tls_is_paused_as_expected(tls, true)) {
        return NULL;
    }
    tls->writing_paused = false;
    return control(tls, tls_process_outgoing);
}

/* -- attributes -------------------------------------------------------------------------------------- */

#define OBJECT_GETTER(name, guard, expression)             \
    static PyObject *                                      \
    Tls_get_##name(PyObject *op, void *closure UNUSED)     \
    {                                                      \
        guard;                                             \
        Tls *tls UNUSED = tls_cast(op);                    \
        PyObject *value = (PyObject *)(expression);        \
        return Py_NewRef(value != NULL ? value : Py_None); \
    }

OBJECT_GETTER(ssl_protocol, GUARD(op), FLAG(tls->parted) ? NULL : op)
OBJECT_GETTER(app_transport, OWN_LOOP_OF(op, Channel), tls->lost ? NULL : op)
OBJECT_GETTER(lower, OWN_LOOP_OF(op, Channel), tls->lower)
OBJECT_GETTER(sslcontext, OWN_LOOP_OF(op, Channel), tls->sslcontext)
OBJECT_GETTER(sslobj, OWN_LOOP_OF(op, Channel), tls->engine.object)
OBJECT_GETTER(extra, OWN_LOOP_OF(op, Channel), tls->head.extra)
OBJECT_GETTER(waiter, OWN_LOOP_OF(op, Channel), tls->waiter)

static PyObject *
Tls_get_protocol_paused(PyObject *op, void *closure UNUSED)
{
    return tls_is_parted(tls_cast(op), "_app_writing_paused") ? NULL : Channel_protocol_paused(op, NULL);
}

static PyObject *
Tls_get_server_side(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(tls_cast(op)->server_side);
}

static PyObject *
Tls_get_engine(PyObject *op, void *closure UNUSED)
{
    return PyUnicode_FromString(tls_cast(op)->engine.ops->name);
}

static PyMethodDef Tls_methods[] = {
    {"write", (PyCFunction)(void (*)(void))Tls_write, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("write($self, /, data)\n--\n\n"
               "Encrypt bytes and give them to the transport below.\n\n"
               "TypeError for anything but bytes, bytearray or memoryview. Dropped after close().")},
    {"writelines", (PyCFunction)(void (*)(void))Tls_writelines, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("writelines($self, /, list_of_data)\n--\n\nwrite() for each of the pieces.")},
    {"write_eof", Tls_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self, /)\n--\n\nNotImplementedError: TLS has no half-closed side.")},
    {"can_write_eof", Tls_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self, /)\n--\n\nFalse.")},
    {"close", Tls_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\n"
               "Stop reading, send what is buffered and close_notify, and wait for the peer's,\n"
               "for ssl_shutdown_timeout at most. connection_lost() follows.")},
    {"abort", Tls_abort, METH_NOARGS,
     PyDoc_STR("abort($self, /)\n--\n\nClose at once; what is buffered is lost.")},
    {"is_closing", Tls_is_closing, METH_NOARGS,
     PyDoc_STR("is_closing($self, /)\n--\n\nWhether the transport is closing or closed.")},
    {"is_reading", Tls_is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self, /)\n--\n\nWhether the transport takes new data.")},
    {"pause_reading", Tls_pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self, /)\n--\n\nNo more data until resume_reading().")},
    {"resume_reading", Tls_resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self, /)\n--\n\nTake data again after pause_reading().")},
    {"set_protocol", (PyCFunction)(void (*)(void))Tls_set_protocol, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set_protocol($self, /, protocol)\n--\n\nGive the connection to another protocol.")},
    {"get_protocol", Tls_get_protocol, METH_NOARGS,
     PyDoc_STR("get_protocol($self, /)\n--\n\nThe current protocol; None after the end.")},
    {"get_extra_info", (PyCFunction)(void (*)(void))Tls_get_extra_info,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("get_extra_info($self, /, name, default=None)\n--\n\n"
               "'sslcontext', after the handshake 'ssl_object', 'peercert', 'cipher' and\n"
               "'compression', and what the transport below knows.")},
    {"get_write_buffer_size", Tls_get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self, /)\n--\n\n"
               "Bytes that the transport below has not taken.")},
    {"get_write_buffer_limits", Tls_get_write_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_write_buffer_limits($self, /)\n--\n\nThe limits (low, high), in bytes.")},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))Tls_set_write_buffer_limits,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
               "The protocol pauses at `high` waiting bytes and resumes at `low`.\n\n"
               "ValueError unless high >= low >= 0.")},
    {"get_read_buffer_size", Tls_get_read_buffer_size, METH_NOARGS,
     PyDoc_STR("get_read_buffer_size($self, /)\n--\n\nReceived bytes that wait to be decrypted.")},
    {"get_read_buffer_limits", Tls_get_read_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_read_buffer_limits($self, /)\n--\n\nThe limits (low, high), in bytes.")},
    {"set_read_buffer_limits", (PyCFunction)(void (*)(void))Tls_set_read_buffer_limits,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set_read_buffer_limits($self, /, high=None, low=None)\n--\n\n"
               "After pause_reading() the transport below is paused when `high` bytes wait to be\n"
               "decrypted, and resumed at `low`.\n\nValueError unless high >= low >= 0.")},
    {"_force_close", Tls__force_close, METH_O, NULL},
    {"_test__append_write_backlog", Tls__test__append_write_backlog, METH_O, NULL},
    {"connection_made", Tls_connection_made, METH_O, NULL},
    {"connection_lost", Tls_connection_lost, METH_O, NULL},
    {"_feed", Tls__feed, METH_O, NULL},
    {"get_buffer", Tls_get_buffer, METH_O, NULL},
    {"buffer_updated", Tls_buffer_updated, METH_O, NULL},
    {"eof_received", Tls_eof_received, METH_NOARGS, NULL},
    {"pause_writing", Tls_pause_writing, METH_NOARGS, NULL},
    {"resume_writing", Tls_resume_writing, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Tls_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_loop", Channel_loop, NULL, NULL, NULL},
    {"_ssl_protocol", Tls_get_ssl_protocol, NULL, NULL, NULL},
    {"_app_transport", Tls_get_app_transport, NULL, NULL, NULL},
    {"_app_protocol", Channel_protocol, NULL, NULL, NULL},
    {"_transport", Tls_get_lower, NULL, NULL, NULL},
    {"_sslcontext", Tls_get_sslcontext, NULL, NULL, NULL},
    {"_sslobj", Tls_get_sslobj, NULL, NULL, NULL},
    {"_extra", Tls_get_extra, NULL, NULL, NULL},
    {"_waiter", Tls_get_waiter, NULL, NULL, NULL},
    {"_closed", Channel_closing, NULL, NULL, NULL},
    {"_conn_lost", Channel_conn_lost, NULL, NULL, NULL},
    {"_protocol_paused", Tls_get_protocol_paused, NULL, NULL, NULL},
    {"_app_reading_paused", Channel_paused, NULL, NULL, NULL},
    {"_server_side", Tls_get_server_side, NULL, NULL, NULL},
    {"_engine", Tls_get_engine, NULL, NULL, NULL},
    TLS_INSIDE_GETSETS,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Tls_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(Channel, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Channel, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot Tls_slots[] = {
    {Py_tp_doc, "The transport of a TLS connection: asyncio.Transport."},
    {Py_tp_dealloc, Tls_dealloc},
    {Py_tp_traverse, Tls_traverse},
    {Py_tp_clear, Tls_clear},
    {Py_tp_finalize, Tls_finalize},
    {Py_tp_repr, Tls_repr},
    {Py_tp_methods, Tls_methods},
    {Py_tp_getset, Tls_getset},
    {Py_tp_members, Tls_members},
    {0, NULL},
};

static PyType_Spec Tls_spec = {
    .name = "asyncloop._core.SSLTransport",
    .basicsize = sizeof(Tls),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Tls_slots,
};

/* To isinstance() it is what its two halves are: asyncio's transport, and the protocol below. */
int
tls_type_add(PyObject *module, struct state *state, PyTypeObject **slot)
{
    struct net_state *net = net_state(state);
    PyTypeObject *transport = (PyTypeObject *)net->transports.FlowControlMixin;
    PyObject *bases = state_check_base(transport, ASYNCIO_TRANSPORT_SIZE) < 0
                          ? NULL
                          : PyTuple_Pack(2, transport, net->protocols.BufferedProtocol);
    int result = bases == NULL ? -1 : state_add_type_with_bases(module, &Tls_spec, bases, slot);
    Py_XDECREF(bases);
    return result;
}
