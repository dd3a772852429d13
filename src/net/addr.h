/* addr.h - socket addresses: the kernel's form and Python's.
 *
 * A transport keeps an address in the kernel's form and makes Python's only when
 * somebody asks: most connections are never asked. */
#ifndef ASYNCLOOP_ADDR_H
#define ASYNCLOOP_ADDR_H

#include "base/compat.h"

#include <netinet/in.h>
#include <sys/socket.h>

/* An address of the internet families; length 0: not known. */
struct addr {
    socklen_t length;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    };
};

/* Python's form of an address as the socket module gives it: new reference, None for an
 * empty one. NULL with an exception; NULL without one for a family that we do not know. */
PyObject *addr_build(const struct sockaddr *address, socklen_t length);

/* Has addr_build() a form of all addresses of that family? */
static inline bool
addr_family_is_known(int family)
{
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

/* The kernel's form of exactly (host, port) or (host, port, flow, scope), with a numeric host
 * of that family. False (and no exception) for everything else. */
bool addr_parse(struct addr *addr, int family, PyObject *object);

/* Keeps an address if it is of an internet family: true if it was. */
bool addr_keep(struct addr *addr, const struct sockaddr *address, socklen_t length);

#endif
