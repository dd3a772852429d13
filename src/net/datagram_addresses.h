/* datagram_addresses.h - the addresses of datagrams: tuples and their numeric forms, kept. */
#ifndef ASYNCLOOP_DATAGRAM_ADDRESSES_H
#define ASYNCLOOP_DATAGRAM_ADDRESSES_H

#include "net/datagram.h"

#include <string.h>
#include <sys/socket.h>

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

PyObject *datagram_sender_slowly(Datagram *dgram, const struct sockaddr *address, socklen_t length);
void datagram_target_slowly(Datagram *dgram, PyObject *address, struct addr *addr);
void datagram_clear_cache(Datagram *dgram);    /* may run Python */

/* The tuple of a sender: new reference or NULL. */
static inline PyObject *
datagram_sender(Datagram *dgram, const struct sockaddr *address, socklen_t length)
{
    const struct address_cache *cache = dgram->cache;
    if (LIKELY(cache != NULL && cache->last != NULL && addr_equal(&cache->last->addr, address, length))) {
        return Py_NewRef(cache->last->object);    /* the same as before */
    }
    return datagram_sender_slowly(dgram, address, length);
}

/* The numeric form of a target, or length 0. */
static inline void
datagram_target(Datagram *dgram, PyObject *address, struct addr *addr)
{
    const struct address_cache *cache = dgram->cache;
    if (LIKELY(cache != NULL && cache->last != NULL && cache->last->object == address)) {
        *addr = cache->last->addr;    /* an answer */
    }
    else {
        datagram_target_slowly(dgram, address, addr);
    }
}

#endif
