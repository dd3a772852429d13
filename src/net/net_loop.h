/* net_loop.h - the part of a Loop that is net/'s: see loop/loop.h. */
#ifndef ASYNCLOOP_NET_LOOP_H
#define ASYNCLOOP_NET_LOOP_H

#include "loop/loop.h"

struct net_loop {
    struct Loop below;
    struct unpushed {
        PyObject **streams;       /* borrowed: who dies leaves */
        uint32_t length;
        uint32_t capacity;
        int64_t pushed_ns;        /* when that came before the end of the turn */
    } unpushed;                   /* hold.h: streams of which the kernel holds output */
    void *behind_room;            /* stream_read.c: of malloc(), or NULL */
};

static inline struct net_loop *
net_loop(Loop *loop)
{
    return (struct net_loop *)loop;
}

#endif
