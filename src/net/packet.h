/* packet.h - the bytes objects that carry received data to a protocol.
 *
 * Most protocols are done with a packet when their method returns, and the next packet
 * mostly has about the same length. If nobody else holds the bytes object by then, the next
 * packet goes into it: for lengths that neither Python's nor malloc's quick lists serve,
 * that saves 15 % of the instructions of an echo of 1 KiB, and 1 to 3 % of its time (guarded paths protocol,
 * datagram; benchmark rows: Protocol echo, UDP). */
#ifndef ASYNCLOOP_PACKET_H
#define ASYNCLOOP_PACKET_H

#include <string.h>

#include "base/checked.h"
#include "base/tuning.h"
#include "net/net_state.h"

/* Bytes; below, Python's own allocator is as quick. (Guarded path protocol, which takes 20 % more instructions
 * without an object that is kept.) */
#define SPARE_MIN TUNED(SPARE_MIN, 512)

/* Is a packet of n bytes worth an object with room for `capacity`? It may be kept for long. */
static inline bool
spare_fits(size_t capacity, size_t n)
{
    return n <= capacity && n >= capacity - capacity / 8;
}

static inline PyObject *
spare_take(struct state *state, size_t *capacity)
{
    PyObject *bytes = net_state(state)->packets.bytes;
    net_state(state)->packets.bytes = NULL;
    *capacity = net_state(state)->packets.capacity;
    return bytes;
}

/* Ends a packet of n bytes that lie in an object with more room. */
static inline void
packet_set_length(PyObject *bytes, size_t n)
{
    VERIFY(PyBytes_CheckExact(bytes) && Py_REFCNT(bytes) == 1);
    /* clang-format off */
    _Py_COMP_DIAG_PUSH
    _Py_COMP_DIAG_IGNORE_DEPR_DECLS
    ((PyBytesObject *)bytes)->ob_shash = -1;
    _Py_COMP_DIAG_POP
    /* clang-format on */
    Py_SET_SIZE(bytes, (Py_ssize_t)n);
    PyBytes_AS_STRING(bytes)[n] = '\0';
}

/* New reference to an exact bytes object, and how many bytes it has room for. */
static inline PyObject *
packet_new(struct state *state UNUSED, const char *data, size_t n, size_t *capacity)
{
#ifndef Py_GIL_DISABLED
    if (net_state(state)->packets.bytes != NULL && spare_fits(net_state(state)->packets.capacity, n)) {
        PyObject *bytes = spare_take(state, capacity);
        packet_set_length(bytes, n);
        memcpy(PyBytes_AS_STRING(bytes), data, n);
        return bytes;
    }
#endif
    *capacity = n;
    return PyBytes_FromStringAndSize(data, (Py_ssize_t)n);
}

/* The same with room for `wanted` bytes, or a little more, that come later. */
static inline PyObject *
packet_reserve(struct state *state UNUSED, size_t wanted, size_t *capacity)
{
#ifndef Py_GIL_DISABLED
    if (LIKELY(net_state(state)->packets.bytes != NULL && spare_fits(net_state(state)->packets.capacity, wanted))) {
        return spare_take(state, capacity);
    }
#endif
    *capacity = wanted;
    return PyBytes_FromStringAndSize(NULL, (Py_ssize_t)wanted);
}

static inline void
packet_done(struct state *state, PyObject *bytes_steal, size_t capacity)
{
    VERIFY(verify_lives(bytes_steal) && (size_t)PyBytes_GET_SIZE(bytes_steal) <= capacity);
#ifndef Py_GIL_DISABLED
    if (LIKELY(Py_REFCNT(bytes_steal) == 1 && capacity > SPARE_MIN) && SHORT_WAY(packets)) {
        PyObject *old = net_state(state)->packets.bytes;
        net_state(state)->packets.bytes = bytes_steal;
        net_state(state)->packets.capacity = capacity;
        Py_XDECREF(old);
        return;
    }
#else
    (void)state;
    (void)capacity;
#endif
    Py_DECREF(bytes_steal);
}

#endif
