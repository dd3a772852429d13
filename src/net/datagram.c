/* datagram.c - receiving datagrams, and the type.
 *
 * The path of a message: recvfrom() into the loop's read buffer, one bytes object, the
 * sender's tuple from the cache, datagram_received(). And back: the tuple's numeric form
 * from the cache, sendto(). A host name, or an address of another family, goes through the
 * Python socket itself, which knows them all.
 *
 * Danger: as in transport.c, every call of the protocol may do anything with us. */
#include "net/datagram_inside.h"

#include "base/args.h"
#include "base/checked.h"
#include "base/tuning.h"
#include "loop/owner.h"
#include "loop/scratch.h"
#include "net/datagram_addresses.h"
#include "net/hold.h"
#include "net/io.h"
#include "net/packet.h"
#include "net/proto.h"
#include "net/transport.h"

#include <errno.h>
#include <sys/socket.h>

/* Messages that one event may bring before the kernel is asked what else there is (benchmark row: UDP,
 * where it saves a third). */
#define DATAGRAM_BUDGET TUNED(DATAGRAM_BUDGET, 16)

/* -- telling the protocol --------------------------------------------------------------- */

static int
datagram_errno(Datagram *dgram, int err)
{
    errno = err;
    PyErr_SetFromErrno(PyExc_OSError);
    return datagram_error(dgram);
}

/* Steals the sender. Either may be NULL with an exception set. 0, or -1 with an exception for the exception handler. */
static int
datagram_deliver(Datagram *dgram, PyObject *data, PyObject *sender_steal)
{
    PyObject *args[3] = {NULL, data, sender_steal};
    PyObject *result = NULL;
    if (LIKELY(data != NULL && sender_steal != NULL)) {
        result = proto_call_method(&dgram->base.head.proto, dgram->base.head.state->names.datagram_received,
                                   args, 3);
    }
    Py_XDECREF(sender_steal);
    if (UNLIKELY(result == NULL)) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

/* Makes the message and hands it over. 0, or -1 with an exception for the exception handler. */
static int
datagram_received(Datagram *dgram, const char *data, size_t n, const struct sockaddr *address,
                  socklen_t length)
{
    struct state *state = dgram->base.head.state;
    size_t capacity;
    PyObject *packet = packet_new(state, data, n, &capacity);
    PyObject *sender = packet == NULL ? NULL : datagram_sender(dgram, address, length);
    int result = datagram_deliver(dgram, packet, sender);
    if (LIKELY(packet != NULL)) {
        packet_done(state, packet, capacity);
    }
    return result;
}

/* -- by the socket's own methods ------------------------------------------------------------ */

/* One message by recvfrom(). 0, or -1 with an exception for the exception handler. */
static int
datagram_read_by_method(Datagram *dgram)
{
    PyObject *file = Py_NewRef(dgram->base.file);
    PyObject *size = PyLong_FromSize_t(SCRATCH_BYTES);
    PyObject *pair = size == NULL ? NULL
                                  : PyObject_CallMethodOneArg(file, dgram->base.head.state->names.recvfrom,
                                                              size);
    Py_XDECREF(size);
    Py_DECREF(file);
    if (pair == NULL) {
        if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
            || PyErr_ExceptionMatches(PyExc_InterruptedError)) {
            PyErr_Clear();
            return 0;
        }
        if (PyErr_ExceptionMatches(PyExc_OSError)) {
            return datagram_error(dgram);
        }
        return transport_fatal(&dgram->base, "Fatal read error on datagram transport");
    }
    PyObject *data = PySequence_GetItem(pair, 0);
    PyObject *sender = data == NULL ? NULL : PySequence_GetItem(pair, 1);
    Py_DECREF(pair);
    if (data != NULL && PyBytes_CheckExact(data) && dgram->base.head.loop != NULL) {
        COUNT(dgram->base.head.loop->counters->bytes_in, (uint64_t)PyBytes_GET_SIZE(data));
    }
    int result = datagram_deliver(dgram, data, sender);
    Py_XDECREF(data);
    return result;
}

