/* datagram_inside.h - what the files of datagrams share: receiving with the type, and sending. */
#ifndef ASYNCLOOP_DATAGRAM_INSIDE_H
#define ASYNCLOOP_DATAGRAM_INSIDE_H

#include "net/datagram.h"

#include "base/standard.h"

static inline Datagram *
datagram_cast(PyObject *op)
{
    return (Datagram *)op;
}

/* May system calls do what asyncio has the socket do? */
static inline bool
datagram_is_native(Datagram *dgram)
{
    return dgram->base.file == NULL
           || standard_socket_has_all(dgram->base.head.state, dgram->base.file,
                                      1u << SOCKET_RECVFROM | 1u << SOCKET_SENDTO | 1u << SOCKET_SEND
                                          | 1u << SOCKET_GETATTRIBUTE);
}

/* -- datagram_send.c: the queue, and sending -------------------------------------------- */

static inline struct datagram *
datagram_at(Datagram *dgram, size_t i)
{
    return &dgram->queue[(dgram->queue_head + i) & (dgram->queue_capacity - 1)];
}

size_t datagram_queued(Transport *tr);
void datagram_discard_output(Transport *tr);
void datagram_on_writable(struct watch *watch, int revents);
PyObject *Datagram_sendto(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* The current OSError goes to error_received(). 0, or -1 with what has to leave the loop or
 * reach the caller. */
int datagram_error(Datagram *dgram);

#endif
