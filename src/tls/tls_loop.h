/* tls_loop.h - the part of a Loop that is tls/'s: see loop/loop.h. */
#ifndef ASYNCLOOP_TLS_LOOP_H
#define ASYNCLOOP_TLS_LOOP_H

#include "net/net_loop.h"

struct tls_loop {
    struct net_loop below;
    struct list_node pending;     /* TLS transports whose output waits (borrowed) */
    int64_t handshakes_at_ns;     /* now_ns of the iteration that the next field is about */
    int64_t handshakes_took_ns;
};

static inline struct tls_loop *
tls_loop(Loop *loop)
{
    return (struct tls_loop *)loop;
}

#endif
