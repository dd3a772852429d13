/* datagram.h - the transport of datagrams: UDP and Unix datagram sockets.
 *
 * Each message keeps its borders; an error of one message goes to error_received() and
 * leaves the endpoint as it is. */
#ifndef ASYNCLOOP_DATAGRAM_H
#define ASYNCLOOP_DATAGRAM_H

#include "transport.h"

/* A message that waits to be sent. */
struct datagram {
    PyObject *data;               /* exact bytes, strong */
    PyObject *address;            /* as the user gave it; strong; NULL: the connected peer */
    struct addr target;           /* its numeric form; length 0: not known, ask the socket */
};

/* Addresses that were converted lately, in either direction. */
#define ADDRESS_CACHE_SIZE 8

struct address_cache {
    struct {
        struct addr addr;         /* length 0: empty */
        PyObject *object;         /* the tuple; strong. Immutable, and so is what it holds */
        bool canonical;           /* it is what the socket module gives for this address */
    } entries[ADDRESS_CACHE_SIZE];
    unsigned int next;            /* the entry that goes first */
};

typedef struct {
    Transport base;
    PyObject *address;            /* _address: the only allowed target, or NULL */
    PyObject *held;               /* list of (bytes, sender) to deliver before more is received, or NULL */
    struct datagram *queue;       /* a ring */
    size_t queue_head;
    size_t queue_length;
    size_t queue_capacity;        /* a power of two, or 0 */
    size_t queued_bytes;          /* with DATAGRAM_OVERHEAD for each */
    struct address_cache *cache;  /* made with the first address */
    int family;
} Datagram;

int datagram_type_init(PyObject *module, struct state *state);

/* A transport over a bound or connected, non-blocking socket. `address`, `waiter` and
 * `extra` may be NULL. `sock` belongs to the transport on success only. New reference. */
PyObject *datagram_new(Loop *loop, PyObject *sock, int fd, PyObject *protocol,
                       PyObject *address, PyObject *waiter, PyObject *extra);

#endif
