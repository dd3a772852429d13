/* ops_loop.h - the part of a Loop that is ops/'s; streams/ adds none: see loop/loop.h. */
#ifndef ASYNCLOOP_OPS_LOOP_H
#define ASYNCLOOP_OPS_LOOP_H

#include "tls/tls_loop.h"

struct ops_loop {
    struct tls_loop below;
    struct look_ups *look_ups;    /* look_up.c; NULL until a name was looked up */
    struct list_node waiting_operations;    /* operation.c */
    int64_t operations_checked_ns;
};

static inline struct ops_loop *
ops_loop(Loop *loop)
{
    return (struct ops_loop *)loop;
}

#endif
