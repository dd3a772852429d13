/* datagram.c - receiving and sending of datagrams.
 *
 * The path of a message: recvfrom() into the loop's read buffer, one bytes object, the
 * sender's tuple from the cache, datagram_received(). And back: the tuple's numeric form
 * from the cache, sendto(). A host name, or an address of another family, goes through the
 * Python socket itself, which knows them all.
 *
 * Danger: as in transport.c, every call of the protocol may do anything with us. */
#include "net/datagram.h"

#include "base/args.h"
#include "base/standard.h"
#include "loop/owner.h"
#include "loop/scratch.h"
#include "net/hold.h"
#include "net/packet.h"

#include <errno.h>
#include <string.h>
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
/* Messages that one event may bring before the kernel is asked what else there is (benchmark row: UDP,
 * where it saves a third). */
#define DATAGRAM_BUDGET 16

static inline Datagram *
datagram_cast(PyObject *op)
{
    return (Datagram *)op;
}

/* -- addresses ------------------------------------------------------------------------ */

/* The cache, made with the first address. NULL without memory, and without an exception. */
static struct address_cache *
datagram_cache(Datagram *dgram)
{
    if (UNLIKELY(dgram->cache == NULL)) {
        dgram->cache = PyMem_Calloc(1, sizeof(*dgram->cache));
    }
    return dgram->cache;
}

static void
entry_set(struct address_entry *entry, const struct addr *addr, PyObject *object)
{
    PyObject *old = entry->object;
    entry->addr = *addr;
    entry->object = Py_NewRef(object);
    Py_XDECREF(old);    /* a tuple of the user's: anything may run */
}

