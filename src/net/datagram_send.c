/* datagram_send.c - see datagram_inside.h. */
#include "net/datagram_inside.h"

#include "base/args.h"
#include "base/tuning.h"
#include "loop/owner.h"
#include "net/addr.h"
#include "net/datagram_addresses.h"
#include "net/io.h"
#include "net/proto.h"
#include "net/sockets.h"
#include "net/transport.h"

#include <errno.h>
#include <sys/socket.h>

/* From 3.13 on asyncio sends empty datagrams (before, it drops them without a word), and
 * counts a header for each queued one, so that a flood of them is bounded too. */
#if PY_VERSION_HEX >= 0x030D0000
#define DATAGRAM_OVERHEAD 8
#define DATAGRAM_SENDS_EMPTY 1
#else
#define DATAGRAM_OVERHEAD 0
#define DATAGRAM_SENDS_EMPTY 0
#endif

/* -- telling the protocol --------------------------------------------------------------- */

int
datagram_error(Datagram *dgram)
{
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    _PyErr_StackItem level;
    handling_begin(&level, exc);    /* asyncio calls it where it has caught the error */
    PyObject *result = proto_call(&dgram->base.head.proto, dgram->base.head.state->names.error_received, exc);
    handling_end(&level);
    Py_DECREF(exc);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* -- the queue ----------------------------------------------------------------------------- */

size_t
datagram_queued(Transport *tr)
{
    return ((Datagram *)tr)->queued_bytes;
}

static int
queue_push(Datagram *dgram, PyObject *data_steal, PyObject *address, const struct addr *target)
{
    if (dgram->queue_length == dgram->queue_capacity) {
        size_t capacity = dgram->queue_capacity == 0 ? ARRAY_FIRST : dgram->queue_capacity * 2;
        struct datagram *queue = PyMem_New(struct datagram, capacity);
        if (queue == NULL) {
            Py_DECREF(data_steal);
            PyErr_NoMemory();
            return -1;
        }
        for (size_t i = 0; i < dgram->queue_length; i++) {
            queue[i] = *datagram_at(dgram, i);
        }
        PyMem_Free(dgram->queue);
        dgram->queue = queue;
        dgram->queue_head = 0;
        dgram->queue_capacity = capacity;
    }
    struct datagram *item = datagram_at(dgram, dgram->queue_length++);
    item->data = data_steal;
    item->address = Py_XNewRef(address);
    item->target = *target;
    dgram->queued_bytes += (size_t)PyBytes_GET_SIZE(data_steal) + DATAGRAM_OVERHEAD;
    return 0;
}

static void
queue_pop(Datagram *dgram)
{
    struct datagram item = *datagram_at(dgram, 0);
    dgram->queue_head++;
    dgram->queue_length--;
    dgram->queue_number++;
    dgram->queued_bytes -= (size_t)PyBytes_GET_SIZE(item.data) + DATAGRAM_OVERHEAD;
    if (dgram->queue_length == 0) {
        PyMem_Free(dgram->queue);
        dgram->queue = NULL;
        dgram->queue_capacity = dgram->queue_head = 0;
    }
    Py_DECREF(item.data);
    Py_XDECREF(item.address);    /* may run Python: the queue is in order by now */
}

void
datagram_discard_output(Transport *tr)
{
    while (((Datagram *)tr)->queue_length > 0) {
        queue_pop((Datagram *)tr);
    }
}

/* -- sending ------------------------------------------------------------------------------------- */

enum send_outcome {
    SEND_DONE,
    SEND_FULL,      /* wait until the socket is writable */
    SEND_FAILED,    /* a Python exception is set, about this message */
};

static inline bool is_connected(Datagram *dgram);

/* As asyncio: a socket that was connected by the loop is given no address. */
static enum send_outcome
send_by_python(Datagram *dgram, PyObject *data, PyObject *address)
{
    PyObject *file = Py_NewRef(dgram->base.file);
    PyObject *result = is_connected(dgram)
                           ? PyObject_CallMethod(file, "send", "O", data)
                           : PyObject_CallMethod(file, "sendto", "OO", data, address);
    Py_DECREF(file);
    if (result != NULL) {
        transport_count_sent(&dgram->base, result);
        Py_DECREF(result);
        return SEND_DONE;
    }
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError)) {
        PyErr_Clear();
        return SEND_FULL;
    }
    return SEND_FAILED;
}