/* -- receiving ----------------------------------------------------------------------------- */

/* One message, by way of SCRATCH_BYTES at `buffer`. 0, or -1 with an exception for the exception handler; nothing
 * was there: *more is false. */
static inline int
datagram_read(Datagram *dgram, Loop *loop, char *buffer, bool *more)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    ssize_t n;
    do {
        n = recvfrom(dgram->base.io.fd, buffer, SCRATCH_BYTES, MSG_DONTWAIT,
                     (struct sockaddr *)&address, &length);
    } while (UNLIKELY(n < 0 && errno == EINTR));
    int result = 0;
    if (LIKELY(n >= 0)) {
        COUNT(loop->counters->bytes_in, (uint64_t)n);
        result = datagram_received(dgram, buffer, (size_t)n, (struct sockaddr *)&address, length);
    }
    else {
        *more = false;
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            result = datagram_errno(dgram, errno);
        }
    }
    return result;
}

/* In a callback of the only event of a poll: does nothing else wait, and does nobody count iterations, so
 * that the next one would only ask the kernel for the next event? Then it may be told at once. */
static bool
loop_has_only_this_event(const Loop *loop)
{
    return SHORT_WAY(datagrams) && loop->fds.events == 1 && !loop->fds.fresh && ready_length(&loop->ready) == 0
           && !FLAG(loop->stopping) && loop->run->exception == NULL && !loop->run->once
           && !FLAG(loop->looked_at) && !FLAG(loop->turns_change) && !FLAG(loop->debug);
}

/* Each readable event brings one message with asyncio: what datagram_received() schedules runs before the
 * next one, and other descriptors get their turn. Where nothing was scheduled and nothing else has come,
 * the next iteration would do nothing but ask the kernel and read the next message, which is done at once
 * (benchmark row: UDP). */
static bool
datagram_may_go_on(Datagram *dgram, Loop *loop)
{
    return transport_wants_data(&dgram->base) && dgram->base.head.loop == loop && !io_is_gone(&dgram->base.io)
           && loop_has_only_this_event(loop) && datagram_is_native(dgram);
}

/* 0, or -1 with an exception for the exception handler */
static int
datagram_read_several(Datagram *dgram, Loop *loop, int most)
{
    char *buffer = scratch_take(&loop->scratch);
    if (UNLIKELY(buffer == NULL)) {
        return transport_fatal(&dgram->base, "Fatal read error on datagram transport");
    }
    bool more = true;
    int result;
    for (;;) {
        result = datagram_read(dgram, loop, buffer, &more);
        if (result < 0 || !more || --most <= 0) {
            break;
        }
        loop_step_done(loop);
        if (!datagram_may_go_on(dgram, loop)) {
            break;
        }
    }
    scratch_give(&loop->scratch, buffer);
    return result;
}

static void
datagram_on_readable(struct watch *watch, int revents)
{
    Datagram *dgram = container_of(watch, Datagram, base.read_watch);
    Loop *loop = watch_loop(watch);
    Py_INCREF(dgram);
    int result = 0;
    if (UNLIKELY(revents & EV_ERROR) || io_is_gone(&dgram->base.io)) {
        result = transport_descriptor_gone(&dgram->base);
    }
    else if (LIKELY(transport_wants_data(&dgram->base)) || transport_reads_by_hand(&dgram->base, revents)) {
        int most = UNLIKELY(revents & WATCH_BY_HAND) ? 1 : DATAGRAM_BUDGET;
        /* Only the socket's method has a form of other families' addresses. */
        result = LIKELY(addr_family_is_known(dgram->family)) && LIKELY(datagram_is_native(dgram))
                     ? datagram_read_several(dgram, loop, most)
                     : datagram_read_by_method(dgram);
    }
    if (UNLIKELY(result < 0)) {
        transport_step_failed(&dgram->base, loop, "_read_ready", revents);
    }
    Py_DECREF(dgram);
}