/* The slot of a mixed value: the top bits, where a multiplication gathers all others. */
static inline unsigned int
slot_of(uint64_t value)
{
    return (unsigned int)((value * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % ADDRESS_CACHE_SIZE;
}

static inline unsigned int
slot_of_address(const struct sockaddr *address, socklen_t length)
{
    if (address->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *in = (const void *)address;
        return slot_of((uint64_t)in->sin_addr.s_addr << 16 | in->sin_port);
    }
    if (address->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        uint64_t halves[2];
        memcpy(halves, &in6->sin6_addr, sizeof(halves));
        return slot_of(halves[0] ^ halves[1] << 1 ^ in6->sin6_port);
    }
    return 0;    /* of no internet family: no entry equals it */
}

static inline bool
addr_equal(const struct addr *addr, const struct sockaddr *other, socklen_t length)
{
    if (addr->length != length || addr->any.sa_family != other->sa_family) {
        return false;
    }
    if (other->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)other;
        return addr->in.sin_port == in->sin_port && addr->in.sin_addr.s_addr == in->sin_addr.s_addr;
    }
    return memcmp(&addr->any, other, length) == 0;
}

/* The tuple of a sender: new reference or NULL. */
static PyObject *
datagram_sender(Datagram *dgram, const struct sockaddr *address, socklen_t length)
{
    if (length == 0) {
        return Py_NewRef(Py_None);    /* an unbound Unix socket */
    }
    struct address_cache *cache = datagram_cache(dgram);
    struct address_entry *entry = NULL;
    if (LIKELY(cache != NULL)) {
        unsigned int slot = slot_of_address(address, length);
        for (unsigned int way = 0; way < 2; way++) {
            entry = &cache->senders[slot ^ way];
            if (LIKELY(entry->object == NULL)) {
                break;
            }
            if (LIKELY(addr_equal(&entry->addr, address, length))) {
                cache->last = entry;
                return Py_NewRef(entry->object);
            }
        }
    }
    PyObject *object = addr_build(address, length);
    struct addr addr;
    if (object != NULL && entry != NULL && addr_keep(&addr, address, length)) {
        cache->last = entry;
        entry_set(entry, &addr, object);
    }
    if (object == NULL && !PyErr_Occurred()) {
        object = Py_NewRef(Py_None);    /* a family whose addresses only Python knows */
    }
    return object;
}

/* The numeric form of a target, or length 0. */
static void
datagram_target(Datagram *dgram, PyObject *address, struct addr *addr)
{
    struct address_cache *cache = datagram_cache(dgram);
    if (cache != NULL && cache->last != NULL && cache->last->object == address) {
        *addr = cache->last->addr;    /* an answer */
        return;
    }
    struct address_entry *entry =
        cache != NULL ? &cache->targets[slot_of((uint64_t)(uintptr_t)address)] : NULL;
    if (entry != NULL && entry->object == address) {
        *addr = entry->addr;
        return;
    }
    if (!addr_parse(addr, dgram->family, address)) {
        addr->length = 0;
    }
    else if (entry != NULL) {
        entry_set(entry, addr, address);
    }
}

/* -- telling the protocol --------------------------------------------------------------- */

/* The current OSError goes to error_received(). 0, or -1 with what has to leave the loop or
 * reach the caller. */
static int
datagram_error(Datagram *dgram)
{
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *result = proto_call(&dgram->base.proto, dgram->base.state->names.error_received, exc);
    Py_DECREF(exc);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
datagram_errno(Datagram *dgram, int err)
{
    errno = err;
    PyErr_SetFromErrno(PyExc_OSError);
    return datagram_error(dgram);
}

/* What datagram_received() or error_received() raised, out of the poll: as in asyncio the
 * exception handler is told and the endpoint stays open. 0, or -1 with an exit exception. */
static int
datagram_raised(Datagram *dgram, Loop *loop, bool reading)
{
    if (is_exit_exception()) {
        return -1;
    }
    const char *message = reading ? "Exception in callback _SelectorDatagramTransport._read_ready()"
                                  : "Exception in callback _SelectorDatagramTransport._sendto_ready()";
    loop_report(loop, message, "transport", (PyObject *)dgram);
    return 0;
}

/* Steals the sender. Either may be NULL with an exception set. 0, or -1 with an exit exception. */
static int
datagram_deliver(Datagram *dgram, Loop *loop, PyObject *data, PyObject *sender_steal)
{
    PyObject *args[3] = {NULL, data, sender_steal};
    PyObject *result = NULL;
    if (LIKELY(data != NULL && sender_steal != NULL)) {
        result = proto_call_method(&dgram->base.proto, dgram->base.state->names.datagram_received,
                                   args, 3);
    }
    Py_XDECREF(sender_steal);
    if (UNLIKELY(result == NULL)) {
        return datagram_raised(dgram, loop, true);
    }
    Py_DECREF(result);
    return 0;
}

/* Makes the message and hands it over. 0, or -1 with an exit exception. */
static int
datagram_received(Datagram *dgram, Loop *loop, const char *data, size_t n,
                  const struct sockaddr *address, socklen_t length)
{
    struct state *state = dgram->base.state;
    size_t capacity;
    PyObject *packet = packet_new(state, data, n, &capacity);
    PyObject *sender = packet == NULL ? NULL : datagram_sender(dgram, address, length);
    int result = datagram_deliver(dgram, loop, packet, sender);
    if (LIKELY(packet != NULL)) {
        packet_done(state, packet, capacity);
    }
    return result;
}

/* -- by the socket's own methods ------------------------------------------------------------ */

/* May system calls do what asyncio has the socket do? */
static inline bool
datagram_is_native(Datagram *dgram)
{
    return dgram->base.file == NULL
           || standard_socket_has_all(dgram->base.state, dgram->base.file,
                                      1u << SOCKET_RECVFROM | 1u << SOCKET_SENDTO | 1u << SOCKET_SEND
                                          | 1u << SOCKET_GETATTRIBUTE);
}

/* One message by recvfrom(). 0, or -1 with an exit exception. */
static int
datagram_read_by_method(Datagram *dgram, Loop *loop)
{
    PyObject *file = Py_NewRef(dgram->base.file);
    PyObject *size = PyLong_FromSize_t(SCRATCH_BYTES);
    PyObject *pair = size == NULL ? NULL
                                  : PyObject_CallMethodOneArg(file, dgram->base.state->names.recvfrom,
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
            int result = datagram_error(dgram);
            return result < 0 ? datagram_raised(dgram, loop, true) : 0;
        }
        return transport_fatal(&dgram->base, "Fatal read error on datagram transport");
    }
    PyObject *data = PySequence_GetItem(pair, 0);
    PyObject *sender = data == NULL ? NULL : PySequence_GetItem(pair, 1);
    Py_DECREF(pair);
    int result = datagram_deliver(dgram, loop, data, sender);
    Py_XDECREF(data);
    return result;
}

/* -- receiving ----------------------------------------------------------------------------- */

/* One message. 0, or -1 with an exit exception; nothing was there: *more is false. */
static int
datagram_read(Datagram *dgram, Loop *loop, bool *more)
{
    char *buffer = scratch_take(loop);
    if (UNLIKELY(buffer == NULL)) {
        return transport_fatal(&dgram->base, "Fatal read error on datagram transport");
    }
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    ssize_t n;
    do {
        n = recvfrom(dgram->base.fd, buffer, SCRATCH_BYTES, MSG_DONTWAIT,
                     (struct sockaddr *)&address, &length);
    } while (UNLIKELY(n < 0 && errno == EINTR));
    int result = 0;
    if (LIKELY(n >= 0)) {
        COUNT(loop->counters->bytes_in, (uint64_t)n);
        result = datagram_received(dgram, loop, buffer, (size_t)n, (struct sockaddr *)&address,
                                   length);
    }
    else {
        *more = false;
        if (errno != EAGAIN && errno != EWOULDBLOCK && datagram_errno(dgram, errno) < 0) {
            result = datagram_raised(dgram, loop, true);
        }
    }
    scratch_give(loop, buffer);
    return result;
}

/* In a callback of the only event of a poll: does nothing else wait, and does nobody count iterations, so
 * that the next one would only ask the kernel for the next event? Then it may be told at once. */
static bool
loop_has_only_this_event(const Loop *loop)
{
    return loop->fds.events == 1 && !loop->fds.fresh && ready_length(&loop->ready) == 0
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
    return transport_wants_data(&dgram->base) && dgram->base.loop == loop && !io_is_gone(&dgram->base.io)
           && loop_has_only_this_event(loop) && datagram_is_native(dgram);
}

/* 0, or -1 with an exit exception */
static int
datagram_read_several(Datagram *dgram, Loop *loop)
{
    bool more = true;
    int result = 0;
    for (int n = 0; n < DATAGRAM_BUDGET && more && result == 0; n++) {
        if (n > 0) {
            loop_step_done(loop);
            if (!datagram_may_go_on(dgram, loop)) {
                break;
            }
        }
        result = datagram_read(dgram, loop, &more);
    }
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
    else if (LIKELY(transport_wants_data(&dgram->base))) {
        result = LIKELY(datagram_is_native(dgram)) ? datagram_read_several(dgram, loop)
                                                   : datagram_read_by_method(dgram, loop);
    }
    if (UNLIKELY(result < 0)) {
        loop_propagate(loop);
    }
    Py_DECREF(dgram);
}

/* -- the queue --------------------------------------------------------------------------------- */

static size_t
datagram_queued(Transport *tr)
{
    return ((Datagram *)tr)->queued_bytes;
}

static inline struct datagram *
queue_at(Datagram *dgram, size_t i)
{
    return &dgram->queue[(dgram->queue_head + i) & (dgram->queue_capacity - 1)];
}

static int
queue_push(Datagram *dgram, PyObject *data_steal, PyObject *address, const struct addr *target)
{
    if (dgram->queue_length == dgram->queue_capacity) {
        size_t capacity = dgram->queue_capacity == 0 ? 16 : dgram->queue_capacity * 2;
        struct datagram *queue = PyMem_New(struct datagram, capacity);
        if (queue == NULL) {
            Py_DECREF(data_steal);
            PyErr_NoMemory();
            return -1;
        }
        for (size_t i = 0; i < dgram->queue_length; i++) {
            queue[i] = *queue_at(dgram, i);
        }
        PyMem_Free(dgram->queue);
        dgram->queue = queue;
        dgram->queue_head = 0;
        dgram->queue_capacity = capacity;
    }
    struct datagram *item = queue_at(dgram, dgram->queue_length++);
    item->data = data_steal;
    item->address = Py_XNewRef(address);
    item->target = *target;
    dgram->queued_bytes += (size_t)PyBytes_GET_SIZE(data_steal) + DATAGRAM_OVERHEAD;
    return 0;
}

static void
queue_pop(Datagram *dgram)
{
    struct datagram item = *queue_at(dgram, 0);
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

static void
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
    SEND_REFUSED,   /* one about its bytes, for the caller */
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
    if (LIKELY(dgram->base.loop != NULL)) {
        COUNT(dgram->base.loop->counters->bytes_out, n);
    }
}

static enum send_outcome
send_by_kernel(Datagram *dgram, const void *data, size_t n, const struct addr *target)
{
    const struct sockaddr *to = target->length > 0 ? &target->any : NULL;
    if (io_is_gone(&dgram->base.io)) {
        errno = EBADF;
        return send_failed();
    }
    ssize_t sent;
    do {
        sent = sendto(dgram->base.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL, to, target->length);
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
    return dgram->base.peer_addr.length > 0
           || (dgram->base.peername != NULL && dgram->base.peername != Py_None);
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
static int
datagram_audit(Datagram *dgram, PyObject *address)
{
    return is_connected(dgram) || address == NULL
               ? 0
               : PySys_Audit("socket.sendto", "OO", dgram->base.file, address);
}

static enum send_outcome
datagram_try_send(Datagram *dgram, PyObject *data, const void *bytes, size_t n, PyObject *address,
                  const struct addr *target)
{
    if (UNLIKELY((!is_connected(dgram) && target->length == 0) || !datagram_is_native(dgram))) {
        return send_by_python(dgram, data, address != NULL ? address : Py_None);
    }
    if (datagram_audit(dgram, address) < 0) {
        return SEND_FAILED;
    }
    return send_by_kernel(dgram, bytes, n, target);
}

#ifdef __linux__
/* Sends as many of the queued messages as one call takes; the number is in *count. */
static enum send_outcome
send_batch(Datagram *dgram, size_t *count)
{
    enum { MAX = 64 };
    struct mmsghdr messages[MAX];
    struct iovec iov[MAX];
    unsigned int length = 0;
    for (; length < MAX && length < dgram->queue_length; length++) {
        struct datagram *item = queue_at(dgram, length);
        if (item->target.length == 0 && !is_connected(dgram)) {
            break;
        }
        PyObject *address = Py_XNewRef(item->address);
        int refused = datagram_audit(dgram, address);
        Py_XDECREF(address);
        if (refused < 0 && length == 0) {
            *count = 0;
            return SEND_FAILED;
        }
        if (refused < 0) {
            PyErr_Clear();    /* the next call comes to it */
            break;
        }
        iov[length] = (struct iovec){
            .iov_base = PyBytes_AS_STRING(item->data),
            .iov_len = (size_t)PyBytes_GET_SIZE(item->data),
        };
        messages[length] = (struct mmsghdr){
            .msg_hdr = {
                .msg_iov = &iov[length],
                .msg_iovlen = 1,
                .msg_name = item->target.length > 0 ? &item->target.any : NULL,
                .msg_namelen = item->target.length,
            },
        };
    }
    *count = 0;
    if (length == 0 || !datagram_is_native(dgram)) {
        return SEND_DONE;
    }
    if (io_is_gone(&dgram->base.io)) {
        errno = EBADF;
        return send_failed();
    }
    int sent;
    do {
        sent = sendmmsg(dgram->base.fd, messages, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        *count = (size_t)sent;
        return SEND_DONE;
    }
    return send_failed();
}
#else
static enum send_outcome
send_batch(Datagram *dgram UNUSED, size_t *count)
{
    *count = 0;
    return SEND_DONE;
}
#endif

/* Drops the messages before that number, as far as they are still there; keeps the exception. */
static void
queue_pop_until(Datagram *dgram, size_t number)
{
    PyObject *exc = PyErr_GetRaisedException();
    while (dgram->queue_length > 0 && dgram->queue_number < number) {
        queue_pop(dgram);
    }
    PyErr_SetRaisedException(exc);
}

/* Sends the oldest messages, or fails with the first one and drops it. SEND_FULL: the first one has
 * to wait. */
static enum send_outcome
flush_some(Datagram *dgram)
{
    size_t number = dgram->queue_number, count;
    enum send_outcome outcome = send_batch(dgram, &count);
    if (outcome == SEND_DONE && count == 0) {
        struct datagram *item = queue_at(dgram, 0);
        PyObject *data = Py_NewRef(item->data);
        PyObject *address = Py_XNewRef(item->address);
        struct addr target = item->target;
        outcome = datagram_try_send(dgram, data, PyBytes_AS_STRING(data),
                                    (size_t)PyBytes_GET_SIZE(data), address, &target);
        Py_DECREF(data);
        Py_XDECREF(address);
        count = outcome != SEND_FULL;
    }
    else if (outcome == SEND_FAILED) {
        count = 1;
    }
    queue_pop_until(dgram, number + count);
    return outcome;
}

static int
datagram_flush(Datagram *dgram)
{
    while (dgram->queue_length > 0) {
        enum send_outcome outcome = flush_some(dgram);
        if (outcome == SEND_FULL) {
            break;
        }
        if (outcome == SEND_FAILED) {
            return datagram_failed_write(dgram);    /* the next event goes on behind it */
        }
        if (dgram->base.conn_lost > 0) {
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

static void
datagram_on_writable(struct watch *watch, int revents)
{
    Datagram *dgram = container_of(watch, Datagram, base.write_watch);
    Loop *loop = watch_loop(watch);
    Py_INCREF(dgram);
    int result = UNLIKELY(revents & EV_ERROR) ? transport_descriptor_gone(&dgram->base)
                                              : datagram_flush(dgram);
    if (UNLIKELY(result < 0) && datagram_raised(dgram, loop, false) < 0) {
        loop_propagate(loop);
    }
    Py_DECREF(dgram);
}

/* -- sendto() -------------------------------------------------------------------------------------- */

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
    if (*address != NULL) {
        int equal = PyObject_RichCompareBool(*address, dgram->address, Py_EQ);
        if (equal < 0) {
            return -1;
        }
        if (!equal) {
            PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S", dgram->address);
            return -1;
        }
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
        case SEND_REFUSED:
            return -1;
        case SEND_FAILED:
            return datagram_failed_write(dgram);
        case SEND_FULL:
            break;
        }
        if (dgram->base.conn_lost > 0) {
            return 0;    /* nobody would come to send it */
        }
        if (watch_start(&dgram->base.write_watch) < 0) {
            return -1;
        }
    }
    return datagram_enqueue(dgram, data, address, &target);
}

static PyObject *
Datagram_sendto(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP_OF(op, Transport);
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
        Py_ssize_t length = PyObject_Length(data);
        if (length <= 0) {
            return length < 0 ? NULL : Py_NewRef(Py_None);
        }
    }
    if (check_target(dgram, &address) < 0) {
        return NULL;
    }
    /* As asyncio: an endpoint without a fixed target sends until its socket is closed. */
    if (dgram->base.loop == NULL || dgram->base.file_closed
        || (dgram->base.conn_lost > 0 && dgram->address != NULL)) {
        transport_drop_write(&dgram->base);
        return Py_NewRef(Py_None);
    }
    Py_INCREF(dgram);
    Py_XINCREF(address);
    int result = datagram_sendto(dgram, data, address);
    Py_XDECREF(address);
    Py_DECREF(dgram);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* -- life ---------------------------------------------------------------------------------------------- */

static void
datagram_clear_cache(Datagram *dgram)
{
    struct address_cache *cache = dgram->cache;
    dgram->cache = NULL;
    for (int i = 0; cache != NULL && i < ADDRESS_CACHE_SIZE; i++) {
        Py_CLEAR(cache->senders[i].object);
        Py_CLEAR(cache->targets[i].object);
    }
    PyMem_Free(cache);
}

static void
datagram_lost(Transport *tr)
{
    datagram_clear_cache((Datagram *)tr);
}

static const struct transport_kind datagram_kind = {
    .is_socket = true,
    .has_output = true,
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
        Py_VISIT(queue_at(dgram, i)->address);
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

PyObject *
datagram_new(Loop *loop, PyObject *sock, int fd, PyObject *protocol, PyObject *address,
             PyObject *waiter, PyObject *extra)
{
    PyObject *family = PyObject_GetAttrString(sock, "family");
    long number = family == NULL ? -1 : PyLong_AsLong(family);
    Py_XDECREF(family);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    Transport *tr = transport_new(net_state(loop->state)->datagrams.Type, &datagram_kind, loop, sock, fd,
                                  protocol, extra, NULL, NULL);
    if (tr == NULL) {
        return NULL;
    }
    Datagram *dgram = (Datagram *)tr;
    dgram->family = (int)number;
    dgram->address = Py_XNewRef(address);
    io_init_socket(&tr->io, fd, transport_socket_number(loop->state, sock, fd));
    tr->read_watch.ready = datagram_on_readable;
    tr->write_watch.ready = datagram_on_writable;
    if (transport_set_peer(tr, NULL, 0) < 0 || transport_begin(tr, waiter) < 0) {
        transport_undo(tr);
        return NULL;
    }
    return (PyObject *)tr;
}

static PyObject *
Datagram_get_address(PyObject *op, void *closure UNUSED)
{
    PyObject *address = datagram_cast(op)->address;
    return Py_NewRef(address != NULL ? address : Py_None);
}

/* What waits, as asyncio's deque of (data, address). */
static PyObject *
Datagram_get_buffer(PyObject *op, void *closure UNUSED)
{
    OWN_LOOP_OF(op, Transport);
    Datagram *dgram = datagram_cast(op);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < dgram->queue_length; i++) {
        struct datagram *item = queue_at(dgram, i);
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
    OWN_LOOP_OF(op, Transport);
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
    {"_address", Datagram_get_address, NULL, NULL, NULL},
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
    if (!PyArg_ParseTuple(args, "O!OOOOO:_datagram_new", loop_state(state)->loops.Type, &loop, &sock, &protocol,
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
     PyDoc_STR("_datagram_new(loop, sock, protocol, address, waiter, extra, /)\n--\n\n"
               "A transport over a datagram socket, which it owns from now on.")},
    {NULL, NULL, 0, NULL},
};

int
datagram_type_init(PyObject *module, struct state *state)
{
    STATE_OWN(state, &net_state(state)->datagrams);
    PyObject *transports = PyImport_ImportModule("asyncio.transports");
    PyObject *base = transports == NULL
                         ? NULL
                         : PyObject_GetAttrString(transports, "DatagramTransport");
    PyObject *bases = base == NULL ? NULL : PyTuple_Pack(2, net_state(state)->transports.Type, base);
    PyObject *type = bases == NULL ? NULL : PyType_FromModuleAndSpec(module, &Datagram_spec, bases);
    Py_XDECREF(bases);
    Py_XDECREF(base);
    Py_XDECREF(transports);
    if (type == NULL) {
        return -1;
    }
    net_state(state)->datagrams.Type = (PyTypeObject *)type;
    if (PyModule_AddType(module, net_state(state)->datagrams.Type) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, datagram_functions);
}
