/* packet.h - the bytes objects that carry received data to a protocol.
 *
 * Most protocols are done with a packet when their method returns, and the next packet
 * mostly has about the same length. If nobody else holds the bytes object by then, the next
 * packet goes into it: for lengths that neither Python's nor malloc's quick lists serve,
 * that saves a quarter of the instructions of an echo (benchmark rows: Protocol echo, UDP). */
#ifndef ASYNCLOOP_PACKET_H
#define ASYNCLOOP_PACKET_H

#include <string.h>

#include "state.h"

#define SPARE_MIN 512    /* bytes; below, Python's own allocator is as quick */

/* Is a packet of n bytes worth an object with room for `capacity`? It may be kept for long. */
static inline bool
spare_fits(size_t capacity, size_t n)
{
    return n <= capacity && n >= capacity - capacity / 8;
}

/* New reference to an exact bytes object, and how many bytes it has room for. */
static inline PyObject *
packet_new(struct state *state UNUSED, const char *data, size_t n, size_t *capacity)
{
#ifndef Py_GIL_DISABLED
    PyObject *bytes = state->spare.bytes;
    if (bytes != NULL && spare_fits(state->spare.capacity, n)) {
        state->spare.bytes = NULL;
        *capacity = state->spare.capacity;
        _Py_COMP_DIAG_PUSH
        _Py_COMP_DIAG_IGNORE_DEPR_DECLS
        ((PyBytesObject *)bytes)->ob_shash = -1;
        _Py_COMP_DIAG_POP
        Py_SET_SIZE(bytes, (Py_ssize_t)n);
        memcpy(PyBytes_AS_STRING(bytes), data, n);
        PyBytes_AS_STRING(bytes)[n] = '\0';
        return bytes;
    }
#endif
    *capacity = n;
    return PyBytes_FromStringAndSize(data, (Py_ssize_t)n);
}

static inline void
packet_done(struct state *state, PyObject *bytes_steal, size_t capacity)
{
#ifndef Py_GIL_DISABLED
    if (LIKELY(Py_REFCNT(bytes_steal) == 1 && capacity > SPARE_MIN)) {
        PyObject *old = state->spare.bytes;
        state->spare.bytes = bytes_steal;
        state->spare.capacity = capacity;
        Py_XDECREF(old);
        return;
    }
#else
    (void)state; (void)capacity;
#endif
    Py_DECREF(bytes_steal);
}

#endif