/* -- life ---------------------------------------------------------------------------------------------- */

static void
datagram_lost(Transport *tr)
{
    datagram_clear_cache((Datagram *)tr);
}

static const struct transport_kind datagram_kind = {
    .is_socket = true,
    .has_output = true,
    .flow = FLOW_DATAGRAM,
    .queued = datagram_queued,
    .discard_output = datagram_discard_output,
    .lost = datagram_lost,
};

static int
Datagram_traverse(PyObject *op, visitproc visit, void *arg)
{
    Datagram *dgram = datagram_cast(op);
    Py_VISIT(dgram->address);
    for (size_t i = 0; i < dgram->queue_length; i++) {
        Py_VISIT(datagram_at(dgram, i)->address);
    }
    for (int i = 0; dgram->cache != NULL && i < ADDRESS_CACHE_SIZE; i++) {
        Py_VISIT(dgram->cache->senders[i].object);
        Py_VISIT(dgram->cache->targets[i].object);
    }
    return transport_traverse(op, visit, arg);
}

static int
Datagram_clear(PyObject *op)
{
    Datagram *dgram = datagram_cast(op);
    datagram_discard_output(&dgram->base);
    datagram_clear_cache(dgram);
    Py_CLEAR(dgram->address);
    return transport_clear(op);
}

/* A transport over a bound or connected, non-blocking socket. `address`, `waiter` and
 * `extra` may be NULL. `sock` belongs to the transport on success only. New reference. */
static PyObject *
datagram_new(Loop *loop, PyObject *sock, int fd, PyObject *protocol, PyObject *address,
             PyObject *waiter, PyObject *extra)
{
    const int *known = transport_socket_number(loop->state, sock, fd);    /* before anything runs Python */
    PyObject *family = PyObject_GetAttrString(sock, "family");
    long number = family == NULL ? -1 : PyLong_AsLong(family);
    Py_XDECREF(family);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    Transport *tr = transport_new(net_state(loop->state)->types.Datagram, &datagram_kind, loop, sock, fd,
                                  protocol, extra, NULL, NULL);
    if (tr == NULL) {
        return NULL;
    }
    Datagram *dgram = (Datagram *)tr;
    dgram->family = (int)number;
    dgram->address = Py_XNewRef(address);
    io_init_socket(&tr->io, fd, known);
    tr->read_watch.ready = datagram_on_readable;
    tr->write_watch.ready = datagram_on_writable;
    /* Its own name may change as soon as it sends. */
    if (transport_set_peer(tr, NULL, 0) < 0 || transport_remember_sockname(tr) < 0 || transport_begin(tr, waiter) < 0) {
        transport_undo(tr);
        return NULL;
    }
    return (PyObject *)tr;
}

static PyObject *
Datagram_get_address(PyObject *op, void *closure UNUSED)
{
    GUARD(op);
    PyObject *address = datagram_cast(op)->address;
    if (datagram_cast(op)->address_deleted) {
        PyErr_SetString(PyExc_AttributeError, "_address");    /* so mock.patch.object() puts it back */
        return NULL;
    }
    return Py_NewRef(address != NULL ? address : Py_None);
}

/* As with asyncio's attribute, what is false is no address. */
static int
Datagram_set_address(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    Datagram *dgram = datagram_cast(op);
    struct claim claim;    /* sendto() holds the address for a moment */
    if (loop_claim_steal(&claim, shared_loop_ref(op, &dgram->base.head.loop)) < 0) {
        return -1;
    }
    PyObject *old;
    {
        GUARD(op);
        old = dgram->address;
        dgram->address = truth ? Py_NewRef(value) : NULL;
        dgram->address_deleted = value == NULL;
    }
    loop_unclaim(&claim);
    Py_XDECREF(old);
    return 0;
}