/* What errno says of a call that sent nothing. */
static enum send_outcome
send_failed(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return SEND_FULL;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return SEND_FAILED;
}

static void
datagram_count_sent(Datagram *dgram, size_t n)
{
    if (LIKELY(dgram->base.head.loop != NULL)) {
        COUNT(dgram->base.head.loop->counters->bytes_out, n);
    }
}

static enum send_outcome
send_by_kernel(Datagram *dgram, const void *data, size_t n, const struct addr *target)
{
    const struct sockaddr *to = LIKELY(target->length > 0) ? &target->any : NULL;
    if (io_is_gone(&dgram->base.io)) {
        errno = EBADF;
        return send_failed();
    }
    ssize_t sent;
    do {
        sent = sendto(dgram->base.io.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL, to, target->length);
    } while (sent < 0 && errno == EINTR);
    if (LIKELY(sent >= 0)) {
        datagram_count_sent(dgram, (size_t)sent);
        return SEND_DONE;
    }
    return send_failed();
}

static inline bool
is_connected(Datagram *dgram)
{
    return dgram->base.peer.addr.length > 0 && transport_named_peer(&dgram->base) != Py_None;
}

/* A failed message: OSError to the protocol, anything else ends the transport. 0 / -1. */
static int
datagram_failed_write(Datagram *dgram)
{
    if (PyErr_ExceptionMatches(PyExc_OSError)) {
        return datagram_error(dgram);
    }
    return transport_fatal(&dgram->base, "Fatal write error on datagram transport");
}

/* The event of socket.sendto(), which asyncio calls where the socket is not connected. 0 / -1 */
static inline int
datagram_audit(Datagram *dgram, PyObject *address, bool connected)
{
    return connected || address == NULL ? 0
                                        : PySys_Audit("socket.sendto", "OO", dgram->base.file, address);
}

static enum send_outcome
datagram_try_send(Datagram *dgram, PyObject *data, const void *bytes, size_t n, PyObject *address,
                  const struct addr *target)
{
    bool connected = is_connected(dgram);
    if (UNLIKELY((!connected && target->length == 0) || !datagram_is_native(dgram))) {
        return send_by_python(dgram, data, address != NULL ? address : Py_None);
    }
    if (UNLIKELY(datagram_audit(dgram, address, connected) < 0)) {
        return SEND_FAILED;
    }
    return send_by_kernel(dgram, bytes, n, target);
}

/* Drops the message of that number, if it is still there; keeps the exception. */
static void
queue_pop_number(Datagram *dgram, size_t number)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (dgram->queue_length > 0 && dgram->queue_number == number) {
        queue_pop(dgram);
    }
    PyErr_SetRaisedException(exc);
}

/* Sends the oldest message, or fails with it and drops it. SEND_FULL: it has to wait. */
static enum send_outcome
flush_first(Datagram *dgram)
{
    size_t number = dgram->queue_number;
    struct datagram *item = datagram_at(dgram, 0);
    PyObject *data = Py_NewRef(item->data);
    PyObject *address = Py_XNewRef(item->address);
    struct addr target = item->target;
    enum send_outcome outcome = datagram_try_send(dgram, data, PyBytes_AS_STRING(data),
                                                  (size_t)PyBytes_GET_SIZE(data), address, &target);
    Py_DECREF(data);
    Py_XDECREF(address);
    if (outcome != SEND_FULL) {
        queue_pop_number(dgram, number);
    }
    return outcome;
}

static int
datagram_flush(Datagram *dgram)
{
    while (dgram->queue_length > 0) {
        enum send_outcome outcome = flush_first(dgram);
        if (outcome == SEND_FULL) {
            break;
        }
        if (outcome == SEND_FAILED) {
            return datagram_failed_write(dgram);    /* the next event goes on behind it */
        }
        if (dgram->base.head.conn_lost > 0) {
            return 0;
        }
    }
    if (transport_maybe_resume(&dgram->base) < 0) {
        return -1;
    }
    if (dgram->queue_length > 0) {
        return 0;
    }
    watch_stop(&dgram->base.write_watch);
    return transport_drained(&dgram->base);
}

void
datagram_on_writable(struct watch *watch, int revents)
{
    Datagram *dgram = container_of(watch, Datagram, base.write_watch);
    Loop *loop = watch_loop(watch);
    Py_INCREF(dgram);
    int result = UNLIKELY(revents & EV_ERROR) ? transport_descriptor_gone(&dgram->base)
                                              : datagram_flush(dgram);
    if (UNLIKELY(result < 0)) {
        transport_step_failed(&dgram->base, loop, "_sendto_ready", revents);
    }
    Py_DECREF(dgram);
}

