/* datagram.h - the transport of datagrams: UDP and Unix datagram sockets.
 *
 * Each message keeps its borders; an error of one message goes to error_received() and
 * leaves the endpoint as it is. */
#ifndef ASYNCLOOP_DATAGRAM_H
#define ASYNCLOOP_DATAGRAM_H

#include "base/tuning.h"
#include "net/transport.h"

/* A message that waits to be sent. */
struct datagram {
    PyObject *data;               /* exact bytes, strong */
    PyObject *address;            /* as the user gave it; strong; NULL: the connected peer */
    struct addr target;           /* its numeric form; length 0: not known, ask the socket */
};

/* Addresses that were converted lately. A new one takes the place of another that shares its
 * slot. The tuples are immutable, and so is what they hold. (Guarded path datagram, which takes 30 % more
 * instructions without; 2026-11-30.) */
#define ADDRESS_CACHE_SIZE TUNED(ADDRESS_CACHE_SIZE, 128)    /* slots in each direction; a power of two from 2 on */

struct address_entry {
    struct addr addr;
    PyObject *object;             /* the tuple, strong; NULL: empty */
};

struct address_cache {
    struct address_entry senders[ADDRESS_CACHE_SIZE];    /* by address, two ways; tuples that we made */
    struct address_entry targets[ADDRESS_CACHE_SIZE];    /* by the tuple's identity */
    struct address_entry *last;                          /* the latest sender, or NULL */
};

typedef struct {
    Transport base;
    PyObject *address;            /* _address: the only allowed target, or NULL */
    struct datagram *queue;       /* a ring */
    size_t queue_head;
    size_t queue_length;
    size_t queue_number;          /* how many messages have left the queue so far */
    size_t queue_capacity;        /* a power of two, or 0 */
    size_t queued_bytes;          /* with DATAGRAM_OVERHEAD for each */
    struct address_cache *cache;  /* made with the first address */
    int family;
    bool address_deleted;         /* del transport._address */
} Datagram;

#endif