/* What waits, as asyncio's deque of (data, address). */
static PyObject *
Datagram_get_buffer(PyObject *op, void *closure UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    Datagram *dgram = datagram_cast(op);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < dgram->queue_length; i++) {
        struct datagram *item = datagram_at(dgram, i);
        PyObject *address = item->address != NULL ? item->address : Py_None;
        PyObject *pair = PyTuple_Pack(2, item->data, address);
        if (pair == NULL || PyList_Append(list, pair) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(pair);
    }
    return list;
}

static PyObject *
Datagram__sendto_ready(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(op, Channel);
    return PyObject_CallMethod(op, "_write_ready", NULL);
}

static PyMethodDef Datagram_methods[] = {
    {"_sendto_ready", Datagram__sendto_ready, METH_NOARGS, NULL},
    {"sendto", (PyCFunction)(void (*)(void))Datagram_sendto, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("sendto($self, /, data, addr=None)\n--\n\n"
               "Send one datagram, now or as soon as the socket takes it. Does not block.\n\n"
               "`addr` is the target; None on an endpoint that has a fixed one (ValueError for\n"
               "any other there). An OSError goes to the protocol's error_received().")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Datagram_getset[] = {
    {"_address", Datagram_get_address, Datagram_set_address, NULL, NULL},
    {"_buffer", Datagram_get_buffer, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Datagram_slots[] = {
    {Py_tp_doc, "The transport of a datagram socket: asyncio.DatagramTransport."},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_traverse, Datagram_traverse},
    {Py_tp_clear, Datagram_clear},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_methods, Datagram_methods},
    {Py_tp_getset, Datagram_getset},
    {0, NULL},
};

static PyType_Spec Datagram_spec = {
    .name = "asyncloop._core.DatagramTransport",
    .basicsize = sizeof(Datagram),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Datagram_slots,
};

static PyObject *
module_datagram_new(PyObject *module, PyObject *args)
{
    OWN_LOOP_ARGUMENT(module, args);
    struct state *state = PyModule_GetState(module);
    PyObject *loop, *sock, *protocol, *address, *waiter, *extra;
    if (!PyArg_ParseTuple(args, "O!OOOOO:_datagram_new", loop_state(state)->types.Loop, &loop, &sock, &protocol,
                          &address, &waiter, &extra)) {
        return NULL;
    }
    if (extra != Py_None && !PyDict_Check(extra)) {
        PyErr_SetString(PyExc_TypeError, "extra must be a dict or None");
        return NULL;
    }
    int fd = args_descriptor(sock);
    if (fd < 0) {
        return NULL;
    }
    return datagram_new((Loop *)loop, sock, fd, protocol, address == Py_None ? NULL : address,
                        waiter == Py_None ? NULL : waiter, extra == Py_None ? NULL : extra);
}

static PyMethodDef datagram_functions[] = {
    {"_datagram_new", module_datagram_new, METH_VARARGS,
     INSIDE_DOC("_datagram_new(loop, sock, protocol, address, waiter, extra, /)\n--\n\n"
                "A transport over a datagram socket, which it owns from now on.")},
    {NULL, NULL, 0, NULL},
};

int
datagram_type_init(PyObject *module, struct state *state)
{
    PyObject *transports = PyImport_ImportModule("asyncio.transports");
    PyObject *base = transports == NULL
                         ? NULL
                         : PyObject_GetAttrString(transports, "DatagramTransport");
    PyObject *bases = base == NULL ? NULL : PyTuple_Pack(2, net_state(state)->types.Transport, base);
    PyObject *type = bases == NULL ? NULL : PyType_FromModuleAndSpec(module, &Datagram_spec, bases);
    Py_XDECREF(bases);
    Py_XDECREF(base);
    Py_XDECREF(transports);
    if (type == NULL) {
        return -1;
    }
    net_state(state)->types.Datagram = (PyTypeObject *)type;
    if (PyModule_AddType(module, net_state(state)->types.Datagram) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, datagram_functions);
}