/* -- sendto() -------------------------------------------------------------------------------------- */

/* Is it the only one that is allowed? 0, or -1 with ValueError */
static int
compare_target(Datagram *dgram, PyObject *address)
{
    PyObject *allowed = Py_NewRef(dgram->address);    /* what compares may set another one */
    int equal = PyObject_RichCompareBool(address, allowed, Py_EQ);
    if (equal == 0) {
        PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S", allowed);
    }
    Py_DECREF(allowed);
    return equal > 0 ? 0 : -1;
}

/* 0: go on with *address (borrowed, NULL: the connected peer), -1 with ValueError */
static int
check_target(Datagram *dgram, PyObject **address)
{
    if (*address == Py_None) {
        *address = NULL;
    }
    if (dgram->address == NULL) {
        return 0;
    }
    if (*address != NULL && compare_target(dgram, *address) < 0) {
        return -1;
    }
    *address = dgram->address;
    return 0;
}

static int
datagram_enqueue(Datagram *dgram, PyObject *data, PyObject *address, const struct addr *target)
{
    /* A copy of what its owner may change. */
    PyObject *bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL || queue_push(dgram, bytes, address, target) < 0) {
        return -1;
    }
    return transport_maybe_pause(&dgram->base);
}

static enum send_outcome
datagram_send_now(Datagram *dgram, PyObject *data, PyObject *address, const struct addr *target)
{
    if (LIKELY(PyBytes_CheckExact(data))) {
        return datagram_try_send(dgram, data, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data), address, target);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return SEND_FAILED;    /* in sendto(), for asyncio */
    }
    enum send_outcome outcome =
        datagram_try_send(dgram, data, view.buf, (size_t)view.len, address, target);
    PyBuffer_Release(&view);    /* before the protocol is told: it may resize a bytearray */
    return outcome;
}

static int
datagram_sendto(Datagram *dgram, PyObject *data, PyObject *address)
{
    struct addr target = {.length = 0};
    if (!is_connected(dgram) && address != NULL) {
        datagram_target(dgram, address, &target);
    }
    if (dgram->queue_length == 0) {
        switch (datagram_send_now(dgram, data, address, &target)) {
        case SEND_DONE:
            return 0;
        case SEND_FAILED:
            return datagram_failed_write(dgram);
        case SEND_FULL:
            break;
        }
        if (dgram->base.head.conn_lost > 0) {
            return 0;    /* nobody would come to send it */
        }
        if (watch_start(&dgram->base.write_watch) < 0) {
            return -1;
        }
        transport_clear_writer(&dgram->base);
    }
    return datagram_enqueue(dgram, data, address, &target);
}

PyObject *
Datagram_sendto(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP_OF(op, Channel);
    static const char *const names[] = {"data", "addr", NULL};
    Datagram *dgram = datagram_cast(op);
    PyObject *values[2] = {NULL, Py_None};
    if (UNLIKELY(kwnames != NULL || nargs < 1 || nargs > 2)) {
        if (args_unpack("sendto", args, nargs, kwnames, names, 2, 1, values) < 0) {
            return NULL;
        }
    }
    else {
        values[0] = args[0];
        values[1] = nargs > 1 ? args[1] : Py_None;
    }
    PyObject *data = values[0];
    PyObject *address = values[1];
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%.200s'",
                     type_name(Py_TYPE(data)));
        return NULL;
    }
    if (!DATAGRAM_SENDS_EMPTY) {
        int has_data = PyObject_IsTrue(data);
        if (has_data <= 0) {
            return has_data < 0 ? NULL : Py_NewRef(Py_None);
        }
    }
    if (check_target(dgram, &address) < 0) {
        return NULL;
    }
    if (dgram->base.head.conn_lost > 0 && dgram->address != NULL) {
        return none_or_error(transport_drop_write(&dgram->base));
    }
    /* As asyncio: an endpoint without a fixed target sends until its socket is closed, and cannot tell then. */
    if (dgram->base.head.loop == NULL || dgram->base.file_closed) {
        return args_none_has_no("call_exception_handler");
    }
    Py_INCREF(dgram);
    Py_XINCREF(address);
    int result = datagram_sendto(dgram, data, address);
    Py_XDECREF(address);
    Py_DECREF(dgram);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}
